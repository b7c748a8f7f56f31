//! What may be reached: rules, as an operator writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::TLS_PORT;
use super::name::{HostName, NameError};

/// One destination that is allowed: `NAME:PORT`, where the name may be `*.example.com` for all names below `example.com`, and
/// words may follow.
///
/// `NAME:PORT,private` allows addresses of private networks and of this machine for that name.
/// `NAME:PORT,danger-any-tls` leaves unread for whom a TLS connection is meant.
/// `NAME:PORT,GET=/v1,ANY=/v2` allows HTTP only, and these methods and paths (and what is below them) only: without TLS, or inside
/// TLS where somebody reads what is ([`Intercept`](super::Intercept)). At port 443 there is nothing without TLS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    names: Names,
    port: u16,
    private: bool,
    any_tls: bool,
    /// The requests of HTTP that are allowed; where there are none, it is not read what is said.
    requests: Vec<Request>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    Below(HostName),
    One(HostName),
}

/// A kind of request of HTTP: the method, or `ANY`, and the beginning of the path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request {
    method: String,
    path: String,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The name is none.
    #[error("`{name}` is not the name of a host: {why}")]
    Name {
        /// As it was written.
        name: String,
        /// Why not.
        why: NameError,
    },
    /// Requests cannot be told apart there.
    #[error("`{0}` names requests where they are inside TLS and cannot be read")]
    Inside(String),
    /// In a cell, that is the cell.
    #[error("`localhost` is the cell itself; this machine is `host.internal`")]
    Localhost,
    /// There is no port, or it is no number from 1 to 65535.
    #[error("`{0}` has no port; write it as `NAME:PORT`")]
    Port(String),
    /// A kind of request that is none.
    #[error(
        "`{0}` is no kind of request; write it as `GET=/path` or `ANY=/path`, the path without `%`, `?` or `..`"
    )]
    Request(String),
    /// It would allow everything below a top-level domain.
    #[error("`{0}` is too wide: `*.` has to be followed by two parts at least")]
    TooWide(String),
    /// A word that means nothing here.
    #[error(
        "`{0}` means nothing here; there are `private`, `danger-any-tls` and kinds of requests as `GET=/path`"
    )]
    Word(String),
}

impl Rule {
    /// Whether it can only be kept by somebody who [reads](super::Intercept) what is inside TLS.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.port == TLS_PORT && !self.requests.is_empty()
    }

    /// Whether it is for this host and port.
    #[must_use]
    pub fn covers(&self, name: &HostName, port: u16) -> bool {
        self.port == port && self.names.cover(name)
    }
}

/// What the rules say about one destination, by the address that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowed {
    /// For an address of a private network or of this machine, where a rule allows those: as these rules have it, and no others.
    pub(super) private: Option<Terms>,
    /// For every other address.
    pub(super) public: Terms,
}

/// On which terms something may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    /// It is not read for whom a TLS connection is meant.
    pub(super) any_tls: bool,
    /// Only these requests of HTTP are allowed, if there are some.
    pub(super) requests: Option<Vec<Request>>,
}

/// Whether a name is in the rules, for any port.
pub(super) fn knows(rules: &[Rule], name: &HostName) -> bool {
    rules.iter().any(|rule| rule.names.cover(name))
}

/// What the rules say about a name and a port; `None` is a no.
pub(super) fn allow(rules: &[Rule], name: &HostName, port: u16) -> Option<Allowed> {
    let covering = || rules.iter().filter(|rule| rule.port == port && rule.names.cover(name));
    let public = together(covering())?;
    Some(Allowed { private: together(covering().filter(|rule| rule.private)), public })
}

/// What several rules allow together.
fn together<'r>(rules: impl Iterator<Item = &'r Rule>) -> Option<Terms> {
    let terms = |rule: &Rule| Terms {
        any_tls: rule.any_tls,
        requests: (!rule.requests.is_empty()).then(|| rule.requests.clone()),
    };
    rules.map(terms).reduce(|one, other| Terms {
        any_tls: one.any_tls || other.any_tls,
        requests: one.requests.zip(other.requests).map(|(one, other)| [one, other].concat()),
    })
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.method, self.path)
    }
}

