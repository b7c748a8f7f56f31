//! The store of one machine: the suite of all stores, and what is its own: sealed values, erasure, several processes,
//! group commit, poison.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use toolgate_broker::blob::RootKey;
use toolgate_broker::pipeline::REPEAT_WINDOW_MS;
use toolgate_broker::port::{
    Answered, Clock, Closing, Disclosed, Line, NoRandomnessError, Opened, Position, QuestionState,
    Store as _, StoreError,
};
use toolgate_broker::store::{
    AgentRow, Erase, ManageError, NewAnswer, OpenStoreError, PersonRow, Pin, SqliteStore,
};
use toolgate_core::digest::Digest;
use toolgate_core::tool::Effect;
use toolgate_testkit::store_conformance::{self, Subject, closing, line, number, opening, question};
use toolgate_testkit::store_folder::TestFolder;

/// A clock that moves when it is told to.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.load(Ordering::SeqCst)
    }

    fn fill(&self, _bytes: &mut [u8]) -> Result<(), NoRandomnessError> {
        Err(NoRandomnessError)
    }
}

struct Bench {
    store: Option<SqliteStore>,
    clock: Hand,
    folder: TestFolder,
}

fn open(folder: &Path, clock: &Hand) -> SqliteStore {
    SqliteStore::open(folder, RootKey::from_bytes([7; 32]), clock.clone()).unwrap()
}

impl Bench {
    fn new() -> Self {
        let (folder, clock) = (TestFolder::new("store").unwrap(), Hand::default());
        Self { store: Some(open(folder.path(), &clock)), clock, folder }
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(open(self.folder.path(), &self.clock));
    }

    fn other(&self) -> SqliteStore {
        open(self.folder.path(), &self.clock)
    }
}

impl Subject for Bench {
    type Store = SqliteStore;

    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn advance(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    async fn answer(&self, number: &str, yes: bool) {
        self.store().answer(answer(number, "owner", yes, None), line("answered")).await.unwrap();
    }
}

fn answer(number: &str, person: &str, yes: bool, totp_step: Option<u64>) -> NewAnswer {
    let method = if totp_step.is_some() { "totp" } else { "ed25519" }.to_owned();
    let answer = Answered {
        person: person.parse().unwrap(),
        yes,
        method,
        evidence: Bytes::from_static(b"proof"),
        at_ms: 5,
    };
    NewAnswer { question: number.to_owned(), answer, needed: 1, totp_step }
}

fn secret_line(text: &str, subject: &str, value: &'static [u8]) -> Line {
    let disclosed = vec![
        Disclosed { path: "arguments", salt: [1; 32], bytes: Bytes::from_static(value) },
        Disclosed { path: "params", salt: [2; 32], bytes: Bytes::from_static(b"{}") },
    ];
    Line { leaf: text.into(), disclosed, subject: subject.into() }
}

/// Whether a text is anywhere in the files of a folder.
fn lies_in(folder: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return lies_in(&path, needle);
        }
        std::fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
    })
}

#[tokio::test]
async fn does_what_every_store_owes() {
    store_conformance::run(Bench::new).await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let mut bench = Bench::new();
    bench.store().append(line("a")).await.unwrap();
    let Opened::Fresh(intent) = bench.store().open(opening(1, "pay", true, None)).await.unwrap() else {
        panic!("not opened");
    };
    bench.reopen();
    assert_eq!(bench.store().open_calls().await.unwrap(), [(number(1), intent)]);
    assert_eq!(bench.store().size(), Ok(2));
    bench.store().close(closing(1, Some(b"paid"))).await.unwrap();
    bench.reopen();
    assert_eq!(bench.store().open_calls().await.unwrap(), []);
    assert!(matches!(bench.store().open(opening(2, "pay", true, None)).await, Ok(Opened::Repeat(_))));
    assert_eq!(bench.store().records(Position(0), 10).unwrap(), [&b"a"[..], b"intent", b"outcome"]);
}

#[tokio::test]
async fn records_are_read_from_any_place() {
    let bench = Bench::new();
    // Together, so that some share a transaction.
    let store = Arc::new(bench.other());
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.append(line("x")).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for from in 0..=50 {
        assert_eq!(
            bench.store().records(Position(from), 1000).unwrap().len() as u64,
            50 - from,
            "from {from}"
        );
        assert_eq!(bench.store().records(Position(from), 1).unwrap().len() as u64, u64::from(from < 50));
    }
    assert!(bench.store().records(Position(51), 1).unwrap().is_empty());
}

