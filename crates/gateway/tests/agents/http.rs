//! What is refused before a request means anything.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use toolgate_gateway::front::http::{OAuth, Settings};

use crate::world::{World, modern, request};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[tokio::test]
async fn bad_requests_get_the_status_that_the_specification_names() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{}}}}}"#, "[".repeat(10_000));
    let large = format!("{PING}{}", " ".repeat(10 << 20));
    for (what, method, headers, body, status, says) in [
        ("foreign host", "POST", "Host: evil.example", PING, 403, "host name"),
        ("no host", "POST", "Host:", PING, 403, "host name"),
        ("foreign page", "POST", "Origin: https://evil.example", PING, 403, "origin"),
        ("page of nobody", "POST", "Origin: null", PING, 403, "origin"),
        ("foreign page, GET", "GET", "Origin: https://evil.example", "", 403, "origin"),
        ("no token", "POST", "Authorization:", PING, 401, "bearer"),
        ("no token, GET", "GET", "Authorization:", "", 401, "bearer"),
        ("no token, DELETE", "DELETE", "Authorization:", "", 401, "bearer"),
        ("other token", "POST", "Authorization: Bearer wrong", PING, 401, "bearer"),
        ("other scheme", "POST", "Authorization: Basic all", PING, 401, "bearer"),
        ("two tokens", "POST", "Authorization: Bearer all\nAuthorization: Bearer all", PING, 401, "bearer"),
        ("too narrow a token", "POST", "Authorization: Bearer narrow", PING, 403, ""),
        ("token not checked", "POST", "Authorization: Bearer later", PING, 503, ""),
        ("other method", "PUT", "", PING, 405, ""),
        ("preflight", "OPTIONS", "Authorization:", "", 405, ""),
        ("GET without a session", "GET", "", "", 405, ""),
        ("DELETE without a session", "DELETE", "", "", 405, ""),
        ("other type", "POST", "Content-Type: text/plain", PING, 415, ""),
        ("no type", "POST", "Content-Type:", PING, 415, ""),
        ("no events", "POST", "Accept: application/json", PING, 406, ""),
        ("no JSON", "POST", "Accept: text/event-stream", PING, 406, ""),
        ("no body", "POST", "Content-Length: 0", "", 400, "-32700"),
        ("no JSON", "POST", "", "{", 400, "-32700"),
        ("doubled key", "POST", "", r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, 400, "-32700"),
        ("batch", "POST", "", r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, 400, "-32600"),
        ("empty batch", "POST", "", "[]", 400, "-32600"),
        ("id null", "POST", "", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400, "-32600"),
        ("deep", "POST", "", &deep, 400, "-32700"),
        ("large", "POST", "", &large, 413, "too large"),
        ("no session", "POST", "", PING, 400, "initialize"),
        ("unknown session", "POST", "Mcp-Session-Id: abc", PING, 404, "Session not found"),
        ("unknown session, GET", "GET", "Mcp-Session-Id: abc", "", 404, "Session not found"),
        ("unknown session, DELETE", "DELETE", "Mcp-Session-Id: abc", "", 404, "Session not found"),
        ("unknown version", "POST", "MCP-Protocol-Version: 1900-01-01", PING, 400, "version"),
        (
            "notification without session",
            "POST",
            "",
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            400,
            "",
        ),
        ("response without session", "POST", "", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, 400, ""),
    ] {
        let got = http.send(method, headers, body).await;
        assert_eq!(got.status, status, "{what}: {got:?}");
        assert!(got.body.contains(says), "{what}: {got:?}");
        assert!(!got.head.to_ascii_lowercase().contains("mcp-session-id"), "{what}: {got:?}");
    }
    let got = http.raw(b"POST /other HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(got.status, 404);
    assert_eq!(world.minutes.take(), Vec::<String>::new(), "nothing reached the broker");
}

#[tokio::test]
async fn what_is_allowed_passes() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (headers, body) = modern("tools/list", None, "");
    for extra in ["", "\nOrigin: http://localhost:3000", "\nHost: 127.0.0.1:1", "\nAccept: */*", "\nAccept:"]
    {
        let got = http.send("POST", &format!("{headers}{extra}"), &body).await;
        assert_eq!(got.status, 200, "{extra}: {got:?}");
    }
}

