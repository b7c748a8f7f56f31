//! Adapters: agents on one side, servers on the other, MCP of both eras on both.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod headers;
pub mod line;
pub mod port;
pub mod rpc;
pub mod session;
pub mod upstream;
pub mod version;
