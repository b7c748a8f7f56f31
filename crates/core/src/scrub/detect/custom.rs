//! Rules of the configuration, each with examples that are checked when it is loaded.

use serde::Deserialize;

use super::assign::{name_around, value_after};
use super::bytes::{at, before, cut, find, run};
use super::shape::{MAX_RUN, edge};
use super::{Detector, bytes};
use crate::scrub::{Detect as _, Found, Kind, Place};

/// The most rules there may be: each is looked for on its own.
const MAX_RULES: usize = 64;
/// The most words of one rule.
const MAX_KEYWORDS: usize = 8;

/// A rule as the configuration has it: a token by its prefix, or a value by the words that go before it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomRule {
    /// What it is called in reports.
    pub name: String,
    /// How the token begins.
    #[serde(default)]
    pub prefix: Option<String>,
    /// The words one of which is in the name that the value is given to; for values without a prefix.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// The characters after the prefix, or of the value: `a-zA-Z0-9`, and so by default with `_` and `-`.
    #[serde(default)]
    pub charset: Option<String>,
    /// How many there are: `36`, or `20-44`.
    #[serde(default)]
    pub length: Option<Length>,
    /// Texts in which it finds something; at least one.
    #[serde(default)]
    pub examples: Vec<String>,
    /// Texts in which it finds nothing.
    #[serde(default)]
    pub not_examples: Vec<String>,
}

/// How many characters there are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Length {
    /// So many.
    Exact(usize),
    /// From the first number to the second: `20-44`.
    Range(String),
}

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A rule finds nothing in its own example.
    #[error("rule `{rule}` finds nothing in its example `{example}`")]
    Example {
        /// The rule.
        rule: String,
        /// The example.
        example: String,
    },
    /// The length is not written as one.
    #[error("rule `{rule}` has the length `{length}`; write it as `36` or `20-44`, of 4096 at most")]
    Length {
        /// The rule.
        rule: String,
        /// What is there.
        length: String,
    },
    /// There is no example that would show that it works.
    #[error("rule `{rule}` has no example; `examples = [\"…\"]` shows what it has to find")]
    NoExample {
        /// The rule.
        rule: String,
    },
    /// A rule finds something where it must not.
    #[error("rule `{rule}` finds something in `{example}`, which is one of its `not_examples`")]
    NotExample {
        /// The rule.
        rule: String,
        /// The example.
        example: String,
    },
    /// There are more rules, or words in one, than are looked for.
    #[error("rule `{rule}` is one too many: there may be 64 rules, and 8 keywords in each")]
    TooMany {
        /// The rule.
        rule: String,
    },
    /// Nothing says where to look.
    #[error("rule `{rule}` needs a `prefix` or `keywords` of at least 3 characters, and not both")]
    Where {
        /// The rule.
        rule: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    prefix: Vec<u8>,
    keywords: Vec<Vec<u8>>,
    set: bytes::Set,
    least: usize,
    most: usize,
}

/// Rules of the configuration that were checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomRules {
    rules: Vec<Rule>,
    names: Vec<String>,
}

impl CustomRules {
    /// Checks the rules and their examples.
    ///
    /// # Errors
    /// [`RuleError`] for the first rule that cannot be used, with the example that failed.
    pub fn load(rules: &[CustomRule]) -> Result<Self, RuleError> {
        let mut loaded = Self::default();
        for rule in rules {
            let name = || rule.name.clone();
            if loaded.rules.len() == MAX_RULES || rule.keywords.len() > MAX_KEYWORDS {
                return Err(RuleError::TooMany { rule: name() });
            }
            let one = Self { rules: vec![read(rule)?], names: vec![name()] };
            if rule.examples.is_empty() {
                return Err(RuleError::NoExample { rule: name() });
            }
            if let Some(example) = rule.examples.iter().find(|example| !one.finds(example)) {
                return Err(RuleError::Example { rule: name(), example: example.clone() });
            }
            if let Some(example) = rule.not_examples.iter().find(|example| one.finds(example)) {
                return Err(RuleError::NotExample { rule: name(), example: example.clone() });
            }
            loaded.rules.extend(one.rules);
            loaded.names.extend(one.names);
        }
        Ok(loaded)
    }

    /// The name of a rule, by the number in [`Kind::Custom`].
    #[must_use]
    pub fn name(&self, number: u32) -> Option<&str> {
        self.names.get(usize::try_from(number).ok()?).map(String::as_str)
    }

    fn finds(&self, text: &str) -> bool {
        let mut found = Vec::new();
        let alone = Detector::new(super::Classes::NONE, self.clone());
        alone.find(text.as_bytes(), &Place::default(), &mut found).is_err() || !found.is_empty()
    }

    pub(super) fn find(&self, text: &[u8], place: &Place<'_>, found: &mut Vec<Found>) {
        for (number, rule) in (0_u32..).zip(&self.rules) {
            let mut push = |range| found.push(Found { range, kind: Kind::Custom(number) });
            rule.find(text, &mut push);
            let named = [place.key, place.sibling].into_iter().flatten();
            if named
                .into_iter()
                .any(|name| rule.keywords.iter().any(|word| find(name.as_bytes(), word).is_some()))
                && rule.is(text)
            {
                push(0..text.len());
            }
        }
    }
}

