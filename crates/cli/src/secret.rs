//! `toolgate secret`: the vault, as people see it. No command prints a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::{Value, json};
use toolgate_broker::config::Config;
use toolgate_broker::store::VaultRow;
use toolgate_broker::vault::file::{Held, MAX_VALUE, SHORT_VALUE};
use toolgate_broker::vault::keys::{KeySource, make_key_file};
use toolgate_broker::vault::{
    Locked, Mint, MintError, Opener, Provider, Sealed, Slot, Uses, Vault, VaultError,
};
use toolgate_core::hex;
use toolgate_core::name::SecretName;
use toolgate_core::text;
use toolgate_ledger::record::{self, SecretAction};
use toolgate_sandbox::guarded;
use zeroize::Zeroizing;

use crate::args::{Unlock, UsesArgs, ValueArgs, VaultCommand};
use crate::out::{self, LINE_CHARS, hinted, line, note};
use crate::place::{Place, State, block_on, gate_line, now_ms, random};
use crate::terminal;

pub(crate) fn run(place: &Place, command: VaultCommand) -> anyhow::Result<()> {
    // Values pass through this process: nobody else's may look into it, and it leaves nothing behind when it breaks.
    guarded::keep_to_ourselves().context("this process cannot be kept to itself")?;
    match command {
        VaultCommand::Add { name, honeytoken, uses, value } => {
            let uses = if honeytoken { Uses::default() } else { useful(&uses)? };
            add(place, &name, uses, &value)
        }
        VaultCommand::List => list(place),
        VaultCommand::Providers => providers(place),
        VaultCommand::Remove { name } => remove(place, &name),
        VaultCommand::Rotate { name, value } => rotate(place, &name, &value),
        VaultCommand::Show { name } => show(place, &name),
        VaultCommand::Trust => trust(place),
        VaultCommand::Unlock(unlock) => self::unlock(place, unlock),
        VaultCommand::UseWhere { name, uses } => use_where(place, &name, &uses),
    }
}

/// An unlocked vault that nobody else changes meanwhile, and the state it belongs to.
struct Opened {
    state: State,
    vault: Vault,
    held: Held,
}

impl Opened {
    fn open(place: &Place, passphrase: Option<&Path>) -> anyhow::Result<Self> {
        Self::unlocked(place, place.open_or_make()?, passphrase)
    }

    fn unlocked(place: &Place, state: State, passphrase: Option<&Path>) -> anyhow::Result<Self> {
        let path = state.folder.vault();
        // Whoever is asked for a passphrase holds nobody up meanwhile.
        let vault = opened(place, &state, passphrase)?;
        let held = Held::take(&path)?;
        let vault = vault.reread(File::open(&path)?)?;
        if let Some(noted) = state.store.vault()? {
            vault.follows(&noted.id, noted.generation)?;
        }
        Ok(Self { state, vault, held })
    }

    /// Writes the vault, and then that it was written: a vault that is newer than the log says is one whose writer was cut off.
    fn save(
        mut self,
        place: &Place,
        action: SecretAction,
        name: Option<&SecretName>,
    ) -> anyhow::Result<Vault> {
        self.vault.save(&self.held)?;
        noted(place, &self.state, &self.vault, action, name)?;
        Ok(self.vault)
    }
}

fn opened(place: &Place, state: &State, passphrase: Option<&Path>) -> anyhow::Result<Vault> {
    let ask = || asked("Passphrase of the vault: ", passphrase);
    let opener = Opener { surroundings: &place.surroundings, passphrase: Some(&ask) };
    Ok(Locked::read(&state.folder.vault(), &place.surroundings)?.open(&opener)?)
}

fn asked(prompt: &str, file: Option<&Path>) -> Result<Zeroizing<String>, VaultError> {
    terminal::secret(prompt, file).map_err(|error| VaultError::Unanswered(error.to_string()))
}

