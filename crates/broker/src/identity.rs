//! Agents: who calls, and how they show it.
//!
//! Three proofs count: a bearer token that `toolgate agent add` minted, the user id at the other end of a Unix socket
//! as the kernel reports it, and an access token of the configured authorization server. Nobody comes in without one but
//! the demo agent, where the demo is open (see [`crate::demo`]).

mod jwt;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use subtle::ConstantTimeEq as _;
use toolgate_core::call::{Agent, Proof};
use toolgate_core::digest::Digest;
use toolgate_core::json::{ObjectWriter, quote};
use toolgate_core::name::{AgentId, GroupName};
use toolgate_core::policy::DEMO;
use zeroize::Zeroizing;

use crate::config::{AgentRules, Config, OAuth};
use crate::demo;
use crate::store::AgentRow;
use crate::totp::{base32, from_base32};

pub use jwt::{Claims, JwtError, KeySet, KeySetError, Verifier};

/// What every token of ours starts with, so that scanners for lost secrets can find it.
const PREFIX: &str = "tg_";

/// A bearer token. It is shown once, when it is minted; the store keeps its [`TokenHash`].
pub struct Token(Zeroizing<[u8; 32]>);

impl Token {
    /// The token made of these random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// Reads a token. A slip of the pen is told from a token that nobody has: the last letters are a checksum.
    ///
    /// # Errors
    /// It is no token of ours, or was not copied right.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let digits = text.strip_prefix(PREFIX).ok_or(IdentityError::NotAToken)?;
        if digits.len() > 64 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(IdentityError::Mistyped);
        }
        let bytes =
            from_base32(&digits.to_ascii_uppercase()).map(Zeroizing::new).ok_or(IdentityError::Mistyped)?;
        let (random, sum) = bytes.split_first_chunk::<32>().ok_or(IdentityError::Mistyped)?;
        if sum != checksum(random) {
            return Err(IdentityError::Mistyped);
        }
        Ok(Self::new(*random))
    }

    /// The token as its agent presents it.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.0.to_vec());
        bytes.extend_from_slice(&checksum(&self.0));
        Zeroizing::new(format!("{PREFIX}{}", Zeroizing::new(base32(&bytes)).to_ascii_lowercase()))
    }

    /// What the store keeps.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Digest::of("toolgate/token/v1", &[self.0.as_slice()]))
    }
}

/// Four bytes that a mistyped token does not have.
fn checksum(random: &[u8; 32]) -> [u8; 4] {
    let digest = Digest::of("toolgate/token-checksum/v1", &[random]);
    let [a, b, c, d, ..] = *digest.as_bytes();
    [a, b, c, d]
}

/// The SHA-256 digest of a token. The token has 256 random bits, so nothing slower is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash(pub Digest);

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The access token is not good.
    #[error(transparent)]
    AccessToken(#[from] JwtError),
    /// The access token is good, but has not the scopes it needs.
    #[error("the access token lacks the scope `{0}`")]
    InsufficientScope(String),
    /// The `Authorization` header has another form than `Bearer TOKEN`.
    #[error("the `Authorization` header is not `Bearer` and a token")]
    Malformed,
    /// There is no `Authorization` header.
    #[error("no token was presented")]
    Missing,
    /// It begins like a token of ours but was not copied right.
    #[error("the token was not copied right: its checksum does not fit")]
    Mistyped,
    /// It is no token of ours, and no other kind is accepted.
    #[error("this is no token of this gate")]
    NotAToken,
    /// The user at the other end of the socket is no agent.
    #[error("user {uid} is no agent; give one `peer_uid = {uid}` in the configuration")]
    UnknownPeer {
        /// The user's number.
        uid: u32,
    },
    /// The access token is good, but its subject is no agent.
    #[error("the subject of the access token is no agent")]
    UnknownSubject,
    /// The token has the right form, but no agent has it (any more).
    #[error("no agent has this token")]
    UnknownToken,
}

/// How an HTTP request without a good proof is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// 401 or 403.
    pub status: u16,
    /// The value of the `WWW-Authenticate` header.
    pub www_authenticate: String,
}

