//! Puts the rulebook together from what is configured, accepted and enrolled.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use toolgate_core::json::{Document, JsonError, Limits};
use toolgate_core::name::ToolName;
use toolgate_core::policy::{KnownAgent, LoadPolicyErrors, Policy, PolicySource, World};
use toolgate_core::schema::{CompileSchemaError, Schema};
use toolgate_core::tool::{self, Tool};
use toolgate_core::verdict::Obligations;

use crate::config::Config;
use crate::person::People;
use crate::rulebook::{AcceptedTool, Rulebook};
use crate::scrub::ScrubRules;
use crate::store::{AgentRow, Pin};

/// Why the rulebook cannot be put together. The one before stays in force; at the start there is none, and nothing starts.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// An accepted definition in the store is not what was accepted.
    #[error(
        "the accepted definition of `{tool}` is damaged; accept it again with `toolgate tool accept {tool}`"
    )]
    Definition {
        /// The tool.
        tool: ToolName,
        /// What is wrong with it.
        source: DefinitionError,
    },
    /// The policy does not load.
    #[error("the policy cannot be used")]
    Policy(#[from] LoadPolicyErrors),
}

/// What is wrong with a definition.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It is another than the one whose digest was accepted.
    #[error("its digest is another than the accepted one")]
    Digest,
    /// It has no canonical form: a number in it does not survive.
    #[error("it holds a number that cannot be kept exactly")]
    NotCanonical,
    /// It has no input schema.
    #[error("it has no `inputSchema` object")]
    NoInputSchema,
    /// A schema does not compile.
    #[error("its schema cannot be used")]
    Schema(#[from] CompileSchemaError),
    /// It is not JSON.
    #[error("it is not JSON")]
    Syntax(#[from] JsonError),
}

/// Compiles an accepted definition.
///
/// # Errors
/// It is not what it has to be: see [`DefinitionError`].
pub fn accepted_tool(
    name: &ToolName,
    definition: Document,
    effects: BTreeSet<tool::Effect>,
) -> Result<AcceptedTool, DefinitionError> {
    let canonical = definition.root().canonical().map_err(|_number| DefinitionError::NotCanonical)?;
    let pin = tool::pin(&canonical);
    let input = definition.root().get("inputSchema").ok_or(DefinitionError::NoInputSchema)?;
    let input = Schema::compile(&input)?;
    let output = definition.root().get("outputSchema").map(|schema| Schema::compile(&schema)).transpose()?;
    let tool = Arc::new(Tool { name: name.clone(), effects, definition, pin });
    Ok(AcceptedTool { tool, input, output })
}

/// Puts the rulebook together. Tools of servers that are not configured are left out. What the configuration declares of a
/// tool's effects replaces what was noted when it was accepted.
///
/// # Errors
/// A definition is damaged, or the policy does not load. Nothing half-read comes into force.
pub fn rulebook(
    config: &Config,
    agents: &[AgentRow],
    pins: &[Pin],
    people: People,
    sources: &[PolicySource],
) -> Result<Rulebook, AssembleError> {
    let mut tools = HashMap::new();
    for pin in pins.iter().filter(|pin| config.servers.contains_key(pin.tool.server())) {
        let accepted = accept(config, pin)
            .map_err(|source| AssembleError::Definition { tool: pin.tool.clone(), source })?;
        tools.insert(pin.tool.clone(), Arc::new(accepted));
    }
    let world = World {
        agents: known_agents(config, agents),
        servers: config.servers.keys().cloned().collect(),
        tools: tools.values().map(|accepted| Arc::clone(&accepted.tool)).collect(),
        questions: config.questions.keys().cloned().collect(),
    };
    let policy = Policy::load(sources, &world)?;
    let limits = config.servers.iter().map(|(name, server)| {
        let timeout_ms = u64::try_from(server.call_timeout.as_millis()).unwrap_or(u64::MAX);
        (name.clone(), Obligations { timeout_ms, max_result_bytes: server.max_result_bytes })
    });
    Ok(Rulebook {
        policy: Arc::new(policy),
        servers: config.servers.keys().cloned().collect(),
        limits: limits.collect(),
        lent: HashMap::new(),
        scrub: ScrubRules::new(config),
        tools,
        questions: config.questions.clone(),
        people: Arc::new(people),
    })
}

/// The rulebook before without what the store took back: tools that are not accepted as they were any more, and people
/// who are not enrolled any more. For when no new rulebook can be put together: what was in force stays in force, but
/// nothing that was withdrawn does.
#[must_use]
pub fn narrowed(before: &Rulebook, config: &Config, pins: &[Pin], people: People) -> Rulebook {
    let stands = |accepted: &AcceptedTool| {
        pins.iter().any(|pin| {
            pin.tool == accepted.tool.name
                && pin.digest == accepted.tool.pin
                && (pin.effects == accepted.tool.effects || config.tools.contains_key(&pin.tool))
        })
    };
    let tools = before.tools.iter().filter(|(_, accepted)| stands(accepted));
    Rulebook {
        policy: Arc::clone(&before.policy),
        servers: before.servers.clone(),
        limits: before.limits.clone(),
        lent: before.lent.clone(),
        scrub: before.scrub.clone(),
        tools: tools.map(|(name, accepted)| (name.clone(), Arc::clone(accepted))).collect(),
        questions: before.questions.clone(),
        people: Arc::new(people),
    }
}

fn accept(config: &Config, pin: &Pin) -> Result<AcceptedTool, DefinitionError> {
    let definition = Document::parse(pin.definition.clone(), &Limits::default())?;
    let effects = config.tools.get(&pin.tool).unwrap_or(&pin.effects).clone();
    let accepted = accepted_tool(&pin.tool, definition, effects)?;
    if accepted.tool.pin == pin.digest { Ok(accepted) } else { Err(DefinitionError::Digest) }
}

/// The agents of the configuration and those with tokens, each once, with all the groups either gives it.
fn known_agents(config: &Config, agents: &[AgentRow]) -> Vec<KnownAgent> {
    let mut known: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (id, rules) in &config.agents {
        known.entry(id.clone()).or_default().extend(rules.groups.iter().cloned());
    }
    for agent in agents {
        known.entry(agent.name.clone()).or_default().extend(agent.groups.iter().cloned());
    }
    known.into_iter().map(|(id, groups)| KnownAgent { id, groups: groups.into_iter().collect() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;
    use toolgate_core::tool::Effect;
    use zeroize::Zeroizing;

    use crate::person::{Person, Seeds, StateKey};
    use crate::store::PersonRow;

    fn pin(name: &str, definition: &str, effect: Effect) -> Pin {
        let document = Document::parse(definition.as_bytes(), &Limits::default()).unwrap();
        Pin {
            tool: name.parse().unwrap(),
            definition: Bytes::copy_from_slice(definition.as_bytes()),
            effects: BTreeSet::from([effect]),
            digest: tool::pin(&document.root().canonical().unwrap()),
            accepted_by: "operator".to_owned(),
            accepted_ms: 1,
        }
    }

    /// A policy that names what was withdrawn does not load any more. What was in force stays, without what was withdrawn.
    #[test]
    fn what_was_withdrawn_does_not_outlive_a_broken_policy() {
        let text = "[servers.s]\ncommand = [\"true\"]\n[tools.\"s/declared\"]\neffects = [\"write\"]\n";
        let config = Config::parse(std::path::Path::new("toolgate.toml"), text).unwrap();
        let (one, other) =
            (r#"{"name":"t","inputSchema":{}}"#, r#"{"name":"t","inputSchema":{},"title":"other"}"#);
        let pins = ["s/stays", "s/removed", "s/changed", "s/loosened", "s/declared"]
            .map(|name| pin(name, one, Effect::Write));
        let person = |name: &str| {
            let seeds = Seeds { key: Zeroizing::new([1; 32]), salt: [1; 16], nonce: [1; 24] };
            let (person, _uri) =
                Person::with_totp(name.parse().unwrap(), &StateKey::new([9; 32]), &seeds, 1).unwrap();
            person.to_row()
        };
        let (ada, bob) = (person("ada"), person("bob"));
        let people = |rows: &[PersonRow]| People::from_rows(rows, StateKey::new([9; 32])).unwrap();
        let before = rulebook(&config, &[], &pins, people(&[ada.clone(), bob]), &[]).unwrap();
        assert_eq!(before.tools.len(), 5);
        let [stays, _, _, mut loosened, mut declared] = pins;
        let changed = pin("s/changed", other, Effect::Write);
        loosened.effects = BTreeSet::from([Effect::Read]);
        // What the configuration says of its effects counts, whatever the store says.
        declared.effects = BTreeSet::from([Effect::Read]);
        let new = pin("s/new", one, Effect::Write);
        let after = narrowed(&before, &config, &[stays, changed, loosened, declared, new], people(&[ada]));
        let mut left: Vec<_> = after.tools.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        assert_eq!(left, ["s/declared", "s/stays"]);
        assert_eq!(after.policy.digest(), before.policy.digest());
        let shown = format!("{:?}", after.people);
        assert!(shown.contains("ada") && !shown.contains("bob"), "{shown}");
    }
}
