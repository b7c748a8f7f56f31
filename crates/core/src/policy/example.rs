//! Examples: what a policy's author expects of it, checked each time it is loaded.
//!
//! ```toml
//! [[example]]
//! agent = "support"
//! tool = "bank/pay"           # or `action` and `server`, or `effects` for any tool that has these
//! args = { amount_cents = 5000 }
//! expect = "ask"
//! rule = "payments-are-asked" # the rule that has to decide; optional
//! carries = ["github-pat"]    # what is found in what it would send; optional
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::decide::{Entry, Weighed, judge_in};
use super::error::{ExampleMismatch, LoadPolicyError, Place, PolicyWarning};
use super::shape::Shape;
use super::vocabulary::{Subject, context};
use super::{ExamplesSource, Facts, Policy, PolicySource, World, suggest};
use crate::call::{Action, Agent, Call, CallId, Carries, Proof};
use crate::json::{Canonical, Document, Limits};
use crate::name::{AgentId, GroupName, RuleName, ServerName, ToolName};
use crate::tool::Effect;
use crate::verdict::{DenyReason, Verdict};

/// The name of the tool that an example with `effects` is about. No rule names it: it need not exist.
const ANY_TOOL: &str = "any";

/// How large an examples file may be, in bytes.
const MAX_FILE: usize = 1 << 20;

/// An examples file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    example: Vec<Spanned<Written>>,
}

/// An example as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    agent: String,
    groups: Option<Vec<String>>,
    tool: Option<String>,
    action: Option<String>,
    server: Option<String>,
    effects: Option<Vec<String>>,
    #[serde(default)]
    args: toml::Table,
    #[serde(default)]
    carries: BTreeSet<String>,
    session: Option<String>,
    time: Option<u64>,
    expect: Expected,
    rule: Option<String>,
}

/// What has to come out.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Ask,
    Deny,
}

impl Expected {
    const fn words(self) -> &'static str {
        match self {
            Self::Allow => "allowed",
            Self::Ask => "asked about",
            Self::Deny => "denied",
        }
    }
}

/// A call that nobody made, to be judged or explained. It cannot be run: there is no client to answer and no number.
#[must_use]
pub fn trial_call(agent: Agent, action: Action, server: ServerName, arguments: Canonical) -> Call {
    Call {
        id: CallId::from_bytes([0; 16]),
        agent: Arc::new(agent),
        session: "trial".to_owned(),
        action,
        server,
        pin: None,
        arguments,
        params: Canonical::empty_object().document().clone(),
        carries: Carries::default(),
    }
}

/// Checks the examples of one policy file against the whole policy.
pub(super) fn check(
    policy: &Policy,
    source: &PolicySource,
    world: &World,
    errors: &mut Vec<LoadPolicyError>,
) -> Vec<PolicyWarning> {
    let own = || policy.rules.iter().enumerate().filter(|(_, rule)| rule.place.path == source.path);
    let Some(examples) = &source.examples else {
        let path = source.path.clone();
        let examples = format!("{}.examples.toml", path.strip_suffix(".cedar").unwrap_or(&path));
        let warning = PolicyWarning::NoExamples { path, examples };
        return own().next().map(|_| warning).into_iter().collect();
    };
    let file = match parse(examples) {
        Ok(file) => file,
        Err(error) => {
            errors.push(*error);
            return Vec::new();
        }
    };
    let mut warnings = Vec::new();
    let mut shown = BTreeSet::new();
    for written in &file.example {
        let at = Place::of(&examples.path, &examples.text, written.span().start);
        match Example::read(policy, world, written.get_ref()) {
            Ok(example) => {
                let weighed = example.weigh(policy);
                shown.extend(weighed.deciding());
                errors.extend(example.compare(policy, &at, &weighed));
                warnings.extend(two_questions(policy, &at, &weighed));
            }
            Err(message) => errors.push(LoadPolicyError::ExampleSyntax { at, message }),
        }
    }
    errors.extend(own().filter(|(number, _)| !shown.contains(number)).map(|(_, rule)| {
        LoadPolicyError::NoExample {
            at: rule.place.clone(),
            rule: rule.name.clone(),
            examples: examples.path.clone(),
        }
    }));
    warnings
}

