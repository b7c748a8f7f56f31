//! The root of a cell: built in memory, filled from what the specification names, made read-only, and entered.
//!
//! Everything is done by descriptor. A place below one that was bound before is looked up without following links or leaving the
//! root, since what was bound is not ours.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::path::Arg;
use rustix::process::{fchdir, pivot_root};

use super::gvisor;
use super::launcher::last_error;
use super::spec::{self, Access, Place, Shape, Source};

/// A step that failed, and why.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: String,
    pub(super) why: String,
}

/// Names the step that a failure belongs to.
pub(super) trait Step<T> {
    /// The failure of this step.
    fn step(self, step: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Step<T> for Result<T, E> {
    fn step(self, step: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|why| Failure { step: step.to_string(), why: why.to_string() })
    }
}

/// Where the new root is put while it is built: folders that every Linux has.
const STAGES: [&str; 2] = ["/tmp", "/proc"];

/// How much can be put into a root beside what is mounted there.
const ROOT_BYTES: u64 = 1 << 20;
const ROOT_INODES: u64 = 4096;

/// What of `/proc`, besides processes, is shown: what programs look at to find out how many processors there are, how much memory, and
/// what time it is. The rest is of the host, or does something when it is written: files are covered by `/dev/null`, folders by an empty
/// one, whatever a kernel may have there.
const SHOWN: &[&str] = &[
    "cgroups",
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "sys",
    "uptime",
    "version",
    "vmstat",
];

/// What tells this start of this machine from all others.
const START_OF_THE_HOST: &str = "sys/kernel/random/boot_id";

/// Builds the root and enters it. `mounts` are what a gate that is root has opened for the base, the places in their order, and the
/// kernel, or nothing. Returns the folders of changes of the overlays, in order.
///
/// Where the cell has a kernel of its own, this is a folder of the root that is entered, which has nothing else but that.
pub(super) fn enter(shape: &Shape, mounts: Vec<OwnedFd>, masks: bool) -> Result<Vec<OwnedFd>, Failure> {
    // Mounts of the host come and go here too, or else they could not go there; none of ours is seen there.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).step("own mounts")?;
    let mut changes = Vec::new();
    let opened_for_us = !mounts.is_empty();
    // Before the new root covers anything of the old one.
    let mut mounts = if opened_for_us { mounts } else { own(shape)? }.into_iter();
    // If there is none left for a place, there is none: what was opened is never looked up again.
    let mut tree = || mounts.next().ok_or(Errno::BADF);
    let root = match &shape.base {
        None => tmpfs(ROOT_BYTES, ROOT_INODES, 0o755).step("a new root")?,
        // What is put into the root lies over the image, in memory.
        Some(base) => tree()
            .and_then(|image| on_stage(&image))
            .and_then(|image| layered(&image, ROOT_BYTES, ROOT_INODES))
            .map(|(root, _)| root)
            .step(format_args!("the image in `{}`", base.path.display()))?,
    };
    let (outer, stage) = match &shape.kernel {
        None => (None, on_stage(&root)),
        Some(_) => {
            let (outer, stage) = around(&root).step("a root around it")?;
            (Some(outer), Ok(stage))
        }
    };
    let stage = stage.step("a place for the new root")?;
    let own_kernel = outer.is_some();
    for place in &shape.places {
        let made = match place {
            Place::Bind { at, .. } => tree().and_then(|tree| bind(stage.as_fd(), at, &tree)),
            // These are its kernel's.
            Place::Dev { .. } | Place::Proc if own_kernel => Ok(()),
            Place::Dev { shm_bytes } => dev(stage.as_fd(), *shm_bytes, shape.base.is_some()),
            Place::File { at, content } => file(stage.as_fd(), at, content),
            Place::Overlay { at, lower: _, bytes, inodes } => {
                let lower = if opened_for_us {
                    // It has to be somewhere for an overlay to be made of it; the overlay comes to lie over it.
                    tree()
                        .and_then(|tree| bind(stage.as_fd(), at, &tree))
                        .and_then(|()| inside(stage.as_fd(), at, OFlags::PATH | OFlags::DIRECTORY))
                } else {
                    tree()
                };
                lower
                    .and_then(|lower| overlay(stage.as_fd(), at, &lower, *bytes, *inodes))
                    .map(|upper| changes.push(upper))
            }
            Place::Proc => proc(stage.as_fd(), masks),
            Place::Symlink { at, to } => link(stage.as_fd(), at, to),
            Place::Tmpfs { at, bytes, inodes } => tmpfs(*bytes, *inodes, 0o1777)
                .and_then(|tmpfs| attach(tmpfs.as_fd(), folder(stage.as_fd(), at)?.as_fd(), "").map(drop)),
        };
        made.step(place)?;
    }
    set_attributes(stage.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false).step("a read-only root")?;
    let stage = match (outer, &shape.kernel) {
        (Some(outer), Some(_)) => {
            tree().and_then(|kernel| furnish(outer.as_fd(), &kernel)).step("a root around it")?;
            outer
        }
        _ => stage,
    };
    fchdir(&stage).step("the new root")?;
    // The old root comes to lie below the new one, and is let go of.
    pivot_root(".", ".").step("the new root")?;
    unmount(".", UnmountFlags::DETACH).step("leaving the old root")?;
    fchdir(spec::open(Path::new("/")).step("the new root")?).step("the new root")?;
    Ok(changes)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { at, source, .. } => write!(f, "`{}` at `{at}`", source.path.display()),
            Self::Dev { .. } => f.write_str("`/dev`"),
            Self::File { at, .. } => write!(f, "the file `{at}`"),
            Self::Overlay { at, lower, .. } => {
                write!(f, "`{}` at `{at}`, with changes in memory", lower.path.display())
            }
            Self::Proc => f.write_str("`/proc`"),
            Self::Symlink { at, to } => write!(f, "the link `{at}` to `{to}`"),
            Self::Tmpfs { at, .. } => write!(f, "memory at `{at}`"),
        }
    }
}

