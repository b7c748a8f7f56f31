//! The tools of the gate itself: what an agent wants run, runs in a cell of its own, and is gone with it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::archive::{Layer, Oci, tar};
use crate::home::{Gate, Home};

/// What they do is to run code: that is known without being declared.
const POLICY: &str =
    "@id(\"run\") @because(\"it is a test\")\npermit(principal, action in Action::\"execute\", resource);\n";
const BOTH: &str = "[servers.shell]\nbuiltin = \"shell\"\n[servers.code]\nbuiltin = \"code\"\n";

/// A gate with these built-ins, all of them accepted, and an agent that may use them.
fn gate(home: &Home, config: &str) -> Gate {
    home.config(config);
    home.policy(POLICY);
    up(home)
}

/// A gate as it is configured, with all its tools accepted, and an agent.
fn up(home: &Home) -> Gate {
    started(home, |home| home.up(&[]))
}

fn started(home: &Home, start: impl FnOnce(&Home) -> Gate) -> Gate {
    home.done(&["tool", "review"]);
    home.done(&["tool", "accept", "--all"]);
    let token = home.done(&["agent", "add", "support"]);
    let mut gate = start(home);
    gate.token = Some(token.trim().to_owned());
    gate.hello().unwrap();
    gate
}

/// The result of a call.
fn call(gate: &Gate, tool: &str, arguments: Value) -> Value {
    let answer = gate.ask("tools/call", &json!({ "name": tool, "arguments": arguments }));
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"].clone()
}

fn exec(gate: &Gate, arguments: Value) -> Value {
    call(gate, "shell__exec", arguments)
}

fn script(gate: &Gate, script: &str) -> Value {
    exec(gate, json!({ "script": script }))
}

/// What stood in the outcome of the last call.
fn last_outcome(home: &Home) -> Value {
    let tail = home.done(&["log", "tail", "-n", "50", "--json"]);
    let mut records = tail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let outcome = records.rfind(|record| record["kind"] == "outcome");
    outcome.unwrap_or_else(|| panic!("{tail}"))["body"].clone()
}

fn children(gate: &Gate) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", gate.process.id())).unwrap();
    tasks
        .map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap())
        .map(|children| children.split_whitespace().count())
        .sum()
}

