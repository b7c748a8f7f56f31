//! What a child writes to standard error: read to the end so that it never blocks, kept within bounds, shown escaped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;

/// How much of it is kept.
pub const KEPT_BYTES: usize = 64 << 10;

/// The last [`KEPT_BYTES`] of a child's standard error. For operators; never shown to agents.
#[derive(Debug, Clone, Default)]
pub struct StderrTail {
    /// Guards the kept bytes.
    kept: Arc<Mutex<VecDeque<u8>>>,
    /// Whether the stream has ended.
    ended: Arc<watch::Sender<bool>>,
}

impl StderrTail {
    /// Reads until the stream ends.
    pub(crate) fn follow(mut stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let tail = Self::default();
        let ours = tail.clone();
        tokio::spawn(async move {
            let mut chunk = vec![0; 8 << 10];
            while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                ours.push(chunk.get(..read).unwrap_or_default());
            }
            ours.ended.send_replace(true);
        });
        tail
    }

    /// Resolves when all was read: what passes others on its way comes after the child has ended.
    pub async fn ended(&self) {
        // It is not dropped before it says so.
        let mut told = self.ended.subscribe();
        drop(told.wait_for(|ended| *ended).await);
    }

    /// Adds what is to be read there.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let over = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..over);
    }

    /// The text, with everything but printable characters, tabs and line ends escaped.
    #[must_use]
    pub fn text(&self) -> String {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        shown(&String::from_utf8_lossy(kept.make_contiguous()))
    }
}

/// Escapes what does not show: control characters, marks that turn the direction of text, and what has no width.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' | '\'' | '"' | '\\' => out.push(c),
            // `escape_debug` escapes control, format, unassigned and separator characters, and marks at a start.
            other => out.extend(other.escape_debug()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_show_is_escaped() {
        for (input, want) in [
            ("it's \"fine\"\n", "it's \"fine\"\n"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\u{202e}b\u{200b}c", "a\\u{202e}b\\u{200b}c"),
            ("bell\u{7}\r", "bell\\u{7}\\r"),
        ] {
            assert_eq!(shown(input), want, "input: {input:?}");
        }
    }

    #[test]
    fn only_the_end_is_kept() {
        let tail = StderrTail::default();
        tail.push(b"the beginning");
        tail.push(&vec![b'x'; KEPT_BYTES - 3]);
        tail.push(b"end");
        let text = tail.text();
        assert_eq!(text.len(), KEPT_BYTES);
        assert!(text.ends_with("xend") && !text.contains("beginning"), "{}", text.len());
    }
}
