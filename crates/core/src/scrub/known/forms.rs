//! The spellings of a value that are the same wherever in a text it stands.
//!
//! A spelling that packs bytes in groups (three for base64) looks different by where in a group the value begins, so there
//! is one pattern for each place; what is at its edges is left out, since it depends on what the neighbours are.

use zeroize::Zeroizing;

/// What around a pattern goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Nothing: the pattern is the whole value.
    Exact,
    /// All letters and digits of base64 that touch it.
    Base64,
    /// All characters that touch it, up to a space.
    Graphic,
    /// The line.
    Line,
}

/// A spelling, not folded yet.
pub(super) struct Form {
    pub(super) text: Zeroizing<Vec<u8>>,
    pub(super) extent: Extent,
    /// Whether digits are all that counts of it.
    pub(super) digits: bool,
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE32_HEX: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const BASE58: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE62_SMALL: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const ASCII85: &[u8; 85] =
    b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstu";
const BASE85: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
const Z85: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
const BASE45: &[u8; 45] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";
const UU: &[u8; 64] = b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_";
const XX: &[u8; 64] = b"+-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// All spellings but the plain one.
pub(super) fn forms(value: &[u8]) -> Vec<Form> {
    let mut forms = Forms { all: Vec::with_capacity(96) };
    let reversed: Zeroizing<Vec<u8>> = reversed(value);
    let wide_low = wide(value, u16::to_le_bytes);
    let wide_high = wide(value, u16::to_be_bytes);

    forms.add(reversed.to_vec(), Extent::Exact);
    if !value.is_ascii() {
        forms.add(wide_low.to_vec(), Extent::Exact);
        forms.add(wide_high.to_vec(), Extent::Exact);
    }
    for shift in 1..26 {
        forms.add(value.iter().map(|b| rotate(*b, shift)).collect(), Extent::Exact);
    }
    forms.add(value.iter().map(|b| rotate_digit(rotate(*b, 13))).collect(), Extent::Exact);
    forms.add(value.iter().map(|b| mirrored(*b)).collect(), Extent::Exact);
    forms.add(
        value.iter().map(|b| if b.is_ascii_graphic() { 33 + (*b - 33 + 47) % 94 } else { *b }).collect(),
        Extent::Exact,
    );
    forms.add(value.chunks(2).flat_map(|pair| pair.iter().rev().copied()).collect(), Extent::Exact);
    let rot13: Zeroizing<Vec<u8>> = Zeroizing::new(value.iter().map(|b| rotate(*b, 13)).collect());

    for bytes in [value, &reversed, &rot13, &wide_low, &wide_high] {
        for skip in 0..3 {
            forms.add(packed(bytes, 6, 2 * skip, STANDARD), Extent::Base64);
        }
        forms.add(hex(bytes), Extent::Base64);
    }
    // What was encoded is reversed, or encoded once more.
    for skip in 0..3 {
        let once = packed(value, 6, 2 * skip, STANDARD);
        forms.add(self::reversed(&once).to_vec(), Extent::Base64);
        forms.add(hex(&once), Extent::Base64);
        for skip in 0..3 {
            forms.add(packed(&once, 6, 2 * skip, STANDARD), Extent::Base64);
        }
        forms.add(packed(value, 6, 2 * skip, UU), Extent::Line);
        forms.add(packed(value, 6, 2 * skip, XX), Extent::Line);
    }
    let hexed = hex(value);
    forms.add(self::reversed(&hexed).to_vec(), Extent::Base64);
    forms.add(hexed.chunks(2).flat_map(|pair| pair.iter().rev().copied()).collect(), Extent::Base64);
    for digits in [hexed.clone(), hexed.to_ascii_uppercase()] {
        for skip in 0..3 {
            forms.add(packed(&digits, 6, 2 * skip, STANDARD), Extent::Base64);
        }
        forms.add(hex(&digits), Extent::Base64);
    }
    // Words of two bytes, the lower one first, as `hexdump` and `od` write them.
    for skip in 0..2 {
        let words = || value.get(skip..).unwrap_or_default().as_chunks::<2>().0.iter();
        forms.add(
            words().flat_map(|[low, high]| format!("{high:02x}{low:02x}").into_bytes()).collect(),
            Extent::Base64,
        );
        forms.add_digits(
            words().flat_map(|w| format!("{:06o}", u16::from_le_bytes(*w)).into_bytes()).collect(),
        );
        forms.add(grouped(value, skip, forty_fives), Extent::Graphic);
    }
    for alphabet in [BASE32, BASE32_HEX, CROCKFORD] {
        for skip in 0..5 {
            forms.add(packed(value, 5, skip, alphabet), Extent::Base64);
        }
    }
    for alphabet in [ASCII85, BASE85, Z85] {
        for skip in 0..4 {
            forms.add(grouped(value, skip, |group| eighty_fives(group, alphabet)), Extent::Graphic);
        }
    }
    if value.len() <= 128 {
        for alphabet in [BASE58, BASE62, BASE62_SMALL] {
            forms.add(as_number(value, alphabet), Extent::Base64);
        }
        forms.add(as_number(value, b"0123456789abcdefghijklmnopqrstuvwxyz"), Extent::Base64);
        forms.add_digits(as_number(value, b"0123456789"));
    }
    listed(value, &mut forms);
    spoken(value, &mut forms);
    forms.all
}

/// Lists of codes, by what stands between the numbers when separators are gone.
fn listed(value: &[u8], forms: &mut Forms) {
    let each =
        |write: &dyn Fn(u8) -> String| value.iter().flat_map(|b| write(*b).into_bytes()).collect::<Vec<u8>>();
    forms.add_digits(each(&|b| format!("{b}")));
    forms.add_digits(each(&|b| format!("{b:03}")));
    forms.add_digits(each(&|b| format!("{b:o}")));
    forms.add_digits(each(&|b| format!("{b:03o}")));
    forms.add_digits(each(&|b| format!("{b:04o}")));
    forms.add_digits(each(&|b| format!("0{b:o}")));
    forms.add_digits(each(&|b| format!("{b}8")));
    forms.add_digits(each(&|b| format!("{b:08b}")));
    forms.add_digits(each(&|b| format!("{b:07b}")));
    forms.add_digits(each(&|b| format!("{b:b}")));
    for word in
        ["0x", "chr0x", "char0x", "u00", "u", "x", "h", "0x00", "u0000", "16", "i", "int", "byte0x", "nchar"]
    {
        forms.add(each(&|b| format!("{word}{b:02x}")), Extent::Exact);
    }
    forms.add(each(&|b| format!("{b:02x}h")), Extent::Exact);
    forms.add(each(&|b| format!("0b{b:08b}")), Extent::Exact);
    forms.add(each(&|b| format!("0o{b:o}")), Extent::Exact);
}

/// The alphabet as it is spelled on the radio.
fn spoken(value: &[u8], forms: &mut Forms) {
    const LETTERS: [&str; 26] = [
        "alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo",
        "lima", "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform",
        "victor", "whiskey", "xray", "yankee", "zulu",
    ];
    const DIGITS: [&str; 10] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    if value.len() > 128 {
        return;
    }
    let letter = |b: u8| LETTERS.get(usize::from(b.to_ascii_lowercase().wrapping_sub(b'a'))).copied();
    let digit = |b: u8| DIGITS.get(usize::from(b.wrapping_sub(b'0'))).copied();
    let say =
        |spell: &dyn Fn(u8) -> String| value.iter().flat_map(|b| spell(*b).into_bytes()).collect::<Vec<u8>>();
    let word = |b: u8| letter(b).or_else(|| digit(b)).map(str::to_owned);
    forms.add(say(&|b| word(b).unwrap_or_default()), Extent::Exact);
    forms.add(
        say(&|b| word(b).unwrap_or_default().replace("alfa", "alpha").replace("juliett", "juliet")),
        Extent::Exact,
    );
    forms.add(say(&|b| letter(b).map_or_else(|| char::from(b).to_string(), str::to_owned)), Extent::Exact);
    forms.add(
        say(&|b| {
            word(b).unwrap_or_else(|| {
                match b {
                    b'_' => "underscore",
                    b'-' => "dash",
                    b'.' => "dot",
                    b'/' => "slash",
                    b'+' => "plus",
                    b'=' => "equals",
                    b':' => "colon",
                    b'@' => "at",
                    b'!' => "exclamation",
                    b'#' => "hash",
                    b'$' => "dollar",
                    b'%' => "percent",
                    b'&' => "ampersand",
                    b'*' => "asterisk",
                    _ => "",
                }
                .to_owned()
            })
        }),
        Extent::Exact,
    );
}

struct Forms {
    all: Vec<Form>,
}

impl Forms {
    fn add(&mut self, text: Vec<u8>, extent: Extent) {
        self.all.push(Form { text: Zeroizing::new(text), extent, digits: false });
    }