impl IdentityError {
    /// The answer of RFC 6750 and RFC 9728. `metadata` is the address of the resource metadata, if there is one.
    #[must_use]
    pub fn challenge(&self, metadata: Option<&str>) -> Challenge {
        let (status, error) = match self {
            Self::Missing => (401, String::new()),
            Self::InsufficientScope(scope) => (
                403,
                format!("error=\"insufficient_scope\", scope=\"{scope}\", error_description=\"{self}\""),
            ),
            Self::UnknownSubject | Self::UnknownPeer { .. } => {
                (403, format!("error=\"insufficient_scope\", error_description=\"{self}\""))
            }
            Self::AccessToken(_)
            | Self::Malformed
            | Self::Mistyped
            | Self::NotAToken
            | Self::UnknownToken => (401, format!("error=\"invalid_token\", error_description=\"{self}\"")),
        };
        let metadata = metadata.map(|url| format!("resource_metadata=\"{url}\""));
        let parts: Vec<String> = metadata.into_iter().chain((!error.is_empty()).then_some(error)).collect();
        let realm = if parts.is_empty() { "realm=\"toolgate\"".to_owned() } else { parts.join(", ") };
        Challenge { status, www_authenticate: format!("Bearer {realm}") }
    }
}

/// The agents that are known, and how to recognize them. Replaced as a whole when configuration or store change.
#[derive(Debug, Default)]
pub struct Roster {
    /// Keyed by the hash of the token. The map's own timing tells at most something about a hash, whose token it
    /// does not help to find.
    by_token: HashMap<TokenHash, Arc<Agent>>,
    by_uid: BTreeMap<u32, Arc<Agent>>,
    by_subject: BTreeMap<String, (AgentId, AgentRules)>,
    group_scopes: BTreeMap<String, GroupName>,
    required_scopes: Vec<String>,
    /// Who comes in without any proof, where the demo is open.
    anonymous: Option<Arc<Agent>>,
}

impl Roster {
    /// Puts together what the configuration and the store know. An agent is in all the groups that either gives it, as
    /// the policy was checked with; one that is disabled comes in by no proof. The demo is open exactly where its server is
    /// among the configured ones, a name that no configuration file can use.
    pub fn new(config: &Config, agents: &[AgentRow]) -> Self {
        let open =
            config.servers.keys().any(|server| server.as_str() == DEMO) && demo::is_open(config, agents);
        let groups = |id: &AgentId| -> BTreeSet<GroupName> {
            let configured = config.agents.get(id).into_iter().flat_map(|rules| &rules.groups);
            let stored = agents.iter().filter(|row| row.name == *id).flat_map(|row| &row.groups);
            configured.chain(stored).cloned().collect()
        };
        let agent = |id: &AgentId, proof| {
            Arc::new(Agent { id: id.clone(), groups: groups(id).into_iter().collect(), proof })
        };
        let by_token = agents
            .iter()
            .filter(|row| !row.disabled && row.name.as_str() != DEMO)
            .filter_map(|row| {
                let hash = TokenHash(Digest::from_bytes(row.token_hash?));
                Some((hash, agent(&row.name, Proof::Bearer)))
            })
            .collect();
        let enabled = || config.agents.iter().filter(|(id, _)| !is_disabled(agents, id));
        let by_uid = enabled().filter_map(|(id, rules)| {
            let uid = rules.peer_uid?;
            Some((uid, agent(id, Proof::Peer { uid })))
        });
        let by_subject = enabled().filter_map(|(id, rules)| {
            let rules = AgentRules { groups: groups(id), ..rules.clone() };
            Some((rules.oauth_subject.clone()?, (id.clone(), rules)))
        });
        let oauth = config.oauth.as_ref();
        Self {
            by_token,
            by_uid: by_uid.collect(),
            by_subject: by_subject.collect(),
            group_scopes: oauth.map(|o| o.group_scopes.clone()).unwrap_or_default(),
            required_scopes: oauth.map(|o| o.required_scopes.iter().cloned().collect()).unwrap_or_default(),
            anonymous: demo::agent().filter(|_| open).map(Arc::new),
        }
    }

