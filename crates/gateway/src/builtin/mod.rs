//! Tools that the gate itself offers: what an agent wants run, runs in a cell of its own.
//!
//! A built-in is a server like any other as far as names, rules, pins, questions and the log go; it is only reached otherwise. What
//! there is to say about one is in four places:
//!
//! | file | holds |
//! | --- | --- |
//! | `arguments.rs` | what an agent may write, as a type that cannot be wrong |
//! | `definition.rs` | what agents and operators are told of the tool |
//! | `mod.rs` | one call: its cell, from the beginning to the end |
//! | `answer.rs` | what the agent is told of it |
//!
//! Its definitions are pinned like everybody's, though the gate makes them: they say what a call can reach, so a change of the profile or
//! of the program is looked at by an operator before an agent sees it, and no second rule says what may be offered.
//!
//! Nothing but an authorized call makes a cell for an agent's words:
//!
//! ```compile_fail,E0308
//! # use toolgate_broker::port::{AgentLine, Stop};
//! # use toolgate_gateway::builtin::Tool;
//! async fn unasked(tool: &Tool, call: toolgate_core::call::Call, line: AgentLine, stop: Stop) {
//!     tool.run(call, line, stop, std::future::pending(), None).await;
//! }
//! ```
//!
//! ```compile_fail,E0616
//! // What makes cells is out of reach.
//! fn around(tool: toolgate_gateway::builtin::Tool) {
//!     drop(tool.launcher);
//! }
//! ```
//!
//! ```
//! # use toolgate_broker::{authorized::Authorized, port::{AgentLine, Stop}};
//! # use toolgate_gateway::builtin::Tool;
//! async fn asked(tool: &Tool, call: Authorized<toolgate_core::call::Call>, line: AgentLine, stop: Stop) {
//!     tool.run(call, line, stop, std::future::pending(), None).await;
//! }
//! ```

mod answer;
mod arguments;
mod definition;
pub(crate) mod fuzzing;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use toolgate_broker::authorized::Authorized;
use toolgate_broker::config::Builtin;
use toolgate_broker::config::profiles::Per;
use toolgate_broker::connections::Whose;
use toolgate_broker::outcome::Answer;
use toolgate_broker::port::{AgentLine, CellEnd, Executed, Stop, StopReason};
use toolgate_core::call::Call;
use toolgate_core::digest::Digest;
use toolgate_core::json::{Document, Edit, ObjectWriter};
use toolgate_core::name::ServerName;
use toolgate_core::scrub::Raw;
use toolgate_core::tool::pin;
use toolgate_sandbox::Launcher;
use toolgate_sandbox::cell::{Cell, CellError, Cut, Folder, Given, Lent, Planned, Profile};

use answer::Taken;
use arguments::{Language, Order};

use crate::proxy::Passage;
use crate::upstream::{Observer, Oddity, is_modern, own_document};

/// How many cells one built-in has at once. Who comes later waits.
const MAX_CELLS: u32 = 64;

/// How many cells wait for the next calls, once there was one.
const WAITING: usize = 2;

/// How often an agent is told what was written meanwhile, and how much of it.
const TELL: Duration = Duration::from_millis(250);
const TELL_BYTES: usize = 4 << 10;

/// How long an answer waits for what the network of its cell has to tell.
const LAST_WORD: Duration = Duration::from_millis(200);

/// One built-in, and what it is given.
pub struct Tool {
    name: ServerName,
    builtin: Builtin,
    profile: Profile,
    launcher: Launcher,
    observer: Arc<dyn Observer>,
    places: Semaphore,
    /// Worked out when it is first asked for.
    definition: OnceCell<(Document, Digest)>,
}

