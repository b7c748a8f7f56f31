//! What a secret is good for: where it goes, to whom, and for whom. Everything else is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use toolgate_core::name::{AgentId, ServerName, ToolName};

use super::mint::Mint;

/// How long a name in a slot or of a host may be.
const MAX_NAME: usize = 253;
/// How deep in a document a secret can stand.
const MAX_STEPS: usize = 16;

/// What a secret may be used for. Where a set is empty, there is nothing that it may be used for; but for `agents`: then it is
/// for all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uses {
    /// The agents whose calls it may serve; all of them, if none is named.
    #[serde(default, with = "texts", skip_serializing_if = "BTreeSet::is_empty")]
    pub agents: BTreeSet<AgentId>,
    /// The hosts that it may be sent to.
    #[serde(default, with = "texts", skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<HostPort>,
    /// What stands for it in a cell, until a request to one of the hosts is on its way.
    #[serde(default, with = "texts", skip_serializing_if = "BTreeSet::is_empty")]
    pub placeholders: BTreeSet<Placeholder>,
    /// What is minted from it: then that goes to its places, and it goes nowhere but to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mint: Option<Mint>,
    /// Where it goes.
    #[serde(with = "texts")]
    pub slots: BTreeSet<Slot>,
    /// The tools whose calls it may serve.
    #[serde(default, with = "texts", skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<ToolPattern>,
}

impl Uses {
    /// Whether it serves this server at all.
    #[must_use]
    pub fn serves(&self, server: &ServerName) -> bool {
        self.tools.iter().any(|pattern| pattern.server() == server)
    }

    /// Whether it serves all of this server: what is no tool as well.
    #[must_use]
    pub fn serves_all(&self, server: &ServerName) -> bool {
        self.tools.iter().any(|pattern| matches!(pattern, ToolPattern::All(all) if all == server))
    }

    /// Whether it may serve a call of this agent to this tool.
    #[must_use]
    pub fn permits(&self, agent: &AgentId, tool: &ToolName) -> bool {
        self.permits_agent(agent) && self.tools.iter().any(|pattern| pattern.matches(tool))
    }

    /// Whether it may serve calls of this agent.
    #[must_use]
    pub fn permits_agent(&self, agent: &AgentId) -> bool {
        self.agents.is_empty() || self.agents.contains(agent)
    }

    /// Whether it may be sent to this host and port.
    #[must_use]
    pub fn goes_to(&self, host: &str, port: u16) -> bool {
        self.hosts.iter().any(|to| to.port == port && to.host.eq_ignore_ascii_case(host))
    }
}

/// Why a text is no slot, host or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UseError {
    /// It is no place that a secret can go to.
    #[error(
        "`{0}` is no place for a secret; they are `header:NAME` (or `header:NAME: Bearer {{}}`), `query:KEY`, \
         `basic:USER` for a password (`basic:{{}}:PASSWORD` for a user), `path:{{}}` or `path:bot{{}}` for a part of the path, \
         `json:/auth/token`, `sigv4:REGION/SERVICE`, `env:NAME` and `file:NAME`"
    )]
    Slot(String),
    /// It is no place for a placeholder.
    #[error(
        "`{0}` is no place for a placeholder; they are `env:NAME` and `file:NAME`, and with what it has to begin with: \
         `env:NAME=ghp_`"
    )]
    Placeholder(String),
    /// It is no host with a port.
    #[error("`{0}` is no host; write `api.example.com`, or `api.example.com:8443`")]
    Host(String),
    /// It is no tool, nor all tools of a server.
    #[error("`{0}` is no tool; write `server/tool`, or `server/*` for all tools of a server")]
    Tool(String),
}

/// A place that a secret goes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// The password of a user in `Authorization: Basic`, or the user. Written `basic:USER`, or `basic:{}:PASSWORD`.
    Basic {
        /// What stands before the secret: the user and a colon, or nothing.
        before: String,
        /// What stands behind it: nothing, or a colon and the password.
        after: String,
    },
    /// A variable in the environment of a server's cell. Written `env:NAME`, or `env:NAME=PART` for a part of what is minted.
    Env {
        /// Its name.
        name: String,
        /// Which part.
        part: Option<String>,
    },
    /// A file in the cell of a server, below `/run/secrets`. Written `file:NAME`, or `file:NAME=PART`.
    File {
        /// Its name.
        name: String,
        /// Which part.
        part: Option<String>,
    },
    /// A header of a request. Written `header:NAME`, or `header:NAME: BEFORE{}AFTER`.
    Header {
        /// Its name, in lower case.
        name: String,
        /// What stands before the secret.
        before: String,
        /// What stands behind it.
        after: String,
    },
    /// A string in a body that is JSON, named by a JSON pointer (RFC 6901). Written `json:/auth/token`.
    Json {
        /// The pointer.
        pointer: String,
    },
    /// A segment of the path of a request: the one that has the secret's name in braces there. Written `path:BEFORE{}AFTER`.
    Path {
        /// What stands before the secret in its segment.
        before: String,
        /// What stands behind it.
        after: String,
    },
    /// A parameter in the query of a request. Written `query:KEY`.
    Query {
        /// Its name.
        key: String,
    },
    /// The signature of a request with keys of AWS, which are not sent (Signature Version 4). Written `sigv4:REGION/SERVICE`.
    Sigv4 {
        /// The region.
        region: String,
        /// The service.
        service: String,
    },
}

