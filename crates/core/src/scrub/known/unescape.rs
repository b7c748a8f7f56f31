//! One layer of escapes taken off a text, with the way back to where each byte came from.
//!
//! All syntaxes are read at once, since nobody says which one a text is written in: percent, the backslashes of JSON, C,
//! Python and their kin, HTML, terminal codes, MIME words. Where one text means different things in two syntaxes, there
//! is a reading of its own: see [`Syntax`].

use super::fold::offset;

/// Which escapes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// All that do not contradict each other.
    Common,
    /// `\67 ` of CSS, which is a 7 after an octal 6 otherwise.
    Css,
    /// What is not shown: tags, comments, terminal codes, and what a backspace takes back. It is there for who reads the
    /// bytes, so it is never left out of the other readings.
    Shown,
    /// `=67` of quoted-printable, which is a value after an equals sign otherwise.
    Quoted,
}

/// A text made of another one.
pub(super) struct Derived {
    pub(super) bytes: Vec<u8>,
    way_back: WayBack,
}

impl Derived {
    pub(super) fn into_parts(self) -> (Vec<u8>, WayBack) {
        (self.bytes, self.way_back)
    }
}

/// From the places of a derived text to those of its source.
pub(super) struct WayBack {
    /// From this place of the result on, bytes come from there in the source, one from one if they were copied. Where
    /// [`DECODED`] is set they were not: the whole stretch stands for what lies there up to the next piece's source.
    pieces: Vec<(u32, u32)>,
    source_len: usize,
}

const DECODED: u32 = 1 << 31;

impl WayBack {
    pub(super) fn range(&self, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let start = self.place(range.start).0;
        let end = self.place(range.end.saturating_sub(1)).1;
        start..end.max(start)
    }

    /// Where the source of one byte begins and ends.
    fn place(&self, at: usize) -> (usize, usize) {
        let next = self.pieces.partition_point(|(to, _)| *to as usize <= at);
        let Some(&(to, from)) = next.checked_sub(1).and_then(|place| self.pieces.get(place)) else {
            return (0, self.source_len);
        };
        if from & DECODED == 0 {
            let from = from as usize + (at - to as usize);
            return (from, from + 1);
        }
        let end = self.pieces.get(next).map_or(self.source_len, |(_, from)| (from & !DECODED) as usize);
        ((from & !DECODED) as usize, end)
    }
}

/// Puts a derived text together.
pub(super) struct Deriver<'a> {
    source: &'a [u8],
    bytes: Vec<u8>,
    pieces: Vec<(u32, u32)>,
}

impl<'a> Deriver<'a> {
    pub(super) fn new(source: &'a [u8]) -> Self {
        Self { source, bytes: Vec::with_capacity(source.len()), pieces: Vec::new() }
    }

    pub(super) fn copy(&mut self, from: usize, to: usize) {
        let Some(plain) = self.source.get(from..to).filter(|plain| !plain.is_empty()) else { return };
        self.pieces.push((offset(self.bytes.len()), offset(from)));
        self.bytes.extend_from_slice(plain);
    }

    /// Copies what lies between two escapes. Of a long stretch, only the ends: what is in it was looked through already.
    fn around(&mut self, from: usize, to: usize) {
        const NEAR: usize = 1 << 10;
        if to - from <= 2 * NEAR + NEAR {
            return self.copy(from, to);
        }
        if from > 0 {
            self.copy(from, from + NEAR);
            // No pattern goes over this.
            self.decoded(from + NEAR, &[0xff]);
        }
        if to < self.source.len() {
            self.copy(to - NEAR, to);
        }
    }

    pub(super) fn decoded(&mut self, from: usize, bytes: &[u8]) {
        self.pieces.push((offset(self.bytes.len()), offset(from) | DECODED));
        self.bytes.extend_from_slice(bytes);
    }

    /// What was decoded last ends here in the source.
    pub(super) fn gap(&mut self, from: usize) {
        self.pieces.push((offset(self.bytes.len()), offset(from) | DECODED));
    }

