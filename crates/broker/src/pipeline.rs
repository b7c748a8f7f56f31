//! One way through. Every call, from every adapter, takes [`Broker::handle`] and no other way.
//!
//! There is no middleware: the order is the security property, so the order is what one sees.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use toolgate_core::call::{Action, Call, CallId};
use toolgate_core::json::Document;
use toolgate_core::name::AgentId;
use toolgate_core::policy::Facts;
use toolgate_core::refusal::Refusal;
use toolgate_core::scrub::{Raw, ScrubRules};
use toolgate_core::tool::Effect;
use toolgate_core::verdict::{Asked, DenyReason, Obligations, Verdict};

use crate::authorized::{self, Authorized, Entry, Gate, Grounds};
use crate::desk::{self, Desk};
use crate::lines::{self, RefusedBy};
use crate::outcome::{Answer, Outcome, Receipt, Reply};
use crate::port::{
    AgentLine, BoxFuture, Clock, Closing, Executed, Executor, Handle, Stop, StopReason, Store, StoreError,
};
use crate::rulebook::{AcceptedTool, Rulebook};

/// How long the answer of a call that does more than read is kept for a client that lost it, in milliseconds.
pub const REPEAT_WINDOW_MS: u64 = 600_000;

/// How many calls of one agent may be under way at once.
pub const MAX_CALLS_PER_AGENT: usize = 256;

/// The pipeline and what it works with.
pub struct Broker<S, E, C> {
    inner: Arc<Inner<S, E, C>>,
}

impl<S, E, C> Clone for Broker<S, E, C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<S, E, C> {
    store: Arc<S>,
    executor: E,
    clock: C,
    rulebook: ArcSwap<Rulebook>,
    /// How many calls each agent has under way. Guards nothing else.
    under_way: Mutex<HashMap<AgentId, usize>>,
}

impl<S: Store, E: Executor, C: Clock> Handle for Broker<S, E, C> {
    fn handle(&self, call: Call, line: AgentLine) -> BoxFuture<'_, Result<Reply, Refusal>> {
        Box::pin(Self::handle(self, call, line))
    }
}

impl<S: Store, E: Executor, C: Clock> Broker<S, E, C> {
    /// Puts the parts together.
    pub fn new(store: Arc<S>, executor: E, clock: C, rulebook: Rulebook) -> Self {
        let under_way = Mutex::default();
        Self { inner: Arc::new(Inner { store, executor, clock, rulebook: ArcSwap::from_pointee(rulebook), under_way }) }
    }

    /// What is in force now.
    pub fn rulebook(&self) -> Arc<Rulebook> {
        self.inner.rulebook.load_full()
    }

    /// Puts other rules in force. Calls that were judged go on; questions asked under another policy are void.
    pub fn replace_rulebook(&self, rulebook: Rulebook) {
        self.inner.rulebook.store(Arc::new(rulebook));
    }

    /// The store.
    pub fn store(&self) -> &Arc<S> {
        &self.inner.store
    }

    /// The executor.
    pub fn executor(&self) -> &E {
        &self.inner.executor
    }

    /// Takes one call all the way: judged, asked about, written down, run, cleaned, written down.
    ///
    /// The pipeline runs on a task of its own, so dropping the future cancels nothing between open and close; the
    /// agent's [`gone`](crate::port::Agentward::gone) is what tells a running call to stop.
    ///
    /// # Errors
    /// What the agent is told when the call did not run. The refusal is on the log.
    pub async fn handle(&self, call: Call, line: AgentLine) -> Result<Reply, Refusal> {
        let broker = self.clone();
        let task = tokio::spawn(async move { broker.pipeline(call, line).await });
        // INVARIANT: the pipeline does not panic; if it did, the open intent becomes `outcome_unknown` at the next start.
        task.await.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Notes that the answer reached the agent, so that the same call runs again when it comes again.
    pub fn delivered(&self, call: CallId) {
        self.inner.store.delivered(call);
    }

    async fn pipeline(&self, call: Call, line: AgentLine) -> Result<Reply, Refusal> {
        let (authorized, entry) = match self.authorize(call, &line).await? {
            Admitted::Authorized(authorized, entry) => (authorized, entry),
            Admitted::Repeated(reply) => return Ok(reply),
        };
        let tool = self.accepted(&authorized.get().action);
        let started_ms = self.inner.clock.now_ms();
        let told = Told::of(authorized.get());
        let outcome = self.run(authorized, tool, line).await;
        let receipt = self.close(entry, &told, started_ms, &outcome).await?;
        Ok(Reply { outcome, receipt })
    }
}
