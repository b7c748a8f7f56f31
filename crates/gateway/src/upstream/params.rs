//! What is sent to a server: `params` in its era's dialect, with everything that nobody touched byte for byte.

use toolgate_core::call::{Action, Call};
use toolgate_core::json::{Document, Edit, ObjectWriter, Value, quote};

use super::config::Asks;
use super::peer::MODERN;

/// The `_meta` members of a modern request that say who speaks, and are ours to say.
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const INFO: &str = "io.modelcontextprotocol/clientInfo";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The log level of one request.
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Members of `_meta` that belong to one leg.
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// Who the gate says it is.
pub(super) fn client_info() -> Vec<u8> {
    ObjectWriter::new().string("name", "toolgate").string("version", env!("CARGO_PKG_VERSION")).finish()
}

/// What of an agent's capabilities a server is told: what can be asked of it and the operator lets be asked. Extensions
/// and experiments need the gate's own support, so they are not passed on.
pub(super) fn capabilities(declared: Option<&Document>, asks: Asks, tasks: bool) -> Vec<u8> {
    let Asks { elicitation, roots, sampling } = asks;
    let mut out = ObjectWriter::new();
    let declared = |name: &str| declared.and_then(|d| d.root().get(name)).filter(|value| value.is_object());
    if let Some(value) = declared("elicitation").filter(|_| elicitation) {
        out = out.raw("elicitation", value.raw());
    }
    if declared("roots").is_some() && roots {
        // Changes of the roots are not passed on.
        out = out.raw("roots", b"{}");
    }
    if let Some(value) = declared("sampling").filter(|_| sampling) {
        out = out.raw("sampling", value.raw());
    }
    if let Some(value) = declared("extensions").and_then(|extensions| extensions.get(TASKS)).filter(|_| tasks)
    {
        out = out.raw("extensions", &ObjectWriter::new().raw(TASKS, value.raw()).finish());
    }
    out.finish()
}

/// The only extension that is passed on.
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// The `_meta` of a modern request of the gate's own.
pub(super) fn own_meta(capabilities: &[u8]) -> ObjectWriter {
    ObjectWriter::new().string(VERSION, MODERN).raw(INFO, &client_info()).raw(CAPABILITIES, capabilities)
}

/// How a call is to be said to one server.
pub(super) struct Dialect<'a> {
    pub(super) modern: bool,
    /// What the server is told that the agent can be asked.
    pub(super) capabilities: &'a [u8],
    /// The number of the request, which is its progress token as well.
    pub(super) number: u64,
    /// The log level that a legacy agent set for its session.
    pub(super) log_level: Option<&'a str>,
}

/// What a retry adds to a call.
#[derive(Debug, Clone)]
pub(super) struct Retry {
    /// The `inputResponses`: an object.
    pub(super) responses: Vec<u8>,
    /// The server's `requestState` as it wrote it, if it gave one.
    pub(super) state: Option<Vec<u8>>,
}

/// The `params` of a call as they are sent.
pub(super) fn of_call(call: &Call, dialect: &Dialect<'_>, retry: Option<&Retry>) -> Vec<u8> {
    let root = call.params.root();
    let meta = meta(root.get("_meta"), dialect);
    let name = match &call.action {
        Action::Tool(tool) => Some(quote(tool.tool())),
        _ => None,
    };
    let mut edits = judged(call, name.as_deref());
    match &meta {
        Some(meta) => edits.push(("_meta", Edit::Set(meta))),
        None => edits.push(("_meta", Edit::Remove)),
    }
    match retry {
        Some(Retry { responses, state }) => {
            edits.push(("inputResponses", Edit::Set(responses)));
            edits.push(("requestState", state.as_deref().map_or(Edit::Remove, Edit::Set)));
        }
        None if !dialect.modern => {
            edits.push(("inputResponses", Edit::Remove));
            edits.push(("requestState", Edit::Remove));
        }
        None => {}
    }
    root.rewrite(&edits)
}

/// What is asked of an agent on a server's behalf.
pub(super) fn of_ask(call: &Call) -> Vec<u8> {
    call.params.root().rewrite(&judged(call, None))
}

/// The members of `params` that were judged, as the canonical bytes that were judged.
fn judged<'a>(call: &'a Call, name: Option<&'a str>) -> Vec<(&'a str, Edit<'a>)> {
    match name {
        Some(name) => {
            vec![("name", Edit::Set(name.as_bytes())), ("arguments", Edit::Set(call.arguments.as_bytes()))]
        }
        None => call.arguments.root().members().map(|(key, value)| (key, Edit::Set(value.raw()))).collect(),
    }
}

fn meta(theirs: Option<Value<'_>>, dialect: &Dialect<'_>) -> Option<Vec<u8>> {
    let theirs = theirs.filter(|meta| meta.is_object());
    let token = theirs.and_then(|meta| meta.get("progressToken")).map(|_| dialect.number.to_string());
    let token = token.as_ref().map_or(Edit::Remove, |token| Edit::Set(token.as_bytes()));
    let mut edits = vec![("progressToken", token), (SUBSCRIPTION, Edit::Remove)];
    let (version, info) = (quote(MODERN), client_info());
    let level = dialect.log_level.map(quote);
    if dialect.modern {
        if let Some(level) = &level {
            edits.push((LOG_LEVEL, Edit::Set(level.as_bytes())));
        }
        edits.push((VERSION, Edit::Set(version.as_bytes())));
        edits.push((INFO, Edit::Set(&info)));
        edits.push((CAPABILITIES, Edit::Set(dialect.capabilities)));
        let empty = Document::parse(b"{}".to_vec(), &toolgate_core::json::Limits::default()).ok()?;
        return Some(theirs.unwrap_or_else(|| empty.root()).rewrite(&edits));
    }
    for key in [VERSION, INFO, CAPABILITIES, LOG_LEVEL] {
        edits.push((key, Edit::Remove));
    }
    theirs.map(|meta| meta.rewrite(&edits)).filter(|bytes| bytes != b"{}")
}
