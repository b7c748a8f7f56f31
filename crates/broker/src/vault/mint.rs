//! How credentials are minted from a secret: narrower than it, short, and for one run of an agent. The secret itself then goes nowhere
//! but to the provider that mints.
//!
//! A recipe is part of what the secret is good for, and sealed with it: whoever can write the configuration cannot send the secret to
//! another provider, nor ask for more.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use toolgate_core::json::Value;

/// What a credential is minted by, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Mint {
    provider: Provider,
    with: BTreeMap<String, String>,
}

/// A recipe as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    provider: String,
    with: BTreeMap<String, String>,
}

impl TryFrom<Written> for Mint {
    type Error = MintError;

    fn try_from(written: Written) -> Result<Self, MintError> {
        Self::new(written.provider.parse()?, written.with)
    }
}

impl From<Mint> for Written {
    fn from(mint: Mint) -> Self {
        Self { provider: mint.provider.to_string(), with: mint.with }
    }
}

/// Who mints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// What AWS Secrets Manager keeps, by `GetSecretValue`.
    AwsSecret,
    /// Keys of a role, by AWS STS `AssumeRole`.
    AwsSts,
    /// An installation's token of a GitHub App.
    GithubApp,
    /// An access token of a Google service account.
    Google,
    /// What Google Secret Manager keeps, by `access`.
    GoogleSecret,
    /// A JSON Web Token that the credential proxy signs itself (RFC 7519).
    Jwt,
    /// A token of a Kubernetes service account, by `TokenRequest`.
    Kubernetes,
    /// An access token by client credentials (RFC 6749, section 4.4).
    OauthClient,
    /// An access token in exchange for another one (RFC 8693).
    OauthExchange,
    /// An access token for a refresh token (RFC 6749, section 6), which is another one afterwards where the server says so.
    OauthRefresh,
    /// Dynamic credentials of an OpenBao or a HashiCorp Vault.
    Openbao,
    /// A role of a PostgreSQL, with a password.
    Postgres,
    /// An SSH certificate, for a key made for it.
    SshCertificate,
}

/// A parameter of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// What it is called.
    pub name: &'static str,
    /// Whether there has to be one.
    pub needed: bool,
    /// What it says.
    pub what: &'static str,
}

const fn needed(name: &'static str, what: &'static str) -> Parameter {
    Parameter { name, needed: true, what }
}

const fn optional(name: &'static str, what: &'static str) -> Parameter {
    Parameter { name, needed: false, what }
}

/// Every recipe may say it.
const TTL: Parameter = optional("ttl", "for how many seconds, if the provider lets one say [default: 600]");

impl Provider {
    /// All there are.
    pub const ALL: [Self; 13] = [
        Self::AwsSecret,
        Self::AwsSts,
        Self::GithubApp,
        Self::Google,
        Self::GoogleSecret,
        Self::Jwt,
        Self::Kubernetes,
        Self::OauthClient,
        Self::OauthExchange,
        Self::OauthRefresh,
        Self::Openbao,
        Self::Postgres,
        Self::SshCertificate,
    ];

