//! The parser: bytes in, a tree of spans out.

use std::collections::HashSet;
use std::fmt;

use crate::text;

/// How much of it may be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes a document may have. Above [`Limits::LARGEST`] it counts as that.
    pub max_bytes: usize,
    /// How deep arrays and objects may lie in each other. Above [`Limits::DEEPEST`] it counts as that.
    pub max_depth: usize,
    /// How many values, and names of members, there may be in all.
    pub max_nodes: usize,
}

impl Limits {
    /// The greatest depth there is: walking a tree of this depth is safe on the smallest stack in use.
    pub const DEEPEST: usize = 256;
    /// The greatest size there is, just under 1 GiB: the canonical form, up to four times as long, has to fit into
    /// offsets of 32 bits.
    pub const LARGEST: usize = (1 << 30) - 1;
}

impl Default for Limits {
    /// 16 MiB, a depth of 64, and a million values.
    fn default() -> Self {
        Self { max_bytes: 16 << 20, max_depth: 64, max_nodes: 1_000_000 }
    }
}

/// Why bytes are not JSON that can be used: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}, at byte {offset} (line {line}, column {column})")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// The offset of the byte at which it was noticed.
    pub offset: usize,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonErrorKind {
    /// The document starts with a byte order mark.
    ByteOrderMark,
    /// A control character stands in a string.
    Control(u8),
    /// An object has two members of this name. Hidden characters are escaped, and a long name is cut.
    DuplicateName(String),
    /// The text ends too early.
    Ended {
        /// What should have come.
        wanted: &'static str,
    },
    /// A backslash is followed by something that is no escape.
    Escape,
    /// An escape stands for half a character.
    LoneSurrogate(u16),
    /// A number is written in a way that JSON does not have.
    Number(&'static str),
    /// The bytes are not UTF-8.
    NotUtf8,
    /// Arrays and objects lie too deep in each other.
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// There are too many bytes.
    TooLarge {
        /// How many there are.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// There are too many values.
    TooManyValues {
        /// The limit.
        limit: usize,
    },
    /// Something follows the document.
    Trailing,
    /// A character stands where it may not.
    Unexpected {
        /// The character.
        found: char,
        /// What should have come.
        wanted: &'static str,
    },
}

impl fmt::Display for JsonErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByteOrderMark => f.write_str("the document starts with a byte order mark; leave it out"),
            Self::Control(byte) => write!(f, "control character in a string; write it as `\\u{byte:04x}`"),
            Self::DuplicateName(name) => {
                write!(f, "the name `{name}` occurs twice in one object; each name may occur once")
            }
            Self::Ended { wanted } => write!(f, "the text ends where {wanted} should be"),
            Self::Escape => f.write_str(
                "unknown escape; the escapes are `\\\"`, `\\\\`, `\\/`, `\\b`, `\\f`, `\\n`, `\\r`, `\\t` and `\\u` with four hexadecimal digits",
            ),
            Self::LoneSurrogate(unit) => {
                write!(f, "`\\u{unit:04x}` is half of a surrogate pair; write both halves, the high one first")
            }
            Self::Number(how) => write!(f, "wrong number: {how}"),
            Self::NotUtf8 => f.write_str("not UTF-8; a document is UTF-8 throughout"),
            Self::TooDeep { limit } => write!(f, "nested deeper than {limit} levels; flatten it"),
            Self::TooLarge { size, limit } => write!(f, "{size} bytes; at most {limit} are taken"),
            Self::TooManyValues { limit } => write!(f, "more than {limit} values; send fewer"),
            Self::Trailing => f.write_str("something follows the document; send one value and nothing after it"),
            Self::Unexpected { found, wanted } => {
                let found = text::quoted(found.encode_utf8(&mut [0; 4]), 1);
                write!(f, "found `{found}` where {wanted} should be")
            }
        }
    }
}

/// A document's text and what is where in it. The nodes lie in the order of the text; an object's are the name and the value
/// of each member in turn.
#[derive(Debug)]
pub(super) struct Tree {
    /// The text as it came.
    pub(super) text: String,
    /// Strings that have escapes, decoded, one behind the other.
    pub(super) unescaped: String,
    /// The values; the first is the document's own.
    pub(super) nodes: Vec<Node>,
}