fn noted(
    place: &Place,
    state: &State,
    vault: &Vault,
    action: SecretAction,
    name: Option<&SecretName>,
) -> anyhow::Result<()> {
    let record = record::Secret {
        action,
        by: place.user(),
        generation: vault.generation(),
        name: name.map(ToString::to_string),
        vault: hex::encode(vault.id()),
        version: name.and_then(|name| vault.secrets().get(name)).map(|sealed| sealed.version),
    };
    let row = VaultRow { id: vault.id().to_vec(), generation: vault.generation() };
    let trusted = action == SecretAction::VaultTrusted;
    let line = gate_line(record)?;
    block_on(async { Ok(state.store.note_vault(row, trusted, line).await?) })?;
    Ok(())
}

/// What a new secret is good for.
fn useful(uses: &UsesArgs) -> anyhow::Result<Uses> {
    let uses = uses.read()?;
    if uses.slots.is_empty() {
        return Err(hinted(
            "nothing says where the secret goes",
            "for an API: `--slot header:Authorization --host api.example.com --tool 'SERVER/*'`; for a server in a cell: `--slot env:NAME --tool 'SERVER/*'`; a honeytoken goes nowhere: `--honeytoken`",
        ));
    }
    check(&uses)?;
    Ok(uses)
}

fn add(place: &Place, name: &str, uses: Uses, value: &ValueArgs) -> anyhow::Result<()> {
    let name: SecretName = name.parse()?;
    let state = place.open_or_make()?;
    if !state.folder.vault().exists() {
        make(place, &state)?;
    }
    let mut opened = Opened::unlocked(place, state, value.passphrase_file.as_deref())?;
    // Before anything is typed.
    if opened.vault.secrets().contains_key(&name) {
        return Err(VaultError::SecretThere(name).into());
    }
    let text = value.read()?;
    let said = match uses.slots.is_empty() {
        true => format!("The honeytoken `{name}` is in the vault: a call that would send it is refused."),
        false => format!("The secret `{name}` is in the vault: {}.", in_words(&uses)),
    };
    let is_minted = uses.mint.is_some();
    opened.vault.add(&name, uses, &text, now_ms())?;
    opened.save(place, SecretAction::Added, Some(&name))?;
    note(said);
    if !is_minted {
        warn(&text);
    }
    place.tell(|| json!({ "secret": name.as_str(), "version": 1 }))
}

/// The first vault opens with a key file beside it, as everything else in the state folder does.
fn make(place: &Place, state: &State) -> anyhow::Result<()> {
    let (path, key) = (state.folder.vault(), state.folder.vault_key());
    if state.store.vault()?.is_some() {
        return Err(hinted(
            format!("the vault `{}` is gone", path.display()),
            "restore it from your backup; or `toolgate secret trust` begins with an empty one",
        ));
    }
    let held = Held::take(&path)?;
    if path.exists() {
        return Ok(());
    }
    let vault = empty(place, state, &held)?;
    noted(place, state, &vault, SecretAction::UnlockChanged, None)?;
    note(format_args!(
        "A vault was made at `{}`. It opens with `{}`: whoever can read your files can open it.\n\
         `toolgate secret unlock --add-passphrase` and `--add-keyring` are the stronger ways.\n",
        path.display(),
        key.display()
    ));
    Ok(())
}

/// An empty vault, written, that opens with the key file beside it; made if it is not there.
fn empty(place: &Place, state: &State, held: &Held) -> anyhow::Result<Vault> {
    let key = state.folder.vault_key();
    if !key.exists() {
        make_key_file(&key)?;
    }
    let opener = Opener { surroundings: &place.surroundings, passphrase: None };
    let mut vault = Vault::make(&state.folder.vault(), KeySource::File { path: key }, &opener)?;
    vault.save(held)?;
    Ok(vault)
}

fn rotate(place: &Place, name: &str, value: &ValueArgs) -> anyhow::Result<()> {
    let name: SecretName = name.parse()?;
    let mut opened = Opened::open(place, value.passphrase_file.as_deref())?;
    if !opened.vault.secrets().contains_key(&name) {
        return Err(VaultError::NoSecret(name).into());
    }
    let text = value.read()?;
    if *opened.vault.value(&name)? == *text {
        return Err(hinted(
            format!("this is the value that `{name}` has already"),
            "get another one where it is given out, and give that",
        ));
    }
    opened.vault.rotate(&name, &text, now_ms())?;
    let vault = opened.save(place, SecretAction::Rotated, Some(&name))?;
    let version = vault.secrets().get(&name).map_or(0, |sealed| sealed.version);
    note(format_args!(
        "The secret `{name}` has another value, its {version}th. Revoke the old one where it was given out."
    ));
    warn(&text);
    place.tell(|| json!({ "secret": name.as_str(), "version": version }))
}

