//! Cells with a kernel of their own, which is gVisor's: what runs in them makes its system calls to that, and not to the host's.
//!
//! ```text
//! first process of a cell ──fork──▶ runsc ──▶ kernel in user space ──▶ program
//! in namespaces of its own            └─────▶ server of its files, which are a folder of the cell's root
//! ```
//!
//! gVisor runs inside a cell, and not beside it: in the namespaces, the cgroup and the limits of one, as a user that is nobody on the
//! host, with a root that holds nothing but its own program, the files of the cell and a folder for its state. Whoever came through
//! its kernel and its filters would be there. Of the layers of other cells one is not around it, and one is thinner, since it needs what they
//! take away: it makes namespaces and mounts of its own, which Landlock bars, and our filter of system calls lets it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, fchdir, setrlimit};
use rustix::thread::set_no_new_privs;
use serde_json::{Value, json};

use super::CellError;
use super::bare::heard;
use super::filter::{Filter, Filters};
use super::init::{NOT_STARTED, reap};
use super::root::{Failure, Step as _};
use super::spec::{Command, Limits, Place, Shape, Source, Spec};
use super::wire::FromCell;

/// Where its program is looked for.
const RUNSC: [&str; 2] = ["/usr/local/bin/runsc", "/usr/bin/runsc"];

/// Where its program is, outside of what the program in the cell sees.
pub(super) const PROGRAM: &str = "/runsc";

/// Where the files of the cell are there.
pub(super) const FILES: &str = "/cell";

/// Where it keeps its state there, and is told what to run.
pub(super) const STATE: &str = "/state";

/// What it says of its own failures.
const LOG: &str = "/state/log";

/// How it is started: without a network, without a way to the host's files but by its server of files, which keeps nothing back; and
/// with no change of its own to the files of the root.
const ARGUMENTS: [&str; 16] = [
    "--rootless",
    "--platform=systrap",
    "--network=none",
    "--ignore-cgroups",
    "--host-uds=none",
    "--host-fifo=none",
    "--directfs=false",
    "--overlay2=none",
    "--file-access=shared",
    "--file-access-mounts=shared",
    "--root=/state",
    "--log=/state/log",
    "--log-format=json",
    "run",
    "--bundle=/state",
    "cell",
];

/// What it exits with where it could not start the program, or the program itself did.
const FAILED: i32 = 128;

/// How many processes and threads of its own it has on the host, at most, besides one for each of the program's.
const OWN_THREADS: u64 = 128;

/// Its program on this host.
pub(super) fn find() -> Result<PathBuf, String> {
    let found = RUNSC.into_iter().find_map(|path| fs::canonicalize(path).ok());
    found.ok_or_else(|| {
        format!("there is no `runsc`, which is gVisor's program, in `{}`", RUNSC.join("` or `"))
    })
}

/// What can be asked of a specification here; the rest is refused.
pub(super) fn check(spec: &Spec) -> Result<(), CellError> {
    if spec.net.is_empty() {
        return Ok(());
    }
    let why = "the tier `gvisor` cannot let a cell reach hosts by name; it takes the tier `native`, or no `net` at all";
    Err(CellError::Tier(why.to_owned()))
}

/// A cell that shows whether they can be made: its program says its own version in it.
pub(super) fn probe(runsc: &Source) -> Spec {
    let mut spec = Spec::probe();
    spec.argv = ["/runsc", "--version"].map(str::to_owned).into();
    // It reserves far more addresses than it uses memory.
    spec.limits.memory_bytes = 16 << 30;
    spec.limits.wall_ms = 20_000;
    let access = super::spec::Access::Run;
    spec.places.push(Place::Bind { at: "/runsc".to_owned(), source: runsc.clone(), access, owned: false });
    spec
}

/// The limits of all that is in the cell together, which is more than what the program started.
pub(super) fn together(limits: &Limits) -> Limits {
    Limits { processes: limits.processes.saturating_add(OWN_THREADS), ..*limits }
}

/// Puts in force what can be in force around it, and gives back the filter, which is for its program alone. The limits of each process
/// in the cell are kept by its kernel.
pub(super) fn lock_down(
    limits: &Limits,
    limit_each: bool,
    filters: Result<Filters, String>,
) -> Result<Filter, Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).step("the limit Core")?;
    if limit_each {
        let most = Some(together(limits).processes);
        setrlimit(Resource::Nproc, Rlimit { current: most, maximum: most }).step("the limit Nproc")?;
    }
    set_no_new_privs(true).step("no new privileges")?;
    let Filters { usual: _, no_set_id: _, alone: _, alone_as_owner: _, kernel } =
        filters.step("the filter of system calls")?;
    Ok(kernel)
}

/// Goes to a folder of the cell's files, wherever links in it lead there.
pub(super) fn enter(folder: &str) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let files: OwnedFd = openat2(CWD, FILES, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    fchdir(openat2(&files, folder, flags, Mode::empty(), how)?)
}

