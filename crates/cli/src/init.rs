//! `toolgate init`: finds the MCP servers that clients have configured, and puts them behind the gate.
//!
//! It reads the clients' files and never writes them. What it would write of its own, it shows first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use toolgate_broker::config::{Config, DEFAULT_LISTEN, looks_secret};
use toolgate_broker::home::{make_private, write_new};
use toolgate_core::name::ServerName;
use toolgate_core::policy::DEMO;
use toolgate_core::text;

use crate::args::Init;
use crate::out::{Paint, hinted, line, note};
use crate::place::Place;
use crate::{person, rules, terminal};

/// How large a client's file may be.
const MAX_FILE: u64 = 32 << 20;

/// A server as some client has it configured.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    name: ServerName,
    /// The client, and its file.
    client: &'static str,
    file: PathBuf,
    /// Program and arguments, or an address.
    command: Vec<String>,
    url: Option<String>,
    /// Variables or headers with their values. These may be secrets: never printed.
    values: BTreeMap<String, String>,
}

impl Found {
    fn reaches_the_same(&self, other: &Self) -> bool {
        (&self.command, &self.url, &self.values) == (&other.command, &other.url, &other.values)
    }
}

/// A file that a value goes into, and the value.
type Secrets = Vec<(PathBuf, String)>;

pub(crate) fn run(place: &Place, init: &Init) -> anyhow::Result<()> {
    let found = find(place);
    let known: BTreeSet<ServerName> = place.config()?.servers.into_keys().collect();
    let mut secrets = Secrets::new();
    let mut tables = String::new();
    for server in found.iter().filter(|server| !known.contains(&server.name)) {
        let (text, values) = table(place, server);
        // One that cannot be configured does not keep the others out.
        match Config::parse(&place.home.config, &text) {
            Ok(_) => {
                tables.push_str(&text);
                secrets.extend(values);
            }
            Err(error) => {
                note(format_args!("`{}` was left out: {}; {}", server.name, error.what(), error.hint()))
            }
        }
    }
    let new = !tables.is_empty();
    let before = read(&place.home.config).unwrap_or_default();
    let after = if before.is_empty() {
        format!("{}\n{tables}", crate::up::FIRST_CONFIG)
    } else {
        format!("{}\n{tables}", before.trim_end_matches('\n').to_owned() + "\n")
    };
    // What would be written has to be what can be read.
    Config::parse(&place.home.config, &after)?;
    if !place.json {
        let words = if init.write { WRITES } else { WOULD };
        show(place, words, &found, &known, &tables, &secrets, before.is_empty())?;
    }
    let something = new || before.is_empty();
    let written = something && (init.write || (!place.json && terminal::yes("Write this?")?));
    if written {
        write(place, &after, &before, &secrets)?;
        note(if new {
            "Written. Next: `toolgate tool review`, then `toolgate up`. Then remove these servers from your clients: as long as they are configured there too, your agent can go around the gate."
        } else {
            "Written. Next: `toolgate up`."
        });
    } else if something {
        note("Nothing was written. `toolgate init --write` writes it.");
    } else {
        note("There is nothing to write: the configuration is there, and so is what was found.");
    }
    place.tell(|| {
        let server = |s: &Found| json!({ "name": s.name.as_str(), "client": s.client, "file": s.file, "new": !known.contains(&s.name) });
        json!({
            "configuration": place.home.config, "adds": tables, "written": written,
            "servers": found.iter().map(server).collect::<Vec<_>>(),
            "values_moved_to_files": secrets.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        })
    })?;
    if let Some(name) = &init.person {
        person::add(place, &place.open_or_make()?, name.parse()?, init.passphrase_file.as_deref())?;
    }
    Ok(())
}