fn parse(source: &ExamplesSource) -> Result<File, Box<LoadPolicyError>> {
    if source.text.len() > MAX_FILE {
        let what = format!("the file is larger than {MAX_FILE} bytes");
        return Err(Box::new(LoadPolicyError::TooLarge { at: Place::of(&source.path, "", 0), what }));
    }
    toml::from_str(&source.text).map_err(|error| {
        Box::new(LoadPolicyError::ExampleSyntax {
            at: Place::of(&source.path, &source.text, error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', ", "),
        })
    })
}

/// The same call is asked about by rules with different questions: only one of them is put.
fn two_questions(policy: &Policy, at: &Place, weighed: &Weighed) -> Option<PolicyWarning> {
    let Verdict::Ask(asked) = weighed.verdict(policy) else { return None };
    let first = policy.rule(&asked.rule)?;
    let second = weighed
        .asking()
        .iter()
        .filter_map(|number| policy.rules.get(*number))
        .find(|r| r.kind != first.kind)?;
    Some(PolicyWarning::TwoQuestions {
        at: at.clone(),
        first: asked.rule,
        second: second.name.clone(),
        question: asked.question,
    })
}

/// An example as meant.
struct Example {
    call: Call,
    /// Effects of a tool that need not exist.
    effects: Option<BTreeSet<Effect>>,
    facts: Facts,
    expect: Expected,
    rule: Option<RuleName>,
}

impl Example {
    fn read(policy: &Policy, world: &World, written: &Written) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let id: AgentId = written.agent.parse().map_err(|error| text(&error))?;
        let groups = match &written.groups {
            Some(names) => {
                names.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(|e| text(&e))?
            }
            None => groups_of(world, &id),
        };
        let (action, server, effects) = subject(policy, written)?;
        let rule: Option<RuleName> =
            written.rule.as_deref().map(str::parse).transpose().map_err(|error| text(&error))?;
        if let Some(name) = rule.as_ref().filter(|name| policy.rule(name).is_none()) {
            let hint =
                suggest::hint(name.as_str(), "rules", policy.rules.iter().map(|rule| rule.name.as_str()));
            return Err(format!("there is no rule `{name}`; {hint}"));
        }
        let agent = Agent { id, groups, proof: Proof::Bearer };
        let mut call = trial_call(agent, action, server, arguments(&written.args)?);
        call.carries = Carries::new(written.carries.clone());
        call.session = written.session.clone().unwrap_or(call.session);
        let facts = Facts { now_ms: written.time.unwrap_or(0).saturating_mul(1000) };
        Ok(Self { call, effects, facts, expect: written.expect, rule })
    }

    fn weigh(&self, policy: &Policy) -> Weighed {
        match &self.effects {
            Some(effects) => {
                let id = self.call.action.to_string();
                let subject = Subject {
                    action: self.call.action.clone(),
                    effects: effects.clone(),
                    context: Arc::new(context(Shape::unknown())),
                    tool: None,
                };
                let entry = Entry::new(&policy.index, &id, &subject, self.call.server.as_str());
                judge_in(policy, &entry, &self.call, &self.facts)
            }
            None => match policy.entry(&self.call.server, &self.call.action) {
                Some(entry) => judge_in(policy, entry, &self.call, &self.facts),
                None => Weighed::default(),
            },
        }
    }

    fn compare(&self, policy: &Policy, at: &Place, weighed: &Weighed) -> Option<LoadPolicyError> {
        let verdict = weighed.verdict(policy);
        let came_out = match &verdict {
            Verdict::Allow(_) => Expected::Allow,
            Verdict::Ask(_) => Expected::Ask,
            Verdict::Deny(_) => Expected::Deny,
        };
        let deciding = weighed.deciding();
        let named = self.rule.as_ref().and_then(|name| policy.numbers.get(name));
        let right_rule = named.is_none_or(|number| deciding.contains(number));
        if came_out == self.expect && right_rule {
            return None;
        }
        let by = self.rule.as_ref().filter(|_| came_out == self.expect);
        Some(LoadPolicyError::ExampleFails {
            at: at.clone(),
            rule: self.rule.as_ref().and_then(|name| {
                let rule = policy.rule(name)?;
                Some((name.clone(), rule.place.path.clone()))
            }),
            source: ExampleMismatch {
                call: match &self.effects {
                    Some(effects) => {
                        let effects: Vec<_> = effects.iter().map(|effect| format!("`{effect}`")).collect();
                        format!("any tool with {}", effects.join(", "))
                    }
                    None => format!("`{}`", self.call.action),
                },
                expected: by.map_or_else(
                    || self.expect.words().to_owned(),
                    |rule| format!("{} because of rule `{rule}`", self.expect.words()),
                ),
                found: found(&verdict),
            },
        })
    }
}

