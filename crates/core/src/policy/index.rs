//! Which rules are considered for a call, found without looking at the others.
//!
//! Rules are put into parts by action and server, and within a part into buckets by agent and group. An action looks
//! at the parts for every action, for each of its effects, and for itself; a call looks at the buckets for everybody,
//! for its agent, and for each of the agent's groups. What this leaves out could not match: its scope does not cover
//! the call.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::rule::{Actions, Principals, Rule, RuleKind, Servers};
use super::want::Want;
use crate::call::Agent;
use crate::tool::Effect;

/// The rules of one scope, all for the same agents.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Their numbers.
    pub(super) rules: Vec<usize>,
    /// Those of them whose conditions do not read the context, so that they are known before there is a call.
    pub(super) fixed: Vec<usize>,
    /// Whether one permits or asks, and its condition is none or depends on the call.
    pub(super) may_permit: bool,
    /// Whether one forbids without condition.
    pub(super) forbids: bool,
}

/// The rules for one kind of action.
#[derive(Debug, Default)]
pub(super) struct Part {
    everyone: Bucket,
    agents: HashMap<String, Bucket>,
    groups: HashMap<String, Bucket>,
    want: Want,
    ancestors: bool,
}

/// The parts that one action looks at.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    parts: Vec<Arc<Part>>,
    /// What any rule in them reads of the context.
    pub(super) want: Want,
    /// Whether any rule in them looks at what something is in.
    pub(super) ancestors: bool,
}

/// All parts.
#[derive(Debug, Default)]
pub(super) struct Index {
    parts: HashMap<(Actions, Servers), Arc<Part>>,
}

impl Index {
    /// Puts each rule into the parts it belongs to.
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut parts: HashMap<(Actions, Servers), Part> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let mut actions: Vec<&Actions> = rule.scope.actions.iter().collect();
            actions.sort_unstable();
            actions.dedup();
            for action in actions {
                parts.entry((action.clone(), rule.scope.server.clone())).or_default().add(number, rule);
            }
        }
        Self { parts: parts.into_iter().map(|(key, part)| (key, Arc::new(part))).collect() }
    }

    /// The parts for an action with these effects on a server.
    pub(super) fn parts(&self, id: &str, effects: &BTreeSet<Effect>, server: &str) -> Parts {
        let actions = [Actions::Every, Actions::One(id.to_owned())]
            .into_iter()
            .chain(effects.iter().copied().map(Actions::With));
        let mut found = Parts::default();
        for action in actions {
            for server in [Servers::Every, Servers::One(server.to_owned())] {
                if let Some(part) = self.parts.get(&(action.clone(), server)) {
                    found.want.merge(&part.want);
                    found.ancestors |= part.ancestors;
                    found.parts.push(Arc::clone(part));
                }
            }
        }
        found
    }
}

impl Part {
    fn add(&mut self, number: usize, rule: &Rule) {
        let bucket = match &rule.scope.principal {
            Principals::Agent(name) => self.agents.entry(name.clone()).or_default(),
            Principals::Everyone => &mut self.everyone,
            Principals::Group(name) => self.groups.entry(name.clone()).or_default(),
            Principals::Nobody => return,
        };
        bucket.rules.push(number);
        if rule.condition.is_some() && rule.reads.context.is_nothing() {
            bucket.fixed.push(number);
        } else {
            match &rule.kind {
                RuleKind::Ask(_) | RuleKind::Permit => bucket.may_permit = true,
                RuleKind::Forbid => bucket.forbids |= rule.condition.is_none(),
            }
        }
        self.want.merge(&rule.reads.context);
        self.ancestors |= rule.reads.ancestors;
    }
}

impl Parts {
    /// The buckets with the rules that are considered for this agent.
    pub(super) fn buckets<'a>(&'a self, agent: &'a Agent) -> impl Iterator<Item = &'a Bucket> {
        self.parts.iter().flat_map(|part| {
            std::iter::once(&part.everyone)
                .chain(part.agents.get(agent.id.as_str()))
                .chain(agent.groups.iter().filter_map(|group| part.groups.get(group.as_str())))
                .filter(|bucket| !bucket.rules.is_empty())
        })
    }
    /// The numbers of the rules that are considered for this agent, in the order in which they are written. A rule for
    /// two effects of one tool counts once.
    pub(super) fn rules(&self, agent: &Agent) -> Vec<usize> {
        let mut numbers = Vec::with_capacity(32);
        for bucket in self.buckets(agent) {
            numbers.extend_from_slice(&bucket.rules);
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}
