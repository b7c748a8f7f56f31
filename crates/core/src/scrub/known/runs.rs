//! Stretches of a text that are something else, written in letters and digits: base64, hexadecimal, base32; and bytes
//! that are compressed.

use crate::scrub::bits;
use flate2::{Decompress, FlushDecompress, Status};

/// A stretch, and what it says.
pub(super) struct Run {
    pub(super) range: std::ops::Range<usize>,
    pub(super) bytes: Vec<u8>,
}

/// Shorter ones say too little.
const LEAST: usize = 16;

/// From this many bytes on, something is looked through although it looks like no text.
const LARGE: usize = 48;

/// What a byte of a stretch can be. A stretch has what any of its bytes has.
mod class {
    pub(super) const SMALL: u8 = 1;
    pub(super) const CAPITAL: u8 = 2;
    pub(super) const BEYOND_HEX: u8 = 4;
    pub(super) const BEYOND_32: u8 = 8;
    pub(super) const IN_RUN: u8 = 16;
    /// In any text, also one of two bytes a character.
    pub(super) const PRINTABLE: u8 = 32;
}

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let mut class = 0;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_') {
            class |= class::IN_RUN;
            class |= if byte.is_ascii_lowercase() { class::SMALL } else { 0 };
            class |= if byte.is_ascii_uppercase() { class::CAPITAL } else { 0 };
            class |= if byte.is_ascii_hexdigit() { 0 } else { class::BEYOND_HEX };
            class |= if matches!(byte, b'A'..=b'Z' | b'2'..=b'7') { 0 } else { class::BEYOND_32 };
        }
        if matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r' | 0 | 0x08 | 0x1b) {
            class |= class::PRINTABLE;
        }
        #[expect(
            clippy::indexing_slicing,
            reason = "evaluated by the compiler; a byte is a place of the table"
        )]
        {
            classes[byte as usize] = class;
        }
        byte += 1;
    }
    classes
};

fn class_of(byte: u8) -> u8 {
    #[expect(clippy::indexing_slicing, reason = "a byte is a place of the table")]
    CLASSES[usize::from(byte)]
}

pub(super) fn in_run(byte: u8) -> bool {
    class_of(byte) & class::IN_RUN != 0
}

/// Calls back with each stretch that says something when decoded. Stops when the callback does not want more.
pub(super) fn runs<E>(text: &[u8], mut each: impl FnMut(Run) -> Result<(), E>) -> Result<(), E> {
    let mut done = 0;
    // A stretch has the bytes at two of these places, and all between.
    let mut at = 0;
    while at + STEP < text.len() {
        // Without a branch for each: words are as long as chance has it.
        let here = text.get(at..).and_then(|rest| rest.first_chunk::<{ STEP + 1 }>());
        if !here.is_some_and(|[a, _, b, _, c, _, d, _, e]| {
            let all = class_of(*a) & class_of(*b) & class_of(*c) & class_of(*d) & class_of(*e);
            all & class::IN_RUN != 0
        }) {
            at += STEP;
            continue;
        }
        let start = backward(text, done, at);
        let end = forward(text, at);
        done = end;
        at = end + STEP - end % STEP;
        if end - start < LEAST {
            continue;
        }
        done = with_next_lines(text, start, end);
        at = at.max(done);
        for (range, bytes) in decoded(text, start, done).into_iter().flatten() {
            each(Run { range, bytes })?;
        }
    }
    Ok(())
}

/// Half of [`LEAST`].
const STEP: usize = 8;

fn backward(text: &[u8], done: usize, at: usize) -> usize {
    let before = text.get(done..at).unwrap_or_default();
    at - before.iter().rev().take_while(|b| in_run(**b)).count()
}

fn forward(text: &[u8], at: usize) -> usize {
    at + text.get(at..).unwrap_or_default().iter().take_while(|b| in_run(**b)).count()
}

