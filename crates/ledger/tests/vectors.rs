//! The vectors in `vectors/` hold: key, checkpoints around the borders of tiles, and a proof.
//!
//! The suite `go` lets another implementation come to the same roots. To write them anew after a change of the
//! format: `UPDATE_VECTORS=1`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::Log;
use toolgate_ledger::{Proof, Trust};

const SIZES: [u64; 9] = [0, 1, 2, 255, 256, 257, 511, 512, 65_793];

fn expect(name: &str, found: &str, vectors: &str) {
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        fs::write(format!("{}/../../vectors/{name}", env!("CARGO_MANIFEST_DIR")), found).unwrap();
    }
    assert_eq!(found, vectors, "{name}");
}

#[test]
fn checkpoints_and_proof() {
    let log = Log::with_sizes("vectors", &SIZES);
    let mut found = format!("{}\n", log.signer.verifier());
    for (_, note) in &log.kept {
        found += "\n";
        found += note;
    }
    expect("checkpoints.txt", &found, include_str!("../../../vectors/checkpoints.txt"));
    let (proof, entry) = log.folder().prove(12_345, &log.trust()).unwrap();
    expect("entry.json", &String::from_utf8(entry).unwrap(), include_str!("../../../vectors/entry.json"));
    expect("entry.tlog-proof", &proof.to_string(), include_str!("../../../vectors/entry.tlog-proof"));
}

#[test]
fn the_proof_is_enough_by_itself() {
    let key = include_str!("../../../vectors/checkpoints.txt").lines().next().unwrap();
    let trust = Trust::key(key.parse().unwrap());
    let proof = Proof::parse(include_bytes!("../../../vectors/entry.tlog-proof")).unwrap();
    let entry = include_bytes!("../../../vectors/entry.json");
    assert_eq!(proof.verify(entry, &trust).unwrap().0.size, 65_793);
    assert!(proof.verify(&entry[1..], &trust).is_err());
}
