//! JSON-RPC 2.0 as MCP uses it: what one message is, read strictly, and how ours are written.
//!
//! Both legs read and write their messages here. Reading refuses what MCP does not have: batches, ids that are neither
//! strings nor integers, `params` that are not objects, messages that are several things at once. What a message
//! carries is not touched: `params`, `result` and `error` are slices of the bytes that came.

use std::fmt;

use bytes::Bytes;
use toolgate_broker::outcome::Answer;
use toolgate_core::json::{self, Document, JsonError, Limits, Value};

/// The text was no JSON that can be read.
pub const PARSE_ERROR: i64 = -32700;
/// The JSON is no message.
pub const INVALID_REQUEST: i64 = -32600;
/// There is no such method, or it may not be used.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters do not fit the method.
pub const INVALID_PARAMS: i64 = -32602;
/// Something went wrong that is not the caller's fault.
pub const INTERNAL_ERROR: i64 = -32603;
/// The HTTP headers say something else than the body (2026-07-28).
pub const HEADER_MISMATCH: i64 = -32020;
/// The request needs a capability that the client did not declare (2026-07-28).
pub const MISSING_CAPABILITY: i64 = -32021;
/// The protocol version is not spoken here (2026-07-28).
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// The longest id that is taken, in bytes: an id is kept as long as its request is under way.
const MAX_ID_BYTES: usize = 512;

/// What one request is called by who sent it: a string or an integer of any size.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    /// An integer as it was written, so that no size is too large.
    Integer(String),
    /// A string, decoded.
    Text(String),
}

impl Id {
    /// Reads an id; `None` if the value is neither a string nor an integer, or is too long.
    #[must_use]
    pub fn read(value: Value<'_>) -> Option<Self> {
        if value.raw().len() > MAX_ID_BYTES {
            return None;
        }
        if let Some(text) = value.as_str() {
            return Some(Self(Kind::Text(text.to_owned())));
        }
        let raw = value.raw_str();
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        let integer = value.is_number() && digits.bytes().all(|b| b.is_ascii_digit());
        integer.then(|| Self(Kind::Integer(raw.to_owned())))
    }

    /// The id as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        match &self.0 {
            Kind::Integer(digits) => digits.clone(),
            Kind::Text(text) => json::quote(text),
        }
    }

    /// The id as an integer, if it is one that fits.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match &self.0 {
            Kind::Integer(digits) => digits.parse().ok(),
            Kind::Text(_) => None,
        }
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self(Kind::Integer(number.to_string()))
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self(Kind::Text(text.to_owned()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

/// One message.
#[derive(Debug, Clone)]
pub enum Message {
    /// Nobody waits for an answer.
    Notification(Notification),
    /// Somebody waits for an answer.
    Request(Request),
    /// The answer to a request.
    Response(Response),
}

/// A message that nobody waits for an answer to.
#[derive(Debug, Clone)]
pub struct Notification {
    /// What happened.
    pub method: String,
    /// The `params` object as it came, if there is one.
    pub params: Option<Document>,
}

/// A message that somebody waits for an answer to.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the sender calls it.
    pub id: Id,
    /// What is asked for.
    pub method: String,
    /// The `params` object as it came, if there is one.
    pub params: Option<Document>,
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct Response {
    /// Which request; `None` in an error about a message that could not be read.
    pub id: Option<Id>,
    /// The `result` or the `error` as it came.
    pub answer: Answer,
}

/// Why bytes are no message. The id is there where it could be read, so that the sender finds out what failed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Several messages in one: MCP dropped batches with 2025-06-18.
    #[error("batches are not accepted; send one message at a time")]
    Batch,
    /// It is JSON, but no message.
    #[error("{why}")]
    Invalid {
        /// The id, where there was one.
        id: Option<Id>,
        /// What is wrong, and how it should be.
        why: &'static str,
    },
    /// It is no JSON that is accepted here.
    #[error("not accepted as JSON: {0}")]
    Json(#[source] JsonError),
}

impl FrameError {
    /// The JSON-RPC code that says so.
    #[must_use]
    pub const fn code(&self) -> i64 {
        match self {
            Self::Batch | Self::Invalid { .. } => INVALID_REQUEST,
            Self::Json(_) => PARSE_ERROR,
        }
    }

    /// The id of what was no message, if it had one.
    #[must_use]
    pub const fn id(&self) -> Option<&Id> {
        match self {
            Self::Invalid { id, .. } => id.as_ref(),
            Self::Batch | Self::Json(_) => None,
        }
    }

    /// The error response to send back.
    #[must_use]
    pub fn to_response(&self) -> Vec<u8> {
        error(self.id(), self.code(), &self.to_string(), None)
    }
}

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// The bytes are not JSON as it is accepted here, or the JSON is no message.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Self, FrameError> {
        let document = Document::parse(bytes, limits).map_err(FrameError::Json)?;
        Self::read(document.root())
    }

    fn read(root: Value<'_>) -> Result<Self, FrameError> {
        if root.is_array() {
            return Err(FrameError::Batch);
        }
        if !root.is_object() {
            return Err(FrameError::Invalid { id: None, why: "a message has to be a JSON object" });
        }
        let [mut version, mut id, mut method, mut params, mut result, mut failure] = [None; 6];
        for (key, value) in root.members() {
            match key {
                "jsonrpc" => version = Some(value),
                "id" => id = Some(value),
                "method" => method = Some(value),
                "params" => params = Some(value),
                "result" => result = Some(value),
                "error" => failure = Some(value),
                _ => {}
            }
        }
        let known = id.and_then(Id::read);
        let invalid = |why| FrameError::Invalid { id: known.clone(), why };
        if version.and_then(|v| v.as_str()) != Some("2.0") {
            return Err(invalid("`jsonrpc` has to be \"2.0\""));
        }
        match (method, result, failure) {
            (Some(method), None, None) => {
                let Some(method) = method.as_str().filter(|m| !m.is_empty()) else {
                    return Err(invalid("`method` has to be a string that is not empty"));
                };
                if params.is_some_and(|p| !p.is_object()) {
                    return Err(invalid("`params` has to be an object"));
                }
                let method = method.to_owned();
                let params = params.map(|p| p.to_document());
                match (id, known) {
                    (None, _) => Ok(Self::Notification(Notification { method, params })),
                    (Some(_), Some(id)) => Ok(Self::Request(Request { id, method, params })),
                    (Some(_), None) => {
                        Err(FrameError::Invalid { id: None, why: "`id` has to be a string or an integer" })
                    }
                }
            }
            (None, Some(result), None) => {
                if !result.is_object() {
                    return Err(invalid("`result` has to be an object"));
                }
                let answer = Answer::Result(result.to_document());
                let id = known
                    .ok_or(FrameError::Invalid { id: None, why: "`id` has to be a string or an integer" })?;
                Ok(Self::Response(Response { id: Some(id), answer }))
            }
            (None, None, Some(failure)) => {
                let code = failure.get("code").and_then(|c| c.as_i64());
                let message = failure.get("message").and_then(|m| m.as_str());
                if !failure.is_object() || code.is_none() || message.is_none() {
                    return Err(invalid(
                        "`error` has to be an object with an integer `code` and a string `message`",
                    ));
                }
                if known.is_none() && id.is_some_and(|i| !i.is_null()) {
                    return Err(invalid("`id` has to be a string or an integer"));
                }
                Ok(Self::Response(Response { id: known, answer: Answer::Error(failure.to_document()) }))
            }
            (None, None, None) => Err(invalid("a message needs `method`, `result` or `error`")),
            _ => Err(invalid("a message can have only one of `method`, `result` and `error`")),
        }
    }
}

