//! What is taken out of what servers say, on the last step before an agent or the disk has it: secrets that nobody told us
//! about, and personal data, class by class as the configuration says.
//!
//! Values of the vault are gone by then: the credential proxy takes them out, and holds them. What is here needs no vault.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use toolgate_core::call::{Action, Call, Revealed};
use toolgate_core::json::{Document, Edit, Limits, ObjectWriter, Value};
use toolgate_core::name::{ServerName, ToolName};
use toolgate_core::scrub::detect::{Class, Classes, CustomRules, Detector};
use toolgate_core::scrub::{Detect, Kind, Removed, Scrubber, Withheld};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::outcome::Answer;
use crate::port::{AgentLine, Agentward, BoxFuture, Client, UnsearchableError};
use crate::randomness;
use crate::reveal::{CLOSING, Kept, LookForSent, OPENING, SECRET, Sinks};
use crate::vault::keys::tag;

/// How many of each kind were taken out, by the names of the kinds.
pub type Counts = BTreeMap<String, u64>;

/// What tokens are tagged with: made anew each time the gate starts, and never written down. Without randomness there are no
/// tags.
static KEY: LazyLock<Option<Zeroizing<[u8; 32]>>> = LazyLock::new(|| {
    let mut key = Zeroizing::new([0; 32]);
    randomness::fill(&mut *key).ok().map(|()| key)
});

/// What is taken out of what, as configured: secrets, where nothing else is said.
#[derive(Debug, Clone, Default)]
pub struct ScrubRules {
    custom: CustomRules,
    servers: HashMap<ServerName, Classes>,
    tools: HashMap<ToolName, Classes>,
    sinks: HashMap<ToolName, Sinks>,
    /// The classes that servers get in the place of tokens.
    given: HashMap<ServerName, Classes>,
    /// All classes that can stand somewhere in the place of their tokens.
    revealed: Classes,
    kept: Arc<Kept>,
}

