//! Personal data with a structure: addresses of mail, telephone and network, cards, accounts, numbers of persons.
//!
//! Each class is found by its form and its checksum, and where these say too little, by the words that go before. Names
//! and postal addresses have no structure; what finds them is another service.

mod check;
mod ids;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::detect::bytes::{at, before, cut, has_any, run, run_back};
use super::detect::{Class, Classes};
use super::{Found, Kind, Place};

/// How far back words are looked for that say what a number is.
const WORDS_BEFORE: usize = 48;

/// Endings of names of files, which are no domains.
#[rustfmt::skip]
const FILES: &[&str] = &["png", "jpg", "jpeg", "gif", "svg", "webp", "js", "ts", "css", "json", "md", "py", "rs", "html", "scss", "mjs", "tgz", "zip", "ico", "service"];

/// Words before a telephone number.
#[rustfmt::skip]
const PHONES: &[&str] = &["phone", "tel", "mobile", "cell", "call", "fax", "whatsapp", "sms", "contact", "handy", "mobil", "numéro", "rufnummer", "móvil", "celular", "電話", "dial"];

/// Adds what is found of the given classes.
pub(super) fn find(classes: Classes, text: &[u8], place: &Place<'_>, found: &mut Vec<Found>) {
    if !Class::ALL.iter().any(|(_, class)| *class != Class::Secrets && classes.has(*class)) {
        return;
    }
    let mut seen = Seen { text, place, classes, found };
    let mut here = 0;
    let starts = |byte: &u8| matches!(byte, b'0'..=b'9' | b'@' | b':');
    while let Some(step) = text.get(here..).and_then(|rest| rest.iter().position(starts)) {
        here += step;
        here = match at(text, here) {
            b'@' => seen.mail(here),
            b':' => seen.ip6(here),
            _ => seen.number(here),
        };
    }
}

struct Seen<'a> {
    text: &'a [u8],
    place: &'a Place<'a>,
    classes: Classes,
    found: &'a mut Vec<Found>,
}

