//! `toolgate tool`: which definitions agents may be offered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use anyhow::Context as _;
use serde_json::json;
use toolgate_broker::assemble;
use toolgate_broker::config::{Config, Reach};
use toolgate_broker::home::write_new;
use toolgate_broker::port::SystemClock;
use toolgate_broker::store::{Pin, SqliteStore};
use toolgate_core::digest::Digest;
use toolgate_core::json::Document;
use toolgate_core::name::{ServerName, ToolName};
use toolgate_core::text;
use toolgate_core::tool;
use toolgate_gateway::upstream::{Unobserved, Upstreams};
use toolgate_ledger::Hash;
use toolgate_ledger::record::{PinAction, ToolPin};

use crate::args::ToolCommand;
use crate::gate;
use crate::out::{self, Paint, hinted, line, note};
use crate::place::{Place, block_on, gate_line, now_ms};
use crate::vault::Vault;

pub(crate) fn run(place: &Place, command: ToolCommand) -> anyhow::Result<()> {
    match command {
        ToolCommand::Review { server } => {
            let only = server.map(|name| name.parse()).transpose()?;
            let offered = offered(place, only.as_ref())?;
            if place.json {
                out::json(&offered.iter().map(Offered::json).collect::<Vec<_>>())?;
            } else {
                review(&offered)?;
            }
            Shown::read(place)?.add(&offered).write(place)
        }
        ToolCommand::Accept { names, all } => accept(place, &names, all),
        ToolCommand::List => list(place),
        ToolCommand::Remove { name } => remove(place, &name),
    }
}

/// A definition that a server offers now, and how it stands to what was accepted.
struct Offered {
    server: ServerName,
    /// The name as the server wrote it, hidden characters escaped.
    shown: String,
    definition: Document,
    standing: Standing,
}

/// How an offered definition stands to what was accepted.
enum Standing {
    /// It is another than the accepted one.
    Changed { tool: ToolName, digest: Digest, before: Pin },
    /// It was not accepted yet.
    New { tool: ToolName, digest: Digest },
    /// It cannot be accepted.
    Refused { why: String },
    /// It is the accepted one.
    Same { tool: ToolName },
}

impl Offered {
    const fn word(&self) -> &'static str {
        match self.standing {
            Standing::Changed { .. } => "changed",
            Standing::New { .. } => "new",
            Standing::Refused { .. } => "refused",
            Standing::Same { .. } => "accepted",
        }
    }

    fn tool(&self) -> Option<&ToolName> {
        match &self.standing {
            Standing::Changed { tool, .. } | Standing::New { tool, .. } | Standing::Same { tool } => {
                Some(tool)
            }
            Standing::Refused { .. } => None,
        }
    }

    /// What waits to be accepted.
    const fn waiting(&self) -> Option<(&ToolName, Digest)> {
        match &self.standing {
            Standing::Changed { tool, digest, .. } | Standing::New { tool, digest } => Some((tool, *digest)),
            Standing::Refused { .. } | Standing::Same { .. } => None,
        }
    }

    fn json(&self) -> serde_json::Value {
        let why = match &self.standing {
            Standing::Refused { why } => Some(why),
            Standing::Changed { .. } | Standing::New { .. } | Standing::Same { .. } => None,
        };
        json!({
            "server": self.server.as_str(), "tool": self.tool().map(ToString::to_string), "name": self.shown,
            "state": self.word(), "why": why, "definition": self.definition.root().to_serde(),
        })
    }
}