impl ScrubRules {
    /// The rules of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let servers = config.servers.iter().map(|(name, server)| (name.clone(), server.scrub));
        let tools = config.scrub_tools.iter().map(|(name, classes)| (name.clone(), *classes));
        let sinks: HashMap<ToolName, Sinks> = config.reveal_tools.clone().into_iter().collect();
        let mut given = HashMap::<ServerName, Classes>::new();
        for (tool, classes) in sinks.iter().flat_map(|(tool, sinks)| sinks.values().map(move |of| (tool, of)))
        {
            let of = given.entry(tool.server().clone()).or_insert(Classes::NONE);
            *of = of.and(*classes);
        }
        Self {
            custom: config.scrub_rules.clone(),
            servers: servers.collect(),
            tools: tools.collect(),
            revealed: given.values().fold(Classes::NONE, |all, of| all.and(*of)),
            sinks,
            given,
            kept: Arc::default(),
        }
    }

    /// These rules, with what was taken out under the rules before.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        Self { kept: Arc::clone(&before.kept), ..self }
    }

    /// A session has begun something: what is taken out in it is kept.
    pub(crate) fn begin_session(&self, session: &str) {
        if self.revealed != Classes::NONE {
            self.kept.begin(session);
        }
    }

    /// Forgets what was taken out in a session.
    pub fn end_session(&self, session: &str) {
        self.kept.end(session);
    }

    /// The arguments of a tool in which tokens are turned back.
    pub(crate) fn sinks(&self, tool: &ToolName) -> Option<&Sinks> {
        self.sinks.get(tool)
    }

    /// What tokens stand for.
    pub(crate) const fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }

    /// Whether these rules put values where they were put into a call.
    pub(crate) fn reveals(&self, call: &Call) -> bool {
        let sinks = call.action.tool().and_then(|tool| self.sinks.get(tool));
        call.carries.revealed().iter().all(|Revealed { at, kind }| {
            sinks.and_then(|sinks| sinks.get(at)).is_some_and(|classes| classes.has(Class::of(kind)))
        })
    }

    /// What looks like a secret or like personal data in what a call would [send](sent), by kinds, whatever is taken out of the
    /// answer: what may leave is for the policy to say.
    ///
    /// # Errors
    /// It could not be looked through.
    pub fn carried(&self, sent: &[u8]) -> Result<BTreeSet<String>, UnsearchableError> {
        let all = Class::ALL.iter().fold(Classes::NONE, |all, (_, class)| all.with(*class));
        let detector = Detector::new(all, self.custom.clone());
        let scrubber = Scrubber::new(vec![Arc::new(detector)], Arc::new(|_, _: &[u8]| String::new()));
        let sent = parse(sent.to_vec()).map_err(|_withheld| UnsearchableError)?;
        let found = scrubber.scrub_json(&sent).map_err(|_withheld| UnsearchableError)?.removed;
        Ok(found.keys().map(|kind| name_of(*kind, &self.custom)).collect())
    }

    /// What takes out of what a server says, about something in a run of an agent: the same value has the same token there, and
    /// another one elsewhere.
    #[must_use]
    pub fn cleaning(&self, server: &ServerName, action: &Action, session: &str) -> Cleaning {
        let of_tool = action.tool().and_then(|tool| self.tools.get(tool));
        let classes = of_tool.or_else(|| self.servers.get(server)).copied().unwrap_or_default();
        // What a server is sent in the place of tokens, no tool of it says.
        let given = self.given.get(server).copied().unwrap_or(Classes::NONE);
        let classes = classes.and(given);
        let custom = self.custom.clone();
        let detector = Arc::new(Detector::new(classes, custom.clone()));
        let looks = self.revealed != Classes::NONE && !session.is_empty();
        let sent = looks
            .then(|| Arc::new(LookForSent { kept: Arc::clone(&self.kept), session: session.to_owned() }));
        let mut detectors: Vec<Arc<dyn Detect>> = Vec::new();
        detectors.extend(sent.iter().map(|sent| Arc::clone(sent) as Arc<dyn Detect>));
        if classes != Classes::NONE {
            detectors.push(detector);
        }
        let (names, session) = (custom.clone(), session.to_owned());
        let (revealed, kept, finder) = (self.revealed, Arc::clone(&self.kept), sent.clone());
        let token = move |kind: Kind, value: &[u8]| {
            if let Kind::Known(number) = kind {
                let sent = finder.as_ref().and_then(|finder| finder.now());
                return sent.and_then(|sent| sent.tokens.get(number as usize).cloned()).unwrap_or_default();
            }
            let name = name_of(kind, &names);
            let token = token(&name, &session, value);
            // Descriptions are shown in all sessions, and so are of none.
            if revealed.has(Class::of(&name)) && !session.is_empty() {
                kept.keep(&session, &token, value);
            }
            token
        };
        Cleaning {
            scrubber: Scrubber::new(detectors, Arc::new(token)),
            custom,
            sent,
            removed: Arc::default(),
        }
    }
}

/// What a call would send to its server, as one JSON document: the arguments, and what the client put around them. Without what a
/// server gets back that it sent itself, and the agent's progress token, in whose place it gets the gate's.
#[must_use]
pub fn sent(call: &Call) -> Vec<u8> {
    let params = call.params.root();
    let meta = params.get("_meta").map(|meta| meta.rewrite(&[("progressToken", Edit::Remove)]));
    let mut edits = vec![("requestState", Edit::Remove)];
    if call.action.tool().is_some() {
        edits.push(("arguments", Edit::Remove));
    }
    edits.extend(meta.as_ref().map(|meta| ("_meta", Edit::Set(meta))));
    let around = params.rewrite(&edits);
    [b"[", call.arguments.as_bytes(), b",", &around, b"]"].concat()
}

/// What a kind is called in tokens and records.
fn name_of(kind: Kind, custom: &CustomRules) -> String {
    match kind {
        Kind::Custom(number) => custom.name(number).unwrap_or("custom").to_owned(),
        Kind::Detected(name) | Kind::Opaque(name) => name.to_owned(),
        Kind::Known(_) => "known".to_owned(),
    }
}

/// The kind, and a tag of the run and the value.
fn token(name: &str, session: &str, value: &[u8]) -> String {
    let Some(key) = &*KEY else { return "⟦secret⟧".to_owned() };
    let tag = tag(&**key, &[session.as_bytes(), value]);
    let class = if name.starts_with("pii.") { "" } else { SECRET };
    format!("{OPENING}{class}{name}#{tag}{CLOSING}")
}

