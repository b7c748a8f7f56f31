//! Leases: credentials that the credential proxy mints from secrets, and gives back.
//!
//! Each has a row in the store and records on the log. The row is there, durably, before a provider is asked, so that after a crash
//! whoever starts next knows what may still be good for something, and has it revoked. What is minted is not used before it was
//! written down. The gate never has the credential: what it is revoked with comes to it sealed.
//!
//! ```text
//! proxy ── Note: asked, minted, revoked … ──▶ gate ──▶ store and log
//!       ◀── Word: noted, end this session … ──
//! ```

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use toolgate_core::hex;
use toolgate_ledger::record::Lease;
pub use toolgate_ledger::record::LeaseAction;

use crate::lines::{self, LineError};
use crate::port::{Clock, Line};
use crate::store::{LeaseRow, ManageError, SqliteStore};

/// How long a message may be.
const MAX_LINE: u64 = 256 << 10;

/// How many messages may wait to be written down.
const WAITING: usize = 64;

/// How long the end of all leases is waited for when the gate stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the credential proxy tells the gate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// It waits for a [`Word::Noted`] with this number.
    pub number: u64,
    /// What happened.
    pub action: LeaseAction,
    /// To which lease.
    pub lease: Told,
}

/// A lease as it is told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Its 16 random bytes, in hexadecimal.
    pub id: String,
    /// The secret that it is minted from.
    pub secret: String,
    /// Who mints.
    pub provider: String,
    /// The server that it is for.
    pub server: String,
    /// The run of an agent that it is for.
    pub session: String,
    /// When it ends by itself at the latest, in milliseconds since 1970.
    pub until_ms: u64,
    /// What it is revoked with, sealed, in hexadecimal.
    pub handle: String,
    /// What was asked for.
    #[serde(default)]
    pub requested: Option<String>,
    /// What the provider says that it may do.
    #[serde(default)]
    pub granted: Option<String>,
    /// Tells that two credentials are the same.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// Why it ended, or was not minted.
    #[serde(default)]
    pub why: Option<String>,
}

/// What the gate tells the credential proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Word {
    /// What was told with this number is durable.
    Noted(u64),
    /// A run of an agent is over.
    EndSession(String),
    /// These are to be revoked.
    End(Vec<String>),
    /// All are to be revoked, and no more minted.
    EndAll,
    /// What another process has left.
    Left(Vec<Told>),
}

/// Reads one message. `None` at the end.
///
/// # Errors
/// It is none, or too long.
pub async fn receive<T: for<'a> Deserialize<'a>>(
    from: &mut BufReader<impl AsyncRead + Unpin>,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// A message as it is sent.
///
/// # Errors
/// It is too long.
pub fn message(what: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    if line.len() as u64 > MAX_LINE {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(line)
}

/// The gate's keeper of leases.
#[derive(Debug, Clone)]
pub struct Leases {
    tell: mpsc::UnboundedSender<Word>,
    /// How many there are.
    open: watch::Receiver<usize>,
}

impl Leases {
    /// Keeps what the credential proxy tells over this socket, and has it give back what processes that are gone have left. Has to be
    /// called within a tokio runtime. Where something cannot be written down, it hangs up, and then the proxy mints nothing any more.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn keep<C: Clock>(socket: StdStream, store: Arc<SqliteStore>, clock: C) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (from, to) = UnixStream::from_std(socket)?.into_split();
        let (tell, told) = mpsc::unbounded_channel();
        let (count, open) = watch::channel(0);
        let keeper = Keeper { store, clock, to, count };
        drop(tokio::spawn(keeper.run(BufReader::new(from), told)));
        Ok(Self { tell, open })
    }

    /// Has the leases of a run of an agent revoked.
    pub fn end_session(&self, session: &str) {
        self.say(Word::EndSession(session.to_owned()));
    }

    /// Has those leases revoked that a command has marked. Says whether there are any.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn look(&self, store: &SqliteStore) -> Result<bool, crate::port::StoreError> {
        let marked: Vec<_> = store.unwanted_leases()?.iter().map(|id| hex::encode(id)).collect();
        let any = !marked.is_empty();
        for some in marked.chunks(1_000) {
            self.say(Word::End(some.to_vec()));
        }
        Ok(any)
    }

    /// Has all leases revoked, and waits for it for a while. Says how many are left.
    pub async fn end_all(&self) -> usize {
        self.say(Word::EndAll);
        let mut open = self.open.clone();
        let _left = tokio::time::timeout(PATIENCE, open.wait_for(|open| *open == 0)).await;
        *self.open.borrow()
    }

    /// Whoever is told may be gone: then there is nothing to end.
    fn say(&self, word: Word) {
        let _gone = self.tell.send(word);
    }
}

