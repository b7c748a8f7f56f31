//! The commonest conditions, evaluated by looking at Cedar's trees and values where they lie.
//!
//! Cedar's evaluator copies each value that it passes through; most conditions only compare an argument with a
//! constant. Only the forms below are known here, and only where every value has the type that it should have. For
//! everything else the answer is `None`, and Cedar's evaluator is asked: so whether a rule is broken, and why, is for
//! Cedar alone to say.

use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, Literal, UnaryOp, Value, ValueKind, Var};

/// Whether a condition holds on a context, which is a record; `None` if it is not known here.
pub(super) fn holds(condition: &Expr, context: &Value) -> Option<bool> {
    match condition.expr_kind() {
        ExprKind::And { left, right } => Some(holds(left, context)? && holds(right, context)?),
        ExprKind::Or { left, right } => Some(holds(left, context)? || holds(right, context)?),
        ExprKind::If { test_expr, then_expr, else_expr } => {
            holds(if holds(test_expr, context)? { then_expr } else { else_expr }, context)
        }
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => Some(!holds(arg, context)?),
        ExprKind::UnaryApp { op: UnaryOp::IsEmpty, arg } => match &at(arg, context)?.value {
            ValueKind::Set(set) => Some(set.is_empty()),
            _ => None,
        },
        ExprKind::BinaryApp { op, arg1, arg2 } => compare(*op, arg1, arg2, context),
        ExprKind::HasAttr { expr, attr } => match &at(expr, context)?.value {
            ValueKind::Record(members) => Some(members.contains_key(attr)),
            _ => None,
        },
        ExprKind::Like { expr, pattern } => match literal(expr, context)? {
            Literal::String(text) => Some(pattern.wildcard_match(text)),
            _ => None,
        },
        ExprKind::Lit(_) | ExprKind::GetAttr { .. } => match literal(condition, context)? {
            Literal::Bool(holds) => Some(*holds),
            _ => None,
        },
        _ => None,
    }
}

fn compare(op: BinaryOp, left: &Expr, right: &Expr, context: &Value) -> Option<bool> {
    let numbers = || match (literal(left, context)?, literal(right, context)?) {
        (Literal::Long(left), Literal::Long(right)) => Some((*left, *right)),
        _ => None,
    };
    match op {
        BinaryOp::Eq => Some(literal(left, context)? == literal(right, context)?),
        BinaryOp::Less => numbers().map(|(left, right)| left < right),
        BinaryOp::LessEq => numbers().map(|(left, right)| left <= right),
        BinaryOp::Contains => contains(left, literal(right, context)?, context),
        _ => None,
    }
}

fn contains(set: &Expr, element: &Literal, context: &Value) -> Option<bool> {
    if let ExprKind::Set(elements) = set.expr_kind() {
        // All of them are looked at: one that is no literal makes the whole set Cedar's.
        let each = |expr| literal(expr, context).map(|literal| literal == element);
        return elements.iter().map(each).try_fold(false, |found, each| Some(found | each?));
    }
    match &at(set, context)?.value {
        ValueKind::Set(set) => Some(set.contains(&Value::from(element.clone()))),
        _ => None,
    }
}

/// The literal that an expression is, or that lies where it points.
fn literal<'a>(expr: &'a Expr, context: &'a Value) -> Option<&'a Literal> {
    if let ExprKind::Lit(literal) = expr.expr_kind() {
        return Some(literal);
    }
    match &at(expr, context)?.value {
        ValueKind::Lit(literal) => Some(literal),
        _ => None,
    }
}

