//! `toolgate exec`: a command in a cell, for people and scripts. Its streams and its exit status are the command's own.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use toolgate_broker::config::profiles::{OnImage, Profile as Written};
use toolgate_sandbox::cell::changes::{self, Change, What};
use toolgate_sandbox::cell::{
    self, Cell, CellError, Cells, Ended, Layers, Lent, Limits, Planned, Profile, Source, Tier, Workspace,
};

use tokio::sync::mpsc;
use toolgate_sandbox::egress::{Attempt, Event, Refused, To, Verdict};

use crate::args::{Exec, Keep};
use crate::out;
use crate::place::{Place, read_pem};
use crate::profile;
use crate::vault::Vault;

/// The exit status of a command whose time was over, as of `timeout`.
const LATE: u8 = 124;
/// The exit status of a command that could not be started, as in a shell.
const NOT_STARTED: u8 = 127;

pub(crate) fn run(exec: &Exec, place: impl Fn() -> anyhow::Result<Place>) -> anyhow::Result<ExitCode> {
    let folder = exec.workspace.clone().map_or_else(std::env::current_dir, Ok)?;
    let secrets_of = if exec.secret.is_empty() { None } else { Some(place()?) };
    let believed = exec.ca_file.as_deref().map(read_pem).transpose()?;
    let profile = profile(exec, &folder, place)?;
    let mut planned = profile.plan(exec.command.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let program = std::env::current_exe().context("could not find this program")?;
        let cells = Cells::start(&program, Layers::ALL)?;
        if !cells.limits_memory() && exec.memory.is_some() {
            out::note("no cgroup can be used here: the limit of memory holds for each process alone");
        }
        let vault = secrets_of.as_ref().map(vault).transpose()?;
        let lent = match &vault {
            Some(vault) => vault.lend(&exec.secret, believed).await?,
            None => Lent::default(),
        };
        planned.make_room(&lent);
        let Planned { spec, opened } = planned;
        let mut cell = cells.run_handed(&spec, streams()?, &lent).await.map_err(refused)?;
        drop(lent);
        let tier = cell.enforced.tier;
        if tier < Tier::Native {
            out::note(format_args!("the cell is of the tier `{tier}`: names of files and other things of this machine can be found out"));
        }
        drop(opened);
        for path in &cell.unmapped {
            out::note(format_args!(
                "`{}` lies on a file system that cannot show its files as the cell's own: the cell reaches what anybody may",
                path.display()
            ));
        }
        let changed = cell.changes.pop();
        let network = cell.network.take().map(|events| tokio::spawn(watch(events)));
        let status = finish(&cell, &profile.limits).await?;
        drop(cell);
        if let Some(network) = network {
            network.await?.tell();
        }
        let lower = spec.places.iter().find_map(|place| match place {
            cell::Place::Overlay { lower, .. } => Some(lower),
            cell::Place::Bind { .. }
            | cell::Place::Dev { .. }
            | cell::Place::File { .. }
            | cell::Place::Proc
            | cell::Place::Symlink { .. }
            | cell::Place::Tmpfs { .. } => None,
        });
        if let (Some(changed), Some(lower)) = (changed, lower) {
            settle(&changed, lower, exec.changes)?;
        }
        if let Some(vault) = vault {
            vault.close().await;
        }
        Ok(status)
    })
}

/// The vault, unlocked. Has to be called within a tokio runtime.
fn vault(place: &Place) -> anyhow::Result<Vault> {
    let state = place.open()?;
    Vault::open(&state.folder, &Arc::new(state.store))
}

/// What is said of Landlock in a cell; nothing, where there is another kernel between.
pub(crate) fn landlock(level: u32) -> String {
    if level == 0 { String::new() } else { format!(", with level {level} of Landlock") }
}

/// What cells this machine makes, found out by making them.
pub(crate) struct Makes {
    /// The level of Landlock in a cell of each tier, or why there is none.
    pub(crate) tiers: Vec<(Tier, Result<u32, String>)>,
    /// Whether memory is limited for a cell as a whole.
    pub(crate) total: bool,
    /// Why cells have no way out to the network, if they have none.
    pub(crate) no_way_out: Option<String>,
}

