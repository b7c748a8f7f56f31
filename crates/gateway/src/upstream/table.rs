//! The servers, and which connections there are to them: one for each server and session, opened when first needed, opened
//! again after it broke, and left alone for a while if that keeps happening; or one for each call, where the configuration says so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use tokio::process::ChildStdout;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;
use toolgate_broker::config::profiles::Per;
use toolgate_broker::connections::Whose;
use toolgate_broker::port::{Client, Clock};
use toolgate_core::call::Call;
use toolgate_core::digest::Digest;
use toolgate_core::name::ServerName;
use toolgate_sandbox::cell::Lent;
use toolgate_sandbox::{Launch, Launcher, Through};

use super::UpstreamError;
use super::asks::is_modern;
use super::client::{HttpClient, system_roots};
use super::config::{Asks, Bounds, ServerConfig, Transport};
use super::connection::{Connection, NOTHING};
use super::http::HttpLink;
use super::link::Link;
use super::observe::{Counters, Observer, UpstreamEvent};
use super::params::capabilities;
use super::parked::ParkedCalls;
use super::passed::PassedOn;
use super::peer::{First, NoPeer, Peer, agree};
use super::stdio::{StdioHolder, StdioLink};
use super::told::Told;
use crate::builtin::Tool;
use crate::port::Change;
use crate::proxy::{Credentials, Passage};

/// How many announcements may wait for a slow listener.
const MAX_EVENTS: usize = 1024;
/// How many connections there may be.
const MAX_CONNECTIONS: usize = 1024;
/// A connection that lives shorter than this has failed.
const SHORT_LIVED: Duration = Duration::from_secs(10);
/// How long a server is left alone after its first failure, doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Everything that the clones of [`super::Upstreams`] share.
pub(super) struct Inner {
    /// Guards which servers there are.
    servers: RwLock<HashMap<ServerName, Arc<Server>>>,
    /// Started with the first server that is a program.
    launcher: OnceLock<Launcher>,
    /// What servers say passes it, where there is a vault.
    credentials: RwLock<Option<Arc<Credentials>>>,
    pub(super) clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    pub(super) counters: Arc<Counters>,
    pub(super) events: broadcast::Sender<UpstreamEvent>,
    pub(super) parked: Arc<ParkedCalls>,
    pub(super) passed: PassedOn,
    /// Guards which connections there are.
    slots: Mutex<HashMap<(ServerName, String), Arc<Slot>>>,
    /// Guards the connections that are one call's each.
    calls: Mutex<Vec<Weak<Connection>>>,
    /// Guards what is known of sessions.
    sessions: Mutex<HashMap<String, Session>>,
    uses: AtomicU64,
    closed: AtomicBool,
}

struct Server {
    config: ServerConfig,
    http: Option<Arc<HttpClient>>,
    builtin: Option<Arc<Tool>>,
}

/// What is known of a session.
struct Session {
    changes: broadcast::Sender<Change>,
    log_level: Option<String>,
    /// Gone when the session is over.
    alive: watch::Sender<()>,
}

/// The place of one connection.
#[derive(Default)]
struct Slot {
    /// Guards the connection that is used now.
    connection: Mutex<Option<Arc<Connection>>>,
    /// Held by who opens it, with what went wrong before.
    opening: tokio::sync::Mutex<Backoff>,
    /// When it was last used, in uses of any slot.
    used: AtomicU64,
}

#[derive(Default)]
struct Backoff {
    failures: u32,
    until: Option<Instant>,
    why: String,
}

/// What a program answers, without what the vault holds.
fn cleaned(stdout: ChildStdout, passage: &Passage) -> std::io::Result<ChildStdout> {
    let cleaned = passage.lines(stdout.into_owned_fd()?)?;
    ChildStdout::from_std(cleaned.into())
}

