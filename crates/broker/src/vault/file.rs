//! The vault's file.
//!
//! Two lines of text. The first is JSON: who the vault is, how often it was written, the ways to unlock it, and the secrets, each
//! sealed under a key of its own. The second is an HMAC-SHA-256 over the first under a key that hangs on the root key, so
//! that nothing can be cut off, swapped or taken back one by one. That the *whole* file was put back to an older one shows by its
//! generation, which the log and the store keep as well ([`Vault::generation`]).
//!
//! It is written beside and renamed, flushed before and after: it is never there in half. Who changes it holds a lock.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::Mac as _;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::SecretName;
use toolgate_sandbox::guarded::{GuardedKey, KEY_BYTES};
use zeroize::Zeroizing;

use super::keys::{KeySlot, KeySource, Opener, derive, mac, seal, unseal};
use super::uses::Uses;
use crate::home::{HomeError, Surroundings};
use crate::port::NoRandomnessError;
use crate::randomness;

/// What the first line begins with.
const FORMAT: u32 = 1;

/// How large the file may be, and one value.
const MAX_FILE: u64 = 32 << 20;
/// How long a value may be, in bytes.
pub const MAX_VALUE: usize = 64 << 10;
/// A value that is shorter than this is found in many places where it does not come from.
pub const SHORT_VALUE: usize = 8;
/// How many secrets there may be, and ways to unlock them.
const MAX_SECRETS: usize = 10_000;
const MAX_SLOTS: usize = 16;

