//! Access tokens: by client credentials (RFC 6749, section 4.4), or in exchange for another token (RFC 8693). Revoked by RFC 7009.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use toolgate_broker::vault::Provider;
use zeroize::Zeroizing;

use super::super::attach::encoded;
use super::fetch::{Get, Got, form};
use super::time::{in_seconds, seconds};
use super::{Asked, Handle, Minted, part};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

pub(super) async fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let (subject, secret) = parts(asked)?;
    let mut fields = match subject {
        None => vec![("grant_type", "client_credentials")],
        Some(token) => vec![
            ("grant_type", EXCHANGE),
            ("subject_token", token),
            ("subject_token_type", asked.get("subject_token_type").unwrap_or(ACCESS_TOKEN)),
            ("requested_token_type", ACCESS_TOKEN),
        ],
    };
    for name in ["scope", "audience", "resource"] {
        fields.extend(asked.get(name).map(|text| (name, text)));
    }
    let got = ask(asked, asked.need("token_url")?, secret, fields).await?;
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
    let handle = match asked.get("revoke_url") {
        Some(_) => Handle::Oauth { token: token.to_owned() },
        None => Handle::None,
    };
    Ok(Minted {
        parts: vec![part("token", token.as_bytes())],
        until_ms: in_seconds(lasts.ok().flatten().unwrap_or(asked.ttl)),
        granted: format!("scope={granted}"),
        handle,
        unfit,
    })
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

/// Asks as the client: with its secret as RFC 6749, section 2.3.1 wants it, or by its name only.
async fn ask(
    asked: &Asked<'_>,
    url: &str,
    secret: Option<&str>,
    mut fields: Vec<(&str, &str)>,
) -> Result<Got, String> {
    let client = asked.need("client_id")?;
    let headers = match secret {
        Some(secret) => {
            let pair =
                Zeroizing::new(format!("{}:{}", *encoded(client.as_bytes()), *encoded(secret.as_bytes())));
            vec![("authorization", Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair))))]
        }
        None => {
            fields.push(("client_id", client));
            Vec::new()
        }
    };
    asked
        .fetch
        .send(Get { method: Method::POST, url: url.to_owned(), headers, body: Some(form(&fields)), ca: None })
        .await
}
