//! Why a verdict is what it is.

use super::decide::{Case, Weighed, argument, seconds, unseen};
use super::rule::Rule;
use super::{Facts, Policy};
use crate::call::Call;
use crate::json::quote;
use crate::verdict::{DenyReason, Verdict};

/// How much of a value is shown, in characters.
const MOST_SHOWN: usize = 200;

/// A verdict, and what led to it.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// The rules whose scope covers the call, in the order in which they are written.
    pub considered: Vec<Considered>,
    /// How many rules were not considered, as they are for other agents, actions or servers.
    pub others: usize,
    /// The arguments that rules cannot see.
    pub unseen: Vec<String>,
}

/// A rule that was considered.
#[derive(Debug, Clone)]
pub struct Considered {
    /// The rule.
    pub rule: Rule,
    /// What came of it.
    pub finding: Finding,
    /// What it reads of this call.
    pub readings: Vec<Reading>,
    /// Whether the verdict is what it is because of this rule.
    pub decides: bool,
}

/// What came of considering a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It could not be evaluated.
    Broken {
        /// What went wrong.
        error: String,
    },
    /// It reads an argument whose value cannot be shown to rules.
    Inexpressible {
        /// Which argument.
        argument: String,
    },
    /// Its conditions hold.
    Matched,
    /// Its conditions do not hold.
    NotMatched,
}

/// A value that a rule read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Where the rule read it, such as `context.args.to`.
    pub path: String,
    /// The value as JSON, cut if it is long; `None` if there is none.
    pub value: Option<String>,
}

/// See [`Policy::explain`].
pub(super) fn explain(policy: &Policy, call: &Call, facts: &Facts) -> Explanation {
    let nothing = || Explanation {
        verdict: Verdict::Deny(DenyReason::NotPermitted),
        considered: Vec::new(),
        others: policy.rules.len(),
        unseen: Vec::new(),
    };
    let Some(entry) = policy.entry_for(&call.agent, &call.server, &call.action) else { return nothing() };
    let case = Case::new(entry, call, facts);
    let numbers = entry.parts.rules(&call.agent);
    let weighed = Weighed::new(policy, &case, &numbers);
    let deciding = weighed.deciding();
    let unseen = unseen(&entry.context, call.arguments.root());
    let considered: Vec<_> = numbers
        .iter()
        .filter_map(|number| {
            let rule = policy.rules.get(*number)?;
            Some(Considered {
                rule: rule.clone(),
                finding: finding(&case, rule),
                readings: readings(rule, call, facts, &unseen),
                decides: deciding.contains(number),
            })
        })
        .collect();
    let others = policy.rules.len() - considered.len();
    Explanation { verdict: weighed.verdict(policy), considered, others, unseen }
}

fn finding(case: &Case<'_>, rule: &Rule) -> Finding {
    if let Some(path) = case.hidden_from(rule) {
        return Finding::Inexpressible { argument: argument(path) };
    }
    match case.conditions().hold(rule) {
        Ok(true) => Finding::Matched,
        Ok(false) => Finding::NotMatched,
        Err(error) => Finding::Broken { error },
    }
}

fn readings(rule: &Rule, call: &Call, facts: &Facts, unseen: &[String]) -> Vec<Reading> {
    rule.reads
        .context
        .paths()
        .into_iter()
        .map(|path| {
            let value = match path.split_first() {
                Some((&"args", members)) => {
                    call.arguments.root().path(members).map(|value| value.raw_str().to_owned())
                }
                Some((&"carries", _)) => {
                    let names: Vec<_> = call.carries.kinds().iter().map(|kind| quote(kind)).collect();
                    Some(format!("[{}]", names.join(",")))
                }
                Some((&"session", _)) => Some(quote(&call.session)),
                Some((&"time", _)) => Some(seconds(facts).to_string()),
                Some((&"unseen", _)) => {
                    let names: Vec<_> = unseen.iter().map(|name| quote(name)).collect();
                    Some(format!("[{}]", names.join(",")))
                }
                Some(_) | None => None,
            };
            let path = std::iter::once("context").chain(path).collect::<Vec<_>>().join(".");
            Reading { path, value: value.map(|value| cut(&value)) }
        })
        .collect()
}

fn cut(value: &str) -> String {
    let mut shown: String = value.chars().take(MOST_SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    shown
}
