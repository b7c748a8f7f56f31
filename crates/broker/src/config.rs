//! The configuration: one file, `toolgate.toml`, and the folder `policies/` beside it.
//!
//! Everything is checked before anything starts. A key that nobody knows, a name that is used but not defined, a
//! secret written into the file: each is an error which names the file, the line and the remedy.

pub mod profiles;
mod reader;
mod scrub;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toolgate_core::name::{
    AgentId, GroupName, NameError, ProfileName, QuestionName, SecretName, ServerName, ToolName,
};
use toolgate_core::policy::DEMO;
use toolgate_core::scrub::detect::{Classes, CustomRules};
use toolgate_core::tool::Effect;
use toolgate_sandbox::cell::Workspace;

use crate::reveal::Sinks;
use crate::rulebook::QuestionRules;
use profiles::Profile;
use reader::{Item, Source as Text, Table};

pub use reader::{ConfigError, closest, parse_duration};

/// The name of the file.
pub const FILE_NAME: &str = "toolgate.toml";

/// The name of the folder with the policies beside it.
pub const POLICY_FOLDER: &str = "policies";

/// How large a configuration may be.
const MAX_FILE_BYTES: usize = 1 << 20;

/// Where agents connect unless the configuration says otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7420";

const SECOND: Duration = Duration::from_secs(1);
const FIVE_MINUTES: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3_600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// A configuration as it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The table `[gateway]`: where agents connect.
    pub gateway: Gateway,
    /// The tables `[servers.NAME]`: what offers tools.
    pub servers: BTreeMap<ServerName, Server>,
    /// The tables `[tools."server/tool"]`: what the tools do to the world.
    pub tools: BTreeMap<ToolName, BTreeSet<Effect>>,
    /// What is taken out of the answers of single tools, in place of what their servers have.
    pub scrub_tools: BTreeMap<ToolName, Classes>,
    /// The arguments of tools in which tokens are turned back into what they stand for.
    pub reveal_tools: BTreeMap<ToolName, Sinks>,
    /// The tables `[scrub.rules.NAME]`: secrets of one's own.
    pub scrub_rules: CustomRules,
    /// The tables `[questions.NAME]`: who is asked.
    pub questions: BTreeMap<QuestionName, QuestionRules>,
    /// The tables `[profiles.NAME]`, and the profiles that the program brings along: what cells are given.
    pub profiles: BTreeMap<ProfileName, Profile>,
    /// The tables `[agents.NAME]`: what is known of agents besides their tokens.
    pub agents: BTreeMap<AgentId, AgentRules>,
    /// The table `[oauth]`: whose access tokens are accepted.
    pub oauth: Option<OAuth>,
    /// The table `[log]`.
    pub log: Log,
}

/// Where agents connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The TCP address of the MCP endpoint.
    pub listen: SocketAddr,
    /// The Unix socket, if it is not to be in the usual place.
    pub socket: Option<PathBuf>,
    /// Values of the `Host` header that are accepted besides the loopback names and the address itself.
    pub allowed_hosts: BTreeSet<String>,
    /// Values of the `Origin` header that are accepted. A request without the header comes from no browser.
    pub allowed_origins: BTreeSet<String>,
    /// The server whose tools and prompts keep their own names, in place of `server__name`; at most one can.
    pub bare: Option<ServerName>,
    /// Whether the demo may be open at all. See [`crate::demo::is_open`].
    pub demo: bool,
    /// How large one message of an agent may be, in bytes.
    pub max_message_bytes: usize,
    /// How many connections are held at once.
    pub max_connections: usize,
    /// How many sessions are held at once.
    pub max_sessions: usize,
}

/// What offers tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// How it is reached.
    pub reach: Reach,
    /// How long one call may take.
    pub call_timeout: Duration,
    /// How long it may take until it answers for the first time.
    pub start_timeout: Duration,
    /// How large one answer may be, in bytes.
    pub max_result_bytes: usize,
    /// What is taken out of what it says.
    pub scrub: Classes,
    /// The certificates that are believed of hosts where a secret is put in for its cell; if not the system's.
    pub believed: Option<PathBuf>,
    /// The secrets of the vault that it gets, where each of them says.
    pub secrets: BTreeSet<SecretName>,
}

/// What the gate itself offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Runs a program that is written down in the call, in a language that its cell has.
    Code,
    /// Runs a command.
    Shell,
}

impl Builtin {
    /// The name of its tool.
    #[must_use]
    pub const fn tool(self) -> &'static str {
        match self {
            Self::Code => "run",
            Self::Shell => "exec",
        }
    }
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It is part of the gate.
    Builtin {
        /// Which one.
        builtin: Builtin,
        /// What the cell of a call is given.
        profile: ProfileName,
        /// The folder that is worked in, and what becomes of changes to it; if there is none, an empty one.
        workspace: Option<(PathBuf, Workspace)>,
    },
    /// A program is started and spoken to over its standard input and output.
    Command {
        /// The program: a path, or a name that is looked for in the usual places.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
        /// Its environment, besides that of its profile; without a cell, its whole environment but for `PATH`, `HOME` and `LANG`.
        env: BTreeMap<String, Value>,
        /// The folder it is started in; if there is none, its home in the cell, or without a cell the gate's own.
        folder: Option<PathBuf>,
        /// What its cell is given; `None` if it is to run in no cell.
        profile: Option<ProfileName>,
    },
    /// It listens at an address and speaks Streamable HTTP.
    Url {
        /// The address.
        url: String,
        /// Headers to send with every request.
        headers: BTreeMap<String, Value>,
        /// The certificates (PEM) that are believed about it, in place of the system's.
        ca: Option<PathBuf>,
    },
}

/// A value that may be a secret: where it is, never what it is, unless it was called a danger.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// It is in a variable of the gate's own environment.
    Env(String),
    /// It is in a file that only its owner can read.
    File(PathBuf),
    /// It stands in the configuration.
    Inline(String),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "Env({name:?})"),
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Inline(_) => f.write_str("Inline(not shown)"),
        }
    }
}

/// What is known of an agent besides its tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentRules {
    /// The groups it belongs to.
    pub groups: BTreeSet<GroupName>,
    /// The user whose processes are this agent when they come by the Unix socket.
    pub peer_uid: Option<u32>,
    /// The `sub` of the access tokens that are this agent's.
    pub oauth_subject: Option<String>,
}

/// Whose access tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth {
    /// The authorization server: the `iss` of its tokens, compared letter by letter.
    pub issuer: String,
    /// The gate as a resource: what the `aud` of a token has to contain.
    pub audience: String,
    /// Where the issuer's keys are.
    pub keys: KeySource,
    /// Scopes that every token has to have.
    pub required_scopes: BTreeSet<String>,
    /// Scopes that put an agent into a group for as long as the token is used.
    pub group_scopes: BTreeMap<String, GroupName>,
}

/// Where an authorization server's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JSON Web Key Set in a file.
    File(PathBuf),
    /// A JSON Web Key Set at an address.
    Url {
        /// The address, `https` or loopback.
        url: String,
        /// The certificates (PEM) that are believed about it, in place of the system's.
        ca: Option<PathBuf>,
    },
}