/// Puts a root on stage below another one, with nothing in it yet but folders, and opens both.
fn around(root: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Errno> {
    let outer = on_stage(&tmpfs(ROOT_BYTES, ROOT_INODES, 0o755)?)?;
    // On the last of them gVisor puts a root of its own.
    for name in [gvisor::FILES, gvisor::STATE, "/tmp"] {
        folder(outer.as_fd(), name)?;
    }
    attach(root.as_fd(), inside(outer.as_fd(), gvisor::FILES, OFlags::PATH)?.as_fd(), "")?;
    let stage = inside(outer.as_fd(), gvisor::FILES, OFlags::PATH | OFlags::DIRECTORY)?;
    folder(stage.as_fd(), "tmp")?;
    Ok((outer, stage))
}

/// Puts what gVisor needs into the root around a cell's: `/proc` as it is, since with masks no other one could be made.
fn furnish(outer: BorrowedFd<'_>, kernel: &OwnedFd) -> Result<(), Errno> {
    proc(outer, false)?;
    device(outer, "null")?;
    bind(outer, gvisor::PROGRAM, kernel)?;
    attach(tmpfs(ROOT_BYTES, 64, 0o700)?.as_fd(), folder(outer, gvisor::STATE)?.as_fd(), "")?;
    set_attributes(outer, MountAttrFlags::MOUNT_ATTR_RDONLY, false)
}

/// What no mount of a cell is without.
const ALWAYS: MountAttrFlags = MountAttrFlags::from_bits_retain(
    MountAttrFlags::MOUNT_ATTR_NOSUID.bits() | MountAttrFlags::MOUNT_ATTR_NODEV.bits(),
);

/// The attributes of a mount of something of the host.
pub(super) fn attributes(access: Access) -> MountAttrFlags {
    let read_only = ALWAYS | MountAttrFlags::MOUNT_ATTR_RDONLY;
    match access {
        Access::Read => read_only | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        Access::Run => read_only,
        Access::Write => ALWAYS,
    }
}

fn tmpfs(bytes: u64, inodes: u64, mode: u32) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", bytes.to_string())?;
    fsconfig_set_string(context.as_fd(), "nr_inodes", inodes.to_string())?;
    fsconfig_set_string(context.as_fd(), "mode", format!("{mode:o}"))?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, ALWAYS)
}

