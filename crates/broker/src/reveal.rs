//! Tokens that are turned back into what they stand for: in the arguments that the configuration names, and nowhere else.
//!
//! So an agent can send an address that it has never seen. The values are remembered for as long as the session lasts, in memory
//! only. Once one was sent somewhere, it is looked for in everything that servers say in that session, in every spelling.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toolgate_core::call::Revealed;
use toolgate_core::json::{Canonical, Document, FieldPath, Limits};
use toolgate_core::scrub::detect::{Class, Classes};
use toolgate_core::scrub::known::{Concern, Known, KnownValue};
use toolgate_core::scrub::{Detect, Found, Place, Withheld};
use zeroize::Zeroizing;

/// The arguments of a tool in which tokens are turned back, and the classes of what may stand there.
pub type Sinks = BTreeMap<FieldPath, Classes>;

/// How many values of a session are remembered. The token of a further one stands for nothing.
const MAX_VALUES: usize = 1_000;
/// The longest that is: what was sent is looked for in all spellings, which takes time and memory by its length.
const MAX_VALUE: usize = 1 << 10;
/// Of how many sessions. Then the one is forgotten that began first and has sent nothing.
const MAX_SESSIONS: usize = 4_096;
/// How many different ones can be sent in a session, and how many bytes, since what servers say is searched for all of them.
const MAX_SENT: usize = 64;
const MAX_SENT_BYTES: usize = 16 << 10;
/// How much longer a call may become.
const MAX_ADDED: usize = 256 << 10;

/// What tokens begin and end with.
pub(crate) const OPENING: char = '⟦';
pub(crate) const CLOSING: char = '⟧';
/// What the tokens of all but personal data begin with, after the opening sign.
pub(crate) const SECRET: &str = "secret:";
/// The longest name of a kind and tag.
const MAX_TOKEN: usize = 80;

/// Why a token in such a place is not turned back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevealError {
    /// Nothing has this token: it is of another session, or of a gate before, or made up.
    #[error(
        "`{at}` holds the token {token}, which stands for nothing in this session; a token is good in the session whose answer had it, until the gate starts anew: ask for that answer again"
    )]
    Unknown {
        /// The argument.
        at: FieldPath,
        /// The token.
        token: String,
    },
    /// The value would not be recognized when it comes back.
    #[error(
        "what the token {token} in `{at}` stands for is too short to be found again in what servers say, so it is not sent"
    )]
    TooShort {
        /// The argument.
        at: FieldPath,
        /// The token.
        token: String,
    },
    /// Too much would be sent at once.
    #[error(
        "with values in the place of its tokens the call would be more than {} KiB longer: send fewer at once",
        MAX_ADDED >> 10
    )]
    TooLong,
    /// Too many values were sent.
    #[error(
        "{MAX_SENT} different values, or {} KiB, were sent in the place of tokens in this session, and no more are",
        MAX_SENT_BYTES >> 10
    )]
    TooMany,
}

/// What was taken out, by sessions and tokens.
#[derive(Default)]
pub struct Kept {
    /// Guards nothing else.
    sessions: Mutex<HashMap<String, Session>>,
    /// Held by who makes a finder: the others would make the same one.
    finding: Mutex<()>,
    /// How many sessions there were.
    began: AtomicU64,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(not shown)")
    }
}

#[derive(Default)]
struct Session {
    /// Which one it was.
    number: u64,
    /// By token; none where two values have the same.
    values: HashMap<String, Option<Arc<Zeroizing<String>>>>,
    /// What was sent in the place of tokens, in order. It only grows.
    sent: Vec<(String, Arc<Zeroizing<String>>)>,
    /// What finds all that was sent.
    finder: Option<Arc<Sent>>,
}

/// Finds what was sent in the place of tokens.
pub(crate) struct Sent {
    pub(crate) known: Known,
    /// By the numbers of the values.
    pub(crate) tokens: Vec<String>,
}

impl Kept {
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has begun something. One that is over does not come back by what still arrives.
    pub(crate) fn begin(&self, session: &str) {
        let mut sessions = self.sessions();
        if sessions.contains_key(session) {
            return;
        }
        if sessions.len() >= MAX_SESSIONS {
            let unsent = sessions.iter().filter(|(_, session)| session.sent.is_empty());
            let oldest = unsent.min_by_key(|(_, session)| session.number).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            sessions.remove(&oldest);
        }
        let number = self.began.fetch_add(1, Ordering::Relaxed);
        sessions.insert(session.to_owned(), Session { number, ..Session::default() });
    }

