//! One rule: what a policy file says, read once into something that cannot be wrong.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy::{
    ActionConstraint, Effect as CedarEffect, EntityUid, Policy as CedarPolicy, PolicyId, PolicySet,
    PrincipalConstraint, ResourceConstraint,
};
use cedar_policy_core::ast::Expr;
use miette::Diagnostic;

use super::error::{Lines, LoadPolicyError, Place};
use super::vocabulary::Vocabulary;
use super::want::Reads;
use crate::name::{QuestionName, RuleName};
use crate::tool::Effect;

/// How large one policy file may be, in bytes.
const MAX_FILE: usize = 1 << 20;

/// How large one rule may be, in bytes.
const MAX_RULE: usize = 16 << 10;

/// How deep parentheses, brackets and braces of a policy file go.
const MAX_NESTING: usize = 32;

/// How many operators one rule may have: a chain of them is a tree as deep, and trees are followed recursively, by us
/// and by Cedar. `&&` and `||` count twice, `if` counts four times.
const MAX_OPERATORS: usize = 400;

/// What a rule does when it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleKind {
    /// Has a person asked this question.
    Ask(QuestionName),
    /// Refuses.
    Forbid,
    /// Permits.
    Permit,
}

/// A rule of a policy.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its `@id`.
    pub name: RuleName,
    /// Where it begins.
    pub place: Place,
    /// What it does when it matches.
    pub kind: RuleKind,
    /// Its `@because`.
    pub because: String,
    /// Whether it permits calls that carry a secret out: `@carries("allow")`.
    pub carries: bool,
    /// The rule as it is written.
    pub text: String,
    pub(super) scope: Scope,
    pub(super) reads: Reads,
    /// What has to hold besides the scope.
    pub(super) condition: Option<Arc<Expr>>,
    pub(super) policy: CedarPolicy,
}

/// Which calls a rule is considered for: what stands in its parentheses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) principal: Principals,
    pub(super) actions: Vec<Actions>,
    pub(super) server: Servers,
}

/// For which agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principals {
    Agent(String),
    Everyone,
    Group(String),
    Nobody,
}

/// For which actions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Actions {
    Every,
    One(String),
    With(Effect),
}

/// For which servers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Servers {
    Every,
    None,
    One(String),
}

/// Reads a policy file. What is wrong goes to `errors`; the rules that are right come back.
pub(super) fn read(
    path: &str,
    text: &str,
    words: &Vocabulary,
    errors: &mut Vec<LoadPolicyError>,
) -> Vec<Rule> {
    if let Err(error) = check_size(path, text) {
        errors.push(*error);
        return Vec::new();
    }
    let set: PolicySet = match text.parse() {
        Ok(set) => set,
        Err(found) => {
            let found: &cedar_policy::ParseErrors = &found;
            errors.extend(found.iter().map(|error| syntax_error(path, text, error)));
            return Vec::new();
        }
    };
    if set.templates().next().is_some() {
        let offset = text.find("?principal").or_else(|| text.find("?resource")).unwrap_or(0);
        errors.push(LoadPolicyError::Template { at: Place::of(path, text, offset) });
        return Vec::new();
    }
    let lines = Lines::new(text);
    let mut from = 0;
    let mut rules = Vec::new();
    for policy in set.policies() {
        let written = policy.to_cedar().unwrap_or_default();
        let offset = text.get(from..).and_then(|rest| rest.find(&written)).map_or(from, |found| from + found);
        from = offset + written.len();
        if written.len() > MAX_RULE {
            let what = format!("the rule is larger than {MAX_RULE} bytes; write it as several");
            errors.push(LoadPolicyError::TooLarge { at: Place::of(path, text, offset), what });
            continue;
        }
        rules.extend(Draft { path, text, lines: &lines, offset, written, policy }.check(words, errors));
    }
    rules
}

/// Refuses what would take too much memory or stack to read.
fn check_size(path: &str, text: &str) -> Result<(), Box<LoadPolicyError>> {
    if text.len() > MAX_FILE {
        let what = format!("the file is larger than {MAX_FILE} bytes");
        return Err(Box::new(LoadPolicyError::TooLarge { at: Place::of(path, "", 0), what }));
    }
    let mut depth = 0_usize;
    let mut last_end = 0;
    let mut operators = 0_usize;
    let mut within = Within::Rule;
    let mut before = b' ';
    for (offset, byte) in text.bytes().enumerate() {
        within = within.after(std::mem::replace(&mut before, byte), byte);
        match byte {
            _ if within != Within::Rule => {}
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' => (last_end, operators) = (offset, 0),
            b'f' if text.get(offset.saturating_sub(1)..=offset) == Some("if") => operators += 4,
            b'&' | b'|' | b'+' | b'-' | b'*' | b'.' | b'!' => operators += 1,
            _ => {}
        }
        if depth > MAX_NESTING || operators > MAX_OPERATORS || offset - last_end > 2 * MAX_RULE {
            let what = format!(
                "a rule may be {MAX_RULE} bytes large, nest {MAX_NESTING} parentheses, brackets and braces, and have \
                 {MAX_OPERATORS} operators; write it as several"
            );
            return Err(Box::new(LoadPolicyError::TooLarge { at: Place::of(path, text, offset), what }));
        }
    }
    Ok(())
}

