//! Checks rules against what there is to speak of: arguments by our own table, for good hints, and types by Cedar's
//! validator in its strict mode.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{PolicySet, Schema, ValidationError, ValidationMode, ValidationWarning, Validator};
use miette::Diagnostic;

use super::PolicySource;
use super::error::{LoadPolicyError, Place, PolicyWarning};
use super::rule::{Actions, Principals, Rule, Servers, span};
use super::suggest;
use super::vocabulary::{Subject, Vocabulary, cedar_schema};
use crate::name::RuleName;
use crate::tool::Effect;

/// Checks all rules. What makes the policy unusable goes to `errors`.
pub(super) fn check(
    rules: &[Rule],
    sources: &[&PolicySource],
    vocabulary: &Vocabulary,
    errors: &mut Vec<LoadPolicyError>,
    warnings: &mut Vec<PolicyWarning>,
) {
    let texts: HashMap<&str, &str> =
        sources.iter().map(|source| (source.path.as_str(), source.text.as_str())).collect();
    let mut unchecked = HashSet::new();
    for rule in rules {
        if let Some(hint) = never(rule) {
            unchecked.insert(rule.name.clone());
            let (at, rule) = (rule.place.clone(), rule.name.clone());
            errors.push(LoadPolicyError::Impossible { at, rule, hint: Some(hint) });
            continue;
        }
        let covered = covered(rule, vocabulary);
        if covered.is_empty() {
            unchecked.insert(rule.name.clone());
            warnings.push(PolicyWarning::CoversNothing { at: rule.place.clone(), rule: rule.name.clone() });
        }
        let text = texts.get(rule.place.path.as_str()).copied().unwrap_or_default();
        let found = unknown_arguments(rule, &covered, text);
        if !found.is_empty() {
            unchecked.insert(rule.name.clone());
        }
        errors.extend(found);
    }
    errors.extend(types(rules, &unchecked, &texts, vocabulary));
}

/// How it should be written, if the rule's scope can cover nothing, whatever tools there are.
fn never(rule: &Rule) -> Option<String> {
    let effect = rule.scope.actions.iter().find_map(|action| match action {
        Actions::One(id) => id.parse::<Effect>().ok(),
        Actions::Every | Actions::With(_) => None,
    });
    match (effect, &rule.scope.principal, &rule.scope.server) {
        (Some(effect), ..) => {
            Some(format!("an effect is never the action itself: write `action in Action::\"{effect}\"`"))
        }
        (None, Principals::Nobody, _) => Some(
            "the principal is an agent: write `principal == Agent::\"…\"` or `principal in Group::\"…\"`"
                .to_owned(),
        ),
        (None, _, Servers::None) => {
            Some("the resource is a server: write `resource == Server::\"…\"`".to_owned())
        }
        (
            None,
            Principals::Agent(_) | Principals::Everyone | Principals::Group(_),
            Servers::Every | Servers::One(_),
        ) => None,
    }
}

/// What the rule's scope covers, agents aside.
fn covered<'a>(rule: &Rule, vocabulary: &'a Vocabulary) -> Vec<&'a Subject> {
    let covers = |(id, subject): &(&String, &Subject)| {
        let on_server = match subject.action.tool() {
            Some(tool) => rule.scope.covers_server(tool.server().as_str()),
            None => vocabulary.servers.iter().any(|server| rule.scope.covers_server(server)),
        };
        on_server && rule.scope.covers_action(id, &subject.effects)
    };
    vocabulary.subjects.iter().filter(covers).map(|(_, subject)| subject).collect()
}

/// What the rule reads and nothing that it covers has. Cedar's validator would take `context.args has amuont` for
/// something that is simply never there.
fn unknown_arguments(rule: &Rule, covered: &[&Subject], text: &str) -> Vec<LoadPolicyError> {
    let mut errors = Vec::new();
    for path in rule.reads.context.paths() {
        if covered.is_empty() || covered.iter().any(|subject| subject.context.at(&path).is_some()) {
            continue;
        }
        let path = until_unknown(&path, covered);
        let Some((name, _)) = path.split_last() else { continue };
        errors.push(LoadPolicyError::UnknownArgument {
            at: place_of_name(rule, name, text),
            rule: rule.name.clone(),
            argument: format!("context.{}", path.join(".")),
            tools: match covered {
                [only] => format!("`{}` does not have", only.action),
                _ => format!("none of the {} actions it covers has", covered.len()),
            },
            hint: hint_for(path, covered),
        });
    }
    errors
}