#[tokio::test]
async fn a_time_is_found_on_the_log_even_if_the_clock_goes_back() {
    let bench = Bench::new();
    let at = |ms| Bench::now_ms(&bench) + ms;
    let start = at(0);
    for moment in [10, 20, 15, 30] {
        bench.clock.0.store(moment, Ordering::SeqCst);
        bench.store().append(line("x")).await.unwrap();
    }
    for (ms, want) in [(0, 0), (10, 0), (11, 1), (20, 1), (21, 3), (30, 3), (31, 4)] {
        assert_eq!(bench.store().first_since(start + ms), Ok(Position(want)), "since {ms}");
    }
}

#[tokio::test]
async fn values_lie_sealed_and_read_back() {
    let mut bench = Bench::new();
    let at = bench.store().append(secret_line("leaf", "ada", b"a very private value")).await.unwrap();
    let none = bench.store().append(line("no values")).await.unwrap();
    bench.store().open(opening(1, "pay", true, None)).await.unwrap();
    bench.store().close(closing(1, Some(b"a very private answer"))).await.unwrap();
    let asked = question(bench.now_ms(), "a", "pay", "p");
    bench.store().ask(asked, line("asked")).await.unwrap();
    bench.reopen();
    let values = bench.store().values(at).unwrap();
    let read: Vec<_> = values.iter().map(|v| (v.path.as_str(), v.salt[0], &v.bytes[..])).collect();
    assert_eq!(read, [("arguments", 1, &b"a very private value"[..]), ("params", 2, b"{}")]);
    assert!(bench.store().values(none).unwrap().is_empty());
    assert!(bench.store().values(Position(99)).unwrap().is_empty());
    for needle in [&b"very private"[..], b"statement of"] {
        assert!(!lies_in(bench.folder.path(), needle), "{}", String::from_utf8_lossy(needle));
    }
    // Another root key opens nothing.
    let other =
        SqliteStore::open(bench.folder.path(), RootKey::from_bytes([8; 32]), bench.clock.clone()).unwrap();
    assert!(matches!(other.values(at), Err(StoreError::Read(_))));
}

#[tokio::test]
async fn an_erased_record_is_gone_and_the_log_stays() {
    let bench = Bench::new();
    let store = bench.store();
    let first = store.append(secret_line("one", "ada", b"first value")).await.unwrap();
    let second = store.append(secret_line("two", "ada", b"second value")).await.unwrap();
    store.erase(Erase::Record(first), line("erasure")).await.unwrap();
    assert!(store.values(first).unwrap().is_empty());
    assert_eq!(store.values(second).unwrap().len(), 2);
    assert_eq!(store.records(Position(0), 10).unwrap(), [&b"one"[..], b"two", b"erasure"]);
    let again = store.erase(Erase::Record(first), line("erasure")).await;
    assert!(matches!(again, Err(ManageError::Missing(_))), "{again:?}");
    assert_eq!(store.size(), Ok(3), "what erased nothing is not on the log");
}

#[tokio::test]
async fn an_erased_answer_stands_in_for_nothing() {
    let bench = Bench::new();
    let store = bench.store();
    store.open(opening(1, "pay", true, None)).await.unwrap();
    let outcome = store.close(closing(1, Some(b"paid"))).await.unwrap();
    assert!(matches!(store.open(opening(2, "pay", true, None)).await, Ok(Opened::Repeat(_))));
    store.erase(Erase::Record(outcome), line("erasure")).await.unwrap();
    assert!(matches!(store.open(opening(3, "pay", true, None)).await, Ok(Opened::Fresh(_))));
}

