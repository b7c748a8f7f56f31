//! The strict parser, the canonical form and the edits, from outside.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[path = "common/same.rs"]
mod same;

use std::collections::BTreeMap;

use proptest::prelude::*;
use toolgate_core::json::{Canonical, Document, Edit, JsonErrorKind, Limits, ObjectWriter, quote};

use same::same;

fn parse(text: impl Into<Vec<u8>>) -> Document {
    Document::parse(text, &Limits::default()).unwrap()
}

fn error(text: impl Into<Vec<u8>>) -> String {
    Document::parse(text, &Limits::default()).unwrap_err().to_string()
}

fn canonical(text: &str) -> Result<String, String> {
    let document = Document::parse(text, &Limits::default()).map_err(|e| e.to_string())?;
    document.root().canonical().map(|c| c.as_str().to_owned()).map_err(|e| e.to_string())
}

#[test]
fn what_is_not_strict_json_is_refused_with_place_and_remedy() {
    for (input, want) in [
        ("", "the text ends where a value should be, at byte 0 (line 1, column 1)"),
        ("  \n ", "the text ends where a value should be, at byte 4 (line 2, column 2)"),
        (
            r#"{"a":1,"a":2}"#,
            "the name `a` occurs twice in one object; each name may occur once, at byte 7 (line 1, column 8)",
        ),
        (
            r#"{"a":1,"\u0061":2}"#,
            "the name `a` occurs twice in one object; each name may occur once, at byte 7 (line 1, column 8)",
        ),
        (
            "{\"\u{200b}\":1,\n \"\\u200b\":2}",
            "the name `\\u{200b}` occurs twice in one object; each name may occur once, at byte 11 (line 2, column 2)",
        ),
        (
            "\u{feff}{}",
            "the document starts with a byte order mark; leave it out, at byte 0 (line 1, column 1)",
        ),
        (
            r#""\ud800""#,
            "`\\ud800` is half of a surrogate pair; write both halves, the high one first, at byte 1 (line 1, column 2)",
        ),
        (
            r#""\ud800\ud800""#,
            "`\\ud800` is half of a surrogate pair; write both halves, the high one first, at byte 1 (line 1, column 2)",
        ),
        (
            r#""é\udc00""#,
            "`\\udc00` is half of a surrogate pair; write both halves, the high one first, at byte 3 (line 1, column 3)",
        ),
        ("\"a\nb\"", "control character in a string; write it as `\\u000a`, at byte 2 (line 1, column 3)"),
        (
            "\"12345678\u{1f}\"",
            "control character in a string; write it as `\\u001f`, at byte 9 (line 1, column 10)",
        ),
        ("01", "wrong number: leave out the leading zero, at byte 1 (line 1, column 2)"),
        ("-", "wrong number: a digit belongs after the `-`, at byte 1 (line 1, column 2)"),
        ("-x", "wrong number: a digit belongs after the `-`, at byte 1 (line 1, column 2)"),
        ("+1", "wrong number: leave out the `+`, at byte 0 (line 1, column 1)"),
        (".5", "wrong number: a digit belongs before the `.`, at byte 0 (line 1, column 1)"),
        ("1.", "wrong number: a digit belongs after the `.`, at byte 2 (line 1, column 3)"),
        ("1e", "wrong number: a digit belongs into the exponent, at byte 2 (line 1, column 3)"),
        ("1e+", "wrong number: a digit belongs into the exponent, at byte 3 (line 1, column 4)"),
        ("NaN", "found `N` where a value should be, at byte 0 (line 1, column 1)"),
        ("-Infinity", "wrong number: a digit belongs after the `-`, at byte 1 (line 1, column 2)"),
        ("nul", "found `n` where `true`, `false` or `null` should be, at byte 0 (line 1, column 1)"),
        ("'a'", "found `'` where a value should be, at byte 0 (line 1, column 1)"),
        ("[1,]", "found `]` where a value should be, at byte 3 (line 1, column 4)"),
        ("[1 2]", "found `2` where `,` or `]` should be, at byte 3 (line 1, column 4)"),
        ("[1", "the text ends where `,` or `]` should be, at byte 2 (line 1, column 3)"),
        ("[1}", "found `}` where `,` or `]` should be, at byte 2 (line 1, column 3)"),
        ("{\"a\":1,}", "found `}` where a name in double quotes should be, at byte 7 (line 1, column 8)"),
        ("{a:1}", "found `a` where a name in double quotes or `}` should be, at byte 1 (line 1, column 2)"),
        ("{\"a\" 1}", "found `1` where `:` should be, at byte 5 (line 1, column 6)"),
        ("{\"a\":1]", "found `]` where `,` or `}` should be, at byte 6 (line 1, column 7)"),
        ("\"abc", "the text ends where `\"` should be, at byte 4 (line 1, column 5)"),
        ("\"abc\\\"", "the text ends where `\"` should be, at byte 6 (line 1, column 7)"),
        (
            "{} {}",
            "something follows the document; send one value and nothing after it, at byte 3 (line 1, column 4)",
        ),
        (
            "1 // no",
            "something follows the document; send one value and nothing after it, at byte 2 (line 1, column 3)",
        ),
        ("\u{b}1", "found `\\u{b}` where a value should be, at byte 0 (line 1, column 1)"),
        ("\u{a0}1", "found `\\u{a0}` where a value should be, at byte 0 (line 1, column 1)"),
        ("\0", "found `\\u{0}` where a value should be, at byte 0 (line 1, column 1)"),
    ] {
        assert_eq!(error(input), want, "input: {input:?}");
    }
    for input in [r#""\x41""#, r#""\u12""#, r#""\u12g4""#, r#""\u+123""#, r#""\"#, r#""\u"#] {
        assert!(
            matches!(Document::parse(input, &Limits::default()).unwrap_err().kind, JsonErrorKind::Escape),
            "input: {input:?}"
        );
    }
    for (input, offset) in [
        (&b"\"\xff\""[..], 1),
        (b"\"\xc0\xaf\"", 1),
        (b"\"ab\xed\xa0\x80\"", 3),
        (b"\"\xf4\x90\x80\x80\"", 1),
        (b"\"\xe2\x82", 1),
    ] {
        let error = Document::parse(input, &Limits::default()).unwrap_err();
        assert_eq!((error.kind, error.offset), (JsonErrorKind::NotUtf8, offset), "input: {input:?}");
    }
}

