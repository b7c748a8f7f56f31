//! Secrets that renew themselves: whose provider gives another value with each credential that it mints, and takes the old one no
//! more. The credential proxy asks the provider, and the gate keeps what comes of it, which it cannot read.
//!
//! ```text
//! proxy ── a turn for this secret ──▶ gate      waits for its turn, and has the newest value given to the proxy
//!       ◀────────────── ready ──────
//!       ── the value after it, sealed ─▶        the vault's process makes the file, the gate writes it: durable
//!       ◀────────────── kept ───────
//!       ── hangs up ──────────────────▶         the next one's turn
//! ```
//!
//! One has its turn at a time, in all processes of this state folder: of two that ask with the same value a server takes the second
//! for a thief, and ends the login. What was minted is used only once the value after it is kept. When a process is killed, its turn is
//! over; the value is then the old one, or the new one, and never half of one.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use toolgate_core::hex;
use toolgate_core::name::SecretName;
use toolgate_ledger::record::{Secret, SecretAction};
use toolgate_sandbox::messages::{self, MAX_MESSAGE};

use super::file::{Held, VaultError, generation_of, replace};
use super::process::{Noted, ProcessError, VaultProcess};
use crate::lease::{message, receive};
use crate::lines::{self, LineError};
use crate::port::{Clock, StoreError};
use crate::store::{ManageError, SqliteStore, VaultRow};

/// Who renewed a secret, for the log.
const GATE: &str = "the gate";

/// What the gate says in a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Said {
    /// The proxy has the newest value, and nobody else asks for another one.
    Ready,
    /// The new value is durable, and the proxy has it.
    Kept,
    /// It is not: why.
    Failed(String),
}

/// What the credential proxy says in a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewed {
    /// The value that it replaces.
    pub version: u32,
    /// The new value, sealed, in hexadecimal.
    pub sealed: String,
}

/// How long a turn lasts at most between two things that are said.
const LONGEST: Duration = Duration::from_secs(60);
/// How many wait for one at most. Whoever else comes is hung up on.
const MAX_TURNS: usize = 64;

/// Why a value is not kept.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Read(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] LineError),
    #[error(transparent)]
    Store(#[from] ManageError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("there is no vault")]
    None,
}

/// The gate's keeper of values that renew themselves.
pub struct Turns<C> {
    /// The vault's file.
    pub path: PathBuf,
    /// The process that opens it.
    pub vault: Arc<VaultProcess>,
    /// Where it is noted that it was written.
    pub store: Arc<SqliteStore>,
    /// When.
    pub clock: C,
}

impl<C> std::fmt::Debug for Turns<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<C: Clock> Turns<C> {
    /// Serves the credential proxy until it is gone. `wanted` is where it asks for turns: by the name of a secret, and with a socket.
    ///
    /// # Errors
    /// There can be no thread, or this is not within a runtime.
    pub fn serve(self, wanted: OwnedFd) -> io::Result<()> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let this = Arc::new(self);
        let taking = move || {
            let mut buffer = [0; MAX_MESSAGE];
            while let Ok(Some((length, mut given))) =
                messages::receive(&wanted, &mut buffer, RecvFlags::empty())
            {
                let name = std::str::from_utf8(buffer.get(..length).unwrap_or_default()).unwrap_or_default();
                let (Ok(name), Some(socket)) = (name.parse::<SecretName>(), given.pop()) else { return };
                let (this, runtime) = (Arc::clone(&this), runtime.clone());
                // Each waits for locks of files. There is one at a time for each secret.
                if Arc::strong_count(&this) > MAX_TURNS {
                    continue;
                }
                let turn = move || {
                    // Who hung up in its turn needs no answer.
                    let _over = this.turn(&name, socket, &runtime);
                };
                let _begun = std::thread::Builder::new().name("toolgate-turn".to_owned()).spawn(turn);
            }
        };
        std::thread::Builder::new().name("toolgate-turns".to_owned()).spawn(taking).map(drop)
    }

    fn turn(&self, name: &SecretName, socket: OwnedFd, runtime: &Handle) -> io::Result<()> {
        let socket = StdStream::from(socket);
        socket.set_nonblocking(true)?;
        let held = Held::take_turn(&self.path, name);
        let ready = held.map_err(TurnError::from).and_then(|held| self.up_to_date().map(|()| held));
        let _entered = runtime.enter();
        let (from, mut to) = UnixStream::from_std(socket)?.into_split();
        let mut from = BufReader::new(from);
        let mut say = |said: Said| -> io::Result<()> { runtime.block_on(to.write_all(&message(&said)?)) };
        let _held = match ready {
            Ok(held) => held,
            Err(error) => return say(Said::Failed(error.to_string())),
        };
        say(Said::Ready)?;
        // Who has its turn asks its provider and comes back, or others get theirs.
        let mut next = || runtime.block_on(async { timeout(LONGEST, receive::<Renewed>(&mut from)).await });
        while let Some(renewed) = next().unwrap_or(Ok(None))? {
            say(match self.keep(name, &renewed, runtime) {
                Ok(()) => Said::Kept,
                Err(error) => Said::Failed(error.to_string()),
            })?;
        }
        Ok(())
    }

    fn noted(&self) -> Result<Noted, TurnError> {
        let VaultRow { id, generation } = self.store.vault()?.ok_or(TurnError::None)?;
        Ok(Noted { id, generation })
    }

    /// Another process may have written since.
    fn up_to_date(&self) -> Result<(), TurnError> {
        self.vault.reload(&self.path, self.noted()?)?;
        Ok(())
    }

    fn keep(&self, name: &SecretName, renewed: &Renewed, runtime: &Handle) -> Result<(), TurnError> {
        let sealed = hex::decode(&renewed.sealed).ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
        let held = Held::take(&self.path)?;
        let before = self.noted()?;
        let bytes = self.vault.renew(&self.path, before.clone(), name, renewed.version, &sealed)?;
        // COMMIT POINT: from here on the new value is the one that there is, whatever happens next.
        replace(&self.path, &bytes)?;
        let generation = generation_of(&bytes)?;
        let record = Secret {
            action: SecretAction::Rotated,
            by: GATE.to_owned(),
            generation,
            name: Some(name.to_string()),
            vault: hex::encode(&before.id),
            version: Some(renewed.version.saturating_add(1)),
        };
        let row = VaultRow { id: before.id, generation };
        let line = lines::secret(&self.clock, record)?;
        runtime.block_on(self.store.note_vault(row, false, line))?;
        drop(held);
        self.up_to_date()
    }
}
