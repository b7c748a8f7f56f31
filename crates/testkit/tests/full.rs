//! A disk that is really full: a small file system of its own, in a namespace of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use toolgate_broker::blob::RootKey;
use toolgate_broker::port::{Disclosed, Line, Opened, Position, Store as _, StoreError, SystemClock};
use toolgate_broker::store::SqliteStore;
use toolgate_testkit::store_conformance::{closing, line, number, opening};
use toolgate_testkit::store_folder::TestFolder;

const FOLDER: &str = "TOOLGATE_TEST_SMALL_FILE_SYSTEM";
const TEST: &str = "a_full_disk_ends_what_runs_and_opens_nothing";

/// Starts itself again where the folder is a file system of 16 MiB.
fn in_a_small_file_system() {
    let folder = TestFolder::new("full").unwrap();
    let inside = "mount -t tmpfs -o size=16m tmpfs \"$0\" && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs -o size=16m tmpfs \"$0\""])
        .arg(folder.path())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        #[expect(clippy::print_stderr, reason = "a test that is not run has to say so")]
        {
            eprintln!("not run: this system lets nobody mount a file system in a namespace");
        }
        return;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", inside])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(FOLDER, folder.path())
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_full_disk_ends_what_runs_and_opens_nothing() {
    let Some(folder) = std::env::var_os(FOLDER) else { return in_a_small_file_system() };
    let folder = Path::new(&folder);
    let other_things = folder.join("other-things");
    std::fs::write(&other_things, vec![7; 6 << 20]).unwrap();
    let state = folder.join("state");
    let open = || SqliteStore::open(&state, RootKey::from_bytes([7; 32]), SystemClock).unwrap();
    let store = open();
    assert!(matches!(store.open(opening(1, "pay", true, None)).await, Ok(Opened::Fresh(Position(0)))));
    let large = || {
        let value = Disclosed { path: "arguments", salt: [1; 32], bytes: Bytes::from(vec![7; 100_000]) };
        Line { disclosed: vec![value], ..line("large") }
    };
    let mut written = 1;
    let full = loop {
        match store.append(large()).await {
            Ok(_position) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    assert_eq!(store.poisoned(), None, "the reserve was there for it");
    assert!(matches!(store.open(opening(2, "pay more", true, None)).await, Err(StoreError::Full(_))));
    assert!(matches!(store.append(line("a refusal")).await, Err(StoreError::Full(_))));
    // What runs can be brought to its end, with its answer.
    assert_eq!(store.close(closing(1, Some(b"paid"))).await, Ok(Position(written)));
    written += 1;
    let trouble = store.trouble().unwrap();
    assert!(trouble.starts_with("the store cannot be written: "), "{trouble}");
    // When there is room for the reserve again, all goes on.
    std::fs::remove_file(&other_things).unwrap();
    let removed = std::time::Instant::now();
    while store.append(line("again")).await.is_err() {
        assert!(removed.elapsed().as_secs() < 60, "it never notices that there is room");
        tokio::task::yield_now().await;
    }
    written += 1;
    assert_eq!(store.trouble(), None);
    assert!(matches!(store.open(opening(3, "pay more", true, None)).await, Ok(Opened::Fresh(_))));
    written += 1;
    drop(store);
    let store = open();
    assert_eq!(store.size(), Ok(written), "all that was said to be durable is there, and nothing else");
    let open_calls: Vec<_> = store.open_calls().await.unwrap().into_iter().map(|(call, _)| call).collect();
    assert_eq!(open_calls, [number(3)]);
}
