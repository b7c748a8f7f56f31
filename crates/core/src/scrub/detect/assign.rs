//! Names and the values that are given to them, in whatever is written down: programs, configuration, logs, markup,
//! tables, command lines, sentences.

use std::ops::Range;

use super::bytes::{at, before, cut, find, goes_on, run, run_back};
use super::name::MAX_NAME;
use super::value::{MAX_VALUE, Written};

/// How sure it is that something is the value of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sure {
    /// It stands behind it, with nothing but a space between.
    Near,
    /// It is said in a sentence, or stands where a value is only likely.
    Likely,
    /// It is assigned to it.
    Given,
}

/// A name, and the value given to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Where the value is.
    pub(crate) value: Range<usize>,
    /// How it is written.
    pub(crate) written: Written,
    /// How sure it is that it is the value of that name.
    pub(crate) sure: Sure,
    /// Whether more values may follow, as in a list.
    pub(crate) listed: bool,
}

const fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$' | 128..)
}

/// The whole name that a word is part of.
pub(crate) fn name_around(text: &[u8], word: Range<usize>) -> Range<usize> {
    let mut start = run_back(text, word.start, MAX_NAME, in_name);
    let mut end = run(text, word.end, MAX_NAME, in_name);
    while end > word.end && matches!(before(text, end), b'.' | b'-' | b'$') {
        end -= 1;
    }
    // The letter of an escape is no part of it: `\npassword=`.
    if before(text, start) == b'\\' && matches!(at(text, start), b'n' | b'r' | b't') && start < word.start {
        start += 1;
    }
    // `user.password-hunter2`: what follows two dots or dashes is no name.
    start..end
}

/// `API key`, `secret access key`: a name of several words is joined, if the last says too little.
pub(crate) fn words_before(text: &[u8], name: &Range<usize>) -> Range<usize> {
    let mut start = name.start;
    for _ in 0..2 {
        if before(text, start) != b' ' {
            break;
        }
        let word = run_back(text, start - 1, 16, |byte| byte.is_ascii_alphabetic());
        if word + 1 >= start
            || !matches!(
                before(text, word),
                b' ' | 0 | b'\n' | b'"' | b'\'' | b'*' | b'>' | b'|' | b'(' | b'-' | b'_' | b'`'
            )
        {
            break;
        }
        start = word;
    }
    start..name.end
}

fn spaces(text: &[u8], from: usize) -> usize {
    run(text, from, 64, |byte| matches!(byte, b' ' | b'\t'))
}

fn white(text: &[u8], from: usize) -> usize {
    run(text, from, 96, |byte| byte.is_ascii_whitespace())
}

