//! Cells: what executes, executes here, and reaches only what it was given.
//!
//! ```text
//! gate ──▶ launcher ──clone──▶ first process of a cell ──fork──▶ program
//!      (once, no threads,      builds the root, drops            in the cell, with
//!       empty environment)     everything, waits for a           what it was given
//!                              command, reports its end
//! ```
//!
//! A file is one idea:
//!
//! | file | holds |
//! | --- | --- |
//! | `profile.rs` | what a kind of cell is given, in an operator's words |
//! | `spec.rs` | what a cell is to be |
//! | `launcher.rs` | the small process from which cells are made |
//! | `init.rs` | the first process of a cell |
//! | `tier.rs`, `host.rs` | how strong a cell is, and what a host has for it |
//! | `bare.rs` | a cell without namespaces |
//! | `gvisor.rs` | a cell with a kernel of its own |
//! | `reach.rs` | what a gate that is root opens for it |
//! | `root.rs` | its files |
//! | `lockdown.rs`, `filter.rs` | what it gives up |
//! | `cgroup.rs` | limits on all its processes together |
//! | `gauge.rs` | what is in force, and used up |
//! | `changes.rs` | what a cell changed in its workspace |
//! | `files.rs` | files that go in and come out |
//! | `pool.rs` | cells made in advance |
//! | `wire.rs` | how they talk |

mod bare;
mod cgroup;
pub mod changes;
pub mod confine;
mod files;
mod filter;
mod gauge;
mod gvisor;
pub mod host;
mod init;
mod launcher;
mod lockdown;
mod pool;
mod profile;
mod reach;
mod root;
mod spec;
mod tier;
mod wire;

use std::io::PipeWriter;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use self::bare::Scratch;
use self::cgroup::{Cgroups, Group};
pub use self::files::{Folder, Given, TakeError, is_below};
use self::gauge::Tally;
pub use self::gauge::{Connections, Enforced, Gauge};
pub use self::launcher::{LAUNCHER, launcher};
use self::pool::Pool;
pub use self::profile::{Base, Planned, Profile, Workspace};
use self::reach::Reach;
use self::spec::Shape;
pub use self::spec::{Access, Handed, Layers, Lent, Limits, Opened, Place, SECRETS, Source, Spec};
pub use self::tier::{Tier, TierError};
use self::wire::FromCell;
use crate::egress::{self, Event, HostResolver, Intercept, Interface, Resolve};

/// Why there is no cell.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The launcher is gone.
    #[error("the launcher of cells has ended; restart the gate")]
    NoLauncher,
    /// The cell could not be prepared; the program did not run.
    #[error("the cell failed at {step}: {why}")]
    Prepare {
        /// At what.
        step: String,
        /// What the system said.
        why: String,
    },
    /// A file or folder of the host cannot be given to a cell.
    #[error("`{path}` cannot be given to a cell: {why}")]
    Source {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// This host makes no cell as strong as is asked for, or one of its kind cannot be as it is asked for.
    #[error("{0}")]
    Tier(String),
    /// The profile demands what this host does not let the gate enforce.
    #[error(
        "the limit of memory has to hold for the cell as a whole, and the gate can use no cgroup here; delegate one to it"
    )]
    NotTotal,
    /// The system refused something the gate itself needs for it.
    #[error("the system refused {0}")]
    System(&'static str, #[source] std::io::Error),
}

fn system(what: &'static str) -> impl Fn(Errno) -> CellError {
    move |error| CellError::System(what, error.into())
}

/// Makes cells. Clones and cells share one launcher, which ends when the last of them is dropped; if the gate dies, it ends with
/// all its cells.
#[derive(Debug, Clone)]
pub struct Cells {
    /// Those that wait, and what makes more.
    pool: Arc<Pool>,
    resolver: Arc<dyn Resolve>,
    /// Whether this host makes cells of the usual tier, or why not; once somebody asked.
    native: Arc<tokio::sync::OnceCell<Result<u32, String>>>,
    /// The same of those with a kernel of their own.
    gvisor: Arc<tokio::sync::OnceCell<Result<u32, String>>>,
    /// Tiers that it shall not make cells of.
    without: Vec<Tier>,
}

