//! Cells without namespaces, for hosts that give none: what runs in them sees the files of the host where they are, and Landlock says
//! which it can open; the filters bar what namespaces would keep apart.
//!
//! ```text
//! gate ──▶ launcher ──fork──▶ keeper ──fork──▶ program, after it gave up everything
//!                             waits, kills all that there is below it, reports
//! ```
//!
//! The kernel kills nothing here by itself. So the keeper stays outside of what the program can reach, is where every process ends
//! up whose parent has ended, and kills them all when the program has ended, the gate says so, or the gate is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{Access as _, AccessFs, BitFlags, PathFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Signal, getpid, getrlimit, kill_process_group, pidfd_open,
    pidfd_send_signal, set_child_subreaper, set_dumpable_behavior,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::set_no_new_privs;

use super::filter::Filters;
use super::init::{self, Forked, NOT_STARTED, fork, tell, wait_for};
use super::launcher::{Given, close_all_but, last_error};
use super::lockdown::{LANDLOCK, NEWEST, Rules, hold_none, set_limits};
use super::root::{self, Failure, Step as _};
use super::spec::{self, Access, Layers, Limits, Place, Shape, Spec};
use super::wire::FromCell;
use super::{CellError, files};

/// The level of Landlock that keeps signals in; with less, a cell could end every process of its user.
const LEAST_LANDLOCK: u32 = 6;

/// What of `/proc` is of the machine and of nobody in it, and read by programs that ask how large it is.
const OF_THE_MACHINE: &[&str] = &[
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "sys/kernel/cap_last_cap",
    "sys/kernel/osrelease",
    "sys/kernel/pid_max",
    "sys/vm/overcommit_memory",
    "uptime",
    "version",
];

/// What can be asked of a specification here, in the gate: the same with a folder of its own in place of all that would be in memory.
/// Whatever this tier cannot do is refused.
pub(super) fn translate(spec: &Spec, scratch: &Path) -> Result<Spec, CellError> {
    let refused = |what: &str, instead: &str| {
        Err(CellError::Tier(format!("the tier `landlock-only` cannot {what}; {instead}")))
    };
    if spec.base.is_some() {
        return refused("run on an image", "it takes the tier `native`");
    }
    if !spec.net.is_empty() {
        return refused("let a cell reach hosts by name", "it takes the tier `native`, or no `net` at all");
    }
    let scratch = scratch.to_str().ok_or(CellError::NoLauncher)?;
    let (mut places, mut tmpfs) = (Vec::new(), BTreeSet::new());
    let mut written: Vec<&Path> = Vec::new();
    for place in &spec.places {
        match place {
            Place::Overlay { .. } => {
                return refused(
                    "keep changes of a folder apart",
                    "give it read-only (`--changes none`) or directly (`--changes direct`)",
                );
            }
            Place::Bind { at, source, access, .. } => {
                // What would be elsewhere in a root of its own is not there at all.
                if fs::canonicalize(at).ok().as_deref() != Some(&*source.path) {
                    let what = format!("show `{}` as `{at}`", source.path.display());
                    return refused(&what, "it takes the tier `native`");
                }
                if *access == Access::Write {
                    written.push(&source.path);
                }
                places.push(place.clone());
            }
            Place::Tmpfs { at, .. } => {
                tmpfs.insert(at.as_str());
            }
            Place::Dev { .. } | Place::Proc => places.push(place.clone()),
            // Nobody asked for these: they stand in for files of a system that are the host's own here.
            Place::File { .. } | Place::Symlink { .. } => {}
        }
    }
    for place in &places {
        if let Place::Bind { source, access: Access::Read | Access::Run, .. } = place
            && written.iter().any(|above| source.path.starts_with(above))
        {
            let what = format!("keep `{}` from being written below a folder that is", source.path.display());
            return refused(&what, "it takes the tier `native`");
        }
    }
    let moved = |path: &str| if tmpfs.contains(path) { scratch.to_owned() } else { path.to_owned() };
    let mut env: BTreeMap<String, String> =
        spec.env.iter().map(|(name, value)| (name.clone(), moved(value))).collect();
    env.insert("TMPDIR".to_owned(), scratch.to_owned());
    Ok(Spec {
        env: env.into_iter().collect(),
        cwd: moved(&spec.cwd),
        places,
        writable: vec![scratch.to_owned()],
        ..spec.clone()
    })
}

/// A folder for what a cell writes, removed when nothing of the cell is left.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) path: PathBuf,
    /// The keeper of the cell. It ends when all the others have.
    keeper: Option<OwnedFd>,
}