    /// Remembers what a token stands for.
    pub(crate) fn keep(&self, session: &str, token: &str, value: &[u8]) {
        let Ok(value) = str::from_utf8(value) else { return };
        let mut sessions = self.sessions();
        let Some(session) = sessions.get_mut(session).filter(|_| value.len() <= MAX_VALUE) else { return };
        let values = &mut session.values;
        let full = values.len() >= MAX_VALUES;
        match values.get_mut(token) {
            Some(before) => drop(before.take_if(|before| before.as_str() != value)),
            None if full => {}
            None => drop(values.insert(token.to_owned(), Some(Arc::new(Zeroizing::new(value.to_owned()))))),
        }
    }

    /// Forgets a session.
    pub(crate) fn end(&self, session: &str) {
        self.sessions().remove(session);
    }

    /// The arguments with values in the place of tokens, and which; `None` if there are no tokens in such places. From then on
    /// [`sent`](Self::sent) finds these values. Takes a while where there are many: not to be called where others wait.
    ///
    /// # Errors
    /// [`RevealError`]: nothing may be sent.
    pub(crate) fn reveal(
        &self,
        session: &str,
        sinks: &Sinks,
        arguments: &Canonical,
    ) -> Result<Option<(Canonical, BTreeSet<Revealed>)>, RevealError> {
        let mut revealed = BTreeSet::new();
        let mut turned = arguments.document().clone();
        let most = arguments.as_bytes().len() + MAX_ADDED;
        for (at, classes) in sinks {
            let mut failed = None;
            let bytes = turned.root().with_strings(at, &mut |text| {
                if failed.is_some() {
                    return String::new();
                }
                self.turned(session, at, *classes, (text, most), &mut revealed).unwrap_or_else(|error| {
                    failed = Some(error);
                    String::new()
                })
            });
            if let Some(error) = failed {
                return Err(error);
            }
            if bytes.len() > most {
                return Err(RevealError::TooLong);
            }
            turned = reparsed(bytes)?;
        }
        if revealed.is_empty() {
            return Ok(None);
        }
        self.find_what_was_sent(session);
        let turned = turned.root().canonical().map_err(|_error| RevealError::TooLong)?;
        Ok(Some((turned, revealed)))
    }