#[test]
fn a_command_runs_and_what_came_of_it_is_told_and_written_down() {
    let home = Home::new("builtin");
    let gate = gate(&home, BOTH);
    assert_eq!(gate.tools(), ["code__run", "shell__exec"]);

    let done = exec(
        &gate,
        json!({
            "argv": ["sh", "-c", "cat; cat in/put; echo oops >&2; echo kept > out; printf '\\377' > bytes; pwd; id -u; exit 3"],
            "stdin": "hello ",
            "files": [{ "path": "in/put", "text": "world\n" }],
            "files_out": ["out", "bytes", "none"],
        }),
    );
    assert_eq!(done["isError"], true);
    assert_eq!(
        done["structuredContent"],
        json!({
            "exit_code": 3, "out_of_memory": false, "encoding": "text", "not_utf8": [],
            "stdout": "hello world\n/home/agent\n1000\n", "stderr": "oops\n",
            "files": [
                { "path": "out", "bytes": 5, "text": "kept\n" },
                { "path": "bytes", "bytes": 1, "base64": "/w==" },
                { "path": "none", "missing": "there is no such file" },
            ],
        })
    );
    insta::assert_snapshot!(done["content"][0]["text"].as_str().unwrap(), @r"
    Exit code 3.

    stdout:
    hello world
    /home/agent
    1000


    stderr:
    oops


    file out:
    kept


    file bytes: 1 bytes, in structuredContent

    file none: not there: there is no such file
    ");
    let outcome = last_outcome(&home);
    let cell = &outcome["cell"];
    assert_eq!(
        (&outcome["status"], &cell["per"], &cell["tier"]),
        (&json!("tool_error"), &json!("call"), &json!("native"))
    );
    assert_eq!(
        (&cell["cpu_s"], &cell["processes"]),
        (&json!(60), &json!(128)),
        "those of the profile `tool`"
    );
    assert!(cell["landlock_abi"].as_u64().unwrap() > 0 && cell["peak_bytes"].as_u64().unwrap() > 0, "{cell}");
    let end = &cell["end"];
    assert_eq!((&end["code"], &end["out_of_memory"]), (&json!(3), &json!(false)));
    assert_eq!((&end["bytes_in"], &end["bytes_out"]), (&json!(12), &json!(29 + 5 + 6)), "{end}");
    assert!(
        end["cpu_us"].as_u64().unwrap() > 0 && end["cut"].is_null() && cell["connections"].is_null(),
        "{cell}"
    );

    // Nothing is left of it, and the next one knows nothing of the gate either.
    let done = script(&gate, "ls -A; env | grep -v PWD | cut -d= -f1 | sort | tr '\\n' ' '");
    assert_eq!(done["structuredContent"]["stdout"], "HOME PATH ", "{done}");
    assert_eq!((&done["isError"], &done["structuredContent"]["exit_code"]), (&json!(false), &json!(0)));

    let raw = exec(&gate, json!({ "argv": ["printf", "a\\377b"] }));
    assert_eq!(
        (&raw["structuredContent"]["stdout"], &raw["structuredContent"]["not_utf8"]),
        (&json!("a\u{fffd}b"), &json!(["stdout"]))
    );
    let raw = exec(&gate, json!({ "argv": ["printf", "a\\377b"], "encoding": "base64" }));
    assert_eq!(
        (&raw["structuredContent"]["stdout"], &raw["structuredContent"]["not_utf8"]),
        (&json!("Yf9i"), &json!([]))
    );
    // The script ends where something fails, or is not there.
    for failing in ["false; echo on", "echo $NOTHING"] {
        assert_eq!(script(&gate, failing)["structuredContent"]["stdout"], "", "{failing}");
    }
    drop(gate);
    assert!(home.done(&["log", "verify"]).contains("sound"), "the log is sound");
}

#[test]
fn what_cannot_be_run_is_refused_before_there_is_a_cell() {
    let home = Home::new("builtin-refused");
    let gate = gate(&home, &format!("[gateway]\nmax_message_kib = 16384\n{BOTH}"));
    let large = "x".repeat(200_000);
    let file = |path: &str| json!({ "script": "true", "files": [{ "path": path, "text": "" }] });
    for (arguments, why) in [
        (json!({}), "write either `argv` or `script`"),
        (json!({ "argv": ["true"], "script": "true" }), "write either `argv` or `script`"),
        (json!({ "argv": [] }), "argv"),
        (json!({ "argv": [""] }), "names no program"),
        (json!({ "argv": "true" }), "argv"),
        (json!({ "argv": ["echo", "a\0b"] }), "a NUL character"),
        (json!({ "script": "echo a\0b" }), "a NUL character"),
        (json!({ "argv": ["echo", large] }), "argv"),
        (json!({ "argv": vec!["x"; 1025] }), "argv"),
        (json!({ "argv": vec!["é".repeat(60_000); 20] }), "the command has more than 1048576 bytes"),
        (json!({ "script": "é".repeat(120_000) }), "more than 120000 bytes"),
        (json!({ "script": "true", "cwd": "/" }), "cwd"),
        (json!({ "script": "true", "timeout_ms": 0 }), "timeout_ms"),
        (json!({ "script": "true", "timeout_ms": 60_001 }), "timeout_ms"),
        (json!({ "script": "true", "code": "true" }), "code"),
        (file("../x"), "does not lie below"),
        (file("/etc/x"), "does not lie below"),
        (file("a/../../x"), "does not lie below"),
        (file("a//x"), "does not lie below"),
        (file(""), "does not lie below"),
        (file("a\0b"), "does not lie below"),
        (
            json!({ "script": "true", "files": [{ "path": "a", "text": "", "base64": "" }] }),
            "either `text` or `base64`",
        ),
        (json!({ "script": "true", "files": [{ "path": "a" }] }), "either `text` or `base64`"),
        (json!({ "script": "true", "files": [{ "path": "a", "base64": "*" }] }), "is not base64"),
        (
            json!({ "script": "true", "files": [{ "path": "a", "text": "" }, { "path": "a", "text": "" }] }),
            "is there twice",
        ),
        (json!({ "script": "true", "files": vec![json!({ "path": "a", "text": "" }); 65] }), "files"),
        (json!({ "script": "true", "files_out": ["../x"] }), "does not lie below"),
        (json!({ "script": "true", "files_out": ["/etc/passwd"] }), "does not lie below"),
    ] {
        let shown = arguments.to_string().chars().take(100).collect::<String>();
        let answer = gate.ask("tools/call", &json!({ "name": "shell__exec", "arguments": arguments }));
        let text = answer["result"]["content"][0]["text"].as_str().or(answer["error"]["message"].as_str());
        assert!(text.unwrap().contains(why), "{shown}: {answer}");
        assert!(answer["error"].is_object() || answer["result"]["isError"] == true, "{shown}: {answer}");
    }
    let bigger = "x".repeat(2_300_000);
    let files = json!([{ "path": "a", "text": bigger }, { "path": "b", "base64": "QUJD".repeat(700_000) }]);
    let answer = gate.ask(
        "tools/call",
        &json!({ "name": "shell__exec", "arguments": { "script": "true", "files": files } }),
    );
    assert!(
        answer.to_string().contains("4194304 bytes together is the most")
            || answer.to_string().contains("large"),
        "{answer}"
    );
    assert_eq!(children(&gate), 0, "no cell was made, and nothing that makes cells");
    assert!(last_outcome(&home)["cell"].is_null());

    // A cell finds out the rest: then nothing ran in it.
    for (arguments, why) in [
        (json!({ "argv": ["no-such-program"] }), "Nothing ran: starting `no-such-program`: No such file"),
        (
            json!({ "script": "true", "files": [{ "path": "a", "text": "" }, { "path": "a/b", "text": "" }] }),
            "Nothing ran: the file `a/b`: Not a directory",
        ),
    ] {
        let done = exec(&gate, arguments);
        assert!(done["content"][0]["text"].as_str().unwrap().starts_with(why), "{done}");
        assert_eq!(done["isError"], true);
    }
    let cell = &last_outcome(&home)["cell"];
    assert!(cell["end"].is_null() && cell["per"] == "call", "{cell}");
}

/// Nobody who may not, and nothing but a call, makes a process; not even one that could make cells.
#[test]
fn what_is_not_permitted_makes_no_cell() {
    let home = Home::new("builtin-unasked");
    let mut gate = gate(&home, BOTH);
    gate.tools();
    home.policy("@id(\"none\") @because(\"no\")\nforbid(principal, action == Action::\"shell/exec\", resource) when { context.args has argv && context.args.argv.contains(\"rm\") };\n@id(\"run\") @because(\"a test\")\npermit(principal, action == Action::\"shell/exec\", resource) when { context.args has argv };\n");
    gate.err.until("The new policy is in force");
    let refused = gate.call("shell__exec", &json!({ "argv": ["rm", "-r", "/"] }));
    assert!(refused.contains("It did not run"), "{refused}");
    let refused = gate.call("shell__exec", &json!({ "script": "true" }));
    assert!(refused.contains("It did not run"), "{refused}");
    for (tool, arguments) in
        [("code__run", json!({ "language": "python", "code": "" })), ("shell__sh", json!({}))]
    {
        let refused = gate.call(tool, &arguments);
        assert!(refused.contains("nknown tool"), "{refused}");
    }
    for method in ["prompts/list", "resources/list", "resources/templates/list"] {
        gate.ask(method, &json!({}));
    }
    gate.token = None;
    assert_eq!(gate.hello(), Err(401));
    assert_eq!(children(&gate), 0);
}

#[test]
fn programs_run_in_the_languages_that_the_cell_has() {
    let home = Home::new("builtin-code");
    let only = home.path().join("only");
    fs::create_dir(&only).unwrap();
    std::os::unix::fs::symlink("/usr/bin/python3", only.join("python3")).unwrap();
    // A link that leads to nothing in the cell is no language.
    std::os::unix::fs::symlink("/opt/nowhere/node", only.join("node")).unwrap();
    let config = format!(
        "{BOTH}[servers.one]\nbuiltin = \"code\"\nprofile = \"one\"\n[profiles.one]\nexec = [{only:?}]\nenv = {{ PATH = {only:?} }}\n"
    );
    let gate = gate(&home, &config);
    let listed = gate.ask("tools/list", &json!({}));
    let languages = |name: &str| {
        let tool = listed["result"]["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == name);
        tool.map(|tool| tool["inputSchema"]["properties"]["language"]["enum"].clone())
    };
    assert_eq!(languages("code__run"), Some(json!(["node", "python"])));
    assert_eq!(languages("one__run"), Some(json!(["python"])));

    let run = |language: &str, code: &str, more: Value| {
        let mut arguments = json!({ "language": language, "code": code });
        arguments.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        call(&gate, "code__run", arguments)["structuredContent"].clone()
    };
    let helper =
        json!({ "files": [{ "path": "helper.py", "text": "def twice(n): return 2 * n\n" }], "stdin": "21" });
    let python = "import sys, helper\nprint(helper.twice(int(sys.stdin.read())))\nsys.exit(4)";
    assert_eq!(
        (
            run("python", python, helper)["stdout"].clone(),
            run("python", python, json!({}))["exit_code"].clone()
        ),
        (json!("42\n"), json!(1))
    );
    let helper = json!({ "files": [{ "path": "helper.js", "text": "exports.twice = n => 2 * n" }], "files_out": ["out"] });
    let node = "require('fs').writeFileSync('out', String(require('./helper').twice(21)))";
    assert_eq!(run("node", node, helper)["files"][0]["text"], "42");
    assert_eq!(run("node", "--help", json!({}))["exit_code"], 1, "a program, and no option");
    for arguments in [
        json!({ "language": "ruby", "code": "" }),
        json!({ "code": "" }),
        json!({ "language": "python" }),
        json!({ "argv": ["true"] }),
    ] {
        let refused = gate.ask("tools/call", &json!({ "name": "code__run", "arguments": arguments }));
        assert!(refused["error"].is_object() || refused["result"]["isError"] == true, "{refused}");
    }
}

#[test]
fn what_goes_on_for_too_long_or_takes_too_much_is_stopped() {
    let home = Home::new("builtin-limits");
    let config = "[servers.shell]\nbuiltin = \"shell\"\nprofile = \"small\"\n[profiles.small]\n\
        limits = { time = \"20s\", memory_mib = 64, processes = 20, output_kib = 16 }\n";
    let gate = gate(&home, config);
    let done = exec(
        &gate,
        json!({ "script": "trap '' TERM; (sleep 600 &) ; echo begun; sleep 600", "timeout_ms": 300 }),
    );
    assert_eq!((&done["isError"], &done["structuredContent"]["stopped"]), (&json!(true), &json!("deadline")));
    assert_eq!(
        (&done["structuredContent"]["stdout"], &done["structuredContent"]["exit_code"]),
        (&json!("begun\n"), &Value::Null)
    );
    let cell = &last_outcome(&home)["cell"];
    assert_eq!((&cell["end"]["cut"], &cell["end"]["signal"]), (&json!("deadline"), &json!(9)), "{cell}");

    for flood in ["yes", "yes >&2", "cat /dev/zero"] {
        let done = script(&gate, flood);
        assert_eq!(done["structuredContent"]["stopped"], "output", "{flood}");
        let streams =
            ["stdout", "stderr"].map(|name| done["structuredContent"][name].as_str().unwrap().len());
        assert_eq!(streams.iter().max(), Some(&(16 << 10)), "{flood}");
    }
    assert_eq!(last_outcome(&home)["cell"]["end"]["cut"], "output");

    let bomb = script(&gate, "bomb() { bomb | bomb & }; bomb; sleep 600");
    let stopped = &bomb["structuredContent"];
    assert!(
        stopped["stopped"] == "output"
            || stopped["stopped"] == "deadline"
            || stopped["exit_code"].as_u64() > Some(0),
        "{bomb}"
    );
    let eater = "import sys\na = []\nwhile True: a.append(bytearray(1 << 20))";
    let eaten = exec(&gate, json!({ "argv": ["python3", "-c", eater] }));
    assert_eq!(eaten["isError"], true, "{eaten}");
    assert_eq!(script(&gate, "echo still here")["structuredContent"]["stdout"], "still here\n");
}

#[test]
fn only_plain_files_come_back_and_nothing_goes_in_through_a_link() {
    let home = Home::new("builtin-files");
    let work = home.path().join("project");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("kept"), "as it was").unwrap();
    fs::write(home.path().join("secret"), "a secret of the host").unwrap();
    std::os::unix::fs::symlink("..", work.join("up")).unwrap();
    std::os::unix::fs::symlink("../secret", work.join("leads")).unwrap();
    let config = format!("[servers.shell]\nbuiltin = \"shell\"\nworkspace = {work:?}\n");
    let gate = gate(&home, &config);
    let told = gate.ask("tools/list", &json!({}))["result"]["tools"][0]["description"].clone();
    assert!(told.as_str().unwrap().contains(&format!("It works in a copy of {}", work.display())), "{told}");
    let done = exec(
        &gate,
        json!({
            "script": "pwd; cat kept; echo changed > kept; ln -s kept link; mkfifo fifo; mkdir folder; truncate -s 5M large; echo x > folder/x",
            "files_out": ["kept", "folder/x", "link", "leads", "up/secret", "fifo", "folder", "large"],
        }),
    );
    assert_eq!(done["structuredContent"]["stdout"], format!("{}\nas it was", work.display()));
    let files: Vec<_> = done["structuredContent"]["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["text"].as_str().or(file["missing"].as_str()).unwrap().to_owned())
        .collect();
    let no_file = "it is no plain file, or a link leads there";
    assert_eq!(files[..7], ["changed\n", "x\n", no_file, no_file, no_file, no_file, no_file]);
    assert!(files[7].starts_with("it has 5242880 bytes, and 4194"), "{}", files[7]);
    assert_eq!(fs::read_to_string(work.join("kept")).unwrap(), "as it was", "changes are dropped");

    for (path, why) in [
        ("up/secret", "Not a directory"),
        ("up", "something that is no file"),
        ("leads", "something that is no file"),
    ] {
        let done =
            exec(&gate, json!({ "script": "true", "files": [{ "path": path, "text": "overwritten" }] }));
        assert!(done["content"][0]["text"].as_str().unwrap().contains(why), "{path}: {done}");
    }
    assert_eq!(fs::read_to_string(home.path().join("secret")).unwrap(), "a secret of the host");
}

/// A folder that a call writes to directly, with a pipe in it: it ends for the reader when nobody of the cell is left.
fn with_pipe(home: &Home) -> (String, std::path::PathBuf) {
    let work = home.path().join("shared");
    fs::create_dir(&work).unwrap();
    let pipe = work.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    (
        format!("[servers.shell]\nbuiltin = \"shell\"\nworkspace = {work:?}\nworkspace_mode = \"write\"\n"),
        pipe,
    )
}

/// Waits until the call is there, and gives what ends with it.
fn begun(pipe: &Path) -> File {
    let mut pipe = File::open(pipe).unwrap();
    let mut word = [0; 3];
    pipe.read_exact(&mut word).unwrap();
    pipe
}

/// Waits until nobody of the cell is left.
fn ended(mut pipe: File) {
    assert_eq!(pipe.read_to_end(&mut Vec::new()).unwrap(), 0);
}

const STAYS: &str =
    "exec 3> pipe; (trap '' TERM HUP INT; while :; do sleep 600; done) & echo up >&3; sleep 600";

#[test]
fn a_call_that_is_not_wanted_any_more_leaves_nothing() {
    let home = Home::new("builtin-cancelled");
    let (config, pipe) = with_pipe(&home);
    let mut gate = gate(&home, &config);
    let stays = json!({ "script": STAYS });

    // By a notification.
    let stream = gate.begin("shell__exec", &stays);
    let running = begun(&pipe);
    gate.post(
        &json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 3 } }),
    );
    ended(running);
    drop(stream);
    gate.out.until("cancelled");
    let end = last_outcome(&home)["cell"]["end"].clone();
    assert_eq!((&end["cut"], &end["signal"]), (&json!("unwanted"), &json!(9)));

    // By hanging up, which says it in the modern era.
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    let params = json!({ "name": "shell__exec", "arguments": stays, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": params }).to_string();
    let mut stream = TcpStream::connect(&gate.host).unwrap();
    write!(
        stream,
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n\
         Mcp-Name: shell__exec\r\nContent-Length: {}\r\n\r\n{body}",
        gate.host,
        gate.token.as_ref().unwrap(),
        body.len()
    )
    .unwrap();
    let running = begun(&pipe);
    drop(stream);
    ended(running);

    // By the end of the session.
    let stream = gate.begin("shell__exec", &stays);
    let running = begun(&pipe);
    assert!(gate.end_session() < 300);
    ended(running);
    drop(stream);

    // By the end of the gate, in whatever way it comes.
    gate.hello().unwrap();
    let stream = gate.begin("shell__exec", &stays);
    let running = begun(&pipe);
    gate.process.kill().unwrap();
    ended(running);
    drop(stream);
}

#[test]
fn a_gate_that_stops_takes_its_calls_along() {
    let home = Home::new("builtin-stopped");
    let (config, pipe) = with_pipe(&home);
    let mut gate = gate(&home, &config);
    let stream = gate.begin("shell__exec", &json!({ "script": STAYS }));
    let running = begun(&pipe);
    let stopped = Command::new("kill").args(["-TERM", &gate.process.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    ended(running);
    drop(stream);
    assert!(gate.process.wait().unwrap().success());
}

#[test]
fn what_is_written_meanwhile_is_told_as_progress() {
    let home = Home::new("builtin-progress");
    let (config, pipe) = with_pipe(&home);
    let gate = gate(&home, &config);
    let arguments = json!({ "script": "echo first; cat pipe; echo last" });
    let params =
        json!({ "name": "shell__exec", "arguments": arguments, "_meta": { "progressToken": "p-7" } });
    let body = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params });
    let mut stream = gate.send(&body);
    let mut seen = String::new();
    let mut chunk = [0; 4096];
    while !seen.contains("first") {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    assert!(!seen.contains("last") && !seen.contains("structuredContent"), "{seen}");
    let event = seen
        .lines()
        .find_map(|line| line.strip_prefix("data: ").filter(|data| data.contains("first")))
        .unwrap();
    let told: Value = serde_json::from_str(event).unwrap();
    assert_eq!(told["params"], json!({ "progressToken": "p-7", "progress": 6, "message": "first\n" }));
    fs::OpenOptions::new().write(true).open(&pipe).unwrap().write_all(b"between\n").unwrap();
    stream.read_to_string(&mut seen).unwrap();
    let last = seen.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let answer: Value = serde_json::from_str(last).unwrap();
    assert_eq!(answer["result"]["structuredContent"]["stdout"], "first\nbetween\nlast\n");
}

/// Connections are counted in the outcome; who they went to is told by the rules alone.
#[test]
fn connections_are_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _gone = (&stream).write_all(b"hello\n").and_then(|()| stream.shutdown(Shutdown::Write));
            let _rest = (&stream).read_to_end(&mut Vec::new());
        }
    });
    let home = Home::new("builtin-net");
    let config = format!(
        "[servers.shell]\nbuiltin = \"shell\"\nprofile = \"out\"\n[profiles.out]\nlimits = {{ time = \"20s\" }}\nnet = [\"here.localhost:{port},private\"]\n"
    );
    let gate = gate(&home, &config);
    let code = format!(
        "import socket\nfor name, port in [('here.localhost', {port}), ('here.localhost', 1), ('elsewhere.example', 443)]:\n  try: print(socket.create_connection((name, port)).makefile().read(), end='')\n  except OSError: print('no')"
    );
    let done = exec(&gate, json!({ "argv": ["python3", "-c", code] }));
    assert_eq!(done["structuredContent"]["stdout"], "hello\nno\nno\n", "{done}");
    let connections = &last_outcome(&home)["cell"]["connections"];
    assert_eq!((&connections["made"], &connections["failed"]), (&json!(1), &json!(0)), "{connections}");
    assert!(connections["refused"].as_u64().unwrap() >= 2, "{connections}");
}