    /// Takes back the last character.
    fn back(&mut self) {
        while let Some(byte) = self.bytes.pop()
            && byte & 0xc0 == 0x80
        {}
        while self.pieces.last().is_some_and(|(to, _)| *to as usize >= self.bytes.len()) {
            self.pieces.pop();
        }
    }

    pub(super) fn finish(self) -> Derived {
        let Self { source, bytes, pieces } = self;
        Derived { bytes, way_back: WayBack { pieces, source_len: source.len() } }
    }
}

/// What an escape stands for.
enum Meaning {
    /// The character before it goes.
    Back,
    Bytes([u8; 4], usize),
    Nothing,
}

impl Meaning {
    const fn byte(byte: u8) -> Self {
        Self::Bytes([byte, 0, 0, 0], 1)
    }

    /// A code: a byte below 256, since that is what most syntaxes with more than two digits are used for, else a
    /// character.
    fn code(code: u32) -> Option<Self> {
        let mut bytes = [0; 4];
        let length = char::from_u32(code)?.encode_utf8(&mut bytes).len();
        Some(Self::Bytes(bytes, length))
    }
}

/// Takes one layer off; `None` if there is nothing to take.
pub(super) fn unescape(source: &[u8], syntax: Syntax) -> Option<Derived> {
    let mut deriver: Option<Deriver<'_>> = None;
    let mut copied = 0;
    let mut at = 0;
    let mut begins = Begins { source, syntax, word: memchr::memmem::Finder::new(b"=?"), rare: None };
    while let Some(next) = begins.next(at) {
        at = next;
        let rest = source.get(at..).unwrap_or_default();
        let read = match syntax {
            Syntax::Common => common(rest),
            Syntax::Css => css(rest),
            Syntax::Quoted => quoted(rest),
            Syntax::Shown => not_shown(rest),
        };
        let Some((length, meaning)) = read else {
            at += 1;
            continue;
        };
        let deriver = deriver.get_or_insert_with(|| Deriver::new(source));
        deriver.around(copied, at);
        match meaning {
            Meaning::Back => deriver.back(),
            Meaning::Bytes(bytes, count) => deriver.decoded(at, bytes.get(..count).unwrap_or_default()),
            Meaning::Nothing => {}
        }
        // A terminal code may be cut off by the end.
        at = source.len().min(at + length);
        copied = at;
    }
    let mut deriver = deriver?;
    deriver.around(copied, source.len());
    Some(deriver.finish())
}

/// Where something may begin that the syntax knows. Vector instructions look for three bytes at a time.
struct Begins<'a> {
    source: &'a [u8],
    syntax: Syntax,
    word: memchr::memmem::Finder<'static>,
    /// Where the next beginning is that is looked for apart from the others, if it is known.
    rare: Option<usize>,
}

impl Begins<'_> {
    /// The first one from a place on.
    fn next(&mut self, from: usize) -> Option<usize> {
        let rest = self.source.get(from..)?;
        let rare = match self.rare.filter(|rare| *rare >= from) {
            Some(rare) => rare,
            None => from + self.rare_in(rest).unwrap_or(rest.len()),
        };
        self.rare = Some(rare);
        let rest = rest.get(..rare - from).unwrap_or_default();
        let ahead = match self.syntax {
            Syntax::Common => match rest.first() {
                // They often follow each other.
                Some(b'\\' | b'%' | b'&') => Some(0),
                _ => memchr::memchr3(b'\\', b'%', b'&', rest),
            },
            Syntax::Shown => memchr::memchr3(b'<', 0x1b, 0x08, rest),
            Syntax::Css => memchr::memchr(b'\\', rest),
            Syntax::Quoted => memchr::memchr(b'=', rest),
        };
        ahead.map(|ahead| from + ahead).or_else(|| (rare < self.source.len()).then_some(rare))
    }

    fn rare_in(&self, rest: &[u8]) -> Option<usize> {
        match self.syntax {
            Syntax::Common => self.word.find(rest),
            Syntax::Shown => memchr::memchr2_iter(b'^', 0xc2, rest)
                .find(|at| matches!(rest.get(*at..), Some([b'^', b'[', b'[', ..] | [0xc2, 0x9b, ..]))),
            Syntax::Css | Syntax::Quoted => None,
        }
    }
}

