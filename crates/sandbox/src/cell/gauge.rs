//! What is in force in a cell, and what it uses up, for whoever writes it down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, watch};

use super::cgroup::{Group, Used};
use super::spec::Limits;
use super::tier::Tier;
use crate::egress::{Attempt, Event, Verdict};

/// What is in force in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enforced {
    /// What kind of cell it is.
    pub tier: Tier,
    /// The level of Landlock.
    pub landlock_abi: u32,
    /// What it may use up.
    pub limits: Limits,
    /// Whether the limits of memory and processes hold for all that is in it together; if not, that of memory is for each process.
    pub total: bool,
}

/// What is in force in a cell that runs, and what it has used up so far.
#[derive(Debug, Clone)]
pub struct Gauge {
    /// What is in force.
    pub enforced: Enforced,
    pub(super) group: Weak<Group>,
    /// Where it has a way out.
    pub(super) network: Option<Arc<Tally>>,
}

impl Gauge {
    /// The most memory that all its processes held together up to now, in bytes, where a cgroup counts it and the cell is there.
    #[must_use]
    pub fn peak_bytes(&self) -> Option<u64> {
        self.used().peak_bytes
    }

    /// What was connected to and refused up to now; `None` where it has no way out.
    #[must_use]
    pub fn network(&self) -> Option<Connections> {
        self.network.as_deref().map(Tally::read)
    }

    /// Waits until the cell is gone and everything that it did on the network is counted.
    pub async fn settled(&self) {
        if let Some(tally) = &self.network {
            // Whoever counts keeps the other end.
            drop(tally.over.subscribe().wait_for(|over| *over).await);
        }
    }

    fn used(&self) -> Used {
        self.group.upgrade().map(|group| group.used()).unwrap_or_default()
    }
}

/// How often a cell went out, and how often it wanted to and may not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// Connections that were made, and have ended.
    pub made: u64,
    /// What was allowed and could not be done.
    pub failed: u64,
    /// What was refused: connections, names, other protocols.
    pub refused: u64,
}

/// Counts what happens on the network of a cell.
#[derive(Debug, Default)]
pub(super) struct Tally {
    made: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    /// Becomes true when nothing more can come.
    over: watch::Sender<bool>,
}

impl Tally {
    /// Counts events on their way to whoever reads them.
    pub(super) fn counting(tally: &Arc<Self>, mut events: mpsc::Receiver<Event>) -> mpsc::Receiver<Event> {
        let (onward, told) = mpsc::channel(1);
        let tally = Arc::clone(tally);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    // If nobody reads any more, the cell has to notice.
                    () = onward.closed() => None,
                };
                let Some(event) = event else { break };
                tally.count(&event);
                let _nobody_reads = onward.send(event).await;
            }
            tally.over.send_replace(true);
        });
        told
    }

    fn count(&self, event: &Event) {
        let (counter, times) = match event {
            Event::Attempt(Attempt { verdict: Verdict::Allowed, .. }) => (&self.made, 1),
            Event::Attempt(Attempt { verdict: Verdict::Failed, .. }) => (&self.failed, 1),
            Event::Attempt(Attempt { verdict: Verdict::Refused(_), .. }) => (&self.refused, 1),
            Event::Untold(times) => (&self.refused, *times),
        };
        counter.fetch_add(times, Ordering::Relaxed);
    }

    fn read(&self) -> Connections {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Connections { made: read(&self.made), failed: read(&self.failed), refused: read(&self.refused) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It notices at once, and not with the end of the next connection.
    #[tokio::test]
    async fn where_nobody_reads_nothing_more_can_be_done() {
        let (tell, events) = mpsc::channel(8);
        let tally = Arc::new(Tally::default());
        let told = Tally::counting(&tally, events);
        drop(told);
        let closed = tokio::time::timeout(std::time::Duration::from_secs(10), tell.closed());
        assert!(closed.await.is_ok());
        assert!(tell.try_reserve_owned().is_err());
    }
}