impl Inner {
    pub(super) fn new(
        servers: Vec<ServerConfig>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, UpstreamError> {
        let parked = ParkedCalls::new().map_err(|error| UpstreamError::Start(error.to_string()))?;
        let inner = Self {
            servers: RwLock::default(),
            launcher: OnceLock::new(),
            credentials: RwLock::default(),
            clock,
            observer,
            counters: Arc::default(),
            events: broadcast::channel(MAX_EVENTS).0,
            parked: Arc::new(parked),
            passed: PassedOn::default(),
            slots: Mutex::default(),
            calls: Mutex::default(),
            sessions: Mutex::default(),
            uses: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        };
        inner.replace(servers, &[])?;
        Ok(inner)
    }

    /// Remembers that the agent was asked something in the course of a call. Empty `keys` stand for coming back alone.
    pub(super) fn await_answers(&self, call: &Call, about: Digest, keys: Vec<Digest>) {
        let wait = self.bounds(&call.server).parked;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.passed.put(&call.agent.id, about, keys, self.clock.now_ms(), wait_ms);
    }

    /// Takes servers that are new or are reached otherwise from now on, and lets go of others. Calls that run go on to their
    /// end, on the connection they are on.
    pub(super) fn replace(&self, new: Vec<ServerConfig>, gone: &[ServerName]) -> Result<(), UpstreamError> {
        let fail = |error: String| UpstreamError::Start(error);
        let needs_tls = |s: &ServerConfig| matches!(&s.transport, Transport::Http(http) if http.tls && http.roots.is_none());
        let roots = new.iter().any(needs_tls).then(system_roots).transpose().map_err(fail)?;
        let spawns = new.iter().any(|s| !matches!(s.transport, Transport::Http(_)));
        if spawns && self.launcher.get().is_none() {
            let launcher = Launcher::start().map_err(|error| fail(error.to_string()))?;
            // Another caller may have been faster; then its launcher is the one.
            drop(self.launcher.set(launcher));
        }
        let new = new.into_iter().map(|config| {
            let (http, builtin) = match &config.transport {
                Transport::Builtin(builtin, profile) => {
                    let (name, observer) = (config.name.clone(), Arc::clone(&self.observer));
                    let tool = |launcher: &Launcher| {
                        Tool::new(name, *builtin, (**profile).clone(), launcher.clone(), observer)
                    };
                    (None, self.launcher.get().map(tool).map(Arc::new))
                }
                Transport::Http(server) => {
                    let client = HttpClient::new(server.clone(), roots.clone(), config.bounds.handshake);
                    (Some(Arc::new(client)), None)
                }
                Transport::Stdio(_) => (None, None),
            };
            (config.name.clone(), Arc::new(Server { config, http, builtin }))
        });
        let new: HashMap<_, _> = new.collect();
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|name, _| !gone.contains(name));
        self.slots().retain(|(name, _), _| !gone.contains(name) && !new.contains_key(name));
        servers.extend(new);
        Ok(())
    }

    /// Has all servers say what they say through the credential proxy from now on: their connections are opened anew.
    pub(super) fn use_credentials(&self, credentials: Arc<Credentials>) {
        *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = Some(credentials);
        self.slots().clear();
    }

    /// What a server says in a session passes this, if there is a vault.
    pub(super) fn passage(&self, server: &ServerName, session: &str) -> Option<Passage> {
        let credentials = self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let ServerConfig { bounds, secrets, believed, .. } = &self.server(server)?.config;
        let (most, secrets) = (bounds.max_message_bytes, secrets.clone());
        let passage = Passage::new(credentials, server.clone(), session.to_owned(), most, secrets);
        Some(passage.believing(believed.clone()))
    }

    fn server(&self, name: &ServerName) -> Option<Arc<Server>> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn names(&self) -> Vec<ServerName> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = servers.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    pub(super) fn asks(&self, server: &ServerName) -> Asks {
        // An unknown server is never called; it may ask nothing.
        let none = Asks { elicitation: false, roots: false, sampling: false };
        self.server(server).map_or(none, |server| server.config.asks)
    }

    /// The server, if it is part of the gate.
    pub(super) fn builtin(&self, server: &ServerName) -> Option<Arc<Tool>> {
        self.server(server)?.builtin.clone()
    }

