//! Carrying HTTP to a server: with the credentials that are for it, and what it answers without them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use toolgate_core::json::{Canonical, Document};
use toolgate_core::scrub::Scrubber;

use super::attach::{AttachError, attach, permitted};
use super::clean::{self, Held};
use super::process::Proxy;
use super::{Ask, Destination};
use crate::upstream::{HttpClient, HttpServer, SendFailure, is, own_roots, system_roots};

/// How long connecting to a server may take.
pub(super) const CONNECT: Duration = Duration::from_secs(30);

/// Says that nothing was sent to the server. No answer of a server has this header: it is taken out.
pub(crate) const NOT_SENT: HeaderName = HeaderName::from_static("toolgate-not-sent");

/// How many events may wait for a reader.
const WAITING: usize = 4;

/// What the system believes, once somebody needs it.
#[derive(Default)]
pub(crate) struct Roots(Mutex<Option<Arc<ClientConfig>>>);

impl Roots {
    pub(crate) fn get(&self) -> Result<Arc<ClientConfig>, String> {
        let mut roots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(roots) = &*roots {
            return Ok(Arc::clone(roots));
        }
        Ok(Arc::clone(roots.insert(system_roots()?)))
    }
}

type Body = BoxBody<Bytes, String>;

/// One connection of the gate's, to one server.
struct Carried {
    ask: Ask,
    destination: Destination,
    client: Result<Arc<HttpClient>, String>,
    proxy: Proxy,
}

/// Serves one connection of the gate's until it is closed.
pub(super) async fn serve(
    stream: UnixStream,
    ask: Ask,
    destination: Destination,
    certificates: Option<Vec<u8>>,
    proxy: Proxy,
) {
    let Destination { tls, host, port } = &destination;
    let client = match (tls, certificates) {
        (false, _) => Ok(None),
        (true, Some(pem)) => own_roots(&pem).map(Some),
        (true, None) => proxy.roots.get().map(Some),
    };
    let client = client.map(|roots| {
        let server = HttpServer::carried(*tls, host, *port);
        Arc::new(HttpClient::new(server, roots, CONNECT))
    });
    let carried = Arc::new(Carried { ask, destination, client, proxy });
    let service = service_fn(move |request| {
        let carried = Arc::clone(&carried);
        async move {
            Ok::<_, Infallible>(carried.carry(request).await.unwrap_or_else(|why| carried.refused(&why)))
        }
    });
    // When the gate hangs up, what is under way is dropped.
    let _closed =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

impl Carried {
    /// What went wrong here and not at the server; a certificate may say anything.
    fn refused(&self, failure: &SendFailure) -> Response<Body> {
        let why = failure.why();
        let scrubber = self.proxy.held.now().scrubber(&self.ask.session);
        let why = scrubber.scrub_text(why.as_bytes()).map_or_else(|_| b"withheld".to_vec(), |why| why.bytes);
        let mut response = Response::new(whole([b"toolgate: ", why.as_slice()].concat()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if matches!(failure, SendFailure::NotSent(_)) {
            response.headers_mut().insert(NOT_SENT, HeaderValue::from_static("?1"));
        }
        response
    }

    async fn carry(&self, request: Request<Incoming>) -> Result<Response<Body>, SendFailure> {
        let not_sent = |why: String| SendFailure::NotSent(why);
        let (head, body) = request.into_parts();
        let most = self.ask.max_message_bytes;
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| not_sent(error.to_string()))?.to_bytes();
        let (mut request, mut body) = (Request::from_parts(head, ()), body);
        hop_by_hop(request.headers_mut());
        // What is packed cannot be looked through.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.attach(&mut request, &mut body).await.map_err(|error| not_sent(error.to_string()))?;
        let request = request.map(|()| Full::new(body));
        let client = self.client.as_ref().map_err(|why| not_sent(why.clone()))?;
        let (response, leased) = Arc::clone(client).send(request).await?;
        let lost = |why: String| SendFailure::Lost(why);
        let scrubber = self.proxy.held.now().scrubber(&self.ask.session);
        let events = is(&response, "text/event-stream");
        let (mut head, body) = response.into_parts();
        clean_headers(&mut head.headers, &scrubber).map_err(|error| lost(error.to_string()))?;
        // The words behind the status are the server's too.
        head.extensions.clear();
        if is_packed(&head.headers) {
            return Err(lost("the server's answer is packed, and cannot be looked through".to_owned()));
        }
        if events {
            let (tell, told) = mpsc::channel(WAITING);
            tokio::spawn(cleaned_events(body, tell, Arc::clone(&self.proxy.held), self.ask.clone()));
            return Ok(Response::from_parts(head, Events(told).boxed()));
        }
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| lost(error.to_string()))?.to_bytes();
        leased.back();
        // What was minted while it came is taken out of it too.
        let scrubber = self.proxy.held.now().scrubber(&self.ask.session);
        let cleaned = clean::message(&scrubber, &body).map_err(|error| lost(error.to_string()))?;
        Ok(Response::from_parts(head, whole(cleaned)))
    }

    /// All credentials of the server, or none and no request. What is minted is for what the gate's message says: it wrote it.
    async fn attach(&self, request: &mut Request<()>, body: &mut Bytes) -> Result<(), AttachError> {
        let Destination { tls: _, host, port } = &self.destination;
        let held = self.proxy.held.now();
        let minted = |name: &String| held.value(name).is_some_and(|value| value.uses.mint.is_some());
        let message = match self.ask.secrets.iter().any(minted) {
            // What cannot be read is not taken for no call.
            true if !body.is_empty() => {
                let read = Document::parse(body.to_vec(), &clean::limits(body.len()));
                Some(read.map_err(|_json| AttachError::Lease("the message cannot be read".to_owned()))?)
            }
            true | false => None,
        };
        let root = message.as_ref().map(Document::root);
        let call =
            root.filter(|root| root.get("method").and_then(|method| method.as_str()) == Some("tools/call"));
        let nothing = Canonical::empty_object();
        let arguments = call.map(|call| call.path(&["params", "arguments"]).unwrap_or(nothing.root()));
        let mut credentials = Vec::with_capacity(self.ask.secrets.len());
        for name in &self.ask.secrets {
            let value = held.value(name).ok_or_else(|| AttachError::None(name.clone()))?;
            permitted(value, &self.ask.server, host, *port)?;
            let credential = self.proxy.credential(name, &self.ask, arguments).await?;
            // It may be good for something else by now.
            permitted(&credential.value, &self.ask.server, host, *port)?;
            credentials.push(credential);
        }
        attach(request, body, &credentials)
    }
}

/// What is about one connection and not about the message. The server's cookies are for nobody.
fn hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    let always = [CONNECTION, CONTENT_LENGTH, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    for name in named.iter().chain(&always).chain([&HeaderName::from_static("keep-alive")]) {
        headers.remove(name);
    }
}

/// Whether what these headers are about is packed, and cannot be looked through.
pub(super) fn is_packed(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity")
}

/// Headers of an answer, each value cleaned. One whose *name* is a value of the vault is left out.
pub(super) fn clean_headers(
    headers: &mut HeaderMap,
    scrubber: &Scrubber,
) -> Result<(), toolgate_core::scrub::Withheld> {
    hop_by_hop(headers);
    headers.remove(NOT_SENT);
    let mut all = HeaderMap::with_capacity(headers.len());
    for (name, value) in &*headers {
        if !scrubber.scrub_text(name.as_str().as_bytes())?.removed.is_empty() {
            continue;
        }
        let cleaned = scrubber.scrub_text(value.as_bytes())?;
        let value = if cleaned.removed.is_empty() {
            Some(value.clone())
        } else {
            HeaderValue::from_bytes(&cleaned.bytes).ok()
        };
        if let Some(value) = value {
            all.append(name.clone(), value);
        }
    }
    *headers = all;
    Ok(())
}

/// Events as they are passed on.
struct Events(mpsc::Receiver<Result<Bytes, String>>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        self.0.poll_recv(context).map(|next| next.map(|bytes| bytes.map(Frame::data)))
    }
}

