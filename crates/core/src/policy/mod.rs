//! The policy: what the rules say about a call.
//!
//! Rules are written in [Cedar](https://www.cedarpolicy.com), in files beside the configuration:
//!
//! ```text
//! @id("payments-are-asked")
//! @because("money leaves the company only when a person says so")
//! @ask("finance")
//! permit(principal in Group::"office", action in Action::"money", resource)
//! when { context.args.amount_cents <= 100000 };
//! ```
//!
//! * The principal is the agent, `Agent::"support"`, in its groups, `Group::"office"`.
//! * The action is `Action::"server/tool"`, in its effects: `Action::"money"`. What is not a tool call has an action of
//!   its own, such as `Action::"resources/read"`, and is in no effect.
//! * The resource is the server, `Server::"bank"`.
//! * `context.args` has the arguments, typed by the tool's JSON schema ([the table](shape)); `context.unseen` the names
//!   of those present that rules cannot see; `context.carries` what was found in what would be sent (`secret`, `kinds`,
//!   `honeytoken`); `context.session.id` and `context.time` (seconds since 1970) the rest.
//!
//! Nothing is permitted unless a rule permits it, and the strictest rule that matches wins: `forbid`, then `@ask`, then
//! `permit`. Of several that ask, the one written first does, the files taken in the order of their names. A rule
//! that cannot be evaluated, and one that reads an argument whose value cannot be shown to it, refuse the call.
//!
//! A call that would carry a secret out, by the effect `egress` or to a server's resources and prompts, is refused unless a
//! rule that permits it has `@carries("allow")`. One that would send a honeytoken is refused whatever permits it.
//!
//! Everything is checked when the policy is loaded: names and arguments against the configuration and the accepted
//! tools, types by Cedar's validator in its strict mode, and each rule against its own examples.

mod check;
mod decide;
mod direct;
mod error;
mod example;
mod explain;
mod index;
mod rule;
mod shape;
mod suggest;
mod vocabulary;
mod want;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::call::{Action, Agent, Call, Proof};
use crate::digest::Digest;
use crate::name::{AgentId, GroupName, QuestionName, RuleName, ServerName};
use crate::tool::Tool;
use crate::verdict::Verdict;

use decide::Entry;
pub use error::{ExampleMismatch, LoadPolicyError, LoadPolicyErrors, Place, PolicyWarning};
pub use example::trial_call;
pub use explain::{Considered, Explanation, Finding, Reading};
use index::Index;
pub use rule::{Rule, RuleKind};
pub use vocabulary::DEMO;
use vocabulary::Vocabulary;

/// The stack for reading and checking policies, in bytes.
const STACK: usize = 32 << 20;

/// One policy file, and the examples beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// Its name, as errors should show it.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// `NAME.examples.toml`, if there is one.
    pub examples: Option<ExamplesSource>,
}

/// The examples of a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExamplesSource {
    /// The file's name, as errors should show it.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// An agent that rules may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAgent {
    /// Its name.
    pub id: AgentId,
    /// The groups it belongs to.
    pub groups: Vec<GroupName>,
}

/// What rules may speak of. A name that is not in here is an error when the policy is loaded.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The configured agents. The built-in agent `demo` may always be named.
    pub agents: Vec<KnownAgent>,
    /// The configured servers. The built-in server `demo` may always be named.
    pub servers: Vec<ServerName>,
    /// The accepted tools.
    pub tools: Vec<Arc<Tool>>,
    /// The questions that the configuration defines.
    pub questions: BTreeSet<QuestionName>,
}

/// What a verdict depends on besides the call and the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The time in milliseconds since 1970.
    pub now_ms: u64,
}

/// A checked policy, ready to judge. It never changes: another policy is another value.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    /// The number of each rule.
    numbers: HashMap<RuleName, usize>,
    index: Index,
    entries: HashMap<ServerName, HashMap<Action, Entry>>,
    vocabulary: Vocabulary,
    digest: Digest,
    warnings: Vec<PolicyWarning>,
}

impl Policy {
    /// Reads and checks policy files. Their order does not matter: they are taken in the order of their names.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, up to a bound.
    pub fn load(sources: &[PolicySource], world: &World) -> Result<Self, LoadPolicyErrors> {
        // Cedar follows conditions recursively, and its validator takes some 30 KiB a level without optimisation. The
        // depth is bounded by `rule`; this is the stack for it, whatever thread this is. Evaluation needs no such
        // thing: Cedar looks at what is left of the stack, and a rule that would need more is broken.
        stacker::grow(STACK, || Self::load_here(sources, world))
    }

