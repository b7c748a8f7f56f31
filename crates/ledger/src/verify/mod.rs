//! Verification of a whole log: everything is computed again from the entries, and compared.
//!
//! Bundles are read, hashed and parsed by several threads, and related to each other in order by the calling one.
//! Memory stays bounded by the open calls and questions, and one byte an entry.

mod rules;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde::Serialize;

use self::rules::Rules;
use crate::checkpoint::Checkpoint;
use crate::folder::Folder;
use crate::proof::Trust;
use crate::record::Record;
use crate::tile::{self, HEIGHT, Kind, Tile, WIDTH};
use crate::tree::{self, Frontier, Hash};

/// How many findings about files and checkpoints are kept, and how many about entries; the rest is counted.
pub const MAX_FINDINGS: usize = 50;

/// What a log is verified against.
#[derive(Debug, Clone)]
pub struct Options {
    /// The log's key and name, the witnesses, and how many of them must have cosigned.
    pub trust: Trust,
    /// Older checkpoints that somebody kept, each with a name for messages. The log must extend every one.
    pub older: Vec<(String, Vec<u8>)>,
    /// How many entries the log must have at least.
    pub min_size: u64,
    /// How long an entry may be at most.
    pub max_entry: usize,
}

impl Options {
    /// Verification under this trust, without older checkpoints.
    #[must_use]
    pub const fn new(trust: Trust) -> Self {
        Self { trust, older: Vec::new(), min_size: 0, max_entry: crate::record::MAX_ENTRY }
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where: a file, or an entry.
    pub place: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What verification found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The log's name, if its checkpoint could be read.
    pub origin: Option<String>,
    /// How many entries the checkpoint speaks of.
    pub size: u64,
    /// Its root.
    pub root: Option<Hash>,
    /// The witnesses that cosigned it, by name.
    pub cosigners: Vec<String>,
    /// The older checkpoints that the log extends, by name.
    pub extends: Vec<String>,
    /// How many records there are of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// Records of kinds or versions that this program does not know. Nothing is known of their rules.
    pub unknown: u64,
    /// How often the clock went back between two entries. Clocks do.
    pub clock_went_back: u64,
    /// The indices of intents without an outcome: calls under way when the checkpoint was signed.
    pub open_intents: Vec<u64>,
    /// What is wrong: at most [`MAX_FINDINGS`] about files and checkpoints, and as many about entries.
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub more_findings: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.more_findings == 0
    }

    fn found(&mut self, place: impl fmt::Display, what: impl fmt::Display) {
        let place = place.to_string();
        // Thousands of wrong entries must not hide that the root is another.
        let of_entry = |place: &str| place.starts_with("entry ");
        let alike = self.findings.iter().filter(|found| of_entry(&found.place) == of_entry(&place)).count();
        if alike < MAX_FINDINGS {
            self.findings.push(Finding { place, what: what.to_string() });
        } else {
            self.more_findings += 1;
        }
    }
}

/// Verifies the log in `folder`. `progress` is told now and then how many entries of how many are done.
pub fn verify(folder: &Folder, options: &Options, mut progress: impl FnMut(u64, u64)) -> Report {
    let mut report = Report::default();
    let note = match folder.read_checkpoint() {
        Ok(Some(note)) => note,
        Ok(None) => {
            report.found("checkpoint", "there is none: this is no log, or it was removed");
            return report;
        }
        Err(error) => {
            report.found("checkpoint", error);
            return report;
        }
    };
    let checkpoint = match options.trust.open(&note) {
        Ok((checkpoint, cosigners)) => {
            report.cosigners = cosigners.into_iter().map(|cosigner| cosigner.name).collect();
            checkpoint
        }
        Err(error) => {
            report.found("checkpoint", error);
            return report;
        }
    };
    report.origin = Some(checkpoint.origin.clone());
    report.size = checkpoint.size;
    report.root = Some(checkpoint.root);
    if checkpoint.size < options.min_size {
        let wanted = options.min_size;
        report.found(
            "checkpoint",
            format!("{} entries where at least {wanted} must be: the log was cut", checkpoint.size),
        );
    }
    let older = open_older(&checkpoint, options, &mut report);
    Walk::new(folder, &checkpoint, older, report).run(options.max_entry, &mut progress)
}

