//! The thread behind the network interface of one cell.
//!
//! It waits for packets of the cell, for bytes of those it is connected to, and for the names it has had resolved; each makes it go
//! round once. Nothing in it blocks, and everything it keeps is bounded.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc as answers};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smoltcp::iface::SocketHandle;
use tokio::sync::mpsc;

use super::connection::{Connection, Towards, Turn, Untold};
use super::dns::{NotAsked, Question};
use super::hello::{self, HelloError};
use super::inside::Intercept;
use super::name::HostName;
use super::packet::{self, Packet, Way};
use super::rule::{self, Allowed, Rule};
use super::stack::Stack;
use super::{Attempt, Event, GATE, Interface, PROXY_PORT, Refused, Resolve, To, Verdict};

/// How many connections there can be at once.
const CONNECTIONS: usize = 128;
/// How many of them can be on their way to somebody: names being resolved, addresses being tried.
const ON_THEIR_WAY: usize = 32;
/// How many names can be being resolved, also for those who have stopped waiting for it.
const RESOLVING: usize = 2 * ON_THEIR_WAY;
/// How many names there can be that an address was given to.
const NAMES: u32 = 4096;
/// How many questions to the DNS are answered in a second.
const QUESTIONS: u32 = 1000;
/// How long what was sent can take to go out after the cell has ended.
const GRACE: Duration = Duration::from_secs(1);
/// How long the stack remembers a connection that has ended.
const LINGER: Duration = Duration::from_millis(500);
/// How many packets are read before anything else is looked at.
const PACKETS: usize = 64;
/// How many events are kept for whoever reads them.
const EVENTS: usize = 1024;

/// Starts the thread for a cell's interface. It ends soon after the writer is dropped, and the events end with it.
pub(crate) fn start(
    Interface { device, keeper }: Interface,
    rules: Vec<Rule>,
    resolver: Arc<dyn Resolve>,
    intercept: Option<Arc<dyn Intercept>>,
) -> io::Result<(mpsc::Receiver<Event>, PipeWriter)> {
    let (stopped, stop) = io::pipe()?;
    let (woken, waker) = io::pipe()?;
    let (events, told) = mpsc::channel(EVENTS);
    let (resolved, answers) = answers::channel();
    let engine = Engine {
        stack: Stack::new(device)?,
        names: Names {
            rules,
            intercept,
            given: Vec::new(),
            known: HashMap::new(),
            left: QUESTIONS,
            since: Instant::now(),
        },
        connections: Vec::new(),
        lingering: Vec::new(),
        untold: Vec::new(),
        resolving: Resolving { resolver, resolved, waker: Arc::new(waker) },
        answers,
        teller: Teller { events, untold: 0, last: None },
        next: 0,
        scratch: vec![0; hello::LONGEST],
        keeper,
    };
    std::thread::Builder::new().name("egress".to_owned()).spawn(move || engine.run(&stopped, woken))?;
    Ok((told, stop))
}

struct Engine {
    stack: Stack,
    names: Names,
    connections: Vec<Connection>,
    /// Sockets of the stack whose connection has ended.
    lingering: Vec<(SocketHandle, Way, Instant)>,
    /// Connections that have ended, and of which somebody else has yet to tell what came of them.
    untold: Vec<Untold>,
    resolving: Resolving,
    answers: answers::Receiver<(u64, io::Result<Vec<IpAddr>>)>,
    teller: Teller,
    /// The number of the next connection.
    next: u64,
    scratch: Vec<u8>,
    keeper: OwnedFd,
}

/// What it was woken for, besides packets.
struct Ready {
    answers: bool,
    stop: bool,
    connections: Vec<(u64, PollFlags)>,
}

