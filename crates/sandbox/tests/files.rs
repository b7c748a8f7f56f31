//! Files that go into a cell and come out of it, and what is told while it runs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::sync::Mutex;

use common::{cells, spec};
use toolgate_sandbox::cell::{Cell, CellError, Cut, Finished, Folder, Given, Layers, Place, Spec, Stream};

fn given(path: &str, content: &[u8], runs: bool) -> Given {
    Given { path: path.to_owned(), content: content.to_vec(), runs }
}

/// Runs a script in a folder with these files.
async fn run(script: &str, change: impl FnOnce(&mut Spec)) -> Result<(Finished, Folder), CellError> {
    let (mut spec, _kept) = spec(&["/bin/sh", "-c", script]);
    spec.hands_out = true;
    change(&mut spec);
    let mut cell: Cell = cells(Layers::ALL).run(&spec).await?;
    let folder = cell.folder.take().unwrap();
    Ok((cell.finish(b"", &spec.limits).await?, folder))
}

#[tokio::test]
async fn files_are_there_before_the_program_starts() {
    let all: Vec<u8> = (0..=255).collect();
    let (done, folder) = run("cat a; ./deep/er/run; id -u; stat -c '%u %a' a deep/er/run bytes", |spec| {
        spec.files = vec![
            given("a", b"first\n", false),
            given("a", b"last\n", false),
            given("deep/er/run", b"#!/bin/sh\necho ran\n", true),
            given("bytes", &all, false),
        ];
    })
    .await
    .unwrap();
    assert_eq!(
        (String::from_utf8_lossy(&done.stdout).as_ref(), done.ended.code),
        ("last\nran\n1000\n1000 644\n1000 755\n1000 644\n", Some(0)),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert_eq!(folder.take("bytes", 256).unwrap(), all);
}

/// What the program itself could not write, is not written for it; and nothing that is there leads anywhere.
#[tokio::test]
async fn files_are_not_put_elsewhere() {
    for (path, why) in [
        ("../a", "it has to lie below"),
        ("/tmp/a", "it has to lie below"),
        ("a/../../b", "it has to lie below"),
        ("link/a", "Not a directory"),
        ("link", "something that is no file has this name"),
        ("folder", "something that is no file has this name"),
    ] {
        let refused = run("true", |spec| {
            spec.places.push(Place::Symlink { at: "/tmp/link".to_owned(), to: "/var".to_owned() });
            spec.places.push(Place::File { at: "/tmp/folder/x".to_owned(), content: String::new() });
            spec.files = vec![given(path, b"x", false)];
        })
        .await;
        let Err(CellError::Prepare { step, why: told }) = refused else { panic!("{path}: {refused:?}") };
        assert_eq!(step, format!("the file `{path}`"));
        assert!(told.contains(why), "{path}: {told}");
    }
    let refused = run("true", |spec| {
        spec.cwd = "/usr".to_owned();
        spec.files = vec![given("a", b"x", false)];
    });
    let refused = refused.await.unwrap_err().to_string();
    assert!(refused.contains("Read-only file system") || refused.contains("Permission denied"), "{refused}");
}

#[tokio::test]
async fn only_plain_files_are_taken_out() {
    let script = "echo kept > f; mkdir d; echo deep > d/f; ln -s f link; ln -s /etc/passwd out; ln -s d way; \
        mkfifo fifo; echo hidden > closed; chmod 0 closed; head -c 11 /dev/zero > eleven; truncate -s 100M sparse; \
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; ln f hard";
    let (done, folder) = run(script, |_| {}).await.unwrap();
    assert_eq!(done.ended.code, Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let take = |path: &str| folder.take(path, 10).map_err(|error| error.to_string());
    for (path, want) in [("f", "kept\n"), ("d/f", "deep\n"), ("hard", "kept\n")] {
        assert_eq!(take(path).unwrap(), want.as_bytes(), "{path}");
    }
    let (no_file, outside) =
        ("it is no plain file, or a link leads there", "it has to lie below the folder that is worked in");
    for (path, want) in [
        ("none", "there is no such file"),
        ("link", no_file),
        ("out", no_file),
        ("way/f", no_file),
        ("fifo", no_file),
        ("sock", no_file),
        ("d", no_file),
        ("f/x", no_file),
        ("eleven", "it has 11 bytes, and 10 can be taken"),
        ("sparse", "it has 104857600 bytes, and 10 can be taken"),
        ("../tmp/f", outside),
        ("/etc/passwd", outside),
        ("", outside),
    ] {
        assert_eq!(take(path).unwrap_err(), want, "{path}");
    }
    assert_eq!(folder.take("eleven", 11).unwrap(), [0; 11]);
}

#[tokio::test]
async fn output_is_told_as_it_comes_and_not_more_than_is_passed_on() {
    let (spec, _kept) = spec(&["/bin/sh", "-c", "echo one; echo two >&2; yes"]);
    let cell = cells(Layers::ALL).run(&spec).await.unwrap();
    let heard = Mutex::new((Vec::new(), Vec::new()));
    let tell = |stream, bytes: &[u8]| {
        let mut heard = heard.lock().unwrap();
        match stream {
            Stream::Errors => heard.1.extend_from_slice(bytes),
            Stream::Output => heard.0.extend_from_slice(bytes),
        }
    };
    let done = cell.finish_when(b"", 100_000, std::future::pending(), tell).await.unwrap();
    assert_eq!((done.cut, done.stdout.len()), (Some(Cut::Output), 100_000));
    assert_eq!(heard.into_inner().unwrap(), (done.stdout, b"two\n".to_vec()));
}

#[tokio::test]
async fn who_is_not_wanted_any_more_is_killed_with_all_it_started() {
    let (spec, _kept) =
        spec(&["/bin/sh", "-c", "trap '' TERM; (sleep 600 & sleep 600) & echo up; sleep 600"]);
    let cell = cells(Layers::ALL).run(&spec).await.unwrap();
    let up = tokio::sync::Notify::new();
    let unwanted = async {
        up.notified().await;
        Cut::Unwanted
    };
    // It returns when nobody holds the streams any more, so nothing of it is left.
    let done = cell.finish_when(b"", 100, unwanted, |_, _| up.notify_one()).await.unwrap();
    assert_eq!((done.cut, done.stdout.as_slice()), (Some(Cut::Unwanted), b"up\n".as_slice()));
}
