//! What the agent is told of a run: for programs as structured content, for whoever reads as text.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use toolgate_core::json::Document;
use toolgate_sandbox::cell::{Cut, Ended, Finished};

use super::arguments::Encoding;
use crate::upstream::own_document;

/// A file that was wanted back, and what came of that.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) path: String,
    /// What it holds, or why it is not there.
    pub(super) content: Result<Vec<u8>, String>,
}

impl Taken {
    pub(super) fn length(&self) -> usize {
        self.content.as_ref().map_or(0, Vec::len)
    }

    fn json(&self) -> Value {
        match &self.content {
            Err(why) => json!({ "path": self.path, "missing": why }),
            Ok(content) => match std::str::from_utf8(content) {
                Ok(text) => json!({ "path": self.path, "bytes": content.len(), "text": text }),
                Err(_) => {
                    json!({ "path": self.path, "bytes": content.len(), "base64": STANDARD.encode(content) })
                }
            },
        }
    }
}

/// That nothing ran, and why: it is the agent who can do something about it.
pub(super) fn refused(why: &str) -> Document {
    own_document(
        json!({ "content": [{ "type": "text", "text": format!("Nothing ran: {why}.") }], "isError": true })
            .to_string()
            .into_bytes(),
    )
}

/// How a run ended.
pub(super) fn of(done: &Finished, taken: &[Taken], encoding: Encoding) -> Document {
    let Finished { ended, cut, stdout, stderr } = done;
    let good = ended.code == Some(0) && cut.is_none();
    let mut structured = json!({
        "out_of_memory": ended.out_of_memory,
        "stdout": written(stdout, encoding),
        "stderr": written(stderr, encoding),
        "encoding": encoding.word(),
        "not_utf8": match encoding {
            Encoding::Base64 => Vec::new(),
            Encoding::Text => not_utf8(done),
        },
        "files": taken.iter().map(Taken::json).collect::<Vec<_>>(),
    });
    if let Some(structured) = structured.as_object_mut() {
        let stopped = cut.and_then(word);
        structured
            .extend(ended.code.filter(|_| cut.is_none()).map(|code| ("exit_code".to_owned(), code.into())));
        structured.extend(
            ended.signal.filter(|_| cut.is_none()).map(|signal| ("signal".to_owned(), signal.into())),
        );
        structured.extend(stopped.map(|word| ("stopped".to_owned(), word.into())));
    }
    let text = in_words(done, taken, encoding);
    own_document(
        json!({ "content": [{ "type": "text", "text": text }], "structuredContent": structured, "isError": !good })
            .to_string()
            .into_bytes(),
    )
}

const fn word(cut: Cut) -> Option<&'static str> {
    match cut {
        Cut::Deadline => Some("deadline"),
        Cut::Output => Some("output"),
        // Then nobody is told.
        Cut::Unwanted => None,
    }
}

fn written(bytes: &[u8], encoding: Encoding) -> String {
    match encoding {
        Encoding::Base64 => STANDARD.encode(bytes),
        Encoding::Text => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn not_utf8(done: &Finished) -> Vec<&'static str> {
    [("stdout", &done.stdout), ("stderr", &done.stderr)]
        .into_iter()
        .filter_map(|(name, bytes)| std::str::from_utf8(bytes).is_err().then_some(name))
        .collect()
}

fn in_words(done: &Finished, taken: &[Taken], encoding: Encoding) -> String {
    let Ended { code, signal, cpu_us: _, peak_bytes: _, out_of_memory } = &done.ended;
    let mut text = match (done.cut, code, signal) {
        (Some(Cut::Deadline), ..) => "Stopped: its time was over.".to_owned(),
        (Some(Cut::Output), ..) => "Stopped: it wrote more than is passed on.".to_owned(),
        (Some(Cut::Unwanted), ..) => "Stopped.".to_owned(),
        (None, Some(code), _) => format!("Exit code {code}."),
        (None, None, Some(signal)) => format!("Killed by signal {signal}."),
        (None, None, None) => "It has ended.".to_owned(),
    };
    if *out_of_memory {
        text.push_str(" There was no memory left.");
    }
    for (name, bytes) in [("stdout", &done.stdout), ("stderr", &done.stderr)] {
        if !bytes.is_empty() {
            let remark = match (encoding, std::str::from_utf8(bytes)) {
                (Encoding::Base64, _) => " (base64)",
                (Encoding::Text, Ok(_)) => "",
                (Encoding::Text, Err(_)) => " (bytes that are no text are replaced)",
            };
            let _infallible = write!(text, "\n\n{name}{remark}:\n{}", written(bytes, encoding));
        }
    }
    for Taken { path, content } in taken {
        let _infallible = match content {
            Err(why) => write!(text, "\n\nfile {}: not there: {why}", path.escape_debug()),
            Ok(content) => match std::str::from_utf8(content) {
                Ok(content) => write!(text, "\n\nfile {}:\n{content}", path.escape_debug()),
                Err(_) => write!(
                    text,
                    "\n\nfile {}: {} bytes, in structuredContent",
                    path.escape_debug(),
                    content.len()
                ),
            },
        };
    }
    text
}