/// What such folders are called, before the number of the gate and one of their own.
const SCRATCH: &str = "toolgate-cell-";

/// Where they are.
const SCRATCHES: &str = "/tmp";

/// How many of them one gate may have.
const MAX_SCRATCHES: u32 = 10_000;

impl Scratch {
    /// Makes one, which belongs to `user`. Those of gates that are gone are removed.
    pub(super) fn make(user: Option<u32>) -> Result<Self, CellError> {
        let refused = |error| CellError::System("a folder for the cell", error);
        clean();
        for number in 0..MAX_SCRATCHES {
            let path = Path::new(SCRATCHES).join(format!("{SCRATCH}{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    made.map_err(refused)?;
                    let scratch = Self { path, keeper: None };
                    std::os::unix::fs::lchown(&scratch.path, user, user).map_err(refused)?;
                    return Ok(scratch);
                }
            }
        }
        Err(refused(std::io::ErrorKind::AlreadyExists.into()))
    }

    /// Says after whose end it can be removed.
    pub(super) fn kept_by(&mut self, keeper: &OwnedFd) -> Result<(), CellError> {
        let keeper = keeper.try_clone().map_err(|error| CellError::System("a descriptor", error))?;
        self.keeper = Some(keeper);
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (path, keeper) = (std::mem::take(&mut self.path), self.keeper.take());
        let left = move || {
            if let Some(keeper) = keeper {
                // A process can be read, so to say, when it has ended.
                let mut ended = [PollFd::new(&keeper, PollFlags::IN)];
                while poll(&mut ended, None) == Err(Errno::INTR) {}
            }
            // What cannot be removed now is by the next gate.
            let _left = remove(&path);
        };
        drop(std::thread::Builder::new().name("toolgate-scratch".to_owned()).spawn(left));
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    let above = fs::File::open(SCRATCHES)?;
    Ok(crate::image::remove(above, path.file_name().unwrap_or_default().as_encoded_bytes())?)
}

/// Removes what gates have left that are gone.
fn clean() {
    let mine = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(SCRATCHES).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let gate = name.to_str().and_then(|name| name.strip_prefix(SCRATCH)?.split_once('-'));
        let owned = entry.metadata().is_ok_and(|found| found.is_dir() && (mine == 0 || found.uid() == mine));
        if owned && gate.is_some_and(|(gate, _)| !Path::new("/proc").join(gate).exists()) {
            let _left = remove(&entry.path());
        }
    }
}

/// Goes on as the keeper of a cell, to its end. `own` says whether it runs as a user that has other files and processes.
#[expect(clippy::exit, reason = "it is a copy of the launcher, which must not go on in it")]
pub(super) fn run(
    given: Given<'_>,
    gate: &OwnedFd,
    layers: Layers,
    filters: Result<Filters, String>,
    own: bool,
) -> ! {
    let said = keep(given, gate, layers.in_force(), filters, own)
        .unwrap_or_else(|Failure { step, why }| FromCell::Failed { step, why });
    let _gone = tell(gate, &said, &[]);
    std::process::exit(0)
}

#[expect(clippy::exit, reason = "the copy that becomes the program must not go on as the keeper")]
fn keep(
    given: Given<'_>,
    gate: &OwnedFd,
    layers: Layers,
    filters: Result<Filters, String>,
    own: bool,
) -> Result<FromCell, Failure> {
    let Given { user: _, group: _, shape, mounts: _, tun: _ } = given;
    close_all_but(&[shape.as_fd(), gate.as_fd()]).step("closing descriptors")?;
    // The launcher's socket is there; its other streams are nothing.
    rustix::stdio::dup2_stdin(rustix::stdio::stdout()).step("its own streams")?;
    init::set_signals();
    let shape: Shape = init::read(shape).step("what the cell is to be")?;
    rustix::process::setsid().step("a session of its own")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Whoever loses its parent becomes a child of this process.
    set_child_subreaper(Some(getpid())).step("keeping what is left behind")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("not being looked into")?;
    let limit_each = wait_for(gate)?;
    let signals = signals().step("waiting for ends")?;
    match fork().step("a process for the program")? {
        Forked::Child => {
            drop(signals);
            let Err(Failure { step, why }) = start(&shape, gate, layers, limit_each, filters, own);
            let _gone = tell(gate, &FromCell::Failed { step, why }, &[]);
            std::process::exit(NOT_STARTED)
        }
        Forked::Parent(program) => {
            let ended = watch(program, &signals, gate);
            Ok(end_all(program, ended, &signals))
        }
    }
}

