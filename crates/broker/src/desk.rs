//! The desk: where a call waits for a person.
//!
//! The question and the answers are in the store; the desk only waits for them. What comes back from here is a yes to
//! this very call under this very policy, not yet used; the store takes it when the call is opened.
//!
//! A question expires by the machine's clock, since it outlives the process and people are told when; the threat model takes that
//! clock for right.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use toolgate_core::call::Call;
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::PersonName;
use toolgate_core::verdict::Asked;

use crate::lines;
use crate::port::{AgentLine, Approval, Clock, Question, QuestionState, Store};
use crate::rulebook::{QuestionRules, Rulebook};

/// How often a waiting agent is told that it waits.
const REMIND: Duration = Duration::from_secs(10);

/// A yes, and whose.
#[derive(Debug)]
pub(crate) struct Yes {
    /// What the store takes.
    pub(crate) approval: Approval,
    /// Who said yes, sorted.
    pub(crate) persons: Vec<PersonName>,
}

/// Why there is no yes.
#[derive(Debug)]
pub(crate) enum NoYes {
    /// The agent hung up or cancelled while it waited. The question stays open.
    AgentLeft { question: String },
    /// A person said no.
    Denied { question: String },
    /// The store says yes, but the proofs of the answers do not hold.
    Forged { question: String },
    /// The store failed.
    Store,
    /// Too many questions of this agent wait for people.
    TooMany,
    /// Nobody answered in time.
    Unanswered { question: String, waited_ms: u64 },
    /// The rule asks a question that is not configured. Loading the policy refuses that; this is the second lock.
    Unconfigured,
}

/// Asks, or finds the question that was asked about the same call before, and waits for its answer.
pub(crate) async fn settle<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    rulebook: &Rulebook,
    call: &Call,
    asked: &Asked,
    line: &AgentLine,
) -> Result<Yes, NoYes> {
    let rules = rulebook.questions.get(&asked.question).ok_or(NoYes::Unconfigured)?;
    // Not by the clock on the wall: whoever sets it back would have agents wait for longer.
    let began = Instant::now();
    let waited = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut changes = store.changes();
    changes.mark_unchanged();
    let (question, record) =
        lines::question(clock, rulebook, rules, call, asked).map_err(|_unwritable| NoYes::Store)?;
    let stored = store.ask(question, record).await.map_err(|_failed| NoYes::Store)?;
    let mut question = stored.ok_or(NoYes::TooMany)?;
    loop {
        let waited_ms = waited();
        match question.state {
            QuestionState::Approved => return yes(rulebook, rules, asked, question),
            QuestionState::Denied => return Err(NoYes::Denied { question: question.number }),
            QuestionState::Expired | QuestionState::Used => {
                return Err(NoYes::Unanswered { question: question.number, waited_ms });
            }
            QuestionState::Open if waited_ms >= rules.wait_ms => {
                return Err(NoYes::Unanswered { question: question.number, waited_ms });
            }
            QuestionState::Open => {}
        }
        line.waiting(&question.number, waited_ms / 1000);
        let left = Duration::from_millis(rules.wait_ms.saturating_sub(waited_ms));
        tokio::select! {
            _changed = changes.changed() => {}
            () = tokio::time::sleep(left.min(REMIND)) => {}
            () = line.gone() => return Err(NoYes::AgentLeft { question: question.number }),
        }
        let now_ms = clock.now_ms();
        question = match store.question(&question.number, now_ms).await {
            Ok(Some(found)) => found,
            Ok(None) => return Err(NoYes::Unanswered { question: question.number, waited_ms }),
            Err(_failed) => return Err(NoYes::Store),
        };
    }
}

/// Counts the yes of different people who may answer and whose proof holds.
fn yes(rulebook: &Rulebook, rules: &QuestionRules, asked: &Asked, question: Question) -> Result<Yes, NoYes> {
    if !states(&question, asked) {
        return Err(NoYes::Forged { question: question.number });
    }
    let persons: BTreeSet<PersonName> = question
        .answers
        .iter()
        .filter(|answer| answer.yes && rules.people.contains(&answer.person))
        .filter(|answer| rulebook.people.verify(&question, answer))
        .map(|answer| answer.person.clone())
        .collect();
    if persons.len() < rules.quorum.max(1) {
        return Err(NoYes::Forged { question: question.number });
    }
    let approval = Approval { question: question.number, digest: question.digest, policy: question.policy };
    Ok(Yes { approval, persons: persons.into_iter().collect() })
}

/// Whether the statement, which is what people proved their answers for, says what the row of the question says: the
/// answers to one question must not come to count for another.
fn states(question: &Question, asked: &Asked) -> bool {
    // It holds arguments that were within the limits, quoted once more.
    let limits = Limits { max_bytes: usize::MAX, ..Limits::default() };
    let Ok(statement) = Document::parse(question.statement.clone(), &limits) else {
        return false;
    };
    let root = statement.root();
    let says = |key: &str, value: &str| root.get(key).and_then(|said| said.as_str()) == Some(value);
    let expires_ms = root.get("expires_ms").and_then(|said| said.as_i64());
    question.name == asked.question
        && says("call", &question.digest.to_string())
        && says("number", &question.number)
        && says("policy", &question.policy.to_string())
        && says("question", asked.question.as_str())
        && expires_ms.and_then(|ms| u64::try_from(ms).ok()) == Some(question.expires_ms)
}
