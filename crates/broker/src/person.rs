//! People: who answers questions, and how they prove that it was them.
//!
//! With a passphrase, a person holds an Ed25519 key of which only the sealed form is stored; an answer is a signature
//! that anybody can check for ever. With one-time codes, the gate checks the code when it is given and leaves a seal
//! that only the gate can check again. Either way the proof covers the statement, the answer and the person, so it
//! fits nothing else.
//!
//! The gate's own user can replace a person's record in the store, as it can replace the program. Enrolments are on
//! the log, so that it shows.

use std::collections::BTreeMap;

use argon2::{Algorithm, Argon2, Params, Version};
use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use toolgate_core::digest::Digest;
use toolgate_core::name::PersonName;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::port::{Answered, Question, VerifyAnswer};
use crate::store::PersonRow;
use crate::totp::{self, Attempts, TotpError, TotpSecret};

/// The method of an answer signed with a passphrase.
pub const ED25519: &str = "ed25519";

/// The method of an answer confirmed with a one-time code.
pub const TOTP: &str = "totp";

/// How short a passphrase may be, in characters.
pub const MIN_PASSPHRASE_CHARS: usize = 12;

/// What guessing one passphrase costs: 64 MiB and three passes. The least that is accepted from a store is 19 MiB and two.
pub(crate) const MEMORY_KIB: u32 = 64 << 10;
pub(crate) const PASSES: u32 = 3;
const LEAST_MEMORY_KIB: u32 = 19 << 10;
const LEAST_PASSES: u32 = 2;
const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 16;

/// The key under which the gate seals what only it may read. It is in a file of the state folder.
#[derive(Clone, ZeroizeOnDrop)]
pub struct StateKey([u8; 32]);

impl StateKey {
    /// The key whose bytes these are.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key for one purpose.
    fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*Digest::of("toolgate/state-key/v1", &[&self.0, purpose.as_bytes()]).as_bytes())
    }
}

impl std::fmt::Debug for StateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StateKey(not shown)")
    }
}

/// Somebody who answers questions, as the store keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Their name.
    pub name: PersonName,
    /// How they prove an answer.
    pub method: Method,
    /// When they were enrolled, in milliseconds since 1970.
    pub enrolled_ms: u64,
}

/// How a person proves an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "method")]
pub enum Method {
    /// By a signature; the key is sealed under a passphrase.
    Passphrase(SealedKey),
    /// By a code from a phone; the secret is sealed under the state key.
    Totp(SealedTotp),
}

/// A signing key, sealed under a passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// The public key.
    pub public: [u8; 32],
    salt: [u8; 16],
    nonce: [u8; 24],
    sealed: Vec<u8>,
    memory_kib: u32,
    passes: u32,
}

/// The secret of one-time codes, sealed under the state key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedTotp {
    nonce: [u8; 24],
    sealed: Vec<u8>,
    /// What is remembered of the codes.
    pub attempts: Attempts,
}

/// Why a person could not be enrolled or an answer not be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PersonError {
    /// The code is not accepted.
    #[error(transparent)]
    Code(#[from] TotpError),
    /// What is stored of the person cannot be used.
    #[error("what is stored of person `{0}` is damaged")]
    Damaged(PersonName),
    /// The person proves answers in the other way.
    #[error("person `{name}` answers with a {method}")]
    OtherMethod {
        /// Who.
        name: PersonName,
        /// How: `passphrase` or `one-time code`.
        method: &'static str,
    },
    /// The passphrase is too short to withstand guessing.
    #[error("the passphrase has fewer than {MIN_PASSPHRASE_CHARS} characters")]
    Short,
    /// The passphrase does not open the key.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
}

/// Random bytes for enrolment.
pub struct Seeds {
    /// For the signing key or the codes' secret.
    pub key: Zeroizing<[u8; 32]>,
    /// For Argon2id.
    pub salt: [u8; 16],
    /// For the seal.
    pub nonce: [u8; 24],
}

impl Person {
    /// Enrols a person with a passphrase.
    ///
    /// # Errors
    /// The passphrase is too short.
    pub fn with_passphrase(
        name: PersonName,
        passphrase: &str,
        seeds: &Seeds,
        now_ms: u64,
    ) -> Result<Self, PersonError> {
        Self::with_cost(name, passphrase, seeds, now_ms, (MEMORY_KIB, PASSES))
    }

