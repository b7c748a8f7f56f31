//! Hostile programs in real cells, and what the host sees of them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use common::{cells, finish, spec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use toolgate_sandbox::cell::{Cut, Finished, Layers, Place};

/// Runs an attempt and says what it came to.
async fn attempt(arguments: &[&str]) -> Finished {
    let argv: Vec<&str> = std::iter::once("/hostile").chain(arguments.iter().copied()).collect();
    let (spec, kept) = spec(&argv);
    finish(&cells(Layers::ALL), &spec, kept).await
}

/// The last line of an attempt that has to be contained.
async fn contained(arguments: &[&str]) -> String {
    let Finished { ended, cut, stdout, stderr } = attempt(arguments).await;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let last = text.lines().last().unwrap_or_default().to_owned();
    assert!(
        last.starts_with("contained: "),
        "{arguments:?}: {last} {ended:?} {cut:?} {}",
        String::from_utf8_lossy(&stderr)
    );
    last
}

/// A file of the host with a secret in it.
fn canary(name: &str) -> (std::path::PathBuf, Vec<u8>) {
    let path =
        std::path::Path::new("/var/tmp").join(format!("toolgate-canary-{name}-{}", std::process::id()));
    std::fs::write(&path, "a secret of the host").unwrap();
    (path, b"a secret of the host".to_vec())
}

/// Whether a process of the host has this in its command line.
fn lives(mark: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).starts_with(mark)
    })
}

#[tokio::test]
async fn files_of_the_host_are_not_there() {
    let (path, secret) = canary("read");
    let named = path.to_str().unwrap();
    contained(&["read", named, "/etc/shadow", "/etc/passwd", "/root/.ssh/id_ed25519", "/proc/1/environ"])
        .await;
    contained(&["write", named, "/usr/bin/x", "/usr/bin/env", "/etc/cron.d/x", "/etc/ld.so.preload", "/x"])
        .await;
    contained(&["hardlink", named]).await;
    assert_eq!(std::fs::read(&path).unwrap(), secret);
    assert!(!std::path::Path::new("/usr/bin/x").exists());
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn there_is_no_way_around_names() {
    for name in ["roots", "descriptors", "handles", "devices", "setuid", "terminal", "elf-loader"] {
        contained(&[name]).await;
    }
}

#[tokio::test]
async fn nothing_is_left_for_the_next_one() {
    contained(&["leave"]).await;
    contained(&["leave"]).await;
}

#[tokio::test]
async fn nothing_outside_is_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let targets = [
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
        "169.254.169.254:80".to_owned(),
        "[fd00:ec2::254]:80".to_owned(),
        "100.100.100.200:80".to_owned(),
        "192.0.2.1:443".to_owned(),
        "example.com:443".to_owned(),
    ];
    let targets: Vec<&str> = std::iter::once("connect").chain(targets.iter().map(String::as_str)).collect();
    contained(&targets).await;
    assert!(listener.accept().is_err(), "the host was reached");
    contained(&["udp", "192.0.2.1:53", "8.8.8.8:53", "169.254.169.254:123"]).await;

    let name = format!("toolgate-canary-{}", std::process::id());
    let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    contained(&["abstract", &name, "/run/docker.sock", "/run/dbus/system_bus_socket"]).await;
    assert!(socket.accept().is_err(), "the host's socket was reached");
}

#[tokio::test]
async fn nobody_outside_reaches_in() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = free.to_string();
    let (spec, _kept) = spec(&["/hostile", "bind", &port]);
    let mut cell = cells(Layers::ALL).run(&spec).await.unwrap();
    let mut stdout = cell.stdout.take().unwrap();
    let mut said = [0; 10];
    stdout.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"listening\n");
    assert!(std::net::TcpStream::connect(("127.0.0.1", free)).is_err());
    cell.stdin.take().unwrap().write_all(b"well?\n").await.unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "contained: nobody came\n");
}

