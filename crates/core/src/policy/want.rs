//! What the conditions of a rule read.

use std::collections::BTreeMap;

use cedar_policy::pst::{BinaryOp, Clause, Expr, Policy, Var};

/// The part of the context that a rule reads, as a tree.
///
/// It never leaves out what is read; where the reading cannot be followed, it says `whole`. What no candidate rule
/// reads is not put into the context, and need not be expressible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Want {
    /// The value is used as a whole, and not only some of its members.
    pub(super) whole: bool,
    /// The members that are read, or asked for with `has`.
    pub(super) inner: BTreeMap<String, Want>,
}

static WHOLE: Want = Want { whole: true, inner: BTreeMap::new() };

impl Want {
    /// Nothing is read.
    pub(super) fn is_nothing(&self) -> bool {
        !self.whole && self.inner.is_empty()
    }

    /// What is read of one member; `None` if it is not even asked for.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        if self.whole { Some(&WHOLE) } else { self.inner.get(name) }
    }

    /// What is read by either.
    pub(super) fn merge(&mut self, other: &Self) {
        self.whole |= other.whole;
        for (name, want) in &other.inner {
            self.inner.entry(name.clone()).or_default().merge(want);
        }
    }

    /// Whether a rule that reads this would notice what is at the path.
    pub(super) fn touches(&self, path: &[String]) -> bool {
        match path.split_first() {
            _ if self.whole => true,
            None => true,
            Some((name, rest)) => self.inner.get(name).is_some_and(|want| want.touches(rest)),
        }
    }

    /// The paths that are read, the longest of each.
    pub(super) fn paths(&self) -> Vec<Vec<&str>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect<'a>(&'a self, here: &mut Vec<&'a str>, paths: &mut Vec<Vec<&'a str>>) {
        if self.whole || (self.inner.is_empty() && !here.is_empty()) {
            paths.push(here.clone());
        }
        for (name, want) in &self.inner {
            here.push(name);
            want.collect(here, paths);
            here.pop();
        }
    }

    fn add<'a>(&mut self, path: impl IntoIterator<Item = &'a str>, whole: bool) {
        let mut at = self;
        for name in path {
            at = at.inner.entry(name.to_owned()).or_default();
        }
        at.whole |= whole;
    }
}

/// What the conditions of a rule read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Of the context.
    pub(super) context: Want,
    /// Whether they look at the action.
    pub(super) action: bool,
    /// Whether they look at what something is in.
    pub(super) ancestors: bool,
}

impl Reads {
    /// Everything.
    pub(super) fn everything() -> Self {
        Self { context: WHOLE.clone(), action: true, ancestors: true }
    }

    /// What a rule reads.
    pub(super) fn of(policy: &Policy) -> Self {
        let mut reads = Self::default();
        for clause in policy.body().clauses() {
            let (Clause::When(condition) | Clause::Unless(condition)) = clause;
            reads.follow(condition);
        }
        reads
    }

    fn follow(&mut self, expr: &Expr) {
        if let Some(path) = context_path(expr) {
            self.context.add(path, true);
            return;
        }
        match expr {
            Expr::Var(Var::Action) => self.action = true,
            Expr::Literal(_) | Expr::Var(Var::Context | Var::Principal | Var::Resource) => {}
            Expr::HasAttr { expr, attrs } => match context_path(expr) {
                Some(path) => {
                    self.context.add(path.into_iter().chain(attrs.iter().map(|name| name.as_str())), false);
                }
                None => self.follow(expr),
            },
            Expr::GetAttr { expr, .. } | Expr::Like { expr, .. } | Expr::UnaryOp { expr, .. } => {
                self.follow(expr);
            }
            Expr::BinaryOp { op, left, right } => {
                self.ancestors |= matches!(op, BinaryOp::In);
                self.follow(left);
                self.follow(right);
            }
            Expr::Is { expr, in_expr, .. } => {
                self.follow(expr);
                if let Some(expr) = in_expr {
                    self.ancestors = true;
                    self.follow(expr);
                }
            }
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                for expr in [cond, then_expr, else_expr] {
                    self.follow(expr);
                }
            }
            Expr::Set(elements) => elements.iter().for_each(|expr| self.follow(expr)),
            Expr::Record(members) => members.values().for_each(|expr| self.follow(expr)),
            // What a later version of the language may bring: taken to read everything.
            _ => *self = Self::everything(),
        }
    }
}