/// Opens the older checkpoints, and refuses those that are larger than the log.
fn open_older(checkpoint: &Checkpoint, options: &Options, report: &mut Report) -> Vec<(String, Checkpoint)> {
    let mut opened = Vec::new();
    for (name, note) in &options.older {
        match Checkpoint::open(note, &options.trust.key, &options.trust.origin) {
            Ok((older, _)) if older.size > checkpoint.size => report.found(
                "checkpoint",
                format!(
                    "{} entries, but the older checkpoint `{name}` has {}: the log was cut or rolled back",
                    checkpoint.size, older.size
                ),
            ),
            Ok((older, _)) => opened.push((name.clone(), older)),
            Err(error) => report.found(format!("older checkpoint `{name}`"), error),
        }
    }
    opened
}

/// What a thread found out about one bundle.
struct Checked {
    bundle: Tile,
    /// The hashes of its entries; `None` if it cannot be read, so that nothing after it can be related to the root.
    leaves: Option<Vec<Hash>>,
    /// The records, where they could be read.
    records: Vec<(u64, Record)>,
    /// The root of its tile, if it is full.
    root: Option<Hash>,
    findings: Vec<Finding>,
}

/// The state of one verification.
struct Walk<'a> {
    folder: &'a Folder,
    checkpoint: &'a Checkpoint,
    older: Vec<(String, Checkpoint)>,
    report: Report,
    rules: Rules,
    frontier: Frontier,
    /// The hashes of the tile under way at each level from 1 on.
    rows: Vec<Vec<Hash>>,
}

impl<'a> Walk<'a> {
    fn new(
        folder: &'a Folder,
        checkpoint: &'a Checkpoint,
        older: Vec<(String, Checkpoint)>,
        report: Report,
    ) -> Self {
        let rules = Rules::new(&checkpoint.origin);
        Self { folder, checkpoint, older, report, rules, frontier: Frontier::default(), rows: Vec::new() }
    }

    fn run(mut self, max_entry: usize, progress: &mut impl FnMut(u64, u64)) -> Report {
        self.compare_older(&[], 0);
        let size = self.checkpoint.size;
        let bundles = size.div_ceil(WIDTH);
        let folder = self.folder;
        let whole = thread::scope(|scope| {
            let threads = thread::available_parallelism().map_or(1, NonZero::get).min(16);
            let results: Vec<Receiver<Checked>> = (0..threads)
                .map(|first| {
                    let (sender, receiver) = sync_channel(4);
                    scope.spawn(move || check_bundles(folder, size, max_entry, (first, threads), &sender));
                    receiver
                })
                .collect();
            let in_turn = results.iter().cycle();
            for (bundle, results) in (0..bundles).zip(in_turn) {
                let Ok(checked) = results.recv() else { return false };
                if !self.add(checked) {
                    return false;
                }
                if bundle % 64 == 0 {
                    progress((bundle + 1).saturating_mul(WIDTH).min(size), size);
                }
            }
            true
        });
        if whole {
            self.finish();
        }
        progress(size, size);
        self.report
    }

    /// Relates one bundle to all before it. `false` if nothing can be said about what follows.
    fn add(&mut self, checked: Checked) -> bool {
        let Checked { bundle, leaves, records, root, findings } = checked;
        findings.into_iter().for_each(|Finding { place, what }| self.report.found(place, what));
        let Some(leaves) = leaves else {
            self.report.found(bundle, "nothing from here on could be compared with the checkpoint");
            return false;
        };
        for (index, record) in records {
            self.rules.check(index, &record, &mut self.report);
        }
        let first = bundle.index * WIDTH;
        self.compare_older(&leaves, first);
        match root {
            Some(root) => {
                self.frontier.push_node(HEIGHT, root);
                self.add_to_rows(root);
            }
            None => leaves.iter().for_each(|leaf| self.frontier.push(*leaf)),
        }
        true
    }

    /// Compares the older checkpoints whose trees end in the bundle that begins at `first`.
    fn compare_older(&mut self, leaves: &[Hash], first: u64) {
        let last = first + u64::try_from(leaves.len()).unwrap_or(u64::MAX);
        let here = |size: u64| if leaves.is_empty() { size == 0 } else { size > first && size <= last };
        let (ending, rest) = std::mem::take(&mut self.older).into_iter().partition(|(_, o)| here(o.size));
        self.older = rest;
        let ending: Vec<(String, Checkpoint)> = ending;
        for (name, older) in ending {
            let mut frontier = self.frontier.clone();
            let count = usize::try_from(older.size - first).unwrap_or(usize::MAX);
            leaves.iter().take(count).for_each(|leaf| frontier.push(*leaf));
            if frontier.root() == older.root {
                self.report.extends.push(name);
            } else {
                let what = format!(
                    "the first {} entries are not those of the older checkpoint `{name}`: the log was rewritten or forked",
                    older.size
                );
                self.report.found("checkpoint", what);
            }
        }
    }

