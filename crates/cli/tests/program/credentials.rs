//! Credentials on their way to servers, and never to agents: the vault's process and the credential proxy, as a gate uses them.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::home::{Gate, Home};

/// Put together here, so that it stands in no file.
pub(crate) fn value(which: &str) -> String {
    ["tg", which, "Xq7vN2", "0e5bW9aK", "Lr31"].join("_")
}

const POLICY: &str = "@id(\"all\") @because(\"it is a test\")\npermit(principal, action, resource);\n";

/// An MCP server over HTTP that says whatever it was told, in many spellings.
struct Echo {
    port: u16,
    /// The heads of the requests that came.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || while answer(&stream, &noted).is_some() {});
            }
        });
        Self { port, heads }
    }

    fn heads(&self) -> String {
        self.heads.lock().unwrap().join("\n")
    }
}

/// Answers one request.
fn answer(stream: &TcpStream, noted: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
        line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
    };
    let length: usize = header("content-length").unwrap_or_default().parse().unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let secret = header("authorization").unwrap_or_default();
    let secret = secret.strip_prefix("Bearer ").unwrap_or_default().to_owned();
    noted.lock().unwrap().push(head.clone());
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut out = stream;
    let mut reply = |status: &str, kind: &str, more: &str, body: &str| {
        write!(
            out,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()
    };
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }).to_string();
    match asked["method"].as_str() {
        Some("initialize") => {
            let info = json!({
                "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                "serverInfo": { "name": "echo", "version": "1" },
            });
            // What it says of itself, and where, may hold anything.
            reply("200 OK", "application/json", &format!("X-Echo: {secret}\r\n"), &result(info))
        }
        Some("tools/list") => {
            let tools = json!({ "tools": [
                { "name": "whoami", "description": "says who calls", "inputSchema": { "type": "object" } },
                { "name": "stream", "description": "the same, as events", "inputSchema": { "type": "object" } },
                { "name": "packed", "description": "the same, packed", "inputSchema": { "type": "object" } },
            ] });
            reply("200 OK", "application/json", "", &result(tools))
        }
        Some("tools/call") => {
            let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let reversed: String = secret.chars().rev().collect();
            let spaced: String = secret.chars().flat_map(|c| [c, ' ']).collect();
            let nested = json!({ "deep": [{ "er": secret }] }).to_string();
            let argument = asked["params"]["arguments"]["key"].as_str().unwrap_or_default();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let all =
                [secret.as_str(), argument, path, &hex, &percent, &reversed, &spaced, &nested].join("\n");
            let said = result(json!({ "content": [{ "type": "text", "text": format!("you are {all}") }] }));
            match asked["params"]["name"].as_str() {
                Some("stream") => {
                    let progress = json!({
                        "jsonrpc": "2.0", "method": "notifications/message",
                        "params": { "level": "info", "data": format!("still {secret}") },
                    });
                    let events = format!(": {secret}\n\nid: 1\ndata: {progress}\n\nid: 2\ndata: {said}\n\n");
                    reply("200 OK", "text/event-stream", "", &events)
                }
                Some("packed") => reply(
                    "200 OK",
                    "application/json",
                    "Content-Encoding: gzip\r\nToolgate-Not-Sent: ?1\r\n",
                    &said,
                ),
                _ => reply("200 OK", "application/json", "", &said),
            }
        }
        Some(method) if method.starts_with("notifications/") => reply("202 Accepted", "text/plain", "", ""),
        Some(_) => {
            let error = json!({ "code": -32601, "message": format!("no such method, {secret}") });
            let error = json!({ "jsonrpc": "2.0", "id": asked["id"], "error": error });
            reply("200 OK", "application/json", "", &error.to_string())
        }
        None => reply("405 Method Not Allowed", "text/plain", "", ""),
    }
}