/// Asks the servers what they offer now.
fn offered(place: &Place, only: Option<&ServerName>) -> anyhow::Result<Vec<Offered>> {
    let config = place.config()?;
    if let Some(name) = only
        && !config.servers.contains_key(name)
    {
        return Err(hinted(
            format!("there is no server `{name}`"),
            format!("add a table `[servers.{name}]`"),
        ));
    }
    if config.servers.is_empty() {
        return Err(hinted("no servers are configured", "`toolgate init` shows those you have"));
    }
    let state = place.open_or_make()?;
    let pins: BTreeMap<String, Pin> =
        state.store.pins()?.into_iter().map(|pin| (pin.tool.to_string(), pin)).collect();
    let servers = gate::servers(&place.surroundings, &place.images(), &config, &config.servers)?;
    let (folder, store) = (state.folder, Arc::new(state.store));
    let mut all = Vec::new();
    block_on(async {
        let vault = Vault::open(&folder, &store)?;
        vault.check(&config)?;
        let upstreams = Upstreams::new(servers, Arc::new(SystemClock), Arc::new(Unobserved))?;
        if let Some(credentials) = vault.credentials() {
            upstreams.use_credentials(Arc::clone(credentials));
        }
        for server in config.servers.keys().filter(|name| only.is_none_or(|only| only == *name)) {
            match upstreams.fetch_tools(server).await {
                Ok(definitions) => {
                    all.extend(definitions.into_iter().map(|d| standing(&config, &pins, server, d)))
                }
                Err(error) => out::report(&match of_cell(&config, server) {
                    Some(hint) => hinted(error.to_string(), hint),
                    None => anyhow::Error::from(error),
                }),
            }
        }
        upstreams.shutdown().await;
        vault.close().await;
        Ok(())
    })?;
    refuse_look_alikes(&mut all, &pins);
    Ok(all)
}

/// What to look at where a server in a cell cannot be used.
fn of_cell(config: &Config, server: &ServerName) -> Option<String> {
    match &config.servers.get(server)?.reach {
        Reach::Builtin { profile, .. } => Some(format!(
            "its calls run in cells of the profile `{profile}`: `toolgate doctor --cell {profile}`"
        )),
        Reach::Command { profile: Some(profile), .. } => Some(format!(
            "it runs in a cell of the profile `{profile}`: what it needs besides the system's programs has to be named there (`toolgate doctor --cell {profile}`)"
        )),
        Reach::Command { profile: None, .. } | Reach::Url { .. } => None,
    }
}

fn standing(
    config: &Config,
    pins: &BTreeMap<String, Pin>,
    server: &ServerName,
    definition: Document,
) -> Offered {
    let name = definition.root().get("name").and_then(|name| name.as_str()).unwrap_or_default().to_owned();
    let judged = || -> Result<Standing, String> {
        let tool = ToolName::new(server.clone(), &name).map_err(|error| error.to_string())?;
        let effects = config.tools.get(&tool).cloned().unwrap_or_else(tool::undeclared_effects);
        let accepted = assemble::accepted_tool(&tool, definition.clone(), effects).map_err(|error| {
            match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            }
        })?;
        let digest = accepted.tool.pin;
        Ok(match pins.get(&tool.to_string()) {
            Some(pin) if pin.digest == digest => Standing::Same { tool },
            Some(pin) => Standing::Changed { tool, digest, before: pin.clone() },
            None => Standing::New { tool, digest },
        })
    };
    let standing = judged().unwrap_or_else(|why| Standing::Refused { why });
    Offered { server: server.clone(), shown: text::quoted(&name, 128), definition, standing }
}

/// Refuses names that are there twice, and new names that look like another one, of any server.
fn refuse_look_alikes(all: &mut [Offered], pins: &BTreeMap<String, Pin>) {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for tool in all.iter().filter_map(Offered::tool).map(ToString::to_string).chain(pins.keys().cloned()) {
        let own = tool.split_once('/').map_or(tool.as_str(), |(_, own)| own);
        names.entry(text::skeleton(own)).or_default().push(tool.clone());
    }
    for offered in all {
        let Standing::New { tool, .. } = &offered.standing else { continue };
        let (whole, own) = (tool.to_string(), tool.tool());
        let alike = names.get(&text::skeleton(own)).into_iter().flatten();
        let twice = alike.clone().filter(|other| **other == whole).count() > 1;
        // The same name on another server is fine: agents see it with the server's name before it. One that only looks
        // the same is not.
        let other = alike.clone().find(|other| {
            let their = other.split_once('/').map_or(other.as_str(), |(_, own)| own);
            **other != whole && their != own
        });
        let why = match (twice, other) {
            (true, _) => format!("the server lists `{whole}` twice"),
            (false, Some(other)) => format!("`{whole}` looks like `{other}`"),
            (false, None) => continue,
        };
        offered.standing = Standing::Refused { why };
    }
}

