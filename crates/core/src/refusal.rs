//! What the agent is told when its call did not run: a fixed set of answers.

use std::fmt;

/// What the agent is told when its call did not run. The text is complete: clients show the model nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Too many calls of this agent are under way.
    Busy,
    /// Its arguments hold something that looks like a secret, and no rule lets it out.
    Carries,
    /// A person said no.
    Denied {
        /// The question's number.
        question: String,
    },
    /// The arguments do not fit the tool's schema. The agent may see the tool, so it may learn why.
    Invalid {
        /// Which argument, and how it should be.
        why: String,
    },
    /// No rule permits it, or one forbids it. Only for tools that the agent may see.
    NotPermitted {
        /// The forbidding rule and its `@because`, if one forbade it.
        because: Option<(String, String)>,
    },
    /// Too many questions of this agent wait for people.
    TooManyQuestions,
    /// Nobody answered in time.
    Unanswered {
        /// The question's number.
        question: String,
        /// How long was waited, in seconds.
        waited_s: u64,
    },
    /// The gate cannot work now: what cannot be written down is not run.
    Unavailable,
    /// There is no such tool, or the agent may not see it: the two are one answer.
    Unknown,
    /// The tool's definition was not accepted by an operator, or has changed since.
    Unreviewed,
}

impl Refusal {
    /// A fixed word for logs and tests.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Carries => "carries_secret",
            Self::Denied { .. } => "denied_by_person",
            Self::Invalid { .. } => "invalid_arguments",
            Self::NotPermitted { .. } => "not_permitted",
            Self::TooManyQuestions => "too_many_questions",
            Self::Unanswered { .. } => "unanswered",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Unreviewed => "unreviewed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("Refused by Toolgate: too many calls are under way. Wait for one to end, then try again."),
            Self::Carries => f.write_str(
                "Refused by Toolgate: the arguments hold something that looks like a secret, and no rule lets it out by this tool. It did not run. Leave it out.",
            ),
            Self::Denied { question } => {
                write!(f, "Refused by Toolgate: a person was asked ({question}) and said no. Do not try it again.")
            }
            Self::Invalid { why } => {
                write!(f, "Refused by Toolgate: the arguments do not fit the tool's schema: {why}")
            }
            Self::NotPermitted { because: Some((rule, because)) } => {
                write!(f, "Refused by Toolgate: {because} (rule `{rule}`). It did not run.")
            }
            Self::NotPermitted { because: None } => {
                f.write_str("Refused by Toolgate: no rule permits this call with these arguments. It did not run.")
            }
            Self::TooManyQuestions => f.write_str("Refused by Toolgate: too many questions about your calls wait for people. It did not run. Wait until some are answered."),
            Self::Unanswered { question, waited_s } => write!(
                f,
                "Refused by Toolgate: nobody answered question {question} within {waited_s} s. It did not run. The same call finds the answer if it comes later."
            ),
            Self::Unavailable => {
                f.write_str("Refused by Toolgate: the gate cannot write its log, so nothing runs. An operator has to look at it.")
            }
            Self::Unknown => f.write_str("Unknown tool"),
            Self::Unreviewed => f.write_str(
                "Refused by Toolgate: the tool's definition is new or has changed, and no operator has accepted it yet. It did not run.",
            ),
        }
    }
}
