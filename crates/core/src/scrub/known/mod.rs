//! Finding values that are known, however they are written.
//!
//! Nobody lists all the ways in which a text can be written, so most are undone rather than listed. A text is looked
//! through in these ways, each of which gives the places in the text as it came:
//!
//! 1. *Folded* (`fold`): without case, width, separators and what cannot be seen. In it, the value is looked for in some
//!    120 spellings (`forms`), all at once (`grams`).
//! 2. *Layer by layer* (`unescape`): percent signs, backslashes, HTML, terminal codes are taken off, until there are
//!    none, and each layer is folded too. Lines without what stands before them (`lines`) are one more reading.
//! 3. *Runs* (`runs`): what is base64, hexadecimal or compressed is decoded and looked through in all these ways.
//!
//! All of it takes time in proportion to the length of the text, which a budget makes sure of: a text that needs more is
//! withheld. The values themselves are not kept, only hashes of their spellings.

mod fold;
mod forms;
mod grams;
mod lines;
mod runs;
mod unescape;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use zeroize::Zeroizing;

use super::{Detect, Found, Kind, Place, Withheld};
use fold::{Folded, Keep, fold};
use forms::{Extent, forms};
use grams::{BEGINNING, Beginnings, GRAM, Grams, Meant, Pattern};
use runs::{Inflate, Packing, Run, Unpacked};
use unescape::{Derived, Syntax, WayBack, unescape};

/// A value to look for.
#[derive(Clone, Copy)]
pub struct KnownValue<'a> {
    /// The number under which it is reported, see [`Kind::Known`].
    pub id: u32,
    /// The value itself.
    pub value: &'a [u8],
    /// The names under which it is spoken of, and the hosts it is for. A value that is too short to be told from anything
    /// else is found behind one of the names and before one of the hosts only.
    pub names: &'a [&'a str],
}

impl fmt::Debug for KnownValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KnownValue({})", self.id)
    }
}

/// What the owner of a value should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Concern {
    /// It is too short.
    #[error("the value has fewer than 8 letters and signs, so it is removed only beside its name or host")]
    OnlyBesideItsName,
    /// It is a word.
    #[error(
        "the value looks like a word: wherever that word occurs it is removed, and parts of other words are not"
    )]
    Word,
    /// It is too short, and has no name that would help.
    #[error(
        "the value has fewer than 8 letters and signs and no name long enough to tell it by, so it is not removed"
    )]
    NotRemoved,
}

/// Values that must not leave. Holds hashes of their spellings and not the values, and wipes these when dropped.
pub struct Known {
    alphanumeric: Grams,
    graphic: Grams,
    digits: Grams,
    beginnings: Beginnings,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Known({} bytes)", self.size())
    }
}

/// What is shorter could be anything.
const SHORTEST: usize = 8;
/// A longer value is looked for in parts of [`PART`] bytes.
const LONG: usize = 144;
const PART: usize = 96;
/// Above it, not even the plain form is looked for as a whole, only its parts.
const LONGEST_WHOLE: usize = 16 << 10;
/// A half of a value with so many letters and digits is taken out too.
const HALF: usize = 12;
/// The longest text: offsets have 31 bits.
const LONGEST: usize = (1 << 30) - 1;
/// How many layers of escapes are taken off, and how often something is decoded within something decoded.
const LAYERS: usize = 6;
const DEPTH: usize = 4;
/// The most that one stretch may become when unpacked.
const UNPACKED: usize = 1 << 20;

impl Known {
    /// Gets ready to look for the values. Says of each with which there is a problem what it is.
    #[must_use]
    pub fn new(values: &[KnownValue<'_>]) -> (Self, Vec<(u32, Concern)>) {
        let mut patterns = Patterns::default();
        let mut concerns = Vec::new();
        for value in values {
            concerns.extend(patterns.add(value).map(|concern| (value.id, concern)));
        }
        let known = Self {
            alphanumeric: Grams::new(&patterns.alphanumeric),
            graphic: Grams::new(&patterns.graphic),
            digits: Grams::new(&patterns.digits),
            beginnings: Beginnings::new(&patterns.beginnings),
        };
        (known, concerns)
    }

    /// How many bytes of memory it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.alphanumeric.size() + self.graphic.size() + self.digits.size()
    }

