//! Any document: its canonical form is canonical, and means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_core::json::{Document, Limits};

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = Document::parse(bytes, &Limits::default()) else { return };
    let form = match document.root().canonical() {
        Ok(form) => form,
        Err(error) => {
            assert!(error.to_string().len() < 4000);
            return;
        }
    };
    let again = Document::parse(form.as_bytes(), &Limits::default()).expect("the canonical form parses");
    let again = again.root().canonical().expect("the canonical form has one");
    assert_eq!(again.as_bytes(), form.as_bytes());
    assert_eq!(again, form);

    // The same to somebody else: numbers compared as doubles, for `1.0` and `1` are one.
    let theirs = |value: &serde_json::Value| normal(value);
    assert_eq!(theirs(&document.root().to_serde()), theirs(&form.root().to_serde()));
});

fn normal(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(elements) => elements.iter().map(normal).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), normal(member))).collect()
        }
        other => other.clone(),
    }
}