/// Why the vault cannot be used. No value is ever part of it.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There is none.
    #[error("there is no vault at `{0}`")]
    None(PathBuf),
    /// There is one already.
    #[error("there is a vault already at `{0}`")]
    There(PathBuf),
    /// A key file is there already.
    #[error("there is a file already at `{0}`")]
    KeyFileThere(PathBuf),
    /// Others could read or replace it.
    #[error("`{0}` can be read or written by others, is no plain file, or is not yours")]
    NotPrivate(PathBuf),
    /// It could not be read or written.
    #[error("could not {what} `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not what this program wrote.
    #[error("the vault is damaged: {0}")]
    Damaged(&'static str),
    /// It is cut off, or parts of it were swapped or changed.
    #[error("the vault was changed by something else than this program, or is cut off")]
    Changed,
    /// An older vault was put in its place.
    #[error(
        "the vault was put back to an older state: it was written {found} times, and {expected} times before"
    )]
    RolledBack {
        /// How often this one was written.
        found: u64,
        /// How often it has to have been.
        expected: u64,
    },
    /// Another vault was put in its place.
    #[error("this is another vault than the one that was here")]
    Another,
    /// The passphrase, or whatever was given, does not open it.
    #[error("the vault does not open with {0}")]
    WrongKey(String),
    /// A passphrase is needed, and nobody can be asked.
    #[error("the vault opens with a passphrase, and there is nobody to ask for it")]
    NobodyToAsk,
    /// systemd gave no such credential.
    #[error("there is no systemd credential `{0}`")]
    NoCredential(String),
    /// What gives the key gave none.
    #[error("no key came from `{what}`")]
    Key {
        /// The file or command.
        what: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A key could be guessed.
    #[error("the key has fewer than {least} bytes")]
    ShortKey {
        /// The least that is taken.
        least: usize,
    },
    /// There is no such secret.
    #[error("there is no secret `{0}`")]
    NoSecret(SecretName),
    /// There is such a secret.
    #[error("there is a secret `{0}` already")]
    SecretThere(SecretName),
    /// It is another value, or another kind of secret, than the one that was to be renewed.
    #[error("the secret `{0}` has another value by now, or does not renew itself")]
    NotThis(SecretName),
    /// The value is empty or too long.
    #[error("the value is empty, or longer than {MAX_VALUE} bytes")]
    Value,
    /// There are too many.
    #[error("there are too many {0}")]
    TooMany(&'static str),
    /// The last way to unlock cannot be taken away.
    #[error("this is the only way to unlock the vault")]
    LastSlot,
    /// The system gives no memory that stays in memory.
    #[error("the system gives no memory for keys")]
    Memory(#[source] io::Error),
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomnessError),
    /// A file of ours could not be written.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Whoever was asked did not answer.
    #[error("{0}")]
    Unanswered(String),
}

impl VaultError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::None(_) => "`toolgate secret add NAME` makes one, and puts a secret into it".to_owned(),
            Self::There(_) => "`toolgate secret unlock` lists and changes how it opens".to_owned(),
            Self::KeyFileThere(path) => {
                format!("name another file, or move `{}` away", path.display())
            }
            Self::NotPrivate(path) => {
                format!("chown it to the gate's user and `chmod 600 {}`", path.display())
            }
            Self::Damaged(_) | Self::Changed => {
                "restore `vault` of the state folder from your backup, and look at who can write there".to_owned()
            }
            Self::RolledBack { .. } | Self::Another => {
                "if you restored a backup yourself, `toolgate secret trust` accepts it and writes that down; if not, \
                 somebody wants an old secret to be used"
                    .to_owned()
            }
            Self::WrongKey(_) => "try again, or unlock it in another way".to_owned(),
            Self::NobodyToAsk => {
                "start it in a terminal, or add a way without one: `toolgate secret unlock --add-key-file FILE`"
                    .to_owned()
            }
            Self::NoCredential(name) => {
                format!("add `LoadCredentialEncrypted={name}:FILE` to the unit of the service")
            }
            Self::ShortKey { .. } => {
                "let it be random: `head -c 32 /dev/urandom | base64` writes one".to_owned()
            }
            Self::NoSecret(_) => "`toolgate secret list` lists them".to_owned(),
            Self::SecretThere(name) => format!("`toolgate secret rotate {name}` gives it another value"),
            Self::LastSlot => "add another one first".to_owned(),
            Self::Home(error) => return error.hint(),
            Self::Io { .. }
            | Self::Key { .. }
            | Self::Memory(_)
            | Self::NoRandomness(_)
            | Self::NotThis(_)
            | Self::TooMany(_)
            | Self::Unanswered(_)
            | Self::Value => return None,
        };
        Some(hint)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    toolgate_vault: u32,
    #[serde(with = "b64")]
    id: Vec<u8>,
    generation: u64,
    slots: Vec<KeySlot>,
    #[serde(with = "secrets")]
    secrets: BTreeMap<SecretName, Sealed>,
}

/// A secret as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// When its value was last given, in milliseconds since 1970.
    pub changed_ms: u64,
    /// What it is good for.
    pub uses: Uses,
    /// How often its value was given.
    pub version: u32,
    #[serde(with = "b64")]
    sealed: Vec<u8>,
}

/// The vault as it lies on the disk, before it is unlocked. What it says is not checked yet.
#[derive(Debug)]
pub struct Locked {
    path: PathBuf,
    body: Body,
    line: Vec<u8>,
    mac: Vec<u8>,
}

impl Locked {
    /// Reads the file, after a look at who could have written it.
    ///
    /// # Errors
    /// There is none, it is not private, or no vault.
    pub fn read(path: &Path, surroundings: &Surroundings) -> Result<Self, VaultError> {
        Self::parse(path, &whole(path, file(path, surroundings.uid)?)?)
    }

