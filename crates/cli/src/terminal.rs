//! Asking somebody at a terminal. Passphrases are read without being shown, and never from arguments or environment.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use toolgate_broker::person::MIN_PASSPHRASE_CHARS;
use zeroize::Zeroizing;

use crate::out::hinted;

/// How long a passphrase may be.
const MAX_PASSPHRASE_BYTES: u64 = 4096;

/// Gives the terminal its echo back.
struct Silence<'t> {
    terminal: &'t File,
    before: Termios,
}

impl<'t> Silence<'t> {
    fn new(terminal: &'t File) -> anyhow::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        let _unchanged = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Reads a secret: from the file if one was named, else from the terminal.
pub(crate) fn secret(prompt: &str, file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    match file {
        Some(path) => secret_in_file(path),
        None => secret_from_terminal(prompt),
    }
}

fn secret_in_file(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let file = File::open(path).with_context(|| format!("could not read `{}`", path.display()))?;
    let mode = file.metadata()?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(hinted(
            format!("`{}` can be read by others (mode {mode:o})", path.display()),
            format!("`chmod 600 {}`", path.display()),
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_PASSPHRASE_BYTES).read_to_string(&mut text).context("the passphrase file is not text")?;
    Ok(first_line(&text))
}

fn secret_from_terminal(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(|_source| {
        hinted(
            "there is no terminal to ask for a passphrase",
            "run it in a terminal, or say `--passphrase-file FILE`",
        )
    })?;
    let mut out = &terminal;
    write!(out, "{prompt}")?;
    out.flush()?;
    let _silence = Silence::new(&terminal)?;
    let mut text = Zeroizing::new(String::with_capacity(256));
    BufReader::new(&terminal).take(MAX_PASSPHRASE_BYTES).read_line(&mut text)?;
    Ok(first_line(&text))
}

fn first_line(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
}

/// Reads a new passphrase: twice, if it is typed.
pub(crate) fn new_secret(file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    let first = secret("New passphrase (12 characters or more): ", file)?;
    if file.is_none() {
        same_again(&first, || secret("The same again: ", None))?;
    }
    Ok(first)
}

/// Has a passphrase typed again; one that is too short to be taken is not asked for twice.
fn same_again(first: &str, again: impl FnOnce() -> anyhow::Result<Zeroizing<String>>) -> anyhow::Result<()> {
    if first.chars().count() >= MIN_PASSPHRASE_CHARS && *again()? != first {
        return Err(hinted("the two passphrases differ", "try again"));
    }
    Ok(())
}

/// Asks for a yes. Anything else, and no terminal, is a no.
pub(crate) fn yes(prompt: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    write!(io::stderr().lock(), "{prompt} [y/N] ")?;
    let mut answer = String::new();
    BufReader::new(io::stdin()).take(16).read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_typed_twice_unless_it_is_too_short() {
        let typed = |text: &str| Ok(Zeroizing::new(text.to_owned()));
        same_again("correct horse", || typed("correct horse")).unwrap();
        assert!(same_again("correct horse", || typed("correct house")).is_err());
        same_again("short", || anyhow::bail!("asked again")).unwrap();
    }
}