/// The beginning of a path up to the first name that nothing has.
fn until_unknown<'a, 'b>(path: &'a [&'b str], covered: &[&Subject]) -> &'a [&'b str] {
    let unknown = |depth: &usize| {
        let before = path.get(..*depth).unwrap_or_default();
        !covered.iter().any(|subject| subject.context.at(before).is_some())
    };
    let depth = (1..=path.len()).find(unknown).unwrap_or(path.len());
    path.get(..depth).unwrap_or(path)
}

/// What could be meant by a path whose last name nothing has.
fn hint_for(path: &[&str], covered: &[&Subject]) -> String {
    let Some((name, before)) = path.split_last() else { return String::new() };
    if before == ["args"] && covered.iter().any(|subject| has_hidden_argument(subject, name)) {
        return format!(
            "rules cannot see `{name}`: its schema is a union, free in form, or missing; \
             when it is given, `context.unseen` has its name"
        );
    }
    let names: BTreeSet<&str> = covered
        .iter()
        .filter_map(|subject| subject.context.at(before))
        .flat_map(|shape| shape.members())
        .collect();
    let what = if before == ["args"] { "arguments" } else { "members" };
    suggest::hint(name, what, names)
}

/// Whether the tool has an argument of that name whose schema has no counterpart in the policy language.
fn has_hidden_argument(subject: &Subject, name: &str) -> bool {
    let definition = subject.tool.as_ref().map(|tool| tool.definition.root());
    definition.is_some_and(|tool| tool.path(&["inputSchema", "properties", name]).is_some())
}

/// Where the rule writes a name after a point, in quotes or after `has`; else, where it begins.
fn place_of_name(rule: &Rule, name: &str, text: &str) -> Place {
    let begins = text.find(&rule.text).unwrap_or(0);
    let written =
        [format!(".{name}"), format!("[\"{name}\"]"), format!("has {name}"), format!("has \"{name}\"")];
    let after = |form: &String| {
        let ends = |at: &usize| {
            let rest = rule.text.get(at + form.len()..).unwrap_or_default();
            !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        };
        let found = rule.text.match_indices(form.as_str()).map(|(at, _)| at).find(ends)?;
        Some(found + form.find(name).unwrap_or(0))
    };
    let offset = written.iter().filter_map(after).min().unwrap_or(0);
    Place::of(&rule.place.path, text, begins + offset)
}

/// The actions that a rule is checked with, by their ids.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Checked {
    /// Those it is applied to.
    subjects: Vec<String>,
    /// Those that have to exist because it names them.
    named: Vec<String>,
}

/// What Cedar's validator finds.
///
/// It looks at each rule once for each action of its schema, which takes long for many rules and tools. So each rule is
/// checked with those actions only that it covers and that differ in something it reads; rules with the same such
/// actions share a schema.
fn types(
    rules: &[Rule],
    unchecked: &HashSet<RuleName>,
    texts: &HashMap<&str, &str>,
    vocabulary: &Vocabulary,
) -> Vec<LoadPolicyError> {
    let mut alike: BTreeMap<Checked, BTreeMap<&RuleName, &Rule>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| !unchecked.contains(&rule.name)) {
        let subjects = differing(rule, &covered(rule, vocabulary));
        alike.entry(Checked { subjects, named: named_actions(rule) }).or_default().insert(&rule.name, rule);
    }
    let mut errors = Vec::new();
    for (Checked { subjects, named }, rules) in alike {
        let subjects = subjects.iter().filter_map(|id| vocabulary.subjects.get_key_value(id));
        let schema = match Schema::from_json_value(cedar_schema(subjects, &named)) {
            Ok(schema) => schema,
            // Every shape has a Cedar type, so no such world is known; were there one, nothing could be checked in it.
            Err(error) => return vec![no_schema(rules.values().next(), &error.to_string())],
        };
        let Ok(set) = PolicySet::from_policies(rules.values().map(|rule| rule.policy.clone())) else {
            return vec![no_schema(rules.values().next(), "its rules cannot be put together")];
        };
        let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
        let rule = |id: &str| rules.values().find(|rule| rule.name.as_str() == id);
        errors.extend(result.validation_errors().filter_map(|error| {
            rule(error.policy_id().as_ref()).map(|rule| type_error(rule, error, texts, vocabulary))
        }));
        errors.extend(result.validation_warnings().filter_map(|warning| {
            rule(warning.policy_id().as_ref()).and_then(|rule| warned(rule, warning, texts))
        }));
    }
    errors
}

/// The ids of the actions among these that differ in what the rule reads; all of them, if it looks at the action.
fn differing(rule: &Rule, covered: &[&Subject]) -> Vec<String> {
    let mut shapes = BTreeSet::new();
    let mut differs =
        |subject: &Subject| rule.reads.action || shapes.insert(subject.context.only(&rule.reads.context));
    covered.iter().filter(|subject| differs(subject)).map(|subject| subject.action.to_string()).collect()
}

