//! Logging in to servers: a person's consent, what becomes of it, and everything that whoever answers may lie about.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::credentials::{assert_clean, up, value};
use crate::home::{Gate, Home, Printed};
use crate::http::{Asked, Reply, mcp, serve_with};

const POLICY: &str = "@id(\"all\") @because(\"it is a test\")\npermit(principal, action, resource);\n";

/// What an authorization server has given to somebody.
struct Code {
    challenge: String,
    redirect_uri: String,
    scope: String,
}

#[derive(Default)]
struct Given {
    codes: std::collections::BTreeMap<String, Code>,
    /// Access tokens that are good.
    access: BTreeSet<String>,
    /// The refresh token that is good, and all that were good before.
    refresh: Option<String>,
    spent: BTreeSet<String>,
    /// How often one was used that had been used before: by a thief, for all that a server knows.
    replayed: u32,
    /// How often tokens were asked for.
    asked: u32,
    /// What the tool was called with.
    used: Vec<String>,
    revoked: Vec<String>,
    count: u32,
    /// The process to kill when a refresh token was taken; and when the first call comes after that.
    kill_at_token: Option<u32>,
    kill_at_call: Option<u32>,
}

/// An MCP server that wants one to log in, and its authorization server, on one port.
struct Stand {
    port: AtomicU32,
    lie: Mutex<&'static str>,
    given: Mutex<Given>,
}

