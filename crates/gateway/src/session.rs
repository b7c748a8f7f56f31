//! Runs of agents: what has to be remembered between requests, and for how long.
//!
//! A session is never a proof of who somebody is. Each request is authenticated by itself, and a session answers only
//! to the agent that began it: to everybody else it does not exist.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;
use toolgate_broker::port::Client;
use toolgate_core::call::Agent;
use toolgate_core::name::{AgentId, ServerName};

use crate::line::{Asks, Gone, Level};
use crate::replay::Streams;
use crate::rpc::Id;
use crate::version::Version;

/// How many sessions there may be in all, unless the operator says otherwise.
pub const MAX_SESSIONS: usize = 4096;
/// How many sessions one agent may have; one more ends the one that was idle for longest.
pub const MAX_SESSIONS_PER_AGENT: usize = 64;
/// How long a session lives without a request, in milliseconds.
pub const IDLE_MS: u64 = 3_600_000;
/// How many requests of one agent may be under way at once.
pub const MAX_REQUESTS_PER_AGENT: usize = 512;
/// How many resources one session may be subscribed to.
pub const MAX_SUBSCRIPTIONS: usize = 256;

/// What a session that began with `initialize` agreed on.
#[derive(Debug, Clone)]
pub struct Agreed {
    /// The revision that is spoken.
    pub version: Version,
    /// What the client said about itself.
    pub client: Client,
}

/// One run of an agent.
#[derive(Debug)]
pub struct Session {
    /// What the log and the servers' side call it. It is not what the agent shows to be let into it.
    pub name: String,
    /// Whose it is.
    pub agent: Arc<Agent>,
    /// What was asked of the agent.
    pub asks: Arc<Asks>,
    /// What ends everything that belongs to the session.
    pub ended: Gone,
    /// What was agreed by `initialize`, if it was. Guards nothing else.
    agreed: Mutex<Option<Agreed>>,
    /// The least severe log message wanted (2025-11-25 and before). Guards nothing else.
    level: Mutex<Option<Level>>,
    /// The requests under way that can be cancelled by their id. Guards nothing else.
    running: Mutex<HashMap<Id, Arc<Gone>>>,
    /// The resources subscribed to, and how often each is held. Guards nothing else.
    subscribed: Mutex<HashMap<(String, ServerName), usize>>,
    /// The streams of requests that can be taken up again.
    pub streams: Streams,
    /// The stream for what is told without being asked, over HTTP. Guards nothing else.
    stream: Mutex<Option<Arc<Gone>>>,
    /// When it was last used, in milliseconds since 1970.
    used_ms: AtomicU64,
}

impl Session {
    /// Begins a session of this name.
    #[must_use]
    pub fn new(name: String, agent: Arc<Agent>, now_ms: u64) -> Self {
        Self {
            name,
            agent,
            asks: Arc::default(),
            ended: Gone::default(),
            agreed: Mutex::default(),
            level: Mutex::default(),
            running: Mutex::default(),
            subscribed: Mutex::default(),
            streams: Streams::default(),
            stream: Mutex::default(),
            used_ms: AtomicU64::new(now_ms),
        }
    }

    /// Notes what `initialize` agreed on.
    pub fn agree(&self, agreed: Agreed) {
        *lock(&self.agreed) = Some(agreed);
    }

    /// What `initialize` agreed on, if there was one.
    pub fn agreed(&self) -> Option<Agreed> {
        lock(&self.agreed).clone()
    }

    /// Notes which log messages are wanted.
    pub fn set_level(&self, level: Level) {
        *lock(&self.level) = Some(level);
    }

    /// Which log messages are wanted.
    pub fn level(&self) -> Option<Level> {
        *lock(&self.level)
    }

    /// Notes that a request is under way; `None` if another with this id is.
    #[must_use]
    pub fn begin(self: &Arc<Self>, id: &Id, gone: Arc<Gone>) -> Option<Running> {
        let mut running = lock(&self.running);
        if running.contains_key(id) {
            return None;
        }
        running.insert(id.clone(), gone);
        Some(Running { session: Arc::clone(self), id: id.clone() })
    }

    /// Cancels a request. One that is not under way is none of anybody's business.
    pub fn cancel(&self, id: &Id) {
        if let Some(gone) = lock(&self.running).get(id) {
            gone.tell();
        }
    }

    /// Ends everything that belongs to the session.
    pub fn end(&self) {
        self.ended.tell();
        for gone in lock(&self.running).values() {
            gone.tell();
        }
    }

