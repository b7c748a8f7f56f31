//! Providers that mint what a server over HTTP gets: one of npm, and others, which cannot be had here, by their public wire formats.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::home::{Gate, Home, Printed};
use crate::http::{Asked, Reply, mcp, serve, serve_with};
use crate::servers::{Oidc, done, folder, installed};
use crate::{POLICY, leases, up, wait};

/// Requests that came, as `METHOD /path`, each with what authorized it and its body.
type Seen = Arc<Mutex<Vec<(String, String, String)>>>;

/// A gate, and a server whose calls get what a stand-in mints. `{port}` in what the secret is good for is the port of both.
fn gate(
    name: &str,
    root: &str,
    uses: &[&str],
    answer: impl Fn(&Asked) -> Option<Reply> + Clone + Send + 'static,
) -> (Home, Gate, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let port = serve(move |asked| {
        let line = format!("{} {}", asked.method(), asked.path());
        let body = String::from_utf8(asked.body.clone()).unwrap();
        noted.lock().unwrap().push((line, asked.bearer(), body));
        answer(asked).unwrap_or_else(|| mcp(asked, |_arguments| "done".to_owned()))
    });
    let home = Home::new(name);
    home.config(&format!("[servers.api]\nurl = \"http://127.0.0.1:{port}/mcp\"\nsecrets = [\"root\"]\n"));
    home.policy(POLICY);
    let uses: Vec<String> = uses.iter().map(|word| word.replace("{port}", &port.to_string())).collect();
    let host = format!("127.0.0.1:{port}");
    let mut add =
        vec!["secret", "add", "root", "--tool", "api/*", "--slot", "header:Authorization", "--host", &host];
    add.extend(uses.iter().map(String::as_str));
    let added = home.fed(&add, root.as_bytes());
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let gate = up(&home);
    (home, gate, seen)
}

/// What came for this line last: what authorized it, and its body.
fn last(seen: &Seen, line: &str) -> (String, Value) {
    let seen = seen.lock().unwrap();
    let found = seen.iter().rev().find(|(said, _, _)| said == line);
    let (_, authorized, body) = found.unwrap_or_else(|| panic!("{line}: {seen:?}"));
    (authorized.clone(), serde_json::from_str(body).unwrap_or_else(|_form| json!(body)))
}

/// A private key in PEM, and the public one.
struct Key {
    private: String,
    public: PathBuf,
}

impl Key {
    fn new(format: &str) -> Self {
        let folder = folder("key");
        let path = folder.join("key");
        done(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "rsa", "-b", "2048", "-m", format, "-N", "", "-f"])
                .arg(&path),
        );
        let public = folder.join("public.pem");
        let text = done(
            Command::new("ssh-keygen").args(["-e", "-m", "PKCS8", "-f"]).arg(path.with_extension("pub")),
        );
        fs::write(&public, text).unwrap();
        Self { private: fs::read_to_string(&path).unwrap(), public }
    }

    /// The claims of a token that this key has signed, as another implementation reads them.
    fn claims(&self, token: &str) -> Value {
        const READ: &str = "import sys, base64, json\n\
            from cryptography.hazmat.primitives import serialization, hashes\n\
            from cryptography.hazmat.primitives.asymmetric import padding\n\
            key = serialization.load_pem_public_key(open(sys.argv[1], 'rb').read())\n\
            part = lambda text: base64.urlsafe_b64decode(text + '=' * (-len(text) % 4))\n\
            head, claims, signature = sys.argv[2].split('.')\n\
            key.verify(part(signature), (head + '.' + claims).encode(), padding.PKCS1v15(), hashes.SHA256())\n\
            assert json.loads(part(head))['alg'] == 'RS256'\n\
            print(part(claims).decode())";
        let mut python = Command::new(installed("python"));
        serde_json::from_str(&done(python.args(["-c", READ]).arg(&self.public).arg(token))).unwrap()
    }
}

