//! The canonical form: RFC 8785, and nothing that would not survive it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::text;

use super::number::{self, Lossy};
use super::parse::{self, JsonError, Limits, Node, Shape, Tree};
use super::{Document, Value, edit};

/// JSON in its canonical form. Two of them have the same bytes only if they are the same value, however each was written.
///
/// Only [`Value::canonical`] makes one, so holding one proves it.
#[derive(Clone)]
pub struct Canonical(Document);

impl Canonical {
    /// The object without members.
    #[must_use]
    pub fn empty_object() -> Self {
        let root = Node { start: 0, end: 2, shape: Shape::Object { next: 1, count: 0 } };
        Self(Document::whole(Tree { text: "{}".to_owned(), unescaped: String::new(), nodes: vec![root] }))
    }

    /// The canonical bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.root().raw_str()
    }

    /// The canonical bytes, parsed.
    #[must_use]
    pub const fn document(&self) -> &Document {
        &self.0
    }

    /// The value that the canonical bytes are.
    #[must_use]
    pub fn root(&self) -> Value<'_> {
        self.0.root()
    }
}

impl PartialEq for Canonical {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Canonical {}

impl Hash for Canonical {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Canonical {
    /// Shows the size and not the content, which came from outside.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canonical({} bytes)", self.as_bytes().len())
    }
}

/// A value has no canonical form, because a number in it does not mean the same to every program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the number `{number}` at `{path}` {reason}")]
pub struct NotCanonicalError {
    /// Where the number is: the names and positions that lead to it, each after a `/`. Hidden characters are escaped.
    pub path: String,
    /// The number as it was written, cut if it is long.
    pub number: String,
    /// What is wrong with it.
    pub reason: NotCanonicalReason,
}

/// What is wrong with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCanonicalReason {
    /// No double has this value in its shortest form.
    Inexact,
    /// An integer beyond ±(2^53−1).
    Integer,
    /// Negative zero.
    NegativeZero,
    /// Beyond the greatest double.
    Overflow,
}

impl fmt::Display for NotCanonicalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inexact => "has more digits than a double can keep; round it, or write it as a string",
            Self::Integer => "is an integer beyond 9007199254740991, which programs round differently; write it as a string",
            Self::NegativeZero => "is a negative zero, which programs treat differently; write `0`",
            Self::Overflow => "is beyond the greatest double; write it as a string",
        })
    }
}

impl From<Lossy> for NotCanonicalReason {
    fn from(lossy: Lossy) -> Self {
        match lossy {
            Lossy::Inexact => Self::Inexact,
            Lossy::Integer => Self::Integer,
            Lossy::NegativeZero => Self::NegativeZero,
            Lossy::Overflow => Self::Overflow,
        }
    }
}

/// Where a number without canonical form was found; the path is collected on the way back, innermost step first.
struct Found {
    steps: Vec<String>,
    number: String,
    reason: NotCanonicalReason,
}

impl Value<'_> {
    /// The value in its canonical form. What is canonical already is shared and not written anew.
    ///
    /// # Errors
    /// A number in it would not survive: an integer beyond ±(2^53−1), digits that no double keeps, or `-0`.
    pub fn canonical(&self) -> Result<Canonical, NotCanonicalError> {
        if self.is_whole_text() && is_canonical(*self, &mut Vec::new()) {
            return Ok(Canonical(self.to_document()));
        }
        let mut out = Vec::with_capacity(self.raw().len());
        write(*self, &mut out).map_err(|found| NotCanonicalError {
            path: found.steps.iter().rev().flat_map(|step| ["/", step]).collect(),
            number: found.number,
            reason: found.reason,
        })?;
        let limits = Limits { max_bytes: usize::MAX, max_depth: usize::MAX, max_nodes: usize::MAX };
        match parse::parse_within(out, u32::MAX as usize, &limits) {
            Ok(tree) => Ok(Canonical(Document::whole(tree))),
            // INVARIANT: what was just written parses. If it did not, it would have no canonical form.
            Err(JsonError { .. }) => Err(NotCanonicalError {
                path: String::new(),
                number: String::new(),
                reason: NotCanonicalReason::Overflow,
            }),
        }
    }

    /// Whether no space surrounds it, if it is a whole document.
    fn is_whole_text(&self) -> bool {
        self.at != 0 || self.raw().len() == self.tree.text.len()
    }
}

/// Whether the value's text is its canonical form. `scratch` saves allocations.
fn is_canonical(value: Value<'_>, scratch: &mut Vec<u8>) -> bool {
    let node = value.node();
    match node.shape {
        Shape::Bool(_) | Shape::Null | Shape::Text => true,
        Shape::Escaped { .. } => {
            scratch.clear();
            edit::write_quoted(value.tree.decoded(node), scratch);
            scratch.as_slice() == value.raw()
        }
        Shape::Number => {
            scratch.clear();
            number::canonical(value.raw_str(), scratch).is_ok() && scratch.as_slice() == value.raw()
        }
        Shape::Array { .. } => {
            let mut end = node.start;
            for element in value.elements() {
                // One byte, the bracket or a comma, and no space.
                if element.node().start != end + 1 || !is_canonical(element, scratch) {
                    return false;
                }
                end = element.node().end;
            }
            closes_at(node, end)
        }
        Shape::Object { .. } => {
            let mut end = node.start;
            let mut previous: Option<&str> = None;
            let mut members = value.members();
            while let Some((key, member)) = members.next_pair() {
                let name = key.tree.decoded(key.node());
                let in_order = previous.is_none_or(|previous| utf16_order(previous, name) == Ordering::Less);
                let tight = key.node().start == end + 1 && member.node().start == key.node().end + 1;
                if !in_order || !tight || !is_canonical(key, scratch) || !is_canonical(member, scratch) {
                    return false;
                }
                end = member.node().end;
                previous = Some(name);
            }
            closes_at(node, end)
        }
    }
}

/// Whether only the closing bracket comes behind the last value, which ends at `end`; the opening one if there is none.
fn closes_at(node: &Node, end: u32) -> bool {
    let inside = if end == node.start { end + 1 } else { end };
    node.end == inside + 1
}

fn write(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Found> {
    let node = value.node();
    match node.shape {
        Shape::Bool(_) | Shape::Null | Shape::Text => out.extend_from_slice(value.raw()),
        Shape::Escaped { .. } => edit::write_quoted(value.tree.decoded(node), out),
        Shape::Number => number::canonical(value.raw_str(), out).map_err(|lossy| Found {
            steps: Vec::new(),
            number: value.raw_str().chars().take(40).collect(),
            reason: lossy.into(),
        })?,
        Shape::Array { .. } => {
            out.push(b'[');
            for (at, element) in value.elements().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(element, out).map_err(|found| found.below(&at.to_string()))?;
            }
            out.push(b']');
        }
        Shape::Object { .. } => {
            let mut members: Vec<_> = value.members().collect();
            members.sort_unstable_by(|(a, _), (b, _)| utf16_order(a, b));
            out.push(b'{');
            for (at, (name, member)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                edit::write_quoted(name, out);
                out.push(b':');
                write(member, out).map_err(|found| found.below(name))?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

impl Found {
    /// The same, seen from one level further out. A path does not become longer than a person reads.
    fn below(mut self, step: &str) -> Self {
        if self.steps.len() < 16 {
            self.steps.push(text::quoted(step, 40));
        }
        self
    }
}

/// The order of UTF-16 code units, which is not that of UTF-8: a surrogate comes before U+E000 to U+FFFF.
fn utf16_order(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}
