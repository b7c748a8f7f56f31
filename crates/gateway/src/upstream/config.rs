//! Which servers there are and how they are reached: all of it from the operator's configuration.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::{Scheme, Uri};
use tokio_rustls::rustls::ClientConfig;
use toolgate_broker::config::Builtin;
use toolgate_broker::config::profiles::Per;
use toolgate_core::name::ServerName;
use toolgate_sandbox::Launch;
use toolgate_sandbox::cell::Profile;

use super::client::own_roots;
use crate::proxy::Destination;

/// One server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// What the operator calls it.
    pub name: ServerName,
    /// How it is reached.
    pub transport: Transport,
    /// How long a connection lasts.
    pub per: Per,
    /// What it may learn that the agent can be asked. Each single request is judged all the same.
    pub asks: Asks,
    /// How much and how long.
    pub bounds: Bounds,
    /// The secrets of the vault that it gets, by name: the credential proxy attaches them, or its cell is handed them.
    pub secrets: Vec<String>,
    /// The certificates that are believed of hosts where a secret is put in for its cell, in PEM; if not the system's.
    pub believed: Option<Arc<[u8]>>,
}

impl ServerConfig {
    /// A server with the usual bounds.
    #[must_use]
    pub fn new(name: ServerName, transport: Transport) -> Self {
        Self {
            name,
            transport,
            per: Per::default(),
            asks: Asks::default(),
            bounds: Bounds::default(),
            secrets: Vec::new(),
            believed: None,
        }
    }
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub enum Transport {
    /// It is part of the gate, and runs each call in a cell of this profile.
    Builtin(Builtin, Box<Profile>),
    /// Streamable HTTP.
    Http(HttpServer),
    /// A process of ours, spoken to over its standard input and output.
    Stdio(Launch),
}

/// Which of the agent's abilities a server is told about. What is off is not declared, and never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asks {
    /// `elicitation/create`.
    pub elicitation: bool,
    /// `roots/list`.
    pub roots: bool,
    /// `sampling/createMessage`.
    pub sampling: bool,
}

impl Default for Asks {
    /// All but tasks: what the agent declares is passed on, and the rules judge every request.
    fn default() -> Self {
        Self { elicitation: true, roots: true, sampling: true }
    }
}

/// How much and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The largest message that is read.
    pub max_message_bytes: usize,
    /// The most tools that a server may list.
    pub max_tools: usize,
    /// The most bytes that all pages of a list of tools may have.
    pub max_tools_bytes: usize,
    /// The most requests under way on one connection.
    pub max_under_way: usize,
    /// How long a server may leave `server/discover` unanswered before `initialize` is tried as well.
    pub probe: Duration,
    /// How long connecting and agreeing on a version may take, and any request of the gate's own.
    pub handshake: Duration,
    /// How long the server may leave bytes unread.
    pub write: Duration,
    /// How long a server has to answer after it was told to stop.
    pub grace: Duration,
    /// How long a call waits for the agent to come back with what the server asked for.
    pub parked: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_message_bytes: 16 << 20,
            max_tools: 10_000,
            max_tools_bytes: 16 << 20,
            max_under_way: 256,
            probe: Duration::from_secs(3),
            handshake: Duration::from_secs(30),
            write: Duration::from_secs(30),
            grace: Duration::from_secs(2),
            parked: Duration::from_secs(300),
        }
    }
}

/// A server reached over HTTP.
#[derive(Clone)]
pub struct HttpServer {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// The address that is connected to, if somebody has looked it up.
    pub(super) at: Option<IpAddr>,
    /// The `Host` header.
    pub(super) authority: HeaderValue,
    /// Path and query.
    pub(super) target: Uri,
    /// What the operator wants sent along, credentials among it.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Whose certificates are believed, if not those that the system believes.
    pub(super) roots: Option<Arc<ClientConfig>>,
    /// The same, as PEM.
    pem: Option<Arc<[u8]>>,
}

impl std::fmt::Debug for HttpServer {
    /// Header values may be credentials, and a query may hold one: neither is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServer")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Why a server cannot be reached as configured. Names the header, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpServerError {
    /// The header would contradict what the gate itself sends.
    #[error("header `{0}` is set by the gate itself and cannot be configured")]
    GateHeader(String),
    /// The header cannot be sent.
    #[error("header `{0}` has a name or value that HTTP cannot carry")]
    Header(String),
    /// Credentials and arguments would travel in the clear.
    #[error(
        "`{0}` is not loopback, so the URL has to begin with `https:`; `danger_plain_http` permits otherwise"
    )]
    PlainHttp(String),
    /// Certificates were named whom to believe, but there is nothing in them, or nothing to believe them about.
    #[error("the certificates cannot be used: {0}")]
    Certificates(String),
    /// It is no URL of this kind.
    #[error(
        "the URL has to be `https://HOST[:PORT]/PATH` (or `http:` on loopback), without user, password and fragment"
    )]
    Url,
}

/// Headers that the gate writes itself.
const GATE_HEADERS: [&str; 14] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "transfer-encoding",
    "upgrade",
];

impl HttpServer {
    /// Reads the URL and the headers that the operator wants sent along.
    ///
    /// # Errors
    /// The URL is none that is accepted, or a header cannot be sent.
    pub fn new(url: &str, headers: &[(String, String)]) -> Result<Self, HttpServerError> {
        let server = Self::danger_plain_http(url, headers)?;
        if !server.tls && !is_loopback(&server.host) {
            return Err(HttpServerError::PlainHttp(server.host));
        }
        Ok(server)
    }

