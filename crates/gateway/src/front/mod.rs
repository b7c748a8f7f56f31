//! Where agents come in: HTTP over TCP, HTTP over a Unix socket, and pipes.

pub mod guard;
pub mod http;
pub mod stdio;

mod stream;

use std::sync::Arc;

use toolgate_core::call::Agent;

use crate::router::Caller;
use crate::rpc::{Id, Notification};
use crate::session::Session;

/// What becomes of a notification in a session.
fn notified(session: &Session, notification: &Notification) {
    if notification.method == "notifications/cancelled"
        && let Some(params) = &notification.params
        && let Some(id) = params.root().get("requestId").and_then(Id::read)
    {
        session.cancel(&id);
    }
    // The others say nothing that anybody here waits for.
}

/// Who calls, in a session that began with `initialize`; `None` if it did not. It is the agent that sent this request,
/// which may by now be in other groups than when its session began.
fn legacy(agent: Arc<Agent>, session: Arc<Session>) -> Option<Caller> {
    let agreed = session.agreed()?;
    let log = session.level();
    Some(Caller { agent, version: agreed.version, client: agreed.client, log, session })
}