fn write(mut out: &TcpStream, status: u16, head: &str, body: &str) -> Option<()> {
    let text = format!("HTTP/1.1 {status} x\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
    out.write_all(text.as_bytes()).ok()
}

fn kill(process: u32) {
    // So that whoever answers next cannot have been heard.
    let killed = std::process::Command::new("kill").args(["-9", &process.to_string()]).status().unwrap();
    assert!(killed.success());
    let gone = || !std::path::Path::new(&format!("/proc/{process}/fd/0")).exists();
    while !gone() {
        std::thread::yield_now();
    }
}

impl Stand {
    fn start() -> Arc<Self> {
        let this = Arc::new(Self { port: AtomicU32::new(0), lie: Mutex::default(), given: Mutex::default() });
        let shared = Arc::clone(&this);
        let port = serve_with(move |asked, out| shared.answer(asked, out));
        this.port.store(port.into(), Ordering::SeqCst);
        this
    }

    fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.load(Ordering::SeqCst))
    }

    /// What tokens are for.
    fn resource(&self, lie: &str) -> String {
        if lie == "at-root" { self.base() } else { format!("{}/mcp", self.base()) }
    }

    fn lie(&self, lie: &'static str) {
        *self.lie.lock().unwrap() = lie;
    }

    fn given(&self) -> std::sync::MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn answer(&self, asked: &Asked, out: &TcpStream) -> Option<()> {
        let lie = *self.lie.lock().unwrap();
        let base = self.base();
        let json = |status: u16, body: &Value| {
            write(out, status, "Content-Type: application/json\r\n", &body.to_string())
        };
        let path = asked.path().split('?').next().unwrap();
        match (asked.method(), path) {
            ("GET", "/.well-known/oauth-protected-resource/mcp") => match lie {
                "redirect" => write(out, 302, &format!("Location: {base}/elsewhere\r\n"), ""),
                "huge" => json(200, &json!({ "resource": "x".repeat(2 << 20) })),
                "endless" => {
                    let mut out = out;
                    out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
                    while out.write_all(format!("1000\r\n{}\r\n", " ".repeat(4096)).as_bytes()).is_ok() {}
                    None
                }
                "resource" => json(
                    200,
                    &json!({ "resource": "https://other.example/mcp", "authorization_servers": [base] }),
                ),
                "root-resource" => json(200, &json!({ "resource": base, "authorization_servers": [base] })),
                "no-server" => json(200, &json!({ "resource": format!("{base}/mcp") })),
                "http-server" => json(
                    200,
                    &json!({ "resource": format!("{base}/mcp"), "authorization_servers": ["http://id.example"] }),
                ),
                "nothing" | "open" | "at-root" => write(out, 404, "", ""),
                _ => json(
                    200,
                    &json!({ "resource": format!("{base}/mcp"), "authorization_servers": [base], "scopes_supported": ["read", "write"] }),
                ),
            },
            ("GET", "/.well-known/oauth-protected-resource") if lie == "at-root" => {
                json(200, &json!({ "resource": base, "authorization_servers": [base] }))
            }
            ("GET", "/.well-known/oauth-authorization-server") if lie == "twice" => {
                let body = format!("{{\"issuer\":{base:?},\"issuer\":{base:?}}}");
                write(out, 200, "Content-Type: application/json\r\n", &body)
            }
            ("GET", "/.well-known/oauth-authorization-server") if lie == "openid" => write(out, 404, "", ""),
            ("GET", "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration") => {
                json(200, &self.metadata(lie))
            }
            ("POST", "/register") => match lie {
                "register-error" => json(400, &json!({ "error": "invalid_redirect_uri" })),
                "register-odd" => json(201, &json!({ "client_id": "a\nb" })),
                _ => {
                    let wanted = asked.json();
                    assert_eq!(wanted["application_type"], "native");
                    assert_eq!(wanted["token_endpoint_auth_method"], "none");
                    json(
                        201,
                        &json!({ "client_id": "registered-1", "redirect_uris": wanted["redirect_uris"] }),
                    )
                }
            },
            ("GET", "/authorize") => {
                write(out, 302, &format!("Location: {}\r\n", self.consent(asked.path(), lie)), "")
            }
            ("POST", "/token") => match lie {
                "html" => write(out, 200, "Content-Type: text/html\r\n", "<p>hello"),
                "ok-error" => json(200, &json!({ "error": "invalid_request" })),
                "down" => json(503, &json!({ "error": "temporarily_unavailable" })),
                _ => {
                    let (status, body) = self.token(asked, lie);
                    json(status, &body)
                }
            },
            ("POST", "/revoke") => {
                let token = asked.field("token").unwrap();
                let mut given = self.given();
                if given.refresh.as_ref() == Some(&token) {
                    given.refresh = None;
                    given.access.clear();
                }
                given.access.remove(&token);
                given.revoked.push(token);
                drop(given);
                json(if lie == "no-revoke" { 503 } else { 200 }, &json!({}))
            }
            ("POST", "/mcp") => self.call(asked, out, lie),
            _ => write(out, 404, "", ""),
        }
    }

    fn metadata(&self, lie: &str) -> Value {
        let base = self.base();
        let mut all = json!({
            "issuer": base, "authorization_endpoint": format!("{base}/authorize"), "token_endpoint": format!("{base}/token"),
            "registration_endpoint": format!("{base}/register"), "revocation_endpoint": format!("{base}/revoke"),
            "response_types_supported": ["code"], "code_challenge_methods_supported": ["plain", "S256"],
            "authorization_response_iss_parameter_supported": true,
        });
        match lie {
            "issuer" => all["issuer"] = json!("https://id.example"),
            "issuer-slash" => all["issuer"] = json!(format!("{base}/")),
            "no-pkce" => all["code_challenge_methods_supported"] = Value::Null,
            "plain" => all["code_challenge_methods_supported"] = json!(["plain"]),
            "http-endpoint" => all["token_endpoint"] = json!("http://id.example/token"),
            "odd-endpoint" => all["authorization_endpoint"] = json!("javascript:alert(1)"),
            "no-endpoint" => all["token_endpoint"] = Value::Null,
            "no-registration" => all["registration_endpoint"] = Value::Null,
            "mix-up" => {
                all["token_endpoint"] = json!("http://127.0.0.1:1/token");
                all["authorization_response_iss_parameter_supported"] = json!(false);
            }
            "no-iss" => all["authorization_response_iss_parameter_supported"] = json!(false),
            _ => {}
        }
        all
    }

    /// The person says yes; where the browser is sent.
    fn consent(&self, target: &str, lie: &str) -> String {
        let field = |name: &str| query(target, name).unwrap_or_default();
        assert_eq!(field("code_challenge_method"), "S256");
        assert_eq!(field("resource"), self.resource(lie));
        assert_eq!(field("response_type"), "code");
        let (redirect_uri, mut state, mut iss) = (field("redirect_uri"), field("state"), self.base());
        let mut given = self.given();
        given.count += 1;
        let code = format!("{}-{}", value("code"), given.count);
        let challenge = if lie == "another-code" { "x".to_owned() } else { field("code_challenge") };
        given.codes.insert(
            code.clone(),
            Code { challenge, redirect_uri: redirect_uri.clone(), scope: field("scope") },
        );
        match lie {
            "state" => state = state.chars().rev().collect(),
            "iss" => iss = "https://id.example".to_owned(),
            "denied" => return format!("{redirect_uri}?error=access_denied&state={state}&iss={iss}"),
            "denied-odd" => return format!("{redirect_uri}?error=%1b%5b31mred&state={state}&iss={iss}"),
            "code-twice" => return format!("{redirect_uri}?code={code}&code=x&state={state}&iss={iss}"),
            "no-code" => return format!("{redirect_uri}?state={state}&iss={iss}"),
            "no-state" => return format!("{redirect_uri}?code={code}&iss={iss}"),
            "iss-missing" | "no-iss" => return format!("{redirect_uri}?code={code}&state={state}"),
            _ => {}
        }
        format!("{redirect_uri}?code={code}&state={state}&iss={iss}")
    }

    fn token(&self, asked: &Asked, lie: &str) -> (u16, Value) {
        let wrong = |error: &str| (400, json!({ "error": error }));
        let field = |name: &str| asked.field(name).unwrap_or_default();
        let mut given = self.given();
        given.asked += 1;
        if field("resource") != self.resource(lie) {
            return wrong("invalid_target");
        }
        let known = match asked.header("authorization").strip_prefix("Basic ") {
            Some(pair) => {
                base64::engine::general_purpose::STANDARD.decode(pair).unwrap()
                    == format!("known:{}", value("client")).as_bytes()
            }
            None => field("client_id") == "registered-1",
        };
        if !known {
            return (401, json!({ "error": "invalid_client" }));
        }
        let scope = match field("grant_type").as_str() {
            "authorization_code" => {
                let Some(code) = given.codes.remove(&field("code")) else { return wrong("invalid_grant") };
                let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier")));
                if challenge != code.challenge || field("redirect_uri") != code.redirect_uri {
                    return wrong("invalid_grant");
                }
                code.scope
            }
            "refresh_token" => {
                let token = field("refresh_token");
                if given.spent.contains(&token) {
                    // Of two that have the same one, one is a thief (RFC 9700, section 4.14).
                    given.replayed += 1;
                    given.refresh = None;
                }
                if given.refresh.as_ref() != Some(&token) {
                    return wrong("invalid_grant");
                }
                given.spent.insert(token);
                field("scope")
            }
            _ => return wrong("unsupported_grant_type"),
        };
        given.count += 1;
        let access = format!("{}-{}", value("access"), given.count);
        let refresh = format!("{}-{}", value("refresh"), given.count);
        given.access.insert(access.clone());
        let mut all =
            json!({ "access_token": access, "token_type": "Bearer", "expires_in": 300, "scope": scope });
        if lie != "no-refresh" {
            given.refresh = Some(refresh.clone());
            all["refresh_token"] = json!(refresh);
        }
        match lie {
            "mac" => all["token_type"] = json!("mac"),
            "no-type" => all["token_type"] = Value::Null,
            "negative" => all["expires_in"] = json!(-1),
            "text" => all["expires_in"] = json!("300"),
            "odd-token" => all["refresh_token"] = json!(format!("{refresh}\r\nX: y")),
            "odd-access" => all["access_token"] = json!(format!("{access}\u{202e}")),
            "no-access" => all["access_token"] = Value::Null,
            "wider" => all["scope"] = json!(format!("{scope} admin")),
            "ever" => all["expires_in"] = json!(1_u64 << 52),
            "unsaid" => drop(all.as_object_mut().unwrap().remove("expires_in")),
            "null" => all["expires_in"] = Value::Null,
            _ => {}
        }
        if let Some(process) = given.kill_at_token.take() {
            kill(process);
        }
        (200, all)
    }

    fn call(&self, asked: &Asked, out: &TcpStream, lie: &str) -> Option<()> {
        let token = asked.bearer();
        let mut given = self.given();
        if !given.access.contains(&token) {
            let url = match lie {
                "elsewhere" => "https://other.example/.well-known/oauth-protected-resource/mcp".to_owned(),
                _ => format!("{}/.well-known/oauth-protected-resource/mcp", self.base()),
            };
            let challenge = match lie {
                "open" => return write(out, 200, "Content-Type: application/json\r\n", "{}"),
                "nothing" | "at-root" => "WWW-Authenticate: Bearer\r\n".to_owned(),
                _ => format!(
                    "WWW-Authenticate: Basic realm=\"x\", Bearer resource_metadata=\"{url}\", scope=\"read\"\r\n"
                ),
            };
            return write(out, 401, &challenge, "");
        }
        if let Some(process) = given.kill_at_call.take() {
            kill(process);
        }
        let Reply { status, kind, body } = mcp(asked, |_arguments| {
            given.used.push(token.clone());
            format!("called with {token}")
        });
        write(out, status, &format!("Content-Type: {kind}\r\n"), &body)
    }
}