/// The value that is given to a name which ends at a place, if one is.
pub(crate) fn value_after(text: &[u8], name: &Range<usize>, work: &mut usize) -> Option<Assignment> {
    let flag = before(text, name.start) == b'-' || at(text, name.start) == b'-';
    let mut place = name.end;
    let mut call = false;
    let mut markup = false;
    // What closes the name: quotes, also escaped ones, brackets, marks of Markdown.
    let closed =
        run(text, place, 6, |byte| matches!(byte, b'"' | b'\'' | b'`' | b']' | b'\\' | b')' | b'*' | b'}'));
    let quoted_name = cut(text, place, closed).iter().any(|byte| matches!(byte, b'"' | b'\'' | b'`'));
    if at(text, closed) == b'(' && closed == place {
        call = true;
        place += 1;
    } else {
        place = closed;
    }
    let after_spaces = spaces(text, place);
    if call {
        return quoted(text, work, white(text, place), true)
            .map(|value| Assignment { sure: Sure::Likely, ..value });
    }
    // `?`, `!`: of a name in TypeScript or in a query.
    let sign = if matches!(at(text, after_spaces), b'?' | b'!')
        && matches!(at(text, after_spaces + 1), b':' | b'=')
    {
        after_spaces + 1
    } else {
        after_spaces
    };
    let mut sure = Sure::Given;
    let mut next = match (at(text, sign), at(text, sign + 1), at(text, sign + 2)) {
        (b':', b'=', _)
        | (b'=', b'>', _)
        | (b'-', b'>', _)
        | (b'=', b'=', b' ')
        | (b'?', b'=', _)
        | (b'+', b'=', _) => sign + 2,
        (b'=', b'=', b'=') | (b'!', b'=', b'=') | (b':', b':', b'=') | (b'|', b'|', b'=') => sign + 3,
        (b'=', b'=', _) if matches!(at(text, sign + 2), b'"' | b'\'') => sign + 2,
        (b'!', b'=', _) => sign + 2,
        (b'%', b'3', b'D' | b'd') | (b'%', b'3', b'A' | b'a') => sign + 3,
        (b':', b':', _) => return None,
        (b'=', ..) => sign + 1,
        (b':', ..) => {
            // `password: string = "…"`, `password: &str = "…"`.
            let from = spaces(text, sign + 1);
            let kind = run(text, from, 40, |byte| {
                byte.is_ascii_alphanumeric()
                    || matches!(byte, b'&' | b'<' | b'>' | b'_' | b'.' | b'?' | b'|' | b'\'')
            });
            let equals = spaces(text, kind);
            if kind > from
                && at(text, equals) == b'='
                && !matches!(at(text, equals + 1), b'=' | b'>')
                && !cut(text, from, kind).iter().any(u8::is_ascii_digit)
            {
                equals + 1
            } else {
                sign + 1
            }
        }
        (b',', ..) | (b'/', b'>', _) => {
            let from = white(text, sign + 1);
            return beside(text, work, from)
                .or_else(|| quoted(text, work, from, false))
                .map(|value| Assignment { sure: Sure::Likely, ..value });
        }
        (b'|', ..) => {
            sure = Sure::Likely;
            sign + 1
        }
        (b'>', ..) => {
            markup = true;
            sign + 1
        }
        (b'<', b'/', _) => return next_element(text, work, sign),
        (0xef, 0xbc, 0x9d) | (0xef, 0xbc, 0x9a) => sign + 3, // ＝ and ：
        (b'"' | b'\'', ..) if sign > place => return quoted(text, work, sign, false),
        (b'i', b's', b' ' | b':') | (b'w', b'a', b's') if sign > place => {
            sure = Sure::Likely;
            run(text, sign, 3, |byte| byte.is_ascii_alphabetic() || byte == b':')
        }
        _ if quoted_name && sign > place => {
            return beside(text, work, sign).map(|value| Assignment { sure: Sure::Likely, ..value });
        }
        _ if quoted_name && at(text, place) == b'\n' => return beside(text, work, white(text, place)),
        _ if before(text, name.start) == b'<' => {
            // An element with attributes.
            let end = run(text, sign, 128, |byte| !matches!(byte, b'>' | b'\n'));
            (at(text, end) == b'>' && before(text, end) != b'/').then_some(())?;
            markup = true;
            end + 1
        }
        (0, ..) | (b'\n', ..) | (b'\r', ..) => return beside(text, work, white(text, place)),
        _ if flag && sign > place => {
            let value = quoted(text, work, sign, false).or_else(|| bare(text, work, sign, false))?;
            return Some(Assignment { written: Written::Quoted, ..value });
        }
        _ if sign > place => {
            // Of devices: `password 7 …`, where the digit says how it is stored.
            let stored = at(text, sign).is_ascii_digit() && at(text, sign + 1) == b' ';
            let value = bare(text, work, if stored { sign + 2 } else { sign }, false)?;
            return Some(Assignment { sure: Sure::Near, ..value });
        }
        _ => return None,
    };
    // What closes a mark of Markdown after the colon: `**Password:** hunter2`.
    next = run(text, next, 3, |byte| byte == b'*');
    let mut from = spaces(text, next);
    if markup && (at(text, from) == b'<' || matches!(at(text, from), b'\n' | b'\r')) {
        from = white(text, from);
        if goes_on(text, from, b"<![CDATA[") {
            from += 9;
            *work += MAX_VALUE;
            let end = from + find(cut(text, from, (from + MAX_VALUE).min(text.len())), b"]]>")?;
            return Some(Assignment { value: from..end, written: Written::Quoted, sure, listed: false });
        }
    }
    if markup {
        let end = run(text, from, MAX_VALUE, |byte| byte != b'<' && byte != b'\n');
        *work += end - from;
        let end = trim_end(text, from, end);
        return (end > from && at(text, from) != b'<').then_some(Assignment {
            value: from..end,
            written: Written::Quoted,
            sure: Sure::Likely,
            listed: false,
        });
    }
    // `password: <b>…`, or the end of an element: `<b>Password:</b> hunter2`.
    if at(text, from) == b'<' && (at(text, from + 1) == b'/' || sure < Sure::Given) {
        from = run(text, from, 32, |byte| byte != b'>') + 1;
        from = spaces(text, from);
        sure = Sure::Likely;
    }
    // A value in the next line: of JSON, of a block in YAML.
    if matches!(at(text, from), b'\n' | b'\r')
        || (matches!(at(text, from), b'|' | b'>') && matches!(at(text, from + 1), b'\n' | b'-' | b'+'))
    {
        let block = matches!(at(text, from), b'|' | b'>');
        let line = white(text, run(text, from, 3, |byte| matches!(byte, b'|' | b'>' | b'-' | b'+')));
        if block {
            return bare(text, work, line, false)
                .map(|value| Assignment { written: Written::Quoted, ..value });
        }
        return quoted(text, work, line, false)
            .filter(|value| at(text, value.value.end + 1) != b':')
            .map(|value| Assignment { sure: Sure::Likely, ..value });
    }
    // Lists, and functions that only wrap a literal: `[`, `{"`, `String("`, `new X("`, `b"`, `@"`, `r#"`.
    let mut listed = false;
    if matches!(at(text, from), b'[' | b'{' | b'(') {
        listed = at(text, from) == b'[';
        from = white(text, from + 1);
        return quoted(text, work, from, listed).map(|value| Assignment { sure: Sure::Likely, ..value });
    }
    let prefix = run(text, from, 3, |byte| {
        matches!(byte, b'b' | b'r' | b'u' | b'f' | b'L' | b'@' | b'#' | b'$' | b'B' | b'R')
    });
    if prefix > from && matches!(at(text, prefix), b'"' | b'\'') {
        from = prefix;
    }
    if let Some(value) = quoted(text, work, from, listed) {
        return Some(Assignment { sure, ..value });
    }
    let wrapped = run(text, from, 48, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b' ' | b'&' | b'!')
    });
    if at(text, wrapped) == b'(' && matches!(at(text, wrapped + 1), b'"' | b'\'') {
        let called = cut(text, from, wrapped);
        let asks = super::bytes::has_any(
            called,
            &[
                "get",
                "env",
                "read",
                "prompt",
                "input",
                "find",
                "lookup",
                "config",
                "load",
                "fetch",
                "var",
                "require",
                "param",
                "query",
                "select",
                "t(",
                "translate",
            ],
        );
        return quoted(text, work, wrapped + 1, false)
            .filter(|_| !asks && !called.ends_with(b"t") && !called.is_empty())
            .map(|value| Assignment { sure: Sure::Likely, ..value });
    }
    bare(
        text,
        work,
        from,
        at(text, name.start.wrapping_sub(1)) == b'&' || at(text, name.start.wrapping_sub(1)) == b'?',
    )
    .map(|value| Assignment { sure, ..value })
}

