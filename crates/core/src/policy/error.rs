//! What can be wrong with a policy, and where.

use std::fmt;

use crate::name::{NameError, QuestionName, RuleName};

/// How many errors are kept; the rest are only counted.
const MOST_ERRORS: usize = 20;

/// A place in a policy or examples file. Lines and columns count from one, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named when it was loaded.
    pub path: String,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of a byte in a text.
    pub(super) fn of(path: &str, text: &str, offset: usize) -> Self {
        Lines::new(text).place(path, text, offset)
    }
}

/// Where the lines of a text begin, for finding many places in it.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The place of a byte in the text.
    pub(super) fn place(&self, path: &str, text: &str, offset: usize) -> Place {
        let line = self.0.partition_point(|begin| *begin <= offset);
        let begin = line.checked_sub(1).and_then(|before| self.0.get(before)).copied().unwrap_or(0);
        let column = text.get(begin..offset).unwrap_or_default().chars().count() + 1;
        Place { path: path.to_owned(), line, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path, self.line, self.column)
    }
}

/// Why a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadPolicyError {
    /// A `forbid` cannot ask.
    #[error("{at}: rule `{rule}` forbids and asks at once")]
    AskOnForbid {
        /// Where the rule begins.
        at: Place,
        /// The rule.
        rule: RuleName,
    },
    /// It is neither said that it permits calls that carry secrets, nor left out.
    #[error("{at}: `@carries` of rule `{rule}` is not `@carries(\"allow\")` of a `permit`")]
    BadCarries {
        /// Where the rule begins.
        at: Place,
        /// The rule.
        rule: RuleName,
    },
    /// The rule has no name that the log could show.
    #[error("{at}: the rule has no name; write `@id(\"…\")` before it")]
    NoName {
        /// Where the rule begins.
        at: Place,
    },
    /// The rule's name is no name.
    #[error("{at}: the rule's `@id` cannot be used")]
    BadName {
        /// Where the rule begins.
        at: Place,
        /// What is wrong with it.
        source: NameError,
    },
    /// Two rules share a name, so a log entry could not say which one decided.
    #[error("{at}: rule `{rule}` is defined twice; the first is at {first}")]
    DuplicateRule {
        /// Where the second one begins.
        at: Place,
        /// The name.
        rule: RuleName,
        /// Where the first one begins.
        first: Place,
    },
    /// An example does not come out as it says.
    #[error("{}", example_headline(.at, .rule.as_ref()))]
    ExampleFails {
        /// Where the example begins.
        at: Place,
        /// The rule that the example names, with the file it is in.
        rule: Option<(RuleName, String)>,
        /// What came out instead.
        source: ExampleMismatch,
    },
    /// The examples file cannot be read as one.
    #[error("{at}: {message}")]
    ExampleSyntax {
        /// Where.
        at: Place,
        /// What is wrong.
        message: String,
    },
    /// The rule can never match, whatever the call.
    #[error("{at}: rule `{rule}` can never match")]
    Impossible {
        /// Where the rule begins.
        at: Place,
        /// The rule.
        rule: RuleName,
        /// How it should be, if that is clear.
        hint: Option<String>,
    },
    /// No example of the file shows what the rule is for.
    #[error("{at}: rule `{rule}` decides no example in `{examples}`")]
    NoExample {
        /// Where the rule begins.
        at: Place,
        /// The rule.
        rule: RuleName,
        /// The examples file.
        examples: String,
    },
    /// The rule does not say why it is there.
    #[error("{at}: rule `{rule}` has no reason; write `@because(\"…\")` before it")]
    NoReason {
        /// Where the rule begins.
        at: Place,
        /// The rule.
        rule: RuleName,
    },
    /// The policy language does not allow this.
    #[error("{at}: {message}")]
    Syntax {
        /// Where.
        at: Place,
        /// What is wrong.
        message: String,
        /// What the language says could be meant.
        hint: Option<String>,
    },
    /// Rules with holes to be filled in later.
    #[error("{at}: the rule has a slot (`?principal` or `?resource`); a rule has to be complete")]
    Template {
        /// Where the file begins.
        at: Place,
    },
    /// The file, or one rule in it, is larger than any policy that people can read.
    #[error("{at}: {what}")]
    TooLarge {
        /// Where.
        at: Place,
        /// What is too large, and how large it may be.
        what: String,
    },
    /// The rule treats a value as what it is not, or counts on one that may be absent.
    #[error("{at}: rule `{rule}`: {message}")]
    Type {
        /// Where.
        at: Place,
        /// The rule.
        rule: RuleName,
        /// What is wrong.
        message: String,
        /// How it should be.
        hint: Option<String>,
    },
    /// Only `@id`, `@because` and `@ask` mean something.
    #[error("{at}: rule `{rule}` has an annotation `@{annotation}`, which means nothing")]
    UnknownAnnotation {
        /// Where the rule begins.
        at: Place,
        /// The rule.
        rule: RuleName,
        /// The annotation.
        annotation: String,
    },
    /// None of the tools that the rule covers shows rules an argument of this name.
    #[error("{at}: rule `{rule}` reads `{argument}`, which {tools}")]
    UnknownArgument {
        /// Where.
        at: Place,
        /// The rule.
        rule: RuleName,
        /// The argument as the rule writes it.
        argument: String,
        /// Which tool does not have it, or how many do not.
        tools: String,
        /// What could be meant.
        hint: String,
    },
    /// A name of an agent, group, server, tool or effect that nothing has.
    #[error("{at}: rule `{rule}` names {kind} `{name}`, which does not exist")]
    UnknownName {
        /// Where.
        at: Place,
        /// The rule.
        rule: RuleName,
        /// `agent`, `group`, `server`, `tool` or `effect`, with its article.
        kind: &'static str,
        /// The name.
        name: String,
        /// What could be meant.
        hint: String,
    },
    /// `@ask` names a question that the configuration does not define.
    #[error("{at}: rule `{rule}` asks `{question}`, but there is no such question")]
    UnknownQuestion {
        /// Where the rule begins.
        at: Place,
        /// The rule.
        rule: RuleName,
        /// The question.
        question: String,
        /// What could be meant.
        hint: String,
    },
}

