//! Digits of six or five bits each, and the bytes that they stand for.

/// What a digit of base64 stands for, in either alphabet.
pub(super) fn sextet(digit: u8) -> Option<u8> {
    #[expect(clippy::indexing_slicing, reason = "a byte is a place of the table")]
    let value = SEXTETS[usize::from(digit)];
    (value < 64).then_some(value)
}

static SEXTETS: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => u8::MAX,
        };
        #[expect(
            clippy::indexing_slicing,
            reason = "evaluated by the compiler; a byte is a place of the table"
        )]
        {
            values[byte as usize] = value;
        }
        byte += 1;
    }
    values
};

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
