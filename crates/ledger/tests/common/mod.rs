//! What the tests of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::string_slice,
    clippy::indexing_slicing,
    reason = "each test file uses another part"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use toolgate_ledger::verify::{Options, Report, verify};
use toolgate_ledger::{Folder, Publisher, Signer, Trust};
use zeroize::Zeroizing;

pub mod damage;
pub mod sample;

/// A folder that is removed in the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A log, its signer, and the checkpoints of all sizes it was published at.
pub struct Log {
    pub scratch: Scratch,
    pub signer: Signer,
    pub publisher: Publisher,
    pub kept: Vec<(u64, String)>,
}

impl Log {
    pub fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let signer =
            Signer::create(&scratch.0.join("signer"), sample::ORIGIN, &Zeroizing::new([42; 32])).unwrap();
        let publisher = Publisher::open(Folder::new(scratch.0.join("log")), &signer).unwrap();
        Self { scratch, signer, publisher, kept: Vec::new() }
    }

    pub fn with_sizes(name: &str, sizes: &[u64]) -> Self {
        let mut log = Self::new(name);
        sizes.iter().for_each(|size| log.publish(*size));
        log
    }

    pub fn publish(&mut self, size: u64) {
        self.publisher.publish(size, sample::read, &mut self.signer).unwrap();
        self.kept.push((size, self.publisher.published().unwrap().1.to_owned()));
    }

    pub fn path(&self) -> PathBuf {
        self.scratch.0.join("log")
    }

    pub fn folder(&self) -> Folder {
        Folder::new(self.path())
    }

    pub fn trust(&self) -> Trust {
        Trust::key(self.signer.verifier().clone())
    }

    pub fn options(&self) -> Options {
        Options::new(self.trust())
    }

    pub fn verify(&self) -> Report {
        verify(&self.folder(), &self.options(), |_, _| {})
    }
}

/// All files below a folder, with their contents, by path.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.push((name, fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Makes a folder what it was when [`files`] looked.
pub fn restore(folder: &Path, files: &[(String, Vec<u8>)]) {
    let _ = fs::remove_dir_all(folder);
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