impl Tool {
    /// A built-in of this name, whose calls run in cells of this profile.
    #[must_use]
    pub fn new(
        name: ServerName,
        builtin: Builtin,
        profile: Profile,
        launcher: Launcher,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            name,
            builtin,
            profile,
            launcher,
            observer,
            places: Semaphore::new(MAX_CELLS as usize),
            definition: OnceCell::new(),
        }
    }

    /// What is told of it.
    ///
    /// # Errors
    /// It needs to look into a cell for that, and there is none.
    pub async fn definition(&self) -> Result<Document, CellError> {
        Ok(self.defined().await?.0.clone())
    }

    async fn defined(&self) -> Result<&(Document, Digest), CellError> {
        let define = || async {
            let languages = match self.builtin {
                Builtin::Code => self.languages().await?,
                Builtin::Shell => Vec::new(),
            };
            let definition = definition::of(self.builtin, &self.profile, &languages);
            let canonical = definition.root().canonical();
            let no_number =
                |_error| CellError::System("a definition", std::io::ErrorKind::InvalidData.into());
            let pin = pin(&canonical.map_err(no_number)?);
            Ok((definition, pin))
        };
        self.definition.get_or_try_init(define).await
    }

    /// The languages whose programs are in its cells. What looks is a script of ours.
    async fn languages(&self) -> Result<Vec<Language>, CellError> {
        let look = Language::ALL.map(|language| format!("command -v {}", language.program()));
        let script = format!("{}; exit 0", look.join("; "));
        let Planned { spec, opened } =
            self.profile.plan(["/bin/sh", "-c", &script].map(str::to_owned).into())?;
        let cell = self.launcher.cells().await?.run(&spec).await?;
        drop(opened);
        let found = cell.finish(b"", &spec.limits).await?;
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        let there = |language: &Language| {
            found.lines().any(|line| line.rsplit('/').next() == Some(language.program()))
        };
        Ok(Language::ALL.into_iter().filter(there).collect())
    }

    /// Runs a call in a cell of its own, which is gone when this returns: whatever ended it. `over` resolves when the session is. What
    /// comes of it passes the credential proxy, if there is one.
    pub async fn run(
        &self,
        call: Authorized<Call>,
        line: AgentLine,
        stop: Stop,
        over: impl Future<Output = ()> + Send,
        passage: Option<Passage>,
    ) -> Executed {
        let modern = is_modern(line.client());
        let mut answer = self.answer(&call, &line, stop, over, passage.as_ref()).await;
        if let (Ok(result), Some(passage)) = (&mut answer, passage) {
            match passage.once(result.bytes()).await {
                Ok(cleaned) => *result = own_document(cleaned),
                Err(_) => {
                    *result = answer::refused("what it wrote cannot be looked through, and is withheld")
                }
            }
        }
        match answer {
            Ok(result) if modern => {
                let complete = [("resultType", Edit::Set(b"\"complete\"".as_slice()))];
                answered(own_document(result.root().rewrite(&complete)))
            }
            Ok(result) => answered(result),
            Err(executed) => executed,
        }
    }

    async fn answer(
        &self,
        call: &Authorized<Call>,
        line: &AgentLine,
        mut stop: Stop,
        over: impl Future<Output = ()> + Send,
        passage: Option<&Passage>,
    ) -> Result<Document, Executed> {
        let not_sent = |error| self.not_sent(&error);
        let (_, pin) = self.defined().await.map_err(not_sent)?;
        if call.get().pin.as_ref() != Some(pin) {
            self.observer.odd(&self.name, Oddity::ToolChanged, self.builtin.tool());
            return Err(Executed::NotSent("the tool is not what was accepted".to_owned()));
        }
        let order = match Order::read(self.builtin, call.get().arguments.as_bytes(), &self.profile) {
            Ok(order) => order,
            Err(why) => return Ok(answer::refused(&why)),
        };
        let _place = tokio::select! {
            place = self.places.acquire() => place,
            _reason = stop.stopped() => return Err(Executed::NotSent("stopped before it began".to_owned())),
        };
        let Order { argv, input, files, wanted, time, encoding } = order;
        let given = input.len() + files.iter().map(|file| file.content.len()).sum::<usize>();
        let lent = match passage {
            Some(passage) => passage.lend_placeholders().await.map_err(|error| {
                not_sent(CellError::System("placeholders for the secrets of its cell", error))
            })?,
            None => Lent::default(),
        };
        let mut cell = self.cell(call, argv, files, !wanted.is_empty(), &lent).await.map_err(not_sent)?;
        stop.runs_in(cell.gauge(), Per::Call);
        let gauge = cell.gauge();
        if let Some(network) = cell.network.take() {
            let (session, id) = (call.get().session.clone(), call.get().id);
            self.observer.network(Whose { server: self.name.clone(), session, call: Some(id) }, network);
        }
        let folder = cell.folder.take();
        let (said, noted) = (Said::default(), stop.clone());
        let end = async {
            tokio::select! {
                () = tokio::time::sleep(time) => Cut::Deadline,
                () = over => Cut::Unwanted,
                reason = stop.stopped() => match reason {
                    StopReason::Deadline => Cut::Deadline,
                    StopReason::Gone => Cut::Unwanted,
                },
            }
        };
        let most = self.profile.limits.output_bytes;
        let finished = tokio::select! {
            finished = cell.finish_when(&input, most, end, |_stream, bytes| said.add(bytes)) => finished,
            never = said.tell(line, passage.is_some()) => match never {},
        };
        let done = match finished {
            Ok(done) => done,
            // A file has no place, or there is no such program: the agent can do something about that.
            Err(CellError::Prepare { step, why }) => return Ok(answer::refused(&format!("{step}: {why}"))),
            Err(error) => return Err(Executed::Lost(error.to_string())),
        };
        let taken = match folder {
            Some(folder) if done.cut != Some(Cut::Unwanted) => take(folder, wanted).await,
            Some(_) | None => Vec::new(),
        };
        // What it did last on the network is told when the connection has ended.
        let _late = tokio::time::timeout(LAST_WORD, gauge.settled()).await;
        let taken_bytes = taken.iter().map(Taken::length).sum::<usize>();
        noted.ended(CellEnd {
            ended: done.ended.clone(),
            cut: done.cut,
            bytes_in: given as u64,
            bytes_out: (done.stdout.len() + done.stderr.len() + taken_bytes) as u64,
        });
        match done.cut {
            Some(Cut::Unwanted) => Err(Executed::Cancelled),
            Some(Cut::Deadline | Cut::Output) | None => Ok(answer::of(&done, &taken, encoding)),
        }
    }

    /// Makes the cell of an authorized call, and starts what it says.
    async fn cell(
        &self,
        _asked_for_by: &Authorized<Call>,
        argv: Vec<String>,
        files: Vec<Given>,
        hands_out: bool,
        lent: &Lent,
    ) -> Result<Cell, CellError> {
        let mut planned = self.profile.plan(argv)?;
        planned.make_room(lent);
        let Planned { mut spec, opened } = planned;
        (spec.files, spec.hands_out) = (files, hands_out);
        let cells = self.launcher.cells().await?;
        let cell = cells.run_lent(&spec, lent).await?;
        if self.profile.workspace.is_none() {
            // What is below a folder of the host may change while a cell waits.
            cells.warm(&spec, WAITING);
        }
        drop(opened);
        Ok(cell)
    }

    /// That there is no cell is for the operator to do something about.
    fn not_sent(&self, error: &CellError) -> Executed {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let why = format!("{error}{cause}");
        self.observer.odd(&self.name, Oddity::NotStarted, &why);
        Executed::NotSent(why)
    }

    /// Waits until no call runs.
    pub async fn idle(&self) {
        // It is never closed.
        let _all = self.places.acquire_many(MAX_CELLS).await;
    }
}

