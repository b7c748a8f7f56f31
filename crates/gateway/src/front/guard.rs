//! What is looked at before anything of a request is believed: which name it was sent to, which page sent it, who sent
//! it, and what it promises to send and to understand.

use hyper::header::{self, HeaderMap, HeaderName};

/// The largest bearer token that is looked at.
const MAX_TOKEN: usize = 8 << 10;

/// The names and origins that are answered to.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Host names besides those of the loopback, in lower case and without a port.
    pub hosts: Vec<String>,
    /// Origins of web pages besides those of the loopback, as browsers send them: `https://console.example`.
    pub origins: Vec<String>,
}

impl Names {
    /// Whether a request was sent to one of our names. A web page whose name was made to lead to us by its DNS server
    /// still says its own name here.
    #[must_use]
    pub fn host(&self, headers: &HeaderMap, authority: Option<&str>) -> bool {
        let Some(host) = only(headers, &header::HOST) else {
            return false;
        };
        self.is_ours(host) && authority.is_none_or(|authority| self.is_ours(authority))
    }

    /// Whether a request comes from no web page, or from one that may send some.
    #[must_use]
    pub fn origin(&self, headers: &HeaderMap) -> bool {
        if !headers.contains_key(header::ORIGIN) {
            return true;
        }
        only(headers, &header::ORIGIN).is_some_and(|origin| {
            let local = || {
                origin
                    .strip_prefix("http://")
                    .or_else(|| origin.strip_prefix("https://"))
                    .is_some_and(is_loopback)
            };
            self.origins.iter().any(|ours| ours == origin) || local()
        })
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host).map(str::to_ascii_lowercase);
        is_loopback(host) || name.is_some_and(|name| self.hosts.contains(&name))
    }
}

fn is_loopback(host: &str) -> bool {
    without_port(host).is_some_and(|name| {
        ["127.0.0.1", "[::1]", "localhost"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
    })
}

/// The name in `name:port`; `None` if what follows the name is no port.
fn without_port(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at_checked(end)?;
    let fits = port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    (fits && !name.is_empty()).then_some(name)
}

/// The one value of a header; `None` if there is none, several, or one that is no visible text.
#[must_use]
pub fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

/// What a request shows to say who it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown<'a> {
    /// A token.
    Bearer(&'a str),
    /// Something that is no bearer token.
    Malformed,
    /// Nothing.
    Nothing,
}

/// Reads `Authorization`. A token anywhere else does not count.
#[must_use]
pub fn shown(headers: &HeaderMap) -> Shown<'_> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Shown::Nothing;
    }
    let Some((scheme, token)) = only(headers, &header::AUTHORIZATION).and_then(|value| value.split_once(' '))
    else {
        return Shown::Malformed;
    };
    let token = token.trim_start_matches(' ');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    let fits = !token.is_empty() && token.len() <= MAX_TOKEN && token.bytes().all(plain);
    if fits && scheme.eq_ignore_ascii_case("bearer") { Shown::Bearer(token) } else { Shown::Malformed }
}

/// Whether a program on this machine may have sent the request by itself: no web page, of whatever origin, and nobody
/// behind a proxy that says so.
#[must_use]
pub fn is_direct(headers: &HeaderMap) -> bool {
    let of_others = |name: &str| {
        name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "origin" | "via" | "x-real-ip")
    };
    !headers.keys().any(|name| of_others(name.as_str()))
}

/// Whether the body is said to be JSON.
#[must_use]
pub fn sends_json(headers: &HeaderMap) -> bool {
    only(headers, &header::CONTENT_TYPE).is_some_and(|value| is_type(value, &["application/json"]))
}

/// Whether an answer of this type is understood. Who says nothing understands everything.
#[must_use]
pub fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let wide = match wanted.split_once('/') {
        Some((kind, _)) => format!("{kind}/*"),
        None => return false,
    };
    let mut any = false;
    for value in headers.get_all(header::ACCEPT) {
        any = true;
        let fits = |part: &str| is_type(part, &[wanted, &wide, "*/*"]);
        if value.to_str().is_ok_and(|value| value.split(',').any(fits)) {
            return true;
        }
    }
    !any
}

fn is_type(value: &str, wanted: &[&str]) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let refused =
        parts.any(|part| matches!(part.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
    !refused && wanted.iter().any(|wanted| kind.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn only_our_names_are_answered_to() {
        let names =
            Names { hosts: vec!["gate.example".to_owned()], origins: vec!["https://ui.example".to_owned()] };
        for (host, want) in [
            ("localhost", true),
            ("LOCALHOST:7420", true),
            ("127.0.0.1:7420", true),
            ("[::1]:7420", true),
            ("[::1]", true),
            ("gate.example:7420", true),
            ("Gate.Example", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost:80:80", false),
            ("localhost:http", false),
            ("localhost@evil.example", false),
            ("[::1", false),
            ("", false),
            (":80", false),
        ] {
            assert_eq!(names.host(&headers(&[("host", host)]), None), want, "host: {host:?}");
        }
        assert!(!names.host(&HeaderMap::new(), None));
        assert!(!names.host(&headers(&[("host", "localhost"), ("host", "localhost")]), None));
        assert!(!names.host(&headers(&[("host", "localhost")]), Some("evil.example")));
        for (origin, want) in [
            ("http://localhost:3000", true),
            ("http://127.0.0.1", true),
            ("https://ui.example", true),
            ("http://ui.example", false),
            ("https://evil.example", false),
            ("http://localhost.evil.example", false),
            ("null", false),
            ("", false),
            ("file://", false),
        ] {
            assert_eq!(names.origin(&headers(&[("origin", origin)])), want, "origin: {origin:?}");
        }
        assert!(names.origin(&HeaderMap::new()));
        assert!(!names.origin(&headers(&[("origin", "http://localhost"), ("origin", "http://localhost")])));
    }

    #[test]
    fn tokens() {
        for (value, want) in [
            ("Bearer abc", Shown::Bearer("abc")),
            ("bearer a.b-c_d~e+f/g=", Shown::Bearer("a.b-c_d~e+f/g=")),
            ("Bearer", Shown::Malformed),
            ("Bearer ", Shown::Malformed),
            ("Bearer a b", Shown::Malformed),
            ("Bearer a,b", Shown::Malformed),
            ("Basic abc", Shown::Malformed),
        ] {
            assert_eq!(shown(&headers(&[("authorization", value)])), want, "value: {value:?}");
        }
        assert_eq!(shown(&HeaderMap::new()), Shown::Nothing);
        assert_eq!(
            shown(&headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")])),
            Shown::Malformed
        );
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        assert_eq!(shown(&headers(&[("authorization", &long)])), Shown::Malformed);
    }

    #[test]
    fn types() {
        for (accept, want) in [
            ("application/json, text/event-stream", true),
            ("text/event-stream;q=0.5", true),
            ("*/*", true),
            ("text/*", true),
            ("application/json", false),
            ("text/event-stream; q=0", false),
            ("", false),
        ] {
            assert_eq!(
                accepts(&headers(&[("accept", accept)]), "text/event-stream"),
                want,
                "accept: {accept:?}"
            );
        }
        assert!(accepts(&HeaderMap::new(), "text/event-stream"));
        for (kind, want) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(sends_json(&headers(&[("content-type", kind)])), want, "type: {kind:?}");
        }
        assert!(!sends_json(&HeaderMap::new()));
    }
}