/// The next value of a list.
pub(crate) fn next_in_list(text: &[u8], last: &Assignment, work: &mut usize) -> Option<Assignment> {
    let closed = run(text, last.value.end, 2, |byte| matches!(byte, b'"' | b'\'' | b'\\'));
    let comma = white(text, closed);
    (last.listed && at(text, comma) == b',').then_some(())?;
    quoted(text, work, white(text, comma + 1), true)
}

/// A value in quotes, also in escaped ones.
fn quoted(text: &[u8], work: &mut usize, from: usize, listed: bool) -> Option<Assignment> {
    let escaped = run(text, from, 3, |byte| byte == b'\\') - from;
    let open = from + escaped;
    let quote = at(text, open);
    if !matches!(quote, b'"' | b'\'' | b'`') {
        // Typographic quotes, and those that markup writes.
        for (open, close) in
            [("“", "”"), ("&quot;", "&quot;"), ("&#34;", "&#34;"), ("%22", "%22"), ("«", "»"), ("‘", "’")]
        {
            if goes_on(text, from, open.as_bytes()) {
                *work += 512;
                let start = from + open.len();
                let end = start + find(cut(text, start, (start + 512).min(text.len())), close.as_bytes())?;
                return Some(Assignment {
                    value: start..end,
                    written: Written::Quoted,
                    sure: Sure::Given,
                    listed,
                });
            }
        }
        return None;
    }
    let mut start = open + 1;
    let triple = at(text, start) == quote && at(text, start + 1) == quote;
    if triple {
        start += 2;
    }
    let mut place = start;
    let limit = start.saturating_add(MAX_VALUE).min(text.len());
    while place < limit {
        let here = at(text, place);
        if here == b'\\' {
            if escaped > 0 && at(text, place + escaped) == quote {
                break;
            }
            place += 2;
        } else if here == quote || (here == b'\n' && !triple && quote != b'`') {
            break;
        } else {
            place += 1;
        }
    }
    let end = place.min(limit);
    *work += end - from;
    (end > start && matches!(at(text, end), b'"' | b'\'' | b'`' | b'\\' | 0 | b'\n')).then_some(())?;
    Some(Assignment { value: start..end, written: Written::Quoted, sure: Sure::Given, listed })
}