/// What a byte of a policy file belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Comment,
    Escape,
    Rule,
    Text,
}

impl Within {
    const fn after(self, before: u8, byte: u8) -> Self {
        match (self, before, byte) {
            (Self::Comment, _, b'\n') | (Self::Text, _, b'"') => Self::Rule,
            (Self::Text, _, b'\\') => Self::Escape,
            (Self::Escape, ..) | (Self::Rule, _, b'"') => Self::Text,
            (Self::Rule, b'/', b'/') => Self::Comment,
            (Self::Comment | Self::Rule | Self::Text, ..) => self,
        }
    }
}

fn syntax_error(path: &str, text: &str, error: &cedar_policy::ParseError) -> LoadPolicyError {
    LoadPolicyError::Syntax {
        at: Place::of(path, text, span(error).map_or(0, |(offset, _)| offset)),
        message: error.to_string(),
        hint: error.help().map(|help| help.to_string()),
    }
}

/// Where the policy language says that an error is: offset and length.
pub(super) fn span(error: &dyn Diagnostic) -> Option<(usize, usize)> {
    let label = error.labels()?.next()?;
    Some((label.offset(), label.len()))
}

/// A rule that parsed, but is not checked yet.
struct Draft<'a> {
    path: &'a str,
    text: &'a str,
    lines: &'a Lines,
    offset: usize,
    written: String,
    policy: &'a CedarPolicy,
}