/// The ids of the actions that the rule names.
fn named_actions(rule: &Rule) -> Vec<String> {
    let literals = rule.policy.entity_literals();
    let actions = literals.iter().filter(|uid| uid.type_name().to_string() == "Action");
    let mut ids: Vec<String> = actions.map(|uid| uid.id().unescaped().to_owned()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn no_schema(rule: Option<&&Rule>, message: &str) -> LoadPolicyError {
    let at = rule.map_or_else(|| Place::of("", "", 0), |rule| rule.place.clone());
    LoadPolicyError::Syntax { at, message: format!("the policy cannot be checked: {message}"), hint: None }
}

fn type_error(
    rule: &Rule,
    error: &ValidationError,
    texts: &HashMap<&str, &str>,
    vocabulary: &Vocabulary,
) -> LoadPolicyError {
    let at = place_of(rule, error, texts);
    let read = texts.get(rule.place.path.as_str()).and_then(|text| argument_at(text, error));
    let (message, hint) = match (error, read) {
        (ValidationError::UnsafeOptionalAttributeAccess(_), Some((record, name))) => (
            format!("`{record}.{name}` may be absent"),
            Some(format!("write `{record} has {name} && …` before it")),
        ),
        (ValidationError::UnsafeAttributeAccess(_), Some((record, name))) => (
            format!("`{record}.{name}` is not there for {}", lacking(rule, record, name, vocabulary)),
            Some(format!("name the tools that have it, or write `{record} has {name} && …` before it")),
        ),
        _ => {
            let message = without_name(rule, &error.to_string());
            let decimal = message.ends_with("but saw decimal");
            let decimal =
                decimal.then(|| "write `.lessThan(decimal(\"5.0\"))` to compare such numbers".to_owned());
            (message, decimal.or_else(|| error.help().map(|help| without_name(rule, &help.to_string()))))
        }
    };
    LoadPolicyError::Type { at, rule: rule.name.clone(), message, hint }
}

/// The record and the name of its member, if the error is about `context.….name`.
fn argument_at<'a>(text: &'a str, error: &dyn Diagnostic) -> Option<(&'a str, &'a str)> {
    let (offset, length) = span(error)?;
    let read = text.get(offset..offset + length)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    read.rsplit_once('.').filter(|(record, _)| record.starts_with("context.") && read.chars().all(plain))
}

/// The first action that the rule covers and that has no such argument.
fn lacking(rule: &Rule, record: &str, name: &str, vocabulary: &Vocabulary) -> String {
    let path: Vec<&str> = record.split('.').skip(1).chain([name]).collect();
    let covered = covered(rule, vocabulary);
    let lacks = covered.iter().find(|subject| subject.context.at(&path).is_none());
    lacks.map_or_else(|| "everything it covers".to_owned(), |subject| format!("`{}`", subject.action))
}

/// A message of the validator without the rule's name, which is told anyway.
fn without_name(rule: &Rule, message: &str) -> String {
    let prefix = format!("for policy `{}`, ", rule.name);
    message.strip_prefix(&prefix).unwrap_or(message).to_owned()
}

/// Whether a warning of the validator is an error here.
fn warned(rule: &Rule, warning: &ValidationWarning, texts: &HashMap<&str, &str>) -> Option<LoadPolicyError> {
    match warning {
        // Told as a warning of our own.
        ValidationWarning::InvalidActionApplication(_) => None,
        ValidationWarning::ImpossiblePolicy(_) => {
            Some(LoadPolicyError::Impossible { at: rule.place.clone(), rule: rule.name.clone(), hint: None })
        }
        // Letters that look like others, or turn the reading direction: a person would not read what is judged.
        _ => Some(LoadPolicyError::Type {
            at: place_of(rule, warning, texts),
            rule: rule.name.clone(),
            message: escaped(&without_name(rule, &warning.to_string())),
            hint: None,
        }),
    }
}

fn escaped(text: &str) -> String {
    let shown = |c: char| {
        if c.is_ascii_graphic() || c == ' ' { c.to_string() } else { c.escape_unicode().to_string() }
    };
    text.chars().map(shown).collect()
}

fn place_of(rule: &Rule, found: &dyn Diagnostic, texts: &HashMap<&str, &str>) -> Place {
    match (span(found), texts.get(rule.place.path.as_str())) {
        (Some((offset, _)), Some(text)) => Place::of(&rule.place.path, text, offset),
        (None, _) | (_, None) => rule.place.clone(),
    }
}
