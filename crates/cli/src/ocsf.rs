//! Records as events of the Open Cybersecurity Schema Framework 1.9: class 6003, API Activity.
//!
//! Commitments, not values: what leaves here says as much as the log does.

use serde_json::{Value, json};
use toolgate_ledger::record::{Body, CallInfo, Status, VerdictWord};

use crate::log::Placed;

const CLASS: u64 = 6003;
const ACTIVITY_OTHER: u64 = 99;
const SUCCESS: u64 = 1;
const FAILURE: u64 = 2;
const UNKNOWN: u64 = 0;

/// One record as an event.
pub(crate) fn event(placed: &Placed) -> Value {
    let (severity, status) = weight(&placed.record.body);
    let mut event = json!({
        "activity_id": ACTIVITY_OTHER,
        "activity_name": placed.record.body.kind(),
        "category_uid": 6,
        "class_uid": CLASS,
        "type_uid": CLASS * 100 + ACTIVITY_OTHER,
        "severity_id": severity,
        "status_id": status,
        "time": placed.record.time_ms,
        "metadata": {
            "version": "1.9.0",
            "uid": placed.index.to_string(),
            "log_name": "toolgate",
            "product": { "name": "Toolgate", "vendor_name": "Toolgate", "version": env!("CARGO_PKG_VERSION") },
        },
        "unmapped": placed.json(),
    });
    let (call, disposition) = match &placed.record.body {
        Body::Intent(intent) => (Some(&intent.call), Some(("Allowed", 1))),
        Body::QuestionAsked(question) => (Some(&question.call), None),
        Body::Refusal(refusal) => (Some(&refusal.call), Some(("Blocked", 2))),
        _ => (None, None),
    };
    if let (Some(call), Value::Object(members)) = (call, &mut event) {
        members.insert("actor".to_owned(), actor(call));
        members.insert("api".to_owned(), api(call));
    }
    if let (Some((name, id)), Value::Object(members)) = (disposition, &mut event) {
        members.insert("disposition".to_owned(), json!(name));
        members.insert("disposition_id".to_owned(), json!(id));
    }
    event
}

fn actor(call: &CallInfo) -> Value {
    json!({ "user": { "name": call.agent.name, "type": "agent" }, "session": { "uid": call.session } })
}

fn api(call: &CallInfo) -> Value {
    json!({ "operation": call.action, "service": { "name": call.server }, "request": { "uid": call.id } })
}

/// Severity (1 informational, 2 low, 3 medium) and status.
fn weight(body: &Body) -> (u64, u64) {
    match body {
        Body::Outcome(outcome) => match outcome.status {
            Status::Answered | Status::InputRequired => (1, SUCCESS),
            Status::NotSent | Status::ProtocolError | Status::ToolError | Status::Withheld => (2, FAILURE),
            Status::Cancelled | Status::Lost | Status::TimedOut => (2, UNKNOWN),
        },
        Body::OutcomeUnknown(_) => (3, UNKNOWN),
        Body::Refusal(refusal) => match refusal.judged.as_ref().map(|judged| judged.verdict) {
            Some(VerdictWord::Deny) => (3, FAILURE),
            Some(VerdictWord::Allow | VerdictWord::Ask) | None => (2, FAILURE),
        },
        Body::Agent(_)
        | Body::Delivered(_)
        | Body::Erasure(_)
        | Body::Export(_)
        | Body::Intent(_)
        | Body::Key(_)
        | Body::Person(_)
        | Body::Policy(_)
        | Body::QuestionAnswered(_)
        | Body::QuestionAsked(_)
        | Body::QuestionExpired(_)
        | Body::Start(_)
        | Body::Stop(_)
        | Body::ToolPin(_)
        | Body::Unknown(_) => (1, SUCCESS),
    }
}
