//! The TCP stack of a cell. It answers for every address; who is connected to is decided before it sees a packet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{Socket, tcp};
use smoltcp::time;
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};

use super::packet::Way;
use super::{GATE, MTU};

/// How many bytes of a connection are kept in either direction.
const BUFFER: usize = 512 << 10;

/// How long the cell's kernel may take to answer anything.
const SILENCE: time::Duration = time::Duration::from_secs(60);
/// After what time without anything from it, it is asked. A program may wait for an answer much longer than its kernel may be silent.
const ASKED: time::Duration = time::Duration::from_secs(20);

pub(super) struct Stack {
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    begun: Instant,
}

impl Stack {
    pub(super) fn new(tun: OwnedFd) -> io::Result<Self> {
        let mut device =
            Device { tun, incoming: vec![0; usize::from(u16::MAX)].into(), ready: 0, outgoing: Vec::new() };
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut device, time::Instant::ZERO);
        interface.set_any_ip(true);
        let mut room = true;
        interface.update_ip_addrs(|addresses| room = addresses.push(IpCidr::new(GATE.into(), 32)).is_ok());
        if !room || interface.routes_mut().add_default_ipv4_route(GATE).is_err() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self { device, interface, sockets: SocketSet::new(Vec::new()), begun: Instant::now() })
    }

    fn now(&self) -> time::Instant {
        time::Instant::from_micros(i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Reads the next packet, if there is one. `Err` when there will be none any more.
    pub(super) fn read(&mut self) -> Result<Option<&[u8]>, Errno> {
        match rustix::io::read(&self.device.tun, self.device.incoming.as_mut()) {
            Ok(length) => Ok(self.device.incoming.get(..length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deals with the packet that was read last, of this length.
    pub(super) fn take(&mut self, length: usize) {
        self.device.ready = length;
        let now = self.now();
        let _changed = self.interface.poll_ingress_single(now, &mut self.device, &mut self.sockets);
        // Whoever gives up before it is connected, leaves a socket that listens, to which anybody could connect next.
        for (_, Socket::Tcp(socket)) in self.sockets.iter_mut() {
            if socket.state() == tcp::State::Listen {
                socket.abort();
            }
        }
    }

    /// Deals with a packet that was kept.
    pub(super) fn give(&mut self, packet: &[u8]) {
        if let Some(place) = self.device.incoming.get_mut(..packet.len()) {
            place.copy_from_slice(packet);
            self.take(packet.len());
        }
    }

    /// Sends a packet to the cell past the stack.
    pub(super) fn put(&self, packet: &[u8]) {
        put(self.device.tun.as_fd(), packet);
    }

    /// Sends what there is to send.
    pub(super) fn send(&mut self) {
        let now = self.now();
        while self.interface.poll_egress(now, &mut self.device, &mut self.sockets) != PollResult::None {}
    }

    /// How long until there is something to send that nothing else announces.
    pub(super) fn delay(&mut self) -> Option<Duration> {
        let now = self.now();
        self.interface.poll_delay(now, &self.sockets).map(Into::into)
    }

    /// Accepts a connection that was asked for with this packet.
    pub(super) fn accept(&mut self, way: Way, syn: &[u8]) -> Option<SocketHandle> {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(SILENCE));
        socket.set_keep_alive(Some(ASKED));
        socket.listen(IpListenEndpoint { addr: Some(way.to.into()), port: way.port }).ok()?;
        let socket = self.sockets.add(socket);
        self.give(syn);
        Some(socket)
    }

    pub(super) fn socket(&self, socket: SocketHandle) -> &tcp::Socket<'static> {
        self.sockets.get(socket)
    }

    pub(super) fn socket_mut(&mut self, socket: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(socket)
    }

    /// Whether a socket has nothing more to say.
    pub(super) fn is_closed(&self, socket: SocketHandle) -> bool {
        self.socket(socket).state() == tcp::State::Closed
    }

    pub(super) fn remove(&mut self, socket: SocketHandle) {
        self.sockets.remove(socket);
    }
}

impl AsFd for Stack {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.tun.as_fd()
    }
}

/// The interface as the stack sees it: one packet in, any number out.
struct Device {
    tun: OwnedFd,
    incoming: Box<[u8]>,
    /// How much of it is a packet that the stack has not taken yet.
    ready: usize,
    outgoing: Vec<u8>,
}

/// A packet that the cell's kernel does not take is lost, as packets are; what matters is sent again.
fn put(tun: BorrowedFd<'_>, packet: &[u8]) {
    let _lost = rustix::io::write(tun, packet);
}

impl phy::Device for Device {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let length = std::mem::take(&mut self.ready);
        let packet = self.incoming.get(..length).filter(|packet| !packet.is_empty())?;
        Some((Incoming(packet), Outgoing { tun: self.tun.as_fd(), buffer: &mut self.outgoing }))
    }

    fn transmit(&mut self, _: time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing { tun: self.tun.as_fd(), buffer: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(MTU);
        capabilities
    }
}

struct Incoming<'a>(&'a [u8]);

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

struct Outgoing<'a> {
    tun: BorrowedFd<'a>,
    buffer: &'a mut Vec<u8>,
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        self.buffer.resize(length, 0);
        let made = fill(self.buffer);
        put(self.tun, self.buffer);
        made
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// A program that waits for an answer says nothing for as long as that takes.
    #[test]
    fn who_waits_is_not_taken_for_gone() {
        let (tun, _cell) = UnixDatagram::pair().unwrap();
        let mut stack = Stack::new(tun.into()).unwrap();
        let socket = stack.accept(Way { from: 1, to: GATE, port: 1 }, &[]).unwrap();
        let socket = stack.socket(socket);
        assert!(socket.keep_alive().unwrap() * 2 < socket.timeout().unwrap());
        assert_eq!(socket.state(), tcp::State::Closed, "what nobody has connected to, listens to nobody");
    }
}
