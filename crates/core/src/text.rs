//! Showing hostile text to people.
//!
//! A tool's description, an argument, an error of a server: somebody may have written it to look like something
//! else. What a person decides by is therefore shown by [`line()`] or [`block`], which write every character that
//! hides, reorders or forges as `\u{…}` and say how many there were. Letters of all languages stay as they are;
//! an emoji that is joined of several falls apart, which is the price.
//!
//! A literal `\u{202e}` in the text looks the same as an escaped character; [`Shown::hidden`] tells them apart.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;
use unicode_security::MixedScript as _;

/// Text that can be shown: one character takes one place, in the order in which they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The text, hidden characters escaped.
    pub text: String,
    /// How many characters were escaped.
    pub hidden: usize,
    /// How many characters were left out at the end, because there were too many.
    pub left_out: usize,
    /// How many words have letters of several scripts, as `pаypal` with a Cyrillic `а` does.
    pub mixed: usize,
    /// How many words outside ASCII look like one inside, as `сору` in Cyrillic does.
    pub look_alike: usize,
    /// Whether there are letters that are written from right to left, and move what is beside them.
    pub right_to_left: bool,
}

impl Shown {
    /// Whether a person should be told to look twice.
    #[must_use]
    pub const fn is_suspicious(&self) -> bool {
        self.hidden > 0 || self.mixed > 0 || self.look_alike > 0
    }

    /// What there is to say about the text, in words; `None` if nothing.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let remarks: Vec<String> = [
            (self.hidden, "hidden or reordering characters, escaped"),
            (self.mixed, "words mixing scripts"),
            (self.look_alike, "words that look like others"),
            (self.left_out, "more characters, left out"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }
}

/// Shows text on one line: line ends and tabs are escaped too, so that it cannot forge a second one.
#[must_use]
pub fn line(text: &str, max_chars: usize) -> Shown {
    show(text, max_chars, |_| false)
}

/// Shows text that may have several lines.
#[must_use]
pub fn block(text: &str, max_chars: usize) -> Shown {
    show(text, max_chars, |c| matches!(c, '\n' | '\t'))
}

/// Only the text of [`line()`], with `…` where it was cut: for the middle of a message.
#[must_use]
pub fn quoted(text: &str, max_chars: usize) -> String {
    let mut shown = line(text, max_chars);
    if shown.left_out > 0 {
        shown.text.push('…');
    }
    shown.text
}

/// What a name looks like. Two names with the same skeleton are hard to tell apart: capital and small letters,
/// separators, letters of other scripts, and lookalikes such as `rn` and `m`, or `l`, `1`, `I` and `i`, count as the same, and
/// invisible characters as nothing (UTS #39).
#[must_use]
pub fn skeleton(name: &str) -> String {
    let separators = |c: char| if matches!(c, '-' | '.' | '/' | ' ') { '_' } else { c };
    let plain: String = name.nfkc().flat_map(char::to_lowercase).map(separators).collect();
    let once: String = unicode_security::confusable_detection::skeleton(&plain).collect();
    // A capital `i` is a small `l` to the eye, and the same name as a small `i`; so these are one.
    once.chars().flat_map(char::to_lowercase).map(|c| if c == 'i' { 'l' } else { c }).collect()
}

fn show(text: &str, max_chars: usize, keep: impl Fn(char) -> bool) -> Shown {
    let end = text.char_indices().nth(max_chars).map_or(text.len(), |(at, _)| at);
    let (taken, rest) = text.split_at(end);
    let mut shown = Shown {
        text: String::with_capacity(taken.len()),
        hidden: 0,
        left_out: rest.chars().count(),
        mixed: 0,
        look_alike: 0,
        right_to_left: false,
    };
    // How many more marks the last letter may carry. More than this many climb into the lines above and below.
    let mut marks_left = 0_u8;
    for character in taken.chars() {
        let is_mark = !character.is_ascii() && is_combining_mark(character);
        let hides = if is_mark { marks_left == 0 || hides(character) } else { hides(character) };
        if hides && !keep(character) {
            shown.hidden += 1;
            shown.text.extend(character.escape_unicode());
            marks_left = 0;
            continue;
        }
        shown.text.push(character);
        shown.right_to_left |= is_right_to_left(character);
        marks_left = match (is_mark, character.is_ascii_whitespace()) {
            (true, _) => marks_left.saturating_sub(1),
            (false, true) => 0,
            (false, false) => 4,
        };
    }
    if !taken.is_ascii() {
        for word in words(taken) {
            shown.mixed += usize::from(!word.is_single_script());
            shown.look_alike += usize::from(looks_like_ascii(word));
        }
    }
    shown
}

