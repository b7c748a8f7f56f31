//! Cells with a way out: what gets through, and all that must not.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

mod common;

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{cells, spec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use toolgate_sandbox::cell::{Cell, Cells, Layers, Place, Spec};
use toolgate_sandbox::egress::{
    Attempt, Event, HelloError, HostName, HttpError, RESOLV_CONF, Refused, Resolve, To, Verdict,
};

/// The host's names, as the test has them.
#[derive(Debug, Default)]
struct Table {
    names: HashMap<&'static str, Vec<IpAddr>>,
    /// Whether nothing is answered until it is said to.
    held: Mutex<bool>,
    released: Condvar,
}

impl Table {
    fn of(names: &[(&'static str, &[&str])]) -> Arc<Self> {
        let parse = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        let names = names.iter().map(|(name, addresses)| (*name, parse(addresses))).collect();
        Arc::new(Self { names, ..Self::default() })
    }

    fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.released.notify_all();
    }
}

impl Resolve for Table {
    fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        let held = self.held.lock().unwrap();
        drop(self.released.wait_while(held, |held| *held).unwrap());
        self.names.get(name.as_str()).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A server on the host that says back what it was told, and counts who came.
struct Server {
    port: u16,
    came: Arc<AtomicU64>,
}

fn serve(with: fn(TcpStream)) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let came = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&came);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || with(stream.unwrap()));
        }
    });
    Server { port, came }
}

fn echo(mut stream: TcpStream) {
    let mut heard = Vec::new();
    if stream.read_to_end(&mut heard).is_ok() {
        let _gone = stream.write_all(&heard);
    }
}

fn count(mut stream: TcpStream) {
    let length = io::copy(&mut stream, &mut io::sink()).unwrap();
    let _gone = stream.write_all(length.to_string().as_bytes());
}

/// Answers one request after the other with its first line and its host, up to one that is to be the last. It reads no bodies.
fn http(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        head.extend(byte);
        if head.ends_with(b"\r\n\r\n") {
            let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
            let mut lines = text.lines();
            let body = format!("{} for {}\n", lines.next().unwrap(), lines.next().unwrap());
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _gone = stream.write_all(answer.as_bytes());
            if text.contains("\r\nConnection: close\r\n") {
                // Not by a reset, which would take the answer away.
                let _gone = stream.shutdown(std::net::Shutdown::Write);
                let _rest = io::copy(&mut stream, &mut io::sink());
                return;
            }
        }
    }
}

impl Server {
    fn came(&self) -> u64 {
        self.came.load(Ordering::SeqCst)
    }

    fn at(&self, name: &str) -> String {
        format!("{name}:{}", self.port)
    }
}

/// A cell for a hostile program, with these rules.
fn networked(rules: &[&str], arguments: &[&str]) -> (Spec, Vec<toolgate_sandbox::cell::Opened>) {
    let argv: Vec<&str> = std::iter::once("/hostile").chain(arguments.iter().copied()).collect();
    let (mut spec, kept) = spec(&argv);
    spec.places.push(Place::File { at: "/etc/resolv.conf".to_owned(), content: RESOLV_CONF.to_owned() });
    spec.net = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    spec.limits.descriptors = 4096;
    (spec, kept)
}

async fn all(cell: &mut Cell) -> tokio::task::JoinHandle<Vec<Event>> {
    let mut network = cell.network.take().unwrap();
    tokio::spawn(async move {
        let mut events = Vec::new();
        while let Some(event) = network.recv().await {
            events.push(event);
        }
        events
    })
}

/// Runs an attempt, and says what came of it and what the gate saw.
async fn run(cells: &Cells, rules: &[&str], arguments: &[&str]) -> (String, Vec<Event>) {
    let (spec, kept) = networked(rules, arguments);
    let mut cell = cells.run(&spec).await.unwrap();
    drop(kept);
    let events = all(&mut cell).await;
    let finished = cell.finish(b"", &spec.limits).await.unwrap();
    let text = String::from_utf8(finished.stdout).unwrap();
    let errors = String::from_utf8_lossy(&finished.stderr).into_owned();
    let last = text.lines().last().unwrap_or_else(|| panic!("{arguments:?}: {:?} {errors}", finished.ended));
    (last.to_owned(), events.await.unwrap())
}

