//! `x-mcp-header`: arguments that go along as HTTP headers (MCP 2026-07-28, Streamable HTTP).

use std::collections::HashSet;
use std::fmt;

use crate::json::Value;
use crate::text;

const ANNOTATION: &str = "x-mcp-header";
/// How many annotated properties a schema may have, and how long a header's name may be: what an HTTP server still takes.
const MAX_PARAMS: usize = 64;
const MAX_NAME: usize = 128;

/// An argument that goes along as the header `Mcp-Param-NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderParam {
    /// The header's name without `Mcp-Param-`, as the schema spells it.
    pub name: String,
    /// The names of the members that lead to the argument.
    pub path: Vec<String>,
    /// What the argument is.
    pub kind: HeaderKind,
}

/// What can be written in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderKind {
    /// `true` or `false`.
    Boolean,
    /// An integer of at most 53 bits, in decimal.
    Integer,
    /// The string as it is.
    String,
}

impl HeaderParam {
    /// The argument, if there is one that is not `null`.
    #[must_use]
    pub fn argument<'a>(&self, arguments: Value<'a>) -> Option<Value<'a>> {
        self.path.iter().try_fold(arguments, |value, name| value.get(name)).filter(|value| !value.is_null())
    }

    /// The text which the header has for these arguments, before it is encoded for HTTP; `None` if the argument is
    /// absent, or is not of the kind that the schema says.
    #[must_use]
    pub fn text(&self, arguments: &Value<'_>) -> Option<String> {
        let value = self.argument(*arguments)?;
        match self.kind {
            HeaderKind::Boolean => value.as_bool().map(|value| value.to_string()),
            HeaderKind::Integer => {
                value.as_i64().filter(|value| value.unsigned_abs() < 1 << 53).map(|value| value.to_string())
            }
            HeaderKind::String => value.as_str().map(ToOwned::to_owned),
        }
    }
}

/// Why a schema's annotations make the tool's definition invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`x-mcp-header` at `{path}` {problem}")]
pub struct HeaderParamError {
    /// The place of the annotated schema, from the root. Hidden characters are escaped.
    pub path: String,
    /// What is wrong.
    pub problem: HeaderParamProblem,
}

/// What is wrong with an annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderParamProblem {
    /// Another property has the same header, capital and small letters being the same.
    Duplicate(String),
    /// The header's name is no HTTP field name.
    Name(String),
    /// The annotation is no string.
    NotAString(&'static str),
    /// It is not on a property that is reached through `properties` alone.
    Place,
    /// There are too many.
    TooMany,
    /// The property's type is none that goes into a header.
    Type(String),
}

impl fmt::Display for HeaderParamProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(name) => {
                write!(f, "names the header `{name}` a second time; capital and small letters are the same")
            }
            Self::Name(name) => {
                write!(
                    f,
                    "is `{name}`; it has to be 1 to {MAX_NAME} letters, digits and any of !#$%&'*+-.^_`|~"
                )
            }
            Self::NotAString(kind) => write!(f, "is {kind}; it has to be a string"),
            Self::Place => {
                f.write_str("is not on a property that is reached from the root through `properties` alone")
            }
            Self::TooMany => write!(f, "is one of more than {MAX_PARAMS}"),
            Self::Type(kind) => {
                write!(
                    f,
                    "is on a property of the type {kind}; it has to be `integer`, `string` or `boolean`"
                )
            }
        }
    }
}

/// The arguments that go along as headers, by the annotations of a tool's `inputSchema`.
///
/// # Errors
/// An annotation breaks a rule of the specification; then the whole definition of the tool is invalid.
pub fn header_params(schema: &Value<'_>) -> Result<Vec<HeaderParam>, HeaderParamError> {
    let mut search = Search { found: Vec::new(), names: HashSet::new() };
    search.reachable(*schema, &mut Vec::new())?;
    Ok(search.found)
}

