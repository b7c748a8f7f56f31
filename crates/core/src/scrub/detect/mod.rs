//! Secrets that nobody told us about: by their look, by their names, by the place where they stand.
//!
//! One automaton reads the text once and stops at beginnings of tokens, at names, and at words that introduce a form
//! (`Authorization`, `-----BEGIN`, `IDENTIFIED BY`). From there hand-written verifiers look on, anchored and for a
//! bounded stretch. What they look at in all is counted: a text that makes them look at much more than its length is
//! withheld, so that time stays linear in it.

mod assign;
pub(crate) mod bytes;
mod class;
mod custom;
mod name;
mod shape;
mod special;
mod table;
mod value;

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::automaton::Automaton as _;
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, MatchKind};

use self::assign::{Sure, name_around, next_in_list, value_after, words_before};
use self::bytes::{Mix, at, before, checksum62, cut, has_any, run_back};
use self::name::{Meaning, meaning, one_time};
use self::shape::Shape;
use self::special::{Handler, SPECIAL};
use self::value::{Written, is_secret, stands_for};
use super::{Detect, Found, Kind, Place, Withheld};

pub use self::class::{Class, ClassError, Classes};
pub use self::custom::{CustomRule, CustomRules, RuleError};

/// Words that names of secrets are made of, in lower case. Those that are part of many other words have to stand apart.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "pass", "pwd", "psw", "secret", "token", "key", "auth", "cred", "session", "sessid", "csrf", "xsrf", "bearer", "signature", "webhook",
    "kennwort", "contrase", "senha", "wachtwoord", "haslo", "parola", "sifre", "salasana", "heslo", "jelszo", "losenord", "adgangskode", "motdepasse", "lozinka",
    "geheim", "segreto", "пароль", "парола", "密码", "密碼", "パスワード", "비밀번호", "암호", "contraseña", "şifre", "lösenord", "hasło", "jelszó", "κωδικός", "口令", "暗証番号", "mật khẩu", "รหัสผ่าน", "mnemonic", "connectionstring",
];
/// The same for those that are part of many other words: they have to stand apart.
const SHORT_NAMES: &[&str] = &[
    "pin", "cvv", "cvc", "sid", "otp", "pat", "tok", "wif", "psk", "dsn", "jwt", "mdp", "sess", "clave",
    "parole", "seed", "sig", "pw", "mpin", "tan",
];

/// How much may be looked at, in bytes: so many times the length of the text, and so many more.
const WORK_PER_BYTE: usize = 8;
const WORK: usize = 1 << 20;

enum Action {
    Name { apart: bool },
    Service(u16),
    Special(Handler),
    Token(u16),
}

struct Service {
    word: &'static str,
    shapes: Vec<Shape>,
}

/// Everything that is known, ready for use: made once.
struct Known {
    automaton: DFA,
    actions: Vec<Vec<Action>>,
    tokens: Vec<(&'static str, Shape)>,
    services: Vec<Service>,
}

static KNOWN: LazyLock<Option<Known>> = LazyLock::new(Known::new);

impl Known {
    fn new() -> Option<Self> {
        let mut patterns: Vec<(Vec<u8>, Action)> = Vec::new();
        let mut tokens = Vec::new();
        for (name, shape) in table::TOKENS {
            let shape = Shape::parse(shape)?;
            patterns.push((
                shape.anchor()?.to_ascii_lowercase(),
                Action::Token(u16::try_from(tokens.len()).ok()?),
            ));
            tokens.push((*name, shape));
        }
        let mut services = Vec::new();
        for (word, shapes) in table::SERVICES {
            let parse = |shape: &str| Shape::parse(if shape == "UUID" { table::UUID } else { shape });
            patterns.push((word.as_bytes().to_vec(), Action::Service(u16::try_from(services.len()).ok()?)));
            services.push(Service { word, shapes: shapes.split(' ').map(parse).collect::<Option<_>>()? });
        }
        for (names, apart) in [(NAMES, false), (SHORT_NAMES, true)] {
            patterns.extend(names.iter().map(|name| (name.as_bytes().to_vec(), Action::Name { apart })));
        }
        patterns.extend(
            SPECIAL.iter().map(|(word, handler)| (word.as_bytes().to_vec(), Action::Special(*handler))),
        );
        patterns.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut words: Vec<Vec<u8>> = Vec::new();
        let mut actions: Vec<Vec<Action>> = Vec::new();
        for (word, action) in patterns {
            if words.last() != Some(&word) {
                words.push(word);
                actions.push(Vec::new());
            }
            actions.last_mut()?.push(action);
        }
        let automaton =
            DFA::builder().ascii_case_insensitive(true).match_kind(MatchKind::Standard).build(&words).ok()?;
        Some(Self { automaton, actions, tokens, services })
    }
}

/// One text being looked through.
pub(super) struct Scan<'a> {
    text: &'a [u8],
    found: &'a mut Vec<Found>,
    /// How many bytes were looked at beyond reading the text.
    work: usize,
    /// Where the last JSON web key ended.
    done: usize,
    /// Where the last command line was looked at.
    lines: usize,
    /// Where the search for the other half of a pair of keys ended.
    paired: usize,
    /// Where the last name ended that was looked at.
    named: usize,
    /// Where the last token ended.
    token: usize,
}

