//! The thread that writes: it takes what waits, writes it in one transaction with one flush, and answers.
//!
//! There is no timer: while one transaction is flushed the next one gathers. A failed write is final. Linux marks the
//! pages of a failed flush clean, so that a second try may claim what is not so; the store is then *poisoned*, which
//! means that it writes nothing more until it is opened again and read back.
//!
//! A full disk is the exception, as SQLite takes such a transaction back whole: a reserve is then given up, and calls
//! that are open can still be ended. Nothing else is written until there is room for the reserve again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;
use toolgate_core::call::CallId;

use super::batch::{Batch, Known};
use super::connection::is_full;
use super::queue::{Job, Queue, Rest, Taken};
use super::reserve::Reserve;
use crate::port::StoreError;

/// How often one looks for what other processes wrote, and for what is to be tidied.
const TICK: Duration = Duration::from_millis(150);

/// How often stored answers are looked through for old ones, unless there are many.
const PRUNE: Duration = Duration::from_secs(1);

/// What was written since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) batches: AtomicU64,
    pub(super) records: AtomicU64,
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) queue: Arc<Queue>,
    pub(super) now_ms: super::Now,
    pub(super) owner: i64,
    pub(super) changes: watch::Sender<u64>,
    pub(super) counters: Arc<Counters>,
    pub(super) reserve: Reserve,
    pub(super) known: Known,
    pub(super) pruned: Instant,
    /// The `data_version` that was seen last while there was nothing to do.
    pub(super) seen: Option<i64>,
}

/// What a transaction came to.
struct Committed {
    records: u64,
    changed: bool,
    /// Whether old answers were looked for, and none are left.
    pruned: bool,
}

impl Writer {
    /// Works until the queue is closed or a write fails.
    pub(super) fn run(mut self) {
        loop {
            match self.queue.take(TICK) {
                Taken::Work { jobs, delivered } => self.write(jobs, &delivered),
                Taken::Idle => self.idle(),
                Taken::Closed => return,
            }
        }
    }

    fn write(&mut self, jobs: Vec<Box<dyn Job>>, delivered: &[CallId]) {
        if let Some(why) = self.queue.poisoned() {
            return Rest::begin(jobs, Err(StoreError::Poisoned(why)));
        }
        // Also under load: what waits all the time must not keep the store from noticing that there is room.
        self.reserve.restore();
        let mut jobs = self.while_low(jobs);
        let mut result = self.transaction(&mut jobs, delivered);
        if result.as_ref().is_err_and(is_full) && self.reserve.give_up() {
            jobs = self.while_low(jobs);
            result = self.transaction(&mut jobs, &[]);
        }
        match result {
            Ok(Committed { records, changed, pruned }) => {
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                self.counters.records.fetch_add(records, Ordering::Relaxed);
                if pruned {
                    self.pruned = Instant::now();
                }
                Rest::begin(jobs, Ok(()));
                if changed {
                    self.changes.send_modify(|count| *count += 1);
                }
            }
            Err(error) => {
                let why = error.to_string();
                let told = if is_full(&error) {
                    StoreError::Full(why.clone())
                } else {
                    StoreError::Write(why.clone())
                };
                self.queue.poison(&why);
                Rest::begin(jobs, Err(told));
            }
        }
    }

    /// While the reserve is given up, refuses what does not end a call.
    fn while_low(&self, jobs: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        if !self.reserve.is_given_up() {
            return jobs;
        }
        let (ending, refused) = jobs.into_iter().partition(|job| job.ends_a_call());
        Rest::begin(
            refused,
            Err(StoreError::Full("the disk is full; only what ends a call is written".to_owned())),
        );
        ending
    }

    /// COMMIT POINT: when this returns `Ok`, all that the jobs wrote is durable.
    fn transaction(
        &mut self,
        jobs: &mut [Box<dyn Job>],
        delivered: &[CallId],
    ) -> rusqlite::Result<Committed> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let written = self.apply(jobs, delivered).and_then(|committed| {
            self.connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(committed)
        });
        if written.is_err() {
            self.known.forget();
            // SQLite may have taken it back by itself. If it cannot be taken back, the next `BEGIN` fails.
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
        }
        written
    }

    fn apply(&mut self, jobs: &mut [Box<dyn Job>], delivered: &[CallId]) -> rusqlite::Result<Committed> {
        let prune = self.pruned.elapsed() >= PRUNE;
        let mut batch = Batch::begin(&self.connection, &mut self.known, (self.now_ms)(), self.owner)?;
        for call in delivered {
            batch.delete_answer(*call)?;
        }
        for job in jobs {
            job.apply(&mut batch)?;
        }
        let pruned = prune && !batch.prune_answers()?;
        let changed = batch.changed;
        Ok(Committed { records: batch.end()?, changed, pruned })
    }

    /// Looks whether another process wrote, and tidies.
    fn idle(&mut self) {
        if self.queue.poisoned().is_some() {
            return;
        }
        self.reserve.restore();
        let version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0)).ok();
        if version != self.seen {
            self.seen = version;
            self.changes.send_modify(|count| *count += 1);
        }
        if self.pruned.elapsed() >= PRUNE {
            if self.has_old_answers().unwrap_or(false) {
                self.write(Vec::new(), &[]);
            } else {
                self.pruned = Instant::now();
            }
        }
    }

    fn has_old_answers(&self) -> rusqlite::Result<bool> {
        let now = super::connection::sql((self.now_ms)());
        self.connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM (SELECT until_ms FROM call WHERE outcome IS NOT NULL ORDER BY id LIMIT 256) \
                 WHERE until_ms < ?1)",
            )?
            .query_one([now], |row| row.get(0))
    }
}