    /// Lists of numbers, which may have any words between them.
    fn add_digits(&mut self, text: Vec<u8>) {
        self.all.push(Form { text: Zeroizing::new(text), extent: Extent::Exact, digits: true });
    }
}

/// The digits that lie wholly in these bytes if each stands for `width` bits and the first begins after `skip` bits.
fn packed(bytes: &[u8], width: u32, skip: u32, alphabet: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 8 / width as usize + 1);
    let (mut held, mut count) = (0_u32, 0);
    let mut skip = skip;
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        count += 8;
        let skipped = skip.min(count);
        (count, skip) = (count - skipped, skip - skipped);
        while count >= width {
            count -= width;
            let digit = (held >> count) & ((1 << width) - 1);
            out.extend(alphabet.get(digit as usize));
        }
        held &= (1 << count) - 1;
    }
    out
}

/// Groups of bytes that are written as one number each.
fn grouped<const N: usize>(bytes: &[u8], skip: usize, write: impl Fn([u8; N]) -> Vec<u8>) -> Vec<u8> {
    let (groups, _) = bytes.get(skip..).unwrap_or_default().as_chunks::<N>();
    groups.iter().flat_map(|group| write(*group)).collect()
}

fn eighty_fives(group: [u8; 4], alphabet: &[u8; 85]) -> Vec<u8> {
    let mut number = u32::from_be_bytes(group);
    let mut digits = [0; 5];
    for digit in digits.iter_mut().rev() {
        *digit = alphabet.get((number % 85) as usize).copied().unwrap_or_default();
        number /= 85;
    }
    digits.to_vec()
}

