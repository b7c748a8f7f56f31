//! Who may depend on whom, licences and sources: `deny.toml`, checked by cargo-deny.

use std::process::Command;

use anyhow::Result;

use crate::{
    run::{Workspace, must},
    tools,
};

const VERSION: &str = "0.20.2";

/// Checks `deny.toml`. Advisories are not asked for: they need a database from elsewhere.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let tool = tools::cargo_tool(workspace, "cargo-deny", VERSION, &["--no-default-features"])?;
    let mut check = Command::new(tool);
    check.current_dir(workspace.root()).args(["--locked", "check", "bans", "licenses", "sources"]);
    must("dependencies", &mut check)
}