/// Puts a mount that is nowhere yet at a place. Returns the place's name.
fn attach<'a>(mount: BorrowedFd<'_>, at: impl AsFd, path: &'a str) -> Result<&'a str, Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let flags = if path.is_empty() { flags | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH } else { flags };
    move_mount(mount, "", at, path, flags).map(|()| path)
}

/// Puts a mount where the new root is built, over what is there, and opens it there.
fn on_stage(mount: &OwnedFd) -> Result<OwnedFd, Errno> {
    let stage = STAGES.into_iter().find_map(|stage| attach(mount.as_fd(), CWD, stage).ok());
    spec::open(Path::new(stage.ok_or(Errno::NOENT)?))
}

/// A folder in the new root, made with all that leads to it.
fn folder(root: BorrowedFd<'_>, at: &str) -> Result<OwnedFd, Errno> {
    let (at, mut path) = (at.trim_start_matches('/'), String::new());
    for part in at.split('/') {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
        match mkdirat(root, path.as_str(), Mode::from_raw_mode(0o755)) {
            // What cannot be made because it is read-only is there, or is missed just below.
            Ok(()) | Err(Errno::EXIST | Errno::ROFS | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    inside(root, at, OFlags::PATH | OFlags::DIRECTORY)
}

/// Opens a path of the new root, without leaving it.
fn inside(root: BorrowedFd<'_>, at: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let at = at.trim_start_matches('/');
    let at = if at.is_empty() { "." } else { at };
    openat2(root, at, flags | OFlags::CLOEXEC, Mode::empty(), how)
}

/// The folder that a path is in, made if it is not there, and its last part.
fn parent<'a>(root: BorrowedFd<'_>, at: &'a str) -> Result<(OwnedFd, &'a str), Errno> {
    let at = at.trim_start_matches('/');
    match at.rsplit_once('/') {
        Some((above, name)) => Ok((folder(root, above)?, name)),
        None => Ok((inside(root, "", OFlags::PATH | OFlags::DIRECTORY)?, at)),
    }
}

/// A file in the new root that something can be put over, made if it is not there.
fn target(root: BorrowedFd<'_>, at: &str) -> Result<OwnedFd, Errno> {
    let (above, name) = parent(root, at)?;
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(openat(&above, name, flags, Mode::from_raw_mode(0o644)));
    inside(root, at, OFlags::PATH | OFlags::NOFOLLOW)
}

/// Opens a file or folder of the host, and makes sure that it is the one that was meant.
pub(super) fn meant(source: &Source) -> Result<OwnedFd, Errno> {
    let found = spec::open(&source.path)?;
    if spec::identity(&found)? == (source.device, source.inode) { Ok(found) } else { Err(Errno::STALE) }
}

/// A copy of the mounts at and below a file or folder, that is nowhere yet.
pub(super) fn copy(of: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(of, "", flags)
}

fn is_folder(of: &OwnedFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(of)?.st_mode).is_dir())
}

/// What this process can reach itself, for the base, the places in their order, and the kernel.
fn own(shape: &Shape) -> Result<Vec<OwnedFd>, Failure> {
    let mut opened = Vec::new();
    if let Some(base) = &shape.base {
        let image = own_copy(base, attributes(Access::Run));
        opened.push(image.step(format_args!("the image in `{}`", base.path.display()))?);
    }
    for place in &shape.places {
        match place {
            Place::Bind { source, access, .. } => {
                opened.push(own_copy(source, attributes(*access)).step(place)?);
            }
            Place::Overlay { lower, .. } => opened.push(meant(lower).step(place)?),
            Place::Dev { .. }
            | Place::File { .. }
            | Place::Proc
            | Place::Symlink { .. }
            | Place::Tmpfs { .. } => {}
        }
    }
    if let Some(kernel) = &shape.kernel {
        opened.push(own_copy(kernel, attributes(Access::Run)).step("gVisor's program")?);
    }
    Ok(opened)
}