fn common(rest: &[u8]) -> Option<(usize, Meaning)> {
    match rest.first()? {
        b'%' => percent(rest),
        b'\\' => backslash(rest),
        b'&' => entity(rest),
        b'=' => mime_word(rest),
        _ => None,
    }
}

fn not_shown(rest: &[u8]) -> Option<(usize, Meaning)> {
    match rest.first()? {
        b'<' => tag(rest),
        b'^' if rest.starts_with(b"^[[") => {
            terminal(rest.get(2..)?).map(|length| (length + 2, Meaning::Nothing))
        }
        0x1b => terminal(rest.get(1..)?).map(|length| (length + 1, Meaning::Nothing)),
        0x08 => Some((1, Meaning::Back)),
        0xc2 if rest.get(1) == Some(&0x9b) => {
            sequence(rest.get(2..)?).map(|length| (length + 2, Meaning::Nothing))
        }
        _ => None,
    }
}

/// `%41`, `%u0041`, and with any number of `25` between, which is the same encoded again.
fn percent(rest: &[u8]) -> Option<(usize, Meaning)> {
    let mut at = 1;
    while rest.get(at..at + 2) == Some(b"25")
        && rest.get(at + 2..at + 4).is_some_and(|d| number(d, 16).is_some())
    {
        at += 2;
    }
    let digits = rest.get(at..)?;
    if let [b'u' | b'U', digits @ ..] = digits {
        let code = number(digits.get(..4)?, 16)?;
        return Some((at + 5, Meaning::code(code)?));
    }
    let code = number(digits.get(..2)?, 16)?;
    Some((at + 2, Meaning::byte(u8::try_from(code).ok()?)))
}

/// `\x41`, `\u0041`, `\u{41}`, `\U00000041`, `\101`, `\n`, `\"` and so on, after any number of backslashes, which is the
/// same quoted again.
fn backslash(rest: &[u8]) -> Option<(usize, Meaning)> {
    let slashes = rest.iter().take_while(|b| **b == b'\\').count();
    let behind = rest.get(slashes..)?;
    let (length, meaning) = match behind {
        [] => return (slashes > 1).then(|| (slashes, Meaning::byte(b'\\'))),
        [b'x' | b'X' | b'u' | b'U' | b'N' | b'o', b'{', ..] => {
            let base = if behind.first() == Some(&b'o') { 8 } else { 16 };
            let inner = behind.get(2..)?;
            let end = inner.iter().take(10).position(|b| *b == b'}')?;
            let digits = inner.get(..end)?;
            let digits = digits.strip_prefix(b"U+").unwrap_or(digits);
            (end + 3, Meaning::code(number(digits, base)?)?)
        }
        [b'x' | b'X', digits @ ..] => {
            let count = digits.iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
            (1 + count, Meaning::byte(u8::try_from(number(digits.get(..count)?, 16)?).ok()?))
        }
        [b'u', digits @ ..] => {
            let first = number(digits.get(..4)?, 16)?;
            match low_surrogate(first, digits.get(4..)?) {
                Some((code, more)) => (5 + more, Meaning::code(code)?),
                None => (5, Meaning::code(first).unwrap_or(Meaning::Nothing)),
            }
        }
        [b'U', digits @ ..] => match digits.get(..8).and_then(|digits| number(digits, 16)) {
            Some(code) => (9, Meaning::code(code)?),
            None => (5, Meaning::code(number(digits.get(..4)?, 16)?)?),
        },
        [b'0'..=b'7', ..] => {
            // As many as four after a zero, as the shell's `echo` has it, if three are too small to be a letter.
            let digits = behind.iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let four =
                behind.get(..4).filter(|d| d.starts_with(b"0") && number(d, 8).is_some_and(|n| n > 0o37));
            let digits = if four.is_some() { 4 } else { digits };
            let code = number(behind.get(..digits)?, 8)? & 0xff;
            (digits, Meaning::byte(u8::try_from(code).ok()?))
        }
        [b'e' | b'E', ..] => (1, Meaning::byte(0x1b)),
        [b'b', ..] => (1, Meaning::byte(0x08)),
        [b'n' | b'r' | b't' | b'f' | b'v' | b'a' | b'z', ..] => (1, Meaning::Nothing),
        [b'\r', b'\n', ..] => (2, Meaning::Nothing),
        [b'\n', ..] => (1, Meaning::Nothing),
        [byte, ..] if byte.is_ascii_punctuation() => (1, Meaning::byte(*byte)),
        _ => return (slashes > 1).then(|| (slashes, Meaning::byte(b'\\'))),
    };
    Some((slashes + length, meaning))
}

