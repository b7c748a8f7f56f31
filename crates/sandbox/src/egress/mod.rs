//! The way out of a cell: by name, to what the rules allow, and to nothing else.
//!
//! A cell's network has one interface, and what a program sends there comes out of a descriptor that the gate holds. Behind it is
//! a small TCP stack, on a thread of its own for each cell, and a DNS that knows the names in the rules:
//!
//! ```text
//! program ──"api.example.com?"──▶ 198.18.1.0                        an address that means that name, in this cell
//!         ──TCP to 198.18.1.0:443──▶ rule for the name and port?
//!                                    resolve the name on the host, check every address, connect to one of those
//!                                    TLS: does the client name the same server?
//!         ◀──────────── bytes ─────▶
//! ```
//!
//! So there is no address to guess: what was not looked up cannot be connected to, and a name is looked up once more, by the host,
//! when it is connected to. Everything else (UDP, ICMP, pieces of packets, other protocols) ends here.
//!
//! | file | holds |
//! | --- | --- |
//! | `rule.rs`, `name.rs` | what may be reached |
//! | `address.rs` | which addresses a name may have |
//! | `tun.rs` | the interface |
//! | `packet.rs`, `dns.rs`, `hello.rs`, `http.rs` | parsers of what programs send |
//! | `stack.rs` | the TCP stack |
//! | `connection.rs` | one connection |
//! | `inside.rs` | connections that somebody else reads |
//! | `engine.rs` | the thread |
//!
//! What it cannot see is what is said inside TLS: an allowed server that passes on what it is sent, to others, is a way out. Where a
//! secret is put in on the way, somebody else reads what is inside ([`Intercept`]): by the same rules, and to the same address.

mod address;
mod connection;
mod dns;
mod engine;
mod hello;
mod http;
mod inside;
mod name;
mod packet;
mod rule;
mod stack;
pub(crate) mod tun;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

pub use self::address::{Reach, reach};
pub(crate) use self::engine::start;
pub use self::hello::HelloError;
pub use self::http::{HttpError, Requests, Step};
pub use self::inside::{Inside, Intercept, Taken};
pub use self::name::{HostName, NameError};
pub use self::rule::{Rule, RuleError};

/// The address of the cell itself.
const CELL: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// The address of the gate's end, where the DNS is.
const GATE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// How large a packet between the cell and the gate can be. It never is on a wire, so it is as large as they come.
const MTU: u16 = 65_520;

/// The port where everything has to be TLS.
const TLS_PORT: u16 = 443;

/// The port of the gate's end where a proxy listens, for programs that look for one. It does what is done without it, by the same rules.
const PROXY_PORT: u16 = 3128;

/// What the environment of a cell with a way out says of it, for programs that look for a proxy there. What is in the cell itself is
/// reached without.
pub const PROXY: [(&str, &str); 6] = [
    ("http_proxy", "http://198.18.0.1:3128"),
    ("https_proxy", "http://198.18.0.1:3128"),
    ("HTTP_PROXY", "http://198.18.0.1:3128"),
    ("HTTPS_PROXY", "http://198.18.0.1:3128"),
    ("no_proxy", "localhost,127.0.0.1,::1"),
    ("NO_PROXY", "localhost,127.0.0.1,::1"),
];

/// A cell's network interface, in the gate's hands.
///
/// To close the last descriptor of one takes the kernel some hundredths of a second, in which whoever closes it stands still, be it
/// because it ends. So there is another one, held by a process that does nothing else, and ends when its keeper is closed.
#[derive(Debug)]
pub(crate) struct Interface {
    /// Closed first.
    pub(crate) device: OwnedFd,
    pub(crate) keeper: OwnedFd,
}

/// The file in which a cell is told what certificates to believe, where some of its connections are [taken](Intercept).
pub const BELIEVED: &str = "toolgate-ca.pem";

/// Where programs look for that.
pub const BELIEVES: [(&str, &str); 11] = {
    const FILE: &str = "/run/secrets/toolgate-ca.pem";
    [
        ("AWS_CA_BUNDLE", FILE),
        ("CARGO_HTTP_CAINFO", FILE),
        ("CURL_CA_BUNDLE", FILE),
        ("DENO_CERT", FILE),
        ("GIT_SSL_CAINFO", FILE),
        ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", FILE),
        ("NODE_EXTRA_CA_CERTS", FILE),
        ("PIP_CERT", FILE),
        ("REQUESTS_CA_BUNDLE", FILE),
        ("SSL_CERT_FILE", FILE),
        ("npm_config_cafile", FILE),
    ]
};

