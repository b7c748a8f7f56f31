//! A log as a folder: `checkpoint` and `tile/…`, as c2sp.org/tlog-tiles lays them out.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::note::MAX_NOTE;
use crate::proof::{Proof, Trust, VerifyProofError};
use crate::record::MAX_ENTRY;
use crate::tile::{self, HEIGHT, Kind, Tile, TileError, WIDTH};
use crate::tree::{self, Hash};

/// Why something cannot be read from, or written to, the folder of a log.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The log has no such entry.
    #[error("there is no entry {index}: the log has {size}")]
    NoEntry {
        /// The index asked for.
        index: u64,
        /// How many entries there are.
        size: u64,
    },
    /// A file could not be read or written.
    #[error("`{path}`: {source}")]
    Io {
        /// The file, inside the folder.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A proof that was just made does not hold: a tile is damaged.
    #[error("the log is damaged: the proof made of it does not hold: {0}")]
    Proof(#[from] VerifyProofError),
    /// A file has other contents than it must.
    #[error("`{path}`: {source}")]
    Tile {
        /// The file, inside the folder.
        path: String,
        /// What is wrong.
        source: TileError,
    },
}

/// The folder of a log.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder at `root`. Nothing is read yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The signed checkpoint; `None` if nothing was published yet.
    ///
    /// # Errors
    /// It is there but cannot be read, or is too long.
    pub fn read_checkpoint(&self) -> Result<Option<Vec<u8>>, FolderError> {
        optional(self.read_file("checkpoint", MAX_NOTE))
    }

    /// The bytes of a tile or bundle. A partial one may be gone once the full one is there: then its part of that.
    ///
    /// # Errors
    /// It cannot be read, or is larger than it can be. The contents are not checked.
    pub fn read_tile(&self, tile: Tile) -> Result<Vec<u8>, FolderError> {
        let limit = match tile.kind {
            Kind::Entries => (MAX_ENTRY + 2) * 256,
            Kind::Hashes(_) => 32 * 256,
        };
        let exact = self.read_file(&tile.path(), limit);
        if tile.is_full() || !matches!(&exact, Err(e) if is_missing(e)) {
            return exact;
        }
        let Ok(mut bytes) = self.read_file(&tile.full().path(), limit) else {
            return exact;
        };
        let width = usize::from(tile.width);
        let length = match tile.kind {
            Kind::Hashes(_) => width * 32,
            Kind::Entries => {
                let entries = tile::split_framed(&bytes).map_err(|e| damaged(tile, e))?;
                entries.iter().take(width).map(|entry| entry.len() + 2).sum()
            }
        };
        bytes.truncate(length);
        Ok(bytes)
    }

    /// The hashes of a tile.
    ///
    /// # Errors
    /// It cannot be read, or has another number of them.
    pub fn read_hashes(&self, tile: Tile) -> Result<Vec<Hash>, FolderError> {
        let bytes = self.read_tile(tile)?;
        tile::split_hashes(&bytes, usize::from(tile.width)).map_err(|e| damaged(tile, e))
    }

    /// Calls `each` with the index and bytes of every entry from `first` on, in a log of `size` entries, until it
    /// says `false`.
    ///
    /// # Errors
    /// A bundle cannot be read.
    pub fn for_entries(
        &self,
        first: u64,
        size: u64,
        mut each: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), FolderError> {
        let bundles = (first / WIDTH..).map_while(|index| tile::tile_at(Kind::Entries, index, size));
        for bundle in bundles {
            let bytes = self.read_tile(bundle)?;
            let entries =
                tile::split_bundle(&bytes, usize::from(bundle.width)).map_err(|e| damaged(bundle, e))?;
            for (index, entry) in (bundle.index * WIDTH..).zip(entries) {
                if index >= first && !each(index, entry) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The bytes of one entry in a log of `size` entries.
    ///
    /// # Errors
    /// There is no such entry, or its bundle cannot be read.
    pub fn entry(&self, index: u64, size: u64) -> Result<Vec<u8>, FolderError> {
        let mut found = None;
        self.for_entries(index, size, |_, entry| {
            found = Some(entry.to_vec());
            false
        })?;
        found.ok_or(FolderError::NoEntry { index, size })
    }

    /// Looks up the nodes of the tree of `size` leaves, for [`tree::prove_inclusion`] and its like.
    pub fn nodes(&self, size: u64) -> impl FnMut(u32, u64) -> Result<Hash, FolderError> {
        let folder = self.clone();
        let mut cache: BTreeMap<Tile, Vec<Hash>> = BTreeMap::new();
        move |level, index| {
            let missing = || FolderError::NoEntry { index: index << level, size };
            let kind = Kind::Hashes(u8::try_from(level / HEIGHT).ok().ok_or_else(missing)?);
            let first = index << (level % HEIGHT);
            let tile = tile::tile_at(kind, first / WIDTH, size).ok_or_else(missing)?;
            let hashes = match cache.entry(tile) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(folder.read_hashes(tile)?),
            };
            let start = usize::try_from(first % WIDTH).ok().ok_or_else(missing)?;
            let part = hashes.get(start..start + (1 << (level % HEIGHT))).ok_or_else(missing)?;
            Ok(tree::complete_root(part))
        }
    }

    /// Makes the proof of one entry under the current checkpoint, and returns it with the entry. It was verified.
    ///
    /// # Errors
    /// There is no such entry, or the log does not prove it.
    pub fn prove(&self, index: u64, trust: &Trust) -> Result<(Proof, Vec<u8>), FolderError> {
        let note = self.read_file("checkpoint", MAX_NOTE)?;
        let (checkpoint, _) = trust.open(&note)?;
        let entry = self.entry(index, checkpoint.size)?;
        let hashes = tree::prove_inclusion(index, checkpoint.size, &mut self.nodes(checkpoint.size))?;
        let checkpoint = String::from_utf8_lossy(&note).into_owned();
        let proof = Proof { extra: None, index, hashes, checkpoint };
        proof.verify(&entry, trust)?;
        Ok((proof, entry))
    }

    fn read_file(&self, path: &str, limit: usize) -> Result<Vec<u8>, FolderError> {
        read_bounded(&self.root.join(path), limit)
            .map_err(|source| FolderError::Io { path: path.to_owned(), source })
    }
}

fn damaged(tile: Tile, source: TileError) -> FolderError {
    FolderError::Tile { path: tile.path(), source }
}

fn is_missing(error: &FolderError) -> bool {
    matches!(error, FolderError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// `None` in place of the error that there is no such file.
fn optional<T>(result: Result<T, FolderError>) -> Result<Option<T>, FolderError> {
    match result {
        Err(error) if is_missing(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// Reads a file that must not be longer than `limit`.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Replaces the contents of a file in one step that survives a power cut: temporary file, fsync, rename, fsync of the
/// folder. `private` makes it readable by its owner alone.
pub(crate) fn write_durable(path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
    replace(path, bytes, private, true)?;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    File::open(folder)?.sync_all()
}

/// Replaces the contents of a file in one step; `durable` makes sure that the name never stands for half of them.
fn replace(path: &Path, bytes: &[u8], private: bool, durable: bool) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mode = if private { 0o600 } else { 0o644 };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)
}

/// Files written to a folder that are not durable yet.
pub(crate) struct Unsynced<'a> {
    folder: &'a Folder,
    written: BTreeSet<PathBuf>,
}

/// With more new files than this, one flush of the whole file system is cheaper than one for each.
const MANY: usize = 24;

impl<'a> Unsynced<'a> {
    /// Begins, and makes the folder if there is none.
    pub(crate) fn new(folder: &'a Folder) -> Result<Self, FolderError> {
        let path = folder.root.display().to_string();
        fs::create_dir_all(&folder.root).map_err(|source| FolderError::Io { path, source })?;
        Ok(Self { folder, written: BTreeSet::new() })
    }

    /// Writes a tile or bundle.
    pub(crate) fn write(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), FolderError> {
        let name = tile.path();
        let path = self.folder.root.join(&name);
        let write = || {
            // What a published checkpoint needs is never replaced by bytes that are not durable yet.
            if read_bounded(&path, bytes.len()).is_ok_and(|present| present == bytes) {
                return Ok(());
            }
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            replace(&path, bytes, false, false)
        };
        write().map_err(|source| FolderError::Io { path: name, source })?;
        self.written.insert(path);
        Ok(())
    }

    /// Makes durable all that was written, and the names in all folders above it.
    pub(crate) fn sync(self) -> Result<(), FolderError> {
        let root = &self.folder.root;
        let failed = |path: &Path, source| FolderError::Io { path: path.display().to_string(), source };
        if self.written.len() > MANY {
            let flush = File::open(root).and_then(|file| rustix::fs::syncfs(&file).map_err(io::Error::from));
            return flush.map_err(|source| failed(root, source));
        }
        let above = |path: &'_ PathBuf| path.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>();
        let folders: BTreeSet<PathBuf> =
            self.written.iter().flat_map(above).filter(|path| path.starts_with(root)).collect();
        for path in self.written.iter().chain(&folders) {
            File::open(path).and_then(|file| file.sync_all()).map_err(|source| failed(path, source))?;
        }
        Ok(())
    }
}

/// Removes the partial versions of a tile that is full now. That they are gone need not be durable, nor need it
/// succeed: nothing reads them.
pub(crate) fn remove_partials(folder: &Folder, tile: Tile) {
    let _ = fs::remove_dir_all(folder.root.join(format!("{}.p", tile.full().path())));
}