/// An hour from now, as RFC 3339 writes it.
fn in_an_hour() -> String {
    done(Command::new("date").args(["-u", "-d", "+1 hour", "+%Y-%m-%dT%H:%M:%SZ"]))
}

#[test]
fn a_token_of_a_github_app_is_for_the_repository_of_the_call() {
    let key = Key::new("PEM");
    let wide = Arc::new(Mutex::new(false));
    let is_wide = Arc::clone(&wide);
    let answer = move |asked: &Asked| match (asked.method(), asked.path()) {
        ("POST", "/app/installations/7/access_tokens") => {
            let wanted = asked.json();
            let names = wanted["repositories"].as_array().unwrap().clone();
            let mut repositories: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
            if *is_wide.lock().unwrap() {
                repositories.push(json!({ "name": "other" }));
            }
            let mut permissions = wanted["permissions"].clone();
            permissions["metadata"] = json!("read");
            Some(Reply::json(
                201,
                &json!({
                    "token": format!("{}_7_{}", "ghs", "Ab3dE6".repeat(100)), "expires_at": in_an_hour(),
                    "permissions": permissions, "repositories": repositories, "repository_selection": "selected",
                }),
            ))
        }
        ("DELETE", "/installation/token") => {
            Some(Reply { status: 204, kind: "text/plain", body: String::new() })
        }
        _ => None,
    };
    let mint = [
        "--mint",
        "github-app",
        "--with",
        "client_id=Iv1.test",
        "--with",
        "installation=7",
        "--with",
        "permissions=contents:read",
        "--with",
        "repositories={args.repo}",
        "--with",
        "idle.repositories=handbook",
        "--with",
        "api_url=http://127.0.0.1:{port}",
    ];
    let (home, gate, seen) = gate("stand-github", &key.private, &mint, answer);
    assert_eq!(gate.call("api__read", &json!({ "repo": "site" })), "done");
    let (own, body) = last(&seen, "POST /app/installations/7/access_tokens");
    assert_eq!(body, json!({ "repositories": ["site"], "permissions": { "contents": "read" } }));
    let claims = key.claims(&own);
    assert_eq!(claims["iss"], "Iv1.test");
    assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 600, "{claims}");
    assert!(last(&seen, "POST /mcp").0.starts_with("ghs_7_"));
    // One that is for more is given back, and not used.
    *wide.lock().unwrap() = true;
    let used = || seen.lock().unwrap().iter().filter(|(_, _, body)| body.contains("tools/call")).count();
    let before = used();
    assert_ne!(gate.call("api__read", &json!({ "repo": "docs" })), "done");
    assert_eq!(used(), before);
    let given_back =
        |lease: &Value| lease["why"].as_str().unwrap().contains("a repository that was not asked for");
    wait("it is given back", || leases(&home, "revoked").iter().any(given_back));
    assert!(last(&seen, "DELETE /installation/token").0.starts_with("ghs_7_"));
    let deleted = || seen.lock().unwrap().iter().filter(|(line, _, _)| line.starts_with("DELETE")).count();
    let so_far = deleted();
    gate.end_session();
    wait("the end", || deleted() > so_far);
}

