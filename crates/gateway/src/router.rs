//! What becomes of a request: the methods of both eras, dispatched to the broker, the catalog and the servers.
//!
//! # How things of several servers get along behind one endpoint
//! - Tools and prompts are named `server__name` (see [`Naming`]).
//! - Resources keep their URI, which servers and results refer to. A URI leads to the one visible server that lists it;
//!   if none lists it, to the one that has a template which fits it; if none has, to the only visible server there is.
//!   If two servers claim it, it is refused: an agent must not read from another server than it thinks.
//! - What an agent may not use is neither listed nor counted here, and answers as what does not exist.
//!
//! # Refusals
//! A refused tool call is a *result* with `isError` and the whole explanation in its text, for clients show a model
//! nothing else. Other refused requests have no such result and get the error [`REFUSED`].

mod fault;
mod feed;
mod meta;
mod resources;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use toolgate_broker::outcome::{Answer, Delivery, Outcome, Reply};
use toolgate_broker::port::{AgentLine, Client, Clock, Handle, Unread};
use toolgate_broker::randomness;
use toolgate_broker::rulebook::Rulebook;
use toolgate_core::call::{Action, Agent, Call, CallId, Carries};
use toolgate_core::json::{Canonical, Document, Edit, Limits, ObjectWriter, quote};
use toolgate_core::name::ServerName;
use toolgate_core::refusal::Refusal;

use crate::catalog::{Catalog, Cursors, List, Naming, Seen};
use crate::debt::Debts;
use crate::line::{Back, Gone, Level, Line};
use crate::port::{Offer, Servers};
use crate::rpc::{self, Request};
use crate::session::{Agreed, BeginError, Entered, Session, Sessions};
use crate::tasks::Tasks;
use crate::version::Version;

use self::fault::status;
pub use self::fault::{Fault, REFUSED, Status};
pub use self::meta::{Meta, claimed_version, meta};
use self::resources::RESOURCE_NOT_FOUND;

/// How much of a name nobody knows is written down.
const MAX_UNKNOWN_NAME: usize = 256;

/// The extension for calls that become tasks.
const TASKS: &str = "io.modelcontextprotocol/tasks";
const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// What models are told about the gate.
const INSTRUCTIONS: &str = "These tools are behind Toolgate: each call is checked against a policy and written to a log. \
A call can be refused, or wait until a person has answered; the text of the result then says why and what to do. \
Do not try to get around a refusal.";

/// Who sends a request, and how.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub agent: Arc<Agent>,
    /// In which run.
    pub session: Arc<Session>,
    /// In which revision.
    pub version: Version,
    /// What the client said about itself.
    pub client: Client,
    /// Which log messages it wants.
    pub log: Option<Level>,
}

