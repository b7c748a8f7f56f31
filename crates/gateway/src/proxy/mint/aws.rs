//! AWS: keys of a role, cut by a session policy, and the signature of requests (Signature Version 4).
//!
//! `AssumeRole` answers XML. Nothing revokes its keys; they end, after a quarter of an hour at the least.

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use ring::{digest, hmac};
use toolgate_core::hex;
use zeroize::Zeroizing;

use super::super::attach::encoded;
use super::fetch::{Get, Got, form};
use super::time::{basic, now_s, rfc3339};
use super::{Asked, Handle, Lease, Minted};

/// Keys of AWS.
pub(in super::super) struct Keys<'a> {
    access: &'a str,
    secret: &'a str,
    session: Option<&'a str>,
}

impl<'a> Keys<'a> {
    /// Those of a role.
    pub(in super::super) fn of_lease(lease: &'a Lease) -> Option<Self> {
        let part = |name| lease.part(Some(name)).and_then(|part| std::str::from_utf8(part).ok());
        Some(Self {
            access: part("access_key_id")?,
            secret: part("secret_access_key")?,
            session: Some(part("session_token")?),
        })
    }

    /// Those that are written `ACCESS_KEY_ID:SECRET_ACCESS_KEY`.
    pub(in super::super) fn of_secret(secret: &'a [u8]) -> Option<Self> {
        let (access, secret) = std::str::from_utf8(secret).ok()?.trim().split_once(':')?;
        Some(Self { access, secret, session: None })
    }
}

/// What Secrets Manager keeps: its members, if it is an object of JSON.
pub(super) async fn read(asked: &Asked<'_>) -> Result<Minted, String> {
    let id = asked.need("secret_id")?;
    let region = region(asked)?;
    let usual = format!("https://secretsmanager.{region}.amazonaws.com/");
    let url = asked.get("url").unwrap_or(&usual);
    let body = Zeroizing::new(serde_json::json!({ "SecretId": id }).to_string().into_bytes());
    let target = [("x-amz-target", "secretsmanager.GetSecretValue")];
    let got =
        ask(asked, url, "secretsmanager", &target, ("application/x-amz-json-1.1", body), "application/json")
            .await?;
    let answer = got.json(StatusCode::OK)?;
    let text = answer.root().get("SecretString").and_then(|text| text.as_str());
    super::kept(asked, text.ok_or("it keeps no text under this name")?, format!("secret_id={id}"))
}

fn region<'a>(asked: &'a Asked<'_>) -> Result<&'a str, String> {
    let region = asked.get("region").unwrap_or("us-east-1");
    let plain = region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain { Ok(region) } else { Err("`region` is no region".to_owned()) }
}

