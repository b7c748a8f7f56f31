//! How fast the store is, against a plain file with the same group commit, in the same run.
//!
//! `cargo run --release -p toolgate-broker --example store_speed -- [FOLDER] [SECONDS] [IN_FLIGHT]` prints one line of JSON for
//! each number of writes in flight, or for one. The folder is made, and removed at the end; it decides which disk is measured.
#![expect(clippy::print_stdout, reason = "this program is there to print figures")]

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use toolgate_broker::blob::RootKey;
use toolgate_broker::port::{Closing, Disclosed, Line, Opened, Opening, Store, SystemClock};
use toolgate_broker::store::SqliteStore;
use toolgate_core::call::{CallDigest, CallId};
use toolgate_core::digest::Digest;

type Failure = Box<dyn Error + Send + Sync>;

/// The size of a record; those of the gate are between 400 and 900 bytes.
const LEAF: usize = 700;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder =
        arguments.next().map_or_else(|| std::env::temp_dir().join("toolgate-store-speed"), PathBuf::from);
    let seconds = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let span = Duration::from_secs_f64(seconds);
    let one = arguments.next().map(|text| text.parse()).transpose()?;
    std::fs::create_dir_all(&folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for in_flight in one.map_or(vec![1, 16, 64, 256], |one| vec![one]) {
        let plain = runtime.block_on(plain_file(&folder, in_flight, span))?;
        let records = runtime.block_on(records(&folder, in_flight, span))?;
        let calls = runtime.block_on(calls(&folder, in_flight, span))?;
        println!(
            "{{\"in_flight\":{in_flight},\"plain_per_s\":{:.0},\"plain_p50_us\":{},\"records_per_s\":{:.0},\
             \"records_p50_us\":{},\"records_per_batch\":{:.1},\"calls_per_s\":{:.0},\"calls_p50_us\":{},\"calls_p99_us\":{},\
             \"calls_records_per_batch\":{:.1},\"ratio\":{:.2}}}",
            plain.per_s,
            plain.p50_us,
            records.per_s,
            records.p50_us,
            records.per_batch,
            calls.per_s,
            calls.p50_us,
            calls.p99_us,
            calls.per_batch,
            records.per_s / plain.per_s,
        );
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// What one measurement came to.
struct Speed {
    per_s: f64,
    p50_us: u128,
    p99_us: u128,
    per_batch: f64,
}

/// Keeps `in_flight` copies of `once` going for a while.
async fn drive<F, R>(in_flight: usize, span: Duration, once: F) -> Result<Speed, Failure>
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Failure>> + Send,
{
    let once = Arc::new(once);
    let began = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let once = Arc::clone(&once);
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < span {
                    let at = Instant::now();
                    once().await?;
                    took.push(at.elapsed().as_micros());
                }
                Ok::<_, Failure>(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.append(&mut task.await??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a count of a few millions")]
    let per_s = took.len() as f64 / elapsed;
    Ok(Speed { per_s, p50_us: at(50), p99_us: at(99), per_batch: 0.0 })
}

fn open(folder: &Path) -> Result<(Arc<SqliteStore>, PathBuf), Failure> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = folder.join(format!("store-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok((Arc::new(SqliteStore::open(&folder, RootKey::from_bytes([7; 32]), SystemClock)?), folder))
}

#[expect(clippy::cast_precision_loss, reason = "a count of a few millions")]
fn with_batches(speed: Speed, store: &SqliteStore) -> Speed {
    let written = store.written();
    Speed { per_batch: written.records as f64 / written.batches as f64, ..speed }
}

/// Records without values: the log alone.
async fn records(folder: &Path, in_flight: usize, span: Duration) -> Result<Speed, Failure> {
    let (store, folder) = open(folder)?;
    let shared = Arc::clone(&store);
    let speed = drive(in_flight, span, move || {
        let store = Arc::clone(&shared);
        async move {
            let line = Line { leaf: vec![b'x'; LEAF], disclosed: Vec::new(), subject: "gate".to_owned() };
            store.append(line).await?;
            Ok(())
        }
    })
    .await?;
    let speed = with_batches(speed, &store);
    drop(store);
    std::fs::remove_dir_all(folder)?;
    Ok(speed)
}

/// Whole calls: opened with arguments and parameters, closed with a result that is kept, delivered.
async fn calls(folder: &Path, in_flight: usize, span: Duration) -> Result<Speed, Failure> {
    let (store, folder) = open(folder)?;
    let shared = Arc::clone(&store);
    let number = Arc::new(AtomicU64::new(0));
    let speed = drive(in_flight, span, move || {
        let (store, number) = (Arc::clone(&shared), number.fetch_add(1, Ordering::Relaxed));
        async move {
            let mut random = [0; 10];
            if let Some(low) = random.first_chunk_mut::<8>() {
                *low = number.to_be_bytes();
            }
            let call = CallId::new(1_700_000_000_000 + number / 50, random);
            let digest = CallDigest(Digest::of("speed", &[&number.to_be_bytes()]));
            let value =
                |path, length| Disclosed { path, salt: [3; 32], bytes: Bytes::from(vec![b'v'; length]) };
            let line = |disclosed| Line { leaf: vec![b'x'; LEAF], disclosed, subject: "agent".to_owned() };
            let opening = Opening {
                call,
                digest,
                repeats: true,
                approval: None,
                line: line(vec![value("arguments", 120), value("params", 180)]),
            };
            let Opened::Fresh(_intent) = store.open(opening).await? else {
                return Err("a call that is new was not opened".into());
            };
            let result = value("result", 250);
            store.close(Closing { call, line: line(vec![result]), keep: true }).await?;
            store.delivered(call);
            Ok(())
        }
    })
    .await?;
    let speed = with_batches(speed, &store);
    drop(store);
    std::fs::remove_dir_all(folder)?;
    Ok(speed)
}

/// What waits for the plain file, and whether there will be more. The lock guards both.
#[derive(Default)]
struct PlainQueue {
    waiting: Mutex<(Vec<oneshot::Sender<()>>, bool)>,
    wake: Condvar,
}

/// The same records appended to a plain file: one write and one `fdatasync` for all that wait.
async fn plain_file(folder: &Path, in_flight: usize, span: Duration) -> Result<Speed, Failure> {
    let path = folder.join("plain");
    let mut file = File::create(&path)?;
    let queue = Arc::new(PlainQueue::default());
    let taking = Arc::clone(&queue);
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        loop {
            let waiting = {
                let waiting = taking.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let nothing = |state: &mut (Vec<_>, bool)| state.0.is_empty() && !state.1;
                let mut waiting =
                    taking.wake.wait_while(waiting, nothing).unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut waiting.0)
            };
            if waiting.is_empty() {
                return Ok(());
            }
            file.write_all(&vec![b'x'; LEAF * waiting.len()])?;
            file.sync_data()?;
            for reply in waiting {
                let _ = reply.send(());
            }
        }
    });
    let pushing = Arc::clone(&queue);
    let speed = drive(in_flight, span, move || {
        let (reply, written) = oneshot::channel();
        pushing.waiting.lock().unwrap_or_else(PoisonError::into_inner).0.push(reply);
        pushing.wake.notify_one();
        async move { Ok(written.await?) }
    })
    .await?;
    queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    queue.wake.notify_one();
    writer.join().map_err(|_panic| "the writer of the plain file panicked")??;
    std::fs::remove_file(path)?;
    Ok(speed)
}
