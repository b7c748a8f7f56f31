//! Which processes are alive, so that nobody ends the calls of somebody who still runs them.
//!
//! A process that opens the store takes a random number and holds a lock on a file of that name. The kernel lets go of
//! the lock however the process ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// This process, as an owner of calls.
pub(super) struct Owner {
    /// Its number.
    pub(super) id: i64,
    path: PathBuf,
    _lock: File,
}

impl Owner {
    /// Takes a number and its lock.
    pub(super) fn take(folder: &Path) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let id = i64::from_be_bytes(random) & i64::MAX;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder_of(folder))?;
        let path = path_of(folder, id);
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { id, path, _lock: lock })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Whether the file stays does not matter: without its lock it says that the process is gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the process with this number still runs. If that cannot be found out, it does.
pub(super) fn is_alive(folder: &Path, id: i64) -> bool {
    match File::open(path_of(folder, id)) {
        Ok(file) => rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn folder_of(folder: &Path) -> PathBuf {
    folder.join("running")
}

fn path_of(folder: &Path, id: i64) -> PathBuf {
    folder_of(folder).join(format!("{id:016x}"))
}
