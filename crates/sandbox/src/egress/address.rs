//! Which addresses may be connected to: decided for the address that is dialled, after the name was resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nobody may connect to it: metadata services, link-local, multicast, other spellings of IPv4, what is not in use.
    Never,
    /// This machine, or a private network: only where a rule says so.
    Private,
    /// Everybody's.
    Public,
}

/// What metadata services and agents of clouds are reached at, apart from link-local addresses.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// What an address belongs to.
#[must_use]
pub fn reach(address: IpAddr) -> Reach {
    if METADATA.contains(&address) {
        return Reach::Never;
    }
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [10, ..] | [127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Reach::Private,
        // This network, link-local, protocols, relays of 6to4, documentation, benchmarks, multicast, reserved.
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [224..=255, ..] => Reach::Never,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] | [0xfc00..=0xfdff, ..] => Reach::Private,
        // A network without IPv4 reaches it through such addresses: what counts is the one inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => match reach_v4(embedded(high, low)) {
            Reach::Public if !METADATA.contains(&embedded(high, low).into()) => Reach::Public,
            Reach::Never | Reach::Private | Reach::Public => Reach::Never,
        },
        // Teredo, protocols; documentation; 6to4.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Never,
        [0x2000..=0x3fff, ..] => Reach::Public,
        // IPv4 in other spellings, link-local, multicast, and what nobody has been given yet.
        _ => Reach::Never,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        use Reach::{Never, Private, Public};
        for (text, want) in [
            ("1.1.1.1", Public),
            ("93.184.215.14", Public),
            ("100.63.255.255", Public),
            ("172.32.0.1", Public),
            ("192.0.1.1", Public),
            ("2606:4700:4700::1111", Public),
            ("2a00:1450:4001:82b::200e", Public),
            ("64:ff9b::101:101", Public),
            ("10.0.0.1", Private),
            ("127.0.0.1", Private),
            ("127.255.255.254", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("100.64.0.1", Private),
            ("::1", Private),
            ("fd12:3456::1", Private),
            ("0.0.0.0", Never),
            ("0.1.2.3", Never),
            ("100.100.100.200", Never),
            ("168.63.129.16", Never),
            ("169.254.169.254", Never),
            ("169.254.170.2", Never),
            ("192.0.0.192", Never),
            ("192.88.99.1", Never),
            ("198.18.1.0", Never),
            ("224.0.0.1", Never),
            ("240.0.0.1", Never),
            ("255.255.255.255", Never),
            ("::", Never),
            ("::127.0.0.1", Never),
            ("::1.1.1.1", Never),
            ("::ffff:127.0.0.1", Never),
            ("::ffff:169.254.169.254", Never),
            ("::ffff:1.1.1.1", Never),
            ("::ffff:0:127.0.0.1", Never),
            ("64:ff9b::127.0.0.1", Never),
            ("64:ff9b::a9fe:a9fe", Never),
            ("64:ff9b::168.63.129.16", Never),
            ("64:ff9b:1::1.1.1.1", Never),
            ("2001:0:1:2::1", Never),
            ("2001:db8::1", Never),
            ("2002:7f00:1::", Never),
            ("2002:101:101::", Never),
            ("3fff::1", Never),
            ("100::1", Never),
            ("fd00:ec2::254", Never),
            ("fd20:ce::254", Never),
            ("fe80::1", Never),
            ("fec0::1", Never),
            ("ff02::1", Never),
        ] {
            assert_eq!(reach(text.parse().unwrap()), want, "{text}");
        }
    }

    proptest! {
        /// What the standard library knows to be special is not public, nor is any IPv4 in an IPv6 spelling that is not.
        #[test]
        fn nothing_special_is_public(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!(special && reach(v4.into()) == Reach::Public));
            prop_assert_eq!(reach(v4.to_ipv6_mapped().into()), Reach::Never);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low);
            prop_assert_eq!(reach(nat64.into()) == Reach::Public, reach(v4.into()) == Reach::Public);
            prop_assert_eq!(reach(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into()), Reach::Never);
        }
    }
}
