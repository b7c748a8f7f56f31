//! `toolgate secret scan` and `toolgate scrub`: for people who want to know what is in a text, or to have it without. The
//! rules of the configuration, if there is one, count here too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};
use toolgate_core::digest::Digest;
use toolgate_core::json::{Document, Limits};
use toolgate_core::scrub::detect::{Classes, CustomRules, Detector};
use toolgate_core::scrub::{self, Cleaned, Detect as _, Found, Kind, Scrubber, Withheld};
use toolgate_core::text;

use crate::args::{Scan, Scrub};
use crate::out::{self, hinted, line, note};
use crate::place::Place;

/// Something was found.
pub(crate) const FOUND: u8 = 3;
/// How deep folders are looked into.
const MAX_DEPTH: usize = 64;
/// After so many the rest is only counted.
const MAX_SHOWN: usize = 10_000;
/// How much of a file says whether it is text.
const BINARY_HEAD: usize = 8192;
/// Bytes of context before and after what is masked.
const CONTEXT: usize = 32;

/// Something that was found in a file.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    line: usize,
    /// Where in the JSON of that line, for files of JSON lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    kind: String,
    /// The text around it, with all but its first characters left out.
    excerpt: String,
    /// The same for the same value: so one can say which ones are known.
    fingerprint: String,
}

/// What a scan went through.
#[derive(Debug, Default)]
struct Report {
    findings: Vec<Finding>,
    found: usize,
    files: usize,
    bytes: u64,
    /// Files that were not looked into, by the reason.
    skipped: BTreeMap<&'static str, usize>,
}

pub(crate) fn scan(place: &Place, arguments: &Scan) -> anyhow::Result<ExitCode> {
    let rules = place.config()?.scrub_rules;
    let detector = Detector::new(classes(&arguments.pii)?, rules.clone());
    let max = arguments.max_size.saturating_mul(1 << 20);
    let shows = io::stderr().is_terminal();
    let mut scanner = Scanner { detector, rules, max, report: Report::default(), shows };
    for path in &arguments.paths {
        if path.as_os_str() == "-" {
            let bytes = bounded(&mut io::stdin().lock(), max).context("could not read standard input")?;
            let bytes = bytes.ok_or_else(|| too_large("standard input", arguments.max_size))?;
            scanner.text("-", &bytes);
        } else {
            let about =
                fs::symlink_metadata(path).with_context(|| format!("could not read `{}`", path.display()))?;
            if about.is_dir() { scanner.folder(path, 0) } else { scanner.file(path) }
        }
    }
    scanner.clear();
    let report = scanner.report;
    for finding in &report.findings {
        if place.json {
            out::json(finding)?;
        } else {
            let Finding { file, line: number, at, kind, excerpt, fingerprint } = finding;
            let at = at.as_ref().map_or(String::new(), |at| format!(" {}", text::line(at, 80).text));
            line(format_args!(
                "{}:{number}{at}  {kind}  {fingerprint}",
                text::line(file, out::LINE_CHARS).text
            ))?;
            line(format_args!("    {excerpt}"))?;
        }
    }
    for (why, count) in &report.skipped {
        note(format_args!("Not looked into: {} ({why}).", out::count(count, "file")));
    }
    let unshown = report.found - report.findings.len();
    if unshown > 0 {
        note(format_args!("{unshown} more are not shown."));
    }
    let looked = format!("{}, {} KiB", out::count(report.files, "file"), report.bytes >> 10);
    note(format_args!("Found {} in {looked}.", out::count(report.found, "secret")));
    // What could not be looked into may hold some; only links and binary files are left out on purpose.
    let unseen = report.skipped.keys().any(|why| !matches!(*why, BINARY | LINK));
    Ok(match (report.found, unseen) {
        (0, false) => ExitCode::SUCCESS,
        (0, true) => ExitCode::from(1),
        _ => ExitCode::from(FOUND),
    })
}

