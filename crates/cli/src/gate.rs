//! The gate, put together: store, servers, broker, fronts. `up`, `mcp` and `demo` are three ways to run it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;
use toolgate_broker::config::profiles::{Per, Profile};
use toolgate_broker::config::{Config, Reach, Server};
use toolgate_broker::connections::{Connections, Whose};
use toolgate_broker::home::Surroundings;
use toolgate_broker::identity::Roster;
use toolgate_broker::integrate::Publishing;
use toolgate_broker::person::People;
use toolgate_broker::pipeline::Broker;
use toolgate_broker::port::{Store as _, SystemClock};
use toolgate_broker::rulebook::Rulebook;
use toolgate_broker::store::SqliteStore;
use toolgate_core::digest::Digest;
use toolgate_core::name::ServerName;
use toolgate_gateway::catalog::Naming;
use toolgate_gateway::router::Router;
use toolgate_gateway::upstream::{
    Bounds, HttpServer, Launch, Observer, Oddity, ServerConfig, Transport, Upstreams,
};
use toolgate_ledger::Hash;
use toolgate_ledger::record::{Policy, PolicyAction, Start, Stop};
use toolgate_ledger::{VerifierKey, signer};
use toolgate_sandbox::egress::Event;
use toolgate_sandbox::image::Images;

use crate::doorkeeper::Doorkeeper;
use crate::place::{IMAGES, State, gate_line, read_pem};
use crate::setup::Setup;
use crate::vault::Vault;

/// The pipeline with real parts.
pub(crate) type RealBroker = Broker<SqliteStore, Upstreams, SystemClock>;

/// A gate that works.
pub(crate) struct Gate {
    pub(crate) broker: RealBroker,
    pub(crate) router: Arc<Router>,
    pub(crate) upstreams: Upstreams,
    pub(crate) doorkeeper: Arc<Doorkeeper>,
    /// The key that the log is signed with.
    pub(crate) log_key: VerifierKey,
    key: toolgate_broker::person::StateKey,
    /// Publishes the log. Where that fails for a while, no call is opened any more.
    publishing: Publishing,
    surroundings: Surroundings,
    images: Images,
    /// The vault, if there is one, and what is known of it.
    vault: std::sync::Mutex<Vault>,
    /// The servers as they were configured last.
    servers: std::sync::Mutex<BTreeMap<ServerName, Configured>>,
    /// How many calls a crash had left open.
    pub(crate) recovered: usize,
}

/// Tells an operator what servers do, and the log what their cells do on the network.
struct Logged {
    observer: Arc<dyn Observer>,
    connections: Connections<SqliteStore, SystemClock>,
}

impl Observer for Logged {
    fn odd(&self, server: &ServerName, what: Oddity, detail: &str) {
        self.observer.odd(server, what, detail);
    }

    fn network(&self, whose: Whose, events: mpsc::Receiver<Event>) {
        self.connections.watch(whose, events);
    }
}