/// What concerns the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The name that the log signs with. Once the log has a key, this cannot change any more.
    pub origin: Option<String>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
            socket: None,
            allowed_hosts: BTreeSet::new(),
            allowed_origins: BTreeSet::new(),
            bare: None,
            demo: true,
            max_message_bytes: 4 << 20,
            max_connections: 1024,
            max_sessions: 1024,
        }
    }
}

impl Default for Config {
    /// What an empty file means: no servers, no agents but those with tokens, nobody to ask.
    fn default() -> Self {
        Self {
            gateway: Gateway::default(),
            servers: BTreeMap::new(),
            tools: BTreeMap::new(),
            scrub_tools: BTreeMap::new(),
            reveal_tools: BTreeMap::new(),
            scrub_rules: CustomRules::default(),
            questions: BTreeMap::new(),
            profiles: profiles::all(None, Path::new("")).unwrap_or_default(),
            agents: BTreeMap::new(),
            oauth: None,
            log: Log::default(),
        }
    }
}

impl Config {
    /// Reads a configuration. `file` is named in complaints, and paths in the text are relative to its folder.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(ConfigError::whole(
                file,
                "more than 1 MiB of configuration",
                "remove what is not needed",
            ));
        }
        let source = Text::new(file, text);
        let parsed = source.parse()?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut top = Table::new(source, String::new(), 0, &parsed);
        let profiles = profiles::all(top.take("profiles").as_ref(), folder)?;
        let servers = named(&mut top, "servers", |item| server(item, folder, &profiles))?;
        let gateway = top.take("gateway").map(|item| gateway(&item, folder, &servers)).transpose()?;
        let declared = tools(&mut top, &servers)?;
        let scrub_tools = declared.iter().filter_map(|(name, said)| Some((name.clone(), said.scrub?)));
        let scrub_tools = scrub_tools.collect();
        let reveal_tools =
            declared.iter().filter_map(|(name, said)| Some((name.clone(), said.reveal.clone()?)));
        let reveal_tools = reveal_tools.collect();
        let mut tools: BTreeMap<_, _> =
            declared.into_iter().filter_map(|(name, said)| Some((name, said.effects?))).collect();
        of_builtins(&mut tools, &servers, &profiles);
        let config = Self {
            gateway: gateway.unwrap_or_default(),
            tools,
            scrub_tools,
            reveal_tools,
            scrub_rules: top.take("scrub").map(|item| scrub::rules(&item)).transpose()?.unwrap_or_default(),
            servers,
            questions: named(&mut top, "questions", question)?,
            profiles,
            agents: agents(&mut top)?,
            oauth: top.take("oauth").map(|item| oauth(&item, folder)).transpose()?,
            log: top.take("log").map(|item| log(&item)).transpose()?.unwrap_or_default(),
        };
        top.finish()?;
        Ok(config)
    }

    /// Servers and tools of whose answers nothing is taken out.
    #[must_use]
    pub fn unscrubbed(&self) -> BTreeSet<String> {
        let servers = self.servers.iter().map(|(name, server)| (name.to_string(), server.scrub));
        let tools = self.scrub_tools.iter().map(|(name, classes)| (name.to_string(), *classes));
        servers.chain(tools).filter(|(_, classes)| *classes == Classes::NONE).map(|(name, _)| name).collect()
    }
}

/// Reads a table of tables whose names the operator chose.
fn named<N: FromStr + Ord, T>(
    top: &mut Table<'_>,
    key: &'static str,
    read: impl Fn(&Item<'_>) -> Result<T, ConfigError>,
) -> Result<BTreeMap<N, T>, ConfigError>
where
    N::Err: std::fmt::Display,
{
    let mut all = BTreeMap::new();
    let Some(item) = top.take(key) else { return Ok(all) };
    for (name, item) in item.table()?.take_named() {
        let name = name.parse().map_err(|e: N::Err| item.error(e.to_string(), "choose another name"))?;
        all.insert(name, read(&item)?);
    }
    Ok(all)
}

fn gateway(
    item: &Item<'_>,
    folder: &Path,
    servers: &BTreeMap<ServerName, Server>,
) -> Result<Gateway, ConfigError> {
    let mut table = item.table()?;
    let default = Gateway::default();
    let danger = table.take("danger_plain_http").map(|item| item.switch()).transpose()?.unwrap_or(false);
    let listen = match table.take("listen") {
        None => default.listen,
        Some(item) => listen(&item, danger)?,
    };
    let gateway = Gateway {
        listen,
        socket: table.take("socket").map(|item| path(&item, folder)).transpose()?,
        allowed_hosts: hosts(table.take("allowed_hosts"))?,
        allowed_origins: origins(table.take("allowed_origins"))?,
        bare: table.take("bare").map(|item| bare(&item, servers)).transpose()?,
        demo: table.take("demo").map(|item| item.switch()).transpose()?.unwrap_or(default.demo),
        max_message_bytes: bytes(table.take("max_message_kib"), default.max_message_bytes)?,
        max_connections: count(table.take("max_connections"), default.max_connections)?,
        max_sessions: count(table.take("max_sessions"), default.max_sessions)?,
    };
    table.finish()?;
    Ok(gateway)
}

fn bare(item: &Item<'_>, servers: &BTreeMap<ServerName, Server>) -> Result<ServerName, ConfigError> {
    let text = item.text()?;
    servers.keys().find(|name| name.as_str() == text).cloned().ok_or_else(|| {
        item.error(
            format!("there is no server `{}`", text.escape_debug()),
            format!("add `[servers.{}]`, or name one that is there", text.escape_debug()),
        )
    })
}

fn listen(item: &Item<'_>, danger: bool) -> Result<SocketAddr, ConfigError> {
    let text = item.text()?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        let what = format!("`{}` is no address with a port", text.escape_debug());
        return Err(item.error(what, format!("write it as `listen = \"{DEFAULT_LISTEN}\"`")));
    };
    if !address.ip().is_loopback() && !danger {
        return Err(item.error(
            format!("`{address}` can be reached from other machines, and tokens would cross the network in clear"),
            "listen on 127.0.0.1 behind a proxy that speaks TLS; or, if the network is yours alone, add `danger_plain_http = true`",
        ));
    }
    Ok(address)
}

fn hosts(item: Option<Item<'_>>) -> Result<BTreeSet<String>, ConfigError> {
    let mut hosts = BTreeSet::new();
    for item in item.map(|item| item.list()).transpose()?.unwrap_or_default() {
        let host = item.word()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
        if !host.bytes().all(plain) {
            let what = format!("`{}` is no value of a `Host` header", host.escape_debug());
            return Err(item.error(what, "write the name without a port: `gate.example.org`"));
        }
        hosts.insert(host.to_ascii_lowercase());
    }
    Ok(hosts)
}

fn origins(item: Option<Item<'_>>) -> Result<BTreeSet<String>, ConfigError> {
    let mut origins = BTreeSet::new();
    for item in item.map(|item| item.list()).transpose()?.unwrap_or_default() {
        let origin = item.word()?;
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(['/', '*', '?', '#', '@', ' '])) {
            let what = format!("`{}` is no origin", origin.escape_debug());
            return Err(
                item.error(what, "write scheme, host and port and nothing else: `https://app.example.org`")
            );
        }
        origins.insert(origin.to_ascii_lowercase());
    }
    Ok(origins)
}

