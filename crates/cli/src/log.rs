//! `toolgate log`: what happened, and the proof of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use toolgate_broker::home::write_new;
use toolgate_broker::port::Position;
use toolgate_broker::store::{Erase, SqliteStore};
use toolgate_core::{hex, text};
use toolgate_ledger::export::{self, Ocsf};
use toolgate_ledger::record::{
    Body, CallInfo, Connection, ConnectionStatus, Erasure, Export, Field, Judged, Lease, Record, Status,
    VerdictWord,
};
use toolgate_ledger::verify::{Options, Report, verify};
use toolgate_ledger::{Folder, Hash, Proof, Trust, VerifierKey, signer};

use crate::args::{Format, LogCommand, VerdictArg};
use crate::out::{self, LINE_CHARS, Paint, hinted, line, note};
use crate::place::{Place, State, block_on, gate_line, since};

/// How many records are read at once.
const PAGE: usize = 4_096;

/// How often `tail --follow` looks whether another process has written, at the latest.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) fn run(place: &Place, command: LogCommand) -> anyhow::Result<()> {
    match command {
        LogCommand::Show { id } => show(&place.open()?, &id, place.json),
        LogCommand::Tail { number, follow } => tail(&place.open()?, number, follow, place.json),
        LogCommand::Search { agent, tool, verdict, since, text } => {
            let wanted = Wanted { agent, tool, verdict, text };
            search(&place.open()?, &wanted, since.as_deref(), place.json)
        }
        LogCommand::Verify { receipt: Some(receipt), leaf: Some(leaf), vkey, .. } => {
            verify_receipt(place, &receipt, &leaf, vkey.as_deref())
        }
        LogCommand::Verify { folder, old, vkey, .. } => verify_log(place, folder, &old, vkey.as_deref()),
        LogCommand::Prove { id, out } => prove(place, &id, &out),
        LogCommand::Export { format, since } => export_records(place, format, since.as_deref()),
        LogCommand::Key => {
            let state = place.open()?;
            state.publish(&place.config()?)?;
            let key = signer::verifier_key(&state.folder.signer())?;
            if place.json { out::json(&json!({ "key": key.to_string() })) } else { line(key) }
        }
        LogCommand::Erase { record, agent, ground } => erase(place, record, agent, &ground),
    }
}

/// One record and where it is.
pub(crate) struct Placed {
    pub(crate) index: u64,
    pub(crate) record: Record,
    pub(crate) leaf: Vec<u8>,
}

impl Placed {
    /// Reads a record.
    pub(crate) fn read(index: u64, leaf: Vec<u8>) -> anyhow::Result<Self> {
        let record = Record::decode(&leaf).with_context(|| format!("record {index} cannot be read"))?;
        Ok(Self { index, record, leaf })
    }

    /// The record as JSON, with its index.
    pub(crate) fn json(&self) -> Value {
        let mut value: Value = serde_json::from_slice(&self.leaf).unwrap_or(Value::Null);
        if let Value::Object(members) = &mut value {
            members.insert("index".to_owned(), json!(self.index));
        }
        value
    }

    fn call(&self) -> Option<&CallInfo> {
        match &self.record.body {
            Body::Intent(intent) => Some(&intent.call),
            Body::QuestionAsked(question) => Some(&question.call),
            Body::Refusal(refusal) => Some(&refusal.call),
            _ => None,
        }
    }

    fn judged(&self) -> Option<&Judged> {
        match &self.record.body {
            Body::Intent(intent) => Some(&intent.judged),
            Body::QuestionAsked(question) => Some(&question.judged),
            Body::Refusal(refusal) => refusal.judged.as_ref(),
            _ => None,
        }
    }

    /// Whether the record commits to values, which are kept beside it until they are erased.
    fn has_commitments(&self) -> bool {
        match &self.record.body {
            Body::Outcome(outcome) => outcome.result.is_some(),
            _ => self.call().is_some_and(|call| call.arguments.is_some() || call.params.is_some()),
        }
    }

