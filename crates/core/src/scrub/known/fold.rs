//! What is left of a text when it does not matter how it is dressed: case, width, look-alike letters, separators and what
//! cannot be seen.
//!
//! Values and texts are folded by the same function, so that a value is found in a text if its folded form is found in
//! the folded text.

use std::sync::OnceLock;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;
use unicode_security::confusable_detection::skeleton;

/// What stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Letters and digits, letters small.
    Alphanumeric,
    /// Digits only: lists of codes with words between them.
    Digits,
    /// Punctuation too: for values that have little else.
    Graphic,
}

/// A folded text, which remembers from where its bytes came.
pub(super) struct Folded {
    pub(super) bytes: Vec<u8>,
    keep: Keep,
    /// Pairs of offsets, source and result, every [`STEP`] bytes of the source.
    marks: Vec<(u32, u32)>,
}

/// How many bytes of the source lie between two marks. Finding where a byte came from folds at most so many again.
const STEP: usize = 128;

impl Folded {
    pub(super) fn new(source: &[u8], keep: Keep) -> Self {
        let mut folded = Self {
            bytes: Vec::with_capacity(source.len() + 8),
            keep,
            marks: Vec::with_capacity(source.len() / STEP + 1),
        };
        let mut at = 0;
        while at < source.len() {
            folded.marks.push((offset(at), offset(folded.bytes.len())));
            let end = boundary(source, at + STEP);
            fold_into(source.get(at..end).unwrap_or_default(), keep, &mut folded.bytes);
            at = end;
        }
        folded
    }

    /// Where in the source the byte at this place of the result began and ended.
    pub(super) fn source(&self, source: &[u8], at: usize) -> (usize, usize) {
        let place = self.marks.partition_point(|(_, to)| *to as usize <= at).saturating_sub(1);
        let Some(&(from, to)) = self.marks.get(place) else { return (0, 0) };
        let (mut from, mut to) = (from as usize, to as usize);
        let table = table_of(self.keep);
        let mut one = Vec::new();
        while let Some(byte) = source.get(from) {
            let end = boundary(source, from + 1);
            let count = if end == from + 1 && byte.is_ascii() {
                usize::from(stays(table, *byte))
            } else {
                one.clear();
                fold_into(source.get(from..end).unwrap_or_default(), self.keep, &mut one);
                one.len()
            };
            if to + count > at {
                return (from, end);
            }
            to += count;
            from = end;
        }
        (source.len(), source.len())
    }
}

/// The first place from here on where no character is cut in two.
fn boundary(source: &[u8], at: usize) -> usize {
    let continues = |b: &&u8| **b & 0xc0 == 0x80;
    let rest = source.get(at..).unwrap_or_default();
    at.min(source.len()) + rest.iter().take(3).take_while(continues).count()
}

pub(super) fn fold(source: &[u8], keep: Keep) -> Vec<u8> {
    let mut out = Vec::with_capacity(source.len());
    fold_into(source, keep, &mut out);
    out
}

/// What each byte is folded to by itself; 0 if it goes. Bytes that are no text stay: only values which are none either
/// have them.
const fn table(keep: Keep) -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        let stays = match keep {
            Keep::Alphanumeric => byte.is_ascii_alphanumeric() || !byte.is_ascii(),
            Keep::Digits => byte.is_ascii_digit(),
            Keep::Graphic => byte.is_ascii_graphic() || !byte.is_ascii(),
        };
        if stays {
            #[expect(
                clippy::indexing_slicing,
                reason = "evaluated by the compiler; a byte is a place of the table"
            )]
            {
                table[byte as usize] = byte.to_ascii_lowercase();
            }
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

static ALPHANUMERIC: [u8; 256] = table(Keep::Alphanumeric);
static DIGITS: [u8; 256] = table(Keep::Digits);
static GRAPHIC: [u8; 256] = table(Keep::Graphic);

const fn table_of(keep: Keep) -> &'static [u8; 256] {
    match keep {
        Keep::Alphanumeric => &ALPHANUMERIC,
        Keep::Digits => &DIGITS,
        Keep::Graphic => &GRAPHIC,
    }
}

fn stays(table: &[u8; 256], byte: u8) -> bool {
    table.get(usize::from(byte)).is_some_and(|folded| *folded != 0)
}

