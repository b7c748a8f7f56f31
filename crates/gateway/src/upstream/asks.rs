//! What servers ask of agents: judged one by one, put to a legacy agent, or passed on to a modern one as the
//! `input_required` result of its call.

use std::sync::Arc;

use bytes::Bytes;
use toolgate_broker::outcome::{Answer, Outcome, Reply};
use toolgate_broker::port::{AgentLine, Agentward, BoxFuture, Client, Clock, Handle};
use toolgate_core::call::{Action, Call, CallId, Carries};
use toolgate_core::digest::Digest;
use toolgate_core::json::{Document, Edit, ObjectWriter, Value};

use super::config::Asks;
use super::link::{error_answer, object, parsed};
use super::params::Retry;
use super::parked::random;
use super::passed;
use super::peer::MODERN;
use crate::rpc;

/// How many requests one `input_required` result may have.
const MAX_REQUESTS: usize = 64;

/// For whom, and in the course of what, an agent is asked.
pub(super) struct Asking<'a> {
    pub(super) call: &'a Call,
    pub(super) line: &'a AgentLine,
    pub(super) nested: &'a Arc<dyn Handle>,
    pub(super) clock: &'a dyn Clock,
    pub(super) asks: Asks,
}

/// What came of one request of a server.
pub(super) enum Judged {
    /// The agent answered.
    Answered(Answer),
    /// The rules, a person or the agent's own declaration stand against it.
    Denied,
    /// It may be put to the agent, in the result of its call.
    PassOn,
}

/// What came of an `input_required` result.
pub(super) enum Settled {
    /// The agent gets this.
    Final(Answer),
    /// The agent gets this and is to come back, with answers to the questions of these keys.
    PassedOn(Answer, Vec<Digest>),
    /// The server gets these answers, in a retry.
    Retry(Retry),
}

/// Whether a client speaks a modern version.
pub(crate) fn is_modern(client: &Client) -> bool {
    // Versions are dates.
    client.version.as_str() >= MODERN
}

/// Which kind of call a server's request is.
pub(super) fn action_of(method: &str) -> Option<Action> {
    match method {
        "elicitation/create" => Some(Action::Elicit),
        "roots/list" => Some(Action::ListRoots),
        "sampling/createMessage" => Some(Action::Sample),
        _ => None,
    }
}

