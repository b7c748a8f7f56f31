//! Both eras over a pair of pipes.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;
use toolgate_gateway::front::stdio;

use crate::world::{World, agent, modern};

/// How long a line may be here.
const MAX_LINE: usize = 20_000;

struct Pipe {
    write: WriteHalf<DuplexStream>,
    lines: tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>,
    served: JoinHandle<Result<(), stdio::ServeStdioError>>,
}

impl Pipe {
    fn open(world: &World, name: &str) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(theirs);
        let served =
            tokio::spawn(stdio::serve(Arc::clone(&world.router), agent(name), input, output, MAX_LINE));
        let (read, write) = tokio::io::split(ours);
        Self { write, lines: BufReader::new(read).lines(), served }
    }

    async fn say(&mut self, line: &str) {
        self.write.write_all(line.as_bytes()).await.unwrap();
        self.write.write_all(b"\n").await.unwrap();
    }

    async fn hear(&mut self) -> String {
        self.lines.next_line().await.unwrap().unwrap()
    }

    async fn ask(&mut self, line: &str) -> String {
        self.say(line).await;
        self.hear().await
    }
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;

#[tokio::test]
async fn bad_lines_are_answered_and_the_next_one_is_read() {
    let world = World::new();
    let mut pipe = Pipe::open(&world, "all");
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{}}}}}"#, "[".repeat(10_000));
    for (line, want) in [
        ("{", "-32700"),
        (r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}"#, "-32700"),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "-32600"),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, "-32600"),
        (&deep, "-32700"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, "-32602"),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"1900-01-01"}}}"#,
            "-32022",
        ),
    ] {
        let got = pipe.ask(line).await;
        assert!(got.contains(want), "{line}: {got}");
    }
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","x":"{}"}}"#, "x".repeat(10 << 20));
    assert!(pipe.ask(&long).await.contains("too long"));
    let ping = |length: usize| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "m".repeat(length));
    let most = MAX_LINE - ping(0).len();
    assert!(!pipe.ask(&ping(most)).await.contains("too long"), "as long as it may be");
    assert!(pipe.ask(&ping(most + 1)).await.contains("too long"), "one more");
    pipe.write.write_all(b"\xff\xfe\n").await.unwrap();
    assert!(pipe.hear().await.contains("-32700"));
    pipe.say("").await;
    // Answers to nothing, and notifications nobody knows, are nobody's business.
    pipe.say(r#"{"jsonrpc":"2.0","id":"toolgate-0","result":{}}"#).await;
    pipe.say(r#"{"jsonrpc":"2.0","method":"notifications/nonsense"}"#).await;
    let (_, list) = modern("tools/call", None, r#""name":"s__echo""#);
    assert!(pipe.ask(&list).await.contains("you said"), "the next line is read");
}

#[tokio::test]
async fn both_eras_on_the_same_pipes() {
    let world = World::new();
    let mut pipe = Pipe::open(&world, "all");
    let (_, discover) = modern("server/discover", None, "");
    assert!(pipe.ask(&discover).await.contains("supportedVersions"));
    assert!(pipe.ask(INITIALIZE).await.contains(r#""protocolVersion":"2025-11-25""#));
    assert!(pipe.ask(INITIALIZE).await.contains("begun already"));
    let legacy = pipe.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    let (_, list) = modern("tools/list", None, "");
    let modern = pipe.ask(&list).await;
    assert!(!legacy.contains("resultType") && modern.contains("resultType"));
    // Rows of JSON never break: what a server put on several lines comes on one.
    let got = pipe.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s__progress","_meta":{"progressToken":1}}}"#).await;
    assert!(got.contains("notifications/progress"), "{got}");
    assert_eq!(pipe.hear().await, r#"{"jsonrpc":"2.0","id":1,"result":{ "content":[]}}"#);
    world.minutes.until("delivered").await;
}

#[tokio::test]
async fn a_cancelled_request_is_not_answered() {
    let world = World::new();
    let mut pipe = Pipe::open(&world, "all");
    let (_, wait) = modern("tools/call", None, r#""name":"s__wait""#);
    pipe.say(&wait).await;
    world.minutes.until("handle").await;
    assert!(pipe.ask(&wait).await.contains("another request with this id"));
    pipe.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#).await;
    world.minutes.until("gone").await;
    let (_, list) = modern("tools/list", None, "");
    assert!(
        pipe.ask(&list.replace("\"id\":1", "\"id\":2")).await.contains("\"id\":2"),
        "nothing came before it"
    );
}

#[tokio::test]
async fn servers_ask_legacy_agents_over_the_pipes() {
    let world = World::new();
    let mut pipe = Pipe::open(&world, "all");
    pipe.ask(INITIALIZE).await;
    let ask = pipe.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s__ask"}}"#).await;
    assert_eq!(ask, r#"{"jsonrpc":"2.0","id":"toolgate-0","method":"elicitation/create","params":{}}"#);
    let got = pipe.ask(r#"{"jsonrpc":"2.0","id":"toolgate-0","result":{"action":"accept"}}"#).await;
    assert_eq!(got, r#"{"jsonrpc":"2.0","id":1,"result":{"action":"accept"}}"#);
}

#[tokio::test]
async fn the_end_of_input_ends_everything() {
    let world = World::new();
    let mut pipe = Pipe::open(&world, "all");
    pipe.ask(INITIALIZE).await;
    pipe.say(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s__wait"}}"#).await;
    world.minutes.until("handle").await;
    // Half a line, then the end.
    pipe.write.write_all(br#"{"jsonrpc":"2.0","id":2,"method":"pi"#).await.unwrap();
    pipe.write.shutdown().await.unwrap();
    world.minutes.until("gone").await;
    pipe.served.await.unwrap().unwrap();
    assert!(world.minutes.take().contains(&"end".to_owned()), "the servers' connections are let go");
}