    /// The number of the call that the record is about.
    fn call_id(&self) -> Option<&str> {
        match &self.record.body {
            Body::Outcome(outcome) => Some(&outcome.call),
            Body::OutcomeUnknown(outcome) => Some(&outcome.call),
            Body::Connection(connection) => connection.call.as_deref(),
            Body::Delivered(delivered) => Some(&delivered.call),
            _ => self.call().map(|call| call.id.as_str()),
        }
    }
}

/// Every record from an index on, one after another, until `each` says that it is enough.
pub(crate) fn each_from(
    state: &State,
    from: u64,
    each: impl FnMut(Placed) -> anyhow::Result<bool>,
) -> anyhow::Result<u64> {
    each_in(&state.store, from, each)
}

/// As [`each_from`], of a store that is shared.
pub(crate) fn each_in(
    store: &SqliteStore,
    from: u64,
    mut each: impl FnMut(Placed) -> anyhow::Result<bool>,
) -> anyhow::Result<u64> {
    each_leaf_in(store, from, |index, leaf| each(Placed::read(index, leaf)?))
}

/// As [`each_in`], of records as they are on the log.
pub(crate) fn each_leaf_in(
    store: &SqliteStore,
    from: u64,
    mut each: impl FnMut(u64, Vec<u8>) -> anyhow::Result<bool>,
) -> anyhow::Result<u64> {
    let mut index = from;
    loop {
        let page = store.records(Position(index), PAGE)?;
        if page.is_empty() {
            return Ok(index);
        }
        for leaf in page {
            if !each(index, leaf)? {
                return Ok(index);
            }
            index += 1;
        }
    }
}

fn start(state: &State, back: Option<&str>) -> anyhow::Result<u64> {
    match back {
        Some(text) => Ok(state.store.first_since(since(text)?)?.0),
        None => Ok(0),
    }
}

/// The record with this index, or those of the call with this number.
fn records(state: &State, id: &str) -> anyhow::Result<Vec<Placed>> {
    let mut found = Vec::new();
    match id.parse::<u64>() {
        Ok(index) => {
            each_from(state, index, |placed| {
                found.push(placed);
                Ok(false)
            })?;
        }
        Err(_) => {
            each_from(state, 0, |placed| {
                if placed.call_id() == Some(id) {
                    found.push(placed);
                }
                Ok(true)
            })?;
        }
    }
    if found.is_empty() {
        return Err(hinted(
            format!("there is no record or call `{}`", id.escape_debug()),
            "`toolgate log tail` shows the last records with their indices, and `toolgate log show INDEX` has the call's number",
        ));
    }
    Ok(found)
}

fn show(state: &State, id: &str, json: bool) -> anyhow::Result<()> {
    let found = records(state, id)?;
    let mut values = Vec::new();
    for placed in &found {
        let mut disclosed = Map::new();
        for value in state.store.values(Position(placed.index))? {
            disclosed.insert(value.path.clone(), disclosed_value(&value.bytes));
        }
        let mut shown = placed.json();
        if let Value::Object(members) = &mut shown {
            let erased = disclosed.is_empty() && placed.has_commitments();
            let values = if erased { Value::Null } else { Value::Object(disclosed) };
            members.insert("values".to_owned(), values);
        }
        values.push(shown);
    }
    if json {
        return out::json(&values);
    }
    for (placed, value) in found.iter().zip(&values) {
        line(one_line(placed, Paint::out()))?;
        line(text::block(&serde_json::to_string_pretty(value)?, 100_000).text)?;
        if value["values"].is_null() {
            line("its values were erased")?;
        }
    }
    Ok(())
}

/// A stored value as it can be shown: JSON as JSON, text as text, anything else as its length.
fn disclosed_value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .or_else(|_| serde_json::from_slice(bytes.get(1..).unwrap_or_default()))
        .unwrap_or_else(|_| match std::str::from_utf8(bytes) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => Value::String(hex::encode(bytes)),
        })
}

