//! Taking out what may not leave: secrets that are known, secrets that look like some, and personal data.
//!
//! What looks for something is a [`Detect`]. A [`Scrubber`] asks its detectors where something is, puts a token in its
//! place, and counts. It works on plain bytes, on JSON (which stays JSON) and on streams.

mod bits;
pub mod detect;
mod json;
pub mod known;
mod pii;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use stream::{Events, Stream};

/// Came from outside and was not looked at yet. Never printed, cloned or logged.
pub struct Raw<T>(T);

impl<T> Raw<T> {
    /// Marks a value as coming from outside.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Asks something about it that says nothing of what is in it, such as how large it is.
    pub fn is(&self, ask: impl FnOnce(&T) -> bool) -> bool {
        ask(&self.0)
    }

    /// Cleans it; the only way to a [`Scrubbed`] value.
    ///
    /// # Errors
    /// It may not be shown at all, as `clean` says.
    pub fn scrub<U, E>(
        self,
        scrubber: &Scrubber,
        clean: impl FnOnce(T, &Scrubber) -> Result<U, E>,
    ) -> Result<Scrubbed<U>, E> {
        clean(self.0, scrubber).map(Scrubbed)
    }
}

impl<T> fmt::Debug for Raw<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw(not shown)")
    }
}

/// It was cleaned: it may be shown to the agent.
#[derive(Debug, Clone)]
pub struct Scrubbed<T>(T);

impl<T> Scrubbed<T> {
    /// The value.
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// Gives the value out.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A rule of the configuration, by its number there.
    Custom(u32),
    /// Something that a detector knows the look of, by the name of the kind: `github-token`, `pii.card`.
    Detected(&'static str),
    /// A value that the vault holds or lent, by the number under which it was given to the scrubber.
    Known(u32),
    /// Something that could not be looked into, by the reason: `xz`, `too-large`.
    Opaque(&'static str),
}

/// Where something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The bytes that must go.
    pub range: Range<usize>,
    /// What they are.
    pub kind: Kind,
}

/// What is known about a text from the place where it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// The name of the JSON member whose value it is; for an element of an array, that of the array.
    pub key: Option<&'a str>,
    /// The value of a member beside it that says what it is: in `{"name":"token","value":"…"}`, `token` for the value.
    pub sibling: Option<&'a str>,
}

/// Why a text cannot be looked through to the end. It is withheld then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// Looking would take more than its share of time or memory.
    #[error("the text takes more work to look through than its size allows for")]
    TooMuch,
    /// A stream has no place where it could be cut.
    #[error("the stream goes on too long without a place where it could be cut")]
    Unsettled,
}

/// What was looked at so far, of several texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// How long they are.
    pub bytes: usize,
    /// How much was looked at in them, beyond reading them once.
    pub work: usize,
}

/// Looks for something in a text. It owes an answer in linear time, the same for the same text, and never panics.
pub trait Detect: Send + Sync {
    /// Adds what it finds; the order does not matter, and ranges may overlap.
    ///
    /// # Errors
    /// [`Withheld`] if it cannot say.
    fn find(&self, text: &[u8], place: &Place<'_>, found: &mut Vec<Found>) -> Result<(), Withheld>;

    /// As [`find`](Self::find), in one of many texts that belong together, and that together may not cost more than one text of their
    /// length. `looked` begins as nothing and is passed on from one to the next.
    ///
    /// # Errors
    /// As there.
    fn find_next(
        &self,
        text: &[u8],
        place: &Place<'_>,
        found: &mut Vec<Found>,
        _looked: &mut Looked,
    ) -> Result<(), Withheld> {
        self.find(text, place, found)
    }

    /// Whether it looks through all strings of a document as one text, in which each is a line: it finds what is split
    /// over several, and does not care where one stands. Others get each string, number and name by itself.
    fn across(&self) -> bool {
        false
    }

    /// Up to where a text that goes on can be given out: nothing that ends behind its end begins before. Here, the last
    /// line but one that is far enough from the end for most things.
    ///
    /// # Errors
    /// [`Withheld`] if it cannot say.
    fn settled(&self, text: &[u8]) -> Result<usize, Withheld> {
        const FAR: usize = 8 << 10;
        let far = text.len().saturating_sub(FAR);
        let head = text.get(..far).unwrap_or_default();
        Ok(head.iter().rposition(|b| *b == b'\n').map_or(far, |at| at + 1))
    }

    /// Whether a text ends like the beginning of what it looks for.
    fn may_begin(&self, _text: &[u8]) -> bool {
        false
    }
}

/// Gives the token that stands for something from now on. It never holds the value, and is the same for the same
/// value. For [`Kind::Known`] and [`Kind::Opaque`] the bytes are empty, since one value is found in many spellings.
pub type Tokens = dyn Fn(Kind, &[u8]) -> String + Send + Sync;

/// How many of each kind were taken out.
pub type Removed = BTreeMap<Kind, usize>;

/// What is left of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// The bytes without what was found.
    pub bytes: Vec<u8>,
    /// What was found.
    pub removed: Removed,
}

/// Detectors, and what to put in place of what they find.
#[derive(Clone)]
pub struct Scrubber {
    detectors: Vec<Arc<dyn Detect>>,
    tokens: Arc<Tokens>,
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrubber({} detectors)", self.detectors.len())
    }
}