fn server(
    item: &Item<'_>,
    folder: &Path,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Result<Server, ConfigError> {
    let mut table = item.table()?;
    if table.name() == "servers.demo" {
        return Err(table.error("the server name `demo` belongs to the demo", "choose another name"));
    }
    let (command, url, builtin) = (table.take("command"), table.take("url"), table.take("builtin"));
    let (reach, usual_timeout) = match (command, url, builtin) {
        (Some(command), None, None) => (of_command(&mut table, &command, folder, profiles)?, FIVE_MINUTES),
        (None, Some(url), None) => (of_url(&mut table, &url, folder)?, FIVE_MINUTES),
        (None, None, Some(builtin)) => of_builtin(&mut table, &builtin, folder, profiles)?,
        (None, None, None) => {
            let what = format!("`[{}]` has neither `command` nor `url` nor `builtin`", table.name());
            return Err(
                table.error(what, "add `command = [\"program\", \"argument\"]` or `url = \"https://…/mcp\"`")
            );
        }
        (Some(_), Some(other), _) | (Some(_), None, Some(other)) | (None, Some(_), Some(other)) => {
            let what = format!("`[{}]` has more than one of `command`, `url` and `builtin`", table.name());
            return Err(other.error(what, "keep one of them"));
        }
    };
    let secrets = secrets(&mut table, &reach)?;
    // That of a `url` was taken with it.
    let believed = table.take("ca_file");
    if let (Some(item), true) = (&believed, secrets.is_empty()) {
        return Err(item.error(
            format!(
                "`{}` has `ca_file`, which is for hosts where its secrets are used, and gets no secrets",
                table.name()
            ),
            "add `secrets`, or remove it",
        ));
    }
    let believed = believed.map(|item| path(&item, folder)).transpose()?;
    let server = Server {
        reach,
        call_timeout: time(table.take("call_timeout"), usual_timeout, SECOND, HOUR)?,
        start_timeout: time(
            table.take("start_timeout"),
            Duration::from_secs(30),
            SECOND,
            Duration::from_secs(600),
        )?,
        max_result_bytes: bytes(table.take("max_result_kib"), 16 << 20)?,
        scrub: table.take("scrub").map(|item| scrub::classes(&item)).transpose()?.unwrap_or_default(),
        believed,
        secrets,
    };
    table.finish()?;
    Ok(server)
}

/// The secrets that a server gets. What has no cell gets none: its environment is that of the gate's user.
fn secrets(table: &mut Table<'_>, reach: &Reach) -> Result<BTreeSet<SecretName>, ConfigError> {
    let Some(item) = table.take("secrets") else { return Ok(BTreeSet::new()) };
    let mut secrets = BTreeSet::new();
    for item in item.list()? {
        let name = item.word()?.parse().map_err(|error: NameError| {
            item.error(error.to_string(), "`toolgate secret list` shows what there is")
        })?;
        if !secrets.insert(name) {
            return Err(item.error("the same secret twice", "remove one of them"));
        }
    }
    match reach {
        Reach::Builtin { .. } | Reach::Url { .. } | Reach::Command { profile: Some(_), .. } => Ok(secrets),
        Reach::Command { profile: None, .. } => Err(item.error(
            "a program without a cell gets no secrets: every process of its user could read them",
            "give it a cell: remove `profile = \"none\"`",
        )),
    }
}

fn of_command(
    table: &mut Table<'_>,
    command: &Item<'_>,
    folder: &Path,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Result<Reach, ConfigError> {
    if let Some(headers) = table.take("headers") {
        return Err(headers.error(
            format!("`{}` has `headers`, but a command takes none", table.name()),
            "pass values to a command by `env`",
        ));
    }
    let (program, arguments) = command_line(command)?;
    Ok(Reach::Command {
        program,
        arguments,
        env: values(table.take("env"), folder, ValueOf::Env)?,
        folder: table.take("cwd").map(|item| path(&item, folder)).transpose()?,
        profile: profiles::of_server(table.take("profile").as_ref(), profiles)?,
    })
}

fn of_url(table: &mut Table<'_>, url: &Item<'_>, folder: &Path) -> Result<Reach, ConfigError> {
    let of_commands = ["env", "cwd", "profile"].into_iter().find_map(|key| table.take(key));
    if let Some(item) = of_commands {
        return Err(item.error(
            format!("`{}` is for commands, but `{}` has a `url`", item.name(), table.name()),
            "pass values to an address by `headers`",
        ));
    }
    let url = address(url)?;
    Ok(Reach::Url {
        headers: values(table.take("headers"), folder, ValueOf::Header)?,
        ca: table.take("ca_file").map(|ca| ca_file(&ca, &url, folder)).transpose()?,
        url,
    })
}

/// What the gate itself offers, and how long a call of it may take.
fn of_builtin(
    table: &mut Table<'_>,
    item: &Item<'_>,
    folder: &Path,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Result<(Reach, Duration), ConfigError> {
    let of_others = ["env", "cwd", "headers"].into_iter().find_map(|key| table.take(key));
    if let Some(item) = of_others {
        return Err(item.error(
            format!("`{}` is for other servers, but `{}` is a part of the gate", item.name(), table.name()),
            "what its calls are given stands in its profile",
        ));
    }
    let builtin = match item.text()? {
        "code" => Builtin::Code,
        "shell" => Builtin::Shell,
        other => {
            let what = format!("`{}` is no part of the gate that offers tools", other.escape_debug());
            return Err(item.error(what, "write `builtin = \"shell\"` or `builtin = \"code\"`"));
        }
    };
    let profile = table.take("profile");
    let (profile, given) = profiles::of_builtin(table, profile.as_ref(), profiles)?;
    let (of_work, mode) = (table.take("workspace"), table.take("workspace_mode"));
    let mode = match (&of_work, mode) {
        (_, None) => Workspace::Overlay,
        (None, Some(mode)) => {
            return Err(mode.error("there is no `workspace` that it could be for", "add one, or remove it"));
        }
        (Some(_), Some(mode)) => match mode.text()? {
            "overlay" => Workspace::Overlay,
            "read" => Workspace::Read,
            "write" => Workspace::Write,
            other => {
                let what = format!("`{}` is none of `overlay`, `read` and `write`", other.escape_debug());
                return Err(mode.error(what, "leave it out: changes are then kept in memory, and dropped"));
            }
        },
    };
    let workspace = of_work.map(|item| path(&item, folder)).transpose()?.map(|path| (path, mode));
    let timeout = Duration::from_millis(given.limits.wall_ms).clamp(SECOND, HOUR);
    Ok((Reach::Builtin { builtin, profile, workspace }, timeout))
}

/// What built-in tools do follows from what they are given; what is declared of them besides is added.
fn of_builtins(
    tools: &mut BTreeMap<ToolName, BTreeSet<Effect>>,
    servers: &BTreeMap<ServerName, Server>,
    profiles: &BTreeMap<ProfileName, Profile>,
) {
    for (name, server) in servers {
        let Reach::Builtin { builtin, profile, workspace } = &server.reach else { continue };
        let (Ok(tool), Some(profile)) = (ToolName::new(name.clone(), builtin.tool()), profiles.get(profile))
        else {
            continue;
        };
        let effects = tools.entry(tool).or_default();
        effects.insert(Effect::Execute);
        if !profile.net.is_empty() {
            effects.insert(Effect::Egress);
        }
        if !profile.write.is_empty() || workspace.as_ref().is_some_and(|(_, mode)| *mode == Workspace::Write)
        {
            effects.extend([Effect::Delete, Effect::Write]);
        }
    }
}

fn command_line(item: &Item<'_>) -> Result<(String, Vec<String>), ConfigError> {
    if item.is_text() {
        return Err(item.error(
            format!("`{}` is one text, and no shell is there to take it apart", item.name()),
            "write it as a list: `command = [\"program\", \"argument\"]`",
        ));
    }
    let mut words = Vec::new();
    for item in item.list()? {
        let word = item.text()?;
        if word.contains('\0') {
            return Err(item.error("a word of the command has a NUL character", "remove it"));
        }
        words.push(word.to_owned());
    }
    let mut words = words.into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => Ok((program, words.collect())),
        None => Err(item.error(
            format!("`{}` names no program", item.name()),
            "write it as `command = [\"program\", \"argument\"]`",
        )),
    }
}

/// An address that is encrypted, or does not leave the machine.
fn address(item: &Item<'_>) -> Result<String, ConfigError> {
    let url = item.word()?;
    let hint = "use `https://…`; `http://` is for 127.0.0.1, [::1] and localhost";
    let authority = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(authority) =
        authority.and_then(|rest| rest.split(['/', '?', '#']).next()).filter(|a| !a.is_empty())
    else {
        return Err(item.error(format!("`{}` is no address", url.escape_debug()), hint));
    };
    if authority.contains('@') {
        return Err(
            item.error("the address has a user name or password in it", "put the credential into `headers`")
        );
    }
    if url.starts_with("http://") && !is_loopback(authority) {
        return Err(item.error(format!("`{}` is not encrypted", url.escape_debug()), hint));
    }
    Ok(url.to_owned())
}

/// Certificates that are believed about an address, which has to be one that shows some.
fn ca_file(item: &Item<'_>, url: &str, folder: &Path) -> Result<PathBuf, ConfigError> {
    if !url.starts_with("https://") {
        return Err(item.error(
            format!("`{}` shows no certificate to check", url.escape_debug()),
            "use `https://…`, or remove `ca_file`",
        ));
    }
    path(item, folder)
}

/// Whether `host` or `host:port` is this machine.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueOf {
    Env,
    Header,
}

fn values(
    item: Option<Item<'_>>,
    folder: &Path,
    of: ValueOf,
) -> Result<BTreeMap<String, Value>, ConfigError> {
    let mut all = BTreeMap::new();
    let Some(item) = item else { return Ok(all) };
    for (name, item) in item.table()?.take_named() {
        let fits = match of {
            ValueOf::Env => name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
            ValueOf::Header => name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
        };
        if name.is_empty() || !fits {
            let what = match of {
                ValueOf::Env => "no name of an environment variable",
                ValueOf::Header => "no name of a header",
            };
            return Err(item.error(
                format!("`{}` is {what}", name.escape_debug()),
                "use letters, digits and `_` or `-`",
            ));
        }
        all.insert(name.to_owned(), value(name, &item, folder, of)?);
    }
    Ok(all)
}

fn value(name: &str, item: &Item<'_>, folder: &Path, of: ValueOf) -> Result<Value, ConfigError> {
    let hint = format!(
        "say where it is: `{name} = {{ env = \"NAME\" }}` or `{name} = {{ file = \"path\" }}`; a value that is no secret can stand as `{name} = {{ danger_inline = \"…\" }}`"
    );
    if item.is_text() {
        if of == ValueOf::Env && !looks_secret(name) {
            return Ok(Value::Inline(item.text()?.to_owned()));
        }
        return Err(item.error(format!("`{}` would be a secret in the configuration", item.name()), hint));
    }
    let mut table = item.table()?;
    let found = (table.take("env"), table.take("file"), table.take("danger_inline"));
    table.finish()?;
    match found {
        (Some(env), None, None) => Ok(Value::Env(env.word()?.to_owned())),
        (None, Some(file), None) => Ok(Value::File(path(&file, folder)?)),
        (None, None, Some(inline)) => Ok(Value::Inline(inline.text()?.to_owned())),
        _ => {
            Err(item.error(format!("`{}` needs one of `env`, `file` and `danger_inline`", item.name()), hint))
        }
    }
}

/// Whether a variable's name says that its value should not lie about.
#[must_use]
pub fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["TOKEN", "SECRET", "PASSW", "KEY", "CREDENTIAL", "AUTH", "COOKIE", "DSN", "PRIVATE"]
        .iter()
        .any(|part| name.contains(part))
}

