//! Records: what an entry of the log says.
//!
//! An entry is one record as canonical JSON (keys sorted, no spaces, integers only):
//! `{"body":{…},"kind":"…","time_ms":…,"v":1}`. It never holds an argument, a result or a secret, only salted
//! commitments ([`commit`]).
//!
//! To add a kind: write a structure whose fields are in alphabetical order in [`kinds`](self), and add a line to
//! the table below. Whatever an older program does not know it reads as [`Body::Unknown`].

mod kinds;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use self::kinds::*;
use crate::tree::Hash;

/// The longest entry that a bundle can hold: it is framed by 16 bits.
pub const MAX_ENTRY: usize = 65_535;

/// The version of the record format that this crate writes.
pub const VERSION: u32 = 1;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// When, in milliseconds since 1970, by the clock of the machine that wrote it.
    pub time_ms: u64,
    /// What.
    pub body: Body,
}

/// Why a record cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeRecordError {
    /// It does not fit an entry bundle.
    #[error("the record is {0} bytes long; an entry has at most 65535")]
    TooLong(usize),
    /// An unknown record was to be written. They are read, never made.
    #[error("a record of the unknown kind `{0}` can be read but not written")]
    UnknownKind(String),
    /// A value has no JSON form. None of the present kinds can cause it.
    #[error("the record has no JSON form: {0}")]
    NoForm(String),
}

/// Why an entry is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeRecordError {
    /// It is not JSON, or a member is missing, unknown or of the wrong type.
    #[error("not a record: {0}")]
    Syntax(String),
    /// It means something, but is not written in the one way that it must be.
    #[error("a record of kind `{0}` that is not in canonical form")]
    NotCanonical(String),
}

/// The form of all records. The field order is the order of the names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a, B> {
    body: B,
    kind: std::borrow::Cow<'a, str>,
    time_ms: u64,
    v: u32,
}

