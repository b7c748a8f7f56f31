//! What is found, what is not, and what must stay.
#![expect(clippy::string_slice, reason = "texts of tests are cut where it is known what is there")]

mod encodings;

use std::collections::BTreeMap;

use super::*;
use encodings::{Class, b64, encodings, hex};

/// Ten values as they are in use. None is anybody's: they are put together here.
pub(super) fn secrets() -> Vec<String> {
    let body = |n: usize| -> String {
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut state = 0x1234_5678_9abc_def0_u64 + n as u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(letters[(state >> 33) as usize % letters.len()])
        };
        (0..n).map(|_| next()).collect()
    };
    vec![
        format!("{}_{}", "ghp", body(36)),
        format!("{}-{}-{}", "sk", "proj", body(48)),
        format!("{}{}", "AKIA", body(16).to_uppercase()),
        format!("{}/{}+{}", body(12), body(13), body(13)),
        "Tr0ub4dor&3!x-%41z".to_owned(),
        "correct horse battery staple 7".to_owned(),
        format!("{}.{}.{}", "eyJhbGciOiJIUzI1NiJ9", b64("{\"sub\":\"4711\",\"n\":1}"), body(43)),
        format!("postgres://app:{}@db.internal:5432/orders", body(14)),
        hex(body(16)),
        "pässwörd-ключ-42!".to_owned(),
    ]
}

fn known(values: &[String]) -> Known {
    let values: Vec<KnownValue<'_>> = values
        .iter()
        .zip(0..)
        .map(|(value, id)| KnownValue { id, value: value.as_bytes(), names: &[] })
        .collect();
    Known::new(&values).0
}

fn clean(known: &Known, text: &[u8]) -> Result<Vec<u8>, Withheld> {
    let mut found = Vec::new();
    known.find(text, &Place::default(), &mut found)?;
    found.sort_by_key(|found| found.range.start);
    let mut out = Vec::new();
    let mut at = 0;
    for Found { range, .. } in found {
        assert!(range.start <= range.end && range.end <= text.len(), "{range:?} of {}", text.len());
        if range.start >= at {
            out.extend_from_slice(&text[at..range.start]);
            out.extend_from_slice("⟦gone⟧".as_bytes());
        }
        at = at.max(range.end);
    }
    out.extend_from_slice(&text[at..]);
    Ok(out)
}

/// How much of the encoded value is still there: the longest part of it that is in the text and does not stand in what
/// another value becomes.
fn left(text: &[u8], encoded: &[u8], other: &[u8]) -> usize {
    let is_in = |text: &[u8], part: &[u8]| memchr::memmem::find(text, part).is_some();
    let mut best = 0;
    for from in 0..encoded.len() {
        let mut to = from + best + 1;
        while to <= encoded.len() && is_in(text, &encoded[from..to]) {
            if !is_in(other, &encoded[from..to]) {
                best = to - from;
            }
            to += 1;
        }
    }
    best
}

/// Another value that is made of the same kinds of characters.
fn other(value: &str) -> String {
    // No letter stands for itself, and no alphabet is merely turned.
    let turned = |first: char, count: u32, c: char, by: u32, step: u32| {
        char::from_u32(first as u32 + ((c as u32 - first as u32) * by + step) % count).unwrap()
    };
    let shift = |c: char| match c {
        'a'..='z' => turned('a', 26, c, 5, 7),
        'A'..='Z' => turned('A', 26, c, 5, 7),
        '0'..='9' => turned('0', 10, c, 3, 1),
        'а'..='я' => turned('а', 32, c, 5, 3),
        c => c,
    };
    value.chars().map(shift).collect()
}

type Carrier = fn(&[u8]) -> Vec<u8>;

