//! Tiers: how much lies between what runs in a cell and the kernel of the host. A specification names the least.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kind of cell, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// No namespaces: Landlock, filters of system calls and limits, on the files of the host where they are.
    LandlockOnly,
    /// Namespaces, and all that the tier below has.
    #[default]
    Native,
    /// A kernel of its own in user space, by gVisor.
    Gvisor,
    /// A kernel of its own on a virtual machine. This program makes no such cells.
    Microvm,
}

impl Tier {
    /// All of them, from the weakest to the strongest.
    pub const ALL: [Self; 4] = [Self::LandlockOnly, Self::Native, Self::Gvisor, Self::Microvm];

    /// What it is called in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LandlockOnly => "landlock-only",
            Self::Native => "native",
            Self::Gvisor => "gvisor",
            Self::Microvm => "microvm",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// It is not the name of a tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no tier; there are `landlock-only`, `native`, `gvisor` and `microvm`", .0.escape_debug())]
pub struct TierError(String);

impl FromStr for Tier {
    type Err = TierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|tier| tier.name() == text).ok_or_else(|| TierError(text.to_owned()))
    }
}
