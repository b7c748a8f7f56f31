//! What the pipeline needs from outside: a store, an executor, the agent's end of the line, a clock.
//!
//! The traits say what an implementation owes. Tests put fakes with failure points in their place.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use toolgate_core::call::{Agent, Call, CallDigest, CallId};
use toolgate_core::digest::Digest;
use toolgate_core::json::Document;
use toolgate_core::name::{PersonName, QuestionName};
use toolgate_core::refusal::Refusal;
use toolgate_core::scrub::Raw;
use toolgate_sandbox::cell::{Cut, Ended, Gauge};

use crate::authorized::Authorized;
use crate::config::profiles::Per;
use crate::outcome::{Answer, Reply};
use crate::rulebook::Rulebook;

/// A boxed future, where a trait has to be an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place on the log: the index of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// Why the store did not do it. Whatever the variant: what it was asked to write must be taken as perhaps written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An earlier write failed; nothing is written any more until the store was opened again and read back.
    #[error("the store is poisoned by an earlier failed write: {0}")]
    Poisoned(String),
    /// The store could not be read.
    #[error("could not read the store: {0}")]
    Read(String),
    /// The disk is full, or a limit was reached.
    #[error("the store has no room: {0}")]
    Full(String),
    /// The write failed.
    #[error("could not write to the store: {0}")]
    Write(String),
}

/// A value that is on the log as a salted commitment, and encrypted beside it.
#[derive(Clone)]
pub struct Disclosed {
    /// Which value of the record this is: `arguments`, `params`, `result`, …
    pub path: &'static str,
    /// The salt of the commitment.
    pub salt: [u8; 32],
    /// The value.
    pub bytes: Bytes,
}

/// One record to put on the log, with the values it commits to.
pub struct Line {
    /// The leaf: canonical JSON of a `toolgate_ledger::record::Record`.
    pub leaf: Vec<u8>,
    /// The values that the leaf commits to, to be encrypted under the subject's key.
    pub disclosed: Vec<Disclosed>,
    /// Whose data it is: an agent's name, or `gate`.
    pub subject: String,
}

/// What opening a call asks of the store.
pub struct Opening {
    /// The call's number.
    pub call: CallId,
    /// What it would do.
    pub digest: CallDigest,
    /// Whether an answer that was stored but never delivered may stand in for running the same call again:
    /// false only for calls that do nothing but read.
    pub repeats: bool,
    /// The approval to use up, and the policy it has to have been given under.
    pub approval: Option<Approval>,
    /// The intent.
    pub line: Line,
}

/// What came of opening a call.
#[derive(Debug)]
pub enum Opened {
    /// The approval is no longer there to be used: used, expired, or given under another policy. Nothing was written.
    ApprovalGone,
    /// The intent is durable. The call may run.
    Fresh(Position),
    /// The same call ran already and its answer was never delivered: here it is. Nothing was written.
    Repeat(Repeat),
}

/// The answer of a call that ran before.
#[derive(Debug)]
pub struct Repeat {
    /// The call that ran.
    pub call: CallId,
    /// Where its intent is.
    pub intent: Position,
    /// Where its outcome is.
    pub outcome: Position,
    /// Its answer as it was stored: see [`crate::outcome::Answer::encode`].
    pub answer: Bytes,
}

/// What closing a call asks of the store.
pub struct Closing {
    /// The call's number.
    pub call: CallId,
    /// The outcome.
    pub line: Line,
    /// Whether the value `result` of the outcome, if it has one, stands in for running the same call again until it is
    /// delivered or [`crate::pipeline::REPEAT_WINDOW_MS`] has passed.
    pub keep: bool,
}

/// A question as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its number: `q-` and 16 random characters of base32, so that it cannot be guessed.
    pub number: String,
    /// Which `[questions.NAME]` it is.
    pub name: QuestionName,
    /// The call it is about.
    pub digest: CallDigest,
    /// The policy under which it was asked.
    pub policy: Digest,
    /// What is signed: the canonical statement with everything the person has to know.
    pub statement: Bytes,
    /// When it was asked, in milliseconds since 1970.
    pub asked_ms: u64,
    /// When it expires.
    pub expires_ms: u64,
    /// Where it stands.
    pub state: QuestionState,
    /// The answers so far.
    pub answers: Vec<Answered>,
}

/// Where a question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionState {
    /// Enough people said yes; not used yet.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody answered in time, or policy, pin or arguments have changed.
    Expired,
    /// Not answered yet.
    Open,
    /// The approval was used.
    Used,
}