/// The end of a stretch that goes on in the next lines, as long as these are full.
fn with_next_lines(text: &[u8], start: usize, end: usize) -> usize {
    let mut line = end - start;
    let mut end = end;
    let is_hex =
        |from: usize, to: usize| text.get(from..to).unwrap_or_default().iter().all(u8::is_ascii_hexdigit);
    let mut first_is_hex = None;
    loop {
        let rest = text.get(end..).unwrap_or_default();
        let is_space =
            |b: &&u8| b.is_ascii_whitespace() || matches!(b, b'>' | b'"' | b'\'' | b',' | b'\\' | b'+');
        let space = rest.iter().take(64).take_while(is_space).count();
        if !rest.get(..space).unwrap_or_default().contains(&b'\n') || line < LEAST {
            return end;
        }
        let next = forward(text, end + space);
        let length = next - (end + space);
        // The lines of one stretch are of one length, but the last, and hold nothing else.
        let ends = text.get(next).is_none_or(|b| is_space(&b) && *b != b' ' || *b == b'=');
        if length == 0 || length > line || !ends {
            return end;
        }
        if *first_is_hex.get_or_insert_with(|| is_hex(start, end)) && !is_hex(end + space, next) {
            return end;
        }
        line = length;
        end = next;
    }
}

/// Where the stretch begins that goes on at the end of a text; its length if none does.
pub(super) fn open(text: &[u8]) -> usize {
    let (mut begin, mut end) = (text.len(), text.len());
    loop {
        let head = text.get(..end).unwrap_or_default();
        let length = head.iter().rev().take_while(|b| in_run(**b) || **b == b'=').count();
        if length == 0 || length < LEAST && end < text.len() {
            return begin;
        }
        begin = end - length;
        // A line that is all of it may go on from the one before.
        let before = text.get(..begin).unwrap_or_default();
        let space = before.iter().rev().take(64).take_while(|b| b.is_ascii_whitespace()).count();
        end = begin - space;
        if !text.get(end..begin).unwrap_or_default().contains(&b'\n') {
            return begin;
        }
    }
}

type Decoded = Option<(std::ops::Range<usize>, Vec<u8>)>;

fn decoded(text: &[u8], start: usize, end: usize) -> [Decoded; 3] {
    let run = text.get(start..end).unwrap_or_default();
    let all = run.iter().fold(0, |all, byte| all | class_of(*byte));
    let has = |class: u8| all & class != 0;
    let padding = text.get(end..).unwrap_or_default().iter().take(6).take_while(|b| **b == b'=').count();
    let range = start..end + padding;
    if !has(class::BEYOND_HEX) {
        let bytes = hexadecimal(run);
        return [worth(&bytes).then_some((range, bytes)), None, None];
    }
    let mut found = [None, None, None];
    if !has(class::SMALL) && !has(class::BEYOND_32) {
        let bytes = base32(run);
        if worth(&bytes) {
            found[0] = Some((range.clone(), bytes));
        }
    }
    // A text in base64 of this length without both is so rare that a name or a path is meant.
    if has(class::SMALL) && has(class::CAPITAL) {
        let bytes = base64(run);
        if worth(&bytes) {
            found[1] = Some((range, bytes));
        } else if let Some(slash) = run.iter().rposition(|b| matches!(b, b'/' | b'-' | b'_'))
            && run.len() - slash > LEAST
        {
            // The last part of a path.
            let bytes = base64(run.get(slash + 1..).unwrap_or_default());
            if worth(&bytes) {
                found[2] = Some((start + slash + 1..range.end, bytes));
            }
        }
    }
    found
}

fn hexadecimal(run: &[u8]) -> Vec<u8> {
    let mut digits =
        run.iter().filter_map(|b| char::from(*b).to_digit(16)).filter_map(|d| u8::try_from(d).ok());
    let mut bytes = Vec::with_capacity(run.len() / 2);
    while let (Some(high), Some(low)) = (digits.next(), digits.next()) {
        bytes.push(high << 4 | low);
    }
    bytes
}

