//! Reads tar archives that strangers made: the one reading on which the programs that write images agree, and nothing else.
//!
//! Archives have been a way in because two programs read one differently: sizes said twice, headers hidden in contents, names cut
//! short. So whatever can be read in two ways is refused, and nothing is guessed.

use std::io::{self, Read};

/// A header, and what contents are filled up to.
const BLOCK: usize = 512;

/// How long what stands before an entry (its long names, its extended header) may be.
const MAX_BEFORE: u64 = 1 << 20;

/// How long a path may be, and the name of a link's target.
pub(crate) const MAX_PATH: usize = 4096;

/// How long a part of a path may be.
const MAX_PART: usize = 255;

/// How many folders deep an entry may lie.
const MAX_PARTS: usize = 128;

/// Why an archive is not read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// It cannot be read, or not be decompressed.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It ends within a header or a content.
    #[error("it ends in the middle of an entry")]
    Cut,
    /// Its form is wrong.
    #[error("{0}")]
    Form(&'static str),
    /// An entry is wrong.
    #[error("the entry `{}` {why}", path.escape_ascii())]
    Entry {
        /// Which.
        path: Vec<u8>,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// One thing in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where: parts joined by `/`, none of them empty, `.` or `..`. The root itself is empty.
    pub(crate) path: Vec<u8>,
    /// What.
    pub(crate) kind: Kind,
    /// The bits of its mode.
    pub(crate) mode: u32,
    /// How long its content is.
    pub(crate) size: u64,
    /// Whether it had attributes, which are not read.
    pub(crate) attributes: bool,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file with a content.
    File,
    /// A folder.
    Folder,
    /// Another name for an entry, by a path like an entry's.
    Hard(Vec<u8>),
    /// A symbolic link, to whatever it says.
    Link(Vec<u8>),
    /// A device, a pipe or a socket.
    Special,
}

/// Reads an archive from its beginning to its end. After [`Reader::next`], it is itself the content of that entry.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    /// How much of the content is left.
    left: u64,
    /// How much is filled up after it.
    padding: u64,
    ended: bool,
}

/// What stands before an entry and is about it.
#[derive(Default)]
struct Before {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    attributes: bool,
    /// The kinds of headers that were there.
    seen: Vec<u8>,
}

