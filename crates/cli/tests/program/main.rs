//! The program itself, in a home of its own: what `up` offers, what each command prints, what is refused.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]
#![expect(clippy::indexing_slicing, reason = "a member that is not there is null, and compares unequal")]

mod accept;
#[path = "../../../sandbox/tests/archive/mod.rs"]
mod archive;
mod builtin;
mod credentials;
mod help;
mod home;
mod http;
mod init;
mod inside;
mod json;
mod leases;
mod login;
mod mistakes;
mod review;
mod scan;
mod secret;
mod up;
