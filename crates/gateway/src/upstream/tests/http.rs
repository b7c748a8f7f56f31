//! Servers over Streamable HTTP, on loopback: a small server that answers by script, byte by byte where it is bad.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use toolgate_broker::port::StopReason;

use super::*;

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    head: String,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn method(&self) -> String {
        let verb = self.head.split(' ').next().unwrap_or_default();
        if self.body.is_empty() {
            return verb.to_owned();
        }
        let message = json(&self.body);
        message.root().get("method").and_then(|m| m.as_str()).unwrap_or("an answer").to_owned()
    }

    fn id(&self) -> i64 {
        json(&self.body).root().get("id").and_then(|id| id.as_i64()).unwrap_or_default()
    }

    pub(super) fn result(&self, result: &str) -> String {
        ok("application/json", &format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, self.id()))
    }

    fn event(&self, result: &str) -> String {
        format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}\n\n", self.id())
    }
}

fn ok(media_type: &str, body: &str) -> String {
    answer("200 OK", &format!("content-type: {media_type}\r\n"), body)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

pub(super) struct FakeHttp {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    /// Tells the number of a connection that the gate has closed.
    closed: mpsc::UnboundedReceiver<()>,
}

impl FakeHttp {
    /// Answers each request as `script` says; an empty answer is none, and the connection stays open.
    pub(super) async fn start(script: impl Fn(&Seen) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp?x=1", listener.local_addr().unwrap());
        let (seen, connections) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicUsize>::default());
        let (tell, closed) = mpsc::unbounded_channel();
        let (all, count, script) = (Arc::clone(&seen), Arc::clone(&connections), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (all, script, tell) = (Arc::clone(&all), Arc::clone(&script), tell.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(seen) = read_request(&mut stream).await {
                        let answer = script(&seen);
                        all.lock().unwrap().push(seen);
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                        if answer.contains("connection: close") {
                            drop(stream.shutdown().await);
                        }
                    }
                    let _nobody_listens = tell.send(());
                });
            }
        });
        Self { url, seen, connections, closed }
    }

    fn upstreams(&self) -> Upstreams {
        let headers = [("Authorization".to_owned(), "Bearer operators".to_owned())];
        upstreams(Transport::Http(HttpServer::new(&self.url, &headers).unwrap()))
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        self.url.trim_start_matches("http://").split('/').next().unwrap().to_owned()
    }

    pub(super) fn methods(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(Seen::method).collect()
    }

    fn last(&self, method: &str) -> Seen {
        self.seen.lock().unwrap().iter().rfind(|seen| seen.method() == method).cloned().unwrap()
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let mut seen = Seen { head, body: String::new() };
    let length = seen.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}

