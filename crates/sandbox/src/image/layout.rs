//! Where images come from: a folder in the layout of OCI, or a tar archive of one, or one as `docker save` has always written them.
//! Everything that is named by a digest is read against it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::tar::{self, Kind, Reader};
use super::tree::{self, hex};

/// How long the documents of an image may be.
const MAX_DOCUMENT: u64 = 4 << 20;

/// How many files an archive of an image may hold.
const MAX_FILES: usize = 10_000;

/// How many layers an image may have.
const MAX_LAYERS: usize = 512;

/// Why something is no image that can be taken in.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The archive around it is not read.
    #[error("it is no archive of an image: {0}")]
    Archive(String),
    /// A file of it is missing or not a plain file.
    #[error("`{name}` of the image cannot be read")]
    Missing {
        /// Which.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of it is not what its digest or size says.
    #[error("`{name}` of the image is not what it is said to be: {why}")]
    Digest {
        /// Which.
        name: String,
        /// How it differs.
        why: String,
    },
    /// A document of it has the wrong form, or names what is not understood.
    #[error("`{name}` of the image: {why}")]
    Form {
        /// Which.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// There is no image for the platform.
    #[error("it has no image for {wanted}; it has {has}")]
    NoPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        has: String,
    },
    /// There are several.
    #[error("it has several images for {wanted}: {has}")]
    Several {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        has: String,
    },
}

fn form(name: &str, why: impl Into<String>) -> LayoutError {
    LayoutError::Form { name: name.to_owned(), why: why.into() }
}

/// What an image is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The kind of processor, in the words of OCI.
    pub architecture: String,
    /// Which of them.
    pub variant: Option<String>,
}

impl Platform {
    /// That of this machine.
    #[must_use]
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.to_owned(), variant: None }
    }

    fn fits(&self, architecture: &str, variant: Option<&str>) -> bool {
        self.architecture == architecture && self.variant.as_deref().is_none_or(|v| variant == Some(v))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl std::str::FromStr for Platform {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |word: &&str| {
            word.starts_with(|c: char| c.is_ascii_alphanumeric())
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let words: Vec<&str> = text.split('/').filter(plain).collect();
        match words.as_slice() {
            _ if words.len() != text.split('/').count() => {}
            ["linux", architecture] => {
                return Ok(Self { architecture: (*architecture).to_owned(), variant: None });
            }
            ["linux", architecture, variant] => {
                let variant = Some((*variant).to_owned());
                return Ok(Self { architecture: (*architecture).to_owned(), variant });
            }
            _ => {}
        }
        Err("write it as `linux/amd64` or `linux/arm/v7`")
    }
}

/// Where the files of an image are.
enum Source {
    Folder(OwnedFd),
    /// An archive, and where in it its files begin and how long they are.
    Archive(File, BTreeMap<String, (u64, u64)>),
}

/// An image that was found, and not yet read but for its documents.
pub(super) struct Found {
    source: Source,
    /// The digest of the configuration, which is the name of an image: it names the contents of all layers.
    pub(super) id: String,
    /// The digest of the manifest, where there is one.
    pub(super) manifest: Option<String>,
    pub(super) platform: Platform,
    pub(super) env: Vec<String>,
    pub(super) working_dir: String,
    pub(super) layers: Vec<Layer>,
}

/// A layer.
pub(super) struct Layer {
    name: String,
    /// What it has to be, as it is stored.
    stored: Option<(String, u64)>,
    compression: Compression,
    /// What it has to be when it is unpacked.
    diff_id: String,
}

#[derive(Clone, Copy)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<DescribedPlatform>,
}

#[derive(Deserialize)]
struct DescribedPlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Configuration {
    architecture: String,
    os: String,
    variant: Option<String>,
    #[serde(default)]
    config: Option<Wishes>,
    rootfs: RootFs,
}

/// What an image wishes for. Of this, the environment and the folder are offered to profiles; who it wants to be, what it starts
/// and what it listens to is not.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wishes {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    r#type: String,
    diff_ids: Vec<String>,
}

