//! A small world: two servers, four agents, a policy, and a broker that does what its tools are called.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use toolgate_broker::outcome::{Answer, Outcome, Receipt, Reply};
use toolgate_broker::port::{
    AgentLine, Answered, BoxFuture, Client, Handle, Position, Question, SystemClock, Unread, VerifyAnswer,
};
use toolgate_broker::rulebook::{AcceptedTool, Rulebook};
use toolgate_broker::scrub::ScrubRules;
use toolgate_core::call::{Action, Agent, Call, CallId, Proof};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::{ServerName, ToolName};
use toolgate_core::policy::{KnownAgent, Policy, PolicySource, World as Names};
use toolgate_core::refusal::Refusal;
use toolgate_core::schema::Schema;
use toolgate_core::scrub::{Raw, Scrubber};
use toolgate_core::tool::{Tool, pin, undeclared_effects};
use toolgate_gateway::catalog::Naming;
use toolgate_gateway::front::http::{Front, Settings};
use toolgate_gateway::port::{Change, Identify, IdentifyError, Offer, OfferError, Servers};
use toolgate_gateway::router::Router;

pub(crate) const POLICY: &str = r#"
@id("all") @because("tests") permit(principal == Agent::"all", action, resource);
@id("echo") @because("tests") permit(principal == Agent::"some", action == Action::"s/echo", resource);
@id("reads") @because("tests") permit(principal == Agent::"reader", action in [Action::"resources/read", Action::"resources/subscribe"], resource);
"#;

