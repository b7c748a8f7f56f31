//! The tests of the workspace, and the suites.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{
    run::{Totals, Workspace, count, must, say},
    suites::Suite,
};

/// Says which suites there are.
pub(crate) fn list() {
    for suite in Suite::ALL {
        println!("{:<8}{}", suite.name(), suite.about());
    }
}

/// Prints the totals, and fails if a test failed.
pub(crate) fn must_pass(totals: Totals) -> Result<()> {
    println!("{totals}");
    match totals.failed {
        0 => Ok(()),
        _ => bail!("not every test passed"),
    }
}

/// Runs the tests and these suites. A part that cannot be run at all counts as one failed test.
pub(crate) fn run(workspace: &Workspace, suites: &[Suite]) -> Totals {
    let mut totals = counted("tests", of_the_workspace(workspace));
    totals.add(self::suites(workspace, suites));
    totals
}

/// Runs these suites, with the programs as they are built.
pub(crate) fn suites(workspace: &Workspace, suites: &[Suite]) -> Totals {
    let mut totals = Totals::default();
    for suite in suites {
        say(&format!("---- suite {}", suite.name()));
        let begin = Instant::now();
        totals.add(counted(suite.name(), suite.run(workspace)));
        say(&format!("---- suite {}: {:.0} s", suite.name(), begin.elapsed().as_secs_f64()));
    }
    totals
}

/// Builds what suites and tests of the program start by its place: cargo builds for a test only what its own package has.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    must("building the programs", &mut workspace.cargo(["build", "--workspace", "--bins", "--locked"]))
}

fn of_the_workspace(workspace: &Workspace) -> Result<Totals> {
    build(workspace)?;
    count("tests", &mut workspace.cargo(["test", "--workspace", "--no-fail-fast", "--locked"]))
}

fn counted(name: &str, result: Result<Totals>) -> Totals {
    result.unwrap_or_else(|error| {
        say(&format!("FAILED {name}: {error:#}"));
        Totals::failed(format!("{name}: {error:#}"))
    })
}
