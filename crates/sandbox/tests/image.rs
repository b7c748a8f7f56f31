//! Images that are taken in: good ones, damaged ones and hostile ones.
#![expect(clippy::unwrap_used, clippy::string_slice, reason = "a test that cannot go on stops")]

mod archive;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use archive::{Layer, Oci, tar};
use toolgate_sandbox::image::{Images, Imported, Platform};

/// A folder of its own for a test, gone after it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new("/var/tmp").join(format!("toolgate-image-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn images(&self) -> Images {
        Images::new(self.0.join("images"))
    }

    /// Writes a layout into a folder of its own.
    fn layout(&self, name: &str, oci: &Oci) -> PathBuf {
        let folder = self.0.join(name);
        for (path, content) in oci.files() {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    /// Unpacks layers; what was wrong, if something was.
    fn import(&self, layers: &[Layer]) -> Result<Imported, String> {
        let layout = self.layout("layout", &Oci::new(layers));
        let done = self.images().import(&layout, "it", &Platform::here(), &mut |_| {});
        fs::remove_dir_all(layout).unwrap();
        done.map_err(|error| error.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is read-only for its owner, too, has to be made writable first.
        fn open(path: &Path) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
            for entry in fs::read_dir(path).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    open(&entry.path());
                }
            }
        }
        open(&self.0);
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// What is in a folder: paths, and contents or targets.
fn seen(root: &Path) -> BTreeMap<String, String> {
    fn below(root: &Path, path: &Path, all: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(path).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if kind.is_dir() {
                all.insert(format!("{name}/"), String::new());
                below(root, &path, all);
            } else if kind.is_symlink() {
                all.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
            } else {
                all.insert(name, fs::read_to_string(&path).unwrap_or_else(|_| kind_of(&path)));
            }
        }
    }
    fn kind_of(path: &Path) -> String {
        format!("{:o}", fs::symlink_metadata(path).unwrap().mode())
    }
    let mut all = BTreeMap::new();
    below(root, root, &mut all);
    all
}

