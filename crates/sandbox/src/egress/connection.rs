//! One connection that is allowed: from its name over its address to its bytes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use tokio::sync::mpsc::OwnedPermit;

use super::address::{Reach, reach};
use super::hello::{self, Beginning, HelloError};
use super::name::HostName;
use super::packet::Way;
use super::rule::Terms;
use super::stack::Stack;
use super::{Attempt, Event, Refused, To, Verdict};

/// How many addresses of a name are tried.
const ADDRESSES: usize = 8;

/// How long resolving a name, and connecting to one address, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may be without a byte in either direction.
const IDLE: Duration = Duration::from_secs(600);

/// The port where everything has to be TLS.
const TLS_PORT: u16 = 443;

pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) way: Way,
    /// The packet that asked for it.
    pub(super) syn: Vec<u8>,
    name: HostName,
    terms: Terms,
    begun: Instant,
    /// When something last happened.
    active: Instant,
    up: u64,
    down: u64,
    /// A place among the events, kept from the beginning, so that no connection goes untold.
    told: OwnedPermit<Event>,
    stage: Stage,
    /// Whether there may be bytes to be had of the other side.
    readable: bool,
    /// Whether the other side may take bytes, or has been connected to or not.
    writable: bool,
}

enum Stage {
    /// An address is being connected to; these are left.
    Connecting { upstream: TcpStream, left: VecDeque<SocketAddr> },
    /// Bytes go both ways.
    Open(Open),
    /// The name is being resolved.
    Resolving,
}

struct Open {
    upstream: TcpStream,
    socket: SocketHandle,
    /// What the program begins with does not have to be looked at, or was.
    checked: bool,
    /// The other side has said that no more will come.
    ended: bool,
    /// The other side was told that no more will come.
    told_end: bool,
}

impl Connection {
    pub(super) fn new(
        number: u64,
        way: Way,
        syn: Vec<u8>,
        name: HostName,
        terms: Terms,
        told: OwnedPermit<Event>,
    ) -> Self {
        let now = Instant::now();
        Self {
            number,
            way,
            syn,
            name,
            terms,
            begun: now,
            active: now,
            up: 0,
            down: 0,
            told,
            stage: Stage::Resolving,
            readable: false,
            writable: false,
        }
    }

    /// Whether the program is connected.
    pub(super) const fn is_open(&self) -> bool {
        self.socket().is_some()
    }

    /// Its socket in the stack.
    pub(super) const fn socket(&self) -> Option<SocketHandle> {
        match &self.stage {
            Stage::Open(open) => Some(open.socket),
            Stage::Connecting { .. } | Stage::Resolving => None,
        }
    }

    /// Tells what came of it.
    pub(super) fn tell(self, verdict: Verdict) {
        let Self { name, way, up, down, begun, told, .. } = self;
        let attempt =
            Attempt { to: To::Name(name), port: way.port, verdict, up, down, lasted: begun.elapsed() };
        told.send(Event::Attempt(attempt));
    }

