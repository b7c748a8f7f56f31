//! MCP over a pair of pipes: one message a line, both eras on the same pipes, one agent.
//!
//! The agent is known before anything is read: whoever started us with these pipes is at their other end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use toolgate_broker::outcome::Delivery;
use toolgate_core::call::Agent;
use toolgate_core::json::Limits;

use crate::line::{Gone, MAX_QUEUED};
use crate::router::{self, Caller, Fault, Router};
use crate::rpc::{self, FrameError, Message, Request};
use crate::session::{BeginError, Session, random_hex};

/// How many requests may be under way on one pair of pipes.
const MAX_REQUESTS: usize = 256;

/// How long requests may take to end after the last line was read.
const GRACE: Duration = Duration::from_secs(5);

/// Why a pair of pipes is not served any more, other than that the agent closed it.
#[derive(Debug, thiserror::Error)]
pub enum ServeStdioError {
    /// The session could not begin.
    #[error("the session could not begin")]
    Begin(#[from] BeginError),
    /// The pipes broke.
    #[error("the pipes to the agent broke")]
    Pipe(#[from] io::Error),
}

/// One line, or why there is none.
enum Line {
    End,
    TooLong,
    Whole(Vec<u8>),
}

/// A message on its way to the agent, and the call whose answer it is.
struct Outgoing {
    message: Bytes,
    call: Option<Delivery>,
}

/// Serves one agent until it closes its end, or the router is shut down. No line may have more bytes than `max_line`.
///
/// # Errors
/// The pipes broke, or there is no randomness for the session's name.
pub async fn serve<R: AsyncRead + Unpin, W: AsyncWrite + Unpin + Send + 'static>(
    router: Arc<Router>,
    agent: Arc<Agent>,
    input: R,
    output: W,
    max_line: usize,
) -> Result<(), ServeStdioError> {
    let name = format!("p-{}", random_hex::<8>()?);
    let session = Arc::new(Session::new(name, agent, router.now_ms()));
    let (answers, answered) = mpsc::channel(MAX_QUEUED);
    let (out, messages) = mpsc::channel(MAX_QUEUED);
    let broker = Arc::clone(&router);
    let writer = tokio::spawn(async move { write(broker, output, answered, messages).await });
    let pipes = Pipes { router: Arc::clone(&router), session: Arc::clone(&session), answers, out, max_line };
    let read = pipes.read(input).await;
    session.end();
    router.end_session(&session.name);
    drop(pipes);
    let written = tokio::time::timeout(GRACE, writer).await;
    read?;
    match written {
        Ok(Ok(result)) => Ok(result?),
        // It was too slow, or ended with the runtime: what was not written is not delivered.
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

struct Pipes {
    router: Arc<Router>,
    session: Arc<Session>,
    answers: mpsc::Sender<Outgoing>,
    out: mpsc::Sender<Bytes>,
    max_line: usize,
}

impl Pipes {
    async fn read<R: AsyncRead + Unpin>(&self, input: R) -> io::Result<()> {
        let mut input = BufReader::with_capacity(64 << 10, input);
        let mut requests = JoinSet::new();
        let limits = Limits { max_bytes: self.max_line, ..Limits::default() };
        loop {
            let line = tokio::select! {
                line = line(&mut input, self.max_line) => line?,
                () = self.router.stopped() => Line::End,
                () = self.answers.closed() => Line::End,
            };
            let message = match line {
                Line::End => break,
                Line::TooLong => {
                    self.say(rpc::error(None, rpc::INVALID_REQUEST, "the line is too long", None)).await;
                    continue;
                }
                Line::Whole(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => continue,
                Line::Whole(bytes) => Message::parse(bytes.into(), &limits),
            };
            while requests.try_join_next().is_some() {}
            match message {
                Err(error) => self.say(FrameError::to_response(&error)).await,
                Ok(Message::Notification(notification)) => super::notified(&self.session, &notification),
                Ok(Message::Response(response)) => {
                    if let Some(id) = response.id {
                        // Whether somebody waits for it is not the sender's affair.
                        let _waited_for = self.session.asks.answered(&id, response.answer);
                    }
                }
                Ok(Message::Request(request)) => self.request(request, &mut requests).await,
            }
        }
        // What is under way is told that nobody waits, and gets a moment to end in order.
        self.session.end();
        let ended = async { while requests.join_next().await.is_some() {} };
        let _too_slow = tokio::time::timeout(GRACE, ended).await;
        Ok(())
    }

    async fn request(&self, request: Request, requests: &mut JoinSet<()>) {
        let caller = match self.caller(&request) {
            Ok(Some(caller)) => caller,
            Ok(None) => return self.initialize(&request, requests).await,
            Err(fault) => return self.say(fault.to_answer(&request.id).message).await,
        };
        let refuse = |code, why| self.say(rpc::error(Some(&request.id), code, why, None));
        if requests.len() >= MAX_REQUESTS {
            return refuse(router::REFUSED, "too many requests are under way").await;
        }
        let Some(entered) = self.router.enter(&caller.agent).await else {
            return refuse(
                router::REFUSED,
                "too many requests of this agent are under way, or were refused; wait a little",
            )
            .await;
        };
        let gone = Arc::new(Gone::default());
        let Some(running) = self.session.begin(&request.id, Arc::clone(&gone)) else {
            return refuse(rpc::INVALID_REQUEST, "another request with this id is under way").await;
        };
        let line = Arc::new(caller.line(request.params.as_ref(), self.out.clone(), Arc::clone(&gone)));
        let (router, answers) = (Arc::clone(&self.router), self.answers.clone());
        requests.spawn(async move {
            let answered = router.answer(&caller, &request, line).await;
            drop((running, entered));
            // Nothing more is said about what was cancelled.
            if !gone.is_told() {
                let outgoing = Outgoing { message: answered.message.into(), call: answered.call };
                let _agent_is_gone = answers.send(outgoing).await;
            }
        });
    }

    /// Who sends a request; `None` for `initialize`.
    fn caller(&self, request: &Request) -> Result<Option<Caller>, Fault> {
        let params = request.params.as_ref();
        let only_modern = matches!(request.method.as_str(), "server/discover" | "subscriptions/listen");
        if only_modern || router::claimed_version(params).is_some() {
            let router::Meta { version, client, log } = router::meta(params)?;
            let (agent, session) = (Arc::clone(&self.session.agent), Arc::clone(&self.session));
            return Ok(Some(Caller { agent, session, version, client, log }));
        }
        if request.method == "initialize" {
            return Ok(None);
        }
        match super::legacy(Arc::clone(&self.session.agent), Arc::clone(&self.session)) {
            Some(caller) => Ok(Some(caller)),
            // Says what is missing in either era.
            None => {
                Err(router::meta(params).err().unwrap_or_else(|| Fault::params("send `initialize` first")))
            }
        }
    }

    async fn initialize(&self, request: &Request, requests: &mut JoinSet<()>) {
        let (agreed, result) = match self.router.initialize(&self.session.agent, request.params.as_ref()) {
            Ok(initialized) => initialized,
            Err(fault) => return self.say(fault.to_answer(&request.id).message).await,
        };
        if self.session.agreed().is_some() {
            let again =
                rpc::error(Some(&request.id), rpc::INVALID_REQUEST, "this session has begun already", None);
            return self.say(again).await;
        }
        self.session.agree(agreed);
        self.say(rpc::result(&request.id, &result)).await;
        let Some(caller) = super::legacy(Arc::clone(&self.session.agent), Arc::clone(&self.session)) else {
            return;
        };
        let line = caller.line(None, self.out.clone(), Arc::default());
        let router = Arc::clone(&self.router);
        requests.spawn(async move { router.announce(&caller, &line).await });
    }

    async fn say(&self, message: Vec<u8>) {
        let _agent_is_gone = self.answers.send(Outgoing { message: message.into(), call: None }).await;
    }
}

/// Reads one line. What is longer than it may be is skipped to its end, and takes no memory.
async fn line<R: AsyncBufRead + Unpin>(input: &mut R, max: usize) -> io::Result<Line> {
    let mut bytes = Vec::new();
    let mut too_long = false;
    loop {
        let chunk = input.fill_buf().await?;
        if chunk.is_empty() {
            // A line without an end did not arrive whole.
            return Ok(Line::End);
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        too_long |= bytes.len() + part.len() > max;
        if !too_long {
            bytes.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(if too_long { Line::TooLong } else { Line::Whole(bytes) });
        }
    }
}

/// Writes messages, one a line, until nobody can send any.
async fn write<W: AsyncWrite + Unpin>(
    router: Arc<Router>,
    mut output: W,
    mut answers: mpsc::Receiver<Outgoing>,
    mut messages: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    loop {
        // Messages that belong to a request go before its answer, so they are looked at first.
        let outgoing = tokio::select! {
            biased;
            Some(message) = messages.recv() => Outgoing { message, call: None },
            Some(answer) = answers.recv() => answer,
            else => return output.shutdown().await,
        };
        if outgoing.message.is_empty() {
            // What keeps a stream of HTTP alive; a pipe needs nothing of the kind.
            continue;
        }
        // A line break between the parts of JSON means nothing; here it would end the message.
        let mut line: Vec<u8> = outgoing
            .message
            .iter()
            .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })
            .collect();
        line.push(b'\n');
        output.write_all(&line).await?;
        output.flush().await?;
        if let Some(call) = outgoing.call {
            router.broker().delivered(call.call);
        }
    }
}
