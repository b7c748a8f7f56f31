//! What a cell is, with a real kernel.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::{cells, finish, spec};
use toolgate_sandbox::cell::{CellError, Ended, Layers};

async fn run(script: &str) -> (String, String, Ended) {
    let (spec, kept) = spec(&["/bin/sh", "-c", script]);
    let done = finish(&cells(Layers::ALL), &spec, kept).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(done.stdout), text(done.stderr), done.ended)
}

#[tokio::test]
async fn a_program_runs_and_its_end_is_told() {
    let (out, err, ended) = run("echo hello; echo oops >&2; id -u; exit 3").await;
    assert_eq!(
        (out.as_str(), err.as_str(), ended.code, ended.signal),
        ("hello\n1000\n", "oops\n", Some(3), None)
    );
    let (_, _, ended) = run("kill -9 $$").await;
    assert_eq!((ended.code, ended.signal), (None, Some(9)));
}

#[tokio::test]
async fn what_cannot_be_started_is_told() {
    let (spec, _kept) = spec(&["/no/such/program"]);
    let cell = cells(Layers::ALL).run(&spec).await.unwrap();
    match cell.ended().await {
        Err(CellError::Prepare { step, why }) => {
            assert_eq!(step, "starting `/no/such/program`");
            assert!(why.contains("No such file"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}