    /// This roster without those whom the store does not let in any more. Nobody comes in who did not before.
    #[must_use]
    pub fn narrowed(&self, agents: &[AgentRow]) -> Self {
        let has_token = |hash: &TokenHash, agent: &Agent| {
            agents.iter().any(|row| {
                !row.disabled && row.name == agent.id && row.token_hash.as_ref() == Some(hash.0.as_bytes())
            })
        };
        let by_token = self.by_token.iter().filter(|(hash, agent)| has_token(hash, agent));
        let by_uid = self.by_uid.iter().filter(|(_, agent)| !is_disabled(agents, &agent.id));
        let by_subject = self.by_subject.iter().filter(|(_, (id, _))| !is_disabled(agents, id));
        Self {
            by_token: by_token.map(|(hash, agent)| (*hash, Arc::clone(agent))).collect(),
            by_uid: by_uid.map(|(uid, agent)| (*uid, Arc::clone(agent))).collect(),
            by_subject: by_subject.map(|(subject, known)| (subject.clone(), known.clone())).collect(),
            group_scopes: self.group_scopes.clone(),
            required_scopes: self.required_scopes.clone(),
            anonymous: self.anonymous.clone().filter(|_| agents.is_empty()),
        }
    }

    /// The agents for whom a way in that was good is, in the other roster, no longer good, or leads to another agent: revoked
    /// or replaced tokens, users and subjects that were taken away, other groups.
    #[must_use]
    pub fn put_out(&self, by: &Self) -> BTreeSet<AgentId> {
        let tokens = self.by_token.iter().filter(|(hash, agent)| by.by_token.get(hash) != Some(agent));
        let users = self.by_uid.iter().filter(|(uid, agent)| by.by_uid.get(uid) != Some(agent));
        let subjects =
            self.by_subject.iter().filter(|(subject, who)| by.by_subject.get(*subject) != Some(who));
        tokens
            .map(|(_, agent)| &agent.id)
            .chain(users.map(|(_, agent)| &agent.id))
            .chain(subjects.map(|(_, (id, _))| id))
            .chain(self.anonymous.iter().filter(|_| by.anonymous.is_none()).map(|agent| &agent.id))
            .cloned()
            .collect()
    }

    /// Recognizes an agent by the value of its `Authorization` header.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn authorization(
        &self,
        header: Option<&str>,
        verifier: Option<&Verifier>,
        now_s: u64,
    ) -> Result<Arc<Agent>, IdentityError> {
        let (scheme, token) =
            header.ok_or(IdentityError::Missing)?.split_once(' ').ok_or(IdentityError::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains(char::is_whitespace) {
            return Err(IdentityError::Malformed);
        }
        match verifier {
            Some(verifier) if !token.starts_with(PREFIX) => self.claimant(&verifier.verify(token, now_s)?),
            Some(_) | None => self.bearer(token),
        }
    }

    /// Recognizes an agent by a token of ours.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn bearer(&self, token: &str) -> Result<Arc<Agent>, IdentityError> {
        let hash = Token::parse(token)?.hash();
        let (known, agent) = self.by_token.get_key_value(&hash).ok_or(IdentityError::UnknownToken)?;
        if !bool::from(known.0.as_bytes().ct_eq(hash.0.as_bytes())) {
            return Err(IdentityError::UnknownToken);
        }
        Ok(Arc::clone(agent))
    }

    /// Recognizes an agent by the user at the other end of a Unix socket.
    ///
    /// # Errors
    /// The user is no agent.
    pub fn peer(&self, uid: u32) -> Result<Arc<Agent>, IdentityError> {
        self.by_uid.get(&uid).map(Arc::clone).ok_or(IdentityError::UnknownPeer { uid })
    }

    /// Who comes in without any proof: the demo agent, where the demo is open.
    #[must_use]
    pub fn anonymous(&self) -> Option<Arc<Agent>> {
        self.anonymous.clone()
    }

    /// Recognizes an agent by an access token that was verified.
    ///
    /// # Errors
    /// Its subject is no agent, or a scope is missing.
    pub fn claimant(&self, claims: &Claims) -> Result<Arc<Agent>, IdentityError> {
        let missing: Vec<&str> = self
            .required_scopes
            .iter()
            .filter(|scope| !claims.scopes.contains(*scope))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            return Err(IdentityError::InsufficientScope(self.required_scopes.join(" ")));
        }
        let (id, rules) = self.by_subject.get(&claims.subject).ok_or(IdentityError::UnknownSubject)?;
        let lent = self
            .group_scopes
            .iter()
            .filter(|(scope, _)| claims.scopes.contains(*scope))
            .map(|(_, group)| group);
        let groups: BTreeSet<GroupName> = rules.groups.iter().chain(lent).cloned().collect();
        let proof = Proof::OAuth { issuer: claims.issuer.clone(), subject: claims.subject.clone() };
        Ok(Arc::new(Agent { id: id.clone(), groups: groups.into_iter().collect(), proof }))
    }
}