impl Allowed {
    /// Whether there are requests that are allowed where there is nothing but TLS.
    pub(super) fn is_inside(&self, port: u16) -> bool {
        let named = |terms: &Terms| terms.requests.is_some();
        port == TLS_PORT && (named(&self.public) || self.private.as_ref().is_some_and(named))
    }
}

impl Request {
    /// Whether a request is of this kind. A path that would be another one after decoding is of none, unless all paths are.
    pub(super) fn covers(&self, method: &str, path: &str) -> bool {
        if self.method != "ANY" && self.method != method {
            return false;
        }
        let below = |rest: &str| self.path.ends_with('/') || rest.is_empty() || rest.starts_with('/');
        self.path == "/" || (is_plain(path) && path.strip_prefix(&*self.path).is_some_and(below))
    }
}

/// Whether a path leads where it says, however it is decoded and put together.
fn is_plain(path: &str) -> bool {
    let Some(decoded) = decoded(path) else { return false };
    // Some leave out what follows a semicolon, others spaces and dots at the end.
    let is_dots = |part: &str| {
        let bare = part.split(';').next().unwrap_or_default().trim();
        !bare.is_empty() && bare.bytes().all(|byte| byte == b'.')
    };
    path.starts_with('/') && !path.contains("//") && !path.contains('\\') && !decoded.split('/').any(is_dots)
}

