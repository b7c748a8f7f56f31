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

/// As many writes at once are of several calls, and more are on their way: the writer waits for them a moment. Each transaction
/// costs as much as writing some ten records does, whatever is in it.
const CROWD: usize = 3;

/// As many are enough for a transaction: nothing is waited for.
const ENOUGH: usize = 16;

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
    /// How many writes have to be there for the writer to be woken; `None` while it is awake.
    wanted: Option<usize>,
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
        let there = state.jobs.len();
        let wake = state.wanted.take_if(|wanted| there >= *wanted).is_some();
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

    /// Takes what is there, waiting until there is something or the time is over. A crowd is given a `moment` to grow; a write
    /// alone is taken at once.
    pub(super) fn take(&self, patience: Duration, moment: Duration) -> Taken {
        let mut state = self.wait(self.lock(), 1, patience);
        if state.jobs.len() >= CROWD {
            state = self.wait(state, ENOUGH, moment);
        }
        if state.jobs.is_empty() && state.delivered.is_empty() {
            return if state.closed { Taken::Closed } else { Taken::Idle };
        }
        let count = state.jobs.len().min(MAX_BATCH);
        let jobs = state.jobs.drain(..count).collect();
        Taken::Work { jobs, delivered: std::mem::take(&mut state.delivered) }
    }

    /// Waits until so many writes are there, or the time is over.
    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        wanted: usize,
        patience: Duration,
    ) -> MutexGuard<'a, State> {
        if state.jobs.len() < wanted && !state.closed {
            state.wanted = Some(wanted);
            let too_few = |state: &mut State| state.jobs.len() < wanted && !state.closed;
            let waited = self.wake.wait_timeout_while(state, patience, too_few);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.wanted = None;
        }
        state
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Job for Nothing {
        fn apply(&mut self, _batch: &mut Batch<'_>) -> rusqlite::Result<()> {
            Ok(())
        }

        fn answer(self: Box<Self>, _durable: Result<(), StoreError>, _rest: Option<Rest>) {}

        fn ends_a_call(&self) -> bool {
            false
        }
    }

    /// With patience for hours: whoever waits where they should not hangs, and whoever does not wait finds too few.
    #[test]
    fn a_crowd_is_waited_for_and_a_write_alone_is_not() {
        let queue = Queue::default();
        let push = |count| (0..count).for_each(|_| queue.push(Box::new(Nothing)));
        let (hours, no_time) = (Duration::from_secs(10_000), Duration::ZERO);
        let take = |moment| match queue.take(hours, moment) {
            Taken::Work { jobs, .. } => jobs.len(),
            Taken::Idle | Taken::Closed => 0,
        };
        for alone in 1..CROWD {
            push(alone);
            assert_eq!(take(hours), alone);
        }
        push(CROWD);
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| take(hours));
            push(ENOUGH - CROWD);
            assert_eq!(taken.join().unwrap(), ENOUGH);
        });
        push(CROWD);
        assert_eq!(take(no_time), CROWD, "a moment that is over");
        push(ENOUGH + 1);
        assert_eq!(take(hours), ENOUGH + 1);
        push(CROWD);
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| take(hours));
            queue.close();
            assert_eq!(taken.join().unwrap(), CROWD, "a store that closes waits for nobody");
        });
    }
}
