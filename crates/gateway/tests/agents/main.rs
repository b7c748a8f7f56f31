//! The agents' side of the gateway over real sockets and pipes, with a broker that keeps the minutes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what went wrong by panicking")]

mod demo;
mod http;
mod legacy;
mod modern;
mod pipes;
mod world;
