//! The credential proxy's own process.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use rustix::net::RecvFlags;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use toolgate_broker::vault::process::take;
use toolgate_core::json;
use toolgate_sandbox::cell::confine;
use toolgate_sandbox::guarded;
use toolgate_sandbox::messages::{self, MAX_MESSAGE};

use super::attach::{self, AttachError, Credential};
use super::clean::{self, Held, Holding, WHOLE};
use super::mint::{Fetch, Leases};
use super::notes::Notes;
use super::turns::Turns;
use super::{Ask, What, carry, cell};

/// The name (`argv[0]`) by which this program knows that it is to be the credential proxy.
pub const PROXY: &str = "toolgate-proxy";

/// The gate's first message. With it come the socket that the vault's process gives values on, the one on which leases are told of, and
/// the one on which turns are asked for.
pub(super) const VALUES: &[u8] = b"values";

/// What the whole process has.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) held: Arc<Held>,
    pub(super) leases: Arc<Leases>,
    pub(super) roots: Arc<carry::Roots>,
}

/// Becomes the credential proxy, if this program was started as one; to be called before anything else in `main`. Returns the
/// exit status.
#[must_use]
pub fn process() -> Option<u8> {
    if std::env::args().next().as_deref() != Some(PROXY) {
        return None;
    }
    Some(match serve() {
        Ok(()) => 0,
        Err(error) => {
            // The gate only sees that it is gone. No value is part of an error.
            let _unheard = writeln!(io::stderr(), "{PROXY}: {error}");
            1
        }
    })
}

