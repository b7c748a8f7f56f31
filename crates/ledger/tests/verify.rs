//! Verification finds every kind of damage, and says what and where.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::damage::{DAMAGES, signed, subject};
use common::{Log, sample};
use toolgate_ledger::record::{
    Answer, Body, Delivered, ExpiredWhy, Intent, Outcome, OutcomeUnknown, PersonProof, QuestionAnswered,
    QuestionAsked, QuestionExpired, Start, VerdictWord,
};
use toolgate_ledger::verify::{Report, verify};
use toolgate_ledger::{Folder, Hash, Record};

#[test]
fn every_damage_is_found() {
    let log = subject("damage");
    let sound = common::files(&log.path());
    let mut options = log.options();
    options.older = vec![("kept".into(), log.kept.first().unwrap().1.clone().into_bytes())];
    options.min_size = 700;
    for damage in DAMAGES {
        common::restore(&log.path(), &sound);
        assert_eq!(verify(&log.folder(), &options, |_, _| {}).findings, [], "before: {}", damage.name);
        (damage.apply)(&log.path());
        let report = verify(&log.folder(), &options, |_, _| {});
        let said: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|what| what.contains(damage.want)), "{}: {said:#?}", damage.name);
        assert!(!report.is_sound());
    }
}

#[test]
fn a_sound_log_is_described() {
    let log = Log::with_sizes("sound", &[300, 698]);
    let mut seen = Vec::new();
    let report = verify(&log.folder(), &log.options(), |done, of| seen.push((done, of)));
    assert!(report.is_sound());
    assert_eq!((report.size, report.origin.as_deref()), (698, Some(sample::ORIGIN)));
    assert_eq!(report.kinds.values().sum::<u64>(), 698);
    assert_eq!(report.open_intents, [697], "the last one has no outcome yet");
    assert_eq!(seen.last(), Some(&(698, 698)));
}

#[test]
fn older_checkpoints_must_be_the_logs() {
    let log = subject("older");
    let mut options = log.options();
    let empty = signed(0, Hash::empty_root());
    options.older = vec![
        ("empty".into(), empty.clone().into_bytes()),
        ("wrongly empty".into(), signed(0, Hash::of(b"x")).into_bytes()),
        ("other".into(), signed(700, Hash::of(b"x")).into_bytes()),
        ("garbage".into(), b"x".to_vec()),
        ("unsigned".into(), empty.replace("toolgate-log\n0", "toolgate-log\n1").into_bytes()),
    ];
    let report = verify(&log.folder(), &options, |_, _| {});
    assert_eq!(report.extends, ["empty"]);
    let said: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "older checkpoint `garbage`: not a signed note: no empty line before the signatures",
            "older checkpoint `unsigned`: the signature by `example.com/toolgate-log` is not valid for this text",
            "checkpoint: the first 0 entries are not those of the older checkpoint `wrongly empty`: the log was rewritten or forked",
            "checkpoint: the first 700 entries are not those of the older checkpoint `other`: the log was rewritten or forked",
        ]
    );
}

#[test]
fn a_quorum_must_be_there() {
    let log = subject("quorum");
    let mut options = log.options();
    options.trust.quorum = 1;
    let report = verify(&log.folder(), &options, |_, _| {});
    let said: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["checkpoint: 0 of the known witnesses cosigned; 1 must"]);
}

#[test]
fn a_long_entry_is_found() {
    let log = subject("long");
    let mut options = log.options();
    options.max_entry = 100;
    assert_eq!(verify(&log.folder(), &options, |_, _| {}).more_findings, 650, "all are longer, 50 are kept");
}

/// Publishes and verifies these entries.
fn report_of(entries: Vec<Vec<u8>>) -> Report {
    let log = Log::new("records");
    let Log { scratch, mut signer, mut publisher, .. } = log;
    let size = u64::try_from(entries.len()).unwrap();
    publisher.publish(size, |_, _| Ok::<_, String>(entries.clone()), &mut signer).unwrap();
    let options =
        toolgate_ledger::verify::Options::new(toolgate_ledger::Trust::key(signer.verifier().clone()));
    verify(&Folder::new(scratch.0.join("log")), &options, |_, _| {})
}

