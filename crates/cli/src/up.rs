//! `toolgate up` and `toolgate mcp`: the gate, over the network and over pipes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use toolgate_broker::config::{Config, Gateway, Reach};
use toolgate_broker::demo;
use toolgate_broker::home::{make_private, write_new};
use toolgate_broker::identity::Roster;
use toolgate_broker::port::Store as _;
use toolgate_broker::store::SqliteStore;
use toolgate_core::name::{AgentId, PersonName, ServerName};
use toolgate_core::policy::{DEMO, PolicySource};
use toolgate_gateway::front::guard::Names;
use toolgate_gateway::front::http::{Front, OAuth, Settings};
use toolgate_gateway::front::stdio;
use toolgate_gateway::port::Identify as _;
use toolgate_gateway::upstream::{Observer, Oddity};
use zeroize::Zeroizing;

use crate::args;
use crate::gate::{self, Gate, Reloaded};
use crate::log::{self, Placed};
use crate::out::{self, Paint, count, hinted, line, note};
use crate::place::{Place, State};
use crate::setup::Setup;
use crate::{agent, rules};

/// How often the files and the log are looked at: the store says at once what somebody waits for, but not each call.
const LOOK: Duration = Duration::from_millis(250);

/// How long connections may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// The agent that a first start makes.
const FIRST_AGENT: &str = "claude-code";

/// What a first start writes.
pub(crate) const FIRST_CONFIG: &str = "\
# The configuration of Toolgate. `toolgate doctor` says what is covered and what is not;
# `toolgate init` shows which MCP servers you could put behind the gate.

[gateway]
listen = \"127.0.0.1:7420\"

# [servers.files]
# command = [\"mcp-server-filesystem\", \"/srv/files\"]
# profile = \"files\"
#
# [profiles.files]
# write = [\"/srv/files\"]
#
# [tools.\"files/read_file\"]
# effects = [\"read\"]