#[test]
fn what_is_strict_json_is_taken() {
    for input in [
        "null",
        " true\r\n",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "0",
        "-0",
        "-1.5E+10",
        "1e400",
        "\"\"",
        "\"\u{7f}\u{2028}\"",
        r#""\ud83d\ude00\/\b\f\n\r\t\"\\""#,
        r#"{"":{"":[{}]}}"#,
        "[[[]],[[]]]",
    ] {
        let document = parse(input);
        assert_eq!(document.bytes(), input.as_bytes(), "input: {input:?}");
        assert_eq!(document.root().raw_str(), input.trim(), "input: {input:?}");
    }
    assert_eq!(parse(r#""\ud83d\ude00\/\u0000x""#).root().as_str(), Some("😀/\0x"));
}

#[test]
fn limits_hold_and_say_so() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    parse(nested(64));
    assert_eq!(error(nested(65)), "nested deeper than 64 levels; flatten it, at byte 64 (line 1, column 65)");
    assert_eq!(
        error(nested(10_000)),
        "nested deeper than 64 levels; flatten it, at byte 64 (line 1, column 65)"
    );
    assert_eq!(
        error("{\"a\":".repeat(10_000)),
        "nested deeper than 64 levels; flatten it, at byte 320 (line 1, column 321)"
    );
    let endless = Limits { max_depth: usize::MAX, ..Limits::default() };
    assert!(Document::parse(nested(Limits::DEEPEST), &endless).is_ok());
    assert!(Document::parse(nested(Limits::DEEPEST + 1), &endless).is_err());

    let small = Limits { max_bytes: 8, max_nodes: 3, ..Limits::default() };
    assert!(Document::parse("[1,2]   ", &small).is_ok());
    assert_eq!(
        Document::parse("[1,2]    ", &small).unwrap_err().to_string(),
        "9 bytes; at most 8 are taken, at byte 0 (line 1, column 1)"
    );
    assert_eq!(
        Document::parse("[1,2,3]", &small).unwrap_err().to_string(),
        "more than 3 values; send fewer, at byte 5 (line 1, column 6)"
    );
    // Names count too.
    assert!(Document::parse("{\"a\":1}", &small).is_ok());
    assert!(Document::parse("{\"\":{}}", &Limits { max_nodes: 2, ..small }).is_err());
}

#[test]
fn duplicates_are_found_in_large_objects_too() {
    for count in [2, 11, 12, 13, 14, 50, 5_000] {
        let members: Vec<_> = (0..count).map(|at| format!("\"k{at}\":{{\"k0\":{at}}}")).collect();
        parse(format!("{{{}}}", members.join(",")));
        for twice in [0, count / 2, count - 1] {
            let text = format!("{{{},\"\\u006b{twice}\":0}}", members.join(","));
            let kind = Document::parse(text, &Limits::default()).unwrap_err().kind;
            assert_eq!(kind, JsonErrorKind::DuplicateName(format!("k{twice}")), "{count} members");
        }
    }
}

#[test]
fn values_are_found_and_read() {
    let document = parse(
        r#" { "method": "tools/call", "params": { "name": "a\u002fb", "n": [1, 2.5, -3e2] }, "é": null } "#,
    );
    let root = document.root();
    assert_eq!(root.path(&["params", "name"]).unwrap().as_str(), Some("a/b"));
    assert_eq!(root.path(&["params", "name"]).unwrap().raw_str(), r#""a\u002fb""#);
    assert_eq!(root.path(&[]).unwrap().raw(), root.raw());
    assert!(root.path(&["params", "absent"]).is_none());
    assert!(root.path(&["method", "name"]).is_none());
    assert!(root.get("é").unwrap().is_null());
    let numbers = root.path(&["params", "n"]).unwrap();
    assert_eq!(numbers.elements().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>(), [1.0, 2.5, -300.0]);
    assert_eq!(numbers.elements().map(|n| n.as_i64()).collect::<Vec<_>>(), [Some(1), None, Some(-300)]);
    assert_eq!(root.members().map(|(name, _)| name).collect::<Vec<_>>(), ["method", "params", "é"]);
    assert_eq!((root.len(), numbers.len(), root.get("method").unwrap().len()), (3, 3, 0));
    assert_eq!((numbers.members().count(), root.elements().count()), (0, 0));
    assert_eq!((root.as_str(), root.as_bool(), root.as_i64()), (None, None, None));

    let part = root.get("params").unwrap().to_document();
    assert_eq!(part.bytes(), br#"{ "name": "a\u002fb", "n": [1, 2.5, -3e2] }"#);
    assert_eq!(part.to_bytes(), part.bytes());
    assert_eq!(part.root().get("name").unwrap().as_str(), Some("a/b"));
    assert_eq!(format!("{part:?} {:?}", part.root()), "Document(43 bytes) Value(43 bytes)");
}

#[test]
fn integers_are_exact_or_absent() {
    for (input, want) in [
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("1e2", Some(100)),
        ("12.50e1", Some(125)),
        ("12.5", None),
        ("1e-1", None),
        ("0.0e99999999999999999999", Some(0)),
        ("-0", Some(0)),
        ("1e18", Some(1_000_000_000_000_000_000)),
        ("1e19", None),
        ("1e99999999999999999999", None),
        ("1e-99999999999999999999", None),
    ] {
        assert_eq!(parse(input).root().as_i64(), want, "input: {input:?}");
    }
    assert_eq!(parse("1e400").root().as_f64(), None);
    assert_eq!(parse("1e400").root().to_serde(), serde_json::json!("1e400"));
}

#[test]
fn one_value_has_one_canonical_form() {
    for (input, want) in [
        (" { \"b\" : 1.0 , \"a\" : [ 1e2 , true , null ] } ", r#"{"a":[100,true,null],"b":1}"#),
        (r#""\u0061\/\u20ac\u0001\t\"\\""#, "\"a/€\\u0001\\t\\\"\\\\\""),
        ("\"\u{7f}\u{2028}\"", "\"\u{7f}\u{2028}\""),
        // RFC 8785, section 3.2.3: sorted by UTF-16 code units, so that an emoji comes before U+FB33.
        (
            r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#,
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}",
        ),
        // RFC 8785, section 3.2.2, its first number rounded as it has to be.
        (
            "{\n  \"numbers\": [333333333.3333333, 1E30, 4.50,\n    2e-3, 0.000000000000000000000000001],\n  \"string\": \"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\n  \"literals\": [null, true, false]\n}",
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}",
        ),
        ("9007199254740991", "9007199254740991"),
        ("-9007199254740991.000", "-9007199254740991"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("1e21", "1e+21"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("0.0", "0"),
        ("0e9", "0"),
        ("123.456e1", "1234.56"),
    ] {
        assert_eq!(canonical(input).as_deref(), Ok(want), "input: {input:?}");
        assert_eq!(canonical(want).as_deref(), Ok(want), "input: {want:?}");
    }
}

#[test]
fn what_would_not_survive_has_no_canonical_form() {
    let integer =
        "is an integer beyond 9007199254740991, which programs round differently; write it as a string";
    let inexact = "has more digits than a double can keep; round it, or write it as a string";
    let zero = "is a negative zero, which programs treat differently; write `0`";
    let overflow = "is beyond the greatest double; write it as a string";
    for (input, path, number, reason) in [
        ("[9007199254740992]", "/0", "9007199254740992", integer),
        ("-9007199254740992", "", "-9007199254740992", integer),
        ("9007199254740993", "", "9007199254740993", integer),
        ("1e16", "", "1e16", integer),
        ("100000000000000000000000000000", "", "100000000000000000000000000000", integer),
        (r#"{"a":{"b\u0000":[0,333333333.33333329]}}"#, "/a/b\\u{0}/1", "333333333.33333329", inexact),
        ("0.1000000000000000055511151231257827", "", "0.1000000000000000055511151231257827", inexact),
        ("1e-400", "", "1e-400", inexact),
        ("3e-324", "", "3e-324", inexact),
        ("1e309", "", "1e309", overflow),
        ("-1e99999999999999999999999", "", "-1e99999999999999999999999", overflow),
        ("-0", "", "-0", zero),
        ("-0.0e5", "", "-0.0e5", zero),
    ] {
        assert_eq!(
            canonical(input),
            Err(format!("the number `{number}` at `{path}` {reason}")),
            "input: {input:?}"
        );
    }
}

/// RFC 8785, appendix B: doubles and how they are written. Integers that are not safe are written nowhere.
#[test]
fn doubles_are_written_as_in_the_appendix() {
    for (bits, want) in [
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0x41b3_de43_5555_5556, "333333333.3333334"),
        (0x41b3_de43_5555_5557, "333333333.33333343"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    ] {
        assert_eq!(want.parse::<f64>().unwrap().to_bits(), bits);
        assert_eq!(canonical(&want.replace("e+", "E")).as_deref(), Ok(want), "bits: {bits:x}");
    }
    // Two decimals are equally near to this double; only the even one is its form.
    assert!(canonical("1424953923781206.3").is_err());
    for bits in [
        0x8000_0000_0000_0000_u64,
        0x4340_0000_0000_0000,
        0xc340_0000_0000_0000,
        0x4430_0000_0000_0000,
        0x444b_1ae4_d6e2_ef4e,
        0x444b_1ae4_d6e2_ef4f,
    ] {
        let spelled = format!("{:e}", f64::from_bits(bits));
        assert!(canonical(&spelled).is_err(), "bits: {bits:x}");
    }
}

#[test]
fn the_canonical_form_of_canonical_text_shares_it() {
    let text = r#"{"a":{"b":[1,2,{"c":"\n"}]},"d":{}}"#;
    let document = parse(text);
    let shared = document.root().canonical().unwrap();
    assert_eq!(shared.as_bytes().as_ptr(), document.bytes().as_ptr());
    let part = document.root().get("a").unwrap().canonical().unwrap();
    assert_eq!(part.as_str(), r#"{"b":[1,2,{"c":"\n"}]}"#);
    assert_eq!(part.as_bytes().as_ptr(), document.root().get("a").unwrap().raw().as_ptr());
    for other in [
        " {}",
        "{} ",
        "{ }",
        "[ ]",
        "[1 ]",
        "[ 1]",
        "[1, 2]",
        "{\"a\" :1}",
        "{\"a\": 1}",
        "{\"a\":1 }",
        "{ \"a\":1}",
    ] {
        let document = parse(other);
        let made = document.root().canonical().unwrap();
        assert_ne!(made.as_bytes(), other.as_bytes(), "input: {other:?}");
        assert_eq!(made.as_bytes(), made.document().bytes());
    }
    assert_eq!(Canonical::empty_object(), parse("{ }").root().canonical().unwrap());
    assert_eq!(Canonical::empty_object().root().len(), 0);
    assert!(Canonical::empty_object().root().is_object());
}

#[test]
fn rewriting_touches_only_what_was_named() {
    let document = parse("{ \"a\" :\t1.0, \"\\u0062\":[ 1 ],\n \"c\":{} }");
    for (edits, want) in [
        (&[][..], "{\"a\" :\t1.0,\"\\u0062\":[ 1 ],\"c\":{}}"),
        (&[("b", Edit::Set(b"2"))], "{\"a\" :\t1.0,\"\\u0062\":2,\"c\":{}}"),
        (&[("a", Edit::Remove)], "{\"\\u0062\":[ 1 ],\"c\":{}}"),
        (&[("a", Edit::Remove), ("b", Edit::Remove), ("c", Edit::Remove)], "{}"),
        (
            &[("x", Edit::Remove), ("d\n", Edit::Set(b"null"))],
            "{\"a\" :\t1.0,\"\\u0062\":[ 1 ],\"c\":{},\"d\\n\":null}",
        ),
        (
            &[("d", Edit::Set(b"1")), ("d", Edit::Set(b"2"))],
            "{\"a\" :\t1.0,\"\\u0062\":[ 1 ],\"c\":{},\"d\":2}",
        ),
        (&[("d", Edit::Set(b"1")), ("d", Edit::Remove)], "{\"a\" :\t1.0,\"\\u0062\":[ 1 ],\"c\":{}}"),
    ] {
        let got = document.root().rewrite(edits);
        assert_eq!(String::from_utf8(got.clone()).unwrap(), want, "edits: {edits:?}");
        parse(got);
    }
    assert_eq!(parse(" [1 ]").root().rewrite(&[("a", Edit::Set(b"1"))]), b"[1 ]");
}

#[test]
fn objects_are_written() {
    let text = ObjectWriter::new()
        .string("jsonrpc", "2.0")
        .number("id", -7)
        .raw("result", b"[ ]")
        .bool("yes", true)
        .bool("n\"o", false)
        .finish();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        r#"{"jsonrpc":"2.0","id":-7,"result":[ ],"yes":true,"n\"o":false}"#
    );
    assert_eq!(ObjectWriter::new().finish(), b"{}");
    assert_eq!(quote("a\"\\\u{1}\u{1f}\u{8}\u{c}é\u{202e}"), "\"a\\\"\\\\\\u0001\\u001f\\b\\fé\u{202e}\"");
}

/// A value, apart from how it is written. Numbers are in thousandths, so that all of them survive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Meant {
    Null,
    Bool(bool),
    Number(i64),
    Text(String),
    Array(Vec<Meant>),
    Object(BTreeMap<String, Meant>),
}

fn meant() -> impl Strategy<Value = Meant> {
    let text = "[a-c\"\\\\\n\u{1}é€😀\u{fb33}]{0,3}";
    let leaf = prop_oneof![
        Just(Meant::Null),
        any::<bool>().prop_map(Meant::Bool),
        (-3000_i64..3000).prop_map(Meant::Number),
        (-9_007_199_254_740_i64..9_007_199_254_740).prop_map(|n| Meant::Number(n * 1000)),
        text.prop_map(Meant::Text),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Meant::Array),
            prop::collection::btree_map(text, inner, 0..5).prop_map(Meant::Object),
        ]
    })
}

/// Writes values in one of the many ways in which they can be written; the dice decide.
struct Speller<'a> {
    dice: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    out: String,
}

fn spelled(value: &Meant, dice: &[u8]) -> String {
    let mut speller = Speller { dice: dice.iter().cycle(), out: String::new() };
    speller.value(value);
    speller.out
}

impl Speller<'_> {
    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let throw = usize::from(*self.dice.next().unwrap());
        *choices.get(throw % choices.len()).unwrap()
    }

    fn space(&mut self) {
        let space = self.one_of(&["", "", "", " ", "\n\t"]);
        self.out.push_str(space);
    }

    fn value(&mut self, value: &Meant) {
        self.space();
        match value {
            Meant::Null => self.out.push_str("null"),
            Meant::Bool(value) => self.out.push_str(&value.to_string()),
            Meant::Number(thousandths) => self.number(*thousandths),
            Meant::Text(text) => self.text(text),
            Meant::Array(elements) => {
                self.out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    self.out.push_str(if at > 0 { "," } else { "" });
                    self.value(element);
                }
                self.out.push(']');
            }
            Meant::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                let first = self.one_of(&[0, 1, 2, 3]).min(members.len());
                members.rotate_left(first);
                self.out.push('{');
                for (at, (name, member)) in members.into_iter().enumerate() {
                    self.out.push_str(if at > 0 { "," } else { "" });
                    self.space();
                    self.text(name);
                    self.space();
                    self.out.push(':');
                    self.value(member);
                }
                self.out.push('}');
            }
        }
        self.space();
    }

    fn number(&mut self, thousandths: i64) {
        let sign = if thousandths < 0 { "-" } else { "" };
        let (whole, part) = (thousandths.unsigned_abs() / 1000, thousandths.unsigned_abs() % 1000);
        let spelling = match self.one_of(&[0, 1, 2, 3]) {
            _ if thousandths == 0 => self.one_of(&["0", "0.0", "0e7", "0.000E-3"]).to_owned(),
            0 => format!("{thousandths}e-3"),
            1 => format!("{thousandths}00E-05"),
            2 if part == 0 => format!("{sign}{whole}"),
            _ => format!("{sign}{whole}.{part:03}00"),
        };
        self.out.push_str(&spelling);
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            let as_it_is = !matches!(character, '"' | '\\' | '\0'..='\u{1f}');
            if as_it_is && self.one_of(&[true, true, false]) {
                self.out.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                let spelling =
                    if self.one_of(&[true, false]) { format!("{unit:04x}") } else { format!("{unit:04X}") };
                self.out.push_str("\\u");
                self.out.push_str(&spelling);
            }
        }
        self.out.push('"');
    }
}

