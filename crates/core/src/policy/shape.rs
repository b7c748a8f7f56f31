//! The part of a tool's JSON schema that rules can speak of, and how values are shown to them.
//!
//! | JSON schema | Cedar |
//! | --- | --- |
//! | `string`, or an `enum` or `const` of strings | `String` |
//! | `integer` | `Long` |
//! | `boolean` | `Bool` |
//! | `number` | `decimal`: at most four digits after the point |
//! | `array` with one schema for all `items` | `Set`: order and repetitions are not shown |
//! | `object` with `properties` | a record; what is not `required` is optional |
//! | one of these, or `null` | the same; `null` itself cannot be shown |
//!
//! Everything else is not shown: unions, arrays of anything, objects with free members, what is deeper than
//! [`MAX_DEPTH`], and what comes after the first [`MAX_MEMBERS`] names.
//!
//! A schema comes from a server, which may lie. So it only says what rules *may* read: each value is compared with its
//! shape again when it is shown, and one that does not fit is a refusal for the rules that read it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use cedar_policy_core::ast::{Name, PartialValue, Value as Shown};
use cedar_policy_core::extensions::Extensions;
use serde_json::json;

use super::want::Want;
use crate::json::{Document, Value};

/// How deep the shapes of one tool's arguments go.
const MAX_DEPTH: usize = 8;

/// How many names of arguments and their members one tool has.
const MAX_MEMBERS: usize = 256;

/// How long such a name may be, in bytes.
const MAX_NAME: usize = 128;

/// The type of a value as rules see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// `true` or `false`.
    Bool,
    /// A number with at most four digits after the point.
    Decimal,
    /// An integer.
    Long,
    /// An object.
    Record(BTreeMap<String, Field>),
    /// An array, whose order is not shown.
    Set(Box<Shape>),
    /// A string.
    String,
}

/// A member of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Field {
    /// Whether the schema says that it is always there.
    pub(super) required: bool,
    /// Its type.
    pub(super) shape: Shape,
}

impl Shape {
    /// The shape of an object whose members rules cannot see.
    pub(super) const fn unknown() -> Self {
        Self::Record(BTreeMap::new())
    }

    /// The shape of a tool's arguments, from the `inputSchema` of its definition.
    pub(super) fn of_arguments(definition: &Document) -> Self {
        match definition.root().get("inputSchema") {
            Some(schema) => Self::of_schema(schema),
            None => Self::unknown(),
        }
    }

    /// The shape of the objects that a JSON schema describes.
    pub(super) fn of_schema(schema: Value<'_>) -> Self {
        let mut reader = Reader { root: schema, members: 0 };
        match reader.shape(schema, 0) {
            Some(record @ Self::Record(_)) => record,
            Some(Self::Bool | Self::Decimal | Self::Long | Self::Set(_) | Self::String) | None => {
                Self::unknown()
            }
        }
    }

    /// The type in the JSON form of a Cedar schema.
    pub(super) fn to_cedar(&self) -> serde_json::Value {
        match self {
            Self::Bool => json!({ "type": "Boolean" }),
            Self::Decimal => json!({ "type": "Extension", "name": "decimal" }),
            Self::Long => json!({ "type": "Long" }),
            Self::Record(fields) => {
                let attributes: serde_json::Map<_, _> = fields
                    .iter()
                    .map(|(name, field)| {
                        let mut attribute = field.shape.to_cedar();
                        if let Some(object) = attribute.as_object_mut() {
                            object.insert("required".to_owned(), field.required.into());
                        }
                        (name.clone(), attribute)
                    })
                    .collect();
                json!({ "type": "Record", "attributes": attributes })
            }
            Self::Set(element) => json!({ "type": "Set", "element": element.to_cedar() }),
            Self::String => json!({ "type": "String" }),
        }
    }