/// A record of a kind or version that this program does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct Unknown {
    /// Its kind.
    pub kind: String,
    /// The version it says it has.
    pub version: u32,
    /// What it says.
    pub body: Value,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $Kind:ident = $name:literal,)*) => {
        /// What a record says, by kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Body {
            $($(#[$doc])* $Kind($Kind),)*
            /// Something that a later version wrote.
            Unknown(Unknown),
        }

        /// The names of all kinds this version knows.
        pub const KINDS: &[&str] = &[$($name),*];

        $(impl From<$Kind> for Body {
            fn from(body: $Kind) -> Self {
                Self::$Kind(body)
            }
        })*

        impl Body {
            /// The name of the kind, as in the record.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$Kind(_) => $name,)*
                    Self::Unknown(unknown) => &unknown.kind,
                }
            }
        }

        impl Record {
            fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeRecordError> {
                match &self.body {
                    $(Body::$Kind(body) => write_envelope(body, $name, self.time_ms, out),)*
                    Body::Unknown(unknown) => Err(EncodeRecordError::UnknownKind(unknown.kind.clone())),
                }
            }

            fn read_known(bytes: &[u8], kind: &str) -> Option<Result<Self, DecodeRecordError>> {
                match kind {
                    $($name => Some(read_envelope::<$Kind>(bytes)),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// An agent was added, changed or removed.
    Agent = "agent",
    /// What runs in a cell connected to somebody, or wanted to.
    Connection = "connection",
    /// An answer reached the client.
    Delivered = "delivered",
    /// Values were erased: their blobs and salts are gone, their commitments stay.
    Erasure = "erasure",
    /// Records were exported.
    Export = "export",
    /// A call is about to run. Nothing runs before this is durable.
    Intent = "intent",
    /// A key of the log came into use or went out of it.
    Key = "key",
    /// A credential was minted from a secret, or is good no more.
    Lease = "lease",
    /// A call ended. Nothing is released before this is durable.
    Outcome = "outcome",
    /// A call was under way when the gate stopped. Whether it ran is unknown; it is never run again.
    OutcomeUnknown = "outcome_unknown",
    /// A person was enrolled, changed or removed.
    Person = "person",
    /// A policy was loaded, or was refused and the old one kept.
    Policy = "policy",
    /// Somebody answered a question.
    QuestionAnswered = "question_answered",
    /// A question was put to people.
    QuestionAsked = "question_asked",
    /// A question ended without an answer that counts.
    QuestionExpired = "question_expired",
    /// A call did not run.
    Refusal = "refusal",
    /// A secret was added, changed or removed, or how the vault opens.
    Secret = "secret",
    /// The gate began to work.
    Start = "start",
    /// The gate stopped in order.
    Stop = "stop",
    /// A tool's definition was accepted, changed or removed.
    ToolPin = "tool_pin",
}

impl Record {
    /// A record of `body` at `time_ms`.
    pub fn new(time_ms: u64, body: impl Into<Body>) -> Self {
        Self { time_ms, body: body.into() }
    }

    /// The bytes of the entry.
    ///
    /// # Errors
    /// It is longer than [`MAX_ENTRY`], or was not written by this version.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeRecordError> {
        let mut bytes = Vec::with_capacity(1024);
        self.write(&mut bytes)?;
        if bytes.len() > MAX_ENTRY {
            return Err(EncodeRecordError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    /// Appends the entry as bundles hold it: a big-endian 16-bit length, then the bytes. `out` is unchanged when it
    /// fails.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn append_framed(&self, out: &mut Vec<u8>) -> Result<(), EncodeRecordError> {
        let begin = out.len();
        out.extend_from_slice(&[0, 0]);
        let written = self.write(out).and_then(|()| {
            let length = out.len() - begin - 2;
            u16::try_from(length).or(Err(EncodeRecordError::TooLong(length)))
        });
        match written {
            Ok(length) => {
                if let Some(prefix) = out.get_mut(begin..begin + 2) {
                    prefix.copy_from_slice(&length.to_be_bytes());
                }
                Ok(())
            }
            Err(error) => {
                out.truncate(begin);
                Err(error)
            }
        }
    }

    /// Reads an entry. Whatever is accepted encodes to the same bytes again; of an unknown kind, that holds of the
    /// order of its keys and the absence of fractions.
    ///
    /// # Errors
    /// It is not a record, or not in canonical form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeRecordError> {
        let head: Envelope<'_, IgnoredAny> = parse(bytes)?;
        let known = if head.v == VERSION { Self::read_known(bytes, &head.kind) } else { None };
        let Some(record) = known else {
            return read_unknown(bytes);
        };
        let record = record?;
        let mut again = Vec::with_capacity(bytes.len());
        record.write(&mut again).map_err(|e| DecodeRecordError::Syntax(e.to_string()))?;
        if again != bytes {
            return Err(DecodeRecordError::NotCanonical(head.kind.into_owned()));
        }
        Ok(record)
    }
}

fn write_envelope<B: Serialize>(
    body: &B,
    kind: &'static str,
    time_ms: u64,
    out: &mut Vec<u8>,
) -> Result<(), EncodeRecordError> {
    let envelope = Envelope { body, kind: kind.into(), time_ms, v: VERSION };
    serde_json::to_writer(out, &envelope).map_err(|e| EncodeRecordError::NoForm(e.to_string()))
}

fn read_envelope<B: DeserializeOwned + Into<Body>>(bytes: &[u8]) -> Result<Record, DecodeRecordError> {
    let envelope: Envelope<'_, B> = parse(bytes)?;
    Ok(Record { time_ms: envelope.time_ms, body: envelope.body.into() })
}

fn read_unknown(bytes: &[u8]) -> Result<Record, DecodeRecordError> {
    let Envelope { body, kind, time_ms, v }: Envelope<'_, Value> = parse(bytes)?;
    let again = serde_json::to_vec(&Envelope { body: &body, kind: kind.clone(), time_ms, v });
    if !is_canonical(&body) || again.ok().as_deref() != Some(bytes) {
        return Err(DecodeRecordError::NotCanonical(kind.into_owned()));
    }
    Ok(Record { time_ms, body: Body::Unknown(Unknown { kind: kind.into_owned(), version: v, body }) })
}

fn parse<'a, B: Deserialize<'a>>(bytes: &'a [u8]) -> Result<Envelope<'a, B>, DecodeRecordError> {
    serde_json::from_slice(bytes).map_err(|e| DecodeRecordError::Syntax(e.to_string()))
}

/// Whether all keys are sorted and all numbers whole. How strings and numbers are spelt is not asked here.
fn is_canonical(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.is_u64() || number.is_i64(),
        Value::Array(items) => items.iter().all(is_canonical),
        Value::Object(members) => members.keys().is_sorted() && members.values().all(is_canonical),
    }
}

/// Which value a commitment is about. It is hashed along, so that a commitment to a result can never be shown as
/// one to the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The canonical bytes of a call's arguments.
    Arguments,
    /// The digest of the call: a plain digest of guessable arguments would give them away.
    Digest,
    /// The exact bytes of `params` that came.
    Params,
    /// The exact bytes of the result, as released.
    Result,
    /// The canonical statement of a question.
    Statement,
}

impl Field {
    /// The path that is hashed.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Digest => "digest",
            Self::Params => "params",
            Self::Result => "result",
            Self::Statement => "statement",
        }
    }

    /// The field with this path.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        [Self::Arguments, Self::Digest, Self::Params, Self::Result, Self::Statement]
            .into_iter()
            .find(|f| f.path() == path)
    }
}

/// The commitment to a value: SHA-256 of `audit-field/v1`, a zero byte, the field's path, a zero byte, the salt and
/// the bytes.
///
/// The salt is random and kept with the value. When both are erased, what is left in the log is a hash with 256 bits
/// of unknown input: it says nothing about the value, and every proof still holds.
#[must_use]
pub fn commit(field: Field, salt: &[u8; 32], bytes: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(b"audit-field/v1\0");
    hash.update(field.path().as_bytes());
    hash.update([0]);
    hash.update(salt);
    hash.update(bytes);
    Hash(hash.finalize().into())
}

#[cfg(test)]
mod tests;
