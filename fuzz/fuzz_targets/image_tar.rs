//! Any archive, as the layer of an image: what it says is bounded, leads nowhere else, and is read in one way.
#![no_main]

use std::io::Read as _;

use libfuzzer_sys::fuzz_target;

// The parser stands alone, so it is built alone.
#[path = "../../crates/sandbox/src/image/tar.rs"]
mod tar;

use tar::{Entry, Kind, Reader};

/// Reads all entries; how much of each content is read is not to matter.
fn entries(bytes: &[u8], most: u64) -> (Vec<Entry>, bool) {
    let mut archive = Reader::new(bytes);
    let mut entries = Vec::new();
    loop {
        match archive.next() {
            Ok(Some(entry)) => {
                let read = std::io::copy(&mut (&mut archive).take(most), &mut std::io::sink());
                if let Ok(read) = read {
                    assert!(read <= entry.size && (entry.kind == Kind::File || entry.size == 0));
                }
                entries.push(entry);
            }
            Ok(None) => {
                assert!(archive.into_inner().len() <= bytes.len());
                return (entries, true);
            }
            Err(_) => return (entries, false),
        }
    }
}

fn is_plain(path: &[u8]) -> bool {
    let part = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
    path.len() <= tar::MAX_PATH && (path.is_empty() || path.split(|byte| *byte == b'/').all(part))
}

fuzz_target!(|bytes: &[u8]| {
    let (all, whole) = entries(bytes, u64::MAX);
    for entry in &all {
        assert!(is_plain(&entry.path) && entry.mode <= 0o7777, "{entry:?}");
        assert_eq!(tar::path(&entry.path).as_ref(), Ok(&entry.path), "paths have one spelling");
        if let Kind::Hard(target) = &entry.kind {
            assert!(is_plain(target), "{entry:?}");
        }
    }
    assert_eq!(entries(bytes, 0), (all, whole), "it does not matter what is read of contents");
});
