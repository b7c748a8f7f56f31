//! The HTTP headers of 2026-07-28 that repeat parts of the body: `Mcp-Method`, `Mcp-Name`, and `Mcp-Param-*` for
//! arguments whose schema says `x-mcp-header`.
//!
//! Decisions are made on the body only. The headers are checked against it, so that nobody in between who decided on
//! them has decided on something else.

use base64::Engine as _;
use toolgate_core::json::Value;

/// The protocol revision.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// The method.
pub const METHOD: &str = "mcp-method";
/// `params.name`, or `params.uri` of `resources/read`.
pub const NAME: &str = "mcp-name";
/// What the names of headers for arguments begin with.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// How many arguments of one tool may be mirrored.
const MAX_PARAMS: usize = 64;

const BEGIN: &str = "=?base64?";
const END: &str = "?=";

/// An argument that is repeated in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamHeader {
    /// The header's name in lower case, with the prefix.
    pub header: String,
    /// The names that lead to the argument.
    pub path: Vec<String>,
    /// What the argument has to be.
    pub kind: ParamKind,
}

/// What an argument that is repeated in a header has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// `true` or `false`.
    Boolean,
    /// An integer within ±(2⁵³−1).
    Integer,
    /// A string.
    String,
}

/// Why a tool's `x-mcp-header` annotations make its definition invalid. Such a tool is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamHeaderError {
    /// The annotation stands where no argument can be found without evaluating the schema.
    #[error("`x-mcp-header` stands outside of plain `properties`")]
    Misplaced,
    /// The annotation is no header name.
    #[error("`x-mcp-header` is no HTTP field name: {0}")]
    Name(String),
    /// There are too many.
    #[error("there are more than {MAX_PARAMS} `x-mcp-header` annotations")]
    TooMany,
    /// Two annotations have the same name, capital letters apart.
    #[error("`x-mcp-header` names `{0}` twice")]
    Twice(String),
    /// The argument is neither string, integer nor boolean.
    #[error("`x-mcp-header` stands at `{0}`, which is no string, integer or boolean")]
    Type(String),
}

/// Reads the `x-mcp-header` annotations of a tool's `inputSchema`.
///
/// # Errors
/// An annotation breaks one of the rules of the specification; then the whole definition is invalid.
pub fn params(schema: Value<'_>) -> Result<Vec<ParamHeader>, ParamHeaderError> {
    let mut found = Vec::new();
    scan(schema, &mut Vec::new(), true, &mut found)?;
    Ok(found)
}

/// Walks a schema. `plain` says whether it was reached through `properties` only. The depth is bounded by the parser's.
fn scan(
    schema: Value<'_>,
    path: &mut Vec<String>,
    plain: bool,
    found: &mut Vec<ParamHeader>,
) -> Result<(), ParamHeaderError> {
    if schema.is_array() {
        return schema.elements().try_for_each(|part| scan(part, path, false, found));
    }
    for (key, value) in schema.members() {
        match key {
            "x-mcp-header" if plain && !path.is_empty() => {
                found.push(annotation(schema, value, path, found)?)
            }
            "x-mcp-header" => return Err(ParamHeaderError::Misplaced),
            "properties" => {
                for (name, property) in value.members() {
                    path.push(name.to_owned());
                    scan(property, path, plain, found)?;
                    path.pop();
                }
            }
            // The members of these are names of schemas, not keywords.
            "$defs" | "definitions" | "dependentSchemas" | "patternProperties" => {
                value.members().try_for_each(|(_name, part)| scan(part, path, false, found))?;
            }
            // These hold values, not schemas.
            "const" | "default" | "enum" | "example" | "examples" => {}
            _ => scan(value, path, false, found)?,
        }
    }
    Ok(())
}

fn annotation(
    schema: Value<'_>,
    name: Value<'_>,
    path: &[String],
    found: &[ParamHeader],
) -> Result<ParamHeader, ParamHeaderError> {
    let Some(text) = name.as_str().filter(|text| text.len() <= 128 && is_token(text)) else {
        return Err(ParamHeaderError::Name(
            name.raw_str().chars().take(64).flat_map(char::escape_debug).collect(),
        ));
    };
    let kind = kind(schema).ok_or_else(|| ParamHeaderError::Type(path.join(".")))?;
    let header = format!("{PARAM_PREFIX}{}", text.to_ascii_lowercase());
    if found.iter().any(|other| other.header == header) {
        return Err(ParamHeaderError::Twice(text.to_owned()));
    }
    if found.len() >= MAX_PARAMS {
        return Err(ParamHeaderError::TooMany);
    }
    Ok(ParamHeader { header, path: path.to_vec(), kind })
}

