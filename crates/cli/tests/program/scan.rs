//! `toolgate secret scan` and `toolgate scrub`: what they find, what they say of it, and what they leave alone.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::home::Home;

/// Put together here, so that it stands in no file.
fn token() -> String {
    ["gh", "p_", "0aB9cD8eF7gH6iJ5kL4m", "N3oP2qR1sT0uV9wX"].concat()
}

fn texts(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
#[expect(clippy::string_slice, reason = "a token is ASCII")]
fn a_folder_is_looked_through_and_no_value_is_shown() {
    let home = Home::new("scan");
    let work = home.path().join("work");
    for folder in ["src", ".git"] {
        fs::create_dir_all(work.join(folder)).unwrap();
    }
    let token = token();
    fs::write(work.join("src/a.rs"), format!("// one\nconst KEY: &str = \"{token}\";\n")).unwrap();
    fs::write(work.join(".git/config"), format!("token = {token}")).unwrap();
    fs::write(work.join("program"), format!("\0{token}")).unwrap();
    std::os::unix::fs::symlink("a.rs", work.join("src/b.rs")).unwrap();
    let said = json!({ "type": "tool_result", "content": [{ "text": format!("got {token}") }] });
    fs::write(work.join("talk.jsonl"), format!("{}\n{said}\n", json!({ "type": "user" }))).unwrap();
    let (out, err, code) = texts(&home.run(&["secret", "scan", "."]));
    assert_eq!(code, Some(3), "{err}");
    assert!(out.contains("./src/a.rs:2  github-pat  "), "{out}");
    assert!(out.contains("./talk.jsonl:2 content[0].text  github-pat  "), "{out}");
    assert!(!out.contains(&token[8..]) && !err.contains(&token[8..]), "a value is shown: {out}{err}");
    assert!(err.contains("1 file (binary)") && err.contains("1 file (links and devices)"), "{err}");
    assert!(err.contains("Found 2 secrets in 2 files"), "{err}");

    let (out, _, _) = texts(&home.run(&["secret", "scan", ".", "--json"]));
    let findings: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(findings[0]["fingerprint"], findings[1]["fingerprint"], "the same value");
    assert_eq!((findings[0]["line"].as_u64(), findings[0]["at"].as_str()), (Some(2), None));

    fs::write(work.join("src/a.rs"), "const KEY: &str = env!(\"KEY\");\n").unwrap();
    let (out, err, code) = texts(&home.run(&["secret", "scan", "src"]));
    assert_eq!((out.as_str(), code), ("", Some(0)), "{err}");
}

#[test]
fn what_could_not_be_looked_into_is_no_success() {
    let home = Home::new("scan-large");
    fs::write(home.path().join("work/large"), vec![b'a'; (1 << 20) + 1]).unwrap();
    let (_, err, code) = texts(&home.run(&["secret", "scan", "--max-size", "1", "."]));
    assert!(err.contains("1 file (larger than --max-size)") && code == Some(1), "{err}");
    let (_, err, code) = texts(&home.run(&["secret", "scan", "missing"]));
    assert!(err.contains("could not read `missing`") && code == Some(1), "{err}");
    let (_, err, code) = texts(&home.run(&["secret", "scan", "--pii", "cards", "."]));
    assert!(err.contains("`pii.cards` is no class") && code == Some(1), "{err}");
}

#[test]
fn standard_input_is_cleaned() {
    let home = Home::new("scrub");
    let token = token();
    let input = json!({ "name": "ada", "login": { "password": "Falcon-9931x" }, "note": format!("use {token}!"), "card": "4111 1111 1111 1111" });
    let (out, err, code) = texts(&home.fed(&["scrub"], input.to_string().as_bytes()));
    assert_eq!(code, Some(0), "{err}");
    let clean: Value = serde_json::from_str(&out).unwrap();
    assert!(!out.contains(&token) && !out.contains("9931"), "{out}");
    assert!(clean["login"]["password"].as_str().unwrap().starts_with("[password#"), "{out}");
    assert_eq!(
        (&clean["name"], &clean["card"]),
        (&json!("ada"), &input["card"]),
        "what was not asked for stays"
    );
    assert!(err.contains("     1  github-pat") && err.contains("Removed 2 values."), "{err}");
    let (out, _, _) = texts(&home.fed(&["scrub", "--pii", "card"], input.to_string().as_bytes()));
    assert!(out.contains("[pii.card#") && !out.contains("4111"), "{out}");
    let (out, _, _) = texts(&home.fed(&["scrub"], b"nothing here, \xff either\n"));
    assert!(out.starts_with("nothing here, "), "{out}");
    let (out, _, code) = texts(&home.fed(&["secret", "scan", "-"], format!("x\n{token}\n").as_bytes()));
    assert!(out.starts_with("-:2  github-pat") && code == Some(3), "{out}");
    let (out, err, code) = texts(&home.fed(&["scrub"], b"{\"pin\": 4821}"));
    assert!(out.is_empty() && code == Some(1) && err.contains("is no string"), "{out}{err}");
    let long = [b'a'].repeat((1 << 20) + 1);
    let (out, err, code) = texts(&home.fed(&["scrub", "--max-size", "1"], &long));
    assert_eq!((out.as_str(), code), ("", Some(1)), "{err}");
    assert!(err.contains("standard input has more than 1 MiB"), "{err}");
}

#[test]
fn rules_of_the_configuration_count() {
    let home = Home::new("scan-rules");
    let text = "the badge acme-0123abcd is lost\n";
    let (out, err, code) = texts(&home.fed(&["scrub"], text.as_bytes()));
    assert_eq!((out.as_str(), code), (text, Some(0)), "without a rule it is nothing: {err}");

    let rule = "[scrub.rules.acme-badge]\nprefix = \"acme-\"\ncharset = \"a-f0-9\"\nlength = 8\n";
    home.config(&format!("{rule}examples = [\"acme-89abcdef\"]\n"));
    let (out, err, code) = texts(&home.fed(&["scrub"], text.as_bytes()));
    assert!(out.starts_with("the badge [acme-badge#") && out.ends_with("] is lost\n"), "{out}");
    assert!(err.contains("     1  acme-badge") && code == Some(0), "{err}");
    let (out, err, code) = texts(&home.fed(&["secret", "scan", "-"], text.as_bytes()));
    assert!(out.starts_with("-:1  acme-badge  ") && !out.contains("0123abcd"), "{out}");
    assert_eq!(code, Some(3), "{err}");

    home.config(rule);
    for command in [["scrub", "--json"].as_slice(), &["secret", "scan", "-"]] {
        let (out, err, code) = texts(&home.fed(command, text.as_bytes()));
        assert_eq!((out.as_str(), code), ("", Some(1)), "a broken rule is not left out: {err}");
        assert!(err.contains("acme-badge") && err.contains("example"), "{err}");
    }
}
