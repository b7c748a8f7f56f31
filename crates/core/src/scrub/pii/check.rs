//! Checksums of numbers that are written down often enough to have one.

use crate::scrub::detect::bytes::{at, before, cut};

/// The digits of a number from a place on, where it ends, and how long its groups are if it has some. A single one of
/// the signs may stand between two digits.
pub(super) fn digits(
    text: &[u8],
    start: usize,
    between: &[u8],
    most: usize,
) -> Option<(Vec<u8>, usize, Vec<usize>)> {
    let (mut digits, mut groups, mut group, mut place) = (Vec::with_capacity(most), Vec::new(), 0, start);
    loop {
        let here = at(text, place);
        if here.is_ascii_digit() {
            digits.push(here - b'0');
            group += 1;
        } else if between.contains(&here)
            && at(text, place + 1).is_ascii_digit()
            && before(text, place).is_ascii_digit()
        {
            groups.push(std::mem::take(&mut group));
        } else {
            break;
        }
        place += 1;
        if digits.len() > most {
            return None;
        }
    }
    if !groups.is_empty() {
        groups.push(group);
    }
    (!digits.is_empty()).then_some((digits, place, groups))
}

/// Whether the last digit is the one that Luhn's formula asks for.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let worth = |(place, &digit): (usize, &u8)| match (place % 2, u32::from(digit) * 2) {
        (0, _) => u32::from(digit),
        (_, twice) if twice > 9 => twice - 9,
        (_, twice) => twice,
    };
    digits.iter().rev().enumerate().map(worth).sum::<u32>() % 10 == 0
}

/// Whether digits are the number of a card of one of the large schemes.
pub(super) fn card(digits: &[u8]) -> bool {
    let head = digits.iter().take(4).fold(0_u32, |sum, &digit| sum * 10 + u32::from(digit));
    let scheme = matches!(
        (digits.len(), head),
        (13 | 16 | 19, 4000..=4999)
            | (16, 5100..=5599 | 2221..=2720 | 3528..=3589)
            | (15, 3400..=3499 | 3700..=3799)
            | (14..=19, 3000..=3059 | 3600..=3699 | 3800..=3999)
            | (16..=19, 6011 | 6440..=6599 | 6200..=6299 | 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763)
    );
    scheme && luhn(digits)
}

/// How long the account numbers of a country are.
#[rustfmt::skip]
const IBANS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16), (b"BG", 22), (b"BH", 22), (b"BI", 27), (b"BR", 29), (b"BY", 28),
    (b"CH", 21), (b"CR", 22), (b"CY", 28), (b"CZ", 24), (b"DE", 22), (b"DJ", 27), (b"DK", 18), (b"DO", 28), (b"EE", 20), (b"EG", 29), (b"ES", 24), (b"FI", 18), (b"FK", 18),
    (b"FO", 18), (b"FR", 27), (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27), (b"GT", 28), (b"HR", 21), (b"HU", 28), (b"IE", 22), (b"IL", 23),
    (b"IQ", 23), (b"IS", 26), (b"IT", 27), (b"JO", 30), (b"KW", 30), (b"KZ", 20), (b"LB", 28), (b"LC", 32), (b"LI", 21), (b"LT", 20), (b"LU", 20), (b"LV", 21), (b"LY", 25),
    (b"MC", 27), (b"MD", 24), (b"ME", 22), (b"MK", 19), (b"MN", 20), (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23), (b"PK", 24), (b"PL", 28),
    (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22), (b"RU", 33), (b"SA", 24), (b"SC", 31), (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27),
    (b"SO", 23), (b"ST", 25), (b"SV", 28), (b"TL", 23), (b"TN", 24), (b"TR", 26), (b"UA", 29), (b"VA", 22), (b"VG", 24), (b"XK", 20), (b"YE", 30),
];

/// Where the account number ends that begins at a place, if one does.
pub(super) fn iban(text: &[u8], start: usize) -> Option<usize> {
    let country = cut(text, start, start + 2).to_ascii_uppercase();
    let length = IBANS.iter().find(|(code, _)| code.as_slice() == country).map(|(_, length)| *length)?;
    (at(text, start + 2).is_ascii_digit() && at(text, start + 3).is_ascii_digit()).then_some(())?;
    let mut body = Vec::with_capacity(length);
    let mut place = start;
    while body.len() < length {
        let here = at(text, place);
        if here.is_ascii_alphanumeric() {
            body.push(here.to_ascii_uppercase());
        } else if !(matches!(here, b' ' | b'-') && at(text, place + 1).is_ascii_alphanumeric()) {
            return None;
        }
        place += 1;
    }
    let rest = body.iter().skip(4).chain(body.iter().take(4)).fold(0_u32, |rest, &byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    (rest == 1 && !at(text, place).is_ascii_alphanumeric()).then_some(place)
}

/// The remainder of a number of any length; what is no digit is left out.
pub(super) fn remainder(digits: &[u8], of: u32) -> u32 {
    digits
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0, |rest, &byte| (rest * 10 + u32::from(byte - b'0')) % of)
}

/// The sum of digits times weights.
pub(super) fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(&digit, &weight)| u32::from(digit.wrapping_sub(b'0')) * weight).sum()
}

/// Verhoeff's multiplication, in the dihedral group of ten elements.
const fn times(a: u8, b: u8) -> u8 {
    match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b) % 5,
        (false, true) => 5 + (a + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    }
}

/// Whether the last digit is the one that Verhoeff's method asks for.
pub(super) fn verhoeff(digits: &[u8]) -> bool {
    let permuted = |digit: u8, times: usize| {
        (0..times % 8).fold(digit, |digit, _| {
            [1, 5, 7, 6, 2, 8, 3, 0, 9, 4].get(usize::from(digit)).copied().unwrap_or(0)
        })
    };
    let sum = digits.iter().rev().enumerate();
    sum.fold(0, |sum, (place, &digit)| times(sum, permuted(digit.wrapping_sub(b'0'), place))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers() {
        assert!(luhn(&[7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 3]) && !luhn(&[7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 0]));
        assert!(verhoeff(b"2363") && !verhoeff(b"2364") && verhoeff(b"1428570"));
        assert_eq!(iban(b"GB82 WEST 1234 5698 7654 32;", 0), Some(27));
        assert_eq!(iban(b"GB83 WEST 1234 5698 7654 32;", 0), None);
        assert_eq!(iban(b"DE89370400440532013000", 0), Some(22));
        assert_eq!(iban(b"DE893704004405320130001", 0), None);
    }
}
