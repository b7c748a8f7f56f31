//! A place in a JSON document, as a JSON pointer names it (RFC 6901).

use toolgate_core::json::{Document, Edit, Value, quote};
use zeroize::Zeroizing;

use super::clean::limits;

/// The string there, and the document with another one in its place; `None` where it is no JSON, or there is nothing. Where only the
/// last member is missing, it is added.
pub(super) struct Place {
    /// The string that stands there.
    pub(super) text: Option<String>,
    document: Document,
    steps: Vec<String>,
}

impl Place {
    /// Looks for the place.
    pub(super) fn find(body: &[u8], pointer: &str) -> Option<Self> {
        let document = Document::parse(body.to_vec(), &limits(body.len())).ok()?;
        let steps: Vec<String> =
            pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        let (last, parents) = steps.split_last()?;
        let mut value = document.root();
        for step in parents {
            value = child(value, step)?;
        }
        let text = match child(value, last) {
            Some(there) => there.as_str().map(str::to_owned),
            None if value.is_object() => None,
            None => return None,
        };
        Some(Self { text, document, steps })
    }

    /// The document with this string there.
    pub(super) fn with(&self, text: &str) -> Zeroizing<Vec<u8>> {
        let text = Zeroizing::new(quote(text));
        with(self.document.root(), &self.steps, text.as_bytes())
    }
}

fn child<'a>(value: Value<'a>, step: &str) -> Option<Value<'a>> {
    if value.is_object() { value.get(step) } else { value.elements().nth(index(step)?) }
}

/// An index has no sign and no leading zero.
fn index(step: &str) -> Option<usize> {
    let plain = step.bytes().all(|byte| byte.is_ascii_digit()) && (step == "0" || !step.starts_with('0'));
    plain.then(|| step.parse().ok())?
}

/// As deep as there are steps.
fn with(value: Value<'_>, steps: &[String], text: &[u8]) -> Zeroizing<Vec<u8>> {
    let Some((step, rest)) = steps.split_first() else { return Zeroizing::new(text.to_vec()) };
    let inner = |value: Option<Value<'_>>| match value {
        Some(value) => with(value, rest, text),
        None => Zeroizing::new(text.to_vec()),
    };
    if value.is_object() {
        return Zeroizing::new(value.rewrite(&[(step, Edit::Set(&inner(value.get(step))))]));
    }
    let here = index(step);
    let mut out = Zeroizing::new(Vec::with_capacity(value.raw().len() + text.len()));
    for (at, element) in value.elements().enumerate() {
        out.push(if at == 0 { b'[' } else { b',' });
        if here == Some(at) {
            out.extend_from_slice(&inner(Some(element)));
        } else {
            out.extend_from_slice(element.raw());
        }
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_and_nothing_else_changes() {
        let body = r#"{ "auth":{"token":"x", "n":1.50}, "list":[1,{"a":"y"},["z"]], "a/b":"s", "m~n":"t" }"#;
        for (pointer, text, want) in [
            ("/auth/token", Some("x"), body.replace("\"x\"", "\"NEW\"")),
            ("/list/1/a", Some("y"), body.replace("\"y\"", "\"NEW\"")),
            ("/list/2/0", Some("z"), body.replace("\"z\"", "\"NEW\"")),
            ("/a~1b", Some("s"), body.replace("\"s\"", "\"NEW\"")),
            ("/m~0n", Some("t"), body.replace("\"t\"", "\"NEW\"")),
            ("/auth/n", None, body.replace("1.50", "\"NEW\"")),
            ("/auth/key", None, body.replace("1.50", "1.50,\"key\":\"NEW\"")),
        ] {
            let place = Place::find(body.as_bytes(), pointer).unwrap();
            assert_eq!(place.text.as_deref(), text, "{pointer}");
            let strip = |text: &str| text.replace(' ', "");
            let got = String::from_utf8(place.with("NEW").to_vec()).unwrap();
            assert_eq!(strip(&got), strip(&want), "{pointer}");
        }
        let escaped = Place::find(body.as_bytes(), "/a~1b").unwrap().with("\"},\"x\":\"");
        assert!(String::from_utf8_lossy(&escaped).contains(r#""a/b":"\"},\"x\":\"""#));
        for (body, pointer) in [
            (body, "/none/token"),
            (body, "/list/3"),
            (body, "/list/-"),
            (body, "/list/01"),
            (body, "/auth/token/x"),
            ("[1", "/0"),
            (r#"{"a":"1","a":"2"}"#, "/a"),
            ("", "/a"),
        ] {
            assert!(Place::find(body.as_bytes(), pointer).is_none(), "{pointer}");
        }
    }
}