# Who is asked when a rule says `@ask(\"owner\")`. Enrol yourself: `toolgate person add owner`.
[questions.owner]
people = [\"owner\"]
wait = \"2m\"
expires = \"1h\"
";

/// What is said where the demo is open.
const DEMO_IS_OPEN: &str = "\
No agent is registered yet, so whoever connects from this machine is the agent `demo`. It has the tools of a made-up
office and nothing else; its calls are judged and logged like any other. Ask Claude Code, for instance, to
`read the document invoice-0815 and pay it`, and see the calls here.

Then your own: `toolgate init` puts your servers behind the gate, `toolgate agent add NAME` registers an agent. That
closes the demo; so does `demo = false` in `[gateway]`.
";

/// Tells the operator what servers do.
struct Watcher;

impl Observer for Watcher {
    fn odd(&self, server: &ServerName, what: Oddity, detail: &str) {
        let what = match what {
            Oddity::ConnectionClosed | Oddity::Opened | Oddity::DroppedNotice => return,
            Oddity::ConnectionLost => "the connection is lost",
            Oddity::Malformed => "sent what is no message",
            Oddity::NotStarted => "there is no cell for its call",
            Oddity::RefusedRequest => "asked for what it may not",
            Oddity::StrayAnswer => "answered what nobody asked",
            Oddity::ToolChanged => "changed a tool, which is refused until `toolgate tool accept`",
        };
        note(format_args!("server `{server}`: {what}: {detail}"));
    }
}

pub(crate) fn run(place: &Place, up: &args::Up) -> anyhow::Result<()> {
    runtime()?.block_on(serve(place, up))
}

/// What the gate runs on.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // As many descriptors as it may have: cells with a way out take up to 128 each. Where that is refused, there are as many as before.
    let most = getrlimit(Resource::Nofile).maximum;
    let _as_before = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// What the files look like from outside, to notice changes.
type Fingerprint = Vec<(PathBuf, u64, i64, i64)>;

fn fingerprint(place: &Place) -> Fingerprint {
    gate::fingerprint(&place.home.config, &place.home.policies())
}

/// Writes the first configuration and policy.
pub(crate) fn write_first(place: &Place) -> anyhow::Result<()> {
    make_private(&place.home.policies())?;
    for (name, text) in [rules::STARTER, rules::STARTER_EXAMPLES] {
        let path = place.home.policies().join(name);
        if !path.exists() {
            write_new(&path, text.as_bytes())?;
        }
    }
    write_new(&place.home.config, FIRST_CONFIG.as_bytes())?;
    note(format_args!(
        "Wrote {} and a policy to start from in {}",
        place.home.config.display(),
        place.home.policies().display()
    ));
    Ok(())
}

async fn serve(place: &Place, up: &args::Up) -> anyhow::Result<()> {
    if place.home.load(&place.surroundings)?.is_none() {
        write_first(place)?;
    }
    // Before anything is read: what changes from now on is a change.
    let seen = fingerprint(place);
    let config = place.config()?;
    let state = place.open_or_make()?;
    let listen = up.listen.unwrap_or(config.gateway.listen);
    if up.listen.is_some() && !listen.ip().is_loopback() && !config.gateway.listen.ip().eq(&listen.ip()) {
        return Err(hinted(
            format!("`{listen}` can be reached from other machines"),
            "set it in the configuration, where `danger_plain_http = true` says that you mean it",
        ));
    }
    let managed = managed(&state.store)?;
    let setup = Setup::new(config.clone(), sources(place)?, &state.store.agents()?)?;
    // Before anything is written down: a gate that does not come up leaves no line, and makes no token.
    let listener = TcpListener::bind(listen).await.map_err(|source| {
        hinted(
            format!("could not listen on {listen}: {source}"),
            "is another gate running? `--listen 127.0.0.1:0` takes a free port",
        )
    })?;
    let listen = listener.local_addr()?;
    let socket = config.gateway.socket.clone().unwrap_or_else(|| place.home.socket.clone());
    let (unix, socket) = listen_unix(&socket)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let gate = start(place, state, &setup).await?;
    let mut watch = Watch::new(config.clone(), setup.demo, seen, managed);
    let first = first_agent(place, &gate, &config).await?;
    if first.is_some() {
        // It is let in before its token is shown.
        watch.store_changed(place, &gate).await;
    }
    let mut reader = Reader::default();
    reader.show(|| {
        greet(place, &setup, listen, &socket.0, first.as_ref().map(|token| token.as_str()), &gate)
    })?;

    let mut next = gate.store().size()?;
    let front =
        Front::new(Arc::clone(&gate.router), Arc::clone(&gate.doorkeeper) as Arc<_>, settings(&config));
    let mut serving = Box::pin(async {
        tokio::join!(Arc::clone(&front).serve_tcp(listener), Arc::clone(&front).serve_unix(unix))
    });
    let router = Arc::clone(&gate.router);
    let housekeeping = tokio::spawn(async move { router.housekeep().await });

    let mut changes = gate.store().changes();
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = &mut serving => break,
            changed = changes.changed() => {
                changed.context("the store has stopped")?;
                watch.store_changed(place, &gate).await;
            }
            _ = tick.tick() => watch.look(place, &gate).await,
        }
        reader.show(|| {
            next = print_calls(&gate, next, place.json)?;
            Ok(())
        })?;
    }
    note("Stopping: running calls go on to their end.");
    drop(socket);
    gate.router.shut_down();
    let _ended = tokio::time::timeout(GRACE, async { tokio::join!(serving, housekeeping) }).await;
    gate.stop("signal").await
}

/// Starts the gate; what is wrong with the rules is shown where it is wrong.
async fn start(place: &Place, state: State, setup: &Setup) -> anyhow::Result<Gate> {
    let gate = Gate::start(&place.surroundings, state, setup, Arc::new(Watcher)).await;
    if let Err(error) = &gate {
        rules::explain_errors(error);
    }
    gate
}

fn settings(config: &Config) -> Settings {
    let oauth = config.oauth.as_ref().map(|oauth| OAuth {
        resource: oauth.audience.clone(),
        authorization_servers: vec![oauth.issuer.clone()],
        scopes: oauth.required_scopes.iter().chain(oauth.group_scopes.keys()).cloned().collect(),
    });
    Settings {
        names: Names {
            hosts: config.gateway.allowed_hosts.iter().cloned().collect(),
            origins: config.gateway.allowed_origins.iter().cloned().collect(),
        },
        max_body: config.gateway.max_message_bytes,
        max_connections: config.gateway.max_connections,
        oauth,
        ..Settings::default()
    }
}

