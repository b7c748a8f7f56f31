//! Limits on all processes of a cell together, where the host lets the gate set any: cgroups of version 2 that were delegated to
//! the gate, or of version 1 that it may write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::spec::Limits;

/// Where the kernel shows cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// The cgroups that cells are put in.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    version: Version,
    /// The folders that those of the cells are made in: one, or one for each controller.
    parents: Arc<Parents>,
    next: Arc<AtomicU64>,
}

/// Removed when the gate lets go of them.
#[derive(Debug)]
struct Parents(Vec<PathBuf>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The cgroup of one cell. Dropping it removes it, once it is empty.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    folders: Vec<PathBuf>,
    parents: Arc<Parents>,
}

/// What a cgroup says about a cell that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// The most memory that all processes held together, in bytes.
    pub(super) peak_bytes: Option<u64>,
    /// Processor time of all processes, in microseconds. Version 2 counts it for every cgroup.
    pub(super) cpu_us: Option<u64>,
    /// Whether something was killed because there was no memory left.
    pub(super) out_of_memory: bool,
}

impl Cgroups {
    /// Finds out by doing it: a folder is made, limits are set, and it is removed again. `None` if the host lets us do nothing of
    /// the kind; then nothing is promised.
    pub(super) fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let found = two(&own).map(|parents| (Version::Two, parents));
        let (version, parents) = found.or_else(|| one(&own).map(|parents| (Version::One, parents)))?;
        let cgroups =
            Self { version, parents: Arc::new(Parents(parents)), next: Arc::new(AtomicU64::new(0)) };
        cgroups.make(&Limits::default()).ok()?;
        Some(cgroups)
    }

    /// Makes the cgroup of a cell, with its limits.
    pub(super) fn make(&self, limits: &Limits) -> io::Result<Group> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folders: Vec<PathBuf> =
            self.parents.0.iter().map(|parent| parent.join(format!("cell-{number}"))).collect();
        let group = Group { version: self.version, folders, parents: Arc::clone(&self.parents) };
        for folder in &group.folders {
            fs::create_dir(folder)?;
        }
        let (memory, processes) = (limits.memory_bytes.to_string(), limits.processes.to_string());
        match self.version {
            Version::Two => {
                group.set("memory.max", &memory)?;
                group.set("memory.swap.max", "0").or_else(missing)?;
                group.set("memory.oom.group", "1")?;
                group.set("pids.max", &processes)?;
            }
            Version::One => {
                group.set("memory.limit_in_bytes", &memory)?;
                // Where the kernel counts swap.
                group.set("memory.memsw.limit_in_bytes", &memory).or_else(missing)?;
                group.set("pids.max", &processes)?;
            }
        }
        Ok(group)
    }
}

impl Group {
    /// Puts a process in, and with it all that it starts.
    pub(super) fn add(&self, process: u32) -> io::Result<()> {
        self.folders.iter().try_for_each(|folder| fs::write(folder.join("cgroup.procs"), process.to_string()))
    }

    /// What was used up.
    pub(super) fn used(&self) -> Used {
        let read = |name: &str| self.find(name).and_then(|path| fs::read_to_string(path).ok());
        let (peak, events) = match self.version {
            Version::Two => ("memory.peak", "memory.events"),
            Version::One => ("memory.max_usage_in_bytes", "memory.oom_control"),
        };
        let killed = |text: String| {
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
        };
        Used {
            peak_bytes: read(peak).and_then(|text| text.trim().parse().ok()),
            cpu_us: read("cpu.stat").and_then(|text| {
                text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
            }),
            out_of_memory: read(events).is_some_and(killed),
        }
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(name)).find(|path| path.exists())
    }

    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        fs::write(self.find(name).ok_or(io::ErrorKind::NotFound)?, value)
    }
}

/// Removes the folders of a cgroup; says whether that was possible.
fn removed(folders: &[PathBuf]) -> bool {
    folders.iter().filter(|folder| fs::remove_dir(folder).is_err() && folder.exists()).count() == 0
}

impl Drop for Group {
    /// A cgroup can be removed when its last process has been reaped, which the kernel does in its own time.
    fn drop(&mut self) {
        if removed(&self.folders) {
            return;
        }
        let (folders, parents) = (std::mem::take(&mut self.folders), Arc::clone(&self.parents));
        let left = move || {
            for _attempt in 0..ATTEMPTS {
                if removed(&folders) {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
            // Those it lies in can be removed only after it.
            drop(parents);
        };
        drop(std::thread::Builder::new().name("toolgate-cgroup".to_owned()).spawn(left));
    }
}

/// How often it is tried to remove a cgroup whose processes are being killed, and how long in between.
const ATTEMPTS: usize = 100;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

impl Drop for Parents {
    fn drop(&mut self) {
        for folder in &self.0 {
            // What is left behind is empty, and the next gate does not mind it.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// What this kernel does not have need not be set.
fn missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// What the folder for the cells of a gate is called, before the gate's number and one of its own.
const CELLS: &str = "toolgate-cells-";

/// How many makers of cells one process may have.
const MAX_MAKERS: u32 = 64;

/// Makes a folder for this gate's cells, and removes those of gates that are gone.
fn folder_of_cells(cgroup: &Path) -> Option<PathBuf> {
    for entry in fs::read_dir(cgroup).ok()?.flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(CELLS)?.split_once('-'));
        let Some((gate, _)) = rest else { continue };
        if !Path::new("/proc").join(gate).exists() {
            for cell in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(cell.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
    let name = |number: u32| cgroup.join(format!("{CELLS}{}-{number}", std::process::id()));
    (0..MAX_MAKERS).map(name).find(|cells| fs::create_dir(cells).is_ok())
}

/// Version 2: the gate's own cgroup, if it was delegated. Processes may only be in the leaves, so the gate moves into one itself.
fn two(own: &str) -> Option<Vec<PathBuf>> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let cgroup = [Path::new(ROOT), &Path::new(ROOT).join("unified")]
        .into_iter()
        .map(|root| root.join(path))
        .find(|cgroup| cgroup.join("cgroup.controllers").exists())?;
    let has = |name: &str| {
        let text = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
        text.split_whitespace().any(|controller| controller == name)
    };
    if !has("memory") || !has("pids") {
        return None;
    }
    let gate = cgroup.join("toolgate");
    if !gate.exists() {
        fs::create_dir(&gate).ok()?;
    }
    fs::write(gate.join("cgroup.procs"), std::process::id().to_string()).ok()?;
    fs::write(cgroup.join("cgroup.subtree_control"), "+memory +pids").ok()?;
    let cells = folder_of_cells(&cgroup)?;
    fs::write(cells.join("cgroup.subtree_control"), "+memory +pids").ok()?;
    Some(vec![cells])
}

/// Version 1: a folder below the gate's own, for each controller.
fn one(own: &str) -> Option<Vec<PathBuf>> {
    ["memory", "pids"]
        .into_iter()
        .map(|controller| {
            let path = own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                controllers.split(',').any(|name| name == controller).then_some(path)
            })?;
            folder_of_cells(&Path::new(ROOT).join(controller).join(path.trim_start_matches('/')))
        })
        .collect()
}
