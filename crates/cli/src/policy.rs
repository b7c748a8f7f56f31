//! `toolgate policy`: what the rules say, and why.

use std::path::Path;

use serde_json::json;
use toolgate_broker::port::Position;
use toolgate_broker::rulebook::Rulebook;
use toolgate_broker::scrub;
use toolgate_core::call::{Action, Agent, Call, CallId, Carries, Proof};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::{GroupName, ServerName, ToolName};
use toolgate_core::policy::{DEMO, Facts, Finding, Policy, PolicySource, trial_call};
use toolgate_core::text;
use toolgate_core::verdict::{DenyReason, Verdict};
use toolgate_ledger::record::{AgentProof, Body, CallInfo, VerdictWord};

use crate::args::{PolicyCommand, Try};
use crate::log::each_from;
use crate::out::{self, Paint, Refused, hinted, line, note};
use crate::place::{Place, State, now_ms, since};
use crate::rules;
use crate::setup::Setup;

pub(crate) fn run(place: &Place, command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::Check { policy } => check(place, policy.as_deref()),
        PolicyCommand::Explain(call) => explain(place, &call),
        PolicyCommand::Try(call) => attempt(place, &call),
        PolicyCommand::Replay { since, policy } => replay(place, &since, policy.as_deref()),
    }
}

/// Loads the policies in a folder against what is configured and accepted, and with the demo where that is open.
fn load(place: &Place, state: &State, folder: Option<&Path>) -> anyhow::Result<Rulebook> {
    let setup = |sources| Setup::new(place.config()?, sources, &state.store.agents()?);
    load_as(place, state, folder, setup)
}

fn load_as(
    place: &Place,
    state: &State,
    folder: Option<&Path>,
    setup: impl FnOnce(Vec<PolicySource>) -> anyhow::Result<Setup>,
) -> anyhow::Result<Rulebook> {
    let sources = match folder {
        Some(folder) => rules::sources_named(folder),
        None => rules::sources(&place.home.policies()),
    };
    let loaded = sources.and_then(setup).and_then(|setup| setup.rulebook(&state.store, &state.key));
    if let Err(error) = &loaded {
        rules::explain_errors(error);
    }
    loaded
}

fn check(place: &Place, folder: Option<&Path>) -> anyhow::Result<()> {
    place.home.check_policies(&place.surroundings)?;
    // Before anything is made.
    let config = place.config()?;
    let alone = |sources| Ok(Setup::without_demo(config, sources));
    let rulebook = load_as(place, &place.open_or_make()?, folder, alone)?;
    let policy = &rulebook.policy;
    if place.json {
        let warnings: Vec<String> = rules::warnings(&rulebook).collect();
        return out::json(
            &json!({ "rules": policy.rules().len(), "digest": policy.digest().to_string(), "warnings": warnings }),
        );
    }
    for warning in rules::warnings(&rulebook) {
        note(format_args!("warning: {warning}"));
    }
    line(format_args!(
        "{}, all examples hold. Digest {}",
        out::count(policy.rules().len(), "rule"),
        policy.digest()
    ))
}

/// The call that was typed.
fn typed(place: &Place, state: &State, call: &Try) -> anyhow::Result<Call> {
    let config = place.config()?;
    let id = call.agent.parse()?;
    let mut groups: Vec<GroupName> =
        config.agents.get(&id).map(|rules| rules.groups.iter().cloned().collect()).unwrap_or_default();
    let stored = state.store.agents()?.into_iter().find(|agent| agent.name == id);
    if stored.is_none() && !config.agents.contains_key(&id) && id.as_str() != DEMO {
        note(format_args!("There is no agent `{id}`; judged as if there were one without groups."));
    }
    groups.extend(stored.map(|agent| agent.groups).unwrap_or_default());
    let action = action(&call.action)?;
    let server: ServerName = match (&action, &call.server) {
        (Action::Tool(name), _) => name.server().clone(),
        (_, Some(server)) => server.parse()?,
        (_, None) => {
            return Err(hinted(
                format!("`{action}` does not name a server"),
                "say which with `--server NAME`",
            ));
        }
    };
    let arguments = Document::parse(call.arguments.as_bytes(), &Limits::default()).map_err(|error| {
        hinted(
            format!("the arguments are not JSON: {error}"),
            "write an object in quotes: '{\"to\":\"ada@example.com\"}'",
        )
    })?;
    if !arguments.root().is_object() {
        return Err(hinted(
            "the arguments are no JSON object",
            "write them in quotes: '{\"to\":\"ada@example.com\"}'",
        ));
    }
    let arguments = arguments
        .root()
        .canonical()
        .map_err(|error| hinted(error.to_string(), "use a number that a float keeps exactly, or a string"))?;
    let proof = if id.as_str() == DEMO { Proof::Demo } else { Proof::Bearer };
    Ok(trial_call(Agent { id, groups, proof }, action, server, arguments))
}