fn forty_fives(group: [u8; 2]) -> Vec<u8> {
    let number = usize::from(u16::from_be_bytes(group));
    [number % 45, number / 45 % 45, number / 45 / 45]
        .iter()
        .filter_map(|digit| BASE45.get(*digit))
        .copied()
        .collect()
}

/// The bytes as one large number in the base that the alphabet has.
fn as_number(bytes: &[u8], alphabet: &[u8]) -> Vec<u8> {
    let base = u32::try_from(alphabet.len()).unwrap_or(1);
    // The lowest digit comes first until the end.
    let mut digits: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::with_capacity(bytes.len() * 3));
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in digits.iter_mut() {
            carry += u32::from(*digit) << 8;
            *digit = u8::try_from(carry % base).unwrap_or_default();
            carry /= base;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % base).unwrap_or_default());
            carry /= base;
        }
    }
    digits.iter().rev().filter_map(|digit| alphabet.get(usize::from(*digit))).copied().collect()
}

/// As UTF-16; bytes that are no text become two each.
fn wide(value: &[u8], bytes: impl Fn(u16) -> [u8; 2]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match std::str::from_utf8(value) {
        Ok(text) => text.encode_utf16().flat_map(bytes).collect(),
        Err(_) => value.iter().flat_map(|b| bytes(u16::from(*b))).collect(),
    })
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    crate::hex::encode(bytes).into_bytes()
}

/// Backwards; characters of several bytes stay what they are.
fn reversed(value: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match std::str::from_utf8(value) {
        Ok(text) => text.chars().rev().collect::<String>().into_bytes(),
        Err(_) => value.iter().rev().copied().collect(),
    })
}

fn rotate(byte: u8, by: u8) -> u8 {
    match byte {
        b'a'..=b'z' => b'a' + (byte - b'a' + by) % 26,
        b'A'..=b'Z' => b'A' + (byte - b'A' + by) % 26,
        _ => byte,
    }
}

fn rotate_digit(byte: u8) -> u8 {
    if byte.is_ascii_digit() { b'0' + (byte - b'0' + 5) % 10 } else { byte }
}

/// The alphabet backwards: `a` is `z`.
fn mirrored(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => b'z' - (byte - b'a'),
        b'A'..=b'Z' => b'Z' - (byte - b'A'),
        _ => byte,
    }
}