fn remove(place: &Place, name: &str) -> anyhow::Result<()> {
    let name: SecretName = name.parse()?;
    let mut opened = Opened::open(place, None)?;
    opened.vault.remove(&name)?;
    opened.save(place, SecretAction::Removed, Some(&name))?;
    note(format_args!("The secret `{name}` is removed. Revoke it where it was given out."));
    place.tell(|| json!({ "secret": name.as_str(), "removed": true }))
}

/// Keeps what somebody has got who logged in: in the place of what there was before, and for the same agents and tools.
pub(crate) fn keep_login(
    place: &Place,
    name: &SecretName,
    mut uses: Uses,
    value: &[u8],
    passphrase: Option<&Path>,
) -> anyhow::Result<()> {
    let state = place.open_or_make()?;
    if !state.folder.vault().exists() {
        make(place, &state)?;
    }
    // A gate that renews it meanwhile would ask for nothing.
    let _turn = Held::take_turn(&state.folder.vault(), name)?;
    let mut opened = Opened::unlocked(place, state, passphrase)?;
    let action = match login_of(&opened.vault, name) {
        Ok((before, _)) => {
            let issuer = |uses: &Uses| uses.mint.as_ref().and_then(|mint| mint.with().get("issuer").cloned());
            if before.hosts != uses.hosts || issuer(&before) != issuer(&uses) {
                return Err(hinted(
                    "this login is for another host, or from another authorization server, than the one before",
                    "if that is as it should be, `toolgate logout SERVER` first",
                ));
            }
            (uses.agents, uses.tools) = (before.agents, before.tools);
            opened.vault.rotate(name, value, now_ms())?;
            opened.vault.set_uses(name, uses)?;
            SecretAction::Rotated
        }
        Err(VaultError::NoSecret(_)) => {
            opened.vault.add(name, uses, value, now_ms())?;
            SecretAction::Added
        }
        Err(error) => return Err(error.into()),
    };
    opened.save(place, action, Some(name)).map(drop)
}

/// Takes a login out of the vault: what it was good for, and its value.
pub(crate) fn take_login(
    place: &Place,
    name: &SecretName,
    passphrase: Option<&Path>,
) -> anyhow::Result<(Uses, Zeroizing<Vec<u8>>)> {
    let state = place.open()?;
    let _turn = Held::take_turn(&state.folder.vault(), name)?;
    let mut opened = Opened::unlocked(place, state, passphrase)?;
    let login = login_of(&opened.vault, name)?;
    opened.vault.remove(name)?;
    opened.save(place, SecretAction::Removed, Some(name))?;
    Ok(login)
}

/// The login of this name; something else may have it.
fn login_of(vault: &Vault, name: &SecretName) -> Result<(Uses, Zeroizing<Vec<u8>>), VaultError> {
    let sealed = vault.secrets().get(name).ok_or_else(|| VaultError::NoSecret(name.clone()))?;
    if !is_login(&sealed.uses) {
        return Err(VaultError::SecretThere(name.clone()));
    }
    Ok((sealed.uses.clone(), vault.value(name)?))
}

/// Whether it is what somebody has got who logged in.
pub(crate) fn is_login(uses: &Uses) -> bool {
    uses.mint.as_ref().is_some_and(|mint| mint.provider() == Provider::OauthRefresh)
}

/// What is said of a secret: never its value, nor how long that is.
fn told(name: &SecretName, sealed: &Sealed, config: &Config) -> Value {
    json!({
        "name": name.as_str(), "version": sealed.version, "changed_ms": sealed.changed_ms, "uses": sealed.uses,
        "servers": servers(config, name),
    })
}

/// The servers of the configuration that want the secret.
fn servers<'c>(config: &'c Config, name: &SecretName) -> Vec<&'c str> {
    let wants = config.servers.iter().filter(|(_, server)| server.secrets.contains(name));
    wants.map(|(server, _)| server.as_str()).collect()
}