proptest! {
    #[test]
    fn spelling_does_not_matter(value in meant(), a in prop::collection::vec(any::<u8>(), 1..40), b in prop::collection::vec(any::<u8>(), 1..40)) {
        let (one, other) = (spelled(&value, &a), spelled(&value, &b));
        prop_assert_eq!(canonical(&one), canonical(&other), "{} and {}", one, other);
        let form = canonical(&one).unwrap();
        prop_assert_eq!(canonical(&form), Ok(form.clone()));
    }

    #[test]
    fn different_values_have_different_forms(a in meant(), b in meant()) {
        prop_assert_eq!(a == b, canonical(&spelled(&a, &[0])) == canonical(&spelled(&b, &[1])));
    }

    #[test]
    fn doubles_keep_their_value(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        for text in [format!("{value:e}"), format!("{value:?}")] {
            if let Ok(form) = canonical(&text) {
                prop_assert_eq!(form.parse::<f64>().unwrap().to_bits(), bits, "{}", text);
            }
        }
    }

    #[test]
    fn written_decimals_keep_every_digit(digits in "[1-9][0-9]{0,19}", exponent in -330_i32..330) {
        // Two decimals with the same form are the same decimal: compare with and without the last digit changed.
        let text = format!("{digits}e{exponent}");
        let mut other = digits.clone().into_bytes();
        let last = other.last_mut().unwrap();
        *last = if *last == b'9' { b'8' } else { *last + 1 };
        let other = format!("{}e{exponent}", String::from_utf8(other).unwrap());
        if let (Ok(one), Ok(other)) = (canonical(&text), canonical(&other)) {
            prop_assert_ne!(one, other, "{}", text);
        }
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(document) = Document::parse(bytes.as_slice(), &Limits::default()) {
            prop_assert_eq!(document.bytes(), bytes.as_slice());
        }
    }

    #[test]
    fn nothing_that_looks_like_json_makes_it_panic(text in r#"[\[\]{}:,"\\ute0-9.\-+ \n\u{0}é]{0,40}"#) {
        let ours = Document::parse(text.as_str(), &Limits::default());
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match ours {
            Ok(document) => {
                // A number beyond the greatest double is the one thing that only we take.
                if let Ok(theirs) = theirs {
                    prop_assert!(same(&document.root().to_serde(), &theirs), "{}", text);
                }
                let _ = document.root().canonical();
            }
            Err(error) => prop_assert!(
                theirs.is_err() || matches!(error.kind, JsonErrorKind::DuplicateName(_)),
                "{}: {}", error, text
            ),
        }
    }

    #[test]
    fn untouched_members_keep_their_bytes(value in meant(), dice in prop::collection::vec(any::<u8>(), 1..40), name in "[a-c]{0,2}") {
        let document = parse(spelled(&value, &dice));
        let rewritten = parse(document.root().rewrite(&[(&name, Edit::Set(b"[0]"))]));
        if document.root().is_object() {
            let before: Vec<_> = document.root().members().filter(|(key, _)| *key != name).map(|(key, value)| (key, value.raw())).collect();
            let after: Vec<_> = rewritten.root().members().filter(|(key, _)| *key != name).map(|(key, value)| (key, value.raw())).collect();
            prop_assert_eq!(before, after);
            prop_assert_eq!(rewritten.root().get(&name).unwrap().raw(), b"[0]");
        } else {
            prop_assert_eq!(document.root().raw(), rewritten.bytes());
        }
    }
}
