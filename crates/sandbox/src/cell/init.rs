//! The first process of a cell: prepares it, gives up everything, waits until it is told what to run, starts that, and tells the gate how
//! it ended.
//!
//! It has no secrets, its environment is empty, and nobody can look into it. When it ends the kernel kills whatever the program
//! has left behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socket_with};
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::bare;
use super::files;
use super::filter::{Filter, Filters};
use super::gvisor;
use super::launcher::{Given, close_all_but, last_error};
use super::lockdown::lock_down;
use super::root::{self, Failure, Step as _};
use super::spec::{Command, Handed, Layers, SECRETS, Shape};
use super::wire::{self, FromCell};
use crate::egress::tun;

/// Who the program is, inside: an ordinary user, so that nothing takes itself for root.
const USER: u32 = 1000;

/// What a program's exit status is where it could not be started, as in a shell.
pub(super) const NOT_STARTED: i32 = 127;

/// Goes on as the first process of a cell, to its end.
#[expect(clippy::exit, reason = "it is a copy of the launcher, which must not go on in it")]
pub(super) fn run(given: Given<'_>, gate: &OwnedFd, layers: Layers, filters: Result<Filters, String>) -> ! {
    let ended = prepare(given, gate, layers.in_force(), filters).and_then(|prepared| start(gate, prepared));
    let said = ended.unwrap_or_else(|Failure { step, why }| FromCell::Failed { step, why });
    // If the gate is gone, there is nobody to tell.
    let _gone = tell(gate, &said, &[]);
    std::process::exit(0)
}

pub(super) fn tell(gate: &OwnedFd, said: &FromCell, with: &[OwnedFd]) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(said).step("telling the gate")?;
    let with: Vec<_> = with.iter().map(OwnedFd::as_fd).collect();
    wire::send(gate, &bytes, &with).step("telling the gate")
}

/// What is known of a cell in which everything is in force.
struct Prepared {
    shape: Shape,
    limit_each: bool,
    /// What is in force from the start of a kernel on, if the cell has one of its own.
    filter: Option<Filter>,
}

/// Puts everything in force. After that it is known to nobody yet what will run in the cell.
fn prepare(
    given: Given<'_>,
    gate: &OwnedFd,
    layers: Layers,
    filters: Result<Filters, String>,
) -> Result<Prepared, Failure> {
    let Given { user, group, shape, mounts, tun } = given;
    // When the launcher dies, so does every cell.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step("dying with the gate")?;
    let own = [shape.as_fd(), gate.as_fd()];
    let kept: Vec<_> = own.into_iter().chain(mounts.iter().chain(tun).map(OwnedFd::as_fd)).collect();
    close_all_but(&kept).step("closing descriptors")?;
    // The launcher's socket is there; its other streams are nothing.
    dup2_stdin(rustix::stdio::stdout()).step("its own streams")?;
    set_signals();
    let shape: Shape = read(shape).step("what the cell is to be")?;
    // gVisor takes itself for root where it is; what it runs has none of the rights of one.
    map_user(if shape.kernel.is_some() { 0 } else { USER }, user, group)?;
    rustix::process::setsid().step("a session of its own")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::system::sethostname(b"cell").step("the name of the host")?;
    if layers.network {
        raise_loopback().step("the loopback interface")?;
    }
    let wanted = !shape.net.is_empty();
    let interface = wanted.then(|| tun::make(tun)).transpose().step("a way out to the network")?;
    let mut given_back = if layers.root { root::enter(&shape, mounts, layers.masks)? } else { Vec::new() };
    given_back.extend(interface);
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("not being looked into")?;
    let limit_each = wait_for(gate)?;
    hide_cgroup().step("a namespace of cgroups")?;
    let (landlock_abi, filter) = match &shape.kernel {
        None => (lock_down(layers, &shape, limit_each, filters)?, None),
        Some(_) => (0, Some(gvisor::lock_down(&shape.limits, limit_each, filters)?)),
    };
    tell(gate, &FromCell::Ready { landlock_abi }, &given_back)?;
    Ok(Prepared { shape, limit_each, filter })
}