/// A copy of what this process can reach itself.
fn own_copy(source: &Source, flags: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let tree = copy(&meant(source)?)?;
    set_attributes(tree.as_fd(), flags, true)?;
    Ok(tree)
}

fn bind(root: BorrowedFd<'_>, at: &str, tree: &OwnedFd) -> Result<(), Errno> {
    let target = if is_folder(tree)? { folder(root, at)? } else { target(root, at)? };
    attach(tree.as_fd(), target.as_fd(), "").map(drop)
}

fn file(root: BorrowedFd<'_>, at: &str, content: &str) -> Result<(), Errno> {
    let (above, name) = parent(root, at)?;
    // In the root of an image there may be one, or a link that leads elsewhere.
    match unlinkat(&above, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&above, name, flags, Mode::from_raw_mode(0o444))?;
    let mut left = content.as_bytes();
    while !left.is_empty() {
        let written = rustix::io::write(&file, left)?;
        left = left.get(written..).unwrap_or_default();
    }
    Ok(())
}

fn link(root: BorrowedFd<'_>, at: &str, to: &str) -> Result<(), Errno> {
    let (above, name) = parent(root, at)?;
    symlinkat(to, &above, name)
}

fn proc(root: BorrowedFd<'_>, masks: bool) -> Result<(), Errno> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let mount =
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, ALWAYS | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    let at = folder(root, "proc")?;
    attach(mount.as_fd(), at.as_fd(), "")?;
    if !masks {
        return Ok(());
    }
    // What the kernel can be told is for nobody here to change.
    let settings = inside(root, "proc/sys", OFlags::PATH | OFlags::DIRECTORY)?;
    let tree = copy(&settings)?;
    set_attributes(tree.as_fd(), ALWAYS | MountAttrFlags::MOUNT_ATTR_RDONLY, true)?;
    attach(tree.as_fd(), settings.as_fd(), "")?;
    let null = spec::open(Path::new("/dev/null"))?;
    let nothing = tmpfs(4096, 1, 0o555)?;
    set_attributes(nothing.as_fd(), ALWAYS | MountAttrFlags::MOUNT_ATTR_RDONLY, false)?;
    // It is the kernel's own, and nobody is there yet who could put a link into it.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for entry in Dir::new(openat(&mount, ".", flags, Mode::empty())?)? {
        let entry = entry?;
        let name = entry.file_name();
        let of_a_process = name.to_bytes().iter().all(u8::is_ascii_digit);
        let dots = name == c"." || name == c"..";
        if of_a_process || dots || SHOWN.iter().any(|shown| name.to_bytes() == shown.as_bytes()) {
            continue;
        }
        match entry.file_type() {
            // They lead to processes, which are the cell's own.
            FileType::Symlink => {}
            FileType::Directory => cover(&mount, name, &nothing)?,
            _ => cover(&mount, name, &null)?,
        }
    }
    match cover(&mount, START_OF_THE_HOST, &null) {
        Err(Errno::NOENT) => Ok(()),
        covered => covered,
    }
}

