//! Cosignatures of witnesses (c2sp.org/tlog-cosignature): Ed25519, type 0x04, and ML-DSA-44, type 0x06.

use ml_dsa::signature::Verifier as _;
use ml_dsa::{EncodedVerifyingKey, MlDsa44};

use crate::checkpoint::Checkpoint;
use crate::note::{Note, NoteError, VerifierKey};

/// A witness that cosigned a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigner {
    /// Its name.
    pub name: String,
    /// When it did, in seconds since 1970, by its own clock.
    pub time: u64,
}

/// Which of the `witnesses` cosigned the note. A key that is listed under several names counts once.
///
/// # Errors
/// A signature that says it is by one of them is not valid: then nothing about the note is to be trusted.
pub fn cosigners(note: &Note, witnesses: &[VerifierKey]) -> Result<Vec<Cosigner>, NoteError> {
    let mut found = Vec::new();
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for witness in witnesses {
        match note.verify(witness) {
            Ok(Some(time)) if !keys.contains(&witness.public_bytes()) => {
                keys.push(witness.public_bytes());
                found.push(Cosigner { name: witness.name().to_owned(), time });
            }
            // A plain signature of a note states no time and is no cosignature.
            Ok(_) | Err(NoteError::NotSigned(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The message that an Ed25519 cosigner signs.
#[must_use]
pub fn ed25519_message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// The message that an ML-DSA-44 cosigner signs. `None` if a name is empty or longer than 255 bytes.
#[must_use]
pub fn ml_dsa_message(cosigner: &str, time: u64, checkpoint: &Checkpoint) -> Option<Vec<u8>> {
    let mut message = b"subtree/v1\n\0".to_vec();
    let name = |message: &mut Vec<u8>, name: &str| {
        message.push(u8::try_from(name.len()).ok().filter(|length| *length > 0)?);
        message.extend_from_slice(name.as_bytes());
        Some(())
    };
    name(&mut message, cosigner)?;
    message.extend_from_slice(&time.to_be_bytes());
    name(&mut message, &checkpoint.origin)?;
    message.extend_from_slice(&0_u64.to_be_bytes());
    message.extend_from_slice(&checkpoint.size.to_be_bytes());
    message.extend_from_slice(&checkpoint.root.0);
    Some(message)
}

/// Checks a `timestamped_signature` and returns its time.
pub(crate) fn verify_ed25519(key: &ed25519_dalek::VerifyingKey, text: &str, bytes: &[u8]) -> Option<u64> {
    let (time, signature) = split_time(bytes)?;
    let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
    // What is cosigned must be a checkpoint, whatever else the text could mean.
    Checkpoint::parse(text).ok()?;
    key.verify_strict(ed25519_message(time, text).as_bytes(), &signature).ok().map(|()| time)
}

/// Checks a `timestamped_signature` and returns its time.
pub(crate) fn verify_ml_dsa(key: &MlDsaKey, cosigner: &str, text: &str, bytes: &[u8]) -> Option<u64> {
    let (time, signature) = split_time(bytes)?;
    let signature = ml_dsa::Signature::<MlDsa44>::try_from(signature).ok()?;
    let message = ml_dsa_message(cosigner, time, &Checkpoint::parse(text).ok()?)?;
    key.0.verify(&message, &signature).ok().map(|()| time)
}

fn split_time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (time, signature) = bytes.split_first_chunk::<8>()?;
    let time = u64::from_be_bytes(*time);
    (time <= i64::MAX.cast_unsigned()).then_some((time, signature))
}

/// An ML-DSA-44 public key.
#[derive(Clone)]
pub(crate) struct MlDsaKey(ml_dsa::VerifyingKey<MlDsa44>);

impl MlDsaKey {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let encoded = EncodedVerifyingKey::<MlDsa44>::try_from(bytes).ok()?;
        Some(Self(ml_dsa::VerifyingKey::decode(&encoded)))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.0.encode().to_vec()
    }
}

impl PartialEq for MlDsaKey {
    fn eq(&self, other: &Self) -> bool {
        self.encode() == other.encode()
    }
}

impl Eq for MlDsaKey {}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use ed25519_dalek::Signer as _;
    use sha2::{Digest as _, Sha256};
    use zeroize::Zeroizing;

    use super::*;
    use crate::note::{Signature, SigningKey};
    use crate::tree::Hash;

    fn verifier(name: &str, kind: u8, public: &[u8]) -> VerifierKey {
        let material = [&[kind], public].concat();
        let id = Sha256::digest([name.as_bytes(), b"\n", &material].concat());
        let id = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        format!("{name}+{id:08x}+{}", STANDARD.encode(material)).parse().unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "example.com/log".into(), size: 5, root: Hash::of(b"root") }
    }

    fn signed() -> Note {
        SigningKey::from_seed("example.com/log", &Zeroizing::new([1; 32])).unwrap().sign(&checkpoint().text())
    }

    fn line(key: &VerifierKey, time: u64, signature: &[u8]) -> Signature {
        let bytes = [time.to_be_bytes().as_slice(), signature].concat();
        Signature { name: key.name().into(), id: key.id(), bytes }
    }

    /// An Ed25519 witness, and its cosignature of the checkpoint at `time`.
    fn ed25519(name: &str, time: u64) -> (VerifierKey, Signature) {
        let secret = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
        let key = verifier(name, 4, secret.verifying_key().as_bytes());
        let signature = secret.sign(ed25519_message(time, &checkpoint().text()).as_bytes());
        (key.clone(), line(&key, time, &signature.to_bytes()))
    }

    fn ml_dsa(name: &str, time: u64) -> (VerifierKey, Signature) {
        let secret = ml_dsa::SigningKey::<MlDsa44>::from_seed(&[3; 32].into());
        let key = verifier(name, 6, &secret.expanded_key().verifying_key().encode());
        let message = ml_dsa_message(name, time, &checkpoint()).unwrap();
        let signature = secret.expanded_key().sign_deterministic(&message, &[]).unwrap();
        (key.clone(), line(&key, time, &signature.encode()))
    }

    #[test]
    fn both_kinds_verify_and_state_their_time() {
        for (key, signature) in [ed25519("w.example/1", 1_679_315_147), ml_dsa("w.example/2", 0)] {
            let time = u64::from_be_bytes(signature.bytes[..8].try_into().unwrap());
            let mut note = signed();
            note.signatures.push(signature);
            let note = Note::parse(note.to_string().as_bytes()).unwrap();
            assert_eq!(
                cosigners(&note, std::slice::from_ref(&key)),
                Ok(vec![Cosigner { name: key.name().into(), time }])
            );
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn what_was_not_signed_is_refused() {
        for (key, signature) in [ed25519("w.example/1", 7), ml_dsa("w.example/2", 7)] {
            let refused = Err(NoteError::BadSignature(key.name().into()));
            let mut note = signed();
            // Another time than was signed, one bit of the signature, a cut one, a time past 2^63.
            for damage in [0_usize, 1, 2, 3] {
                let mut bent = signature.clone();
                match damage {
                    0 => bent.bytes[7] ^= 1,
                    1 => *bent.bytes.last_mut().unwrap() ^= 1,
                    2 => bent.bytes.truncate(60),
                    _ => bent.bytes[0] = 0x80,
                }
                note.signatures = vec![bent];
                assert_eq!(
                    cosigners(&note, std::slice::from_ref(&key)),
                    refused,
                    "damage {damage} of {key:?}"
                );
            }
            // Another checkpoint than was signed.
            note.signatures = vec![signature];
            note.text = note.text.replace("\n5\n", "\n6\n");
            assert_eq!(cosigners(&note, &[key]), refused);
        }
    }

    #[test]
    fn a_key_under_two_names_counts_once() {
        let (one, first) = ed25519("w.example/1", 7);
        let (two, second) = ed25519("w.example/2", 7);
        let mut note = signed();
        note.signatures = vec![first, second];
        assert_eq!(cosigners(&note, &[one, two]).unwrap().len(), 1);
    }

    #[test]
    fn an_ml_dsa_cosignature_names_its_cosigner() {
        let (_, signature) = ml_dsa("w.example/1", 7);
        let (other, _) = ml_dsa("w.example/2", 7);
        let mut note = signed();
        note.signatures = vec![Signature { name: other.name().into(), id: other.id(), ..signature }];
        assert!(cosigners(&note, &[other]).is_err());
    }

    #[test]
    fn the_logs_own_signature_is_no_cosignature() {
        let log = SigningKey::from_seed("example.com/log", &Zeroizing::new([1; 32])).unwrap();
        assert_eq!(cosigners(&signed(), &[log.verifier().clone()]), Ok(vec![]));
    }
}