/// Reads events, and tells each of them whole and cleaned. A stream that cannot be looked through is cut off.
async fn cleaned_events(
    mut body: Incoming,
    tell: mpsc::Sender<Result<Bytes, String>>,
    held: Arc<Held>,
    ask: Ask,
) {
    let mut pending = Pending::default();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = tell.closed() => return,
        };
        let (whole, ended) = match frame {
            Some(Ok(frame)) => (pending.add(&frame.into_data().unwrap_or_default()), None),
            // What came before it broke is passed on as far as it is whole.
            Some(Err(error)) => (Vec::new(), Some(Err(error.to_string()))),
            None => (pending.rest(), Some(Ok(()))),
        };
        if !whole.is_empty() {
            let scrubber = held.now().scrubber(&ask.session);
            let cleaned = events(&scrubber, &whole).map(Bytes::from).map_err(|why| why.to_string());
            let withheld = cleaned.is_err();
            if tell.send(cleaned).await.is_err() || withheld {
                return;
            }
        }
        let ended = match ended {
            None if pending.bytes.len() > ask.max_message_bytes => {
                Some(Err("an event is too long".to_owned()))
            }
            ended => ended,
        };
        match ended {
            None => {}
            Some(Ok(())) => return,
            Some(Err(why)) => {
                let _gone = tell.send(Err(why)).await;
                return;
            }
        }
    }
}

/// What came of an event that is not whole yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// How far it was looked through.
    seen: usize,
    /// Whether nothing has come since the last end of a line.
    empty: bool,
}

