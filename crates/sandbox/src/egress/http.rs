//! Requests of HTTP/1 on their way out: which they are is decided before a byte of one leaves, and what leaves is what was decided
//! on, written anew.
//!
//! What servers read in different ways (two lengths, a length and chunks, lines that end in half, a body where none belongs) is
//! refused, so that no request can hide in another one (RFC 9112, sections 6 and 11.2). Paths are compared as they are written;
//! what would be another path after decoding is refused.

use super::name::HostName;
use super::rule::Request;

/// How many bytes the head of a request can have.
pub(super) const LONGEST_HEAD: usize = 16 << 10;
/// How many lines a head can have.
const HEADERS: usize = 100;
/// How long the line before a chunk can be: the digits of its size.
const LONGEST_SIZE: usize = 16;

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum HttpError {
    /// It is for somebody else than was connected to.
    #[error("the request is for another host")]
    Host,
    /// Its head has no end.
    #[error("the head of a request is too long")]
    Long,
    /// It is none, or servers could differ about it.
    #[error("it is not a request of HTTP/1 that can be read in one way only")]
    Malformed,
    /// No rule has this method and path.
    #[error("no rule has this method and path")]
    Request,
    /// It asks for another protocol, where what is said has to be read.
    #[error(
        "another protocol cannot be changed to here (WebSocket, HTTP/2): what is said on it could not be read"
    )]
    Upgrade,
}

/// Whom a program wants, as it tells a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// There is more to come.
    More,
    /// The request itself goes to this host.
    Pass(Option<(HostName, u16)>),
    /// A tunnel to this host; the request for it has so many bytes.
    Tunnel(Option<(HostName, u16)>, usize),
}

/// Reads the first request to a proxy. Where the host is none that can be named, there is `None`.
pub(super) fn asked(bytes: &[u8]) -> Result<Asked, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let Some(head) = Head::read(bytes, &mut headers)? else { return Ok(Asked::More) };
    if head.method == "CONNECT" {
        if !matches!(head.framing()?, Framing::Length(0)) {
            return Err(HttpError::Malformed);
        }
        return Ok(Asked::Tunnel(authority(head.target, None)?, head.length));
    }
    let (host, _) = absolute(head.target).ok_or(HttpError::Malformed)?;
    Ok(Asked::Pass(authority(host, Some(80))?))
}

/// The requests of one connection, as they come and as they leave.
#[derive(Debug)]
pub struct Requests {
    name: HostName,
    port: u16,
    /// Those that are allowed; without, all.
    allowed: Option<Vec<Request>>,
    /// Whether they name the host as to a proxy.
    proxied: bool,
    /// Whether they were inside TLS.
    inside: bool,
    next: Next,
}

/// What comes next in a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// So many bytes of a body.
    Body(u64),
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of a chunk.
    ChunkEnd,
    /// The end of the last chunk.
    End,
    /// The head of a request.
    Head,
    /// The size of a chunk.
    Size,
}

/// What may leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// In place of so many bytes, these.
    Instead(usize, Vec<u8>),
    /// There is more to come.
    More,
    /// So many bytes as they are.
    Pass(u64),
}

impl Requests {
    pub(super) const fn new(name: HostName, port: u16, allowed: Option<Vec<Request>>, proxied: bool) -> Self {
        Self { name, port, allowed, proxied, inside: false, next: Next::Head }
    }

    /// Those of a connection that was [taken](super::Intercept), of which these are allowed: to one host, with nothing but HTTP/1.
    /// What is no kind of request allows none.
    #[must_use]
    pub fn inside(name: HostName, port: u16, allowed: Option<&[String]>) -> Self {
        let read = |all: &[String]| all.iter().filter_map(|text| super::rule::request(text)).collect();
        Self { inside: true, ..Self::new(name, port, allowed.map(read), false) }
    }