/// Puts a secret into the vault.
pub(crate) fn keep(home: &Home, name: &str, secret: &str, uses: &[&str]) {
    let output = home.fed(&[&["secret", "add", name], uses].concat(), secret.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn up(home: &Home) -> Gate {
    home.done(&["tool", "accept", "--all"]);
    let token = home.done(&["agent", "add", "support"]);
    let mut gate = home.up(&[]);
    gate.token = Some(token.trim().to_owned());
    gate.hello().unwrap();
    gate
}

/// A gate whose server gets a credential.
fn with_echo(home: &Home, echo: &Echo) -> Gate {
    let port = echo.port;
    home.config(&format!("[servers.echo]\nurl = \"http://127.0.0.1:{port}/mcp\"\nsecrets = [\"api\"]\n"));
    home.policy(POLICY);
    let host = format!("127.0.0.1:{port}");
    let uses = ["--slot", "header:Authorization", "--host", &host, "--tool", "echo/*"];
    keep(home, "api", &value("api"), &uses);
    home.done(&["tool", "review"]);
    up(home)
}

/// All spellings that the echo uses.
pub(crate) fn spellings(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let reversed: String = secret.chars().rev().collect();
    let spaced: String = secret.chars().flat_map(|c| [c, ' ']).collect();
    vec![secret.to_owned(), hex, percent, reversed, spaced.trim_end().to_owned()]
}

pub(crate) fn assert_clean(what: &str, secret: &str) {
    for spelling in spellings(secret) {
        assert!(!what.contains(&spelling), "{spelling} in {what}");
    }
}

/// Everything that a process has in its memory, as far as it can be read.
pub(crate) fn memory(process: u32) -> Vec<u8> {
    let Ok(maps) = fs::read_to_string(format!("/proc/{process}/maps")) else { return Vec::new() };
    let Ok(memory) = File::open(format!("/proc/{process}/mem")) else { return Vec::new() };
    let mut all = Vec::new();
    for line in maps.lines() {
        let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) else {
            continue;
        };
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        if line.contains(" r") && !line.contains("[v") && to - from < 1 << 30 {
            let mut part = vec![0; usize::try_from(to - from).unwrap()];
            if memory.read_exact_at(&mut part, from).is_ok() {
                all.extend(part);
            }
        }
    }
    all
}

pub(crate) fn contains(all: &[u8], part: &str) -> bool {
    memchr::memmem::find(all, part.as_bytes()).is_some()
}

/// The processes that a gate has started, by the name that they were started with.
pub(crate) fn child(gate: &Gate, name: &str) -> u32 {
    let tasks = fs::read_dir(format!("/proc/{}/task", gate.process.id())).unwrap();
    let mut children = tasks.flat_map(|task| {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap();
        children.split_whitespace().map(|child| child.parse::<u32>().unwrap()).collect::<Vec<_>>()
    });
    let named =
        |child: &u32| fs::read(format!("/proc/{child}/cmdline")).unwrap().starts_with(name.as_bytes());
    children.find(named).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn a_server_gets_the_credential_and_the_agent_never_does() {
    let home = Home::new("credentials");
    let echo = Echo::start();
    let mut gate = with_echo(&home, &echo);
    let secret = value("api");
    let params = |tool: &str| json!({ "name": tool, "arguments": {} });
    let whole = |gate: &Gate, tool: &str| {
        let asked = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params(tool) });
        let answer = gate.post(&asked);
        format!("{}{}", answer.head, answer.body)
    };
    let plain = whole(&gate, "echo__whoami");
    assert_clean(&plain, &secret);
    assert!(plain.contains("you are ⟦secret:api#"), "{plain}");
    let token = plain.split("⟦secret:api#").nth(1).unwrap().split('⟧').next().unwrap().to_owned();
    let events = whole(&gate, "echo__stream");
    assert_clean(&events, &secret);
    assert!(events.contains(&format!("you are ⟦secret:api#{token}⟧")), "the same token: {events}");
    let packed = whole(&gate, "echo__packed");
    // What it did is not known to the agent, and what it said is not passed on.
    assert!(packed.contains("It may have run in whole or in part"), "{packed}");
    assert_clean(&gate.ask("tools/list", &json!({})).to_string(), &secret);
    // In another run of the agent it is another one.
    gate.hello().unwrap();
    let other = whole(&gate, "echo__whoami");
    assert!(other.contains("⟦secret:api#") && !other.contains(&token), "{other}");

    assert!(echo.heads().contains(&format!("authorization: Bearer {secret}")), "{}", echo.heads());
    assert!(!echo.heads().contains(gate.token.as_ref().unwrap()), "the agent's own token stays here");

    // Not in the log, nor in any file, nor in what the gate prints, nor in its memory, environment or arguments.
    let said = format!("{}{}", gate.out.all(), gate.err.all());
    assert_clean(&said, &secret);
    let tail = home.done(&["log", "tail", "-n", "50", "--json"]);
    assert!(tail.contains("outcome"), "{tail}");
    let outcome = tail.lines().rfind(|line| line.contains("\"outcome\"")).unwrap();
    let index = serde_json::from_str::<Value>(outcome).unwrap()["index"].to_string();
    let shown = home.done(&["log", "show", &index]);
    assert!(shown.contains("you are"), "{shown}");
    assert_clean(&shown, &secret);
    let id = gate.process.id();
    for place in ["environ", "cmdline"] {
        for process in [id, child(&gate, "toolgate-vault"), child(&gate, "toolgate-proxy")] {
            let text = fs::read(format!("/proc/{process}/{place}")).unwrap_or_default();
            assert!(!contains(&text, &secret), "{place} of {process}");
        }
    }
    let memory = memory(id);
    // Its own user may not even look into it.
    assert_eq!(contains(&memory, "you are"), rustix::process::geteuid().is_root(), "who reads the memory");
    for spelling in spellings(&secret) {
        assert!(!contains(&memory, &spelling), "{spelling} in the gate's memory");
    }
}

