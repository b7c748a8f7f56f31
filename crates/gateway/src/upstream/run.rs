//! Running one authorized call: sent once, followed to its end, and told to stop in time.

use std::sync::Arc;

use tokio::time::timeout;
use toolgate_broker::authorized::Authorized;
use toolgate_broker::config::profiles::Per;
use toolgate_broker::outcome::Answer;
use toolgate_broker::port::{AgentLine, Executed, Handle, Stop, StopReason};
use toolgate_core::call::{Action, Call};
use toolgate_core::json::{Document, Edit};
use toolgate_core::scrub::Raw;
use toolgate_core::verdict::Obligations;

use super::asks::{
    Asking, Judged, Settled, action_of, denial, input_required, is_modern, refused, response_to,
};
use super::connection::Connection;
use super::link::{Event, Link, Outgoing, Pending, error_answer, object, parsed};
use super::params::{Dialect, Retry, capabilities, of_ask, of_call};
use super::parked::{ParkError, ParkedCalls};
use super::passed;
use super::results::{Kind, Legs, kind, translate};
use super::{Inner, UpstreamError};
use crate::rpc;
use crate::{headers, port};

/// How often a server may ask for more before it answers.
const MAX_ROUNDS: usize = 8;
/// What we call a legacy server's request in the result for a modern agent.
const REQUEST_KEY: &str = "toolgate-request";

/// One call on its way.
struct Run<'a> {
    inner: &'a Inner,
    call: &'a Call,
    definition: Option<Document>,
    line: &'a AgentLine,
    nested: &'a Arc<dyn Handle>,
}

/// How following a request ended.
enum Followed {
    Answered(Answer),
    Over(Executed),
    /// The agent has to be asked, in the result of its call.
    Parked(Answer),
}

/// Runs a call.
pub(super) async fn run(
    inner: &Inner,
    call: Authorized<Call>,
    line: AgentLine,
    mut stop: Stop,
    nested: Arc<dyn Handle>,
) -> Executed {
    let definition = call.tool().map(|accepted| accepted.tool.definition.clone());
    // Time is kept by whoever holds the other end of `stop`; the size of what is shown is bounded where it is cleaned.
    let (call, Obligations { timeout_ms: _, max_result_bytes: _ }) = call.into_parts();
    match &call.action {
        Action::Elicit | Action::ListRoots | Action::Sample => {
            Run { inner, call: &call, definition, line: &line, nested: &nested }.ask_agent(&mut stop).await
        }
        Action::Complete
        | Action::GetPrompt
        | Action::ReadResource
        | Action::Subscribe
        | Action::TaskCancel
        | Action::TaskGet
        | Action::TaskUpdate
        | Action::Tool(_) => match with_answers_to_what_was_asked(inner, call) {
            Ok(call) => {
                Run { inner, call: &call, definition, line: &line, nested: &nested }.send(&mut stop).await
            }
            Err(executed) => executed,
        },
    }
}

/// The call without answers to what this agent was not asked for it: see [`passed`].
fn with_answers_to_what_was_asked(inner: &Inner, mut call: Call) -> Result<Call, Executed> {
    let root = call.params.root();
    let (state, responses) = (root.get("requestState"), root.get("inputResponses"));
    let now_ms = inner.clock.now_ms();
    let asked = match (state.map(|state| state.as_str()), responses) {
        (None, None) => return Ok(call),
        // It is sealed and used once itself, and only the answer to its own question is looked at.
        (Some(Some(state)), _) if ParkedCalls::is_ours(state) => return Ok(call),
        (None, Some(responses)) if call.action == Action::TaskUpdate => {
            let about = passed::task(&call);
            let asked = inner.passed.take(about, now_ms).unwrap_or_default();
            let answered: Vec<_> = responses.members().map(|(key, _)| passed::key(key)).collect();
            let left = asked.iter().filter(|key| !answered.contains(key)).copied().collect();
            inner.await_answers(&call, about, left);
            asked
        }
        (Some(Some(state)), _) => {
            inner.passed.take(passed::round(&call, Some(state)), now_ms).ok_or(Executed::NotAwaited)?
        }
        (Some(None), _) => return Err(Executed::NotAwaited),
        (None, Some(_)) => inner.passed.take(passed::round(&call, None), now_ms).unwrap_or_default(),
    };
    call.params = passed::only(&call.params, &asked);
    Ok(call)
}

