//! Commands, workspaces, output and limits that are not as they should be: a clear answer, and the next cell is as good as any.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{cells, spec};
use toolgate_sandbox::cell::changes;
use toolgate_sandbox::cell::{
    CellError, Cells, Cut, Finished, Layers, Opened, Planned, Profile, Spec, Workspace,
};

async fn finish(cells: &Cells, spec: &Spec) -> Result<Finished, CellError> {
    cells.run(spec).await?.finish(b"", &spec.limits).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It is as good as any.
async fn is_healthy(cells: &Cells) {
    let (spec, _kept) = spec(&["/bin/echo", "well"]);
    assert_eq!(finish(cells, &spec).await.unwrap().stdout, b"well\n");
}

#[tokio::test]
async fn a_command_that_is_none_is_told() {
    let cells = cells(Layers::ALL);
    let long = "x".repeat(3 << 20);
    for (argv, why) in [
        (vec!["/no/such/program"], "No such file or directory"),
        (vec!["no-such-name"], "No such file or directory"),
        (vec![""], "No such file or directory"),
        (vec!["/usr"], "Permission denied"),
        (vec!["/usr/share"], "Permission denied"),
        (vec!["/etc/told"], "Permission denied"),
        (vec!["/tmp"], "Permission denied"),
        (vec!["/bin/echo", "a\0b"], "nul byte"),
        (vec!["/bin/echo", &long], "Argument list too long"),
        (vec![], "the command is empty"),
    ] {
        let (mut spec, _kept) = spec(&argv);
        let content = "no program".to_owned();
        spec.places.push(toolgate_sandbox::cell::Place::File { at: "/etc/told".to_owned(), content });
        let refused = finish(&cells, &spec).await.unwrap_err().to_string();
        let shown: Vec<String> = argv.iter().map(|word| word.chars().take(20).collect()).collect();
        assert!(refused.contains(why) && refused.starts_with("the cell failed at "), "{shown:?}: {refused}");
    }
    is_healthy(&cells).await;
}

fn folder(name: &str) -> PathBuf {
    let path = Path::new("/var/tmp").join(format!("toolgate-bad-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

fn planned(folder: &Path, workspace: Workspace, script: &str) -> Result<Planned, CellError> {
    let profile = Profile { workspace: Some((folder.to_owned(), workspace)), ..Profile::default() };
    profile.plan(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
}

#[tokio::test]
async fn a_workspace_that_is_a_link_is_where_it_leads() {
    let cells = cells(Layers::ALL);
    let real = folder("link");
    let link = real.with_extension("link");
    fs::write(real.join("file"), "there").unwrap();
    symlink(&real, &link).unwrap();
    let Planned { spec, opened: _opened } = planned(&link, Workspace::Overlay, "pwd; cat file").unwrap();
    let done = finish(&cells, &spec).await.unwrap();
    assert_eq!(text(&done.stdout), format!("{}\nthere", real.display()));
    fs::remove_dir_all(&real).unwrap();
    let refused = planned(&link, Workspace::Overlay, "true").unwrap_err().to_string();
    assert!(refused.contains("No such file or directory"), "{refused}");
    // A link that leads to itself.
    fs::remove_file(&link).unwrap();
    symlink(&link, &link).unwrap();
    let refused = planned(&link, Workspace::Overlay, "true").unwrap_err().to_string();
    assert!(refused.contains("Too many levels of symbolic links"), "{refused}");
    fs::remove_file(&link).unwrap();
    is_healthy(&cells).await;
}

#[tokio::test]
async fn a_workspace_that_is_a_mount_is_a_folder_like_others() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let cells = cells(Layers::ALL);
    let folder = folder("mount");
    assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&folder).status().unwrap().success());
    fs::write(folder.join("file"), "mounted").unwrap();
    let mut said = Vec::new();
    for workspace in [Workspace::Overlay, Workspace::Read, Workspace::Write] {
        let script = "cat file; echo x > file 2>/dev/null; cat file";
        let Planned { spec, opened } = planned(&folder, workspace, script).unwrap();
        let done = finish(&cells, &spec).await;
        drop(opened);
        said.push(done.map(|done| text(&done.stdout)).map_err(|error| error.to_string()));
    }
    let left = fs::read(folder.join("file")).unwrap();
    assert!(Command::new("umount").arg(&folder).status().unwrap().success());
    fs::remove_dir(folder).unwrap();
    let want = ["mountedx\n", "mountedmounted", "mountedx\n"].map(|said| Ok(said.to_owned()));
    assert_eq!(said, want);
    assert_eq!(left, b"x\n");
}

#[tokio::test]
async fn a_huge_workspace_takes_no_longer_and_stays_as_it_is() {
    let cells = cells(Layers::ALL);
    let folder = folder("huge");
    let sparse = fs::File::create(folder.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    fs::write(folder.join("large"), vec![7; 8 << 20]).unwrap();
    for number in 0..5000 {
        fs::write(folder.join(format!("file-{number}")), "").unwrap();
    }
    let mut profile = Profile { workspace: Some((folder.clone(), Workspace::Overlay)), ..Profile::default() };
    profile.scratch_bytes = 4 << 20;
    let script = "ls | wc -l; (echo x >> large) 2>&1; (echo x >> sparse) 2>/dev/null; rm file-*; ls";
    let planned = profile.plan(["/bin/sh", "-c", script].map(str::to_owned).to_vec()).unwrap();
    let mut cell = cells.run(&planned.spec).await.unwrap();
    let changed = std::mem::take(&mut cell.changes);
    let done = cell.finish(b"", &planned.spec.limits).await.unwrap();
    let said = text(&done.stdout);
    assert!(said.starts_with("5002\n") && said.contains("No space left on device"), "{said}");
    assert!(said.ends_with("\nlarge\nsparse\n"), "{said}");
    let found = changes::read(&changed[0]).unwrap();
    assert!(found.len() >= 5000, "{}", found.len());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 5002);
    assert_eq!(fs::metadata(folder.join("sparse")).unwrap().len(), 1 << 40);
    assert_eq!(fs::metadata(folder.join("large")).unwrap().len(), 8 << 20);
    fs::remove_dir_all(folder).unwrap();
    is_healthy(&cells).await;
}

#[tokio::test]
async fn a_workspace_that_changes_meanwhile_harms_nobody() {
    let cells = cells(Layers::ALL);
    let folder = folder("changing");
    fs::create_dir(folder.join("kept")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let changer = std::thread::spawn({
        let (folder, over) = (folder.clone(), Arc::clone(&over));
        move || {
            let (one, other) = (folder.join("one"), folder.join("other"));
            while !over.load(Ordering::Relaxed) {
                fs::create_dir_all(one.join("deep")).unwrap();
                fs::write(one.join("deep/file"), "x").unwrap();
                fs::rename(&one, &other).unwrap();
                symlink("/etc", &one).unwrap();
                fs::remove_file(&one).unwrap();
                fs::remove_dir_all(&other).unwrap();
            }
        }
    });
    let script = "i=0; while [ $i -lt 40 ]; do ls -R . > /dev/null 2>&1; cat one/deep/file one/shadow other/deep/file > /dev/null 2>&1;
        echo $i > kept/$i; mkdir -p one/mine 2>/dev/null; i=$((i+1)); done; ls kept | wc -l";
    let mut said = Vec::new();
    for workspace in [Workspace::Overlay, Workspace::Write] {
        let Planned { spec, opened } = planned(&folder, workspace, script).unwrap();
        let mut cell = cells.run(&spec).await.unwrap();
        drop(opened);
        let changed = std::mem::take(&mut cell.changes);
        let done = cell.finish(b"", &spec.limits).await.unwrap();
        said.push((done.ended.code, text(&done.stdout)));
        if let Some(changed) = changed.first() {
            let found = changes::read(changed).unwrap();
            assert!(found.contains_key("kept/39"), "{found:?}");
            assert_eq!(fs::read_dir(folder.join("kept")).unwrap().count(), 0);
        }
    }
    over.store(true, Ordering::Relaxed);
    // It may stop where the cell has made what it did not expect, as any program beside another one.
    let _ended = changer.join();
    fs::remove_dir_all(folder).unwrap();
    assert_eq!(said, [(Some(0), "40\n".to_owned()), (Some(0), "40\n".to_owned())]);
    is_healthy(&cells).await;
}

#[tokio::test]
async fn output_is_bytes_and_has_an_end() {
    let cells = cells(Layers::ALL);
    let (all, _kept) = spec(&[
        "/usr/bin/python3",
        "-c",
        "import os; os.write(1, bytes(range(256))); os.write(2, b'\\xff\\x00')",
    ]);
    let done = finish(&cells, &all).await.unwrap();
    assert_eq!((done.stdout, done.stderr), ((0..=255).collect::<Vec<u8>>(), vec![0xff, 0]));
    let (by_name, _kept) = spec(&["/bin/sh", "-c", "echo out > /dev/stdout; echo error > /dev/stderr"]);
    let done = finish(&cells, &by_name).await.unwrap();
    assert_eq!((text(&done.stdout), text(&done.stderr)), ("out\n".to_owned(), "error\n".to_owned()));
    for to in ["&1", "&2"] {
        let script = format!("trap '' PIPE TERM; cat /dev/zero >{to}; while :; do :; done");
        let (endless, _kept) = spec(&["/bin/sh", "-c", &script]);
        let done = finish(&cells, &endless).await.unwrap();
        assert_eq!(done.cut, Some(Cut::Output), "{to}");
        assert_eq!(done.stdout.len().max(done.stderr.len()) as u64, endless.limits.output_bytes);
    }
    // Who keeps the streams open is not waited for when the program has ended.
    let (kept_open, _kept) = spec(&["/bin/sh", "-c", "(sleep 1000 &) ; echo done"]);
    assert_eq!(finish(&cells, &kept_open).await.unwrap().stdout, b"done\n");
    is_healthy(&cells).await;
}

#[tokio::test]
async fn what_uses_everything_up_leaves_the_next_one_alone() {
    let cells = cells(Layers::ALL);
    let (well, _kept) = spec(&["/bin/echo", "well"]);
    cells.warm(&well, 2);
    for arguments in
        [&["forks"][..], &["threads"], &["inodes"], &["disk", "64"], &["memory", "tmpfs", "64"], &["stop"]]
    {
        let argv: Vec<&str> = std::iter::once("/hostile").chain(arguments.iter().copied()).collect();
        let (mut greedy, kept) = spec(&argv);
        if arguments == ["stop"] {
            greedy.limits.wall_ms = 100;
        }
        let cell = cells.run(&greedy).await.unwrap();
        drop::<Vec<Opened>>(kept);
        let others =
            tokio::join!(cell.finish(b"", &greedy.limits), finish(&cells, &well), finish(&cells, &well));
        assert_eq!(others.1.unwrap().stdout, b"well\n", "{arguments:?}");
        assert_eq!(others.2.unwrap().stdout, b"well\n", "{arguments:?}");
        others.0.unwrap();
        is_healthy(&cells).await;
    }
}

/// Says to a test that it was started by itself, where there are no cgroups.
const WITHOUT: &str = "TOOLGATE_TEST_WITHOUT_CGROUPS";

#[tokio::test]
async fn what_is_demanded_and_cannot_be_enforced_is_refused() {
    let cells = cells(Layers::ALL);
    let (mut spec, _kept) = spec(&["/bin/echo", "well"]);
    spec.limits.total = true;
    let done = finish(&cells, &spec).await;
    if cells.limits_memory() {
        assert_eq!(done.unwrap().stdout, b"well\n");
        assert!(std::env::var_os(WITHOUT).is_none(), "there are cgroups");
        // The same once more where there are none; only root can take them away.
        if rustix::process::getuid().is_root() {
            let script = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" --exact \"$1\"";
            let mut itself = Command::new("unshare");
            itself.args(["--mount", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
            itself
                .arg("what_is_demanded_and_cannot_be_enforced_is_refused")
                .env(WITHOUT, "1")
                .stdout(Stdio::null());
            assert!(itself.status().unwrap().success());
        }
    } else {
        assert!(matches!(done, Err(CellError::NotTotal)), "{done:?}");
        spec.limits.total = false;
        assert_eq!(finish(&cells, &spec).await.unwrap().stdout, b"well\n");
    }
}
