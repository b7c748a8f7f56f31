//! Taking values out of what servers say.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use toolgate_broker::vault::Mint;
use toolgate_broker::vault::keys::{derive, tag};
use toolgate_broker::vault::process::{Value, Values};
use toolgate_core::call::Carries;
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::SecretName;
use toolgate_core::scrub::known::{Known, KnownValue};
use toolgate_core::scrub::{Detect, Kind, Scrubber, Withheld};
use zeroize::Zeroizing;

use crate::rpc;

/// The last byte of what was cleaned to the end.
pub(super) const WHOLE: u8 = b'\n';

/// What the proxy holds, replaced when the vault was written again and when something was minted.
#[derive(Default)]
pub(super) struct Held {
    now: ArcSwap<Holding>,
    /// One at a time replaces it.
    change: Mutex<()>,
}

impl Held {
    /// What it is now.
    pub(super) fn now(&self) -> Arc<Holding> {
        self.now.load_full()
    }

    /// Puts what is made of it in its place.
    pub(super) fn change(&self, to: impl FnOnce(&Holding) -> Holding) {
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.now.store(Arc::new(to(&self.now.load())));
    }
}

/// What the proxy holds at the moment.
pub(super) struct Holding {
    /// What servers get.
    pub(super) values: Vec<Arc<Value>>,
    /// What is taken out of what they say: that, and what they got before, which some of them may still have.
    all: Vec<Arc<Value>>,
    known: Arc<Known>,
    /// What was minted, and is taken out as well.
    minted: Vec<Arc<MintedValue>>,
    known_minted: Arc<Known>,
    key: Zeroizing<[u8; 32]>,
}

/// Something that was minted, to be taken out of what servers say.
pub(super) struct MintedValue {
    /// The secret that it was minted from.
    pub(super) name: SecretName,
    /// The hosts that it is for.
    pub(super) hosts: Vec<String>,
    /// The value.
    pub(super) value: Zeroizing<Vec<u8>>,
    /// When it is good for nothing any more, in milliseconds since 1970.
    pub(super) until_ms: u64,
}

impl Default for Holding {
    fn default() -> Self {
        let none = || Arc::new(Known::new(&[]).0);
        Self {
            values: Vec::new(),
            all: Vec::new(),
            known: none(),
            minted: Vec::new(),
            known_minted: none(),
            key: Zeroizing::default(),
        }
    }
}

/// How many values of before are looked for where a secret renews itself: nobody takes those any more.
const KEPT_OF_LOGINS: usize = 8;

/// How short a word of a value with several lines may be to be looked for by itself.
const WORD: usize = 8;

/// What is minted has numbers from here on.
const MINTED: u32 = 1 << 31;

