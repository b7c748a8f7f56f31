//! Values that may have to be forgotten: encrypted beside the log, which only commits to them.
//!
//! Three layers of keys. The *root key* lies in a file of its own ([`crate::home`]) and wraps the keys of the subjects. A *subject's key*
//! lies in the store; the data keys of everything that is about that subject (an agent) are derived from it. A *data
//! key* is used for one record: it is the HMAC-SHA-256 of a random *seed*, which lies beside what it encrypts. To
//! forget one record, its row is deleted; to forget a subject, wherever copies may be, its keys are deleted.
//!
//! Wrapping is XChaCha20-Poly1305 with random nonces of 24 bytes. Data keys are for ChaCha20-Poly1305; each seals at
//! most one message of each part, whose number is the nonce.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::port::{Disclosed, NoRandomnessError};

const KEY: usize = 32;
const NONCE: usize = 24;
const SEED: usize = 32;

/// Why something could not be sealed or opened. It never says what was in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// It was changed, was sealed for something else, or was sealed under another key.
    #[error("a sealed value does not open with this key")]
    Wrong,
}

/// The key over all keys.
pub struct RootKey(Zeroizing<[u8; KEY]>);

impl RootKey {
    /// The key whose 32 bytes are these.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Seals a small secret, such as the seed of somebody's one-time codes. It opens for the same `purpose` only.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn seal(&self, purpose: &str, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        wrap(&self.0, purpose.as_bytes(), bytes)
    }

    /// Opens what [`seal`](Self::seal) sealed.
    ///
    /// # Errors
    /// It was changed, or sealed for another purpose or under another key.
    pub fn unseal(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        unwrap(&self.0, purpose.as_bytes(), sealed)
    }
}

/// The key of one subject. There may be several for one subject; each has its own number.
pub(crate) struct SubjectKey {
    pub(crate) id: i64,
    pub(crate) subject: String,
    pub(crate) wrapped: Vec<u8>,
    /// Whether its row was seen in the store, or written to it. If so and the row is not there, it was erased.
    pub(crate) stored: AtomicBool,
    key: Zeroizing<[u8; KEY]>,
}

impl SubjectKey {
    fn new(root: &RootKey, subject: &str) -> Result<Self, SealError> {
        let mut random = Zeroizing::new([0; KEY + 8]);
        fill(&mut *random)?;
        let (key, id) = random.split_first_chunk::<KEY>().ok_or(SealError::NoRandomness)?;
        // Half of the range: the sign bit is cleared, so that the number is positive everywhere.
        let id = id.iter().fold(0_i64, |id, byte| (id << 8) | i64::from(*byte)) & i64::MAX;
        let wrapped = wrap(&root.0, &subject_context(id, subject), key)?;
        let key = Zeroizing::new(*key);
        Ok(Self { id, subject: subject.to_owned(), wrapped, stored: AtomicBool::new(false), key })
    }

    pub(crate) fn from_row(
        root: &RootKey,
        id: i64,
        subject: &str,
        wrapped: Vec<u8>,
    ) -> Result<Self, SealError> {
        let bytes = unwrap(&root.0, &subject_context(id, subject), &wrapped)?;
        let key = bytes.as_slice().try_into().map_err(|_length| SealError::Wrong)?;
        let key = Zeroizing::new(key);
        Ok(Self { id, subject: subject.to_owned(), wrapped, stored: AtomicBool::new(true), key })
    }
}

fn subject_context(id: i64, subject: &str) -> Vec<u8> {
    [b"toolgate/subject/v1".as_slice(), &id.to_be_bytes(), subject.as_bytes()].concat()
}

/// The keys of the subjects that this process has met.
pub(crate) struct SubjectKeys {
    root: RootKey,
    /// The newest key of each subject. Guards nothing else.
    newest: Mutex<HashMap<String, Arc<SubjectKey>>>,
}

impl SubjectKeys {
    pub(crate) fn new(root: RootKey) -> Self {
        Self { root, newest: Mutex::default() }
    }

    pub(crate) const fn root(&self) -> &RootKey {
        &self.root
    }

    /// The key to seal with: the one in hand, else the one `read` finds in the store, else a new one.
    pub(crate) fn of<E: From<SealError>>(
        &self,
        subject: &str,
        read: impl FnOnce() -> Result<Option<(i64, Vec<u8>)>, E>,
    ) -> Result<Arc<SubjectKey>, E> {
        if let Some(key) = self.lock().get(subject) {
            return Ok(Arc::clone(key));
        }
        let found = match read()? {
            Some((id, wrapped)) => SubjectKey::from_row(&self.root, id, subject, wrapped)?,
            None => SubjectKey::new(&self.root, subject)?,
        };
        // Somebody else may have been first; all take the same key.
        Ok(Arc::clone(self.lock().entry(subject.to_owned()).or_insert_with(|| Arc::new(found))))
    }