    /// How long connections to the server last.
    pub(super) fn per(&self, server: &ServerName) -> Per {
        self.server(server).map(|server| server.config.per).unwrap_or_default()
    }

    pub(super) fn bounds(&self, server: &ServerName) -> Bounds {
        self.server(server).map(|server| server.config.bounds.clone()).unwrap_or_default()
    }

    /// The connection of a session to a server, opened if need be: or one that is in no table, and gone when it is dropped, where each
    /// call has its own. `client` is the agent that it is for.
    pub(super) async fn open(
        &self,
        server: &ServerName,
        session: &str,
        client: &Client,
    ) -> Result<Arc<Connection>, UpstreamError> {
        let known = self.server(server).ok_or_else(|| UpstreamError::Unknown(server.to_string()))?;
        let first = if is_modern(client) { First::Modern } else { First::Legacy };
        let capabilities = capabilities(client.capabilities.as_ref(), known.config.asks, false);
        if known.config.per == Per::Call {
            return Box::pin(self.open_alone(&known, session, capabilities, first)).await;
        }
        let slot = self.slot(server, session)?;
        if let Some(connection) = slot.serving(&capabilities) {
            return Ok(connection);
        }
        let mut backoff = slot.opening.lock().await;
        if let Some(connection) = slot.serving(&capabilities) {
            return Ok(connection);
        }
        if let Some(broken) = slot.connection().take() {
            backoff.note(&broken);
        }
        backoff.check(server)?;
        // Apart, since it is seldom done and would make the future of each call several times as large.
        match Box::pin(self.connect(&known, session, capabilities, first)).await {
            Ok(connection) => {
                *slot.connection() = Some(Arc::clone(&connection));
                if self.closed.load(Ordering::Acquire) {
                    connection.link().close("the gate is closing");
                }
                // The server may have been replaced meanwhile: then this connection is of use to this caller only.
                if self.server(server).is_none_or(|now| !Arc::ptr_eq(&now, &known)) {
                    self.slots().retain(|_, other| !Arc::ptr_eq(other, &slot));
                }
                Ok(connection)
            }
            Err(why) => {
                backoff.failed(why.clone());
                Err(UpstreamError::Open { server: server.to_string(), why })
            }
        }
    }

    /// A connection for one call. It ends with the call, or before, with the session.
    async fn open_alone(
        &self,
        server: &Server,
        session: &str,
        capabilities: Vec<u8>,
        first: First,
    ) -> Result<Arc<Connection>, UpstreamError> {
        self.check_open()?;
        let connected = self.connect(server, session, capabilities, first).await;
        let connection =
            connected.map_err(|why| UpstreamError::Open { server: server.config.name.to_string(), why })?;
        let mut calls = self.calls();
        calls.retain(|call| call.strong_count() > 0);
        if calls.len() >= MAX_CONNECTIONS {
            return Err(UpstreamError::Busy);
        }
        calls.push(Arc::downgrade(&connection));
        drop(calls);
        // It may have closed meanwhile, and not found this one.
        self.check_open()?;
        Ok(connection)
    }

    /// A connection that is in no table, and gone when it is dropped.
    pub(super) async fn connect_once(
        &self,
        server: &ServerName,
        session: &str,
    ) -> Result<Arc<Connection>, UpstreamError> {
        let known = self.server(server).ok_or_else(|| UpstreamError::Unknown(server.to_string()))?;
        let connected = self.connect(&known, session, NOTHING.to_vec(), First::Modern).await;
        connected.map_err(|why| UpstreamError::Open { server: server.to_string(), why })
    }

