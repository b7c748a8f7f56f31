//! Where things are: the configuration, the state folder, and who may write to them.
//!
//! Whoever can write the configuration or the policies decides what the gate does, so it looks before it reads. The
//! state folder belongs to the gate's user alone.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{Config, ConfigError, FILE_NAME, POLICY_FOLDER, Value};

/// The configuration folder and the state folder of a service.
const SYSTEM_CONFIG: &str = "/etc/toolgate";
const SYSTEM_STATE: &str = "/var/lib/toolgate";

/// How large a file with one value may be.
const MAX_VALUE_BYTES: u64 = 64 << 10;

/// What the program was started with. Read once in `main`; a parameter everywhere else.
#[derive(Clone)]
pub struct Surroundings {
    /// The folder it was started in.
    pub folder: PathBuf,
    /// The user it runs as.
    pub uid: u32,
    /// The user's own group.
    pub gid: u32,
    /// Its environment.
    pub variables: BTreeMap<String, String>,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("folder", &self.folder)
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}

impl Surroundings {
    /// What this process was started with. Variables that are not UTF-8 are left out.
    ///
    /// # Errors
    /// The folder it was started in is gone.
    pub fn of_process() -> io::Result<Self> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Self { folder: std::env::current_dir()?, uid, gid, variables })
    }

    /// A folder that a variable names, if it is absolute as the XDG rules demand.
    fn folder_of(&self, variable: &str) -> Option<PathBuf> {
        self.variables.get(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The user's home folder.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.folder_of("HOME")
    }

    fn under_home(&self, variable: &str, usual: &str) -> Option<PathBuf> {
        self.folder_of(variable).or_else(|| Some(self.home()?.join(usual)))
    }

    /// Gets a configured value from where it is.
    ///
    /// # Errors
    /// It is not there, or others could read it.
    pub fn value(&self, value: &Value) -> Result<Zeroizing<String>, HomeError> {
        match value {
            Value::Inline(text) => Ok(Zeroizing::new(text.clone())),
            Value::Env(name) => match self.variables.get(name) {
                Some(value) if !value.is_empty() => Ok(Zeroizing::new(value.clone())),
                Some(_) | None => Err(HomeError::NoVariable { name: name.clone() }),
            },
            Value::File(path) => self.value_in_file(path),
        }
    }

    fn value_in_file(&self, path: &Path) -> Result<Zeroizing<String>, HomeError> {
        let read = |source| HomeError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        if meta.mode() & 0o077 != 0 || (meta.uid() != self.uid && meta.uid() != 0) {
            return Err(HomeError::NotPrivate {
                path: path.to_owned(),
                mode: meta.mode() & 0o7777,
                wanted: "600",
            });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_VALUE_BYTES).read_to_string(&mut text).map_err(read)?;
        let value = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if value.is_empty() {
            return Err(HomeError::NoValue { path: path.to_owned() });
        }
        Ok(value)
    }
}