impl<R: Read> Reader<R> {
    pub(crate) const fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0, ended: false }
    }

    /// The input, wherever it is now.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; what was not read of the last one is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut before = Before::default();
        loop {
            self.pass_over()?;
            let Some(header) = self.header()? else {
                return if before.seen.is_empty() { Ok(None) } else { Err(TarError::Cut) };
            };
            let kind = *header.get(156).unwrap_or(&0);
            let size = number(field(&header, 124, 12))
                .ok_or(TarError::Form("a header has a size that is no number"))?;
            match kind {
                b'x' | b'L' | b'K' | b'g' => {
                    // Twice the same could mean the first or the last.
                    if before.seen.contains(&kind) {
                        return Err(TarError::Form("two headers in a row say the same of an entry"));
                    }
                    before.seen.push(kind);
                    let text = self.text(size)?;
                    match kind {
                        b'x' => extended(&text, &mut before)?,
                        b'g' => global(&text)?,
                        b'L' => once(&mut before.path, until_zero(&text))?,
                        _ => once(&mut before.link, until_zero(&text))?,
                    }
                }
                _ => return self.entry(&header, kind, size, before).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &[u8], kind: u8, size: u64, before: Before) -> Result<Entry, TarError> {
        let raw = before.path.unwrap_or_else(|| name(header));
        let refused = |why| TarError::Entry { path: raw.clone(), why };
        let path = path(&raw).map_err(refused)?;
        let link = before.link.unwrap_or_else(|| until_zero(field(header, 157, 100)));
        let target = || {
            let wrong = link.is_empty() || link.len() > MAX_PATH || link.contains(&0);
            if wrong { Err(refused("is a link to nowhere")) } else { Ok(link.clone()) }
        };
        let size = before.size.unwrap_or(size);
        let kind = match kind {
            // Before there were folders in archives, a slash at the end of the name was one.
            0 | b'0' if raw.ends_with(b"/") => Kind::Folder,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::Hard(self::path(&target()?).map_err(refused)?),
            b'2' => Kind::Link(target()?),
            b'3' | b'4' | b'6' => Kind::Special,
            b'5' => Kind::Folder,
            b'S' => return Err(refused("is a file with holes, which are not read")),
            _ => return Err(refused("is of a kind that is not known")),
        };
        if size > 0 && kind != Kind::File {
            return Err(refused("has a content, and is no file"));
        }
        let mode = number(field(header, 100, 8)).ok_or(refused("has a mode that is no number"))?;
        self.expect(size)?;
        // Only these bits are known, and none but those of reading and running will be kept.
        let mode = u32::try_from(mode & 0o7777).unwrap_or(0);
        Ok(Entry { path, kind, mode, size, attributes: before.attributes })
    }

    /// A header, or nothing at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? {
            self.ended = true;
            return Ok(None);
        }
        if block == [0; BLOCK] {
            self.ended = true;
            // Two of them are the end. Nobody agrees what comes after one.
            return match self.block(&mut block)? && block != [0; BLOCK] {
                true => Err(TarError::Form("after a block of zeros there is another entry")),
                false => Ok(None),
            };
        }
        let sum = |from, to| field(&block, from, to).iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let (before, after) = (sum(0, 148), sum(156, BLOCK - 156));
        // The sum is taken with eight spaces in its own place.
        if number(field(&block, 148, 8)) != Some(before + after + 8 * 32) {
            return Err(TarError::Form("a header has a wrong sum; this is no tar archive, or it is damaged"));
        }
        Ok(Some(block))
    }

    /// Reads a block; `false` at the end of the input.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Cut),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn expect(&mut self, size: u64) -> Result<(), TarError> {
        // Room for what is filled up, so that nothing can overflow.
        if size > u64::MAX / 4 {
            return Err(TarError::Form("a size is too large"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn pass_over(&mut self) -> Result<(), TarError> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        match io::copy(&mut (&mut self.input).take(rest), &mut io::sink())? == rest {
            true => Ok(()),
            false => Err(TarError::Cut),
        }
    }

    /// The content of a header that is about the next one.
    fn text(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_BEFORE {
            return Err(TarError::Form("a long name or an extended header is too long"));
        }
        self.expect(size)?;
        let mut text = Vec::new();
        self.read_to_end(&mut text)?;
        if text.len() as u64 == size { Ok(text) } else { Err(TarError::Cut) }
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let read = self.input.read(buffer)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of a content"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// A part of a header.
fn field(header: &[u8], from: usize, length: usize) -> &[u8] {
    header.get(from..from + length).unwrap_or_default()
}

fn until_zero(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// The name in a header: in two halves where it says so.
fn name(header: &[u8]) -> Vec<u8> {
    let name = until_zero(field(header, 0, 100));
    let prefix = until_zero(field(header, 345, 155));
    // GNU's own form begins the same and has other things in that place.
    if field(header, 257, 6) != b"ustar\0" || prefix.is_empty() {
        return name;
    }
    [prefix, name].join(&b'/')
}

/// A number: octal digits, or bytes where the first bit says so. Nothing is zero.
fn number(text: &[u8]) -> Option<u64> {
    if text.first().is_some_and(|first| first & 0x80 != 0) {
        let mut value = u64::from(text.first()? & 0x7f);
        // The second bit is the sign.
        if value & 0x40 != 0 {
            return None;
        }
        for byte in text.get(1..)? {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value);
    }
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() {
        return Some(0);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| u64::from_str_radix(text, 8).ok())?
}

/// Takes a path apart and puts it together again: from the root of the archive, and in no other spelling.
pub(crate) fn path(raw: &[u8]) -> Result<Vec<u8>, &'static str> {
    if raw.contains(&0) {
        return Err("has a name with a zero in it");
    }
    let parts: Vec<&[u8]> =
        raw.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return Err("leads upwards");
    }
    if raw.len() > MAX_PATH || parts.len() > MAX_PARTS || parts.iter().any(|part| part.len() > MAX_PART) {
        return Err("has too long a path");
    }
    Ok(parts.join(&b'/'))
}

/// A key and its value.
type Record<'t> = (&'t [u8], &'t [u8]);

/// The records of an extended header: `LENGTH KEY=VALUE`, each with a line end.
fn records(mut text: &[u8]) -> Result<Vec<Record<'_>>, TarError> {
    let mut records = Vec::new();
    while !text.is_empty() {
        let (record, rest) = record(text).ok_or(TarError::Form("an extended header has a wrong form"))?;
        records.push(record);
        text = rest;
    }
    Ok(records)
}

/// The first record, and what comes after it. Its length is that of all of it.
fn record(text: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ').filter(|digits| (1..=8).contains(digits))?;
    let digits = std::str::from_utf8(text.get(..space)?).ok()?;
    let length = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    let (record, rest) = text.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some(((record.get(..equals)?, record.get(equals + 1..)?), rest))
}

/// What two headers say could mean the first or the last.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), TarError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(TarError::Form("the name or size of an entry is said twice")),
    }
}

fn extended(text: &[u8], before: &mut Before) -> Result<(), TarError> {
    for (key, value) in records(text)? {
        match key {
            b"path" => once(&mut before.path, value.to_vec())?,
            b"linkpath" => once(&mut before.link, value.to_vec())?,
            b"size" => {
                let digits =
                    std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
                let size = digits.and_then(|digits| digits.parse().ok());
                let size = size.ok_or(TarError::Form("an extended header has a size that is no number"))?;
                once(&mut before.size, size)?;
            }
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(TarError::Form("there is a file with holes, which are not read"));
            }
            _ => {
                before.attributes |=
                    key.starts_with(b"SCHILY.xattr.") || key.starts_with(b"LIBARCHIVE.xattr.");
            }
        }
    }
    Ok(())
}

/// A header about all entries that follow may say what does not matter here.
fn global(text: &[u8]) -> Result<(), TarError> {
    let matters =
        |key: &[u8]| [&b"path"[..], b"linkpath", b"size"].contains(&key) || key.starts_with(b"GNU.sparse.");
    match records(text)?.iter().any(|(key, _)| matters(key)) {
        true => Err(TarError::Form("a header gives all entries one name or size")),
        false => Ok(()),
    }
}
