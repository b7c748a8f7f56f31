//! Putting a credential where its secret says.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::http::uri::{PathAndQuery, Uri};
use toolgate_broker::vault::Slot;
use toolgate_broker::vault::process::Value;
use toolgate_sandbox::cell::Handed;
use toolgate_sandbox::messages;
use zeroize::Zeroizing;

use super::mint::{Keys, Lease, sign_request};
use super::pointer::Place;

/// Why a credential cannot be attached. Names the secret and never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttachError {
    /// The vault has none of this name.
    #[error("there is no secret `{0}`")]
    None(String),
    /// It may not be sent there.
    #[error("the secret `{secret}` may not be sent to {host}:{port}")]
    NotThere { secret: String, host: String, port: u16 },
    /// It is for others.
    #[error("the secret `{secret}` is not for the server `{server}`")]
    NotFor { secret: String, server: String },
    /// What is minted from it has no such part.
    #[error("what is minted from the secret `{secret}` has no part `{part}`")]
    NoPart { secret: String, part: String },
    /// Nothing could be minted or handed.
    #[error("{0}")]
    Lease(String),
    /// It has bytes that do not fit the place.
    #[error("the secret `{0}` has bytes that an HTTP request cannot carry there")]
    Unfit(String),
    /// The path of the server's address does not say where.
    #[error(
        "the secret `{secret}` goes into the path of the server's address, and that has no `/{marked}` in it"
    )]
    NotInPath { secret: String, marked: String },
    /// It has no place in a request.
    #[error("the secret `{0}` has no place in a request")]
    NoPlace(String),
}

/// What goes to a server: a secret, or what was minted from it.
pub(super) struct Credential {
    pub(super) value: Arc<Value>,
    pub(super) lease: Option<Arc<Lease>>,
}

impl Credential {
    /// What goes into this place.
    fn at(&self, slot: &Slot) -> Result<&[u8], AttachError> {
        let found = match (&self.lease, slot.part()) {
            (Some(lease), part) => lease.part(part),
            (None, None) => Some(self.value.value.as_slice()),
            (None, Some(_)) => None,
        };
        found.ok_or_else(|| AttachError::NoPart {
            secret: self.value.name.to_string(),
            part: slot.part().unwrap_or("first").to_owned(),
        })
    }
}

/// Whether this secret serves this server.
pub(super) fn serves(value: &Value, server: &str) -> Result<(), AttachError> {
    if server.parse().is_ok_and(|server| value.uses.serves(&server)) {
        return Ok(());
    }
    Err(AttachError::NotFor { secret: value.name.to_string(), server: server.to_owned() })
}

/// Whether this secret, or what is minted from it, may go to this server at this address.
pub(super) fn permitted(value: &Value, server: &str, host: &str, port: u16) -> Result<(), AttachError> {
    let uses = &value.uses;
    let secret = || value.name.to_string();
    serves(value, server)?;
    if !uses.goes_to(host, port) {
        return Err(AttachError::NotThere { secret: secret(), host: host.to_owned(), port });
    }
    if !uses.slots.iter().any(Slot::is_in_request) {
        return Err(AttachError::NoPlace(secret()));
    }
    Ok(())
}

/// The place in a cell that a slot is, if it is one.
pub(super) fn handed(slot: &Slot) -> Option<Handed> {
    match slot {
        Slot::Env { name, part: _ } => Some(Handed::Env(name.clone())),
        Slot::File { name, part: _ } => Some(Handed::File(name.clone())),
        Slot::Basic { .. }
        | Slot::Header { .. }
        | Slot::Json { .. }
        | Slot::Path { .. }
        | Slot::Query { .. }
        | Slot::Sigv4 { .. } => None,
    }
}

/// Percent-encoded: all but letters, digits and `-._~` (RFC 3986, section 2.3).
pub(crate) fn encoded(bytes: &[u8]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(bytes.len() * 3));
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Adds what a program of this server is handed in its cell, and a file for each that holds it.
pub(super) fn lend(
    credential: &Credential,
    server: &str,
    (places, files): (&mut Vec<Handed>, &mut Vec<OwnedFd>),
) -> Result<(), AttachError> {
    serves(&credential.value, server)?;
    for slot in &credential.value.uses.slots {
        let Some(place) = handed(slot) else { continue };
        let file = messages::sealed("toolgate-secret", credential.at(slot)?);
        files.push(file.map_err(|error| AttachError::Lease(error.to_string()))?);
        places.push(place);
    }
    Ok(())
}

/// Puts all of them into each place of a request that is theirs. What was there already goes. Signatures come last, since they are of
/// all.
pub(super) fn attach<B>(
    request: &mut Request<B>,
    body: &mut Bytes,
    credentials: &[Credential],
) -> Result<(), AttachError> {
    for credential in credentials {
        let slots = &credential.value.uses.slots;
        slots.iter().try_for_each(|slot| attach_at(request, body, credential, slot))?;
    }
    for credential in credentials {
        for slot in &credential.value.uses.slots {
            let Slot::Sigv4 { region, service } = slot else { continue };
            let keys = match credential.lease.as_deref() {
                Some(lease) => Keys::of_lease(lease),
                None => Keys::of_secret(&credential.value.value),
            };
            let signed = keys.and_then(|keys| sign_request(request, body, &keys, region, service));
            signed.ok_or_else(|| AttachError::Unfit(credential.value.name.to_string()))?;
        }
    }
    Ok(())
}