/// A server that says how often it was called, and how often it was started as far as it can tell.
const COUNTS: &str = r#"n=0; echo . >> /tmp/starts
while read -r line; do
id=$(printf '%s' "$line" | sed -n 's/.*"id":\([^,}]*\).*/\1/p')
case $line in
*'"initialize"'*) say='"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
*'"tools/list"'*) say='"result":{"tools":[{"name":"count","inputSchema":{"type":"object"}}]}' ;;
*'"tools/call"'*) n=$((n + 1)); say='"result":{"content":[{"type":"text","text":"call '$n', start '$(wc -l < /tmp/starts)'"}]}' ;;
*) say='"error":{"code":-32601,"message":"Method not found"}' ;;
esac
[ -n "$id" ] && printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$say"
done"#;

#[test]
fn a_server_can_have_a_cell_for_each_call() {
    let home = Home::new("builtin-per-call");
    let server = |name: &str, profile: &str| {
        format!("[servers.{name}]\ncommand = [\"sh\", \"-c\", '''{COUNTS}''']\nprofile = \"{profile}\"\n")
    };
    home.config(
        &(server("each", "fresh") + &server("stays", "server") + "[profiles.fresh]\nper = \"call\"\n"),
    );
    home.policy("@id(\"all\") @because(\"a test\")\npermit(principal, action, resource);\n");
    let gate = up(&home);
    for (tool, want, per) in [
        ("each__count", "call 1, start 1", "call"),
        ("each__count", "call 1, start 1", "call"),
        ("stays__count", "call 1, start 1", "session"),
        ("stays__count", "call 2, start 1", "session"),
        ("each__count", "call 1, start 1", "call"),
    ] {
        assert_eq!(gate.call(tool, &json!({})), want, "{tool}");
        let cell = &last_outcome(&home)["cell"];
        assert_eq!((&cell["per"], &cell["tier"]), (&json!(per), &json!("native")), "{cell}");
        assert!(cell["end"].is_null() && cell["memory_bytes"].as_u64() == Some(2 << 30), "{cell}");
    }
    let doctor = home.done(&["doctor", "--cell", "fresh"]);
    assert!(doctor.contains("a server in it is started for each call"), "{doctor}");
}

