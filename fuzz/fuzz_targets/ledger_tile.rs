//! Any bytes as a bundle, a tile and a path: refused, or put together again as they came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_ledger::tile::{Tile, append_framed, join_hashes, split_bundle, split_framed, split_hashes};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entries) = split_framed(bytes) {
        let mut again = Vec::new();
        entries.iter().for_each(|entry| assert!(append_framed(entry, &mut again)));
        assert_eq!(again, bytes);
        assert_eq!(split_bundle(bytes, entries.len()).as_ref(), Ok(&entries));
        assert!(split_bundle(bytes, entries.len() + 1).is_err());
    }
    for width in [1, 2, 256] {
        if let Ok(hashes) = split_hashes(bytes, width) {
            assert_eq!(join_hashes(&hashes), bytes);
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(tile) = Tile::from_path(text) {
        assert_eq!(tile.path(), text);
    }
});