/// The words that are not ASCII.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let within = |c: char| c.is_alphanumeric() || is_combining_mark(c) || hides(c) && !c.is_whitespace();
    text.split(move |c: char| !within(c)).filter(|word| !word.is_ascii())
}

fn looks_like_ascii(word: &str) -> bool {
    word.chars().any(|c| !c.is_ascii() && c.is_alphabetic())
        && unicode_security::confusable_detection::skeleton(word).all(|c| c.is_ascii())
}

/// Whether a character has no picture of its own, looks like a plain space, moves others, or looks different everywhere.
const fn hides(character: char) -> bool {
    match character {
        ' '..='~' => false,
        // Controls (with ANSI escapes), soft hyphen, no-break space, grapheme joiner, Arabic letter mark.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' => true,
        // Fillers of Hangul, inherent vowels of Khmer, Mongolian selectors and separator, Ogham space.
        '\u{115f}' | '\u{1160}' | '\u{1680}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' => true,
        // Spaces, zero-width characters, bidirectional controls, line and paragraph separators, invisible operators.
        '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' => true,
        // Braille blank, ideographic space, Hangul fillers.
        '\u{2800}' | '\u{3000}' | '\u{3164}' | '\u{ffa0}' => true,
        // Private use; variation selectors; byte order mark; interlinear annotations and object replacement.
        '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffc}' => true,
        // Format controls of Egyptian hieroglyphs, shorthand and music.
        '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' => true,
        // Tags, more variation selectors, private use, and whatever else lies up there.
        '\u{e0000}'..='\u{10ffff}' => true,
        '\u{fdd0}'..='\u{fdef}' => true,
        // The last two of each plane are no characters.
        _ => character as u32 & 0xfffe == 0xfffe,
    }
}