/// Headers that say what a message is, or whom it goes to: a secret has no business there.
const NOT_FOR_SECRETS: [&str; 9] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Slot {
    /// Whether it is a place in a request.
    #[must_use]
    pub const fn is_in_request(&self) -> bool {
        !matches!(self, Self::Env { .. } | Self::File { .. })
    }

    /// The segment of a path that a secret goes into, as it stands in the address of a server: with the name of the secret in braces.
    #[must_use]
    pub fn segment(&self, secret: &str) -> Option<String> {
        match self {
            Self::Path { before, after } => Some(format!("{before}{{{secret}}}{after}")),
            Self::Basic { .. }
            | Self::Env { .. }
            | Self::File { .. }
            | Self::Header { .. }
            | Self::Json { .. }
            | Self::Query { .. }
            | Self::Sigv4 { .. } => None,
        }
    }

    /// Which part of what is minted goes there, if it says so.
    #[must_use]
    pub fn part(&self) -> Option<&str> {
        match self {
            Self::Env { part, .. } | Self::File { part, .. } => part.as_deref(),
            Self::Basic { .. }
            | Self::Header { .. }
            | Self::Json { .. }
            | Self::Path { .. }
            | Self::Query { .. }
            | Self::Sigv4 { .. } => None,
        }
    }

    fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "basic" => basic(rest),
            "json" => {
                let steps = rest.strip_prefix('/')?.split('/');
                let escapes = rest.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
                (escapes && steps.count() <= MAX_STEPS && fits(rest, |b| b.is_ascii_graphic()))
                    .then(|| Self::Json { pointer: rest.to_owned() })
            }
            "path" => {
                let (before, after) = rest.split_once("{}")?;
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
                (fits(rest, |b| plain(b) || b"{}".contains(&b))
                    && [before, after].iter().all(|text| text.bytes().all(plain)))
                .then(|| Self::Path { before: before.to_owned(), after: after.to_owned() })
            }
            "env" => {
                let (name, part) = with_part(rest)?;
                let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
                let plain = fits(name, |b| b.is_ascii_alphanumeric() || b == b'_');
                (begins && plain).then(|| Self::Env { name: name.to_owned(), part })
            }
            "file" => {
                let (name, part) = with_part(rest)?;
                let plain = fits(name, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
                (plain && !name.starts_with('.')).then(|| Self::File { name: name.to_owned(), part })
            }
            "sigv4" => {
                let (region, service) = rest.split_once('/')?;
                let plain = |text| fits(text, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                (plain(region) && plain(service))
                    .then(|| Self::Sigv4 { region: region.to_owned(), service: service.to_owned() })
            }
            "header" => header(rest),
            "query" => fits(rest, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
                .then(|| Self::Query { key: rest.to_owned() }),
            _ => None,
        }
    }
}

fn basic(text: &str) -> Option<Slot> {
    let plain = |b: u8| b.is_ascii_graphic() && b != b':';
    if let Some(password) = text.strip_prefix("{}:") {
        return (password.is_empty() || fits(password, plain))
            .then(|| Slot::Basic { before: String::new(), after: format!(":{password}") });
    }
    fits(text, plain).then(|| Slot::Basic { before: format!("{text}:"), after: String::new() })
}

/// What stands before and behind `=`.
fn with_part(text: &str) -> Option<(&str, Option<String>)> {
    match text.split_once('=') {
        Some((name, part)) => {
            let plain = fits(part, |b| b.is_ascii_alphanumeric() || b == b'_');
            plain.then(|| (name, Some(part.to_owned())))
        }
        None => Some((text, None)),
    }
}

fn fits(text: &str, plain: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(plain)
}

fn header(text: &str) -> Option<Slot> {
    let (name, template) = match text.split_once(':') {
        Some((name, template)) => (name, template.trim_start_matches(' ')),
        None if text.eq_ignore_ascii_case("authorization") => (text, "Bearer {}"),
        None => (text, "{}"),
    };
    let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let (before, after) = template.split_once("{}")?;
    let visible = |b: u8| b == b' ' || b.is_ascii_graphic();
    let name = name.to_ascii_lowercase();
    let ours = NOT_FOR_SECRETS.contains(&name.as_str()) || name.starts_with("mcp-");
    (fits(&name, token) && !ours && template.len() <= MAX_NAME && template.bytes().all(visible))
        .then(|| Slot::Header { name, before: before.to_owned(), after: after.to_owned() })
}

impl FromStr for Slot {
    type Err = UseError;

    fn from_str(text: &str) -> Result<Self, UseError> {
        Self::read(text).ok_or_else(|| UseError::Slot(text.escape_debug().to_string()))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { before, after } if before.is_empty() => write!(f, "basic:{{}}{after}"),
            Self::Basic { before, after: _ } => write!(f, "basic:{}", before.trim_end_matches(':')),
            Self::Env { name, part: None } => write!(f, "env:{name}"),
            Self::Env { name, part: Some(part) } => write!(f, "env:{name}={part}"),
            Self::File { name, part: None } => write!(f, "file:{name}"),
            Self::File { name, part: Some(part) } => write!(f, "file:{name}={part}"),
            Self::Header { name, before, after } => write!(f, "header:{name}: {before}{{}}{after}"),
            Self::Json { pointer } => write!(f, "json:{pointer}"),
            Self::Path { before, after } => write!(f, "path:{before}{{}}{after}"),
            Self::Query { key } => write!(f, "query:{key}"),
            Self::Sigv4 { region, service } => write!(f, "sigv4:{region}/{service}"),
        }
    }
}

