//! One way through. Every call, from every adapter, takes [`Broker::handle`] and no other way.
//!
//! There is no middleware: the order is the security property, so the order is what one sees.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use toolgate_core::call::{Action, Call, CallId, Carries, Revealed};
use toolgate_core::json::Document;
use toolgate_core::name::AgentId;
use toolgate_core::policy::Facts;
use toolgate_core::refusal::Refusal;
use toolgate_core::scrub::Raw;
use toolgate_core::tool::Effect;
use toolgate_core::verdict::{Obligations, Verdict};

use crate::authorized::{self, Authorized, Entry, Gate, Grounds};
use crate::desk::{self, NoYes, Yes};
use crate::lines::{self, RefusedBy, Told};
use crate::outcome::{Answer, Delivery, Live, LiveCalls, Outcome, Receipt, Reply, WithheldWhy};
use crate::port::{
    AgentLine, BoxFuture, Clock, Closing, Executed, Executor, Handle, Repeat, Stop, StopReason, Store,
    StoreError, Unread, UnsearchableError,
};
use crate::reveal;
use crate::rulebook::{AcceptedTool, Rulebook};
use crate::scrub::{self, Cleaning};
use crate::unstoppable::Unstoppable;

/// How long the answer of a call that does more than read is kept for a client that lost it, in milliseconds.
pub const REPEAT_WINDOW_MS: u64 = 600_000;

/// How many calls of one agent may be under way at once.
pub const MAX_CALLS_PER_AGENT: usize = 256;

/// How many questions of one agent may wait for people: a hijacked agent must not bury the one that matters.
pub const MAX_OPEN_QUESTIONS_PER_AGENT: usize = 32;

/// How long an executor may take to return once it was told to stop. It has its own, shorter grace time for the server.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long what another process wrote, such as a person who was enrolled, may take until it is in the rulebook.
const NEWS: Duration = Duration::from_secs(2);

/// How often a call is judged anew because its approval was gone or the rules were others when it was to be opened.
const MAX_ATTEMPTS: usize = 8;

/// What is larger is looked through where nobody else waits for it, in bytes.
const LARGE: usize = 64 << 10;

/// The pipeline and what it works with.
pub struct Broker<S, E, C> {
    inner: Arc<Inner<S, E, C>>,
}

impl<S, E, C> Clone for Broker<S, E, C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<S, E, C> {
    store: Arc<S>,
    executor: E,
    clock: C,
    rulebook: ArcSwap<Rulebook>,
    replaced: Notify,
    /// How many calls each agent has under way. Guards nothing else.
    under_way: Mutex<HashMap<AgentId, usize>>,
    /// The calls under way or with an answer on its way.
    live: LiveCalls,
}

impl<S: Store, E: Executor, C: Clock> Handle for Broker<S, E, C> {
    fn handle(&self, call: Call, line: AgentLine) -> BoxFuture<'_, Result<Reply, Refusal>> {
        Box::pin(Self::handle(self, call, line))
    }

    fn refuse(&self, unread: Unread) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let line =
                lines::unread(&self.inner.clock, &unread).map_err(|_unwritable| Refusal::Unavailable)?;
            self.inner.store.append(line).await.map(drop).map_err(|_store| Refusal::Unavailable)
        })
    }

    fn delivered(&self, call: CallId) {
        self.inner.store.delivered(call);
    }

    fn rulebook(&self) -> Arc<Rulebook> {
        Self::rulebook(self)
    }
}

impl<S: Store, E: Executor, C: Clock> Broker<S, E, C> {
    /// Puts the parts together.
    pub fn new(store: Arc<S>, executor: E, clock: C, rulebook: Rulebook) -> Self {
        let under_way = Mutex::default();
        Self {
            inner: Arc::new(Inner {
                store,
                executor,
                clock,
                rulebook: ArcSwap::from_pointee(rulebook),
                replaced: Notify::new(),
                under_way,
                live: LiveCalls::default(),
            }),
        }
    }

