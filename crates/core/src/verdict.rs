//! What the rules say about a call.

use crate::name::{QuestionName, RuleName};

/// What the rules say about a call. Never a `bool`, never an `Option`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may run under these obligations.
    Allow(Allowed),
    /// A person has to say yes first.
    Ask(Asked),
    /// It does not run.
    Deny(DenyReason),
}

impl Verdict {
    /// The obligations of a verdict that lets the call run, now or after a yes.
    pub const fn obligations_mut(&mut self) -> Option<&mut Obligations> {
        match self {
            Self::Allow(Allowed { rules: _, obligations })
            | Self::Ask(Asked { question: _, rule: _, because: _, obligations }) => Some(obligations),
            Self::Deny(_) => None,
        }
    }
}

/// What a permitted call was permitted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The permitting rules, in the order in which they are written.
    pub rules: Vec<RuleName>,
    /// What must hold while it runs.
    pub obligations: Obligations,
}

/// What a person is to be asked, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The `@ask` of the rule: a table `[questions.NAME]`.
    pub question: QuestionName,
    /// The rule that asks.
    pub rule: RuleName,
    /// The rule's `@because`.
    pub because: String,
    /// What must hold while it runs, once approved.
    pub obligations: Obligations,
}

/// Why a call does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenyReason {
    /// A rule could not be evaluated; whichever it was, the call is refused.
    Broken {
        /// The rule.
        rule: RuleName,
        /// What went wrong, for the operator.
        error: String,
    },
    /// It would carry a secret out, and no rule that permits it allows that.
    Carries,
    /// A `forbid` rule matched.
    Forbidden {
        /// The rule.
        rule: RuleName,
        /// The rule's `@because`, for the agent.
        because: String,
    },
    /// It would send a honeytoken.
    Honeytoken,
    /// An argument has a value that a rule reads but cannot be shown.
    Inexpressible {
        /// Which argument.
        argument: String,
    },
    /// No rule permits it.
    NotPermitted,
}

/// What must hold while a call runs. Whoever enforces it takes it apart field by field, without `..`, so that a new
/// field does not compile until each such place has dealt with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obligations {
    /// How long the server may take, in milliseconds.
    pub timeout_ms: u64,
    /// How many bytes the answer may have.
    pub max_result_bytes: usize,
}

impl Default for Obligations {
    fn default() -> Self {
        Self { timeout_ms: 300_000, max_result_bytes: 16 << 20 }
    }
}