impl Seen<'_> {
    fn push(&mut self, range: Range<usize>, kind: &'static str) -> usize {
        let end = range.end;
        self.found.push(Found { range, kind: Kind::Detected(kind) });
        end
    }

    /// Whether one of these words stands before a place in its line, or is the name of the value.
    fn said(&self, start: usize, words: &[&str]) -> bool {
        let line = run_back(self.text, start, WORDS_BEFORE, |byte| !matches!(byte, b'\n' | b'\r'));
        let name = |name: Option<&str>| name.is_some_and(|name| has_any(name.as_bytes(), words));
        has_any(cut(self.text, line, start), words) || name(self.place.key) || name(self.place.sibling)
    }

    fn mail(&mut self, sign: usize) -> usize {
        let text = self.text;
        let next = sign + 1;
        if !self.classes.has(Class::Email) {
            return next;
        }
        let in_user = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-' | 128..)
        };
        let start = run_back(text, sign, 64, in_user);
        let start = run(text, start, sign - start, |byte| matches!(byte, b'.' | b'-' | b'%' | b'+'));
        let end =
            run(text, next, 253, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | 128..));
        let end = run_back(text, end, 8, |byte| matches!(byte, b'.' | b'-')).max(next);
        let domain = cut(text, next, end);
        let Some(dot) = domain.iter().rposition(|&byte| byte == b'.') else { return next };
        let top = cut(domain, dot + 1, domain.len());
        let real = (2..=24).contains(&top.len())
            && top.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 128)
            && !FILES.iter().any(|file| top.eq_ignore_ascii_case(file.as_bytes()));
        // `git@host:path` and the user of an address are nobody's mail.
        let login = (cut(text, start, sign) == b"git" && matches!(at(text, end), b':' | b'/'))
            || cut(text, start.saturating_sub(3), start) == b"://"
            || (before(text, start) == b':' && matches!(at(text, end), b'/' | b':'));
        if start < sign && real && !login && dot > 0 && !domain.windows(2).any(|pair| pair == b"..") {
            return self.push(start..end, "pii.email");
        }
        next
    }

    fn ip6(&mut self, colon: usize) -> usize {
        let text = self.text;
        let start = run_back(text, colon, 4, |byte| byte.is_ascii_hexdigit());
        let end = run(text, start, 40, |byte| byte.is_ascii_hexdigit() || byte == b':');
        let alone = !before(text, start).is_ascii_alphanumeric() && !at(text, end).is_ascii_alphanumeric();
        if !self.classes.has(Class::Ip) || end - start < 6 || !alone {
            return colon + 1;
        }
        let written = std::str::from_utf8(cut(text, start, end)).unwrap_or_default();
        match written.parse::<Ipv6Addr>() {
            // Those that are routed everywhere: 2000::/3.
            Ok(address) if address.segments().first().is_some_and(|first| first >> 13 == 1) => {
                self.push(start..end, "pii.ip")
            }
            _ => end.max(colon + 1),
        }
    }

    /// Whatever has a digit here: returns where to look on.
    fn number(&mut self, digit: usize) -> usize {
        let text = self.text;
        let start = run_back(text, digit, 24, |byte| byte.is_ascii_alphanumeric());
        let token = run(text, digit, 64, |byte| byte.is_ascii_alphanumeric());
        if before(text, start).is_ascii_alphanumeric() || token - start > 40 {
            // Part of something long: a digest, encoded data.
            return run(text, token, usize::MAX, |byte| byte.is_ascii_alphanumeric());
        }
        let classes = self.classes;
        if classes.has(Class::Ip)
            && let Some(end) = self.ip4(start)
        {
            return self.push(start..end, "pii.ip");
        }
        if classes.has(Class::Iban)
            && let Some(end) = check::iban(text, start)
        {
            return self.push(start..end, "pii.iban");
        }
        if classes.has(Class::Card)
            && let Some(end) = card(text, start)
        {
            return self.push(start..end, "pii.card");
        }
        if classes.has(Class::Id)
            && let Some((end, kind)) = self.id(start, token - start)
        {
            return self.push(start..end, kind);
        }
        if classes.has(Class::Phone)
            && let Some((from, end)) = self.phone(start)
        {
            return self.push(from..end, "pii.phone");
        }
        token.max(digit + 1)
    }

    fn ip4(&self, start: usize) -> Option<usize> {
        let text = self.text;
        let end = run(text, start, 16, |byte| byte.is_ascii_digit() || byte == b'.');
        let written = std::str::from_utf8(cut(text, start, end)).ok()?.trim_end_matches('.');
        let end = start + written.len();
        let address: Ipv4Addr = written.parse().ok()?;
        let [one, two, ..] = address.octets();
        let shared = one == 0 || one >= 224 || (one == 100 && two & 0xc0 == 64);
        let ours = address.is_private() || address.is_loopback() || address.is_link_local() || shared;
        let alone = !matches!(before(text, start), b'.' | b'-' | b'_')
            && !at(text, end).is_ascii_alphanumeric()
            && !matches!(at(text, end), b'-' | b'_');
        // Versions have small numbers, and often say so.
        let small = address.octets().iter().filter(|&&part| part < 30).count() >= 3;
        let version = || self.said(start, &["version", "ver ", " v", "release", "build", "\"v"]);
        let named =
            || self.said(start, &["ip", "addr", "host", "client", "remote", "peer", "from", "dns", "ping"]);
        (!ours && alone && (!small || named()) && !version()).then_some(end)
    }

    fn id(&self, start: usize, head: usize) -> Option<(usize, &'static str)> {
        for (id, mask) in ids::beginning_with(head) {
            let Some(end) = ids::masked(self.text, start, mask) else { continue };
            let joins = |byte: u8| matches!(byte, b'-' | b'.' | b'_' | b'/');
            let goes_on = joins(at(self.text, end)) && at(self.text, end + 1).is_ascii_alphanumeric();
            if joins(before(self.text, start)) || goes_on {
                continue;
            }
            let value: Vec<u8> =
                cut(self.text, start, end).iter().copied().filter(u8::is_ascii_alphanumeric).collect();
            let plain = head == mask.len();
            let asks = match id.needs {
                ids::Needs::Words => true,
                ids::Needs::WordsIfPlain => plain,
                ids::Needs::Nothing => false,
            };
            if (id.check)(&value) && (!asks || self.said(start, id.words)) {
                return Some((end, id.kind));
            }
        }
        None
    }

    fn phone(&self, start: usize) -> Option<(usize, usize)> {
        let text = self.text;
        let open = usize::from(before(text, start) == b'(');
        let plus = before(text, start - open) == b'+';
        let from = start - open - usize::from(plus);
        let last = before(text, from);
        if last.is_ascii_alphanumeric() || matches!(last, b'.' | b'-' | b'_' | b'/' | b'#' | b'$') {
            return None;
        }
        let (mut digits, mut groups, mut end) = (0_usize, 1, start);
        for place in start..start + 28 {
            match at(text, place) {
                b'0'..=b'9' => {
                    digits += 1;
                    end = place + 1;
                }
                b' ' | b'-' | b'.' | b'(' | b')' | b'/' if place <= end + 1 => {
                    groups += usize::from(place == end)
                }
                _ => break,
            }
        }
        let goes_on = at(text, end).is_ascii_alphanumeric()
            || (matches!(at(text, end), b'.' | b'-' | b':' | b',') && at(text, end + 1).is_ascii_digit());
        let number = cut(text, start, end);
        let varied = number.iter().any(|byte| byte.is_ascii_digit() && Some(byte) != number.first());
        if goes_on || !varied {
            return None;
        }
        let american = open == 1
            && at(text, start + 3) == b')'
            && digits == 10
            && matches!(at(text, start), b'2'..=b'9');
        let enough = match plus {
            true => (8..=15).contains(&digits) && at(text, start) != b'0' && (groups > 1 || digits >= 10),
            false if american => true,
            false => {
                (7..=13).contains(&digits)
                    && groups <= 6
                    && self.said(from, PHONES)
                    && !self.said(from, &["http", "version", "count", "bytes"])
            }
        };
        enough.then_some((from, end))
    }
}

