//! Images, as somebody types them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

#[path = "../../sandbox/tests/archive/mod.rs"]
mod archive;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use archive::{Layer, Oci, tar};

/// A home of its own that is gone after the test.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = Path::new("/var/tmp").join(format!("toolgate-cli-image-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("work")).unwrap();
        Self(path)
    }

    /// Standard output, standard error and the exit status.
    fn toolgate(&self, arguments: &[&str]) -> (String, String, Option<i32>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate"));
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &self.0);
        let Output { status, stdout, stderr } = command.current_dir(self.0.join("work")).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(stdout), text(stderr), status.code())
    }

    /// An archive of an image that has `cat`.
    fn archive(&self, release: &str) -> PathBuf {
        let mut layer = tar().file("etc/release", release).mode(0o755);
        let told = Command::new("ldd").arg("/bin/cat").output().unwrap().stdout;
        let told = String::from_utf8(told).unwrap();
        let libraries = told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        for path in libraries.chain([PathBuf::from("/bin/cat")]) {
            layer = layer.long_bytes(path.to_str().unwrap(), &fs::read(&path).unwrap());
        }
        let file = self.0.join("small.tar");
        fs::write(&file, Oci::new(&[Layer::gzip(layer.done())]).tar()).unwrap();
        file
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for name in ["small", "other"] {
            let _none = self.toolgate(&["image", "remove", name]);
        }
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn an_image_is_taken_in_run_on_checked_and_removed() {
    let home = Home::new("whole");
    let file = home.archive("of the image");
    let file = file.to_str().unwrap();
    let (_, err, code) = home.toolgate(&["image", "import", file]);
    assert!(err.starts_with("The image `small` (sha256:") && code == Some(0), "{err}");
    assert!(err.contains("is taken in: ") && err.contains("1 layer,"), "{err}");
    let (out, err, code) = home.toolgate(&["image", "import", file, "--name", "other", "--json"]);
    assert!(err.contains("was there already, and is called `other`") && code == Some(0), "{err}");
    assert!(out.contains(r#""was_there":true"#) && out.contains(r#""working_dir":"/srv""#), "{out}");

    let (out, _, _) = home.toolgate(&["image", "list"]);
    let names: Vec<&str> = out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["NAME", "other", "small"]);

    fs::write(home.0.join("work/mine"), "my own").unwrap();
    let run = ["exec", "--image", "small", "--", "cat", "/etc/release", "mine"];
    let (out, err, code) = home.toolgate(&run);
    assert_eq!((out.as_str(), code), ("of the imagemy own", Some(0)), "{err}");
    let (_, err, code) = home.toolgate(&["exec", "--image", "small", "--", "/usr/bin/env"]);
    assert!(err.contains("starting `/usr/bin/env`: No such file") && code == Some(127), "{err}");

    let (_, err, code) = home.toolgate(&["image", "verify", "small"]);
    assert!(err.contains("is what was imported") && code == Some(0), "{err}");
    let images = home.0.join(".local/state/toolgate/images");
    let place = fs::read_dir(&images).unwrap().flatten().find(|e| e.file_name() != "names").unwrap().path();
    let release = place.join("root/etc/release");
    fs::set_permissions(&release, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&release, "of an enemy!").unwrap();
    let (out, err, code) = home.toolgate(&["image", "verify", "small"]);
    assert_eq!((out.as_str(), code), ("changed  /etc/release\n", Some(1)));
    assert!(err.contains("is not what was imported: 1 of its entries differ"), "{err}");
    assert!(err.contains("hint: stop what runs on it, then `toolgate image remove small`"), "{err}");

    for name in ["small", "other"] {
        assert_eq!(home.toolgate(&["image", "remove", name]).2, Some(0));
    }
    let (out, err, _) = home.toolgate(&["image", "list"]);
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("", "There are no images; `toolgate image import` takes one in.\n")
    );
}

#[test]
fn a_profile_names_an_image_and_what_it_takes_of_its_wishes() {
    let home = Home::new("profile");
    let file = home.archive("of the image");
    assert_eq!(home.toolgate(&["image", "import", file.to_str().unwrap()]).2, Some(0));
    let config = home.0.join(".config/toolgate");
    fs::create_dir_all(&config).unwrap();
    fs::write(
        config.join("toolgate.toml"),
        "[profiles.plain]\nimage = \"small\"\n[profiles.more]\nimage = { name = \"small\", env = [\"LANG\"] }\n\
         [profiles.wrong]\nimage = { name = \"small\", env = [\"LNAG\"] }\n[profiles.gone]\nimage = \"gone\"\n",
    )
    .unwrap();
    for (profile, want) in
        [("plain", "HOME=/home/agent\0PATH=/bin\0"), ("more", "HOME=/home/agent\0LANG=C=D\0PATH=/bin\0")]
    {
        let (out, err, code) =
            home.toolgate(&["exec", "--profile", profile, "--", "cat", "/proc/self/environ"]);
        assert_eq!((out.as_str(), code), (want, Some(0)), "{err}");
    }
    let (out, err, _) = home.toolgate(&["doctor", "--cell", "more"]);
    assert!(out.contains("the image `small` (sha256:"), "{out} {err}");
    assert!(out.contains("the variables PATH, HOME, LANG"), "{out}");
    let (_, err, code) = home.toolgate(&["exec", "--profile", "wrong", "--", "cat"]);
    assert!(err.contains("the image does not name the variable `LNAG`") && code == Some(1), "{err}");
    for arguments in [
        &["exec", "--profile", "gone", "--", "cat"][..],
        &["doctor", "--cell", "gone"],
        &["image", "verify", "gone"],
    ] {
        let (_, err, code) = home.toolgate(arguments);
        assert!(err.contains("there is no image `gone`") && code == Some(1), "{err}");
        assert!(err.contains("hint: `toolgate image list` shows"), "{err}");
    }
}

#[test]
fn what_is_no_image_is_refused_with_what_to_do() {
    let home = Home::new("refused");
    let file = home.0.join("note.txt");
    fs::write(&file, "hello").unwrap();
    let (_, err, code) = home.toolgate(&["image", "import", file.to_str().unwrap()]);
    assert!(err.contains("it is no archive of an image") && code == Some(1), "{err}");
    let (_, err, _) = home.toolgate(&["image", "import", "/does/not/exist"]);
    assert!(err.contains("`/does/not/exist` of the image cannot be read"), "{err}");
    let file = home.archive("");
    let named = ["image", "import", file.to_str().unwrap(), "--name", "a/b"];
    let (_, err, _) = home.toolgate(&named);
    assert!(err.contains("`a/b` is no name for an image") && err.contains("--name NAME"), "{err}");
    let other = ["image", "import", file.to_str().unwrap(), "--platform", "linux/s390x"];
    let (_, err, _) = home.toolgate(&other);
    assert!(err.contains("it has no image for linux/s390x; it has linux/"), "{err}");
    assert!(!home.0.join(".local/state/toolgate/images").exists(), "nothing is begun for what is refused");
}
