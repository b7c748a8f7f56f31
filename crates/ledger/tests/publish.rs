//! Publishing: idempotent, continued after a crash at any point, and never a fork.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use common::{Log, Scratch, files, sample};
use toolgate_ledger::signer::{OpenSignerError, SignError, verifier_key};
use toolgate_ledger::{Folder, Hash, Publisher, Signer};
use zeroize::Zeroizing;

const SIZES: [u64; 9] = [0, 1, 2, 255, 256, 257, 511, 512, 1030];

#[test]
fn every_size_verifies_and_extends_all_before() {
    let mut log = Log::new("sizes");
    for size in SIZES {
        log.publish(size);
        let mut options = log.options();
        options.older =
            log.kept.iter().map(|(size, note)| (size.to_string(), note.clone().into_bytes())).collect();
        let report = toolgate_ledger::verify::verify(&log.folder(), &options, |_, _| {});
        assert_eq!(report.findings, [], "size {size}");
        assert_eq!((report.size, report.extends.len()), (size, log.kept.len()));
    }
}

#[test]
fn in_one_step_or_many_the_published_files_are_the_same() {
    let one = Log::with_sizes("one", &[1030]);
    let many = Log::with_sizes("many", &SIZES);
    let (one, many) = (files(&one.path()), files(&many.path()));
    // The many steps leave partial tiles of tiles that are still partial; nothing else differs.
    for file in &one {
        assert!(many.contains(file), "{}", file.0);
    }
    assert!(
        many.iter()
            .all(|(name, _)| !name.starts_with("tile/0/000.p") && !name.starts_with("tile/entries/000.p"))
    );
}

#[test]
fn publishing_goes_on_after_a_restart_and_does_nothing_twice() {
    let Log { scratch, signer, publisher, .. } = Log::with_sizes("restart", &[300]);
    drop((publisher, signer));
    let mut signer = Signer::open(&scratch.0.join("signer")).unwrap();
    let mut publisher = Publisher::open(Folder::new(scratch.0.join("log")), &signer).unwrap();
    let before = files(&scratch.0);
    let nothing =
        |_: u64, _: usize| -> Result<_, String> { Err("asked for entries that are published".to_owned()) };
    publisher.publish(300, nothing, &mut signer).unwrap();
    assert_eq!(files(&scratch.0), before);
    publisher.publish(700, sample::read, &mut signer).unwrap();
    let fresh = Log::with_sizes("fresh", &[300, 700]);
    assert_eq!(files(&scratch.0.join("log")), files(&fresh.path()));
}

#[test]
fn an_interrupted_step_is_done_again() {
    // What a crash may leave: tiles of a later size, some half written; the signer's memory ahead; no checkpoint.
    let whole = Log::with_sizes("whole", &[300, 700]);
    let names: Vec<String> = files(&whole.path()).into_iter().map(|(name, _)| name).collect();
    for cut in 0..=names.len() {
        let mut log = Log::with_sizes("cut", &[300]);
        for (name, bytes) in files(&whole.path()).iter().take(cut) {
            if name != "checkpoint" && !log.path().join(name).exists() {
                fs::create_dir_all(log.path().join(name).parent().unwrap()).unwrap();
                fs::write(log.path().join(name), &bytes[..bytes.len() / 2]).unwrap();
            }
        }
        log.publish(700);
        for file in files(&whole.path()) {
            assert!(files(&log.path()).contains(&file), "{} after {cut} files", file.0);
        }
        assert!(log.verify().is_sound());
    }
}

#[test]
fn the_memory_may_be_ahead_of_the_checkpoint() {
    // Killed between the signer's memory and the checkpoint: the same size, and a larger one, can be published.
    for next in [700, 900] {
        let mut log = Log::with_sizes("ahead", &[300]);
        let old = fs::read(log.path().join("checkpoint")).unwrap();
        log.publish(700);
        fs::write(log.path().join("checkpoint"), old).unwrap();
        let mut publisher = Publisher::open(log.folder(), &log.signer).unwrap();
        publisher.publish(next, sample::read, &mut log.signer).unwrap();
        assert!(log.verify().is_sound());
    }
}

#[test]
fn a_lost_folder_is_derived_again() {
    let mut log = Log::with_sizes("lost", &[300, 700]);
    let before = log.path().join("checkpoint");
    let checkpoint = fs::read(&before).unwrap();
    fs::remove_dir_all(log.path()).unwrap();
    let mut publisher = Publisher::open(log.folder(), &log.signer).unwrap();
    publisher.publish(700, sample::read, &mut log.signer).unwrap();
    assert_eq!(fs::read(before).unwrap(), checkpoint);
    assert!(log.verify().is_sound());
}

#[test]
fn what_the_store_must_not_do() {
    let mut log = Log::with_sizes("store", &[300]);
    let mut refused = |size, read: &dyn Fn(u64, usize) -> Result<Vec<Vec<u8>>, String>| {
        let before = files(&log.scratch.0.join("signer"));
        let error = log.publisher.publish(size, read, &mut log.signer).unwrap_err().to_string();
        assert_eq!(files(&log.scratch.0.join("signer")), before, "nothing was signed");
        error
    };
    assert_eq!(
        refused(299, &|_, _| Ok(vec![])),
        "299 entries are sequenced, but 300 were published before: the store was rolled back or is another log's"
    );
    assert_eq!(refused(301, &|_, _| Ok(vec![])), "the store gave no usable entry 300");
    assert_eq!(refused(301, &|_, _| Ok(vec![vec![]; 2])), "the store gave no usable entry 300");
    assert_eq!(refused(301, &|_, _| Ok(vec![vec![0; 65_536]])), "the store gave no usable entry 300");
    assert_eq!(refused(301, &|_, _| Err("gone".into())), "the sequenced entries could not be read: gone");
    log.publish(301);
    assert!(log.verify().is_sound());
}

