//! The integrator: it turns sequenced entries into tiles, bundles and signed checkpoints.
//!
//! Everything here is derived from the sequenced entries, so it can be done again at any point and comes out the
//! same, byte for byte. The order is: tiles and bundles durable, then the signer's memory durable, then the
//! checkpoint. A crash in between leaves files that no checkpoint speaks of, which are written again.

use std::error::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::folder::{Folder, FolderError, Unsynced, remove_partials, write_durable};
use crate::signer::{SignError, Signer};
use crate::tile::{self, HEIGHT, Kind, Tile, TileError, WIDTH};
use crate::tree::{self, Frontier, Hash};

/// How many entries are asked for at a time.
const READ_AT_ONCE: usize = 4096;

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The checkpoint in the folder is not one of this signer's.
    #[error("`checkpoint`: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The folder does not hold what its checkpoint says.
    #[error(
        "the log folder does not fit its own checkpoint: {0}; verify it, then move it away: it is derived again"
    )]
    Damaged(String),
    /// A file of the folder could not be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// More was signed or published than is sequenced: the store was rolled back, or is another log's.
    #[error(
        "{sequenced} entries are sequenced, but {known} were {what} before: the store was rolled back or is another log's"
    )]
    RolledBack {
        /// How many are sequenced.
        sequenced: u64,
        /// How many were known.
        known: u64,
        /// `signed` or `published`.
        what: &'static str,
    },
    /// The signer refused.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The sequenced entries could not be read.
    #[error("the sequenced entries could not be read: {0}")]
    Source(#[source] Box<dyn Error + Send + Sync>),
    /// The source gave too few entries, or too many, or one that is too long.
    #[error("the store gave no usable entry {0}")]
    SourceGap(u64),
    /// The folder has a checkpoint that the signer does not remember.
    #[error(
        "the folder has a checkpoint of {published} entries, but the signer remembers {signed} or another root: its memory was rolled back"
    )]
    Unremembered {
        /// The size in the folder.
        published: u64,
        /// The size that the signer remembers.
        signed: u64,
    },
}

/// Publishes one log.
#[derive(Debug)]
pub struct Publisher {
    folder: Folder,
    edge: Edge,
    published: Option<(Checkpoint, String)>,
}

impl Publisher {
    /// Goes on where the folder's checkpoint says, having checked that the right edge of the tree leads to its root.
    ///
    /// # Errors
    /// The folder is damaged, or not this signer's.
    pub fn open(folder: Folder, signer: &Signer) -> Result<Self, PublishError> {
        let Some(note) = folder.read_checkpoint()? else {
            return Ok(Self { folder, edge: Edge::default(), published: None });
        };
        let last = signer.last();
        let (checkpoint, _) = Checkpoint::open(&note, signer.verifier(), &last.origin)?;
        let same_size = checkpoint.size == last.size;
        if checkpoint.size > last.size || (same_size && checkpoint.root != last.root) {
            return Err(PublishError::Unremembered { published: checkpoint.size, signed: last.size });
        }
        let edge = Edge::load(&folder, checkpoint.size)?;
        if edge.root() != checkpoint.root {
            return Err(PublishError::Damaged("the tiles at its right edge lead to another root".into()));
        }
        let note = String::from_utf8_lossy(&note).into_owned();
        Ok(Self { folder, edge, published: Some((checkpoint, note)) })
    }

    /// The last checkpoint published, as it was signed.
    #[must_use]
    pub fn published(&self) -> Option<(&Checkpoint, &str)> {
        self.published.as_ref().map(|(checkpoint, note)| (checkpoint, note.as_str()))
    }

    /// Publishes the first `size` sequenced entries. `read(from, max)` gives entries (without their framing) from
    /// index `from` on: at least one, at most `max`.
    ///
    /// Does nothing if they are published already. After an error nothing is changed but files that no checkpoint
    /// speaks of; it can be called again.
    ///
    /// # Errors
    /// The entries cannot be read, the folder cannot be written, or the signer refuses.
    pub fn publish<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        size: u64,
        mut read: impl FnMut(u64, usize) -> Result<Vec<Vec<u8>>, E>,
        signer: &mut Signer,
    ) -> Result<Checkpoint, PublishError> {
        for (known, what) in [(self.edge.size, "published"), (signer.last().size, "signed")] {
            if size < known {
                return Err(PublishError::RolledBack { sequenced: size, known, what });
            }
        }
        if let Some((checkpoint, _)) = &self.published
            && checkpoint.size == size
        {
            return Ok(checkpoint.clone());
        }

        let mut edge = self.edge.clone();
        let mut files = Unsynced::new(&self.folder)?;
        let mut filled = Vec::new();
        while edge.size < size {
            let wanted = usize::try_from(size - edge.size).unwrap_or(usize::MAX).min(READ_AT_ONCE);
            let entries = read(edge.size, wanted).map_err(|e| PublishError::Source(e.into()))?;
            if entries.is_empty() || entries.len() > wanted {
                return Err(PublishError::SourceGap(edge.size));
            }
            for entry in entries {
                edge.push(&entry, &mut files, &mut filled)?;
            }
        }
        edge.write_partials(&mut files)?;
        files.sync()?;

        let (root, signed) = (edge.root(), signer.last().size);
        let consistency = tree::prove_consistency(signed, size, &mut self.folder.nodes(size))?;
        let note = signer.sign(size, root, &consistency)?;
        write_durable(&self.folder.path().join("checkpoint"), note.as_bytes(), false)
            .map_err(|source| FolderError::Io { path: "checkpoint".into(), source })?;
        // COMMIT POINT: whoever reads the folder now sees the new log.
        let checkpoint = Checkpoint { origin: signer.last().origin.clone(), size, root };
        self.edge = edge;
        self.published = Some((checkpoint.clone(), note));
        filled.iter().for_each(|tile| remove_partials(&self.folder, *tile));
        Ok(checkpoint)
    }
}

