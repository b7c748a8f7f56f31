use super::*;

fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

fn call() -> CallInfo {
    CallInfo {
        action: "github/create_issue".into(),
        agent: AgentInfo { name: "support".into(), proof: AgentProof::Peer { uid: 1000 } },
        arguments: Some(hash(1)),
        carries: vec!["github-pat".into(), "vault:github".into()],
        id: "00000000-0001-7fff-bfff-ffffffffffff".into(),
        params: Some(hash(2)),
        pin: Some(hash(3)),
        revealed: vec!["to=pii.email".into()],
        server: Some("github".into()),
        session: "s-1".into(),
    }
}

fn judged() -> Judged {
    Judged { policy: hash(4), rules: vec!["a".into(), "b".into()], verdict: VerdictWord::Ask }
}

/// One record of each kind, every optional field present.
fn cell() -> Cell {
    Cell {
        connections: Some(Connections { failed: 1, made: 2, refused: 3 }),
        cpu_s: 60,
        end: Some(CellEnd {
            bytes_in: 5,
            bytes_out: 6,
            code: Some(7),
            cpu_us: Some(8),
            cut: Some(CellCut::Deadline),
            out_of_memory: true,
            signal: Some(9),
        }),
        file_bytes: 1 << 28,
        landlock_abi: 7,
        memory_bytes: 1 << 30,
        memory_total: true,
        peak_bytes: Some(4096),
        per: Per::Call,
        processes: 128,
        tier: Tier::Native,
    }
}

fn one_of_each() -> Vec<Record> {
    let id = call().id;
    let bodies: Vec<Body> = vec![
        Agent { action: RosterAction::Added, by: "root".into(), name: "support".into() }.into(),
        Connection {
            call: Some(id.clone()),
            down: 1,
            lasted_ms: 2,
            port: 443,
            server: "shell".into(),
            session: "s-1".into(),
            status: ConnectionStatus::Refused,
            times: 3,
            to: "a.example".into(),
            up: 4,
            why: Some("no rule has this name".into()),
        }
        .into(),
        Delivered { call: id.clone(), outcome: 8 }.into(),
        Erasure { by: "ann".into(), commitments: vec![hash(1)], ground: "gdpr-17".into() }.into(),
        Export { by: "ann".into(), first: 0, format: "ocsf".into(), next: 10 }.into(),
        Intent { call: call(), judged: judged(), persons: vec!["ann".into()], question: Some("q-1".into()) }
            .into(),
        Key { action: RosterAction::Added, key: "log+00000000+AAAA".into() }.into(),
        Lease {
            action: LeaseAction::Minted,
            by: Some("ann".into()),
            expires_ms: Some(9),
            fingerprint: Some("0011223344556677".into()),
            granted: Some("contents:read".into()),
            lease: "00".repeat(16),
            provider: "github-app".into(),
            requested: Some("contents:read".into()),
            secret: "github".into(),
            server: "github".into(),
            session: "s-1".into(),
            why: Some("expired".into()),
        }
        .into(),
        Outcome {
            bytes_in: 1,
            bytes_out: 2,
            call: id.clone(),
            cell: Some(cell()),
            ended_ms: 4,
            intent: 7,
            result: Some(hash(5)),
            scrubbed: [("github-pat".to_owned(), 2), ("pii.card".to_owned(), 1)].into(),
            started_ms: 3,
            status: Status::InputRequired,
        }
        .into(),
        OutcomeUnknown { call: id, intent: 7 }.into(),
        Person {
            action: RosterAction::Removed,
            by: "root".into(),
            key: Some("k".into()),
            name: "ann".into(),
        }
        .into(),
        Policy { action: PolicyAction::Rejected, digest: hash(4), previous: Some(hash(6)), rules: 3 }.into(),
        QuestionAnswered {
            answer: Answer::Approve,
            person: "ann".into(),
            proof: PersonProof::Key { key: "k".into(), signature: "s".into() },
            question: "q-1".into(),
        }
        .into(),
        QuestionAsked {
            call: call(),
            digest: hash(7),
            expires_ms: 9,
            judged: judged(),
            needed: 1,
            question: "q-1".into(),
            statement: hash(8),
            topic: "finance".into(),
        }
        .into(),
        QuestionExpired { question: "q-1".into(), why: ExpiredWhy::PolicyChanged }.into(),
        Refusal {
            call: call(),
            code: "not_permitted".into(),
            judged: Some(judged()),
            question: Some("q-1".into()),
            rule: Some("a".into()),
        }
        .into(),
        Secret {
            action: SecretAction::Rotated,
            by: "ann".into(),
            generation: 3,
            name: Some("github".into()),
            vault: "00".repeat(16),
            version: Some(2),
        }
        .into(),
        Start { configuration: hash(9), origin: "example.com/log".into(), program: "0.1.0".into() }.into(),
        Stop { reason: "signal".into() }.into(),
        ToolPin {
            action: PinAction::Accepted,
            by: Some("ann".into()),
            digest: Some(hash(3)),
            previous: Some(hash(4)),
            tool: "github/create_issue".into(),
        }
        .into(),
    ];
    bodies.into_iter().map(|body| Record::new(1_700_000_000_000, body)).collect()
}

