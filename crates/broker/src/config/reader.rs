//! Reading a TOML table key by key, so that every complaint names the file, the line and the remedy.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong in a configuration, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}`{}: {what}", .file.display(), .line.map_or_else(String::new, |line| format!(", line {line}")))]
pub struct ConfigError {
    /// What is wrong.
    what: String,
    /// The file it is in.
    file: PathBuf,
    /// The line it is on, where it is on one.
    line: Option<usize>,
    /// What to do about it.
    hint: String,
}

impl ConfigError {
    /// A complaint about a file as a whole.
    pub(crate) fn whole(file: &Path, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), file: file.to_owned(), line: None, hint: hint.into() }
    }

    /// Another complaint about the same place.
    pub(crate) fn saying(self, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), ..self }
    }

    /// What is wrong, without where.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The line it is on, where it is on one.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        self.line
    }
}

/// A file being read.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    pub(crate) const fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text }
    }

    /// Parses the text into its top table.
    pub(crate) fn parse(self) -> Result<DeTable<'a>, ConfigError> {
        DeTable::parse(self.text).map(Spanned::into_inner).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let what = format!("not TOML: {}", error.message());
            self.error(at, what, "every key stands in a table such as `[gateway]`, as in `key = \"value\"`")
        })
    }

    fn error(self, at: usize, what: impl Into<String>, hint: impl Into<String>) -> ConfigError {
        let line = self.text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
        ConfigError { what: what.into(), file: self.file.to_owned(), line: Some(line), hint: hint.into() }
    }
}

/// A table of which every key has to be asked for, else [`finish`](Self::finish) complains.
pub(crate) struct Table<'a> {
    source: Source<'a>,
    name: String,
    at: usize,
    entries: Vec<(&'a str, usize, &'a Spanned<DeValue<'a>>)>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(source: Source<'a>, name: String, at: usize, table: &'a DeTable<'a>) -> Self {
        let entries =
            table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span().start, value)).collect();
        Self { source, name, at, entries, known: Vec::new() }
    }

    /// Takes the value of a key that this program knows.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let at = self.entries.iter().position(|(name, ..)| *name == key)?;
        let (name, at, value) = self.entries.swap_remove(at);
        Some(self.item(name, at, value))
    }

    /// Takes what is left: the keys are names that the operator chose.
    pub(crate) fn take_named(&mut self) -> Vec<(&'a str, Item<'a>)> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by_key(|(_, at, _)| *at);
        entries.into_iter().map(|(name, at, value)| (name, self.item(name, at, value))).collect()
    }

    fn item(&self, key: &str, at: usize, value: &'a Spanned<DeValue<'a>>) -> Item<'a> {
        let name =
            if self.name.is_empty() { key.to_owned() } else { format!("{}.{}", self.name, quoted(key)) };
        Item { source: self.source, name, at, value }
    }

    /// Complains about a key that nobody asked for.
    pub(crate) fn finish(mut self) -> Result<(), ConfigError> {
        self.entries.sort_by_key(|(_, at, _)| *at);
        let Some((key, at, value)) = self.entries.first() else { return Ok(()) };
        let kind = if matches!(value.get_ref(), DeValue::Table(_)) { "table" } else { "key" };
        let place = if self.name.is_empty() { String::new() } else { format!(" in `[{}]`", self.name) };
        let what = format!("unknown {kind} `{}`{place}", key.escape_debug());
        let hint = match closest(key, &self.known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                self.known.sort_unstable();
                format!("known here: `{}`", self.known.join("`, `"))
            }
        };
        Err(self.source.error(*at, what, hint))
    }

    /// A complaint about the table as a whole.
    pub(crate) fn error(&self, what: impl Into<String>, hint: impl Into<String>) -> ConfigError {
        self.source.error(self.at, what, hint)
    }

    /// The table's name, as it is written between brackets.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A key as it has to be written in a dotted name.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { key.to_owned() } else { format!("\"{}\"", key.escape_debug()) }
}

