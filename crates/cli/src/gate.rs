//! The gate, put together: store, servers, broker, fronts. `up`, `mcp` and `demo` are three ways to run it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use toolgate_broker::config::{Config, KeySource, Reach, Server};
use toolgate_broker::home::Surroundings;
use toolgate_broker::identity::{IdentityError, JwtError, KeySet, Roster, Verifier};
use toolgate_broker::integrate::Publishing;
use toolgate_broker::person::People;
use toolgate_broker::pipeline::Broker;
use toolgate_broker::port::{BoxFuture, Store as _, SystemClock};
use toolgate_broker::rulebook::Rulebook;
use toolgate_broker::store::SqliteStore;
use toolgate_core::call::Agent;
use toolgate_core::digest::Digest;
use toolgate_core::name::{AgentId, ServerName};
use toolgate_core::policy::PolicySource;
use toolgate_gateway::catalog::Naming;
use toolgate_gateway::port::{Identify, IdentifyError};
use toolgate_gateway::router::Router;
use toolgate_gateway::upstream::fetch::Remote;
use toolgate_gateway::upstream::{Bounds, HttpServer, Launch, Observer, ServerConfig, Transport, Upstreams};
use toolgate_ledger::Hash;
use toolgate_ledger::record::{Policy, PolicyAction, Start, Stop};
use toolgate_ledger::{VerifierKey, signer};

use crate::out::{hinted, note};
use crate::place::{State, gate_line, now_ms};
use crate::rules;

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
    /// How many calls a crash had left open.
    pub(crate) recovered: usize,
}

