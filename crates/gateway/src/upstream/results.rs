//! A server's answer in the dialect of the agent: only what the eras have different is touched.

use toolgate_broker::outcome::Answer;
use toolgate_core::call::Action;
use toolgate_core::json::{Document, Edit};

use super::link::parsed;
use crate::rpc;

/// What a result of a modern server says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The call is done.
    Complete,
    /// The server wants something of the agent first.
    InputRequired,
    /// The call has become a task, which is asked about by its id.
    Task,
    /// Something that this gate does not know.
    Unknown,
}

/// What a result says that it is. Absent means done.
pub(super) fn kind(result: &Document) -> Kind {
    let Some(value) = result.root().get("resultType") else { return Kind::Complete };
    match value.as_str() {
        Some("complete") => Kind::Complete,
        Some("input_required") => Kind::InputRequired,
        Some("task") => Kind::Task,
        Some(_) | None => Kind::Unknown,
    }
}

/// Between whom an answer is passed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Legs {
    pub(super) agent_modern: bool,
    pub(super) server_modern: bool,
}

/// The answer as the agent is to have it.
pub(super) fn translate(answer: Answer, action: &Action, legs: Legs) -> Answer {
    match answer {
        Answer::Error(error) => Answer::Error(translate_error(error, legs)),
        Answer::Result(result) => Answer::Result(translate_result(result, action, legs)),
    }
}

fn translate_result(result: Document, action: &Action, legs: Legs) -> Document {
    let root = result.root();
    let mut edits = Vec::new();
    if legs.agent_modern {
        if root.get("resultType").is_none() {
            edits.push(("resultType", Edit::Set(b"\"complete\"".as_slice())));
        }
        if *action == Action::ReadResource && kind(&result) == Kind::Complete {
            if root.get("ttlMs").and_then(|ttl| ttl.as_i64()).is_none_or(|ttl| ttl < 0) {
                edits.push(("ttlMs", Edit::Set(b"0")));
            }
            // What one agent may read says nothing about the next one.
            if root.get("cacheScope").and_then(|scope| scope.as_str()) != Some("private") {
                edits.push(("cacheScope", Edit::Set(b"\"private\"")));
            }
        }
    } else if legs.server_modern {
        for key in ["resultType", "ttlMs", "cacheScope"] {
            if root.get(key).is_some() {
                edits.push((key, Edit::Remove));
            }
        }
        // Legacy revisions have objects only; the same is in `content` as text.
        if root.get("structuredContent").is_some_and(|content| !content.is_object()) {
            edits.push(("structuredContent", Edit::Remove));
        }
    }
    if edits.is_empty() { result } else { parsed(root.rewrite(&edits)) }
}

/// "Resource not found" until 2025-11-25.
const RESOURCE_NOT_FOUND: i64 = -32002;

fn translate_error(error: Document, legs: Legs) -> Document {
    let root = error.root();
    let code = root.get("code").and_then(|code| code.as_i64());
    let other = match code {
        Some(RESOURCE_NOT_FOUND) if legs.agent_modern => rpc::INVALID_PARAMS,
        // Both are about the upstream leg; told to the agent they would be about its own.
        Some(rpc::HEADER_MISMATCH | rpc::UNSUPPORTED_VERSION) => rpc::INTERNAL_ERROR,
        Some(rpc::MISSING_CAPABILITY) if !legs.agent_modern => rpc::INVALID_PARAMS,
        Some(_) | None => return error,
    };
    parsed(root.rewrite(&[("code", Edit::Set(other.to_string().as_bytes()))]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::link::object;

    #[test]
    fn results_between_the_eras() {
        let tool = Action::Tool("a/b".parse().unwrap());
        let read = Action::ReadResource;
        for (input, action, agent_modern, server_modern, want) in [
            // Same era: byte for byte.
            (r#"{ "x":1.50,"content":[] }"#, &tool, false, false, r#"{ "x":1.50,"content":[] }"#),
            (r#"{"resultType":"complete", "x":1}"#, &tool, true, true, r#"{"resultType":"complete", "x":1}"#),
            // Legacy server, modern agent: what the newer revision requires is added.
            (
                r#"{"content":[], "x":1e2}"#,
                &tool,
                true,
                false,
                r#"{"content":[],"x":1e2,"resultType":"complete"}"#,
            ),
            (
                r#"{"contents":[]}"#,
                &read,
                true,
                false,
                r#"{"contents":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#,
            ),
            (
                r#"{"resultType":"complete","contents":[],"ttlMs":5,"cacheScope":"public"}"#,
                &read,
                true,
                true,
                r#"{"resultType":"complete","contents":[],"ttlMs":5,"cacheScope":"private"}"#,
            ),
            // Modern server, legacy agent: it is taken away.
            (
                r#"{"resultType":"complete","contents":[],"ttlMs":5,"cacheScope":"public","y":{"z":1}}"#,
                &read,
                false,
                true,
                r#"{"contents":[],"y":{"z":1}}"#,
            ),
            (r#"{"content":[],"structuredContent":[1]}"#, &tool, false, true, r#"{"content":[]}"#),
            (
                r#"{"content":[],"structuredContent":{"a":1}}"#,
                &tool,
                false,
                true,
                r#"{"content":[],"structuredContent":{"a":1}}"#,
            ),
        ] {
            let legs = Legs { agent_modern, server_modern };
            let got = translate(Answer::Result(object(input)), action, legs);
            let got = String::from_utf8(got.document().root().raw().to_vec()).unwrap().replace(", ", ",");
            assert_eq!(got, want.replace(", ", ","), "input: {input} {legs:?}");
        }
    }

    #[test]
    fn errors_between_the_eras() {
        for (code, agent_modern, server_modern, want) in [
            (-32002, true, false, -32602),
            (-32002, false, false, -32002),
            (-32022, true, true, -32603),
            (-32020, false, true, -32603),
            (-32021, true, true, -32021),
            (-32021, false, true, -32602),
            (7, true, false, 7),
        ] {
            let error = object(&format!(r#"{{"code":{code},"message":"m","data":{{"x":1}}}}"#));
            let got =
                translate(Answer::Error(error), &Action::ReadResource, Legs { agent_modern, server_modern });
            let got = String::from_utf8(got.document().root().raw().to_vec()).unwrap();
            assert_eq!(got, format!(r#"{{"code":{want},"message":"m","data":{{"x":1}}}}"#));
        }
    }
}
