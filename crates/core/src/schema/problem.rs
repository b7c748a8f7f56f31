//! What does not fit, in words for the one who wrote the value.

use std::fmt;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{ErrorIterator, ValidationError};

use crate::text;

/// How many problems are told at once.
const MAX_PROBLEMS: usize = 3;
/// How many characters of something written by a stranger are shown.
const MAX_SHOWN: usize = 60;

/// Why a value does not fit a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaError {
    /// These places do not fit.
    Mismatch {
        /// The first few of them.
        problems: Vec<Problem>,
        /// How many more there are.
        more: usize,
    },
    /// Holding the value against the schema would take too long.
    TooCostly,
}

impl std::error::Error for SchemaError {}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch { problems, more } => {
                for (at, problem) in problems.iter().enumerate() {
                    write!(f, "{}{problem}", if at > 0 { "; " } else { "" })?;
                }
                if *more > 0 {
                    write!(f, "; and {more} more")?;
                }
                Ok(())
            }
            Self::TooCostly => f.write_str(
                "holding the value against the schema would take too long; send a smaller or flatter value",
            ),
        }
    }
}

/// One place that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `to`, `to[0].address`; empty for the whole value. Hidden characters are escaped.
    pub path: String,
    /// How it should be.
    pub wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "the value itself {}", self.wanted)
        } else {
            write!(f, "`{}` {}", self.path, self.wanted)
        }
    }
}

impl SchemaError {
    pub(super) fn of(errors: ErrorIterator<'_>) -> Self {
        let mut problems: Vec<Problem> = Vec::new();
        let mut more = 0_usize;
        for error in errors {
            if problems.len() >= MAX_PROBLEMS {
                more += 1;
                continue;
            }
            let problem = of(&error);
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Self::Mismatch { problems, more }
    }
}

pub(super) fn of(error: &ValidationError<'_>) -> Problem {
    let mut path = path(error.instance_path());
    let wanted = wanted(error.kind(), &mut path);
    Problem { path, wanted }
}

fn path(location: &Location) -> String {
    let mut path = String::new();
    for segment in location.segments() {
        match segment {
            LocationSegment::Property(name) => step(&mut path, &name),
            LocationSegment::Index(at) => path.push_str(&format!("[{at}]")),
        }
    }
    path
}

/// Goes one member deeper. A path does not become longer than a person reads.
fn step(path: &mut String, name: &str) {
    if path.len() < 400 {
        let dot = if path.is_empty() { "" } else { "." };
        path.push_str(dot);
        path.push_str(&text::quoted(name, MAX_SHOWN));
    }
}

/// How it should be. What concerns a member that is missing, or should not be there, moves the path to that member.
fn wanted(kind: &ValidationErrorKind, path: &mut String) -> String {
    use ValidationErrorKind as Kind;
    match kind {
        Kind::AdditionalItems { limit } => format!("may have at most {limit} elements"),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            if let Some(name) = unexpected.first() {
                step(path, name);
            }
            match unexpected.len() {
                0 | 1 => "is not known here; leave it out".to_owned(),
                more => format!("and {} others beside it are not known here; leave them out", more - 1),
            }
        }
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => {
            "has none of the forms that are allowed".to_owned()
        }
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "takes too long to hold against the pattern; make it shorter".to_owned()
        }
        Kind::Constant { expected_value } => format!("has to be {}", shown(&expected_value.to_string())),
        Kind::Contains => "lacks an element of the kind it has to contain".to_owned(),
        Kind::ContentEncoding { content_encoding } => {
            format!("has to be encoded as {}", shown(content_encoding))
        }
        Kind::ContentMediaType { content_media_type } => {
            format!("has to be text of {}", shown(content_media_type))
        }
        Kind::Custom { message, .. } => shown(message),
        Kind::Enum { options } => match options.as_array().map(Vec::as_slice) {
            Some(options @ [_, ..]) => {
                let few: Vec<_> = options.iter().take(8).map(|option| shown(&option.to_string())).collect();
                let more = if options.len() > few.len() { " or another of the schema's values" } else { "" };
                format!("has to be one of {}{more}", few.join(", "))
            }
            Some([]) | None => "has to be one of the schema's values, of which there are none".to_owned(),
        },
        Kind::ExclusiveMaximum { limit } => format!("has to be less than {}", shown(&limit.to_string())),
        Kind::ExclusiveMinimum { limit } => format!("has to be more than {}", shown(&limit.to_string())),
        Kind::FalseSchema => "may not be there; leave it out".to_owned(),
        Kind::Format { format } => format!("has to be written as {}", shown(format)),
        Kind::FromUtf8 { .. } => "has to be encoded UTF-8".to_owned(),
        Kind::MaxItems { limit } => format!("may have at most {limit} elements"),
        Kind::Maximum { limit } => format!("has to be at most {}", shown(&limit.to_string())),
        Kind::MaxLength { limit } => format!("may have at most {limit} characters"),
        Kind::MaxProperties { limit } => format!("may have at most {limit} members"),
        Kind::MinItems { limit } => format!("has to have at least {limit} elements"),
        Kind::Minimum { limit } => format!("has to be at least {}", shown(&limit.to_string())),
        Kind::MinLength { limit } => format!("has to have at least {limit} characters"),
        Kind::MinProperties { limit } => format!("has to have at least {limit} members"),
        Kind::MultipleOf { multiple_of } => format!("has to be a multiple of {multiple_of}"),
        Kind::Not { .. } => "has a form that is not allowed".to_owned(),
        Kind::OneOfMultipleValid { .. } => "has several of the forms of which it may have one".to_owned(),
        Kind::Pattern { pattern } => format!("has to match the pattern {}", shown(pattern)),
        Kind::PropertyNames { error } => {
            format!(
                "has a member whose name is not allowed: a name {}",
                wanted(error.kind(), &mut String::new())
            )
        }
        Kind::Referencing(_) => "is described by a reference that leads nowhere".to_owned(),
        Kind::Required { property } => {
            step(path, property.as_str().unwrap_or_default());
            "is missing".to_owned()
        }
        Kind::Type { kind: TypeKind::Single(kind) } => format!("has to be {}", with_article(kind.as_str())),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => {
            let kinds: Vec<_> = kinds.iter().map(|kind| with_article(kind.as_str())).collect();
            format!("has to be {}", kinds.join(" or "))
        }
        Kind::UnevaluatedItems { .. } => "has elements that are not known here; leave them out".to_owned(),
        Kind::UniqueItems => "has the same element twice; each may occur once".to_owned(),
    }
}

fn shown(text: &str) -> String {
    format!("`{}`", text::quoted(text, MAX_SHOWN))
}

fn with_article(kind: &str) -> String {
    match kind {
        "null" => kind.to_owned(),
        "array" | "integer" | "object" => format!("an {kind}"),
        other => format!("a {other}"),
    }
}
