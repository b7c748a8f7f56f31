//! What the launcher promises, with real processes.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use toolgate_sandbox::{Ended, Launch, LaunchError, Launcher};

fn shell(script: &str) -> Launch {
    Launch { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()], ..Launch::default() }
}

/// Whether a process lives and is no zombie.
fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

async fn until_gone(pid: &str) {
    while lives(pid) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_environment_holds_only_what_is_named() {
    let launcher = Launcher::start().unwrap();
    let launch = Launch { env: vec![("ONLY".into(), "this".into())], ..shell("exec /usr/bin/env") };
    let mut child = launcher.spawn(launch).await.unwrap();
    let (_stdin, mut stdout) = child.take_streams().unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).await.unwrap();
    let names: Vec<_> = text
        .lines()
        .filter_map(|l| l.split('=').next())
        .filter(|n| !["PWD", "SHLVL", "_", "OLDPWD"].contains(n))
        .collect();
    // PWD and the like are the shell's own.
    assert_eq!(names, ["ONLY"], "{text}");
}

#[tokio::test]
async fn a_name_needs_a_path_to_be_looked_up_in() {
    let launcher = Launcher::start().unwrap();
    let refused = launcher.spawn(Launch { program: "sh".into(), ..Launch::default() }).await;
    assert!(matches!(refused, Err(LaunchError::NoPath { .. })));
    let missing = launcher.spawn(Launch { program: "/no/such/program".into(), ..Launch::default() }).await;
    assert_eq!(missing.unwrap_err().to_string(), "could not start `/no/such/program`");
    let env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    let child = launcher.spawn(Launch { program: "true".into(), env, ..Launch::default() }).await.unwrap();
    assert!(
        matches!(child.end(Duration::from_secs(20)).await, Ended::ByItself(Some(status)) if status.success())
    );
}

#[tokio::test]
async fn closing_its_input_is_enough_for_a_good_child() {
    let launcher = Launcher::start().unwrap();
    let mut child = launcher.spawn(shell("cat")).await.unwrap();
    let (mut stdin, stdout) = child.take_streams().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await.unwrap();
    assert_eq!(line, "hello\n");
    drop(stdin);
    assert!(
        matches!(child.end(Duration::from_secs(20)).await, Ended::ByItself(Some(status)) if status.success())
    );
}

#[tokio::test]
async fn a_stubborn_child_is_killed_with_all_it_started() {
    let launcher = Launcher::start().unwrap();
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 1000; done' & echo $!; while :; do sleep 1000; done";
    let mut child = launcher.spawn(shell_in_path(script)).await.unwrap();
    let (stdin, stdout) = child.take_streams().unwrap();
    let mut grandchild = String::new();
    BufReader::new(stdout).read_line(&mut grandchild).await.unwrap();
    assert!(lives(&grandchild));
    drop(stdin);
    assert_eq!(child.end(Duration::from_millis(50)).await, Ended::Killed);
    until_gone(&grandchild).await;
}

#[tokio::test]
async fn dropping_a_child_kills_all_it_started() {
    let launcher = Launcher::start().unwrap();
    let mut child = launcher.spawn(shell_in_path("sleep 1000 & echo $!; wait")).await.unwrap();
    let (_stdin, stdout) = child.take_streams().unwrap();
    let mut grandchild = String::new();
    BufReader::new(stdout).read_line(&mut grandchild).await.unwrap();
    drop(child);
    until_gone(&grandchild).await;
}

#[tokio::test]
async fn a_child_dies_with_its_launcher() {
    let launcher = Launcher::start().unwrap();
    let mut child = launcher.spawn(shell_in_path("exec sleep 1000")).await.unwrap();
    drop(launcher);
    let status = child.exited().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

#[tokio::test]
async fn standard_error_never_blocks_the_child() {
    let launcher = Launcher::start().unwrap();
    let mut child = launcher
        .spawn(shell_in_path("head -c 1000000 /dev/zero | tr '\\0' x >&2; printf '\\033[2Jend' >&2"))
        .await
        .unwrap();
    assert!(child.exited().await.unwrap().success());
    while !child.stderr().text().ends_with("xx\\u{1b}[2Jend") {
        tokio::task::yield_now().await;
    }
}

fn shell_in_path(script: &str) -> Launch {
    Launch { env: vec![("PATH".into(), "/usr/bin:/bin".into())], ..shell(script) }
}
