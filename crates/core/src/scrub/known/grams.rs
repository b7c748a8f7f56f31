//! Finding many patterns in one pass: a bitmap of eight bytes of each, then hashes.
//!
//! Of each pattern, eight bytes are remembered that few others have. At each place of a text, the eight bytes there are
//! looked up in a bitmap that says "no" nearly always. Where it does not, the hash of as many bytes as the pattern has
//! says whether it is there. So no pattern is kept, the memory is about 40 bytes for each, whatever its length, and the
//! speed does not depend on how many there are. An automaton would need tens of megabytes for a hundred values.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::forms::Extent;

/// How many bytes a pattern has at least.
pub(super) const GRAM: usize = 8;

/// What is known about a pattern that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meant {
    pub(super) secret: u32,
    /// What around the pattern goes with it.
    pub(super) extent: Extent,
    /// How many bytes of the pattern are only there to say where: the name before the value, the host behind it.
    pub(super) before: u8,
    pub(super) behind: u8,
    /// Whether it counts only if no letter or digit touches it.
    pub(super) whole_word: bool,
}

pub(super) struct Pattern {
    pub(super) text: Zeroizing<Vec<u8>>,
    pub(super) meant: Meant,
}

struct Entry {
    /// Of the eight bytes; entries are sorted by it.
    key: u64,
    whole: u64,
    /// Where in the pattern the eight bytes are, and how long it is.
    at: u16,
    length: u16,
    meant: Meant,
}

impl Zeroize for Entry {
    fn zeroize(&mut self) {
        self.key.zeroize();
        self.whole.zeroize();
    }
}

/// Patterns to look for.
#[derive(ZeroizeOnDrop)]
pub(super) struct Grams {
    bitmap: Vec<u64>,
    #[zeroize(skip)]
    bitmap_shift: u32,
    entries: Vec<Entry>,
    /// For the top bits of a key, the entries which have these.
    #[zeroize(skip)]
    buckets: Vec<u32>,
    #[zeroize(skip)]
    bucket_shift: u32,
    #[zeroize(skip)]
    longest: usize,
    /// Only each so-manieth place of a text is looked at; of each pattern, so many places are remembered.
    #[zeroize(skip)]
    stride: usize,
}

/// Above so many entries, fewer places of each pattern are remembered.
const MANY: usize = 1 << 16;