/// What a table `[tools."server/tool"]` says.
struct Declared {
    effects: Option<BTreeSet<Effect>>,
    scrub: Option<Classes>,
    reveal: Option<Sinks>,
}

fn tools(
    top: &mut Table<'_>,
    servers: &BTreeMap<ServerName, Server>,
) -> Result<BTreeMap<ToolName, Declared>, ConfigError> {
    named(top, "tools", |item| {
        let mut table = item.table()?;
        let scrub = table.take("scrub").map(|item| scrub::classes(&item)).transpose()?;
        let reveal = table.take("reveal").map(|item| scrub::sinks(&item)).transpose()?;
        let effects = table.take("effects");
        if effects.is_none() && scrub.is_none() && reveal.is_none() {
            let what = format!("`[{}]` does not say what the tool does", table.name());
            return Err(table.error(what, "add `effects = [\"read\"]`, or what else fits"));
        }
        let effects = effects.map(|item| of_effects(&item)).transpose()?;
        table.finish()?;
        Ok((Declared { effects, scrub, reveal }, item.error("", "")))
    })?
    .into_iter()
    .map(|(name, (declared, place)): (ToolName, _)| {
        if let Some(server) = servers.get(name.server()) {
            if declared.reveal.is_some() && matches!(server.reach, Reach::Builtin { .. }) {
                let what = format!("`{name}` runs what it is given, and a value would be read as part of it");
                return Err(place.saying(what, "leave `reveal` out: values go to tools that do not run them"));
            }
            return Ok((name, declared));
        }
        let known: Vec<&str> = servers.keys().map(ServerName::as_str).collect();
        let hint = match closest(name.server().as_str(), &known) {
            Some(near) => format!("did you mean `{near}/{}`?", name.tool()),
            None => format!("add a table `[servers.{}]`", name.server()),
        };
        Err(place.saying(format!("`{name}` is a tool of a server that is not configured"), hint))
    })
    .collect()
}

fn of_effects(item: &Item<'_>) -> Result<BTreeSet<Effect>, ConfigError> {
    let set = item.parsed_list::<Effect>()?;
    if set.is_empty() {
        let what = format!("`{}` is empty, but every tool does something", item.name());
        return Err(item.error(what, "a tool that only looks has `effects = [\"read\"]`"));
    }
    Ok(set)
}

