//! Packets that come out of a cell: what each of them is, decided before the TCP stack sees any.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IPV4_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, UDP_HEADER_LEN, UdpPacket, UdpRepr,
};

use super::{CELL, GATE};

/// Where the DNS is.
const DNS_PORT: u16 = 53;

/// What a packet is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// A question to the DNS of the cell.
    Dns {
        /// The port it was asked from.
        from: u16,
        /// What was asked.
        question: &'a [u8],
    },
    /// A piece of a packet.
    Fragment(Ipv4Addr),
    /// Nothing that a program sent on purpose, or nothing that can be read.
    Nothing,
    /// Neither TCP nor UDP.
    Other(Ipv4Addr, u8),
    /// The wish to connect.
    Syn(Way),
    /// More of a connection, or of none.
    Tcp,
    /// UDP that is no question to the DNS of the cell.
    Udp(Ipv4Addr, u16),
}

/// From which port of the cell to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) from: u16,
    pub(super) to: Ipv4Addr,
    pub(super) port: u16,
}

/// Looks at a packet.
pub(super) fn look(bytes: &[u8]) -> Packet<'_> {
    let ip = match Ipv4Packet::new_checked(bytes) {
        Ok(ip) if ip.version() == 4 && ip.src_addr() == CELL => ip,
        Ok(_) | Err(_) => return Packet::Nothing,
    };
    let to = ip.dst_addr();
    if ip.more_frags() || ip.frag_offset() != 0 {
        return Packet::Fragment(to);
    }
    match ip.next_header() {
        IpProtocol::Tcp => match TcpPacket::new_checked(ip.payload()) {
            // Nothing more belongs to it: data with it would be for somebody who gave out a cookie.
            Ok(tcp) if is_plain_syn(&tcp) => {
                Packet::Syn(Way { from: tcp.src_port(), to, port: tcp.dst_port() })
            }
            Ok(_) => Packet::Tcp,
            Err(_) => Packet::Nothing,
        },
        IpProtocol::Udp => match UdpPacket::new_checked(ip.payload()) {
            Ok(udp) if (to, udp.dst_port()) == (GATE, DNS_PORT) => {
                Packet::Dns { from: udp.src_port(), question: udp.payload() }
            }
            Ok(udp) => Packet::Udp(to, udp.dst_port()),
            Err(_) => Packet::Nothing,
        },
        // The cell's kernel has something to say about an answer that nobody waited for.
        IpProtocol::Icmp if to == GATE => Packet::Nothing,
        other => Packet::Other(to, other.into()),
    }
}

fn is_plain_syn(tcp: &TcpPacket<&[u8]>) -> bool {
    tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin() && tcp.payload().is_empty()
}

/// The packet with an answer of the DNS.
pub(super) fn dns(port: u16, answer: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: DNS_PORT, dst_port: port };
    let ip = Ipv4Repr {
        src_addr: GATE,
        dst_addr: CELL,
        next_header: IpProtocol::Udp,
        payload_len: UDP_HEADER_LEN + answer.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; IPV4_HEADER_LEN + ip.payload_len];
    let checksums = ChecksumCapabilities::default();
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &GATE.into(),
        &CELL.into(),
        answer.len(),
        |place| place.copy_from_slice(answer),
        &checksums,
    );
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet from the cell.
    fn packet(to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0];
        bytes.extend(CELL.octets());
        bytes.extend(to.octets());
        bytes.extend(payload);
        bytes
    }

    fn tcp(flags: u8) -> Vec<u8> {
        [&[0x80, 1, 1, 0xbb][..], &[0; 8], &[0x50, flags, 0, 0, 0, 0, 0, 0]].concat()
    }

    #[test]
    fn packets_are_told_apart() {
        let other = Ipv4Addr::new(8, 8, 8, 8);
        let udp = |port: u8| vec![0x80, 1, 0, port, 0, 11, 0, 0, b'a', b's', b'k'];
        let way = Way { from: 0x8001, to: other, port: 443 };
        let mut fragment = packet(other, 6, &tcp(2));
        fragment[6] = 0x20;
        let mut later = packet(other, 6, &tcp(2));
        later[7] = 1;
        let mut spoofed = packet(other, 6, &tcp(2));
        spoofed[15] += 1;
        let mut six = packet(other, 6, &tcp(2));
        six[0] = 0x65;
        for (bytes, want) in [
            (packet(other, 6, &tcp(2)), Packet::Syn(way)),
            (packet(other, 6, &tcp(2 | 0x10)), Packet::Tcp),
            (packet(other, 6, &tcp(2 | 1)), Packet::Tcp),
            (packet(other, 6, &tcp(0x10)), Packet::Tcp),
            (packet(other, 6, &tcp(2)[..19]), Packet::Nothing),
            (packet(GATE, 17, &udp(53)), Packet::Dns { from: 0x8001, question: b"ask" }),
            (packet(GATE, 17, &udp(54)), Packet::Udp(GATE, 54)),
            (packet(other, 17, &udp(53)), Packet::Udp(other, 53)),
            (packet(other, 17, &udp(53)[..7]), Packet::Nothing),
            (packet(other, 6, &[tcp(2), vec![0]].concat()), Packet::Tcp),
            (packet(other, 1, &[8, 0, 0, 0]), Packet::Other(other, 1)),
            (packet(GATE, 1, &[3, 3, 0, 0]), Packet::Nothing),
            (packet(other, 41, &[]), Packet::Other(other, 41)),
            (fragment, Packet::Fragment(other)),
            (later, Packet::Fragment(other)),
            (spoofed, Packet::Nothing),
            (six, Packet::Nothing),
            (vec![], Packet::Nothing),
            (vec![0x45; 19], Packet::Nothing),
        ] {
            assert_eq!(look(&bytes), want, "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_is_a_packet() {
        let bytes = dns(0x8001, b"answer");
        let ip = Ipv4Packet::new_checked(&bytes[..]).unwrap();
        assert!(ip.verify_checksum());
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        assert!(udp.verify_checksum(&GATE.into(), &CELL.into()));
        assert_eq!((udp.src_port(), udp.dst_port(), udp.payload()), (53, 0x8001, &b"answer"[..]));
    }

    proptest! {
        #[test]
        fn anything_is_looked_at(mut bytes in prop::collection::vec(any::<u8>(), 0..80), whole: bool) {
            if whole && bytes.len() >= 20 {
                bytes[0] = 0x45;
                bytes[12..16].copy_from_slice(&CELL.octets());
                bytes[2..4].copy_from_slice(&80_u16.to_be_bytes());
            }
            let _ = look(&bytes);
        }
    }
}
