//! The tables `[profiles.NAME]`: what a cell is given, in a short vocabulary. What is not named is not given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toolgate_core::name::ProfileName;
use toolgate_sandbox::cell::{Limits, Tier, TierError};
use toolgate_sandbox::egress::{Rule, RuleError};

use super::reader::{ConfigError, Item, Table, closest};
use super::{SECOND, Value, ValueOf, millis, path, values};

/// The word by which a server is run in no cell. No profile is called so.
pub const NO_CELL: &str = "none";

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(86_400);

/// How long the cell of a server lasts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Per {
    /// One call: connecting, the call, and its end.
    Call,
    /// All calls of a session.
    #[default]
    Session,
}

/// What a kind of cell is given, besides the system's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The least that has to lie between it and the host.
    pub tier: Tier,
    /// The image that it runs on, in place of the host's programs.
    pub image: Option<OnImage>,
    /// How long it lasts, where a server runs in it.
    pub per: Per,
    /// Files and folders that can be read, not run.
    pub read: Vec<PathBuf>,
    /// Files and folders that can be read and run.
    pub exec: Vec<PathBuf>,
    /// Files and folders that can be written too, and the host sees it.
    pub write: Vec<PathBuf>,
    /// Where it may connect to.
    pub net: BTreeSet<Rule>,
    /// Its environment, besides `PATH` and `HOME`.
    pub env: BTreeMap<String, Value>,
    /// What it may use up.
    pub limits: Limits,
    /// How many bytes can be written to memory in place of a disk, in each place there is for it.
    pub scratch_bytes: u64,
}

/// An image, and what is taken of what it wishes for besides `PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnImage {
    /// Its name, as in `toolgate image list`.
    pub name: String,
    /// Variables of the environment.
    pub env: Vec<String>,
    /// Whether programs are started in the folder that it names.
    pub cwd: bool,
}

impl OnImage {
    /// The image of this name, and nothing that it wishes for.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), env: Vec::new(), cwd: false }
    }
}

/// What the program brings along.
const SHIPPED: [(&str, Limits, u64); 4] = [
    // A coding agent, for a day.
    ("agent", limits(86_400, 8_192, 2_048, 4_096, 8_192), 4_096),
    // Shell commands and generated code; `toolgate exec`.
    ("code", limits(3_600, 4_096, 1_024, 4_096, 4_096), 1_024),
    // An MCP server. It ends with its session, so its time is for programs that run away.
    ("server", limits(7 * 86_400, 2_048, 512, 1_024, 4_096), 512),
    // One call.
    ("tool", limits(60, 1_024, 128, 256, 1_024), 256),
];

const fn limits(seconds: u64, memory_mib: u64, processes: u64, file_mib: u64, descriptors: u64) -> Limits {
    Limits {
        wall_ms: seconds * 1000,
        cpu_s: seconds,
        memory_bytes: memory_mib * MIB,
        processes,
        file_bytes: file_mib * MIB,
        descriptors,
        output_bytes: MIB,
        total: false,
    }
}

/// The names of the profiles that the program brings along.
pub fn shipped() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, ..)| *name)
}

impl Profile {
    /// A profile that the program brings along: it names nothing, and has limits.
    #[must_use]
    pub fn shipped(name: &str) -> Option<Self> {
        let (_, limits, scratch_mib) = SHIPPED.iter().find(|(shipped, ..)| *shipped == name)?;
        Some(Self {
            tier: Tier::default(),
            image: None,
            per: Per::default(),
            read: Vec::new(),
            exec: Vec::new(),
            write: Vec::new(),
            net: BTreeSet::new(),
            env: BTreeMap::new(),
            limits: *limits,
            scratch_bytes: scratch_mib * MIB,
        })
    }
}

/// All profiles: those that are written, over those that the program brings along.
pub(super) fn all(
    written: Option<&Item<'_>>,
    folder: &Path,
) -> Result<BTreeMap<ProfileName, Profile>, ConfigError> {
    let mut all: BTreeMap<ProfileName, Profile> =
        shipped().filter_map(|name| Some((name.parse().ok()?, Profile::shipped(name)?))).collect();
    let Some(written) = written else { return Ok(all) };
    for (name, item) in written.table()?.take_named() {
        if name == NO_CELL {
            let what = format!("the profile name `{NO_CELL}` stands for no cell at all");
            return Err(item.error(what, "choose another name"));
        }
        let parsed: ProfileName = name
            .parse()
            .map_err(|e: toolgate_core::name::NameError| item.error(e.to_string(), "choose another name"))?;
        let profile = profile(name, &item, folder)?;
        all.insert(parsed, profile);
    }
    Ok(all)
}

