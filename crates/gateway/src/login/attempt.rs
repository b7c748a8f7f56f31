//! One attempt to log in: from the address that a browser is sent to, to the tokens.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use toolgate_core::json::{ObjectWriter, Value, quote};
use zeroize::Zeroizing;

use super::discover::{Found, OFFLINE};
use super::{LoginError, MAX_TEXT, json, text};
use crate::proxy::{Got, as_client, form, in_seconds, is_code, now_ms, seconds, value_of};

/// How long a token is taken to last that nothing renews, and of which nobody says it: an hour.
const USUAL_S: u64 = 3_600;

/// The longest that one is believed to last: 400 days.
const LONGEST_MS: u64 = 400 * 86_400 * 1_000;

/// What we call ourselves.
const NAME: &str = "toolgate";

/// Who we are at an authorization server.
pub struct Client {
    /// Its name there.
    pub id: String,
    /// Its secret, if it has one.
    pub secret: Option<Zeroizing<String>>,
    /// Whether that goes into the form.
    pub post: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What somebody has got who logged in.
pub struct Tokens {
    /// The token, and the client's secret, as they are kept.
    pub value: Zeroizing<Vec<u8>>,
    /// What it is good for, as the authorization server says.
    pub scope: Option<String>,
    /// When it ends, in milliseconds since 1970, if nothing renews it.
    pub until_ms: Option<u64>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("until_ms", &self.until_ms).finish_non_exhaustive()
    }
}

/// An attempt to log in. Its `state` is known to the browser alone, its verifier to nobody.
pub struct Attempt {
    found: Found,
    client: Client,
    redirect_uri: String,
    state: Zeroizing<String>,
    verifier: Zeroizing<String>,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("found", &self.found).finish_non_exhaustive()
    }
}

fn random() -> Result<Zeroizing<String>, LoginError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

impl Attempt {
    /// Begins one. Without a client that is known there, it registers one (RFC 7591).
    ///
    /// # Errors
    /// No client can be registered.
    pub async fn begin(
        found: Found,
        known: Option<(String, Option<Zeroizing<String>>)>,
        redirect_uri: String,
    ) -> Result<Self, LoginError> {
        let client = match known {
            Some((id, secret)) => {
                is_name(&id).map_err(|why| unusable("--client-id", why))?;
                Client { id, secret, post: found.post }
            }
            None => register(&found, &redirect_uri).await?,
        };
        Ok(Self { found, client, redirect_uri, state: random()?, verifier: random()? })
    }

    /// Where one logs in.
    #[must_use]
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// Who we are there.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Where a browser is to go.
    #[must_use]
    pub fn url(&self) -> String {
        let Found { authorization_endpoint: to, resource, scope, .. } = &self.found;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()));
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", self.client.id.as_str()),
            ("redirect_uri", &self.redirect_uri),
            ("state", &self.state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("resource", resource),
        ];
        if let Some(scope) = scope {
            fields.push(("scope", scope));
            if scope.split(' ').any(|one| one == OFFLINE) {
                // OpenID Connect Core, section 11: without it, nothing is given that can be renewed.
                fields.push(("prompt", "consent"));
            }
        }
        let (_, query) = form(&fields);
        let query = String::from_utf8_lossy(&query).into_owned();
        format!("{to}{}{query}", if to.contains('?') { '&' } else { '?' })
    }

    /// The code in what the browser was sent back with: path and query, or the whole address.
    ///
    /// # Errors
    /// It is the answer to something else, of somebody else, or a no.
    pub fn code(&self, answer: &str) -> Result<Zeroizing<String>, LoginError> {
        let answer = answer
            .strip_prefix(self.redirect_uri.as_str())
            .or_else(|| answer.strip_prefix(super::redirect::PATH));
        let query = answer.and_then(|rest| rest.strip_prefix('?'));
        let query =
            query.ok_or(LoginError::Redirect("it is not the address that the browser was sent back to"))?;
        let mut said = Said::default();
        for pair in query.split('#').next().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "code" => &mut said.code,
                "error" => &mut said.error,
                "iss" => &mut said.iss,
                "state" => &mut said.state,
                _ => continue,
            };
            let value = decoded(value).ok_or(LoginError::Redirect("it cannot be read"))?;
            if place.replace(value).is_some() {
                return Err(LoginError::Redirect("it says something twice"));
            }
        }
        let state = said.state.ok_or(LoginError::Redirect("it has no `state`"))?;
        if !bool::from(state.as_bytes().ct_eq(self.state.as_bytes())) {
            return Err(LoginError::Redirect("it is the answer to something else (`state`)"));
        }
        match said.iss.as_ref().map(|iss| iss.as_str() == self.found.issuer) {
            Some(true) => {}
            Some(false) => return Err(LoginError::Redirect("another authorization server gave it (`iss`)")),
            None if self.found.says_who_it_is => {
                return Err(LoginError::Redirect(
                    "it does not say which authorization server gave it (`iss`)",
                ));
            }
            None => {}
        }
        if let Some(error) = said.error {
            let code = if is_code(&error) { error.as_str() } else { "it does not say why" };
            return Err(LoginError::Denied(code.to_owned()));
        }
        said.code.filter(|code| !code.is_empty()).ok_or(LoginError::Redirect("it has no `code`"))
    }

    /// Turns the code into tokens. What comes with them that was not asked for is given back.
    ///
    /// # Errors
    /// The authorization server does not, or gives what cannot be used.
    pub async fn tokens(&self, code: &str) -> Result<Tokens, LoginError> {
        let url = &self.found.token_endpoint;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", &self.verifier),
            ("resource", &self.found.resource),
        ];
        let got = self.post(url, &mut fields).await?;
        let refused = |why: String| LoginError::Refused { url: url.clone(), why };
        if got.status != StatusCode::OK {
            return Err(refused(got.refused()));
        }
        let document = json(&got).map_err(|why| unusable(url, why))?;
        let root = document.root();
        if root.get("error").is_some() {
            // Some answer 200, and mean something else.
            return Err(refused(got.refused()));
        }
        let tokens = self.read(root);
        if tokens.is_err() {
            self.give_back(root).await;
        }
        tokens.map_err(|why| unusable(url, why))
    }

    fn read(&self, root: Value<'_>) -> Result<Tokens, String> {
        let secret = self.client.secret.as_ref().map(|secret| secret.as_str());
        let access = text(root, "access_token")?.ok_or("there is no access token")?;
        let access = value_of(access, secret)?;
        let kind = text(root, "token_type")?.ok_or("it does not say what kind of token it is")?;
        if !kind.eq_ignore_ascii_case("bearer") {
            return Err("its token is no bearer token".to_owned());
        }
        let asked_for: Option<BTreeSet<&str>> =
            self.found.scope.as_deref().map(|scope| scope.split(' ').collect());
        let granted =
            text(root, "scope")?.map(super::scope).transpose().map_err(|error| error.to_string())?;
        if let (Some(asked_for), Some(granted)) = (&asked_for, &granted)
            && granted.split_whitespace().any(|scope| !asked_for.contains(scope))
        {
            return Err("it has a scope that was not asked for".to_owned());
        }
        let scope = granted.filter(|scope| !scope.is_empty()).or_else(|| self.found.scope.clone());
        let lasts = seconds(root.get("expires_in"))?;
        match text(root, "refresh_token")? {
            Some(token) => Ok(Tokens { value: value_of(token, secret)?, scope, until_ms: None }),
            None => {
                let until_ms = in_seconds(lasts.unwrap_or(USUAL_S)).min(now_ms() + LONGEST_MS);
                Ok(Tokens { value: access, scope, until_ms: Some(until_ms) })
            }
        }
    }

    /// Gives back what is not used, as far as it can be.
    async fn give_back(&self, root: Value<'_>) {
        let Some(url) = &self.found.revocation_endpoint else { return };
        for name in ["refresh_token", "access_token"] {
            if let Ok(Some(token)) = text(root, name) {
                let mut fields = vec![("token", token), ("token_type_hint", name)];
                let _done = self.post(url, &mut fields).await;
            }
        }
    }

    async fn post<'a>(&'a self, url: &str, fields: &mut Vec<(&'a str, &'a str)>) -> Result<Got, LoginError> {
        let Client { id, secret, post } = &self.client;
        let headers = as_client(id, secret.as_ref().map(|secret| secret.as_str()), *post, fields);
        self.found.web.ask(Method::POST, url, headers, Some(form(fields))).await
    }
}