fn card(text: &[u8], start: usize) -> Option<usize> {
    matches!(at(text, start), b'2'..=b'6').then_some(())?;
    let (digits, end, groups) = check::digits(text, start, b" -", 19)?;
    let joins = |byte: u8| matches!(byte, b'.' | b'_' | b'-');
    let goes_on =
        at(text, end).is_ascii_alphanumeric() || (joins(at(text, end)) && at(text, end + 1).is_ascii_digit());
    let alone = !joins(before(text, start)) && !matches!(before(text, start), b'+' | b'/' | b'#') && !goes_on;
    let regular = matches!(
        groups.as_slice(),
        [] | [4, 4, 4, 4] | [4, 4, 4, 4, 3] | [4, 6, 5] | [4, 6, 4] | [4, 4, 4, 1]
    );
    (alone && regular && check::card(&digits)).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::string_slice, reason = "places of ASCII")]
    fn what_is_personal_and_what_is_not() {
        let all = Classes::parse(["pii"]).unwrap();
        for (text, want) in [
            ("write to ada.l+x@mail.example.org.", Some(("pii.email", "ada.l+x@mail.example.org"))),
            ("git clone git@code.example:a/b.git", None),
            ("logo@2x.png", None),
            ("card 4111 1111 1111 1111, thanks", Some(("pii.card", "4111 1111 1111 1111"))),
            ("card 4111 1111 1111 1112", None),
            ("id 4111111111111111222", None),
            ("pay to GB82 WEST 1234 5698 7654 32", Some(("pii.iban", "GB82 WEST 1234 5698 7654 32"))),
            ("pay to GB83 WEST 1234 5698 7654 32", None),
            ("call +49 30 901820 now", Some(("pii.phone", "+49 30 901820"))),
            ("tel: 030-9018200", Some(("pii.phone", "030-9018200"))),
            ("(212) 555-0187", Some(("pii.phone", "(212) 555-0187"))),
            ("took 0309018200 ns", None),
            ("@@ -12,7 +12,9 @@", None),
            ("from 93.184.216.34", Some(("pii.ip", "93.184.216.34"))),
            ("from 192.168.1.7", None),
            ("version 93.184.216.34", None),
            ("at 2a00:1450:4001:80b::200e", Some(("pii.ip", "2a00:1450:4001:80b::200e"))),
            ("std::fmt::a at 12:30:45", None),
            ("SSN 536-90-4399", Some(("pii.id.us-ssn", "536-90-4399"))),
            ("order 536904399", None),
            ("codice RSSMRA85T10A562S", Some(("pii.id.it-fiscal", "RSSMRA85T10A562S"))),
            ("5f0c8d4111111111111111a9", None),
        ] {
            let mut found = Vec::new();
            find(all, text.as_bytes(), &Place::default(), &mut found);
            let got: Vec<_> = found.iter().map(|found| (found.kind, &text[found.range.clone()])).collect();
            let want: Vec<_> = want.iter().map(|(kind, value)| (Kind::Detected(kind), *value)).collect();
            assert_eq!(got, want, "{text}");
        }
        let mut found = Vec::new();
        find(Classes::default(), b"4111 1111 1111 1111", &Place::default(), &mut found);
        assert!(found.is_empty(), "classes that were not asked for are not looked for");
    }
}