/// How it is said what is or would be done: creating, adding, writing.
type Words = [&'static str; 3];
const WOULD: Words = ["Would create", "Would add to", "Would write a value into"];
const WRITES: Words = ["Creates", "Adds to", "Writes a value into"];

fn show(
    place: &Place,
    [creates, adds, writes]: Words,
    found: &[Found],
    known: &BTreeSet<ServerName>,
    tables: &str,
    secrets: &Secrets,
    fresh: bool,
) -> anyhow::Result<()> {
    let paint = Paint::out();
    if found.is_empty() {
        line("No MCP servers found for Claude Code, Claude Desktop, Cursor or VS Code.")?;
    }
    for server in found {
        let state = if known.contains(&server.name) {
            paint.dim("behind the gate")
        } else {
            paint.yellow("not behind the gate")
        };
        line(format_args!(
            "{:<20} {state}  ({}: {})",
            server.name.to_string(),
            server.client,
            server.file.display()
        ))?;
    }
    if fresh {
        line(format_args!(
            "\n{creates} {} and, beside it, policies/{} with its examples.",
            place.home.config.display(),
            rules::STARTER.0
        ))?;
    }
    if !tables.is_empty() {
        line(format_args!("\n{adds} {}:\n", place.home.config.display()))?;
        line(tables.trim_end())?;
        if tables.contains("\ncommand = ") {
            line(
                "\nPrograms run in cells, with the system's programs and libraries and nothing else: no files of yours, no network. What one needs besides, its profile names: `profile = \"NAME\"`, and `[profiles.NAME]` with `read`, `exec`, `write`, `net`. `toolgate doctor --cell NAME` says what that comes to.",
            )?;
        }
    }
    if !secrets.is_empty() {
        line("")?;
    }
    for (path, _) in secrets {
        line(format_args!("{writes} {} (mode 600; not shown)", path.display()))?;
    }
    line("")
}

/// The table of one server. Values go into files of their own.
fn table(place: &Place, server: &Found) -> (String, Secrets) {
    let mut secrets = Secrets::new();
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    // Whoever wrote the client's file, a project for instance, writes no keys of ours.
    let key = |name: &str| {
        let plain =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if plain { name.to_owned() } else { quoted(name) }
    };
    let mut table = format!("[servers.{}]  # from {}\n", server.name, server.client);
    let of = match &server.url {
        Some(url) => {
            let _infallible = writeln!(table, "url = {}", quoted(url));
            "headers"
        }
        None => {
            let words: Vec<String> = server.command.iter().map(|word| quoted(word)).collect();
            let _infallible = writeln!(table, "command = [{}]", words.join(", "));
            let needs = needs(&server.command, quoted);
            if !needs.is_empty() {
                let _infallible =
                    writeln!(table, "# In its cell it may need {}: name them in a profile", needs.join(", "));
            }
            "env"
        }
    };
    for (name, value) in &server.values {
        if let Some(variable) = variable(value) {
            let _infallible = writeln!(table, "{of}.{} = {{ env = {} }}", key(name), quoted(variable));
            continue;
        }
        if of == "env" && !looks_secret(name) {
            let _infallible = writeln!(table, "{of}.{} = {}", key(name), quoted(value));
            continue;
        }
        let file = format!("secrets/{}.{name}", server.name);
        let _infallible = writeln!(table, "{of}.{} = {{ file = {} }}", key(name), quoted(&file));
        secrets.push((place.home.config.with_file_name(file), value.clone()));
    }
    table.push('\n');
    (table, secrets)
}

/// What a command probably needs that is not in a cell.
fn needs(command: &[String], quoted: impl Fn(&str) -> String) -> Vec<String> {
    let mut needs: Vec<String> = command
        .iter()
        .filter(|word| word.starts_with('/') && !word.starts_with("/usr/"))
        .map(|path| quoted(path))
        .collect();
    let program = command.first().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
    if matches!(program, "npx" | "bunx" | "pnpm" | "yarn" | "uvx" | "uv" | "pipx") {
        needs.push(format!("the host that `{program}` fetches from"));
    }
    needs
}

/// The variable of the environment that a client takes the whole value from: `${NAME}`, or `${env:NAME}` in VS Code.
fn variable(value: &str) -> Option<&str> {
    let name = value.strip_prefix("${")?.strip_suffix('}')?;
    let name = name.strip_prefix("env:").unwrap_or(name);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (plain && !name.is_empty()).then_some(name)
}

fn write(place: &Place, after: &str, before: &str, secrets: &Secrets) -> anyhow::Result<()> {
    let config = &place.home.config;
    make_private(&place.home.policies())?;
    if before.is_empty() {
        for (name, text) in [rules::STARTER, rules::STARTER_EXAMPLES] {
            let path = place.home.policies().join(name);
            if !path.exists() {
                write_new(&path, text.as_bytes())?;
            }
        }
    }
    for (path, value) in secrets {
        make_private(path.parent().unwrap_or(Path::new(".")))?;
        if path.exists() {
            return Err(hinted(
                format!("`{}` is there already", path.display()),
                "move it away, or name the server otherwise",
            ));
        }
        write_new(path, value.as_bytes())?;
    }
    if !before.is_empty() {
        let kept = config.with_extension("toml.before-init");
        let _old = fs::remove_file(&kept);
        write_new(&kept, before.as_bytes())?;
        note(format_args!("The file as it was is in {}", kept.display()));
        let next = config.with_extension(format!("toml.{}.new", std::process::id()));
        write_new(&next, after.as_bytes())?;
        fs::rename(&next, config)?;
        return Ok(());
    }
    Ok(write_new(config, after.as_bytes())?)
}

/// The clients' files, and where in them the servers are. Where two have a server of one name, the first counts: the user's
/// own come before those of the project, which whoever wrote the project may have written.
fn find(place: &Place) -> Vec<Found> {
    let project = &place.surroundings.folder;
    let mut files: Vec<(&'static str, PathBuf, &'static str)> = Vec::new();
    if let Some(home) = place.surroundings.home() {
        files.push(("Claude Code", home.join(".claude.json"), "mcpServers"));
        files.push(("Claude Desktop", home.join(".config/Claude/claude_desktop_config.json"), "mcpServers"));
        files.push(("Cursor", home.join(".cursor/mcp.json"), "mcpServers"));
        files.push(("VS Code", home.join(".config/Code/User/mcp.json"), "servers"));
        files.push(("VS Code", home.join(".config/Code/User/settings.json"), "mcp"));
    }
    files.push(("Claude Code, this project", project.join(".mcp.json"), "mcpServers"));
    files.push(("Cursor, this project", project.join(".cursor/mcp.json"), "mcpServers"));
    files.push(("VS Code, this project", project.join(".vscode/mcp.json"), "servers"));
    let mut found: Vec<Found> = Vec::new();
    for (client, file, member) in files {
        let Some(text) = read(&file) else { continue };
        let Ok(root) = serde_json::from_str::<Value>(&text) else {
            note(format_args!("{} is not plain JSON and was left out", file.display()));
            continue;
        };
        let mut tables = vec![if member == "mcp" { root.pointer("/mcp/servers") } else { root.get(member) }];
        if client == "Claude Code" {
            let projects =
                root.get("projects").and_then(|projects| projects.get(project.display().to_string()));
            tables.push(projects.and_then(|project| project.get("mcpServers")));
        }
        for (name, value) in tables.into_iter().flatten().filter_map(Value::as_object).flatten() {
            if is_ours(name, value) {
                continue;
            }
            let Some(server) = server(client, &file, name, value) else { continue };
            match found.iter().find(|other| other.name == server.name) {
                None => found.push(server),
                Some(other) if other.reaches_the_same(&server) => {}
                Some(other) => left_out(
                    &file,
                    name,
                    &format_args!("{} has another server of this name; rename one of them", other.client),
                ),
            }
        }
    }
    found
}

/// Says that an entry of a client's file was left out.
fn left_out(file: &Path, name: &str, why: &dyn std::fmt::Display) {
    note(format_args!("{}: `{}` was left out: {why}", file.display(), text::quoted(name, 64)));
}

/// Whether the server is the gate itself.
fn is_ours(name: &str, value: &Value) -> bool {
    let program = value["command"].as_str().map(Path::new).and_then(Path::file_name);
    name == "toolgate"
        || program.is_some_and(|program| program == "toolgate")
        || value["url"].as_str().is_some_and(|url| url.contains(DEFAULT_LISTEN))
}

fn server(client: &'static str, file: &Path, name: &str, value: &Value) -> Option<Found> {
    let left_out = |why: &dyn std::fmt::Display| left_out(file, name, why);
    let name: ServerName = match server_name(name).parse() {
        Ok(name) => name,
        Err(error) => {
            left_out(&error);
            return None;
        }
    };
    if value["type"] == "sse" {
        left_out(&"it speaks the transport of 2024-11-05 (SSE), which the gate does not");
        return None;
    }
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let pairs = |value: &Value| -> BTreeMap<String, String> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
            .collect()
    };
    let url = value["url"].as_str().map(str::to_owned);
    let mut command: Vec<String> = value["command"].as_str().map(str::to_owned).into_iter().collect();
    if command.is_empty() && url.is_none() {
        left_out(&"it has neither a `command` nor a `url`");
        return None;
    }
    command.extend(texts(&value["args"]));
    let values = pairs(if url.is_some() { &value["headers"] } else { &value["env"] });
    let filled_in = |text: &String| text.contains("${");
    if command.iter().chain(&url).any(filled_in)
        || values.values().any(|v| filled_in(v) && variable(v).is_none())
    {
        left_out(&"its client fills in a part of it (`${…}`); add it to the configuration by hand");
        return None;
    }
    Some(Found { name, client, file: file.to_owned(), command, url, values })
}

/// A name that the gate accepts, made from a client's.
fn server_name(name: &str) -> String {
    let mut made = String::new();
    for c in name.to_lowercase().chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if !(c == '-' && (made.is_empty() || made.ends_with('-'))) {
            made.push(c);
        }
    }
    let made = made.trim_end_matches('-');
    match made {
        // The gate's own.
        DEMO => "demo-server".to_owned(),
        _ if made.starts_with(|c: char| c.is_ascii_digit()) => format!("s{made}"),
        _ => made.to_owned(),
    }
}

fn read(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    (meta.is_file() && meta.len() <= MAX_FILE).then(|| fs::read_to_string(path).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients_become_names_of_ours() {
        for (name, want) in [
            ("GitHub MCP", "github-mcp"),
            ("a__b", "a-b"),
            ("1password", "s1password"),
            ("--", ""),
            ("fs", "fs"),
            ("Demo", "demo-server"),
        ] {
            assert_eq!(server_name(name), want, "name: {name:?}");
        }
    }
}