/// Takes out of what one server says about one thing, and counts.
#[derive(Debug, Clone)]
pub struct Cleaning {
    scrubber: Scrubber,
    custom: CustomRules,
    /// What was sent in the place of tokens: it stays nowhere.
    sent: Option<Arc<LookForSent>>,
    /// Guards what was taken out so far.
    removed: Arc<Mutex<Removed>>,
}

impl Cleaning {
    /// What does it.
    #[must_use]
    pub const fn scrubber(&self) -> &Scrubber {
        &self.scrubber
    }

    /// A JSON object without what may not be in it; the very same, if nothing is. The members `own` are what the server gets back
    /// and has to know again: they stay as they are.
    ///
    /// # Errors
    /// It could not be looked through.
    pub fn object(&self, document: &Document, own: &[&str]) -> Result<Document, Withheld> {
        if self.scrubber.is_idle() {
            return Ok(document.clone());
        }
        let root = document.root();
        let own: Vec<(&str, Value<'_>)> = own
            .iter()
            .filter_map(|key| Some((*key, root.get(key)?)))
            .filter(|(_, value)| self.may_stay(*value))
            .collect();
        let with = |document: &Document, edit: &dyn Fn(Value<'_>) -> Vec<u8>| {
            if own.is_empty() { Ok(document.clone()) } else { parse(edit(document.root())) }
        };
        let hidden: Vec<_> = own.iter().map(|(key, _)| (*key, Edit::Set(b"null"))).collect();
        let cleaned = self.scrubber.scrub_json(&with(document, &|root| root.rewrite(&hidden))?)?;
        if cleaned.removed.is_empty() {
            return Ok(document.clone());
        }
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        cleaned.removed.into_iter().for_each(|(kind, count)| *removed.entry(kind).or_default() += count);
        let back: Vec<_> = own.iter().map(|(key, value)| (*key, Edit::Set(value.raw()))).collect();
        with(&parse(cleaned.bytes)?, &|root| root.rewrite(&back))
    }

    fn may_stay(&self, value: Value<'_>) -> bool {
        self.sent.as_ref().is_none_or(|sent| !sent.is_in(value.raw()))
    }

    /// The agent's end of the line, with everything cleaned that is told it or asked of it.
    #[must_use]
    pub fn line(&self, line: AgentLine) -> AgentLine {
        Arc::new(CleanLine { line, cleaning: self.clone() })
    }

    /// What an agent is told, or asked.
    fn told(&self, method: &str, params: &Bytes) -> Option<Bytes> {
        let params = parse(params.to_vec()).ok()?;
        // The agent's own.
        let own: &[&str] = if method == "notifications/progress" { &["progressToken"] } else { &[] };
        Some(self.object(&params, own).ok()?.to_bytes())
    }

    /// What was taken out so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = Counts::new();
        for (kind, count) in &*removed {
            let count = u64::try_from(*count).unwrap_or(u64::MAX);
            *counts.entry(name_of(*kind, &self.custom)).or_default() += count;
        }
        counts
    }
}

/// What was cleaned is as deep as it was, and hardly longer.
fn parse(bytes: Vec<u8>) -> Result<Document, Withheld> {
    let limits = Limits { max_bytes: Limits::LARGEST, max_depth: Limits::DEEPEST, max_nodes: usize::MAX };
    Document::parse(bytes, &limits).map_err(|_no_json| Withheld::TooMuch)
}

/// See [`Cleaning::line`].
struct CleanLine {
    line: AgentLine,
    cleaning: Cleaning,
}

impl Agentward for CleanLine {
    fn notify(&self, method: &str, params: Bytes) {
        // What cannot be looked through is dropped, like what cannot be queued.
        if let Some(params) = self.cleaning.told(method, &params) {
            self.line.notify(method, params);
        }
    }

    fn ask(&self, method: &str, params: Bytes) -> BoxFuture<'_, Answer> {
        match self.cleaning.told(method, &params) {
            Some(params) => self.line.ask(method, params),
            None => Box::pin(std::future::ready(unasked())),
        }
    }

    fn waiting(&self, question: &str, waited_s: u64) {
        self.line.waiting(question, waited_s);
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        self.line.gone()
    }

    fn client(&self) -> &Client {
        self.line.client()
    }
}

