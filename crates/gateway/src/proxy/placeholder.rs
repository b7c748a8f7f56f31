//! What stands for a secret in a cell: made by chance, good for one secret in one run at the hosts of that secret, and nowhere else.

use std::sync::Arc;

use toolgate_broker::vault::keys::derive;
use toolgate_broker::vault::process::Value;
use toolgate_broker::vault::{HostPort, Placeholder};
use toolgate_core::scrub::detect::checksum62_of;
use toolgate_core::scrub::known::{Known, KnownValue};
use toolgate_core::scrub::{Detect as _, Found, Kind, Place};

/// How many digits a random number of 128 bits has in base 62.
const RANDOM: usize = 22;
/// How many digits there are of the MAC, where there is room.
const MAC: usize = 22;
/// What tokens begin with that end in a checksum, and have 36 characters behind their beginning: those of GitHub and npm.
const SUMMED: [&str; 6] = ["gho_", "ghp_", "ghr_", "ghs_", "ghu_", "npm_"];
/// How many of those are before the checksum.
const BEFORE_SUM: usize = 30;

/// One that a cell has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Whose.
    pub(super) secret: String,
    /// The text.
    pub(super) text: String,
    /// Its first digits, from which the others follow.
    random: u128,
}

/// What a placeholder is bound to besides its secret.
pub(super) struct Bound<'a> {
    /// The key that only the proxy and the vault have.
    pub(super) key: &'a [u8; 32],
    pub(super) session: &'a str,
}

impl Bound<'_> {
    /// What stands for this secret.
    pub(super) fn mark(&self, value: &Value, placeholder: &Placeholder) -> Result<Mark, getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let random = u128::from_be_bytes(random);
        let text = self.text(value, &placeholder.prefix, random);
        Ok(Mark { secret: value.name.to_string(), text, random })
    }

    /// Whether a mark still stands for a secret: not when that was said to be good for other hosts since.
    pub(super) fn holds(&self, mark: &Mark, value: &Value) -> bool {
        let said = value.uses.placeholders.iter().map(|one| self.text(value, &one.prefix, mark.random));
        mark.secret == value.name.as_str() && said.into_iter().any(|text| text == mark.text)
    }

    fn text(&self, value: &Value, prefix: &str, random: u128) -> String {
        let hosts: Vec<String> = value.uses.hosts.iter().map(HostPort::to_string).collect();
        let random_bytes = random.to_be_bytes();
        let mut parts = vec![b"placeholder".as_slice(), self.session.as_bytes()];
        parts.extend([value.name.as_str().as_bytes(), prefix.as_bytes(), &random_bytes]);
        parts.extend(hosts.iter().map(String::as_bytes));
        let mac = derive(self.key, &parts);
        let mac = u128::from_be_bytes(mac.first_chunk().copied().unwrap_or_default());
        let is_summed = SUMMED.contains(&prefix);
        let length = if is_summed { BEFORE_SUM - RANDOM } else { MAC };
        let body = digits(random, RANDOM) + &digits(mac, length);
        let sum = if is_summed { checksum62_of(body.as_bytes()) } else { String::new() };
        format!("{prefix}{body}{sum}")
    }
}

/// The last digits of a number in base 62.
fn digits(mut number: u128, length: usize) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut next = || {
        let digit = usize::try_from(number % 62).ok().and_then(|digit| DIGITS.get(digit));
        number /= 62;
        char::from(*digit.unwrap_or(&b'0'))
    };
    (0..length).map(|_| next()).collect()
}

/// Finds placeholders, however they are written.
#[derive(Debug, Clone)]
pub(super) struct Finder(Arc<Known>);

impl Finder {
    pub(super) fn new<'m>(marks: impl Iterator<Item = &'m str>) -> Self {
        let values: Vec<_> = (0..)
            .zip(marks)
            .map(|(id, mark)| KnownValue { id, value: mark.as_bytes(), names: &[] })
            .collect();
        Self(Arc::new(Known::new(&values).0))
    }

    /// Whether there is one in it, or it cannot be said.
    pub(super) fn finds(&self, bytes: &[u8]) -> bool {
        let mut found: Vec<Found> = Vec::new();
        let looked = self.0.find(bytes, &Place::default(), &mut found);
        looked.is_err() || found.iter().any(|found| matches!(found.kind, Kind::Known(_)))
    }
}

#[cfg(test)]
mod tests {
    use toolgate_broker::vault::Uses;
    use zeroize::Zeroizing;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn value(host: &str, placeholder: &str) -> Value {
        Value {
            name: "github".parse().unwrap(),
            version: 1,
            uses: Uses {
                hosts: [host.parse().unwrap()].into(),
                placeholders: [placeholder.parse().unwrap()].into(),
                ..Uses::default()
            },
            value: Zeroizing::new(b"a value of the test".to_vec()),
        }
    }

    fn mark(bound: &Bound<'_>, value: &Value) -> Mark {
        bound.mark(value, value.uses.placeholders.first().unwrap()).unwrap()
    }

    #[test]
    fn it_looks_like_what_it_stands_for() {
        let bound = Bound { key: &KEY, session: "s" };
        let plain = mark(&bound, &value("api.example", "env:TOKEN")).text;
        assert_eq!(plain.len(), RANDOM + MAC);
        let other = mark(&bound, &value("api.example", "env:TOKEN=sk-proj-")).text;
        assert!(other.starts_with("sk-proj-") && other.len() == 8 + RANDOM + MAC, "{other}");
        let github = mark(&bound, &value("api.example", "env:TOKEN=ghp_")).text;
        let (body, sum) = github.strip_prefix("ghp_").unwrap().split_at(BEFORE_SUM);
        assert_eq!((sum.len(), sum), (6, &*checksum62_of(body.as_bytes())), "{github}");
        assert_ne!(mark(&bound, &value("api.example", "env:TOKEN")).text, plain, "made by chance");
    }

    #[test]
    fn it_stands_for_one_secret_in_one_run_at_its_hosts() {
        let bound = Bound { key: &KEY, session: "s" };
        let secret = value("api.example", "env:TOKEN=ghp_");
        let mark = mark(&bound, &secret);
        assert!(bound.holds(&mark, &secret));
        assert!(!bound.holds(&mark, &value("other.example", "env:TOKEN=ghp_")), "other hosts");
        assert!(!bound.holds(&mark, &value("api.example:8443", "env:TOKEN=ghp_")), "another port");
        assert!(!bound.holds(&mark, &value("api.example", "env:TOKEN")), "another shape");
        assert!(!Bound { key: &KEY, session: "t" }.holds(&mark, &secret), "another run");
        assert!(!Bound { key: &[8; 32], session: "s" }.holds(&mark, &secret), "another vault");
        let other = Value { name: "gitlab".parse().unwrap(), ..value("api.example", "env:TOKEN=ghp_") };
        assert!(!bound.holds(&mark, &other), "another secret");
    }

    #[test]
    fn it_is_found_however_it_is_written() {
        let bound = Bound { key: &KEY, session: "s" };
        let text = mark(&bound, &value("api.example", "env:TOKEN=ghp_")).text;
        let finder = Finder::new([text.as_str()].into_iter());
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let percent: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for said in [text.clone(), hex, percent, text.to_lowercase(), text.chars().rev().collect()] {
            assert!(finder.finds(said.as_bytes()), "{said}");
        }
        assert!(!finder.finds(b"GET /repos HTTP/1.1\nauthorization: Bearer another-token-of-somebody"));
        assert!(!Finder::new(std::iter::empty()).finds(text.as_bytes()));
    }
}
