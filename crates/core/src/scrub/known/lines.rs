//! Texts in which something stands before each line: offsets and digits of a dump, line numbers, times, `data:`.

use super::unescape::{Derived, Deriver};

/// What is left of a text without that.
pub(super) struct Bare {
    pub(super) text: Derived,
    /// Whether the digits of a dump are left: what they say stands a second time at the end of the line.
    pub(super) is_dump: bool,
}

/// The readings of a text of which lines have something before them.
pub(super) fn bare(source: &[u8]) -> Vec<Bare> {
    let mut digits: Option<Deriver<'_>> = None;
    let mut rests: Option<Deriver<'_>> = None;
    let mut at = 0;
    let mut copied = 0;
    // Where the next offset is that begins with zeros.
    let mut zeros = 0;
    let next_zeros = memchr::memmem::Finder::new(ZEROS);
    for end in memchr::memchr_iter(b'\n', source).map(|end| end + 1).chain([source.len()]) {
        if end == at {
            continue;
        }
        let length = end - at;
        let line = source.get(at..end).unwrap_or_default();
        if zeros <= at {
            let behind = source.get(at..).unwrap_or_default();
            zeros = at + next_zeros.find(behind).unwrap_or(behind.len());
        }
        let dump = dump(line, (zeros + ZEROS.len() <= end).then(|| zeros - at));
        let from = dump.map_or_else(|| before(line), |(_, to)| to);
        if from > 0 && length < source.len() {
            let digits = digits.get_or_insert_with(|| Deriver::new(source));
            digits.copy(copied, at);
            if let Some((from, to)) = dump {
                let rests = rests.get_or_insert_with(|| Deriver::new(source));
                digits.copy(at + from, at + to);
                rests.copy(at + to, at + length);
                copied = at + length;
            } else {
                copied = at + from;
            }
        }
        at += length;
    }
    let is_dump = rests.is_some();
    let digits = digits.map(|mut digits| {
        digits.copy(copied, source.len());
        Bare { text: digits.finish(), is_dump }
    });
    let rests = rests.map(|rests| Bare { text: rests.finish(), is_dump: false });
    digits.into_iter().chain(rests).collect()
}

/// The first line of a dump may stand behind something else.
const ZEROS: &[u8] = b"0000000";

/// Where in a line of a dump its digits are: after an offset and some space, in groups of 2, 4 or 8, 16 bytes at most.
fn dump(line: &[u8], zeros: Option<usize>) -> Option<(usize, usize)> {
    let is_hex = |b: &&u8| b.is_ascii_hexdigit();
    let spaces = |from: usize| {
        line.get(from..).unwrap_or_default().iter().take_while(|b| matches!(b, b' ' | b'\t' | b'|')).count()
    };
    let start = zeros.unwrap_or_else(|| spaces(0));
    let offset = line.get(start..)?.iter().take(20).take_while(is_hex).count();
    if !(4..=16).contains(&offset) {
        return None;
    }
    let mut at = start + offset;
    let colon = usize::from(line.get(at) == Some(&b':'));
    at += colon + spaces(at + colon);
    let from = at;
    let mut count = 0;
    let mut end = at;
    while count < 32 {
        let group = line.get(at..)?.iter().take(33).take_while(is_hex).count();
        let ends = line.get(at + group).is_none_or(|b| b.is_ascii_whitespace() || *b == b'|' || *b == b'-');
        if group % 2 != 0 || group == 0 || !ends && count > 0 {
            break;
        }
        if !ends {
            return None;
        }
        count += group;
        end = at + group;
        let gap = usize::from(line.get(end) == Some(&b'-')).max(spaces(end));
        at = end + gap;
        if gap > 2 || gap == 0 {
            break;
        }
    }
    (count >= 2 && end > from).then_some((from, end))
}

/// How much of the line stands before what it says: a date and time, a word of a log, `data:`, or one number.
fn before(line: &[u8]) -> usize {
    const LEVELS: [&str; 10] =
        ["data", "trace", "debug", "info", "notice", "warning", "warn", "error", "stdout", "stderr"];
    const COUNTED: [&str; 4] = ["line", "part", "chunk", "item"];
    let marks = |at: usize| {
        let rest = line.get(at..).unwrap_or_default();
        at + rest.iter().take_while(|b| !b.is_ascii_alphanumeric() && b.is_ascii()).count()
    };
    // Most lines begin with another word.
    let first = line.get(marks(0)).map_or(0, u8::to_ascii_lowercase);
    if !matches!(first, b'0'..=b'9' | b'c' | b'd' | b'e' | b'i' | b'l' | b'n' | b'p' | b's' | b't' | b'w') {
        return 0;
    }
    let after = |at: usize, length: Option<usize>| length.map(|length| marks(at) + length);
    let rest = |at: usize| line.get(marks(at)..).unwrap_or_default();
    let time = after(0, time(rest(0)));
    let dated = time.unwrap_or(0);
    if let Some(at) = after(dated, word(rest(dated), &LEVELS)) {
        return at;
    }
    match (time, after(0, word(rest(0), &COUNTED))) {
        (Some(at), _) => at,
        (None, Some(at)) => after(at, number(rest(at))).unwrap_or(at),
        (None, None) => after(0, number(rest(0))).unwrap_or(0),
    }
}