    /// The most letters, digits and signs that a value has in the longest spelling.
    #[must_use]
    pub fn width(&self) -> usize {
        self.alphanumeric.longest().max(self.graphic.longest()).max(self.digits.longest())
    }
}

impl Detect for Known {
    fn find(&self, text: &[u8], _: &Place<'_>, found: &mut Vec<Found>) -> Result<(), Withheld> {
        if text.len() > LONGEST {
            return Err(Withheld::TooMuch);
        }
        let mut scan = Scan {
            known: self,
            work: 16 * text.len() + (1 << 20),
            budget: 8 * text.len() + (2 << 20),
            is_guess: false,
            unpack: None,
        };
        found.extend(scan.look(text, 0)?);
        Ok(())
    }

    fn across(&self) -> bool {
        true
    }

    fn settled(&self, text: &[u8]) -> Result<usize, Withheld> {
        /// Words between the numbers of a list are no part of a pattern.
        const BETWEEN: usize = 4;
        let width = BETWEEN * self.width();
        let mut settled = runs::open(text);
        let mut ways: Vec<WayBack> = Vec::new();
        let mut current = text.to_vec();
        for _ in 0..=LAYERS {
            let folded = Folded::new(&current, Keep::Alphanumeric);
            let Some(at) = folded.bytes.len().checked_sub(width) else { return Ok(0) };
            let at = folded.source(&current, at).0;
            settled = settled.min(ways.iter().rev().fold(at..at + 1, |range, way| way.range(range)).start);
            let Some(next) = unescape(&current, Syntax::Common) else { break };
            let (bytes, way_back) = next.into_parts();
            ways.push(way_back);
            current = bytes;
        }
        // What stands before a line is read with it.
        let head = text.get(..settled).unwrap_or_default();
        Ok(head.iter().rposition(|b| *b == b'\n').map_or(settled, |at| at + 1))
    }

    fn may_begin(&self, text: &[u8]) -> bool {
        let tail = text.get(text.len().saturating_sub(4 << 10)..).unwrap_or_default();
        let folded = fold(tail, Keep::Alphanumeric);
        let longest = self.beginnings.longest().min(folded.len());
        (BEGINNING..=longest)
            .any(|length| folded.get(folded.len() - length..).is_some_and(|end| self.beginnings.has(end)))
    }
}

#[derive(Default)]
struct Patterns {
    alphanumeric: Vec<Pattern>,
    graphic: Vec<Pattern>,
    digits: Vec<Pattern>,
    /// What is looked for at the end of an event, since the rest may come with the next.
    beginnings: Vec<Zeroizing<Vec<u8>>>,
}

impl Patterns {
    fn add(&mut self, known: &KnownValue<'_>) -> Option<Concern> {
        let value = known.value;
        let plain = Zeroizing::new(fold(value, Keep::Alphanumeric));
        let graphic = Zeroizing::new(fold(value, Keep::Graphic));
        if graphic.len() < SHORTEST {
            return Some(self.beside_names(known, &graphic));
        }
        let is_word = graphic.iter().all(u8::is_ascii_alphabetic) && graphic.len() < 2 * SHORTEST;
        let meant =
            Meant { secret: known.id, extent: Extent::Exact, before: 0, behind: 0, whole_word: is_word };
        self.plain(value, meant);
        if value.len() > LONG {
            for part in parts(value) {
                let is_inside = Meant { whole_word: false, ..meant };
                self.plain(part, is_inside);
                self.spellings(part, known.id);
            }
            self.lines(value, known.id);
        } else {
            self.spellings(value, known.id);
        }
        self.halves(value, &plain, known.id);
        self.beginnings.push(plain);
        is_word.then_some(Concern::Word)
    }

    /// The value as it is, and at each layer of the escapes that it seems to have.
    fn plain(&mut self, value: &[u8], meant: Meant) {
        let mut current = Zeroizing::new(value.to_vec());
        for _ in 0..LAYERS {
            let plain = Zeroizing::new(fold(&current, Keep::Alphanumeric));
            let graphic = Zeroizing::new(fold(&current, Keep::Graphic));
            // Without its separators, `pass-word` is a word, which stands in any text.
            let is_weak = plain.len() < GRAM
                || plain.len() < 12 && plain.len() < graphic.len() && !plain.iter().any(u8::is_ascii_digit);
            if is_weak && graphic.len() <= LONGEST_WHOLE {
                self.graphic.push(Pattern { text: graphic, meant });
            } else if !is_weak && plain.len() <= LONGEST_WHOLE {
                self.alphanumeric.push(Pattern { text: plain, meant });
            }
            match unescape(&current, Syntax::Common) {
                Some(next) => current = Zeroizing::new(next.into_parts().0),
                None => break,
            }
        }
    }