fn fold_into(source: &[u8], keep: Keep, out: &mut Vec<u8>) {
    let table = table_of(keep);
    let mut rest = source;
    while !rest.is_empty() {
        let (block, behind) = rest.split_at(rest.len().min(BLOCK));
        if block.is_ascii() {
            if keep != Keep::Digits || has_digits(block) {
                fold_singles(block, table, out);
            }
            rest = behind;
            continue;
        }
        // Up to the next character that is not folded by itself.
        let single = (0..block.len()).position(|at| begins_wide(rest, at)).unwrap_or(block.len());
        let (singles, wide) = rest.split_at(single);
        fold_singles(singles, table, out);
        rest = wide;
        while begins_wide(rest, 0) {
            let (character, length) = wide_char(rest);
            match character {
                Some(character) => fold_wide(character, table, keep, out),
                None => fold_singles(rest.get(..length).unwrap_or_default(), table, out),
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn has_digits(block: &[u8]) -> bool {
    block.iter().fold(false, |any, byte| any | byte.is_ascii_digit())
}

/// Whether a character of several bytes may begin there.
fn begins_wide(source: &[u8], at: usize) -> bool {
    source.get(at).is_some_and(|byte| *byte >= 0xc2)
        && source.get(at + 1).is_some_and(|next| next & 0xc0 == 0x80)
}

const BLOCK: usize = 64;

/// Without a branch for each byte: each is written, and the next one over it if it does not stay.
fn fold_singles(block: &[u8], table: &[u8; 256], out: &mut Vec<u8>) {
    let mut kept = [0_u8; BLOCK];
    let mut count = 0;
    for byte in block {
        let folded = table.get(usize::from(*byte)).copied().unwrap_or_default();
        if let Some(place) = kept.get_mut(count) {
            *place = folded;
        }
        count = count.wrapping_add(usize::from(folded != 0));
    }
    out.extend_from_slice(kept.get(..count).unwrap_or_default());
}

/// The character outside ASCII at the start, if the bytes there are one, and how many bytes it has.
fn wide_char(bytes: &[u8]) -> (Option<char>, usize) {
    let length = match bytes.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => return (None, 1),
    };
    let text = bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.chars().next()).map_or((None, 1), |character| (Some(character), length))
}

fn fold_wide(character: char, table: &[u8; 256], keep: Keep, out: &mut Vec<u8>) {
    let folded = plain_form(character);
    match u8::try_from(folded) {
        Ok(byte) if byte < 0x80 => {
            out.extend(table.get(usize::from(byte)).filter(|byte| **byte != 0));
        }
        _ if keep == Keep::Digits => {}
        _ => {
            if let Some(folded) = char::from_u32(folded) {
                out.extend_from_slice(folded.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
}

/// The code of the plain character that this one stands for; 0 if it stands for none.
pub(super) fn plain_form(character: char) -> u32 {
    /// Of the characters up to U+FFFF, 256 together, when one of them is first seen.
    static PAGES: [OnceLock<Box<[u16]>>; 256] = [const { OnceLock::new() }; 256];
    let code = character as u32;
    match code {
        // Nothing in these looks like a letter of ASCII, and they are many: Chinese, Korean, Japanese.
        0x3041..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xac00..=0xd7a3 => code,
        0..=0xffff => {
            let page =
                PAGES.get((code >> 8) as usize).map(|page| page.get_or_init(|| build_page(code & 0xff00)));
            let folded = page.and_then(|page| page.get((code & 0xff) as usize)).copied();
            u32::from(folded.unwrap_or_default())
        }
        _ => work_out(character),
    }
}

fn build_page(first: u32) -> Box<[u16]> {
    let fold = |code| char::from_u32(code).map_or(0, work_out);
    (first..first + 256).map(|code| u16::try_from(fold(code)).unwrap_or_default()).collect()
}

fn work_out(character: char) -> u32 {
    /// The letters a to z in Braille, by their dots.
    const BRAILLE: [u8; 26] = [
        0x01, 0x03, 0x09, 0x19, 0x11, 0x0b, 0x1b, 0x13, 0x0a, 0x1a, 0x05, 0x07, 0x0d, 0x1d, 0x15, 0x0f, 0x1f,
        0x17, 0x0e, 0x1e, 0x25, 0x27, 0x3a, 0x2d, 0x3d, 0x35,
    ];
    let code = character as u32;
    let letter = |first: u32| u32::from(b'a') + (code - first) % 26;
    match code {
        0..=0x7f => return code,
        // Tags: ASCII that cannot be seen.
        0xe0020..=0xe007e => return code - 0xe0000,
        // Variation selectors, one for each byte from 16 on.
        0xe0100..=0xe01ef => return code - 0xe0100 + 16,
        0x1f1e6..=0x1f1ff => return letter(0x1f1e6),
        0x1f150..=0x1f169 => return letter(0x1f150),
        0x1f170..=0x1f189 => return letter(0x1f170),
        0x2800..=0x28ff => {
            let dots = u8::try_from(code & 0xff).unwrap_or_default();
            let place = BRAILLE.iter().position(|letter| *letter == dots);
            return place
                .and_then(|place| u32::try_from(place).ok())
                .map_or(0, |place| u32::from(b'a') + place);
        }
        _ => {}
    }
    if is_combining_mark(character) || character.is_control() || character.is_whitespace() {
        return 0;
    }
    let mut compatible = std::iter::once(character).nfkd().filter(|c| !is_combining_mark(*c));
    let base = match (compatible.next(), compatible.next()) {
        (None, _) => return 0,
        (Some(base), None) => base,
        // A character that stands for several, such as a ligature: it stays what it is.
        (Some(_), Some(_)) => character,
    };
    if base.is_ascii() {
        return base as u32;
    }
    // By way of the small letter, so that both are one: of `К` and `к`, only the capital looks like one of ASCII.
    let small = single(base.to_lowercase(), base);
    let looks = [small, single(small.to_uppercase(), small)].into_iter().find_map(ascii_look_alike);
    match looks {
        Some(letter) => u32::from(letter),
        None if small.is_alphanumeric() => small as u32,
        None => 0,
    }
}

fn single(mut characters: impl Iterator<Item = char>, other: char) -> char {
    match (characters.next(), characters.next()) {
        (Some(character), None) => character,
        _ => other,
    }
}

fn ascii_look_alike(character: char) -> Option<u8> {
    let looks = skeleton(character.encode_utf8(&mut [0; 4])).collect::<String>();
    match *looks.as_bytes() {
        // A small `m` looks like an `r` and an `n`, says the table.
        [b'r', b'n'] => Some(b'm'),
        [b'l'] if character.is_uppercase() => Some(b'i'),
        [letter] if letter.is_ascii_alphanumeric() => Some(letter.to_ascii_lowercase()),
        _ => None,
    }
}

/// Texts are never so long that an offset does not fit; see [`super::LONGEST`].
pub(super) fn offset(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