    /// Puts a connection that a test has made in its place.
    #[cfg(test)]
    pub(super) async fn adopt(
        &self,
        link: Link,
        server: &ServerName,
        session: &str,
        told: Arc<Told>,
    ) -> Result<(), String> {
        let known = self.server(server).ok_or("no such server")?;
        let all = br#"{"elicitation":{},"roots":{},"sampling":{}}"#;
        let peer = agree(&link, &known.config.bounds, all, First::Modern)
            .await
            .map_err(|error| format!("{error:?}"))?;
        let connection = Connection::new(link, told, known.config.bounds.clone(), peer, all.to_vec());
        let slot = self.slot(server, session).map_err(|error| error.to_string())?;
        *slot.connection() = Some(connection);
        Ok(())
    }

    /// What the connections of a session have in common.
    pub(super) fn told(&self, server: &ServerName, session: &str) -> Arc<Told> {
        Arc::new(Told {
            server: server.clone(),
            session: session.to_owned(),
            observer: Arc::clone(&self.observer),
            counters: Arc::clone(&self.counters),
            events: self.events.clone(),
            changes: self.changes_if_any(session),
            stale: AtomicBool::new(false),
            renew: OnceLock::new(),
        })
    }

    /// The connection of a session to a server, if there is one.
    pub(super) fn connected(&self, server: &ServerName, session: &str) -> Option<Arc<Connection>> {
        let slot = self.slots().get(&(server.clone(), session.to_owned())).cloned()?;
        slot.serving(NOTHING)
    }

    async fn connect(
        &self,
        server: &Server,
        session: &str,
        capabilities: Vec<u8>,
        first: First,
    ) -> Result<Arc<Connection>, String> {
        let told = self.told(&server.config.name, session);
        let bounds = &server.config.bounds;
        let connecting = async {
            let (link, peer) = match &server.config.transport {
                Transport::Builtin(..) => {
                    return Err("it is part of the gate, and is not connected to".to_owned());
                }
                Transport::Http(_) => self.reach(server, &told, &capabilities, first).await?,
                Transport::Stdio(launch) => self.launch(launch, bounds, &told, &capabilities, first).await?,
            };
            let level = self.log_level(session);
            let connection = Connection::new(link, Arc::clone(&told), bounds.clone(), peer, capabilities);
            if let (Link::Http(link), false) = (connection.link(), connection.peer().modern) {
                link.listening().await;
            }
            if let Some(level) = level {
                connection.set_log_level(&level).await;
            }
            Ok(connection)
        };
        timeout(bounds.handshake, connecting)
            .await
            .unwrap_or_else(|_elapsed| Err("no agreement in time".to_owned()))
    }

    async fn reach(
        &self,
        server: &Server,
        told: &Arc<Told>,
        capabilities: &[u8],
        first: First,
    ) -> Result<(Link, Peer), String> {
        let client = server.http.as_ref().ok_or("no client")?;
        let client = match self.passage(&told.server, &told.session) {
            Some(passage) => Arc::new(client.passing(passage)),
            None => Arc::clone(client),
        };
        let link = Link::Http(HttpLink::new(client, Arc::clone(told), server.config.bounds.clone()));
        let peer = agree(&link, &server.config.bounds, capabilities, first).await.map_err(NoPeer::why)?;
        Ok((link, peer))
    }

    async fn launch(
        &self,
        launch: &Launch,
        bounds: &Bounds,
        told: &Arc<Told>,
        capabilities: &[u8],
        first: First,
    ) -> Result<(Link, Peer), String> {
        let link = self.start(launch, bounds, told).await?;
        match agree(&link, bounds, capabilities, first).await {
            Ok(peer) => return Ok((link, peer)),
            Err(NoPeer::Other(why) | NoPeer::Refused(why)) => return Err(why),
            // Some servers do not survive a question of the other era, so the new process hears that of its own first.
            Err(NoPeer::BrokeOnProbe(_)) => {}
        }
        drop(link);
        let link = self.start(launch, bounds, told).await?;
        let peer = agree(&link, bounds, capabilities, first.other()).await.map_err(NoPeer::why)?;
        Ok((link, peer))
    }

