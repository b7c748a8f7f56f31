//! Running programs, and saying what runs and how long it took.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// All our code, with the upstream made with the official SDK and the switches of the cells' layers, which are built only where they
/// are needed.
pub(crate) const EVERYTHING: [&str; 3] =
    ["--workspace", "--features", "toolgate-fixtures/rmcp,toolgate-sandbox/danger-switchable-layers"];

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    profile: &'static str,
}

impl Workspace {
    /// The workspace which this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().context("xtask is in no workspace")?.to_path_buf();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(target) => root.join(target),
            None => root.join("target"),
        };
        Ok(Self { root, target, profile: "debug" })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The same workspace, whose programs are those built with `--release`.
    pub(crate) fn released(&self) -> Self {
        Self { profile: "release", ..self.clone() }
    }

    /// A program built by `cargo build`.
    pub(crate) fn built(&self, name: &str) -> PathBuf {
        self.target.join(self.profile).join(name)
    }

    /// A folder below `target/suites`, made if it is not there.
    pub(crate) fn suite_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.target.join("suites").join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("could not make `{}`", folder.display()))?;
        Ok(folder)
    }

    /// `cargo`, to be run at the root of the workspace.
    pub(crate) fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root).args(arguments).stdin(Stdio::null());
        // What cargo told this program about itself would have build scripts run again that ask for the same names.
        for (name, _) in std::env::vars_os() {
            let of_ours = name.to_str().is_some_and(|name| {
                name.starts_with("CARGO_PKG_")
                    || name.starts_with("CARGO_MANIFEST_")
                    || name == "CARGO_PRIMARY_PACKAGE"
            });
            if of_ours {
                cargo.env_remove(name);
            }
        }
        cargo
    }
}

/// How many tests passed and failed, and what was said of those that failed: shown once more at the end, where it is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    failures: Vec<String>,
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for failure in &self.failures {
            writeln!(f, "---- failed: {failure}")?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Totals {
    /// One test that passed.
    pub(crate) fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    /// One test that failed, or a part that could not be run at all.
    pub(crate) fn failed(said: String) -> Self {
        Self { failed: 1, failures: vec![said], ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.failures.extend(other.failures);
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
    }

    /// Reads a closing line of the test runner, `test result: ok. 3 passed; 0 failed; …`.
    fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |word: &str| {
            counts.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok()).unwrap_or(0)
        };
        Some(Self { passed: count("passed"), failed: count("failed"), failures: Vec::new() })
    }
}

/// Runs a command, shows what it prints, and fails if it fails.
pub(crate) fn must(what: &str, command: &mut Command) -> Result<()> {
    say(&format!("{what}: {}", shown(command)));
    let begin = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("could not start {}", shown(command)))?;
    say(&format!("{what}: {:.1} s", begin.elapsed().as_secs_f64()));
    if !status.success() {
        bail!("{what} failed ({status}): {}", shown(command));
    }
    Ok(())
}

/// How much is shown once more of what one test runner said of its failures.
const MOST_LINES: usize = 150;

/// How long a test runner may print nothing: far longer than any test takes, or the build of all of them. A test that runs for a minute is
/// named by the runner.
const SILENCE: Duration = Duration::from_secs(20 * 60);

/// Runs a test runner, shows what it prints, and counts its tests. Failed tests are counted; a run that ends badly
/// without having failed a test (it did not compile, it crashed) is an error. One that prints nothing for long hangs: it is
/// killed with all that it started, and that is a failed test.
pub(crate) fn count(what: &str, command: &mut Command) -> Result<Totals> {
    count_within(SILENCE, what, command)
}

