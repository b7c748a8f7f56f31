//! The vault of a gate that works: its process and the credential proxy, and whether servers can get what they are to get.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use toolgate_broker::config::{Config, Reach, Server};
use toolgate_broker::home::StateFolder;
use toolgate_broker::port::SystemClock;
use toolgate_broker::store::{SqliteStore, VaultRow};
use toolgate_broker::vault::process::{Known, Noted};
use toolgate_broker::vault::{Slot, Uses};
use toolgate_core::name::ServerName;
use toolgate_gateway::proxy::{Credentials, Passage};
use toolgate_gateway::upstream::HttpServer;
use toolgate_sandbox::cell::Lent;
use toolgate_sandbox::guarded;

use crate::login;
use crate::out::{hinted, note};

/// What secrets serve that are used by `toolgate exec`: `exec/*`.
const EXEC: &str = "exec";
/// The longest message of those that are cleaned for it; there are none.
const MAX_MESSAGE: usize = 1 << 20;

/// The vault, unlocked if there is one.
pub(crate) struct Vault {
    path: PathBuf,
    credentials: Option<Arc<Credentials>>,
    known: Vec<Known>,
    noted: Option<VaultRow>,
}

/// Whether something stands for it in a cell, which is replaced in requests.
fn is_replaced(uses: &Uses) -> bool {
    !uses.placeholders.is_empty() && uses.slots.iter().any(Slot::is_in_request)
}

impl Vault {
    /// Unlocks the vault, if there is one. It may ask for a passphrase on the terminal. Has to be called within a tokio runtime.
    pub(crate) fn open(folder: &StateFolder, store: &Arc<SqliteStore>) -> anyhow::Result<Self> {
        let mut vault = Self { path: folder.vault(), credentials: None, known: Vec::new(), noted: None };
        vault.follow(store)?;
        Ok(vault)
    }

    /// Takes up the vault as it was written last. Says whether anything is otherwise than before: a login whose token was renewed is not.
    pub(crate) fn follow(&mut self, store: &Arc<SqliteStore>) -> anyhow::Result<bool> {
        let noted = store.vault()?;
        if noted == self.noted && (self.credentials.is_some() || !self.path.exists()) {
            return Ok(false);
        }
        let last = noted.clone().map(|row| Noted { id: row.id, generation: row.generation });
        // What cannot be read is taken for gone: nobody is served with what somebody may have taken back.
        let before = std::mem::take(&mut self.known);
        let is_first = self.credentials.is_none();
        match (&self.credentials, last) {
            (Some(credentials), Some(last)) => self.known = credentials.reload(&self.path, last)?,
            (_, last) => {
                // Whoever can look into this process could ask the others in its name.
                guarded::keep_to_ourselves()?;
                let program = std::env::current_exe()?;
                let (credentials, known) = Credentials::start(&program, &self.path, last)?;
                credentials.keep_leases(Arc::clone(store), SystemClock)?;
                (self.credentials, self.known) = (Some(credentials), known);
            }
        }
        self.noted = noted;
        Ok(is_first || before != self.known)
    }

