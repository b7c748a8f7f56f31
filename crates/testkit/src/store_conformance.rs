//! What every store owes, as one suite: the same for a file, for a server and for a fake.

use bytes::Bytes;
use toolgate_broker::pipeline::{MAX_OPEN_QUESTIONS_PER_AGENT, REPEAT_WINDOW_MS};
use toolgate_broker::port::{
    Approval, Closing, Disclosed, Line, Opened, Opening, Position, Question, QuestionState, Repeat, Store,
    StoreError,
};
use toolgate_core::call::{CallDigest, CallId};
use toolgate_core::digest::Digest;

/// A store, and what one does to it from outside.
pub trait Subject {
    /// The store.
    type Store: Store;

    /// The store.
    fn store(&self) -> &Self::Store;

    /// The time that the store takes it to be, in milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Lets time go by.
    fn advance(&self, ms: u64);

    /// Has a person answer.
    fn answer(&self, number: &str, yes: bool) -> impl Future<Output = ()>;
}

/// A line with nothing behind it.
#[must_use]
pub fn line(text: &str) -> Line {
    Line { leaf: text.as_bytes().to_vec(), disclosed: Vec::new(), subject: "agent".into() }
}

/// A call's number.
#[must_use]
pub fn number(number: u64) -> CallId {
    let mut random = [0; 10];
    if let Some(low) = random.first_chunk_mut::<8>() {
        *low = number.to_be_bytes();
    }
    CallId::new(1_700_000_000_000, random)
}

/// What a call would do.
#[must_use]
pub fn digest(what: &str) -> CallDigest {
    CallDigest(Digest::of("what", &[what.as_bytes()]))
}

/// A policy.
#[must_use]
pub fn policy(which: &str) -> Digest {
    Digest::of("policy", &[which.as_bytes()])
}

/// The opening of a call.
#[must_use]
pub fn opening(call: u64, what: &str, repeats: bool, approval: Option<Approval>) -> Opening {
    Opening { call: number(call), digest: digest(what), repeats, approval, line: line("intent") }
}

/// The closing of a call, whose answer is kept if it has one.
#[must_use]
pub fn closing(call: u64, answer: Option<&'static [u8]>) -> Closing {
    let result = |bytes| Disclosed { path: "result", salt: [9; 32], bytes: Bytes::from_static(bytes) };
    let disclosed = answer.into_iter().map(result).collect();
    Closing { call: number(call), line: Line { disclosed, ..line("outcome") }, keep: answer.is_some() }
}

/// A question about something, under a policy.
///
/// # Panics
/// Never: the name is one.
#[must_use]
#[expect(clippy::unwrap_used, reason = "a fixed name")]
pub fn question(at_ms: u64, name: &str, what: &str, under: &str) -> Question {
    Question {
        number: format!("q-{name}"),
        name: "owner".parse().unwrap(),
        digest: digest(what),
        policy: policy(under),
        statement: Bytes::from(format!("statement of {name}")),
        asked_ms: at_ms,
        expires_ms: at_ms + 60_000,
        state: QuestionState::Open,
        answers: Vec::new(),
    }
}

/// The approval that a question gives.
#[must_use]
pub fn approval(name: &str, what: &str, under: &str) -> Approval {
    Approval { question: format!("q-{name}"), digest: digest(what), policy: policy(under) }
}

fn fresh(opened: Result<Opened, StoreError>) -> Option<Position> {
    match opened {
        Ok(Opened::Fresh(at)) => Some(at),
        Ok(Opened::ApprovalGone | Opened::Repeat(_)) | Err(_) => None,
    }
}

fn repeated(opened: Result<Opened, StoreError>) -> Option<Repeat> {
    match opened {
        Ok(Opened::Repeat(repeat)) => Some(repeat),
        Ok(Opened::ApprovalGone | Opened::Fresh(_)) | Err(_) => None,
    }
}

fn gone(opened: &Result<Opened, StoreError>) -> bool {
    matches!(opened, Ok(Opened::ApprovalGone))
}

/// Runs the whole suite, each part on a store of its own.
///
/// # Panics
/// The store does not do what it owes.
pub async fn run<S: Subject>(make: impl Fn() -> S) {
    indices_count_up(&make()).await;
    only_what_is_open_closes(&make()).await;
    an_undelivered_answer_stands_in(&make()).await;
    an_answer_gets_old(&make()).await;
    an_approval_is_used_once(&make()).await;
    an_approval_is_for_one_thing(&make()).await;
    an_approval_gets_old(&make()).await;
    a_question_is_asked_once(&make()).await;
    another_question_about_the_same_call_is_for_others(&make()).await;
    a_no_stands(&make()).await;
    an_agent_has_not_too_many_questions(&make()).await;
}

