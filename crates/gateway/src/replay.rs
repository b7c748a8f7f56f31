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

/// How much one stream keeps of what was read already, or of what nobody reads, in bytes.
const MAX_KEPT: usize = 64 << 10;

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
        self.trim();
        self.wake();
    }

    /// Forgets the oldest messages that were read, for as long as there is too much; if nobody reads, others as well.
    fn trim(&mut self) {
        let mut size: usize = self.said.iter().map(Bytes::len).sum();
        while size > MAX_KEPT && (self.gone < self.read || !self.is_read) {
            size -= self.said.pop_front().map_or(size, |oldest| oldest.len());
            self.gone += 1;
        }
    }

    /// The message of this number, the first that was ever said having 0.
    fn message(&self, number: u64) -> Option<Bytes> {
        self.said.get(usize::try_from(number.checked_sub(self.gone)?).ok()?).cloned()
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
        if !message.is_empty() && state.end() - state.read < MAX_QUEUED as u64 {
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
        let Some(message) = state.message(self.at) else {
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
        state.trim();
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
            state.trim();
        }
    }
}

/// The data behind these locks is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Status;

    fn answer(text: &str) -> Answered {
        let call = toolgate_core::call::CallId::new(1, [0; 10]);
        Answered { message: text.into(), call: Some(Delivery::of(call)), status: Status::Ok }
    }

    /// What can be read now, each message cut short; `!` marks the answer, and a dot the end.
    fn read(reading: &mut Reading) -> String {
        let mut cx = Context::from_waker(Waker::noop());
        let mut seen = String::new();
        loop {
            match reading.poll(&mut cx) {
                Poll::Pending => return seen,
                Poll::Ready(None) => return seen + ".",
                Poll::Ready(Some((message, call))) => {
                    seen.extend(message.iter().take(2).map(|byte| char::from(*byte)));
                    seen.push_str(if call.is_some() { "! " } else { " " });
                }
            }
        }
    }

    #[test]
    fn what_was_read_is_kept_and_what_nobody_reads_is_bounded() {
        let large = "x".repeat(MAX_KEPT + 1);
        let small = "s".repeat(8);
        for (what, unread, last, again) in [
            ("small things are all kept", vec![&small; 3], &small, "a ss ss ss ss! ."),
            ("the oldest go first", vec![&small, &large], &small, "ss! ."),
            ("a large answer is not kept", vec![&small], &large, "."),
            ("too many are not all kept", vec![&small; MAX_QUEUED], &small, ""),
        ] {
            let streams = Streams::default();
            let (speaker, mut first) = streams.begin();
            speaker.say(Bytes::from_static(b"a"));
            assert_eq!(read(&mut first), "a ", "{what}");
            drop(first);
            for message in unread {
                speaker.say(message.clone().into());
            }
            speaker.finish(answer(last));
            let got = read(&mut streams.resume("0.0").unwrap());
            match again {
                "" => assert!(got.split(' ').count() <= MAX_QUEUED + 3, "{what}: {}", got.len()),
                again => assert_eq!(got, again, "{what}"),
            }
        }
    }

    #[test]
    fn a_reader_gets_everything_however_large_and_another_takes_its_place() {
        let streams = Streams::default();
        let (speaker, mut first) = streams.begin();
        let large = Bytes::from(vec![b'x'; MAX_KEPT + 1]);
        speaker.say(large.clone());
        speaker.say(large);
        assert_eq!(read(&mut first), "xx xx ");
        assert_eq!(first.id(), "0.2");
        let mut second = streams.resume("0.2").unwrap();
        assert_eq!(read(&mut first), ".", "it is no longer its turn");
        speaker.finish(answer("done"));
        drop(first);
        assert_eq!(read(&mut second), "do! .");
        assert_eq!(read(&mut streams.resume("0.7").unwrap()), ".", "nothing comes after the answer");
        assert_eq!(read(&mut streams.resume("0.2").unwrap()), "do! .", "it may have got lost");
    }

    #[test]
    fn only_so_many_streams_are_kept() {
        let streams = Streams::default();
        let _speakers: Vec<_> = (0..=MAX_STREAMS).map(|_| streams.begin()).collect();
        assert!(streams.resume("0.0").is_none());
        assert!(streams.resume("1.0").is_some());
        for made_up in ["17.0", "1", "", "1.", ".1", "-1.0", "1.0.0"] {
            assert!(streams.resume(made_up).is_none(), "{made_up}");
        }
    }
}
