//! Other people's programs, in the versions that are written here, installed below `target/` by the ordinary clients.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::run::{Workspace, must, output, say};

/// Finds a cargo subcommand in the right version, or builds it.
///
/// It is built without optimisation: that takes a third of the time, and the programs here run for seconds.
pub(crate) fn cargo_tool(
    workspace: &Workspace,
    name: &str,
    version: &str,
    arguments: &[&str],
) -> Result<PathBuf> {
    let folder = workspace.target().join("tools");
    let own = folder.join("bin").join(name);
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let installed = home.map(|home| home.join("bin").join(name));
    for candidate in [Some(own.clone()), installed].into_iter().flatten() {
        if says_version(&candidate, version) {
            return Ok(candidate);
        }
    }
    let mut install =
        workspace.cargo(["install", name, "--version", version, "--locked", "--debug", "--root"]);
    install.arg(&folder).arg("--target-dir").arg(folder.join("build")).args(arguments);
    install.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("RUSTFLAGS");
    must(&format!("building {name} {version}"), &mut install)?;
    match says_version(&own, version) {
        true => Ok(own),
        false => bail!("`{}` was built and does not say that it is version {version}", own.display()),
    }
}

fn says_version(program: &Path, version: &str) -> bool {
    // A subcommand of cargo is asked in two ways, and takes its own name as an argument in one of them.
    program.is_file()
        && output(Command::new(program).arg("--version"))
            .is_ok_and(|text| text.split_whitespace().any(|word| word == version))
}

/// Makes sure that a program which the system has to bring is there; as root, through `apt-get`.
pub(crate) fn system(program: &str, package: &str) -> Result<()> {
    if output(Command::new("sh").args(["-c", "command -v \"$0\"", program])).is_ok() {
        return Ok(());
    }
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!(
            "`{program}` is not installed; install it with `apt-get install {package}` as root, and run this again"
        );
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    must("reading the list of packages", apt().args(["update", "-qq"]))?;
    must(
        &format!("installing {package}"),
        apt().args(["install", "-y", "-qq", "--no-install-recommends", package]),
    )
}

/// A folder with these npm packages, written as `name@version`.
pub(crate) fn npm(workspace: &Workspace, suite: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = workspace.suite_folder(suite)?;
    if !is_done(&folder, packages) {
        system("npm", "npm")?;
        std::fs::write(folder.join("package.json"), "{\"private\": true}\n")?;
        let mut install = Command::new("npm");
        install
            .current_dir(&folder)
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
            .args(packages);
        must(&format!("installing {}", packages.join(" ")), &mut install)?;
        done(&folder, packages)?;
    }
    Ok(folder)
}

/// A folder with a Python environment and these packages, written as `name==version`; returns its interpreter.
pub(crate) fn pip(workspace: &Workspace, suite: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = workspace.suite_folder(suite)?;
    let python = folder.join("bin/python");
    if !is_done(&folder, packages) {
        system("python3", "python3")?;
        if let Err(error) = output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)) {
            say(&format!("{error:#}"));
            system("python3-without-venv", "python3-venv").context("python3 cannot make an environment")?;
            must(
                "making an environment",
                Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
            )?;
        }
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(packages);
        must(&format!("installing {}", packages.join(" ")), &mut install)?;
        done(&folder, packages)?;
    }
    Ok(python)
}

/// Whether exactly these packages were installed here to the end.
fn is_done(folder: &Path, packages: &[&str]) -> bool {
    std::fs::read_to_string(folder.join("installed.txt")).is_ok_and(|text| text == packages.join("\n"))
}

fn done(folder: &Path, packages: &[&str]) -> Result<()> {
    Ok(std::fs::write(folder.join("installed.txt"), packages.join("\n"))?)
}

/// Makes sure that a file which a Debian package brings is there.
pub(crate) fn debian(file: &str, package: &str) -> Result<()> {
    if Path::new(file).exists() {
        return Ok(());
    }
    // No program has this name, so this asks for the package.
    system(file, package)
}