    fn spellings(&mut self, value: &[u8], secret: u32) {
        // For such a value, what is left with punctuation is looked through in any case.
        let is_weak = fold(value, Keep::Alphanumeric).len() < GRAM;
        for form in forms(value) {
            let meant = Meant { secret, extent: form.extent, before: 0, behind: 0, whole_word: false };
            if form.digits {
                let text = Zeroizing::new(fold(&form.text, Keep::Digits));
                if text.len() >= 2 * GRAM {
                    self.digits.push(Pattern { text, meant });
                }
                continue;
            }
            let text = Zeroizing::new(fold(&form.text, Keep::Alphanumeric));
            if text.len() >= GRAM {
                self.alphanumeric.push(Pattern { text, meant });
            } else if is_weak {
                let text = Zeroizing::new(fold(&form.text, Keep::Graphic));
                self.graphic.push(Pattern { text, meant });
            }
        }
    }

    /// Each line of a value that has several.
    fn lines(&mut self, value: &[u8], secret: u32) {
        let is_frame = |line: &&[u8]| line.starts_with(b"-----");
        let has_frame = value.starts_with(b"-----");
        // The first line of a key in a frame says what kind of key it is, and is the same for many.
        let lines = value.split(|b| matches!(b, b'\n' | b'\r')).filter(|line| !line.is_empty());
        for line in lines.filter(|line| !is_frame(line)).skip(usize::from(has_frame)) {
            let text = Zeroizing::new(fold(line, Keep::Alphanumeric));
            if text.len() >= 2 * GRAM && text.iter().any(u8::is_ascii_digit) {
                let meant = Meant { secret, extent: Extent::Exact, before: 0, behind: 0, whole_word: false };
                self.alphanumeric.push(Pattern { text, meant });
            }
        }
    }

    /// Both halves of a value that looks like chance made it: of others, one half may be no secret.
    fn halves(&mut self, value: &[u8], plain: &[u8], secret: u32) {
        let is_token = value.iter().all(|b| runs::in_run(*b) || matches!(b, b'=' | b'.' | b'~'))
            && !value.starts_with(b"eyJ")
            && value.len() <= LONG;
        let middle = plain.len() / 2;
        let (first, second) = plain.split_at(middle);
        for half in [first.get(..middle.saturating_sub(1)), second.get(1..)].into_iter().flatten() {
            let digits = half.iter().filter(|b| b.is_ascii_digit()).count();
            let mut kinds = Zeroizing::new(half.to_vec());
            kinds.sort_unstable();
            kinds.dedup();
            if is_token && half.len() >= HALF && digits > 1 && kinds.len() >= 8 {
                let meant = Meant { secret, extent: Extent::Exact, before: 0, behind: 0, whole_word: false };
                self.alphanumeric.push(Pattern { text: Zeroizing::new(half.to_vec()), meant });
            }
        }
    }

    /// A value that is too short to be looked for by itself.
    fn beside_names(&mut self, known: &KnownValue<'_>, graphic: &[u8]) -> Concern {
        let mut concern = Concern::NotRemoved;
        let width = u8::try_from(graphic.len()).unwrap_or_default();
        for name in known.names {
            let name = Zeroizing::new(fold(name.as_bytes(), Keep::Alphanumeric));
            let value = Zeroizing::new(fold(known.value, Keep::Alphanumeric));
            let Ok(skip) = u8::try_from(name.len()) else { continue };
            if value.is_empty() || usize::from(width) != value.len() || name.len() + value.len() < GRAM {
                continue;
            }
            let meant =
                Meant { secret: known.id, extent: Extent::Exact, before: skip, behind: 0, whole_word: true };
            let behind = Meant { before: 0, behind: skip, ..meant };
            let join = |a: &[u8], b: &[u8]| Zeroizing::new([a, b].concat());
            self.alphanumeric.push(Pattern { text: join(&name, &value), meant });
            self.alphanumeric.push(Pattern { text: join(&value, &name), meant: behind });
            concern = Concern::OnlyBesideItsName;
        }
        concern
    }
}

