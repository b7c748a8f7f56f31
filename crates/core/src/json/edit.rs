//! Making new text: objects from scratch, and objects with some members replaced.

use super::Value;

/// What becomes of a member.
#[derive(Debug, Clone, Copy)]
pub enum Edit<'a> {
    /// There is no such member afterwards.
    Remove,
    /// The member's value is this JSON text. It stays where it was, or comes last if there was none.
    Set(&'a [u8]),
}

impl Value<'_> {
    /// The object with some members changed. The others are copied byte for byte and keep their order; if a name is given twice, the last edit counts.
    ///
    /// What is not an object has no members, and is copied as it is.
    #[must_use]
    pub fn rewrite(&self, edits: &[(&str, Edit<'_>)]) -> Vec<u8> {
        if !self.is_object() {
            return self.raw().to_vec();
        }
        let mut writer = ObjectWriter::sized(self.raw().len());
        let mut members = self.members();
        while let Some((key, value)) = members.next_pair() {
            let name = key.as_str().unwrap_or_default();
            match edits.iter().rev().find(|(edited, _)| *edited == name) {
                Some((_, Edit::Remove)) => {}
                Some((_, Edit::Set(raw))) => writer = writer.member(key.raw(), raw),
                None => {
                    let span = key.node().start as usize..value.node().end as usize;
                    writer.separate();
                    writer.out.extend_from_slice(self.tree.text.as_bytes().get(span).unwrap_or_default());
                }
            }
        }
        for (at, (name, edit)) in edits.iter().enumerate() {
            let overruled = edits.iter().skip(at + 1).any(|(later, _)| later == name);
            if let Edit::Set(raw) = edit
                && !overruled
                && self.get(name).is_none()
            {
                writer = writer.raw(name, raw);
            }
        }
        writer.finish()
    }
}

/// Writes an object member by member, in the order in which they are given. Each name is to be given once.
#[derive(Debug)]
pub struct ObjectWriter {
    out: Vec<u8>,
}

impl Default for ObjectWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl ObjectWriter {
    /// An object without members.
    #[must_use]
    pub fn new() -> Self {
        Self::sized(64)
    }

    fn sized(capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity);
        out.push(b'{');
        Self { out }
    }

    /// Adds a member whose value is JSON text already.
    #[must_use]
    pub fn raw(self, name: &str, value: &[u8]) -> Self {
        self.member(quote(name).as_bytes(), value)
    }

    /// Adds a string.
    #[must_use]
    pub fn string(self, name: &str, value: &str) -> Self {
        self.raw(name, quote(value).as_bytes())
    }

    /// Adds an integer.
    #[must_use]
    pub fn number(self, name: &str, value: i64) -> Self {
        self.raw(name, value.to_string().as_bytes())
    }

    /// Adds a boolean.
    #[must_use]
    pub fn bool(self, name: &str, value: bool) -> Self {
        self.raw(name, if value { b"true" } else { b"false" })
    }

    /// The object's text.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }

    fn member(mut self, quoted_name: &[u8], value: &[u8]) -> Self {
        // With room for a little more, lest a large value be moved for the bracket after it.
        self.out.reserve(quoted_name.len() + value.len() + 64);
        self.separate();
        self.out.extend_from_slice(quoted_name);
        self.out.push(b':');
        self.out.extend_from_slice(value);
        self
    }

    fn separate(&mut self) {
        if self.out.len() > 1 {
            self.out.push(b',');
        }
    }
}

/// A JSON string with this text, in the canonical form of RFC 8785: only what has to be escaped is.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_quoted(text, &mut out);
    // INVARIANT: whole characters go in, so the fallback is never used.
    String::from_utf8(out).unwrap_or_default()
}

/// Appends the canonical form of a string.
pub(super) fn write_quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, behind)) = special.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => out.extend_from_slice(format!("\\u{other:04x}").as_bytes()),
        }
        rest = behind;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
