//! One connection: from its name over its address to its bytes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use tokio::sync::mpsc::OwnedPermit;

use super::address::{Reach, reach};
use super::hello::{self, Beginning, HelloError};
use super::http::{self, Asked, HttpError, Requests, Step};
use super::inside::{Inside, Intercept, Taken};
use super::name::HostName;
use super::packet::Way;
use super::rule::{Allowed, Terms};
use super::stack::Stack;
use super::{Attempt, Event, Refused, TLS_PORT, To, Verdict};

/// How many addresses of a name are tried.
const ADDRESSES: usize = 8;

/// How long resolving a name, and connecting to one address, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may be without a byte in either direction.
const IDLE: Duration = Duration::from_secs(600);

/// How many parts of what a program says are sent on before anything else is looked at.
const PARTS: usize = 64;

pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) way: Way,
    /// The packet that asked for it.
    pub(super) syn: Vec<u8>,
    /// Its socket in the stack, when the program is connected.
    pub(super) socket: Option<SocketHandle>,
    manner: Manner,
    /// Whom it is to, once that is known.
    target: Option<(HostName, u16)>,
    /// What the rules say about that.
    allowed: Option<Allowed>,
    /// What holds for the address that is connected to.
    terms: Option<Terms>,
    begun: Instant,
    /// When something last happened.
    active: Instant,
    up: u64,
    down: u64,
    /// A place among the events, kept from the beginning, so that no connection goes untold.
    told: OwnedPermit<Event>,
    /// Who may take it, and has.
    intercept: Option<Arc<dyn Intercept>>,
    taken: Option<UnixStream>,
    stage: Stage,
    /// Whether there may be bytes to be had of the other side.
    readable: bool,
    /// Whether the other side may take bytes, or has been connected to or not.
    writable: bool,
}

/// What a program connects to.
pub(super) enum Towards {
    /// A name that it has looked up, on these terms.
    Name(HostName, Allowed),
    /// The proxy, with the socket that it is connected by.
    Proxy(SocketHandle),
}

/// How a program says whom it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// By the address that it connects to.
    Address,
    /// As to a proxy, with each request.
    Requests,
    /// As to a proxy, for a tunnel.
    Tunnel,
}

/// What is to be done about a connection.
pub(super) enum Turn {
    /// It has come to its end.
    Over(Verdict),
    /// The program wants this host and port, as it told the proxy.
    Wants(HostName, u16),
}

enum Stage {
    /// The program is to say whom it wants.
    Asking,
    /// An address is being connected to; these are left.
    Connecting { upstream: TcpStream, left: VecDeque<SocketAddr> },
    /// Bytes go both ways.
    Open(Open),
    /// The name is being resolved.
    Resolving,
}

struct Open {
    /// The other side, or whoever has taken the connection.
    upstream: TcpStream,
    socket: SocketHandle,
    /// What must not be said on it.
    watch: Option<Watch>,
    /// What the program begins with does not have to be looked at, or was.
    checked: bool,
    /// Where each request has to be.
    requests: Option<Requests>,
    /// What of them is to go out next.
    written: Vec<u8>,
    /// The other side has said that no more will come.
    ended: bool,
    /// The other side was told that no more will come.
    told_end: bool,
}

impl Connection {
    /// One that a program has just asked for.
    pub(super) fn new(
        number: u64,
        way: Way,
        syn: Vec<u8>,
        to: Towards,
        told: OwnedPermit<Event>,
        intercept: Option<Arc<dyn Intercept>>,
    ) -> Self {
        let now = Instant::now();
        let (manner, stage, socket) = match to {
            Towards::Name(..) => (Manner::Address, Stage::Resolving, None),
            Towards::Proxy(socket) => (Manner::Requests, Stage::Asking, Some(socket)),
        };
        let (target, allowed) = match to {
            Towards::Name(name, allowed) => (Some((name, way.port)), Some(allowed)),
            Towards::Proxy(_) => (None, None),
        };
        Self {
            number,
            way,
            syn,
            socket,
            manner,
            target,
            allowed,
            terms: None,
            begun: now,
            active: now,
            up: 0,
            down: 0,
            told,
            intercept,
            taken: None,
            stage,
            readable: false,
            writable: false,
        }
    }

