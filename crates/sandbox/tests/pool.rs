//! Cells made in advance: what runs in them is what was asked for, where it was asked for, and nobody else's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{cells, spec};
use rustix::process::{Pid, Signal, kill_process};
use toolgate_sandbox::cell::{Cell, CellError, Cells, Finished, Layers, Place, Profile, Spec, Workspace};

fn shell(script: &str) -> Spec {
    spec(&["/bin/sh", "-c", script]).0
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Takes one that waits. Others may mount something on this machine at any time, and then none waits any more.
async fn taken(cells: &Cells, spec: &Spec) -> Cell {
    loop {
        cells.warm(spec, 1);
        until(|| cells.waiting(spec) > 0).await;
        let cell = cells.run(spec).await.unwrap();
        if cell.waited {
            return cell;
        }
    }
}

async fn said(cell: Cell, spec: &Spec) -> String {
    let Finished { ended, stdout, stderr, .. } = cell.finish(b"input", &spec.limits).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(ended.code, Some(0), "{} {}", text(&stdout), text(&stderr));
    text(&stdout)
}

/// The processes of the host whose parent is this one.
fn children(of: u32) -> BTreeSet<u32> {
    let parent = |id: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent(*id) == Some(of)).collect()
}

fn is_launcher(id: u32) -> bool {
    fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.starts_with(b"toolgate-launcher\0"))
}

#[tokio::test]
async fn what_is_bound_when_it_is_taken_is_what_runs() {
    let cells = cells(Layers::ALL);
    let mut spec = shell("echo $WHO; pwd; cat; env | cut -d= -f1 | sort | tr '\\n' ' '; id -u; hostname");
    cells.warm(&spec, 2);
    for (who, cwd) in [("first", "/tmp"), ("second", "/usr")] {
        spec.env.push(("WHO".to_owned(), who.to_owned()));
        spec.env.push((format!("ONLY_{who}"), "secret".to_owned()));
        spec.cwd = cwd.to_owned();
        let cell = taken(&cells, &spec).await;
        let want = format!("{who}\n{cwd}\ninputONLY_{who} PATH PWD WHO 1000\ncell\n");
        assert_eq!(said(cell, &spec).await, want);
        spec.env.truncate(1);
    }
    // Nothing else can be bound: another command is another command, in a cell of the same shape.
    let other = Spec { argv: vec!["/usr/bin/printf".to_owned(), "other".to_owned()], ..spec.clone() };
    assert_eq!(said(taken(&cells, &other).await, &other).await, "other");
}

#[tokio::test]
async fn what_cannot_be_started_is_told_as_of_any_cell() {
    let cells = cells(Layers::ALL);
    let good = shell("exit 0");
    let missing = Spec { argv: vec!["/no/such/program".to_owned()], ..good.clone() };
    let cell = taken(&cells, &missing).await;
    assert!(
        matches!(cell.ended().await, Err(CellError::Prepare { step, .. }) if step.contains("/no/such/program"))
    );
    let nowhere = Spec { cwd: "/no/such/folder".to_owned(), ..good.clone() };
    for _cold_and_warm in 0..2 {
        let refused = cells.run(&nowhere).await.unwrap_err().to_string();
        assert!(refused.contains("the working directory `/no/such/folder`"), "{refused}");
        until(|| cells.waiting(&good) > 0).await;
    }
    assert_eq!(said(taken(&cells, &good).await, &good).await, "");
}

#[tokio::test]
async fn nothing_of_one_is_there_in_the_next() {
    let cells = cells(Layers::ALL);
    let spec = shell(
        "ls -A /tmp /dev/shm; ls /proc | grep -c '^[0-9]'; echo x > /tmp/x; echo y > /dev/shm/y;
         ipcs -m | grep -c 0x; ipcmk -M 4096 > /dev/null; (setsid sleep 1000 &) ; exit 0",
    );
    let first = said(taken(&cells, &spec).await, &spec).await;
    assert!(first.starts_with("/dev/shm:\n\n/tmp:\n"), "{first}");
    for _ in 0..3 {
        assert_eq!(said(taken(&cells, &spec).await, &spec).await, first);
    }
}

