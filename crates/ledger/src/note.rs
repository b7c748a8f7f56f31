//! Signed notes (c2sp.org/signed-note): text, an empty line, and signature lines.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::cosignature;

/// The longest note that is read. Sixteen signatures of five kilobytes have to fit; this is more than twice that.
pub const MAX_NOTE: usize = 256 * 1024;

/// The most signatures that are read of a note.
pub const MAX_SIGNATURES: usize = 100;

const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// Why a note or a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A signature by a key that is known does not verify.
    #[error("the signature by `{0}` is not valid for this text")]
    BadSignature(String),
    /// The key has another form than it must.
    #[error("not a {kind} key: {why}")]
    Key {
        /// `verifier` or `signing`.
        kind: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// No signature is by the key asked for.
    #[error("no signature by `{0}`")]
    NotSigned(String),
    /// The note has another form than it must.
    #[error("not a signed note: {0}")]
    Syntax(&'static str),
}

/// A note whose form is right. Nothing about its signatures is known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What is signed, with its final newline.
    pub text: String,
    /// Who says that they signed it.
    pub signatures: Vec<Signature>,
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub id: [u8; 4],
    /// The signature; what it is depends on the key.
    pub bytes: Vec<u8>,
}

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// It is not UTF-8, has control characters, no signature, or is too long.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::Syntax("it is too long"));
        }
        let note = std::str::from_utf8(bytes).or(Err(NoteError::Syntax("it is not UTF-8")))?;
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(NoteError::Syntax("it has a control character"));
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Syntax("no empty line before the signatures"))?;
        let (text, lines) = note.split_at_checked(at + 1).ok_or(NoteError::Syntax("it is cut"))?;
        let lines = lines.strip_prefix('\n').and_then(|l| l.strip_suffix('\n'));
        let lines = lines.ok_or(NoteError::Syntax("it does not end in a newline"))?;
        let signatures = lines.split('\n').map(Signature::parse).collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::Syntax("it has too many signatures"));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Checks that `key` signed the text. Returns the time it states, if its kind of signature states one.
    ///
    /// # Errors
    /// It did not sign, or a signature that says it is by this key is not valid.
    pub fn verify(&self, key: &VerifierKey) -> Result<Option<u64>, NoteError> {
        let mut stated = Err(NoteError::NotSigned(key.name.clone()));
        for signature in self.signatures.iter().filter(|s| s.name == key.name && s.id == key.id) {
            let time = key.verify(&self.text, &signature.bytes);
            stated = Ok(time.ok_or_else(|| NoteError::BadSignature(key.name.clone()))?);
        }
        stated
    }
}

impl Signature {
    fn parse(line: &str) -> Result<Self, NoteError> {
        let syntax = NoteError::Syntax("a signature line is not `\u{2014} NAME BASE64`");
        let (name, base64) =
            line.strip_prefix(SIGNATURE_PREFIX).and_then(|l| l.split_once(' ')).ok_or(syntax.clone())?;
        let bytes =
            STANDARD.decode(base64).or(Err(NoteError::Syntax("a signature is not canonical base64")))?;
        let (id, rest) = bytes.split_first_chunk::<4>().ok_or(syntax.clone())?;
        if !is_key_name(name) || rest.is_empty() {
            return Err(syntax);
        }
        Ok(Self { name: name.to_owned(), id: *id, bytes: rest.to_vec() })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.id.as_slice(), &self.bytes].concat();
        writeln!(f, "{SIGNATURE_PREFIX}{} {}", self.name, STANDARD.encode(bytes))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

/// Whether this can be the name of a key, and so of a log: not empty, and without spaces, `+` or control characters.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// A public key and the kind of signatures that it verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    public: PublicKey,
}

/// The public half of a key, by the kind of its signatures.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Type 0x01: Ed25519 over the text.
    Note(ed25519_dalek::VerifyingKey),
    /// Type 0x04: Ed25519 over time and text.
    Cosigner(ed25519_dalek::VerifyingKey),
    /// Type 0x06: ML-DSA-44 over a subtree.
    MlDsaCosigner(Box<cosignature::MlDsaKey>),
}

impl VerifierKey {
    /// The key's name: of a log, its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id.
    #[must_use]
    pub const fn id(&self) -> [u8; 4] {
        self.id
    }

    /// Whether it is a log's key for plain Ed25519 notes.
    #[must_use]
    pub const fn is_note_key(&self) -> bool {
        matches!(self.public, PublicKey::Note(_))
    }

