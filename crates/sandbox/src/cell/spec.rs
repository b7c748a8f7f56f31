//! What a cell is to be, as plain data: the gate writes it, the first process of the cell reads it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2};
use serde::{Deserialize, Serialize};

use super::CellError;
use super::files::Given;
use super::tier::Tier;
use crate::egress::{Intercept, Rule};

/// What a cell is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The least that has to lie between it and the host.
    pub tier: Tier,
    /// The program and its arguments; a name without a slash is looked up in the `PATH` of `env`. No shell reads them.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Its working directory, inside the cell.
    pub cwd: String,
    /// The folder of an image that the root is made of, if it is not empty to begin with.
    pub base: Option<Source>,
    /// What is put into the root, in this order.
    pub places: Vec<Place>,
    /// What it may use up.
    pub limits: Limits,
    /// Where it may write, for Landlock: paths inside the cell. Everything else can be read and run, not written.
    pub writable: Vec<String>,
    /// What it may connect to. Without any, it has no way out at all; what it should ask for names then, `/etc/resolv.conf` has to
    /// say ([`RESOLV_CONF`](crate::egress::RESOLV_CONF)).
    pub net: Vec<Rule>,
    /// Files that are put into its working directory before the program starts. That one cannot be is told as the program's end.
    pub files: Vec<Given>,
    /// Whether the gate is given the working directory, to take files out of it.
    pub hands_out: bool,
}

/// All of a cell but what runs in it: what can be made before it is known what will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) base: Option<Source>,
    pub(super) places: Vec<Place>,
    pub(super) limits: Limits,
    pub(super) writable: Vec<String>,
    pub(super) net: Vec<Rule>,
    /// The program that is a kernel of its own for it, if it has one.
    pub(super) kernel: Option<Source>,
}

/// Where something secret goes that a cell is handed: it comes in a descriptor, so that the gate need not know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handed {
    /// Into a variable of the program's environment.
    Env(String),
    /// Into a file of this name below [`SECRETS`].
    File(String),
}

/// What a cell is handed besides its specification.
#[derive(Debug, Default)]
pub struct Lent {
    /// Secrets, and what stands for them.
    pub handed: Vec<(Handed, OwnedFd)>,
    /// Who takes some of its connections.
    pub intercept: Option<Arc<dyn Intercept>>,
    /// When it should be handed it anew, in milliseconds since 1970, if it does not last.
    pub renew_ms: Option<u64>,
}

/// The folder in a cell in which files are that it was handed.
pub const SECRETS: &str = "/run/secrets";

/// What runs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Command {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) files: Vec<Given>,
    pub(super) hands_out: bool,
    /// What comes in further descriptors.
    pub(super) handed: Vec<Handed>,
}

impl Spec {
    /// A cell with nothing in it, and nothing to start.
    pub(super) fn probe() -> Self {
        Self {
            tier: Tier::default(),
            argv: Vec::new(),
            env: Vec::new(),
            cwd: "/".to_owned(),
            base: None,
            places: vec![
                Place::Proc,
                Place::Dev { shm_bytes: 1 << 20 },
                Place::Tmpfs { at: "/tmp".to_owned(), bytes: 1 << 20, inodes: 16 },
            ],
            limits: Limits { memory_bytes: 64 << 20, ..Limits::default() },
            writable: vec!["/tmp".to_owned()],
            net: Vec::new(),
            files: Vec::new(),
            hands_out: false,
        }
    }

    /// What the cell is, and what runs in it.
    pub(super) fn split(&self) -> (Shape, Command) {
        let Self { tier: _, argv, env, cwd, base, places, limits, writable, net, files, hands_out } =
            self.clone();
        // What the gate keeps itself makes no difference to the cell.
        let limits = Limits { wall_ms: 0, output_bytes: 0, ..limits };
        (
            Shape { base, places, limits, writable, net, kernel: None },
            Command { argv, env, cwd, files, hands_out, handed: Vec::new() },
        )
    }
}

impl Shape {
    /// Whether something of the host can be written, and the host sees it.
    pub(super) fn writes_through(&self) -> bool {
        self.places.iter().any(|place| matches!(place, Place::Bind { access: Access::Write, .. }))
    }
}

