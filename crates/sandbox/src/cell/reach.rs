//! What a gate that is root opens for its cells, before they have no rights any more.
//!
//! The user a cell runs as may not reach what the cell is given: it lies below a folder of root's, or belongs to root alone. So the
//! gate opens it, as a copy of the mounts that is nowhere yet, and the cell only puts it into its place. What was named by an
//! operator is shown in the copy as the cell user's own, as far as it belongs to whoever owns what was named; what belongs to others
//! stays theirs. Where a file system cannot show it so, it stays as it is, and [`Cell::unmapped`](super::Cell::unmapped) tells.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::fstat;
use rustix::io::Errno;
use tokio::sync::Mutex;

use super::root;
use super::spec::{Access, Place, Shape, Source};
use super::{CellError, Launcher, number_of, system, wire};

/// How many files and folders of the host one cell may be given, where the gate is root.
const MAX_MOUNTS: usize = wire::MAX_DESCRIPTORS - 2;

/// A user that nobody else is: far above those that systems give to people, services and containers, where there is room.
///
/// Whoever is the user that a cell runs as could look into it, and reach by it what belongs to the owners of what it was given.
pub(super) fn stranger() -> u32 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ends = map.lines().filter_map(|line| {
        let mut words = line.split_whitespace().map(|word| word.parse::<u64>().ok());
        Some(words.next()??.saturating_add(words.nth(1)??))
    });
    stranger_below(ends.max().unwrap_or(0), std::process::id())
}

/// One of the last users before `end`, but for the very last ones, which mean something else here and there.
fn stranger_below(end: u64, process: u32) -> u32 {
    let end = u32::try_from(end).unwrap_or(u32::MAX).min(2_000_000_000);
    end.saturating_sub(3).saturating_sub(process % (end / 64).max(1))
}

/// Opens what cells are given. There is one where the gate is root.
#[derive(Debug)]
pub(super) struct Reach {
    /// Who the cells run as.
    user: u32,
    /// Guards the namespaces that show an owner's files as the user's, by owner and group.
    shown: Mutex<BTreeMap<(u32, u32), Arc<OwnedFd>>>,
}

/// What was opened.
#[derive(Default)]
pub(super) struct Opened {
    /// One mount for the base, if there is one, for each place that is made of something of the host, in their order, and for the kernel,
    /// if there is one; or none at all.
    pub(super) mounts: Vec<OwnedFd>,
    /// What could not be shown as the user's own.
    pub(super) unmapped: Vec<PathBuf>,
}

impl Reach {
    pub(super) const fn new(user: u32) -> Self {
        Self { user, shown: Mutex::const_new(BTreeMap::new()) }
    }

    /// Who the cells run as.
    pub(super) const fn user(&self) -> u32 {
        self.user
    }

    /// Makes something that the gate has made the cells' user's own.
    pub(super) fn give(&self, what: &OwnedFd) -> Result<(), Errno> {
        let (user, group) = (rustix::fs::Uid::from_raw(self.user), rustix::fs::Gid::from_raw(self.user));
        rustix::fs::fchown(what, Some(user), Some(group))
    }

    /// Opens the sources of all places. Nothing, if the system does not let this root mount: then the cell opens them itself.
    pub(super) async fn open(&self, launcher: &Launcher, shape: &Shape) -> Result<Opened, CellError> {
        let mut opened = Opened::default();
        let base = shape.base.iter().map(|base| (base, Access::Run, true));
        let places = shape.places.iter().filter_map(|place| match place {
            Place::Bind { source, access, owned, .. } => Some((source, *access, *owned)),
            Place::Overlay { lower, .. } => Some((lower, Access::Run, true)),
            Place::Dev { .. }
            | Place::File { .. }
            | Place::Proc
            | Place::Symlink { .. }
            | Place::Tmpfs { .. } => None,
        });
        for place in &shape.places {
            if let Place::Overlay { lower, .. } = place {
                alone(lower)?;
            }
        }
        let kernel = shape.kernel.iter().map(|kernel| (kernel, Access::Run, false));
        for (source, access, owned) in base.chain(places).chain(kernel) {
            let refused = |why: String| CellError::Source { path: source.path.clone(), why };
            if opened.mounts.len() >= MAX_MOUNTS {
                return Err(refused(format!(
                    "more than {MAX_MOUNTS} files and folders are given to one cell"
                )));
            }
            let found = root::meant(source).map_err(|error| refused(error.to_string()))?;
            let mount = match root::copy(&found) {
                Ok(mount) => mount,
                Err(Errno::PERM) => return Ok(Opened::default()),
                Err(error) => return Err(refused(error.to_string())),
            };
            let flags = root::attributes(access);
            let namespace = if owned { self.namespace(launcher, &found).await? } else { None };
            let shown = |namespace| root::set_private(mount.as_fd(), flags, namespace);
            let done = match &namespace {
                None => shown(None),
                Some(namespace) => shown(Some(namespace.as_fd())).or_else(|_cannot| {
                    opened.unmapped.push(source.path.clone());
                    shown(None)
                }),
            };
            done.map_err(|error| refused(error.to_string()))?;
            opened.mounts.push(mount);
        }
        Ok(opened)
    }

