//! 2025-11-25 and before, over HTTP.

use tokio::io::AsyncReadExt as _;
use toolgate_gateway::front::http::Settings;
use toolgate_gateway::port::Change;

use crate::world::{Http, World, document, request};

pub(crate) async fn begin(http: &Http, version: &str) -> (String, String) {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{"elicitation":{{}}}},"clientInfo":{{"name":"c","version":"1"}}}}}}"#
    );
    let got = http.send("POST", "", &body).await;
    assert_eq!(got.status, 200, "{got:?}");
    let agreed =
        document(&got.body).root().path(&["result", "protocolVersion"]).unwrap().as_str().unwrap().to_owned();
    (got.header("mcp-session-id").unwrap().to_owned(), agreed)
}

#[tokio::test]
async fn versions_are_agreed_on() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    for (wanted, agreed) in [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("nonsense", "2025-11-25"),
    ] {
        assert_eq!(begin(&http, wanted).await.1, agreed, "wanted: {wanted}");
    }
    for params in [
        "{}",
        r#"{"protocolVersion":1,"capabilities":{},"clientInfo":{}}"#,
        r#"{"protocolVersion":"2025-11-25"}"#,
    ] {
        let got = http
            .send(
                "POST",
                "",
                &format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{params}}}"#),
            )
            .await;
        assert!(got.body.contains("-32602"), "{got:?}");
        assert_eq!(got.header("mcp-session-id"), None);
    }
}

#[tokio::test]
async fn a_session_is_needed_and_no_proof() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (id, _) = begin(&http, "2025-11-25").await;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let session = format!("Mcp-Session-Id: {id}");
    for (what, headers, status) in [
        ("as it should be", format!("{session}\nMCP-Protocol-Version: 2025-11-25"), 200),
        ("without the version", session.clone(), 200),
        ("without the session", String::new(), 400),
        ("another version", format!("{session}\nMCP-Protocol-Version: 2025-06-18"), 200),
        ("a version without sessions", format!("{session}\nMCP-Protocol-Version: 2026-07-28"), 400),
        ("unknown version", format!("{session}\nMCP-Protocol-Version: 2025-01-01"), 400),
        ("another agent", format!("{session}\nAuthorization: Bearer some"), 404),
        ("no token", format!("{session}\nAuthorization:"), 401),
        ("two sessions", format!("{session}\n{session}"), 404),
    ] {
        let got = http.send("POST", &headers, ping).await;
        assert_eq!(got.status, status, "{what}: {got:?}");
    }
    for (method, code) in [
        ("server/discover", "-32602"),
        ("subscriptions/listen", "-32602"),
        ("tasks/list", "-32601"),
        ("nonsense", "-32601"),
    ] {
        let got =
            http.send("POST", &session, &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#)).await;
        assert!(got.body.contains(code), "{method}: {got:?}");
    }
    let got = http.send("POST", &session, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    assert_eq!((got.status, got.body.as_str()), (202, ""));
    assert_eq!(http.send("DELETE", &format!("{session}\nAuthorization: Bearer some"), "").await.status, 404);
    assert_eq!(http.send("DELETE", &session, "").await.status, 204);
    assert_eq!(http.send("POST", &session, ping).await.status, 404);
    assert_eq!(http.send("DELETE", &session, "").await.status, 404);
}

#[tokio::test]
async fn results_have_nothing_of_the_other_era() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (id, _) = begin(&http, "2025-11-25").await;
    let session = format!("Mcp-Session-Id: {id}");
    let list = http.send("POST", &session, r#"{"jsonrpc":"2.0","id":1,"method":"prompts/list"}"#).await;
    assert_eq!(list.body, r#"{"jsonrpc":"2.0","id":1,"result":{"prompts":[{"name":"s__p","y": null}]}}"#);
    let got = http
        .send(
            "POST",
            &session,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s__fail"}}"#,
        )
        .await;
    assert!(
        got.body.contains(r#""result":{"content":[{"type":"text","text":"Refused by Toolgate"#),
        "{got:?}"
    );
    let got = http
        .send(
            "POST",
            &session,
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"r:none"}}"#,
        )
        .await;
    assert!(got.status == 200 && got.body.contains("-32002"), "{got:?}");
    let got = http
        .send(
            "POST",
            &session,
            r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"error"}}"#,
        )
        .await;
    assert!(got.body.contains(r#""result":{}"#), "{got:?}");
    let got = http
        .send(
            "POST",
            &session,
            r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"loud"}}"#,
        )
        .await;
    assert!(got.body.contains("-32602"), "{got:?}");
    assert!(world.minutes.take().contains(&"level error".to_owned()));
}