impl Scrubber {
    /// A scrubber with these detectors. Where two find something in the same place, the earlier one says what it is.
    #[must_use]
    pub fn new(detectors: Vec<Arc<dyn Detect>>, tokens: Arc<Tokens>) -> Self {
        Self { detectors, tokens }
    }

    /// Whether it looks for nothing at all.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.detectors.is_empty()
    }

    /// Cleans a text that is no JSON.
    ///
    /// # Errors
    /// The text could not be looked through.
    pub fn scrub_text(&self, text: &[u8]) -> Result<Cleaned, Withheld> {
        let mut removed = Removed::new();
        let found = self.find(text, &Place::default())?;
        let bytes = self.replace(text, &found, &mut removed);
        Ok(Cleaned { bytes, removed })
    }

    fn may_begin(&self, text: &[u8]) -> bool {
        self.detectors.iter().any(|detector| detector.may_begin(text))
    }

    /// What all detectors find, in order and without overlaps.
    fn find(&self, text: &[u8], place: &Place<'_>) -> Result<Vec<Found>, Withheld> {
        let mut ranked = Vec::new();
        let mut found = Vec::new();
        for (rank, detector) in self.detectors.iter().enumerate() {
            detector.find(text, place, &mut found)?;
            ranked.extend(found.drain(..).filter(|found| !found.range.is_empty()).map(|found| (rank, found)));
        }
        Ok(without_overlaps(ranked))
    }

    /// What stands for something from now on.
    fn token(&self, kind: Kind, bytes: &[u8]) -> String {
        match kind {
            Kind::Custom(_) | Kind::Detected(_) => (self.tokens)(kind, bytes),
            Kind::Known(_) | Kind::Opaque(_) => (self.tokens)(kind, &[]),
        }
    }

    fn replace(&self, text: &[u8], found: &[Found], removed: &mut Removed) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut from = 0;
        for Found { range, kind } in found {
            out.extend_from_slice(text.get(from..range.start).unwrap_or_default());
            out.extend_from_slice(self.token(*kind, text.get(range.clone()).unwrap_or_default()).as_bytes());
            *removed.entry(*kind).or_default() += 1;
            from = range.end;
        }
        out.extend_from_slice(text.get(from..).unwrap_or_default());
        out
    }
}

/// Joins what overlaps. The whole is called what the best ranked part is; among equals, the first.
fn without_overlaps(mut ranked: Vec<(usize, Found)>) -> Vec<Found> {
    ranked.sort_by(|(rank, a), (other, b)| {
        (a.range.start, *rank, b.range.end).cmp(&(b.range.start, *other, a.range.end))
    });
    let mut joined: Vec<(usize, Found)> = Vec::with_capacity(ranked.len());
    for (rank, found) in ranked {
        match joined.last_mut() {
            Some((best, last)) if found.range.start < last.range.end => {
                last.range.end = last.range.end.max(found.range.end);
                if rank < *best {
                    (*best, last.kind) = (rank, found.kind);
                }
            }
            _ => joined.push((rank, found)),
        }
    }
    joined.into_iter().map(|(_, found)| found).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod known_tests;

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds each occurrence of a word.
    struct Word(&'static str, Kind);

    impl Detect for Word {
        fn find(&self, text: &[u8], _: &Place<'_>, found: &mut Vec<Found>) -> Result<(), Withheld> {
            let width = self.0.len();
            let starts = (0..text.len()).filter(|at| text[*at..].starts_with(self.0.as_bytes()));
            found.extend(starts.map(|at| Found { range: at..at + width, kind: self.1 }));
            Ok(())
        }
    }

    fn scrubber(words: &[(&'static str, Kind)]) -> Scrubber {
        let detectors = words.iter().map(|(word, kind)| Arc::new(Word(word, *kind)) as Arc<dyn Detect>);
        Scrubber::new(
            detectors.collect(),
            Arc::new(|kind, bytes| format!("<{kind:?} {}>", String::from_utf8_lossy(bytes))),
        )
    }

    #[test]
    fn what_is_found_is_replaced_and_counted() {
        let scrubber = scrubber(&[("abc", Kind::Known(7)), ("bcd", Kind::Detected("word"))]);
        for (text, want, count) in [
            ("nothing", "nothing", 0),
            ("abc", "<Known(7) >", 1),
            ("xabcx bcd", "x<Known(7) >x <Detected(\"word\") bcd>", 2),
            ("abcd", "<Known(7) >", 1),
            ("abcabc", "<Known(7) ><Known(7) >", 2),
        ] {
            let cleaned = scrubber.scrub_text(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(cleaned.bytes).unwrap(), want, "text: {text:?}");
            assert_eq!(cleaned.removed.values().sum::<usize>(), count, "text: {text:?}");
        }
    }

    #[test]
    fn the_better_rank_names_what_overlaps() {
        let scrubber = scrubber(&[("bcd", Kind::Known(1)), ("abc", Kind::Known(2))]);
        assert_eq!(scrubber.scrub_text(b"abcd").unwrap().bytes, b"<Known(1) >");
    }
}