/// What `/etc/resolv.conf` holds in a cell with a way out.
pub const RESOLV_CONF: &str = "nameserver 198.18.0.1\n";

/// Finds the addresses of names, on the host.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of a name. It may take its time: it is called on a thread of its own.
    ///
    /// # Errors
    /// There are none, or they could not be found out.
    fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>>;
}

/// The host's own way to resolve names. `host.internal` and what is below it are this machine; so is what is below `localhost`
/// (RFC 6761), whether or not the host knows it.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostResolver;

impl Resolve for HostResolver {
    fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        let is_below = |above: &str| {
            name.as_str()
                .rsplit_once(above)
                .is_some_and(|(rest, after)| after.is_empty() && (rest.is_empty() || rest.ends_with('.')))
        };
        if is_below("host.internal") || is_below("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        Ok((name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }
}

/// What a program in a cell did on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It wanted something, and this came of it. For a connection it is told when the connection has ended.
    Attempt(Attempt),
    /// So many refusals besides could not be told one by one, because nobody read them in time.
    Untold(u64),
}

/// What a program wanted, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What it wanted to reach.
    pub to: To,
    /// At which port; 0 where there is none, as in a question to the DNS.
    pub port: u16,
    /// What came of it.
    pub verdict: Verdict,
    /// How many bytes were sent.
    pub up: u64,
    /// How many bytes came back.
    pub down: u64,
    /// How long it took.
    pub lasted: Duration,
}

/// What a program wants to reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum To {
    /// An address that it was not given.
    Address(Ipv4Addr),
    /// A name.
    Name(HostName),
    /// What is not the name of a host.
    NotAName,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It was connected.
    Allowed,
    /// It was allowed, and could not be done: the name has no address, or nobody answered.
    Failed,
    /// It was not allowed.
    Refused(Refused),
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// The name has only addresses that nobody may connect to, or that the rule does not allow.
    #[error("the name leads to an address that is not allowed")]
    Address,
    /// There are too many at once.
    #[error("too many at once")]
    Busy,
    /// A piece of a packet.
    #[error("packets in pieces are not passed on")]
    Fragment,
    /// What is said at the beginning of a connection.
    #[error(transparent)]
    Hello(HelloError),
    /// What is asked for, by HTTP.
    #[error(transparent)]
    Http(HttpError),
    /// What was said inside TLS, to a host where a secret is put in.
    #[error(transparent)]
    Inside(Inside),
    /// The placeholder of a secret was on its way to where it has no business.
    #[error("ALARM: the placeholder of a secret was on its way to another place than its own")]
    Marked,
    /// No rule has this name.
    #[error("no rule has this name")]
    Name,
    /// No rule has this port of the name.
    #[error("no rule has this port")]
    Port,
    /// Another protocol than TCP and UDP, by its number.
    #[error("protocol {0} is not passed on")]
    Protocol(u8),
    /// UDP.
    #[error("UDP is not passed on")]
    Udp,
    /// An address that no name was looked up for.
    #[error("only names can be connected to")]
    Unnamed,
    /// The rule is for requests inside TLS, and nobody reads them.
    #[error(
        "the rule names requests, which are inside TLS: they are read only where a secret is used that has a placeholder"
    )]
    Unread,
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::NotAName => f.write_str("what is not the name of a host"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_names() {
        let is_here = |name: &str| {
            HostResolver
                .resolve(&name.parse().unwrap())
                .is_ok_and(|found| found.contains(&Ipv4Addr::LOCALHOST.into()))
        };
        for name in ["host.internal", "a.host.internal", "Host.Internal.", "localhost", "a.b.localhost"] {
            assert!(is_here(name), "{name}");
        }
        for name in ["ghost.internal", "host.internal.invalid", "xlocalhost", "localhost.invalid"] {
            assert!(!is_here(name), "{name}");
        }
    }
}