/// Puts it into one place of a request. What was there already goes.
pub(super) fn attach_at<B>(
    request: &mut Request<B>,
    body: &mut Bytes,
    credential: &Credential,
    slot: &Slot,
) -> Result<(), AttachError> {
    let name = || credential.value.name.to_string();
    let unfit = || AttachError::Unfit(name());
    match slot {
        Slot::Header { name, before, after } => {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| unfit())?;
            let text = Zeroizing::new([before.as_bytes(), credential.at(slot)?, after.as_bytes()].concat());
            request.headers_mut().insert(name, sensitive(&text).ok_or_else(unfit)?);
        }
        Slot::Basic { before, after } => {
            let value = credential.at(slot)?;
            // A colon ends the name of the user.
            if before.is_empty() && value.contains(&b':') {
                return Err(unfit());
            }
            let pair = Zeroizing::new([before.as_bytes(), value, after.as_bytes()].concat());
            let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(&*pair))));
            request.headers_mut().insert(AUTHORIZATION, sensitive(text.as_bytes()).ok_or_else(unfit)?);
        }
        Slot::Json { pointer } => {
            // Where the object is not, it is another kind of message.
            if let Some(place) = Place::find(body, pointer) {
                let value = str::from_utf8(credential.at(slot)?).map_err(|_bytes| unfit())?;
                *body = Bytes::from_owner(place.with(value));
            }
        }
        Slot::Path { before, after } => {
            let marked = slot.segment(credential.value.name.as_str()).unwrap_or_default();
            let segment = format!("{before}{}{after}", *encoded(credential.at(slot)?));
            let uri = with_segment(request.uri(), &marked, &Zeroizing::new(segment));
            *request.uri_mut() = uri.ok_or_else(|| AttachError::NotInPath { secret: name(), marked })?;
        }
        Slot::Query { key } => {
            let uri = with_query(request.uri(), key, credential.at(slot)?).ok_or_else(unfit)?;
            *request.uri_mut() = uri;
        }
        Slot::Env { .. } | Slot::File { .. } | Slot::Sigv4 { .. } => {}
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

/// The address with another segment in the path, for one that is there once.
pub(super) fn with_segment(uri: &Uri, marked: &str, segment: &str) -> Option<Uri> {
    let is_once = uri.path().split('/').filter(|one| *one == marked).count() == 1;
    if !is_once || matches!(segment, "" | "." | "..") {
        return None;
    }
    let segments: Vec<_> =
        uri.path().split('/').map(|one| if one == marked { segment } else { one }).collect();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let text = Zeroizing::new(format!("{}{query}", *Zeroizing::new(segments.join("/"))));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text.as_str()).ok()?);
    Uri::from_parts(parts).ok()
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
    text.push_str(&encoded(value));
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
                mint: None,
                agents: BTreeSet::new(),
                hosts: BTreeSet::from(["api.example.com".parse().unwrap()]),
                placeholders: BTreeSet::new(),
                slots: slots.iter().map(|slot| slot.parse().unwrap()).collect(),
                tools: BTreeSet::from(["github/*".parse().unwrap()]),
            },
            value: Zeroizing::new(value.to_vec()),
        }
    }

    /// Attaches a secret as it is.
    fn put(request: &mut Request<()>, secret: &Value) -> Result<(), AttachError> {
        attach(request, &mut Bytes::new(), &[Credential { value: Arc::new(copy(secret)), lease: None }])
    }

    fn copy(secret: &Value) -> Value {
        let Value { name, version, uses, value } = secret;
        Value { name: name.clone(), version: *version, uses: uses.clone(), value: value.clone() }
    }

    fn request(uri: &str) -> Request<()> {
        Request::builder().uri(uri).header("authorization", "Bearer of the agent").body(()).unwrap()
    }

    #[test]
    fn each_place_gets_the_value_and_loses_what_was_there() {
        let mut sent = request("/mcp?key=of-the-agent&a=b&key=again");
        let secret = value(&["header:X-Api-Key: Token {}", "basic:user", "query:key"], b"p&ss w\xc3\xb6rd?");
        assert_eq!(
            put(&mut sent, &secret),
            Err(AttachError::Unfit("api".to_owned())),
            "no header takes that"
        );
        let secret = value(&["header:X-Api-Key: Token {}", "basic:user", "query:key"], b"p&ss w=rd?");
        put(&mut sent, &secret).unwrap();
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
            assert!(put(&mut request("/"), &secret).is_err(), "{bytes:?}");
        }
        // In a query everything can be written.
        let mut sent = request("/");
        put(&mut sent, &value(&["query:k"], b"line\nline")).unwrap();
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
            let known = matches!(refused, Err(AttachError::NotThere { .. } | AttachError::NotFor { .. }));
            assert!(known, "{server} {host} {port}");
        }
        let elsewhere = permitted(&value(&["env:X"], b"x"), "github", "api.example.com", 443);
        assert_eq!(elsewhere, Err(AttachError::NoPlace("api".to_owned())));
    }
}
