//! What cells do on the network, written down: each connection, and each refusal, though not a million times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use toolgate_core::call::CallId;
use toolgate_core::name::ServerName;
use toolgate_ledger::record::{Connection, ConnectionStatus};
use toolgate_sandbox::egress::{Attempt, Event, Verdict};

use crate::lines;
use crate::port::{Clock, Store, StoreError};

/// How many things of one cell that did not come to a connection are told of one by one in a while.
const DIFFERENT: usize = 64;
/// How long repetitions are counted before they are written.
const WHILE: Duration = Duration::from_secs(60);

/// Whose cell it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// The server that runs in it.
    pub server: ServerName,
    /// The run of the agent that it belongs to.
    pub session: String,
    /// The call that it was made for, if it was for one.
    pub call: Option<CallId>,
}

/// Writes into a store.
#[derive(Debug)]
pub struct Connections<S, C> {
    store: Arc<S>,
    clock: C,
}

impl<S: Store, C: Clock + Clone> Connections<S, C> {
    /// Writes into this store, with the time of this clock.
    pub const fn new(store: Arc<S>, clock: C) -> Self {
        Self { store, clock }
    }

    /// Writes down what happens from now on, to the end of the cell. Where that cannot be done, it lets go of `events`, and then
    /// the cell cannot connect any more. Has to be called within a tokio runtime.
    pub fn watch(&self, whose: Whose, events: mpsc::Receiver<Event>) {
        let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
        let watch = async move {
            // What cannot be written down is not done: nobody reads any more, so the cell cannot connect any more.
            let _no_store = watch(&*store, &clock, &whose, events).await;
        };
        drop(tokio::spawn(watch));
    }
}

/// What is counted: to whom, at which port, with which end.
type Kind = (String, u16, Verdict);

/// Writes down what happens, to the end of the cell.
async fn watch<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    whose: &Whose,
    mut events: mpsc::Receiver<Event>,
) -> Result<(), StoreError> {
    let mut counted = Counted::default();
    let mut due = Instant::now() + WHILE;
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = tokio::time::sleep_until(due), if !counted.is_empty() => {
                counted.write(store, clock, whose).await?;
                due = Instant::now() + WHILE;
                continue;
            }
        };
        match event {
            None => return counted.write(store, clock, whose).await,
            Some(Event::Untold(times)) => counted.others += times,
            Some(Event::Attempt(attempt)) => {
                if counted.is_empty() {
                    due = Instant::now() + WHILE;
                }
                if counted.is_news(&attempt) {
                    let connection = connection(whose, &attempt);
                    store.append(lines::connection(clock, connection)?).await?;
                }
            }
        }
    }
}

/// What did not come to a connection in this while.
#[derive(Default)]
struct Counted {
    /// How often since it was told of.
    again: BTreeMap<Kind, u64>,
    /// What there was no more room for.
    others: u64,
}

impl Counted {
    fn is_empty(&self) -> bool {
        self.again.is_empty() && self.others == 0
    }

    /// Whether it is to be told of now: every connection, also one that was cut off for what it went on to, and of everything else the
    /// first of its kind. The rest is counted.
    fn is_news(&mut self, attempt: &Attempt) -> bool {
        if attempt.verdict == Verdict::Allowed || attempt.up > 0 || attempt.down > 0 {
            return true;
        }
        let kind = (attempt.to.to_string(), attempt.port, attempt.verdict);
        let room = self.again.len() < DIFFERENT;
        match self.again.get_mut(&kind) {
            Some(times) => *times += 1,
            None if room => {
                self.again.insert(kind, 0);
                return true;
            }
            None => self.others += 1,
        }
        false
    }

    /// Writes down what was counted, and begins anew.
    async fn write<S: Store, C: Clock>(
        &mut self,
        store: &S,
        clock: &C,
        whose: &Whose,
    ) -> Result<(), StoreError> {
        let Self { again, others } = std::mem::take(self);
        for ((to, port, verdict), times) in again.into_iter().filter(|(_, times)| *times > 0) {
            let connection = ended(whose, to, port, verdict, times);
            store.append(lines::connection(clock, connection)?).await?;
        }
        if others > 0 {
            let why = Some("there were too many to tell of each".to_owned());
            let refused = ConnectionStatus::Refused;
            let connection = Connection { why, ..blank(whose, "others".to_owned(), 0, refused, others) };
            store.append(lines::connection(clock, connection)?).await?;
        }
        Ok(())
    }
}

fn connection(whose: &Whose, attempt: &Attempt) -> Connection {
    let Attempt { to, port, verdict, up, down, lasted } = attempt;
    let lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
    Connection { up: *up, down: *down, lasted_ms, ..ended(whose, to.to_string(), *port, *verdict, 1) }
}

fn ended(whose: &Whose, to: String, port: u16, verdict: Verdict, times: u64) -> Connection {
    let (status, why) = match verdict {
        Verdict::Allowed => (ConnectionStatus::Connected, None),
        Verdict::Failed => (ConnectionStatus::Failed, None),
        Verdict::Refused(why) => (ConnectionStatus::Refused, Some(why.to_string())),
    };
    Connection { why, ..blank(whose, to, port, status, times) }
}