fn count_within(silence: Duration, what: &str, command: &mut Command) -> Result<Totals> {
    say(&format!("{what}: {}", shown(command)));
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {}", shown(command)))?;
    let output = BufReader::new(child.stdout.take().context("no output to read")?);
    let (tell, lines) = mpsc::channel();
    // It ends when nobody has the other end of the output any more, or nobody listens.
    std::thread::spawn(move || output.lines().try_for_each(|line| tell.send(line)));
    let mut totals = Totals::default();
    let mut section: Option<Vec<String>> = None;
    let mut last = "nothing".to_owned();
    loop {
        let line = match lines.recv_timeout(silence) {
            Ok(line) => line?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let running = end_all(child.id());
                child.kill()?;
                child.wait()?;
                let seconds = silence.as_secs();
                let said = format!(
                    "{what}: hung, and was killed: it printed nothing for {seconds} s; the last was `{last}`; running were: {}",
                    running.join("; ")
                );
                say(&said);
                totals.add(Totals::failed(said));
                return Ok(totals);
            }
        };
        println!("{line}");
        if !line.trim().is_empty() {
            last.clone_from(&line);
        }
        if let Some(counted) = Totals::of_line(&line) {
            totals.add(counted);
            totals.failures.extend(section.take().map(|lines| lines.join("\n")));
        }
        if line == "failures:" {
            section.get_or_insert_default();
        }
        if let Some(lines) = section.as_mut().filter(|lines| lines.len() < MOST_LINES) {
            lines.push(line);
        }
    }
    let status = child.wait()?;
    say(&format!("{what}: {:.1} s", begin.elapsed().as_secs_f64()));
    if !status.success() && totals.failed == 0 {
        bail!("{what} failed ({status}) without a failed test: {}", shown(command));
    }
    Ok(totals)
}

/// Kills all processes below one, and tells their commands.
fn end_all(process: u32) -> Vec<String> {
    let listed = output(Command::new("ps").args(["-A", "-o", "pid=,ppid=,args="])).unwrap_or_default();
    let (mut above, mut commands) = (vec![process.to_string()], Vec::new());
    while let Some(parent) = above.pop() {
        for line in listed.lines() {
            let mut words = line.split_whitespace();
            if let (Some(number), true) = (words.next(), words.next() == Some(&parent)) {
                // If it is gone, that is what was wanted.
                let _gone = output(Command::new("kill").args(["-KILL", number]));
                above.push(number.to_owned());
                commands.push(words.collect::<Vec<_>>().join(" "));
            }
        }
    }
    commands
}

/// Runs a command whose many lines matter only if it fails; gives what it printed.
pub(crate) fn must_quietly(what: &str, command: &mut Command) -> Result<String> {
    let begin = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start {}", shown(command)))?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if !output.status.success() {
        let from = text.lines().count().saturating_sub(MOST_LINES);
        let end: Vec<&str> = text.lines().skip(from).collect();
        bail!("{what} failed ({}): {}\n{}", output.status, shown(command), end.join("\n"));
    }
    say(&format!("{what}: {:.1} s", begin.elapsed().as_secs_f64()));
    Ok(text)
}

/// What a command prints to standard output; its standard error is shown only if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start {}", shown(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{} failed ({}):\n{text}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}

/// One line about what goes on.
pub(crate) fn say(line: &str) {
    println!("xtask: {line}");
}

fn shown(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_killed_and_failed() {
        let script = "echo 'test a ... ok'; echo 'test result: ok. 2 passed; 0 failed;'; echo 'test b ...'; sleep 1001 & sleep 1000";
        let mut hangs = Command::new("sh");
        hangs.args(["-c", script]);
        let totals = count_within(Duration::from_millis(500), "it", &mut hangs).unwrap();
        assert_eq!((totals.passed, totals.failed), (2, 1));
        let [said] = totals.failures.as_slice() else { panic!("{totals}") };
        for part in ["it: hung, and was killed", "the last was `test b ...`", "sleep 1000", "sleep 1001"] {
            assert!(said.contains(part), "{said}");
        }
        let ends = "echo 'test result: ok. 1 passed; 0 failed;'";
        let totals =
            count_within(Duration::from_secs(60), "it", Command::new("sh").args(["-c", ends])).unwrap();
        assert_eq!(totals, Totals::passed());
    }

    #[test]
    fn closing_lines_are_counted_and_others_are_not() {
        for (line, want) in [
            (
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
                Some((3, 0)),
            ),
            ("test result: FAILED. 10 passed; 2 failed; 0 ignored", Some((10, 2))),
            ("test json::keeps_order ... ok", None),
            ("the test result: ok. 3 passed", None),
        ] {
            let got = Totals::of_line(line).map(|totals| (totals.passed, totals.failed));
            assert_eq!(got, want, "line: {line:?}");
        }
    }
}
