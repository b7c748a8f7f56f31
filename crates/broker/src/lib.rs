//! The order of events: judge, ask, write down, run, clean, write down.
//!
//! [`pipeline::Broker::handle`] is the one way a call takes. What it needs from outside comes through the ports in
//! [`port`]: a store that remembers, an executor that acts, a clock.
#![forbid(unsafe_code)]

pub mod assemble;
pub mod authorized;
pub mod blob;
pub mod config;
pub mod connections;
pub mod demo;
mod desk;
pub mod home;
pub mod identity;
pub mod integrate;
pub mod lease;
mod lines;
pub mod outcome;
pub mod person;
pub mod pipeline;
pub mod port;
pub mod publish;
pub mod randomness;
pub mod reveal;
pub mod rulebook;
pub mod scrub;
pub mod store;
pub mod totp;
mod unstoppable;
pub mod vault;