impl Rule {
    fn find(&self, text: &[u8], push: &mut dyn FnMut(std::ops::Range<usize>)) {
        let mut from = 0;
        if !self.prefix.is_empty() {
            while let Some(place) = memchr::memmem::find(text.get(from..).unwrap_or_default(), &self.prefix) {
                let start = from + place;
                let body = start + self.prefix.len();
                let end = run(text, body, self.most, |byte| self.set.has(byte));
                let whole =
                    !(before(text, end).is_ascii_alphanumeric() && at(text, end).is_ascii_alphanumeric());
                if edge(text, start) && end - body >= self.least && whole {
                    push(start..end);
                }
                from = end.max(start + 1);
            }
            return;
        }
        for word in &self.keywords {
            let mut from = 0;
            let lower = memchr::memchr2_iter(at(word, 0), at(word, 0).to_ascii_uppercase(), text);
            for start in lower {
                if start < from || !bytes::goes_on(text, start, word) {
                    continue;
                }
                let name = name_around(text, start..start + word.len());
                from = name.end;
                if let Some(given) = value_after(text, &name, &mut 0)
                    .filter(|given| self.is(cut(text, given.value.start, given.value.end)))
                {
                    from = given.value.end;
                    push(given.value);
                }
            }
        }
    }

    fn is(&self, value: &[u8]) -> bool {
        (self.least..=self.most).contains(&value.len()) && value.iter().all(|&byte| self.set.has(byte))
    }
}

fn read(rule: &CustomRule) -> Result<Rule, RuleError> {
    let name = || rule.name.clone();
    let wrong = |length: &Length| RuleError::Length {
        rule: name(),
        length: match length {
            Length::Exact(length) => length.to_string(),
            Length::Range(length) => length.clone(),
        },
    };
    let (least, most) = match &rule.length {
        None => (8, 256),
        Some(Length::Exact(length)) => (*length, *length),
        Some(given @ Length::Range(length)) => {
            let (least, most) = length.split_once('-').unwrap_or((length, length));
            match (least.trim().parse(), most.trim().parse()) {
                (Ok(least), Ok(most)) => (least, most),
                _ => return Err(wrong(given)),
            }
        }
    };
    if let Some(length) = rule.length.as_ref().filter(|_| least > most || least == 0 || most > MAX_RUN) {
        return Err(wrong(length));
    }
    let prefix = rule.prefix.clone().unwrap_or_default().into_bytes();
    let keywords: Vec<Vec<u8>> =
        rule.keywords.iter().map(|word| word.to_ascii_lowercase().into_bytes()).collect();
    if prefix.is_empty() == keywords.is_empty()
        || (!prefix.is_empty() && prefix.len() < 3)
        || keywords.iter().any(|word| word.len() < 3)
    {
        return Err(RuleError::Where { rule: name() });
    }
    let set = bytes::Set::of(rule.charset.as_deref().unwrap_or("a-zA-Z0-9_-").as_bytes());
    Ok(Rule { prefix, keywords, set, least, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> CustomRule {
        toml::from_str("name = \"acme\"\nprefix = \"acme-\"\ncharset = \"a-f0-9\"\nlength = 8\nexamples = [\"x acme-0123abcd.\"]\nnot_examples = [\"acme-0123abc\"]").unwrap()
    }

    #[test]
    fn rules_and_their_examples() {
        let rules = CustomRules::load(&[rule()]).unwrap();
        assert_eq!((rules.name(0), rules.name(1)), (Some("acme"), None));
        for (wrong, want) in [
            (
                CustomRule { examples: vec![], ..rule() },
                "rule `acme` has no example; `examples = [\"…\"]` shows what it has to find",
            ),
            (
                CustomRule { examples: vec!["acme-1".to_owned()], ..rule() },
                "rule `acme` finds nothing in its example `acme-1`",
            ),
            (
                CustomRule { not_examples: vec!["acme-01234567".to_owned()], ..rule() },
                "rule `acme` finds something in `acme-01234567`, which is one of its `not_examples`",
            ),
            (
                CustomRule { prefix: None, ..rule() },
                "rule `acme` needs a `prefix` or `keywords` of at least 3 characters, and not both",
            ),
            (
                CustomRule { length: Some(Length::Range("9-3".to_owned())), ..rule() },
                "rule `acme` has the length `9-3`; write it as `36` or `20-44`, of 4096 at most",
            ),
        ] {
            assert_eq!(CustomRules::load(&[wrong]).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn keywords_stand_before_the_value() {
        let by_word = CustomRule {
            prefix: None,
            keywords: vec!["badge".to_owned()],
            length: Some(Length::Range("4-6".to_owned())),
            examples: vec!["badgeNo: 12ab".to_owned()],
            not_examples: vec!["a badge".to_owned()],
            ..rule()
        };
        let detector = Detector::new(super::super::Classes::NONE, CustomRules::load(&[by_word]).unwrap());
        let mut found = Vec::new();
        detector.find(b"the Badge-ID = \"00ff1\" and 00ff2", &Place::default(), &mut found).unwrap();
        assert_eq!(found, [Found { range: 16..21, kind: Kind::Custom(0) }]);
        found.clear();
        detector.find(b"00ff1", &Place { key: Some("badge_number"), sibling: None }, &mut found).unwrap();
        assert_eq!(found, [Found { range: 0..5, kind: Kind::Custom(0) }]);
    }
}
