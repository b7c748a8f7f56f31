//! What is in force: the policy, the accepted tools, the questions. Replaced as a whole, so that every call is judged
//! by one consistent state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use toolgate_core::name::{PersonName, QuestionName, ServerName, ToolName};
use toolgate_core::policy::Policy;
use toolgate_core::schema::Schema;
use toolgate_core::tool::Tool;
use toolgate_core::verdict::Obligations;

use crate::port::VerifyAnswer;

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
    /// The accepted tools.
    pub tools: HashMap<ToolName, Arc<AcceptedTool>>,
    /// The questions that rules may ask.
    pub questions: BTreeMap<QuestionName, QuestionRules>,
    /// What checks people's answers.
    pub people: Arc<dyn VerifyAnswer>,
}