/// Gives up everything, waits until it is told what to run, and becomes that.
fn start(
    shape: &Shape,
    gate: &OwnedFd,
    layers: Layers,
    limit_each: bool,
    filters: Result<Filters, String>,
    own: bool,
) -> Result<std::convert::Infallible, Failure> {
    unblock_signals();
    // Should the keeper be killed after all, its program is, too.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step("dying with the keeper")?;
    // If there is too little memory, this one goes first, and not the one that would end it.
    let _as_it_is = fs::write("/proc/self/oom_score_adj", "500");
    rustix::process::setsid().step("a session of its own")?;
    if layers.rlimits {
        limit(&shape.limits, limit_each)?;
    }
    hold_none()?;
    set_no_new_privs(true).step("no new privileges")?;
    let landlock_abi = if layers.landlock { landlock(shape)? } else { 0 };
    if layers.seccomp {
        let step = "the filter of system calls";
        let Filters { usual: _, no_set_id: _, alone, alone_as_owner, kernel: _ } = filters.step(step)?;
        let filter = if own { alone_as_owner } else { alone };
        filter.apply().step(step)?;
    }
    tell(gate, &FromCell::Ready { landlock_abi }, &[])?;
    let (command, [stdin, stdout, stderr], handed_out) = init::command(gate, false)?;
    let spec::Command { argv, env, cwd: _, files, hands_out: _, handed: _ } = command;
    files.iter().try_for_each(files::place)?;
    let (program, arguments) = argv.split_first().ok_or("the command is empty").step("the command")?;
    tell(gate, &FromCell::Started, &handed_out)?;
    dup2_stdin(&stdin).and(dup2_stdout(&stdout)).and(dup2_stderr(&stderr)).step("the streams")?;
    let why = Command::new(program).args(arguments).env_clear().envs(env).exec();
    Err(why).step(format_args!("starting `{program}`"))
}

fn limit(limits: &Limits, limit_each: bool) -> Result<(), Failure> {
    // Here the kernel counts all processes of the user. Where a cgroup counts those of the cell, it says how many there may be.
    let processes = if limit_each {
        limits.processes.saturating_add(processes_of_the_user())
    } else {
        getrlimit(Resource::Nproc).maximum.unwrap_or(u64::MAX)
    };
    set_limits(&Limits { processes, ..*limits }, limit_each)
}

/// How many processes and threads the user has.
fn processes_of_the_user() -> u64 {
    let user = rustix::process::geteuid().as_raw();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = entries.filter(|entry| entry.metadata().is_ok_and(|found| found.uid() == user));
    own.map(|entry| fs::read_dir(entry.path().join("task")).map_or(0, |tasks| tasks.count() as u64)).sum()
}

/// What is named can be opened, as far as it is said; nothing else of the host can.
fn landlock(shape: &Shape) -> Result<u32, Failure> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Rules::none()?;
    for place in &shape.places {
        rules = match place {
            Place::Bind { source, access, .. } => {
                let granted = match access {
                    Access::Read => read,
                    Access::Run => read | AccessFs::Execute,
                    Access::Write => AccessFs::from_all(NEWEST),
                };
                let found = root::meant(source).step(format_args!("`{}`", source.path.display()))?;
                rules.and(found, granted)?
            }
            Place::Dev { .. } => rules.and_devices()?,
            Place::Proc => {
                // Not every kernel has them all.
                let mut there =
                    OF_THE_MACHINE.iter().filter_map(|name| PathFd::new(format!("/proc/{name}")).ok());
                there.try_fold(rules, |rules, file| rules.and(file, AccessFs::ReadFile))?
            }
            Place::File { .. } | Place::Overlay { .. } | Place::Symlink { .. } | Place::Tmpfs { .. } => {
                return Err("this tier has no such place").step(place);
            }
        };
    }
    let has = rules.and_writable(&shape.writable)?.put_in_force()?;
    if has < LEAST_LANDLOCK {
        let why =
            format!("this kernel has level {has} of it, and it takes {LEAST_LANDLOCK} to keep signals in");
        return Err(why).step(LANDLOCK);
    }
    Ok(has)
}

/// Signals that are waited for like messages: a process has ended; the program is to end.
#[expect(unsafe_code, reason = "neither the standard library nor rustix has signals as descriptors")]
pub(super) fn signals() -> Result<OwnedFd, Errno> {
    // SAFETY: a set of signals is plain memory, which these calls fill; it outlives them. There is one thread, whose mask is set.
    // JUSTIFICATION: the end of a process and the word of the gate are waited for at once, without a handler.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) == -1 {
            return Err(last_error());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(last_error()),
            made => Ok(OwnedFd::from_raw_fd(made)),
        }
    }
}