impl Gate {
    /// Starts a gate. Everything is checked before anything is taken; what a crash left open is closed first.
    pub(crate) async fn start(
        surroundings: &Surroundings,
        state: State,
        config: &Config,
        sources: &[PolicySource],
        observer: Arc<dyn Observer>,
    ) -> anyhow::Result<Self> {
        let rulebook = rules::rulebook(config, &state, sources)?;
        let doorkeeper = Arc::new(Doorkeeper::new(config, &state.store).await?);
        let servers = servers(surroundings, config)?;
        let upstreams = Upstreams::new(servers, Arc::new(SystemClock), observer)?;
        let origin = state.origin(config)?;
        let State { folder, store, key } = state;
        let store = Arc::new(store);
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
    pub(crate) async fn reload(
        &self,
        config: &Config,
        sources: anyhow::Result<Vec<PolicySource>>,
    ) -> anyhow::Result<Reloaded> {
        let before = self.broker.rulebook().policy.digest();
        let (read, assembled) = match sources {
            Ok(sources) => {
                let assembled = self.assemble(config, &sources);
                (sources, assembled)
            }
            Err(error) => (Vec::new(), Err(error)),
        };
        let rulebook = match assembled {
            Ok(rulebook) => rulebook,
            Err(error) => {
                self.narrow(config);
                let texts: Vec<&[u8]> = read.iter().map(|source| source.text.as_bytes()).collect();
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
        self.let_in(Roster::new(config, &self.store().agents()?));
        self.broker.replace_rulebook(rulebook);
        self.router.rules_changed();
        Ok(if after == before { Reloaded::SamePolicy } else { Reloaded::NewPolicy { rules } })
    }

    fn assemble(&self, config: &Config, sources: &[PolicySource]) -> anyhow::Result<Rulebook> {
        let store = self.store();
        let people = People::from_rows(&store.persons()?, self.key.clone())?;
        let (agents, pins) = (store.agents()?, store.pins()?);
        Ok(toolgate_broker::assemble::rulebook(config, &agents, &pins, people, sources)?)
    }

    /// Lets go of what the store took back: agents' tokens, tools, people. A policy that names what is gone does not load,
    /// and that must not keep it alive. What cannot be read counts as taken back.
    fn narrow(&self, config: &Config) {
        let store = self.store();
        self.let_in(self.doorkeeper.roster().narrowed(&store.agents().unwrap_or_default()));
        let rows = store.persons().unwrap_or_default();
        let people = People::from_rows(&rows, self.key.clone());
        let people = people.unwrap_or_else(|_damaged| People::new([], self.key.clone()));
        let before = self.broker.rulebook();
        let pins = store.pins().unwrap_or_default();
        self.broker.replace_rulebook(toolgate_broker::assemble::narrowed(&before, config, &pins, people));
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
        self.router.shut_down();
        self.upstreams.shutdown().await;
        self.store().append(gate_line(Stop { reason: reason.to_owned() })?).await?;
        // Its end waits for the last publication.
        let publishing = self.publishing;
        tokio::task::spawn_blocking(move || drop(publishing)).await?;
        Ok(())
    }
}

/// What a reload came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reloaded {
    NewPolicy { rules: usize },
    SamePolicy,
}

/// Says who an agent is.
pub(crate) struct Doorkeeper {
    roster: std::sync::RwLock<Arc<Roster>>,
    verifier: Option<Verifier>,
    /// Where the verifier's keys come from, if not from a file.
    keys: Option<Remote>,
}

impl Doorkeeper {
    async fn new(config: &Config, store: &SqliteStore) -> anyhow::Result<Self> {
        let roster = std::sync::RwLock::new(Arc::new(Roster::new(config, &store.agents()?)));
        let Some(oauth) = &config.oauth else {
            return Ok(Self { roster, verifier: None, keys: None });
        };
        let (set, keys) = match &oauth.keys {
            KeySource::File(path) => {
                let bytes =
                    std::fs::read(path).with_context(|| format!("could not read `{}`", path.display()))?;
                let set =
                    KeySet::parse(&bytes).with_context(|| format!("`{}` cannot be used", path.display()))?;
                (set, None)
            }
            KeySource::Url(url) => {
                let hint = "check `jwks_url`, or save the key set into a file and say `jwks_file = \"…\"`";
                let why = |why: String| hinted(format!("no keys from `{url}`: {why}"), hint);
                let remote = Remote::new(url).map_err(|error| why(error.to_string()))?;
                (fetch_keys(&remote).await.map_err(why)?, Some(remote))
            }
        };
        Ok(Self { roster, verifier: Some(Verifier::new(oauth, set, now_ms())), keys })
    }

    fn recognize(&self, token: &str) -> Result<Arc<Agent>, IdentityError> {
        let header = format!("Bearer {token}");
        self.roster().authorization(Some(&header), self.verifier.as_ref(), now_ms() / 1000)
    }

    /// Recognizes an agent by its token. A key that is not known may be a new one of the issuer: its keys are fetched
    /// anew then, but not often, so that nobody can have them fetched at will.
    async fn recognize_or_fetch(&self, token: &str) -> Result<Arc<Agent>, IdentifyError> {
        let mut found = self.recognize(token);
        if let (Err(IdentityError::AccessToken(JwtError::UnknownKey)), Some(verifier), Some(keys)) =
            (&found, &self.verifier, &self.keys)
            && verifier.may_refresh(now_ms())
        {
            match fetch_keys(keys).await {
                Ok(set) => verifier.replace_keys(set),
                Err(why) => {
                    note(format_args!("the issuer's keys could not be fetched anew: {why}"));
                    return Err(IdentifyError::Unavailable);
                }
            }
            found = self.recognize(token);
        }
        found.map_err(|error| match error {
            IdentityError::InsufficientScope(scope) => IdentifyError::InsufficientScope { scope },
            IdentityError::AccessToken(_)
            | IdentityError::Malformed
            | IdentityError::Missing
            | IdentityError::Mistyped
            | IdentityError::NotAToken
            | IdentityError::UnknownPeer { .. }
            | IdentityError::UnknownSubject
            | IdentityError::UnknownToken => IdentifyError::Invalid,
        })
    }

    /// Gives the agents that came in before and would not now, or not as the same.
    fn replace(&self, roster: Roster) -> std::collections::BTreeSet<AgentId> {
        let mut now = self.roster.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let put_out = now.put_out(&roster);
        *now = Arc::new(roster);
        put_out
    }

    fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

async fn fetch_keys(remote: &Remote) -> Result<KeySet, String> {
    let bytes = remote.fetch().await.map_err(|error| error.to_string())?;
    KeySet::parse(&bytes).map_err(|error| error.to_string())
}

impl Identify for Doorkeeper {
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<Agent>, IdentifyError>> {
        Box::pin(self.recognize_or_fetch(token))
    }

    fn peer(&self, uid: u32) -> Option<Arc<Agent>> {
        self.roster().peer(uid).ok()
    }
}

/// The configured servers with their values, as the upstream leg needs them.
pub(crate) fn servers(surroundings: &Surroundings, config: &Config) -> anyhow::Result<Vec<ServerConfig>> {
    let all = config.servers.iter().map(|(name, server)| {
        self::server(surroundings, name, server).with_context(|| format!("server `{name}` cannot be used"))
    });
    all.collect()
}

fn server(surroundings: &Surroundings, name: &ServerName, server: &Server) -> anyhow::Result<ServerConfig> {
    let transport = match &server.reach {
        Reach::Command { program, arguments, env, folder } => {
            let mut all: std::collections::BTreeMap<String, String> = ["PATH", "HOME", "LANG"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), surroundings.variables.get(name)?.clone())))
                .collect();
            for (name, value) in env {
                all.insert(name.clone(), surroundings.value(value)?.to_string());
            }
            Transport::Stdio(Launch {
                program: program.into(),
                args: arguments.iter().map(Into::into).collect(),
                env: all.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                cwd: folder.clone(),
            })
        }
        Reach::Url { url, headers } => {
            let mut all = Vec::new();
            for (name, value) in headers {
                all.push((name.clone(), surroundings.value(value)?.to_string()));
            }
            Transport::Http(HttpServer::new(url, &all)?)
        }
    };
    let bounds = Bounds {
        max_message_bytes: server.max_result_bytes.max(1 << 20),
        handshake: server.start_timeout,
        probe: Bounds::default().probe.min(server.start_timeout),
        ..Bounds::default()
    };
    Ok(ServerConfig { bounds, ..ServerConfig::new(name.clone(), transport) })
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
