//! The parts of a schema, and which of them are applied to what.

use std::collections::{BTreeMap, HashMap};

use crate::json::Value;
use crate::text;

use super::{CompileSchemaError, MAX_PARTS};

/// To what a part applies another part of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applies {
    /// To the same value.
    Here,
    /// To one member of its own, or to those members for which there is nothing better.
    Member,
    /// To any member, beside what else is applied to it.
    AnyMember,
    /// To one element of its own, or to those for which there is nothing better.
    Element,
    /// To any element, beside what else is applied to it.
    AnyElement,
    /// To nothing: it waits for a reference.
    Nothing,
}

/// One part.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The parts it applies.
    pub(super) edges: Vec<(Applies, usize)>,
    /// Whether it looks a second time at what the parts applied here have covered.
    pub(super) looks_twice: bool,
    /// What leads there, for messages.
    pub(super) path: String,
}

/// All parts; the first is the schema itself.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) parts: Vec<Part>,
}

/// What a keyword holds.
enum Holds {
    One(Applies),
    Array(Applies),
    Map(Applies),
    Reference,
    Other,
}

fn keyword(name: &str, value: Value<'_>) -> Holds {
    match name {
        "not" | "if" | "then" | "else" | "contentSchema" => Holds::One(Applies::Here),
        "additionalProperties" => Holds::One(Applies::Member),
        "unevaluatedProperties" | "propertyNames" => Holds::One(Applies::AnyMember),
        "items" if value.is_array() => Holds::Array(Applies::Element),
        "items" | "additionalItems" => Holds::One(Applies::Element),
        "unevaluatedItems" | "contains" => Holds::One(Applies::AnyElement),
        "allOf" | "anyOf" | "oneOf" => Holds::Array(Applies::Here),
        "prefixItems" => Holds::Array(Applies::Element),
        "properties" => Holds::Map(Applies::Member),
        "patternProperties" => Holds::Map(Applies::AnyMember),
        "dependentSchemas" | "dependencies" => Holds::Map(Applies::Here),
        "$defs" | "definitions" => Holds::Map(Applies::Nothing),
        "$ref" | "$dynamicRef" | "$recursiveRef" => Holds::Reference,
        _ => Holds::Other,
    }
}

struct Builder<'a> {
    root: Value<'a>,
    anchors: HashMap<&'a str, Vec<Value<'a>>>,
    /// The number of a part by where it starts; no two start at the same byte.
    known: BTreeMap<usize, usize>,
    parts: Vec<Part>,
    /// The parts whose edges were not looked at yet.
    waiting: Vec<(usize, Value<'a>)>,
}

impl Graph {
    pub(super) fn of(root: Value<'_>) -> Result<Self, CompileSchemaError> {
        let mut anchors = HashMap::new();
        collect_anchors(root, &mut anchors);
        let mut builder =
            Builder { root, anchors, known: BTreeMap::new(), parts: Vec::new(), waiting: Vec::new() };
        builder.part(root, String::new())?;
        while let Some((number, value)) = builder.waiting.pop() {
            builder.look(number, value)?;
        }
        Ok(Self { parts: builder.parts })
    }
}

fn collect_anchors<'a>(value: Value<'a>, anchors: &mut HashMap<&'a str, Vec<Value<'a>>>) {
    for (name, member) in value.members() {
        if let ("$anchor" | "$dynamicAnchor", Some(anchor)) = (name, member.as_str()) {
            anchors.entry(anchor).or_default().push(value);
        }
        collect_anchors(member, anchors);
    }
    for element in value.elements() {
        collect_anchors(element, anchors);
    }
}

impl<'a> Builder<'a> {
    /// The number of a part, which is looked at later if it is new.
    fn part(&mut self, value: Value<'a>, path: String) -> Result<usize, CompileSchemaError> {
        if let Some(number) = self.known.get(&value.offset()) {
            return Ok(*number);
        }
        let number = self.parts.len();
        if number >= MAX_PARTS {
            return Err(CompileSchemaError::TooLarge { what: "parts", limit: MAX_PARTS });
        }
        self.known.insert(value.offset(), number);
        self.parts.push(Part { path, ..Part::default() });
        self.waiting.push((number, value));
        Ok(number)
    }

    fn look(&mut self, number: usize, value: Value<'a>) -> Result<(), CompileSchemaError> {
        let mut edges = Vec::new();
        let path = self.parts.get(number).map(|part| part.path.clone()).unwrap_or_default();
        let below = |steps: &str| -> String { format!("{path}/{steps}").chars().take(200).collect() };
        if number != 0 && ["$id", "id"].iter().any(|name| value.get(name).is_some_and(|id| id.is_string())) {
            return Err(CompileSchemaError::Identifier(path));
        }
        if number != 0
            && value
                .get("$schema")
                .is_some_and(|own| Some(own.raw()) != self.root.get("$schema").map(|s| s.raw()))
        {
            return Err(CompileSchemaError::Identifier(path));
        }
        for (name, held) in value.members() {
            match keyword(name, held) {
                Holds::One(applies) => edges.push((applies, self.part(held, below(name))?)),
                Holds::Array(applies) => {
                    for (at, element) in held.elements().enumerate() {
                        edges.push((applies, self.part(element, below(&format!("{name}/{at}")))?));
                    }
                }
                Holds::Map(applies) => {
                    for (key, member) in held.members() {
                        let steps = format!("{name}/{}", text::quoted(key, 40));
                        edges.push((applies, self.part(member, below(&steps))?));
                    }
                }
                Holds::Reference => {
                    let reference = held.as_str().ok_or_else(|| {
                        CompileSchemaError::Invalid(format!(
                            "`{name}` is {}; it has to be a string",
                            held.kind()
                        ))
                    })?;
                    for target in self.resolve(reference)? {
                        edges.push((Applies::Here, self.part(target, text::quoted(reference, 200))?));
                    }
                }
                Holds::Other => {}
            }
        }
        if let Some(part) = self.parts.get_mut(number) {
            part.edges = edges;
            part.looks_twice =
                value.get("unevaluatedProperties").is_some() || value.get("unevaluatedItems").is_some();
        }
        Ok(())
    }

    fn resolve(&self, reference: &str) -> Result<Vec<Value<'a>>, CompileSchemaError> {
        let shown = || text::quoted(reference, 200);
        let fragment = reference.strip_prefix('#').ok_or_else(|| CompileSchemaError::Remote(shown()))?;
        if fragment.is_empty() {
            return Ok(vec![self.root]);
        }
        let fragment = percent_decoded(fragment).ok_or_else(|| CompileSchemaError::Unresolved(shown()))?;
        let Some(pointer) = fragment.strip_prefix('/') else {
            return self
                .anchors
                .get(fragment.as_str())
                .cloned()
                .ok_or_else(|| CompileSchemaError::Unresolved(shown()));
        };
        pointer
            .split('/')
            .try_fold(self.root, |value, step| {
                let step = step.replace("~1", "/").replace("~0", "~");
                if value.is_array() { value.elements().nth(step.parse().ok()?) } else { value.get(&step) }
            })
            .map(|target| vec![target])
            .ok_or_else(|| CompileSchemaError::Unresolved(shown()))
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut out = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        out.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        out.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(out).ok()
}
