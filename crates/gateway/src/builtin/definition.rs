//! What is told of a built-in: to agents, who have to know what they can do with it, and to the operator who accepts it.

use serde_json::{Value, json};
use toolgate_broker::config::Builtin;
use toolgate_core::json::Document;
use toolgate_sandbox::cell::{Profile, Workspace};

use super::arguments::{Language, MAX_FILE_BYTES, MAX_FILES, MAX_INPUT_BYTES, MAX_WORD_BYTES, MAX_WORDS};
use crate::upstream::own_document;

/// The definition of a built-in's tool.
pub(super) fn of(builtin: Builtin, profile: &Profile, languages: &[Language]) -> Document {
    let (title, what) = match builtin {
        Builtin::Code => ("Run a program", "Runs a program that you write"),
        Builtin::Shell => ("Run a command", "Runs a command, or a script of /bin/sh (with -e and -u)"),
    };
    let writes = !profile.write.is_empty() || matches!(profile.workspace, Some((_, Workspace::Write)));
    let definition = json!({
        "name": builtin.tool(),
        "title": title,
        "description": format!("{what}, in a sandbox of its own. {}", reach(profile)),
        "inputSchema": input(builtin, profile, languages),
        "outputSchema": output(),
        "annotations": {
            "readOnlyHint": false,
            "destructiveHint": writes,
            "idempotentHint": false,
            "openWorldHint": !profile.net.is_empty(),
        },
    });
    own_document(definition.to_string().into_bytes())
}

/// What a call reaches, in words.
fn reach(profile: &Profile) -> String {
    let mut said = Vec::new();
    said.push(match &profile.workspace {
        None => "It works in an empty folder.".to_owned(),
        Some((folder, workspace)) => {
            let folder = folder.display();
            match workspace {
                Workspace::Overlay => {
                    format!("It works in a copy of {folder}: what it changes there is dropped.")
                }
                Workspace::Read => format!("It works in {folder}, which it can read only."),
                Workspace::Write => format!("It works in {folder}, and what it changes there stays."),
            }
        }
    });
    for (paths, can) in [(&profile.read, "read"), (&profile.exec, "read and run"), (&profile.write, "write")]
    {
        if !paths.is_empty() {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            said.push(format!("It can {can} {}.", paths.join(", ")));
        }
    }
    said.push(if profile.net.is_empty() {
        "It reaches no other host.".to_owned()
    } else {
        let net: Vec<_> = profile.net.iter().map(ToString::to_string).collect();
        format!("It reaches {} and no other host.", net.join(", "))
    });
    said.push(format!(
        "It has {} s and {} MiB of memory, and may write {} KiB to each of stdout and stderr.",
        profile.limits.wall_ms / 1000,
        profile.limits.memory_bytes >> 20,
        profile.limits.output_bytes >> 10
    ));
    said.push(
        "Each call begins anew: nothing is left of the one before. What you need back, ask for in files_out."
            .to_owned(),
    );
    said.join(" ")
}

fn input(builtin: Builtin, profile: &Profile, languages: &[Language]) -> Value {
    let text = |most: usize, what: &str| json!({ "type": "string", "maxLength": most, "description": what });
    let path = text(4095, "A path below the folder that is worked in.");
    let mut properties = json!({
        "stdin": text(MAX_INPUT_BYTES, "What it reads from its standard input."),
        "files": {
            "type": "array",
            "maxItems": MAX_FILES,
            "description": "Files that are put into the folder before it starts.",
            "items": {
                "type": "object",
                "properties": {
                    "path": path,
                    "text": text(MAX_FILE_BYTES, "What the file holds; or:"),
                    "base64": text(MAX_FILE_BYTES * 2, "What it holds, in base64."),
                    "executable": { "type": "boolean", "description": "Whether it can be run." },
                },
                "required": ["path"],
                "additionalProperties": false,
            },
        },
        "files_out": {
            "type": "array",
            "maxItems": MAX_FILES,
            "items": path,
            "description": "Files of the folder that you want back when it has ended.",
        },
        "timeout_ms": {
            "type": "integer",
            "minimum": 1,
            "maximum": profile.limits.wall_ms,
            "description": "After how many milliseconds it is stopped, with all that it has started.",
        },
        "encoding": {
            "type": "string",
            "enum": ["text", "base64"],
            "description": "How stdout and stderr are written in the answer: as text, which they are without this, or in base64.",
        },
    });
    let (own, required) = match builtin {
        Builtin::Code => (
            vec![
                (
                    "language",
                    json!({
                        "type": "string",
                        "enum": languages.iter().map(|language| language.word()).collect::<Vec<_>>(),
                        "description": "What it is written in.",
                    }),
                ),
                ("code", text(MAX_WORD_BYTES, "The program.")),
            ],
            json!(["language", "code"]),
        ),
        Builtin::Shell => (
            vec![
                (
                    "argv",
                    json!({
                        "type": "array",
                        "minItems": 1,
                        "maxItems": MAX_WORDS,
                        "items": { "type": "string", "maxLength": MAX_WORD_BYTES },
                        "description": "The program and its arguments, which no shell reads; or:",
                    }),
                ),
                (
                    "script",
                    text(MAX_WORD_BYTES, "A script of /bin/sh, which ends at the first command that fails."),
                ),
            ],
            json!([]),
        ),
    };
    if let Some(properties) = properties.as_object_mut() {
        properties.extend(own.into_iter().map(|(name, schema)| (name.to_owned(), schema)));
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn output() -> Value {
    let string = json!({ "type": "string" });
    let whole = json!({ "type": "integer", "minimum": 0 });
    json!({
        "type": "object",
        "properties": {
            "exit_code": { "type": "integer", "description": "Its exit status, if it ended by itself." },
            "signal": { "type": "integer", "description": "The signal that ended it." },
            "stopped": {
                "type": "string",
                "enum": ["deadline", "output"],
                "description": "Why it was stopped: its time was over, or it wrote too much.",
            },
            "out_of_memory": { "type": "boolean", "description": "Whether something was killed since there was no memory left." },
            "stdout": string,
            "stderr": string,
            "encoding": { "type": "string", "enum": ["text", "base64"] },
            "not_utf8": {
                "type": "array",
                "items": { "type": "string", "enum": ["stdout", "stderr"] },
                "description": "In which of them bytes that are no text were replaced.",
            },
            "files": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": { "path": string, "bytes": whole, "text": string, "base64": string, "missing": string },
                    "required": ["path"],
                    "additionalProperties": false,
                },
            },
        },
        "required": ["out_of_memory", "stdout", "stderr", "encoding", "not_utf8", "files"],
        "additionalProperties": false,
    })
}
