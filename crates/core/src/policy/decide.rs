//! The verdict: which of the considered rules match, and which of those wins.

use std::cell::OnceCell;
use std::sync::{Arc, LazyLock};

use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid, Request};
use cedar_policy_core::ast::{Context, Expr, Literal, SlotEnv, Value as Shown, ValueKind};
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;

use super::direct;
use super::index::{Index, Parts};
use super::rule::{Rule, RuleKind};
use super::shape::{Shape, Trail, show};
use super::vocabulary::Subject;
use super::want::Want;
use super::{Facts, Policy};
use crate::call::{Action, Agent, Call};
use crate::json::Value;
use crate::name::QuestionName;
use crate::tool::Effect;
use crate::verdict::{Allowed, Asked, DenyReason, Obligations, Verdict};

/// What is known about an action on a server before there is a call.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) parts: Parts,
    pub(super) context: Arc<Shape>,
    action: Entity,
    server: EntityUid,
    /// Whether what it sends leaves: what has the effect, and what is sent to a server that is no tool and has none declared.
    egress: bool,
}

impl Entry {
    pub(super) fn new(index: &Index, id: &str, subject: &Subject, server: &str) -> Self {
        let effects = subject.effects.iter().map(|effect| uid(&KINDS.action, effect.as_str())).collect();
        Self {
            parts: index.parts(id, &subject.effects, server),
            context: Arc::clone(&subject.context),
            action: Entity::new_no_attrs(uid(&KINDS.action, id), effects),
            server: uid(&KINDS.server, server),
            egress: match subject.action {
                Action::Tool(_) => subject.effects.contains(&Effect::Egress),
                // These are asked of the agent.
                Action::Elicit | Action::ListRoots | Action::Sample => false,
                Action::Complete
                | Action::GetPrompt
                | Action::ReadResource
                | Action::Subscribe
                | Action::TaskCancel
                | Action::TaskGet
                | Action::TaskUpdate => true,
            },
        }
    }
}

/// The entity types of the schema.
struct Kinds {
    action: EntityTypeName,
    agent: EntityTypeName,
    group: EntityTypeName,
    server: EntityTypeName,
}

static KINDS: LazyLock<Kinds> = LazyLock::new(|| {
    // INVARIANT: these four words are names of types in Cedar's grammar.
    #[expect(clippy::expect_used, reason = "four constant words, which every test of this module reads")]
    let kind = |word: &str| word.parse().expect("a plain word is the name of a type");
    Kinds { action: kind("Action"), agent: kind("Agent"), group: kind("Group"), server: kind("Server") }
});

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// One call, in the form in which rules can be evaluated on it.
pub(super) struct Case<'a> {
    entry: &'a Entry,
    agent: &'a Agent,
    /// A record: what rules for this action read, as far as it can be shown.
    context: Shown,
    /// The paths, from the context on, of what rules read and cannot be shown.
    pub(super) hidden: Vec<Vec<String>>,
    entities: OnceCell<Option<Entities>>,
    honeytoken: bool,
    /// Whether a secret would leave.
    leaks: bool,
}

impl<'a> Case<'a> {
    pub(super) fn new(entry: &'a Entry, call: &'a Call, facts: &Facts) -> Self {
        let mut hidden = Vec::new();
        let context = context(entry, call, facts, &mut hidden);
        let (honeytoken, leaks) = (call.carries.honeytoken(), entry.egress && call.carries.secret());
        Self { entry, agent: &call.agent, context, hidden, entities: OnceCell::new(), honeytoken, leaks }
    }

    /// A case without a call.
    fn bare(entry: &'a Entry, agent: &'a Agent) -> Self {
        let context = Shown::empty_record(None);
        let (hidden, entities) = (Vec::new(), OnceCell::new());
        Self { entry, agent, context, hidden, entities, honeytoken: false, leaks: false }
    }

