//! What becomes of changes in a workspace.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::cells;

/// Who owns what the cells of root work in.
const OWNER: u32 = 4_242;
use toolgate_sandbox::cell::changes::{self, Caution, Change, What};
use toolgate_sandbox::cell::{Cell, Finished, Layers, Place, Profile, Source, Workspace};

/// A folder of somebody else, where the tests run as root.
fn folder(name: &str) -> PathBuf {
    let path = Path::new("/var/tmp").join(format!("toolgate-{name}-{}", std::process::id()));
    fs::create_dir_all(path.join("src")).unwrap();
    fs::write(path.join("kept"), "as it was").unwrap();
    fs::write(path.join("changed"), "before").unwrap();
    fs::write(path.join("removed"), "still there").unwrap();
    fs::write(path.join("src/deep"), "deep").unwrap();
    if rustix::process::getuid().is_root() {
        for path in [
            &path,
            &path.join("src"),
            &path.join("kept"),
            &path.join("changed"),
            &path.join("removed"),
            &path.join("src/deep"),
        ] {
            std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER)).unwrap();
        }
    }
    path
}

fn profile(folder: &Path, workspace: Workspace) -> Profile {
    Profile { workspace: Some((folder.to_owned(), workspace)), ..Profile::default() }
}

async fn run(profile: &Profile, script: &str) -> (Finished, Vec<std::os::fd::OwnedFd>, Option<Source>) {
    let planned = profile.plan(["sh", "-c", script].map(str::to_owned).to_vec()).unwrap();
    let lower = planned.spec.places.iter().find_map(|place| match place {
        Place::Overlay { lower, .. } => Some(lower.clone()),
        _ => None,
    });
    let mut cell: Cell = cells(Layers::ALL).run(&planned.spec).await.unwrap();
    let changes = std::mem::take(&mut cell.changes);
    (cell.finish(b"", &planned.spec.limits).await.unwrap(), changes, lower)
}

const SCRIPT: &str = "set -e; echo after > changed; rm removed; echo new > added; chmod +x added; mkdir -p .git/hooks;
    echo evil > .git/hooks/post-commit; ln -s /etc/passwd out; ln -s kept in; rm -r src; mkdir src; echo other > src/file;
    mkfifo pipe; cp /bin/true id; chmod 4755 id; cat kept; pwd";

