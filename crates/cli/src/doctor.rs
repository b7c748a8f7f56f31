//! `toolgate doctor`: what is covered, what is not, and what is wrong. In plain words, and without flattery.

use std::path::Path;

use serde_json::json;
use toolgate_broker::config::{Config, Reach};
use toolgate_broker::person::Person;
use toolgate_ledger::verify::{Options, verify};
use toolgate_ledger::{Folder, Trust, signer};
use toolgate_sandbox::cell::host::Facts;
use toolgate_sandbox::cell::{Tier, Workspace};

use crate::exec;
use crate::out::{self, Paint, line};
use crate::place::{Place, State};
use crate::rules;
use crate::setup::Setup;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It is as it should be.
    Good,
    /// It is a limit that everybody should know.
    Limit,
    /// It has to be looked at.
    Wrong,
}

impl Mark {
    const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Limit => "not covered",
            Self::Wrong => "wrong",
        }
    }
}

/// What was found.
struct Findings(Vec<(Mark, String, Option<String>)>);

impl Findings {
    fn good(&mut self, what: impl Into<String>) {
        self.0.push((Mark::Good, what.into(), None));
    }

    fn limit(&mut self, what: impl Into<String>, hint: &str) {
        self.0.push((Mark::Limit, what.into(), (!hint.is_empty()).then(|| hint.to_owned())));
    }

    fn wrong(&mut self, error: &anyhow::Error) {
        let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
        self.0.push((Mark::Wrong, chain.join(": "), out::hint_of(error)));
    }
}

pub(crate) fn run(place: &Place) -> anyhow::Result<()> {
    let mut found = Findings(Vec::new());
    let config = match place.home.load(&place.surroundings) {
        Ok(Some(config)) => {
            found.good(format!("configuration {}", place.home.config.display()));
            Some(config)
        }
        Ok(None) => {
            found.limit(
                format!("there is no configuration at {}", place.home.config.display()),
                "`toolgate up` or `toolgate init --write` writes one",
            );
            Some(Config::default())
        }
        Err(error) => {
            found.wrong(&error.into());
            None
        }
    };
    if let Some(config) = &config {
        of_config(place, config, &mut found);
        if place.home.state.join("state.db").exists() {
            match place.open() {
                Ok(state) => of_state(place, config, &state, &mut found),
                Err(error) => found.wrong(&error),
            }
        } else {
            found.limit(
                format!("there is no gate in {} yet", place.home.state.display()),
                "`toolgate up` starts one",
            );
        }
    }
    of_cells(config.as_ref(), &mut found);
    always(&mut found);
    print(&found, place.json)?;
    let wrong = found.0.iter().filter(|(mark, ..)| *mark == Mark::Wrong).count();
    anyhow::ensure!(wrong == 0, "{wrong} of these have to be looked at");
    Ok(())
}

fn of_config(place: &Place, config: &Config, found: &mut Findings) {
    if place.home.is_in_project(&place.surroundings) {
        found.limit(
            "the configuration lies in the project: an agent that can write files here can change what it may do",
            "keep it in ~/.config/toolgate, or run the agent as another user",
        );
    }
    let listen = config.gateway.listen;
    if listen.ip().is_loopback() {
        found.good(format!("agents connect at http://{listen}/mcp, from this machine only"));
    } else {
        found.limit(
            format!("agents connect at http://{listen}/mcp, and their tokens cross the network in clear"),
            "put a proxy that speaks TLS before it",
        );
    }
    for (name, server) in &config.servers {
        match &server.reach {
            Reach::Builtin { builtin, profile, workspace } => {
                let tool = builtin.tool();
                found.good(format!(
                    "`{name}/{tool}` is a part of the gate; each call runs in a cell of its own, of the profile `{profile}` (`toolgate doctor --cell {profile}`)"
                ));
                if let Some((folder, mode)) = workspace {
                    of_workspace(&format!("{name}/{tool}"), folder, *mode, found);
                }
            }
            Reach::Command { profile: Some(profile), .. } => found.good(format!(
                "server `{name}` runs in a cell of the profile `{profile}` (`toolgate doctor --cell {profile}`)"
            )),
            Reach::Command { profile: None, .. } => found.limit(
                format!("server `{name}` runs in NO CELL: it can read and change your files, reach your network, and see what the gate's user sees"),
                "remove `profile = \"none\"`, and give it a profile with what it needs",
            ),
            Reach::Url { .. } => {}
        }
    }
    for (name, server) in &config.servers {
        let values = match &server.reach {
            // The variables of its profile are looked at when it is used.
            Reach::Builtin { .. } => continue,
            Reach::Command { env, .. } => env,
            Reach::Url { headers, .. } => headers,
        };
        for (key, value) in values {
            if let Err(error) = place.surroundings.value(value) {
                found.wrong(&anyhow::Error::from(error).context(format!("`{key}` of server `{name}`")));
            }
        }
    }
    for name in config.unscrubbed() {
        found.limit(
            format!("nothing is taken out of what `{name}` says (`scrub = []`): secrets in its answers reach agents"),
            "remove `scrub = []`, or name what is to be taken out",
        );
    }
    for (name, rules) in config.agents.iter().filter_map(|(name, rules)| Some((name, rules.peer_uid?))) {
        if rules == place.surroundings.uid {
            found.limit(format!("agent `{name}` is user {rules}, who also owns the gate: it could read the keys and write the store directly"), "run the gate as a user of its own");
        }
    }
}