/// Where a cell finds what stands for a secret, and what that looks like. Written `env:NAME` or `file:NAME`, and, where a program
/// wants to see a certain beginning, `env:NAME=ghp_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placeholder {
    /// The variable or the file.
    pub at: Slot,
    /// What it begins with; may be empty.
    pub prefix: String,
}

impl FromStr for Placeholder {
    type Err = UseError;

    fn from_str(text: &str) -> Result<Self, UseError> {
        let (at, prefix) = text.split_once('=').unwrap_or((text, ""));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let fits = prefix.len() <= 32 && prefix.bytes().all(plain);
        let at = Slot::read(at).filter(|at| fits && !at.is_in_request());
        at.map(|at| Self { at, prefix: prefix.to_owned() })
            .ok_or_else(|| UseError::Placeholder(text.escape_debug().to_string()))
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "={}", self.prefix) }
    }
}

/// A host and a port. Without a port it is 443.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The name, in lower case, or the address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = UseError;

    fn from_str(text: &str) -> Result<Self, UseError> {
        let error = || UseError::Host(text.escape_debug().to_string());
        let bracketed = text.starts_with('[');
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            // An address of version 6 stands in brackets, so that its colons are not taken for the port's.
            Some((address, rest)) => {
                let address: std::net::Ipv6Addr = address.parse().map_err(|_invalid| error())?;
                (
                    address.to_string(),
                    if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(error)?) },
                )
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
                None => (text.to_ascii_lowercase(), None),
            },
        };
        let port = port.map_or(Ok(443), str::parse).map_err(|_invalid| error())?;
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        if port == 0 || host.len() > MAX_NAME || (!bracketed && !host.split('.').all(label)) {
            return Err(error());
        }
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host: &dyn fmt::Display =
            if self.host.contains(':') { &format!("[{}]", self.host) } else { &self.host };
        if self.port == 443 { write!(f, "{host}") } else { write!(f, "{host}:{}", self.port) }
    }
}

/// A tool, or all tools of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ToolPattern {
    /// All tools of a server.
    All(ServerName),
    /// One tool.
    One(ToolName),
}

impl ToolPattern {
    /// The server that it is about.
    #[must_use]
    pub const fn server(&self) -> &ServerName {
        match self {
            Self::All(server) => server,
            Self::One(tool) => tool.server(),
        }
    }

    fn matches(&self, tool: &ToolName) -> bool {
        match self {
            Self::All(server) => server == tool.server(),
            Self::One(one) => one == tool,
        }
    }
}

impl FromStr for ToolPattern {
    type Err = UseError;

    fn from_str(text: &str) -> Result<Self, UseError> {
        let read = match text.strip_suffix("/*") {
            Some(server) => server.parse().map(Self::All),
            None => text.parse().map(Self::One),
        };
        read.map_err(|_name| UseError::Tool(text.escape_debug().to_string()))
    }
}

impl fmt::Display for ToolPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(server) => write!(f, "{server}/*"),
            Self::One(tool) => tool.fmt(f),
        }
    }
}