fn say(bodies: &[Body]) -> Vec<String> {
    let entries = bodies.iter().map(|body| Record::new(5, body.clone()).encode().unwrap()).collect();
    report_of(entries).findings.iter().map(ToString::to_string).collect()
}

fn intent() -> Intent {
    let Body::Intent(intent) = sample::record(1).body else { panic!("the sample has another order") };
    intent
}

fn outcome(at: u64) -> Outcome {
    let Body::Outcome(outcome) = sample::record(2).body else { panic!("the sample has another order") };
    Outcome { intent: at, ..outcome }
}

fn asked() -> QuestionAsked {
    let Intent { call, mut judged, .. } = intent();
    judged.verdict = VerdictWord::Ask;
    QuestionAsked {
        call,
        digest: Hash::of(b"call"),
        expires_ms: 9,
        judged,
        needed: 2,
        question: "q-1".into(),
        statement: Hash::of(b"statement"),
        topic: "finance".into(),
    }
}

fn answered(answer: Answer, person: &str) -> QuestionAnswered {
    QuestionAnswered { answer, person: person.into(), proof: PersonProof::Totp, question: "q-1".into() }
}

fn approved() -> Intent {
    let mut intent = intent();
    intent.judged.verdict = VerdictWord::Ask;
    intent.question = Some("q-1".into());
    intent.persons = vec!["ann".into(), "bob".into()];
    intent
}

#[test]
fn outcomes_close_intents_once() {
    let unknown = OutcomeUnknown { call: intent().call.id, intent: 0 };
    let other = OutcomeUnknown { call: "another".into(), intent: 0 };
    let delivered = Delivered { call: intent().call.id, outcome: 1 };
    let late = Outcome { ended_ms: 1, started_ms: 2, ..outcome(0) };
    for (bodies, want) in [
        (vec![intent().into(), outcome(0).into(), delivered.clone().into()], None),
        (vec![intent().into(), unknown.clone().into()], None),
        (
            vec![intent().into(), outcome(0).into(), unknown.into()],
            Some("entry 2: closes the intent 0, which was closed before"),
        ),
        (
            vec![intent().into(), outcome(1).into()],
            Some("entry 1: closes entry 1, which is not before entry 1"),
        ),
        (
            vec![intent().into(), outcome(0).into(), outcome(1).into()],
            Some("entry 2: closes entry 1, which is no intent"),
        ),
        (
            vec![intent().into(), other.into()],
            Some(
                "entry 1: closes the intent 0 of call `0190a5b6-0000-7000-8000-000000000001` for call `another`",
            ),
        ),
        (vec![intent().into(), late.into()], Some("entry 1: an outcome that ended before it was sent")),
        (
            vec![intent().into(), delivered.clone().into()],
            Some("entry 1: says that entry 1 was delivered, which is no outcome before it"),
        ),
        (vec![intent().into(), outcome(0).into(), delivered.clone().into(), delivered.into()], None),
        (
            vec![Start { configuration: Hash::of(b""), origin: "other".into(), program: "1".into() }.into()],
            Some("entry 0: a start of the log `other` in the log `example.com/toolgate-log`"),
        ),
    ] {
        assert_eq!(say(&bodies).first().map(String::as_str), want, "{bodies:?}");
    }
}

