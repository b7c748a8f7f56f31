//! One fake plays every part of the pipeline and keeps the minutes, so that a test shows the order of events as text.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use toolgate_broker::authorized::Authorized;
use toolgate_broker::outcome::Answer;
use toolgate_broker::pipeline::MAX_OPEN_QUESTIONS_PER_AGENT;
use toolgate_broker::port::{
    AgentLine, Agentward, Answered, BoxFuture, Client, Clock, Closing, Executed, Executor, Handle, Line,
    NoRandomnessError, Opened, Opening, Position, Question, QuestionState, Repeat, Stop, Store, StoreError,
    UnsearchableError, VerifyAnswer,
};
use toolgate_core::call::{Call, CallDigest, CallId, Carries};
use toolgate_core::json::{Document, Limits, quote};
use toolgate_core::scrub::Raw;

/// What was written down, in order.
#[derive(Debug, Clone, Default)]
pub struct Minutes(Arc<Mutex<Vec<String>>>);

impl Minutes {
    /// Writes a line.
    pub fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    /// The lines so far, in one.
    #[must_use]
    pub fn read(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join(" | ")
    }
}

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fail {
    /// It reports an error and nothing was written.
    Before,
    /// It reports an error although it was written.
    After,
}

/// Which write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Any that is no other of these: refusals and the like.
    Append,
    /// Asking a question.
    Ask,
    /// The outcome.
    Close,
    /// The intent.
    Open,
}

#[derive(Debug, Default)]
struct Kept {
    leaves: Vec<Vec<u8>>,
    open: BTreeMap<CallId, Position>,
    answers: Vec<(CallDigest, CallId, Position, Position, Bytes)>,
    digests: BTreeMap<CallId, (CallDigest, bool)>,
    questions: Vec<Question>,
    /// Who asked each, in the same order.
    subjects: Vec<String>,
    /// What the person at the desk does as soon as a question is asked.
    person: Option<bool>,
}

/// A store in memory that keeps the minutes and fails where it is told to.
#[derive(Debug)]
pub struct FakeStore {
    minutes: Minutes,
    fail: Option<(Write, Fail)>,
    kept: Mutex<Kept>,
    changed: watch::Sender<u64>,
}

impl FakeStore {
    /// A store in which the person at the desk answers `person` at once, or never.
    #[must_use]
    pub fn new(minutes: Minutes, person: Option<bool>, fail: Option<(Write, Fail)>) -> Self {
        let kept = Mutex::new(Kept { person, ..Kept::default() });
        Self { minutes, fail, kept, changed: watch::channel(0).0 }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leaves that are on the log.
    #[must_use]
    pub fn leaves(&self) -> Vec<Vec<u8>> {
        self.kept().leaves.clone()
    }

    /// Changes what there is of each question, as another process might.
    pub fn meddle(&self, change: impl Fn(&mut Question)) {
        self.kept().questions.iter_mut().for_each(change);
        self.changed.send_modify(|version| *version += 1);
    }

    fn write<T>(
        &self,
        which: Write,
        failed: &str,
        write: impl FnOnce(&mut Kept) -> T,
    ) -> Result<T, StoreError> {
        let fails = self.fail.filter(|(at, _)| *at == which).map(|(_, how)| how);
        if fails == Some(Fail::Before) {
            self.minutes.note(format!("{failed} fails"));
            return Err(StoreError::Write("no such luck".into()));
        }
        let done = write(&mut self.kept());
        if fails == Some(Fail::After) {
            self.minutes.note(format!("{failed} fails after all"));
            return Err(StoreError::Write("no such luck".into()));
        }
        Ok(done)
    }
}

fn push(kept: &mut Kept, line: Line) -> Position {
    kept.leaves.push(line.leaf);
    Position(kept.leaves.len() as u64 - 1)
}

impl Store for FakeStore {
    async fn open(&self, opening: Opening) -> Result<Opened, StoreError> {
        let Opening { call, digest, repeats, approval, line } = opening;
        self.write(Write::Open, "open", |kept| {
            if let Some(approval) = approval {
                let usable = |q: &&mut Question| {
                    q.number == approval.question
                        && q.state == QuestionState::Approved
                        && q.digest == approval.digest
                        && q.policy == approval.policy
                };
                let Some(question) = kept.questions.iter_mut().find(usable) else {
                    self.minutes.note("approval gone");
                    return Opened::ApprovalGone;
                };
                question.state = QuestionState::Used;
            }
            if repeats && let Some(at) = kept.answers.iter().position(|(of, ..)| *of == digest) {
                let (_, call, intent, outcome, answer) = kept.answers.remove(at);
                self.minutes.note("repeat");
                return Opened::Repeat(Repeat { call, intent, outcome, answer });
            }
            let at = push(kept, line);
            kept.open.insert(call, at);
            kept.digests.insert(call, (digest, repeats));
            self.minutes.note("open");
            Opened::Fresh(at)
        })
    }

