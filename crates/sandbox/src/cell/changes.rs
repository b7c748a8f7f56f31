//! What a cell changed in its workspace: read from the folder of changes of an overlay, once the cell has ended.
//!
//! What is in there was made by the program. Nothing of it is followed, run or taken over unseen: links are read, not followed;
//! what would run or give rights on the host is named for what it is.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fchmod, fgetxattr, fstat, major, minor,
    mkdirat, openat, openat2, readlinkat, renameat, statat, statx, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::spec::Source;

/// How many changes are looked at.
pub const MAX_CHANGES: usize = 100_000;

/// How deep folders may lie in each other.
const MAX_DEPTH: usize = 64;

/// One thing that is otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub what: What,
    /// Why somebody has to look at it before it is taken over; `None` if there is no need.
    pub caution: Option<Caution>,
}

/// What happened to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file is new or has other content: its size in bytes, and whether it can be run.
    File {
        /// Its size.
        bytes: u64,
        /// Whether it can be run.
        runs: bool,
    },
    /// A folder is new, or took the place of another one.
    Folder {
        /// Whether what was in it before is gone.
        replaced: bool,
    },
    /// A symbolic link, and where it leads.
    Link {
        /// Where.
        to: String,
    },
    /// It is gone.
    Removed,
    /// Something that is neither file, folder nor link.
    Special,
}

/// Why a change is not taken over by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caution {
    /// The host, an editor or an agent runs what is in it, without being asked.
    Configuration,
    /// The link leads out of the workspace.
    LeadsOut,
    /// It is a device, a pipe or a socket.
    NoFile,
    /// It would run with the rights of another user.
    SetId,
}

/// Names that are looked at whole: a part of a path that is one of these is run, or decides what is run, by something on the host.
const CONFIGURATION: &[&str] = &[
    ".bash_profile",
    ".bashrc",
    ".claude",
    ".claude.json",
    ".codex",
    ".cursor",
    ".devcontainer",
    ".direnv",
    ".envrc",
    ".gemini",
    ".git",
    ".gitattributes",
    ".github",
    ".gitlab-ci.yml",
    ".gitmodules",
    ".husky",
    ".idea",
    ".mcp.json",
    ".netrc",
    ".npmrc",
    ".pre-commit-config.yaml",
    ".profile",
    ".pypirc",
    ".ssh",
    ".toolgate",
    ".vscode",
    ".yarnrc",
    ".yarnrc.yml",
    ".zshrc",
    "AGENTS.md",
    "CLAUDE.md",
    "GEMINI.md",
    "Jenkinsfile",
    "toolgate.toml",
];

impl Caution {
    /// Says it to a person.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Configuration => "decides what runs on the host",
            Self::LeadsOut => "leads out of the workspace",
            Self::NoFile => "is neither file, folder nor link",
            Self::SetId => "would run with the rights of another user",
        }
    }
}

/// Reads all changes, by path.
///
/// # Errors
/// They cannot be read, or there are too many, or they lie too deep.
pub fn read(changes: &OwnedFd) -> io::Result<BTreeMap<String, Change>> {
    let mut found = BTreeMap::new();
    walk(changes.as_fd(), "", 0, &mut found)?;
    Ok(found)
}

fn walk(
    folder: BorrowedFd<'_>,
    path: &str,
    depth: usize,
    found: &mut BTreeMap<String, Change>,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("`{path}` lies more than {MAX_DEPTH} folders deep")));
    }
    let own = openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(&own)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if found.len() >= MAX_CHANGES {
            return Err(io::Error::other(format!("there are more than {MAX_CHANGES} changes")));
        }
        let text =
            name.to_str().map_err(|_not| io::Error::other(format!("a name in `{path}` is not UTF-8")))?;
        let below = if path.is_empty() { text.to_owned() } else { format!("{path}/{text}") };
        let (change, is_folder) = look(own.as_fd(), name, &below)?;
        if is_folder {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            walk(openat(&own, name, flags, Mode::empty())?.as_fd(), &below, depth + 1, found)?;
        }
        found.insert(below, change);
    }
    Ok(())
}

