//! The queue in front of the thread that writes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use toolgate_core::call::CallId;

use super::batch::Batch;
use crate::port::StoreError;

/// How many writes may wait. Far more than callers can be waiting for; beyond it the store says that it has no room.
const MAX_WAITING: usize = 65_536;

/// How many writes go into one transaction.
const MAX_BATCH: usize = 1_024;

/// How many notes about delivered answers are kept for the next transaction. While the store writes they are never so many:
/// each transaction takes them all, and what is delivered was closed in one before, of at most [`MAX_BATCH`]. When it does not
/// write, nothing is opened either. A note that got lost all the same, here or with a transaction on a full disk, errs to the
/// safe side: for ten minutes the same call is answered with what it came to before, and does not run a second time.
const MAX_NOTES: usize = 65_536;

/// One write: applied inside the transaction, answered after it is durable.
pub(super) trait Job: Send {
    /// Applies it. May be called again after a rollback. It decides before it writes: an error rolls the whole
    /// transaction back.
    fn apply(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()>;

    /// Answers who waits: with what `apply` found, or why it is not durable. Hands over the `rest` with it.
    fn answer(self: Box<Self>, durable: Result<(), StoreError>, rest: Option<Rest>);

    /// Whether it is still written when the disk is full: what ends a call is.
    fn ends_a_call(&self) -> bool;
}

/// The answers of a transaction that are still to be given. Whoever lets go of them gives them.
///
/// The thread that writes gives one answer, and these with it: who is woken by it wakes the others, while the next
/// transaction begins.
pub(super) struct Rest {
    jobs: Vec<Box<dyn Job>>,
    durable: Result<(), StoreError>,
}

impl Rest {
    /// Answers them all, the first one from here.
    pub(super) fn begin(mut jobs: Vec<Box<dyn Job>>, durable: Result<(), StoreError>) {
        if let Some(first) = jobs.pop() {
            let rest = Self { jobs, durable: durable.clone() };
            first.answer(durable, Some(rest));
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        for job in self.jobs.drain(..) {
            job.answer(self.durable.clone(), None);
        }
    }
}

/// What the thread that writes finds.
pub(super) enum Taken {
    /// Work.
    Work { jobs: Vec<Box<dyn Job>>, delivered: Vec<CallId> },
    /// Nothing came within the time given.
    Idle,
    /// The store is closed and everything was taken.
    Closed,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Box<dyn Job>>,
    delivered: Vec<CallId>,
    closed: bool,
    /// Why nothing is written any more.
    poisoned: Option<String>,
    /// Whether the writer sleeps and has to be woken.
    sleeping: bool,
}

/// The queue. The lock guards the whole state and is held for a few instructions only.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

impl Queue {
    /// Puts a write in the queue; if that cannot be, it is answered at once.
    pub(super) fn push(&self, job: Box<dyn Job>) {
        let mut state = self.lock();
        let refused = match &state.poisoned {
            Some(why) => Some(StoreError::Poisoned(why.clone())),
            None if state.closed => Some(StoreError::Poisoned("the store is closed".to_owned())),
            None if state.jobs.len() >= MAX_WAITING => {
                Some(StoreError::Full(format!("{MAX_WAITING} writes are waiting")))
            }
            None => None,
        };
        if let Some(error) = refused {
            drop(state);
            job.answer(Err(error), None);
            return;
        }
        state.jobs.push_back(job);
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Leaves a note for the next transaction.
    pub(super) fn note_delivered(&self, call: CallId) {
        let mut state = self.lock();
        if state.delivered.len() < MAX_NOTES {
            state.delivered.push(call);
        }
    }

    /// Takes what is there, waiting until there is something or the time is over.
    pub(super) fn take(&self, patience: Duration) -> Taken {
        let mut state = self.lock();
        if state.jobs.is_empty() && !state.closed {
            state.sleeping = true;
            let nothing = |state: &mut State| state.jobs.is_empty() && !state.closed;
            state = self
                .wake
                .wait_timeout_while(state, patience, nothing)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.sleeping = false;
        }
        if state.jobs.is_empty() && state.delivered.is_empty() {
            return if state.closed { Taken::Closed } else { Taken::Idle };
        }
        let count = state.jobs.len().min(MAX_BATCH);
        let jobs = state.jobs.drain(..count).collect();
        Taken::Work { jobs, delivered: std::mem::take(&mut state.delivered) }
    }

    /// Lets nothing more in; what is there is still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Refuses everything from now on, and answers what waits.
    pub(super) fn poison(&self, why: &str) {
        let mut state = self.lock();
        state.poisoned = Some(why.to_owned());
        let waiting = std::mem::take(&mut state.jobs);
        drop(state);
        for job in waiting {
            job.answer(Err(StoreError::Poisoned(why.to_owned())), None);
        }
    }

    /// Why nothing is written any more.
    pub(super) fn poisoned(&self) -> Option<String> {
        self.lock().poisoned.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
