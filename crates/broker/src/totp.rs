//! One-time codes from a phone: RFC 6238 with SHA-1, six digits and 30 seconds, the kind every authenticator app knows.
//!
//! Pure: whoever calls [`check`] brings the time, and stores the [`Attempts`] it gives back *before* using its result,
//! so that a code counts once and guessing is slow, also across processes and restarts.
//!
//! A known limit: the secret lies on this machine, sealed under the state key. Whoever can read the state folder can
//! make codes. Against an agent that runs as the gate's own user, a passphrase is the stronger proof.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// How long one code holds, in seconds.
const STEP_S: u64 = 30;

/// How many wrong codes are free.
const FREE_FAILURES: u32 = 5;

/// How long the first lock-out is, and the longest, in milliseconds. Each further failure doubles it.
const FIRST_LOCK_MS: u64 = 60_000;
const LONGEST_LOCK_MS: u64 = 3_600_000;

/// What the phone and the gate share.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TotpSecret([u8; 20]);

/// What is remembered of a person's codes. All fields change together, in one transaction of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempts {
    /// The step of the last code that was accepted; it and everything before it is used up.
    pub last_step: u64,
    /// Wrong codes since the last right one.
    pub failures: u32,
    /// Until when no code is looked at, in milliseconds since 1970.
    pub locked_until_ms: u64,
}

/// Why a code is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TotpError {
    /// Too many wrong codes.
    #[error("too many wrong codes; the next one is looked at in {wait_s} s")]
    Locked {
        /// How long to wait, in seconds.
        wait_s: u64,
    },
    /// It is not a code at all; nothing was counted.
    #[error("a code has six digits")]
    Malformed,
    /// It, or a later one, was used before.
    #[error("this code was used already; wait for the next one")]
    Replayed,
    /// It is not the code of now.
    #[error("the code is wrong")]
    Wrong,
}

impl TotpSecret {
    /// The secret made of these random bytes.
    #[must_use]
    pub const fn new(random: [u8; 20]) -> Self {
        Self(random)
    }

    /// The bytes, to be sealed.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// What an authenticator app reads, usually as a picture. Shown once and never again.
    #[must_use]
    pub fn uri(&self, person: &str) -> String {
        let secret = base32(&self.0);
        format!(
            "otpauth://totp/Toolgate:{person}?secret={secret}&issuer=Toolgate&algorithm=SHA1&digits=6&period=30"
        )
    }

    /// The code of one step.
    fn code(&self, step: u64) -> u32 {
        // Any key length is fine for HMAC; the fallback cannot be reached and matches nothing.
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(&self.0) else { return u32::MAX };
        mac.update(&step.to_be_bytes());
        let hash: [u8; 20] = mac.finalize().into_bytes().into();
        let at = usize::from(hash[19] & 0xf);
        let four = hash.get(at..at + 4).and_then(|four| four.try_into().ok()).unwrap_or([0xff; 4]);
        (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000
    }
}

/// Looks at a code: the step it belongs to if it is right, one step early or late, and was not used before.
///
/// The [`Attempts`] are what has to be stored, whatever the result.
pub fn check(
    secret: &TotpSecret,
    code: &str,
    now_ms: u64,
    before: Attempts,
) -> (Attempts, Result<u64, TotpError>) {
    if code.len() != 6 || !code.bytes().all(|b| b.is_ascii_digit()) {
        return (before, Err(TotpError::Malformed));
    }
    if now_ms < before.locked_until_ms {
        let wait_s = (before.locked_until_ms - now_ms).div_ceil(1000);
        return (before, Err(TotpError::Locked { wait_s }));
    }
    let given: u32 = code.parse().unwrap_or(u32::MAX);
    let now = now_ms / 1000 / STEP_S;
    let mut found = 0_u64;
    let mut hit = Choice::from(0);
    for step in now.saturating_sub(1)..=now + 1 {
        let same = secret.code(step).ct_eq(&given);
        found = u64::conditional_select(&found, &step, same);
        hit |= same;
    }
    if !bool::from(hit) {
        return (before.failed(now_ms), Err(TotpError::Wrong));
    }
    if found <= before.last_step {
        return (before.failed(now_ms), Err(TotpError::Replayed));
    }
    (Attempts { last_step: found, failures: 0, locked_until_ms: 0 }, Ok(found))
}

impl Attempts {
    fn failed(self, now_ms: u64) -> Self {
        let failures = self.failures.saturating_add(1);
        let locked_until_ms = match failures.checked_sub(FREE_FAILURES) {
            None => 0,
            Some(over) => now_ms.saturating_add((FIRST_LOCK_MS << over.min(16)).min(LONGEST_LOCK_MS)),
        };
        Self { failures, locked_until_ms, ..self }
    }
}

/// RFC 4648 base32 in capital letters, without padding.
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut pending, mut bits) = (0_u32, 0);
    let mut put = |five: u32| text.push(char::from(DIGITS.get(five as usize & 31).copied().unwrap_or(b'A')));
    for byte in bytes {
        pending = (pending << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            put(pending >> bits);
        }
        pending &= (1 << bits) - 1;
    }
    if bits > 0 {
        put(pending << (5 - bits));
    }
    text
}

