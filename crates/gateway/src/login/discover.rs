//! Who gives tokens for a server, and how.

use hyper::header::WWW_AUTHENTICATE;
use hyper::{Method, StatusCode, Uri};
use toolgate_core::json::{Document, Value};
use zeroize::Zeroizing;

use super::{LoginError, MAX_TEXT, Web, address, host_of, json, resolved, scope, text, texts};
use crate::proxy::Got;

/// What a client without a token asks first.
const HELLO: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"toolgate","version":"1"}}}"#;

/// How many authorization servers a server may name, and scopes.
const MAX_NAMED: usize = 100;

/// Where and how one logs in to a server.
pub struct Found {
    pub(super) web: Web,
    /// What the tokens are for: the server, as it calls itself.
    pub resource: String,
    /// Who gives them.
    pub issuer: String,
    /// Where a person consents.
    pub authorization_endpoint: String,
    /// Where codes become tokens.
    pub token_endpoint: String,
    /// Where clients are registered.
    pub registration_endpoint: Option<String>,
    /// Where tokens are revoked.
    pub revocation_endpoint: Option<String>,
    /// What is asked for.
    pub scope: Option<String>,
    /// Whether its answers say that they are its own (RFC 9207).
    pub(super) says_who_it_is: bool,
    /// Whether it takes a client's secret in the form only.
    pub(super) post: bool,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// What a person may say of a login before it begins.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The certificates that are believed, in PEM; if not the system's.
    pub ca: Option<String>,
    /// The authorization server, where there are several.
    pub issuer: Option<String>,
    /// What is asked for, whatever the server says.
    pub scope: Option<String>,
}

impl Found {
    /// Finds out where one logs in to the server at this address.
    ///
    /// # Errors
    /// It does not say so, or somebody says what cannot be used.
    pub async fn at(server: &str, wishes: Wishes) -> Result<Self, LoginError> {
        let unusable = |why: String| LoginError::Unusable { url: server.to_owned(), why };
        address(server).map_err(unusable)?;
        let (host, port) = host_of(server).ok_or_else(|| unusable("it is no address".to_owned()))?;
        let unreachable = |why: String| LoginError::Unreachable { url: server.to_owned(), why };
        // Where the operator's server is, others may be too; and it itself, wherever it is.
        let addresses = resolved(&host, port).await.map_err(unreachable)?;
        let private = addresses.iter().all(|ip| toolgate_sandbox::egress::reach(*ip) != super::Reach::Public);
        let web = Web::new(wishes.ca, private);
        let asked_for = wishes.scope.as_deref().map(scope).transpose()?;
        let challenge = Challenge::of(&web, server).await?;
        let (url, resource) = metadata_of(&web, server, &challenge).await?;
        let unusable = |why: String| LoginError::Unusable { url: url.clone(), why };
        let issuer = issuer(resource.root(), wishes.issuer.as_deref()).map_err(unusable)?;
        let named = wishes.issuer.is_some();
        let offered = texts(resource.root(), "scopes_supported").map_err(unusable)?;
        let offered = offered.map(|scopes| scopes.into_iter().take(MAX_NAMED).collect::<Vec<_>>().join(" "));
        let hinted = challenge.scope.or(offered);
        let identifier = text(resource.root(), "resource").ok().flatten().unwrap_or(server).to_owned();
        let wanted = match (asked_for, hinted) {
            (Some(scope), _) => (Some(scope), false),
            (None, Some(hinted)) => (Some(scope(&hinted)?).filter(|scope| !scope.is_empty()), true),
            (None, None) => (None, true),
        };
        Self::by(web, identifier, (issuer, named), wanted).await
    }

