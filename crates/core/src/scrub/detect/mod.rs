//! Secrets that nobody told us about: by their look, by their names, by the place where they stand.
//!
//! The text is read once; what stops it are beginnings of tokens, names, and words that introduce a form
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

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::LazyLock;

use self::assign::{Sure, name_around, next_in_list, value_after, words_before};
use self::bytes::{Mix, at, before, checksum62, cut, goes_on, has_any, run_back};
use self::name::{Meaning, meaning, one_time};
use self::shape::Shape;
use self::special::{Handler, SPECIAL};
use self::value::{Written, is_secret, stands_for};
use super::{Detect, Found, Kind, Looked, Place, Withheld};

pub use self::bytes::checksum62_of;
pub use self::class::{Class, ClassError, Classes};
pub use self::custom::{CustomRule, CustomRules, Length, RuleError};

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

#[derive(Clone, Copy)]
enum Action {
    Name { apart: bool },
    Service(u16),
    Special(Handler),
    Token(u16),
}

struct Service {
    shapes: Vec<Shape>,
}

/// What begins with the same three bytes: its fourth byte if it has one, all of it, and what is done where it stands.
type Bucket = Vec<(Option<u32>, Vec<u8>, Action)>;

/// Everything that is known, ready for use: made once.
///
/// Words are found by their first four bytes: a table of bits says of nearly all places in a text that none begins
/// there. Reading on does not wait for what was read before, which makes it faster than an automaton of so many words.
struct Known {
    /// For three bytes, a bit for each byte that can be the fourth, by its lower half of the letters.
    fourths: Vec<u32>,
    numbers: Vec<u16>,
    buckets: Vec<Bucket>,
    tokens: Vec<(&'static str, Shape)>,
    services: Vec<Service>,
}

static KNOWN: LazyLock<Option<Known>> = LazyLock::new(Known::new);

/// Where the bit for three bytes is.
const fn slot(three: u32) -> u16 {
    (three.wrapping_mul(0x9e37_79b1) >> 16) as u16
}

/// Where the bits for the fourth bytes are.
const FOURTHS: u32 = 14;
const fn place(three: u32) -> usize {
    (three.wrapping_mul(0x9e37_79b1) >> (32 - FOURTHS)) as usize
}

/// In lower case, without a branch.
const fn lower(byte: u8) -> u32 {
    (byte | (byte.is_ascii_uppercase() as u8) << 5) as u32
}

impl Known {
    fn new() -> Option<Self> {
        let mut words: Vec<(Vec<u8>, Action)> = Vec::new();
        let mut tokens = Vec::new();
        for (name, shape) in table::TOKENS {
            let shape = Shape::parse(shape)?;
            words.push((
                shape.anchor()?.to_ascii_lowercase(),
                Action::Token(u16::try_from(tokens.len()).ok()?),
            ));
            tokens.push((*name, shape));
        }
        let mut services = Vec::new();
        for (word, shapes) in table::SERVICES {
            let parse = |shape: &str| Shape::parse(if shape == "UUID" { table::UUID } else { shape });
            words.push((word.as_bytes().to_vec(), Action::Service(u16::try_from(services.len()).ok()?)));
            services.push(Service { shapes: shapes.split(' ').map(parse).collect::<Option<_>>()? });
        }
        for (names, apart) in [(NAMES, false), (SHORT_NAMES, true)] {
            words.extend(names.iter().map(|name| (name.as_bytes().to_vec(), Action::Name { apart })));
        }
        words.extend(
            SPECIAL.iter().map(|(word, handler)| (word.as_bytes().to_vec(), Action::Special(*handler))),
        );
        let mut known = Self {
            fourths: vec![0; 1 << FOURTHS],
            numbers: vec![0; 1 << 16],
            buckets: Vec::new(),
            tokens,
            services,
        };
        for (word, action) in words {
            known.add(word, action)?;
        }
        Some(known)
    }

    fn add(&mut self, word: Vec<u8>, action: Action) -> Option<()> {
        let key = |third: u8| lower(at(&word, 0)) << 16 | lower(at(&word, 1)) << 8 | lower(third);
        // A word of two bytes begins with three of which the last can be any; so is the fourth of one of three.
        let thirds = word.get(2).map_or(0..=255, |third| *third..=*third);
        let keys: Vec<u32> = thirds.map(key).collect();
        let fourth = word.get(3).map(|fourth| lower(*fourth));
        let fourths = fourth.map_or(u32::MAX, |fourth| 1 << (fourth & 31));
        for three in &keys {
            *self.fourths.get_mut(place(*three))? |= fourths;
        }
        for slot in keys.into_iter().map(slot).collect::<BTreeSet<_>>() {
            let number = self.numbers.get_mut(usize::from(slot))?;
            if *number == 0 {
                self.buckets.push(Bucket::new());
                *number = u16::try_from(self.buckets.len()).ok()?;
            }
            self.buckets.get_mut(usize::from(*number) - 1)?.push((fourth, word.clone(), action));
        }
        Some(())
    }

    /// Whether a word may begin with these four bytes.
    fn may_begin(&self, four: u32) -> bool {
        let fourths = self.fourths.get(place(four >> 8)).copied().unwrap_or_default();
        fourths >> (four & 31) & 1 == 1
    }

