//! Hexadecimal digits, in lower case.

use std::fmt;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// How many bytes are written at once.
const CHUNK: usize = 32;

/// The digits of these bytes, two for each.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

/// The bytes that these digits stand for, in lower case, two for each. `None` for anything else.
#[must_use]
pub fn decode(digits: &str) -> Option<Vec<u8>> {
    let value =
        |digit: u8| DIGITS.iter().position(|known| *known == digit).and_then(|at| u8::try_from(at).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(value(*pair.first()?)? << 4 | value(*pair.get(1)?)?)).collect()
}

/// Shows bytes as their digits.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.chunks(CHUNK) {
            let mut text = [0; 2 * CHUNK];
            for (pair, byte) in text.chunks_exact_mut(2).zip(chunk) {
                for (digit, value) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                    *digit = DIGITS.get(usize::from(value)).copied().unwrap_or_default();
                }
            }
            let text = text.get(..2 * chunk.len()).unwrap_or_default();
            f.write_str(std::str::from_utf8(text).map_err(|_impossible| fmt::Error)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_as_the_standard_library_writes_them() {
        let all: Vec<u8> = (0..=255).collect();
        for length in [0, 1, 2, 31, 32, 33, 64, 255, 256] {
            let bytes = &all[256 - length..];
            let want: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(encode(bytes), want, "length {length}");
            assert_eq!(decode(&want).unwrap(), bytes);
        }
        for wrong in ["0", "0g", "AB", "0 ", "ä"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
