//! Taking values out of what servers say.

use std::collections::BTreeSet;
use std::sync::Arc;

use toolgate_broker::totp::base32;
use toolgate_broker::vault::keys::derive;
use toolgate_broker::vault::process::{Value, Values};
use toolgate_core::call::Carries;
use toolgate_core::json::{Document, Limits};
use toolgate_core::scrub::known::{Known, KnownValue};
use toolgate_core::scrub::{Kind, Scrubber, Withheld};
use zeroize::Zeroizing;

use crate::rpc;

/// The last byte of what was cleaned to the end.
pub(super) const WHOLE: u8 = b'\n';

/// What the proxy holds at the moment.
pub(super) struct Holding {
    /// What servers get.
    pub(super) values: Vec<Arc<Value>>,
    /// What is taken out of what they say: that, and what they got before, which some of them may still have.
    all: Vec<Arc<Value>>,
    known: Arc<Known>,
    key: Zeroizing<[u8; 32]>,
}

/// How short a word of a value with several lines may be to be looked for by itself.
const WORD: usize = 8;

impl Default for Holding {
    fn default() -> Self {
        let (known, _none) = Known::new(&[]);
        Self { values: Vec::new(), all: Vec::new(), known: Arc::new(known), key: Zeroizing::default() }
    }
}

impl Holding {
    /// What there is now, after what there was `before`.
    pub(super) fn new(values: Values, before: &Self) -> Self {
        let Values { all: values, tokens: key } = values;
        let values: Vec<Arc<Value>> = values.into_iter().map(Arc::new).collect();
        let mut all = values.clone();
        for old in &before.all {
            if !all.iter().any(|value| value.name == old.name && value.value == old.value) {
                all.push(Arc::clone(old));
            }
        }
        let names: Vec<Vec<&str>> = all
            .iter()
            .map(|value| {
                let hosts = value.uses.hosts.iter().map(toolgate_broker::vault::HostPort::host);
                std::iter::once(value.name.as_str()).chain(hosts).collect()
            })
            .collect();
        let known: Vec<KnownValue<'_>> = (0_u32..)
            .zip(all.iter().zip(&names))
            .flat_map(|(id, (value, names))| {
                let whole = std::iter::once(value.value.as_slice());
                whole.chain(words(&value.value)).map(move |value| KnownValue { id, value, names })
            })
            .collect();
        // What its owner should know about a value was said when it was given.
        let (known, _concerns) = Known::new(&known);
        Self { values, all, known: Arc::new(known), key }
    }

    /// The secret of this name.
    pub(super) fn value(&self, name: &str) -> Option<&Arc<Value>> {
        self.values.iter().find(|value| value.name.as_str() == name)
    }

    /// The key for what stands for values.
    pub(super) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// What takes out the values, for one run of an agent: the same value has the same token there, and another one elsewhere.
    pub(super) fn scrubber(self: &Arc<Self>, session: &str) -> Scrubber {
        let (this, session) = (Arc::clone(self), session.to_owned());
        let token = move |kind: Kind, _: &[u8]| match kind {
            Kind::Known(id) => {
                let value = usize::try_from(id).ok().and_then(|id| this.all.get(id));
                value.map_or_else(|| "⟦secret⟧".to_owned(), |value| this.token(value, &session))
            }
            Kind::Opaque(why) => format!("⟦withheld:{why}⟧"),
            Kind::Custom(_) | Kind::Detected(_) => "⟦withheld⟧".to_owned(),
        };
        Scrubber::new(vec![Arc::clone(&self.known) as _], Arc::new(token))
    }

    /// Which values are in a JSON document, by name. A secret that goes nowhere is a honeytoken: it is there to be recognized. `None` if
    /// that cannot be said.
    pub(super) fn carried(&self, document: &[u8]) -> Option<BTreeSet<String>> {
        let document = Document::parse(document.to_vec(), &limits(document.len())).ok()?;
        let scrubber =
            Scrubber::new(vec![Arc::clone(&self.known) as _], Arc::new(|_, _: &[u8]| String::new()));
        let mut names = BTreeSet::new();
        for kind in scrubber.scrub_json(&document).ok()?.removed.into_keys() {
            let Kind::Known(id) = kind else { continue };
            let value = self.all.get(usize::try_from(id).ok()?)?;
            names.insert(format!("vault:{}", value.name));
            if value.uses.slots.is_empty() {
                names.insert(Carries::HONEYTOKEN.to_owned());
            }
        }
        Some(names)
    }