impl Caller {
    /// The line for one request.
    #[must_use]
    pub fn line(&self, params: Option<&Document>, out: mpsc::Sender<Bytes>, gone: Arc<Gone>) -> Line {
        let back = if self.version.is_modern() {
            Back::Retries
        } else {
            Back::Requests(Arc::clone(&self.session.asks))
        };
        Line::new(self.client.clone(), params, self.log, back, out, gone)
    }
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answered {
    /// The response: one JSON-RPC message.
    pub message: Vec<u8>,
    /// The call that ran, to be marked as delivered once the response is on its way.
    pub call: Option<Delivery>,
    /// What HTTP says about it, in the modern era.
    pub status: Status,
}

/// What servers offer, in order.
type Items = Arc<Vec<Item>>;

/// Something that a server offers besides tools.
struct Item {
    server: ServerName,
    /// As the server lists it.
    listed: Document,
    /// As agents are shown it, cleaned. What cannot be looked through is not shown.
    shown: Option<Document>,
}

/// The agents' side behind its fronts.
pub struct Router {
    broker: Arc<dyn Handle>,
    servers: Arc<dyn Servers>,
    clock: Arc<dyn Clock>,
    catalog: Catalog,
    cursors: Cursors,
    sessions: Sessions,
    /// Counts the changes of the rulebook.
    rules: watch::Sender<u64>,
    /// What servers offered in a session, and when that was. Guards nothing else.
    shelves: Mutex<HashMap<(String, Offer), (u64, Items)>>,
    tasks: Tasks,
    debts: Debts,
    stop: Gone,
}

/// What a method came to: the `result`, or what a server answered.
enum Done {
    Answer(Answer, Delivery),
    Result(Vec<u8>, Option<Delivery>),
}

impl Router {
    /// Puts the parts together.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(
        broker: Arc<dyn Handle>,
        servers: Arc<dyn Servers>,
        clock: Arc<dyn Clock>,
        naming: Naming,
    ) -> Result<Self, BeginError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_no_entropy| BeginError::NoRandomness)?;
        let (rules, _) = watch::channel(0);
        Ok(Self {
            broker,
            servers,
            clock,
            catalog: Catalog::new(naming),
            cursors: Cursors::new(key),
            sessions: Sessions::default(),
            rules,
            shelves: Mutex::default(),
            tasks: Tasks::default(),
            debts: Debts::default(),
            stop: Gone::default(),
        })
    }

    /// With another bound on the sessions over HTTP. To be set before the first of them.
    #[must_use]
    pub fn with_max_sessions(mut self, max: usize) -> Self {
        self.sessions = Sessions::new(max);
        self
    }

    /// The sessions.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The broker.
    #[must_use]
    pub const fn broker(&self) -> &Arc<dyn Handle> {
        &self.broker
    }

    /// The time, in milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Is to be called after the rulebook was replaced: agents whose tools are others now are told.
    pub fn rules_changed(&self) {
        self.rules.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Ends all sessions and streams. Calls that run go on to their end.
    pub fn shut_down(&self) {
        self.stop.tell();
        self.sessions.end_all();
    }

    /// Resolves when the gate shuts down.
    pub async fn stopped(&self) {
        self.stop.wait().await;
    }

    /// Ends idle sessions, and the servers' connections of sessions that ended; until the gate shuts down.
    pub async fn housekeep(&self) {
        let mut over = self.sessions.over();
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(60));
        loop {
            tokio::select! {
                () = self.stop.wait() => return,
                _ = tick.tick() => self.sessions.sweep(self.now_ms()),
                name = over.recv() => {
                    if let Ok(name) = name {
                        self.end_session(&name);
                    }
                }
            }
        }
    }

    /// Lets go of what belongs to a session that is over, here and at the servers.
    pub fn end_session(&self, name: &str) {
        self.shelves().retain(|(session, _), _| session != name);
        self.servers.end_session(name);
        self.broker.rulebook().scrub.end_session(name);
    }

    /// The tools that an agent may see now.
    pub fn seen(&self, agent: &Arc<Agent>) -> Arc<Seen> {
        self.catalog.seen(&self.broker.rulebook(), agent)
    }

    /// Answers a request. Dropping the future stops nothing that was begun; the line's `gone` does.
    pub async fn answer(self: &Arc<Self>, caller: &Caller, request: &Request, line: Arc<Line>) -> Answered {
        let id = &request.id;
        let gone = Arc::clone(line.gone_flag());
        let mut done = Box::pin(self.dispatch(caller, request, line));
        let done = tokio::select! {
            biased;
            done = &mut done => done,
            // The agent was put out: what runs is told, and comes to its end. When the gate stops, it is not told.
            () = caller.session.ended.wait() => {
                if !self.stop.is_told() {
                    gone.tell();
                }
                done.await
            }
        };
        match done {
            Ok(Done::Answer(answer, call)) => {
                let answer = if caller.version.is_modern() { modern(answer) } else { answer };
                let code = match &answer {
                    Answer::Error(object) => {
                        object.root().get("code").and_then(|code| code.as_i64()).unwrap_or_default()
                    }
                    Answer::Result(_) => 0,
                };
                Answered { message: rpc::answer(id, &answer), call: Some(call), status: status(code) }
            }
            Ok(Done::Result(result, call)) => {
                Answered { message: rpc::result(id, &result), call, status: Status::Ok }
            }
            Err(fault) => fault.to_answer(id),
        }
    }

    async fn dispatch(
        self: &Arc<Self>,
        caller: &Caller,
        request: &Request,
        line: Arc<Line>,
    ) -> Result<Done, Fault> {
        let Request { id, method, params } = request;
        let params = params.as_ref();
        match (method.as_str(), caller.version.is_modern()) {
            ("tools/call", _) => self.call_tool(caller, params, line).await,
            ("tools/list", _) => {
                let seen = self.seen(&caller.agent);
                self.page(caller, "tools", seen.list(), params)
            }
            ("resources/list", _) => self.list(caller, Offer::Resources, params).await,
            ("resources/templates/list", _) => self.list(caller, Offer::ResourceTemplates, params).await,
            ("prompts/list", _) => self.list(caller, Offer::Prompts, params).await,
            ("resources/read", _) => self.read_resource(caller, params, line).await,
            ("prompts/get", _) => self.get_prompt(caller, params, line).await,
            ("completion/complete", _) => self.complete(caller, params, line).await,
            ("resources/subscribe", false) => self.subscribe(caller, params, line).await,
            ("resources/unsubscribe", false) => self.unsubscribe(caller, params),
            ("logging/setLevel", false) => self.set_level(caller, params),
            ("ping", false) => Ok(Done::Result(b"{}".to_vec(), None)),
            ("tasks/cancel", true) => self.task(caller, Action::TaskCancel, params, line).await,
            ("tasks/get", true) => self.task(caller, Action::TaskGet, params, line).await,
            ("tasks/update", true) => self.task(caller, Action::TaskUpdate, params, line).await,
            ("server/discover", true) => Ok(Done::Result(self.discovered(caller), None)),
            ("subscriptions/listen", true) => self.listen(caller, id, params, &line).await,
            _ => Err(Fault::method(method)),
        }
    }

    /// Answers `initialize`: what is spoken from now on.
    ///
    /// # Errors
    /// The parameters do not fit.
    pub fn initialize(&self, agent: &Agent, params: Option<&Document>) -> Result<(Agreed, Vec<u8>), Fault> {
        let root = params.map(Document::root);
        let member = |key| root.and_then(|root| root.get(key));
        let Some(wanted) = member("protocolVersion").and_then(|version| version.as_str()) else {
            return Err(Fault::params("`params.protocolVersion` has to be a string"));
        };
        let capabilities = member("capabilities").filter(|value| value.is_object());
        let info = member("clientInfo").filter(|value| value.is_object());
        let (Some(capabilities), Some(info)) = (capabilities, info) else {
            return Err(Fault::params("`params.capabilities` and `params.clientInfo` have to be objects"));
        };
        let version = Version::parse(wanted).filter(|v| !v.is_modern()).unwrap_or(Version::NEWEST_LEGACY);
        let client = Client {
            version: version.as_str().to_owned(),
            capabilities: Some(capabilities.to_document()),
            info: Some(info.to_document()),
        };
        let result = ObjectWriter::new()
            .string("protocolVersion", version.as_str())
            .raw("capabilities", &self.capabilities(agent, false))
            .raw("serverInfo", &server_info())
            .string("instructions", INSTRUCTIONS)
            .finish();
        Ok((Agreed { version, client }, result))
    }

    fn discovered(&self, caller: &Caller) -> Vec<u8> {
        let versions = format!("[{}]", quote(Version::V2026_07_28.as_str()));
        ObjectWriter::new()
            .string("resultType", "complete")
            .raw("supportedVersions", versions.as_bytes())
            .raw("capabilities", &self.capabilities(&caller.agent, true))
            .string("instructions", INSTRUCTIONS)
            .number("ttlMs", 0)
            .string("cacheScope", "private")
            .raw("_meta", &ObjectWriter::new().raw(META_SERVER, &server_info()).finish())
            .finish()
    }

    /// What the agent can do here; nothing that the policy hides from it.
    fn capabilities(&self, agent: &Agent, modern: bool) -> Vec<u8> {
        let rulebook = self.broker.rulebook();
        let any = |action| !visible(&rulebook, agent, &action).is_empty();
        let mut writer = ObjectWriter::new().raw("logging", b"{}").raw("tools", br#"{"listChanged":true}"#);
        if any(Action::ReadResource) {
            let subscribe = any(Action::Subscribe);
            let resources =
                ObjectWriter::new().bool("listChanged", true).bool("subscribe", subscribe).finish();
            writer = writer.raw("resources", &resources);
        }
        if any(Action::GetPrompt) {
            writer = writer.raw("prompts", br#"{"listChanged":true}"#);
        }
        if any(Action::Complete) {
            writer = writer.raw("completions", b"{}");
        }
        if modern && any(Action::TaskGet) {
            writer = writer.raw("extensions", br#"{"io.modelcontextprotocol/tasks":{}}"#);
        }
        writer.finish()
    }

    async fn call_tool(
        &self,
        caller: &Caller,
        params: Option<&Document>,
        line: AgentLine,
    ) -> Result<Done, Fault> {
        let (params, name) = text(params, "name")?;
        let unknown = || Fault::params(format!("Unknown tool: {}", shortened(name)));
        let seen = self.seen(&caller.agent);
        let Some(tool) = seen.tool(name) else {
            return match self.unread(caller, name, "hidden_or_unknown").await {
                Ok(()) => Err(unknown()),
                Err(refusal) => Ok(Done::Result(tool_error(caller, &refusal.to_string()), None)),
            };
        };
        let arguments = match params.root().get("arguments") {
            None => Ok(Canonical::empty_object()),
            Some(value) if value.is_object() => value.canonical().map_err(|error| error.to_string()),
            Some(_) => Err("`params.arguments` has to be an object".to_owned()),
        };
        let arguments = match arguments {
            Ok(arguments) => arguments,
            Err(why) => return Err(self.unreadable(caller, name, why).await),
        };
        let action = Action::Tool(tool.name.clone());
        let mut call = self.call(caller, action, tool.name.server().clone(), arguments, params.clone())?;
        call.pin = Some(tool.pin);
        match self.handle(call, line).await {
            Ok(Reply { outcome: Outcome::NotAwaited, .. }) => Err(Fault::params(NOT_AWAITED)),
            Ok(Reply { delivery, outcome, receipt: _ }) => Ok(match explain(outcome) {
                Ok(answer) if self.is_taken(caller, &answer, tool.name.server()) => {
                    let text = "Toolgate: the server began a task with a name that another server's task has, or that is too long. It may run.";
                    Done::Result(tool_error(caller, text), Some(delivery))
                }
                Ok(answer) => Done::Answer(answer, delivery),
                Err(text) => Done::Result(tool_error(caller, text), Some(delivery)),
            }),
            // It was hidden or withdrawn between looking and calling.
            Err(Refusal::Unknown) => Err(unknown()),
            // Until 2025-06-18 these were errors of the protocol; since then the model is to see and mend them.
            Err(refusal @ Refusal::Invalid { .. }) if caller.version <= Version::V2025_06_18 => {
                Err(Fault::params(refusal.to_string()))
            }
            Err(refusal) => Ok(Done::Result(tool_error(caller, &refusal.to_string()), None)),
        }
    }

    /// Remembers whose task it is that a call has become, if it has. True if its id cannot be remembered.
    fn is_taken(&self, caller: &Caller, answer: &Answer, server: &ServerName) -> bool {
        let Answer::Result(result) = answer else { return false };
        let member = |key| result.root().get(key).and_then(|value| value.as_str());
        match (member("resultType"), member("taskId")) {
            (Some("task"), Some(id)) => !self.tasks.insert(&caller.agent.id, id, server),
            (Some("task"), None) => true,
            (Some(_) | None, _) => false,
        }
    }

    /// Asks about a task, or tells it something: only the agent whose call became it can.
    async fn task(
        &self,
        caller: &Caller,
        action: Action,
        params: Option<&Document>,
        line: AgentLine,
    ) -> Result<Done, Fault> {
        if !may_follow_tasks(&caller.client) {
            let extensions = ObjectWriter::new().raw(TASKS, b"{}").finish();
            let required = ObjectWriter::new().raw("extensions", &extensions).finish();
            let data = ObjectWriter::new().raw("requiredCapabilities", &required).finish();
            return Err(Fault::new(rpc::MISSING_CAPABILITY, "Missing required client capability").with(data));
        }
        let (params, id) = text(params, "taskId")?;
        let missing = || Fault::params("Unknown task");
        let Some(server) = self.tasks.server(&caller.agent.id, id) else {
            return Err(self.hidden(caller, &action.to_string(), missing()).await);
        };
        let arguments = ObjectWriter::new().string("taskId", id).finish();
        self.ask_server(caller, action, server, arguments, params.clone(), line, missing).await
    }

    async fn get_prompt(
        &self,
        caller: &Caller,
        params: Option<&Document>,
        line: AgentLine,
    ) -> Result<Done, Fault> {
        let (params, name) = text(params, "name")?;
        let missing = || Fault::params(format!("Unknown prompt: {}", shortened(name)));
        let Some((server, own)) = self.meant(caller, name, &Action::GetPrompt) else {
            return Err(self.hidden(caller, &format!("prompts/get {}", shortened(name)), missing()).await);
        };
        let mut arguments = ObjectWriter::new().string("name", &own);
        if let Some(given) = params.root().get("arguments") {
            arguments = arguments.raw("arguments", given.raw());
        }
        self.ask_server(caller, Action::GetPrompt, server, arguments.finish(), params.clone(), line, missing)
            .await
    }

    async fn complete(
        &self,
        caller: &Caller,
        params: Option<&Document>,
        line: AgentLine,
    ) -> Result<Done, Fault> {
        let params =
            params.ok_or_else(|| Fault::params("`params.ref` and `params.argument` have to be objects"))?;
        let root = params.root();
        let (Some(reference), Some(argument)) = (root.get("ref"), root.get("argument")) else {
            return Err(Fault::params("`params.ref` and `params.argument` have to be objects"));
        };
        let member = |key| reference.get(key).and_then(|value| value.as_str());
        let (kind, name, uri) = (member("type"), member("name"), member("uri"));
        let missing = || Fault::params("Unknown reference");
        let (server, reference) = match (kind, name, uri) {
            (Some("ref/prompt"), Some(name), _) => match self.meant(caller, name, &Action::Complete) {
                Some((server, own)) => {
                    (server, reference.rewrite(&[("name", Edit::Set(quote(&own).as_bytes()))]))
                }
                None => return Err(self.hidden(caller, "completion/complete", missing()).await),
            },
            (Some("ref/resource"), _, Some(uri)) => {
                (self.owner(caller, uri, &Action::Complete).await?, reference.raw().to_vec())
            }
            _ => {
                return Err(Fault::params(
                    "`params.ref` has to be a `ref/prompt` with `name` or a `ref/resource` with `uri`",
                ));
            }
        };
        let mut arguments = ObjectWriter::new().raw("ref", &reference).raw("argument", argument.raw());
        if let Some(context) = root.get("context") {
            arguments = arguments.raw("context", context.raw());
        }
        self.ask_server(caller, Action::Complete, server, arguments.finish(), params.clone(), line, missing)
            .await
    }

    fn set_level(&self, caller: &Caller, params: Option<&Document>) -> Result<Done, Fault> {
        let level = params.and_then(|params| params.root().get("level")).and_then(|level| level.as_str());
        let Some(level) = level.and_then(Level::parse) else {
            return Err(Fault::params(
                "`params.level` has to be one of debug, info, notice, warning, error, critical, alert, emergency",
            ));
        };
        caller.session.set_level(level);
        self.servers.log_level(&caller.session.name, level.as_str());
        Ok(Done::Result(b"{}".to_vec(), None))
    }

    /// Makes a call of anything but a tool and hands it to the broker.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one part of the call, and there is one caller of each kind"
    )]
    async fn ask_server(
        &self,
        caller: &Caller,
        action: Action,
        server: ServerName,
        arguments: Vec<u8>,
        params: Document,
        line: AgentLine,
        missing: impl Fn() -> Fault,
    ) -> Result<Done, Fault> {
        let arguments = match Document::parse(arguments, &Limits::default()) {
            Ok(document) => document.root().canonical().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let arguments = match arguments {
            Ok(arguments) => arguments,
            Err(why) => return Err(self.unreadable(caller, &action.to_string(), why).await),
        };
        let call = self.call(caller, action, server, arguments, params)?;
        match self.handle(call, line).await {
            Ok(Reply { outcome: Outcome::NotAwaited, .. }) => Err(Fault::params(NOT_AWAITED)),
            Ok(Reply { delivery, outcome, receipt: _ }) => match explain(outcome) {
                Ok(answer) => Ok(Done::Answer(answer, delivery)),
                Err(text) => Err(Fault::new(rpc::INTERNAL_ERROR, text)),
            },
            Err(Refusal::Unknown) => Err(missing()),
            Err(refusal) => Err(Fault::new(REFUSED, refusal.to_string())),
        }
    }

    fn call(
        &self,
        caller: &Caller,
        action: Action,
        server: ServerName,
        arguments: Canonical,
        params: Document,
    ) -> Result<Call, Fault> {
        Ok(Call {
            id: self.call_id()?,
            agent: Arc::clone(&caller.agent),
            session: caller.session.name.clone(),
            action,
            server,
            pin: None,
            arguments,
            params,
            carries: Carries::default(),
        })
    }

    fn call_id(&self) -> Result<CallId, Fault> {
        let mut random = [0; 10];
        randomness::fill(&mut random)
            .map_err(|_no_entropy| Fault::new(rpc::INTERNAL_ERROR, "no randomness"))?;
        Ok(CallId::new(self.clock.now_ms(), random))
    }

    /// Lets a request in; `None` if the agent has too many under way, or was refused too often. How many were turned away
    /// is written down before the next one is let in.
    pub async fn enter(&self, agent: &Arc<Agent>) -> Option<Entered> {
        let now = Instant::now();
        let before = self.debts.let_in(&agent.id, now)?;
        let entered = self.sessions.enter(&agent.id);
        if entered.is_none() {
            self.debts.turn_away(&agent.id, before.saturating_add(1), now);
        } else if before > 0 {
            let action = format!("{before} requests");
            let refused = Unread {
                id: self.call_id().ok()?,
                agent: Arc::clone(agent),
                session: "-".to_owned(),
                action,
                code: "turned_away",
            };
            self.debts.charge(&agent.id, 0, now);
            if self.broker.refuse(refused).await.is_err() {
                self.debts.turn_away(&agent.id, before, now);
                return None;
            }
        }
        entered
    }

    /// Hands a call to the broker. A refusal costs the agent something.
    async fn handle(&self, call: Call, line: AgentLine) -> Result<Reply, Refusal> {
        let (agent, bytes) = (Arc::clone(&call.agent), call.params.root().raw().len());
        let reply = self.broker.handle(call, line).await;
        if reply.as_ref().is_err_and(|refusal| *refusal != Refusal::Unavailable) {
            self.debts.charge(&agent.id, bytes, Instant::now());
        }
        reply
    }

    /// Has it written down that something was refused before it could become a call.
    async fn unread(&self, caller: &Caller, action: &str, code: &'static str) -> Result<(), Refusal> {
        self.debts.charge(&caller.agent.id, 0, Instant::now());
        let id = self.call_id().map_err(|_fault| Refusal::Unavailable)?;
        let agent = Arc::clone(&caller.agent);
        let session = caller.session.name.clone();
        self.broker.refuse(Unread { id, agent, session, action: shortened(action), code }).await
    }

    /// The error for something that does not exist as far as the agent can tell.
    async fn hidden(&self, caller: &Caller, action: &str, missing: Fault) -> Fault {
        match self.unread(caller, action, "hidden_or_unknown").await {
            Ok(()) => missing,
            Err(refusal) => Fault::new(REFUSED, refusal.to_string()),
        }
    }

    /// The error for arguments that cannot be judged.
    async fn unreadable(&self, caller: &Caller, action: &str, why: String) -> Fault {
        match self.unread(caller, action, "invalid_arguments").await {
            Ok(()) => Fault::params(format!("Invalid arguments: {why}")),
            Err(refusal) => Fault::new(REFUSED, refusal.to_string()),
        }
    }

    /// Whose thing of which name is meant, if the agent may see that server for this.
    fn meant(&self, caller: &Caller, name: &str, action: &Action) -> Option<(ServerName, String)> {
        let rulebook = self.broker.rulebook();
        let (server, own) = self.catalog.naming().meant(&rulebook.servers, name)?;
        rulebook.may_see(&caller.agent, &server, action).then_some((server, own))
    }

    /// One page of a list.
    fn page(
        &self,
        caller: &Caller,
        key: &str,
        list: &List,
        params: Option<&Document>,
    ) -> Result<Done, Fault> {
        let cursor = match params.and_then(|params| params.root().get("cursor")) {
            None => None,
            Some(cursor) => {
                Some(cursor.as_str().ok_or_else(|| Fault::params("`params.cursor` has to be a string"))?)
            }
        };
        let Some((array, next)) = list.page(&self.cursors, &caller.agent.id, cursor) else {
            return Err(Fault::params("the cursor is not valid any more; begin the list again"));
        };
        let modern = caller.version.is_modern();
        let mut writer = ObjectWriter::new();
        if modern {
            writer = writer.string("resultType", "complete");
        }
        writer = writer.raw(key, &array);
        if let Some(next) = next {
            writer = writer.string("nextCursor", &next);
        }
        if modern {
            writer = writer.number("ttlMs", 0).string("cacheScope", "private");
        }
        Ok(Done::Result(writer.finish(), None))
    }
}

/// The servers that an agent may see for this, in the order of their names.
fn visible(rulebook: &Rulebook, agent: &Agent, action: &Action) -> Vec<ServerName> {
    let may_see = |server: &&ServerName| rulebook.may_see(agent, server, action);
    rulebook.servers.iter().filter(may_see).cloned().collect()
}

/// Whether a client said that it knows tasks.
fn may_follow_tasks(client: &Client) -> bool {
    let declared = client.capabilities.as_ref().and_then(|all| all.root().path(&["extensions", TASKS]));
    declared.is_some_and(|tasks| tasks.is_object())
}

/// The `params`, and a member of them that has to be a string.
fn text<'a>(params: Option<&'a Document>, key: &str) -> Result<(&'a Document, &'a str), Fault> {
    params
        .and_then(|params| Some((params, params.root().get(key)?.as_str()?)))
        .ok_or_else(|| Fault::params(format!("`params.{key}` has to be a string")))
}

