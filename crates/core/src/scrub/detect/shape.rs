//! How a token looks: fixed characters and runs of characters of a set, verified from one place, without going back.
//!
//! Written as `ghp_<a36>`: what stands outside of the brackets is itself; inside stands the letter of a set and how many
//! of it there are, `36` or `20-44`. Each shape has a greatest width, so that verifying one takes bounded time.

use super::bytes::{Set, at, before, cut, run, run_back};

/// The most bytes a run may be written to have.
pub(crate) const MAX_RUN: usize = 4096;

/// How many bytes of its fixed beginning a shape is looked for by.
const ANCHOR: usize = 6;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Fixed(Vec<u8>),
    Run { set: Set, padded: bool, least: usize, most: usize },
}

/// A shape that can be verified at the place where its anchor was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The runs before the anchor, the last one first.
    left: Vec<Part>,
    /// From the anchor on.
    right: Vec<Part>,
}

impl Shape {
    /// Reads a shape; `None` if it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('<') {
                let (inner, after) = inner.split_once('>')?;
                parts.push(parse_run(inner)?);
                rest = after;
            } else {
                let fixed = rest.split('<').next()?;
                parts.push(Part::Fixed(fixed.as_bytes().to_vec()));
                rest = rest.strip_prefix(fixed)?;
            }
        }
        // The first long enough fixed part is the anchor; a shape without one can only be tried at a known place.
        let anchor =
            parts.iter().position(|part| matches!(part, Part::Fixed(fixed) if fixed.len() > 1)).unwrap_or(0);
        let right = parts.split_off(anchor);
        parts.reverse();
        Some(Self { left: parts, right })
    }

    /// What to look for in a text, if there is something fixed.
    pub(crate) fn anchor(&self) -> Option<&[u8]> {
        match self.right.first()? {
            Part::Fixed(fixed) => Some(fixed.get(..ANCHOR).unwrap_or(fixed)),
            Part::Run { .. } => None,
        }
    }

    /// The range of the token whose anchor stands at a place, if there is one.
    pub(crate) fn verify(&self, text: &[u8], anchor: usize) -> Option<(usize, usize)> {
        let mut start = anchor;
        for part in &self.left {
            match part {
                Part::Fixed(fixed) => {
                    start = start.checked_sub(fixed.len())?;
                    (cut(text, start, start + fixed.len()) == fixed.as_slice()).then_some(())?;
                }
                Part::Run { set, least, most, .. } => {
                    let from = run_back(text, start, *most, |byte| set.has(byte));
                    (start - from >= *least).then_some(())?;
                    start = from;
                }
            }
        }
        edge(text, start).then_some(())?;
        let end = self.match_parts(text, anchor)?;
        let last = before(text, end);
        let after = at(text, end);
        (!(last.is_ascii_alphanumeric() && after.is_ascii_alphanumeric())).then_some((start, end))
    }

    /// Whether the whole value looks so.
    pub(crate) fn is(&self, value: &[u8]) -> bool {
        self.left.is_empty() && self.match_parts(value, 0) == Some(value.len())
    }

    fn match_parts(&self, text: &[u8], mut place: usize) -> Option<usize> {
        let mut parts = self.right.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Fixed(fixed) => {
                    (cut(text, place, place + fixed.len()) == fixed.as_slice()).then_some(())?;
                    place += fixed.len();
                }
                Part::Run { set, padded, least, most } => {
                    let end = run(text, place, *most, |byte| set.has(byte));
                    let end = match parts.peek() {
                        // What follows is made of the same characters: the run ends where it begins.
                        Some(Part::Fixed(next)) if set.has(at(next, 0)) => {
                            let within = cut(text, place + least, (end + next.len()).min(text.len()));
                            place
                                + least
                                + within.windows(next.len()).position(|part| part == next.as_slice())?
                        }
                        _ => end,
                    };
                    (end - place >= *least).then_some(())?;
                    place = if *padded { run(text, end, 3, |byte| byte == b'=') } else { end };
                }
            }
        }
        Some(place)
    }
}