/// The one primitive type of a schema; it may also allow `null`, which is not mirrored.
fn kind(schema: Value<'_>) -> Option<ParamKind> {
    let types = schema.get("type")?;
    let mut names: Vec<&str> = match types.as_str() {
        Some(one) => vec![one],
        None => types.elements().map(|name| name.as_str()).collect::<Option<_>>()?,
    };
    names.retain(|name| *name != "null");
    match names.as_slice() {
        ["boolean"] => Some(ParamKind::Boolean),
        ["integer"] => Some(ParamKind::Integer),
        ["string"] => Some(ParamKind::String),
        _ => None,
    }
}

fn is_token(text: &str) -> bool {
    let extra = |b: u8| b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra(b))
}

impl ParamHeader {
    /// The argument at the header's place, if there is one that is not `null`.
    #[must_use]
    pub fn argument<'a>(&self, arguments: Value<'a>) -> Option<Value<'a>> {
        self.path.iter().try_fold(arguments, |value, name| value.get(name)).filter(|value| !value.is_null())
    }

    /// The header's value for these arguments; `None` if it has to be absent. An argument of another type than the
    /// schema says has no value; the schema refuses it elsewhere.
    #[must_use]
    pub fn value(&self, arguments: Value<'_>) -> Option<String> {
        let value = self.argument(arguments)?;
        match self.kind {
            ParamKind::Boolean => value.as_bool().map(|b| b.to_string()),
            ParamKind::Integer => value.as_i64().map(|i| i.to_string()),
            ParamKind::String => value.as_str().map(encode),
        }
    }

    /// Whether a header's value, or its absence, says what the arguments say.
    #[must_use]
    pub fn agrees(&self, header: Option<&str>, arguments: Value<'_>) -> bool {
        let (header, value) = match (header, self.argument(arguments)) {
            (None, None) => return true,
            (Some(header), Some(value)) => (header, value),
            (None, Some(_)) | (Some(_), None) => return false,
        };
        let Some(text) = decode(header) else {
            return false;
        };
        match self.kind {
            ParamKind::Boolean => value.as_bool().is_some_and(|b| text == if b { "true" } else { "false" }),
            ParamKind::Integer => value.as_i64().is_some_and(|i| same_integer(&text, i)),
            ParamKind::String => value.as_str() == Some(&text),
        }
    }
}

/// Whether a header's text is that integer; `42.0` is `42`.
fn same_integer(text: &str, value: i64) -> bool {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return false,
        None => text,
    };
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    digits.bytes().all(|b| b.is_ascii_digit()) && whole.parse() == Ok(value)
}

/// Makes a text fit for a header: as it is where that is safe, else in the base64 form.
#[must_use]
pub fn encode(text: &str) -> String {
    let visible = text.bytes().all(|b| matches!(b, 0x20..=0x7e));
    let padded = text.starts_with(' ') || text.ends_with(' ');
    let marked = text.starts_with(BEGIN) && text.ends_with(END);
    // An empty header value cannot be told from a missing one by everybody on the way.
    if visible && !padded && !marked && !text.is_empty() {
        return text.to_owned();
    }
    format!("{BEGIN}{}{END}", base64::engine::general_purpose::STANDARD.encode(text))
}