    /// Lets go of a key that was erased.
    pub(crate) fn forget(&self, key: &SubjectKey) {
        let mut newest = self.lock();
        if newest.get(&key.subject).is_some_and(|newest| newest.id == key.id) {
            newest.remove(&key.subject);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<SubjectKey>>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a data key may seal, once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The values a record commits to; bound to the record.
    Values,
    /// The statement of a question; bound to its number.
    Statement,
}

impl Part {
    const fn number(self) -> u8 {
        match self {
            Self::Values => 0,
            Self::Statement => 1,
        }
    }

    const fn nonce(self) -> [u8; 12] {
        [self.number(); 12]
    }

    fn context(self, bound: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([b"toolgate/blob/v1".as_slice(), &[self.number()], bound].concat())
    }
}

/// A data key: made for one record.
pub(crate) struct DataKey {
    key: LessSafeKey,
    /// What it is derived from, together with the subject's key.
    pub(crate) seed: [u8; SEED],
}

impl DataKey {
    pub(crate) fn new(subject: &SubjectKey) -> Result<Self, SealError> {
        let mut seed = [0; SEED];
        fill(&mut seed)?;
        Self::from_seed(subject, seed)
    }

    pub(crate) fn from_row(subject: &SubjectKey, seed: &[u8]) -> Result<Self, SealError> {
        Self::from_seed(subject, seed.try_into().map_err(|_length| SealError::Wrong)?)
    }

    fn from_seed(subject: &SubjectKey, seed: [u8; SEED]) -> Result<Self, SealError> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*subject.key).map_err(|_any_length_will_do| SealError::Wrong)?;
        mac.update(b"toolgate/data/v2");
        mac.update(&seed);
        let key = Zeroizing::new(<[u8; KEY]>::from(mac.finalize().into_bytes()));
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*key).map_err(|_length| SealError::Wrong)?;
        Ok(Self { key: LessSafeKey::new(key), seed })
    }

    pub(crate) fn seal(&self, part: Part, bound: &[u8], mut bytes: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let nonce = Nonce::assume_unique_for_key(part.nonce());
        self.key
            .seal_in_place_append_tag(nonce, part.context(bound), &mut bytes)
            .map_err(|_opaque| SealError::Wrong)?;
        Ok(bytes)
    }

    pub(crate) fn open(&self, part: Part, bound: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let nonce = Nonce::assume_unique_for_key(part.nonce());
        let length = self
            .key
            .open_in_place(nonce, part.context(bound), &mut sealed)
            .map_err(|_opaque| SealError::Wrong)?
            .len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

/// A value that a record commits to, as it was read back.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// Which value of the record it is: `arguments`, `result`, …
    pub path: String,
    /// The salt of the commitment.
    pub salt: [u8; 32],
    /// The value.
    pub bytes: Bytes,
}