/// The parts of a long value. What frames a key, and what all keys of a kind begin with, is none.
fn parts(value: &[u8]) -> Vec<&[u8]> {
    /// What an OpenSSH key begins with, up to where one differs from the other.
    const OPENSSH: &[u8] = b"b3BlbnNzaC1rZXktdjEA";
    let mut body = value;
    if body.starts_with(b"-----")
        && let Some(end) = body.iter().position(|b| *b == b'\n')
    {
        body = body.get(end + 1..).unwrap_or_default();
        if body.starts_with(OPENSSH) {
            body = body.get(OPENSSH.len() + 51..).unwrap_or_default();
        }
        if let Some(end) = body.windows(9).position(|w| w == b"-----END ") {
            body = body.get(..end).unwrap_or_default();
        }
    }
    let mut parts: Vec<&[u8]> = Vec::with_capacity(body.len() / PART + 1);
    while body.len() > PART + PART / 2 {
        let (part, rest) = body.split_at(PART);
        parts.push(part);
        body = rest;
    }
    if body.len() >= SHORTEST {
        parts.push(body);
    }
    parts
}

/// Looks through one text.
struct Scan<'a> {
    known: &'a Known,
    /// How many bytes may still be compared.
    work: usize,
    /// How many bytes of derived text may still be looked through.
    budget: usize,
    /// Whether the text is a reading that joins what may not belong together: only values themselves count in it, no runs.
    is_guess: bool,
    unpack: Option<Inflate>,
}