/// A value without quotes: to the next white space, or what else ends one there.
fn bare(text: &[u8], work: &mut usize, from: usize, query: bool) -> Option<Assignment> {
    let end = run(text, from, MAX_VALUE, |byte| {
        !(byte.is_ascii_whitespace()
            || matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>' | b'|' | 0)
            || (query && matches!(byte, b'&' | b'#')))
    });
    *work += end - from;
    // `a=1;b=2`, `a=1,b=2`, `a=1&b=2`: another name follows.
    let mut end = end;
    for place in from..end {
        let here = at(text, place);
        if matches!(here, b';' | b',' | b'&') {
            let name = run(text, place + 1, 40, |byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'%')
            });
            if (name > place + 1 && matches!(at(text, name), b'=' | b':' | b' '))
                || place + 1 == end
                || here == b';'
            {
                end = place;
                break;
            }
        } else if here == b'\\' && matches!(at(text, place + 1), b'n' | b'r' | b't' | b'"' | b'\\') {
            end = place;
            break;
        }
    }
    let end = trim_end(text, from, end);
    (end > from).then_some(Assignment {
        value: from..end,
        written: Written::Bare,
        sure: Sure::Given,
        listed: false,
    })
}

/// Without the signs that end a sentence or close something.
fn trim_end(text: &[u8], from: usize, mut end: usize) -> usize {
    while end > from
        && matches!(
            before(text, end),
            b',' | b';' | b')' | b']' | b'}' | b'.' | b':' | b' ' | b'\t' | b'\r' | b'*'
        )
    {
        let last = before(text, end);
        if last == b')' && cut(text, from, end).contains(&b'(') {
            break;
        }
        if last == b'}' && cut(text, from, end).contains(&b'{') {
            break;
        }
        if last == b']' && cut(text, from, end).contains(&b'[') {
            break;
        }
        end -= 1;
    }
    end
}

/// `"name": "token", "value": "…"`, `name: token` and `value: …` below, `key="token" value="…"`.
fn beside(text: &[u8], work: &mut usize, from: usize) -> Option<Assignment> {
    let start = run(text, from, 4, |byte| matches!(byte, b'"' | b'\'' | b'\\' | b'-' | b','));
    let start = white(text, start);
    let start = run(text, start, 2, |byte| matches!(byte, b'"' | b'\''));
    for word in [b"defaultValue".as_slice(), b"value", b"content", b"val", b"plaintext", b"text", b"string"] {
        if goes_on(text, start, word) {
            let end = start + word.len();
            let name = start..end;
            if in_name(at(text, end)) {
                continue;
            }
            let closed = run(text, end, 2, |byte| matches!(byte, b'"' | b'\'' | b'\\'));
            let sign = spaces(text, closed);
            matches!(at(text, sign), b':' | b'=').then_some(())?;
            return value_after(text, &name, work).filter(|value| value.value.start > sign);
        }
    }
    None
}

/// `<key>password</key><string>…</string>`.
fn next_element(text: &[u8], work: &mut usize, from: usize) -> Option<Assignment> {
    let close = run(text, from, 32, |byte| byte != b'>') + 1;
    let open = white(text, close);
    let start = if at(text, open) == b'<' && at(text, open + 1) != b'/' {
        run(text, open, 48, |byte| byte != b'>') + 1
    } else {
        return None;
    };
    let end = run(text, start, MAX_VALUE, |byte| byte != b'<' && byte != b'\n');
    *work += end - from;
    (end > start && at(text, end) == b'<').then_some(Assignment {
        value: start..end,
        written: Written::Quoted,
        sure: Sure::Likely,
        listed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::string_slice, reason = "places of ASCII")]
    fn values_of_names() {
        for (text, want) in [
            ("password = \"a b\"", Some("a b")),
            ("password: x1", Some("x1")),
            ("\"password\": \"x\\\"1\",", Some("x\\\"1")),
            ("\\\"password\\\": \\\"x1\\\",", Some("x1")),
            ("password := `x1`", Some("x1")),
            ("['password'] => 'x1'", Some("x1")),
            ("--password x1", Some("x1")),
            ("<password>x1</password>", Some("x1")),
            ("<password type=\"t\">x1</password>", Some("x1")),
            ("key=\"password\" value=\"x1\"", Some("x1")),
            ("{\"name\": \"password\", \"value\": \"x1\"}", Some("x1")),
            ("- name: password\n  value: x1", Some("x1")),
            ("<key>password</key>\n<string>x1</string>", Some("x1")),
            ("Password=x1;Server=y", Some("x1")),
            ("password=x1&user=y", Some("x1")),
            ("password: String = \"x1\"", Some("x1")),
            ("setpassword(\"x1\")", Some("x1")),
            ("password is x1.", Some("x1")),
            ("**password:** x1", Some("x1")),
            ("password: |\n  x1\n", Some("x1")),
            ("password", None),
            ("password::new()", None),
        ] {
            let word = find(text.as_bytes(), b"password").unwrap();
            let name = name_around(text.as_bytes(), word..word + 8);
            let got = value_after(text.as_bytes(), &name, &mut 0).map(|value| &text[value.value]);
            assert_eq!(got, want, "{text}");
        }
    }
}
