//! The benchmarks, as one table: each part runs programs built with `--release` for some seconds and reads what they print.
//!
//! A row has a name, a value and a unit; where the same was measured without Toolgate in the same run, that is `direct`.
//! Figures of a busy machine say little: the load is printed along with them, and ratios hold better than times.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{
    run::{Workspace, output, say},
    suites::gate::{ALLOW_ALL, Gate, Program, limited, scratch},
};

/// A part: its name, and what measures it.
type Part = (&'static str, fn(&Workspace) -> Result<Vec<Value>>);

const PARTS: [Part; 8] = [
    ("cells", cells),
    ("policy", policy),
    ("scrub", scrub),
    ("store", store),
    ("ledger", ledger),
    ("gateway", gateway),
    ("list", list),
    ("memory", memory),
];

/// How many calls the part `memory` makes, unless the variable `TOOLGATE_BENCH_CALLS` says otherwise.
const CALLS: u32 = 1_000_000;

/// Everything that the parts run, by one command: others would build what it depends on again, with other features.
#[rustfmt::skip]
const BUILD: &[&str] = &[
    "build", "--quiet", "--release", "--locked",
    "-p", "toolgate", "--bin", "toolgate",
    "-p", "toolgate-fixtures", "--bin", "bench-client", "--bin", "bench-upstream",
    "-p", "toolgate-core", "--example", "policy_speed", "--example", "scrub_speed",
    "-p", "toolgate-broker", "--example", "store_speed",
    "-p", "toolgate-sandbox", "--example", "cell_speed",
    "-p", "toolgate-ledger", "--example", "make_log", "--example", "verify_log",
];

/// How many records the log of the part `ledger` has.
const RECORDS: &str = "1000000";

/// Length of a tick of `/proc/PID/stat`, which is the same on every Linux that Rust knows.
const TICK: Duration = Duration::from_millis(10);

/// Runs all parts, or those named, and prints a table or one line of JSON for each figure.
pub(crate) fn run(workspace: &Workspace, names: &[String], json: bool) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !PARTS.iter().any(|(part, _)| part == name)) {
        let known: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
        bail!("`{unknown}` is no benchmark; there are: {}", known.join(", "));
    }
    let workspace = workspace.released();
    say("building");
    output(&mut workspace.cargo(BUILD.iter().copied()))?;
    let (mut rows, mut failed) = (vec![load("before")?], Vec::new());
    for (name, measure) in
        PARTS.iter().filter(|(part, _)| names.is_empty() || names.iter().any(|n| n == part))
    {
        if !json {
            say(&format!("measuring {name}"));
        }
        match measure(&workspace) {
            Ok(measured) => rows.extend(measured),
            Err(error) => {
                say(&format!("the benchmark `{name}` failed: {error:#}"));
                failed.push(*name);
            }
        }
    }
    rows.push(load("after")?);
    match json {
        true => rows.iter().for_each(|row| println!("{row}")),
        false => print!("{}", table(&rows)),
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => bail!("not measured: {}", names.join(", ")),
    }
}

/// How busy the machine is.
fn load(when: &str) -> Result<Value> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let value: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    let cores = std::thread::available_parallelism()?;
    Ok(row(format!("load {when}"), value, &format!("of {cores} cores")))
}

fn row(name: impl Into<String>, value: f64, unit: &str) -> Value {
    json!({"name": name.into(), "value": value, "unit": unit})
}

/// What an example prints.
fn example(workspace: &Workspace, name: &str, arguments: &[&str]) -> Result<String> {
    output(limited(workspace.built("examples").join(name)).args(arguments))
}

/// Cells beside bare programs, and beside bubblewrap where it is installed.
fn cells(workspace: &Workspace) -> Result<Vec<Value>> {
    let program = workspace.built("toolgate");
    let text = example(workspace, "cell_speed", &[&program.to_string_lossy()])?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Verdicts of a large policy.
fn policy(workspace: &Workspace) -> Result<Vec<Value>> {
    Ok(figures(&example(workspace, "policy_speed", &[])?))
}

/// Texts looked through for known values.
fn scrub(workspace: &Workspace) -> Result<Vec<Value>> {
    Ok(figures(&example(workspace, "scrub_speed", &[])?))
}

/// Lines of the form `what was measured   VALUE UNIT`; others are left out.
fn figures(text: &str) -> Vec<Value> {
    let figure = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let (unit, value) = (words.next()?, words.next()?.parse().ok()?);
        let mut name: Vec<_> = words.collect();
        name.reverse();
        // After a comma it is one figure of several, which has no name.
        (!name.last()?.ends_with(',')).then(|| row(name.join(" "), value, unit))
    };
    text.lines().filter_map(figure).collect()
}