pub(crate) fn locked(place: &Place) -> Result<Locked, VaultError> {
    Locked::read(&place.home.state.join("vault"), &place.surroundings)
}

fn list(place: &Place) -> anyhow::Result<()> {
    let config = place.config()?;
    let locked = match locked(place) {
        Err(VaultError::None(_)) => None,
        read => Some(read?),
    };
    let secrets = locked.as_ref().map(Locked::secrets).into_iter().flatten();
    if place.json {
        let all: Vec<Value> = secrets.map(|(name, sealed)| told(name, sealed, &config)).collect();
        return out::json(&all);
    }
    let rows: Vec<Vec<String>> = secrets
        .map(|(name, sealed)| {
            let uses = &sealed.uses;
            let of = |words: Vec<&str>| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
            vec![
                name.to_string(),
                sealed.version.to_string(),
                out::time(sealed.changed_ms),
                joined(&uses.hosts, "-"),
                joined(&uses.tools, "-"),
                of(servers(&config, name)),
            ]
        })
        .collect();
    if rows.is_empty() {
        note("There are no secrets: `toolgate secret add NAME` puts one into the vault.");
        return Ok(());
    }
    out::table(&["SECRET", "VERSION", "GIVEN", "HOSTS", "TOOLS", "SERVERS"], &rows)
}