/// One value, or the name of one member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) shape: Shape,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// `next` is the node after the last one that lies in this one.
    Array {
        next: u32,
        count: u32,
    },
    Bool(bool),
    /// A string with escapes; `from` and `to` are offsets in [`Tree::unescaped`].
    Escaped {
        from: u32,
        to: u32,
    },
    Null,
    Number,
    Object {
        next: u32,
        count: u32,
    },
    /// A string without escapes.
    Text,
}

impl Node {
    pub(super) const NOWHERE: Self = Self { start: 0, end: 0, shape: Shape::Null };

    /// The index of the node that follows this one, whose index is `at`, on the same level.
    pub(super) fn after(&self, at: usize) -> usize {
        match self.shape {
            Shape::Array { next, .. } | Shape::Object { next, .. } => next as usize,
            Shape::Bool(_) | Shape::Escaped { .. } | Shape::Null | Shape::Number | Shape::Text => at + 1,
        }
    }
}

impl Tree {
    pub(super) fn raw(&self, node: &Node) -> &str {
        // INVARIANT: spans start and end at characters of this text; the fallback is never used.
        self.text.get(node.start as usize..node.end as usize).unwrap_or_default()
    }

    pub(super) fn decoded(&self, node: &Node) -> &str {
        decoded(&self.text, &self.unescaped, node)
    }
}

fn decoded<'a>(text: &'a str, unescaped: &'a str, node: &Node) -> &'a str {
    match node.shape {
        Shape::Escaped { from, to } => unescaped.get(from as usize..to as usize),
        _ => text.get(node.start as usize + 1..(node.end as usize).saturating_sub(1)),
    }
    .unwrap_or_default()
}

pub(super) fn parse(bytes: Vec<u8>, limits: &Limits) -> Result<Tree, JsonError> {
    parse_within(bytes, Limits::LARGEST, limits)
}

/// The same with another greatest size, at most `u32::MAX`.
pub(super) fn parse_within(bytes: Vec<u8>, largest: usize, limits: &Limits) -> Result<Tree, JsonError> {
    let limit = limits.max_bytes.min(largest);
    if bytes.len() > limit {
        return Err(error(&[], 0, JsonErrorKind::TooLarge { size: bytes.len(), limit }));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(error(&bytes, 0, JsonErrorKind::ByteOrderMark));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| error(e.as_bytes(), e.utf8_error().valid_up_to(), JsonErrorKind::NotUtf8))?;
    let mut parser = Parser {
        text: &text,
        at: 0,
        nodes: Vec::with_capacity(text.len() / 12 + 1),
        unescaped: String::new(),
        open: Vec::new(),
        max_depth: limits.max_depth.min(Limits::DEEPEST),
        max_nodes: limits.max_nodes.min(u32::MAX as usize),
    };
    parser.document()?;
    let Parser { nodes, unescaped, .. } = parser;
    Ok(Tree { text, unescaped, nodes })
}

fn error(bytes: &[u8], offset: usize, kind: JsonErrorKind) -> JsonError {
    let before = bytes.get(..offset).unwrap_or_default();
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let in_line = before.get(line_start..).unwrap_or_default();
    // Bytes 10xxxxxx continue a character and are not counted.
    let column = in_line.iter().filter(|b| **b & 0xc0 != 0x80).count() + 1;
    JsonError { kind, offset, line, column }
}

/// An array or object whose end was not seen yet.
struct Open {
    node: usize,
    count: u32,
    is_object: bool,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nodes: Vec<Node>,
    unescaped: String,
    open: Vec<Open>,
    max_depth: usize,
    max_nodes: usize,
}

/// Whether a value was read to its end, or an array or object begun which has something in it.
enum Progress {
    Complete,
    Opened,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<(), JsonError> {
        loop {
            match self.value()? {
                Progress::Opened => {}
                Progress::Complete if self.another_follows()? => {}
                Progress::Complete => break,
            }
        }
        self.space();
        if self.at < self.text.len() {
            return Err(self.fail(JsonErrorKind::Trailing));
        }
        Ok(())
    }