impl Grams {
    /// Remembers the patterns. Those that are too short or too long are left out.
    pub(super) fn new(patterns: &[Pattern]) -> Self {
        let usable = |p: &&Pattern| (GRAM..=usize::from(u16::MAX)).contains(&p.text.len());
        let mut common = Common(vec![0; 1 << Common::BITS]);
        for pattern in patterns.iter().filter(usable) {
            pattern.text.array_windows::<GRAM>().for_each(|gram| common.add(*gram));
        }
        let shortest = patterns.iter().filter(usable).map(|p| p.text.len()).min().unwrap_or(GRAM);
        let stride = [4, 2, 1]
            .into_iter()
            .find(|stride| shortest >= GRAM + stride - 1 && patterns.len() * stride <= MANY)
            .unwrap_or(1);
        let mut entries: Vec<Entry> =
            patterns.iter().filter(usable).flat_map(|p| new_entries(p, &common, stride)).collect();
        entries.sort_by_key(|entry| (entry.key, entry.whole));
        entries.dedup_by(|a, b| (a.key, a.whole, a.at, a.meant) == (b.key, b.whole, b.at, b.meant));
        let longest = entries.iter().map(|entry| usize::from(entry.length)).max().unwrap_or(0);
        let entry_bits = entries.len().next_power_of_two().trailing_zeros();
        let bitmap_shift = 64 - (entry_bits + 6).clamp(15, 22);
        let bucket_shift = 64 - (entry_bits + 1).clamp(8, 22);
        let mut bitmap = vec![0_u64; 1 << (64 - bitmap_shift - 6)];
        let mut buckets = vec![0_u32; (1 << (64 - bucket_shift)) + 1];
        for entry in &entries {
            let bit = entry.key >> bitmap_shift;
            if let Some(word) = bitmap.get_mut((bit >> 6) as usize) {
                *word |= 1 << (bit & 63);
            }
            if let Some(count) = buckets.get_mut((entry.key >> bucket_shift) as usize + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for count in &mut buckets {
            sum += *count;
            *count = sum;
        }
        Self { bitmap, bitmap_shift, entries, buckets, bucket_shift, longest, stride }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes the longest pattern has.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// How many bytes of memory it takes.
    pub(super) fn size(&self) -> usize {
        self.bitmap.len() * 8 + self.buckets.len() * 4 + self.entries.len() * size_of::<Entry>()
    }

    /// Calls back with the start and end of each pattern in the text. `work` is taken from for each byte that is
    /// compared; when nothing is left of it, the answer is `None`.
    pub(super) fn find(
        &self,
        text: &[u8],
        work: &mut usize,
        mut found: impl FnMut(usize, usize, &Meant),
    ) -> Option<()> {
        if self.entries.is_empty() {
            return Some(());
        }
        match self.stride {
            4 => self.find_each::<4>(text, work, &mut found),
            2 => self.find_each::<2>(text, work, &mut found),
            _ => self.find_each::<1>(text, work, &mut found),
        }
    }

    fn find_each<const STRIDE: usize>(
        &self,
        text: &[u8],
        work: &mut usize,
        found: &mut impl FnMut(usize, usize, &Meant),
    ) -> Option<()> {
        for (at, gram) in text.array_windows::<GRAM>().enumerate().step_by(STRIDE) {
            let key = key(*gram);
            let bit = key >> self.bitmap_shift;
            let word = self.bitmap.get((bit >> 6) as usize).copied().unwrap_or_default();
            if word >> (bit & 63) & 1 != 0 {
                self.compare(text, at, key, work, found)?;
            }
        }
        Some(())
    }

    #[cold]
    fn compare(
        &self,
        text: &[u8],
        at: usize,
        key: u64,
        work: &mut usize,
        found: &mut impl FnMut(usize, usize, &Meant),
    ) -> Option<()> {
        let bucket = (key >> self.bucket_shift) as usize;
        let from = self.buckets.get(bucket).copied().unwrap_or_default() as usize;
        let to = self.buckets.get(bucket + 1).copied().unwrap_or_default() as usize;
        for entry in self.entries.get(from..to).unwrap_or_default() {
            if entry.key != key {
                continue;
            }
            *work = work.checked_sub(usize::from(entry.length) + 8)?;
            let Some(start) = at.checked_sub(usize::from(entry.at)) else { continue };
            let end = start + usize::from(entry.length);
            if text.get(start..end).is_some_and(|text| hash(text) == entry.whole) {
                found(start, end, &entry.meant);
            }
        }
        Some(())
    }
}

/// So many letters and digits are the beginning of something rather than of anything.
pub(super) const BEGINNING: usize = 4;
/// Of longer beginnings, only so much is known.
const LONGEST_BEGINNING: usize = 160;

/// With what patterns begin, at each length.
#[derive(ZeroizeOnDrop)]
pub(super) struct Beginnings {
    /// Sorted.
    hashes: Vec<u64>,
    #[zeroize(skip)]
    longest: usize,
}

impl Beginnings {
    pub(super) fn new(patterns: &[Zeroizing<Vec<u8>>]) -> Self {
        let lengths = |p: &Zeroizing<Vec<u8>>| BEGINNING..p.len().min(LONGEST_BEGINNING);
        let all = patterns.iter().flat_map(|p| lengths(p).filter_map(|length| p.get(..length)).map(hash));
        let mut hashes: Vec<u64> = all.collect();
        hashes.sort_unstable();
        hashes.dedup();
        let longest = patterns.iter().map(|p| lengths(p).end).max().unwrap_or_default();
        Self { hashes, longest }
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn has(&self, beginning: &[u8]) -> bool {
        self.hashes.binary_search(&hash(beginning)).is_ok()
    }
}

/// How often eight bytes are among the patterns, roughly.
struct Common(Vec<u8>);

impl Common {
    const BITS: u32 = 16;

    fn add(&mut self, gram: [u8; GRAM]) {
        if let Some(count) = self.0.get_mut((key(gram) >> (64 - Self::BITS)) as usize) {
            *count = count.saturating_add(1);
        }
    }

    fn count(&self, gram: [u8; GRAM]) -> u8 {
        self.0.get((key(gram) >> (64 - Self::BITS)) as usize).copied().unwrap_or_default()
    }
}

/// The places in a pattern next to each other, as many as the stride, that others have least.
fn new_entries(pattern: &Pattern, common: &Common, stride: usize) -> Vec<Entry> {
    let rank = |gram: &[u8; GRAM]| {
        let mut sorted = *gram;
        sorted.sort_unstable();
        let different = sorted.array_windows::<2>().filter(|[a, b]| a != b).count();
        (common.count(*gram), GRAM - different)
    };
    // Of a long pattern, the beginning has enough to choose from.
    let ranks: Vec<(u8, usize)> = pattern.text.array_windows::<GRAM>().take(64).map(rank).collect();
    let best = ranks.windows(stride).enumerate().min_by_key(|(_, ranks)| ranks.iter().max().copied());
    let first = best.map_or(0, |(at, _)| at);
    let whole = hash(&pattern.text);
    let grams = pattern.text.array_windows::<GRAM>().enumerate().skip(first).take(stride);
    grams
        .filter_map(|(at, gram)| {
            Some(Entry {
                key: key(*gram),
                whole,
                at: u16::try_from(at).ok()?,
                length: u16::try_from(pattern.text.len()).ok()?,
                meant: pattern.meant,
            })
        })
        .collect()
}

fn key(gram: [u8; GRAM]) -> u64 {
    u64::from_le_bytes(gram).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Nobody gains by a collision: what is not the value would be taken out too.
fn hash(bytes: &[u8]) -> u64 {
    let mut state = 0x243f_6a88_85a3_08d3_u64 ^ bytes.len() as u64;
    let mut mix = |word: u64| {
        state = (state ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        state ^= state >> 32;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        mix(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    mix(u64::from_le_bytes(last));
    state
}
