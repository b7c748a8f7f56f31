//! Cells with a kernel of their own, and what the hostile programs come to in them. They take gVisor, so they are a suite of their own:
//! `cargo xtask test --with gvisor`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use common::{cells, finish, spec};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, MutexGuard};
use toolgate_sandbox::cell::changes::{self, What};
use toolgate_sandbox::cell::{
    Base, Cell, CellError, Cells, Cut, Finished, Given, Layers, Limits, Opened, Planned, Profile, Spec, Tier,
    Workspace,
};

/// Processes are counted below this one, so there is one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn alone() -> (MutexGuard<'static, ()>, Cells) {
    (ALONE.lock().await, cells(Layers::ALL))
}

fn in_gvisor(argv: &[&str]) -> (Spec, Vec<Opened>) {
    let (mut spec, kept) = spec(argv);
    spec.tier = Tier::Gvisor;
    (spec, kept)
}

async fn attempt(cells: &Cells, arguments: &[&str]) -> Finished {
    let argv: Vec<&str> = std::iter::once("/hostile").chain(arguments.iter().copied()).collect();
    let (spec, kept) = in_gvisor(&argv);
    finish(cells, &spec, kept).await
}

fn last(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.stdout).lines().last().unwrap_or_default().to_owned()
}

async fn script(cells: &Cells, script: &str) -> (String, String, Option<i32>) {
    let (spec, kept) = in_gvisor(&["/bin/sh", "-c", script]);
    let Finished { ended, stdout, stderr, .. } = finish(cells, &spec, kept).await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(stdout), text(stderr), ended.code)
}

/// How many processes there are below this one, but for the launcher of its cells.
fn processes() -> usize {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(number) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        parents.insert(number, parent.unwrap_or(0));
    }
    let own = std::process::id();
    let below = |number: &u32| {
        let mut above = std::iter::successors(parents.get(number), |above| parents.get(above));
        // Its children are launchers.
        parents.get(number) != Some(&own) && above.by_ref().take(parents.len()).any(|above| *above == own)
    };
    parents.keys().filter(|number| below(number)).count()
}