fn base32(run: &[u8]) -> Vec<u8> {
    let value = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'2'..=b'7' => Some(b - b'2' + 26),
        _ => None,
    };
    bits::bytes(run.iter().filter_map(|b| value(*b)), 5)
}

fn base64(run: &[u8]) -> Vec<u8> {
    bits::bytes(run.iter().filter_map(|b| bits::sextet(*b)), 6)
}

/// Whether there is a point in looking through what was decoded: random bytes are none.
fn worth(bytes: &[u8]) -> bool {
    if bytes.len() < 12 {
        return false;
    }
    bytes.len() >= LARGE || is_text(bytes) || packing(bytes).is_some() || may_be_deflate(bytes)
}

/// Whether nearly all are printable; zeros are too, for texts of two bytes a character.
fn is_text(bytes: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(LARGE)).unwrap_or_default();
    let odd = head.iter().filter(|b| !matches!(b, b' '..=b'~' | b'\t' | b'\n' | b'\r' | 0 | 0x1b)).count();
    odd * 8 <= head.len() || std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(|c| c < '\u{7}'))
}

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    /// One that is not read here.
    Unread(&'static str),
    Zip,
    Zlib,
}

/// What the first bytes say about how the others are packed.
pub(super) fn packing(bytes: &[u8]) -> Option<Packing> {
    const UNREAD: [(&[u8], &str); 8] = [
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"LZIP\x01", "lzip"),
        (b"Rar!\x1a\x07", "rar"),
        (b"\x1f\x9d\x90", "compress"),
        (b"]\0\0\x80\0", "lzma"),
    ];
    match bytes {
        [0x1f, 0x8b, 8, ..] => Some(Packing::Gzip),
        [b'P', b'K', 3, 4, ..] => Some(Packing::Zip),
        [0x78, flags, ..] if (0x7800 + u16::from(*flags)) % 31 == 0 && flags & 0x20 == 0 => {
            Some(Packing::Zlib)
        }
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y', ..] => {
            Some(Packing::Unread("bzip2"))
        }
        _ => UNREAD.iter().find(|(head, _)| bytes.starts_with(head)).map(|(_, name)| Packing::Unread(name)),
    }
}

/// Whether the first byte can begin the last block of a deflated stream that is not merely stored. Short ones have no
/// other.
pub(super) fn may_be_deflate(bytes: &[u8]) -> bool {
    bytes.len() >= 12 && bytes.first().is_some_and(|b| matches!(b & 7, 3 | 5))
}

/// What was unpacked.
pub(super) struct Unpacked {
    pub(super) bytes: Vec<u8>,
    /// How many bytes of the packed ones it took.
    pub(super) used: usize,
    /// Whether there would have been more.
    pub(super) cut: bool,
    /// Whether it ended as it should.
    pub(super) ended: bool,
}

/// Whether a deflated stream can begin with these bytes. Of what is none, this says so of nearly all whose first block has
/// codes of its own, at a thousandth of the cost: what says how long these codes are has to use up all bits.
pub(super) fn begins_deflate(bytes: &[u8]) -> bool {
    let Some(head) = bytes.first_chunk::<10>().filter(|head| head[0] & 6 == 4) else { return true };
    let bits = head.iter().rev().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let count = (bits >> 13 & 15) + 4;
    let lengths = (0..count).map(|place| bits >> (17 + 3 * place) & 7);
    let used: u32 = lengths.filter(|length| *length > 0).map(|length| 128 >> length).sum();
    bits >> 3 & 31 < 30 && bits >> 8 & 31 < 30 && used == 128
}

/// Unpacks deflated streams, one after the other: its memory is what costs most with short ones.
pub(super) struct Inflate(Decompress);

impl Inflate {
    pub(super) fn new() -> Self {
        Self(Decompress::new(false))
    }