impl Scan<'_> {
    fn found(&mut self, range: Range<usize>, kind: &'static str) {
        if range.start < range.end {
            self.found.push(Found { range, kind: Kind::Detected(kind) });
        }
    }

    fn act(&mut self, known: &Known, action: &Action, word: Range<usize>) {
        match action {
            Action::Name { apart } => self.name(word, *apart),
            Action::Service(number) => {
                if let Some(service) = known.services.get(usize::from(*number)) {
                    self.service(service, word);
                }
            }
            Action::Special(handler) => handler(self, word),
            Action::Token(number) => {
                if let Some((kind, shape)) = known.tokens.get(usize::from(*number)) {
                    self.token(kind, shape, word.start);
                }
            }
        }
    }

    fn token(&mut self, kind: &'static str, shape: &Shape, anchor: usize) {
        let Some((start, end)) = shape.verify(self.text, anchor) else { return };
        self.work += end - start;
        let token = cut(self.text, start, end);
        let body = cut(token, anchor - start, token.len());
        let body = body.get(shape.anchor().map_or(0, <[u8]>::len).min(body.len())..).unwrap_or_default();
        let mix = Mix::of(if start < anchor { token } else { body });
        let checked =
            matches!(kind, "github-pat" | "npm-access-token") && checksum62(cut(token, 4, token.len()));
        let words = mix.digits == 0
            && mix.letters() == mix.len
            && (mix.len < 10 || (bytes::wordy(body) && mix.len < 40));
        if !checked && (!mix.mixed(50) || mix.different < 6 || stands_for(token) || words) {
            return;
        }
        self.token = end;
        self.found(start..end, kind);
        if kind == "aws-access-token" {
            special::near_access_key(self, start..end);
        }
    }

    /// A name with a word about secrets in it.
    fn name(&mut self, word: Range<usize>, apart: bool) {
        let text = self.text;
        if apart {
            let (first, last) = (at(text, word.start), before(text, word.start));
            let next = at(text, word.end);
            let joined = last.is_ascii_alphabetic()
                && (last.is_ascii_lowercase() == first.is_ascii_lowercase() || !first.is_ascii_uppercase());
            let goes_on = next.is_ascii_lowercase()
                || (next.is_ascii_uppercase() && before(text, word.end).is_ascii_uppercase());
            if joined || (goes_on && !matches!(next, b's')) {
                return;
            }
        }
        if word.end <= self.named {
            return;
        }
        let name = name_around(text, word);
        self.named = name.end;
        // A part of something longer, as in `arn:aws:secretsmanager:…:secret:db`.
        if before(text, name.start) == b':'
            && at(text, name.end) == b':'
            && !at(text, name.end + 1).is_ascii_whitespace()
        {
            return;
        }
        // Most words are no names of anything: nothing that assigns follows.
        let Some(given) = value_after(text, &name, &mut self.work) else { return };
        let near = cut(text, given.value.start, given.value.end);
        if given.sure == Sure::Near
            && near.len() < 12
            && !near.iter().any(u8::is_ascii_digit)
            && !near.iter().any(u8::is_ascii_uppercase)
        {
            // A sentence goes on; but in `.netrc` a password may be a word.
            if !near.iter().any(u8::is_ascii_punctuation)
                && !has_any(cut(text, name.start.saturating_sub(80), name.start), &["login"])
            {
                return;
            }
        }
        let mut words = name.clone();
        let mut means = meaning(cut(text, name.start, name.end));
        if matches!(means, Meaning::Maybe | Meaning::Nothing | Meaning::Key)
            && before(text, name.start) == b' '
        {
            words = words_before(text, &name);
            let joined = meaning(cut(text, words.start, words.end));
            if joined != Meaning::Maybe || means == Meaning::Nothing {
                means = joined;
            }
        }
        if means == Meaning::Nothing {
            return;
        }
        let mut given = Some(given);
        let mut count = 0;
        while let Some(assigned) = given.filter(|_| count < 64) {
            self.assigned(&name, &words, means, &assigned);
            given = next_in_list(text, &assigned, &mut self.work);
            count += 1;
        }
    }

    fn assigned(
        &mut self,
        name: &Range<usize>,
        words: &Range<usize>,
        means: Meaning,
        assigned: &assign::Assignment,
    ) {
        let text = self.text;
        let value = cut(text, assigned.value.start, assigned.value.end);
        if one_time(cut(text, words.start, words.end)) && base32(value) {
            return self.found(assigned.value.clone(), "totp-seed");
        }
        let strict = match (means, assigned.sure) {
            (Meaning::Pin, Sure::Given) => {
                has_any(cut(text, words.start, words.end), &["cv", "otp"]) || value.len() >= 4
            }
            (Meaning::Pin, _) => false,
            (_, Sure::Given) => true,
            (means, sure) => special::near(text, name, value, means, sure),
        };
        if strict && is_secret(value, means, assigned.written) {
            self.found(assigned.value.clone(), kind_of(means));
        }
    }

    /// A word that says which service a value is for.
    fn service(&mut self, service: &Service, word: Range<usize>) {
        let text = self.text;
        if before(text, word.start).is_ascii_alphabetic()
            && at(text, word.start).is_ascii_lowercase()
            && before(text, word.start).is_ascii_lowercase()
        {
            return;
        }
        let name = name_around(text, word);
        let given = value_after(text, &name, &mut self.work).or_else(|| {
            // `algolia api key: …`: up to three more words.
            let more = bytes::run(text, name.end, 24, |byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'_' | b'-' | b'.')
            });
            let end = run_back(text, more, 24, |byte| byte == b' ');
            (end > name.end).then(|| value_after(text, &(name.start..end), &mut self.work)).flatten()
        });
        let Some(given) = given.filter(|given| given.sure > Sure::Near) else { return };
        let value = cut(text, given.value.start, given.value.end);
        let mix = Mix::of(value);
        if service.shapes.iter().any(|shape| shape.is(value))
            && mix.random()
            && mix.digits > 0
            && mix.letters() > 0
            && !stands_for(value)
            && !service.word.is_empty()
        {
            self.found(given.value, "service-key");
        }
    }
}