    /// What one writes for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::AwsSecret => "aws-secret",
            Self::AwsSts => "aws-sts",
            Self::GithubApp => "github-app",
            Self::Google => "google",
            Self::GoogleSecret => "google-secret",
            Self::Jwt => "jwt",
            Self::Kubernetes => "kubernetes",
            Self::OauthClient => "oauth-client",
            Self::OauthExchange => "oauth-exchange",
            Self::OauthRefresh => "oauth-refresh",
            Self::Openbao => "openbao",
            Self::Postgres => "postgres",
            Self::SshCertificate => "ssh-certificate",
        }
    }

    /// What the value of the secret is.
    #[must_use]
    pub const fn value(self) -> &'static str {
        match self {
            Self::AwsSecret | Self::AwsSts => "ACCESS_KEY_ID:SECRET_ACCESS_KEY",
            Self::GithubApp => "the App's private key, in PEM",
            Self::Google | Self::GoogleSecret => "the service account's key file, in JSON",
            Self::Jwt => "the private key in PEM (PKCS #8), or the shared key of HS256",
            Self::Kubernetes => "a token that may create tokens",
            Self::OauthClient => "the client's secret",
            Self::OauthExchange => {
                "the token to exchange, and on a second line the client's secret if it has one"
            }
            Self::OauthRefresh => {
                "the refresh token that `toolgate login` got, and on a second line the client's secret if it has one"
            }
            Self::Openbao => "a token that may read the path",
            Self::Postgres => "postgres://ADMIN:PASSWORD@HOST:PORT/DATABASE",
            Self::SshCertificate => {
                "the private key of the certificate authority: Ed25519, in OpenSSH's format"
            }
        }
    }

    /// Whether what comes of it may be kept elsewhere, and not minted.
    #[must_use]
    pub const fn keeps(self) -> bool {
        matches!(self, Self::AwsSecret | Self::GoogleSecret | Self::Openbao)
    }

    /// The parts of what it mints, the one that is meant where no part is named first. What others keep has names of its own.
    #[must_use]
    pub const fn parts(self) -> &'static [&'static str] {
        match self {
            Self::AwsSts => &["session_token", "access_key_id", "secret_access_key"],
            Self::Postgres => &["url", "user", "password"],
            Self::SshCertificate => &["key", "certificate"],
            Self::AwsSecret | Self::GoogleSecret | Self::Openbao => &[],
            Self::GithubApp
            | Self::Google
            | Self::Jwt
            | Self::Kubernetes
            | Self::OauthClient
            | Self::OauthExchange
            | Self::OauthRefresh => &["token"],
        }
    }

    /// What can be said about what it mints.
    #[must_use]
    pub const fn parameters(self) -> &'static [Parameter] {
        const SCOPE: Parameter = optional("scope", "the scopes, with a space between them");
        const AUDIENCE: Parameter = optional("audience", "whom it is for");
        const RESOURCE: Parameter = optional("resource", "what it is for (RFC 8707)");
        const REVOKE_URL: Parameter = optional("revoke_url", "where it is revoked (RFC 7009)");
        match self {
            Self::AwsSts => {
                const {
                    &[
                        needed("role_arn", "the role"),
                        optional("policy", "the session policy: what it may do at most, in JSON"),
                        optional("session_name", "the name of the session [default: toolgate]"),
                        optional("external_id", "what the role's owner asks for"),
                        optional("region", "the region [default: us-east-1]"),
                        optional("sts_url", "where STS is [default: the region's]"),
                        TTL,
                    ]
                }
            }
            Self::AwsSecret => {
                const {
                    &[
                        needed("secret_id", "the secret's name or ARN"),
                        optional("region", "the region [default: us-east-1]"),
                        optional("url", "where the service is [default: the region's]"),
                        TTL,
                    ]
                }
            }
            Self::GithubApp => {
                const {
                    &[
                        needed("client_id", "the App's client id"),
                        needed("installation", "the number of the installation"),
                        needed("permissions", "what it may do: `contents:read,issues:write`"),
                        needed("repositories", "the names of the repositories, with commas"),
                        optional("api_url", "where the API is [default: https://api.github.com]"),
                        TTL,
                    ]
                }
            }
            Self::Google => {
                const {
                    &[
                        needed("scope", "the scopes, with a space between them"),
                        optional("impersonate", "the e-mail of the account to impersonate"),
                        optional("boundary_resource", "the resource that it is cut to (Cloud Storage)"),
                        optional("boundary_role", "the role that it is cut to there: `inRole:roles/…`"),
                        optional(
                            "token_url",
                            "where tokens are [default: https://oauth2.googleapis.com/token]",
                        ),
                        optional("iam_url", "where IAM is [default: https://iamcredentials.googleapis.com]"),
                        optional("sts_url", "where STS is [default: https://sts.googleapis.com]"),
                        TTL,
                    ]
                }
            }
            Self::GoogleSecret => {
                const {
                    &[
                        needed(
                            "name",
                            "the secret: `projects/P/secrets/S`, or with `/versions/V` [default: latest]",
                        ),
                        optional(
                            "token_url",
                            "where tokens are [default: https://oauth2.googleapis.com/token]",
                        ),
                        optional(
                            "url",
                            "where the service is [default: https://secretmanager.googleapis.com]",
                        ),
                        TTL,
                    ]
                }
            }
            Self::Jwt => {
                const {
                    &[
                        needed("algorithm", "`RS256`, `ES256`, `EdDSA` or `HS256`"),
                        needed("issuer", "who says so (`iss`)"),
                        needed("audience", "whom it is for (`aud`)"),
                        optional("subject", "whom it is about (`sub`)"),
                        optional("key_id", "which key it is (`kid`)"),
                        optional("claims", "more claims: an object of JSON"),
                        TTL,
                    ]
                }
            }
            Self::Kubernetes => {
                const {
                    &[
                        needed("api_url", "where the API server is"),
                        needed("namespace", "the namespace"),
                        needed("service_account", "the service account"),
                        AUDIENCE,
                        optional(
                            "revocable",
                            "`yes`: bound to a secret made for it, which is deleted at the end",
                        ),
                        optional("ca", "the certificate authority of the API server, in PEM"),
                        TTL,
                    ]
                }
            }
            Self::OauthClient => {
                const {
                    &[
                        needed("token_url", "where tokens are"),
                        needed("client_id", "the client"),
                        SCOPE,
                        AUDIENCE,
                        RESOURCE,
                        REVOKE_URL,
                        TTL,
                    ]
                }
            }
            Self::OauthExchange => {
                const {
                    &[
                        needed("token_url", "where tokens are"),
                        needed("client_id", "the client"),
                        optional("subject_token_type", "what is exchanged [default: …:access_token]"),
                        SCOPE,
                        AUDIENCE,
                        RESOURCE,
                        REVOKE_URL,
                        TTL,
                    ]
                }
            }
            Self::OauthRefresh => {
                const {
                    &[
                        needed("token_url", "where tokens are"),
                        needed("client_id", "the client"),
                        needed("server", "the server that somebody has logged in to"),
                        optional("ca", "the certificate authority of the authorization server, in PEM"),
                        optional("client_auth", "`post`: the client's secret is part of the form"),
                        optional("issuer", "where somebody has logged in"),
                        optional("login", "tells one login from another"),
                        optional("revoke_url", "where `toolgate logout` revokes it (RFC 7009)"),
                        optional("until_ms", "when an access token ends that nothing renews, since 1970"),
                        SCOPE,
                        RESOURCE,
                        TTL,
                    ]
                }
            }
            Self::Openbao => {
                const {
                    &[
                        needed("url", "where it is"),
                        needed("path", "what is read: `database/creds/readonly`"),
                        optional("namespace", "the namespace"),
                        TTL,
                    ]
                }
            }
            Self::Postgres => {
                const {
                    &[
                        needed("roles", "the roles that it is a member of, with commas"),
                        optional("connections", "how many connections it may have [default: 1]"),
                        optional("statement_timeout", "how long a statement may take: `5s`"),
                        optional("ca", "the certificate authority of the database, in PEM"),
                        TTL,
                    ]
                }
            }
            Self::SshCertificate => {
                const {
                    &[
                        needed("principals", "the users that it may log in as, with commas"),
                        optional("force_command", "the only command that it may run"),
                        optional("source_address", "the addresses that it may come from, with commas"),
                        optional("permit", "more of it: `pty,port-forwarding,agent-forwarding`"),
                        TTL,
                    ]
                }
            }
        }
    }

    /// The least and the most seconds that it lets one say.
    #[must_use]
    pub const fn ttl(self) -> (u64, u64) {
        match self {
            Self::AwsSts => (900, 43_200),
            Self::Kubernetes => (600, 86_400),
            Self::Jwt
            | Self::AwsSecret
            | Self::Google
            | Self::GoogleSecret
            | Self::GithubApp
            | Self::OauthClient
            | Self::OauthExchange
            | Self::OauthRefresh
            | Self::Openbao => (10, 3_600),
            Self::Postgres | Self::SshCertificate => (10, 86_400),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Provider {
    type Err = MintError;

    fn from_str(text: &str) -> Result<Self, MintError> {
        let found = Self::ALL.into_iter().find(|provider| provider.word() == text);
        found.ok_or_else(|| MintError::Provider(text.escape_debug().to_string()))
    }
}

/// Why nothing can be minted so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// Nobody of this name mints.
    #[error(
        "nothing is minted by `{0}`; there are aws-secret, aws-sts, github-app, google, google-secret, jwt, kubernetes, oauth-client, \
         oauth-exchange, oauth-refresh, openbao, postgres and ssh-certificate"
    )]
    Provider(String),
    /// A parameter is missing.
    #[error("`{provider}` needs `--with {parameter}=…`: {what}")]
    Missing {
        /// Who mints.
        provider: Provider,
        /// What is missing.
        parameter: &'static str,
        /// What it says.
        what: &'static str,
    },
    /// There is no such parameter.
    #[error("`{provider}` knows no `{parameter}`; it knows {}", names(*provider))]
    Unknown {
        /// Who mints.
        provider: Provider,
        /// What was written.
        parameter: String,
    },
    /// A parameter is not what it has to be.
    #[error("`{parameter}` of `{provider}` {why}")]
    Parameter {
        /// Who mints.
        provider: Provider,
        /// Which.
        parameter: String,
        /// What is wrong with it.
        why: String,
    },
    /// The call lacks an argument, or has one that cannot stand there.
    #[error("the argument `{argument}` {why}, and the credential is to be cut to it")]
    Argument {
        /// Which.
        argument: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A part of what is minted that there is not.
    #[error("`{provider}` mints no `{part}`; it mints {}", provider.parts().join(", "))]
    Part {
        /// Who mints.
        provider: Provider,
        /// What was written.
        part: String,
    },
}

