//! What a cell is lent: at the gate, and at the proxy.
//!
//! The two speak over a channel that is the cell's own. The proxy says on it what the cell gets; the gate hands it connections, and
//! closes it when the cell is gone: then its placeholders stand for nothing any more, and its authority is gone.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::RecvFlags;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;
use toolgate_broker::vault::process::Value;
use toolgate_broker::vault::{HostPort, Slot};
use toolgate_core::scrub::Scrubber;
use toolgate_sandbox::cell::{Handed, Lent};
use toolgate_sandbox::egress::{BELIEVED, HostName, Intercept, Requests, Taken};
use toolgate_sandbox::messages::{self, MAX_MESSAGE};

use super::Ask;
use super::attach::{handed, lend, permitted, serves};
use super::authority::Authority;
use super::clean::Holding;
use super::inside::{self, Ends};
use super::placeholder::{Bound, Finder, Mark};
use super::process::Proxy;
use super::slots::Usable;
use crate::upstream::own_roots;

/// What a cell gets. A file comes with each place.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    places: Vec<Handed>,
    /// Where connections go that the proxy takes.
    hosts: Vec<String>,
    /// What stands for secrets.
    marks: Vec<String>,
    /// When it should be handed it anew, in milliseconds since 1970, if it does not last.
    renew_ms: Option<u64>,
    /// Why it gets nothing.
    refused: Option<String>,
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
    let Given { places, hosts, marks, renew_ms, refused: why } =
        serde_json::from_slice(buffer.get(..length).unwrap_or_default())?;
    if let Some(why) = why {
        return Err(io::Error::other(why));
    }
    if places.len() != files.len() {
        return Err(refused());
    }
    let handed = places.into_iter().zip(files).collect();
    let hosts: Vec<HostPort> = hosts.iter().filter_map(|host| host.parse().ok()).collect();
    if hosts.is_empty() {
        return Ok(Lent { handed, intercept: None, renew_ms });
    }
    // Whatever waits at the other end, the cell's network does not.
    fcntl_setfl(&channel, fcntl_getfl(&channel)? | OFlags::NONBLOCK)?;
    let finder = Finder::new(marks.iter().map(String::as_str));
    let intercept: Arc<dyn Intercept> = Arc::new(Taker { channel, hosts, finder });
    Ok(Lent { handed, intercept: Some(intercept), renew_ms })
}

/// A cell at the proxy.
pub(super) struct Cell {
    ask: Ask,
    proxy: Proxy,
    /// Which certificates of servers are believed.
    pub(super) believed: Result<Arc<ClientConfig>, String>,
    pub(super) authority: Authority,
    marks: Vec<Mark>,
    pub(super) finder: Finder,
}

/// What goes to a cell, and what is done for it.
struct Prepared {
    given: Given,
    files: Vec<OwnedFd>,
    cell: Option<Cell>,
}

/// Says what a cell gets, and serves its connections until the gate closes the channel.
pub(super) async fn begin(
    channel: OwnedFd,
    ask: Ask,
    placeholders_only: bool,
    proxy: Proxy,
    pem: Option<Vec<u8>>,
) -> io::Result<()> {
    let prepared = prepared(ask, placeholders_only, proxy, pem).await;
    let Prepared { given, files, cell } = prepared.unwrap_or_else(|why| Prepared {
        given: Given { refused: Some(why), ..Given::default() },
        files: Vec::new(),
        cell: None,
    });
    let message = serde_json::to_vec(&given)?;
    if message.len() > MAX_MESSAGE {
        return Err(io::Error::other("one cell gets too many secrets"));
    }
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    messages::send(&channel, &message, &files)?;
    let Some(cell) = cell else { return Ok(()) };
    let channel = StdStream::from(channel);
    channel.set_nonblocking(true)?;
    // Only what all sockets can do is done with it.
    connections(UnixStream::from_std(channel)?, Arc::new(cell)).await
}

async fn prepared(
    ask: Ask,
    placeholders_only: bool,
    proxy: Proxy,
    pem: Option<Vec<u8>>,
) -> Result<Prepared, String> {
    let (mut places, mut files, mut renew_ms) = (Vec::new(), Vec::new(), None);
    let named = if placeholders_only { &[] } else { ask.secrets.as_slice() };
    for name in named {
        let value = proxy.held.now().value(name).cloned();
        let is_handed = |value: &Arc<Value>| !value.uses.slots.iter().all(Slot::is_in_request);
        if value.as_ref().is_some_and(|value| !is_handed(value)) {
            continue;
        }
        let credential = proxy.credential(name, &ask, None).await.map_err(|error| error.to_string())?;
        if let Some(lease) = &credential.lease {
            renew_ms = Some(renew_ms.unwrap_or(u64::MAX).min(lease.renew_ms()));
        }
        lend(&credential, &ask.server, (&mut places, &mut files)).map_err(|error| error.to_string())?;
    }
    let (marks, hosts) =
        marks(&proxy.held.now(), &ask, &mut places, &mut files).map_err(|error| error.to_string())?;
    let texts: Vec<String> = marks.iter().map(|mark| mark.text.clone()).collect();
    let mut cell = None;
    if !hosts.is_empty() {
        let authority =
            Authority::new(hosts.iter().map(HostPort::host)).map_err(|error| error.to_string())?;
        let system = rustls_native_certs::load_native_certs();
        let bundle = authority.believed(system.certs.iter().map(AsRef::as_ref));
        places.push(Handed::File(BELIEVED.to_owned()));
        let file = messages::sealed("toolgate-certificates", bundle.as_bytes());
        files.push(file.map_err(|error| error.to_string())?);
        let finder = Finder::new(texts.iter().map(String::as_str));
        let believed = pem.map_or_else(|| proxy.roots.get(), |pem| own_roots(&pem));
        cell = Some(Cell { ask, proxy, believed, authority, marks, finder });
    }
    let hosts = hosts.iter().map(ToString::to_string).collect();
    Ok(Prepared { given: Given { places, hosts, marks: texts, renew_ms, refused: None }, files, cell })
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
        serves(value, &ask.server).map_err(io::Error::other)?;
        for placeholder in &value.uses.placeholders {
            let bound = Bound { key: holding.key(), session: &ask.session };
            let mark = bound.mark(value, placeholder).map_err(io::Error::other)?;
            let Some(place) = handed(&placeholder.at) else { continue };
            places.push(place);
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
    pub(super) async fn usable(&self, connection: &Connection) -> Vec<Usable> {
        let holding = self.proxy.held.now();
        let mut usable = Vec::new();
        for mark in &self.marks {
            let Some(value) = holding.value(&mark.secret) else { continue };
            let bound = Bound { key: holding.key(), session: &self.ask.session };
            let is_for = permitted(value, &self.ask.server, &connection.host, connection.port).is_ok();
            if !is_for || !bound.holds(mark, value) {
                continue;
            }
            let Ok(credential) = self.proxy.credential(&mark.secret, &self.ask, None).await else { continue };
            // It may be good for something else by now.
            let Connection { host, port, .. } = connection;
            if permitted(&credential.value, &self.ask.server, host, *port).is_ok() {
                usable.push(Usable { mark: mark.clone(), credential });
            }
        }
        usable
    }

    /// What takes values out of what servers answer.
    pub(super) fn scrubber(&self) -> Scrubber {
        self.proxy.held.now().scrubber(&self.ask.session)
    }
}
