//! One agent's end of the line: where messages to it go while one of its requests is under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use toolgate_broker::outcome::Answer;
use toolgate_broker::port::{Agentward, BoxFuture, Client};
use toolgate_core::json::{Document, Edit, Limits, ObjectWriter};

use crate::rpc::{self, Id};

/// How many messages may wait for one agent; further notifications are dropped.
pub const MAX_QUEUED: usize = 256;

/// How many questions of servers one agent may have open.
const MAX_ASKS: usize = 64;

/// Tells that an agent has cancelled a request or hung up. Once told, it stays so.
#[derive(Debug, Default)]
pub struct Gone {
    told: AtomicBool,
    wake: Notify,
}

impl Gone {
    /// Tells it.
    pub fn tell(&self) {
        self.told.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    /// Whether it was told.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// Resolves when it was told.
    pub async fn wait(&self) {
        let woken = self.wake.notified();
        tokio::pin!(woken);
        // Registered before the flag is read, so that nothing told in between is missed.
        woken.as_mut().enable();
        if !self.is_told() {
            woken.await;
        }
    }
}

/// The severities of log messages, the least severe first.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// The least severe log message an agent wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

impl Level {
    /// The level of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        LEVELS.iter().position(|level| *level == name).and_then(|at| u8::try_from(at).ok()).map(Self)
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        LEVELS.get(usize::from(self.0)).copied().unwrap_or("emergency")
    }
}

/// What was asked of an agent and is not answered yet. One for each session, so that ids are not used twice in it.
#[derive(Debug, Default)]
pub struct Asks {
    next: AtomicU64,
    /// Who waits for the answer to which id. Guards nothing else.
    open: Mutex<HashMap<Id, oneshot::Sender<Answer>>>,
}

impl Asks {
    /// Hands in what the agent answered. An answer nobody waits for is dropped: it is late, or made up.
    pub fn answered(&self, id: &Id, answer: Answer) -> bool {
        let waiting = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    fn begin(&self) -> Option<(Open<'_>, oneshot::Receiver<Answer>)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_ASKS {
            return None;
        }
        let id = Id::from(format!("toolgate-{}", self.next.fetch_add(1, Ordering::Relaxed)).as_str());
        let (tell, told) = oneshot::channel();
        open.insert(id.clone(), tell);
        Some((Open { asks: self, id }, told))
    }
}

/// A question that is open; nobody waits for its answer any more when this is dropped.
struct Open<'a> {
    asks: &'a Asks,
    id: Id,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.asks.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// How an agent's requests can be asked back.
#[derive(Debug, Clone)]
pub enum Back {
    /// By requests on the stream, answered by responses (2025-11-25 and before).
    Requests(Arc<Asks>),
    /// Not at all: it answers questions by repeating its request (2026-07-28), which is the executor's affair.
    Retries,
}

/// One agent's end of the line while one of its requests is under way.
#[derive(Debug)]
pub struct Line {
    client: Client,
    /// The `progressToken` of the request, as JSON.
    progress: Option<String>,
    /// The least severe log message it wants, if it said.
    log: Option<Level>,
    back: Back,
    out: mpsc::Sender<Bytes>,
    gone: Arc<Gone>,
    /// The greatest progress that was reported on our own behalf, in millionths; 0 if none was.
    ours: AtomicU64,
}

impl Line {
    /// Puts the parts together. `params` are those of the request; messages go to `out`.
    #[must_use]
    pub fn new(
        client: Client,
        params: Option<&Document>,
        log: Option<Level>,
        back: Back,
        out: mpsc::Sender<Bytes>,
        gone: Arc<Gone>,
    ) -> Self {
        let progress = params
            .and_then(|params| params.root().path(&["_meta", "progressToken"]))
            .filter(|token| Id::read(*token).is_some())
            .map(|token| token.raw_str().to_owned());
        Self { client, progress, log, back, out, gone, ours: AtomicU64::new(0) }
    }

    /// What tells that the agent is gone.
    #[must_use]
    pub const fn gone_flag(&self) -> &Arc<Gone> {
        &self.gone
    }

    /// Sends a message, waiting for room; false when the agent is gone.
    pub async fn post(&self, message: Vec<u8>) -> bool {
        tokio::select! {
            sent = self.out.send(message.into()) => sent.is_ok(),
            () = self.gone.wait() => false,
        }
    }

    fn send(&self, message: Vec<u8>) {
        // A full queue means that the agent does not read; what is lost is a courtesy.
        let _dropped = self.out.try_send(message.into());
    }

