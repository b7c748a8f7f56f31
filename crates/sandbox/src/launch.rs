//! Starting a child: in a cell, or plainly, from a thread that lives as long as the children may.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::cell::{CellError, Cells, Layers, Lent, Profile, Workspace};
use crate::child::Child;
use crate::egress::{Attempt, Event, Verdict};
use crate::stderr::StderrTail;

/// What to start: all of it from the operator's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launch {
    /// The program: a path, or a name that is looked up in the `PATH` given in `env`, or in that of the cell.
    pub program: PathBuf,
    /// Its arguments. No shell reads them.
    pub args: Vec<OsString>,
    /// Its whole environment, but for what a cell has. Nothing is inherited, not even `PATH`.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory; if absent, the gate's own, or its home in the cell. A cell can read it and run what is in it.
    pub cwd: Option<PathBuf>,
    /// The cell it runs in; `None` for none: then it has all the rights of the gate's user.
    pub cell: Option<Box<Profile>>,
}

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no cell for it.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// Without a cell, whatever it is handed would be every process's of its user.
    #[error("a program without a cell cannot be handed a secret")]
    NoCell,
    /// The launcher's thread could not be started, or is gone.
    #[error("the launcher does not run")]
    NoLauncher,
    /// A name without a slash needs a `PATH` to be looked up in, and the gate's own is not used.
    #[error("`{program}` is no path and `env` names no `PATH` to look it up in")]
    NoPath {
        /// The program as configured, hidden characters escaped.
        program: String,
    },
    /// The system did not start it.
    #[error("could not start `{program}`")]
    Spawn {
        /// The program as configured, hidden characters escaped.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What reads a pipe, and gives the pipe that is to be read in its place.
pub type Through<'a> = dyn Fn(OwnedFd) -> io::Result<OwnedFd> + Send + Sync + 'a;

/// How much of what a child does on the network may wait to be written down.
const TOLD: usize = 64;

/// Starts children. Keep it as long as they shall live: the kernel kills them when its thread ends.
#[derive(Debug, Clone)]
pub struct Launcher {
    jobs: mpsc::UnboundedSender<Job>,
    /// The program that makes cells, if it is not this one.
    maker: Option<PathBuf>,
    /// Started with the first cell.
    cells: Arc<OnceCell<Cells>>,
}

struct Job {
    launch: Launch,
    runtime: tokio::runtime::Handle,
    done: oneshot::Sender<Result<Child, LaunchError>>,
}

impl Launcher {
    /// Starts the launcher's thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> Result<Self, LaunchError> {
        let (jobs, mut inbox) = mpsc::unbounded_channel::<Job>();
        // A thread of its own, because the parent-death signal comes when the *thread* that forked ends, and the
        // runtime's threads come and go.
        std::thread::Builder::new()
            .name("toolgate-launch".to_owned())
            .spawn(move || {
                while let Some(Job { launch, runtime, done }) = inbox.blocking_recv() {
                    let _entered = runtime.enter();
                    // A caller that went away drops the child, which ends it.
                    drop(done.send(spawn_here(&launch)));
                }
            })
            .map_err(|source| LaunchError::Spawn { program: "the launcher's thread".to_owned(), source })?;
        Ok(Self { jobs, maker: None, cells: Arc::default() })
    }

    /// Has cells made by another program than this one, whose `main` begins with [`cell::launcher`](crate::cell::launcher).
    #[must_use]
    pub fn with_maker(self, program: PathBuf) -> Self {
        Self { maker: Some(program), ..self }
    }

    /// Starts one child. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// The program cannot be found or started.
    pub async fn spawn(&self, launch: Launch) -> Result<Child, LaunchError> {
        self.spawn_handed(launch, &Lent::default(), None).await
    }

    /// The same, for a child in a cell that is handed something secret. What it writes to standard error is read from what
    /// `errors` makes of it.
    ///
    /// # Errors
    /// The program cannot be found or started; or it is handed something and has no cell.
    pub async fn spawn_handed(
        &self,
        launch: Launch,
        lent: &Lent,
        errors: Option<&Through<'_>>,
    ) -> Result<Child, LaunchError> {
        if let Some(profile) = &launch.cell {
            return self.spawn_in_cell(&launch, (**profile).clone(), lent, errors).await;
        }
        if !lent.handed.is_empty() {
            return Err(LaunchError::NoCell);
        }
        let (done, started) = oneshot::channel();
        let job = Job { launch, runtime: tokio::runtime::Handle::current(), done };
        if self.jobs.send(job).is_err() {
            return Err(LaunchError::NoLauncher);
        }
        started.await.unwrap_or(Err(LaunchError::NoLauncher))
    }

    /// What makes the cells of its children; started when it is first needed.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn cells(&self) -> Result<&Cells, CellError> {
        let start = || async {
            let itself = std::env::current_exe();
            let maker =
                self.maker.clone().map_or(itself, Ok).map_err(|e| CellError::System("this program", e))?;
            Cells::start(&maker, Layers::ALL)
        };
        self.cells.get_or_try_init(start).await
    }

    /// Starts one child in a cell. If it is made by this same program, that one's `main` has to begin with
    /// [`cell::launcher`](crate::cell::launcher).
    async fn spawn_in_cell(
        &self,
        launch: &Launch,
        mut profile: Profile,
        lent: &Lent,
        errors_through: Option<&Through<'_>>,
    ) -> Result<Child, LaunchError> {
        let pipe = |error| CellError::System("a pipe", error);
        let cells = self.cells().await?;
        profile.env.extend(launch.env.iter().map(|(name, value)| (text(name), text(value))));
        profile.workspace = launch.cwd.clone().map(|folder| (folder, Workspace::Read));
        let mut program = launch.program.clone();
        if program.as_os_str().as_encoded_bytes().contains(&b'/') {
            // What is not the whole path begins where the server is started.
            program = launch.cwd.clone().unwrap_or_default().join(program);
            profile.program = Some(program.clone());
        }
        let argv = std::iter::once(program.as_os_str()).chain(launch.args.iter().map(OsString::as_os_str));
        let mut planned = profile.plan(argv.map(text).collect())?;
        planned.make_room(lent);
        let (input, stdin) = io::pipe().map_err(pipe)?;
        let (stdout, output) = io::pipe().map_err(pipe)?;
        let (stderr, errors) = io::pipe().map_err(pipe)?;
        let streams = [input.into(), output.into(), errors.into()];
        cells.give(&streams)?;
        let mut cell = cells.run_handed(&planned.spec, streams, lent).await?;
        let stdin = ChildStdin::from_std(OwnedFd::from(stdin).into()).map_err(pipe)?;
        let stdout = ChildStdout::from_std(OwnedFd::from(stdout).into()).map_err(pipe)?;
        let stderr = match errors_through {
            Some(through) => through(stderr.into()).map_err(pipe)?,
            None => stderr.into(),
        };
        let stderr = ChildStderr::from_std(stderr.into()).map_err(pipe)?;
        let stderr = StderrTail::follow(stderr);
        let network = cell.network.take().map(|events| {
            let (tell, network) = mpsc::channel(TOLD);
            tokio::spawn(tell_refusals(events, stderr.clone(), tell));
            network
        });
        for path in &cell.unmapped {
            let path = path.display();
            stderr.push(
                format!("`{path}` cannot be shown as the cell's own; it reaches what anybody may\n")
                    .as_bytes(),
            );
        }
        Ok(Child::in_cell(cell, (stdin, stdout), stderr, network))
    }
}

