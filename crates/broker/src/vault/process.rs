//! The process that holds the root key.
//!
//! It has one thread, no files, no network and no child; other processes of its user can neither trace nor read it. It reads nothing
//! that a server or an agent wrote. To the gate it tells what secrets there are and what they are good for; their values it gives to
//! the credential proxy alone, over a socket of which it got the other end in the beginning.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, io};

use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use toolgate_core::name::SecretName;
use toolgate_sandbox::cell::confine;
use toolgate_sandbox::guarded::{self, KEY_BYTES};
use toolgate_sandbox::messages::{self, MAX_MESSAGE};
use zeroize::Zeroizing;

use super::file::{Locked, MAX_VALUE, Sealed, Vault, VaultError, b64, file};
use super::keys::{Opener, derive, unseal};
use super::mint::Mint;
use super::uses::Uses;
use crate::home::Surroundings;
use crate::port::{Clock as _, SystemClock};

/// The name (`argv[0]`) by which this program knows that it is to be the vault's process.
pub const VAULT: &str = "toolgate-vault";

/// What the gate asks the vault's process for. With it come descriptors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    /// Unlock the vault at this path. With it comes the socket that values are given to.
    Open {
        path: PathBuf,
        /// The vault that was written last, as far as the store knows.
        noted: Option<Noted>,
    },
    /// The vault was written again: here it is.
    Reload { noted: Noted },
    /// The vault as it is; and another value for a secret in it that renews itself, as the credential proxy has sealed it. What is
    /// wanted is the file to write.
    Renew { noted: Noted, name: String, version: u32 },
}

/// Which vault was written last, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Its 16 random bytes.
    #[serde(with = "b64")]
    pub id: Vec<u8>,
    /// How often.
    pub generation: u64,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// It is done. What it has comes in messages after it.
    Open,
    /// It cannot be used.
    Failed { why: String, hint: Option<String> },
}

/// What the gate knows of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// What it is called.
    pub name: String,
    /// How often somebody gave its value; nothing where that renews itself.
    pub version: Option<u32>,
    /// What it is good for.
    pub uses: Uses,
}

impl Known {
    fn of(name: &SecretName, sealed: &Sealed) -> Self {
        let renews = sealed.uses.mint.as_ref().is_some_and(Mint::renews_itself);
        let version = (!renews).then_some(sealed.version);
        Self { name: name.to_string(), version, uses: sealed.uses.clone() }
    }
}

/// Becomes the vault's process, if this program was started as one; to be called before anything else in `main`. `ask` asks for
/// the passphrase on the terminal. Returns the exit status.
#[must_use]
pub fn process(ask: impl Fn() -> Result<Zeroizing<String>, VaultError>) -> Option<u8> {
    if env::args().next().as_deref() != Some(VAULT) {
        return None;
    }
    Some(match serve(&ask) {
        Ok(()) => 0,
        Err(error) => {
            // The gate says that it is gone; why, only it knows. No value is part of an error.
            let _unheard = writeln!(io::stderr(), "{VAULT}: {error}");
            1
        }
    })
}

