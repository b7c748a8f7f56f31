//! The upstream leg against scripted servers, over pipes and over loopback.

mod http;
mod pipes;
mod tls;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use toolgate_broker::authorized::{self, Authorized, Gate, Grounds};
use toolgate_broker::outcome::{Answer, Outcome, Receipt, Reply};
use toolgate_broker::port::{
    AgentLine, Agentward, BoxFuture, Client, Executed, Executor as _, Handle, Line, Position, Stop,
};
use toolgate_broker::rulebook::{AcceptedTool, Rulebook};
use toolgate_broker::scrub::ScrubRules;
use toolgate_core::call::{Action, Agent, Call, CallId, Carries, Proof};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::ServerName;
use toolgate_core::policy::{Policy, World};
use toolgate_core::refusal::Refusal;
use toolgate_core::schema::Schema;
use toolgate_core::scrub::{Raw, Scrubbed, Scrubber};
use toolgate_core::tool::{Tool, pin, undeclared_effects};
use toolgate_core::verdict::{Allowed, Obligations};
use toolgate_testkit::minutes::{FakeClock, FakeStore, Gullible, Minutes};

use super::*;

pub(super) const MODERN: &str = "2026-07-28";
pub(super) const LEGACY: &str = "2025-11-25";

/// The one tool of the scripted servers.
pub(super) const TOOL: &str = r#"{"name":"t","title":"x-unknown \u00e9","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},"n":{"type":"number"}}},"x-future":[1.50]}"#;

