//! What a cell is lent: at the gate, and at the proxy.
//!
//! The two speak over a channel that is the cell's own. The proxy says on it what the cell gets; the gate hands it connections, and
//! closes it when the cell is gone: then its placeholders stand for nothing any more, and its authority is gone.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use arc_swap::Guard;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::RecvFlags;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;
use toolgate_broker::vault::{HostPort, Slot};
use toolgate_core::scrub::Scrubber;
use toolgate_sandbox::cell::{Handed, Lent};
use toolgate_sandbox::egress::{BELIEVED, HostName, Intercept, Requests, Taken};
use toolgate_sandbox::messages::{self, MAX_MESSAGE};

use super::Ask;
use super::attach::{lent, permitted};
use super::authority::Authority;
use super::clean::Holding;
use super::inside::{self, Ends};
use super::placeholder::{Bound, Finder, Mark};
use super::process::Held;
use super::slots::Usable;

/// What a cell gets. A file comes with each place.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    places: Vec<Handed>,
    /// Where connections go that the proxy takes.
    hosts: Vec<String>,
    /// What stands for secrets.
    marks: Vec<String>,
}

/// A connection, on its way from the gate to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connection {
    pub(super) host: String,
    pub(super) port: u16,
    /// The requests that are allowed; without, all.
    requests: Option<Vec<String>>,
}

impl Connection {
    pub(super) fn requests(&self) -> Option<Requests> {
        let name: HostName = self.host.parse().ok()?;
        Some(Requests::inside(name, self.port, self.requests.as_deref()))
    }

    /// Whether a client that names this host means the one that was connected to.
    pub(super) fn is_for(&self, named: &str) -> bool {
        named.parse::<HostName>().is_ok_and(|named| named.as_str() == self.host)
    }
}

/// Takes connections of a cell at the gate.
#[derive(Debug)]
struct Taker {
    channel: OwnedFd,
    hosts: Vec<HostPort>,
    finder: Finder,
}

impl Intercept for Taker {
    fn covers(&self, name: &HostName, port: u16) -> bool {
        self.hosts.iter().any(|to| to.port() == port && to.host() == name.as_str())
    }

    fn marks(&self, bytes: &[u8]) -> bool {
        self.finder.finds(bytes)
    }

    fn take(&self, taken: Taken) -> io::Result<()> {
        let Taken { name, port, requests, program, server, told } = taken;
        let connection = Connection { host: name.to_string(), port, requests };
        let message = serde_json::to_vec(&connection)?;
        if message.len() > MAX_MESSAGE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(messages::send(&self.channel, &message, &[program.as_fd(), server.as_fd(), told.as_fd()])?)
    }
}

/// Waits at the gate for what the proxy says that a cell gets.
pub(super) fn received(channel: OwnedFd) -> io::Result<Lent> {
    let mut buffer = [0; MAX_MESSAGE];
    let refused = || io::Error::other("a secret may not go to this server");
    let (length, files) =
        messages::receive(&channel, &mut buffer, RecvFlags::empty())?.ok_or_else(refused)?;
    let Given { places, hosts, marks } = serde_json::from_slice(buffer.get(..length).unwrap_or_default())?;
    if places.len() != files.len() {
        return Err(refused());
    }
    let handed = places.into_iter().zip(files).collect();
    let hosts: Vec<HostPort> = hosts.iter().filter_map(|host| host.parse().ok()).collect();
    if hosts.is_empty() {
        return Ok(Lent { handed, intercept: None });
    }
    // Whatever waits at the other end, the cell's network does not.
    fcntl_setfl(&channel, fcntl_getfl(&channel)? | OFlags::NONBLOCK)?;
    let finder = Finder::new(marks.iter().map(String::as_str));
    Ok(Lent { handed, intercept: Some(Arc::new(Taker { channel, hosts, finder })) })
}

/// A cell at the proxy.
pub(super) struct Cell {
    ask: Ask,
    held: Held,
    /// Which certificates of servers are believed.
    pub(super) believed: Result<Arc<ClientConfig>, String>,
    pub(super) authority: Authority,
    marks: Vec<Mark>,
    pub(super) finder: Finder,
}

