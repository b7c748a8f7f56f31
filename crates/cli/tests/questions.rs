//! A call that a person has to be asked about, from the agent's request to the answer, with the program itself.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]
#![expect(clippy::panic, reason = "a test that cannot go on may stop")]
#![expect(clippy::indexing_slicing, reason = "a member that is not there is null, and compares unequal")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// How often something is looked for before it is given up.
const LOOKS: usize = 600;
/// How long one waits between two looks.
const BETWEEN: Duration = Duration::from_millis(50);

const PASSPHRASE: &str = "correct horse battery staple";

/// An empty home that is gone after the test.
struct Home(PathBuf);

impl Home {
    fn new(name: &str, questions: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toolgate-questions-{name}-{}", std::process::id()));
        let _old = fs::remove_dir_all(&path);
        let home = Self(path);
        let program = env!("CARGO_BIN_EXE_toolgate");
        let config = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n[servers.office]\ncommand = [{program:?}, \"demo-server\"]\n{questions}"
        );
        let rule = "@id(\"payments-are-asked\")\n@because(\"it moves money\")\n@ask(\"owner\")\n\
                    permit(principal, action == Action::\"office/pay_invoice\", resource);\n";
        home.write(".config/toolgate/toolgate.toml", &config);
        home.write(".config/toolgate/policies/rules.cedar", rule);
        home.write("right", PASSPHRASE);
        home.write("wrong", "incorrect horse battery");
        let (review, accept) = (home.run(&["tool", "review"]), home.run(&["tool", "accept", "--all"]));
        for output in [review, accept, home.person("ada")] {
            assert!(output.status.success(), "{}", said(&output));
        }
        home
    }

    fn person(&self, name: &str) -> Output {
        self.run(&["person", "add", name, "--passphrase-file", &self.path("right")])
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_toolgate"), arguments)
    }