/// Who reads standard output. When nobody does any more (`toolgate up | head`), the gate goes on without printing.
#[derive(Default)]
struct Reader {
    gone: bool,
}

impl Reader {
    fn show(&mut self, print: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        if self.gone {
            return Ok(());
        }
        match print() {
            Err(error) if out::is_broken_pipe(&error) => {
                self.gone = true;
                note("Nobody reads standard output any more: the gate goes on, and prints no more calls.");
                Ok(())
            }
            printed => printed,
        }
    }
}

/// The file of the Unix socket, which is gone with the gate.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

/// Listens on the Unix socket. One that a dead gate left behind is removed; one that answers is somebody else's.
fn listen_unix(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    if let Some(folder) = path.parent() {
        make_private(folder)?;
    }
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(hinted(
                format!("another gate listens on `{}`", path.display()),
                "stop it, or set `socket` in `[gateway]`",
            ));
        }
        fs::remove_file(path)
            .with_context(|| format!("could not remove the old socket `{}`", path.display()))?;
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("could not listen on `{}`", path.display()))?;
    let file = SocketFile(path.to_owned());
    // Whoever the folder lets in may connect, and it lets in nobody else unless it was made so; who they are, the kernel
    // says.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok((listener, file))
}

/// Where no agent is registered, adds one, so that there is a line to paste; unless the demo is open, which needs no token.
async fn first_agent(
    place: &Place,
    gate: &Gate,
    config: &Config,
) -> anyhow::Result<Option<Zeroizing<String>>> {
    let agents = gate.store().agents()?;
    let registered = !agents.is_empty() || !config.agents.is_empty() || config.oauth.is_some();
    if registered || demo::is_open(config, &agents) {
        return Ok(None);
    }
    let name: AgentId = FIRST_AGENT.parse()?;
    Ok(Some(agent::add(place, gate.store(), &name, Vec::new()).await?))
}

fn greet(
    place: &Place,
    setup: &Setup,
    listen: std::net::SocketAddr,
    socket: &Path,
    token: Option<&str>,
    gate: &Gate,
) -> anyhow::Result<()> {
    let url = format!("http://{listen}/mcp");
    let rulebook = gate.broker.rulebook();
    let ((rules, of_demo), tools) = (rules::counts(&rulebook.policy), rulebook.tools.len());
    if place.json {
        return out::json(&json!({
            "event": "up", "url": url, "socket": socket, "configuration": place.home.config, "state": place.home.state,
            "rules": rules, "tools": tools, "servers": setup.config.servers.len(), "demo": setup.demo,
            "agent": token.map(|_| FIRST_AGENT), "token": token,
        }));
    }
    let paint = Paint::out();
    line(format_args!("{} at {}", paint.bold("The gate is up"), paint.bold(&url)))?;
    line(format_args!("  socket         {}", socket.display()))?;
    line(format_args!("  configuration  {}", place.home.config.display()))?;
    line(format_args!("  policy         {} in {}", count(rules, "rule"), place.home.policies().display()))?;
    if setup.demo {
        line(format_args!("                 {} of the demo", count(of_demo, "rule")))?;
    }
    if setup.demo {
        line(format_args!("  tools          the {tools} of the demo, a made-up office"))?;
    } else {
        let servers = count(setup.config.servers.len(), "server");
        line(format_args!("  tools          {tools} accepted, from {servers}"))?;
    }
    if gate.recovered > 0 {
        line(format_args!(
            "  {} without an outcome when the gate stopped last; what became of that is not known",
            count(gate.recovered, "call")
        ))?;
    }
    match token {
        Some(token) => {
            line("\nFor Claude Code, paste this once (the token is not shown again):\n")?;
            line(format_args!("  {}\n", agent::claude_line(&url, Some(token))))?;
        }
        None if setup.demo => {
            line("\nFor Claude Code, paste this:\n")?;
            line(format_args!("  {}\n", agent::claude_line(&url, None)))?;
            line(DEMO_IS_OPEN)?;
        }
        None => line("\n`toolgate agent add NAME` adds an agent and prints the line to paste for it.\n")?,
    }
    if setup.config.servers.is_empty() {
        line(
            "No servers yet: `toolgate init` shows those you have; `toolgate demo` shows what the gate does.\n",
        )?;
    } else if tools == 0 {
        line("No tools are accepted yet: `toolgate tool review` shows what the servers offer.\n")?;
    }
    for server in setup.config.servers.keys().filter(|server| in_no_cell(&setup.config, server)) {
        note(paint.red(said_of_no_cell(server)));
    }
    for name in setup.config.unscrubbed() {
        note(paint.red(said_of_unscrubbed(&name)));
    }
    // That no tool is accepted yet is said above.
    for warning in rules::warnings(&rulebook).filter(|_| tools > 0) {
        note(format_args!("{} {warning}", paint.yellow("warning:")));
    }
    Ok(())
}

