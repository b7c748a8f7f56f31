//! Cells without namespaces, and what the hostile programs come to in them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use common::{cells, finish, spec};
use tokio::io::AsyncReadExt as _;
use toolgate_sandbox::cell::{
    Access, CellError, Cells, Cut, Finished, Layers, Opened, Place, Source, Spec, Tier,
};

const HOSTILE: &str = env!("CARGO_BIN_EXE_cell-hostile");

/// Cells as on a host that has no namespaces to give.
fn bare() -> Cells {
    cells(Layers::ALL).without(Tier::Native)
}

/// A cell of this tier: what it is given is where it is on the host.
fn on_the_host(argv: &[&str]) -> (Spec, Vec<Opened>) {
    let (mut spec, mut kept) = spec(argv);
    let hostile = fs::canonicalize(HOSTILE).unwrap();
    let (source, opened) = Source::open(&hostile).unwrap();
    kept.push(opened);
    spec.places.retain(|place| !matches!(place, Place::Bind { at, .. } if at == "/hostile"));
    let at = hostile.to_str().unwrap().to_owned();
    spec.places.push(Place::Bind { at, source, access: Access::Run, owned: false });
    spec.tier = Tier::LandlockOnly;
    (spec, kept)
}

async fn attempt(arguments: &[&str]) -> Finished {
    let argv: Vec<&str> = std::iter::once(HOSTILE).chain(arguments.iter().copied()).collect();
    let (spec, kept) = on_the_host(&argv);
    finish(&bare(), &spec, kept).await
}

/// The last line of an attempt that has to be contained.
async fn contained(arguments: &[&str]) {
    let Finished { ended, cut, stdout, stderr } = attempt(arguments).await;
    let (text, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("contained: "), "{arguments:?}: {last} {ended:?} {cut:?} {errors}");
}

/// Whether a process of the host has this in its command line.
fn lives(mark: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let text = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).starts_with(mark)
    })
}

/// The folders that cells of this test have written to.
fn scratches() -> usize {
    let own = format!("toolgate-cell-{}-", std::process::id());
    let entries = fs::read_dir("/tmp").unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)).count()
}

/// The threads of this test that remove folders of cells.
fn removers() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.map(|thread| fs::read_to_string(thread.path().join("comm")).unwrap_or_default());
    names.filter(|name| name.starts_with("toolgate-scratc")).count()
}

#[tokio::test]
async fn what_was_written_can_be_taken_after_the_end() {
    let (mut spec, _kept) = on_the_host(&["/bin/sh", "-c", "echo kept > out"]);
    spec.hands_out = true;
    let mut cell = bare().run(&spec).await.unwrap();
    let folder = cell.folder.take().unwrap();
    cell.finish(b"", &spec.limits).await.unwrap();
    while removers() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(folder.take("out", 16).unwrap(), b"kept\n");
}

