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
use crate::router::Answered;

/// How often a quiet stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment, which clients skip.
const COMMENT: &[u8] = b":\n\n";

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

/// Events while a request is under way, then its answer.
pub(super) struct Events {
    work: Option<Work>,
    queue: mpsc::Receiver<Bytes>,
    /// What goes out first, already framed.
    first: Option<Bytes>,
    alive: Interval,
    outbox: Arc<Outbox>,
    _hang_up: HangUp,
}

impl Events {
    /// A stream that begins with a message, if one is there already.
    pub(super) fn new(
        work: Work,
        queue: mpsc::Receiver<Bytes>,
        first: Option<Bytes>,
        outbox: Arc<Outbox>,
        hang_up: HangUp,
    ) -> Self {
        let mut alive = tokio::time::interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Something goes out at once, so that nobody on the way waits for the first event to pass the head on.
        let mut begin = COMMENT.to_vec();
        if let Some(message) = first {
            event(&mut begin, &message);
        }
        Self { work: Some(work), queue, first: Some(begin.into()), alive, outbox, _hang_up: hang_up }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let Some(work) = &mut self.work else {
            return Poll::Ready(None);
        };
        let done = work.as_mut().poll(cx);
        let mut frame = Vec::new();
        // The queue is looked at after the work, which may just have filled it; the answer goes last.
        while let Poll::Ready(Some(message)) = self.queue.poll_recv(cx) {
            event(&mut frame, &message);
        }
        if let Poll::Ready(answered) = done {
            self.work = None;
            if let Some(Answered { message, call, status: _ }) = answered {
                event(&mut frame, &message);
                if let Some(call) = call {
                    self.outbox.put(call);
                }
            }
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

/// Frames one message. Line breaks between the parts of JSON become spaces: a line break would end the event's line.
fn event(frame: &mut Vec<u8>, message: &[u8]) {
    if message.is_empty() {
        return frame.extend_from_slice(COMMENT);
    }
    frame.extend_from_slice(b"event: message\ndata: ");
    frame.extend(message.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
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
            Self::Events(events) => events.work.is_none() && events.first.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