async fn indices_count_up(subject: &impl Subject) {
    let store = subject.store();
    assert_eq!(store.append(line("a")).await, Ok(Position(0)));
    assert_eq!(fresh(store.open(opening(1, "x", true, None)).await), Some(Position(1)));
    assert_eq!(store.append(line("b")).await, Ok(Position(2)));
    assert_eq!(store.close(closing(1, None)).await, Ok(Position(3)));
}

async fn only_what_is_open_closes(subject: &impl Subject) {
    let store = subject.store();
    assert!(store.close(closing(1, None)).await.is_err(), "never opened");
    assert!(fresh(store.open(opening(1, "x", true, None)).await).is_some());
    assert!(store.open(opening(1, "x", true, None)).await.is_err(), "open already");
    assert!(store.close(closing(2, None)).await.is_err(), "another one");
    assert!(store.close(closing(1, None)).await.is_ok());
    assert!(store.close(closing(1, None)).await.is_err(), "closed already");
    assert!(store.append(line("still well")).await.is_ok(), "a refusal does not harm the store");
}

async fn an_undelivered_answer_stands_in(subject: &impl Subject) {
    let store = subject.store();
    let intent = fresh(store.open(opening(1, "pay", true, None)).await);
    let outcome = store.close(closing(1, Some(b"paid"))).await.ok();
    let repeat = repeated(store.open(opening(2, "pay", true, None)).await);
    let repeat =
        repeat.map(|Repeat { call, intent, outcome, answer }| (call, Some(intent), Some(outcome), answer));
    assert_eq!(repeat, Some((number(1), intent, outcome, Bytes::from_static(b"paid"))));
    assert!(fresh(store.open(opening(3, "pay more", true, None)).await).is_some(), "another call runs");
    assert!(
        fresh(store.open(opening(4, "pay", false, None)).await).is_some(),
        "one that only reads runs again"
    );
    store.delivered(number(1));
    assert!(
        fresh(store.open(opening(5, "pay", true, None)).await).is_some(),
        "a delivered answer is done with"
    );
}

async fn an_answer_gets_old(subject: &impl Subject) {
    let store = subject.store();
    assert!(fresh(store.open(opening(1, "pay", true, None)).await).is_some());
    assert!(store.close(closing(1, Some(b"paid"))).await.is_ok());
    subject.advance(REPEAT_WINDOW_MS - 60_000);
    assert!(repeated(store.open(opening(2, "pay", true, None)).await).is_some());
    subject.advance(120_000);
    assert!(fresh(store.open(opening(3, "pay", true, None)).await).is_some());
}

async fn ask<S: Subject>(
    subject: &S,
    name: &str,
    what: &str,
    under: &str,
) -> Option<(String, QuestionState)> {
    let question = question(subject.now_ms(), name, what, under);
    let statement = question.statement.clone();
    let asked = subject.store().ask(question, line("asked")).await.ok()??;
    if asked.number == format!("q-{name}") {
        assert_eq!(asked.statement, statement);
    }
    Some((asked.number, asked.state))
}

async fn an_approval_is_used_once(subject: &impl Subject) {
    let store = subject.store();
    assert_eq!(ask(subject, "a", "pay", "p").await, Some(("q-a".into(), QuestionState::Open)));
    let early = store.open(opening(1, "pay", true, Some(approval("a", "pay", "p")))).await;
    assert!(gone(&early), "nobody answered yet");
    subject.answer("q-a", true).await;
    assert!(fresh(store.open(opening(2, "pay", true, Some(approval("a", "pay", "p")))).await).is_some());
    let again = store.open(opening(3, "pay", true, Some(approval("a", "pay", "p")))).await;
    assert!(gone(&again), "used");
    assert!(store.close(closing(3, None)).await.is_err(), "nothing was opened");
    let state = store.question("q-a", subject.now_ms()).await.ok().flatten().map(|question| question.state);
    assert_eq!(state, Some(QuestionState::Used));
}

async fn an_approval_is_for_one_thing(subject: &impl Subject) {
    let store = subject.store();
    assert!(ask(subject, "a", "pay", "p").await.is_some());
    subject.answer("q-a", true).await;
    for (name, what, under) in [("b", "pay", "p"), ("a", "pay more", "p"), ("a", "pay", "other policy")] {
        let opened = store.open(opening(1, what, true, Some(approval(name, what, under)))).await;
        assert!(gone(&opened), "question {name:?}, call {what:?}, policy {under:?}");
    }
    assert!(fresh(store.open(opening(1, "pay", true, Some(approval("a", "pay", "p")))).await).is_some());
}