/// What came out, in words.
fn found(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allow(allowed) => {
            let rules: Vec<_> = allowed.rules.iter().map(|rule| format!("`{rule}`")).collect();
            match rules.as_slice() {
                [rule] => format!("rule {rule} permits it"),
                rules => format!("rules {} permit it", rules.join(", ")),
            }
        }
        Verdict::Ask(asked) => format!("rule `{}` asks `{}`", asked.rule, asked.question),
        Verdict::Deny(DenyReason::Broken { rule, error }) => {
            format!("rule `{rule}` cannot be evaluated: {error}")
        }
        Verdict::Deny(DenyReason::Carries) => {
            "it would carry a secret out, and no rule that permits it has `@carries(\"allow\")`".to_owned()
        }
        Verdict::Deny(DenyReason::Forbidden { rule, .. }) => format!("rule `{rule}` forbids it"),
        Verdict::Deny(DenyReason::Honeytoken) => "it would send a honeytoken".to_owned(),
        Verdict::Deny(DenyReason::Inexpressible { argument }) => {
            format!("a rule reads argument `{argument}`, whose value cannot be shown to it")
        }
        Verdict::Deny(DenyReason::NotPermitted) => "no rule permits it".to_owned(),
    }
}

fn groups_of(world: &World, agent: &AgentId) -> Vec<GroupName> {
    world.agents.iter().find(|known| known.id == *agent).map(|known| known.groups.clone()).unwrap_or_default()
}

/// What the example is about: action, server, and the effects if the tool need not exist.
fn subject(
    policy: &Policy,
    written: &Written,
) -> Result<(Action, ServerName, Option<BTreeSet<Effect>>), String> {
    match (&written.tool, &written.action, &written.server, &written.effects) {
        (Some(tool), None, None, None) => {
            let name: ToolName = tool.parse().map_err(|error: crate::name::NameError| error.to_string())?;
            let server = name.server().clone();
            let action = Action::Tool(name);
            if policy.entry(&server, &action).is_none() {
                let hint = suggest::hint(tool, "tools", policy.vocabulary.tools());
                return Err(format!("there is no accepted tool `{tool}`; {hint}"));
            }
            Ok((action, server, None))
        }
        (None, Some(id), Some(server), None) => {
            let server: ServerName =
                server.parse().map_err(|error: crate::name::NameError| error.to_string())?;
            let subject = policy.vocabulary.subjects.get(id);
            let action =
                subject.filter(|subject| subject.tool.is_none()).map(|subject| subject.action.clone());
            let action = action.ok_or_else(|| {
                let hint = suggest::hint(id, "actions", policy.vocabulary.other_actions());
                format!("there is no action `{}`; {hint}", id.escape_debug())
            })?;
            if policy.entry(&server, &action).is_none() {
                let hint = suggest::hint(
                    server.as_str(),
                    "servers",
                    policy.vocabulary.servers.iter().map(String::as_str),
                );
                return Err(format!("there is no server `{server}`; {hint}"));
            }
            Ok((action, server, None))
        }
        (None, None, server, Some(names)) => {
            let effects: Result<BTreeSet<Effect>, _> = names.iter().map(|name| name.parse()).collect();
            let effects = effects.map_err(|error: crate::tool::EffectError| error.to_string())?;
            let server = server.as_deref().unwrap_or("any").parse();
            let server: ServerName = server.map_err(|error: crate::name::NameError| error.to_string())?;
            let name = ToolName::new(server.clone(), ANY_TOOL).map_err(|error| error.to_string())?;
            Ok((Action::Tool(name), server, Some(effects)))
        }
        _ => Err("an example has either `tool`, or `action` and `server`, or `effects` and perhaps `server`"
            .to_owned()),
    }
}

fn arguments(table: &toml::Table) -> Result<Canonical, String> {
    let object: Result<serde_json::Map<_, _>, String> =
        table.iter().map(|(name, value)| Ok((name.clone(), json_of(value)?))).collect();
    let text = serde_json::Value::Object(object?).to_string();
    let document = Document::parse(text, &Limits::default()).map_err(|error| error.to_string())?;
    document.root().canonical().map_err(|error| error.to_string())
}

fn json_of(value: &toml::Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        toml::Value::Array(values) => values.iter().map(json_of).collect::<Result<_, _>>()?,
        toml::Value::Boolean(value) => (*value).into(),
        toml::Value::Datetime(value) => {
            return Err(format!("`{value}` has no JSON form; write it as a string"));
        }
        toml::Value::Float(value) if value.is_finite() => (*value).into(),
        toml::Value::Float(value) => return Err(format!("`{value}` has no JSON form")),
        toml::Value::Integer(value) => (*value).into(),
        toml::Value::String(value) => value.clone().into(),
        toml::Value::Table(table) => {
            let members: Result<serde_json::Map<_, _>, String> =
                table.iter().map(|(name, value)| Ok((name.clone(), json_of(value)?))).collect();
            serde_json::Value::Object(members?)
        }
    })
}