    /// Whether the next thing is another request.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        matches!(self.next, Next::Head)
    }

    /// How many bytes may leave without being looked at.
    #[must_use]
    pub const fn unread(&self) -> Option<u64> {
        match self.next {
            Next::Body(left) | Next::Chunk(left) => Some(left),
            Next::ChunkEnd | Next::End | Next::Head | Next::Size => None,
        }
    }

    /// How many bytes are enough to tell what comes next.
    #[must_use]
    pub const fn looks_at(&self) -> usize {
        match self.next {
            Next::Head => usize::MAX,
            Next::Body(_) | Next::Chunk(_) | Next::ChunkEnd | Next::End | Next::Size => LONGEST_SIZE + 2,
        }
    }

    /// So many bytes have left as they are.
    pub const fn passed(&mut self, length: u64) {
        self.next = match self.next {
            Next::Body(left) if left <= length => Next::Head,
            Next::Body(left) => Next::Body(left - length),
            Next::Chunk(left) if left <= length => Next::ChunkEnd,
            Next::Chunk(left) => Next::Chunk(left - length),
            other => other,
        };
    }

    /// Looks at the bytes that come next.
    ///
    /// # Errors
    /// It is not passed on, and nothing that follows it.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, HttpError> {
        let (after, end) = match self.next {
            Next::Body(left) | Next::Chunk(left) => return Ok(Step::Pass(left)),
            Next::Head => return self.head(bytes),
            Next::Size => return self.size(bytes),
            Next::ChunkEnd => (Next::Size, b"\r\n"),
            Next::End => (Next::Head, b"\r\n"),
        };
        match bytes.split_at_checked(end.len()) {
            Some((found, _)) if found == end => {
                self.next = after;
                Ok(Step::Instead(end.len(), end.to_vec()))
            }
            None if end.starts_with(bytes) => Ok(Step::More),
            Some(_) | None => Err(HttpError::Malformed),
        }
    }

    fn size(&mut self, bytes: &[u8]) -> Result<Step, HttpError> {
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (Some(size), true) = (bytes.get(..digits), digits <= LONGEST_SIZE) else {
            return Err(HttpError::Malformed);
        };
        match bytes.get(digits..) {
            None | Some([] | [b'\r']) => return Ok(Step::More),
            Some([b'\r', b'\n', ..]) if digits > 0 => {}
            Some(_) => return Err(HttpError::Malformed),
        }
        let text = std::str::from_utf8(size).map_err(|_not_digits| HttpError::Malformed)?;
        let size = u64::from_str_radix(text, 16).map_err(|_too_large| HttpError::Malformed)?;
        self.next = if size == 0 { Next::End } else { Next::Chunk(size) };
        Ok(Step::Instead(digits + 2, format!("{size:x}\r\n").into_bytes()))
    }

    fn head(&mut self, bytes: &[u8]) -> Result<Step, HttpError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let Some(head) = Head::read(bytes, &mut headers)? else { return Ok(Step::More) };
        let target = if self.proxied {
            let (host, target) = absolute(head.target).ok_or(HttpError::Malformed)?;
            self.is_for(host, Some(80))?;
            target
        } else {
            head.target
        };
        let mut hosts = head.values("host");
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => self.is_for(text(host)?, Some(self.port))?,
            _ => return Err(HttpError::Malformed),
        }
        self.may(head.method, target)?;
        if self.inside && head.values("upgrade").next().is_some() {
            return Err(HttpError::Upgrade);
        }
        if self.allowed.is_some() && !head.is_plain() {
            return Err(HttpError::Malformed);
        }
        let framing = head.framing()?;
        self.next = match framing {
            Framing::Length(0) => Next::Head,
            // Some servers take the body of these for the next request.
            _ if is_one_of(head.method, &["GET", "HEAD"]) => return Err(HttpError::Malformed),
            Framing::Length(length) => Next::Body(length),
            Framing::Chunked => Next::Size,
        };
        // Nor is the body of another one taken for the next request, where there is none.
        let is_last = self.allowed.is_some() && framing != Framing::Length(0);
        Ok(Step::Instead(head.length, self.written(&head, target, is_last)))
    }

    /// Whether a text is the host that was connected to.
    fn is_for(&self, host: &str, port: Option<u16>) -> Result<(), HttpError> {
        match authority(host, port)? {
            Some((name, port)) if name == self.name && port == self.port => Ok(()),
            Some(_) | None => Err(HttpError::Host),
        }
    }

    fn may(&self, method: &str, target: &str) -> Result<(), HttpError> {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let plain = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !plain || !path.starts_with('/') || is_one_of(method, &["CONNECT", "TRACE"]) {
            return Err(HttpError::Malformed);
        }
        let Some(allowed) = &self.allowed else { return Ok(()) };
        match allowed.iter().any(|request| request.covers(method, path)) {
            true => Ok(()),
            false => Err(HttpError::Request),
        }
    }

    /// The head as it leaves: what is between the program and its proxy only, stays here (RFC 9110, section 7.6.1).
    fn written(&self, head: &Head<'_, '_>, target: &str, is_last: bool) -> Vec<u8> {
        let Self { name, port, .. } = self;
        let host = if *port == 80 { name.to_string() } else { format!("{name}:{port}") };
        let first = format!("{} {target} HTTP/1.{}\r\nHost: {host}\r\n", head.method, head.version);
        let mut written = first.into_bytes();
        for header in head.headers {
            if !is_one_of(header.name, HERE) {
                let is_coding = is_one_of(header.name, &["transfer-encoding"]);
                let value = if is_coding { b"chunked" } else { header.value };
                for part in [header.name.as_bytes(), b": ", value, b"\r\n"] {
                    written.extend_from_slice(part);
                }
            }
        }
        let closes = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"close");
        if is_last || head.values("connection").any(closes) {
            written.extend_from_slice(b"Connection: close\r\n");
        }
        written.extend_from_slice(b"\r\n");
        written
    }
}

