//! One connection over pipes: a message a line.
//!
//! Who sends a request writes its line itself, under a lock, so that no queue lies between a call and the pipe; one
//! task reads. Requests carry numbers of our own, and what comes back with another number, twice or too late is
//! counted and dropped. What is no message ends the connection: after it nothing that the server writes can be trusted
//! to be what it seems.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use toolgate_broker::outcome::Answer;
use toolgate_core::json::Limits;
use toolgate_sandbox::Child;
use toolgate_sandbox::cell::Gauge;

use super::config::Bounds;
use super::link::{Event, SendFailure, refusal_of};
use super::observe::{Oddity, UpstreamEventKind};
use super::told::{ACKNOWLEDGED, Told};
use crate::rpc::{self, Message, Notification};

/// How many notifications may wait for one call to look at them.
const MAX_QUEUED: usize = 64;
/// How many answers nobody waits for end the connection.
const MAX_STRAYS: u64 = 1024;
/// How many answers to the server's requests may wait to be written.
const MAX_REPLIES: usize = 64;

/// How often one looks whether the reader knows why a connection ended.
const LOOK: Duration = Duration::from_millis(5);
/// How a server ends that says nothing more.
const CLOSED: &str = "the server closed the connection";

type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection over pipes.
pub(super) struct StdioLink {
    /// The cell that the process runs in.
    pub(super) cell: Option<Gauge>,
    told: Arc<Told>,
    bounds: Bounds,
    next: AtomicU64,
    strays: AtomicU64,
    /// Guards who waits for what, by number. Ended when `ended` is set.
    waiting: Mutex<BTreeMap<u64, Waiter>>,
    /// Guards the pipe, so that lines do not mix; `None` once the connection ended.
    writer: tokio::sync::Mutex<Option<Writer>>,
    queued_writes: AtomicUsize,
    replies: mpsc::Sender<Vec<u8>>,
    ended: OnceLock<(Oddity, String)>,
    stop: Notify,
    /// Becomes true when the process has ended.
    gone: watch::Sender<bool>,
}

struct Waiter {
    events: mpsc::UnboundedSender<Event>,
    /// How many notifications wait in `events`.
    queued: Arc<AtomicUsize>,
    /// Whether it is an agent's call, so that the server may ask the agent something.
    call: bool,
}

/// A request that was sent, until it is answered or dropped.
pub(super) struct StdioPending {
    link: Arc<StdioLink>,
    number: u64,
    events: mpsc::UnboundedReceiver<Event>,
    queued: Arc<AtomicUsize>,
}

impl StdioLink {
    /// Takes over the pipes, and the process they lead to if it is ours.
    pub(super) fn over(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        child: Option<Child>,
        told: Arc<Told>,
        bounds: Bounds,
    ) -> Arc<Self> {
        let (replies, inbox) = mpsc::channel(MAX_REPLIES);
        let link = Arc::new(Self {
            cell: child.as_ref().and_then(Child::gauge),
            told,
            bounds,
            next: AtomicU64::new(1),
            strays: AtomicU64::new(0),
            waiting: Mutex::default(),
            writer: tokio::sync::Mutex::new(Some(Box::new(writer))),
            queued_writes: AtomicUsize::new(0),
            replies,
            ended: OnceLock::new(),
            stop: Notify::new(),
            gone: watch::channel(false).0,
        });
        tokio::spawn(Arc::clone(&link).read(BufReader::with_capacity(64 << 10, reader), child));
        tokio::spawn(write_replies(Arc::downgrade(&link), inbox));
        link
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Why the connection ended, if it did.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.get().map(|(_, why)| why.as_str())
    }

    /// How many requests are under way.
    pub(super) fn under_way(&self) -> usize {
        self.waiting().len()
    }

