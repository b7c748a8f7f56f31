//! What the gate remembers: one SQLite file, and keys beside it.
//!
//! [`SqliteStore`] is the [`Store`] of one machine. Several processes may have it open at once: each write is one
//! transaction that locks, decides, sequences its record and commits. What must never be known together with the log
//! is sealed before it is queued; see [`crate::blob`].
//!
//! A file is one idea:
//!
//! | file | holds |
//! | --- | --- |
//! | `schema.sql` | the tables |
//! | `connection.rs` | how the file is opened |
//! | `queue.rs`, `writer.rs`, `batch.rs` | many writes, one transaction, one flush |
//! | `calls.rs` | open, close, append |
//! | `questions.rs` | ask, answer |
//! | `manage.rs` | agents, pins, people |
//! | `sealed.rs`, `read.rs`, `erase.rs` | the values beside the log; reading both; forgetting values |
//! | `owner.rs`, `reserve.rs`, `checkpointer.rs` | who is alive; room for the worst hour; tidying |

mod batch;
mod calls;
mod checkpointer;
mod connection;
mod erase;
mod manage;
mod owner;
mod questions;
mod queue;
mod read;
mod record;
mod reserve;
mod sealed;
mod writer;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use toolgate_core::call::CallId;

pub use self::erase::Erase;
pub use self::manage::{AgentRow, LeaseRow, ManageError, PersonRow, Pin, VaultRow};
pub use self::questions::NewAnswer;

use self::batch::{Batch, Known};
use self::connection::Readers;
use self::owner::Owner;
use self::queue::{Job, Queue, Rest};
use self::record::{Aside, Record};
use self::reserve::Reserve;
use self::writer::{Counters, Writer};
use crate::blob::{RootKey, SubjectKeys};
use crate::port::{Clock, Closing, Line, Opened, Opening, Position, Question, Store, StoreError};

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// A file or folder could not be used.
    #[error("could not use the folder of the state")]
    Io(#[from] io::Error),
    /// A later version of the program made the file.
    #[error(
        "the database has version {version}, and this program knows versions up to {known}; use a newer program"
    )]
    Newer {
        /// The version of the file.
        version: usize,
        /// The newest version this program knows.
        known: usize,
    },
    /// A version of the program before the first release made the file.
    #[error(
        "the database has version {version}, which no release of this program wrote; move it away and start anew"
    )]
    Older {
        /// The version of the file.
        version: usize,
    },
    /// The file system cannot do what is needed.
    #[error("the database cannot keep a write-ahead log here; put the state on a local disk")]
    NoWal,
    /// SQLite could not use the file.
    #[error("could not open the database")]
    Sqlite(#[from] rusqlite::Error),
}

/// How much was written since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Transactions: each is one flush.
    pub batches: u64,
    /// Records on the log.
    pub records: u64,
}

/// The store of one machine. See the [module](self).
pub struct SqliteStore {
    folder: PathBuf,
    queue: Arc<Queue>,
    readers: Readers,
    keys: SubjectKeys,
    changes: watch::Receiver<u64>,
    counters: Arc<Counters>,
    /// Why no call may be opened at the moment. Guards nothing else.
    stopped: Mutex<Option<String>>,
    /// Why the last write failed, if it did. Guards nothing else.
    failed: Mutex<Option<String>>,
    threads: Threads,
    /// Says that this process is alive, for as long as the store is open.
    _owner: Owner,
}

/// The time, in milliseconds since 1970.
type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