    /// Whether the conditions hold of rules whose scope covers the call.
    pub(super) fn conditions(&self) -> Conditions<'_> {
        Conditions { case: self, cedar: OnceCell::new(), slots: SlotEnv::new() }
    }

    /// The path of an argument that the rule reads and that cannot be shown, if there is one.
    pub(super) fn hidden_from(&self, rule: &Rule) -> Option<&[String]> {
        self.hidden.iter().find(|path| rule.reads.context.touches(path)).map(Vec::as_slice)
    }

    fn evaluator(&self) -> Option<Evaluator<'_>> {
        let principal = uid(&KINDS.agent, self.agent.id.as_str());
        let entities = self.entities.get_or_init(|| self.entities(principal.clone())).as_ref()?;
        let ValueKind::Record(members) = &self.context.value else { return None };
        let context = Context::Value(Arc::clone(members)).into();
        let request =
            Request::new(principal, self.entry.action.uid(), self.entry.server.clone(), context, None)
                .ok()?;
        let request = AsRef::<cedar_policy_core::ast::Request>::as_ref(&request).clone();
        Some(Evaluator::new(request, entities.as_ref(), Extensions::all_available()))
    }

    fn entities(&self, principal: EntityUid) -> Option<Entities> {
        // Entities have no attributes, so that nothing can be read of them but what they are in.
        if !self.entry.parts.ancestors {
            return Some(Entities::empty());
        }
        let groups = self.agent.groups.iter().map(|group| uid(&KINDS.group, group.as_str())).collect();
        let agent = Entity::new_no_attrs(principal, groups);
        Entities::from_entities([agent, self.entry.action.clone()], None).ok()
    }
}

/// Evaluates the conditions of rules on one call.
pub(super) struct Conditions<'a> {
    case: &'a Case<'a>,
    /// Cedar's evaluator, once a rule needs it. `None` if it cannot take the call; no such call is known.
    cedar: OnceCell<Option<Evaluator<'a>>>,
    slots: SlotEnv,
}

