//! The launcher: a small process with one thread and an empty environment, started once by the gate, from which all cells are
//! made. The gate itself has threads and secrets, and is never forked.
//!
//! It does one thing: for each message from the gate it clones a process into namespaces of its own, which goes on in
//! [`init`](super::init), or only lends its namespace of users to a gate that is root ([`reach`](super::reach)), or keeps something open. It
//! ends when the gate does, and all cells with it.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{
    DumpableBehavior, Gid, Signal, Uid, getegid, geteuid, getuid, set_dumpable_behavior,
    set_parent_process_death_signal,
};
use rustix::thread::{
    disable_transparent_huge_pages, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::spec::Layers;
use super::{bare, filter, init, wire};
use crate::egress::tun;

/// The name (`argv[0]`) by which a program knows that it is to be the launcher.
pub const LAUNCHER: &str = "toolgate-launcher";

/// Becomes the launcher, if this program was started as one; to be called before anything else in `main`. Returns the exit status.
#[must_use]
pub fn launcher() -> Option<u8> {
    let mut arguments = std::env::args();
    if arguments.next().as_deref() != Some(LAUNCHER) {
        return None;
    }
    let user = arguments.next().and_then(|user| user.parse().ok());
    let layers = arguments.next().and_then(|layers| serde_json::from_str(&layers).ok());
    Some(match serve(user, layers.unwrap_or_default()) {
        Ok(()) => 0,
        Err(_) => 1,
    })
}

/// What a cell is made of: its shape, the mounts that were opened for it; and who the launcher is, which a process in a new namespace
/// cannot find out any more.
pub(super) struct Given<'a> {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) shape: OwnedFd,
    pub(super) mounts: Vec<OwnedFd>,
    /// Where the device of network interfaces is, if not at its usual place.
    pub(super) tun: Option<&'a OwnedFd>,
}

fn serve(user: Option<u32>, layers: Layers) -> Result<(), Errno> {
    // Where only root may open the device of network interfaces, it cannot be opened any more once root is given up.
    let tun = if getuid().is_root() { tun::own_device() } else { None };
    drop_privilege(user)?;
    // The gate may go without huge pages; that is no reason for what runs in cells to.
    let _has_none = disable_transparent_huge_pages(false);
    // The gate is told how each cell ended by the cell itself; nobody waits for the processes here.
    ignore_children();
    // A cell without them fails, and says why.
    let filters = filter::filters().map_err(|error| error.to_string());
    let stdin = std::io::stdin();
    let socket = stdin.as_fd();
    let mut buffer = [0; wire::MAX_MESSAGE];
    while let Some((length, mut descriptors)) = wire::receive(socket, &mut buffer, RecvFlags::empty())? {
        let lent = match buffer.get(..length) {
            Some(wire::KEEP) => Some(0),
            Some(wire::NAMESPACE) => Some(libc::CLONE_NEWUSER),
            _ => None,
        };
        if let Some(namespace) = lent {
            match clone(namespace) {
                Ok(Cloned::Child) => return wait_for_the_gate(&descriptors),
                Ok(Cloned::Parent(process)) => {
                    // Before the gate goes on: what is kept for it is kept by that process, and not here.
                    drop(descriptors);
                    wire::send(socket, b"ok", &[process.as_fd()])?;
                }
                Err(error) => wire::send(socket, error.to_string().as_bytes(), &[])?,
            }
            continue;
        }
        if descriptors.len() < 2 {
            return Err(Errno::PROTO);
        }
        let mounts = descriptors.split_off(2);
        let Ok([shape, gate]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            return Err(Errno::PROTO);
        };
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let given = Given { user, group, shape, mounts, tun: tun.as_ref() };
        let as_owner = match buffer.get(..length) {
            Some(wire::BARE) => Some(false),
            Some(wire::BARE_AS_OWNER) => Some(true),
            _ => None,
        };
        match clone(as_owner.map_or(namespaces(layers), |_| 0)) {
            Ok(Cloned::Child) => match as_owner {
                Some(own) => bare::run(given, &gate, layers, filters, own),
                None => init::run(given, &gate, layers, filters),
            },
            Ok(Cloned::Parent(process)) => wire::send(socket, b"ok", &[process.as_fd()])?,
            Err(error) => wire::send(socket, error.to_string().as_bytes(), &[])?,
        }
    }
    Ok(())
}

