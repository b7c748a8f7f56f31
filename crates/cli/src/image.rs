//! `toolgate image`: the images that cells can run on.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use toolgate_sandbox::image::{Difference, Dropped, Image, Imported, Platform, Progress};

use crate::args::ImageCommand;
use crate::out::{self, hinted, line, note};
use crate::place::Place;

pub(crate) fn run(place: &Place, command: ImageCommand) -> anyhow::Result<()> {
    match command {
        ImageCommand::Import { source, name, platform } => {
            let name = name.unwrap_or_else(|| named_after(&source));
            import(place, &source, &name, &platform.unwrap_or_else(Platform::here))
        }
        ImageCommand::List => list(place),
        ImageCommand::Remove { name } => {
            let id = place.images().remove(&name)?;
            note(format_args!("The image `{name}` is removed."));
            place.tell(|| json!({ "image": name, "id": id, "removed": true }))
        }
        ImageCommand::Verify { name } => verify(place, &name),
    }
}

/// The name of a folder or an archive, without what says what it is.
fn named_after(source: &Path) -> String {
    // A folder may be named by a dot.
    let source = std::fs::canonicalize(source).unwrap_or_else(|_none| source.to_owned());
    let name = if source.is_dir() { source.file_name() } else { source.file_stem() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

fn import(place: &Place, source: &Path, name: &str, platform: &Platform) -> anyhow::Result<()> {
    // The state folder is the gate's alone, also where it is only begun.
    drop(place.open_or_make()?);
    let mut shown = Shown::new();
    let done = place.images().import(source, name, platform, &mut |progress| shown.tell(progress));
    shown.clear();
    let Imported { image, was_there, replaced } = done?;
    let about = &image.about;
    let what = format!("sha256:{}, {}", about.short(), about.platform);
    if was_there {
        note(format_args!("The image {what} was there already, and is called `{name}`."));
    } else {
        note(format_args!(
            "The image `{name}` ({what}) is taken in: {} entries in {}, {} MiB.",
            about.files,
            out::count(about.layers, "layer"),
            about.bytes >> 20
        ));
        left_out(about.dropped);
    }
    if let Some(replaced) = &replaced {
        note(format_args!("Before, `{name}` was sha256:{}.", replaced.get(..12).unwrap_or(replaced)));
    }
    place.tell(|| json!({ "was_there": was_there, "replaced": replaced, "image": told(name, &image) }))
}

/// What of an image is not kept, as somebody may miss it.
fn left_out(Dropped { special, set_id, attributes }: Dropped) {
    for (number, what) in [
        (special, "devices, pipes and sockets were left out"),
        (set_id, "files do not run as their owner or group any more"),
        (attributes, "entries lost attributes, such as capabilities"),
    ] {
        if number > 0 {
            note(format_args!("{number} {what}."));
        }
    }
}

fn list(place: &Place) -> anyhow::Result<()> {
    let all = place.images().list()?;
    if place.json {
        return all.iter().try_for_each(|(name, image)| out::json(&told(name, image)));
    }
    if all.is_empty() {
        note("There are no images; `toolgate image import` takes one in.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|(name, image)| {
            let about = &image.about;
            let size = format!("{} MiB", about.bytes >> 20);
            vec![
                name.clone(),
                about.short().to_owned(),
                about.platform.clone(),
                about.files.to_string(),
                size,
            ]
        })
        .collect();
    out::table(&["NAME", "SHA256", "PLATFORM", "ENTRIES", "SIZE"], &rows)
}

fn told(name: &str, Image { about, root }: &Image) -> Value {
    json!({ "name": name, "folder": root, "about": about })
}

/// How many differences are shown to people.
const SHOWN: usize = 50;

fn verify(place: &Place, name: &str) -> anyhow::Result<()> {
    let mut shown = Shown::new();
    let done = place.images().verify(name, &mut |progress| shown.tell(progress));
    shown.clear();
    let (image, differences) = done?;
    if place.json {
        let all: Vec<Value> = differences
            .iter()
            .map(|Difference { path, was, is }| json!({ "path": path, "was": was, "is": is }))
            .collect();
        out::json(&json!({ "name": name, "id": image.about.id, "differences": all }))?;
    } else {
        for Difference { path, was, is } in differences.iter().take(SHOWN) {
            let word = match (was, is) {
                (None, _) => "new",
                (_, None) => "gone",
                _ => "changed",
            };
            line(format_args!("{word:<8} {path}"))?;
        }
        if differences.len() > SHOWN {
            note(format_args!("and {} more", differences.len() - SHOWN));
        }
    }
    if differences.is_empty() {
        note(format_args!("The image `{name}` is what was imported: {} entries.", image.about.files));
        return Ok(());
    }
    Err(hinted(
        format!("the image `{name}` is not what was imported: {} of its entries differ", differences.len()),
        format!("stop what runs on it, then `toolgate image remove {name}` and import it again"),
    ))
}

/// Shows how far long work is, on a terminal.
struct Shown {
    wanted: bool,
    last: String,
}

impl Shown {
    fn new() -> Self {
        Self { wanted: io::stderr().is_terminal(), last: String::new() }
    }

    fn tell(&mut self, progress: Progress) {
        if !self.wanted {
            return;
        }
        let now = match progress {
            Progress::Layer { number, of, bytes } => format!("layer {number} of {of}: {} MiB", bytes >> 20),
            Progress::Digest { bytes } => format!("checking the files: {} MiB", bytes >> 20),
        };
        if now != self.last {
            let _unheard = write!(io::stderr(), "\r\x1b[K{now}");
            self.last = now;
        }
    }

    fn clear(&self) {
        if !self.last.is_empty() {
            let _unheard = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
