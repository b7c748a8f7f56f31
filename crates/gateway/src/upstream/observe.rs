//! What is counted and told about servers that misbehave, and what they announce.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use toolgate_broker::connections::Whose;
use toolgate_core::name::ServerName;
use toolgate_sandbox::egress::Event;

/// What a server did that it should not, or that somebody should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// The gate closed a connection in order: a session was over, or the gate stopped.
    ConnectionClosed,
    /// A connection broke or was given up.
    ConnectionLost,
    /// A notification was dropped, because whoever it was for did not take it in time, or nobody was.
    DroppedNotice,
    /// What a call was to run in could not be made.
    NotStarted,
    /// The connection was opened.
    Opened,
    /// Something that is no message, or too large. The connection was given up.
    Malformed,
    /// A request that the server may not make now, or at all.
    RefusedRequest,
    /// An answer that nobody waits for: late, doubled, or with an id that was never given out.
    StrayAnswer,
    /// A tool differs from what was accepted.
    ToolChanged,
}

impl Oddity {
    const ALL: [Self; 9] = [
        Self::ConnectionClosed,
        Self::ConnectionLost,
        Self::DroppedNotice,
        Self::NotStarted,
        Self::Opened,
        Self::Malformed,
        Self::RefusedRequest,
        Self::StrayAnswer,
        Self::ToolChanged,
    ];
}

/// Is told what servers do. Called on the way of messages: it has to be quick and must not block.
pub trait Observer: Send + Sync + 'static {
    /// Something happened. `detail` is for operators; it may quote the server, hidden characters escaped, and never has
    /// arguments or results in it.
    fn odd(&self, server: &ServerName, what: Oddity, detail: &str);

    /// What happens on the network of a cell, to its end. It has to be read, on a task of its own: while it is not, the cell cannot connect,
    /// and never again once it is dropped. Has to be called within a tokio runtime. Who does not say otherwise, reads and forgets it.
    fn network(&self, _whose: Whose, mut events: mpsc::Receiver<Event>) {
        tokio::spawn(async move { while events.recv().await.is_some() {} });
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn odd(&self, _server: &ServerName, _what: Oddity, _detail: &str) {}
}

/// How often each oddity happened.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Oddity::ALL.len()]);

impl Counters {
    pub(super) fn count(&self, what: Oddity) {
        if let Some(counter) = self.0.get(what as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it happened since the start.
    #[must_use]
    pub fn of(&self, what: Oddity) -> u64 {
        self.0.get(what as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(Oddity, u64)> {
        Oddity::ALL.into_iter().map(|what| (what, self.of(what))).collect()
    }
}

/// What everybody may want to know about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamEvent {
    /// Which server.
    pub server: ServerName,
    /// The session whose connection it came on.
    pub session: String,
    /// What.
    pub kind: UpstreamEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamEventKind {
    /// The connection is gone. It is opened again when it is next needed.
    Gone,
    /// A tool is not what was accepted, or is gone: it must be offered no longer.
    ToolDiffers {
        /// The tool's own name.
        tool: String,
    },
    /// `notifications/tools/list_changed`.
    ToolsChanged,
}
