//! Adapters: agents on one side, servers on the other, MCP of both eras on both.
#![forbid(unsafe_code)]

pub mod headers;
pub mod port;
pub mod rpc;
pub mod upstream;
pub mod version;
