//! Attempts to have a call executed that no rule permits, that is not on the log, twice, or with other bytes than were
//! judged: over HTTP in both eras and over pipes, through the real pipeline, store and upstream leg. Whatever is tried, what
//! the server got is compared with the log.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what went wrong by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use toolgate_broker::blob::RootKey;
use toolgate_broker::pipeline::Broker;
use toolgate_broker::port::{BoxFuture, Position, SystemClock};
use toolgate_broker::rulebook::{AcceptedTool, QuestionRules, Rulebook};
use toolgate_broker::store::{NewAnswer, SqliteStore};
use toolgate_core::call::{Agent, Proof};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::ToolName;
use toolgate_core::policy::{KnownAgent, Policy, PolicySource, World};
use toolgate_core::schema::Schema;
use toolgate_core::tool::{Tool, pin, undeclared_effects};
use toolgate_gateway::catalog::Naming;
use toolgate_gateway::front::http::{Front, Settings};
use toolgate_gateway::front::stdio;
use toolgate_gateway::port::{Identify, IdentifyError};
use toolgate_gateway::router::Router;
use toolgate_gateway::upstream::{HttpServer, ServerConfig, Transport, Unobserved, Upstreams};
use toolgate_testkit::minutes::{Gullible, said};
use toolgate_testkit::store_conformance::line;
use toolgate_testkit::store_folder::TestFolder;

const RULES: &str = r#"
@id("some") @because("tests")
permit(principal == Agent::"a", action in [Action::"s/die", Action::"s/echo", Action::"s/other"], resource);
@id("pay") @because("tests") @ask("owner")
permit(principal == Agent::"a", action == Action::"s/pay", resource);
"#;

/// All tools of the server. No rule permits `wipe`.
const TOOLS: [&str; 5] = ["die", "echo", "other", "pay", "wipe"];

fn definition(name: &str) -> String {
    format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}}}}"#)
}

fn json(text: &str) -> Document {
    Document::parse(text.as_bytes(), &Limits::default()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn agent(name: &str) -> Arc<Agent> {
    Arc::new(Agent { id: name.parse().unwrap(), groups: Vec::new(), proof: Proof::Bearer })
}

fn rulebook(rules: &str) -> Rulebook {
    let tool = |name: &&str| {
        let definition = json(&definition(name));
        let pin = pin(&definition.root().canonical().unwrap());
        let input = Schema::compile(&definition.root().get("inputSchema").unwrap()).unwrap();
        let name: ToolName = format!("s/{name}").parse().unwrap();
        let tool = Arc::new(Tool { name: name.clone(), effects: undeclared_effects(), definition, pin });
        (name, Arc::new(AcceptedTool { tool, input, output: None }))
    };
    let tools: HashMap<_, _> = TOOLS.iter().map(tool).collect();
    let rules_of = QuestionRules {
        people: BTreeSet::from(["owner".parse().unwrap()]),
        quorum: 1,
        wait_ms: 1_000,
        expires_ms: 60_000,
    };
    let questions = BTreeMap::from([("owner".parse().unwrap(), rules_of)]);
    let known = |name: &str| KnownAgent { id: name.parse().unwrap(), groups: Vec::new() };
    let world = World {
        agents: ["a", "b"].map(known).to_vec(),
        servers: vec!["s".parse().unwrap()],
        tools: tools.values().map(|accepted| Arc::clone(&accepted.tool)).collect(),
        questions: questions.keys().cloned().collect(),
    };
    let source = PolicySource { path: "test.cedar".to_owned(), text: rules.to_owned(), examples: None };
    Rulebook {
        policy: Arc::new(Policy::load(&[source], &world).unwrap()),
        servers: BTreeSet::from(["s".parse().unwrap()]),
        limits: HashMap::new(),
        lent: HashMap::new(),
        scrub: toolgate_broker::scrub::ScrubRules::default(),
        tools,
        questions,
        people: Arc::new(Gullible),
    }
}

/// What the server was asked to do: the method, the tool and its arguments as they arrived.
type Effects = Arc<Mutex<Vec<(String, String, String)>>>;

/// A server of 2026-07-28 that does what it is asked, and writes it down.
async fn server(effects: Effects) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let effects = Arc::clone(&effects);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some(body) = request(&mut stream).await {
                    let Some(answer) = answer(&body, &effects) else { return };
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
                    let whole = format!("{head}{}\r\n\r\n{answer}", answer.len());
                    stream.write_all(whole.as_bytes()).await.unwrap();
                }
            });
        }
    });
    url
}