    /// Unpacks one, up to so many bytes.
    pub(super) fn run(&mut self, packed: &[u8], zlib: bool, most: usize) -> Unpacked {
        let stream = &mut self.0;
        stream.reset(zlib);
        let mut bytes = Vec::new();
        let mut ended = false;
        loop {
            let used = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
            if bytes.len() >= most {
                return Unpacked { bytes, used, cut: !ended, ended };
            }
            bytes.reserve((packed.len() * 2).clamp(256, 64 << 10).min(most - bytes.len()));
            let before = (stream.total_in(), stream.total_out());
            let rest = packed.get(used..).unwrap_or_default();
            let status = stream.decompress_vec(rest, &mut bytes, FlushDecompress::None);
            let moved = (stream.total_in(), stream.total_out()) != before;
            ended = matches!(status, Ok(Status::StreamEnd));
            if ended || status.is_err() || !moved {
                let used = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
                return Unpacked { cut: bytes.len() > most, bytes, used, ended };
            }
        }
    }
}

/// Where in a gzip member the deflated stream begins.
pub(super) fn gzip_header(bytes: &[u8]) -> Option<usize> {
    let flags = bytes.get(3)?;
    let mut at = 10;
    if flags & 4 != 0 {
        let [low, high] = *bytes.get(at..at + 2)?.first_chunk::<2>()?;
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for text in [8, 16] {
        if flags & text != 0 {
            at += bytes.get(at..)?.iter().position(|b| *b == 0)? + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    (at <= bytes.len()).then_some(at)
}

/// Of an entry of a zip archive: how it is packed, and where its bytes begin. Its name is not looked at here.
pub(super) fn zip_entry(bytes: &[u8]) -> Option<(u16, usize)> {
    let number = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..at + 2)?.first_chunk::<2>()?));
    let method = number(8)?;
    let start = 30 + usize::from(number(26)?) + usize::from(number(28)?);
    (start <= bytes.len()).then_some((method, start))
}

/// Texts in uuencode: from `begin 644 name` to `end`.
pub(super) fn uuencoded(text: &[u8]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut at = 0;
    let begin = memchr::memmem::Finder::new(b"begin ");
    while let Some(ahead) = begin.find(text.get(at..).unwrap_or_default()) {
        let start = at + ahead;
        at = start + 6;
        let Some(end_of_line) =
            text.get(at..).and_then(|rest| rest.iter().take(128).position(|b| *b == b'\n'))
        else {
            continue;
        };
        let mut bytes = Vec::new();
        let mut line_start = at + end_of_line + 1;
        while let Some(rest) = text.get(line_start..).filter(|rest| !rest.is_empty()) {
            let length = rest.iter().take(90).position(|b| *b == b'\n').unwrap_or(rest.len().min(90));
            let Some((count, digits)) = rest.get(..length).and_then(<[u8]>::split_first) else { break };
            let count = usize::from(count.wrapping_sub(32) & 63);
            if count == 0
                || digits.len() * 3 < count * 4
                || !(b' '..=b'`').contains(&digits.first().copied().unwrap_or(0))
            {
                break;
            }
            let mut line = bits::bytes(
                digits.iter().filter_map(|b| (b' '..=b'`').contains(b).then_some(b.wrapping_sub(32) & 63)),
                6,
            );
            line.truncate(count);
            bytes.append(&mut line);
            line_start += length + 1;
        }
        if !bytes.is_empty() {
            at = line_start.min(text.len());
            runs.push(Run { range: start..at, bytes });
        }
    }
    runs
}

/// Whether there are bytes which no text has.
pub(super) fn is_binary(text: &[u8]) -> bool {
    text.iter().fold(false, |any, b| any | (*b < 9)) || std::str::from_utf8(text).is_err()
}

/// The parts of something binary that may be text, by blocks of which most is printable.
pub(super) fn textual(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    const BLOCK: usize = 1 << 10;
    let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
    for (block, at) in bytes.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
        let printable = block.iter().filter(|b| class_of(**b) & class::PRINTABLE != 0).count();
        if printable * 2 < block.len() && std::str::from_utf8(block).is_err() {
            continue;
        }
        match parts.last_mut() {
            Some(last) if last.end == at => last.end = at + block.len(),
            _ => parts.push(at..at + block.len()),
        }
    }
    parts
}