    /// What servers say passes this.
    pub(crate) const fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref()
    }

    /// What there is.
    pub(crate) fn known(&self) -> &[Known] {
        &self.known
    }

    /// What a command in a cell is lent that gets these secrets: what stands for them.
    pub(crate) async fn lend(&self, secrets: &[String], believed: Option<Vec<u8>>) -> anyhow::Result<Lent> {
        let server: ServerName = EXEC.parse()?;
        for secret in secrets {
            let known = self.known.iter().find(|known| known.name == *secret);
            let hint = |what: &str| format!("`toolgate secret use-where {secret} {what}` says so");
            match known {
                None => {
                    return Err(hinted(
                        format!("there is no secret `{secret}` in the vault"),
                        format!("`toolgate secret add {secret}` puts it there"),
                    ));
                }
                Some(Known { uses, .. }) if !uses.serves(&server) => {
                    return Err(hinted(
                        format!("the secret `{secret}` is not for commands that people type"),
                        hint("--tool 'exec/*'"),
                    ));
                }
                Some(Known { uses, .. }) if !is_replaced(uses) => {
                    return Err(hinted(
                        format!("nothing stands for the secret `{secret}` in a cell"),
                        hint("--placeholder env:NAME"),
                    ));
                }
                Some(_) => {}
            }
        }
        let credentials = self.credentials.clone().context("there is no vault")?;
        let session = format!("{EXEC}-{}", std::process::id());
        let passage = Passage::new(credentials, server, session, MAX_MESSAGE, secrets.to_vec());
        let lent = passage.believing(believed.map(Arc::from)).lend_placeholders().await;
        lent.context("the secrets cannot be used")
    }

    /// Has those leases revoked that a command has marked. Says whether there are any.
    pub(crate) fn look_at_leases(&self, store: &SqliteStore) -> anyhow::Result<bool> {
        match self.credentials.as_ref().and_then(|credentials| credentials.leases()) {
            Some(leases) => Ok(leases.look(store)?),
            None => Ok(false),
        }
    }

    /// Has all that was minted revoked, as far as it can be in a while.
    pub(crate) async fn close(self) {
        let Some(leases) = self.credentials.as_ref().and_then(|credentials| credentials.leases()) else {
            return;
        };
        let left = leases.end_all().await;
        if left > 0 {
            note(format_args!(
                "{left} credentials could not be revoked yet. The next start tries again: `toolgate lease list` shows them."
            ));
        }
    }

    /// Whether each server can get what it is to get.
    pub(crate) fn check(&self, config: &Config) -> anyhow::Result<()> {
        for (name, server) in &config.servers {
            self.check_rules(config, name, server)?;
            for secret in &server.secrets {
                let Some(Known { uses, .. }) = self.known.iter().find(|known| known.name == secret.as_str())
                else {
                    return Err(hinted(
                        format!("server `{name}` gets the secret `{secret}`, and there is none in the vault"),
                        match *secret == login::secret_of(name)? {
                            true => format!("`toolgate login {name}` puts it there"),
                            false => format!("`toolgate secret add {secret}` puts it there"),
                        },
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
                        let there = HttpServer::danger_plain_http(url, &[])?;
                        let (host, port) = there.address();
                        if !uses.goes_to(&host, port) {
                            return Err(hinted(
                                format!(
                                    "the secret `{secret}` may not be sent to {host}:{port}, where `{name}` is"
                                ),
                                anew(&format!("--host {host}:{port}")),
                            ));
                        }
                        let segments = uses.slots.iter().filter_map(|slot| slot.segment(secret.as_str()));
                        if let Some(segment) =
                            segments.into_iter().find(|segment| !there.has_segment(segment))
                        {
                            return Err(hinted(
                                format!(
                                    "the secret `{secret}` goes into the path of the address of `{name}`, and that does not say where"
                                ),
                                format!("write `/{segment}` in its place in `servers.{name}.url`"),
                            ));
                        }
                        (uses.slots.iter().any(Slot::is_in_request), "--slot header:Authorization")
                    }
                    Reach::Command { .. } => {
                        let is_handed = !uses.slots.iter().all(Slot::is_in_request);
                        (is_handed || is_replaced(uses), "--slot env:NAME` or `--placeholder env:NAME")
                    }
                    // What an agent has written is handed no secret.
                    Reach::Builtin { .. } => (is_replaced(uses), "--placeholder env:NAME"),
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

    /// Whether each rule of a server's profile can be kept: one for requests inside TLS, where a secret is put in.
    fn check_rules(&self, config: &Config, name: &ServerName, server: &Server) -> anyhow::Result<()> {
        let profile = match &server.reach {
            Reach::Builtin { profile, .. } | Reach::Command { profile: Some(profile), .. } => profile,
            Reach::Command { profile: None, .. } | Reach::Url { .. } => return Ok(()),
        };
        let Some(profile) = config.profiles.get(profile) else { return Ok(()) };
        for rule in profile.net.iter().filter(|rule| rule.is_inside()) {
            let is_read = |known: &Known| {
                let mut hosts = known.uses.hosts.iter();
                server.secrets.iter().any(|secret| secret.as_str() == known.name)
                    && is_replaced(&known.uses)
                    && hosts.any(|host| host.host().parse().is_ok_and(|name| rule.covers(&name, host.port())))
            };
            if !self.known.iter().any(is_read) {
                return Err(hinted(
                    format!(
                        "the rule `{rule}` of `{name}` is for requests inside TLS, which are read only where a secret is put in"
                    ),
                    "give the server a secret with a placeholder and that host, or leave out methods and paths",
                ));
            }
        }
        Ok(())
    }
}
