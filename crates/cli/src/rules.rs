//! Reading the policy files, and saying what is wrong with them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use toolgate_broker::rulebook::Rulebook;
use toolgate_core::policy::{
    DEMO as DEMO_SERVER, ExamplesSource, LoadPolicyErrors, Policy, PolicySource, PolicyWarning,
};

use crate::out::{Paint, hinted, note};

/// What holds where nobody wrote a policy.
const DEFAULT_POLICY: (&str, &str) =
    ("built-in/default.cedar", include_str!("../../../policies/default.cedar"));

/// The policy to start from, and its examples.
pub(crate) const STARTER: (&str, &str) = ("starter.cedar", include_str!("../../../policies/starter.cedar"));
pub(crate) const STARTER_EXAMPLES: (&str, &str) =
    ("starter.examples.toml", include_str!("../../../policies/starter.examples.toml"));

/// The policy of the demo, and its examples.
const DEMO: (&str, &str) = ("built-in/demo.cedar", include_str!("../../../policies/demo.cedar"));
const DEMO_EXAMPLES: (&str, &str) =
    ("built-in/demo.examples.toml", include_str!("../../../policies/demo.examples.toml"));

/// How large a policy file may be.
const MAX_POLICY_BYTES: u64 = 4 << 20;

/// How many policy files there may be.
const MAX_POLICIES: usize = 1_000;

/// The policy files in force, in the folder beside the configuration; the embedded default if it is not there or has none.
pub(crate) fn sources(folder: &Path) -> anyhow::Result<Vec<PolicySource>> {
    let paths = paths(folder)?;
    if paths.is_empty() {
        let (path, text) = DEFAULT_POLICY;
        return Ok(vec![PolicySource { path: path.into(), text: text.into(), examples: None }]);
    }
    paths.iter().map(|path| source(path)).collect()
}

/// The policy files in a folder that somebody named: there have to be some.
pub(crate) fn sources_named(folder: &Path) -> anyhow::Result<Vec<PolicySource>> {
    let paths = paths(folder)?;
    if paths.is_empty() {
        let what = if folder.exists() { "has no policy file" } else { "is not there" };
        return Err(hinted(
            format!("`{}` {what}", folder.display()),
            "name a folder with files that end in `.cedar`; without `--policy`, those in force are used",
        ));
    }
    paths.iter().map(|path| source(path)).collect()
}

fn paths(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                paths.push(entry?.path());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("could not read `{}`", folder.display())),
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "cedar"));
    paths.sort();
    anyhow::ensure!(
        paths.len() <= MAX_POLICIES,
        "more than {MAX_POLICIES} policy files in `{}`",
        folder.display()
    );
    Ok(paths)
}

fn source(path: &Path) -> anyhow::Result<PolicySource> {
    let beside = path.with_extension("examples.toml");
    let examples = match beside.exists() {
        true => Some(ExamplesSource { path: beside.display().to_string(), text: read(&beside)? }),
        false => None,
    };
    Ok(PolicySource { path: path.display().to_string(), text: read(path)?, examples })
}

fn read(path: &Path) -> anyhow::Result<String> {
    let length = fs::metadata(path).with_context(|| format!("could not read `{}`", path.display()))?.len();
    anyhow::ensure!(length <= MAX_POLICY_BYTES, "`{}` is larger than 4 MiB", path.display());
    fs::read_to_string(path).with_context(|| format!("could not read `{}`", path.display()))
}

/// The policy of the demo.
pub(crate) fn demo() -> PolicySource {
    let examples = ExamplesSource { path: DEMO_EXAMPLES.0.into(), text: DEMO_EXAMPLES.1.into() };
    PolicySource { path: DEMO.0.into(), text: DEMO.1.into(), examples: Some(examples) }
}

/// How many rules the operator wrote, and how many the demo brings along.
pub(crate) fn counts(policy: &Policy) -> (usize, usize) {
    let own = policy.rules().iter().filter(|rule| rule.place.path != DEMO.0).count();
    (own, policy.rules().len() - own)
}

/// What an operator should know about the policy. Without tools of their own, each of their rules would be said to cover
/// none; it is said once. What is built in is not theirs to mend.
pub(crate) fn warnings(rulebook: &Rulebook) -> impl Iterator<Item = String> {
    let no_tools = rulebook.tools.keys().all(|tool| tool.server().as_str() == DEMO_SERVER);
    let built_in = |path: &str| [DEFAULT_POLICY.0, DEMO.0].contains(&path);
    let worth = move |warning: &&PolicyWarning| match warning {
        PolicyWarning::CoversNothing { at, .. } => !no_tools && !built_in(&at.path),
        PolicyWarning::NoExamples { path, .. } => !built_in(path),
        PolicyWarning::TwoQuestions { .. } => true,
    };
    let untold = rulebook
        .tools
        .is_empty()
        .then_some("no tool is accepted yet, so nothing is known of arguments: accept tools and check again");
    let unwritten = rulebook
        .policy
        .rules()
        .iter()
        .any(|rule| rule.place.path == DEFAULT_POLICY.0)
        .then_some("no policy files: what is built in permits nothing but the demo's reading");
    let once = unwritten.into_iter().chain(untold).map(str::to_owned);
    rulebook.policy.warnings().iter().filter(worth).map(ToString::to_string).chain(once)
}

/// Shows everything that is wrong with a policy, if that is what the error is about.
pub(crate) fn explain_errors(error: &anyhow::Error) {
    let Some(errors) = error.chain().find_map(|cause| cause.downcast_ref::<LoadPolicyErrors>()) else {
        return;
    };
    let paint = Paint::for_terminal(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    for error in &errors.errors {
        note(format_args!("{} {error}", paint.red("error:")));
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            note(format_args!("  caused by: {source}"));
            cause = source.source();
        }
        if let Some(hint) = error.hint() {
            note(format_args!("{} {hint}", paint.bold("hint:")));
        }
    }
    if errors.left_out > 0 {
        note(format_args!("… and {} more", errors.left_out));
    }
}
