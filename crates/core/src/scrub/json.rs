//! JSON without what may not leave, and still JSON.
//!
//! What counts is what strings say, not how they are written: they are looked through decoded. What was split over
//! members or elements is found too, since all of them are looked through one after the other as one text. A string that is JSON
//! itself is taken apart in the same way, and so on. What is left alone goes on byte for byte.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};

use crate::json::{Document, Limits, Value, quote};

use super::bits::{self, sextet};
use super::{Cleaned, Found, Looked, Place, Removed, Scrubber, Withheld, without_overlaps};

/// How often JSON lies in a string of JSON.
const NESTED: usize = 4;
/// A value that is longer is not looked for beside the name of its member.
const BESIDE: usize = 128;
/// How many bytes of base64 are looked into.
const BLOB: usize = 16;

impl Scrubber {
    /// Cleans a JSON document. The order of members stays, and a name that becomes a token stays different from others.
    ///
    /// # Errors
    /// The document could not be looked through.
    pub fn scrub_json(&self, document: &Document) -> Result<Cleaned, Withheld> {
        let mut removed = Removed::new();
        let batch = Batch::new(vec![Piece::Json(document.clone())]);
        let bytes = self.scrub_batch(&batch, &mut removed)?.pop().unwrap_or_default();
        Ok(Cleaned { bytes, removed })
    }

    /// Cleans documents that belong together: what is split over them is found.
    pub(super) fn scrub_batch(&self, batch: &Batch, removed: &mut Removed) -> Result<Vec<Vec<u8>>, Withheld> {
        let mut edits = Edits::new();
        let mut found = Vec::new();
        let (across, single): (Vec<_>, Vec<_>) =
            self.detectors.iter().enumerate().partition(|(_, detector)| detector.across());
        for (rank, detector) in across {
            let (values, members) = batch.texts();
            for text in [values, members] {
                detector.find(&text.bytes, &Place::default(), &mut found)?;
                found.drain(..).for_each(|found| text.distribute(&found, rank, &mut edits));
            }
        }
        if !single.is_empty() {
            let mut withheld = None;
            let mut looked = vec![Looked::default(); single.len()];
            batch.walk(&mut |ordinal, leaf| {
                let place = Place { key: leaf.key, sibling: leaf.sibling };
                let packed = packed(&leaf);
                for ((rank, detector), looked) in single.iter().zip(&mut looked) {
                    if withheld.is_some() {
                        return;
                    }
                    withheld = detector.find_next(leaf.text.as_bytes(), &place, &mut found, looked).err();
                    if let Some(bytes) = &packed {
                        let first = found.len();
                        let inside = detector.find_next(bytes, &Place::default(), &mut found, looked);
                        withheld = withheld.or(inside.err());
                        // Where in the text it stands does not matter: all of it is unpacked and cleaned.
                        found.iter_mut().skip(first).for_each(|found| found.range = 0..leaf.text.len());
                    }
                    let edit = |found| (*rank, Edit { found, goes_on: false });
                    if !found.is_empty() {
                        edits.entry(ordinal).or_default().extend(found.drain(..).map(edit));
                    }
                }
            });
            withheld.map_or(Ok(()), Err)?;
        }
        let mut texts = BTreeMap::new();
        let mut withheld = None;
        if !edits.is_empty() {
            batch.walk(&mut |ordinal, leaf| {
                if let Some(edits) = edits.remove(&ordinal) {
                    match self.edited(&leaf, edits, removed) {
                        Ok(text) => _ = texts.insert(ordinal, text),
                        Err(why) => withheld = Some(why),
                    }
                }
            });
        }
        withheld.map_or(Ok(()), Err)?;
        Ok(batch.rebuild(&texts))
    }

    /// What becomes of the text of a leaf.
    fn edited(
        &self,
        leaf: &Leaf<'_>,
        edits: Vec<(usize, Edit)>,
        removed: &mut Removed,
    ) -> Result<String, Withheld> {
        if let Some(bytes) = packed(leaf) {
            let inner = self.scrub_text(&bytes)?;
            if inner.bytes != bytes {
                inner
                    .removed
                    .into_iter()
                    .for_each(|(kind, count)| *removed.entry(kind).or_default() += count);
                return Ok(base64(&inner.bytes));
            }
        }
        // What began in another leaf has its token there.
        let rests: Vec<usize> =
            edits.iter().filter(|(_, edit)| edit.goes_on).map(|(_, edit)| edit.found.range.end).collect();
        let found = without_overlaps(edits.into_iter().map(|(rank, edit)| (rank, edit.found)).collect());
        let mut out = String::with_capacity(leaf.text.len());
        let mut from = 0;
        for found in found {
            // Ranges of bytes may cut a character in two; then all of it goes.
            let start = floor(leaf.text, found.range.start).max(from);
            let end = ceiling(leaf.text, found.range.end);
            out.push_str(leaf.text.get(from..start).unwrap_or_default());
            let is_rest = found.range.start == 0 && rests.contains(&found.range.end);
            if !is_rest {
                out.push_str(
                    &self.token(found.kind, leaf.text.as_bytes().get(start..end).unwrap_or_default()),
                );
                *removed.entry(found.kind).or_default() += 1;
            }
            from = end.max(from);
        }
        out.push_str(leaf.text.get(from..).unwrap_or_default());
        Ok(out)
    }
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

fn ceiling(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// What becomes of a part of a leaf.
struct Edit {
    found: Found,
    /// Whether it began in a leaf before.
    goes_on: bool,
}

/// For leaves, by their number: what becomes of parts of them, and who says so.
type Edits = BTreeMap<u32, Vec<(usize, Edit)>>;

/// A document, or a text that is none.
pub(super) enum Piece {
    Json(Document),
    Text(String),
}

/// Pieces with what their leaves say. A leaf is known by how many come before it, so that it needs no memory of its own.
pub(super) struct Batch {
    pieces: Vec<Piece>,
    /// All values in their order; and all names, each with its value if that is short. Once somebody asks for them.
    texts: OnceCell<(Text, Text)>,
}

/// A name, string or number.
#[derive(Clone, Copy)]
struct Leaf<'a> {
    text: &'a str,
    key: Option<&'a str>,
    sibling: Option<&'a str>,
    /// Of a name, which object it belongs to.
    object: Option<usize>,
    /// Where it stands in the bytes of its document.
    from: usize,
    to: usize,
}

/// Texts of many leaves as one.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    /// Where each leaf's text begins, and which leaf it is.
    starts: Vec<(u32, u32)>,
}

