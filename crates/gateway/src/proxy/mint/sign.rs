//! Signing JSON Web Tokens (RFC 7515, RFC 7519).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, signature};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::time::now_s;
use super::{Asked, Handle, Minted, part};

/// The shortest key that is shared: as long as the hash (RFC 7518, section 3.2).
const MIN_SHARED: usize = 32;

/// A token that this process signs itself.
pub(super) fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let now = now_s();
    let mut claims = match asked.get("claims") {
        Some(text) => serde_json::from_str::<Map<String, Value>>(text)
            .map_err(|_json| "`claims` is no object of JSON")?,
        None => Map::new(),
    };
    let expires = now + asked.ttl;
    for (name, value) in [
        ("iss", json!(asked.need("issuer")?)),
        ("aud", json!(asked.need("audience")?)),
        ("iat", json!(now)),
        ("exp", json!(expires)),
        ("jti", json!(toolgate_core::hex::encode(asked.id))),
    ] {
        claims.insert(name.to_owned(), value);
    }
    if let Some(subject) = asked.get("subject") {
        claims.insert("sub".to_owned(), json!(subject));
    }
    let token = token(asked.need("algorithm")?, asked.get("key_id"), asked.root, &Value::Object(claims))?;
    Ok(Minted {
        parts: vec![part("token", token.as_bytes())],
        until_ms: expires * 1_000,
        granted: format!("aud={}", asked.need("audience")?),
        handle: Handle::None,
        unfit: None,
        renewed: None,
    })
}

/// A signed token.
pub(super) fn token(
    algorithm: &str,
    key_id: Option<&str>,
    key: &[u8],
    claims: &Value,
) -> Result<Zeroizing<String>, String> {
    let mut header = json!({ "alg": algorithm, "typ": "JWT" });
    if let (Some(header), Some(key_id)) = (header.as_object_mut(), key_id) {
        header.insert("kid".to_owned(), json!(key_id));
    }
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = sign(algorithm, key, signed.as_bytes())?;
    Ok(Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

fn sign(algorithm: &str, key: &[u8], message: &[u8]) -> Result<Vec<u8>, String> {
    let unfit = |what: &str| format!("the secret is no {what}");
    let random = SystemRandom::new();
    match algorithm {
        "HS256" => {
            if key.len() < MIN_SHARED {
                return Err(format!("the secret has to have {MIN_SHARED} bytes at least for HS256"));
            }
            Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec())
        }
        "RS256" => {
            let (kind, der) = private_key(key)?;
            let pair = if kind == SectionKind::RsaPrivateKey {
                RsaKeyPair::from_der(&der)
            } else {
                RsaKeyPair::from_pkcs8(&der)
            };
            let pair = pair.map_err(|_key| unfit("RSA key that can be used"))?;
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                .map_err(|_unspecified| unfit("RSA key that signs"))?;
            Ok(signature)
        }
        "ES256" => {
            let (_, der) = private_key(key)?;
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random);
            let pair = pair.map_err(|_key| unfit("P-256 key in PKCS #8"))?;
            let signature =
                pair.sign(&random, message).map_err(|_unspecified| unfit("P-256 key that signs"))?;
            Ok(signature.as_ref().to_vec())
        }
        "EdDSA" => {
            let (_, der) = private_key(key)?;
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
            let pair = pair.map_err(|_key| unfit("Ed25519 key in PKCS #8"))?;
            let signature: signature::Signature = pair.sign(message);
            Ok(signature.as_ref().to_vec())
        }
        other => Err(format!("nothing is signed by `{other}`; there are RS256, ES256, EdDSA and HS256")),
    }
}

/// The first private key in a PEM file.
fn private_key(pem: &[u8]) -> Result<(SectionKind, Zeroizing<Vec<u8>>), String> {
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|_pem| "the secret is no PEM file".to_owned())?;
        if matches!(kind, SectionKind::RsaPrivateKey | SectionKind::PrivateKey) {
            return Ok((kind, Zeroizing::new(der)));
        }
    }
    Err("the secret has no private key in PEM".to_owned())
}