/// How `docker save` has always said what is in its archives.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// Finds the image for a platform.
pub(super) fn find(path: &Path, wanted: &Platform) -> Result<Found, LayoutError> {
    let mut source = Source::open(path)?;
    if source.has("index.json") { source.indexed(wanted) } else { source.saved(wanted) }.map(
        |(id, manifest, configuration, layers)| {
            let wishes = configuration.config.unwrap_or_default();
            Found {
                source,
                id,
                manifest,
                platform: Platform {
                    architecture: configuration.architecture,
                    variant: configuration.variant,
                },
                env: wishes.env.unwrap_or_default(),
                working_dir: wishes.working_dir.unwrap_or_default(),
                layers,
            }
        },
    )
}

type Parts = (String, Option<String>, Configuration, Vec<Layer>);

impl Source {
    fn open(path: &Path) -> Result<Self, LayoutError> {
        let name = path.display().to_string();
        let refused = |source| LayoutError::Missing { name: name.clone(), source };
        if path.is_dir() {
            return tree::open(path).map(Self::Folder).map_err(refused);
        }
        let file = File::open(path).map_err(refused)?;
        if !file.metadata().map_err(refused)?.is_file() {
            return Err(LayoutError::Archive("it is neither a folder nor a file".to_owned()));
        }
        let files = contents(&file).map_err(|error| LayoutError::Archive(error.to_string()))?;
        Ok(Self::Archive(file, files))
    }

    fn has(&self, name: &str) -> bool {
        self.file(name).is_ok()
    }

    /// Opens a file of the image; says how long it is.
    fn file(&self, name: &str) -> Result<(Box<dyn Read + '_>, u64), LayoutError> {
        let missing = |source: io::Error| LayoutError::Missing { name: name.to_owned(), source };
        match self {
            Self::Folder(folder) => {
                let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat2(folder, name, flags, Mode::empty(), how).map_err(|e| missing(e.into()))?;
                let found = fstat(&file).map_err(|error| missing(error.into()))?;
                if !rustix::fs::FileType::from_raw_mode(found.st_mode).is_file() {
                    return Err(missing(io::Error::other("it is no file")));
                }
                let size = u64::try_from(found.st_size).unwrap_or(0);
                Ok((Box::new(File::from(file).take(size)), size))
            }
            Self::Archive(file, files) => {
                let (at, size) = *files.get(name).ok_or_else(|| missing(io::ErrorKind::NotFound.into()))?;
                let mut file = file;
                file.seek(SeekFrom::Start(at)).map_err(missing)?;
                Ok((Box::new(file.take(size)), size))
            }
        }
    }

    /// Reads a document whole, against its digest and size if they are known.
    fn document(&self, name: &str, want: Option<(&str, u64)>) -> Result<Vec<u8>, LayoutError> {
        let (file, size) = self.file(name)?;
        let differs = |why: String| LayoutError::Digest { name: name.to_owned(), why };
        if size > MAX_DOCUMENT {
            return Err(form(name, format!("it is longer than {MAX_DOCUMENT} bytes")));
        }
        if let Some((_, want)) = want.filter(|(_, want)| *want != size) {
            return Err(differs(format!("it has {size} bytes, and should have {want}")));
        }
        let mut bytes = Vec::new();
        let read = BufReader::new(file).read_to_end(&mut bytes);
        read.map_err(|source| LayoutError::Missing { name: name.to_owned(), source })?;
        let has = hex(&Sha256::digest(&bytes));
        match want {
            Some((want, _)) if want != has => Err(differs(format!("its digest is sha256:{has}"))),
            _ => Ok(bytes),
        }
    }

