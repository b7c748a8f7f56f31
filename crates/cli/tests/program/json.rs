//! `--json`: on standard output there are JSON values, one a line, and nothing else, for every command.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::archive::{Layer, Oci, tar};
use crate::home::{Home, read};

const PASSPHRASE: &str = "correct horse battery staple";

/// Runs a command and reads what it printed.
fn values(home: &Home, arguments: &[&str]) -> Vec<Value> {
    let output = home.run(&[arguments, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 2 | 3)), "{arguments:?}: {err}{text}");
    assert!(!text.is_empty(), "{arguments:?} printed nothing: {err}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{arguments:?}: {line}")))
        .collect()
}

#[test]
fn every_command_prints_json_lines_and_nothing_else() {
    let home = Home::new("json");
    let secret = home.write("passphrase", PASSPHRASE).display().to_string();
    let mut done = BTreeSet::new();
    let mut run = |arguments: &[&str]| {
        let words: Vec<&str> = arguments.iter().copied().take_while(|word| !word.starts_with('-')).collect();
        for many in 1..=words.len().min(2) {
            done.insert(words.get(..many).unwrap().join(" "));
        }
        values(&home, arguments)
    };
    let steps = run(&["demo"]);
    assert_eq!((steps.len(), steps[5]["sound"].as_bool()), (6, Some(true)));
    assert_eq!(run(&["init"])[0]["written"], false);
    assert_eq!(run(&["init", "--write"])[0]["written"], true);
    let office =
        format!("[gateway]\ndemo = false\n{}[questions.owner]\npeople = [\"ada\"]\n", Home::office("office"));
    home.config(&office);
    home.policy(
        "@id(\"pay\") @because(\"money\") @ask(\"owner\")\npermit(principal, action == Action::\"office/pay_invoice\", resource);\n",
    );
    let review = run(&["tool", "review"]);
    assert_eq!(review[0].as_array().unwrap().len(), 5);
    assert_eq!(run(&["tool", "accept", "--all"])[0].as_array().unwrap().len(), 5);
    assert_eq!(run(&["tool", "list"])[0].as_array().unwrap().len(), 5);
    assert_eq!(run(&["tool", "remove", "office/send_mail"])[0]["removed"], true);
    let token = run(&["agent", "add", "support"])[0]["token"].as_str().unwrap().to_owned();
    run(&["agent", "list"]);
    run(&["person", "add", "ada", "--passphrase-file", &secret]);
    run(&["person", "add", "grace", "--totp"]);
    run(&["person", "list"]);
    run(&["person", "remove", "grace"]);
    assert_eq!(run(&["policy", "check"])[0]["rules"], 8);
    let pay = json!({ "iban": "DE02120300000000202051", "amount_cents": 4200, "reference": "0815" });
    assert_eq!(
        run(&["policy", "try", "office/pay_invoice", &pay.to_string(), "--agent", "support"])[0]["verdict"],
        "ask"
    );
    let explained = run(&["policy", "explain", "office/pay_invoice", &pay.to_string(), "--agent", "support"]);
    assert_eq!(explained[0]["verdict"], "ask");

    let mut gate = home.up(&["--json"]);
    gate.token = Some(token);
    gate.hello().unwrap();
    for (word, reached) in [("approve", "approved"), ("deny", "denied")] {
        let held = gate.begin("office__pay_invoice", &pay);
        let question = loop {
            if let [only] = run(&["question", "list"])[0].as_array().unwrap().as_slice() {
                break only["question"].as_str().unwrap().to_owned();
            }
        };
        assert_eq!(run(&["question", "show", &question])[0]["state"], "open");
        assert_eq!(run(&[word, &question, "--as", "ada", "--passphrase-file", &secret])[0]["state"], reached);
        assert_eq!(read(held).body.contains("PAID"), word == "approve");
    }
    gate.out.until("denied_by_person");
    for line in gate.out.all().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("`up` printed {line}"));
    }
    drop(gate);

    let found = run(&["log", "search", "--tool", "office/pay_invoice"]);
    let intent =
        found.iter().find(|record| record["kind"] == "intent").unwrap_or_else(|| panic!("{found:?}"));
    let (index, call) =
        (intent["index"].to_string(), intent["body"]["call"]["id"].as_str().unwrap().to_owned());
    run(&["log", "tail"]);
    assert_eq!(run(&["log", "show", &index])[0][0]["values"]["arguments"]["amount_cents"], 4200);
    assert_eq!(run(&["log", "prove", &call])[0]["files"].as_array().unwrap().len(), 6);
    assert_eq!(run(&["log", "prove", &index])[0]["files"].as_array().unwrap().len(), 2);
    assert!(run(&["log", "key"])[0]["key"].is_string());
    assert_eq!(run(&["log", "verify"])[0]["findings"], json!([]));
    assert!(run(&["log", "export"]).iter().all(|line| line["record"].is_object()));
    assert!(run(&["log", "export", "--format", "ocsf"]).iter().all(|line| line["class_uid"].is_number()));
    assert_eq!(run(&["policy", "replay"]).last().unwrap()["judged"], 2);
    assert_ne!(run(&["log", "erase", "--record", &index, "--ground", "a test"])[0]["erased"], 0);
    assert_eq!(run(&["log", "show", &index])[0][0]["values"], Value::Null);
    assert!(home.shown(&["log", "show", &index]).ends_with("\nits values were erased\nexit 0"));
    assert!(!home.shown(&["log", "show", "0"]).contains("erased"), "it never had any");
    assert_eq!(run(&["log", "verify"])[0]["findings"], json!([]), "every proof still holds");
    let cut = "is found only with an older checkpoint: `--old`\n";
    assert!(home.done(&["log", "verify"]).contains(cut));
    fs::copy(home.path().join(".local/state/toolgate/log/checkpoint"), home.path().join("kept")).unwrap();
    let kept = home.path().join("kept").display().to_string();
    let verified = home.done(&["log", "verify", "--old", &kept]);
    assert!(verified.contains("\nextends ") && !verified.contains(cut), "{verified}");
    assert!(run(&["doctor"])[0].is_array());
    run(&["agent", "rotate", "support"]);
    run(&["agent", "remove", "support"]);
    let image = home.path().join("small.tar");
    fs::write(&image, Oci::new(&[Layer::plain(tar().file("etc/release", "of the image").done())]).tar())
        .unwrap();
    assert_eq!(run(&["image", "import", image.to_str().unwrap()])[0]["was_there"], false);
    assert_eq!(run(&["image", "list"])[0]["name"], "small");
    assert_eq!(run(&["image", "verify", "small"])[0]["differences"], json!([]));
    assert_eq!(run(&["image", "remove", "small"])[0]["removed"], true);
    let secret = home.write("secret", "a value of the test").display().to_string();
    let uses = ["--slot", "env:API_KEY", "--tool", "office/*", "--value-file", &secret];
    assert_eq!(run(&[&["secret", "add", "api"], uses.as_slice()].concat())[0]["version"], 1);
    assert_eq!(run(&["secret", "list"])[0][0]["name"], "api");
    assert_eq!(run(&["secret", "show", "api"])[0]["uses"]["tools"], json!(["office/*"]));
    assert_eq!(run(&["secret", "use-where", "api", "--agent", "support"])[0]["secret"], "api");
    let other = home.write("other-secret", "another value of the test").display().to_string();
    assert_eq!(run(&["secret", "rotate", "api", "--value-file", &other])[0]["version"], 2);
    assert_eq!(run(&["secret", "unlock"])[0].as_array().unwrap().len(), 1);
    assert!(run(&["secret", "trust"])[0]["generation"].as_u64().unwrap() > 3);
    home.write("work/notes.txt", &["DB_PASS", "WORD=", "Falcon", "9931!x"].concat());
    assert_eq!(run(&["secret", "scan", "notes.txt"])[0]["kind"], "password");
    assert_eq!(run(&["scrub"])[0]["text"], "");
    assert_eq!(run(&["secret", "providers"])[0][0]["provider"], "aws-secret");
    assert_eq!(run(&["login", "--list"])[0], json!([]));
    assert_eq!(run(&["lease", "list"])[0], json!([]));
    assert_eq!(run(&["lease", "revoke", "--all"])[0]["revoke"], json!([]));
    assert_eq!(run(&["secret", "remove", "api"])[0]["removed"], true);
    run(&["completions", "fish"]);
    run(&["man", "pages"]);

    // Each command was among them, but for those whose output is not theirs: `up` is above, `mcp` speaks MCP there, and
    // `exec` prints what its command does. `logout` is with what ends by it, in `login.rs`.
    let help = home.done(&["--help"]);
    let mut missing = Vec::new();
    for command in crate::help::below(&help) {
        let inner = crate::help::below(&home.done(&[&command, "--help"]));
        let inner = inner.iter().map(|word| format!("{command} {word}"));
        missing.extend(inner.chain([command.clone()]).filter(|name| !done.contains(name)));
    }
    assert_eq!(missing, ["up", "mcp", "exec", "logout"]);
}

#[test]
fn what_goes_wrong_is_not_on_standard_output() {
    let home = Home::new("json-wrong");
    for arguments in [&["log", "tail", "--json"][..], &["agent", "remove", "nobody", "--json"]] {
        let output = home.run(arguments);
        eprintln!("{arguments:?} {}", String::from_utf8_lossy(&output.stdout));
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "));
    }
}