/// What cells are made with.
#[derive(Debug)]
struct Maker {
    launcher: Launcher,
    cgroups: Option<Cgroups>,
    /// Where the gate is root.
    reach: Option<Reach>,
}

#[derive(Debug)]
struct Launcher {
    /// One request at a time.
    socket: tokio::sync::Mutex<UnixStream>,
}

/// How a program in a cell ended, and what it used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Processor time of all its processes, or, without a cgroup that counts it, of the program and of all it waited for, in
    /// microseconds; not known then if it was killed from outside.
    pub cpu_us: Option<u64>,
    /// The most memory that all its processes held together, or, without cgroups, one of them, in bytes; not known then if it was killed
    /// from outside.
    pub peak_bytes: Option<u64>,
    /// Whether something was killed because the cell had no memory left.
    pub out_of_memory: bool,
}

/// A cell in which a program runs. Dropping it kills everything in it.
#[derive(Debug)]
pub struct Cell {
    _maker: Arc<Maker>,
    process: OwnedFd,
    group: Option<Arc<Group>>,
    /// A cell that waits is watched by the pool, too.
    gate: Arc<UnixStream>,
    /// Its network interface, until somebody is at the other end of it.
    interface: Option<Interface>,
    /// To the program's standard input, if it was started with pipes.
    pub stdin: Option<pipe::Sender>,
    /// From its standard output.
    pub stdout: Option<pipe::Receiver>,
    /// From its standard error.
    pub stderr: Option<pipe::Receiver>,
    /// What is in force.
    pub enforced: Enforced,
    /// Whether it was made in advance.
    pub waited: bool,
    /// The folders of changes of its overlays.
    pub changes: Vec<OwnedFd>,
    /// What it was given by a gate that is root, and lies on a file system that cannot show files as another user's: the cell
    /// reaches in it what anybody may.
    pub unmapped: Vec<PathBuf>,
    /// The folder that the program was started in, if the specification says that it is handed out.
    pub folder: Option<Folder>,
    /// What it does on the network, if it has a way out. Somebody has to read it: a cell can only have as many connections as there is
    /// room to tell of. It ends soon after the cell is dropped.
    pub network: Option<tokio::sync::mpsc::Receiver<Event>>,
    tally: Option<Arc<Tally>>,
    /// As long as it is open, so is the way out.
    _way_out: Option<PipeWriter>,
    /// What it writes where nothing can be kept in memory for it. Dropped after it was killed.
    _scratch: Option<Scratch>,
}

/// A program that has ended, and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub ended: Ended,
    /// Why it was made to, if it was.
    pub cut: Option<Cut>,
    /// Its standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// Its standard error, up to the limit.
    pub stderr: Vec<u8>,
}

/// Why a program was not left to its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its time was over.
    Deadline,
    /// It wrote more than is passed on.
    Output,
    /// Nobody waits for it any more.
    Unwanted,
}

/// Where a program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// To its standard error.
    Errors,
    /// To its standard output.
    Output,
}

/// How much is read at once.
const CHUNK: usize = 16 << 10;