/// Asks a service, signed with the secret's keys.
async fn ask(
    asked: &Asked<'_>,
    url: &str,
    service: &str,
    more: &[(&'static str, &str)],
    (kind, body): (&'static str, Zeroizing<Vec<u8>>),
    accept: &str,
) -> Result<Got, String> {
    let keys = Keys::of_secret(asked.root);
    let keys = keys.ok_or_else(|| format!("the secret is not {}", asked.provider.value()))?;
    let mut request =
        Request::builder().method(Method::POST).uri(url).body(()).map_err(|error| error.to_string())?;
    let host = request.uri().authority().map(ToString::to_string).ok_or("the address has no host")?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
    request.headers_mut().insert("host", value(&host)?);
    request.headers_mut().insert("content-type", value(kind)?);
    for (name, text) in more {
        request.headers_mut().insert(*name, value(text)?);
    }
    sign_request(&mut request, &body, &keys, region(asked)?, service)
        .ok_or("the request cannot be signed")?;
    let names = ["x-amz-date", "x-amz-content-sha256", "x-amz-target", "authorization"];
    let signed = names.into_iter().filter_map(|name| {
        let value = request.headers().get(name)?.to_str().ok()?;
        Some((name, Zeroizing::new(value.to_owned())))
    });
    let accept = ("accept", Zeroizing::new(accept.to_owned()));
    let headers = signed.chain([accept]).collect();
    let get = Get {
        method: Method::POST,
        url: url.to_owned(),
        headers,
        body: Some((kind, body)),
        ca: None,
        at: None,
    };
    asked.fetch.send(get).await
}

pub(super) async fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let usual = format!("https://sts.{}.amazonaws.com/", region(asked)?);
    let url = asked.get("sts_url").unwrap_or(&usual);
    let (role, ttl) = (asked.need("role_arn")?, asked.ttl.to_string());
    let mut fields = vec![
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", role),
        ("RoleSessionName", asked.get("session_name").unwrap_or("toolgate")),
        ("DurationSeconds", ttl.as_str()),
    ];
    fields.extend(asked.get("policy").map(|policy| ("Policy", policy)));
    fields.extend(asked.get("external_id").map(|id| ("ExternalId", id)));
    let got = ask(asked, url, "sts", &[], form(&fields), "text/xml").await?;
    let text = std::str::from_utf8(&got.body).map_err(|_bytes| "its answer is no text".to_owned())?;
    if got.status != StatusCode::OK {
        let code = element(text, "Code")
            .filter(|code| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphabetic()));
        return Err(format!("it answered {} {}", got.status.as_u16(), code.unwrap_or_default()));
    }
    let credentials = element(text, "Credentials").ok_or("its answer has no credentials")?;
    let part = |part: &str, name: &str| {
        let plain = |b: u8| b.is_ascii_graphic() && b != b'&';
        let value = element(credentials, name).filter(|value| value.bytes().all(plain));
        value
            .map(|value| super::part(part, value.as_bytes()))
            .ok_or_else(|| format!("its answer has no {name}"))
    };
    let until = element(credentials, "Expiration").and_then(rfc3339);
    Ok(Minted {
        parts: vec![
            part("session_token", "SessionToken")?,
            part("access_key_id", "AccessKeyId")?,
            part("secret_access_key", "SecretAccessKey")?,
        ],
        until_ms: until.ok_or("its answer does not say when it ends")?,
        granted: format!(
            "role={role} policy={}",
            asked
                .get("policy")
                .map_or("none".to_owned(), |policy| format!("sha256:{}", hash(policy.as_bytes())))
        ),
        handle: Handle::None,
        unfit: None,
        renewed: None,
    })
}

/// What an element of this name holds that has no attributes: the first there is.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.trim())
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Signs a request with these keys, as it is now: over its method, path, query, host, kind and body. `None`: it has something that
/// cannot be signed.
pub(in super::super) fn sign_request<B>(
    request: &mut Request<B>,
    body: &[u8],
    keys: &Keys<'_>,
    region: &str,
    service: &str,
) -> Option<()> {
    sign_at(request, body, keys, region, service, &basic(now_s()))
}

fn sign_at<B>(
    request: &mut Request<B>,
    body: &[u8],
    keys: &Keys<'_>,
    region: &str,
    service: &str,
    at: &str,
) -> Option<()> {
    let body_hash = hash(body);
    let headers = request.headers_mut();
    headers.remove(AUTHORIZATION);
    headers.remove("x-amz-security-token");
    headers.insert("x-amz-date", HeaderValue::from_str(at).ok()?);
    headers.insert("x-amz-content-sha256", HeaderValue::from_str(&body_hash).ok()?);
    if let Some(session) = keys.session {
        let mut session = HeaderValue::from_str(session).ok()?;
        session.set_sensitive(true);
        headers.insert("x-amz-security-token", session);
    }
    let signed = |name: &HeaderName| {
        matches!(name.as_str(), "host" | "content-type") || name.as_str().starts_with("x-amz-")
    };
    let mut names: Vec<&str> =
        request.headers().keys().filter(|name| signed(name)).map(HeaderName::as_str).collect();
    names.sort_unstable();
    let mut canonical = Zeroizing::new(String::new());
    canonical.push_str(request.method().as_str());
    canonical.push('\n');
    canonical.push_str(&path(request.uri().path(), service));
    canonical.push('\n');
    canonical.push_str(&query(request.uri().query().unwrap_or_default()));
    canonical.push('\n');
    for name in &names {
        let values: Option<Vec<&str>> =
            request.headers().get_all(*name).iter().map(|value| value.to_str().ok().map(str::trim)).collect();
        canonical.push_str(&format!("{name}:{}\n", values?.join(",")));
    }
    let names = names.join(";");
    canonical.push_str(&format!("\n{names}\n{body_hash}"));
    let day = at.get(..8)?;
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hash(canonical.as_bytes()));
    let mut key = Zeroizing::new(format!("AWS4{}", keys.secret).into_bytes());
    for part in [day, region, service, "aws4_request"] {
        key = Zeroizing::new(mac(&key, part.as_bytes()).as_ref().to_vec());
    }
    let signature = hex::encode(mac(&key, to_sign.as_bytes()).as_ref());
    let access = keys.access;
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}");
    let mut authorization = HeaderValue::from_str(&authorization).ok()?;
    authorization.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, authorization);
    Some(())
}

