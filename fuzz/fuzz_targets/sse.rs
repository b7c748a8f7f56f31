//! Any stream of events, in any pieces: the same events come out, and none is larger than the bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser stands alone, so it is built alone: the crate it is of would bring hundreds of others.
#[path = "../../crates/gateway/src/upstream/sse.rs"]
mod sse;

const LIMIT: usize = 256;

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let whole = events(&[bytes]);
    let (head, tail) = bytes.split_at(cut.min(bytes.len()));
    assert_eq!(whole, events(&[head, tail]), "pieces do not matter");
    assert!(whole.0.iter().all(|event| event.len() <= LIMIT));
});

fn events(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let mut parser = sse::SseParser::new(LIMIT);
    let mut events = Vec::new();
    let fits = pieces.iter().all(|piece| parser.push(piece, |event| events.push(event)).is_ok());
    (events, fits)
}
