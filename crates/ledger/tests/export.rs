//! Export: every event has what its OCSF class requires, and says which entry it is a copy of.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::sample;
use serde_json::Value;
use toolgate_ledger::export::{Ocsf, json_line};
use toolgate_ledger::record::{OutcomeUnknown, Policy, PolicyAction};
use toolgate_ledger::{Hash, Record};

fn events(count: u64) -> Vec<Value> {
    let mut ocsf = Ocsf::new(sample::ORIGIN, "0.1.0");
    (0..count).map(|index| ocsf.event(index, &sample::record(index).encode().unwrap()).unwrap()).collect()
}

#[test]
fn every_event_has_what_its_class_requires() {
    for (index, event) in events(60).iter().enumerate() {
        let class = event["class_uid"].as_u64().unwrap();
        let always =
            ["activity_id", "category_uid", "severity_id", "time", "type_uid", "metadata", "status_id"];
        let own: &[&str] = if class == 2004 { &["finding_info"] } else { &["actor", "api", "src_endpoint"] };
        for name in always.iter().chain(own) {
            assert!(event.get(name).is_some(), "{index}: no `{name}` in {event:#}");
        }
        assert_eq!(event["type_uid"], class * 100 + event["activity_id"].as_u64().unwrap());
        assert_eq!(event["category_uid"], class / 1000);
        assert_eq!(event["metadata"]["sequence"], index);
        assert_eq!(event["metadata"]["log_name"], sample::ORIGIN);
        assert_eq!(
            event["raw_data"].as_str().unwrap().as_bytes(),
            sample::record(index as u64).encode().unwrap()
        );
    }
}

#[test]
fn a_call_can_be_followed() {
    let events = events(21);
    let (intent, outcome, refusal) = (&events[1], &events[2], &events[19]);
    assert_eq!((&intent["status"], &outcome["status"]), (&"Started".into(), &"Success".into()));
    for event in [intent, outcome] {
        assert_eq!(event["api"]["operation"], "github/create_issue");
        assert_eq!(event["actor"]["user"]["name"], "support");
        assert_eq!(event["metadata"]["correlation_uid"], "0190a5b6-0000-7000-8000-000000000001");
        assert_eq!((&event["class_uid"], &event["disposition"]), (&6003.into(), &"Allowed".into()));
    }
    assert_eq!(refusal["class_uid"], 2004);
    assert_eq!(refusal["status_code"], "not_permitted");
    assert_eq!(refusal["finding_info"]["title"], "Refused: github/create_issue by support");
    assert_eq!(refusal["evidences"][0]["api"]["operation"], "github/create_issue");
    assert_eq!(refusal["disposition"], "Blocked");
}

#[test]
fn what_nobody_knows_is_not_called_a_success() {
    let mut ocsf = Ocsf::new(sample::ORIGIN, "0.1.0");
    let unknown = OutcomeUnknown { call: "x".into(), intent: 7 };
    let event = ocsf.event(8, &Record::new(1, unknown).encode().unwrap()).unwrap();
    assert_eq!((&event["status_id"], &event["severity_id"]), (&0.into(), &3.into()));
    let rejected = Policy { action: PolicyAction::Rejected, digest: Hash::of(b""), previous: None, rules: 0 };
    let event = ocsf.event(9, &Record::new(1, rejected).encode().unwrap()).unwrap();
    assert_eq!(event["status"], "Failure");
    let later = br#"{"body":{},"kind":"later","time_ms":4,"v":1}"#;
    assert_eq!(ocsf.event(10, later).unwrap()["status"], "Unknown");
    assert_eq!(ocsf.event(11, b"{}"), None);
}

#[test]
fn a_json_line_is_the_entry_and_its_place() {
    let entry = sample::record(2).encode().unwrap();
    let line: Value = serde_json::from_str(&json_line(2, &entry).unwrap()).unwrap();
    assert_eq!(line["index"], 2);
    assert_eq!(line["leaf"], Hash::leaf(&entry).to_string());
    assert_eq!(line["record"], serde_json::from_slice::<Value>(&entry).unwrap());
    assert_eq!(json_line(2, b"{}"), None);
}
