//! Everything, in the order that finds a mistake soonest and builds each thing once.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{
    deny, docs, fuzz,
    run::{EVERYTHING, Totals, Workspace, must, say},
    suites::Suite,
    tests,
};

/// How long each fuzz target runs.
const FUZZ: Duration = Duration::from_secs(30);

type Step = (&'static str, fn(&Workspace) -> Result<Totals>);

const STEPS: [Step; 6] = [
    ("format", |workspace| {
        must("format", &mut workspace.cargo(["fmt", "--all", "--check"]))?;
        let fuzz = ["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"];
        must("format of the fuzz targets", &mut workspace.cargo(fuzz))?;
        Ok(Totals::default())
    }),
    ("lints", |workspace| {
        // Some tests are built only when they are named.
        for targets in [&["--all-targets"][..], &["--test", "gvisor", "--test", "real"]] {
            let mut lints = workspace.cargo(["clippy"]);
            lints.args(EVERYTHING).args(targets).args(["--locked", "--", "-D", "warnings"]);
            must("lints", &mut lints)?;
        }
        Ok(Totals::default())
    }),
    ("dependencies", |workspace| deny::run(workspace).map(|()| Totals::default())),
    ("tests", |workspace| Ok(tests::run(workspace, &Suite::ALL))),
    ("documentation", |workspace| docs::run(workspace).map(|()| Totals::default())),
    ("fuzzing", |workspace| fuzz::run(workspace, None, FUZZ).map(|()| Totals::default())),
];

/// Runs every step, whatever became of the ones before it, so that one run tells all there is to mend.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let begin = Instant::now();
    let mut totals = Totals::default();
    let mut times = Vec::new();
    let (mut broken, mut errors) = (Vec::new(), Vec::new());
    for (name, step) in STEPS {
        say(&format!("==== {name}"));
        let at = Instant::now();
        match step(workspace) {
            Ok(counted) => {
                if counted.failed > 0 {
                    broken.push(name);
                }
                totals.add(counted);
            }
            Err(error) => {
                say(&format!("{name}: {error:#}"));
                errors.push(format!("---- {name}: {error:#}"));
                broken.push(name);
            }
        }
        times.push(format!("{name} {:.0} s", at.elapsed().as_secs_f64()));
    }
    say(&format!("{}; {:.0} s in all", times.join(", "), begin.elapsed().as_secs_f64()));
    errors.iter().for_each(|error| println!("{error}"));
    println!("{totals}");
    match broken.is_empty() {
        true => Ok(()),
        false => bail!("failed: {}", broken.join(", ")),
    }
}
