//! A record on its way to the log: sealed by the caller, before it waits for its turn.

use std::sync::Arc;

use crate::blob::{DataKey, Part, SealError, SubjectKey, frame};
use crate::port::{Disclosed, StoreError};

/// The longest record that fits the log: an entry bundle has two bytes for its length.
const MAX_LEAF: usize = 65_535;

/// How much a record may commit to, in bytes.
const MAX_VALUES: usize = 256 << 20;

/// A record, and what is sealed beside it.
pub(super) struct Record {
    pub(super) leaf: Vec<u8>,
    pub(super) sealed: Option<Sealed>,
}

/// What is sealed under one data key.
pub(super) struct Sealed {
    pub(super) key: Arc<SubjectKey>,
    /// What the data key is derived from.
    pub(super) seed: [u8; 32],
    /// The values that the record commits to.
    pub(super) values: Option<Vec<u8>>,
    /// Something kept elsewhere: the statement of a question.
    pub(super) aside: Option<Vec<u8>>,
}

/// Something to be sealed under the same data key and kept apart from the values.
#[derive(Clone)]
pub(super) struct Aside {
    pub(super) part: Part,
    pub(super) bound: Vec<u8>,
    pub(super) bytes: bytes::Bytes,
}

/// Checks that a record fits the log.
pub(super) fn check(leaf: &[u8], disclosed: &[Disclosed]) -> Result<(), StoreError> {
    if leaf.is_empty() || leaf.len() > MAX_LEAF {
        return Err(StoreError::Write(format!(
            "a record has 1 to {MAX_LEAF} bytes, this one {}",
            leaf.len()
        )));
    }
    let values: usize = disclosed.iter().map(|value| value.bytes.len()).sum();
    if values > MAX_VALUES {
        return Err(StoreError::Full(format!(
            "the values of a record have at most {MAX_VALUES} bytes, these {values}"
        )));
    }
    Ok(())
}

/// Seals what there is to be sealed.
pub(super) fn seal(
    key: Arc<SubjectKey>,
    leaf: &[u8],
    disclosed: &[Disclosed],
    aside: Option<&Aside>,
) -> Result<Sealed, SealError> {
    let data = DataKey::new(&key)?;
    let values = match disclosed {
        [] => None,
        some => Some(data.seal(Part::Values, leaf, frame(some))?),
    };
    let aside = aside.map(|aside| data.seal(aside.part, &aside.bound, aside.bytes.to_vec())).transpose()?;
    Ok(Sealed { key, seed: data.seed, values, aside })
}
