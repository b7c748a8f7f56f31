//! The audit log of Toolgate: records, tree, checkpoints, proofs and verification.
//!
//! The formats are those of C2SP (tlog-tiles, tlog-checkpoint, signed-note, tlog-cosignature, tlog-proof), so that
//! other people's tools can read a log. This crate knows nothing of policies, agents or servers: an auditor builds
//! it alone. `docs/ledger.md` describes the format byte by byte.

pub mod checkpoint;
pub mod cosignature;
pub mod export;
pub mod folder;
pub mod note;
pub mod proof;
pub mod publish;
pub mod record;
pub mod signer;
pub mod tile;
pub mod tree;
pub mod verify;

pub use checkpoint::Checkpoint;
pub use folder::Folder;
pub use note::{SigningKey, VerifierKey};
pub use proof::{Proof, Trust};
pub use publish::Publisher;
pub use record::{Body, Record, commit};
pub use signer::Signer;
pub use tree::Hash;
