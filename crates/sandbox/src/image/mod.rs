//! Images: the files of another system, taken in once, for cells to run on in place of the host's.
//!
//! An image is unpacked into a folder of its own below the gate's state, by one owner, and made read-only. The folder is named after
//! the digest of the image's configuration, which names the contents of all its layers; names that people give are small files
//! beside it. Beside the files of the image, where no cell can reach, lies a list of what each of them was.
//!
//! ```text
//! images/
//!   names/NAME       which image it is
//!   sha256-DIGITS/   one image
//!     root/          its files
//!     files          what each of them was
//!     image.json     what is known of it
//! ```

mod layout;
mod tar;
mod tree;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub use self::layout::{LayoutError, Platform};
use self::tar::TarError;
pub(crate) use self::tree::remove;
pub use self::unpack::Dropped;
use self::unpack::Unpacker;
use crate::cell::Base;

/// How many bytes all layers of an image may have, decompressed.
const MAX_BYTES: u64 = 32 << 30;

/// What the folder of an image that is being unpacked is called, and that of one that is being removed.
const PART: &str = ".part";
const GONE: &str = ".gone";

const ROOT: &str = "root";
const FILES: &str = "files";
const ABOUT: &str = "image.json";
const NAMES: &str = "names";

/// Why something could not be done with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is no image that can be taken in.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A layer of it is refused.
    #[error("layer {number} of the image cannot be unpacked: {why}")]
    Layer {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// No image has this name.
    #[error("there is no image `{0}`")]
    Unknown(String),
    /// A name that no image can have.
    #[error("`{}` is no name for an image: it is 1 to 64 of a-z, A-Z, 0-9, `_`, `-` and `.`, and begins with a letter or digit", .0.escape_debug())]
    Name(String),
    /// It does not wish for this variable.
    #[error("the image does not name the variable `{}`", .0.escape_debug())]
    Variable(String),
    /// It wishes to be started in something that is no folder.
    #[error("the image wishes to be started in `{}`, which is no whole path", .0.escape_debug())]
    Folder(String),
    /// The state folder cannot be read or written.
    #[error("`{path}`: {source}")]
    Store {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is known of an image cannot be read.
    #[error("`{path}` is damaged; remove the image and import it again")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl ImageError {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unknown(_) => {
                Some("`toolgate image list` shows the images there are, `toolgate image import` takes one in")
            }
            Self::Name(_) => Some("give it another one with `--name NAME`"),
            Self::Layout(LayoutError::NoPlatform { .. }) => {
                Some("choose one of them with `--platform linux/ARCHITECTURE`")
            }
            Self::Layout(LayoutError::Several { .. }) => {
                Some("copy one of them into a layout of its own, as with `skopeo copy`")
            }
            Self::Variable(_) => Some(
                "`toolgate image list --json` shows those it names; give the value in `env` of the profile",
            ),
            Self::Folder(_) => Some("leave out `cwd` of the image"),
            Self::Layout(_) | Self::Layer { .. } | Self::Store { .. } | Self::Damaged { .. } => None,
        }
    }
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The digest of its configuration.
    pub id: String,
    /// The digest of its manifest, where it came with one.
    pub manifest: Option<String>,
    /// What it is made for.
    pub platform: String,
    /// The environment it wishes for.
    pub env: Vec<(String, String)>,
    /// The folder it wishes to be started in.
    pub working_dir: String,
    /// How many layers it had.
    pub layers: usize,
    /// How many files, folders and links it has.
    pub files: usize,
    /// How many bytes its files have.
    pub bytes: u64,
    /// What was not kept.
    pub dropped: Dropped,
}

impl About {
    /// The beginning of its digest, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What is known of it.
    pub about: About,
    /// The folder of its files.
    pub root: PathBuf,
}

