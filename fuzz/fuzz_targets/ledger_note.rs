//! Any bytes as a signed note, a checkpoint and a key: refused, or printed as they came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_ledger::note::Note;
use toolgate_ledger::{Checkpoint, SigningKey, VerifierKey};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.text(), text);
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = SigningKey::parse(text) {
        assert_eq!(*key.to_text(), text);
    }
});