    /// Adds the root of a full tile to the level above, and compares the tiles that this fills.
    fn add_to_rows(&mut self, mut hash: Hash) {
        for level in 1..=tile::MAX_LEVEL {
            let at = usize::from(level) - 1;
            if self.rows.len() <= at {
                self.rows.push(Vec::new());
            }
            let Some(row) = self.rows.get_mut(at) else { return };
            row.push(hash);
            if row.len() < 256 {
                return;
            }
            let row = std::mem::take(row);
            let index = tile::hashes_at(level, self.frontier.size()) / WIDTH - 1;
            self.compare_tile(Tile { kind: Kind::Hashes(level), index, width: 256 }, &row);
            hash = tree::complete_root(&row);
        }
    }

    fn compare_tile(&mut self, tile: Tile, hashes: &[Hash]) {
        if let Some(what) = compare(self.folder, tile, hashes) {
            self.report.found(tile, what);
        }
    }

    fn finish(&mut self) {
        for (level, row) in (1..).zip(std::mem::take(&mut self.rows)) {
            let index = tile::hashes_at(level, self.checkpoint.size) / WIDTH;
            if let Some(tile) = tile::tile_at(Kind::Hashes(level), index, self.checkpoint.size) {
                self.compare_tile(tile, &row);
            }
        }
        let root = self.frontier.root();
        if root != self.checkpoint.root {
            self.report.found(
                "checkpoint",
                format!(
                    "its root is {}, but the entries lead to {root}: entries were changed",
                    self.checkpoint.root
                ),
            );
        }
        self.rules.finish(&mut self.report);
    }
}

/// Checks every `step`th bundle from `first` on, and sends what it finds until nobody listens.
fn check_bundles(
    folder: &Folder,
    size: u64,
    max_entry: usize,
    (first, step): (usize, usize),
    results: &SyncSender<Checked>,
) {
    for bundle in (0..).skip(first).step_by(step).map_while(|i| tile::tile_at(Kind::Entries, i, size)) {
        if results.send(check_bundle(folder, bundle, max_entry)).is_err() {
            return;
        }
    }
}

fn check_bundle(folder: &Folder, bundle: Tile, max_entry: usize) -> Checked {
    let mut findings = Vec::new();
    let mut found = |place: String, what: String| findings.push(Finding { place, what });
    let unreadable = |findings| Checked { bundle, leaves: None, records: Vec::new(), root: None, findings };
    let bytes = match folder.read_tile(bundle) {
        Ok(bytes) => bytes,
        Err(error) => {
            found(bundle.path(), error.to_string());
            return unreadable(findings);
        }
    };
    let entries = match tile::split_bundle(&bytes, usize::from(bundle.width)) {
        Ok(entries) => entries,
        Err(error) => {
            found(bundle.path(), error.to_string());
            return unreadable(findings);
        }
    };
    let mut leaves = Vec::with_capacity(entries.len());
    let mut records = Vec::with_capacity(entries.len());
    for (index, entry) in (bundle.index * WIDTH..).zip(entries) {
        leaves.push(Hash::leaf(entry));
        if entry.len() > max_entry {
            found(
                format!("entry {index}"),
                format!("{} bytes long; at most {max_entry} are allowed", entry.len()),
            );
        }
        match Record::decode(entry) {
            Ok(record) => records.push((index, record)),
            Err(error) => found(format!("entry {index}"), error.to_string()),
        }
    }
    let tile = Tile { kind: Kind::Hashes(0), ..bundle };
    if let Some(what) = compare(folder, tile, &leaves) {
        found(tile.path(), what);
    }
    let root = bundle.is_full().then(|| tree::complete_root(&leaves));
    Checked { bundle, leaves: Some(leaves), records, root, findings }
}

/// What is wrong with a tile that must have these hashes.
fn compare(folder: &Folder, tile: Tile, hashes: &[Hash]) -> Option<String> {
    let stored = match folder.read_hashes(tile) {
        Ok(stored) => stored,
        Err(error) => return Some(error.to_string()),
    };
    let at = stored.iter().zip(hashes).position(|(stored, hash)| stored != hash)?;
    Some(format!("hash {at} of it is not the one that the entries lead to"))
}