/// Cleans standard input.
pub(crate) fn scrub(place: &Place, arguments: &Scrub) -> anyhow::Result<()> {
    let rules = place.config()?.scrub_rules;
    let max = arguments.max_size.saturating_mul(1 << 20);
    let bytes = bounded(&mut io::stdin().lock(), max).context("could not read standard input")?;
    let bytes = bytes.ok_or_else(|| too_large("standard input", arguments.max_size))?;
    let detector = Detector::new(classes(&arguments.pii)?, rules.clone());
    let named = rules.clone();
    let tokens =
        move |kind: Kind, value: &[u8]| format!("[{}#{}]", name_of(kind, &named), fingerprint(value));
    let scrubber = Scrubber::new(vec![Arc::new(detector)], Arc::new(tokens));
    let Cleaned { bytes: clean, removed } = cleaned(&scrubber, &bytes)?;
    let counts: BTreeMap<&str, usize> =
        removed.iter().map(|(kind, count)| (name_of(*kind, &rules), *count)).collect();
    if place.json {
        let text = String::from_utf8(clean).map_err(|_bytes| {
            hinted("the text is not UTF-8, so it cannot stand in JSON", "leave out `--json`")
        })?;
        return out::json(&json!({ "text": text, "removed": counts }));
    }
    let mut out = io::stdout().lock();
    out.write_all(&clean)?;
    out.flush()?;
    for (kind, count) in &counts {
        note(format_args!("{count:>6}  {kind}"));
    }
    note(format_args!("Removed {}.", out::count(counts.values().sum::<usize>(), "value")));
    Ok(())
}

/// The text without what was found. JSON stays JSON: where a token cannot stand, as for a number, it is refused.
fn cleaned(scrubber: &Scrubber, bytes: &[u8]) -> anyhow::Result<Cleaned> {
    let withheld =
        |why: Withheld| hinted(why.to_string(), "nothing was written; divide the text and try again");
    let cleaned = scrubber.scrub_text(bytes).map_err(withheld)?;
    let is_json = |bytes: &[u8]| Document::parse(bytes, &Limits::default()).is_ok();
    if is_json(bytes) && !is_json(&cleaned.bytes) {
        return Err(hinted(
            "something in the JSON is no string, and cannot be replaced by one",
            "nothing was written; `toolgate secret scan -` says where it is",
        ));
    }
    Ok(cleaned)
}

/// Secrets, and the classes of personal data that were asked for.
fn classes(pii: &[String]) -> anyhow::Result<Classes> {
    let names = pii.iter().map(|name| if name == "all" { "pii".to_owned() } else { format!("pii.{name}") });
    let names: Vec<String> = std::iter::once("secrets".to_owned()).chain(names).collect();
    Ok(Classes::parse(names.iter().map(String::as_str))?)
}

const BINARY: &str = "binary";
const LINK: &str = "links and devices";

struct Scanner {
    detector: Detector,
    rules: CustomRules,
    max: u64,
    report: Report,
    shows: bool,
}

