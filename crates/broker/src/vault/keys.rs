//! Ways to unlock the vault: each wraps the root key under a key of its own.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hmac::{Hmac, Mac as _};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use toolgate_sandbox::guarded::{GuardedKey, KEY_BYTES};
use zeroize::Zeroizing;

use super::file::{VaultError, b64};
use crate::blob::{self, SealError};
use crate::home::{Surroundings, write_new};
use crate::person::{MEMORY_KIB, PASSES, stretched};
use crate::port::NoRandomnessError;
use crate::randomness;
use crate::totp::base32;

/// How short a passphrase may be, in characters.
pub use crate::person::MIN_PASSPHRASE_CHARS;

/// The least and the most that a file, a credential or a command may give as a key, in bytes.
const LEAST_GIVEN: usize = 16;
const MOST_GIVEN: u64 = 4096;

/// One way to unlock the vault, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySlot {
    /// Where its key comes from.
    pub from: KeySource,
    /// The nonce and the root key, sealed under that key.
    #[serde(with = "b64")]
    wrapped: Vec<u8>,
}

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeySource {
    /// What a command prints: the keyring of the desktop, a TPM, the command line of a password manager.
    Command {
        /// Program and arguments; no shell reads them.
        argv: Vec<String>,
    },
    /// A credential that systemd gives to the service (`LoadCredentialEncrypted=`).
    Credential {
        /// Its name in `$CREDENTIALS_DIRECTORY`.
        name: String,
    },
    /// A file that only the gate's user can read.
    File {
        /// Where it is.
        path: PathBuf,
    },
    /// A passphrase, stretched by Argon2id.
    Passphrase {
        /// Memory, in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Random.
        #[serde(with = "b64")]
        salt: Vec<u8>,
    },
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Command { argv } => write!(f, "the command `{}`", argv.join(" ").escape_debug()),
            Self::Credential { name } => write!(f, "the systemd credential `{}`", name.escape_debug()),
            Self::File { path } => write!(f, "the key file `{}`", path.display()),
            Self::Passphrase { .. } => f.write_str("a passphrase"),
        }
    }
}

impl KeySource {
    /// A passphrase, with a salt of its own.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn passphrase() -> Result<Self, VaultError> {
        let mut salt = vec![0; 16];
        randomness::fill(&mut salt)?;
        Ok(Self::Passphrase { memory_kib: MEMORY_KIB, passes: PASSES, salt })
    }
}

/// What the ways to unlock may need from outside.
pub struct Opener<'a> {
    /// The environment: where systemd puts credentials, and what a command runs in.
    pub surroundings: &'a Surroundings,
    /// Asks for the passphrase. `None` where nobody can be asked.
    pub passphrase: Option<&'a dyn Fn() -> Result<Zeroizing<String>, VaultError>>,
}

impl Opener<'_> {
    /// The key that a source gives.
    ///
    /// # Errors
    /// It gives none.
    pub fn key(&self, from: &KeySource) -> Result<Zeroizing<[u8; KEY_BYTES]>, VaultError> {
        match from {
            KeySource::Passphrase { memory_kib, passes, salt } => {
                let ask = self.passphrase.ok_or(VaultError::NobodyToAsk)?;
                if salt.len() < 16 {
                    return Err(VaultError::Damaged("the salt of the passphrase"));
                }
                let key = stretched(&ask()?, salt, *memory_kib, *passes);
                key.ok_or(VaultError::Damaged("the cost of the passphrase is out of bounds"))
            }
            KeySource::File { path } => given(&self.read(path)?),
            KeySource::Credential { name } => {
                let folder = self.surroundings.variables.get("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or_else(|| VaultError::NoCredential(name.clone()))?;
                // The name is one file's: it cannot lead out of the folder.
                if name.is_empty() || name.contains('/') || name.starts_with('.') {
                    return Err(VaultError::NoCredential(name.clone()));
                }
                given(&self.read(&Path::new(folder).join(name))?)
            }
            KeySource::Command { argv } => given(&self.printed(argv)?),
        }
    }

    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let unread = |source| VaultError::Key { what: path.display().to_string(), source };
        // Nobody waits at a pipe of this name.
        let options = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, options, Mode::empty()).map_err(|error| unread(error.into()))?;
        let file = File::from(file);
        let meta = file.metadata().map_err(unread)?;
        let foreign = meta.uid() != self.surroundings.uid && meta.uid() != 0;
        if !meta.is_file() || meta.mode() & 0o077 != 0 || foreign {
            return Err(VaultError::NotPrivate(path.to_owned()));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_GIVEN as usize));
        file.take(MOST_GIVEN).read_to_end(&mut bytes).map_err(unread)?;
        Ok(bytes)
    }

    fn printed(&self, argv: &[String]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let what = || argv.join(" ").escape_debug().to_string();
        let unread = |source| VaultError::Key { what: what(), source };
        let (program, arguments) =
            argv.split_first().ok_or_else(|| unread(io::ErrorKind::NotFound.into()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(&self.surroundings.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(unread)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_GIVEN as usize));
        let read = child.stdout.take().map_or(Ok(0), |out| out.take(MOST_GIVEN).read_to_end(&mut bytes));
        let status = child.wait().map_err(unread)?;
        read.map_err(unread)?;
        if !status.success() {
            return Err(unread(io::Error::other(format!("it ended with {status}"))));
        }
        Ok(bytes)
    }
}