#[test]
fn what_is_accepted_is_what_a_call_can_reach() {
    let home = Home::new("builtin-pinned");
    let gate = gate(&home, BOTH);
    assert_eq!(script(&gate, "echo ran")["structuredContent"]["stdout"], "ran\n");
    let shown = home.done(&["doctor"]);
    assert!(
        shown.contains(
            "`shell/exec` is a part of the gate; each call runs in a cell of its own, of the profile `tool`"
        ),
        "{shown}"
    );
    assert!(home.done(&["tool", "list"]).contains("execute"));
    // More than was accepted is not offered before somebody has looked.
    home.config(&format!("{BOTH}[profiles.tool]\nread = [\"/usr/share\"]\n"));
    gate.err.until("Server `shell` is reached otherwise");
    let refused = gate.call("shell__exec", &json!({ "script": "echo ran" }));
    assert!(!refused.contains("ran"), "{refused}");
    gate.err.until("changed a tool, which is refused until `toolgate tool accept`");
    let review = home.done(&["tool", "review", "shell"]);
    assert!(review.contains("changed") && review.contains("It can read /usr/share."), "{review}");

    home.config("[servers.shell]\nbuiltin = \"shell\"\nworkspace = \"nowhere\"\n");
    let shown = home.shown(&["doctor"]);
    assert!(
        shown.contains("`shell/exec` works in `~/.config/toolgate/nowhere`, which is no folder"),
        "{shown}"
    );
}

