//! Any bytes: parsed or refused, and what is taken means the same to another parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_core::json::{Document, Edit, JsonErrorKind, Limits, Value};

fn walk(value: Value<'_>, depth: usize) {
    assert!(depth <= 64);
    assert_eq!(value.is_string(), value.as_str().is_some());
    let again = Document::parse(value.raw(), &Limits::default()).expect("a part of a document is one");
    assert_eq!(again.root().raw(), value.raw());
    if depth < 3 {
        value.members().for_each(|(name, member)| {
            assert_eq!(value.get(name).map(|found| found.offset()), Some(member.offset()));
            walk(member, depth + 1);
        });
        value.elements().for_each(|element| walk(element, depth + 1));
    }
}

/// Whether two values are the same, but for the last bits of a double: `serde_json` reads long numbers fast rather than exactly.
fn same(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap_or(0.0), other.as_f64().unwrap_or(0.0));
            (one - other).abs() <= one.abs() * 1e-14 + f64::MIN_POSITIVE
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let theirs = serde_json::from_slice::<serde_json::Value>(bytes);
    match Document::parse(bytes, &Limits::default()) {
        Ok(document) => {
            assert_eq!(document.bytes(), bytes);
            walk(document.root(), 0);
            if let Ok(theirs) = theirs {
                assert!(same(&document.root().to_serde(), &theirs));
            }
            let rewritten = document.root().rewrite(&[("a", Edit::Remove), ("b", Edit::Set(b"[1]"))]);
            let rewritten = Document::parse(rewritten, &Limits::default()).expect("what was rewritten parses");
            if document.root().is_object() {
                assert!(rewritten.root().get("a").is_none());
                assert_eq!(rewritten.root().get("b").map(|b| b.raw()), Some(&b"[1]"[..]));
            }
        }
        Err(error) => {
            assert!(error.offset <= bytes.len());
            assert!(error.to_string().len() < 1000);
            // What only we refuse.
            let stricter = matches!(error.kind, JsonErrorKind::DuplicateName(_) | JsonErrorKind::TooDeep { .. });
            assert!(theirs.is_err() || stricter, "{error}");
        }
    }
});