/// A set as a list of texts.
mod texts {
    use std::collections::BTreeSet;
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(
        set: &BTreeSet<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(set.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<BTreeSet<T>, D::Error>
    where
        T: FromStr<Err: Display> + Ord,
        D: Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_as_they_are_written() {
        for (text, want) in [
            ("header:Authorization", "header:authorization: Bearer {}"),
            ("header:X-Api-Key", "header:x-api-key: {}"),
            ("header:X-Auth: Token {};v=1", "header:x-auth: Token {};v=1"),
            ("query:api_key", "query:api_key"),
            ("basic:api", "basic:api"),
            ("basic:{}:", "basic:{}:"),
            ("basic:{}:x", "basic:{}:x"),
            ("path:{}", "path:{}"),
            ("path:bot{}-x", "path:bot{}-x"),
            ("json:/auth/to~1ken~0", "json:/auth/to~1ken~0"),
            ("env:GITHUB_TOKEN", "env:GITHUB_TOKEN"),
            ("file:token", "file:token"),
            ("env:PGUSER=user", "env:PGUSER=user"),
            ("file:id-cert.pub=certificate", "file:id-cert.pub=certificate"),
            ("sigv4:us-east-1/s3", "sigv4:us-east-1/s3"),
        ] {
            let slot: Slot = text.parse().unwrap();
            assert_eq!(slot.to_string(), want);
            assert_eq!(slot.to_string().parse::<Slot>().unwrap(), slot);
        }
    }

    #[test]
    fn what_is_no_place_for_a_secret_is_refused() {
        for text in [
            "",
            "header",
            "header:",
            "header:Host",
            "header:Transfer-Encoding",
            "header:mcp-session-id",
            "header:X: no place",
            "header:X: {}\r\nY: {}",
            "header:X Y",
            "query:",
            "query:a=b",
            "query:a&b",
            "basic:a:b",
            "basic:{}:a:b",
            "path:bot",
            "path:",
            "path:a/{}",
            "path:{}{}",
            "path:%41{}",
            "json:auth",
            "json:",
            "json:/a~2",
            "json:/a b",
            "basic:",
            "env:1A",
            "env:A-B",
            "env:A=",
            "env:A=b c",
            "env:=b",
            "sigv4:us-east-1",
            "sigv4:/s3",
            "sigv4:a/b/c",
            "file:../x",
            "file:.ssh",
            "file:a/b",
            "cookie:x",
            "HEADER:x",
        ] {
            assert!(text.parse::<Slot>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn placeholders_are_variables_and_files() {
        for text in ["env:GITHUB_TOKEN", "env:GITHUB_TOKEN=ghp_", "file:token=sk-proj-"] {
            assert_eq!(text.parse::<Placeholder>().unwrap().to_string(), text);
        }
        for text in
            ["", "GITHUB_TOKEN", "header:X", "basic:u", "env:", "env:A=gh p", "env:A=\u{e9}", "file:../x"]
        {
            assert!(text.parse::<Placeholder>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts_are_one_name_and_one_port() {
        for (text, want) in [
            ("api.Example.com", "api.example.com"),
            ("api.example.com:443", "api.example.com"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("localhost:80", "localhost:80"),
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), want);
        }
        for text in [
            "",
            "*",
            "*.example.com",
            "a b",
            "a..b",
            "a.",
            "https://a",
            "a/b",
            "a:0",
            "a:x",
            "a:70000",
            "u@a",
            "a\0.b",
            "::1",
            "[::1",
            "[::1]x",
            "a%2eb",
            "ä.example",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_secret_is_for_what_is_named_and_nothing_else() {
        let uses = Uses {
            agents: BTreeSet::from(["support".parse().unwrap()]),
            hosts: BTreeSet::from(["api.example.com".parse().unwrap()]),
            placeholders: BTreeSet::from(["env:GITHUB_TOKEN=ghp_".parse().unwrap()]),
            mint: None,
            slots: BTreeSet::from(["header:authorization".parse().unwrap()]),
            tools: ["github/*", "mail/send"].iter().map(|text| text.parse().unwrap()).collect(),
        };
        let permits = |agent: &str, tool: &str| uses.permits(&agent.parse().unwrap(), &tool.parse().unwrap());
        assert!(permits("support", "github/create_issue") && permits("support", "mail/send"));
        assert!(!permits("support", "mail/read") && !permits("support", "git/push"));
        assert!(!permits("other", "github/create_issue"));
        let serves_all = |server: &str| uses.serves_all(&server.parse().unwrap());
        assert!(serves_all("github") && !serves_all("mail"), "one tool is not the whole server");
        assert!(uses.goes_to("API.example.com", 443));
        assert!(!uses.goes_to("api.example.com", 80) && !uses.goes_to("example.com", 443));
        assert!(!uses.goes_to("api.example.com.evil.example", 443));
        let none = Uses::default();
        assert!(!none.permits(&"support".parse().unwrap(), &"github/x".parse().unwrap()));
        assert!(!none.goes_to("api.example.com", 443));
        let text = serde_json::to_string(&uses).unwrap();
        assert_eq!(serde_json::from_str::<Uses>(&text).unwrap(), uses);
        assert!(serde_json::from_str::<Uses>(r#"{"slots":["header:host"]}"#).is_err());
    }
}