    /// Takes the file's bytes apart.
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, VaultError> {
        let end = bytes.iter().position(|b| *b == b'\n').ok_or(VaultError::Changed)?;
        let (line, rest) = bytes.split_at(end);
        let mac = rest.get(1..).and_then(|rest| rest.strip_suffix(b"\n")).ok_or(VaultError::Changed)?;
        let mac = STANDARD_NO_PAD.decode(mac).map_err(|_base64| VaultError::Changed)?;
        // The strict reader first: nothing is there twice.
        Document::parse(line.to_vec(), &limits()).map_err(|_json| VaultError::Damaged("it is no JSON"))?;
        let body: Body = serde_json::from_slice(line)
            .map_err(|_shape| VaultError::Damaged("it is no vault of this version"))?;
        if body.toolgate_vault != FORMAT || body.id.len() != 16 || body.slots.len() > MAX_SLOTS {
            return Err(VaultError::Damaged("it is no vault of this version"));
        }
        Ok(Self { path: path.to_owned(), body, line: line.to_vec(), mac })
    }

    /// The secrets by name. Somebody who can write the file can write here what they like.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<SecretName, Sealed> {
        &self.body.secrets
    }

    /// The ways to unlock it.
    pub fn sources(&self) -> impl Iterator<Item = &KeySource> {
        self.body.slots.iter().map(|slot| &slot.from)
    }

    /// Unlocks it: in one of the ways that need nobody, else by the passphrase.
    ///
    /// # Errors
    /// None of them opens it, or it was changed.
    pub fn open(self, opener: &Opener<'_>) -> Result<Vault, VaultError> {
        let mut slots: Vec<&KeySlot> = self.body.slots.iter().collect();
        slots.sort_by_key(|slot| matches!(slot.from, KeySource::Passphrase { .. }));
        let mut failed = None;
        let mut root = None;
        for slot in slots {
            let opened = opener.key(&slot.from).and_then(|key| {
                slot.unwrap(&self.body.id, &key)?.ok_or_else(|| VaultError::WrongKey(slot.from.to_string()))
            });
            match opened {
                Ok(opened) => {
                    root = Some(opened);
                    break;
                }
                Err(error) => failed = Some(error),
            }
        }
        match (root, failed) {
            (Some(root), _) => self.checked(root),
            (None, Some(error)) => Err(error),
            (None, None) => Err(VaultError::Damaged("there is no way to unlock it")),
        }
    }

    /// Whether the whole is what was written.
    fn checked(self, root: GuardedKey) -> Result<Vault, VaultError> {
        let Self { path, body, line, mac: told } = self;
        file_mac(&root, &line).verify_slice(&told).map_err(|_other| VaultError::Changed)?;
        Ok(Vault { path, body, root })
    }
}

/// Opens the file of a vault, after a look at who could have written it.
///
/// # Errors
/// There is none, or it is no private file.
pub(super) fn file(path: &Path, owner: u32) -> Result<File, VaultError> {
    let io = |source| VaultError::Io { what: "read", path: path.to_owned(), source };
    // A link is not followed: it would be another file than the one that was looked at.
    let file = match OpenOptions::new().read(true).custom_flags(PLAIN).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(VaultError::None(path.to_owned()));
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(VaultError::NotPrivate(path.to_owned()));
        }
        Err(error) => return Err(io(error)),
    };
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() || meta.mode() & 0o077 != 0 || meta.uid() != owner {
        return Err(VaultError::NotPrivate(path.to_owned()));
    }
    if meta.len() > MAX_FILE {
        return Err(VaultError::Damaged("it is too large"));
    }
    Ok(file)
}

