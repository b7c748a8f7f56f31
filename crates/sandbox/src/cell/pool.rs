//! Cells made in advance: everything is in force in them, and they wait for a command.
//!
//! One waits for one shape, which is everything but the command, its environment, its folder and its streams: a changed profile, and a
//! file of the host that was replaced, are another shape. It is nobody's until it is taken, and is taken once. What is mounted on the host
//! is part of no shape, so when that changes all that wait are let go.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::spec::Shape;
use super::{Cell, CellError, Maker};

/// For how many shapes there can be cells; more, and those of the one that was asked for the longest time ago are let go.
const SHAPES: usize = 8;

/// How many cells can wait for each.
const EACH: usize = 8;

/// How old a cell can become while it waits, and how long a shape is remembered that nobody asks for.
const AGE: Duration = Duration::from_secs(600);

/// How long after one was taken another one is made, so that this is not in the way of the one that was taken.
const LATER: Duration = Duration::from_millis(5);

/// How long after a cell was lost another one is made in its place, so that what kills them is not kept busy.
const PAUSE: Duration = Duration::from_millis(100);

/// The cells that wait.
#[derive(Debug)]
pub(super) struct Pool {
    maker: Arc<Maker>,
    /// Guards all that waits.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    shelves: Vec<Shelf>,
    /// The number of the next one.
    next: u64,
    /// What is mounted on the host: it can be asked whether that has changed.
    mounts: Option<File>,
}

/// The cells of one shape.
#[derive(Debug)]
struct Shelf {
    shape: Arc<Shape>,
    wanted: usize,
    being_made: usize,
    waiting: VecDeque<(u64, Cell)>,
    asked: Instant,
}

impl Pool {
    pub(super) fn new(maker: Maker) -> Self {
        Self { maker: Arc::new(maker), kept: Mutex::default() }
    }

    pub(super) const fn maker(&self) -> &Arc<Maker> {
        &self.maker
    }

    /// Keeps so many cells of a shape waiting from now on.
    pub(super) fn keep(self: &Arc<Self>, shape: Shape, count: usize) {
        let mut kept = self.lock();
        if kept.mounts.is_none() {
            // Without it nobody could tell which cells are still as they should be.
            let Ok(mounts) = File::open("/proc/self/mountinfo") else { return };
            kept.mounts = Some(mounts);
        }
        kept.shelves.retain(|shelf| shelf.asked.elapsed() < AGE || *shelf.shape == shape);
        let at = kept.shelves.iter().position(|shelf| *shelf.shape == shape);
        let mut shelf = at.map(|at| kept.shelves.remove(at)).unwrap_or_else(|| Shelf::of(shape));
        shelf.wanted = count.min(EACH);
        shelf.waiting.truncate(shelf.wanted);
        shelf.asked = Instant::now();
        if shelf.wanted > 0 {
            self.fill(&mut shelf, Duration::ZERO);
            // The one that was asked for last is the last one.
            kept.shelves.push(shelf);
        }
        let over = kept.shelves.len().saturating_sub(SHAPES);
        kept.shelves.drain(..over);
    }

    /// Takes one that waits.
    pub(super) fn take(self: &Arc<Self>, shape: &Shape) -> Option<Cell> {
        let mut kept = self.lock();
        let changed = kept.mounts.as_ref().is_some_and(changed);
        let mut taken = None;
        for shelf in &mut kept.shelves {
            if changed {
                shelf.waiting.clear();
            }
            if *shelf.shape == *shape {
                shelf.asked = Instant::now();
                taken = shelf.waiting.pop_front().map(|(_, cell)| cell);
            }
            self.fill(shelf, LATER);
        }
        taken
    }

    pub(super) fn waiting(&self, shape: &Shape) -> usize {
        let kept = self.lock();
        kept.shelves.iter().filter(|shelf| *shelf.shape == *shape).map(|shelf| shelf.waiting.len()).sum()
    }

    /// Has as many made as are missing, after a while.
    fn fill(self: &Arc<Self>, shelf: &mut Shelf, after: Duration) {
        while shelf.waiting.len() + shelf.being_made < shelf.wanted {
            shelf.being_made += 1;
            let (pool, maker, shape) =
                (Arc::downgrade(self), Arc::clone(&self.maker), Arc::clone(&shelf.shape));
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let made = make(&maker, &shape).await;
                if let Some(pool) = pool.upgrade() {
                    pool.put(&shape, made);
                }
            });
        }
    }

    fn put(self: &Arc<Self>, shape: &Arc<Shape>, made: Result<Cell, CellError>) {
        let mut kept = self.lock();
        let number = kept.next;
        kept.next += 1;
        let Some(at) = kept.shelves.iter().position(|shelf| shelf.shape == *shape) else { return };
        let Ok(cell) = made else {
            // It cannot be made any more: what it is made of has been replaced. Whoever asks for it next is told why.
            kept.shelves.remove(at);
            return;
        };
        if let Some(shelf) = kept.shelves.get_mut(at) {
            shelf.being_made = shelf.being_made.saturating_sub(1);
            tokio::spawn(watch(Arc::downgrade(self), Arc::clone(&cell.gate), number));
            shelf.waiting.push_back((number, cell));
        }
    }

    /// Lets one go that waits no longer, or has waited too long; says whether there was such a one.
    fn lose(&self, number: u64) -> bool {
        let mut kept = self.lock();
        let mut lost = false;
        for shelf in &mut kept.shelves {
            let before = shelf.waiting.len();
            shelf.waiting.retain(|(other, _)| *other != number);
            lost |= shelf.waiting.len() < before;
        }
        lost
    }

    fn refill(self: &Arc<Self>) {
        let mut kept = self.lock();
        kept.shelves.retain(|shelf| shelf.asked.elapsed() < AGE);
        kept.shelves.iter_mut().for_each(|shelf| self.fill(shelf, Duration::ZERO));
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn of(shape: Shape) -> Self {
        Self {
            shape: Arc::new(shape),
            wanted: 0,
            being_made: 0,
            waiting: VecDeque::new(),
            asked: Instant::now(),
        }
    }
}

async fn make(maker: &Arc<Maker>, shape: &Shape) -> Result<Cell, CellError> {
    let mut cell = maker.begin(shape).await?;
    cell.ready(shape).await?;
    Ok(cell)
}

/// Waits for the end of a cell that waits, or of its time, and has another one made in its place.
async fn watch(pool: Weak<Pool>, gate: Arc<UnixStream>, number: u64) {
    // Who waits says nothing: what can be read is its end, or that it was taken.
    let heard =
        || super::wire::receive(&*gate, &mut [0], RecvFlags::DONTWAIT | RecvFlags::PEEK).map_err(Into::into);
    let _ended = tokio::time::timeout(AGE, gate.async_io(Interest::READABLE, heard)).await;
    drop(gate);
    if pool.upgrade().is_some_and(|pool| pool.lose(number)) {
        tokio::time::sleep(PAUSE).await;
        if let Some(pool) = pool.upgrade() {
            pool.refill();
        }
    }
}

/// Whether what is mounted on the host has changed since this was asked last.
fn changed(mounts: &File) -> bool {
    let mut polled = [PollFd::new(mounts, PollFlags::PRI)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&at_once)).is_ok()
        && polled.iter().any(|mounts| mounts.revents().contains(PollFlags::PRI))
}