fn blank(whose: &Whose, to: String, port: u16, status: ConnectionStatus, times: u64) -> Connection {
    let Whose { server, session, call } = whose;
    Connection {
        call: call.map(|call| call.to_string()),
        down: 0,
        lasted_ms: 0,
        port,
        server: server.to_string(),
        session: lines::shown(session),
        status,
        times,
        to,
        up: 0,
        why: None,
    }
}

#[cfg(test)]
mod tests {
    use toolgate_ledger::record::{Body, Record};
    use toolgate_sandbox::egress::{HelloError, Refused, To};

    use super::*;
    use crate::blob::RootKey;
    use crate::port::SystemClock;
    use crate::store::SqliteStore;

    fn attempt(name: &str, port: u16, verdict: Verdict) -> Event {
        let to = To::Name(name.parse().unwrap());
        let (up, down) = if verdict == Verdict::Allowed { (3, 4) } else { (0, 0) };
        Event::Attempt(Attempt { to, port, verdict, up, down, lasted: Duration::from_millis(5) })
    }

    /// What stands on the log after these events: to whom, how often, with which end.
    async fn written(name: &str, all: Vec<Event>) -> Vec<(String, u16, ConnectionStatus, u64)> {
        let folder = std::env::temp_dir().join(format!("toolgate-connections-{name}-{}", std::process::id()));
        let _old = std::fs::remove_dir_all(&folder);
        let store = SqliteStore::open(&folder, RootKey::from_bytes([7; 32]), SystemClock).unwrap();
        let (tell, events) = mpsc::channel(all.len());
        for event in all {
            tell.try_send(event).unwrap();
        }
        drop(tell);
        let whose = Whose { server: "web".parse().unwrap(), session: "s-1".to_owned(), call: None };
        watch(&store, &SystemClock, &whose, events).await.unwrap();
        let leaves = store.records(crate::port::Position(0), 1000).unwrap();
        let read = |leaf: &Vec<u8>| match Record::decode(leaf).unwrap().body {
            Body::Connection(found) => {
                assert_eq!((found.server.as_str(), found.session.as_str()), ("web", "s-1"));
                (found.to, found.port, found.status, found.times)
            }
            other => panic!("{other:?}"),
        };
        let found = leaves.iter().map(read).collect();
        drop(store);
        std::fs::remove_dir_all(&folder).unwrap();
        found
    }

    #[tokio::test]
    async fn every_connection_is_written_and_refusals_are_counted() {
        let refused = |name| attempt(name, 0, Verdict::Refused(Refused::Name));
        let found = written(
            "each",
            vec![
                attempt("a.example", 443, Verdict::Allowed),
                attempt("a.example", 443, Verdict::Allowed),
                refused("evil.example"),
                refused("evil.example"),
                attempt("b.example", 443, Verdict::Failed),
                refused("evil.example"),
                Event::Untold(7),
            ],
        );
        let (connected, failed, refused) =
            (ConnectionStatus::Connected, ConnectionStatus::Failed, ConnectionStatus::Refused);
        let want = [
            ("a.example", 443, connected, 1),
            ("a.example", 443, connected, 1),
            ("evil.example", 0, refused, 1),
            ("b.example", 443, failed, 1),
            ("evil.example", 0, refused, 2),
            ("others", 0, refused, 7),
        ];
        assert_eq!(found.await, want.map(|(to, port, status, times)| (to.to_owned(), port, status, times)));
    }

    /// Bytes that went are told of, whatever came of the connection then.
    #[tokio::test]
    async fn what_was_cut_off_is_written_each_time() {
        let cut = || match attempt("a.example", 80, Verdict::Refused(Refused::Hello(HelloError::OtherName))) {
            Event::Attempt(attempt) => Event::Attempt(Attempt { up: 9, ..attempt }),
            other @ Event::Untold(_) => other,
        };
        let found = written("cut", vec![cut(), cut()]).await;
        assert_eq!(
            found,
            [
                ("a.example".to_owned(), 80, ConnectionStatus::Refused, 1),
                ("a.example".to_owned(), 80, ConnectionStatus::Refused, 1)
            ]
        );
    }

    #[tokio::test]
    async fn a_flood_of_refusals_is_a_few_lines() {
        let refused = |number| attempt(&format!("x{number}.example"), 0, Verdict::Refused(Refused::Name));
        let found = written("flood", (0..1000).map(refused).collect()).await;
        assert_eq!(found.len(), DIFFERENT + 1);
        assert_eq!(found.iter().map(|(.., times)| times).sum::<u64>(), 1000);
    }

    /// Where nothing can be written down, nobody hears of what happens, so that no more can happen.
    #[tokio::test]
    async fn what_cannot_be_written_down_is_not_read() {
        let folder = std::env::temp_dir().join(format!("toolgate-connections-gone-{}", std::process::id()));
        let _old = std::fs::remove_dir_all(&folder);
        let store = Arc::new(SqliteStore::open(&folder, RootKey::from_bytes([7; 32]), SystemClock).unwrap());
        let (tell, events) = mpsc::channel(1);
        rusqlite::Connection::open(folder.join("state.db"))
            .unwrap()
            .execute_batch("DROP TABLE batch")
            .unwrap();
        Connections::new(Arc::clone(&store), SystemClock)
            .watch(Whose { server: "web".parse().unwrap(), session: String::new(), call: None }, events);
        tell.send(attempt("a.example", 443, Verdict::Allowed)).await.unwrap();
        tell.closed().await;
        drop(store);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