fn tail(state: &State, number: u64, follow: bool, json: bool) -> anyhow::Result<()> {
    let paint = Paint::out();
    let print = |placed: Placed| {
        if json {
            out::json(&placed.json())?
        } else {
            line(one_line(&placed, paint))?
        }
        Ok(true)
    };
    let mut next = state.store.size()?.saturating_sub(number);
    next = each_from(state, next, print)?;
    if !follow {
        return Ok(());
    }
    block_on(async {
        let mut changes = toolgate_broker::port::Store::changes(&state.store);
        loop {
            let _waited = tokio::time::timeout(LOOK, changes.changed()).await;
            next = each_from(state, next, print)?;
        }
    })
}

/// What `log search` looks for.
struct Wanted {
    agent: Option<String>,
    tool: Option<String>,
    verdict: Option<VerdictArg>,
    text: Option<String>,
}

impl Wanted {
    fn fits(&self, placed: &Placed) -> bool {
        let verdict = placed.judged().map(|judged| match judged.verdict {
            VerdictWord::Allow => VerdictArg::Allow,
            VerdictWord::Ask => VerdictArg::Ask,
            VerdictWord::Deny => VerdictArg::Deny,
        });
        let call = placed.call();
        self.agent.as_ref().is_none_or(|name| call.is_some_and(|call| call.agent.name == *name))
            && self.tool.as_ref().is_none_or(|tool| call.is_some_and(|call| call.action == *tool))
            && self.verdict.is_none_or(|wanted| verdict == Some(wanted))
            && self
                .text
                .as_ref()
                .is_none_or(|text| String::from_utf8_lossy(&placed.leaf).contains(text.as_str()))
    }
}

fn search(state: &State, wanted: &Wanted, back: Option<&str>, json: bool) -> anyhow::Result<()> {
    let paint = Paint::out();
    let mut found = 0_u64;
    each_from(state, start(state, back)?, |placed| {
        if wanted.fits(&placed) {
            found += 1;
            if json { out::json(&placed.json())? } else { line(one_line(&placed, paint))? }
        }
        Ok(true)
    })?;
    if found == 0 {
        note("Nothing found.");
    }
    Ok(())
}

/// A record on one line.
pub(crate) fn one_line(placed: &Placed, paint: Paint) -> String {
    let what = match &placed.record.body {
        Body::Agent(agent) => {
            format!("agent `{}` {:?} by {}", agent.name, agent.action, agent.by).to_lowercase()
        }
        Body::Connection(connection) => connected(connection, paint),
        Body::Delivered(delivered) => format!("delivered  {}", delivered.call),
        Body::Erasure(erasure) => format!("erased {} values: {}", erasure.commitments.len(), erasure.ground),
        Body::Export(export) => {
            format!("exported records {} to {} as {}", export.first, export.next, export.format)
        }
        Body::Intent(intent) => {
            let persons = match intent.persons.as_slice() {
                [] => String::new(),
                persons => format!(", approved by {}", persons.join(", ")),
            };
            let rules = intent.judged.rules.join(", ");
            format!("{}   {}  by rule {rules}{persons}", paint.green("run"), about(&intent.call))
        }
        Body::Key(key) => format!("key {:?}: {}", key.action, key.key).to_lowercase(),
        Body::Outcome(outcome) => {
            let word = outcome.status.word();
            let word =
                if outcome.status == Status::Answered { paint.green(word) } else { paint.yellow(word) };
            let took = outcome.ended_ms.saturating_sub(outcome.started_ms);
            format!("{word}  {}  after {took} ms", outcome.call)
        }
        Body::Lease(lease) => {
            let scope = lease.granted.as_ref().or(lease.requested.as_ref());
            let scope = scope.map(|scope| format!(": {}", text::quoted(scope, 256))).unwrap_or_default();
            let why =
                lease.why.as_ref().map(|why| format!(", {}", text::quoted(why, 256))).unwrap_or_default();
            let Lease { secret, provider, server, action, .. } = lease;
            format!("lease of {secret} by {provider} for {server} {}{scope}{why}", action.words())
        }
        Body::OutcomeUnknown(outcome) => format!("{}  {}", paint.yellow("outcome unknown"), outcome.call),
        Body::Person(person) => {
            format!("person `{}` {:?} by {}", person.name, person.action, person.by).to_lowercase()
        }
        Body::Policy(policy) => format!("policy {:?}: {} rules", policy.action, policy.rules).to_lowercase(),
        Body::QuestionAnswered(answer) => {
            format!("{} said {:?} to {}", answer.person, answer.answer, answer.question).to_lowercase()
        }
        Body::QuestionAsked(question) => {
            format!(
                "{}   {}  as {} ({})",
                paint.yellow("ask"),
                about(&question.call),
                question.question,
                question.topic
            )
        }
        Body::QuestionExpired(question) => {
            format!("question {} expired: {:?}", question.question, question.why)
        }
        Body::Refusal(refusal) => {
            let rule = refusal.rule.as_ref().map(|rule| format!(" by rule {rule}")).unwrap_or_default();
            format!("{} {}  {}{rule}", paint.red("refuse"), about(&refusal.call), refusal.code)
        }
        Body::Secret(secret) => {
            let what = secret.name.as_ref().map_or("the vault".to_owned(), |name| format!("secret {name}"));
            format!("{what} {} by {}", secret.action.words(), secret.by)
        }
        Body::Start(start) => format!("start  toolgate {}, log {}", start.program, start.origin),
        Body::Stop(stop) => format!("stop   {}", stop.reason),
        Body::ToolPin(pin) => {
            let by = pin.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            format!("tool {} {:?}{by}", pin.tool, pin.action).to_lowercase()
        }
        Body::Unknown(unknown) => format!("{} (of a later version)", unknown.kind),
    };
    // What comes from agents and servers is in here: nothing of it may move the cursor. Our own colours come last.
    let index = paint.dim(format!("{:>6}", placed.index));
    format!("{index}  {}  {what}", out::time(placed.record.time_ms))
}

