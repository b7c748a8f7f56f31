//! What came of a call, in the form that may be shown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use toolgate_core::call::{CallDigest, CallId};
use toolgate_core::json::{Document, JsonError};
use toolgate_core::scrub::Scrubbed;

use crate::port::Position;

/// What a server, or an agent that was asked something, answered: the `result` or the `error` member of its response.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A JSON-RPC error object.
    Error(Document),
    /// A result object.
    Result(Document),
}

impl Answer {
    /// The answer as stored for a repeat: one byte for the kind, then the JSON as it came.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (kind, document) = match self {
            Self::Error(document) => (b'e', document),
            Self::Result(document) => (b'r', document),
        };
        let raw = document.root().raw();
        let mut bytes = Vec::with_capacity(raw.len() + 1);
        bytes.push(kind);
        bytes.extend_from_slice(raw);
        bytes.into()
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` if it is not that.
    ///
    /// # Errors
    /// The JSON is not what was stored.
    pub fn decode(bytes: &Bytes) -> Result<Option<Self>, JsonError> {
        let limits = toolgate_core::json::Limits::default();
        match bytes.first() {
            Some(b'e') => Document::parse(bytes.slice(1..), &limits).map(|d| Some(Self::Error(d))),
            Some(b'r') => Document::parse(bytes.slice(1..), &limits).map(|d| Some(Self::Result(d))),
            Some(_) | None => Ok(None),
        }
    }

    /// The JSON of the result or error.
    #[must_use]
    pub const fn document(&self) -> &Document {
        match self {
            Self::Error(document) | Self::Result(document) => document,
        }
    }
}

/// What came of a call that was opened. Nothing raw is in it.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The agent cancelled it; what the server did is not known.
    Cancelled,
    /// The connection broke after it was sent; what the server did is not known.
    Lost,
    /// It was not sent: what it claims to go on with is not, or no longer, waited for.
    NotAwaited,
    /// It was not sent.
    NotRun,
    /// The server answered.
    Ran(Scrubbed<Answer>),
    /// The server did not answer in time; what it did is not known.
    TimedOut,
    /// The server answered with something that may not be shown.
    Withheld(WithheldWhy),
}

/// Why an answer is withheld.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WithheldWhy {
    /// Its structured content does not fit the tool's output schema; the text says where.
    Schema(String),
    /// It is larger than the call was allowed to bring back.
    TooLarge,
    /// It could not be looked through for what may not be shown.
    Unsearchable,
}

/// Proof that both lines of a call are on the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The call.
    pub call: CallId,
    /// Where the intent is.
    pub intent: Position,
    /// Where the outcome is.
    pub outcome: Position,
}

/// The calls under way or with an answer on its way, by what they do.
pub(crate) type LiveCalls = Arc<Mutex<HashMap<CallDigest, usize>>>;

/// A call that is under way, or whose answer is on its way to the agent.
#[derive(Debug)]
pub(crate) struct Live {
    calls: LiveCalls,
    digest: CallDigest,
}

impl Live {
    /// Counts a call; says whether it is the only one that does this. Only then may an answer that got lost stand in for
    /// running it: the answer of another live call belongs to that call.
    pub(crate) fn enter(calls: &LiveCalls, digest: CallDigest) -> (Self, bool) {
        let mut counts = calls.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(digest).or_default();
        *count += 1;
        let alone = *count == 1;
        (Self { calls: Arc::clone(calls), digest }, alone)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut counts = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.digest) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.digest);
            }
        }
    }
}

/// An answer on its way to the agent. To be held until [`delivered`](crate::port::Handle::delivered) was called, or the
/// way turned out to be cut: dropped without it, the answer counts as lost, and stands in for the same call if it comes again.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The call whose answer it is.
    pub call: CallId,
    pub(crate) _live: Option<Arc<Live>>,
}

impl Delivery {
    /// One that nobody waits for: of an answer that counts as lost, and for fakes of the pipeline.
    #[must_use]
    pub const fn of(call: CallId) -> Self {
        Self { call, _live: None }
    }
}

/// What the gateway may release.
#[derive(Debug, Clone)]
pub struct Reply {
    /// To be held until the answer is out.
    pub delivery: Delivery,
    /// What came of it.
    pub outcome: Outcome,
    /// Where it is written down.
    pub receipt: Receipt,
}