/// A key from bytes that were random when they were made, however they are written down. The end of a line is not part of it.
fn given(bytes: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, VaultError> {
    let end = bytes.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let bytes = bytes.get(..end).unwrap_or_default();
    if bytes.len() < LEAST_GIVEN {
        return Err(VaultError::ShortKey { least: LEAST_GIVEN });
    }
    Ok(derive(b"toolgate/vault/given-key/v1", &[bytes]))
}

/// A key for one purpose: HMAC-SHA-256 of the parts, each preceded by its length, under `key`.
#[must_use]
pub fn derive(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; KEY_BYTES]> {
    Zeroizing::new(mac(key, parts).finalize().into_bytes().into())
}

/// The HMAC that [`derive`] is made of, to be compared in constant time.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    // A key of HMAC may have any length.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

/// What tells values in tokens apart: 40 bits of what [`derive()`] makes, as letters and digits. Nobody without the key can try values.
#[must_use]
pub fn tag(key: &[u8], parts: &[&[u8]]) -> String {
    let mac = derive(key, parts);
    base32(mac.get(..5).unwrap_or_default()).to_ascii_lowercase()
}

/// Seals bytes for one purpose.
///
/// # Errors
/// There is no randomness to be had, or they are too long.
pub fn seal(key: &[u8; KEY_BYTES], purpose: &[u8], bytes: &[u8]) -> Result<Vec<u8>, VaultError> {
    blob::wrap(key, purpose, bytes).map_err(|error| match error {
        SealError::NoRandomness => NoRandomnessError.into(),
        SealError::Wrong => VaultError::Damaged("a value that is too long"),
    })
}

/// Opens what [`seal`] sealed for the same purpose. `None`: another key, another purpose, or changed.
#[must_use]
pub fn unseal(key: &[u8; KEY_BYTES], purpose: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    blob::unwrap(key, purpose, sealed).ok()
}

fn purpose(vault: &[u8], from: &KeySource) -> Vec<u8> {
    let kind = match from {
        KeySource::Command { .. } => "command",
        KeySource::Credential { .. } => "credential",
        KeySource::File { .. } => "file",
        KeySource::Passphrase { .. } => "passphrase",
    };
    [b"toolgate/vault/slot/v1/", kind.as_bytes(), b"/", vault].concat()
}

impl KeySlot {
    /// Wraps the root key for one more way to unlock.
    pub(super) fn wrap(
        vault: &[u8],
        from: KeySource,
        key: &[u8; KEY_BYTES],
        root: &GuardedKey,
    ) -> Result<Self, VaultError> {
        let wrapped = seal(key, &purpose(vault, &from), root.get())?;
        Ok(Self { from, wrapped })
    }

    /// The root key, if this key opens it.
    pub(super) fn unwrap(
        &self,
        vault: &[u8],
        key: &[u8; KEY_BYTES],
    ) -> Result<Option<GuardedKey>, VaultError> {
        let Some(root) = unseal(key, &purpose(vault, &self.from), &self.wrapped) else { return Ok(None) };
        let root: &[u8; KEY_BYTES] =
            root.as_slice().try_into().map_err(|_length| VaultError::Damaged("the root key"))?;
        Ok(Some(GuardedKey::new(root).map_err(VaultError::Memory)?))
    }
}

/// Writes a new key file, if there is none at this path: 32 random bytes in hexadecimal, for the user alone.
///
/// # Errors
/// It cannot be written, or there is one.
pub fn make_key_file(path: &Path) -> Result<(), VaultError> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(VaultError::KeyFileThere(path.to_owned()));
    }
    let mut random = Zeroizing::new([0; KEY_BYTES]);
    randomness::fill(&mut *random)?;
    let text = Zeroizing::new(format!("{}\n", toolgate_core::hex::Hex(&*random)));
    write_new(path, text.as_bytes()).map_err(VaultError::from)
}
