//! What becomes of changes in a workspace.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::{NOBODY, cells};
use toolgate_sandbox::cell::changes::{self, Caution, Change, What};
use toolgate_sandbox::cell::{Cell, Finished, Layers, Place, Profile, Source, Workspace};

/// A folder of the user who runs the cells.
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
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
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