const fn is_right_to_left(character: char) -> bool {
    matches!(
        character,
        '\u{590}'..='\u{8ff}'
            | '\u{fb1d}'..='\u{fdff}'
            | '\u{fe70}'..='\u{fefc}'
            | '\u{10800}'..='\u{10fff}'
            | '\u{1e800}'..='\u{1efff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_reorders_is_escaped_and_counted() {
        for (input, want, hidden) in [
            ("", "", 0),
            ("plain, with `marks` ~ and \\ too", "plain, with `marks` ~ and \\ too", 0),
            ("größer 你好 привет שלום नमस्ते 😀", "größer 你好 привет שלום नमस्ते 😀", 0),
            ("e\u{301} a\u{308}\u{323}", "e\u{301} a\u{308}\u{323}", 0),
            ("user\u{202e}cod.exe", "user\\u{202e}cod.exe", 1),
            ("\u{2066}a\u{2069}\u{200f}", "\\u{2066}a\\u{2069}\\u{200f}", 3),
            ("zero\u{200b}width\u{feff}\u{2060}\u{200d}", "zero\\u{200b}width\\u{feff}\\u{2060}\\u{200d}", 4),
            ("a\u{e0041}\u{e007f}b", "a\\u{e0041}\\u{e007f}b", 2),
            ("x\u{fe0f}\u{e0101}", "x\\u{fe0f}\\u{e0101}", 2),
            ("\u{1b}[31mred\u{1b}[0m", "\\u{1b}[31mred\\u{1b}[0m", 2),
            ("\u{9b}31m", "\\u{9b}31m", 1),
            ("bell\u{7}\0", "bell\\u{7}\\u{0}", 2),
            ("soft\u{ad}hyphen no\u{a0}break", "soft\\u{ad}hyphen no\\u{a0}break", 2),
            ("\u{3164}\u{115f}\u{2800}\u{3000}", "\\u{3164}\\u{115f}\\u{2800}\\u{3000}", 4),
            (
                "\u{e000}\u{10fffd}\u{fffe}\u{1ffff}\u{fdd0}",
                "\\u{e000}\\u{10fffd}\\u{fffe}\\u{1ffff}\\u{fdd0}",
                5,
            ),
            ("one\r\ntwo\tthree", "one\\u{d}\\u{a}two\\u{9}three", 3),
            ("a\u{2028}b", "a\\u{2028}b", 1),
            // A mark needs a letter to sit on, and a letter carries only so many.
            ("\u{301}a \u{302}", "\\u{301}a \\u{302}", 2),
            (
                "z\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}",
                "z\u{300}\u{301}\u{302}\u{303}\\u{304}\\u{305}",
                2,
            ),
        ] {
            let shown = line(input, 1000);
            assert_eq!((shown.text.as_str(), shown.hidden), (want, hidden), "input: {input:?}");
        }
        assert_eq!(block("one\n\ttwo\r", 99).text, "one\n\ttwo\\u{d}");
    }

    #[test]
    fn deceiving_words_are_counted() {
        for (input, mixed, look_alike) in [
            ("paypal", 0, 0),
            ("p\u{430}ypal", 1, 1),
            ("\u{440}\u{430}\u{443}\u{440}\u{430}l", 1, 1),
            ("\u{441}\u{43e}\u{440}\u{443}", 0, 1),
            ("Москва и Paris", 0, 0),
            ("größer naïve", 0, 0),
            ("日本語のテスト 한국어", 0, 0),
            ("αβγ and abc", 0, 0),
            ("\u{3b1}bc", 1, 1),
            ("ex\u{200b}ec \u{440}\u{200b}\u{430}y", 1, 1),
        ] {
            let shown = line(input, 1000);
            assert_eq!((shown.mixed, shown.look_alike), (mixed, look_alike), "input: {input:?}");
        }
        assert!(line("a שלום", 99).right_to_left);
        assert!(!line("a привет", 99).right_to_left);
    }

    #[test]
    fn long_text_is_cut_and_the_rest_counted() {
        let shown = line("äöü\u{200b}x", 3);
        assert_eq!((shown.text.as_str(), shown.left_out, shown.hidden), ("äöü", 2, 0));
        assert_eq!(quoted("äöü\u{200b}x", 4), "äöü\\u{200b}…");
        assert_eq!(quoted("äöü", 3), "äöü");
        assert_eq!(line("abc", 0).left_out, 3);
        assert_eq!(shown.remark().as_deref(), Some("2 more characters, left out"));
        assert_eq!(
            line("p\u{430}y\u{200b}", 9).remark().as_deref(),
            Some(
                "1 hidden or reordering characters, escaped; 1 words mixing scripts; 1 words that look like others"
            )
        );
        assert_eq!(line("abc", 3).remark(), None);
        assert!(!line("abc", 1).is_suspicious() && line("\0", 1).is_suspicious());
    }

    #[test]
    fn names_that_look_alike_share_a_skeleton() {
        for (one, other) in [
            ("github", "GitHub"),
            ("github", "g\u{456}thub"),
            ("github", "gi\u{200b}thub"),
            ("github", "ｇｉｔｈｕｂ"),
            ("list", "1ist"),
            ("list", "Iist"),
            ("list", "LIST"),
            ("admin", "adrnin"),
            ("get_item", "get-item"),
            ("get_item", "get.Item"),
            ("o0", "0O"),
        ] {
            assert_eq!(skeleton(one), skeleton(other), "{one:?} and {other:?}");
        }
        for (one, other) in
            [("github", "gitlab"), ("read", "write"), ("get_item", "get_items"), ("a_b", "ab")]
        {
            assert_ne!(skeleton(one), skeleton(other), "{one:?} and {other:?}");
        }
    }
}