pub(super) fn json(text: &str) -> Document {
    Document::parse(text.as_bytes(), &Limits::default()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub(super) fn server() -> ServerName {
    "srv".parse().unwrap()
}

pub(super) fn bounds() -> Bounds {
    Bounds {
        max_message_bytes: 64 << 10,
        probe: Duration::from_secs(20),
        grace: Duration::from_millis(20),
        ..Bounds::default()
    }
}

/// An agent that writes down what it is told and answers from a list.
pub(super) struct FakeAgent {
    pub(super) client: Client,
    pub(super) heard: Mutex<Vec<String>>,
    pub(super) answers: Mutex<VecDeque<Answer>>,
}

impl FakeAgent {
    pub(super) fn new(version: &str, answers: &[&str]) -> Arc<Self> {
        let capabilities = json(r#"{"elicitation":{},"sampling":{},"tasks":{}}"#);
        Arc::new(Self {
            client: Client { version: version.to_owned(), capabilities: Some(capabilities), info: None },
            heard: Mutex::default(),
            answers: Mutex::new(answers.iter().map(|a| Answer::Result(json(a))).collect()),
        })
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

impl Agentward for FakeAgent {
    fn notify(&self, method: &str, params: Bytes) {
        self.heard.lock().unwrap().push(format!("{method} {}", String::from_utf8_lossy(&params)));
    }

    fn ask(&self, method: &str, params: Bytes) -> BoxFuture<'_, Answer> {
        self.heard.lock().unwrap().push(format!("ask {method} {}", String::from_utf8_lossy(&params)));
        let answer = self.answers.lock().unwrap().pop_front();
        Box::pin(async move { answer.unwrap_or_else(|| link::error_answer(-1, "no")) })
    }

    fn waiting(&self, _question: &str, _waited_s: u64) {}

    fn gone(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn client(&self) -> &Client {
        &self.client
    }
}

/// A broker that permits everything that servers ask, or nothing.
pub(super) struct FakeBroker {
    pub(super) upstreams: Upstreams,
    pub(super) permits: bool,
    pub(super) judged: Mutex<Vec<String>>,
}

impl Handle for FakeBroker {
    fn handle(&self, call: Call, line: AgentLine) -> BoxFuture<'_, Result<Reply, Refusal>> {
        self.judged.lock().unwrap().push(format!("{} {}", call.action, call.arguments.as_str()));
        Box::pin(async move {
            if !self.permits {
                return Err(Refusal::NotPermitted { because: None });
            }
            let id = call.id;
            let nobody = Arc::new(Self {
                upstreams: self.upstreams.clone(),
                permits: false,
                judged: Mutex::default(),
            });
            let (_tell, stop) = Stop::new();
            let executed = self.upstreams.execute(authorized(call, None).await, line, stop, nobody).await;
            let Executed::Answered(raw) = executed else { return Err(Refusal::Unavailable) };
            let receipt = Receipt { call: id, intent: Position(0), outcome: Position(1) };
            Ok(Reply {
                delivery: toolgate_broker::outcome::Delivery::of(id),
                outcome: Outcome::Ran(as_it_is(raw)),
                receipt,
            })
        })
    }

    fn refuse(&self, _unread: toolgate_broker::port::Unread) -> BoxFuture<'static, Result<(), Refusal>> {
        panic!("not of use here")
    }

    fn delivered(&self, _call: CallId) {}

    fn rulebook(&self) -> Arc<Rulebook> {
        // It permits nothing, so nobody may follow up on tasks.
        let names = World {
            agents: Vec::new(),
            servers: vec![server()],
            tools: Vec::new(),
            questions: BTreeSet::new(),
        };
        Arc::new(Rulebook {
            policy: Arc::new(Policy::load(&[], &names).unwrap()),
            servers: BTreeSet::from([server()]),
            limits: HashMap::new(),
            lent: HashMap::new(),
            scrub: ScrubRules::default(),
            tools: HashMap::new(),
            questions: BTreeMap::new(),
            people: Arc::new(Gullible),
        })
    }
}

/// What came back, uncleaned: what cleans it is not of this module.
fn as_it_is(raw: Raw<Answer>) -> Scrubbed<Answer> {
    let idle = Scrubber::new(Vec::new(), Arc::new(|_, _: &[u8]| String::new()));
    raw.scrub(&idle, |answer, _| Ok::<_, std::convert::Infallible>(answer)).unwrap()
}

/// What came of a call, to be compared.
pub(super) fn shown(executed: Executed) -> String {
    let text = |raw: Raw<Answer>| match as_it_is(raw).into_inner() {
        Answer::Error(error) => format!("error {}", error.root().raw_str()),
        Answer::Result(result) => format!("result {}", result.root().raw_str()),
    };
    match executed {
        Executed::Answered(raw) => text(raw),
        Executed::Cancelled => "cancelled".to_owned(),
        Executed::Lost(why) => format!("lost: {why}"),
        Executed::NotAwaited => "not awaited".to_owned(),
        Executed::NotSent(why) => format!("not sent: {why}"),
        Executed::TimedOut => "timed out".to_owned(),
    }
}

pub(super) async fn authorized(call: Call, tool: Option<Arc<AcceptedTool>>) -> Authorized<Call> {
    let store = FakeStore::new(Minutes::default(), None, None);
    let line = Line { leaf: Vec::new(), disclosed: Vec::new(), subject: "gate".to_owned() };
    let grounds = Grounds::Allowed(Allowed { rules: Vec::new(), obligations: Obligations::default() });
    match authorized::open(&store, call, tool, grounds, false, line).await.unwrap() {
        Gate::Authorized(authorized, _entry) => authorized,
        other => panic!("{other:?}"),
    }
}

pub(super) fn accepted() -> Arc<AcceptedTool> {
    let definition = json(TOOL);
    let pin = pin(&definition.root().canonical().unwrap());
    let input = Schema::compile(&definition.root().get("inputSchema").unwrap()).unwrap();
    let tool = Tool { name: "srv/t".parse().unwrap(), effects: undeclared_effects(), definition, pin };
    Arc::new(AcceptedTool { tool: Arc::new(tool), input, output: None })
}

/// A call of the tool. `params` are as the agent sent them.
pub(super) fn call(session: &str, params: &str) -> Call {
    let params = json(params);
    let arguments = params.root().get("arguments").unwrap().canonical().unwrap();
    other_call(session, Action::Tool("srv/t".parse().unwrap()), arguments, params)
}

pub(super) fn other_call(
    session: &str,
    action: Action,
    arguments: toolgate_core::json::Canonical,
    params: Document,
) -> Call {
    let agent = Agent { id: "a".parse().unwrap(), groups: Vec::new(), proof: Proof::Bearer };
    let is_tool = matches!(action, Action::Tool(_));
    Call {
        id: CallId::new(1, [7; 10]),
        agent: Arc::new(agent),
        session: session.to_owned(),
        action,
        server: server(),
        pin: is_tool.then(|| accepted().tool.pin),
        arguments,
        params,
        carries: Carries::default(),
    }
}

/// Runs a call to its end.
pub(super) async fn run(upstreams: &Upstreams, call: Call, agent: &Arc<FakeAgent>, permits: bool) -> String {
    let (_tell, stop) = Stop::new();
    run_until(upstreams, call, agent, permits, stop).await
}

pub(super) async fn run_until(
    upstreams: &Upstreams,
    call: Call,
    agent: &Arc<FakeAgent>,
    permits: bool,
    stop: Stop,
) -> String {
    let nested = Arc::new(FakeBroker { upstreams: upstreams.clone(), permits, judged: Mutex::default() });
    let tool = matches!(call.action, Action::Tool(_)).then(accepted);
    let line: AgentLine = Arc::clone(agent) as AgentLine;
    shown(upstreams.execute(authorized(call, tool).await, line, stop, nested).await)
}

pub(super) fn upstreams(transport: Transport) -> Upstreams {
    let config = ServerConfig { bounds: bounds(), ..ServerConfig::new(server(), transport) };
    Upstreams::new(vec![config], Arc::new(FakeClock::default()), Arc::new(Unobserved)).unwrap()
}

pub(super) const DISCOVERED: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}"#;
pub(super) const INITIALIZED: &str = r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"fake","version":"1"}}"#;