/// The path without `%`. There is none where what is encoded had no need to be, means something to somebody when it is decoded, or
/// is not UTF-8 (in which a dot can be written in several ways, to some).
fn decoded(path: &str) -> Option<String> {
    let means =
        |byte: u8| byte.is_ascii_alphanumeric() || byte.is_ascii_control() || b"-._~/\\%;?#".contains(&byte);
    let mut parts = path.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let byte = u8::from_str_radix(digits, 16).ok().filter(|byte| !means(*byte))?;
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

impl Names {
    fn cover(&self, name: &HostName) -> bool {
        match self {
            Self::Below(above) => name.is_below(above),
            Self::One(one) => name == one,
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut words = text.split(',');
        let destination = words.next().unwrap_or_default();
        // What somebody wrote is shown to somebody.
        let shown = |text: &str| text.escape_debug().to_string();
        let no_port = || RuleError::Port(shown(destination));
        let (name, port) = destination.rsplit_once(':').ok_or_else(no_port)?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or_else(no_port)?;
        let parse =
            |text: &str| text.parse::<HostName>().map_err(|why| RuleError::Name { name: shown(name), why });
        let names = match name.strip_prefix("*.") {
            Some(above) => {
                let above = parse(above)?;
                if above.labels() < 2 {
                    return Err(RuleError::TooWide(shown(name)));
                }
                Names::Below(above)
            }
            None => Names::One(parse(name)?),
        };
        if matches!(&names, Names::One(one) if one.as_str() == "localhost") {
            return Err(RuleError::Localhost);
        }
        let mut rule = Self { names, port, private: false, any_tls: false, requests: Vec::new() };
        for word in words {
            match word {
                "private" => rule.private = true,
                "danger-any-tls" => rule.any_tls = true,
                other if other.contains('=') => {
                    rule.requests.push(request(other).ok_or_else(|| RuleError::Request(shown(other)))?);
                }
                other => return Err(RuleError::Word(shown(other))),
            }
        }
        if !rule.requests.is_empty() && rule.any_tls {
            return Err(RuleError::Inside(shown(text)));
        }
        Ok(rule)
    }
}

pub(super) fn request(text: &str) -> Option<Request> {
    let (method, path) = text.split_once('=')?;
    let known = (1..=16).contains(&method.len()) && method.bytes().all(|byte| byte.is_ascii_uppercase());
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"%?#".contains(&byte));
    let path = path.starts_with('/').then_some(path).filter(|path| known && plain && is_plain(path))?;
    Some(Request { method: method.to_owned(), path: path.to_owned() })
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.names {
            Names::Below(above) => write!(f, "*.{above}:{}", self.port)?,
            Names::One(one) => write!(f, "{one}:{}", self.port)?,
        }
        f.write_str(if self.private { ",private" } else { "" })?;
        f.write_str(if self.any_tls { ",danger-any-tls" } else { "" })?;
        self.requests.iter().try_for_each(|request| write!(f, ",{request}"))
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    #[test]
    fn rules_are_read() {
        for (text, want) in [
            ("example.com:443", Ok("example.com:443")),
            ("Example.COM.:443", Ok("example.com:443")),
            ("*.Example.com:8443", Ok("*.example.com:8443")),
            ("host.localhost:80,private", Ok("host.localhost:80,private")),
            ("a.b:1,danger-any-tls,private", Ok("a.b:1,private,danger-any-tls")),
            ("xn--bcher-kva.example:443", Ok("xn--bcher-kva.example:443")),
            ("localhost:80", Err("`localhost` is the cell itself; this machine is `host.internal`")),
            ("example.com", Err("`example.com` has no port; write it as `NAME:PORT`")),
            ("example.com:0", Err("`example.com:0` has no port; write it as `NAME:PORT`")),
            ("example.com:+443", Err("`example.com:+443` has no port; write it as `NAME:PORT`")),
            ("example.com:65536", Err("`example.com:65536` has no port; write it as `NAME:PORT`")),
            ("*.com:443", Err("`*.com` is too wide: `*.` has to be followed by two parts at least")),
            ("a.b:80,GET=/v1,private,ANY=/v2/", Ok("a.b:80,private,GET=/v1,ANY=/v2/")),
            (
                "a.b:443,public",
                Err(
                    "`public` means nothing here; there are `private`, `danger-any-tls` and kinds of requests as `GET=/path`",
                ),
            ),
            ("a.b:443,GET=/", Ok("a.b:443,GET=/")),
            (
                "a.b:80,GET=/,danger-any-tls",
                Err(
                    "`a.b:80,GET=/,danger-any-tls` names requests where they are inside TLS and cannot be read",
                ),
            ),
        ] {
            let got = text.parse::<Rule>().map(|rule| rule.to_string()).map_err(|error| error.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_kind_of_request_is_refused() {
        for word in [
            "get=/",
            "=/",
            "GET=",
            "GET=v1",
            "GET=/../x",
            "GET=/a//b",
            "GET=/%41",
            "GET=/?x",
            "G T=/",
            "GET=/ü",
        ] {
            let error = format!("a.b:80,{word}").parse::<Rule>().unwrap_err();
            assert!(matches!(error, RuleError::Request(_)), "{word}: {error}");
        }
    }

    /// A rule for requests beside one without leaves nothing unread for nothing: the wider one counts, as everywhere.
    #[test]
    fn rules_for_requests_add_up() {
        let count = |texts: &[&str]| {
            allow(&rules(texts), &name("a.b"), 80).unwrap().public.requests.map(|all| all.len())
        };
        assert_eq!(count(&["a.b:80,GET=/x"]), Some(1));
        assert_eq!(count(&["a.b:80,GET=/x", "a.b:80,GET=/y"]), Some(2));
        assert_eq!(count(&["a.b:80,GET=/x", "a.b:80"]), None);
    }

    /// What two rules do not allow each, they do not allow together.
    #[test]
    fn what_is_private_is_as_the_rules_for_it_have_it() {
        let of = |texts: &[&str]| allow(&rules(texts), &name("a.b"), 80).unwrap();
        let both = of(&["a.b:80,private,GET=/x", "*.b.c:80", "a.b:80", "a.b:80,danger-any-tls"]);
        assert_eq!(both.private, of(&["a.b:80,private,GET=/x"]).private);
        assert_eq!(both.private.unwrap().requests.map(|all| all.len()), Some(1));
        assert_eq!((both.public.requests, both.public.any_tls), (None, true));
        assert_eq!(of(&["a.b:80"]).private, None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        use NameError::{Address, Characters, Label, Length};
        let long = "a.".repeat(127);
        for (text, want) in [
            ("", Label),
            (".", Label),
            ("a..b", Label),
            ("a.b..", Label),
            ("-a.b", Label),
            ("a-.b", Label),
            (&"a".repeat(64), Label),
            (&format!("{long}com"), Length),
            ("127.0.0.1", Address),
            ("127.1", Address),
            ("2130706433", Address),
            ("0x7f000001", Address),
            ("0x7f.1", Address),
            ("1.0x", Address),
            ("0177.0.0.01", Address),
            ("example.com.127.0.0.1", Address),
            ("::1", Characters),
            ("[::1]", Characters),
            ("::ffff:127.0.0.1", Characters),
            ("evil.example\0.example.com", Characters),
            ("user@example.com", Characters),
            ("a_b.example", Characters),
            ("a.example/x", Characters),
            ("a%2eexample", Characters),
            ("*", Characters),
            ("a.*.example", Characters),
            ("bücher.example", Characters),
            ("exаmple.com", Characters),
            ("example。com", Characters),
        ] {
            assert_eq!(text.parse::<HostName>(), Err(want), "{text:?}");
        }
    }

    #[test]
    fn name_and_port_have_to_be_right() {
        let rules = rules(&["api.example.com:443", "*.cdn.example:443", "*.cdn.example:80,private"]);
        for (text, port, want) in [
            ("api.example.com", 443, true),
            ("api.example.com", 80, false),
            ("example.com", 443, false),
            ("x.api.example.com", 443, false),
            ("xapi.example.com", 443, false),
            ("a.cdn.example", 443, true),
            ("a.b.cdn.example", 443, true),
            ("cdn.example", 443, false),
            ("evilcdn.example", 443, false),
            ("a.cdn.example.evil.example", 443, false),
        ] {
            assert_eq!(allow(&rules, &name(text), port).is_some(), want, "{text}:{port}");
        }
        assert!(allow(&rules, &name("a.cdn.example"), 80).is_some_and(|terms| terms.private.is_some()));
        assert!(allow(&rules, &name("a.cdn.example"), 443).is_some_and(|terms| terms.private.is_none()));
        assert!(knows(&rules, &name("a.cdn.example")) && !knows(&rules, &name("cdn.example")));
        assert!(!knows(&[], &name("a.cdn.example")), "no rule allows nothing");
    }

    proptest! {
        /// Whatever is taken for a name has one spelling, and is no address to the standard library.
        #[test]
        fn names_are_canonical(text in "[A-Za-z0-9.x-]{0,40}|\\PC{0,20}") {
            if let Ok(name) = text.parse::<HostName>() {
                prop_assert_eq!(name.as_str().parse::<HostName>(), Ok(name.clone()));
                let lower = text.to_ascii_lowercase();
                prop_assert_eq!(name.as_str(), lower.strip_suffix('.').unwrap_or(&lower));
                prop_assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
                prop_assert!(name.as_str().len() <= HostName::LONGEST);
            }
        }

        /// Upper and lower case, and a dot at the end, do not matter.
        #[test]
        fn spellings_do_not_matter(text in "[a-z]{1,10}(\\.[a-z0-9]{1,10}){0,3}\\.[a-z]{2,5}") {
            let name: HostName = text.parse().unwrap();
            prop_assert_eq!(&text.to_uppercase().parse::<HostName>().unwrap(), &name);
            prop_assert_eq!(&format!("{text}.").parse::<HostName>().unwrap(), &name);
        }

        /// A name below another one ends with it after a dot, and nothing else is below it.
        #[test]
        fn below_is_after_a_dot(one in "[ab]{1,2}(\\.[ab]{1,2}){0,3}", other in "[ab]{1,2}(\\.[ab]{1,2}){0,2}") {
            let (one, other) = (name(&one), name(&other));
            let parts: Vec<_> = one.as_str().split('.').collect();
            let above: Vec<_> = other.as_str().split('.').collect();
            prop_assert_eq!(one.is_below(&other), parts.len() > above.len() && parts.ends_with(&above));
        }

        /// A rule is written as it is read.
        #[test]
        fn rules_are_written_as_they_are_read(text in "(\\*\\.)?[a-z]{1,5}\\.[a-z]{2,5}:[1-9][0-9]{0,3}(,private)?(,danger-any-tls)?") {
            prop_assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
    }
}