/// One value and where it stands.
pub(crate) struct Item<'a> {
    source: Source<'a>,
    name: String,
    at: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    /// A complaint about this value.
    pub(crate) fn error(&self, what: impl Into<String>, hint: impl Into<String>) -> ConfigError {
        self.source.error(self.at, what, hint)
    }

    fn wrong(&self, want: &str, example: &str) -> ConfigError {
        let what = format!("`{}` is {}, not {want}", self.name, kind(self.value.get_ref()));
        let key = self.name.rsplit('.').next().unwrap_or(&self.name);
        self.error(what, format!("write it as `{key} = {example}`"))
    }

    pub(crate) fn text(&self) -> Result<&'a str, ConfigError> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.wrong("a text", "\"…\"")),
        }
    }

    /// A text that is not empty and has no control characters.
    pub(crate) fn word(&self) -> Result<&'a str, ConfigError> {
        let text = self.text()?;
        if text.is_empty() || text.chars().any(char::is_control) {
            let what = format!("`{}` is empty or has control characters", self.name);
            return Err(self.error(what, "write a text on one line"));
        }
        Ok(text)
    }

    /// A text that becomes a type of its own; the type says what is wrong.
    pub(crate) fn parsed<T: FromStr>(&self) -> Result<T, ConfigError>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text()?;
        text.parse().map_err(|error: T::Err| self.error(error.to_string(), format!("change `{}`", self.name)))
    }

    pub(crate) fn switch(&self) -> Result<bool, ConfigError> {
        match self.value.get_ref() {
            DeValue::Boolean(on) => Ok(*on),
            _ => Err(self.wrong("true or false", "false")),
        }
    }

    pub(crate) fn number(&self, least: u64, most: u64) -> Result<u64, ConfigError> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return Err(self.wrong("a whole number", &least.to_string()));
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            Ok(_) | Err(_) => {
                let what = format!("`{}` is {number}, which is not between {least} and {most}", self.name);
                Err(self.error(what, format!("choose a number from {least} to {most}")))
            }
        }
    }

    pub(crate) fn duration(&self, least: Duration, most: Duration) -> Result<Duration, ConfigError> {
        let DeValue::String(text) = self.value.get_ref() else { return Err(self.wrong("a time", "\"90s\"")) };
        let Some(duration) = parse_duration(text) else {
            let what = format!("`{}` is not a time: `{}`", self.name, text.escape_debug());
            return Err(self.error(what, "write a whole number and a unit: `90s`, `5m`, `2h` or `7d`"));
        };
        if duration < least || duration > most {
            let range = format!("from `{}s` to `{}s`", least.as_secs(), most.as_secs());
            let what = format!("`{}` is `{text}`, which is too short or too long", self.name);
            return Err(self.error(what, format!("choose a time {range}")));
        }
        Ok(duration)
    }

    pub(crate) fn list(&self) -> Result<Vec<Self>, ConfigError> {
        let DeValue::Array(values) = self.value.get_ref() else {
            return Err(self.wrong("a list", "[\"…\"]"));
        };
        let items = values.iter().map(|value| Item {
            source: self.source,
            name: self.name.clone(),
            at: value.span().start,
            value,
        });
        Ok(items.collect())
    }

    /// A list of texts that become a type of their own, none of them twice.
    pub(crate) fn parsed_list<T: FromStr + Ord>(&self) -> Result<std::collections::BTreeSet<T>, ConfigError>
    where
        T::Err: std::fmt::Display,
    {
        let mut set = std::collections::BTreeSet::new();
        for item in self.list()? {
            if !set.insert(item.parsed()?) {
                let what = format!("`{}` names `{}` twice", self.name, item.text()?.escape_debug());
                return Err(item.error(what, "name each one once"));
            }
        }
        Ok(set)
    }

    pub(crate) fn table(&self) -> Result<Table<'a>, ConfigError> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(Table::new(self.source, self.name.clone(), self.at, table)),
            _ => Err(self.wrong("a table", "{ … }")),
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::String(_))
    }

    /// The value's full name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "a list",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Float(_) => "a fraction",
        DeValue::Integer(_) => "a number",
        DeValue::String(_) => "a text",
        DeValue::Table(_) => "a table",
    }
}

/// Reads `90s`, `5m`, `2h` or `7d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let number = text.strip_suffix(unit)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// The known word nearest to what was written, if it is near enough to have been meant.
#[must_use]
pub fn closest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|word| (edits(written, word), *word)).min()?;
    (near.0 <= 1 + near.1.chars().count() / 4).then_some(near.1)
}

/// How many letters have to be added, dropped, changed or swapped with their neighbour.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let from: Vec<char> = from.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&last, column) + usize::from(letter != other))
                .min(at(&last, column + 1) + 1)
                .min(at(&line, column) + 1);
            let swapped = row > 0
                && column > 0
                && from.get(row - 1) == Some(other)
                && to.get(column - 1) == Some(letter);
            if swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            line.push(best);
        }
        before = std::mem::replace(&mut last, line);
    }
    last.last().copied().unwrap_or(from.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("0s", Some(0)),
            ("90s", Some(90)),
            ("5m", Some(300)),
            ("2h", Some(7200)),
            ("7d", Some(604_800)),
            ("", None),
            ("5", None),
            ("m", None),
            ("-5m", None),
            ("5 m", None),
            ("5µ", None),
            ("99999999999999999999s", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(parse_duration(text), want.map(Duration::from_secs), "input: {text:?}");
        }
    }

    #[test]
    fn what_was_meant() {
        let known = ["listen", "socket", "allowed_hosts"];
        for (written, want) in [
            ("lisent", Some("listen")),
            ("lissten", Some("listen")),
            ("allowd_host", Some("allowed_hosts")),
            ("port", None),
            ("", None),
        ] {
            assert_eq!(closest(written, &known), want, "input: {written:?}");
        }
    }
}