/// What a secret is called that is only known by its name.
const fn kind_of(means: Meaning) -> &'static str {
    match means {
        Meaning::Password => "password",
        Meaning::Pin => "pin",
        Meaning::Inner | Meaning::Key | Meaning::Maybe | Meaning::Nothing => "secret",
    }
}

/// The seed of one-time passwords: base32, perhaps in groups.
fn base32(value: &[u8]) -> bool {
    let body = value.iter().filter(|byte| !matches!(byte, b' ' | b'-' | b'=')).count();
    body >= 16
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'2'..=b'7' | b' ' | b'-' | b'='))
        && Mix::of(value).different >= 6
        && (value.iter().all(|byte| !byte.is_ascii_lowercase())
            || value.iter().all(|byte| !byte.is_ascii_uppercase()))
        && !stands_for(value)
}

/// Finds secrets by their look, and personal data, of the classes it is told to.
#[derive(Debug, Clone)]
pub struct Detector {
    classes: Classes,
    custom: CustomRules,
}

impl Detector {
    /// A detector of these classes, with rules of the configuration.
    #[must_use]
    pub const fn new(classes: Classes, custom: CustomRules) -> Self {
        Self { classes, custom }
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self::new(Classes::default(), CustomRules::default())
    }
}

impl Detect for Detector {
    fn find(&self, text: &[u8], place: &Place<'_>, found: &mut Vec<Found>) -> Result<(), Withheld> {
        if self.classes.has(Class::Secrets) {
            secrets(text, place, found)?;
        }
        self.custom.find(text, place, found);
        super::pii::find(self.classes, text, place, found);
        Ok(())
    }
}

fn secrets(text: &[u8], place: &Place<'_>, found: &mut Vec<Found>) -> Result<(), Withheld> {
    let Some(known) = KNOWN.as_ref() else { return Err(Withheld::TooMuch) };
    let allowed = text.len().saturating_mul(WORK_PER_BYTE).saturating_add(WORK);
    let mut scan = Scan { text, found, work: 0, done: 0, lines: 0, paired: 0, named: 0, token: 0 };
    named_by_place(&mut scan, place);
    let automaton = &known.automaton;
    let Ok(mut state) = automaton.start_state(Anchored::No) else { return Err(Withheld::TooMuch) };
    for (here, &byte) in text.iter().enumerate() {
        state = automaton.next_state(Anchored::No, state, byte);
        if automaton.is_special(state) && automaton.is_match(state) {
            for index in 0..automaton.match_len(state) {
                let pattern = automaton.match_pattern(state, index);
                let word = (here + 1).saturating_sub(automaton.pattern_len(pattern))..here + 1;
                for action in known.actions.get(pattern.as_usize()).into_iter().flatten() {
                    scan.act(known, action, word.clone());
                }
            }
            if scan.work > allowed {
                return Err(Withheld::TooMuch);
            }
        }
    }
    Ok(())
}

/// What the member's name, or the one beside it, says about the text as a whole.
fn named_by_place(scan: &mut Scan<'_>, place: &Place<'_>) {
    let text = scan.text;
    for name in [place.key, place.sibling].into_iter().flatten() {
        let means = meaning(name.as_bytes());
        let seed = one_time(name.as_bytes()) && base32(text);
        if seed || is_secret(text, means, Written::Quoted) {
            return scan.found(0..text.len(), if seed { "totp-seed" } else { kind_of(means) });
        }
    }
}
