//! What both transports have in common: sending a request, and what may happen until it is answered.

use std::sync::Arc;

use toolgate_broker::outcome::Answer;
use toolgate_core::json::{Document, Limits};

use super::http::{HttpLink, HttpPending};
use super::stdio::{StdioHolder, StdioPending};
use crate::rpc;

/// What happens to a request that was sent.
#[derive(Debug)]
pub(super) enum Event {
    /// It was answered. Nothing comes after it.
    Answer(Answer),
    /// The server asks the agent something in the course of it.
    Ask(rpc::Request),
    /// The connection broke, or what came cannot be used. Nothing comes after it.
    Lost(String),
    /// It turned out that it was not sent. Nothing comes after it.
    NotSent(String),
    /// Something that is told along the way.
    Notice(rpc::Notification),
    /// The server answered with an HTTP status that is no success. Nothing comes after it.
    Status {
        /// The status.
        code: u16,
        /// The JSON-RPC error in the body, if there was one.
        error: Option<Document>,
    },
}

/// Why a request could not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendFailure {
    /// A part of it was, so the server may have acted on it.
    Lost(String),
    /// It is certain that nothing of it was.
    NotSent(String),
}

impl SendFailure {
    /// What went wrong.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Lost(why) | Self::NotSent(why) => why,
        }
    }
}

impl From<SendFailure> for Event {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::Lost(why) => Self::Lost(why),
            SendFailure::NotSent(why) => Self::NotSent(why),
        }
    }
}

/// A request to send.
pub(super) struct Outgoing<'a> {
    /// Its number: also its progress token.
    pub(super) number: u64,
    pub(super) method: &'a str,
    /// A JSON object.
    pub(super) params: &'a [u8],
    /// `Mcp-Name` of the modern HTTP transport.
    pub(super) name: Option<&'a str>,
    /// `Mcp-Param-…` of the modern HTTP transport: the whole name, and the value as it is encoded.
    pub(super) mirrored: Vec<(String, String)>,
    /// Whether it is an agent's call, in the course of which the server may ask the agent something.
    pub(super) call: bool,
}

/// A way to a server.
pub(super) enum Link {
    Http(Arc<HttpLink>),
    Stdio(StdioHolder),
}

/// A request that was sent, until it is answered or dropped.
pub(super) enum Pending {
    Http(Box<HttpPending>),
    Stdio(StdioPending),
}

impl Link {
    pub(super) fn next_number(&self) -> u64 {
        match self {
            Self::Http(link) => link.next_number(),
            Self::Stdio(holder) => holder.0.next_number(),
        }
    }

    pub(super) async fn start(&self, outgoing: Outgoing<'_>) -> Result<Pending, SendFailure> {
        match self {
            Self::Http(link) => link.start(outgoing).map(|pending| Pending::Http(Box::new(pending))),
            Self::Stdio(holder) => {
                let Outgoing { number, method, params, name: _, mirrored: _, call } = outgoing;
                let line = rpc::request(&number.into(), method, Some(params));
                holder.0.start(number, line, call).await.map(Pending::Stdio)
            }
        }
    }

    /// Answers a request of the server.
    pub(super) fn reply(&self, id: &rpc::Id, answer: &Answer) {
        match self {
            Self::Http(link) => link.reply(id, answer),
            Self::Stdio(holder) => holder.0.reply(id, answer),
        }
    }

    pub(super) fn notify(&self, method: &str, params: Option<&[u8]>) {
        match self {
            Self::Http(link) => link.notify(method, params),
            Self::Stdio(holder) => holder.0.notify(method, params),
        }
    }

    /// Why the connection ended, if it did.
    pub(super) fn ended(&self) -> Option<&str> {
        match self {
            Self::Http(link) => link.ended(),
            Self::Stdio(holder) => holder.0.ended(),
        }
    }

    /// Ends a connection that is not needed any more.
    pub(super) fn close(&self, why: &str) {
        match self {
            Self::Http(link) => link.close(why),
            Self::Stdio(holder) => holder.0.close(why),
        }
    }

    /// Ends a connection that cannot go on.
    pub(super) fn fail(&self, why: &str) {
        match self {
            Self::Http(link) => link.fail(why),
            Self::Stdio(holder) => holder.0.fail(why),
        }
    }

    /// Resolves when everything that belongs to an ended connection is gone, above all its process.
    pub(super) async fn closed(&self) {
        match self {
            Self::Http(_) => {}
            Self::Stdio(holder) => holder.0.closed().await,
        }
    }

    /// How many requests are under way.
    pub(super) fn under_way(&self) -> usize {
        match self {
            Self::Http(link) => link.under_way(),
            Self::Stdio(holder) => holder.0.under_way(),
        }
    }
}

impl Pending {
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Http(pending) => pending.number(),
            Self::Stdio(pending) => pending.number(),
        }
    }

    /// What happens next. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Event {
        match self {
            Self::Http(pending) => pending.next().await,
            Self::Stdio(pending) => pending.next().await,
        }
    }
}

/// The answer to a request that the server may make never, or always; `None` if it depends on the call under way.
pub(super) fn refusal_of(request: &rpc::Request) -> Option<Answer> {
    match request.method.as_str() {
        "elicitation/create" | "roots/list" | "sampling/createMessage" => None,
        "ping" => Some(Answer::Result(object("{}"))),
        _ => Some(error_answer(rpc::METHOD_NOT_FOUND, "there is no such method here")),
    }
}

/// The answer to a request that needs a call under way, while there is none.
pub(super) fn outside_a_call() -> Answer {
    error_answer(rpc::INVALID_REQUEST, "this may be asked only while a call is under way")
}

/// An error made here.
pub(super) fn error_answer(code: i64, message: &str) -> Answer {
    Answer::Error(parsed(rpc::error_object(code, message, None)))
}

/// A document made of text of ours.
pub(super) fn object(text: &str) -> Document {
    parsed(text.as_bytes().to_vec())
}

/// A document made of bytes that this module wrote.
pub(crate) fn parsed(bytes: Vec<u8>) -> Document {
    match Document::parse(
        bytes,
        &Limits { max_bytes: Limits::LARGEST, max_depth: Limits::DEEPEST, max_nodes: usize::MAX },
    ) {
        Ok(document) => document,
        // INVARIANT: what is written here is JSON, put together of JSON that was parsed; if it were not, an empty
        // object says nothing wrong. `null` parses under every limit, so this ends.
        Err(_impossible) => parsed(b"null".to_vec()),
    }
}