    fn with_cost(
        name: PersonName,
        passphrase: &str,
        seeds: &Seeds,
        now_ms: u64,
        (memory_kib, passes): (u32, u32),
    ) -> Result<Self, PersonError> {
        if passphrase.chars().count() < MIN_PASSPHRASE_CHARS {
            return Err(PersonError::Short);
        }
        let public = SigningKey::from_bytes(&seeds.key).verifying_key().to_bytes();
        let mut key = SealedKey {
            public,
            salt: seeds.salt,
            nonce: seeds.nonce,
            sealed: Vec::new(),
            memory_kib,
            passes,
        };
        let damaged = || PersonError::Damaged(name.clone());
        let cipher = key.cipher(passphrase).ok_or_else(damaged)?;
        let payload = Payload { msg: &*seeds.key, aad: &key.bound_to(&name) };
        key.sealed = cipher.encrypt(&XNonce::from(key.nonce), payload).map_err(|_opaque| damaged())?;
        Ok(Self { name, method: Method::Passphrase(key), enrolled_ms: now_ms })
    }

    /// Enrols a person with one-time codes. The text is what their authenticator app reads: it is shown once.
    ///
    /// # Errors
    /// The secret cannot be sealed.
    pub fn with_totp(
        name: PersonName,
        state: &StateKey,
        seeds: &Seeds,
        now_ms: u64,
    ) -> Result<(Self, Zeroizing<String>), PersonError> {
        let mut bytes = Zeroizing::new([0; 20]);
        bytes.iter_mut().zip(seeds.key.iter()).for_each(|(to, from)| *to = *from);
        let secret = TotpSecret::new(*bytes);
        let payload = Payload { msg: secret.as_bytes(), aad: name.as_str().as_bytes() };
        let sealed = XChaCha20Poly1305::new(&(*state.derive("totp-secret")).into())
            .encrypt(&XNonce::from(seeds.nonce), payload)
            .map_err(|_opaque| PersonError::Damaged(name.clone()))?;
        let uri = Zeroizing::new(secret.uri(name.as_str()));
        let method = Method::Totp(SealedTotp { nonce: seeds.nonce, sealed, attempts: Attempts::default() });
        Ok((Self { name, method, enrolled_ms: now_ms }, uri))
    }