fn carriers() -> [(&'static str, Carrier); 4] {
    [
        ("alone", |t| t.to_vec()),
        ("sentence", |t| [b"The answer to it is ".as_slice(), t, b" as far as one can see."].concat()),
        ("assignment", |t| [b"# settings\nhost = a.example\nkey=".as_slice(), t, b"\nport = 12\n"].concat()),
        ("log", |t| {
            [
                b"2024-05-01 10:20:30 INFO start\n2024-05-01 10:20:31 DEBUG got '".as_slice(),
                t,
                b"' from upstream\n",
            ]
            .concat()
        }),
    ]
}

/// How many of each class are found, and what is missed. In four texts each; without optimisation, in one of them in turn.
fn recall(values: &[String]) -> (BTreeMap<Class, (usize, usize)>, Vec<String>) {
    let known = known(values);
    let mut counts: BTreeMap<Class, (usize, usize)> = BTreeMap::new();
    let mut missed = Vec::new();
    for (number, encoding) in encodings().into_iter().enumerate() {
        for (at, value) in values.iter().enumerate() {
            let encoded = (encoding.encode)(value);
            let other = (encoding.encode)(&other(value));
            let (first, count) = if cfg!(debug_assertions) { ((number + at) % 4, 1) } else { (0, 4) };
            for (name, carrier) in carriers().into_iter().skip(first).take(count) {
                let cleaned = clean(&known, &carrier(&encoded)).unwrap();
                let left = left(&cleaned, &encoded, &other);
                let count = counts.entry(encoding.class).or_default();
                count.1 += 1;
                // Less than a third of it is left, or nothing to speak of.
                if left * 3 <= encoded.len() || left < 8 {
                    count.0 += 1;
                } else {
                    missed.push(format!("{:?}: {} of value {at}, {name}", encoding.class, encoding.name));
                }
            }
        }
    }
    (counts, missed)
}

#[test]
fn values_are_found_however_they_are_written() {
    let (counts, missed) = recall(&secrets());
    for (class, (found, all)) in &counts {
        println!("{class:?}: {found} of {all}, {:.4}", *found as f64 / *all as f64);
    }
    let share = |class| counts[&class].0 as f64 / counts[&class].1 as f64;
    assert!(encodings().len() >= 120, "{} encodings", encodings().len());
    assert_eq!(share(Class::Must), 1.0, "{missed:#?}");
    assert!(share(Class::Should) >= 0.98, "{missed:#?}");
    assert!(share(Class::Stretch) >= 0.5, "{missed:#?}");
}

#[test]
fn what_only_looks_like_a_value_stays() {
    let known = known(&secrets());
    let secrets = secrets();
    let mut texts: Vec<Vec<u8>> = vec![
        b"550e8400-e29b-41d4-a716-446655440000 9b2d5b9c-3f0e-4c0a-8f6b-0d3c8f4f9b1a".to_vec(),
        b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_vec(),
        b"da39a3ee5e6b4b0d3255bfef95601890afd80709 d41d8cd98f00b204e9800998ecf8427e".to_vec(),
        b"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
            .to_vec(),
        b"!function(e,t){\"use strict\";var n=e.length,r=[];for(;n--;)r.push(t(e[n]));return r}(a,b);"
            .to_vec(),
        b"correct horses have a battery, a staple and 7 stables".to_vec(),
        b"postgres://app@db.internal:5432/orders and postgres://app:secret@db.internal:5432/orders".to_vec(),
        b"the troubadour sang at 3, x-ray z".to_vec(),
        format!("{}_{}", "ghp", "0123456789abcdefghijABCDEFGHIJ012345").into_bytes(),
        format!("eyJhbGciOiJIUzI1NiJ9.{}.{}", b64("{\"sub\":\"1\",\"n\":2}"), "A".repeat(43)).into_bytes(),
        b64("a quite ordinary text which says nothing that anybody would mind").into_bytes(),
        b64(encodings::gzip("a quite ordinary text")).into_bytes(),
        hex("an ordinary text again").into_bytes(),
        "Пароль не показан, 密码不显示, ｆｕｌｌ width".as_bytes().to_vec(),
        (0..=255).collect(),
        b"0000000 6867 5f70 4142 4344\n0000008 1: text\n".to_vec(),
        b"[103, 104, 112, 95, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]".to_vec(),
    ];
    // What a hash, a shorter piece, or another value of the same make looks like.
    for secret in &secrets {
        let chars: Vec<char> = secret.chars().collect();
        texts.push(chars.iter().take(5).collect::<String>().into_bytes());
        texts.push(chars.iter().rev().take(4).collect::<String>().into_bytes());
        let other = other(secret);
        if other != *secret {
            texts.push(other.clone().into_bytes());
            texts.push(b64(&other).into_bytes());
            texts.push(hex(&other).into_bytes());
            texts.push(format!("token={other}&x={}", b64(hex(&other))).into_bytes());
        }
    }
    for text in texts {
        for (name, carrier) in carriers() {
            let text = carrier(&text);
            assert_eq!(clean(&known, &text).unwrap(), text, "{name}: {}", String::from_utf8_lossy(&text));
        }
    }
}

/// What is left of a text if one value is known.
fn with_value(value: &[u8], names: &[&str], text: &[u8]) -> String {
    let (known, _) = Known::new(&[KnownValue { id: 1, value, names }]);
    String::from_utf8_lossy(&clean(&known, text).unwrap()).into_owned()
}

#[test]
fn odd_values_are_found_as_others_are() {
    for value in [
        "with\nline\r\nbreaks in 4 lines".as_bytes(),
        b"nul\0inside\0it7",
        b"quo\"ted'and\\slash9",
        b"has%41percent%2527",
        b"has&amp;entity&#65;9",
        b"has\\u0041escape\\n9",
        "ключ-от-квартиры-7".as_bytes(),
        "密码是很长的一个词语".as_bytes(),
        b"#$%&/()=?!+*~-_.:,;<>",
        b"p@$$-w0rd",
        b"\xff\xfe\x80binary\x01\x02\x03value",
        b"12345678",
        b"aaaaaaaaaaaa",
    ] {
        for (name, carrier) in carriers() {
            for encoded in [value.to_vec(), b64(value).into_bytes(), hex(value).into_bytes()] {
                let shown = with_value(value, &[], &carrier(&encoded));
                assert!(shown.contains("gone"), "{name} {:?}: {shown}", String::from_utf8_lossy(value));
            }
        }
        let other = with_value(value, &[], b"nothing of it is here, 1234567 #$%& aaaaaa");
        assert!(!other.contains("gone"), "{:?}: {other}", String::from_utf8_lossy(value));
    }
}

#[test]
fn values_that_are_words_or_short_are_said_to_be() {
    let concern = |value: &[u8], names: &[&str]| Known::new(&[KnownValue { id: 3, value, names }]).1;
    for (value, names, want) in [
        ("long-enough-1", &[][..], None),
        ("production", &[], Some(Concern::Word)),
        ("abc12", &[], Some(Concern::NotRemoved)),
        ("", &["name"], Some(Concern::NotRemoved)),
        ("a", &["x"], Some(Concern::NotRemoved)),
        ("abc12", &["DB_PASS"], Some(Concern::OnlyBesideItsName)),
        ("  a b  c ", &["DB_PASS"], Some(Concern::OnlyBesideItsName)),
    ] {
        let want: Vec<_> = want.map(|concern| (3, concern)).into_iter().collect();
        assert_eq!(concern(value.as_bytes(), names), want, "value: {value:?}");
    }
}

#[test]
fn short_values_go_beside_their_names_only() {
    let names = ["DB_PASS", "db.example"];
    for (text, want) in [
        ("DB_PASS=abc12", "DB_PASS=⟦gone⟧"),
        ("{\"db_pass\": \"abc12\"}", "{\"db_pass\": \"⟦gone⟧\"}"),
        ("db-pass: abc12\n", "db-pass: ⟦gone⟧\n"),
        ("https://u:abc12@db.example/", "https://u:⟦gone⟧@db.example/"),
        ("abc12", "abc12"),
        ("DB_PASS is not abc12", "DB_PASS is not abc12"),
        ("DB_PASS=abc123", "DB_PASS=abc123"),
    ] {
        assert_eq!(with_value(b"abc12", &names, text.as_bytes()), want, "text: {text:?}");
    }
}

#[test]
fn a_word_goes_as_a_word_only() {
    for (text, want) in [
        ("in production.", "in ⟦gone⟧."),
        ("PRODUCTION", "⟦gone⟧"),
        ("reproductions and production1", "reproductions and production1"),
        ("pass%20production%20on", "pass%20⟦gone⟧%20on"),
    ] {
        assert_eq!(with_value(b"production", &[], text.as_bytes()), want, "text: {text:?}");
    }
}

#[test]
fn a_key_in_lines_is_found_in_parts_and_with_other_line_ends() {
    let body =
        (0..12).map(|n| b64(format!("{n}{}", "k3Y-b0dy".repeat(6)))[..64].to_owned()).collect::<Vec<_>>();
    let frame = |what: &str| format!("-----{what} {} KEY-----", "PRIVATE");
    let key = format!("{}\n{}\n{}\n", frame("BEGIN"), body.join("\n"), frame("END"));
    let (known, concerns) = Known::new(&[KnownValue { id: 1, value: key.as_bytes(), names: &[] }]);
    assert!(concerns.is_empty());
    for text in [
        key.clone(),
        key.replace('\n', "\r\n"),
        key.replace('\n', "\\n"),
        key.replace('\n', " "),
        key.replace('\n', ""),
        body[5].clone(),
        body[3..9].join("\n  "),
        b64(&key),
        hex(&key),
        b64(encodings::gzip(&key)),
        serde_json::to_string(&key).unwrap(),
    ] {
        let cleaned = String::from_utf8(clean(&known, text.as_bytes()).unwrap()).unwrap();
        assert!(cleaned.contains("gone") && !cleaned.contains(&body[5][..20]), "{text}\n{cleaned}");
    }
    let frames = format!("{} {}", frame("BEGIN"), frame("END"));
    assert_eq!(clean(&known, frames.as_bytes()).unwrap(), frames.as_bytes());
}

#[test]
fn what_cannot_be_looked_into_is_taken_out_and_said_so() {
    let known = known(&secrets());
    let find = |text: &[u8]| {
        let mut found = Vec::new();
        known.find(text, &Place::default(), &mut found).map(|()| found.first().map(|found| found.kind))
    };
    let bomb = encodings::gzip(vec![0_u8; UNPACKED + 1]);
    assert_eq!(find(&bomb), Ok(Some(Kind::Opaque("too-large"))));
    assert_eq!(find(b64(&bomb).as_bytes()), Ok(Some(Kind::Opaque("too-large"))));
    assert_eq!(find(&encodings::gzip(vec![0_u8; UNPACKED - 1])), Ok(None));
    let zstd = [b"\x28\xb5\x2f\xfd".as_slice(), &[7; 40]].concat();
    assert_eq!(find(b64(&zstd).as_bytes()), Ok(Some(Kind::Opaque("zstd"))));
    let deep = "%2525".repeat(3) + &"&#37;&#50;".repeat(3);
    assert_eq!(find(deep.as_bytes()), Ok(None));
}

#[test]
fn much_work_is_refused_and_not_done() {
    let (known, _) = Known::new(&[KnownValue { id: 1, value: &b"ab".repeat(70), names: &[] }]);
    let mut found = Vec::new();
    let text = b"ab".repeat(1 << 15);
    assert_eq!(known.find(&text, &Place::default(), &mut found), Err(Withheld::TooMuch));
}

#[test]
fn escapes_that_are_cut_off_are_no_trouble() {
    let known = known(&secrets());
    for text in [
        "\x1b]0;x\x1b",
        "\x1b(",
        "\x1b[3",
        "^[[",
        "%2",
        "\\u00",
        "\\x{4",
        "&#",
        "=?a?B",
        "=4",
        "<b",
        "<!--",
        "\x08",
    ] {
        assert_eq!(clean(&known, text.as_bytes()).unwrap(), text.as_bytes(), "text: {text:?}");
    }
}

#[test]
fn nothing_of_a_value_is_shown() {
    let (known, _) = Known::new(&[KnownValue { id: 1, value: b"not-to-be-shown-1", names: &[] }]);
    let shown = format!("{known:?} {:?}", KnownValue { id: 1, value: b"not-to-be-shown-1", names: &[] });
    assert!(shown.starts_with("Known(") && !shown.contains("shown"), "{shown}");
}