/// The profile that a server names, or `server`. No cell at all takes a word.
pub(super) fn of_server(
    item: Option<&Item<'_>>,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Result<Option<ProfileName>, ConfigError> {
    match item {
        None => Ok(Some(ProfileName::of_servers())),
        Some(item) if item.word()? == NO_CELL => Ok(None),
        Some(item) => named(item, profiles).map(|(name, _)| Some(name)),
    }
}

/// The profile that a built-in names, or `tool`. It runs what agents say, so there is no word for no cell.
pub(super) fn of_builtin(
    table: &Table<'_>,
    item: Option<&Item<'_>>,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Result<(ProfileName, Profile), ConfigError> {
    match item {
        None => profiles
            .iter()
            .find(|(name, _)| name.as_str() == "tool")
            .map(|(name, profile)| (name.clone(), profile.clone()))
            .ok_or_else(|| table.error("there is no profile `tool`", "report this")),
        Some(item) if item.word()? == NO_CELL => Err(item.error(
            format!("`{}` runs what agents say, and never without a cell", table.name()),
            "remove it, or name a profile",
        )),
        Some(item) => named(item, profiles),
    }
}

fn named(
    item: &Item<'_>,
    profiles: &BTreeMap<ProfileName, Profile>,
) -> Result<(ProfileName, Profile), ConfigError> {
    let named = item.word()?;
    match profiles.iter().find(|(name, _)| name.as_str() == named) {
        Some((name, profile)) => Ok((name.clone(), profile.clone())),
        None => {
            let known: Vec<&str> = profiles.keys().map(ProfileName::as_str).collect();
            let what = format!("there is no profile `{}`", named.escape_debug());
            let hint = match closest(named, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add `[profiles.{}]`, or name one that is there", named.escape_debug()),
            };
            Err(item.error(what, hint))
        }
    }
}

fn profile(name: &str, item: &Item<'_>, folder: &Path) -> Result<Profile, ConfigError> {
    let mut table = item.table()?;
    // What is not named is as in the shipped profile of the same name, or as for a server: the one that lasts.
    let base = Profile::shipped(name).or_else(|| Profile::shipped("server"));
    let Some(base) = base else { return Err(item.error("no profile to begin with", "report this")) };
    let image = image(table.take("image"))?;
    let mut paths = |key| paths(table.take(key), folder);
    let (read, exec, write) = (paths("read")?, paths("exec")?, paths("write")?);
    let net = net(table.take("net"))?;
    let env = values(table.take("env"), folder, ValueOf::Env)?;
    let (limits, scratch_bytes) = match table.take("limits") {
        Some(item) => limits_of(&item, &base)?,
        None => (base.limits, base.scratch_bytes),
    };
    let tier = table.take("tier").map(|item| tier(&item)).transpose()?.unwrap_or_default();
    let per = table.take("per").map(|item| per(&item)).transpose()?.unwrap_or_default();
    table.finish()?;
    Ok(Profile { tier, image, per, read, exec, write, net, env, limits, scratch_bytes })
}

/// An image: its name, or a table with what is taken of its wishes.
fn image(item: Option<Item<'_>>) -> Result<Option<OnImage>, ConfigError> {
    let Some(item) = item else { return Ok(None) };
    if item.is_text() {
        return Ok(Some(OnImage::named(item.word()?)));
    }
    let mut table = item.table()?;
    let Some(name) = table.take("name") else {
        return Err(item.error(
            format!("`{}` has no `name`", item.name()),
            "write `image = \"NAME\"`, or `image = { name = \"NAME\", env = [\"LANG\"], cwd = true }`",
        ));
    };
    let name = name.word()?.to_owned();
    let mut env = Vec::new();
    for item in table.take("env").map(|item| item.list()).transpose()?.into_iter().flatten() {
        env.push(item.word()?.to_owned());
    }
    let cwd = table.take("cwd").map(|item| item.switch()).transpose()?.unwrap_or(false);
    table.finish()?;
    Ok(Some(OnImage { name, env, cwd }))
}

