//! Known values in JSON, in streams, and in streams of events.
#![expect(clippy::string_slice, reason = "texts of tests are cut where it is known what is there")]

use std::sync::Arc;

use super::known::{Known, KnownValue};
use super::*;
use crate::json::{Document, Limits};

const VALUE: &str = "gk7_Zq4mXw2Lr9Tb6Nc1Vd8";

fn scrubber() -> Scrubber {
    let values = [
        KnownValue { id: 1, value: VALUE.as_bytes(), names: &[] },
        KnownValue { id: 2, value: b"pin07", names: &["door_code"] },
    ];
    Scrubber::new(
        vec![Arc::new(Known::new(&values).0)],
        Arc::new(|kind, bytes| match kind {
            Kind::Known(id) => format!("⟦secret:{id}⟧"),
            kind => format!("⟦{kind:?} {}⟧", bytes.len()),
        }),
    )
}

fn json(scrubber: &Scrubber, text: &str) -> String {
    let document = Document::parse(text.as_bytes(), &Limits::default()).unwrap();
    let cleaned = scrubber.scrub_json(&document).unwrap();
    Document::parse(cleaned.bytes.clone(), &Limits::default()).unwrap();
    String::from_utf8(cleaned.bytes).unwrap()
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.as_ref().chunks(3) {
        let number = (0..3).fold(0, |n, at| n << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[test]
fn json_stays_json() {
    let scrubber = scrubber();
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let units: String = VALUE.bytes().map(|b| format!("\\u{b:04x}")).collect();
    let codes: Vec<String> = VALUE.bytes().map(|b| b.to_string()).collect();
    let gone = vec!["\"\""; codes.len() - 1].join(",");
    let (head, tail) = VALUE.split_at(9);
    let inner = format!(r#"{{"b": "{VALUE}", "a": [1]}}"#);
    let clean_inner = r#"{"b": "⟦secret:1⟧", "a": [1]}"#;
    for (text, want) in [
        (
            r#" { "b" : 1.50 , "a" : [ true , "x\u0041" ] } "#.to_owned(),
            r#" { "b" : 1.50 , "a" : [ true , "x\u0041" ] } "#.to_owned(),
        ),
        (quoted(VALUE), quoted("⟦secret:1⟧")),
        (
            format!(r#"{{"z":"{VALUE}","a":"key is {VALUE}."}}"#),
            r#"{"z":"⟦secret:1⟧","a":"key is ⟦secret:1⟧."}"#.to_owned(),
        ),
        (format!(r#"["{units}"]"#), r#"["⟦secret:1⟧"]"#.to_owned()),
        (format!(r#"{{"{VALUE}":1,"x {VALUE}":2}}"#), r#"{"⟦secret:1⟧":1,"x ⟦secret:1⟧":2}"#.to_owned()),
        (
            format!(r#"{{"{VALUE}":1,"{}":2}}"#, VALUE.to_lowercase()),
            r#"{"⟦secret:1⟧":1,"⟦secret:1⟧~2":2}"#.to_owned(),
        ),
        (format!("[{}]", codes.join(",")), format!(r#"["⟦secret:1⟧",{gone}]"#)),
        (format!(r#"{{"a":"{head}","b":"{tail}","c":3}}"#), r#"{"a":"⟦secret:1⟧","b":"","c":3}"#.to_owned()),
        (
            format!(r#"[{{"t":"at {head}"}},{{"t":"{tail} end"}}]"#),
            r#"[{"t":"at ⟦secret:1⟧"},{"t":" end"}]"#.to_owned(),
        ),
        (format!(r#"{{"text":{}}}"#, quoted(&inner)), format!(r#"{{"text":{}}}"#, quoted(clean_inner))),
        (
            format!(r#"{{"text":{}}}"#, quoted(&format!(r#"{{"t":{}}}"#, quoted(&inner)))),
            format!(r#"{{"text":{}}}"#, quoted(&format!(r#"{{"t":{}}}"#, quoted(clean_inner)))),
        ),
        (
            format!(r#"{{"resource":{{"uri":"a","blob":"{}"}}}}"#, base64(format!("id,key\n7,{VALUE}\n"))),
            format!(r#"{{"resource":{{"uri":"a","blob":"{}"}}}}"#, base64("id,key\n7,⟦secret:1⟧\n")),
        ),
        (
            format!(r#"{{"note":"{}"}}"#, base64(format!("id,key\n7,{VALUE}\n"))),
            r#"{"note":"⟦secret:1⟧"}"#.to_owned(),
        ),
        (
            r#"{"door_code":"pin07","other":"pin07"}"#.to_owned(),
            r#"{"door_code":"⟦secret:2⟧","other":"pin07"}"#.to_owned(),
        ),
        (
            r#"{"name":"door_code","value":"pin07"}"#.to_owned(),
            r#"{"name":"door_code","value":"⟦secret:2⟧"}"#.to_owned(),
        ),
        (
            r#"{"name":"window","value":"pin07"}"#.to_owned(),
            r#"{"name":"window","value":"pin07"}"#.to_owned(),
        ),
    ] {
        assert_eq!(json(&scrubber, &text), want, "text: {text}");
        assert_eq!(json(&scrubber, &want), want, "twice: {want}");
    }
}

#[test]
fn a_value_that_is_a_number_becomes_a_string() {
    let (known, _) = Known::new(&[KnownValue { id: 9, value: b"9034171265", names: &[] }]);
    let scrubber = Scrubber::new(vec![Arc::new(known)], Arc::new(|kind, _| format!("{kind:?}")));
    let document = Document::parse(&b"[1, 9034171265, 90341712]"[..], &Limits::default()).unwrap();
    let cleaned = scrubber.scrub_json(&document).unwrap();
    assert_eq!(String::from_utf8(cleaned.bytes).unwrap(), r#"[1, "Known(9)", 90341712]"#);
    assert_eq!(cleaned.removed, Removed::from([(Kind::Known(9), 1)]));
}

/// A stream of these pieces.
fn streamed(scrubber: &Scrubber, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = scrubber.stream();
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(piece, &mut out).unwrap();
    }
    stream.finish(&mut out).unwrap();
    out
}

#[test]
fn cuts_of_a_stream_do_not_matter() {
    let percent: String = VALUE.bytes().map(|b| format!("%{b:02x}")).collect();
    let scrubber = scrubber();
    for encoded in [
        VALUE.to_owned(),
        percent,
        base64(VALUE),
        base64(base64(VALUE)),
        crate::hex::encode(VALUE.as_bytes()),
    ] {
        let text = format!("one line\nkey={encoded}\nthe next one\n").into_bytes();
        let whole = scrubber.scrub_text(&text).unwrap().bytes;
        assert!(
            String::from_utf8_lossy(&whole).contains("key=⟦secret:1⟧\n"),
            "{}",
            String::from_utf8_lossy(&whole)
        );
        for cut in 0..=text.len() {
            assert_eq!(streamed(&scrubber, &[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        let each: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(streamed(&scrubber, &each), whole);
    }
}

#[test]
fn long_streams_give_out_what_is_settled() {
    let filler = "nothing of interest is in this line of text\n".repeat(7000);
    let scrubber = scrubber();
    // Wherever a value lies around the end of the first block, it is found.
    for shift in (0..600).step_by(67) {
        let text = format!(
            "{}{VALUE} {}{filler}",
            &filler[..(256 << 10) - 500 + shift - VALUE.len()],
            base64(VALUE)
        );
        let mut stream = scrubber.stream();
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(4093) {
            stream.push(piece, &mut out).unwrap();
        }
        assert!(!out.is_empty() && out.len() < text.len());
        let removed = stream.finish(&mut out).unwrap();
        assert_eq!(removed, Removed::from([(Kind::Known(1), 2)]), "shift: {shift}");
        assert_eq!(out, scrubber.scrub_text(text.as_bytes()).unwrap().bytes, "shift: {shift}");
    }
}

#[test]
fn a_stream_without_a_place_to_cut_is_withheld() {
    let scrubber = scrubber();
    let mut stream = scrubber.stream();
    let mut out = Vec::new();
    let piece = "aB3d".repeat(16 << 10);
    let pushed: Result<Vec<()>, Withheld> =
        (0..80).map(|_| stream.push(piece.as_bytes(), &mut out)).collect();
    assert_eq!(pushed, Err(Withheld::Unsettled));
    assert!(out.is_empty());
}

/// Events in pieces of one length.
fn events(scrubber: &Scrubber, text: &str, length: usize) -> String {
    let mut events = scrubber.events();
    let mut out = Vec::new();
    for piece in text.as_bytes().chunks(length) {
        events.push(piece, &mut out).unwrap();
    }
    events.finish(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn events_are_cleaned_within_and_across() {
    let scrubber = scrubber();
    let (head, tail) = VALUE.split_at(11);
    let (little, rest) = VALUE.split_at(3);
    for (text, want) in [
        ("id: 1\ndata: hello\n\n: ping\n\n".to_owned(), "id: 1\ndata: hello\n\n: ping\n\n".to_owned()),
        (
            format!("event: message\ndata: {{\"k\":\"{VALUE}\"}}\nid: 4\n\n"),
            "event: message\ndata: {\"k\":\"⟦secret:1⟧\"}\nid: 4\n\n".to_owned(),
        ),
        (
            format!(": {VALUE}\nid: {VALUE}\nevent: x-{VALUE}\r\ndata: x\n\n"),
            ": ⟦secret:1⟧\nid: ⟦secret:1⟧\nevent: x-⟦secret:1⟧\r\ndata: x\n\n".to_owned(),
        ),
        (format!("data: {head}\ndata: {tail}\n\ndata: x\n\n"), "data: ⟦secret:1⟧\n\ndata: x\n\n".to_owned()),
        (format!("data:{head}\r\n\r\ndata:{tail}\r\n\r\n"), "data: ⟦secret:1⟧\n\r\ndata: \n\r\n".to_owned()),
        (
            format!("data: {{\"d\":\"see {head}\"}}\n\ndata: {{\"d\":\"{tail} end\"}}\n\n"),
            "data: {\"d\":\"see ⟦secret:1⟧\"}\n\ndata: {\"d\":\" end\"}\n\n".to_owned(),
        ),
        (format!("data: {little}\n\ndata: {rest}\n\n"), format!("data: {little}\n\ndata: \n\n")),
        (format!("data: {head}\n\ndata: other\n\n"), format!("data: {head}\n\ndata: other\n\n")),
    ] {
        for length in [1, 2, 7, 1000] {
            assert_eq!(events(&scrubber, &text, length), want, "by {length}: {text}");
        }
    }
}

#[test]
fn an_event_waits_only_if_it_ends_like_a_value() {
    let scrubber = scrubber();
    let mut events = scrubber.events();
    let mut out = Vec::new();
    events.push(b"data: hello\n\n", &mut out).unwrap();
    assert_eq!(out, b"data: hello\n\n");
    events.push(format!("data: {}\n\n", &VALUE[..9]).as_bytes(), &mut out).unwrap();
    assert_eq!(out, b"data: hello\n\n");
    events.push(b"data: else\n\n", &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!("data: hello\n\ndata: {}\n\ndata: else\n\n", &VALUE[..9])
    );
}