    /// What the authorization server says of itself.
    async fn by(
        web: Web,
        resource: String,
        (issuer, named): (String, bool),
        (mut scope, more): (Option<String>, bool),
    ) -> Result<Self, LoginError> {
        let mut found = None;
        for url in well_known_of(&issuer) {
            let got = web.get(&url).await?;
            if let Some(document) = document(&got, &url)? {
                found = Some((url, document));
                break;
            }
        }
        let unusable = |url: &str, why: String| LoginError::Unusable { url: url.to_owned(), why };
        let (url, document) =
            found.ok_or_else(|| unusable(&issuer, "it has no metadata (RFC 8414, OpenID)".to_owned()))?;
        let unusable = |why: String| unusable(&url, why);
        let root = document.root();
        // Else one server could speak for another (mix-up).
        if text(root, "issuer").map_err(unusable)? != Some(&issuer) {
            return Err(unusable("it is for another issuer".to_owned()));
        }
        let endpoint = |name: &str| -> Result<Option<String>, LoginError> {
            let said = text(root, name).map_err(unusable)?;
            said.map(address).transpose().map_err(unusable)
        };
        let needed = |name: &str| endpoint(name)?.ok_or_else(|| unusable(format!("there is no `{name}`")));
        let list = |name: &str| texts(root, name).map_err(unusable);
        if !list("code_challenge_methods_supported")?.is_some_and(|all| all.contains(&"S256")) {
            return Err(LoginError::NoPkce(issuer));
        }
        if list("response_types_supported")?.is_some_and(|all| !all.contains(&"code")) {
            return Err(unusable("it gives no codes".to_owned()));
        }
        // Without it some give nothing that can be renewed.
        let offline = list("scopes_supported")?.is_some_and(|all| all.contains(&OFFLINE));
        if more
            && offline
            && !scope.as_deref().is_some_and(|scope| scope.split(' ').any(|one| one == OFFLINE))
        {
            scope = Some(scope.map_or_else(|| OFFLINE.to_owned(), |scope| format!("{scope} {OFFLINE}")));
        }
        let (authorization_endpoint, token_endpoint) =
            (needed("authorization_endpoint")?, needed("token_endpoint")?);
        let (registration_endpoint, revocation_endpoint) =
            (endpoint("registration_endpoint")?, endpoint("revocation_endpoint")?);
        // One that nobody asks now is sealed, and asked later.
        let all = [
            Some(&authorization_endpoint),
            Some(&token_endpoint),
            registration_endpoint.as_ref(),
            revocation_endpoint.as_ref(),
        ];
        for url in all.into_iter().flatten() {
            let looked = web.address(url).await;
            looked.map_err(|why| LoginError::Unusable { url: url.clone(), why })?;
        }
        let says_who = root.get("authorization_response_iss_parameter_supported");
        let says_who_it_is = says_who.and_then(|value| value.as_bool()).unwrap_or_default();
        // What one host gives goes to no other, unless the answer says who gave it (RFC 9207): else it could be somebody else's.
        let origin = |url: &str| taken_apart(url).map(|(origin, _)| origin);
        if origin(&authorization_endpoint) != origin(&token_endpoint) && !says_who_it_is && !named {
            return Err(unusable(
                "its codes would go to another host than the one that gives them, and it does not say in its answers who it is; if that is as it should be, name it by `--issuer`".to_owned(),
            ));
        }
        let ways = list("token_endpoint_auth_methods_supported")?.unwrap_or_default();
        Ok(Self {
            resource,
            authorization_endpoint,
            token_endpoint,
            registration_endpoint,
            revocation_endpoint,
            says_who_it_is,
            post: !ways.contains(&"client_secret_basic") && ways.contains(&"client_secret_post"),
            scope,
            issuer,
            web,
        })
    }
}

/// The scope of what can be renewed when nobody is there (OpenID Connect).
pub(super) const OFFLINE: &str = "offline_access";

