//! Tools as an operator accepted them: names, definitions, effects.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::json::{Canonical, Document};
use crate::name::ToolName;

/// What a tool does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Destroys what it may not be possible to get back.
    Delete,
    /// Sends something out of reach of the gate.
    Egress,
    /// Runs code.
    Execute,
    /// Moves money.
    Money,
    /// Changes who may do what.
    Privilege,
    /// Looks, and changes nothing.
    Read,
    /// Changes something.
    Write,
}

impl Effect {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 7] =
        [Self::Delete, Self::Egress, Self::Execute, Self::Money, Self::Privilege, Self::Read, Self::Write];

    /// The word used in configuration and policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Egress => "egress",
            Self::Execute => "execute",
            Self::Money => "money",
            Self::Privilege => "privilege",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no effect; the effects are delete, egress, execute, money, privilege, read and write")]
pub struct EffectError(pub String);

impl FromStr for Effect {
    type Err = EffectError;

    fn from_str(text: &str) -> Result<Self, EffectError> {
        Self::ALL
            .into_iter()
            .find(|e| e.as_str() == text)
            .ok_or_else(|| EffectError(text.escape_debug().to_string()))
    }
}

/// A tool as an operator accepted it.
///
/// The definition is kept as the server sent it, byte for byte; its pin is the digest of its canonical form, so it
/// covers name, description, schemas, annotations, icons and whatever else the server says about it.
#[derive(Debug, Clone)]
pub struct Tool {
    /// The tool's name.
    pub name: ToolName,
    /// What it does. Declared by an operator; else the worst that the server's annotations leave open.
    pub effects: BTreeSet<Effect>,
    /// The MCP tool object as the server sent it.
    pub definition: Document,
    /// The digest of the definition.
    pub pin: Digest,
}

/// The pin of a definition: the digest of its canonical form.
#[must_use]
pub fn pin(definition: &Canonical) -> Digest {
    Digest::of("toolgate/tool/v1", &[definition.as_bytes()])
}

/// The effects of a tool nobody declared, from the server's own annotations. These count only to the worse: absent
/// hints have MCP's defaults (writes, destroys, reaches out), and `readOnlyHint: true` is not believed.
#[must_use]
pub fn undeclared_effects() -> BTreeSet<Effect> {
    BTreeSet::from([Effect::Delete, Effect::Egress, Effect::Write])
}
