//! That the hostile programs can get out: with a layer switched off, those which it holds do.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use common::{cells, finish, spec};
use toolgate_sandbox::cell::Layers;

/// Whether the attempt got out with these layers.
async fn escapes(layers: Layers, arguments: &[&str]) -> bool {
    let argv: Vec<&str> =
        std::iter::once(if layers.root { "/hostile" } else { env!("CARGO_BIN_EXE_cell-hostile") })
            .chain(arguments.iter().copied())
            .collect();
    let (mut spec, kept) = spec(&argv);
    spec.limits.file_bytes = 4 << 20;
    if !layers.root {
        spec.writable = vec!["/dev/shm".to_owned()];
    }
    let text = String::from_utf8(finish(&cells(layers), &spec, kept).await.stdout).unwrap();
    let last = text.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("contained: ") || last.starts_with("ESCAPED: "), "{arguments:?}: {last}");
    last.starts_with("ESCAPED: ")
}

#[tokio::test]
async fn each_layer_holds_something() {
    let all = Layers::ALL;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let name = format!("toolgate-layers-{}", std::process::id());
    let _socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let secret = format!("/var/tmp/toolgate-layers-{}", std::process::id());
    std::fs::write(&secret, "a secret of the host").unwrap();
    let open = format!("/var/tmp/toolgate-layers-open-{}", std::process::id());
    std::fs::write(&open, "anybody may write here").unwrap();
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();

    let (connect, reach, read, write) =
        (["connect", &listener], ["abstract", &name], ["read", &secret], ["write", &open]);
    let cases: Vec<(&str, Layers, &[&str])> = vec![
        ("capabilities", Layers { capabilities: false, ..all }, &["recon"]),
        ("masks", Layers { masks: false, ..all }, &["recon"]),
        ("network", Layers { network: false, ..all }, &connect),
        ("network and Landlock", Layers { network: false, landlock: false, ..all }, &reach),
        ("processes", Layers { processes: false, root: false, ..all }, &["processes"]),
        ("rlimits", Layers { rlimits: false, ..all }, &["disk", "8"]),
        ("root", Layers { root: false, ..all }, &read),
        ("root and Landlock", Layers { root: false, landlock: false, ..all }, &write),
        ("seccomp", Layers { seccomp: false, ..all }, &["calls"]),
        ("seccomp", Layers { seccomp: false, ..all }, &["families"]),
        ("seccomp", Layers { seccomp: false, ..all }, &["namespaces"]),
    ];
    for (without, layers, attempt) in cases {
        assert!(!escapes(all, attempt).await, "{attempt:?} with all layers");
        assert!(escapes(layers, attempt).await, "{attempt:?} without {without}");
    }
    // What one layer lets through the next one holds.
    assert!(!escapes(Layers { network: false, ..all }, &reach).await);
    assert!(!escapes(Layers { root: false, ..all }, &write).await);
    for path in [secret, open] {
        std::fs::remove_file(path).unwrap();
    }
}
