//! The vault: credentials that the gate uses and no agent sees.
//!
//! One file holds them, each sealed by itself. What opens it is the *root key*, which lies in the file too, wrapped once
//! for each way to unlock it. A secret says what it is good for ([`uses::Uses`]), and that is sealed with it: a value cannot be
//! moved to another name, another host or an older version by who can write the file.

pub mod file;
pub mod keys;
pub mod mint;
pub mod process;
pub mod turns;
pub mod uses;

pub use file::{Locked, Sealed, Vault, VaultError};
pub use keys::{KeySlot, Opener};
pub use mint::{Mint, MintError, Provider};
pub use uses::{HostPort, Placeholder, Slot, ToolPattern, UseError, Uses};
