//! The first process of a cell: prepares it, gives up everything, starts the program, and tells the gate how it ended.
//!
//! It has no secrets, its environment is empty, and nobody can look into it. When it ends the kernel kills whatever the program
//! has left behind.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socket_with};
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::files;
use super::filter::Filters;
use super::launcher::{Given, close_all_but, last_error};
use super::lockdown::lock_down;
use super::root::{self, Failure, Step as _};
use super::spec::{Layers, Spec};
use super::wire::{self, FromCell};
use crate::egress::tun;

/// Who the program is, inside: an ordinary user, so that nothing takes itself for root.
const USER: u32 = 1000;

/// What a program's exit status is where it could not be started, as in a shell.
const NOT_STARTED: i32 = 127;

/// Goes on as the first process of a cell, to its end.
#[expect(clippy::exit, reason = "it is a copy of the launcher, which must not go on in it")]
pub(super) fn run(given: Given<'_>, gate: &OwnedFd, layers: Layers, filters: Result<Filters, String>) -> ! {
    let ended = match prepare(given, gate, layers.in_force(), filters) {
        Ok(prepared) => prepared.start(gate),
        Err(failure) => Err(failure),
    };
    let said = ended.unwrap_or_else(|Failure { step, why }| FromCell::Failed { step, why });
    // If the gate is gone, there is nobody to tell.
    let _gone = tell(gate, &said, &[]);
    std::process::exit(0)
}

fn tell(gate: &OwnedFd, said: &FromCell, with: &[OwnedFd]) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(said).step("telling the gate")?;
    let with: Vec<_> = with.iter().map(OwnedFd::as_fd).collect();
    wire::send(gate, &bytes, &with).step("telling the gate")
}

/// A cell in which everything is in force.
struct Prepared {
    program: Command,
    nothing: OwnedFd,
}

fn prepare(
    given: Given<'_>,
    gate: &OwnedFd,
    layers: Layers,
    filters: Result<Filters, String>,
) -> Result<Prepared, Failure> {
    let Given { user, group, spec, streams, mounts, tun } = given;
    // When the launcher dies, so does every cell.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step("dying with the gate")?;
    let [stdin, stdout, stderr] = &streams;
    let own = [spec.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), gate.as_fd()];
    let kept: Vec<_> = own.into_iter().chain(mounts.iter().chain(tun).map(OwnedFd::as_fd)).collect();
    close_all_but(&kept).step("closing descriptors")?;
    dup2_stdin(stdin).and(dup2_stdout(stdout)).and(dup2_stderr(stderr)).step("the streams")?;
    default_signals();
    // The program has them; here they would keep them open.
    drop(streams);
    map_user(user, group)?;
    let mut text = Vec::new();
    File::from(spec).read_to_end(&mut text).step("the specification")?;
    let spec: Spec = serde_json::from_slice(&text).step("the specification")?;
    let limit_each = wait_for(gate)?;
    rustix::process::setsid().step("a session of its own")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::system::sethostname(b"cell").step("the name of the host")?;
    if layers.network {
        raise_loopback().step("the loopback interface")?;
    }
    let wanted = !spec.net.is_empty();
    let interface = wanted.then(|| tun::make(tun)).transpose().step("a way out to the network")?;
    let mut given_back =
        if layers.root { root::enter(&spec.places, mounts, layers.masks)? } else { Vec::new() };
    rustix::process::chdir(&*spec.cwd).step(format_args!("the working directory `{}`", spec.cwd))?;
    let nothing =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step("`/dev/null`")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("not being looked into")?;
    let landlock_abi = lock_down(layers, &spec, limit_each, filters)?;
    given_back.extend(interface);
    spec.files.iter().try_for_each(files::place)?;
    if spec.hands_out {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        given_back.push(rustix::fs::open(".", flags, Mode::empty()).step("the working directory")?);
    }
    tell(gate, &FromCell::Started { landlock_abi }, &given_back)?;
    drop(given_back);
    let (program, arguments) = spec.argv.split_first().ok_or("the command is empty").step("the command")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(spec.env);
    Ok(Prepared { program: command, nothing })
}

impl Prepared {
    /// Starts the program and waits for its end.
    fn start(mut self, gate: &OwnedFd) -> Result<FromCell, Failure> {
        match fork().step("a process for the program")? {
            Forked::Child => {
                let why = self.program.exec();
                let step = format!("starting `{}`", self.program.get_program().to_string_lossy());
                let _gone = tell(gate, &FromCell::Failed { step, why: why.to_string() }, &[]);
                std::process::exit(NOT_STARTED)
            }
            Forked::Parent(program) => {
                // Whoever reads the streams learns of their end when the program's own processes have ended.
                let nothing = self.nothing;
                dup2_stdin(&nothing)
                    .and(dup2_stdout(&nothing))
                    .and(dup2_stderr(&nothing))
                    .step("the streams")?;
                Ok(wait(program))
            }
        }
    }
}

/// The launcher ignores the ends of its children, and Rust ignores broken pipes; programs expect neither.
#[expect(unsafe_code, reason = "the standard library cannot set how signals are dealt with")]
fn default_signals() {
    // SAFETY: it sets how signals are dealt with; no handler is involved, and there is one thread.
    // JUSTIFICATION: what is ignored stays ignored in a program that is executed.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// One user and one group, and no way to drop groups.
fn map_user(user: u32, group: u32) -> Result<(), Failure> {
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("gid_map", format!("{USER} {group} 1")),
        ("uid_map", format!("{USER} {user} 1")),
    ] {
        std::fs::write(format!("/proc/self/{file}"), text).step(format_args!("the user's `{file}`"))?;
    }
    Ok(())
}

/// Waits until the gate has counted this process in. Says whether the memory of each process has to be limited.
fn wait_for(gate: &OwnedFd) -> Result<bool, Failure> {
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

enum Forked {
    Child,
    Parent(libc::pid_t),
}

#[expect(unsafe_code, reason = "the standard library cannot fork")]
fn fork() -> Result<Forked, Errno> {
    // SAFETY: this process has one thread, so the child has all that the parent has and no lock is held by anybody else.
    // JUSTIFICATION: the program has to be a child of the process that reaps and reports.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        -1 => Err(last_error()),
        child => Ok(Forked::Parent(child)),
    }
}

/// Reaps whatever ends, until the program has.
#[expect(unsafe_code, reason = "rustix does not tell what a process used up")]
fn wait(program: libc::pid_t) -> FromCell {
    let mut status = 0;
    // SAFETY: all zero is a value of this structure of numbers.
    // JUSTIFICATION: the kernel fills it in.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both places outlive the call, which writes them.
        // JUSTIFICATION: one call reaps and says what was used up.
        let ended = unsafe { libc::wait4(-1, &raw mut status, 0, &raw mut used) };
        if ended == program {
            break;
        }
        if ended == -1 && last_error() != Errno::INTR {
            // It cannot be, since the program is a child of this process.
            return FromCell::Failed {
                step: "waiting for the program".to_owned(),
                why: last_error().to_string(),
            };
        }
    }
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    FromCell::Ended {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        cpu_us: micros(used.ru_utime) + micros(used.ru_stime),
        peak_bytes: u64::try_from(used.ru_maxrss).unwrap_or(0) * 1024,
    }
}