fn review(offered: &[Offered]) -> anyhow::Result<()> {
    let paint = Paint::out();
    let (mut waiting, mut same) = (0, 0);
    for offered in offered {
        match &offered.standing {
            Standing::Same { .. } => same += 1,
            Standing::Refused { why } => {
                line(format_args!(
                    "{} {}/{}: {}",
                    paint.red("refused"),
                    offered.server,
                    offered.shown,
                    text::quoted(why, 500)
                ))?;
            }
            Standing::New { tool, .. } => {
                waiting += 1;
                line(format_args!("{} {}", paint.green("new    "), paint.bold(tool)))?;
                for text in pretty(&offered.definition) {
                    line(format_args!("    + {text}"))?;
                }
            }
            Standing::Changed { tool, before, .. } => {
                waiting += 1;
                line(format_args!("{} {}", paint.yellow("changed"), paint.bold(tool)))?;
                let old =
                    Document::parse(before.definition.to_vec(), &toolgate_core::json::Limits::default())?;
                for text in diff(&pretty(&old), &pretty(&offered.definition)) {
                    line(format_args!("    {text}"))?;
                }
            }
        }
    }
    note(format_args!("{same} are accepted as they are; {waiting} wait for you."));
    if waiting > 0 {
        note("Accept by name with `toolgate tool accept SERVER/TOOL …`, or all of them with `--all`.");
    }
    Ok(())
}

/// How many lines of a definition are shown, and how long they may be.
const MAX_LINES: usize = 2_000;
const MAX_LINE: usize = 8_000;

/// A definition as lines, hidden characters escaped. What is not shown is said: nobody accepts it unseen.
fn pretty(definition: &Document) -> Vec<String> {
    let pretty = serde_json::to_string_pretty(&definition.root().to_serde()).unwrap_or_default();
    let mut shown = Vec::new();
    for line in pretty.lines().take(MAX_LINES) {
        let line = text::line(line, MAX_LINE);
        let remark = line.remark().map(|remark| format!("  ({remark})"));
        shown.push(line.text);
        shown.extend(remark);
    }
    let left = pretty.lines().count().saturating_sub(MAX_LINES);
    if left > 0 {
        shown.push(format!("… {left} MORE LINES ARE NOT SHOWN: `toolgate tool review --json` has them"));
    }
    shown
}

/// What lines go and come, with the ones around them that stay. Definitions are small, so a plain table will do.
fn diff(old: &[String], new: &[String]) -> Vec<String> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let middle = |lines: &[String]| lines.get(head..lines.len() - tail).unwrap_or_default().to_vec();
    let before = old.get(head.saturating_sub(2)..head).unwrap_or_default();
    let mut shown: Vec<String> = before.iter().map(|line| format!("  {line}")).collect();
    shown.extend(middle(old).iter().map(|line| format!("- {line}")));
    shown.extend(middle(new).iter().map(|line| format!("+ {line}")));
    shown
}

/// What `review` showed last: the digest of each definition, by its tool. A server may answer otherwise the next time it is asked, so
/// what is accepted has to be what somebody could see.
#[derive(Default)]
struct Shown(BTreeMap<String, String>);

