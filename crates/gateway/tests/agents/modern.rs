//! 2026-07-28 over HTTP.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use toolgate_broker::port::BoxFuture;
use toolgate_core::call::Agent;
use toolgate_gateway::front::http::{Front, Settings};
use toolgate_gateway::port::{Change, Identify, IdentifyError};

use crate::world::{Http, World, agent, document, modern, request, rulebook, secret};

#[tokio::test]
async fn headers_have_to_say_what_the_body_says() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (headers, body) =
        modern("tools/call", Some("t__mirror"), r#""name":"t__mirror","arguments":{"r":"é","n":42}"#);
    let params = "\nMcp-Param-Region: =?base64?w6k=?=\nMcp-Param-N: 42.0";
    for (what, remove, add, want) in [
        ("as it should be", "", params, 200),
        ("unknown header", "", "\nMcp-Param-Region: =?base64?w6k=?=\nMcp-Param-N: 42\nMcp-Param-X: y", 200),
        (
            "a session that does not count",
            "",
            "\nMcp-Param-Region: =?base64?w6k=?=\nMcp-Param-N: 42\nMcp-Session-Id: x",
            200,
        ),
        ("no version", "MCP-Protocol-Version: 2026-07-28", params, 400),
        ("no method", "Mcp-Method: tools/call", params, 400),
        ("no name", "Mcp-Name: t__mirror", params, 400),
        ("other version", "MCP-Protocol-Version: 2026-07-28", "\nMCP-Protocol-Version: 2025-11-25", 400),
        ("other method", "Mcp-Method: tools/call", "\nMcp-Method: tools/list", 400),
        ("other case of method", "Mcp-Method: tools/call", "\nMcp-Method: Tools/Call", 400),
        ("other name", "Mcp-Name: t__mirror", "\nMcp-Name: s__echo", 400),
        ("two names", "", "\nMcp-Name: t__mirror", 400),
        ("two methods", "", "\nMcp-Method: tools/call", 400),
        ("no argument", "", "\nMcp-Param-Region: =?base64?w6k=?=", 400),
        ("other argument", "", "\nMcp-Param-Region: =?base64?w6k=?=\nMcp-Param-N: 43", 400),
        ("two arguments", "", "\nMcp-Param-Region: =?base64?w6k=?=\nMcp-Param-N: 42\nMcp-Param-N: 42", 400),
        ("bad base64", "", "\nMcp-Param-Region: =?base64?w6k?=\nMcp-Param-N: 42", 400),
    ] {
        let kept: Vec<&str> = headers.lines().filter(|line| *line != remove).collect();
        let got = http.send("POST", &format!("{}{add}", kept.join("\n")), &body).await;
        assert_eq!(got.status, want, "{what}: {got:?}");
        let mismatch = got.body.contains(r#""id":1,"error":{"code":-32020"#);
        assert_eq!(mismatch, want == 400, "{what}: {got:?}");
    }
    assert_eq!(world.minutes.take().iter().filter(|line| line.starts_with("handle")).count(), 3);
    let (headers, body) = modern("tools/call", Some("=?base64?c19fZWNobw==?="), r#""name":"s__echo""#);
    assert_eq!(http.send("POST", &headers, &body).await.status, 200, "the name may be encoded");
}

#[tokio::test]
async fn requests_have_to_say_what_they_are() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let version = "MCP-Protocol-Version: 2026-07-28\nMcp-Method: tools/list";
    let meta = |meta: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{meta}}}}}"#)
    };
    for (what, headers, body, status, says) in [
        ("no params", version, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned(), 400, "-32602"),
        (
            "no _meta",
            version,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#.to_owned(),
            400,
            "-32602",
        ),
        ("empty _meta", version, meta("{}"), 400, "-32602"),
        (
            "no capabilities",
            version,
            meta(r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#),
            400,
            "-32602",
        ),
        ("no version", version, meta(r#"{"io.modelcontextprotocol/clientCapabilities":{}}"#), 400, "-32602"),
        (
            "unknown version",
            "MCP-Protocol-Version: 1900-01-01\nMcp-Method: tools/list",
            meta(
                r#"{"io.modelcontextprotocol/protocolVersion":"1900-01-01","io.modelcontextprotocol/clientCapabilities":{}}"#,
            ),
            400,
            r#"{"code":-32022,"message":"Unsupported protocol version","data":{"supported":["2026-07-28"],"requested":"1900-01-01"}}"#,
        ),
        (
            "unknown log level",
            version,
            meta(
                r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/logLevel":"loud"}"#,
            ),
            200,
            "-32602",
        ),
        (
            "discover without _meta",
            "Mcp-Method: server/discover",
            r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#.to_owned(),
            400,
            "-32602",
        ),
    ] {
        let got = http.send("POST", headers, &body).await;
        assert_eq!(got.status, status, "{what}: {got:?}");
        assert!(got.body.contains(says), "{what}: {got:?}");
    }
    for (method, name, params) in [
        ("tools/call", "s__echo", r#""name":"s__echo","arguments":{"lacking":true}"#),
        ("tasks/get", "t", r#""taskId":"t""#),
        ("tasks/update", "t", r#""taskId":"t""#),
        ("tasks/cancel", "t", r#""taskId":"t""#),
    ] {
        let (headers, body) = modern(method, Some(name), params);
        let got = http.send("POST", &headers, &body).await;
        assert_eq!(got.status, 400, "the client lacks a capability, {method}: {got:?}");
        assert!(got.body.contains("-32021"), "{method}: {got:?}");
    }
    for method in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "tasks/list", "nonsense"]
    {
        let (headers, body) = modern(method, None, "");
        let got = http.send("POST", &headers, &body).await;
        assert_eq!(got.status, 404, "{method}: {got:?}");
        assert!(got.body.contains("-32601"), "{method}: {got:?}");
    }
    let got = http.send("POST", version, r#"{"jsonrpc":"2.0","method":"notifications/x"}"#).await;
    assert_eq!((got.status, got.body.as_str()), (202, ""));
    for method in ["GET", "DELETE"] {
        assert_eq!(http.send(method, "MCP-Protocol-Version: 2026-07-28", "").await.status, 405);
    }
}

#[tokio::test]
async fn everybody_is_shown_what_they_may_use() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (headers, body) = modern("tools/list", None, "");
    let echo = r#"{"name":"s__echo","x-unknown":1.50,"description":"é","inputSchema":{"type":"object"}}"#;
    for (agent, want) in [("some", echo), ("none", ""), ("reader", "")] {
        let got = http.send("POST", &format!("{headers}\nAuthorization: Bearer {agent}"), &body).await;
        let want = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"complete","tools":[{want}],"ttlMs":0,"cacheScope":"private"}}}}"#
        );
        assert_eq!(got.body, want, "agent: {agent}");
    }
    let got = http.send("POST", &headers, &body).await;
    let list = document(&got.body);
    let names: Vec<_> = list
        .root()
        .path(&["result", "tools"])
        .unwrap()
        .elements()
        .map(|t| t.get("name").unwrap().as_str().unwrap().to_owned())
        .collect();
    // In order, and without the one whose header annotation is invalid.
    assert_eq!(names, ["s__ask", "s__echo", "s__fail", "s__progress", "s__wait", "t__mirror"]);

    for (agent, resources, prompts) in [("all", true, true), ("reader", true, false), ("none", false, false)]
    {
        let (headers, body) = modern("server/discover", None, "");
        let got = http.send("POST", &format!("{headers}\nAuthorization: Bearer {agent}"), &body).await;
        let document = document(&got.body);
        let result = document.root().get("result").unwrap();
        assert_eq!(result.get("supportedVersions").unwrap().raw_str(), r#"["2026-07-28"]"#);
        assert_eq!(result.get("cacheScope").unwrap().as_str(), Some("private"));
        assert!(result.path(&["capabilities", "tools"]).is_some());
        assert_eq!(result.path(&["capabilities", "resources"]).is_some(), resources, "{agent}");
        assert_eq!(result.path(&["capabilities", "prompts"]).is_some(), prompts, "{agent}");
    }
}

#[tokio::test]
async fn hidden_and_unknown_are_one_answer() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let answer = async |name: &str, arguments: &str| {
        let (headers, body) =
            modern("tools/call", Some(name), &format!(r#""name":"{name}","arguments":{arguments}"#));
        let got = http.send("POST", &format!("{headers}\nAuthorization: Bearer some"), &body).await;
        (
            got.status,
            got.head
                .replace(name, "NAME")
                .lines()
                .filter(|l| !l.starts_with("date") && !l.starts_with("content-length"))
                .map(str::to_owned)
                .collect::<Vec<_>>(),
            got.body.replace(name, "NAME"),
        )
    };
    let unknown = answer("s__nothing", "{}").await;
    assert_eq!(unknown.0, 200);
    assert_eq!(
        unknown.2,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"Unknown tool: NAME"}}"#
    );
    // Whatever the arguments, and also for names that lead nowhere and tools that cannot be shown.
    for (name, arguments) in [
        ("s__wait", "{}"),
        ("s__wait", "{\"n\":1e400}"),
        ("t__wrong", "{}"),
        ("t__mirror", r#"{"r":"x"}"#),
        ("x__y", "{}"),
        ("echo", "{}"),
    ] {
        assert_eq!(answer(name, arguments).await, unknown, "{name} {arguments}");
    }
    let lines = world.minutes.take();
    assert!(lines.iter().all(|line| line.starts_with("refuse some hidden_or_unknown")), "{lines:?}");
    assert_eq!(lines.len(), 7, "each is written down");

    for (method, params, want) in [
        ("prompts/get", r#""name":"s__p""#, "Unknown prompt"),
        ("prompts/get", r#""name":"s__q""#, "Unknown prompt"),
        ("resources/read", r#""uri":"r:s""#, "Resource not found"),
        ("resources/read", r#""uri":"r:x""#, "Resource not found"),
    ] {
        let name = params.split('"').nth(3).unwrap();
        let (headers, body) = modern(method, Some(name), params);
        let got = http.send("POST", &format!("{headers}\nAuthorization: Bearer none"), &body).await;
        assert!(got.body.contains("-32602") && got.body.contains(want), "{got:?}");
    }
}

#[tokio::test]
async fn calls_carry_everything_byte_for_byte() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let params = r#""name":"s__echo", "arguments":{"b": 1.0,"a":"\u00e9"},"unknown":  [1.50],"inputResponses":{"x":{}},"requestState":"s""#;
    let (headers, body) = modern("tools/call", Some("s__echo"), params);
    let got = http.send("POST", &headers, &body).await;
    assert_eq!(
        got.body,
        r#"{"jsonrpc":"2.0","id":1,"result":{ "content":[], "unknown":1.50,"you said": {"a":"é","b":1}, "resultType":"complete"}}"#
    );
    assert_eq!(got.header("content-type"), Some("text/event-stream"));
    assert!(got.header("content-length").is_some(), "in one piece: {got:?}");
    let lines = world.minutes.take();
    assert!(
        lines[0].starts_with(&format!(r#"handle all s/echo {{"a":"é","b":1}} {{{params},"_meta""#)),
        "{lines:?}"
    );
    assert_eq!(lines[1..], ["delivered"]);

    let (headers, body) =
        modern("tools/call", Some("s__echo"), r#""name":"s__echo","arguments":{"n":9007199254740993}"#);
    let got = http.send("POST", &headers, &body).await;
    assert!(got.body.contains("-32602") && got.body.contains("Invalid arguments"), "{got:?}");
    let (headers, body) = modern("tools/call", Some("s__echo"), r#""name":"s__echo","arguments":[]"#);
    assert!(http.send("POST", &headers, &body).await.body.contains("-32602"));
    assert_eq!(world.minutes.take(), ["refuse all invalid_arguments s__echo"; 2]);

    let (headers, body) = modern("tools/call", Some("s__fail"), r#""name":"s__fail""#);
    let got = http.send("POST", &headers, &body).await;
    assert_eq!(
        got.body,
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"Refused by Toolgate: no (rule `r`). It did not run."}],"isError":true}}"#
    );
}

#[tokio::test]
async fn progress_comes_on_a_stream_before_the_answer() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let meta = r#""_meta":{"progressToken":"t","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let (headers, _) = modern("tools/call", Some("s__progress"), "");
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{{"name":"s__progress",{meta}}}}}"#
    );
    let got = http.send("POST", &headers, &body).await;
    assert_eq!(got.header("content-type"), Some("text/event-stream"));
    assert_eq!(
        got.body,
        "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":\"t\",\"progress\":1}}\n\n\
         event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":{ \"content\":[]}}\n\n"
    );
    assert_eq!(world.minutes.take()[1..], ["delivered"]);
}

#[tokio::test]
async fn hanging_up_cancels() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (headers, body) = modern("tools/call", Some("s__wait"), r#""name":"s__wait""#);
    // Once while nothing was sent yet, once with the stream open.
    let stream = http.open(&request("POST", &headers, &body)).await;
    world.minutes.until("handle").await;
    drop(stream);
    world.minutes.until("gone").await;
    world.minutes.take();
    let mut stream = http.open(&request("POST", &headers, &body)).await;
    let mut head = vec![0; 512];
    let read = stream.read(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read]);
    assert!(head.contains("text/event-stream") && head.contains("x-accel-buffering: no"), "{head}");
    drop(stream);
    world.minutes.until("gone").await;
    assert!(!world.minutes.take().contains(&"delivered".to_owned()), "nobody got an answer");
}

#[tokio::test]
async fn resources_and_prompts_lead_to_their_server() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    for (method, params, want) in [
        ("resources/read", r#""uri":"r:s""#, r#""from":"s""#),
        ("resources/read", r#""uri":"r:t""#, r#""from":"t""#),
        ("resources/read", r#""uri":"u:7""#, r#""from":"t""#),
        ("resources/read", r#""uri":"r:both""#, "several servers"),
        ("resources/read", r#""uri":"r:nowhere""#, "Resource not found"),
        ("prompts/get", r#""name":"s__p","arguments":{"a":"b"}"#, r#""from":"s""#),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"s__p"},"argument":{"name":"a","value":"b"}"#,
            r#""from":"s""#,
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"u:{id}"},"argument":{"name":"a","value":"b"}"#,
            r#""from":"t""#,
        ),
        ("completion/complete", r#""ref":{"type":"ref/x"},"argument":{}"#, "-32602"),
    ] {
        let named =
            matches!(method, "resources/read" | "prompts/get").then(|| params.split('"').nth(3).unwrap());
        let (headers, body) = modern(method, named, params);
        let got = http.send("POST", &headers, &body).await;
        assert!(got.body.contains(want), "{method} {params}: {got:?}");
    }
    let lines = world.minutes.take();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with(r#"handle all prompts/get {"arguments":{"a":"b"},"name":"p"}"#)),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line.starts_with(r#"handle all completion/complete {"argument":{"name":"a","value":"b"},"ref":{"name":"p","type":"ref/prompt"}}"#)), "{lines:?}");
    for (method, key, want) in [
        (
            "resources/list",
            "resources",
            r#"[{"uri":"r:both","x":1.0},{"uri":"r:s"},{"uri":"r:both"},{"uri":"r:t"}]"#,
        ),
        ("resources/templates/list", "resourceTemplates", r#"[{"uriTemplate":"u:{id}"}]"#),
        ("prompts/list", "prompts", r#"[{"name":"s__p","y": null}]"#),
    ] {
        let (headers, body) = modern(method, None, "");
        let got = http.send("POST", &headers, &body).await;
        assert!(got.body.contains(&format!(r#""{key}":{want}"#)), "{got:?}");
        let got = http.send("POST", &format!("{headers}\nAuthorization: Bearer none"), &body).await;
        assert!(got.body.contains(&format!(r#""{key}":[]"#)), "{got:?}");
    }
}

#[tokio::test]
async fn subscriptions_tell_what_was_asked_for_and_may_be_seen() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let filter = r#""notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["r:s","r:both","r:none"]}"#;
    let (headers, body) = modern("subscriptions/listen", None, filter);
    for agent in ["all", "reader"] {
        let mut stream =
            http.open(&request("POST", &format!("{headers}\nAuthorization: Bearer {agent}"), &body)).await;
        let mut seen = String::new();
        let mut until = async |text: &str| {
            while !seen.contains(text) {
                let mut chunk = vec![0; 4096];
                let read = stream.read(&mut chunk).await.unwrap();
                assert!(read > 0, "ended: {seen}");
                seen.push_str(&String::from_utf8_lossy(&chunk[..read]));
            }
        };
        let prompts = if agent == "all" { r#","promptsListChanged":true"# } else { "" };
        until(&format!(r#"data: {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":1}},"notifications":{{"toolsListChanged":true{prompts},"resourceSubscriptions":["r:s"]}}}}}}"#)).await;
        let (s, t) = ("s".parse::<toolgate_core::name::ServerName>().unwrap(), "t".parse().unwrap());
        let resource = |server, uri: &str| Change::Resource {
            server,
            uri: uri.to_owned(),
            params: document(format!(r#"{{"uri":"{uri}","x":1.0,"_meta":{{"other":2}}}}"#)),
        };
        for change in [
            resource(t, "r:s"),
            resource(s.clone(), "r:both"),
            Change::Resources(s.clone()),
            Change::Prompts(s.clone()),
            Change::Tools(s.clone()),
            resource(s, "r:s"),
        ] {
            world.changes.send(change).unwrap();
        }
        until(r#""params":{"uri":"r:s","x":1.0,"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}"#)
            .await;
        drop(stream);
        world.minutes.until("unsubscribe s r:s").await;
        assert_eq!(seen.matches("notifications/resources/updated").count(), 1, "{seen}");
        assert_eq!(seen.matches("resources/list_changed").count(), 0, "not asked for: {seen}");
        assert_eq!(seen.matches("prompts/list_changed").count(), usize::from(agent == "all"), "{seen}");
        assert_eq!(seen.matches("tools/list_changed").count(), usize::from(agent == "all"), "{seen}");
        world.minutes.take();
    }
}

#[tokio::test]
async fn agents_are_told_when_their_tools_change_and_only_then() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (headers, body) =
        modern("subscriptions/listen", None, r#""notifications":{"toolsListChanged":true}"#);
    let all = http.send("POST", &headers, &body);
    let some_headers = format!("{headers}\nAuthorization: Bearer some");
    let some = http.send("POST", &some_headers, &body);
    let change = async {
        while world.changes.receiver_count() < 2 {
            tokio::task::yield_now().await;
        }
        // A tool that `some` may not see is added.
        let echo = (
            "s/echo",
            r#"{"name":"echo", "x-unknown":1.50,"description":"é","inputSchema":{"type":"object"}}"#,
        );
        let new = rulebook(&[echo, ("t/new", r#"{"name":"new","inputSchema":{"type":"object"}}"#)]);
        *world.minutes.rulebook.lock().unwrap() = std::sync::Arc::new(new);
        world.router.rules_changed();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        world.router.shut_down();
    };
    let (all, some, ()) = tokio::join!(all, some, change);
    assert!(all.body.contains("notifications/tools/list_changed"), "{all:?}");
    assert!(!some.body.contains("notifications/tools/list_changed"), "{some:?}");
}

/// A token was replaced, or an agent disabled: what it has open ends, and nobody else's.
#[tokio::test]
async fn who_is_put_out_keeps_nothing_open() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let (id, _) = crate::legacy::begin(&http, "2025-11-25").await;
    let session = format!("Mcp-Session-Id: {id}");
    let legacy = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"s__wait"}}"#;
    let (call, wait) = modern("tools/call", Some("s__wait"), r#""name":"s__wait""#);
    let (listen, filter) =
        modern("subscriptions/listen", None, r#""notifications":{"toolsListChanged":true}"#);
    let reader = format!("{listen}\nAuthorization: Bearer reader");
    let _stays = http.open(&request("POST", &reader, &filter)).await;
    let put_out = async {
        while world.changes.receiver_count() < 3 {
            tokio::task::yield_now().await;
        }
        while world.minutes.lines.lock().unwrap().iter().filter(|line| line.starts_with("handle all")).count()
            < 2
        {
            tokio::task::yield_now().await;
        }
        world.router.sessions().put_out(&["all".parse().unwrap()].into());
        world.router.rules_changed();
    };
    let all = async {
        tokio::join!(
            http.send("GET", &session, ""),
            http.send("POST", &listen, &filter),
            http.send("POST", &call, &wait),
            http.send("POST", &session, legacy),
            put_out,
        )
    };
    let minute = std::time::Duration::from_secs(60);
    let all = tokio::time::timeout(minute, all).await.unwrap();
    let (stream, listened, called, legacy_called, ()) = all;
    assert_eq!((stream.status, listened.status), (200, 200));
    for called in [called, legacy_called] {
        assert!(called.body.contains("It may have run in whole or in part"), "{called:?}");
    }
    assert_eq!(http.send("POST", &session, legacy).await.status, 404, "the session is over");
    while world.changes.receiver_count() != 1 {
        tokio::task::yield_now().await;
    }
}

/// Whoever was let in and sends the body slowly is not let in any more once it is there.
#[tokio::test]
async fn a_slow_body_outlives_no_revocation() {
    struct Door(tokio::sync::Notify);
    impl Identify for Door {
        fn bearer<'a>(&'a self, _token: &'a str) -> BoxFuture<'a, Result<Arc<Agent>, IdentifyError>> {
            self.0.notify_one();
            Box::pin(async { Ok(agent("all")) })
        }

        fn peer(&self, _uid: u32) -> Option<Arc<Agent>> {
            None
        }
    }
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = Http { address: listener.local_addr().unwrap() };
    let door = Arc::new(Door(tokio::sync::Notify::new()));
    let front = Front::new(Arc::clone(&world.router), Arc::clone(&door) as Arc<_>, Settings::default());
    tokio::spawn(front.serve_tcp(listener));
    let (headers, body) = modern("tools/call", Some("s__echo"), r#""name":"s__echo""#);
    let whole = request("POST", &headers, &body);
    let (first, last) = whole.split_at(whole.len() - 1);
    for (who, status) in [("all", 401), ("some", 200)] {
        let mut stream = http.open(first).await;
        door.0.notified().await;
        world.router.sessions().put_out(&[who.parse().unwrap()].into());
        stream.write_all(last).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{who}: {answer}");
    }
    let handled = world.minutes.take().iter().filter(|line| line.starts_with("handle")).count();
    assert_eq!(handled, 1);
}

#[tokio::test]
async fn a_flood_of_one_agent_is_bounded_and_leaves_the_others_alone() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    let busy: Vec<_> = (0..toolgate_gateway::session::MAX_REQUESTS_PER_AGENT)
        .map(|_| world.router.sessions().enter(&"all".parse().unwrap()).unwrap())
        .collect();
    let (headers, body) = modern("tools/list", None, "");
    let got = http.send("POST", &headers, &body).await;
    assert_eq!((got.status, got.header("retry-after")), (429, Some("1")));
    assert_eq!(http.send("POST", &format!("{headers}\nAuthorization: Bearer some"), &body).await.status, 200);
    drop(busy);
    assert_eq!(http.send("POST", &headers, &body).await.status, 200);
}

/// Refusals are on the log, which is never shortened. Who is refused all the time is turned away, and that is written down.
#[tokio::test]
async fn a_flood_of_refusals_is_bounded_and_counted() {
    let world = World::new();
    let http = world.http(Settings::default()).await;
    for size in [4_000_000, 4_000_000, 4_000_000, 4_000_000, 770_000] {
        let large = format!(r#""name":"s__fail","arguments":{{"a":"{}"}}"#, "x".repeat(size));
        let (headers, body) = modern("tools/call", Some("s__fail"), &large);
        assert_eq!(http.send("POST", &headers, &body).await.status, 200);
    }
    let (headers, body) = modern("tools/call", Some("s__nothing"), r#""name":"s__nothing""#);
    let mut refused = 0;
    while http.send("POST", &headers, &body).await.status == 200 {
        refused += 1;
        assert!(refused < 5_000, "nobody is turned away");
    }
    let mut turned_away = 1;
    assert_eq!(http.send("POST", &format!("{headers}\nAuthorization: Bearer some"), &body).await.status, 200);
    world.minutes.take();
    // What is owed beyond the limit passes in a moment.
    while http.send("POST", &headers, &body).await.status == 429 {
        turned_away += 1;
    }
    let minutes = world.minutes.take();
    let counted = format!("refuse all turned_away {turned_away} requests");
    assert_eq!(minutes, [counted, "refuse all hidden_or_unknown s__nothing".to_owned()]);
}

/// Secrets in what servers say about themselves reach no agent. The pin is of what they say: the tool can be called.
#[tokio::test]
async fn secrets_in_lists_and_announcements_are_taken_out() {
    let secret = secret();
    let echo = format!(
        r#"{{"name":"echo","x-unknown":1.50,"description":"Sends {secret}.","inputSchema":{{"type":"object"}}}}"#
    );
    let world = World::with(rulebook(&[("s/echo", &echo)]));
    let template = format!(r#"{{"uriTemplate":"v:{{id}}","description":"with {secret}"}}"#);
    world.templates.lock().unwrap().push(document(template));
    let http = world.http(Settings::default()).await;
    for (method, begin) in [
        ("tools/list", r#"{"name":"s__echo","x-unknown":1.50,"description":"Sends ⟦secret:github-pat#"#),
        ("resources/templates/list", r#"{"uriTemplate":"v:{id}","description":"with ⟦secret:github-pat#"#),
    ] {
        let (headers, body) = modern(method, None, "");
        let got = http.send("POST", &headers, &body).await;
        assert!(got.body.contains(begin) && !got.body.contains(&secret), "{got:?}");
    }
    let (headers, body) = modern("tools/call", Some("s__echo"), r#""name":"s__echo","arguments":{}"#);
    assert_eq!(http.send("POST", &headers, &body).await.status, 200);
    assert!(world.minutes.take().iter().any(|line| line.starts_with("handle all s/echo {}")));

    let filter = r#""notifications":{"resourceSubscriptions":["r:s"]}"#;
    let (headers, body) = modern("subscriptions/listen", None, filter);
    let mut stream = http.open(&request("POST", &headers, &body)).await;
    let mut seen = String::new();
    for text in ["subscriptions/acknowledged", "resources/updated"] {
        while !seen.contains(text) {
            let mut chunk = vec![0; 4096];
            let read = stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
        let params = document(format!(r#"{{"uri":"r:s","title":"now {secret}"}}"#));
        let _nobody_listens_any_more = world.changes.send(Change::Resource {
            server: "s".parse().unwrap(),
            uri: "r:s".to_owned(),
            params,
        });
    }
    assert!(
        seen.contains(r#"{"uri":"r:s","title":"now ⟦secret:github-pat#"#) && !seen.contains(&secret),
        "{seen}"
    );
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let definitions: Vec<(String, String)> = (0..1001)
        .map(|n| (format!("s/t{n:04}"), format!(r#"{{"name":"t{n:04}","inputSchema":{{"type":"object"}}}}"#)))
        .collect();
    let definitions: Vec<(&str, &str)> = definitions.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    // A rule names this tool.
    let mut definitions = definitions;
    definitions.push(("s/echo", r#"{"name":"echo","inputSchema":{"type":"object"}}"#));
    let world = World::with(rulebook(&definitions));
    let http = world.http(Settings::default()).await;
    let (headers, body) = modern("tools/list", None, "");
    let first = document(http.send("POST", &headers, &body).await.body);
    assert_eq!(first.root().path(&["result", "tools"]).unwrap().len(), 1000);
    let cursor = first.root().path(&["result", "nextCursor"]).unwrap().as_str().unwrap();
    let (headers, body) = modern("tools/list", None, &format!(r#""cursor":"{cursor}""#));
    let second = document(http.send("POST", &headers, &body).await.body);
    assert_eq!(second.root().path(&["result", "tools"]).unwrap().len(), 2);
    assert!(second.root().path(&["result", "nextCursor"]).is_none());
    for (cursor, agent) in [(cursor, "some"), ("made-up", "all"), ("", "all")] {
        let (headers, body) = modern("tools/list", None, &format!(r#""cursor":"{cursor}""#));
        let got = http.send("POST", &format!("{headers}\nAuthorization: Bearer {agent}"), &body).await;
        assert!(got.body.contains("-32602"), "{got:?}");
    }
}
