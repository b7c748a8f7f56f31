//! What one connection tells the rest of the gate: oddities, announcements, and that its list of tools is out of date.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::broadcast;
use toolgate_core::name::ServerName;

use super::observe::{Counters, Observer, Oddity, UpstreamEvent, UpstreamEventKind};
use crate::port::Change;
use crate::rpc::Notification;

/// The first message of a modern subscription.
pub(super) const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// What one connection tells the rest of the gate.
pub(super) struct Told {
    pub(super) server: ServerName,
    pub(super) session: String,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) counters: Arc<Counters>,
    /// What concerns everybody.
    pub(super) events: broadcast::Sender<UpstreamEvent>,
    /// What concerns the session.
    pub(super) changes: broadcast::Sender<Change>,
    /// The server said that its tools changed, since they were last read.
    pub(super) stale: AtomicBool,
    /// When its program should be started again, since what it was handed does not last.
    pub(super) renew: OnceLock<Instant>,
}

impl Told {
    pub(super) fn odd(&self, what: Oddity, detail: &str) {
        self.counters.count(what);
        self.observer.odd(&self.server, what, detail);
    }

    pub(super) fn announce(&self, kind: UpstreamEventKind) {
        let event = UpstreamEvent { server: self.server.clone(), session: self.session.clone(), kind };
        // Nobody listening is fine.
        drop(self.events.send(event));
    }

    /// Deals with what concerns the server as a whole. Gives back what belongs to a single call.
    pub(super) fn sort(&self, notice: Notification) -> Option<Notification> {
        let server = self.server.clone();
        let change = match notice.method.as_str() {
            "notifications/tools/list_changed" => {
                self.stale.store(true, Ordering::Release);
                self.announce(UpstreamEventKind::ToolsChanged);
                Change::Tools(server)
            }
            "notifications/prompts/list_changed" => Change::Prompts(server),
            "notifications/resources/list_changed" => Change::Resources(server),
            "notifications/resources/updated" => {
                let uri =
                    notice.params.as_ref().and_then(|p| p.root().get("uri")?.as_str()).map(str::to_owned);
                let Some((uri, params)) = uri.zip(notice.params) else {
                    self.odd(Oddity::DroppedNotice, "notifications/resources/updated without a uri");
                    return None;
                };
                Change::Resource { server, uri, params }
            }
            "notifications/progress" | "notifications/message" | ACKNOWLEDGED => return Some(notice),
            // An agent is asked by us, so it is we who would have to withdraw the question; the answer is dropped by
            // the server anyway.
            "notifications/cancelled" => return None,
            _ => {
                self.odd(Oddity::DroppedNotice, "a notification of an unknown kind");
                return None;
            }
        };
        drop(self.changes.send(change));
        None
    }
}