impl Shown {
    fn read(place: &Place) -> anyhow::Result<Self> {
        let path = Self::path(place);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Self).map_err(|error| {
                hinted(
                    format!("`{}` is not what `toolgate tool review` wrote: {error}", path.display()),
                    "remove the file and review again",
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("could not read `{}`", path.display())),
        }
    }

    fn add(mut self, offered: &[Offered]) -> Self {
        for (tool, digest) in offered.iter().filter_map(Offered::waiting) {
            self.0.insert(tool.to_string(), digest.to_string());
        }
        self
    }

    fn write(&self, place: &Place) -> anyhow::Result<()> {
        let path = Self::path(place);
        let new = path.with_extension("new");
        if new.exists() {
            fs::remove_file(&new)?;
        }
        write_new(&new, &serde_json::to_vec(&self.0)?)?;
        fs::rename(&new, &path).with_context(|| format!("could not write `{}`", path.display()))
    }

    /// Why this definition is not to be accepted, if so.
    fn differs(&self, tool: &ToolName, digest: Digest) -> Option<&'static str> {
        match self.0.get(&tool.to_string()) {
            None => Some("nobody has looked at it yet"),
            Some(shown) if *shown != digest.to_string() => Some("it is not as it was when you looked"),
            Some(_) => None,
        }
    }

    fn path(place: &Place) -> PathBuf {
        place.home.state.join("reviewed.json")
    }
}

fn accept(place: &Place, names: &[String], all: bool) -> anyhow::Result<()> {
    if names.is_empty() && !all {
        return Err(hinted(
            "no tool was named",
            "`toolgate tool review` shows what waits; `--all` accepts everything",
        ));
    }
    let servers: Vec<ServerName> =
        if all { names.iter().map(|name| name.parse()).collect::<Result<_, _>>()? } else { Vec::new() };
    let (shown, offered) = (Shown::read(place)?, offered(place, None)?);
    let wanted = |offered: &&Offered| match (&offered.tool(), all) {
        (_, true) => servers.is_empty() || servers.contains(&offered.server),
        (Some(tool), false) => names.contains(&tool.to_string()),
        (None, false) => names.contains(&format!("{}/{}", offered.server, offered.shown)),
    };
    let chosen: Vec<&Offered> = offered.iter().filter(wanted).collect();
    for name in names.iter().filter(|_| !all) {
        let whole = |offered: &&&Offered| {
            offered
                .tool()
                .map_or_else(|| format!("{}/{}", offered.server, offered.shown), ToString::to_string)
                == *name
        };
        match chosen.iter().find(whole).map(|offered| &offered.standing) {
            None => {
                return Err(hinted(
                    format!("no server offers `{}`", name.escape_debug()),
                    "write it as `server/tool`; `toolgate tool review` shows what they offer",
                ));
            }
            Some(Standing::Refused { why }) => {
                return Err(hinted(
                    format!("`{}` cannot be accepted: {}", name.escape_debug(), text::quoted(why, 500)),
                    "leave it out, or have the server renamed or repaired",
                ));
            }
            Some(Standing::Changed { tool, digest, .. } | Standing::New { tool, digest }) => {
                if let Some(why) = shown.differs(tool, *digest) {
                    return Err(hinted(
                        format!("`{tool}` is not accepted: {why}"),
                        "`toolgate tool review` shows it",
                    ));
                }
            }
            Some(Standing::Same { .. }) => {}
        }
    }
    let (config, state) = (place.config()?, place.open()?);
    let (mut accepted, mut unseen) = (Vec::new(), 0);
    for offered in chosen {
        let (tool, digest, before) = match &offered.standing {
            Standing::New { tool, digest } => (tool, *digest, None),
            Standing::Changed { tool, digest, before } => (tool, *digest, Some(before)),
            Standing::Same { .. } => continue,
            Standing::Refused { why } => {
                note(format_args!(
                    "left out: {}/{}: {}",
                    offered.server,
                    offered.shown,
                    text::quoted(why, 500)
                ));
                continue;
            }
        };
        if let Some(why) = shown.differs(tool, digest) {
            note(format_args!("left out: {tool}: {why}"));
            unseen += 1;
            continue;
        }
        block_on(pin(place, &state.store, &config, tool, digest, before, &offered.definition))?;
        if !place.json {
            line(tool)?;
        }
        accepted.push(json!({ "tool": tool.to_string(), "digest": digest.to_string() }));
    }
    place.tell(|| json!(accepted))?;
    let accepted = accepted.len();
    note(format_args!("{accepted} accepted. What none of your rules permit is still refused."));
    if unseen > 0 {
        return Err(hinted(
            format!("left out what nobody has seen as it is now: {unseen}"),
            "`toolgate tool review` shows it; then accept again",
        ));
    }
    Ok(())
}