/// The right edge of the tree: all that is not in full tiles yet.
#[derive(Debug, Clone, Default)]
struct Edge {
    size: u64,
    /// The entries of the partial bundle, framed.
    bundle: Vec<u8>,
    /// The hashes of the partial tile of each level; fewer than 256 each.
    rows: Vec<Vec<Hash>>,
}

impl Edge {
    /// Reads the edge of a tree of `size` leaves, and checks that the entries fit the hashes.
    fn load(folder: &Folder, size: u64) -> Result<Self, PublishError> {
        let mut rows = Vec::new();
        for level in (0..=tile::MAX_LEVEL).take_while(|level| tile::hashes_at(*level, size) > 0) {
            let last = tile::tile_at(Kind::Hashes(level), tile::hashes_at(level, size) / WIDTH, size);
            rows.push(last.map(|tile| folder.read_hashes(tile)).transpose()?.unwrap_or_default());
        }
        let bundle = tile::tile_at(Kind::Entries, size / WIDTH, size);
        let bundle = bundle.map(|tile| folder.read_tile(tile)).transpose()?.unwrap_or_default();
        let damaged = |e: TileError| PublishError::Damaged(format!("its last bundle: {e}"));
        let leaves: Vec<_> =
            tile::split_framed(&bundle).map_err(damaged)?.into_iter().map(Hash::leaf).collect();
        if rows.first().map(Vec::as_slice).unwrap_or_default() != leaves {
            return Err(PublishError::Damaged("its last bundle has other entries than its last tile".into()));
        }
        Ok(Self { size, bundle, rows })
    }

    fn root(&self) -> Hash {
        let mut frontier = Frontier::default();
        let levels: Vec<_> = (0..).zip(&self.rows).collect();
        for (level, row) in levels.into_iter().rev() {
            row.iter().for_each(|hash| frontier.push_node(HEIGHT * level, *hash));
        }
        frontier.root()
    }

    /// Adds an entry, and writes the bundle and the tiles that it fills.
    fn push(
        &mut self,
        entry: &[u8],
        files: &mut Unsynced<'_>,
        filled: &mut Vec<Tile>,
    ) -> Result<(), PublishError> {
        if !tile::append_framed(entry, &mut self.bundle) {
            return Err(PublishError::SourceGap(self.size));
        }
        self.size += 1;
        if self.size.is_multiple_of(WIDTH) {
            let bundle = Tile { kind: Kind::Entries, index: self.size / WIDTH - 1, width: 256 };
            files.write(bundle, &self.bundle)?;
            filled.push(bundle);
            self.bundle.clear();
        }
        let mut hash = Hash::leaf(entry);
        for level in 0..=tile::MAX_LEVEL {
            if self.rows.len() <= usize::from(level) {
                self.rows.push(Vec::new());
            }
            let Some(row) = self.rows.get_mut(usize::from(level)) else { break };
            row.push(hash);
            if row.len() < 256 {
                break;
            }
            let index = tile::hashes_at(level, self.size) / WIDTH - 1;
            let tile = Tile { kind: Kind::Hashes(level), index, width: 256 };
            files.write(tile, &tile::join_hashes(row))?;
            filled.push(tile);
            hash = tree::complete_root(row);
            row.clear();
        }
        Ok(())
    }

    fn write_partials(&self, files: &mut Unsynced<'_>) -> Result<(), PublishError> {
        if let Some(bundle) = tile::tile_at(Kind::Entries, self.size / WIDTH, self.size) {
            files.write(bundle, &self.bundle)?;
        }
        for (level, row) in (0..).zip(&self.rows) {
            let index = tile::hashes_at(level, self.size) / WIDTH;
            if let Some(tile) = tile::tile_at(Kind::Hashes(level), index, self.size) {
                files.write(tile, &tile::join_hashes(row))?;
            }
        }
        Ok(())
    }
}
