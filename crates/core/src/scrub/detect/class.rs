//! Classes of what is looked for, which the configuration switches on and off by name.

use std::str::FromStr;

/// A class of what is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Numbers of payment cards.
    Card,
    /// Addresses of electronic mail.
    Email,
    /// International bank account numbers.
    Iban,
    /// Numbers that a state gives to a person.
    Id,
    /// Public addresses of the Internet protocol.
    Ip,
    /// Numbers of telephones.
    Phone,
    /// Credentials of all kinds.
    Secrets,
}

impl Class {
    /// All classes, with the names by which the configuration knows them.
    pub const ALL: [(&'static str, Self); 7] = [
        ("secrets", Self::Secrets),
        ("pii.card", Self::Card),
        ("pii.email", Self::Email),
        ("pii.iban", Self::Iban),
        ("pii.id", Self::Id),
        ("pii.ip", Self::Ip),
        ("pii.phone", Self::Phone),
    ];

    /// The name by which the configuration knows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, class)| *class == self).map_or("", |(name, _)| name)
    }

    /// The class that a kind belongs to, by its name in tokens: `pii.id.fr-nir` to `pii.id`; what is no personal data to `secrets`.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        let is =
            |name: &str| kind.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        Self::ALL.iter().find(|(name, _)| is(name)).map_or(Self::Secrets, |(_, class)| *class)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classes(u8);

impl Default for Classes {
    /// Secrets, and no personal data: whether that may pass is for a policy to say.
    fn default() -> Self {
        Self(Class::Secrets.bit())
    }
}

impl Classes {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// Whether a class is in it.
    #[must_use]
    pub const fn has(self, class: Class) -> bool {
        self.0 & class.bit() != 0
    }

    /// With all of another set.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With a class.
    #[must_use]
    pub const fn with(self, class: Class) -> Self {
        Self(self.0 | class.bit())
    }

    /// Reads a list of names: `secrets`, `pii.card`, …, and `pii` for all of those.
    ///
    /// # Errors
    /// [`ClassError`] for a name that is none.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, ClassError> {
        names.into_iter().try_fold(Self::NONE, |classes, name| {
            let name = name.trim();
            if name == "pii" {
                let all = Class::ALL.iter().filter(|(name, _)| name.starts_with("pii."));
                return Ok(all.fold(classes, |classes, (_, class)| classes.with(*class)));
            }
            name.parse().map(|class| classes.with(class))
        })
    }
}

impl FromStr for Class {
    type Err = ClassError;

    fn from_str(text: &str) -> Result<Self, ClassError> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, class)| *class);
        found.ok_or_else(|| ClassError(text.chars().take(40).collect()))
    }
}

/// A name that is no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no class of what can be scrubbed; there are `secrets`, `pii`, `pii.card`, `pii.email`, `pii.iban`, `pii.id`, `pii.ip`, `pii.phone`"
)]
pub struct ClassError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (names, want) in [
            (&["secrets"][..], Ok(Classes::default())),
            (&["secrets", "pii.card"], Ok(Classes::default().with(Class::Card))),
            (&[], Ok(Classes::NONE)),
            (
                &["pii.cards"],
                Err(
                    "`pii.cards` is no class of what can be scrubbed; there are `secrets`, `pii`, `pii.card`, `pii.email`, `pii.iban`, `pii.id`, `pii.ip`, `pii.phone`",
                ),
            ),
        ] {
            let got = Classes::parse(names.iter().copied()).map_err(|error| error.to_string());
            assert_eq!(got, want.map_err(str::to_owned), "{names:?}");
        }
        let all = Classes::parse(["pii"]).unwrap();
        for (name, class) in Class::ALL {
            assert_eq!(class.name(), name);
            assert_eq!(all.has(class), name.starts_with("pii."), "{name}");
        }
    }
}
