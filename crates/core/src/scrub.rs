//! Keeping what came from outside apart from what may be shown.

use std::fmt;

/// Came from outside and was not looked at yet. Never printed, cloned or logged.
pub struct Raw<T>(T);

impl<T> Raw<T> {
    /// Marks a value as coming from outside.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Applies the rules; the only way to a [`Scrubbed`] value.
    pub fn scrub<U>(self, rules: &ScrubRules, clean: impl FnOnce(T, &ScrubRules) -> U) -> Scrubbed<U> {
        Scrubbed(clean(self.0, rules))
    }
}

impl<T> fmt::Debug for Raw<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw(not shown)")
    }
}

/// The rules were applied: it may be shown to the agent.
#[derive(Debug, Clone)]
pub struct Scrubbed<T>(T);

impl<T> Scrubbed<T> {
    /// The value.
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// Gives the value out.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// What must not leave. The gate lends no secrets yet, so there is nothing to look for: only the size is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubRules {
    /// Answers above this size are withheld.
    pub max_bytes: usize,
}