async fn an_approval_gets_old(subject: &impl Subject) {
    let store = subject.store();
    assert!(ask(subject, "a", "pay", "p").await.is_some());
    subject.answer("q-a", true).await;
    subject.advance(60_000);
    assert!(gone(&store.open(opening(1, "pay", true, Some(approval("a", "pay", "p")))).await));
    let state = store.question("q-a", subject.now_ms()).await.ok().flatten().map(|question| question.state);
    assert_eq!(state, Some(QuestionState::Expired));
    assert_eq!(ask(subject, "b", "pay", "p").await, Some(("q-b".into(), QuestionState::Open)), "asked anew");
}

async fn a_question_is_asked_once(subject: &impl Subject) {
    let store = subject.store();
    let mut changes = store.changes();
    changes.mark_unchanged();
    assert_eq!(ask(subject, "a", "pay", "p").await, Some(("q-a".into(), QuestionState::Open)));
    assert_eq!(ask(subject, "b", "pay", "p").await, Some(("q-a".into(), QuestionState::Open)));
    subject.answer("q-a", true).await;
    assert!(changes.changed().await.is_ok(), "who waits is told");
    assert_eq!(ask(subject, "c", "pay", "p").await, Some(("q-a".into(), QuestionState::Approved)));
    assert_eq!(ask(subject, "d", "pay", "other policy").await, Some(("q-d".into(), QuestionState::Open)));
    let state = store.question("q-a", subject.now_ms()).await.ok().flatten().map(|question| question.state);
    assert_eq!(state, Some(QuestionState::Expired), "another policy voids it");
    assert_eq!(store.question("q-b", subject.now_ms()).await, Ok(None), "it was never stored");
}

async fn another_question_about_the_same_call_is_for_others(subject: &impl Subject) {
    assert_eq!(ask(subject, "a", "pay", "p").await, Some(("q-a".into(), QuestionState::Open)));
    subject.answer("q-a", true).await;
    let topic = |name: &str| name.parse::<toolgate_core::name::QuestionName>().ok();
    let mut other = question(subject.now_ms(), "b", "pay", "p");
    if let Some(topic) = topic("finance") {
        other.name = topic;
    }
    let asked = subject.store().ask(other, line("asked")).await.ok().flatten();
    assert_eq!(asked.map(|q| (q.number, q.state)), Some(("q-b".into(), QuestionState::Open)));
}

async fn a_no_stands(subject: &impl Subject) {
    assert!(ask(subject, "a", "pay", "p").await.is_some());
    subject.answer("q-a", false).await;
    assert_eq!(ask(subject, "b", "pay", "p").await, Some(("q-a".into(), QuestionState::Denied)));
    subject.advance(60_000);
    assert_eq!(ask(subject, "c", "pay", "p").await, Some(("q-c".into(), QuestionState::Open)));
}

async fn an_agent_has_not_too_many_questions(subject: &impl Subject) {
    for number in 0..MAX_OPEN_QUESTIONS_PER_AGENT {
        let (name, what) = (format!("a{number}"), format!("pay {number}"));
        assert!(ask(subject, &name, &what, "p").await.is_some());
    }
    assert_eq!(ask(subject, "b", "one more", "p").await, None);
    assert_eq!(
        subject.store().append(line("x")).await,
        Ok(Position(MAX_OPEN_QUESTIONS_PER_AGENT as u64)),
        "nothing was written"
    );
    assert_eq!(
        ask(subject, "b", "pay 0", "p").await,
        Some(("q-a0".into(), QuestionState::Open)),
        "asked before"
    );
    let mut others = question(subject.now_ms(), "c", "one more", "p");
    others.digest = digest("of another agent");
    let theirs = Line { subject: "other".into(), ..line("asked") };
    assert!(matches!(subject.store().ask(others, theirs).await, Ok(Some(_))), "another agent");
    subject.answer("q-a0", true).await;
    assert!(ask(subject, "b", "one more", "p").await.is_some(), "there is room again");
    assert_eq!(ask(subject, "d", "and one more", "p").await, None);
    subject.advance(60_000);
    assert!(ask(subject, "d", "and one more", "p").await.is_some(), "the others are over");
    assert!(matches!(subject.store().question("q-a1", subject.now_ms()).await, Ok(Some(_))));
}