    /// Makes the key of type 0x01 with this name.
    #[must_use]
    pub fn ed25519(name: &str, public: ed25519_dalek::VerifyingKey) -> Self {
        Self::new(name.to_owned(), PublicKey::Note(public))
    }

    fn new(name: String, public: PublicKey) -> Self {
        let mut hash = Sha256::new();
        hash.update(name.as_bytes());
        hash.update(b"\n");
        hash.update(public.encode());
        let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
        Self { name, id: [a, b, c, d], public }
    }

    /// The bytes of the public key, without type and name: the same key under two names counts once.
    #[must_use]
    pub fn public_bytes(&self) -> Vec<u8> {
        let mut bytes = self.public.encode();
        bytes.remove(0);
        bytes
    }

    /// Checks one signature. `None` if it is not valid; else the time it states, if its kind states one.
    fn verify(&self, text: &str, signature: &[u8]) -> Option<Option<u64>> {
        match &self.public {
            PublicKey::Note(key) => {
                let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
                key.verify_strict(text.as_bytes(), &signature).ok().map(|()| None)
            }
            PublicKey::Cosigner(key) => cosignature::verify_ed25519(key, text, signature).map(Some),
            PublicKey::MlDsaCosigner(key) => {
                cosignature::verify_ml_dsa(key, &self.name, text, signature).map(Some)
            }
        }
    }
}

impl PublicKey {
    /// The type's byte and the key.
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Note(key) => [&[0x01], key.as_bytes().as_slice()].concat(),
            Self::Cosigner(key) => [&[0x04], key.as_bytes().as_slice()].concat(),
            Self::MlDsaCosigner(key) => [&[0x06], key.encode().as_slice()].concat(),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, key) = bytes.split_first()?;
        let ed25519 = || ed25519_dalek::VerifyingKey::from_bytes(key.try_into().ok()?).ok();
        match kind {
            0x01 => ed25519().map(Self::Note),
            0x04 => ed25519().map(Self::Cosigner),
            0x06 => cosignature::MlDsaKey::decode(key).map(|key| Self::MlDsaCosigner(Box::new(key))),
            _ => None,
        }
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let error = |why| NoteError::Key { kind: "verifier", why };
        let (name, id, base64) = split_key(text).ok_or(error("it is not `NAME+8 hex digits+BASE64`"))?;
        let bytes = STANDARD.decode(base64).or(Err(error("its last part is not canonical base64")))?;
        let public = PublicKey::decode(&bytes)
            .ok_or(error("it is not of type 0x01, 0x04 or 0x06, or not a point of the curve"))?;
        let key = Self::new(name.to_owned(), public);
        if key.id_hex() == id { Ok(key) } else { Err(error("its id is not that of its name and key")) }
    }
}

impl VerifierKey {
    fn id_hex(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.id))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, self.id_hex(), STANDARD.encode(self.public.encode()))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({}+{})", self.name, self.id_hex())
    }
}

/// Splits a key into name, id and base64; the last part may itself have `+`.
fn split_key(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('+')?;
    let (id, base64) = rest.split_once('+')?;
    (is_key_name(name) && id.len() == 8).then_some((name, id, base64))
}