/// What is not passed on: it is for the next one only, or is written anew.
const HERE: &[&str] = &[
    "connection",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// What makes another request of a request, for those who go by it.
const INSTEAD: &[&str] = &[
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// The head of a request.
struct Head<'b, 'h> {
    method: &'b str,
    target: &'b str,
    version: u8,
    headers: &'h [httparse::Header<'b>],
    /// How many bytes it has.
    length: usize,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Chunked,
    Length(u64),
}

impl<'b, 'h> Head<'b, 'h> {
    /// Reads a head; `None` where there is more of it to come.
    fn read(
        bytes: &'b [u8],
        headers: &'h mut [httparse::Header<'b>; HEADERS],
    ) -> Result<Option<Self>, HttpError> {
        let mut request = httparse::Request::new(headers);
        let parsed = request.parse(bytes).map_err(|_error| HttpError::Malformed)?;
        let httparse::Status::Complete(length) = parsed else {
            return if bytes.len() < LONGEST_HEAD { Ok(None) } else { Err(HttpError::Long) };
        };
        if length > LONGEST_HEAD {
            return Err(HttpError::Long);
        }
        // The parser takes lines that end in a line feed alone.
        let head = bytes.get(..length).unwrap_or_default();
        let mut before = 0;
        for byte in head {
            if (*byte == b'\n') != (before == b'\r') {
                return Err(HttpError::Malformed);
            }
            before = *byte;
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
        else {
            return Err(HttpError::Malformed);
        };
        Ok(Some(Self { method, target, version, headers: request.headers, length }))
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &'b [u8]> {
        let named = self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    }

    /// Whether it is what its first line says, to everybody. Some take `_` for `-`.
    fn is_plain(&self) -> bool {
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        self.headers.iter().all(|header| plain(header.name) && !is_one_of(header.name, INSTEAD))
    }

    fn framing(&self) -> Result<Framing, HttpError> {
        let mut lengths = self.values("content-length");
        let mut codings = self.values("transfer-encoding");
        match ((lengths.next(), lengths.next()), (codings.next(), codings.next())) {
            ((None, _), (None, _)) => Ok(Framing::Length(0)),
            ((Some(length), None), (None, _)) => {
                let text = text(length)?;
                let digits = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
                // To some, what begins with a zero is octal.
                let digits = digits && (text == "0" || !text.starts_with('0'));
                let length = text.parse().ok().filter(|_| digits);
                length.map(Framing::Length).ok_or(HttpError::Malformed)
            }
            ((None, _), (Some(coding), None))
                if self.version == 1 && coding.eq_ignore_ascii_case(b"chunked") =>
            {
                Ok(Framing::Chunked)
            }
            _ => Err(HttpError::Malformed),
        }
    }
}

/// The host and the rest of `http://HOST/REST`.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_at_checked("http://".len())?;
    let end = rest.find('/')?;
    scheme.eq_ignore_ascii_case("http://").then(|| rest.split_at(end))
}

/// Name and port; without a name that can be one, `None`.
fn authority(text: &str, default: Option<u16>) -> Result<Option<(HostName, u16)>, HttpError> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            (name, port.parse().ok().filter(|port| digits && *port != 0))
        }
        None => (text, default),
    };
    let port = port.ok_or(HttpError::Malformed)?;
    Ok(name.parse().ok().map(|name| (name, port)))
}

