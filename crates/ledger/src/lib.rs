//! The audit log of Toolgate: records, tree, checkpoints, proofs and verification.
//!
//! The formats are those of C2SP (tlog-tiles, tlog-checkpoint, signed-note, tlog-cosignature, tlog-proof), so that
//! other people's tools can read a log. This crate knows nothing of policies, agents or servers: an auditor builds
//! it alone. `docs/ledger.md` describes the format byte by byte.

pub mod record;
pub mod tree;

pub use record::{Body, Record, commit};
pub use tree::Hash;
