//! What an agent may write. The bytes are canonical JSON that fits the tool's schema; what a schema cannot say is checked here, before there
//! is a cell.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use toolgate_broker::config::Builtin;
use toolgate_sandbox::cell::{Given, Profile, Workspace, is_below};

/// How many words a command has.
pub(super) const MAX_WORDS: usize = 1024;
/// How many bytes a word, a script or a program has: Linux takes 128 KiB.
pub(super) const MAX_WORD_BYTES: usize = 120_000;
/// How many bytes a whole command has.
const MAX_COMMAND_BYTES: usize = 1 << 20;
/// How many bytes a program is given as its input.
pub(super) const MAX_INPUT_BYTES: usize = 4 << 20;
/// How many files go in, and how many come out.
pub(super) const MAX_FILES: usize = 64;
/// How many bytes all files that go in have together, and all that come out.
pub(super) const MAX_FILE_BYTES: usize = 4 << 20;

/// What is to be run.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) argv: Vec<String>,
    pub(super) input: Vec<u8>,
    pub(super) files: Vec<Given>,
    /// Which files are wanted back.
    pub(super) wanted: Vec<String>,
    pub(super) time: Duration,
    pub(super) encoding: Encoding,
}

/// How output is written in the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    Base64,
    #[default]
    Text,
}

impl Encoding {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Text => "text",
        }
    }
}

/// A language that programs are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    Node,
    Python,
}

impl Language {
    pub(super) const ALL: [Self; 2] = [Self::Node, Self::Python];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    /// What runs it.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python3",
        }
    }

    /// The command for a program.
    fn command(self, code: &str) -> Vec<String> {
        match self {
            // As one word, so that no program is taken for an option.
            Self::Node => vec!["node".to_owned(), format!("--eval={code}")],
            // Unbuffered, so that what it writes can be told as it comes.
            Self::Python => ["python3", "-u", "-c", code].map(str::to_owned).into(),
        }
    }
}

/// The arguments of both tools, as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    argv: Option<Vec<String>>,
    script: Option<String>,
    language: Option<Language>,
    code: Option<String>,
    #[serde(default)]
    stdin: String,
    #[serde(default)]
    files: Vec<File>,
    #[serde(default)]
    files_out: Vec<String>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
    text: Option<String>,
    base64: Option<String>,
    #[serde(default)]
    executable: bool,
}

impl Order {
    /// Reads the arguments of a call; or says what is wrong with them, to the agent.
    pub(super) fn read(builtin: Builtin, arguments: &[u8], profile: &Profile) -> Result<Self, String> {
        let Written { argv, script, language, code, stdin, files, files_out, timeout_ms, encoding } =
            serde_json::from_slice(arguments)
                .map_err(|error| format!("the arguments cannot be read: {error}"))?;
        let argv = match (builtin, argv, script, language, code) {
            (Builtin::Shell, Some(argv), None, None, None) => argv,
            (Builtin::Shell, None, Some(script), None, None) => {
                ["/bin/sh", "-e", "-u", "-c", &script].map(str::to_owned).into()
            }
            (Builtin::Shell, ..) => return Err("write either `argv` or `script`".to_owned()),
            (Builtin::Code, None, None, Some(language), Some(code)) => language.command(&code),
            (Builtin::Code, ..) => return Err("write `language` and `code`".to_owned()),
        };
        check_command(&argv)?;
        if stdin.len() > MAX_INPUT_BYTES {
            return Err(format!("`stdin` has more than {MAX_INPUT_BYTES} bytes"));
        }
        let all = Duration::from_millis(profile.limits.wall_ms);
        let time = timeout_ms.map_or(all, |wanted| Duration::from_millis(wanted).min(all));
        Ok(Self {
            argv,
            input: stdin.into_bytes(),
            files: given(files, profile)?,
            wanted: wanted(files_out)?,
            time,
            encoding,
        })
    }
}

fn check_command(argv: &[String]) -> Result<(), String> {
    if argv.first().is_none_or(String::is_empty) {
        return Err("the command names no program".to_owned());
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err("the command has a NUL character, which no command can have".to_owned());
    }
    if argv.len() > MAX_WORDS {
        return Err(format!("the command has more than {MAX_WORDS} words"));
    }
    if argv.iter().any(|word| word.len() > MAX_WORD_BYTES) {
        return Err(format!(
            "a word of the command has more than {MAX_WORD_BYTES} bytes; put what is long into `files` or `stdin`"
        ));
    }
    if argv.iter().map(String::len).sum::<usize>() > MAX_COMMAND_BYTES {
        return Err(format!("the command has more than {MAX_COMMAND_BYTES} bytes"));
    }
    Ok(())
}

/// The files that go in.
fn given(files: Vec<File>, profile: &Profile) -> Result<Vec<Given>, String> {
    if files.len() > MAX_FILES {
        return Err(format!("there are more than {MAX_FILES} `files`"));
    }
    if !files.is_empty() && matches!(profile.workspace, Some((_, Workspace::Read))) {
        return Err("the folder that is worked in is read-only, so it takes no `files`".to_owned());
    }
    let (mut all, mut bytes) = (Vec::<Given>::with_capacity(files.len()), 0_usize);
    for File { path, text, base64, executable } in files {
        check_path(&path)?;
        let shown = path.escape_debug();
        let content = match (text, base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => {
                STANDARD.decode(&base64).map_err(|error| format!("`{shown}` is not base64: {error}"))?
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(format!("write either `text` or `base64` of `{shown}`"));
            }
        };
        bytes = bytes.saturating_add(content.len());
        if bytes > MAX_FILE_BYTES || content.len() as u64 > profile.limits.file_bytes {
            return Err(format!("`files` are too large: {MAX_FILE_BYTES} bytes together is the most"));
        }
        if all.iter().any(|other| other.path == path) {
            return Err(format!("`{shown}` is there twice"));
        }
        all.push(Given { path, content, runs: executable });
    }
    Ok(all)
}

/// The files that are wanted back.
fn wanted(paths: Vec<String>) -> Result<Vec<String>, String> {
    if paths.len() > MAX_FILES {
        return Err(format!("there are more than {MAX_FILES} `files_out`"));
    }
    paths.iter().try_for_each(|path| check_path(path))?;
    Ok(paths)
}

fn check_path(path: &str) -> Result<(), String> {
    if is_below(path) {
        return Ok(());
    }
    let shown: String = path.chars().take(200).collect();
    Err(format!(
        "`{}` does not lie below the folder that is worked in: write it without `/` at the beginning and without `..`",
        shown.escape_debug()
    ))
}
