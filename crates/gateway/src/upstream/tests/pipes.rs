//! Servers over pipes: good ones of both eras, and all the bad ones.

use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf,
};
use toolgate_broker::port::StopReason;
use toolgate_sandbox::Launch;

use super::*;
use crate::upstream::link::Link;
use crate::upstream::stdio::{StdioHolder, StdioLink};

/// The server's end of the pipes.
pub(super) struct Fake {
    reader: BufReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
}

impl Fake {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for a request of this method and gives its id and text.
    async fn expect(&mut self, method: &str) -> (i64, String) {
        let line = self.line().await;
        let message = json(&line);
        assert_eq!(message.root().get("method").and_then(|m| m.as_str()), Some(method), "{line}");
        (message.root().get("id").and_then(|id| id.as_i64()).unwrap_or_default(), line)
    }

    async fn write(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).await.unwrap();
        self.writer.write_all(b"\n").await.unwrap();
    }

    async fn result(&mut self, id: i64, result: &str) {
        self.write(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).await;
    }

    async fn error(&mut self, id: i64, code: i64) {
        self.write(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"m"}}}}"#))
            .await;
    }

    async fn modern(&mut self) {
        let (id, line) = self.expect("server/discover").await;
        assert!(line.contains(r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#), "{line}");
        self.result(id, DISCOVERED).await;
    }

    async fn legacy(&mut self) {
        let (id, _) = self.expect("server/discover").await;
        self.error(id, -32601).await;
        let (id, _) = self.expect("initialize").await;
        self.result(id, INITIALIZED).await;
        self.expect("notifications/initialized").await;
    }

    async fn tools(&mut self) {
        let (id, _) = self.expect("tools/list").await;
        self.result(id, &format!(r#"{{"resultType":"complete","tools":[{TOOL}]}}"#)).await;
    }
}

/// Connects a session to a scripted server.
async fn connect<F, Fut>(upstreams: &Upstreams, session: &str, script: F) -> tokio::task::JoinHandle<()>
where
    F: FnOnce(Fake) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(8 << 10);
    let (read, write) = tokio::io::split(ours);
    let told = upstreams.inner.told(&server(), session);
    let link = StdioLink::over(read, write, None, Arc::clone(&told), bounds());
    let (reader, writer) = tokio::io::split(theirs);
    let fake = tokio::spawn(script(Fake { reader: BufReader::new(reader), writer }));
    upstreams.inner.adopt(Link::Stdio(StdioHolder(link)), &server(), session, told).await.unwrap();
    fake
}

fn pipes() -> Upstreams {
    upstreams(Transport::Stdio(Launch { program: "/no/such/program".into(), ..Launch::default() }))
}

const PARAMS: &str = r#"{"name":"srv__t", "x-top": 1.50,"arguments":{"n":1.0,"region":"é"},"_meta":{"progressToken":"tok","claudecode/toolUseId":"u-1","traceparent" : "00-x"}}"#;

#[tokio::test]
async fn a_modern_call_arrives_as_judged_and_everything_else_untouched() {
    let up = pipes();
    let fake = connect(&up, "s", |mut fake| async move {
        fake.modern().await;
        fake.tools().await;
        let (id, line) = fake.expect("tools/call").await;
        for part in [
            r#""name":"t""#,
            r#""x-top": 1.50"#,
            r#""arguments":{"n":1,"region":"é"}"#,
            r#""claudecode/toolUseId":"u-1""#,
            r#""traceparent" : "00-x""#,
            r#""io.modelcontextprotocol/clientCapabilities":{"elicitation":{},"sampling":{}}"#,
            &format!(r#""progressToken":{id}"#),
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        let progress = |token| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":0.50,"x":1}}}}"#)
        };
        fake.write(&progress(id)).await;
        fake.write(&progress(id + 1)).await;
        fake.result(id, r#"{"resultType":"complete","content":[ ],"x-new":{"a":1e2}}"#).await;
    })
    .await;
    let agent = FakeAgent::new(MODERN, &[]);
    let got = run(&up, call("s", PARAMS), &agent, false).await;
    assert_eq!(got, r#"result {"resultType":"complete","content":[ ],"x-new":{"a":1e2}}"#);
    assert_eq!(agent.heard(), [r#"notifications/progress {"progressToken":"tok","progress":0.50,"x":1}"#]);
    fake.await.unwrap();
}

#[tokio::test]
async fn a_legacy_server_gets_no_modern_members_and_a_modern_agent_gets_what_is_missing() {
    let up = pipes();
    let params = r#"{"name":"srv__t","arguments":{},"inputResponses":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"a/b":1}}"#;
    let fake = connect(&up, "s", |mut fake| async move {
        fake.legacy().await;
        fake.tools().await;
        let (id, line) = fake.expect("tools/call").await;
        assert!(line.ends_with(r#""params":{"name":"t","arguments":{},"_meta":{"a/b":1}}}"#), "{line}");
        fake.result(id, r#"{"content":[]}"#).await;
        let (id, _) = fake.expect("tools/call").await;
        fake.result(id, r#"{"content":[],"resultType":"odd"}"#).await;
    })
    .await;
    let modern = FakeAgent::new(MODERN, &[]);
    assert_eq!(
        run(&up, call("s", params), &modern, false).await,
        r#"result {"content":[],"resultType":"complete"}"#
    );
    let legacy = FakeAgent::new(LEGACY, &[]);
    assert_eq!(
        run(&up, call("s", params), &legacy, false).await,
        r#"result {"content":[],"resultType":"odd"}"#
    );
    fake.await.unwrap();
}

#[tokio::test]
async fn a_server_that_names_other_versions_is_not_guessed_about() {
    let up = pipes();
    let told = up.inner.told(&server(), "s");
    let (ours, theirs) = tokio::io::duplex(8 << 10);
    let (read, write) = tokio::io::split(ours);
    let link = StdioLink::over(read, write, None, Arc::clone(&told), bounds());
    let (reader, writer) = tokio::io::split(theirs);
    let mut fake = Fake { reader: BufReader::new(reader), writer };
    let script = tokio::spawn(async move {
        let (id, _) = fake.expect("server/discover").await;
        let error =
            r#"{"code":-32022,"message":"m","data":{"supported":["2099-01-01"],"requested":"2026-07-28"}}"#;
        fake.write(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)).await;
        assert_eq!(fake.line().await, "", "nothing may follow");
    });
    let refused = up.inner.adopt(Link::Stdio(StdioHolder(link)), &server(), "s", told).await.unwrap_err();
    assert!(refused.contains("2099-01-01"), "{refused}");
    script.await.unwrap();
}

/// What a bad server does instead of answering, and what comes of it.
#[tokio::test]
async fn bad_servers() {
    let big = format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"a":"{}"}}}}"#, "x".repeat(100 << 10));
    let deep = format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{{"a":{}}}}}"#, "[".repeat(10_000));
    let good = r#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"complete","content":[]}}"#;
    let fine = r#"result {"resultType":"complete","content":[]}"#;
    let notice = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
    let flood = vec![notice; 2000].join("\n");
    let strays = vec![r#"{"jsonrpc":"2.0","id":99999,"result":{}}"#; 2000].join("\n");
    for (name, lines, want) in [
        ("dies", "", "lost: the server closed the connection"),
        ("no JSON", "hello", "lost: the server wrote a line that is no message"),
        (
            "twice the same key",
            r#"{"jsonrpc":"2.0","id":ID,"id":ID,"result":{}}"#,
            "lost: the server wrote a line that is no message",
        ),
        ("a batch", &format!("[{good}]"), "lost: the server wrote a line that is no message"),
        ("too long", &big, "lost: the server wrote a line of more than 65536 bytes"),
        ("too deep", &deep, "lost: the server wrote a line that is no message"),
        (
            "not UTF-8 escapes",
            r#"{"jsonrpc":"2.0","id":ID,"result":{"a":"\ud800"}}"#,
            "lost: the server wrote a line that is no message",
        ),
        ("another id first", &format!("{}\n{good}", good.replace("ID", "777")), fine),
        ("the id as a string first", &format!("{}\n{good}", good.replace("ID", "\"ID\"")), fine),
        ("twice", &format!("{good}\n{good}"), fine),
        ("a flood of notifications", &format!("{flood}\n{good}"), fine),
        ("a flood of answers", &strays, "lost: the server keeps answering what was not asked"),
        (
            "a request it may not make",
            &format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{}}}}
{good}"#
            ),
            fine,
        ),
        (
            "unknown kind of result",
            r#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"task"}}"#,
            "result {\"content\":[{\"type\":\"text\",\"text\":\"The server answered with a kind of result",
        ),
    ] {
        let up = pipes();
        let lines = lines.to_owned();
        let fake = connect(&up, "s", |mut fake| async move {
            fake.modern().await;
            fake.tools().await;
            let (id, _) = fake.expect("tools/call").await;
            if !lines.is_empty() {
                let text = format!("{}\n", lines.replace("ID", &id.to_string()));
                // The gate may hang up before all is written; that is its right.
                drop(fake.writer.write_all(text.as_bytes()).await);
                drop(fake.writer.shutdown().await);
                let mut rest = Vec::new();
                drop(fake.reader.read_to_end(&mut rest).await);
            }
        })
        .await;
        let other = connect(&up, "other", |mut fake| async move {
            fake.modern().await;
            fake.tools().await;
            let (id, _) = fake.expect("tools/call").await;
            fake.result(id, r#"{"resultType":"complete","content":[]}"#).await;
        })
        .await;
        let agent = FakeAgent::new(MODERN, &[]);
        let got = run(&up, call("s", r#"{"name":"t","arguments":{}}"#), &agent, true).await;
        assert!(got.starts_with(want), "{name}: {got}");
        let got = run(&up, call("other", r#"{"name":"t","arguments":{}}"#), &agent, true).await;
        assert_eq!(got, fine, "{name}: the other session goes on");
        up.inner.end_session("s");
        fake.await.unwrap();
        other.await.unwrap();
    }
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_server_and_a_late_answer_is_dropped() {
    let up = pipes();
    let (tell, stop) = Stop::new();
    let fake = connect(&up, "s", move |mut fake| async move {
        fake.modern().await;
        fake.tools().await;
        let (id, _) = fake.expect("tools/call").await;
        tell.send(Some(StopReason::Gone)).unwrap();
        let (_, line) = fake.expect("notifications/cancelled").await;
        assert!(line.contains(&format!(r#""requestId":{id},"#)), "{line}");
        let (second, _) = fake.expect("tools/call").await;
        fake.result(id, r#"{"resultType":"complete","content":["late"]}"#).await;
        fake.result(second, r#"{"resultType":"complete","content":[]}"#).await;
    })
    .await;
    let agent = FakeAgent::new(MODERN, &[]);
    let got = run_until(&up, call("s", r#"{"name":"t","arguments":{}}"#), &agent, false, stop).await;
    assert_eq!(got, "cancelled");
    let got = run(&up, call("s", r#"{"name":"t","arguments":{}}"#), &agent, false).await;
    assert_eq!(got, r#"result {"resultType":"complete","content":[]}"#);
    assert_eq!(up.counters().of(Oddity::StrayAnswer), 1);
    fake.await.unwrap();
}

#[tokio::test]
async fn a_tool_that_is_not_what_was_accepted_is_not_called() {
    for list in ["[]".to_owned(), format!("[{}]", TOOL.replace("1.50", "2")), format!("[{TOOL},{TOOL}]")] {
        let up = pipes();
        let mut events = up.events();
        let fake = connect(&up, "s", move |mut fake| async move {
            fake.modern().await;
            let (id, _) = fake.expect("tools/list").await;
            fake.result(id, &format!(r#"{{"tools":{list}}}"#)).await;
            assert_eq!(fake.line().await, "", "nothing may follow");
        })
        .await;
        let agent = FakeAgent::new(MODERN, &[]);
        let got = run(&up, call("s", r#"{"name":"t","arguments":{}}"#), &agent, false).await;
        assert_eq!(got, "not sent: server `srv` failed: tool `t` is not what was accepted");
        assert_eq!(
            events.recv().await.unwrap().kind,
            UpstreamEventKind::ToolDiffers { tool: "t".to_owned() }
        );
        up.inner.end_session("s");
        fake.await.unwrap();
    }
}

#[tokio::test]
async fn a_changed_list_is_read_again_before_the_next_call() {
    let up = pipes();
    let fake = connect(&up, "s", |mut fake| async move {
        fake.legacy().await;
        fake.tools().await;
        let (id, _) = fake.expect("tools/call").await;
        fake.write(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).await;
        fake.result(id, r#"{"content":[]}"#).await;
        let (id, _) = fake.expect("tools/list").await;
        fake.result(id, r#"{"tools":[]}"#).await;
    })
    .await;
    let agent = FakeAgent::new(LEGACY, &[]);
    assert_eq!(run(&up, call("s", r#"{"arguments":{}}"#), &agent, false).await, r#"result {"content":[]}"#);
    let got = run(&up, call("s", r#"{"arguments":{}}"#), &agent, false).await;
    assert!(got.starts_with("not sent:"), "{got}");
    fake.await.unwrap();
}

const ELICIT: &str = r#"{"jsonrpc":"2.0","id":"e1","method":"elicitation/create","params":{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}}"#;

#[tokio::test]
async fn what_a_legacy_server_asks_is_judged_before_a_legacy_agent_hears_of_it() {
    for (permits, want_answer, want_asked) in [
        (true, r#"{"jsonrpc":"2.0","id":"e1","result":{"action":"accept","content":{"x":1.50}}}"#, 1),
        (false, r#"{"jsonrpc":"2.0","id":"e1","result":{"action":"decline"}}"#, 0),
    ] {
        let up = pipes();
        let fake = connect(&up, "s", move |mut fake| async move {
            fake.legacy().await;
            // Outside of a call nothing is asked.
            fake.write(ELICIT).await;
            assert!(fake.line().await.contains(r#""code":-32600"#));
            fake.write(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#).await;
            assert_eq!(fake.line().await, r#"{"jsonrpc":"2.0","id":"p","result":{}}"#);
            fake.tools().await;
            let (id, _) = fake.expect("tools/call").await;
            fake.write(ELICIT).await;
            assert_eq!(fake.line().await, want_answer);
            // Never declared.
            fake.write(r#"{"jsonrpc":"2.0","id":"r1","method":"roots/list"}"#).await;
            assert!(fake.line().await.contains(r#""error":{"code":-1,"#));
            fake.result(id, r#"{"content":[]}"#).await;
        })
        .await;
        while up.counters().of(Oddity::RefusedRequest) == 0 {
            tokio::task::yield_now().await;
        }
        let agent = FakeAgent::new(LEGACY, &[r#"{"action":"accept","content":{"x":1.50}}"#]);
        let got = run(&up, call("s", r#"{"arguments":{}}"#), &agent, permits).await;
        assert_eq!(got, r#"result {"content":[]}"#);
        assert_eq!(agent.heard().len(), want_asked, "{:?}", agent.heard());
        fake.await.unwrap();
    }
}

/// The `requestState` of a result.
fn state_of(result: &str) -> String {
    let result = json(result.strip_prefix("result ").unwrap_or_else(|| panic!("{result}")));
    result.root().get("requestState").and_then(|state| state.as_str()).unwrap().to_owned()
}

#[tokio::test]
async fn what_a_legacy_server_asks_reaches_a_modern_agent_in_the_result_of_its_call() {
    let up = pipes();
    let fake = connect(&up, "s", |mut fake| async move {
        fake.legacy().await;
        fake.tools().await;
        let (id, _) = fake.expect("tools/call").await;
        fake.write(ELICIT).await;
        assert_eq!(
            fake.line().await,
            r#"{"jsonrpc":"2.0","id":"e1","result":{"action":"accept","content":{"x":1.50}}}"#
        );
        fake.result(id, r#"{"content":["done"]}"#).await;
        assert_eq!(fake.line().await, "", "nothing may follow");
    })
    .await;
    let agent = FakeAgent::new(MODERN, &[]);
    let first = run(&up, call("s", r#"{"name":"t","arguments":{"n":1}}"#), &agent, true).await;
    assert!(
        first.starts_with(r#"result {"resultType":"input_required","inputRequests":{"toolgate-request":{"method":"elicitation/create","params":{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}}},"requestState":"toolgate.1."#),
        "{first}"
    );
    let state = state_of(&first);
    let retry = |arguments: &str, state: &str| {
        let params = format!(
            r#"{{"name":"t","arguments":{arguments},"requestState":"{state}","inputResponses":{{"toolgate-request":{{"action":"accept","content":{{"x":1.50}}}}}}}}"#
        );
        call("s", &params)
    };
    let invalid = "not awaited";
    assert_eq!(run(&up, retry(r#"{"n":2}"#, &state), &agent, true).await, invalid, "other arguments");
    let forged = format!("{}A", state.strip_suffix(state.chars().last().unwrap()).unwrap());
    let forged = if forged == state { format!("{state}A") } else { forged };
    assert_eq!(run(&up, retry(r#"{"n":1}"#, &forged), &agent, true).await, invalid, "a forged state");
    let done = run(&up, retry(r#"{"n":1}"#, &state), &agent, true).await;
    assert_eq!(done, r#"result {"content":["done"],"resultType":"complete"}"#);
    assert_eq!(run(&up, retry(r#"{"n":1}"#, &state), &agent, true).await, invalid, "used twice");
    let foreign = run(&up, retry(r#"{"n":1}"#, "foreign"), &agent, true).await;
    assert_eq!(foreign, invalid);
    up.inner.end_session("s");
    fake.await.unwrap();
}

const WANTS: &str = r#"{"resultType":"input_required","inputRequests":{"k":{"method":"elicitation/create","params":{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}}}, "requestState":"st\u0041te"}"#;

#[tokio::test]
async fn what_a_modern_server_asks_is_put_to_a_legacy_agent_and_the_call_is_retried() {
    for (permits, want) in
        [(true, r#"{"k":{"action":"accept","content":{}}}"#), (false, r#"{"k":{"action":"decline"}}"#)]
    {
        let up = pipes();
        let fake = connect(&up, "s", move |mut fake| async move {
            fake.modern().await;
            fake.tools().await;
            let (first, _) = fake.expect("tools/call").await;
            fake.result(first, WANTS).await;
            let (second, line) = fake.expect("tools/call").await;
            assert_ne!(first, second);
            assert!(line.contains(&format!(r#""inputResponses":{want}"#)), "{line}");
            assert!(line.contains(r#""requestState":"st\u0041te""#), "byte for byte: {line}");
            fake.result(second, r#"{"resultType":"complete","content":[]}"#).await;
        })
        .await;
        let agent = FakeAgent::new(LEGACY, &[r#"{"action":"accept","content":{}}"#]);
        let got = run(&up, call("s", r#"{"arguments":{}}"#), &agent, permits).await;
        assert_eq!(got, r#"result {"content":[]}"#);
        assert_eq!(agent.heard().len(), usize::from(permits));
        fake.await.unwrap();
    }
}

#[tokio::test]
async fn between_modern_ends_requests_pass_if_permitted_and_are_declined_if_not() {
    let up = pipes();
    let fake = connect(&up, "s", |mut fake| async move {
        fake.modern().await;
        fake.tools().await;
        let (id, _) = fake.expect("tools/call").await;
        fake.result(id, WANTS).await;
        let (id, line) = fake.expect("tools/call").await;
        assert!(line.contains(r#""requestState":"st\u0041te""#), "{line}");
        fake.result(id, WANTS).await;
        let (id, line) = fake.expect("tools/call").await;
        assert!(line.contains(r#""inputResponses":{"k":{"action":"decline"}}"#), "{line}");
        fake.result(id, r#"{"resultType":"complete","content":[]}"#).await;
        // It keeps asking: the gate does not go on for ever.
        for _ in 0..=8 {
            let (id, _) = fake.expect("tools/call").await;
            fake.result(id, WANTS).await;
        }
    })
    .await;
    let agent = FakeAgent::new(MODERN, &[]);
    assert_eq!(run(&up, call("s", r#"{"arguments":{}}"#), &agent, true).await, format!("result {WANTS}"));
    let retry = r#"{"arguments":{},"inputResponses":{"k":{"action":"accept"}},"requestState":"st\u0041te"}"#;
    let got = run(&up, call("s", retry), &agent, false).await;
    assert_eq!(got, r#"result {"resultType":"complete","content":[]}"#);
    let got = run(&up, call("s", r#"{"arguments":{}}"#), &agent, false).await;
    assert!(got.contains("kept asking") && got.contains(r#""isError":true"#), "{got}");
    fake.await.unwrap();
}

/// The model is hijacked, and answers what nobody asked it.
#[tokio::test]
async fn answers_reach_a_modern_server_only_to_what_was_passed_on() {
    let up = pipes();
    let fake = connect(&up, "s", |mut fake| async move {
        fake.modern().await;
        fake.tools().await;
        let done = r#"{"resultType":"complete","content":[]}"#;
        // On a first call, then from an agent of before: nothing is left of the answers.
        for _ in 0..2 {
            let (id, line) = fake.expect("tools/call").await;
            assert!(line.contains(r#""inputResponses":{}"#), "{line}");
            fake.result(id, done).await;
        }
        // What was denied to the agent is not asked, and cannot be answered.
        let (id, _) = fake.expect("tools/call").await;
        fake.result(id, WANTS).await;
        let (id, line) = fake.expect("tools/call").await;
        assert!(line.contains(r#""inputResponses":{"k":{"action":"decline"}}"#), "{line}");
        fake.result(id, done).await;
        // What was passed on can: that alone, for that call alone, and once.
        let (id, _) = fake.expect("tools/call").await;
        fake.result(id, WANTS).await;
        let (id, line) = fake.expect("tools/call").await;
        assert!(
            line.contains(r#""inputResponses":{"k":{"action":"accept"}},"requestState":"stAte""#),
            "{line}"
        );
        fake.result(id, done).await;
        assert_eq!(fake.line().await, "", "nothing may follow");
    })
    .await;
    let (modern, legacy) = (FakeAgent::new(MODERN, &[]), FakeAgent::new(LEGACY, &[]));
    let with = |n: u8, state: &str| {
        let answers = r#""inputResponses":{"k":{"action":"accept"},"other":{"action":"accept"}}"#;
        call("s", &format!(r#"{{"arguments":{{"n":{n}}},{answers}{state}}}"#))
    };
    let plain = || call("s", r#"{"arguments":{"n":1}}"#);
    let (state, done) = (r#","requestState":"stAte""#, r#"result {"resultType":"complete","content":[]}"#);
    assert_eq!(run(&up, with(1, ""), &modern, true).await, done);
    assert_eq!(run(&up, with(1, ""), &legacy, true).await, r#"result {"content":[]}"#);
    assert_eq!(run(&up, with(1, state), &modern, true).await, "not awaited", "never asked");
    assert_eq!(run(&up, plain(), &modern, false).await, done, "asked by the server, denied by the rules");
    assert_eq!(run(&up, with(1, state), &modern, true).await, "not awaited", "denied");
    assert_eq!(run(&up, plain(), &modern, true).await, format!("result {WANTS}"));
    assert_eq!(run(&up, with(2, state), &modern, true).await, "not awaited", "another call");
    assert_eq!(run(&up, with(1, r#","requestState":"other""#), &modern, true).await, "not awaited");
    assert_eq!(run(&up, with(1, r#","requestState":7"#), &modern, true).await, "not awaited");
    let mut stranger = with(1, state);
    stranger.agent = Arc::new(Agent { id: "b".parse().unwrap(), ..(*stranger.agent).clone() });
    assert_eq!(run(&up, stranger, &modern, true).await, "not awaited", "another agent");
    assert_eq!(run(&up, with(1, state), &modern, true).await, done);
    assert_eq!(run(&up, with(1, state), &modern, true).await, "not awaited", "twice");
    up.inner.end_session("s");
    fake.await.unwrap();
}

/// The same for tasks, which are asked about more than once.
#[tokio::test]
async fn answers_reach_a_task_only_to_what_was_passed_on() {
    let asks = WANTS.replace("input_required\"", "complete\",\"taskId\":\"1\",\"status\":\"input_required\"");
    let script = asks.clone();
    let up = pipes();
    let fake = connect(&up, "s", |mut fake| async move {
        fake.modern().await;
        let done = r#"{"resultType":"complete"}"#;
        for want in [
            r#""inputResponses":{}"#,
            r#""inputResponses":{"k":{"action":"accept"}}"#,
            r#""inputResponses":{}"#,
        ] {
            let (id, _) = fake.expect("tasks/get").await;
            fake.result(id, &script).await;
            let (id, line) = fake.expect("tasks/update").await;
            assert!(line.contains(want), "{want} in {line}");
            fake.result(id, done).await;
        }
    })
    .await;
    let agent = FakeAgent::new(MODERN, &[]);
    let task = |action, more: &str| {
        let arguments = json(r#"{"taskId":"1"}"#).root().canonical().unwrap();
        other_call("s", action, arguments, json(&format!(r#"{{"taskId":"1"{more}}}"#)))
    };
    let answers = r#","inputResponses":{"k":{"action":"accept"},"j":{"action":"accept"}}"#;
    for (permits, other) in [(false, false), (true, false), (true, true)] {
        let got = run(&up, task(Action::TaskGet, ""), &agent, permits).await;
        assert_eq!(got.contains(r#""k":{"#), permits, "{got}");
        let mut update = task(Action::TaskUpdate, answers);
        if other {
            update.agent = Arc::new(Agent { id: "b".parse().unwrap(), ..(*update.agent).clone() });
        }
        run(&up, update, &agent, permits).await;
    }
    fake.await.unwrap();
}

#[tokio::test]
async fn what_cannot_start_is_left_alone_for_a_while() {
    let up = pipes();
    let agent = FakeAgent::new(MODERN, &[]);
    let first = run(&up, call("s", r#"{"arguments":{}}"#), &agent, false).await;
    assert!(
        first.starts_with("not sent: server `srv` could not be opened: could not start `/no/such/program`"),
        "{first}"
    );
    let second = run(&up, call("s", r#"{"arguments":{}}"#), &agent, false).await;
    assert!(second.starts_with("not sent: server `srv` failed and is tried again in"), "{second}");
}

#[tokio::test]
async fn a_real_process_is_started_asked_and_ended() {
    let script = r#"while read -r line; do
        id=${line#*\"id\":}; id=${id%%,*}
        case $line in
            *server/discover*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"m"}}\n' "$id";;
            *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":INIT}\n' "$id";;
            *tools/list*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"t","inputSchema":{"type":"object"}}]}}\n' "$id";;
        esac
    done"#;
    let script = script.replace("INIT", INITIALIZED);
    let launch =
        Launch { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()], ..Launch::default() };
    let up = upstreams(Transport::Stdio(launch));
    let tools = up.fetch_tools(&server()).await.unwrap();
    assert_eq!(tools.len(), 1);
    assert_eq!(tools.first().unwrap().root().raw_str(), r#"{"name":"t","inputSchema":{"type":"object"}}"#);
    assert_eq!(up.discover(&server()).await.unwrap().version, "2025-06-18");
    up.shutdown().await;
    let unknown: ServerName = "other".parse().unwrap();
    assert_eq!(up.fetch_tools(&unknown).await.unwrap_err(), UpstreamError::Unknown("other".to_owned()));
}
