//! Requests of a cell: what stands for a secret is taken out of the place where it belongs, is nowhere else, and no other credential
//! goes along.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use hyper::http::uri::{PathAndQuery, Uri};
use toolgate_broker::vault::Slot;
use toolgate_core::name::SecretName;
use toolgate_sandbox::egress::Inside;

use super::attach::{Credential, attach_at, with_segment};
use super::placeholder::{Finder, Mark};
use super::pointer::Place;

/// A secret that may be put into requests to a host, and what stands for it.
pub(super) struct Usable {
    pub(super) mark: Mark,
    pub(super) credential: Credential,
}

impl Usable {
    /// Whether it may stand in the body of a request.
    pub(super) fn is_in_body(&self) -> bool {
        self.credential.value.uses.slots.iter().any(|slot| matches!(slot, Slot::Json { .. }))
    }
}

/// Puts secrets in place of what stands for them, each in its own places, and takes all other credentials out. What stands for a
/// secret in another place is not sent anywhere. `body` is the body where it is read beforehand, and else empty.
pub(super) fn put_in<B>(
    request: &mut Request<B>,
    body: &mut Bytes,
    usable: &[Usable],
    finder: &Finder,
) -> Result<(), Inside> {
    let mut wanted = Vec::new();
    for Usable { mark, credential } in usable {
        for slot in &credential.value.uses.slots {
            if take_out(request, body, &credential.value.name, slot, &mark.text) {
                wanted.push((credential, slot));
            }
        }
    }
    if finder.finds(&said(request)) || finder.finds(body) {
        return Err(Inside::Marked);
    }
    strip(request.headers_mut());
    for slot in usable.iter().flat_map(|usable| &usable.credential.value.uses.slots) {
        clear(request, body, slot);
    }
    for (credential, slot) in wanted {
        attach_at(request, body, credential, slot).map_err(|_error| Inside::Secret)?;
    }
    Ok(())
}

/// Takes a placeholder out of a place, if it is there, whole and alone.
fn take_out<B>(
    request: &mut Request<B>,
    body: &mut Bytes,
    secret: &SecretName,
    slot: &Slot,
    mark: &str,
) -> bool {
    let there = match slot {
        Slot::Basic { before, after } => {
            let pair = format!("{before}{mark}{after}");
            only(request.headers(), &AUTHORIZATION, |value| {
                let encoded = scheme(value, "Basic ");
                encoded.is_some_and(|text| STANDARD.decode(text).is_ok_and(|text| text == pair.as_bytes()))
            })
        }
        Slot::Header { name, before, after } => {
            let name = HeaderName::from_bytes(name.as_bytes()).ok();
            name.is_some_and(|name| {
                only(request.headers(), &name, |value| {
                    let rest = scheme(value, before).and_then(|rest| rest.strip_suffix(after.as_str()));
                    rest == Some(mark)
                })
            })
        }
        Slot::Json { pointer } => {
            Place::find(body, pointer).is_some_and(|place| place.text.as_deref() == Some(mark))
        }
        Slot::Path { before, after } => {
            // What marks the place where the secret goes stays there.
            let marked = slot.segment(secret.as_str()).unwrap_or_default();
            let found = with_segment(request.uri(), &format!("{before}{mark}{after}"), &marked);
            let is_there = found.is_some();
            found.into_iter().for_each(|uri| *request.uri_mut() = uri);
            is_there
        }
        Slot::Query { key } => {
            let pairs = request.uri().query().unwrap_or_default().split('&');
            let named: Vec<_> = pairs.filter(|pair| pair.split('=').next() == Some(key)).collect();
            matches!(&*named, [pair] if pair.split_once('=') == Some((key.as_str(), mark)))
        }
        Slot::Env { .. } | Slot::File { .. } | Slot::Sigv4 { .. } => false,
    };
    if there {
        clear(request, body, slot);
    }
    there
}

/// Whether there is one header of this name, and it is so.
fn only(headers: &HeaderMap, name: &HeaderName, is: impl Fn(&str) -> bool) -> bool {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().is_ok_and(is),
        _ => false,
    }
}

/// What follows a scheme, whose case does not matter (RFC 9110, section 11.1).
fn scheme<'v>(value: &'v str, scheme: &str) -> Option<&'v str> {
    let (head, rest) = value.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Leaves nothing in a place.
fn clear<B>(request: &mut Request<B>, body: &mut Bytes, slot: &Slot) {
    match slot {
        Slot::Basic { .. } => drop(request.headers_mut().remove(AUTHORIZATION)),
        Slot::Header { name, .. } => drop(request.headers_mut().remove(name.as_str())),
        Slot::Json { pointer } => {
            if let Some(place) = Place::find(body, pointer).filter(|place| place.text.is_some()) {
                *body = Bytes::from_owner(place.with(""));
            }
        }
        Slot::Query { key } => {
            let query = request.uri().query().unwrap_or_default();
            let named = |pair: &&str| pair.split('=').next() == Some(key.as_str());
            if query.split('&').any(|pair| named(&pair)) {
                let others: Vec<_> = query.split('&').filter(|pair| !named(pair)).collect();
                let (path, mark) = (request.uri().path(), if others.is_empty() { "" } else { "?" });
                // It was a path before, and is a shorter one now.
                let shorter = PathAndQuery::try_from(format!("{path}{mark}{}", others.join("&")));
                if let Ok(shorter) = shorter {
                    *request.uri_mut() = Uri::from(shorter);
                }
            }
        }
        Slot::Env { .. } | Slot::File { .. } | Slot::Path { .. } | Slot::Sigv4 { .. } => {}
    }
}

/// All that the head of a request says.
fn said<B>(request: &Request<B>) -> Vec<u8> {
    let mut said = format!("{} {}\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"] {
            said.extend_from_slice(part);
        }
    }
    said
}

/// Takes out what servers take for a credential, whatever of it the program has: it could be somebody else's.
fn strip(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| is_credential(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Parts of names of headers that hold credentials.
const CREDENTIALS: [&str; 11] = [
    "access-key",
    "api-key",
    "apikey",
    "authoriz",
    "cookie",
    "credential",
    "functions-key",
    "password",
    "secret",
    "subscription-key",
    "token",
];
/// What such headers begin with.
const BEGINNINGS: [&str; 2] = ["fastly-key", "x-auth-"];

fn is_credential(name: &str) -> bool {
    CREDENTIALS.iter().any(|part| name.contains(part)) || BEGINNINGS.iter().any(|part| name.starts_with(part))
}
