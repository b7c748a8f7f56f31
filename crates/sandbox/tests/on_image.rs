//! Cells that run on images.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod archive;
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use archive::{Layer, Oci, Tar, tar};
use common::cells;
use toolgate_sandbox::cell::{CellError, Finished, Layers, Limits, Planned, Profile, Workspace};
use toolgate_sandbox::image::{Image, Images, Platform};

/// Images of a test, removed after it.
struct Store(PathBuf);

impl Store {
    fn new(name: &str) -> Self {
        let path = Path::new("/var/tmp").join(format!("toolgate-on-image-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// An image with a program, and with what else the test wants in it.
    fn with_program(&self, with: Tar) -> Image {
        let program = fs::read(env!("CARGO_BIN_EXE_cell-hostile")).unwrap();
        let mut with = with.mode(0o755).bytes("bin/hostile", &program);
        // It needs what it is linked to.
        for library in libraries(Path::new(env!("CARGO_BIN_EXE_cell-hostile"))) {
            let content = fs::read(&library).unwrap();
            with = with.long_bytes(library.to_str().unwrap(), &content);
        }
        self.image(with)
    }

    fn image(&self, with: Tar) -> Image {
        let oci = Oci::new(&[Layer::plain(with.done())]);
        let file = self.0.join("image.tar");
        fs::write(&file, oci.tar()).unwrap();
        let images = Images::new(self.0.join("images"));
        images.import(&file, "it", &Platform::here(), &mut |_| {}).unwrap().image
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _none = Images::new(self.0.join("images")).remove("it");
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The loader and the libraries of a program, as the loader says.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let told = std::process::Command::new("ldd").arg(program).output().unwrap().stdout;
    let told = String::from_utf8(told).unwrap();
    told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

async fn run(profile: &Profile, argv: &[&str]) -> Result<Finished, CellError> {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    let Planned { spec, opened } = profile.plan(argv)?;
    let cell = cells(Layers::ALL).run(&spec).await?;
    drop(opened);
    cell.finish(b"", &spec.limits).await
}

fn on(image: &Image, variables: &[&str], in_its_folder: bool) -> Profile {
    let variables: Vec<String> = variables.iter().map(|name| (*name).to_owned()).collect();
    let limits = Limits { wall_ms: 30_000, ..Limits::default() };
    Profile { image: Some(image.base(&variables, in_its_folder).unwrap()), limits, ..Profile::default() }
}

async fn says(profile: &Profile, argv: &[&str]) -> String {
    let done = run(profile, argv).await.unwrap();
    String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap()
}

#[tokio::test]
async fn a_cell_has_the_files_of_its_image_and_none_of_the_hosts() {
    let store = Store::new("files");
    let canary = store.0.join("canary");
    fs::write(&canary, "a secret of the host").unwrap();
    let image = store.with_program(
        tar()
            .file("etc/release", "of the image")
            .file("etc/passwd", "root:x:0:0::/root:/bin/sh")
            .link("etc/resolv.conf", "/etc/release")
            .link("out", canary.to_str().unwrap())
            .file("dev/null", "no device")
            .folder("srv"),
    );
    let plain = on(&image, &[], false);
    for (argv, want) in [
        (&["hostile", "show", "/etc/release"][..], "of the image"),
        (&["hostile", "show", "/etc/hostname"], "cell\n"),
        (&["hostile", "show", "/dev/null"], ""),
        // Ours lie over those of the image, and are not written through its links.
        (&["hostile", "show", "/etc/resolv.conf"], ""),
        (&["hostile", "show", "/usr/bin/env"], "not there"),
        (&["hostile", "show", "/out"], "not there"),
        (&["hostile", "show", "/bin/sh"], "not there"),
    ] {
        assert_eq!(says(&plain, argv).await, want, "{argv:?}");
    }
    let said = says(&plain, &["hostile", "show", "/etc/passwd"]).await;
    assert!(said.starts_with("agent:x:1000:"), "{said}");
    for attempt in [
        &["write", "/etc/release", "/bin/hostile", "/bin/new", "/etc/passwd", "/new", "/dev/new"][..],
        &["read", canary.to_str().unwrap(), "/out", "/etc/shadow"],
        &["roots"],
    ] {
        let argv: Vec<&str> = std::iter::once("hostile").chain(attempt.iter().copied()).collect();
        let said = says(&plain, &argv).await;
        assert!(said.lines().last().unwrap_or_default().starts_with("contained: "), "{attempt:?}: {said}");
    }
    assert_eq!(Images::new(store.0.join("images")).verify("it", &mut |_| {}).unwrap().1, []);
}

#[tokio::test]
async fn of_what_an_image_wishes_for_a_cell_gets_what_is_allowed() {
    let store = Store::new("wishes");
    let image = store.with_program(tar().folder("srv").file("srv/here", "here"));
    let has = |profile: Profile, argv: &'static [&'static str]| async move { says(&profile, argv).await };
    const ENV: &[&str] = &["hostile", "show-environment"];
    let ours = "HOME=/home/agent\n";
    assert_eq!(has(on(&image, &[], false), ENV).await, format!("{ours}PATH=/bin\n"));
    assert_eq!(has(on(&image, &["LANG"], false), ENV).await, format!("{ours}LANG=C=D\nPATH=/bin\n"));
    let own = Profile { env: vec![("LANG".to_owned(), "own".to_owned())], ..on(&image, &["LANG"], false) };
    assert_eq!(has(own, ENV).await, format!("{ours}LANG=own\nPATH=/bin\n"));
    let error = image.base(&["NONE".to_owned()], false).unwrap_err();
    assert_eq!(error.to_string(), "the image does not name the variable `NONE`");

    const HERE: &[&str] = &["hostile", "show", "here"];
    assert_eq!(has(on(&image, &[], false), HERE).await, "not there");
    assert_eq!(has(on(&image, &[], true), HERE).await, "here");
    let folder = store.0.join("work");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("here"), "mine").unwrap();
    let work = Profile { workspace: Some((folder, Workspace::Overlay)), ..on(&image, &[], true) };
    assert_eq!(has(work, HERE).await, "mine");
}

#[tokio::test]
async fn an_image_that_leaves_no_room_is_refused() {
    let store = Store::new("room");
    for (with, step) in [
        (tar().link("tmp", "/etc"), "memory at `/tmp`"),
        (tar().file("home", ""), "memory at `/home/agent`"),
        (tar().link("proc", "/"), "`/proc`"),
        (tar().link("etc", "/bin"), "the file `/etc/group`"),
        (tar().folder("etc/passwd"), "the file `/etc/passwd`"),
    ] {
        let image = store.image(with);
        match run(&on(&image, &[], false), &["hostile", "roots"]).await {
            Err(CellError::Prepare { step: at, .. }) => assert_eq!(at, step),
            other => panic!("{step}: {other:?}"),
        }
    }
}