    /// What may begin with these three bytes.
    fn beginning(&self, three: u32) -> &[(Option<u32>, Vec<u8>, Action)] {
        let number = self.numbers.get(usize::from(slot(three))).copied().unwrap_or(0);
        let bucket = usize::from(number).checked_sub(1).and_then(|number| self.buckets.get(number));
        bucket.map_or(&[], Vec::as_slice)
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
    /// Where the last password ended that was stored by a system.
    stored: usize,
}

impl Scan<'_> {
    fn found(&mut self, range: Range<usize>, kind: &'static str) {
        if range.is_empty() {
            return;
        }
        // What its own look tells says more than what its name does, which comes first.
        if let Some(same) = self.found.iter_mut().rev().take(4).find(|found| found.range == range) {
            if matches!(same.kind, Kind::Detected("secret" | "password")) {
                same.kind = Kind::Detected(kind);
            }
            return;
        }
        self.found.push(Found { range, kind: Kind::Detected(kind) });
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

    /// Looks at the words that begin with these four bytes.
    #[inline(never)]
    fn words(&mut self, known: &Known, four: u32, start: usize, allowed: usize) -> Result<(), Withheld> {
        for (fourth, word, action) in known.beginning(four >> 8) {
            if fourth.is_none_or(|fourth| fourth == four & 0xff) && goes_on(self.text, start, word) {
                self.act(known, action, start..start + word.len());
            }
        }
        if self.work > allowed { Err(Withheld::TooMuch) } else { Ok(()) }
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
        // A sentence goes on; but in `.netrc` a password may be a word.
        let near = cut(text, given.value.start, given.value.end);
        let said = given.sure == Sure::Near && near.len() < 12 && near.iter().all(u8::is_ascii_alphabetic);
        if said && (near.len() < 8 || !near.iter().any(u8::is_ascii_uppercase)) {
            let head = cut(text, name.start.saturating_sub(80), name.start);
            if !has_any(head, &["login"]) {
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
        self.find_next(text, place, found, &mut Looked::default())
    }

    fn find_next(
        &self,
        text: &[u8],
        place: &Place<'_>,
        found: &mut Vec<Found>,
        looked: &mut Looked,
    ) -> Result<(), Withheld> {
        let first = found.len();
        if self.classes.has(Class::Secrets) {
            secrets(text, place, found, looked)?;
        }
        self.custom.find(text, place, found);
        super::pii::find(self.classes, text, place, found);
        if found.len() > first {
            let tokens = tokens(text);
            let inside = |found: &Found| {
                let after = tokens.partition_point(|token| token.start <= found.range.start);
                tokens.get(..after).and_then(<[_]>::last).is_some_and(|token| found.range.end <= token.end)
            };
            let mut number = 0;
            found.retain(|found| {
                number += 1;
                number <= first || !inside(found)
            });
        }
        Ok(())
    }
}

/// Where tokens stand that took the place of something already: `⟦secret:name#k3f9a2bq⟧`. They end with a tag of eight
/// characters, or say that something is withheld, and nothing in them is in capitals, so that hardly anything else fits between
/// such brackets.
fn tokens(text: &[u8]) -> Vec<Range<usize>> {
    const OPEN: &[u8] = "⟦".as_bytes();
    const CLOSE: &[u8] = "⟧".as_bytes();
    const LONGEST: usize = 96;
    let mut tokens = Vec::new();
    let mut here = 0;
    while let Some(step) = bytes::find(cut(text, here, text.len()), OPEN) {
        let start = here + step;
        here = start + OPEN.len();
        let inner = |byte: u8| {
            byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || matches!(byte, b':' | b'.' | b'_' | b'-' | b'#')
        };
        let end = bytes::run(text, here, LONGEST, inner);
        let said = cut(text, here, end);
        let tagged = said.len() > 9 && said.get(said.len() - 9) == Some(&b'#');
        if goes_on(text, end, CLOSE) && (tagged || said.starts_with(b"withheld:") || said == b"secret") {
            here = end + CLOSE.len();
            tokens.push(start..here);
        }
    }
    tokens
}

fn secrets(
    text: &[u8],
    place: &Place<'_>,
    found: &mut Vec<Found>,
    looked: &mut Looked,
) -> Result<(), Withheld> {
    let Some(known) = KNOWN.as_ref() else { return Err(Withheld::TooMuch) };
    looked.bytes = looked.bytes.saturating_add(text.len());
    let allowed = looked.bytes.saturating_mul(WORK_PER_BYTE).saturating_add(WORK);
    let mut scan = Scan { text, found, work: looked.work, done: 0, lines: 0, paired: 0, named: 0, stored: 0 };
    named_by_place(&mut scan, place);
    let mut four = 0;
    for (last, &byte) in text.iter().enumerate() {
        four = four << 8 | lower(byte);
        if known.may_begin(four)
            && let Some(start) = last.checked_sub(3)
        {
            scan.words(known, four, start, allowed)?;
        }
    }
    // A word of three bytes may stand at the end.
    if let Some(start) = text.len().checked_sub(3) {
        scan.words(known, four << 8, start, allowed)?;
    }
    looked.work = scan.work;
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
