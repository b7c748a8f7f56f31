//! Tokens of a GitHub App's installation, cut to repositories and permissions.
//!
//! `POST /app/installations/{id}/access_tokens` answers 201; `DELETE /installation/token` revokes, and answers 204. A token may be long:
//! since 2026-04 some have the form `ghs_APPID_<JWT>`.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use serde_json::json;
use zeroize::Zeroizing;

use super::fetch::{Get, bearer};
use super::time::{in_seconds, now_s, rfc3339};
use super::{Asked, Handle, Minted, part, sign};

const USUAL: &str = "https://api.github.com";

/// The App's own token is for one request.
const OWN_SECONDS: u64 = 60;

pub(super) async fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let now = now_s();
    let claims = json!({ "iat": now - 60, "exp": now + OWN_SECONDS, "iss": asked.need("client_id")? });
    let own = sign::token("RS256", None, asked.root, &claims)?;
    let permissions = permissions(asked.need("permissions")?)?;
    let repositories: Vec<&str> = list(asked.need("repositories")?).collect();
    if repositories.is_empty() {
        // Without a name it would be for all of them.
        return Err("`repositories` names none".to_owned());
    }
    let api_url = asked.get("api_url").unwrap_or(USUAL).trim_end_matches('/');
    let body = json!({ "repositories": repositories, "permissions": permissions });
    let got = asked.fetch.send(Get {
        method: Method::POST,
        url: format!("{api_url}/app/installations/{}/access_tokens", number(asked.need("installation")?)?),
        headers: headers(&own),
        body: Some(("application/json", Zeroizing::new(body.to_string().into_bytes()))),
        ca: None,
        at: None,
    });
    let answer = got.await?.json(StatusCode::CREATED)?;
    let root = answer.root();
    let token = root.get("token").and_then(|token| token.as_str()).ok_or("its answer has no token")?;
    let until = root.get("expires_at").and_then(|at| at.as_str()).and_then(rfc3339);
    let granted: BTreeMap<String, String> = root
        .get("permissions")
        .into_iter()
        .flat_map(|all| all.members().collect::<Vec<_>>())
        .map(|(name, level)| (name.to_owned(), level.as_str().unwrap_or_default().to_owned()))
        .collect();
    let named: Vec<&str> = root
        .get("repositories")
        .into_iter()
        .flat_map(|all| all.elements().collect::<Vec<_>>())
        .filter_map(|one| one.get("name").and_then(|name| name.as_str()))
        .collect();
    let selected = root.get("repository_selection").and_then(|how| how.as_str()) != Some("all");
    // Every App may read metadata.
    let more = granted.iter().find(|(name, level)| {
        level_of(level)
            > permissions.get(*name).map_or(u8::from(*name == "metadata"), |asked| level_of(asked))
    });
    let other = named.iter().find(|name| !repositories.iter().any(|asked| asked.eq_ignore_ascii_case(name)));
    let wider = match (more, other) {
        (Some((name, level)), _) => Some(format!("it may {level} {name}, which was not asked for")),
        (None, Some(_)) => Some("it is for a repository that was not asked for".to_owned()),
        (None, None) if !selected || named.is_empty() => {
            Some("it does not say that it is for these repositories only".to_owned())
        }
        (None, None) => None,
    };
    let words: Vec<String> = granted.iter().map(|(name, level)| format!("{name}:{level}")).collect();
    Ok(Minted {
        parts: vec![part("token", token.as_bytes())],
        until_ms: until.unwrap_or_else(|| in_seconds(3_600)),
        granted: format!("repositories={} permissions={}", named.join(","), words.join(",")),
        handle: Handle::Github { api_url: api_url.to_owned(), token: token.to_owned() },
        unfit: wider.or_else(|| until.is_none().then(|| "its answer does not say when it ends".to_owned())),
        renewed: None,
    })
}

pub(super) async fn revoke(asked: &Asked<'_>, api_url: &str, token: &str) -> Result<bool, String> {
    let got = asked.fetch.send(Get {
        method: Method::DELETE,
        url: format!("{api_url}/installation/token"),
        headers: headers(token),
        body: None,
        ca: None,
        at: None,
    });
    let got = got.await?;
    match got.status {
        // It is good for nothing any more already.
        StatusCode::NO_CONTENT | StatusCode::UNAUTHORIZED => Ok(true),
        _ => Err(got.refused()),
    }
}

fn headers(token: &str) -> Vec<(&'static str, Zeroizing<String>)> {
    let version = ("x-github-api-version", Zeroizing::new("2022-11-28".to_owned()));
    vec![bearer(token), ("accept", Zeroizing::new("application/vnd.github+json".to_owned())), version]
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn permissions(text: &str) -> Result<BTreeMap<String, String>, String> {
    let one = |item: &str| {
        let (name, level) = item.split_once(':')?;
        (1..=3).contains(&level_of(level)).then(|| (name.to_owned(), level.to_owned()))
    };
    let read: Option<BTreeMap<_, _>> = list(text).map(one).collect();
    read.filter(|read| !read.is_empty())
        .ok_or_else(|| "`permissions` is no list such as `contents:read`".to_owned())
}

fn level_of(level: &str) -> u8 {
    match level {
        "read" => 1,
        "write" => 2,
        "admin" => 3,
        "" | "none" => 0,
        // What is not known may be more.
        _ => 4,
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_number| "`installation` is no number".to_owned())
}