impl Gate {
    /// Starts a gate. Everything is checked before anything is taken; what a crash left open is closed first.
    pub(crate) async fn start(
        surroundings: &Surroundings,
        state: State,
        setup: &Setup,
        observer: Arc<dyn Observer>,
    ) -> anyhow::Result<Self> {
        let config = &setup.config;
        let origin = state.origin(config)?;
        let State { folder, store, key } = state;
        let store = Arc::new(store);
        let vault = Vault::open(&folder, &store)?;
        vault.check(config)?;
        let rulebook = setup.rulebook(&store, &key)?.with_secrets(config, vault.known());
        let doorkeeper = Arc::new(Doorkeeper::new(config, &store.agents()?, Arc::new(SystemClock)).await?);
        let images = Images::new(folder.path().join(IMAGES));
        let servers = servers(surroundings, &images, config, &config.servers)?;
        let connections = Connections::new(Arc::clone(&store), SystemClock);
        let observer = Arc::new(Logged { observer, connections });
        let upstreams = Upstreams::new(servers, Arc::new(SystemClock), observer)?;
        if let Some(credentials) = vault.credentials() {
            upstreams.use_credentials(Arc::clone(credentials));
        }
        // A log that cannot be published now is no reason to begin.
        let publishing = Publishing::start(&store, &folder.log(), &folder.signer(), &origin)?;
        let log_key = signer::verifier_key(&folder.signer())?;
        let (policy, rules) = (rulebook.policy.digest(), rulebook.policy.rules().len());
        let broker = Broker::new(store, upstreams.clone(), SystemClock, rulebook);
        let recovered = broker.recover().await?;
        let router = Router::new(
            Arc::new(broker.clone()),
            Arc::new(upstreams.clone()),
            Arc::new(SystemClock),
            Naming { bare: config.gateway.bare.clone() },
        )?
        .with_max_sessions(config.gateway.max_sessions);
        let gate = Self {
            broker,
            router: Arc::new(router),
            upstreams,
            doorkeeper,
            log_key,
            key,
            publishing,
            surroundings: surroundings.clone(),
            images,
            vault: std::sync::Mutex::new(vault),
            servers: std::sync::Mutex::new(configured(config)),
            recovered,
        };
        let configuration = Digest::of("toolgate/configuration/v1", &[format!("{config:?}").as_bytes()]);
        let start = Start {
            configuration: Hash(*configuration.as_bytes()),
            origin: gate.log_key.name().to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        gate.store().append(gate_line(start)?).await?;
        gate.note_policy(PolicyAction::Loaded, policy, None, rules).await?;
        Ok(gate)
    }

    pub(crate) fn store(&self) -> &SqliteStore {
        self.broker.store()
    }

    /// Puts in force what configuration, policies and store say now; what is wrong leaves the old rules in force.
    /// `config` is what the setup was made of; where that could not be made, what was taken back is let go of all the same.
    pub(crate) async fn reload(
        &self,
        config: &Config,
        setup: anyhow::Result<Setup>,
    ) -> anyhow::Result<Reloaded> {
        let before = self.broker.rulebook().policy.digest();
        let store = self.store();
        let vault = self.follow_vault();
        let (setup, assembled) = match setup {
            Ok(setup) => {
                let rulebook = vault.and_then(|()| self.rulebook(&setup));
                let servers = rulebook.and_then(|rulebook| Ok((rulebook, self.take_servers(&setup.config)?)));
                (Some(setup), servers)
            }
            Err(error) => (None, Err(error)),
        };
        let (rulebook, servers) = match assembled {
            Ok(assembled) => assembled,
            Err(error) => {
                self.narrow(config, setup.as_ref());
                let read = setup.iter().flat_map(|setup| &setup.sources);
                let texts: Vec<&[u8]> = read.map(|source| source.text.as_bytes()).collect();
                let digest = Digest::of("toolgate/rejected-policy/v1", &texts);
                self.note_policy(PolicyAction::Rejected, digest, Some(before), 0).await?;
                return Err(error);
            }
        };
        let (after, rules) = (rulebook.policy.digest(), rulebook.policy.rules().len());
        if after != before {
            // Written down before it decides anything.
            self.note_policy(PolicyAction::Loaded, after, Some(before), rules).await?;
        }
        let config = setup.as_ref().map_or(config, |setup| &setup.config);
        self.let_in(Roster::new(config, &store.agents()?));
        self.broker.replace_rulebook(rulebook);
        self.router.rules_changed();
        Ok(Reloaded { rules: (after != before).then_some(rules), servers })
    }

    fn rulebook(&self, setup: &Setup) -> anyhow::Result<Rulebook> {
        let vault = self.vault.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        vault.check(&setup.config)?;
        Ok(setup.rulebook(self.store(), &self.key)?.with_secrets(&setup.config, vault.known()))
    }

    /// Takes up the vault as it was written last. What servers say passes it from then on, on connections of their own.
    fn follow_vault(&self) -> anyhow::Result<()> {
        let mut vault = self.vault.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_new = vault.follow(self.broker.store())?;
        let revoked = vault.look_at_leases(self.store())?;
        // Programs that were handed what is not good any more are started again.
        if let (true, Some(credentials)) = (is_new || revoked, vault.credentials()) {
            self.upstreams.use_credentials(Arc::clone(credentials));
        }
        Ok(())
    }

    /// Reaches servers as they are configured now, and gives those that are new, otherwise or gone. Rules about them come
    /// into force after this: a call to a server that is new has somewhere to go.
    fn take_servers(&self, config: &Config) -> anyhow::Result<Vec<ServerName>> {
        let now = configured(config);
        let mut before = self.servers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let other: Vec<_> = now.iter().filter(|(name, server)| before.get(*name) != Some(server)).collect();
        let gone: Vec<_> = before.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
        let changed = other.iter().map(|(name, _)| *name).chain(&gone).cloned().collect();
        let other = other.into_iter().map(|(name, (server, _))| (name, server));
        self.upstreams.replace(servers(&self.surroundings, &self.images, config, other)?, &gone)?;
        *before = now;
        Ok(changed)
    }

    /// Lets go of what the store took back: agents' tokens, tools, people. A policy that names what is gone does not load,
    /// and that must not keep it alive. What cannot be read counts as taken back.
    fn narrow(&self, config: &Config, setup: Option<&Setup>) {
        let store = self.store();
        self.let_in(self.doorkeeper.roster().narrowed(&store.agents().unwrap_or_default()));
        let rows = store.persons().unwrap_or_default();
        let people = People::from_rows(&rows, self.key.clone());
        let people = people.unwrap_or_else(|_damaged| People::new([], self.key.clone()));
        let before = self.broker.rulebook();
        let pins = setup.map_or_else(|| Ok(store.pins()?), |setup| setup.pins(store)).unwrap_or_default();
        let vault = self.vault.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let narrowed = toolgate_broker::assemble::narrowed(&before, config, &pins, people);
        self.broker.replace_rulebook(narrowed.with_secrets(config, vault.known()));
        self.router.rules_changed();
    }

    /// Lets nobody in but who is on this roster, and ends what others still have open.
    fn let_in(&self, roster: Roster) {
        let put_out = self.doorkeeper.replace(roster);
        if !put_out.is_empty() {
            self.router.sessions().put_out(&put_out);
        }
    }

    async fn note_policy(
        &self,
        action: PolicyAction,
        digest: Digest,
        previous: Option<Digest>,
        rules: usize,
    ) -> anyhow::Result<()> {
        let record = Policy {
            action,
            digest: Hash(*digest.as_bytes()),
            previous: previous.map(|digest| Hash(*digest.as_bytes())),
            rules: u32::try_from(rules).unwrap_or(u32::MAX),
        };
        self.store().append(gate_line(record)?).await?;
        Ok(())
    }

    /// Stops in order: no new calls, the running ones to their end, the servers, the log.
    pub(crate) async fn stop(self, reason: &str) -> anyhow::Result<()> {
        let store = Arc::clone(self.broker.store());
        self.router.shut_down();
        self.upstreams.shutdown().await;
        self.vault.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).close().await;
        store.append(gate_line(Stop { reason: reason.to_owned() })?).await?;
        // Its end waits for the last publication.
        let publishing = self.publishing;
        tokio::task::spawn_blocking(move || drop(publishing)).await?;
        Ok(())
    }
}

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// How many rules the new policy has, if it is another.
    pub(crate) rules: Option<usize>,
    /// The servers that are new, reached otherwise, or gone.
    pub(crate) servers: Vec<ServerName>,
}