/// What a call connects to, and what it may not, is on the log, each with the call's number.
#[test]
fn connections_of_a_call_are_written_down() {
    let home = Home::new("builtin-net");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(b"you are welcome").unwrap();
    });
    let config = format!(
        "[servers.shell]\nbuiltin = \"shell\"\nprofile = \"web\"\n[profiles.web]\nnet = [\"host.internal:{port},private\"]\n"
    );
    let gate = gate(&home, &config);
    let ask = format!("exec 3<>/dev/tcp/host.internal/{port} && cat <&3; exec 3<>/dev/tcp/evil.example/443");
    let done = exec(&gate, json!({ "argv": ["bash", "-c", ask] }));
    server.join().unwrap();
    assert_eq!(done["structuredContent"]["stdout"], "you are welcome", "{done}");
    // A connection is told when it has ended, which may be after the answer.
    let told = loop {
        let tail = home.done(&["log", "tail", "-n", "50", "--json"]);
        let records = tail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let told: Vec<Value> = records.filter(|record| record["kind"] == "connection").collect();
        if told.len() == 2 {
            break told;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let call = &last_outcome(&home)["call"];
    let of = |status: &str| {
        let found = told.iter().find(|record| record["body"]["status"] == status);
        found.unwrap_or_else(|| panic!("{told:?}"))["body"].clone()
    };
    let (connected, refused) = (of("connected"), of("refused"));
    assert_eq!((&connected["to"], &connected["port"]), (&json!("host.internal"), &json!(port)));
    assert_eq!((&connected["down"], &connected["up"]), (&json!(15), &json!(0)));
    assert_eq!((&refused["to"], &refused["why"]), (&json!("evil.example"), &json!("no rule has this name")));
    for body in [connected, refused] {
        assert_eq!((&body["call"], &body["server"], &body["times"]), (call, &json!("shell"), &json!(1)));
    }
    let shown = home.done(&["log", "tail", "-n", "50"]);
    assert!(
        shown.contains(&format!("connected  shell to host.internal:{port}, 0 bytes there, 15 back")),
        "{shown}"
    );
    assert!(shown.contains("connection refused  shell to evil.example: no rule has this name"), "{shown}");
    drop(gate);
    home.done(&["log", "verify"]);
}

/// Calls a tool that cannot be used here: the agent is told that nothing ran, and the operator why.
fn not_sent(home: &Home, gate: &Gate, tool: &str, why: &str) {
    let done = call(gate, tool, json!({ "argv": ["true"] }));
    assert_eq!(done["isError"], true, "{tool}");
    assert!(done["content"][0]["text"].as_str().unwrap().contains("the call was not sent"), "{done}");
    assert_eq!(last_outcome(home)["status"], "not_sent", "{tool}");
    gate.err.until(why);
}

#[test]
fn without_namespaces_built_ins_do_what_that_tier_can() {
    let home = Home::new("builtin-bare");
    let folder = home.path().join("work/in");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a"), "kept ").unwrap();
    let mut config = "[profiles.least]\ntier = \"landlock-only\"\n\
        [profiles.out]\ntier = \"landlock-only\"\nnet = [\"a.example:443\"]\n\
        [servers.usual]\nbuiltin = \"shell\"\n[servers.out]\nbuiltin = \"shell\"\nprofile = \"out\"\n\
        [servers.shell]\nbuiltin = \"shell\"\nprofile = \"least\"\n\
        [servers.code]\nbuiltin = \"code\"\nprofile = \"least\"\n"
        .to_owned();
    for mode in ["overlay", "read", "write"] {
        config += &format!(
            "[servers.{mode}]\nbuiltin = \"shell\"\nprofile = \"least\"\nworkspace = \"{}\"\nworkspace_mode = \"{mode}\"\n",
            folder.display()
        );
    }
    home.config(&config);
    home.policy(POLICY);
    let gate = started(&home, Home::up_without_namespaces);

    let done = exec(
        &gate,
        json!({
            "argv": ["sh", "-c", "cat; cat in/put; ./run; echo kept > out; exit 3"],
            "stdin": "hello ",
            "files": [
                { "path": "in/put", "text": "world\n" },
                { "path": "run", "text": "#!/bin/sh\necho ran\n", "executable": true },
            ],
            "files_out": ["out", "none"],
        }),
    );
    let said = &done["structuredContent"];
    assert_eq!((&said["stdout"], &said["exit_code"]), (&json!("hello world\nran\n"), &json!(3)), "{done}");
    assert_eq!(said["files"][0], json!({ "path": "out", "bytes": 5, "text": "kept\n" }));
    assert_eq!(said["files"][1]["missing"], "there is no such file");
    assert_eq!(last_outcome(&home)["cell"]["tier"], "landlock_only");
    // Nothing is left of it, nothing of the host is read, and nobody is reached.
    let done = script(&gate, "ls -A; cat /etc/shadow || true; echo > /tmp/x || echo no");
    let said = &done["structuredContent"];
    assert_eq!(said["stdout"], "no\n", "{done}");
    assert!(said["stderr"].as_str().unwrap().contains("/etc/shadow: Permission denied"), "{done}");
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!(
        "import socket\ntry: socket.create_connection({:?})\nexcept OSError as e: print(e.strerror)",
        port.local_addr().unwrap()
    );
    let connect = connect.replace("127.0.0.1:", "(\"127.0.0.1\",").replace(")\nexcept", "))\nexcept");
    let done = call(&gate, "code__run", json!({ "language": "python", "code": connect }));
    assert_eq!(done["structuredContent"]["stdout"], "Operation not permitted\n", "{done}");
    let stopped = exec(&gate, json!({ "script": "sleep 1000 & sleep 1000", "timeout_ms": 300 }));
    assert_eq!(stopped["structuredContent"]["stopped"], "deadline", "{stopped}");

    let put = json!({ "script": "cat a put; echo new > b", "files": [{ "path": "put", "text": "mine" }], "files_out": ["b"] });
    let done = call(&gate, "write__exec", put);
    assert_eq!(done["structuredContent"]["stdout"], "kept mine", "{done}");
    assert_eq!(done["structuredContent"]["files"][0]["text"], "new\n", "{done}");
    assert_eq!(fs::read_to_string(folder.join("b")).unwrap(), "new\n");
    let done = call(&gate, "read__exec", json!({ "script": "cat a; echo x > c" }));
    assert!(done["structuredContent"]["stderr"].as_str().unwrap().contains("cannot create c"), "{done}");
    assert_eq!(done["structuredContent"]["stdout"], "kept ");

    not_sent(&home, &gate, "overlay__exec", "the tier `landlock-only` cannot keep changes of a folder apart");
    not_sent(&home, &gate, "out__exec", "the tier `landlock-only` cannot let a cell reach hosts by name");
    not_sent(&home, &gate, "usual__exec", "the cell failed at its namespaces: ");
}

#[test]
fn on_an_image_built_ins_have_what_it_has() {
    let home = Home::new("builtin-image");
    let mut layer = tar().file("etc/release", "of the image").mode(0o755);
    let told = Command::new("ldd").arg("/bin/cat").output().unwrap().stdout;
    let told = String::from_utf8(told).unwrap();
    for path in told.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/cat"]) {
        layer = layer.long_bytes(path, &fs::read(path).unwrap());
    }
    let file = home.path().join("small.tar");
    fs::write(&file, Oci::new(&[Layer::gzip(layer.done())]).tar()).unwrap();
    home.done(&["image", "import", file.to_str().unwrap()]);
    let gate = gate(
        &home,
        "[profiles.small]\nimage = \"small\"\n[servers.shell]\nbuiltin = \"shell\"\nprofile = \"small\"\n\
        [servers.code]\nbuiltin = \"code\"\nprofile = \"small\"\n",
    );
    let put = json!([{ "path": "in/put", "text": ", and mine" }]);
    let done = exec(
        &gate,
        json!({ "argv": ["cat", "/etc/release", "in/put"], "files": put, "files_out": ["in/put"] }),
    );
    let said = &done["structuredContent"];
    assert_eq!(said["stdout"], "of the image, and mine", "{done}");
    assert_eq!(said["files"][0]["text"], ", and mine");
    // It has no language that programs are written in, and none of the host's programs is there.
    assert_eq!(gate.tools(), ["shell__exec"]);
    for (tool, arguments, program) in [
        ("shell__exec", json!({ "argv": ["/usr/bin/env"] }), "/usr/bin/env"),
        ("shell__exec", json!({ "script": "true" }), "/bin/sh"),
    ] {
        let text = call(&gate, tool, arguments)["content"][0]["text"].as_str().unwrap().to_owned();
        assert!(text.starts_with("Nothing ran: ") && text.contains(program), "{text}");
    }
    drop(gate);
    home.done(&["image", "remove", "small"]);
}