/// In the program, signals are as anywhere.
#[expect(unsafe_code, reason = "the standard library cannot set which signals are blocked")]
pub(super) fn unblock_signals() {
    // SAFETY: the set is plain memory that outlives the calls; there is one thread, whose mask is set.
    // JUSTIFICATION: what is blocked stays blocked in a program that is executed.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Waits for the next of these signals.
pub(super) fn heard(signals: &OwnedFd) -> Option<libc::c_int> {
    let _again = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
    next(signals)
}

/// The next of these signals, if there is one.
fn next(signals: &OwnedFd) -> Option<libc::c_int> {
    // `struct signalfd_siginfo` has 128 bytes and begins with the number of the signal.
    let mut told = [0; 128];
    match rustix::io::read(signals, &mut told) {
        Ok(128) => told.first_chunk().map(|number| libc::c_int::from_ne_bytes(*number)),
        _ => None,
    }
}

/// Waits until the program has ended, and says how; or until everything is to end.
fn watch(program: libc::pid_t, signals: &OwnedFd, gate: &OwnedFd) -> Option<FromCell> {
    loop {
        while let Ok(Some((process, ended))) = reap() {
            if process == program {
                return Some(ended);
            }
        }
        let mut ready = [PollFd::new(signals, PollFlags::IN), PollFd::new(gate, PollFlags::RDHUP)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
        let [_, gate] = &ready;
        if gate.revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            return None;
        }
        while let Some(signal) = next(signals) {
            if signal == libc::SIGTERM {
                ask_to_end(program);
            }
        }
    }
}

/// Passes on to the program, and all in its group, that it is to end.
fn ask_to_end(program: libc::pid_t) {
    if let Some(program) = Pid::from_raw(program) {
        let _gone = kill_process_group(program, Signal::TERM);
    }
}

/// Reaps a process that has ended, if there is one. `CHILD`: there are none at all.
fn reap() -> Result<Option<(libc::pid_t, FromCell)>, Errno> {
    init::reap(libc::WNOHANG)
}

/// Kills all that is below this process, whatever it does meanwhile, and says how the program ended.
fn end_all(program: libc::pid_t, mut ended: Option<FromCell>, signals: &OwnedFd) -> FromCell {
    loop {
        let below = descendants();
        // What is stopped starts nothing any more. So those that are not seen yet become fewer.
        for signal in [Signal::STOP, Signal::KILL] {
            for process in &below {
                let _gone = pidfd_send_signal(process, signal);
            }
        }
        loop {
            match reap() {
                Ok(Some((process, how))) if process == program => drop(ended.get_or_insert(how)),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return ended.unwrap_or(KILLED),
            }
        }
        // Until the next one has ended; or not, if it is one that was not seen.
        let soon = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let _again = poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&soon));
        while let Ok(1..) = rustix::io::read(signals, &mut [0; 128]) {}
    }
}

/// What is told of a program whose end nobody saw.
const KILLED: FromCell =
    FromCell::Ended { code: None, signal: Some(libc::SIGKILL), cpu_us: 0, peak_bytes: 0 };

/// All processes that this one or one of its has started, whoever their parent is now.
fn descendants() -> Vec<OwnedFd> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some((number, parent)) = number.and_then(|number| Some((number, parent(number)?))) {
            parents.insert(number, parent);
        }
    }
    let own = getpid().as_raw_pid();
    let is_below = |number: i32| {
        // A process has no more ancestors than there are processes.
        let mut above = std::iter::successors(parents.get(&number), |above| parents.get(above));
        above.by_ref().take(parents.len()).any(|above| *above == own)
    };
    let below: BTreeSet<i32> = parents.keys().copied().filter(|number| is_below(*number)).collect();
    let open = |number: &i32| {
        let process = pidfd_open(Pid::from_raw(*number)?, PidfdFlags::empty()).ok()?;
        // If the number is another process's by now, it has another parent.
        let parent = parent(*number)?;
        (parent == own || below.contains(&parent)).then_some(process)
    };
    below.iter().filter_map(open).collect()
}

/// Who a process belongs to, by `/proc`, unless it has ended.
fn parent(number: i32) -> Option<i32> {
    let text = fs::read(format!("/proc/{number}/stat")).ok()?;
    // Its name, which may hold anything, ends with the last bracket.
    let after = text.rsplit(|byte| *byte == b')').next()?;
    let mut words = std::str::from_utf8(after).ok()?.split_ascii_whitespace();
    if matches!(words.next()?, "Z" | "X") {
        return None;
    }
    words.next()?.parse().ok()
}