    /// The name, and 40 bits of an HMAC over the run and the value: nobody without the key can try values.
    fn token(&self, value: &Value, session: &str) -> String {
        let mac = derive(&*self.key, &[session.as_bytes(), &value.value]);
        let tag = base32(mac.first_chunk::<5>().map_or(&[], <[u8; 5]>::as_slice)).to_ascii_lowercase();
        format!("⟦secret:{}#{tag}⟧", value.name)
    }
}

/// The words of a value with several lines, such as a file with a password among other things: each may be said alone.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let several = value.contains(&b'\n');
    let words = value.split(|b| b.is_ascii_whitespace() || matches!(b, b'=' | b':' | b'"' | b'\'' | b','));
    let secret = |word: &&[u8]| word.len() >= WORD && word.iter().any(u8::is_ascii_digit);
    words.filter(move |word| several && secret(word))
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
    // A number: an id that is a text could be what is withheld.
    let id = rpc::Id::from(document.root().get("id")?.as_i64().and_then(|id| u64::try_from(id).ok())?);
    Some(rpc::error(Some(&id), rpc::INTERNAL_ERROR, &format!("withheld: {why}"), None))
}

/// Any JSON that the gate itself could read, and more.
fn limits(length: usize) -> Limits {
    Limits { max_bytes: length, max_depth: Limits::DEEPEST, max_nodes: usize::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(all: &[(&str, &[u8])]) -> Values {
        let value = |(name, value): &(&str, &[u8])| Value {
            name: name.parse().unwrap(),
            version: 1,
            uses: toolgate_broker::vault::Uses::default(),
            value: Zeroizing::new(value.to_vec()),
        };
        Values { all: all.iter().map(value).collect(), tokens: Zeroizing::new([7; 32]) }
    }

    fn cleaned(holding: &Arc<Holding>, text: &str) -> String {
        String::from_utf8(message(&holding.scrubber("s"), text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn what_was_a_value_once_is_taken_out_until_the_end() {
        let old = Holding::new(
            values(&[("api", b"Xq7vN2-0e5bW9aK"), ("gone", b"Lr31-Mm80tT4q")]),
            &Holding::default(),
        );
        let new = Arc::new(Holding::new(values(&[("api", b"9aKW5b-Nv2q7X1")]), &old));
        let told = cleaned(&new, "Xq7vN2-0e5bW9aK and Lr31-Mm80tT4q and 9aKW5b-Nv2q7X1");
        assert_eq!(told.matches("⟦secret:api#").count(), 2, "{told}");
        assert_eq!(told.matches("⟦secret:gone#").count(), 1, "{told}");
        assert_eq!(new.values.len(), 1, "and is given to nobody");
    }

    #[test]
    fn a_word_of_a_value_with_several_lines_is_taken_out_alone() {
        let netrc = b"machine api.example\nlogin bob\npassword Xq7vN20e5bW9aKLr31\n";
        let holding = Arc::new(Holding::new(values(&[("netrc", netrc)]), &Holding::default()));
        let told = cleaned(&holding, "it is Xq7vN20e5bW9aKLr31, bob's password");
        assert!(told.starts_with("it is ⟦secret:netrc#") && told.ends_with("bob's password"), "{told}");
    }

    #[test]
    fn an_answer_that_is_withheld_says_nothing_of_it() {
        let answer = |id: &str| withheld(format!(r#"{{"id":{id},"result":{{}}}}"#).as_bytes(), "why");
        let told = String::from_utf8(answer("7").unwrap()).unwrap();
        assert!(told.contains("\"id\":7") && told.contains("withheld: why"), "{told}");
        assert_eq!(answer("\"Xq7vN20e5bW9aKLr31\""), None);
        assert_eq!(withheld(b"no message", "why"), None);
    }
}