fn shown(root: &Path) -> String {
    let entries = seen(root).into_iter().map(
        |(path, what)| {
            if what.is_empty() { path } else { format!("{path}={what}") }
        },
    );
    entries.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_image_is_the_same_wherever_it_comes_from() {
    let folder = Folder::new("sources");
    let oci = Oci::new(&[
        Layer::plain(tar().folder("etc/").file("etc/os", "one").mode(0o4755).file("bin/sh", "#!").done()),
        Layer::gzip(tar().file("./etc/os", "two").link("sh", "bin/sh").done()),
        Layer::zstd(tar().hard("bin/bash", "bin/sh").done()),
    ]);
    let as_folder = folder.layout("layout", &oci);
    let as_tar = folder.0.join("layout.tar");
    fs::write(&as_tar, oci.tar()).unwrap();
    let saved = folder.0.join("saved.tar");
    fs::write(&saved, oci.saved()).unwrap();
    let images = folder.images();
    let mut ids = Vec::new();
    for (name, source) in [("one", &as_folder), ("two", &as_tar), ("three", &saved)] {
        let done = images.import(source, name, &Platform::here(), &mut |_| {}).unwrap();
        assert_eq!((done.was_there, &done.replaced), (!ids.is_empty(), &None), "{name}");
        ids.push(done.image.about.id);
    }
    assert_eq!(ids, vec![oci.id(); 3]);
    let listed = images.list().unwrap();
    assert_eq!(listed.keys().collect::<Vec<_>>(), ["one", "three", "two"]);
    let image = &listed["one"];
    assert_eq!(shown(&image.root), "bin/ bin/bash=#! bin/sh=#! etc/ etc/os=two sh=-> bin/sh");
    let about = &image.about;
    assert_eq!((about.files, about.bytes, about.layers, about.dropped.set_id), (6, 7, 3, 1));
    assert_eq!(about.env, [("PATH".to_owned(), "/bin".to_owned()), ("LANG".to_owned(), "C=D".to_owned())]);
    assert_eq!(about.working_dir, "/srv");
    for (path, mode) in [("", 0o555), ("bin", 0o555), ("bin/sh", 0o555), ("etc/os", 0o444)] {
        let found = fs::metadata(image.root.join(path)).unwrap();
        assert_eq!(found.mode() & 0o7777, mode, "{path}");
    }
    assert_eq!(images.verify("two", &mut |_| {}).unwrap().1, []);
}

#[test]
fn names_come_and_go_and_take_their_image_along() {
    let folder = Folder::new("names");
    let images = folder.images();
    assert!(images.list().unwrap().is_empty());
    let first = folder.import(&[Layer::plain(tar().file("a", "1").done())]).unwrap();
    let layout = folder.layout("other", &Oci::new(&[Layer::plain(tar().file("a", "2").done())]));
    let again = images.import(&layout, "too", &Platform::here(), &mut |_| {}).unwrap();
    assert!(!again.was_there && first.image.root.exists());
    // A name that moves on lets go of what nobody else names.
    let moved = images.import(&layout, "it", &Platform::here(), &mut |_| {}).unwrap();
    assert_eq!((moved.was_there, moved.replaced), (true, Some(first.image.about.id)));
    assert!(!first.image.root.exists());
    images.remove("it").unwrap();
    assert!(again.image.root.exists());
    images.remove("too").unwrap();
    assert!(!again.image.root.exists());
    for name in ["it", "too"] {
        assert_eq!(images.remove(name).unwrap_err().to_string(), format!("there is no image `{name}`"));
    }
    for name in ["", ".", "..", ".hidden", "a/b", "a b", "-a", &"a".repeat(65)] {
        assert!(images.find(name).unwrap_err().to_string().contains("is no name for an image"), "{name}");
    }
    assert_eq!(fs::read_dir(folder.0.join("images")).unwrap().count(), 1, "but for the folder of names");
}

#[test]
fn layers_lie_over_each_other() {
    for (what, layers, want) in [
        ("a file goes", vec![tar().file("d/a", "1").file("d/b", "1"), tar().file("d/.wh.a", "")], "d/ d/b=1"),
        (
            "a folder goes, with all that is in it",
            vec![tar().file("d/e/f/a", "1").file("b", "1"), tar().file(".wh.d", "")],
            "b=1",
        ),
        (
            "what was not there is gone already",
            vec![tar().file("b", "1"), tar().file("x/.wh.a", "").file("b/.wh.a", "").file(".wh.c", "")],
            "b=1",
        ),
        (
            "an opaque folder has what its own layer has",
            vec![
                tar().file("d/a", "1").file("d/e/a", "1").file("d/f/a", "1"),
                tar().file("d/e/b", "2").file("d/.wh..wh..opq", "").file("d/c", "2"),
            ],
            "d/ d/c=2 d/e/ d/e/b=2",
        ),
        (
            "what a layer takes away it can bring",
            vec![tar().file("a", "1"), tar().file(".wh.a", "").file("a", "2")],
            "a=2",
        ),
        (
            "and it does not matter in which order",
            vec![tar().file("d/a", "1"), tar().file("d/b", "2").file(".wh.d", "")],
            "d/ d/b=2",
        ),
        (
            "a layer does not take away what it brings itself",
            vec![tar().file("a", "1").file(".wh.a", "")],
            "a=1",
        ),
        (
            "nor what a link leads to that it brings itself",
            vec![tar().file("d/a", "1"), tar().link("l", "d").file(".wh.l", "")],
            "d/ d/a=1 l=-> d",
        ),
        (
            "marks of other programs are none",
            vec![tar().file("a", "1"), tar().file(".wh..wh.plnk", "").file(".wh..wh.aufs", "")],
            "a=1",
        ),
        (
            "a folder takes the place of a link",
            vec![tar().link("lib", "usr/lib").folder("usr/lib"), tar().folder("lib").file("lib/a", "2")],
            "lib/ lib/a=2 usr/ usr/lib/",
        ),
        ("a file takes the place of a folder", vec![tar().file("d/e/a", "1"), tar().file("d", "2")], "d=2"),
        (
            "a link takes the place of a folder",
            vec![tar().file("d/e/a", "1"), tar().link("d", "/")],
            "d=-> /",
        ),
        (
            "a second name takes the place of a file",
            vec![tar().file("a", "1").file("b", "2"), tar().hard("b", "a")],
            "a=1 b=1",
        ),
        (
            "what is not made takes the place of a file",
            vec![tar().file("a", "1"), tar().special(b'6', "a")],
            "",
        ),
        (
            "a second name stays what it was",
            vec![tar().file("a", "1").hard("b", "a"), tar().file("a", "2")],
            "a=2 b=1",
        ),
    ] {
        let folder = Folder::new("layers");
        let layers: Vec<Layer> = layers.into_iter().map(|tar| Layer::plain(tar.done())).collect();
        assert_eq!(shown(&folder.import(&layers).unwrap().image.root), want, "{what}");
    }
}

#[test]
fn hostile_archives_write_nothing_outside() {
    let folder = Folder::new("hostile");
    let outside = folder.0.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "untouched").unwrap();
    let (out, canary) = (outside.to_str().unwrap(), outside.join("canary"));
    let canary = canary.to_str().unwrap();
    let up = format!("../../../../../../../..{canary}");
    let long = "x".repeat(256);
    let deep = "d/".repeat(129);
    let inner = String::from_utf8(tar().file("hidden", "").blocks()).unwrap();
    let hidden = format!("a={inner}");
    let refused = |what: &'static str| Err(what);
    let cases: Vec<(&str, archive::Tar, Result<&str, &str>)> = vec![
        // Paths.
        ("upwards", tar().file("../x", ""), refused("the entry `../x` leads upwards")),
        ("upwards further in", tar().file("a/../../x", ""), refused("leads upwards")),
        ("upwards by a long name", tar().long_file(&up, "x"), refused("leads upwards")),
        (
            "upwards by an extended header",
            tar().pax(&[("path", &up)]).file("a", "x"),
            refused("leads upwards"),
        ),
        ("whole path", tar().file("//a/./b", "1"), Ok("a/ a/b=1")),
        ("a zero in a name", tar().pax(&[("path", "a\0b")]).file("a", ""), refused("a zero in it")),
        ("too long a part", tar().long_file(&long, ""), refused("too long a path")),
        ("too deep", tar().long_file(&format!("{deep}x"), ""), refused("too long a path")),
        ("in the place of the root", tar().file("./", "x"), refused("")),
        ("a link in the place of the root", tar().link(".", out), refused("is in the place of the root")),
        // Links.
        (
            "through a link outwards",
            tar().link("a", out).file("a/canary", "gone"),
            refused("the entry `a/canary` leads through a symbolic link"),
        ),
        (
            "through a link inwards",
            tar().folder("b").link("a", "b").file("a/c", ""),
            refused("leads through a symbolic link"),
        ),
        ("over a link outwards", tar().link("a", canary).file("a", "1"), Ok("a=1")),
        ("a folder over a link", tar().link("a", out).folder("a").file("a/canary", "1"), Ok("a/ a/canary=1")),
        ("a link to the outside", tar().link("a", "../../../etc"), Ok("a=-> ../../../etc")),
        ("a link to nowhere", tar().link("a", ""), refused("is a link to nowhere")),
        ("a second name, upwards", tar().hard("a", &up), refused("leads upwards")),
        (
            "a second name of the outside",
            tar().hard("a", canary),
            refused("the entry `a` is another name for something that is not in the image, or no file"),
        ),
        (
            "a second name through a link",
            tar().link("l", out).hard("a", "l/canary"),
            refused("is another name for something that is not in the image"),
        ),
        ("a second name of itself", tar().file("a", "").hard("a", "a"), refused("is another name for")),
        ("a second name of a folder", tar().folder("d").hard("a", "d"), refused("is another name for")),
        (
            "a second name of a link, and over it",
            tar().link("l", canary).hard("a", "l").file("a", "1"),
            Ok("a=1 l=-> %canary"),
        ),
        ("a second name of a link", tar().link("l", canary).hard("a", "l"), Ok("a=-> %canary l=-> %canary")),
        ("a link outwards that it brings, gone", tar().link("a", out).file(".wh.a", ""), Ok("a=-> %out")),
        ("over a second name", tar().file("a", "1").hard("b", "a").file("b", "2"), Ok("a=1 b=2")),
        ("gone through a link", tar().link("a", out).file("a/.wh.canary", ""), refused("symbolic link")),
        (
            "all gone through a link",
            tar().link("a", out).file("a/.wh..wh..opq", ""),
            refused("symbolic link"),
        ),
        (
            "the folder itself gone",
            tar().file("a/b", "").file("a/.wh...", ""),
            refused("a folder itself is gone"),
        ),
        ("the folder gone", tar().file("a/b", "").file("a/.wh..", ""), refused("a folder itself is gone")),
        ("below a mark", tar().file(".wh.a/b", ""), refused("lies below something that is gone")),
        // Kinds.
        ("devices", tar().special(b'3', "mem").special(b'4', "sda").special(b'6', "pipe"), Ok("")),
        ("a kind that nobody knows", tar().special(b'Z', "a"), refused("is of a kind that is not known")),
        ("holes", tar().special(b'S', "a"), refused("is a file with holes")),
        ("other holes", tar().pax(&[("GNU.sparse.major", "1")]).file("a", ""), refused("a file with holes")),
        // Two readings.
        ("twice", tar().file("a", "1").file("a", "2"), Ok("a=2")),
        ("by case", tar().link("A", out).file("a/canary", "1"), Ok("A=-> %out a/ a/canary=1")),
        ("a size twice", tar().pax(&[("size", "1"), ("size", "2")]).file("a", "1"), refused("said twice")),
        ("a name twice", tar().pax(&[("path", "b")]).long_file("c", ""), refused("said twice")),
        ("two extended headers", tar().pax(&[("path", "b")]).pax(&[]).file("c", ""), refused("two headers")),
        (
            // One header says that there is no content, and the other that there is one, which looks like an entry.
            "an archive in a content",
            tar().pax(&[("size", "512")]).sized_file("a", 0, inner.as_bytes()),
            Ok(&hidden),
        ),
        ("a folder with a content", tar().sized(b'5', "a", 512).raw(&[0; 512]), refused("has a content")),
        ("a name with a content", tar().file("b", "").sized_hard("a", "b", 3), refused("has a content")),
        ("a size that is none", tar().pax(&[("size", "-1")]).file("a", ""), refused("no number")),
        (
            "a size beyond all",
            tar().pax(&[("size", "18446744073709551615")]).file("a", ""),
            refused("too large"),
        ),
        ("a size beyond what is there", tar().sized(b'0', "a", 9 << 30), refused("")),
        ("a negative size", tar().negative("a"), refused("a size that is no number")),
        (
            "an extended header without end",
            tar().raw_pax(b"99 path=x\n").file("a", ""),
            refused("wrong form"),
        ),
        ("an extended header beyond all", tar().sized(b'x', "a", 2 << 20), refused("too long")),
        ("a header for all", tar().global(&[("path", "b")]).file("a", ""), refused("all entries one name")),
        ("a harmless one", tar().global(&[("comment", "b")]).file("a", "1"), Ok("a=1")),
        (
            "after the end",
            tar().file("a", "1").raw(&[0; 512]).file("b", "1"),
            refused("after a block of zeros"),
        ),
        ("after the very end", tar().file("a", "1").raw(&[0; 1024]).file("b", "1"), Ok("a=1")),
        ("no archive", tar().raw(&[7; 512]), refused("a wrong sum")),
        ("half a header", tar().file("a", "1").raw(&[7; 100]).cut(), refused("in the middle of an entry")),
        ("a header about nothing", tar().pax(&[("path", "b")]).cut(), refused("in the middle of an entry")),
    ];
    for (what, archive, want) in cases {
        let came = folder.import(&[Layer::plain(archive.done())]).map(|done| shown(&done.image.root));
        match (came, want) {
            (Ok(came), Ok(want)) => {
                assert_eq!(came, want.replace("%canary", canary).replace("%out", out), "{what}");
                folder.images().remove("it").unwrap();
            }
            (Err(came), Err(want)) => {
                assert!(came.contains(want), "{what}: {came}");
                assert!(came.starts_with("layer 1 of the image cannot be unpacked: "), "{what}: {came}");
            }
            (came, want) => panic!("{what}: {came:?}, not {want:?}"),
        }
        assert_eq!(shown(&outside), "canary=untouched", "{what}");
        assert_eq!(shown(&folder.0.join("images")), "names/", "{what}: nothing is left");
    }
}

