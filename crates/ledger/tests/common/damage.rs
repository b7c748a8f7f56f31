//! What can be done to a log, and what a verifier must say about it.

use std::fs;
use std::path::Path;

use toolgate_ledger::{Checkpoint, Folder, Hash, Publisher, Signer, SigningKey};
use zeroize::Zeroizing;

use super::{Log, Scratch, sample};

/// One way to damage a log of 700 entries. Whoever verifies it has its checkpoint of 300 entries, and knows that it
/// had 700.
pub struct Damage {
    pub name: &'static str,
    pub apply: fn(&Path),
    /// What one of the findings must say.
    pub want: &'static str,
}

/// The log that is damaged.
pub fn subject(name: &str) -> Log {
    Log::with_sizes(name, &[300, 700])
}

pub const DAMAGES: &[Damage] = &[
    Damage {
        name: "a bit of an entry",
        apply: |log| flip(log, "tile/entries/000", 1000),
        want: "tile/0/000: hash 2 of it is not the one that the entries lead to",
    },
    Damage {
        name: "a bit of the last entry",
        apply: |log| flip(log, "tile/entries/002.p/188", usize::MAX),
        want: "tile/0/002.p/188: hash 187 of it is not the one that the entries lead to",
    },
    Damage {
        name: "a bit of a tile",
        apply: |log| flip(log, "tile/0/001", 40),
        want: "tile/0/001: hash 1 of it is not the one that the entries lead to",
    },
    Damage {
        name: "a bit of a partial tile",
        apply: |log| flip(log, "tile/0/002.p/188", 0),
        want: "tile/0/002.p/188: hash 0 of it is not the one that the entries lead to",
    },
    Damage {
        name: "a bit of a higher tile",
        apply: |log| flip(log, "tile/1/000.p/2", 63),
        want: "tile/1/000.p/2: hash 1 of it is not the one that the entries lead to",
    },
    Damage {
        name: "a cut bundle",
        apply: |log| edit(log, "tile/entries/001", |bytes| bytes.truncate(bytes.len() - 1)),
        want: "tile/entries/001: the bundle ends inside entry 255 of it",
    },
    Damage {
        name: "a bundle cut between entries",
        apply: |log| entries(log, "tile/entries/001", |entries| drop(entries.pop())),
        want: "tile/entries/001: 255 entries or hashes where 256 must be",
    },
    Damage {
        name: "bytes after a bundle",
        apply: |log| edit(log, "tile/entries/000", |bytes| bytes.extend([0, 0])),
        want: "tile/entries/000: 2 bytes too many after the last entry or hash",
    },
    Damage {
        name: "bytes after a tile",
        apply: |log| edit(log, "tile/0/000", |bytes| bytes.push(0)),
        want: "tile/0/000: `tile/0/000`: longer than 8192 bytes",
    },
    Damage {
        name: "bytes after a partial tile",
        apply: |log| edit(log, "tile/1/000.p/2", |bytes| bytes.extend([0; 32])),
        want: "tile/1/000.p/2: `tile/1/000.p/2`: 32 bytes too many after the last entry or hash",
    },
    Damage {
        name: "an empty tile",
        apply: |log| edit(log, "tile/0/000", Vec::clear),
        want: "tile/0/000: `tile/0/000`: 0 entries or hashes where 256 must be",
    },
    Damage {
        name: "no tile",
        apply: |log| fs::remove_file(log.join("tile/0/001")).unwrap(),
        want: "tile/0/001: `tile/0/001`: No such file or directory (os error 2)",
    },
    Damage {
        name: "no higher tile",
        apply: |log| fs::remove_file(log.join("tile/1/000.p/2")).unwrap(),
        want: "tile/1/000.p/2: `tile/1/000.p/2`: No such file or directory (os error 2)",
    },
    Damage {
        name: "no bundle",
        apply: |log| fs::remove_file(log.join("tile/entries/000")).unwrap(),
        want: "tile/entries/000: `tile/entries/000`: No such file or directory (os error 2)",
    },
    Damage {
        name: "no last bundle",
        apply: |log| fs::remove_file(log.join("tile/entries/002.p/188")).unwrap(),
        want: "tile/entries/002.p/188: nothing from here on could be compared with the checkpoint",
    },
    Damage {
        name: "no checkpoint",
        apply: |log| fs::remove_file(log.join("checkpoint")).unwrap(),
        want: "checkpoint: there is none: this is no log, or it was removed",
    },
    Damage {
        name: "two entries in another order",
        apply: |log| entries(log, "tile/entries/000", |entries| entries.swap(3, 4)),
        want: "tile/0/000: hash 3 of it is not the one that the entries lead to",
    },
    Damage {
        name: "two bundles swapped, with their tiles",
        apply: |log| {
            for kind in ["tile/entries", "tile/0"] {
                let path = |name| log.join(kind).join(name);
                fs::rename(path("000"), path("x")).unwrap();
                fs::rename(path("001"), path("000")).unwrap();
                fs::rename(path("x"), path("001")).unwrap();
            }
        },
        want: "but the entries lead to",
    },
    Damage {
        name: "another history in all files but the checkpoint",
        apply: |log| {
            let checkpoint = fs::read(log.join("checkpoint")).unwrap();
            rewrite(log, 700, 3);
            fs::write(log.join("checkpoint"), checkpoint).unwrap();
        },
        want: "but the entries lead to",
    },
    Damage {
        name: "another history, signed by the same key",
        apply: |log| rewrite(log, 700, 3),
        want: "the first 300 entries are not those of the older checkpoint `kept`: the log was rewritten or forked",
    },
    Damage {
        name: "rolled back",
        apply: |log| rewrite(log, 299, 0),
        want: "299 entries, but the older checkpoint `kept` has 300: the log was cut or rolled back",
    },
    Damage {
        name: "the end cut off",
        apply: |log| rewrite(log, 699, 0),
        want: "699 entries where at least 700 must be: the log was cut",
    },
    Damage {
        name: "another root in the checkpoint",
        apply: |log| {
            checkpoint(log, |text| {
                text.replace(&root_of(text), "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
            })
        },
        want: "checkpoint: the signature by `example.com/toolgate-log` is not valid for this text",
    },
    Damage {
        name: "another size in the checkpoint",
        apply: |log| checkpoint(log, |text| text.replace("\n700\n", "\n699\n")),
        want: "checkpoint: the signature by `example.com/toolgate-log` is not valid for this text",
    },
    Damage {
        name: "a bit of the signature",
        apply: |log| {
            checkpoint(log, |text| {
                let at = text.len() - 10;
                let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
                format!("{}{other}{}", &text[..at], &text[at + 1..])
            })
        },
        want: "checkpoint: the signature by `example.com/toolgate-log` is not valid for this text",
    },
    Damage {
        name: "no signature",
        apply: |log| checkpoint(log, |text| text.split_once("\n\n").unwrap().0.to_owned() + "\n"),
        want: "checkpoint: not a signed note: no empty line before the signatures",
    },
    Damage {
        name: "a root of its own, signed",
        apply: |log| {
            resign(log, |text| text.replace(&root_of(text), "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="))
        },
        want: "checkpoint: its root is 0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62, but the entries lead to",
    },
    Damage {
        name: "base64 that is not canonical, signed",
        apply: |log| {
            resign(log, |text| {
                let root = root_of(text);
                let next = char::from(root.as_bytes()[42] + 1);
                text.replace(&root, &format!("{}{next}=", &root[..42]))
            })
        },
        want: "checkpoint: not a checkpoint: the third line is no hash of 32 bytes in canonical base64",
    },
    Damage {
        name: "a number that is not canonical, signed",
        apply: |log| resign(log, |text| text.replace("\n700\n", "\n0700\n")),
        want: "checkpoint: not a checkpoint: the second line is no decimal number in canonical form",
    },
    Damage {
        name: "a line more, signed",
        apply: |log| resign(log, |text| format!("{text}extension\n")),
        want: "checkpoint: not a checkpoint: it has not exactly three lines",
    },
    Damage {
        name: "another origin, signed",
        apply: |log| resign(log, |text| text.replace("toolgate-log\n", "other-log\n")),
        want: "checkpoint: the checkpoint is of the log `example.com/other-log`, not `example.com/toolgate-log`",
    },
    Damage {
        name: "signed by another key of the same name",
        apply: |log| {
            let key = SigningKey::from_seed(sample::ORIGIN, &Zeroizing::new([43; 32])).unwrap();
            checkpoint(log, |text| key.sign(&text_of(text)).to_string());
        },
        want: "checkpoint: no signature by `example.com/toolgate-log`",
    },
];

fn edit(log: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(log.join(name)).unwrap();
    change(&mut bytes);
    fs::write(log.join(name), bytes).unwrap();
}

/// Flips the lowest bit of the byte at `at`, or of the last one.
fn flip(log: &Path, name: &str, at: usize) {
    edit(log, name, |bytes| {
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 1;
    });
}

fn entries(log: &Path, name: &str, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    edit(log, name, |bytes| {
        let mut entries: Vec<Vec<u8>> =
            toolgate_ledger::tile::split_framed(bytes).unwrap().into_iter().map(<[u8]>::to_vec).collect();
        change(&mut entries);
        bytes.clear();
        entries.iter().for_each(|entry| assert!(toolgate_ledger::tile::append_framed(entry, bytes)));
    });
}

fn checkpoint(log: &Path, change: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(log.join("checkpoint")).unwrap();
    fs::write(log.join("checkpoint"), change(&text)).unwrap();
}

fn text_of(note: &str) -> String {
    note.split_once("\n\n").unwrap().0.to_owned() + "\n"
}

fn root_of(note: &str) -> String {
    note.lines().nth(2).unwrap().to_owned()
}

/// What somebody who has the key, but not the signer's memory, can do.
fn resign(log: &Path, change: impl FnOnce(&str) -> String) {
    let key = SigningKey::from_seed(sample::ORIGIN, &Zeroizing::new([42; 32])).unwrap();
    checkpoint(log, |note| key.sign(&change(&text_of(note))).to_string());
}

/// Replaces the log by another one of the same key: its first entries, but the one at `other` is another.
fn rewrite(log: &Path, size: u64, other: u64) {
    let scratch = Scratch::new("rewrite");
    let mut signer = Signer::create(&scratch.0, sample::ORIGIN, &Zeroizing::new([42; 32])).unwrap();
    fs::remove_dir_all(log).unwrap();
    let mut publisher = Publisher::open(Folder::new(log), &signer).unwrap();
    let read = |from: u64, max: usize| {
        let mut entries = sample::read(from, max)?;
        if from == 0 && other != 0 {
            let mut record = sample::record(other);
            record.time_ms += 1;
            entries[usize::try_from(other)?] = record.encode()?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(entries)
    };
    publisher.publish(size, read, &mut signer).unwrap();
}

/// A checkpoint signed by the log's key, whatever it says.
pub fn signed(size: u64, root: Hash) -> String {
    let key = SigningKey::from_seed(sample::ORIGIN, &Zeroizing::new([42; 32])).unwrap();
    key.sign(&Checkpoint { origin: sample::ORIGIN.into(), size, root }.text()).to_string()
}
