//! Profiles: what a kind of cell is given, in words an operator writes; and the specification that comes of one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::CellError;
use super::spec::{Access, Handed, Lent, Limits, Opened, Place, SECRETS, Source, Spec};
use super::tier::Tier;
use crate::egress::{BELIEVES, PROXY, RESOLV_CONF, Rule};

/// Where the program's own files go: in memory, and gone with the cell.
const HOME: &str = "/home/agent";

/// Where programs are looked up.
const SEARCHED: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// What of `/etc` programs need that is the same for everybody. What is not there is left out.
const SYSTEM: &[&str] = &[
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/debian_version",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];

/// What lies at the root beside `/usr`: links into it, or folders of their own on older systems.
const BESIDE_USR: &[&str] = &["/bin", "/lib", "/lib32", "/lib64", "/sbin"];

/// What a kind of cell is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The least that has to lie between it and the host.
    pub tier: Tier,
    /// The image that it runs on, in place of the system's programs.
    pub image: Option<Base>,
    /// Files and folders of the host that can be read. At the same path as outside, as all of them.
    pub read: Vec<PathBuf>,
    /// Files and folders of the host that can be read and run, besides the system's programs.
    pub exec: Vec<PathBuf>,
    /// Files and folders of the host that can be written, and the host sees it.
    pub write: Vec<PathBuf>,
    /// A program of its own, if it is no part of the system or of what is named above: that one file, at this path.
    pub program: Option<PathBuf>,
    /// The folder that is worked in.
    pub workspace: Option<(PathBuf, Workspace)>,
    /// The environment, besides `PATH` and `HOME`, and, with a way out, the [proxy](PROXY).
    pub env: Vec<(String, String)>,
    /// How many bytes can be written to memory in place of a disk: in the home, in `/tmp`, and as changes of the workspace, each.
    pub scratch_bytes: u64,
    /// How many files there can be in each of them.
    pub scratch_inodes: u64,
    /// What it may use up.
    pub limits: Limits,
    /// What it may connect to.
    pub net: Vec<Rule>,
}

/// An image that a cell runs on, and what is taken of what it wishes for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The folder of its files.
    pub root: PathBuf,
    /// Variables; those of the profile come before them.
    pub env: Vec<(String, String)>,
    /// Where programs are started, if there is no folder that is worked in.
    pub cwd: Option<String>,
}

/// What becomes of changes to the folder that is worked in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Workspace {
    /// They are kept in memory, and can be looked at and taken over, or not.
    #[default]
    Overlay,
    /// There can be none.
    Read,
    /// They are made on the host, as they come.
    Write,
}

impl Default for Profile {
    /// Nothing but the system's programs.
    fn default() -> Self {
        Self {
            tier: Tier::default(),
            image: None,
            read: Vec::new(),
            exec: Vec::new(),
            write: Vec::new(),
            program: None,
            workspace: None,
            env: Vec::new(),
            scratch_bytes: 256 << 20,
            scratch_inodes: 65_536,
            limits: Limits::default(),
            net: Vec::new(),
        }
    }
}

/// A specification, and what has to be kept until the cell has started.
#[derive(Debug)]
pub struct Planned {
    /// What the cell is to be.
    pub spec: Spec,
    /// What was looked at.
    pub opened: Vec<Opened>,
}