    async fn close(&self, closing: Closing) -> Result<Position, StoreError> {
        let Closing { call, line, keep } = closing;
        let answer = line.disclosed.iter().find(|value| keep && value.path == "result");
        let answer = answer.map(|value| value.bytes.clone());
        self.write(Write::Close, "close", |kept| {
            let Some(intent) = kept.open.remove(&call) else {
                return Err(StoreError::Write("not open".into()));
            };
            let at = push(kept, line);
            if let (Some(answer), Some((digest, _))) = (answer, kept.digests.get(&call).copied()) {
                kept.answers.push((digest, call, intent, at, answer));
            }
            self.minutes.note("close");
            Ok(at)
        })?
    }

    async fn append(&self, line: Line) -> Result<Position, StoreError> {
        self.write(Write::Append, "append", |kept| {
            self.minutes.note("write down");
            push(kept, line)
        })
    }

    fn delivered(&self, call: CallId) {
        self.kept().answers.retain(|(_, of, ..)| *of != call);
    }

    async fn ask(&self, mut question: Question, line: Line) -> Result<Option<Question>, StoreError> {
        self.write(Write::Ask, "ask", |kept| {
            let standing = |q: &&Question| {
                q.digest == question.digest
                    && q.policy == question.policy
                    && q.name == question.name
                    && matches!(
                        q.state,
                        QuestionState::Approved | QuestionState::Denied | QuestionState::Open
                    )
            };
            if let Some(found) = kept.questions.iter().find(standing) {
                self.minutes.note("asked before");
                return Some(found.clone());
            }
            let theirs = kept.subjects.iter().zip(&kept.questions).filter(|(subject, question)| {
                **subject == line.subject && question.state == QuestionState::Open
            });
            if theirs.count() >= MAX_OPEN_QUESTIONS_PER_AGENT {
                self.minutes.note("too many questions");
                return None;
            }
            self.minutes.note(format!("ask {}", question.name));
            if let Some(yes) = kept.person {
                question.state = if yes { QuestionState::Approved } else { QuestionState::Denied };
                question.answers.push(said(yes));
                self.minutes.note(if yes { "yes" } else { "no" });
            }
            kept.subjects.push(line.subject.clone());
            push(kept, line);
            kept.questions.push(question.clone());
            Some(question)
        })
    }

    async fn question(&self, number: &str, now_ms: u64) -> Result<Option<Question>, StoreError> {
        let found = self.kept().questions.iter().find(|q| q.number == number).cloned();
        Ok(found.map(|mut q| {
            if q.expires_ms <= now_ms && q.state != QuestionState::Used {
                q.state = QuestionState::Expired;
            }
            q
        }))
    }