/// Whether a server is a program that runs in no cell.
fn in_no_cell(config: &Config, server: &ServerName) -> bool {
    let server = config.servers.get(server).map(|server| &server.reach);
    matches!(server, Some(Reach::Command { profile: None, .. }))
}

fn said_of_no_cell(server: &ServerName) -> String {
    format!("SERVER `{server}` RUNS IN NO CELL: it can read and change your files, and reach your network.")
}

fn said_of_unscrubbed(name: &str) -> String {
    format!("NOTHING IS TAKEN OUT of what `{name}` says (`scrub = []`): secrets in it reach agents.")
}

/// How many new records are shown one by one. Of more, those about calls that were permitted and answered are counted.
const MANY: u64 = 256;

/// One line for each new record about a call.
fn print_calls(gate: &Gate, from: u64, json: bool) -> anyhow::Result<u64> {
    use toolgate_ledger::record::Body;
    let paint = Paint::out();
    let many = !json && gate.store().size()?.saturating_sub(from) > MANY;
    let mut calls = 0_u64;
    let next = log::each_leaf_in(gate.store(), from, |index, leaf| {
        let intent = has(&leaf, INTENT);
        if many && (intent || has(&leaf, ANSWERED)) {
            calls += u64::from(intent);
            return Ok(true);
        }
        let placed = Placed::read(index, leaf)?;
        let shown = match &placed.record.body {
            Body::Intent(_)
            | Body::Refusal(_)
            | Body::QuestionAsked(_)
            | Body::QuestionAnswered(_)
            | Body::OutcomeUnknown(_) => true,
            Body::Outcome(outcome) => outcome.status != toolgate_ledger::record::Status::Answered,
            _ => false,
        };
        if shown {
            if json {
                out::json(&placed.json())?
            } else {
                line(log::one_line(&placed, paint))?
            }
            if let (Body::QuestionAsked(question), false) = (&placed.record.body, json) {
                line(format_args!(
                    "        answer with `toolgate approve {0}` or `toolgate deny {0}`",
                    question.question
                ))?;
                if let Some(person) = nobody_enrolled(gate, &question.topic)? {
                    line(format_args!("        nobody is enrolled: `toolgate person add {person}`"))?;
                }
            }
        }
        Ok(true)
    })?;
    if calls > 0 {
        line(format_args!("        … and {calls} calls more; `toolgate log tail` shows each"))?;
    }
    Ok(next)
}

/// Ends of records, before the time: the members are in the order of their names, and no text can hold their quotes.
const INTENT: &[u8] = br#"},"kind":"intent","#;
const ANSWERED: &[u8] = br#""status":"answered"},"kind":"outcome","#;

fn has(leaf: &[u8], end: &[u8]) -> bool {
    leaf.windows(end.len()).rev().take(100).any(|part| part == end)
}

/// One of those who are asked, where none of them is enrolled.
fn nobody_enrolled(gate: &Gate, question: &str) -> anyhow::Result<Option<PersonName>> {
    let rulebook = gate.broker.rulebook();
    let asked = rulebook.questions.iter().find(|(name, _)| name.as_str() == question);
    let Some((_, rules)) = asked else { return Ok(None) };
    let enrolled = gate.store().persons()?.iter().any(|row| rules.people.contains(&row.name));
    Ok(rules.people.first().filter(|_| !enrolled).cloned())
}

/// What was read last, to notice changes.
struct Watch {
    /// As it is in force. What is read only at the start is as it was then.
    config: Config,
    /// Whether the demo is open. Once it is closed it stays so.
    demo: bool,
    seen: Fingerprint,
    managed: String,
    /// What kept calls from being taken when it was last looked at.
    trouble: Option<String>,
}

impl Watch {
    const fn new(config: Config, demo: bool, seen: Fingerprint, managed: String) -> Self {
        Self { config, demo, seen, managed, trouble: None }
    }

