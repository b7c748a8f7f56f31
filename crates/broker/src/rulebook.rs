//! What is in force: the policy, the accepted tools, the questions. Replaced as a whole, so that every call is judged
//! by one consistent state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use toolgate_core::call::{Action, Agent};
use toolgate_core::name::{PersonName, QuestionName, ServerName, ToolName};
use toolgate_core::policy::Policy;
use toolgate_core::schema::Schema;
use toolgate_core::tool::Tool;
use toolgate_core::verdict::Obligations;

use crate::config::Config;
use crate::port::VerifyAnswer;
use crate::scrub::ScrubRules;
use crate::vault::Uses;
use crate::vault::process::Known;

/// An accepted tool with its schemas compiled.
#[derive(Debug)]
pub struct AcceptedTool {
    /// The tool.
    pub tool: Arc<Tool>,
    /// What its arguments must fit.
    pub input: Schema,
    /// What its structured results must fit, if it says so.
    pub output: Option<Schema>,
}

/// A table `[questions.NAME]`: who answers, how many, for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionRules {
    /// Who may answer.
    pub people: BTreeSet<PersonName>,
    /// How many different people have to say yes.
    pub quorum: usize,
    /// How long a waiting client is held, in milliseconds.
    pub wait_ms: u64,
    /// How long a question can be answered, and a yes used, in milliseconds.
    pub expires_ms: u64,
}

/// What is in force.
#[derive(Debug)]
pub struct Rulebook {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The configured servers.
    pub servers: BTreeSet<ServerName>,
    /// What must hold while calls to a server run; [`Obligations::default`] for those not named.
    pub limits: HashMap<ServerName, Obligations>,
    /// What the secrets are good for that servers get. A server that gets one serves the calls that all of them permit.
    pub lent: HashMap<ServerName, Vec<Uses>>,
    /// What is taken out of what servers say.
    pub scrub: ScrubRules,
    /// The accepted tools.
    pub tools: HashMap<ToolName, Arc<AcceptedTool>>,
    /// The questions that rules may ask.
    pub questions: BTreeMap<QuestionName, QuestionRules>,
    /// What checks people's answers.
    pub people: Arc<dyn VerifyAnswer>,
}

impl Rulebook {
    /// Whether the agent may see this at all: a rule could permit it, and the secrets that the server gets are for it.
    #[must_use]
    pub fn may_see(&self, agent: &Agent, server: &ServerName, action: &Action) -> bool {
        let permits = |uses: &Uses| match action.tool() {
            Some(tool) => uses.permits(&agent.id, tool),
            // What is no tool is of the whole server.
            None => uses.serves_all(server) && uses.permits_agent(&agent.id),
        };
        self.servers.contains(server)
            && self.lent.get(server).is_none_or(|lent| lent.iter().all(permits))
            && self.policy.may_see(agent, server, action)
    }

    /// With what the vault has for the servers. One that it does not have is good for nothing.
    #[must_use]
    pub fn with_secrets(self, config: &Config, known: &[Known]) -> Self {
        let uses = |name: &str| known.iter().find(|known| known.name == name).map(|known| known.uses.clone());
        let lent =
            config.servers.iter().filter(|(_, server)| !server.secrets.is_empty()).map(|(name, server)| {
                let lent = server.secrets.iter().map(|secret| uses(secret.as_str()).unwrap_or_default());
                (name.clone(), lent.collect())
            });
        Self { lent: lent.collect(), ..self }
    }
}