/// What is taken out is the folder as the cell saw it, with what was there before; also after its end.
#[tokio::test]
async fn files_are_taken_out_of_a_workspace() {
    for workspace in [Workspace::Overlay, Workspace::Read, Workspace::Write] {
        let folder = folder(&format!("taken-{workspace:?}"));
        let mut planned =
            profile(&folder, workspace).plan(["sh", "-c", SCRIPT].map(str::to_owned).to_vec()).unwrap();
        planned.spec.hands_out = true;
        let mut cell: Cell = cells(Layers::ALL).run(&planned.spec).await.unwrap();
        let seen = cell.folder.take().unwrap();
        drop(cell.finish(b"", &planned.spec.limits).await.unwrap());
        let changed: &[u8] = if workspace == Workspace::Read { b"before" } else { b"after\n" };
        assert_eq!(seen.take("changed", 10).unwrap(), changed, "{workspace:?}");
        assert_eq!(seen.take("kept", 10).unwrap(), b"as it was", "{workspace:?}");
        assert_eq!(seen.take("removed", 20).is_ok(), workspace == Workspace::Read);
        for path in ["in", "out", "pipe", "../kept", "src"] {
            assert!(seen.take(path, 10_000).is_err(), "{workspace:?}: {path}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}

#[tokio::test]
async fn changes_stay_in_memory_until_they_are_taken_over() {
    let folder = folder("overlay");
    let (done, changed, lower) = run(&profile(&folder, Workspace::Overlay), SCRIPT).await;
    assert_eq!(String::from_utf8_lossy(&done.stdout), format!("as it was{}\n", folder.display()), "{done:?}");
    assert_eq!(fs::read(folder.join("changed")).unwrap(), b"before");
    assert!(folder.join("removed").exists() && !folder.join("added").exists());

    let found = changes::read(&changed[0]).unwrap();
    let of = |path: &str| found.get(path).unwrap_or_else(|| panic!("{path}: {found:?}"));
    assert_eq!(*of("changed"), Change { what: What::File { bytes: 6, runs: false }, caution: None });
    assert_eq!(*of("added"), Change { what: What::File { bytes: 4, runs: true }, caution: None });
    assert_eq!(of("removed").what, What::Removed);
    assert_eq!(*of("src"), Change { what: What::Folder { replaced: true }, caution: None });
    assert_eq!(of("in").caution, None);
    for (path, caution) in [
        (".git/hooks/post-commit", Caution::Configuration),
        ("out", Caution::LeadsOut),
        ("pipe", Caution::NoFile),
        ("id", Caution::SetId),
    ] {
        assert_eq!(of(path).caution, Some(caution), "{path}");
    }

    let harmless: BTreeMap<String, Change> = found
        .iter()
        .filter(|(_, change)| change.caution.is_none())
        .map(|(p, c)| (p.clone(), c.clone()))
        .collect();
    changes::apply(&changed[0], &lower.unwrap(), &harmless).unwrap();
    let read = |path: &str| fs::read_to_string(folder.join(path)).unwrap();
    assert_eq!(
        (read("changed"), read("added"), read("kept")),
        ("after\n".into(), "new\n".into(), "as it was".into())
    );
    assert_eq!(fs::metadata(folder.join("added")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(read("src/file"), "other\n");
    assert_eq!(fs::read_link(folder.join("in")).unwrap(), Path::new("kept"));
    let owned = if us().0 == 0 { (OWNER, OWNER) } else { us() };
    for path in ["added", "changed", "src", "src/file", "in"] {
        let found = owner(&folder.join(path));
        assert_eq!((found.0, found.1), owned, "{path}");
    }
    for gone in ["removed", "src/deep", ".git", "out", "pipe", "id"] {
        assert!(fs::symlink_metadata(folder.join(gone)).is_err(), "{gone}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_read_only_workspace_stays_as_it_is_and_another_one_does_not() {
    let folder = folder("modes");
    let script = "echo new > added; cat kept";
    let (done, changed, _) = run(&profile(&folder, Workspace::Read), script).await;
    assert!(String::from_utf8_lossy(&done.stderr).contains("Read-only file system"), "{done:?}");
    assert!(changed.is_empty() && !folder.join("added").exists());
    let (done, changed, _) = run(&profile(&folder, Workspace::Write), script).await;
    assert_eq!(done.stdout, b"as it was", "{done:?}");
    assert!(changed.is_empty());
    assert_eq!(fs::read(folder.join("added")).unwrap(), b"new\n");
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn what_is_no_workspace_is_refused() {
    let why = |path: &Path| {
        profile(path, Workspace::Overlay).plan(vec!["true".to_owned()]).unwrap_err().to_string()
    };
    assert_eq!(why(Path::new("/usr/bin/env")), "`/usr/bin/env` cannot be given to a cell: it is no folder");
    assert!(why(Path::new("/usr")).contains("too large a part of the host"));
    assert!(why(Path::new("/no/such/folder")).contains("No such file"));
}

/// A folder that nobody but its owner can get into, with one to work in below it.
fn hidden(name: &str) -> (PathBuf, PathBuf) {
    let above = Path::new("/var/tmp").join(format!("toolgate-{name}-{}", std::process::id()));
    let folder = above.join("work");
    fs::create_dir_all(folder.join("src")).unwrap();
    for (path, mode) in [("kept", 0o600), ("src/deep", 0o600), ("tool", 0o700)] {
        fs::write(folder.join(path), "#!/bin/sh\necho as it was\n").unwrap();
        fs::set_permissions(folder.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    for path in [&above, &folder, &folder.join("src")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    (above, folder)
}

/// Whoever runs the tests.
fn us() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

fn owner(path: &Path) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

#[tokio::test]
async fn what_is_given_is_reached_below_a_closed_folder() {
    let (above, folder) = hidden("closed");
    fs::write(above.join("secret"), "a secret of the host").unwrap();
    let reads = "cat kept && ./tool && cat src/deep && stat -c %u kept src && ls -A ..";
    for workspace in [Workspace::Overlay, Workspace::Read, Workspace::Write] {
        let (done, ..) = run(&profile(&folder, workspace), reads).await;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(done.ended.code, Some(0), "{workspace:?}: {done:?}");
        assert!(text.ends_with("1000\n1000\nwork\n"), "{workspace:?}: {text}");
        let (done, ..) = run(&profile(&folder, workspace), "cat ../secret; ls -A ../..").await;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(!text.contains("a secret"), "{workspace:?}: {text}");
    }
    let read = vec![folder.join("kept"), folder.join("src"), folder.join("ran")];
    let named = Profile { read, exec: vec![folder.join("tool")], ..Profile::default() };
    fs::copy(folder.join("tool"), folder.join("ran")).unwrap();
    let script = format!(
        "cat {0}/kept {0}/src/deep && {0}/tool && sh {0}/ran && ! {0}/ran && ! ls {0}/other && ! echo x > {0}/kept",
        folder.display()
    );
    let (done, ..) = run(&named, &script).await;
    assert_eq!(done.ended.code, Some(0), "{done:?}");
    fs::remove_dir_all(above).unwrap();
}

#[tokio::test]
async fn what_is_taken_over_is_the_owners_and_open_to_nobody_else() {
    let (above, folder) = hidden("owner");
    let script = "set -e; echo x > added; chmod 666 added; mkdir -m 777 new; echo y > new/file; ln -s kept link; echo z > kept";
    let (done, changed, lower) = run(&profile(&folder, Workspace::Overlay), script).await;
    assert_eq!(done.ended.code, Some(0), "{done:?}");
    changes::apply(&changed[0], &lower.unwrap(), &changes::read(&changed[0]).unwrap()).unwrap();
    let (user, group) = us();
    for (path, mode) in [("added", 0o644), ("new", 0o755), ("new/file", 0o644), ("kept", 0o600)] {
        assert_eq!(owner(&folder.join(path)), (user, group, mode), "{path}");
    }
    assert_eq!(owner(&folder.join("link")).0, user);
    let (done, ..) = run(&profile(&folder, Workspace::Write), "echo x > direct && mkdir made").await;
    assert_eq!(done.ended.code, Some(0), "{done:?}");
    assert_eq!(owner(&folder.join("direct")), (user, group, 0o644));
    assert_eq!(owner(&folder.join("made")), (user, group, 0o755));
    fs::remove_dir_all(above).unwrap();
}

#[tokio::test]
async fn no_file_of_the_host_is_made_to_run_as_its_owner() {
    let (above, folder) = hidden("setid");
    let script =
        "cp /bin/true id; chmod 4755 id; chmod 2755 id; chmod u+s tool; install -m 4755 /bin/true other;
        python3 -c 'import os
for make in (lambda: os.mknod(\"m\", 0o104755), lambda: os.open(\"o\", os.O_CREAT | os.O_WRONLY, 0o4755),
             lambda: os.fchmod(os.open(\"id\", os.O_RDONLY), 0o6755)):
    try: make(); print(\"ESCAPED\")
    except PermissionError: print(\"refused\")'";
    let (done, ..) = run(&profile(&folder, Workspace::Write), script).await;
    assert_eq!(done.stdout, b"refused\nrefused\nrefused\n", "{done:?}");
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        assert_eq!(owner(&entry.path()).2 & 0o6000, 0, "{entry:?}");
    }
    assert!(folder.join("id").exists());
    fs::remove_dir_all(above).unwrap();
}

#[tokio::test]
async fn what_belongs_to_others_stays_theirs() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let (above, folder) = hidden("others");
    for (name, user, mode) in [("theirs", 4_343, 0o600), ("open", 4_343, 0o644), ("nobodys", 65_534, 0o600)] {
        fs::write(folder.join(name), name).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(folder.join(name), Some(user), Some(user)).unwrap();
    }
    for workspace in [Workspace::Overlay, Workspace::Read, Workspace::Write] {
        let script = "cat open; cat theirs nobodys; echo x > open; chmod 777 theirs open; chown 1000 theirs";
        let (done, ..) = run(&profile(&folder, workspace), script).await;
        assert_eq!(done.stdout, b"open", "{workspace:?}: {done:?}");
    }
    assert_eq!(owner(&folder.join("open")), (4_343, 4_343, 0o644));
    fs::remove_dir_all(above).unwrap();
}

#[tokio::test]
async fn what_lies_under_a_mount_stays_there() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let (above, folder) = hidden("mounts");
    fs::write(folder.join("src/covered"), "covered").unwrap();
    let covers =
        Command::new("mount").args(["-t", "tmpfs", "none"]).arg(folder.join("src")).status().unwrap();
    assert!(covers.success());
    let planned = profile(&folder, Workspace::Overlay).plan(vec!["true".to_owned()]).unwrap();
    let refused = cells(Layers::ALL).run(&planned.spec).await.unwrap_err().to_string();
    let (done, ..) = run(&profile(&folder, Workspace::Write), "ls -A src; echo x > src/new").await;
    let seen = fs::read(folder.join("src/new")).unwrap();
    assert!(Command::new("umount").arg(folder.join("src")).status().unwrap().success());
    fs::remove_dir_all(above).unwrap();
    assert!(refused.contains("is mounted below it"), "{refused}");
    assert_eq!((done.stdout.as_slice(), seen.as_slice()), (&b""[..], &b"x\n"[..]), "{done:?}");
}

#[tokio::test]
async fn a_link_that_is_swapped_in_is_not_followed() {
    // Looked at as a folder, and a link to another one when the cell starts.
    let folder = folder("swap");
    let planned = profile(&folder, Workspace::Read).plan(vec!["cat".to_owned(), "kept".to_owned()]).unwrap();
    let moved = folder.with_extension("moved");
    fs::rename(&folder, &moved).unwrap();
    std::os::unix::fs::symlink("/root", &folder).unwrap();
    let refused = cells(Layers::ALL).run(&planned.spec).await.unwrap_err().to_string();
    assert!(refused.contains("Stale file handle"), "{refused}");
    fs::remove_file(&folder).unwrap();
    // Another folder of the same name.
    fs::create_dir(&folder).unwrap();
    let refused = cells(Layers::ALL).run(&planned.spec).await.unwrap_err().to_string();
    assert!(refused.contains("Stale file handle"), "{refused}");
    fs::remove_dir_all(&folder).unwrap();
    fs::remove_dir_all(&moved).unwrap();
}

/// The new root is built over a folder of the host's; what is given may lie below that.
#[tokio::test]
async fn a_workspace_may_lie_where_roots_are_built() {
    let folder = Path::new("/tmp").join(format!("toolgate-below-tmp-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("kept"), "as it was").unwrap();
    for workspace in [Workspace::Overlay, Workspace::Read, Workspace::Write] {
        let profile = Profile { read: vec![folder.join("kept")], ..profile(&folder, workspace) };
        let (done, ..) = run(&profile, "cat kept; echo new > added").await;
        assert_eq!(done.stdout, b"as it was", "{workspace:?}: {done:?}");
        assert_eq!(folder.join("added").exists(), workspace == Workspace::Write, "{workspace:?}");
    }
    fs::remove_dir_all(folder).unwrap();
}