/// The folder that a built-in works in.
fn of_workspace(tool: &str, folder: &Path, mode: Workspace, found: &mut Findings) {
    let shown = folder.display();
    if !folder.is_dir() {
        found.wrong(&out::hinted(
            format!("`{tool}` works in `{shown}`, which is no folder"),
            "make it, or change `workspace`",
        ));
        return;
    }
    match mode {
        Workspace::Overlay => {
            found.good(format!("`{tool}` works in a copy of `{shown}`, and changes are dropped"))
        }
        Workspace::Read => found.good(format!("`{tool}` reads `{shown}`")),
        Workspace::Write => found.limit(
            format!(
                "`{tool}` changes `{shown}` itself: what it writes there may be run by you, an editor or git"
            ),
            "leave `workspace_mode` out, and what it changes is dropped",
        ),
    }
}

fn of_state(place: &Place, config: &Config, state: &State, found: &mut Findings) {
    match state.folder.exposed(&place.surroundings) {
        Ok(exposed) if exposed.is_empty() => {
            found.good(format!(
                "state {} and all that is secret in it is yours alone",
                place.home.state.display()
            ));
        }
        Ok(exposed) => exposed.into_iter().for_each(|error| found.wrong(&error.into())),
        Err(error) => found.wrong(&error.into()),
    }
    let loaded = rules::sources(&place.home.policies())
        .and_then(|sources| Setup::new(config.clone(), sources, &state.store.agents()?))
        .and_then(|setup| Ok((setup.rulebook(&state.store, &state.key)?, setup)));
    match loaded {
        Ok((rulebook, Setup { config, demo, .. })) => {
            if demo {
                found.limit(
                    "the demo is open: whoever connects from this machine without a token is the agent `demo`, with a made-up office and nothing else",
                    "`toolgate agent add NAME` closes it, and so does `demo = false` in `[gateway]`",
                );
            }
            let (own, _of_demo) = rules::counts(&rulebook.policy);
            found.good(format!("policy: {}, all examples hold", out::count(own, "rule")));
            let undeclared = rulebook.tools.keys().filter(|tool| !config.tools.contains_key(*tool)).count();
            found.good(format!(
                "tools: {} accepted, {undeclared} of them with undeclared effects (the worst is assumed)",
                rulebook.tools.len()
            ));
        }
        Err(error) => {
            rules::explain_errors(&error);
            found.wrong(&error);
        }
    }
    of_people(config, state, found);
    match verified(place, config, state) {
        Ok(size) => found.good(format!("log: {}, verified", out::count(size, "record"))),
        Err(error) => found.wrong(&error),
    }
}