/// Writes of the store, against a plain file.
fn store(workspace: &Workspace) -> Result<Vec<Value>> {
    let folder = scratch(workspace, "bench", "store")?;
    let text = example(workspace, "store_speed", &[&folder.to_string_lossy(), "1"])?;
    let mut rows = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        let at = line.get("in_flight").and_then(Value::as_u64).context("no `in_flight`")?;
        for (name, unit, direct) in [
            ("records_per_s", "1/s", Some("plain_per_s")),
            ("records_p50_us", "µs", Some("plain_p50_us")),
            ("calls_per_s", "1/s", None),
            ("calls_p50_us", "µs", None),
            ("calls_p99_us", "µs", None),
        ] {
            let mut row = row(format!("store {name}, {at} in flight"), number(&line, name)?, unit);
            if let Some(direct) = direct {
                set(&mut row, "direct", number(&line, direct)?);
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

fn number(object: &Value, name: &str) -> Result<f64> {
    object.get(name).and_then(Value::as_f64).with_context(|| format!("no number `{name}` in {object}"))
}

fn set(row: &mut Value, name: &str, value: f64) {
    if let Some(row) = row.as_object_mut() {
        row.insert(name.to_owned(), json!(value));
    }
}

/// Writing and verifying a log of a million records.
fn ledger(workspace: &Workspace) -> Result<Vec<Value>> {
    let folder = scratch(workspace, "bench", "ledger")?;
    let timed = |name: &str, arguments: &[&std::ffi::OsStr]| -> Result<Value> {
        let begin = Instant::now();
        output(limited(workspace.built("examples").join(name)).args(arguments))?;
        Ok(row(format!("ledger {name}, {RECORDS} records"), begin.elapsed().as_secs_f64(), "s"))
    };
    let made = timed("make_log", &[folder.as_os_str(), RECORDS.as_ref()])?;
    let key = std::fs::read_to_string(folder.join("vkey"))?;
    let rows = vec![made, timed("verify_log", &[folder.join("log").as_os_str(), key.trim().as_ref()])?];
    std::fs::remove_dir_all(&folder)?;
    Ok(rows)
}

/// Starts a server with some tools and a gate in front of it.
fn stage(workspace: &Workspace, test: &str, tools: &str) -> Result<(Program, Gate)> {
    let upstream = Program::fixture(workspace, "bench-upstream", &["--tools", tools])?;
    let servers = format!("[servers.bench]\nurl = \"{}\"\n", upstream.url());
    let gate = Gate::start(workspace, "bench", test, &servers, Some(ALLOW_ALL))?;
    Ok((upstream, gate))
}

/// What `bench-client` measured.
fn client(workspace: &Workspace, url: &str, token: Option<&Path>, arguments: &[&str]) -> Result<Value> {
    let mut command = limited(workspace.built("bench-client"));
    command.args(["--url", url]).args(arguments);
    if let Some(token) = token {
        command.arg("--token-file").arg(token);
    }
    Ok(serde_json::from_str(&output(&mut command)?)?)
}

/// Calls through the whole gate, each with two durable records, against the same calls without it.
fn gateway(workspace: &Workspace) -> Result<Vec<Value>> {
    let (upstream, mut gate) = stage(workspace, "gateway", "1")?;
    let token = gate.token_file();
    gate.down()?;
    let begin = Instant::now();
    gate.up()?;
    let first = ["--tool", "bench__echo", "--calls", "1", "--cold"];
    client(workspace, gate.url(), Some(&token), &first)?;
    let mut rows = vec![row("start to first call", begin.elapsed().as_secs_f64() * 1e3, "ms")];
    gate.down()?;
    gate.up()?;
    let id = gate.id().context("the gate is not up")?;
    rows.push(row("gate memory, idle", resident(id)?, "MiB"));
    for (connections, calls) in [("1", "500"), ("16", "4000")] {
        let load = ["--connections", connections, "--calls", calls];
        let direct = client(workspace, upstream.url(), None, &load)?;
        let through = [&load[..], &["--tool", "bench__echo"]].concat();
        let through = |more: &[&str]| client(workspace, gate.url(), Some(&token), &[&through, more].concat());
        let timed = through(&[])?;
        // Again without the calls before the client's clock starts: they come one at a time, which costs the gate more.
        let before = cpu(id)?;
        let made = number(&through(&["--cold"])?, "calls")?;
        let spent = cpu(id)?.saturating_sub(before).as_secs_f64() * 1e6;
        for (name, unit) in [("p50", "µs"), ("p99", "µs"), ("per_second", "1/s")] {
            let mut row = row(format!("call {name}, {connections} connections"), number(&timed, name)?, unit);
            set(&mut row, "direct", number(&direct, name)?);
            rows.push(row);
        }
        rows.push(row(format!("gate CPU a call, {connections} connections"), spent / made, "µs"));
    }
    rows.push(row("gate memory, after", resident(id)?, "MiB"));
    gate.stop()?;
    Ok(rows)
}

/// The list of a thousand tools.
fn list(workspace: &Workspace) -> Result<Vec<Value>> {
    let (upstream, gate) = stage(workspace, "list", "1000")?;
    let load = ["--list", "--calls", "100"];
    let direct = client(workspace, upstream.url(), None, &load)?;
    let through = client(workspace, gate.url(), Some(&gate.token_file()), &load)?;
    let mut rows = Vec::new();
    for name in ["p50", "p99"] {
        let mut row = row(format!("tools/list of 1,000 tools, {name}"), number(&through, name)?, "µs");
        set(&mut row, "direct", number(&direct, name)?);
        rows.push(row);
    }
    gate.stop()?;
    Ok(rows)
}

/// What the gate holds after a tenth of many calls, and after all of them.
fn memory(workspace: &Workspace) -> Result<Vec<Value>> {
    let calls = match std::env::var("TOOLGATE_BENCH_CALLS") {
        Ok(text) => text.parse().context("`TOOLGATE_BENCH_CALLS` is a number of calls")?,
        Err(_absent) => CALLS,
    };
    let (_upstream, gate) = stage(workspace, "memory", "1")?;
    let id = gate.id().context("the gate is not up")?;
    let tenth = (calls / 10).to_string();
    let load = ["--connections", "256", "--calls", &tenth, "--tool", "bench__echo"];
    let mut held = Vec::new();
    for _tenth in 0..10 {
        client(workspace, gate.url(), Some(&gate.token_file()), &load)?;
        held.push(resident(id)?);
    }
    gate.stop()?;
    let (Some(first), Some(last)) = (held.first(), held.last()) else { bail!("nothing was measured") };
    let mut row = row(format!("gate memory after {calls} calls (direct: after a tenth)"), *last, "MiB");
    set(&mut row, "direct", *first);
    Ok(vec![row])
}

/// The processor time that a process has used.
fn cpu(id: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    ticks(&text).map(|ticks| TICK * ticks).with_context(|| format!("could not read `{text}`"))
}

/// User and system time in a line of `/proc/PID/stat`, which names the program in brackets first.
fn ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    next()?.checked_add(next()?)
}

/// The memory that a process holds, in MiB.
fn resident(id: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no `VmRSS`")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn text_of(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => format!("{:.1}", number.as_f64().unwrap_or_default()),
        Some(_) | None => String::new(),
    }
}

fn table(rows: &[Value]) -> String {
    let mut lines = vec![["benchmark", "value", "unit", "direct", "ratio"].map(str::to_owned)];
    for row in rows {
        let ratio = match (number(row, "value"), number(row, "direct")) {
            (Ok(value), Ok(direct)) if direct != 0.0 => format!("{:.2}", value / direct),
            _ => String::new(),
        };
        let of = |name| text_of(row, name);
        lines.push([of("name"), of("value"), of("unit"), of("direct"), ratio]);
    }
    let widths: [usize; 5] = std::array::from_fn(|at| {
        lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_other_lines_are_not() {
        let text = "judge p50     1.25 µs\nverdicts      3 allow, 2 ask\n\n7 µs\n";
        assert_eq!(figures(text), [row("judge p50", 1.25, "µs")]);
    }

    #[test]
    fn ticks_are_those_of_the_process_whatever_its_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 30 12 5 5 20 0 9 0 100 0 0";
        for (stat, want) in [(stat, Some(42)), ("7 (a) S 1", None), ("nothing", None)] {
            assert_eq!(ticks(stat), want, "stat: {stat}");
        }
    }
}