/// The value at `context.a.b…`.
fn at<'a>(expr: &Expr, context: &'a Value) -> Option<&'a Value> {
    match expr.expr_kind() {
        ExprKind::Var(Var::Context) => Some(context),
        ExprKind::GetAttr { expr, attr } => match &at(expr, context)?.value {
            ValueKind::Record(members) => members.get(attr),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cedar_policy_core::ast::{Context, EntityUID, Request, RequestSchemaAllPass, SlotEnv};
    use cedar_policy_core::entities::Entities;
    use cedar_policy_core::evaluator::Evaluator;
    use cedar_policy_core::extensions::Extensions;
    use proptest::prelude::*;

    use super::*;

    fn context() -> Value {
        let inner = Value::record([("x", Value::from(1)), ("s", Value::from("b*"))], None);
        let texts = Value::set([Value::from("a"), Value::from("b")], None);
        Value::record(
            [
                ("n", Value::from(5)),
                ("least", Value::from(i64::MIN)),
                ("s", Value::from("abc")),
                ("yes", Value::from(true)),
                ("no", Value::from(false)),
                ("empty", Value::empty_set(None)),
                ("texts", texts),
                ("mixed", Value::set([inner.clone(), Value::from(5)], None)),
                ("r", inner),
            ],
            None,
        )
    }

    /// What is known here, and what Cedar says.
    fn both(condition: &str) -> (Option<bool>, Option<bool>) {
        let text = format!("permit(principal, action, resource) when {{ {condition} }};");
        let policy: cedar_policy::Policy = text.parse().unwrap();
        let policy: &cedar_policy_core::ast::Policy = policy.as_ref();
        let condition = policy.non_scope_constraints_arc().unwrap();
        let context = context();
        let members = match &context.value {
            ValueKind::Record(members) => Some(Context::Value(Arc::clone(members))),
            _ => None,
        };
        let uid = |text: &str| (text.parse::<EntityUID>().unwrap(), None);
        let request = Request::new(
            uid("Agent::\"a\""),
            uid("Action::\"x\""),
            uid("Server::\"s\""),
            members.unwrap(),
            None::<&RequestSchemaAllPass>,
            Extensions::all_available(),
        )
        .unwrap();
        let entities = Entities::new();
        let evaluator = Evaluator::new(request, &entities, Extensions::all_available());
        let value = evaluator.interpret(condition, &SlotEnv::new()).map(|value| value.value);
        let cedar = match value {
            Ok(ValueKind::Lit(Literal::Bool(holds))) => Some(holds),
            _ => None,
        };
        (holds(condition, &context), cedar)
    }

    #[test]
    fn the_commonest_conditions_are_known_and_others_are_not() {
        for (condition, want) in [
            ("context.n < 6", Some(true)),
            ("context.n <= 5 && context.least < 0", Some(true)),
            ("context.n >= 6 || context.n > 5", Some(false)),
            ("context.s == \"abc\" && context.s != \"abd\"", Some(true)),
            ("context.s == 5", Some(false)),
            ("context.s like \"a*c\"", Some(true)),
            ("context.r.s like \"b\\*\"", Some(true)),
            ("context has n && !(context has q)", Some(true)),
            ("context.r has x && context.r.x == 1", Some(true)),
            ("context has q && context.q > 1", Some(false)),
            ("context.texts.contains(\"a\")", Some(true)),
            ("context.mixed.contains(5)", Some(true)),
            ("[\"abc\", \"d\"].contains(context.s)", Some(true)),
            ("context.empty.isEmpty()", Some(true)),
            ("if context.yes then context.no else context.n", Some(false)),
            ("context.no && context.n", Some(false)),
            // Broken, which is for Cedar to say.
            ("context.q > 1", None),
            ("context.yes && context.n", None),
            ("context.s < 5", None),
            ("context.n like \"a\"", None),
            ("context.s has x", None),
            ("context.n.contains(1)", None),
            // Right, and for Cedar to say.
            ("context.n + 1 == 6", None),
            ("context.texts.containsAny([\"a\"])", None),
            ("principal == Agent::\"a\"", None),
            ("context.r == { x: 1, s: \"b*\" }", None),
        ] {
            assert_eq!(both(condition).0, want, "condition: {condition}");
        }
    }

    /// Conditions of every form, of right and wrong types.
    fn condition() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(vec![
            "true",
            "false",
            "5",
            "-1",
            "\"abc\"",
            "\"b*\"",
            "[\"a\", \"abc\"]",
            "[5, context.n]",
            "principal",
            "context",
            "context.n",
            "context.least",
            "context.s",
            "context.yes",
            "context.no",
            "context.q",
            "context.empty",
            "context.texts",
            "context.mixed",
            "context.r",
            "context.r.x",
            "context.r.s",
            "decimal(\"1.5\")",
        ])
        .prop_map(str::to_owned);
        leaf.prop_recursive(4, 24, 3, |inner| {
            let two = (inner.clone(), inner.clone());
            let op = prop::sample::select(vec!["&&", "||", "==", "!=", "<", "<=", ">", ">=", "+", "*"]);
            let after = prop::sample::select(vec![
                " has n",
                " has x",
                " has q",
                " like \"a*\"",
                " like \"b\\*\"",
                ".isEmpty()",
                ".x",
            ]);
            let of_set = prop::sample::select(vec!["contains", "containsAny"]);
            prop_oneof![
                (two.clone(), op).prop_map(|((a, b), op)| format!("(({a}) {op} ({b}))")),
                (inner.clone(), after).prop_map(|(a, after)| format!("(({a}){after})")),
                (two.clone(), of_set).prop_map(|((a, b), name)| format!("({a}).{name}({b})")),
                inner.clone().prop_map(|a| format!("!({a})")),
                (two, inner).prop_map(|((a, b), c)| format!("(if ({a}) then ({b}) else ({c}))")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        /// What is known here is what Cedar says: of a broken rule nothing is known.
        #[test]
        fn what_is_known_is_what_cedar_says(condition in condition()) {
            let (known, cedar) = both(&condition);
            prop_assert!(known.is_none() || known == cedar, "{condition}: {known:?}, and Cedar says {cedar:?}");
        }
    }
}