struct Threads {
    writer: Option<JoinHandle<()>>,
    checkpointer: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl SqliteStore {
    /// Opens the store in a folder, making both if they are not there.
    ///
    /// # Errors
    /// The folder or the file cannot be used.
    pub fn open<C: Clock>(folder: &Path, root: RootKey, clock: C) -> Result<Self, OpenStoreError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let connection = connection::open_writer(folder)?;
        let path = connection::path(folder);
        let checkpointing = connection::open_checkpointer(&path)?;
        let owner = Owner::take(folder)?;
        let queue = Arc::new(Queue::default());
        let counters = Arc::new(Counters::default());
        let (tell, changes) = watch::channel(0);
        let writer = Writer {
            connection,
            queue: Arc::clone(&queue),
            now_ms: Arc::new(move || clock.now_ms()),
            owner: owner.id,
            changes: tell,
            counters: Arc::clone(&counters),
            reserve: Reserve::hold(folder),
            known: Known::default(),
            pruned: Instant::now(),
            seen: None,
        };
        let (stop, stopped) = mpsc::channel();
        let wal = folder.join("state.db-wal");
        let writing = thread("store-writer", move || writer.run())?;
        let checkpointer =
            thread("store-checkpointer", move || checkpointer::run(&checkpointing, &wal, &stopped))?;
        Ok(Self {
            folder: folder.to_owned(),
            queue,
            readers: Readers::new(path),
            keys: SubjectKeys::new(root),
            changes,
            counters,
            stopped: Mutex::default(),
            failed: Mutex::default(),
            threads: Threads { writer: Some(writing), checkpointer: Some((stop, checkpointer)) },
            _owner: owner,
        })
    }

    /// The folder of the state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The key over all keys.
    #[must_use]
    pub const fn root_key(&self) -> &RootKey {
        self.keys.root()
    }

    /// How much was written since the store was opened.
    #[must_use]
    pub fn written(&self) -> Written {
        Written {
            batches: self.counters.batches.load(Ordering::Relaxed),
            records: self.counters.records.load(Ordering::Relaxed),
        }
    }

    /// Why nothing is written any more, if so.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.queue.poisoned()
    }

    /// Opens no more calls until [`resume_calls`](Self::resume_calls). Those that are open can be closed.
    pub fn stop_calls(&self, why: &str) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// Opens calls again.
    pub fn resume_calls(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Why no call is opened at the moment, if so.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What keeps calls from being taken at the moment, for the operator.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let failed = || self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.stopped() {
            Some(why) => Some(format!("the log cannot be published: {why}")),
            None => failed().map(|why| format!("the store cannot be written: {why}")),
        }
    }

    /// Keeps what [`trouble`](Self::trouble) tells. That a call could be ended does not mean that one can be opened.
    fn note(&self, kind: Kind, error: Option<&StoreError>) {
        if error.is_some() || kind == Kind::Other {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = error.map(ToString::to_string);
        }
    }

    /// Seals a line, and makes `work` part of the next transaction; returns when that is durable.
    ///
    /// The write happens or not, whoever waits for it. `work` may run more than once, each time after a rollback.
    async fn write<T, F>(
        &self,
        line: Line,
        aside: Option<Aside>,
        kind: Kind,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>, &Record) -> rusqlite::Result<T> + Send + 'static,
    {
        let Line { leaf, disclosed, subject } = line;
        // What is wrong with the record itself is no trouble of the store.
        record::check(&leaf, &disclosed)?;
        let sealing = !disclosed.is_empty() || aside.is_some();
        let mut record = Record { leaf, sealed: None };
        let mut work = work;
        let result = async {
            for _attempt in 0..MAX_RESEALS {
                if sealing {
                    let key = self.subject_key(&subject)?;
                    let sealed = record::seal(key, &record.leaf, &disclosed, aside.as_ref());
                    record.sealed = Some(sealed.map_err(write_error)?);
                }
                let (reply, said) = oneshot::channel();
                self.queue.push(Box::new(Task { record, work, done: None, reply, kind }));
                match said.await {
                    Ok((Said::Done(done), _rest)) => return Ok(done),
                    Ok((Said::Failed(error), _rest)) => return Err(error),
                    Ok((Said::Stale(back), _rest)) => {
                        (record, work) = *back;
                        if let Some(sealed) = &record.sealed {
                            self.keys.forget(&sealed.key);
                        }
                    }
                    Err(_gone) => return Err(StoreError::Poisoned("the writer has stopped".to_owned())),
                }
            }
            Err(StoreError::Write(format!(
                "the keys of `{subject}` were erased again and again while a record was written"
            )))
        }
        .await;
        self.note(kind, result.as_ref().err());
        result
    }

    /// Makes `work` part of the next transaction; returns when that is durable. It writes no record.
    async fn write_no_record<T, F>(&self, mut work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, said) = oneshot::channel();
        let record = Record { leaf: Vec::new(), sealed: None };
        let work = move |batch: &mut Batch<'_>, _record: &Record| work(batch);
        self.queue.push(Box::new(Task { record, work, done: None, reply, kind: Kind::Other }));
        match said.await {
            Ok((Said::Done(done), _rest)) => Ok(done),
            Ok((Said::Failed(error), _rest)) => Err(error),
            Ok((Said::Stale(_), _)) | Err(_) => {
                Err(StoreError::Poisoned("the writer has stopped".to_owned()))
            }
        }
    }
}

