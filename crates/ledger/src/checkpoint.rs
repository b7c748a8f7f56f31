//! Checkpoints (c2sp.org/tlog-checkpoint): what a log commits to at some size.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::note::{Note, NoteError, VerifierKey};
use crate::tree::Hash;

/// The state of a log: who, how many entries, which root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is not signed, or not by the key it should be.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// It is of another log.
    #[error("the checkpoint is of the log `{found}`, not `{wanted}`")]
    Origin {
        /// The log it names.
        found: String,
        /// The log it should name.
        wanted: String,
    },
    /// Its text has another form.
    #[error("not a checkpoint: {0}")]
    Syntax(&'static str),
}

impl Checkpoint {
    /// Reads the text of a checkpoint: exactly three lines, each in the one form it may have. Extension lines are
    /// refused: no monitor could check them.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines: Vec<_> = text.split('\n').collect();
        let [origin, size, root, ""] = lines.as_slice() else {
            return Err(CheckpointError::Syntax("it has not exactly three lines"));
        };
        if origin.is_empty() || origin.len() > 255 || origin.chars().any(char::is_control) {
            return Err(CheckpointError::Syntax("the first line is no name of a log"));
        }
        let size = parse_decimal(size)
            .ok_or(CheckpointError::Syntax("the second line is no decimal number in canonical form"))?;
        let root = parse_hash(root)
            .ok_or(CheckpointError::Syntax("the third line is no hash of 32 bytes in canonical base64"))?;
        Ok(Self { origin: (*origin).to_owned(), size, root })
    }

    /// Reads a signed checkpoint, and checks that `key` signed it and that it is of the log `origin`.
    ///
    /// # Errors
    /// It is not.
    pub fn open(note: &[u8], key: &VerifierKey, origin: &str) -> Result<(Self, Note), CheckpointError> {
        let note = Note::parse(note)?;
        note.verify(key)?;
        let checkpoint = Self::parse(&note.text)?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::Origin { found: checkpoint.origin, wanted: origin.to_owned() });
        }
        Ok((checkpoint, note))
    }

    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0))
    }
}

/// Reads a decimal number without sign or leading zeroes.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Reads 32 bytes in canonical base64.
pub(crate) fn parse_hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok().map(Hash)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::note::SigningKey;

    const TEXT: &str = "example.com/log\n12\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn a_checkpoint_has_one_form() {
        assert_eq!(Checkpoint::parse(TEXT).unwrap().text(), TEXT);
        for wrong in [
            "",
            "\n",
            TEXT.strip_suffix('\n').unwrap(),
            &format!("{TEXT}extension\n"),
            &format!("{TEXT}\n"),
            &TEXT.replace("12", "012"),
            &TEXT.replace("12", "+12"),
            &TEXT.replace("12", "-1"),
            &TEXT.replace("12", " 12"),
            &TEXT.replace("12", "18446744073709551616"),
            &TEXT.replace("q2I=", "q2J="),
            &TEXT.replace("q2I=", "q2I"),
            &TEXT.replace("q2I=", "q2IA"),
            &TEXT.replace("CsUY", "_sUY"),
            &TEXT.replace("example.com/log", ""),
        ] {
            assert!(Checkpoint::parse(wrong).is_err(), "input: {wrong:?}");
        }
    }

    #[test]
    fn opening_asks_for_key_and_origin() {
        let key = SigningKey::from_seed("example.com/log", &Zeroizing::new([1; 32])).unwrap();
        let other = SigningKey::from_seed("example.com/log", &Zeroizing::new([2; 32])).unwrap();
        let note = key.sign(TEXT).to_string();
        assert_eq!(Checkpoint::open(note.as_bytes(), key.verifier(), "example.com/log").unwrap().0.size, 12);
        let open = |key: &SigningKey, origin| {
            Checkpoint::open(note.as_bytes(), key.verifier(), origin).unwrap_err().to_string()
        };
        assert_eq!(open(&other, "example.com/log"), "no signature by `example.com/log`");
        assert_eq!(open(&key, "b"), "the checkpoint is of the log `example.com/log`, not `b`");
    }
}
