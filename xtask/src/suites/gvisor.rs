//! Cells with a kernel of their own, which is gVisor's.

use std::process::Command;

use anyhow::{Result, bail};

use super::as_stranger;
use crate::{
    run::{Totals, Workspace, count, must, output},
    tools,
};

/// Where newer versions of some packages are for Debian 12, whose own gVisor is too old.
const NEWER: &str = "deb http://deb.debian.org/debian bookworm-backports main\n";

pub(super) fn run(workspace: &Workspace) -> Result<Totals> {
    install(workspace)?;
    let tests = ["test", "--workspace", "--locked", "--no-fail-fast", "--test", "gvisor"];
    let mut totals = count("cells in gVisor", &mut workspace.cargo(tests))?;
    totals.add(count("cells in gVisor as another user", &mut as_stranger(workspace, &["gvisor"]))?);
    Ok(totals)
}

/// What it takes of gVisor is in versions of 2023 and later.
fn is_there() -> bool {
    output(Command::new("sh").args(["-c", "runsc flags 2>&1"])).is_ok_and(|flags| flags.contains("systrap"))
}

fn install(workspace: &Workspace) -> Result<()> {
    if is_there() {
        return Ok(());
    }
    tools::system("runsc", "runsc")?;
    if is_there() {
        return Ok(());
    }
    // With a list of packages of its own, so that the system's stays as it is.
    let folder = workspace.suite_folder("gvisor")?;
    std::fs::write(folder.join("newer.list"), NEWER)?;
    std::fs::create_dir_all(folder.join("lists/partial"))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.arg("-o").arg(format!("Dir::Etc::SourceList={}", folder.join("newer.list").display()));
        command.arg("-o").arg(format!("Dir::State::Lists={}", folder.join("lists").display()));
        command.args(["-o", "Dir::Etc::SourceParts=-", "-qq"]).args(arguments);
        command
    };
    must("reading the list of newer packages", &mut apt(&["update"]))?;
    must("installing a newer runsc", &mut apt(&["install", "-y", "--no-install-recommends", "runsc"]))?;
    if !is_there() {
        bail!("`runsc flags` knows no platform `systrap`: it is too old");
    }
    Ok(())
}
