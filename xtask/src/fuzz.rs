//! Fuzzing: one target for each parser of hostile bytes, in `fuzz/`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{
    run::{Workspace, must_quietly, say},
    tools,
};

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
    tools::system("c++", "g++")?;
    for target in targets.iter().filter(|target| only.is_none_or(|only| only == *target)) {
        // No sanitizer: what is fuzzed has no `unsafe`, so panics and overflows are what there is to find.
        let mut fuzz = Command::new(workspace.root().join("fuzz/run"));
        fuzz.args([target.as_str(), &time.as_secs().to_string()]);
        let said = must_quietly(&format!("fuzzing {target} for {} s", time.as_secs()), &mut fuzz)?;
        said.lines().filter(|line| line.contains("DONE") || line.starts_with("Done ")).for_each(say);
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