/// Puts values one after another: a byte with the length of the path, the path, the salt, four bytes with the length
/// of the value, the value.
pub(crate) fn frame(values: &[Disclosed]) -> Vec<u8> {
    // With room for the tag that sealing adds.
    let room: usize = values.iter().map(|v| v.path.len() + v.bytes.len() + 37).sum();
    let mut out = Vec::with_capacity(room + CHACHA20_POLY1305.tag_len());
    for Disclosed { path, salt, bytes } in values {
        let path = path.as_bytes().get(..255).unwrap_or(path.as_bytes());
        out.push(u8::try_from(path.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(path);
        out.extend_from_slice(salt);
        // What is longer than 4 GiB does not come this far.
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

/// Takes apart what [`frame`] put together; `None` if it is not that.
pub(crate) fn unframe(framed: Vec<u8>) -> Option<Vec<Value>> {
    let mut rest = Bytes::from(framed);
    let mut values = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(*rest.first()?);
        let path = take(&mut rest, length + 1)?;
        let path = std::str::from_utf8(path.get(1..)?).ok()?.to_owned();
        let salt = *take(&mut rest, 32)?.first_chunk::<32>()?;
        let length = u32::from_be_bytes(*take(&mut rest, 4)?.first_chunk::<4>()?);
        let bytes = take(&mut rest, usize::try_from(length).ok()?)?;
        values.push(Value { path, salt, bytes });
    }
    Some(values)
}

fn take(rest: &mut Bytes, length: usize) -> Option<Bytes> {
    (rest.len() >= length).then(|| rest.split_to(length))
}

fn fill(bytes: &mut [u8]) -> Result<(), SealError> {
    crate::randomness::fill(bytes).map_err(|NoRandomnessError| SealError::NoRandomness)
}

/// Seals bytes for one context: a random nonce, then XChaCha20-Poly1305.
pub(crate) fn wrap(key: &[u8; KEY], context: &[u8], bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE];
    fill(&mut nonce)?;
    let sealed = XChaCha20Poly1305::new(&(*key).into())
        .encrypt(&XNonce::from(nonce), Payload { msg: bytes, aad: context })
        .map_err(|_opaque| SealError::Wrong)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens what [`wrap`] sealed for the same context.
pub(crate) fn unwrap(
    key: &[u8; KEY],
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or(SealError::Wrong)?;
    let nonce: &XNonce = nonce.try_into().map_err(|_length| SealError::Wrong)?;
    XChaCha20Poly1305::new(&(*key).into())
        .decrypt(nonce, Payload { msg: sealed, aad: context })
        .map(Zeroizing::new)
        .map_err(|_opaque| SealError::Wrong)
}

/// Marks a key as written.
pub(crate) fn mark_stored(key: &SubjectKey) {
    key.stored.store(true, Ordering::Release);
}

/// Whether a key was written, so that its absence means it was erased.
pub(crate) fn was_stored(key: &SubjectKey) -> bool {
    key.stored.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> RootKey {
        RootKey::from_bytes([byte; KEY])
    }

    #[test]
    fn a_secret_opens_for_its_purpose_and_key_only() {
        let sealed = root(1).seal("totp/ada", b"seed").unwrap();
        assert_eq!(root(1).unseal("totp/ada", &sealed).unwrap().as_slice(), b"seed");
        assert_eq!(root(1).unseal("totp/bob", &sealed).unwrap_err(), SealError::Wrong);
        assert_eq!(root(2).unseal("totp/ada", &sealed).unwrap_err(), SealError::Wrong);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(root(1).unseal("totp/ada", &changed).unwrap_err(), SealError::Wrong, "byte {at}");
        }
        assert_eq!(root(1).unseal("totp/ada", &sealed[..10]).unwrap_err(), SealError::Wrong);
    }

    #[test]
    fn a_data_key_opens_with_its_subject_key_and_its_binding() {
        let subject = SubjectKey::new(&root(1), "ada").unwrap();
        let data = DataKey::new(&subject).unwrap();
        let sealed = data.seal(Part::Values, b"leaf", b"value".to_vec()).unwrap();

        let again = SubjectKey::from_row(&root(1), subject.id, "ada", subject.wrapped.clone()).unwrap();
        let read = DataKey::from_row(&again, &data.seed).unwrap();
        assert_eq!(read.open(Part::Values, b"leaf", sealed.clone()).unwrap(), b"value");
        assert_eq!(read.open(Part::Values, b"other leaf", sealed.clone()).unwrap_err(), SealError::Wrong);
        assert_eq!(read.open(Part::Statement, b"leaf", sealed.clone()).unwrap_err(), SealError::Wrong);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(read.open(Part::Values, b"leaf", changed).unwrap_err(), SealError::Wrong, "byte {at}");
        }

        assert!(SubjectKey::from_row(&root(1), subject.id, "bob", subject.wrapped.clone()).is_err());
        assert!(SubjectKey::from_row(&root(1), subject.id ^ 1, "ada", subject.wrapped.clone()).is_err());
        assert!(SubjectKey::from_row(&root(2), subject.id, "ada", subject.wrapped.clone()).is_err());
        let other = SubjectKey::new(&root(1), "ada").unwrap();
        for (subject, seed) in [(&other, data.seed), (&subject, [0; SEED])] {
            let data = DataKey::from_row(subject, &seed).unwrap();
            assert_eq!(data.open(Part::Values, b"leaf", sealed.clone()).unwrap_err(), SealError::Wrong);
        }
        assert!(DataKey::from_row(&subject, &data.seed[1..]).is_err());
    }

    #[test]
    fn frames_read_back_and_nothing_else_does() {
        let values = [
            Disclosed { path: "arguments", salt: [1; 32], bytes: Bytes::from_static(b"{}") },
            Disclosed { path: "params", salt: [2; 32], bytes: Bytes::new() },
        ];
        let framed = frame(&values);
        let read = unframe(framed.clone()).unwrap();
        assert_eq!(read.len(), 2);
        for (read, was) in read.iter().zip(&values) {
            assert_eq!((read.path.as_str(), read.salt, &read.bytes), (was.path, was.salt, &was.bytes));
        }
        for cut in 1..framed.len() {
            let whole = unframe(framed[..cut].to_vec());
            assert!(whole.is_none_or(|values| values.len() == 1), "cut at {cut}");
        }
    }
}