/// Whoever escaped from a cell of a launcher that runs as root would be root. `user` is who to be instead.
fn drop_privilege(user: Option<u32>) -> Result<(), Errno> {
    if !getuid().is_root() {
        return Ok(());
    }
    let Some(user) = user.filter(|user| *user != 0) else {
        return Err(Errno::PERM);
    };
    let (group, user) = (Gid::from_raw(user), Uid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    // Changing the user makes `/proc/self` root's; the maps of the new namespaces are written there.
    set_dumpable_behavior(DumpableBehavior::Dumpable)
}

/// What the last raw system call that failed was told.
pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

enum Cloned {
    Child,
    Parent(OwnedFd),
}

#[expect(unsafe_code, reason = "the standard library cannot ignore a signal")]
fn ignore_children() {
    // SAFETY: it sets how a signal is dealt with; no handler is involved, and there is one thread.
    // JUSTIFICATION: without it every cell that ended would stay as a zombie until somebody waited for it here.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Does nothing but be there, with what it was given, until the gate closes its end of the first of it, a socket.
fn wait_for_the_gate(descriptors: &[OwnedFd]) -> Result<(), Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let Some(gate) = descriptors.first() else { return Err(Errno::PROTO) };
    close_all_but(&descriptors.iter().map(OwnedFd::as_fd).collect::<Vec<_>>())?;
    // Nobody else may take the end of the launcher's socket for its own.
    rustix::stdio::dup2_stdin(gate)?;
    wire::receive(gate, &mut [0; 1], RecvFlags::empty()).map(drop)
}

/// The namespaces of a cell.
fn namespaces(layers: Layers) -> libc::c_int {
    let optional = [(layers.network, libc::CLONE_NEWNET), (layers.processes, libc::CLONE_NEWPID)];
    let always = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    optional.iter().filter(|(on, _)| *on).fold(always, |flags, (_, flag)| flags | flag)
}

/// Forks into new namespaces.
#[expect(unsafe_code, reason = "neither the standard library nor rustix can clone a process into namespaces")]
fn clone(namespaces: libc::c_int) -> Result<Cloned, Errno> {
    let mut process: libc::c_int = -1;
    let arguments = CloneArguments {
        flags: u64::from((namespaces | libc::CLONE_PIDFD).cast_unsigned()),
        pidfd: std::ptr::from_mut(&mut process).expose_provenance() as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM the child has a copy of everything, like after `fork`; this process has one thread, so no lock is
    // held by a thread that is not copied. The structure is the kernel's first version of `clone_args`, of the size that is named,
    // and the kernel writes one descriptor to `process`, which outlives the call.
    // JUSTIFICATION: one call gives all namespaces at once and a descriptor of the process; `unshare` and `fork` would take two
    // forks and give a number that can be reused.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
    match result {
        0 => Ok(Cloned::Child),
        -1 => Err(last_error()),
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        // JUSTIFICATION: a descriptor that comes out of a raw system call has to be taken over once.
        _ => Ok(Cloned::Parent(unsafe { OwnedFd::from_raw_fd(process) })),
    }
}

/// `struct clone_args` of the kernel, as in its first version (5.3).
#[derive(Default)]
#[repr(C)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Closes what is not in `kept`, which has to be sorted.
pub(super) fn close_all_but(kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    numbers.sort_unstable();
    let mut from = 3;
    for number in numbers {
        if number > from {
            close_range(from, number - 1)?;
        }
        from = from.max(number + 1);
    }
    close_range(from, u32::MAX)
}

#[expect(unsafe_code, reason = "rustix does not have `close_range`")]
fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: it closes descriptors by number. Those that something in this process still owns are in `kept` of the caller, but for
    // the socket to the gate on number 0, which is below the range.
    // JUSTIFICATION: a descriptor that leaks into a cell is a hole in it, so they are closed by exclusion and not one by one.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}