impl Image {
    /// What a cell is given that runs on it. Of the environment that it wishes for it gets `PATH`, which says where in the image its
    /// programs are, and the variables that are named; the folder that it wishes to be started in, if that is said.
    ///
    /// # Errors
    /// It has no such variable, or wishes for a folder that is none.
    pub fn base(&self, variables: &[String], in_its_folder: bool) -> Result<Base, ImageError> {
        let wished = |name: &str| self.about.env.iter().find(|(own, _)| own == name).cloned();
        let mut env: Vec<_> = wished("PATH").into_iter().collect();
        for name in variables.iter().filter(|name| *name != "PATH") {
            env.push(wished(name).ok_or_else(|| ImageError::Variable(name.clone()))?);
        }
        let folder = &self.about.working_dir;
        let folder = if folder.is_empty() { "/" } else { folder };
        if in_its_folder && (!folder.starts_with('/') || folder.contains('\0')) {
            return Err(ImageError::Folder(folder.to_owned()));
        }
        let cwd = in_its_folder.then(|| folder.to_owned());
        Ok(Base { root: self.root.clone(), env, cwd })
    }
}

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The image.
    pub image: Image,
    /// Whether it was there before.
    pub was_there: bool,
    /// The digest of the image that had the name before, if it was another one.
    pub replaced: Option<String>,
}

/// How far an import or a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes of this layer are unpacked.
    Layer {
        /// Which, from 1.
        number: usize,
        /// Of how many.
        of: usize,
        /// How many bytes.
        bytes: u64,
    },
    /// So many bytes of files were digested.
    Digest {
        /// How many bytes.
        bytes: u64,
    },
}

/// How an image differs from what was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path, hidden characters escaped.
    pub path: String,
    /// What was imported there.
    pub was: Option<String>,
    /// What is there now.
    pub is: Option<String>,
}

/// The images of a gate.
#[derive(Debug, Clone)]
pub struct Images {
    folder: PathBuf,
    most: u64,
}

