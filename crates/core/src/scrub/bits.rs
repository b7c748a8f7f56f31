//! Digits of six or five bits each, and the bytes that they stand for.

/// What a digit of base64 stands for, in either alphabet.
pub(super) const fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// The bytes that digits of so many bits stand for. Bits that fill no byte are left out.
pub(super) fn bytes(digits: impl Iterator<Item = u8>, width: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(digits.size_hint().1.unwrap_or_default() * width as usize / 8 + 1);
    let (mut held, mut count) = (0_u32, 0);
    for digit in digits {
        held = held << width | u32::from(digit);
        count += width;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(held >> count & 0xff).unwrap_or_default());
        }
    }
    bytes
}