fn names(provider: Provider) -> String {
    provider.parameters().iter().map(|parameter| parameter.name).collect::<Vec<_>>().join(", ")
}

/// What stands before the name of a parameter that holds where there is no call.
const IDLE: &str = "idle.";

/// What a call has no say in: whom a secret is sent to, and for how long.
const FIXED: [&str; 11] = [
    "algorithm",
    "ca",
    "client_auth",
    "client_id",
    "issuer",
    "login",
    "region",
    "revocable",
    "server",
    "ttl",
    "until_ms",
];

/// How long a lease is where nothing says so, in seconds.
const USUAL_TTL: u64 = 600;

/// How long a parameter may be.
const MAX_PARAMETER: usize = 16 << 10;

/// How long what a call puts into a parameter may be.
const MAX_ARGUMENT: usize = 256;

/// The parameters of one lease: all that is to be asked for. Two calls with the same ones share a lease.
pub type Filled = BTreeMap<String, String>;

impl Mint {
    /// Reads a recipe.
    ///
    /// # Errors
    /// A parameter is missing, not known, or not what it has to be.
    pub fn new(provider: Provider, with: BTreeMap<String, String>) -> Result<Self, MintError> {
        let known = provider.parameters();
        for (name, text) in &with {
            let wrong = |why: String| MintError::Parameter { provider, parameter: name.clone(), why };
            let plain = name.strip_prefix(IDLE).unwrap_or(name);
            if !known.iter().any(|parameter| parameter.name == plain) {
                return Err(MintError::Unknown { provider, parameter: name.clone() });
            }
            if text.is_empty() || text.len() > MAX_PARAMETER {
                return Err(wrong(format!("has to have 1 to {MAX_PARAMETER} bytes")));
            }
            for piece in pieces(text) {
                match piece {
                    Piece::Text(_) => {}
                    Piece::Argument("") => {
                        return Err(wrong("has `{args.}` without a name".to_owned()));
                    }
                    Piece::Argument(_) if plain.ends_with("url") || FIXED.contains(&plain) => {
                        return Err(wrong("cannot come from a call".to_owned()));
                    }
                    Piece::Argument(_) if name != plain => {
                        return Err(wrong("holds where there is no call".to_owned()));
                    }
                    Piece::Argument(_) => {}
                }
            }
            if plain.ends_with("url") {
                is_url(text).map_err(|why| wrong(why.to_owned()))?;
            }
            let fits = match plain {
                "revocable" => text == "yes",
                "client_auth" => text == "post",
                "until_ms" => text.parse::<u64>().is_ok(),
                "algorithm" => ["RS256", "ES256", "EdDSA", "HS256"].contains(&text.as_str()),
                "connections" => text.parse::<u16>().is_ok_and(|connections| connections > 0),
                "region" => text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                _ => true,
            };
            if !fits {
                return Err(wrong("is not one that there is: `toolgate secret providers`".to_owned()));
            }
        }
        if let Some(missing) = known.iter().find(|known| known.needed && !with.contains_key(known.name)) {
            let Parameter { name: parameter, what, .. } = *missing;
            return Err(MintError::Missing { provider, parameter, what });
        }
        let this = Self { provider, with };
        let (least, most) = provider.ttl();
        if !(least..=most).contains(&this.ttl()) {
            let why = format!("has to be {least} to {most} seconds");
            return Err(MintError::Parameter { provider, parameter: "ttl".to_owned(), why });
        }
        Ok(this)
    }