impl Scan<'_> {
    fn look(&mut self, text: &[u8], depth: usize) -> Result<Vec<Found>, Withheld> {
        let mut found = Vec::new();
        self.read(text, depth, &mut found)?;
        if !runs::is_binary(text) {
            self.readings(text, depth, &mut found)?;
            return Ok(found);
        }
        self.packed(text, depth, &mut found)?;
        for part in runs::textual(text) {
            let mut inner = Vec::new();
            self.readings(text.get(part.clone()).unwrap_or_default(), depth, &mut inner)?;
            found.extend(inner.into_iter().map(|Found { range, kind }| Found {
                range: part.start + range.start..part.start + range.end,
                kind,
            }));
        }
        Ok(found)
    }

    /// All readings of the text but the plain one.
    fn readings(&mut self, text: &[u8], depth: usize, found: &mut Vec<Found>) -> Result<(), Withheld> {
        self.layers(text, depth, found)?;
        if let Some(derived) = unescape(text, Syntax::Shown) {
            found.extend(self.derived(derived, depth)?);
        }
        for syntax in [Syntax::Quoted, Syntax::Css] {
            if let Some(derived) = unescape(text, syntax) {
                self.is_guess = true;
                let inner = self.derived(derived, depth);
                self.is_guess = false;
                found.extend(inner?);
            }
        }
        for bare in lines::bare(text) {
            let mut inner = self.derived(bare.text, depth)?;
            if bare.is_dump {
                for found in &mut inner {
                    found.range.end = line_end(text, found.range.end);
                }
            }
            found.extend(inner);
        }
        if let Some(derived) = lines::morse(text) {
            found.extend(self.derived(derived, depth)?);
        }
        Ok(())
    }

    /// Another reading of the text.
    fn derived(&mut self, derived: Derived, depth: usize) -> Result<Vec<Found>, Withheld> {
        let (bytes, way_back) = derived.into_parts();
        self.spend(bytes.len())?;
        let mut found = Vec::new();
        self.read(&bytes, depth, &mut found)?;
        self.layers(&bytes, depth, &mut found)?;
        for found in &mut found {
            found.range = way_back.range(found.range.clone());
        }
        Ok(found)
    }

    /// The text as a terminal or browser shows it.
    fn shown(&mut self, text: &[u8], depth: usize, found: &mut Vec<Found>) -> Result<(), Withheld> {
        let Some(derived) = unescape(text, Syntax::Shown) else { return Ok(()) };
        let (bytes, way_back) = derived.into_parts();
        self.spend(bytes.len())?;
        let mut inner = Vec::new();
        self.read(&bytes, depth, &mut inner)?;
        found.extend(
            inner.into_iter().map(|Found { range, kind }| Found { range: way_back.range(range), kind }),
        );
        Ok(())
    }

    /// What is left of the text when escapes are taken off, layer by layer.
    fn layers(&mut self, text: &[u8], depth: usize, found: &mut Vec<Found>) -> Result<(), Withheld> {
        let mut ways: Vec<WayBack> = Vec::new();
        let mut next = unescape(text, Syntax::Common);
        while let Some(derived) = next {
            let (bytes, way_back) = derived.into_parts();
            ways.push(way_back);
            self.spend(bytes.len())?;
            let mut here = Vec::new();
            self.read(&bytes, depth, &mut here)?;
            self.shown(&bytes, depth, &mut here)?;
            found.extend(here.into_iter().map(|Found { range, kind }| {
                let range = ways.iter().rev().fold(range, |range, way| way.range(range));
                Found { range, kind }
            }));
            next = unescape(&bytes, Syntax::Common);
            if ways.len() == LAYERS && next.is_some() {
                return Err(Withheld::TooMuch);
            }
        }
        Ok(())
    }

    /// The text as it is.
    fn read(&mut self, text: &[u8], depth: usize, found: &mut Vec<Found>) -> Result<(), Withheld> {
        self.folded(text, Keep::Alphanumeric, found)?;
        if !self.known.graphic.is_empty() {
            self.folded(text, Keep::Graphic, found)?;
        }
        if has_lists(text) {
            self.folded(text, Keep::Digits, found)?;
        }
        if depth == DEPTH || self.is_guess {
            return Ok(());
        }
        for run in runs::uuencoded(text) {
            found.extend(self.run(run, depth)?);
        }
        runs::runs(text, |run| {
            found.extend(self.run(run, depth)?);
            Ok(())
        })
    }

    /// A stretch that is something else: if anything is found in it, all of it goes.
    fn run(&mut self, run: Run, depth: usize) -> Result<Option<Found>, Withheld> {
        self.spend(run.bytes.len() + 64)?;
        let inner = self.look(&run.bytes, depth + 1)?;
        Ok(inner.first().map(|inner| Found { range: run.range, kind: inner.kind }))
    }

    fn folded(&mut self, text: &[u8], keep: Keep, found: &mut Vec<Found>) -> Result<(), Withheld> {
        let grams = match keep {
            Keep::Alphanumeric => &self.known.alphanumeric,
            Keep::Digits => &self.known.digits,
            Keep::Graphic => &self.known.graphic,
        };
        let folded = Folded::new(text, keep);
        // What was taken out with all around it is not measured again, lest a long run be measured many times.
        let mut widest = 0..0;
        let is_guess = self.is_guess;
        let each = |start: usize, end: usize, meant: &Meant| {
            let range = folded.source(text, start + usize::from(meant.before)).0
                ..folded.source(text, end - usize::from(meant.behind) - 1).1;
            if widest.start <= range.start && range.end <= widest.end
                || meant.whole_word && !is_word(text, &range)
            {
                return;
            }
            let range = if is_guess { range } else { extended(text, range, meant.extent) };
            if meant.extent != Extent::Exact {
                widest = range.clone();
            }
            found.push(Found { range, kind: Kind::Known(meant.secret) });
        };
        grams.find(&folded.bytes, &mut self.work, each).ok_or(Withheld::TooMuch)
    }

    /// Bytes that are packed.
    fn packed(&mut self, text: &[u8], depth: usize, found: &mut Vec<Found>) -> Result<(), Withheld> {
        if let Some(Packing::Unread(name)) = runs::packing(text) {
            found.push(Found { range: 0..text.len(), kind: Kind::Opaque(name) });
            return Ok(());
        }
        if depth >= DEPTH {
            return Ok(());
        }
        if depth > 0 && runs::may_be_deflate(text) && runs::begins_deflate(text) {
            let inner = self.inflate(text, false);
            if inner.ended && inner.used + 8 >= text.len() && !inner.bytes.is_empty() {
                self.inside(inner, 0..text.len(), depth, found)?;
            }
        }
        let mut at = 0;
        while let Some(ahead) = next_packed(text.get(at..).unwrap_or_default()) {
            at += ahead;
            let rest = text.get(at..).unwrap_or_default();
            match runs::packing(rest) {
                Some(Packing::Gzip) => {
                    if let Some(start) = runs::gzip_header(rest) {
                        at += self.unpacked(text, at..text.len(), start, false, depth, found)?;
                    }
                }
                Some(Packing::Zip) => {
                    if let Some((8, start)) = runs::zip_entry(rest) {
                        at += self.unpacked(text, at..text.len(), start, false, depth, found)?;
                    }
                }
                Some(Packing::Zlib) => at += self.unpacked(text, at..text.len(), 0, true, depth, found)?,
                Some(Packing::Unread(_)) | None => {}
            }
            at += 1;
        }
        Ok(())
    }

    /// Unpacks what begins `skip` bytes after the start of the range. Says how many bytes it was.
    fn unpacked(
        &mut self,
        text: &[u8],
        range: Range<usize>,
        skip: usize,
        zlib: bool,
        depth: usize,
        found: &mut Vec<Found>,
    ) -> Result<usize, Withheld> {
        let packed = text.get(range.start + skip..range.end).unwrap_or_default();
        let inner = self.inflate(packed, zlib);
        let used = skip + inner.used;
        // Behind it comes a checksum.
        let end = (range.start + used + 8).min(range.end);
        self.inside(inner, range.start..end, depth, found)?;
        Ok(used)
    }

    fn inflate(&mut self, packed: &[u8], zlib: bool) -> Unpacked {
        self.unpack.get_or_insert_with(Inflate::new).run(packed, zlib, UNPACKED)
    }

    fn inside(
        &mut self,
        inner: Unpacked,
        range: Range<usize>,
        depth: usize,
        found: &mut Vec<Found>,
    ) -> Result<(), Withheld> {
        self.spend(inner.bytes.len() + inner.used + 4096)?;
        if inner.cut {
            found.push(Found { range, kind: Kind::Opaque("too-large") });
            return Ok(());
        }
        let kinds = self.look(&inner.bytes, depth + 1)?;
        found.extend(kinds.first().map(|inner| Found { range, kind: inner.kind }));
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Withheld> {
        self.budget = self.budget.checked_sub(bytes).ok_or(Withheld::TooMuch)?;
        Ok(())
    }
}