    /// Answers with a passphrase.
    ///
    /// # Errors
    /// The passphrase is wrong, or the person has none.
    pub fn sign(
        &self,
        passphrase: &str,
        statement: &[u8],
        yes: bool,
        now_ms: u64,
    ) -> Result<Answered, PersonError> {
        let Method::Passphrase(key) = &self.method else {
            return Err(PersonError::OtherMethod { name: self.name.clone(), method: "one-time code" });
        };
        let damaged = || PersonError::Damaged(self.name.clone());
        let cipher = key.cipher(passphrase).ok_or_else(damaged)?;
        let payload = Payload { msg: &key.sealed, aad: &key.bound_to(&self.name) };
        let seed = cipher
            .decrypt(&XNonce::from(key.nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_opaque| PersonError::WrongPassphrase)?;
        let seed = Zeroizing::new(<[u8; 32]>::try_from(seed.as_slice()).map_err(|_length| damaged())?);
        let signer = SigningKey::from_bytes(&seed);
        if signer.verifying_key().to_bytes() != key.public {
            return Err(damaged());
        }
        let signature = signer.sign(answer_digest(&self.name, statement, yes).as_bytes());
        Ok(self.answered(yes, ED25519, signature.to_bytes().to_vec(), now_ms))
    }

    /// Answers with a one-time code. Changes what is remembered of the codes, also when the code is refused: the
    /// caller stores the person before it uses the answer, in the same transaction.
    ///
    /// # Errors
    /// The code is not accepted, or the person has none.
    pub fn confirm(
        &mut self,
        state: &StateKey,
        code: &str,
        statement: &[u8],
        yes: bool,
        now_ms: u64,
    ) -> Result<Answered, PersonError> {
        let Method::Totp(codes) = &mut self.method else {
            return Err(PersonError::OtherMethod { name: self.name.clone(), method: "passphrase" });
        };
        let payload = Payload { msg: &codes.sealed, aad: self.name.as_str().as_bytes() };
        let secret = XChaCha20Poly1305::new(&(*state.derive("totp-secret")).into())
            .decrypt(&XNonce::from(codes.nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_opaque| PersonError::Damaged(self.name.clone()))?;
        let secret = <[u8; 20]>::try_from(secret.as_slice())
            .map(TotpSecret::new)
            .map_err(|_length| PersonError::Damaged(self.name.clone()))?;
        let (attempts, step) = totp::check(&secret, code, now_ms, codes.attempts);
        codes.attempts = attempts;
        let step = step?.to_be_bytes();
        let mut evidence = step.to_vec();
        let seal = confirmation(state, &self.name, &step, statement, yes)
            .ok_or_else(|| PersonError::Damaged(self.name.clone()))?;
        evidence.extend_from_slice(&seal.finalize().into_bytes());
        Ok(self.answered(yes, TOTP, evidence, now_ms))
    }

    fn answered(&self, yes: bool, method: &str, evidence: Vec<u8>, at_ms: u64) -> Answered {
        let (method, evidence) = (method.to_owned(), Bytes::from(evidence));
        Answered { person: self.name.clone(), yes, method, evidence, at_ms }
    }

    /// The public key, of a person who has one.
    #[must_use]
    pub const fn public_key(&self) -> Option<&[u8; 32]> {
        match &self.method {
            Method::Passphrase(key) => Some(&key.public),
            Method::Totp(_) => None,
        }
    }

    /// How the person proves answers, in a word for listings.
    #[must_use]
    pub const fn method_name(&self) -> &'static str {
        match self.method {
            Method::Passphrase(_) => "passphrase",
            Method::Totp(_) => "totp",
        }
    }

    /// The row of the store.
    #[must_use]
    pub fn to_row(&self) -> PersonRow {
        let (method, public_key) = match &self.method {
            Method::Passphrase(key) => (ED25519, Bytes::copy_from_slice(&key.public)),
            Method::Totp(_) => (TOTP, Bytes::new()),
        };
        let sealed = Bytes::from(self.encode());
        PersonRow {
            name: self.name.clone(),
            method: method.to_owned(),
            public_key,
            sealed,
            added_ms: self.enrolled_ms,
        }
    }

    /// The person in a row of the store.
    ///
    /// # Errors
    /// The row cannot be used, or its parts do not belong together.
    pub fn from_row(row: &PersonRow) -> Result<Self, PersonError> {
        let damaged = || PersonError::Damaged(row.name.clone());
        let text = std::str::from_utf8(&row.sealed).map_err(|_not_utf8| damaged())?;
        let person = Self::decode(row.name.clone(), text, row.added_ms)?;
        if person.to_row() == *row { Ok(person) } else { Err(damaged()) }
    }

    /// The method as the store keeps it. Nothing in it is secret without the passphrase or the state key.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(&self.method).unwrap_or_default()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// It is not that, or it would be cheaper to guess than what this program writes.
    pub fn decode(name: PersonName, text: &str, enrolled_ms: u64) -> Result<Self, PersonError> {
        let method = serde_json::from_str(text).map_err(|_source| PersonError::Damaged(name.clone()))?;
        if let Method::Passphrase(key) = &method
            && params(key.memory_kib, key.passes).is_none()
        {
            return Err(PersonError::Damaged(name));
        }
        Ok(Self { name, method, enrolled_ms })
    }
}

/// The cost of a passphrase, if it is one that is accepted: who writes what is stored must not make guessing cheap, nor take all
/// memory.
fn params(memory_kib: u32, passes: u32) -> Option<Params> {
    let fits = (LEAST_MEMORY_KIB..=MOST_MEMORY_KIB).contains(&memory_kib)
        && (LEAST_PASSES..=MOST_PASSES).contains(&passes);
    if !fits {
        return None;
    }
    Params::new(memory_kib, passes, 1, Some(32)).ok()
}

/// A key from a passphrase, by Argon2id. `None` if that cost is not accepted.
pub(crate) fn stretched(
    passphrase: &str,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
) -> Option<Zeroizing<[u8; 32]>> {
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params(memory_kib, passes)?);
    let mut key = Zeroizing::new([0; 32]);
    argon.hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice()).ok()?;
    Some(key)
}

impl SealedKey {
    fn cipher(&self, passphrase: &str) -> Option<XChaCha20Poly1305> {
        let key = stretched(passphrase, &self.salt, self.memory_kib, self.passes)?;
        Some(XChaCha20Poly1305::new(&(*key).into()))
    }

    /// What the sealed seed belongs to, so that it cannot be moved to another name or public key.
    fn bound_to(&self, name: &PersonName) -> [u8; 32] {
        *Digest::of("toolgate/person/v1", &[name.as_str().as_bytes(), &self.public]).as_bytes()
    }
}