fn refusals(events: &[Event]) -> Vec<(String, u16, Refused)> {
    let refused = |event: &Event| match event {
        Event::Attempt(Attempt { to, port, verdict: Verdict::Refused(why), .. }) => {
            Some((to.to_string(), *port, *why))
        }
        Event::Attempt(_) | Event::Untold(_) => None,
    };
    events.iter().filter_map(refused).collect()
}

fn networked_cells(names: &[(&'static str, &[&str])]) -> Cells {
    cells(Layers::ALL).resolving_with(Table::of(names))
}

#[tokio::test]
async fn an_allowed_name_is_reached_and_told_of() {
    let server = serve(echo);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let rule = server.at("server.example") + ",private";
    let (said, events) = run(&cells, &[&rule], &["net-talk", &server.at("Server.Example"), "hello"]).await;
    assert_eq!(said, "ESCAPED: heard hello", "{events:?}");
    let [Event::Attempt(attempt)] = &events[..] else { panic!("{events:?}") };
    let Attempt { to, port, verdict, up, down, .. } = attempt;
    assert_eq!((to, *port), (&To::Name("server.example".parse().unwrap()), server.port));
    assert_eq!((*verdict, *up, *down), (Verdict::Allowed, 5, 5));
}

#[tokio::test]
async fn everything_that_is_sent_arrives() {
    let server = serve(count);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let rule = server.at("server.example") + ",private";
    let (said, events) = run(&cells, &[&rule], &["net-send", &server.at("server.example"), "24"]).await;
    assert_eq!(said, format!("ESCAPED: heard {}", 24 << 20), "{events:?}");
}

#[tokio::test]
async fn the_first_address_that_answers_is_taken() {
    let server = serve(echo);
    // Nobody listens at the second one, and the first one is not to be connected to.
    let cells = networked_cells(&[("server.example", &["169.254.169.254", "127.0.0.2", "127.0.0.1"])]);
    let rule = server.at("server.example") + ",private";
    let (said, _) = run(&cells, &[&rule], &["net-talk", &server.at("server.example"), "hello"]).await;
    assert_eq!(said, "ESCAPED: heard hello");
}

#[tokio::test]
async fn only_name_and_port_of_a_rule_are_reached() {
    let server = serve(echo);
    let other = serve(echo);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"]), ("other.example", &["127.0.0.1"])]);
    let rule = server.at("server.example") + ",private";
    for (target, want) in [
        (other.at("server.example"), ("server.example", other.port, Refused::Port)),
        (server.at("other.example"), ("other.example", 0, Refused::Name)),
        (server.at("evil.server.example"), ("evil.server.example", 0, Refused::Name)),
        (server.at("127.0.0.1"), ("", 0, Refused::Name)),
        (server.at("198.18.0.1"), ("198.18.0.1", server.port, Refused::Unnamed)),
        (server.at("198.18.1.0"), ("198.18.1.0", server.port, Refused::Unnamed)),
        ("198.18.0.1:53".to_owned(), ("198.18.0.1", 53, Refused::Unnamed)),
        ("192.0.2.1:443".to_owned(), ("192.0.2.1", 443, Refused::Unnamed)),
        ("169.254.169.254:80".to_owned(), ("169.254.169.254", 80, Refused::Unnamed)),
        ("100.100.100.200:80".to_owned(), ("100.100.100.200", 80, Refused::Unnamed)),
    ] {
        let (said, events) = run(&cells, &[&rule], &["connect", &target]).await;
        assert!(said.starts_with("contained"), "{target}: {said}");
        // The cell's own loopback is its own; nothing of it is seen outside.
        if !want.0.is_empty() {
            let (to, port, why) = want;
            assert!(refusals(&events).contains(&(to.to_owned(), port, why)), "{target}: {events:?}");
        }
    }
    let (said, _) =
        run(&cells, &[&rule], &["connect", "[::1]:22", "[fd00:ec2::254]:80", "[2606:4700::1]:443"]).await;
    assert!(said.starts_with("contained"), "{said}");
    assert_eq!((server.came(), other.came()), (0, 0));
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_followed() {
    let server = serve(echo);
    let inside: &[&str] =
        &["127.0.0.1", "10.0.0.1", "192.168.0.1", "100.64.0.1", "::1", "fd00::1", "0.0.0.0"];
    let metadata: &[&str] =
        &["169.254.169.254", "fd00:ec2::254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"];
    let names: &[(_, &[&str])] =
        &[("inside.example", inside), ("metadata.example", metadata), ("nowhere.example", &[])];
    let cells = networked_cells(names);
    for name in ["inside.example", "metadata.example"] {
        let rule = server.at(name);
        let (said, events) = run(&cells, &[&rule], &["connect", &rule]).await;
        assert!(said.starts_with("contained"), "{name}: {said}");
        assert_eq!(refusals(&events), [(name.to_owned(), server.port, Refused::Address)]);
    }
    // What is nobody's to connect to is not, also where a rule allows private addresses.
    let rule = server.at("metadata.example") + ",private";
    let (said, events) = run(&cells, &[&rule], &["connect", &server.at("metadata.example")]).await;
    assert!(said.starts_with("contained"), "{said}");
    assert_eq!(refusals(&events), [("metadata.example".to_owned(), server.port, Refused::Address)]);
    for name in ["nowhere.example", "unknown.example"] {
        let rule = server.at(name);
        let (said, events) = run(&cells, &[&rule], &["connect", &rule]).await;
        assert!(said.starts_with("contained"), "{name}: {said}");
        assert!(
            matches!(&events[..], [Event::Attempt(Attempt { verdict: Verdict::Failed, .. })]),
            "{events:?}"
        );
    }
    assert_eq!(server.came(), 0);
}

#[tokio::test]
async fn the_dns_knows_what_is_allowed() {
    let cells = networked_cells(&[]);
    let rules = ["api.example.com:443", "*.cdn.example:443"];
    for (name, kind, want) in [
        ("api.example.com", "1", "ESCAPED: code 0, address [198, 18, 1, 0]"),
        ("API.Example.com", "1", "ESCAPED: code 0, address [198, 18, 1, 0]"),
        ("x.y.cdn.example", "1", "ESCAPED: code 0, address [198, 18, 1, 0]"),
        ("api.example.com", "28", "contained: code 0"),
        ("api.example.com", "16", "contained: code 0"),
        ("api.example.com", "65", "contained: code 0"),
        ("api.example.com", "255", "contained: code 0"),
        ("example.com", "1", "contained: code 3"),
        ("cdn.example", "1", "contained: code 3"),
        ("b64data.attacker.example", "1", "contained: code 3"),
        ("b64data.attacker.example", "16", "contained: code 3"),
        ("localhost", "1", "contained: code 3"),
        ("127.0.0.1", "1", "contained: code 3"),
        ("a_b.cdn.example", "1", "contained: code 3"),
    ] {
        let (said, events) = run(&cells, &rules, &["net-ask", name, kind]).await;
        assert_eq!(said, want, "{name} {kind}");
        assert_eq!(want.ends_with('3'), !refusals(&events).is_empty(), "{name} {kind}: {events:?}");
    }
    let (said, _) = run(&cells, &rules, &["net-garbage", "api.example.com", "1"]).await;
    assert_eq!(said, "ESCAPED: code 0, address [198, 18, 1, 0]");
}

#[tokio::test]
async fn nothing_but_tcp_goes_out() {
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let rules = ["server.example:443,private"];
    let targets = ["8.8.8.8:53", "198.18.0.1:54", "198.18.1.0:443", "192.0.2.1:123", "224.0.0.251:5353"];
    let arguments: Vec<&str> = std::iter::once("net-datagrams").chain(targets).collect();
    let (said, events) = run(&cells, &rules, &arguments).await;
    assert!(said.starts_with("contained"), "{said}");
    for to in ["8.8.8.8", "198.18.0.1", "192.0.2.1"] {
        assert!(
            refusals(&events).iter().any(|(name, _, why)| name == to && *why == Refused::Udp),
            "{to}: {events:?}"
        );
    }
    for name in ["net-ping", "families"] {
        let (said, _) = run(&cells, &rules, &[name, "192.0.2.1:1", "198.18.0.1:1"]).await;
        assert!(said.starts_with("contained"), "{name}: {said}");
    }
}

#[tokio::test]
async fn tls_is_for_the_name_that_was_looked_up() {
    let server = serve(echo);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let rule = server.at("server.example") + ",private";
    let target = server.at("server.example");
    for (arguments, want) in [
        (&["server.example", "9999"][..], None),
        (&["Server.EXAMPLE", "9999"], None),
        (&["server.example", "1"], None),
        (&["evil.example", "9999"], Some(HelloError::OtherName)),
        (&["evil.example", "1"], Some(HelloError::OtherName)),
        (&["127.0.0.1", "9999"], Some(HelloError::Nameless)),
        (&["-", "9999"], Some(HelloError::Nameless)),
        (&["server.example", "9999", "ech"], Some(HelloError::Hidden)),
    ] {
        let arguments = [&["net-hello", target.as_str()], arguments].concat();
        let (said, events) = run(&cells, &[&rule], &arguments).await;
        let refused: Vec<_> = refusals(&events).into_iter().map(|(_, _, why)| why).collect();
        let want: Vec<_> = want.map(Refused::Hello).into_iter().collect();
        assert_eq!(
            (said.starts_with("contained"), &refused),
            (!want.is_empty(), &want),
            "{arguments:?}: {said}"
        );
        for event in &events {
            let Event::Attempt(Attempt { verdict, up, .. }) = event else { panic!("{event:?}") };
            assert_eq!(*verdict == Verdict::Allowed, *up > 0, "nothing goes out before it is known for whom");
        }
    }
    // Where a rule says so, it is not looked at.
    let rule = rule + ",danger-any-tls";
    for arguments in [&["evil.example", "9999"][..], &["-", "9999"], &["server.example", "9999", "ech"]] {
        let arguments = [&["net-hello", target.as_str()], arguments].concat();
        let (said, _) = run(&cells, &[&rule], &arguments).await;
        assert!(said.starts_with("ESCAPED: heard"), "{arguments:?}: {said}");
    }
}

const PROXY: &str = "198.18.0.1:3128";

#[tokio::test]
async fn only_requests_of_a_rule_go_out() {
    let server = serve(http);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let at = server.at("server.example");
    let rule = format!("{at},private,GET=/v1,POST=/v1/items");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    for path in ["/v1", "/v1/x?y=1"] {
        let (said, events) = run(&cells, &[&rule], &["net-talk", &at, &get(path)]).await;
        assert_eq!(said, format!("GET {path} HTTP/1.1 for Host: {at}"), "{events:?}");
        assert!(
            matches!(&events[..], [Event::Attempt(Attempt { verdict: Verdict::Allowed, .. })]),
            "{events:?}"
        );
    }
    // A rule without `private` beside it is for other addresses.
    let (said, _) = run(&cells, &[&at, &rule], &["net-talk", &at, &get("/v2")]).await;
    assert_eq!(said, HttpError::Request.to_string());
    let two = |second: &str| get("/v1") + second;
    let tls = String::from_utf8(vec![22, 3, 1, 1, 5]).unwrap();
    for (sent, why, told) in [
        (get("/v2"), HttpError::Request, true),
        (get("/v1/../v2"), HttpError::Request, true),
        (get("/v1").replace("GET", "DELETE"), HttpError::Request, true),
        (get("/v1").replace("server.example", "other.example"), HttpError::Host, true),
        (get("/v1").replace("\r\n\r\n", "\r\nContent-Length: 9\r\n\r\n"), HttpError::Malformed, true),
        (get("/v1").replace('\r', ""), HttpError::Malformed, true),
        (tls, HttpError::Malformed, true),
        // What comes after a request that went out is cut off.
        (two(&get("/v2")), HttpError::Request, false),
        (two("GET /v1 HT"), HttpError::Malformed, false),
    ] {
        let (said, events) = run(&cells, &[&rule], &["net-talk", &at, &sent]).await;
        assert!(!said.contains("/v2") && !said.contains("DELETE"), "{sent:?}: {said}");
        if told {
            assert_eq!(said, why.to_string(), "{sent:?}");
        }
        let [Event::Attempt(attempt)] = &events[..] else { panic!("{events:?}") };
        let all = if told { 0 } else { get("/v1").len() as u64 };
        assert_eq!((attempt.verdict, attempt.up), (Verdict::Refused(Refused::Http(why)), all), "{sent:?}");
    }
}

#[tokio::test]
async fn a_proxy_does_what_is_done_without_it() {
    let server = serve(http);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"]), ("inside.example", &["127.0.0.1"])]);
    let at = server.at("server.example");
    let rules = [at.clone() + ",private", server.at("inside.example")];
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let get = |host: &str| {
        format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: a\r\n\r\n")
    };
    let (said, events) = run(&cells, &rules, &["net-talk", PROXY, &get(&at)]).await;
    assert_eq!(said, format!("GET /x HTTP/1.1 for Host: {at}"));
    let [Event::Attempt(Attempt { to, port, verdict: Verdict::Allowed, .. })] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((to.to_string().as_str(), *port), ("server.example", server.port));
    for (sent, why) in [
        (get(&server.at("other.example")), Refused::Name),
        (get("server.example:1"), Refused::Port),
        (get(&server.at("inside.example")), Refused::Address),
        (get(&server.at("127.0.0.1")), Refused::Name),
        (get(&server.at("evil@server.example")), Refused::Name),
        (get(&at).replace(&format!("Host: {at}"), "Host: inside.example"), Refused::Http(HttpError::Host)),
        (get(&at).replace("http:", "https:"), Refused::Http(HttpError::Malformed)),
        (get(&at).replace("http://", "//"), Refused::Http(HttpError::Malformed)),
        (format!("CONNECT {} HTTP/1.1\r\n\r\n", server.at("other.example")), Refused::Name),
        (format!("CONNECT {} HTTP/1.1\r\n\r\n", server.at("169.254.169.254")), Refused::Name),
        (
            format!("CONNECT {}\0.example:80 HTTP/1.1\r\n\r\n", "server.example").replace('\0', "%00"),
            Refused::Name,
        ),
        ("CONNECT server.example:22 HTTP/1.1\r\n\r\n".to_owned(), Refused::Port),
        ("SSH-2.0-client\r\n".to_owned(), Refused::Http(HttpError::Malformed)),
    ] {
        let (said, events) = run(&cells, &rules, &["net-talk", PROXY, &sent]).await;
        assert_eq!(said, why.to_string(), "{sent:?}");
        let refused: Vec<_> = refusals(&events).into_iter().map(|(_, _, why)| why).collect();
        assert_eq!(refused, [why], "{sent:?}");
    }
    assert_eq!(server.came(), 2, "the allowed one, and the one that was for another host when it came to it");
    // A half request to the proxy is nobody's.
    let (_, events) = run(&cells, &rules, &["net-talk", PROXY, "CONNECT server.example"]).await;
    assert!(matches!(&events[..], [Event::Attempt(Attempt { verdict: Verdict::Failed, .. })]), "{events:?}");
    // What the gate's end has besides, is nothing.
    let (said, _) = run(&cells, &rules, &["connect", "198.18.0.1:3129", "198.18.0.2:3128"]).await;
    assert!(said.starts_with("contained"), "{said}");
}

/// What has to be TLS without a proxy, has to be TLS with it.
#[tokio::test]
async fn a_proxy_says_nothing_in_the_clear_where_there_has_to_be_tls() {
    let cells = networked_cells(&[("server.example", &["127.0.0.2"])]);
    let sent = "POST http://server.example:443/x HTTP/1.1\r\nHost: server.example:443\r\n\r\n";
    let (said, events) = run(&cells, &["server.example:443,private"], &["net-talk", PROXY, sent]).await;
    assert_eq!(said, HelloError::NotTls.to_string());
    let refused = Refused::Hello(HelloError::NotTls);
    assert_eq!(refusals(&events), [("server.example".to_owned(), 443, refused)]);
    let rule = "server.example:443,private,danger-any-tls";
    let (_, events) = run(&cells, &[rule], &["net-talk", PROXY, sent]).await;
    assert!(matches!(&events[..], [Event::Attempt(Attempt { verdict: Verdict::Failed, .. })]), "{events:?}");
}

/// There are servers that take a body they do not read for the next request.
#[tokio::test]
async fn no_request_hides_in_the_body_of_another_one() {
    let server = serve(http);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let at = server.at("server.example");
    let rule = format!("{at},private,POST=/v1");
    let hidden = format!("GET /v2 HTTP/1.1\r\nHost: {at}\r\n\r\n");
    for sent in [
        format!("POST /v1 HTTP/1.1\r\nHost: {at}\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!(
            "POST /v1 HTTP/1.1\r\nHost: {at}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
            hidden.len()
        ),
    ] {
        let (said, events) = run(&cells, &[&rule], &["net-talk", &at, &sent]).await;
        assert_eq!(said, format!("POST /v1 HTTP/1.1 for Host: {at}"), "{sent:?}: {events:?}");
    }
}

#[tokio::test]
async fn a_tunnel_is_for_the_name_it_was_made_for() {
    let server = serve(echo);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let at = server.at("server.example");
    let rule = at.clone() + ",private";
    let (said, _) = run(&cells, &[&rule], &["net-tunnel", PROXY, &at, "server.example", "9999"]).await;
    assert!(said.starts_with("ESCAPED: heard"), "{said}");
    for (arguments, why) in [
        (&["evil.example", "9999"][..], HelloError::OtherName),
        (&["-", "1"], HelloError::Nameless),
        (&["server.example", "9999", "ech"], HelloError::Hidden),
    ] {
        let arguments = [&["net-tunnel", PROXY, &at], arguments].concat();
        let (said, events) = run(&cells, &[&rule], &arguments).await;
        assert!(said.starts_with("contained"), "{arguments:?}: {said}");
        assert_eq!(refusals(&events).last().map(|last| last.2), Some(Refused::Hello(why)), "{events:?}");
    }
    // Requests in a tunnel are those that are allowed without one.
    let web = serve(http);
    let at = web.at("server.example");
    let rule = format!("{at},private,GET=/v1");
    let sent = |path: &str| format!("CONNECT {at} HTTP/1.1\r\n\r\nGET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let (said, _) = run(&cells, &[&rule], &["net-talk", PROXY, &sent("/v1")]).await;
    assert_eq!(said, format!("GET /v1 HTTP/1.1 for Host: {at}"));
    let (said, events) = run(&cells, &[&rule], &["net-talk", PROXY, &sent("/v2")]).await;
    assert_eq!(said, HttpError::Request.to_string());
    assert_eq!(refusals(&events).last().map(|last| last.2), Some(Refused::Http(HttpError::Request)));
}

#[tokio::test]
async fn a_flood_is_bounded() {
    let server = serve(|stream| drop(io::copy(&mut &stream, &mut io::sink())));
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let rule = server.at("server.example") + ",private";
    let (said, events) = run(&cells, &[&rule], &["net-flood", &server.at("server.example"), "400"]).await;
    let connected: u64 = said.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((1..=128).contains(&connected), "{said}");
    let busy = refusals(&events).iter().filter(|(_, _, why)| *why == Refused::Busy).count();
    assert!(busy >= 272, "{busy}");
    assert!(server.came() <= 128, "{}", server.came());
    // One after the other, so that none of them is still on its way.
    let (spec, kept) = networked(&[&rule], &["net-hold", &server.at("server.example"), "150"]);
    let cell = cells.run(&spec).await.unwrap();
    drop(kept);
    let held = cell.finish(b"", &spec.limits).await.unwrap();
    assert!(held.stdout.starts_with(b"holding 128\n"), "{}", String::from_utf8_lossy(&held.stdout));
}

#[tokio::test]
async fn what_is_on_its_way_is_bounded() {
    let table = Table::of(&[("server.example", &["127.0.0.1"])]);
    *table.held.lock().unwrap() = true;
    let cells = cells(Layers::ALL).resolving_with(Arc::clone(&table) as Arc<dyn Resolve>);
    let (spec, kept) = networked(&["server.example:7,private"], &["net-flood", "server.example:7", "100"]);
    let mut cell = cells.run(&spec).await.unwrap();
    drop(kept);
    let mut network = cell.network.take().unwrap();
    // Of a hundred, all but 32 are told of at once, while nothing is answered.
    for _ in 0..100 - 32 {
        let Some(Event::Attempt(attempt)) = network.recv().await else { panic!("the way out has ended") };
        assert_eq!(attempt.verdict, Verdict::Refused(Refused::Busy));
    }
    // The cell's end does not wait for whoever resolves names.
    drop(cell);
    let mut rest = 0;
    while let Some(event) = network.recv().await {
        assert!(matches!(event, Event::Attempt(Attempt { verdict: Verdict::Failed, .. })), "{event:?}");
        rest += 1;
    }
    assert_eq!(rest, 32);
    table.release();
}

#[tokio::test]
async fn who_does_not_read_is_not_read_for() {
    static SENT: AtomicU64 = AtomicU64::new(0);
    let server = serve(|mut stream| {
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        while stream.write_all(&[7; 1 << 16]).is_ok() {
            SENT.fetch_add(1 << 16, Ordering::SeqCst);
        }
        // It could not send any more, and its connection is still there.
        SENT.fetch_or(1, Ordering::SeqCst);
        let _ = stream.read(&mut [0]);
    });
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let rule = server.at("server.example") + ",private";
    let (spec, kept) = networked(&[&rule], &["net-hold", &server.at("server.example"), "1"]);
    let mut cell = cells.run(&spec).await.unwrap();
    drop(kept);
    let events = all(&mut cell).await;
    let mut stdout = cell.stdout.take().unwrap();
    let mut said = [0; 10];
    stdout.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"holding 1\n");
    while SENT.load(Ordering::SeqCst) & 1 == 0 {
        tokio::task::yield_now().await;
    }
    // The buffers of two kernels and the gate's own: a few MiB each, and no more.
    assert!(SENT.load(Ordering::SeqCst) < 32 << 20, "{}", SENT.load(Ordering::SeqCst));
    cell.stdin.take().unwrap().write_all(b"enough\n").await.unwrap();
    cell.finish(b"", &spec.limits).await.unwrap();
    let events = events.await.unwrap();
    assert!(
        matches!(&events[..], [Event::Attempt(Attempt { verdict: Verdict::Allowed, up: 0, .. })]),
        "{events:?}"
    );
}

#[tokio::test]
async fn one_cell_knows_nothing_of_another() {
    let server = serve(echo);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let rule = server.at("server.example") + ",private";
    let (said, _) = run(&cells, &[&rule], &["net-talk", &server.at("server.example"), "hello"]).await;
    assert_eq!(said, "ESCAPED: heard hello");
    // The address it had means nothing in the next one, which has not asked for the name.
    let (said, _) = run(&cells, &[&rule], &["connect", &server.at("198.18.1.0")]).await;
    assert!(said.starts_with("contained"), "{said}");
    assert_eq!(server.came(), 1);
}

#[tokio::test]
async fn without_rules_there_is_no_interface() {
    let (spec, kept) = networked(&[], &["connect", "198.18.1.0:443", "192.0.2.1:443"]);
    let cell = cells(Layers::ALL).run(&spec).await.unwrap();
    drop(kept);
    assert!(cell.network.is_none());
    let finished = cell.finish(b"", &spec.limits).await.unwrap();
    assert!(finished.stdout.starts_with(b"contained"), "{finished:?}");
}

#[tokio::test]
async fn who_gives_up_is_given_up() {
    let server = serve(echo);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let at = server.at("server.example");
    let rule = at.clone() + ",private";
    let (said, events) = run(&cells, &[&rule], &["net-cancel", &at, "10", "hello"]).await;
    assert_eq!(said, "ESCAPED: heard hello", "{events:?}");
}

/// Parts that are as small as they can be are much work for the gate: it does not do it all before it looks at anything else.
#[tokio::test]
async fn who_sips_does_not_hold_up_others() {
    let server = serve(count);
    let cells = networked_cells(&[("server.example", &["127.0.0.1"])]);
    let at = server.at("server.example");
    let rule = at.clone() + ",private,POST=/";
    let head = format!("POST / HTTP/1.1\r\nHost: {at}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (spec, kept) = networked(&[&rule], &["net-sip", &at, "16", &head, "1\r\nx\r\n"]);
    let mut cell = cells.run(&spec).await.unwrap();
    drop(kept);
    let mut events = cell.network.take().unwrap();
    let mut said = [0; 8];
    cell.stdout.take().unwrap().read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"sipping\n");
    drop(cell);
    let begun = Instant::now();
    let mut told = 0;
    while events.recv().await.is_some() {
        told += 1;
    }
    assert!(told > 0 && begun.elapsed() < Duration::from_secs(5), "{told} after {:?}", begun.elapsed());
}
