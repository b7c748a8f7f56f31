//! One connection to one server for one session: what was agreed on, which tools it offers, what it is asked for.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use toolgate_broker::outcome::Answer;
use toolgate_core::digest::Digest;
use toolgate_core::json::{Document, ObjectWriter, quote};
use toolgate_core::tool::pin;

use super::UpstreamError;
use super::config::Bounds;
use super::http::HttpLink;
use super::link::{Event, Link, Outgoing, Pending};
use super::observe::{Oddity, UpstreamEventKind};
use super::params::own_meta;
use super::peer::{Peer, describe, last};
use super::told::{ACKNOWLEDGED, Told};

/// How many pages a list may have.
const MAX_PAGES: usize = 1000;
/// How long a list of tools is believed without a word from the server.
const TOOLS_AGE: Duration = Duration::from_secs(300);
/// How many resources a session may be subscribed to on one server.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// The capabilities of an agent that can be asked nothing.
pub(super) const NOTHING: &[u8] = b"{}";

/// The pin of each tool by its name; `None` where there can be none.
type Pins = HashMap<String, Option<Digest>>;

/// One connection to one server for one session.
pub(super) struct Connection {
    link: Link,
    told: Arc<Told>,
    bounds: Bounds,
    peer: Peer,
    /// What the server was told that can be asked of the agent.
    declared: Vec<u8>,
    opened: Instant,
    /// The tools as last read, and when.
    tools: tokio::sync::Mutex<Option<(Pins, Instant)>>,
    /// Guards the resources that are subscribed to.
    subscribed: Mutex<BTreeSet<String>>,
    /// Counted up when `subscribed` changes, for the task that listens.
    wanted: watch::Sender<u64>,
    /// The last of `wanted` that the server has acknowledged.
    acknowledged: watch::Sender<u64>,
}