    /// Reads the files again if they changed. What is wrong stays outside, loudly.
    async fn look(&mut self, place: &Place, gate: &Gate) {
        let trouble = gate.store().trouble();
        if trouble != self.trouble {
            match &trouble {
                Some(why) => note(format_args!("CALLS ARE REFUSED: {why}")),
                None => note("Calls are taken again."),
            }
            self.trouble = trouble;
        }
        let now = fingerprint(place);
        if now == self.seen {
            return;
        }
        self.seen = now;
        if let Err(error) = self.read(place, gate).await {
            let paint = Paint::for_terminal(std::io::IsTerminal::is_terminal(&std::io::stderr()));
            note(paint.red("THE CHANGE IS NOT IN FORCE: what was in force before stays in force."));
            rules::explain_errors(&error);
            out::report(&error);
        }
    }

    async fn read(&mut self, place: &Place, gate: &Gate) -> anyhow::Result<()> {
        let written = place.config()?;
        let config = as_at_start(&self.config, &written);
        let reloaded = self.reload(place, gate, config.clone()).await?;
        match reloaded.rules {
            Some(rules) => note(format_args!("The new policy is in force: {}.", count(rules, "rule"))),
            None => note("The change is in force."),
        }
        for server in reloaded.servers.iter().filter(|server| server.as_str() != DEMO) {
            let word = match (self.config.servers.contains_key(server), config.servers.contains_key(server)) {
                (false, _) => "is there now: `toolgate tool review` shows what it offers",
                (true, true) => "is reached otherwise from now on",
                (true, false) => "is gone",
            };
            note(format_args!("Server `{server}` {word}."));
            if in_no_cell(&config, server) {
                note(said_of_no_cell(server));
            }
        }
        for name in config.unscrubbed().difference(&self.config.unscrubbed()) {
            note(said_of_unscrubbed(name));
        }
        let waiting = waiting_for_restart(&config, &written);
        if !waiting.is_empty() {
            let paint = Paint::for_terminal(std::io::IsTerminal::is_terminal(&std::io::stderr()));
            note(paint.red(format_args!(
                "NOT IN FORCE YET: {}. What it says is read at the start: stop the gate and start it again.",
                waiting.join(" and ")
            )));
        }
        self.config = config;
        Ok(())
    }

    /// Takes up agents, people and accepted tools that another command changed.
    async fn store_changed(&mut self, place: &Place, gate: &Gate) {
        let now = match managed(gate.store()) {
            Ok(now) => now,
            Err(error) => return out::report(&error),
        };
        if now == self.managed {
            return;
        }
        self.managed = now;
        if let Err(error) = self.reload(place, gate, self.config.clone()).await {
            rules::explain_errors(&error);
            out::report(&error);
        }
    }

    async fn reload(&mut self, place: &Place, gate: &Gate, config: Config) -> anyhow::Result<Reloaded> {
        let open = self.demo && demo::is_open(&config, &gate.store().agents()?);
        if self.demo && !open {
            note("The demo is over: whoever connects now has to be a registered agent.");
        }
        self.demo = open;
        let setup = sources(place).and_then(|sources| match open {
            true => Setup::with_demo(config.clone(), sources),
            false => Ok(Setup::without_demo(config.clone(), sources)),
        });
        gate.reload(&config, setup).await
    }
}

/// What other commands change in the store, to notice that they did.
fn managed(store: &SqliteStore) -> anyhow::Result<String> {
    let pins: Vec<_> = store.pins()?.into_iter().map(|pin| (pin.tool, pin.digest, pin.effects)).collect();
    let people: Vec<_> = store.persons()?.into_iter().map(|row| (row.name, row.public_key)).collect();
    let (agents, vault, unwanted) = (store.agents()?, store.vault()?, store.unwanted_leases()?);
    Ok(format!("{agents:?} {pins:?} {people:?} {vault:?} {unwanted:?}"))
}

/// The policy files, if nobody else may have written them.
fn sources(place: &Place) -> anyhow::Result<Vec<PolicySource>> {
    place.home.check_policies(&place.surroundings)?;
    rules::sources(&place.home.policies())
}

