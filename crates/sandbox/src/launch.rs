//! Starting a child, from a thread that lives as long as the children may.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};

use crate::child::Child;

/// What to start: all of it from the operator's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launch {
    /// The program: a path, or a name that is looked up in the `PATH` given in `env`.
    pub program: PathBuf,
    /// Its arguments. No shell reads them.
    pub args: Vec<OsString>,
    /// Its whole environment. Nothing is inherited, not even `PATH`.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory; the gate's own if absent.
    pub cwd: Option<PathBuf>,
}

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
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

/// Starts children. Keep it as long as they shall live: the kernel kills them when its thread ends.
#[derive(Debug, Clone)]
pub struct Launcher {
    jobs: mpsc::UnboundedSender<Job>,
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
        Ok(Self { jobs })
    }

    /// Starts one child. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// The program cannot be found or started.
    pub async fn spawn(&self, launch: Launch) -> Result<Child, LaunchError> {
        let (done, started) = oneshot::channel();
        let job = Job { launch, runtime: tokio::runtime::Handle::current(), done };
        if self.jobs.send(job).is_err() {
            return Err(LaunchError::NoLauncher);
        }
        started.await.unwrap_or(Err(LaunchError::NoLauncher))
    }
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
        Ok(())
    };
    // SAFETY: the closure makes two system calls (`prctl`, `getppid`) and allocates nothing: both are async-signal-safe,
    // and it touches no lock and no memory but its own copy of a number.
    // JUSTIFICATION: the death signal is cleared by fork, so only the child can set it; the standard library has no
    // safe way to run code there.
    unsafe {
        command.pre_exec(before_exec);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}