    /// Whether the agent may be told that a server reports this progress: it must grow, also past what we reported.
    fn grows(&self, params: &Document) -> bool {
        let ours = self.ours.load(Ordering::Relaxed);
        if ours == 0 {
            return true;
        }
        let theirs = params.root().get("progress").and_then(|value| value.as_f64());
        // 2^53 millionths are 285 years of waiting: the conversion is exact.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let ours = ours as f64 / 1e6;
        theirs.is_some_and(|theirs| theirs > ours)
    }
}

/// A JSON-RPC error object of our own, as an answer.
#[must_use]
pub fn no_answer(code: i64, message: &str) -> Answer {
    let object = rpc::error_object(code, message, None);
    match Document::parse(object, &Limits::default()) {
        Ok(document) => Answer::Error(document),
        // INVARIANT: what `error_object` wrote is JSON; the fallback says the least there is to say.
        Err(_) => Answer::Error(toolgate_core::json::Canonical::empty_object().document().clone()),
    }
}

impl Agentward for Line {
    fn notify(&self, method: &str, params: Bytes) {
        if self.gone.is_told() {
            return;
        }
        let Ok(document) = Document::parse(params, &Limits::default()) else {
            return;
        };
        let root = document.root();
        match method {
            "notifications/progress" => {
                if let Some(token) = &self.progress
                    && self.grows(&document)
                {
                    let same = root.get("progressToken").is_some_and(|value| value.raw_str() == token);
                    let rewritten =
                        (!same).then(|| root.rewrite(&[("progressToken", Edit::Set(token.as_bytes()))]));
                    self.send(rpc::notification(method, Some(rewritten.as_deref().unwrap_or(root.raw()))));
                }
            }
            "notifications/message" => {
                let level = root.get("level").and_then(|value| value.as_str()).and_then(Level::parse);
                // Who was not told a level decides by itself in the legacy era, and is silent in the modern one.
                let unasked = matches!(self.back, Back::Requests(_));
                if let Some(level) = level
                    && self.log.map_or(unasked, |wanted| level >= wanted)
                {
                    self.send(rpc::notification(method, Some(root.raw())));
                }
            }
            // Everything else concerns a session and not one call, and has its own way.
            _ => {}
        }
    }

