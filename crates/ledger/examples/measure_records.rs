//! Measures what one thread can do with records: build, serialise and frame; hash into the tree; read.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use toolgate_ledger::tree::Frontier;
use toolgate_ledger::{Hash, Record};

#[path = "../tests/common/sample.rs"]
mod sample;

const COUNT: u32 = 200_000;

#[expect(clippy::print_stdout, reason = "it is a program")]
fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let _ = sample::ORIGIN;
    let entries = sample::read(1, 1000)?;
    let records = entries.iter().map(|entry| Record::decode(entry)).collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = entries.iter().map(Vec::len).sum();
    println!("{} bytes a record", bytes / entries.len());

    let mut framed = Vec::new();
    let begin = Instant::now();
    for record in records.iter().cycle().take(COUNT as usize) {
        framed.clear();
        record.append_framed(&mut framed)?;
        black_box(&framed);
    }
    println!("serialise and frame: {:?} a record", begin.elapsed() / COUNT);

    let begin = Instant::now();
    let mut frontier = Frontier::default();
    for entry in entries.iter().cycle().take(COUNT as usize) {
        frontier.push(Hash::leaf(entry));
    }
    println!("hash into the tree: {:?} a record ({})", begin.elapsed() / COUNT, frontier.root());

    let begin = Instant::now();
    for entry in entries.iter().cycle().take(COUNT as usize) {
        black_box(Record::decode(entry)?);
    }
    println!("read, strictly: {:?} a record", begin.elapsed() / COUNT);
    Ok(())
}