/// What every modern server of these tests says before the call.
pub(super) fn modern(seen: &Seen, called: &str) -> String {
    match seen.method().as_str() {
        "server/discover" => seen.result(DISCOVERED),
        "initialize" => answer("400 Bad Request", "", "no such method"),
        "tools/list" => seen.result(&format!(r#"{{"resultType":"complete","tools":[{TOOL}]}}"#)),
        "tools/call" => called.to_owned(),
        other => panic!("{other}"),
    }
}

/// What every legacy server of these tests says before the call.
fn legacy(seen: &Seen, called: impl FnOnce(&Seen) -> String) -> String {
    match seen.method().as_str() {
        "server/discover" => answer("400 Bad Request", "", "no session"),
        "initialize" => {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{INITIALIZED}}}"#, seen.id());
            answer("200 OK", "content-type: application/json\r\nmcp-session-id: sess-1\r\n", &body)
        }
        "notifications/initialized" | "an answer" | "DELETE" | "notifications/cancelled" => {
            answer("202 Accepted", "", "")
        }
        "GET" => answer("405 Method Not Allowed", "", ""),
        "tools/list" => seen.result(&format!(r#"{{"tools":[{TOOL}]}}"#)),
        "tools/call" => called(seen),
        other => panic!("{other}"),
    }
}

const ARGUMENTS: &str = r#"{"name":"srv__t","arguments":{"region":"Übersee"},"_meta":{"progressToken":7}}"#;

#[tokio::test]
async fn a_modern_call_carries_its_headers_and_only_the_operators_credentials() {
    let fake = FakeHttp::start(|seen| {
        modern(seen, &seen.result(r#"{"resultType":"complete","content":[],"x":1.50}"#))
    })
    .await;
    let up = fake.upstreams();
    let agent = FakeAgent::new(MODERN, &[]);
    for _ in 0..3 {
        let got = run(&up, call("s", ARGUMENTS), &agent, false).await;
        assert_eq!(got, r#"result {"resultType":"complete","content":[],"x":1.50}"#);
    }
    let seen = fake.last("tools/call");
    for (name, want) in [
        ("mcp-protocol-version", Some("2026-07-28")),
        ("mcp-method", Some("tools/call")),
        ("mcp-name", Some("t")),
        ("mcp-param-region", Some("=?base64?w5xiZXJzZWU=?=")),
        ("authorization", Some("Bearer operators")),
        ("accept", Some("application/json, text/event-stream")),
        ("mcp-session-id", None),
    ] {
        assert_eq!(seen.header(name), want, "{name}");
    }
    assert!(seen.head.starts_with("POST /mcp?x=1 HTTP/1.1\r\n"), "{}", seen.head);
    assert!(seen.body.contains(r#""name":"t","arguments":{"region":"Übersee"}"#), "{}", seen.body);
    assert_eq!(fake.methods(), ["server/discover", "tools/list", "tools/call", "tools/call", "tools/call"]);
    assert_eq!(fake.connections.load(Ordering::Relaxed), 1, "one connection is enough");
}

#[tokio::test]
async fn a_stream_of_events_brings_progress_and_the_answer() {
    let fake = FakeHttp::start(|seen| {
        let progress = format!(
            "event: message\r\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\r\ndata: \"params\":{{\"progressToken\":{},\"progress\":1}}}}\r\n\r\n",
            if seen.method() == "tools/call" { seen.id() } else { 0 }
        );
        let stream = format!(": keep-alive\n\n{progress}{}", if seen.body.is_empty() { String::new() } else { seen.event(r#"{"resultType":"complete","content":[]}"#) });
        modern(seen, &ok("text/event-stream; charset=utf-8", &stream))
    })
    .await;
    let agent = FakeAgent::new(MODERN, &[]);
    let got = run(&fake.upstreams(), call("s", ARGUMENTS), &agent, false).await;
    assert_eq!(got, r#"result {"resultType":"complete","content":[]}"#);
    assert_eq!(agent.heard(), [r#"notifications/progress {"progressToken":7,"progress":1}"#]);
}

#[tokio::test]
async fn bad_servers() {
    let good = r#"{"resultType":"complete","content":[]}"#;
    let big = format!(r#"{{"content":["{}"]}}"#, "x".repeat(100 << 10));
    let stream = |events: String| answer("200 OK", "content-type: text/event-stream\r\n", &events);
    let plain = |body: &str| ok("application/json", body);
    type Script = Box<dyn Fn(&Seen) -> String + Send + Sync>;
    let cases: Vec<(&str, Script, &str)> = vec![
        ("500", Box::new(|_| answer("500 Oops", "", "")), "lost: the server answered HTTP 500"),
        (
            "redirect",
            Box::new(|_| answer("307 Go", "location: http://127.0.0.1:1/\r\n", "")),
            "error {\"code\":-32603,\"message\":\"the server answered HTTP 307\"}",
        ),
        (
            "401",
            Box::new(|_| answer("401 No", "", "")),
            "error {\"code\":-32603,\"message\":\"the server answered HTTP 401\"}",
        ),
        (
            "no content type",
            Box::new(|seen| seen.result(good).replace("application/json", "text/html")),
            "lost: the answer is neither JSON nor a stream of events",
        ),
        (
            "accepted",
            Box::new(|_| answer("202 Accepted", "", "")),
            "lost: the server took the request and gave no answer",
        ),
        (
            "another id",
            Box::new(|seen| seen.result(good).replace(&format!("\"id\":{}", seen.id()), "\"id\":0")),
            "lost: the answer is to another request",
        ),
        ("too large", Box::new(move |seen| seen.result(&big)), "lost: the answer is larger than 65536 bytes"),
        ("no JSON", Box::new(move |_| plain("hello")), "lost: the server sent what is no message"),
        (
            "a batch",
            Box::new(move |seen| {
                ok(
                    "application/json",
                    &format!("[{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{}}}}]", seen.id()),
                )
            }),
            "lost: the server sent what is no message",
        ),
        (
            "hangs up",
            Box::new(|_| {
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{".to_owned()
            }),
            "lost: the connection broke while the answer was read",
        ),
        ("no HTTP", Box::new(|_| "hello\r\n\r\n".to_owned()), "lost: no answer:"),
        (
            "an endless event",
            Box::new(move |_| stream(format!("data: {}", "x".repeat(100 << 10)))),
            "lost: the answer is larger than 65536 bytes",
        ),
        (
            "a stream without an answer",
            Box::new(move |_| stream(": hello\n\n".to_owned())),
            "lost: the stream ended without an answer",
        ),
        (
            "a bad event",
            Box::new(move |_| stream("data: {\n\n".to_owned())),
            "lost: the server sent what is no message",
        ),
        (
            "an answer to another first",
            Box::new(move |seen| {
                stream(format!("{}{}", seen.event(good).replace("\"id\":", "\"id\":9"), seen.event(good)))
            }),
            "result {\"resultType\":\"complete\",\"content\":[]}",
        ),
        (
            "a request in a modern stream",
            Box::new(move |seen| {
                stream(format!(
                    "data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}}\n\n{}",
                    seen.event(good)
                ))
            }),
            "result {\"resultType\":\"complete\",\"content\":[]}",
        ),
    ];
    for (name, script, want) in cases {
        let fake = FakeHttp::start(move |seen| match seen.method().as_str() {
            "tools/call" => script(seen),
            "an answer" => answer("202 Accepted", "", ""),
            _ => modern(seen, ""),
        })
        .await;
        let agent = FakeAgent::new(MODERN, &[]);
        let got = run(&fake.upstreams(), call("s", ARGUMENTS), &agent, true).await;
        assert!(got.starts_with(want), "{name}: {got}");
        assert_eq!(fake.methods().iter().filter(|m| *m == "tools/call").count(), 1, "{name}: sent once");
        assert_eq!(agent.heard(), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn what_listens_to_nobody_got_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let up = upstreams(Transport::Http(HttpServer::new(&url, &[]).unwrap()));
    let got = run(&up, call("s", ARGUMENTS), &FakeAgent::new(MODERN, &[]), false).await;
    assert!(got.starts_with("not sent: server `srv` could not be opened: could not connect"), "{got}");
}

#[tokio::test]
async fn a_modern_call_is_cancelled_by_closing_its_stream() {
    let (tell, stop) = Stop::new();
    let mut fake = FakeHttp::start(move |seen| {
        if seen.method() == "tools/call" {
            tell.send(Some(StopReason::Deadline)).unwrap();
        }
        modern(
            seen,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )
    })
    .await;
    let up = fake.upstreams();
    let got = run_until(&up, call("s", ARGUMENTS), &FakeAgent::new(MODERN, &[]), false, stop).await;
    assert_eq!(got, "timed out");
    fake.closed.recv().await.unwrap();
    assert_eq!(fake.methods(), ["server/discover", "tools/list", "tools/call"]);
}

#[tokio::test]
async fn a_legacy_session_is_kept_renewed_and_ended() {
    let calls = AtomicUsize::new(0);
    let fake = FakeHttp::start(move |seen| {
        legacy(seen, |seen| match calls.fetch_add(1, Ordering::Relaxed) {
            1 => answer("404 Not Found", "", ""),
            _ => seen.result(r#"{"content":[]}"#),
        })
    })
    .await;
    let up = fake.upstreams();
    let agent = FakeAgent::new(LEGACY, &[]);
    assert_eq!(run(&up, call("s", ARGUMENTS), &agent, false).await, r#"result {"content":[]}"#);
    let seen = fake.last("tools/call");
    assert_eq!(seen.header("mcp-session-id"), Some("sess-1"));
    assert_eq!(seen.header("mcp-protocol-version"), Some("2025-06-18"));
    assert_eq!(seen.header("mcp-method"), None);
    assert_eq!(seen.header("mcp-param-region"), None);
    assert_eq!(fake.last("initialize").header("mcp-session-id"), None);
    let gone = run(&up, call("s", ARGUMENTS), &agent, false).await;
    assert_eq!(
        gone, r#"error {"code":-32603,"message":"the server answered HTTP 404"}"#,
        "and not sent again"
    );
    assert_eq!(run(&up, call("s", ARGUMENTS), &agent, false).await, r#"result {"content":[]}"#);
    assert_eq!(fake.methods().iter().filter(|m| *m == "initialize").count(), 2);
    up.end_session("s");
    while fake.methods().iter().filter(|m| *m == "DELETE").count() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.last("DELETE").header("mcp-session-id"), Some("sess-1"));
}

#[tokio::test]
async fn a_stream_that_a_legacy_server_ends_is_taken_up_again_and_nothing_is_sent_twice() {
    let primed = "id: e-1\nretry: 1\ndata: \n\n";
    for (what, at_first, later, want, gets) in [
        ("goes on", primed, Some("answer"), r#"result {"content":[]}"#, 1),
        ("goes on later", primed, Some("nothing, then answer"), r#"result {"content":[]}"#, 2),
        ("never goes on", primed, Some("nothing"), "lost", 3),
        ("is not known any more", primed, None, "lost", 1),
        ("has no id", "retry: 1\ndata: \n\n", Some("answer"), "lost", 0),
    ] {
        let resumed = AtomicUsize::new(0);
        let number = Arc::new(AtomicUsize::new(0));
        let fake = FakeHttp::start(move |seen| {
            if seen.method() == "GET" && seen.header("last-event-id").is_some() {
                let id = number.load(Ordering::Relaxed);
                let event =
                    format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}\n\n");
                return match (later, resumed.fetch_add(1, Ordering::Relaxed)) {
                    (None, _) => answer("405 Method Not Allowed", "", ""),
                    (Some("nothing"), _) | (Some("nothing, then answer"), 0) => {
                        ok("text/event-stream", "id: e-1\nretry: 1\n\n")
                    }
                    (Some(_), _) => ok("text/event-stream", &event),
                };
            }
            legacy(seen, |seen| {
                number.store(usize::try_from(seen.id()).unwrap(), Ordering::Relaxed);
                ok("text/event-stream", at_first)
            })
        })
        .await;
        let agent = FakeAgent::new(LEGACY, &[]);
        let got = run(&fake.upstreams(), call("s", ARGUMENTS), &agent, false).await;
        assert!(got.starts_with(want), "{what}: {got}");
        let seen = fake.seen.lock().unwrap().clone();
        let resumes: Vec<_> = seen.iter().filter_map(|seen| seen.header("last-event-id")).collect();
        assert_eq!(resumes, vec!["e-1"; gets], "{what}");
        assert_eq!(seen.iter().filter(|seen| seen.method() == "tools/call").count(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_version_it_supports_is_asked_once_more() {
    let refusal = r#"{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]}}"#;
    for (refusals, want) in [(1, "result {"), (2, "not sent: ")] {
        let asked = AtomicUsize::new(0);
        let fake = FakeHttp::start(move |seen| {
            if seen.method() == "server/discover" && asked.fetch_add(1, Ordering::Relaxed) < refusals {
                let body = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{refusal}}}"#, seen.id());
                return answer("400 Bad Request", "content-type: application/json\r\n", &body);
            }
            modern(seen, &seen.result(r#"{"resultType":"complete","content":[]}"#))
        })
        .await;
        let agent = FakeAgent::new(MODERN, &[]);
        let got = run(&fake.upstreams(), call("s", ARGUMENTS), &agent, false).await;
        assert!(got.starts_with(want), "{refusals}: {got}");
        assert_eq!(fake.methods().iter().filter(|m| *m == "server/discover").count(), 2);
    }
}

#[tokio::test]
async fn the_era_of_the_agent_is_tried_first() {
    // Each server answers in the eras it speaks; the agent's own comes first, and no server is asked more than it must be.
    for (speaks, version, want) in [
        ("both", LEGACY, vec!["initialize", "notifications/initialized", "tools/list", "tools/call"]),
        ("both", MODERN, vec!["server/discover", "tools/list", "tools/call"]),
        ("modern", LEGACY, vec!["initialize", "server/discover", "tools/list", "tools/call"]),
        (
            "legacy",
            MODERN,
            vec!["server/discover", "initialize", "notifications/initialized", "tools/list", "tools/call"],
        ),
    ] {
        let fake = FakeHttp::start(move |seen| match (speaks, seen.method().as_str()) {
            ("both", "initialize") | ("legacy", _) => legacy(seen, |seen| seen.result(r#"{"content":[]}"#)),
            ("both", "DELETE" | "GET" | "notifications/initialized") => legacy(seen, |_| String::new()),
            _ => modern(seen, &seen.result(r#"{"resultType":"complete","content":[]}"#)),
        })
        .await;
        let agent = FakeAgent::new(version, &[]);
        let got = run(&fake.upstreams(), call("s", ARGUMENTS), &agent, false).await;
        assert!(got.starts_with("result {"), "{speaks}, {version}: {got}");
        let methods: Vec<_> = fake.methods().into_iter().filter(|m| m != "GET" && m != "DELETE").collect();
        assert_eq!(methods, want, "{speaks}, {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn log_messages_on_the_own_stream_of_a_legacy_server_reach_the_call_under_way() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = Mutex::new(told);
    let message = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
    let stray =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
    let fake = FakeHttp::start(move |seen| match seen.method().as_str() {
        "GET" => {
            // Nothing is sent before the call has begun. What else this thread of the runtime was to do, another one does meanwhile.
            tokio::task::block_in_place(|| told.lock().unwrap().recv().unwrap());
            let events = format!("data: {message}\n\ndata: {stray}\n\n");
            let length = events.len();
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{events}\r\n")
        }
        _ => legacy(seen, |_| {
            tell.send(()).unwrap();
            // The head of a stream, and never an answer.
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
        }),
    })
    .await;
    let agent = FakeAgent::new(LEGACY, &[]);
    let (stop_it, stop) = Stop::new();
    let up = fake.upstreams();
    let calling = run_until(&up, call("s", ARGUMENTS), &agent, false, stop);
    let listening = async {
        while agent.heard().is_empty() || up.counters().of(Oddity::DroppedNotice) == 0 {
            tokio::task::yield_now().await;
        }
        stop_it.send(Some(StopReason::Gone)).unwrap();
    };
    let (got, ()) = tokio::join!(calling, listening);
    assert_eq!(got, "cancelled");
    assert_eq!(
        agent.heard(),
        [r#"notifications/message {"level":"info","data":1}"#],
        "progress of no call is dropped"
    );
}

#[tokio::test]
async fn a_refusal_for_another_reason_is_no_sign_of_the_other_era() {
    let fake = FakeHttp::start(|_| answer("401 No", "", "")).await;
    let agent = FakeAgent::new(LEGACY, &[]);
    let got = run(&fake.upstreams(), call("s", ARGUMENTS), &agent, false).await;
    assert!(
        got.starts_with("not sent: ") && got.contains("`initialize`: the server answered HTTP 401"),
        "{got}"
    );
    assert_eq!(fake.methods(), ["initialize"]);
}

#[tokio::test]
async fn a_legacy_server_asks_in_the_stream_of_the_call() {
    let fake = FakeHttp::start(|seen| {
        legacy(seen, |seen| {
            let ask = r#"{"jsonrpc":"2.0","id":"e1","method":"elicitation/create","params":{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}}"#;
            ok("text/event-stream", &format!("data: {ask}\n\n{}", seen.event(r#"{"content":[]}"#)))
        })
    })
    .await;
    let up = fake.upstreams();
    let agent = FakeAgent::new(LEGACY, &[r#"{"action":"cancel"}"#]);
    assert_eq!(run(&up, call("s", ARGUMENTS), &agent, true).await, r#"result {"content":[]}"#);
    while !fake.methods().contains(&"an answer".to_owned()) {
        tokio::task::yield_now().await;
    }
    let seen = fake.last("an answer");
    assert_eq!(seen.body, r#"{"jsonrpc":"2.0","id":"e1","result":{"action":"cancel"}}"#);
    assert_eq!(seen.header("mcp-session-id"), Some("sess-1"));
    assert_eq!(agent.heard().len(), 1);
}

#[tokio::test]
async fn resources_are_listed_read_and_listened_to() {
    let fake = FakeHttp::start(|seen| match seen.method().as_str() {
        "server/discover" => seen.result(&DISCOVERED.replace(r#""tools":{}"#, r#""resources":{"subscribe":true}"#)),
        "resources/list" if seen.body.contains("cursor") => seen.result(r#"{"resources":[{"uri":"b"}]}"#),
        "resources/list" => seen.result(r#"{"resources":[{"uri":"a", "x":1}],"nextCursor":"2"}"#),
        "resources/read" => seen.result(r#"{"contents":[]}"#),
        "subscriptions/listen" => {
            let said = |method: &str, rest: &str| {
                let meta = format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{}}}"#, seen.id());
                format!("data: {{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{{{meta},{rest}}}}}\n\n")
            };
            let events = [
                said("notifications/subscriptions/acknowledged", r#""notifications":{}"#),
                said("notifications/resources/updated", r#""uri":"a""#),
            ]
            .concat();
            let length = events.len();
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{events}\r\n")
        }
        other => panic!("{other}"),
    })
    .await;
    let up = fake.upstreams();
    let agent = FakeAgent::new(MODERN, &[]);
    let listed = up.offered(&server(), "s", &agent.client, Offer::Resources).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|item| item.root().raw_str()).collect();
    assert_eq!(listed, [r#"{"uri":"a", "x":1}"#, r#"{"uri":"b"}"#]);
    assert!(
        up.offered(&server(), "s", &agent.client, Offer::Prompts).await.unwrap().is_empty(),
        "not asked for what it does not have"
    );
    let params = json(r#"{"uri":"a"}"#);
    let uri = params.root().canonical().unwrap();
    let read = other_call("s", Action::ReadResource, uri.clone(), params.clone());
    let got = run(&up, read, &agent, false).await;
    assert_eq!(got, r#"result {"contents":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#);
    assert_eq!(fake.last("resources/read").header("mcp-name"), Some("a"));
    let mut changes = up.changes("s");
    let got = run(&up, other_call("s", Action::Subscribe, uri, params), &agent, false).await;
    assert_eq!(got, r#"result {"resultType":"complete"}"#);
    match changes.recv().await.unwrap() {
        Change::Resource { uri, .. } => assert_eq!(uri, "a"),
        other => panic!("{other:?}"),
    }
    assert!(
        fake.last("subscriptions/listen").body.contains(r#""notifications":{"resourceSubscriptions":["a"]}"#)
    );
}

#[tokio::test]
async fn a_server_that_is_reached_otherwise_gets_calls_there_and_one_that_is_gone_gets_none() {
    let result = r#"{"resultType":"complete","content":[]}"#;
    let (old, new) = (
        FakeHttp::start(move |seen| modern(seen, &seen.result(result))).await,
        FakeHttp::start(move |seen| modern(seen, &seen.result(result))).await,
    );
    let (up, agent) = (old.upstreams(), FakeAgent::new(MODERN, &[]));
    assert_eq!(run(&up, call("s", ARGUMENTS), &agent, false).await, format!("result {result}"));
    let transport = Transport::Http(HttpServer::new(&new.url, &[]).unwrap());
    up.replace(vec![ServerConfig { bounds: bounds(), ..ServerConfig::new(server(), transport) }], &[])
        .unwrap();
    assert_eq!(run(&up, call("s", ARGUMENTS), &agent, false).await, format!("result {result}"));
    let calls = |fake: &FakeHttp| fake.methods().iter().filter(|method| *method == "tools/call").count();
    assert_eq!((calls(&old), calls(&new)), (1, 1));
    assert_eq!(
        new.last("tools/call").header("authorization"),
        None,
        "the old server's credentials stay there"
    );
    up.replace(Vec::new(), &[server()]).unwrap();
    assert_eq!(run(&up, call("s", ARGUMENTS), &agent, false).await, "not sent: there is no server `srv`");
    assert_eq!((calls(&old), calls(&new)), (1, 1));
    assert_eq!(up.counters().of(Oddity::ConnectionLost), 0, "letting go is no loss");
}
