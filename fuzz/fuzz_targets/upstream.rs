//! A server that writes anything at all: a call comes to one end, and nothing is made up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_core::json::{Document, Limits};

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let seen = runtime.block_on(toolgate_gateway::fuzzing::frames(bytes.to_vec()));
    let (last, before) = seen.split_last().expect("it comes to an end");
    assert!(before.iter().filter(|line| line.starts_with("notice")).count() <= 64, "a flood is cut");
    if let Some(answer) = last.strip_prefix("answer ") {
        // Between legacy ends it is what the server wrote, byte for byte; but for the code of an error that is about its own leg.
        let (_kind, raw) = answer.split_once(' ').expect("two words");
        let wrote = |raw: &str| bytes.windows(raw.len()).any(|part| part == raw.as_bytes());
        let other_code =
            |code: &str| raw.split_once(code).is_some_and(|(head, tail)| wrote(head) && wrote(tail));
        assert!(wrote(raw) || ["-32603", "-32602"].iter().any(|code| other_code(code)), "made up: {raw}");
        for line in seen.iter().filter_map(|line| line.strip_prefix("answer ")) {
            let (_kind, raw) = line.split_once(' ').expect("two words");
            Document::parse(raw.as_bytes(), &Limits::default()).expect("what an agent gets can be read");
        }
    } else {
        assert!(last.starts_with("Lost") || last.starts_with("NotSent"), "{last}");
    }
});