impl Connection {
    pub(super) fn new(
        link: Link,
        told: Arc<Told>,
        bounds: Bounds,
        peer: Peer,
        declared: Vec<u8>,
    ) -> Arc<Self> {
        told.odd(Oddity::Opened, &format!("speaks {}", peer.version));
        let connection = Arc::new(Self {
            link,
            told,
            bounds,
            peer,
            declared,
            opened: Instant::now(),
            tools: tokio::sync::Mutex::default(),
            subscribed: Mutex::default(),
            wanted: watch::channel(0).0,
            acknowledged: watch::channel(0).0,
        });
        if connection.peer.modern {
            tokio::spawn(listen(Arc::downgrade(&connection), connection.wanted.subscribe()));
        } else if let Link::Http(http) = &connection.link {
            tokio::spawn(HttpLink::listen_legacy(Arc::downgrade(http)));
        }
        connection
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    pub(super) const fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(super) fn session(&self) -> &str {
        &self.told.session
    }

    /// How long it has been open.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Whether it can serve a call whose agent can be asked this.
    ///
    /// Legacy servers learn once what can be asked. A connection that was opened for a request of an agent that can be asked
    /// nothing is given up for one that knows more, as long as nothing is under way on it.
    pub(super) fn serves(&self, capabilities: &[u8]) -> bool {
        let knows = self.peer.modern || self.declared != NOTHING;
        let lasts = self.told.renew.get().is_none_or(|renew| std::time::Instant::now() < *renew);
        self.link.ended().is_none()
            && lasts
            && (knows || capabilities == NOTHING || self.link.under_way() > 0)
    }

    /// Tells the server that a request is not wanted any more. On modern HTTP, dropping the request says it.
    pub(super) fn cancel(&self, number: u64) {
        if self.peer.modern && matches!(self.link, Link::Http(_)) {
            return;
        }
        let params = ObjectWriter::new()
            .raw("requestId", number.to_string().as_bytes())
            .string("reason", "cancelled")
            .finish();
        self.link.notify("notifications/cancelled", Some(&params));
    }

    /// Makes sure that the server's definition of a tool is the accepted one.
    pub(super) async fn check_pin(&self, tool: &str, accepted: &Digest) -> Result<(), UpstreamError> {
        let mut tools = self.tools.lock().await;
        let fresh = tools.as_ref().is_some_and(|(_, read)| read.elapsed() < TOOLS_AGE);
        // Taken before the list is read, so that a change in between is not lost.
        if self.told.stale.swap(false, Ordering::AcqRel) || !fresh {
            *tools = None;
            *tools = Some((pins(&Box::pin(self.fetch_tools()).await?), Instant::now()));
        }
        let found = tools.as_ref().and_then(|(pins, _)| pins.get(tool));
        if found == Some(&Some(*accepted)) {
            return Ok(());
        }
        drop(tools);
        self.told.odd(Oddity::ToolChanged, tool);
        self.told.announce(UpstreamEventKind::ToolDiffers { tool: tool.to_owned() });
        Err(self.lost(format!("tool `{tool}` is not what was accepted")))
    }

    /// All definitions of tools, as the server wrote them.
    pub(super) async fn fetch_tools(&self) -> Result<Vec<Document>, UpstreamError> {
        self.fetch_all("tools", "tools/list", "tools").await
    }

    /// All items of a list. Empty where the server does not have the capability.
    pub(super) async fn fetch_all(
        &self,
        capability: &str,
        method: &str,
        member: &str,
    ) -> Result<Vec<Document>, UpstreamError> {
        let (mut items, mut size, mut cursor) = (Vec::new(), 0_usize, None::<String>);
        if !self.peer.can(capability, None) {
            return Ok(items);
        }
        for _ in 0..MAX_PAGES {
            let params =
                cursor.as_ref().map_or_else(ObjectWriter::new, |c| ObjectWriter::new().string("cursor", c));
            let page = self.ask(method, params).await?;
            size = size.saturating_add(page.root().raw().len());
            let Some(list) = page.root().get(member).filter(|list| list.is_array()) else {
                return Err(self.lost(format!("the answer to `{method}` has no list `{member}`")));
            };
            items.extend(list.elements().map(|item| item.to_document()));
            if size > self.bounds.max_tools_bytes || items.len() > self.bounds.max_tools {
                return Err(self.lost(format!("the answers to `{method}` are too many or too large")));
            }
            match page.root().get("nextCursor").filter(|next| !next.is_null()).map(|next| next.as_str()) {
                None => return Ok(items),
                Some(Some(next)) if cursor.as_deref() != Some(next) => cursor = Some(next.to_owned()),
                Some(_) => return Err(self.lost(format!("the pages of `{method}` go in a circle"))),
            }
        }
        Err(self.lost(format!("`{method}` has too many pages")))
    }

    /// Makes a request of the gate's own.
    pub(super) async fn ask(&self, method: &str, params: ObjectWriter) -> Result<Document, UpstreamError> {
        let params =
            if self.peer.modern { params.raw("_meta", &own_meta(b"{}").finish()) } else { params }.finish();
        let asking = async {
            let mut pending = self.start(method, &params).await?;
            Ok(last(&mut pending).await)
        };
        match timeout(self.bounds.handshake, asking).await {
            Ok(Ok(Event::Answer(Answer::Result(result)))) => Ok(result),
            Ok(Ok(Event::Answer(Answer::Error(error)))) => {
                let root = error.root();
                let code = root.get("code").and_then(|c| c.as_i64()).unwrap_or_default();
                let message = root.get("message").and_then(|m| m.as_str()).unwrap_or_default();
                Err(UpstreamError::Refused {
                    code,
                    message: message.chars().take(200).collect::<String>().escape_debug().to_string(),
                })
            }
            Ok(Ok(other)) => Err(self.lost(describe(&other))),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(UpstreamError::TimedOut(self.told.server.to_string())),
        }
    }

    async fn start(&self, method: &str, params: &[u8]) -> Result<Pending, UpstreamError> {
        let number = self.link.next_number();
        let outgoing = Outgoing { number, method, params, name: None, mirrored: Vec::new(), call: false };
        self.link.start(outgoing).await.map_err(|failure| self.lost(describe(&failure.into())))
    }

    pub(super) fn lost(&self, why: String) -> UpstreamError {
        UpstreamError::Lost { server: self.told.server.to_string(), why }
    }

    /// Adds a resource to what a modern server is listened to for, and waits until the server knows.
    pub(super) async fn subscribe(&self, uri: &str) -> Result<(), UpstreamError> {
        let mut acknowledged = self.acknowledged.subscribe();
        let wanted = {
            let mut subscribed = self.subscribed();
            if subscribed.len() >= MAX_SUBSCRIPTIONS && !subscribed.contains(uri) {
                return Err(UpstreamError::Busy);
            }
            subscribed.insert(uri.to_owned());
            self.wanted.send_modify(|wanted| *wanted += 1);
            *self.wanted.borrow()
        };
        let known = acknowledged.wait_for(|known| *known >= wanted);
        match timeout(self.bounds.handshake, known).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::TimedOut(self.told.server.to_string())),
        }
    }

    /// Takes a subscription back, of whichever era.
    pub(super) async fn unsubscribe(&self, uri: &str) {
        if !self.peer.modern {
            // If it fails, the notifications that still come are for a resource that nobody listens to.
            drop(self.ask("resources/unsubscribe", ObjectWriter::new().string("uri", uri)).await);
        } else if self.subscribed().remove(uri) {
            self.wanted.send_modify(|wanted| *wanted += 1);
        }
    }

    /// Tells a legacy server which log messages are wanted. Modern ones are told with each call.
    pub(super) async fn set_log_level(&self, level: &str) {
        if !self.peer.modern && self.peer.can("logging", None) {
            // A server that refuses logs as it likes.
            drop(self.ask("logging/setLevel", ObjectWriter::new().string("level", level)).await);
        }
    }

    fn subscribed(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.subscribed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is listened for; `None` if nothing.
    fn filter(&self) -> Option<Vec<u8>> {
        let mut filter = ObjectWriter::new();
        for (name, capability) in [
            ("toolsListChanged", "tools"),
            ("promptsListChanged", "prompts"),
            ("resourcesListChanged", "resources"),
        ] {
            if self.peer.can(capability, Some("listChanged")) {
                filter = filter.bool(name, true);
            }
        }
        let uris: Vec<String> = self.subscribed().iter().map(|uri| quote(uri)).collect();
        if !uris.is_empty() {
            filter = filter.raw("resourceSubscriptions", format!("[{}]", uris.join(",")).as_bytes());
        }
        let filter = filter.finish();
        (filter != b"{}").then_some(filter)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.close("the session has ended");
    }
}

