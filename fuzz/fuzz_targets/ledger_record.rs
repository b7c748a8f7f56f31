//! Any bytes as an entry: refused, or written again as they came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_ledger::export::{Ocsf, json_line};
use toolgate_ledger::{Body, Record};

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::decode(bytes) else { return };
    if !matches!(record.body, Body::Unknown(_)) && bytes.len() <= toolgate_ledger::record::MAX_ENTRY {
        assert_eq!(record.encode().expect("what was read can be written"), bytes);
    }
    let line = json_line(7, bytes).expect("a record has a line");
    serde_json::from_str::<serde_json::Value>(&line).expect("the line is JSON");
    assert!(Ocsf::new("log", "0").event(7, bytes).is_some());
});