fn action(text: &str) -> anyhow::Result<Action> {
    let others = [
        Action::Complete,
        Action::Elicit,
        Action::GetPrompt,
        Action::ListRoots,
        Action::ReadResource,
        Action::Sample,
        Action::Subscribe,
    ];
    match others.into_iter().find(|action| action.to_string() == text) {
        Some(action) => Ok(action),
        None => Ok(Action::Tool(text.parse::<ToolName>()?)),
    }
}

/// Why the gate refuses a call whatever the rules say: the tool is not accepted, or the arguments do not fit its schema.
fn before_rules(rulebook: &Rulebook, call: &Call) -> Option<String> {
    let name = call.action.tool()?;
    let Some(tool) = rulebook.tools.get(name) else {
        return Some(format!("`{name}` is not accepted"));
    };
    let arguments = call.arguments.document();
    let unfit = tool.input.validate(&arguments.root()).err()?;
    Some(format!("the arguments do not fit the schema of `{name}`: {unfit}"))
}

/// A verdict in a word, and why.
fn words(verdict: &Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Allow(allowed) => {
            let rules: Vec<String> = allowed.rules.iter().map(ToString::to_string).collect();
            ("allow", format!("by rule {}", rules.join(", ")))
        }
        Verdict::Ask(asked) => {
            ("ask", format!("`{}`, by rule {}: {}", asked.question, asked.rule, asked.because))
        }
        Verdict::Deny(DenyReason::Broken { rule, error }) => {
            ("deny", format!("rule {rule} cannot be evaluated: {error}"))
        }
        Verdict::Deny(DenyReason::Carries) => (
            "deny",
            "it would carry a secret out, and no rule that permits it has @carries(\"allow\")".to_owned(),
        ),
        Verdict::Deny(DenyReason::Honeytoken) => ("deny", "it would send a honeytoken".to_owned()),
        Verdict::Deny(DenyReason::Forbidden { rule, because }) => {
            ("deny", format!("by rule {rule}: {because}"))
        }
        Verdict::Deny(DenyReason::Inexpressible { argument }) => {
            ("deny", format!("a rule reads argument `{argument}`, whose value cannot be shown to rules"))
        }
        Verdict::Deny(DenyReason::NotPermitted) => ("deny", "no rule permits it".to_owned()),
    }
}

fn paint(word: &str) -> String {
    let paint = Paint::out();
    match word {
        "allow" => paint.green(word),
        "ask" => paint.yellow(word),
        _ => paint.red(word),
    }
}

/// The call with what is found in its arguments. What the vault holds is not known here.
fn looked_through(rulebook: &Rulebook, mut call: Call) -> Call {
    let unsearchable = |_error| [Carries::UNSEARCHABLE.to_owned()].into();
    call.carries = Carries::new(rulebook.scrub.carried(&scrub::sent(&call)).unwrap_or_else(unsearchable));
    call
}

fn attempt(place: &Place, call: &Try) -> anyhow::Result<()> {
    let state = place.open_or_make()?;
    let rulebook = load(place, &state, call.policy.as_deref())?;
    let call = looked_through(&rulebook, typed(place, &state, call)?);
    let (word, why) = match before_rules(&rulebook, &call) {
        Some(why) => ("deny", why),
        None => words(&rulebook.policy.judge(&call, &Facts { now_ms: now_ms() })),
    };
    if place.json {
        out::json(&json!({ "verdict": word, "why": why }))?;
    } else {
        line(format_args!("{}  {}", paint(word), text::quoted(&why, 1_000)))?;
    }
    if word == "deny" { Err(anyhow::Error::new(Refused)) } else { Ok(()) }
}

fn explain(place: &Place, call: &Try) -> anyhow::Result<()> {
    let state = place.open_or_make()?;
    let rulebook = load(place, &state, call.policy.as_deref())?;
    let call = looked_through(&rulebook, typed(place, &state, call)?);
    let explanation = rulebook.policy.explain(&call, &Facts { now_ms: now_ms() });
    let (word, why) = match before_rules(&rulebook, &call) {
        Some(why) => ("deny", format!("{why}; whatever the rules say")),
        None => words(&explanation.verdict),
    };
    let found = |finding: &Finding| match finding {
        Finding::Broken { error } => format!("cannot be evaluated: {error}"),
        Finding::Inexpressible { argument } => format!("reads `{argument}`, which cannot be shown to rules"),
        Finding::Matched => "matches".to_owned(),
        Finding::NotMatched => "does not match".to_owned(),
    };
    if place.json {
        let considered: Vec<_> = explanation
            .considered
            .iter()
            .map(|considered| {
                let read: Vec<_> =
                    considered.readings.iter().map(|r| json!({ "path": r.path, "value": r.value })).collect();
                json!({
                    "rule": considered.rule.name.to_string(), "at": considered.rule.place.to_string(),
                    "finding": found(&considered.finding), "decides": considered.decides, "read": read,
                })
            })
            .collect();
        return out::json(
            &json!({ "verdict": word, "why": why, "considered": considered, "others": explanation.others, "unseen": explanation.unseen }),
        );
    }
    line(format_args!("{}  {}", paint(word), text::quoted(&why, 1_000)))?;
    for considered in &explanation.considered {
        let mark = if considered.decides { "→" } else { " " };
        line(format_args!(
            "{mark} rule {} ({}) {}",
            considered.rule.name,
            considered.rule.place,
            text::quoted(&found(&considered.finding), 500)
        ))?;
        for reading in &considered.readings {
            let value = reading.value.as_deref().unwrap_or("(absent)");
            line(format_args!("      {} = {}", reading.path, text::quoted(value, 200)))?;
        }
    }
    let are = if explanation.others == 1 { "is" } else { "are" };
    let others = out::count(explanation.others, "other rule");
    line(format_args!("  {others} {are} for other agents, tools or servers"))?;
    if !explanation.unseen.is_empty() {
        line(format_args!("  rules cannot see: {}", text::quoted(&explanation.unseen.join(", "), 500)))?;
    }
    Ok(())
}