/// Writes a request. `params` is a JSON object.
#[must_use]
pub fn request(id: &Id, method: &str, params: Option<&[u8]>) -> Vec<u8> {
    let (id, method) = (id.to_json(), json::quote(method));
    join(
        &[b"{\"jsonrpc\":\"2.0\",\"id\":", id.as_bytes(), b",\"method\":", method.as_bytes()],
        b",\"params\":",
        params,
    )
}

/// Writes a notification. `params` is a JSON object.
#[must_use]
pub fn notification(method: &str, params: Option<&[u8]>) -> Vec<u8> {
    let method = json::quote(method);
    join(&[b"{\"jsonrpc\":\"2.0\",\"method\":", method.as_bytes()], b",\"params\":", params)
}

/// Writes the result of a request. `result` is a JSON object.
#[must_use]
pub fn result(id: &Id, result: &[u8]) -> Vec<u8> {
    let id = id.to_json();
    join(&[b"{\"jsonrpc\":\"2.0\",\"id\":", id.as_bytes()], b",\"result\":", Some(result))
}

/// Writes an error object: the `error` member of a response.
#[must_use]
pub fn error_object(code: i64, message: &str, data: Option<&[u8]>) -> Vec<u8> {
    let (code, message) = (code.to_string(), json::quote(message));
    join(&[b"{\"code\":", code.as_bytes(), b",\"message\":", message.as_bytes()], b",\"data\":", data)
}

/// Writes an error as the answer to a request; without an id where it could not be read.
#[must_use]
pub fn error(id: Option<&Id>, code: i64, message: &str, data: Option<&[u8]>) -> Vec<u8> {
    failure(id, &error_object(code, message, data))
}

/// Writes an error object that already is JSON as the answer to a request.
#[must_use]
pub fn failure(id: Option<&Id>, object: &[u8]) -> Vec<u8> {
    match id {
        Some(id) => {
            let id = id.to_json();
            join(&[b"{\"jsonrpc\":\"2.0\",\"id\":", id.as_bytes()], b",\"error\":", Some(object))
        }
        None => join(&[b"{\"jsonrpc\":\"2.0\""], b",\"error\":", Some(object)),
    }
}

/// Writes an answer to a request.
#[must_use]
pub fn answer(id: &Id, answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::Error(object) => failure(Some(id), object.root().raw()),
        Answer::Result(object) => result(id, object.root().raw()),
    }
}

