//! Fetching one small document that an operator named, such as an issuer's keys. Bounded in size and time; redirects are
//! not followed: the operator's address is the one that is trusted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use tokio::time::timeout;

use super::client::{HttpClient, system_roots};
use super::config::{HttpServer, HttpServerError};
use super::link::SendFailure;

/// How large the document may be.
const MAX_BYTES: usize = 256 << 10;
/// How long it may take in all.
const TIME: Duration = Duration::from_secs(10);

/// Why a document was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address is none that is accepted.
    #[error(transparent)]
    Address(#[from] HttpServerError),
    /// The answer broke off, or is longer than is accepted.
    #[error("the answer broke off, or is longer than {MAX_BYTES} bytes")]
    Body,
    /// The system's certificates cannot be used.
    #[error("{0}")]
    Certificates(String),
    /// Nobody answered.
    #[error("{0}")]
    NoAnswer(String),
    /// It took too long.
    #[error("there was no whole answer within {} s", TIME.as_secs())]
    Slow,
    /// The answer is not the document.
    #[error("the answer has status {0} instead of 200")]
    Status(u16),
}

/// An address from which one document can be fetched: `https:`, or `http:` on loopback.
pub struct Remote(Arc<HttpClient>);

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.0.server).finish()
    }
}

impl Remote {
    /// Reads the address, and the system's certificates if it needs them; `ca` (PEM) is believed in their place.
    ///
    /// # Errors
    /// The address is not accepted, or there are no certificates.
    pub fn new(url: &str, ca: Option<&[u8]>) -> Result<Self, FetchError> {
        let server = HttpServer::new(url, &[])?;
        let server = match ca {
            Some(pem) => server.trusting(pem)?,
            None => server,
        };
        let system = server.tls && server.roots.is_none();
        let roots = system.then(system_roots).transpose().map_err(FetchError::Certificates)?;
        Ok(Self(Arc::new(HttpClient::new(server, roots, TIME))))
    }

    /// Fetches the document as it is now.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self) -> Result<Bytes, FetchError> {
        timeout(TIME, self.get()).await.unwrap_or(Err(FetchError::Slow))
    }

    async fn get(&self) -> Result<Bytes, FetchError> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = self.0.server.target.clone();
        request.headers_mut().insert(HOST, self.0.server.authority.clone());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let (response, _lease) =
            Arc::clone(&self.0).send(request).await.map_err(|failure| match failure {
                SendFailure::Lost(why) | SendFailure::NotSent(why) => FetchError::NoAnswer(why),
            })?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        Ok(body.map_err(|_too_long_or_broken| FetchError::Body)?.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// What comes of fetching from a server that gives one answer.
    async fn fetched(answer: Vec<u8>) -> Result<Bytes, FetchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?of=us", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).await.unwrap();
            // Who is told too much hangs up before the end.
            let _hung_up = stream.write_all(&answer).await;
            String::from_utf8_lossy(asked.get(..read).unwrap()).into_owned()
        });
        let result = Remote::new(&url, None).unwrap().fetch().await;
        assert!(serving.await.unwrap().starts_with("GET /keys?of=us HTTP/1.1\r\n"));
        result
    }

    fn answer(status: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[tokio::test]
    async fn a_document_is_fetched_whole_or_not_at_all() {
        assert_eq!(fetched(answer("200 OK", b"{}")).await.unwrap(), "{}");
        let longest = vec![b' '; MAX_BYTES];
        assert_eq!(fetched(answer("200 OK", &longest)).await.unwrap().len(), MAX_BYTES);
        let longer = vec![b' '; MAX_BYTES + 1];
        assert!(matches!(fetched(answer("200 OK", &longer)).await, Err(FetchError::Body)));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".to_vec();
        assert!(matches!(fetched(cut).await, Err(FetchError::Body)));
        let elsewhere = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_vec();
        assert!(matches!(fetched(elsewhere).await, Err(FetchError::Status(302))));
        assert!(matches!(fetched(answer("404 Not Found", b"{}")).await, Err(FetchError::Status(404))));
    }

    #[test]
    fn keys_do_not_come_over_an_open_network() {
        assert!(matches!(Remote::new("http://keys.example/jwks", None), Err(FetchError::Address(_))));
    }
}
