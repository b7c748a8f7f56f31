//! Adapters: agents on one side, servers on the other, MCP of both eras on both.
#![forbid(unsafe_code)]

pub mod builtin;
pub mod catalog;
pub mod debt;
pub mod front;
#[doc(hidden)]
pub mod fuzzing;
pub mod headers;
pub mod line;
pub mod login;
pub mod port;
pub mod proxy;
pub mod replay;
pub mod router;
pub mod rpc;
pub mod session;
pub mod tasks;
pub mod template;
pub mod upstream;
pub mod version;