fn parse_run(text: &str) -> Option<Part> {
    let mut chars = text.chars();
    let letter = chars.next()?;
    let count = chars.as_str();
    let (least, most) = count.split_once('-').unwrap_or((count, count));
    let (least, most) = (least.parse().ok()?, most.parse().ok()?);
    (least <= most && (1..=MAX_RUN).contains(&most)).then_some(())?;
    Some(Part::Run { set: set(letter)?, padded: matches!(letter, 'b' | 'B'), least, most })
}

/// The sets that have a letter.
pub(crate) fn set(letter: char) -> Option<Set> {
    Some(Set::of(match letter {
        'a' => b"a-zA-Z0-9",
        'b' => b"a-zA-Z0-9+/",
        'B' => b"a-zA-Z0-9+/_-",
        'c' => b"a-z",
        'C' => b"A-Z",
        'd' => b"0-9",
        'h' => b"a-fA-F0-9",
        'l' => b"a-z0-9",
        'L' => b"a-zA-Z",
        'm' => b"a-zA-Z0-9_.=-",
        'n' => b"A-Z2-7",
        't' => b"a-zA-Z0-9_.~-",
        'u' => b"A-Z0-9",
        'v' => b"a-zA-Z0-9_",
        'w' => b"a-zA-Z0-9_-",
        'x' => b"a-f0-9",
        'y' => b"a-zA-Z0-9-",
        '%' => b"a-zA-Z0-9%+/_-",
        _ => return None,
    }))
}

/// Whether a token may begin here: no letter or digit goes before, unless as the end of an escape.
pub(crate) fn edge(text: &[u8], place: usize) -> bool {
    let last = before(text, place);
    if !last.is_ascii_alphanumeric() || !at(text, place).is_ascii_alphanumeric() {
        return true;
    }
    let one = place.checked_sub(2).map_or(0, |before| at(text, before));
    let two = place.checked_sub(3).map_or(0, |before| at(text, before));
    // `\n` and such in a quoted text, `%3D` in an address, colours of a terminal.
    (one == b'\\' && matches!(last, b'n' | b'r' | b't'))
        || (two == b'%' && one.is_ascii_hexdigit() && last.is_ascii_hexdigit())
        || (last == b'm' && (one.is_ascii_digit() || one == b'['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::string_slice, reason = "places of ASCII")]
    fn shapes() {
        for (shape, text, want) in [
            ("ab_<d3>", "x ab_123;", Some("ab_123")),
            ("ab_<d3>", "x ab_12;", None),
            ("ab_<d3>", "xab_123", None),
            ("ab_<d3>", "\\nab_123", Some("ab_123")),
            ("ab_<d3>", "ab_1234", None),
            ("ab_<d3-5>", "ab_1234", Some("ab_1234")),
            ("ab_<w2-9>EN<w2-4>", "ab_x-yENzz", Some("ab_x-yENzz")),
            ("ab_<w2-9>EN<w2-4>", "ab_xENz", None),
            ("<h4>-us<d1-2>", "key:01ab-us12", Some("01ab-us12")),
            ("<h4>-us<d1-2>", "key:z01ab-us12", None),
            ("ab:<b4>", "ab:AAAA==;", Some("ab:AAAA==")),
        ] {
            let shape = Shape::parse(shape).unwrap();
            let anchor = shape.anchor().unwrap();
            let got = text
                .as_bytes()
                .windows(anchor.len())
                .position(|window| window == anchor)
                .and_then(|place| shape.verify(text.as_bytes(), place))
                .map(|(start, end)| &text[start..end]);
            assert_eq!(got, want, "{shape:?} in {text}");
        }
        for wrong in ["<a", "<?3>", "<a9-3>", "<a0>", "<a>", "<a99999>"] {
            assert_eq!(Shape::parse(wrong), None, "{wrong}");
        }
    }
}
