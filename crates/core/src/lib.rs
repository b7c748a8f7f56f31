//! What a call is, what the rules say about it, and what may leave.
//!
//! Everything here is pure: no file, no socket, no clock, no randomness, no `async`. What needs one of those takes
//! its value as a parameter. The lints of this crate's `clippy.toml` keep it that way.
#![forbid(unsafe_code)]

pub mod call;
pub mod digest;
pub mod hex;
pub mod json;
pub mod name;
pub mod policy;
pub mod refusal;
pub mod schema;
pub mod scrub;
pub mod text;
pub mod time;
pub mod tool;
pub mod verdict;