#[tokio::test]
async fn what_is_left_running_is_killed() {
    let mark = format!("grandchild-{}", std::process::id());
    contained(&["outlive", &mark]).await;
    while lives(&mark) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_deadline_holds_for_everything() {
    for name in ["stop", "spin"] {
        let mark = format!("{name}-{}", std::process::id());
        let (mut spec, kept) = spec(&["/hostile", name, &mark]);
        spec.limits.wall_ms = 300;
        let finished = finish(&cells(Layers::ALL), &spec, kept).await;
        assert_eq!(finished.cut, Some(Cut::Deadline), "{name}");
        while lives(&mark) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn other_processes_are_out_of_reach() {
    let own = std::process::id().to_string();
    contained(&["processes"]).await;
    contained(&["signals", &own, "-1000"]).await;
    for name in ["init", "traces"] {
        contained(&[name]).await;
    }
}

#[tokio::test]
async fn the_kernel_is_a_small_target() {
    for name in ["calls", "cores", "families", "ia32", "kernel-settings", "namespaces", "x32"] {
        contained(&[name]).await;
    }
}

#[tokio::test]
async fn what_can_be_used_up_is_bounded() {
    for arguments in [&["forks"][..], &["threads"], &["memory", "tmpfs", "64"], &["disk", "64"], &["inodes"]]
    {
        contained(arguments).await;
    }
    let finished = attempt(&["output"]).await;
    assert_eq!(finished.cut, Some(Cut::Output));
    assert_eq!(finished.stdout.len(), 1 << 20);
}

#[tokio::test]
async fn memory_is_bounded() {
    let cells = cells(Layers::ALL);
    // Memory of its own, of files without a name, of files in memory.
    for kind in ["heap", "memfd", "tmpfs"] {
        let (mut spec, kept) = spec(&["/hostile", "memory", kind, "512"]);
        spec.limits.memory_bytes = 64 << 20;
        for place in &mut spec.places {
            if let Place::Tmpfs { bytes, .. } = place {
                *bytes = 1 << 30;
            }
        }
        let Finished { ended, stdout, .. } = finish(&cells, &spec, kept).await;
        if cells.limits_memory() {
            assert!(
                ended.out_of_memory && ended.peak_bytes.is_some_and(|peak| peak <= 64 << 20),
                "{kind}: {ended:?}"
            );
        } else if kind == "heap" {
            assert!(String::from_utf8_lossy(&stdout).contains("contained"), "{kind}: {ended:?}");
        }
    }
}

#[tokio::test]
async fn buffers_of_the_kernel_are_bounded() {
    let cells = cells(Layers::ALL);
    for kind in ["pipes", "sockets"] {
        let (mut spec, kept) = spec(&["/hostile", "memory", kind, "512"]);
        spec.limits.memory_bytes = 64 << 20;
        spec.limits.descriptors = 65_536;
        let Finished { ended, stdout, .. } = finish(&cells, &spec, kept).await;
        let text = String::from_utf8_lossy(&stdout).into_owned();
        if cells.limits_memory() {
            assert!(ended.out_of_memory || text.contains("contained"), "{kind}: {ended:?} {text}");
            assert!(ended.peak_bytes.is_some_and(|peak| peak <= 64 << 20), "{kind}: {ended:?}");
        }
        // Whoever may open fewer descriptors can fill fewer of them.
        let (mut spec, kept) = common::spec(&["/hostile", "memory", kind, "512"]);
        spec.limits.descriptors = 64;
        let Finished { ended, stdout, .. } = finish(&cells, &spec, kept).await;
        let text = String::from_utf8_lossy(&stdout).into_owned();
        assert!(
            text.contains("contained") && text.contains("Too many open files"),
            "{kind}: {ended:?} {text}"
        );
    }
}

#[tokio::test]
async fn there_is_nothing_to_be_learned() {
    contained(&["environment", "CARGO", "HOME"]).await;
    contained(&["recon", "toolgate-canary"]).await;
}

/// Words by which this host can be told from others, and its gate from others.
fn telling() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let mut words = vec![
        read("/proc/sys/kernel/random/boot_id"),
        read("/proc/cmdline"),
        read("/proc/sys/kernel/hostname"),
        read("/etc/machine-id"),
        read("/sys/class/dmi/id/product_uuid"),
        read("/sys/class/dmi/id/product_serial"),
        format!("toolgate-cells-{}", std::process::id()),
    ];
    for interface in std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        words.push(read(&interface.path().join("address").to_string_lossy()));
    }
    for name in ["USER", "HOME", "SSH_AUTH_SOCK", "CARGO_HOME"] {
        words.extend(std::env::var(name));
    }
    // What is short or ordinary is found everywhere and tells nothing.
    words.retain(|word| word.len() >= 8 && !["localhost", "00:00:00:00:00:00"].contains(&word.as_str()));
    words
}

#[tokio::test]
async fn nothing_tells_which_host_this_is() {
    let words = telling();
    assert!(words.len() >= 2, "{words:?}");
    let arguments: Vec<&str> = std::iter::once("learn").chain(words.iter().map(String::as_str)).collect();
    contained(&arguments).await;
}
