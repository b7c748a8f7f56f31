//! Connections of cells to hosts where a secret is put in: TLS ends here, and begins again towards the host.
//!
//! The gate has looked the host's name up, connected to an address that it may connect to, and seen that the client names the same
//! host. Here each request is read in one way or not at all and written anew, is for that host, and is one that the rules allow; what
//! stands for a secret is replaced in its own place and is nowhere else; the host shows a certificate for its name; and what it
//! answers is cleaned of all values before a byte of it goes into the cell.

use std::io;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE,
};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName as TlsName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use toolgate_core::scrub::{Kind, Removed};
use toolgate_sandbox::egress::{HttpError, Inside, Requests, Step};

use super::authority::PROTOCOL;
use super::carry::{clean_headers, is_packed};
use super::cell::{Cell, Connection};
use super::clean;
use super::slots::{Usable, put_in};
use crate::upstream::{are_of, is};

/// How long agreeing on TLS may take, with either side.
const AGREE: Duration = Duration::from_secs(30);
/// How long a server may say nothing when it is its turn; the gate gives up a connection after as long.
const IDLE: Duration = Duration::from_secs(600);
/// How long a program may take to hang up that has heard the last answer.
const LINGER: Duration = Duration::from_secs(2);
/// How much is read of a program at once.
const READ: usize = 64 << 10;
/// How much of what a program said before is looked at with what it says now.
const TAIL: usize = 2 << 10;
/// Up to what length JSON is cleaned as such; beyond it, as text.
const DOCUMENT: usize = 1 << 20;

/// Tells a program that waits for it to go on.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why a connection has ended.
enum Stop {
    /// One of the two is gone.
    Gone,
    /// Something is not passed on.
    Refused(Inside),
}

