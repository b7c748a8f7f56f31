//! The flushes of the store, counted by `strace`.

use anyhow::Result;

use crate::{
    run::{Totals, Workspace, count},
    tools,
};

pub(super) fn run(workspace: &Workspace) -> Result<Totals> {
    tools::system("strace", "strace")?;
    // The whole workspace, so that dependencies are as the other tests have them, and are not built again.
    let test = ["test", "--workspace", "--locked", "--test", "flush", "--", "--ignored"];
    count("flushes of the store", &mut workspace.cargo(test))
}