fn unusable(url: &str, why: impl Into<String>) -> LoginError {
    LoginError::Unusable { url: url.to_owned(), why: why.into() }
}

/// What the browser was sent back with.
#[derive(Default)]
struct Said {
    code: Option<Zeroizing<String>>,
    error: Option<Zeroizing<String>>,
    iss: Option<Zeroizing<String>>,
    state: Option<Zeroizing<String>>,
}

/// A value of a query, read once.
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit =
                    || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit()? << 4 | digit()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes.to_vec()).ok().map(Zeroizing::new)
}

/// Whether this can be the name of a client.
fn is_name(text: &str) -> Result<(), &'static str> {
    let fits = !text.is_empty() && text.len() <= MAX_TEXT && text.bytes().all(|b| b.is_ascii_graphic());
    fits.then_some(()).ok_or("the client's name has odd signs")
}

/// Registers a client (RFC 7591): a program on somebody's machine, that keeps no secret by itself.
async fn register(found: &Found, redirect_uri: &str) -> Result<Client, LoginError> {
    let Some(url) = &found.registration_endpoint else {
        return Err(LoginError::NoClient(found.issuer.clone()));
    };
    let writer = ObjectWriter::new()
        .string("application_type", "native")
        .string("client_name", NAME)
        .raw("grant_types", br#"["authorization_code","refresh_token"]"#)
        .raw("redirect_uris", format!("[{}]", quote(redirect_uri)).as_bytes())
        .raw("response_types", br#"["code"]"#)
        .string("token_endpoint_auth_method", "none");
    let body = match &found.scope {
        Some(scope) => writer.string("scope", scope).finish(),
        None => writer.finish(),
    };
    let body = Some((CONTENT, Zeroizing::new(body)));
    let got = found.web.ask(Method::POST, url, Vec::new(), body).await?;
    if !matches!(got.status, StatusCode::CREATED | StatusCode::OK) {
        return Err(LoginError::Refused { url: url.clone(), why: got.refused() });
    }
    let document = json(&got).map_err(|why| unusable(url, why))?;
    let root = document.root();
    let read = || -> Result<Client, String> {
        let id = text(root, "client_id")?.ok_or("there is no `client_id`")?;
        is_name(id)?;
        let secret = text(root, "client_secret")?.filter(|secret| !secret.is_empty());
        let way = text(root, "token_endpoint_auth_method")?;
        let post = way.map_or(found.post, |way| way == "client_secret_post");
        // One that was given a secret, and is to be none that has one, does not use it.
        let secret = secret.filter(|_| way != Some("none")).map(|secret| Zeroizing::new(secret.to_owned()));
        if let Some(secret) = &secret {
            value_of("x", Some(secret))?;
        }
        Ok(Client { id: id.to_owned(), secret, post })
    };
    read().map_err(|why| unusable(url, why))
}

const CONTENT: &str = "application/json";
