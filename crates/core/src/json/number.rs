//! What a number that was kept as text is.

use std::io::Write as _;

/// The greatest integer up to which every integer is a double of its own.
const SAFE: u64 = (1 << 53) - 1;

/// Why a number does not survive being read by another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lossy {
    /// An integer beyond ±(2^53−1).
    Integer,
    /// No double has this value in its shortest form.
    Inexact,
    /// `-0`, which many programs turn into `0`.
    NegativeZero,
    /// Beyond the greatest double.
    Overflow,
}

/// A decimal number: `0.DIGITS` times ten to the `point`. No zeros at either end of the digits; none at all for zero.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    point: i64,
}

impl Decimal {
    /// Reads a number that is written as JSON or by Rust's `{:e}`.
    fn of(text: &str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = [whole.as_bytes(), fraction.as_bytes()].concat();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Self { negative, digits, point: 0 };
        }
        // An exponent too long for an `i64` is as good as the greatest: no sum with a length comes near to overflowing it.
        let most = i64::from(i32::MAX);
        let exponent = exponent.parse().unwrap_or(if exponent.starts_with('-') { -most } else { most });
        let places = i64::try_from(whole.len()).unwrap_or(most) - i64::try_from(zeros).unwrap_or(most);
        Self { negative, digits, point: exponent.clamp(-most, most) + places }
    }

    fn is_integer(&self) -> bool {
        i64::try_from(self.digits.len()).is_ok_and(|count| count <= self.point) || self.digits.is_empty()
    }

    /// The integer it is, if it is one of 64 bits.
    fn to_i64(&self) -> Option<i64> {
        if !self.is_integer() || self.point > 19 {
            return None;
        }
        let mut value = 0_i64;
        let zeros = std::iter::repeat(&b'0');
        let places = usize::try_from(self.point).ok()?;
        for digit in self.digits.iter().chain(zeros).take(places) {
            let digit = i64::from(digit - b'0');
            // Counts downwards, since there is one more negative number.
            value = value.checked_mul(10)?.checked_sub(digit)?;
        }
        if self.negative { Some(value) } else { value.checked_neg() }
    }

    /// Writes it as ECMAScript's `Number::toString` does.
    fn write(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        let count = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        let zeros = |out: &mut Vec<u8>, many: i64| out.extend((0..many).map(|_| b'0'));
        match self.point {
            _ if count == 0 => out.push(b'0'),
            point @ ..=21 if point >= count => {
                out.extend_from_slice(&self.digits);
                zeros(out, point - count);
            }
            point @ 1..=21 => {
                let (whole, fraction) = self.digits.split_at(usize::try_from(point).unwrap_or_default());
                out.extend_from_slice(whole);
                out.push(b'.');
                out.extend_from_slice(fraction);
            }
            point @ -5..=0 => {
                out.extend_from_slice(b"0.");
                zeros(out, -point);
                out.extend_from_slice(&self.digits);
            }
            point => {
                let (first, rest) = self.digits.split_at(1);
                out.extend_from_slice(first);
                if !rest.is_empty() {
                    out.push(b'.');
                    out.extend_from_slice(rest);
                }
                let sign = if point > 0 { "+" } else { "" };
                // Writing to a vector does not fail.
                let _ = write!(out, "e{sign}{}", point - 1);
            }
        }
    }
}

/// Appends the canonical form of a JSON number.
pub(super) fn canonical(raw: &str, out: &mut Vec<u8>) -> Result<(), Lossy> {
    if is_short_integer(raw) {
        out.extend_from_slice(raw.as_bytes());
        return Ok(());
    }
    let written = Decimal::of(raw);
    if written.digits.is_empty() {
        if written.negative {
            return Err(Lossy::NegativeZero);
        }
        out.push(b'0');
        return Ok(());
    }
    let plain = !raw.contains(['.', 'e', 'E']);
    // Written without an exponent, or printed without one: then some programs take it for an integer, and round it.
    if written.is_integer() && (plain || written.point <= 21) {
        return match written.to_i64() {
            Some(value) if value.unsigned_abs() <= SAFE => {
                written.write(out);
                Ok(())
            }
            _ => Err(Lossy::Integer),
        };
    }
    let value = raw.parse::<f64>().unwrap_or(f64::INFINITY);
    if value.is_infinite() {
        return Err(Lossy::Overflow);
    }
    if shortest(value) != written {
        return Err(Lossy::Inexact);
    }
    written.write(out);
    Ok(())
}

/// The shortest decimal that is read as this double, as ECMAScript chooses it: of two that are equally near, the even
/// one. Rust's own printing takes the greater.
fn shortest(value: f64) -> Decimal {
    let printed = Decimal::of(&format!("{value:e}"));
    let count = printed.digits.len();
    let one_more = Decimal::of(&format!("{value:.count$e}"));
    let ends_in_half = one_more.digits.len() == count + 1 && one_more.digits.last() == Some(&b'5');
    // No double has more digits than these, so they are the double itself.
    if !ends_in_half || Decimal::of(&format!("{value:.800e}")) != one_more {
        return printed;
    }
    let mut even = one_more;
    even.digits.pop();
    match even.digits.last_mut() {
        // An odd digit becomes an even one without a carry: `9` would have made the decimal shorter yet.
        Some(last) if *last % 2 == 1 && *last < b'9' => *last += 1,
        _ => {}
    }
    let mut text = Vec::new();
    even.write(&mut text);
    let reads_as_it = str::from_utf8(&text).ok().and_then(|text| text.parse().ok()) == Some(value);
    if reads_as_it { even } else { printed }
}

/// Whether it is an integer of at most 15 digits that is written in the canonical way already.
fn is_short_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit()) && raw != "-0"
}

pub(super) fn to_i64(raw: &str) -> Option<i64> {
    match raw.parse() {
        Ok(value) => Some(value),
        // Neither `.` nor exponent, so it did not fit.
        Err(_) if !raw.contains(['.', 'e', 'E']) => None,
        Err(_) => Decimal::of(raw).to_i64(),
    }
}

pub(super) fn to_f64(raw: &str) -> Option<f64> {
    raw.parse().ok().filter(|value: &f64| value.is_finite())
}

pub(super) fn to_serde(raw: &str) -> serde_json::Value {
    if let Ok(value) = raw.parse::<i64>() {
        return value.into();
    }
    if let Ok(value) = raw.parse::<u64>() {
        return value.into();
    }
    to_f64(raw).and_then(serde_json::Number::from_f64).map_or_else(|| raw.into(), Into::into)
}