    /// The namespace that shows what belongs to the owner of a file as the user's; `None` if it is the user's.
    async fn namespace(
        &self,
        launcher: &Launcher,
        file: &OwnedFd,
    ) -> Result<Option<Arc<OwnedFd>>, CellError> {
        let found = fstat(file).map_err(system("looking at a file"))?;
        let owner = (found.st_uid, found.st_gid);
        if owner == (self.user, self.user) {
            return Ok(None);
        }
        let mut shown = self.shown.lock().await;
        if let Some(namespace) = shown.get(&owner) {
            return Ok(Some(Arc::clone(namespace)));
        }
        let namespace = Arc::new(self.make(launcher, owner).await?);
        shown.insert(owner, Arc::clone(&namespace));
        Ok(Some(namespace))
    }

    /// A namespace lives as long as something refers to it; to make one takes a process for a moment.
    async fn make(&self, launcher: &Launcher, (owner, group): (u32, u32)) -> Result<OwnedFd, CellError> {
        let refused = |error| CellError::System("a namespace of users", error);
        let (_ours, theirs) = wire::pair().map_err(system("a pair of sockets"))?;
        let process = launcher.ask(wire::NAMESPACE, &[theirs.as_fd()]).await?;
        let process = Path::new("/proc").join(number_of(&process).map_err(refused)?.to_string());
        for (file, id) in [("gid_map", group), ("uid_map", owner)] {
            fs::write(process.join(file), format!("{id} {} 1", self.user)).map_err(refused)?;
        }
        Ok(fs::File::open(process.join("ns/user")).map_err(refused)?.into())
    }
}

/// Makes sure that nothing is mounted below a folder that an overlay is made of: an overlay shows what lies under it.
fn alone(folder: &Source) -> Result<(), CellError> {
    let refused = |why: String| CellError::Source { path: folder.path.clone(), why };
    let mounts = fs::read("/proc/self/mountinfo").map_err(|error| refused(error.to_string()))?;
    let above = folder.path.as_os_str().as_bytes();
    let below = |line: &[u8]| {
        let point = unescaped(line.split(|b| *b == b' ').nth(4)?);
        point.strip_prefix(above)?.starts_with(b"/").then_some(point)
    };
    match mounts.split(|b| *b == b'\n').find_map(below) {
        None => Ok(()),
        Some(point) => {
            let point = String::from_utf8_lossy(&point).into_owned();
            Err(refused(format!("`{}` is mounted below it", point.escape_debug())))
        }
    }
}

/// A path as the kernel shows it in a table: white space and backslashes are written as three digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let number = after.get(..3).filter(|_| *first == b'\\');
        let number = number.and_then(|n| u8::from_str_radix(std::str::from_utf8(n).ok()?, 8).ok());
        out.push(number.unwrap_or(*first));
        rest = if number.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_mount_table() {
        for (text, want) in [("/a", "/a"), (r"/a\040b\134c", r"/a b\c"), (r"/a\9", r"/a\9"), (r"\04", r"\04")]
        {
            assert_eq!(unescaped(text.as_bytes()), want.as_bytes(), "input: {text:?}");
        }
    }

    #[test]
    fn a_stranger_is_neither_root_nor_one_of_the_systems_users() {
        for (end, process, want) in [
            (4_294_967_295, 1, 1_999_999_996),
            (4_294_967_295, 4_000_000, 1_995_999_997),
            (65_536, 1, 65_532),
            (65_536, 1023, 64_510),
            // With one user there is no other; whoever is root does not become a launcher then.
            (1, 1, 0),
            (0, 1, 0),
        ] {
            assert_eq!(stranger_below(end, process), want, "{end} {process}");
        }
    }
}
