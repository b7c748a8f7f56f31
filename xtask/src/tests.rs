//! The tests of the workspace, and the suites.

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

/// Runs the tests and these suites, prints the totals, and fails if a test failed.
pub(crate) fn must_pass(workspace: &Workspace, suites: &[Suite]) -> Result<()> {
    let totals = run(workspace, suites);
    println!("{totals}");
    match totals.failed {
        0 => Ok(()),
        _ => bail!("not every test passed"),
    }
}

/// Runs the tests and these suites. A part that cannot be run at all counts as one failed test.
pub(crate) fn run(workspace: &Workspace, suites: &[Suite]) -> Totals {
    let mut totals = Totals::default();
    let mut add = |name: &str, counted: Result<Totals>| match counted {
        Ok(counted) => totals.add(counted),
        Err(error) => {
            say(&format!("FAILED {name}: {error:#}"));
            totals.add(Totals { passed: 0, failed: 1 });
        }
    };
    add("tests", of_the_workspace(workspace));
    for suite in suites {
        say(&format!("---- suite {}", suite.name()));
        add(suite.name(), suite.run(workspace));
    }
    totals
}

fn of_the_workspace(workspace: &Workspace) -> Result<Totals> {
    // Tests of the program start these by their place, and cargo builds for a test only what its own package has.
    must("building the programs", &mut workspace.cargo(["build", "--workspace", "--bins", "--locked"]))?;
    count("tests", &mut workspace.cargo(["test", "--workspace", "--no-fail-fast", "--locked"]))
}