/// Reads what [`base32`] wrote; `None` for anything else, also for spare bits that are not zero.
#[must_use]
pub fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut pending, mut bits) = (0_u32, 0);
    for digit in text.bytes() {
        let five = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        pending = (pending << 5) | u32::from(five);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((pending >> bits) & 0xff).ok()?);
        }
        pending &= (1 << bits) - 1;
    }
    (bits < 5 && pending == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of RFC 6238, appendix B.
    fn secret() -> TotpSecret {
        TotpSecret::new(*b"12345678901234567890")
    }

    #[test]
    fn the_vectors_of_rfc_6238() {
        for (seconds, code) in [
            (59, 287_082),
            (1_111_111_109, 81_804),
            (1_111_111_111, 50_471),
            (1_234_567_890, 5_924),
            (2_000_000_000, 279_037),
            (20_000_000_000, 353_130),
        ] {
            assert_eq!(secret().code(seconds / STEP_S), code, "at {seconds} s");
        }
    }

    #[test]
    fn a_code_counts_once_and_only_near_its_time() {
        let at = |seconds: u64| seconds * 1000;
        let code = "287082"; // step 1
        for (seconds, want) in [(0, Ok(1)), (59, Ok(1)), (89, Ok(1)), (90, Err(TotpError::Wrong))] {
            let (_, got) = check(&secret(), code, at(seconds), Attempts::default());
            assert_eq!(got, want, "at {seconds} s");
        }
        let (after, first) = check(&secret(), code, at(59), Attempts::default());
        assert_eq!(first, Ok(1));
        let (after, second) = check(&secret(), code, at(60), after);
        assert_eq!(second, Err(TotpError::Replayed));
        assert_eq!((after.last_step, after.failures), (1, 1), "a replay counts as a failure");
    }

    #[test]
    fn guessing_is_slow() {
        let mut attempts = Attempts::default();
        let mut now_ms = 1_000_000_000;
        let mut tries = 0;
        while now_ms < 1_000_000_000 + 86_400_000 {
            let (after, got) = check(&secret(), "000000", now_ms, attempts);
            match got {
                Err(TotpError::Wrong) => tries += 1,
                Err(TotpError::Locked { wait_s }) => now_ms += wait_s * 1000,
                other => panic!("{other:?}"),
            }
            attempts = after;
        }
        assert!(tries <= 36, "{tries} tries in a day");
        let (_, locked) = check(&secret(), "000000", now_ms - 1, attempts);
        assert!(matches!(locked, Err(TotpError::Locked { .. } | TotpError::Wrong)));
    }

    #[test]
    fn what_is_no_code_is_not_counted() {
        for code in ["", "12345", "1234567", "12345a", "１２３４５６", "+12345", " 12345"] {
            let (after, got) = check(&secret(), code, 0, Attempts::default());
            assert_eq!((after, got), (Attempts::default(), Err(TotpError::Malformed)), "code: {code:?}");
        }
    }

    #[test]
    fn base32_reads_back_and_has_one_spelling() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "MY"),
            (b"fo", "MZXQ"),
            (b"foo", "MZXW6"),
            (b"foob", "MZXW6YQ"),
            (b"fooba", "MZXW6YTB"),
            (b"foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes), text);
            assert_eq!(from_base32(text).as_deref(), Some(bytes));
        }
        for wrong in ["M", "MZ", "my", "MY======", "M1", "MZX"] {
            assert_eq!(from_base32(wrong), None, "input: {wrong:?}");
        }
        assert_eq!(
            secret().uri("ada"),
            "otpauth://totp/Toolgate:ada?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Toolgate&algorithm=SHA1&digits=6&period=30"
        );
    }
}
