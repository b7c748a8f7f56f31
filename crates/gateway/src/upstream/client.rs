//! A small HTTP/1.1 client: connections that are kept, TLS, and nothing else. Redirects are answers like any other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName as TlsName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::config::HttpServer;
use super::link::SendFailure;
use crate::proxy::{NOT_SENT, Passage};

/// How long a connection is kept for the next request. Common servers close after 5 s; ours is to be the shorter.
const KEPT: Duration = Duration::from_secs(4);
/// How long a reason of the credential proxy may be.
const MAX_WHY: usize = 4 << 10;
/// How many idle connections are kept for one server.
const MAX_KEPT: usize = 64;

type Sender = SendRequest<Full<Bytes>>;

/// Speaks HTTP with one server.
pub(crate) struct HttpClient {
    pub(crate) server: HttpServer,
    tls: Option<TlsConnector>,
    connect: Duration,
    /// What its connections pass, if they pass anything.
    passage: Option<Passage>,
    /// Guards the connections that wait for a request, the youngest last.
    kept: Mutex<Vec<(Sender, Instant)>>,
}

/// The connection an answer comes on. Give it [`back`](Self::back) once the whole answer is read; dropped, it is closed.
pub(crate) struct Leased {
    client: Arc<HttpClient>,
    sender: Sender,
}

impl HttpClient {
    /// A client for one server. `roots` are what the system believes; needed only for `https:`, and only by a server
    /// that has none of its own.
    pub(crate) fn new(server: HttpServer, roots: Option<Arc<ClientConfig>>, connect: Duration) -> Self {
        let roots = server.roots.clone().or(roots);
        let tls = if server.tls { roots.map(TlsConnector::from) } else { None };
        Self { server, tls, connect, passage: None, kept: Mutex::default() }
    }

    /// A client for the same server whose connections pass the credential proxy.
    pub(crate) fn passing(&self, passage: Passage) -> Self {
        let (server, tls) = (self.server.clone(), self.tls.clone());
        Self { server, tls, connect: self.connect, passage: Some(passage), kept: Mutex::default() }
    }

    /// Sends a request once and waits for the head of the answer.
    pub(crate) async fn send(
        self: Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Leased), SendFailure> {
        let passes = self.passage.is_some();
        let (response, leased) = self.send_once(request).await?;
        if passes && response.headers().contains_key(NOT_SENT) {
            let why = Limited::new(response.into_body(), MAX_WHY).collect().await.ok();
            let why = why.map(|why| String::from_utf8_lossy(&why.to_bytes()).into_owned());
            return Err(SendFailure::NotSent(why.unwrap_or_default()));
        }
        Ok((response, leased))
    }

    async fn send_once(
        self: Arc<Self>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Leased), SendFailure> {
        while let Some(mut sender) = self.take_kept() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Leased { client: self, sender })),
                Err(mut failure) => match failure.take_message() {
                    // It comes back only if not a byte of it was written: the connection had been closed while kept.
                    Some(unsent) => request = unsent,
                    None => return Err(SendFailure::Lost(format!("no answer: {}", failure.into_error()))),
                },
            }
        }
        let mut sender = self.open().await.map_err(SendFailure::NotSent)?;
        match sender.try_send_request(request).await {
            Ok(response) => Ok((response, Leased { client: self, sender })),
            Err(mut failure) => Err(match failure.take_message() {
                Some(_unsent) => SendFailure::NotSent(format!("not sent: {}", failure.into_error())),
                None => SendFailure::Lost(format!("no answer: {}", failure.into_error())),
            }),
        }
    }

    fn take_kept(&self) -> Option<Sender> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((sender, since)) = kept.pop() {
            if !sender.is_closed() && since.elapsed() < KEPT {
                return Some(sender);
            }
        }
        None
    }

    async fn open(&self) -> Result<Sender, String> {
        if let Some(passage) = &self.passage {
            let stream =
                passage.http(&self.server).map_err(|error| format!("no credential proxy: {error}"))?;
            return shake(stream).await;
        }
        let opening = async {
            let port = self.server.port;
            let tcp = match self.server.at {
                Some(address) => TcpStream::connect((address, port)).await,
                None => TcpStream::connect((self.server.host.as_str(), port)).await,
            };
            let tcp = tcp.map_err(|error| format!("could not connect: {error}"))?;
            tcp.set_nodelay(true).map_err(|error| format!("could not connect: {error}"))?;
            match (&self.tls, self.server.tls) {
                (Some(tls), true) => {
                    let name = TlsName::try_from(self.server.host.clone())
                        .map_err(|_invalid| "the host is no name that a certificate could have".to_owned())?;
                    let stream = tls
                        .connect(name, tcp)
                        .await
                        .map_err(|error| format!("no secure connection: {error}"))?;
                    shake(stream).await
                }
                (None, false) => shake(tcp).await,
                // INVARIANT: a client is made with a connector exactly if its server wants TLS; never go without.
                (Some(_), false) | (None, true) => Err("no secure connection: no certificates".to_owned()),
            }
        };
        timeout(self.connect, opening)
            .await
            .unwrap_or_else(|_elapsed| Err("could not connect in time".to_owned()))
    }
}

impl Leased {
    /// Keeps the connection for the next request.
    pub(crate) fn back(self) {
        let mut kept = self.client.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_KEPT && !self.sender.is_closed() {
            kept.push((self.sender, Instant::now()));
        }
    }
}

async fn shake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Sender, String> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(256 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("could not connect: {error}"))?;
    tokio::spawn(async move {
        // What goes wrong is told to whoever waits for an answer.
        drop(connection.await);
    });
    Ok(sender)
}

/// The system's certificates.
///
/// # Errors
/// There are none that can be read.
pub(crate) fn system_roots() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _refused) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        return Err("the system has no certificates that can be read".to_owned());
    }
    believing(roots)
}

/// The certificates in a PEM file, each of which has to be one.
///
/// # Errors
/// There is none, or one that cannot be read.
pub(crate) fn own_roots(pem: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no `BEGIN CERTIFICATE` in it".to_owned());
    }
    believing(roots)
}

fn believing(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