/// Whether an agent was disabled.
fn is_disabled(agents: &[AgentRow], id: &AgentId) -> bool {
    agents.iter().any(|row| row.disabled && row.name == *id)
}

/// The metadata document of RFC 9728: where clients get tokens for this gate.
#[must_use]
pub fn resource_metadata(oauth: &OAuth) -> String {
    let mut scopes: Vec<&str> = oauth.required_scopes.iter().map(String::as_str).collect();
    scopes.extend(oauth.group_scopes.keys().map(String::as_str));
    scopes.sort_unstable();
    scopes.dedup();
    let list =
        |texts: &[&str]| format!("[{}]", texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(","));
    let document = ObjectWriter::new()
        .raw("authorization_servers", list(&[&oauth.issuer]).as_bytes())
        .raw("bearer_methods_supported", br#"["header"]"#)
        .string("resource", &oauth.audience)
        .string("resource_name", "Toolgate")
        .raw("scopes_supported", list(&scopes).as_bytes())
        .finish();
    String::from_utf8_lossy(&document).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Reach, Server};

    fn config() -> Config {
        Config::parse(
            std::path::Path::new("toolgate.toml"),
            r#"
[agents.support]
groups = ["helpdesk"]
peer_uid = 1000
oauth_subject = "client-1"
[oauth]
issuer = "https://login.example.org"
audience = "https://gate.example.org/mcp"
jwks_file = "keys.json"
required_scopes = ["toolgate"]
group_scopes = { "toolgate:admin" = "admins" }
"#,
        )
        .unwrap()
    }

    fn row(name: &str, token: &Token) -> AgentRow {
        AgentRow {
            name: name.parse().unwrap(),
            token_hash: Some(*token.hash().0.as_bytes()),
            uid: None,
            groups: Vec::new(),
            disabled: false,
            added_ms: 0,
        }
    }

    fn roster(token: &Token) -> Roster {
        Roster::new(&config(), &[row("support", token)])
    }

    #[test]
    fn an_agent_is_in_the_groups_of_configuration_and_store() {
        let token = Token::new([7; 32]);
        let rows = [AgentRow { groups: vec!["interns".parse().unwrap()], ..row("support", &token) }];
        let roster = Roster::new(&config(), &rows);
        let claims = Claims {
            issuer: "https://login.example.org".into(),
            subject: "client-1".into(),
            scopes: BTreeSet::from(["toolgate".to_owned()]).into_iter().collect(),
        };
        for agent in [
            roster.bearer(&token.reveal()).unwrap(),
            roster.peer(1000).unwrap(),
            roster.claimant(&claims).unwrap(),
        ] {
            let groups: Vec<&str> = agent.groups.iter().map(GroupName::as_str).collect();
            assert_eq!(groups, ["helpdesk", "interns"], "{:?}", agent.proof);
        }
    }

    #[test]
    fn a_disabled_or_removed_agent_is_let_in_by_no_proof() {
        let (token, other) = (Token::new([7; 32]), Token::new([8; 32]));
        let rows = [row("support", &token), row("other", &other)];
        let before = Roster::new(&config(), &rows);
        let disabled = [AgentRow { disabled: true, ..row("support", &token) }];
        for roster in [Roster::new(&config(), &disabled), before.narrowed(&disabled)] {
            assert!(roster.bearer(&token.reveal()).is_err());
            assert!(roster.bearer(&other.reveal()).is_err(), "its row is gone");
            assert!(roster.peer(1000).is_err());
            assert!(roster.by_subject.is_empty());
        }
        let rotated = [row("support", &other)];
        let narrowed = before.narrowed(&rotated);
        assert!(narrowed.bearer(&token.reveal()).is_err(), "the old token");
        assert!(narrowed.bearer(&other.reveal()).is_err(), "narrowing lets nobody in");
        assert!(narrowed.peer(1000).is_ok());
    }

    #[test]
    fn who_comes_in_otherwise_or_not_at_all_is_put_out() {
        let (token, other) = (Token::new([7; 32]), Token::new([8; 32]));
        let rows = [row("support", &token), row("other", &other)];
        let before = Roster::new(&config(), &rows);
        let without = |from: &str, to: &str| {
            let text = r#"agents.support = { groups = ["helpdesk"], peer_uid = 1000, oauth_subject = "client-1" }
                oauth = { issuer = "https://login.example.org", audience = "https://gate.example.org/mcp", jwks_file = "keys.json" }"#;
            assert!(text.contains(from), "{from}");
            Config::parse(std::path::Path::new("toolgate.toml"), &text.replace(from, to)).unwrap()
        };
        let grouped = AgentRow { groups: vec!["interns".parse().unwrap()], ..row("support", &token) };
        for (what, after, want) in [
            ("nothing", Roster::new(&config(), &rows), ""),
            (
                "somebody new",
                Roster::new(&config(), &[rows[0].clone(), rows[1].clone(), row("new", &Token::new([9; 32]))]),
                "",
            ),
            (
                "another token",
                Roster::new(&config(), &[row("support", &Token::new([9; 32])), rows[1].clone()]),
                "support",
            ),
            ("removed", Roster::new(&config(), &rows[..1]), "other"),
            (
                "disabled",
                Roster::new(
                    &config(),
                    &[AgentRow { disabled: true, ..row("support", &token) }, rows[1].clone()],
                ),
                "support",
            ),
            ("other groups", Roster::new(&config(), &[grouped, rows[1].clone()]), "support"),
            ("another user", Roster::new(&without("peer_uid = 1000", "peer_uid = 1001"), &rows), "support"),
            ("another subject", Roster::new(&without("client-1", "client-2"), &rows), "support"),
            ("narrowed", before.narrowed(&rows[1..]), "support"),
        ] {
            let put_out: Vec<String> = before.put_out(&after).iter().map(ToString::to_string).collect();
            assert_eq!(put_out.join(" "), want, "{what}");
        }
    }

    #[test]
    fn a_token_reads_back_and_a_slip_is_noticed() {
        let token = Token::new([7; 32]);
        let text = token.reveal();
        assert_eq!(text.len(), 61);
        assert!(text.starts_with("tg_"));
        assert_eq!(Token::parse(&text).unwrap().hash(), token.hash());
        for at in 3..text.len() {
            let mut slip: Vec<char> = text.chars().collect();
            slip[at] = if slip[at] == 'a' { 'b' } else { 'a' };
            let slip: String = slip.into_iter().collect();
            assert_eq!(Token::parse(&slip).map(|t| t.hash()), Err(IdentityError::Mistyped), "{slip}");
        }
        for (wrong, want) in [
            ("", IdentityError::NotAToken),
            ("ghp_abc", IdentityError::NotAToken),
            ("tg_", IdentityError::Mistyped),
            (&text.to_uppercase().replace("TG_", "tg_"), IdentityError::Mistyped),
            (&format!("{}a", *text), IdentityError::Mistyped),
        ] {
            assert_eq!(Token::parse(wrong).map(|t| t.hash()), Err(want), "{wrong}");
        }
    }

    #[test]
    fn nobody_comes_in_without_a_proof() {
        let token = Token::new([7; 32]);
        let roster = roster(&token);
        let good = format!("Bearer {}", *token.reveal());
        let agent = roster.authorization(Some(&good), None, 0).unwrap();
        assert_eq!((agent.id.as_str(), &agent.proof), ("support", &Proof::Bearer));
        assert_eq!(agent.groups[0].as_str(), "helpdesk");
        let other = format!("Bearer {}", *Token::new([8; 32]).reveal());
        for (header, want) in [
            (None, IdentityError::Missing),
            (Some(""), IdentityError::Malformed),
            (Some("Bearer"), IdentityError::Malformed),
            (Some("Bearer "), IdentityError::Malformed),
            (Some("Basic dXNlcjpwYXNz"), IdentityError::Malformed),
            (Some("Bearer a b"), IdentityError::Malformed),
            (Some("Bearer abc"), IdentityError::NotAToken),
            (good.get(..good.len() - 1), IdentityError::Mistyped),
            (Some(&other), IdentityError::UnknownToken),
        ] {
            assert_eq!(roster.authorization(header, None, 0).map(|a| a.id.clone()), Err(want), "{header:?}");
        }
    }

    #[test]
    fn the_demo_agent_comes_in_where_the_demo_is_and_is_nobody_with_a_token() {
        let office = Server {
            reach: Reach::Url { url: "http://127.0.0.1:1/".to_owned(), headers: BTreeMap::new(), ca: None },
            call_timeout: std::time::Duration::from_secs(1),
            start_timeout: std::time::Duration::from_secs(1),
            max_result_bytes: 1,
            scrub: toolgate_core::scrub::detect::Classes::default(),
            believed: None,
            secrets: BTreeSet::new(),
        };
        let config = Config { servers: [(DEMO.parse().unwrap(), office)].into(), ..Config::default() };
        let roster = Roster::new(&config, &[]);
        assert_eq!(roster.anonymous().unwrap().proof, Proof::Demo);
        assert!(Roster::new(&Config::default(), &[]).anonymous().is_none(), "there are no demo tools");
        let wrong = format!("Bearer {}", *Token::new([8; 32]).reveal());
        for header in [None, Some("Bearer abc"), Some(wrong.as_str())] {
            assert!(roster.authorization(header, None, 0).is_err(), "{header:?}");
        }
        let token = Token::new([7; 32]);
        let rows = [row("support", &token)];
        for closed in [Roster::new(&config, &rows), roster.narrowed(&rows)] {
            assert!(closed.anonymous().is_none(), "an agent is registered");
            assert!(roster.put_out(&closed).iter().any(|agent| agent.as_str() == DEMO));
        }
        // A token of that name, however it came into the store, is nobody's.
        assert!(Roster::new(&config, &[row(DEMO, &token)]).bearer(&token.reveal()).is_err());
    }

    #[test]
    fn a_user_is_an_agent_only_if_the_configuration_says_so() {
        let roster = roster(&Token::new([7; 32]));
        assert_eq!(roster.peer(1000).unwrap().proof, Proof::Peer { uid: 1000 });
        assert_eq!(roster.peer(0).map(|a| a.id.clone()), Err(IdentityError::UnknownPeer { uid: 0 }));
    }

    #[test]
    fn scopes_are_needed_and_lend_groups() {
        let roster = roster(&Token::new([7; 32]));
        let claims = |subject: &str, scopes: &[&str]| Claims {
            issuer: "https://login.example.org".into(),
            subject: subject.into(),
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
        };
        let plain = roster.claimant(&claims("client-1", &["toolgate"])).unwrap();
        assert_eq!(plain.groups.iter().map(GroupName::as_str).collect::<Vec<_>>(), ["helpdesk"]);
        let admin = roster.claimant(&claims("client-1", &["toolgate", "toolgate:admin"])).unwrap();
        assert_eq!(admin.groups.iter().map(GroupName::as_str).collect::<Vec<_>>(), ["admins", "helpdesk"]);
        assert_eq!(
            roster.claimant(&claims("client-1", &["toolgate:admin"])).map(|a| a.id.clone()),
            Err(IdentityError::InsufficientScope("toolgate".into()))
        );
        assert_eq!(
            roster.claimant(&claims("client-2", &["toolgate"])).map(|a| a.id.clone()),
            Err(IdentityError::UnknownSubject)
        );
    }

    #[test]
    fn challenges() {
        let url = Some("https://gate.example.org/.well-known/oauth-protected-resource/mcp");
        let mut shown = String::new();
        for (error, url) in [
            (IdentityError::Missing, None),
            (IdentityError::Missing, url),
            (IdentityError::UnknownToken, None),
            (IdentityError::AccessToken(JwtError::Expired), url),
            (IdentityError::InsufficientScope("toolgate".into()), url),
            (IdentityError::UnknownSubject, url),
        ] {
            let Challenge { status, www_authenticate } = error.challenge(url);
            shown.push_str(&format!("{status} {www_authenticate}\n"));
        }
        shown.push_str(&resource_metadata(&config().oauth.unwrap()));
        insta::assert_snapshot!(shown, @r#"
401 Bearer realm="toolgate"
401 Bearer resource_metadata="https://gate.example.org/.well-known/oauth-protected-resource/mcp"
401 Bearer error="invalid_token", error_description="no agent has this token"
401 Bearer resource_metadata="https://gate.example.org/.well-known/oauth-protected-resource/mcp", error="invalid_token", error_description="the access token has expired"
403 Bearer resource_metadata="https://gate.example.org/.well-known/oauth-protected-resource/mcp", error="insufficient_scope", scope="toolgate", error_description="the access token lacks the scope `toolgate`"
403 Bearer resource_metadata="https://gate.example.org/.well-known/oauth-protected-resource/mcp", error="insufficient_scope", error_description="the subject of the access token is no agent"
{"authorization_servers":["https://login.example.org"],"bearer_methods_supported":["header"],"resource":"https://gate.example.org/mcp","resource_name":"Toolgate","scopes_supported":["toolgate","toolgate:admin"]}
"#);
    }
}