fn answered(answer: Answer) -> Executed {
    Executed::Answered(Raw::new(answer))
}

const fn stopped(reason: StopReason) -> Executed {
    match reason {
        StopReason::Deadline => Executed::TimedOut,
        StopReason::Gone => Executed::Cancelled,
    }
}

impl Run<'_> {
    /// Notes for the log what the server of this connection runs in.
    fn note_cell(&self, connection: &Connection, stop: &Stop) {
        if let Link::Stdio(link) = connection.link()
            && let Some(cell) = &link.0.cell
        {
            stop.runs_in(cell.clone(), self.inner.per(&self.call.server));
        }
    }

    /// Asks the agent what a server wants of it.
    async fn ask_agent(&self, stop: &mut Stop) -> Executed {
        let method = self.call.action.to_string();
        tokio::select! {
            answer = self.line.ask(&method, of_ask(self.call).into()) => answered(answer),
            reason = stop.stopped() => stopped(reason),
        }
    }

    /// Sends the call to its server, in as many rounds as it takes.
    async fn send(&self, stop: &mut Stop) -> Executed {
        let state = self.call.params.root().get("requestState").and_then(|state| state.as_str());
        if let Some(state) = state.filter(|state| ParkedCalls::is_ours(state)) {
            return Box::pin(self.resume(state, stop)).await;
        }
        if self.call.action == Action::Subscribe && self.inner.per(&self.call.server) == Per::Call {
            return Executed::NotSent(
                "the server is gone when the call is, and tells of no changes".to_owned(),
            );
        }
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared,
            _reason = stop.stopped() => return Executed::NotSent("stopped before it was sent".to_owned()),
        };
        let connection = match prepared {
            Ok(connection) => connection,
            Err(error) => return Executed::NotSent(error.to_string()),
        };
        self.note_cell(&connection, stop);
        if self.call.action == Action::Subscribe && connection.peer().modern {
            return Box::pin(self.subscribe(&connection, stop)).await;
        }
        let mut retry = None;
        for round in 0..=MAX_ROUNDS {
            let pending = match self.start(&connection, retry.as_ref()).await {
                Ok(pending) => pending,
                // A server that has answered a round has acted on the call, whatever became of the next one.
                Err(Executed::NotSent(why)) if round > 0 => return Executed::Lost(why),
                Err(executed) => return executed,
            };
            let answer = match self.follow(&connection, pending, stop).await {
                Followed::Answered(answer) => answer,
                Followed::Over(Executed::NotSent(why)) if round > 0 => return Executed::Lost(why),
                Followed::Over(executed) => return executed,
                Followed::Parked(answer) => return answered(answer),
            };
            retry = match self.settle(&connection, answer, stop).await {
                Ok(retry) => Some(retry),
                Err(executed) => return executed,
            };
        }
        answered(refused(&self.call.action, "The server kept asking for input and never answered."))
    }

    /// Opens the connection and makes sure that what was accepted is what will run.
    async fn prepare(&self) -> Result<Arc<Connection>, UpstreamError> {
        let connection = self.inner.open(&self.call.server, &self.call.session, self.line.client()).await?;
        if let Action::Tool(tool) = &self.call.action {
            let Some(pin) = &self.call.pin else {
                return Err(connection.lost(format!("tool `{}` has no accepted definition", tool.tool())));
            };
            connection.check_pin(tool.tool(), pin).await?;
        }
        Ok(connection)
    }

    async fn start(&self, connection: &Connection, retry: Option<&Retry>) -> Result<Pending, Executed> {
        let modern = connection.peer().modern;
        let number = connection.link().next_number();
        let level = if modern && !is_modern(self.line.client()) {
            self.inner.log_level(&self.call.session)
        } else {
            None
        };
        let capabilities = match modern {
            true => {
                let declared = self.line.client().capabilities.as_ref();
                capabilities(declared, self.inner.asks(&self.call.server), self.may_have_tasks())
            }
            false => Vec::new(),
        };
        let dialect = Dialect { modern, capabilities: &capabilities, number, log_level: level.as_deref() };
        let params = of_call(self.call, &dialect, retry);
        let arguments = self.call.arguments.root();
        let task = || arguments.get("taskId").and_then(|id| id.as_str());
        let (method, name) = match &self.call.action {
            Action::Complete => ("completion/complete", None),
            Action::GetPrompt => ("prompts/get", arguments.get("name").and_then(|name| name.as_str())),
            Action::ReadResource => ("resources/read", arguments.get("uri").and_then(|uri| uri.as_str())),
            Action::Subscribe => ("resources/subscribe", None),
            Action::TaskCancel => ("tasks/cancel", task()),
            Action::TaskGet => ("tasks/get", task()),
            Action::TaskUpdate => ("tasks/update", task()),
            Action::Tool(tool) => ("tools/call", Some(tool.tool())),
            Action::Elicit | Action::ListRoots | Action::Sample => {
                return Err(Executed::NotSent("this is asked of agents, not of servers".to_owned()));
            }
        };
        let mirrored = match (connection.link(), modern) {
            (Link::Http(_), true) => self.mirrored()?,
            (Link::Http(_), false) | (Link::Stdio(_), _) => Vec::new(),
        };
        let outgoing = Outgoing { number, method, params: &params, name, mirrored, call: true };
        connection.link().start(outgoing).await.map_err(|failure| match failure.into() {
            Event::NotSent(why) => Executed::NotSent(why),
            Event::Lost(why) => Executed::Lost(why),
            Event::Answer(_) | Event::Ask(_) | Event::Notice(_) | Event::Status { .. } => {
                Executed::Lost("the request ended before it began".to_owned())
            }
        })
    }

    /// Whether the agent may follow up on tasks at this server. If not, its calls do not become any.
    fn may_have_tasks(&self) -> bool {
        // One that is gone when the call is has none.
        self.inner.per(&self.call.server) == Per::Session
            && self.nested.rulebook().may_see(&self.call.agent, &self.call.server, &Action::TaskGet)
    }

    /// The arguments that the accepted definition wants repeated in headers.
    fn mirrored(&self) -> Result<Vec<(String, String)>, Executed> {
        let Some(schema) = self.definition.as_ref().and_then(|d| d.root().get("inputSchema")) else {
            return Ok(Vec::new());
        };
        let wanted = headers::params(schema).map_err(|error| Executed::NotSent(error.to_string()))?;
        let arguments = self.call.arguments.root();
        Ok(wanted
            .into_iter()
            .filter_map(|header| header.value(arguments).map(|value| (header.header, value)))
            .collect())
    }

    /// Waits for the answer to a request, passes on what is told along the way, and sees that the server is told to stop.
    async fn follow(&self, connection: &Arc<Connection>, mut pending: Pending, stop: &mut Stop) -> Followed {
        loop {
            let event = tokio::select! {
                event = pending.next() => event,
                reason = stop.stopped() => return self.stop(connection, pending, reason).await,
            };
            match event {
                Event::Answer(answer) => return Followed::Answered(answer),
                Event::Ask(request) => {
                    let judged = tokio::select! {
                        judged = self.judge(&request) => judged,
                        reason = stop.stopped() => {
                            connection.link().reply(&request.id, &error_answer(rpc::INTERNAL_ERROR, "the call was stopped"));
                            return self.stop(connection, pending, reason).await;
                        }
                    };
                    let answer = match judged {
                        Judged::Answered(answer) => answer,
                        Judged::Denied => action_of(&request.method)
                            .map_or_else(super::link::outside_a_call, |a| denial(&a)),
                        Judged::PassOn => match self.park(connection, pending, request) {
                            Ok(answer) => return Followed::Parked(answer),
                            Err(why) => return Followed::Over(Executed::Lost(why)),
                        },
                    };
                    connection.link().reply(&request.id, &answer);
                }
                Event::Lost(why) => return Followed::Over(Executed::Lost(why)),
                Event::NotSent(why) => return Followed::Over(Executed::NotSent(why)),
                Event::Notice(notice) => self.tell(notice),
                Event::Status { code, error } => return of_status(connection, code, error),
            }
        }
    }

    async fn judge(&self, request: &rpc::Request) -> Judged {
        match action_of(&request.method) {
            Some(action) => self.asking().judge(action, request.params.as_ref().map(Document::root)).await,
            None => Judged::Denied,
        }
    }

    fn asking(&self) -> Asking<'_> {
        Asking {
            call: self.call,
            line: self.line,
            nested: self.nested,
            clock: &*self.inner.clock,
            asks: self.inner.asks(&self.call.server),
        }
    }

    /// Passes on what the server tells along the way: the agent's own progress token takes the place of ours.
    fn tell(&self, notice: rpc::Notification) {
        let Some(params) = notice.params else { return };
        let token = self.call.params.root().path(&["_meta", "progressToken"]);
        match (notice.method.as_str(), token) {
            ("notifications/progress", Some(token)) => {
                let params = params.root().rewrite(&[("progressToken", Edit::Set(token.raw()))]);
                self.line.notify(&notice.method, params.into());
            }
            ("notifications/message", _) => self.line.notify(&notice.method, params.to_bytes()),
            _ => {}
        }
    }

    /// Tells the server to stop, and gives it a little time to answer all the same.
    async fn stop(&self, connection: &Connection, mut pending: Pending, reason: StopReason) -> Followed {
        if connection.peer().modern && matches!(pending, Pending::Http(_)) {
            // Closing the stream is what says it; there is nothing to wait for.
            return Followed::Over(stopped(reason));
        }
        connection.cancel(pending.number());
        let last = timeout(self.inner.bounds(&self.call.server).grace, async {
            loop {
                match pending.next().await {
                    Event::Ask(request) => {
                        let no = error_answer(rpc::INTERNAL_ERROR, "the call was stopped");
                        connection.link().reply(&request.id, &no);
                    }
                    Event::Notice(_) => {}
                    last => return last,
                }
            }
        });
        match last.await {
            Ok(Event::Answer(answer)) => Followed::Answered(answer),
            Ok(Event::NotSent(why)) => Followed::Over(Executed::NotSent(why)),
            Ok(_) | Err(_) => Followed::Over(stopped(reason)),
        }
    }

    /// Keeps the call open at its server until the agent comes back.
    fn park(
        &self,
        connection: &Arc<Connection>,
        pending: Pending,
        request: rpc::Request,
    ) -> Result<Answer, String> {
        let wait = self.inner.bounds(&self.call.server).parked;
        let expires_ms =
            self.inner.clock.now_ms().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let asked = request.clone();
        let parked = Arc::clone(&self.inner.parked);
        let (number, state) = parked
            .park(self.call, Arc::clone(connection), pending, request, expires_ms)
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            parked.expire(&number);
        });
        Ok(input_required(REQUEST_KEY, &asked, &state))
    }

    /// Goes on with a call that was parked: the server gets the agent's answer.
    async fn resume(&self, state: &str, stop: &mut Stop) -> Executed {
        let parked = match self.inner.parked.resume(self.call, state, self.inner.clock.now_ms()) {
            Ok(parked) => parked,
            Err(ParkError::Invalid) => return Executed::NotAwaited,
            Err(error) => return Executed::NotSent(error.to_string()),
        };
        let (connection, pending, request) = parked.into_parts();
        self.note_cell(&connection, stop);
        let Some(response) = response_to(self.call, REQUEST_KEY) else {
            // The agent came back without what was asked for; the specification has it asked again.
            return match self.park(&connection, pending, request) {
                Ok(answer) => answered(answer),
                Err(why) => Executed::Lost(why),
            };
        };
        connection.link().reply(&request.id, &Answer::Result(response.to_document()));
        match self.follow(&connection, pending, stop).await {
            Followed::Answered(answer) => match self.settle(&connection, answer, stop).await {
                Ok(_retry) => answered(refused(
                    &self.call.action,
                    "The server asked for input in a form that is not known.",
                )),
                Err(executed) => executed,
            },
            Followed::Over(executed) => executed,
            Followed::Parked(answer) => answered(answer),
        }
    }

    /// What an answer means: the end, or another round.
    async fn settle(
        &self,
        connection: &Connection,
        answer: Answer,
        stop: &mut Stop,
    ) -> Result<Retry, Executed> {
        let server_modern = connection.peer().modern;
        let legs = Legs { agent_modern: is_modern(self.line.client()), server_modern };
        let kind = match &answer {
            // Legacy results have no type, so whatever a member of this name is, it is not one.
            Answer::Result(result) if server_modern => kind(result),
            Answer::Result(result) if legs.agent_modern && kind(result) != Kind::Complete => Kind::Unknown,
            Answer::Error(_) | Answer::Result(_) => Kind::Complete,
        };
        let done = |answer| Err(answered(translate(answer, &self.call.action, legs)));
        match (kind, &answer) {
            (Kind::InputRequired, Answer::Result(result)) => {
                let asking = self.asking();
                let settled = tokio::select! {
                    settled = asking.settle(result) => settled,
                    reason = stop.stopped() => return Err(stopped(reason)),
                };
                match settled {
                    Settled::Final(answer) => done(answer),
                    Settled::PassedOn(answer, keys) => {
                        let state = result.root().get("requestState").and_then(|state| state.as_str());
                        self.inner.await_answers(self.call, passed::round(self.call, state), keys);
                        done(answer)
                    }
                    Settled::Retry(retry) => Ok(retry),
                }
            }
            (Kind::Complete, Answer::Result(result)) if self.call.action == Action::TaskGet => {
                let asking = self.asking();
                tokio::select! {
                    (answer, keys) = asking.of_task(result) => {
                        let about = passed::task(self.call);
                        drop(self.inner.passed.take(about, self.inner.clock.now_ms()));
                        self.inner.await_answers(self.call, about, keys);
                        done(answer)
                    }
                    reason = stop.stopped() => Err(stopped(reason)),
                }
            }
            (Kind::Task, _)
                if legs.agent_modern
                    && matches!(self.call.action, Action::Tool(_))
                    && self.may_have_tasks() =>
            {
                // What it asks is asked when the agent looks after it.
                let without =
                    |result: &Document| parsed(result.root().rewrite(&[("inputRequests", Edit::Remove)]));
                done(match &answer {
                    Answer::Result(result) if result.root().get("inputRequests").is_some() => {
                        Answer::Result(without(result))
                    }
                    Answer::Error(_) | Answer::Result(_) => answer,
                })
            }
            (Kind::Task | Kind::Unknown, _) => done(refused(
                &self.call.action,
                "The server answered with a kind of result that is not known.",
            )),
            (Kind::Complete | Kind::InputRequired, _) => done(answer),
        }
    }

    /// A modern server has no request for it: the resource joins what it is listened to for.
    async fn subscribe(&self, connection: &Connection, stop: &mut Stop) -> Executed {
        let Some(uri) = self.call.arguments.root().get("uri").and_then(|uri| uri.as_str()) else {
            return Executed::NotSent("there is no `uri` to subscribe to".to_owned());
        };
        let legs = Legs { agent_modern: is_modern(self.line.client()), server_modern: true };
        tokio::select! {
            subscribed = connection.subscribe(uri) => match subscribed {
                Ok(()) => answered(translate(Answer::Result(object("{}")), &self.call.action, legs)),
                Err(error) => Executed::Lost(error.to_string()),
            },
            reason = stop.stopped() => stopped(reason),
        }
    }
}

/// What an HTTP status says about a call.
fn of_status(connection: &Connection, code: u16, error: Option<Document>) -> Followed {
    match (code, error) {
        (_, Some(error)) => {
            let code = error.root().get("code").and_then(|code| code.as_i64());
            if code == Some(rpc::UNSUPPORTED_VERSION) {
                // It is no longer what was agreed with. The next call agrees anew.
                connection.link().fail("the server no longer speaks the version that was agreed on");
            }
            Followed::Answered(Answer::Error(error))
        }
        (300..=499, None) => {
            Followed::Answered(error_answer(rpc::INTERNAL_ERROR, &format!("the server answered HTTP {code}")))
        }
        (_, None) => Followed::Over(Executed::Lost(format!("the server answered HTTP {code}"))),
    }
}

/// Which list an offer is: the capability, the method, and the member of its result.
pub(super) const fn list_of(offer: port::Offer) -> (&'static str, &'static str, &'static str) {
    match offer {
        port::Offer::Prompts => ("prompts", "prompts/list", "prompts"),
        port::Offer::ResourceTemplates => ("resources", "resources/templates/list", "resourceTemplates"),
        port::Offer::Resources => ("resources", "resources/list", "resources"),
    }
}