/// All files below a folder, in one.
pub(crate) fn files(folder: &std::path::Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.extend(files(&entry.path())),
            kind if kind.is_file() => all.extend(fs::read(entry.path()).unwrap()),
            _ => {}
        }
    }
    all
}

/// An agent that has found a value of the vault elsewhere does not get it out, nor onto the disk; a honeytoken gets out by no rule.
#[test]
fn values_of_the_vault_in_arguments_do_not_leave() {
    let home = Home::new("credentials-out");
    let echo = Echo::start();
    keep(&home, "decoy", &value("decoy"), &["--honeytoken"]);
    let shown = home.done(&["secret", "show", "decoy"]);
    assert!(shown.contains("nowhere: a honeytoken"), "{shown}");
    let gate = with_echo(&home, &echo);
    assert!(gate.call("echo__whoami", &json!({ "text": "nothing" })).contains("you are"));
    let heads = echo.heads().len();
    for spelling in spellings(&value("api")) {
        let said = gate.call("echo__whoami", &json!({ "a": [{ "text": format!("it is {spelling}") }] }));
        assert!(said.contains("looks like a secret"), "{spelling}: {said}");
    }
    let said = gate.call("echo__whoami", &json!({ "text": value("decoy") }));
    assert!(said.contains("no rule permits this call"), "nothing tells it from others: {said}");
    assert_eq!(echo.heads().len(), heads, "nothing was sent");
    let tail = home.done(&["log", "tail", "-n", "50", "--json"]);
    assert!(
        tail.contains(r#""carries":["vault:api"]"#) && tail.contains(r#""code":"carries_secret""#),
        "{tail}"
    );
    assert!(
        tail.contains(r#""honeytoken","vault:decoy""#) && tail.contains(r#""code":"honeytoken""#),
        "{tail}"
    );
    let state = files(&home.path().join(".local/state/toolgate"));
    for spelling in [spellings(&value("api")), spellings(&value("decoy"))].concat() {
        assert!(!tail.contains(&spelling) && !contains(&state, &spelling), "{spelling} is on the disk");
    }
    // A rule that says so lets a secret out, and no honeytoken.
    home.policy(&format!("@carries(\"allow\") {POLICY}"));
    gate.err.until("The new policy is in force");
    assert!(gate.call("echo__whoami", &json!({ "text": value("api") })).contains("you are"));
    let heads = echo.heads().len();
    let said = gate.call("echo__whoami", &json!({ "text": value("decoy") }));
    assert!(said.contains("no rule permits this call"), "{said}");
    assert_eq!(echo.heads().len(), heads, "nothing was sent");
    assert!(
        !contains(&files(&home.path().join(".local/state/toolgate")), &value("api")),
        "it is on the disk"
    );
}

#[test]
fn a_new_value_is_in_force_at_once_and_the_old_one_is_not_sent_again() {
    let home = Home::new("credentials-rotate");
    let echo = Echo::start();
    let gate = with_echo(&home, &echo);
    gate.call("echo__whoami", &json!({}));
    assert!(home.fed(&["secret", "rotate", "api"], value("new").as_bytes()).status.success());
    // It is taken up when the gate notices, which a call does not wait for.
    let sent = |secret: &str| echo.heads().matches(&format!("authorization: Bearer {secret}\r\n")).count();
    while sent(&value("new")) == 0 {
        assert_clean(&gate.call("echo__whoami", &json!({})), &value("new"));
    }
    let before = sent(&value("api"));
    assert_clean(&gate.call("echo__whoami", &json!({})), &value("new"));
    assert_eq!(sent(&value("api")), before);
    // Taken away, its server serves nobody: the tool is not there any more.
    home.done(&["secret", "remove", "api"]);
    gate.err.until("there is none in the vault");
    assert_eq!(gate.tools(), Vec::<String>::new());
    let heads = echo.heads().len();
    assert!(gate.call("echo__whoami", &json!({})).contains("echo__whoami"));
    assert_eq!(echo.heads().len(), heads, "nothing was sent");
}

#[test]
fn a_secret_goes_into_paths_and_arguments_too() {
    let home = Home::new("credentials-parts");
    let echo = Echo::start();
    let (port, secret) = (echo.port, value("api"));
    let server = |path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        home.config(&format!("[servers.echo]\nurl = \"{url}\"\nsecrets = [\"api\"]\n"));
    };
    server("/hook/k-{api}/mcp");
    home.policy(POLICY);
    let host = format!("127.0.0.1:{port}");
    let slots = ["--slot", "path:k-{}", "--slot", "json:/params/arguments/key"];
    let uses = [slots.as_slice(), &["--host", &host, "--tool", "echo/*"]].concat();
    keep(&home, "api", &secret, &uses);
    home.done(&["tool", "review"]);
    let gate = up(&home);
    // In place of whatever the agent says, and only in calls.
    for arguments in [json!({}), json!({ "key": "the agent's", "a": 1 })] {
        let told = gate.call("echo__whoami", &arguments);
        assert_clean(&told, &secret);
        assert_eq!(told.matches("⟦secret:api#").count(), 2, "{told}");
        assert!(told.contains("/hook/k-⟦secret:api#") && !told.contains("the agent's"), "{told}");
    }
    assert!(echo.heads().contains(&format!("POST /hook/k-{secret}/mcp HTTP/1.1\r\n")), "{}", echo.heads());
    assert!(!echo.heads().contains("{api}"), "{}", echo.heads());
    drop(gate);
    // An address that does not say where.
    server("/hook/mcp");
    let error = home.shown(&["up", "--listen", "127.0.0.1:0"]);
    assert!(
        error.contains("that does not say where") && error.contains("write `/k-{api}` in its place"),
        "{error}"
    );
}

#[test]
fn a_secret_serves_its_own_agents_tools_hosts_and_servers() {
    let home = Home::new("credentials-uses");
    let echo = Echo::start();
    drop(with_echo(&home, &echo));
    home.done(&["secret", "use-where", "api", "--tool", "echo/whoami"]);
    let mut gate = home.up(&[]);
    gate.token = Some(home.done(&["agent", "rotate", "support"]).trim().to_owned());
    while gate.hello().is_err() {}
    assert_eq!(gate.tools(), ["echo__whoami"]);
    let heads = echo.heads().len();
    assert!(gate.call("echo__stream", &json!({})).contains("echo__stream"));
    assert_eq!(echo.heads().len(), heads, "nothing was sent");
    drop(gate);
    // What does not fit is said before anything starts.
    for (uses, what) in [
        (["--host", "127.0.0.1:1"], "may not be sent to 127.0.0.1"),
        (["--tool", "other/*"], "serves no tool of the server `echo`"),
        (["--slot", "env:API_KEY"], "has no place at the server `echo`"),
    ] {
        let vault = home.path().join(".local/state/toolgate/vault");
        let before = fs::read(&vault).unwrap();
        home.done(&[&["secret", "use-where", "api"], uses.as_slice()].concat());
        let error = home.shown(&["up", "--listen", "127.0.0.1:0"]);
        assert!(error.contains(what) && error.contains("toolgate secret use-where api"), "{error}");
        fs::write(&vault, before).unwrap();
        home.done(&["secret", "trust"]);
    }
    home.done(&["secret", "remove", "api"]);
    let error = home.shown(&["up", "--listen", "127.0.0.1:0"]);
    assert!(
        error.contains("there is none in the vault") && error.contains("toolgate secret add api"),
        "{error}"
    );
}

/// A server that answers whatever is in a file.
const TELLER: &str = r#"trap 'echo "told $PGPASSWORD" >&2' EXIT
while read -r line; do
  id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case $line in
    *'"initialize"'*) r='"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}}' ;;
    *'"tools/list"'*) r='"result":{"tools":[{"name":"tell","description":"tells","inputSchema":{"type":"object"}}]}' ;;
    *'"tools/call"'*) [ -e told ] || exit 1
      r='"result":{"content":[{"type":"text","text":"it is '"$(cat told) ${#PGPASSWORD} $PGPASSWORD $(cat /run/secrets/password)"'"}]}' ;;
    *) r='"error":{"code":-32601,"message":"no"}' ;;
  esac
  [ -n "$id" ] && printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$r"