fn of_people(config: &Config, state: &State, found: &mut Findings) {
    let people: Result<Vec<Person>, _> = state
        .store
        .persons()
        .map_err(anyhow::Error::from)
        .and_then(|rows| rows.iter().map(|row| Ok(Person::from_row(row)?)).collect());
    let people = match people {
        Ok(people) => people,
        Err(error) => return found.wrong(&error),
    };
    for (name, rules) in &config.questions {
        let have = if rules.quorum == 1 { "1 has".to_owned() } else { format!("{} have", rules.quorum) };
        let enrolled = rules.people.iter().filter(|person| people.iter().any(|p| p.name == **person)).count();
        if enrolled < rules.quorum {
            found.limit(
                format!(
                    "question `{name}`: {} enrolled, {have} to say yes; whatever is asked is refused",
                    if enrolled == 1 { "1 person is".to_owned() } else { format!("{enrolled} people are") }
                ),
                "`toolgate person add NAME` enrols somebody",
            );
        } else {
            let can = if enrolled == 1 { "1 person".to_owned() } else { format!("{enrolled} people") };
            found.good(format!("question `{name}`: {can} can answer, {have} to say yes"));
        }
    }
    for person in people.iter().filter(|person| person.public_key().is_none()) {
        found.limit(
            format!(
                "person `{}` answers with one-time codes: whoever can read the state folder could make them",
                person.name
            ),
            "a passphrase is the stronger proof where agents run as the gate's user",
        );
    }
}

fn verified(place: &Place, config: &Config, state: &State) -> anyhow::Result<u64> {
    let _size = place;
    state.publish(config)?;
    let key = signer::verifier_key(&state.folder.signer())?;
    let report = verify(&Folder::new(state.folder.log()), &Options::new(Trust::key(key)), |_, _| {});
    if report.is_sound() {
        return Ok(report.size);
    }
    let first = report.findings.first().map(ToString::to_string).unwrap_or_default();
    Err(out::hinted(
        format!("the log is not what it should be: {first}"),
        "`toolgate log verify` shows everything that is wrong",
    ))
}

/// Which cells this machine makes, why not, and what to do.
fn of_cells(config: Option<&Config>, found: &mut Findings) {
    let makes = match exec::makes() {
        Ok(makes) => makes,
        Err(error) => return found.wrong(&error.context("cells could not be tried")),
    };
    let facts = Facts::read();
    for (tier, made) in &makes.tiers {
        match made {
            Ok(level) => {
                found.good(format!("cells of the tier `{tier}` work here{}", exec::landlock(*level)))
            }
            Err(why) => found.limit(
                format!("no cells of the tier `{tier}` are made here: {why}"),
                &facts.advice(*tier, why).join("\n"),
            ),
        }
    }
    if !makes.total {
        found.limit(
            "no cgroup can be used: the memory of a cell is limited for each process, not as a whole",
            "start the gate by `systemd-run --user -p Delegate=yes --scope toolgate up`",
        );
    }
    if let Some(why) = makes.no_way_out.as_ref().filter(|_| makes.at_least(Tier::Native).is_ok()) {
        found.limit(
            format!("cells have no way out to the network, so those with `net` are refused: {why}"),
            "`modprobe tun && chmod 666 /dev/net/tun`; in a container, `docker run --device /dev/net/tun …`",
        );
    }
    for (name, profile) in config.iter().flat_map(|config| &config.profiles) {
        if let Err(why) = makes.at_least(profile.tier)
            && profile.tier != Tier::Native
        {
            found.limit(
                format!(
                    "profile `{name}` is for the tier `{}`, so its cells are refused here: {why}",
                    profile.tier
                ),
                &facts.advice(profile.tier, why).join("\n"),
            );
        }
    }
}

fn always(found: &mut Findings) {
    found.limit(
        "what an agent does without the gate (its own shell, files and network) is not seen",
        "give agents tools through the gate only",
    );
    found.limit("a passphrase protects an answer, not the machine: whoever is the gate's user, or root, can replace the program", "");
    found.limit(
        "nobody but you keeps the log's checkpoints yet",
        "copy `checkpoint` from the log folder elsewhere now and then; `toolgate log verify --old` compares",
    );
}

fn print(found: &Findings, json: bool) -> anyhow::Result<()> {
    if json {
        let values: Vec<_> = found
            .0
            .iter()
            .map(|(mark, what, hint)| json!({ "state": mark.word(), "what": what, "hint": hint }))
            .collect();
        return out::json(&values);
    }
    let paint = Paint::out();
    for (mark, what, hint) in &found.0 {
        let word = format!("{:<11}", mark.word());
        let word = match mark {
            Mark::Good => paint.green(word),
            Mark::Limit => paint.yellow(word),
            Mark::Wrong => paint.red(word),
        };
        line(format_args!("{word}  {what}"))?;
        for hint in hint.iter().flat_map(|hint| hint.lines()) {
            line(format_args!("             {}", paint.dim(hint)))?;
        }
    }
    Ok(())
}