/// Why a file or folder of ours cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is neither a home folder nor a place that was named.
    #[error("there is no `HOME` to keep the {0} in")]
    NoHome(&'static str),
    /// A file that should hold a value is empty.
    #[error("`{path}` is empty")]
    NoValue {
        /// The file.
        path: PathBuf,
    },
    /// A variable that should hold a value is not set.
    #[error("the environment variable `{name}` is not set")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// Others can read what only the gate's user may.
    #[error("`{path}` can be read or written by others (mode {mode:o}), or is not yours")]
    NotPrivate {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: &'static str,
    },
    /// Others can change what decides what the gate does.
    #[error("`{path}` can be changed by others (mode {mode:o})")]
    Writable {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else owns what decides what the gate does.
    #[error("`{path}` belongs to user {owner}, who could change it")]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// It could not be read.
    #[error("could not read `{path}`")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be written.
    #[error("could not write `{path}`")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key of a state that is there is not.
    #[error("`{path}`, the key of this state, is gone")]
    KeyGone {
        /// The file.
        path: PathBuf,
    },
    /// A key file has another length than a key.
    #[error("`{path}` is not a key of 32 bytes")]
    BadKey {
        /// The file.
        path: PathBuf,
    },
}

impl HomeError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => Some(error.hint().to_owned()),
            Self::NoHome(_) => Some("set `HOME`, or say `--config FILE --state FOLDER`".into()),
            Self::NoValue { path } => Some(format!("write the value into `{}`", path.display())),
            Self::NoVariable { name } => {
                Some(format!("set `{name}` for the gate, or keep the value in a file with mode 600"))
            }
            Self::NotPrivate { path, wanted, .. } => {
                Some(format!("chown it to the gate's user and `chmod {wanted} {}`", path.display()))
            }
            Self::Writable { path, .. } => Some(format!("`chmod go-w {}`", path.display())),
            Self::Owner { path, .. } => {
                Some(format!("`chown` it to the gate's user or to root: `{}`", path.display()))
            }
            Self::BadKey { path } | Self::KeyGone { path } => Some(format!(
                "restore `{}` from your backup: without it nothing encrypted can be read",
                path.display()
            )),
            Self::Read { .. } | Self::Write { .. } => None,
        }
    }
}

/// Where the configuration and the state of this gate are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The configuration file; it may not exist yet.
    pub config: PathBuf,
    /// The state folder; it may not exist yet.
    pub state: PathBuf,
    /// The Unix socket, unless the configuration names another.
    pub socket: PathBuf,
}

impl Home {
    /// Finds the configuration: in the user's configuration folder, then in `/etc/toolgate`. Where there is none, the user's
    /// folder is where it will be. The folder the program was started in is not looked at: clients start the gate in the
    /// project where their agent writes, and a file there must not decide what the agent may do.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn find(
        surroundings: &Surroundings,
        config: Option<&Path>,
        state: Option<&Path>,
    ) -> Result<Self, HomeError> {
        let of_user =
            surroundings.under_home("XDG_CONFIG_HOME", ".config").map(|f| f.join("toolgate").join(FILE_NAME));
        let of_system = Path::new(SYSTEM_CONFIG).join(FILE_NAME);
        let config = match config {
            Some(path) => surroundings.folder.join(path),
            None => [of_user.clone(), Some(of_system.clone())]
                .into_iter()
                .flatten()
                .find(|path| path.exists())
                .or(of_user)
                .ok_or(HomeError::NoHome("configuration"))?,
        };
        let state = match state {
            Some(path) => surroundings.folder.join(path),
            None if config == of_system => PathBuf::from(SYSTEM_STATE),
            None => surroundings
                .under_home("XDG_STATE_HOME", ".local/state")
                .map(|folder| folder.join("toolgate"))
                .ok_or(HomeError::NoHome("state"))?,
        };
        let socket = surroundings
            .folder_of("XDG_RUNTIME_DIR")
            .map_or_else(|| state.join("gate.sock"), |folder| folder.join("toolgate").join("gate.sock"));
        Ok(Self { config, state, socket })
    }

    /// Where the policies are: beside the configuration.
    #[must_use]
    pub fn policies(&self) -> PathBuf {
        self.config.parent().unwrap_or(Path::new("")).join(POLICY_FOLDER)
    }

    /// Whether the configuration lies in the folder the program was started in, where an agent may work.
    #[must_use]
    pub fn is_in_project(&self, surroundings: &Surroundings) -> bool {
        self.config.parent() == Some(surroundings.folder.as_path())
    }

    /// Reads the configuration, after a look at who could have written it. `None` if there is no file.
    ///
    /// # Errors
    /// It is wrong, cannot be read, or others could have written it.
    pub fn load(&self, surroundings: &Surroundings) -> Result<Option<Config>, HomeError> {
        match fs::symlink_metadata(&self.config) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HomeError::Read { path: self.config.clone(), source }),
            Ok(_) => {}
        }
        check_unwritable(&self.config, surroundings)?;
        if let Some(folder) = self.config.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            check_unwritable(folder, surroundings)?;
        }
        self.check_policies(surroundings)?;
        let text =
            fs::read(&self.config).map_err(|source| HomeError::Read { path: self.config.clone(), source })?;
        let text = String::from_utf8(text).map_err(|_not_utf8| {
            ConfigError::whole(&self.config, "not UTF-8 text", "save the file as UTF-8")
        })?;
        Ok(Some(Config::parse(&self.config, &text)?))
    }

    /// Looks at who could have written the policies.
    ///
    /// # Errors
    /// Somebody besides the gate's user and root.
    pub fn check_policies(&self, surroundings: &Surroundings) -> Result<(), HomeError> {
        let folder = self.policies();
        if !folder.exists() {
            return Ok(());
        }
        check_unwritable(&folder, surroundings)?;
        let read = |source| HomeError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(read)? {
            check_unwritable(&entry.map_err(read)?.path(), surroundings)?;
        }
        Ok(())
    }
}