impl From<Inside> for Stop {
    fn from(why: Inside) -> Self {
        Self::Refused(why)
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// The three ends of a connection that was handed over.
pub(super) struct Ends {
    pub(super) program: UnixStream,
    pub(super) server: TcpStream,
    /// Where the gate is told what was refused. Closed when this is dropped.
    pub(super) told: StdStream,
}

impl Ends {
    pub(super) fn new(given: Vec<OwnedFd>) -> io::Result<Self> {
        let Ok([program, server, told]) = <[OwnedFd; 3]>::try_from(given) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (program, server) = (StdStream::from(program), std::net::TcpStream::from(server));
        program.set_nonblocking(true)?;
        server.set_nonblocking(true)?;
        Ok(Self {
            program: UnixStream::from_std(program)?,
            server: TcpStream::from_std(server)?,
            told: told.into(),
        })
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(cell: Arc<Cell>, connection: Connection, ends: Ends) {
    let Ends { program, server, mut told } = ends;
    // The gate hears of it before the program does.
    let mut tell = |why: Inside| drop(told.write_all(&[why.as_byte()]));
    let accepted = match cell.authority.speaks_as(&connection.host) {
        Ok(config) => timeout(AGREE, TlsAcceptor::from(config).accept(program)).await.ok(),
        Err(_) => None,
    };
    let Some(Ok(stream)) = accepted else { return tell(Inside::Client) };
    let Some(requests) = connection.requests() else { return tell(Inside::Client) };
    let is_named = stream.get_ref().1.server_name().is_some_and(|name| connection.is_for(name));
    let mut talk = Talk { cell, connection, stream, requests, input: Vec::new(), answering: false };
    let ended = if is_named { talk.run(server).await } else { Err(Inside::Http(HttpError::Host).into()) };
    if let Err(Stop::Refused(why)) = ended {
        tell(why);
        let _gone = talk.refuse(why).await;
    }
    // Where an answer was cut off, it does not end as answers do. What a refused program still says is for nobody, and is read lest
    // it does not read the answer.
    if !talk.answering && talk.stream.shutdown().await.is_ok() {
        let mut rest = vec![0; READ];
        let read = async { while talk.stream.read(&mut rest).await.is_ok_and(|length| length > 0) {} };
        let _long = timeout(LINGER, read).await;
    }
}

/// What is said on one connection.
struct Talk {
    cell: Arc<Cell>,
    connection: Connection,
    stream: TlsStream<UnixStream>,
    requests: Requests,
    /// What the program has said and nobody has read yet.
    input: Vec<u8>,
    /// Whether a part of an answer has gone into the cell, and its end has not.
    answering: bool,
}

/// A request without its body.
struct Head {
    request: Request<()>,
    /// Whether the program waits to be told to go on.
    waits: bool,
    /// Whether it is the last one.
    is_last: bool,
    /// Whether the program knows answers that come in chunks.
    chunks: bool,
}

impl Talk {
    async fn run(&mut self, server: TcpStream) -> Result<(), Stop> {
        let (mut sender, mut closed) = self.connect(server).await.ok_or(Inside::Server)?;
        loop {
            let head = tokio::select! {
                head = self.head() => head?,
                // A server that hangs up between two requests does so to the program.
                _closed = &mut closed => return Ok(()),
            };
            let Some(head) = head else { return Ok(()) };
            let Head { mut request, waits, is_last, chunks } = head;
            let mut usable = self.cell.usable(&self.connection).await;
            let length =
                request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
            let before_body =
                usable.iter().any(Usable::is_in_body) && are_of(request.headers(), "application/json");
            let read = match length.filter(|length| before_body && (1..=DOCUMENT).contains(length)) {
                Some(length) => {
                    let whole = tokio::select! {
                        whole = timeout(AGREE, self.whole_body(length, waits)) => whole.map_err(|_late| Inside::Client)?,
                        _closed = &mut closed => return Ok(()),
                    };
                    // It may be good for something else by now.
                    usable = self.cell.usable(&self.connection).await;
                    Some(whole?)
                }
                None => None,
            };
            let is_read = read.is_some();
            let mut whole = read.unwrap_or_default();
            put_in(&mut request, &mut whole, &usable, &self.cell.finder)?;
            if waits && !is_read {
                self.stream.write_all(CONTINUE).await?;
            }
            let bodiless = request.method() == Method::HEAD;
            let (give, body) = mpsc::channel(2);
            // As long as the answer is read, its request is not broken off.
            let _open = give.clone();
            let length = match is_read {
                true => {
                    request.headers_mut().insert(CONTENT_LENGTH, whole.len().into());
                    Some(whole.len() as u64)
                }
                false if self.requests.is_between() => Some(0),
                false => length.map(|length| length as u64),
            };
            let answer = sender.send_request(request.map(|()| Upload { body, length }));
            let (response, is_whole) = {
                let (mut answer, mut sent) = (
                    pin!(answer),
                    pin!(async {
                        if !is_read {
                            return self.upload(give).await;
                        }
                        for part in [Some(whole), None] {
                            let _unwanted = give.send(part).await;
                        }
                        Ok(())
                    }),
                );
                tokio::select! {
                    response = &mut answer => (response, false),
                    done = &mut sent => {
                        done?;
                        (timeout(IDLE, answer).await.map_err(|_late| Inside::Server)?, true)
                    }
                }
            };
            let response = response.map_err(|_no_answer| Inside::Server)?;
            let is_whole = is_whole && self.requests.is_between();
            self.answer(response, bodiless, chunks, is_last || !is_whole).await?;
            if is_last || !is_whole || sender.ready().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Agrees with the server on TLS, and on HTTP/1.1.
    async fn connect(&self, server: TcpStream) -> Option<(SendRequest<Upload>, tokio::task::JoinHandle<()>)> {
        let believed = self.cell.believed.as_ref().ok()?;
        let mut config = ClientConfig::clone(believed);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let name = TlsName::try_from(self.connection.host.clone()).ok()?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, server);
        let stream = timeout(AGREE, connecting).await.ok()?.ok()?;
        let (sender, connection) =
            http1::Builder::new().max_buf_size(512 << 10).handshake(TokioIo::new(stream)).await.ok()?;
        Some((sender, tokio::spawn(async move { drop(connection.await) })))
    }

    /// Reads more of the program; 0 at its end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.input.reserve(READ);
        match self.stream.read_buf(&mut self.input).await {
            // Many hang up without saying so in TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }

    /// The next request; `None` where there is none.
    async fn head(&mut self) -> Result<Option<Head>, Stop> {
        loop {
            if !self.input.is_empty() {
                match self.requests.step(&self.input).map_err(Inside::Http)? {
                    Step::Instead(length, written) => {
                        self.input.drain(..length);
                        let port = self.connection.port;
                        let head = head(&written, &self.connection.host, port);
                        return Ok(Some(head.ok_or(Inside::Http(HttpError::Malformed))?));
                    }
                    Step::More => {}
                    Step::Pass(_) => return Err(Inside::Http(HttpError::Malformed).into()),
                }
            }
            if self.fill().await? == 0 {
                let is_cut = !self.input.is_empty();
                return if is_cut { Err(Inside::Http(HttpError::Malformed).into()) } else { Ok(None) };
            }
        }
    }

    /// The body of a request, before it is passed on: something in it may be replaced.
    async fn whole_body(&mut self, length: usize, waits: bool) -> Result<Bytes, Stop> {
        if waits {
            self.stream.write_all(CONTINUE).await?;
        }
        while self.input.len() < length {
            if self.fill().await? == 0 {
                return Err(Stop::Gone);
            }
        }
        self.requests.passed(length as u64);
        Ok(self.input.drain(..length).collect::<Vec<_>>().into())
    }

    /// Passes the body of a request on, unless there is a placeholder in it, or nobody wants more of it.
    async fn upload(&mut self, give: mpsc::Sender<Part>) -> Result<(), Stop> {
        let mut tail = Vec::new();
        while !self.requests.is_between() {
            if let Some(unread) = self.requests.unread() {
                if self.input.is_empty() && self.fill().await? == 0 {
                    return Err(Stop::Gone);
                }
                let length = self.input.len().min(READ).min(usize::try_from(unread).unwrap_or(usize::MAX));
                let data: Vec<u8> = self.input.drain(..length).collect();
                self.requests.passed(length as u64);
                tail.extend_from_slice(&data);
                if self.cell.finder.finds(&tail) {
                    return Err(Inside::Marked.into());
                }
                tail.drain(..tail.len().saturating_sub(TAIL));
                if give.send(Some(data.into())).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let most = self.requests.looks_at().min(self.input.len());
            match self.requests.step(self.input.get(..most).unwrap_or_default()).map_err(Inside::Http)? {
                Step::Instead(length, _) => drop(self.input.drain(..length)),
                Step::Pass(_) => {}
                Step::More if self.fill().await? == 0 => return Err(Stop::Gone),
                Step::More => {}
            }
        }
        let _unwanted = give.send(None).await;
        Ok(())
    }

    /// Passes an answer on, cleaned.
    async fn answer(
        &mut self,
        response: Response<Incoming>,
        bodiless: bool,
        chunks: bool,
        is_last: bool,
    ) -> Result<(), Stop> {
        let scrubber = self.cell.scrubber();
        let events = is(&response, "text/event-stream");
        let json = is(&response, "application/json");
        let (mut head, body) = response.into_parts();
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if is_packed(&head.headers) || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Inside::Withheld.into());
        }
        clean_headers(&mut head.headers, &scrubber).map_err(|_why| Inside::Withheld)?;
        let is_empty = bodiless
            || head.status.is_informational()
            || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
        let begin = |framing: &str| begin(head.status, &head.headers, framing, is_last);
        if is_empty {
            self.stream.write_all(&begin("")).await?;
            return Ok(self.stream.flush().await?);
        }
        let short = |length: usize| json && length <= DOCUMENT;
        if length.is_some_and(short) {
            let body = timeout(IDLE, Limited::new(body, DOCUMENT).collect()).await;
            let body = body.map_err(|_late| Inside::Server)?.map_err(|_cut| Inside::Server)?.to_bytes();
            let cleaned = clean::message(&scrubber, &body).map_err(|_why| Inside::Withheld)?;
            let mut all = begin(&format!("Content-Length: {}\r\n", cleaned.len()));
            all.extend(cleaned);
            self.stream.write_all(&all).await?;
            return Ok(self.stream.flush().await?);
        }
        self.answering = true;
        let framing = if chunks { "Transfer-Encoding: chunked\r\n" } else { "Connection: close\r\n" };
        self.stream.write_all(&begin(framing)).await?;
        let removed = if events {
            let mut cleaned = scrubber.events();
            let pushed = self.stream_through(body, chunks, |bytes, out| cleaned.push(bytes, out)).await;
            let mut out = Vec::new();
            pushed?;
            let removed = cleaned.finish(&mut out).map_err(|_why| Inside::Withheld)?;
            self.give(&out, chunks).await?;
            removed
        } else {
            let mut cleaned = scrubber.stream();
            let pushed = self.stream_through(body, chunks, |bytes, out| cleaned.push(bytes, out)).await;
            let mut out = Vec::new();
            pushed?;
            let removed = cleaned.finish(&mut out).map_err(|_why| Inside::Withheld)?;
            self.give(&out, chunks).await?;
            removed
        };
        // What could not be looked into is left out: such an answer does not end as a whole one does.
        if is_opaque(&removed) {
            return Err(Inside::Withheld.into());
        }
        if chunks {
            self.stream.write_all(b"0\r\n\r\n").await?;
        }
        self.stream.flush().await?;
        self.answering = false;
        Ok(())
    }

    /// Passes what comes on as it is cleaned.
    async fn stream_through(
        &mut self,
        mut body: Incoming,
        chunks: bool,
        mut clean: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), toolgate_core::scrub::Withheld>,
    ) -> Result<(), Stop> {
        let mut out = Vec::new();
        while let Some(frame) = timeout(IDLE, body.frame()).await.map_err(|_late| Inside::Server)? {
            let frame = frame.map_err(|_cut| Inside::Server)?;
            // What comes after the body, in trailers, is for nobody.
            let Ok(data) = frame.into_data() else { continue };
            clean(&data, &mut out).map_err(|_why| Inside::Withheld)?;
            self.give(&out, chunks).await?;
            out.clear();
        }
        Ok(())
    }

    /// Gives a part of an answer to the program.
    async fn give(&mut self, bytes: &[u8], chunks: bool) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if chunks {
            let size = format!("{:x}\r\n", bytes.len());
            self.stream.write_all(&[size.as_bytes(), bytes, b"\r\n"].concat()).await?;
        } else {
            self.stream.write_all(bytes).await?;
        }
        self.stream.flush().await
    }

    /// Tells the program what is refused, if it can still be told.
    async fn refuse(&mut self, why: Inside) -> io::Result<()> {
        if self.answering {
            return Ok(());
        }
        let status = match why {
            Inside::Http(HttpError::Host) => StatusCode::MISDIRECTED_REQUEST,
            Inside::Http(HttpError::Long) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Inside::Http(HttpError::Malformed) => StatusCode::BAD_REQUEST,
            Inside::Http(HttpError::Upgrade) => StatusCode::NOT_IMPLEMENTED,
            Inside::Http(HttpError::Request) | Inside::Marked => StatusCode::FORBIDDEN,
            Inside::Client | Inside::Secret | Inside::Server | Inside::Withheld => StatusCode::BAD_GATEWAY,
        };
        let text = format!("toolgate: {why}\n");
        let kind = [("content-type", "text/plain; charset=utf-8")];
        let headers: HeaderMap =
            kind.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
        let mut all = begin(status, &headers, &format!("Content-Length: {}\r\n", text.len()), true);
        all.extend(text.bytes());
        self.stream.write_all(&all).await?;
        self.stream.flush().await
    }
}

fn is_opaque(removed: &Removed) -> bool {
    removed.keys().any(|kind| matches!(kind, Kind::Opaque(_)))
}

/// The head of an answer.
fn begin(status: StatusCode, headers: &HeaderMap, framing: &str, is_last: bool) -> Vec<u8> {
    let words = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {words}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(framing.as_bytes());
    if is_last && !framing.starts_with("Connection") {
        head.extend_from_slice(b"Connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Reads the head of a request as it was written anew; it has one form.
fn head(written: &[u8], host: &str, port: u16) -> Option<Head> {
    let text = written.strip_suffix(b"\r\n\r\n")?;
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut first = std::str::from_utf8(lines.next()?).ok()?.split(' ');
    let (method, target, version) = (first.next()?, first.next()?, first.next()?);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = Uri::from(PathAndQuery::try_from(target).ok()?);
    let (mut waits, mut is_last) = (false, version == "HTTP/1.0");
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..)?.trim_ascii();
        match HeaderName::from_bytes(name).ok()?.as_str() {
            "connection" => is_last |= value.eq_ignore_ascii_case(b"close"),
            "expect" if value.eq_ignore_ascii_case(b"100-continue") => waits = true,
            "expect" => return None,
            // Written anew.
            "host" | "transfer-encoding" => {}
            name => {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                request.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
    }
    let host = if port == 443 { host.to_owned() } else { format!("{host}:{port}") };
    request.headers_mut().insert(HOST, HeaderValue::try_from(host).ok()?);
    // What is packed, or comes in pieces, cannot be looked through.
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for piecemeal in [RANGE, IF_RANGE] {
        request.headers_mut().remove(piecemeal);
    }
    Some(Head { request, waits, is_last, chunks: version == "HTTP/1.1" })
}

/// A part of the body of a request; `None` is its end, which is not there if it was broken off.
type Part = Option<Bytes>;

/// The body of a request on its way.
struct Upload {
    body: mpsc::Receiver<Part>,
    length: Option<u64>,
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.length == Some(0) {
            return Poll::Ready(None);
        }
        self.body.poll_recv(context).map(|next| match next {
            Some(Some(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(None) => None,
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}