    /// What is in force now.
    pub fn rulebook(&self) -> Arc<Rulebook> {
        self.inner.rulebook.load_full()
    }

    /// Puts other rules in force. Calls that were judged go on; questions asked under another policy are void.
    pub fn replace_rulebook(&self, rulebook: Rulebook) {
        let scrub = rulebook.scrub.clone().after(&self.rulebook().scrub);
        self.inner.rulebook.store(Arc::new(Rulebook { scrub, ..rulebook }));
        self.inner.replaced.notify_waiters();
    }

    /// The store.
    pub fn store(&self) -> &Arc<S> {
        &self.inner.store
    }

    /// The executor.
    pub fn executor(&self) -> &E {
        &self.inner.executor
    }

    /// Takes one call all the way: judged, asked about, written down, run, cleaned, written down.
    ///
    /// Dropping the future cancels nothing between open and close: the call then goes on by itself. The agent's
    /// [`gone`](crate::port::Agentward::gone) is what tells a running call to stop.
    ///
    /// # Errors
    /// What the agent is told when the call did not run. The refusal is on the log.
    pub fn handle(&self, call: Call, line: AgentLine) -> Unstoppable<Result<Reply, Refusal>> {
        let broker = self.clone();
        Unstoppable::new(async move { broker.pipeline(call, line).await })
    }

