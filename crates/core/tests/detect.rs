//! What the detectors find of a labelled corpus, and what they take for a secret that is none.
#![expect(clippy::indexing_slicing, reason = "a test that cannot go on may stop")]
#![expect(clippy::unwrap_used, reason = "the same")]
#![expect(clippy::print_stdout, reason = "the figures are of use when one falls")]
#![expect(clippy::string_slice, reason = "words of the corpus are ASCII")]

mod corpus;

use std::collections::BTreeMap;

use toolgate_core::scrub::detect::{Classes, CustomRules, Detector};
use toolgate_core::scrub::{Detect as _, Place};

/// How many items of each class are found, and of which kinds not all are, for some seeds.
fn measure(seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, (usize, usize)> {
    let detector = Detector::default();
    let mut classes = BTreeMap::new();
    let mut wrong: BTreeMap<(&str, &str), (usize, usize, String)> = BTreeMap::new();
    for item in seeds.clone().flat_map(corpus::items) {
        let mut found = Vec::new();
        detector.find(item.text.as_bytes(), &Place::default(), &mut found).unwrap();
        let hit = match item.secret.as_ref().map(|secret| (item.text.find(secret).unwrap(), secret.len())) {
            // What is taken out has to be nearly all of it: what is left would be a hint.
            Some((at, len)) => {
                let covered = |byte: &usize| found.iter().any(|found| found.range.contains(byte));
                (at..at + len).filter(covered).count() * 10 >= len * 9
            }
            None => !found.is_empty(),
        };
        let class: &mut (usize, usize) = classes.entry(item.class).or_default();
        class.0 += usize::from(hit);
        class.1 += 1;
        let kind = wrong.entry((item.class, item.kind)).or_default();
        kind.1 += 1;
        if hit != item.secret.is_some() {
            kind.0 += 1;
            kind.2 = item.text;
        }
    }
    println!("seeds {seeds:?}");
    for ((class, kind), (count, all, example)) in wrong.iter().filter(|(_, (count, ..))| *count > 0) {
        println!("  {class} {kind}: {count} of {all} wrong, as in {example:?}");
    }
    for (class, (hits, all)) in &classes {
        println!("  {class:<10} {:.3}  {hits} of {all}", *hits as f64 / *all as f64);
    }
    classes
}

#[test]
fn recall_and_false_alarms() {
    // The second range was never looked at while the rules were written.
    for seeds in [0..4, 1000..1004] {
        let classes = measure(seeds.clone());
        let share = |class: &str| classes[class].0 as f64 / classes[class].1 as f64;
        assert!(share("structured") >= 0.97, "structured, seeds {seeds:?}: {:.3}", share("structured"));
        assert!(share("generic") >= 0.90, "generic, seeds {seeds:?}: {:.3}", share("generic"));
        assert!(share("special") >= 0.90, "special, seeds {seeds:?}: {:.3}", share("special"));
        assert!(share("benign") <= 0.01, "false alarms, seeds {seeds:?}: {:.3}", share("benign"));
    }
}

/// What introduces a form, and what ends one too early.
const PARTS: &[&str] = &[
    "password=",
    "\"",
    "'",
    "\\",
    "\\\"",
    "://",
    "@",
    ":",
    "-----BEGIN PRIVATE KEY-----",
    "-----END",
    "curl -u ",
    "mysql -p",
    "cookie: ",
    "set-cookie: a=",
    "authorization: basic ",
    "authorization: digest ",
    "insert into a(password,b) values (",
    "kind: secret\n",
    "\ndata:\n ",
    "\"kty\"",
    "{",
    "}",
    "\"d\":\"",
    "<password>",
    "</",
    "<",
    ">",
    " is ",
    "|",
    "\n",
    " ",
    "é",
    "%3D",
    "$6$",
    ":*:",
    ":::",
    ":5432:",
    "sig=",
    "otp",
    "code is ",
    "mnemonic: ",
    "identified by ",
    "+49 ",
    "4111 1111 1111 1111",
    "GB82",
    "::",
    "2001:db8::1",
    "1.2.3.4",
    "key",
    "value",
    "KEY-",
    "sqlplus a/",
    "htpasswd -b ",
    "smbclient -U a%",
    "jdbc:oracle:thin:",
    "$ANSIBLE_VAULT;",
    "private-lines: 2",
    "[",
    "(",
    ",",
    "=",
    "“",
    "<![CDATA[",
    "a",
    "Zq7",
    "0123456789",
    "token",
    "github",
];

#[test]
fn forms_that_end_anywhere_are_looked_through() {
    let all = Detector::new(Classes::parse(["secrets", "pii"]).unwrap(), CustomRules::default());
    let mut dice = corpus::Dice::new(7);
    for text in (0..20_000).map(|_| dice.splice(PARTS)).chain(["cookie: a=".to_owned()]) {
        let mut found = Vec::new();
        all.find(text.as_bytes(), &Place { key: Some("token"), sibling: None }, &mut found).unwrap();
        let inside = |range: &std::ops::Range<usize>| range.start < range.end && range.end <= text.len();
        assert!(found.iter().all(|found| inside(&found.range)), "{text:?} {found:?}");
    }
}
