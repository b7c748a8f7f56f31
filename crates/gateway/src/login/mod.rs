//! Logging in to a server: a person's consent, by the authorization of MCP (OAuth 2.1).
//!
//! ```text
//! 1  the server says where its metadata are       401, WWW-Authenticate; or well-known            discover.rs
//! 2  those say who gives tokens for it            RFC 9728: for this very server
//! 3  that one says how                            RFC 8414, OpenID: of this very issuer, S256
//! 4  we are a client there                        known before, or RFC 7591                       attempt.rs
//! 5  the person consents in a browser             PKCE, `resource` (RFC 8707), `state`
//! 6  the browser comes back to this machine       RFC 8252, `state`, `iss` (RFC 9207)             redirect.rs
//! 7  the code becomes tokens                      PKCE, `resource`
//! ```
//!
//! Whoever answers may lie. Every answer has an end, in bytes and in time; redirects are not followed; what an answer names is reached
//! over TLS, at an address of everybody's, unless the server itself is on this machine or in a private network. Of what is said, only
//! what was checked to be made of plain signs is shown.

mod attempt;
mod discover;
mod redirect;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Uri};
use tokio::time::timeout;
use toolgate_broker::vault::Mint;
use toolgate_broker::vault::mint::is_url;
use toolgate_core::json::{Document, Value};
use toolgate_sandbox::egress::{Reach, reach};
use zeroize::Zeroizing;

pub use self::attempt::{Attempt, Client, Tokens};
pub use self::discover::{Found, Wishes};
pub use self::redirect::Listener;
use crate::proxy::{Fetch, Get, Got, Roots, as_client, form};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long an address may be, or a name, a code, or what else is not a token.
const MAX_TEXT: usize = 4 << 10;

/// Why somebody is not logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server says of nobody who could log one in.
    #[error(
        "`{server}` does not say where one logs in: it answered {status}, and has no metadata (RFC 9728)"
    )]
    NoLogin {
        /// Its address.
        server: String,
        /// What it answered to a request without a token.
        status: u16,
    },
    /// Somebody could not be reached, or may not be.
    #[error("`{url}` could not be asked: {why}")]
    Unreachable {
        /// Who.
        url: String,
        /// Why.
        why: String,
    },
    /// What somebody says cannot be used.
    #[error("what `{url}` says cannot be used: {why}")]
    Unusable {
        /// Who says it.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// It takes no proof that whoever began is who ends (PKCE).
    #[error("`{0}` does not say that it takes PKCE with S256, and without that a code can be stolen")]
    NoPkce(String),
    /// It wants to know its clients before.
    #[error("`{0}` does not register clients by itself")]
    NoClient(String),
    /// It does not do what was asked.
    #[error("`{url}` refuses: {why}")]
    Refused {
        /// Who.
        url: String,
        /// What it answered.
        why: String,
    },
    /// What came back from the browser is no answer to what was asked.
    #[error("what came back from the browser is not taken: {0}")]
    Redirect(&'static str),
    /// The person, or the authorization server, said no.
    #[error("the login was refused: {0}")]
    Denied(String),
    /// A scope that cannot be written.
    #[error("a scope has letters, digits and signs without spaces, quotes and backslashes")]
    Scope,
    /// The port cannot be listened at, or there is no randomness.
    #[error("the answer cannot be waited for")]
    Io(#[from] std::io::Error),
}

impl LoginError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoLogin { .. } => {
                "if it wants an API key, keep that: `toolgate secret add NAME --slot header:Authorization …`"
            }
            Self::NoClient(_) => {
                "register a native client there, with the redirect URI `http://127.0.0.1/callback`, and say which: \
                 `--client-id ID --issuer URL`; with a fixed port in it, `--port PORT` too"
            }
            Self::Denied(_) => "begin again, and say yes there if you want it",
            Self::Redirect(_) => {
                "begin again; if that was not you, somebody wants to log you in as somebody else"
            }
            Self::NoPkce(_) => "tell whoever runs it; no weaker login is offered here",
            Self::Io(_)
            | Self::Refused { .. }
            | Self::Scope
            | Self::Unreachable { .. }
            | Self::Unusable { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Asks whoever takes part in a login.
struct Web {
    fetch: Fetch,
    /// Whose certificates are believed, in PEM; if not the system's.
    ca: Option<String>,
    /// Whether addresses of this machine and of private networks may be asked: where the server itself is at one.
    private: bool,
}

impl Web {
    fn new(ca: Option<String>, private: bool) -> Self {
        Self { fetch: Fetch::new(Arc::new(Roots::default())), ca, private }
    }

    async fn get(&self, url: &str) -> Result<Got, LoginError> {
        self.ask(Method::GET, url, Vec::new(), None).await
    }

    /// Asks once, at an address that was looked at.
    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: Vec<(&'static str, Zeroizing<String>)>,
        body: Option<(&'static str, Zeroizing<Vec<u8>>)>,
    ) -> Result<Got, LoginError> {
        let asking = async {
            let at = Some(self.address(url).await?);
            let url = url.to_owned();
            let ca = self.ca.as_deref().filter(|_| url.starts_with("https:"));
            self.fetch.send(Get { method, url, headers, body, ca, at }).await
        };
        let unreachable = |why: String| LoginError::Unreachable { url: url.to_owned(), why };
        let got = timeout(PATIENCE, asking).await;
        got.unwrap_or_else(|_elapsed| Err("it took too long".to_owned())).map_err(unreachable)
    }

    /// The address of its host, if all that it has are such as may be asked.
    async fn address(&self, url: &str) -> Result<IpAddr, String> {
        let (host, port) = host_of(url).ok_or("it is no address")?;
        let addresses = resolved(&host, port).await?;
        for address in &addresses {
            let may = match reach(*address) {
                Reach::Never => false,
                Reach::Private => self.private,
                Reach::Public => true,
            };
            if !may {
                return Err("it is on this machine or in a private network, and the server is not".to_owned());
            }
        }
        addresses.first().copied().ok_or_else(|| "its name has no address".to_owned())
    }
}

async fn resolved(host: &str, port: u16) -> Result<Vec<IpAddr>, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|_error| "its name has no address".to_owned())?;
    Ok(found.map(|address| address.ip()).collect())
}

/// Host and port of an address.
fn host_of(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Some((host, authority.port_u16().unwrap_or(usual)))
}

/// An address that somebody names: over TLS, or on this machine.
fn address(text: &str) -> Result<String, String> {
    if text.len() > MAX_TEXT {
        return Err("an address in it is too long".to_owned());
    }
    is_url(text).map_err(|why| format!("an address in it {why}"))?;
    Ok(text.to_owned())
}

/// What a text in an object is; nothing where there is none.
fn text<'a>(root: Value<'a>, name: &str) -> Result<Option<&'a str>, String> {
    let Some(value) = root.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    value.as_str().map(Some).ok_or_else(|| format!("`{name}` is no text"))
}