    /// Who mints.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        self.provider
    }

    /// The parameters as they are written.
    #[must_use]
    pub const fn with(&self) -> &BTreeMap<String, String> {
        &self.with
    }

    /// For how many seconds a credential is asked for.
    #[must_use]
    pub fn ttl(&self) -> u64 {
        match self.with.get("ttl") {
            Some(text) => text.parse().unwrap_or(0),
            None => USUAL_TTL.max(self.provider.ttl().0),
        }
    }

    /// Whether what is minted hangs on what a call says.
    #[must_use]
    pub fn hangs_on_calls(&self) -> bool {
        self.with.values().any(|text| pieces(text).any(|piece| matches!(piece, Piece::Argument(_))))
    }

    /// What is asked for in a call with these arguments, or where there is no call.
    ///
    /// # Errors
    /// The call lacks an argument that it is cut to, or has one that could mean more than itself.
    pub fn filled(&self, arguments: Option<Value<'_>>) -> Result<Filled, MintError> {
        let mut filled = Filled::new();
        for (name, text) in &self.with {
            if name.starts_with(IDLE) {
                continue;
            }
            let idle = self.with.get(&format!("{IDLE}{name}")).filter(|_| arguments.is_none());
            let text = match idle {
                Some(idle) => idle.clone(),
                None => fill(text, arguments)?,
            };
            filled.insert(name.clone(), text);
        }
        Ok(filled)
    }

    /// Whether what is minted from it has its value replaced, by the provider itself: it is the same login all the same.
    #[must_use]
    pub fn renews_itself(&self) -> bool {
        self.provider == Provider::OauthRefresh && !self.with.contains_key("until_ms")
    }

    /// Whether it has such a part.
    ///
    /// # Errors
    /// It has none.
    pub fn check_part(&self, part: Option<&str>) -> Result<(), MintError> {
        let (provider, parts) = (self.provider, self.provider.parts());
        match part {
            Some(part) if !parts.is_empty() && !parts.contains(&part) => {
                Err(MintError::Part { provider, part: part.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// A piece of a parameter.
enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// What the call says: `{args.NAME}`.
    Argument(&'a str),
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    const BEGIN: &str = "{args.";
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((name, after)) = rest.strip_prefix(BEGIN).and_then(|inner| inner.split_once('}')) {
            rest = after;
            return Some(Piece::Argument(name));
        }
        // The first byte is no beginning, or one without an end.
        let next =
            rest.char_indices().skip(1).find(|(at, _)| rest.get(*at..).is_some_and(|r| r.starts_with(BEGIN)));
        let (piece, after) = rest.split_at(next.map_or(rest.len(), |(at, _)| at));
        rest = after;
        Some(Piece::Text(piece))
    })
}

fn fill(text: &str, arguments: Option<Value<'_>>) -> Result<String, MintError> {
    let mut filled = String::new();
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Argument(name) => {
                let wrong = |why| MintError::Argument { argument: name.to_owned(), why };
                let keys: Vec<&str> = name.split('.').collect();
                let value =
                    arguments.and_then(|arguments| arguments.path(&keys)).ok_or(wrong("is missing"))?;
                let said = match (value.as_str(), value.as_i64()) {
                    (Some(text), _) => text.to_owned(),
                    (None, Some(number)) => number.to_string(),
                    (None, None) => return Err(wrong("is neither a text nor a whole number")),
                };
                if !is_itself(&said) {
                    return Err(wrong("has signs that could mean more than themselves"));
                }
                filled.push_str(&said);
            }
        }
    }
    Ok(filled)
}

/// Whether a text of a call means just itself in a scope, a list, a path, a pattern or a policy.
fn is_itself(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./@".contains(&b);
    let segment = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
    // What begins with a dash is an option to many a program.
    text.len() <= MAX_ARGUMENT
        && !text.starts_with('-')
        && text.bytes().all(plain)
        && text.split('/').all(segment)
}

/// An address that a secret may be sent to: over TLS, or on this machine.
///
/// # Errors
/// It is none; says what it has to be.
pub fn is_url(text: &str) -> Result<(), &'static str> {
    let (rest, plain) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return Err("has to begin with `https://`"),
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let name = if host.starts_with('[') {
        host.split_inclusive(']').next().unwrap_or_default()
    } else {
        host.split(':').next().unwrap_or_default()
    };
    if name.is_empty() || rest.contains(['@', '#', ' ', '\\']) || !rest.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err("is no address: `https://HOST/PATH`");
    }
    if plain && !matches!(name, "127.0.0.1" | "[::1]" | "localhost") {
        return Err("has to begin with `https://`: a secret is sent there");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use toolgate_core::json::{Document, Limits};

    use super::*;

    fn recipe(provider: Provider, with: &[(&str, &str)]) -> Result<Mint, MintError> {
        Mint::new(
            provider,
            with.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        )
    }

    fn github(more: &[(&str, &str)]) -> Result<Mint, MintError> {
        let with = [
            ("client_id", "Iv1.a"),
            ("installation", "7"),
            ("permissions", "contents:read"),
            ("repositories", "{args.repo}"),
        ];
        recipe(Provider::GithubApp, &[&with, more].concat())
    }

    fn filled(mint: &Mint, arguments: &str) -> Result<Filled, MintError> {
        let document = Document::parse(arguments.as_bytes().to_vec(), &Limits::default()).unwrap();
        mint.filled(Some(document.root()))
    }

    #[test]
    fn a_recipe_has_what_its_provider_knows_and_needs() {
        for provider in Provider::ALL {
            assert_eq!(provider.word().parse::<Provider>().unwrap(), provider);
            assert!(matches!(recipe(provider, &[]), Err(MintError::Missing { .. })), "{provider}");
            assert!(matches!(recipe(provider, &[("nothing", "x")]), Err(MintError::Unknown { .. })));
        }
        assert!("vault".parse::<Provider>().is_err());
        assert!(github(&[]).is_ok());
        assert_eq!(github(&[]).unwrap().ttl(), 600);
        for (name, text) in [
            ("ttl", "5"),
            ("ttl", "x"),
            ("ttl", "{args.ttl}"),
            ("api_url", "http://api.example"),
            ("api_url", "ftp://api.example"),
            ("api_url", "https://"),
            ("api_url", "https://u@api.example"),
            ("api_url", "https://{args.host}"),
            ("idle.repositories", "{args.repo}"),
            ("idle.nothing", "x"),
            ("client_id", ""),
        ] {
            assert!(github(&[(name, text)]).is_err(), "{name}={text}");
        }
        assert!(
            github(&[("api_url", "http://127.0.0.1:8080")]).is_ok(),
            "on this machine there is nobody between"
        );
    }

    #[test]
    fn scopes_are_cut_to_what_the_call_says() {
        let mint = github(&[]).unwrap();
        assert!(mint.hangs_on_calls());
        let said = filled(&mint, r#"{"repo":"site","other":1}"#).unwrap();
        assert_eq!(said.get("repositories").unwrap(), "site");
        assert_eq!(said.get("permissions").unwrap(), "contents:read");
        // Without a call there is nothing to cut it to; unless the recipe says what holds then.
        assert!(matches!(mint.filled(None), Err(MintError::Argument { .. })));
        let mint = github(&[("idle.repositories", "none"), ("idle.permissions", "metadata:read")]).unwrap();
        let idle = mint.filled(None).unwrap();
        assert_eq!((idle.get("repositories").unwrap().as_str(), idle.len()), ("none", 4));
        assert_eq!(idle.get("permissions").unwrap(), "metadata:read");
        assert_eq!(filled(&mint, r#"{"repo":"site"}"#).unwrap().get("permissions").unwrap(), "contents:read");
    }

    #[test]
    fn what_a_call_says_means_just_itself() {
        let mint = github(&[]).unwrap();
        for repo in [
            r#""a,b""#,
            r#""*""#,
            r#""""#,
            r#""a b""#,
            r#""../x""#,
            r#""a/..""#,
            r#""a/./b""#,
            r#""a//b""#,
            r#""/a""#,
            r#""a\"b""#,
            r#""{args.x}""#,
            r#""a?b""#,
            r#""a:b""#,
            r#""${aws:x}""#,
            r#""ä""#,
            r#""-x""#,
            r#"["a"]"#,
            "1.5",
            "true",
            "null",
        ] {
            assert!(filled(&mint, &format!(r#"{{"repo":{repo}}}"#)).is_err(), "{repo}");
        }
        let long = format!(r#"{{"repo":"{}"}}"#, "x".repeat(MAX_ARGUMENT + 1));
        assert!(filled(&mint, &long).is_err());
        for (repo, said) in [(r#""a.b-c_d/e""#, "a.b-c_d/e"), ("7", "7")] {
            let filled = filled(&mint, &format!(r#"{{"repo":{repo}}}"#)).unwrap();
            assert_eq!(filled.get("repositories").unwrap(), said);
        }
    }

    #[test]
    fn places_in_a_policy_are_found_and_its_own_braces_are_not() {
        let policy = r#"{"Resource":"arn:aws:s3:::{args.a.bucket}/*","x":{"{args":1}}"#;
        let mint =
            recipe(Provider::AwsSts, &[("role_arn", "arn:aws:iam::1:role/r"), ("policy", policy)]).unwrap();
        let said = filled(&mint, r#"{"a":{"bucket":"logs"}}"#).unwrap();
        assert_eq!(said.get("policy").unwrap(), r#"{"Resource":"arn:aws:s3:::logs/*","x":{"{args":1}}"#);
        assert_eq!(mint.ttl(), 900, "the least that the provider knows");
    }

    #[test]
    fn a_call_has_no_say_in_whom_a_secret_is_sent_to() {
        let aws = |with| recipe(Provider::AwsSts, &[("role_arn", "arn:aws:iam::1:role/r"), with]);
        assert!(aws(("region", "eu-west-1")).is_ok());
        for with in [("region", "{args.region}"), ("region", "evil.com/x"), ("sts_url", "https://{args.h}")] {
            assert!(aws(with).is_err(), "{with:?}");
        }
    }

    #[test]
    fn a_recipe_is_read_as_it_was_written() {
        let mint = github(&[]).unwrap();
        let text = serde_json::to_string(&mint).unwrap();
        assert_eq!(serde_json::from_str::<Mint>(&text).unwrap(), mint);
        assert!(serde_json::from_str::<Mint>(&text.replace("client_id", "client")).is_err());
    }
}