impl Cells {
    /// Starts the launcher: `program` is one whose `main` begins with [`launcher`]. Where the gate is root, cells run as a user that
    /// nobody else is.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, layers: Layers) -> Result<Self, CellError> {
        let (ours, theirs) = wire::pair().map_err(system("a pair of sockets"))?;
        let user = reach::stranger();
        let layers = serde_json::to_string(&layers).unwrap_or_default();
        let mut command = Command::new(program);
        command.arg0(LAUNCHER).args([user.to_string(), layers]).env_clear().current_dir("/");
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| CellError::System("the launcher of cells", error))?;
        // It ends when the socket does. Somebody has to wait for it all the same, or it stays as a zombie.
        std::thread::spawn(move || drop(child.wait()));
        let launcher = Launcher { socket: tokio::sync::Mutex::new(asynchronous(ours)?) };
        let reach = rustix::process::geteuid().is_root().then(|| Reach::new(user));
        let maker = Maker { launcher, cgroups: Cgroups::find(), reach };
        let pool = Arc::new(Pool::new(maker));
        let (native, gvisor) = Default::default();
        Ok(Self { pool, resolver: Arc::new(HostResolver), native, gvisor, without: Vec::new() })
    }

    /// The same, as if this host made no cells of a tier.
    #[must_use]
    pub fn without(mut self, tier: Tier) -> Self {
        self.without.push(tier);
        self
    }

    /// Whether this host makes cells of a tier: the level of Landlock that is in force in one (0 where another kernel lies between), or why
    /// it makes none. It is found out by making one.
    ///
    /// # Errors
    /// In words, at what it failed.
    pub async fn makes(&self, tier: Tier) -> Result<u32, String> {
        if self.without.contains(&tier) {
            return Err("it is switched off".to_owned());
        }
        let probe = || async move {
            self.prepared(tier, &Spec::probe())
                .await
                .map(|cell| cell.enforced.landlock_abi)
                .map_err(|e| e.to_string())
        };
        match tier {
            Tier::Native => self.native.get_or_init(probe).await.clone(),
            Tier::LandlockOnly => probe().await,
            Tier::Gvisor => self.gvisor.get_or_init(|| Box::pin(self.own_kernel())).await.clone(),
            Tier::Microvm => Err(host::machines()),
        }
    }

    /// Runs something in a cell with a kernel of its own.
    async fn own_kernel(&self) -> Result<u32, String> {
        let (runsc, _opened) = Source::open(&gvisor::find()?).map_err(|error| error.to_string())?;
        let spec = gvisor::probe(&runsc);
        let cell = self.run(&spec).await.map_err(|error| error.to_string())?;
        let Finished { ended, cut, stderr, .. } =
            cell.finish(b"", &spec.limits).await.map_err(|error| error.to_string())?;
        match (ended.code, cut) {
            (Some(0), None) => Ok(0),
            _ => {
                let said = String::from_utf8_lossy(&stderr);
                let last = said.lines().last().unwrap_or("it says nothing").escape_debug().to_string();
                Err(format!("gVisor does not run here: {last}"))
            }
        }
    }

    /// Whether cells of the usual tier have a way out to the network here.
    ///
    /// # Errors
    /// At what it failed.
    pub async fn way_out(&self) -> Result<(), CellError> {
        let rule = "toolgate.invalid:443".parse().ok();
        let spec = Spec { net: rule.into_iter().collect(), ..Spec::probe() };
        self.prepared(Tier::Native, &spec).await.map(drop)
    }

    /// A cell in which everything is in force, and nothing runs.
    async fn prepared(&self, tier: Tier, spec: &Spec) -> Result<Cell, CellError> {
        let maker = self.pool.maker();
        if tier == Tier::LandlockOnly {
            return maker.begin_bare(spec).await.map(|(cell, _)| cell);
        }
        let (shape, _) = spec.split();
        let mut cell = maker.begin(&shape).await?;
        cell.ready(&shape).await?;
        Ok(cell)
    }

    /// The tier of a cell: the least that is asked for, or, where that is the weakest, the usual one if this host has it.
    async fn tier_of(&self, spec: &Spec) -> Result<Tier, CellError> {
        let tier = match spec.tier {
            Tier::LandlockOnly if self.makes(Tier::Native).await.is_ok() => Tier::Native,
            tier => tier,
        };
        match tier {
            Tier::LandlockOnly | Tier::Native if !self.without.contains(&tier) => Ok(tier),
            Tier::Gvisor if !self.without.contains(&tier) && gvisor::find().is_ok() => Ok(tier),
            tier => {
                let why = self.makes(tier).await.err().unwrap_or_default();
                Err(CellError::Tier(format!("this host makes no cells of the tier `{tier}`: {why}")))
            }
        }
    }

    /// The same, with another way to find the addresses of names.
    #[must_use]
    pub fn resolving_with(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Whether the memory of a cell is limited as a whole. If not, the limit holds for each of its processes alone.
    #[must_use]
    pub fn limits_memory(&self) -> bool {
        self.pool.maker().cgroups.is_some()
    }

    /// From now on keeps so many cells waiting that are as this one is to be, whatever is to run in them: [`run`](Self::run) takes
    /// such a one, if there is one, in place of making one. The command, its environment, its folder and its streams are bound when it
    /// is taken; everything else is as it was when it was made, and has to be the same, to the last number of a file of the host.
    ///
    /// To say it once more, with every run, costs nothing. What was not asked for in ten minutes is forgotten. Has to be called within a
    /// tokio runtime.
    pub fn warm(&self, spec: &Spec, count: usize) {
        if spec.tier <= Tier::Native {
            self.pool.keep(spec.split().0, count);
        }
    }

    /// How many cells wait that are as this one is to be.
    #[must_use]
    pub fn waiting(&self, spec: &Spec) -> usize {
        self.pool.waiting(&spec.split().0)
    }

    /// Prepares a cell, or takes one that waits, and starts its program.
    ///
    /// # Errors
    /// The cell could not be prepared as it has to be; then nothing ran.
    pub async fn run(&self, spec: &Spec) -> Result<Cell, CellError> {
        self.run_lent(spec, &Lent::default()).await
    }

    /// The same, for a program that is lent something.
    ///
    /// # Errors
    /// The cell could not be prepared as it has to be; then nothing ran.
    pub async fn run_lent(&self, spec: &Spec, lent: &Lent) -> Result<Cell, CellError> {
        let (stdin, input) = pipe_to()?;
        let (stdout, output) = pipe_from()?;
        let (stderr, errors) = pipe_from()?;
        let streams = [input, output, errors];
        self.give(&streams)?;
        let mut cell = self.run_handed(spec, streams, lent).await?;
        (cell.stdin, cell.stdout, cell.stderr) = (Some(stdin), Some(stdout), Some(stderr));
        Ok(cell)
    }

    /// Makes pipes the cell user's own, so that a program can open them by name (`/dev/stderr`), where that is another user.
    pub(crate) fn give(&self, pipes: &[OwnedFd; 3]) -> Result<(), CellError> {
        let Some(reach) = &self.pool.maker().reach else { return Ok(()) };
        pipes.iter().try_for_each(|pipe| reach.give(pipe)).map_err(system("a pipe"))
    }

    /// Prepares a cell, or takes one that waits, and starts its program with these as its input, output and errors.
    ///
    /// # Errors
    /// The cell could not be prepared as it has to be; then nothing ran.
    pub async fn run_with(&self, spec: &Spec, streams: [OwnedFd; 3]) -> Result<Cell, CellError> {
        self.run_handed(spec, streams, &Lent::default()).await
    }

    /// The same, for a program that is lent something.
    ///
    /// # Errors
    /// The cell could not be prepared as it has to be; then nothing ran.
    pub async fn run_handed(
        &self,
        spec: &Spec,
        streams: [OwnedFd; 3],
        Lent { handed, intercept, renew_ms: _ }: &Lent,
    ) -> Result<Cell, CellError> {
        let tier = self.tier_of(spec).await?;
        if tier == Tier::LandlockOnly {
            let (mut cell, mut command) = self.pool.maker().begin_bare(spec).await?;
            command.handed = handed.iter().map(|(place, _)| place.clone()).collect();
            let command = sealed("toolgate-command", &command)?;
            let given = given(&command, &streams, handed);
            // A cell that has failed already does not hear it, and says why.
            let _deaf = wire::send(&*cell.gate, wire::RUN, &given);
            return if cell.started().await? {
                self.bound(cell, spec, intercept.clone())
            } else {
                Err(silent())
            };
        }
        let (mut shape, mut command) = spec.split();
        command.handed = handed.iter().map(|(place, _)| place.clone()).collect();
        let mut kept = None;
        if tier == Tier::Gvisor {
            gvisor::check(spec)?;
            let (kernel, opened) =
                gvisor::find().map_err(CellError::Tier).and_then(|path| Source::open(&path))?;
            (shape.kernel, kept) = (Some(kernel), Some(opened));
        }
        let command = sealed("toolgate-command", &command)?;
        let given = given(&command, &streams, handed);
        while let Some(mut cell) = self.pool.take(&shape) {
            // One that died while it waited has started nothing; the next one is as good.
            if wire::send(&*cell.gate, wire::RUN, &given).is_ok() && cell.started().await? {
                cell.waited = true;
                return self.bound(cell, spec, intercept.clone());
            }
        }
        let mut cell = self.pool.maker().begin(&shape).await?;
        // A cell that has failed already does not hear it, and says why.
        let _deaf = wire::send(&*cell.gate, wire::RUN, &given);
        cell.ready(&shape).await?;
        drop(kept);
        if !cell.started().await? {
            return Err(silent());
        }
        self.bound(cell, spec, intercept.clone())
    }

    /// Gives a cell that runs what is the gate's own part of it.
    fn bound(
        &self,
        mut cell: Cell,
        spec: &Spec,
        intercept: Option<Arc<dyn Intercept>>,
    ) -> Result<Cell, CellError> {
        cell.enforced.limits = spec.limits;
        if let Some(interface) = cell.interface.take() {
            let resolver = Arc::clone(&self.resolver);
            let (network, way_out) = egress::start(interface, spec.net.clone(), resolver, intercept)
                .map_err(|error| CellError::System("a way out to the network", error))?;
            let tally = Arc::<Tally>::default();
            (cell.network, cell._way_out) = (Some(Tally::counting(&tally, network)), Some(way_out));
            cell.tally = Some(tally);
        }
        Ok(cell)
    }
}

