//! Tiles and entry bundles (c2sp.org/tlog-tiles): where they are and how their bytes are read.

use std::fmt;

use crate::record::MAX_ENTRY;
use crate::tree::Hash;

/// How many hashes a full tile, or entries a full bundle, has.
pub const WIDTH: u64 = 256;

/// How many levels of the tree one level of tiles covers.
pub const HEIGHT: u32 = 8;

/// The highest level at which there can be a tile: 256 to the power of 8 is more than 64 bits can count.
pub const MAX_LEVEL: u8 = 7;

/// One file of a log: a tile or an entry bundle, full or partial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its place in its level, from 0.
    pub index: u64,
    /// How many hashes or entries it has: 1 to 256.
    pub width: u16,
}

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Entries.
    Entries,
    /// Hashes, at this level. Level 0 has the hashes of leaves.
    Hashes(u8),
}

impl Tile {
    /// The full tile at the same place.
    #[must_use]
    pub const fn full(self) -> Self {
        Self { width: 256, ..self }
    }

    /// Whether it has all of its 256 hashes or entries.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.width == 256
    }

    /// The path of the file, such as `tile/0/x001/234.p/56`.
    #[must_use]
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// Reads a path. There is one path for each tile.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let kind = match kind {
            "entries" => Kind::Entries,
            level => Kind::Hashes(level.parse().ok().filter(|l| *l <= MAX_LEVEL)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok().filter(|w| (1..256).contains(w))?),
            None => (rest, 256),
        };
        let mut number = 0_u64;
        for group in index.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let tile = Self { kind, index: number, width };
        (tile.path() == path).then_some(tile)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Entries => f.write_str("tile/entries/")?,
            Kind::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        let mut divisor = 1;
        while self.index / divisor >= 1000 {
            divisor *= 1000;
        }
        while divisor > 1 {
            write!(f, "x{:03}/", self.index / divisor % 1000)?;
            divisor /= 1000;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// How many hashes a level of tiles has in a tree of `size` leaves.
#[must_use]
pub const fn hashes_at(level: u8, size: u64) -> u64 {
    match size.checked_shr(HEIGHT * level as u32) {
        Some(count) => count,
        None => 0,
    }
}

/// The tile of `kind` with this index in a tree of `size` leaves, if there is one.
#[must_use]
pub fn tile_at(kind: Kind, index: u64, size: u64) -> Option<Tile> {
    let count = match kind {
        Kind::Entries => size,
        Kind::Hashes(level) => hashes_at(level, size),
    };
    let rest = count.checked_sub(index.checked_mul(WIDTH)?)?.min(WIDTH);
    let width = u16::try_from(rest).ok().filter(|w| *w > 0)?;
    Some(Tile { kind, index, width })
}

/// Why the bytes of a tile or bundle cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A bundle ends inside an entry or its length.
    #[error("the bundle ends inside entry {0} of it")]
    Cut(usize),
    /// A bundle or tile has fewer entries or hashes than it must.
    #[error("{found} entries or hashes where {wanted} must be")]
    Missing {
        /// How many there are.
        found: usize,
        /// How many there must be.
        wanted: usize,
    },
    /// There are bytes after the last entry or hash.
    #[error("{0} bytes too many after the last entry or hash")]
    Trailing(usize),
}

/// Splits a bundle into its `width` entries.
///
/// # Errors
/// It is framed otherwise, or has another number of entries.
pub fn split_bundle(bytes: &[u8], width: usize) -> Result<Vec<&[u8]>, TileError> {
    let mut entries = Vec::with_capacity(width.min(256));
    let mut rest = bytes;
    while entries.len() < width {
        if rest.is_empty() {
            return Err(TileError::Missing { found: entries.len(), wanted: width });
        }
        let (entry, after) = split_first(rest).ok_or(TileError::Cut(entries.len()))?;
        entries.push(entry);
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(TileError::Trailing(rest.len())) }
}

/// Splits framed entries, however many there are.
///
/// # Errors
/// The last one is cut off.
pub fn split_framed(bytes: &[u8]) -> Result<Vec<&[u8]>, TileError> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (entry, after) = split_first(rest).ok_or(TileError::Cut(entries.len()))?;
        entries.push(entry);
        rest = after;
    }
    Ok(entries)
}

fn split_first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Appends an entry as bundles hold it. Returns `false`, and appends nothing, if it is too long.
#[must_use]
pub fn append_framed(entry: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(length) = u16::try_from(entry.len()) else {
        return false;
    };
    debug_assert!(entry.len() <= MAX_ENTRY);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(entry);
    true
}