fn answered(result: Document) -> Executed {
    Executed::Answered(Raw::new(Answer::Result(result)))
}

/// Takes files out of the folder of a cell that has ended.
async fn take(folder: Folder, wanted: Vec<String>) -> Vec<Taken> {
    let taking = move || {
        let mut room = arguments::MAX_FILE_BYTES as u64;
        let mut taken = Vec::with_capacity(wanted.len());
        for path in wanted {
            let content = folder.take(&path, room).map_err(|error| error.to_string());
            room -= content.as_ref().map_or(0, |content| content.len() as u64);
            taken.push(Taken { path, content });
        }
        taken
    };
    // Files can be slow, and so can be letting go of the last that is left of the cell.
    tokio::task::spawn_blocking(taking).await.unwrap_or_default()
}

/// What was written and not told yet.
#[derive(Default)]
struct Said(Mutex<Told>);

#[derive(Default)]
struct Told {
    bytes: Vec<u8>,
    /// How many bytes there were in all.
    total: u64,
    /// How many bytes are not told, since there were too many.
    left_out: usize,
}

impl Said {
    fn add(&self, bytes: &[u8]) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.total += bytes.len() as u64;
        told.bytes.extend_from_slice(bytes);
        if let Some(over) = told.bytes.len().checked_sub(TELL_BYTES) {
            told.bytes.drain(..over);
            told.left_out += over;
        }
    }

    /// Tells it, for ever: what was written, or, where that is to be cleaned as a whole, how much.
    async fn tell(&self, line: &AgentLine, is_cleaned: bool) -> std::convert::Infallible {
        let mut tick = tokio::time::interval(TELL);
        loop {
            tick.tick().await;
            if let Some(params) = self.news(is_cleaned) {
                line.notify("notifications/progress", params.into());
            }
        }
    }

    /// What is new, as the parameters of a notification.
    fn news(&self, is_cleaned: bool) -> Option<Vec<u8>> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A character that has not come whole yet waits for the rest.
        let whole = match std::str::from_utf8(&told.bytes) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => told.bytes.len(),
        };
        if whole == 0 {
            return None;
        }
        let left_out = match std::mem::take(&mut told.left_out) {
            0 => String::new(),
            bytes => format!("[{bytes} bytes are left out]\n"),
        };
        let new: Vec<u8> = told.bytes.drain(..whole).collect();
        let message = left_out + &String::from_utf8_lossy(&new);
        let progress = i64::try_from(told.total).unwrap_or(i64::MAX);
        if is_cleaned {
            return Some(ObjectWriter::new().number("progress", progress).finish());
        }
        Some(ObjectWriter::new().number("progress", progress).string("message", &message).finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(said: &Said) -> Option<String> {
        said.news(false).map(|params| String::from_utf8(params).unwrap())
    }

    #[test]
    fn what_is_told_is_new_whole_and_bounded() {
        let said = Said::default();
        assert_eq!(news(&said), None);
        said.add(b"a\xc3");
        assert_eq!(news(&said).as_deref(), Some(r#"{"progress":2,"message":"a"}"#));
        assert_eq!(news(&said), None, "half a character waits");
        said.add(b"\xa9\xff");
        assert_eq!(news(&said).as_deref(), Some("{\"progress\":4,\"message\":\"\u{e9}\u{fffd}\"}"));
        assert_eq!(news(&said), None);
        for _ in 0..100 {
            said.add(&[b'x'; 1000]);
        }
        let told = news(&said).unwrap();
        let want = format!(
            "{{\"progress\":100004,\"message\":\"[95904 bytes are left out]\\n{}\"}}",
            "x".repeat(TELL_BYTES)
        );
        assert_eq!(told, want);
        said.add(b"y");
        assert_eq!(news(&said).as_deref(), Some(r#"{"progress":100005,"message":"y"}"#));
    }
}