async fn request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    String::from_utf8(body).ok()
}

/// `None`: the server dies.
fn answer(body: &str, effects: &Effects) -> Option<String> {
    let message = json(body);
    let root = message.root();
    let text =
        |path: &[&str]| root.path(path).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let mut id = root.get("id").map_or("null", |id| id.raw_str());
    let result = match text(&["method"]).as_str() {
        "server/discover" => {
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"resources":{},"prompts":{},"completions":{}},"ttlMs":0,"cacheScope":"private"}"#.to_owned()
        }
        "tools/list" => {
            let tools: Vec<String> = TOOLS.iter().map(|name| definition(name)).collect();
            format!(r#"{{"resultType":"complete","tools":[{}]}}"#, tools.join(","))
        }
        method => {
            let arguments = root.path(&["params", "arguments"]).map_or("", |value| value.raw_str()).to_owned();
            let name = text(&["params", "name"]);
            effects.lock().unwrap().push((method.to_owned(), name.clone(), arguments));
            match name.as_str() {
                "die" => return None,
                // An answer to a request that was never made.
                "other" => id = "999999",
                _ => {}
            }
            r#"{"resultType":"complete","content":[]}"#.to_owned()
        }
    };
    Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

/// The token of an agent is its name.
struct Tokens;

impl Identify for Tokens {
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<Agent>, IdentifyError>> {
        Box::pin(async move {
            if matches!(token, "a" | "b") { Ok(agent(token)) } else { Err(IdentifyError::Invalid) }
        })
    }

    fn peer(&self, _uid: u32) -> Option<Arc<Agent>> {
        None
    }
}

struct Bench {
    broker: Broker<SqliteStore, Upstreams, SystemClock>,
    router: Arc<Router>,
    effects: Effects,
    address: SocketAddr,
    _folder: TestFolder,
}