pub(super) fn read<T: serde::de::DeserializeOwned>(from: OwnedFd) -> Result<T, String> {
    let mut text = Vec::new();
    File::from(from).read_to_end(&mut text).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

/// Waits until it is told what to run, starts it, and waits for its end.
#[expect(clippy::exit, reason = "it is a copy of the first process, which must not go on in it")]
fn start(gate: &OwnedFd, prepared: Prepared) -> Result<FromCell, Failure> {
    let Prepared { shape, limit_each, filter } = prepared;
    let own_kernel = shape.kernel.is_some();
    let (given, [stdin, stdout, stderr], handed_out) = command(gate, own_kernel)?;
    let Command { argv, env, cwd: _, files, hands_out: _, handed: _ } = &given;
    let (program, arguments) = argv.split_first().ok_or("the command is empty").step("the command")?;
    tell(gate, &FromCell::Started, &handed_out)?;
    drop(handed_out);
    files.iter().try_for_each(files::place)?;
    let mut command = if own_kernel {
        gvisor::prepare(&shape, limit_each, &given)?
    } else {
        let mut command = std::process::Command::new(program);
        command.args(arguments).env_clear().envs(env.iter().map(|(name, value)| (name, value)));
        command
    };
    let signals = own_kernel.then(bare::signals).transpose().step("waiting for ends")?;
    match fork().step("a process for the program")? {
        Forked::Child => {
            if signals.is_some() {
                bare::unblock_signals();
            }
            // A session of its own, so that it can be asked to end with all that it started and that did not leave it.
            let streams = rustix::process::setsid()
                .and_then(|_session| dup2_stdin(&stdin).and(dup2_stdout(&stdout)).and(dup2_stderr(&stderr)))
                .and_then(|()| filter.as_ref().map_or(Ok(()), Filter::apply));
            let why = match streams {
                Ok(()) => command.exec().to_string(),
                Err(error) => error.to_string(),
            };
            let step = format!("starting `{program}`");
            let _gone = tell(gate, &FromCell::Failed { step, why }, &[]);
            std::process::exit(NOT_STARTED)
        }
        // Whoever reads the streams learns of their end when the program's own processes have ended: they are closed here.
        Forked::Parent(child) => {
            PROGRAM.store(child, Ordering::Relaxed);
            drop((stdin, stdout, stderr));
            Ok(match signals {
                None => wait(child),
                Some(signals) => gvisor::ended(gvisor::wait(child, &signals), program),
            })
        }
    }
}

/// Waits for what the gate wants to be run, and goes to the folder where it is run. With it come its streams, and that folder if it is
/// to be handed out.
pub(super) fn command(
    gate: &OwnedFd,
    own_kernel: bool,
) -> Result<(Command, [OwnedFd; 3], Vec<OwnedFd>), Failure> {
    let step = "waiting for the command";
    let mut run = [0; 8];
    let (length, descriptors) =
        wire::receive(gate, &mut run, RecvFlags::empty()).step(step)?.ok_or("the gate is gone").step(step)?;
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or("it is none").step(step);
    let (command, streams) = (next()?, [next()?, next()?, next()?]);
    if run.get(..length) != Some(wire::RUN) {
        return Err("it is none").step(step);
    }
    let mut command: Command = read(command).step(step)?;
    take(&mut command, descriptors).step("what the cell is handed")?;
    let step = format!("the working directory `{}`", command.cwd);
    if own_kernel { gvisor::enter(&command.cwd) } else { rustix::process::chdir(&*command.cwd) }
        .step(&step)?;
    let mut handed_out = Vec::new();
    if command.hands_out {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        handed_out.push(rustix::fs::open(".", flags, Mode::empty()).step(&step)?);
    }
    Ok((command, streams, handed_out))
}

/// Takes what came in further descriptors: variables, and files that only the program's user can read.
fn take(command: &mut Command, descriptors: impl Iterator<Item = OwnedFd>) -> io::Result<()> {
    let mut descriptors = descriptors.fuse();
    for handed in std::mem::take(&mut command.handed) {
        let mut from = File::from(descriptors.next().ok_or(io::ErrorKind::UnexpectedEof)?);
        let mut value = Vec::new();
        from.rewind()?;
        from.read_to_end(&mut value)?;
        match handed {
            Handed::Env(name) => {
                let text = String::from_utf8(value).map_err(|_bytes| io::ErrorKind::InvalidData)?;
                command.env.push((name, text));
            }
            Handed::File(name) => {
                let path = format!("{SECRETS}/{name}");
                let file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path);
                file?.write_all(&value)?;
            }
        }
    }
    Ok(())
}

/// The program, once there is one: what is done at a signal has no other way to know.
static PROGRAM: AtomicI32 = AtomicI32::new(0);

/// Passes on to the program, and all in its group, that it is to end.
#[expect(unsafe_code, reason = "the standard library cannot send signals")]
extern "C" fn pass_on(signal: libc::c_int) {
    let program = PROGRAM.load(Ordering::Relaxed);
    if program > 0 {
        // SAFETY: `kill` may be called at a signal, and touches no memory. The number is that of the child of this process, which
        // stays taken until it is waited for; and then there is nobody but this process, which ends.
        // JUSTIFICATION: the gate sees the first process of a cell alone.
        unsafe { libc::kill(-program, signal) };
    }
}

