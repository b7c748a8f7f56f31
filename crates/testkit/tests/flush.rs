//! How often the store waits for the disk, counted from outside: the system calls of a process of its own.
//!
//! Run with `cargo test -p toolgate-testkit --test flush -- --ignored`. It needs `strace`; the suite `flush` brings it.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::indexing_slicing, reason = "tests")]

use std::process::Command;

use toolgate_testkit::store_folder::TestFolder;

/// What a process did between opening and closing the store.
struct Counted {
    batches: usize,
    records: usize,
    /// Flushes by the thread that writes.
    flushes: usize,
    /// Flushes by others.
    beside: usize,
}

fn count(calls: usize, at_once: usize) -> Counted {
    let folder = TestFolder::new("flush").unwrap();
    let trace = folder.path().join("trace");
    let mut strace = Command::new("strace");
    // Threads with their names, descriptors with their files.
    strace.args(["-f", "-Y", "-y", "-e", "trace=fsync,fdatasync,sync_file_range,msync,sync,syncfs", "-o"]);
    strace.arg(&trace).arg(env!("CARGO_BIN_EXE_flush_child")).arg(folder.path());
    let output = strace.args([calls.to_string(), at_once.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<usize> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let trace = std::fs::read_to_string(trace).unwrap();
    // A call that another one interrupts has a second line, without its file.
    let flushes: Vec<&str> = trace
        .lines()
        .filter(|line| line.contains("sync") && line.contains('(') && line.contains('/'))
        .collect();
    let at = |mark: &str| flushes.iter().position(|line| line.contains(mark)).unwrap();
    let between = &flushes[at("/begin>") + 1..at("/end>")];
    let (own, beside): (Vec<&str>, Vec<&str>) =
        between.iter().copied().partition(|line| line.contains("<store-writer>"));
    assert!(own.iter().all(|line| line.contains("fdatasync(") && line.contains("/state.db-wal>")), "{own:?}");
    Counted { batches: said[0], records: said[1], flushes: own.len(), beside: beside.len() }
}

#[test]
#[ignore = "suite flush"]
fn a_call_waits_for_two_flushes() {
    let Counted { batches, records, flushes, beside } = count(20, 1);
    assert_eq!((batches, records, flushes, beside), (40, 40, 40, 0));
}

#[test]
#[ignore = "suite flush"]
fn a_batch_is_one_flush_however_many_records_it_has() {
    let Counted { batches, records, flushes, beside: _ } = count(2_000, 64);
    assert_eq!((records, flushes), (4_000, batches));
    assert!(records >= 10 * batches, "{records} records in {batches} batches");
}
