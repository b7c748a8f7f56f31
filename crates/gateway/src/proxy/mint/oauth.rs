//! Access tokens: by client credentials (RFC 6749, section 4.4), in exchange for another token (RFC 8693), or for a refresh token
//! (RFC 6749, section 6). Revoked by RFC 7009.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use toolgate_broker::vault::Provider;
use zeroize::Zeroizing;

use super::super::attach::encoded;
use super::fetch::{Get, Got, form};
use super::time::{in_seconds, now_ms, seconds};
use super::{Asked, Handle, Minted, TOO_LATE_MS, part};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// How long a token may be that is kept.
const MAX_TOKEN: usize = 32 << 10;

pub(super) async fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let (given, secret) = parts(asked)?;
    if let (Some(token), Some(until)) = (given, asked.get("until_ms")) {
        return as_it_is(asked, token, until);
    }
    let mut fields = match (asked.provider, given) {
        (Provider::OauthRefresh, Some(token)) => {
            vec![("grant_type", "refresh_token"), ("refresh_token", token)]
        }
        (_, Some(token)) => vec![
            ("grant_type", EXCHANGE),
            ("subject_token", token),
            ("subject_token_type", asked.get("subject_token_type").unwrap_or(ACCESS_TOKEN)),
            ("requested_token_type", ACCESS_TOKEN),
        ],
        (_, None) => vec![("grant_type", "client_credentials")],
    };
    for name in ["scope", "audience", "resource"] {
        fields.extend(asked.get(name).map(|text| (name, text)));
    }
    let got = ask(asked, asked.need("token_url")?, secret, fields).await?;
    if asked.provider == Provider::OauthRefresh && got.code().as_deref() == Some("invalid_grant") {
        return Err(over(asked));
    }
    let answer = got.json(StatusCode::OK)?;
    let root = answer.root();
    let text = |name| root.get(name).and_then(|value| value.as_str());
    let token = text("access_token").ok_or_else(|| match text("error") {
        // Some answer 200, and mean something else.
        Some(_) => got.refused(),
        None => "its answer has no access token".to_owned(),
    })?;
    // From here on there is something to give back, whatever is wrong with it.
    let other = text("token_type").filter(|kind| !kind.eq_ignore_ascii_case("bearer"));
    let other = other.map(|_| "its token is no bearer token".to_owned());
    // A scope that is not said is the one that was asked for (RFC 6749, section 5.1).
    let asked_for: BTreeSet<&str> = asked.get("scope").unwrap_or_default().split_whitespace().collect();
    let granted = text("scope").or(asked.get("scope")).unwrap_or_default();
    let more = granted.split_whitespace().find(|scope| !asked_for.contains(scope));
    let wider = more
        .filter(|_| asked.get("scope").is_some())
        .map(|_| "it has a scope that was not asked for".to_owned());
    let lasts = seconds(root.get("expires_in"));
    let unfit = other.or(wider).or(lasts.clone().err());
    // A server may take the login along with a token that is revoked (RFC 7009, section 2.1): such a token ends by itself.
    let handle = match asked.get("revoke_url") {
        Some(_) if asked.provider != Provider::OauthRefresh => Handle::Oauth { token: token.to_owned() },
        Some(_) | None => Handle::None,
    };
    let next = match (asked.provider, given, text("refresh_token")) {
        (Provider::OauthRefresh, Some(old), Some(new)) if old != new => Some(value_of(new, secret)?),
        _ => None,
    };
    Ok(Minted {
        parts: vec![part("token", token.as_bytes())],
        until_ms: in_seconds(lasts.ok().flatten().unwrap_or(asked.ttl)),
        granted: format!("scope={granted}"),
        handle,
        unfit,
        renewed: next,
    })
}