    /// Like [`new`](Self::new), but takes `http:` for every host: whoever is on the way reads and changes everything.
    ///
    /// # Errors
    /// The URL is none that is accepted, or a header cannot be sent.
    pub fn danger_plain_http(url: &str, headers: &[(String, String)]) -> Result<Self, HttpServerError> {
        if url.contains(['#', '@']) {
            return Err(HttpServerError::Url);
        }
        let uri: Uri = url.parse().map_err(|_invalid| HttpServerError::Url)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) | None => return Err(HttpServerError::Url),
        };
        let authority = uri.authority().ok_or(HttpServerError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(HttpServerError::Url);
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let target = uri
            .path_and_query()
            .map_or("/", |p| p.as_str())
            .parse()
            .map_err(|_invalid| HttpServerError::Url)?;
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_invalid| HttpServerError::Url)?;
        let headers = headers.iter().map(|(name, value)| header(name, value)).collect::<Result<_, _>>()?;
        Ok(Self { tls, host, port, at: None, authority, target, headers, roots: None, pem: None })
    }

    /// Believes the certificates that these (PEM) signed and no others, in place of what the system believes.
    ///
    /// # Errors
    /// There is no certificate in it, or the URL is `http:`.
    pub fn trusting(self, pem: &[u8]) -> Result<Self, HttpServerError> {
        if !self.tls {
            return Err(HttpServerError::Certificates("the address is not `https:`".to_owned()));
        }
        let roots = own_roots(pem).map_err(HttpServerError::Certificates)?;
        Ok(Self { roots: Some(roots), pem: Some(pem.into()), ..self })
    }

    /// The host and the port that it is at.
    #[must_use]
    pub fn address(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// Whether its path has this segment.
    #[must_use]
    pub fn has_segment(&self, segment: &str) -> bool {
        self.target.path().split('/').any(|one| one == segment)
    }

    /// Where it is.
    pub(crate) fn destination(&self) -> Destination {
        Destination { tls: self.tls, host: self.host.clone(), port: self.port }
    }

    /// The certificates that are believed about it, if not the system's.
    pub(crate) fn pem(&self) -> Option<&[u8]> {
        self.pem.as_deref()
    }

    /// The same, at an address that was looked up.
    pub(crate) fn at(self, at: Option<IpAddr>) -> Self {
        Self { at, ..self }
    }

    /// A server at this address, to which requests go as they come.
    pub(crate) fn carried(tls: bool, host: &str, port: u16) -> Self {
        Self {
            tls,
            host: host.to_owned(),
            port,
            at: None,
            authority: HeaderValue::from_static(""),
            target: Uri::default(),
            headers: Vec::new(),
            roots: None,
            pem: None,
        }
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), HttpServerError> {
    let shown = || name.escape_debug().to_string();
    let parsed =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| HttpServerError::Header(shown()))?;
    if GATE_HEADERS.contains(&parsed.as_str()) || parsed.as_str().starts_with("mcp-param-") {
        return Err(HttpServerError::GateHeader(shown()));
    }
    let mut value = HeaderValue::from_str(value).map_err(|_invalid| HttpServerError::Header(shown()))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// Whether this is a name or an address of this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, want) in [
            ("https://mcp.example.com/mcp", Ok(("mcp.example.com", 443, "/mcp"))),
            ("https://mcp.example.com:8443/a?b=c", Ok(("mcp.example.com", 8443, "/a?b=c"))),
            ("http://127.0.0.1:9/mcp", Ok(("127.0.0.1", 9, "/mcp"))),
            ("http://[::1]:9/mcp", Ok(("::1", 9, "/mcp"))),
            ("http://localhost", Ok(("localhost", 80, "/"))),
            ("http://mcp.example.com/mcp", Err(HttpServerError::PlainHttp("mcp.example.com".to_owned()))),
            (
                "http://127.0.0.1.example.com/",
                Err(HttpServerError::PlainHttp("127.0.0.1.example.com".to_owned())),
            ),
            ("https://user:pass@mcp.example.com/", Err(HttpServerError::Url)),
            ("https://mcp.example.com/#x", Err(HttpServerError::Url)),
            ("ftp://mcp.example.com/", Err(HttpServerError::Url)),
            ("/mcp", Err(HttpServerError::Url)),
            ("", Err(HttpServerError::Url)),
        ] {
            let got = HttpServer::new(url, &[]);
            let got =
                got.as_ref().map(|s| (s.host.as_str(), s.port, s.target.path_and_query().unwrap().as_str()));
            assert_eq!(got, want.as_ref().copied(), "input: {url:?}");
        }
    }

    #[test]
    fn headers_that_are_ours_are_refused() {
        let with = |name: &str, value: &str| {
            HttpServer::new("https://a/", &[(name.to_owned(), value.to_owned())]).map(|s| s.headers.len())
        };
        assert_eq!(with("Authorization", "Bearer x"), Ok(1));
        for name in ["Host", "Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Param-Region", "Content-Length"] {
            assert_eq!(with(name, "x"), Err(HttpServerError::GateHeader(name.to_owned())));
        }
        assert_eq!(with("X-A", "a\r\nb"), Err(HttpServerError::Header("X-A".to_owned())));
        assert_eq!(with("X A", "a"), Err(HttpServerError::Header("X A".to_owned())));
    }
}