#[test]
fn a_rewritten_past_is_not_signed() {
    // Everything but the signer's memory is replaced by another history.
    let mut log = Log::with_sizes("fork", &[300]);
    fs::remove_dir_all(log.path()).unwrap();
    let mut publisher = Publisher::open(log.folder(), &log.signer).unwrap();
    let other = |from: u64, max: usize| sample::read(from + 1, max);
    let error = publisher.publish(400, other, &mut log.signer).unwrap_err().to_string();
    assert!(error.starts_with("refused to sign a fork: 400 entries"), "{error}");
    let error = publisher.publish(300, other, &mut log.signer).unwrap_err().to_string();
    assert!(error.starts_with("refused to sign a fork: 300 entries"), "{error}");
    assert!(!log.path().join("checkpoint").exists());
}

#[test]
fn a_damaged_edge_is_not_built_on() {
    for name in ["tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"] {
        let log = Log::with_sizes("edge", &[300]);
        let mut bytes = fs::read(log.path().join(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(log.path().join(name), bytes).unwrap();
        let error = Publisher::open(log.folder(), &log.signer).unwrap_err().to_string();
        assert!(error.starts_with("the log folder does not fit its own checkpoint"), "{name}: {error}");
    }
}

#[test]
fn a_signer_whose_memory_was_rolled_back_is_not_used() {
    let log = Log::with_sizes("rolled", &[300]);
    let memory = log.scratch.0.join("signer/last");
    let old = fs::read(&memory).unwrap();
    let Log { scratch, mut signer, mut publisher, .. } = log;
    publisher.publish(400, sample::read, &mut signer).unwrap();
    drop(signer);
    fs::write(&memory, old).unwrap();
    let signer = Signer::open(&scratch.0.join("signer")).unwrap();
    let error = Publisher::open(Folder::new(scratch.0.join("log")), &signer).unwrap_err().to_string();
    assert!(error.contains("its memory was rolled back"), "{error}");
}

#[test]
fn the_signer_refuses_what_does_not_extend() {
    let mut log = Log::with_sizes("signer", &[0, 2]);
    let last = log.signer.last().clone();
    let other = Hash::of(b"other");
    assert!(matches!(log.signer.sign(1, other, &[]), Err(SignError::RollBack { size: 1, signed: 2 })));
    assert!(matches!(log.signer.sign(2, other, &[]), Err(SignError::Fork { .. })));
    assert!(matches!(log.signer.sign(3, other, &[]), Err(SignError::Fork { .. })));
    assert!(matches!(log.signer.sign(3, other, &[other, other]), Err(SignError::Fork { .. })));
    assert_eq!(*log.signer.last(), last, "a refusal is not remembered");
    assert_eq!(log.signer.sign(2, last.root, &[]).unwrap(), log.kept[1].1, "the same again is the same");
}

#[test]
fn the_signers_files() {
    let scratch = Scratch::new("files");
    let folder = scratch.0.join("signer");
    assert!(matches!(Signer::open(&folder), Err(OpenSignerError::NoKey(_))));
    let seed = Zeroizing::new([1; 32]);
    assert!(matches!(Signer::create(&folder, "a b", &seed), Err(OpenSignerError::Key { .. })));
    let signer = Signer::create(&folder, "example.com/log", &seed).unwrap();
    assert_eq!(fs::metadata(folder.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(verifier_key(&folder).unwrap(), *signer.verifier());
    assert!(matches!(Signer::open(&folder), Err(OpenSignerError::Busy(_))));
    assert!(matches!(Signer::create(&folder, "example.com/log", &seed), Err(OpenSignerError::Busy(_))));
    drop(signer);
    assert!(matches!(Signer::create(&folder, "example.com/log", &seed), Err(OpenSignerError::Exists(_))));

    let last = fs::read_to_string(folder.join("last")).unwrap();
    for wrong in ["", &last.replace("\n0\n", "\n1x\n"), &last.replace("com/log", "com/other")] {
        fs::write(folder.join("last"), wrong).unwrap();
        assert!(matches!(Signer::open(&folder), Err(OpenSignerError::Memory { .. })), "{wrong:?}");
    }
    fs::remove_file(folder.join("last")).unwrap();
    let error = Signer::open(&folder).unwrap_err().to_string();
    assert!(error.ends_with("so it could sign a fork; restore it from a backup, or write to it the first three lines of the newest checkpoint that anybody holds"), "{error}");
    fs::write(folder.join("last"), &last).unwrap();
    drop(Signer::open(&folder).unwrap());

    fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Signer::open(&folder), Err(OpenSignerError::Readable(_))));
    fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(folder.join("key"), "PRIVATE+KEY+x").unwrap();
    assert!(matches!(Signer::open(&folder), Err(OpenSignerError::Key { .. })));
}

#[test]
fn what_cannot_be_remembered_is_not_signed() {
    let mut log = Log::with_sizes("remember", &[2]);
    let folder = log.scratch.0.join("signer");
    fs::remove_dir_all(&folder).unwrap();
    let error = log.publisher.publish(5, sample::read, &mut log.signer).unwrap_err().to_string();
    assert!(error.starts_with("the signer could not write its memory"), "{error}");
    assert_eq!(fs::read_to_string(log.path().join("checkpoint")).unwrap(), log.kept[0].1);
    assert_eq!(log.signer.last().size, 2);
}