impl Text {
    fn add(&mut self, leaf: u32, text: &str) {
        // INVARIANT: a document has less than 2^30 bytes, and its leaves have no more.
        self.starts.push((u32::try_from(self.bytes.len()).unwrap_or(u32::MAX), leaf));
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(b'\n');
    }

    /// Tells each leaf of which a part was found.
    fn distribute(&self, found: &Found, rank: usize, edits: &mut Edits) {
        let first =
            self.starts.partition_point(|(start, _)| *start as usize <= found.range.start).saturating_sub(1);
        let mut goes_on = false;
        for (place, (start, leaf)) in self.starts.iter().enumerate().skip(first) {
            let start = *start as usize;
            if start >= found.range.end {
                break;
            }
            // The line end behind each text is nobody's.
            let next = self.starts.get(place + 1).map_or(self.bytes.len(), |(next, _)| *next as usize);
            let end = next.saturating_sub(1).max(start);
            let range =
                found.range.start.clamp(start, end) - start..found.range.end.clamp(start, end) - start;
            if range.is_empty() {
                continue;
            }
            let edit = Edit { found: Found { range, kind: found.kind }, goes_on };
            edits.entry(*leaf).or_default().push((rank, edit));
            goes_on = true;
        }
    }
}

impl Batch {
    pub(super) const fn new(pieces: Vec<Piece>) -> Self {
        Self { pieces, texts: OnceCell::new() }
    }

    fn texts(&self) -> &(Text, Text) {
        self.texts.get_or_init(|| self.joined())
    }

    fn joined(&self) -> (Text, Text) {
        let (mut values, mut members) = (Text::default(), Text::default());
        let mut after_name = false;
        self.walk(&mut |ordinal, leaf| {
            if leaf.object.is_some() {
                members.add(ordinal, leaf.text);
            } else {
                values.add(ordinal, leaf.text);
                if after_name && leaf.text.len() <= BESIDE {
                    members.add(ordinal, leaf.text);
                }
            }
            after_name = leaf.object.is_some();
        });
        (values, members)
    }

    /// All values, each in a line.
    pub(super) fn values(&self) -> &[u8] {
        &self.texts().0.bytes
    }

    /// Visits all leaves, with their numbers. A string that is a document is none, but has some.
    fn walk(&self, visit: &mut dyn FnMut(u32, Leaf<'_>)) {
        let mut ordinal = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Json(document) => walk_nested(document, 0, &mut |leaf| {
                    visit(ordinal, leaf);
                    ordinal += 1;
                }),
                Piece::Text(text) => {
                    visit(
                        ordinal,
                        Leaf { text, key: None, sibling: None, object: None, from: 0, to: text.len() },
                    );
                    ordinal += 1;
                }
            }
        }
    }

    /// The pieces with new texts for some of their leaves.
    fn rebuild(&self, texts: &BTreeMap<u32, String>) -> Vec<Vec<u8>> {
        let mut ordinal = 0;
        let rebuilt = self.pieces.iter().map(|piece| match piece {
            Piece::Json(document) if texts.is_empty() => document.bytes().to_vec(),
            Piece::Json(document) => rebuild(document, 0, &mut ordinal, texts),
            Piece::Text(text) => {
                ordinal += 1;
                texts.get(&(ordinal - 1)).unwrap_or(text).as_bytes().to_vec()
            }
        });
        rebuilt.collect()
    }
}

