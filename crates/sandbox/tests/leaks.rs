//! Many cells, one after the other and at once, leave nothing behind. `TOOLGATE_CELLS` says how many after each other.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on stops")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{cells, spec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use toolgate_sandbox::cell::{Cells, Layers, Place, Source, Spec};

/// How many, if it is not said.
const CELLS: usize = 300;

/// How long it may take until all is put away.
const PUT_AWAY: Duration = Duration::from_secs(60);

/// What there is of everything that could be left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
struct There {
    /// Processes that the launcher started, whether or not they have ended.
    processes: usize,
    /// Threads of this process.
    threads: usize,
    /// Descriptors of this process and of the launcher.
    descriptors: [usize; 2],
    /// Mounts that this process and the launcher see.
    mounts: [usize; 2],
    /// Cgroups of cells.
    cgroups: usize,
}

struct Looked {
    launcher: u32,
}

fn entries(path: impl AsRef<Path>) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn children(of: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent(*id) == Some(of)).collect()
}

/// The folders of the cgroups of this process's cells, wherever they are.
fn cgroups(below: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let ours = format!("toolgate-cells-{}-", std::process::id());
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(&ours) {
            found.push(entry.path());
        } else if depth > 0 {
            cgroups(&entry.path(), depth - 1, found);
        }
    }
}

impl Looked {
    fn for_the_launcher() -> Self {
        let launchers = children(std::process::id());
        assert_eq!(launchers.len(), 1, "{launchers:?}");
        Self { launcher: launchers[0] }
    }

    fn look(&self) -> There {
        let both = [std::process::id(), self.launcher];
        let of = |what: &str| both.map(|id| entries(format!("/proc/{id}/{what}")));
        let mounts =
            |id: u32| fs::read_to_string(format!("/proc/{id}/mountinfo")).unwrap_or_default().lines().count();
        let mut folders = Vec::new();
        cgroups(Path::new("/sys/fs/cgroup"), 4, &mut folders);
        let cells = |folder: &PathBuf| {
            let inside = fs::read_dir(folder).into_iter().flatten().flatten();
            inside.filter(|entry| entry.file_name().to_string_lossy().starts_with("cell-")).count()
        };
        There {
            processes: children(self.launcher).len(),
            threads: of("task")[0],
            descriptors: of("fd"),
            mounts: both.map(mounts),
            cgroups: folders.iter().map(cells).sum(),
        }
    }

    /// Memory of this process and of the launcher, in KiB.
    fn memory(&self) -> [usize; 2] {
        [std::process::id(), self.launcher].map(|id| {
            let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        })
    }