impl Draft<'_> {
    fn check(self, words: &Vocabulary, errors: &mut Vec<LoadPolicyError>) -> Option<Rule> {
        let at = self.lines.place(self.path, self.text, self.offset);
        let name = match self.policy.annotation("id").map(str::parse::<RuleName>) {
            Some(Ok(name)) => name,
            Some(Err(source)) => {
                errors.push(LoadPolicyError::BadName { at, source });
                return None;
            }
            None => {
                errors.push(LoadPolicyError::NoName { at });
                return None;
            }
        };
        let found = errors.len();
        self.check_annotations(&at, &name, errors);
        self.check_names(&name, words, errors);
        let because = self.policy.annotation("because").unwrap_or_default().trim().to_owned();
        if because.is_empty() {
            errors.push(LoadPolicyError::NoReason { at: at.clone(), rule: name.clone() });
        }
        let kind = self.kind(&at, &name, words, errors)?;
        let carries = self.carries(&at, &name, &kind, errors);
        let policy = self.policy.new_id(PolicyId::new(name.as_str()));
        // A rule that parsed has a tree; were there none, the rule is taken to read everything.
        let reads = self.policy.to_pst().map_or_else(|_| Reads::everything(), |tree| Reads::of(&tree));
        let scope = self.scope();
        let condition = condition(self.policy);
        (errors.len() == found).then_some(Rule {
            name,
            place: at,
            kind,
            because,
            carries,
            text: self.written,
            scope,
            reads,
            condition,
            policy,
        })
    }

    fn check_annotations(&self, at: &Place, rule: &RuleName, errors: &mut Vec<LoadPolicyError>) {
        let unknown = |name: &str| !matches!(name, "id" | "because" | "ask" | "carries");
        for (annotation, _) in self.policy.annotations().filter(|(name, _)| unknown(name)) {
            errors.push(LoadPolicyError::UnknownAnnotation {
                at: at.clone(),
                rule: rule.clone(),
                annotation: annotation.to_owned(),
            });
        }
    }

    fn carries(
        &self,
        at: &Place,
        rule: &RuleName,
        kind: &RuleKind,
        errors: &mut Vec<LoadPolicyError>,
    ) -> bool {
        let Some(said) = self.policy.annotation("carries") else { return false };
        let fits = said == "allow" && *kind != RuleKind::Forbid;
        if !fits {
            errors.push(LoadPolicyError::BadCarries { at: at.clone(), rule: rule.clone() });
        }
        fits
    }

    fn kind(
        &self,
        at: &Place,
        rule: &RuleName,
        words: &Vocabulary,
        errors: &mut Vec<LoadPolicyError>,
    ) -> Option<RuleKind> {
        match (self.policy.effect(), self.policy.annotation("ask")) {
            (CedarEffect::Forbid, None) => Some(RuleKind::Forbid),
            (CedarEffect::Permit, None) => Some(RuleKind::Permit),
            (CedarEffect::Forbid, Some(_)) => {
                errors.push(LoadPolicyError::AskOnForbid { at: at.clone(), rule: rule.clone() });
                None
            }
            (CedarEffect::Permit, Some(question)) => match words.question(question) {
                Ok(question) => Some(RuleKind::Ask(question)),
                Err(hint) => {
                    let (at, rule, question) =
                        (at.clone(), rule.clone(), question.escape_debug().to_string());
                    errors.push(LoadPolicyError::UnknownQuestion { at, rule, question, hint });
                    None
                }
            },
        }
    }

    /// Every agent, group, server, tool and effect that the rule names has to exist: a misspelt name in a `forbid`
    /// would otherwise quietly forbid nothing.
    fn check_names(&self, rule: &RuleName, words: &Vocabulary, errors: &mut Vec<LoadPolicyError>) {
        for uid in self.policy.entity_literals() {
            let (kind, name) = (uid.type_name().to_string(), uid.id().unescaped().to_owned());
            let Err((kind, hint)) = words.check(&kind, &name) else { continue };
            let quoted = format!("\"{}\"", name.escape_debug());
            let offset = self.offset + self.written.rfind(&quoted).unwrap_or(0);
            let at = Place::of(self.path, self.text, offset);
            let name = name.escape_debug().to_string();
            errors.push(LoadPolicyError::UnknownName { at, rule: rule.clone(), kind, name, hint });
        }
    }

    fn scope(&self) -> Scope {
        Scope {
            principal: match self.policy.principal_constraint() {
                PrincipalConstraint::Any => Principals::Everyone,
                PrincipalConstraint::Eq(uid) if is(&uid, "Agent") => Principals::Agent(id(&uid)),
                PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) if is(&uid, "Agent") => {
                    Principals::Agent(id(&uid))
                }
                PrincipalConstraint::In(uid) if is(&uid, "Group") => Principals::Group(id(&uid)),
                PrincipalConstraint::IsIn(kind, uid) if kind.to_string() == "Agent" && is(&uid, "Group") => {
                    Principals::Group(id(&uid))
                }
                PrincipalConstraint::Is(kind) if kind.to_string() == "Agent" => Principals::Everyone,
                PrincipalConstraint::Eq(_)
                | PrincipalConstraint::In(_)
                | PrincipalConstraint::Is(_)
                | PrincipalConstraint::IsIn(..) => Principals::Nobody,
            },
            actions: match self.policy.action_constraint() {
                ActionConstraint::Any => vec![Actions::Every],
                ActionConstraint::Eq(uid) => vec![Actions::One(id(&uid))],
                ActionConstraint::In(uids) => uids.iter().map(actions_in).collect(),
            },
            server: match self.policy.resource_constraint() {
                ResourceConstraint::Any => Servers::Every,
                ResourceConstraint::Eq(uid)
                | ResourceConstraint::In(uid)
                | ResourceConstraint::IsIn(_, uid)
                    if is(&uid, "Server") =>
                {
                    Servers::One(id(&uid))
                }
                ResourceConstraint::Is(kind) if kind.to_string() == "Server" => Servers::Every,
                ResourceConstraint::Eq(_)
                | ResourceConstraint::In(_)
                | ResourceConstraint::Is(_)
                | ResourceConstraint::IsIn(..) => Servers::None,
            },
        }
    }
}

/// `action in X` covers X itself, and the tools that have it if it is an effect.
fn actions_in(uid: &EntityUid) -> Actions {
    let id = id(uid);
    id.parse().map_or(Actions::One(id), Actions::With)
}

fn is(uid: &EntityUid, kind: &str) -> bool {
    uid.type_name().to_string() == kind
}

fn id(uid: &EntityUid) -> String {
    uid.id().unescaped().to_owned()
}

/// The conditions of a rule as one expression: each `when`, and the contrary of each `unless`.
///
/// It is the very tree that Cedar's authorizer evaluates after the scope, not a copy printed and read again.
fn condition(policy: &CedarPolicy) -> Option<Arc<Expr>> {
    policy.as_ref().non_scope_constraints_arc().cloned()
}

impl Scope {
    /// Whether the rule is considered for this action, if it is on a server that the rule is for.
    pub(super) fn covers_action(&self, id: &str, effects: &BTreeSet<Effect>) -> bool {
        self.actions.iter().any(|action| match action {
            Actions::Every => true,
            Actions::One(name) => name == id,
            Actions::With(effect) => effects.contains(effect),
        })
    }

    /// Whether the rule is considered for this server.
    pub(super) fn covers_server(&self, server: &str) -> bool {
        match &self.server {
            Servers::Every => true,
            Servers::None => false,
            Servers::One(name) => name == server,
        }
    }
}
