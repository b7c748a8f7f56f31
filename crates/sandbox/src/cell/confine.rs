//! What processes of the gate itself give up that hold keys or credentials: with what they need for their work, and no more.

use std::fmt;

use landlock::{AccessFs, PathFd};
use rustix::thread::set_no_new_privs;

use super::filter::Filter;
use super::launcher::close_all_but;
use super::lockdown::{LANDLOCK, Rules, hold_none};
use super::root::{Failure, Step as _};

/// A process could not give up what it should.
#[derive(Debug)]
pub struct ConfineError(Failure);

impl std::error::Error for ConfineError {}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.step, self.0.why)
    }
}

/// Closes what a process was left with by whoever started the gate: all but its input, output and errors. For the beginning of
/// `main`, before there is anything of its own to close.
///
/// # Errors
/// The system says no.
pub fn close_what_was_left() -> Result<(), ConfineError> {
    close_all_but(&[]).step("closing what was left open").map_err(ConfineError)
}

/// Leaves this thread its memory and the descriptors that are open: no file can be opened, no socket made, no process or thread
/// started, no other process looked at. For a process that has one thread.
///
/// # Errors
/// The kernel does not do it. Landlock may be missing: the filter of system calls knows no call that opens anything.
pub fn to_what_is_open() -> Result<(), ConfineError> {
    give_up_rights().map_err(ConfineError)?;
    // Where the kernel has no Landlock, the filter is enough.
    let _level = Rules::none().and_then(Rules::put_in_force);
    let filter = Filter::for_keys().step("the filter of system calls");
    filter.and_then(|filter| filter.apply().step("the filter of system calls")).map_err(ConfineError)
}

/// Folders in which a program finds its libraries, names of hosts, and certificates.
const READ: [&str; 7] =
    ["/etc", "/lib", "/lib64", "/run/systemd/resolve", "/run/resolvconf", "/usr/lib", "/usr/share"];

/// Leaves this process the network, and reading what names and certificates are looked up in: no file can be written, none of the
/// user's be read, and no program run. For a process that has one thread.
///
/// # Errors
/// The kernel does not have Landlock.
pub fn to_the_network() -> Result<(), ConfineError> {
    give_up_rights().map_err(ConfineError)?;
    let confine = || {
        let mut rules = Rules::none()?;
        for folder in READ {
            // What is not there need not be read.
            if let Ok(folder) = PathFd::new(folder) {
                rules = rules.and(folder, AccessFs::ReadFile | AccessFs::ReadDir)?;
            }
        }
        for node in ["/dev/null", "/dev/urandom"] {
            let node = PathFd::new(node).step(LANDLOCK)?;
            rules = rules.and(node, AccessFs::ReadFile | AccessFs::WriteFile)?;
        }
        rules.put_in_force()
    };
    confine().map(drop).map_err(ConfineError)
}

fn give_up_rights() -> Result<(), Failure> {
    hold_none()?;
    set_no_new_privs(true).step("no new privileges")
}
