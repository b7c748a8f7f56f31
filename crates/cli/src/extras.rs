//! Completions and manual pages, made from the same description as the help.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use crate::args::Cli;
use crate::out::{self, line, note};

pub(crate) fn completions(shell: Shell, json: bool) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "toolgate", &mut bytes);
    let script = String::from_utf8_lossy(&bytes);
    if json {
        return out::json(&json!({ "shell": shell.to_string(), "script": script }));
    }
    line(script.trim_end())
}

pub(crate) fn man(folder: &Path, json: bool) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not make `{}`", folder.display()))?;
    let written = page(&Cli::command(), "toolgate", folder)?;
    note(format_args!("Wrote {written} pages to {}", folder.display()));
    if json { out::json(&json!({ "folder": folder, "pages": written })) } else { Ok(()) }
}

/// Writes the page of a command and of all below it.
fn page(command: &clap::Command, name: &str, folder: &Path) -> anyhow::Result<usize> {
    let mut bytes = Vec::new();
    let named = command
        .clone()
        .display_name(name.to_owned())
        .bin_name(name.replace('-', " "))
        .version(env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(named).render(&mut bytes)?;
    let path = folder.join(format!("{name}.1"));
    fs::write(&path, bytes).with_context(|| format!("could not write `{}`", path.display()))?;
    let mut written = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        written += page(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(written)
}