#[tokio::test]
async fn a_cell_of_another_shape_is_never_taken() {
    let cells = cells(Layers::ALL);
    let good = shell("cat /etc/told 2>/dev/null; exit 0");
    drop(taken(&cells, &good).await);
    until(|| cells.waiting(&good) > 0).await;
    let file = |content: &str| Place::File { at: "/etc/told".to_owned(), content: content.to_owned() };
    let mut others = vec![good.clone(); 6];
    others[0].limits.memory_bytes += 1;
    others[1].limits.processes -= 1;
    others[2].places.push(file("one"));
    others[3].places.push(file("two"));
    others[4].writable.pop();
    others[5].net.push("api.example.com:443".parse().unwrap());
    for (index, other) in others.iter().enumerate() {
        let cell = cells.run(other).await.unwrap();
        assert!(!cell.waited, "{index}");
        let want = ["", "", "one", "two", "", ""][index];
        assert_eq!(said(cell, other).await, want, "{index}");
    }
    // What the gate keeps itself is no part of it.
    let mut same = good.clone();
    (same.limits.wall_ms, same.limits.output_bytes) = (1000, 10);
    assert_eq!(taken(&cells, &same).await.enforced.limits, same.limits);
}

/// A folder of the host with one file.
fn folder(name: &str, content: &str) -> PathBuf {
    let path = Path::new("/var/tmp").join(format!("toolgate-pool-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("file"), content).unwrap();
    path
}

fn planned(folder: &Path, workspace: Workspace, script: &str) -> Spec {
    let profile = Profile { workspace: Some((folder.to_owned(), workspace)), ..Profile::default() };
    profile.plan(["/bin/sh", "-c", script].map(str::to_owned).to_vec()).unwrap().spec
}

#[tokio::test]
async fn a_folder_that_was_replaced_is_another_one() {
    let cells = cells(Layers::ALL);
    for workspace in [Workspace::Overlay, Workspace::Read, Workspace::Write] {
        let folder = folder("replaced", "old");
        let plan = || planned(&folder, workspace, "cat file");
        assert_eq!(said(taken(&cells, &plan()).await, &plan()).await, "old");
        until(|| cells.waiting(&plan()) > 0).await;
        // What is changed in it is seen.
        fs::write(folder.join("file"), "changed").unwrap();
        assert_eq!(said(taken(&cells, &plan()).await, &plan()).await, "changed", "{workspace:?}");
        until(|| cells.waiting(&plan()) > 0).await;
        let moved = folder.with_extension("moved");
        fs::rename(&folder, &moved).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), "new").unwrap();
        let spec = plan();
        let cell = cells.run(&spec).await.unwrap();
        assert!(!cell.waited, "{workspace:?}");
        assert_eq!(said(cell, &spec).await, "new", "{workspace:?}");
        for path in [folder, moved] {
            fs::remove_dir_all(path).unwrap();
        }
    }
}

#[tokio::test]
async fn changes_of_an_overlay_are_its_own() {
    let cells = cells(Layers::ALL);
    let folder = folder("overlay", "as it was");
    let spec = planned(&folder, Workspace::Overlay, "cat file; echo changed > file; ls");
    for _ in 0..3 {
        let mut cell = taken(&cells, &spec).await;
        let changes = std::mem::take(&mut cell.changes);
        assert_eq!(said(cell, &spec).await, "as it wasfile\n");
        let found = toolgate_sandbox::cell::changes::read(&changes[0]).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["file"]);
    }
    assert_eq!(fs::read(folder.join("file")).unwrap(), b"as it was");
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn what_is_mounted_later_is_there() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let cells = cells(Layers::ALL);
    let folder = folder("mounted", "below");
    let spec = planned(&folder, Workspace::Write, "cat file");
    drop(taken(&cells, &spec).await);
    let below = folder.join("below");
    fs::create_dir(&below).unwrap();
    until(|| cells.waiting(&spec) > 0).await;
    assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&below).status().unwrap().success());
    fs::write(below.join("file"), "mounted").unwrap();
    let spec = planned(&folder, Workspace::Write, "cat below/file");
    let cell = cells.run(&spec).await.unwrap();
    let waited = cell.waited;
    let text = cell.finish(b"", &spec.limits).await.unwrap().stdout;
    assert!(Command::new("umount").arg(&below).status().unwrap().success());
    fs::remove_dir_all(folder).unwrap();
    assert_eq!((waited, text.as_slice()), (false, &b"mounted"[..]));
}

#[tokio::test]
async fn one_that_dies_while_it_waits_is_replaced() {
    // In a process of its own, so that no cells are killed but those of this test.
    if std::env::var_os(GATE).is_none() {
        let mut itself = another("one_that_dies_while_it_waits_is_replaced");
        assert!(itself.stdout(Stdio::null()).status().unwrap().success());
        return;
    }
    let cells = cells(Layers::ALL);
    let spec = shell("echo up");
    drop(taken(&cells, &spec).await);
    let launchers: Vec<u32> =
        children(std::process::id()).into_iter().filter(|id| is_launcher(*id)).collect();
    let waiting = || -> BTreeSet<u32> { launchers.iter().flat_map(|launcher| children(*launcher)).collect() };
    for _ in 0..3 {
        until(|| cells.waiting(&spec) > 0).await;
        let killed = waiting();
        assert!(!killed.is_empty());
        for id in &killed {
            let id = Pid::from_raw(i32::try_from(*id).unwrap()).unwrap();
            let _gone = kill_process(id, Signal::KILL);
        }
        // Whether or not it has been noticed: what runs, runs in another one.
        let cell = cells.run(&spec).await.unwrap();
        assert_eq!(said(cell, &spec).await, "up\n");
        until(|| cells.waiting(&spec) > 0 && waiting().is_disjoint(&killed)).await;
    }
    assert_eq!(said(taken(&cells, &spec).await, &spec).await, "up\n");
}

