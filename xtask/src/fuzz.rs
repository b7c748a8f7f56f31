//! Fuzzing: one target for each parser of hostile bytes, in `fuzz/`.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    run::{Workspace, must, output, say},
    tools,
};

const VERSION: &str = "0.13.2";
const SECONDS: u64 = 30;

/// Reads `[TARGET] [--seconds N]`.
pub(crate) fn arguments(arguments: &[String]) -> Result<(Option<&str>, u64)> {
    let mut target = None;
    let mut seconds = SECONDS;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => {
                let value = rest.next().context("`--seconds` needs a number")?;
                seconds = value.parse().with_context(|| format!("`{value}` is no number of seconds"))?;
            }
            name if !name.starts_with('-') && target.is_none() => target = Some(name),
            other => bail!("`{other}` is not understood; usage: cargo xtask fuzz [TARGET] [--seconds 30]"),
        }
    }
    Ok((target, seconds))
}

/// Runs one target, or each of them, for this long.
pub(crate) fn run(workspace: &Workspace, only: Option<&str>, time: Duration) -> Result<()> {
    let targets = targets(workspace)?;
    if let Some(only) = only
        && !targets.iter().any(|target| target == only)
    {
        bail!("`{only}` is no fuzz target; there are: {}", targets.join(", "));
    }
    let tool = tools::cargo_tool(workspace, "cargo-fuzz", VERSION, &[])?;
    let nightly = output(Command::new("rustup").args(["toolchain", "list"]))
        .is_ok_and(|list| list.lines().any(|line| line.starts_with("nightly")));
    say(match nightly {
        true => "fuzzing with the nightly toolchain",
        false => "fuzzing with the stable toolchain, unstable options allowed: there is no nightly one",
    });
    for target in targets.iter().filter(|target| only.is_none_or(|only| only == *target)) {
        let mut fuzz = Command::new(&tool);
        fuzz.current_dir(workspace.root());
        match nightly {
            true => fuzz.env("RUSTUP_TOOLCHAIN", "nightly").env_remove("CARGO").env_remove("RUSTC"),
            false => fuzz.env("RUSTC_BOOTSTRAP", "1"),
        };
        // Without a sanitizer: what is fuzzed has no `unsafe`, so panics and overflows are what there is to find.
        fuzz.args(["run", "--sanitizer", "none", target, "--"]);
        fuzz.arg(format!("-max_total_time={}", time.as_secs()))
            .args(["-max_len=65536", "-print_final_stats=1"]);
        must(&format!("fuzzing {target} for {} s", time.as_secs()), &mut fuzz)?;
    }
    Ok(())
}

fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root().join("fuzz/fuzz_targets");
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("could not list `{}`", folder.display()))?;
    let mut targets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem()
        {
            targets.push(name.to_string_lossy().into_owned());
        }
    }
    targets.sort();
    Ok(targets)
}
