//! Makes archives and images for tests, byte by byte, as good and as bad as they are wanted.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::indexing_slicing,
    reason = "each test uses a part of it"
)]

use std::io::Write as _;

use sha2::{Digest as _, Sha256};
use toolgate_sandbox::image::Platform;

/// An archive in the making.
#[derive(Clone)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
    mode: u32,
    cut: bool,
}

pub(crate) fn tar() -> Tar {
    Tar { bytes: Vec::new(), mode: 0o644, cut: false }
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len().next_multiple_of(512), 0);
    bytes
}

impl Tar {
    /// The mode of what comes next.
    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Without an end.
    pub(crate) fn cut(self) -> Self {
        Self { cut: true, ..self }
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    fn header(mut self, kind: u8, name: &[u8], target: &str, size: &[u8; 12]) -> Self {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name);
        header[100..107].copy_from_slice(format!("{:07o}", self.mode).as_bytes());
        header[124..136].copy_from_slice(size);
        header[156] = kind;
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].copy_from_slice(b"        ");
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(header);
        self
    }

    fn of_size(self, kind: u8, name: &str, target: &str, size: u64) -> Self {
        let mut field = [0; 12];
        let digits = format!("{size:011o}");
        field[..digits.len()].copy_from_slice(digits.as_bytes());
        self.header(kind, name.as_bytes(), target, &field)
    }

    /// An entry that says that it has a content, and has none.
    pub(crate) fn sized(self, kind: u8, name: &str, size: u64) -> Self {
        self.of_size(kind, name, "", size)
    }

    pub(crate) fn sized_hard(self, name: &str, target: &str, size: u64) -> Self {
        self.of_size(b'1', name, target, size)
    }

    pub(crate) fn sized_file(self, name: &str, size: u64, content: &[u8]) -> Self {
        self.sized(b'0', name, size).raw(&padded(content))
    }

    pub(crate) fn negative(self, name: &str) -> Self {
        self.header(b'0', name.as_bytes(), "", &[0xff; 12])
    }

    pub(crate) fn bytes(self, name: &str, content: &[u8]) -> Self {
        self.sized(b'0', name, content.len() as u64).raw(&padded(content))
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.bytes(name, content.as_bytes())
    }

    /// A file with a name in the form of GNU.
    pub(crate) fn long_file(self, name: &str, content: &str) -> Self {
        self.long_bytes(name, content.as_bytes())
    }

    /// The same, for any content.
    pub(crate) fn long_bytes(self, name: &str, content: &[u8]) -> Self {
        self.bytes_of(b'L', "././@LongLink", name.as_bytes()).bytes("short", content)
    }

    fn bytes_of(self, kind: u8, name: &str, content: &[u8]) -> Self {
        self.sized(kind, name, content.len() as u64).raw(&padded(content))
    }

    pub(crate) fn folder(self, name: &str) -> Self {
        self.sized(b'5', name, 0)
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.of_size(b'2', name, target, 0)
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Self {
        self.of_size(b'1', name, target, 0)
    }

    pub(crate) fn special(self, kind: u8, name: &str) -> Self {
        self.sized(kind, name, 0)
    }

    /// An extended header for what comes next.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let text = extended(records);
        self.bytes_of(b'x', "pax", &text)
    }

    pub(crate) fn raw_pax(self, text: &[u8]) -> Self {
        self.bytes_of(b'x', "pax", text)
    }

    /// An extended header for all that follows.
    pub(crate) fn global(self, records: &[(&str, &str)]) -> Self {
        let text = extended(records);
        self.bytes_of(b'g', "pax", &text)
    }

    pub(crate) fn blocks(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn done(mut self) -> Vec<u8> {
        if !self.cut {
            self.bytes.extend([0; 1024]);
        }
        self.bytes
    }
}

fn extended(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len() + 1;
        while format!("{length}{rest}").len() != length {
            length += 1;
        }
        text.extend(format!("{length}{rest}").bytes());
    }
    text
}

/// A layer of an image.
#[derive(Clone)]
pub(crate) struct Layer {
    stored: Vec<u8>,
    archive: Vec<u8>,
    media_type: String,
}

impl Layer {
    fn new(archive: Vec<u8>, stored: Vec<u8>, kind: &str) -> Self {
        Self { stored, archive, media_type: format!("application/vnd.oci.image.layer.v1.tar{kind}") }
    }