#[tokio::test]
async fn hostile_programs_are_contained_as_far_as_this_tier_claims() {
    let canary = format!("/var/tmp/toolgate-bare-{}", std::process::id());
    fs::write(&canary, "a secret of the host").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let name = format!("toolgate-bare-{}", std::process::id());
    let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let by_path = format!("{canary}.sock");
    let path_socket = UnixListener::bind(&by_path).unwrap();
    path_socket.set_nonblocking(true).unwrap();
    let (own, here) = (std::process::id().to_string(), format!("127.0.0.1:{port}"));
    for arguments in [
        &["read", &canary, "/etc/shadow", "/etc/passwd", "/root/.ssh/id_ed25519", "/proc/1/environ"][..],
        &["write", &canary, "/usr/bin/x", "/usr/bin/env", "/etc/cron.d/x", "/etc/ld.so.preload", "/x"],
        &["hardlink", &canary],
        &["roots"],
        &["descriptors"],
        &["handles"],
        &["devices"],
        &["setuid"],
        &["terminal"],
        &["leave"],
        &["leave"],
        &["connect", &here, "[::1]:1", "169.254.169.254:80", "192.0.2.1:443", "example.com:443"],
        &["udp", "192.0.2.1:53", "8.8.8.8:53"],
        &["abstract", &name, &by_path, "/run/docker.sock", "/run/dbus/system_bus_socket"],
        &["processes"],
        &["signals", &own, "-1000"],
        &["init"],
        &["traces"],
        &["calls"],
        &["cores"],
        &["families"],
        &["ia32"],
        &["kernel-settings"],
        &["namespaces"],
        &["x32"],
        &["forks"],
        &["threads"],
        &["attributes", &canary, HOSTILE],
        &["neighbours", &own],
        &["recon", "toolgate-canary"],
    ] {
        contained(arguments).await;
    }
    assert!(listener.accept().is_err() && socket.accept().is_err() && path_socket.accept().is_err());
    assert_eq!(fs::read(&canary).unwrap(), b"a secret of the host");
    for path in [canary, by_path] {
        fs::remove_file(path).unwrap();
    }
    let finished = attempt(&["output"]).await;
    assert_eq!(finished.cut, Some(Cut::Output));
    let environment = attempt(&["show-environment"]).await.stdout;
    let environment = String::from_utf8(environment).unwrap();
    let names: Vec<&str> = environment.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["PATH", "TMPDIR"]);
}

