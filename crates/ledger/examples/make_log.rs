//! Writes a log of plausible records to a folder, for verifiers to be tried on, and measures how long it takes.
//!
//! `make_log FOLDER SIZE [SIZE…]`: the sizes are published one after another; of each, the checkpoint is kept as
//! `FOLDER/kept/SIZE`. The log is `FOLDER/log`, the verifier key `FOLDER/vkey`. Seed and times are fixed, so the same
//! sizes give the same bytes.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs};

use toolgate_ledger::{Folder, Publisher, Signer};
use zeroize::Zeroizing;

#[path = "../tests/common/sample.rs"]
mod sample;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: make_log FOLDER SIZE [SIZE…]")?);
    let sizes = arguments.map(|size| size.parse()).collect::<Result<Vec<u64>, _>>()?;

    let mut signer = Signer::create(&folder.join("signer"), sample::ORIGIN, &Zeroizing::new([42; 32]))?;
    let mut publisher = Publisher::open(Folder::new(folder.join("log")), &signer)?;
    fs::create_dir_all(folder.join("kept"))?;
    fs::write(folder.join("vkey"), signer.verifier().to_string())?;
    let begin = Instant::now();
    for size in &sizes {
        publisher.publish(*size, sample::read, &mut signer)?;
        let (_, note) = publisher.published().ok_or("nothing was published")?;
        fs::write(folder.join("kept").join(size.to_string()), note)?;
    }
    #[expect(clippy::print_stderr, reason = "it is a program")]
    {
        eprintln!("{} entries in {:?}", sizes.last().copied().unwrap_or(0), begin.elapsed());
    }
    Ok(())
}