/// Refuses what anybody but the gate's user and root can change. A group counts as anybody unless it is the user's own.
fn check_unwritable(path: &Path, surroundings: &Surroundings) -> Result<(), HomeError> {
    let meta = fs::metadata(path).map_err(|source| HomeError::Read { path: path.to_owned(), source })?;
    let mode = meta.mode() & 0o7777;
    let sticky_folder = meta.is_dir() && mode & 0o1000 != 0;
    let by_group = mode & 0o020 != 0 && meta.gid() != surroundings.gid && meta.gid() != 0;
    if (mode & 0o002 != 0 || by_group) && !sticky_folder {
        return Err(HomeError::Writable { path: path.to_owned(), mode });
    }
    if meta.uid() != surroundings.uid && meta.uid() != 0 {
        return Err(HomeError::Owner { path: path.to_owned(), owner: meta.uid() });
    }
    Ok(())
}

/// The state folder, looked at and found to be the gate's alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFolder(PathBuf);

impl StateFolder {
    /// Opens the state folder, and makes it if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or others can look into it.
    pub fn open_or_make(path: &Path, surroundings: &Surroundings) -> Result<Self, HomeError> {
        make_private(path)?;
        Self::open(path, surroundings)
    }

    /// Opens the state folder.
    ///
    /// # Errors
    /// It is not there, or others can look into it.
    pub fn open(path: &Path, surroundings: &Surroundings) -> Result<Self, HomeError> {
        let meta = fs::metadata(path).map_err(|source| HomeError::Read { path: path.to_owned(), source })?;
        let mode = meta.mode() & 0o7777;
        if !meta.is_dir() || mode & 0o077 != 0 || meta.uid() != surroundings.uid {
            return Err(HomeError::NotPrivate { path: path.to_owned(), mode, wanted: "700" });
        }
        Ok(Self(path.to_owned()))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.0.join("state.db")
    }

    /// The log as others may copy it: tiles and checkpoint.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What the log's signer keeps apart from the log: its key and the last tree it signed.
    #[must_use]
    pub fn signer(&self) -> PathBuf {
        self.0.join("signer")
    }

    /// The vault.
    #[must_use]
    pub fn vault(&self) -> PathBuf {
        self.0.join("vault")
    }

    /// The key file that the first vault opens with.
    #[must_use]
    pub fn vault_key(&self) -> PathBuf {
        self.0.join("vault.key")
    }