fn mac(key: &[u8], bytes: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes)
}

/// The path as it is signed: what is encoded already is encoded once more, but for S3.
fn path<'p>(path: &'p str, service: &str) -> Cow<'p, str> {
    if path.is_empty() {
        return Cow::Borrowed("/");
    }
    if service == "s3" {
        return Cow::Borrowed(path);
    }
    let parts: Vec<String> = path.split('/').map(|part| encoded(part.as_bytes()).to_string()).collect();
    Cow::Owned(parts.join("/"))
}

/// The query as it is signed: each name and value encoded in the one way, by name, and then by value.
fn query(query: &str) -> String {
    let one_way = |text: &str| encoded(&decoded(text)).to_string();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut pairs: Vec<_> = pairs.map(|(name, value)| (one_way(name), one_way(value))).collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Without percent signs. One that encodes nothing stays.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let byte = match (digit(tail.first()), digit(tail.get(1))) {
            (Some(high), Some(low)) if *first == b'%' => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        out.push(byte.unwrap_or(*first));
        rest = tail.get(if byte.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of AWS's test suite for Signature Version 4: their key, date, region and service.
    fn signature(method: &str, uri: &str, headers: &[(&'static str, &str)], body: &[u8]) -> String {
        let keys = Keys {
            access: concat!("AKID", "EXAMPLE"),
            secret: concat!("wJalrXUtnFEMI/K7MDENG+", "bPxRfiCYEXAMPLEKEY"),
            session: None,
        };
        let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
        }
        sign_at(&mut request, body, &keys, "us-east-1", "service", "20150830T123600Z").unwrap();
        request.headers()[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_key_is_derived_as_the_documentation_says() {
        // From "Examples of how to derive a signing key".
        let mut key = [b"AWS4".as_slice(), b"wJalrXUtnFEMI/K7MDENG+", b"bPxRfiCYEXAMPLEKEY"].concat();
        for part in ["20120215", "us-east-1", "iam", "aws4_request"] {
            key = mac(&key, part.as_bytes()).as_ref().to_vec();
        }
        assert_eq!(hex::encode(&key), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
    }

    #[test]
    fn what_is_signed_is_in_order() {
        assert_eq!(query("b=2&a=1&a=0&c"), "a=0&a=1&b=2&c=");
        assert_eq!(query("k:=a/b%7ec%3a%2&x=%C3%A9"), "k%3A=a%2Fb~c%3A%252&x=%C3%A9");
        assert_eq!(path("/a%20b/c", "s3"), "/a%20b/c");
        assert_eq!(path("/a%20b/c", "service"), "/a%2520b/c");
        assert_eq!(path("", "service"), "/");
        let host = ("host", "example.amazonaws.com");
        let plain = signature("GET", "https://example.amazonaws.com/", &[host], b"");
        assert!(plain.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature="), "{plain}");
        assert!(plain.starts_with("AWS4-HMAC-SHA256 Credential="), "{plain}");
        // Each part counts.
        for (method, uri, headers, body) in [
            ("POST", "https://example.amazonaws.com/", vec![host], &b""[..]),
            ("GET", "https://example.amazonaws.com/a", vec![host], b""),
            ("GET", "https://example.amazonaws.com/?a", vec![host], b""),
            ("GET", "https://example.amazonaws.com/", vec![("host", "example.org")], b""),
            ("GET", "https://example.amazonaws.com/", vec![host, ("x-amz-a", "1")], b""),
            ("GET", "https://example.amazonaws.com/", vec![host], b"x"),
        ] {
            assert_ne!(signature(method, uri, &headers, body), plain, "{method} {uri} {headers:?}");
        }
        let other = signature("GET", "https://example.amazonaws.com/", &[host, ("accept", "x")], b"");
        assert_eq!(other, plain, "what others may change on the way is not signed");
    }

    #[test]
    fn elements_are_found() {
        let text = "<a><Credentials>\n<SessionToken>t==</SessionToken></Credentials></a>";
        assert_eq!(element(text, "SessionToken"), Some("t=="));
        assert_eq!(element(text, "Token"), None);
        assert_eq!(element("<a>x", "a"), None);
    }
}
