//! Putting a credential where its secret says.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::http::uri::{PathAndQuery, Uri};
use toolgate_broker::vault::Slot;
use toolgate_broker::vault::process::Value;
use toolgate_sandbox::cell::Handed;
use toolgate_sandbox::messages;
use zeroize::Zeroizing;

/// Why a credential cannot be attached. Names the secret and never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttachError {
    /// The vault has none of this name.
    #[error("there is no secret `{0}`")]
    None(String),
    /// It may not be sent there.
    #[error("the secret `{secret}` may not be sent to {host}:{port} for the server `{server}`")]
    NotThere { secret: String, server: String, host: String, port: u16 },
    /// It has bytes that do not fit the place.
    #[error("the secret `{0}` has bytes that an HTTP request cannot carry there")]
    Unfit(String),
    /// It has no place in a request.
    #[error("the secret `{0}` has no place in a request")]
    NoPlace(String),
}

/// Whether this secret may go to this server at this address.
pub(super) fn permitted(value: &Value, server: &str, host: &str, port: u16) -> Result<(), AttachError> {
    let uses = &value.uses;
    let secret = || value.name.to_string();
    let serves = server.parse().is_ok_and(|server| uses.serves(&server));
    if !serves || !uses.goes_to(host, port) {
        return Err(AttachError::NotThere {
            secret: secret(),
            server: server.to_owned(),
            host: host.to_owned(),
            port,
        });
    }
    if !uses.slots.iter().any(Slot::is_in_request) {
        return Err(AttachError::NoPlace(secret()));
    }
    Ok(())
}

/// What a program of this server is handed in its cell, and a file for each that holds it.
pub(super) fn lent(
    values: &[Arc<Value>],
    server: &str,
    secrets: &[String],
) -> io::Result<(Vec<Handed>, Vec<OwnedFd>)> {
    let (mut places, mut files) = (Vec::new(), Vec::new());
    for name in secrets {
        let value = values.iter().find(|value| value.name.as_str() == name).ok_or(io::ErrorKind::NotFound)?;
        if !server.parse().is_ok_and(|server| value.uses.serves(&server)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        for slot in &value.uses.slots {
            let place = match slot {
                Slot::Env { name } => Handed::Env(name.clone()),
                Slot::File { name } => Handed::File(name.clone()),
                Slot::Basic { .. } | Slot::Header { .. } | Slot::Query { .. } => continue,
            };
            places.push(place);
            files.push(messages::sealed("toolgate-secret", &value.value)?);
        }
    }
    Ok((places, files))
}

/// Puts it into each place of a request that is its own. What was there already goes.
pub(super) fn attach<B>(request: &mut Request<B>, value: &Value) -> Result<(), AttachError> {
    value.uses.slots.iter().try_for_each(|slot| attach_at(request, value, slot))
}

/// Puts it into one place of a request. What was there already goes.
pub(super) fn attach_at<B>(request: &mut Request<B>, value: &Value, slot: &Slot) -> Result<(), AttachError> {
    let unfit = || AttachError::Unfit(value.name.to_string());
    match slot {
        Slot::Header { name, before, after } => {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| unfit())?;
            let text = Zeroizing::new([before.as_bytes(), &value.value, after.as_bytes()].concat());
            request.headers_mut().insert(name, sensitive(&text).ok_or_else(unfit)?);
        }
        Slot::Basic { user } => {
            let pair = Zeroizing::new([user.as_bytes(), b":", &value.value].concat());
            let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(&*pair))));
            request.headers_mut().insert(AUTHORIZATION, sensitive(text.as_bytes()).ok_or_else(unfit)?);
        }
        Slot::Query { key } => {
            let uri = with_query(request.uri(), key, &value.value).ok_or_else(unfit)?;
            *request.uri_mut() = uri;
        }
        Slot::Env { .. } | Slot::File { .. } => {}
    }
    Ok(())
}