/// What a child wanted to reach and may not is told where operators look for its complaints, and everything to whoever writes it down.
async fn tell_refusals(mut events: mpsc::Receiver<Event>, stderr: StderrTail, tell: mpsc::Sender<Event>) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            // Nobody writes it down, so nothing more is to happen: without a reader there are no more connections.
            () = tell.closed() => None,
        };
        let Some(event) = event else { return };
        if let Event::Attempt(Attempt { to, port, verdict: Verdict::Refused(why), .. }) = &event {
            stderr.push(format!("not allowed: {to}, port {port}: {why}\n").as_bytes());
        }
        let _nobody_writes = tell.send(event).await;
    }
}

/// As text: what an operator writes is.
fn text(words: &OsStr) -> String {
    words.to_string_lossy().into_owned()
}

fn spawn_here(launch: &Launch) -> Result<Child, LaunchError> {
    let program = || launch.program.to_string_lossy().escape_debug().to_string();
    let is_name = launch.program.components().count() == 1 && !launch.program.to_string_lossy().contains('/');
    if is_name && !launch.env.iter().any(|(key, _)| key == "PATH") {
        return Err(LaunchError::NoPath { program: program() });
    }
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.args)
        .env_clear()
        .envs(launch.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(cwd) = &launch.cwd {
        command.current_dir(cwd);
    }
    die_with_parent(&mut command);
    let child = command.spawn().map_err(|source| LaunchError::Spawn { program: program(), source })?;
    Child::new(child).ok_or(LaunchError::NoLauncher)
}

/// Has the kernel kill the child when the gate dies.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "what runs between fork and exec has to be promised to be async-signal-safe")]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let before_exec = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The gate may have died between fork and the line above: then nobody would tell us.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        // The gate may go without huge pages; that is no reason for a server to.
        let _has_none = rustix::thread::disable_transparent_huge_pages(false);
        Ok(())
    };
    // SAFETY: the closure makes three system calls (`prctl` twice, `getppid`) and allocates nothing: they are async-signal-safe,
    // and it touches no lock and no memory but its own copy of a number.
    // JUSTIFICATION: the death signal is cleared by fork, so only the child can set it; the standard library has no
    // safe way to run code there.
    unsafe {
        command.pre_exec(before_exec);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

#[cfg(test)]
mod tests {
    use super::*;

    /// It notices at once, and not with the end of the next connection.
    #[tokio::test]
    async fn where_nobody_writes_it_down_nothing_more_can_be_done() {
        let (events, read) = mpsc::channel(8);
        let (tell, told) = mpsc::channel(8);
        tokio::spawn(tell_refusals(read, StderrTail::default(), tell));
        drop(told);
        let closed = tokio::time::timeout(std::time::Duration::from_secs(10), events.closed());
        assert!(closed.await.is_ok());
    }
}
