//! Tokens of a Kubernetes service account (`TokenRequest`), bound to a secret that is made for it: deleting that revokes it.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use toolgate_core::hex;
use zeroize::Zeroizing;

use super::fetch::{Get, Got, bearer};
use super::time::rfc3339;
use super::{Asked, Handle, Minted, part};

/// What the secret is called that a lease is bound to.
pub(super) fn secret(id: &[u8; 16]) -> String {
    format!("toolgate-{}", hex::encode(id))
}

pub(super) async fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let account = plain(asked, "service_account")?;
    let bound = match asked.handle_before() {
        Handle::Kubernetes { secret } => {
            let made = send(
                asked,
                Method::POST,
                "secrets",
                Some(json!({
                    "apiVersion": "v1", "kind": "Secret", "metadata": { "name": secret }, "type": "Opaque",
                })),
            );
            let made = made.await?.json(StatusCode::CREATED)?;
            let uid = made.root().path(&["metadata", "uid"]).and_then(|uid| uid.as_str());
            Some((secret, uid.ok_or("the secret that it made has no uid")?.to_owned()))
        }
        _ => None,
    };
    let mut spec = json!({ "expirationSeconds": asked.ttl });
    if let Some(spec) = spec.as_object_mut() {
        if let Some(audience) = asked.get("audience") {
            spec.insert("audiences".to_owned(), json!([audience]));
        }
        if let Some((name, uid)) = &bound {
            let object = json!({ "kind": "Secret", "apiVersion": "v1", "name": name, "uid": uid });
            spec.insert("boundObjectRef".to_owned(), object);
        }
    }
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
    let got = send(asked, Method::POST, &format!("serviceaccounts/{account}/token"), Some(request)).await?;
    let answer = got.json(StatusCode::CREATED)?;
    let status = |name: &str| answer.root().path(&["status", name]).and_then(|value| value.as_str());
    let token = status("token").ok_or("its answer has no token")?;
    let until =
        status("expirationTimestamp").and_then(rfc3339).ok_or("its answer does not say when it ends")?;
    Ok(Minted {
        parts: vec![part("token", token.as_bytes())],
        until_ms: until,
        granted: format!("account={}/{account}", asked.need("namespace")?),
        handle: bound.map_or(Handle::None, |(secret, _)| Handle::Kubernetes { secret }),
        unfit: None,
        renewed: None,
    })
}

pub(super) async fn revoke(asked: &Asked<'_>, secret: &str) -> Result<bool, String> {
    let got = send(asked, Method::DELETE, &format!("secrets/{secret}"), None).await?;
    match got.status {
        StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NOT_FOUND => Ok(true),
        _ => Err(got.refused()),
    }
}

async fn send(asked: &Asked<'_>, method: Method, what: &str, body: Option<Value>) -> Result<Got, String> {
    let (api, namespace) = (asked.need("api_url")?.trim_end_matches('/'), plain(asked, "namespace")?);
    let body = body.map(|body| ("application/json", Zeroizing::new(body.to_string().into_bytes())));
    let get = Get {
        method,
        url: format!("{api}/api/v1/namespaces/{namespace}/{what}"),
        headers: vec![bearer(asked.root_text()?.trim())],
        body,
        ca: asked.get("ca"),
        at: None,
    };
    asked.fetch.send(get).await
}

/// A name of Kubernetes: it becomes part of a path.
fn plain<'a>(asked: &'a Asked<'_>, name: &str) -> Result<&'a str, String> {
    let text = asked.need(name)?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if text.is_empty() || !text.bytes().all(fits) || text.starts_with('.') {
        return Err(format!("`{name}` is no name of Kubernetes"));
    }
    Ok(text)
}
