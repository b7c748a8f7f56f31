//! A running child and its end.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::mpsc;

use crate::cell::{self, Cell, Gauge};
use crate::egress::Event;
use crate::stderr::StderrTail;

/// A running child: a cell, or the leader of a process group of its own. Dropping it kills the cell, or the group.
#[derive(Debug)]
pub struct Child {
    body: Body,
    streams: Option<(ChildStdin, ChildStdout)>,
    stderr: StderrTail,
    network: Option<mpsc::Receiver<Event>>,
}

#[derive(Debug)]
enum Body {
    Cell {
        cell: Box<Cell>,
        /// How the program ended, once that is known, or why it was not started.
        ended: Option<Result<Option<ExitStatus>, String>>,
    },
    Process(tokio::process::Child, Group),
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
        Some(Self { body: Body::Process(process, Group(Some(pid))), streams, stderr, network: None })
    }

    /// Takes over a cell.
    pub(crate) fn in_cell(
        cell: Cell,
        streams: (ChildStdin, ChildStdout),
        stderr: StderrTail,
        network: Option<mpsc::Receiver<Event>>,
    ) -> Self {
        Self {
            body: Body::Cell { cell: Box::new(cell), ended: None },
            streams: Some(streams),
            stderr,
            network,
        }
    }

    /// What is in force in its cell; `None` if it is in none.
    #[must_use]
    pub fn gauge(&self) -> Option<Gauge> {
        match &self.body {
            Body::Cell { cell, .. } => Some(cell.gauge()),
            Body::Process(..) => None,
        }
    }

    /// Takes the pipes to its standard input and from its standard output; once.
    pub fn take_streams(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.streams.take()
    }

    /// Takes what it does on the network, if it is in a cell with a way out; once. Somebody has to read it, or there will be no more
    /// connections before long; when it is dropped, there are none any more.
    pub fn take_network(&mut self) -> Option<mpsc::Receiver<Event>> {
        self.network.take()
    }

    /// The last of what it wrote to standard error.
    #[must_use]
    pub const fn stderr(&self) -> &StderrTail {
        &self.stderr
    }

    /// Resolves when the process has ended, and reaps it. What it had started may live on until [`end`](Self::end), but for a cell,
    /// where it is killed.
    pub async fn exited(&mut self) -> Option<ExitStatus> {
        match &mut self.body {
            Body::Process(process, _) => process.wait().await.ok(),
            Body::Cell { ended: Some(how), .. } => how.clone().ok().flatten(),
            Body::Cell { cell, ended } => {
                let how = cell.ended().await;
                let status = |how: cell::Ended| how.code.map(|code| code << 8).or(how.signal);
                let how =
                    how.map(|how| status(how).map(ExitStatus::from_raw)).map_err(|error| error.to_string());
                ended.insert(how).clone().ok().flatten()
            }
        }
    }

    /// Waits until it has ended; says why it could not even be started in its cell, if it could not.
    pub async fn not_started(&mut self) -> Option<String> {
        self.exited().await;
        match &self.body {
            Body::Cell { ended: Some(Err(why)), .. } => Some(why.clone()),
            Body::Cell { .. } | Body::Process(..) => None,
        }
    }

    /// Ends the child and all that it started: closes its input and waits `grace` for it to end by itself, then sends `SIGTERM` and waits
    /// `grace` again, then kills. Returns when the process is reaped.
    pub async fn end(mut self, grace: Duration) -> Ended {
        drop(self.streams.take());
        let by_itself = tokio::time::timeout(grace, self.exited()).await.ok();
        let asked = match by_itself {
            Some(status) => Some(status),
            None => {
                match &mut self.body {
                    Body::Cell { cell, .. } => cell.ask_to_end(),
                    Body::Process(_, group) => group.kill(Signal::TERM),
                }
                tokio::time::timeout(grace, self.exited()).await.ok()
            }
        };
        match &mut self.body {
            Body::Cell { cell, .. } => cell.kill(),
            Body::Process(_, group) => group.kill(Signal::KILL),
        }
        match asked {
            Some(status) => Ended::ByItself(status),
            None => {
                // After it was killed this ends.
                let _how = self.exited().await;
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