/// Puts something over what has this name in a folder.
fn cover(folder: &OwnedFd, name: impl Arg, with: &OwnedFd) -> Result<(), Errno> {
    move_mount(copy(with)?, "", folder, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn dev(root: BorrowedFd<'_>, shm_bytes: u64, in_image: bool) -> Result<(), Errno> {
    // What an image has there is not looked at.
    let cover = in_image.then(|| tmpfs(4096, 64, 0o755)).transpose()?;
    if let Some(cover) = &cover {
        attach(cover.as_fd(), folder(root, "dev")?.as_fd(), "")?;
    }
    ["full", "null", "random", "urandom", "zero"].into_iter().try_for_each(|name| device(root, name))?;
    for (at, to) in [
        ("dev/fd", "/proc/self/fd"),
        ("dev/stderr", "/proc/self/fd/2"),
        ("dev/stdin", "/proc/self/fd/0"),
        ("dev/stdout", "/proc/self/fd/1"),
    ] {
        link(root, at, to)?;
    }
    let shm = tmpfs(shm_bytes, 4096, 0o1777)?;
    attach(shm.as_fd(), folder(root, "dev/shm")?.as_fd(), "")?;
    cover.map_or(Ok(()), |cover| set_attributes(cover.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false))
}

/// A device of the host: the only mounts where one is one.
fn device(root: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let tree = copy(&spec::open(Path::new(&format!("/dev/{name}")))?)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    set_attributes(tree.as_fd(), flags, true)?;
    attach(tree.as_fd(), target(root, &format!("dev/{name}"))?.as_fd(), "").map(drop)
}

/// Mounts a folder of the host with its changes in memory; returns the folder of the changes.
fn overlay(
    root: BorrowedFd<'_>,
    at: &str,
    lower: &OwnedFd,
    bytes: u64,
    inodes: u64,
) -> Result<OwnedFd, Errno> {
    let (mount, upper) = layered(lower, bytes, inodes)?;
    attach(mount.as_fd(), folder(root, at)?.as_fd(), "")?;
    Ok(upper)
}

/// A folder with its changes in memory, which is nowhere yet, and the folder of the changes.
fn layered(lower: &OwnedFd, bytes: u64, inodes: u64) -> Result<(OwnedFd, OwnedFd), Errno> {
    let memory = tmpfs(bytes, inodes, 0o700)?;
    for name in ["upper", "work"] {
        mkdirat(&memory, name, Mode::from_raw_mode(0o755))?;
    }
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let part =
        |name| openat(&memory, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let (upper, work) = (part("upper")?, part("work")?);
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "lowerdir", path(lower))?;
    fsconfig_set_string(context.as_fd(), "upperdir", path(&upper))?;
    fsconfig_set_string(context.as_fd(), "workdir", path(&work))?;
    // Without privilege its marks are in attributes that users may set.
    fsconfig_set_flag(context.as_fd(), "userxattr")?;
    fsconfig_create(context.as_fd())?;
    Ok((fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, ALWAYS)?, upper))
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    namespace: u64,
}

/// Adds attributes to a mount, or to it and all below.
fn set_attributes(mount: BorrowedFd<'_>, flags: MountAttrFlags, below: bool) -> Result<(), Errno> {
    let attributes = Attributes { set: u64::from(flags.bits()), clear: 0, propagation: 0, namespace: 0 };
    change(mount, &attributes, below)
}

/// Adds attributes to a mount that is nowhere yet and all below, cuts them off from those they were copied from, and shows their
/// files with the owners that a namespace of users gives them.
pub(super) fn set_private(
    mount: BorrowedFd<'_>,
    flags: MountAttrFlags,
    owners: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mapped = owners.map_or(MountAttrFlags::empty(), |_| MountAttrFlags::MOUNT_ATTR_IDMAP);
    let attributes = Attributes {
        set: u64::from((flags | mapped).bits()),
        clear: 0,
        propagation: libc::MS_PRIVATE,
        namespace: owners.map_or(0, |owners| u64::from(owners.as_raw_fd().cast_unsigned())),
    };
    change(mount, &attributes, true)
}

#[expect(unsafe_code, reason = "rustix does not have `mount_setattr`")]
fn change(mount: BorrowedFd<'_>, attributes: &Attributes, below: bool) -> Result<(), Errno> {
    let recursive = if below { libc::AT_RECURSIVE } else { 0 };
    let at = AtFlags::EMPTY_PATH.bits().cast_signed() | recursive;
    // SAFETY: the path is an empty string that ends with zero, and the structure is the kernel's, of the size that is named; it is
    // only read.
    // JUSTIFICATION: it is the one call that changes a whole tree of mounts at once.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            at,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}