fn silent() -> CellError {
    CellError::Prepare { step: "its beginning".to_owned(), why: "it ended without a word".to_owned() }
}

impl Maker {
    /// Has a cell made; it gets ready by itself.
    async fn begin(self: &Arc<Self>, shape: &Shape) -> Result<Cell, CellError> {
        let opened = match &self.reach {
            Some(reach) => reach.open(&self.launcher, shape).await?,
            None => reach::Opened::default(),
        };
        let tier = if shape.kernel.is_some() { Tier::Gvisor } else { Tier::Native };
        self.make(wire::CELL, tier, shape, opened).await
    }

    /// Has a cell made without namespaces, which is ready, and says what is to run in it.
    async fn begin_bare(self: &Arc<Self>, spec: &Spec) -> Result<(Cell, spec::Command), CellError> {
        let user = self.reach.as_ref().map(Reach::user);
        let mut scratch = Scratch::make(user)?;
        let (shape, command) = bare::translate(spec, &scratch.path)?.split();
        let word = if user.is_some() { wire::BARE } else { wire::BARE_AS_OWNER };
        // The cell's user is a stranger to what it was given, and nothing shows it as its own here.
        let unmapped = user.map(|_| owned(&shape.places)).unwrap_or_default();
        let opened = reach::Opened { mounts: Vec::new(), unmapped };
        let mut cell = self.make(word, Tier::LandlockOnly, &shape, opened).await?;
        scratch.kept_by(&cell.process)?;
        cell._scratch = Some(scratch);
        cell.ready(&shape).await?;
        Ok((cell, command))
    }