/// Puts the parts of an object together, then the last member if there is one, and closes it.
fn join(parts: &[&[u8]], key: &[u8], last: Option<&[u8]>) -> Vec<u8> {
    let room: usize = parts.iter().map(|p| p.len()).sum();
    let mut bytes = Vec::with_capacity(room + key.len() + last.map_or(0, <[u8]>::len) + 1);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    if let Some(last) = last {
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(last);
    }
    bytes.push(b'}');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Message, FrameError> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (input, want) in [
            ("", "-32700"),
            ("{", "-32700"),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, "-32700"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} {}"#, "-32700"),
            ("[]", "-32600 batches are not accepted; send one message at a time"),
            (
                r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
                "-32600 batches are not accepted; send one message at a time",
            ),
            ("1", "-32600 a message has to be a JSON object"),
            ("{}", "-32600 `jsonrpc` has to be \"2.0\""),
            (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, "-32600 7 `jsonrpc` has to be \"2.0\""),
            (
                r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
                "-32600 `id` has to be a string or an integer",
            ),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, "-32600 `id` has to be a string or an integer"),
            (r#"{"jsonrpc":"2.0","id":1e3,"method":"ping"}"#, "-32600 `id` has to be a string or an integer"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "-32600 `id` has to be a string or an integer"),
            (
                r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
                "-32600 `id` has to be a string or an integer",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
                "-32600 1 `method` has to be a string that is not empty",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":""}"#,
                "-32600 1 `method` has to be a string that is not empty",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
                "-32600 1 `params` has to be an object",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#,
                "-32600 1 `params` has to be an object",
            ),
            (r#"{"jsonrpc":"2.0","id":1}"#, "-32600 1 a message needs `method`, `result` or `error`"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
                "-32600 1 a message can have only one of `method`, `result` and `error`",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"result":[]}"#, "-32600 1 `result` has to be an object"),
            (r#"{"jsonrpc":"2.0","result":{}}"#, "-32600 `id` has to be a string or an integer"),
            (
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}"#,
                "-32600 1 `error` has to be an object with an integer `code` and a string `message`",
            ),
        ] {
            let error = parse(input).unwrap_err();
            let id = error.id().map(|id| format!(" {id}")).unwrap_or_default();
            let got = format!("{}{id} {error}", error.code());
            let fits = if want == "-32700" { got.starts_with(want) } else { got == want };
            assert!(fits, "input: {input:?}, got {got:?}, want {want:?}");
        }
        let deep =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{}}}}}"#, "[".repeat(10_000));
        assert_eq!(parse(&deep).unwrap_err().code(), PARSE_ERROR);
        let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"m"}}"#, "x".repeat(513));
        assert_eq!(parse(&long).unwrap_err().code(), INVALID_REQUEST);
    }

    #[test]
    fn ids_of_every_kind_come_back_as_they_were() {
        for id in [
            "1",
            "-1",
            "0",
            "9007199254740993",
            "123456789012345678901234567890",
            r#""a""#,
            r#""""#,
            r#""é\n""#,
        ] {
            let Message::Request(request) =
                parse(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#)).unwrap()
            else {
                panic!("no request: {id}");
            };
            let back = String::from_utf8(result(&request.id, b"{}")).unwrap();
            assert_eq!(back, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        }
    }

    #[test]
    fn what_is_carried_is_not_touched() {
        let params = r#"{ "b": 1.50,  "a":{"x": "é"} }"#;
        let Message::Request(got) =
            parse(&format!(r#"{{"id":1,"method":"m","params":{params},"jsonrpc":"2.0"}}"#)).unwrap()
        else {
            panic!("no request");
        };
        assert_eq!(got.params.unwrap().root().raw(), params.as_bytes());
        let Message::Response(got) =
            parse(&format!(r#"{{"jsonrpc":"2.0","id":"x","result":{params}}}"#)).unwrap()
        else {
            panic!("no response");
        };
        assert_eq!(
            answer(&Id::from(7), &got.answer),
            format!(r#"{{"jsonrpc":"2.0","id":7,"result":{params}}}"#).into_bytes()
        );
    }

    #[test]
    fn what_is_written_can_be_read() {
        let id = Id::from("a\"b");
        for (bytes, want) in [
            (request(&id, "m", None), r#"{"jsonrpc":"2.0","id":"a\"b","method":"m"}"#),
            (request(&id, "m", Some(b"{}")), r#"{"jsonrpc":"2.0","id":"a\"b","method":"m","params":{}}"#),
            (notification("n", Some(b"{}")), r#"{"jsonrpc":"2.0","method":"n","params":{}}"#),
            (
                error(Some(&id), -1, "m", Some(b"[]")),
                r#"{"jsonrpc":"2.0","id":"a\"b","error":{"code":-1,"message":"m","data":[]}}"#,
            ),
            (error(None, -1, "m", None), r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"m"}}"#),
        ] {
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text, want);
            parse(&text).unwrap();
        }
    }
}