#[test]
fn approvals_are_used_once_by_what_was_asked() {
    let yes = |person| Body::from(answered(Answer::Approve, person));
    let both = |last: Body| vec![asked().into(), yes("ann"), yes("bob"), last];
    let changed = |change: fn(&mut Intent)| {
        let mut intent = approved();
        change(&mut intent);
        both(intent.into())
    };
    let expired = QuestionExpired { question: "q-1".into(), why: ExpiredWhy::TimedOut };
    for (bodies, want) in [
        (both(approved().into()), None),
        (
            [both(approved().into()), vec![approved().into()]].concat(),
            Some("entry 4: an intent by question `q-1`, which was not asked, or was used or ended before"),
        ),
        (
            vec![asked().into(), yes("ann"), yes("ann"), approved().into()],
            Some("entry 3: an intent by question `q-1`, which not enough people had approved"),
        ),
        (
            changed(|i| i.persons = vec!["ann".into(), "ann".into()]),
            Some("entry 3: an intent by question `q-1`, which not enough people had approved"),
        ),
        (
            changed(|i| i.persons = vec!["ann".into(), "eve".into()]),
            Some("entry 3: an intent by question `q-1`, which not enough people had approved"),
        ),
        (
            changed(|i| i.call.pin = None),
            Some("entry 3: an intent by question `q-1`, which was asked about something else"),
        ),
        (
            changed(|i| i.call.agent.name = "eve".into()),
            Some("entry 3: an intent by question `q-1`, which was asked about something else"),
        ),
        (
            changed(|i| i.judged.policy = Hash::of(b"x")),
            Some("entry 3: an intent by question `q-1`, which was asked about something else"),
        ),
        (changed(|i| i.question = None), Some("entry 3: an intent that had to be asked about, and was not")),
        (
            changed(|i| i.judged.verdict = VerdictWord::Allow),
            Some("entry 3: an intent that was allowed, and yet names a question"),
        ),
        (
            changed(|i| i.judged.verdict = VerdictWord::Deny),
            Some("entry 3: an intent that the rules had denied"),
        ),
        (
            changed(|i| i.call.arguments = None),
            Some("entry 3: an intent without a commitment to its arguments"),
        ),
        (
            vec![
                asked().into(),
                yes("ann"),
                yes("bob"),
                answered(Answer::Deny, "eve").into(),
                approved().into(),
            ],
            Some("entry 4: an intent by question `q-1`, to which somebody said no"),
        ),
        (
            vec![asked().into(), expired.clone().into(), approved().into()],
            Some("entry 2: an intent by question `q-1`, which was not asked, or was used or ended before"),
        ),
        (
            vec![expired.into()],
            Some("entry 0: question `q-1` ends, but it was not asked, or was used or ended before"),
        ),
        (
            vec![yes("ann")],
            Some("entry 0: an answer to question `q-1`, which was not asked, or was used or ended before"),
        ),
        (vec![asked().into(), asked().into()], Some("entry 1: question `q-1` is asked while it is open")),
    ] {
        assert_eq!(say(&bodies).first().map(String::as_str), want, "{bodies:#?}");
    }
}

#[test]
fn what_is_no_record_is_found_and_what_is_later_is_counted() {
    let later = br#"{"body":{},"kind":"later","time_ms":4,"v":1}"#.to_vec();
    let report = report_of(vec![sample::record(0).encode().unwrap(), later, b"{}".to_vec(), vec![]]);
    assert_eq!((report.unknown, report.clock_went_back), (1, 1));
    let said: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "entry 2: not a record: missing field `body` at line 1 column 2",
            "entry 3: not a record: EOF while parsing a value at line 1 column 0",
        ]
    );
}

#[test]
fn an_entry_is_proved_to_somebody_who_has_only_the_key() {
    let log = Log::with_sizes("prove", &[700]);
    for index in [0, 1, 255, 256, 511, 512, 699] {
        let (proof, entry) = log.folder().prove(index, &log.trust()).unwrap();
        assert_eq!(entry, sample::record(index).encode().unwrap());
        let read = toolgate_ledger::Proof::parse(proof.to_string().as_bytes()).unwrap();
        assert_eq!(read.verify(&entry, &log.trust()).unwrap().0.size, 700);
        assert!(read.verify(b"other", &log.trust()).is_err());
    }
    let error = log.folder().prove(700, &log.trust()).unwrap_err().to_string();
    assert_eq!(error, "there is no entry 700: the log has 700");
    (DAMAGES.first().unwrap().apply)(&log.path());
    let error = log.folder().prove(2, &log.trust()).unwrap_err().to_string();
    assert!(error.starts_with("the log is damaged: the proof made of it does not hold"), "{error}");
}