    async fn make(
        self: &Arc<Self>,
        word: &[u8],
        tier: Tier,
        shape: &Shape,
        opened: reach::Opened,
    ) -> Result<Cell, CellError> {
        if shape.limits.total && self.cgroups.is_none() {
            return Err(CellError::NotTotal);
        }
        let text = sealed("toolgate-cell", shape)?;
        let (ours, theirs) = wire::pair().map_err(system("a pair of sockets"))?;
        let given: Vec<_> = [&text, &theirs].into_iter().chain(&opened.mounts).map(OwnedFd::as_fd).collect();
        let process = self.launcher.ask(word, &given).await?;
        let gate = Arc::new(asynchronous(ours)?);
        let refused = |error| CellError::System("a cgroup for the cell", error);
        let limits = if tier == Tier::Gvisor { gvisor::together(&shape.limits) } else { shape.limits };
        let group = self.cgroups.as_ref().map(|cgroups| cgroups.make(&limits));
        let group = group.transpose().map_err(refused)?.map(Arc::new);
        let go: &[u8] = if group.is_some() { wire::GO } else { wire::GO_LIMIT_EACH };
        let enforced = Enforced { tier, limits: shape.limits, total: group.is_some(), landlock_abi: 0 };
        let cell = Cell {
            _maker: Arc::clone(self),
            process,
            group,
            gate,
            interface: None,
            stdin: None,
            stdout: None,
            stderr: None,
            enforced,
            waited: false,
            changes: Vec::new(),
            unmapped: opened.unmapped,
            folder: None,
            network: None,
            tally: None,
            _way_out: None,
            _scratch: None,
        };
        let counted = |group: &Arc<Group>| group.add(number_of(&cell.process)?);
        if let Some(Err(error)) = cell.group.as_ref().map(counted) {
            cell.kill();
            // If it had ended before, it has said why.
            return Err(match cell.told().await?.0 {
                Some(FromCell::Failed { step, why }) => CellError::Prepare { step, why },
                Some(FromCell::Ended { .. } | FromCell::Ready { .. } | FromCell::Started) | None => {
                    refused(error)
                }
            });
        }
        // A cell that has failed already does not hear it, and says why.
        let _deaf = wire::send(&*cell.gate, go, &[]);
        Ok(cell)
    }