    /// The shape at the end of a path of member names.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        match (path.split_first(), self) {
            (None, _) => Some(self),
            (Some((name, rest)), Self::Record(fields)) => fields.get(*name)?.shape.at(rest),
            (Some(_), Self::Bool | Self::Decimal | Self::Long | Self::Set(_) | Self::String) => None,
        }
    }

    /// The shape without what is not wanted. Two shapes with the same rest are the same to whoever wants it.
    pub(super) fn only(&self, want: &Want) -> Self {
        match self {
            Self::Record(fields) if !want.whole => Self::Record(
                fields
                    .iter()
                    .filter_map(|(name, field)| {
                        let shape = field.shape.only(want.member(name)?);
                        Some((name.clone(), Field { required: field.required, shape }))
                    })
                    .collect(),
            ),
            Self::Bool | Self::Decimal | Self::Long | Self::Record(_) | Self::Set(_) | Self::String => {
                self.clone()
            }
        }
    }

    /// The names of the members, if it is an object.
    pub(super) fn members(&self) -> impl Iterator<Item = &str> {
        let fields = match self {
            Self::Record(fields) => Some(fields),
            Self::Bool | Self::Decimal | Self::Long | Self::Set(_) | Self::String => None,
        };
        fields.into_iter().flat_map(|fields| fields.keys().map(String::as_str))
    }
}

/// Reads one schema, following references within it.
struct Reader<'a> {
    root: Value<'a>,
    members: usize,
}

impl<'a> Reader<'a> {
    fn shape(&mut self, schema: Value<'a>, depth: usize) -> Option<Shape> {
        if depth > MAX_DEPTH {
            return None;
        }
        if let Some(reference) = schema.get("$ref") {
            let target = resolve(self.root, reference.as_str()?)?;
            return self.shape(target, depth + 1);
        }
        if let Some(variants) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
            return self.shape(only_other_than_null(variants)?, depth + 1);
        }
        match type_of(schema)? {
            "boolean" => Some(Shape::Bool),
            "integer" => Some(Shape::Long),
            "number" => Some(Shape::Decimal),
            "string" => Some(Shape::String),
            "array" => {
                let items = schema.get("items").filter(Value::is_object)?;
                if schema.get("prefixItems").is_some() {
                    return None;
                }
                Some(Shape::Set(Box::new(self.shape(items, depth + 1)?)))
            }
            "object" => self.record(schema, depth),
            _ => None,
        }
    }

    fn record(&mut self, schema: Value<'a>, depth: usize) -> Option<Shape> {
        let required: BTreeSet<&str> = schema
            .get("required")
            .into_iter()
            .flat_map(|list| list.elements())
            .filter_map(|v| v.as_str())
            .collect();
        let mut fields = BTreeMap::new();
        for (name, schema) in schema.get("properties")?.members() {
            self.members += 1;
            if self.members > MAX_MEMBERS || name.len() > MAX_NAME {
                continue;
            }
            if let Some(shape) = self.shape(schema, depth + 1) {
                fields.insert(name.to_owned(), Field { required: required.contains(name), shape });
            }
        }
        Some(Shape::Record(fields))
    }
}

/// The target of a reference within the same schema: `#`, or `#/` and a JSON pointer.
fn resolve<'a>(root: Value<'a>, reference: &str) -> Option<Value<'a>> {
    let pointer = reference.strip_prefix('#')?;
    if pointer.is_empty() {
        return Some(root);
    }
    pointer
        .strip_prefix('/')?
        .split('/')
        .try_fold(root, |at, part| at.get(&part.replace("~1", "/").replace("~0", "~")))
}

/// The other of two variants of which one is `null`.
fn only_other_than_null(variants: Value<'_>) -> Option<Value<'_>> {
    let mut others =
        variants.elements().filter(|variant| variant.get("type").and_then(|v| v.as_str()) != Some("null"));
    let only = others.next()?;
    others.next().is_none().then_some(only)
}

fn type_of<'a>(schema: Value<'a>) -> Option<&'a str> {
    let Some(kind) = schema.get("type") else {
        let mut values =
            schema.get("enum").into_iter().flat_map(|list| list.elements()).chain(schema.get("const"));
        let first = values.next()?;
        return (first.is_string() && values.all(|value| value.is_string())).then_some("string");
    };
    if kind.is_string() {
        return kind.as_str();
    }
    let mut others = kind.elements().filter_map(|value| value.as_str()).filter(|name| *name != "null");
    let only = others.next()?;
    others.next().is_none().then_some(only)
}

