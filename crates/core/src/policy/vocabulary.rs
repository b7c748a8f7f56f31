//! What rules may speak of: names and arguments, and the Cedar schema made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use serde_json::json;

use super::World;
use super::shape::{Field, Shape};
use super::suggest;
use crate::call::Action;
use crate::json::{Document, Limits};
use crate::name::QuestionName;
use crate::tool::{Effect, Tool};

/// The name of the agent and of the server that the demo brings along. Rules may always name them, so that the shipped
/// policies can be used where neither is configured.
pub const DEMO: &str = "demo";

/// What is not a tool call, and the JSON schema of its `args`: the members of `params` that rules can read.
pub(super) const OTHER_ACTIONS: [(Action, &str); 10] = [
    (
        Action::Complete,
        r#"{"type":"object","properties":{
            "ref":{"type":"object","properties":{
                "type":{"type":"string"},"name":{"type":"string"},"uri":{"type":"string"}},"required":["type"]},
            "argument":{"type":"object","properties":{
                "name":{"type":"string"},"value":{"type":"string"}},"required":["name","value"]}},
            "required":["ref","argument"]}"#,
    ),
    (
        Action::Elicit,
        r#"{"type":"object","properties":{
            "mode":{"type":"string"},"message":{"type":"string"},"url":{"type":"string"}},"required":["message"]}"#,
    ),
    (Action::GetPrompt, r#"{"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}"#),
    (Action::ListRoots, r#"{"type":"object","properties":{}}"#),
    (Action::ReadResource, r#"{"type":"object","properties":{"uri":{"type":"string"}},"required":["uri"]}"#),
    (
        Action::Sample,
        r#"{"type":"object","properties":{
            "includeContext":{"type":"string"},"maxTokens":{"type":"integer"},"systemPrompt":{"type":"string"}}}"#,
    ),
    (Action::Subscribe, r#"{"type":"object","properties":{"uri":{"type":"string"}},"required":["uri"]}"#),
    (Action::TaskCancel, TASK),
    (Action::TaskGet, TASK),
    (Action::TaskUpdate, TASK),
];

const TASK: &str = r#"{"type":"object","properties":{"taskId":{"type":"string"}},"required":["taskId"]}"#;

/// Something a rule can be about.
#[derive(Debug)]
pub(super) struct Subject {
    /// What is asked for.
    pub(super) action: Action,
    /// What it does. Only tools have effects.
    pub(super) effects: BTreeSet<Effect>,
    /// The context as rules see it.
    pub(super) context: Arc<Shape>,
    /// The accepted definition, if it is a tool.
    pub(super) tool: Option<Arc<Tool>>,
}

/// All names and arguments that rules may use.
#[derive(Debug)]
pub(super) struct Vocabulary {
    agents: BTreeSet<String>,
    groups: BTreeSet<String>,
    questions: BTreeSet<QuestionName>,
    /// The configured servers, and the built-in one.
    pub(super) servers: BTreeSet<String>,
    /// By the id of the Cedar action.
    pub(super) subjects: BTreeMap<String, Subject>,
}

impl Vocabulary {
    pub(super) fn new(world: &World) -> Self {
        let tools = world.tools.iter().map(|tool| Subject {
            action: Action::Tool(tool.name.clone()),
            effects: tool.effects.clone(),
            context: Arc::new(context(Shape::of_arguments(&tool.definition))),
            tool: Some(Arc::clone(tool)),
        });
        let others = OTHER_ACTIONS.into_iter().map(|(action, schema)| Subject {
            action,
            effects: BTreeSet::new(),
            context: Arc::new(context(shape_of(schema))),
            tool: None,
        });
        let built_in = || std::iter::once(DEMO.to_owned());
        let named_by_tools = world.tools.iter().map(|tool| tool.name.server());
        Self {
            agents: texts(world.agents.iter().map(|agent| &agent.id)).chain(built_in()).collect(),
            groups: texts(world.agents.iter().flat_map(|agent| &agent.groups)).collect(),
            questions: world.questions.clone(),
            servers: texts(world.servers.iter().chain(named_by_tools)).chain(built_in()).collect(),
            subjects: tools.chain(others).map(|subject| (subject.action.to_string(), subject)).collect(),
        }
    }

    /// The question of this name, or what could be meant.
    pub(super) fn question(&self, name: &str) -> Result<QuestionName, String> {
        let found = self.questions.iter().find(|question| question.as_str() == name);
        found
            .cloned()
            .ok_or_else(|| suggest::hint(name, "questions", self.questions.iter().map(QuestionName::as_str)))
    }

    /// The ids of the accepted tools.
    pub(super) fn tools(&self) -> impl Iterator<Item = &str> {
        self.subjects.iter().filter(|(_, subject)| subject.tool.is_some()).map(|(id, _)| id.as_str())
    }

    /// The ids of the actions that are no tool calls.
    pub(super) fn other_actions(&self) -> impl Iterator<Item = &str> {
        self.subjects.iter().filter(|(_, subject)| subject.tool.is_none()).map(|(id, _)| id.as_str())
    }

    /// Whether there is an entity of this type and name; else what it would be, and what could be meant.
    pub(super) fn check(&self, kind: &str, name: &str) -> Result<(), (&'static str, String)> {
        let (kind, plural, names) = match kind {
            "Agent" => ("agent", "agents", &self.agents),
            "Group" => ("group", "groups", &self.groups),
            "Server" => ("server", "servers", &self.servers),
            "Action" if self.subjects.contains_key(name) || name.parse::<Effect>().is_ok() => return Ok(()),
            "Action" if name.contains('/') => {
                return Err(("tool", suggest::hint(name, "tools", self.tools())));
            }
            "Action" => {
                return Err(("effect", suggest::hint(name, "effects", Effect::ALL.map(Effect::as_str))));
            }
            // Other types are found by the type check.
            _ => return Ok(()),
        };
        if names.contains(name) {
            return Ok(());
        }
        Err((kind, suggest::hint(name, plural, names.iter().map(String::as_str))))
    }

    /// The Cedar schema of everything.
    pub(super) fn cedar_schema(&self) -> serde_json::Value {
        cedar_schema(&self.subjects, &[])
    }
}

/// A Cedar schema in its JSON form, with these actions, and others that are only named. Made of values and not of text:
/// what a server writes in a schema stays a name.
pub(super) fn cedar_schema<'a>(
    subjects: impl IntoIterator<Item = (&'a String, &'a Subject)>,
    named: &[String],
) -> serde_json::Value {
    let effects = Effect::ALL.into_iter().map(|effect| effect.to_string());
    let mut actions: serde_json::Map<_, _> =
        effects.chain(named.iter().cloned()).map(|id| (id, json!({}))).collect();
    for (id, subject) in subjects {
        let effects: Vec<_> = subject.effects.iter().map(|effect| json!({ "id": effect.as_str() })).collect();
        let applies = json!({
            "principalTypes": ["Agent"],
            "resourceTypes": ["Server"],
            "context": subject.context.to_cedar(),
        });
        actions.insert(id.clone(), json!({ "memberOf": effects, "appliesTo": applies }));
    }
    json!({ "": {
        "entityTypes": { "Agent": { "memberOfTypes": ["Group"] }, "Group": {}, "Server": {} },
        "actions": actions,
    } })
}

fn texts<'a, T: Display + 'a>(names: impl Iterator<Item = &'a T>) -> impl Iterator<Item = String> {
    names.map(ToString::to_string)
}

/// The context of a call whose arguments have this shape.
pub(super) fn context(args: Shape) -> Shape {
    let record = |fields: Vec<(&str, Shape)>| {
        let field = |(name, shape): (&str, Shape)| (name.to_owned(), Field { required: true, shape });
        Shape::Record(fields.into_iter().map(field).collect())
    };
    record(vec![
        ("args", args),
        (
            "carries",
            record(vec![
                ("honeytoken", Shape::Bool),
                ("kinds", Shape::Set(Box::new(Shape::String))),
                ("secret", Shape::Bool),
            ]),
        ),
        ("session", record(vec![("id", Shape::String)])),
        ("time", Shape::Long),
        ("unseen", Shape::Set(Box::new(Shape::String))),
    ])
}

/// The shape of one of our own schemas, which a test shows to be readable.
fn shape_of(schema: &str) -> Shape {
    Document::parse(schema, &Limits::default())
        .map_or_else(|_| Shape::unknown(), |document| Shape::of_schema(document.root()))
}
