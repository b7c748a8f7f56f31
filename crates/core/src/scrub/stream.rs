//! Streams: of bytes, and of server-sent events.
//!
//! What comes out does not depend on how what goes in is cut. A stream of bytes is looked through in blocks; of each, so
//! much is held back as may be the beginning of something: the width of the longest spelling, what is open at the end. A
//! stream of events gives each event out as soon as its end is there, unless it ends like the beginning of a value.

use crate::json::{Document, Limits};

use super::json::{Batch, Piece};
use super::{Found, Place, Removed, Scrubber, Withheld};

/// How many bytes are looked through together.
const BLOCK: usize = 256 << 10;
/// How many are held at most while there is no place to cut.
const HELD: usize = 4 << 20;

/// A stream of bytes on its way; made by [`Scrubber::stream`].
#[derive(Debug)]
pub struct Stream<'a> {
    scrubber: &'a Scrubber,
    held: Vec<u8>,
    /// At how many bytes they are looked through.
    block: usize,
    removed: Removed,
}

impl Scrubber {
    /// Cleans a text that comes in pieces.
    #[must_use]
    pub fn stream(&self) -> Stream<'_> {
        Stream { scrubber: self, held: Vec::new(), block: BLOCK, removed: Removed::new() }
    }

    /// Cleans server-sent events.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events {
            scrubber: self,
            line: Vec::new(),
            event: Vec::new(),
            held: Vec::new(),
            held_bytes: 0,
            before: Vec::new(),
            removed: Removed::new(),
        }
    }

    /// How far back from its end what is held may begin something, by any detector.
    fn settled(&self, text: &[u8]) -> Result<usize, Withheld> {
        let mut settled = text.len();
        for detector in &self.detectors {
            settled = settled.min(detector.settled(text)?);
        }
        Ok(settled)
    }
}

impl Stream<'_> {
    /// Takes the next bytes, and adds to `out` what can be given out.
    ///
    /// # Errors
    /// What came could not be looked through, or has no place where it could be cut. The stream is at its end then.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Withheld> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.block - self.held.len()));
            self.held.extend_from_slice(now);
            rest = later;
            if self.held.len() == self.block {
                self.settle(out)?;
            }
        }
        Ok(())
    }

    /// Gives out all that is held: a message ends here, and nothing is split over its end.
    ///
    /// # Errors
    /// What is held could not be looked through.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        let held = std::mem::take(&mut self.held);
        self.block = BLOCK;
        let found = self.scrubber.find(&held, &Place::default())?;
        out.extend(self.scrubber.replace(&held, &found, &mut self.removed));
        Ok(())
    }

    /// The end: gives out what is held, and says what was taken out.
    ///
    /// # Errors
    /// What is held could not be looked through.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Removed, Withheld> {
        self.flush(out)?;
        Ok(self.removed)
    }

    fn settle(&mut self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        let found = self.scrubber.find(&self.held, &Place::default())?;
        let mut cut = self.scrubber.settled(&self.held)?;
        // What was found across the cut may go on behind the end.
        for Found { range, .. } in found.iter().rev() {
            if range.end > cut {
                cut = cut.min(range.start);
            }
        }
        if cut == 0 {
            if self.block >= HELD {
                return Err(Withheld::Unsettled);
            }
            self.block *= 2;
            return Ok(());
        }
        let rest = self.held.split_off(cut);
        let held = std::mem::replace(&mut self.held, rest);
        let found: Vec<Found> = found.into_iter().filter(|found| found.range.end <= cut).collect();
        out.extend(self.scrubber.replace(&held, &found, &mut self.removed));
        self.block = BLOCK.max(self.held.len() * 2);
        Ok(())
    }
}

/// Server-sent events on their way; made by [`Scrubber::events`].
#[derive(Debug)]
pub struct Events<'a> {
    scrubber: &'a Scrubber,
    /// The line of which the end was not seen.
    line: Vec<u8>,
    /// The lines of the event of which the end was not seen.
    event: Vec<u8>,
    /// Events that may hold the beginning of something.
    held: Vec<Vec<u8>>,
    held_bytes: usize,
    /// The end of what the events before said, for what is split over more of them than are held.
    before: Vec<u8>,
    removed: Removed,
}