/// Splits a tile into its hashes.
///
/// # Errors
/// It has another number of hashes than `width`.
pub fn split_hashes(bytes: &[u8], width: usize) -> Result<Vec<Hash>, TileError> {
    let (chunks, rest) = bytes.as_chunks::<32>();
    if chunks.len() < width {
        return Err(TileError::Missing { found: chunks.len(), wanted: width });
    }
    if chunks.len() > width || !rest.is_empty() {
        return Err(TileError::Trailing(bytes.len() - width * 32));
    }
    Ok(chunks.iter().map(|bytes| Hash(*bytes)).collect())
}

/// The bytes of a tile of these hashes.
#[must_use]
pub fn join_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths() {
        for (tile, path) in [
            (Tile { kind: Kind::Hashes(0), index: 1_234_067, width: 256 }, "tile/0/x001/x234/067"),
            (Tile { kind: Kind::Entries, index: 0, width: 255 }, "tile/entries/000.p/255"),
            (Tile { kind: Kind::Hashes(1), index: 1000, width: 1 }, "tile/1/x001/000.p/1"),
            (Tile { kind: Kind::Hashes(7), index: 999, width: 17 }, "tile/7/999.p/17"),
        ] {
            assert_eq!(tile.path(), path);
            assert_eq!(Tile::from_path(path), Some(tile));
        }
        for wrong in [
            "tile/0/67",
            "tile/00/067",
            "tile/8/067",
            "tile/0/x000/067",
            "tile/0/001/067",
            "tile/0/x001",
            "tile/0/067.p/0",
            "tile/0/067.p/01",
            "tile/0/067.p/256",
            "tile/0/067.p/+1",
            "tile/entries/../067",
            "/tile/0/067",
            "tile/0/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Tile::from_path(wrong), None, "input: {wrong:?}");
        }
    }

    #[test]
    fn the_tiles_of_a_tree_of_seventy_thousand() {
        // The example of the specification.
        let widths = |level| {
            let all: Vec<_> =
                (0..).map_while(|i| tile_at(Kind::Hashes(level), i, 70_000)).map(|t| t.width).collect();
            (all.iter().filter(|w| **w == 256).count(), all.last().copied().unwrap_or(0))
        };
        assert_eq!(widths(0), (273, 112));
        assert_eq!(widths(1), (1, 17));
        assert_eq!(widths(2), (0, 1));
        assert_eq!(widths(3), (0, 0));
        assert_eq!(tile_at(Kind::Hashes(0), 0, 0), None);
        assert_eq!(tile_at(Kind::Hashes(1), 0, 256).map(|t| t.width), Some(1));
        assert_eq!(tile_at(Kind::Hashes(7), 0, u64::MAX).map(|t| t.width), Some(255));
        assert_eq!(tile_at(Kind::Entries, u64::MAX, u64::MAX), None);
    }

    #[test]
    fn bundles_are_framed_exactly() {
        let bundle = [0, 1, b'a', 0, 0, 0, 2, b'b', b'c'];
        assert_eq!(split_bundle(&bundle, 3), Ok(vec![b"a".as_slice(), b"", b"bc"]));
        assert_eq!(split_bundle(&bundle, 2), Err(TileError::Trailing(4)));
        assert_eq!(split_bundle(&bundle, 4), Err(TileError::Missing { found: 3, wanted: 4 }));
        assert_eq!(split_bundle(&bundle[..8], 3), Err(TileError::Cut(2)));
        assert_eq!(split_bundle(&bundle[..6], 3), Err(TileError::Cut(2)));
        assert_eq!(split_framed(&bundle).map(|e| e.len()), Ok(3));
        assert_eq!(split_framed(&bundle[..8]), Err(TileError::Cut(2)));
        assert!(!append_framed(&[0; MAX_ENTRY + 1], &mut Vec::new()));
    }

    proptest! {
        #[test]
        fn framing_and_splitting_are_inverses(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut bundle = Vec::new();
            for entry in &entries {
                prop_assert!(append_framed(entry, &mut bundle));
            }
            prop_assert_eq!(split_bundle(&bundle, entries.len()), Ok(entries.iter().map(Vec::as_slice).collect()));
        }

        #[test]
        fn paths_read_back(index in any::<u64>(), level in 0_u8..=7, width in 1_u16..=256, entries in any::<bool>()) {
            let kind = if entries { Kind::Entries } else { Kind::Hashes(level) };
            let tile = Tile { kind, index, width };
            prop_assert_eq!(Tile::from_path(&tile.path()), Some(tile));
        }
    }
}