#[tokio::test]
async fn servers_ask_on_the_stream_and_are_answered_by_a_post() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (id, _) = begin(&http, "2025-11-25").await;
    let session = format!("Mcp-Session-Id: {id}");
    let call = http.send(
        "POST",
        &session,
        r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"s__ask"}}"#,
    );
    let answer = async {
        world.minutes.until("handle").await;
        // Made up, or by another agent: nobody takes it.
        http.send("POST", &session, r#"{"jsonrpc":"2.0","id":"toolgate-9","result":{"action":"accept"}}"#)
            .await;
        let other = format!("{session}\nAuthorization: Bearer some");
        assert_eq!(
            http.send("POST", &other, r#"{"jsonrpc":"2.0","id":"toolgate-0","result":{"action":"accept"}}"#)
                .await
                .status,
            404
        );
        let got = http
            .send(
                "POST",
                &session,
                r#"{"jsonrpc":"2.0","id":"toolgate-0","result":{"action":"decline", "x":1.0}}"#,
            )
            .await;
        assert_eq!(got.status, 202);
    };
    let (got, ()) = tokio::join!(call, answer);
    let ask = got
        .body
        .find(r#"{"jsonrpc":"2.0","id":"toolgate-0","method":"elicitation/create","params":{}}"#)
        .unwrap();
    let end = got.body.find(r#"{"jsonrpc":"2.0","id":5,"result":{"action":"decline", "x":1.0}}"#).unwrap();
    assert!(ask < end);
}

#[tokio::test]
async fn only_a_notification_cancels() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (id, _) = begin(&http, "2025-11-25").await;
    let session = format!("Mcp-Session-Id: {id}");
    let wait = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"s__wait"}}"#;
    let cancel = |id: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
    };
    let call = http.send("POST", &session, wait);
    let other = async {
        world.minutes.until("handle").await;
        assert!(http.send("POST", &session, wait).await.body.contains("another request with this id"));
        for id in ["6", "\"5\"", "null"] {
            assert_eq!(http.send("POST", &session, &cancel(id)).await.status, 202);
        }
        assert!(!world.minutes.take().contains(&"gone".to_owned()));
        http.send("POST", &session, &cancel("5")).await;
    };
    let (got, ()) = tokio::join!(call, other);
    assert!(got.body.contains("It may have run in whole or in part"), "{got:?}");
}

/// Reads from a stream until a text has come.
async fn until(stream: &mut tokio::net::TcpStream, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut chunk = vec![0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(chunk.get(..read).unwrap()));
    }
    seen
}