fn serve() -> io::Result<()> {
    confine::close_what_was_left().map_err(io::Error::other)?;
    guarded::keep_to_ourselves()?;
    // Before there is a second thread: what is given up is given up by all.
    confine::to_the_network().map_err(io::Error::other)?;
    let stdin = io::stdin();
    let gate = stdin.as_fd();
    let mut buffer = [0; MAX_MESSAGE];
    let first = messages::receive(gate, &mut buffer, RecvFlags::empty())?;
    let Some((_, given)) = first.filter(|(length, _)| buffer.get(..*length) == Some(VALUES)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let Ok([vault, notes, turns]) = <[OwnedFd; 3]>::try_from(given) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut vault = StdStream::from(vault);
    let held = Arc::new(Held::default());
    take(&mut vault, |values| held.change(|before| Holding::new(values, before)))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _entered = runtime.enter();
    let roots = Arc::new(carry::Roots::default());
    let (notes, words) = Notes::new(StdStream::from(notes))?;
    let (fetch, turns) = (Fetch::new(Arc::clone(&roots)), Turns::new(turns));
    let leases = Leases::new(Arc::clone(&held), notes.clone(), turns, fetch);
    runtime.spawn(notes.hear(words, Arc::clone(&leases)));
    let proxy = Proxy { held, leases, roots };
    let (newest, handle) = (proxy.clone(), runtime.handle().clone());
    std::thread::Builder::new().name("toolgate-values".to_owned()).spawn(move || {
        let put_in_force = |values| newest.held.change(|before| Holding::new(values, before));
        while take(&mut vault, put_in_force).is_ok() {
            let _entered = handle.enter();
            newest.leases.follow_vault();
        }
        end_without_the_vault()
    })?;
    while let Some((length, given)) = messages::receive(gate, &mut buffer, RecvFlags::empty())? {
        // What is none, or cannot be begun closes its descriptors, which is what the other end sees.
        let ask = serde_json::from_slice::<Ask>(buffer.get(..length).unwrap_or_default());
        let _not_begun = ask.map_err(io::Error::from).and_then(|ask| begin(ask, given, &proxy));
    }
    Ok(())
}

/// Without the vault there is nothing to be sure of any more: what is under way is cut off.
#[expect(clippy::exit, reason = "the main thread waits for the gate, and would not hear of it")]
fn end_without_the_vault() {
    std::process::exit(1)
}

fn begin(ask: Ask, given: Vec<OwnedFd>, proxy: &Proxy) -> io::Result<()> {
    let held = Arc::clone(&proxy.held);
    let mut given = given.into_iter();
    let mut next = || given.next().ok_or(io::ErrorKind::InvalidInput);
    match ask.what.clone() {
        What::Http(destination) => {
            let stream = stream(next()?)?;
            let certificates = given.next().map(certificates).transpose()?;
            tokio::spawn(carry::serve(stream, ask, destination, certificates, proxy.clone()));
        }
        What::Lend { placeholders_only } => {
            let channel = next()?;
            let pem = given.next().map(certificates).transpose()?;
            tokio::spawn(cell::begin(channel, ask, placeholders_only, proxy.clone(), pem));
        }
        What::Lines => {
            let from = pipe::Receiver::from_owned_fd(next()?)?;
            let to = pipe::Sender::from_owned_fd(next()?)?;
            tokio::spawn(lines(from, to, ask, held));
        }
        What::Once | What::Carried => {
            let stream = stream(next()?)?;
            tokio::spawn(once(stream, ask, held));
        }
    }
    Ok(())
}

/// Certificates that the gate has read from a file.
fn certificates(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    File::from(file).take(1 << 20).read_to_end(&mut pem).map(|_length| pem)
}

impl Proxy {
    /// What goes to a server where the secret of this name says: it, or what is minted from it.
    pub(super) async fn credential(
        &self,
        name: &str,
        ask: &Ask,
        arguments: Option<json::Value<'_>>,
    ) -> Result<Credential, AttachError> {
        let value = self.held.now().value(name).cloned().ok_or_else(|| AttachError::None(name.to_owned()))?;
        let Some(mint) = &value.uses.mint else { return Ok(Credential { value, lease: None }) };
        // Nothing is minted for whom it is not.
        attach::serves(&value, &ask.server)?;
        let lease = self.leases.get(&value, mint, &ask.server, &ask.session, arguments).await;
        Ok(Credential { lease: Some(lease.map_err(AttachError::Lease)?), value })
    }
}

fn stream(socket: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Copies lines, each a message of its own.
async fn lines(from: pipe::Receiver, mut to: pipe::Sender, ask: Ask, held: Arc<Held>) -> io::Result<()> {
    let mut from = BufReader::with_capacity(64 << 10, from);
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte more than may be passed on tells that it is too long; the gate then says so itself.
        let most = ask.max_message_bytes as u64 + 2;
        if (&mut from).take(most).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let ends = line.pop_if(|last| *last == b'\n').is_some();
        if !ends && line.len() as u64 == most {
            // In two pieces, neither would be found in it what is in both. The gate takes no line that is no message.
            skip_line(&mut from).await?;
            to.write_all(TOO_LONG).await?;
            continue;
        }
        let scrubber = held.now().scrubber(&ask.session);
        let cleaned = match clean::message(&scrubber, &line) {
            Ok(cleaned) => Some(cleaned),
            Err(why) => clean::withheld(&line, &why.to_string()),
        };
        let Some(mut cleaned) = cleaned else { continue };
        if ends {
            cleaned.push(b'\n');
        }
        to.write_all(&cleaned).await?;
    }
}

/// What stands for a line that is too long to be looked through.
const TOO_LONG: &[u8] = b"toolgate: a line that is too long is withheld\n";

/// Reads up to the end of a line, and keeps nothing of it.
async fn skip_line(from: &mut BufReader<pipe::Receiver>) -> io::Result<()> {
    loop {
        let bytes = from.fill_buf().await?;
        let end = bytes.iter().position(|b| *b == b'\n');
        let (length, done) = (end.map_or(bytes.len(), |end| end + 1), end.is_some() || bytes.is_empty());
        from.consume(length);
        if done {
            return Ok(());
        }
    }
}

/// Cleans what comes until its end, and sends it back; or only says what is in it. What cannot be looked through is not answered.
async fn once(mut stream: UnixStream, ask: Ask, held: Arc<Held>) -> io::Result<()> {
    let mut text = Vec::new();
    (&mut stream).take(ask.max_message_bytes as u64 + 1).read_to_end(&mut text).await?;
    if text.len() > ask.max_message_bytes {
        return Ok(());
    }
    let held = held.now();
    let answer = match ask.what {
        What::Carried => held.carried(&text).map(|names| serde_json::to_vec(&names)).transpose(),
        What::Http(_) | What::Lend { .. } | What::Lines | What::Once => {
            Ok(clean::message(&held.scrubber(&ask.session), &text).ok())
        }
    };
    if let Some(mut answer) = answer? {
        answer.push(WHOLE);
        stream.write_all(&answer).await?;
    }
    Ok(())
}
