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

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, watch};
use toolgate_broker::outcome::{Answer, Delivery, Outcome, Reply};
use toolgate_broker::port::{AgentLine, BoxFuture, Client, Clock, Handle, Unread};
use toolgate_broker::rulebook::Rulebook;
use toolgate_core::call::{Action, Agent, Call, CallId};
use toolgate_core::json::{Canonical, Document, Edit, Limits, ObjectWriter, Value, quote};
use toolgate_core::name::ServerName;
use toolgate_core::refusal::Refusal;

use crate::catalog::{Catalog, Cursors, List, Naming, Seen};
use crate::line::{Back, Gone, Level, Line};
use crate::port::{Change, Offer, Servers};
use crate::rpc::{self, Id, Request};
use crate::session::{Agreed, BeginError, Session, Sessions};
use crate::tasks::Tasks;
use crate::template;
use crate::version::Version;

/// The error for what was refused and has no result to say so in. Outside of the ranges that JSON-RPC and MCP reserve.
pub const REFUSED: i64 = -31_403;
/// The error for what does not exist among resources, in revisions before 2026-07-28.
const RESOURCE_NOT_FOUND: i64 = -32_002;

/// How many items of one kind are listed over all servers.
const MAX_ITEMS: usize = 10_000;
/// How long it is remembered which server lists what, in milliseconds.
const SHELF_MS: u64 = 30_000;
/// For how many sessions and kinds that is remembered.
const MAX_SHELVES: usize = 4096;
/// How much of a name nobody knows is written down.
const MAX_UNKNOWN_NAME: usize = 256;
/// How many resources one `subscriptions/listen` may name.
const MAX_LISTEN_URIS: usize = 64;

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_INFO: &str = "io.modelcontextprotocol/clientInfo";
const META_LEVEL: &str = "io.modelcontextprotocol/logLevel";
const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
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

/// What HTTP says about an answer to a request of 2026-07-28. Everything else is `200`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 400: version, headers or `_meta` are not as they have to be.
    BadRequest,
    /// 404: there is no such method.
    NotFound,
    /// 200.
    Ok,
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

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    code: i64,
    message: String,
    data: Option<Vec<u8>>,
    status: Status,
}

impl Fault {
    /// An error of this code; the status follows from it.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        let status = status(code);
        Self { code, message: message.into(), data: None, status }
    }

    /// The parameters do not fit.
    #[must_use]
    pub fn params(message: impl Into<String>) -> Self {
        Self::new(rpc::INVALID_PARAMS, message)
    }

    /// `_meta` is not as it has to be.
    fn meta(message: impl Into<String>) -> Self {
        Self { status: Status::BadRequest, ..Self::params(message) }
    }

    /// The headers say something else than the body.
    #[must_use]
    pub fn headers(message: impl Into<String>) -> Self {
        Self::new(rpc::HEADER_MISMATCH, message)
    }

    fn method(method: &str) -> Self {
        Self::new(rpc::METHOD_NOT_FOUND, format!("Method not found: {}", shortened(method)))
    }

    fn with(mut self, data: Vec<u8>) -> Self {
        self.data = Some(data);
        self
    }

    /// The whole response.
    #[must_use]
    pub fn to_answer(&self, id: &Id) -> Answered {
        let message = rpc::error(Some(id), self.code, &self.message, self.data.as_deref());
        Answered { message, call: None, status: self.status }
    }
}

const fn status(code: i64) -> Status {
    match code {
        rpc::HEADER_MISMATCH | rpc::MISSING_CAPABILITY | rpc::UNSUPPORTED_VERSION => Status::BadRequest,
        rpc::METHOD_NOT_FOUND => Status::NotFound,
        _ => Status::Ok,
    }
}

/// What a request of the modern era says about itself.
#[derive(Debug)]
pub struct Meta {
    /// The revision.
    pub version: Version,
    /// The client.
    pub client: Client,
    /// The log messages it wants.
    pub log: Option<Level>,
}

