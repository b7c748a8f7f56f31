//! The HTTP headers of 2026-07-28 that repeat parts of the body: `Mcp-Method`, `Mcp-Name`, and `Mcp-Param-*` for
//! arguments whose schema says `x-mcp-header`.
//!
//! Decisions are made on the body only. The headers are checked against it, so that nobody in between who decided on
//! them has decided on something else.

use base64::Engine as _;
use toolgate_core::json::Value;
use toolgate_core::schema::{HeaderKind, HeaderParam, HeaderParamError, header_params};

/// The protocol revision.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// The method.
pub const METHOD: &str = "mcp-method";
/// `params.name`, or `params.uri` of `resources/read`.
pub const NAME: &str = "mcp-name";
/// What the names of headers for arguments begin with.
pub const PARAM_PREFIX: &str = "mcp-param-";

const BEGIN: &str = "=?base64?";
const END: &str = "?=";

/// An argument that is repeated in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamHeader {
    /// The header's name in lower case, with the prefix.
    pub header: String,
    /// Where the argument is, and what it has to be.
    pub param: HeaderParam,
}

/// Reads the `x-mcp-header` annotations of a tool's `inputSchema`.
///
/// # Errors
/// An annotation breaks one of the rules of the specification; then the whole definition is invalid.
pub fn params(schema: Value<'_>) -> Result<Vec<ParamHeader>, HeaderParamError> {
    let named = |param: HeaderParam| {
        let header = format!("{PARAM_PREFIX}{}", param.name.to_ascii_lowercase());
        ParamHeader { header, param }
    };
    Ok(header_params(&schema)?.into_iter().map(named).collect())
}

impl ParamHeader {
    /// The header's value for these arguments; `None` if it has to be absent. An argument of another type than the
    /// schema says has no value; the schema refuses it elsewhere.
    #[must_use]
    pub fn value(&self, arguments: Value<'_>) -> Option<String> {
        self.param.text(&arguments).map(|text| match self.param.kind {
            HeaderKind::Boolean | HeaderKind::Integer => text,
            HeaderKind::String => encode(&text),
        })
    }

    /// Whether a header's value, or its absence, says what the arguments say.
    #[must_use]
    pub fn agrees(&self, header: Option<&str>, arguments: Value<'_>) -> bool {
        let (header, value) = match (header, self.param.argument(arguments)) {
            (None, None) => return true,
            (Some(header), Some(value)) => (header, value),
            (None, Some(_)) | (Some(_), None) => return false,
        };
        let Some(text) = decode(header) else {
            return false;
        };
        match self.param.kind {
            HeaderKind::Boolean => value.as_bool().is_some_and(|b| text == if b { "true" } else { "false" }),
            HeaderKind::Integer => value.as_i64().is_some_and(|i| same_integer(&text, i)),
            HeaderKind::String => value.as_str() == Some(&text),
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
