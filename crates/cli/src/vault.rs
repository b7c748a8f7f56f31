//! The vault of a gate that works: its process and the credential proxy, and whether servers can get what they are to get.

use std::path::PathBuf;
use std::sync::Arc;

use toolgate_broker::config::{Config, Reach};
use toolgate_broker::home::StateFolder;
use toolgate_broker::store::{SqliteStore, VaultRow};
use toolgate_broker::vault::Slot;
use toolgate_broker::vault::process::{Known, Noted};
use toolgate_gateway::proxy::Credentials;
use toolgate_gateway::upstream::HttpServer;
use toolgate_sandbox::guarded;

use crate::out::hinted;

/// The vault, unlocked if there is one.
pub(crate) struct Vault {
    path: PathBuf,
    credentials: Option<Arc<Credentials>>,
    known: Vec<Known>,
    noted: Option<VaultRow>,
}

impl Vault {
    /// Unlocks the vault, if there is one. It may ask for a passphrase on the terminal.
    pub(crate) fn open(folder: &StateFolder, store: &SqliteStore) -> anyhow::Result<Self> {
        let mut vault = Self { path: folder.vault(), credentials: None, known: Vec::new(), noted: None };
        vault.follow(store)?;
        Ok(vault)
    }

    /// Takes up the vault as it was written last. Says whether there was anything to take up.
    pub(crate) fn follow(&mut self, store: &SqliteStore) -> anyhow::Result<bool> {
        let noted = store.vault()?;
        if noted == self.noted && (self.credentials.is_some() || !self.path.exists()) {
            return Ok(false);
        }
        let last = noted.clone().map(|row| Noted { id: row.id, generation: row.generation });
        // What cannot be read is taken for gone: nobody is served with what somebody may have taken back.
        self.known.clear();
        match (&self.credentials, last) {
            (Some(credentials), Some(last)) => self.known = credentials.reload(&self.path, last)?,
            (_, last) => {
                // Whoever can look into this process could ask the others in its name.
                guarded::keep_to_ourselves()?;
                let program = std::env::current_exe()?;
                let (credentials, known) = Credentials::start(&program, &self.path, last)?;
                (self.credentials, self.known) = (Some(credentials), known);
            }
        }
        self.noted = noted;
        Ok(true)
    }

    /// What servers say passes this.
    pub(crate) const fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref()
    }

    /// What there is.
    pub(crate) fn known(&self) -> &[Known] {
        &self.known
    }

    /// Whether each server can get what it is to get.
    pub(crate) fn check(&self, config: &Config) -> anyhow::Result<()> {
        for (name, server) in &config.servers {
            for secret in &server.secrets {
                let Some(Known { uses, .. }) = self.known.iter().find(|known| known.name == secret.as_str())
                else {
                    return Err(hinted(
                        format!("server `{name}` gets the secret `{secret}`, and there is none in the vault"),
                        format!("`toolgate secret add {secret}` puts it there"),
                    ));
                };
                let anew = |what: &str| format!("`toolgate secret use-where {secret} {what}` says so");
                if !uses.serves(name) {
                    return Err(hinted(
                        format!("the secret `{secret}` serves no tool of the server `{name}`"),
                        anew(&format!("--tool '{name}/*'")),
                    ));
                }
                let (fits, wanted) = match &server.reach {
                    Reach::Url { url, .. } => {
                        let (host, port) = HttpServer::danger_plain_http(url, &[])?.address();
                        if !uses.goes_to(&host, port) {
                            return Err(hinted(
                                format!(
                                    "the secret `{secret}` may not be sent to {host}:{port}, where `{name}` is"
                                ),
                                anew(&format!("--host {host}:{port}")),
                            ));
                        }
                        (uses.slots.iter().any(Slot::is_in_request), "--slot header:Authorization")
                    }
                    Reach::Command { .. } | Reach::Builtin { .. } => {
                        (!uses.slots.iter().all(Slot::is_in_request), "--slot env:NAME")
                    }
                };
                if !fits {
                    return Err(hinted(
                        format!("the secret `{secret}` has no place at the server `{name}`"),
                        anew(wanted),
                    ));
                }
            }
        }
        Ok(())
    }
}