impl Pending {
    /// Adds what came, and takes out what is whole: up to an empty line. Lines end with CR, LF or both.
    fn add(&mut self, more: &[u8]) -> Vec<u8> {
        self.bytes.extend_from_slice(more);
        let mut end = 0;
        while let Some(byte) = self.bytes.get(self.seen) {
            let next = self.bytes.get(self.seen + 1);
            match byte {
                // What follows it may be its LF.
                b'\r' if next.is_none() => break,
                b'\n' | b'\r' => {
                    self.seen += if *byte == b'\r' && next == Some(&b'\n') { 2 } else { 1 };
                    if self.empty {
                        end = self.seen;
                    }
                    self.empty = true;
                }
                _ => {
                    self.empty = false;
                    self.seen += 1;
                }
            }
        }
        let rest = self.bytes.split_off(end);
        self.seen -= end;
        std::mem::replace(&mut self.bytes, rest)
    }

    fn rest(&mut self) -> Vec<u8> {
        self.seen = 0;
        std::mem::take(&mut self.bytes)
    }
}

/// Whole events, cleaned: what an event says in its lines of data is one message.
fn events(scrubber: &Scrubber, bytes: &[u8]) -> Result<Vec<u8>, toolgate_core::scrub::Withheld> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut data: Option<Vec<u8>> = None;
    let flush = |data: &mut Option<Vec<u8>>, out: &mut Vec<u8>| {
        if let Some(data) = data.take() {
            let cleaned = clean::message(scrubber, &data)?;
            for line in cleaned.split(|b| *b == b'\n') {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(line);
                out.push(b'\n');
            }
        }
        Ok(())
    };
    for line in lines(bytes) {
        let content = line.strip_prefix(b"data:").map(|rest| rest.strip_prefix(b" ").unwrap_or(rest));
        match content {
            Some(content) => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(content);
                }
                None => data = Some(content.to_vec()),
            },
            None if line.is_empty() => {
                flush(&mut data, &mut out)?;
                out.push(b'\n');
            }
            None => {
                out.extend_from_slice(&scrubber.scrub_text(line)?.bytes);
                out.push(b'\n');
            }
        }
    }
    flush(&mut data, &mut out)?;
    Ok(out)
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
        let (line, tail) = rest.split_at(end);
        rest = tail.strip_prefix(b"\r\n").or_else(|| tail.get(1..)).unwrap_or_default();
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use toolgate_core::scrub::known::{Known, KnownValue};

    use super::*;

    const VALUE: &[u8] = b"Xq7vN2-0e5bW9aK-Lr31";

    static SCRUBBER: LazyLock<Scrubber> = LazyLock::new(|| {
        let (known, _) = Known::new(&[KnownValue { id: 0, value: VALUE, names: &[] }]);
        Scrubber::new(vec![Arc::new(known)], Arc::new(|_, _: &[u8]| "<gone>".to_owned()))
    });

    /// What is passed on of a stream that comes in these parts.
    fn passed(parts: &[&[u8]]) -> String {
        let (mut pending, mut out) = (Pending::default(), Vec::new());
        for part in parts {
            out.extend(events(&SCRUBBER, &pending.add(part)).unwrap());
        }
        out.extend(events(&SCRUBBER, &pending.rest()).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_are_cleaned_as_a_whole_wherever_they_are_cut() {
        let value = String::from_utf8_lossy(VALUE);
        let (half, rest) = value.split_at(9);
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!(
                ": {value}\n\nid: 7\nevent: message\ndata: {{\"a\":\"{value}\"}}\n\ndata: {half}\ndata: {rest}\n\ndata:x\n\n"
            )
            .replace('\n', end);
            let whole = passed(&[stream.as_bytes()]);
            assert!(!whole.contains(&*value) && !whole.contains(rest), "{whole:?}");
            assert!(whole.contains("id: 7\nevent: message\ndata: {\"a\":\"<gone>\"}\n\n"), "{whole:?}");
            assert!(whole.ends_with("data: x\n\n"), "{whole:?}");
            for at in 0..=stream.len() {
                let (head, tail) = stream.as_bytes().split_at(at);
                assert_eq!(passed(&[head, tail]), whole, "cut at {at} with {end:?}");
            }
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(passed(&bytes), whole, "byte by byte");
        }
    }

    #[test]
    fn what_is_about_the_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("toolgate-not-sent", "?1"),
            ("transfer-encoding", "chunked"),
            ("mcp-session-id", "s-1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append("location", HeaderValue::from_bytes(&[b"/?k=", VALUE].concat()).unwrap());
        clean_headers(&mut headers, &SCRUBBER).unwrap();
        let left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(left, [("mcp-session-id", "s-1"), ("location", "/?k=<gone>")]);
    }
}
