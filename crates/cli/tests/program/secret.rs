//! `toolgate secret`: what is kept, what is said of it, and what nobody gets to see.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use serde_json::{Value, json};

use crate::home::Home;

/// Put together here, so that it stands in no file.
fn value() -> String {
    ["v", "4", "lue", "0123456789", "of", "the", "test"].concat()
}

const ADD: [&str; 9] = [
    "secret",
    "add",
    "github",
    "--slot",
    "header:Authorization",
    "--host",
    "api.example.com",
    "--tool",
    "github/*",
];

fn error_of(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

fn listed(home: &Home) -> Vec<Value> {
    let text = home.done(&["secret", "list", "--json"]);
    serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone()
}

/// Every file of the state folder, in one.
fn everything(home: &Home) -> Vec<u8> {
    let mut all = Vec::new();
    let mut folders = vec![home.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                all.extend(fs::read(path).unwrap());
            }
        }
    }
    all
}

#[test]
fn a_secret_is_kept_listed_changed_and_removed_and_never_shown() {
    let home = Home::new("secret");
    home.config("[servers.github]\nurl = \"https://api.example.com/mcp\"\nsecrets = [\"github\"]\n");
    let first = said(&home.fed(&ADD, format!("{}\n", value()).as_bytes()));
    assert!(first.contains("A vault was made") && first.contains("vault.key"), "{first}");
    assert!(first.contains("header:authorization: Bearer {}, sent to api.example.com only"), "{first}");
    let all = listed(&home);
    assert_eq!(all[0]["name"], "github");
    assert_eq!(all[0]["uses"]["hosts"], json!(["api.example.com"]));
    assert_eq!(all[0]["servers"], json!(["github"]));
    assert!(home.done(&["secret", "list"]).contains("api.example.com"));
    assert!(home.done(&["secret", "show", "github"]).contains("agents    all of them"));
    said(&home.run(&["secret", "use-where", "github", "--agent", "support"]));
    assert_eq!(listed(&home)[0]["uses"]["agents"], json!(["support"]));
    assert_eq!(listed(&home)[0]["uses"]["tools"], json!(["github/*"]), "what is not named stays");
    let again = error_of(&home.fed(&["secret", "rotate", "github"], value().as_bytes()));
    assert!(again.contains("this is the value that `github` has already"), "{again}");
    said(&home.fed(&["secret", "rotate", "github"], format!("{}x", value()).as_bytes()));
    assert_eq!(listed(&home)[0]["version"], 2);
    let files = everything(&home);
    assert!(!files.windows(value().len()).any(|window| window == value().as_bytes()));
    said(&home.run(&["secret", "remove", "github"]));
    assert_eq!(listed(&home), Vec::<Value>::new());
    let log = home.done(&["log", "tail"]);
    for line in [
        "the vault opens otherwise by tester",
        "secret github added by tester",
        "secret github is good for something else by tester",
        "secret github given another value by tester",
        "secret github removed by tester",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    home.done(&["log", "verify"]);
}

#[test]
fn slips_of_the_pen_are_told_before_a_value_is_asked_for() {
    let home = Home::new("secret-slips");
    for (arguments, what) in [
        (vec!["secret", "add", "x"], "nothing says where the secret goes"),
        (vec!["secret", "add", "x", "--slot", "header:Host", "--tool", "a/*"], "is no place for a secret"),
        (vec!["secret", "add", "x", "--slot", "header:X-Key", "--tool", "a/*"], "no host may have it"),
        (vec!["secret", "add", "x", "--slot", "env:X"], "it serves no tool"),
        (vec!["secret", "add", "x", "--slot", "env:X", "--tool", "a"], "is no tool"),
        (
            vec!["secret", "add", "x", "--slot", "query:k", "--tool", "a/*", "--host", "*.example"],
            "is no host",
        ),
        (vec!["secret", "add", "a b", "--slot", "env:X", "--tool", "a/*"], "secret name `a b` is not"),
        (vec!["secret", "rotate", "x"], "there is no vault"),
        (vec!["secret", "show", "x"], "there is no vault"),
    ] {
        let error = error_of(&home.run(&arguments));
        assert!(
            error.contains(what) && error.contains("hint:") | error.contains("error:"),
            "{arguments:?}: {error}"
        );
    }
    let empty = error_of(&home.fed(&ADD, b"\n"));
    assert!(empty.contains("the value is empty"), "{empty}");
    assert!(error_of(&home.fed(&ADD, &vec![b'x'; 70_000])).contains("longer than 65536 bytes"));
    let short = said(&home.fed(&ADD, b"short"));
    assert!(short.contains("fewer than 8 bytes"), "{short}");
    assert!(error_of(&home.fed(&ADD, b"other value")).contains("there is a secret `github` already"));
    let word = said(&home.fed(&["secret", "rotate", "github"], b"background"));
    assert!(word.contains("looks like a word"), "{word}");
}

#[test]
fn a_passphrase_opens_the_vault_and_a_wrong_one_does_not() {
    let home = Home::new("secret-passphrase");
    said(&home.fed(&ADD, value().as_bytes()));
    let right = home.write("right", "correct horse battery staple\n").display().to_string();
    let wrong = home.write("wrong", "another horse battery staple\n").display().to_string();
    said(&home.run(&["secret", "unlock", "--add-passphrase", "--new-passphrase-file", &right]));
    let gone = said(&home.run(&["secret", "unlock", "--remove", "1"]));
    assert!(gone.contains("vault.key"), "{gone}");
    let ways: Value = serde_json::from_str(&home.done(&["secret", "unlock", "--json"])).unwrap();
    assert_eq!(ways, json!(["a passphrase"]));
    let rotate = |file: &str| {
        let input = format!("{}!", value());
        home.fed(&["secret", "rotate", "github", "--passphrase-file", file], input.as_bytes())
    };
    assert!(error_of(&rotate(&wrong)).contains("the vault does not open with a passphrase"));
    assert_eq!(listed(&home)[0]["version"], 1);
    said(&rotate(&right));
    let key = home.write("key", "0123456789abcdef0123456789abcdef\n").display().to_string();
    let by_command =
        ["secret", "unlock", "--passphrase-file", &right, "--add-command", "--", "/bin/cat", &key];
    said(&home.run(&by_command));
    said(&home.run(&["secret", "use-where", "github", "--agent", "support"]));
    said(&home.run(&["secret", "unlock", "--remove", "2"]));
    let last = error_of(&home.run(&["secret", "unlock", "--remove", "1", "--passphrase-file", &right]));
    assert!(last.contains("this is the only way to unlock the vault"), "{last}");
}

#[test]
fn a_vault_that_was_put_back_is_noticed_until_somebody_calls_it_the_right_one() {
    let home = Home::new("secret-rollback");
    said(&home.fed(&ADD, value().as_bytes()));
    let vault = home.path().join(".local/state/toolgate/vault");
    let old = fs::read(&vault).unwrap();
    said(&home.run(&["secret", "use-where", "github", "--agent", "support"]));
    fs::write(&vault, &old).unwrap();
    let error = error_of(&home.run(&["secret", "use-where", "github", "--agent", "other"]));
    assert!(
        error.contains("put back to an older state") && error.contains("toolgate secret trust"),
        "{error}"
    );
    said(&home.run(&["secret", "trust"]));
    said(&home.run(&["secret", "use-where", "github", "--agent", "other"]));
    assert!(home.done(&["log", "tail"]).contains("the vault was called the right one by tester"));
    // A byte that is another one is no backup.
    let mut other = fs::read(&vault).unwrap();
    let at = other.len() / 2;
    other[at] ^= 1;
    fs::write(&vault, &other).unwrap();
    assert!(error_of(&home.run(&["secret", "trust"])).contains("vault"));
    // Nor is one that somebody else could have written.
    fs::write(&vault, &old).unwrap();
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(error_of(&home.run(&["secret", "trust"])).contains("can be read or written by others"));
}

#[test]
fn a_vault_that_is_gone_is_not_made_anew_in_silence() {
    let home = Home::new("secret-gone");
    said(&home.fed(&ADD, value().as_bytes()));
    fs::remove_file(home.path().join(".local/state/toolgate/vault")).unwrap();
    let error = error_of(&home.fed(&ADD, value().as_bytes()));
    assert!(error.contains("is gone") && error.contains("backup"), "{error}");
}
