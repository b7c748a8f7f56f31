//! Schemas of tools, from outside: what is compiled, what fits, and what is said if it does not.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use toolgate_core::json::{Document, Limits};
use toolgate_core::schema::{HeaderKind, HeaderParam, Schema, header_params};

fn parse(text: &str) -> Document {
    Document::parse(text, &Limits::default()).unwrap()
}

fn compile(text: &str) -> Result<Schema, String> {
    Schema::compile(&parse(text).root()).map_err(|e| e.to_string())
}

fn validate(schema: &str, value: &str) -> Result<(), String> {
    compile(schema).unwrap().validate(&parse(value).root()).map_err(|e| e.to_string())
}

#[test]
fn what_does_not_fit_is_named_with_how_it_should_be() {
    let schema = r#"{"type":"object","properties":{
        "to":{"type":"array","items":{"type":"object","properties":{"address":{"type":"string","pattern":"^.+@.+$"}},"required":["address"]},"maxItems":2,"minItems":1,"uniqueItems":true},
        "size":{"type":"integer","minimum":1,"maximum":10,"multipleOf":2},
        "how":{"enum":["fast","slow"]},
        "kind":{"const":7},
        "note":{"type":["string","null"],"maxLength":3},
        "form":{"oneOf":[{"type":"string"},{"type":"integer"}]}
      },"required":["to"],"additionalProperties":false}"#;
    for (value, want) in [
        (r#"{"to":[{"address":"a@b"}]}"#, Ok(())),
        (r#"{"to":[{"address":"a@b"}],"size":2.0,"how":"fast","kind":7e0,"note":null,"form":"x"}"#, Ok(())),
        ("[]", Err("the value itself has to be an object")),
        ("{}", Err("`to` is missing")),
        (r#"{"to":[{}]}"#, Err("`to[0].address` is missing")),
        (r#"{"to":[{"address":"x"}]}"#, Err("`to[0].address` has to match the pattern `^.+@.+$`")),
        (
            r#"{"to":[{"address":"a@b"},{"address":"a@b"}]}"#,
            Err("`to` has the same element twice; each may occur once"),
        ),
        (r#"{"to":[]}"#, Err("`to` has to have at least 1 elements")),
        (
            r#"{"to":[{"address":"a@b"}],"size":1.5}"#,
            Err("`size` has to be an integer; `size` has to be a multiple of 2"),
        ),
        (r#"{"to":[{"address":"a@b"}],"size":12}"#, Err("`size` has to be at most `10`")),
        (r#"{"to":[{"address":"a@b"}],"size":1e400}"#, Err("`size` has to be an integer")),
        (r#"{"to":[{"address":"a@b"}],"how":"other"}"#, Err("`how` has to be one of `\"fast\"`, `\"slow\"`")),
        (r#"{"to":[{"address":"a@b"}],"kind":8}"#, Err("`kind` has to be `7`")),
        (r#"{"to":[{"address":"a@b"}],"note":"long"}"#, Err("`note` may have at most 3 characters")),
        (r#"{"to":[{"address":"a@b"}],"note":1}"#, Err("`note` has to be null or a string")),
        (r#"{"to":[{"address":"a@b"}],"form":null}"#, Err("`form` has none of the forms that are allowed")),
        (r#"{"to":[{"address":"a@b"}],"x":1}"#, Err("`x` is not known here; leave it out")),
        (
            r#"{"to":[{"address":"a@b"}],"x":1,"y":2}"#,
            Err("`x` and 1 others beside it are not known here; leave them out"),
        ),
        (
            r#"{"to":[1,2,3]}"#,
            Err(
                "`to` may have at most 2 elements; `to[0]` has to be an object; `to[1]` has to be an object; and 1 more",
            ),
        ),
        // What a stranger wrote is shown escaped and cut.
        (
            "{\"to\":[{\"address\":\"a@b\"}],\"\u{202e}x\":1}",
            Err("`\\u{202e}x` is not known here; leave it out"),
        ),
    ] {
        assert_eq!(validate(schema, value), want.map_err(str::to_owned), "value: {value}");
    }
    let long = format!(r#"{{"to":1,"{}":1}}"#, "n".repeat(10_000));
    assert!(validate(schema, &long).unwrap_err().len() < 400);
    let deep =
        format!("{}1{}", "{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":".repeat(60), "}".repeat(60));
    let nested = r##"{"additionalProperties":{"$ref":"#"},"type":"object"}"##;
    assert!(validate(nested, &deep).unwrap_err().len() < 600);
}

#[test]
fn older_dialects_are_known_and_unknown_ones_refused() {
    for dialect in [
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-04/schema#",
    ] {
        let schema = format!(r#"{{"$schema":"{dialect}","type":"object","required":["a"]}}"#);
        assert_eq!(validate(&schema, r#"{"a":1}"#), Ok(()), "{dialect}");
        assert_eq!(validate(&schema, "{}"), Err("`a` is missing".to_owned()), "{dialect}");
    }
    // `items` with an array is a thing of the older ones.
    let tuple = r#"{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"type":"string"}],"additionalItems":false}"#;
    assert_eq!(validate(tuple, r#"["a"]"#), Ok(()));
    assert!(validate(tuple, r#"["a",1]"#).is_err());
    let tuple = r#"{"prefixItems":[{"type":"string"}],"items":false}"#;
    assert_eq!(validate(tuple, r#"["a"]"#), Ok(()));
    assert!(validate(tuple, r#"["a",1]"#).is_err());
    assert_eq!(
        compile(r#"{"$schema":"https://example.com/\u202emine"}"#).unwrap_err(),
        "the schema is written in the dialect `https://example.com/\\u{202e}mine`, which is not known; leave `$schema` out for 2020-12, or name that, 2019-09, draft-07, draft-06 or draft-04"
    );
    assert!(compile(r#"{"$schema":7}"#).is_err());
}

#[test]
fn a_schema_that_is_wrong_or_reaches_out_is_refused() {
    let remote = |what: &str| {
        format!(
            "the reference `{what}` leaves the schema; nothing is fetched, so refer to a part of the schema with `#/…`"
        )
    };
    for (schema, want) in [
        ("[]", "the schema is an array; it has to be an object".to_owned()),
        ("null", "the schema is null; it has to be an object".to_owned()),
        (r#"{"type":"strin"}"#, "the schema is wrong: `type` has none of the forms that are allowed".to_owned()),
        (r#"{"$ref":"https://example.com/a.json"}"#, remote("https://example.com/a.json")),
        (r#"{"properties":{"a":{"items":{"$ref":"file:///etc/passwd"}}}}"#, remote("file:///etc/passwd")),
        (r#"{"$id":"https://a.b/c","$ref":"other.json"}"#, remote("other.json")),
        (r##"{"$ref":"#/$defs/a"}"##, "the reference `#/$defs/a` names no part of the schema".to_owned()),
        (r##"{"$ref":"#a"}"##, "the reference `#a` names no part of the schema".to_owned()),
        (r##"{"$ref":"#/%zz"}"##, "the reference `#/%zz` names no part of the schema".to_owned()),
        (r#"{"$ref":7}"#, "the schema is wrong: `$ref` is a number; it has to be a string".to_owned()),
        (r##"{"$ref":"#"}"##, "the schema refers to itself at `` with no member or element between; take the circle out".to_owned()),
        (
            r##"{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"}]}}}"##,
            "the schema refers to itself at".to_owned(),
        ),
        (
            r#"{"properties":{"a":{"$id":"https://x.y/z"}}}"#,
            "the part `/properties/a` of the schema has an identifier of its own; only the whole may have one".to_owned(),
        ),
        (r#"{"pattern":"("}"#, "the schema is wrong:".to_owned()),
        (r#"{"pattern":"(a{1000}){1000}"}"#, "the schema is wrong:".to_owned()),
    ] {
        let error = compile(schema).unwrap_err();
        assert!(error.starts_with(&want), "schema: {schema}\n{error}");
    }
    let wide = format!(
        r#"{{"properties":{{{}}}}}"#,
        (0..5000).map(|n| format!("\"p{n}\":{{}}")).collect::<Vec<_>>().join(",")
    );
    assert_eq!(compile(&wide).unwrap_err(), "the schema has more than 4096 parts; make it smaller");
    let long = format!(r#"{{"description":"{}"}}"#, "x".repeat(600_000));
    assert_eq!(compile(&long).unwrap_err(), "the schema has more than 524288 bytes; make it smaller");
    // Names that look like keywords but are names of properties.
    assert_eq!(
        validate(
            r#"{"properties":{"$id":{"type":"string"},"$ref":{"type":"string"},"id":{}}}"#,
            r#"{"$ref":"http://x"}"#
        ),
        Ok(())
    );
}

#[test]
fn references_inside_the_schema_work() {
    let tree = r##"{"$defs":{"node":{"type":"object","properties":{"next":{"$ref":"#/$defs/node"},"a~/b":{"type":"null"}},"required":["v"]}},"$ref":"#/$defs/node"}"##;
    assert_eq!(validate(tree, r#"{"v":1,"next":{"v":2,"next":{"v":3}}}"#), Ok(()));
    assert_eq!(
        validate(tree, r#"{"v":1,"next":{"v":2,"next":{}}}"#),
        Err("`next.next.v` is missing".to_owned())
    );
    let pointer = r##"{"properties":{"x":{"$ref":"#/properties/a~0~1%62"},"a~/b":{"type":"string"}}}"##;
    assert_eq!(validate(pointer, r#"{"x":1}"#), Err("`x` has to be a string".to_owned()));
    let anchor =
        r##"{"properties":{"x":{"$ref":"#here"}},"$defs":{"s":{"$anchor":"here","type":"string"}}}"##;
    assert_eq!(validate(anchor, r#"{"x":1}"#), Err("`x` has to be a string".to_owned()));
    let json = r##"{"$defs":{"v":{"anyOf":[{"type":["string","number","boolean","null"]},{"type":"array","items":{"$ref":"#/$defs/v"}},{"type":"object","additionalProperties":{"$ref":"#/$defs/v"}}]}},"$ref":"#/$defs/v"}"##;
    let deep = format!("{}{}", "[{\"a\":".repeat(30), "[]".to_owned() + &"}]".repeat(30));
    assert_eq!(validate(json, &deep), Ok(()));
}

#[test]
fn a_small_schema_cannot_make_much_work() {
    let too_costly =
        "holding the value against the schema would take too long; send a smaller or flatter value";
    // Each definition applies the next one twice.
    let doubling = |count: usize| {
        let definitions: Vec<_> = (0..count)
            .map(|n| {
                format!(
                    r##""d{n}":{{"allOf":[{{"$ref":"#/$defs/d{0}"}},{{"$ref":"#/$defs/d{0}"}}]}}"##,
                    n + 1
                )
            })
            .collect();
        format!(r##"{{"$defs":{{{},"d{count}":{{}}}},"$ref":"#/$defs/d0"}}"##, definitions.join(","))
    };
    assert_eq!(validate(&doubling(4), "1"), Ok(()));
    assert_eq!(validate(&doubling(15), &format!("[{}]", vec!["1"; 1000].join(","))), Ok(()));
    assert_eq!(validate(&doubling(23), "1"), Err(too_costly.to_owned()));
    // Work that doubles with every level of the value.
    let twice = r##"{"allOf":[{"properties":{"a":{"$ref":"#"}}},{"properties":{"a":{"$ref":"#"}}}]}"##;
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert_eq!(validate(twice, &nested(10)), Ok(()));
    assert_eq!(validate(twice, &nested(60)), Err(too_costly.to_owned()));
    // A pattern that steps back again and again.
    let pattern = r#"{"pattern":"^(?=(a+)+$)(a+)+$"}"#;
    let text = format!("\"{}!\"", "a".repeat(5000));
    assert!(validate(pattern, &text).is_err());
}

#[test]
fn long_chains_do_not_exhaust_the_stack() {
    let chain = |count: usize, step: &str| {
        let definitions: Vec<_> = (0..count)
            .map(|n| format!("\"d{n}\":{}", step.replace('@', &format!("#/$defs/d{}", n + 1))))
            .collect();
        format!(
            r##"{{"$defs":{{{},"d{count}":{{"type":"null"}}}},"$ref":"#/$defs/d0"}}"##,
            definitions.join(",")
        )
    };
    assert_eq!(
        compile(&chain(1000, r#"{"$ref":"@"}"#)).unwrap_err(),
        "the schema has more than 50 references one behind the other; make it smaller"
    );
    assert_eq!(validate(&chain(40, r#"{"$ref":"@"}"#), "null"), Ok(()));
    for count in [30, 2000] {
        let schema = compile(&chain(count, r#"{"properties":{"a":{"$ref":"@"}}}"#)).unwrap();
        let nested = format!("{}null{}", "{\"a\":".repeat(30), "}".repeat(30));
        schema.validate(&parse(&nested).root()).unwrap();
    }
    // Forty references for each of sixty levels.
    let ring = chain(40, r#"{"$ref":"@"}"#)
        .replace(r#"{"type":"null"}"#, r##"{"properties":{"a":{"$ref":"#/$defs/d0"}}}"##);
    let deep = format!("{}null{}", "{\"a\":".repeat(60), "}".repeat(60));
    assert!(validate(&ring, &deep).is_err());
    let shallow = format!("{}null{}", "{\"a\":".repeat(6), "}".repeat(6));
    assert_eq!(validate(&ring, &shallow), Ok(()));
}

#[test]
fn annotated_arguments_are_found() {
    let schema = parse(
        r#"{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "x-mcp-header":{"type":"string"},
            "where":{"type":"object","properties":{"zone":{"type":"integer","x-mcp-header":"Zone-Nr"}}},
            "dry":{"type":["null","boolean"],"x-mcp-header":"dry!","default":{"x-mcp-header":"data"}}},
          "examples":[{"x-mcp-header":"data"}],"$defs":{"x-mcp-header":{"type":"string"}}}"#,
    );
    let found = header_params(&schema.root()).unwrap();
    let param = |name: &str, path: &[&str], kind| HeaderParam {
        name: name.to_owned(),
        path: path.iter().map(|step| (*step).to_owned()).collect(),
        kind,
    };
    assert_eq!(
        found,
        [
            param("Region", &["region"], HeaderKind::String),
            param("Zone-Nr", &["where", "zone"], HeaderKind::Integer),
            param("dry!", &["dry"], HeaderKind::Boolean),
        ]
    );
    let arguments = parse(r#"{"region":" \u00e9","where":{"zone":1e2},"dry":false}"#);
    let texts: Vec<_> = found.iter().map(|param| param.text(&arguments.root())).collect();
    assert_eq!(texts, [Some(" é".to_owned()), Some("100".to_owned()), Some("false".to_owned())]);
    let arguments = parse(r#"{"region":null,"where":{"zone":9007199254740992},"dry":"false"}"#);
    assert!(found.iter().all(|param| param.text(&arguments.root()).is_none()));
    assert_eq!(header_params(&parse("{}").root()), Ok(vec![]));
    assert_eq!(header_params(&parse("true").root()), Ok(vec![]));
}

#[test]
fn annotations_that_break_a_rule_are_refused() {
    let property = |inner: &str| format!(r#"{{"properties":{{"a":{{{inner}}}}}}}"#);
    let name = |name: &str| {
        format!(
            "`x-mcp-header` at `/a` is `{name}`; it has to be 1 to 128 letters, digits and any of !#$%&'*+-.^_`|~"
        )
    };
    let kind = |kind: &str| {
        format!(
            "`x-mcp-header` at `/a` is on a property of the type {kind}; it has to be `integer`, `string` or `boolean`"
        )
    };
    let place = |at: &str| {
        format!(
            "`x-mcp-header` at `{at}` is not on a property that is reached from the root through `properties` alone"
        )
    };
    for (schema, want) in [
        (property(r#""type":"string","x-mcp-header":"""#), name("")),
        (property(r#""type":"string","x-mcp-header":"a b""#), name("a b")),
        (property(r#""type":"string","x-mcp-header":"a:b""#), name("a:b")),
        (property(r#""type":"string","x-mcp-header":"a\r\nX: y""#), name("a\\u{d}\\u{a}X: y")),
        (property(r#""type":"string","x-mcp-header":"é""#), name("é")),
        (property(r#""type":"string","x-mcp-header":7"#), "`x-mcp-header` at `/a` is a number; it has to be a string".to_owned()),
        (property(r#""type":"number","x-mcp-header":"A""#), kind("\"number\"")),
        (property(r#""type":"object","x-mcp-header":"A""#), kind("\"object\"")),
        (property(r#""type":["string","integer"],"x-mcp-header":"A""#), kind(r#"["string","integer"]"#)),
        (property(r#""type":["null"],"x-mcp-header":"A""#), kind(r#"["null"]"#)),
        (property(r#""type":["string",1],"x-mcp-header":"A""#), kind(r#"["string",1]"#)),
        (property(r#""x-mcp-header":"A""#), kind("none")),
        (
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"Same"},"b":{"type":"string","x-mcp-header":"sAME"}}}"#.to_owned(),
            "`x-mcp-header` at `/b` names the header `sAME` a second time; capital and small letters are the same".to_owned(),
        ),
        (r#"{"type":"string","x-mcp-header":"A"}"#.to_owned(), place("/")),
        (property(r#""items":{"type":"string","x-mcp-header":"A"}"#), place("/a")),
        (property(r#""items":{"properties":{"b":{"type":"string","x-mcp-header":"A"}}}"#), place("/a")),
        (property(r#""anyOf":[{"type":"string","x-mcp-header":"A"}]"#), place("/a")),
        (r#"{"if":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}"#.to_owned(), place("/")),
        (r#"{"$defs":{"properties":{"type":"string","x-mcp-header":"A"}}}"#.to_owned(), place("/")),
        (r#"{"patternProperties":{"const":{"type":"string","x-mcp-header":"A"}}}"#.to_owned(), place("/")),
        (r#"{"additionalProperties":{"type":"string","x-mcp-header":"A"}}"#.to_owned(), place("/")),
        (r#"{"unheard":{"of":[{"x-mcp-header":"A"}]}}"#.to_owned(), place("/")),
    ] {
        let error = header_params(&parse(&schema).root()).unwrap_err().to_string();
        assert_eq!(error, want, "schema: {schema}");
    }
}