    /// Has a network interface kept open as long as its keeper lives, so that the gate never closes the last descriptor of it, which
    /// takes the kernel a while.
    async fn keep(&self, device: OwnedFd) -> Result<Interface, CellError> {
        let (ours, theirs) = wire::pair().map_err(system("a pair of sockets"))?;
        self.launcher.ask(wire::KEEP, &[theirs.as_fd(), device.as_fd()]).await?;
        Ok(Interface { device, keeper: ours })
    }
}

impl Launcher {
    /// Has a process cloned; nobody else talks to the launcher meanwhile.
    async fn ask(&self, what: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<OwnedFd, CellError> {
        let socket = self.socket.lock().await;
        wire::send(&*socket, what, descriptors).map_err(|_gone| CellError::NoLauncher)?;
        match receive(&socket).await.map_err(|_gone| CellError::NoLauncher)? {
            Some((_, mut process)) if process.len() == 1 => process.pop().ok_or(CellError::NoLauncher),
            Some((why, _)) => Err(CellError::Prepare {
                step: "its namespaces".to_owned(),
                why: String::from_utf8_lossy(&why).into_owned(),
            }),
            None => Err(CellError::NoLauncher),
        }
    }
}

impl Cell {
    /// What is in force, and what is used up, for whoever writes it down.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        let group = self.group.as_ref().map(Arc::downgrade).unwrap_or_default();
        Gauge { enforced: self.enforced, group, network: self.tally.clone() }
    }

    /// Waits until everything is in force.
    async fn ready(&mut self, shape: &Shape) -> Result<(), CellError> {
        match self.told().await? {
            (Some(FromCell::Ready { landlock_abi }), mut given) => {
                self.enforced.landlock_abi = landlock_abi;
                if !shape.net.is_empty() {
                    let device = given.pop().ok_or(CellError::NoLauncher)?;
                    self.interface = Some(self._maker.keep(device).await?);
                }
                self.changes = given;
                Ok(())
            }
            (Some(FromCell::Failed { step, why }), _) => Err(CellError::Prepare { step, why }),
            (Some(FromCell::Ended { .. } | FromCell::Started) | None, _) => Err(silent()),
        }
    }

    /// Waits until the program is being started; `false` if the cell has died before.
    async fn started(&mut self) -> Result<bool, CellError> {
        let (said, mut given) = self.told().await?;
        match said {
            Some(FromCell::Started) => {
                self.folder = given.pop().map(|at| Folder { at, _scratch: self._scratch.take() });
                Ok(true)
            }
            Some(FromCell::Failed { step, why }) => Err(CellError::Prepare { step, why }),
            Some(FromCell::Ended { .. } | FromCell::Ready { .. }) | None => Ok(false),
        }
    }