#[test]
fn nothing_is_kept_that_gives_rights() {
    let folder = Folder::new("rights");
    let layer = tar()
        .mode(0o6755)
        .file("su", "1")
        .mode(0o1777)
        .folder("tmp")
        .pax(&[("SCHILY.xattr.security.capability", "all")])
        .mode(0o644)
        .file("ping", "1")
        .special(b'3', "null");
    let image = folder.import(&[Layer::plain(layer.done())]).unwrap().image;
    let dropped = image.about.dropped;
    assert_eq!((dropped.set_id, dropped.attributes, dropped.special), (1, 1, 1));
    for (path, mode) in [("su", 0o100_555), ("tmp", 0o040_555), ("ping", 0o100_444)] {
        let found = fs::metadata(image.root.join(path)).unwrap();
        assert_eq!(found.mode(), mode, "{path}");
        assert_eq!(found.uid(), rustix::process::getuid().as_raw(), "{path}");
    }
    assert!(!image.root.join("null").exists());
}

#[test]
fn what_is_not_as_it_is_named_is_refused() {
    let folder = Folder::new("damaged");
    let layer = || Layer::gzip(tar().file("a", "1").done());
    let good = Oci::new(&[layer()]);
    let (config, blob) = (good.id(), good.layer(0));
    let name = |digits: &str| format!("blobs/sha256/{digits}");
    type Harm = Box<dyn Fn(&mut BTreeMap<String, Vec<u8>>)>;
    let cases: Vec<(&str, Harm)> = vec![
        ("is not what it is said to be: its digest is", {
            let name = name(&blob);
            Box::new(move |files| *files.get_mut(&name).unwrap().last_mut().unwrap() ^= 1)
        }),
        ("bytes, and should have", {
            let name = name(&blob);
            Box::new(move |files| files.get_mut(&name).unwrap().push(0))
        }),
        ("cannot be read", {
            let name = name(&blob);
            Box::new(move |files| drop(files.remove(&name)))
        }),
        ("is not what it is said to be: its digest is", {
            let name = name(&config);
            Box::new(move |files| *files.get_mut(&name).unwrap().last_mut().unwrap() = b' ')
        }),
        ("neither `index.json` nor `manifest.json`", Box::new(|files| drop(files.remove("index.json")))),
        ("expected ident", Box::new(|files| *files.get_mut("index.json").unwrap() = b"no".to_vec())),
        (
            "EOF while parsing a list",
            Box::new(|files| {
                *files.get_mut("index.json").unwrap() = format!("{{\"x\":{}", "[".repeat(3 << 20)).into()
            }),
        ),
        ("longer than", Box::new(|files| *files.get_mut("index.json").unwrap() = vec![b' '; 5 << 20])),
        (
            "not one of sha256",
            Box::new(|files| {
                let index = files.get_mut("index.json").unwrap();
                *index = String::from_utf8(index.clone()).unwrap().replace("sha256:", "md5:").into();
            }),
        ),
        (
            "not one of sha256",
            Box::new(|files| {
                let text = String::from_utf8(files["index.json"].clone()).unwrap();
                let at = text.find("sha256:").unwrap() + 7;
                let text = format!("{}../../../x{}", &text[..at], &text[at + 11..]);
                *files.get_mut("index.json").unwrap() = text.into();
            }),
        ),
    ];
    for (number, (want, harm)) in cases.into_iter().enumerate() {
        let mut files: BTreeMap<String, Vec<u8>> = good.files().into_iter().collect();
        harm(&mut files);
        // As a folder and as an archive.
        let layout = folder.0.join(format!("layout-{number}"));
        let mut archive = tar();
        for (path, content) in &files {
            let path_there = layout.join(path);
            fs::create_dir_all(path_there.parent().unwrap()).unwrap();
            fs::write(path_there, content).unwrap();
            archive = archive.bytes(path, content);
        }
        let file = folder.0.join(format!("layout-{number}.tar"));
        fs::write(&file, archive.done()).unwrap();
        for source in [layout, file] {
            let done = folder.images().import(&source, "it", &Platform::here(), &mut |_| {});
            let error = done.unwrap_err().to_string();
            assert!(error.contains(want), "{number}: {error}");
            assert!(folder.images().list().unwrap().is_empty());
        }
    }
    // Documents that lie, with digests that are right.
    for (want, oci) in [
        ("decompressed, its digest is", Oci::new(&[layer()]).with_diff_ids(&["0".repeat(64)])),
        (
            "it has 2 layers of the kind `layers`, and the manifest 1",
            Oci::new(&[layer()]).with_diff_ids(&["0".repeat(64), "1".repeat(64)]),
        ),
        (
            "the media type `application/x` of a layer is not known",
            Oci::new(&[layer().called("application/x")]),
        ),
        ("cannot be read", Oci::new(&[layer().called("application/vnd.oci.image.layer.v1.tar+zstd")])),
        ("in the middle of an entry", Oci::new(&[layer().called("application/vnd.oci.image.layer.v1.tar")])),
        ("it has no image for linux/", Oci::new(&[layer()]).on("linux", "other")),
        ("it has no image for linux/", Oci::new(&[layer()]).on("windows", &Platform::here().architecture)),
    ] {
        let layout = folder.layout("lies", &oci);
        let error = folder.images().import(&layout, "it", &Platform::here(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
        fs::remove_dir_all(layout).unwrap();
    }
}

#[test]
fn one_platform_is_taken_and_no_other() {
    let folder = Folder::new("platforms");
    let here = Platform::here();
    let layer = |text: &str| [Layer::plain(tar().file("a", text).done())];
    let two = Oci::new(&layer("here")).and(Oci::new(&layer("there")).on("linux", "other"));
    let layout = folder.layout("two", &two);
    let there: Platform = "linux/other".parse().unwrap();
    for (wanted, want) in [(&here, "a=here"), (&there, "a=there")] {
        let done = folder.images().import(&layout, "it", wanted, &mut |_| {}).unwrap();
        assert_eq!((shown(&done.image.root).as_str(), done.image.about.platform), (want, wanted.to_string()));
    }
    let both = folder.layout("both", &Oci::new(&layer("1")).and(Oci::new(&layer("2"))));
    let error = folder.images().import(&both, "it", &here, &mut |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("it has several images for linux/"), "{error}");
    for wrong in ["", "amd64", "linux", "windows/amd64", "linux/", "linux/a/b/c", "linux/../x"] {
        assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
    }
}

#[test]
fn what_is_too_large_is_not_unpacked() {
    let folder = Folder::new("bombs");
    let zeros = vec![0; 4 << 20];
    for layer in [
        Layer::gzip(tar().bytes("a", &zeros).done()),
        Layer::zstd(tar().bytes("a", &zeros).done()),
        // Not as a file: behind the end.
        Layer::gzip(tar().file("a", "").raw(&zeros).done()),
    ] {
        let layout = folder.layout("bomb", &Oci::new(&[layer]));
        let images = folder.images().at_most(1 << 20);
        let error = images.import(&layout, "it", &Platform::here(), &mut |_| {}).unwrap_err();
        let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error} {why}").contains("larger than may be unpacked"), "{error}: {why}");
        assert_eq!(shown(&folder.0.join("images")), "names/");
        folder.images().import(&layout, "it", &Platform::here(), &mut |_| {}).unwrap();
        folder.images().remove("it").unwrap();
        fs::remove_dir_all(layout).unwrap();
    }
}

#[test]
fn frames_follow_each_other_and_some_are_skipped() {
    let folder = Folder::new("frames");
    let archive = tar().bytes("a", &[b'x'; 3000]).done();
    let (head, tail) = archive.split_at(1000);
    let mut stored = ruzstd::encoding::compress_to_vec(head, ruzstd::encoding::CompressionLevel::Fastest);
    stored.extend(0x184d_2a50_u32.to_le_bytes());
    stored.extend(4_u32.to_le_bytes());
    stored.extend(b"skip");
    stored.extend(ruzstd::encoding::compress_to_vec(tail, ruzstd::encoding::CompressionLevel::Fastest));
    let layer = Layer::zstd(archive.clone()).stored_as(stored);
    assert_eq!(folder.import(&[layer]).unwrap().image.about.bytes, 3000);
    folder.images().remove("it").unwrap();
    let mut twice = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    twice.write_all(head).unwrap();
    let mut stored = twice.finish().unwrap();
    let mut twice = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    twice.write_all(tail).unwrap();
    stored.extend(twice.finish().unwrap());
    let layer = Layer::gzip(archive).stored_as(stored);
    assert_eq!(folder.import(&[layer]).unwrap().image.about.bytes, 3000);
}

#[test]
fn a_change_is_found() {
    let folder = Folder::new("verify");
    let layer = tar().file("a", "one").file("b", "two").file("d/c", "three").link("l", "a").done();
    let image = folder.import(&[Layer::plain(layer)]).unwrap().image;
    let change = |path: &str, mode: u32| {
        fs::set_permissions(image.root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    for folder in ["", "d"] {
        change(folder, 0o755);
    }
    change("a", 0o644);
    fs::write(image.root.join("a"), "0ne").unwrap();
    change("a", 0o444);
    change("b", 0o4444);
    fs::remove_file(image.root.join("d/c")).unwrap();
    fs::write(image.root.join("d/new"), "").unwrap();
    fs::remove_file(image.root.join("l")).unwrap();
    std::os::unix::fs::symlink("b", image.root.join("l")).unwrap();
    change("d", 0o500);
    let found: Vec<String> = folder
        .images()
        .verify("it", &mut |_| {})
        .unwrap()
        .1
        .into_iter()
        .map(|d| {
            format!(
                "{} {}",
                d.path,
                match (d.was, d.is) {
                    (Some(was), Some(is)) => format!("{} -> {}", &was[..6], &is[..6]),
                    (Some(_), None) => "gone".to_owned(),
                    (None, _) => "new".to_owned(),
                }
            )
        })
        .collect();
    let modes = [
        "/a file 4 -> file 4",
        "/b file 4 -> file 4",
        "/d folder -> folder",
        "/d/c gone",
        "/d/new new",
        "/l link a -> link b",
    ];
    assert_eq!(found, modes);
}

#[test]
fn an_import_that_was_killed_leaves_nothing() {
    let folder = Folder::new("killed");
    let left = folder.0.join("images/.part/root/d");
    fs::create_dir_all(&left).unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o000)).unwrap();
    folder.import(&[Layer::plain(tar().file("a", "1").done())]).unwrap();
    assert!(!folder.0.join("images/.part").exists());
    // Deeper than anybody can hold open, or name.
    let mut path = folder.0.join("images/.part");
    fs::create_dir_all(&path).unwrap();
    let mut at = rustix::fs::open(&path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "deep", 0o700.into()).unwrap();
        at = rustix::fs::openat(&at, "deep", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    folder.images().remove("it").unwrap();
    path.push("deep");
    assert!(!path.exists());
}