impl Makes {
    /// The tier that a cell is of for which this is the least, and its level of Landlock; or why there is none.
    pub(crate) fn at_least(&self, tier: Tier) -> Result<(Tier, u32), &str> {
        let found = |tier: Tier| self.tiers.iter().find(|(known, _)| *known == tier).map(|(_, made)| made);
        // The usual tier is taken before the weakest.
        let usual = found(Tier::Native).filter(|made| made.is_ok() && tier == Tier::LandlockOnly);
        match (usual, found(tier)) {
            (Some(Ok(landlock)), _) => Ok((Tier::Native, *landlock)),
            (_, Some(Ok(landlock))) => Ok((tier, *landlock)),
            (_, Some(Err(why))) => Err(why),
            (_, None) => Err("it is not known"),
        }
    }
}

/// Finds out what cells this machine makes.
pub(crate) fn makes() -> anyhow::Result<Makes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cells = Cells::start(&std::env::current_exe()?, Layers::ALL)?;
        let mut tiers = Vec::new();
        for tier in Tier::ALL {
            tiers.push((tier, cells.makes(tier).await));
        }
        let no_way_out = cells.way_out().await.err().map(|error| error.to_string());
        Ok(Makes { tiers, total: cells.limits_memory(), no_way_out })
    })
}

fn profile(
    exec: &Exec,
    folder: &Path,
    place: impl FnOnce() -> anyhow::Result<Place>,
) -> anyhow::Result<Profile> {
    let mut profile = if exec.profile.is_none() && exec.image.is_none() {
        profile::cell(&Written::shipped("code").context("no profile")?, Vec::new())
    } else {
        let place = place()?;
        let config = place.config()?;
        let mut written = match &exec.profile {
            None => Written::shipped("code").context("no profile")?,
            Some(name) => profile::find(&config, name)?.clone(),
        };
        if let Some(name) = &exec.image {
            // What a profile takes of the wishes of its own image is not for another one.
            let own = written.image.take().filter(|image| image.name == *name);
            written.image = own.or_else(|| Some(OnImage::named(name)));
        }
        profile::resolved(&place.surroundings, &place.images(), &written)?
    };
    if let Some(seconds) = exec.time {
        profile.limits.wall_ms = seconds.saturating_mul(1000);
        profile.limits.cpu_s = seconds;
    }
    if let Some(mib) = exec.memory {
        profile.limits.memory_bytes = mib.saturating_mul(1 << 20);
    }
    for entry in &exec.env {
        let (name, value) = match entry.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value =
                    std::env::var(entry).with_context(|| format!("the variable `{entry}` is not set"))?;
                (entry.as_str(), value)
            }
        };
        profile.env.push((name.to_owned(), value));
    }
    // So that programs know what their terminal can show; nothing in it is secret.
    if let Ok(term) = std::env::var("TERM") {
        profile.env.push(("TERM".to_owned(), term));
    }
    let workspace = match exec.changes {
        Keep::Apply | Keep::ApplyAll | Keep::Discard | Keep::List => Workspace::Overlay,
        Keep::None => Workspace::Read,
        Keep::Direct => Workspace::Write,
    };
    profile.workspace = Some((folder.to_owned(), workspace));
    profile.tier = exec.tier.unwrap_or(profile.tier);
    profile.exec.extend(exec.read.iter().cloned());
    profile.write.extend(exec.write.iter().cloned());
    profile.net.extend(exec.net.iter().cloned());
    Ok(profile)
}

/// A cell that this machine does not make is no fault of the command.
fn refused(error: CellError) -> anyhow::Error {
    let of_the_machine = match &error {
        CellError::NotTotal | CellError::Tier(_) => true,
        CellError::Prepare { step, .. } => step == "its namespaces",
        CellError::NoLauncher | CellError::Source { .. } | CellError::System(..) => false,
    };
    if of_the_machine {
        let hint = "`toolgate doctor` says what this machine has, and what to do";
        return out::hinted(error.to_string(), hint);
    }
    error.into()
}

/// Our own streams, for the command.
fn streams() -> io::Result<[OwnedFd; 3]> {
    Ok([
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ])
}

/// Waits for the command's end, its deadline, or somebody who presses control and C.
async fn finish(cell: &Cell, limits: &Limits) -> anyhow::Result<ExitCode> {
    let ended = tokio::select! {
        ended = cell.ended() => ended,
        () = tokio::time::sleep(Duration::from_millis(limits.wall_ms)) => {
            cell.kill();
            out::note(format_args!("the time is over: {} s; everything in the cell was killed", limits.wall_ms / 1000));
            return Ok(ExitCode::from(LATE));
        }
        _ = tokio::signal::ctrl_c() => {
            cell.kill();
            return Ok(ExitCode::from(130));
        }
    };
    match ended {
        Ok(Ended { code, signal, out_of_memory, .. }) => {
            if out_of_memory {
                out::note("the memory of the cell was used up; raise it with --memory");
            }
            let signalled = signal.and_then(|signal| u8::try_from(128 + signal).ok());
            let code = code.and_then(|code| u8::try_from(code).ok());
            Ok(ExitCode::from(code.or(signalled).unwrap_or(1)))
        }
        Err(CellError::Prepare { step, why }) => {
            out::note(format_args!("{step}: {why}"));
            Ok(ExitCode::from(NOT_STARTED))
        }
        Err(error) => Err(error.into()),
    }
}

