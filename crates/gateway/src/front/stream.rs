//! Bodies of HTTP responses: one JSON message, or a stream of events while a request is under way.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use toolgate_broker::outcome::Delivery;
use toolgate_broker::port::Handle;

use crate::line::Gone;
use crate::replay::Reading;
use crate::router::Answered;

/// How often a quiet stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment, which clients skip.
pub(super) const COMMENT: &[u8] = b":\n\n";

/// Answers that were given to the connection and are not in the socket yet.
#[derive(Default)]
pub(super) struct Outbox(Mutex<Vec<Delivery>>);

impl Outbox {
    fn put(&self, call: Delivery) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection that tells the broker when answers have gone into the socket.
///
/// HTTP flushes after it has written all it had; what was in the outbox then is out. That the other side's kernel has it,
/// or the program there, nobody here can know.
pub(super) struct Told<T> {
    io: T,
    outbox: Arc<Outbox>,
    broker: Arc<dyn Handle>,
}

impl<T> Told<T> {
    pub(super) const fn new(io: T, outbox: Arc<Outbox>, broker: Arc<dyn Handle>) -> Self {
        Self { io, outbox, broker }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Told<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Told<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            for call in self.outbox.take() {
                self.broker.delivered(call.call);
            }
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// What becomes of a request: its answer, or nothing for a stream that only tells.
pub(super) type Work = Pin<Box<dyn Future<Output = Option<Answered>> + Send>>;

/// Tells that the agent has hung up when the response is dropped before it is complete.
pub(super) struct HangUp(pub(super) Option<Arc<Gone>>);

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(gone) = &self.0 {
            gone.tell();
        }
    }
}

/// The body of a response.
pub(super) enum Reply {
    /// All of it, and the call whose answer it is.
    Whole(Bytes, Option<(Delivery, Arc<Outbox>)>),
    /// Events.
    Events(Box<Events>),
}

/// Where the messages of a stream come from.
pub(super) enum Source {
    /// From a stream that can be taken up again.
    Kept(Reading),
    /// Nowhere: that was all.
    Over,
    /// From work, which is done here, and the queue that it fills on the way.
    Work(Work, mpsc::Receiver<Bytes>),
}

/// Events while a request is under way, then its answer.
pub(super) struct Events {
    source: Source,
    /// What goes out first, already framed.
    first: Option<Bytes>,
    alive: Interval,
    outbox: Arc<Outbox>,
    _hang_up: HangUp,
}

impl Events {
    /// A stream that begins with this. Something has to go out at once, so that nobody on the way waits for the first
    /// event to pass the head on.
    pub(super) fn new(source: Source, first: Vec<u8>, outbox: Arc<Outbox>, hang_up: HangUp) -> Self {
        let mut alive = tokio::time::interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { source, first: Some(first.into()), alive, outbox, _hang_up: hang_up }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let mut frame = Vec::new();
        let (is_over, answered) = match &mut self.source {
            Source::Kept(reading) => kept(reading, &mut frame, cx),
            Source::Over => (true, None),
            Source::Work(work, queue) => {
                let done = work.as_mut().poll(cx);
                // The queue is looked at after the work, which may just have filled it; the answer goes last.
                while let Poll::Ready(Some(message)) = queue.poll_recv(cx) {
                    event(&mut frame, &message);
                }
                match done {
                    Poll::Pending => (false, None),
                    Poll::Ready(None) => (true, None),
                    Poll::Ready(Some(Answered { message, call, status: _ })) => {
                        event(&mut frame, &message);
                        (true, call)
                    }
                }
            }
        };
        if let Some(call) = answered {
            self.outbox.put(call);
        }
        if is_over {
            self.source = Source::Over;
            return Poll::Ready((!frame.is_empty()).then(|| frame.into()));
        }
        if !frame.is_empty() {
            self.alive.reset();
            return Poll::Ready(Some(frame.into()));
        }
        if self.alive.poll_tick(cx).is_ready() {
            return Poll::Ready(Some(Bytes::from_static(COMMENT)));
        }
        Poll::Pending
    }
}

/// Frames what there is to read. Says whether that was all, and the call whose answer was in it.
fn kept(reading: &mut Reading, frame: &mut Vec<u8>, cx: &mut Context<'_>) -> (bool, Option<Delivery>) {
    let mut answered = None;
    loop {
        match reading.poll(cx) {
            Poll::Pending => return (false, answered),
            Poll::Ready(None) => return (true, answered),
            Poll::Ready(Some((message, call))) => {
                frame.extend_from_slice(format!("id: {}\n", reading.id()).as_bytes());
                event(frame, &message);
                answered = answered.or(call);
            }
        }
    }
}

/// The first event of a stream that can be taken up again: an id to do that with, and how long to wait before, in
/// milliseconds.
pub(super) fn priming(reading: &Reading) -> Vec<u8> {
    format!("id: {}\nretry: 1000\ndata: \n\n", reading.id()).into_bytes()
}

/// Frames one message. Line breaks between the parts of JSON become spaces: a line break would end the event's line.
pub(super) fn event(frame: &mut Vec<u8>, message: &[u8]) {
    if message.is_empty() {
        return frame.extend_from_slice(COMMENT);
    }
    frame.extend_from_slice(b"event: message\ndata: ");
    frame.reserve(message.len() + 2);
    frame.extend(message.iter().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    }));
    frame.extend_from_slice(b"\n\n");
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes, call) => {
                if let Some((call, outbox)) = call.take() {
                    outbox.put(call);
                }
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Events(events) => events.next(cx).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes, _) => bytes.is_empty(),
            Self::Events(events) => matches!(events.source, Source::Over) && events.first.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