#[tokio::test]
async fn there_is_an_end_to_what_waits() {
    let cells = cells(Layers::ALL);
    let shape = |number| {
        let mut spec = shell("true");
        spec.limits.file_bytes += number;
        spec
    };
    cells.warm(&shape(0), 1000);
    until(|| cells.waiting(&shape(0)) == 8).await;
    for number in 1..=8 {
        cells.warm(&shape(number), 1);
        until(|| cells.waiting(&shape(number)) == 1).await;
    }
    assert_eq!(cells.waiting(&shape(0)), 0, "what was asked for the longest time ago is let go");
    cells.warm(&shape(8), 0);
    assert_eq!(cells.waiting(&shape(8)), 0);
}

#[tokio::test]
async fn what_can_no_longer_be_made_is_forgotten() {
    let cells = cells(Layers::ALL);
    let folder = folder("gone", "there");
    let spec = planned(&folder, Workspace::Read, "cat file");
    let cell = taken(&cells, &spec).await;
    fs::remove_dir_all(&folder).unwrap();
    drop(cell);
    until(|| cells.waiting(&spec) == 0).await;
    cells.warm(&spec, 2);
    let refused = loop {
        match cells.run(&spec).await {
            Err(refused) => break refused.to_string(),
            // It was made before the folder was gone.
            Ok(cell) => drop(cell),
        }
    };
    assert!(refused.contains("toolgate-pool-gone"), "{refused}");
    assert_eq!(cells.waiting(&spec), 0);
}

#[tokio::test]
async fn a_way_out_is_as_in_any_cell() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _gone = stream.unwrap().write_all(b"hello");
        }
    });
    let cells = cells(Layers::ALL);
    let profile =
        Profile { net: vec![format!("host.internal:{port},private").parse().unwrap()], ..Profile::default() };
    let script = format!(
        "import socket
print(socket.create_connection(('host.internal', {port})).recv(5))
try: socket.create_connection(('other.localhost', {port})); print('ESCAPED')
except OSError: print('refused')"
    );
    let spec = profile.plan(vec!["python3".to_owned(), "-c".to_owned(), script]).unwrap().spec;
    // Where there is no way out, it is said here.
    drop(cells.run(&spec).await.unwrap());
    for _ in 0..2 {
        let mut cell = taken(&cells, &spec).await;
        let mut network = cell.network.take().unwrap();
        let events = tokio::spawn(async move {
            let mut events = 0;
            while network.recv().await.is_some() {
                events += 1;
            }
            events
        });
        assert_eq!(said(cell, &spec).await, "b'hello'\nrefused\n");
        assert_eq!(events.await.unwrap(), 2);
    }
}

/// Says to a test that it was started by itself.
const GATE: &str = "TOOLGATE_TEST_GATE";

/// One of these tests, in a process of its own.
fn another(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(GATE, "1");
    command
}

/// All that were started by a process, and by those, and so on.
fn descendants(of: u32) -> BTreeSet<u32> {
    let mut all = children(of);
    for child in all.clone() {
        all.extend(descendants(child));
    }
    all
}

#[tokio::test]
async fn whatever_ends_the_gate_ends_what_waits() {
    let spec = shell("sleep 1000");
    if std::env::var_os(GATE).is_some() {
        let cells = cells(Layers::ALL);
        cells.warm(&spec, 3);
        until(|| cells.waiting(&spec) == 3).await;
        let _running = cells.run(&spec).await.unwrap();
        until(|| cells.waiting(&spec) == 3).await;
        println!("ready");
        std::io::stdout().flush().unwrap();
        // Until it is killed.
        let _killed = std::io::stdin().read(&mut [0]);
        return;
    }
    for killed in [false, true] {
        let mut gate = another("whatever_ends_the_gate_ends_what_waits")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(gate.stdout.take().unwrap()).lines();
        while !lines.next().unwrap().unwrap().contains("ready") {}
        let started = descendants(gate.id());
        assert!(started.len() >= 6, "a launcher, four cells, and a program: {started:?}");
        if killed {
            gate.kill().unwrap();
        }
        drop(gate.stdin.take());
        gate.wait().unwrap();
        until(|| started.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists())).await;
    }
}