#[tokio::test]
async fn everything_that_was_started_ends_with_the_cell() {
    let mark = format!("bare-grandchild-{}", std::process::id());
    contained(&["outlive", &mark]).await;
    assert!(!lives(&mark), "the end is told when nothing is left");
    for name in ["stop", "spin"] {
        let mark = format!("bare-{name}-{}", std::process::id());
        let (mut spec, kept) = on_the_host(&[HOSTILE, name, &mark]);
        spec.limits.wall_ms = 300;
        let finished = finish(&bare(), &spec, kept).await;
        assert_eq!(finished.cut, Some(Cut::Deadline), "{name}");
        assert!(!lives(&mark), "{name}");
    }
    // Dropped, and not waited for.
    let mark = format!("bare-dropped-{}", std::process::id());
    let script =
        format!("setsid bash -c 'exec -a {mark} sleep 1000' & echo begun; exec -a {mark} sleep 1000");
    let (spec, _kept) = on_the_host(&["/bin/bash", "-c", &script]);
    let mut cell = bare().run(&spec).await.unwrap();
    let mut said = [0; 6];
    cell.stdout.take().unwrap().read_exact(&mut said).await.unwrap();
    drop(cell);
    while lives(&mark) || scratches() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cell_writes_to_its_own_folder_which_goes_with_it() {
    let (spec, kept) = on_the_host(&[
        "/bin/sh",
        "-c",
        "echo mine > $TMPDIR/x && cat $TMPDIR/x && ls -d $TMPDIR && pwd && stat -c %a $TMPDIR",
    ]);
    let cell = bare().run(&spec).await.unwrap();
    let enforced = cell.enforced;
    drop(kept);
    let done = cell.finish(b"", &spec.limits).await.unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let [text, folder, here, mode] = lines.as_slice() else { panic!("{said}") };
    assert_eq!((*text, folder, *mode), ("mine", here, "700"));
    assert_eq!((enforced.tier, enforced.landlock_abi >= 6), (Tier::LandlockOnly, true));
    while Path::new(folder).exists() {
        tokio::task::yield_now().await;
    }
}

/// No process has a number above those that there can be; there always is a first one.
#[tokio::test]
async fn folders_of_gates_that_are_gone_go_and_those_of_others_stay() {
    let [gone, there] = ["/tmp/toolgate-cell-4194999-0", "/tmp/toolgate-cell-1-0"].map(Path::new);
    for folder in [gone, there] {
        fs::create_dir_all(folder.join("left")).unwrap();
    }
    let (spec, kept) = on_the_host(&["true"]);
    assert_eq!(finish(&bare(), &spec, kept).await.ended.code, Some(0));
    assert!(!gone.exists() && there.exists());
    fs::remove_dir_all(there).unwrap();
}

#[tokio::test]
async fn what_this_tier_cannot_do_is_refused() {
    let cells = bare();
    let folder = Path::new("/var/tmp").join(format!("toolgate-bare-work-{}", std::process::id()));
    fs::create_dir_all(folder.join("in")).unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let source = |name: &str| Source::open(&folder.join(name)).unwrap();
    let bind = |name: &str, to: &str, access| {
        let (source, opened) = source(name);
        (Place::Bind { at: to.to_owned(), source, access, owned: true }, opened)
    };
    let ((lower, _a), (base, _b)) = (source("in"), source("in"));
    let (elsewhere, _c) = bind("in", "/elsewhere", Access::Read);
    let (above, _d) = bind("", &at(""), Access::Write);
    let (below, _e) = bind("in", &at("in"), Access::Read);
    type Change = Box<dyn Fn(&mut Spec)>;
    let push = |places: Vec<Place>| -> Change { Box::new(move |spec| spec.places.extend(places.clone())) };
    let overlay = Place::Overlay { at: at("in"), lower, bytes: 1 << 20, inodes: 10 };
    let cases: Vec<(&str, Change)> = vec![
        (
            "cannot let a cell reach hosts by name",
            Box::new(|spec| spec.net.push("a.example:443".parse().unwrap())),
        ),
        ("cannot run on an image", Box::new(move |spec| spec.base = Some(base.clone()))),
        ("cannot keep changes of a folder apart", push(vec![overlay])),
        ("as `/elsewhere`", push(vec![elsewhere])),
        ("from being written below a folder that is", push(vec![above.clone(), below])),
    ];
    for (want, change) in cases {
        let (mut spec, _kept) = on_the_host(&["true"]);
        change(&mut spec);
        match cells.run(&spec).await {
            Err(CellError::Tier(why)) => {
                assert!(why.starts_with("the tier `landlock-only` cannot ") && why.contains(want), "{why}");
            }
            other => panic!("{want}: {other:?}"),
        }
    }
    // What is given to be written is written.
    let (mut spec, _kept) = on_the_host(&["/bin/sh", "-c", "echo 1 > x"]);
    spec.places.push(above);
    spec.cwd = at("");
    let user_owns_it = cells.run(&spec).await.unwrap().unmapped.is_empty();
    assert_eq!(user_owns_it, !rustix::process::getuid().is_root());
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn no_cell_is_weaker_than_what_is_asked_for() {
    for (without, asked, want) in [
        (&[][..], Tier::Native, Ok(Tier::Native)),
        // Better than asked for.
        (&[], Tier::LandlockOnly, Ok(Tier::Native)),
        (&[Tier::Native], Tier::LandlockOnly, Ok(Tier::LandlockOnly)),
        (&[Tier::Native], Tier::Native, Err("this host makes no cells of the tier `native`: ")),
        (
            &[Tier::Native, Tier::LandlockOnly],
            Tier::LandlockOnly,
            Err("this host makes no cells of the tier `landlock-only`: "),
        ),
        (&[Tier::Gvisor], Tier::Gvisor, Err("this host makes no cells of the tier `gvisor`: ")),
        (&[], Tier::Microvm, Err("this host makes no cells of the tier `microvm`: ")),
    ] {
        let cells = without.iter().fold(cells(Layers::ALL), |cells, tier| cells.without(*tier));
        let (mut spec, _kept) = on_the_host(&["true"]);
        spec.tier = asked;
        match (cells.run(&spec).await, want) {
            (Ok(cell), Ok(tier)) => assert_eq!(cell.enforced.tier, tier, "{asked}"),
            (Err(CellError::Tier(why)), Err(want)) => assert!(why.starts_with(want), "{asked}: {why}"),
            (other, want) => panic!("{asked} without {without:?}: {other:?}, not {want:?}"),
        }
    }
}