impl Profile {
    /// Plans a cell for a command, which is started in the workspace, or else in its home.
    ///
    /// # Errors
    /// Something that is named is not there.
    pub fn plan(&self, argv: Vec<String>) -> Result<Planned, CellError> {
        let mut plan = Plan { places: Vec::new(), writable: Vec::new(), opened: Vec::new() };
        let base = match &self.image {
            Some(image) => Some(plan.source(&real(&image.root)?)?),
            None => plan.system().map(|()| None)?,
        };
        // With a kernel of its own, programs are who the files of the cell belong to.
        let user = if self.tier == Tier::Gvisor { 0 } else { 1000 };
        plan.who_is_who(user, if self.net.is_empty() { "" } else { RESOLV_CONF });
        plan.places.push(Place::Proc);
        plan.places.push(Place::Dev { shm_bytes: self.scratch_bytes });
        for at in ["/tmp", "/var/tmp", HOME] {
            plan.places.push(Place::Tmpfs {
                at: at.to_owned(),
                bytes: self.scratch_bytes,
                inodes: self.scratch_inodes,
            });
        }
        plan.writable.extend(["/dev/shm", "/tmp", "/var/tmp", HOME].map(str::to_owned));
        for path in &self.read {
            plan.give(path, Access::Read)?;
        }
        for path in &self.exec {
            plan.give(path, Access::Run)?;
        }
        if let (Some(program), None) = (&self.program, &self.image) {
            plan.program(program, self)?;
        }
        let wished = self.image.as_ref().and_then(|image| image.cwd.clone());
        let mut cwd = wished.unwrap_or_else(|| HOME.to_owned());
        if let Some((folder, workspace)) = &self.workspace {
            cwd = plan.workspace(folder, *workspace, self)?;
        }
        // After the workspace, so that what lies in it can be told apart from it.
        for path in &self.write {
            plan.give(path, Access::Write)?;
        }
        // What comes later has the last word.
        let proxy = PROXY.iter().filter(|_| !self.net.is_empty());
        let ours = [("HOME", HOME), ("PATH", SEARCHED)];
        let ours = ours.iter().chain(proxy).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let of_image = self.image.iter().flat_map(|image| image.env.iter().cloned());
        let env: BTreeMap<String, String> = ours.chain(of_image).chain(self.env.iter().cloned()).collect();
        let env = env.into_iter().collect();
        let Plan { places, writable, opened } = plan;
        let (files, hands_out) = (Vec::new(), false);
        let net = self.net.clone();
        let (tier, limits) = (self.tier, self.limits);
        let spec = Spec { tier, argv, env, cwd, base, places, limits, writable, net, files, hands_out };
        Ok(Planned { spec, opened })
    }
}

impl Planned {
    /// Makes room for what the cell is handed, and has its programs believe the certificates among it, if there are such.
    pub fn make_room(&mut self, lent: &Lent) {
        let is_file = |(place, _): &(Handed, _)| matches!(place, Handed::File(_));
        if !lent.handed.iter().any(is_file) {
            return;
        }
        let at = SECRETS.to_owned();
        self.spec.places.push(Place::Tmpfs { at: at.clone(), bytes: 2 << 20, inodes: 64 });
        self.spec.writable.push(at);
        if lent.intercept.is_some() {
            let set = |name: &str| self.spec.env.iter().any(|(set, _)| set == name);
            let believes: Vec<_> = BELIEVES.iter().filter(|(name, _)| !set(name)).collect();
            self.spec
                .env
                .extend(believes.iter().map(|(name, file)| ((*name).to_owned(), (*file).to_owned())));
        }
    }
}

struct Plan {
    places: Vec<Place>,
    writable: Vec<String>,
    opened: Vec<Opened>,
}