/// How many different things that came to nothing are told.
const TOLD: usize = 64;

/// What the command wanted on the network and did not get, and how often.
#[derive(Default)]
struct Missed {
    attempts: BTreeMap<(To, u16, Verdict), u64>,
    others: u64,
}

/// Reads what happens on the network, to the end.
async fn watch(mut events: mpsc::Receiver<Event>) -> Missed {
    let mut missed = Missed::default();
    while let Some(event) = events.recv().await {
        match event {
            Event::Attempt(Attempt { verdict: Verdict::Allowed, .. }) => {}
            Event::Attempt(Attempt { to, port, verdict, .. }) => {
                let key = (to, port, verdict);
                if missed.attempts.len() < TOLD || missed.attempts.contains_key(&key) {
                    *missed.attempts.entry(key).or_default() += 1;
                } else {
                    missed.others += 1;
                }
            }
            Event::Untold(others) => missed.others += others,
        }
    }
    missed
}

impl Missed {
    fn tell(&self) {
        let mut missing = false;
        for ((to, port, verdict), times) in &self.attempts {
            let at = if *port == 0 { String::new() } else { format!(":{port}") };
            let times = if *times == 1 { String::new() } else { format!(", {times} times") };
            match verdict {
                Verdict::Allowed => {}
                Verdict::Failed => out::note(format_args!("not reached: {to}{at}{times}")),
                Verdict::Refused(why) => {
                    missing |= matches!(why, Refused::Name | Refused::Port | Refused::Unnamed);
                    out::note(format_args!("not allowed: {to}{at} ({why}){times}"));
                }
            }
        }
        if self.others > 0 {
            out::note(format_args!("not allowed: {} more", self.others));
        }
        if missing {
            out::note("`--net NAME:PORT` allows a host and port");
        }
    }
}

/// Says what was changed, and does with it what was asked for.
fn settle(changed: &OwnedFd, lower: &Source, keep: Keep) -> anyhow::Result<()> {
    let found = changes::read(changed).context("could not read what was changed")?;
    // Folders that only lead to something say nothing by themselves.
    let told = |change: &Change| !matches!(change.what, What::Folder { replaced: false });
    if !found.values().any(told) {
        return Ok(());
    }
    let (careful, harmless): (BTreeMap<_, _>, BTreeMap<_, _>) =
        found.clone().into_iter().partition(|(_, change)| change.caution.is_some());
    let (taken, left) = match keep {
        Keep::Apply => (harmless, careful),
        Keep::ApplyAll => {
            let (never, taken): (BTreeMap<_, _>, _) =
                found.into_iter().partition(|(_, change)| change.what == What::Special);
            (taken, never)
        }
        Keep::Direct | Keep::Discard | Keep::List | Keep::None => (BTreeMap::new(), found),
    };
    changes::apply(changed, lower, &taken).context("could not take over what was changed")?;
    for (path, change) in taken.iter().filter(|(_, change)| told(change)) {
        out::note(format_args!("{} {}", word(&change.what), shown(path)));
    }
    if keep == Keep::Discard {
        return Ok(());
    }
    let left: Vec<_> = left.iter().filter(|(_, change)| told(change)).collect();
    for (path, change) in &left {
        let why = change.caution.map(|caution| format!(" ({})", caution.words())).unwrap_or_default();
        out::note(format_args!("not taken over: {} {}{why}", word(&change.what), shown(path)));
    }
    if !left.is_empty() && keep == Keep::List {
        out::note("the folder is as it was; `--changes apply` takes changes over");
    }
    Ok(())
}

fn shown(path: &str) -> String {
    path.escape_debug().to_string()
}

const fn word(what: &What) -> &'static str {
    match what {
        What::File { .. } => "file",
        What::Folder { .. } => "folder",
        What::Link { .. } => "link",
        What::Removed => "removed",
        What::Special => "special file",
    }
}
