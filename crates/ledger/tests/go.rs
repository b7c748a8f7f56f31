//! The suite `go`: a verifier in Go, which shares no code with this crate, accepts its logs and refuses damaged ones.
//!
//! Run with `cargo test -p toolgate-ledger --test go -- --ignored`. It needs Debian's `golang-go` and
//! `golang-golang-x-mod-dev`, and fails if they are not there.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::damage::{DAMAGES, subject};
use common::{Log, Scratch, files, restore, sample};
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

fn build(scratch: &Scratch) -> PathBuf {
    let program = scratch.0.join("go-verifier");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/go-verifier/main.go");
    let built = Command::new("go")
        .args(["build", "-o"])
        .args([&program, &source])
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", scratch.0.join("cache"))
        .output()
        .expect("`go` cannot be started; install golang-go and golang-golang-x-mod-dev");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

/// Runs the verifier. `Err` has what it said.
fn run(program: &Path, log: &Log, arguments: &[&str]) -> Result<(), String> {
    let key = log.signer.verifier().to_string();
    let output =
        Command::new(program).arg("-dir").arg(log.path()).args(["-vkey", &key]).args(arguments).output();
    let output = output.unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
#[ignore = "suite go"]
fn go_accepts_every_size_and_its_proofs() {
    let scratch = Scratch::new("go");
    let program = build(&scratch);
    let mut log = Log::new("go-sizes");
    let mut older = Vec::new();
    for size in [0_u64, 1, 2, 255, 256, 257, 511, 512, 65_793] {
        log.publish(size);
        let kept = scratch.0.join(size.to_string());
        fs::write(&kept, &log.kept.last().unwrap().1).unwrap();
        older.extend(["-old".to_owned(), kept.display().to_string()]);
        let mut arguments: Vec<&str> = older.iter().map(String::as_str).collect();
        let size_text = size.to_string();
        arguments.extend(["-sample", "2000", "-min-size", &size_text, "-max-entry", "4096"]);
        assert_eq!(run(&program, &log, &arguments), Ok(()), "size {size}");
        let more = (size + 1).to_string();
        run(&program, &log, &["-sample", "1", "-min-size", &more]).unwrap_err();
        for index in [0, size / 2, size.saturating_sub(1)].into_iter().filter(|index| *index < size) {
            let (proof, entry) = log.folder().prove(index, &log.trust()).unwrap();
            let (proof_file, leaf) = (scratch.0.join("proof"), scratch.0.join("leaf"));
            fs::write(&proof_file, proof.to_string()).unwrap();
            let paths = [proof_file.display().to_string(), leaf.display().to_string()];
            let arguments = ["-sample", "1", "-proof", &paths[0], "-leaf", &paths[1]];
            fs::write(&leaf, entry).unwrap();
            assert_eq!(run(&program, &log, &arguments), Ok(()), "entry {index} of {size}");
            fs::write(&leaf, "another").unwrap();
            run(&program, &log, &arguments).unwrap_err();
        }
    }
}

#[test]
#[ignore = "suite go"]
fn go_checks_a_receipt_without_the_log() {
    let scratch = Scratch::new("go");
    let program = build(&scratch);
    let log = Log::with_sizes("go-receipt", &[300]);
    let (proof, entry) = log.folder().prove(7, &log.trust()).unwrap();
    let (proof, key) = (proof.to_string(), log.signer.verifier().to_string());
    let [proof_file, leaf_file] = ["proof", "leaf"].map(|name| scratch.0.join(name).display().to_string());
    let receipt = ["-proof", &proof_file, "-leaf", &leaf_file];
    let check = |proof: &str, leaf: &[u8], arguments: &[&str]| {
        fs::write(&proof_file, proof).unwrap();
        fs::write(&leaf_file, leaf).unwrap();
        Command::new(&program).args(["-vkey", &key]).args(arguments).output().unwrap().status.code().unwrap()
    };
    assert_eq!(check(&proof, &entry, &receipt), 0);
    assert_eq!(check(&proof, b"another", &receipt), 1, "the entry");
    assert_eq!(check(&proof.replace("index 7", "index 8"), &entry, &receipt), 1, "the index");
    assert_eq!(check(&proof.replace("\n300\n", "\n299\n"), &entry, &receipt), 1, "the checkpoint");
    assert_eq!(
        check(&proof, &entry, &[&receipt[..], &["-origin", "example.com/other"]].concat()),
        1,
        "the log"
    );
    // What is asked about the log itself is not left unanswered.
    assert_eq!(check(&proof, &entry, &[]), 2);
    for of_log in [["-old", &proof_file], ["-min-size", "1"], ["-sample", "1"], ["-quorum", "1"]] {
        assert_eq!(check(&proof, &entry, &[&receipt[..], &of_log].concat()), 2, "{of_log:?}");
    }
}

#[test]
#[ignore = "suite go"]
fn go_refuses_every_damage() {
    let scratch = Scratch::new("go");
    let program = build(&scratch);
    let log = subject("go-damage");
    let sound = files(&log.path());
    let kept = scratch.0.join("kept");
    fs::write(&kept, &log.kept[0].1).unwrap();
    let kept = kept.display().to_string();
    let arguments = ["-old", &kept, "-min-size", "700"];
    for damage in DAMAGES {
        restore(&log.path(), &sound);
        assert_eq!(run(&program, &log, &arguments), Ok(()), "before: {}", damage.name);
        (damage.apply)(&log.path());
        assert!(run(&program, &log, &arguments).is_err(), "not seen: {}", damage.name);
    }
    restore(&log.path(), &sound);
    let said = run(&program, &log, &["-origin", "example.com/other"]).unwrap_err();
    assert!(said.contains("not \"example.com/other\""), "{said}");
}

#[test]
#[ignore = "suite go"]
fn go_counts_cosignatures() {
    let scratch = Scratch::new("go");
    let program = build(&scratch);
    let log = Log::with_sizes("go-witness", &[300]);
    let note = log.kept[0].1.clone();
    let text = note.split_once("\n\n").unwrap().0.to_owned() + "\n";
    let secret = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let line = |name: &str, time: u64, signed_time: u64| {
        let material = [&[4], secret.verifying_key().as_bytes().as_slice()].concat();
        let id = &Sha256::digest([name.as_bytes(), b"\n", &material].concat())[..4];
        let message = toolgate_ledger::cosignature::ed25519_message(signed_time, &text);
        let signature = secret.sign(message.as_bytes()).to_bytes();
        let bytes = [id, &time.to_be_bytes(), &signature].concat();
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("\u{2014} {name} {}\n", STANDARD.encode(bytes));
        (format!("{name}+{hex}+{}", STANDARD.encode(material)), line)
    };
    let (one, cosigned) = line("w.example/1", 7, 7);
    let (two, cosigned_too) = line("w.example/2", 7, 7);
    let (_, wrong) = line("w.example/1", 8, 7);
    let file = log.path().join("checkpoint");
    let ours = |quorum: usize| {
        let mut trust = log.trust();
        trust.witnesses = [&one, &two].map(|key| key.parse().unwrap()).to_vec();
        trust.quorum = quorum;
        trust.open(&fs::read(&file).unwrap()).is_ok()
    };
    let theirs = |quorum: &str| {
        run(&program, &log, &["-sample", "1", "-witness", &one, "-witness", &two, "-quorum", quorum]).is_ok()
    };
    for (added, enough_for_one) in [("", false), (&cosigned, true), (&wrong, false)] {
        fs::write(&file, format!("{note}{added}")).unwrap();
        assert_eq!((ours(1), theirs("1")), (enough_for_one, enough_for_one), "{added:?}");
    }
    // The same key under two names counts once.
    fs::write(&file, format!("{note}{cosigned}{cosigned_too}")).unwrap();
    assert_eq!((ours(1), theirs("1"), ours(2), theirs("2")), (true, true, false, false));
}

#[test]
#[ignore = "suite go"]
fn go_accepts_the_vectors() {
    // The sample records are what the vectors were made of: their roots are checked by Go through the log itself.
    let log = Log::with_sizes("go-vectors", &[512]);
    let vectors = include_str!("../../../vectors/checkpoints.txt");
    assert!(vectors.contains(&log.kept[0].1), "run the test `vectors`");
    let scratch = Scratch::new("go");
    assert_eq!(run(&build(&scratch), &log, &["-origin", sample::ORIGIN]), Ok(()));
}