    async fn start(&self, launch: &Launch, bounds: &Bounds, told: &Arc<Told>) -> Result<Link, String> {
        let launcher = self.launcher.get().ok_or("no launcher")?;
        let passage = self.passage(&told.server, &told.session);
        let lent = match &passage {
            Some(passage) => passage.lend().await.map_err(|error| format!("no secrets: {error}"))?,
            None => Lent::default(),
        };
        if let Some(renew_ms) = lent.renew_ms {
            let left = Duration::from_millis(renew_ms.saturating_sub(self.clock.now_ms()));
            let _set_before = told.renew.set(std::time::Instant::now() + left);
        }
        let errors = passage.as_ref().map(|passage| move |errors| passage.lines(errors));
        let errors = errors.as_ref().map(|errors| errors as &Through<'_>);
        let started = launcher.spawn_handed(launch.clone(), &lent, errors).await;
        let mut child = started.map_err(|error| with_source(&error))?;
        let (stdin, mut stdout) = child.take_streams().ok_or("the process has no pipes")?;
        if let Some(passage) = passage {
            stdout = cleaned(stdout, &passage).map_err(|error| format!("no credential proxy: {error}"))?;
        }
        if let Some(network) = child.take_network() {
            let (server, session) = (told.server.clone(), told.session.clone());
            told.observer.network(Whose { server, session, call: None }, network);
        }
        let link = StdioLink::over(stdout, stdin, Some(child), Arc::clone(told), bounds.clone());
        Ok(Link::Stdio(StdioHolder(link)))
    }

    fn check_open(&self) -> Result<(), UpstreamError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(UpstreamError::Start("the gate is closing".to_owned()));
        }
        Ok(())
    }

    fn slot(&self, server: &ServerName, session: &str) -> Result<Arc<Slot>, UpstreamError> {
        self.check_open()?;
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.slots();
        let key = (server.clone(), session.to_owned());
        if let Some(slot) = slots.get(&key) {
            slot.used.store(now, Ordering::Relaxed);
            return Ok(Arc::clone(slot));
        }
        if slots.len() >= MAX_CONNECTIONS {
            let idle = slots.iter().filter(|(_, slot)| slot.is_idle());
            let oldest =
                idle.min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed)).map(|(key, _)| key.clone());
            slots.remove(&oldest.ok_or(UpstreamError::Busy)?);
        }
        let slot = Arc::<Slot>::default();
        slot.used.store(now, Ordering::Relaxed);
        slots.insert(key, Arc::clone(&slot));
        Ok(slot)
    }

    /// Where changes that concern a session are told.
    pub(super) fn changes(&self, session: &str) -> broadcast::Sender<Change> {
        self.sessions().entry(session.to_owned()).or_insert_with(Session::new).changes.clone()
    }

    fn changes_if_any(&self, session: &str) -> broadcast::Sender<Change> {
        if session == super::OPERATOR { broadcast::channel(1).0 } else { self.changes(session) }
    }

    /// The log level that a session set, if it did.
    pub(super) fn log_level(&self, session: &str) -> Option<String> {
        self.sessions().get(session)?.log_level.clone()
    }

    /// Notes a log level, and gives the connections that have to know.
    pub(super) fn set_log_level(&self, session: &str, level: &str) -> Vec<Arc<Connection>> {
        self.sessions().entry(session.to_owned()).or_insert_with(Session::new).log_level =
            Some(level.to_owned());
        self.slots_of(|of| of == session).iter().filter_map(|slot| slot.serving(NOTHING)).collect()
    }

    /// Resolves when the session is over, or the gate closes.
    pub(super) fn over(&self, session: &str) -> impl Future<Output = ()> + Send + use<> {
        let alive = match self.check_open() {
            Ok(()) => {
                let mut sessions = self.sessions();
                Some(sessions.entry(session.to_owned()).or_insert_with(Session::new).alive.subscribe())
            }
            Err(_closing) => None,
        };
        async move {
            if let Some(mut alive) = alive {
                while alive.changed().await.is_ok() {}
            }
        }
    }

    /// Closes what belongs to a session.
    pub(super) fn end_session(&self, session: &str) {
        self.sessions().remove(session);
        for call in self.calls().iter().filter_map(Weak::upgrade).filter(|call| call.session() == session) {
            call.link().close("the session has ended");
        }
        self.parked.end_session(session);
        let credentials = self.credentials.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(leases) = credentials.as_ref().and_then(|credentials| credentials.leases()) {
            leases.end_session(session);
        }
        drop(credentials);
        let slots: Vec<_> =
            self.slots().extract_if(|(_, of), _| of == session).map(|(_, slot)| slot).collect();
        slots.iter().for_each(|slot| slot.close("the session has ended"));
    }

    pub(super) async fn shutdown(&self) {
        self.closed.store(true, Ordering::Release);
        let slots: Vec<_> = self.slots().drain().map(|(_, slot)| slot).collect();
        slots.iter().for_each(|slot| slot.close("the gate is closing"));
        let calls: Vec<_> = self.calls().iter().filter_map(Weak::upgrade).collect();
        calls.iter().for_each(|call| call.link().close("the gate is closing"));
        // Then they are over, and what runs for them is killed.
        self.sessions().clear();
        let servers: Vec<_> =
            self.servers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let longest = servers.iter().map(|s| s.config.bounds.grace).max().unwrap_or_default();
        let ended = async {
            for slot in &slots {
                slot.ended().await;
            }
            for call in &calls {
                call.link().closed().await;
            }
            for tool in servers.iter().filter_map(|server| server.builtin.as_ref()) {
                tool.idle().await;
            }
        };
        // Twice: closing its input, then the signal that asks.
        drop(timeout(longest * 3, ended).await);
    }

    fn slots_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<Arc<Slot>> {
        self.slots()
            .iter()
            .filter(|((_, session), _)| wanted(session))
            .map(|(_, slot)| Arc::clone(slot))
            .collect()
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<(ServerName, String), Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Weak<Connection>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn new() -> Self {
        Self { changes: broadcast::channel(MAX_EVENTS).0, log_level: None, alive: watch::channel(()).0 }
    }
}