fn per(item: &Item<'_>) -> Result<Per, ConfigError> {
    match item.text()? {
        "call" => Ok(Per::Call),
        "session" => Ok(Per::Session),
        other => Err(item.error(
            format!("`{}` is neither `call` nor `session`", other.escape_debug()),
            "write `per = \"call\"`, or leave it out",
        )),
    }
}

fn paths(item: Option<Item<'_>>, folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let Some(item) = item else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for item in item.list()? {
        let path = path(&item, folder)?;
        if path.components().any(|part| part == std::path::Component::ParentDir) {
            let what = format!("`{}` leads upwards", item.text()?.escape_debug());
            return Err(item.error(what, "write the path without `..`"));
        }
        if path.parent().is_none() {
            return Err(item.error("`/` is the whole host", "name what the cell needs of it"));
        }
        if all.contains(&path) {
            let what = format!("`{}` names `{}` twice", item.name(), item.text()?.escape_debug());
            return Err(item.error(what, "name each one once"));
        }
        all.push(path);
    }
    Ok(all)
}

/// Where it may connect to: `"none"`, or a list.
fn net(item: Option<Item<'_>>) -> Result<BTreeSet<Rule>, ConfigError> {
    let Some(item) = item else { return Ok(BTreeSet::new()) };
    if item.is_text() {
        if item.text()? == "none" {
            return Ok(BTreeSet::new());
        }
        let what = format!("`{}` is neither \"none\" nor a list", item.name());
        return Err(item.error(what, "write `net = \"none\"`"));
    }
    let mut all = BTreeSet::new();
    for entry in item.list()? {
        let text = entry.text()?;
        let rule: Rule = text
            .parse()
            .map_err(|error: RuleError| entry.error(error.to_string(), "write it as `example.com:443`"))?;
        if !all.insert(rule) {
            let what = format!("`{}` names `{}` twice", item.name(), text.escape_debug());
            return Err(entry.error(what, "name each one once"));
        }
    }
    Ok(all)
}

fn limits_of(item: &Item<'_>, base: &Profile) -> Result<(Limits, u64), ConfigError> {
    let mut table = item.table()?;
    let total = table.take("total").map_or(Ok(base.limits.total), |item| item.switch())?;
    let mut number = |key, least, most, unit: u64, default: u64| {
        table.take(key).map_or(Ok(default), |item| Ok(item.number(least, most)? * unit))
    };
    let Limits { wall_ms, cpu_s, memory_bytes, processes, file_bytes, descriptors, output_bytes, total: _ } =
        base.limits;
    let mut limits = Limits {
        wall_ms,
        cpu_s,
        memory_bytes: number("memory_mib", 16, 1 << 20, MIB, memory_bytes)?,
        processes: number("processes", 1, 65_536, 1, processes)?,
        file_bytes: number("file_mib", 1, 1 << 20, MIB, file_bytes)?,
        descriptors: number("descriptors", 16, 1 << 20, 1, descriptors)?,
        output_bytes: number("output_kib", 1, 1 << 20, 1 << 10, output_bytes)?,
        total,
    };
    let scratch = number("scratch_mib", 1, 1 << 20, MIB, base.scratch_bytes)?;
    let mut time = |key| table.take(key).map(|item| item.duration(SECOND, 30 * DAY)).transpose();
    if let Some(wall) = time("time")? {
        limits.wall_ms = millis(wall);
    }
    if let Some(cpu) = time("cpu")? {
        limits.cpu_s = cpu.as_secs();
    }
    table.finish()?;
    Ok((limits, scratch))
}