impl Images {
    /// Those in this folder, which need not be there.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder, most: MAX_BYTES }
    }

    /// The same, where the layers of an image may have no more bytes than this, decompressed.
    #[must_use]
    pub fn at_most(self, bytes: u64) -> Self {
        Self { most: bytes, ..self }
    }

    /// Takes an image in: reads it, makes sure that all of it is what its digests say, unpacks it, and gives it a name. If it is there
    /// already, it is only named.
    ///
    /// # Errors
    /// It is no image, is damaged or hostile, or the disk cannot hold it. Then nothing of it is kept.
    pub fn import(
        &self,
        source: &Path,
        name: &str,
        wanted: &Platform,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Imported, ImageError> {
        check_name(name)?;
        let found = layout::find(source, wanted)?;
        let _lock = self.lock()?;
        let was_there = self.about(&found.id).is_ok();
        if !was_there {
            self.unpack(&found, progress)?;
        }
        let before = self.id_of(name).ok().filter(|before| *before != found.id);
        let path = self.folder.join(NAMES).join(name);
        write_whole(&path, found.id.as_bytes()).map_err(store(&path))?;
        if let Some(before) = &before {
            self.drop_unnamed(before)?;
        }
        let image = self.image(&found.id)?;
        Ok(Imported { image, was_there, replaced: before })
    }

    /// The image of a name.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn find(&self, name: &str) -> Result<Image, ImageError> {
        self.image(&self.id_of(name)?)
    }

    /// All images, by their names.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn list(&self) -> Result<BTreeMap<String, Image>, ImageError> {
        let folder = self.folder.join(NAMES);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries.map_err(store(&folder))?,
        };
        let mut all = BTreeMap::new();
        for entry in entries {
            let name = entry.map_err(store(&folder))?.file_name();
            // What is being written begins with a dot.
            if let Some(name) = name.to_str().filter(|name| check_name(name).is_ok()) {
                all.insert(name.to_owned(), self.find(name)?);
            }
        }
        Ok(all)
    }

    /// Takes a name away, and the image with it if it has no other. Cells that run on it lose its files.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<String, ImageError> {
        self.id_of(name)?;
        let _lock = self.lock()?;
        let id = self.id_of(name)?;
        let path = self.folder.join(NAMES).join(name);
        fs::remove_file(&path).map_err(store(&path))?;
        self.drop_unnamed(&id)?;
        Ok(id)
    }

    /// Compares the files of an image with what they were.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn verify(
        &self,
        name: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Image, Vec<Difference>), ImageError> {
        let image = self.find(name)?;
        let path = self.place(&image.about.id).join(FILES);
        let text = fs::read_to_string(&path).map_err(store(&path))?;
        let damaged = || ImageError::Damaged { path: path.clone() };
        let mut were: BTreeMap<&str, &str> =
            text.lines().map(|line| line.split_once('\t').ok_or_else(damaged)).collect::<Result<_, _>>()?;
        let root = tree::open(&image.root).map_err(store(&image.root))?;
        let are = list(&root, progress).map_err(store(&image.root))?;
        let mut differences = Vec::new();
        for (path, is) in are {
            let was = were.remove(&*path);
            if was != Some(&*is) {
                differences.push(Difference { path, was: was.map(str::to_owned), is: Some(is) });
            }
        }
        let gone = |(path, was): (&str, &str)| Difference {
            path: path.to_owned(),
            was: Some(was.to_owned()),
            is: None,
        };
        differences.extend(were.into_iter().map(gone));
        differences.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((image, differences))
    }

    fn place(&self, id: &str) -> PathBuf {
        self.folder.join(format!("sha256-{id}"))
    }

    fn image(&self, id: &str) -> Result<Image, ImageError> {
        Ok(Image { about: self.about(id)?, root: self.place(id).join(ROOT) })
    }

    fn about(&self, id: &str) -> Result<About, ImageError> {
        let path = self.place(id).join(ABOUT);
        let text = fs::read(&path).map_err(store(&path))?;
        serde_json::from_slice(&text).map_err(|_wrong| ImageError::Damaged { path })
    }

    fn id_of(&self, name: &str) -> Result<String, ImageError> {
        check_name(name)?;
        let path = self.folder.join(NAMES).join(name);
        match fs::read_to_string(&path) {
            Ok(id) if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(id),
            Ok(_) => Err(ImageError::Damaged { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ImageError::Unknown(name.to_owned()))
            }
            Err(source) => Err(ImageError::Store { path, source }),
        }
    }

    /// Makes the folders, and sees to it that nobody else changes anything in them until the lock is dropped. What somebody was
    /// killed over is removed.
    fn lock(&self) -> Result<OwnedFd, ImageError> {
        let names = self.folder.join(NAMES);
        DirBuilder::new().recursive(true).mode(0o700).create(&names).map_err(store(&names))?;
        let folder = tree::open(&self.folder).map_err(store(&self.folder))?;
        flock(&folder, FlockOperation::LockExclusive).map_err(|error| store(&self.folder)(error.into()))?;
        [PART, GONE].into_iter().try_for_each(|left| self.discard(&self.folder.join(left)))?;
        Ok(folder)
    }

    fn unpack(&self, found: &layout::Found, progress: &mut dyn FnMut(Progress)) -> Result<(), ImageError> {
        let (part, place) = (self.folder.join(PART), self.place(&found.id));
        // What is there is no whole image.
        self.discard(&place)?;
        let done = unpack_into(&part, found, self.most, progress)
            .and_then(|()| fs::rename(&part, &place).map_err(store(&place)));
        if done.is_err() {
            // If it cannot be removed now, the next import tries again.
            let _left = self.discard(&part);
        }
        done
    }

    /// Removes a folder of ours.
    fn discard(&self, path: &Path) -> Result<(), ImageError> {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let removed = tree::open(&self.folder).and_then(|folder| Ok(remove(folder, name)?));
        removed.map_err(store(path))
    }

    /// Removes an image that no name stands for.
    fn drop_unnamed(&self, id: &str) -> Result<(), ImageError> {
        let names = self.folder.join(NAMES);
        let mut named = BTreeSet::new();
        for entry in fs::read_dir(&names).map_err(store(&names))? {
            let path = entry.map_err(store(&names))?.path();
            named.insert(fs::read_to_string(&path).map_err(store(&path))?);
        }
        if named.contains(id) {
            return Ok(());
        }
        // First it is no image any more, then it is removed.
        let (path, gone) = (self.place(id), self.folder.join(GONE));
        match fs::rename(&path, &gone) {
            Ok(()) => self.discard(&gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(store(&path)(error)),
        }
    }
}