fn look(folder: BorrowedFd<'_>, name: &CStr, path: &str) -> io::Result<(Change, bool)> {
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut caution =
        path.split('/').any(|part| CONFIGURATION.contains(&part)).then_some(Caution::Configuration);
    let kind = FileType::from_raw_mode(stat.st_mode);
    let what = match kind {
        FileType::RegularFile => {
            if stat.st_mode & 0o6000 != 0 {
                caution = Some(Caution::SetId);
            }
            What::File { bytes: u64::try_from(stat.st_size).unwrap_or(0), runs: stat.st_mode & 0o111 != 0 }
        }
        FileType::Directory => What::Folder { replaced: is_opaque(folder, name) },
        FileType::Symlink => {
            let to = readlinkat(folder, name, Vec::new())?.to_string_lossy().into_owned();
            if leads_out(path, &to) {
                caution = Some(Caution::LeadsOut);
            }
            What::Link { to }
        }
        // How an overlay says that something below is gone.
        FileType::CharacterDevice if major(stat.st_rdev) == 0 && minor(stat.st_rdev) == 0 => What::Removed,
        FileType::BlockDevice
        | FileType::CharacterDevice
        | FileType::Fifo
        | FileType::Socket
        | FileType::Unknown => {
            caution = Some(Caution::NoFile);
            What::Special
        }
    };
    Ok((Change { what, caution }, kind == FileType::Directory))
}

/// Whether an overlay says that nothing of the folder below is to be seen.
fn is_opaque(folder: BorrowedFd<'_>, name: &CStr) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::empty()).is_ok_and(|folder| {
        let mut value = [0; 1];
        matches!(fgetxattr(&folder, "user.overlay.opaque", &mut value), Ok(1)) && value == *b"y"
    })
}

/// Whether a link at a path leads out of the folder that the path begins in.
fn leads_out(path: &str, to: &str) -> bool {
    if to.starts_with('/') {
        return true;
    }
    let mut depth = path.split('/').count() - 1;
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

/// Takes changes over into the folder they were made from: those that are named, which have to be among `changes`, with what leads
/// to them. What was looked at is what is taken over; nobody else writes the folder of changes any more. Where root does it, it is
/// done with the rights of the folder's owner, and what is made is the owner's.
///
/// # Errors
/// Something could not be taken over; what was before it in the order of the paths is.
pub fn apply(changes: &OwnedFd, into: &Source, paths: &BTreeMap<String, Change>) -> io::Result<()> {
    let root = super::spec::open(&into.path)?;
    if super::spec::identity(&root)? != (into.device, into.inode) {
        return Err(io::Error::other(format!("`{}` is another folder than before", into.path.display())));
    }
    let _owner = ActingAs::owner_of(&root)?;
    for (path, change) in paths {
        one(changes.as_fd(), root.as_fd(), path, change)
            .map_err(|error| io::Error::new(error.kind(), format!("`{path}`: {error}")))?;
    }
    Ok(())
}

/// This thread acts on files with the rights of another user, until it is dropped.
struct ActingAs;

impl ActingAs {
    /// `None` where this process has no other rights than its own, or the owner is root.
    fn owner_of(folder: &OwnedFd) -> io::Result<Option<Self>> {
        let owner = fstat(folder)?;
        if !rustix::process::geteuid().is_root() || owner.st_uid == 0 {
            return Ok(None);
        }
        let acting = Self;
        Self::act(owner.st_uid, owner.st_gid);
        // The calls say who one was before, and nothing about whether they worked: the second one is told what the first one did.
        if Self::act(owner.st_uid, owner.st_gid) == (owner.st_uid, owner.st_gid) {
            Ok(Some(acting))
        } else {
            Err(io::Error::other("the system does not let root act as the folder's owner"))
        }
    }

    /// Returns who one was before.
    #[expect(unsafe_code, reason = "rustix does not have `setfsuid`")]
    fn act(user: u32, group: u32) -> (u32, u32) {
        // SAFETY: two system calls that take a number and change the rights of this thread.
        // JUSTIFICATION: acting as the owner, root can neither be led to what the owner may not touch nor leave anything behind
        // that is root's.
        let (group, user) = unsafe { (libc::setfsgid(group), libc::setfsuid(user)) };
        (user.cast_unsigned(), group.cast_unsigned())
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        Self::act(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    }
}

/// Opens something below a folder, without following links or leaving it.
fn below(folder: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { "." } else { path };
    openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), how)
}