/// What a server says to who comes without a token.
struct Challenge {
    status: StatusCode,
    metadata: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    async fn of(web: &Web, server: &str) -> Result<Self, LoginError> {
        let both = Zeroizing::new("application/json, text/event-stream".to_owned());
        let body = Zeroizing::new(HELLO.as_bytes().to_vec());
        let asked = web.ask(Method::POST, server, vec![("accept", both)], Some(("application/json", body)));
        let Got { status, headers, .. } = asked.await?;
        let mut this = Self { status, metadata: None, scope: None };
        if status == StatusCode::UNAUTHORIZED {
            for value in headers.get_all(WWW_AUTHENTICATE) {
                for (name, text) in value.to_str().map(parameters).unwrap_or_default() {
                    match name.as_str() {
                        "resource_metadata" if this.metadata.is_none() => this.metadata = Some(text),
                        "scope" if this.scope.is_none() => this.scope = Some(text),
                        _ => {}
                    }
                }
            }
        }
        Ok(this)
    }
}

/// The parameters of the `Bearer` challenges in a header (RFC 9110, section 11.6.1).
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut bearer = false;
    let mut rest = header.get(..header.len().min(MAX_TEXT)).unwrap_or_default();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            // The end, or nothing that is a challenge.
            return all;
        }
        let Some(value) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else {
            bearer = word.eq_ignore_ascii_case("bearer");
            rest = after;
            continue;
        };
        let value = value.trim_start_matches([' ', '\t']);
        let (text, after) = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let end = value.find([' ', '\t', ',']).unwrap_or(value.len());
                let (text, after) = value.split_at(end);
                (text.to_owned(), after)
            }
        };
        if bearer {
            all.push((word.to_ascii_lowercase(), text));
        }
        rest = after;
    }
}

/// What is in quotes, and what comes after.
fn unquoted(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut signs = quoted.chars();
    while let Some(sign) = signs.next() {
        match sign {
            '"' => break,
            '\\' => text.extend(signs.next()),
            other => text.push(other),
        }
    }
    (text, signs.as_str())
}

/// The metadata of a server, and where they are: where it says, or at the well-known places.
async fn metadata_of(
    web: &Web,
    server: &str,
    challenge: &Challenge,
) -> Result<(String, Document), LoginError> {
    let unusable = |why: &str| LoginError::Unusable { url: server.to_owned(), why: why.to_owned() };
    let (origin, path) = taken_apart(server).ok_or_else(|| unusable("it is no address"))?;
    const NAME: &str = "/.well-known/oauth-protected-resource";
    let at_root = format!("{origin}{NAME}");
    let places = match &challenge.metadata {
        Some(url) => {
            address(url).map_err(|why| unusable(&why))?;
            // A server speaks of itself, and has nobody else asked.
            if taken_apart(url).is_none_or(|(other, _)| other != origin) {
                return Err(unusable("its metadata are at another host"));
            }
            vec![url.clone()]
        }
        None if path == "/" => vec![at_root.clone()],
        None => vec![format!("{origin}{NAME}{path}"), at_root.clone()],
    };
    for url in places {
        let got = web.get(&url).await?;
        let Some(document) = document(&got, &url)? else { continue };
        let unusable = |why: String| LoginError::Unusable { url: url.clone(), why };
        let said = text(document.root(), "resource").map_err(unusable)?.unwrap_or_default();
        let said = taken_apart(said).map(|(origin, path)| format!("{origin}{}", path.trim_end_matches('/')));
        let itself = format!("{origin}{}", path.trim_end_matches('/'));
        // What stands for the whole host stands at its root.
        let host = (url == at_root).then_some(&origin);
        if said.as_ref().is_none_or(|said| *said != itself && Some(said) != host) {
            return Err(unusable(format!("it is for another server than `{itself}`")));
        }
        return Ok((url, document));
    }
    Err(LoginError::NoLogin { server: server.to_owned(), status: challenge.status.as_u16() })
}

/// Scheme, host and port as they are compared; and the path.
fn taken_apart(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let authority = uri.authority()?;
    let host = authority.host().to_ascii_lowercase();
    let usual = if scheme == "https" { 443 } else { 80 };
    let port = authority.port_u16().filter(|port| *port != usual);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some((format!("{scheme}://{host}{port}"), uri.path().to_owned()))
}