    /// Waits until there is again what there was.
    async fn until(&self, before: &There) {
        let begin = Instant::now();
        loop {
            let now = self.look();
            // Idle threads and what they hold may go; other tests and programs may mount.
            let There { threads, descriptors, mounts, .. } = *before;
            let same = There { threads, descriptors, mounts, ..now.clone() };
            let fewer = now.descriptors.iter().zip(&descriptors).all(|(now, before)| now <= before);
            if same == *before && fewer && now.threads <= threads {
                return;
            }
            assert!(begin.elapsed() < PUT_AWAY, "left behind: {now:?}\nthere was: {before:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The kinds of cells that there are.
fn kinds(folder: &Path) -> BTreeMap<&'static str, Spec> {
    let (plain, _kept) = spec(&["/usr/bin/true"]);
    let mut networked = plain.clone();
    networked.net.push("api.example.com:443".parse().unwrap());
    let (lower, _opened) = Source::open(folder).unwrap();
    let mut overlay = plain.clone();
    overlay.places.push(Place::Overlay { at: "/work".to_owned(), lower, bytes: 1 << 20, inodes: 100 });
    overlay.writable.push("/work".to_owned());
    overlay.argv = ["/bin/sh", "-c", "echo x > /work/x; (setsid sleep 1000 &)"].map(str::to_owned).to_vec();
    let mut pooled = plain.clone();
    pooled.limits.file_bytes += 1;
    let mut missing = plain.clone();
    missing.argv = vec!["/no/such/program".to_owned()];
    let mut broken = plain.clone();
    broken.cwd = "/no/such/folder".to_owned();
    [
        ("broken", broken),
        ("missing", missing),
        ("networked", networked),
        ("overlay", overlay),
        ("plain", plain),
        ("pooled", pooled),
    ]
    .into()
}

/// Runs a cell to its end, or only to its beginning.
async fn one(cells: &Cells, kind: &str, spec: &Spec, to_its_end: bool) {
    match cells.run(spec).await {
        Ok(cell) if to_its_end => {
            let finished = cell.finish(b"", &spec.limits).await;
            assert_eq!(finished.is_ok(), kind != "missing", "{kind}: {finished:?}");
        }
        Ok(cell) => drop(cell),
        Err(error) => assert_eq!(kind, "broken", "{error}"),
    }
}

/// Which kind the next one is of: mostly the plain ones.
fn kind(number: usize) -> &'static str {
    match number % 50 {
        7 => "broken",
        17 => "missing",
        27 => "networked",
        n if n % 10 == 3 => "overlay",
        n if n % 4 == 1 => "pooled",
        _ => "plain",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_cells_leave_nothing_behind() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let folder = Path::new("/var/tmp").join(format!("toolgate-leaks-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let count = std::env::var("TOOLGATE_CELLS").map_or(CELLS, |count| count.parse().unwrap());
    let cells = cells(Layers::ALL);
    let looked = Looked::for_the_launcher();
    let kinds = kinds(&folder);
    // Everything once, for what is made once.
    for (kind, spec) in &kinds {
        one(&cells, kind, spec, true).await;
    }
    cells.warm(&kinds["pooled"], 2);
    while cells.waiting(&kinds["pooled"]) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cells.warm(&kinds["pooled"], 0);
    // What is put away in the background is put away.
    let before = loop {
        let there = looked.look();
        if there.processes == 0 && there.cgroups == 0 {
            break there;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };

    let mut memory = Vec::new();
    let begin = Instant::now();
    for number in 0..count {
        let kind = kind(number);
        if kind == "pooled" {
            cells.warm(&kinds[kind], 1);
        }
        one(&cells, kind, &kinds[kind], number % 5 > 0).await;
        if number % (count / 4).max(1) == 0 {
            memory.push(looked.memory());
        }
    }
    memory.push(looked.memory());
    println!(
        "{count} cells in {:?}; memory of the gate and the launcher in KiB: {memory:?}",
        begin.elapsed()
    );
    cells.warm(&kinds["pooled"], 0);
    looked.until(&before).await;
    // After the first quarter everything has been as large as it gets.
    for (name, which) in [("the gate", 0), ("the launcher", 1)] {
        let (quarter, end) = (memory[1][which], memory[memory.len() - 1][which]);
        assert!(end < quarter + 4096, "{name} has grown: {memory:?} KiB");
    }

    let at_once = if count > CELLS { 200 } else { 60 };
    let mut tasks = Vec::new();
    for number in 0..at_once {
        let (cells, kind) = (cells.clone(), kind(number));
        let mut spec = kinds[kind].clone();
        if kind == "plain" {
            // They are there at the same time.
            spec.argv = ["/usr/bin/sleep", "1"].map(str::to_owned).to_vec();
        }
        tasks.push(tokio::spawn(async move { one(&cells, kind, &spec, number % 5 > 0).await }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    looked.until(&before).await;
    fs::remove_dir_all(folder).unwrap();
    drop(cells);
    while Path::new(&format!("/proc/{}", looked.launcher)).exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut folders = Vec::new();
    cgroups(Path::new("/sys/fs/cgroup"), 4, &mut folders);
    assert_eq!(folders, Vec::<PathBuf>::new());
}