fn text(bytes: &[u8]) -> Result<&str, HttpError> {
    std::str::from_utf8(bytes).map_err(|_not_text| HttpError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests(allowed: &[&str]) -> Requests {
        let rule = ["a.example:8080"].iter().chain(allowed).copied().collect::<Vec<_>>().join(",");
        let rules: Vec<super::super::Rule> = vec![rule.parse().unwrap()];
        let name: HostName = "a.example".parse().unwrap();
        let terms = super::super::rule::allow(&rules, &name, 8080).unwrap();
        Requests::new(name, 8080, terms.public.requests, false)
    }

    /// What leaves of these bytes, given in pieces of this size.
    fn leaves(requests: &mut Requests, bytes: &[u8], piece: usize) -> Result<Vec<u8>, HttpError> {
        let (mut left, mut out) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            left.extend_from_slice(piece);
            while !left.is_empty() {
                match requests.step(&left)? {
                    Step::More => break,
                    Step::Pass(length) => {
                        let length = usize::try_from(length).unwrap().min(left.len());
                        out.extend(left.drain(..length));
                        requests.passed(length as u64);
                    }
                    Step::Instead(length, written) => {
                        left.drain(..length);
                        out.extend(written);
                    }
                }
            }
        }
        Ok(out)
    }

    fn get(target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: a.example:8080\r\n\r\n")
    }

    #[test]
    fn what_is_allowed_leaves_as_it_was_decided_on() {
        let sent = "GET /v1/x?y=/../z HTTP/1.1\r\nhost: A.Example:8080\r\nAccept: */*\r\nConnection: close, upgrade\r\n\
            connection: close\r\nUpgrade: h2c\r\nProxy-Authorization: secret\r\n\r\n\
            POST /v1 HTTP/1.1\r\nHost: a.example:8080\r\nContent-Length: 5\r\n\r\nhello\
            PUT /v1/ HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: Chunked\r\n\r\n005\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n\
            DELETE /v1/x HTTP/1.0\r\nHost: a.example:8080\r\n\r\n";
        let left = "GET /v1/x?y=/../z HTTP/1.1\r\nHost: a.example:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n\
            POST /v1 HTTP/1.1\r\nHost: a.example:8080\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello\
            PUT /v1/ HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n\
            DELETE /v1/x HTTP/1.0\r\nHost: a.example:8080\r\n\r\n";
        for piece in [1, 7, sent.len()] {
            let out = leaves(&mut requests(&["ANY=/v1"]), sent.as_bytes(), piece).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), left, "in pieces of {piece}");
        }
    }

    #[test]
    fn method_and_path_have_to_be_in_a_rule() {
        use HttpError::{Malformed, Request};
        for (allowed, sent, want) in [
            (&["GET=/v1"][..], get("/v1"), Ok(())),
            (&["GET=/v1"], get("/v1/x"), Ok(())),
            (&["GET=/v1"], get("/v1?x"), Ok(())),
            (&["GET=/v1"], get("/v10"), Err(Request)),
            (&["GET=/v1/"], get("/v1"), Err(Request)),
            (&["GET=/v1"], get("/V1"), Err(Request)),
            (&["GET=/v1"], get("/"), Err(Request)),
            (&["GET=/v1", "ANY=/v2"], get("/v2/x"), Ok(())),
            (&["HEAD=/v1"], get("/v1"), Err(Request)),
            (&["GET=/v1"], get("/v1").replace("GET", "get"), Err(Request)),
            // What could lead elsewhere after it is decoded or put together.
            (&["GET=/v1"], get("/v1/../admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/.."), Err(Request)),
            (&["GET=/v1"], get("/v1/./x"), Err(Request)),
            (&["GET=/v1"], get("/v1/..;/admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/%2e%2E/admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/..%2fadmin"), Err(Request)),
            (&["GET=/v1"], get("/v1/..%5Cadmin"), Err(Request)),
            (&["GET=/v1"], get("/v1/%252e%252e/admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/..\\admin"), Err(Request)),
            (&["GET=/v1"], get("/v1//admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/%C0%AE%C0%AE/admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/%E0%80%AE%E0%80%AE/admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/..%20/admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/..%C2%A0/admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/.../admin"), Err(Request)),
            (&["GET=/v1"], get("/v1/%FF"), Err(Request)),
            (&["GET=/v1"], get("/v1/..x/...y/%20z"), Ok(())),
            (&["GET=/v1"], get("/v1/%00"), Err(Request)),
            (&["GET=/v1"], get("/v1/%zz"), Err(Request)),
            (&["GET=/v1"], get("/v1/%2"), Err(Request)),
            (&["GET=/v1"], get("/v1/b%C3%BCcher%20x"), Ok(())),
            (&["ANY=/"], get("/a//..%2fb"), Ok(())),
            (&["ANY=/"], get("http://a.example:8080/"), Err(Malformed)),
            (&["ANY=/"], get("*"), Err(Malformed)),
            (&["ANY=/"], get("/#x"), Err(Malformed)),
            (
                &["ANY=/"],
                "CONNECT a.example:8080 HTTP/1.1\r\nHost: a.example:8080\r\n\r\n".to_owned(),
                Err(Malformed),
            ),
            (&["ANY=/"], "TRACE / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n".to_owned(), Err(Malformed)),
        ] {
            let got = leaves(&mut requests(allowed), sent.as_bytes(), 5).map(drop);
            assert_eq!(got, want, "{sent:?} by {allowed:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        use HttpError::{Host, Malformed};
        for (lines, want) in [
            ("Host: a.example:8080\n", Malformed),
            ("Host: a.example:8080\r\nX: a\rb\r\n", Malformed),
            ("Host: a.example:8080\r\nX: a\r\n b\r\n", Malformed),
            ("Host: a.example:8080\r\nX : a\r\n", Malformed),
            ("Host: a.example:8080\r\nX: a\0b\r\n", Malformed),
            ("", Malformed),
            ("Host: a.example:8080\r\nHost: a.example:8080\r\n", Malformed),
            ("Host: b.example:8080\r\n", Host),
            ("Host: a.example:80\r\n", Host),
            ("Host: a.example:8080, b.example\r\n", Malformed),
            ("Host: user@a.example:8080\r\n", Host),
            ("Host: a.example:8080:8080\r\n", Host),
            ("Host: 127.0.0.1:8080\r\n", Host),
            ("Host: a.example:8080\r\nContent-Length: 3\r\nContent-Length: 3\r\n", Malformed),
            ("Host: a.example:8080\r\nContent-Length: 3, 3\r\n", Malformed),
            ("Host: a.example:8080\r\nContent-Length: +3\r\n", Malformed),
            ("Host: a.example:8080\r\nContent-Length: 0x3\r\n", Malformed),
            ("Host: a.example:8080\r\nContent-Length: 010\r\n", Malformed),
            ("Host: a.example:8080\r\nContent_Length: 3\r\n", Malformed),
            ("Host: a.example:8080\r\nX-HTTP-Method-Override: DELETE\r\n", Malformed),
            ("Host: a.example:8080\r\nx-original-url: /admin\r\n", Malformed),
            ("Host: a.example:8080\r\nX-Http_Method: DELETE\r\n", Malformed),
            ("Host: a.example:8080\r\nContent-Length: 9999999999999999999\r\n", Malformed),
            ("Host: a.example:8080\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", Malformed),
            (
                "Host: a.example:8080\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Malformed,
            ),
            ("Host: a.example:8080\r\nTransfer-Encoding: gzip, chunked\r\n", Malformed),
            ("Host: a.example:8080\r\nTransfer-Encoding: xchunked\r\n", Malformed),
            ("Host: a.example:8080\r\nTransfer-Encoding: identity\r\n", Malformed),
        ] {
            let sent = format!("POST / HTTP/1.1\r\n{lines}\r\n");
            assert_eq!(leaves(&mut requests(&["ANY=/"]), sent.as_bytes(), 3), Err(want), "{sent:?}");
        }
        for sent in [
            "GET / HTTP/1.1\r\nHost: a.example:8080\r\nContent-Length: 3\r\n\r\n",
            "get / HTTP/1.1\r\nHost: a.example:8080\r\nContent-Length: 3\r\n\r\n",
            "Trace / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
            "HEAD / HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a.example:8080\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00",
            "POST / HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n",
            "POST / HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n",
            "POST / HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n",
            "POST / HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
        ] {
            assert_eq!(leaves(&mut requests(&["ANY=/"]), sent.as_bytes(), 3), Err(Malformed), "{sent:?}");
        }
    }

    #[test]
    fn a_head_has_an_end() {
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(LONGEST_HEAD));
        assert_eq!(leaves(&mut requests(&["ANY=/"]), endless.as_bytes(), 1000), Err(HttpError::Long));
    }

    #[test]
    fn a_proxy_is_told_whom() {
        let host = |name: &str, port| Some((name.parse().unwrap(), port));
        for (sent, want) in [
            (
                "CONNECT a.example:443 HTTP/1.1\r\nHost: b.example\r\n\r\nrest",
                Ok(Asked::Tunnel(host("a.example", 443), 0)),
            ),
            ("CONNECT A.Example.:443 HTTP/1.0\r\n\r\n", Ok(Asked::Tunnel(host("a.example", 443), 0))),
            ("CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", Ok(Asked::Tunnel(None, 0))),
            ("CONNECT user@a.example:443 HTTP/1.1\r\n\r\n", Ok(Asked::Tunnel(None, 0))),
            ("CONNECT a.example HTTP/1.1\r\n\r\n", Err(HttpError::Malformed)),
            ("CONNECT a.example:+443 HTTP/1.1\r\n\r\n", Err(HttpError::Malformed)),
            ("CONNECT a.example:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n", Err(HttpError::Malformed)),
            ("GET http://a.example/x HTTP/1.1\r\n\r\n", Ok(Asked::Pass(host("a.example", 80)))),
            ("GET HTTP://a.example:81/ HTTP/1.1\r\n\r\n", Ok(Asked::Pass(host("a.example", 81)))),
            ("GET http://[::1]:81/ HTTP/1.1\r\n\r\n", Ok(Asked::Pass(None))),
            ("GET http://evil@a.example/ HTTP/1.1\r\n\r\n", Ok(Asked::Pass(None))),
            ("GET https://a.example/ HTTP/1.1\r\n\r\n", Err(HttpError::Malformed)),
            ("GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", Err(HttpError::Malformed)),
            ("GET http://a.exam", Ok(Asked::More)),
        ] {
            let head = sent.find("\r\n\r\n").map_or(0, |end| end + 4);
            let want = match want {
                Ok(Asked::Tunnel(host, _)) => Ok(Asked::Tunnel(host, head)),
                other => other,
            };
            assert_eq!(asked(sent.as_bytes()), want, "{sent:?}");
        }
    }

    #[test]
    fn through_a_proxy_the_host_stays_the_same() {
        let proxied = || Requests::new("a.example".parse().unwrap(), 80, None, true);
        let first =
            "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nProxy-Connection: keep-alive\r\n\r\n";
        let out = leaves(&mut proxied(), first.as_bytes(), 9).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n");
        for (second, want) in [
            ("GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", HttpError::Host),
            ("GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", HttpError::Host),
            ("GET http://a.example:81/ HTTP/1.1\r\nHost: a.example\r\n\r\n", HttpError::Host),
            ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", HttpError::Malformed),
        ] {
            assert_eq!(
                leaves(&mut proxied(), [first, second].concat().as_bytes(), 9),
                Err(want),
                "{second:?}"
            );
        }
    }

    proptest! {
        /// In whatever pieces it comes, the same leaves or is refused.
        #[test]
        fn pieces_do_not_matter(parts in prop::collection::vec(0_usize..12, 0..12), piece in 1_usize..40) {
            const PARTS: [&str; 12] = [
                "GET /v1 HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", "POST /v1 HTTP/1.1\r\nHost: a.example:8080\r\n",
                "Content-Length: 5\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n", "5\r\n", "hello", "\r\n", "0\r\n\r\n",
                "GET /v2 HTTP/1.1\r\n", "Host: b.example\r\n", "\n", "x",
            ];
            let sent: String = parts.iter().map(|part| PARTS[*part]).collect();
            let whole = leaves(&mut requests(&["ANY=/v1"]), sent.as_bytes(), sent.len().max(1));
            prop_assert_eq!(leaves(&mut requests(&["ANY=/v1"]), sent.as_bytes(), piece), whole);
        }

        #[test]
        fn anything_is_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = leaves(&mut requests(&["ANY=/"]), &bytes, 50);
            let _ = asked(&bytes);
        }
    }
}