/// What was written, but for what is read only at the start.
fn as_at_start(start: &Config, written: &Config) -> Config {
    Config {
        gateway: Gateway { demo: written.gateway.demo, ..start.gateway.clone() },
        oauth: start.oauth.clone(),
        log: start.log.clone(),
        ..written.clone()
    }
}

/// The tables that were changed and are read only at the start.
fn waiting_for_restart(config: &Config, written: &Config) -> Vec<&'static str> {
    let tables = [
        ("`[gateway]`", config.gateway != written.gateway),
        ("`[oauth]`", config.oauth != written.oauth),
        ("`[log]`", config.log != written.log),
    ];
    tables.into_iter().filter(|(_, other)| *other).map(|(table, _)| table).collect()
}

pub(crate) fn run_mcp(place: &Place, mcp: &args::Mcp) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(serve_pipes(place, mcp));
    // A thread may still be reading standard input; it is not waited for.
    runtime.shutdown_background();
    result
}

async fn serve_pipes(place: &Place, mcp: &args::Mcp) -> anyhow::Result<()> {
    let seen = fingerprint(place);
    let config = place.config()?;
    let state = place.open_or_make()?;
    let uid = place.surroundings.uid;
    // Before anything starts: a gate without anybody at its door is not worth a line on the log.
    let agent = Roster::new(&config, &state.store.agents()?).peer(uid).map_err(|error| {
        hinted(
            error.to_string(),
            format!("add `[agents.NAME]` with `peer_uid = {uid}` to `{}`", place.home.config.display()),
        )
    })?;
    if let Some(name) = mcp.agent.as_deref()
        && agent.id.as_str() != name
    {
        return Err(hinted(
            format!("user {uid} is agent `{}`, not `{name}`", agent.id),
            "leave `--agent` away, or change `peer_uid`",
        ));
    }
    let managed = managed(&state.store)?;
    let setup = Setup::without_demo(config.clone(), sources(place)?);
    let max_line = config.gateway.max_message_bytes;
    let gate = start(place, state, &setup).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut changes = gate.store().changes();
    let mut tick = tokio::time::interval(LOOK);
    let mut watch = Watch::new(config, false, seen, managed);
    let mut serving = Box::pin(stdio::serve(
        Arc::clone(&gate.router),
        Arc::clone(&agent),
        tokio::io::stdin(),
        tokio::io::stdout(),
        max_line,
    ));
    let reason = loop {
        tokio::select! {
            served = &mut serving => {
                served?;
                break "client_gone";
            }
            _ = terminate.recv() => break "signal",
            changed = changes.changed() => {
                changed.context("the store has stopped")?;
                watch.store_changed(place, &gate).await;
            }
            _ = tick.tick() => watch.look(place, &gate).await,
        }
        // Who is at the other end was found out once; whether that still counts is looked at as often as the rules.
        if gate.doorkeeper.peer(uid).is_none_or(|now| *now != *agent) {
            note(format_args!(
                "agent `{}` is not what it was when it came; start `toolgate mcp` again",
                agent.id
            ));
            break "agent_changed";
        }
    };
    drop(serving);
    gate.stop(reason).await
}

#[cfg(test)]
mod tests {
    use toolgate_ledger::record::{Body, Outcome, OutcomeUnknown, Record, Status};

    use super::*;

    #[test]
    fn answered_calls_are_told_by_the_end_of_their_records() {
        let outcome = |status| {
            let (bytes_in, bytes_out, started_ms, ended_ms) = (1, 2, 3, 4);
            Body::from(Outcome {
                bytes_in,
                bytes_out,
                call: r#"},"kind":"intent","#.to_owned(),
                cell: None,
                ended_ms,
                intent: 7,
                result: None,
                scrubbed: std::collections::BTreeMap::new(),
                started_ms,
                status,
            })
        };
        for (body, want) in [
            (outcome(Status::Answered), true),
            (outcome(Status::ToolError), false),
            (OutcomeUnknown { call: "c".to_owned(), intent: 7 }.into(), false),
        ] {
            let leaf = Record { time_ms: 1_700_000_000_000, body }.encode().unwrap();
            assert_eq!(has(&leaf, ANSWERED), want, "{}", String::from_utf8_lossy(&leaf));
            assert!(!has(&leaf, INTENT));
        }
        assert!(has(br#"{"body":{"persons":[]},"kind":"intent","time_ms":1700000000000,"v":1}"#, INTENT));
    }
}
