//! Streams that a client can take up again when its connection broke (2025-11-25): what is said on them is kept, within
//! bounds, and read by one connection at a time.
//!
//! An answer that nobody reads is not held as if it were on its way: its [`Delivery`] is let go of, so that it is found by
//! sending the same call again, too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use toolgate_broker::outcome::Delivery;

use crate::line::MAX_QUEUED;
use crate::router::Answered;

/// How many streams of one session can be taken up again; the oldest makes room for one more.
const MAX_STREAMS: usize = 16;

/// How much is kept of what was read already, in bytes.
const MAX_READ: usize = 64 << 10;

/// The streams of one session.
#[derive(Debug, Default)]
pub struct Streams {
    next: AtomicU64,
    /// The oldest first. Guards nothing else.
    kept: Mutex<VecDeque<Arc<Stream>>>,
}

impl Streams {
    /// Begins a stream.
    pub fn begin(&self) -> (Speaker, Reading) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(Stream { number, state: Mutex::default() });
        let mut kept = lock(&self.kept);
        if kept.len() >= MAX_STREAMS {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&stream));
        (Speaker(Arc::clone(&stream)), Reading::new(stream, 0))
    }

    /// Takes a stream up again after the event that the client saw last; `None` if there is no such stream, or none any
    /// more. Whoever read it before reads it no longer.
    pub fn resume(&self, last_event: &str) -> Option<Reading> {
        let (number, after) = last_event.split_once('.')?;
        let (number, after): (u64, u64) = (number.parse().ok()?, after.parse().ok()?);
        let stream = lock(&self.kept).iter().find(|stream| stream.number == number).map(Arc::clone)?;
        Some(Reading::new(stream, after))
    }
}

#[derive(Debug)]
struct Stream {
    number: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was said and is kept.
    said: VecDeque<Bytes>,
    /// How many messages were said before those.
    gone: u64,
    /// How many messages were read, by whomever.
    read: u64,
    /// Nothing more will be said.
    over: bool,
    /// The call whose answer is the last message.
    answer: Option<Delivery>,
    /// Which reading is the present one.
    turn: u64,
    /// Whether somebody reads.
    is_read: bool,
    /// Who waits for more.
    waiting: Option<Waker>,
}

impl State {
    fn end(&self) -> u64 {
        self.gone + self.said.len() as u64
    }

    fn say(&mut self, message: Bytes) {
        self.said.push_back(message);
        self.wake();
    }

    /// Forgets the oldest message, if it was read; says whether it has.
    fn forget(&mut self) -> bool {
        let was_read = self.gone < self.read && self.said.pop_front().is_some();
        self.gone += u64::from(was_read);
        was_read
    }

    /// The messages from this one on. The first that was ever said has number 0.
    fn from(&self, number: u64) -> impl Iterator<Item = &Bytes> {
        self.said.iter().skip(usize::try_from(number.saturating_sub(self.gone)).unwrap_or(usize::MAX))
    }

    fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Counts the answer as lost, for as long as nobody reads it.
    fn let_go(&mut self) {
        if let Some(answer) = &mut self.answer {
            *answer = Delivery::of(answer.call);
        }
    }
}

/// Says something on a stream; when it is dropped, the stream is over.
#[derive(Debug)]
pub struct Speaker(Arc<Stream>);

impl Speaker {
    /// Says this. What a client does not read for long enough is a courtesy lost.
    pub fn say(&self, message: Bytes) {
        let mut state = lock(&self.0.state);
        // An empty message only keeps a stream alive.
        if !message.is_empty() && (state.said.len() < MAX_QUEUED || state.forget()) {
            state.say(message);
        }
    }

    /// Says the last there is to say.
    pub fn finish(self, answered: Answered) {
        let mut state = lock(&self.0.state);
        state.answer = answered.call;
        if !state.is_read {
            state.let_go();
        }
        state.say(answered.message.into());
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.over = true;
        state.wake();
    }
}

/// One connection's reading of a stream.
#[derive(Debug)]
pub struct Reading {
    stream: Arc<Stream>,
    turn: u64,
    /// How many messages the client has.
    at: u64,
}

impl Reading {
    fn new(stream: Arc<Stream>, after: u64) -> Self {
        let mut state = lock(&stream.state);
        state.turn += 1;
        state.is_read = true;
        // Who read before sees that it is no longer its turn.
        state.wake();
        let (turn, at) = (state.turn, after.min(state.end()));
        drop(state);
        Self { stream, turn, at }
    }

    /// The id of the last event that was read.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}.{}", self.stream.number, self.at)
    }

    /// The next message, and the call whose answer it is; `None` when there will be none.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Bytes, Option<Delivery>)>> {
        let mut state = lock(&self.stream.state);
        if state.turn != self.turn {
            return Poll::Ready(None);
        }
        self.at = self.at.max(state.gone);
        let Some(message) = state.from(self.at).next().cloned() else {
            if state.over {
                return Poll::Ready(None);
            }
            state.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.at += 1;
        state.read = state.read.max(self.at);
        let call = if self.at == state.end() { state.answer.clone() } else { None };
        if call.is_some() {
            state.let_go();
        }
        let unread = state.from(state.read).map(Bytes::len).sum::<usize>();
        let mut read = state.said.iter().map(Bytes::len).sum::<usize>() - unread;
        while read > MAX_READ {
            read -= state.said.front().map_or(read, Bytes::len);
            state.forget();
        }
        Poll::Ready(Some((message, call)))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = lock(&self.stream.state);
        if state.turn == self.turn {
            state.is_read = false;
            state.waiting = None;
            state.let_go();
        }
    }
}

/// The data behind these locks is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