/// The answer to a legacy server whose request was denied.
pub(super) fn denial(action: &Action) -> Answer {
    match action {
        Action::Elicit => Answer::Result(object(r#"{"action":"decline"}"#)),
        // The code that the specification shows for a user who says no.
        _ => error_answer(-1, "the request was denied"),
    }
}

/// What the agent is told when its call cannot go on, in a form that models see.
pub(super) fn refused(action: &Action, text: &str) -> Answer {
    match action {
        Action::Tool(_) => {
            let content = ObjectWriter::new().string("type", "text").string("text", text).finish();
            let list = [b"[".as_slice(), &content, b"]"].concat();
            Answer::Result(parsed(ObjectWriter::new().raw("content", &list).bool("isError", true).finish()))
        }
        _ => error_answer(rpc::INTERNAL_ERROR, text),
    }
}

impl Asking<'_> {
    /// Judges one request of a server, and puts it to the agent if it can be asked at once.
    pub(super) async fn judge(&self, action: Action, params: Option<Value<'_>>) -> Judged {
        let empty = object("{}");
        let params = params.unwrap_or_else(|| empty.root());
        if !params.is_object() || !self.declared(&action, params) {
            return Judged::Denied;
        }
        // Its `_meta` belongs to the upstream leg.
        let params = parsed(params.rewrite(&[("_meta", Edit::Remove)]));
        let (Ok(arguments), Ok(random)) = (params.root().canonical(), random::<10>()) else {
            return Judged::Denied;
        };
        let call = Call {
            id: CallId::new(self.clock.now_ms(), random),
            agent: Arc::clone(&self.call.agent),
            session: self.call.session.clone(),
            action,
            server: self.call.server.clone(),
            pin: None,
            arguments,
            params,
            carries: Carries::default(),
        };
        let modern = is_modern(self.line.client());
        let line: AgentLine =
            if modern { Arc::new(Later(Arc::clone(self.line))) } else { Arc::clone(self.line) };
        match self.nested.handle(call, line).await {
            Ok(Reply { delivery, outcome: Outcome::Ran(answer), receipt: _ }) => {
                self.nested.delivered(delivery.call);
                match answer.into_inner() {
                    Answer::Result(_) if modern => Judged::PassOn,
                    answer => Judged::Answered(answer),
                }
            }
            Ok(_) | Err(_) => Judged::Denied,
        }
    }

    /// Whether the agent declared that it can be asked this, and the operator lets the server ask it.
    fn declared(&self, action: &Action, params: Value<'_>) -> bool {
        let Asks { elicitation, roots, sampling } = self.asks;
        let Some(capabilities) = &self.line.client().capabilities else { return false };
        let has = |name: &str| capabilities.root().get(name).filter(|c| c.is_object());
        match action {
            Action::Elicit => match params.get("mode").map(|mode| mode.as_str()) {
                None | Some(Some("form")) => elicitation && has("elicitation").is_some_and(takes_forms),
                Some(Some("url")) => {
                    elicitation && has("elicitation").is_some_and(|c| c.get("url").is_some())
                }
                Some(_) => false,
            },
            Action::ListRoots => roots && has("roots").is_some(),
            Action::Sample => {
                let tools = params.get("tools").is_some() || params.get("toolChoice").is_some();
                sampling && has("sampling").is_some_and(|c| !tools || c.get("tools").is_some())
            }
            Action::Complete
            | Action::GetPrompt
            | Action::ReadResource
            | Action::Subscribe
            | Action::TaskCancel
            | Action::TaskGet
            | Action::TaskUpdate
            | Action::Tool(_) => false,
        }
    }

    /// What a task wants of the agent before it goes on: each request is judged, and what is denied is left out. The task then
    /// waits until the agent cancels it. Gives the keys of what is left as well.
    pub(super) async fn of_task(&self, result: &Document) -> (Answer, Vec<Digest>) {
        let root = result.root();
        let Some(requests) = root.get("inputRequests") else {
            return (Answer::Result(result.clone()), Vec::new());
        };
        let (mut kept, mut keys) = (ObjectWriter::new(), Vec::new());
        for (key, request) in requests.members().take(MAX_REQUESTS) {
            let action = request.get("method").and_then(|method| method.as_str()).and_then(action_of);
            if let Some(action) = action
                && matches!(self.judge(action, request.get("params")).await, Judged::PassOn)
            {
                kept = kept.raw(key, request.raw());
                keys.push(passed::key(key));
            }
        }
        let kept = kept.finish();
        (Answer::Result(parsed(root.rewrite(&[("inputRequests", Edit::Set(&kept))]))), keys)
    }

    /// Deals with all that a modern server wants before it goes on.
    pub(super) async fn settle(&self, result: &Document) -> Settled {
        let root = result.root();
        let wrong = |text| Settled::Final(refused(&self.call.action, text));
        if !matches!(self.call.action, Action::GetPrompt | Action::ReadResource | Action::Tool(_)) {
            return wrong("The server asked for input where it may not.");
        }
        let state =
            root.get("requestState").filter(|state| state.is_string()).map(|state| state.raw().to_vec());
        let requests = root.get("inputRequests").filter(|requests| requests.is_object());
        if requests.is_none() && state.is_none() || requests.is_some_and(|r| r.len() > MAX_REQUESTS) {
            return wrong("The server asked for input in a form that is not known.");
        }
        let (mut responses, mut passed, mut denied) = (ObjectWriter::new(), Vec::new(), false);
        for (key, request) in requests.into_iter().flat_map(|requests| requests.members()) {
            let Some(action) = request.get("method").and_then(|m| m.as_str()).and_then(action_of) else {
                return wrong("The server asked for input of a kind that is not known.");
            };
            let elicits = action == Action::Elicit;
            match self.judge(action, request.get("params")).await {
                Judged::Answered(Answer::Result(answer)) => {
                    responses = responses.raw(key, answer.root().raw())
                }
                Judged::PassOn => passed.push((key, request)),
                Judged::Answered(Answer::Error(_)) | Judged::Denied if elicits => {
                    responses = responses.raw(key, br#"{"action":"decline"}"#);
                    denied = true;
                }
                // Of these there is no form that says no.
                Judged::Answered(Answer::Error(_)) | Judged::Denied if passed.is_empty() => {
                    return wrong("The server asked for something of the agent that is not permitted.");
                }
                Judged::Answered(Answer::Error(_)) | Judged::Denied => denied = true,
            }
        }
        if !is_modern(self.line.client()) {
            return Settled::Retry(Retry { responses: responses.finish(), state });
        }
        let keys = passed.iter().map(|(key, _)| passed::key(key)).collect();
        match (passed.as_slice(), denied) {
            // What was denied is left out; the server asks for it again if it cannot do without, and then hears no.
            ([_, ..], true) => {
                let kept =
                    passed.iter().fold(ObjectWriter::new(), |out, (key, value)| out.raw(key, value.raw()));
                let edits = [("inputRequests", Edit::Set(&kept.finish()))];
                Settled::PassedOn(Answer::Result(parsed(root.rewrite(&edits))), keys)
            }
            ([], true) => Settled::Retry(Retry { responses: responses.finish(), state }),
            (_, false) => Settled::PassedOn(Answer::Result(result.clone()), keys),
        }
    }
}

/// An empty declaration means forms, as it did before there were URLs.
fn takes_forms(capability: Value<'_>) -> bool {
    capability.get("form").is_some() || capability.get("url").is_none()
}

/// Stands in for a modern agent while a server's request is judged: the agent cannot be asked now, but it will find the
/// request in the result of its call. What reaches `ask` was permitted.
struct Later(AgentLine);

impl Agentward for Later {
    fn notify(&self, method: &str, params: Bytes) {
        self.0.notify(method, params);
    }

    fn ask(&self, _method: &str, _params: Bytes) -> BoxFuture<'_, Answer> {
        Box::pin(async { Answer::Result(object(r#"{"_meta":{"toolgate/passedOn":true}}"#)) })
    }

    fn waiting(&self, question: &str, waited_s: u64) {
        self.0.waiting(question, waited_s);
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        self.0.gone()
    }

    fn client(&self) -> &Client {
        self.0.client()
    }
}

/// What the agent answered to the server's request, in the retry of its call.
pub(super) fn response_to<'a>(call: &'a Call, key: &str) -> Option<Value<'a>> {
    call.params.root().path(&["inputResponses", key]).filter(|response| response.is_object())
}

/// The result that puts a legacy server's request to a modern agent.
pub(super) fn input_required(key: &str, request: &rpc::Request, state: &str) -> Answer {
    let mut asked = ObjectWriter::new().string("method", &request.method);
    if let Some(params) = &request.params {
        asked = asked.raw("params", &params.root().rewrite(&[("_meta", Edit::Remove)]));
    }
    let requests = ObjectWriter::new().raw(key, &asked.finish()).finish();
    Answer::Result(parsed(
        ObjectWriter::new()
            .string("resultType", "input_required")
            .raw("inputRequests", &requests)
            .string("requestState", state)
            .finish(),
    ))
}