    /// Notes the stream for what is told without being asked, and ends the one before.
    pub fn replace_stream(&self, stream: Arc<Gone>) {
        if let Some(before) = lock(&self.stream).replace(stream) {
            before.tell();
        }
    }

    /// Holds a subscription once more; false if there are too many.
    #[must_use]
    pub fn subscribe(&self, uri: &str, server: &ServerName) -> bool {
        let mut subscribed = lock(&self.subscribed);
        let key = (uri.to_owned(), server.clone());
        if subscribed.len() >= MAX_SUBSCRIPTIONS && !subscribed.contains_key(&key) {
            return false;
        }
        *subscribed.entry(key).or_default() += 1;
        true
    }

    /// Holds a subscription once less; true if nobody holds it any more.
    pub fn unsubscribe(&self, uri: &str, server: &ServerName) -> bool {
        let mut subscribed = lock(&self.subscribed);
        let key = (uri.to_owned(), server.clone());
        match subscribed.get_mut(&key) {
            None => false,
            Some(1) => subscribed.remove(&key).is_some(),
            Some(holds) => {
                *holds -= 1;
                false
            }
        }
    }

    /// How often a subscription is held.
    pub fn holds(&self, uri: &str, server: &ServerName) -> usize {
        lock(&self.subscribed).get(&(uri.to_owned(), server.clone())).copied().unwrap_or_default()
    }

    /// Whose resource of this URI is subscribed to.
    pub fn subscribed_to(&self, uri: &str) -> Vec<ServerName> {
        lock(&self.subscribed).keys().filter(|(u, _)| u == uri).map(|(_, server)| server.clone()).collect()
    }

    fn touch(&self, now_ms: u64) {
        self.used_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    fn idle_since(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        !lock(&self.running).is_empty()
    }
}

/// A request under way; over when dropped.
#[derive(Debug)]
pub struct Running {
    session: Arc<Session>,
    id: Id,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.session.running).remove(&self.id);
    }
}

/// Why no session is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// There are too many, and none that can be ended for this one.
    #[error("there are too many sessions")]
    Full,
    /// The system gives no randomness, and an id that can be guessed is none.
    #[error("no randomness")]
    NoRandomness,
}

/// The sessions there are.
#[derive(Debug)]
pub struct Sessions {
    /// How many there may be of those that agents show.
    max: usize,
    /// Sessions begun over HTTP, by what the agent shows. Guards nothing else.
    shown: Mutex<HashMap<String, Arc<Session>>>,
    /// The session of each agent for requests that name none. Guards nothing else.
    standing: Mutex<HashMap<AgentId, Arc<Session>>>,
    /// How many requests each agent has under way. Guards nothing else.
    requests: Arc<Mutex<HashMap<AgentId, usize>>>,
    /// How often agents were put out, and when each was last. Guards nothing else.
    put_out: Mutex<(u64, HashMap<AgentId, u64>)>,
    /// Tells the names of sessions that are over.
    over: broadcast::Sender<String>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new(MAX_SESSIONS)
    }
}