    fn command_of(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", &self.0)
            .env("PATH", "/usr/bin:/bin")
            .env("USER", "tester")
            .current_dir(&self.0)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Answers with a passphrase.
    fn answer(&self, word: &str, question: &str, passphrase: &str) -> Output {
        self.run(&[word, question, "--as", "ada", "--passphrase-file", &self.path(passphrase)])
    }

    fn questions(&self) -> Vec<Value> {
        let output = self.run(&["question", "list", "--all", "--json"]);
        serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap()
    }

    /// The open question, once there is one.
    fn asked(&self) -> String {
        for _ in 0..LOOKS {
            if let Some(open) = self.questions().iter().find(|question| question["state"] == "open") {
                return open["question"].as_str().unwrap().to_owned();
            }
            std::thread::sleep(BETWEEN);
        }
        panic!("nothing was asked: {:?}", self.questions())
    }

    fn state(&self, question: &str) -> String {
        let all = self.questions();
        let one = all.iter().find(|one| one["question"] == question).unwrap();
        one["state"].as_str().unwrap().to_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A gate that runs until the test is over.
struct Gate {
    process: Child,
    /// Kept, so that the gate can go on printing.
    _printed: BufReader<std::process::ChildStdout>,
    address: String,
    token: String,
}

impl Gate {
    fn start(home: &Home) -> Self {
        let mut process =
            home.command(&["up", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut printed = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        printed.read_line(&mut line).unwrap();
        let up: Value = serde_json::from_str(&line).unwrap();
        let address = up["url"].as_str().unwrap().trim_start_matches("http://").trim_end_matches("/mcp");
        let token = up["token"].as_str().unwrap().to_owned();
        Self { process, _printed: printed, address: address.to_owned(), token }
    }

    /// Sends one request over a connection of its own; it is closed after the answer.
    fn post(&self, body: &Value, session: Option<&str>) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        let body = body.to_string();
        let session = session.map(|id| format!("Mcp-Session-Id: {id}\r\n")).unwrap_or_default();
        write!(
            stream,
            "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n{session}\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        )
        .unwrap();
        stream
    }

    fn session(&self) -> String {
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        let answer = read(self.post(&hello, None));
        let id = answer
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("mcp-session-id: ").map(str::to_owned))
            .unwrap();
        read(self.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }), Some(&id)));
        id
    }

    /// Begins a call that has to wait for a person.
    fn pay(&self, session: &str, id: u64) -> TcpStream {
        let arguments =
            json!({ "iban": "DE02120300000000202051", "amount_cents": 4200, "reference": "0815" });
        let params = json!({ "name": "office__pay_invoice", "arguments": arguments });
        self.post(
            &json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }),
            Some(session),
        )
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn read(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_yes_is_for_one_call_once_and_a_no_is_final() {
    let home = Home::new("flow", "[questions.owner]\npeople = [\"ada\"]\nwait = \"5m\"\nexpires = \"10m\"\n");
    let gate = Gate::start(&home);
    let session = gate.session();

    let held = gate.pay(&session, 2);
    let first = home.asked();
    let refused = home.answer("approve", &first, "wrong");
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("passphrase"), "{}", said(&refused));
    assert_eq!(home.state(&first), "open", "a wrong passphrase answers nothing");

    // The agent's own user, who has no passphrase and no terminal.
    if cfg!(target_os = "linux") {
        let program = env!("CARGO_BIN_EXE_toolgate");
        let output = home.command_of("setsid", &["--wait", program, "approve", &first]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("there is no terminal"), "{}", said(&output));
        assert!(said(&output).contains("hint: run it in a terminal"), "{}", said(&output));
        assert_eq!(home.state(&first), "open");
    }

    let approved = home.answer("approve", &first, "right");
    assert!(approved.status.success(), "{}", said(&approved));
    let answer = read(held);
    assert!(answer.contains("text/event-stream"), "a call that waits is a stream: {answer}");
    assert!(answer.contains("PAID 4200 cents"), "{answer}");
    assert_eq!(home.state(&first), "used");
    let late = home.answer("approve", &first, "right");
    assert_eq!(late.status.code(), Some(1));
    assert!(said(&late).contains("is used"), "{}", said(&late));

    // The very same call is another call.
    let held = gate.pay(&session, 3);
    let second = home.asked();
    assert_ne!(first, second);
    assert!(home.answer("deny", &second, "right").status.success());
    let answer = read(held);
    assert!(answer.contains("\"isError\":true") && !answer.contains("PAID"), "{answer}");
    let changed_mind = home.answer("approve", &second, "right");
    assert_eq!(changed_mind.status.code(), Some(1), "one no is final");
    assert!(said(&changed_mind).contains("is denied"), "{}", said(&changed_mind));

    drop(gate);
    let verified = home.run(&["log", "verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
}

#[test]
fn one_person_is_no_quorum_of_two() {
    let home = Home::new(
        "quorum",
        "[questions.owner]\npeople = [\"ada\", \"grace\"]\nquorum = 2\nwait = \"5m\"\nexpires = \"10m\"\n",
    );
    assert!(home.person("grace").status.success());
    let gate = Gate::start(&home);
    let held = gate.pay(&gate.session(), 2);
    let question = home.asked();
    assert!(home.answer("approve", &question, "right").status.success());
    let again = home.answer("approve", &question, "right");
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert_eq!(home.state(&question), "open");
    let other = home.run(&["approve", &question, "--as", "grace", "--passphrase-file", &home.path("right")]);
    assert!(other.status.success(), "{}", said(&other));
    assert!(read(held).contains("PAID"));
}

#[test]
fn a_question_that_nobody_answers_is_over() {
    let home =
        Home::new("expired", "[questions.owner]\npeople = [\"ada\"]\nwait = \"1s\"\nexpires = \"10s\"\n");
    let gate = Gate::start(&home);
    let answer = read(gate.pay(&gate.session(), 2));
    assert!(answer.contains("\"isError\":true") && !answer.contains("PAID"), "{answer}");
    let question = home.questions()[0]["question"].as_str().unwrap().to_owned();
    for _ in 0..LOOKS {
        if home.state(&question) == "expired" {
            break;
        }
        std::thread::sleep(BETWEEN);
    }
    let late = home.answer("approve", &question, "right");
    assert_eq!(late.status.code(), Some(1));
    assert!(said(&late).contains("is expired"), "{}", said(&late));
}

#[test]
fn who_cannot_answer_is_told_what_to_do() {
    let home = Home::new(
        "who",
        "[questions.owner]\npeople = [\"ada\", \"grace\"]\nwait = \"1s\"\nexpires = \"10m\"\n",
    );
    assert!(home.person("grace").status.success());
    let gate = Gate::start(&home);
    let answer = read(gate.pay(&gate.session(), 2));
    assert!(answer.contains("\"isError\":true"), "{answer}");
    let question = home.asked();
    let refused = |arguments: &[&str], wanted: &str| {
        let output = home.run(&[&["approve", &question], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said(&output).contains(wanted), "{arguments:?}: {}", said(&output));
    };
    let right = home.path("right");
    let passphrase = ["--passphrase-file", &right];
    refused(&passphrase, "error: several people could answer\nhint: say who: `--as ada` or `--as grace`\n");
    let remove = |name: &str| assert!(home.run(&["person", "remove", name]).status.success());
    remove("grace");
    refused(&["--as", "grace"], "error: person `grace` is not enrolled\nhint: `toolgate person add grace`\n");
    refused(&["--code", "123456"], "error: `ada` answers with a passphrase, not with a code\nhint: ");
    assert!(home.run(&["person", "add", "grace", "--totp"]).status.success());
    let grace = [&["--as", "grace"], &passphrase[..]].concat();
    refused(&grace, "error: `grace` answers with a code, not with a passphrase\nhint: ");
    remove("grace");
    remove("ada");
    refused(
        &passphrase,
        "error: none of those who are asked is enrolled: ada, grace\nhint: `toolgate person add ada`\n",
    );
    assert!(home.person("ada").status.success());
    let approved = home.answer("approve", &question, "right");
    assert!(approved.status.success(), "{}", said(&approved));
    refused(&passphrase, "is approved\nhint: it waits for the agent to repeat the call\n");
}