fn whole(path: &Path, file: File) -> Result<Vec<u8>, VaultError> {
    let io = |source| VaultError::Io { what: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// `O_NOFOLLOW`, as the standard library wants it.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// With `O_NONBLOCK`, so that nobody waits at a pipe of this name.
const PLAIN: i32 = NO_FOLLOW | rustix::fs::OFlags::NONBLOCK.bits() as i32;

fn limits() -> Limits {
    Limits { max_bytes: MAX_FILE as usize, ..Limits::default() }
}

fn file_mac(root: &GuardedKey, line: &[u8]) -> hmac::Hmac<Sha256> {
    let key = derive(root.get(), &[b"toolgate/vault/file/v1"]);
    mac(&*key, &[line])
}

/// The vault, unlocked and found to be as it was written.
#[derive(Debug)]
pub struct Vault {
    path: PathBuf,
    body: Body,
    root: GuardedKey,
}

impl Vault {
    /// Makes an empty vault that opens in this way. It is written by [`save`](Self::save).
    ///
    /// # Errors
    /// There is one, or no key for it.
    pub fn make(path: &Path, from: KeySource, opener: &Opener<'_>) -> Result<Self, VaultError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(VaultError::There(path.to_owned()));
        }
        let mut id = vec![0; 16];
        randomness::fill(&mut id)?;
        let mut root = Zeroizing::new([0; KEY_BYTES]);
        randomness::fill(&mut *root)?;
        let root = GuardedKey::new(&root).map_err(VaultError::Memory)?;
        let body =
            Body { toolgate_vault: FORMAT, id, generation: 0, slots: Vec::new(), secrets: BTreeMap::new() };
        let mut vault = Self { path: path.to_owned(), body, root };
        vault.add_slot(from, opener)?;
        Ok(vault)
    }

    /// The vault as it lies in this file, which opens with the same root key: after it was written again.
    ///
    /// # Errors
    /// It was changed by somebody else, or is another vault.
    pub fn reread(&self, file: File) -> Result<Self, VaultError> {
        let Locked { path, body, line, mac } = Locked::parse(&self.path, &whole(&self.path, file)?)?;
        file_mac(&self.root, &line).verify_slice(&mac).map_err(|_other| VaultError::Changed)?;
        let root = GuardedKey::new(self.root.get()).map_err(VaultError::Memory)?;
        Ok(Self { path, body, root })
    }

    /// Which vault this is: 16 random bytes.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        &self.body.id
    }

    /// How often it was written.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.body.generation
    }

    /// Whether this is the vault that was written last, or a newer one.
    ///
    /// # Errors
    /// It is another one, or older.
    pub fn follows(&self, id: &[u8], generation: u64) -> Result<(), VaultError> {
        if self.body.id != id {
            return Err(VaultError::Another);
        }
        if self.body.generation < generation {
            return Err(VaultError::RolledBack { found: self.body.generation, expected: generation });
        }
        Ok(())
    }

    /// The secrets by name.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<SecretName, Sealed> {
        &self.body.secrets
    }

    /// The ways to unlock it.
    pub fn sources(&self) -> impl Iterator<Item = &KeySource> {
        self.body.slots.iter().map(|slot| &slot.from)
    }

    /// The value of a secret.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn value(&self, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let sealed = self.body.secrets.get(name).ok_or_else(|| VaultError::NoSecret(name.clone()))?;
        let (key, purpose) = self.of_secret(name, sealed.version, &sealed.uses)?;
        unseal(&key, &purpose, &sealed.sealed).ok_or(VaultError::Changed)
    }

    /// A key that hangs on the root key, for one purpose outside of the file.
    #[must_use]
    pub fn derived(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        derive(self.root.get(), &[b"toolgate/vault/derived/v1", purpose.as_bytes()])
    }

    /// Adds a secret.
    ///
    /// # Errors
    /// There is one of this name, or the value cannot be kept.
    pub fn add(
        &mut self,
        name: &SecretName,
        uses: Uses,
        value: &[u8],
        now_ms: u64,
    ) -> Result<(), VaultError> {
        if self.body.secrets.contains_key(name) {
            return Err(VaultError::SecretThere(name.clone()));
        }
        if self.body.secrets.len() >= MAX_SECRETS {
            return Err(VaultError::TooMany("secrets"));
        }
        self.put(name, uses, value, 1, now_ms)
    }

    /// Gives a secret another value. What it is good for stays as it is.
    ///
    /// # Errors
    /// There is none of this name, or the value cannot be kept.
    pub fn rotate(&mut self, name: &SecretName, value: &[u8], now_ms: u64) -> Result<(), VaultError> {
        let sealed = self.body.secrets.get(name).ok_or_else(|| VaultError::NoSecret(name.clone()))?;
        self.put(name, sealed.uses.clone(), value, sealed.version.saturating_add(1), now_ms)
    }

    /// Says anew what a secret is good for.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn set_uses(&mut self, name: &SecretName, uses: Uses) -> Result<(), VaultError> {
        let value = self.value(name)?;
        let sealed = self.body.secrets.get(name).ok_or_else(|| VaultError::NoSecret(name.clone()))?;
        self.put(name, uses, &value, sealed.version, sealed.changed_ms)
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove(&mut self, name: &SecretName) -> Result<(), VaultError> {
        self.body.secrets.remove(name).map(drop).ok_or_else(|| VaultError::NoSecret(name.clone()))
    }

    /// Adds a way to unlock it.
    ///
    /// # Errors
    /// There is no key for it.
    pub fn add_slot(&mut self, from: KeySource, opener: &Opener<'_>) -> Result<(), VaultError> {
        if self.body.slots.len() >= MAX_SLOTS {
            return Err(VaultError::TooMany("ways to unlock it"));
        }
        let key = opener.key(&from)?;
        self.body.slots.push(KeySlot::wrap(&self.body.id, from, &key, &self.root)?);
        Ok(())
    }

    /// Takes a way to unlock it away, by its place in the list. Copies of the file that were made before still open with it.
    ///
    /// # Errors
    /// It is the last one, or there is none at this place.
    pub fn remove_slot(&mut self, at: usize) -> Result<KeySource, VaultError> {
        if at >= self.body.slots.len() {
            return Err(VaultError::Damaged("there is no such way to unlock it"));
        }
        if self.body.slots.len() == 1 {
            return Err(VaultError::LastSlot);
        }
        Ok(self.body.slots.remove(at).from)
    }

    /// Counts on from here, so that what was written before in its place stays older.
    pub fn supersede(&mut self, generation: u64) {
        self.body.generation = self.body.generation.max(generation);
    }

    /// Writes it, once more than before. It is durable and whole when this returns; whoever reads meanwhile sees the old one.
    ///
    /// # Errors
    /// It cannot be written; the file is as it was.
    pub fn save(&mut self, _held: &Held) -> Result<(), VaultError> {
        self.body.generation += 1;
        let written = self.write();
        if written.is_err() {
            self.body.generation -= 1;
        }
        written
    }

    fn write(&self) -> Result<(), VaultError> {
        replace(&self.path, &self.bytes()?)
    }

    /// The file as it is written.
    fn bytes(&self) -> Result<Vec<u8>, VaultError> {
        let io = |source| VaultError::Io { what: "write", path: self.path.clone(), source };
        let mut bytes = serde_json::to_vec(&self.body).map_err(|error| io(error.into()))?;
        let mac = file_mac(&self.root, &bytes).finalize().into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(STANDARD_NO_PAD.encode(mac).as_bytes());
        bytes.push(b'\n');
        if bytes.len() as u64 > MAX_FILE {
            return Err(VaultError::TooMany("secrets"));
        }
        Ok(bytes)
    }

    /// The file as it is after a secret that renews itself ([`Mint::renews_itself`](super::Mint::renews_itself)) has got another value, in
    /// place of its `version`th; it is to be written by whoever holds the lock.
    ///
    /// # Errors
    /// It has another value already, is gone, or is none of those.
    pub(super) fn renewed(
        mut self,
        name: &SecretName,
        version: u32,
        value: &[u8],
        now_ms: u64,
    ) -> Result<Vec<u8>, VaultError> {
        let sealed = self.body.secrets.get(name).ok_or_else(|| VaultError::NoSecret(name.clone()))?;
        let renews = sealed.uses.mint.as_ref().is_some_and(super::Mint::renews_itself);
        if !renews || sealed.version != version {
            return Err(VaultError::NotThis(name.clone()));
        }
        self.rotate(name, value, now_ms)?;
        self.body.generation += 1;
        self.bytes()
    }

    fn put(
        &mut self,
        name: &SecretName,
        uses: Uses,
        value: &[u8],
        version: u32,
        changed_ms: u64,
    ) -> Result<(), VaultError> {
        if value.is_empty() || value.len() > MAX_VALUE {
            return Err(VaultError::Value);
        }
        let (key, purpose) = self.of_secret(name, version, &uses)?;
        let sealed = seal(&key, &purpose, value)?;
        self.body.secrets.insert(name.clone(), Sealed { changed_ms, uses, version, sealed });
        Ok(())
    }

    /// The key of one version of a secret, and what its value is bound to.
    fn of_secret(
        &self,
        name: &SecretName,
        version: u32,
        uses: &Uses,
    ) -> Result<(Zeroizing<[u8; KEY_BYTES]>, Vec<u8>), VaultError> {
        let version = version.to_be_bytes();
        let uses = serde_json::to_vec(uses).map_err(|_shape| VaultError::Damaged("what a secret is for"))?;
        let parts: [&[u8]; 3] = [b"toolgate/vault/secret/v1", name.as_str().as_bytes(), &version];
        let key = derive(self.root.get(), &parts);
        let mut bound = Sha256::new();
        for part in parts.into_iter().chain([self.body.id.as_slice(), &uses]) {
            bound.update((part.len() as u64).to_be_bytes());
            bound.update(part);
        }
        Ok((key, bound.finalize().to_vec()))
    }
}

