//! Any beginning of a connection, in any pieces: what is needed is always more than there is, and what was decided stays decided.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser stands alone, so it is built alone.
#[path = "../../crates/sandbox/src/egress/hello.rs"]
mod hello;
#[path = "../../crates/sandbox/src/egress/name.rs"]
mod name;

use hello::Beginning;

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let whole = hello::read(bytes);
    match hello::read(&bytes[..cut.min(bytes.len())]) {
        Ok(Beginning::Incomplete(needed)) => {
            assert!(needed > cut.min(bytes.len()) && needed <= hello::LONGEST);
        }
        decided => assert_eq!(decided, whole, "more bytes do not matter"),
    }
});
