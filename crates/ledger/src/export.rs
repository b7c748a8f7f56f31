//! Export: entries as JSON lines, and as events of the Open Cybersecurity Schema Framework (OCSF).
//!
//! Field names and numbers are those of OCSF 1.8.0. Calls and administration become *API Activity* (6003) with the
//! profile `security_control`; refusals become *Detection Finding* (2004). The log is the record, an export a copy:
//! `metadata.log_name` and `metadata.sequence` say which entry it is a copy of, and are the same each time, so a
//! receiver can drop what it has.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::record::{
    AgentProof, Answer, Body, CallInfo, Connection, ConnectionStatus, Judged, Outcome, PolicyAction, Record,
    Status,
};
use crate::tree::Hash;

/// The version of OCSF that the events are of.
pub const OCSF_VERSION: &str = "1.8.0";

/// One line for one entry: its index, its leaf hash and the record. `None` if the entry is no record.
#[must_use]
pub fn json_line(index: u64, entry: &[u8]) -> Option<String> {
    Record::decode(entry).ok()?;
    let record = std::str::from_utf8(entry).ok()?;
    Some(format!("{{\"index\":{index},\"leaf\":\"{}\",\"record\":{record}}}", Hash::leaf(entry)))
}

/// Turns the entries of one log into OCSF events, in order. It remembers open calls, so that the event of an outcome
/// can say what it is the outcome of.
#[derive(Debug)]
pub struct Ocsf {
    origin: String,
    program: String,
    open: BTreeMap<u64, CallInfo>,
}

/// What the events of one record differ in.
struct Event<'a> {
    operation: &'a str,
    actor: Value,
    source: &'a str,
    call: Option<&'a CallInfo>,
    judged: Option<&'a Judged>,
    status: (u8, &'a str),
    code: Option<&'a str>,
    severity: u8,
    blocked: bool,
}

const UNKNOWN: (u8, &str) = (0, "Unknown");
const SUCCESS: (u8, &str) = (1, "Success");
const FAILURE: (u8, &str) = (2, "Failure");

const INFORMATIONAL: u8 = 1;
const LOW: u8 = 2;
const MEDIUM: u8 = 3;

impl Ocsf {
    /// An export of the log `origin`; `program` is the version that made it.
    #[must_use]
    pub fn new(origin: &str, program: &str) -> Self {
        Self { origin: origin.to_owned(), program: program.to_owned(), open: BTreeMap::new() }
    }