fn serve(ask: &dyn Fn() -> Result<Zeroizing<String>, VaultError>) -> io::Result<()> {
    confine::close_what_was_left().map_err(io::Error::other)?;
    guarded::keep_to_ourselves()?;
    let stdin = io::stdin();
    let gate = stdin.as_fd();
    let Some((Ask::Open { path, noted }, mut descriptors)) = next(gate)? else { return Ok(()) };
    let (Some(proxy), true) = (descriptors.pop(), descriptors.is_empty()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut proxy = UnixStream::from(proxy);
    proxy.set_read_timeout(Some(PATIENCE))?;
    let surroundings = Surroundings::of_process()?;
    let opener = Opener { surroundings: &surroundings, passphrase: Some(ask) };
    let opened = Locked::read(&path, &surroundings)
        .and_then(|locked| locked.open(&opener))
        .and_then(|vault| follows(vault, noted.as_ref()));
    let mut vault = match opened {
        Ok(vault) => vault,
        Err(error) => return say(gate, &failed(&error), None),
    };
    // From here on there is nothing to open, and nobody to reach.
    confine::to_what_is_open().map_err(io::Error::other)?;
    give(&vault, &mut proxy)?;
    told(gate, &vault)?;
    while let Some((ask, descriptors)) = next(gate)? {
        let mut files = descriptors.into_iter().map(File::from);
        let file = files.next().ok_or(io::ErrorKind::InvalidInput)?;
        let read = |noted| vault.reread(file).and_then(|vault| follows(vault, Some(noted)));
        match (ask, files.next()) {
            (Ask::Reload { noted }, None) => match read(&noted) {
                Ok(new) => {
                    vault = new;
                    give(&vault, &mut proxy)?;
                    told(gate, &vault)?;
                }
                // What was there before stays.
                Err(error) => say(gate, &failed(&error), None)?,
            },
            // What is made here is in force once it was written, and read again.
            (Ask::Renew { noted, name, version }, Some(sealed)) => {
                match read(&noted).and_then(|vault| renewed(vault, &name, version, sealed)) {
                    Ok(bytes) => told_bytes(gate, &bytes)?,
                    Err(error) => say(gate, &failed(&error), None)?,
                }
            }
            (Ask::Open { .. } | Ask::Reload { .. } | Ask::Renew { .. }, _) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(())
}

/// The file of a vault in which this secret has the value that is sealed here.
fn renewed(vault: Vault, name: &str, version: u32, sealed: File) -> Result<Vec<u8>, VaultError> {
    let name: SecretName = name.parse().map_err(|_name| VaultError::Damaged("a name of a secret"))?;
    let mut bytes = Vec::new();
    let most = MAX_VALUE as u64 + 1024;
    sealed.take(most).read_to_end(&mut bytes).map_err(|source| VaultError::Io {
        what: "take over",
        path: PathBuf::from(name.as_str()),
        source,
    })?;
    let tokens = vault.derived("tokens");
    let value = unseal(&renewal_key(&tokens), &renewal_purpose(&name, version), &bytes);
    let value = value.ok_or(VaultError::Damaged("a value that was renewed"))?;
    vault.renewed(&name, version, &value, SystemClock.now_ms())
}

/// The key under which the credential proxy seals a value that a provider has renewed, on its way to the vault's process: it passes the
/// gate, which writes it down and cannot read it.
#[must_use]
pub fn renewal_key(tokens: &[u8; KEY_BYTES]) -> Zeroizing<[u8; KEY_BYTES]> {
    derive(tokens, &[b"renewal"])
}

/// What such a value is bound to: this secret, and the value that it replaces.
#[must_use]
pub fn renewal_purpose(name: &SecretName, version: u32) -> Vec<u8> {
    [b"toolgate/vault/renewal/v1/", name.as_str().as_bytes(), b"/", &version.to_be_bytes()].concat()
}

fn follows(vault: Vault, noted: Option<&Noted>) -> Result<Vault, VaultError> {
    if let Some(Noted { id, generation }) = noted {
        vault.follows(id, *generation)?;
    }
    Ok(vault)
}

fn failed(error: &VaultError) -> Said {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Said::Failed { why: format!("{error}{cause}"), hint: error.hint() }
}

fn next(gate: BorrowedFd<'_>) -> io::Result<Option<(Ask, Vec<OwnedFd>)>> {
    let mut buffer = [0; MAX_MESSAGE];
    let Some((length, descriptors)) = messages::receive(gate, &mut buffer, RecvFlags::empty())? else {
        return Ok(None);
    };
    Ok(Some((serde_json::from_slice(buffer.get(..length).unwrap_or_default())?, descriptors)))
}

fn say(gate: BorrowedFd<'_>, said: &Said, list: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let descriptors: Vec<_> = list.into_iter().collect();
    Ok(messages::send(gate, &serde_json::to_vec(said)?, &descriptors)?)
}

/// Tells the gate what there is: in several messages, since a list can be longer than one.
fn told(gate: BorrowedFd<'_>, vault: &Vault) -> io::Result<()> {
    let known: Vec<Known> = vault.secrets().iter().map(|(name, sealed)| Known::of(name, sealed)).collect();
    told_bytes(gate, &serde_json::to_vec(&known)?)
}

fn told_bytes(gate: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    say(gate, &Said::Open, None)?;
    for part in bytes.chunks(MAX_MESSAGE) {
        messages::send(gate, part, &[])?;
    }
    // A message of one byte that is no part of a text.
    Ok(messages::send(gate, END, &[])?)
}

/// The end of a list.
const END: &[u8] = b"\0";

/// A secret on its way to the credential proxy.
pub struct Value {
    /// What it is called.
    pub name: SecretName,
    /// How often its value was given.
    pub version: u32,
    /// What it is good for.
    pub uses: Uses,
    /// The value.
    pub value: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Value")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// All values, and a key for the tokens that stand for them: it hangs on the root key, so that a value that a token stands for can
/// be told again.
#[derive(Debug)]
pub struct Values {
    /// The secrets.
    pub all: Vec<Value>,
    /// The key.
    pub tokens: Zeroizing<[u8; KEY_BYTES]>,
}

/// How long the credential proxy may take to put values in force.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the credential proxy says when values are in force.
const IN_FORCE: u8 = b'+';

/// Gives the credential proxy all values, and waits until they are in force: whoever is handed one after this gets the new one.
fn give(vault: &Vault, to: &mut UnixStream) -> io::Result<()> {
    let wrong = |error: VaultError| io::Error::other(error.to_string());
    let mut message = Zeroizing::new(Vec::with_capacity(64 << 10));
    message.extend_from_slice(&*vault.derived("tokens"));
    for (name, sealed) in vault.secrets() {
        let value = vault.value(name).map_err(wrong)?;
        let uses = serde_json::to_vec(&sealed.uses)?;
        for part in [name.as_str().as_bytes(), &sealed.version.to_be_bytes(), &uses, &value] {
            let length = u32::try_from(part.len()).map_err(|_long| io::ErrorKind::InvalidData)?;
            message.extend_from_slice(&length.to_be_bytes());
            message.extend_from_slice(part);
        }
    }
    to.write_all(&u64::try_from(message.len()).unwrap_or(u64::MAX).to_be_bytes())?;
    to.write_all(&message)?;
    // Not by the standard library, whose call for sockets is one that this process has given up.
    let mut answer = [0];
    match rustix::io::read(to, &mut answer) {
        Ok(1) if answer == [IN_FORCE] => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) => Err(error.into()),
    }
}

/// The most that all values may come to.
const MAX_GIVEN: u64 = 1 << 30;

/// Takes what the vault's process gives, at the credential proxy: each time, `put_in_force` does what it says.
///
/// # Errors
/// The connection broke, or what came is nothing that the vault's process gives.
pub fn take(from: &mut UnixStream, put_in_force: impl FnOnce(Values)) -> io::Result<()> {
    put_in_force(values(from)?);
    from.write_all(&[IN_FORCE])
}

fn values(from: &mut impl Read) -> io::Result<Values> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    if length > MAX_GIVEN {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut from = from.take(length);
    let mut tokens = Zeroizing::new([0; KEY_BYTES]);
    from.read_exact(&mut *tokens)?;
    let mut all = Vec::new();
    while from.limit() > 0 {
        let name = part(&mut from, 256)?;
        let version = part(&mut from, 4)?;
        let uses = part(&mut from, 16 << 20)?;
        let value = part(&mut from, MAX_VALUE)?;
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        all.push(Value {
            name: std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok()).ok_or_else(wrong)?,
            version: version.as_slice().try_into().map(u32::from_be_bytes).map_err(|_length| wrong())?,
            uses: serde_json::from_slice(&uses)?,
            value,
        });
    }
    Ok(Values { all, tokens })
}

fn part(from: &mut impl Read, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // As long as it will be: it is not copied while it grows.
    let mut bytes = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The gate's end of the vault's process. Dropped, it ends the process.
#[derive(Debug)]
pub struct VaultProcess {
    /// Guards the order of questions and answers.
    socket: Mutex<OwnedFd>,
    process: Mutex<Child>,
}

/// Why the vault cannot be used, as its process said.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The vault cannot be used.
    #[error("{why}")]
    Vault {
        /// Why.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Its process could not be started, or is gone.
    #[error("the process of the vault does not run")]
    Process(#[from] io::Error),
}

impl From<rustix::io::Errno> for ProcessError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Process(error.into())
    }
}

impl ProcessError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Vault { hint, .. } => hint.clone(),
            Self::Process(_) => None,
        }
    }
}

