//! Access tokens: signed JSON Web Tokens (RFC 7519, RFC 9068) of one authorization server.
//!
//! Small on purpose. Three algorithms, each bound to its kind of key; `none`, shared secrets, encrypted tokens, keys
//! named by the token itself (`jwk`, `jku`, `x5u`) and critical extensions are all refused. The cryptography is ring's.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use toolgate_core::json::{Document, Limits, Value};

use crate::config::OAuth;

/// How much the clocks may differ, in seconds.
const LEEWAY_S: f64 = 60.0;

/// How long a token may be.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// How long a key set may be, and how many keys it may have.
const MAX_KEY_SET_BYTES: usize = 256 << 10;
const MAX_KEYS: usize = 64;

/// How often keys are fetched anew because a token names one that is not known, in milliseconds.
const REFRESH_MS: u64 = 30_000;

/// Why an access token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Another algorithm than EdDSA, ES256 and RS256, or another than its key is for.
    #[error("the access token is signed in a way that is not accepted")]
    Algorithm,
    /// It is for somebody else.
    #[error("the access token is for another audience")]
    Audience,
    /// Its time is over.
    #[error("the access token has expired")]
    Expired,
    /// Somebody else issued it.
    #[error("the access token is from another issuer")]
    Issuer,
    /// It is no signed token, or has claims of the wrong kind.
    #[error("the access token is malformed")]
    Malformed,
    /// Its time has not come.
    #[error("the access token is not valid yet")]
    NotYet,
    /// The signature does not fit.
    #[error("the signature of the access token is wrong")]
    Signature,
    /// It names a key that is not in the set; worth fetching the set anew.
    #[error("the access token is signed with an unknown key")]
    UnknownKey,
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `scope`, taken apart.
    pub scopes: BTreeSet<String>,
}

/// Why a key set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Too many bytes or keys.
    #[error("the key set is too large: {MAX_KEYS} keys in 256 KiB are allowed")]
    Large,
    /// It is no JSON Web Key Set.
    #[error("it is no JSON Web Key Set: {0}")]
    Malformed(String),
    /// It has no key for EdDSA, ES256 or RS256.
    #[error("it has no key for EdDSA (Ed25519), ES256 (P-256) or RS256 (RSA from 2048 bits)")]
    NoKey,
}

/// The keys of the authorization server.
#[derive(Debug, Clone)]
pub struct KeySet(Vec<(Option<String>, Key)>);

#[derive(Debug, Clone)]
enum Key {
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys of other kinds and for other uses are passed over.
    ///
    /// # Errors
    /// It is not one, or no key can be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        if bytes.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::Large);
        }
        let document = Document::parse(bytes.to_vec(), &Limits::default())
            .map_err(|e| KeySetError::Malformed(e.to_string()))?;
        let listed = document.root().get("keys").filter(|keys| keys.is_array());
        let listed = listed.ok_or_else(|| KeySetError::Malformed("no list `keys`".into()))?;
        if listed.elements().count() > MAX_KEYS {
            return Err(KeySetError::Large);
        }
        let keys: Vec<_> = listed.elements().filter_map(key).collect();
        if keys.is_empty() { Err(KeySetError::NoKey) } else { Ok(Self(keys)) }
    }

    /// The key that a token names; a token that names none is fine if there is no choice.
    fn find(&self, kid: Option<&str>) -> Result<&Key, JwtError> {
        let found = match (kid, self.0.as_slice()) {
            (None, [(_, key)]) => Some(key),
            (None, _) => None,
            (Some(kid), keys) => {
                keys.iter().find(|(known, _)| known.as_deref() == Some(kid)).map(|(_, key)| key)
            }
        };
        found.ok_or(JwtError::UnknownKey)
    }
}

fn key(value: Value<'_>) -> Option<(Option<String>, Key)> {
    let text = |name: &str| value.get(name).and_then(|v| v.as_str());
    let bytes = |name: &str| decode(text(name)?);
    if value.get("use").is_some_and(|_| text("use") != Some("sig")) {
        return None;
    }
    let (kty, crv, alg) = (text("kty")?, text("crv"), text("alg"));
    let (key, name) = match (kty, crv) {
        ("OKP", Some("Ed25519")) => {
            (Key::Ed25519(bytes("x").filter(|x| x.len() == 32)?), ["EdDSA", "Ed25519"])
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes("x").filter(|x| x.len() == 32)?, bytes("y").filter(|y| y.len() == 32)?);
            (Key::P256([&[4][..], &x, &y].concat()), ["ES256", "ES256"])
        }
        ("RSA", _) => (Key::Rsa { n: bytes("n")?, e: bytes("e")? }, ["RS256", "RS256"]),
        _ => return None,
    };
    if alg.is_some_and(|alg| !name.contains(&alg)) {
        return None;
    }
    Some((text("kid").map(|kid| kid.to_string()), key))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Verifies access tokens of one issuer for one audience.