    /// Sends a request.
    pub(super) async fn start(
        self: &Arc<Self>,
        number: u64,
        line: Vec<u8>,
        call: bool,
    ) -> Result<StdioPending, SendFailure> {
        let (sender, events) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        {
            let mut waiting = self.waiting();
            if waiting.len() >= self.bounds.max_under_way {
                return Err(SendFailure::NotSent("too many requests are under way".to_owned()));
            }
            waiting.insert(number, Waiter { events: sender, queued: Arc::clone(&queued), call });
        }
        // Registered first, so that no answer can be too early; dropping it takes it off the list again.
        let pending = StdioPending { link: Arc::clone(self), number, events, queued };
        self.write(line).await?;
        Ok(pending)
    }

    /// Writes one line, whole or not at all as long as the connection lives.
    pub(super) async fn write(&self, mut line: Vec<u8>) -> Result<(), SendFailure> {
        line.push(b'\n');
        let place = QueuePlace::take(self)?;
        let locked = timeout(self.bounds.write, self.writer.lock()).await;
        let Ok(mut writer) = locked else {
            return Err(SendFailure::NotSent("the server does not read what others sent".to_owned()));
        };
        let Some(pipe) = writer.as_mut() else {
            return Err(SendFailure::NotSent(self.ended().unwrap_or("the connection has ended").to_owned()));
        };
        let mut unfinished = Unfinished { link: self, sent: 0, all: line.len() };
        while let Some(rest) = line.get(unfinished.sent..).filter(|rest| !rest.is_empty()) {
            let why = match timeout(self.bounds.write, pipe.write(rest)).await {
                Ok(Ok(written @ 1..)) => {
                    unfinished.sent += written;
                    continue;
                }
                Ok(Ok(_)) => "the server takes no more input".to_owned(),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    self.why_it_closed().await
                }
                Ok(Err(error)) => format!("could not write to the server: {error}"),
                Err(_elapsed) => "the server does not read its input".to_owned(),
            };
            self.fail(&why);
            return Err(if unfinished.sent == 0 {
                SendFailure::NotSent(why)
            } else {
                SendFailure::Lost(why)
            });
        }
        // Our pipes do not buffer; in-memory ones of tests may.
        if let Err(error) = pipe.flush().await {
            let why = format!("could not write to the server: {error}");
            self.fail(&why);
            return Err(SendFailure::Lost(why));
        }
        drop(place);
        Ok(())
    }

    /// Queues an answer to a request of the server; one that makes so many that they cannot be queued is given up.
    pub(super) fn reply(&self, id: &rpc::Id, answer: &Answer) {
        if self.replies.try_send(rpc::answer(id, answer)).is_err() {
            self.fail("the server asks faster than it reads answers");
        }
    }

    /// Queues a notification to the server, such as that a request is cancelled.
    pub(super) fn notify(&self, method: &str, params: Option<&[u8]>) {
        if self.replies.try_send(rpc::notification(method, params)).is_err() {
            self.fail("the server does not read its input");
        }
    }

    /// Why a server closed its input: whoever reads its output knows more, such as that it did not even start.
    async fn why_it_closed(&self) -> String {
        let told = async {
            while self.ended().is_none() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _untold = timeout(self.bounds.grace, told).await;
        self.ended().unwrap_or(CLOSED).to_owned()
    }

    /// Ends a connection that cannot go on.
    pub(super) fn fail(&self, why: &str) {
        self.end(Oddity::ConnectionLost, why);
    }

    /// Ends a connection that is not needed any more.
    pub(super) fn close(&self, why: &str) {
        self.end(Oddity::ConnectionClosed, why);
    }

    /// Ends the connection: whoever waits is told why.
    fn end(&self, what: Oddity, why: &str) {
        if self.ended.set((what, why.to_owned())).is_err() {
            return;
        }
        for (_, waiter) in std::mem::take(&mut *self.waiting()) {
            drop(waiter.events.send(Event::Lost(why.to_owned())));
        }
        self.stop.notify_one();
        self.told.odd(what, why);
        self.told.announce(UpstreamEventKind::Gone);
    }

    /// Resolves when the connection has ended and its process is gone.
    pub(super) async fn closed(&self) {
        drop(self.gone.subscribe().wait_for(|gone| *gone).await);
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self: Arc<Self>, mut reader: impl AsyncBufRead + Send + Unpin, mut child: Option<Child>) {
        let mut why = tokio::select! {
            why = self.read_all(&mut reader) => why,
            () = self.stop.notified() => String::new(),
        };
        if let (Some(child), CLOSED) = (&mut child, why.as_str()) {
            // One that did not even start says more.
            let started = timeout(self.bounds.grace, child.not_started()).await;
            why = started.ok().flatten().unwrap_or(why);
        }
        self.fail(&why);
        // Closing its input is how a server is told to go. Somebody may be stuck writing to it; then it is killed.
        if let Ok(mut writer) = timeout(self.bounds.grace, self.writer.lock()).await {
            drop(writer.take());
        }
        drop(reader);
        if let Some(child) = child {
            let stderr = child.stderr().clone();
            child.end(self.bounds.grace).await;
            let _late = timeout(self.bounds.grace, stderr.ended()).await;
            let text = stderr.text();
            if let Some(line) = text.lines().rfind(|line| !line.trim().is_empty()) {
                self.told.observer.odd(
                    &self.told.server,
                    self.ended.get().map_or(Oddity::ConnectionLost, |(what, _)| *what),
                    &format!("its standard error ends: {line}"),
                );
            }
        }
        self.gone.send_replace(true);
    }

    /// Reads until the connection cannot go on, and says why.
    async fn read_all(&self, reader: &mut (impl AsyncBufRead + Send + Unpin)) -> String {
        let limits = Limits { max_bytes: self.bounds.max_message_bytes, ..Limits::default() };
        loop {
            let line = match read_line(reader, self.bounds.max_message_bytes).await {
                Ok(line) => line,
                Err(Unreadable::Ended) => return CLOSED.to_owned(),
                Err(Unreadable::Io(error)) => return format!("could not read from the server: {error}"),
                Err(Unreadable::TooLong) => {
                    let why = format!(
                        "the server wrote a line of more than {} bytes",
                        self.bounds.max_message_bytes
                    );
                    self.told.odd(Oddity::Malformed, &why);
                    return why;
                }
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            match Message::parse(Bytes::from(line), &limits) {
                Ok(message) => self.take(message),
                Err(error) => {
                    let why = format!("the server wrote a line that is no message: {error}");
                    self.told.odd(Oddity::Malformed, &why);
                    return why;
                }
            }
            if self.strays.load(Ordering::Relaxed) > MAX_STRAYS {
                return "the server keeps answering what was not asked".to_owned();
            }
        }
    }

    fn take(&self, message: Message) {
        match message {
            Message::Notification(notice) => self.take_notice(notice),
            Message::Request(request) => self.take_request(request),
            Message::Response(response) => {
                let number = response.id.as_ref().and_then(rpc::Id::as_u64);
                let waiter = number.and_then(|number| self.waiting().remove(&number));
                match waiter {
                    Some(waiter) => drop(waiter.events.send(Event::Answer(response.answer))),
                    None => {
                        self.strays.fetch_add(1, Ordering::Relaxed);
                        self.told.odd(Oddity::StrayAnswer, "an answer that nobody waits for");
                    }
                }
            }
        }
    }

    fn take_notice(&self, notice: Notification) {
        let Some(notice) = self.told.sort(notice) else { return };
        let token = notice.params.as_ref().and_then(|p| p.root().get("progressToken")?.as_i64());
        let waiting = self.waiting();
        let waiter = match notice.method.as_str() {
            // Our progress tokens are the numbers of our requests.
            "notifications/progress" => {
                token.and_then(|t| u64::try_from(t).ok()).and_then(|t| waiting.get(&t))
            }
            ACKNOWLEDGED => subscription(&notice).and_then(|number| waiting.get(&number)),
            // Log messages carry no number: the youngest call is the best guess, and all calls are one session's.
            _ => waiting.values().rev().find(|w| w.call),
        };
        let room = waiter.filter(|w| w.queued.fetch_add(1, Ordering::Relaxed) < MAX_QUEUED);
        match room {
            Some(waiter) => drop(waiter.events.send(Event::Notice(notice))),
            None => {
                if let Some(full) = waiter {
                    full.queued.fetch_sub(1, Ordering::Relaxed);
                }
                drop(waiting);
                self.told
                    .odd(Oddity::DroppedNotice, "a notification that nobody waits for, or too many of them");
            }
        }
    }

    /// Pipes carry no hint which call a server's request belongs to; all calls here are of one session, and the youngest
    /// is asked.
    fn take_request(&self, request: rpc::Request) {
        if let Some(answer) = refusal_of(&request) {
            if request.method != "ping" {
                self.told.odd(Oddity::RefusedRequest, "a request that the server may not make");
            }
            return self.reply(&request.id, &answer);
        }
        let waiting = self.waiting();
        let youngest = waiting.values().rev().find(|w| w.call);
        if let Some(waiter) = youngest.filter(|w| w.queued.load(Ordering::Relaxed) < MAX_QUEUED) {
            waiter.queued.fetch_add(1, Ordering::Relaxed);
            return drop(waiter.events.send(Event::Ask(request)));
        }
        drop(waiting);
        self.told.odd(Oddity::RefusedRequest, "a request while no call is under way");
        self.reply(&request.id, &super::link::outside_a_call());
    }
}

impl StdioPending {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What happens next. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Event {
        let event =
            self.events.recv().await.unwrap_or_else(|| Event::Lost("the connection has ended".to_owned()));
        if matches!(event, Event::Ask(_) | Event::Notice(_)) {
            self.queued.fetch_sub(1, Ordering::Relaxed);
        }
        event
    }
}

impl Drop for StdioPending {
    fn drop(&mut self) {
        self.link.waiting().remove(&self.number);
    }
}

/// A place in the queue to the pipe: there are only so many.
struct QueuePlace<'a>(&'a AtomicUsize);