impl Sessions {
    /// No sessions yet, and never more than `max` over HTTP.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let (over, _) = broadcast::channel(256);
        Self {
            max,
            shown: Mutex::default(),
            standing: Mutex::default(),
            requests: Arc::default(),
            put_out: Mutex::default(),
            over,
        }
    }

    /// Begins a session for a client over HTTP. Gives the id that the client has to show: 256 random bits, hexadecimal.
    ///
    /// # Errors
    /// There are too many sessions, or there is no randomness.
    pub fn begin(&self, agent: &Arc<Agent>, now_ms: u64) -> Result<(String, Arc<Session>), BeginError> {
        let id = random_hex::<32>()?;
        let session = Arc::new(Session::new(format!("s-{}", random_hex::<8>()?), Arc::clone(agent), now_ms));
        let mut shown = lock(&self.shown);
        self.make_room(&mut shown, &agent.id, now_ms)?;
        shown.insert(id.clone(), Arc::clone(&session));
        Ok((id, session))
    }

    /// The session that an agent shows; `None` if it is over, somebody else's, or never was.
    pub fn find(&self, id: &str, agent: &Agent, now_ms: u64) -> Option<Arc<Session>> {
        let mut shown = lock(&self.shown);
        let session = shown.get(id).filter(|session| session.agent.id == agent.id)?;
        if session.idle_since().saturating_add(IDLE_MS) < now_ms && !session.is_busy() {
            self.finish(shown.remove(id));
            return None;
        }
        session.touch(now_ms);
        Some(Arc::clone(session))
    }

    /// Ends a session; false if the agent has no such session.
    pub fn end(&self, id: &str, agent: &Agent) -> bool {
        let mut shown = lock(&self.shown);
        if shown.get(id).is_none_or(|session| session.agent.id != agent.id) {
            return false;
        }
        self.finish(shown.remove(id));
        true
    }

    /// The session of an agent for requests that name none: there is one, and it lasts as long as the gate.
    pub fn standing(&self, agent: &Arc<Agent>, now_ms: u64) -> Arc<Session> {
        let mut standing = lock(&self.standing);
        if let Some(session) = standing.get(&agent.id)
            && session.agent == *agent
        {
            return Arc::clone(session);
        }
        let session = Arc::new(Session::new(format!("standing-{}", agent.id), Arc::clone(agent), now_ms));
        standing.insert(agent.id.clone(), Arc::clone(&session));
        session
    }

    /// Counts a request among those under way; `None` if the agent has too many.
    pub fn enter(&self, agent: &AgentId) -> Option<Entered> {
        let mut requests = lock(&self.requests);
        let count = requests.entry(agent.clone()).or_default();
        if *count >= MAX_REQUESTS_PER_AGENT {
            return None;
        }
        *count += 1;
        Some(Entered { requests: Arc::clone(&self.requests), agent: agent.clone() })
    }

    /// Ends the sessions that were idle for too long. Called now and then.
    pub fn sweep(&self, now_ms: u64) {
        let mut shown = lock(&self.shown);
        let over: Vec<String> = shown
            .iter()
            .filter(|(_, session)| {
                session.idle_since().saturating_add(IDLE_MS) < now_ms && !session.is_busy()
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            self.finish(shown.remove(&id));
        }
    }

    /// Ends all that these agents have open, for who they were taken for does not hold any more. Each request is
    /// authenticated by itself, but a stream that is open is not asked again.
    pub fn put_out(&self, agents: &BTreeSet<AgentId>) {
        {
            let (count, last) = &mut *lock(&self.put_out);
            *count += 1;
            last.extend(agents.iter().map(|agent| (agent.clone(), *count)));
        }
        let mut shown = lock(&self.shown);
        for (_, session) in shown.extract_if(|_, session| agents.contains(&session.agent.id)) {
            self.finish(Some(session));
        }
        drop(shown);
        for (_, session) in lock(&self.standing).extract_if(|agent, _| agents.contains(agent)) {
            self.finish(Some(session));
        }
    }

    /// A moment, for [`was_put_out_since`](Self::was_put_out_since).
    pub fn moment(&self) -> u64 {
        lock(&self.put_out).0
    }

    /// Whether an agent that was recognized after that moment may be one that was put out since. Asked once its session is
    /// found, so that nobody comes in between: who is put out later is found in that session.
    pub fn was_put_out_since(&self, moment: u64, agent: &AgentId) -> bool {
        lock(&self.put_out).1.get(agent).is_some_and(|last| *last > moment)
    }

    /// Ends all sessions.
    pub fn end_all(&self) {
        for (_, session) in lock(&self.shown).drain() {
            self.finish(Some(session));
        }
        for (_, session) in lock(&self.standing).drain() {
            self.finish(Some(session));
        }
    }

    /// Tells the names of sessions that end from now on.
    #[must_use]
    pub fn over(&self) -> broadcast::Receiver<String> {
        self.over.subscribe()
    }

    fn make_room(
        &self,
        shown: &mut HashMap<String, Arc<Session>>,
        agent: &AgentId,
        now_ms: u64,
    ) -> Result<(), BeginError> {
        let theirs = shown.values().filter(|session| session.agent.id == *agent).count();
        if shown.len() < self.max && theirs < MAX_SESSIONS_PER_AGENT {
            return Ok(());
        }
        // An agent makes room by ending a session of its own; only sessions that are over anyway go for others' sake.
        let oldest = shown
            .iter()
            .filter(|(_, session)| !session.is_busy())
            .filter(|(_, s)| s.agent.id == *agent || s.idle_since().saturating_add(IDLE_MS) < now_ms)
            .min_by_key(|(_, session)| session.idle_since())
            .map(|(id, _)| id.clone())
            .ok_or(BeginError::Full)?;
        self.finish(shown.remove(&oldest));
        Ok(())
    }

    fn finish(&self, session: Option<Arc<Session>>) {
        if let Some(session) = session {
            session.end();
            // Nobody listens in tests of the front alone.
            let _nobody = self.over.send(session.name.clone());
        }
    }
}