const DEFINITIONS: [(&str, &str); 7] = [
    ("s/echo", r#"{"name":"echo", "x-unknown":1.50,"description":"é","inputSchema":{"type":"object"}}"#),
    ("s/ask", r#"{"name":"ask","inputSchema":{"type":"object"}}"#),
    ("s/fail", r#"{"name":"fail","inputSchema":{"type":"object"}}"#),
    ("s/progress", r#"{"name":"progress","inputSchema":{"type":"object"}}"#),
    ("s/wait", r#"{"name":"wait","inputSchema":{"type":"object"}}"#),
    (
        "t/mirror",
        r#"{"name":"mirror","inputSchema":{"type":"object","properties":{"r":{"type":"string","x-mcp-header":"Region"},"n":{"type":"integer","x-mcp-header":"N"}}}}"#,
    ),
    ("t/wrong", r#"{"name":"wrong","inputSchema":{"type":"object","x-mcp-header":"R"}}"#),
];

pub(crate) fn document(text: impl AsRef<[u8]>) -> Document {
    Document::parse(text.as_ref(), &Limits::default()).unwrap()
}

pub(crate) fn agent(name: &str) -> Arc<Agent> {
    Arc::new(Agent { id: name.parse().unwrap(), groups: Vec::new(), proof: Proof::Bearer })
}

#[derive(Debug)]
struct Nobody;

impl VerifyAnswer for Nobody {
    fn verify(&self, _question: &Question, _answer: &Answered) -> bool {
        false
    }
}

pub(crate) fn rulebook(definitions: &[(&str, &str)]) -> Rulebook {
    let tools: Vec<Arc<Tool>> = definitions
        .iter()
        .map(|(name, definition)| {
            let definition = document(definition);
            let pin = pin(&definition.root().canonical().unwrap());
            let name: ToolName = name.parse().unwrap();
            Arc::new(Tool { name, effects: undeclared_effects(), definition, pin })
        })
        .collect();
    let servers: BTreeSet<ServerName> = ["s", "t"].map(|name| name.parse().unwrap()).into();
    let known = |name: &str| KnownAgent { id: name.parse().unwrap(), groups: Vec::new() };
    let names = Names {
        agents: ["all", "none", "reader", "some"].map(known).to_vec(),
        servers: servers.iter().cloned().collect(),
        tools: tools.clone(),
        questions: BTreeSet::new(),
    };
    let source = PolicySource { path: "test.cedar".to_owned(), text: POLICY.to_owned(), examples: None };
    let policy = Arc::new(Policy::load(&[source], &names).unwrap());
    let accepted = |tool: Arc<Tool>| {
        let input = Schema::compile(&tool.definition.root().get("inputSchema").unwrap()).unwrap();
        (tool.name.clone(), Arc::new(AcceptedTool { tool, input, output: None }))
    };
    let tools: HashMap<_, _> = tools.into_iter().map(accepted).collect();
    Rulebook {
        policy,
        servers,
        limits: HashMap::new(),
        lent: HashMap::new(),
        scrub: ScrubRules::default(),
        tools,
        questions: BTreeMap::new(),
        people: Arc::new(Nobody),
    }
}

/// Keeps the minutes, and does what tools are called.
#[derive(Clone)]
pub(crate) struct Minutes {
    pub(crate) lines: Arc<Mutex<Vec<String>>>,
    pub(crate) rulebook: Arc<Mutex<Arc<Rulebook>>>,
    pub(crate) wrote: Arc<tokio::sync::Notify>,
}

impl Minutes {
    fn write(&self, line: String) {
        self.lines.lock().unwrap().push(line);
        self.wrote.notify_one();
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    /// Waits until a line begins like this.
    pub(crate) async fn until(&self, begin: &str) {
        while !self.lines.lock().unwrap().iter().any(|line| line.starts_with(begin)) {
            self.wrote.notified().await;
        }
    }
}

fn ran(answer: Answer) -> Outcome {
    let idle = Scrubber::new(Vec::new(), Arc::new(|_, _: &[u8]| String::new()));
    let cleaned = Raw::new(answer).scrub(&idle, |answer, _| Ok::<_, std::convert::Infallible>(answer));
    Outcome::Ran(cleaned.unwrap())
}

impl Handle for Minutes {
    fn handle(&self, call: Call, line: AgentLine) -> BoxFuture<'_, Result<Reply, Refusal>> {
        Box::pin(async move {
            let arguments = String::from_utf8(call.arguments.as_bytes().to_vec()).unwrap();
            let params = call.params.root().raw_str().to_owned();
            self.write(format!("handle {} {} {arguments} {params}", call.agent.id, call.action));
            let outcome = match &call.action {
                Action::Tool(name) => match name.tool() {
                    "echo" if arguments == r#"{"lacking":true}"# => {
                        // The line is let go of before the answer is there.
                        drop(line);
                        tokio::task::yield_now().await;
                        ran(Answer::Error(document(r#"{"code":-32021,"message":"Missing"}"#)))
                    }
                    "echo" | "mirror" => ran(Answer::Result(document(format!(
                        r#"{{ "content":[], "unknown":1.50,"you said": {arguments}, "resultType":"complete"}}"#
                    )))),
                    "fail" => {
                        return Err(Refusal::NotPermitted {
                            because: Some(("r".to_owned(), "no".to_owned())),
                        });
                    }
                    "ask" => ran(line.ask("elicitation/create", Bytes::from_static(b"{}")).await),
                    "progress" => {
                        line.notify(
                            "notifications/progress",
                            Bytes::from_static(br#"{"progressToken":0,"progress":1}"#),
                        );
                        ran(Answer::Result(document("{\n\"content\":[]}")))
                    }
                    "wait" => {
                        // On a task of its own, like the pipeline: whoever hangs up drops only the waiting for it.
                        let minutes = self.clone();
                        let task = tokio::spawn(async move {
                            line.gone().await;
                            minutes.write("gone".to_owned());
                        });
                        task.await.unwrap();
                        Outcome::Cancelled
                    }
                    other => panic!("no such tool: {other}"),
                },
                _ => ran(Answer::Result(document(format!(
                    r#"{{"resultType":"complete","from":"{}"}}"#,
                    call.server
                )))),
            };
            Ok(Reply {
                delivery: toolgate_broker::outcome::Delivery::of(call.id),
                outcome,
                receipt: Receipt { call: call.id, intent: Position(1), outcome: Position(2) },
            })
        })
    }

    fn refuse(&self, unread: Unread) -> BoxFuture<'_, Result<(), Refusal>> {
        self.write(format!("refuse {} {} {}", unread.agent.id, unread.code, unread.action));
        Box::pin(async { Ok(()) })
    }

    fn delivered(&self, _call: CallId) {
        self.write("delivered".to_owned());
    }

    fn rulebook(&self) -> Arc<Rulebook> {
        Arc::clone(&self.rulebook.lock().unwrap())
    }
}

/// Server `s` offers a resource and a prompt, server `t` the same resource and another one.
pub(crate) struct Offers {
    pub(crate) changes: broadcast::Sender<Change>,
    pub(crate) minutes: Arc<Minutes>,
    templates: Arc<Mutex<Vec<Document>>>,
}

impl Servers for Offers {
    fn offered<'a>(
        &'a self,
        server: &'a ServerName,
        _session: &'a str,
        _client: &'a Client,
        offer: Offer,
    ) -> BoxFuture<'a, Result<Vec<Document>, OfferError>> {
        if (server.as_str(), offer) == ("s", Offer::ResourceTemplates) {
            let templates = self.templates.lock().unwrap().clone();
            return Box::pin(async move { Ok(templates) });
        }
        let items: &[&str] = match (server.as_str(), offer) {
            ("s", Offer::Resources) => &[r#"{"uri":"r:both","x":1.0}"#, r#"{"uri":"r:s"}"#],
            ("t", Offer::Resources) => &[r#"{"uri":"r:both"}"#, r#"{"uri":"r:t"}"#],
            ("t", Offer::ResourceTemplates) => &[r#"{"uriTemplate":"u:{id}"}"#],
            ("s", Offer::Prompts) => &[r#"{"name":"p","y": null}"#],
            _ => &[],
        };
        Box::pin(async move { Ok(items.iter().map(document).collect()) })
    }

    fn changes(&self, _session: &str) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn unsubscribe(&self, server: &ServerName, _session: &str, uri: &str) {
        self.minutes.write(format!("unsubscribe {server} {uri}"));
    }

    fn log_level(&self, _session: &str, level: &str) {
        self.minutes.write(format!("level {level}"));
    }

    fn end_session(&self, _session: &str) {
        self.minutes.write("end".to_owned());
    }
}

/// What detectors take for a secret. Assembled here, so that no file holds what a scanner would find.
pub(crate) fn secret() -> String {
    format!("ghp_{}", "Zq3vN8xK2mW7tR5yB9cD4fG6hJ1kL0pS3aQe")
}

/// The token of an agent is its name.
pub(crate) struct Tokens;

impl Identify for Tokens {
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<Agent>, IdentifyError>> {
        Box::pin(async move {
            match token {
                "all" | "none" | "reader" | "some" => Ok(agent(token)),
                "narrow" => Err(IdentifyError::InsufficientScope { scope: "tools".to_owned() }),
                "later" => Err(IdentifyError::Unavailable),
                _ => Err(IdentifyError::Invalid),
            }
        })
    }

    fn peer(&self, _uid: u32) -> Option<Arc<Agent>> {
        Some(agent("some"))
    }
}

pub(crate) struct World {
    pub(crate) minutes: Arc<Minutes>,
    pub(crate) router: Arc<Router>,
    /// What server `s` has besides, of templates of resources.
    pub(crate) templates: Arc<Mutex<Vec<Document>>>,
    pub(crate) changes: broadcast::Sender<Change>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(rulebook(&DEFINITIONS))
    }

    pub(crate) fn with(rulebook: Rulebook) -> Self {
        let rulebook = Arc::new(Mutex::new(Arc::new(rulebook)));
        let minutes = Arc::new(Minutes { lines: Arc::default(), rulebook, wrote: Arc::default() });
        let (changes, _) = broadcast::channel(16);
        let templates = Arc::default();
        let offers = Offers {
            changes: changes.clone(),
            minutes: Arc::clone(&minutes),
            templates: Arc::clone(&templates),
        };
        let offers = Arc::new(offers);
        let broker: Arc<dyn Handle> = Arc::clone(&minutes) as Arc<dyn Handle>;
        let router = Router::new(broker, offers, Arc::new(SystemClock), Naming::default()).unwrap();
        Self { minutes, router: Arc::new(router), changes, templates }
    }

    /// Serves HTTP and gives a client of it.
    pub(crate) async fn http(&self, settings: Settings) -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let front = Front::new(Arc::clone(&self.router), Arc::new(Tokens), settings);
        tokio::spawn(front.serve_tcp(listener));
        Http { address }
    }
}

pub(crate) struct Http {
    pub(crate) address: std::net::SocketAddr,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// Of a stream that is one event, its data.
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Http {
    /// Opens a connection and sends bytes.
    pub(crate) async fn open(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The other side may refuse before it has read everything.
        let _refused = stream.write_all(bytes).await;
        stream
    }

    /// Sends a request as it is and reads the response to its end.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Got {
        let mut stream = self.open(bytes).await;
        let mut response = Vec::new();
        let _reset = stream.read_to_end(&mut response).await;
        let text = String::from_utf8(response).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
        let body =
            if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
        let only = body.strip_prefix("event: message\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
        let only = only.filter(|only| !only.contains('\n')).map(str::to_owned);
        Got { status, head: head.to_owned(), body: only.unwrap_or(body) }
    }

    /// Sends a request with these headers, one a line, in place of the usual ones of the same name.
    pub(crate) async fn send(&self, method: &str, headers: &str, body: &str) -> Got {
        self.raw(&request(method, headers, body)).await
    }
}

/// A request with the usual headers, but for those given. `name:` alone leaves one out.
pub(crate) fn request(method: &str, headers: &str, body: &str) -> Vec<u8> {
    let usual = [
        ("Host", "localhost"),
        ("Connection", "close"),
        ("Authorization", "Bearer all"),
        ("Accept", "application/json, text/event-stream"),
        ("Content-Type", "application/json"),
    ];
    let given =
        |name: &str| headers.lines().any(|line| line.split(':').next().unwrap().eq_ignore_ascii_case(name));
    let mut head = format!("{method} /mcp HTTP/1.1\r\n");
    for (name, value) in usual.iter().filter(|(name, _)| !given(name)) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    for line in headers.lines().filter(|line| !line.ends_with(':')) {
        head.push_str(&format!("{line}\r\n"));
    }
    if !body.is_empty() && !given("Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    format!("{head}\r\n{body}").into_bytes()
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(rest.get(..size).unwrap_or(rest));
        body = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

/// A request of the modern era: its headers and its body.
pub(crate) fn modern(method: &str, name: Option<&str>, params: &str) -> (String, String) {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let comma = if params.is_empty() { "" } else { "," };
    let body =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}{comma}{meta}}}}}"#);
    let name = name.map(|name| format!("\nMcp-Name: {name}")).unwrap_or_default();
    (format!("MCP-Protocol-Version: 2026-07-28\nMcp-Method: {method}{name}"), body)
}