struct Keeper<C> {
    store: Arc<SqliteStore>,
    clock: C,
    to: OwnedWriteHalf,
    count: watch::Sender<usize>,
}

/// Why no more is kept.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] LineError),
    #[error(transparent)]
    Store(#[from] ManageError),
    #[error(transparent)]
    Read(#[from] crate::port::StoreError),
}

impl<C: Clock> Keeper<C> {
    async fn run(mut self, from: BufReader<OwnedReadHalf>, mut told: mpsc::UnboundedReceiver<Word>) {
        let (pass, mut notes) = mpsc::channel(WAITING);
        drop(tokio::spawn(read(from, pass)));
        let kept = async {
            self.take_over().await?;
            loop {
                tokio::select! {
                    note = notes.recv() => match note {
                        Some(note) => self.note(note).await?,
                        None => return Ok::<(), KeepError>(()),
                    },
                    Some(word) = told.recv() => self.to.write_all(&message(&word)?).await?,
                }
            }
        };
        // Whoever waits for an answer of the proxy is told that there is none.
        let _ended = kept.await;
        self.count.send_replace(0);
    }

    async fn take_over(&mut self) -> Result<(), KeepError> {
        let left: Vec<Told> = self.store.take_over_leases().await?.into_iter().map(told).collect();
        self.count.send_replace(left.len());
        for one in left {
            // One that cannot be told stays where it is.
            let Ok(message) = message(&Word::Left(vec![one])) else { continue };
            self.to.write_all(&message).await?;
        }
        Ok(())
    }

    async fn note(&mut self, note: Note) -> Result<(), KeepError> {
        let Note { number, action, lease } = note;
        let row = row(&lease, action)?;
        let line = line(&self.clock, lease, action)?;
        match action {
            LeaseAction::Asked | LeaseAction::Minted => {
                self.store.note_lease(row, line).await?;
                if action == LeaseAction::Asked {
                    self.count.send_modify(|open| *open += 1);
                }
            }
            LeaseAction::Failed | LeaseAction::Revoked | LeaseAction::Expired | LeaseAction::Left => {
                self.store.end_lease(row.id, line).await?;
                self.count.send_modify(|open| *open = open.saturating_sub(1));
            }
            LeaseAction::ToBeRevoked => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        }
        Ok(self.to.write_all(&message(&Word::Noted(number))?).await?)
    }
}

/// Passes on what is told, to its end, or until it is nothing that the credential proxy tells.
async fn read(mut from: BufReader<OwnedReadHalf>, pass: mpsc::Sender<Note>) {
    while let Ok(Some(note)) = receive(&mut from).await {
        if pass.send(note).await.is_err() {
            return;
        }
    }
}

fn row(told: &Told, action: LeaseAction) -> io::Result<LeaseRow> {
    let bytes = |text: &str| hex::decode(text).ok_or(io::ErrorKind::InvalidData);
    Ok(LeaseRow {
        id: bytes(&told.id)?,
        secret: told.secret.clone(),
        provider: told.provider.clone(),
        server: told.server.clone(),
        session: told.session.clone(),
        until_ms: told.until_ms,
        handle: bytes(&told.handle)?,
        live: action == LeaseAction::Minted,
        revoke: false,
        held: true,
    })
}

fn told(row: LeaseRow) -> Told {
    Told {
        id: hex::encode(&row.id),
        secret: row.secret,
        provider: row.provider,
        server: row.server,
        session: row.session,
        until_ms: row.until_ms,
        handle: hex::encode(&row.handle),
        requested: None,
        granted: None,
        fingerprint: None,
        why: None,
    }
}

fn line<C: Clock>(clock: &C, told: Told, action: LeaseAction) -> Result<Line, LineError> {
    let Told {
        id,
        secret,
        provider,
        server,
        session,
        until_ms,
        handle: _,
        requested,
        granted,
        fingerprint,
        why,
    } = told;
    let expires_ms = (action == LeaseAction::Minted || action == LeaseAction::Left).then_some(until_ms);
    let lease = Lease {
        action,
        by: None,
        expires_ms,
        fingerprint,
        granted,
        lease: id,
        provider,
        requested,
        secret,
        server,
        session,
        why,
    };
    lines::lease(clock, lease)
}