fn question(item: &Item<'_>) -> Result<QuestionRules, ConfigError> {
    let mut table = item.table()?;
    let Some(listed) = table.take("people") else {
        let what = format!("`[{}]` does not say who is asked", table.name());
        return Err(table.error(what, "add `people = [\"name\"]`, with names given to `toolgate person add`"));
    };
    let people = listed.parsed_list()?;
    if people.is_empty() {
        let what = format!("`{}` is empty, so nobody could ever answer", listed.name());
        return Err(listed.error(what, "name at least one person"));
    }
    let quorum = match table.take("quorum") {
        None => 1,
        Some(item) => {
            let most = people.len() as u64;
            usize::try_from(item.number(1, most)?).unwrap_or(usize::MAX)
        }
    };
    let expires = time(table.take("expires"), Duration::from_secs(3_600), Duration::from_secs(10), WEEK)?;
    let wait = time(table.take("wait"), Duration::from_secs(120).min(expires), SECOND, expires)?;
    table.finish()?;
    Ok(QuestionRules { people, quorum, wait_ms: millis(wait), expires_ms: millis(expires) })
}

fn agents(top: &mut Table<'_>) -> Result<BTreeMap<AgentId, AgentRules>, ConfigError> {
    let mut uids = BTreeMap::new();
    let mut subjects = BTreeMap::new();
    let mut all = BTreeMap::new();
    let Some(item) = top.take("agents") else { return Ok(all) };
    for (name, item) in item.table()?.take_named() {
        let id: AgentId = name
            .parse()
            .map_err(|e: toolgate_core::name::NameError| item.error(e.to_string(), "choose another name"))?;
        if name == DEMO {
            return Err(item.error("the agent name `demo` belongs to the demo", "choose another name"));
        }
        let mut table = item.table()?;
        let mut rules = AgentRules::default();
        if let Some(groups) = table.take("groups") {
            rules.groups = groups.parsed_list()?;
        }
        if let Some(uid) = table.take("peer_uid") {
            let number = u32::try_from(uid.number(0, u64::from(u32::MAX) - 1)?).unwrap_or(u32::MAX);
            if let Some(other) = uids.insert(number, id.clone()) {
                let what = format!("user {number} would be agent `{other}` as well as `{id}`");
                return Err(uid.error(what, "one user can be one agent; give the other one a token"));
            }
            rules.peer_uid = Some(number);
        }
        if let Some(subject) = table.take("oauth_subject") {
            let text = subject.word()?.to_owned();
            if let Some(other) = subjects.insert(text.clone(), id.clone()) {
                let what =
                    format!("subject `{}` would be agent `{other}` as well as `{id}`", text.escape_debug());
                return Err(subject.error(what, "one subject can be one agent"));
            }
            rules.oauth_subject = Some(text);
        }
        table.finish()?;
        all.insert(id, rules);
    }
    Ok(all)
}

fn oauth(item: &Item<'_>, folder: &Path) -> Result<OAuth, ConfigError> {
    let mut table = item.table()?;
    let need = |table: &mut Table<'_>, key: &'static str, example: &str| match table.take(key) {
        Some(item) => item.word().map(str::to_owned),
        None => Err(table.error(format!("`[oauth]` has no `{key}`"), format!("add `{key} = \"{example}\"`"))),
    };
    let issuer = need(&mut table, "issuer", "https://login.example.org")?;
    let audience = need(&mut table, "audience", "https://gate.example.org/mcp")?;
    let (file, url, ca) = (table.take("jwks_file"), table.take("jwks_url"), table.take("ca_file"));
    let keys = match (file, url) {
        (Some(file), None) => match ca {
            Some(ca) => return Err(ca.error("`ca_file` is for a `jwks_url`", "remove it")),
            None => KeySource::File(path(&file, folder)?),
        },
        (None, Some(url)) => {
            let url = address(&url)?;
            let ca = ca.map(|ca| ca_file(&ca, &url, folder)).transpose()?;
            KeySource::Url { url, ca }
        }
        (None, None) => {
            return Err(table.error(
                "`[oauth]` does not say where the issuer's keys are",
                "add `jwks_url = \"https://…/jwks.json\"` or `jwks_file = \"path\"`",
            ));
        }
        (Some(_), Some(url)) => {
            return Err(url.error("`[oauth]` has both `jwks_file` and `jwks_url`", "keep one of the two"));
        }
    };
    let mut required_scopes = BTreeSet::new();
    if let Some(item) = table.take("required_scopes") {
        for item in item.list()? {
            required_scopes.insert(scope(item.word()?, &item)?);
        }
    }
    let mut group_scopes = BTreeMap::new();
    if let Some(item) = table.take("group_scopes") {
        for (name, item) in item.table()?.take_named() {
            group_scopes.insert(scope(name, &item)?, item.parsed()?);
        }
    }
    table.finish()?;
    Ok(OAuth { issuer, audience, keys, required_scopes, group_scopes })
}

fn scope(text: &str, item: &Item<'_>) -> Result<String, ConfigError> {
    let fits = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if text.is_empty() || !text.bytes().all(fits) {
        return Err(item
            .error(format!("`{}` is no OAuth scope", text.escape_debug()), "a scope is one word in ASCII"));
    }
    Ok(text.to_owned())
}

fn log(item: &Item<'_>) -> Result<Log, ConfigError> {
    let mut table = item.table()?;
    let origin = match table.take("origin") {
        None => None,
        Some(item) => {
            let origin = item.word()?;
            if origin.contains(['+', ' ']) || origin.chars().any(char::is_whitespace) || origin.len() > 200 {
                let what = format!("`{}` cannot be the name of a log", origin.escape_debug());
                return Err(
                    item.error(what, "use a name without spaces and `+`, such as `gate.example.org/log`")
                );
            }
            Some(origin.to_owned())
        }
    };
    table.finish()?;
    Ok(Log { origin })
}

fn path(item: &Item<'_>, folder: &Path) -> Result<PathBuf, ConfigError> {
    Ok(folder.join(item.word()?))
}

fn time(
    item: Option<Item<'_>>,
    default: Duration,
    least: Duration,
    most: Duration,
) -> Result<Duration, ConfigError> {
    item.map_or(Ok(default), |item| item.duration(least, most))
}

fn bytes(item: Option<Item<'_>>, default: usize) -> Result<usize, ConfigError> {
    let kib = item.map(|item| item.number(1, 64 << 10)).transpose()?;
    Ok(kib.and_then(|kib| usize::try_from(kib << 10).ok()).unwrap_or(default))
}

