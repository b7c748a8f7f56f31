//! What the agents' side of the gateway needs besides the broker: who an agent is, and what servers offer besides tools.
//! Tests put fakes in their place.

use std::sync::Arc;

use toolgate_broker::port::{BoxFuture, Client};
use toolgate_core::call::Agent;
use toolgate_core::json::Document;
use toolgate_core::name::ServerName;

/// Why nobody is let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    /// The token was issued for this gate, but not for what is asked.
    #[error("the token lacks the scope `{scope}`")]
    InsufficientScope {
        /// The scope that is missing.
        scope: String,
    },
    /// The token is not known, expired, revoked, or for somebody else.
    #[error("the token is not accepted here")]
    Invalid,
    /// The token could not be checked now.
    #[error("the token cannot be checked now")]
    Unavailable,
}

/// Says who an agent is. Durable state such as sessions is bound to the answer; a session is never a proof itself.
pub trait Identify: Send + Sync + 'static {
    /// The agent that a bearer token belongs to. Compares in constant time; called on every request.
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<Agent>, IdentifyError>>;

    /// Who somebody on this machine is that shows nothing at all: the demo agent, where the demo is open. Nobody, unless
    /// said otherwise.
    fn anonymous(&self) -> Option<Arc<Agent>> {
        None
    }

    /// The agent that a user id at the other end of a Unix socket stands for, if an operator said so.
    fn peer(&self, uid: u32) -> Option<Arc<Agent>>;
}

/// What a server offers besides tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Offer {
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    ResourceTemplates,
}

/// Something that changed at a server, of interest to one session.
#[derive(Debug, Clone)]
pub enum Change {
    /// The prompts a server offers are others now.
    Prompts(ServerName),
    /// A resource that was subscribed to has changed. `params` is the object that the server sent.
    Resource {
        /// Whose resource.
        server: ServerName,
        /// Which one.
        uri: String,
        /// The server's `params`.
        params: Document,
    },
    /// The resources a server offers are others now.
    Resources(ServerName),
    /// The server says that its tools are others now. Which of them are offered, the pins say.
    Tools(ServerName),
}

/// Why a server's offer cannot be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("server `{server}` could not be asked: {why}")]
pub struct OfferError {
    /// The server.
    pub server: ServerName,
    /// What went wrong, for the operator.
    pub why: String,
}

/// The servers' side, as far as it is not reached through the broker.
pub trait Servers: Send + Sync + 'static {
    /// Everything of one kind that a server offers in a session: all its pages, bounded, each item as it came. Empty
    /// where the server does not have the capability. `client` is the agent it is listed for.
    fn offered<'a>(
        &'a self,
        server: &'a ServerName,
        session: &'a str,
        client: &'a Client,
        offer: Offer,
    ) -> BoxFuture<'a, Result<Vec<Document>, OfferError>>;

    /// What changes at the servers of a session from now on. Bounded: who lags loses the oldest.
    fn changes(&self, session: &str) -> tokio::sync::broadcast::Receiver<Change>;

    /// Ends the subscription to a resource. Nobody waits for it.
    fn unsubscribe(&self, server: &ServerName, session: &str, uri: &str);

    /// Says which log messages the session wants from now on (`debug` to `emergency`). Nobody waits for it.
    fn log_level(&self, session: &str, level: &str);

    /// The session is over: its connections to servers can be closed.
    fn end_session(&self, session: &str);
}
