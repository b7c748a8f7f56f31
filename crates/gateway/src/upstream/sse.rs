//! Server-sent events: an incremental parser with a bound.
//!
//! Follows the WHATWG specification for lines, fields and comments, but keeps nothing of it that MCP does not need.

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// An event, or a single line, is larger than allowed.
    #[error("an event is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

/// Takes bytes as they come, and gives out the data of each event.
#[derive(Debug)]
pub struct SseParser {
    limit: usize,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The `data` of the event that has not ended yet, each line followed by a line end.
    data: Vec<u8>,
    /// Whether the event's type is one that MCP uses.
    wanted: bool,
    /// The last byte was a carriage return, so a line feed would belong to it.
    after_return: bool,
    /// Nothing was read yet, so a byte order mark may come.
    at_start: bool,
    /// The `id` of the event that has not ended yet.
    id: Vec<u8>,
    /// Where the stream can be taken up again.
    resume: Resume,
}

/// Where a stream can be taken up again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resume {
    /// The id of the last event that has one; empty if none has.
    pub last: Vec<u8>,
    /// How long to wait before, in milliseconds, if the server said.
    pub retry_ms: Option<u64>,
}

/// The longest id that is worth remembering.
const MAX_ID: usize = 1024;

impl SseParser {
    /// A parser that takes no event larger than `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            wanted: true,
            after_return: false,
            at_start: true,
            id: Vec::new(),
            resume: Resume { last: Vec::new(), retry_ms: None },
        }
    }

    /// Where the stream can be taken up again, as far as it was read.
    #[must_use]
    pub const fn resume(&self) -> &Resume {
        &self.resume
    }

    /// Takes the next bytes and gives the data of each event that they complete to `event`.
    ///
    /// # Errors
    /// An event is too large. The parser is of no use afterwards.
    pub fn push(&mut self, mut bytes: &[u8], mut event: impl FnMut(Vec<u8>)) -> Result<(), SseError> {
        while let Some(first) = bytes.first() {
            if self.after_return {
                self.after_return = false;
                if *first == b'\n' {
                    bytes = bytes.get(1..).unwrap_or_default();
                    continue;
                }
            }
            let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                return self.extend_line(bytes);
            };
            let (head, tail) = bytes.split_at(end);
            self.extend_line(head)?;
            self.after_return = tail.first() == Some(&b'\r');
            bytes = tail.get(1..).unwrap_or_default();
            if let Some(data) = self.end_line()? {
                event(data);
            }
        }
        Ok(())
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        // Room for the field's name; the data itself is bounded apart.
        if self.line.len().saturating_add(bytes.len()) > self.limit.saturating_add(16) {
            return Err(SseError::TooLarge { limit: self.limit });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Vec<u8>>, SseError> {
        let line = std::mem::take(&mut self.line);
        let line = if std::mem::take(&mut self.at_start) { strip_mark(&line) } else { &line };
        if line.is_empty() {
            return Ok(self.end_event());
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (name, rest) = line.split_at(colon);
        let value = rest.strip_prefix(b": ").or_else(|| rest.strip_prefix(b":")).unwrap_or(rest);
        match name {
            b"data" => {
                if self.data.len().saturating_add(value.len()) > self.limit {
                    return Err(SseError::TooLarge { limit: self.limit });
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.wanted = matches!(value, b"" | b"message"),
            b"id" if value.len() <= MAX_ID && !value.contains(&0) => self.id = value.to_vec(),
            b"retry" => {
                let digits =
                    std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
                self.resume.retry_ms = digits.and_then(|v| v.parse().ok()).or(self.resume.retry_ms);
            }
            // Comments have no name; what nobody knows is passed over.
            _ => {}
        }
        Ok(None)
    }

    fn end_event(&mut self) -> Option<Vec<u8>> {
        let wanted = std::mem::replace(&mut self.wanted, true);
        let mut data = std::mem::take(&mut self.data);
        data.pop();
        // The id of an event that did not arrive whole says nothing.
        self.resume.last.clone_from(&self.id);
        (wanted && !data.is_empty()).then_some(data)
    }
}

fn strip_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(chunks: &[&[u8]]) -> Vec<String> {
        let mut parser = SseParser::new(64);
        let mut out = Vec::new();
        for chunk in chunks {
            if let Err(error) =
                parser.push(chunk, |data| out.push(String::from_utf8_lossy(&data).into_owned()))
            {
                out.push(error.to_string());
                break;
            }
        }
        out
    }

    #[test]
    fn streams() {
        for (input, want) in [
            ("data: a\n\n", vec!["a"]),
            ("data:a\n\n", vec!["a"]),
            ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", vec!["a", "b", "c"]),
            ("event: message\nid: 7\nretry: 1\ndata: a\ndata: b\n\n", vec!["a\nb"]),
            ("event: endpoint\ndata: /x\n\ndata: a\n\n", vec!["a"]),
            (": keep-alive\n\n:\n\ndata\n\nid: 1\ndata:\n\n", vec![]),
            ("\u{feff}data: a\n\n", vec!["a"]),
            ("data: not ended\n", vec![]),
            ("data: not ended", vec![]),
            ("dat: a\n data: b\n\n", vec![]),
        ] {
            assert_eq!(events(&[input.as_bytes()]), want, "input: {input:?}");
        }
    }

    #[test]
    fn where_to_take_up_again_is_remembered() {
        for (input, last, retry_ms) in [
            ("data: a\n\n", "", None),
            ("id: 7\nretry: 50\ndata: \n\n", "7", Some(50)),
            ("id: 7\n\ndata: a\n\n", "7", None),
            ("id: 7\n\nid: 8\ndata: not ended", "7", None),
            ("id: 7\n\nid\n\n", "", None),
            ("retry: 1\n\nretry: soon\n\nretry: -1\n\n", "", Some(1)),
            ("id: a\0b\n\n", "", None),
        ] {
            let mut parser = SseParser::new(64);
            parser.push(input.as_bytes(), |_| {}).unwrap();
            let want = Resume { last: last.as_bytes().to_vec(), retry_ms };
            assert_eq!(*parser.resume(), want, "input: {input:?}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let long = format!("data: {}", "x".repeat(200));
        assert_eq!(events(&[long.as_bytes()]), ["an event is larger than 64 bytes"]);
        let many = "data: 0123456789\n".repeat(10);
        assert_eq!(events(&[many.as_bytes()]), ["an event is larger than 64 bytes"]);
        let comment = format!(":{}", "x".repeat(200));
        assert_eq!(events(&[comment.as_bytes()]), ["an event is larger than 64 bytes"]);
        let fits = format!("data: {}\n\n", "x".repeat(64));
        assert_eq!(events(&[fits.as_bytes()]), ["x".repeat(64)]);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(text in "(data|event|id|: |message|x|\r|\n|\r\n|\n\n){0,30}", cut in 0_usize..80) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let whole = events(&[bytes]);
            prop_assert_eq!(&whole, &events(&[head, tail]));
            prop_assert_eq!(&whole, &events(&single));
        }
    }
}