impl Conditions<'_> {
    /// Whether the conditions of a rule hold.
    ///
    /// # Errors
    /// They cannot be evaluated, and why.
    pub(super) fn hold(&self, rule: &Rule) -> Result<bool, String> {
        let Some(condition) = &rule.condition else { return Ok(true) };
        match direct::holds(condition, &self.case.context) {
            Some(holds) => Ok(holds),
            None => self.hold_for_cedar(condition),
        }
    }

    fn hold_for_cedar(&self, condition: &Expr) -> Result<bool, String> {
        let Some(cedar) = self.cedar.get_or_init(|| self.case.evaluator()) else {
            return Err("the policy language cannot take this call".to_owned());
        };
        match cedar.interpret(condition, &self.slots).map(|value| value.value) {
            Ok(ValueKind::Lit(Literal::Bool(holds))) => Ok(holds),
            Ok(_) => Err("its condition is neither true nor false".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The part of the context that some rule for this action reads.
fn context(entry: &Entry, call: &Call, facts: &Facts, hidden: &mut Vec<Vec<String>>) -> Shown {
    let want = &entry.parts.want;
    let mut members = Vec::with_capacity(5);
    if let (Some(want), Some(shape)) = (want.member("args"), entry.context.at(&["args"])) {
        let args = show(shape, call.arguments.root(), want, &Trail::new("args"), hidden);
        members.extend(args.map(|args| ("args", args)));
    }
    if want.member("carries").is_some() {
        let kinds = call.carries.kinds().iter().map(|kind| Shown::from(kind.as_str()));
        let carries = [
            ("honeytoken", Shown::from(call.carries.honeytoken())),
            ("kinds", Shown::set(kinds, None)),
            ("secret", Shown::from(call.carries.secret())),
        ];
        members.push(("carries", Shown::record(carries, None)));
    }
    if want.member("session").is_some() {
        let id = Shown::from(call.session.as_str());
        members.push(("session", Shown::record([("id", id)], None)));
    }
    if want.member("time").is_some() {
        members.push(("time", Shown::from(seconds(facts))));
    }
    if want.member("unseen").is_some() {
        let names = unseen(&entry.context, call.arguments.root());
        members.push(("unseen", Shown::set(names.into_iter().map(Shown::from), None)));
    }
    Shown::record(members, None)
}

/// The time as rules see it.
pub(super) fn seconds(facts: &Facts) -> i64 {
    i64::try_from(facts.now_ms / 1000).unwrap_or(i64::MAX)
}

/// The names of the arguments that rules cannot see: `to`, or `options.depth` for a member.
pub(super) fn unseen(context: &Shape, arguments: Value<'_>) -> Vec<String> {
    let whole = Want { whole: true, ..Want::default() };
    let mut hidden = Vec::new();
    if let Some(shape) = context.at(&["args"]) {
        show(shape, arguments, &whole, &Trail::new("args"), &mut hidden);
    }
    // What should be there and is not is hidden from rules, but it is no argument of this call.
    hidden.retain(|path| {
        let names: Vec<&str> = path.iter().skip(1).map(String::as_str).collect();
        arguments.path(&names).is_some()
    });
    hidden.iter().map(|path| argument(path)).collect()
}

/// How an argument is written whose path begins at the context: `to`, or `options.depth`.
pub(super) fn argument(path: &[String]) -> String {
    path.get(1..).unwrap_or_default().join(".")
}

/// The considered rules that matter: by number, in the order in which they are written.
#[derive(Debug, Default)]
pub(super) struct Weighed {
    broken: Vec<(usize, String)>,
    hidden: Vec<(usize, String)>,
    forbid: Vec<usize>,
    ask: Vec<usize>,
    permit: Vec<usize>,
    /// What forbids it whatever permits it.
    carried: Option<Carried>,
}

/// What a call carries that does not leave.
#[derive(Debug, Clone, Copy)]
enum Carried {
    Honeytoken,
    /// And no rule that permits it allows that.
    Secret,
}

impl Weighed {
    /// Weighs the rules with these numbers.
    pub(super) fn new(policy: &Policy, case: &Case<'_>, numbers: &[usize]) -> Self {
        let rules = || numbers.iter().filter_map(|number| Some((*number, policy.rules.get(*number)?)));
        let mut weighed = Self::default();
        if !case.hidden.is_empty() {
            let hidden = |(number, rule)| Some((number, argument(case.hidden_from(rule)?)));
            weighed.hidden = rules().filter_map(hidden).collect();
        }
        if !weighed.hidden.is_empty() {
            return weighed;
        }
        let conditions = case.conditions();
        for (number, rule) in rules() {
            match (conditions.hold(rule), &rule.kind) {
                (Err(error), _) => weighed.broken.push((number, error)),
                (Ok(false), _) => {}
                (Ok(true), RuleKind::Ask(_)) => weighed.ask.push(number),
                (Ok(true), RuleKind::Forbid) => weighed.forbid.push(number),
                (Ok(true), RuleKind::Permit) => weighed.permit.push(number),
            }
        }
        let mut permitting = weighed.ask.iter().chain(&weighed.permit).filter_map(|n| policy.rules.get(*n));
        weighed.carried = match (case.honeytoken, case.leaks) {
            (true, _) => Some(Carried::Honeytoken),
            (false, true) if !permitting.any(|rule| rule.carries) => Some(Carried::Secret),
            (false, _) => None,
        };
        weighed
    }

    /// The verdict. The strictest rule wins; among equals, the one written first.
    pub(super) fn verdict(&self, policy: &Policy) -> Verdict {
        let rule = |number: &usize| policy.rules.get(*number);
        let broken = self.broken.first();
        let hidden = self.hidden.first();
        let forbid = self.forbid.first();
        let ask = self.ask.first();
        match (broken, hidden, forbid, self.carried, ask, self.permit.is_empty()) {
            (Some((number, error)), ..) => broken_by(rule(number), error.clone()),
            (None, Some((_, argument)), ..) => {
                Verdict::Deny(DenyReason::Inexpressible { argument: argument.clone() })
            }
            (None, None, Some(number), ..) => forbidden_by(rule(number)),
            (None, None, None, Some(Carried::Honeytoken), ..) => Verdict::Deny(DenyReason::Honeytoken),
            (None, None, None, _, None, true) => Verdict::Deny(DenyReason::NotPermitted),
            (None, None, None, Some(Carried::Secret), ..) => Verdict::Deny(DenyReason::Carries),
            (None, None, None, None, Some(number), _) => asked_by(rule(number)),
            (None, None, None, None, None, false) => Verdict::Allow(Allowed {
                rules: self.permit.iter().filter_map(rule).map(|rule| rule.name.clone()).collect(),
                obligations: Obligations::default(),
            }),
        }
    }

    /// The rules that make the verdict what it is: all that forbid, or all that ask, or all that permit.
    pub(super) fn deciding(&self) -> Vec<usize> {
        let numbers = |pairs: &[(usize, String)]| pairs.iter().map(|(number, _)| *number).collect::<Vec<_>>();
        [
            numbers(&self.broken),
            numbers(&self.hidden),
            self.forbid.clone(),
            self.ask.clone(),
            self.permit.clone(),
        ]
        .into_iter()
        .find(|rules| !rules.is_empty())
        .unwrap_or_default()
    }

    /// The rules that ask.
    pub(super) fn asking(&self) -> &[usize] {
        &self.ask
    }
}

fn broken_by(rule: Option<&Rule>, error: String) -> Verdict {
    Verdict::Deny(match rule {
        Some(rule) => DenyReason::Broken { rule: rule.name.clone(), error },
        None => DenyReason::NotPermitted,
    })
}

fn forbidden_by(rule: Option<&Rule>) -> Verdict {
    Verdict::Deny(match rule {
        Some(rule) => DenyReason::Forbidden { rule: rule.name.clone(), because: rule.because.clone() },
        None => DenyReason::NotPermitted,
    })
}

fn asked_by(rule: Option<&Rule>) -> Verdict {
    match rule.and_then(|rule| Some((rule, question_of(rule)?))) {
        Some((rule, question)) => Verdict::Ask(Asked {
            question: question.clone(),
            rule: rule.name.clone(),
            because: rule.because.clone(),
            obligations: Obligations::default(),
        }),
        None => Verdict::Deny(DenyReason::NotPermitted),
    }
}

fn question_of(rule: &Rule) -> Option<&QuestionName> {
    match &rule.kind {
        RuleKind::Ask(question) => Some(question),
        RuleKind::Forbid | RuleKind::Permit => None,
    }
}

/// See [`Policy::judge`].
pub(super) fn judge(policy: &Policy, call: &Call, facts: &Facts) -> Verdict {
    match policy.entry_for(&call.agent, &call.server, &call.action) {
        Some(entry) => judge_in(policy, entry, call, facts).verdict(policy),
        None => Verdict::Deny(DenyReason::NotPermitted),
    }
}

/// Weighs the rules for a call whose entry is known.
pub(super) fn judge_in(policy: &Policy, entry: &Entry, call: &Call, facts: &Facts) -> Weighed {
    Weighed::new(policy, &Case::new(entry, call, facts), &entry.parts.rules(&call.agent))
}

/// See [`Policy::may_see`].
pub(super) fn may_see(policy: &Policy, entry: &Entry, agent: &Agent) -> bool {
    let mut may_permit = false;
    let mut fixed = Vec::new();
    for bucket in entry.parts.buckets(agent) {
        if bucket.forbids {
            return false;
        }
        may_permit |= bucket.may_permit;
        fixed.extend_from_slice(&bucket.fixed);
    }
    if fixed.is_empty() {
        return may_permit;
    }
    let weighed = Weighed::new(policy, &Case::bare(entry, agent), &fixed);
    let permits = may_permit || !weighed.ask.is_empty() || !weighed.permit.is_empty();
    permits && weighed.broken.is_empty() && weighed.forbid.is_empty()
}