impl LoadPolicyError {
    /// Where it is.
    #[must_use]
    pub const fn place(&self) -> &Place {
        match self {
            Self::AskOnForbid { at, .. }
            | Self::BadCarries { at, .. }
            | Self::BadName { at, .. }
            | Self::DuplicateRule { at, .. }
            | Self::ExampleFails { at, .. }
            | Self::ExampleSyntax { at, .. }
            | Self::Impossible { at, .. }
            | Self::NoExample { at, .. }
            | Self::NoName { at }
            | Self::NoReason { at, .. }
            | Self::Syntax { at, .. }
            | Self::Template { at }
            | Self::TooLarge { at, .. }
            | Self::Type { at, .. }
            | Self::UnknownAnnotation { at, .. }
            | Self::UnknownArgument { at, .. }
            | Self::UnknownName { at, .. }
            | Self::UnknownQuestion { at, .. } => at,
        }
    }

    /// What to do about it, if that can be said; shown on a line of its own.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AskOnForbid { .. } => {
                Some("write `permit` to have a person asked, or remove `@ask` to forbid".to_owned())
            }
            Self::BadCarries { .. } => Some(
                "a `forbid` reads `context.carries.secret`; a `permit` without `@carries(\"allow\")` lets no secret out".to_owned(),
            ),
            Self::ExampleFails { rule: Some(_), .. } => Some(
                "`toolgate policy explain --agent AGENT TOOL 'ARGUMENTS'` shows every rule that matched"
                    .to_owned(),
            ),
            Self::NoExample { rule, .. } => {
                Some(format!("add an `[[example]]` with `rule = \"{rule}\"` that shows what it is for"))
            }
            Self::Impossible { hint, .. } | Self::Syntax { hint, .. } | Self::Type { hint, .. } => {
                hint.clone()
            }
            Self::Template { .. } => Some("write one rule for each agent, or one for a group".to_owned()),
            Self::UnknownAnnotation { .. } => {
                Some("rules have `@id`, `@because`, to have a person asked `@ask`, and to let secrets out `@carries`".to_owned())
            }
            Self::UnknownArgument { hint, .. }
            | Self::UnknownName { hint, .. }
            | Self::UnknownQuestion { hint, .. } => Some(hint.clone()),
            Self::BadName { .. }
            | Self::DuplicateRule { .. }
            | Self::ExampleFails { rule: None, .. }
            | Self::ExampleSyntax { .. }
            | Self::NoName { .. }
            | Self::NoReason { .. }
            | Self::TooLarge { .. } => None,
        }
    }
}

fn example_headline(at: &Place, rule: Option<&(RuleName, String)>) -> String {
    match rule {
        Some((rule, path)) => format!("rule `{rule}` in `{path}` fails its example on line {}", at.line),
        None => format!("the example on line {} of `{}` fails", at.line, at.path),
    }
}

/// What an example said, and what came out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} was expected to be {expected}, but {found}")]
pub struct ExampleMismatch {
    /// The tool or action, in backticks, or a description of any such tool.
    pub call: String,
    /// `allowed`, `asked about` or `denied`, and by which rule.
    pub expected: String,
    /// What the rules say.
    pub found: String,
}

/// Everything found wrong, up to a bound, in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy cannot be used: {}", count(.errors.len() + .left_out))]
pub struct LoadPolicyErrors {
    /// The first of them; never empty.
    pub errors: Vec<LoadPolicyError>,
    /// How many more there are.
    pub left_out: usize,
}

fn count(errors: usize) -> String {
    if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") }
}

impl LoadPolicyErrors {
    /// `Ok` if nothing was found.
    pub(super) fn check(mut errors: Vec<LoadPolicyError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by(|a, b| a.place().cmp(b.place()));
        errors.dedup();
        let left_out = errors.len().saturating_sub(MOST_ERRORS);
        errors.truncate(MOST_ERRORS);
        Err(Self { errors, left_out })
    }
}

/// Something that an operator should know about a policy that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyWarning {
    /// The rule covers no tool that there is now.
    #[error("{at}: rule `{rule}` covers no accepted tool")]
    CoversNothing {
        /// Where the rule begins.
        at: Place,
        /// The rule.
        rule: RuleName,
    },
    /// The file's rules are not shown to do what they should.
    #[error("`{path}` has no examples; write them to `{examples}`")]
    NoExamples {
        /// The policy file.
        path: String,
        /// Where they would be looked for.
        examples: String,
    },
    /// Two `@ask` rules with different questions cover one example.
    #[error(
        "{at}: rules `{first}` and `{second}` both ask; `{question}` is asked, as that rule is written first"
    )]
    TwoQuestions {
        /// The example.
        at: Place,
        /// The rule that decides.
        first: RuleName,
        /// The rule that does not.
        second: RuleName,
        /// What is asked.
        question: QuestionName,
    },
}
