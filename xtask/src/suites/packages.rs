//! Programs that people use, in cells with a way out to one server: package managers, interpreters and compilers fetch from it
//! and run what they fetched; without the way out they do not.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    Checks, Suite,
    gate::{Program, limited, scratch},
};
use crate::{
    run::{Totals, Workspace, output},
    tools,
};

/// The name that the server has in cells.
const SITE: &str = "packages.host.internal";

/// One program, as a script for the shell. `BASE` is where the server is.
struct Fetch {
    name: &'static str,
    script: &'static str,
    /// What it prints in the end.
    prints: &'static str,
    /// What the server was asked for then.
    asked: &'static str,
}

const FETCHES: [Fetch; 6] = [
    Fetch {
        name: "pip",
        script: "\"$PYTHON\" -m pip install -q --retries 0 --disable-pip-version-check --trusted-host packages.host.internal --target lib \
            --index-url $BASE/pip/simple/ cell-greeting && PYTHONPATH=lib \"$PYTHON\" -c 'import cell_greeting; print(cell_greeting.greet())'",
        prints: "hello from pip",
        asked: "/pip/files/cell_greeting-1.0-py3-none-any.whl",
    },
    Fetch {
        name: "python",
        script: "\"$PYTHON\" -c \"import urllib.request; print(urllib.request.urlopen('$BASE/greeting.txt').read().decode())\"",
        prints: "hello from a server",
        asked: "/greeting.txt",
    },
    Fetch {
        name: "npm and node",
        script: "npm install --silent --fetch-retries 0 --no-audit --no-fund --registry $BASE/npm cell-greeting && \
            node -e \"console.log(require('cell-greeting')())\"",
        prints: "hello from npm",
        asked: "/npm/files/cell-greeting-1.0.0.tgz",
    },
    Fetch {
        name: "git",
        script: "git clone -q $BASE/greeting.git greeting && cat greeting/greeting.txt",
        prints: "hello from git",
        asked: "/greeting.git/info/refs",
    },
    Fetch {
        name: "cargo",
        script: "mkdir -p src && printf '[package]\\nname = \"a\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[dependencies]\\n\
            cell-greeting = { version = \"1\", registry = \"site\" }\\n' > Cargo.toml && \
            echo 'fn main() { println!(\"{}\", cell_greeting::greet()) }' > src/main.rs && \
            CARGO_NET_RETRY=0 CARGO_HOME=$HOME/cargo CARGO_REGISTRIES_SITE_INDEX=sparse+$BASE/cargo/index/ \"$CARGO\" run -q",
        prints: "hello from cargo",
        asked: "/cargo/files/cell-greeting-1.0.0.crate",
    },
    Fetch {
        name: "java",
        script: "cat > Fetch.java <<'END'\n\
            public class Fetch {\n\
                public static void main(String[] arguments) throws Exception {\n\
                    var request = java.net.http.HttpRequest.newBuilder(java.net.URI.create(arguments[0])).build();\n\
                    var text = java.net.http.HttpResponse.BodyHandlers.ofString();\n\
                    System.out.println(java.net.http.HttpClient.newHttpClient().send(request, text).body());\n\
                }\n\
            }\n\
            END\n\
            javac Fetch.java && java Fetch $BASE/greeting.txt",
        prints: "hello from a server",
        asked: "/greeting.txt",
    },
];

pub(super) fn run(workspace: &Workspace) -> Result<Totals> {
    for (program, package) in
        [("python3", "python3"), ("npm", "npm"), ("git", "git"), ("javac", "default-jdk-headless")]
    {
        tools::system(program, package)?;
    }
    let python = tools::pip(workspace, "packages", &["wheel==0.45.1"])?;
    let folder = scratch(workspace, "packages", "site")?;
    let log = folder.join("log");
    let mut command = Command::new("python3");
    command.arg(workspace.root().join("xtask/src/suites/site.py")).arg(folder.join("files")).arg(&log);
    let server = Program::start(command, |line| line.parse::<u16>().ok().map(|port| port.to_string()))?;
    let asked = || std::fs::read_to_string(&log).context("the server of packages keeps no log");
    let mut checks = Checks::new(Suite::Packages);
    let given = Given { python, cargo: cargo()?, port: server.url().to_owned() };
    for fetch in &FETCHES {
        checks.check(&format!("{} fetches, and only from where it may", fetch.name), || {
            let work = scratch(workspace, "packages", &fetch.name.replace(' ', "-"))?;
            let before = asked()?.len();
            let without = given.exec(workspace, &work, fetch, false);
            let heard = asked()?.len() - before;
            if without.is_ok() || heard > 0 {
                bail!("without a way out: {without:?}, and {heard} bytes of requests");
            }
            let said = given.exec(workspace, &work, fetch, true)?;
            let log = asked()?;
            let log = log.get(before..).unwrap_or_default();
            if said.trim() != fetch.prints || !log.contains(fetch.asked) {
                bail!("it said {said:?}, and the server was asked: {log}");
            }
            Ok(())
        });
    }
    drop(server);
    Ok(checks.totals)
}

/// What the cells are given.
struct Given {
    python: PathBuf,
    /// The folder of the Rust toolchain.
    cargo: PathBuf,
    port: String,
}

impl Given {
    fn exec(&self, workspace: &Workspace, work: &Path, fetch: &Fetch, net: bool) -> Result<String> {
        let Self { python, cargo, port } = self;
        let mut command = limited(workspace.built("toolgate"));
        command.current_dir(work).env_clear().env("HOME", work).env("PATH", "/usr/bin:/bin");
        command.args(["exec", "--profile", "code", "--changes", "discard"]);
        for folder in [prefix(python)?, cargo.clone()] {
            command.arg("--read").arg(folder);
        }
        // A virtual environment leads to the interpreter that it was made with.
        command.arg("--read").arg(python.parent().and_then(Path::parent).context("no environment")?);
        if net {
            command.arg("--net").arg(format!("{SITE}:{port},private"));
        }
        command.arg("--env").arg(format!("PYTHON={}", python.display()));
        command.arg("--env").arg(format!("CARGO={}", cargo.join("bin/cargo").display()));
        command.arg("--env").arg(format!("BASE=http://{SITE}:{port}"));
        command
            .arg("--env")
            .arg(format!("PATH={}:/usr/local/bin:/usr/bin:/bin", cargo.join("bin").display()));
        command.args(["--", "sh", "-e", "-c", fetch.script]);
        output(&mut command)
    }
}

/// Where an interpreter has its library.
fn prefix(python: &Path) -> Result<PathBuf> {
    let said = output(Command::new(python).args(["-c", "import sys; print(sys.base_prefix)"]))?;
    Ok(PathBuf::from(said.trim()))
}

/// The folder of the Rust toolchain that this was built with.
fn cargo() -> Result<PathBuf> {
    let said = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(said.trim()))
}
