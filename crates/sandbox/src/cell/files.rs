//! Files that are put into a cell before its program starts, and taken out of it when it has ended.
//!
//! They are put there by the first process of the cell after it gave up everything, so with no more rights than the program itself
//! has. They are taken by descriptor, from the folder that the cell was started in, as the cell saw it; no link is followed either
//! way, and nothing is looked up by a path of the host.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bare::Scratch;
use super::root::{Failure, Step as _};

/// A file that a cell is given, below the folder that it is started in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Where: a [path below the folder](is_below).
    pub path: String,
    /// What it holds.
    #[serde(serialize_with = "encode", deserialize_with = "decode")]
    pub content: Vec<u8>,
    /// Whether it can be run.
    pub runs: bool,
}

impl fmt::Debug for Given {
    /// What is in it is an agent's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("path", &self.path).finish_non_exhaustive()
    }
}

fn encode<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Whether a path leads to something below the folder it begins in: names with one slash between them, none of them `.` or `..`,
/// as long as Linux allows.
#[must_use]
pub fn is_below(path: &str) -> bool {
    let name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains('\0');
    path.len() < 4096 && path.split('/').all(name)
}

/// Writes a file below the working directory, in place of one that is there.
pub(super) fn place(given: &Given) -> Result<(), Failure> {
    let step = || format!("the file `{}`", given.path.escape_debug());
    if !is_below(&given.path) {
        return Err("it has to lie below the folder that the cell is started in").step(step());
    }
    write(given).step(step())
}

fn write(given: &Given) -> io::Result<()> {
    let (above, name) = given.path.rsplit_once('/').unwrap_or(("", &given.path));
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(rustix::fs::CWD, ".", folder, Mode::empty())?;
    for part in above.split('/').filter(|part| !part.is_empty()) {
        match mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        at = openat(&at, part, folder, Mode::empty())?;
    }
    match statat(&at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if FileType::from_raw_mode(there.st_mode).is_file() => {
            unlinkat(&at, name, AtFlags::empty())?;
        }
        Ok(_) => return Err(io::Error::other("something that is no file has this name")),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(if given.runs { 0o755 } else { 0o644 });
    File::from(openat(&at, name, new, mode)?).write_all(&given.content)
}

/// The folder that a cell was started in, as the cell sees it. What it holds stays there for as long as this does.
#[derive(Debug)]
pub struct Folder {
    pub(super) at: OwnedFd,
    /// Where it is a folder of the host that is removed after the cell.
    pub(super) _scratch: Option<Scratch>,
}

/// Why a file is not taken out of a cell.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// It has more bytes than are taken.
    #[error("it has {bytes} bytes, and {most} can be taken")]
    Large {
        /// How many it has.
        bytes: u64,
        /// How many it may have.
        most: u64,
    },
    /// There is none.
    #[error("there is no such file")]
    Missing,
    /// It is something else, or what leads there is a link.
    #[error("it is no plain file, or a link leads there")]
    NoFile,
    /// It leads out of the folder.
    #[error("it has to lie below the folder that is worked in")]
    Outside,
    /// The system refused it.
    #[error("it could not be read")]
    System(#[source] io::Error),
}

impl Folder {
    /// Takes a file: what it holds, if it is a plain one, reached without a link, with at most so many bytes. It may block for as
    /// long as the file system does.
    ///
    /// # Errors
    /// See [`TakeError`].
    pub fn take(&self, path: &str, most: u64) -> Result<Vec<u8>, TakeError> {
        if !is_below(path) {
            return Err(TakeError::Outside);
        }
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // What is no file is opened without waiting for anybody, and looked at before it is read.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat2(self.at.as_fd(), path, flags, Mode::empty(), how) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Err(TakeError::Missing),
            Err(Errno::LOOP | Errno::XDEV | Errno::NOTDIR | Errno::NXIO) => return Err(TakeError::NoFile),
            Err(error) => return Err(TakeError::System(error.into())),
        };
        let found = fstat(&file).map_err(|error| TakeError::System(error.into()))?;
        if !FileType::from_raw_mode(found.st_mode).is_file() {
            return Err(TakeError::NoFile);
        }
        let mut content = Vec::new();
        let read = (&file).take(most.saturating_add(1)).read_to_end(&mut content);
        read.map_err(TakeError::System)?;
        let bytes = content.len() as u64;
        if bytes > most {
            let bytes = u64::try_from(found.st_size).unwrap_or(bytes).max(bytes);
            return Err(TakeError::Large { bytes, most });
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below() {
        for path in ["a", "a/b", ".a", "a b", "..a", "a/..b", &"x".repeat(255)] {
            assert!(is_below(path), "{path}");
        }
        let (long, deep) = ("x".repeat(256), "x/".repeat(2048) + "x");
        for path in ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "a/./b", "../a", "a\0b", &long, &deep] {
            assert!(!is_below(path), "{path}");
        }
    }

    #[test]
    fn bytes_survive_the_way_into_the_cell() {
        let given = Given { path: "a".to_owned(), content: (0..=255).collect(), runs: true };
        let text = serde_json::to_string(&given).unwrap();
        assert_eq!(serde_json::from_str::<Given>(&text).unwrap(), given);
        assert!(serde_json::from_str::<Given>(r#"{"path":"a","content":"*","runs":true}"#).is_err());
    }
}
