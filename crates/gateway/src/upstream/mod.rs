//! The upstream leg: connections to MCP servers of both eras, over stdio and Streamable HTTP, and the
//! [`Executor`] over them.
//!
//! # Use
//! - [`Upstreams::new`] takes the configured servers; it is cheap to clone, and all clones are one. Give one clone to the
//!   broker as its executor and another to the agents' side as its [`Servers`]; a third is of use for
//!   [`Upstreams::fetch_tools`], [`Upstreams::discover`], [`Upstreams::events`] and [`Upstreams::shutdown`].
//! - Servers start when they are first needed. There is one connection for each server and session, so what one session
//!   does on a server never shows in another; or one for each call, where [`ServerConfig::per`] says so.
//! - Built-ins ([`crate::builtin`]) have no connection: each call has a cell.
//!
//! # What is sent
//! - `tools/call`: `params` of the call as they came, but `name` is the server's own, `arguments` are the canonical bytes
//!   that were judged, and `_meta` is rebuilt for the server's era.
//! - Every other action: each member of the call's `arguments` replaces the member of `params` with the same name. So
//!   `arguments` holds the judged members of `params`, in the server's own words: `{"uri":…}` for `resources/read` and
//!   `resources/subscribe`, `{"name":…,"arguments":{…}}` for `prompts/get`, `{"ref":…,"argument":…}` for
//!   `completion/complete`, everything but `_meta` for what servers ask of agents.
//! - Nothing is ever sent twice: what broke is [`Executed::Lost`], also where it is likely that nothing happened.
//!
//! # What comes back
//! The answer in the agent's era: `resultType` and cache hints are added for modern agents and taken away for legacy
//! ones; everything else is as the server wrote it, byte for byte.
//!
//! # What servers ask of agents
//! Each request is judged as a call of its own (action `Elicit`, `ListRoots` or `Sample`) through
//! `nested`, and never asked if the agent did not declare that it can be. A legacy agent is asked through
//! its line; to a modern one the request is the `input_required` result of its call, and only what was so asked can be
//! answered (module `passed`). If the *server* is legacy, the call stays open at the server meanwhile, in a bounded table, under a sealed and
//! single-use `requestState`; the retry resumes it.
//!
//! # Known limits
//! - Over pipes a legacy server's request does not say which call it belongs to: the youngest call of the session is
//!   taken.
//! - A parked call is lost when the gate restarts; the retry is then not sent.

mod asks;
mod client;
mod config;
mod connection;
pub mod fetch;
pub(crate) mod fuzzing;
mod http;
mod link;
mod observe;
mod params;
mod parked;
mod passed;
mod peer;
mod results;
mod run;
mod sse;
mod stdio;
mod table;
#[cfg(test)]
mod tests;
mod told;

use std::sync::Arc;

use tokio::sync::broadcast;
use toolgate_broker::authorized::Authorized;
use toolgate_broker::port::{
    AgentLine, BoxFuture, Client, Clock, Executed, Executor, Handle, Stop, UnsearchableError,
};
use toolgate_core::call::Call;
use toolgate_core::json::Document;
use toolgate_core::name::ServerName;

use crate::port::{Change, Offer, OfferError, Servers};
use crate::proxy::Credentials;

pub(crate) use asks::is_modern;
pub(crate) use client::{HttpClient, own_roots, system_roots};
pub(crate) use config::is_loopback;
pub use config::{Asks, Bounds, HttpServer, HttpServerError, ServerConfig, Transport};
pub(crate) use http::{are_of, is};
pub(crate) use link::{SendFailure, parsed as own_document};
pub use observe::{Counters, Observer, Oddity, Unobserved, UpstreamEvent, UpstreamEventKind};
pub use peer::Peer;
pub use sse::{Resume, SseError, SseParser};
pub use toolgate_sandbox::Launch;
use toolgate_sandbox::cell::CellError;

use table::{Inner, with_source};

/// Why a server could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// It failed a moment ago and is not tried again yet.
    #[error("server `{server}` failed and is tried again in {wait_ms} ms: {why}")]
    BackingOff {
        /// The server.
        server: String,
        /// How long it is left alone.
        wait_ms: u64,
        /// What happened.
        why: String,
    },
    /// Too many connections are open and none is idle.
    #[error("too many connections to servers are open")]
    Busy,
    /// It could not be started, reached or agreed with.
    #[error("server `{server}` could not be opened: {why}")]
    Open {
        /// The server.
        server: String,
        /// What happened.
        why: String,
    },
    /// It answered with an error.
    #[error("the server answered with error {code}: {message}")]
    Refused {
        /// The JSON-RPC code.
        code: i64,
        /// The message, hidden characters escaped.
        message: String,
    },
    /// It broke, or answered with something that cannot be used.
    #[error("server `{server}` failed: {why}")]
    Lost {
        /// The server.
        server: String,
        /// What happened.
        why: String,
    },
    /// It did not answer in time.
    #[error("server `{0}` did not answer in time")]
    TimedOut(String),
    /// The gate itself lacks what it needs.
    #[error("servers cannot be used: {0}")]
    Start(String),
    /// No server has this name.
    #[error("there is no server `{0}`")]
    Unknown(String),
}

