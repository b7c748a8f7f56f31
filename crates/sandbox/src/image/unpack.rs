//! Lays the layers of an image over each other in a folder. The archives are hostile.
//!
//! Every step goes by descriptor from the folder itself, without leaving it, without following a link, and without crossing into
//! another mount. What is written is always a new file: an older one of that name is taken away first, so nothing is ever written
//! through a link or a second name. Nothing is kept that could give rights: no owner, no bits but those of reading and running, no
//! attributes, no devices.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fchmod, linkat, mkdirat, openat, openat2, statat,
    symlinkat,
};
use rustix::io::Errno;

use super::tar::{Entry, Kind, Reader, TarError};
use super::tree;

/// How many entries all layers of an image may have together.
const MAX_ENTRIES: u64 = 1_000_000;

/// What begins the name of an entry that says what is gone of the layers below.
const GONE: &[u8] = b".wh.";

/// The name of an entry that says that of its folder nothing is left of the layers below.
const ALL_GONE: &[u8] = b".wh..wh..opq";

/// What is not kept of an image, and how often it was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Dropped {
    /// Devices, pipes and sockets, which are not made.
    pub special: u64,
    /// Bits by which files run as their owner or group.
    pub set_id: u64,
    /// Entries with attributes, such as capabilities.
    pub attributes: u64,
}

/// An image that is being unpacked.
#[derive(Debug)]
pub(super) struct Unpacker {
    root: OwnedFd,
    entries: u64,
    /// What the layer that is being read has made, and what leads to it.
    made: BTreeSet<Vec<u8>>,
    pub(super) dropped: Dropped,
}

fn refused(path: &[u8], why: &'static str) -> TarError {
    TarError::Entry { path: path.to_vec(), why }
}

/// What leads to something, and its own name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

