//! One strict parser for everything hostile.
//!
//! A [`Document`] keeps the bytes as they came and a tree that says what is where in them, so that what nobody
//! touched goes on byte for byte, and what is judged is put into one canonical form (RFC 8785).

mod canonical;
mod edit;
mod parse;

use bytes::Bytes;

pub use canonical::{Canonical, NotCanonicalError};
pub use edit::{Edit, ObjectWriter};
pub use parse::{JsonError, Limits};

/// A parsed document.
#[derive(Debug, Clone)]
pub struct Document {
    bytes: Bytes,
    root: parse::Node,
}