/// One of the words, if something other than a letter follows.
fn word(rest: &[u8], words: &[&str]) -> Option<usize> {
    let length = rest.iter().take(16).take_while(|b| b.is_ascii_alphabetic()).count();
    let head = rest.get(..length)?;
    let ends = rest.get(length).is_some_and(u8::is_ascii);
    (ends && words.iter().any(|word| head.eq_ignore_ascii_case(word.as_bytes()))).then_some(length)
}

/// `2024-05-01T10:20:30.123Z`, or with a space between.
fn time(rest: &[u8]) -> Option<usize> {
    let is = |at: usize, mark: u8| rest.get(at) == Some(&mark);
    if !rest.first()?.is_ascii_digit() || !is(4, b'-') || !is(7, b'-') {
        return None;
    }
    if !is(13, b':') || !is(16, b':') {
        return Some(10);
    }
    let more = rest
        .get(19..)?
        .iter()
        .take(16)
        .take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b',' | b'Z' | b'+'));
    Some(19 + more.count())
}

/// A number, if something other than a letter follows.
fn number(rest: &[u8]) -> Option<usize> {
    let length = rest.iter().take(12).take_while(|b| b.is_ascii_digit()).count();
    let ends = rest.get(length).is_some_and(|b| b.is_ascii() && !b.is_ascii_alphanumeric());
    (length > 0 && ends).then_some(length)
}

/// Morse code as letters, if there is any.
pub(super) fn morse(source: &[u8]) -> Option<Derived> {
    const LETTERS: [(&str, u8); 39] = [
        (".-", b'a'),
        ("-...", b'b'),
        ("-.-.", b'c'),
        ("-..", b'd'),
        (".", b'e'),
        ("..-.", b'f'),
        ("--.", b'g'),
        ("....", b'h'),
        ("..", b'i'),
        (".---", b'j'),
        ("-.-", b'k'),
        (".-..", b'l'),
        ("--", b'm'),
        ("-.", b'n'),
        ("---", b'o'),
        (".--.", b'p'),
        ("--.-", b'q'),
        (".-.", b'r'),
        ("...", b's'),
        ("-", b't'),
        ("..-", b'u'),
        ("...-", b'v'),
        (".--", b'w'),
        ("-..-", b'x'),
        ("-.--", b'y'),
        ("--..", b'z'),
        ("-----", b'0'),
        (".----", b'1'),
        ("..---", b'2'),
        ("...--", b'3'),
        ("....-", b'4'),
        (".....", b'5'),
        ("-....", b'6'),
        ("--...", b'7'),
        ("---..", b'8'),
        ("----.", b'9'),
        ("..--.-", b'_'),
        ("-....-", b'-'),
        (".-.-.-", b'.'),
    ];
    /// So many characters of Morse code say no more than a few letters.
    const LEAST: usize = 24;
    let is_sign = |b: u8| matches!(b, b'.' | b'-');
    let is_code = |b: u8| is_sign(b) || matches!(b, b' ' | b'/' | b'|' | b'\n');
    let mut deriver: Option<Deriver<'_>> = None;
    let mut at = 0;
    while at + LEAST <= source.len() {
        // A stretch of this length that begins here or before the middle has all from there on.
        let is_code_at = |ahead: usize| source.get(at + ahead).is_some_and(|b| is_code(*b));
        if !(is_code_at(LEAST / 2) & is_code_at(LEAST * 3 / 4) & is_code_at(LEAST - 1)) {
            at += LEAST / 2;
            continue;
        }
        let stretch = source.get(at..)?.iter().take_while(|b| is_code(**b)).count();
        if stretch < LEAST {
            at += stretch + 1;
            continue;
        }
        let end = at + stretch;
        while at < end {
            let length = source.get(at..end)?.iter().take_while(|b| is_sign(**b)).count();
            if length == 0 {
                at += 1;
                continue;
            }
            let sign = source.get(at..at + length)?;
            if let Some((_, letter)) = LETTERS.iter().find(|(code, _)| code.as_bytes() == sign) {
                let deriver = deriver.get_or_insert_with(|| Deriver::new(source));
                deriver.decoded(at, &[*letter]);
                deriver.gap(at + length);
            }
            at += length;
        }
    }
    deriver.map(Deriver::finish)
}