/// Reads a header's text; `None` if it has characters that it may not, or base64 or UTF-8 that is not right.
#[must_use]
pub fn decode(header: &str) -> Option<String> {
    if !header.bytes().all(|b| matches!(b, 0x20..=0x7e | b'\t')) {
        return None;
    }
    match header.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)) {
        Some(inner) => String::from_utf8(base64::engine::general_purpose::STANDARD.decode(inner).ok()?).ok(),
        None => Some(header.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolgate_core::json::{Document, Limits};

    fn document(text: &str) -> Document {
        Document::parse(text.as_bytes(), &Limits::default()).unwrap()
    }

    #[test]
    fn annotations_are_read_or_make_the_tool_invalid() {
        for (schema, want) in [
            ("{}", Ok("")),
            (r#"{"properties":{"r":{"type":"string","x-mcp-header":"Region"}}}"#, Ok("mcp-param-region=r")),
            (r#"{"properties":{"r":{"type":["integer","null"],"x-mcp-header":"N"}}}"#, Ok("mcp-param-n=r")),
            (
                r#"{"properties":{"o":{"type":"object","properties":{"b":{"type":"boolean","x-mcp-header":"B"}}}}}"#,
                Ok("mcp-param-b=o.b"),
            ),
            (r#"{"properties":{"x-mcp-header":{"type":"number"}}}"#, Ok("")),
            (r#"{"properties":{"r":{"type":"object","default":{"x-mcp-header":1}}}}"#, Ok("")),
            (r#"{"properties":{"r":{"type":"string","x-mcp-header":""}}}"#, Err("no HTTP field name")),
            (r#"{"properties":{"r":{"type":"string","x-mcp-header":"a b"}}}"#, Err("no HTTP field name")),
            (r#"{"properties":{"r":{"type":"string","x-mcp-header":"a\r\nb"}}}"#, Err("no HTTP field name")),
            (r#"{"properties":{"r":{"type":"string","x-mcp-header":7}}}"#, Err("no HTTP field name")),
            (
                r#"{"properties":{"r":{"type":"number","x-mcp-header":"R"}}}"#,
                Err("no string, integer or boolean"),
            ),
            (
                r#"{"properties":{"r":{"type":"object","x-mcp-header":"R"}}}"#,
                Err("no string, integer or boolean"),
            ),
            (r#"{"properties":{"r":{"x-mcp-header":"R"}}}"#, Err("no string, integer or boolean")),
            (
                r#"{"properties":{"a":{"type":"string","x-mcp-header":"R"},"b":{"type":"string","x-mcp-header":"r"}}}"#,
                Err("twice"),
            ),
            (r#"{"x-mcp-header":"R","type":"string"}"#, Err("outside")),
            (r#"{"properties":{"a":{"items":{"type":"string","x-mcp-header":"R"}}}}"#, Err("outside")),
            (r#"{"oneOf":[{"properties":{"a":{"type":"string","x-mcp-header":"R"}}}]}"#, Err("outside")),
            (r#"{"$defs":{"a":{"type":"string","x-mcp-header":"R"}}}"#, Err("outside")),
            (r#"{"if":{"properties":{"a":{"type":"string","x-mcp-header":"R"}}}}"#, Err("outside")),
        ] {
            let document = document(schema);
            match (params(document.root()), want) {
                (Ok(found), Ok(want)) => {
                    let text: Vec<_> =
                        found.iter().map(|p| format!("{}={}", p.header, p.path.join("."))).collect();
                    assert_eq!(text.join(" "), want, "schema: {schema}");
                }
                (Err(error), Err(want)) => {
                    assert!(error.to_string().contains(want), "schema: {schema}, got {error}")
                }
                (got, want) => panic!("schema: {schema}, got {got:?}, want {want:?}"),
            }
        }
    }

    #[test]
    fn headers_agree_with_arguments_or_not() {
        for (kind, header, argument, want) in [
            ("string", Some("us-west1"), r#""us-west1""#, true),
            ("string", Some("US-west1"), r#""us-west1""#, false),
            ("string", None, r#""us-west1""#, false),
            ("string", None, "null", true),
            ("string", Some(""), "null", false),
            ("string", Some("=?base64?SGVsbG8sIOS4lueVjA==?="), r#""Hello, 世界""#, true),
            ("string", Some("=?BASE64?SGVsbG8sIOS4lueVjA==?="), r#""Hello, 世界""#, false),
            ("string", Some("=?base64?!?="), r#""Hello""#, false),
            ("string", Some("Hello, 世界"), r#""Hello, 世界""#, false),
            ("integer", Some("42"), "42", true),
            ("integer", Some("42.0"), "42", true),
            ("integer", Some("42"), "42.0", true),
            ("integer", Some("+42"), "42", false),
            ("integer", Some("42.5"), "42", false),
            ("integer", Some("4 2"), "42", false),
            ("integer", Some("-7"), "-7", true),
            ("integer", Some(""), "0", false),
            ("boolean", Some("true"), "true", true),
            ("boolean", Some("True"), "true", false),
            ("boolean", Some("true"), r#""true""#, false),
        ] {
            let schema =
                document(&format!(r#"{{"properties":{{"a":{{"type":"{kind}","x-mcp-header":"A"}}}}}}"#));
            let arguments = document(&format!(r#"{{"a":{argument}}}"#));
            let found = params(schema.root()).unwrap();
            assert_eq!(found[0].agrees(header, arguments.root()), want, "{kind} {header:?} {argument}");
        }
    }

    #[test]
    fn the_examples_of_the_specification() {
        for (text, want) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encode(text), want);
            assert_eq!(decode(want).as_deref(), Some(text));
        }
    }
}