    fn parsed<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        want: Option<(&str, u64)>,
    ) -> Result<T, LayoutError> {
        parse(name, &self.document(name, want)?)
    }

    /// An image in the layout of OCI: from the index to the manifest, to the configuration.
    fn indexed(&mut self, wanted: &Platform) -> Result<Parts, LayoutError> {
        let index: Index = self.parsed("index.json", None)?;
        let mut found = BTreeMap::new();
        let mut others = Vec::new();
        self.images(index, wanted, &mut found, &mut others, 0)?;
        let has = |all: &[String]| if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        let mut found = found.into_iter();
        let Some((manifest_digest, (manifest, configuration))) = found.next() else {
            return Err(LayoutError::NoPlatform { wanted: wanted.clone(), has: has(&others) });
        };
        let more: Vec<String> = found.map(|(digest, _)| format!("sha256:{digest}")).collect();
        if !more.is_empty() {
            let has = format!("sha256:{manifest_digest}, {}", more.join(", "));
            return Err(LayoutError::Several { wanted: wanted.clone(), has });
        }
        let id = sha256(&blob_of(&manifest.config)?, &manifest.config)?;
        let mut layers = Vec::new();
        for descriptor in &manifest.layers {
            let name = blob_of(descriptor)?;
            let compression = compression(&name, &descriptor.media_type)?;
            let stored = Some((sha256(&name, descriptor)?, descriptor.size));
            layers.push(Layer { name, stored, compression, diff_id: String::new() });
        }
        let layers = with_diff_ids(&id, layers, &configuration.rootfs)?;
        Ok((id, Some(manifest_digest), configuration, layers))
    }

    /// Collects the images of an index that are for the platform, by the digests of their manifests.
    fn images(
        &self,
        index: Index,
        wanted: &Platform,
        found: &mut BTreeMap<String, (Manifest, Configuration)>,
        others: &mut Vec<String>,
        depth: usize,
    ) -> Result<(), LayoutError> {
        for descriptor in index.manifests {
            let name = blob_of(&descriptor)?;
            let digest = sha256(&name, &descriptor)?;
            if let Some(platform) = &descriptor.platform
                && !(platform.os == "linux"
                    && wanted.fits(&platform.architecture, platform.variant.as_deref()))
            {
                // What is no image at all, such as the papers of another one, says so here.
                if platform.os != "unknown" {
                    others.push(format!("{}/{}", platform.os, platform.architecture));
                }
                continue;
            }
            let want = Some((&*digest, descriptor.size));
            match &*descriptor.media_type {
                "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                    if depth > 2 || found.len() + others.len() > MAX_FILES {
                        return Err(form(&name, "there are too many indexes in indexes"));
                    }
                    self.images(self.parsed(&name, want)?, wanted, found, others, depth + 1)?;
                }
                "application/vnd.oci.image.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v2+json" => {
                    let manifest: Manifest = self.parsed(&name, want)?;
                    let config = &manifest.config;
                    let config_name = blob_of(config)?;
                    match &*config.media_type {
                        "application/vnd.oci.image.config.v1+json"
                        | "application/vnd.docker.container.image.v1+json" => {}
                        // Other things than images are kept in the same layout.
                        _ => continue,
                    }
                    let id = sha256(&config_name, config)?;
                    let configuration: Configuration =
                        self.parsed(&config_name, Some((&*id, config.size)))?;
                    if fits(wanted, &configuration) {
                        found.insert(digest, (manifest, configuration));
                    } else {
                        others.push(format!("{}/{}", configuration.os, configuration.architecture));
                    }
                }
                other => {
                    return Err(form(
                        &name,
                        format!("the media type `{}` is not known", other.escape_debug()),
                    ));
                }
            }
        }
        Ok(())
    }

    /// An image as `docker save` has always written it. The configuration names the contents of the layers.
    fn saved(&mut self, wanted: &Platform) -> Result<Parts, LayoutError> {
        let name = "manifest.json";
        if !self.has(name) {
            let why = "there is neither `index.json` nor `manifest.json` in it";
            return Err(LayoutError::Archive(why.to_owned()));
        }
        let saved: Vec<Saved> = self.parsed(name, None)?;
        let [saved] = saved.as_slice() else {
            return Err(form(name, format!("it names {} images, and can name one", saved.len())));
        };
        let bytes = self.document(&saved.config, None)?;
        let id = hex(&Sha256::digest(&bytes));
        let said = saved.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if said != id {
            let why = format!("its digest is sha256:{id}");
            return Err(LayoutError::Digest { name: saved.config.clone(), why });
        }
        let configuration: Configuration = parse(&saved.config, &bytes)?;
        if !fits(wanted, &configuration) {
            let has = format!("{}/{}", configuration.os, configuration.architecture);
            return Err(LayoutError::NoPlatform { wanted: wanted.clone(), has });
        }
        let plain = |name: &String| Layer {
            name: name.clone(),
            stored: None,
            compression: Compression::None,
            diff_id: String::new(),
        };
        let layers = with_diff_ids(&id, saved.layers.iter().map(plain).collect(), &configuration.rootfs)?;
        Ok((id, None, configuration, layers))
    }
}