done
"#;

#[test]
fn what_a_program_in_a_cell_says_is_cleaned_too() {
    let home = Home::new("credentials-cell");
    let work = home.path().join("work");
    home.write_with("work/teller.sh", TELLER, 0o755);
    home.write("work/told", &value("db"));
    let work = work.display();
    home.config(&format!(
        "[servers.teller]\ncommand = [\"/bin/sh\", \"teller.sh\"]\ncwd = \"{work}\"\nsecrets = [\"db\"]\n\
         [servers.shell]\nbuiltin = \"shell\"\nworkspace = \"{work}\"\n"
    ));
    home.policy(POLICY);
    keep(
        &home,
        "db",
        &value("db"),
        &["--slot", "env:PGPASSWORD", "--slot", "file:password", "--tool", "teller/*"],
    );
    home.done(&["tool", "review"]);
    let gate = up(&home);
    let told = gate.call("teller__tell", &json!({}));
    assert!(told.starts_with("it is ⟦secret:db#"), "{told}");
    // It has it, as variable and as file: as long as it is, and nobody sees it.
    assert!(told.contains(&format!(" {} ⟦secret:db#", value("db").len())), "{told}");
    assert_eq!(told.matches("⟦secret:db#").count(), 3, "{told}");
    assert_clean(&told, &value("db"));
    let script = json!({ "script": "cat told; cat told | base64; cp told out", "files_out": ["out"] });
    let asked = json!({ "name": "shell__exec", "arguments": script });
    let answer = gate.ask("tools/call", &asked).to_string();
    assert_clean(&answer, &value("db"));
    assert!(answer.matches("⟦secret:db#").count() >= 3, "{answer}");
    // With another value, the program is started again and has that; the old one is still taken out.
    let longer = format!("{}-longer", value("db2"));
    assert!(home.fed(&["secret", "rotate", "db"], longer.as_bytes()).status.success());
    let length = format!(" {} ⟦secret:db#", value("db2").len() + "-longer".len());
    let told = loop {
        let told = gate.call("teller__tell", &json!({}));
        assert_clean(&told, &value("db"));
        assert_clean(&told, &value("db2"));
        if told.contains(&length) {
            break told;
        }
    };
    assert!(told.starts_with("it is ⟦secret:db#"), "{told}");
    // Nor does an operator read it, whatever the program leaves behind.
    fs::remove_file(home.path().join("work/told")).unwrap();
    assert!(gate.call("teller__tell", &json!({})).contains("broke"));
    gate.err.until("its standard error ends: told ⟦secret:db#");
    assert_clean(&gate.err.all(), &value("db"));
}