/// A server, and what its cell is given.
type Configured = (Server, Option<Profile>);

fn configured(config: &Config) -> BTreeMap<ServerName, Configured> {
    let profile = |server: &Server| match &server.reach {
        Reach::Builtin { profile, .. } => config.profiles.get(profile).cloned(),
        Reach::Command { profile, .. } => config.profiles.get(profile.as_ref()?).cloned(),
        Reach::Url { .. } => None,
    };
    config.servers.iter().map(|(name, server)| (name.clone(), (server.clone(), profile(server)))).collect()
}

/// Configured servers with their values, as the upstream leg needs them.
pub(crate) fn servers<'c>(
    surroundings: &Surroundings,
    images: &Images,
    config: &Config,
    servers: impl IntoIterator<Item = (&'c ServerName, &'c Server)>,
) -> anyhow::Result<Vec<ServerConfig>> {
    let all = servers.into_iter().map(|(name, server)| {
        self::server(surroundings, images, config, name, server)
            .with_context(|| format!("server `{name}` cannot be used"))
    });
    all.collect()
}

fn server(
    surroundings: &Surroundings,
    images: &Images,
    config: &Config,
    name: &ServerName,
    server: &Server,
) -> anyhow::Result<ServerConfig> {
    let mut per = Per::default();
    let transport = match &server.reach {
        Reach::Builtin { builtin, profile, workspace } => {
            let profile = crate::profile::find(config, profile.as_str())?;
            let mut profile = crate::profile::resolved(surroundings, images, profile)?;
            profile.workspace.clone_from(workspace);
            // No call of it can take longer.
            let most = u64::try_from(server.call_timeout.as_millis()).unwrap_or(u64::MAX);
            profile.limits.wall_ms = profile.limits.wall_ms.min(most);
            Transport::Builtin(*builtin, Box::new(profile))
        }
        Reach::Command { program, arguments, env, folder, profile } => {
            let mut all = BTreeMap::new();
            let cell = match profile {
                Some(profile) => {
                    let profile = crate::profile::find(config, profile.as_str())?;
                    per = profile.per;
                    Some(Box::new(crate::profile::resolved(surroundings, images, profile)?))
                }
                None => {
                    let usual = |name: &str| surroundings.variables.get(name).cloned();
                    let usual = ["PATH", "HOME", "LANG"].map(|name| Some((name.to_owned(), usual(name)?)));
                    all.extend(usual.into_iter().flatten());
                    None
                }
            };
            for (name, value) in env {
                all.insert(name.clone(), surroundings.value(value)?.to_string());
            }
            Transport::Stdio(Launch {
                program: program.into(),
                args: arguments.iter().map(Into::into).collect(),
                env: all.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                cwd: folder.clone(),
                cell,
            })
        }
        Reach::Url { url, headers, ca } => {
            let mut all = Vec::new();
            for (name, value) in headers {
                all.push((name.clone(), surroundings.value(value)?.to_string()));
            }
            let server = HttpServer::new(url, &all)?;
            Transport::Http(match ca {
                Some(path) => server
                    .trusting(&read_pem(path)?)
                    .with_context(|| format!("`{}` cannot be used", path.display()))?,
                None => server,
            })
        }
    };
    let bounds = Bounds {
        max_message_bytes: server.max_result_bytes.max(1 << 20),
        handshake: server.start_timeout,
        probe: Bounds::default().probe.min(server.start_timeout),
        ..Bounds::default()
    };
    let secrets = server.secrets.iter().map(ToString::to_string).collect();
    let believed = server.believed.as_deref().map(read_pem).transpose()?.map(Arc::from);
    Ok(ServerConfig { per, bounds, secrets, believed, ..ServerConfig::new(name.clone(), transport) })
}

/// What has to change for the files to be read again: names, times and lengths.
pub(crate) fn fingerprint(config: &Path, policies: &Path) -> Vec<(std::path::PathBuf, u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt as _;
    let listed = std::fs::read_dir(policies).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = std::iter::once(config.to_owned())
        .chain(listed)
        .filter_map(|path| {
            let meta = std::fs::metadata(&path).ok()?;
            Some((path, meta.len(), meta.mtime(), meta.mtime_nsec()))
        })
        .collect();
    files.sort();
    files
}
