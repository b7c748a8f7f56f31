//! One strict parser for everything hostile.
//!
//! A [`Document`] keeps the bytes as they came and a tree that says what is where in them, so that what nobody
//! touched goes on byte for byte, and what is judged is put into one canonical form (RFC 8785).
//!
//! RFC 8259 leaves choices to the parser, and attacks live in those choices: two parsers that disagree about one
//! text make a call that is judged as one thing and run as another. So each of them is refused here: a name that
//! occurs twice in an object, bytes that are no UTF-8, a byte order mark, half a surrogate pair, and more depth, values
//! or bytes than [`Limits`] allows. Numbers are kept as they were written until somebody asks what they are.

mod canonical;
mod edit;
mod number;
mod parse;
mod path;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use canonical::{Canonical, NotCanonicalError, NotCanonicalReason};
pub use edit::{Edit, ObjectWriter, quote};
pub use parse::{JsonError, JsonErrorKind, Limits};
pub use path::{FieldPath, FieldPathError};

use parse::{Node, Shape, Tree};

/// A parsed document, or a part of one. Cloning it and taking parts of it copies no text; a part keeps the whole
/// alive.
#[derive(Clone)]
pub struct Document {
    tree: Arc<Tree>,
    at: usize,
}

impl Document {
    /// Parses the bytes. One pass, no recursion, and memory in proportion to the number of values.
    ///
    /// # Errors
    /// The bytes are not strict JSON, or there is more of it than the limits allow. The error says where.
    pub fn parse(bytes: impl Into<Vec<u8>>, limits: &Limits) -> Result<Self, JsonError> {
        parse::parse(bytes.into(), limits).map(Self::whole)
    }

    fn whole(tree: Tree) -> Self {
        Self { tree: Arc::new(tree), at: 0 }
    }

    /// The value that the document is.
    #[must_use]
    pub fn root(&self) -> Value<'_> {
        Value { tree: &self.tree, at: self.at }
    }

    /// The bytes as they came. For a part of a document, the bytes of the part.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        if self.at == 0 { self.tree.text.as_bytes() } else { self.root().raw() }
    }

    /// The same bytes as a shared buffer, without a copy.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

impl AsRef<[u8]> for Document {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl fmt::Debug for Document {
    /// Shows the size and not the content, which came from outside.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.bytes().len())
    }
}

/// One value in a document.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    tree: &'a Arc<Tree>,
    at: usize,
}

impl fmt::Debug for Value<'_> {
    /// Shows the size and not the content, which came from outside.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.raw().len())
    }
}

impl<'a> Value<'a> {
    fn node(&self) -> &'a Node {
        // INVARIANT: every index that a `Value` or an iterator holds is that of a node; the fallback is never used.
        self.tree.nodes.get(self.at).unwrap_or(&Node::NOWHERE)
    }

    /// The bytes of the value as they came.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw_str().as_bytes()
    }

    /// The text of the value as it came.
    #[must_use]
    pub fn raw_str(&self) -> &'a str {
        self.tree.raw(self.node())
    }

    /// The offset in the whole document's bytes at which the value starts.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.node().start as usize
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.node().shape, Shape::Null)
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        matches!(self.node().shape, Shape::Object { .. })
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        matches!(self.node().shape, Shape::Array { .. })
    }

    /// Whether it is a string.
    #[must_use]
    pub fn is_string(&self) -> bool {
        matches!(self.node().shape, Shape::Text | Shape::Escaped { .. })
    }

    /// Whether it is a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(self.node().shape, Shape::Number)
    }

    /// What kind of value it is, in words for a message: `an object`, `a string`, ….
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.node().shape {
            Shape::Array { .. } => "an array",
            Shape::Bool(_) => "a boolean",
            Shape::Escaped { .. } | Shape::Text => "a string",
            Shape::Null => "null",
            Shape::Number => "a number",
            Shape::Object { .. } => "an object",
        }
    }

    /// The string's text, escapes decoded.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        self.is_string().then(|| self.tree.decoded(self.node()))
    }

    /// The boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.node().shape {
            Shape::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The number if it is exactly an integer of 64 bits, however it is written: `100` is also `1e2` and `100.0`.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if self.is_number() { number::to_i64(self.raw_str()) } else { None }
    }

    /// The nearest double to the number, unless that is infinite.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        if self.is_number() { number::to_f64(self.raw_str()) } else { None }
    }

    /// How many members or elements it has; 0 for anything but an object or array.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.node().shape {
            Shape::Array { count, .. } | Shape::Object { count, .. } => count as usize,
            Shape::Bool(_) | Shape::Escaped { .. } | Shape::Null | Shape::Number | Shape::Text => 0,
        }
    }

    /// Whether it has no members or elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The object's members in the order in which they were written, names decoded; none for anything but an object.
    #[must_use]
    pub fn members(&self) -> Members<'a> {
        let left = if self.is_object() { self.len() } else { 0 };
        Members { tree: self.tree, next: self.at + 1, left }
    }

    /// The same with the names as values too, which know where they stand.
    pub fn members_with_names(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> {
        let mut members = self.members();
        std::iter::from_fn(move || members.next_pair())
    }

    /// The array's elements; none for anything but an array.
    #[must_use]
    pub fn elements(&self) -> Elements<'a> {
        let left = if self.is_array() { self.len() } else { 0 };
        Elements { tree: self.tree, next: self.at + 1, left }
    }

    /// The member of that name, if it is an object and has one. Looks at one member after the other.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.members().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Follows names into objects.
    #[must_use]
    pub fn path(&self, keys: &[&str]) -> Option<Value<'a>> {
        keys.iter().try_fold(*self, |value, key| value.get(key))
    }

    /// The value as a document of its own, which shares text with this one.
    #[must_use]
    pub fn to_document(&self) -> Document {
        Document { tree: Arc::clone(self.tree), at: self.at }
    }

    /// The value for libraries that know only `serde_json`. A number that no double can hold becomes a string of its
    /// digits, so that whoever expects a number refuses it.
    #[must_use]
    pub fn to_serde(&self) -> serde_json::Value {
        match self.node().shape {
            Shape::Array { .. } => self.elements().map(|value| value.to_serde()).collect(),
            Shape::Bool(value) => value.into(),
            Shape::Escaped { .. } | Shape::Text => self.tree.decoded(self.node()).into(),
            Shape::Null => serde_json::Value::Null,
            Shape::Number => number::to_serde(self.raw_str()),
            Shape::Object { .. } => {
                self.members().map(|(key, value)| (key.to_owned(), value.to_serde())).collect()
            }
        }
    }
}

/// The members of an object; made by [`Value::members`].
#[derive(Debug, Clone)]
pub struct Members<'a> {
    tree: &'a Arc<Tree>,
    next: usize,
    left: usize,
}

impl<'a> Members<'a> {
    /// The next member, its name as a value too.
    fn next_pair(&mut self) -> Option<(Value<'a>, Value<'a>)> {
        self.left = self.left.checked_sub(1)?;
        let key = Value { tree: self.tree, at: self.next };
        let value = Value { tree: self.tree, at: self.next + 1 };
        self.next = value.node().after(value.at);
        Some((key, value))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_pair().map(|(key, value)| (key.tree.decoded(key.node()), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// The elements of an array; made by [`Value::elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    tree: &'a Arc<Tree>,
    next: usize,
    left: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let value = Value { tree: self.tree, at: self.next };
        self.next = value.node().after(value.at);
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