fn connected(connection: &Connection, paint: Paint) -> String {
    let Connection { server, to, port, up, down, times, why, .. } = connection;
    let word = match connection.status {
        ConnectionStatus::Connected => paint.green("connected"),
        ConnectionStatus::Failed => paint.yellow("not connected"),
        ConnectionStatus::Refused => paint.red("connection refused"),
    };
    let to = if *port == 0 { text::quoted(to, 256) } else { text::quoted(&format!("{to}:{port}"), 256) };
    let bytes = if up + down == 0 { String::new() } else { format!(", {up} bytes there, {down} back") };
    let times = if *times == 1 { String::new() } else { format!(", {times} times") };
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{word}  {server} to {to}{bytes}{times}{why}")
}

fn about(call: &CallInfo) -> String {
    format!("{} {}", text::quoted(&call.agent.name, 64), text::quoted(&call.action, LINE_CHARS))
}

fn trust(place: &Place, vkey: Option<&str>) -> anyhow::Result<Trust> {
    let key: VerifierKey = match vkey {
        Some(text) => text.trim().parse().context("the verifier key cannot be read")?,
        None => {
            let signer = place.home.state.join("signer");
            signer::verifier_key(&signer).map_err(|error| {
                hinted(error.to_string(), "say which key the log has to be signed with: `--vkey KEY`")
            })?
        }
    };
    Ok(Trust::key(key))
}

fn verify_log(
    place: &Place,
    folder: Option<PathBuf>,
    old: &[PathBuf],
    vkey: Option<&str>,
) -> anyhow::Result<()> {
    let folder = match folder {
        Some(folder) => folder,
        None => {
            let state = place.open()?;
            state.publish(&place.config()?)?;
            state.folder.log()
        }
    };
    let mut options = Options::new(trust(place, vkey)?);
    for path in old {
        let bytes = fs::read(path).with_context(|| format!("could not read `{}`", path.display()))?;
        options.older.push((path.display().to_string(), bytes));
    }
    let report = verify(&Folder::new(folder), &options, |_, _| {});
    if place.json {
        out::json(&report)?;
    } else {
        print_report(&report)?;
        if report.is_sound() && old.is_empty() {
            line("a log cut back as a whole is found only with an older checkpoint: `--old`")?;
        }
    }
    if report.is_sound() {
        Ok(())
    } else {
        Err(hinted(
            "the log is not what it should be",
            "stop the gate, keep a copy of the state folder as it is, and compare it with your backups",
        ))
    }
}