/// The beginning of a text that somebody made up.
fn shortened(text: &str) -> String {
    text.chars().take(MAX_UNKNOWN_NAME).collect()
}

fn server_info() -> Vec<u8> {
    ObjectWriter::new()
        .string("name", "toolgate")
        .string("title", "Toolgate")
        .string("version", env!("CARGO_PKG_VERSION"))
        .finish()
}

/// A tool's result that says what went wrong, to the model.
fn tool_error(caller: &Caller, text: &str) -> Vec<u8> {
    let content = ObjectWriter::new().string("type", "text").string("text", text).finish();
    let mut array = vec![b'['];
    array.extend_from_slice(&content);
    array.push(b']');
    let mut writer = ObjectWriter::new();
    if caller.version.is_modern() {
        writer = writer.string("resultType", "complete");
    }
    writer.raw("content", &array).bool("isError", true).finish()
}

/// To who goes on with what is not waited for. Servers refuse it as an error, so it is one here.
const NOT_AWAITED: &str =
    "`requestState` is not valid for this call, has expired or was used; make the call without it";

/// The server's answer, or what to say in its place. It always says whether the call may have had an effect.
fn explain(outcome: Outcome) -> Result<Answer, &'static str> {
    match outcome {
        Outcome::Ran(answer) => Ok(answer.into_inner()),
        Outcome::Cancelled => Err(
            "Toolgate: the call was cancelled after it had been sent. It may have run in whole or in part.",
        ),
        Outcome::Lost => Err(
            "Toolgate: the connection to the server broke after the call had been sent. It may have run in whole or in part; find out before you try again.",
        ),
        Outcome::NotAwaited => Err(NOT_AWAITED),
        Outcome::NotRun => Err(
            "Toolgate: the call was not sent: the server could not be reached, or the tool is not what was accepted any more. It did not run.",
        ),
        Outcome::TimedOut => Err(
            "Toolgate: the server did not answer in time and was told to stop. The call may have run in whole or in part; find out before you try again.",
        ),
        Outcome::Withheld(_) => Err(
            "Toolgate: the call ran, but its answer may not be shown: it is too large, not what the tool's schema promises, or takes too long to be looked through for secrets. Do not run it again to see it.",
        ),
    }
}

/// An answer as 2026-07-28 wants it, where a server of before used a code that is none any more.
fn modern(answer: Answer) -> Answer {
    let Answer::Error(object) = &answer else {
        return answer;
    };
    let root = object.root();
    if root.get("code").and_then(|code| code.as_i64()) != Some(RESOURCE_NOT_FOUND) {
        return answer;
    }
    let code = rpc::INVALID_PARAMS.to_string();
    let rewritten = root.rewrite(&[("code", Edit::Set(code.as_bytes()))]);
    Document::parse(rewritten, &Limits::default()).map_or(answer, Answer::Error)
}