    /// Whether bytes go both ways.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// What the program wants of the proxy is allowed, on these terms; its name is being resolved.
    pub(super) fn allowed(&mut self, name: HostName, port: u16, allowed: Allowed) {
        (self.target, self.allowed) = (Some((name, port)), Some(allowed));
        (self.stage, self.active) = (Stage::Resolving, Instant::now());
    }

    /// Whether a program speaks in the clear, by the proxy, where it has to be TLS.
    pub(super) fn is_bare(&self, port: u16, allowed: &Allowed) -> bool {
        let any_tls = allowed.private.as_ref().unwrap_or(&allowed.public).any_tls;
        self.manner == Manner::Requests && port == TLS_PORT && !any_tls
    }

    /// Whether a program speaks in the clear, by the proxy, where TLS is read.
    pub(super) fn is_bare_inside(&self, name: &HostName, port: u16) -> bool {
        self.manner == Manner::Requests && self.taker(name, port).is_some()
    }

    /// Who takes connections to a host, if somebody does.
    fn taker(&self, name: &HostName, port: u16) -> Option<&Arc<dyn Intercept>> {
        self.intercept.as_ref().filter(|intercept| intercept.covers(name, port))
    }

    /// What the program wants of the proxy is not allowed.
    pub(super) fn wanted(&mut self, name: HostName, port: u16) {
        self.target = Some((name, port));
    }

    /// Tells a program that speaks HTTP what came of it, where it has heard nothing yet.
    pub(super) fn answer(&self, stack: &mut Stack, verdict: Verdict) {
        let why = match verdict {
            Verdict::Refused(why) => why.to_string(),
            Verdict::Failed => "nobody answered there".to_owned(),
            Verdict::Allowed => return,
        };
        let http = self.terms.as_ref().is_some_and(|terms| terms.requests.is_some());
        let unheard = (http || self.manner != Manner::Address) && self.up == 0 && self.down == 0;
        let Some(socket) = self.socket.filter(|_| unheard) else { return };
        let socket = stack.socket_mut(socket);
        let status = if verdict == Verdict::Failed { "502 Bad Gateway" } else { "403 Forbidden" };
        let kind = "Content-Type: text/plain\r\nConnection: close";
        let length = why.len() + 1;
        let answer = format!("HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{why}\n");
        // There is room: nothing was sent before.
        let _gone = socket.send_slice(answer.as_bytes());
        socket.close();
    }

    /// Tells what came of it, or returns it if somebody else has yet to say so.
    pub(super) fn tell(self, verdict: Verdict) -> Option<Untold> {
        let Self { target, way, up, down, begun, told, taken, .. } = self;
        let (to, port) = match target {
            Some((name, port)) => (To::Name(name), port),
            None => (To::NotAName, way.port),
        };
        let attempt = Attempt { to, port, verdict, up, down, lasted: begun.elapsed() };
        match taken {
            Some(from) if verdict == Verdict::Allowed => Some(Untold { from, attempt, told }),
            Some(_) | None => {
                told.send(Event::Attempt(attempt));
                None
            }
        }
    }