impl Engine {
    fn run(mut self, stopped: &PipeReader, mut woken: PipeReader) {
        let mut until: Option<Instant> = None;
        loop {
            match self.wait(stopped, &woken, until) {
                Ok(ready) => {
                    if ready.stop && until.is_none() {
                        until = Some(Instant::now() + GRACE);
                    }
                    if ready.answers {
                        // There is one byte for each answer; which they are is in the channel.
                        let _bytes = woken.read(&mut [0; 64]);
                    }
                    for (number, flags) in ready.connections {
                        if let Some(connection) = self.connection(number) {
                            connection.note(flags);
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
            // Without the interface nothing more can come.
            if self.packets(until.is_none()).is_err() {
                break;
            }
            self.resolved();
            self.look_after(until.is_some());
            self.untold = self.untold.drain(..).filter_map(Untold::hear).collect();
            self.stack.send();
            self.forget();
            let done = self.connections.is_empty() && self.untold.is_empty();
            if until.is_some_and(|until| done || Instant::now() >= until) {
                break;
            }
        }
        let Self { stack, connections, mut untold, teller, keeper, .. } = self;
        for connection in connections {
            let verdict = if connection.is_open() { Verdict::Allowed } else { Verdict::Failed };
            untold.extend(connection.tell(verdict));
        }
        untold.into_iter().filter_map(Untold::hear).for_each(Untold::tell);
        teller.finish();
        // Only now the interface: whoever waits for the events has had their end.
        drop(stack);
        drop(keeper);
    }

    fn connection(&mut self, number: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.number == number)
    }

    /// Waits until there is something to do.
    fn wait(
        &mut self,
        stopped: &PipeReader,
        woken: &PipeReader,
        until: Option<Instant>,
    ) -> Result<Ready, Errno> {
        let now = Instant::now();
        let look = match until {
            Some(until) => Some(until.saturating_duration_since(now)),
            None if self.connections.is_empty() && self.lingering.is_empty() => None,
            None => Some(Duration::from_secs(1)),
        };
        let timeout = [self.stack.delay(), look].into_iter().flatten().min();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        // That it is to end is waited for once.
        let stopping = if until.is_some() { woken } else { stopped };
        let mut polled = vec![
            PollFd::new(stopping, PollFlags::IN),
            PollFd::new(woken, PollFlags::IN),
            PollFd::new(&self.stack, PollFlags::IN),
        ];
        let mut numbers = Vec::new();
        for connection in &self.connections {
            if let Some((upstream, wanted)) = connection.wants(&self.stack) {
                polled.push(PollFd::from_borrowed_fd(upstream, wanted));
                numbers.push(connection.number);
            }
        }
        let untold = polled.len();
        polled.extend(self.untold.iter().map(|untold| PollFd::new(&untold.from, PollFlags::IN)));
        poll(&mut polled, timeout.as_ref())?;
        polled.truncate(untold);
        let mut flags = polled.iter().map(PollFd::revents);
        let (stop, answers, _packets) = (flags.next(), flags.next(), flags.next());
        let some = |flags: Option<PollFlags>| flags.is_some_and(|flags| !flags.is_empty());
        Ok(Ready {
            answers: some(answers),
            stop: until.is_some() || some(stop),
            connections: numbers.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect(),
        })
    }

    /// Deals with what came out of the cell.
    fn packets(&mut self, admits: bool) -> Result<(), Errno> {
        for _ in 0..PACKETS {
            let Some(bytes) = self.stack.read()? else { break };
            let length = bytes.len();
            match packet::look(bytes) {
                Packet::Dns { from, question } => {
                    let (answer, refused) = self.names.answer(question);
                    if let Some((to, why)) = refused {
                        self.teller.refused_name(to, why);
                    }
                    if let Some(answer) = answer {
                        self.stack.put(&packet::dns(from, &answer));
                    }
                }
                Packet::Fragment(to) => self.teller.refused(To::Address(to), 0, Refused::Fragment),
                Packet::Nothing => {}
                Packet::Other(to, protocol) => {
                    self.teller.refused(To::Address(to), 0, Refused::Protocol(protocol));
                }
                Packet::Syn(way) => {
                    let syn = bytes.to_vec();
                    self.syn(way, syn, admits);
                }
                Packet::Tcp => self.stack.take(length),
                Packet::Udp(to, port) => {
                    self.teller.refused(To::Address(to), port, Refused::Udp);
                    // Which tells the program, by ICMP, so that it need not wait.
                    self.stack.take(length);
                }
            }
        }
        Ok(())
    }

    /// Somebody wants to connect. The stack hears of it when it is clear what comes of it; where it has no socket then, it
    /// answers that nobody is there.
    fn syn(&mut self, way: Way, syn: Vec<u8>, admits: bool) {
        if let Some(connection) = self.connections.iter().find(|connection| connection.way == way) {
            // Asked once more: the answer is on its way.
            if connection.socket.is_some() {
                self.stack.give(&syn);
            }
            return;
        }
        let (to, allowed) = match self.names.of(way.to) {
            // The proxy is told later whom it is for.
            None if (way.to, way.port) == (GATE, PROXY_PORT) => (To::Address(way.to), Ok(None)),
            None => (To::Address(way.to), Err(Refused::Unnamed)),
            Some(name) => {
                let allowed = self.names.allow(name, way.port);
                (To::Name(name.clone()), allowed.map(|allowed| Some((name.clone(), allowed))))
            }
        };
        let admitted = allowed.and_then(|named| self.admit(way, syn.clone(), named, admits));
        if let Err(why) = admitted {
            self.teller.refused(to, way.port, why);
            self.stack.give(&syn);
        }
    }

    /// Admits a connection: to a name, or to the proxy.
    fn admit(
        &mut self,
        way: Way,
        syn: Vec<u8>,
        to: Option<(HostName, Allowed)>,
        admits: bool,
    ) -> Result<(), Refused> {
        let on_their_way = self.connections.iter().filter(|connection| !connection.is_open()).count();
        if !admits || self.connections.len() >= CONNECTIONS || on_their_way >= ON_THEIR_WAY {
            return Err(Refused::Busy);
        }
        let told = self.teller.events.clone().try_reserve_owned().map_err(|_full| Refused::Busy)?;
        if let Some((name, _)) = &to {
            self.resolving.begin(self.next, name.clone())?;
        }
        // The same port was used before, and the stack must not take this for more of that.
        for (socket, _, _) in self.lingering.extract_if(.., |(_, other, _)| *other == way) {
            self.stack.remove(socket);
        }
        // Who speaks to the proxy is connected at once.
        let to = match to {
            Some((name, allowed)) => Towards::Name(name, allowed),
            None => Towards::Proxy(self.stack.accept(way, &syn).ok_or(Refused::Busy)?),
        };
        let intercept = self.names.intercept.clone();
        self.connections.push(Connection::new(self.next, way, syn, to, told, intercept));
        self.next += 1;
        Ok(())
    }

    /// A program has told the proxy whom it wants. Returns what comes of it, if that is the end.
    fn wants(&mut self, at: usize, name: HostName, port: u16) -> Option<Verdict> {
        let connection = self.connections.get_mut(at)?;
        let number = connection.number;
        let allowed = self.names.allow(&name, port).and_then(|allowed| {
            if connection.is_bare(port, &allowed) || connection.is_bare_inside(&name, port) {
                return Err(Refused::Hello(HelloError::NotTls));
            }
            self.resolving.begin(number, name.clone())?;
            Ok(allowed)
        });
        match allowed {
            Ok(allowed) => connection.allowed(name, port, allowed),
            Err(why) => {
                connection.wanted(name, port);
                return Some(Verdict::Refused(why));
            }
        }
        None
    }

    /// Goes on with connections whose name is resolved.
    fn resolved(&mut self) {
        while let Ok((number, addresses)) = self.answers.try_recv() {
            // It may have been given up meanwhile.
            let Some(at) = self.connections.iter().position(|connection| connection.number == number) else {
                continue;
            };
            let ended = self.connections.get_mut(at).and_then(|connection| connection.resolved(addresses));
            if let Some(verdict) = ended {
                self.end(at, verdict);
            }
        }
    }

    fn look_after(&mut self, stopping: bool) {
        let mut at = 0;
        while let Some(connection) = self.connections.get_mut(at) {
            let over = match connection.advance(&mut self.stack, &mut self.scratch, stopping) {
                Some(Turn::Over(verdict)) => Some(verdict),
                Some(Turn::Wants(name, port)) => self.wants(at, name, port),
                None => None,
            };
            match over {
                Some(verdict) => self.end(at, verdict),
                None => at += 1,
            }
        }
    }

    /// Ends a connection and tells what came of it.
    fn end(&mut self, at: usize, verdict: Verdict) {
        let connection = self.connections.swap_remove(at);
        connection.answer(&mut self.stack, verdict);
        match connection.socket {
            Some(socket) => self.lingering.push((socket, connection.way, Instant::now())),
            None => self.stack.give(&connection.syn),
        }
        self.untold.extend(connection.tell(verdict));
    }

    /// Forgets sockets that have said their last word.
    fn forget(&mut self) {
        let Self { stack, lingering, .. } = self;
        lingering.retain(|(socket, _, since)| {
            let over = stack.is_closed(*socket) || since.elapsed() > LINGER;
            if over {
                stack.remove(*socket);
            }
            !over
        });
    }
}

/// The names that were looked up, and what they are known by in this cell.
struct Names {
    rules: Vec<Rule>,
    intercept: Option<Arc<dyn Intercept>>,
    given: Vec<HostName>,
    known: HashMap<HostName, u32>,
    /// How many questions are answered yet in the second that began then.
    left: u32,
    since: Instant,
}

impl Names {
    /// The first address that is given to a name.
    const FIRST: u32 = Ipv4Addr::new(198, 18, 1, 0).to_bits();

    /// The answer to a question, if there is one, and what is refused.
    fn answer(&mut self, question: &[u8]) -> (Option<Vec<u8>>, Option<(To, Refused)>) {
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.left, self.since) = (QUESTIONS, Instant::now());
        }
        let Some(left) = self.left.checked_sub(1) else {
            return (None, Some((To::NotAName, Refused::Busy)));
        };
        self.left = left;
        let question = match Question::read(question) {
            Ok(question) => question,
            Err(NotAsked(answer)) => return (answer, Some((To::NotAName, Refused::Name))),
        };
        if self.marks(&question.said()) {
            return (Some(question.no_such_name()), Some((To::NotAName, Refused::Marked)));
        }
        let Some(name) = &question.name else {
            return (Some(question.no_such_name()), Some((To::NotAName, Refused::Name)));
        };
        if !rule::knows(&self.rules, name) {
            return (Some(question.no_such_name()), Some((To::Name(name.clone()), Refused::Name)));
        }
        if !question.wants_address() {
            return (Some(question.nothing()), None);
        }
        match self.give(name) {
            Some(address) => (Some(question.address(address)), None),
            None => (Some(question.failure()), Some((To::Name(name.clone()), Refused::Busy))),
        }
    }

    fn give(&mut self, name: &HostName) -> Option<Ipv4Addr> {
        let index = match self.known.get(name) {
            Some(index) => *index,
            None => {
                let index = u32::try_from(self.given.len()).ok().filter(|index| *index < NAMES)?;
                self.given.push(name.clone());
                self.known.insert(name.clone(), index);
                index
            }
        };
        Some(Ipv4Addr::from_bits(Self::FIRST + index))
    }

    /// On which terms a name and port may be connected to.
    fn allow(&self, name: &HostName, port: u16) -> Result<Allowed, Refused> {
        if !rule::knows(&self.rules, name) {
            return Err(Refused::Name);
        }
        // What is below a name can be any text, and is asked of that name's own DNS.
        if self.marks(name.as_str().as_bytes()) {
            return Err(Refused::Marked);
        }
        let allowed = rule::allow(&self.rules, name, port).ok_or(Refused::Port)?;
        let is_read = self.intercept.as_ref().is_some_and(|intercept| intercept.covers(name, port));
        if allowed.is_inside(port) && !is_read { Err(Refused::Unread) } else { Ok(allowed) }
    }

    fn marks(&self, said: &[u8]) -> bool {
        self.intercept.as_ref().is_some_and(|intercept| intercept.marks(said))
    }

    /// The name that an address was given to.
    fn of(&self, address: Ipv4Addr) -> Option<&HostName> {
        let index = address.to_bits().checked_sub(Self::FIRST)?;
        self.given.get(usize::try_from(index).ok()?)
    }
}

/// Has names resolved, each on a thread of its own, which nobody waits for when the cell has ended.
struct Resolving {
    resolver: Arc<dyn Resolve>,
    resolved: answers::Sender<(u64, io::Result<Vec<IpAddr>>)>,
    waker: Arc<PipeWriter>,
}

impl Resolving {
    fn begin(&self, number: u64, name: HostName) -> Result<(), Refused> {
        // Each that is under way has the waker, too.
        if Arc::strong_count(&self.waker) > RESOLVING {
            return Err(Refused::Busy);
        }
        let (resolver, resolved, waker) =
            (Arc::clone(&self.resolver), self.resolved.clone(), Arc::clone(&self.waker));
        let resolve = move || {
            // If the cell is gone, nobody wants to know.
            let _gone = resolved.send((number, resolver.resolve(&name)));
            let _gone = (&*waker).write(&[0]);
        };
        let begun = std::thread::Builder::new().name("egress-resolve".to_owned()).spawn(resolve);
        begun.map(drop).map_err(|_no_thread| Refused::Busy)
    }
}

/// Tells what was refused, as far as somebody listens.
struct Teller {
    events: mpsc::Sender<Event>,
    untold: u64,
    /// The name that was refused last. Programs ask for one several times, of each kind of address.
    last: Option<(To, Refused)>,
}

impl Teller {
    fn refused(&mut self, to: To, port: u16, why: Refused) {
        let attempt =
            Attempt { to, port, verdict: Verdict::Refused(why), up: 0, down: 0, lasted: Duration::ZERO };
        if self.events.try_send(Event::Attempt(attempt)).is_err() {
            self.untold += 1;
        }
    }