#[test]
fn every_kind_is_canonical_and_reads_back() {
    let records = one_of_each();
    let kinds: Vec<_> = records.iter().map(|r| r.body.kind().to_owned()).collect();
    assert_eq!(kinds, KINDS, "one of each kind");
    for record in records {
        let bytes = record.encode().unwrap();
        // A value that sorts its keys gives the same bytes: they were sorted, and nothing is a fraction.
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(is_canonical(&value), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(serde_json::to_vec(&value).unwrap(), bytes);
        assert!(bytes.len() <= 4096);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }
}

#[test]
fn names_at_their_longest_fit_four_kilobytes() {
    let mut call = call();
    call.action = "s".repeat(32) + "/" + &"t".repeat(128);
    call.server = Some("s".repeat(32));
    call.session = "s".repeat(64);
    let long = "n".repeat(64);
    call.agent = AgentInfo {
        name: long.clone(),
        proof: AgentProof::Oauth { issuer: "i".repeat(256), subject: "s".repeat(256) },
    };
    let judged = Judged { policy: hash(4), rules: vec![long.clone(); 16], verdict: VerdictWord::Allow };
    let intent = Intent { call, judged, persons: vec![long.clone(); 5], question: Some(long) };
    let length = Record::new(1, intent).encode().unwrap().len();
    assert!(length <= 4096, "{length}");
}

#[test]
fn a_cell_is_said_whole_or_not_at_all() {
    let outcome = |cell: &str| {
        let text = format!(
            r#"{{"body":{{"bytes_in":1,"bytes_out":2,"call":"c",{cell}"ended_ms":4,"intent":7,"started_ms":3,"status":"answered"}},"kind":"outcome","time_ms":5,"v":1}}"#
        );
        Record::decode(text.as_bytes()).map_err(|error| error.to_string())
    };
    let cell = |more: &str, peak: &str, tier: &str| {
        format!(
            r#""cell":{{"cpu_s":60,"file_bytes":1,"landlock_abi":7,"memory_bytes":2,"memory_total":true,{peak}"per":"session","processes":3,"tier":"{tier}"{more}}},"#
        )
    };
    assert!(outcome("").is_ok());
    assert!(outcome(&cell("", "", "native")).is_ok());
    assert!(outcome(&cell("", r#""peak_bytes":9,"#, "native")).is_ok());
    for (wrong, want) in [
        (r#""cell":null,"#.to_owned(), "not in canonical form"),
        (r#""cell":{},"#.to_owned(), "missing field `cpu_s`"),
        (cell("", r#""peak_bytes":null,"#, "native"), "not in canonical form"),
        (cell("", "", "microvm"), "unknown variant `microvm`"),
        (cell(r#","x":1"#, "", "native"), "unknown field `x`"),
    ] {
        let got = outcome(&wrong).expect_err(&wrong);
        assert!(got.contains(want), "{wrong}: {got}");
    }
}

#[test]
fn what_is_not_canonical_is_refused() {
    let good = r#"{"body":{"reason":"signal"},"kind":"stop","time_ms":5,"v":1}"#;
    assert!(Record::decode(good.as_bytes()).is_ok());
    for (wrong, want) in [
        (
            r#"{"body":{"reason":"signal"},"kind":"stop","time_ms":5,"v":1} "#,
            "a record of kind `stop` that is not in canonical form",
        ),
        (
            r#"{"kind":"stop","body":{"reason":"signal"},"time_ms":5,"v":1}"#,
            "a record of kind `stop` that is not in canonical form",
        ),
        (
            r#"{"body":{"reason":"sign\u0061l"},"kind":"stop","time_ms":5,"v":1}"#,
            "a record of kind `stop` that is not in canonical form",
        ),
        (
            r#"{"body":{"reason":"signal","x":1},"kind":"stop","time_ms":5,"v":1}"#,
            "not a record: unknown field `x`, expected `reason` at line 1 column 30",
        ),
        (
            r#"{"body":{"reason":"signal","reason":"x"},"kind":"stop","time_ms":5,"v":1}"#,
            "not a record: duplicate field `reason` at line 1 column 35",
        ),
        (
            r#"{"body":{"reason":"signal"},"kind":"stop","time_ms":5.0,"v":1}"#,
            "not a record: invalid type: floating point `5.0`, expected u64 at line 1 column 55",
        ),
        (
            r#"{"body":{"b":1,"a":2},"kind":"later","time_ms":5,"v":1}"#,
            "a record of kind `later` that is not in canonical form",
        ),
        (
            r#"{"body":{"a":1.5},"kind":"later","time_ms":5,"v":1}"#,
            "a record of kind `later` that is not in canonical form",
        ),
        (
            r#"{"body":{"a":1,"a":1},"kind":"later","time_ms":5,"v":1}"#,
            "a record of kind `later` that is not in canonical form",
        ),
        ("", "not a record: EOF while parsing a value at line 1 column 0"),
    ] {
        let got = Record::decode(wrong.as_bytes()).map_err(|e| e.to_string());
        assert_eq!(got.err().as_deref(), Some(want), "input: {wrong:?}");
    }
}

#[test]
fn later_kinds_and_versions_can_be_read_but_not_written() {
    for later in [
        r#"{"body":{"a":[1,{"b":"ü"}]},"kind":"later","time_ms":5,"v":1}"#,
        r#"{"body":{"reason":7},"kind":"stop","time_ms":5,"v":2}"#,
    ] {
        let record = Record::decode(later.as_bytes()).unwrap();
        assert!(matches!(record.body, Body::Unknown(_)), "input: {later:?}");
        assert!(matches!(record.encode(), Err(EncodeRecordError::UnknownKind(_))));
    }
}

#[test]
fn framing_is_a_length_and_the_bytes() {
    let record = Record::new(5, Stop { reason: "signal".into() });
    let bytes = record.encode().unwrap();
    let mut framed = vec![7];
    record.append_framed(&mut framed).unwrap();
    assert_eq!(framed[0], 7);
    assert_eq!(framed[1..3], u16::try_from(bytes.len()).unwrap().to_be_bytes());
    assert_eq!(framed[3..], bytes);

    let long = Record::new(5, Stop { reason: "x".repeat(MAX_ENTRY) });
    assert!(matches!(long.encode(), Err(EncodeRecordError::TooLong(_))));
    assert!(matches!(long.append_framed(&mut framed), Err(EncodeRecordError::TooLong(_))));
    assert_eq!(framed.len(), 3 + bytes.len(), "unchanged when it fails");
}

#[test]
fn commitments_depend_on_field_salt_and_bytes() {
    let base = commit(Field::Result, &[1; 32], b"x");
    assert_eq!(base, Hash::of(&[b"audit-field/v1\0result\0".as_slice(), &[1; 32], b"x"].concat()));
    for other in [
        commit(Field::Arguments, &[1; 32], b"x"),
        commit(Field::Result, &[2; 32], b"x"),
        commit(Field::Result, &[1; 32], b"y"),
    ] {
        assert_ne!(base, other);
    }
    for field in [Field::Arguments, Field::Params, Field::Result, Field::Statement] {
        assert_eq!(Field::from_path(field.path()), Some(field));
    }
    assert_eq!(Field::from_path("x"), None);
}

#[test]
fn the_vectors_hold() {
    // One line a record: leaf hash, entry. Then commitments: field, salt, value, commitment.
    let mut found = String::new();
    for record in one_of_each() {
        let bytes = record.encode().unwrap();
        found += &format!("{} {}\n", Hash::leaf(&bytes), String::from_utf8(bytes).unwrap());
    }
    for field in [Field::Arguments, Field::Params, Field::Result, Field::Statement] {
        let value = "{\"a\":1}";
        let (path, salt) = (field.path(), Hash([7; 32]));
        found += &format!("commitment {path} {salt} {value} {}\n", commit(field, &salt.0, value.as_bytes()));
    }
    // To write them anew after a change of the format: UPDATE_VECTORS=1.
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/records.txt"), &found).unwrap();
    }
    assert_eq!(found, include_str!("../../../../vectors/records.txt"));
}