fn walk_nested(document: &Document, depth: usize, visit: &mut dyn FnMut(Leaf<'_>)) {
    walk(document, &mut |leaf| match nested(&leaf, depth) {
        Some(inner) => walk_nested(&inner, depth + 1, visit),
        None => visit(leaf),
    });
}

/// Visits names, strings and numbers in the order in which they stand there.
fn walk(document: &Document, visit: &mut dyn FnMut(Leaf<'_>)) {
    let root = document.root();
    // Of a whole document, what stands around the value is among its bytes.
    let offset = if document.bytes().len() == root.raw().len() { root.offset() } else { 0 };
    Walk { offset, objects: 0, visit }.value(root, None, None);
}

struct Walk<'w> {
    offset: usize,
    objects: usize,
    visit: &'w mut dyn FnMut(Leaf<'_>),
}

impl Walk<'_> {
    /// Visits what is in a value; it is no deeper than documents may be.
    fn value(&mut self, value: Value<'_>, key: Option<&str>, sibling: Option<&str>) {
        if value.is_object() {
            const SAYS: [&str; 7] = ["name", "key", "field", "header", "label", "type", "id"];
            let says = value.members().filter_map(|(name, member)| {
                let rank = SAYS.iter().position(|says| *says == name)?;
                Some((rank, (name, member.as_str()?)))
            });
            let sibling = says.min_by_key(|(rank, _)| *rank).map(|(_, says)| says);
            let object = self.objects;
            self.objects += 1;
            for (name, member) in value.members_with_names() {
                self.leaf(name, None, None, Some(object));
                let text = name.as_str().unwrap_or_default();
                let beside = sibling.filter(|(name, _)| *name != text).map(|(_, says)| says);
                self.value(member, Some(text), beside);
            }
        } else if value.is_array() {
            for element in value.elements() {
                self.value(element, key, sibling);
            }
        } else if value.is_number() || value.is_string() {
            self.leaf(value, key, sibling, None);
        }
    }

    fn leaf(&mut self, value: Value<'_>, key: Option<&str>, sibling: Option<&str>, object: Option<usize>) {
        let from = value.offset() - self.offset;
        let text = value.as_str().unwrap_or(value.raw_str());
        (self.visit)(Leaf { text, key, sibling, object, from, to: from + value.raw().len() });
    }
}

/// The document that a string is.
fn nested(leaf: &Leaf<'_>, depth: usize) -> Option<Document> {
    let begins = matches!(leaf.text.trim_start().as_bytes().first(), Some(b'{' | b'[' | b'"'));
    if depth >= NESTED || !begins || leaf.object.is_some() || leaf.text.len() < 4 {
        return None;
    }
    Document::parse(leaf.text.as_bytes(), &Limits::default()).ok()
}

fn rebuild(document: &Document, depth: usize, ordinal: &mut u32, texts: &BTreeMap<u32, String>) -> Vec<u8> {
    let bytes = document.bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut from = 0;
    let mut names: Option<HashSet<(usize, String)>> = None;
    walk(document, &mut |leaf| {
        let new = if let Some(inner) = nested(&leaf, depth) {
            let new = rebuild(&inner, depth + 1, ordinal, texts);
            // INVARIANT: it is made of whole characters, so nothing is lost.
            (new != inner.bytes()).then(|| String::from_utf8_lossy(&new).into_owned())
        } else {
            let new = texts.get(ordinal);
            *ordinal += 1;
            match (new, leaf.object) {
                (Some(new), Some(object)) => {
                    Some(unique(new, object, names.get_or_insert_with(|| all_names(document))))
                }
                (new, _) => new.cloned(),
            }
        };
        if let Some(new) = new {
            out.extend_from_slice(bytes.get(from..leaf.from).unwrap_or_default());
            out.extend_from_slice(quote(&new).as_bytes());
            from = leaf.to;
        }
    });
    out.extend_from_slice(bytes.get(from..).unwrap_or_default());
    out
}

/// The names that there are, with the object in which they are.
fn all_names(document: &Document) -> HashSet<(usize, String)> {
    let mut names = HashSet::new();
    walk(document, &mut |leaf| {
        names.extend(leaf.object.map(|object| (object, leaf.text.to_owned())));
    });
    names
}

/// A name that the object does not have yet.
fn unique(name: &str, object: usize, names: &mut HashSet<(usize, String)>) -> String {
    let numbered = (2_usize..).map(|n| format!("{name}~{n}"));
    for name in std::iter::once(name.to_owned()).chain(numbered) {
        if names.insert((object, name.clone())) {
            return name;
        }
    }
    name.to_owned()
}

/// What is packed into a string, where members are that MCP has for it.
fn packed(leaf: &Leaf<'_>) -> Option<Vec<u8>> {
    matches!(leaf.key, Some("blob" | "data")).then(|| unbase64(leaf.text)).flatten()
}

/// What a string says if it is base64 and nothing else; as lenient as decoders are that agents use.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    if text.len() < BLOB {
        return None;
    }
    let digits = text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=').map(sextet);
    let digits: Option<Vec<u8>> = digits.collect();
    Some(bits::bytes(digits?.into_iter(), 6))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut number = 0_u32;
        for at in 0..3 {
            number = number << 8 | u32::from(group.get(at).copied().unwrap_or_default());
        }
        for at in 0..4 {
            let digit = DIGITS.get((number >> (18 - 6 * at) & 63) as usize).copied().unwrap_or_default();
            out.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}
