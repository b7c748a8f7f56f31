//! A cell for tests: the host's programs, `/proc`, `/dev`, and a place to write.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::path::Path;

use toolgate_sandbox::cell::{Access, Cells, Finished, Layers, Limits, Opened, Place, Source, Spec, Tier};

pub(crate) fn cells(layers: Layers) -> Cells {
    Cells::start(Path::new(env!("CARGO_BIN_EXE_cell-launcher")), layers).unwrap()
}

/// A cell for a command. The descriptors have to be kept until it runs.
pub(crate) fn spec(argv: &[&str]) -> (Spec, Vec<Opened>) {
    let (usr, kept) = Source::open(Path::new("/usr")).unwrap();
    let hostile = std::fs::canonicalize(env!("CARGO_BIN_EXE_cell-hostile")).unwrap();
    let (hostile, kept_too) = Source::open(&hostile).unwrap();
    let link = |name: &str| Place::Symlink { at: format!("/{name}"), to: format!("usr/{name}") };
    let bind =
        |at: &str, source| Place::Bind { at: at.to_owned(), source, access: Access::Run, owned: false };
    let spec = Spec {
        argv: argv.iter().map(|part| (*part).to_owned()).collect(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: "/tmp".to_owned(),
        tier: Tier::Native,
        base: None,
        places: vec![
            bind("/usr", usr),
            bind("/hostile", hostile),
            link("bin"),
            link("lib"),
            link("lib64"),
            Place::Proc,
            Place::Dev { shm_bytes: 1 << 20 },
            Place::Tmpfs { at: "/tmp".to_owned(), bytes: 16 << 20, inodes: 1000 },
        ],
        limits: Limits { wall_ms: 30_000, processes: 32, ..Limits::default() },
        writable: vec!["/tmp".to_owned(), "/dev/shm".to_owned()],
        net: Vec::new(),
        files: Vec::new(),
        hands_out: false,
    };
    (spec, vec![kept, kept_too])
}

/// Runs it to its end.
pub(crate) async fn finish(cells: &Cells, spec: &Spec, kept: Vec<Opened>) -> Finished {
    let cell = cells.run(spec).await.unwrap();
    drop(kept);
    cell.finish(b"", &spec.limits).await.unwrap()
}