/// Puts a vault in the place of the one at this path: it is durable and whole when this returns, and whoever reads meanwhile sees the
/// old one. What it is, whoever reads it finds out.
///
/// # Errors
/// It cannot be written; the file is as it was.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = folder.join(format!("vault.{}.new", std::process::id()));
    // What somebody left who was cut off; one at a time is here.
    let _left = fs::remove_file(&draft);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _gone = fs::remove_file(&draft);
    }
    written.map_err(|source| VaultError::Io { what: "write", path: path.to_owned(), source })
}

/// How often the vault of these bytes says that it was written.
///
/// # Errors
/// They are no vault.
pub(super) fn generation_of(bytes: &[u8]) -> Result<u64, VaultError> {
    Ok(Locked::parse(Path::new("vault"), bytes)?.body.generation)
}

/// The right to change the vault: one process at a time.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

impl Held {
    /// Waits until nobody else changes the vault at this path.
    ///
    /// # Errors
    /// The lock cannot be made.
    pub fn take(vault: &Path) -> Result<Self, VaultError> {
        Self::at(vault.with_extension("lock"))
    }

    /// Waits until nobody else asks for another value of this secret, which renews itself: of two that ask with the same one, a server
    /// may take the second for a thief.
    ///
    /// # Errors
    /// The lock cannot be made.
    pub fn take_turn(vault: &Path, secret: &SecretName) -> Result<Self, VaultError> {
        Self::at(vault.with_extension(format!("{secret}.lock")))
    }

    fn at(path: PathBuf) -> Result<Self, VaultError> {
        let io = |source| VaultError::Io { what: "lock", path: path.clone(), source };
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(&path)
            .map_err(io)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
        Ok(Self { _lock: lock })
    }
}

/// Bytes as base64 without padding.
pub(super) mod b64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD_NO_PAD.decode(text).map_err(serde::de::Error::custom)
    }
}

/// Secrets by name.
mod secrets {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};
    use toolgate_core::name::SecretName;

    use super::Sealed;

    pub(super) fn serialize<S: Serializer>(
        all: &BTreeMap<SecretName, Sealed>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(all.iter().map(|(name, sealed)| (name.as_str(), sealed)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<SecretName, Sealed>, D::Error> {
        let all = BTreeMap::<String, Sealed>::deserialize(deserializer)?;
        all.into_iter()
            .map(|(name, sealed)| Ok((name.parse().map_err(serde::de::Error::custom)?, sealed)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