/// The revision that a request says it is in, by its `_meta`; `None` for requests of the legacy era.
#[must_use]
pub fn claimed_version(params: Option<&Document>) -> Option<Value<'_>> {
    params?.root().path(&["_meta", META_VERSION])
}

/// Reads what a request of the modern era has to say about itself.
///
/// # Errors
/// Something is missing or cannot be read, or the revision is not spoken here.
pub fn meta(params: Option<&Document>) -> Result<Meta, Fault> {
    let meta = params.and_then(|params| params.root().get("_meta")).filter(|meta| meta.is_object());
    let Some(meta) = meta else {
        return Err(Fault::meta(format!(
            "`params._meta` has to have `{META_VERSION}` and `{META_CAPABILITIES}`"
        )));
    };
    let Some(requested) = meta.get(META_VERSION).and_then(|version| version.as_str()) else {
        return Err(Fault::meta(format!("`params._meta` has to have `{META_VERSION}`, a string")));
    };
    let Some(version) = Version::parse(requested).filter(|version| version.is_modern()) else {
        let supported = format!("[{}]", quote(Version::V2026_07_28.as_str()));
        let data = ObjectWriter::new()
            .raw("supported", supported.as_bytes())
            .string("requested", requested)
            .finish();
        return Err(Fault::new(rpc::UNSUPPORTED_VERSION, "Unsupported protocol version").with(data));
    };
    let Some(capabilities) = meta.get(META_CAPABILITIES).filter(|value| value.is_object()) else {
        return Err(Fault::meta(format!("`params._meta` has to have `{META_CAPABILITIES}`, an object")));
    };
    let info = meta.get(META_INFO);
    if info.is_some_and(|info| !info.is_object()) {
        return Err(Fault::meta(format!("`{META_INFO}` in `params._meta` has to be an object")));
    }
    let log = match meta.get(META_LEVEL) {
        None => None,
        Some(level) => {
            Some(level.as_str().and_then(Level::parse).ok_or_else(|| Fault::params("unknown log level"))?)
        }
    };
    let client = Client {
        version: version.as_str().to_owned(),
        capabilities: Some(capabilities.to_document()),
        info: info.map(|info| info.to_document()),
    };
    Ok(Meta { version, client, log })
}

/// What a `subscriptions/listen` holds, and what its messages say about it; `None` for a session of before.
type Listening<'a> = Option<(&'a [(String, ServerName)], &'a [u8])>;

