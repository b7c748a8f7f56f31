//! Folders of files that strangers made, by descriptor: no link in them is followed, and nothing outside is touched.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, fchmod, openat, readlinkat, renameat_with,
    statat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// The mode of all folders of an image, when it is done.
const FOLDER: Mode = Mode::from_raw_mode(0o555);

/// Opens a folder in another one, and never a link to one.
pub(crate) fn folder(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// The names in a folder.
pub(crate) fn names(folder: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a file, a link, or a folder with all that is in it. What is not there is removed already.
pub(crate) fn remove(at: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(&at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    empty(&writable(&at, name)?)?;
    unlinkat(at, name, AtFlags::REMOVEDIR)
}

/// Opens a folder whatever its mode is, as one that can be written.
fn writable(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(at, name, flags, Mode::empty())?;
    // There is no other way by descriptor to change the mode of what one may not open.
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    folder(&found, b".")
}

/// Removes everything in a folder. Folders are first moved up, so that it does not matter how deep they are.
fn empty(top: &OwnedFd) -> Result<(), Errno> {
    let mut next: u64 = 0;
    loop {
        let mut folders = Vec::new();
        for name in names(top)? {
            match unlinkat(top, &*name, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::ISDIR) => folders.push(name),
                Err(error) => return Err(error),
            }
        }
        if folders.is_empty() {
            return Ok(());
        }
        for name in folders {
            let folder = writable(top, &name)?;
            for inner in names(&folder)? {
                match unlinkat(&folder, &*inner, AtFlags::empty()) {
                    Ok(()) => {}
                    Err(Errno::ISDIR) => {
                        // To move a folder takes the right to write it.
                        drop(writable(&folder, &inner)?);
                        up(&folder, &inner, top, &mut next)?;
                    }
                    Err(error) => return Err(error),
                }
            }
            unlinkat(top, &*name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Moves a folder to the top, by a name that nothing has there.
fn up(from: &OwnedFd, name: &[u8], top: &OwnedFd, next: &mut u64) -> Result<(), Errno> {
    loop {
        *next += 1;
        match renameat_with(from, name, top, format!("{next}"), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return done,
        }
    }
}

/// Makes all folders, from the deepest up, such that nobody writes them.
pub(crate) fn seal(top: &OwnedFd) -> Result<(), Errno> {
    for name in names(top)? {
        if kind(top, &name)? == FileType::Directory {
            seal(&folder(top, &name)?)?;
        }
    }
    fchmod(top, FOLDER)
}

fn kind(at: impl AsFd, name: &[u8]) -> Result<FileType, Errno> {
    statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map(|found| FileType::from_raw_mode(found.st_mode))
}

/// What is in a folder: each path, hidden characters escaped, and in words what is there.
pub(crate) fn list(top: &OwnedFd, each: &mut dyn FnMut(u64)) -> io::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    below(top, "", &mut all, each)?;
    Ok(all)
}

fn below(
    folder: &OwnedFd,
    at: &str,
    all: &mut BTreeMap<String, String>,
    each: &mut dyn FnMut(u64),
) -> io::Result<()> {
    for name in names(folder)? {
        let path = format!("{at}/{}", name.escape_ascii());
        let found = statat(folder, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = found.st_mode & 0o7777;
        let what = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                below(&self::folder(folder, &name)?, &path, all, each)?;
                format!("folder {mode:o}")
            }
            FileType::RegularFile => {
                let digest = digest(folder.as_fd(), &name, each)?;
                format!("file {mode:o} {} {digest}", found.st_size)
            }
            FileType::Symlink => {
                let target = readlinkat(folder, &*name, Vec::new())?;
                format!("link {}", target.as_bytes().escape_ascii())
            }
            _ => format!("special {:o}", found.st_mode),
        };
        all.insert(path, what);
    }
    Ok(())
}

fn digest(at: BorrowedFd<'_>, name: &[u8], each: &mut dyn FnMut(u64)) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(at, name, flags, Mode::empty())?);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 128 << 10]);
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        each(bytes.len() as u64);
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes as digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // To write to memory does not fail.
        let _done = write!(text, "{byte:02x}");
        text
    })
}

/// Opens a folder of ours.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}