async fn all_gone() {
    while processes() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_program_runs_on_another_kernel_and_its_end_is_told() {
    let (_alone, cells) = alone().await;
    assert_eq!(cells.makes(Tier::Gvisor).await, Ok(0));
    let host = fs::read_to_string("/proc/version").unwrap();
    let (out, err, code) =
        script(&cells, "cat /proc/version; dmesg | head -1; id -u; cat; echo oops >&2; exit 3").await;
    let lines: Vec<&str> = out.lines().collect();
    let [version, begun, user] = lines.as_slice() else { panic!("{out} {err}") };
    assert_ne!(version.trim(), host.trim());
    assert!(begun.contains("Starting gVisor"), "{begun}");
    assert_eq!((*user, err.as_str(), code), ("0", "oops\n", Some(3)));
    let (out, _, _) =
        script(&cells, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status; cat /proc/self/uid_map").await;
    assert!(!out.contains("0001") && out.contains("CapEff:\t0000000000000000"), "{out}");
    // A signal is told as a shell tells it.
    assert_eq!(script(&cells, "kill -9 $$").await.2, Some(137));
    let (spec, kept) = in_gvisor(&["/bin/cat"]);
    let cell = cells.run(&spec).await.unwrap();
    assert_eq!(cell.enforced.tier, Tier::Gvisor);
    drop(kept);
    assert_eq!(cell.finish(b"in and out", &spec.limits).await.unwrap().stdout, b"in and out");
}

#[tokio::test]
async fn what_cannot_be_started_is_told() {
    let (_alone, cells) = alone().await;
    for (change, at, what) in [
        ("/no/such/program", "starting `/no/such/program` in gVisor", "no such file or directory"),
        ("/etc/nothing", "the working directory `/etc/nothing`", "No such file"),
    ] {
        let (mut spec, _kept) = in_gvisor(&[change]);
        if at.contains("directory") {
            spec.cwd = change.to_owned();
        }
        let told = match cells.run(&spec).await {
            Ok(cell) => cell.finish(b"", &spec.limits).await.map(drop),
            Err(error) => Err(error),
        };
        match told {
            Err(CellError::Prepare { step, why }) => {
                assert!(step == at && why.contains(what), "{step}: {why}")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_this_tier_cannot_do_is_refused() {
    let (_alone, cells) = alone().await;
    let (mut spec, _kept) = in_gvisor(&["true"]);
    spec.net.push("a.example:443".parse().unwrap());
    match cells.run(&spec).await {
        Err(CellError::Tier(why)) => {
            assert!(why.starts_with("the tier `gvisor` cannot let a cell reach hosts"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    // None is made in advance, and none that was is taken.
    let (spec, kept) = in_gvisor(&["/bin/true"]);
    let native = Spec { tier: Tier::Native, ..spec.clone() };
    cells.warm(&native, 1);
    cells.warm(&spec, 8);
    while cells.waiting(&native) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cells.waiting(&native), 1);
    let cell = cells.run(&spec).await.unwrap();
    assert!(!cell.waited);
    drop(kept);
    assert_eq!(cell.ended().await.unwrap().code, Some(0));
}

/// What has something of the host for its aim.
#[tokio::test]
async fn hostile_programs_do_not_reach_the_host() {
    let (_alone, cells) = alone().await;
    let canary = format!("/var/tmp/toolgate-gvisor-{}", std::process::id());
    fs::write(&canary, "a secret of the host").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let here = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let name = format!("toolgate-gvisor-{}", std::process::id());
    let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let by_path = format!("{canary}.sock");
    let path_socket = UnixListener::bind(&by_path).unwrap();
    path_socket.set_nonblocking(true).unwrap();
    for arguments in [
        &["read", &canary, "/etc/shadow", "/etc/passwd", "/root/.ssh/id_ed25519"][..],
        &["write", &canary, "/usr/bin/x", "/usr/bin/env", "/etc/cron.d/x", "/etc/ld.so.preload", "/x"],
        &["hardlink", "/usr/bin/env"],
        &["roots"],
        &["descriptors"],
        &["handles"],
        &["setuid"],
        &["terminal"],
        &["leave"],
        &["leave"],
        &["connect", &here, "[::1]:1", "169.254.169.254:80", "192.0.2.1:443", "example.com:443"],
        &["udp", "192.0.2.1:53", "8.8.8.8:53", "169.254.169.254:123"],
        &["abstract", &name, &by_path, "/run/docker.sock", "/run/dbus/system_bus_socket"],
        &["processes"],
        &["cores"],
        &["ia32"],
        &["x32"],
        &["attributes", "/usr/bin/env", "/hostile"],
        &["disk", "64"],
        &["inodes"],
        &["memory", "tmpfs", "64"],
    ] {
        let finished = attempt(&cells, arguments).await;
        assert!(last(&finished).starts_with("contained: "), "{arguments:?}: {finished:?}");
    }
    assert!(listener.accept().is_err() && socket.accept().is_err() && path_socket.accept().is_err());
    assert_eq!(fs::read(&canary).unwrap(), b"a secret of the host");
    for path in [canary, by_path] {
        fs::remove_file(path).unwrap();
    }
    // Without a home, gVisor gives it one.
    assert_eq!(attempt(&cells, &["show-environment"]).await.stdout, b"HOME=/\nPATH=/usr/bin:/bin\n");
    assert_eq!(attempt(&cells, &["output"]).await.cut, Some(Cut::Output));
}

/// What a kernel is asked for is given or refused by one of its own: what is looked at is the host.
#[tokio::test]
async fn whatever_its_kernel_grants_is_nothing_of_the_host() {
    let (_alone, cells) = alone().await;
    let state = || {
        let files =
            ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory"];
        let files = files.map(|path| fs::read_to_string(path).unwrap());
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        (files, limits, fs::read_to_string("/proc/self/oom_score_adj").unwrap())
    };
    let before = state();
    let own = std::process::id().to_string();
    for arguments in [
        &["calls"][..],
        &["devices"],
        &["elf-loader"],
        &["families"],
        &["init"],
        &["kernel-settings"],
        &["namespaces"],
        &["neighbours", &own],
        &["recon", "toolgate-canary"],
        &["signals", &own, "-1000"],
        &["traces"],
    ] {
        let Finished { ended, cut, stderr, .. } = attempt(&cells, arguments).await;
        let ended_by_itself = ended.code.is_some() && cut.is_none();
        assert!(ended_by_itself, "{arguments:?}: {ended:?} {cut:?} {}", String::from_utf8_lossy(&stderr));
    }
    assert_eq!(state(), before);
    // What of this host can be found in it.
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let mut words = vec![
        read("/proc/sys/kernel/random/boot_id"),
        read("/proc/cmdline"),
        read("/etc/machine-id"),
        format!("toolgate-cells-{}", std::process::id()),
    ];
    words.retain(|word| word.len() >= 8);
    assert!(words.len() >= 2, "{words:?}");
    let arguments: Vec<&str> = std::iter::once("learn").chain(words.iter().map(String::as_str)).collect();
    let found = last(&attempt(&cells, &arguments).await);
    assert!(!found.is_empty() && !words.iter().any(|word| found.contains(word)), "{found}");
}

#[tokio::test]
async fn everything_ends_with_the_cell() {
    let (_alone, cells) = alone().await;
    let left = attempt(&cells, &["outlive", "gvisor-grandchild"]).await;
    assert!(last(&left).starts_with("contained: "), "{left:?}");
    all_gone().await;
    for name in ["stop", "spin"] {
        let (mut spec, kept) = in_gvisor(&["/hostile", name, "gvisor"]);
        spec.limits.wall_ms = 2000;
        assert_eq!(finish(&cells, &spec, kept).await.cut, Some(Cut::Deadline), "{name}");
        all_gone().await;
    }
    // Dropped, and not waited for; and asked to end.
    let sleeps = "trap 'echo asked; exit 4' TERM; echo begun; while :; do sleep 0.1; done";
    for asked in [false, true] {
        let (spec, _kept) = in_gvisor(&["/bin/sh", "-c", sleeps]);
        let mut cell = cells.run(&spec).await.unwrap();
        let mut stdout = cell.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 6]).await.unwrap();
        assert!(processes() > 0);
        if asked {
            cell.ask_to_end();
            assert_eq!(cell.ended().await.unwrap().code, Some(4));
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "asked\n");
        }
        drop(cell);
        all_gone().await;
    }
    for folder in ["/tmp", "/run", "/var/run", "/var/tmp"] {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            assert!(!entry.file_name().to_string_lossy().contains("runsc"), "{entry:?}");
        }
    }
}

#[tokio::test]
async fn what_can_be_used_up_is_bounded() {
    let (_alone, cells) = alone().await;
    // Each of its processes is one of the host, too: the kernel in the cell breaks before the host does.
    for name in ["forks", "threads"] {
        let (spec, kept) = in_gvisor(&["/hostile", name]);
        let cell = cells.run(&spec).await.unwrap();
        drop(kept);
        let finished = cell.finish(b"", &spec.limits).await.unwrap();
        let bounded = finished.ended.code != Some(0) || last(&finished).starts_with("contained: ");
        assert!(bounded, "{name}: {finished:?}");
        all_gone().await;
    }
    for kind in ["heap", "memfd", "pipes"] {
        let (mut spec, kept) = in_gvisor(&["/hostile", "memory", kind, "512"]);
        spec.limits.memory_bytes = 128 << 20;
        let finished = finish(&cells, &spec, kept).await;
        if cells.limits_memory() {
            let most = finished.ended.peak_bytes.unwrap();
            assert!(finished.ended.out_of_memory && most <= 128 << 20, "{kind}: {finished:?}");
        } else if kind == "heap" {
            assert!(last(&finished).starts_with("contained: "), "{kind}: {finished:?}");
        }
    }
    let (mut spec, kept) = in_gvisor(&["/hostile", "disk", "8"]);
    spec.limits.file_bytes = 4 << 20;
    let finished = finish(&cells, &spec, kept).await;
    assert!(last(&finished).contains("contained: 4 MiB"), "{finished:?}");
    let (mut spec, _kept) = in_gvisor(&["true"]);
    spec.limits.total = true;
    match cells.run(&spec).await {
        Err(CellError::NotTotal) => assert!(!cells.limits_memory()),
        made => assert!(made.is_ok() && cells.limits_memory()),
    }
}

/// A folder for a test, which belongs to somebody else if this is root.
fn folder(name: &str) -> PathBuf {
    let path = Path::new("/var/tmp").join(format!("toolgate-gvisor-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("kept"), "as it was").unwrap();
    fs::write(path.join("removed"), "still there").unwrap();
    if rustix::process::getuid().is_root() {
        for path in [path.clone(), path.join("kept"), path.join("removed")] {
            std::os::unix::fs::chown(path, Some(4242), Some(4242)).unwrap();
        }
    }
    path
}

/// All ways to make a file run as its owner.
const SET_ID: &str = "cp /bin/true id; chmod 4755 id; chmod 2755 id; install -m 4755 /bin/true other;
    python3 -c 'import os
for make in (lambda: os.mknod(\"m\", 0o104755), lambda: os.open(\"o\", os.O_CREAT | os.O_WRONLY, 0o4755),
             lambda: os.fchmod(os.open(\"id\", os.O_RDONLY), 0o6755)):
    try: make(); print(\"ESCAPED\")
    except PermissionError: print(\"refused\")'";

#[tokio::test]
async fn a_workspace_is_as_in_other_cells() {
    let (_alone, cells) = alone().await;
    for workspace in [Workspace::Overlay, Workspace::Read, Workspace::Write] {
        let folder = folder(&format!("{workspace:?}"));
        let profile = Profile {
            tier: Tier::Gvisor,
            workspace: Some((folder.clone(), workspace)),
            limits: Limits { wall_ms: 30_000, ..Limits::default() },
            ..Profile::default()
        };
        let script =
            "cat kept; whoami; echo new > added && rm removed && chmod 600 added; ln -s /etc/shadow out";
        let planned = profile.plan(["sh", "-c", script].map(str::to_owned).to_vec()).unwrap();
        let Planned { mut spec, opened } = planned;
        spec.hands_out = true;
        let mut cell: Cell = cells.run(&spec).await.unwrap();
        drop(opened);
        let (seen, changed) = (cell.folder.take().unwrap(), std::mem::take(&mut cell.changes));
        let Finished { stdout, stderr, .. } = cell.finish(b"", &spec.limits).await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert_eq!(out, "as it wasagent\n", "{workspace:?}: {err}");
        let written = workspace != Workspace::Read;
        assert_eq!(
            seen.take("added", 10).is_ok_and(|content| content == b"new\n"),
            written,
            "{workspace:?}: {err}"
        );
        assert_eq!(seen.take("removed", 20).is_err(), written, "{workspace:?}");
        assert!(seen.take("out", 10_000).is_err());
        assert_eq!(folder.join("added").exists(), workspace == Workspace::Write, "{workspace:?}");
        assert_eq!(folder.join("removed").exists(), workspace != Workspace::Write, "{workspace:?}");
        if workspace == Workspace::Write {
            let Planned { spec, opened } =
                profile.plan(["sh", "-c", SET_ID].map(str::to_owned).to_vec()).unwrap();
            let finished = finish(&cells, &spec, opened).await;
            // Some are answered as if they had been done.
            assert_eq!(finished.stdout.iter().filter(|byte| **byte == b'\n').count(), 3, "{finished:?}");
            for entry in fs::read_dir(&folder).unwrap().flatten() {
                assert_eq!(entry.metadata().unwrap().mode() & 0o6000, 0, "{entry:?}");
            }
            assert!(folder.join("id").exists());
            let (new, old) =
                (fs::metadata(folder.join("added")).unwrap(), fs::metadata(folder.join("kept")).unwrap());
            assert_eq!((new.uid(), new.mode() & 0o777), (old.uid(), 0o600));
        }
        if workspace == Workspace::Overlay {
            let found = changes::read(changed.last().unwrap()).unwrap();
            let names: Vec<&str> = found.keys().map(String::as_str).collect();
            assert_eq!(names, ["added", "out", "removed"]);
            assert_eq!(found.get("removed").unwrap().what, What::Removed);
        }
        fs::remove_dir_all(folder).unwrap();
    }
}

#[tokio::test]
async fn files_go_in_and_lead_nowhere() {
    let (_alone, cells) = alone().await;
    let given =
        |path: &str, runs| Given { path: path.to_owned(), content: b"#!/bin/sh\necho ran\n".to_vec(), runs };
    let (mut spec, kept) = in_gvisor(&[
        "/bin/sh",
        "-c",
        "./deep/run; pwd; test -e /config.json || test -e /runsc || echo alone",
    ]);
    spec.files = vec![given("deep/run", true)];
    let finished = finish(&cells, &spec, kept).await;
    assert_eq!(String::from_utf8_lossy(&finished.stdout), "ran\n/tmp\nalone\n", "{finished:?}");
    // What a link in an image says is of the image, also outside of it.
    let folder = folder("image");
    fs::create_dir_all(folder.join("usr")).unwrap();
    for (name, to) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("away", "/state")] {
        std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
    }
    let image = |cwd: &str| Some(Base { root: folder.clone(), env: Vec::new(), cwd: Some(cwd.to_owned()) });
    let profile = |cwd: &str| Profile {
        tier: Tier::Gvisor,
        image: image(cwd),
        exec: vec![PathBuf::from("/usr")],
        limits: Limits { wall_ms: 30_000, ..Limits::default() },
        ..Profile::default()
    };
    let words = ["/bin/sh", "-c", "cat /kept; echo x > /kept; ls /state"].map(str::to_owned).to_vec();
    let Planned { spec, opened } = profile("/").plan(words.clone()).unwrap();
    let finished = finish(&cells, &spec, opened).await;
    assert_eq!(finished.stdout, b"as it was", "{finished:?}");
    assert_eq!(fs::read(folder.join("kept")).unwrap(), b"as it was");
    let Planned { spec, opened: _opened } = profile("/away").plan(words).unwrap();
    match cells.run(&spec).await {
        Err(CellError::Prepare { step, .. }) => assert_eq!(step, "the working directory `/away`"),
        other => panic!("{other:?}"),
    }
    fs::remove_dir_all(folder).unwrap();
}