/// Checks a receipt with nothing but the key: neither the log nor a gate has to be there.
fn verify_receipt(place: &Place, receipt: &Path, leaf: &Path, vkey: Option<&str>) -> anyhow::Result<()> {
    let proof = Proof::parse(&read_bounded(receipt)?)
        .with_context(|| format!("`{}` cannot be used", receipt.display()))?;
    let entry = read_bounded(leaf)?;
    let trust = trust(place, vkey)?;
    let (checkpoint, _witnesses) = proof.verify(&entry, &trust).map_err(|error| {
        hinted(
            format!("`{}` does not prove `{}`: {error}", receipt.display(), leaf.display()),
            "take both files as `toolgate log prove` wrote them, and the key that the log's operator gives out",
        )
    })?;
    if place.json {
        return out::json(
            &json!({ "origin": checkpoint.origin, "index": proof.index, "size": checkpoint.size, "sound": true }),
        );
    }
    line(format_args!("log         {}", text::quoted(&checkpoint.origin, LINE_CHARS)))?;
    line(format_args!("index       {} of {}", proof.index, out::count(checkpoint.size, "record")))?;
    line(Paint::out().green("sound: the record is in the log, and the log is signed"))
}

/// How large a receipt or a record may be that is read for checking it: more than either can be.
const MAX_RECEIPT: u64 = 1 << 20;

fn read_bounded(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("could not read `{}`", path.display()))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_RECEIPT), &mut bytes)
        .with_context(|| format!("could not read `{}`", path.display()))?;
    Ok(bytes)
}

/// Says what verification found.
pub(crate) fn print_report(report: &Report) -> anyhow::Result<()> {
    let paint = Paint::out();
    let origin = report.origin.as_deref().unwrap_or("(unknown)");
    line(format_args!("log         {}", text::quoted(origin, LINE_CHARS)))?;
    line(format_args!("records     {}", report.size))?;
    if let Some(root) = &report.root {
        line(format_args!("root        {}", hex::encode(&root.0)))?;
    }
    for (kind, count) in &report.kinds {
        line(format_args!("  {count:>9} {}", text::quoted(kind, 64)))?;
    }
    for older in &report.extends {
        line(format_args!("extends     {}", text::quoted(older, LINE_CHARS)))?;
    }
    if !report.open_intents.is_empty() {
        line(format_args!("under way   {} calls without an outcome yet", report.open_intents.len()))?;
    }
    for finding in &report.findings {
        line(format_args!("{} {}", paint.red("WRONG"), text::quoted(&finding.to_string(), 1_000)))?;
    }
    if report.more_findings > 0 {
        line(format_args!("{} {} more", paint.red("WRONG"), report.more_findings))?;
    }
    if report.is_sound() {
        line(paint.green("sound: every record is in the tree, and the tree is signed"))?;
    }
    Ok(())
}

fn prove(place: &Place, id: &str, out: &Path) -> anyhow::Result<()> {
    let state = place.open()?;
    state.publish(&place.config()?)?;
    let mut found = records(&state, id)?;
    // That an answer was delivered is no part of a call's receipt, unless it is asked for by its index.
    if found.len() > 1 {
        found.retain(|placed| !matches!(placed.record.body, Body::Delivered(_)));
    }
    let (folder, trust) = (Folder::new(state.folder.log()), trust(place, None)?);
    fs::create_dir_all(out).with_context(|| format!("could not make `{}`", out.display()))?;
    let mut written = Vec::new();
    for placed in found {
        let (proof, leaf) = folder.prove(placed.index, &trust).map_err(|error| {
            hinted(error.to_string(), "if the gate is running, it publishes within a second: try again")
        })?;
        for (ending, bytes) in [("tlog-proof", proof.to_string().into_bytes()), ("json", leaf)] {
            let path = out.join(format!("{id}.{}.{ending}", placed.record.body.kind()));
            write_new(&path, &bytes)?;
            if !place.json {
                line(path.display())?;
            }
            written.push(path);
        }
    }
    place.tell(|| json!({ "call": id, "files": written }))?;
    note(
        "Each `.tlog-proof` shows that the `.json` beside it is in the log: `toolgate log verify --receipt … --leaf … --vkey …`, with what `toolgate log key` prints.",
    );
    Ok(())
}