/// An Ed25519 key that signs notes. Wiped when dropped; never shown.
#[derive(ZeroizeOnDrop)]
pub struct SigningKey {
    #[zeroize(skip)]
    verifier: VerifierKey,
    secret: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// The key named `name` with this seed.
    ///
    /// # Errors
    /// The name has characters that it may not have.
    pub fn from_seed(name: &str, seed: &Zeroizing<[u8; 32]>) -> Result<Self, NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::Key { kind: "signing", why: "its name is empty or has spaces or `+`" });
        }
        let secret = ed25519_dalek::SigningKey::from_bytes(seed);
        Ok(Self { verifier: VerifierKey::ed25519(name, secret.verifying_key()), secret })
    }

    /// Reads `PRIVATE+KEY+NAME+ID+BASE64`, the form of Go's `note` package.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let error = |why| NoteError::Key { kind: "signing", why };
        let form = error("it is not `PRIVATE+KEY+NAME+8 hex digits+BASE64`");
        let (name, id, base64) = text.strip_prefix("PRIVATE+KEY+").and_then(split_key).ok_or(form.clone())?;
        let bytes = Zeroizing::new(STANDARD.decode(base64).or(Err(form.clone()))?);
        let Some((0x01, seed)) = bytes.split_first() else {
            return Err(error("it is not of type 0x01"));
        };
        let mut seed: [u8; 32] = seed.try_into().or(Err(form))?;
        let key = Self::from_seed(name, &Zeroizing::new(seed));
        seed.zeroize();
        let key = key?;
        if key.verifier.id_hex() == id {
            Ok(key)
        } else {
            Err(error("its id is not that of its name and key"))
        }
    }

    /// The form that [`parse`](Self::parse) reads.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(self.secret.to_bytes());
        let bytes = Zeroizing::new([&[0x01], seed.as_slice()].concat());
        let base64 = Zeroizing::new(STANDARD.encode(&*bytes));
        Zeroizing::new(format!("PRIVATE+KEY+{}+{}+{}", self.verifier.name, self.verifier.id_hex(), *base64))
    }

    /// The public half.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs a text, which must end in a newline, and returns the note.
    #[must_use]
    pub fn sign(&self, text: &str) -> Note {
        let bytes = self.secret.sign(text.as_bytes()).to_bytes().to_vec();
        let signature = Signature { name: self.verifier.name.clone(), id: self.verifier.id, bytes };
        Note { text: text.to_owned(), signatures: vec![signature] }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}+{}, secret)", self.verifier.name, self.verifier.id_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of c2sp.org/signed-note.
    const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    #[test]
    fn the_example_of_the_specification_verifies() {
        let key: VerifierKey = EXAMPLE_KEY.parse().unwrap();
        assert_eq!(key.to_string(), EXAMPLE_KEY);
        let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(note.to_string(), EXAMPLE);
        assert_eq!(note.verify(&key), Ok(None));
        let other = Note::parse(EXAMPLE.replace("This", "That").as_bytes()).unwrap();
        assert_eq!(other.verify(&key), Err(NoteError::BadSignature("example.com/foo".into())));
        let other = Note::parse(EXAMPLE.replace("com/foo", "com/bar").as_bytes()).unwrap();
        assert_eq!(other.verify(&key), Err(NoteError::NotSigned("example.com/foo".into())));
    }

    #[test]
    fn notes_have_one_form() {
        for wrong in [
            "",
            "text\n",
            "text\n\n",
            "text\n\n\n",
            EXAMPLE.strip_suffix('\n').unwrap(),
            &EXAMPLE.replace("aQM=", "aQN="),
            &EXAMPLE.replace("aQM=", "aQM"),
            &EXAMPLE.replace('\u{2014}', "-"),
            &EXAMPLE.replace("foo ", "foo  "),
            &EXAMPLE.replace("foo ", "fo+o "),
            &EXAMPLE.replace("This", "Th\tis"),
            &EXAMPLE.replace("This", "Th\ris"),
            &format!("{EXAMPLE}\n"),
            &format!("{EXAMPLE}x\n"),
        ] {
            assert!(Note::parse(wrong.as_bytes()).is_err(), "input: {wrong:?}");
        }
        assert!(Note::parse(b"\xff\n\n").is_err());
        let line = EXAMPLE.split_once("\n\n").unwrap().1;
        assert!(Note::parse(format!("t\n\n{}", line.repeat(MAX_SIGNATURES)).as_bytes()).is_ok());
        assert!(Note::parse(format!("t\n\n{}", line.repeat(MAX_SIGNATURES + 1)).as_bytes()).is_err());
    }

    #[test]
    fn signing_keys_sign_and_read_back() {
        let key = SigningKey::from_seed("example.com/log", &Zeroizing::new([7; 32])).unwrap();
        let again = SigningKey::parse(&key.to_text()).unwrap();
        let note = again.sign("hello\n");
        assert_eq!(Note::parse(note.to_string().as_bytes()), Ok(note.clone()));
        assert_eq!(note.verify(key.verifier()), Ok(None));
        assert_eq!(key.verifier().to_string().parse(), Ok(key.verifier().clone()));
        assert!(!format!("{key:?}").contains(key.to_text().rsplit('+').next().unwrap()));
        for wrong in [
            "",
            "PRIVATE+KEY+a",
            &key.to_text().replace("example", "exomple"),
            &key.verifier().to_string(),
            &format!("{}A", *key.to_text()),
        ] {
            assert!(SigningKey::parse(wrong).is_err(), "input: {wrong:?}");
        }
        assert!(SigningKey::from_seed("a b", &Zeroizing::new([7; 32])).is_err());
    }

    #[test]
    fn verifier_keys_have_one_form() {
        for wrong in [
            "",
            "example.com/foo+530d903a",
            "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k=",
            "example.com /foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        ] {
            assert!(wrong.parse::<VerifierKey>().is_err(), "input: {wrong:?}");
        }
    }
}