/// A request that is counted; over when dropped.
#[derive(Debug)]
pub struct Entered {
    requests: Arc<Mutex<HashMap<AgentId, usize>>>,
    agent: AgentId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut requests = lock(&self.requests);
        if let Some(count) = requests.get_mut(&self.agent) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                requests.remove(&self.agent);
            }
        }
    }
}

/// The data behind these locks is whole at every moment: a thread that panicked with one held changed nothing by half.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many random bytes in hexadecimal.
///
/// # Errors
/// The system gives no randomness.
pub fn random_hex<const N: usize>() -> Result<String, BeginError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_no_entropy| BeginError::NoRandomness)?;
    Ok(bytes.iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolgate_core::call::Proof;

    fn agent(name: &str) -> Arc<Agent> {
        Arc::new(Agent { id: name.parse().unwrap(), groups: Vec::new(), proof: Proof::Bearer })
    }

    #[test]
    fn a_session_answers_only_to_its_agent() {
        let sessions = Sessions::default();
        let (ours, theirs) = (agent("ours"), agent("theirs"));
        let (id, session) = sessions.begin(&ours, 0).unwrap();
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_graphic()));
        assert_ne!(id, session.name);
        assert!(sessions.find(&id, &theirs, 1).is_none());
        assert!(!sessions.end(&id, &theirs));
        assert!(sessions.find(&id, &ours, 1).is_some());
        assert!(sessions.end(&id, &ours));
        assert!(session.ended.is_told());
        assert!(sessions.find(&id, &ours, 1).is_none());
        assert!(!sessions.end(&id, &ours));
    }

    #[test]
    fn idle_sessions_end() {
        let sessions = Sessions::default();
        let mut over = sessions.over();
        let agent = agent("a");
        let (id, session) = sessions.begin(&agent, 0).unwrap();
        assert!(sessions.find(&id, &agent, IDLE_MS).is_some());
        let running = session.begin(&Id::from(1), Arc::default()).unwrap();
        sessions.sweep(3 * IDLE_MS);
        assert!(over.try_recv().is_err(), "it has a request under way");
        drop(running);
        sessions.sweep(3 * IDLE_MS);
        assert_eq!(over.try_recv().unwrap(), session.name);
        assert!(sessions.find(&id, &agent, 3 * IDLE_MS).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let sessions = Sessions::default();
        let agent = agent("a");
        let (first, _) = sessions.begin(&agent, 0).unwrap();
        for now in 1..=MAX_SESSIONS_PER_AGENT {
            sessions.begin(&agent, now as u64).unwrap();
        }
        assert_eq!(lock(&sessions.shown).len(), MAX_SESSIONS_PER_AGENT);
        assert!(sessions.find(&first, &agent, 100).is_none(), "the one idle for longest made room");

        let busy: Vec<_> = (0..MAX_REQUESTS_PER_AGENT).map(|_| sessions.enter(&agent.id).unwrap()).collect();
        assert!(sessions.enter(&agent.id).is_none());
        assert!(sessions.enter(&"b".parse().unwrap()).is_some());
        drop(busy);
        assert!(sessions.enter(&agent.id).is_some());
        assert!(lock(&sessions.requests).is_empty());
    }

    #[test]
    fn an_id_is_used_by_one_request_at_a_time() {
        let session = Arc::new(Session::new("s".to_owned(), agent("a"), 0));
        let gone = Arc::new(Gone::default());
        let running = session.begin(&Id::from(1), Arc::clone(&gone)).unwrap();
        assert!(session.begin(&Id::from(1), Arc::default()).is_none());
        session.cancel(&Id::from("1"));
        assert!(!gone.is_told(), "a string is no number");
        session.cancel(&Id::from(1));
        assert!(gone.is_told());
        drop(running);
        assert!(session.begin(&Id::from(1), Arc::default()).is_some());
    }

    #[test]
    fn an_agent_makes_no_room_at_the_cost_of_others() {
        let sessions = Sessions::new(2);
        let (ours, theirs) = (agent("ours"), agent("theirs"));
        let (kept, _) = sessions.begin(&ours, 0).unwrap();
        let (oldest, _) = sessions.begin(&theirs, 1).unwrap();
        let (newest, _) = sessions.begin(&theirs, 2).unwrap();
        assert!(sessions.find(&oldest, &theirs, 3).is_none(), "their own oldest makes room");
        assert!(sessions.find(&newest, &theirs, 3).is_some());
        assert!(sessions.find(&kept, &ours, 3).is_some());
        assert!(matches!(sessions.begin(&agent("third"), 4), Err(BeginError::Full)));
    }
}