impl Unpacker {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, entries: 0, made: BTreeSet::new(), dropped: Dropped::default() }
    }

    /// Reads one layer, and gives its input back.
    pub(super) fn layer<R: Read>(&mut self, input: R) -> Result<R, TarError> {
        self.made.clear();
        let mut archive = Reader::new(input);
        while let Some(entry) = archive.next()? {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(TarError::Form("the image has more than 1000000 entries"));
            }
            self.entry(&entry, &mut archive)?;
        }
        Ok(archive.into_inner())
    }

    /// The folder itself, when all layers are there.
    pub(super) fn done(self) -> (OwnedFd, Dropped) {
        (self.root, self.dropped)
    }

    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut Reader<R>) -> Result<(), TarError> {
        let path = &*entry.path;
        if path.is_empty() {
            let is_root = entry.kind == Kind::Folder;
            return if is_root { Ok(()) } else { Err(refused(path, "is in the place of the root")) };
        }
        let (above, name) = split(path);
        if above.split(|byte| *byte == b'/').any(|part| part.starts_with(GONE)) {
            return Err(refused(path, "lies below something that is gone"));
        }
        if let Some(gone) = name.strip_prefix(GONE) {
            return self.gone(path, above, name, gone);
        }
        let parent = self.folder(path, above)?;
        self.dropped.attributes += u64::from(entry.attributes);
        self.dropped.set_id += u64::from(entry.kind == Kind::File && entry.mode & 0o6000 != 0);
        let step = |error: Errno| TarError::Io(error.into());
        match &entry.kind {
            Kind::File => {
                tree::remove(&parent, name).map_err(step)?;
                let mode = Mode::from_raw_mode(if entry.mode & 0o111 == 0 { 0o444 } else { 0o555 });
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(openat(&parent, name, flags, mode).map_err(step)?);
                if io::copy(archive, &mut file)? != entry.size {
                    return Err(TarError::Cut);
                }
                file.flush()?;
                // Whatever the mask of this process is.
                fchmod(&file, mode).map_err(step)?;
            }
            Kind::Folder => match kind(&parent, name) {
                Ok(FileType::Directory) => {}
                Ok(_) | Err(Errno::NOENT) => {
                    tree::remove(&parent, name).map_err(step)?;
                    mkdirat(&parent, name, Mode::from_raw_mode(0o700)).map_err(step)?;
                }
                Err(error) => return Err(step(error)),
            },
            Kind::Hard(target) => {
                let (target_above, target_name) = split(target);
                let found = self.inside(target_above).map_err(|_none| refused(path, NO_TARGET))?;
                match kind(&found, target_name) {
                    Ok(FileType::RegularFile | FileType::Symlink) if target != path => {}
                    _ => return Err(refused(path, NO_TARGET)),
                }
                tree::remove(&parent, name).map_err(step)?;
                linkat(&found, target_name, &parent, name, AtFlags::empty())
                    .map_err(|_gone| refused(path, NO_TARGET))?;
            }
            Kind::Link(target) => {
                tree::remove(&parent, name).map_err(step)?;
                symlinkat(&**target, &parent, name).map_err(step)?;
            }
            Kind::Special => {
                // What it replaces is gone all the same.
                tree::remove(&parent, name).map_err(step)?;
                self.dropped.special += 1;
            }
        }
        self.note(path);
        Ok(())
    }

    /// Remembers that this layer has made something, and needs what leads to it.
    fn note(&mut self, path: &[u8]) {
        let mut path = path;
        while !path.is_empty() && self.made.insert(path.to_vec()) {
            path = split(path).0;
        }
    }

    /// Opens a folder of the image.
    fn inside(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let how = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let path = if path.is_empty() { b"." } else { path };
        openat2(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), how)
    }

    /// Opens the folder of an entry; what is not there is made.
    fn folder(&self, of: &[u8], path: &[u8]) -> Result<OwnedFd, TarError> {
        match self.inside(path) {
            Err(Errno::NOENT) => {}
            found => return found.map_err(|error| leads(of, error)),
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let (above, name) = split(path.get(..end).unwrap_or_default());
            let parent = self.inside(above).map_err(|error| leads(of, error))?;
            match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(TarError::Io(error.into())),
            }
        }
        self.inside(path).map_err(|error| leads(of, error))
    }

    /// Takes away what an entry says is gone: what layers below have made there, and nothing that this one has.
    fn gone(&self, path: &[u8], above: &[u8], name: &[u8], gone: &[u8]) -> Result<(), TarError> {
        let parent = match self.inside(above) {
            Ok(parent) => parent,
            // What is not there is gone.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(leads(path, error)),
        };
        let done = match gone {
            _ if name == ALL_GONE => self.clear(&parent, above),
            b"" | b"." | b".." => return Err(refused(path, "says that a folder itself is gone")),
            // Marks of other programs, which are no files.
            _ if gone.starts_with(GONE) => Ok(()),
            _ => self.take(&parent, above, gone),
        };
        done.map_err(|error| TarError::Io(error.into()))
    }

    fn take(&self, parent: &OwnedFd, above: &[u8], name: &[u8]) -> Result<(), Errno> {
        let path = if above.is_empty() { name.to_vec() } else { [above, name].join(&b'/') };
        if !self.made.contains(&path) {
            return tree::remove(parent, name);
        }
        match tree::folder(parent, name) {
            Ok(folder) => self.clear(&folder, &path),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn clear(&self, folder: &OwnedFd, path: &[u8]) -> Result<(), Errno> {
        tree::names(folder)?.iter().try_for_each(|name| self.take(folder, path, name))
    }
}

const NO_TARGET: &str = "is another name for something that is not in the image, or no file";

fn kind(at: impl AsFd, name: &[u8]) -> Result<FileType, Errno> {
    statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map(|found| FileType::from_raw_mode(found.st_mode))
}

/// Why the folder of an entry is not opened.
fn leads(path: &[u8], error: Errno) -> TarError {
    match error {
        Errno::LOOP => refused(path, "leads through a symbolic link"),
        Errno::NOTDIR => refused(path, "leads through something that is no folder"),
        Errno::XDEV => refused(path, "leads out of the image"),
        error => TarError::Io(error.into()),
    }
}
