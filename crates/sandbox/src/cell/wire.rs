//! What the gate, the launcher and the first processes of cells tell each other.

use serde::{Deserialize, Serialize};

pub(super) use crate::messages::{MAX_DESCRIPTORS, MAX_MESSAGE, pair, receive, send};

/// What the gate asks the launcher for: a cell. With it come its shape, the gate's end of the cell, and the mounts that were opened for
/// it, if any.
pub(super) const CELL: &[u8] = b"cell";

/// What the gate asks the launcher for: a cell without namespaces, as a user who has nothing else. With it comes the same, but for
/// mounts.
pub(super) const BARE: &[u8] = b"bare";

/// The same, as the gate's own user.
pub(super) const BARE_AS_OWNER: &[u8] = b"bare as owner";

/// What the gate asks the launcher for: a process in a new namespace of users, which does nothing until the socket that comes with
/// it is closed.
pub(super) const NAMESPACE: &[u8] = b"namespace";

/// What the gate asks the launcher for: a process that keeps the descriptors that come with it open, until the first of them, a socket,
/// is closed at the other end.
pub(super) const KEEP: &[u8] = b"keep";

/// What the gate tells the first process of a cell, once: it is in a cgroup that limits the memory of all its processes together.
pub(super) const GO: &[u8] = b"go";

/// The same where there is no such cgroup: each process has to be limited.
pub(super) const GO_LIMIT_EACH: &[u8] = b"each";

/// What the gate tells the first process of a cell, once, after that: what to run. With it come the command and its three streams.
pub(super) const RUN: &[u8] = b"run";

/// What the first process of a cell tells the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromCell {
    /// The program has ended: how, and what it and all it waited for used up.
    Ended {
        /// Its exit status, if it ended by itself.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Processor time, in microseconds.
        cpu_us: u64,
        /// The most memory that one process held, in bytes.
        peak_bytes: u64,
    },
    /// A step of the preparation failed; the program was not started.
    Failed {
        /// Which, in words.
        step: String,
        /// What the system said.
        why: String,
    },
    /// Everything is in force; a command is waited for. With it come the folders of the changes of overlays, and the network
    /// interface, if there is one.
    Ready {
        /// The level of Landlock that is in force.
        landlock_abi: u32,
    },
    /// The command is being started. With it comes the folder that it is started in, if that is handed out.
    Started,
}
