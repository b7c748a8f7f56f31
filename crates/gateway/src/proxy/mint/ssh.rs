//! SSH certificates (OpenSSH's `PROTOCOL.certkeys`), for a key that is made for each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use toolgate_core::hex;
use zeroize::Zeroizing;

use super::time::now_s;
use super::{Asked, Handle, Minted, part};

const KEY: &[u8] = b"ssh-ed25519";
const CERTIFICATE: &[u8] = b"ssh-ed25519-cert-v01@openssh.com";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";

/// A certificate for a user, as opposed to one for a host.
const USER: u32 = 1;

/// How much earlier than now it begins to hold: clocks differ.
const EARLIER: u64 = 60;

/// What one may be permitted besides to log in.
const PERMITS: [&str; 5] = ["X11-forwarding", "agent-forwarding", "port-forwarding", "pty", "user-rc"];

pub(super) fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let authority = authority(asked.root_text()?)
        .ok_or("the secret is no Ed25519 key in OpenSSH's format without a passphrase")?;
    let mut random = Zeroizing::new([0; 32 + 32 + 4]);
    getrandom::fill(&mut *random).map_err(|error| error.to_string())?;
    let (seed, rest) = random.split_at(32);
    let (nonce, check) = rest.split_at(32);
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_key| "no key could be made".to_owned())?;
    let public = pair.public_key().as_ref();
    let (after, before) = (now_s() - EARLIER, now_s() + asked.ttl);
    let principals: Vec<&str> = asked.need("principals")?.split(',').map(str::trim).collect();
    if principals.iter().any(|principal| principal.is_empty()) {
        // Without one it would be for all of them.
        return Err("`principals` has an empty name".to_owned());
    }
    let name = format!("toolgate-{}", hex::encode(asked.id));
    let mut certificate = Vec::new();
    put(&mut certificate, CERTIFICATE);
    put(&mut certificate, nonce);
    put(&mut certificate, public);
    let (serial, _) = asked.id.split_at(8);
    certificate.extend_from_slice(serial);
    certificate.extend_from_slice(&USER.to_be_bytes());
    put(&mut certificate, name.as_bytes());
    put(&mut certificate, &strings(principals.iter().map(|principal| principal.as_bytes())));
    certificate.extend_from_slice(&after.to_be_bytes());
    certificate.extend_from_slice(&before.to_be_bytes());
    put(&mut certificate, &options(asked));
    put(&mut certificate, &extensions(asked.get("permit"))?);
    put(&mut certificate, b"");
    put(&mut certificate, &strings([KEY, authority.public_key().as_ref()]));
    let signature = authority.sign(&certificate);
    put(&mut certificate, &strings([KEY, signature.as_ref()]));
    let certificate = format!("ssh-ed25519-cert-v01@openssh.com {} {name}\n", STANDARD.encode(certificate));
    Ok(Minted {
        parts: vec![
            part("key", &file(seed, public, check, &name)),
            part("certificate", certificate.as_bytes()),
        ],
        until_ms: before * 1_000,
        granted: format!("principals={}", principals.join(",")),
        handle: Handle::None,
        unfit: None,
        renewed: None,
    })
}

/// What it is bound to, by name.
fn options(asked: &Asked<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, key) in [("force-command", "force_command"), ("source-address", "source_address")] {
        if let Some(text) = asked.get(key) {
            put(&mut out, name.as_bytes());
            put(&mut out, &strings([text.as_bytes()]));
        }
    }
    out
}

/// What it permits, by name.
fn extensions(permit: Option<&str>) -> Result<Vec<u8>, String> {
    let mut names: Vec<&str> = permit.into_iter().flat_map(|text| text.split(',')).map(str::trim).collect();
    names.sort_unstable();
    let mut out = Vec::new();
    for name in names {
        if !PERMITS.contains(&name) {
            return Err(format!("`permit` knows {} and no other", PERMITS.join(", ")));
        }
        put(&mut out, format!("permit-{name}").as_bytes());
        put(&mut out, b"");
    }
    Ok(out)
}

/// A string of the SSH protocol: its length, and its bytes (RFC 4251, section 5).
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn strings<'a>(all: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    all.into_iter().for_each(|bytes| put(&mut out, bytes));
    out
}

/// A private key as a file of OpenSSH.
fn file(seed: &[u8], public: &[u8], check: &[u8], name: &str) -> Zeroizing<Vec<u8>> {
    // Room for all of it: it is not copied while it grows.
    let mut private = Zeroizing::new(Vec::with_capacity(512));
    private.extend_from_slice(check);
    private.extend_from_slice(check);
    put(&mut private, KEY);
    put(&mut private, public);
    put(&mut private, &Zeroizing::new([seed, public].concat()));
    put(&mut private, name.as_bytes());
    for pad in 1.. {
        if private.len() % 8 == 0 {
            break;
        }
        private.push(pad);
    }
    let mut whole = Zeroizing::new(Vec::with_capacity(1_024));
    whole.extend_from_slice(MAGIC);
    for text in [b"none".as_slice(), b"none", b""] {
        put(&mut whole, text);
    }
    whole.extend_from_slice(&1_u32.to_be_bytes());
    put(&mut whole, &strings([KEY, public]));
    put(&mut whole, &private);
    let text = Zeroizing::new(STANDARD.encode(&*whole));
    let mut out = Zeroizing::new(Vec::with_capacity(2_048));
    out.extend_from_slice(BEGIN.as_bytes());
    for line in text.as_bytes().chunks(70) {
        out.push(b'\n');
        out.extend_from_slice(line);
    }
    out.extend_from_slice(format!("\n{END}\n").as_bytes());
    out
}

/// Reads a private key that is a file of OpenSSH, without a passphrase.
fn authority(text: &str) -> Option<Ed25519KeyPair> {
    let inner = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let inner: Zeroizing<String> = Zeroizing::new(inner.split_whitespace().collect());
    let whole = Zeroizing::new(STANDARD.decode(inner.as_bytes()).ok()?);
    let mut rest = whole.strip_prefix(MAGIC)?;
    for want in [b"none".as_slice(), b"none", b""] {
        (take(&mut rest)? == want).then_some(())?;
    }
    (number(&mut rest)? == 1).then_some(())?;
    let _public = take(&mut rest)?;
    let mut private = take(&mut rest)?;
    (number(&mut private)? == number(&mut private)?).then_some(())?;
    (take(&mut private)? == KEY).then_some(())?;
    let public = take(&mut private)?;
    let seed = take(&mut private)?.get(..32)?;
    Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*bytes))
}

fn take<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = pair.public_key().as_ref();
        let text = file(&[7; 32], public, &[1; 4], "name");
        let text = std::str::from_utf8(&text).unwrap();
        assert_eq!(authority(text).unwrap().public_key().as_ref(), public);
        for at in (BEGIN.len()..text.len() - END.len() - 1).step_by(31) {
            assert!(authority(text.get(..at).unwrap()).is_none(), "cut at {at}");
        }
        assert!(authority("").is_none());
        assert!(authority(&text.replace('A', "B")).is_none());
    }

    #[test]
    fn nothing_is_permitted_but_what_is_named() {
        assert_eq!(extensions(None).unwrap(), b"");
        assert!(
            extensions(Some("pty,port-forwarding")).unwrap().starts_with(b"\0\0\0\x16permit-port-forwarding")
        );
        assert!(extensions(Some("everything")).is_err());
    }
}