/// Where an issuer may have its metadata (RFC 8414, section 3; OpenID Connect Discovery; the order of MCP).
fn well_known_of(issuer: &str) -> Vec<String> {
    const OAUTH: &str = "/.well-known/oauth-authorization-server";
    const OPENID: &str = "/.well-known/openid-configuration";
    let Some((origin, path)) = taken_apart(issuer) else { return Vec::new() };
    match path.trim_end_matches('/') {
        "" => vec![format!("{origin}{OAUTH}"), format!("{origin}{OPENID}")],
        path => vec![
            format!("{origin}{OAUTH}{path}"),
            format!("{origin}{OPENID}{path}"),
            format!("{origin}{path}{OPENID}"),
        ],
    }
}

/// The document, or nothing where there is none.
fn document(got: &Got, url: &str) -> Result<Option<Document>, LoginError> {
    let unusable = |why: String| LoginError::Unusable { url: url.to_owned(), why };
    match got.status {
        StatusCode::OK => json(got).map(Some).map_err(unusable),
        status if status.is_client_error() => Ok(None),
        status if status.is_redirection() => {
            Err(unusable(format!("it sends one elsewhere ({})", status.as_u16())))
        }
        _ => Err(unusable(got.refused())),
    }
}

/// The authorization server that is meant.
fn issuer(root: Value<'_>, wanted: Option<&str>) -> Result<String, String> {
    let named = texts(root, "authorization_servers")?.unwrap_or_default();
    let found = match wanted {
        Some(wanted) => named.iter().take(MAX_NAMED).find(|named| **named == wanted),
        None => named.first(),
    };
    let found = found.ok_or_else(|| match wanted {
        Some(_) => "it names no such authorization server".to_owned(),
        None => "it names no authorization server".to_owned(),
    })?;
    let found = address(found)?;
    if found.contains('?') {
        return Err("the authorization server's name has a query".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        for (header, want) in [
            (
                r#"Bearer resource_metadata="https://a.example/x", scope="a b""#,
                vec![pair("resource_metadata", "https://a.example/x"), pair("scope", "a b")],
            ),
            (
                r#"Basic realm="x", Bearer scope = c,error=invalid"#,
                vec![pair("scope", "c"), pair("error", "invalid")],
            ),
            (r#"Bearer scope="a\"b"#, vec![pair("scope", "a\"b")]),
            ("Basic scope=x", vec![]),
            ("Bearer", vec![]),
            ("", vec![]),
            ("=", vec![]),
            ("Bearer ==x", vec![]),
            ("Bearer \u{e4}=\u{f6}", vec![pair("\u{e4}", "\u{f6}")]),
        ] {
            assert_eq!(parameters(header), want, "{header}");
        }
        // However long it is, it has an end.
        assert!(parameters(&format!("Bearer {}", "a=b,".repeat(100_000))).len() <= MAX_TEXT);
    }

    #[test]
    fn places_of_metadata() {
        assert_eq!(
            well_known_of("https://id.example/tenant/"),
            [
                "https://id.example/.well-known/oauth-authorization-server/tenant",
                "https://id.example/.well-known/openid-configuration/tenant",
                "https://id.example/tenant/.well-known/openid-configuration",
            ]
        );
        assert_eq!(well_known_of("https://ID.example:443").len(), 2);
        for (url, want) in [
            ("https://A.example:443/x", Some(("https://a.example", "/x"))),
            ("http://127.0.0.1:80", Some(("http://127.0.0.1", "/"))),
            ("https://a.example:8443/", Some(("https://a.example:8443", "/"))),
            ("/x", None),
        ] {
            let got = taken_apart(url);
            assert_eq!(got.as_ref().map(|(a, b)| (a.as_str(), b.as_str())), want, "{url}");
        }
    }
}