impl Found {
    /// Has a layer read, as the archive it is when it is decompressed, and makes sure that all of it was what it should be.
    /// `budget` is how many bytes may be read still, and becomes less.
    pub(super) fn read<E>(
        &self,
        layer: &Layer,
        budget: &mut u64,
        read: impl FnOnce(&mut dyn Read) -> Result<(), E>,
    ) -> Result<Result<(), E>, LayoutError> {
        let (file, size) = self.source.file(&layer.name)?;
        let differs = |why: String| LayoutError::Digest { name: layer.name.clone(), why };
        let failed = |source| LayoutError::Missing { name: layer.name.clone(), source };
        if let Some((_, want)) = layer.stored.as_ref().filter(|(_, want)| *want != size) {
            return Err(differs(format!("it has {size} bytes, and should have {want}")));
        }
        if let Some((want, _)) = &layer.stored {
            // Before anything looks into it.
            let tally = Tally::default();
            io::copy(&mut tally.of(file, u64::MAX), &mut io::sink()).map_err(failed)?;
            let (has, _) = tally.finish();
            if has != *want {
                return Err(differs(format!("its digest is sha256:{has}")));
            }
        }
        let (file, _) = self.source.file(&layer.name)?;
        let input = BufReader::with_capacity(128 << 10, file);
        let input: Box<dyn Read + '_> = match layer.compression {
            Compression::None => Box::new(input),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Zstd => Box::new(Frames { input, decoder: FrameDecoder::new() }),
        };
        let tally = Tally::default();
        let mut input = tally.of(input, *budget);
        let done = read(&mut input);
        if done.is_ok() {
            // What comes after the end of an archive belongs to its digest, too.
            io::copy(&mut input, &mut io::sink()).map_err(failed)?;
            drop(input);
            let (has, length) = tally.finish();
            if has != layer.diff_id {
                let why =
                    format!("decompressed, its digest is sha256:{has}, and not sha256:{}", layer.diff_id);
                return Err(differs(why));
            }
            *budget = budget.saturating_sub(length);
        }
        Ok(done)
    }
}

/// The plain files of an archive: where they begin and how long they are.
fn contents(file: &File) -> Result<BTreeMap<String, (u64, u64)>, tar::TarError> {
    let mut magic = [0; 4];
    let mut reader = file;
    let read = reader.read(&mut magic)?;
    if magic
        .get(..read)
        .is_some_and(|magic| magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd])
    {
        return Err(tar::TarError::Form("it is compressed; decompress it first, with `gunzip` or `unzstd`"));
    }
    reader.seek(SeekFrom::Start(0))?;
    let position = Rc::new(RefCell::new(0));
    let mut archive = Reader::new(Counted(file, Rc::clone(&position)));
    let mut files = BTreeMap::new();
    while let Some(entry) = archive.next()? {
        if entry.kind != Kind::File {
            continue;
        }
        let wrong = |why| tar::TarError::Entry { path: entry.path.clone(), why };
        let name = String::from_utf8(entry.path.clone()).map_err(|_not| wrong("has a strange name"))?;
        if files.len() >= MAX_FILES {
            return Err(wrong("is one too many"));
        }
        if files.insert(name, (*position.borrow(), entry.size)).is_some() {
            return Err(wrong("is there twice"));
        }
    }
    Ok(files)
}