/// A header's value that is not shown. What begins or ends with a space would be read as another one.
fn sensitive(text: &[u8]) -> Option<HeaderValue> {
    let visible = |b: &u8| *b == b' ' || b.is_ascii_graphic();
    if !text.iter().all(visible) || text.starts_with(b" ") || text.ends_with(b" ") {
        return None;
    }
    let mut value = HeaderValue::from_bytes(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The query with this parameter, and without others of its name.
fn with_query(uri: &Uri, key: &str, value: &[u8]) -> Option<Uri> {
    let others = uri.query().unwrap_or_default().split('&');
    let others = others.filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(key));
    let mut text = Zeroizing::new(format!("{}?", uri.path()));
    for pair in others {
        text.push_str(pair);
        text.push('&');
    }
    text.push_str(key);
    text.push('=');
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text.as_str()).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use toolgate_broker::vault::Uses;

    use super::*;

    fn value(slots: &[&str], value: &[u8]) -> Value {
        Value {
            name: "api".parse().unwrap(),
            version: 1,
            uses: Uses {
                agents: BTreeSet::new(),
                hosts: BTreeSet::from(["api.example.com".parse().unwrap()]),
                placeholders: BTreeSet::new(),
                slots: slots.iter().map(|slot| slot.parse().unwrap()).collect(),
                tools: BTreeSet::from(["github/*".parse().unwrap()]),
            },
            value: Zeroizing::new(value.to_vec()),
        }
    }

    fn request(uri: &str) -> Request<()> {
        Request::builder().uri(uri).header("authorization", "Bearer of the agent").body(()).unwrap()
    }

    #[test]
    fn each_place_gets_the_value_and_loses_what_was_there() {
        let mut sent = request("/mcp?key=of-the-agent&a=b&key=again");
        let secret = value(&["header:X-Api-Key: Token {}", "basic:user", "query:key"], b"p&ss w\xc3\xb6rd?");
        assert_eq!(
            attach(&mut sent, &secret),
            Err(AttachError::Unfit("api".to_owned())),
            "no header takes that"
        );
        let secret = value(&["header:X-Api-Key: Token {}", "basic:user", "query:key"], b"p&ss w=rd?");
        attach(&mut sent, &secret).unwrap();
        assert_eq!(sent.headers()["x-api-key"], "Token p&ss w=rd?");
        assert_eq!(sent.headers()["authorization"], format!("Basic {}", STANDARD.encode("user:p&ss w=rd?")));
        assert_eq!(sent.headers().get_all("authorization").iter().count(), 1);
        assert_eq!(sent.uri(), "/mcp?a=b&key=p%26ss%20w%3Drd%3F");
        assert!(!format!("{:?}", sent.headers()).contains("p&ss"), "{:?}", sent.headers());
    }

    #[test]
    fn what_would_be_read_otherwise_is_not_sent() {
        for bytes in
            [&b"line\nline"[..], b"a\rb", b"a\0b", b" begins", b"ends ", "\u{fc}".as_bytes(), b"\x7f"]
        {
            let secret = value(&["header:X-Api-Key"], bytes);
            assert!(attach(&mut request("/"), &secret).is_err(), "{bytes:?}");
        }
        // In a query everything can be written.
        let mut sent = request("/");
        attach(&mut sent, &value(&["query:k"], b"line\nline")).unwrap();
        assert_eq!(sent.uri(), "/?k=line%0Aline");
    }

    #[test]
    fn a_secret_goes_to_its_own_host_and_server_only() {
        let secret = value(&["header:authorization"], b"x");
        assert_eq!(permitted(&secret, "github", "api.example.com", 443), Ok(()));
        for (server, host, port) in [
            ("mail", "api.example.com", 443),
            ("github", "api.example.com", 80),
            ("github", "example.com", 443),
            ("github", "api.example.com.evil.example", 443),
            ("github", "api.example.com\0", 443),
            ("not a name", "api.example.com", 443),
        ] {
            let refused = permitted(&secret, server, host, port);
            assert!(matches!(refused, Err(AttachError::NotThere { .. })), "{server} {host} {port}");
        }
        let elsewhere = permitted(&value(&["env:X"], b"x"), "github", "api.example.com", 443);
        assert_eq!(elsewhere, Err(AttachError::NoPlace("api".to_owned())));
    }
}
