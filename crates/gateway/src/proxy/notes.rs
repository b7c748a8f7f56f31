//! Telling the gate of leases, and hearing what it wants of them.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use toolgate_broker::lease::{LeaseAction, Note, Told, Word, message, receive};

use super::mint::{Leases, SAID_SO};

/// The proxy's end of the socket over which leases are told of.
#[derive(Clone)]
pub(super) struct Notes(Arc<Inner>);

struct Inner {
    to: tokio::sync::Mutex<OwnedWriteHalf>,
    next: AtomicU64,
    /// Who waits until what number was written down. `None` when nothing will be any more.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<()>>>>,
}

impl Notes {
    /// Has to be called within a runtime.
    pub(super) fn new(socket: StdStream) -> io::Result<(Self, BufReader<OwnedReadHalf>)> {
        socket.set_nonblocking(true)?;
        let (from, to) = UnixStream::from_std(socket)?.into_split();
        let waiting = Mutex::new(Some(HashMap::new()));
        let inner = Inner { to: tokio::sync::Mutex::new(to), next: AtomicU64::new(1), waiting };
        Ok((Self(Arc::new(inner)), BufReader::new(from)))
    }

    /// Tells the gate, and waits until it has written it down.
    pub(super) async fn tell(&self, action: LeaseAction, lease: &Told) -> Result<(), String> {
        let gone = || "the gate cannot write it down".to_owned();
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (done, noted) = oneshot::channel();
        self.waiting().as_mut().ok_or_else(gone)?.insert(number, done);
        let note = Note { number, action, lease: lease.clone() };
        let line = message(&note).map_err(|error| error.to_string())?;
        self.0.to.lock().await.write_all(&line).await.map_err(|_gone| gone())?;
        noted.await.map_err(|_gone| gone())
    }

    /// Hears what the gate says, to its end. Nothing is written down after it.
    pub(super) async fn hear(self, mut from: BufReader<OwnedReadHalf>, leases: Arc<Leases>) {
        while let Ok(Some(word)) = receive::<Word>(&mut from).await {
            match word {
                Word::Noted(number) => {
                    let waits = self.waiting().as_mut().and_then(|waiting| waiting.remove(&number));
                    // Whoever waited may have given up.
                    let _gone = waits.map(|waits| waits.send(()));
                }
                Word::EndSession(session) => leases.end_session(session),
                Word::End(those) => leases.end_those(SAID_SO, |told| those.contains(&told.id)),
                Word::EndAll => leases.end_all(),
                Word::Left(left) => leases.recover(left),
            }
        }
        self.waiting().take();
        // Nothing can be written down any more: what there is ends.
        leases.end_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<()>>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