fn pins(tools: &[Document]) -> Pins {
    let mut pins = HashMap::with_capacity(tools.len());
    for tool in tools {
        let Some(name) = tool.root().get("name").and_then(|name| name.as_str()) else { continue };
        let digest = tool.root().canonical().ok().map(|canonical| pin(&canonical));
        // Two tools of one name: nobody knows which one a call would reach.
        pins.entry(name.to_owned()).and_modify(|pin| *pin = None).or_insert(digest);
    }
    pins
}

/// Keeps a `subscriptions/listen` open at a modern server for as long as the connection lives. What is announced is dealt
/// with where it is read; here the request is kept alive, and made anew when something else is wanted.
async fn listen(connection: Weak<Connection>, mut wanted: watch::Receiver<u64>) {
    let mut wait = Duration::from_millis(250);
    let mut open: Option<Pending> = None;
    loop {
        let generation = *wanted.borrow_and_update();
        let Some(this) = connection.upgrade().filter(|this| this.link.ended().is_none()) else { return };
        let next = match this.filter() {
            Some(filter) => this.start_listening(&filter).await.ok(),
            None => None,
        };
        // The new one first, then the old one: nothing falls between.
        if let Some(old) = std::mem::replace(&mut open, next) {
            this.cancel(old.number());
        }
        if open.is_none() {
            this.acknowledged.send_replace(generation);
        }
        drop(this);
        let ended = match &mut open {
            None => wanted.changed().await.is_err(),
            Some(pending) => tokio::select! {
                () = attend(&connection, pending, generation) => {
                    open = None;
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(60));
                    false
                }
                changed = wanted.changed() => changed.is_err(),
            },
        };
        if ended {
            return;
        }
    }
}

/// Until the subscription ends.
async fn attend(connection: &Weak<Connection>, pending: &mut Pending, generation: u64) {
    loop {
        match pending.next().await {
            Event::Notice(notice) if notice.method == ACKNOWLEDGED => {
                if let Some(this) = connection.upgrade() {
                    this.acknowledged.send_replace(generation);
                }
            }
            Event::Ask(_) | Event::Notice(_) => {}
            Event::Answer(_) | Event::Lost(_) | Event::NotSent(_) | Event::Status { .. } => return,
        }
    }
}

impl Connection {
    async fn start_listening(&self, filter: &[u8]) -> Result<Pending, UpstreamError> {
        let params =
            ObjectWriter::new().raw("notifications", filter).raw("_meta", &own_meta(b"{}").finish()).finish();
        self.start("subscriptions/listen", &params).await
    }
}