    /// What it waits for, of whom.
    pub(super) fn wants(&self, stack: &Stack) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let (upstream, wanted) = match &self.stage {
            Stage::Connecting { upstream, .. } => (upstream, PollFlags::OUT),
            Stage::Open(open) => {
                let socket = stack.socket(open.socket);
                let read = !self.readable && !open.ended && socket.can_send();
                let more = socket.can_recv() || !open.written.is_empty();
                let write = !self.writable && open.checked && more;
                let wanted = [(read, PollFlags::IN), (write, PollFlags::OUT)];
                (&open.upstream, wanted.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag).collect())
            }
            Stage::Asking | Stage::Resolving => return None,
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
        let (Ok(addresses), Some((_, port))) = (addresses, &self.target) else {
            return Some(Verdict::Failed);
        };
        let mut left: VecDeque<SocketAddr> = VecDeque::new();
        for address in addresses.iter().filter(|address| self.terms_for(**address).is_some()) {
            let address = SocketAddr::new(*address, *port);
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

    /// On which terms an address may be connected to, if it may.
    fn terms_for(&self, address: IpAddr) -> Option<&Terms> {
        let Allowed { private, public } = self.allowed.as_ref()?;
        match reach(address) {
            Reach::Never => None,
            Reach::Private => private.as_ref(),
            Reach::Public => Some(public),
        }
    }

    /// Begins to connect to the next address.
    fn dial(&mut self, mut left: VecDeque<SocketAddr>) -> Option<Verdict> {
        while let Some(address) = left.pop_front() {
            self.terms = self.terms_for(address.ip()).cloned();
            if let (Some(_), Ok(upstream)) = (&self.terms, begin(address)) {
                self.stage = Stage::Connecting { upstream, left };
                (self.active, self.writable) = (Instant::now(), false);
                return None;
            }
        }
        Some(Verdict::Failed)
    }

    /// Goes on as far as it goes.
    pub(super) fn advance(&mut self, stack: &mut Stack, scratch: &mut [u8], stopping: bool) -> Option<Turn> {
        let late = stopping || self.active.elapsed() > PATIENCE;
        let over = match std::mem::replace(&mut self.stage, Stage::Resolving) {
            Stage::Asking => {
                self.stage = Stage::Asking;
                return self.asked(stack, scratch, late);
            }
            Stage::Resolving => late.then_some(Verdict::Failed),
            Stage::Connecting { .. } if stopping => Some(Verdict::Failed),
            Stage::Connecting { upstream, left } if !self.writable && !late => {
                self.stage = Stage::Connecting { upstream, left };
                None
            }
            Stage::Connecting { upstream, left } => match sockopt::socket_error(&upstream) {
                Ok(Ok(())) if self.writable => self.open(upstream, stack),
                Ok(_) | Err(_) => self.dial(left),
            },
            Stage::Open(mut open) => {
                let over = self.exchange(&mut open, stack, scratch, stopping);
                self.stage = Stage::Open(open);
                over
            }
        };
        over.map(Turn::Over)
    }

    /// Reads whom a program wants of the proxy.
    fn asked(&mut self, stack: &mut Stack, scratch: &mut [u8], late: bool) -> Option<Turn> {
        let socket = stack.socket_mut(self.socket?);
        let length = socket.peek_slice(scratch).unwrap_or(0);
        let asked = http::asked(scratch.get(..length).unwrap_or_default());
        let ended = !matches!(socket.state(), State::Listen | State::SynReceived | State::Established);
        let host = match asked {
            Ok(Asked::More) if late || ended => return Some(Turn::Over(Verdict::Failed)),
            Ok(Asked::More) => return None,
            Ok(Asked::Pass(host)) => host,
            Ok(Asked::Tunnel(host, length)) => {
                self.manner = Manner::Tunnel;
                let _taken = scratch.get_mut(..length).map(|place| socket.recv_slice(place));
                host
            }
            Err(error) => return Some(Turn::Over(Verdict::Refused(Refused::Http(error)))),
        };
        match host {
            Some((name, port)) => Some(Turn::Wants(name, port)),
            None => Some(Turn::Over(Verdict::Refused(Refused::Name))),
        }
    }

    /// Somebody has answered: so has the cell an answer.
    fn open(&mut self, upstream: TcpStream, stack: &mut Stack) -> Option<Verdict> {
        let _slower = upstream.set_nodelay(true);
        let socket = self.socket.or_else(|| stack.accept(self.way, &self.syn));
        let (Some(socket), Some((name, port)), Some(terms)) = (socket, &self.target, &self.terms) else {
            return Some(Verdict::Failed);
        };
        self.socket = Some(socket);
        if self.manner == Manner::Tunnel {
            // There is room: nothing was sent before.
            let _gone = stack.socket_mut(socket).send_slice(b"HTTP/1.1 200 Connection established\r\n\r\n");
        }
        let open = Open {
            upstream,
            socket,
            watch: None,
            checked: false,
            requests: None,
            written: Vec::new(),
            ended: false,
            told_end: false,
        };
        let open = if let Some(intercept) = self.taker(name, *port) {
            let requests = terms.requests.as_ref().map(|all| all.iter().map(ToString::to_string).collect());
            let (upstream, taken) = match hand_over(&**intercept, open.upstream, name, *port, requests) {
                Ok(ends) => ends,
                Err(_) => return Some(Verdict::Failed),
            };
            self.taken = Some(taken);
            Open { upstream, ..open }
        } else {
            let proxied = self.manner == Manner::Requests;
            let requests = (proxied || terms.requests.is_some())
                .then(|| Requests::new(name.clone(), *port, terms.requests.clone(), proxied));
            let watch = self.intercept.clone().map(Watch::new);
            Open { checked: terms.any_tls || requests.is_some(), requests, watch, ..open }
        };
        self.stage = Stage::Open(open);
        (self.active, self.readable) = (Instant::now(), true);
        None
    }

    /// Moves what there is to move, both ways.
    fn exchange(
        &mut self,
        open: &mut Open,
        stack: &mut Stack,
        scratch: &mut [u8],
        stopping: bool,
    ) -> Option<Verdict> {
        let socket = stack.socket_mut(open.socket);
        let before = (self.up, self.down);
        if let (false, Some((name, port))) = (open.checked, &self.target) {
            let length = socket.peek_slice(scratch).unwrap_or(0);
            let bytes = scratch.get(..length).unwrap_or_default();
            let last = socket.state() != State::Established;
            let tls_only = *port == TLS_PORT || self.taken.is_some();
            match beginning(bytes, last, name, tls_only) {
                Ok(Some(Talk::Plain)) => open.checked = true,
                // What is said inside cannot be told apart.
                Ok(Some(Talk::Tls)) => (open.checked, open.watch) = (true, None),
                Ok(None) => {}
                Err(error) => {
                    socket.abort();
                    return Some(Verdict::Refused(Refused::Hello(error)));
                }
            }
        }
        let moved = upwards(socket, open, scratch, &mut self.writable, &mut self.up)
            .and_then(|()| downwards(socket, open, &mut self.readable, &mut self.down));
        if (self.up, self.down) != before {
            self.active = Instant::now();
        }
        let finished = matches!(
            socket.state(),
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait | State::Closed
        );
        // Where the cell has ended, nobody reads any more: what counts is that what it sent has gone out.
        let all_sent = finished && !socket.can_recv() && open.written.is_empty();
        match moved {
            Err(Cut::Marked) => {
                socket.abort();
                return Some(Verdict::Refused(Refused::Marked));
            }
            Err(Cut::Request(error)) => {
                // One whose first request is refused is told.
                if self.up > 0 || self.down > 0 {
                    socket.abort();
                }
                return Some(Verdict::Refused(Refused::Http(error)));
            }
            Ok(()) if self.active.elapsed() <= IDLE => {}
            Ok(()) | Err(Cut::Broken) => {
                socket.abort();
                return Some(Verdict::Allowed);
            }
        }
        let over = matches!(socket.state(), State::Closed | State::TimeWait) || (stopping && all_sent);
        over.then_some(Verdict::Allowed)
    }
}

/// Why no more bytes go.
enum Cut {
    /// One of the two is gone.
    Broken,
    /// The program says what must not be said there.
    Marked,
    /// The program asks for what is not allowed.
    Request(HttpError),
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

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Talk {
    Plain,
    Tls,
}

/// What the program begins with, if it may go out; `last` is whether it sends no more. What comes from the other side meanwhile may come in: some begin there.
fn beginning(bytes: &[u8], last: bool, name: &HostName, tls_only: bool) -> Result<Option<Talk>, HelloError> {
    match hello::read(bytes)? {
        Beginning::Named(named) if named == *name => Ok(Some(Talk::Tls)),
        Beginning::Named(_) => Err(HelloError::OtherName),
        Beginning::Other if tls_only => Err(HelloError::NotTls),
        Beginning::Other => Ok(Some(Talk::Plain)),
        // Nothing more will come of a program that has stopped in the middle.
        Beginning::Incomplete(_) if last && !bytes.is_empty() => Err(HelloError::Malformed),
        Beginning::Incomplete(_) => Ok(None),
    }
}

/// Hands a connection over. Returns the end that stands for the other side from now on, and where it is told what came of it.
fn hand_over(
    intercept: &dyn Intercept,
    server: TcpStream,
    name: &HostName,
    port: u16,
    requests: Option<Vec<String>>,
) -> io::Result<(TcpStream, UnixStream)> {
    let (ours, program) = UnixStream::pair()?;
    let (hear, told) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    hear.set_nonblocking(true)?;
    let (program, server, told) = (program.into(), server.into(), told.into());
    intercept.take(Taken { name: name.clone(), port, requests, program, server, told })?;
    // Only what all streams can do is done with it.
    Ok((TcpStream::from(OwnedFd::from(ours)), hear))
}

/// A connection that has ended and was taken by somebody who says what came of it.
pub(super) struct Untold {
    pub(super) from: UnixStream,
    attempt: Attempt,
    told: OwnedPermit<Event>,
}

impl Untold {
    /// Tells it, if it was said; else it is told later.
    pub(super) fn hear(mut self) -> Option<Self> {
        let mut byte = [0];
        match self.from.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => {
                let [byte] = byte;
                self.attempt.verdict = Verdict::Refused(Refused::Inside(Inside::from_byte(byte)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(self),
            Err(_) => {}
        }
        self.tell();
        None
    }

    /// Tells it as it is.
    pub(super) fn tell(self) {
        self.told.send(Event::Attempt(self.attempt));
    }
}

/// Looks at what a program says in the clear for what must not be said there, wherever it is cut.
struct Watch {
    intercept: Arc<dyn Intercept>,
    /// The end of what was said.
    tail: Vec<u8>,
}

impl Watch {
    /// As long as the longest spelling of a placeholder.
    const TAIL: usize = 2 << 10;
    /// How much is looked at before it goes.
    const MOST: usize = 64 << 10;

    const fn new(intercept: Arc<dyn Intercept>) -> Self {
        Self { intercept, tail: Vec::new() }
    }

    /// Whether it must not be said after what was.
    fn stops(&self, bytes: &[u8]) -> bool {
        self.intercept.marks(&[&self.tail, bytes].concat())
    }

    fn said(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let over = self.tail.len().saturating_sub(Self::TAIL);
        self.tail.drain(..over);
    }
}

/// From the program to the other side.
fn upwards(
    socket: &mut tcp::Socket<'_>,
    open: &mut Open,
    scratch: &mut [u8],
    writable: &mut bool,
    up: &mut u64,
) -> Result<(), Cut> {
    let mut parts = 0..PARTS;
    while open.checked && *writable {
        if parts.next().is_none() {
            // It is asked for once more, after the others.
            *writable = false;
            break;
        }
        let written = if !open.written.is_empty() {
            if open.watch.as_ref().is_some_and(|watch| watch.stops(&open.written)) {
                return Err(Cut::Marked);
            }
            let written = open.upstream.write(&open.written);
            let gone = open.written.drain(..*written.as_ref().unwrap_or(&0));
            match &mut open.watch {
                Some(watch) => watch.said(&gone.collect::<Vec<_>>()),
                None => drop(gone),
            }
            written
        } else if !socket.can_recv() {
            break;
        } else if let Some(most) = may_pass(socket, open, scratch)? {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let (upstream, watch) = (&mut open.upstream, &mut open.watch);
            let most = if watch.is_some() { most.min(Watch::MOST) } else { most };
            let mut stopped = false;
            let written = socket.recv(|bytes| {
                let bytes = bytes.get(..most).unwrap_or(bytes);
                stopped = watch.as_ref().is_some_and(|watch| watch.stops(bytes));
                match if stopped { Ok(0) } else { upstream.write(bytes) } {
                    Ok(written) => {
                        if let Some(watch) = watch {
                            watch.said(bytes.get(..written).unwrap_or_default());
                        }
                        (written, Ok(written))
                    }
                    Err(error) => (0, Err(error)),
                }
            });
            if stopped {
                return Err(Cut::Marked);
            }
            let written = written.map_err(|_closed| Cut::Broken)?;
            if let (Some(requests), Ok(written)) = (&mut open.requests, &written) {
                requests.passed(*written as u64);
            }
            written
        } else if open.written.is_empty() {
            // The rest of it has yet to come.
            break;
        } else {
            continue;
        };
        match written {
            Ok(written) => *up += written as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => *writable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(Cut::Broken),
        }
    }
    let finished =
        matches!(socket.state(), State::CloseWait | State::Closing | State::LastAck | State::TimeWait);
    if finished && !socket.can_recv() && open.written.is_empty() && !open.told_end {
        open.told_end = true;
        open.upstream.shutdown(Shutdown::Write).map_err(|_gone| Cut::Broken)?;
    }
    Ok(())
}

/// How many bytes may go as they are. `None` where there is something else to be written first, or nothing can go yet.
fn may_pass(socket: &mut tcp::Socket<'_>, open: &mut Open, scratch: &mut [u8]) -> Result<Option<u64>, Cut> {
    let Some(requests) = &mut open.requests else { return Ok(Some(u64::MAX)) };
    if let Some(unread) = requests.unread() {
        return Ok(Some(unread));
    }
    let most = requests.looks_at().min(scratch.len());
    let length = scratch.get_mut(..most).map_or(0, |place| socket.peek_slice(place).unwrap_or(0));
    match requests.step(scratch.get(..length).unwrap_or_default()).map_err(Cut::Request)? {
        Step::Pass(most) => Ok(Some(most)),
        Step::Instead(length, written) => {
            let _taken = scratch.get_mut(..length).map(|place| socket.recv_slice(place));
            open.written = written;
            Ok(None)
        }
        Step::More if matches!(socket.state(), State::Established | State::FinWait1 | State::FinWait2) => {
            Ok(None)
        }
        // Nothing more will come of a program that has stopped in the middle.
        Step::More => Err(Cut::Request(HttpError::Malformed)),
    }
}

/// From the other side to the program.
fn downwards(
    socket: &mut tcp::Socket<'_>,
    open: &mut Open,
    readable: &mut bool,
    down: &mut u64,
) -> Result<(), Cut> {
    while *readable && !open.ended && socket.can_send() {
        let read = socket.send(|place| match open.upstream.read(place) {
            Ok(read) => (read, Ok(read)),
            Err(error) => (0, Err(error)),
        });
        match read.map_err(|_closed| Cut::Broken)? {
            Ok(0) => {
                open.ended = true;
                socket.close();
            }
            Ok(read) => *down += read as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => *readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(Cut::Broken),
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
        for (bytes, last, tls_only, want) in [
            (&b""[..], false, true, Ok(None)),
            (b"", true, true, Ok(None)),
            (&right, false, true, Ok(Some(Talk::Tls))),
            (&right, false, false, Ok(Some(Talk::Tls))),
            (&wrong, false, true, Err(HelloError::OtherName)),
            (&wrong, false, false, Err(HelloError::OtherName)),
            (b"GET / HTTP/1.1", false, false, Ok(Some(Talk::Plain))),
            (b"GET / HTTP/1.1", false, true, Err(HelloError::NotTls)),
            (&right[..20], false, false, Ok(None)),
            (&right[..20], true, false, Err(HelloError::Malformed)),
            (b"\x16", true, false, Err(HelloError::Malformed)),
        ] {
            assert_eq!(beginning(bytes, last, &name, tls_only), want, "{bytes:?}, TLS only: {tls_only}");
        }
    }
}