    /// Reads a value. Of an array or object that is not empty, only what comes before its first value.
    fn value(&mut self) -> Result<Progress, JsonError> {
        self.space();
        match self.peek() {
            Some(b'{') => self.begin(true),
            Some(b'[') => self.begin(false),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Shape::Bool(true)),
            Some(b'f') => self.word("false", Shape::Bool(false)),
            Some(b'n') => self.word("null", Shape::Null),
            Some(b'+') => Err(self.fail(JsonErrorKind::Number("leave out the `+`"))),
            Some(b'.') => Err(self.fail(JsonErrorKind::Number("a digit belongs before the `.`"))),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn begin(&mut self, is_object: bool) -> Result<Progress, JsonError> {
        if self.open.len() >= self.max_depth {
            return Err(self.fail(JsonErrorKind::TooDeep { limit: self.max_depth }));
        }
        let node = self.nodes.len();
        let shape =
            if is_object { Shape::Object { next: 0, count: 0 } } else { Shape::Array { next: 0, count: 0 } };
        self.push(self.at, shape)?;
        self.open.push(Open { node, count: 0, is_object });
        self.at += 1;
        self.space();
        match (is_object, self.peek()) {
            (true, Some(b'}')) | (false, Some(b']')) => {
                self.end()?;
                return Ok(Progress::Complete);
            }
            (true, _) => self.name("a name in double quotes or `}`")?,
            (false, _) => {}
        }
        Ok(Progress::Opened)
    }

    /// After a value: ends what ends here, and says whether another value comes.
    fn another_follows(&mut self) -> Result<bool, JsonError> {
        loop {
            let Some(open) = self.open.last_mut() else { return Ok(false) };
            open.count += 1;
            let is_object = open.is_object;
            self.space();
            match (self.peek(), is_object) {
                (Some(b','), _) => {
                    self.at += 1;
                    if is_object {
                        self.space();
                        self.name("a name in double quotes")?;
                    }
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => self.end()?,
                (_, true) => return Err(self.unexpected("`,` or `}`")),
                (_, false) => return Err(self.unexpected("`,` or `]`")),
            }
        }
    }

    /// Steps over the closing bracket of the innermost array or object.
    fn end(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        let Some(Open { node, count, is_object }) = self.open.pop() else { return Ok(()) };
        if is_object {
            self.refuse_duplicates(node, count as usize)?;
        }
        let next = offset(self.nodes.len());
        if let Some(node) = self.nodes.get_mut(node) {
            node.end = offset(self.at);
            node.shape = if is_object { Shape::Object { next, count } } else { Shape::Array { next, count } };
        }
        Ok(())
    }

    fn refuse_duplicates(&self, object: usize, count: usize) -> Result<(), JsonError> {
        /// Up to this many names, comparing each with each is faster than hashing.
        const FEW: usize = 12;
        let mut next = object + 1;
        let mut names = (0..count).map_while(|_| {
            let name = self.nodes.get(next)?;
            next = self.nodes.get(next + 1)?.after(next + 1);
            Some((decoded(self.text, &self.unescaped, name), name.start))
        });
        let twice = if count <= FEW {
            let mut seen = [""; FEW];
            names.enumerate().find_map(|(at, (name, start))| {
                if seen.iter().take(at).any(|other| *other == name) {
                    return Some((name, start));
                }
                if let Some(place) = seen.get_mut(at) {
                    *place = name;
                }
                None
            })
        } else {
            let mut seen = HashSet::with_capacity(count);
            names.find(|(name, _)| !seen.insert(*name))
        };
        match twice {
            None => Ok(()),
            Some((name, start)) => {
                let shown = text::quoted(name, 64);
                Err(error(self.text.as_bytes(), start as usize, JsonErrorKind::DuplicateName(shown)))
            }
        }
    }

    /// Reads the name of a member and the colon behind it.
    fn name(&mut self, wanted: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected(wanted));
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.unexpected("`:`"));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<Progress, JsonError> {
        let start = self.at;
        self.at += 1;
        let from = self.unescaped.len();
        let mut run = self.at;
        let mut shape = Shape::Text;
        loop {
            self.at += plain_length(self.rest());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.copy(run);
                    self.escape()?;
                    run = self.at;
                    shape = Shape::Escaped { from: offset(from), to: 0 };
                }
                Some(byte) => return Err(self.fail(JsonErrorKind::Control(byte))),
                None => return Err(self.unexpected("`\"`")),
            }
        }
        if let Shape::Escaped { from, .. } = shape {
            self.copy(run);
            shape = Shape::Escaped { from, to: offset(self.unescaped.len()) };
        }
        self.at += 1;
        self.push(start, shape)?;
        Ok(Progress::Complete)
    }

    /// Takes what lies between `run` and here into the decoded strings.
    fn copy(&mut self, run: usize) {
        self.unescaped.push_str(self.text.get(run..self.at).unwrap_or_default());
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let character = match self.rest().get(1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.fail(JsonErrorKind::Escape)),
        };
        self.unescaped.push(character);
        self.at += 2;
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<(), JsonError> {
        let first = self.code_unit(0).ok_or_else(|| self.fail(JsonErrorKind::Escape))?;
        let second = if matches!(first, 0xd800..=0xdbff) { self.code_unit(6) } else { None };
        let mut units = char::decode_utf16([Some(first), second].into_iter().flatten());
        match units.next() {
            Some(Ok(character)) => {
                self.unescaped.push(character);
                self.at += if second.is_some() { 12 } else { 6 };
                Ok(())
            }
            Some(Err(_)) | None => Err(self.fail(JsonErrorKind::LoneSurrogate(first))),
        }
    }

    /// The code unit of the escape `\uXXXX` that starts `ahead` bytes from here.
    fn code_unit(&self, ahead: usize) -> Option<u16> {
        let [b'\\', b'u', digits @ ..] = self.rest().get(ahead..ahead + 6)? else { return None };
        digits.iter().try_fold(0_u16, |value, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            Some((value << 4) | u16::try_from(digit).ok()?)
        })
    }

    fn number(&mut self) -> Result<Progress, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => {
                self.at += 1;
                if matches!(self.peek(), Some(b'0'..=b'9')) {
                    return Err(self.fail(JsonErrorKind::Number("leave out the leading zero")));
                }
            }
            _ => self.digits("a digit belongs after the `-`")?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("a digit belongs after the `.`")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("a digit belongs into the exponent")?;
        }
        self.push(start, Shape::Number)?;
        Ok(Progress::Complete)
    }

    fn digits(&mut self, missing: &'static str) -> Result<(), JsonError> {
        let count = self.rest().iter().take_while(|b| b.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.fail(JsonErrorKind::Number(missing)));
        }
        self.at += count;
        Ok(())
    }

    fn word(&mut self, word: &'static str, shape: Shape) -> Result<Progress, JsonError> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.unexpected("`true`, `false` or `null`"));
        }
        let start = self.at;
        self.at += word.len();
        self.push(start, shape)?;
        Ok(Progress::Complete)
    }

    /// Adds a node that ends here; of an array or object, the end is set later.
    fn push(&mut self, start: usize, shape: Shape) -> Result<(), JsonError> {
        if self.nodes.len() >= self.max_nodes {
            return Err(error(
                self.text.as_bytes(),
                start,
                JsonErrorKind::TooManyValues { limit: self.max_nodes },
            ));
        }
        self.nodes.push(Node { start: offset(start), end: offset(self.at), shape });
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn fail(&self, kind: JsonErrorKind) -> JsonError {
        error(self.text.as_bytes(), self.at, kind)
    }

    fn unexpected(&self, wanted: &'static str) -> JsonError {
        let found = self.text.get(self.at..).and_then(|rest| rest.chars().next());
        self.fail(match found {
            Some(found) => JsonErrorKind::Unexpected { found, wanted },
            None => JsonErrorKind::Ended { wanted },
        })
    }
}

/// How many bytes from the start are neither `"` nor `\` nor control characters, eight at a time.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    // Sets the high bit of the lowest byte that is zero; higher ones may be set wrongly, so only the lowest counts.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, _) = bytes.as_chunks::<8>();
    let mut length = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = quote | backslash | control;
        if found != 0 {
            return length + (found.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let is_plain = |b: &&u8| !matches!(b, b'"' | b'\\' | 0..=0x1f);
    length + bytes.get(length..).unwrap_or_default().iter().take_while(is_plain).count()
}

/// An offset or count as it is kept. Nothing reaches `u32::MAX`: the size was checked first, and every node, and every byte of
/// a decoded string, has at least one byte of its own in the text.
fn offset(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