    /// The event of the entry at `index`. `None` if the entry is no record.
    pub fn event(&mut self, index: u64, entry: &[u8]) -> Option<Value> {
        let record = Record::decode(entry).ok()?;
        let value = match &record.body {
            Body::Intent(intent) => {
                let mut event = Event::of_call(&intent.call);
                event.judged = Some(&intent.judged);
                event.status = (99, "Started");
                self.open.insert(index, intent.call.clone());
                self.finish(index, entry, &record, &event)
            }
            Body::Outcome(outcome) => {
                let call = self.open.remove(&outcome.intent);
                let mut event = call.as_ref().map_or_else(|| Event::of("unknown", "unknown"), Event::of_call);
                event.status = status(outcome);
                event.code = Some(outcome.status.word());
                let mut value = self.finish(index, entry, &record, &event);
                put(&mut value, "start_time", json!(outcome.started_ms));
                put(&mut value, "end_time", json!(outcome.ended_ms));
                put(
                    &mut value,
                    "unmapped",
                    json!({ "bytes_in": outcome.bytes_in, "bytes_out": outcome.bytes_out }),
                );
                if let (Some(cell), Some(unmapped)) = (&outcome.cell, value.get_mut("unmapped")) {
                    put(unmapped, "cell", json!(cell));
                }
                value
            }
            Body::OutcomeUnknown(outcome) => {
                let call = self.open.remove(&outcome.intent);
                let mut event = call.as_ref().map_or_else(|| Event::of("unknown", "unknown"), Event::of_call);
                event.code = Some("outcome_unknown");
                event.severity = MEDIUM;
                self.finish(index, entry, &record, &event)
            }
            Body::Refusal(refusal) => {
                let mut event = Event::of_call(&refusal.call);
                event.judged = refusal.judged.as_ref();
                event.status = FAILURE;
                event.code = Some(&refusal.code);
                event.severity = LOW;
                event.blocked = true;
                let mut value = self.finish(index, entry, &record, &event);
                let title = format!("Refused: {} by {}", refusal.call.action, refusal.call.agent.name);
                let mut finding = json!({
                    "uid": format!("{}/{index}", self.origin), "title": title, "types": [refusal.code],
                });
                if let Some(rule) = &refusal.rule {
                    put(&mut finding, "analytic", json!({ "name": rule, "type_id": 1, "type": "Rule" }));
                }
                put(&mut value, "finding_info", finding);
                put(&mut value, "is_alert", json!(false));
                // A finding has no actor, operation or endpoint of its own; they are its evidence.
                let evidence: serde_json::Map<_, _> = ["actor", "api", "src_endpoint", "dst_endpoint"]
                    .into_iter()
                    .filter_map(|name| Some((name.to_owned(), value.as_object_mut()?.remove(name)?)))
                    .collect();
                put(&mut value, "evidences", json!([evidence]));
                value
            }
            Body::Connection(connection) => {
                let mut event = Event::of("toolgate/connection", &connection.server);
                (event.status, event.code) = match connection.status {
                    ConnectionStatus::Connected => (SUCCESS, Some("connected")),
                    ConnectionStatus::Failed => (FAILURE, Some("failed")),
                    ConnectionStatus::Refused => (FAILURE, Some("refused")),
                };
                let mut value = self.finish(index, entry, &record, &event);
                let Connection { call: _, down, lasted_ms, port, times, to, up, why, .. } = connection;
                put(&mut value, "dst_endpoint", json!({ "hostname": to, "port": port }));
                put(&mut value, "count", json!(times));
                put(&mut value, "duration", json!(lasted_ms));
                put(&mut value, "unmapped", json!({ "bytes_in": down, "bytes_out": up }));
                if let Some(why) = why {
                    put(&mut value, "status_detail", json!(why));
                }
                value
            }
            body => {
                let operation = format!("toolgate/{}", body.kind());
                let mut event = Event::of(&operation, actor_of(body));
                event.status = SUCCESS;
                self.describe(body, &mut event);
                self.finish(index, entry, &record, &event)
            }
        };
        Some(value)
    }

