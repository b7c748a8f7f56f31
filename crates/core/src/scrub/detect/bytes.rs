//! Small questions about bytes: what stands at a place, which set it belongs to, how random a run of them looks.
//!
//! Reading past an end gives 0, which is in no set: the verifiers need no bounds of their own.

/// The byte at a place, or 0 outside.
pub(crate) fn at(text: &[u8], place: usize) -> u8 {
    text.get(place).copied().unwrap_or(0)
}

/// The byte before a place, or 0 at the beginning.
pub(crate) fn before(text: &[u8], place: usize) -> u8 {
    place.checked_sub(1).map_or(0, |before| at(text, before))
}

/// The bytes of a range, or none if it does not lie inside.
pub(crate) fn cut(text: &[u8], start: usize, end: usize) -> &[u8] {
    text.get(start..end).unwrap_or_default()
}

/// Whether the text goes on with these bytes at a place, letters in either case.
pub(crate) fn goes_on(text: &[u8], place: usize, with: &[u8]) -> bool {
    cut(text, place, place.saturating_add(with.len())).eq_ignore_ascii_case(with) && !with.is_empty()
}

/// Where the run of bytes that belong ends; at most `most` bytes on.
pub(crate) fn run(text: &[u8], from: usize, most: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let rest = rest.get(..most).unwrap_or(rest);
    from.saturating_add(rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len()))
}

/// Where the run of bytes that belong begins which ends before a place; at most `most` bytes back.
pub(crate) fn run_back(text: &[u8], to: usize, most: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let head = text.get(..to).unwrap_or_default();
    let head = head.get(head.len().saturating_sub(most)..).unwrap_or_default();
    let run = head.iter().rev().position(|&byte| !belongs(byte)).unwrap_or(head.len());
    to.saturating_sub(run)
}

/// Where needle begins in hay, if it does; letters in either case. The needle is short and in lower case.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let (&first, rest) = needle.split_first()?;
    let mut from = 0;
    loop {
        let tail = hay.get(from..)?;
        let step = if first.is_ascii_lowercase() {
            memchr::memchr2(first, first.to_ascii_uppercase(), tail)?
        } else {
            memchr::memchr(first, tail)?
        };
        let start = from + step;
        if hay.get(start + 1..start + needle.len())?.eq_ignore_ascii_case(rest) {
            return Some(start);
        }
        from = start + 1;
    }
}

/// Whether one of these, in lower case, is in the hay, letters in either case.
pub(crate) fn has_any(hay: &[u8], needles: &[&str]) -> bool {
    needles.iter().any(|needle| find(hay, needle.as_bytes()).is_some())
}

/// A set of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set([u64; 4]);

impl Set {
    /// The set of the given bytes; `a-z` is a range, a `-` at either end is itself.
    pub(crate) fn of(ranges: &[u8]) -> Self {
        let mut set = Self([0; 4]);
        let mut place = 0;
        while place < ranges.len() {
            let first = at(ranges, place);
            let last = at(ranges, place.saturating_add(2));
            if at(ranges, place.saturating_add(1)) == b'-' && last != 0 {
                (first..=last).for_each(|byte| set.add(byte));
                place = place.saturating_add(3);
            } else {
                set.add(first);
                place = place.saturating_add(1);
            }
        }
        set
    }

    fn add(&mut self, byte: u8) {
        if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }

    /// Whether a byte is in it.
    pub(crate) fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte >> 6)).is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }
}

/// How the bytes of a value are made up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mix {
    /// How many bytes there are.
    pub(crate) len: usize,
    /// Lower case letters.
    pub(crate) lower: usize,
    /// Upper case letters.
    pub(crate) upper: usize,
    /// Digits.
    pub(crate) digits: usize,
    /// Spaces and other white space.
    pub(crate) spaces: usize,
    /// Bytes of letters outside ASCII.
    pub(crate) wide: usize,
    /// Everything else.
    pub(crate) other: usize,
    /// Whether all of it is hexadecimal digits.
    pub(crate) hex: bool,
    /// Whether all of its letters and digits are hexadecimal digits.
    pub(crate) hexish: bool,
    /// How many different bytes there are.
    pub(crate) different: usize,
    /// Shannon's entropy, in hundredths of a bit a byte.
    pub(crate) entropy: u32,
}

impl Mix {
    /// Counts the bytes of a value, up to the first 4096.
    pub(crate) fn of(value: &[u8]) -> Self {
        let value = value.get(..4096).unwrap_or(value);
        let mut mix =
            Self { len: value.len(), hex: !value.is_empty(), hexish: !value.is_empty(), ..Self::default() };
        let mut counts = [0_u16; 256];
        for &byte in value {
            match byte {
                b'a'..=b'z' => mix.lower += 1,
                b'A'..=b'Z' => mix.upper += 1,
                b'0'..=b'9' => mix.digits += 1,
                b' ' | b'\t' | b'\r' | b'\n' => mix.spaces += 1,
                128.. => mix.wide += 1,
                _ => mix.other += 1,
            }
            mix.hex &= byte.is_ascii_hexdigit();
            mix.hexish &= byte.is_ascii_hexdigit() || !byte.is_ascii_alphanumeric();
            if let Some(count) = counts.get_mut(usize::from(byte)) {
                *count += 1;
            }
        }
        let len = value.len().max(1) as f32;
        let mut bits = 0_f32;
        for count in counts.into_iter().filter(|&count| count > 0) {
            let share = f32::from(count) / len;
            bits -= share * share.log2();
            mix.different += 1;
        }
        mix.entropy = (bits * 100.0) as u32;
        mix
    }