    /// Asks the program to end, and what it started and stayed with it (`SIGTERM`).
    pub fn ask_to_end(&self) {
        // The first process of the cell passes it on. If it is gone, that is what was wanted.
        let _gone = pidfd_send_signal(&self.process, Signal::TERM);
    }

    /// Kills everything in the cell. It takes effect at once; what is torn down, is torn down in the background.
    pub fn kill(&self) {
        // If it is gone, that is what was wanted.
        let _gone = match self.enforced.tier {
            // Without a namespace the kernel kills nothing by itself: the first process hears that nobody is there any more, and ends all
            // the others.
            Tier::LandlockOnly => rustix::net::shutdown(&*self.gate, rustix::net::Shutdown::Write),
            Tier::Native | Tier::Gvisor | Tier::Microvm => pidfd_send_signal(&self.process, Signal::KILL),
        };
    }

    /// Waits until the program has ended. Everything else in the cell is then being killed.
    ///
    /// # Errors
    /// The program could not be started.
    pub async fn ended(&self) -> Result<Ended, CellError> {
        let said = self.told().await?.0;
        let used = self.group.as_deref().map(Group::used).unwrap_or_default();
        let (code, signal, cpu_us, peak_bytes) = match said {
            Some(FromCell::Ended { code, signal, cpu_us, peak_bytes }) => {
                (code, signal, Some(cpu_us), Some(peak_bytes))
            }
            Some(FromCell::Failed { step, why }) => return Err(CellError::Prepare { step, why }),
            // Killed from outside, before it could tell.
            Some(FromCell::Ready { .. } | FromCell::Started) | None => {
                (None, Some(Signal::KILL.as_raw()), None, None)
            }
        };
        let (cpu_us, peak_bytes) = (used.cpu_us.or(cpu_us), used.peak_bytes.or(peak_bytes));
        Ok(Ended { code, signal, cpu_us, peak_bytes, out_of_memory: used.out_of_memory })
    }

    /// Gives the program its input, reads what it writes, and sees to it that it ends: by itself, at the deadline, or when it has
    /// written more than is passed on.
    ///
    /// # Errors
    /// The program could not be started.
    pub async fn finish(self, input: &[u8], limits: &Limits) -> Result<Finished, CellError> {
        let deadline = async {
            tokio::time::sleep(Duration::from_millis(limits.wall_ms)).await;
            Cut::Deadline
        };
        self.finish_when(input, limits.output_bytes, deadline, |_stream, _bytes| {}).await
    }

    /// The same, with another reason to end it, and telling of what it writes as it comes: not more than is passed on.
    ///
    /// # Errors
    /// The program could not be started.
    pub async fn finish_when(
        mut self,
        input: &[u8],
        output_bytes: u64,
        end: impl Future<Output = Cut>,
        tell: impl Fn(Stream, &[u8]),
    ) -> Result<Finished, CellError> {
        let (stdin, stdout, stderr) = (self.stdin.take(), self.stdout.take(), self.stderr.take());
        let streams = async {
            let stdout = self.read(stdout, output_bytes, |bytes| tell(Stream::Output, bytes));
            let stderr = self.read(stderr, output_bytes, |bytes| tell(Stream::Errors, bytes));
            tokio::join!(feed(stdin, input), stdout, stderr)
        };
        tokio::pin!(streams, end);
        let (mut ended, mut read, mut cut) = (None, None, None);
        while ended.is_none() || read.is_none() {
            tokio::select! {
                said = self.ended(), if ended.is_none() => ended = Some(said),
                ((), out, err) = &mut streams, if read.is_none() => read = Some((out, err)),
                why = &mut end, if cut.is_none() => {
                    cut = Some(why);
                    self.kill();
                }
            }
        }
        let (ended, (out, err)) = ended.zip(read).ok_or(CellError::NoLauncher)?;
        let cut = cut.or((out.over || err.over).then_some(Cut::Output));
        Ok(Finished { ended: ended?, cut, stdout: out.bytes, stderr: err.bytes })
    }

