//! The credential proxy: a process between the gate and its servers, where credentials are attached and taken out again.
//!
//! It holds the values of the vault, which the vault's process gives it; the gate itself never does. What servers say passes it
//! before the gate reads it, message by message, and leaves it without those values, however they were written down. To an HTTP
//! server it makes the connection itself, and puts a credential where that one's secret says, if the secret is for this server and
//! this host. It has no files and starts no program.
//!
//! It also mints credentials from secrets, and revokes them; the gate writes down what it tells of that, before it goes on. Where a
//! provider gives another value for the secret itself, the gate keeps it, and cannot read it.
//!
//! The gate asks it over a socket for one of five things, and hands it the descriptors for it:
//! - *HTTP*: speak HTTP on this socket, and carry its requests to that server;
//! - *lend*: give the files with what a program is handed in its cell, as variables or files, and take its connections to hosts
//!   where a secret is put in for what stands for it;
//! - *lines*: copy what this pipe brings into that one, line by line: what a program in a cell answers;
//! - *once*: clean what comes on this socket until its end, and send it back;
//! - *carried*: say which values are in what comes on this socket until its end, by name.

mod attach;
mod authority;
mod carry;
mod cell;
mod clean;
mod inside;
mod mint;
mod notes;
mod placeholder;
mod pointer;
pub mod process;
mod slots;
mod turns;

pub(crate) use carry::Roots;
pub(crate) use mint::{Fetch, Get, Got, as_client, form, in_seconds, is_code, now_ms, seconds, value_of};

pub(crate) use carry::NOT_SENT;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use toolgate_broker::lease::Leases;
use toolgate_broker::port::Clock;
use toolgate_broker::store::SqliteStore;
use toolgate_broker::vault::process::{Known, Noted, ProcessError, VaultProcess};
use toolgate_broker::vault::turns::Turns;
use toolgate_core::name::ServerName;
use toolgate_sandbox::cell::Lent;
use toolgate_sandbox::messages::{self, MAX_MESSAGE};

use crate::upstream::HttpServer;

/// What the gate asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// For whose server.
    server: String,
    /// In which run of an agent: the same value has another token in each.
    session: String,
    /// The longest message that is passed on.
    max_message_bytes: usize,
    /// The secrets that the server gets.
    secrets: Vec<String>,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum What {
    /// With it comes a socket; and the certificates that are believed, if not the system's, in a file.
    Http(Destination),
    /// With it comes a socket on which the places are told, with a file for each that holds what goes there; connections are handed
    /// over on it, and it is closed when the cell is gone. And the certificates that are believed, if not the system's, in a file.
    Lend {
        /// Whether a secret itself goes nowhere into the cell.
        placeholders_only: bool,
    },
    /// With it come the pipe that is read and the pipe that is written.
    Lines,
    /// With it comes a socket.
    Once,
    /// With it comes a socket.
    Carried,
}

/// An HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Destination {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The gate's end of the credential proxy and of the vault's process. Dropped, it ends both.
pub struct Credentials {
    /// Guards the order of messages.
    socket: Mutex<OwnedFd>,
    vault: Arc<VaultProcess>,
    path: PathBuf,
    process: Mutex<Child>,
    /// Where leases are told of, until somebody keeps them.
    notes: Mutex<Option<StdStream>>,
    /// Where turns are asked for, until somebody keeps what comes of them.
    turns: Mutex<Option<OwnedFd>>,
    leases: OnceLock<Leases>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(not shown)")
    }
}

impl Credentials {
    /// Starts both processes from `program`, whose `main` begins with [`process::process`] and
    /// [`toolgate_broker::vault::process::process`], and has the vault unlocked. Returns what there is in it.
    ///
    /// # Errors
    /// They cannot be started, or the vault cannot be used.
    pub fn start(
        program: &Path,
        vault: &Path,
        noted: Option<Noted>,
    ) -> Result<(Arc<Self>, Vec<Known>), ProcessError> {
        use std::os::unix::process::CommandExt as _;
        let (ours, theirs) = messages::pair()?;
        let (take, give) = StdStream::pair()?;
        let (notes, tell) = StdStream::pair()?;
        let (turns, take_turns) = messages::pair()?;
        let mut process = Command::new(program)
            .arg0(process::PROXY)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        messages::send(&ours, process::VALUES, &[take.as_fd(), tell.as_fd(), take_turns.as_fd()])?;
        drop((take, tell, take_turns));
        match VaultProcess::start(program, vault, noted, give.into()) {
            Ok((started, known)) => {
                let this = Self {
                    socket: Mutex::new(ours),
                    vault: Arc::new(started),
                    path: vault.to_owned(),
                    process: Mutex::new(process),
                    notes: Mutex::new(Some(notes)),
                    turns: Mutex::new(Some(turns)),
                    leases: OnceLock::new(),
                };
                Ok((Arc::new(this), known))
            }
            Err(error) => {
                end(&mut process);
                Err(error)
            }
        }
    }

