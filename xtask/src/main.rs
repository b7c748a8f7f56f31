//! The project's own commands. `cargo xtask help` lists them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command says what it does")]

mod bench;
mod ci;
mod deny;
mod docs;
mod fuzz;
mod run;
mod suites;
mod tests;
mod tools;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};

use crate::{run::Workspace, suites::Suite};

const HELP: &str = "\
usage: cargo xtask COMMAND

  test [--with SUITE,…] [--list]   the tests; with suites that drive other people's programs (or `all`)
  test --only SUITE,…              these suites without the tests
  ci                               everything: format, lints, dependencies, tests with all suites, documentation, fuzzing
  bench [NAME…] [--json]           the benchmarks (cells, policy, store, ledger, gateway, list), as one table
  docs                             the documentation of the code, with warnings denied, and the links of the book
  deny                             who may depend on whom, licences and sources
  fuzz [TARGET] [--seconds 30]     each fuzz target for a while

Each command installs what it needs below `target/`, by the ordinary clients of cargo, npm and pip.";

fn main() -> ExitCode {
    match obey() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn obey() -> Result<()> {
    let workspace = Workspace::find()?;
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    match command.as_str() {
        "test" => match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => tests::must_pass(tests::run(&workspace, &[])),
            ["--list"] => {
                tests::list();
                Ok(())
            }
            ["--only", names] => {
                tests::build(&workspace)?;
                tests::must_pass(tests::suites(&workspace, &Suite::parse_all(names)?))
            }
            ["--with", names] => tests::must_pass(tests::run(&workspace, &Suite::parse_all(names)?)),
            _ => bail!("usage: cargo xtask test [--with SUITE,… | --only SUITE,… | --list]"),
        },
        "ci" => ci::run(&workspace),
        "bench" => {
            let (flags, names): (Vec<String>, Vec<String>) =
                arguments.into_iter().partition(|argument| argument == "--json");
            bench::run(&workspace, &names, !flags.is_empty())
        }
        "docs" => docs::run(&workspace),
        "deny" => deny::run(&workspace),
        "fuzz" => {
            let (target, seconds) = fuzz::arguments(&arguments)?;
            fuzz::run(&workspace, target, Duration::from_secs(seconds))
        }
        // Not for people: the conformance suite starts this with the address of its server.
        "conformance-client" => match arguments.as_slice() {
            [url] => suites::conformance_client(&workspace, url),
            _ => bail!("usage: xtask conformance-client URL"),
        },
        "help" | "--help" | "" => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("`{other}` is no command\n\n{HELP}"),
    }
}