    /// What in here others could read or write: everything but the log is for the gate's user alone.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn exposed(&self, surroundings: &Surroundings) -> Result<Vec<HomeError>, HomeError> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            let read = |source| HomeError::Read { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(read)? {
                let path = entry.map_err(read)?.path();
                let meta = match fs::symlink_metadata(&path) {
                    Ok(meta) => meta,
                    // The gate that runs takes its own files away.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(source) => return Err(HomeError::Read { path, source }),
                };
                // The log is for others to read; who may connect to the socket, the folder decides.
                if path == self.log() || meta.file_type().is_socket() {
                    continue;
                }
                let mode = meta.mode() & 0o7777;
                if mode & 0o077 != 0 && !meta.is_symlink() || meta.uid() != surroundings.uid {
                    let wanted = if meta.is_dir() { "700" } else { "600" };
                    found.push(HomeError::NotPrivate { path: path.clone(), mode, wanted });
                }
                if meta.is_dir() {
                    folders.push(path);
                }
            }
        }
        found.sort_by_key(ToString::to_string);
        Ok(found)
    }

    /// The key that everything encrypted hangs on; made the first time.
    ///
    /// # Errors
    /// It cannot be read or made, others can read it, or it is gone while the state is there.
    pub fn root_key(&self, surroundings: &Surroundings) -> Result<Zeroizing<[u8; 32]>, HomeError> {
        let path = self.0.join("root.key");
        // A new one would open nothing of what is there, and what is sealed from then on would not open with the old one.
        if !path.exists() && self.database().exists() {
            return Err(HomeError::KeyGone { path });
        }
        let mut random = Zeroizing::new([0; 32]);
        getrandom::fill(random.as_mut_slice()).map_err(|error| HomeError::Write {
            path: path.clone(),
            source: io::Error::other(error.to_string()),
        })?;
        match write_new(&path, random.as_slice()) {
            Ok(()) => return Ok(random),
            Err(HomeError::Write { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let read = |source| HomeError::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        if meta.mode() & 0o077 != 0 || meta.uid() != surroundings.uid {
            return Err(HomeError::NotPrivate { path, mode: meta.mode() & 0o7777, wanted: "600" });
        }
        if meta.len() != 32 {
            return Err(HomeError::BadKey { path });
        }
        file.read_exact(random.as_mut_slice()).map_err(read)?;
        Ok(random)
    }
}

/// Makes a folder, and what is missing above it, for the user alone. One that is there is left as it is.
///
/// # Errors
/// It cannot be made.
pub fn make_private(path: &Path) -> Result<(), HomeError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| HomeError::Write { path: path.to_owned(), source })
}