impl Slot {
    fn connection(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if it is open and serves an agent that can be asked this.
    fn serving(&self, capabilities: &[u8]) -> Option<Arc<Connection>> {
        self.connection().as_ref().filter(|connection| connection.serves(capabilities)).cloned()
    }

    fn is_idle(&self) -> bool {
        self.opening.try_lock().is_ok()
            && self
                .connection()
                .as_ref()
                .is_none_or(|c| c.link().ended().is_some() || c.link().under_way() == 0)
    }

    fn close(&self, why: &str) {
        if let Some(connection) = self.connection().as_ref() {
            connection.link().close(why);
        }
    }

    async fn ended(&self) {
        let connection = self.connection().clone();
        if let Some(connection) = connection {
            connection.link().closed().await;
        }
    }
}

impl Backoff {
    /// Notes how a connection fared that is now gone.
    fn note(&mut self, broken: &Connection) {
        match broken.link().ended() {
            // The first death costs nothing; a server that keeps dying is left alone for longer and longer.
            Some(why) if broken.age() < SHORT_LIVED => {
                self.failures = self.failures.saturating_add(1);
                self.why = why.to_owned();
                self.until = (self.failures > 1).then(|| Instant::now() + wait(self.failures - 1));
            }
            Some(_) | None => *self = Self::default(),
        }
    }

    fn failed(&mut self, why: String) {
        self.failures = self.failures.saturating_add(1);
        self.why = why;
        self.until = Some(Instant::now() + wait(self.failures));
    }

    fn check(&self, server: &ServerName) -> Result<(), UpstreamError> {
        let left = self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(());
        }
        let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Err(UpstreamError::BackingOff { server: server.to_string(), wait_ms, why: self.why.clone() })
    }
}

fn wait(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_WAIT)
}

pub(super) fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stop_growing() {
        for (failures, want) in [(1, 250), (2, 500), (3, 1000), (8, 30_000), (u32::MAX, 30_000)] {
            assert_eq!(wait(failures), Duration::from_millis(want), "failures: {failures}");
        }
    }
}