fn export_records(place: &Place, format: Format, back: Option<&str>) -> anyhow::Result<()> {
    let state = place.open()?;
    let first = start(&state, back)?;
    let end = state.store.size()?;
    let word = match format {
        Format::Jsonl => "jsonl",
        Format::Ocsf => "ocsf",
    };
    state.publish(&place.config()?)?;
    // Written down before anything leaves.
    let record = Export { by: place.user(), first, format: word.to_owned(), next: end };
    block_on(async { Ok(toolgate_broker::port::Store::append(&state.store, gate_line(record)?).await?) })?;
    let origin = signer::verifier_key(&state.folder.signer())?.name().to_owned();
    let mut ocsf = Ocsf::new(&origin, env!("CARGO_PKG_VERSION"));
    each_from(&state, first, |placed| {
        if placed.index >= end {
            return Ok(false);
        }
        match format {
            Format::Jsonl => {
                if let Some(text) = export::json_line(placed.index, &placed.leaf) {
                    line(text)?;
                }
            }
            Format::Ocsf => {
                if let Some(event) = ocsf.event(placed.index, &placed.leaf) {
                    out::json(&event)?;
                }
            }
        }
        Ok(true)
    })?;
    Ok(())
}

/// How many commitments one record of an erasure names, so that it fits into an entry.
const MAX_COMMITMENTS: usize = 200;

/// How many records with values are looked at in one go.
const STORED_PAGE: u32 = 256;

fn erase(place: &Place, record: Option<u64>, agent: Option<String>, ground: &str) -> anyhow::Result<()> {
    let state = place.open()?;
    let (what, commitments) = match (record, agent) {
        (Some(index), _) => (Erase::Record(Position(index)), commitments(&state.store, Position(index))?),
        (None, Some(agent)) => {
            let commitments = commitments_of(&state.store, &agent)?;
            (Erase::Subject(agent), commitments)
        }
        (None, None) => {
            return Err(hinted("nothing to erase was named", "say `--record INDEX` or `--agent NAME`"));
        }
    };
    // What does not fit into the record that is written together with the erasure is named before it. (Of an agent that
    // goes on calling meanwhile, the newest values go without being named: its commitments are in their own records.)
    let mut parts: Vec<&[Hash]> = commitments.chunks(MAX_COMMITMENTS).collect();
    let last = parts.pop().unwrap_or_default();
    let named = |commitments: &[Hash]| {
        gate_line(Erasure {
            by: place.user(),
            commitments: commitments.to_vec(),
            ground: text::quoted(ground, 500),
        })
    };
    block_on(async {
        for part in parts {
            toolgate_broker::port::Store::append(&state.store, named(part)?).await?;
        }
        Ok(state.store.erase(what, named(last)?).await?)
    })?;
    note(format_args!(
        "Erased {} values. The log keeps its commitments, and every proof still holds.",
        commitments.len()
    ));
    place.tell(|| json!({ "erased": commitments.len(), "ground": ground }))
}

/// The commitments to all stored values of an agent.
fn commitments_of(store: &SqliteStore, agent: &str) -> anyhow::Result<Vec<Hash>> {
    let mut found = Vec::new();
    let mut from = Position(0);
    loop {
        let page = store.stored_of(agent, from, STORED_PAGE)?;
        let Some(last) = page.last() else { return Ok(found) };
        from = Position(last.0 + 1);
        for index in page {
            found.extend(commitments(store, index)?);
        }
    }
}

/// The commitments to the stored values of one record.
fn commitments(store: &SqliteStore, index: Position) -> anyhow::Result<Vec<Hash>> {
    let named = store.values(index)?.into_iter().filter_map(|value| {
        let field = Field::from_path(&value.path)?;
        Some(toolgate_ledger::commit(field, &value.salt, &value.bytes))
    });
    Ok(named.collect())
}
