//! What the launcher promises, with real processes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use toolgate_sandbox::cell::{Limits, Profile};
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

/// A process that goes without huge pages hands that on to what it starts, unless somebody sees to it.
#[tokio::test]
async fn a_child_has_huge_pages_though_the_gate_has_none() {
    let enabled = |status: &str| status.lines().any(|line| line == "THP_enabled:\t1");
    rustix::thread::disable_transparent_huge_pages(true).unwrap();
    assert!(!enabled(&std::fs::read_to_string("/proc/self/status").unwrap()), "nothing to be seen to");
    let launcher = Launcher::start().unwrap();
    let mut child = launcher.spawn(shell("cat /proc/self/status")).await.unwrap();
    let (_stdin, mut stdout) = child.take_streams().unwrap();
    let mut status = String::new();
    stdout.read_to_string(&mut status).await.unwrap();
    assert!(enabled(&status), "{status}");
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

fn in_cell(script: &str) -> Launch {
    Launch { program: "sh".into(), cell: Some(Box::default()), ..shell(script) }
}

fn launcher() -> Launcher {
    Launcher::start().unwrap().with_maker(env!("CARGO_BIN_EXE_cell-launcher").into())
}

/// The processes of the host that have this in their command line.
fn marked(mark: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(mark)
    })
    .count()
}

#[tokio::test]
async fn a_child_in_a_cell_has_what_its_profile_names_and_nothing_else() {
    let secret = std::path::Path::new("/var/tmp").join(format!("toolgate-launch-{}", std::process::id()));
    std::fs::write(&secret, "a secret of the host").unwrap();
    let script = format!("exec 2>&1; env | sort; pwd; cat {}", secret.display());
    let profile = Profile { env: vec![("NAMED".into(), "yes".into())], ..Profile::default() };
    let env = vec![("ONLY".into(), "this".into())];
    let launch = Launch { env, cell: Some(Box::new(profile)), ..in_cell(&script) };
    let mut child = launcher().spawn(launch).await.unwrap();
    let gauge = child.gauge().unwrap();
    let enforced = gauge.enforced;
    assert_eq!(gauge.peak_bytes().is_some(), enforced.total);
    assert!(enforced.landlock_abi > 0 && enforced.limits == Limits::default(), "{enforced:?}");
    let (_stdin, mut stdout) = child.take_streams().unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).await.unwrap();
    std::fs::remove_file(secret).unwrap();
    let (home, after) = text.split_once('\n').unwrap();
    assert_eq!(home, "HOME=/home/agent");
    assert!(after.starts_with("NAMED=yes\nONLY=this\nPATH="), "{text}");
    assert!(after.contains("\n/home/agent\n") && after.ends_with("No such file or directory\n"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_started_in_a_cell_says_why() {
    let launcher = launcher();
    let spawn = |program: &str| {
        let launch = Launch { program: program.into(), ..in_cell("") };
        let launcher = launcher.clone();
        async move { launcher.spawn(launch).await }
    };
    let mut child = spawn("no-such-program").await.unwrap();
    let why = child.not_started().await.unwrap();
    assert!(why.contains("starting `no-such-program`") && why.contains("No such file"), "{why}");
    for (program, why) in [("/no/such/program", "no such program"), ("/usr/../etc/x", "without `..`")] {
        let refused = spawn(program).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert!(spawn("/usr/bin/true").await.unwrap().exited().await.unwrap().success());
}

#[tokio::test]
async fn nothing_outlives_its_cell() {
    let launcher = launcher();
    for (name, end) in [("ends", "exit 0"), ("stays", "trap '' TERM; sleep 1000"), ("dropped", "sleep 1000")]
    {
        let mark = format!("{name}-{}", std::process::id());
        let script = format!("(setsid sh -c 'trap \"\" TERM HUP; sleep 1000; : {mark}' &) ; echo up; {end}");
        let mut child = launcher.spawn(in_cell(&script)).await.unwrap();
        let (stdin, stdout) = child.take_streams().unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await.unwrap();
        assert_eq!(line, "up\n");
        drop(stdin);
        match name {
            "dropped" => drop(child),
            "ends" => assert!(matches!(child.end(Duration::from_secs(20)).await, Ended::ByItself(Some(_)))),
            _ => assert_eq!(child.end(Duration::from_millis(50)).await, Ended::Killed),
        }
        while marked(&mark) > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_child_in_a_cell_is_asked_before_it_is_killed() {
    let launcher = launcher();
    // It does not mind that its input is closed; what it started is asked with it.
    let script = "(trap 'echo child asked; exit' TERM; while :; do sleep 0.05; done) & \
        trap 'wait; echo asked; exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let mut child = launcher.spawn(in_cell(script)).await.unwrap();
    let (stdin, stdout) = child.take_streams().unwrap();
    let mut lines = BufReader::new(stdout).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "up");
    drop(stdin);
    let ended = child.end(Duration::from_secs(2)).await;
    assert!(matches!(ended, Ended::ByItself(Some(status)) if status.code() == Some(7)), "{ended:?}");
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said.push(line);
    }
    assert_eq!(said, ["child asked", "asked"]);
}
