//! Any bytes as a tlog-proof: refused, or printed as they came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_ledger::{Hash, Proof, tree};

fuzz_target!(|bytes: &[u8]| {
    let Ok(proof) = Proof::parse(bytes) else { return };
    assert_eq!(proof.to_string().as_bytes(), bytes);
    for size in [0, 1, proof.index, proof.index.saturating_add(1), u64::MAX] {
        let (leaf, root) = (Hash::leaf(b""), Hash::empty_root());
        assert!(tree::verify_inclusion(proof.index, size, leaf, &proof.hashes, root).is_err());
        let _ = tree::verify_consistency((proof.index, leaf), (size, root), &proof.hashes);
    }
});