#[derive(Debug)]
pub struct Verifier {
    issuer: String,
    audience: String,
    keys: ArcSwap<KeySet>,
    fetched_ms: AtomicU64,
}

impl Verifier {
    /// A verifier with the keys as they are now.
    #[must_use]
    pub fn new(oauth: &OAuth, keys: KeySet, now_ms: u64) -> Self {
        Self {
            issuer: oauth.issuer.clone(),
            audience: oauth.audience.clone(),
            keys: ArcSwap::from_pointee(keys),
            fetched_ms: AtomicU64::new(now_ms),
        }
    }

    /// Puts other keys in force.
    pub fn replace_keys(&self, keys: KeySet) {
        self.keys.store(std::sync::Arc::new(keys));
    }

    /// Whether the keys may be fetched anew now, after [`JwtError::UnknownKey`]. True once in 30 seconds, for one caller.
    pub fn may_refresh(&self, now_ms: u64) -> bool {
        let last = self.fetched_ms.load(Ordering::Acquire);
        now_ms.saturating_sub(last) >= REFRESH_MS
            && self.fetched_ms.compare_exchange(last, now_ms, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Verifies a token: form, algorithm, key and signature first, then what it says.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Claims, JwtError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let (header, signature) = (json(header)?, decode(signature).ok_or(JwtError::Malformed)?);
        let keys = self.keys.load();
        check_signature(header.root(), &keys, signed.as_bytes(), &signature)?;
        self.read_claims(json(claims)?.root(), now_s)
    }

    fn read_claims(&self, claims: Value<'_>, now_s: u64) -> Result<Claims, JwtError> {
        let text = |name: &str| claims.get(name).and_then(|v| v.as_str()).ok_or(JwtError::Malformed);
        if text("iss")? != self.issuer.as_str() {
            return Err(JwtError::Issuer);
        }
        let audience = claims.get("aud").ok_or(JwtError::Malformed)?;
        let ours = |v: Value<'_>| v.as_str().is_some_and(|aud| aud == self.audience.as_str());
        if !ours(audience) && !audience.elements().any(ours) {
            return Err(JwtError::Audience);
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a float exactly")]
        let now = now_s as f64;
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().filter(|t| t.is_finite()).map(Some).ok_or(JwtError::Malformed),
        };
        if now >= time("exp")?.ok_or(JwtError::Malformed)? + LEEWAY_S {
            return Err(JwtError::Expired);
        }
        if time("nbf")?.is_some_and(|t| now + LEEWAY_S < t)
            || time("iat")?.is_some_and(|t| now + LEEWAY_S < t)
        {
            return Err(JwtError::NotYet);
        }
        let subject = text("sub")?.to_string();
        if subject.is_empty() {
            return Err(JwtError::Malformed);
        }
        let scopes = match claims.get("scope") {
            None => BTreeSet::new(),
            Some(value) => {
                let scopes = value.as_str().ok_or(JwtError::Malformed)?;
                scopes.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect()
            }
        };
        Ok(Claims { issuer: self.issuer.clone(), subject, scopes })
    }
}

fn json(part: &str) -> Result<Document, JwtError> {
    let bytes = decode(part).ok_or(JwtError::Malformed)?;
    let document = Document::parse(bytes, &Limits::default()).map_err(|_kind| JwtError::Malformed)?;
    if document.root().is_object() { Ok(document) } else { Err(JwtError::Malformed) }
}

/// The algorithm is taken from the key; the header may only agree with it.
fn check_signature(
    header: Value<'_>,
    keys: &KeySet,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), JwtError> {
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(JwtError::Malformed),
    };
    let algorithm = text("alg")?.ok_or(JwtError::Malformed)?;
    if !["EdDSA", "ES256", "RS256"].contains(&algorithm) || header.get("crit").is_some() {
        return Err(JwtError::Algorithm);
    }
    if text("typ")?
        .is_some_and(|typ| !["jwt", "at+jwt", "application/at+jwt"].contains(&&*typ.to_ascii_lowercase()))
    {
        return Err(JwtError::Malformed);
    }
    let good = match (keys.find(text("kid")?)?, algorithm) {
        (Key::Ed25519(public), "EdDSA") => {
            UnparsedPublicKey::new(&signature::ED25519, public).verify(signed, signature)
        }
        (Key::P256(public), "ES256") => {
            UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, public).verify(signed, signature)
        }
        (Key::Rsa { n, e }, "RS256") => {
            RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, signature)
        }
        (Key::Ed25519(_) | Key::P256(_) | Key::Rsa { .. }, _) => return Err(JwtError::Algorithm),
    };
    good.map_err(|_unspecified| JwtError::Signature)
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    // Keys and tokens were made with another implementation. `exp` is 2000000000, `nbf` is 1000000000.
    const KEYS: &str = r#"{
 "keys": [
  {
   "kty": "RSA",
   "kid": "rsa-1",
   "use": "sig",
   "alg": "RS256",
   "n": "3ZvoLH2beipkuLfa9Z0SvtE7vkReJJh9oak8NgcMmVAWI69H0pZIJZ78mZW0VGtaFiT2FHfMkVHsvsnvnclfIwR8zhk4gPQypY2zfbhDKn7r9hUCOG8KWvgaOb5DODsUpBia00CzOwNlItwImnWtdDX-jLl-3RrgHdfkmV5UZ9MV5RCNQh8Mi1uZuT9GSnf7rRSmCMJhba8YFtgD2ysLKvz9vKWXBOoElzhe7G5KfNXfjT2sLDtl5YzcKOkpt_O7u0Ch9DH1r-oQnbFSnTxZwXEZgzvl9FNfEJjIheDf_z0zf9kKyFo4eflwmgew6zBVmvkyOlwuSYkbzf72hk_Sqw",
   "e": "AQAB"
  },
  {
   "kty": "EC",
   "kid": "ec-1",
   "crv": "P-256",
   "x": "Em29SYXppaWy3DXAOK9bAwp86rgODJmltAopR5F58zA",
   "y": "3gvGuBPESIil0C_5SRxWJrVsh0Dm1OHAzdWRyejkFqo"
  },
  {
   "kty": "OKP",
   "kid": "ed-1",
   "crv": "Ed25519",
   "x": "Irxmeg66ePDtVrsH-aSnRFmg1Yzd32qPjvu5oEvuHzc"
  }
 ]
}"#;
    const RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6InJzYS0xIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnIiwiYXVkIjpbImh0dHBzOi8vb3RoZXIuZXhhbXBsZS5vcmciLCJodHRwczovL2dhdGUuZXhhbXBsZS5vcmcvbWNwIl0sInN1YiI6ImNsaWVudC0xIiwiZXhwIjoyMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsInNjb3BlIjoidG9vbGdhdGUgdG9vbGdhdGU6YWRtaW4ifQ.3JYbcCjSpoHR0qtWkYrOp4b5Es9RnGHWc7Dy0Z5dQIzmUuxlDfJe-vIisy0KMhRDQdg2AW1cxjwjS27ECcO3jsVwNzBDsFalaKpNacgqQ47euv8pIpFBCsCEVjSyBbCn5VA7ZQ8FwjNYWwpP48hwA99w60-IAj5YhaMGVYx1lvWDb_THQIrI0fF-NvPxe9zXDsVJm8T3KEZt3wOZzl2VFq21xWhuM_f_KkepU-uQIMZTF4x1deIZ3HyxBT2wfX1fLsOAr8nGI5xp3xy8jW2AC66kcxKBoYudgmsHR-_Gz2_so16sPDzQsXymPVQr8qv90FE8DqA0eeMzMns-73l9rg";
    const ES256: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImVjLTEifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnIiwiYXVkIjpbImh0dHBzOi8vb3RoZXIuZXhhbXBsZS5vcmciLCJodHRwczovL2dhdGUuZXhhbXBsZS5vcmcvbWNwIl0sInN1YiI6ImNsaWVudC0xIiwiZXhwIjoyMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsInNjb3BlIjoidG9vbGdhdGUgdG9vbGdhdGU6YWRtaW4ifQ.C5EyPdr5a8hmfOQWbgOw0N3AqMDj-BTrtgOGtq-QjPRpb2Lpvd9STwHH0Yfou038zMTjndGp9KjfRbUf2zo0ew";
    const EDDSA: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImVkLTEifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnIiwiYXVkIjpbImh0dHBzOi8vb3RoZXIuZXhhbXBsZS5vcmciLCJodHRwczovL2dhdGUuZXhhbXBsZS5vcmcvbWNwIl0sInN1YiI6ImNsaWVudC0xIiwiZXhwIjoyMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsInNjb3BlIjoidG9vbGdhdGUgdG9vbGdhdGU6YWRtaW4ifQ.MKF0dC5FdLuGXw8YijKiNfOyADephWZ6eOhvBzM7wHoxMr0cDlwPx6TIg0L9jm1mUhkA0zvSNdsiovzdDc1ODQ";
    const NOW: u64 = 1_500_000_000;

    fn oauth() -> OAuth {
        let text = "[oauth]\nissuer = \"https://login.example.org\"\naudience = \"https://gate.example.org/mcp\"\njwks_file = \"k\"";
        crate::config::Config::parse(std::path::Path::new("t"), text).unwrap().oauth.unwrap()
    }

    fn verifier() -> Verifier {
        Verifier::new(&oauth(), KeySet::parse(KEYS.as_bytes()).unwrap(), 0)
    }

    /// A verifier and what signs for it.
    fn own() -> (Verifier, impl Fn(&str, &str) -> String) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#);
        let verifier = Verifier::new(&oauth(), KeySet::parse(keys.as_bytes()).unwrap(), 0);
        let sign = move |header: &str, claims: &str| {
            let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()).as_ref()))
        };
        (verifier, sign)
    }

    #[test]
    fn tokens_of_another_implementation() {
        for (name, token) in [("RS256", RS256), ("ES256", ES256), ("EdDSA", EDDSA)] {
            let claims = verifier().verify(token, NOW).unwrap();
            assert_eq!(claims.subject, "client-1", "{name}");
            assert!(claims.scopes.contains("toolgate:admin"), "{name}");
            // Any change of any byte of the claims or the signature is noticed.
            for at in [token.find('.').unwrap() + 9, token.len() - 20] {
                let mut bent = token.as_bytes().to_vec();
                bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
                let got = verifier().verify(std::str::from_utf8(&bent).unwrap(), NOW);
                assert_eq!(got, Err(JwtError::Signature), "{name} at {at}");
            }
        }
    }

    #[test]
    fn times_have_a_leeway_of_a_minute() {
        for (now, want) in [
            (2_000_000_059, None),
            (2_000_000_060, Some(JwtError::Expired)),
            (999_999_940, None),
            (999_999_939, Some(JwtError::NotYet)),
        ] {
            assert_eq!(verifier().verify(EDDSA, now).err(), want, "at {now}");
        }
    }

    #[test]
    fn claims_that_are_not_accepted() {
        let (verifier, sign) = own();
        let header = r#"{"alg":"EdDSA","kid":"k"}"#;
        for (claims, want) in [
            (
                r#"{"iss":"https://login.example.org","aud":"https://gate.example.org/mcp","sub":"a","exp":1600000000}"#,
                None,
            ),
            (
                r#"{"iss":"https://login.example.org/","aud":"https://gate.example.org/mcp","sub":"a","exp":1600000000}"#,
                Some(JwtError::Issuer),
            ),
            (
                r#"{"iss":"https://login.example.org","aud":"https://gate.example.org","sub":"a","exp":1600000000}"#,
                Some(JwtError::Audience),
            ),
            (
                r#"{"iss":"https://login.example.org","aud":[],"sub":"a","exp":1600000000}"#,
                Some(JwtError::Audience),
            ),
            (r#"{"iss":"https://login.example.org","sub":"a","exp":1600000000}"#, Some(JwtError::Malformed)),
            (
                r#"{"iss":"https://login.example.org","aud":"https://gate.example.org/mcp","sub":"a"}"#,
                Some(JwtError::Malformed),
            ),
            (
                r#"{"iss":"https://login.example.org","aud":"https://gate.example.org/mcp","sub":"a","exp":"1600000000"}"#,
                Some(JwtError::Malformed),
            ),
            (
                r#"{"iss":"https://login.example.org","aud":"https://gate.example.org/mcp","sub":"","exp":1600000000}"#,
                Some(JwtError::Malformed),
            ),
            (
                r#"{"iss":"https://login.example.org","aud":"https://gate.example.org/mcp","exp":1600000000}"#,
                Some(JwtError::Malformed),
            ),
            (
                r#"{"iss":"https://login.example.org","aud":"https://gate.example.org/mcp","sub":"a","exp":1600000000,"iat":1500000061}"#,
                Some(JwtError::NotYet),
            ),
            (
                r#"{"iss":"x","iss":"https://login.example.org","aud":"https://gate.example.org/mcp","sub":"a","exp":1600000000}"#,
                Some(JwtError::Malformed),
            ),
            ("[]", Some(JwtError::Malformed)),
        ] {
            assert_eq!(verifier.verify(&sign(header, claims), NOW).err(), want, "{claims}");
        }
    }

    #[test]
    fn headers_that_are_not_accepted() {
        let (verifier, sign) = own();
        let claims = r#"{"iss":"https://login.example.org","aud":"https://gate.example.org/mcp","sub":"a","exp":1600000000}"#;
        for (header, want) in [
            (r#"{"alg":"EdDSA"}"#, None),
            (r#"{"alg":"EdDSA","typ":"JWT","kid":"k"}"#, None),
            (r#"{"alg":"none"}"#, Some(JwtError::Algorithm)),
            (r#"{"alg":"HS256","kid":"k"}"#, Some(JwtError::Algorithm)),
            (r#"{"alg":"eddsa","kid":"k"}"#, Some(JwtError::Algorithm)),
            (r#"{"alg":"ES256","kid":"k"}"#, Some(JwtError::Algorithm)),
            (r#"{"alg":"RS256","kid":"k"}"#, Some(JwtError::Algorithm)),
            (r#"{"alg":"EdDSA","kid":"k","crit":["exp"]}"#, Some(JwtError::Algorithm)),
            (r#"{"alg":"EdDSA","kid":"other"}"#, Some(JwtError::UnknownKey)),
            (r#"{"alg":"EdDSA","kid":7}"#, Some(JwtError::Malformed)),
            (r#"{"alg":"EdDSA","typ":"dpop+jwt"}"#, Some(JwtError::Malformed)),
            (r#"{"kid":"k"}"#, Some(JwtError::Malformed)),
            (r#"{"alg":"none","alg":"EdDSA"}"#, Some(JwtError::Malformed)),
        ] {
            assert_eq!(verifier.verify(&sign(header, claims), NOW).err(), want, "{header}");
        }
        let good = sign(r#"{"alg":"EdDSA"}"#, claims);
        let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
        for (token, want) in [
            (unsigned.as_str(), JwtError::Signature),
            ("", JwtError::Malformed),
            ("a.b", JwtError::Malformed),
            ("..", JwtError::Malformed),
            (&format!("{good}="), JwtError::Malformed),
            (&format!("{good}.e30"), JwtError::Signature),
            (&"a".repeat(MAX_TOKEN_BYTES + 1), JwtError::Malformed),
        ] {
            assert_eq!(verifier.verify(token, NOW).err(), Some(want), "{token}");
        }
    }

    #[test]
    fn key_sets_that_are_not_accepted() {
        for (text, want) in [
            ("", "it is no JSON Web Key Set"),
            ("{}", "it is no JSON Web Key Set: no list `keys`"),
            (r#"{"keys":[]}"#, "it has no key"),
            (r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#, "it has no key"),
            (r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}"#, "it has no key"),
            (
                &KEYS.replace("\"use\": \"sig\"", "\"use\": \"enc\"").replace("EC", "E").replace("OKP", "O"),
                "it has no key",
            ),
            (&format!("{{\"keys\":[{}]}}", vec!["1"; 65].join(",")), "the key set is too large"),
        ] {
            let error = KeySet::parse(text.as_bytes()).expect_err(text).to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_worth_one_look_in_thirty_seconds() {
        let verifier = verifier();
        assert!(!verifier.may_refresh(29_999));
        assert!(verifier.may_refresh(30_000));
        assert!(!verifier.may_refresh(30_001));
        assert!(verifier.may_refresh(60_000));
    }
}