struct Search {
    found: Vec<HeaderParam>,
    names: HashSet<String>,
}

impl Search {
    /// A schema that is reached through `properties` alone; `path` leads to it.
    fn reachable(&mut self, schema: Value<'_>, path: &mut Vec<String>) -> Result<(), HeaderParamError> {
        if let Some(annotation) = schema.get(ANNOTATION) {
            self.annotated(schema, annotation, path)?;
        }
        for (name, held) in schema.members() {
            match name {
                "properties" => {
                    for (name, property) in held.members() {
                        path.push(name.to_owned());
                        self.reachable(property, path)?;
                        path.pop();
                    }
                }
                _ => refuse_elsewhere(name, held, path)?,
            }
        }
        Ok(())
    }

    fn annotated(
        &mut self,
        schema: Value<'_>,
        annotation: Value<'_>,
        path: &[String],
    ) -> Result<(), HeaderParamError> {
        let fail = |problem| Err(HeaderParamError { path: shown(path), problem });
        let Some(name) = annotation.as_str() else {
            return fail(HeaderParamProblem::NotAString(annotation.kind()));
        };
        if path.is_empty() {
            return fail(HeaderParamProblem::Place);
        }
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_token) {
            return fail(HeaderParamProblem::Name(text::quoted(name, MAX_NAME)));
        }
        let kind = match primitive(schema) {
            Some("boolean") => HeaderKind::Boolean,
            Some("integer") => HeaderKind::Integer,
            Some("string") => HeaderKind::String,
            Some(_) | None => {
                let kind = schema.get("type").map_or("none", |kind| kind.raw_str());
                return fail(HeaderParamProblem::Type(text::quoted(kind, 60)));
            }
        };
        if !self.names.insert(name.to_ascii_lowercase()) {
            return fail(HeaderParamProblem::Duplicate(text::quoted(name, MAX_NAME)));
        }
        if self.found.len() >= MAX_PARAMS {
            return fail(HeaderParamProblem::TooMany);
        }
        self.found.push(HeaderParam { name: name.to_owned(), path: path.to_vec(), kind });
        Ok(())
    }
}

/// The one type of a schema. It may allow `null` besides, for which there is no header.
fn primitive(schema: Value<'_>) -> Option<&str> {
    let types = schema.get("type")?;
    let mut names = types.elements().map(|name| name.as_str()).filter(|name| *name != Some("null"));
    match (types.as_str(), names.next(), names.next()) {
        (Some(one), None, None) | (None, Some(Some(one)), None) => Some(one),
        _ => None,
    }
}

/// Refuses an annotation in what a keyword holds that is not `properties`. `keyword` is also the name of an
/// unknown keyword, in which any object counts as a schema.
fn refuse_elsewhere(keyword: &str, held: Value<'_>, path: &[String]) -> Result<(), HeaderParamError> {
    match keyword {
        // Values, not schemas.
        "const" | "default" | "enum" | "examples" => Ok(()),
        // What is in there has names that the server chose.
        "$defs" | "definitions" | "dependencies" | "dependentSchemas" | "patternProperties"
        | "properties" => held.members().try_for_each(|(_, schema)| refuse_inside(schema, path)),
        _ => refuse_inside(held, path),
    }
}

fn refuse_inside(value: Value<'_>, path: &[String]) -> Result<(), HeaderParamError> {
    if value.get(ANNOTATION).is_some() {
        return Err(HeaderParamError { path: shown(path), problem: HeaderParamProblem::Place });
    }
    value.members().try_for_each(|(name, held)| refuse_elsewhere(name, held, path))?;
    value.elements().try_for_each(|element| refuse_inside(element, path))
}

/// Whether a byte may stand in an HTTP field name (RFC 9110, `tchar`).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

fn shown(path: &[String]) -> String {
    let steps: String = path.iter().take(16).map(|step| format!("/{}", text::quoted(step, 40))).collect();
    if steps.is_empty() { "/".to_owned() } else { steps }
}