/// The way to a value, for telling where something could not be shown.
#[derive(Clone, Copy)]
pub(super) struct Trail<'a> {
    before: Option<&'a Trail<'a>>,
    name: &'a str,
}

impl<'a> Trail<'a> {
    /// The beginning of a way.
    pub(super) const fn new(name: &'a str) -> Self {
        Self { before: None, name }
    }

    const fn then(&'a self, name: &'a str) -> Self {
        Self { before: Some(self), name }
    }

    fn path(&self) -> Vec<String> {
        let mut path = self.before.map(Trail::path).unwrap_or_default();
        path.push(self.name.to_owned());
        path
    }
}

/// Shows a value to rules, as far as they want to see it. What cannot be shown is left out, and its path noted.
pub(super) fn show(
    shape: &Shape,
    value: Value<'_>,
    want: &Want,
    trail: &Trail<'_>,
    hidden: &mut Vec<Vec<String>>,
) -> Option<Shown> {
    let shown = match shape {
        Shape::Bool => value.as_bool().map(Shown::from),
        Shape::Decimal => decimal(value),
        Shape::Long => value.as_i64().map(Shown::from),
        Shape::String => value.as_str().map(Shown::from),
        Shape::Set(element) => show_set(element, value, trail),
        Shape::Record(fields) if value.is_object() => return show_record(fields, value, want, trail, hidden),
        Shape::Record(_) => None,
    };
    if shown.is_none() {
        hidden.push(trail.path());
    }
    shown
}

fn show_record(
    fields: &BTreeMap<String, Field>,
    value: Value<'_>,
    want: &Want,
    trail: &Trail<'_>,
    hidden: &mut Vec<Vec<String>>,
) -> Option<Shown> {
    let mut shown = Vec::new();
    for (name, field) in fields {
        let Some(want) = want.member(name) else { continue };
        let trail = trail.then(name);
        match value.get(name) {
            Some(value) => {
                if let Some(expression) = show(&field.shape, value, want, &trail, hidden) {
                    shown.push((name.as_str(), expression));
                }
            }
            None if field.required => hidden.push(trail.path()),
            None => {}
        }
    }
    if want.whole {
        // A rule that compares the whole object must not take one with more members for the same.
        for (name, _) in value.members().filter(|(name, _)| !fields.contains_key(*name)) {
            hidden.push(trail.then(name).path());
        }
    }
    Some(Shown::record(shown, None))
}

/// A set is shown whole or not at all.
fn show_set(element: &Shape, value: Value<'_>, trail: &Trail<'_>) -> Option<Shown> {
    if !value.is_array() {
        return None;
    }
    let whole = Want { whole: true, inner: BTreeMap::new() };
    let mut hidden = Vec::new();
    let shown: Option<Vec<_>> =
        value.elements().map(|value| show(element, value, &whole, trail, &mut hidden)).collect();
    shown.filter(|_| hidden.is_empty()).map(|shown| Shown::set(shown, None))
}

/// The name of the constructor of decimals, read once: that takes longer than all the rest of showing a value.
static DECIMAL: LazyLock<Option<Name>> = LazyLock::new(|| "decimal".parse().ok());

/// The number as a `decimal`, if it can hold it exactly.
fn decimal(value: Value<'_>) -> Option<Shown> {
    let text = Shown::from(decimal_text(value)?);
    match Extensions::all_available().func(DECIMAL.as_ref()?).ok()?.call(&[text]).ok()? {
        PartialValue::Value(shown) => Some(shown),
        PartialValue::Residual(_) => None,
    }
}

/// How Cedar writes the number: at most 15 digits, and one to four after the point.
fn decimal_text(value: Value<'_>) -> Option<String> {
    if !value.is_number() {
        return None;
    }
    let text = value.raw_str();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str, most: usize| {
        (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    let fits = whole.len() < 15 || whole <= "922337203685476";
    (plain(whole, 15) && plain(fraction, 4) && fits).then(|| {
        let sign = if digits.len() == text.len() { "" } else { "-" };
        format!("{sign}{whole}.{fraction}")
    })
}