#[tokio::test]
async fn an_erased_subject_is_gone_even_while_another_process_writes_about_it() {
    let bench = Bench::new();
    let (store, other) = (bench.store(), bench.other());
    let mut places = Vec::new();
    for (store, subject) in [(store, "ada"), (&other, "ada"), (store, "bob")] {
        places.push(store.append(secret_line("leaf", subject, b"value")).await.unwrap());
    }
    store.open(opening(1, "pay", true, None)).await.unwrap();
    let Closing { line: with_answer, .. } = closing(1, Some(b"paid"));
    let with_answer = Line { subject: "ada".into(), ..with_answer };
    let call = number(1);
    places.push(store.close(Closing { call, line: with_answer, keep: true }).await.unwrap());
    let asked = Line { subject: "ada".into(), ..line("asked") };
    store.ask(question(bench.now_ms(), "a", "pay", "p"), asked).await.unwrap();
    let sealed = sealed_bytes(bench.folder.path(), places[0]);
    assert!(lies_in(bench.folder.path(), &sealed));

    assert_eq!(store.stored_of("ada", Position(0), 10).unwrap(), [places[0], places[1], places[3]]);
    store.erase(Erase::Subject("ada".into()), line("erasure")).await.unwrap();
    assert!(store.values(places[0]).unwrap().is_empty());
    assert!(store.values(places[1]).unwrap().is_empty());
    assert_eq!(store.values(places[2]).unwrap().len(), 2, "somebody else's value stays");
    assert!(
        matches!(store.open(opening(2, "pay", true, None)).await, Ok(Opened::Fresh(_))),
        "the answer is gone"
    );
    let question = store.question("q-a", bench.now_ms()).await.unwrap().unwrap();
    assert_eq!((question.state, question.statement.len()), (QuestionState::Expired, 0));
    assert!(!lies_in(bench.folder.path(), &sealed), "not even the sealed bytes are left");

    // Both still hold the erased key in memory. What they write now is sealed under a new one.
    for store in [store, &other] {
        let at = store.append(secret_line("leaf", "ada", b"later value")).await.unwrap();
        assert_eq!(store.values(at).unwrap().len(), 2);
    }
    let again = store.erase(Erase::Subject("nobody".into()), line("erasure")).await;
    assert!(matches!(again, Err(ManageError::Missing(_))), "{again:?}");
}

/// The sealed bytes of a record's values, as they lie in the database, where a transaction wrote no other record.
fn sealed_bytes(folder: &Path, at: Position) -> Vec<u8> {
    let connection = rusqlite::Connection::open(folder.join("state.db")).unwrap();
    let at = i64::try_from(at.0).unwrap();
    let entries: Vec<u8> = connection
        .query_row("SELECT entries FROM blob WHERE first_index = ?1", [at], |row| row.get(0))
        .unwrap();
    // After the distance, the seed and the length.
    entries.get(40..).unwrap().to_vec()
}

#[tokio::test]
async fn values_that_were_written_together_are_forgotten_apart() {
    const COUNT: usize = 60;
    let bench = Bench::new();
    let store = Arc::new(bench.other());
    let subject = |number: usize| ["ada", "bob", "eve"][number % 3];
    let tasks: Vec<_> = (0..COUNT)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                // A value as large as a row makes the next one begin another row.
                let value = Bytes::from(vec![b'v'; if number % 20 == 0 { 5 << 20 } else { number }]);
                let disclosed = vec![Disclosed { path: "arguments", salt: [1; 32], bytes: value.clone() }];
                let line = Line { leaf: b"leaf".into(), disclosed, subject: subject(number).into() };
                (store.append(line).await.unwrap(), number, value)
            })
        })
        .collect();
    let mut written = Vec::new();
    for task in tasks {
        written.push(task.await.unwrap());
    }
    assert!(store.written().batches < written.len() as u64, "some were written together");
    let check = |gone: &dyn Fn(usize) -> bool| {
        for (at, number, value) in &written {
            let read = store.values(*at).unwrap();
            let read: Vec<&Bytes> = read.iter().map(|value| &value.bytes).collect();
            let want = if gone(*number) { Vec::new() } else { vec![value] };
            assert!(read == want, "number {number} at {at:?}");
        }
    };
    check(&|_| false);
    let stored = store.stored_of("bob", Position(0), 100).unwrap();
    let mut want: Vec<_> =
        written.iter().filter(|(_, number, _)| subject(*number) == "bob").map(|(at, ..)| *at).collect();
    want.sort();
    assert_eq!(stored, want);
    assert_eq!(store.stored_of("bob", want[3], 5).unwrap(), want[3..8]);
    for (at, number, _) in &written {
        if number % 7 == 0 {
            store.erase(Erase::Record(*at), line("erasure")).await.unwrap();
            let again = store.erase(Erase::Record(*at), line("erasure")).await;
            assert!(matches!(again, Err(ManageError::Missing(_))), "{again:?}");
        }
    }
    check(&|number| number % 7 == 0);
    store.erase(Erase::Subject("bob".into()), line("erasure")).await.unwrap();
    check(&|number| number % 7 == 0 || subject(number) == "bob");
    assert!(store.stored_of("bob", Position(0), 100).unwrap().is_empty());
}