fn joined<T: ToString>(all: &BTreeSet<T>, none: &str) -> String {
    if all.is_empty() {
        return none.to_owned();
    }
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn in_words(uses: &Uses) -> String {
    let to = if uses.hosts.is_empty() {
        String::new()
    } else {
        format!(", sent to {} only", joined(&uses.hosts, ""))
    };
    let what = uses.mint.as_ref().map(|mint| format!("what {} mints from it: ", mint.provider()));
    format!(
        "{}{}{to}, for calls of {} to {}",
        what.unwrap_or_default(),
        joined(&uses.slots, ""),
        joined(&uses.agents, "every agent"),
        joined(&uses.tools, "no tool")
    )
}

fn show(place: &Place, name: &str) -> anyhow::Result<()> {
    let name: SecretName = name.parse()?;
    let config = place.config()?;
    let locked = locked(place)?;
    let sealed = locked.secrets().get(&name).ok_or_else(|| VaultError::NoSecret(name.clone()))?;
    if place.json {
        return out::json(&told(&name, sealed, &config));
    }
    let servers = servers(&config, &name);
    line(format_args!("{name}"))?;
    line(format_args!("  goes to   {}", joined(&sealed.uses.slots, "nowhere: a honeytoken")))?;
    if !sealed.uses.placeholders.is_empty() {
        line(format_args!("  stands in {}", joined(&sealed.uses.placeholders, "none")))?;
    }
    line(format_args!("  hosts     {}", joined(&sealed.uses.hosts, "none")))?;
    if let Some(mint) = &sealed.uses.mint {
        line(format_args!("  minted    by {}, for {} s", mint.provider(), mint.ttl()))?;
        for (key, value) in mint.with() {
            line(format_args!("            {key} = {}", text::quoted(value, LINE_CHARS)))?;
        }
    }
    line(format_args!("  tools     {}", joined(&sealed.uses.tools, "none")))?;
    line(format_args!("  agents    {}", joined(&sealed.uses.agents, "all of them")))?;
    line(format_args!("  given     {} (version {})", out::time(sealed.changed_ms), sealed.version))?;
    line(format_args!(
        "  servers   {}",
        if servers.is_empty() { "none".to_owned() } else { servers.join(", ") }
    ))
}

/// Says where a secret may be used, or says it anew.
fn use_where(place: &Place, name: &str, uses: &UsesArgs) -> anyhow::Result<()> {
    let name: SecretName = name.parse()?;
    let given = uses.read()?;
    if given == Uses::default() {
        return show(place, name.as_str());
    }
    let mut opened = Opened::open(place, None)?;
    let sealed = opened.vault.secrets().get(&name).ok_or_else(|| VaultError::NoSecret(name.clone()))?;
    let before = sealed.uses.clone();
    // What is not said stays.
    let now = Uses {
        agents: if given.agents.is_empty() { before.agents } else { given.agents },
        hosts: if given.hosts.is_empty() { before.hosts } else { given.hosts },
        placeholders: if given.placeholders.is_empty() { before.placeholders } else { given.placeholders },
        mint: given.mint.or(before.mint),
        slots: if given.slots.is_empty() { before.slots } else { given.slots },
        tools: if given.tools.is_empty() { before.tools } else { given.tools },
    };
    check(&now)?;
    opened.vault.set_uses(&name, now.clone())?;
    opened.save(place, SecretAction::UsesChanged, Some(&name))?;
    note(format_args!("The secret `{name}` goes to {}.", in_words(&now)));
    place.tell(|| json!({ "secret": name.as_str(), "uses": now }))
}

/// What would never be used is a slip of the pen.
fn check(uses: &Uses) -> anyhow::Result<()> {
    let in_requests = uses.slots.iter().any(Slot::is_in_request);
    if in_requests && uses.hosts.is_empty() {
        return Err(hinted(
            "it goes into requests, and no host may have it",
            "say which: `--host api.example.com`",
        ));
    }
    if !uses.placeholders.is_empty() && !in_requests {
        return Err(hinted(
            "something stands for it in a cell, and there is no place in a request where it is put in",
            "say which: `--slot header:Authorization`, `--slot query:KEY` or `--slot basic:USER`",
        ));
    }
    if uses.tools.is_empty() {
        return Err(hinted("it serves no tool", "say which: `--tool 'SERVER/*'`, or `--tool SERVER/TOOL`"));
    }
    let part = uses.slots.iter().find_map(Slot::part);
    let Some(mint) = &uses.mint else {
        return match part {
            Some(part) => Err(hinted(
                format!("nothing is minted from it that has a part `{part}`"),
                "leave `=PART` away, or say what is minted: `--mint PROVIDER`",
            )),
            None => Ok(()),
        };
    };
    uses.slots.iter().try_for_each(|slot| mint.check_part(slot.part()))?;
    let in_cells = uses.slots.iter().any(|slot| !slot.is_in_request());
    if let (true, Err(MintError::Argument { argument, .. })) = (in_cells, mint.filled(None)) {
        return Err(hinted(
            format!("a program in a cell is handed it before there is a call that says `{argument}`"),
            "say what holds then: `--with idle.KEY=VALUE`; or put it into requests: `--slot header:Authorization`",
        ));
    }
    Ok(())
}

fn warn(value: &[u8]) {
    if value.len() < SHORT_VALUE {
        note(format_args!(
            "warning: the value has fewer than {SHORT_VALUE} bytes. It cannot be told from other text, so it is not taken out of \
             what servers answer."
        ));
    } else if value.len() < 16 && value.iter().all(u8::is_ascii_lowercase) {
        note(
            "warning: the value looks like a word. Wherever it occurs in what servers answer, it is taken out.",
        );
    }
    if value.iter().any(|byte| matches!(byte, b'\0' | b'\n' | b'\r')) {
        note("The value has line breaks or zero bytes: it fits a file, and no header.");
    }
}

fn trust(place: &Place) -> anyhow::Result<()> {
    let state = place.open()?;
    let path = state.folder.vault();
    if !path.exists() {
        let row = state.store.vault()?;
        if row.is_none() {
            return Err(VaultError::None(path).into());
        }
        if !terminal::yes("The vault is gone. Begin with an empty one?")? {
            return Err(hinted("nothing was changed", "say yes in a terminal"));
        }
        let vault = empty(place, &state, &Held::take(&path)?)?;
        return trusted(place, &state, &vault);
    }
    let held = Held::take(&path)?;
    let mut vault = opened(place, &state, None)?;
    // What it takes the place of is the older one from now on.
    vault.supersede(state.store.vault()?.map_or(0, |noted| noted.generation));
    vault.save(&held)?;
    trusted(place, &state, &vault)
}

fn trusted(place: &Place, state: &State, vault: &Vault) -> anyhow::Result<()> {
    noted(place, state, vault, SecretAction::VaultTrusted, None)?;
    note(format_args!(
        "The vault as it is now counts: {}, written {} times.",
        out::count(vault.secrets().len(), "secret"),
        vault.generation()
    ));
    place.tell(|| json!({ "vault": hex::encode(vault.id()), "generation": vault.generation() }))
}

fn unlock(place: &Place, change: Unlock) -> anyhow::Result<()> {
    if !change.changes() {
        return ways(place);
    }
    let mut opened = Opened::open(place, change.passphrase_file.as_deref())?;
    if let Some(number) = change.remove {
        let gone = opened.vault.remove_slot(number.saturating_sub(1))?;
        opened.save(place, SecretAction::UnlockChanged, None)?;
        note(format_args!(
            "The vault does not open with {gone} any more. Copies of `vault` that were made before still do: rotate what is in it."
        ));
        return place.tell(|| json!({ "removed": gone.to_string() }));
    }
    let from = added(place, &opened.vault, &change)?;
    let file = change.new_passphrase_file.as_deref();
    let ask = || terminal::new_secret(file).map_err(|error| VaultError::Unanswered(error.to_string()));
    let opener = Opener { surroundings: &place.surroundings, passphrase: Some(&ask) };
    opened.vault.add_slot(from.clone(), &opener)?;
    opened.save(place, SecretAction::UnlockChanged, None)?;
    note(format_args!(
        "The vault opens with {from} too. `toolgate secret unlock` lists all ways and removes one."
    ));
    place.tell(|| json!({ "added": from.to_string() }))
}

fn ways(place: &Place) -> anyhow::Result<()> {
    let locked = locked(place)?;
    if place.json {
        let all: Vec<String> = locked.sources().map(ToString::to_string).collect();
        return out::json(&all);
    }
    let rows: Vec<Vec<String>> =
        locked.sources().enumerate().map(|(at, from)| vec![(at + 1).to_string(), from.to_string()]).collect();
    out::table(&["", "THE VAULT OPENS WITH"], &rows)
}

/// Prepares one more way to unlock.
fn added(place: &Place, vault: &Vault, change: &Unlock) -> anyhow::Result<KeySource> {
    if change.add_passphrase {
        return Ok(KeySource::passphrase()?);
    }
    if let Some(path) = &change.add_key_file {
        let path = place.surroundings.folder.join(path);
        if !path.exists() {
            make_key_file(&path)?;
        }
        return Ok(KeySource::File { path });
    }
    if let Some(name) = &change.add_credential {
        return Ok(KeySource::Credential { name: name.clone() });
    }
    let id = hex::encode(vault.id());
    if change.add_keyring {
        let words = ["service", "toolgate-vault", "id", &id];
        fed(&[&["secret-tool", "store", "--label", "Toolgate vault"], words.as_slice()].concat(), &fresh()?)
            .context(
                "the keyring did not take a key (package `libsecret-tools`, and a keyring that is unlocked)",
            )?;
        return Ok(command(&[&["secret-tool", "lookup"], words.as_slice()].concat()));
    }
    if change.add_tpm {
        let file = place.home.state.join("vault.tpm");
        if file.exists() {
            return Err(VaultError::KeyFileThere(file).into());
        }
        let path = file.display().to_string();
        let name = "--name=toolgate-vault";
        fed(&["systemd-creds", "encrypt", "--with-key=tpm2", name, "-", &path], &fresh()?)
            .context("the TPM did not seal a key (`systemd-creds has-tpm2` says what is missing)")?;
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        return Ok(command(&["systemd-creds", "decrypt", name, &path, "-"]));
    }
    Ok(KeySource::Command { argv: change.command.clone() })
}

fn command(argv: &[&str]) -> KeySource {
    KeySource::Command { argv: argv.iter().map(|&word| word.to_owned()).collect() }
}

/// A new key, written down in hexadecimal.
fn fresh() -> anyhow::Result<Zeroizing<String>> {
    Ok(Zeroizing::new(hex::encode(Zeroizing::new(random::<32>()?).as_slice())))
}

/// Runs a program that reads a key from its standard input.
fn fed(argv: &[&str], key: &str) -> anyhow::Result<()> {
    let (program, arguments) = argv.split_first().context("no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("could not start `{program}`"))?;
    let written = child.stdin.take().map_or(Ok(()), |mut to| to.write_all(key.as_bytes()));
    let status = child.wait()?;
    written?;
    anyhow::ensure!(status.success(), "`{program}` ended with {status}");
    Ok(())
}

impl UsesArgs {
    fn read(&self) -> anyhow::Result<Uses> {
        fn all<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static> + Ord>(
            texts: &[String],
        ) -> anyhow::Result<BTreeSet<T>> {
            Ok(texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
        }
        Ok(Uses {
            agents: all(&self.agent)?,
            hosts: all(&self.host)?,
            placeholders: all(&self.placeholder)?,
            mint: self.mint.as_deref().map(|provider| recipe(provider, &self.with)).transpose()?,
            slots: all(&self.slot)?,
            tools: all(&self.tool)?,
        })
    }
}

fn recipe(provider: &str, with: &[String]) -> anyhow::Result<Mint> {
    let mut parameters = BTreeMap::new();
    for text in with {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            hinted(format!("`{}` is no `KEY=VALUE`", text.escape_debug()), "write `--with scope=read`")
        })?;
        let value = match value.strip_prefix('@') {
            Some(file) => fs::read_to_string(file).with_context(|| format!("could not read `{file}`"))?,
            None => value.to_owned(),
        };
        parameters.insert(key.to_owned(), value);
    }
    Ok(Mint::new(provider.parse()?, parameters)?)
}

/// Who mints, and what can be said about it.
fn providers(place: &Place) -> anyhow::Result<()> {
    if place.json {
        let all: Vec<Value> = Provider::ALL
            .into_iter()
            .map(|provider| {
                let parameters = provider.parameters().iter().map(|parameter| {
                    json!({ "name": parameter.name, "needed": parameter.needed, "what": parameter.what })
                });
                json!({
                    "provider": provider.word(), "value": provider.value(), "parts": provider.parts(),
                    "parameters": parameters.collect::<Vec<_>>(),
                })
            })
            .collect();
        return out::json(&all);
    }
    for provider in Provider::ALL {
        line(format_args!("{provider}"))?;
        line(format_args!("  the secret is {}", provider.value()))?;
        let parts = match provider.parts() {
            [] => "what the path says".to_owned(),
            parts => parts.join(", "),
        };
        line(format_args!("  what is minted has the parts: {parts}"))?;
        for parameter in provider.parameters() {
            let word = if parameter.needed { "  needed" } else { "" };
            line(format_args!("    {:18} {}{word}", parameter.name, parameter.what))?;
        }
    }
    Ok(())
}

impl ValueArgs {
    /// Reads the value: from a file, from what is piped in, or from the terminal without showing it. The end of the only
    /// line is not part of it; where there are several lines, all of it is.
    fn read(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let most = MAX_VALUE as u64 + 2;
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_VALUE + 2));
        match &self.value_file {
            Some(path) => {
                let file =
                    File::open(path).with_context(|| format!("could not read `{}`", path.display()))?;
                file.take(most).read_to_end(&mut bytes)?;
            }
            None if io::stdin().is_terminal() => {
                let text = terminal::secret("Value (it is not shown): ", None)?;
                bytes.extend_from_slice(text.as_bytes());
            }
            None => {
                io::stdin().lock().take(most).read_to_end(&mut bytes)?;
            }
        }
        let text = bytes.strip_suffix(b"\n").map(|text| text.strip_suffix(b"\r").unwrap_or(text));
        if let Some(text) = text.filter(|text| !text.contains(&b'\n')) {
            let length = text.len();
            bytes.truncate(length);
        }
        if bytes.is_empty() {
            return Err(hinted(
                "the value is empty",
                "type it, pipe it in (`pass show api | toolgate secret add …`), or name a file: `--value-file FILE`",
            ));
        }
        Ok(bytes)
    }
}

impl Unlock {
    fn changes(&self) -> bool {
        self.add_passphrase
            || self.add_key_file.is_some()
            || self.add_credential.is_some()
            || self.add_keyring
            || self.add_tpm
            || self.add_command
            || self.remove.is_some()
    }
}