/// What of a server's offers is listed where: the items, in order.
type Items = Arc<Vec<(ServerName, Document)>>;

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
    }

    /// The tools that an agent may see now.
    pub fn seen(&self, agent: &Arc<Agent>) -> Arc<Seen> {
        self.catalog.seen(&self.broker.rulebook(), agent)
    }

    /// Answers a request. Dropping the future stops nothing that was begun; the line's `gone` does.
    pub async fn answer(self: &Arc<Self>, caller: &Caller, request: &Request, line: Arc<Line>) -> Answered {
        let id = &request.id;
        match self.dispatch(caller, request, line).await {
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
        let params = params.ok_or_else(|| Fault::params("`params.name` has to be a string"))?;
        let name = text(params, "name")?;
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
        match self.broker.handle(call, line).await {
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
        let params = params.ok_or_else(|| Fault::params("`params.taskId` has to be a string"))?;
        let id = text(params, "taskId")?;
        let missing = || Fault::params("Unknown task");
        let Some(server) = self.tasks.server(&caller.agent.id, id) else {
            return Err(self.hidden(caller, &action.to_string(), missing()).await);
        };
        let arguments = ObjectWriter::new().string("taskId", id).finish();
        self.ask_server(caller, action, server, arguments, params.clone(), line, missing).await
    }

    async fn read_resource(
        &self,
        caller: &Caller,
        params: Option<&Document>,
        line: AgentLine,
    ) -> Result<Done, Fault> {
        let params = params.ok_or_else(|| Fault::params("`params.uri` has to be a string"))?;
        let uri = text(params, "uri")?;
        let missing = || no_resource(caller.version, uri);
        let server = self.owner(caller, uri, &Action::ReadResource).await?;
        let arguments = ObjectWriter::new().string("uri", uri).finish();
        let done = self
            .ask_server(caller, Action::ReadResource, server, arguments, params.clone(), line, missing)
            .await?;
        Ok(match done {
            Done::Answer(answer, call) if caller.version.is_modern() => Done::Answer(private(answer), call),
            Done::Answer(..) | Done::Result(..) => done,
        })
    }

    async fn get_prompt(
        &self,
        caller: &Caller,
        params: Option<&Document>,
        line: AgentLine,
    ) -> Result<Done, Fault> {
        let params = params.ok_or_else(|| Fault::params("`params.name` has to be a string"))?;
        let name = text(params, "name")?;
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

    async fn subscribe(
        &self,
        caller: &Caller,
        params: Option<&Document>,
        line: AgentLine,
    ) -> Result<Done, Fault> {
        let params = params.ok_or_else(|| Fault::params("`params.uri` has to be a string"))?;
        let uri = text(params, "uri")?;
        let (done, server) = self.hold(caller, uri, params.clone(), line).await?;
        // Subscribing again changes nothing: one `resources/unsubscribe` ends it.
        while caller.session.holds(uri, &server) > 1 {
            caller.session.unsubscribe(uri, &server);
        }
        Ok(done)
    }

    /// Subscribes to a resource, once more if it is subscribed to already.
    async fn hold(
        &self,
        caller: &Caller,
        uri: &str,
        params: Document,
        line: AgentLine,
    ) -> Result<(Done, ServerName), Fault> {
        let missing = || no_resource(caller.version, uri);
        let server = self.owner(caller, uri, &Action::Subscribe).await?;
        if !caller.session.subscribe(uri, &server) {
            return Err(Fault::new(REFUSED, "Refused by Toolgate: too many subscriptions."));
        }
        // Held first, so that no change is missed, and let go of again if it does not come about or is given up.
        let mut held = Held {
            servers: &self.servers,
            session: &caller.session,
            held: vec![(uri.to_owned(), server.clone())],
        };
        let arguments = ObjectWriter::new().string("uri", uri).finish();
        let done = self
            .ask_server(caller, Action::Subscribe, server.clone(), arguments, params, line, missing)
            .await?;
        if matches!(done, Done::Answer(Answer::Result(_), _)) {
            held.held.clear();
        }
        Ok((done, server))
    }

    fn unsubscribe(&self, caller: &Caller, params: Option<&Document>) -> Result<Done, Fault> {
        let params = params.ok_or_else(|| Fault::params("`params.uri` has to be a string"))?;
        let uri = text(params, "uri")?;
        for server in caller.session.subscribed_to(uri) {
            if caller.session.unsubscribe(uri, &server) {
                self.servers.unsubscribe(&server, &caller.session.name, uri);
            }
        }
        Ok(Done::Result(b"{}".to_vec(), None))
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
        match self.broker.handle(call, line).await {
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
        })
    }

    fn call_id(&self) -> Result<CallId, Fault> {
        let mut random = [0; 10];
        getrandom::fill(&mut random)
            .map_err(|_no_entropy| Fault::new(rpc::INTERNAL_ERROR, "no randomness"))?;
        Ok(CallId::new(self.clock.now_ms(), random))
    }

    /// Has it written down that something was refused before it could become a call.
    async fn unread(&self, caller: &Caller, action: &str, code: &'static str) -> Result<(), Refusal> {
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
        rulebook.policy.may_see(&caller.agent, &server, action).then_some((server, own))
    }

    /// Whose resource a URI is: see the head of this module.
    async fn owner(&self, caller: &Caller, uri: &str, action: &Action) -> Result<ServerName, Fault> {
        let rulebook = self.broker.rulebook();
        let candidates = visible(&rulebook, &caller.agent, action);
        let owner = match candidates.as_slice() {
            [] => Owner::Nobody,
            [only] => return Ok(only.clone()),
            several => self.find_owner(caller, uri, several).await,
        };
        match owner {
            Owner::One(server) => Ok(server),
            Owner::Nobody => {
                Err(self.hidden(caller, &format!("{action} {uri}"), no_resource(caller.version, uri)).await)
            }
            Owner::Several => {
                let fault = Fault::new(
                    REFUSED,
                    "Refused by Toolgate: several servers offer this resource, so it cannot be told which is meant.",
                );
                Err(self.hidden(caller, &format!("{action} {uri}"), fault).await)
            }
        }
    }

    async fn find_owner(&self, caller: &Caller, uri: &str, candidates: &[ServerName]) -> Owner {
        let fits = |items: &Items, key: &str, fits: &dyn Fn(&str) -> bool| {
            let mut owners: Vec<ServerName> = items
                .iter()
                .filter(|(server, item)| {
                    candidates.contains(server)
                        && item.root().get(key).and_then(|v| v.as_str()).is_some_and(fits)
                })
                .map(|(server, _)| server.clone())
                .collect();
            owners.dedup();
            owners
        };
        // Remembered lists first; if they know nothing, they are asked for anew, for things may have been added.
        for fresh in [false, true] {
            let resources = self.items(caller, Offer::Resources, fresh).await;
            let templates = self.items(caller, Offer::ResourceTemplates, fresh).await;
            let exact = fits(&resources, "uri", &|listed| listed == uri);
            let exact = if exact.is_empty() {
                fits(&templates, "uriTemplate", &|listed| listed == uri)
            } else {
                exact
            };
            let found = if exact.is_empty() {
                fits(&templates, "uriTemplate", &|template| template::fits(template, uri))
            } else {
                exact
            };
            match found.as_slice() {
                [] => {}
                [one] => return Owner::One(one.clone()),
                _ => return Owner::Several,
            }
        }
        Owner::Nobody
    }

    async fn list(&self, caller: &Caller, offer: Offer, params: Option<&Document>) -> Result<Done, Fault> {
        let paging = params.is_some_and(|params| params.root().get("cursor").is_some());
        let items = self.items(caller, offer, !paging).await;
        // What was remembered may be from before other rules came into force.
        let action = match offer {
            Offer::Prompts => Action::GetPrompt,
            Offer::ResourceTemplates | Offer::Resources => Action::ReadResource,
        };
        let servers = visible(&self.broker.rulebook(), &caller.agent, &action);
        let items: Vec<_> = items.iter().filter(|(server, _)| servers.contains(server)).collect();
        let key = match offer {
            Offer::Prompts => "prompts",
            Offer::ResourceTemplates => "resourceTemplates",
            Offer::Resources => "resources",
        };
        let list = match offer {
            Offer::Prompts => {
                let rulebook = self.broker.rulebook();
                let renamed: Vec<Vec<u8>> = items
                    .iter()
                    .filter_map(|(server, item)| {
                        let name = item.root().get("name")?.as_str()?;
                        let shown = self.catalog.naming().shown(&rulebook.servers, server, name)?;
                        Some(item.root().rewrite(&[("name", Edit::Set(quote(&shown).as_bytes()))]))
                    })
                    .collect();
                List::new(renamed.iter().map(Vec::as_slice))
            }
            Offer::ResourceTemplates | Offer::Resources => {
                List::new(items.iter().map(|(_, item)| item.root().raw()))
            }
        };
        self.page(caller, key, &list, params)
    }

    /// What the visible servers offer. A server that cannot be asked offers nothing: it must not spoil the rest.
    async fn items(&self, caller: &Caller, offer: Offer, fresh: bool) -> Items {
        let rulebook = self.broker.rulebook();
        let action = match offer {
            Offer::Prompts => Action::GetPrompt,
            Offer::ResourceTemplates | Offer::Resources => Action::ReadResource,
        };
        let servers = visible(&rulebook, &caller.agent, &action);
        let session = &caller.session.name;
        let key = (session.clone(), offer);
        let now = self.now_ms();
        if !fresh
            && let Some((at, items)) = self.shelves().get(&key)
            && now < at.saturating_add(SHELF_MS)
        {
            return Arc::clone(items);
        }
        let asked = servers
            .iter()
            .map(|server| self.servers.offered(server, session, &caller.client, offer))
            .collect();
        let offered = all(asked).await;
        let items = servers
            .iter()
            .zip(offered)
            .flat_map(|(server, items)| {
                items.unwrap_or_default().into_iter().map(|item| (server.clone(), item))
            })
            .filter(|(_, item)| item.root().is_object())
            .take(MAX_ITEMS)
            .collect();
        let items: Items = Arc::new(items);
        let mut shelves = self.shelves();
        if shelves.len() >= MAX_SHELVES {
            shelves.clear();
        }
        shelves.insert(key, (now, Arc::clone(&items)));
        items
    }

    fn shelves(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Offer), (u64, Items)>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some((items, next)) = list.page(&self.cursors, &caller.agent.id, cursor) else {
            return Err(Fault::params("the cursor is not valid any more; begin the list again"));
        };
        let mut array = Vec::with_capacity(items.len() + 2);
        array.push(b'[');
        array.extend_from_slice(&items);
        array.push(b']');
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

    /// `subscriptions/listen`: the acknowledgement first, then what changes, until the agent or the gate ends it.
    async fn listen(
        self: &Arc<Self>,
        caller: &Caller,
        id: &Id,
        params: Option<&Document>,
        line: &Arc<Line>,
    ) -> Result<Done, Fault> {
        let wanted =
            params.and_then(|params| params.root().get("notifications")).filter(|wanted| wanted.is_object());
        let (Some(params), Some(wanted)) = (params, wanted) else {
            return Err(Fault::params("`params.notifications` has to be an object"));
        };
        let flag = |key: &str| wanted.get(key).and_then(|value| value.as_bool()) == Some(true);
        let rulebook = self.broker.rulebook();
        let any = |action| !visible(&rulebook, &caller.agent, &action).is_empty();
        let feed = Feed {
            tools: flag("toolsListChanged"),
            prompts: flag("promptsListChanged") && any(Action::GetPrompt),
            resources: flag("resourcesListChanged") && any(Action::ReadResource),
        };
        // Listening begins before subscribing, so that nothing falls in between.
        let changes = self.servers.changes(&caller.session.name);
        let rules = self.rules.subscribe();
        let mut held = Held { servers: &self.servers, session: &caller.session, held: Vec::new() };
        let uris: Vec<&str> = match wanted.get("resourceSubscriptions") {
            None => Vec::new(),
            Some(uris) if uris.len() <= MAX_LISTEN_URIS => {
                uris.elements().filter_map(|uri| uri.as_str()).collect()
            }
            Some(_) => return Err(Fault::params("too many `resourceSubscriptions`")),
        };
        let meta = params.root().get("_meta").map_or(b"{}".as_slice(), |meta| meta.raw());
        for uri in uris {
            let params = ObjectWriter::new().string("uri", uri).raw("_meta", meta).finish();
            let Ok(params) = Document::parse(params, &Limits::default()) else {
                continue;
            };
            // What the agent may not subscribe to is left out of the acknowledgement, like what does not exist.
            let done = self.hold(caller, uri, params, Arc::clone(line) as AgentLine).await;
            if let Ok((Done::Answer(Answer::Result(_), call), server)) = done {
                self.broker.delivered(call.call);
                held.held.push((uri.to_owned(), server));
            }
        }
        let about = ObjectWriter::new().raw(META_SUBSCRIPTION, id.to_json().as_bytes()).finish();
        let ack = ObjectWriter::new()
            .raw("_meta", &about)
            .raw("notifications", &feed.honoured(&held.held))
            .finish();
        let ack = rpc::notification("notifications/subscriptions/acknowledged", Some(&ack));
        if line.post(ack).await {
            self.feed(caller, &feed, Some((&held.held, &about)), changes, rules, line).await;
        }
        let result = ObjectWriter::new().string("resultType", "complete").raw("_meta", &about).finish();
        Ok(Done::Result(result, None))
    }

    /// What changes, for a session of 2025-11-25 or before, until it ends or `line` is gone.
    pub async fn announce(self: &Arc<Self>, caller: &Caller, line: &Line) {
        let changes = self.servers.changes(&caller.session.name);
        let feed = Feed { tools: true, prompts: true, resources: true };
        self.feed(caller, &feed, None, changes, self.rules.subscribe(), line).await;
    }

    /// `listening` is what a `subscriptions/listen` holds, and what its messages say about it.
    async fn feed(
        &self,
        caller: &Caller,
        feed: &Feed,
        listening: Listening<'_>,
        changes: broadcast::Receiver<Change>,
        mut rules: watch::Receiver<u64>,
        line: &Line,
    ) {
        let mut tools = self.seen(&caller.agent).list().digest();
        let empty = listening.map(|(_, about)| ObjectWriter::new().raw("_meta", about).finish());
        let mut changes = Some(changes);
        loop {
            let mut news = Vec::new();
            tokio::select! {
                () = line.gone_flag().wait() => return,
                () = caller.session.ended.wait() => return,
                () = self.stop.wait() => return,
                changed = rules.changed() => {
                    let now = self.seen(&caller.agent).list().digest();
                    if changed.is_ok() && feed.tools && now != tools {
                        news.push(("notifications/tools/list_changed", empty.clone()));
                    }
                    tools = now;
                }
                change = next(&mut changes) => match change {
                    Ok(change) => news.extend(self.told(caller, feed, listening, &change)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        // Something was missed: everything may have changed.
                        if feed.prompts {
                            news.push(("notifications/prompts/list_changed", empty.clone()));
                        }
                        if feed.resources {
                            news.push(("notifications/resources/list_changed", empty.clone()));
                        }
                    }
                    // Nobody tells about servers any more; the rules may still change.
                    Err(broadcast::error::RecvError::Closed) => changes = None,
                },
            }
            for (method, params) in news {
                if !line.post(rpc::notification(method, params.as_deref())).await {
                    return;
                }
            }
        }
    }

    /// What an agent is told about a change, if anything.
    fn told(
        &self,
        caller: &Caller,
        feed: &Feed,
        listening: Listening<'_>,
        change: &Change,
    ) -> Option<(&'static str, Option<Vec<u8>>)> {
        let rulebook = self.broker.rulebook();
        let may_see = |server: &ServerName, action| {
            rulebook.servers.contains(server) && rulebook.policy.may_see(&caller.agent, server, &action)
        };
        let session = &caller.session.name;
        let empty = || listening.map(|(_, about)| ObjectWriter::new().raw("_meta", about).finish());
        match change {
            Change::Prompts(server) => {
                self.shelves().remove(&(session.clone(), Offer::Prompts));
                (feed.prompts && may_see(server, Action::GetPrompt))
                    .then(|| ("notifications/prompts/list_changed", empty()))
            }
            Change::Resources(server) => {
                for offer in [Offer::Resources, Offer::ResourceTemplates] {
                    self.shelves().remove(&(session.clone(), offer));
                }
                (feed.resources && may_see(server, Action::ReadResource))
                    .then(|| ("notifications/resources/list_changed", empty()))
            }
            Change::Resource { server, uri, params } => {
                let listened = match listening {
                    Some((held, _)) => held.iter().any(|(u, s)| u == uri && s == server),
                    None => caller.session.holds(uri, server) > 0,
                };
                if !listened || !may_see(server, Action::Subscribe) {
                    return None;
                }
                let params = match listening {
                    None => params.root().raw().to_vec(),
                    Some((_, about)) => params.root().rewrite(&[("_meta", Edit::Set(about))]),
                };
                Some(("notifications/resources/updated", Some(params)))
            }
        }
    }
}

/// Whose a resource is.
enum Owner {
    Nobody,
    One(ServerName),
    Several,
}

/// Which changes an agent is told.
struct Feed {
    tools: bool,
    prompts: bool,
    resources: bool,
}

impl Feed {
    /// The filter as it is honoured.
    fn honoured(&self, held: &[(String, ServerName)]) -> Vec<u8> {
        let mut writer = ObjectWriter::new();
        let flags = [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ];
        for (key, _) in flags.into_iter().filter(|(_, wanted)| *wanted) {
            writer = writer.bool(key, true);
        }
        if !held.is_empty() {
            let uris: Vec<String> = held.iter().map(|(uri, _)| quote(uri)).collect();
            writer = writer.raw("resourceSubscriptions", format!("[{}]", uris.join(",")).as_bytes());
        }
        writer.finish()
    }
}

/// Subscriptions that end when this is dropped, also where the future that holds it is.
struct Held<'a> {
    servers: &'a Arc<dyn Servers>,
    session: &'a Session,
    held: Vec<(String, ServerName)>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for (uri, server) in &self.held {
            if self.session.unsubscribe(uri, server) {
                self.servers.unsubscribe(server, &self.session.name, uri);
            }
        }
    }
}