impl<'a> QueuePlace<'a> {
    fn take(link: &'a StdioLink) -> Result<Self, SendFailure> {
        let place = Self(&link.queued_writes);
        if link.queued_writes.fetch_add(1, Ordering::Relaxed) >= link.bounds.max_under_way {
            return Err(SendFailure::NotSent("too many requests wait to be written".to_owned()));
        }
        Ok(place)
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A line of which a part is written. If whoever writes it goes away in the middle, nothing can be sent after it.
struct Unfinished<'a> {
    link: &'a StdioLink,
    sent: usize,
    all: usize,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.sent > 0 && self.sent < self.all {
            self.link.fail("a message was broken off in the middle");
        }
    }
}

/// Which of our requests a message of a subscription belongs to.
fn subscription(notice: &Notification) -> Option<u64> {
    let meta = notice.params.as_ref()?.root().get("_meta")?;
    u64::try_from(meta.get("io.modelcontextprotocol/subscriptionId")?.as_i64()?).ok()
}

async fn write_replies(link: std::sync::Weak<StdioLink>, mut inbox: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = inbox.recv().await {
        let Some(link) = link.upgrade() else { return };
        if link.write(line).await.is_err() {
            return;
        }
    }
}

enum Unreadable {
    Ended,
    Io(std::io::Error),
    TooLong,
}

/// Reads up to the next line feed. What follows the last one is no line.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), limit: usize) -> Result<Vec<u8>, Unreadable> {
    let mut line = Vec::new();
    loop {
        let bytes = reader.fill_buf().await.map_err(Unreadable::Io)?;
        if bytes.is_empty() {
            return Err(Unreadable::Ended);
        }
        let end = bytes.iter().position(|b| *b == b'\n');
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if line.len().saturating_add(part.len()) > limit {
            return Err(Unreadable::TooLong);
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(line);
        }
    }
}

/// Ends the process when nobody holds the connection any more.
pub(super) struct StdioHolder(pub(super) Arc<StdioLink>);

impl Drop for StdioHolder {
    fn drop(&mut self) {
        self.0.close("the session has ended");
    }
}