#[tokio::test]
async fn a_challenge_says_where_to_get_a_token() {
    let world = World::new();
    let oauth = OAuth {
        resource: "https://gate.example/mcp".to_owned(),
        authorization_servers: vec!["https://as.example".to_owned()],
        scopes: vec!["tools".to_owned()],
    };
    let http = world.http(Settings { oauth: Some(oauth), ..Settings::default() }).await;
    let metadata = "resource_metadata=\"https://gate.example/.well-known/oauth-protected-resource/mcp\"";
    for (token, want) in [
        ("Authorization:", format!("Bearer {metadata}")),
        ("Authorization: Bearer wrong", format!("Bearer error=\"invalid_token\", {metadata}")),
        (
            "Authorization: Bearer narrow",
            format!("Bearer error=\"insufficient_scope\", scope=\"tools\", {metadata}"),
        ),
    ] {
        let got = http.send("POST", token, PING).await;
        assert_eq!(got.header("www-authenticate"), Some(want.as_str()), "{token}");
    }
    for path in ["", "/mcp"] {
        let request = format!(
            "GET /.well-known/oauth-protected-resource{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let got = http.raw(request.as_bytes()).await;
        assert_eq!(
            (got.status, got.body.as_str()),
            (
                200,
                r#"{"resource":"https://gate.example/mcp","authorization_servers":["https://as.example"],"bearer_methods_supported":["header"],"scopes_supported":["tools"]}"#
            )
        );
    }
    let got = http.raw(b"GET /.well-known/oauth-protected-resource/other HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(got.status, 404);
}

#[tokio::test]
async fn slow_writers_are_given_up() {
    let world = World::new();
    let short = Duration::from_millis(20);
    let http = world.http(Settings { head_timeout: short, body_timeout: short, ..Settings::default() }).await;
    let mut half = request("POST", "Content-Length: 1000", PING);
    half.truncate(half.len() - 5);
    assert_eq!(http.raw(&half).await.status, 408);
    // Half a head gets no answer but the end.
    let got = http.raw(b"POST /mcp HTTP/1.1\r\nHost: local").await;
    assert!(matches!(got.status, 0 | 408), "{got:?}");
    // The others go on.
    let (headers, body) = modern("tools/list", None, "");
    assert_eq!(http.send("POST", &headers, &body).await.status, 200);
}

#[tokio::test]
async fn connections_are_bounded_and_wait_for_their_turn() {
    let world = World::new();
    let http = world.http(Settings { max_connections: 1, ..Settings::default() }).await;
    let (headers, body) = modern("tools/list", None, "");
    let keep = request("POST", &format!("{headers}\nConnection: keep-alive"), &body);
    let mut first = http.open(&keep).await;
    let mut byte = [0; 1];
    first.read_exact(&mut byte).await.unwrap();
    let second = http.send("POST", &headers, &body);
    tokio::pin!(second);
    tokio::select! {
        biased;
        got = &mut second => panic!("served beside the first: {got:?}"),
        () = tokio::task::yield_now() => {}
    }
    drop(first);
    assert_eq!(second.await.status, 200);
}

#[tokio::test]
async fn a_unix_socket_knows_who_is_there() {
    use tokio::io::AsyncWriteExt as _;
    let world = World::new();
    let folder = std::env::temp_dir().join(format!("toolgate-front-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("gate.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let front = toolgate_gateway::front::http::Front::new(
        std::sync::Arc::clone(&world.router),
        std::sync::Arc::new(crate::world::Tokens),
        Settings::default(),
    );
    tokio::spawn(front.serve_unix(listener));
    let (headers, body) = modern("tools/call", Some("s__echo"), r#""name":"s__echo""#);
    for (extra, want) in [("\nAuthorization:", "handle some"), ("", "handle all")] {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let bytes = request("POST", &format!("{headers}\nHost: anything{extra}"), &body);
        stream.write_all(&bytes).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        let lines = world.minutes.take();
        assert!(lines[0].starts_with(want), "{lines:?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn shutting_down_ends_everything() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let front = toolgate_gateway::front::http::Front::new(
        std::sync::Arc::clone(&world.router),
        std::sync::Arc::new(crate::world::Tokens),
        Settings::default(),
    );
    let served = tokio::spawn(front.serve_tcp(listener));
    let http = crate::world::Http { address };
    let (headers, body) =
        modern("subscriptions/listen", None, r#""notifications":{"toolsListChanged":true}"#);
    let listening = http.send("POST", &headers, &body);
    let stop = async {
        tokio::task::yield_now().await;
        while world.changes.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        world.router.shut_down();
    };
    let (got, ()) = tokio::join!(listening, stop);
    assert!(
        got.body.contains(
            r#""result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":1}}"#
        ),
        "{got:?}"
    );
    served.await.unwrap();
}