/// All servers and the connections to them. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
}

/// The session of what the operator asks of a server. No agent's session is named so.
const OPERATOR: &str = "operator";

impl Upstreams {
    /// Takes the configured servers. Nothing is started yet.
    ///
    /// # Errors
    /// The launcher of processes cannot start, there is no randomness, or the system's certificates cannot be read
    /// though a server needs them.
    pub fn new(
        servers: Vec<ServerConfig>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, UpstreamError> {
        Ok(Self { inner: Arc::new(Inner::new(servers, clock, observer)?) })
    }

    /// The configured servers, in the order of their names.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerName> {
        self.inner.names()
    }

    /// Takes servers that are new or are reached otherwise from now on, and lets go of others. Calls that run go on to their
    /// end, on the connection they are on; nothing is started yet.
    ///
    /// # Errors
    /// As [`new`](Self::new); then nothing has changed.
    pub fn replace(&self, new: Vec<ServerConfig>, gone: &[ServerName]) -> Result<(), UpstreamError> {
        self.inner.replace(new, gone)
    }

    /// Has all servers say what they say through the credential proxy from now on.
    pub fn use_credentials(&self, credentials: Arc<Credentials>) {
        self.inner.use_credentials(credentials);
    }

    /// What happens to servers, from now on. A listener that is too slow loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<UpstreamEvent> {
        self.inner.events.subscribe()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// What the server says about itself, on a connection of its own.
    ///
    /// # Errors
    /// The server cannot be used.
    pub async fn discover(&self, server: &ServerName) -> Result<Peer, UpstreamError> {
        let connection = self.inner.connect_once(server, OPERATOR).await?;
        Ok(connection.peer().clone())
    }

    /// All definitions of tools of the server, as it wrote them, on a connection of its own.
    ///
    /// # Errors
    /// The server cannot be used, or lists too many.
    pub async fn fetch_tools(&self, server: &ServerName) -> Result<Vec<Document>, UpstreamError> {
        if let Some(tool) = self.inner.builtin(server) {
            let failed = |error: CellError| {
                let why = with_source(&error);
                UpstreamError::Open { server: server.to_string(), why }
            };
            return Ok(vec![tool.definition().await.map_err(failed)?]);
        }
        self.inner.connect_once(server, OPERATOR).await?.fetch_tools().await
    }

    /// Closes everything. Processes get their grace time to end; dropping the last clone afterwards kills what is left.
    pub async fn shutdown(&self) {
        self.inner.shutdown().await;
    }
}

impl Executor for Upstreams {
    async fn carried(&self, call: &Call, sent: &[u8]) -> Result<Vec<String>, UnsearchableError> {
        match self.inner.passage(&call.server, &call.session) {
            Some(passage) => passage.carried(sent).await.map_err(|_gone_or_too_much| UnsearchableError),
            None => Ok(Vec::new()),
        }
    }

    async fn execute(
        &self,
        call: Authorized<Call>,
        line: AgentLine,
        stop: Stop,
        nested: Arc<dyn Handle>,
    ) -> Executed {
        let asked = call.get();
        if let Some(tool) = self.inner.builtin(&asked.server) {
            let over = self.inner.over(&asked.session);
            let passage = self.inner.passage(&asked.server, &asked.session);
            return Box::pin(tool.run(call, line, stop, over, passage)).await;
        }
        run::run(&self.inner, call, line, stop, nested).await
    }
}

impl Servers for Upstreams {
    fn offered<'a>(
        &'a self,
        server: &'a ServerName,
        session: &'a str,
        client: &'a Client,
        offer: Offer,
    ) -> BoxFuture<'a, Result<Vec<Document>, OfferError>> {
        Box::pin(async move {
            if self.inner.builtin(server).is_some() {
                return Ok(Vec::new());
            }
            let (capability, method, member) = run::list_of(offer);
            let listing = async {
                let connection = self.inner.open(server, session, client).await?;
                connection.fetch_all(capability, method, member).await
            };
            listing
                .await
                .map_err(|error: UpstreamError| OfferError { server: server.clone(), why: error.to_string() })
        })
    }

    fn changes(&self, session: &str) -> broadcast::Receiver<Change> {
        self.inner.changes(session).subscribe()
    }

    fn unsubscribe(&self, server: &ServerName, session: &str, uri: &str) {
        let Some(connection) = self.inner.connected(server, session) else { return };
        let uri = uri.to_owned();
        tokio::spawn(async move { connection.unsubscribe(&uri).await });
    }

    fn log_level(&self, session: &str, level: &str) {
        for connection in self.inner.set_log_level(session, level) {
            let level = level.to_owned();
            tokio::spawn(async move { connection.set_log_level(&level).await });
        }
    }

    fn end_session(&self, session: &str) {
        self.inner.end_session(session);
    }
}