fn one(changes: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &str, change: &Change) -> io::Result<()> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = below(root, above, OFlags::PATH | OFlags::DIRECTORY)?;
    match &change.what {
        What::File { .. } => {
            let mut from = File::from(below(changes, path, OFlags::RDONLY | OFlags::NOFOLLOW)?);
            // Written beside it and put in its place whole: a reader sees the old one or the new one.
            let beside = format!(".{name}.toolgate");
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = mode(&from)?;
            let _ = unlinkat(&folder, beside.as_str(), AtFlags::empty());
            let mut to = File::from(openat(&folder, beside.as_str(), flags, mode)?);
            io::copy(&mut from, &mut to)?;
            fchmod(&to, mode)?;
            remove(folder.as_fd(), name, true)?;
            renameat(&folder, beside.as_str(), &folder, name)?;
        }
        What::Folder { replaced } => {
            if *replaced {
                remove(folder.as_fd(), name, false)?;
            }
            let mode = mode(below(changes, path, OFlags::RDONLY | OFlags::DIRECTORY)?)?;
            match mkdirat(&folder, name, mode) {
                Ok(()) => {}
                Err(Errno::EXIST) if is_folder(folder.as_fd(), name)? => {}
                Err(Errno::EXIST) => {
                    remove(folder.as_fd(), name, false)?;
                    mkdirat(&folder, name, mode)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        What::Link { to } => {
            remove(folder.as_fd(), name, false)?;
            symlinkat(to.as_str(), &folder, name)?;
        }
        What::Removed => remove(folder.as_fd(), name, false)?,
        What::Special => return Err(io::Error::other("it is neither file, folder nor link")),
    }
    Ok(())
}

/// The permissions of what was changed, as far as they are given to what is taken over: nobody but the owner may write, and nothing
/// runs with other rights than those of who starts it.
fn mode(of: impl AsFd) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(fstat(of)?.st_mode & 0o755 | 0o600))
}

fn is_folder(folder: BorrowedFd<'_>, name: &str) -> Result<bool, Errno> {
    let found = statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    Ok(FileType::from_raw_mode(found.stx_mode.into()).is_dir())
}

/// Removes what is there, with all that is in it; or only if it is a folder, since a file can be replaced as it is.
fn remove(folder: BorrowedFd<'_>, name: &str, only_folders: bool) -> io::Result<()> {
    match is_folder(folder, name) {
        Ok(true) => remove_folder(folder, name, 0),
        Ok(false) if only_folders => Ok(()),
        Ok(false) => Ok(unlinkat(folder, name, AtFlags::empty())?),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn remove_folder(above: BorrowedFd<'_>, name: &str, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("`{name}` lies more than {MAX_DEPTH} folders deep")));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(above, name, flags, Mode::empty())?;
    let mut names: Vec<CString> = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    for name in names {
        match unlinkat(&folder, name.as_c_str(), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                let text = name.to_str().map_err(|_not| io::Error::other("a name is not UTF-8"))?;
                remove_folder(folder.as_fd(), text, depth + 1)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(unlinkat(above, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_are_told_apart() {
        for (path, to, want) in [
            ("a", "b", false),
            ("a", "../b", true),
            ("d/a", "../b", false),
            ("d/a", "../../b", true),
            ("d/a", "x/../../../b", true),
            ("a", "/etc/passwd", true),
            ("d/e/a", "./.././x", false),
        ] {
            assert_eq!(leads_out(path, to), want, "{path} -> {to}");
        }
    }
}
