//! What the fuzz target for arguments reaches.

use std::time::Duration;

use toolgate_broker::config::Builtin;
use toolgate_sandbox::cell::{Limits, Profile, Workspace};

use super::arguments::Order;

/// What arguments come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// The command.
    pub argv: Vec<String>,
    /// How many bytes it is given to read.
    pub input: usize,
    /// The files that go in, and how many bytes each has.
    pub files: Vec<(String, usize)>,
    /// The files that come out.
    pub wanted: Vec<String>,
    /// How long it may last.
    pub time: Duration,
}

/// Reads the arguments of `code/run` or `shell/exec`, under a profile with this time and a workspace.
///
/// # Errors
/// They are refused.
pub fn ordered(code: bool, read_only: bool, time: Duration, arguments: &[u8]) -> Result<Ordered, String> {
    let builtin = if code { Builtin::Code } else { Builtin::Shell };
    let mode = if read_only { Workspace::Read } else { Workspace::Overlay };
    let wall_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let profile = Profile {
        workspace: Some(("/work".into(), mode)),
        limits: Limits { wall_ms, ..Limits::default() },
        ..Profile::default()
    };
    let Order { argv, input, files, wanted, time, encoding: _ } = Order::read(builtin, arguments, &profile)?;
    let files = files.into_iter().map(|given| (given.path, given.content.len())).collect();
    Ok(Ordered { argv, input: input.len(), files, wanted, time })
}
