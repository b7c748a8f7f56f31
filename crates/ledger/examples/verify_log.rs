//! Verifies a log: `verify_log FOLDER VKEY`. Says how long it took; what is wrong, it prints line by line.

use std::env;
use std::error::Error;
use std::time::Instant;

use toolgate_ledger::verify::{Options, verify};
use toolgate_ledger::{Folder, Trust};

#[expect(clippy::print_stdout, reason = "it is a program")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(folder), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err("usage: verify_log FOLDER VKEY".into());
    };
    let begin = Instant::now();
    let report = verify(&Folder::new(folder), &Options::new(Trust::key(key.parse()?)), |_, _| {});
    println!("{} entries in {:?}", report.size, begin.elapsed());
    report.findings.iter().for_each(|finding| println!("{finding}"));
    if report.is_sound() { Ok(()) } else { Err("the log is damaged".into()) }
}