/// What texts are in a list in an object; nothing where there is none.
fn texts<'a>(root: Value<'a>, name: &str) -> Result<Option<Vec<&'a str>>, String> {
    let Some(value) = root.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let all = value.is_array().then(|| value.elements().map(|element| element.as_str()).collect());
    all.flatten().map(Some).ok_or_else(|| format!("`{name}` is no list of texts"))
}

/// The scopes that are meant, if each is one (RFC 6749, section 3.3).
fn scope(text: &str) -> Result<String, LoginError> {
    let fits = |b: u8| matches!(b, b' ' | 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if text.len() > MAX_TEXT || !text.bytes().all(fits) {
        return Err(LoginError::Scope);
    }
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What an answer says, if it is JSON.
fn json(got: &Got) -> Result<Document, String> {
    got.json(got.status)
}

/// Gives a login back where it was got (RFC 7009). Says whether there is a way to.
///
/// # Errors
/// Nobody answered, or not as one who has done it.
pub async fn revoke(mint: &Mint, value: &[u8]) -> Result<bool, LoginError> {
    let of = |name: &str| mint.with().get(name).map(String::as_str);
    let (Some(url), Some(client)) = (of("revoke_url"), of("client_id")) else { return Ok(false) };
    let value = std::str::from_utf8(value).unwrap_or_default();
    let (token, secret) =
        value.split_once('\n').map_or((value, None), |(token, secret)| (token, Some(secret)));
    let kind = if mint.renews_itself() { "refresh_token" } else { "access_token" };
    let mut fields = vec![("token", token), ("token_type_hint", kind)];
    let headers = as_client(client, secret, of("client_auth") == Some("post"), &mut fields);
    // Where the tokens are from, this may be too.
    let of_tokens = host_of(of("token_url").unwrap_or_default());
    let private = match &of_tokens {
        Some((host, port)) => {
            let addresses = resolved(host, *port).await.unwrap_or_default();
            !addresses.is_empty() && addresses.iter().all(|ip| reach(*ip) != Reach::Public)
        }
        None => false,
    };
    let web = Web::new(of("ca").map(str::to_owned), private);
    let got = web.ask(Method::POST, url, headers, Some(form(&fields))).await?;
    if got.status.is_success() {
        return Ok(true);
    }
    Err(LoginError::Refused { url: url.to_owned(), why: got.refused() })
}
