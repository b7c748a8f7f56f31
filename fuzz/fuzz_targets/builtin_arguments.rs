//! Any arguments of a built-in tool: what is accepted is a command that there can be, with files that lie where they may and are no
//! more than they may; the same bytes always mean the same; and nothing in them is passed over.
#![no_main]

use std::collections::BTreeSet;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use toolgate_gateway::fuzzing::{Ordered, ordered};

/// How long a call may last here.
const TIME: Duration = Duration::from_secs(7);

fuzz_target!(|input: &[u8]| {
    let Some((kind, arguments)) = input.split_first() else { return };
    let (code, read_only) = (kind & 1 == 1, kind & 2 == 2);
    let once = ordered(code, read_only, TIME, arguments);
    assert_eq!(once, ordered(code, read_only, TIME, arguments));
    let Ok(Ordered { argv, input, files, wanted, time }) = once else { return };
    assert!(argv.first().is_some_and(|program| !program.is_empty()));
    assert!(argv.len() <= 1024 && argv.iter().all(|word| word.len() <= 120_000 && !word.contains('\0')));
    assert!(argv.iter().map(String::len).sum::<usize>() <= 1 << 20);
    if code {
        assert!(["node", "python3"].contains(&&*argv[0]), "{argv:?}");
    }
    assert!(input <= 4 << 20 && time <= TIME);
    assert!(files.len() <= 64 && files.iter().map(|(_, bytes)| bytes).sum::<usize>() <= 4 << 20);
    assert!(files.is_empty() || !read_only);
    let paths: BTreeSet<&String> = files.iter().map(|(path, _)| path).collect();
    assert_eq!(paths.len(), files.len(), "one path, one file");
    assert!(wanted.len() <= 64);
    for path in paths.into_iter().chain(&wanted) {
        assert!(
            path.len() < 4096 && path.split('/').all(|part| !matches!(part, "" | "." | "..")),
            "{path:?}"
        );
    }
    // One more member, and it is refused: nothing is passed over.
    let text = std::str::from_utf8(arguments).expect("what is accepted is JSON").trim_end();
    let more = text.strip_suffix('}').expect("what is accepted is an object");
    let more = format!("{more},\"x\":1}}");
    assert!(ordered(code, read_only, TIME, more.as_bytes()).is_err(), "{more}");
});