    /// How many letters there are.
    pub(crate) const fn letters(&self) -> usize {
        self.lower + self.upper
    }

    /// Whether the value is as mixed as random characters of its own kind nearly always are.
    pub(crate) fn random(&self) -> bool {
        self.mixed(72)
    }

    /// Whether it has this share, in hundredths, of the greatest entropy that so many characters of such an alphabet
    /// can have.
    pub(crate) fn mixed(&self, share: u32) -> bool {
        let alphabet = match self {
            _ if self.digits == self.len => 10,
            _ if self.hexish => 16,
            _ if self.upper == 0 || self.lower == 0 => 36,
            _ => 62,
        };
        let most = (self.len.min(alphabet).max(2) as f32).log2();
        self.entropy as f32 >= most * share as f32 && self.different >= 5.min(self.len)
    }
}

/// How common each pair of letters is in English words and identifiers, as the logarithm of its frequency from 0 to 9;
/// a row for each first letter. Counted in documentation of this and other programs.
const PAIRS: [&[u8; 26]; 26] = [
    b"16762462605878060878554352",
    b"61326120540621530542600040",
    b"70427217606642831647511030",
    b"63248231710423620453521130",
    b"74786652413768464987354741",
    b"51225520700522610544500030",
    b"41217135500435510552410011",
    b"71127100600233600425400030",
    b"66766660103779851678260405",
    b"30004000200000300020300000",
    b"30126220500303310142303000",
    b"72358420802723730265520060",
    b"75248120601442670153500020",
    b"72777582614425630278542041",
    b"45663551424678560866756311",
    b"71337214502622650756502050",
    b"00000000000100000000500000",
    b"83559451705465740576543060",
    b"52638336703543662378623050",
    b"72548417801543740776624162",
    b"55545440500667350667100102",
    b"60007020500010300100000000",
    b"50025104500204500441002000",
    b"31404101400110150015000110",
    b"32213111300234450344112000",
    b"30005000300000200000100002",
];

/// Whether letters read like words rather than like something random: nine of ten random runs of eight letters do not,
/// 98 of 100 words do.
pub(crate) fn wordy(letters: &[u8]) -> bool {
    let mut pairs = 0_u32;
    let mut sum = 0_u32;
    for (&one, &two) in letters.iter().zip(letters.iter().skip(1)) {
        let row = usize::from(one.to_ascii_lowercase().wrapping_sub(b'a'));
        let column = usize::from(two.to_ascii_lowercase().wrapping_sub(b'a'));
        let Some(&level) = PAIRS.get(row).and_then(|row| row.get(column)) else { continue };
        sum += u32::from(level - b'0');
        pairs += 1;
    }
    pairs > 0 && sum * 10 >= pairs * 48
}

/// CRC-32 as in zip files, by bit: what it is used for is a few bytes long.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

/// Whether the last six of the characters, in base 62, are the checksum of those before: so it is in tokens of GitHub
/// and npm.
pub(crate) fn checksum62(body: &[u8]) -> bool {
    let Some((head, tail)) = body.len().checked_sub(6).and_then(|middle| body.split_at_checked(middle))
    else {
        return false;
    };
    let sum = tail.iter().try_fold(0_u64, |sum, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        Some(sum * 62 + u64::from(digit))
    });
    sum == Some(u64::from(crc32(head)))
}

/// The six characters that make the checksum of those before.
#[must_use]
pub fn checksum62_of(head: &[u8]) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut sum = usize::try_from(crc32(head)).unwrap_or_default();
    let mut digits = [0; 6].map(|_: u8| {
        let digit = DIGITS.get(sum % 62).map_or('0', |digit| char::from(*digit));
        sum /= 62;
        digit
    });
    digits.reverse();
    digits.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let set = Set::of(b"a-c_-");
        let members: Vec<u8> = (0..=255).filter(|&byte| set.has(byte)).collect();
        assert_eq!(members, b"-_abc");
    }

    #[test]
    fn checksums() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert!(!checksum62(b"abc"));
        let tail = checksum62_of(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ");
        let token = [b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ".as_slice(), tail.as_bytes()].concat();
        assert!(checksum62(&token));
        assert!(!checksum62(&[&token[..35], b"!"].concat()));
    }

    #[test]
    fn words_and_noise() {
        for word in ["password", "configuration", "required", "swordfish", "authentication"] {
            assert!(wordy(word.as_bytes()), "{word}");
        }
        for noise in ["kwjqzipd", "xkqvbnwz", "hgfkdzrt"] {
            assert!(!wordy(noise.as_bytes()), "{noise}");
        }
    }
}