fn tier(item: &Item<'_>) -> Result<Tier, ConfigError> {
    let text = item.text()?;
    text.parse().map_err(|error: TierError| {
        let hint = match closest(text, &Tier::ALL.map(Tier::name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write `tier = \"native\"`, or leave it out".to_owned(),
        };
        item.error(error.to_string(), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Reach};
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/toolgate/toolgate.toml"), text)
    }

    fn named<'c>(config: &'c Config, name: &str) -> &'c Profile {
        &config.profiles[&name.parse().unwrap()]
    }

    #[test]
    fn what_is_written_lies_over_what_is_shipped() {
        let config = parse(
            r#"
[profiles.build]
image = { name = "node-24", env = ["NODE_VERSION"], cwd = true }
read = ["data", "/srv/data"]
exec = ["/opt/node"]
write = ["out"]
net = ["api.example.com:443", "*.Example.com:443"]
env = { MODE = "fast", API_TOKEN = { env = "BUILD_TOKEN" } }
limits = { time = "5m", cpu = "2m", memory_mib = 512, processes = 64, file_mib = 8, descriptors = 256, output_kib = 64, scratch_mib = 32, total = true }
tier = "gvisor"

[profiles.tool]
limits = { memory_mib = 64 }
"#,
        )
        .unwrap();
        let build = named(&config, "build");
        assert_eq!(build.tier, Tier::Gvisor);
        let want = OnImage { name: "node-24".into(), env: vec!["NODE_VERSION".into()], cwd: true };
        assert_eq!(build.image, Some(want));
        assert_eq!(build.read, [Path::new("/etc/toolgate/data"), Path::new("/srv/data")]);
        assert_eq!(
            (build.exec.as_slice(), build.write.as_slice()),
            ([PathBuf::from("/opt/node")].as_slice(), [PathBuf::from("/etc/toolgate/out")].as_slice())
        );
        let net: Vec<String> = build.net.iter().map(ToString::to_string).collect();
        assert_eq!(net, ["*.example.com:443", "api.example.com:443"]);
        assert_eq!(build.env["API_TOKEN"], Value::Env("BUILD_TOKEN".into()));
        let want = Limits {
            wall_ms: 300_000,
            cpu_s: 120,
            memory_bytes: 512 * MIB,
            processes: 64,
            file_bytes: 8 * MIB,
            descriptors: 256,
            output_bytes: 64 << 10,
            total: true,
        };
        assert_eq!((build.limits, build.scratch_bytes), (want, 32 * MIB));
        let tool = Profile::shipped("tool").unwrap();
        let smaller = Limits { memory_bytes: 64 * MIB, ..tool.limits };
        assert_eq!(*named(&config, "tool"), Profile { limits: smaller, ..tool });
        for name in ["agent", "code", "server"] {
            assert_eq!(*named(&config, name), Profile::shipped(name).unwrap());
        }
    }

    #[test]
    fn a_server_is_in_a_cell_but_by_explicit_word() {
        let of = |line: &str| {
            let config =
                parse(&format!("[servers.mail]\ncommand = [\"a\"]\n{line}\n[profiles.mine]")).unwrap();
            match &config.servers[&"mail".parse().unwrap()].reach {
                Reach::Command { profile, .. } => profile.as_ref().map(ToString::to_string),
                Reach::Builtin { .. } | Reach::Url { .. } => panic!("{config:?}"),
            }
        };
        assert_eq!(of("").as_deref(), Some("server"));
        assert_eq!(of("profile = \"mine\"").as_deref(), Some("mine"));
        assert_eq!(of("profile = \"none\""), None);
    }

    /// Everything that is wrong names file, line and remedy.
    #[test]
    fn complaints() {
        let mut shown = String::new();
        for text in [
            "[profiles.none]",
            "[profiles.\"a b\"]",
            "[profiles.x]\nreads = []",
            "[profiles.x]\nread = \"/srv\"",
            "[profiles.x]\nread = [\"/srv/../etc\"]",
            "[profiles.x]\nwrite = [\"/\"]",
            "[profiles.x]\nexec = [\"/opt/a\", \"/opt/a\"]",
            "[profiles.x]\nnet = \"all\"",
            "[profiles.x]\nnet = true",
            "[profiles.x]\nnet = [\"10.0.0.1:443\"]",
            "[profiles.x]\nnet = [\"a.example:443\", \"A.example:443\"]",
            "[profiles.x]\nnet = [\"a.example\"]",
            "[profiles.x]\nenv = { API_KEY = \"abc\" }",
            "[profiles.x]\nlimits = 5",
            "[profiles.x]\nlimits = { memory = 5 }",
            "[profiles.x]\nlimits = { memory_mib = 5 }",
            "[profiles.x]\nlimits = { time = \"0s\" }",
            "[profiles.x]\nimage = 5",
            "[profiles.x]\nimage = { env = [\"LANG\"] }",
            "[profiles.x]\nimage = { name = \"a\", path = \"b\" }",
            "[profiles.x]\ntier = \"natve\"",
            "[profiles.x]\nper = \"process\"",
            "[servers.shell]\nbuiltin = \"shell\"\nprofile = \"none\"",
            "[servers.shell]\nbuiltin = \"shell\"\nprofile = \"tol\"",
            "[servers.mail]\ncommand = [\"a\"]\nprofile = \"sever\"",
            "[servers.mail]\nurl = \"https://a.example/mcp\"\nprofile = \"server\"",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.line().is_some() && !error.hint().is_empty(), "{error}");
            let text = error.to_string().replace("/etc/toolgate/toolgate.toml", "toolgate.toml");
            shown.push_str(&format!("error: {text}\nhint: {}\n", error.hint()));
        }
        insta::assert_snapshot!(shown, @r#"
error: `toolgate.toml`, line 1: the profile name `none` stands for no cell at all
hint: choose another name
error: `toolgate.toml`, line 1: profile name `a b` is not 1 to 64 of a-z, A-Z, 0-9, `_`, `-` and `.`, starting with a letter or digit
hint: choose another name
error: `toolgate.toml`, line 2: unknown key `reads` in `[profiles.x]`
hint: did you mean `read`?
error: `toolgate.toml`, line 2: `profiles.x.read` is a text, not a list
hint: write it as `read = ["…"]`
error: `toolgate.toml`, line 2: `/srv/../etc` leads upwards
hint: write the path without `..`
error: `toolgate.toml`, line 2: `/` is the whole host
hint: name what the cell needs of it
error: `toolgate.toml`, line 2: `profiles.x.exec` names `/opt/a` twice
hint: name each one once
error: `toolgate.toml`, line 2: `profiles.x.net` is neither "none" nor a list
hint: write `net = "none"`
error: `toolgate.toml`, line 2: `profiles.x.net` is true or false, not a list
hint: write it as `net = ["…"]`
error: `toolgate.toml`, line 2: `10.0.0.1` is not the name of a host: it is an address, or could be read as one; rules are for names
hint: write it as `example.com:443`
error: `toolgate.toml`, line 2: `profiles.x.net` names `A.example:443` twice
hint: name each one once
error: `toolgate.toml`, line 2: `a.example` has no port; write it as `NAME:PORT`
hint: write it as `example.com:443`
error: `toolgate.toml`, line 2: `profiles.x.env.API_KEY` would be a secret in the configuration
hint: say where it is: `API_KEY = { env = "NAME" }` or `API_KEY = { file = "path" }`; a value that is no secret can stand as `API_KEY = { danger_inline = "…" }`
error: `toolgate.toml`, line 2: `profiles.x.limits` is a number, not a table
hint: write it as `limits = { … }`
error: `toolgate.toml`, line 2: unknown key `memory` in `[profiles.x.limits]`
hint: known here: `cpu`, `descriptors`, `file_mib`, `memory_mib`, `output_kib`, `processes`, `scratch_mib`, `time`, `total`
error: `toolgate.toml`, line 2: `profiles.x.limits.memory_mib` is 5, which is not between 16 and 1048576
hint: choose a number from 16 to 1048576
error: `toolgate.toml`, line 2: `profiles.x.limits.time` is `0s`, which is too short or too long
hint: choose a time from `1s` to `2592000s`
error: `toolgate.toml`, line 2: `profiles.x.image` is a number, not a table
hint: write it as `image = { … }`
error: `toolgate.toml`, line 2: `profiles.x.image` has no `name`
hint: write `image = "NAME"`, or `image = { name = "NAME", env = ["LANG"], cwd = true }`
error: `toolgate.toml`, line 2: unknown key `path` in `[profiles.x.image]`
hint: known here: `cwd`, `env`, `name`
error: `toolgate.toml`, line 2: `natve` is no tier; there are `landlock-only`, `native`, `gvisor` and `microvm`
hint: did you mean `native`?
error: `toolgate.toml`, line 2: `process` is neither `call` nor `session`
hint: write `per = "call"`, or leave it out
error: `toolgate.toml`, line 3: `servers.shell` runs what agents say, and never without a cell
hint: remove it, or name a profile
error: `toolgate.toml`, line 3: there is no profile `tol`
hint: did you mean `tool`?
error: `toolgate.toml`, line 3: there is no profile `sever`
hint: did you mean `server`?
error: `toolgate.toml`, line 3: `servers.mail.profile` is for commands, but `servers.mail` has a `url`
hint: pass values to an address by `headers`
"#);
    }
}