    /// What is particular to kinds that are not about one call's run.
    fn describe<'a>(&self, body: &'a Body, event: &mut Event<'a>) {
        match body {
            Body::Delivered(_) => event.code = Some("delivered"),
            Body::Policy(policy) if policy.action == PolicyAction::Rejected => {
                event.status = FAILURE;
                event.severity = MEDIUM;
            }
            Body::QuestionAnswered(answered) => {
                event.code = Some(match answered.answer {
                    Answer::Approve => "approve",
                    Answer::Deny => "deny",
                });
            }
            Body::QuestionAsked(asked) => event.call = Some(&asked.call),
            Body::Unknown(_) => event.status = UNKNOWN,
            _ => {}
        }
    }

    fn finish(&self, index: u64, entry: &[u8], record: &Record, event: &Event<'_>) -> Value {
        let (category, class, class_name) =
            if event.blocked { (2, 2004, "Detection Finding") } else { (6, 6003, "API Activity") };
        let (activity, activity_name) = if event.blocked { (1, "Create") } else { (99, "Call") };
        let (action, action_name) = if event.blocked { (2, "Denied") } else { (1, "Allowed") };
        let (disposition, disposition_name) = if event.blocked { (2, "Blocked") } else { (1, "Allowed") };
        let (status, status_name) = event.status;
        let mut value = json!({
            "activity_id": activity, "activity_name": activity_name,
            "category_uid": category, "class_uid": class, "class_name": class_name,
            "type_uid": class * 100 + activity,
            "severity_id": event.severity,
            "status_id": status, "status": status_name,
            "action_id": action, "action": action_name,
            "disposition_id": disposition, "disposition": disposition_name,
            "time": record.time_ms,
            "metadata": {
                "version": OCSF_VERSION,
                "product": { "name": "Toolgate", "vendor_name": "Toolgate", "version": self.program },
                "profiles": ["security_control"],
                "uid": format!("{}/{index}", self.origin),
                "log_name": self.origin, "sequence": index, "event_code": record.body.kind(),
            },
            "actor": event.actor,
            "api": { "operation": event.operation },
            "src_endpoint": { "name": event.source },
            "raw_data": String::from_utf8_lossy(entry),
            "raw_data_hash": { "algorithm_id": 3, "algorithm": "SHA-256", "value": Hash::of(entry).to_string() },
        });
        if let Some(code) = event.code {
            put(&mut value, "status_code", json!(code));
        }
        if let Some(judged) = event.judged {
            put(
                &mut value,
                "policy",
                json!({ "uid": judged.policy.to_string(), "name": judged.rules.join(", ") }),
            );
        }
        if let Some(call) = event.call {
            if let Some(api) = value.get_mut("api") {
                put(api, "request", json!({ "uid": call.id }));
                if let Some(server) = &call.server {
                    put(api, "service", json!({ "name": server }));
                }
            }
            if let Some(metadata) = value.get_mut("metadata") {
                put(metadata, "correlation_uid", json!(call.id));
            }
            if let Some(server) = &call.server {
                put(&mut value, "dst_endpoint", json!({ "svc_name": server }));
            }
        }
        value
    }
}

impl<'a> Event<'a> {
    fn of(operation: &'a str, actor: &'a str) -> Self {
        Self {
            operation,
            actor: json!({ "user": { "name": actor } }),
            source: actor,
            call: None,
            judged: None,
            status: UNKNOWN,
            code: None,
            severity: INFORMATIONAL,
            blocked: false,
        }
    }

    fn of_call(call: &'a CallInfo) -> Self {
        let mut user = json!({ "name": call.agent.name, "type_id": 99, "type": "Agent" });
        let mut session = json!({ "uid": call.session });
        match &call.agent.proof {
            AgentProof::Bearer | AgentProof::Demo => {}
            AgentProof::Oauth { issuer, subject } => {
                put(&mut user, "uid", json!(subject));
                put(&mut session, "issuer", json!(issuer));
            }
            AgentProof::Peer { uid } => put(&mut user, "uid", json!(uid.to_string())),
        }
        let actor = json!({ "user": user, "session": session });
        Self { actor, call: Some(call), ..Self::of(&call.action, &call.agent.name) }
    }
}

/// How the outcome counts: as success, failure, or unknown where nobody can tell what the call did.
const fn status(outcome: &Outcome) -> (u8, &'static str) {
    match outcome.status {
        Status::Answered | Status::InputRequired => SUCCESS,
        Status::Cancelled | Status::Lost | Status::TimedOut => UNKNOWN,
        Status::NotSent | Status::ProtocolError | Status::ToolError | Status::Withheld => FAILURE,
    }
}

/// Who did it, for records that are about no call; the gate itself if nobody did.
fn actor_of(body: &Body) -> &str {
    match body {
        Body::Agent(agent) => &agent.by,
        Body::Erasure(erasure) => &erasure.by,
        Body::Export(export) => &export.by,
        Body::Lease(lease) => lease.by.as_deref().unwrap_or("toolgate"),
        Body::Person(person) => &person.by,
        Body::QuestionAnswered(answered) => &answered.person,
        Body::QuestionAsked(asked) => &asked.call.agent.name,
        Body::Secret(secret) => &secret.by,
        Body::ToolPin(pin) => pin.by.as_deref().unwrap_or("toolgate"),
        _ => "toolgate",
    }
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}