/// Whether there are as many digits somewhere as in a list of codes, even one with words between them.
fn has_lists(text: &[u8]) -> bool {
    const BLOCK: usize = 128;
    let digits = |block: &[u8]| block.iter().map(|b| u8::from(b.is_ascii_digit())).sum::<u8>();
    text.chunks(BLOCK).any(|block| usize::from(digits(block)) >= GRAM)
}

/// How far it is to what may be the start of something packed.
fn next_packed(rest: &[u8]) -> Option<usize> {
    let begins = |at: &usize| {
        let here = rest.get(*at..).and_then(|rest| rest.first_chunk::<4>());
        matches!(here, Some([0x1f, 0x8b, 8, _] | [b'P', b'K', 3, 4] | [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]))
    };
    memchr::memchr3_iter(0x1f, b'P', 0x78, rest).find(begins)
}

fn line_end(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
}

/// The range with what goes with it.
fn extended(text: &[u8], range: Range<usize>, extent: Extent) -> Range<usize> {
    let goes_with = |b: &&u8| match extent {
        Extent::Exact => false,
        Extent::Base64 => runs::in_run(**b) || **b == b'=',
        Extent::Graphic => b.is_ascii_graphic(),
        Extent::Line => !matches!(b, b'\r' | b'\n'),
    };
    let leads = |b: &&u8| goes_with(b) && (extent != Extent::Base64 || **b != b'=');
    let before = text.get(..range.start).unwrap_or_default().iter().rev().take_while(leads).count();
    let behind = text.get(range.end..).unwrap_or_default().iter().take_while(goes_with).count();
    range.start - before..range.end + behind
}

/// Whether no letter or digit touches it.
fn is_word(text: &[u8], range: &Range<usize>) -> bool {
    let touches = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let before = range.start.checked_sub(1).and_then(|at| text.get(at));
    !touches(before) && !touches(text.get(range.end))
}