impl VaultProcess {
    /// Starts it from `program`, whose `main` begins with [`process`], and has it unlock the vault: it may ask for a passphrase on
    /// the terminal meanwhile. `proxy` is the socket that it gives the values to.
    ///
    /// # Errors
    /// It cannot be started, or the vault cannot be used.
    pub fn start(
        program: &Path,
        vault: &Path,
        noted: Option<Noted>,
        proxy: OwnedFd,
    ) -> Result<(Self, Vec<Known>), ProcessError> {
        use std::os::unix::process::CommandExt as _;
        let (ours, theirs) = messages::pair()?;
        let process =
            Command::new(program).arg0(VAULT).stdin(Stdio::from(theirs)).stdout(Stdio::null()).spawn()?;
        let this = Self { socket: Mutex::new(ours), process: Mutex::new(process) };
        let ask = Ask::Open { path: vault.to_owned(), noted };
        let known = this.asked(&ask, vec![proxy]).and_then(|list| known(&list))?;
        Ok((this, known))
    }

    /// Tells it that the vault was written again.
    ///
    /// # Errors
    /// It is not as it should be; then what was there before stays.
    pub fn reload(&self, vault: &Path, noted: Noted) -> Result<Vec<Known>, ProcessError> {
        let ask = Ask::Reload { noted };
        self.asked(&ask, vec![opened(vault)?]).and_then(|list| known(&list))
    }