    fn load_here(sources: &[PolicySource], world: &World) -> Result<Self, LoadPolicyErrors> {
        let mut sources: Vec<&PolicySource> = sources.iter().collect();
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        let vocabulary = Vocabulary::new(world);
        let mut errors = Vec::new();
        let mut rules = Vec::new();
        for source in &sources {
            rules.extend(rule::read(&source.path, &source.text, &vocabulary, &mut errors));
        }
        let numbers = number(&rules, &mut errors);
        let mut warnings = Vec::new();
        check::check(&rules, &sources, &vocabulary, &mut errors, &mut warnings);
        LoadPolicyErrors::check(std::mem::take(&mut errors))?;
        let digest = digest_of(&sources, &vocabulary);
        let index = Index::new(&rules);
        let entries = entries(&index, &vocabulary);
        let mut policy = Self { rules, numbers, index, entries, vocabulary, digest, warnings };
        for source in &sources {
            let found = example::check(&policy, source, world, &mut errors);
            policy.warnings.extend(found);
        }
        LoadPolicyErrors::check(errors)?;
        Ok(policy)
    }

    /// The digest of everything that a verdict depends on besides the call and the facts: the rules as written, and
    /// names, effects and argument types of the accepted tools.
    ///
    /// Agents and their groups are not in it: they come with the call.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// What an operator should know about this policy.
    #[must_use]
    pub fn warnings(&self) -> &[PolicyWarning] {
        &self.warnings
    }

    /// The rules, in the order in which they are written.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule of that name.
    #[must_use]
    pub fn rule(&self, name: &RuleName) -> Option<&Rule> {
        self.rules.get(*self.numbers.get(name)?)
    }

    /// The Cedar schema that the rules were checked against, in its JSON form: which arguments rules can read.
    #[must_use]
    pub fn schema(&self) -> serde_json::Value {
        self.vocabulary.cedar_schema()
    }

    /// What the rules say about a call.
    #[must_use]
    pub fn judge(&self, call: &Call, facts: &Facts) -> Verdict {
        decide::judge(self, call, facts)
    }

    /// Whether the agent could be permitted to do this with some arguments, at some time; what it may not use, it may
    /// not see.
    ///
    /// It says no if no `permit` covers agent, action and server; if a `forbid` that reads nothing of the context (no
    /// argument, no time, no session) matches; or if a rule of that kind cannot be evaluated. It says yes if a
    /// `permit` is left whose condition reads the context: whether it can be fulfilled is not looked into.
    #[must_use]
    pub fn may_see(&self, agent: &Agent, server: &ServerName, action: &Action) -> bool {
        self.entry_for(agent, server, action).is_some_and(|entry| decide::may_see(self, entry, agent))
    }

    /// What the rules say about a call and why: every rule that was considered, and the values it read.
    #[must_use]
    pub fn explain(&self, call: &Call, facts: &Facts) -> Explanation {
        explain::explain(self, call, facts)
    }

    /// What is known about an action on a server, as far as there is such a thing for this agent. Whoever is the demo
    /// agent showed nothing to prove it: for it there is the demo's server and no other, whatever the rules say.
    fn entry_for(&self, agent: &Agent, server: &ServerName, action: &Action) -> Option<&Entry> {
        let confined = agent.proof == Proof::Demo && server.as_str() != DEMO;
        self.entry(server, action).filter(|_| !confined)
    }

    /// What is known about an action on a server; `None` if there is no such thing, so nothing permits it.
    fn entry(&self, server: &ServerName, action: &Action) -> Option<&Entry> {
        self.entries.get(server)?.get(action)
    }
}

/// The number of each rule. A name that is there twice is an error.
fn number(rules: &[Rule], errors: &mut Vec<LoadPolicyError>) -> HashMap<RuleName, usize> {
    let mut numbers: HashMap<RuleName, usize> = HashMap::new();
    for (number, rule) in rules.iter().enumerate() {
        let first = *numbers.entry(rule.name.clone()).or_insert(number);
        if let Some(first) = rules.get(first).filter(|_| first != number) {
            errors.push(LoadPolicyError::DuplicateRule {
                at: rule.place.clone(),
                rule: rule.name.clone(),
                first: first.place.clone(),
            });
        }
    }
    numbers
}

fn digest_of(sources: &[&PolicySource], vocabulary: &Vocabulary) -> Digest {
    let schema = vocabulary.cedar_schema().to_string();
    let texts = sources.iter().map(|source| source.text.as_bytes());
    let parts: Vec<&[u8]> = std::iter::once(schema.as_bytes()).chain(texts).collect();
    Digest::of("toolgate/policy/v1", &parts)
}

/// An entry for each tool, and one for each other action on each server.
fn entries(index: &Index, vocabulary: &Vocabulary) -> HashMap<ServerName, HashMap<Action, Entry>> {
    let mut entries: HashMap<ServerName, HashMap<Action, Entry>> = HashMap::new();
    let servers: Vec<ServerName> = vocabulary.servers.iter().filter_map(|name| name.parse().ok()).collect();
    for (id, subject) in &vocabulary.subjects {
        let offered_by = subject.action.tool().map_or(&*servers, |tool| std::slice::from_ref(tool.server()));
        for server in offered_by {
            let entry = Entry::new(index, id, subject, server.as_str());
            entries.entry(server.clone()).or_default().insert(subject.action.clone(), entry);
        }
    }
    entries
}