    fn refused_name(&mut self, to: To, why: Refused) {
        if self.last.as_ref() != Some(&(to.clone(), why)) {
            self.last = Some((to.clone(), why));
            self.refused(to, 0, why);
        }
    }

    /// Tells what is left to tell.
    fn finish(self) {
        if self.untold > 0 {
            // Waits until there is room, or nobody listens any more.
            let _gone = self.events.blocking_send(Event::Untold(self.untold));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rules: &[&str]) -> Names {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        Names {
            rules,
            intercept: None,
            given: Vec::new(),
            known: HashMap::new(),
            left: QUESTIONS,
            since: Instant::now(),
        }
    }

    fn question(name: &str) -> Vec<u8> {
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.as_bytes());
        }
        packet.extend([0, 0, 1, 0, 1]);
        packet
    }

    #[test]
    fn a_name_keeps_its_address_and_an_address_its_name() {
        let mut names = names(&["*.example.com:443"]);
        let (a, b): (HostName, HostName) =
            ("a.example.com".parse().unwrap(), "b.example.com".parse().unwrap());
        let (first, second) = (names.give(&a).unwrap(), names.give(&b).unwrap());
        assert_eq!((names.give(&a), names.of(first), names.of(second)), (Some(first), Some(&a), Some(&b)));
        assert_ne!(first, second);
        let next = Ipv4Addr::from_bits(second.to_bits() + 1);
        for other in [next, Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST] {
            assert_eq!(names.of(other), None, "{other}");
        }
    }

