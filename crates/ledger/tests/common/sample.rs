//! A log of plausible records: the same every time.

use std::error::Error;

use toolgate_ledger::record::{
    AgentInfo, AgentProof, Body, CallInfo, Intent, Judged, Outcome, Refusal, Start, Status, VerdictWord,
};
use toolgate_ledger::{Hash, Record};

/// The name of the log.
pub(crate) const ORIGIN: &str = "example.com/toolgate-log";

/// Sequenced entries, as a store would give them.
pub(crate) fn read(from: u64, max: usize) -> Result<Vec<Vec<u8>>, Box<dyn Error + Send + Sync>> {
    (from..).take(max).map(|index| Ok(record(index).encode()?)).collect()
}

/// A start, then intents each followed by its outcome, with a refusal now and then.
pub(crate) fn record(index: u64) -> Record {
    let time_ms = 1_700_000_000_000 + index;
    let id = |index: u64| format!("0190a5b6-0000-7000-8000-{index:012x}");
    let digest = |what: &str| Hash::of(format!("{what} {index}").as_bytes());
    let call = || CallInfo {
        action: "github/create_issue".into(),
        agent: AgentInfo { name: "support".into(), proof: AgentProof::Bearer },
        arguments: Some(digest("arguments")),
        carries: vec![],
        id: id(index),
        params: Some(digest("params")),
        pin: Some(Hash::of(b"pin")),
        revealed: Vec::new(),
        server: Some("github".into()),
        session: "session-1".into(),
    };
    let judged = |verdict| Judged { policy: Hash::of(b"policy"), rules: vec!["issues".into()], verdict };
    let body: Body = match index {
        0 => Start { configuration: Hash::of(b""), origin: ORIGIN.into(), program: "0.1.0".into() }.into(),
        // Every tenth pair is two refusals.
        _ if (index - 1) / 2 % 10 == 9 => Refusal {
            call: call(),
            code: "not_permitted".into(),
            judged: Some(judged(VerdictWord::Deny)),
            question: None,
            rule: None,
        }
        .into(),
        _ if index % 2 == 1 => {
            Intent { call: call(), judged: judged(VerdictWord::Allow), persons: vec![], question: None }
                .into()
        }
        _ => Outcome {
            bytes_in: 1234,
            bytes_out: 321,
            call: id(index - 1),
            cell: None,
            ended_ms: time_ms,
            intent: index - 1,
            result: Some(digest("result")),
            scrubbed: std::collections::BTreeMap::new(),
            started_ms: time_ms - 1,
            status: Status::Answered,
        }
        .into(),
    };
    Record::new(time_ms, body)
}
