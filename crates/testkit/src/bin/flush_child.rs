//! A process whose flushes are counted from outside: `flush_child FOLDER CALLS AT_ONCE`. It prints how many batches
//! and records it wrote; the flushes of what is between opening and closing the store lie between those of two marks.
#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use toolgate_broker::blob::RootKey;
use toolgate_broker::port::{Opened, Store as _, SystemClock};
use toolgate_broker::store::SqliteStore;
use toolgate_testkit::store_conformance::{closing, number, opening};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: flush_child FOLDER CALLS AT_ONCE");
    let folder = PathBuf::from(next()?);
    let (calls, at_once): (u64, u64) = (next()?.parse()?, next()?.parse()?);
    let store = Arc::new(SqliteStore::open(&folder, RootKey::from_bytes([7; 32]), SystemClock)?);
    mark(&folder, "begin")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let lanes: Vec<_> = (0..at_once)
            .map(|lane| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for call in (lane..calls).step_by(usize::try_from(at_once)?) {
                        let opened = store.open(opening(call, &call.to_string(), true, None)).await?;
                        ensure!(matches!(opened, Opened::Fresh(_)), "call {call} was not fresh");
                        store.close(closing(call, Some(b"done"))).await?;
                        store.delivered(number(call));
                    }
                    Ok(())
                })
            })
            .collect();
        for lane in lanes {
            lane.await??;
        }
        anyhow::Ok(())
    })?;
    mark(&folder, "end")?;
    let written = store.written();
    println!("{} {}", written.batches, written.records);
    Ok(())
}

/// A flush that can be told from the store's.
fn mark(folder: &Path, name: &str) -> std::io::Result<()> {
    std::fs::File::create(folder.join(name))?.sync_all()
}
