//! The integrator: keeps the folder of the log, which everybody can read, up to what the store has sequenced.
//!
//! The store is what counts: a record is on the log once its transaction is durable. Tiles, bundles and signed
//! checkpoints are derived from it, by one process at a time, the one that holds the signer's lock. The others watch
//! that it keeps up. Where the log is not published for a while, whoever's turn it was, no call is opened any more:
//! a log that nobody outside can check is no reason to go on.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use toolgate_ledger::checkpoint::CheckpointError;
use toolgate_ledger::folder::FolderError;
use toolgate_ledger::signer::{OpenSignerError, verifier_key};
use toolgate_ledger::{Checkpoint, Folder};

use crate::port::StoreError;
use crate::publish::{LogPublisher, PublishLogError};
use crate::store::SqliteStore;

/// How long after one publication the next is looked at. Each flushes several files, which makes the flushes of calls wait.
const PAUSE: Duration = Duration::from_millis(500);

/// How long there may be records that are not published, before no call is opened any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the log is not published.
#[derive(Debug, thiserror::Error)]
pub enum IntegrateError {
    /// The checkpoint in the folder is not of this log.
    #[error("the checkpoint in the folder of the log is not usable")]
    Checkpoint(#[from] CheckpointError),
    /// The folder could not be read.
    #[error("the folder of the log could not be read")]
    Folder(#[from] FolderError),
    /// The key of the log could not be read.
    #[error(transparent)]
    Key(#[from] OpenSignerError),
    /// The files could not be written, the signer refuses, or the store was rolled back.
    #[error(transparent)]
    Publish(#[from] PublishLogError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread could not be started.
    #[error("could not start a thread")]
    Thread(#[source] std::io::Error),
}

/// A thread that publishes, or watches the process that does. Dropping it publishes once more and ends it.
pub struct Publishing {
    thread: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Publishing {
    /// Starts the thread. A log that has no key yet gets one, and is called `origin` for ever.
    ///
    /// # Errors
    /// The log cannot be published now, so that it makes no sense to begin; or there is no thread.
    pub fn start(
        store: &Arc<SqliteStore>,
        log: &Path,
        signer: &Path,
        origin: &str,
    ) -> Result<Self, IntegrateError> {
        let mut work = Work {
            store: Arc::downgrade(store),
            log: log.to_owned(),
            signer: signer.to_owned(),
            origin: origin.to_owned(),
            publisher: None,
            up_to_date: Instant::now(),
            awaited: None,
        };
        work.step(store)?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("log-integrator".to_owned())
            .spawn(move || work.run(&stopped))
            .map_err(IntegrateError::Thread)?;
        Ok(Self { thread: Some((stop, thread)) })
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

struct Work {
    /// Weak, so that the store can be closed while this runs.
    store: Weak<SqliteStore>,
    log: PathBuf,
    signer: PathBuf,
    origin: String,
    /// What publishes, if this process is the one that does.
    publisher: Option<LogPublisher>,
    /// When the folder held all that was sequenced.
    up_to_date: Instant,
    /// While another process publishes: the size it has to reach.
    awaited: Option<u64>,
}

impl Work {
    fn run(mut self, stopped: &Receiver<()>) {
        loop {
            let ending = stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout);
            let Some(store) = self.store.upgrade() else {
                return;
            };
            let stepped = self.step(&store);
            self.judge(&store, stepped);
            if ending {
                return;
            }
        }
    }

    /// Stops calls from being opened, or lets them be opened again.
    fn judge(&mut self, store: &SqliteStore, stepped: Result<bool, IntegrateError>) {
        let why = match stepped {
            Ok(true) => {
                self.up_to_date = Instant::now();
                return store.resume_calls();
            }
            Ok(false) => "the process that publishes the log does not keep up".to_owned(),
            Err(error) => {
                // It is opened anew: what it knew may be what was wrong.
                self.publisher = None;
                error.to_string()
            }
        };
        if self.up_to_date.elapsed() >= PATIENCE {
            store.stop_calls(&why);
        }
    }

    /// Publishes, or looks whether somebody else did; says whether the folder has all that was sequenced before.
    fn step(&mut self, store: &SqliteStore) -> Result<bool, IntegrateError> {
        if self.publisher.is_none() {
            match LogPublisher::open(&self.log, &self.signer, &self.origin) {
                Ok(publisher) => self.publisher = Some(publisher),
                Err(error) if error.is_elsewhere() => return self.watch(store),
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.publish(store)?;
        }
        Ok(true)
    }

    fn watch(&mut self, store: &SqliteStore) -> Result<bool, IntegrateError> {
        let size = store.size()?;
        let key = verifier_key(&self.signer)?;
        let Some(note) = Folder::new(&self.log).read_checkpoint()? else {
            return Ok(size == 0);
        };
        let (checkpoint, _note) = Checkpoint::open(&note, &key, key.name())?;
        // Under load the store is always a little ahead. What was sequenced when one looked first has to be there.
        let caught_up = checkpoint.size >= self.awaited.unwrap_or(size);
        if caught_up {
            self.awaited = (checkpoint.size < size).then_some(size);
        } else {
            self.awaited = self.awaited.or(Some(size));
        }
        Ok(caught_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use toolgate_core::call::{CallDigest, CallId};
    use toolgate_core::digest::Digest;

    use crate::blob::RootKey;
    use crate::port::{Closing, Line, Opened, Opening, Store as _, SystemClock};

    fn line() -> Line {
        Line { leaf: b"{}".to_vec(), disclosed: Vec::new(), subject: "gate".to_owned() }
    }

    fn opening(number: u8) -> Opening {
        Opening {
            call: CallId::new(1, [number; 10]),
            digest: CallDigest(Digest::of("test", &[&[number]])),
            repeats: false,
            approval: None,
            line: line(),
        }
    }

    /// Where the log cannot be written or not be signed, calls are opened for a moment more, and then none.
    #[tokio::test]
    async fn a_log_that_is_not_published_stops_calls() {
        let folder = std::env::temp_dir().join(format!("toolgate-integrate-{}", std::process::id()));
        let _old = fs::remove_dir_all(&folder);
        let (log, signer) = (folder.join("log"), folder.join("signer"));
        let store = SqliteStore::open(&folder, RootKey::from_bytes([7; 32]), SystemClock).unwrap();
        let mut work = Work {
            store: Weak::new(),
            log: log.clone(),
            signer: signer.clone(),
            origin: "toolgate.invalid/test".to_owned(),
            publisher: None,
            up_to_date: Instant::now(),
            awaited: None,
        };
        let mut number = 0;
        for (what, broken) in [("written", &log), ("signed", &signer)] {
            let mut open = async || {
                number += 1;
                let opened = store.open(opening(number)).await;
                (CallId::new(1, [number; 10]), opened.map(|opened| matches!(opened, Opened::Fresh(_))))
            };
            let stepped = work.step(&store);
            assert!(matches!(stepped, Ok(true)), "{what}: {stepped:?}");
            work.judge(&store, stepped);
            let (running, opened) = open().await;
            assert_eq!(opened, Ok(true), "{what}");

            let aside = folder.join("aside");
            fs::rename(broken, &aside).unwrap();
            fs::write(broken, b"in the way").unwrap();
            // What was open stays open: it is opened anew, as after any failure.
            work.publisher = None;
            let stepped = work.step(&store);
            assert!(stepped.is_err(), "{what}");
            work.judge(&store, stepped);
            assert_eq!(open().await.1, Ok(true), "{what}: not at once");
            work.up_to_date = Instant::now().checked_sub(PATIENCE).unwrap();
            let stepped = work.step(&store);
            work.judge(&store, stepped);
            let (_, refused) = open().await;
            assert!(
                matches!(&refused, Err(StoreError::Write(why)) if why.starts_with("no call is opened")),
                "{what}: {refused:?}"
            );
            let closing = Closing { call: running, line: line(), keep: false };
            assert!(store.close(closing).await.is_ok(), "{what}: what runs is brought to its end");

            fs::remove_file(broken).unwrap();
            fs::rename(&aside, broken).unwrap();
            let stepped = work.step(&store);
            assert!(matches!(stepped, Ok(true)), "{what}: {stepped:?}");
            work.judge(&store, stepped);
            assert_eq!(open().await.1, Ok(true), "{what}: published again");
        }
        drop(store);
        fs::remove_dir_all(&folder).unwrap();
    }
}