#[tokio::test]
async fn a_stream_that_broke_is_taken_up_again() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (id, _) = begin(&http, "2025-11-25").await;
    let session = format!("Mcp-Session-Id: {id}");
    let ask = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"s__ask"}}"#;
    let mut first = http.open(&request("POST", &session, ask)).await;
    let seen = until(&mut first, "elicitation/create").await;
    assert!(seen.contains("\r\nid: 0.0\nretry: 1000\ndata: \n\n") && seen.contains("\nid: 0.1\n"), "{seen}");
    drop(first);
    // Of another session, of no stream, made up.
    let (other, _) = begin(&http, "2025-11-25").await;
    for (session, last) in [(&other, "0.0"), (&id, "1.0"), (&id, "0"), (&id, "a.b"), (&id, "")] {
        let got = http.send("GET", &format!("Mcp-Session-Id: {session}\nLast-Event-ID: {last}"), "").await;
        assert_eq!(got.status, 400, "{last}: {got:?}");
    }
    // What got lost comes again, and what did not does not. A second reader takes the place of the one before.
    let get = |last: &str| request("GET", &format!("{session}\nLast-Event-ID: {last}"), "");
    let mut again = http.open(&get("0.0")).await;
    assert!(until(&mut again, "elicitation/create").await.contains("\nid: 0.1\n"));
    let mut newest = http.open(&get("0.1")).await;
    let mut rest = String::new();
    until(&mut newest, ":\n\n").await;
    let answered = r#"{"jsonrpc":"2.0","id":"toolgate-0","result":{"action":"accept"}}"#;
    assert_eq!(http.send("POST", &session, answered).await.status, 202);
    newest.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("id: 0.2\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":5,"), "{rest}");
    assert!(!rest.contains("elicitation/create"), "{rest}");
    let mut rest = String::new();
    again.read_to_string(&mut rest).await.unwrap();
    assert!(!rest.contains("id: 0.2"), "{rest}");
    // It is remembered for a while.
    let got = http.raw(&get("0.1")).await;
    assert!(got.body.contains("id: 0.2\n"), "{got:?}");
    assert_eq!(world.minutes.take().iter().filter(|line| line.starts_with("handle")).count(), 1);
}

#[tokio::test]
async fn clients_of_before_get_no_event_without_data() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (id, _) = begin(&http, "2025-06-18").await;
    let session = format!("Mcp-Session-Id: {id}");
    let ask = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"s__ask"}}"#;
    let mut stream = http.open(&request("POST", &session, ask)).await;
    let seen = until(&mut stream, "elicitation/create").await;
    assert!(!seen.contains("id: ") && !seen.contains("data: \n"), "{seen}");
}

#[tokio::test]
async fn changes_come_on_the_one_stream_there_is() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (id, _) = begin(&http, "2025-11-25").await;
    let session = format!("Mcp-Session-Id: {id}");
    let subscribe = |method: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/{method}","params":{{"uri":"r:s"}}}}"#)
    };
    for _ in 0..2 {
        assert!(http.send("POST", &session, &subscribe("subscribe")).await.body.contains("result"));
    }
    let mut first = http.open(&request("GET", &session, "")).await;
    while world.changes.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    let second = http.send("GET", &session, "");
    let change = async {
        let mut rest = String::new();
        first.read_to_string(&mut rest).await.unwrap();
        assert!(!rest.contains("updated"), "the first stream has ended: {rest}");
        while world.changes.receiver_count() != 1 {
            tokio::task::yield_now().await;
        }
        let s: toolgate_core::name::ServerName = "s".parse().unwrap();
        let resource = || Change::Resource {
            server: s.clone(),
            uri: "r:s".to_owned(),
            params: document(r#"{"uri":"r:s", "x":1.0}"#),
        };
        world.changes.send(resource()).unwrap();
        while !world.changes.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(http.send("POST", &session, &subscribe("unsubscribe")).await.body.contains("result"));
        world.changes.send(resource()).unwrap();
        world.changes.send(Change::Resources(s.clone())).unwrap();
        world.changes.send(Change::Tools(s.clone())).unwrap();
        while !world.changes.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(http.send("DELETE", &session, "").await.status, 204);
    };
    let (got, ()) = tokio::join!(second, change);
    assert_eq!(got.body.matches("notifications/resources/updated").count(), 1, "{got:?}");
    assert!(
        got.body.contains(r#""method":"notifications/resources/updated","params":{"uri":"r:s", "x":1.0}"#),
        "{got:?}"
    );
    assert!(
        got.body.contains(r#"{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}"#),
        "{got:?}"
    );
    assert!(got.body.contains(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#), "{got:?}");
    assert_eq!(world.minutes.take().iter().filter(|line| *line == "unsubscribe s r:s").count(), 1);
}