    /// Has it make the vault's file with another value for a secret that renews itself, as the credential proxy has sealed it. It is in
    /// force once it was written, and taken up by [`reload`](Self::reload).
    ///
    /// # Errors
    /// The value is not the one that was to be replaced, or the vault is not as it should be.
    pub fn renew(
        &self,
        vault: &Path,
        noted: Noted,
        name: &SecretName,
        version: u32,
        sealed: &[u8],
    ) -> Result<Vec<u8>, ProcessError> {
        let sealed = messages::sealed("toolgate-renewed", sealed)?;
        self.asked(&Ask::Renew { noted, name: name.to_string(), version }, vec![opened(vault)?, sealed])
    }

    fn asked(&self, ask: &Ask, given: Vec<OwnedFd>) -> Result<Vec<u8>, ProcessError> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let lent: Vec<_> = given.iter().map(AsFd::as_fd).collect();
        messages::send(&*socket, &serde_json::to_vec(ask).map_err(io::Error::from)?, &lent)?;
        drop(given);
        let mut buffer = [0; MAX_MESSAGE];
        let mut next = |text: &mut Vec<u8>| -> io::Result<bool> {
            let Some((length, _)) = messages::receive(&*socket, &mut buffer, RecvFlags::empty())? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let part = buffer.get(..length).unwrap_or_default();
            text.extend_from_slice(part);
            Ok(part == END)
        };
        let mut said = Vec::new();
        next(&mut said)?;
        match serde_json::from_slice(&said).map_err(io::Error::from)? {
            Said::Failed { why, hint } => Err(ProcessError::Vault { why, hint }),
            Said::Open => {
                let mut list = Vec::new();
                while !next(&mut list)? {}
                list.pop();
                Ok(list)
            }
        }
    }
}

fn known(list: &[u8]) -> Result<Vec<Known>, ProcessError> {
    Ok(serde_json::from_slice(list).map_err(io::Error::from)?)
}

fn opened(vault: &Path) -> Result<OwnedFd, ProcessError> {
    let owner = rustix::process::geteuid().as_raw();
    let file = file(vault, owner);
    Ok(file.map_err(|error| ProcessError::Vault { why: error.to_string(), hint: error.hint() })?.into())
}

impl Drop for VaultProcess {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _gone = process.kill();
        let _reaped = process.wait();
    }
}
