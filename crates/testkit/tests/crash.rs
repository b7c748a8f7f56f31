//! The gate is killed at every step, again and again in the same folder, and each of its writes fails in both halves.
//! After each mishap it is opened again and the whole log is verified.
#![expect(clippy::unwrap_used, clippy::panic, clippy::unreachable, reason = "tests")]

use std::process::Command;
use std::sync::Arc;

use toolgate_testkit::crash::{Found, Gate, Mishap, Plan, Step, check};
use toolgate_testkit::store_folder::TestFolder;

/// How many kills each step gets: with nine steps, 153 in all.
const KILLS: u32 = 17;

fn run_child(folder: &TestFolder, step: &str, nth: u32, at_once: u32) -> std::process::ExitStatus {
    Command::new(env!("CARGO_BIN_EXE_crash_child"))
        .arg(folder.path())
        .args([step, &nth.to_string(), "24", &at_once.to_string()])
        .status()
        .unwrap()
}

#[tokio::test]
async fn killed_while_it_asks_or_opens() {
    kill_at(&[Step::BeforeAsk, Step::AfterAsk, Step::BeforeOpen]).await;
}

#[tokio::test]
async fn killed_while_it_runs() {
    kill_at(&[Step::AfterOpen, Step::BeforeEffect, Step::AfterEffect]).await;
}

#[tokio::test]
async fn killed_while_it_closes_or_replies() {
    kill_at(&[Step::BeforeClose, Step::AfterClose, Step::BeforeReply]).await;
}

/// Kills the gate at each of these steps, again and again in the same folder.
async fn kill_at(steps: &[Step]) {
    for step in steps.iter().copied() {
        let folder = TestFolder::new("crash").unwrap();
        let mut last = Found { intents: 0, unknown: 0, effects: 0, replies: 0 };
        for round in 0..KILLS {
            // Different calls, and one to seven of them at once. Only every third call is asked about.
            let (nth, at_once) = (1 + (round * 5) % 7, 1 + round % 7);
            let status = run_child(&folder, step.name(), nth, at_once);
            assert!(!status.success(), "{} {nth} was not reached", step.name());
            let found = check(folder.path()).await.unwrap_or_else(|error| {
                let step = step.name();
                panic!("after {step}, time {nth}, {at_once} at once: {error:#}")
            });
            assert!(
                found.intents >= last.intents && found.effects >= last.effects,
                "something was forgotten"
            );
            last = found;
        }
        // A call whose process was killed between its intent and its outcome is unknown.
        if matches!(step, Step::AfterOpen | Step::BeforeEffect | Step::AfterEffect | Step::BeforeClose) {
            assert!(last.unknown >= KILLS as usize, "{}: {last:?}", step.name());
        }
    }
}

#[tokio::test]
async fn without_a_mishap_nothing_is_unknown() {
    let folder = TestFolder::new("crash-none").unwrap();
    assert!(run_child(&folder, "none", 1, 4).success());
    let found = check(folder.path()).await.unwrap();
    assert_eq!(found, Found { intents: 24, unknown: 0, effects: 24, replies: 24 });
}

#[tokio::test]
async fn every_write_fails_in_both_halves() {
    let writes = [
        Step::BeforeAsk,
        Step::AfterAsk,
        Step::BeforeOpen,
        Step::AfterOpen,
        Step::BeforeClose,
        Step::AfterClose,
    ];
    for step in writes {
        let folder = TestFolder::new("failing").unwrap();
        let (gate, _) = Gate::open(folder.path(), Plan::new(Some((step, 1, Mishap::Fails)))).await.unwrap();
        let mut refused = 0;
        for _ in 0..3 {
            refused += usize::from(!gate.call().await.unwrap());
        }
        drop(gate);
        let found = check(folder.path()).await.unwrap();
        // Three calls: two run at once and one is asked about. Exactly one of them meets the mishap.
        let want = match step {
            // Not written: nothing of it is on the log, and it did not run.
            Step::BeforeAsk | Step::AfterAsk | Step::BeforeOpen => {
                Found { intents: 2, unknown: 0, effects: 2, replies: 2 }
            }
            // Written although the store said no: it did not run, and is unknown after the next start.
            Step::AfterOpen => Found { intents: 3, unknown: 1, effects: 2, replies: 2 },
            // It ran and nothing was released.
            Step::BeforeClose => Found { intents: 3, unknown: 1, effects: 3, replies: 2 },
            Step::AfterClose => Found { intents: 3, unknown: 0, effects: 3, replies: 2 },
            Step::BeforeEffect | Step::AfterEffect | Step::BeforeReply => unreachable!("no write"),
        };
        assert_eq!((refused, found), (1, want), "{}", step.name());
    }
}

#[tokio::test]
async fn two_gates_on_one_store_do_not_end_each_others_calls() {
    let folder = TestFolder::new("two-gates").unwrap();
    let (first, _) = Gate::open(folder.path(), Plan::new(None)).await.unwrap();
    let (second, recovered) = Gate::open(folder.path(), Plan::new(None)).await.unwrap();
    assert_eq!(recovered, 0);
    let (first, second) = (Arc::new(first), Arc::new(second));
    let (a, b) = tokio::join!(Arc::clone(&first).calls(30, 3), Arc::clone(&second).calls(30, 3));
    a.unwrap();
    b.unwrap();
    drop((first, second));
    let found = check(folder.path()).await.unwrap();
    assert_eq!(found, Found { intents: 60, unknown: 0, effects: 60, replies: 60 });
}
