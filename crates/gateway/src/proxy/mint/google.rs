//! Access tokens of a Google service account: by an assertion (RFC 7523), perhaps of an account that it impersonates, perhaps cut to a
//! resource. None of them can be revoked by itself; they end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use serde_json::json;
use toolgate_core::json::{Document, Limits};
use zeroize::Zeroizing;

use super::fetch::{Get, bearer, form};
use super::time::{in_seconds, now_s, rfc3339, seconds};
use super::{Asked, Handle, Minted, part, sign};

const TOKENS: &str = "https://oauth2.googleapis.com/token";
const IAM: &str = "https://iamcredentials.googleapis.com";
const STS: &str = "https://sts.googleapis.com";
const SECRETS: &str = "https://secretmanager.googleapis.com";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// What lets one impersonate, and nothing else.
const PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A token, and when it ends.
type Token = (Zeroizing<String>, u64);

pub(super) async fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let scope = asked.need("scope")?;
    let first = if asked.get("impersonate").is_some() { PLATFORM } else { scope };
    let mut token = own(asked, first).await?;
    let mut granted = format!("scope={scope}");
    if let Some(email) = asked.get("impersonate") {
        token = impersonated(asked, &token.0, email, scope).await?;
        granted.push_str(&format!(" as={email}"));
    }
    match (asked.get("boundary_resource"), asked.get("boundary_role")) {
        (Some(resource), Some(role)) => {
            token = cut(asked, &token, resource, role).await?;
            granted.push_str(&format!(" resource={resource} role={role}"));
        }
        (None, None) => {}
        _ => return Err("`boundary_resource` and `boundary_role` go together".to_owned()),
    }
    let (token, until_ms) = token;
    Ok(Minted {
        parts: vec![part("token", token.as_bytes())],
        until_ms,
        granted,
        handle: Handle::None,
        unfit: None,
        renewed: None,
    })
}

/// What Secret Manager keeps: its members, if it is an object of JSON.
pub(super) async fn read(asked: &Asked<'_>) -> Result<Minted, String> {
    let name = asked.need("name")?.trim_matches('/');
    let fits = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let parts: Vec<&str> = name.split('/').collect();
    let version = match *parts {
        ["projects", project, "secrets", secret] if fits(project) && fits(secret) => "/versions/latest",
        ["projects", project, "secrets", secret, "versions", version]
            if fits(project) && fits(secret) && fits(version) =>
        {
            ""
        }
        _ => return Err("`name` is no name such as `projects/P/secrets/S`".to_owned()),
    };
    let (token, _until) = own(asked, PLATFORM).await?;
    let url = asked.get("url").unwrap_or(SECRETS).trim_end_matches('/');
    let got = asked.fetch.send(Get {
        method: Method::GET,
        url: format!("{url}/v1/{name}{version}:access"),
        headers: vec![bearer(&token)],
        body: None,
        ca: None,
        at: None,
    });
    let answer = got.await?.json(StatusCode::OK)?;
    let data = answer.root().path(&["payload", "data"]).and_then(|data| data.as_str());
    let kept = data.and_then(|data| STANDARD.decode(data).ok()).map(Zeroizing::new);
    let kept = kept.as_ref().and_then(|kept| str::from_utf8(kept).ok());
    super::kept(asked, kept.ok_or("it keeps no text under this name")?, format!("name={name}"))
}

async fn own(asked: &Asked<'_>, scope: &str) -> Result<Token, String> {
    let file = Document::parse(asked.root.to_vec(), &Limits::default())
        .map_err(|_json| format!("the secret is not {}", asked.provider.value()))?;
    let field = |name: &str| {
        let text = file.root().get(name).and_then(|value| value.as_str());
        text.ok_or_else(|| format!("the key file has no `{name}`"))
    };
    let url = asked.get("token_url").unwrap_or(TOKENS);
    let now = now_s();
    // Who asks for it is known by the audience: where it is sent is in the recipe, not in the key file.
    let claims = json!({
        "iss": field("client_email")?, "scope": scope, "aud": url, "iat": now, "exp": now + asked.ttl.max(60),
    });
    let key_id = file.root().get("private_key_id").and_then(|id| id.as_str());
    let assertion = sign::token("RS256", key_id, field("private_key")?.as_bytes(), &claims)?;
    let fields =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.as_str())];
    let got = asked.fetch.send(Get {
        method: Method::POST,
        url: url.to_owned(),
        headers: Vec::new(),
        body: Some(form(&fields)),
        ca: None,
        at: None,
    });
    answered(&got.await?.json(StatusCode::OK)?, asked)
}

async fn impersonated(asked: &Asked<'_>, token: &str, email: &str, scope: &str) -> Result<Token, String> {
    let iam = asked.get("iam_url").unwrap_or(IAM).trim_end_matches('/');
    let scopes: Vec<&str> = scope.split_whitespace().collect();
    let body = json!({ "scope": scopes, "lifetime": format!("{}s", asked.ttl) });
    let got = asked.fetch.send(Get {
        method: Method::POST,
        url: format!("{iam}/v1/projects/-/serviceAccounts/{email}:generateAccessToken"),
        headers: vec![bearer(token)],
        body: Some(("application/json", Zeroizing::new(body.to_string().into_bytes()))),
        ca: None,
        at: None,
    });
    let answer = got.await?.json(StatusCode::OK)?;
    let text = |name| answer.root().get(name).and_then(|value| value.as_str());
    let until = text("expireTime").and_then(rfc3339).ok_or("its answer does not say when it ends")?;
    let token = text("accessToken").ok_or("its answer has no access token")?;
    Ok((Zeroizing::new(token.to_owned()), until))
}

/// The same token, good for less (Credential Access Boundary).
async fn cut(asked: &Asked<'_>, token: &Token, resource: &str, role: &str) -> Result<Token, String> {
    let sts = asked.get("sts_url").unwrap_or(STS).trim_end_matches('/');
    let boundary = json!({ "accessBoundary": { "accessBoundaryRules": [
        { "availableResource": resource, "availablePermissions": [role] },
    ] } });
    let boundary = boundary.to_string();
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token_type", ACCESS_TOKEN),
        ("requested_token_type", ACCESS_TOKEN),
        ("subject_token", token.0.as_str()),
        ("options", boundary.as_str()),
    ];
    let got = asked.fetch.send(Get {
        method: Method::POST,
        url: format!("{sts}/v1/token"),
        headers: Vec::new(),
        body: Some(form(&fields)),
        ca: None,
        at: None,
    });
    let (cut, until) = answered(&got.await?.json(StatusCode::OK)?, asked)?;
    // It lasts no longer than what it was cut from, whatever is said.
    Ok((cut, until.min(token.1)))
}

fn answered(answer: &Document, asked: &Asked<'_>) -> Result<Token, String> {
    let root = answer.root();
    let token = root.get("access_token").and_then(|token| token.as_str());
    let lasts = seconds(root.get("expires_in"))?;
    let token = token.ok_or("its answer has no access token")?;
    Ok((Zeroizing::new(token.to_owned()), in_seconds(lasts.unwrap_or(asked.ttl))))
}