    #[test]
    fn there_is_an_end_to_names() {
        let mut names = names(&["*.example.com:443"]);
        for number in 0..NAMES {
            names.left = QUESTIONS;
            let (answer, refused) = names.answer(&question(&format!("n{number}.example.com")));
            assert!(answer.is_some() && refused.is_none(), "{number}");
        }
        names.left = QUESTIONS;
        let (answer, refused) = names.answer(&question("one-more.example.com"));
        assert_eq!(answer.unwrap()[3] & 0xf, 2);
        assert!(matches!(refused, Some((To::Name(_), Refused::Busy))));
        assert!(names.answer(&question("n7.example.com")).1.is_none(), "what is known stays known");
    }

    /// Answers when it is told to.
    #[derive(Debug, Default)]
    struct Slow(std::sync::Mutex<()>);

    impl Resolve for Slow {
        fn resolve(&self, _: &HostName) -> io::Result<Vec<IpAddr>> {
            drop(self.0.lock());
            Ok(Vec::new())
        }
    }

    #[test]
    fn there_is_an_end_to_names_that_nobody_waits_for() {
        let (resolver, (resolved, answers)) = (Arc::new(Slow::default()), answers::channel());
        let (mut woken, waker) = io::pipe().unwrap();
        let resolving = Resolving { resolver: Arc::clone(&resolver) as _, resolved, waker: Arc::new(waker) };
        let begin = || resolving.begin(0, "a.example".parse().unwrap());
        let held = resolver.0.lock().unwrap();
        for number in 0..RESOLVING {
            assert_eq!(begin(), Ok(()), "{number}");
        }
        assert_eq!(begin(), Err(Refused::Busy));
        drop(held);
        assert_eq!(answers.iter().take(RESOLVING).count(), RESOLVING);
        woken.read_exact(&mut [0; RESOLVING]).unwrap();
        while Arc::strong_count(&resolving.waker) > 1 {
            std::thread::yield_now();
        }
        assert_eq!(begin(), Ok(()));
    }

    #[test]
    fn there_is_an_end_to_questions() {
        let mut names = names(&["a.example:443"]);
        for _ in 0..QUESTIONS {
            assert!(names.answer(&question("a.example")).0.is_some());
        }
        assert_eq!(names.answer(&question("a.example")), (None, Some((To::NotAName, Refused::Busy))));
        names.since = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert!(names.answer(&question("a.example")).0.is_some());
    }
}
