//! Messages between the gate, the launcher and the first processes of cells: whole messages with descriptors, on pairs of
//! `SOCK_SEQPACKET` sockets that nobody else has an end of.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// How long a message may be.
pub(super) const MAX_MESSAGE: usize = 4 << 10;

/// How many descriptors a message may carry.
pub(super) const MAX_DESCRIPTORS: usize = 128;

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

/// A pair of connected sockets.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message.
pub(super) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(socket.as_fd(), &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    })
    .map(drop)
}

/// Receives one message into `buffer`; `None` when the other end is closed.
pub(super) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(buffer)],
            &mut ancillary,
            flags | RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes > 0).then_some((received.bytes, descriptors)))
}