/// How often a record is sealed anew because the key was erased meanwhile.
const MAX_RESEALS: usize = 3;

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

impl Drop for SqliteStore {
    /// Waits until what is queued is written.
    fn drop(&mut self) {
        self.queue.close();
        if let Some((stop, thread)) = self.threads.checkpointer.take() {
            drop(stop);
            let _ = thread.join();
        }
        if let Some(thread) = self.threads.writer.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a write goes ahead when the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It ends a call.
    End,
    /// Anything else.
    Other,
}

/// A write with its record.
struct Task<T, F> {
    record: Record,
    work: F,
    done: Option<Done<T>>,
    reply: oneshot::Sender<(Said<T, F>, Option<Rest>)>,
    kind: Kind,
}

/// What applying a task came to.
enum Done<T> {
    Applied(T),
    /// The key was erased; nothing was written.
    Stale,
}

/// What the one who waits is told.
enum Said<T, F> {
    Done(T),
    Failed(StoreError),
    Stale(Box<(Record, F)>),
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Batch<'_>, &Record) -> rusqlite::Result<T> + Send,
{
    fn apply(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        self.done = Some(if batch.is_stale(&self.record) {
            Done::Stale
        } else {
            Done::Applied((self.work)(batch, &self.record)?)
        });
        Ok(())
    }

    fn answer(self: Box<Self>, durable: Result<(), StoreError>, rest: Option<Rest>) {
        let Self { record, work, done, reply, kind: _ } = *self;
        let said = match (durable, done) {
            (Err(error), _) => Said::Failed(error),
            (Ok(()), Some(Done::Applied(done))) => Said::Done(done),
            (Ok(()), Some(Done::Stale)) => Said::Stale(Box::new((record, work))),
            (Ok(()), None) => Said::Failed(StoreError::Write("a write was not applied".to_owned())),
        };
        // Whoever waited may be gone; the write stands, and the rest is answered as this is dropped.
        let _ = reply.send((said, rest));
    }

    fn ends_a_call(&self) -> bool {
        self.kind == Kind::End
    }
}

impl Store for SqliteStore {
    async fn open(&self, opening: Opening) -> Result<Opened, StoreError> {
        self.open_call(opening).await
    }

    async fn close(&self, closing: Closing) -> Result<Position, StoreError> {
        self.close_call(closing).await
    }

    async fn append(&self, line: Line) -> Result<Position, StoreError> {
        self.write(line, None, Kind::Other, |batch, record| batch.sequence(record)).await
    }

    fn delivered(&self, call: CallId) {
        self.queue.note_delivered(call);
    }

    async fn ask(&self, question: Question, line: Line) -> Result<Option<Question>, StoreError> {
        self.ask_question(question, line).await
    }

    async fn question(&self, number: &str, now_ms: u64) -> Result<Option<Question>, StoreError> {
        self.read_question(number, now_ms)
    }

    async fn open_calls(&self) -> Result<Vec<(CallId, Position)>, StoreError> {
        self.take_over_calls().await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

fn write_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Write(error.to_string())
}

fn read_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Read(error.to_string())
}

/// Bytes of a row.
fn bytes_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    row.get::<_, Vec<u8>>(column).map(Bytes::from)
}
