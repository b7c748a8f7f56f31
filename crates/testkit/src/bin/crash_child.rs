//! A gate that ends itself: `crash_child FOLDER STEP NTH CALLS AT_ONCE`. Without a step of that name all goes well.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use toolgate_testkit::crash::{Gate, Mishap, Plan, Step};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: crash_child FOLDER STEP NTH CALLS AT_ONCE");
    let folder = PathBuf::from(next()?);
    let name = next()?;
    let (nth, calls, at_once) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    let step = Step::ALL.into_iter().find(|step| step.name() == name);
    let plan = Plan::new(step.map(|step| (step, nth, Mishap::Killed)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (gate, _recovered) = Gate::open(&folder, plan).await?;
        Arc::new(gate).calls(calls, at_once).await
    })
}
