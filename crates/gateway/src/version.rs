//! The protocol revisions that are spoken with agents.

use std::fmt;

/// A revision of MCP. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// The first with Streamable HTTP. Its batches are not accepted.
    V2025_03_26,
    /// The first with the header `MCP-Protocol-Version`.
    V2025_06_18,
    /// The last that begins with `initialize`.
    V2025_11_25,
    /// Stateless: each request says what it speaks.
    V2026_07_28,
}

impl Version {
    /// All of them, the newest first.
    pub const ALL: [Self; 4] = [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26];

    /// The newest that begins with `initialize`: what is answered to a client that wants one we do not know.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;

    /// The revision of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Whether each request carries version and capabilities, and there is no session.
    #[must_use]
    pub const fn is_modern(self) -> bool {
        match self {
            Self::V2026_07_28 => true,
            Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => false,
        }
    }

    /// The names of all of them as a JSON array, the newest first.
    #[must_use]
    pub fn all_as_json() -> String {
        let names: Vec<String> = Self::ALL.into_iter().map(|version| format!("\"{version}\"")).collect();
        format!("[{}]", names.join(","))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