impl Holding {
    /// What there is now, after what there was `before`.
    pub(super) fn new(values: Values, before: &Self) -> Self {
        let Values { all: values, tokens: key } = values;
        let values: Vec<Arc<Value>> = values.into_iter().map(Arc::new).collect();
        let mut all = values.clone();
        for old in &before.all {
            let mut of_name = all.iter().filter(|value| value.name == old.name);
            let renews = old.uses.mint.as_ref().is_some_and(Mint::renews_itself);
            let many = renews && of_name.clone().count() > KEPT_OF_LOGINS;
            if !many && !of_name.any(|value| value.value == old.value) {
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
        let (minted, known_minted) = (before.minted.clone(), Arc::clone(&before.known_minted));
        Self { values, all, known: Arc::new(known), minted, known_minted, key }
    }

    /// The same, and what was minted just now. What is good for nothing any more is let go of.
    pub(super) fn with_minted(&self, new: Vec<MintedValue>, now_ms: u64) -> Self {
        let still = self.minted.iter().filter(|minted| minted.until_ms > now_ms).cloned();
        let mut minted: Vec<_> = still.collect();
        for new in new {
            // What another vault keeps is read again and again.
            minted.retain(|old: &Arc<MintedValue>| old.name != new.name || old.value != new.value);
            minted.push(Arc::new(new));
        }
        let names: Vec<Vec<&str>> = minted
            .iter()
            .map(|minted| {
                std::iter::once(minted.name.as_str()).chain(minted.hosts.iter().map(String::as_str)).collect()
            })
            .collect();
        let known: Vec<KnownValue<'_>> = (MINTED..)
            .zip(minted.iter().zip(&names))
            .flat_map(|(id, (minted, names))| {
                let whole = std::iter::once(minted.value.as_slice());
                whole.chain(words(&minted.value)).map(move |value| KnownValue { id, value, names })
            })
            .collect();
        let known_minted = Arc::new(Known::new(&known).0);
        let (values, all, known) = (self.values.clone(), self.all.clone(), Arc::clone(&self.known));
        Self { values, all, known, minted, known_minted, key: self.key.clone() }
    }

    /// The secret of this name.
    pub(super) fn value(&self, name: &str) -> Option<&Arc<Value>> {
        self.values.iter().find(|value| value.name.as_str() == name)
    }

    /// A key for one purpose, which hangs on the vault's root key.
    pub(super) fn key_for(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        derive(&*self.key, &[purpose.as_bytes()])
    }

    /// The key for what stands for values.
    pub(super) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// What takes out the values, for one run of an agent: the same value has the same token there, and another one elsewhere.
    pub(super) fn scrubber(self: &Arc<Self>, session: &str) -> Scrubber {
        let (this, session) = (Arc::clone(self), session.to_owned());
        let token = move |kind: Kind, _: &[u8]| match kind {
            Kind::Known(id) => this.token(id, &session).unwrap_or_else(|| "⟦secret⟧".to_owned()),
            Kind::Opaque(why) => format!("⟦withheld:{why}⟧"),
            Kind::Custom(_) | Kind::Detected(_) => "⟦withheld⟧".to_owned(),
        };
        Scrubber::new(self.detectors(), Arc::new(token))
    }

    /// What finds the values, and what was minted.
    fn detectors(&self) -> Vec<Arc<dyn Detect>> {
        let mut known: Vec<Arc<dyn Detect>> = vec![Arc::clone(&self.known) as _];
        if !self.minted.is_empty() {
            known.push(Arc::clone(&self.known_minted) as _);
        }
        known
    }

    /// The secret that a value belongs to, and the value; and whether it is a honeytoken.
    fn numbered(&self, id: u32) -> Option<(&SecretName, &[u8], bool)> {
        let at = |id| usize::try_from(id).ok();
        match id.checked_sub(MINTED) {
            Some(id) => self.minted.get(at(id)?).map(|minted| (&minted.name, minted.value.as_slice(), false)),
            None => {
                let value = self.all.get(at(id)?)?;
                Some((&value.name, value.value.as_slice(), value.uses.slots.is_empty()))
            }
        }
    }

    /// Which values are in a JSON document, by name. A secret that goes nowhere is a honeytoken: it is there to be recognized. `None` if
    /// that cannot be said.
    pub(super) fn carried(&self, document: &[u8]) -> Option<BTreeSet<String>> {
        let document = Document::parse(document.to_vec(), &limits(document.len())).ok()?;
        let scrubber = Scrubber::new(self.detectors(), Arc::new(|_, _: &[u8]| String::new()));
        let mut names = BTreeSet::new();
        for kind in scrubber.scrub_json(&document).ok()?.removed.into_keys() {
            let Kind::Known(id) = kind else { continue };
            let (name, _, is_honeytoken) = self.numbered(id)?;
            names.insert(format!("vault:{name}"));
            if is_honeytoken {
                names.insert(Carries::HONEYTOKEN.to_owned());
            }
        }
        Some(names)
    }

    /// The name, and a tag of the run and the value.
    fn token(&self, id: u32, session: &str) -> Option<String> {
        let (name, value, _) = self.numbered(id)?;
        let tag = tag(&*self.key, &[session.as_bytes(), value]);
        Some(format!("⟦secret:{name}#{tag}⟧"))
    }
}

/// The words of a value with several lines, such as a file with a password among other things: each may be said alone.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let several = value.contains(&b'\n');
    // Two or three lines are as many values.
    let few = value.iter().filter(|b| **b == b'\n').count() <= 2;
    let lines = value.split(|b| *b == b'\n').filter(move |line| several && few && line.len() >= WORD);
    let words = value.split(|b| b.is_ascii_whitespace() || matches!(b, b'=' | b':' | b'"' | b'\'' | b','));
    let secret = |word: &&[u8]| word.len() >= WORD && word.iter().any(u8::is_ascii_digit);
    lines.chain(words.filter(move |word| several && secret(word)))
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
pub(super) fn limits(length: usize) -> Limits {
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
    fn what_was_minted_is_taken_out_until_it_is_good_for_nothing() {
        let minted = |value: &[u8], until_ms| MintedValue {
            name: "app".parse().unwrap(),
            hosts: Vec::new(),
            value: Zeroizing::new(value.to_vec()),
            until_ms,
        };
        let base = Holding::new(values(&[("api", b"Xq7vN2-0e5bW9aK")]), &Holding::default());
        let first = base.with_minted(vec![minted(b"Lr31-Mm80tT4q-1", 10)], 0);
        let both = Arc::new(first.with_minted(vec![minted(b"Pp93-Kk27vV5w-2", 20)], 5));
        let text = "Xq7vN2-0e5bW9aK Lr31-Mm80tT4q-1 Pp93-Kk27vV5w-2";
        let told = cleaned(&both, text);
        assert_eq!(told.matches("⟦secret:app#").count(), 2, "{told}");
        assert_eq!(told.matches("⟦secret:api#").count(), 1, "{told}");
        // The vault was written again: it is still taken out.
        let again = Arc::new(Holding::new(values(&[]), &both));
        assert!(!cleaned(&again, text).contains("Mm80"));
        let later = Arc::new(both.with_minted(vec![], 15));
        let told = cleaned(&later, text);
        assert!(told.contains("Lr31-Mm80tT4q-1") && !told.contains("Pp93"), "{told}");
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
