//! Any bytes: parsed or refused, and what is taken means the same to another parser.
#![no_main]

#[path = "../../crates/core/tests/common/same.rs"]
mod same;

use libfuzzer_sys::fuzz_target;
use toolgate_core::json::{Document, Edit, JsonErrorKind, Limits, Value};

use same::same;

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
            let rewritten =
                Document::parse(rewritten, &Limits::default()).expect("what was rewritten parses");
            if document.root().is_object() {
                assert!(rewritten.root().get("a").is_none());
                assert_eq!(rewritten.root().get("b").map(|b| b.raw()), Some(&b"[1]"[..]));
            }
        }
        Err(error) => {
            assert!(error.offset <= bytes.len());
            assert!(error.to_string().len() < 1000);
            // What only we refuse.
            let stricter =
                matches!(error.kind, JsonErrorKind::DuplicateName(_) | JsonErrorKind::TooDeep { .. });
            assert!(theirs.is_err() || stricter, "{error}");
        }
    }
});