/// Writes a file that is not there yet, for the user alone; it is durable, and whole, when this returns.
///
/// # Errors
/// It is there already, or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let write = |source| HomeError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft = folder.join(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A link, unlike a renaming, fails where the name is taken: two processes never hold different keys.
        fs::hard_link(&draft, path)?;
        File::open(folder)?.sync_all()
    })();
    let _gone = fs::remove_file(&draft);
    written.map_err(write)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A folder that is gone after the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("toolgate-home-{name}-{}", std::process::id()));
            let _old = fs::remove_dir_all(&path);
            make_private(&path).unwrap();
            Self(path)
        }

        fn surroundings(&self) -> Surroundings {
            let variables = BTreeMap::from([("HOME".to_owned(), self.0.display().to_string())]);
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            Surroundings { folder: self.0.join("project"), uid, gid, variables }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_configuration_is_the_users_and_never_the_projects() {
        let scratch = Scratch::new("find");
        let around = scratch.surroundings();
        let user = scratch.0.join(".config/toolgate/toolgate.toml");
        let found = Home::find(&around, None, None).unwrap();
        assert_eq!((&found.config, found.state), (&user, scratch.0.join(".local/state/toolgate")));
        make_private(&around.folder).unwrap();
        write_new(&around.folder.join(FILE_NAME), b"").unwrap();
        assert_eq!(Home::find(&around, None, None).unwrap().config, user);
        let named = Home::find(&around, Some(Path::new(FILE_NAME)), None).unwrap();
        assert!(named.is_in_project(&around), "{named:?}");
        let named = Home::find(&around, Some(Path::new("a/b.toml")), Some(Path::new("s"))).unwrap();
        assert_eq!((named.config, named.state), (around.folder.join("a/b.toml"), around.folder.join("s")));
        let nowhere = Surroundings { variables: BTreeMap::new(), folder: "/nonexistent".into(), ..around };
        assert!(
            Home::find(&nowhere, None, None).is_err() || Path::new("/etc/toolgate/toolgate.toml").exists()
        );
    }

    #[test]
    fn what_others_can_change_is_not_read() {
        let scratch = Scratch::new("writable");
        let around = scratch.surroundings();
        let home = Home::find(&around, None, None).unwrap();
        assert_eq!(home.load(&around).unwrap(), None, "no file is no error");
        make_private(&home.policies()).unwrap();
        write_new(&home.config, b"").unwrap();
        let policy = home.policies().join("a.cedar");
        write_new(&policy, b"").unwrap();
        assert_eq!(home.load(&around).unwrap(), Some(Config::default()));
        for path in [&home.config, &home.policies(), &policy, &home.config.parent().unwrap().to_owned()] {
            let before = fs::metadata(path).unwrap().mode();
            mode(path, 0o777);
            let error = home.load(&around).unwrap_err();
            assert!(matches!(&error, HomeError::Writable { path: named, .. } if named == path), "{error}");
            assert!(error.hint().unwrap().contains("chmod go-w"), "{error}");
            mode(path, before);
        }
        let stranger = Surroundings { uid: around.uid + 1, ..around.clone() };
        if around.uid != 0 {
            assert!(matches!(home.load(&stranger), Err(HomeError::Owner { .. })));
        }
        assert_eq!(home.load(&around).unwrap(), Some(Config::default()));
    }

    #[test]
    fn the_state_folder_is_private_and_its_key_stays_the_same() {
        let scratch = Scratch::new("state");
        let around = scratch.surroundings();
        let path = scratch.0.join("a/b");
        assert!(matches!(StateFolder::open(&path, &around), Err(HomeError::Read { .. })));
        let state = StateFolder::open_or_make(&path, &around).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        let key = state.root_key(&around).unwrap();
        assert_eq!(*state.root_key(&around).unwrap(), *key);
        mode(&path.join("root.key"), 0o640);
        assert!(matches!(state.root_key(&around), Err(HomeError::NotPrivate { .. })));
        mode(&path.join("root.key"), 0o600);
        fs::write(path.join("root.key"), b"short").unwrap();
        assert!(matches!(state.root_key(&around), Err(HomeError::BadKey { .. })));
        // What is sealed already would not open with another key.
        fs::remove_file(path.join("root.key")).unwrap();
        write_new(&state.database(), b"").unwrap();
        assert!(matches!(state.root_key(&around), Err(HomeError::KeyGone { .. })));
        assert!(!path.join("root.key").exists());
        mode(&path, 0o750);
        assert!(matches!(StateFolder::open_or_make(&path, &around), Err(HomeError::NotPrivate { .. })));
    }

    #[test]
    fn values_are_where_the_configuration_says() {
        let scratch = Scratch::new("values");
        let mut around = scratch.surroundings();
        around.variables.insert("SET".into(), "s3".into());
        around.variables.insert("EMPTY".into(), String::new());
        let path = scratch.0.join("value");
        write_new(&path, b"s4\n").unwrap();
        assert_eq!(*around.value(&Value::Inline("s2".into())).unwrap(), "s2");
        assert_eq!(*around.value(&Value::Env("SET".into())).unwrap(), "s3");
        assert_eq!(*around.value(&Value::File(path.clone())).unwrap(), "s4");
        for missing in ["EMPTY", "UNSET"] {
            let error = around.value(&Value::Env(missing.into())).unwrap_err();
            assert_eq!(error.to_string(), format!("the environment variable `{missing}` is not set"));
        }
        mode(&path, 0o644);
        assert!(matches!(around.value(&Value::File(path.clone())), Err(HomeError::NotPrivate { .. })));
        mode(&path, 0o600);
        fs::write(&path, "\n").unwrap();
        assert!(matches!(around.value(&Value::File(path)), Err(HomeError::NoValue { .. })));
        assert!(write_new(&scratch.0.join("value"), b"").is_err(), "what is there is not overwritten");
    }
}