fn unpack_into(
    path: &Path,
    found: &layout::Found,
    mut budget: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImageError> {
    let root = path.join(ROOT);
    DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(store(&root))?;
    let mut unpacker = Unpacker::new(tree::open(&root).map_err(store(&root))?);
    for (index, layer) in found.layers.iter().enumerate() {
        let (number, of) = (index + 1, found.layers.len());
        let refused = |error: TarError| ImageError::Layer { number, why: error.to_string() };
        let mut bytes = 0;
        let read = found.read(layer, &mut budget, |input| {
            let input = Watched {
                input,
                each: &mut |read| {
                    bytes += read;
                    progress(Progress::Layer { number, of, bytes });
                },
            };
            unpacker.layer(input).map(drop)
        });
        read?.map_err(refused)?;
    }
    let (root_folder, dropped) = unpacker.done();
    tree::seal(&root_folder).map_err(|error| store(&root)(error.into()))?;
    let files = list(&root_folder, progress).map_err(store(&root))?;
    let mut text = String::new();
    let mut bytes: u64 = 0;
    for (path, what) in &files {
        text.push_str(&format!("{path}\t{what}\n"));
        let mut words = what.split(' ');
        if words.next() == Some("file") {
            bytes += words.nth(1).and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    let about = About {
        id: found.id.clone(),
        manifest: found.manifest.clone(),
        platform: found.platform.to_string(),
        env: found.env.iter().filter_map(|entry| pair(entry)).collect(),
        working_dir: found.working_dir.clone(),
        layers: found.layers.len(),
        files: files.len(),
        bytes,
        dropped,
    };
    for (name, text) in
        [(FILES, text.into_bytes()), (ABOUT, serde_json::to_vec_pretty(&about).unwrap_or_default())]
    {
        let path = path.join(name);
        write_whole(&path, &text).map_err(store(&path))?;
    }
    Ok(())
}

/// A variable, if it can be one.
fn pair(entry: &str) -> Option<(String, String)> {
    let (name, value) = entry.split_once('=')?;
    (!name.is_empty() && !entry.contains('\0')).then(|| (name.to_owned(), value.to_owned()))
}

fn list(root: &OwnedFd, progress: &mut dyn FnMut(Progress)) -> io::Result<BTreeMap<String, String>> {
    let mut bytes = 0;
    tree::list(root, &mut |read| {
        bytes += read;
        progress(Progress::Digest { bytes });
    })
}

/// A reader, and who is told how much was read.
struct Watched<'r> {
    input: &'r mut dyn io::Read,
    each: &'r mut dyn FnMut(u64),
}

impl io::Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        (self.each)(read as u64);
        Ok(read)
    }
}

fn store(path: &Path) -> impl Fn(io::Error) -> ImageError {
    move |source| ImageError::Store { path: path.to_owned(), source }
}

fn check_name(name: &str) -> Result<(), ImageError> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if plain && begins && name.len() <= 64 { Ok(()) } else { Err(ImageError::Name(name.to_owned())) }
}

/// Writes a file such that it is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}-{}", std::process::id()));
    // What a process of the same number has left behind.
    let _none = fs::remove_file(&part);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)
}