    /// What it waits for, of whom.
    pub(super) fn wants(&self, stack: &Stack) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let (upstream, wanted) = match &self.stage {
            Stage::Connecting { upstream, .. } => (upstream, PollFlags::OUT),
            Stage::Open(open) => {
                let socket = stack.socket(open.socket);
                let read = !self.readable && !open.ended && socket.can_send();
                let write = !self.writable && open.checked && socket.can_recv();
                let wanted = [(read, PollFlags::IN), (write, PollFlags::OUT)];
                (&open.upstream, wanted.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag).collect())
            }
            Stage::Resolving => return None,
        };
        (!wanted.is_empty()).then(|| (upstream.as_fd(), wanted))
    }

    /// Notes what it waited for.
    pub(super) fn note(&mut self, flags: PollFlags) {
        let broken = flags.intersects(PollFlags::ERR | PollFlags::HUP);
        self.readable |= broken || flags.contains(PollFlags::IN);
        self.writable |= broken || flags.contains(PollFlags::OUT);
    }

    /// Its name has these addresses. Those that may be connected to are connected to, and exactly those. Returns what came of it, if
    /// it has come to its end.
    pub(super) fn resolved(&mut self, addresses: io::Result<Vec<IpAddr>>) -> Option<Verdict> {
        let Ok(addresses) = addresses else {
            return Some(Verdict::Failed);
        };
        let allowed = |address: &IpAddr| match reach(*address) {
            Reach::Never => false,
            Reach::Private => self.terms.private,
            Reach::Public => true,
        };
        let mut left: VecDeque<SocketAddr> = VecDeque::new();
        for address in addresses.iter().filter(|address| allowed(address)) {
            let address = SocketAddr::new(*address, self.way.port);
            if left.len() < ADDRESSES && !left.contains(&address) {
                left.push_back(address);
            }
        }
        match (addresses.is_empty(), left.is_empty()) {
            (true, _) => Some(Verdict::Failed),
            (false, true) => Some(Verdict::Refused(Refused::Address)),
            (false, false) => self.dial(left),
        }
    }

    /// Begins to connect to the next address.
    fn dial(&mut self, mut left: VecDeque<SocketAddr>) -> Option<Verdict> {
        while let Some(address) = left.pop_front() {
            if let Ok(upstream) = begin(address) {
                self.stage = Stage::Connecting { upstream, left };
                (self.active, self.writable) = (Instant::now(), false);
                return None;
            }
        }
        Some(Verdict::Failed)
    }

    /// Goes on as far as it goes. Returns what came of it, if it has come to its end.
    pub(super) fn advance(
        &mut self,
        stack: &mut Stack,
        scratch: &mut [u8],
        stopping: bool,
    ) -> Option<Verdict> {
        match std::mem::replace(&mut self.stage, Stage::Resolving) {
            Stage::Resolving => (stopping || self.active.elapsed() > PATIENCE).then_some(Verdict::Failed),
            Stage::Connecting { upstream, left } => {
                let late = self.active.elapsed() > PATIENCE;
                if stopping {
                    return Some(Verdict::Failed);
                }
                if !self.writable && !late {
                    self.stage = Stage::Connecting { upstream, left };
                    return None;
                }
                match sockopt::socket_error(&upstream) {
                    Ok(Ok(())) if self.writable => self.open(upstream, stack),
                    Ok(_) | Err(_) => self.dial(left),
                }
            }
            Stage::Open(open) => {
                self.stage = Stage::Open(open);
                self.exchange(stack, scratch, stopping)
            }
        }
    }

    /// Somebody has answered: so has the cell an answer.
    fn open(&mut self, upstream: TcpStream, stack: &mut Stack) -> Option<Verdict> {
        let _slower = upstream.set_nodelay(true);
        let Some(socket) = stack.accept(self.way, &self.syn) else {
            return Some(Verdict::Failed);
        };
        let checked = self.terms.any_tls;
        self.stage = Stage::Open(Open { upstream, socket, checked, ended: false, told_end: false });
        (self.active, self.readable) = (Instant::now(), true);
        None
    }

    /// Moves what there is to move, both ways.
    fn exchange(&mut self, stack: &mut Stack, scratch: &mut [u8], stopping: bool) -> Option<Verdict> {
        let Stage::Open(open) = &mut self.stage else { return None };
        let socket = stack.socket_mut(open.socket);
        let before = (self.up, self.down);
        if !open.checked {
            let length = socket.peek_slice(scratch).unwrap_or(0);
            let bytes = scratch.get(..length).unwrap_or_default();
            let last = socket.state() != State::Established;
            match beginning(bytes, last, &self.name, self.way.port) {
                Ok(checked) => open.checked = checked,
                Err(error) => {
                    socket.abort();
                    return Some(Verdict::Refused(Refused::Hello(error)));
                }
            }
        }
        let moved = upwards(socket, open, &mut self.writable, &mut self.up)
            .and_then(|()| downwards(socket, open, &mut self.readable, &mut self.down));
        if (self.up, self.down) != before {
            self.active = Instant::now();
        }
        let finished = matches!(
            socket.state(),
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait | State::Closed
        );
        // Where the cell has ended, nobody reads any more: what counts is that what it sent has gone out.
        let all_sent = finished && !socket.can_recv();
        if moved.is_err() || self.active.elapsed() > IDLE {
            socket.abort();
            return Some(Verdict::Allowed);
        }
        let over = matches!(socket.state(), State::Closed | State::TimeWait) || (stopping && all_sent);
        over.then_some(Verdict::Allowed)
    }
}