impl Scanner {
    fn folder(&mut self, path: &Path, depth: usize) {
        let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let Ok(mut entries) = entries else { return self.skip("cannot be read") };
        if depth == MAX_DEPTH {
            return self.skip("too deep");
        }
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && entry.file_name() == ".git" => {}
                Ok(kind) if kind.is_dir() => self.folder(&entry.path(), depth + 1),
                Ok(kind) if kind.is_file() => self.file(&entry.path()),
                Ok(_) => self.skip(LINK),
                Err(_) => self.skip("cannot be read"),
            }
        }
    }

    fn file(&mut self, path: &Path) {
        if self.shows && self.report.files.is_multiple_of(64) {
            let mut err = io::stderr().lock();
            let _unheard = write!(err, "\r\x1b[2K{} files, {} found", self.report.files, self.report.found);
            let _unheard = err.flush();
        }
        let Ok(mut file) = File::open(path) else { return self.skip("cannot be read") };
        if file.metadata().is_ok_and(|about| !about.is_file()) {
            return self.skip(LINK);
        }
        match bounded(&mut file, self.max) {
            Err(_) => self.skip("cannot be read"),
            Ok(None) => self.skip("larger than --max-size"),
            Ok(Some(bytes)) if bytes.iter().take(BINARY_HEAD).any(|&byte| byte == 0) => self.skip(BINARY),
            Ok(Some(bytes)) => self.text(&path.display().to_string(), &bytes),
        }
    }

    fn skip(&mut self, why: &'static str) {
        *self.report.skipped.entry(why).or_default() += 1;
    }

    fn clear(&self) {
        if self.shows {
            let _unheard = write!(io::stderr().lock(), "\r\x1b[2K");
        }
    }

    fn text(&mut self, file: &str, bytes: &[u8]) {
        self.report.files += 1;
        self.report.bytes += bytes.len() as u64;
        // Transcripts are JSON lines: each string of them is looked at as what it is, not as it is escaped.
        let lines = || bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let transcript = lines().take(4).all(|line| line.trim_ascii().starts_with(b"{"))
            && lines().take(2).count() > 1
            && lines().take(4).all(|line| serde_json::from_slice::<Value>(line).is_ok());
        if !transcript {
            return self.look(file, 1, None, bytes, &scrub::Place::default());
        }
        for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            match serde_json::from_slice::<Value>(line) {
                Ok(value) => self.value(file, number, &mut String::new(), &value, &scrub::Place::default()),
                Err(_) => self.look(file, number, None, line, &scrub::Place::default()),
            }
        }
    }

    fn value(&mut self, file: &str, number: usize, at: &mut String, value: &Value, place: &scrub::Place<'_>) {
        let length = at.len();
        match value {
            Value::String(text) => self.look(file, number, Some(at), text.as_bytes(), place),
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    at.push_str(&format!("[{index}]"));
                    self.value(file, number, at, value, place);
                    at.truncate(length);
                }
            }
            Value::Object(members) => {
                let says = ["name", "key"].iter().find_map(|key| members.get(*key)?.as_str());
                for (key, value) in members {
                    at.push_str(if length == 0 { "" } else { "." });
                    at.push_str(key);
                    let sibling = says.filter(|_| key == "value");
                    self.value(file, number, at, value, &scrub::Place { key: Some(key), sibling });
                    at.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn look(&mut self, file: &str, first: usize, at: Option<&str>, bytes: &[u8], place: &scrub::Place<'_>) {
        let mut found = Vec::new();
        if self.detector.find(bytes, place, &mut found).is_err() {
            return self.skip("takes too much work");
        }
        found.sort_by_key(|found| (found.range.start, usize::MAX - found.range.end));
        let mut end = 0;
        let mut counted = (0, first);
        for Found { range, kind } in found {
            if range.end <= end {
                continue;
            }
            end = range.end;
            self.report.found += 1;
            if self.report.findings.len() == MAX_SHOWN {
                continue;
            }
            if at.is_none() {
                let new = bytes.get(counted.0..range.start).unwrap_or_default();
                counted = (range.start, counted.1 + new.iter().filter(|&&byte| byte == b'\n').count());
            }
            let value = bytes.get(range.clone()).unwrap_or_default();
            self.report.findings.push(Finding {
                file: file.to_owned(),
                line: counted.1,
                at: at.map(str::to_owned),
                kind: name_of(kind, &self.rules).to_owned(),
                excerpt: excerpt(bytes, &range),
                fingerprint: fingerprint(value),
            });
        }
    }
}

/// What something is called in reports.
fn name_of(kind: Kind, rules: &CustomRules) -> &str {
    match kind {
        Kind::Detected(name) | Kind::Opaque(name) => name,
        Kind::Custom(number) => rules.name(number).unwrap_or("custom"),
        Kind::Known(_) => "known",
    }
}

/// The line around a value, which itself is left out but for a hint of how it begins and how long it is.
fn excerpt(bytes: &[u8], range: &std::ops::Range<usize>) -> String {
    let shown = |part: &[u8]| text::line(&String::from_utf8_lossy(part), 2 * CONTEXT).text;
    let part = |start: usize, end: usize| bytes.get(start..end).unwrap_or_default();
    let head = part(range.start.saturating_sub(CONTEXT), range.start);
    let head = head.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let tail = part(range.end, (range.end + CONTEXT).min(bytes.len()));
    let tail = tail.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let value = part(range.start, range.end);
    let hint = value.get(..if value.len() >= 16 { 4 } else { 0 }).unwrap_or_default();
    // What stands before and after may be another secret; only names and signs are shown, no long runs.
    format!("{}{}…({}){}", unrun(&shown(head)), shown(hint), value.len(), unrun(&shown(tail)))
}

/// Without runs of characters that are so long that they may be a secret themselves.
fn unrun(text: &str) -> String {
    let short = |word: &str| if word.chars().count() > 20 { "…".to_owned() } else { word.to_owned() };
    text.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

/// Ten hexadecimal digits that are the same for the same value.
fn fingerprint(value: &[u8]) -> String {
    Digest::of("toolgate secret scan", &[value]).to_string().chars().take(10).collect()
}

/// Everything there is to read, unless it is too much.
fn bounded(from: &mut dyn io::Read, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= max).then_some(bytes))
}

fn too_large(what: &str, max: u64) -> anyhow::Error {
    hinted(format!("{what} has more than {max} MiB"), "`--max-size` takes another limit, in MiB")
}
