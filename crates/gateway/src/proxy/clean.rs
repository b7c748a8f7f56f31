//! Taking values out of what servers say.

use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use toolgate_broker::vault::process::{Value, Values};
use toolgate_core::json::{Document, Limits};
use toolgate_core::scrub::known::{Known, KnownValue};
use toolgate_core::scrub::{Kind, Scrubber, Withheld};
use zeroize::Zeroizing;

use crate::rpc;

/// The last byte of what was cleaned to the end.
pub(super) const WHOLE: u8 = b'\n';

/// What the proxy holds at the moment.
pub(super) struct Holding {
    pub(super) values: Vec<Value>,
    known: Arc<Known>,
    key: Zeroizing<[u8; 32]>,
}

impl Holding {
    pub(super) fn new(values: Values) -> Self {
        let Values { all, tokens } = values;
        let names: Vec<Vec<&str>> = all
            .iter()
            .map(|value| {
                let hosts = value.uses.hosts.iter().map(toolgate_broker::vault::HostPort::host);
                std::iter::once(value.name.as_str()).chain(hosts).collect()
            })
            .collect();
        let known: Vec<KnownValue<'_>> = (0_u32..)
            .zip(all.iter().zip(&names))
            .map(|(id, (value, names))| KnownValue { id, value: &value.value, names })
            .collect();
        // What its owner should know about a value was said when it was given.
        let (known, _concerns) = Known::new(&known);
        Self { values: all, known: Arc::new(known), key: tokens }
    }

    /// What takes out the values, for one run of an agent: the same value has the same token there, and another one elsewhere.
    pub(super) fn scrubber(self: &Arc<Self>, session: &str) -> Scrubber {
        let (this, session) = (Arc::clone(self), session.to_owned());
        let token = move |kind: Kind, _: &[u8]| match kind {
            Kind::Known(id) => {
                let value = usize::try_from(id).ok().and_then(|id| this.values.get(id));
                value.map_or_else(|| "⟦secret⟧".to_owned(), |value| this.token(value, &session))
            }
            Kind::Opaque(why) => format!("⟦withheld:{why}⟧"),
            Kind::Custom(_) | Kind::Detected(_) => "⟦withheld⟧".to_owned(),
        };
        Scrubber::new(vec![Arc::clone(&self.known) as _], Arc::new(token))
    }

    /// The name, and 40 bits of an HMAC over the run and the value: nobody without the key can try values.
    fn token(&self, value: &Value, session: &str) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.key).expect("any length");
        for part in [session.as_bytes(), &value.value] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let bits =
            mac.finalize().into_bytes().iter().take(5).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let letter =
            |at: u32| LETTERS.get((bits >> (5 * at) & 31) as usize).map_or('a', |letter| char::from(*letter));
        let tag: String = (0..8).map(letter).collect();
        format!("⟦secret:{}#{tag}⟧", value.name)
    }
}

/// A whole message, cleaned: JSON stays JSON.
pub(super) fn message(scrubber: &Scrubber, bytes: &[u8]) -> Result<Vec<u8>, Withheld> {
    let cleaned = match Document::parse(bytes.to_vec(), &limits(bytes.len())) {
        Ok(document) => scrubber.scrub_json(&document)?,
        Err(_other_text) => scrubber.scrub_text(bytes)?,
    };
    Ok(cleaned.bytes)
}

/// What is passed on in place of an answer that could not be looked through: that it was not. There is nothing in place of what
/// answers nobody.
pub(super) fn withheld(bytes: &[u8], why: &str) -> Option<Vec<u8>> {
    let document = Document::parse(bytes.to_vec(), &limits(bytes.len())).ok()?;
    let id = rpc::Id::read(document.root().get("id")?)?;
    Some(rpc::error(Some(&id), rpc::INTERNAL_ERROR, &format!("withheld: {why}"), None))
}

/// Any JSON that the gate itself could read, and more.
fn limits(length: usize) -> Limits {
    Limits { max_bytes: length, max_depth: Limits::DEEPEST, max_nodes: usize::MAX }
}