fn count(item: Option<Item<'_>>, default: usize) -> Result<usize, ConfigError> {
    let number = item.map(|item| item.number(1, 65_536)).transpose()?;
    Ok(number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/toolgate/toolgate.toml"), text)
    }

    #[test]
    fn one_server_may_keep_its_own_names_if_it_is_there() {
        let parse = |name: &str| {
            let text = format!("[gateway]\nbare = \"{name}\"\n[servers.mail]\ncommand = [\"mail-server\"]\n");
            Config::parse(Path::new("toolgate.toml"), &text).map(|config| config.gateway.bare)
        };
        assert_eq!(parse("mail").unwrap().unwrap().as_str(), "mail");
        assert!(parse("post").unwrap_err().to_string().contains("there is no server `post`"));
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse(""), Ok(Config::default()));
        assert_eq!(Config::default().gateway.listen.to_string(), DEFAULT_LISTEN);
    }

    #[test]
    fn a_full_file() {
        let config = parse(
            r#"
[gateway]
listen = "127.0.0.1:8000"
socket = "gate.sock"
allowed_hosts = ["Gate.example.org"]
allowed_origins = ["https://app.example.org"]
max_message_kib = 64

[servers.files]
command = ["mcp-files", "/srv"]
env = { MODE = "fast", API_TOKEN = { env = "FILES_TOKEN" }, OTHER_KEY = { file = "other.key" } }
cwd = "work"
call_timeout = "20s"

[servers.tickets]
url = "https://tickets.example.org/mcp"
headers = { Authorization = { file = "/run/secrets/tickets" } }
ca_file = "ours.pem"

[tools."files/read"]
effects = ["read"]

[questions.finance]
people = ["ada", "grace"]
quorum = 2
wait = "1m"
expires = "2h"

[agents.support]
groups = ["helpdesk"]
peer_uid = 1000
oauth_subject = "client-1"

[oauth]
issuer = "https://login.example.org"
audience = "https://gate.example.org/mcp"
jwks_url = "https://login.example.org/jwks"
required_scopes = ["toolgate"]
group_scopes = { "toolgate:admin" = "admins" }

[log]
origin = "gate.example.org/log"
"#,
        )
        .unwrap();
        assert_eq!(config.gateway.socket.as_deref(), Some(Path::new("/etc/toolgate/gate.sock")));
        assert!(config.gateway.allowed_hosts.contains("gate.example.org"));
        assert_eq!(config.gateway.max_message_bytes, 65_536);
        let files = &config.servers[&"files".parse().unwrap()];
        assert_eq!(files.call_timeout, Duration::from_secs(20));
        let Reach::Command { program, arguments, env, folder, profile: _ } = &files.reach else {
            panic!("{files:?}")
        };
        assert_eq!((program.as_str(), arguments.as_slice()), ("mcp-files", ["/srv".to_owned()].as_slice()));
        assert_eq!(env["MODE"], Value::Inline("fast".into()));
        assert_eq!(env["API_TOKEN"], Value::Env("FILES_TOKEN".into()));
        assert_eq!(env["OTHER_KEY"], Value::File("/etc/toolgate/other.key".into()));
        assert_eq!(folder.as_deref(), Some(Path::new("/etc/toolgate/work")));
        let tickets = &config.servers[&"tickets".parse().unwrap()];
        let Reach::Url { ca, .. } = &tickets.reach else { panic!("{tickets:?}") };
        assert_eq!(ca.as_deref(), Some(Path::new("/etc/toolgate/ours.pem")));
        let finance = &config.questions[&"finance".parse().unwrap()];
        assert_eq!((finance.quorum, finance.wait_ms, finance.expires_ms), (2, 60_000, 7_200_000));
        assert_eq!(config.agents[&"support".parse().unwrap()].peer_uid, Some(1000));
        assert_eq!(config.oauth.unwrap().group_scopes["toolgate:admin"].as_str(), "admins");
    }

    /// What built-ins do follows from what they are given, and cannot be declared away.
    #[test]
    fn built_ins() {
        use Effect::{Delete, Egress, Execute, Money, Write};
        let of = |text: &str| {
            let config = parse(&format!("[servers.sh]\nbuiltin = \"shell\"\n{text}")).unwrap();
            let server = config.servers[&"sh".parse().unwrap()].clone();
            let effects = config.tools[&"sh/exec".parse().unwrap()].iter().copied().collect::<Vec<_>>();
            (server, effects)
        };
        let reach = |profile: &str, workspace| Reach::Builtin {
            builtin: Builtin::Shell,
            profile: profile.parse().unwrap(),
            workspace,
        };
        let (server, effects) = of("");
        assert_eq!((server.reach, effects), (reach("tool", None), vec![Execute]));
        assert_eq!(server.call_timeout, Duration::from_secs(60), "as long as the cell");
        let work = PathBuf::from("/etc/toolgate/work");
        let (server, effects) = of("workspace = \"work\"\n[tools.\"sh/exec\"]\neffects = [\"money\"]");
        assert_eq!(
            (server.reach, effects),
            (reach("tool", Some((work.clone(), Workspace::Overlay))), vec![Execute, Money])
        );
        let (server, effects) = of("workspace = \"work\"\nworkspace_mode = \"write\"\ncall_timeout = \"5s\"");
        assert_eq!(
            (server.reach, effects),
            (reach("tool", Some((work, Workspace::Write))), vec![Delete, Execute, Write])
        );
        assert_eq!(server.call_timeout, Duration::from_secs(5));
        let (server, effects) =
            of("profile = \"p\"\n[profiles.p]\nnet = [\"a.example:443\"]\nwrite = [\"/srv/x\"]");
        assert_eq!((server.reach, effects), (reach("p", None), vec![Delete, Egress, Execute, Write]));
        assert_eq!(server.call_timeout, HOUR, "the profile's time is a week");
    }

    #[test]
    fn inline_values_are_not_printed() {
        let shown = format!("{:?} {:?}", Value::Inline("hunter2".into()), Value::Env("NAME".into()));
        assert_eq!(shown, "Inline(not shown) Env(\"NAME\")");
    }

    /// Everything that is wrong names file, line and remedy.
    #[test]
    fn complaints() {
        let mut shown = String::new();
        for text in [
            "[gateway\nlisten = 1",
            "[gateway]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"",
            "[gatway]",
            "listen = \"127.0.0.1:7420\"",
            "[gateway]\n\nlissten = \"127.0.0.1:7420\"",
            "[gateway]\nport = 7420",
            "[gateway]\nlisten = 7420",
            "[gateway]\nlisten = \"localhost\"",
            "[gateway]\nlisten = \"0.0.0.0:7420\"",
            "[gateway]\nallowed_hosts = [\"a b\"]",
            "[gateway]\nallowed_origins = [\n  \"https://a.example\",\n  \"*\",\n]",
            "[gateway]\nmax_message_kib = 0",
            "[gateway]\nmax_sessions = 1.5",
            "[servers.Mail]\ncommand = [\"a\"]",
            "[servers.tools]\ncommand = [\"a\"]",
            "[servers.demo]\ncommand = [\"a\"]",
            "[servers.a__b]\ncommand = [\"a\"]",
            "[servers.mail]",
            "[servers.mail]\ncommand = \"npx server\"",
            "[servers.mail]\ncommand = []",
            "[servers.mail]\ncommand = [\"a\"]\nurl = \"https://a.example/mcp\"",
            "[servers.mail]\ncommand = [\"a\"]\nheaders = { A = { env = \"B\" } }",
            "[servers.mail]\nurl = \"https://a.example/mcp\"\nenv = { A = \"b\" }",
            "[servers.mail]\nurl = \"http://a.example/mcp\"",
            "[servers.mail]\nurl = \"https://me:pw@a.example/mcp\"",
            "[servers.mail]\nurl = \"https://a.example/mcp\"\nheaders = { Authorization = \"Bearer abc\" }",
            "[servers.mail]\ncommand = [\"a\"]\nenv = { API_KEY = \"abc\" }",
            "[servers.mail]\ncommand = [\"a\"]\nenv = { API_KEY = { envv = \"abc\" } }",
            "[servers.mail]\ncommand = [\"a\"]\nenv = { API_KEY = { env = \"A\", file = \"b\" } }",
            "[servers.mail]\ncommand = [\"a\"]\ncall_timeout = 30",
            "[servers.mail]\ncommand = [\"a\"]\ncall_timeout = \"30\"",
            "[servers.mail]\ncommand = [\"a\"]\ncall_timeout = \"2d\"",
            "[servers.mail]\ncommand = [\"a\"]\n[tools.\"mial/send\"]\neffects = [\"egress\"]",
            "[tools.send]\neffects = [\"egress\"]",
            "[servers.mail]\ncommand = [\"a\"]\n[tools.\"mail/send\"]",
            "[servers.mail]\ncommand = [\"a\"]\n[tools.\"mail/send\"]\neffects = []",
            "[servers.mail]\ncommand = [\"a\"]\n[tools.\"mail/send\"]\neffects = [\"egress\", \"sends\"]",
            "[servers.mail]\ncommand = [\"a\"]\n[tools.\"mail/send\"]\neffects = [\"egress\", \"egress\"]",
            "[servers.mail]\ncommand = [\"a\"]\nscrub = [\"secret\"]",
            "[servers.mail]\ncommand = [\"a\"]\nscrub = \"secrets\"",
            "[servers.mail]\ncommand = [\"a\"]\n[tools.\"mail/send\"]\nreveal = { \"to[0]\" = [\"pii\"] }",
            "[servers.mail]\ncommand = [\"a\"]\n[tools.\"mail/send\"]\nreveal = { to = [] }",
            "[servers.sh]\nbuiltin = \"shell\"\n[tools.\"sh/exec\"]\nreveal = { command = [\"pii\"] }",
            "[scrub.rules.\"A B\"]\nprefix = \"acme-\"",
            "[scrub.rules.acme]\nprefix = \"acme-\"\nlength = 8",
            "[scrub.rules.acme]\nprefix = \"acme-\"\nlength = 8\nexamples = [\"acme-1\"]",
            "[questions.finance]",
            "[questions.finance]\npeople = []",
            "[questions.finance]\npeople = [\"ada\"]\nquorum = 2",
            "[questions.finance]\npeople = [\"ada\"]\nexpires = \"1m\"\nwait = \"2m\"",
            "[agents.demo]\ngroups = []",
            "[agents.a]\npeer_uid = 7\n[agents.b]\npeer_uid = 7",
            "[agents.a]\noauth_subject = \"x\"\n[agents.b]\noauth_subject = \"x\"",
            "[oauth]\nissuer = \"https://a.example\"",
            "[oauth]\nissuer = \"https://a.example\"\naudience = \"b\"",
            "[oauth]\nissuer = \"https://a.example\"\naudience = \"b\"\njwks_url = \"http://a.example/keys\"",
            "[servers.mail]\ncommand = [\"a\"]\nca_file = \"ca.pem\"",
            "[servers.mail]\nurl = \"http://127.0.0.1:1/\"\nca_file = \"ca.pem\"",
            "[servers.mail]\nbuiltin = \"mail\"",
            "[servers.shell]\nbuiltin = \"shell\"\ncommand = [\"sh\"]",
            "[servers.shell]\nbuiltin = \"shell\"\nworkspace_mode = \"read\"",
            "[servers.shell]\nbuiltin = \"shell\"\nworkspace = \"work\"\nworkspace_mode = \"rw\"",
            "[servers.shell]\nbuiltin = \"shell\"\nenv = { A = \"b\" }",
            "[oauth]\nissuer = \"https://a.example\"\naudience = \"b\"\njwks_file = \"k\"\nca_file = \"ca.pem\"",
            "[log]\norigin = \"my log\"",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.line().is_some(), "{error}");
            assert!(!error.hint().is_empty(), "{error}");
            let text = error.to_string().replace("/etc/toolgate/toolgate.toml", "toolgate.toml");
            shown.push_str(&format!("error: {text}\nhint: {}\n", error.hint()));
        }
        insta::assert_snapshot!(shown, @r#"
error: `toolgate.toml`, line 1: not TOML: unclosed table, expected `]`
hint: every key stands in a table such as `[gateway]`, as in `key = "value"`
error: `toolgate.toml`, line 3: not TOML: duplicate key
hint: every key stands in a table such as `[gateway]`, as in `key = "value"`
error: `toolgate.toml`, line 1: unknown table `gatway`
hint: did you mean `gateway`?
error: `toolgate.toml`, line 1: unknown key `listen`
hint: known here: `agents`, `gateway`, `log`, `oauth`, `profiles`, `questions`, `scrub`, `servers`, `tools`
error: `toolgate.toml`, line 3: unknown key `lissten` in `[gateway]`
hint: did you mean `listen`?
error: `toolgate.toml`, line 2: unknown key `port` in `[gateway]`
hint: known here: `allowed_hosts`, `allowed_origins`, `bare`, `danger_plain_http`, `demo`, `listen`, `max_connections`, `max_message_kib`, `max_sessions`, `socket`
error: `toolgate.toml`, line 2: `gateway.listen` is a number, not a text
hint: write it as `listen = "…"`
error: `toolgate.toml`, line 2: `localhost` is no address with a port
hint: write it as `listen = "127.0.0.1:7420"`
error: `toolgate.toml`, line 2: `0.0.0.0:7420` can be reached from other machines, and tokens would cross the network in clear
hint: listen on 127.0.0.1 behind a proxy that speaks TLS; or, if the network is yours alone, add `danger_plain_http = true`
error: `toolgate.toml`, line 2: `a b` is no value of a `Host` header
hint: write the name without a port: `gate.example.org`
error: `toolgate.toml`, line 4: `*` is no origin
hint: write scheme, host and port and nothing else: `https://app.example.org`
error: `toolgate.toml`, line 2: `gateway.max_message_kib` is 0, which is not between 1 and 65536
hint: choose a number from 1 to 65536
error: `toolgate.toml`, line 2: `gateway.max_sessions` is a fraction, not a whole number
hint: write it as `max_sessions = 1`
error: `toolgate.toml`, line 1: server name `Mail` is not 1 to 32 of a-z, 0-9, `-` and single `_`, starting with a letter and ending with a letter or digit
hint: choose another name
error: `toolgate.toml`, line 1: server name `tools` is reserved; choose another
hint: choose another name
error: `toolgate.toml`, line 1: the server name `demo` belongs to the demo
hint: choose another name
error: `toolgate.toml`, line 1: server name `a__b` is not 1 to 32 of a-z, 0-9, `-` and single `_`, starting with a letter and ending with a letter or digit
hint: choose another name
error: `toolgate.toml`, line 1: `[servers.mail]` has neither `command` nor `url` nor `builtin`
hint: add `command = ["program", "argument"]` or `url = "https://…/mcp"`
error: `toolgate.toml`, line 2: `servers.mail.command` is one text, and no shell is there to take it apart
hint: write it as a list: `command = ["program", "argument"]`
error: `toolgate.toml`, line 2: `servers.mail.command` names no program
hint: write it as `command = ["program", "argument"]`
error: `toolgate.toml`, line 3: `[servers.mail]` has more than one of `command`, `url` and `builtin`
hint: keep one of them
error: `toolgate.toml`, line 3: `servers.mail` has `headers`, but a command takes none
hint: pass values to a command by `env`
error: `toolgate.toml`, line 3: `servers.mail.env` is for commands, but `servers.mail` has a `url`
hint: pass values to an address by `headers`
error: `toolgate.toml`, line 2: `http://a.example/mcp` is not encrypted
hint: use `https://…`; `http://` is for 127.0.0.1, [::1] and localhost
error: `toolgate.toml`, line 2: the address has a user name or password in it
hint: put the credential into `headers`
error: `toolgate.toml`, line 3: `servers.mail.headers.Authorization` would be a secret in the configuration
hint: say where it is: `Authorization = { env = "NAME" }` or `Authorization = { file = "path" }`; a value that is no secret can stand as `Authorization = { danger_inline = "…" }`
error: `toolgate.toml`, line 3: `servers.mail.env.API_KEY` would be a secret in the configuration
hint: say where it is: `API_KEY = { env = "NAME" }` or `API_KEY = { file = "path" }`; a value that is no secret can stand as `API_KEY = { danger_inline = "…" }`
error: `toolgate.toml`, line 3: unknown key `envv` in `[servers.mail.env.API_KEY]`
hint: did you mean `env`?
error: `toolgate.toml`, line 3: `servers.mail.env.API_KEY` needs one of `env`, `file` and `danger_inline`
hint: say where it is: `API_KEY = { env = "NAME" }` or `API_KEY = { file = "path" }`; a value that is no secret can stand as `API_KEY = { danger_inline = "…" }`
error: `toolgate.toml`, line 3: `servers.mail.call_timeout` is a number, not a time
hint: write it as `call_timeout = "90s"`
error: `toolgate.toml`, line 3: `servers.mail.call_timeout` is not a time: `30`
hint: write a whole number and a unit: `90s`, `5m`, `2h` or `7d`
error: `toolgate.toml`, line 3: `servers.mail.call_timeout` is `2d`, which is too short or too long
hint: choose a time from `1s` to `3600s`
error: `toolgate.toml`, line 3: `mial/send` is a tool of a server that is not configured
hint: did you mean `mail/send`?
error: `toolgate.toml`, line 1: tool name `send` names no server; write it as `server/tool`
hint: choose another name
error: `toolgate.toml`, line 3: `[tools."mail/send"]` does not say what the tool does
hint: add `effects = ["read"]`, or what else fits
error: `toolgate.toml`, line 4: `tools."mail/send".effects` is empty, but every tool does something
hint: a tool that only looks has `effects = ["read"]`
error: `toolgate.toml`, line 4: `sends` is no effect; the effects are delete, egress, execute, money, privilege, read and write
hint: change `tools."mail/send".effects`
error: `toolgate.toml`, line 4: `tools."mail/send".effects` names `egress` twice
hint: name each one once
error: `toolgate.toml`, line 3: `secret` is no class of what can be scrubbed; there are `secrets`, `pii`, `pii.card`, `pii.email`, `pii.iban`, `pii.id`, `pii.ip`, `pii.phone`
hint: name some of them; `scrub = []` takes nothing out, and is said aloud
error: `toolgate.toml`, line 3: `servers.mail.scrub` is a text, not a list
hint: write it as `scrub = ["…"]`
error: `toolgate.toml`, line 4: `to[0]` names no place: write `to`, `message.to`, `cc[]` or `people[].email`
hint: name an argument of the tool
error: `toolgate.toml`, line 4: nothing is turned back in `to`
hint: name classes, or leave it out
error: `toolgate.toml`, line 3: `sh/exec` runs what it is given, and a value would be read as part of it
hint: leave `reveal` out: values go to tools that do not run them
error: `toolgate.toml`, line 1: `A B` is no name of a rule: it is part of what stands in place of values
hint: use up to 48 of a-z, 0-9 and `-`
error: `toolgate.toml`, line 1: rule `acme` has no example; `examples = ["…"]` shows what it has to find
hint: `docs/scrub.md` has an example of a rule
error: `toolgate.toml`, line 1: rule `acme` finds nothing in its example `acme-1`
hint: `docs/scrub.md` has an example of a rule
error: `toolgate.toml`, line 1: `[questions.finance]` does not say who is asked
hint: add `people = ["name"]`, with names given to `toolgate person add`
error: `toolgate.toml`, line 2: `questions.finance.people` is empty, so nobody could ever answer
hint: name at least one person
error: `toolgate.toml`, line 3: `questions.finance.quorum` is 2, which is not between 1 and 1
hint: choose a number from 1 to 1
error: `toolgate.toml`, line 4: `questions.finance.wait` is `2m`, which is too short or too long
hint: choose a time from `1s` to `60s`
error: `toolgate.toml`, line 1: the agent name `demo` belongs to the demo
hint: choose another name
error: `toolgate.toml`, line 4: user 7 would be agent `a` as well as `b`
hint: one user can be one agent; give the other one a token
error: `toolgate.toml`, line 4: subject `x` would be agent `a` as well as `b`
hint: one subject can be one agent
error: `toolgate.toml`, line 1: `[oauth]` has no `audience`
hint: add `audience = "https://gate.example.org/mcp"`
error: `toolgate.toml`, line 1: `[oauth]` does not say where the issuer's keys are
hint: add `jwks_url = "https://…/jwks.json"` or `jwks_file = "path"`
error: `toolgate.toml`, line 4: `http://a.example/keys` is not encrypted
hint: use `https://…`; `http://` is for 127.0.0.1, [::1] and localhost
error: `toolgate.toml`, line 3: `servers.mail` has `ca_file`, which is for hosts where its secrets are used, and gets no secrets
hint: add `secrets`, or remove it
error: `toolgate.toml`, line 3: `http://127.0.0.1:1/` shows no certificate to check
hint: use `https://…`, or remove `ca_file`
error: `toolgate.toml`, line 2: `mail` is no part of the gate that offers tools
hint: write `builtin = "shell"` or `builtin = "code"`
error: `toolgate.toml`, line 2: `[servers.shell]` has more than one of `command`, `url` and `builtin`
hint: keep one of them
error: `toolgate.toml`, line 3: there is no `workspace` that it could be for
hint: add one, or remove it
error: `toolgate.toml`, line 4: `rw` is none of `overlay`, `read` and `write`
hint: leave it out: changes are then kept in memory, and dropped
error: `toolgate.toml`, line 3: `servers.shell.env` is for other servers, but `servers.shell` is a part of the gate
hint: what its calls are given stands in its profile
error: `toolgate.toml`, line 5: `ca_file` is for a `jwks_url`
hint: remove it
error: `toolgate.toml`, line 2: `my log` cannot be the name of a log
hint: use a name without spaces and `+`, such as `gate.example.org/log`
"#);
    }
}