/// The next change; never, when there is nobody to tell.
async fn next(
    changes: &mut Option<broadcast::Receiver<Change>>,
) -> Result<Change, broadcast::error::RecvError> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}

/// Waits for all of them at once, in their order.
async fn all<T: Unpin>(futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut waiting: Vec<Result<BoxFuture<'_, T>, Option<T>>> = futures.into_iter().map(Ok).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for slot in &mut waiting {
            if let Ok(future) = slot {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *slot = Err(Some(value)),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    waiting.into_iter().filter_map(|slot| slot.err().flatten()).collect()
}

/// The servers that an agent may see for this, in the order of their names.
fn visible(rulebook: &Rulebook, agent: &Agent, action: &Action) -> Vec<ServerName> {
    let may_see = |server: &&ServerName| rulebook.policy.may_see(agent, server, action);
    rulebook.servers.iter().filter(may_see).cloned().collect()
}

/// Whether a client said that it knows tasks.
fn may_follow_tasks(client: &Client) -> bool {
    let declared = client.capabilities.as_ref().and_then(|all| all.root().path(&["extensions", TASKS]));
    declared.is_some_and(|tasks| tasks.is_object())
}

/// A member of `params` that has to be a string.
fn text<'a>(params: &'a Document, key: &str) -> Result<&'a str, Fault> {
    let value = params.root().get(key).and_then(|value| value.as_str());
    value.ok_or_else(|| Fault::params(format!("`params.{key}` has to be a string")))
}

