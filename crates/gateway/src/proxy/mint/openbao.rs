//! Dynamic credentials of an OpenBao, or of a HashiCorp Vault: whatever a path gives, with the lease that it has there.

use hyper::{Method, StatusCode};
use zeroize::Zeroizing;

use super::fetch::{Get, Got};
use super::time::{in_seconds, seconds};
use super::{Asked, Handle, Minted, Part, part};

pub(super) async fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let path = asked.need("path")?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    if !path.bytes().all(fits) || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("`path` is no path such as `database/creds/readonly`".to_owned());
    }
    let answer = send(asked, Method::GET, path, None).await?.json(StatusCode::OK)?;
    let root = answer.root();
    let lease = root.get("lease_id").and_then(|id| id.as_str()).unwrap_or_default();
    let lasts = seconds(root.get("lease_duration"));
    // From here on there is something to give back, whatever is wrong with it.
    let data = root.get("data");
    // A KV store of version 2 has another `data` inside.
    let data = data.and_then(|data| data.get("data").filter(|inner| inner.is_object()).or(Some(data)));
    let mut parts: Vec<Part> = data
        .into_iter()
        .flat_map(|data| data.members().collect::<Vec<_>>())
        .filter_map(|(name, value)| Some(part(name, value.as_str()?.as_bytes())))
        .collect();
    let empty = parts.is_empty().then(|| "its answer has no text in its data".to_owned());
    let unfit = empty.or(lasts.clone().err());
    super::usual_first(&mut parts);
    let handle = if lease.is_empty() { Handle::None } else { Handle::Openbao { lease: lease.to_owned() } };
    let lasts = lasts.ok().flatten().filter(|_| !lease.is_empty()).unwrap_or(asked.ttl);
    Ok(Minted {
        parts,
        until_ms: in_seconds(lasts),
        granted: format!("path={path}"),
        handle,
        unfit,
        renewed: None,
    })
}

pub(super) async fn revoke(asked: &Asked<'_>, lease: &str) -> Result<bool, String> {
    let body = serde_json::json!({ "lease_id": lease, "sync": true }).to_string().into_bytes();
    let got = send(asked, Method::PUT, "sys/leases/revoke", Some(body)).await?;
    match got.status {
        StatusCode::NO_CONTENT | StatusCode::OK => Ok(true),
        _ => Err(got.refused()),
    }
}

async fn send(asked: &Asked<'_>, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Got, String> {
    let mut headers = vec![("x-vault-token", Zeroizing::new(asked.root_text()?.trim().to_owned()))];
    if let Some(namespace) = asked.get("namespace") {
        headers.push(("x-vault-namespace", Zeroizing::new(namespace.to_owned())));
    }
    let url = format!("{}/v1/{path}", asked.need("url")?.trim_end_matches('/'));
    let body = body.map(|body| ("application/json", Zeroizing::new(body)));
    asked.fetch.send(Get { method, url, headers, body, ca: None, at: None }).await
}