    /// Closes what a crash left open: each gets the outcome `outcome_unknown`, and none is run again. Done before the
    /// first call is taken. Returns how many there were.
    ///
    /// # Errors
    /// The store failed; then nothing may be taken.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let open = self.inner.store.open_calls().await?;
        for &(call, intent) in &open {
            let line = lines::outcome_unknown(&self.inner.clock, call, intent)?;
            self.inner.store.close(Closing { call, line, keep: false }).await?;
        }
        Ok(open.len())
    }

    async fn pipeline(&self, mut call: Call, line: AgentLine) -> Result<Reply, Refusal> {
        let Some(_under_way) = self.enter(&call.agent.id) else {
            return Err(self.refuse(&self.rulebook(), &call, None, RefusedBy::Busy).await);
        };
        self.rulebook().scrub.begin_session(&call.session);
        let revealed = match self.reveal(&mut call).await {
            Ok(revealed) => revealed,
            Err(why) => return Err(self.refuse(&self.rulebook(), &call, None, why).await),
        };
        let (live, alone) = Live::enter(&self.inner.live, call.digest());
        let live = Some(Arc::new(live));
        call.carries = self.carries(&call).await.with_revealed(revealed);
        let (authorized, entry) = match self.authorize(call, &line, alone).await? {
            Admitted::Authorized(authorized, entry) => (authorized, entry),
            Admitted::Repeated(outcome, receipt) => {
                return Ok(Reply {
                    delivery: Delivery { call: receipt.call, _live: live },
                    outcome,
                    receipt,
                });
            }
        };
        let mut told = Told::of(authorized.get(), self.inner.clock.now_ms());
        let keep = repeats(authorized.tool().map(|tool| &**tool));
        let outcome = self.run(*authorized, line, &mut told).await;
        let receipt = self.close(entry, &told, keep, &outcome).await?;
        Ok(Reply { delivery: Delivery { call: receipt.call, _live: live }, outcome, receipt })
    }

    /// Puts values in the place of tokens, where the configuration says so. It comes first: what is judged, asked about, digested
    /// and sent are the same bytes.
    async fn reveal(&self, call: &mut Call) -> Result<BTreeSet<Revealed>, RefusedBy> {
        let rulebook = self.rulebook();
        let sinks = call.action.tool().and_then(|tool| rulebook.scrub.sinks(tool));
        let Some(sinks) = sinks.filter(|_| call.arguments.as_str().contains(reveal::OPENING)) else {
            return Ok(BTreeSet::new());
        };
        if !rulebook.may_see(&call.agent, &call.server, &call.action) {
            return Err(RefusedBy::Hidden);
        }
        let (kept, sinks) = (Arc::clone(rulebook.scrub.kept()), sinks.clone());
        let (session, arguments) = (call.session.clone(), call.arguments.clone());
        let turned = tokio::task::spawn_blocking(move || kept.reveal(&session, &sinks, &arguments)).await;
        let turned = turned.map_err(|_panicked| RefusedBy::Restless)?;
        let Some((arguments, revealed)) = turned.map_err(|error| RefusedBy::Invalid(error.to_string()))?
        else {
            return Ok(BTreeSet::new());
        };
        call.arguments = arguments;
        Ok(revealed)
    }

    /// What is in what the call would send. What cannot be looked through may hold anything.
    async fn carries(&self, call: &Call) -> Carries {
        let sent = Bytes::from(scrub::sent(call));
        let (rulebook, text) = (self.rulebook(), sent.clone());
        let look = move || rulebook.scrub.carried(&text);
        let looks_like_one = if sent.len() > LARGE {
            tokio::task::spawn_blocking(look).await.unwrap_or(Err(UnsearchableError))
        } else {
            look()
        };
        let of_the_vault = self.inner.executor.carried(call, &sent).await;
        let unsearchable = || BTreeSet::from([Carries::UNSEARCHABLE.to_owned()]);
        let mut kinds = looks_like_one.unwrap_or_else(|_error| unsearchable());
        kinds.extend(of_the_vault.map_or_else(|_error| unsearchable(), BTreeSet::from_iter));
        Carries::new(kinds)
    }

    /// Judged, approved if asked, and written down; or refused, and that written down. `alone` says that no other call is live
    /// that does the same.
    async fn authorize(&self, mut call: Call, line: &AgentLine, alone: bool) -> Result<Admitted, Refusal> {
        // An approval can be gone, or the rules be others, by the time it is used. Then everything begins again; an
        // attacker who can change the rules all the time gets a refusal.
        for _attempt in 0..MAX_ATTEMPTS {
            let rulebook = self.rulebook();
            let (verdict, tool) = match self.judge(&rulebook, &call) {
                Ok(judged) => judged,
                Err(why) => return Err(self.refuse(&rulebook, &call, None, why).await),
            };
            let (grounds, persons) = match &verdict {
                Verdict::Allow(allowed) => (Grounds::Allowed(allowed.clone()), None),
                Verdict::Ask(asked) => {
                    call = call.without_unasked_meta();
                    let Inner { store, clock, .. } = &*self.inner;
                    match Box::pin(desk::settle(&**store, clock, &rulebook, &call, asked, line)).await {
                        // Judged again when used: the loop starts over unless the very same rulebook is in force.
                        Ok(_yes) if !Arc::ptr_eq(&rulebook, &self.rulebook()) => continue,
                        // Who answered may have been enrolled after the question was asked.
                        Err(NoYes::Forged { .. }) if self.is_replaced(&rulebook).await => continue,
                        Ok(Yes { approval, persons }) => {
                            let question = approval.question.clone();
                            (Grounds::Approved(asked.clone(), approval), Some((question, persons)))
                        }
                        Err(no) => {
                            return Err(self
                                .refuse(&rulebook, &call, Some(&verdict), RefusedBy::NoYes(no))
                                .await);
                        }
                    }
                }
                Verdict::Deny(reason) => {
                    let why = RefusedBy::Denied(reason.clone());
                    return Err(self.refuse(&rulebook, &call, Some(&verdict), why).await);
                }
            };
            let yes = persons.as_ref().map(|(question, persons)| (question.as_str(), persons.as_slice()));
            let intent = match lines::intent(&self.inner.clock, &rulebook, &call, &verdict, yes) {
                Ok(intent) => intent,
                Err(_unwritable) => return Err(Refusal::Unavailable),
            };
            let may_repeat = alone && repeats(tool.as_deref());
            let cleaning = cleaning(&rulebook, &call);
            match authorized::open(&*self.inner.store, call, tool, grounds, may_repeat, intent).await {
                Ok(Gate::Authorized(authorized, entry)) => {
                    return Ok(Admitted::Authorized(Box::new(authorized), entry));
                }
                Ok(Gate::ApprovalGone(back)) => call = back,
                Ok(Gate::Repeat(repeat)) => return self.repeated(repeat, &cleaning).await,
                Err(_store) => return Err(Refusal::Unavailable),
            }
        }
        Err(self.refuse(&self.rulebook(), &call, None, RefusedBy::Restless).await)
    }

    /// Whether another rulebook is in force by now, or comes within [`NEWS`].
    async fn is_replaced(&self, rulebook: &Arc<Rulebook>) -> bool {
        let replaced = self.inner.replaced.notified();
        if Arc::ptr_eq(rulebook, &self.rulebook()) {
            let _late = tokio::time::timeout(NEWS, replaced).await;
        }
        !Arc::ptr_eq(rulebook, &self.rulebook())
    }

    /// What the rules say, after what they take for granted: that the agent may see the tool at all, that its accepted
    /// definition is the one that was shown, and that the arguments fit its schema.
    fn judge(
        &self,
        rulebook: &Rulebook,
        call: &Call,
    ) -> Result<(Verdict, Option<Arc<AcceptedTool>>), RefusedBy> {
        if !rulebook.may_see(&call.agent, &call.server, &call.action) {
            return Err(RefusedBy::Hidden);
        }
        if !rulebook.scrub.reveals(call) {
            return Err(RefusedBy::Restless);
        }
        let tool = match call.action.tool() {
            Some(name) => Some(rulebook.tools.get(name).cloned().ok_or(RefusedBy::Hidden)?),
            None => None,
        };
        if let Some(tool) = &tool {
            if call.pin != Some(tool.tool.pin) {
                return Err(RefusedBy::Unreviewed);
            }
            let arguments = call.arguments.document();
            tool.input.validate(&arguments.root()).map_err(|error| RefusedBy::Invalid(error.to_string()))?;
        }
        let facts = Facts { now_ms: self.inner.clock.now_ms() };
        let mut verdict = rulebook.policy.judge(call, &facts);
        if let (Some(limits), Some(obligations)) =
            (rulebook.limits.get(&call.server), verdict.obligations_mut())
        {
            *obligations = limits.clone();
        }
        Ok((verdict, tool))
    }

    /// Between the opening and the closing line there is no `?`: an opened entry is closed.
    async fn run(&self, call: Authorized<Call>, line: AgentLine, told: &mut Told) -> Outcome {
        let (tell, stop) = Stop::new();
        let cleaning = cleaning(&self.rulebook(), call.get());
        let outcome = self.run_until(call, cleaning.line(line), tell, stop.clone(), &cleaning).await;
        told.cell = stop.cell().map(|(gauge, per)| lines::cell(gauge, per, stop.end()));
        told.scrubbed = cleaning.counts();
        outcome
    }

    async fn run_until(
        &self,
        call: Authorized<Call>,
        line: AgentLine,
        tell: watch::Sender<Option<StopReason>>,
        stop: Stop,
        cleaning: &Cleaning,
    ) -> Outcome {
        let Obligations { timeout_ms, max_result_bytes: max_bytes } = *call.obligations();
        let tool = call.tool().cloned();
        let own = own_members(&call.get().action);
        let clean = |executed| clean(executed, Clean { cleaning: cleaning.clone(), own, max_bytes, tool });
        let nested: Arc<dyn Handle> = Arc::new(self.clone());
        let executing = self.inner.executor.execute(call, Arc::clone(&line), stop, nested);
        let mut executing = Box::pin(executing);
        let reason = tokio::select! {
            executed = &mut executing => return clean(executed).await,
            () = line.gone() => StopReason::Gone,
            () = tokio::time::sleep(Duration::from_millis(timeout_ms)) => StopReason::Deadline,
        };
        tell.send_replace(Some(reason));
        match (tokio::time::timeout(STOP_GRACE, executing).await, reason) {
            (Ok(executed), _) => clean(executed).await,
            (Err(_elapsed), StopReason::Deadline) => Outcome::TimedOut,
            (Err(_elapsed), StopReason::Gone) => Outcome::Cancelled,
        }
    }

    /// Writes the outcome down. Nothing is released before it is durable.
    async fn close(
        &self,
        entry: Entry,
        told: &Told,
        keep: bool,
        outcome: &Outcome,
    ) -> Result<Receipt, Refusal> {
        let Ok(line) = lines::outcome(&self.inner.clock, &entry, told, outcome) else {
            return Err(Refusal::Unavailable);
        };
        let (call, intent) = (entry.call(), entry.intent());
        let keep = keep && is_final(outcome);
        // COMMIT POINT: once this returns, the outcome is on the log and the answer may be released.
        match self.inner.store.close(Closing { call, line, keep }).await {
            Ok(outcome) => Ok(Receipt { call, intent, outcome }),
            Err(_store) => Err(Refusal::Unavailable),
        }
    }

    /// Writes a refusal down, and says what the agent is told. What cannot be written down is `Unavailable`, so that a
    /// broken log does not go unnoticed.
    async fn refuse(
        &self,
        rulebook: &Rulebook,
        call: &Call,
        verdict: Option<&Verdict>,
        why: RefusedBy,
    ) -> Refusal {
        let Ok(line) = lines::refusal(&self.inner.clock, rulebook, call, verdict, &why) else {
            return Refusal::Unavailable;
        };
        match self.inner.store.append(line).await {
            Ok(_position) => Refusal::from(&why),
            Err(_store) => Refusal::Unavailable,
        }
    }

    /// Releases the answer of a call that ran before and whose answer got lost on the way.
    async fn repeated(
        &self,
        Repeat { call, intent, outcome, answer }: Repeat,
        cleaning: &Cleaning,
    ) -> Result<Admitted, Refusal> {
        let (Ok(Some(answer)), Ok(line)) =
            (Answer::decode(&answer), lines::delivered(&self.inner.clock, call, outcome))
        else {
            return Err(Refusal::Unavailable);
        };
        self.inner.store.append(line).await.map_err(|_store| Refusal::Unavailable)?;
        // It was scrubbed before it was stored; the rules are applied again because they may have grown since.
        let whole = Clean { cleaning: cleaning.clone(), own: &[], max_bytes: usize::MAX, tool: None };
        let shown = clean(Executed::Answered(Raw::new(answer)), whole).await;
        Ok(Admitted::Repeated(shown, Receipt { call, intent, outcome }))
    }

    /// Counts the call among those under way; `None` if the agent has too many.
    fn enter(&self, agent: &AgentId) -> Option<UnderWay<'_>> {
        let mut counts = self.inner.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(agent.clone()).or_default();
        if *count >= MAX_CALLS_PER_AGENT {
            return None;
        }
        *count += 1;
        Some(UnderWay { counts: &self.inner.under_way, agent: agent.clone() })
    }
}

