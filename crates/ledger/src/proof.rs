//! Proofs of single entries (c2sp.org/tlog-proof): the receipt of one call, verified offline.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{Checkpoint, CheckpointError, parse_decimal, parse_hash};
use crate::cosignature::{Cosigner, cosigners};
use crate::note::{MAX_NOTE, NoteError, VerifierKey};
use crate::tree::{self, Hash, ProofError};

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// No inclusion proof in a tree of at most 2^63 leaves is longer.
const MAX_HASHES: usize = 63;

/// That an entry is at an index of a log, by inclusion in a signed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What the maker of the proof wanted to say besides. Nothing authenticates it.
    pub extra: Option<Vec<u8>>,
    /// The index of the entry.
    pub index: u64,
    /// The inclusion proof.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint, as it stands.
    pub checkpoint: String,
}

/// Why a proof is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyProofError {
    /// The checkpoint is not the log's.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A witness's signature is not valid.
    #[error(transparent)]
    Cosignature(#[from] NoteError),
    /// The entry is not where the proof says.
    #[error("the entry is not at index {index} of the checkpoint: {source}")]
    Inclusion {
        /// The index that the proof states.
        index: u64,
        /// What does not fit.
        source: ProofError,
    },
    /// Not enough witnesses cosigned.
    #[error("{found} of the known witnesses cosigned; {wanted} must")]
    Quorum {
        /// How many did.
        found: usize,
        /// How many must.
        wanted: usize,
    },
    /// It is no proof.
    #[error("not a proof: {0}")]
    Syntax(&'static str),
}

/// Whom a verifier trusts.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The log's key.
    pub key: VerifierKey,
    /// The log's name; usually that of the key.
    pub origin: String,
    /// Witnesses that are known.
    pub witnesses: Vec<VerifierKey>,
    /// How many of them must have cosigned.
    pub quorum: usize,
}

impl Trust {
    /// Trust in the key alone.
    #[must_use]
    pub fn key(key: VerifierKey) -> Self {
        Self { origin: key.name().to_owned(), key, witnesses: Vec::new(), quorum: 0 }
    }

    /// Opens a checkpoint under this trust.
    ///
    /// # Errors
    /// It is not the log's, or too few witnesses cosigned it.
    pub fn open(&self, note: &[u8]) -> Result<(Checkpoint, Vec<Cosigner>), VerifyProofError> {
        let (checkpoint, note) = Checkpoint::open(note, &self.key, &self.origin)?;
        let cosigners = cosigners(&note, &self.witnesses)?;
        if cosigners.len() < self.quorum {
            return Err(VerifyProofError::Quorum { found: cosigners.len(), wanted: self.quorum });
        }
        Ok((checkpoint, cosigners))
    }
}

impl Proof {
    /// Reads a proof.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(bytes: &[u8]) -> Result<Self, VerifyProofError> {
        let syntax = VerifyProofError::Syntax;
        if bytes.len() > 2 * MAX_NOTE {
            return Err(syntax("it is too long"));
        }
        let text = std::str::from_utf8(bytes).or(Err(syntax("it is not UTF-8")))?;
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or(syntax("no empty line before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(syntax("the first line is not `c2sp.org/tlog-proof@v1`"));
        }
        let extra =
            lines.next_if(|line| line.starts_with("extra ")).and_then(|line| line.strip_prefix("extra "));
        let extra = extra.map(|base64| STANDARD.decode(base64)).transpose();
        let extra = extra.or(Err(syntax("`extra` is not canonical base64")))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(parse_decimal);
        let index = index.ok_or(syntax("no line `index NUMBER`"))?;
        let hashes = lines.map(parse_hash).take(MAX_HASHES + 1).collect::<Option<Vec<_>>>();
        let hashes = hashes.ok_or(syntax("a line is no hash of 32 bytes in canonical base64"))?;
        if hashes.len() > MAX_HASHES {
            return Err(syntax("it has more than 63 hashes"));
        }
        Ok(Self { extra, index, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that `entry` is in the log, and returns the checkpoint that shows it.
    ///
    /// # Errors
    /// It is not, or the proof does not show it to somebody with this trust.
    pub fn verify(
        &self,
        entry: &[u8],
        trust: &Trust,
    ) -> Result<(Checkpoint, Vec<Cosigner>), VerifyProofError> {
        let (checkpoint, cosigners) = trust.open(self.checkpoint.as_bytes())?;
        tree::verify_inclusion(self.index, checkpoint.size, Hash::leaf(entry), &self.hashes, checkpoint.root)
            .map_err(|source| VerifyProofError::Inclusion { index: self.index, source })?;
        Ok((checkpoint, cosigners))
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash.0)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::note::SigningKey;

    fn proof() -> (Proof, Trust) {
        let key = SigningKey::from_seed("example.com/log", &Zeroizing::new([1; 32])).unwrap();
        let (a, b) = (Hash::leaf(b"a"), Hash::leaf(b"b"));
        let checkpoint = Checkpoint { origin: "example.com/log".into(), size: 2, root: Hash::node(&a, &b) };
        let checkpoint = key.sign(&checkpoint.text()).to_string();
        let proof = Proof { extra: Some(b"x".to_vec()), index: 1, hashes: vec![a], checkpoint };
        (proof, Trust::key(key.verifier().clone()))
    }

    #[test]
    fn a_proof_reads_back_and_verifies() {
        let (mut proof, mut trust) = proof();
        for extra in [Some(b"x".to_vec()), None] {
            proof.extra = extra;
            assert_eq!(Proof::parse(proof.to_string().as_bytes()), Ok(proof.clone()));
        }
        assert_eq!(proof.verify(b"b", &trust).unwrap().0.size, 2);
        assert_eq!(
            proof.verify(b"a", &trust).unwrap_err().to_string(),
            "the entry is not at index 1 of the checkpoint: the proof leads to another root"
        );
        trust.quorum = 1;
        assert_eq!(
            proof.verify(b"b", &trust).unwrap_err().to_string(),
            "0 of the known witnesses cosigned; 1 must"
        );
        trust.origin = "other".into();
        assert!(matches!(proof.verify(b"b", &trust), Err(VerifyProofError::Checkpoint(_))));
    }

    #[test]
    fn a_proof_has_one_form() {
        let good = proof().0.to_string();
        for wrong in [
            "",
            &good.replace("@v1", "@v2"),
            &good.replace("extra eA==", "extra eA="),
            &good.replace("extra eA==", "extra eB=="),
            &good.replace("index 1", "index 01"),
            &good.replace("index 1", "index"),
            &good.replace("\n\nexample", "\nexample"),
            &good
                .replace("index 1\n", &format!("index 1\n{}", "A".repeat(43) + "=\n").repeat(1))
                .replace("=\n\n", "\n\n"),
            &good.replace("index 1\n", &format!("index 1\n{}", ("A".repeat(43) + "=\n").repeat(63))),
        ] {
            assert!(Proof::parse(wrong.as_bytes()).is_err(), "input: {wrong:?}");
        }
    }
}