/// Neither of the two processes can be looked into by its own user, and each has given up what it does not need.
#[test]
fn the_processes_that_hold_secrets_are_to_themselves() {
    let home = Home::new("credentials-processes");
    let echo = Echo::start();
    let gate = with_echo(&home, &echo);
    gate.call("echo__whoami", &json!({}));
    for name in ["toolgate-vault", "toolgate-proxy"] {
        let process = child(&gate, name);
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let field = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        assert_eq!(field("NoNewPrivs"), "1", "{name}");
        assert_eq!(field("CapEff"), "0000000000000000", "{name}");
        assert_eq!(field("CapPrm"), "0000000000000000", "{name}");
        let core = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        assert!(
            core.lines().any(|line| line.starts_with("Max core file size") && line.contains(" 0 ")),
            "{core}"
        );
        // Files of a process that cannot be dumped are root's.
        let owner =
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{process}/mem")).unwrap());
        assert_eq!(owner, 0, "{name}");
        let seccomp = if name == "toolgate-vault" { "2" } else { "0" };
        assert_eq!(field("Seccomp"), seccomp, "{name}");
    }
    let vault = child(&gate, "toolgate-vault");
    let threads = fs::read_dir(format!("/proc/{vault}/task")).unwrap().count();
    assert_eq!(threads, 1, "the filter is in force for all threads there are");
    // Only root may even list what it has open.
    if let Ok(open) = fs::read_dir(format!("/proc/{vault}/fd")) {
        let open = open.map(|fd| fs::read_link(fd.unwrap().path()).unwrap().display().to_string());
        let files: Vec<_> = open.filter(|target| target.starts_with('/') && target != "/dev/null").collect();
        assert!(files.is_empty(), "{files:?}");
    }
    let proxy = child(&gate, "toolgate-proxy");
    // When one of them is gone, nothing is said without them: calls fail, and no credential is sent.
    let pid = rustix::process::Pid::from_raw(i32::try_from(vault).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    while fs::read_to_string(format!("/proc/{proxy}/stat")).is_ok_and(|stat| !stat.contains(") Z")) {}
    let answer = gate.ask("tools/call", &json!({ "name": "echo__whoami", "arguments": {} })).to_string();
    assert!(answer.contains("error") || answer.contains("isError"), "{answer}");
}
