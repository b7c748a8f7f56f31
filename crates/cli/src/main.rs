//! What people type. No logic: each command takes the library's pieces, and prints.
#![forbid(unsafe_code)]

mod agent;
mod args;
mod demo;
mod demo_server;
mod doctor;
mod doorkeeper;
mod exec;
mod extras;
mod gate;
mod image;
mod init;
mod lease;
mod log;
mod login;
mod out;
mod person;
mod place;
mod policy;
mod profile;
mod question;
mod rules;
mod secret;
mod secret_scan;
mod setup;
mod terminal;
mod tools;
mod up;
mod vault;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use toolgate_broker::vault::{VaultError, process as keeper};
use toolgate_gateway::proxy;

use crate::args::{Cli, Command, Doctor, SecretCommand};
use crate::place::Place;

/// What one thread takes and another gives back costs the system's allocator much: a tenth of a call's processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something went wrong, here or elsewhere.
const FAILED: u8 = 1;
/// Refused by policy.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    // Cells are made by a process of this same program, which must be nothing else: before anything else is done.
    if let Some(status) = toolgate_sandbox::cell::launcher() {
        return ExitCode::from(status);
    }
    // The allocator takes large ranges and uses little of each: in huge pages an idle gate would hold 15 MiB more. What is
    // started from here has them again.
    let _has_none = rustix::thread::disable_transparent_huge_pages(true);
    // So is the process that holds the keys of the vault, and the one that holds what is in it.
    let asked = || terminal::secret("Passphrase of the vault: ", None);
    let vault = || keeper::process(|| asked().map_err(|error| VaultError::Unanswered(error.to_string())));
    if let Some(status) = proxy::process::process().or_else(vault) {
        return ExitCode::from(status);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _unheard = error.print();
            // Clap's own code for a slip of the pen is 2, which means something else here.
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(FAILED),
            };
        }
    };
    match run(cli) {
        Ok(status) => status,
        Err(error) if out::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<out::Refused>() => ExitCode::from(REFUSED),
        Err(error) => {
            out::report(&error);
            ExitCode::from(FAILED)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // `init` alone writes a configuration where there is none and one was named.
    let writes = matches!(cli.command, Command::Init(_));
    let here = || {
        if let Some(path) = cli.config.as_deref().filter(|path| !writes && !path.exists()) {
            return Err(out::hinted(
                format!("there is no configuration at `{}`", path.display()),
                format!("`toolgate --config {} init --write` writes one there", path.display()),
            ));
        }
        Place::find(cli.config.as_deref(), cli.state.as_deref(), cli.json)
    };
    match cli.command {
        // The commands with an exit status of their own.
        Command::Exec(exec) => return exec::run(&exec, here),
        Command::Secret(SecretCommand::Scan(arguments)) => return secret_scan::scan(&here()?, &arguments),
        Command::Completions { shell } => extras::completions(shell, cli.json),
        Command::Demo(demo) => demo::run(&demo, cli.json),
        Command::DemoServer => demo_server::run(),
        Command::Man { folder } => extras::man(&folder, cli.json),
        Command::Agent(command) => agent::run(&here()?, command),
        Command::Approve(answer) => question::answer(&here()?, &answer, true),
        Command::Deny(answer) => question::answer(&here()?, &answer, false),
        Command::Image(command) => image::run(&here()?, command),
        Command::Log(command) => log::run(&here()?, command),
        Command::Person(command) => person::run(&here()?, command),
        Command::Question(command) => question::run(&here()?, command),
        Command::Mcp(mcp) => up::run_mcp(&here()?, &mcp),
        Command::Scrub(arguments) => secret_scan::scrub(&here()?, &arguments),
        Command::Login(login) => login::run(&here()?, &login),
        Command::Logout(logout) => login::out(&here()?, &logout),
        Command::Lease(command) => lease::run(&here()?, command),
        Command::Secret(SecretCommand::Vault(command)) => secret::run(&here()?, command),
        Command::Up(up) => up::run(&here()?, &up),
        Command::Doctor(Doctor { cell: None }) => doctor::run(&here()?),
        Command::Doctor(Doctor { cell: Some(profile) }) => profile::tell(&here()?, &profile),
        Command::Init(init) => init::run(&here()?, &init),
        Command::Policy(command) => policy::run(&here()?, command),
        Command::Tool(command) => tools::run(&here()?, command),
    }
    .map(|()| ExitCode::SUCCESS)
}