/// Judges the calls of the log again.
fn replay(place: &Place, back: &str, folder: Option<&Path>) -> anyhow::Result<()> {
    let state = place.open()?;
    let rulebook = load(place, &state, folder)?;
    let start = state.store.first_since(since(back)?)?;
    let (mut judged, mut differ, mut gone) = (0_u64, 0_u64, 0_u64);
    each_from(&state, start.0, |placed| {
        let (info, before) = match &placed.record.body {
            Body::Intent(intent) if intent.question.is_none() => (&intent.call, intent.judged.verdict),
            Body::QuestionAsked(question) => (&question.call, question.judged.verdict),
            Body::Refusal(refusal) if refusal.question.is_none() => match &refusal.judged {
                Some(judged) => (&refusal.call, judged.verdict),
                None => return Ok(true),
            },
            _ => return Ok(true),
        };
        let Some(call) = logged(place, &state, Position(placed.index), info)? else {
            gone += 1;
            return Ok(true);
        };
        judged += 1;
        let (now, why) = verdict_now(&rulebook.policy, &call, placed.record.time_ms);
        let before = match before {
            VerdictWord::Allow => "allow",
            VerdictWord::Ask => "ask",
            VerdictWord::Deny => "deny",
        };
        if now == before {
            return Ok(true);
        }
        differ += 1;
        if place.json {
            out::json(
                &json!({ "index": placed.index, "call": info.id, "agent": info.agent.name, "action": info.action, "before": before, "now": now, "why": why }),
            )?;
        } else {
            let arguments = text::quoted(&String::from_utf8_lossy(call.arguments.as_bytes()), 100);
            line(format_args!(
                "{:>6}  {} → {}  {} {} {arguments}  {}",
                placed.index,
                paint(before),
                paint(now),
                info.agent.name,
                text::quoted(&info.action, 100),
                text::quoted(&why, 200)
            ))?;
        }
        Ok(true)
    })?;
    if place.json {
        return out::json(&json!({ "judged": judged, "differ": differ, "erased": gone }));
    }
    note(format_args!("{} judged again: {differ} would differ.", out::count(judged, "call")));
    if gone > 0 {
        note(format_args!("{gone} could not be judged: their arguments were erased."));
    }
    Ok(())
}

fn verdict_now(policy: &Policy, call: &Call, then_ms: u64) -> (&'static str, String) {
    words(&policy.judge(call, &Facts { now_ms: then_ms }))
}

/// The call of a record, with the arguments that lie beside the log; `None` if they are gone.
fn logged(place: &Place, state: &State, index: Position, info: &CallInfo) -> anyhow::Result<Option<Call>> {
    let values = state.store.values(index)?;
    let Some(arguments) = values.into_iter().find(|value| value.path == "arguments") else { return Ok(None) };
    let Ok(document) = Document::parse(arguments.bytes.to_vec(), &Limits::default()) else { return Ok(None) };
    let Ok(arguments) = document.root().canonical() else { return Ok(None) };
    let proof = match &info.agent.proof {
        AgentProof::Bearer => Proof::Bearer,
        AgentProof::Demo => Proof::Demo,
        AgentProof::Oauth { issuer, subject } => {
            Proof::OAuth { issuer: issuer.clone(), subject: subject.clone() }
        }
        AgentProof::Peer { uid } => Proof::Peer { uid: *uid },
    };
    let Ok(id) = info.agent.name.parse() else { return Ok(None) };
    let config = place.config()?;
    let mut groups: Vec<GroupName> =
        config.agents.get(&id).map(|rules| rules.groups.iter().cloned().collect()).unwrap_or_default();
    groups.extend(
        state.store.agents()?.into_iter().filter(|agent| agent.name == id).flat_map(|agent| agent.groups),
    );
    let (Ok(action), Some(Ok(server))) =
        (action(&info.action), info.server.as_ref().map(|server| server.parse()))
    else {
        return Ok(None);
    };
    let mut call = trial_call(Agent { id, groups, proof }, action, server, arguments);
    call.carries = Carries::new(info.carries.iter().cloned().collect());
    call.session.clone_from(&info.session);
    if let Some(id) = CallId::parse(&info.id) {
        call.id = id;
    }
    Ok(Some(call))
}