/// The second half of a character that is written as two.
fn low_surrogate(first: u32, behind: &[u8]) -> Option<(u32, usize)> {
    if !(0xd800..0xdc00).contains(&first) {
        return None;
    }
    let slashes = behind.iter().take_while(|b| **b == b'\\').count();
    let [b'u', digits @ ..] = behind.get(slashes..)? else { return None };
    let second = number(digits.get(..4)?, 16)?;
    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400 && slashes > 0)?;
    Some((0x10000 + ((first - 0xd800) << 10) + low, slashes + 5))
}

/// `&#65;`, `&#x41;`, `&amp;` and all other names, which stand for no letter or digit.
fn entity(rest: &[u8]) -> Option<(usize, Meaning)> {
    let mut at = 1;
    while rest.get(at..).is_some_and(|rest| rest.starts_with(b"amp;")) {
        at += 4;
    }
    let body = rest.get(at..)?;
    if let [b'#', digits @ ..] = body {
        let (base, skip) = if matches!(digits.first(), Some(b'x' | b'X')) { (16, 1) } else { (10, 0) };
        let digits = digits.get(skip..)?;
        let is_digit = |b: &&u8| if base == 16 { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
        let count = digits.iter().take(12).take_while(is_digit).count();
        let code = number(digits.get(..count)?, base)?;
        let end = at + 1 + skip + count;
        let semicolon = usize::from(rest.get(end) == Some(&b';'));
        return Some((end + semicolon, Meaning::code(code).unwrap_or(Meaning::Nothing)));
    }
    let count = body.iter().take(32).take_while(|b| b.is_ascii_alphanumeric()).count();
    let name = body.get(..count)?;
    if count < 2 || body.get(count) != Some(&b';') {
        return (at > 1).then(|| (at, Meaning::byte(b'&')));
    }
    let meaning = match name {
        b"percnt" => Meaning::byte(b'%'),
        b"bsol" => Meaning::byte(b'\\'),
        b"num" => Meaning::byte(b'#'),
        b"lt" => Meaning::byte(b'<'),
        b"gt" => Meaning::byte(b'>'),
        b"quot" => Meaning::byte(b'"'),
        b"apos" => Meaning::byte(b'\''),
        b"equals" => Meaning::byte(b'='),
        b"lowbar" | b"UnderBar" => Meaning::byte(b'_'),
        b"sol" => Meaning::byte(b'/'),
        b"plus" => Meaning::byte(b'+'),
        b"hyphen" | b"dash" => Meaning::byte(b'-'),
        b"period" => Meaning::byte(b'.'),
        b"colon" => Meaning::byte(b':'),
        b"semi" => Meaning::byte(b';'),
        b"comma" => Meaning::byte(b','),
        b"commat" => Meaning::byte(b'@'),
        b"dollar" => Meaning::byte(b'$'),
        b"excl" => Meaning::byte(b'!'),
        b"quest" => Meaning::byte(b'?'),
        b"ast" | b"midast" => Meaning::byte(b'*'),
        b"lpar" => Meaning::byte(b'('),
        b"rpar" => Meaning::byte(b')'),
        b"lsqb" | b"lbrack" => Meaning::byte(b'['),
        b"rsqb" | b"rbrack" => Meaning::byte(b']'),
        b"lcub" | b"lbrace" => Meaning::byte(b'{'),
        b"rcub" | b"rbrace" => Meaning::byte(b'}'),
        b"verbar" | b"vert" | b"VerticalLine" => Meaning::byte(b'|'),
        b"Hat" => Meaning::byte(b'^'),
        b"grave" | b"DiacriticalGrave" => Meaning::byte(b'`'),
        _ => Meaning::Nothing,
    };
    Some((at + count + 1, meaning))
}

/// `<b>`, `</span>`, `<!-- … -->`: markup between letters.
fn tag(rest: &[u8]) -> Option<(usize, Meaning)> {
    const LONGEST: usize = 256;
    if let Some(comment) = rest.strip_prefix(b"<!--") {
        let near = comment.get(..LONGEST + 2).unwrap_or(comment);
        let end = memchr::memmem::find(near, b"-->")?;
        return Some((end + 7, Meaning::Nothing));
    }
    if !rest.get(1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'/') {
        return None;
    }
    let body = rest.get(1..)?;
    let end = body.iter().take(LONGEST).position(|b| matches!(b, b'<' | b'>'))?;
    (body.get(end) == Some(&b'>')).then_some((end + 2, Meaning::Nothing))
}

/// The frame of an encoded word, `=?utf-8?B?` and `?=`: what is in it is read by others.
fn mime_word(rest: &[u8]) -> Option<(usize, Meaning)> {
    let rest = rest.strip_prefix(b"=?")?;
    let charset = rest.iter().take(32).position(|b| *b == b'?')?;
    match rest.get(charset..charset + 3)? {
        [b'?', b'b' | b'B' | b'q' | b'Q', b'?'] => Some((2 + charset + 3, Meaning::Nothing)),
        _ => None,
    }
}

/// How long the terminal code is whose escape character was just read.
fn terminal(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'[' => sequence(rest.get(1..)?).map(|length| length + 1),
        // Titles and links: up to a bell, or an escape with a backslash.
        b']' | b'P' | b'_' | b'^' | b'X' => {
            let body = rest.get(1..)?;
            let end = body.iter().take(1024).position(|b| matches!(b, 0x07 | 0x1b))?;
            let is_escape = body.get(end) == Some(&0x1b);
            Some(1 + end + if is_escape { 2 } else { 1 })
        }
        b'(' | b')' | b'#' => Some(2),
        0x30..=0x7e => Some(1),
        _ => None,
    }
}