#[test]
fn a_token_of_kubernetes_is_bound_to_a_secret_that_is_deleted() {
    let answer = |asked: &Asked| match (asked.method(), asked.path()) {
        ("POST", "/api/v1/namespaces/ci/secrets") => Some(Reply::json(
            201,
            &json!({ "metadata": { "name": asked.json()["metadata"]["name"], "uid": "u-1" } }),
        )),
        ("POST", "/api/v1/namespaces/ci/serviceaccounts/deployer/token") => {
            let token = ["k8s", "of-the-test-Xq7vN2"].join("-");
            let status = json!({ "token": token, "expirationTimestamp": in_an_hour() });
            Some(Reply::json(201, &json!({ "kind": "TokenRequest", "status": status })))
        }
        ("DELETE", path) if path.starts_with("/api/v1/namespaces/ci/secrets/toolgate-") => {
            Some(Reply::json(200, &json!({ "kind": "Status", "status": "Success" })))
        }
        _ => None,
    };
    let mint = [
        "--mint",
        "kubernetes",
        "--with",
        "api_url=http://127.0.0.1:{port}",
        "--with",
        "namespace=ci",
        "--with",
        "service_account=deployer",
        "--with",
        "audience=api",
        "--with",
        "revocable=yes",
    ];
    let (home, gate, seen) = gate("stand-kubernetes", "of-the-test-only-Xq7vN2-0e5b", &mint, answer);
    assert_eq!(gate.call("api__read", &json!({})), "done");
    let (own, body) = last(&seen, "POST /api/v1/namespaces/ci/serviceaccounts/deployer/token");
    assert_eq!(own, "of-the-test-only-Xq7vN2-0e5b");
    assert_eq!(
        (&body["apiVersion"], &body["kind"]),
        (&json!("authentication.k8s.io/v1"), &json!("TokenRequest"))
    );
    let spec = &body["spec"];
    assert_eq!((&spec["audiences"], &spec["expirationSeconds"]), (&json!(["api"]), &json!(600)));
    let bound = &spec["boundObjectRef"];
    assert_eq!((&bound["kind"], &bound["uid"]), (&json!("Secret"), &json!("u-1")));
    assert!(last(&seen, "POST /mcp").0.starts_with("k8s-"));
    gate.end_session();
    let name = bound["name"].as_str().unwrap();
    let line = format!("DELETE /api/v1/namespaces/ci/secrets/{name}");
    wait("the end", || seen.lock().unwrap().iter().any(|(said, _, _)| *said == line));
    wait("its record", || leases(&home, "revoked").len() >= 2);
}

#[test]
fn what_google_keeps_is_read_from_there() {
    let key = Key::new("PKCS8");
    let token = |which: &str| ["ya29", which, "Xq7vN20e5bW9aK"].join("-");
    let answer = move |asked: &Asked| match asked.path() {
        "/token" => {
            let token = json!({ "access_token": token("own"), "expires_in": 3599, "token_type": "Bearer" });
            Some(Reply::json(200, &token))
        }
        "/v1/projects/p/secrets/api/versions/latest:access" => {
            let data = STANDARD.encode(token("kept"));
            Some(Reply::json(200, &json!({ "name": "n", "payload": { "data": data, "dataCrc32c": "1" } })))
        }
        _ => None,
    };
    let file =
        json!({ "type": "service_account", "client_email": "gate@p.example", "private_key": key.private });
    let mint = [
        "--mint",
        "google-secret",
        "--with",
        "name=projects/p/secrets/api",
        "--with",
        "token_url=http://127.0.0.1:{port}/token",
        "--with",
        "url=http://127.0.0.1:{port}",
    ];
    let (_home, gate, seen) = gate("stand-google-secret", &file.to_string(), &mint, answer);
    assert_eq!(gate.call("api__read", &json!({ "repo": "logs" })), "done");
    let (own, _) = last(&seen, "GET /v1/projects/p/secrets/api/versions/latest:access");
    assert!(own.contains("-own-"), "{own}");
    let (kept, _) = last(&seen, "POST /mcp");
    assert!(kept.contains("-kept-") && !kept.contains("-own-"), "{kept}");
}

