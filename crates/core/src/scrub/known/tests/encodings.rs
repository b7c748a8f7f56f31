//! Ways to write a value down: what a careless program does, what a hostile one may, and what only somebody does who
//! knows what is looked for.
//!
//! The encoders are written apart from what finds them, and plainly.
#![expect(clippy::string_slice, reason = "texts of tests are cut where it is known what is there")]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Each one is found.
    Must,
    /// 98 in 100 are.
    Should,
    /// Half of them are.
    Stretch,
}

/// One way.
pub(super) struct Encoding {
    pub(super) name: &'static str,
    pub(super) class: Class,
    pub(super) encode: Encode,
}

type Encode = fn(&str) -> Vec<u8>;

const STANDARD: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn groups(bytes: &[u8], size: usize, digits: usize, bits: usize, alphabet: &[u8], pad: bool) -> String {
    let mut out = String::new();
    for group in bytes.chunks(size) {
        let mut text = String::new();
        for byte in group {
            text += &format!("{byte:08b}");
        }
        while !text.len().is_multiple_of(bits) {
            text.push('0');
        }
        let used = text.len() / bits;
        for at in 0..used {
            let value = usize::from_str_radix(&text[at * bits..(at + 1) * bits], 2).unwrap();
            out.push(char::from(alphabet[value]));
        }
        if pad {
            out.push_str(&"=".repeat(digits - used));
        }
    }
    out
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    groups(bytes.as_ref(), 3, 4, 6, STANDARD, true)
}

fn b64url(bytes: impl AsRef<[u8]>) -> String {
    groups(bytes.as_ref(), 3, 4, 6, URL, false)
}

fn b32(bytes: impl AsRef<[u8]>) -> String {
    groups(bytes.as_ref(), 5, 8, 5, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", true)
}

pub(super) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn le16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn be16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

pub(super) fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(bytes.as_ref()).unwrap();
    out.finish().unwrap()
}

fn zlib(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::best());
    out.write_all(bytes.as_ref()).unwrap();
    out.finish().unwrap()
}

fn deflate(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = DeflateEncoder::new(Vec::new(), Compression::default());
    out.write_all(bytes.as_ref()).unwrap();
    out.finish().unwrap()
}

fn zip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let packed = deflate(bytes.as_ref());
    let mut out = b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
    out.extend(u32::try_from(bytes.as_ref().len()).unwrap().to_le_bytes());
    out.extend(b"\x05\0\0\0a.txt");
    out.extend(packed);
    out
}

fn each(text: &str, write: impl Fn(u8) -> String) -> Vec<u8> {
    text.bytes().map(write).collect::<String>().into_bytes()
}

fn each_char(text: &str, write: impl Fn(char) -> String) -> Vec<u8> {
    text.chars().map(write).collect::<String>().into_bytes()
}

fn joined(text: &str, by: &str, write: impl Fn(u8) -> String) -> String {
    text.bytes().map(write).collect::<Vec<_>>().join(by)
}

fn spaced(text: &str, by: &str) -> Vec<u8> {
    text.chars().map(String::from).collect::<Vec<_>>().join(by).into_bytes()
}

fn lines(text: &str, width: usize, end: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(width).map(|line| line.iter().collect::<String>()).collect::<Vec<_>>().join(end)
}

fn pieces(text: &str, width: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(width).map(|piece| piece.iter().collect()).collect()
}

