//! Asking a provider over HTTP: once, without redirects, and with an end to everything.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, StatusCode, Uri};
use rustls::ClientConfig;
use toolgate_core::json::{Document, Limits};
use zeroize::Zeroizing;

use super::super::attach::encoded;
use super::super::carry::{CONNECT, Roots};
use crate::upstream::{HttpClient, HttpServer, own_roots};

/// How long an answer may be.
const MAX_ANSWER: usize = 1 << 20;

/// How much of what a provider says of an error is believed.
const MAX_ERROR: usize = 64;

/// Asks providers.
pub(crate) struct Fetch {
    roots: Arc<Roots>,
}

/// What is asked.
pub(crate) struct Get<'a> {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, Zeroizing<String>)>,
    /// What it is, and the body.
    pub(crate) body: Option<(&'static str, Zeroizing<Vec<u8>>)>,
    /// The certificates that are believed, if not the system's.
    pub(crate) ca: Option<&'a str>,
    /// The address that is connected to, if it was looked up before.
    pub(crate) at: Option<IpAddr>,
}

/// What was answered.
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Fetch {
    pub(crate) const fn new(roots: Arc<Roots>) -> Self {
        Self { roots }
    }

    /// What the system believes.
    pub(super) fn roots(&self) -> Result<Arc<ClientConfig>, String> {
        self.roots.get()
    }

    /// Asks once.
    pub(crate) async fn send(&self, get: Get<'_>) -> Result<Got, String> {
        let wrong = |_| format!("`{}` is no address", get.url);
        let uri: Uri = get.url.parse().map_err(wrong)?;
        let tls = uri.scheme_str() == Some("https");
        let authority = uri.authority().ok_or("the address has no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let roots = match (tls, get.ca) {
            (false, _) => None,
            (true, Some(pem)) => Some(own_roots(pem.as_bytes())?),
            (true, None) => Some(self.roots.get()?),
        };
        let (kind, body) = get.body.map_or((None, Zeroizing::default()), |(kind, body)| (Some(kind), body));
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(&body)));
        *request.method_mut() = get.method;
        *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(wrong)?;
        let headers = request.headers_mut();
        let text =
            |text: &str| HeaderValue::from_str(text).map_err(|_bytes| "a header has odd bytes".to_owned());
        headers.insert(HOST, text(authority.as_str())?);
        headers.insert(USER_AGENT, HeaderValue::from_static("toolgate"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        for (name, value) in &get.headers {
            let mut value = text(value)?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
        let client =
            Arc::new(HttpClient::new(HttpServer::carried(tls, host, port).at(get.at), roots, CONNECT));
        let (response, _connection) =
            client.send(request).await.map_err(|failure| failure.why().to_owned())?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("the answer broke off, or is too long: {error}"))?.to_bytes();
        Ok(Got { status, headers, body: Zeroizing::new(body.to_vec()) })
    }
}

impl Got {
    /// The answer, if it is of this status, as JSON.
    pub(crate) fn json(&self, wanted: StatusCode) -> Result<Document, String> {
        if self.status != wanted {
            return Err(self.refused());
        }
        let document = Document::parse(self.body.to_vec(), &Limits::default());
        document.map_err(|error| format!("its answer is no JSON: {error}"))
    }

    /// Why there is none. Of what a provider says only a short code is taken: the rest may repeat what was sent.
    pub(crate) fn refused(&self) -> String {
        match self.code() {
            Some(code) => format!("it answered {}: {code}", self.status.as_u16()),
            None => format!("it answered {}", self.status.as_u16()),
        }
    }

    /// The code of an error.
    pub(crate) fn code(&self) -> Option<String> {
        let document = Document::parse(self.body.to_vec(), &Limits::default()).ok()?;
        let root = document.root();
        let said = root.get("error").or_else(|| root.get("message")).or_else(|| root.get("reason"))?;
        let code = said.as_str().or_else(|| said.get("status")?.as_str())?;
        is_code(code).then(|| code.to_owned())
    }
}

/// Whether this is a word or a few, as errors have.
pub(crate) fn is_code(code: &str) -> bool {
    code.len() <= MAX_ERROR && code.bytes().all(|b| b.is_ascii_alphabetic() || b" _-".contains(&b))
}

/// A form (`application/x-www-form-urlencoded`).
pub(crate) fn form(fields: &[(&str, &str)]) -> (&'static str, Zeroizing<Vec<u8>>) {
    let mut body = Zeroizing::new(Vec::with_capacity(1_024));
    for (name, value) in fields {
        if !body.is_empty() {
            body.push(b'&');
        }
        body.extend_from_slice(name.as_bytes());
        body.push(b'=');
        body.extend_from_slice(encoded(value.as_bytes()).as_bytes());
    }
    ("application/x-www-form-urlencoded", body)
}

/// `Bearer` and a token.
pub(super) fn bearer(token: &str) -> (&'static str, Zeroizing<String>) {
    ("authorization", Zeroizing::new(format!("Bearer {token}")))
}