async fn pin(
    place: &Place,
    store: &SqliteStore,
    config: &Config,
    tool: &ToolName,
    digest: Digest,
    before: Option<&Pin>,
    definition: &Document,
) -> anyhow::Result<()> {
    let record = ToolPin {
        action: PinAction::Accepted,
        by: Some(place.user()),
        digest: Some(Hash(*digest.as_bytes())),
        previous: before.map(|pin| Hash(*pin.digest.as_bytes())),
        tool: tool.to_string(),
    };
    let pin = Pin {
        tool: tool.clone(),
        definition: bytes::Bytes::copy_from_slice(definition.root().raw()),
        effects: config.tools.get(tool).cloned().unwrap_or_else(tool::undeclared_effects),
        digest,
        accepted_by: place.user(),
        accepted_ms: now_ms(),
    };
    store.accept_pin(pin, before.map(|pin| pin.digest), gate_line(record)?).await?;
    Ok(())
}

fn list(place: &Place) -> anyhow::Result<()> {
    let config = place.config()?;
    let pins =
        if place.home.state.join("state.db").exists() { place.open()?.store.pins()? } else { Vec::new() };
    let effects = |pin: &Pin| -> Vec<String> {
        config.tools.get(&pin.tool).unwrap_or(&pin.effects).iter().map(ToString::to_string).collect()
    };
    if place.json {
        let values: Vec<_> = pins
            .iter()
            .map(|pin| {
                json!({
                    "tool": pin.tool.to_string(), "effects": effects(pin), "digest": pin.digest.to_string(),
                    "accepted_by": pin.accepted_by, "accepted_ms": pin.accepted_ms, "declared": config.tools.contains_key(&pin.tool),
                })
            })
            .collect();
        return out::json(&values);
    }
    if pins.is_empty() {
        note("No tools are accepted yet: `toolgate tool review` shows what the servers offer.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = pins
        .iter()
        .map(|pin| {
            let declared =
                if config.tools.contains_key(&pin.tool) { "" } else { " (undeclared: the worst is assumed)" };
            vec![
                pin.tool.to_string(),
                out::time(pin.accepted_ms),
                format!("{}{declared}", effects(pin).join(", ")),
            ]
        })
        .collect();
    out::table(&["TOOL", "ACCEPTED", "EFFECTS"], &rows)
}

fn remove(place: &Place, name: &str) -> anyhow::Result<()> {
    let tool: ToolName = name.parse()?;
    let state = place.open()?;
    let before = state.store.pins()?.into_iter().find(|pin| pin.tool == tool);
    let record = ToolPin {
        action: PinAction::Removed,
        by: Some(place.user()),
        digest: None,
        previous: before.map(|pin| Hash(*pin.digest.as_bytes())),
        tool: tool.to_string(),
    };
    let line = gate_line(record)?;
    block_on(async { Ok(state.store.remove_pin(tool.clone(), line).await?) })?;
    note(format_args!("`{tool}` is not accepted any more; no agent is offered it."));
    place.tell(|| json!({ "tool": tool.to_string(), "removed": true }))
}