/// Says what a cell gets, and serves its connections until the gate closes the channel.
pub(super) fn begin(
    channel: OwnedFd,
    ask: Ask,
    placeholders_only: bool,
    held: Held,
    believed: impl FnOnce() -> Result<Arc<ClientConfig>, String>,
) -> io::Result<()> {
    let holding = held.load_full();
    let (mut places, mut files) = if placeholders_only {
        Default::default()
    } else {
        lent(&holding.values, &ask.server, &ask.secrets)?
    };
    let (marks, hosts) = marks(&holding, &ask, &mut places, &mut files)?;
    let texts: Vec<String> = marks.iter().map(|mark| mark.text.clone()).collect();
    let mut cell = None;
    if !hosts.is_empty() {
        let authority = Authority::new(hosts.iter().map(HostPort::host))
            .map_err(|error| io::Error::other(error.to_string()))?;
        let system = rustls_native_certs::load_native_certs();
        let bundle = authority.believed(system.certs.iter().map(AsRef::as_ref));
        places.push(Handed::File(BELIEVED.to_owned()));
        files.push(messages::sealed("toolgate-certificates", bundle.as_bytes())?);
        let finder = Finder::new(texts.iter().map(String::as_str));
        cell = Some(Cell { ask, held, believed: believed(), authority, marks, finder });
    }
    let given = Given { places, hosts: hosts.iter().map(ToString::to_string).collect(), marks: texts };
    let message = serde_json::to_vec(&given)?;
    if message.len() > MAX_MESSAGE {
        return Err(io::Error::other("one cell gets too many secrets"));
    }
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    messages::send(&channel, &message, &files)?;
    if let Some(cell) = cell {
        let channel = StdStream::from(channel);
        channel.set_nonblocking(true)?;
        // Only what all sockets can do is done with it.
        let channel = UnixStream::from_std(channel)?;
        tokio::spawn(connections(channel, Arc::new(cell)));
    }
    Ok(())
}

/// What stands for the secrets of a cell, and the hosts that have them.
fn marks(
    holding: &Holding,
    ask: &Ask,
    places: &mut Vec<Handed>,
    files: &mut Vec<OwnedFd>,
) -> io::Result<(Vec<Mark>, Vec<HostPort>)> {
    let (mut marks, mut hosts) = (Vec::new(), Vec::new());
    for name in &ask.secrets {
        let value = holding.value(name).ok_or(io::ErrorKind::NotFound)?;
        if !ask.server.parse().is_ok_and(|server| value.uses.serves(&server)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        for placeholder in &value.uses.placeholders {
            let bound = Bound { key: holding.key(), session: &ask.session };
            let mark = bound.mark(value, placeholder).map_err(io::Error::other)?;
            places.push(match &placeholder.at {
                Slot::File { name } => Handed::File(name.clone()),
                Slot::Env { name } => Handed::Env(name.clone()),
                Slot::Basic { .. } | Slot::Header { .. } | Slot::Query { .. } => continue,
            });
            files.push(messages::sealed("toolgate-placeholder", mark.text.as_bytes())?);
            marks.push(mark);
            hosts.extend(value.uses.hosts.iter().cloned());
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    Ok((marks, hosts))
}

/// Serves what the gate hands over.
async fn connections(channel: UnixStream, cell: Arc<Cell>) -> io::Result<()> {
    loop {
        let next = channel
            .async_io(Interest::READABLE, || {
                let mut buffer = [0; MAX_MESSAGE];
                let received = messages::receive(&channel, &mut buffer, RecvFlags::DONTWAIT)?;
                let read = |(length, given): (usize, Vec<OwnedFd>)| {
                    let text = buffer.get(..length).unwrap_or_default();
                    (serde_json::from_slice::<Connection>(text), given)
                };
                Ok(received.map(read))
            })
            .await;
        match next? {
            None => return Ok(()),
            // What is none is closed, which is what the other end sees.
            Some((Ok(connection), given)) => {
                if let Ok(ends) = Ends::new(given) {
                    tokio::spawn(inside::serve(Arc::clone(&cell), connection, ends));
                }
            }
            Some((Err(_), _)) => {}
        }
    }
}

impl Cell {
    /// What may be put into requests to this host now. A secret that is gone, or is not for that any more, is not.
    pub(super) fn usable(&self, connection: &Connection) -> Vec<Usable> {
        let holding: Guard<Arc<Holding>> = self.held.load();
        let usable = |mark: &Mark| {
            let value = holding.value(&mark.secret)?;
            let bound = Bound { key: holding.key(), session: &self.ask.session };
            let is_for = permitted(value, &self.ask.server, &connection.host, connection.port).is_ok();
            (is_for && bound.holds(mark, value))
                .then(|| Usable { mark: mark.clone(), value: Arc::clone(value) })
        };
        self.marks.iter().filter_map(usable).collect()
    }

    /// What takes values out of what servers answer.
    pub(super) fn scrubber(&self) -> Scrubber {
        self.held.load_full().scrubber(&self.ask.session)
    }
}
