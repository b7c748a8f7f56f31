//! Printing: data to standard output, everything else to standard error, colour only where somebody sees it.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use toolgate_broker::home::HomeError;
use toolgate_broker::store::ManageError;
use toolgate_broker::vault::VaultError;
use toolgate_broker::vault::process::ProcessError;
pub(crate) use toolgate_core::time::to_rfc3339 as time;
use toolgate_gateway::login::LoginError;
use toolgate_sandbox::image::ImageError;

/// How much of a text of strangers is shown on one line.
pub(crate) const LINE_CHARS: usize = 200;

/// A failure with something to do about it.
#[derive(Debug)]
pub(crate) struct Hinted {
    what: String,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Hinted {}

/// An error that says what to do.
pub(crate) fn hinted(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { what: what.into(), hint: hint.into() })
}

/// The call was refused by policy: exit code 2, and nothing more to say.
#[derive(Debug)]
pub(crate) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused by policy")
    }
}

impl std::error::Error for Refused {}

/// What to do about an error, if any of its causes knows.
pub(crate) fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<Hinted>() {
            return Some(error.hint.clone());
        }
        if let Some(error) = cause.downcast_ref::<ManageError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<LoginError>() {
            return error.hint();
        }
        if let Some(error) = cause.downcast_ref::<ImageError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<ProcessError>() {
            return error.hint();
        }
        if let Some(error) = cause.downcast_ref::<VaultError>() {
            return error.hint();
        }
        cause.downcast_ref::<HomeError>().and_then(HomeError::hint)
    })
}

/// Whether the reader of our output has gone away, which is no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Writes an error to standard error: what, each cause, a hint.
pub(crate) fn report(error: &anyhow::Error) {
    let paint = Paint::for_terminal(io::stderr().is_terminal());
    let mut err = io::stderr().lock();
    let _unheard = writeln!(err, "{} {error}", paint.red("error:"));
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Some say again what was wanted before they say what went wrong.
        if !text.starts_with(&said) {
            let _unheard = writeln!(err, "  caused by: {text}");
        }
        said = text;
    }
    if let Some(hint) = hint_of(error) {
        let _unheard = writeln!(err, "{} {hint}", paint.bold("hint:"));
    }
}

/// Says something that is no data, on standard error.
pub(crate) fn note(text: impl fmt::Display) {
    let _unheard = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a line of data.
pub(crate) fn line(text: impl fmt::Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// So many of them, in words: `1 rule`, `2 rules`.
pub(crate) fn count(number: impl fmt::Display, one: &str) -> String {
    let number = number.to_string();
    let many = if number == "1" { "" } else { "s" };
    format!("{number} {one}{many}")
}

/// Writes a value as JSON on one line.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// A table: columns as wide as they have to be, the last one as wide as it is.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let all = || std::iter::once(head.iter().map(|h| (*h).to_owned()).collect()).chain(rows.iter().cloned());
    let mut widths = vec![0; head.len()];
    for row in all() {
        for (width, cell) in widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// Colours if this is a terminal and nobody said `NO_COLOR`.
    pub(crate) fn for_terminal(terminal: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(terminal && !unwanted && !dumb)
    }

    /// Colours for standard output.
    pub(crate) fn out() -> Self {
        Self::for_terminal(io::stdout().is_terminal())
    }

    fn with(self, code: &str, text: impl fmt::Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub(crate) fn bold(self, text: impl fmt::Display) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: impl fmt::Display) -> String {
        self.with("2", text)
    }

    pub(crate) fn red(self, text: impl fmt::Display) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn green(self, text: impl fmt::Display) -> String {
        self.with("32", text)
    }

    pub(crate) fn yellow(self, text: impl fmt::Display) -> String {
        self.with("33", text)
    }
}