/// The beginning of a text that somebody made up.
fn shortened(text: &str) -> String {
    text.chars().take(MAX_UNKNOWN_NAME).collect()
}

fn no_resource(version: Version, uri: &str) -> Fault {
    let code = if version.is_modern() { rpc::INVALID_PARAMS } else { RESOURCE_NOT_FOUND };
    Fault::new(code, "Resource not found").with(ObjectWriter::new().string("uri", uri).finish())
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
        Outcome::NotRun => Err(
            "Toolgate: the server could not be reached, so the call was not sent. It did not run, and can be tried again later.",
        ),
        Outcome::TimedOut => Err(
            "Toolgate: the server did not answer in time and was told to stop. The call may have run in whole or in part; find out before you try again.",
        ),
        Outcome::Withheld(_) => Err(
            "Toolgate: the call ran, but its answer may not be shown: it is too large, or not what the tool's schema promises. Do not run it again to see it.",
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

/// What one agent may read, others may not: no cache may share it.
fn private(answer: Answer) -> Answer {
    let Answer::Result(object) = &answer else {
        return answer;
    };
    let root = object.root();
    if root.get("cacheScope").and_then(|scope| scope.as_str()) != Some("public") {
        return answer;
    }
    let rewritten = root.rewrite(&[("cacheScope", Edit::Set(br#""private""#))]);
    Document::parse(rewritten, &Limits::default()).map_or(answer, Answer::Result)
}