/// The members on the way, if the expression is `context.a.b…`.
fn context_path(expr: &Expr) -> Option<Vec<&str>> {
    match expr {
        Expr::Var(Var::Context) => Some(Vec::new()),
        Expr::GetAttr { expr, attr } => {
            let mut path = context_path(expr)?;
            path.push(attr);
            Some(path)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(condition: &str) -> Vec<String> {
        let text = format!("permit(principal, action, resource) when {{ {condition} }};");
        let policy: cedar_policy::Policy = text.parse().unwrap();
        let want = Reads::of(&policy.to_pst().unwrap()).context;
        let mut paths: Vec<_> = want.paths().iter().map(|path| path.join(".")).collect();
        if want.whole {
            paths.push("everything".to_owned());
        }
        paths
    }

    #[test]
    fn reading_is_followed_into_every_kind_of_expression() {
        for (condition, want) in [
            ("true", &[][..]),
            ("principal in Group::\"a\"", &[]),
            ("context.args.a == 1", &["args.a"]),
            ("context[\"args\"][\"a\"] == 1", &["args.a"]),
            ("context.args has a && context.args.a > 1", &["args.a"]),
            ("context.args has a.b", &["args.a.b"]),
            ("context has args", &["args"]),
            ("!(context.args.a like \"x*\")", &["args.a"]),
            ("if context.args.a then context.args.b else context.args.c", &["args.a", "args.b", "args.c"]),
            ("(if true then context.args else context.args.b).c", &["args", "args.b"]),
            ("[context.args.a].contains({ x: context.args.b })", &["args.a", "args.b"]),
            ("context.args.a.contains(context.time)", &["args.a", "time"]),
            ("principal is Agent in context.args.a", &["args.a"]),
            ("context.unseen.isEmpty()", &["unseen"]),
            ("context == { args: 1 }", &["", "everything"]),
            ("context.args.a.lessThan(decimal(\"1.0\"))", &["args.a"]),
        ] {
            assert_eq!(paths(condition), want, "input: {condition:?}");
        }
    }

    #[test]
    fn looking_at_the_action_and_at_ancestors_is_noticed() {
        for (condition, action, ancestors) in [
            ("principal == Agent::\"a\"", false, false),
            ("principal in Group::\"a\"", false, true),
            ("principal is Agent", false, false),
            ("principal is Agent in Group::\"a\"", false, true),
            ("!(context.x || [action].contains(action))", true, false),
            ("if true then true else Agent::\"a\" in [Group::\"b\"]", false, true),
        ] {
            let text = format!("permit(principal, action, resource) unless {{ {condition} }};");
            let policy: cedar_policy::Policy = text.parse().unwrap();
            let reads = Reads::of(&policy.to_pst().unwrap());
            assert_eq!((reads.action, reads.ancestors), (action, ancestors), "input: {condition:?}");
        }
    }

    #[test]
    fn what_is_not_read_is_not_touched() {
        let mut want = Want::default();
        want.add(["args", "a", "b"], true);
        want.add(["args", "c"], false);
        for (path, touched) in [
            (&["args"][..], true),
            (&["args", "a"], true),
            (&["args", "a", "b"], true),
            (&["args", "a", "b", "x"], true),
            (&["args", "a", "x"], false),
            (&["args", "c"], true),
            (&["args", "c", "x"], false),
            (&["args", "d"], false),
        ] {
            let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(want.touches(&path), touched, "path: {path:?}");
        }
    }
}
