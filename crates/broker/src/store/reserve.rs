//! Room on the disk that is held back, so that open calls can be ended when everything else is full.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

/// How often one looks whether there is room again.
const AGAIN: Duration = Duration::from_millis(100);

/// How much is held back, in bytes.
const SIZE: u64 = 4 << 20;

/// The file that holds the room.
pub(super) struct Reserve {
    path: PathBuf,
    given_up: bool,
    /// When there was no room last.
    tried: Option<Instant>,
}

impl Reserve {
    /// Holds room in a folder. Where there is none to hold, it counts as given up.
    pub(super) fn hold(folder: &Path) -> Self {
        let mut reserve = Self { path: folder.join("state.db.reserve"), given_up: true, tried: None };
        reserve.restore();
        reserve
    }

    /// Gives the room up; says whether there was any.
    pub(super) fn give_up(&mut self) -> bool {
        if self.given_up {
            return false;
        }
        self.given_up = true;
        self.tried = Some(Instant::now());
        fs::remove_file(&self.path).is_ok()
    }

    /// Whether the room is given up.
    pub(super) const fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Holds it again if it was given up and there is room. Cheap to call: it looks only now and then.
    pub(super) fn restore(&mut self) {
        if self.given_up && self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN) {
            self.given_up = self.allocate().is_err();
            self.tried = self.given_up.then(Instant::now);
        }
    }

    fn allocate(&self) -> std::io::Result<()> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE);
        match allocated {
            // A file system without this call has no reserve; a full disk then poisons the store.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                Err(error.into())
            }
        }
    }
}