/// Begins to connect, without waiting.
fn begin(address: SocketAddr) -> Result<TcpStream, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let upstream = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&upstream, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(upstream.into()),
        Err(error) => Err(error),
    }
}

/// Whether what the program begins with may go out; `last` is whether it sends no more. What comes from the other side meanwhile may come in: some begin there.
fn beginning(bytes: &[u8], last: bool, name: &HostName, port: u16) -> Result<bool, HelloError> {
    match hello::read(bytes)? {
        Beginning::Named(named) if named == *name => Ok(true),
        Beginning::Named(_) => Err(HelloError::OtherName),
        Beginning::Other if port == TLS_PORT => Err(HelloError::NotTls),
        Beginning::Other => Ok(true),
        // Nothing more will come of a program that has stopped in the middle.
        Beginning::Incomplete(_) if last && !bytes.is_empty() => Err(HelloError::Malformed),
        Beginning::Incomplete(_) => Ok(false),
    }
}

/// From the program to the other side.
fn upwards(
    socket: &mut tcp::Socket<'_>,
    open: &mut Open,
    writable: &mut bool,
    up: &mut u64,
) -> io::Result<()> {
    while open.checked && *writable && socket.can_recv() {
        let written = socket.recv(|bytes| match open.upstream.write(bytes) {
            Ok(written) => (written, Ok(written)),
            Err(error) => (0, Err(error)),
        });
        match written.map_err(io::Error::other)? {
            Ok(written) => *up += written as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => *writable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let finished =
        matches!(socket.state(), State::CloseWait | State::Closing | State::LastAck | State::TimeWait);
    if finished && !socket.can_recv() && !open.told_end {
        open.told_end = true;
        open.upstream.shutdown(Shutdown::Write)?;
    }
    Ok(())
}

/// From the other side to the program.
fn downwards(
    socket: &mut tcp::Socket<'_>,
    open: &mut Open,
    readable: &mut bool,
    down: &mut u64,
) -> io::Result<()> {
    while *readable && !open.ended && socket.can_send() {
        let read = socket.send(|place| match open.upstream.read(place) {
            Ok(read) => (read, Ok(read)),
            Err(error) => (0, Err(error)),
        });
        match read.map_err(io::Error::other)? {
            Ok(0) => {
                open.ended = true;
                socket.close();
            }
            Ok(read) => *down += read as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => *readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::hello::tests::hello_for;

    #[test]
    fn what_a_program_begins_with_decides() {
        let name: HostName = "server.example".parse().unwrap();
        let (right, wrong) = (hello_for("server.example"), hello_for("other.example"));
        for (bytes, last, port, want) in [
            (&b""[..], false, 443, Ok(false)),
            (b"", true, 443, Ok(false)),
            (&right, false, 443, Ok(true)),
            (&right, false, 80, Ok(true)),
            (&wrong, false, 443, Err(HelloError::OtherName)),
            (&wrong, false, 80, Err(HelloError::OtherName)),
            (b"GET / HTTP/1.1", false, 80, Ok(true)),
            (b"GET / HTTP/1.1", false, 443, Err(HelloError::NotTls)),
            (&right[..20], false, 80, Ok(false)),
            (&right[..20], true, 80, Err(HelloError::Malformed)),
            (b"\x16", true, 80, Err(HelloError::Malformed)),
        ] {
            assert_eq!(beginning(bytes, last, &name, port), want, "{bytes:?} at {port}");
        }
    }
}
