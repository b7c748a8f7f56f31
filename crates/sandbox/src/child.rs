//! A running child and its end.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{ChildStdin, ChildStdout};

use crate::stderr::StderrTail;

/// A running child, leader of its own process group. Dropping it kills the group.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    group: Group,
    streams: Option<(ChildStdin, ChildStdout)>,
    stderr: StderrTail,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, after its input was closed or it was asked.
    ByItself(Option<ExitStatus>),
    /// It was killed, because it did not end in the time it had.
    Killed,
}

impl Child {
    /// Takes over a process that was started with all three pipes and as leader of a group of its own.
    pub(crate) fn new(mut process: tokio::process::Child) -> Option<Self> {
        let pid = i32::try_from(process.id()?).ok().and_then(Pid::from_raw)?;
        let streams = process.stdin.take().zip(process.stdout.take());
        let stderr = StderrTail::follow(process.stderr.take()?);
        Some(Self { process, group: Group(Some(pid)), streams, stderr })
    }

    /// The process id, for people to look at.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Takes the pipes to its standard input and from its standard output; once.
    pub fn take_streams(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.streams.take()
    }

    /// The last of what it wrote to standard error.
    #[must_use]
    pub const fn stderr(&self) -> &StderrTail {
        &self.stderr
    }

    /// Resolves when the process has ended, and reaps it. What it had started may live on until [`end`](Self::end).
    pub async fn exited(&mut self) -> Option<ExitStatus> {
        self.process.wait().await.ok()
    }

    /// Ends the child and all of its group: waits `grace` for it to end by itself (close its input first), then sends
    /// `SIGTERM`, waits `grace` again, then `SIGKILL`. Returns when the process is reaped.
    pub async fn end(mut self, grace: Duration) -> Ended {
        drop(self.streams.take());
        if let Ok(status) = tokio::time::timeout(grace, self.process.wait()).await {
            self.group.kill(Signal::KILL);
            return Ended::ByItself(status.ok());
        }
        self.group.kill(Signal::TERM);
        let asked = tokio::time::timeout(grace, self.process.wait()).await;
        self.group.kill(Signal::KILL);
        match asked {
            Ok(status) => Ended::ByItself(status.ok()),
            Err(_) => {
                // Reaps it: after SIGKILL this ends.
                drop(self.process.wait().await);
                Ended::Killed
            }
        }
    }
}

/// The group, killed when dropped.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    /// Signals every process of the group. A group that is gone is what was wanted.
    ///
    /// Once the leader is reaped, its number stays taken as long as one member lives. If none does, the number could be
    /// somebody else's only after all process numbers went round within the few lines between reaping and this.
    fn kill(&mut self, signal: Signal) {
        let Some(pid) = self.0 else { return };
        if signal == Signal::KILL {
            self.0 = None;
        }
        let _gone = kill_process_group(pid, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill(Signal::KILL);
    }
}