/// One person's answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Who.
    pub person: PersonName,
    /// Yes or no.
    pub yes: bool,
    /// How it was proved: `ed25519` (the signature is in `evidence`) or `totp`.
    pub method: String,
    /// What proves it, checkable later: for `ed25519` the 64 bytes of the signature over the statement's digest and the answer.
    pub evidence: Bytes,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A yes that can be used once. Holding one proves nothing yet: the store takes it in the transaction that opens the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The question that was answered.
    pub question: String,
    /// What was approved.
    pub digest: CallDigest,
    /// The policy under which it was approved and has to be used.
    pub policy: Digest,
}

/// What remembers. All methods that write are durable when they return `Ok`, and safe against being dropped:
/// the write happens or not, whoever waits.
pub trait Store: Send + Sync + 'static {
    /// In one transaction: takes the approval if there is one, inserts the idempotency row, sequences the intent.
    fn open(&self, opening: Opening) -> impl Future<Output = Result<Opened, StoreError>> + Send;

    /// In one transaction: sequences the outcome and keeps the answer. Closing what is not open is an error.
    fn close(&self, closing: Closing) -> impl Future<Output = Result<Position, StoreError>> + Send;

    /// Sequences one record that belongs to no open call.
    fn append(&self, line: Line) -> impl Future<Output = Result<Position, StoreError>> + Send;

    /// Notes that the answer reached the agent. Written along with the next transaction; nobody waits for it.
    fn delivered(&self, call: CallId);

    /// Stores a question and sequences its record, or gives back the one that is `Open`, `Approved` or `Denied` for the same
    /// digest and policy and not expired at `question.asked_ms`: a no stands until its time is over. Questions about the same digest under another policy become `Expired`.
    /// `None` if the subject of the line has [too many](crate::pipeline::MAX_OPEN_QUESTIONS_PER_AGENT) open already; then nothing was written.
    fn ask(
        &self,
        question: Question,
        line: Line,
    ) -> impl Future<Output = Result<Option<Question>, StoreError>> + Send;

    /// Reads one question. One whose time is over at `now_ms` is `Expired`.
    fn question(
        &self,
        number: &str,
        now_ms: u64,
    ) -> impl Future<Output = Result<Option<Question>, StoreError>> + Send;

    /// The calls that were opened and not closed. Asked once, before the first call is taken.
    fn open_calls(&self) -> impl Future<Output = Result<Vec<(CallId, Position)>, StoreError>> + Send;

    /// Resolves after the store was changed by anybody, this process or another, since the receiver last looked.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;
}

/// What an executor came back with.
#[derive(Debug)]
pub enum Executed {
    /// The server answered.
    Answered(Raw<Answer>),
    /// The agent cancelled or hung up; the server was told, and did not answer in its grace time. What it did is not known.
    Cancelled,
    /// The call was sent and the connection then broke. What the server did is not known.
    Lost(String),
    /// Nothing was sent: it claims to go on with something that this agent was not asked for this call, or not any more.
    NotAwaited,
    /// The call was not sent: nothing happened.
    NotSent(String),
    /// The server did not answer in time and was told to stop. What it did is not known.
    TimedOut,
}

/// It could not be looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it could not be looked through")]
pub struct UnsearchableError;

/// What acts: MCP servers, APIs, and the agent itself for what servers ask of it.
pub trait Executor: Send + Sync + 'static {
    /// Which values of the vault are in what a call would send, by name: `vault:NAME`, and
    /// [`honeytoken`](toolgate_core::call::Carries::HONEYTOKEN) too for those that are one. Whoever holds the values is asked; where
    /// there is no vault, nothing is. `sent` is a JSON document.
    fn carried(
        &self,
        call: &Call,
        sent: &[u8],
    ) -> impl Future<Output = Result<Vec<String>, UnsearchableError>> + Send;

    /// Sends the call once, never twice, and waits for the answer until `stop` says otherwise; then it tells the server,
    /// waits a short grace time and returns. It does not panic and does not return before it is done with the call.
    fn execute(
        &self,
        call: Authorized<Call>,
        line: AgentLine,
        stop: Stop,
        nested: Arc<dyn Handle>,
    ) -> impl Future<Output = Executed> + Send;
}

/// The way in for calls that arise while another call runs: what a server asks of the agent passes the same pipeline.
pub trait Handle: Send + Sync + 'static {
    /// See [`crate::pipeline::Broker::handle`].
    fn handle(&self, call: Call, line: AgentLine) -> BoxFuture<'_, Result<Reply, Refusal>>;

    /// Writes down that something was refused before it could become a [`Call`]: a name that is none, arguments without
    /// a canonical form.
    ///
    /// # Errors
    /// It could not be written down; the agent is told that instead.
    fn refuse(&self, unread: Unread) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Notes that the answer reached the agent, so that the same call runs again when it comes again.
    fn delivered(&self, call: CallId);

    /// What is in force now.
    fn rulebook(&self) -> Arc<Rulebook>;
}