/// What is signed: who says yes or no to what.
fn answer_digest(person: &PersonName, statement: &[u8], yes: bool) -> Digest {
    let answer: &[u8] = if yes { b"yes" } else { b"no" };
    // The digest is what the log says about the statement, so a signature can be checked there when the statement is gone.
    let statement = Digest::of("toolgate/statement/v1", &[statement]);
    Digest::of("toolgate/answer/v1", &[statement.as_bytes(), answer, person.as_str().as_bytes()])
}

fn confirmation(
    state: &StateKey,
    person: &PersonName,
    step: &[u8; 8],
    statement: &[u8],
    yes: bool,
) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(state.derive("totp-answer").as_slice()).ok()?;
    mac.update(step);
    mac.update(answer_digest(person, statement, yes).as_bytes());
    Some(mac)
}

/// Whether this person gave this answer to this statement. Asked again whenever an approval is used: a row in the
/// store convinces nobody.
#[must_use]
pub fn verify_answer(person: &Person, state: &StateKey, statement: &[u8], answer: &Answered) -> bool {
    if answer.person != person.name {
        return false;
    }
    match (&person.method, answer.method.as_str()) {
        (Method::Passphrase(key), ED25519) => {
            let digest = answer_digest(&person.name, statement, answer.yes);
            VerifyingKey::from_bytes(&key.public)
                .and_then(|public| {
                    let signature = Signature::from_slice(&answer.evidence)?;
                    public.verify_strict(digest.as_bytes(), &signature)
                })
                .is_ok()
        }
        (Method::Totp(_), TOTP) => {
            let Some((step, seal)) = answer.evidence.split_first_chunk::<8>() else { return false };
            confirmation(state, &person.name, step, statement, answer.yes)
                .is_some_and(|mac| mac.verify_slice(seal).is_ok())
        }
        (Method::Passphrase(_) | Method::Totp(_), _) => false,
    }
}

/// The people who are enrolled, as the rules need them. One person may be enrolled in both ways.
#[derive(Debug)]
pub struct People {
    known: BTreeMap<PersonName, Vec<Person>>,
    state: StateKey,
}

impl People {
    /// These people.
    #[must_use]
    pub fn new(people: impl IntoIterator<Item = Person>, state: StateKey) -> Self {
        let mut known: BTreeMap<PersonName, Vec<Person>> = BTreeMap::new();
        for person in people {
            known.entry(person.name.clone()).or_default().push(person);
        }
        Self { known, state }
    }

    /// The people in these rows of the store.
    ///
    /// # Errors
    /// A row cannot be used.
    pub fn from_rows(rows: &[PersonRow], state: StateKey) -> Result<Self, PersonError> {
        let people = rows.iter().map(Person::from_row).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(people, state))
    }

    /// Whether somebody of this name is enrolled.
    #[must_use]
    pub fn contains(&self, name: &PersonName) -> bool {
        self.known.contains_key(name)
    }
}