#[test]
fn a_token_of_google_is_impersonated_and_cut_to_a_resource() {
    let key = Key::new("PKCS8");
    let token = |which: &str| ["ya29", which, "Xq7vN20e5bW9aK"].join("-");
    let answer = move |asked: &Asked| match asked.path() {
        "/token" if asked.field("assertion").is_none() => None,
        "/token" => Some(Reply::json(
            200,
            &json!({ "access_token": token("own"), "expires_in": 3599, "token_type": "Bearer" }),
        )),
        path if path.ends_with(":generateAccessToken") => {
            Some(Reply::json(200, &json!({ "accessToken": token("other"), "expireTime": in_an_hour() })))
        }
        "/v1/token" => Some(Reply::json(
            200,
            &json!({ "access_token": token("cut"), "expires_in": 3000, "token_type": "Bearer" }),
        )),
        _ => None,
    };
    let file = json!({ "type": "service_account", "client_email": "gate@p.example", "private_key": key.private, "private_key_id": "k1" });
    let mint = [
        "--mint",
        "google",
        "--with",
        "scope=https://www.googleapis.com/auth/devstorage.read_only",
        "--with",
        "impersonate=reader@p.example",
        "--with",
        "boundary_role=inRole:roles/storage.objectViewer",
        "--with",
        "boundary_resource=//storage.googleapis.com/projects/_/buckets/{args.repo}",
        "--with",
        "idle.boundary_resource=//storage.googleapis.com/projects/_/buckets/none",
        "--with",
        "token_url=http://127.0.0.1:{port}/token",
        "--with",
        "iam_url=http://127.0.0.1:{port}",
        "--with",
        "sts_url=http://127.0.0.1:{port}",
    ];
    let (_home, gate, seen) = gate("stand-google", &file.to_string(), &mint, answer);
    assert_eq!(gate.call("api__read", &json!({ "repo": "logs" })), "done");
    let (_, form) = last(&seen, "POST /token");
    let assertion = form.as_str().unwrap().split("assertion=").nth(1).unwrap();
    let claims = key.claims(assertion);
    assert_eq!(
        (&claims["iss"], &claims["scope"]),
        (&json!("gate@p.example"), &json!("https://www.googleapis.com/auth/cloud-platform"))
    );
    let (own, body) = last(&seen, "POST /v1/projects/-/serviceAccounts/reader@p.example:generateAccessToken");
    assert!(own.contains("-own-"), "{own}");
    assert_eq!(
        body,
        json!({ "scope": ["https://www.googleapis.com/auth/devstorage.read_only"], "lifetime": "600s" })
    );
    let (_, form) = last(&seen, "POST /v1/token");
    let form = form.as_str().unwrap();
    assert!(form.contains("subject_token=ya29-other-") && form.contains("buckets%2Flogs%22"), "{form}");
    assert!(last(&seen, "POST /mcp").0.contains("-cut-"));
}

#[test]
fn a_token_of_a_provider_has_one_scope_and_is_revoked() {
    let oidc = Oidc::start();
    let url = |what: &str| format!("{what}=http://127.0.0.1:{}/token", oidc.port);
    let (token_url, revoke_url) = (url("token_url"), url("revoke_url") + "/revocation");
    let mint = [
        "--mint",
        "oauth-client",
        "--with",
        &token_url,
        "--with",
        &revoke_url,
        "--with",
        "client_id=gate",
        "--with",
        "scope={args.repo}",
        "--with",
        "idle.scope=read",
    ];
    let (home, gate, seen) = gate("real-oidc", Oidc::SECRET, &mint, |_asked| None);
    assert_eq!(gate.call("api__read", &json!({ "repo": "read" })), "done");
    let token = last(&seen, "POST /mcp").0;
    let said = oidc.says(&token);
    assert_eq!((&said["active"], &said["scope"]), (&json!(true), &json!("read")), "{said}");
    // Whatever an agent writes, it gets no scope that the client has not.
    assert_ne!(gate.call("api__read", &json!({ "repo": "admin" })), "done");
    let failed = leases(&home, "failed");
    assert!(failed[0]["why"].as_str().unwrap().contains("invalid_scope"), "{failed:?}");
    gate.end_session();
    wait("the end", || oidc.says(&token)["active"] == false);
}