impl Bench {
    async fn new() -> Self {
        let folder = TestFolder::new("attacks").unwrap();
        let store = SqliteStore::open(folder.path(), RootKey::from_bytes([7; 32]), SystemClock).unwrap();
        let effects = Effects::default();
        let transport = Transport::Http(HttpServer::new(&server(Arc::clone(&effects)).await, &[]).unwrap());
        let config = ServerConfig::new("s".parse().unwrap(), transport);
        let upstreams = Upstreams::new(vec![config], Arc::new(SystemClock), Arc::new(Unobserved)).unwrap();
        let broker = Broker::new(Arc::new(store), upstreams.clone(), SystemClock, rulebook(RULES));
        let (handle, servers) = (Arc::new(broker.clone()), Arc::new(upstreams));
        let router =
            Arc::new(Router::new(handle, servers, Arc::new(SystemClock), Naming::default()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            Front::new(Arc::clone(&router), Arc::new(Tokens), Settings::default()).serve_tcp(listener),
        );
        Self { broker, router, effects, address, _folder: folder }
    }

    async fn open(&self, headers: &str, body: &str) -> TcpStream {
        let mut head = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        for header in ["Accept: application/json, text/event-stream", "Content-Type: application/json"] {
            write!(head, "{header}\r\n").unwrap();
        }
        if !headers.contains("Authorization") {
            head.push_str("Authorization: Bearer a\r\n");
        }
        for header in headers.lines() {
            write!(head, "{header}\r\n").unwrap();
        }
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
        stream
    }

    async fn post(&self, headers: &str, body: &str) -> String {
        let mut answer = String::new();
        // A request that is refused early can end in a reset.
        drop(self.open(headers, body).await.read_to_string(&mut answer).await);
        answer
    }

    /// The headers of a session of 2025-11-25.
    async fn legacy(&self) -> String {
        let got = self.post("", r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{},"sampling":{},"roots":{}},"clientInfo":{"name":"c","version":"1"}}}"#).await;
        let id = got.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).unwrap();
        format!("Mcp-Session-Id: {id}")
    }

    fn effects(&self) -> Vec<(String, String, String)> {
        self.effects.lock().unwrap().clone()
    }

    /// Everything that reached the server was intended before, by a rule that permits it, with these very bytes, once.
    async fn audit(&self) {
        // What was begun comes to its end.
        let store = self.broker.store();
        let mut records = Vec::new();
        for _ in 0..500 {
            records = store.records(Position(0), 10_000).unwrap();
            let count = |kind: &str| {
                let kind = format!(r#""kind":"{kind}""#);
                records.iter().filter(|leaf| String::from_utf8_lossy(leaf).contains(&kind)).count()
            };
            if count("intent") == count("outcome") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let mut intended = Vec::new();
        for (at, leaf) in records.iter().enumerate() {
            let leaf = json(&String::from_utf8_lossy(leaf));
            let text =
                |path: &[&str]| leaf.root().path(path).and_then(|value| value.as_str()).map(str::to_owned);
            if text(&["kind"]).as_deref() != Some("intent") {
                continue;
            }
            let raw = leaf.root().raw_str();
            assert!(raw.contains(r#""verdict":"allow""#) || raw.contains(r#""question":"q-"#), "{raw}");
            let action = find(leaf.root(), "action").unwrap();
            let arguments = store.values(Position(at as u64)).unwrap().into_iter();
            let arguments =
                arguments.filter(|value| value.path == "arguments").map(|value| value.bytes).next().unwrap();
            intended.push((action, String::from_utf8(arguments.to_vec()).unwrap()));
        }
        for (method, name, arguments) in self.effects() {
            assert_eq!(method, "tools/call", "{name} {arguments}");
            let action = format!("s/{name}");
            assert!(
                ["s/die", "s/echo", "s/other", "s/pay"].contains(&action.as_str()),
                "{action} {arguments}"
            );
            let found = intended.iter().position(|(of, with)| *of == action && *with == arguments);
            let at = found.unwrap_or_else(|| panic!("not on the log, or more often: {action} {arguments}"));
            intended.swap_remove(at);
        }
    }
}

/// The first member of this name, wherever it is.
fn find(value: toolgate_core::json::Value<'_>, key: &str) -> Option<String> {
    value.members().find_map(
        |(name, member)| {
            if name == key { member.as_str().map(str::to_owned) } else { find(member, key) }
        },
    )
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{},"sampling":{},"roots":{},"extensions":{"io.modelcontextprotocol/tasks":{}}}}"#;

fn modern(method: &str, name: Option<&str>, params: &str) -> (String, String) {
    let comma = if params.is_empty() { "" } else { "," };
    let body =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}{comma}{META}}}}}"#);
    let name = name.map(|name| format!("\nMcp-Name: {name}")).unwrap_or_default();
    (format!("MCP-Protocol-Version: 2026-07-28\nMcp-Method: {method}{name}"), body)
}

/// Names that are not, or not quite, the name of a permitted tool.
const NAMES: [&str; 14] = [
    "s__wipe",
    "s/echo",
    "S__ECHO",
    "s__Echo",
    "s__echo ",
    " s__echo",
    "s__s__echo",
    "echo",
    "s__еcho",
    "s__ｅcho",
    "s__echo\\u0000",
    "s__echo\\u200b",
    "s__e\\u0301cho",
    "s__",
];