/// Parameters and the final letter.
fn sequence(rest: &[u8]) -> Option<usize> {
    let end = rest.iter().take(64).position(|b| (0x40..=0x7e).contains(b))?;
    let are_parameters = rest.get(..end)?.iter().all(|b| (0x20..=0x3f).contains(b));
    are_parameters.then_some(end + 1)
}

fn css(rest: &[u8]) -> Option<(usize, Meaning)> {
    let digits = rest.get(1..)?;
    let count = digits.iter().take(6).take_while(|b| b.is_ascii_hexdigit()).count();
    if count < 2 {
        return None;
    }
    let code = number(digits.get(..count)?, 16)?;
    let space = usize::from(digits.get(count).is_some_and(u8::is_ascii_whitespace));
    Some((1 + count + space, Meaning::code(code)?))
}

fn quoted(rest: &[u8]) -> Option<(usize, Meaning)> {
    match rest.get(1..)? {
        [b'\n', ..] => Some((2, Meaning::Nothing)),
        [b'\r', b'\n', ..] => Some((3, Meaning::Nothing)),
        digits => {
            let code = number(digits.get(..2)?, 16)?;
            // Other control characters are no part of a text, and `=12` is a number.
            let is_text = code >= 0x20 || matches!(code, 9 | 10 | 13);
            is_text.then_some((3, Meaning::byte(u8::try_from(code).ok()?)))
        }
    }
}

/// The number that all of these digits are.
fn number(digits: &[u8], base: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |value, digit| {
        let digit = char::from(*digit).to_digit(base)?;
        value.checked_mul(base)?.checked_add(digit)
    })
}