    /// A text with values in the place of its tokens of these classes.
    fn turned(
        &self,
        session: &str,
        at: &FieldPath,
        classes: Classes,
        (text, most): (&str, usize),
        revealed: &mut BTreeSet<Revealed>,
    ) -> Result<String, RevealError> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(begin) = rest.find(OPENING) {
            let (before, tail) = rest.split_at(begin);
            out.push_str(before);
            let Some((token, kind)) = token(tail).filter(|(_, kind)| classes.has(Class::of(kind))) else {
                out.push(OPENING);
                rest = tail.get(OPENING.len_utf8()..).unwrap_or_default();
                continue;
            };
            out.push_str(&self.value(session, at, token)?);
            if out.len() > most {
                return Err(RevealError::TooLong);
            }
            revealed.insert(Revealed { at: at.clone(), kind: kind.to_owned() });
            rest = tail.get(token.len()..).unwrap_or_default();
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(
        &self,
        session: &str,
        at: &FieldPath,
        token: &str,
    ) -> Result<Arc<Zeroizing<String>>, RevealError> {
        let unknown = || RevealError::Unknown { at: at.clone(), token: token.to_owned() };
        let there = |sessions: &HashMap<String, Session>| {
            let session = sessions.get(session)?;
            let sent = session.sent.iter().any(|(sent, _)| sent == token);
            Some((session.values.get(token).cloned().flatten()?, sent))
        };
        let (value, is_sent) = there(&self.sessions()).ok_or_else(unknown)?;
        if is_sent {
            return Ok(value);
        }
        let alone = [KnownValue { id: 0, value: value.as_bytes(), names: &[] }];
        let (_known, concerns) = Known::new(&alone);
        if concerns
            .iter()
            .any(|(_, concern)| matches!(concern, Concern::NotRemoved | Concern::OnlyBesideItsName))
        {
            return Err(RevealError::TooShort { at: at.clone(), token: token.to_owned() });
        }
        let mut sessions = self.sessions();
        let session = sessions.get_mut(session).ok_or_else(unknown)?;
        if !session.sent.iter().any(|(sent, _)| sent == token) {
            let bytes: usize = session.sent.iter().map(|(_, value)| value.len()).sum();
            if session.sent.len() >= MAX_SENT || bytes + value.len() > MAX_SENT_BYTES {
                return Err(RevealError::TooMany);
            }
            session.sent.push((token.to_owned(), Arc::clone(&value)));
        }
        Ok(value)
    }

    fn find_what_was_sent(&self, session: &str) {
        let sent =
            |sessions: &HashMap<String, Session>| sessions.get(session).map(|session| session.sent.clone());
        let _finding = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = sent(&self.sessions()) else { return };
        if self.sent(session).is_some_and(|finder| finder.tokens.len() == all.len()) {
            return;
        }
        let values: Vec<_> = (0..)
            .zip(&all)
            .map(|(id, (_, value))| KnownValue { id, value: value.as_bytes(), names: &[] })
            .collect();
        let (known, _short) = Known::new(&values);
        let tokens: Vec<_> = all.into_iter().map(|(token, _)| token).collect();
        let finder = Arc::new(Sent { known, tokens });
        if let Some(session) = self.sessions().get_mut(session) {
            // One that another call made meanwhile may find more.
            let before = session.finder.as_ref().map_or(0, |before| before.tokens.len());
            if before < finder.tokens.len() {
                session.finder = Some(finder);
            }
        }
    }

    /// What finds the values that were sent in a session.
    pub(crate) fn sent(&self, session: &str) -> Option<Arc<Sent>> {
        self.sessions().get(session)?.finder.clone()
    }
}

/// What was parsed, with other strings.
fn reparsed(bytes: Vec<u8>) -> Result<Document, RevealError> {
    let limits = Limits { max_bytes: Limits::LARGEST, max_depth: Limits::DEEPEST, max_nodes: usize::MAX };
    Document::parse(bytes, &limits).map_err(|_error| RevealError::TooLong)
}

/// Looks for what was sent in a session until now, however long ago who looks began to.
pub(crate) struct LookForSent {
    pub(crate) kept: Arc<Kept>,
    pub(crate) session: String,
}

impl fmt::Debug for LookForSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookForSent({})", self.session)
    }
}

impl LookForSent {
    pub(crate) fn now(&self) -> Option<Arc<Sent>> {
        self.kept.sent(&self.session)
    }

    /// Whether something of it is in a text, or could be.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        let mut found = Vec::new();
        let looked = self.find(text, &Place::default(), &mut found);
        looked.is_err() || !found.is_empty()
    }
}

impl Detect for LookForSent {
    fn find(&self, text: &[u8], place: &Place<'_>, found: &mut Vec<Found>) -> Result<(), Withheld> {
        self.now().map_or(Ok(()), |sent| sent.known.find(text, place, found))
    }

    fn across(&self) -> bool {
        true
    }

    fn settled(&self, text: &[u8]) -> Result<usize, Withheld> {
        self.now().map_or(Ok(text.len()), |sent| sent.known.settled(text))
    }

    fn may_begin(&self, text: &[u8]) -> bool {
        self.now().is_some_and(|sent| sent.known.may_begin(text))
    }
}

/// The token that a text begins with, and the kind that it names.
fn token(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix(OPENING)?;
    let length = inner.bytes().take(MAX_TOKEN).position(|byte| !is_of_token(byte))?;
    let (inner, rest) = inner.split_at(length);
    rest.strip_prefix(CLOSING)?;
    let (kind, tag) = inner.split_once('#')?;
    let whole = text.get(..OPENING.len_utf8() + length + CLOSING.len_utf8())?;
    (!kind.is_empty() && !tag.is_empty()).then(|| (whole, kind.strip_prefix(SECRET).unwrap_or(kind)))
}

const fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b':' | b'#' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Canonical {
        Document::parse(text.as_bytes(), &Limits::default()).unwrap().root().canonical().unwrap()
    }

    fn sinks(all: &[(&str, &[&str])]) -> Sinks {
        let classes = |names: &[&str]| Classes::parse(names.iter().copied()).unwrap();
        all.iter().map(|(path, names)| (path.parse().unwrap(), classes(names))).collect()
    }

    fn kept() -> Kept {
        let kept = Kept::default();
        ["one", "two"].into_iter().for_each(|session| kept.begin(session));
        kept.keep("one", "⟦pii.email#aaaa⟧", b"ann@bank.example");
        kept.keep("one", "⟦pii.id.fr-nir#bbbb⟧", b"1 85 05 78 006 084 36");
        kept.keep("one", "⟦secret:github-pat#cccc⟧", b"abc \"def\"\\ghi\n");
        kept.keep("two", "⟦pii.email#dddd⟧", b"bob@bank.example");
        kept
    }

    #[test]
    fn tokens_are_turned_back_in_their_places_and_nowhere_else() {
        let kept = kept();
        for (sinks_of, text, want) in [
            (
                &[("to", &["pii.email"][..])][..],
                r#"{"to":"⟦pii.email#aaaa⟧"}"#,
                r#"{"to":"ann@bank.example"}"#,
            ),
            (
                &[("to", &["pii"])],
                r#"{"to":"Ann <⟦pii.email#aaaa⟧>, ⟦pii.email#aaaa⟧"}"#,
                r#"{"to":"Ann <ann@bank.example>, ann@bank.example"}"#,
            ),
            (
                &[("m.cc[]", &["pii.email"])],
                r#"{"m":{"cc":["x","⟦pii.email#aaaa⟧"]}}"#,
                r#"{"m":{"cc":["x","ann@bank.example"]}}"#,
            ),
            (&[("id", &["pii.id"])], r#"{"id":"⟦pii.id.fr-nir#bbbb⟧"}"#, r#"{"id":"1 85 05 78 006 084 36"}"#),
            (
                &[("t", &["secrets"])],
                r#"{"t":"⟦⟦secret:github-pat#cccc⟧⟧"}"#,
                r#"{"t":"⟦abc \"def\"\\ghi\n⟧"}"#,
            ),
            (
                &[("a", &["pii"]), ("b", &["secrets"])],
                r#"{"a":"⟦pii.email#aaaa⟧","b":"⟦secret:github-pat#cccc⟧"}"#,
                r#"{"a":"ann@bank.example","b":"abc \"def\"\\ghi\n"}"#,
            ),
        ] {
            let (got, revealed) = kept.reveal("one", &sinks(sinks_of), &arguments(text)).unwrap().unwrap();
            assert_eq!(got.as_str(), want, "{text}");
            assert_eq!(revealed.len(), sinks_of.len(), "{text}");
        }
        // Another place, another class, no token at all, the name of a member.
        for text in [
            r#"{"body":"⟦pii.email#aaaa⟧"}"#,
            r#"{"to":"⟦secret:github-pat#cccc⟧"}"#,
            r#"{"to":"⟦pii.email⟧ ⟦#aaaa⟧ ⟦pii.email#⟧ ⟦pii.email#aaaa ⟦PII.EMAIL#aaaa⟧ pii.email#aaaa ⟦"}"#,
            r#"{"⟦pii.email#aaaa⟧":"to","to":["⟦pii.email#aaaa⟧"]}"#,
            r#"{"to":1}"#,
        ] {
            let got = kept.reveal("one", &sinks(&[("to", &["pii"])]), &arguments(text)).unwrap();
            assert!(got.is_none(), "{text}");
        }
    }

    #[test]
    fn what_stands_for_nothing_here_is_refused() {
        let kept = kept();
        let to = sinks(&[("to", &["pii"])]);
        let reveal = |session: &str, token: &str| {
            kept.reveal(session, &to, &arguments(&format!(r#"{{"to":"{token}"}}"#))).map(|got| got.is_some())
        };
        assert_eq!(reveal("one", "⟦pii.email#aaaa⟧"), Ok(true));
        for (session, token) in [
            ("two", "⟦pii.email#aaaa⟧"),
            ("three", "⟦pii.email#aaaa⟧"),
            ("", "⟦pii.email#aaaa⟧"),
            ("one", "⟦pii.email#dddd⟧"),
            ("one", "⟦pii.email#aaab⟧"),
            ("one", "⟦pii.card#aaaa⟧"),
        ] {
            let want = RevealError::Unknown { at: "to".parse().unwrap(), token: token.to_owned() };
            assert_eq!(reveal(session, token), Err(want), "{session} {token}");
        }
        // Two values with one token: neither.
        kept.keep("one", "⟦pii.email#aaaa⟧", b"eve@evil.example");
        assert!(reveal("one", "⟦pii.email#aaaa⟧").is_err());
        kept.keep("one", "⟦pii.email#aaaa⟧", b"ann@bank.example");
        assert!(reveal("one", "⟦pii.email#aaaa⟧").is_err());
        assert_eq!(reveal("two", "⟦pii.email#dddd⟧"), Ok(true));
        kept.end("two");
        assert!(reveal("two", "⟦pii.email#dddd⟧").is_err());
    }

    #[test]
    fn what_was_sent_is_found_from_then_on() {
        let kept = kept();
        assert!(kept.sent("one").is_none());
        let all = sinks(&[("a", &["pii"]), ("b", &["pii"])]);
        kept.reveal("one", &all, &arguments(r#"{"a":"⟦pii.email#aaaa⟧"}"#)).unwrap().unwrap();
        assert_eq!(kept.sent("one").unwrap().tokens, ["⟦pii.email#aaaa⟧"]);
        kept.reveal("one", &all, &arguments(r#"{"a":"⟦pii.email#aaaa⟧","b":"⟦pii.id.fr-nir#bbbb⟧"}"#))
            .unwrap()
            .unwrap();
        assert_eq!(kept.sent("one").unwrap().tokens, ["⟦pii.email#aaaa⟧", "⟦pii.id.fr-nir#bbbb⟧"]);
        assert!(kept.sent("two").is_none());
    }

    #[test]
    fn how_much_is_remembered_is_bounded() {
        let kept = Kept::default();
        kept.begin("one");
        let to = sinks(&[("to[]", &["pii"])]);
        let token = |number: usize| format!("⟦pii.email#t{number}⟧");
        for number in 0..=MAX_VALUES {
            kept.keep("one", &token(number), format!("person-{number}@bank.example").as_bytes());
        }
        let reveal = |from: usize, to_excluded: usize| {
            let all: Vec<_> = (from..to_excluded).map(|number| format!("\"{}\"", token(number))).collect();
            kept.reveal("one", &to, &arguments(&format!(r#"{{"to":[{}]}}"#, all.join(","))))
        };
        let unknown = RevealError::Unknown { at: "to[]".parse().unwrap(), token: token(MAX_VALUES) };
        assert_eq!(reveal(MAX_VALUES, MAX_VALUES + 1).unwrap_err(), unknown);
        assert!(reveal(0, MAX_SENT).is_ok());
        assert_eq!(reveal(MAX_SENT, MAX_SENT + 1).unwrap_err(), RevealError::TooMany);
        assert!(reveal(0, 1).is_ok(), "those that were sent can be sent again");
        kept.keep("one", "⟦pii.email#long⟧", &[b'a'; MAX_VALUE + 1]);
        assert!(kept.reveal("one", &to, &arguments(r#"{"to":["⟦pii.email#long⟧"]}"#)).is_err());
        // A token that stands for nearly a KiB, often.
        kept.begin("two");
        kept.keep("two", "⟦pii.email#long⟧", "ann@bank.example ".repeat(60).as_bytes());
        let all = vec![r#""⟦pii.email#long⟧""#; 1_000].join(",");
        let long = kept.reveal("two", &to, &arguments(&format!(r#"{{"to":[{all}]}}"#)));
        assert_eq!(long.unwrap_err(), RevealError::TooLong);
        let all = "⟦pii.email#long⟧".repeat(1_000);
        let long = kept.reveal("two", &to, &arguments(&format!(r#"{{"to":["{all}"]}}"#)));
        assert_eq!(long.unwrap_err(), RevealError::TooLong);
        // What would not be found again.
        kept.keep("two", "⟦pii.ip#short⟧", b"8.8.8.8");
        let short = kept.reveal("two", &to, &arguments(r#"{"to":["⟦pii.ip#short⟧"]}"#));
        assert!(matches!(short, Err(RevealError::TooShort { .. })), "{short:?}");
        for number in 0..=MAX_SESSIONS {
            kept.begin(&number.to_string());
            kept.keep(&number.to_string(), "⟦pii.email#aaaa⟧", b"ann@bank.example");
        }
        assert_eq!(kept.sessions().len(), MAX_SESSIONS);
        assert!(kept.sent("one").is_some(), "one that has sent something is not forgotten");
        // One that is over does not come back.
        kept.end("one");
        kept.keep("one", "⟦pii.email#aaaa⟧", b"ann@bank.example");
        assert!(!kept.sessions().contains_key("one"));
    }
}