/// Says what is to run, where gVisor reads it, and how it is started.
pub(super) fn prepare(
    shape: &Shape,
    limit_each: bool,
    command: &Command,
) -> Result<std::process::Command, Failure> {
    let text = config(shape, limit_each, command).to_string();
    fs::write(Path::new(STATE).join("config.json"), text).step("telling gVisor what to run")?;
    let mut runsc = std::process::Command::new(PROGRAM);
    runsc.args(ARGUMENTS).env_clear().current_dir("/");
    Ok(runsc)
}

/// A bundle's configuration, in the form of OCI.
fn config(shape: &Shape, limit_each: bool, command: &Command) -> Value {
    let Limits { cpu_s, memory_bytes, file_bytes, descriptors, .. } = shape.limits;
    let memory = limit_each.then_some(("RLIMIT_AS", memory_bytes));
    let others = [
        ("RLIMIT_CORE", 0),
        ("RLIMIT_CPU", cpu_s),
        ("RLIMIT_FSIZE", file_bytes),
        ("RLIMIT_NOFILE", descriptors),
    ];
    let limits: Vec<Value> = memory
        .into_iter()
        .chain(others)
        .map(|(name, most)| json!({"type": name, "soft": most, "hard": most}))
        .collect();
    // The root is read-only, with all that is in it; what can be written is put over it once more. `/tmp` always is, or else there would
    // be another one.
    let tmp = Some("/tmp").filter(|tmp| !shape.writable.iter().any(|path| path == tmp));
    let written =
        tmp.into_iter().chain(shape.writable.iter().map(String::as_str)).filter(|path| !is_device(path));
    let mut mounts: Vec<Value> = written
        .map(|path| json!({"destination": path, "type": "bind", "source": format!("{FILES}{path}"), "options": ["rbind", "rw", "nosuid", "nodev"]}))
        .collect();
    for place in &shape.places {
        if let Place::Dev { shm_bytes } = place {
            let size = format!("size={shm_bytes}");
            mounts.push(json!({"destination": "/dev/shm", "type": "tmpfs", "source": "none", "options": [size, "mode=1777", "nosuid", "nodev"]}));
        }
    }
    let kinds = ["ipc", "mount", "network", "pid", "uts"];
    json!({
        "ociVersion": "1.0.2",
        "hostname": "cell",
        "root": {"path": FILES, "readonly": true},
        "process": {
            "args": command.argv,
            "capabilities": {},
            "cwd": command.cwd,
            "env": command.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "noNewPrivileges": true,
            "rlimits": limits,
            // Who the files belong to that are the cell's own. It has none of the rights of one.
            "user": {"uid": 0, "gid": 0},
        },
        "mounts": mounts,
        "linux": {"namespaces": kinds.map(|kind| json!({"type": kind}))},
    })
}

/// Devices are those of its own kernel.
fn is_device(path: &str) -> bool {
    Path::new(path).starts_with("/dev")
}

/// Waits until gVisor has ended. Whoever is to end meanwhile is the program, which no signal from outside reaches by itself.
pub(super) fn wait(runsc: libc::pid_t, signals: &OwnedFd) -> FromCell {
    loop {
        match reap(libc::WNOHANG) {
            Ok(Some((process, ended))) if process == runsc => return ended,
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::INTR) => {
                if heard(signals) == Some(libc::SIGTERM) {
                    let mut asks = std::process::Command::new(PROGRAM);
                    // If it cannot be asked, it is killed at the deadline.
                    drop(asks.args(ASK_TO_END).env_clear().spawn());
                }
            }
            // It cannot be, since gVisor is a child of this process.
            Err(error) => {
                let (step, why) = ("waiting for gVisor".to_owned(), error.to_string());
                return FromCell::Failed { step, why };
            }
        }
    }
}

/// How the program is asked to end, with all that it started.
const ASK_TO_END: [&str; 6] = ["--rootless", "--root=/state", "kill", "--all", "cell", "TERM"];

/// What is told of the program's end: that it was not started, if that is what gVisor says.
pub(super) fn ended(said: FromCell, program: &str) -> FromCell {
    match said {
        FromCell::Ended { code: Some(FAILED | NOT_STARTED), .. } => match complaint() {
            Some(why) => FromCell::Failed { step: format!("starting `{program}` in gVisor"), why },
            None => said,
        },
        FromCell::Ended { .. } | FromCell::Failed { .. } | FromCell::Ready { .. } | FromCell::Started => said,
    }
}

/// The first error on gVisor's log.
fn complaint() -> Option<String> {
    let log = fs::read_to_string(LOG).ok()?;
    log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let error = line.get("level")?.as_str()? == "error";
        error.then(|| line.get("msg").and_then(Value::as_str).unwrap_or_default().to_owned())
    })
}
