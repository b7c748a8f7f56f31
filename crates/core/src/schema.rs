//! Schemas of tools: what their arguments and results have to look like.
//!
//! A schema is written by the server, and the value by the agent: either may be hostile, and so may both together.
//! A schema reaches nothing outside itself, neither network nor file. How much work it can make is computed before
//! it is used, from the schema alone ([`cost`]), and a value that would make more than [`BUDGET`] is refused. Regular
//! expressions stop after a fixed number of steps back. Messages are short, and show what is hidden.

mod cost;
mod graph;
mod header;
mod problem;

use jsonschema::{Draft, PatternOptions, Validator};

use crate::json::Value;
use crate::text;

pub use header::{HeaderKind, HeaderParam, HeaderParamError, HeaderParamProblem, header_params};
pub use problem::{Problem, SchemaError};

use cost::Cost;
use graph::Graph;

/// How many bytes a schema may have.
pub const MAX_BYTES: usize = 512 << 10;
/// How many parts a schema may have: every place that itself holds a schema counts as one.
pub const MAX_PARTS: usize = 4096;
/// How often a part of a schema may be held against a part of a value.
pub const BUDGET: u64 = 10_000_000;

/// A schema that values can be held against.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    cost: Cost,
}

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileSchemaError {
    /// The value of `$schema` is not known.
    #[error(
        "the schema is written in the dialect `{0}`, which is not known; leave `$schema` out for 2020-12, or name that, 2019-09, draft-07, draft-06 or draft-04"
    )]
    Dialect(String),
    /// A part of the schema is applied to the same value again and again.
    #[error("the schema refers to itself at `{0}` with no member or element between; take the circle out")]
    Endless(String),
    /// A part of the schema has an identifier, so that references in it count from there.
    #[error("the part `{0}` of the schema has an identifier of its own; only the whole may have one")]
    Identifier(String),
    /// The library refuses it.
    #[error("the schema is wrong: {0}")]
    Invalid(String),
    /// It is no object and no boolean.
    #[error("the schema is {0}; it has to be an object")]
    NotASchema(&'static str),
    /// A reference to somewhere else.
    #[error(
        "the reference `{0}` leaves the schema; nothing is fetched, so refer to a part of the schema with `#/…`"
    )]
    Remote(String),
    /// It is too large.
    #[error("the schema has more than {limit} {what}; make it smaller")]
    TooLarge {
        /// Of what there is too much.
        what: &'static str,
        /// How much of it there may be.
        limit: usize,
    },
    /// A reference to nothing.
    #[error("the reference `{0}` names no part of the schema")]
    Unresolved(String),
}

impl Schema {
    /// Compiles a schema: of the dialect that its `$schema` names, or JSON Schema 2020-12.
    ///
    /// # Errors
    /// It is no schema, refers to something outside itself, or is too large.
    pub fn compile(schema: &Value<'_>) -> Result<Self, CompileSchemaError> {
        if schema.raw().len() > MAX_BYTES {
            return Err(CompileSchemaError::TooLarge { what: "bytes", limit: MAX_BYTES });
        }
        if !schema.is_object() && schema.as_bool().is_none() {
            return Err(CompileSchemaError::NotASchema(schema.kind()));
        }
        let draft = dialect(schema)?;
        let cost = Cost::of(&Graph::of(*schema)?)?;
        let patterns = PatternOptions::fancy_regex()
            .backtrack_limit(20_000)
            .size_limit(256 << 10)
            .dfa_size_limit(1 << 20);
        let validator = jsonschema::options()
            .with_draft(draft)
            .offline()
            .with_pattern_options(patterns)
            .build(&schema.to_serde())
            .map_err(|error| CompileSchemaError::Invalid(problem::of(&error).to_string()))?;
        Ok(Self { validator, cost })
    }

    /// Holds a value against the schema.
    ///
    /// # Errors
    /// The value does not fit; the error names the first few places and how they should be. Or finding out would take too long.
    pub fn validate(&self, value: &Value<'_>) -> Result<(), SchemaError> {
        if self.cost.of_value(*value) > BUDGET {
            return Err(SchemaError::TooCostly);
        }
        let value = value.to_serde();
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        Err(SchemaError::of(self.validator.iter_errors(&value)))
    }
}

fn dialect(schema: &Value<'_>) -> Result<Draft, CompileSchemaError> {
    let Some(name) = schema.get("$schema") else { return Ok(Draft::Draft202012) };
    let name = name.as_str().unwrap_or(name.raw_str());
    match Draft::from_schema_uri(name) {
        Draft::Unknown => Err(CompileSchemaError::Dialect(text::quoted(name, 120))),
        known => Ok(known),
    }
}