/// One thing in the root of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// A file or folder of the host, with all that is mounted below it.
    Bind {
        /// Where in the cell.
        at: String,
        /// What.
        source: Source,
        /// Whether it can be written.
        access: Access,
        /// Whether, where the gate is root, what belongs to the owner of the source is the cell user's own in the cell.
        owned: bool,
    },
    /// `/dev`: null, zero, full, random, urandom, the descriptors, and shared memory of so many bytes.
    Dev {
        /// Size of `/dev/shm`.
        shm_bytes: u64,
    },
    /// A file with this content, read-only.
    File {
        /// Where in the cell.
        at: String,
        /// What it holds.
        content: String,
    },
    /// A folder of the host, whose changes stay in memory: the host's own stays as it is. Where the gate is root, what belongs to
    /// its owner is the cell user's own in the cell.
    Overlay {
        /// Where in the cell.
        at: String,
        /// What lies below.
        lower: Source,
        /// How many bytes of changes there can be.
        bytes: u64,
        /// How many files can be changed or made.
        inodes: u64,
    },
    /// `/proc` of the cell's own processes, with what belongs to the host masked.
    Proc,
    /// A symbolic link.
    Symlink {
        /// Where in the cell.
        at: String,
        /// Where it leads.
        to: String,
    },
    /// An empty folder in memory.
    Tmpfs {
        /// Where in the cell.
        at: String,
        /// How many bytes it can hold.
        bytes: u64,
        /// How many files it can hold.
        inodes: u64,
    },
}

/// Whether a place can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// It can be read.
    Read,
    /// It can be read and run.
    Run,
    /// It can be written, and the host sees it.
    Write,
}

/// A file or folder of the host: its path, and which one it was when it was looked at.
///
/// The cell, or a gate that is root for it, opens the path again, without following symbolic links, and refuses if it finds another one. The
/// gate keeps [`Opened`] until then, so that the number cannot be given to another file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The path, with no symbolic link in it.
    pub path: PathBuf,
    /// The device it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// Keeps a [`Source`] from being replaced by another file of the same number.
#[derive(Debug)]
pub struct Opened {
    _descriptor: OwnedFd,
}

impl Source {
    /// Looks at a path of the host, of which no part may be a symbolic link.
    ///
    /// # Errors
    /// It is not there, is not absolute, or a part of it is a link.
    pub fn open(path: &Path) -> Result<(Self, Opened), CellError> {
        let refused = |why: String| CellError::Source { path: path.to_owned(), why };
        if !path.is_absolute() {
            return Err(refused("it has to be an absolute path".to_owned()));
        }
        let descriptor = open(path).map_err(|error| refused(error.to_string()))?;
        let (device, inode) = identity(&descriptor).map_err(|error| refused(error.to_string()))?;
        Ok((Self { path: path.to_owned(), device, inode }, Opened { _descriptor: descriptor }))
    }
}

/// Opens a path without following a link anywhere in it.
pub(super) fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), how)
}

/// Which file a descriptor is of.
pub(super) fn identity(descriptor: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    fstat(descriptor.as_fd()).map(|found| (found.st_dev, found.st_ino))
}

/// What a cell may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Time by the clock, in milliseconds; kept by the gate.
    pub wall_ms: u64,
    /// Time of one processor, in seconds, for each process.
    pub cpu_s: u64,
    /// Memory of all processes together, in bytes. Without cgroups it holds for each process alone, and only for its own memory, unless
    /// `total` is demanded.
    pub memory_bytes: u64,
    /// How many processes and threads there may be.
    pub processes: u64,
    /// How large one file may become, in bytes.
    pub file_bytes: u64,
    /// How many descriptors one process may have open.
    pub descriptors: u64,
    /// How many bytes of output are passed on, of each stream; kept by the gate.
    pub output_bytes: u64,
    /// Whether those of memory and processes have to hold for all processes together: where they cannot, there is no cell.
    pub total: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_ms: 60_000,
            cpu_s: 60,
            memory_bytes: 1 << 30,
            processes: 128,
            file_bytes: 256 << 20,
            descriptors: 1024,
            output_bytes: 1 << 20,
            total: false,
        }
    }
}

/// Which layers are in force in the cells of a launcher. A program built without the feature `danger-switchable-layers` has them
/// all, whatever is written here: the switches are there to show that the tests notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Layers {
    /// Capabilities are dropped and cannot come back.
    pub capabilities: bool,
    /// Landlock.
    pub landlock: bool,
    /// `/proc` is masked.
    pub masks: bool,
    /// A network of its own, with nothing in it.
    pub network: bool,
    /// Processes of its own.
    pub processes: bool,
    /// The limits of the kernel on each process.
    pub rlimits: bool,
    /// A root of its own.
    pub root: bool,
    /// The filters of system calls.
    pub seccomp: bool,
}

impl Layers {
    /// All of them.
    pub const ALL: Self = Self {
        capabilities: true,
        landlock: true,
        masks: true,
        network: true,
        processes: true,
        rlimits: true,
        root: true,
        seccomp: true,
    };

    /// Those that are in force in this program.
    pub(super) const fn in_force(self) -> Self {
        if cfg!(feature = "danger-switchable-layers") { self } else { Self::ALL }
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self::ALL
    }
}
