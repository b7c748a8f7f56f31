//! Names of hosts: one type from the rule to the connection.

use std::fmt;
use std::str::FromStr;

/// The name of a host in the one way it is written here: lower case, letters, digits and hyphens, no dot at the end.
///
/// What could be read as an address by anything (`127.1`, `0x7f.1`, `2130706433`) is no name, and what is not ASCII has to be
/// written as the DNS has it (`xn--…`), so that two names that look alike are not taken for each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

/// Why a text is not the name of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It could be read as an address.
    #[error("it is an address, or could be read as one; rules are for names")]
    Address,
    /// It has other characters.
    #[error("it has characters besides letters, digits, hyphens and dots; write other alphabets as `xn--…`")]
    Characters,
    /// A part between dots is empty, longer than 63 bytes, or begins or ends with a hyphen.
    #[error("between dots there have to be 1 to 63 characters that neither begin nor end with a hyphen")]
    Label,
    /// It is longer than 253 bytes.
    #[error("it is longer than 253 characters")]
    Length,
}

impl HostName {
    /// The longest name there can be, in bytes.
    pub const LONGEST: usize = 253;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is below another one: `a.example.com` is below `example.com`, and `example.com` is not.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.strip_suffix(&other.0).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// How many parts it has.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.0.split('.').count()
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > Self::LONGEST {
            return Err(NameError::Length);
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        if !text.bytes().all(known) {
            return Err(NameError::Characters);
        }
        let sound =
            |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
        if !text.split('.').all(sound) {
            return Err(NameError::Label);
        }
        let name = text.to_ascii_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        // As browsers decide: what ends with a number is an address.
        let hexadecimal =
            last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NameError::Address);
        }
        Ok(Self(name))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