/// A file, and where in it one is.
struct Counted<'f>(&'f File, Rc<RefCell<u64>>);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        *self.1.borrow_mut() += read as u64;
        Ok(read)
    }
}

/// What went through a reader: its digest and how much it was.
#[derive(Default, Clone)]
struct Tally(Rc<RefCell<(Sha256, u64)>>);

struct Tallied<R> {
    input: R,
    tally: Tally,
    left: u64,
}

impl Tally {
    fn of<R>(&self, input: R, most: u64) -> Tallied<R> {
        Tallied { input, tally: self.clone(), left: most }
    }

    fn finish(&self) -> (String, u64) {
        let (hash, length) = self.0.take();
        (hex(&hash.finalize()), length)
    }
}

impl<R: Read> Read for Tallied<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other("the image is larger than may be unpacked"))?;
        let mut tally = self.tally.0.borrow_mut();
        tally.0.update(buffer.get(..read).unwrap_or_default());
        tally.1 += read as u64;
        Ok(read)
    }
}

/// Zstandard: one frame after the other, some of which are to be skipped.
struct Frames<R> {
    input: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame; `false` at the end.
    fn begin(&mut self) -> io::Result<bool> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(false);
        }
        match self.decoder.reset(&mut self.input) {
            Ok(()) => Ok(true),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let length = u64::from(length);
                let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
                if skipped == length { Ok(true) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            }
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::other(error.to_string()))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() || !self.begin()? {
                return Ok(read);
            }
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, LayoutError> {
    serde_json::from_slice(bytes).map_err(|error| form(name, error.to_string()))
}

fn fits(wanted: &Platform, configuration: &Configuration) -> bool {
    configuration.os == "linux" && wanted.fits(&configuration.architecture, configuration.variant.as_deref())
}

/// The digits of a digest, if it is of the one kind that is read.
fn digits(digest: &str) -> Option<&str> {
    let digits = digest.strip_prefix("sha256:")?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (digits.len() == 64 && plain).then_some(digits)
}

fn sha256(name: &str, descriptor: &Descriptor) -> Result<String, LayoutError> {
    let digits = digits(&descriptor.digest).map(str::to_owned);
    digits.ok_or_else(|| form(name, "it has a digest that is not one of sha256"))
}

/// The file that a descriptor is of.
fn blob_of(descriptor: &Descriptor) -> Result<String, LayoutError> {
    Ok(format!("blobs/sha256/{}", sha256("a descriptor", descriptor)?))
}

fn compression(name: &str, media_type: &str) -> Result<Compression, LayoutError> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Ok(Compression::None)
        }
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Compression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Compression::Zstd),
        other => {
            Err(form(name, format!("the media type `{}` of a layer is not known", other.escape_debug())))
        }
    }
}

/// Gives each layer what its configuration says it is when it is unpacked.
fn with_diff_ids(id: &str, mut layers: Vec<Layer>, rootfs: &RootFs) -> Result<Vec<Layer>, LayoutError> {
    let name = format!("blobs/sha256/{id}");
    if rootfs.r#type != "layers" || rootfs.diff_ids.len() != layers.len() || layers.len() > MAX_LAYERS {
        let why = format!(
            "it has {} layers of the kind `{}`, and the manifest {} of at most {MAX_LAYERS}",
            rootfs.diff_ids.len(),
            rootfs.r#type.escape_debug(),
            layers.len()
        );
        return Err(form(&name, why));
    }
    for (layer, diff_id) in layers.iter_mut().zip(&rootfs.diff_ids) {
        let digits =
            digits(diff_id).ok_or_else(|| form(&name, "a layer has a digest that is not one of sha256"))?;
        digits.clone_into(&mut layer.diff_id);
    }
    Ok(layers)
}