    /// Keeps what is minted, in this store. Before that, nothing is. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn keep_leases<C: Clock + Clone>(&self, store: Arc<SqliteStore>, clock: C) -> io::Result<()> {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(turns) = turns {
            let (vault, path) = (Arc::clone(&self.vault), self.path.clone());
            Turns { path, vault, store: Arc::clone(&store), clock: clock.clone() }.serve(turns)?;
        }
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(notes) = notes {
            drop(self.leases.set(Leases::keep(notes, store, clock)?));
        }
        Ok(())
    }

    /// What was minted, once it is kept.
    #[must_use]
    pub fn leases(&self) -> Option<&Leases> {
        self.leases.get()
    }

    /// Takes the vault as it was written again.
    ///
    /// # Errors
    /// It is not as it should be; then what was there before stays.
    pub fn reload(&self, vault: &Path, noted: Noted) -> Result<Vec<Known>, ProcessError> {
        self.vault.reload(vault, noted)
    }

    fn ask(&self, ask: &Ask, given: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let ask = serde_json::to_vec(ask)?;
        if ask.len() > MAX_MESSAGE {
            return Err(io::Error::other("one server gets too many secrets"));
        }
        Ok(messages::send(&*socket, &ask, given)?)
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        end(self.process.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

fn end(process: &mut Child) {
    let _gone = process.kill();
    let _reaped = process.wait();
}

/// What one server says in one run of an agent passes the credential proxy here.
#[derive(Debug, Clone)]
pub struct Passage {
    credentials: Arc<Credentials>,
    server: ServerName,
    session: String,
    max_message_bytes: usize,
    secrets: Vec<String>,
    believed: Option<Arc<[u8]>>,
}

impl Passage {
    /// The passage of this server, which gets these secrets, in this session. Longer messages than this do not pass.
    #[must_use]
    pub const fn new(
        credentials: Arc<Credentials>,
        server: ServerName,
        session: String,
        max_message_bytes: usize,
        secrets: Vec<String>,
    ) -> Self {
        Self { credentials, server, session, max_message_bytes, secrets, believed: None }
    }

    /// The same, believing these certificates, in PEM, of hosts where a secret of a cell is put in; and not the system's.
    #[must_use]
    pub fn believing(self, believed: Option<Arc<[u8]>>) -> Self {
        Self { believed, ..self }
    }

    fn ask(&self, what: What, given: &[BorrowedFd<'_>]) -> io::Result<()> {
        let ask = Ask {
            server: self.server.to_string(),
            session: self.session.clone(),
            max_message_bytes: self.max_message_bytes,
            secrets: self.secrets.clone(),
            what,
        };
        self.credentials.ask(&ask, given)
    }

    /// A connection to an HTTP server: plain HTTP here, whatever it is there.
    ///
    /// # Errors
    /// The proxy is gone. What goes wrong on the way is an answer of HTTP: 502.
    pub(crate) fn http(&self, server: &HttpServer) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let certificates =
            server.pem().map(|pem| messages::sealed("toolgate-certificates", pem)).transpose()?;
        let given: Vec<_> =
            std::iter::once(theirs.as_fd()).chain(certificates.as_ref().map(AsFd::as_fd)).collect();
        self.ask(What::Http(server.destination()), &given)?;
        Ok(ours)
    }

    /// What a program is lent in its cell, for as long as that is there. The gate does not read secrets.
    ///
    /// # Errors
    /// The proxy is gone, or a secret may not go there.
    pub async fn lend(&self) -> io::Result<Lent> {
        self.lent(false).await
    }

    /// The same, for what an agent has written: it gets what stands for secrets, and no secret.
    ///
    /// # Errors
    /// The proxy is gone, or a secret may not go there.
    pub async fn lend_placeholders(&self) -> io::Result<Lent> {
        self.lent(true).await
    }

    async fn lent(&self, placeholders_only: bool) -> io::Result<Lent> {
        if self.secrets.is_empty() {
            return Ok(Lent::default());
        }
        let (ours, theirs) = messages::pair()?;
        let certificates =
            self.believed.as_ref().map(|pem| messages::sealed("toolgate-certificates", pem)).transpose()?;
        let given: Vec<_> =
            std::iter::once(theirs.as_fd()).chain(certificates.as_ref().map(AsFd::as_fd)).collect();
        self.ask(What::Lend { placeholders_only }, &given)?;
        drop(theirs);
        tokio::task::spawn_blocking(move || cell::received(ours)).await?
    }

    /// The pipe that brings what `from` brings, cleaned.
    ///
    /// # Errors
    /// The proxy is gone.
    pub fn lines(&self, from: OwnedFd) -> io::Result<OwnedFd> {
        let (read, write) = io::pipe()?;
        self.ask(What::Lines, &[from.as_fd(), write.as_fd()])?;
        Ok(read.into())
    }

    /// A text or a JSON document, cleaned.
    ///
    /// # Errors
    /// The proxy is gone, or could not look through it.
    pub async fn once(&self, text: &[u8]) -> io::Result<Vec<u8>> {
        self.exchange(What::Once, text).await
    }

    /// Which values of the vault are in a JSON document, by name: `vault:NAME`, and `honeytoken` if one of them is.
    ///
    /// # Errors
    /// The proxy is gone, or could not look through it.
    pub async fn carried(&self, document: &[u8]) -> io::Result<Vec<String>> {
        // What an agent may send is not bounded by what its server may answer.
        let whole = Self { max_message_bytes: document.len(), ..self.clone() };
        Ok(serde_json::from_slice(&whole.exchange(What::Carried, document).await?)?)
    }

    async fn exchange(&self, what: What, text: &[u8]) -> io::Result<Vec<u8>> {
        let (mut ours, theirs) = UnixStream::pair()?;
        self.ask(what, &[theirs.as_fd()])?;
        drop(theirs);
        ours.write_all(text).await?;
        ours.shutdown().await?;
        let mut cleaned = Vec::with_capacity(text.len());
        ours.read_to_end(&mut cleaned).await?;
        match cleaned.pop() {
            // Its last byte says whether it is all.
            Some(clean::WHOLE) => Ok(cleaned),
            Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