    pub(crate) fn plain(archive: Vec<u8>) -> Self {
        Self::new(archive.clone(), archive, "")
    }

    pub(crate) fn gzip(archive: Vec<u8>) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive).unwrap();
        Self::new(archive, gzip.finish().unwrap(), "+gzip")
    }

    pub(crate) fn zstd(archive: Vec<u8>) -> Self {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let stored = ruzstd::encoding::compress_to_vec(archive.as_slice(), level);
        Self::new(archive, stored, "+zstd")
    }

    pub(crate) fn stored_as(self, stored: Vec<u8>) -> Self {
        Self { stored, ..self }
    }

    pub(crate) fn called(self, media_type: &str) -> Self {
        Self { media_type: media_type.to_owned(), ..self }
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An image, or several.
#[derive(Clone)]
pub(crate) struct Oci {
    layers: Vec<Layer>,
    diff_ids: Vec<String>,
    platform: (String, String),
    more: Vec<Oci>,
}

impl Oci {
    pub(crate) fn new(layers: &[Layer]) -> Self {
        let diff_ids = layers.iter().map(|layer| digest(&layer.archive)).collect();
        let platform = ("linux".to_owned(), Platform::here().architecture);
        Self { layers: layers.to_vec(), diff_ids, platform, more: Vec::new() }
    }

    pub(crate) fn with_diff_ids(mut self, diff_ids: &[String]) -> Self {
        self.diff_ids = diff_ids.to_vec();
        self
    }

    pub(crate) fn on(mut self, os: &str, architecture: &str) -> Self {
        self.platform = (os.to_owned(), architecture.to_owned());
        self
    }

    pub(crate) fn and(mut self, other: Self) -> Self {
        self.more.push(other);
        self
    }

    fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> =
            self.diff_ids.iter().map(|digits| format!("\"sha256:{digits}\"")).collect();
        format!(
            r#"{{"os":"{}","architecture":"{}","config":{{"Env":["PATH=/bin","LANG=C=D","none"],"WorkingDir":"/srv","User":"root"}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            self.platform.0,
            self.platform.1,
            diff_ids.join(",")
        )
        .into_bytes()
    }

    /// The digest of the configuration.
    pub(crate) fn id(&self) -> String {
        digest(&self.config())
    }

    /// The digest of a layer.
    pub(crate) fn layer(&self, number: usize) -> String {
        digest(&self.layers[number].stored)
    }

    fn manifest(&self) -> Vec<u8> {
        let described = |bytes: &[u8], media_type: &str| {
            format!(
                r#"{{"mediaType":"{media_type}","digest":"sha256:{}","size":{}}}"#,
                digest(bytes),
                bytes.len()
            )
        };
        let layers: Vec<String> =
            self.layers.iter().map(|layer| described(&layer.stored, &layer.media_type)).collect();
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            described(&self.config(), "application/vnd.oci.image.config.v1+json"),
            layers.join(",")
        )
        .into_bytes()
    }

    /// The files of its layout.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let mut manifests = Vec::new();
        for image in [self].into_iter().chain(&self.more) {
            let manifest = image.manifest();
            manifests.push(format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{}","size":{}}}"#,
                digest(&manifest),
                manifest.len()
            ));
            let stored = image.layers.iter().map(|layer| layer.stored.clone());
            for blob in stored.chain([manifest, image.config()]) {
                files.push((format!("blobs/sha256/{}", digest(&blob)), blob));
            }
        }
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(","));
        files.push(("index.json".to_owned(), index.into_bytes()));
        files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        files
    }

    /// Its layout as an archive.
    pub(crate) fn tar(&self) -> Vec<u8> {
        self.files().iter().fold(tar(), |tar, (path, content)| tar.bytes(path, content)).done()
    }

    /// The same image as `docker save` has always written it.
    pub(crate) fn saved(&self) -> Vec<u8> {
        let names: Vec<String> =
            (0..self.layers.len()).map(|number| format!("\"{number}/layer.tar\"")).collect();
        let manifest = format!(
            r#"[{{"Config":"{}.json","RepoTags":["it:latest"],"Layers":[{}]}}]"#,
            self.id(),
            names.join(",")
        );
        let mut archive =
            tar().file("manifest.json", &manifest).bytes(&format!("{}.json", self.id()), &self.config());
        for (number, layer) in self.layers.iter().enumerate() {
            archive = archive.bytes(&format!("{number}/layer.tar"), &layer.archive);
        }
        archive.done()
    }
}