    fn ask(&self, method: &str, params: Bytes) -> BoxFuture<'_, Answer> {
        let method = method.to_owned();
        Box::pin(async move {
            let Back::Requests(asks) = &self.back else {
                return no_answer(
                    rpc::METHOD_NOT_FOUND,
                    "the client cannot be asked while a request is under way",
                );
            };
            let Some((open, answer)) = asks.begin() else {
                return no_answer(rpc::INTERNAL_ERROR, "the client has too many open questions");
            };
            let request = rpc::request(&open.id, &method, Some(&params));
            let answered = async {
                self.out.send(request.into()).await.ok()?;
                tokio::select! {
                    answer = answer => answer.ok(),
                    () = self.out.closed() => None,
                }
            };
            let answer = tokio::select! {
                answer = answered => answer,
                () = self.gone.wait() => None,
            };
            answer
                .unwrap_or_else(|| no_answer(rpc::INTERNAL_ERROR, "the client went away and did not answer"))
        })
    }

    fn waiting(&self, question: &str, waited_s: u64) {
        let Some(token) = &self.progress else {
            // An empty message opens the stream, or keeps it alive.
            return self.send(Vec::new());
        };
        // Progress has to grow. Ours grows by millionths, so that it does not get in the way of the server's.
        let ours = self
            .ours
            .fetch_max(waited_s.saturating_add(1), Ordering::Relaxed)
            .max(waited_s.saturating_add(1));
        let progress = format!("0.{:06}", ours.min(999_999));
        let message = format!("Waiting for a person to answer question {question} ({waited_s} s so far)");
        let params = ObjectWriter::new()
            .raw("progressToken", token.as_bytes())
            .raw("progress", progress.as_bytes())
            .string("message", &message)
            .finish();
        self.send(rpc::notification("notifications/progress", Some(&params)));
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.gone.wait())
    }

    fn client(&self) -> &Client {
        &self.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(params: &str, log: Option<Level>, back: Back) -> (Line, mpsc::Receiver<Bytes>) {
        let (out, queue) = mpsc::channel(MAX_QUEUED);
        let params = Document::parse(params.as_bytes(), &Limits::default()).unwrap();
        (Line::new(Client::default(), Some(&params), log, back, out, Arc::default()), queue)
    }

    fn sent(queue: &mut mpsc::Receiver<Bytes>) -> Vec<String> {
        std::iter::from_fn(|| queue.try_recv().ok()).map(|b| String::from_utf8(b.to_vec()).unwrap()).collect()
    }

    #[test]
    fn progress_is_only_for_who_asked_and_only_grows() {
        let (silent, mut queue) = line("{}", None, Back::Retries);
        silent.notify("notifications/progress", Bytes::from_static(br#"{"progressToken":9,"progress":1}"#));
        assert_eq!(sent(&mut queue), Vec::<String>::new());
        // Waiting for a person opens the stream without a word.
        silent.waiting("q-1", 1);
        assert_eq!(sent(&mut queue), [""]);

        let (line, mut queue) = line(r#"{"_meta":{"progressToken":"t"}}"#, None, Back::Retries);
        line.waiting("q-1", 0);
        line.waiting("q-1", 15);
        line.notify("notifications/progress", Bytes::from_static(br#"{"progressToken":9,"progress":0}"#));
        line.notify(
            "notifications/progress",
            Bytes::from_static(br#"{"progressToken":9,"x":1,"progress":0.5}"#),
        );
        assert_eq!(
            sent(&mut queue),
            [
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":0.000001,"message":"Waiting for a person to answer question q-1 (0 s so far)"}}"#,
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":0.000016,"message":"Waiting for a person to answer question q-1 (15 s so far)"}}"#,
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","x":1,"progress":0.5}}"#,
            ]
        );
    }

    #[test]
    fn log_messages_are_only_for_who_asked() {
        let message = Bytes::from_static(br#"{"level":"info","data":1}"#);
        for (log, want) in
            [(None, 0), (Level::parse("warning"), 0), (Level::parse("info"), 1), (Level::parse("debug"), 1)]
        {
            let (line, mut queue) = line("{}", log, Back::Retries);
            line.notify("notifications/message", message.clone());
            line.notify("notifications/message", Bytes::from_static(br#"{"level":"loud","data":1}"#));
            line.notify("notifications/tools/list_changed", Bytes::from_static(b"{}"));
            assert_eq!(sent(&mut queue).len(), want, "level: {log:?}");
        }
        for (log, want) in [(None, 1), (Level::parse("warning"), 0), (Level::parse("info"), 1)] {
            let (line, mut queue) = line("{}", log, Back::Requests(Arc::default()));
            line.notify("notifications/message", message.clone());
            line.notify("notifications/message", Bytes::from_static(br#"{"level":"loud","data":1}"#));
            assert_eq!(sent(&mut queue).len(), want, "legacy, level: {log:?}");
        }
    }

    #[tokio::test]
    async fn a_question_is_answered_once_or_not_at_all() {
        let asks = Arc::new(Asks::default());
        let (line, mut queue) = line("{}", None, Back::Requests(Arc::clone(&asks)));
        let ask = line.ask("roots/list", Bytes::from_static(b"{}"));
        let agent = async {
            let request = String::from_utf8(queue.recv().await.unwrap().to_vec()).unwrap();
            assert_eq!(request, r#"{"jsonrpc":"2.0","id":"toolgate-0","method":"roots/list","params":{}}"#);
            let answer = no_answer(7, "seven");
            assert!(!asks.answered(&Id::from("toolgate-1"), answer.clone()), "nobody asked that");
            assert!(asks.answered(&Id::from("toolgate-0"), answer.clone()));
            assert!(!asks.answered(&Id::from("toolgate-0"), answer), "answered already");
        };
        let (answer, ()) = tokio::join!(ask, agent);
        assert_eq!(answer.document().root().get("code").unwrap().as_i64(), Some(7));

        line.gone.tell();
        let answer = line.ask("roots/list", Bytes::from_static(b"{}")).await;
        assert!(answer.document().root().get("message").unwrap().as_str().unwrap().contains("went away"));
        assert!(asks.open.lock().unwrap().is_empty(), "nothing is left behind");
    }

    #[tokio::test]
    async fn who_cannot_be_asked_is_not() {
        let (line, mut queue) = line("{}", None, Back::Retries);
        let answer = line.ask("roots/list", Bytes::from_static(b"{}")).await;
        assert!(matches!(answer, Answer::Error(_)));
        assert_eq!(sent(&mut queue), Vec::<String>::new());
    }
}