impl Plan {
    /// The system's programs and libraries.
    fn system(&mut self) -> Result<(), CellError> {
        self.show("/usr", Access::Run)?;
        for path in BESIDE_USR {
            match fs::read_link(path) {
                Ok(to) => self.places.push(Place::Symlink { at: (*path).to_owned(), to: text(&to)? }),
                Err(_) if Path::new(path).exists() => self.show(path, Access::Run)?,
                Err(_) => {}
            }
        }
        for path in SYSTEM.iter().filter(|path| Path::new(path).exists()) {
            self.show(path, Access::Read)?;
        }
        // Each version of Java keeps its settings in a folder of its own.
        for entry in fs::read_dir("/etc").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("java-") {
                self.show(&text(&entry.path())?, Access::Read)?;
            }
        }
        Ok(())
    }

    /// Who is who in the cell.
    fn who_is_who(&mut self, user: u32, resolv_conf: &str) {
        let passwd = format!(
            "agent:x:{user}:{user}::/home/agent:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
        );
        let group = format!("agent:x:{user}:\nnogroup:x:65534:\n");
        for (at, content) in [
            ("/etc/group", &*group),
            ("/etc/hostname", "cell\n"),
            ("/etc/hosts", "127.0.0.1 localhost cell\n::1 localhost\n"),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
            ("/etc/passwd", &*passwd),
            ("/etc/resolv.conf", resolv_conf),
        ] {
            self.places.push(Place::File { at: at.to_owned(), content: content.to_owned() });
        }
    }

    /// Gives what an operator named, at the path where it really is.
    fn give(&mut self, path: &Path, access: Access) -> Result<(), CellError> {
        let real = real(path)?;
        let (at, source) = (text(&real)?, self.source(&real)?);
        if access == Access::Write {
            self.writable.push(at.clone());
        }
        self.places.push(Place::Bind { at, source, access, owned: true });
        Ok(())
    }

    /// Gives a program, at the path that it is started by.
    fn program(&mut self, path: &Path, profile: &Profile) -> Result<(), CellError> {
        let refused = |why: &str| CellError::Source { path: path.to_owned(), why: why.to_owned() };
        let plain = |part: std::path::Component<'_>| {
            matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_))
        };
        if !path.is_absolute() || !path.components().all(plain) {
            return Err(refused("a program is named by its whole path, without `..`"));
        }
        let mut there = ["/usr"].iter().chain(BESIDE_USR).map(Path::new);
        let mut given = profile.read.iter().chain(&profile.exec).chain(&profile.write);
        if there.any(|part| path.starts_with(part)) || given.any(|part| path.starts_with(part)) {
            return Ok(());
        }
        if !path.is_file() {
            return Err(refused("there is no such program"));
        }
        let source = self.source(&real(path)?)?;
        self.places.push(Place::Bind { at: text(path)?, source, access: Access::Run, owned: true });
        Ok(())
    }

    /// Shows a part of the system, as anybody may see it.
    fn show(&mut self, at: &str, access: Access) -> Result<(), CellError> {
        let source = self.source(&real(Path::new(at))?)?;
        self.places.push(Place::Bind { at: at.to_owned(), source, access, owned: false });
        Ok(())
    }

    fn source(&mut self, path: &Path) -> Result<Source, CellError> {
        let (source, opened) = Source::open(path)?;
        self.opened.push(opened);
        Ok(source)
    }

    fn workspace(
        &mut self,
        folder: &Path,
        workspace: Workspace,
        profile: &Profile,
    ) -> Result<String, CellError> {
        let real = real(folder)?;
        let refused = |why: &str| CellError::Source { path: folder.to_owned(), why: why.to_owned() };
        if !real.is_dir() {
            return Err(refused("it is no folder"));
        }
        // What holds the system, or everything, is no place to work in.
        if real.components().count() <= 2 && workspace != Workspace::Read {
            return Err(refused("it is too large a part of the host; work in a folder below it"));
        }
        let at = text(&real)?;
        match workspace {
            Workspace::Overlay => {
                let lower = self.source(&real)?;
                let (bytes, inodes) = (profile.scratch_bytes, profile.scratch_inodes);
                self.places.push(Place::Overlay { at: at.clone(), lower, bytes, inodes });
                self.writable.push(at.clone());
            }
            Workspace::Read => self.give(&real, Access::Run)?,
            Workspace::Write => self.give(&real, Access::Write)?,
        }
        Ok(at)
    }
}

/// The path that a path really leads to.
fn real(path: &Path) -> Result<PathBuf, CellError> {
    fs::canonicalize(path)
        .map_err(|error| CellError::Source { path: path.to_owned(), why: error.to_string() })
}

fn text(path: &Path) -> Result<String, CellError> {
    let why = "its name is not UTF-8".to_owned();
    path.to_str().map(str::to_owned).ok_or(CellError::Source { path: path.to_owned(), why })
}