/// What a server is told whose request to an agent cannot be looked through.
fn unasked() -> Answer {
    const INTERNAL_ERROR: i64 = -32_603;
    let error = ObjectWriter::new()
        .number("code", INTERNAL_ERROR)
        .string("message", "the request could not be looked through, and was not passed on")
        .finish();
    // INVARIANT: it was just written as JSON.
    Answer::Error(
        parse(error)
            .unwrap_or_else(|_withheld| toolgate_core::json::Canonical::empty_object().document().clone()),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Assembled here, so that no file holds what a scanner would take for one.
    fn pat() -> String {
        format!("ghp_{}", "Zq3vN8xK2mW7tR5yB9cD4fG6hJ1kL0pS3aQe")
    }

    fn rules(text: &str) -> ScrubRules {
        ScrubRules::new(&Config::parse(Path::new("toolgate.toml"), text).unwrap())
    }

    fn cleaning(rules: &ScrubRules, tool: &str, session: &str) -> Cleaning {
        let tool: ToolName = tool.parse().unwrap();
        rules.cleaning(&tool.server().clone(), &Action::Tool(tool), session)
    }

    fn cleaned(cleaning: &Cleaning, text: &str) -> String {
        let document = Document::parse(text.as_bytes(), &Limits::default()).unwrap();
        String::from_utf8(cleaning.object(&document, &[]).unwrap().bytes().to_vec()).unwrap()
    }

    const SERVER: &str = "[servers.s]\ncommand = [\"true\"]\n";

    #[test]
    fn what_is_taken_out_is_as_configured() {
        let (secret, card) = (pat(), "4111 1111 1111 1111");
        let text = format!(r#"{{"a":"x {secret} y","b":"card {card}"}}"#);
        for (config, tool, secrets, cards) in [
            (String::new(), "s/t", true, false),
            (SERVER.to_owned(), "s/t", true, false),
            (format!("{SERVER}scrub = []\n"), "s/t", false, false),
            (format!("{SERVER}scrub = [\"pii.card\"]\n"), "s/t", false, true),
            (format!("{SERVER}scrub = [\"secrets\", \"pii\"]\n"), "s/t", true, true),
            (format!("{SERVER}scrub = []\n[tools.\"s/t\"]\nscrub = [\"secrets\"]\n"), "s/t", true, false),
            (
                format!("{SERVER}scrub = []\n[tools.\"s/t\"]\nscrub = [\"secrets\"]\n"),
                "s/other",
                false,
                false,
            ),
            (format!("{SERVER}[tools.\"s/t\"]\nscrub = []\n"), "s/t", false, false),
        ] {
            let cleaning = cleaning(&rules(&config), tool, "one");
            let shown = cleaned(&cleaning, &text);
            assert_eq!(!shown.contains(&secret), secrets, "{config} {tool}: {shown}");
            assert_eq!(!shown.contains(card), cards, "{config} {tool}: {shown}");
            let want = [("github-pat", secrets), ("pii.card", cards)];
            let want = want.into_iter().filter(|(_, gone)| *gone).map(|(kind, _)| (kind.to_owned(), 1));
            assert_eq!(cleaning.counts(), want.collect(), "{config} {tool}");
        }
    }

    /// What was sent in the place of a token does not come back: not in the answer to a call that had begun before, nor in what
    /// stays as it is otherwise, nor by another tool of that server.
    #[test]
    fn what_was_sent_comes_back_nowhere() {
        let rules = rules(&format!(
            "{SERVER}scrub = []\n[tools.\"s/look\"]\nscrub = [\"pii.email\"]\n[tools.\"s/send\"]\nreveal = {{ to = [\"pii.email\"] }}\n"
        ));
        let (email, encoded) = ("ann.lee@bank.example", "YW5uLmxlZUBiYW5rLmV4YW1wbGU=");
        rules.begin_session("one");
        let looked = cleaned(&cleaning(&rules, "s/look", "one"), &format!(r#"{{"a":"{email}"}}"#));
        let begun = cleaning(&rules, "s/other", "one");
        let state = format!(r#"{{"requestState":"{encoded}","a":"x"}}"#);
        let state = Document::parse(state.as_bytes(), &Limits::default()).unwrap();
        let stays = |cleaning: &Cleaning| cleaning.object(&state, &["requestState"]).unwrap();
        assert_eq!(stays(&begun).bytes(), state.bytes());
        let argument = looked.replace("\"a\"", "\"to\"");
        let argument = Document::parse(argument.as_bytes(), &Limits::default()).unwrap();
        let sinks = rules.sinks(&"s/send".parse().unwrap()).unwrap();
        let sent =
            rules.kept().reveal("one", sinks, &argument.root().canonical().unwrap()).unwrap().unwrap().0;
        assert_eq!(sent.as_str(), format!(r#"{{"to":"{email}"}}"#));
        let after = cleaning(&rules, "s/other", "one");
        for cleaning in [&begun, &after] {
            assert!(!cleaned(cleaning, &format!(r#"{{"a":"{encoded}"}}"#)).contains(encoded));
            assert!(!stays(cleaning).root().raw_str().contains(encoded));
        }
        // In other runs too, where it is written as such: the server that was given it says none of its class.
        let other = cleaned(&cleaning(&rules, "s/other", "two"), &format!(r#"{{"a":"{email}"}}"#));
        assert!(!other.contains(email), "{other}");
    }

    #[test]
    fn only_progress_has_a_token_of_the_agents_own() {
        let (cleaning, secret) = (cleaning(&ScrubRules::default(), "s/t", "one"), pat());
        let params = Bytes::from(format!(r#"{{"progressToken":"{secret}","data":"x"}}"#));
        for method in ["notifications/message", "elicitation/create", "notifications/resources/updated"] {
            let told = cleaning.told(method, &params).unwrap();
            assert!(!String::from_utf8_lossy(&told).contains(&secret), "{method}");
        }
        assert_eq!(cleaning.told("notifications/progress", &params).unwrap(), params);
    }

    #[test]
    fn what_needs_no_change_is_the_very_same() {
        let cleaning = cleaning(&ScrubRules::default(), "s/t", "one");
        for text in [
            r#"{ "content":[ {"type" : "text","text":"caf\u00e9 \/ 1e5"} ] , "n":1.50 }"#,
            r#"{"content":[{"type":"image","data":"iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB","mimeType":"image/png"}]}"#,
            r#"{"id":"550e8400-e29b-41d4-a716-446655440000","sha":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#,
            r#" {"a":1} "#,
        ] {
            assert_eq!(cleaned(&cleaning, text), text);
        }
        assert!(cleaning.counts().is_empty());
    }

    #[test]
    fn wherever_it_stands_it_goes_and_json_stays_json() {
        let secret = pat();
        let blob = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            format!("[remote]\nurl = https://{secret}@example.com/x\n"),
        );
        let (head, tail) = blob.split_at(40);
        let wrapped = format!("{head}\\n{tail}");
        for text in [
            format!(r#"{{"content":[{{"type":"text","text":"token {secret}\n"}}],"z":1,"a":[2]}}"#),
            format!(r#"{{"structuredContent":{{"deep":{{"token":"{secret}"}}}},"content":[]}}"#),
            format!(r#"{{"code":-32000,"message":"401 for {secret}","data":{{"x":"{secret}"}}}}"#),
            format!(r#"{{"progress":1,"message":"using {secret}"}}"#),
            format!(r#"{{"level":"info","data":"using {secret}"}}"#),
            format!(r#"{{"name":"t","description":"Use {secret}.","inputSchema":{{"type":"object"}}}}"#),
            format!(r#"{{"contents":[{{"uri":"file:///c","blob":"{blob}"}}]}}"#),
            format!(r#"{{"contents":[{{"uri":"file:///c","blob":"{wrapped}"}}]}}"#),
            format!(r#"{{"contents":[{{"uri":"file:///c","blob":"{}"}}]}}"#, blob.trim_end_matches('=')),
            format!(r#"{{"content":[{{"type":"text","text":"{{\"password\":\"{secret}\"}}"}}]}}"#),
            format!(r#"{{"{secret}":1}}"#),
            format!("  {{\"z\" : \"{secret}\",\"a\":1.50}}\n"),
        ] {
            let cleaning = cleaning(&ScrubRules::default(), "s/t", "one");
            let shown = cleaned(&cleaning, &text);
            let document = Document::parse(shown.as_bytes(), &Limits::default()).unwrap();
            assert!(!shown.contains(&secret), "{text}: {shown}");
            let packed =
                document.root().get("contents").and_then(|all| all.elements().next()?.get("blob")?.as_str());
            if let Some(packed) = packed {
                let bytes =
                    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, packed).unwrap();
                let text = String::from_utf8(bytes).unwrap();
                assert!(
                    text.starts_with("[remote]\nurl = https://⟦secret:") && !text.contains(&secret),
                    "{text}"
                );
            } else {
                assert!(shown.contains("⟦secret:"), "{text}: {shown}");
            }
            assert!(cleaning.counts().values().sum::<u64>() > 0, "{text}");
            // Twice is once.
            let again = self::cleaning(&ScrubRules::default(), "s/t", "two");
            assert_eq!(cleaned(&again, &shown), shown);
        }
    }

    #[test]
    fn tokens_are_of_one_session_and_tell_nothing() {
        let text = format!(r#"{{"a":"{0}","b":"{0}"}}"#, pat());
        let rules = ScrubRules::default();
        let one = cleaned(&cleaning(&rules, "s/t", "one"), &text);
        let tokens: Vec<&str> = one.split('"').filter(|part| part.starts_with('⟦')).collect();
        let [first, second] = *tokens else { panic!("{one}") };
        assert_eq!(first, second);
        assert!(first.starts_with("⟦secret:github-pat#") && first.ends_with('⟧'), "{first}");
        assert_eq!(cleaned(&cleaning(&rules, "s/other", "one"), &text), one, "the same in the whole session");
        assert!(!cleaned(&cleaning(&rules, "s/t", "two"), &text).contains(first), "another one elsewhere");
    }

    /// What the vault's proxy put there is no secret any more.
    #[test]
    fn tokens_are_left_alone() {
        let cleaning = cleaning(&ScrubRules::default(), "s/t", "one");
        for text in [
            r#"{"password":"⟦secret:github#k3f9a2bq⟧"}"#,
            r#"{"text":"password=⟦secret:db#k3f9a2bq⟧ Authorization: Bearer ⟦secret:api-key#k3f9a2bq⟧\n"}"#,
            r#"{"text":"postgres://app:⟦secret:db#k3f9a2bq⟧@db.example.com/x"}"#,
            r#"{"token":"⟦withheld:xz⟧"}"#,
        ] {
            assert_eq!(cleaned(&cleaning, text), text);
        }
        let forged = format!(r#"{{"password":"⟦secret:{}⟧"}}"#, pat());
        assert!(!cleaned(&cleaning, &forged).contains(&pat()), "brackets alone are no token");
    }

    #[test]
    fn rules_of_ones_own_apply() {
        let config = format!(
            "{SERVER}[scrub.rules.acme]\nprefix = \"acme-\"\ncharset = \"a-f0-9\"\nlength = 8\nexamples = [\"acme-0123abcd\"]\n"
        );
        let cleaning = cleaning(&rules(&config), "s/t", "one");
        let shown = cleaned(&cleaning, r#"{"a":"badge acme-00ff00ff"}"#);
        assert!(shown.starts_with(r#"{"a":"badge ⟦secret:acme#"#), "{shown}");
        assert_eq!(cleaning.counts(), Counts::from([("acme".to_owned(), 1)]));
    }

    #[test]
    fn what_a_server_has_to_know_again_stays() {
        let state = pat();
        let text = format!(r#"{{"requestState":"{state}","a":"{state}"}}"#);
        let document = Document::parse(text.as_bytes(), &Limits::default()).unwrap();
        let cleaning = cleaning(&ScrubRules::default(), "s/t", "one");
        let kept = cleaning.object(&document, &["requestState"]).unwrap();
        assert_eq!(kept.root().get("requestState").unwrap().as_str(), Some(&*state));
        assert!(kept.root().get("a").unwrap().as_str().unwrap().starts_with('⟦'));
        assert!(!cleaned(&cleaning, &text).contains(&state));
    }
}