#[tokio::test]
async fn what_no_rule_permits_reaches_no_server() {
    let bench = Bench::new().await;
    let session = bench.legacy().await;
    let mut pairs: Vec<(String, String)> = Vec::new();
    for name in NAMES {
        // The header says what would be permitted; then, what the body says.
        for header in ["s__echo", name] {
            pairs.push(modern("tools/call", Some(header), &format!(r#""name":"{name}","arguments":{{}}"#)));
        }
        let legacy = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{{}}}}}}"#
        );
        pairs.push((session.clone(), legacy));
    }
    // One parser reads one tool, another one another.
    for params in [
        r#""name":"s__echo","name":"s__wipe""#,
        r#""name":"s__echo","n\u0061me":"s__wipe""#,
        r#""name":"s__echo","arguments":{"a":1,"a":2}"#,
        r#""name":["s__echo"]"#,
        r#""name":"s__echo","arguments":[]"#,
        r#""name":"s__echo","arguments":{"n":9007199254740993}"#,
        r#""name":"s__echo","arguments":{"s":"\ud800"}"#,
    ] {
        pairs.push(modern("tools/call", Some("s__echo"), params));
        pairs.push((
            session.clone(),
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{params}}}}}"#),
        ));
    }
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s__echo","arguments":{}}}"#;
    let (headers, good) = modern("tools/call", Some("s__echo"), r#""name":"s__echo""#);
    for (headers, body) in [
        // Several at once, or one that is none.
        (session.as_str(), format!("[{call}]")),
        (session.as_str(), format!("{call}{call}")),
        (session.as_str(), format!("\u{feff}{call}")),
        (session.as_str(), call.replace(r#""id":1,"#, "")),
        (session.as_str(), call.replace(r#""id":1"#, r#""id":null"#)),
        (session.as_str(), call.replace("tools/call", "tools/call ")),
        (session.as_str(), call.replace("tools/call", "TOOLS/CALL")),
        (session.as_str(), call.replace(r#""method""#, r#""result":{},"method""#)),
        // In no session, another's, or in both eras at once.
        ("", call.to_owned()),
        ("Mcp-Session-Id: 0", call.to_owned()),
        ("MCP-Protocol-Version: 2026-07-28", call.to_owned()),
        (&format!("{session}\nAuthorization: Bearer b"), call.to_owned()),
        (&format!("{headers}\nMcp-Name: s__wipe"), good.clone()),
        (&headers.replace("2026-07-28", "2025-11-25"), good.clone()),
        (&headers.replace("Mcp-Method: tools/call", "Mcp-Method: tools/list"), good.clone()),
        // Somebody who may do nothing, or nobody.
        (&format!("{headers}\nAuthorization: Bearer b"), good.clone()),
        (&format!("{headers}\nAuthorization: Bearer c"), good.clone()),
        (&format!("{headers}\nAuthorization: Bearer a\nAuthorization: Bearer b"), good.clone()),
        (&format!("{headers}\nOrigin: https://evil.example"), good.clone()),
        (&format!("{headers}\nHost: evil.example"), good),
    ] {
        pairs.push((headers.to_owned(), body));
    }
    // What is not a tool is default deny, and tasks are those of one's own calls.
    for (method, name, params) in [
        ("resources/read", Some("r:x"), r#""uri":"r:x""#),
        ("prompts/get", Some("s__p"), r#""name":"s__p""#),
        (
            "completion/complete",
            None,
            r#""ref":{"type":"ref/prompt","name":"s__p"},"argument":{"name":"a","value":""}"#,
        ),
        ("subscriptions/listen", None, r#""notifications":{"resourceSubscriptions":["r:x"]},"x":1"#),
        ("tasks/get", Some("1"), r#""taskId":"1""#),
        ("tasks/cancel", Some("1"), r#""taskId":"1""#),
        ("tasks/update", Some("1"), r#""taskId":"1","inputResponses":{"k":{"action":"accept"}}"#),
        ("elicitation/create", None, r#""message":"m""#),
        ("sampling/createMessage", None, r#""messages":[]"#),
        ("roots/list", None, ""),
        ("tools/call", Some("s__echo"), r#""name":"s__echo","requestState":"made up""#),
        ("tools/call", Some("s__echo"), r#""name":"s__echo","requestState":"toolgate.1.bWFkZSB1cA""#),
    ] {
        if method != "subscriptions/listen" {
            pairs.push(modern(method, name, params));
            pairs.push((
                session.clone(),
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#),
            ));
        }
    }
    for (headers, body) in &pairs {
        let answer = bench.post(headers, body).await;
        assert!(!answer.contains(r#""content":[]"#), "{headers}\n{body}\n{answer}");
        assert_eq!(bench.effects(), [], "{headers}\n{body}\n{answer}");
    }
    // The same bodies over pipes, one a line.
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (read, write) = tokio::io::split(theirs);
    let serving = tokio::spawn(stdio::serve(Arc::clone(&bench.router), agent("b"), read, write, 4 << 20));
    let mut ours = BufReader::new(ours);
    for (_, body) in pairs.iter().filter(|(_, body)| !body.contains('\n')) {
        ours.write_all(format!("{body}\n").as_bytes()).await.unwrap();
    }
    ours.shutdown().await.unwrap();
    ours.read_to_string(&mut String::new()).await.unwrap();
    serving.await.unwrap().unwrap();
    assert_eq!(bench.effects(), []);
    bench.audit().await;
    // The bench itself works.
    let (headers, body) =
        modern("tools/call", Some("s__echo"), r#""name":"s__echo","arguments":{"b":1.0,"a":"\u00e9"}"#);
    assert!(bench.post(&headers, &body).await.contains(r#""content":[]"#));
    assert_eq!(bench.effects().len(), 1);
    bench.audit().await;
}

/// A hundred calls while the rules change all the time, agents hang up, and the server dies or answers something else.
#[tokio::test]
async fn a_storm_leaves_nothing_off_the_log() {
    let bench = Arc::new(Bench::new().await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let bench = Arc::clone(&bench);
        let tool = ["echo", "die", "other", "wipe"][number % 4];
        let name = format!("s__{tool}");
        let (headers, body) =
            modern("tools/call", Some(&name), &format!(r#""name":"{name}","arguments":{{"n":{number}}}"#));
        calls.spawn(async move {
            let stream = bench.open(&headers, &body).await;
            if number % 5 != 0 {
                let mut stream = stream;
                drop(stream.read_to_string(&mut String::new()).await);
            }
        });
    }
    let nothing = "@id(\"no\") @because(\"tests\") forbid(principal, action, resource);";
    while !calls.is_empty() {
        for rules in [nothing, RULES] {
            bench.broker.replace_rulebook(rulebook(rules));
            bench.router.rules_changed();
            tokio::task::yield_now().await;
        }
        while calls.try_join_next().is_some() {}
    }
    bench.audit().await;
    let effects = bench.effects();
    let once: BTreeSet<_> = effects.iter().collect();
    assert_eq!(once.len(), effects.len(), "nothing is sent twice, whatever became of it: {effects:?}");
}

/// One yes, and eight identical calls that wait for it.
#[tokio::test]
async fn one_yes_is_one_call_however_many_wait() {
    let bench = Arc::new(Bench::new().await);
    let (headers, body) = modern("tools/call", Some("s__pay"), r#""name":"s__pay","arguments":{"amount":1}"#);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (bench, headers, body) = (Arc::clone(&bench), headers.clone(), body.clone());
        calls.spawn(async move { bench.post(&headers, &body).await });
    }
    let store = bench.broker.store();
    let question = loop {
        if let Some(question) = store.questions(0).unwrap().pop() {
            break question;
        }
        tokio::task::yield_now().await;
    };
    let yes = NewAnswer { question: question.number, answer: said(true), needed: 1, totp_step: None };
    store.answer(yes, line("answered")).await.unwrap();
    let mut ran = 0;
    while let Some(answer) = calls.join_next().await {
        ran += usize::from(answer.unwrap().contains(r#""content":[]"#));
    }
    assert_eq!((ran, bench.effects().len()), (1, 1));
}