/// What came of asking for authority.
enum Admitted {
    Authorized(Box<Authorized<Call>>, Entry),
    Repeated(Outcome, Receipt),
}

/// Gives the place among the calls under way back.
struct UnderWay<'a> {
    counts: &'a Mutex<HashMap<AgentId, usize>>,
    agent: AgentId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.agent) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.agent);
            }
        }
    }
}

/// Whether a stored answer may stand in for running the call again: not where it does nothing but read, and not for
/// what is asked of the agent itself.
fn repeats(tool: Option<&AcceptedTool>) -> bool {
    tool.is_some_and(|tool| tool.tool.effects.iter().any(|effect| *effect != Effect::Read))
}

/// What takes out of what the server says about this call.
fn cleaning(rulebook: &Rulebook, call: &Call) -> Cleaning {
    rulebook.scrub.cleaning(&call.server, &call.action, &call.session)
}

/// The members of an answer by which a server knows again what it had begun. Who changes them breaks what they stand for.
const OWN: &[&str] = &["requestState", "taskId"];

/// Those that stay as they are in the answer to a call. In one that is over, they would be a way past the detectors.
const fn own_members(action: &Action) -> &'static [&'static str] {
    match action {
        Action::TaskCancel | Action::TaskGet | Action::TaskUpdate => OWN,
        Action::Complete
        | Action::Elicit
        | Action::GetPrompt
        | Action::ListRoots
        | Action::ReadResource
        | Action::Sample
        | Action::Subscribe
        | Action::Tool(_) => &[],
    }
}