    /// Reads a stream to its end, or until there is more than is passed on; then everything in the cell is killed.
    async fn read(&self, stream: Option<pipe::Receiver>, most: u64, tell: impl Fn(&[u8])) -> Kept {
        let mut kept = Kept::default();
        let Some(mut stream) = stream else { return kept };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut chunk = vec![0; CHUNK];
        // A stream that fails has ended.
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            let room = most.saturating_sub(kept.bytes.len());
            let new = chunk.get(..length.min(room)).unwrap_or_default();
            kept.bytes.extend_from_slice(new);
            tell(new);
            if length > room {
                kept.over = true;
                self.kill();
                break;
            }
        }
        kept
    }

    async fn told(&self) -> Result<(Option<FromCell>, Vec<OwnedFd>), CellError> {
        match receive(&self.gate).await.map_err(|error| CellError::System("a word from the cell", error))? {
            Some((bytes, descriptors)) => Ok((serde_json::from_slice(&bytes).ok(), descriptors)),
            None => Ok((None, Vec::new())),
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The descriptors that go along with a command.
fn given<'a>(
    command: &'a OwnedFd,
    streams: &'a [OwnedFd; 3],
    handed: &'a [(Handed, OwnedFd)],
) -> Vec<BorrowedFd<'a>> {
    let handed = handed.iter().map(|(_, from)| from);
    std::iter::once(command).chain(streams).chain(handed).map(AsFd::as_fd).collect()
}

/// What the cell's user should own.
fn owned(places: &[Place]) -> Vec<PathBuf> {
    let owned = |place: &Place| match place {
        Place::Bind { source, owned: true, .. } => Some(source.path.clone()),
        _ => None,
    };
    places.iter().filter_map(owned).collect()
}

/// A socket to be waited for. Its messages are read by [`wire`], whatever the type says of streams.
fn asynchronous(socket: OwnedFd) -> Result<UnixStream, CellError> {
    let refused = |error| CellError::System("waiting for a socket", error);
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true).map_err(refused)?;
    UnixStream::from_std(socket).map_err(refused)
}

/// The next message; `None` when the other end is closed.
async fn receive(socket: &UnixStream) -> std::io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; wire::MAX_MESSAGE];
    let mut next = || match wire::receive(socket, &mut buffer, RecvFlags::DONTWAIT) {
        // It has not read all that it was told; what it said itself comes after that.
        Err(Errno::CONNRESET) => wire::receive(socket, &mut buffer, RecvFlags::DONTWAIT).map_err(Into::into),
        received => received.map_err(std::io::Error::from),
    };
    let received = socket.async_io(Interest::READABLE, &mut next).await?;
    Ok(received.map(|(length, descriptors)| {
        buffer.truncate(length);
        (buffer, descriptors)
    }))
}

/// The number of a process, as the gate sees it.
fn number_of(process: &OwnedFd) -> std::io::Result<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    number.ok_or_else(|| std::io::ErrorKind::NotFound.into())
}

/// Something for a cell to read, in memory that nobody can change any more.
fn sealed(name: &str, what: &impl serde::Serialize) -> Result<OwnedFd, CellError> {
    let text = serde_json::to_vec(what).map_err(std::io::Error::from);
    text.and_then(|text| crate::messages::sealed(name, &text))
        .map_err(|error| CellError::System("memory for a cell", error))
}

/// What was read of a stream, and whether there was more.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    over: bool,
}

/// Writes the input and closes the stream. A program need not read it.
async fn feed(stream: Option<pipe::Sender>, input: &[u8]) {
    if let Some(mut stream) = stream {
        let _not_read = stream.write_all(input).await;
    }
}

fn pipe_to() -> Result<(pipe::Sender, OwnedFd), CellError> {
    let (theirs, ours) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(system("a pipe"))?;
    let ours = pipe::Sender::from_owned_fd(ours).map_err(|error| CellError::System("a pipe", error))?;
    Ok((ours, theirs))
}

fn pipe_from() -> Result<(pipe::Receiver, OwnedFd), CellError> {
    let (ours, theirs) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(system("a pipe"))?;
    let ours = pipe::Receiver::from_owned_fd(ours).map_err(|error| CellError::System("a pipe", error))?;
    Ok((ours, theirs))
}