/// The launcher ignores the ends of its children, and Rust ignores broken pipes; programs expect neither. Who asks this process to
/// end means the program.
#[expect(unsafe_code, reason = "the standard library cannot set how signals are dealt with")]
pub(super) fn set_signals() {
    let pass_on: extern "C" fn(libc::c_int) = pass_on;
    // SAFETY: it sets how signals are dealt with; the one handler does only what may be done at a signal, and there is one thread.
    // JUSTIFICATION: what is ignored stays ignored in a program that is executed; what is handled does not.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::signal(libc::SIGTERM, pass_on as libc::sighandler_t);
    }
}

/// From here on nobody in the cell sees where among the host's cgroups it is.
#[expect(unsafe_code, reason = "rustix calls it unsafe, for what other flags than this one do")]
fn hide_cgroup() -> Result<(), Errno> {
    // SAFETY: with this flag it changes what this process sees in `/proc` of cgroups, and nothing that memory depends on.
    // JUSTIFICATION: it has to come after the gate has put this process in a cgroup, so it cannot be done when it is cloned.
    let result = unsafe { libc::unshare(libc::CLONE_NEWCGROUP) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// One user and one group, and no way to drop groups.
fn map_user(inside: u32, user: u32, group: u32) -> Result<(), Failure> {
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("gid_map", format!("{inside} {group} 1")),
        ("uid_map", format!("{inside} {user} 1")),
    ] {
        std::fs::write(format!("/proc/self/{file}"), text).step(format_args!("the user's `{file}`"))?;
    }
    Ok(())
}

/// Waits until the gate has counted this process in. Says whether the memory of each process has to be limited.
pub(super) fn wait_for(gate: &OwnedFd) -> Result<bool, Failure> {
    let mut go = [0; 8];
    match wire::receive(gate, &mut go, RecvFlags::empty()).step("waiting for the gate")? {
        Some((length, _)) => Ok(go.get(..length) != Some(wire::GO)),
        None => Err("the gate is gone").step("waiting for the gate"),
    }
}

/// Brings up the interface by which the processes of the cell reach each other.
#[expect(unsafe_code, reason = "there is no safe way to bring up an interface")]
fn raise_loopback() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = Interface { name: *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0", flags: 0x41, rest: [0; 22] };
    // SAFETY: the structure is the kernel's `ifreq`, of its size, with a name that ends with zero; the kernel reads it.
    // JUSTIFICATION: tests and servers of programs talk to themselves over 127.0.0.1, and the interface begins as down.
    let result = unsafe {
        libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS as _, &raw mut request)
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// `struct ifreq` of the kernel, with flags: up and running.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

pub(super) enum Forked {
    Child,
    Parent(libc::pid_t),
}

#[expect(unsafe_code, reason = "the standard library cannot fork")]
pub(super) fn fork() -> Result<Forked, Errno> {
    // SAFETY: this process has one thread, so the child has all that the parent has and no lock is held by anybody else.
    // JUSTIFICATION: the program has to be a child of the process that reaps and reports.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        -1 => Err(last_error()),
        child => Ok(Forked::Parent(child)),
    }
}

/// Reaps whatever ends, until the program has.
fn wait(program: libc::pid_t) -> FromCell {
    loop {
        match reap(0) {
            Ok(Some((process, ended))) if process == program => return ended,
            Ok(_) | Err(Errno::INTR) => {}
            // It cannot be, since the program is a child of this process.
            Err(error) => {
                let (step, why) = ("waiting for the program".to_owned(), error.to_string());
                return FromCell::Failed { step, why };
            }
        }
    }
}

/// Reaps one process: which it was, and how it ended.
#[expect(unsafe_code, reason = "rustix does not tell what a process used up")]
pub(super) fn reap(options: libc::c_int) -> Result<Option<(libc::pid_t, FromCell)>, Errno> {
    let mut status = 0;
    // SAFETY: all zero is a value of this structure of numbers.
    // JUSTIFICATION: the kernel fills it in.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places outlive the call, which writes them.
    // JUSTIFICATION: one call reaps and says what was used up.
    let process = match unsafe { libc::wait4(-1, &raw mut status, options, &raw mut used) } {
        -1 => return Err(last_error()),
        0 => return Ok(None),
        process => process,
    };
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    let ended = FromCell::Ended {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        cpu_us: micros(used.ru_utime) + micros(used.ru_stime),
        peak_bytes: u64::try_from(used.ru_maxrss).unwrap_or(0) * 1024,
    };
    Ok(Some((process, ended)))
}