/// A request that could not become a [`Call`].
#[derive(Debug, Clone)]
pub struct Unread {
    /// The number it would have had.
    pub id: CallId,
    /// Who sent it.
    pub agent: Arc<Agent>,
    /// The run of the agent.
    pub session: String,
    /// What was asked for, as it was written. Hidden characters are escaped before it is written down.
    pub action: String,
    /// Why it was refused, as one fixed word.
    pub code: &'static str,
}

/// The agent's end of the line while one of its calls runs.
pub type AgentLine = Arc<dyn Agentward>;

/// What can be told to, or asked of, an agent while one of its calls runs.
pub trait Agentward: Send + Sync + 'static {
    /// Sends a notification that belongs to the call (`notifications/progress`, `notifications/message`), if the agent can take it.
    /// `params` is a JSON object. Bounded: what cannot be queued is dropped.
    fn notify(&self, method: &str, params: Bytes);

    /// Asks the agent (`elicitation/create`, `sampling/createMessage`, `roots/list`) and waits for its result or error.
    fn ask(&self, method: &str, params: Bytes) -> BoxFuture<'_, Answer>;

    /// Says that the call waits for a person: shown as progress where the agent asked for progress, else as a keep-alive.
    fn waiting(&self, question: &str, waited_s: u64);

    /// Resolves when the agent has cancelled the call or hung up; never, if it cannot.
    fn gone(&self) -> BoxFuture<'_, ()>;

    /// What protocol the agent speaks and what it can be asked, for the executor to translate.
    fn client(&self) -> &Client;
}

/// The protocol an agent speaks.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// The protocol version, such as `2026-07-28`.
    pub version: String,
    /// Its `clientCapabilities`, as JSON; empty where it declared none.
    pub capabilities: Option<Document>,
    /// Its `clientInfo`, as JSON. Self-reported: never decides anything.
    pub info: Option<Document>,
}

/// Why a running call has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Its time is over.
    Deadline,
    /// The agent cancelled it or hung up.
    Gone,
}

/// The executor's end of a running call: it is told here to stop, and notes here what the call ran in.
#[derive(Debug, Clone)]
pub struct Stop {
    told: tokio::sync::watch::Receiver<Option<StopReason>>,
    cell: Arc<OnceLock<(Gauge, Per)>>,
    end: Arc<OnceLock<CellEnd>>,
}

/// How a program ended that had a cell for one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellEnd {
    /// What the cell tells.
    pub ended: Ended,
    /// Why it was ended, if it was.
    pub cut: Option<Cut>,
    /// How many bytes it was given.
    pub bytes_in: u64,
    /// How many bytes were taken from it.
    pub bytes_out: u64,
}

impl Stop {
    /// A pair: what tells, and what is told.
    #[must_use]
    pub fn new() -> (tokio::sync::watch::Sender<Option<StopReason>>, Self) {
        let (tell, told) = tokio::sync::watch::channel(None);
        (tell, Self { told, cell: Arc::default(), end: Arc::default() })
    }

    /// Notes that the call runs in a cell, and whose that is. It runs in one: what is noted later changes nothing.
    pub fn runs_in(&self, cell: Gauge, per: Per) {
        drop(self.cell.set((cell, per)));
    }

    /// Notes how the program of this call ended.
    pub fn ended(&self, end: CellEnd) {
        drop(self.end.set(end));
    }

    /// The cell that the call runs in and whose it is, as far as that is known.
    #[must_use]
    pub fn cell(&self) -> Option<(&Gauge, Per)> {
        self.cell.get().map(|(gauge, per)| (gauge, *per))
    }

    /// How the program of this call ended, if it had one and it has.
    #[must_use]
    pub fn end(&self) -> Option<&CellEnd> {
        self.end.get()
    }

    /// Resolves when the call has to stop; never, if nobody can tell any more.
    pub async fn stopped(&mut self) -> StopReason {
        loop {
            if let Some(reason) = *self.told.borrow_and_update() {
                return reason;
            }
            if self.told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The time, and randomness.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Fills the bytes with random ones fit for keys.
    ///
    /// # Errors
    /// There are none to be had; then nothing that needs them is done.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomnessError>;

    /// An array of random bytes fit for keys.
    ///
    /// # Errors
    /// See [`fill`](Self::fill).
    fn random<const N: usize>(&self) -> Result<[u8; N], NoRandomnessError>
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

/// The system gives no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomnessError;

/// The machine's own clock and randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomnessError> {
        crate::randomness::fill(bytes)
    }
}

/// Checks what a person is said to have answered, so that a line in the store alone convinces nobody.
pub trait VerifyAnswer: std::fmt::Debug + Send + Sync + 'static {
    /// Whether this person, as known now, gave this answer to this question's statement.
    fn verify(&self, question: &Question, answer: &Answered) -> bool;
}