/// An MCP server that wants one to log in at this provider. The tokens that it was called with.
fn wants_login(oidc: &Oidc) -> (u16, Arc<Mutex<Vec<String>>>) {
    let (issuer, used) = (format!("http://127.0.0.1:{}", oidc.port), Arc::<Mutex<Vec<String>>>::default());
    let noted = Arc::clone(&used);
    let port = serve_with(move |asked, mut out| {
        let host = asked.header("host");
        let metadata = format!("http://{host}/.well-known/oauth-protected-resource/mcp");
        let reply = match (asked.path(), asked.bearer()) {
            ("/mcp", token) if !token.is_empty() => mcp(asked, |_arguments| {
                noted.lock().unwrap().push(token);
                "done".to_owned()
            }),
            ("/mcp", _) => Reply { status: 401, kind: "text/plain", body: String::new() },
            _ => Reply::json(
                200,
                &json!({ "resource": format!("http://{host}/mcp"), "authorization_servers": [issuer], "scopes_supported": ["read"] }),
            ),
        };
        let Reply { status, kind, body } = reply;
        let text = format!(
            "HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nWWW-Authenticate: Bearer resource_metadata=\"{metadata}\"\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        out.write_all(text.as_bytes()).ok()
    });
    (port, used)
}

fn log_in(home: &Home, oidc: &Oidc) {
    let mut command = home.command(&["login", "api"]);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = Printed::of(process.stderr.take().unwrap());
    let page = oidc.consents(said.until("response_type=code").trim());
    assert!(page.contains("Toolgate has got the answer"), "{page}");
    assert!(process.wait().unwrap().success(), "{}", said.all());
}

#[test]
fn a_login_is_renewed_and_its_replay_ends_it() {
    let oidc = Oidc::start();
    let (port, used) = wants_login(&oidc);
    let home = Home::new("real-login");
    home.config(&format!(
        "[servers.api]\nurl = \"http://127.0.0.1:{port}/mcp\"\nsecrets = [\"login-api\"]\n"
    ));
    home.policy(POLICY);
    log_in(&home, &oidc);
    let mut gate = up(&home);
    for _ in 0..2 {
        gate.hello().unwrap();
        assert_eq!(gate.call("api__read", &json!({})), "done");
    }
    let tokens: Vec<String> = used.lock().unwrap().clone();
    let said = oidc.says(tokens.last().unwrap());
    assert_eq!((&said["active"], &said["scope"]), (&json!(true), &json!("read")), "{said}");
    assert_eq!(said["aud"], format!("http://127.0.0.1:{port}/mcp"));
    let given = oidc.refresh_tokens();
    assert!(given.len() >= 4, "each renewal gives another one: {}", given.len());
    // A thief has an old one: the provider ends the login, and the gate says so.
    let (old, client) = &given[0];
    assert_eq!(oidc.refreshed(old, client)["error"], "invalid_grant");
    gate.hello().unwrap();
    assert_ne!(gate.call("api__read", &json!({})), "done");
    let why = leases(&home, "failed");
    assert!(why.iter().any(|lease| lease["why"].as_str().unwrap().contains("toolgate login api")), "{why:?}");
    // Once more, and out.
    log_in(&home, &oidc);
    wait("the new login", || gate.call("api__read", &json!({})) == "done");
    let token = used.lock().unwrap().last().unwrap().clone();
    assert_eq!(oidc.says(&token)["active"], true);
    let (newest, client) = oidc.refresh_tokens().last().unwrap().clone();
    home.done(&["logout", "api"]);
    assert_eq!(oidc.refreshed(&newest, &client)["error"], "invalid_grant");
    assert_eq!(oidc.says(&token)["active"], false, "the login took its access tokens along");
    let secrets: Vec<String> =
        oidc.refresh_tokens().into_iter().map(|(token, _)| token).chain(tokens).collect();
    drop(gate);
    for secret in secrets {
        let found = Command::new("grep").args(["-r", "-a", "-l", &secret]).arg(home.path()).output().unwrap();
        assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
    }
}
