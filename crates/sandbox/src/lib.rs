//! Everything that starts programs: cells ([`cell`]), with a way out by name ([`egress`]), and plain children.
//!
//! A cell is a sandbox: what runs in it reaches what it was given and nothing else. `toolgate exec` runs commands in them, and a
//! [`Launcher`] MCP servers.
//!
//! **A plain child is in no cell**: that takes an operator's word. It has an environment that
//! holds only what is named, its own session-less process group, pipes for all three streams, and an end that takes the
//! whole group along. It has all the rights of the user who runs the gate: it can read the gate's files and reach the
//! network. Only what the operator's configuration names is ever started; nothing an agent or a server says becomes a
//! program, an argument or a variable.
//!
//! What is enforced for both, each with a test in `tests/launch.rs`:
//! - the environment is empty but for what [`Launch::env`] names;
//! - [`Child::end`] and dropping a [`Child`] kill the whole cell or process group, also what the child started itself;
//! - a child is killed when the gate dies, however it dies (`PR_SET_PDEATHSIG`, on Linux);
//! - standard error is read to the end, its last 64 KiB kept, and shown only with hidden characters escaped.
//!
//! What is not, for a plain child: a process that leaves the group (`setsid`) outlives its parent, and what a child had started
//! before the gate was killed with `SIGKILL` is told only by the end of its pipes.

pub mod cell;
mod child;
pub mod egress;
pub mod guarded;
pub mod image;
mod launch;
pub mod messages;
mod stderr;

pub use child::{Child, Ended};
pub use launch::{Launch, LaunchError, Launcher, Through};
pub use stderr::{KEPT_BYTES, StderrTail};
