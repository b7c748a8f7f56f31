//! Where a command works: configuration, state folder, store, and the lines it writes into the log.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use toolgate_broker::blob::RootKey;
use toolgate_broker::config::{Config, parse_duration};
use toolgate_broker::home::{Home, StateFolder, Surroundings};
use toolgate_broker::person::StateKey;
use toolgate_broker::port::{Clock as _, Line, SystemClock};
use toolgate_broker::publish::LogPublisher;
use toolgate_broker::store::SqliteStore;
use toolgate_core::hex;
use toolgate_ledger::record::{Body, Record};

use toolgate_sandbox::image::Images;

use crate::out::{self, hinted};

/// The folder of the images, in the state folder.
pub(crate) const IMAGES: &str = "images";

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) surroundings: Surroundings,
    pub(crate) home: Home,
    /// Whether JSON is wanted on standard output.
    pub(crate) json: bool,
}

/// An open state folder.
pub(crate) struct State {
    pub(crate) folder: StateFolder,
    pub(crate) store: SqliteStore,
    pub(crate) key: StateKey,
}

impl Place {
    pub(crate) fn find(config: Option<&Path>, state: Option<&Path>, json: bool) -> anyhow::Result<Self> {
        let surroundings = Surroundings::of_process().context("the current folder is gone")?;
        let home = Home::find(&surroundings, config, state)?;
        Ok(Self { surroundings, home, json })
    }

    /// The configuration; the defaults if there is none.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        Ok(self.home.load(&self.surroundings)?.unwrap_or_default())
    }

    /// The images for cells.
    pub(crate) fn images(&self) -> Images {
        Images::new(self.home.state.join(IMAGES))
    }

    /// Opens the state, and makes it if it is not there.
    pub(crate) fn open_or_make(&self) -> anyhow::Result<State> {
        let folder = StateFolder::open_or_make(&self.home.state, &self.surroundings)?;
        self.state_in(folder)
    }

    /// Opens a state that is there.
    pub(crate) fn open(&self) -> anyhow::Result<State> {
        if !self.home.state.join("state.db").exists() {
            return Err(hinted(
                format!("there is no gate in `{}` yet", self.home.state.display()),
                "start one with `toolgate up`, or say where it is with `--state FOLDER`",
            ));
        }
        let folder = StateFolder::open(&self.home.state, &self.surroundings)?;
        self.state_in(folder)
    }

    fn state_in(&self, folder: StateFolder) -> anyhow::Result<State> {
        let key = folder.root_key(&self.surroundings)?;
        let store = SqliteStore::open(folder.path(), RootKey::from_bytes(*key), SystemClock)?;
        Ok(State { folder, store, key: StateKey::new(*key) })
    }

    /// Says what was done, where JSON is wanted.
    pub(crate) fn tell(&self, value: impl FnOnce() -> serde_json::Value) -> anyhow::Result<()> {
        if self.json { out::json(&value()) } else { Ok(()) }
    }

    /// Who types, for the log.
    pub(crate) fn user(&self) -> String {
        let name =
            self.surroundings.variables.get("USER").or_else(|| self.surroundings.variables.get("LOGNAME"));
        let plain = |name: &&String| {
            name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        // The number is what the kernel says; the name is a convenience and can be anything.
        match name.filter(plain) {
            Some(name) => format!("{name} (uid {})", self.surroundings.uid),
            None => format!("uid {}", self.surroundings.uid),
        }
    }
}

impl State {
    /// Publishes what is sequenced, unless the running gate does.
    pub(crate) fn publish(&self, config: &Config) -> anyhow::Result<()> {
        match LogPublisher::open(&self.folder.log(), &self.folder.signer(), &self.origin(config)?) {
            Ok(mut publisher) => {
                publisher.publish(&self.store)?;
                Ok(())
            }
            Err(error) if error.is_elsewhere() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the log is called if it has no key yet.
    pub(crate) fn origin(&self, config: &Config) -> anyhow::Result<String> {
        config.log.origin.clone().map_or_else(new_origin, Ok)
    }
}

/// A name for a log that nobody named: it only has to be nobody else's.
fn new_origin() -> anyhow::Result<String> {
    let bytes = random::<8>()?;
    let digits = hex::encode(&bytes);
    Ok(format!("toolgate.invalid/{digits}"))
}

/// Random bytes fit for keys.
pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    Ok(SystemClock.random::<N>()?)
}

/// The time now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemClock.now_ms()
}

/// A record about the gate itself.
pub(crate) fn gate_line(body: impl Into<Body>) -> anyhow::Result<Line> {
    let leaf = Record::new(now_ms(), body).encode()?;
    Ok(Line { leaf, disclosed: Vec::new(), subject: "gate".to_owned() })
}

/// Reads `--since`.
pub(crate) fn since(text: &str) -> anyhow::Result<u64> {
    let back: Duration = parse_duration(text).ok_or_else(|| {
        hinted(
            format!("`{}` is not a time", text.escape_debug()),
            "write a number and a unit: `90s`, `5m`, `24h` or `7d`",
        )
    })?;
    Ok(now_ms().saturating_sub(u64::try_from(back.as_millis()).unwrap_or(u64::MAX)))
}

/// Runs what has to wait for the store.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// How large a file with certificates may be.
const MAX_PEM: u64 = 1 << 20;

/// Reads a file with certificates.
pub(crate) fn read_pem(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("could not read `{}`", path.display()))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_PEM), &mut bytes)?;
    Ok(bytes)
}