#[tokio::test]
async fn a_changed_value_does_not_open() {
    let bench = Bench::new();
    let at = bench.store().append(secret_line("leaf", "ada", b"value")).await.unwrap();
    let to = bench.store().append(secret_line("other leaf", "ada", b"other value")).await.unwrap();
    let connection = rusqlite::Connection::open(bench.folder.path().join("state.db")).unwrap();
    // Another record's values in its place, with their own key.
    connection
        .execute(
            "UPDATE blob SET entries = (SELECT entries FROM blob WHERE first_index = ?1) WHERE first_index = ?2",
            [at.0, to.0].map(|index| i64::try_from(index).unwrap()),
        )
        .unwrap();
    assert!(matches!(bench.store().values(to), Err(StoreError::Read(_))));
    assert_eq!(bench.store().values(at).unwrap().len(), 2);
}

#[tokio::test]
async fn many_waiting_writes_share_a_flush() {
    let bench = Bench::new();
    let store = Arc::new(bench.other());
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..50 {
                    store.append(line("x")).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let written = store.written();
    assert_eq!(written.records, 64 * 50);
    assert!(written.records >= 20 * written.batches, "{written:?}");
}

#[tokio::test]
async fn a_call_takes_two_transactions() {
    let bench = Bench::new();
    for call in 0..10 {
        bench.store().open(opening(call, "pay", false, None)).await.unwrap();
        bench.store().close(closing(call, Some(b"paid"))).await.unwrap();
        bench.store().delivered(number(call));
    }
    assert_eq!((bench.store().written().batches, bench.store().written().records), (20, 20));
}

#[tokio::test]
async fn old_answers_go_away() {
    let bench = Bench::new();
    for call in 0..600 {
        bench.store().open(opening(call, &call.to_string(), true, None)).await.unwrap();
        bench.store().close(closing(call, Some(b"paid"))).await.unwrap();
    }
    let connection = rusqlite::Connection::open(bench.folder.path().join("state.db")).unwrap();
    let count = || connection.query_row("SELECT count(*) FROM call", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 600);
    bench.advance(REPEAT_WINDOW_MS + 1);
    // The writer tidies when it has nothing else to do.
    while count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn another_process_is_noticed_and_its_indices_do_not_collide() {
    let bench = Bench::new();
    let (store, other) = (bench.store(), bench.other());
    let mut changes = store.changes();
    store.append(line("a")).await.unwrap();
    changes.mark_unchanged();
    other.add_agent(agent("bot", 1), line("agent added")).await.unwrap();
    changes.changed().await.unwrap();
    assert_eq!(store.agents().unwrap(), [agent("bot", 1)]);
    assert_eq!(store.append(line("b")).await, Ok(Position(2)));
    assert_eq!(other.append(line("c")).await, Ok(Position(3)));
    assert_eq!(store.records(Position(0), 9).unwrap(), [&b"a"[..], b"agent added", b"b", b"c"]);
}

#[tokio::test]
async fn a_failed_write_poisons_the_store_until_it_is_opened_again() {
    let mut bench = Bench::new();
    bench.store().append(line("a")).await.unwrap();
    // The table goes away under its feet: whatever fails, it is not tried again.
    let connection = rusqlite::Connection::open(bench.folder.path().join("state.db")).unwrap();
    connection.execute_batch("ALTER TABLE batch RENAME TO hidden").unwrap();
    assert!(matches!(bench.store().append(line("b")).await, Err(StoreError::Write(_))));
    connection.execute_batch("ALTER TABLE hidden RENAME TO batch").unwrap();
    assert!(matches!(bench.store().append(line("c")).await, Err(StoreError::Poisoned(_))));
    assert!(matches!(bench.store().open(opening(1, "x", true, None)).await, Err(StoreError::Poisoned(_))));
    assert!(bench.store().poisoned().is_some());
    bench.reopen();
    assert_eq!(bench.store().append(line("d")).await, Ok(Position(1)));
    assert_eq!(bench.store().records(Position(0), 9).unwrap(), [b"a", b"d"]);
}

#[tokio::test]
async fn while_the_log_is_not_published_calls_end_and_none_begins() {
    let bench = Bench::new();
    bench.store().open(opening(1, "x", true, None)).await.unwrap();
    bench.store().stop_calls("the log is not published");
    assert!(bench.store().open(opening(2, "y", true, None)).await.is_err());
    bench.store().close(closing(1, None)).await.unwrap();
    bench.store().append(line("refusal")).await.unwrap();
    bench.store().resume_calls();
    bench.store().open(opening(2, "y", true, None)).await.unwrap();
}

#[tokio::test]
async fn a_record_has_to_fit() {
    let bench = Bench::new();
    for length in [0, 65_536] {
        let line = Line { leaf: vec![b'x'; length], ..line("") };
        assert!(matches!(bench.store().append(line).await, Err(StoreError::Write(_))), "length {length}");
    }
    let line = Line { leaf: vec![b'x'; 65_535], ..line("") };
    assert_eq!(bench.store().append(line).await, Ok(Position(0)));
    assert_eq!(bench.store().records(Position(0), 1).unwrap()[0].len(), 65_535);
}

#[test]
fn a_file_of_another_version_is_not_opened() {
    let bench = Bench::new();
    let path = bench.folder.path().join("state.db");
    let attempt =
        || SqliteStore::open(bench.folder.path(), RootKey::from_bytes([7; 32]), Hand::default()).err();
    let connection = rusqlite::Connection::open(&path).unwrap();
    assert!(attempt().is_none());
    connection.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(attempt(), Some(OpenStoreError::Newer { version: 99, .. })));
    connection.pragma_update(None, "user_version", 1).unwrap();
    assert!(matches!(attempt(), Some(OpenStoreError::Older { version: 1 })));
}

#[test]
fn others_cannot_read_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    for name in ["state.db", "state.db-wal", "state.db-shm", "state.db.reserve"] {
        let mode = std::fs::metadata(bench.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

fn agent(name: &str, token: u8) -> AgentRow {
    AgentRow {
        name: name.parse().unwrap(),
        token_hash: Some([token; 32]),
        uid: None,
        groups: vec!["a".parse().unwrap(), "b".parse().unwrap()],
        disabled: false,
        added_ms: 3,
    }
}

#[tokio::test]
async fn agents() {
    let bench = Bench::new();
    let store = bench.store();
    store.add_agent(agent("bot", 1), line("added")).await.unwrap();
    for (what, taken) in [("name", agent("bot", 2)), ("token", agent("other", 1))] {
        assert!(
            matches!(
                store.add_agent(taken, line("added")).await,
                Err(ManageError::Conflict(_) | ManageError::Exists { .. })
            ),
            "{what}"
        );
    }
    let by_user = AgentRow { token_hash: None, uid: Some(1000), ..agent("local", 0) };
    store.add_agent(by_user.clone(), line("added")).await.unwrap();
    assert!(
        store
            .add_agent(AgentRow { token_hash: None, uid: None, ..agent("idle", 0) }, line("added"))
            .await
            .is_ok()
    );
    assert_eq!(store.agent_by_token(&[1; 32]).unwrap(), Some(agent("bot", 1)));
    assert_eq!(store.agent_by_uid(1000).unwrap(), Some(by_user));
    assert_eq!((store.agent_by_token(&[9; 32]).unwrap(), store.agent_by_uid(9).unwrap()), (None, None));

    let name = || "bot".parse().unwrap();
    store.set_agent_token(name(), [5; 32], line("token")).await.unwrap();
    assert_eq!(store.agent_by_token(&[1; 32]).unwrap(), None);
    store.set_agent_disabled(name(), true, line("disabled")).await.unwrap();
    assert!(store.agent_by_token(&[5; 32]).unwrap().unwrap().disabled);
    store.remove_agent(name(), line("removed")).await.unwrap();
    assert!(matches!(store.remove_agent(name(), line("removed")).await, Err(ManageError::Missing(_))));
    assert!(matches!(store.set_agent_disabled(name(), true, line("x")).await, Err(ManageError::Missing(_))));
    assert_eq!(store.size(), Ok(6), "what was refused is not on the log");
}

#[tokio::test]
async fn pins_are_accepted_as_they_were_reviewed() {
    let bench = Bench::new();
    let store = bench.store();
    let pin = |version: &str| Pin {
        tool: "web/post".parse().unwrap(),
        definition: Bytes::from(version.to_owned()),
        effects: BTreeSet::from([Effect::Egress, Effect::Write]),
        digest: Digest::of("pin", &[version.as_bytes()]),
        accepted_by: "owner".into(),
        accepted_ms: 4,
    };
    let digest = |version: &str| Some(pin(version).digest);
    let stale = store.accept_pin(pin("1"), digest("0"), line("pin")).await;
    assert!(matches!(stale, Err(ManageError::Conflict(_))), "{stale:?}");
    store.accept_pin(pin("1"), None, line("pin")).await.unwrap();
    assert!(store.accept_pin(pin("2"), None, line("pin")).await.is_err(), "there is one by now");
    store.accept_pin(pin("2"), digest("1"), line("pin")).await.unwrap();
    assert_eq!(store.pins().unwrap(), [pin("2")]);
    store.remove_pin(pin("2").tool, line("pin")).await.unwrap();
    assert!(matches!(store.remove_pin(pin("2").tool, line("pin")).await, Err(ManageError::Missing(_))));
    assert!(store.pins().unwrap().is_empty());
}

#[tokio::test]
async fn people_answer_once_each_and_codes_count_once() {
    let bench = Bench::new();
    let store = bench.store();
    let person = |name: &str, method: &str| PersonRow {
        name: name.parse().unwrap(),
        method: method.into(),
        public_key: Bytes::from_static(b"key"),
        sealed: Bytes::from_static(b"sealed"),
        added_ms: 1,
    };
    store.add_person(person("ada", "totp"), line("person")).await.unwrap();
    assert!(matches!(
        store.add_person(person("ada", "totp"), line("x")).await,
        Err(ManageError::Exists { .. })
    ));
    store.add_person(person("ada", "ed25519"), line("person")).await.unwrap();
    assert_eq!(store.persons().unwrap(), [person("ada", "ed25519"), person("ada", "totp")]);

    let ask = async |name: &str, what: &str| {
        store.ask(question(bench.now_ms(), name, what, "p"), line("asked")).await.unwrap();
    };
    let say = async |new: NewAnswer| store.answer(new, line("answered")).await;
    ask("a", "pay").await;
    let two = |person: &str| NewAnswer { needed: 2, ..answer("q-a", person, true, None) };
    assert_eq!(say(two("ada")).await, Ok(QuestionState::Open));
    assert!(matches!(say(two("ada")).await, Err(ManageError::Conflict(_))), "one answer per person");
    assert_eq!(say(two("bob")).await, Ok(QuestionState::Approved));
    assert!(matches!(say(two("eve")).await, Err(ManageError::Conflict(_))), "it is decided");
    let stored = store.question("q-a", bench.now_ms()).await.unwrap().unwrap();
    assert_eq!(stored.answers.iter().map(|a| a.person.as_str()).collect::<Vec<_>>(), ["ada", "bob"]);

    ask("b", "post").await;
    ask("c", "wipe").await;
    ask("d", "look").await;
    assert_eq!(say(answer("q-b", "ada", true, Some(7))).await, Ok(QuestionState::Approved));
    for step in [7, 6] {
        let replayed = say(answer("q-c", "ada", true, Some(step))).await;
        assert!(matches!(replayed, Err(ManageError::Conflict(_))), "step {step}");
    }
    assert_eq!(say(answer("q-c", "ada", false, Some(8))).await, Ok(QuestionState::Denied));
    assert!(matches!(say(answer("q-d", "nobody", true, Some(9))).await, Err(ManageError::Conflict(_))));
    assert!(matches!(say(answer("q-x", "ada", true, None)).await, Err(ManageError::Missing(_))));
    bench.advance(60_000);
    assert!(matches!(say(answer("q-d", "ada", true, None)).await, Err(ManageError::Conflict(_))), "too late");
    let states: Vec<_> =
        store.questions(bench.now_ms()).unwrap().into_iter().map(|q| (q.number, q.state)).collect();
    assert!(states.contains(&("q-c".into(), QuestionState::Denied)), "{states:?}");
    assert!(states.contains(&("q-d".into(), QuestionState::Expired)), "{states:?}");

    store.remove_person("ada".parse().unwrap(), line("person")).await.unwrap();
    assert!(store.persons().unwrap().is_empty());
}

/// The table does not grow for ever; the log does.
#[tokio::test]
async fn questions_that_are_long_over_are_pruned() {
    let bench = Bench::new();
    let ask = async |name: &str, what: &str| {
        bench.store().ask(question(bench.now_ms(), name, what, "p"), line("asked")).await.unwrap().unwrap();
    };
    ask("a", "pay").await;
    ask("b", "post").await;
    bench.answer("q-b", true).await;
    bench.advance(60_000);
    let numbers =
        || bench.store().questions(bench.now_ms()).unwrap().into_iter().map(|q| q.number).collect::<Vec<_>>();
    ask("c", "wipe").await;
    assert_eq!(numbers().len(), 3, "what is over can be looked at for a day");
    bench.advance(86_400_001);
    ask("d", "look").await;
    assert_eq!(numbers(), ["q-d", "q-c"]);
    assert_eq!(bench.store().size(), Ok(5));
}