impl Events<'_> {
    /// Takes the next bytes, and adds to `out` the events that can be given out.
    ///
    /// # Errors
    /// An event could not be looked through, or is too long. The stream is at its end then.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Withheld> {
        for byte in bytes {
            self.line.push(*byte);
            if *byte != b'\n' {
                continue;
            }
            let is_end = matches!(self.line.as_slice(), b"\n" | b"\r\n");
            self.event.append(&mut self.line);
            if is_end {
                let event = std::mem::take(&mut self.event);
                self.held_bytes += event.len();
                self.held.push(event);
                self.give(false, out)?;
            }
        }
        if self.line.len() + self.event.len() + self.held_bytes > HELD {
            return Err(Withheld::Unsettled);
        }
        Ok(())
    }

    /// The end: gives out what is held, and says what was taken out.
    ///
    /// # Errors
    /// What is held could not be looked through.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Removed, Withheld> {
        self.event.append(&mut self.line);
        if !self.event.is_empty() {
            self.held.push(std::mem::take(&mut self.event));
        }
        self.give(true, out)?;
        Ok(self.removed)
    }

    /// Gives out the held events, unless they end like the beginning of a value and others may come.
    fn give(&mut self, is_last: bool, out: &mut Vec<u8>) -> Result<(), Withheld> {
        let events: Vec<Event> = self.held.iter().map(|event| Event::parse(event)).collect();
        let before = Piece::Text(String::from_utf8_lossy(&self.before).into_owned());
        let pieces =
            events.iter().map(|event| match Document::parse(event.data.as_bytes(), &Limits::default()) {
                Ok(document) => Piece::Json(document),
                Err(_) => Piece::Text(event.data.clone()),
            });
        let batch = Batch::new(std::iter::once(before).chain(pieces).collect());
        if !is_last && self.scrubber.may_begin(batch.values()) {
            return Ok(());
        }
        let cleaned = self.scrubber.scrub_batch(&batch, &mut self.removed)?;
        for ((event, raw), data) in events.iter().zip(&self.held).zip(cleaned.into_iter().skip(1)) {
            let raw = beside_data(self.scrubber, raw, &mut self.removed)?;
            event.write(&raw, &data, out);
        }
        /// The longest spelling with much between.
        const BEFORE: usize = 4 << 10;
        let values = batch.values();
        let from = values.len().saturating_sub(BEFORE);
        self.before = values.get(from..).unwrap_or_default().to_vec();
        self.held.clear();
        self.held_bytes = 0;
        Ok(())
    }
}

/// An event whose lines of data are as they came, and the others cleaned: its name and number, and comments.
fn beside_data(scrubber: &Scrubber, raw: &[u8], removed: &mut Removed) -> Result<Vec<u8>, Withheld> {
    let mut all = Vec::with_capacity(raw.len());
    for line in lines(raw) {
        if data(line).is_some() {
            all.extend_from_slice(line);
            continue;
        }
        let cleaned = scrubber.scrub_text(line)?;
        all.extend(cleaned.bytes);
        for (kind, count) in cleaned.removed {
            *removed.entry(kind).or_default() += count;
        }
        // What is taken out may have reached to the end of the line.
        if line.ends_with(b"\n") && !all.ends_with(b"\n") {
            all.push(b'\n');
        }
    }
    Ok(all)
}

/// One event.
struct Event {
    /// What its lines of data say together.
    data: String,
}

impl Event {
    fn parse(raw: &[u8]) -> Self {
        let data: Vec<String> =
            lines(raw).filter_map(data).map(|data| String::from_utf8_lossy(data).into_owned()).collect();
        Self { data: data.join("\n") }
    }

    /// Writes the event as it came if it still says the same, and with new lines of data if not.
    fn write(&self, raw: &[u8], new: &[u8], out: &mut Vec<u8>) {
        if new == self.data.as_bytes() {
            out.extend_from_slice(raw);
            return;
        }
        let mut new = Some(new);
        for line in lines(raw) {
            if data(line).is_none() {
                out.extend_from_slice(line);
            } else if let Some(new) = new.take() {
                for line in new.split(|b| *b == b'\n') {
                    out.extend_from_slice(b"data: ");
                    out.extend_from_slice(line);
                    out.push(b'\n');
                }
            }
        }
    }
}

fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    raw.split_inclusive(|b| *b == b'\n')
}

/// What a line of data says.
fn data(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let data = line.strip_prefix(b"data")?;
    match data.first() {
        None => Some(data),
        Some(b':') => Some(data.strip_prefix(b": ").or_else(|| data.strip_prefix(b":"))?),
        Some(_) => None,
    }
}
