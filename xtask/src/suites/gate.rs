//! Programs in the background, and a whole gate among them: a folder with a configuration, policies, an agent and
//! accepted tools, and `toolgate up`.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{Workspace, output};

/// How long a program may take until it listens.
const START: Duration = Duration::from_secs(30);

/// How long a program in the foreground may take, in seconds.
const LIMIT: &str = "240";

/// A rule that permits everything, for what is measured without a policy.
pub(crate) const ALLOW_ALL: &str =
    "@id(\"everything\")\n@because(\"this is a test\")\npermit(principal, action, resource);\n";

/// A program in the background that listens somewhere. It ends with this value.
pub(crate) struct Program {
    child: Child,
    url: String,
}

impl Program {
    /// Starts one of our fixtures, which says `ready URL`.
    pub(crate) fn fixture(workspace: &Workspace, name: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(workspace.built(name));
        command.args(arguments);
        Self::start(command, |line| line.strip_prefix("ready ").map(str::to_owned))
    }

    /// Starts a program and waits until a line that it prints says where it listens.
    pub(super) fn start(mut command: Command, find: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start `{name}`"))?;
        let (sender, lines) = mpsc::channel();
        follow(child.stdout.take(), sender.clone());
        follow(child.stderr.take(), sender);
        let mut program = Self { child, url: String::new() };
        let mut said = String::new();
        loop {
            match lines.recv_timeout(START) {
                Ok(line) => match find(&line) {
                    Some(url) => {
                        program.url = url;
                        return Ok(program);
                    }
                    None => said = said + &line + "\n",
                },
                Err(_) => bail!("`{name}` did not say where it listens; it said:\n{said}"),
            }
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Asks the program to end, and waits until it has.
    fn stop(mut self) -> Result<()> {
        output(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => bail!("it ended with {status}"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that ended by itself is no problem here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes lines on for as long as somebody wants them, and reads on after that, so that the program never blocks.
fn follow(stream: Option<impl Read + Send + 'static>, lines: mpsc::Sender<String>) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
}

/// A fresh folder for one test, below the suite's.
pub(crate) fn scratch(workspace: &Workspace, suite: &str, test: &str) -> Result<PathBuf> {
    let folder = workspace.suite_folder("scratch")?.join(suite).join(test);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A command that is ended if it takes too long.
pub(crate) fn limited(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT]).arg(program);
    command
}

/// A gate that is up, with one agent.
pub(crate) struct Gate {
    folder: PathBuf,
    program: PathBuf,
    token: String,
    up: Option<Program>,
    sockets: Sockets,
}

/// A folder for sockets, whose paths may be only so long. It ends with this value.
struct Sockets(PathBuf);

impl Sockets {
    fn new() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // A process that was killed, and had the number that this one has now, may have left some behind.
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("toolgate-suite-{}-{number}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => return Ok(made.map(|()| Self(folder))?),
            }
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // What is left in a folder for what is temporary does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Gate {
    /// Sets up a gate in a fresh folder and starts it. `servers` goes on in the table `[gateway]`. Without a policy
    /// nothing is permitted.
    pub(crate) fn start(
        workspace: &Workspace,
        suite: &str,
        test: &str,
        servers: &str,
        policy: Option<&str>,
    ) -> Result<Self> {
        let folder = scratch(workspace, suite, test)?;
        for name in ["home", "state", "config", "policies"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let configuration = format!("[gateway]\nlisten = \"127.0.0.1:0\"\n{servers}");
        std::fs::write(folder.join("toolgate.toml"), configuration)?;
        if let Some(policy) = policy {
            std::fs::write(folder.join("policies/suite.cedar"), policy)?;
        }
        let (program, sockets) = (workspace.built("toolgate"), Sockets::new()?);
        let mut gate = Self { folder, program, token: String::new(), up: None, sockets };
        let added: Value = serde_json::from_str(&gate.run(&["agent", "add", "suite", "--json"])?)
            .context("`toolgate agent add --json` printed no JSON")?;
        gate.token =
            added.get("token").and_then(Value::as_str).context("a new agent has no token")?.to_owned();
        std::fs::write(gate.token_file(), &gate.token)?;
        gate.run(&["tool", "review"])?;
        gate.run(&["tool", "accept", "--all"])?;
        gate.up()?;
        Ok(gate)
    }

    /// Where agents connect.
    pub(crate) fn url(&self) -> &str {
        self.up.as_ref().map_or("", Program::url)
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.folder.join("token")
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of the process that is up.
    pub(crate) fn id(&self) -> Option<u32> {
        self.up.as_ref().map(|up| up.child.id())
    }

    /// Runs a command of the program to its end, and returns what it printed.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(arguments))
    }

    /// Stops the gate, for a while.
    pub(crate) fn down(&mut self) -> Result<()> {
        self.up.take().map_or(Ok(()), Program::stop)
    }

    /// Starts the gate.
    pub(crate) fn up(&mut self) -> Result<()> {
        self.up = Some(Program::start(self.command(&["up"]), endpoint)?);
        Ok(())
    }

    /// Stops the gate, and verifies its log.
    pub(crate) fn stop(mut self) -> Result<String> {
        self.down()?;
        self.run(&["log", "verify"])
    }

    /// The program, with an environment of its own and nothing of ours.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).args(["--config", "toolgate.toml"]).args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.join("home")).env("NO_COLOR", "1");
        for (name, folder) in [("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config")] {
            command.env(name, self.folder.join(folder));
        }
        command.env("XDG_RUNTIME_DIR", &self.sockets.0);
        command
    }
}

/// The MCP endpoint in a line of `toolgate up`, if the line names it.
fn endpoint(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("http://127.0.0.1:")?;
    let (port, _) = rest.split_once("/mcp")?;
    port.parse::<u16>().ok().map(|port| format!("http://127.0.0.1:{port}/mcp"))
}

/// The messages in the log of `recording-upstream` that came from its client and have this method.
pub(super) fn received(log: &Path, method: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(log).with_context(|| format!("could not read `{}`", log.display()))?;
    let mut received = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        let message = line.get("message").and_then(Value::as_str).unwrap_or_default();
        let message: Value = serde_json::from_str(message).unwrap_or_default();
        let came = line.get("from").is_some_and(|from| from == "client");
        if came && message.get("method").is_some_and(|its| its == method) {
            received.push(message);
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_found_in_a_line() {
        for (line, want) in [
            ("agents connect to http://127.0.0.1:7420/mcp", Some("http://127.0.0.1:7420/mcp")),
            (
                "claude mcp add -t http gate http://127.0.0.1:7420/mcp --header …",
                Some("http://127.0.0.1:7420/mcp"),
            ),
            ("the console is at http://127.0.0.1:7421/", None),
            ("http://127.0.0.1:port/mcp", None),
        ] {
            assert_eq!(endpoint(line).as_deref(), want, "line: {line:?}");
        }
    }
}