/// What is kept of a login: its token, and on a second line the client's secret.
pub(crate) fn value_of(token: &str, secret: Option<&str>) -> Result<Zeroizing<Vec<u8>>, String> {
    for text in [Some(token), secret].into_iter().flatten() {
        let printed = text.bytes().all(|b| (0x20..0x7f).contains(&b));
        if text.is_empty() || text.trim() != text || text.len() > MAX_TOKEN || !printed {
            return Err("it gave a token with odd signs".to_owned());
        }
    }
    let mut value = Zeroizing::new(Vec::with_capacity(token.len() + secret.map_or(0, str::len) + 1));
    value.extend_from_slice(token.as_bytes());
    if let Some(secret) = secret {
        value.push(b'\n');
        value.extend_from_slice(secret.as_bytes());
    }
    Ok(value)
}

/// An access token that nothing renews, for as long as it lasts.
fn as_it_is(asked: &Asked<'_>, token: &str, until: &str) -> Result<Minted, String> {
    let until_ms = until.parse().map_err(|_number| "`until_ms` is no time".to_owned())?;
    if until_ms <= now_ms() + TOO_LATE_MS {
        return Err(over(asked));
    }
    Ok(Minted {
        parts: vec![part("token", token.as_bytes())],
        until_ms,
        granted: format!("scope={}", asked.get("scope").unwrap_or_default()),
        handle: Handle::None,
        unfit: None,
        renewed: None,
    })
}

/// Why nothing comes of a login any more.
pub(super) fn over(asked: &Asked<'_>) -> String {
    log_in_again(asked.with.get("server"))
}

pub(super) fn log_in_again(server: Option<&String>) -> String {
    format!("the login is over: log in again: `toolgate login {}`", server.map_or("SERVER", String::as_str))
}

pub(super) async fn revoke(asked: &Asked<'_>, token: &str) -> Result<bool, String> {
    let (_, secret) = parts(asked)?;
    let Some(url) = asked.get("revoke_url") else { return Ok(false) };
    let got = ask(asked, url, secret, vec![("token", token), ("token_type_hint", "access_token")]).await?;
    if got.status == StatusCode::OK { Ok(true) } else { Err(got.refused()) }
}

/// The token to exchange, if one is, and the client's secret, if it has one.
fn parts<'a>(asked: &'a Asked<'_>) -> Result<(Option<&'a str>, Option<&'a str>), String> {
    let text = asked.root_text()?;
    if asked.provider == Provider::OauthClient {
        return Ok((None, Some(text)));
    }
    let (token, secret) = text.split_once('\n').map_or((text, None), |(token, secret)| (token, Some(secret)));
    Ok((Some(token.trim()), secret.map(str::trim).filter(|secret| !secret.is_empty())))
}

/// What a request says of the client: with its secret as RFC 6749, section 2.3.1 wants it, or by its name only.
pub(crate) fn as_client<'a>(
    client: &'a str,
    secret: Option<&'a str>,
    post: bool,
    fields: &mut Vec<(&'a str, &'a str)>,
) -> Vec<(&'static str, Zeroizing<String>)> {
    match secret {
        Some(secret) if !post => {
            let pair =
                Zeroizing::new(format!("{}:{}", *encoded(client.as_bytes()), *encoded(secret.as_bytes())));
            return vec![("authorization", Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair))))];
        }
        Some(secret) => fields.extend([("client_id", client), ("client_secret", secret)]),
        None => fields.push(("client_id", client)),
    }
    Vec::new()
}

async fn ask<'a>(
    asked: &'a Asked<'_>,
    url: &str,
    secret: Option<&'a str>,
    mut fields: Vec<(&'a str, &'a str)>,
) -> Result<Got, String> {
    let post = asked.get("client_auth") == Some("post");
    let headers = as_client(asked.need("client_id")?, secret, post, &mut fields);
    let body = Some(form(&fields));
    let (url, ca) = (url.to_owned(), asked.get("ca"));
    asked.fetch.send(Get { method: Method::POST, url, headers, body, ca, at: None }).await
}