/// How what came back is cleaned.
struct Clean {
    cleaning: Cleaning,
    own: &'static [&'static str],
    max_bytes: usize,
    tool: Option<Arc<AcceptedTool>>,
}

/// Turns what came back into what may be shown.
async fn clean(executed: Executed, clean: Clean) -> Outcome {
    match executed {
        Executed::Answered(raw) => {
            let large = raw.is(|answer: &Answer| answer.document().root().raw().len() > LARGE);
            let scrub = move || raw.scrub(clean.cleaning.scrubber(), |answer, _| clean.answer(answer));
            let scrubbed = if large { tokio::task::spawn_blocking(scrub).await } else { Ok(scrub()) };
            match scrubbed {
                Ok(Ok(answer)) => Outcome::Ran(answer),
                Ok(Err(why)) => Outcome::Withheld(why),
                Err(_panicked) => Outcome::Withheld(WithheldWhy::Unsearchable),
            }
        }
        Executed::Cancelled => Outcome::Cancelled,
        Executed::Lost(_why) => Outcome::Lost,
        Executed::NotAwaited => Outcome::NotAwaited,
        Executed::NotSent(_why) => Outcome::NotRun,
        Executed::TimedOut => Outcome::TimedOut,
    }
}

impl Clean {
    fn answer(&self, answer: Answer) -> Result<Answer, WithheldWhy> {
        if answer.document().root().raw().len() > self.max_bytes {
            return Err(WithheldWhy::TooLarge);
        }
        let own = if is_open(&answer) { OWN } else { self.own };
        let object = |document: &Document| {
            self.cleaning.object(document, own).map_err(|_withheld| WithheldWhy::Unsearchable)
        };
        match answer {
            Answer::Error(error) => Ok(Answer::Error(object(&error)?)),
            Answer::Result(result) => {
                let result = object(&result)?;
                // Afterwards: what is shown is what the schema promises.
                self.check_schema(&result)?;
                Ok(Answer::Result(result))
            }
        }
    }

    fn check_schema(&self, result: &Document) -> Result<(), WithheldWhy> {
        let Some(schema) = self.tool.as_ref().and_then(|tool| tool.output.as_ref()) else { return Ok(()) };
        let root = result.root();
        let failed = root.get("isError").and_then(|value| value.as_bool()) == Some(true);
        let structured = root.get("structuredContent").filter(|_content| !failed);
        let checked = structured.map_or(Ok(()), |structured| schema.validate(&structured));
        checked.map_err(|error| WithheldWhy::Schema(error.to_string()))
    }
}

/// Whether an answer says that the call goes on: as a task, or once the server has got more input.
fn is_open(answer: &Answer) -> bool {
    let kind = answer.document().root().get("resultType").and_then(|kind| kind.as_str());
    matches!(answer, Answer::Result(_)) && matches!(kind, Some("input_required" | "task"))
}

/// Whether there is an answer, and the call is over. One that asks for more input is not: its continuation is used up
/// with it.
fn is_final(outcome: &Outcome) -> bool {
    let Outcome::Ran(answer) = outcome else {
        return false;
    };
    let kind = answer.get().document().root().get("resultType").and_then(|kind| kind.as_str());
    kind != Some("input_required")
}
