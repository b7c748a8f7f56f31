//! The signer: it remembers the last state that it signed, apart from the log, and never signs a fork.
//!
//! Its folder has three files: `key` (the signing key, readable by its owner alone), `last` (the text of the last
//! checkpoint signed) and `lock`. `last` is durable before the signature leaves this module, so a log that was rolled
//! back, restored from a backup or written by a second process cannot get two signatures that disagree.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::folder::{read_bounded, write_durable};
use crate::note::{NoteError, SigningKey, VerifierKey};
use crate::tree::{self, Hash, ProofError};

/// Why a signer cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenSignerError {
    /// Another process is the signer.
    #[error("another process holds the signer's lock `{0}`")]
    Busy(PathBuf),
    /// A key is there already.
    #[error("there is a key at `{0}` already; a log keeps its key")]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("`{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The key file is no key, or its name cannot be one.
    #[error("`{path}`: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: NoteError,
    },
    /// The memory is not readable as what it should be.
    #[error("the signer's memory `{path}` is damaged: {source}; {}", restore())]
    Memory {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// The memory is gone, so nobody knows what was signed.
    #[error("the signer's memory `{path}` is gone, so it could sign a fork; {}", restore())]
    NoMemory {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is no key yet.
    #[error("there is no key at `{0}`")]
    NoKey(PathBuf),
    /// Others may read the key.
    #[error("others may read the key `{0}`; make it readable by its owner alone (mode 0600)")]
    Readable(PathBuf),
    /// No randomness could be had.
    #[error("no randomness: {0}")]
    Random(String),
}

/// What to do when the memory is lost. The first three lines of a checkpoint are its text.
fn restore() -> &'static str {
    "restore it from a backup, or write to it the first three lines of the newest checkpoint that anybody holds"
}

/// Why a state is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It is not an extension of what was signed before.
    #[error(
        "refused to sign a fork: {size} entries with root {root} do not extend the {signed} signed before: {source}"
    )]
    Fork {
        /// The size to be signed.
        size: u64,
        /// The root to be signed.
        root: Hash,
        /// The size signed before.
        signed: u64,
        /// What does not fit.
        source: ProofError,
    },
    /// It could not be remembered, so it was not signed.
    #[error("the signer could not write its memory `{path}`: {source}")]
    Remember {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It is smaller than what was signed before.
    #[error("refused to sign a roll-back: {size} entries, but {signed} were signed before")]
    RollBack {
        /// The size to be signed.
        size: u64,
        /// The size signed before.
        signed: u64,
    },
}

/// Signs the checkpoints of one log. While it lives, no other process can be that log's signer.
#[derive(Debug)]
pub struct Signer {
    key: SigningKey,
    memory: PathBuf,
    last: Checkpoint,
    /// Held for its lock.
    _lock: File,
}

impl Signer {
    /// Makes the signer of a new log named `origin`, with a key of 32 random bytes.
    ///
    /// # Errors
    /// There is one already, the name cannot be one, or the files cannot be written.
    pub fn create(folder: &Path, origin: &str, seed: &Zeroizing<[u8; 32]>) -> Result<Self, OpenSignerError> {
        let (path, memory) = (folder.join("key"), folder.join("last"));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenSignerError::Io { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))?;
        let lock = lock(&folder.join("lock"))?;
        if path.try_exists().map_err(io(&path))? {
            return Err(OpenSignerError::Exists(path));
        }
        let key = SigningKey::from_seed(origin, seed)
            .map_err(|source| OpenSignerError::Key { path: path.clone(), source })?;
        let last = Checkpoint { origin: origin.to_owned(), size: 0, root: Hash::empty_root() };
        // The memory first: a key without a memory is refused, and there would be no way on after a crash.
        write_durable(&memory, last.text().as_bytes(), true).map_err(io(&memory))?;
        write_durable(&path, key.to_text().as_bytes(), true).map_err(io(&path))?;
        Ok(Self { key, memory, last, _lock: lock })
    }

    /// As [`create`](Self::create), with randomness of the operating system.
    ///
    /// # Errors
    /// As `create`, or there is no randomness.
    pub fn generate(folder: &Path, origin: &str) -> Result<Self, OpenSignerError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|error| OpenSignerError::Random(error.to_string()))?;
        Self::create(folder, origin, &seed)
    }

    /// Opens the signer of a log.
    ///
    /// # Errors
    /// The key or the memory is gone, damaged or readable by others, or another process holds the lock.
    pub fn open(folder: &Path) -> Result<Self, OpenSignerError> {
        let (path, memory) = (folder.join("key"), folder.join("last"));
        let key = read_key(&path)?;
        let lock = lock(&folder.join("lock"))?;
        let text = match read_bounded(&memory, 4096) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenSignerError::NoMemory { path: memory });
            }
            Err(source) => return Err(OpenSignerError::Io { path: memory, source }),
        };
        let origin = key.verifier().name();
        let last = Checkpoint::parse(&text).and_then(|last| match last.origin == origin {
            true => Ok(last),
            false => Err(CheckpointError::Origin { found: last.origin, wanted: origin.to_owned() }),
        });
        let last = last.map_err(|source| OpenSignerError::Memory { path: memory.clone(), source })?;
        Ok(Self { key, memory, last, _lock: lock })
    }

    /// The public key.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// What was signed last. Of a new log, the empty tree, which nobody may have seen signed.
    #[must_use]
    pub const fn last(&self) -> &Checkpoint {
        &self.last
    }

    /// Signs the state `size`, `root`, given the proof that it extends [`last`](Self::last), and returns the signed
    /// checkpoint.
    ///
    /// # Errors
    /// It does not extend it, or could not be remembered.
    pub fn sign(&mut self, size: u64, root: Hash, consistency: &[Hash]) -> Result<String, SignError> {
        let signed = self.last.size;
        if size < signed {
            return Err(SignError::RollBack { size, signed });
        }
        tree::verify_consistency((signed, self.last.root), (size, root), consistency)
            .map_err(|source| SignError::Fork { size, root, signed, source })?;
        let next = Checkpoint { origin: self.last.origin.clone(), size, root };
        let text = next.text();
        if next != self.last {
            write_durable(&self.memory, text.as_bytes(), true)
                .map_err(|source| SignError::Remember { path: self.memory.clone(), source })?;
            // COMMIT POINT: from here on, nothing but an extension of this state is ever signed.
            self.last = next;
        }
        Ok(self.key.sign(&text).to_string())
    }
}

/// Reads the verifier key of the log whose signer has this folder, without becoming the signer.
///
/// # Errors
/// There is no key, or it is not readable as one.
pub fn verifier_key(folder: &Path) -> Result<VerifierKey, OpenSignerError> {
    read_key(&folder.join("key")).map(|key| key.verifier().clone())
}

fn read_key(path: &Path) -> Result<SigningKey, OpenSignerError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => OpenSignerError::NoKey(path.to_owned()),
        _ => OpenSignerError::Io { path: path.to_owned(), source },
    };
    if fs::metadata(path).map_err(io)?.permissions().mode() & 0o077 != 0 {
        return Err(OpenSignerError::Readable(path.to_owned()));
    }
    let bytes = Zeroizing::new(read_bounded(path, 4096).map_err(io)?);
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim_end_matches('\n');
    SigningKey::parse(text).map_err(|source| OpenSignerError::Key { path: path.to_owned(), source })
}

fn lock(path: &Path) -> Result<File, OpenSignerError> {
    let io = |source| OpenSignerError::Io { path: path.to_owned(), source };
    let file =
        fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenSignerError::Busy(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}