fn percent_all(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn units(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

fn dump(text: &str, words: usize, line: impl Fn(usize, &str, &str) -> String) -> Vec<u8> {
    let mut out = String::new();
    for (at, row) in text.as_bytes().chunks(16).enumerate() {
        let digits: Vec<String> = row.chunks(words).map(hex).collect();
        let shown: String = row
            .iter()
            .map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' })
            .collect();
        out += &line(at * 16, &digits.join(" "), &shown);
    }
    out.into_bytes()
}

fn eighty_five(bytes: &[u8], alphabet: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(4) {
        let mut whole = [0; 4];
        whole[..group.len()].copy_from_slice(group);
        let mut number = u32::from_be_bytes(whole);
        let mut digits = [0; 5];
        for digit in digits.iter_mut().rev() {
            *digit = alphabet[(number % 85) as usize];
            number /= 85;
        }
        out += std::str::from_utf8(&digits[..=group.len()]).unwrap();
    }
    out
}

fn ascii85(bytes: &[u8]) -> String {
    let alphabet: Vec<u8> = (33..118).collect();
    eighty_five(bytes, &alphabet)
}

fn uu(bytes: &[u8]) -> String {
    let alphabet: Vec<u8> = (0..64).map(|v| if v == 0 { b'`' } else { 32 + v }).collect();
    let mut out = "begin 644 data\n".to_owned();
    for line in bytes.chunks(45) {
        let mut whole = line.to_vec();
        while whole.len() % 3 != 0 {
            whole.push(0);
        }
        out.push(char::from(32 + u8::try_from(line.len()).unwrap()));
        out += &groups(&whole, 3, 4, 6, &alphabet, false);
        out.push('\n');
    }
    out + "`\nend\n"
}

fn quoted_printable(text: &str, all: bool) -> String {
    let mut out = String::new();
    let mut column = 0;
    for byte in text.bytes() {
        let shown = if !all && byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("={byte:02X}")
        };
        if column + shown.len() > 20 {
            out += "=\n";
            column = 0;
        }
        column += shown.len();
        out += &shown;
    }
    out
}

fn large_number(bytes: &[u8], alphabet: &[u8]) -> String {
    let mut number = bytes.to_vec();
    let mut out = Vec::new();
    while number.iter().any(|b| *b != 0) {
        let mut rest = 0_usize;
        for byte in &mut number {
            let value = rest * 256 + usize::from(*byte);
            *byte = u8::try_from(value / alphabet.len()).unwrap();
            rest = value % alphabet.len();
        }
        out.push(alphabet[rest]);
    }
    out.reverse();
    String::from_utf8(out).unwrap()
}

fn shifted(text: &str, by: u8) -> Vec<u8> {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' => b'a' + (b - b'a' + by) % 26,
            b'A'..=b'Z' => b'A' + (b - b'A' + by) % 26,
            _ => b,
        })
        .collect()
}

fn mapped(text: &str, small: u32, capital: u32, digit: u32) -> Vec<u8> {
    each_char(text, |c| {
        let code = c as u32;
        let code = match c {
            'a'..='z' => small + code - 'a' as u32,
            'A'..='Z' => capital + code - 'A' as u32,
            '0'..='9' if digit != 0 => digit + code - '0' as u32,
            _ => code,
        };
        char::from_u32(code).unwrap_or(c).to_string()
    })
}

fn look_alike(text: &str) -> Vec<u8> {
    each_char(text, |c| {
        let alike = match c {
            'a' => 'а',
            'c' => 'с',
            'e' => 'е',
            'o' => 'о',
            'p' => 'р',
            'x' => 'х',
            'y' => 'у',
            'i' => 'і',
            's' => 'ѕ',
            'A' => 'А',
            'B' => 'В',
            'C' => 'С',
            'E' => 'Е',
            'H' => 'Н',
            'I' => 'І',
            'K' => 'К',
            'M' => 'М',
            'O' => 'О',
            'P' => 'Р',
            'S' => 'Ѕ',
            'T' => 'Т',
            'X' => 'Х',
            other => other,
        };
        alike.to_string()
    })
}

fn morse(text: &str) -> Vec<u8> {
    const CODES: &str = "a.- b-... c-.-. d-.. e. f..-. g--. h.... i.. j.--- k-.- l.-.. m-- n-. o--- p.--. q--.- r.-. \
        s... t- u..- v...- w.-- x-..- y-.-- z--.. 0----- 1.---- 2..--- 3...-- 4....- 5..... 6-.... 7--... 8---.. 9----. \
        _..--.- --....- ..-.-.-";
    text.chars()
        .filter_map(|c| {
            CODES.split(' ').find(|code| code.starts_with(c.to_ascii_lowercase())).map(|code| &code[1..])
        })
        .collect::<Vec<_>>()
        .join(" ")
        .into_bytes()
}

fn nato(text: &str) -> Vec<u8> {
    const WORDS: &str = "alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa \
        quebec romeo sierra tango uniform victor whiskey xray yankee zulu zero one two three four five six seven eight nine";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    text.bytes()
        .map(|b| match b {
            b'0'..=b'9' => words[usize::from(b - b'0') + 26].to_owned(),
            b if b.is_ascii_alphabetic() => words[usize::from(b.to_ascii_lowercase() - b'a')].to_owned(),
            b'_' => "underscore".to_owned(),
            b'-' => "dash".to_owned(),
            b => char::from(b).to_string(),
        })
        .collect::<Vec<_>>()
        .join(" ")
        .into_bytes()
}