impl VerifyAnswer for People {
    fn verify(&self, question: &Question, answer: &Answered) -> bool {
        self.known.get(&answer.person).is_some_and(|ways| {
            ways.iter().any(|person| verify_answer(person, &self.state, &question.statement, answer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "correct horse battery";

    fn name(text: &str) -> PersonName {
        text.parse().unwrap()
    }

    fn seeds(fill: u8) -> Seeds {
        Seeds { key: Zeroizing::new([fill; 32]), salt: [fill; 16], nonce: [fill; 24] }
    }

    fn ada() -> Person {
        Person::with_cost(name("ada"), GOOD, &seeds(1), 7, (LEAST_MEMORY_KIB, LEAST_PASSES)).unwrap()
    }

    fn state() -> StateKey {
        StateKey::new([9; 32])
    }

    #[test]
    fn a_signature_fits_one_statement_one_answer_and_one_person() {
        let ada = ada();
        let answer = ada.sign(GOOD, b"statement", true, 8).unwrap();
        assert!(verify_answer(&ada, &state(), b"statement", &answer));
        assert!(!verify_answer(&ada, &state(), b"statement!", &answer), "another statement");
        assert!(!verify_answer(&ada, &state(), b"statement", &Answered { yes: false, ..answer.clone() }));
        let bob = Person { name: name("bob"), ..ada.clone() };
        let renamed = Answered { person: name("bob"), ..answer.clone() };
        assert!(!verify_answer(&bob, &state(), b"statement", &answer), "another person");
        assert!(!verify_answer(&bob, &state(), b"statement", &renamed), "the same key under another name");
        assert!(!verify_answer(
            &ada,
            &state(),
            b"statement",
            &Answered { method: TOTP.into(), ..answer.clone() }
        ));
        for evidence in [&answer.evidence[..63], b"", &[0; 64]] {
            let forged = Answered { evidence: Bytes::copy_from_slice(evidence), ..answer.clone() };
            assert!(!verify_answer(&ada, &state(), b"statement", &forged));
        }
    }

    #[test]
    fn a_passphrase_is_needed_and_has_to_be_good() {
        let ada = ada();
        assert_eq!(ada.sign("correct horse batterz", b"s", true, 8), Err(PersonError::WrongPassphrase));
        assert_eq!(ada.sign("", b"s", true, 8), Err(PersonError::WrongPassphrase));
        assert_eq!(
            ada.clone().confirm(&state(), "123456", b"s", true, 8).map_err(|e| e.to_string()),
            Err("person `ada` answers with a passphrase".into())
        );
        let short = Person::with_passphrase(name("eve"), "elevenchars", &seeds(1), 7);
        assert_eq!(short, Err(PersonError::Short));
    }

    #[test]
    fn a_sealed_key_cannot_be_moved() {
        let ada = ada();
        let moved = Person { name: name("bob"), ..ada.clone() };
        assert_eq!(moved.sign(GOOD, b"s", true, 8), Err(PersonError::WrongPassphrase));
        let Method::Passphrase(key) = &ada.method else { panic!("no key") };
        let swapped = Method::Passphrase(SealedKey { public: [3; 32], ..key.clone() });
        let swapped = Person { method: swapped, ..ada.clone() };
        assert_eq!(swapped.sign(GOOD, b"s", true, 8), Err(PersonError::WrongPassphrase));
    }

    #[test]
    fn what_is_stored_reads_back_and_is_never_cheap() {
        let ada = ada();
        assert_eq!(Person::decode(name("ada"), &ada.encode(), 7), Ok(ada.clone()));
        let cheap = ada.encode().replace("\"memory_kib\":19456", "\"memory_kib\":8");
        assert_ne!(cheap, ada.encode());
        assert_eq!(Person::decode(name("ada"), &cheap, 7), Err(PersonError::Damaged(name("ada"))));
        assert_eq!(Person::decode(name("ada"), "{}", 7), Err(PersonError::Damaged(name("ada"))));
        assert_eq!(Person::from_row(&ada.to_row()), Ok(ada.clone()));
        let other_key = PersonRow { public_key: Bytes::from_static(&[3; 32]), ..ada.to_row() };
        assert_eq!(Person::from_row(&other_key), Err(PersonError::Damaged(name("ada"))));
    }

    #[test]
    fn a_code_confirms_one_answer_once() {
        // The secret is twenty bytes of the digit 1; its codes are found by trying, as a phone would compute them.
        let (mut grace, uri) = Person::with_totp(name("grace"), &state(), &seeds(b'1'), 7).unwrap();
        assert!(uri.contains("secret=GEYTCMJRGEYTCMJRGEYTCMJRGEYTCMJR&"), "{}", *uri);
        let now_ms = 1_000_000_000;
        let mut found = None;
        for code in 0..1_000_000 {
            let code = format!("{code:06}");
            let secret = TotpSecret::new([b'1'; 20]);
            if totp::check(&secret, &code, now_ms, Attempts::default()).1.is_ok() {
                found = Some(code);
                break;
            }
        }
        let code = found.unwrap();
        let wrong = grace.confirm(&StateKey::new([8; 32]), &code, b"s", true, now_ms);
        assert_eq!(wrong, Err(PersonError::Damaged(name("grace"))), "another state key");
        let answer = grace.confirm(&state(), &code, b"s", true, now_ms).unwrap();
        assert!(verify_answer(&grace, &state(), b"s", &answer));
        assert!(!verify_answer(&grace, &state(), b"t", &answer), "another statement");
        assert!(!verify_answer(&grace, &state(), b"s", &Answered { yes: false, ..answer.clone() }));
        assert!(!verify_answer(&grace, &StateKey::new([8; 32]), b"s", &answer), "another gate");
        assert_eq!(
            grace.confirm(&state(), &code, b"t", true, now_ms),
            Err(PersonError::Code(TotpError::Replayed)),
            "the same code for another statement"
        );
        let stored = Person::decode(name("grace"), &grace.encode(), 7).unwrap();
        assert_eq!(stored, grace, "what is remembered of the codes is stored");
        assert_eq!(
            grace.sign(GOOD, b"s", true, 8).map_err(|e| e.to_string()),
            Err("person `grace` answers with a one-time code".into())
        );
    }
}