/// A field of a query, decoded.
fn query(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let asked = Asked { head: String::new(), body: query.as_bytes().to_vec() };
    asked.field(name)
}

/// What a browser gets at an address.
fn get(url: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap());
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = vec![0; 64 << 10];
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains("\r\n\r\n") {
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "it hung up");
        all.extend_from_slice(bytes.get(..read).unwrap());
    }
    String::from_utf8(all).unwrap()
}

/// Where the person is sent after a yes.
fn consented(url: &str) -> String {
    let answer = get(url);
    let line = answer.lines().find_map(|line| line.strip_prefix("Location: "));
    line.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// A login under way: once it has said where to go, or has ended.
fn begun(home: &Home, more: &[&str], stdin: Stdio) -> (Child, Printed, Option<String>) {
    let mut command = home.command(&[&["login", "api", "--json"], more].concat());
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let said = Printed::of(child.stderr.take().unwrap());
    let url = |said: &Printed| {
        said.all().lines().find(|line| line.contains("response_type=code")).map(|line| line.trim().to_owned())
    };
    loop {
        let ended = child.try_wait().unwrap().is_some();
        if let Some(url) = url(&said) {
            return (child, said, Some(url));
        }
        if ended {
            return (child, said, None);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Logs in as a person with a browser does: what the command said, on standard output and on standard error.
fn log_in(home: &Home, more: &[&str]) -> (bool, String, String) {
    let (child, said, url) = begun(home, more, Stdio::null());
    if let Some(url) = url {
        let page = get(&consented(&url));
        assert!(page.contains("200 OK") && page.contains("Go back to where you typed"), "{page}");
    }
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap(), said.to_end())
}

fn home_of(name: &str, stand: &Stand) -> Home {
    let home = Home::new(name);
    home.config(&format!("[servers.api]\nurl = \"{}/mcp\"\nsecrets = [\"login-api\"]\n", stand.base()));
    home.policy(POLICY);
    home
}

/// A gate whose server somebody is logged in to.
fn gate(name: &str) -> (Home, Arc<Stand>, Gate) {
    let stand = Stand::start();
    let home = home_of(name, &stand);
    let (done, _, said) = log_in(&home, &[]);
    assert!(done, "{said}");
    home.done(&["tool", "review"]);
    let gate = up(&home);
    (home, stand, gate)
}

/// Nothing of a token is in any file, nor in what was said.
fn assert_nowhere(home: &Home, said: &[&str]) {
    let secret = ["Xq7vN2", "0e5bW9aK", "Lr31"].join("_");
    for said in said {
        assert_clean(said, &secret);
    }
    let grep = std::process::Command::new("grep")
        .args(["-r", "-a", "-l", &secret])
        .arg(home.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(grep.stdout).unwrap(), "");
}

fn failed(home: &Home) -> Vec<String> {
    let tail = home.done(&["log", "tail", "-n", "200", "--json"]);
    let records = tail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let failed = records.filter(|record| record["kind"] == "lease" && record["body"]["action"] == "failed");
    failed.map(|record| record["body"]["why"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_login_is_kept_renewed_and_ended() {
    let stand = Stand::start();
    let home = home_of("login", &stand);
    let before = home.run(&["tool", "review"]);
    assert!(String::from_utf8_lossy(&before.stderr).contains("`toolgate login api` puts it there"));
    let (done, out, said) = log_in(&home, &[]);
    assert!(done, "{said}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&told["server"], &told["secret"], &told["scope"], &told["renewed"]),
        (&json!("api"), &json!("login-api"), &json!("read"), &json!(true))
    );
    assert!(said.contains(&format!("`api` wants you to log in at {}", stand.base())), "{said}");
    let listed: Value = serde_json::from_str(&home.done(&["login", "--list", "--json"])).unwrap();
    assert_eq!((&listed[0]["server"], &listed[0]["issuer"]), (&json!("api"), &json!(stand.base())));
    assert!(home.done(&["login", "--list"]).contains("it is revoked"));
    assert!(home.done(&["secret", "show", "login-api"]).contains("minted    by oauth-refresh"));
    // Each run of an agent has an access token of its own, and each time there is another refresh token.
    home.done(&["tool", "review"]);
    let mut gate = up(&home);
    let mut calls = Vec::new();
    for _ in 0..3 {
        gate.hello().unwrap();
        let told = gate.call("api__read", &json!({}));
        assert!(told.starts_with("called with ⟦secret:login-api#"), "{told}");
        calls.push(told);
    }
    let given = stand.given();
    assert_eq!(given.used.iter().collect::<BTreeSet<_>>().len(), 3, "{:?}", given.used);
    assert!(given.spent.len() >= 4 && given.replayed == 0, "{} {}", given.spent.len(), given.replayed);
    drop(given);
    assert_nowhere(&home, &[&out, &said, &calls.concat(), &gate.err.all(), &gate.out.all()]);
    // Each of them is on the log, without the token.
    let log = home.done(&["log", "tail", "-n", "200", "--json"]);
    assert!(log.contains("\"by\":\"the gate\"") && log.contains("\"rotated\""), "{log}");
    // Logging in again changes the login under the running gate.
    let (done, _, said) = log_in(&home, &["--scope", "read write"]);
    assert!(done, "{said}");
    gate.hello().unwrap();
    until_called(&gate);
    // And out.
    let token = stand.given().refresh.clone().unwrap();
    let told: Value = serde_json::from_str(&home.done(&["logout", "api", "--json"])).unwrap();
    assert_eq!(told, json!({ "server": "api", "secret": "login-api", "revoked": true }));
    assert!(stand.given().revoked.contains(&token));
    assert_eq!(home.done(&["secret", "list", "--json"]).trim(), "[]");
    let again = home.shown(&["logout", "api"]);
    assert!(again.contains("nobody is logged in to `api`") && again.ends_with("exit 1"), "{again}");
    let used = stand.given().used.len();
    let told = gate.call("api__read", &json!({}));
    assert!(!told.starts_with("called with"), "{told}");
    assert_eq!(stand.given().used.len(), used);
    drop(gate);
    assert_nowhere(&home, &[&said, &told]);
    home.done(&["log", "verify"]);
}

#[test]
fn processes_take_turns_so_that_nobody_looks_like_a_thief() {
    let (home, stand, gate) = gate("login-turns");
    let reviews: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = home.command(&["tool", "review"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    assert!(gate.call("api__read", &json!({})).starts_with("called with"));
    for mut review in reviews {
        assert!(review.wait().unwrap().success());
    }
    // What another process has got is what the gate asks with.
    let mut gate = gate;
    gate.hello().unwrap();
    assert!(gate.call("api__read", &json!({})).starts_with("called with"));
    let given = stand.given();
    assert!(given.spent.len() >= 6, "{}", given.spent.len());
    assert_eq!(given.replayed, 0, "somebody asked twice with one token");
}

#[test]
fn a_login_that_is_taken_back_says_what_to_do() {
    let (home, stand, mut gate) = gate("login-over");
    assert!(gate.call("api__read", &json!({})).starts_with("called with"));
    // Somebody else used the token.
    stand.given().refresh = None;
    gate.hello().unwrap();
    let told = gate.call("api__read", &json!({}));
    assert!(!told.starts_with("called with"), "{told}");
    let why = failed(&home);
    assert!(why.iter().any(|why| why.contains("log in again: `toolgate login api`")), "{why:?}");
    // Nobody asks with it again.
    let asked = stand.given().asked;
    for _ in 0..3 {
        assert!(!gate.call("api__read", &json!({})).starts_with("called with"));
    }
    assert_eq!(stand.given().asked, asked);
    let (done, _, said) = log_in(&home, &[]);
    assert!(done, "{said}");
    gate.hello().unwrap();
    until_called(&gate);
    // One that only says no for now is asked again.
    stand.lie("down");
    gate.hello().unwrap();
    assert!(!gate.call("api__read", &json!({})).starts_with("called with"));
    stand.lie("");
    until_called(&gate);
}

/// A gate takes up what other commands do in a while.
fn until_called(gate: &Gate) {
    let mut told = String::new();
    for _ in 0..200 {
        told = gate.call("api__read", &json!({}));
        if told.starts_with("called with") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{told}");
}

/// Calls the tool, during which the gate is killed.
fn killed(gate: &mut Gate, stand: &Stand) {
    // Whatever is answered: the connection ends with the gate.
    let _cut = gate.begin("api__read", &json!({})).read_to_end(&mut Vec::new());
    let given = stand.given();
    assert!(given.kill_at_call.or(given.kill_at_token).is_none(), "nobody came to where it is killed");
    drop(given);
    gate.process.wait().unwrap();
}

#[test]
fn what_is_renewed_is_kept_before_anybody_uses_what_came_with_it() {
    let (home, stand, mut gate) = gate("login-crash");
    // The gate is killed when the new access token is used for the first time.
    gate.hello().unwrap();
    let spent = stand.given().spent.len();
    stand.given().kill_at_call = Some(gate.process.id());
    killed(&mut gate, &stand);
    assert!(stand.given().spent.len() > spent);
    let newest = stand.given().refresh.clone().unwrap();
    let mut next = home.up(&[]);
    next.token.clone_from(&gate.token);
    next.hello().unwrap();
    assert!(next.call("api__read", &json!({})).starts_with("called with"));
    let given = stand.given();
    assert!(given.spent.contains(&newest) && given.replayed == 0, "the token after it was kept");
    drop(given);
    // It is killed after the server has taken the old one, and before it has heard the new one: nobody has that, and it says so.
    next.hello().unwrap();
    stand.given().kill_at_token = Some(next.process.id());
    killed(&mut next, &stand);
    let mut last = home.up(&[]);
    last.token.clone_from(&gate.token);
    last.hello().unwrap();
    assert!(!last.call("api__read", &json!({})).starts_with("called with"));
    let why = failed(&home);
    assert!(why.iter().any(|why| why.contains("log in again: `toolgate login api`")), "{why:?}");
    drop((gate, next, last));
    assert_nowhere(&home, &[]);
    home.done(&["log", "verify"]);
}

/// The provider takes the old token no more, and the new one is in one place only: a disk that has no room for a moment loses no login.
#[test]
fn a_renewal_that_cannot_be_written_at_once_is_not_lost() {
    let (home, stand, mut gate) = gate("login-full");
    // What the vault is written to before it takes the old one's place cannot be made.
    let draft = home.path().join(format!(".local/state/toolgate/vault.{}.new", gate.process.id()));
    std::fs::create_dir(&draft).unwrap();
    let before = stand.given().spent.len();
    let (waits, of) = (Arc::clone(&stand), draft.clone());
    let freed = std::thread::spawn(move || {
        for _ in 0..600 {
            if waits.given().spent.len() > before {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
        std::fs::remove_dir(of).unwrap();
    });
    gate.hello().unwrap();
    assert!(gate.call("api__read", &json!({})).starts_with("called with"));
    freed.join().unwrap();
    assert!(stand.given().spent.len() > before);
    gate.hello().unwrap();
    assert!(gate.call("api__read", &json!({})).starts_with("called with"));
    assert_eq!(stand.given().replayed, 0);
    drop(gate);
    assert_nowhere(&home, &[]);
}

#[test]
fn whoever_lies_gets_nothing() {
    let stand = Stand::start();
    let home = home_of("login-lies", &stand);
    for (lie, why) in [
        ("open", "it answered 200"),
        ("nothing", "does not say where one logs in"),
        ("elsewhere", "its metadata are at another host"),
        ("redirect", "it sends one elsewhere (302)"),
        ("huge", "too long"),
        ("endless", "too long"),
        ("resource", "it is for another server than"),
        ("root-resource", "it is for another server than"),
        ("no-server", "it names no authorization server"),
        ("http-server", "has to begin with `https://`"),
        ("twice", "its answer is no JSON"),
        ("issuer", "it is for another issuer"),
        ("issuer-slash", "it is for another issuer"),
        ("no-pkce", "does not say that it takes PKCE"),
        ("plain", "does not say that it takes PKCE"),
        ("http-endpoint", "has to begin with `https://`"),
        ("odd-endpoint", "has to begin with `https://`"),
        ("no-endpoint", "there is no `token_endpoint`"),
        ("mix-up", "codes would go to another host than the one that gives them"),
        ("no-registration", "--client-id ID --issuer URL"),
        ("register-error", "400: invalid_redirect_uri"),
        ("register-odd", "odd signs"),
        ("state", "the answer to something else (`state`)"),
        ("no-state", "it has no `state`"),
        ("iss", "another authorization server gave it (`iss`)"),
        ("iss-missing", "which authorization server gave it (`iss`)"),
        ("denied", "the login was refused: access_denied"),
        ("denied-odd", "the login was refused: it does not say why"),
        ("code-twice", "it says something twice"),
        ("no-code", "it has no `code`"),
        ("another-code", "400: invalid_grant"),
        ("html", "no JSON"),
        ("ok-error", "invalid_request"),
        ("down", "503: temporarily_unavailable"),
        ("mac", "no bearer token"),
        ("no-type", "what kind of token"),
        ("negative", "no number of seconds"),
        ("text", "no number of seconds"),
        ("null", "no number of seconds"),
        ("odd-token", "odd signs"),
        ("odd-access", "odd signs"),
        ("no-access", "no access token"),
        ("wider", "a scope that was not asked for"),
    ] {
        stand.lie(lie);
        let (done, out, said) = log_in(&home, &[]);
        assert!(!done && out.is_empty() && said.contains(why), "{lie}: {said}");
        assert!(!said.contains('\u{1b}') && !said.contains('\u{202e}'), "{lie}: {said}");
        assert_nowhere(&home, &[&said]);
        // What came all the same was given back.
        let given = stand.given();
        let clean = given.refresh.as_ref().is_none_or(|token| given.revoked.contains(token));
        assert!(clean || matches!(lie, "odd-token"), "{lie}");
        drop(given);
        assert!(!home.path().join(".local/state/toolgate/vault").exists(), "{lie}");
    }
    // What is no lie is taken.
    for lie in ["at-root", "openid", "no-iss", "ever", "unsaid"] {
        stand.lie(lie);
        let (done, _, said) = log_in(&home, &[]);
        assert!(done, "{lie}: {said}");
    }
}

#[test]
fn a_token_that_nothing_renews_is_kept_while_it_lasts() {
    let stand = Stand::start();
    let home = home_of("login-once", &stand);
    stand.lie("no-refresh");
    let (done, out, said) = log_in(&home, &[]);
    assert!(done && said.contains("since nothing was given that renews it"), "{said}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["renewed"], false);
    let until = told["until_ms"].as_u64().unwrap();
    let listed: Value = serde_json::from_str(&home.done(&["login", "--list", "--json"])).unwrap();
    assert_eq!(listed[0]["until_ms"], until);
    home.done(&["tool", "review"]);
    let gate = up(&home);
    assert!(gate.call("api__read", &json!({})).starts_with("called with"));
    assert_eq!(stand.given().asked, 1);
    drop(gate);
    let told: Value = serde_json::from_str(&home.done(&["logout", "api", "--json"])).unwrap();
    assert_eq!(told["revoked"], true);
    assert!(stand.given().access.is_empty());
    assert_nowhere(&home, &[&out, &said]);
}

#[test]
fn a_client_that_is_known_logs_in_without_a_browser_here() {
    let stand = Stand::start();
    let home = home_of("login-paste", &stand);
    stand.lie("no-registration");
    let issuer = stand.base();
    let known = ["--client-id", "known", "--issuer", &issuer, "--client-secret-file", "-"];
    let more = [known.as_slice(), &["--no-browser", "--scope", "write"]].concat();
    let (mut child, said, url) = {
        // The secret comes first, then what the browser has ended at.
        let mut command = home.command(&[&["login", "api", "--json"], &more[..]].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(format!("{}\n", value("client")).as_bytes()).unwrap();
        let said = Printed::of(child.stderr.take().unwrap());
        let url = said.until("response_type=code").trim().to_owned();
        (child, said, url)
    };
    assert_eq!(
        (query(&url, "scope").unwrap(), query(&url, "client_id").unwrap()),
        ("write".into(), "known".into())
    );
    let back = consented(&url);
    child.stdin.take().unwrap().write_all(format!("{back}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said.all());
    home.done(&["tool", "review"]);
    let gate = up(&home);
    assert!(gate.call("api__read", &json!({})).starts_with("called with"));
    drop(gate);
    // A login that cannot be revoked there is gone here all the same, and that is said.
    stand.lie("no-revoke");
    let told = home.shown(&["logout", "api"]);
    assert!(
        told.contains("the login is removed here, and could not be revoked") && told.ends_with("exit 1"),
        "{told}"
    );
    assert_eq!(home.done(&["secret", "list", "--json"]).trim(), "[]");
    assert_nowhere(&home, &[&said.all(), &told]);
}

#[test]
fn what_cannot_be_logged_in_to_says_so() {
    let home = Home::new("login-none");
    home.config(&format!("{}[servers.api]\nurl = \"http://127.0.0.1:1/mcp\"\n", Home::office("office")));
    for (arguments, why) in [
        (&["login", "nobody"][..], "there is no server `nobody` in the configuration"),
        (&["login", "office"], "has no `url`"),
        (&["login", "api"], "could not connect"),
        (&["login"], "Usage"),
        (&["login", "api", "--scope", "a\"b"], "a scope has letters"),
        (&["login", "api", "--client-secret-file", "x"], "--client-id"),
        (&["login", "api", "--client-id", "x"], "--issuer"),
        (&["logout", "api"], "there is no gate in"),
    ] {
        let told = home.shown(arguments);
        assert!(told.contains(why) && told.ends_with("exit 1"), "{arguments:?}: {told}");
    }
    // Something else of the same name is not touched.
    crate::credentials::keep(&home, "login-api", &value("api"), &["--slot", "env:X", "--tool", "api/*"]);
    let told = home.shown(&["logout", "api"]);
    assert!(told.contains("there is a secret `login-api` already"), "{told}");
    assert!(home.done(&["secret", "list"]).contains("login-api"));
    assert!(home.shown(&["login", "--list"]).contains("Nobody is logged in"));
}