fn signed_token(text: &str) -> Vec<u8> {
    let head = b64url(r#"{"alg":"none","typ":"JWT"}"#);
    format!("{head}.{}.c2lnbmF0dXJl", b64url(format!(r#"{{"sub":"1","key":{}}}"#, json(text)))).into_bytes()
}

/// All of them.
#[expect(clippy::too_many_lines, reason = "one table")]
pub(super) fn encodings() -> Vec<Encoding> {
    use Class::{Must, Should, Stretch};
    let table: Vec<(&'static str, Class, Encode)> = vec![
        ("plain", Must, |t| t.into()),
        ("upper case", Must, |t| t.to_uppercase().into()),
        ("lower case", Must, |t| t.to_lowercase().into()),
        ("quoted", Must, |t| format!("\"{t}\"").into()),
        ("bearer header", Must, |t| format!("Authorization: Bearer {t}").into()),
        ("basic user", Must, |t| format!("Basic {}", b64(format!("{t}:x"))).into()),
        ("basic password", Must, |t| format!("Basic {}", b64(format!("user:{t}"))).into()),
        ("basic long user", Must, |t| format!("Basic {}", b64(format!("someuser:{t}"))).into()),
        ("base64", Must, |t| b64(t).into()),
        ("base64 unpadded", Must, |t| b64(t).trim_end_matches('=').into()),
        ("base64 at 1", Must, |t| b64(format!("x{t}yz")).into()),
        ("base64 at 2", Must, |t| b64(format!("xy{t}z")).into()),
        ("base64url", Must, |t| b64url(t).into()),
        ("base64url at 1", Must, |t| b64url(format!("?{t}?")).into()),
        ("base64url at 2", Must, |t| b64url(format!("??{t}??")).into()),
        ("base64 in lines of 76", Must, |t| {
            lines(&b64(format!("{}{t}{}", "-".repeat(40), "-".repeat(40))), 76, "\r\n").into()
        }),
        ("base64 in lines of 20", Must, |t| lines(&b64(t), 20, "\n").into()),
        ("base64 in escaped lines", Must, |t| lines(&b64(t), 16, "\\n").into()),
        ("base64 percent", Must, |t| percent(&b64(t)).into()),
        ("base64 json slashes", Must, |t| json(&b64(t)).replace('/', "\\/").into()),
        ("base64 of utf-16le", Must, |t| b64(le16(t)).into()),
        ("base64 of utf-16be", Must, |t| b64(be16(t)).into()),
        ("powershell encoded command", Must, |t| {
            format!("powershell -enc {}", b64(le16(&format!("echo {t}")))).into()
        }),
        ("base64 twice", Must, |t| b64(b64(t)).into()),
        ("base64 three times", Must, |t| b64(b64(b64(t))).into()),
        ("base64 twice inside", Must, |t| b64(format!("a={}", b64(format!("bc{t}")))).into()),
        ("base64 of hex", Must, |t| b64(hex(t)).into()),
        ("base64 of upper hex", Must, |t| b64(hex(t).to_uppercase()).into()),
        ("base64 of percent", Must, |t| b64(percent_all(t)).into()),
        ("base64 of json", Must, |t| b64(format!(r#"{{"k":{}}}"#, json(t))).into()),
        ("base64 of reversed", Should, |t| b64(t.chars().rev().collect::<String>()).into()),
        ("reversed base64", Should, |t| b64(t).chars().rev().collect::<String>().into()),
        ("data url", Must, |t| format!("data:text/plain;base64,{}", b64(t)).into()),
        ("data url percent", Must, |t| format!("data:text/plain,{}", percent_all(t)).into()),
        ("hex", Must, |t| hex(t).into()),
        ("upper hex", Must, |t| hex(t).to_uppercase().into()),
        ("hex 0x", Must, |t| format!("0x{}", hex(t)).into()),
        ("hex colons", Must, |t| joined(t, ":", |b| format!("{b:02x}")).into()),
        ("hex spaces", Must, |t| joined(t, " ", |b| format!("{b:02X}")).into()),
        ("hex list", Must, |t| joined(t, ", ", |b| format!("0x{b:02x}")).into()),
        ("hex list upper", Must, |t| format!("{{ {} }}", joined(t, ",", |b| format!("0X{b:02X}"))).into()),
        ("hex h", Should, |t| joined(t, " ", |b| format!("{b:02x}h")).into()),
        ("hex quoted", Should, |t| format!("X'{}'", hex(t)).into()),
        ("hex of utf-16le", Must, |t| hex(le16(t)).into()),
        ("hex twice", Must, |t| hex(hex(t)).into()),
        ("hex of base64", Must, |t| hex(b64(t)).into()),
        ("hex lines", Must, |t| lines(&hex(t), 32, "\n").into()),
        ("reversed hex", Should, |t| hex(t).chars().rev().collect::<String>().into()),
        ("hex nibbles swapped", Stretch, |t| each(t, |b| format!("{:x}{:x}", b & 15, b >> 4))),
        ("percent", Must, |t| percent(t).into()),
        ("percent all", Must, |t| percent_all(t).into()),
        ("percent lower", Must, |t| percent_all(t).to_lowercase().into()),
        ("percent twice", Must, |t| percent(&percent_all(t)).into()),
        ("percent three times", Must, |t| percent(&percent(&percent_all(t))).into()),
        ("percent u", Must, |t| t.encode_utf16().map(|u| format!("%u{u:04X}")).collect::<String>().into()),
        ("percent some", Must, |t| {
            t.bytes()
                .enumerate()
                .map(|(i, b)| {
                    if i % 3 == 0 || !b.is_ascii() { format!("%{b:02X}") } else { char::from(b).to_string() }
                })
                .collect::<String>()
                .into()
        }),
        ("form", Must, |t| format!("key={}&x=1", percent(t).replace("%20", "+")).into()),
        ("json", Must, |t| json(t).into()),
        ("json units", Must, |t| units(t).into()),
        ("json units upper", Must, |t| units(t).to_uppercase().replace("\\U", "\\u").into()),
        ("json in json", Must, |t| json(&json(t)).into()),
        ("json in json in json", Must, |t| json(&json(&json(t))).into()),
        ("json units in json", Must, |t| json(&units(t)).into()),
        ("json units three deep", Must, |t| json(&json(&units(t))).into()),
        ("html", Must, |t| t.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").into()),
        ("html decimal", Must, |t| each_char(t, |c| format!("&#{};", c as u32))),
        ("html hex", Must, |t| each_char(t, |c| format!("&#x{:x};", c as u32))),
        ("html padded", Must, |t| each_char(t, |c| format!("&#{:07};", c as u32))),
        ("html no semicolon", Should, |t| joined(t, "", |b| format!("&#x{b:x} ")).into()),
        ("html twice", Must, |t| each_char(t, |c| format!("&amp;#{};", c as u32))),
        ("html tags", Must, |t| each_char(t, |c| format!("<b>{c}</b>"))),
        ("html spans", Must, |t| each_char(t, |c| format!("<span class=\"k\">{c}</span>"))),
        ("html wbr", Must, |t| spaced(t, "<wbr>")),
        ("html comments", Must, |t| spaced(t, "<!-- x -->")),
        ("html attribute", Must, |t| format!("<a href=\"/?k={}\">x</a>", percent_all(t)).into()),
        ("html attribute entities", Must, |t| {
            format!(
                "<i title=\"{}\">",
                String::from_utf8(each_char(t, |c| format!("&#{};", c as u32))).unwrap()
            )
            .into()
        }),
        ("html comment", Must, |t| format!("<!-- {} -->", percent_all(t)).into()),
        ("terminal title", Must, |t| format!("\x1b]0;{}\x07", percent_all(t)).into()),
        ("xml cdata", Must, |t| format!("<![CDATA[{t}]]>").into()),
        ("backslash x", Must, |t| each(t, |b| format!("\\x{b:02x}"))),
        ("backslash x upper", Must, |t| each(t, |b| format!("\\x{b:02X}"))),
        ("backslash x some", Must, |t| {
            t.bytes()
                .enumerate()
                .map(|(i, b)| {
                    if i % 2 == 0 || !b.is_ascii() {
                        format!("\\x{b:02x}")
                    } else {
                        char::from(b).to_string()
                    }
                })
                .collect::<String>()
                .into()
        }),
        ("backslash x twice", Must, |t| each(t, |b| format!("\\\\x{b:02x}"))),
        ("octal", Must, |t| each(t, |b| format!("\\{b:03o}"))),
        ("octal zero", Must, |t| each(t, |b| format!("\\0{b:03o}"))),
        ("octal short", Must, |t| each(t, |b| format!("\\{b:o}"))),
        ("shell dollar quote", Must, |t| {
            format!("$'{}'", String::from_utf8(each(t, |b| format!("\\x{b:02x}"))).unwrap()).into()
        }),
        ("printf", Must, |t| {
            format!("printf '{}'", String::from_utf8(each(t, |b| format!("\\{b:03o}"))).unwrap()).into()
        }),
        ("braced units", Must, |t| each_char(t, |c| format!("\\u{{{:x}}}", c as u32))),
        ("long units", Must, |t| each_char(t, |c| format!("\\U{:08x}", c as u32))),
        ("perl units", Must, |t| each_char(t, |c| format!("\\x{{{:x}}}", c as u32))),
        ("python named point", Should, |t| each_char(t, |c| format!("\\N{{U+{:04X}}}", c as u32))),
        ("css", Should, |t| each_char(t, |c| format!("\\{:x} ", c as u32))),
        ("css padded", Should, |t| each_char(t, |c| format!("\\{:06x}", c as u32))),
        ("code points", Should, |t| {
            t.chars().map(|c| format!("U+{:04X}", c as u32)).collect::<Vec<_>>().join(" ").into()
        }),
        ("sgr each letter", Must, |t| each_char(t, |c| format!("\x1b[31m{c}\x1b[0m"))),
        ("sgr 256", Must, |t| each_char(t, |c| format!("\x1b[38;5;{}m{c}", c as u32 % 256))),
        ("sgr escaped", Must, |t| each_char(t, |c| format!("\\x1b[1m{c}\\x1b[0m"))),
        ("sgr json", Must, |t| {
            json(&String::from_utf8(each_char(t, |c| format!("\x1b[1m{c}"))).unwrap()).into()
        }),
        ("sgr octal", Must, |t| each_char(t, |c| format!("\\033[1m{c}\\033[0m"))),
        ("sgr caret", Should, |t| each_char(t, |c| format!("^[[1m{c}^[[0m"))),
        ("hyperlink", Must, |t| format!("\x1b]8;;http://x.example/\x07{t}\x1b]8;;\x07").into()),
        ("overstrike", Must, |t| each_char(t, |c| format!("{c}\x08{c}"))),
        ("underline", Must, |t| each_char(t, |c| format!("_\x08{c}"))),
        ("rubbed out", Must, |t| each_char(t, |c| format!("{c}q\x08"))),
        ("carriage returns", Must, |t| spaced(t, "\r")),
        ("spaces", Must, |t| spaced(t, " ")),
        ("two spaces", Must, |t| spaced(t, "  ")),
        ("tabs", Must, |t| spaced(t, "\t")),
        ("dashes", Must, |t| spaced(t, "-")),
        ("dots", Must, |t| spaced(t, ".")),
        ("commas", Must, |t| spaced(t, ", ")),
        ("pipes", Must, |t| spaced(t, " | ")),
        ("underscores", Must, |t| spaced(t, "_")),
        ("stars", Must, |t| each_char(t, |c| format!("**{c}**"))),
        ("each line", Must, |t| spaced(t, "\n")),
        ("each windows line", Must, |t| spaced(t, "\r\n")),
        ("in fours", Must, |t| pieces(t, 4).join("-").into()),
        ("in fives on lines", Must, |t| pieces(t, 5).join("\n    ").into()),
        ("zero width space", Must, |t| spaced(t, "\u{200b}")),
        ("zero width joiner", Must, |t| spaced(t, "\u{200d}")),
        ("word joiner", Must, |t| spaced(t, "\u{2060}")),
        ("soft hyphen", Must, |t| spaced(t, "\u{ad}")),
        ("byte order marks", Must, |t| spaced(t, "\u{feff}")),
        ("no-break spaces", Must, |t| spaced(t, "\u{a0}")),
        ("combining marks", Must, |t| each_char(t, |c| format!("{c}\u{336}"))),
        ("right to left marks", Must, |t| format!("\u{202e}{t}\u{202c}").into()),
        ("nul between", Must, |t| spaced(t, "\0")),
        ("utf-16le", Must, |t| le16(t)),
        ("utf-16be", Must, |t| be16(t)),
        ("utf-32le", Should, |t| t.chars().flat_map(|c| (c as u32).to_le_bytes()).collect()),
        ("full width", Must, |t| {
            each_char(t, |c| {
                if c.is_ascii_graphic() {
                    char::from_u32(c as u32 + 0xfee0).unwrap().to_string()
                } else {
                    c.to_string()
                }
            })
        }),
        ("mathematical bold", Should, |t| mapped(t, 0x1d41a, 0x1d400, 0x1d7ce)),
        ("mathematical mono", Should, |t| mapped(t, 0x1d68a, 0x1d670, 0x1d7f6)),
        ("circled", Should, |t| mapped(t, 0x24d0, 0x24b6, 0)),
        ("squared", Stretch, |t| mapped(t, 0x1f130, 0x1f130, 0)),
        ("regional indicators", Stretch, |t| mapped(t, 0x1f1e6, 0x1f1e6, 0)),
        ("look-alikes", Should, |t| look_alike(t)),
        ("tags", Should, |t| mapped(t, 0xe0061, 0xe0041, 0xe0030)),
        ("tags all", Should, |t| {
            each_char(t, |c| {
                if c.is_ascii() {
                    char::from_u32(c as u32 + 0xe0000).unwrap().to_string()
                } else {
                    c.to_string()
                }
            })
        }),
        ("variation selectors", Stretch, |t| {
            format!(
                "x{}",
                t.bytes().map(|b| char::from_u32(0xe0100 + u32::from(b) - 16).unwrap()).collect::<String>()
            )
            .into()
        }),
        ("braille", Stretch, |t| {
            const DOTS: [u32; 26] = [
                1, 3, 9, 25, 17, 11, 27, 19, 10, 26, 5, 7, 13, 29, 21, 15, 31, 23, 14, 30, 37, 39, 58, 45,
                61, 53,
            ];
            each_char(&t.to_ascii_lowercase(), |c| {
                if c.is_ascii_lowercase() {
                    char::from_u32(0x2800 + DOTS[c as usize - 97]).unwrap().to_string()
                } else {
                    c.to_string()
                }
            })
        }),
        ("decimal list", Must, |t| joined(t, ", ", |b| b.to_string()).into()),
        ("decimal json", Must, |t| format!("[{}]", joined(t, ",", |b| b.to_string())).into()),
        ("decimal spaces", Must, |t| joined(t, " ", |b| b.to_string()).into()),
        ("decimal padded", Should, |t| joined(t, " ", |b| format!("{b:03}")).into()),
        ("decimal lines", Should, |t| joined(t, "\n", |b| b.to_string()).into()),
        ("octal list", Should, |t| joined(t, " ", |b| format!("{b:03o}")).into()),
        ("octal 0o list", Should, |t| joined(t, ", ", |b| format!("0o{b:o}")).into()),
        ("octal 0 list", Should, |t| joined(t, ", ", |b| format!("0{b:o}")).into()),
        ("binary", Should, |t| joined(t, " ", |b| format!("{b:08b}")).into()),
        ("binary joined", Should, |t| joined(t, "", |b| format!("{b:08b}")).into()),
        ("binary 0b", Should, |t| joined(t, ", ", |b| format!("0b{b:08b}")).into()),
        ("chr concatenated", Must, |t| joined(t, "+", |b| format!("chr({b})")).into()),
        ("chr dots", Must, |t| joined(t, " . ", |b| format!("chr({b})")).into()),
        ("chr hex", Should, |t| joined(t, " & ", |b| format!("Chr(0x{b:02x})")).into()),
        ("sql char", Must, |t| format!("CHAR({})", joined(t, ",", |b| b.to_string())).into()),
        ("sql char concatenated", Must, |t| joined(t, " || ", |b| format!("CHAR({b})")).into()),
        ("from char code", Must, |t| {
            format!("String.fromCharCode({})", joined(t, ",", |b| b.to_string())).into()
        }),
        ("from char code each", Should, |t| joined(t, "+", |b| format!("String.fromCharCode({b})")).into()),
        ("powershell char", Must, |t| joined(t, "+", |b| format!("[char]{b}")).into()),
        ("powershell char hex", Should, |t| joined(t, "+", |b| format!("[char]0x{b:02x}")).into()),
        ("excel char", Should, |t| format!("={}", joined(t, "&", |b| format!("_xlfn.UNICHAR({b})"))).into()),
        ("python bytes", Must, |t| format!("bytes([{}])", joined(t, ", ", |b| b.to_string())).into()),
        ("go bytes", Must, |t| format!("[]byte{{{}}}", joined(t, ", ", |b| format!("0x{b:02x}"))).into()),
        ("rust bytes", Should, |t| joined(t, ", ", |b| format!("{b}u8")).into()),
        ("concatenated", Must, |t| {
            pieces(t, 5).iter().map(|p| format!("\"{p}\"")).collect::<Vec<_>>().join(" + ").into()
        }),
        ("concatenated lines", Must, |t| {
            pieces(t, 6).iter().map(|p| format!("'{p}'")).collect::<Vec<_>>().join(" .\n  ").into()
        }),
        ("concatenated each", Must, |t| {
            pieces(t, 1).iter().map(|p| format!("'{p}'")).collect::<Vec<_>>().join("+").into()
        }),
        ("adjacent strings", Must, |t| {
            pieces(t, 7).iter().map(|p| format!("\"{p}\"")).collect::<Vec<_>>().join(" ").into()
        }),
        ("array of letters", Must, |t| serde_json::to_vec(&pieces(t, 1)).unwrap()),
        ("array of pieces", Must, |t| serde_json::to_vec(&pieces(t, 6)).unwrap()),
        ("shell continuation", Must, |t| pieces(t, 6).join("\\\n").into()),
        ("yaml folded", Must, |t| format!("key: >-\n  {}", pieces(t, 10).join("\n  ")).into()),
        ("yaml binary", Must, |t| format!("key: !!binary |\n  {}", lines(&b64(t), 24, "\n  ")).into()),
        ("backslash each", Must, |t| {
            each_char(t, |c| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() })
        }),
        ("quoted-printable", Must, |t| quoted_printable(t, false).into()),
        ("quoted-printable all", Must, |t| quoted_printable(t, true).into()),
        ("mime word base64", Must, |t| format!("=?utf-8?B?{}?=", b64(t)).into()),
        ("mime word quoted", Must, |t| {
            format!("=?utf-8?Q?{}?=", quoted_printable(t, true).replace("=\n", "")).into()
        }),
        ("mime words", Should, |t| {
            pieces(&b64(t), 12)
                .iter()
                .map(|p| format!("=?UTF-8?B?{p}?="))
                .collect::<Vec<_>>()
                .join("\r\n ")
                .into()
        }),
        ("gzip", Must, |t| gzip(t)),
        ("gzip base64", Must, |t| b64(gzip(t)).into()),
        ("gzip base64url", Must, |t| b64url(gzip(t)).into()),
        ("gzip hex", Must, |t| hex(gzip(t)).into()),
        ("gzip base64 lines", Must, |t| {
            lines(&b64(gzip(format!("{t} and more text to come"))), 40, "\n").into()
        }),
        ("gzip twice base64", Should, |t| b64(gzip(gzip(t))).into()),
        ("gzip base64 twice", Should, |t| b64(b64(gzip(t))).into()),
        ("base64 gzip base64", Should, |t| b64(gzip(b64(t))).into()),
        ("zlib", Should, |t| zlib(t)),
        ("zlib base64", Must, |t| b64(zlib(t)).into()),
        ("zlib base64url cookie", Should, |t| {
            format!(".{}.aaaa.bbbb", b64url(zlib(format!(r#"{{"k":{}}}"#, json(t))))).into()
        }),
        ("zlib hex", Should, |t| hex(zlib(t)).into()),
        ("deflate base64", Must, |t| b64(deflate(t)).into()),
        ("deflate hex", Should, |t| hex(deflate(t)).into()),
        ("zip", Should, |t| zip(t)),
        ("zip base64", Must, |t| b64(zip(t)).into()),
        ("jwt payload", Must, |t| signed_token(t)),
        ("jwt in bearer", Must, |t| format!("Bearer {}", String::from_utf8(signed_token(t)).unwrap()).into()),
        ("base32", Should, |t| b32(t).into()),
        ("base32 lower", Should, |t| b32(t).to_lowercase().trim_end_matches('=').into()),
        ("base32 at 3", Should, |t| b32(format!("abc{t}")).into()),
        ("base32hex", Should, |t| {
            groups(t.as_bytes(), 5, 8, 5, b"0123456789ABCDEFGHIJKLMNOPQRSTUV", true).into()
        }),
        ("base32 crockford", Stretch, |t| {
            groups(t.as_bytes(), 5, 8, 5, b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", false).into()
        }),
        ("base32 of base64", Should, |t| b32(b64(t)).into()),
        ("ascii85", Should, |t| ascii85(t.as_bytes()).into()),
        ("ascii85 framed", Should, |t| format!("<~{}~>", ascii85(t.as_bytes())).into()),
        ("base85", Should, |t| {
            eighty_five(
                t.as_bytes(),
                b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
            )
            .into()
        }),
        ("z85", Stretch, |t| {
            eighty_five(
                t.as_bytes(),
                b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
            )
            .into()
        }),
        ("uuencode", Should, |t| uu(t.as_bytes()).into()),
        ("uuencode inside", Should, |t| {
            uu(format!("some text before {t} and some text behind").as_bytes()).into()
        }),
        ("base58", Stretch, |t| {
            large_number(t.as_bytes(), b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz").into()
        }),
        ("base62", Stretch, |t| {
            large_number(t.as_bytes(), b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
                .into()
        }),
        ("base36", Stretch, |t| large_number(t.as_bytes(), b"0123456789abcdefghijklmnopqrstuvwxyz").into()),
        ("large decimal", Stretch, |t| large_number(t.as_bytes(), b"0123456789").into()),
        ("base45", Stretch, |t| {
            t.as_bytes()
                .chunks(2)
                .map(|g| {
                    const A: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";
                    let n = g.iter().fold(0, |n, b| n * 256 + usize::from(*b));
                    let all = [n % 45, n / 45 % 45, n / 2025];
                    all[..=g.len()].iter().map(|d| char::from(A[*d])).collect::<String>()
                })
                .collect::<String>()
                .into()
        }),
        ("hexdump -C", Should, |t| {
            dump(t, 1, |at, digits, shown| format!("{at:08x}  {digits:<47}  |{shown}|\n"))
        }),
        ("hexdump -C inside", Should, |t| {
            dump(&format!("PREFIX={t}\nNEXT=1\n"), 1, |at, digits, shown| {
                format!("{at:08x}  {digits:<47}  |{shown}|\n")
            })
        }),
        ("xxd", Should, |t| dump(t, 2, |at, digits, shown| format!("{at:08x}: {digits:<39}  {shown}\n"))),
        ("xxd inside", Should, |t| {
            dump(&format!("export KEY={t};"), 2, |at, digits, shown| {
                format!("{at:08x}: {digits:<39}  {shown}\n")
            })
        }),
        ("xxd -p", Must, |t| lines(&hex(t), 60, "\n").into()),
        ("hexdump words", Should, |t| {
            let mut out = String::new();
            for (at, row) in t.as_bytes().chunks(16).enumerate() {
                let words: Vec<String> =
                    row.chunks(2).map(|w| format!("{:02x}{:02x}", w.get(1).unwrap_or(&0), w[0])).collect();
                out += &format!("{:07x} {}\n", at * 16, words.join(" "));
            }
            out.into()
        }),
        ("od -c", Should, |t| {
            t.as_bytes()
                .chunks(16)
                .enumerate()
                .map(|(at, row)| {
                    format!(
                        "{:07o} {}\n",
                        at * 16,
                        row.iter().map(|b| format!("{:>4}", char::from(*b))).collect::<String>()
                    )
                })
                .collect::<String>()
                .into()
        }),
        ("od -t x1", Should, |t| {
            t.as_bytes()
                .chunks(16)
                .enumerate()
                .map(|(at, row)| {
                    format!(
                        "{:07o} {}\n",
                        at * 16,
                        row.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
                    )
                })
                .collect::<String>()
                .into()
        }),
        ("cat -n", Should, |t| {
            pieces(t, 8)
                .iter()
                .enumerate()
                .map(|(n, p)| format!("{:>6}\t{p}\n", n + 1))
                .collect::<String>()
                .into()
        }),
        ("grep -n", Should, |t| {
            pieces(t, 8)
                .iter()
                .enumerate()
                .map(|(n, p)| format!("{}:{p}\n", n + 1))
                .collect::<String>()
                .into()
        }),
        ("diff", Must, |t| pieces(t, 8).iter().map(|p| format!("+{p}\n")).collect::<String>().into()),
        ("mail quote", Must, |t| pieces(t, 8).join("\n> ").into()),
        ("sse data lines", Must, |t| {
            pieces(t, 8).iter().map(|p| format!("data: {p}\n")).collect::<String>().into()
        }),
        ("log lines", Should, |t| {
            pieces(t, 8)
                .iter()
                .enumerate()
                .map(|(n, p)| format!("2024-05-0{}T10:20:30.{n}Z INFO {p}\n", n % 9 + 1))
                .collect::<String>()
                .into()
        }),
        ("reversed", Should, |t| t.chars().rev().collect::<String>().into()),
        ("rot13", Should, |t| shifted(t, 13)),
        ("rot13 base64", Should, |t| b64(shifted(t, 13)).into()),
        ("rot 5", Stretch, |t| shifted(t, 5)),
        ("rot47", Stretch, |t| {
            each(t, |b| {
                char::from(if b.is_ascii_graphic() { 33 + (b - 33 + 47) % 94 } else { b }).to_string()
            })
        }),
        ("atbash", Stretch, |t| {
            each(t, |b| {
                char::from(match b {
                    b'a'..=b'z' => 219 - b,
                    b'A'..=b'Z' => 155 - b,
                    _ => b,
                })
                .to_string()
            })
        }),
        ("pairs swapped", Stretch, |t| {
            t.as_bytes().chunks(2).flat_map(|p| p.iter().rev().copied()).collect()
        }),
        ("morse", Stretch, |t| morse(t)),
        ("nato", Stretch, |t| nato(t)),
        ("leet", Stretch, |t| {
            t.chars()
                .map(|c| match c {
                    'a' | 'A' => '4',
                    'e' | 'E' => '3',
                    'o' | 'O' => '0',
                    's' | 'S' => '5',
                    't' | 'T' => '7',
                    c => c,
                })
                .collect::<String>()
                .into()
        }),
        ("first half", Stretch, |t| pieces(t, t.chars().count().div_ceil(2))[0].clone().into()),
        ("second half", Stretch, |t| pieces(t, t.chars().count() / 2)[1..].concat().into()),
        ("halves apart", Stretch, |t| {
            let p = pieces(t, t.chars().count().div_ceil(2));
            format!("first part is {} and the second part is {}", p[0], p[1]).into()
        }),
        ("chunks with words", Stretch, |t| {
            pieces(t, 6)
                .iter()
                .enumerate()
                .map(|(n, p)| format!("part {n} is {p} "))
                .collect::<String>()
                .into()
        }),
        ("xor hex", Stretch, |t| hex(t.bytes().map(|b| b ^ 0x5a).collect::<Vec<_>>()).into()),
        ("xor base64", Stretch, |t| b64(t.bytes().map(|b| b ^ 0x37).collect::<Vec<_>>()).into()),
        ("every second letter", Stretch, |t| each_char(t, |c| format!("{c}x"))),
        ("indexed", Stretch, |t| {
            t.chars().enumerate().map(|(n, c)| format!("[{n}]={c} ")).collect::<String>().into()
        }),
    ];
    table.into_iter().map(|(name, class, encode)| Encoding { name, class, encode }).collect()
}