    async fn open_calls(&self) -> Result<Vec<(CallId, Position)>, StoreError> {
        Ok(self.kept().open.iter().map(|(call, at)| (*call, *at)).collect())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// What the person at the desk says.
#[must_use]
pub fn said(yes: bool) -> Answered {
    let person = "owner".parse().unwrap_or_else(|error| unreachable_name(&error));
    Answered { person, yes, method: "ed25519".into(), evidence: Bytes::from_static(b"good"), at_ms: 0 }
}

#[expect(clippy::panic, reason = "a fixed name of a fake")]
fn unreachable_name<T>(error: &toolgate_core::name::NameError) -> T {
    panic!("{error}")
}

/// Believes every answer whose evidence is `good`.
#[derive(Debug)]
pub struct Gullible;

impl VerifyAnswer for Gullible {
    fn verify(&self, _question: &Question, answer: &Answered) -> bool {
        &answer.evidence[..] == b"good"
    }
}

/// What the server does when it is called.
#[derive(Debug, Clone)]
pub enum Server {
    /// It answers with this result.
    Answers(&'static str),
    /// It dies after the call was sent.
    Dies,
    /// It never answers, and returns when it is told to stop.
    Hangs,
    /// The call cannot be sent.
    IsAway,
    /// It tells this along the way, and says it again in its answer.
    Says(String),
}

/// An executor that keeps the minutes.
#[derive(Debug, Clone)]
pub struct FakeExecutor {
    /// The minutes.
    pub minutes: Minutes,
    /// What the server does.
    pub server: Server,
}

impl Executor for FakeExecutor {
    /// There is a vault with `github` (the text `of-the-vault`) and a honeytoken (`for-nobody`) in it, and what says `broken` breaks it.
    async fn carried(&self, _call: &Call, sent: &[u8]) -> Result<Vec<String>, UnsearchableError> {
        let sent = String::from_utf8_lossy(sent);
        let names = [
            ("of-the-vault", "vault:github"),
            ("for-nobody", "vault:decoy"),
            ("for-nobody", Carries::HONEYTOKEN),
        ];
        let names =
            names.into_iter().filter(|(value, _)| sent.contains(value)).map(|(_, name)| name.to_owned());
        if sent.contains("broken") { Err(UnsearchableError) } else { Ok(names.collect()) }
    }

    async fn execute(
        &self,
        call: Authorized<Call>,
        line: AgentLine,
        mut stop: Stop,
        _nested: Arc<dyn Handle>,
    ) -> Executed {
        let sent = String::from_utf8_lossy(call.get().arguments.as_bytes()).into_owned();
        let meta = call.get().params.root().get("_meta").map(|meta| format!(" with {}", meta.raw_str()));
        self.minutes.note(format!("run {} {sent}{}", call.get().action, meta.unwrap_or_default()));
        match &self.server {
            Server::Answers(text) => match Document::parse(text.as_bytes().to_vec(), &Limits::default()) {
                Ok(document) => Executed::Answered(Raw::new(Answer::Result(document))),
                Err(error) => Executed::Lost(error.to_string()),
            },
            Server::Dies => Executed::Lost("died".into()),
            Server::Hangs => {
                self.minutes.note(format!("stop: {:?}", stop.stopped().await));
                Executed::Cancelled
            }
            Server::IsAway => Executed::NotSent("away".into()),
            Server::Says(text) => {
                let text = quote(text);
                line.notify("notifications/message", format!(r#"{{"level":"info","data":{text}}}"#).into());
                let progress = format!(r#"{{"progressToken":{text},"progress":1,"message":{text}}}"#);
                line.notify("notifications/progress", progress.into());
                let result = format!(r#"{{"content":[{{"type":"text","text":{text}}}]}}"#);
                match Document::parse(result, &Limits::default()) {
                    Ok(document) => Executed::Answered(Raw::new(Answer::Result(document))),
                    Err(error) => Executed::Lost(error.to_string()),
                }
            }
        }
    }
}

/// A clock that stands at noon until it is moved, and random bytes that count up.
#[derive(Debug, Default)]
pub struct FakeClock {
    now_ms: std::sync::atomic::AtomicU64,
    drawn: std::sync::atomic::AtomicU64,
}

impl Clock for FakeClock {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000 + self.now_ms.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomnessError> {
        let drawn = self.drawn.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes();
        bytes.fill(0);
        for (byte, next) in bytes.iter_mut().rev().zip(drawn.iter().rev()) {
            *byte = *next;
        }
        Ok(())
    }
}

/// An agent that listens and never hangs up, or has hung up already.
#[derive(Debug)]
pub struct FakeAgent {
    /// The minutes.
    pub minutes: Minutes,
    /// Whether it has hung up.
    pub gone: bool,
    /// What it speaks.
    pub client: Client,
}

impl Agentward for FakeAgent {
    fn notify(&self, method: &str, params: Bytes) {
        self.minutes.note(format!("tell {method} {}", String::from_utf8_lossy(&params)));
    }

    fn ask(&self, method: &str, _params: Bytes) -> BoxFuture<'_, Answer> {
        self.minutes.note(format!("ask the agent {method}"));
        Box::pin(std::future::pending())
    }

    fn waiting(&self, _question: &str, _waited_s: u64) {
        self.minutes.note("wait");
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        if self.gone { Box::pin(std::future::ready(())) } else { Box::pin(std::future::pending()) }
    }

    fn client(&self) -> &Client {
        &self.client
    }
}
