//! What a newcomer sees: the program itself, in an empty home.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

/// An empty home that is gone after the test.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toolgate-cli-{name}-{}", std::process::id()));
        let _old = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("work")).unwrap();
        Self(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", &self.0)
            .env("PATH", "/usr/bin:/bin")
            .env("USER", "tester")
            .current_dir(self.0.join("work"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A gate that runs until it is dropped.
    fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        Running { child, out, err }
    }

    /// Standard output, standard error and exit code, with the home's path taken out.
    fn shown(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&self.0.display().to_string(), "~");
        format!("{}{}exit {}", text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
    }

    fn write(&self, path: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Running {
    /// Reads until a line has this.
    fn until(from: &mut impl BufRead, wanted: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert!(from.read_line(&mut line).unwrap() > 0, "it never said `{wanted}`: {all}");
            all.push_str(&line);
            if line.contains(wanted) {
                return line;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The status line of an answer to a `POST` with this token.
fn knock(host: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(host).unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    write!(
        stream,
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// A stream of events that stays open.
fn listen(host: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host).unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    write!(
        stream,
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: subscriptions/listen\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut seen = String::new();
    while !seen.contains("acknowledged") {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(chunk.get(..read).unwrap_or_default()));
    }
    stream
}

/// A policy that names an agent does not load once the agent is gone. That must not keep its token alive.
#[test]
fn a_removed_agent_is_out_also_where_the_policy_still_names_it() {
    let home = Home::new("removed");
    config(&home, "");
    let added = String::from_utf8(home.run(&["agent", "add", "support"]).stdout).unwrap();
    let token = added.trim();
    home.write(
        ".config/toolgate/policies/rules.cedar",
        "@id(\"nothing\") @because(\"it may do nothing\")\nforbid(principal == Agent::\"support\", action, resource);\n",
        0o600,
    );
    let mut gate = home.start(&["up", "--json", "--listen", "127.0.0.1:0"]);
    let up = Running::until(&mut gate.out, "\"url\"");
    let host = up.split("http://").nth(1).unwrap().split("/mcp").next().unwrap();
    assert_eq!(knock(host, token), "HTTP/1.1 200 OK");
    let mut stream = listen(host, token);
    assert_eq!(home.run(&["agent", "remove", "support"]).status.code(), Some(0));
    Running::until(&mut gate.err, "support");
    // What it had open ends.
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    assert_eq!(knock(host, token), "HTTP/1.1 401 Unauthorized");
}

/// Policies that somebody else may have written do not come into force, whatever made the gate read them again; what the
/// store took back is gone all the same.
#[test]
fn a_policy_that_others_may_write_is_not_read_again() {
    let home = Home::new("modes");
    config(&home, "");
    let policy = ".config/toolgate/policies/rules.cedar";
    let forbid = "@id(\"nothing\") @because(\"it may do nothing\")\nforbid(principal, action, resource);\n";
    home.write(policy, forbid, 0o600);
    let token =
        |name: &str| String::from_utf8(home.run(&["agent", "add", name]).stdout).unwrap().trim().to_owned();
    let (one, two) = (token("one"), token("two"));
    let mut gate = home.start(&["up", "--json", "--listen", "127.0.0.1:0"]);
    let up = Running::until(&mut gate.out, "\"url\"");
    let host = up.split("http://").nth(1).unwrap().split("/mcp").next().unwrap();
    assert_eq!(knock(host, &one), "HTTP/1.1 200 OK");
    // Neither by the mode of the file alone, which is no change that is looked for, nor by a change of the store.
    fs::set_permissions(home.0.join(policy), fs::Permissions::from_mode(0o602)).unwrap();
    assert_eq!(home.run(&["agent", "remove", "one"]).status.code(), Some(0));
    Running::until(&mut gate.err, "rules.cedar");
    assert_eq!(knock(host, &one), "HTTP/1.1 401 Unauthorized");
    assert_eq!(knock(host, &two), "HTTP/1.1 200 OK");
    let log = home.run(&["log", "tail", "--json"]);
    let log = String::from_utf8_lossy(&log.stdout);
    assert!(log.contains("rejected"), "{log}");
}

/// The gate over pipes takes up changes like the other one.
#[test]
fn a_gate_over_pipes_ends_when_its_user_is_no_agent_any_more() {
    let home = Home::new("pipes");
    let uid = fs::metadata(&home.0).unwrap().uid();
    config(&home, &format!("[agents.me]\npeer_uid = {uid}\n"));
    let mut gate = home.start(&["mcp"]);
    let mut stdin = gate.child.stdin.take().unwrap();
    stdin.write_all(br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#).unwrap();
    stdin.write_all(b"\n").unwrap();
    Running::until(&mut gate.out, "serverInfo");
    config(&home, "");
    Running::until(&mut gate.err, "is not what it was");
    assert_eq!(gate.child.wait().unwrap().code(), Some(0));
    drop(stdin);
}

fn config(home: &Home, text: &str) {
    home.write(".config/toolgate/toolgate.toml", text, 0o600);
}

#[test]
fn nothing_is_there_yet() {
    let home = Home::new("empty");
    insta::assert_snapshot!(home.shown(&["question", "list"]), @r#"
error: there is no gate in `~/.local/state/toolgate` yet
hint: start one with `toolgate up`, or say where it is with `--state FOLDER`
exit 1
"#);
    assert!(!home.0.join(".local").exists(), "looking makes nothing");
}

#[test]
fn a_slip_of_the_pen_is_not_a_refusal() {
    let home = Home::new("slip");
    let output = home.run(&["polici"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(home.run(&["--version"]).status.code(), Some(0));
}

#[test]
fn a_wrong_configuration_says_where_and_what_instead() {
    let home = Home::new("wrong");
    config(&home, "[gateway]\nlissten = \"127.0.0.1:1\"\n");
    insta::assert_snapshot!(home.shown(&["up"]), @r#"
error: `~/.config/toolgate/toolgate.toml`, line 2: unknown key `lissten` in `[gateway]`
hint: did you mean `listen`?
exit 1
"#);
    home.write(".config/toolgate/toolgate.toml", "", 0o666);
    insta::assert_snapshot!(home.shown(&["up"]), @r#"
error: `~/.config/toolgate/toolgate.toml` can be changed by others (mode 666)
hint: `chmod go-w ~/.config/toolgate/toolgate.toml`
exit 1
"#);
}

#[test]
fn a_cell_is_given_what_its_profile_names() {
    let home = Home::new("profiles");
    let given = home.write("given/data", "echo data\n", 0o755);
    let runs = home.write("tools/run", "#!/bin/sh\necho \"ran with $MODE\"\n", 0o700);
    home.write("secret", "a secret of the host\n", 0o600);
    let folder = |path: &Path| path.parent().unwrap().display().to_string();
    config(
        &home,
        &format!(
            "[profiles.build]\nread = [\"{}\"]\nexec = [\"{}\"]\nenv = {{ MODE = \"fast\" }}\nlimits = {{ time = \"30s\", memory_mib = 128 }}\n",
            folder(&given),
            folder(&runs)
        ),
    );
    let script = "cat ../given/data; ../tools/run; ../given/data; cat ../secret";
    let ran = home.shown(&["exec", "--profile", "build", "--", "sh", "-c", script]);
    assert!(ran.starts_with("echo data\nran with fast\n"), "{ran}");
    assert!(ran.contains("../given/data: Permission denied") && !ran.contains("a secret"), "{ran}");
    let without = home.shown(&["exec", "--", "sh", "-c", "ls ..; ../tools/run; echo $MODE"]);
    assert!(without.starts_with("work\n\n") && without.contains("not found"), "{without}");
    insta::assert_snapshot!(home.shown(&["exec", "--profile", "biuld", "--", "true"]), @r#"
error: there is no profile `biuld`
hint: did you mean `build`?
exit 1
"#);
}

/// A server that offers one tool, whose description says what the server sees.
fn server_that_tells(more: &str) -> String {
    let script = r#"while read -r line; do
        id=${line#*\"id\":}; id=${id%%,*}
        seen="$(env | grep -v ^PWD | sort | tr '\n' ' ')in $(ls -A / | tr '\n' ' ')and $(cat HOME/secret 2>&1 | head -c 20)"
        case $line in
            *server/discover*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"m"}}\n' "$id";;
            *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}}\n' "$id";;
            *tools/list*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"t","description":"%s","inputSchema":{"type":"object"}}]}}\n' "$id" "$seen";;
        esac
    done"#;
    format!(
        "[servers.tells]\ncommand = [\"sh\", \"-c\", '''{script}''']\nenv = {{ NAMED = \"yes\" }}\n{more}\n"
    )
}

#[test]
fn a_server_runs_in_a_cell_but_by_explicit_word() {
    let home = Home::new("server");
    home.write("secret", "a secret of the host", 0o600);
    let text = |more: &str| server_that_tells(more).replace("HOME", &home.0.display().to_string());
    config(&home, &text("profile = \"mine\"\n[profiles.mine]\nenv = { MORE = \"too\" }"));
    let seen = home.shown(&["tool", "review"]);
    let env = "HOME=/home/agent MORE=too NAMED=yes PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin in ";
    assert!(seen.contains(env), "{seen}");
    assert!(!seen.contains(" root ") && !seen.contains("a secret") && seen.contains("and cat:"), "{seen}");
    let told = home.shown(&["doctor"]);
    assert!(
        told.contains("server `tells` runs in a cell of the profile `mine`") && !told.contains("NO CELL"),
        "{told}"
    );

    config(&home, &text("profile = \"none\""));
    let seen = home.shown(&["tool", "review"]);
    assert!(seen.contains("and a secret of the host") && seen.contains("HOME=~ "), "{seen}");
    let told = home.shown(&["doctor"]);
    assert!(told.contains("server `tells` runs in NO CELL"), "{told}");
    let mut gate = home.start(&["up", "--listen", "127.0.0.1:0"]);
    Running::until(&mut gate.err, "SERVER `tells` RUNS IN NO CELL");
}

#[test]
fn a_program_that_is_not_in_its_cell_is_said_to_be_missing() {
    let home = Home::new("missing");
    home.write("script.sh", "exit 0", 0o644);
    for (command, want) in [
        ("\"no-such-program\"".to_owned(), "starting `no-such-program`: No such file or directory"),
        ("\"/no/such/program\"".to_owned(), "there is no such program"),
        (format!("\"sh\", \"{}/script.sh\"", home.0.display()), "the server closed the connection"),
    ] {
        config(&home, &format!("[servers.lost]\ncommand = [{command}]\n"));
        let told = home.shown(&["tool", "review"]);
        assert!(
            told.contains(want) && told.contains("hint: it runs in a cell of the profile `server`"),
            "{want}: {told}"
        );
    }
}

#[test]
fn doctor_says_what_a_cell_can_reach() {
    let home = Home::new("reach");
    config(
        &home,
        "[profiles.build]\nread = [\"/usr/share\"]\nwrite = [\"nowhere\"]\nenv = { API_TOKEN = { env = \"T\" } }\n",
    );
    let told = home.shown(&["doctor", "--cell", "build"]);
    for part in [
        "  read           /usr/share\n",
        "  write          ~/.config/toolgate/nowhere\n",
        "nothing but itself",
        "the variables PATH, HOME, API_TOKEN\n",
        "`~/.config/toolgate/nowhere` is not there",
        "exit 1",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let output = home.run(&["doctor", "--cell", "server", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["profile"], &told["tier"]), (&"server".into(), &"native".into()), "{told}");
    assert_eq!(told["net"], serde_json::json!([]));
    assert!(output.status.success() && told["landlock_abi"].as_u64() > Some(0), "{told}");
}

#[test]
fn a_token_is_shown_once_and_stored_nowhere() {
    let home = Home::new("token");
    let output = home.run(&["agent", "add", "support"]);
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(token.starts_with("tg_"), "{token}");
    for entry in fs::read_dir(home.0.join(".local/state/toolgate")).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            assert!(
                !bytes.windows(token.len()).any(|window| window == token.as_bytes()),
                "{}",
                path.display()
            );
        }
    }
    insta::assert_snapshot!(home.shown(&["agent", "add", "support"]), @r#"
error: agent `support` exists already
hint: `toolgate agent rotate support` gives it another token
exit 1
"#);
    insta::assert_snapshot!(home.shown(&["agent", "add", "demo"]), @r#"
error: the agent name `demo` belongs to the demo
hint: choose another name
exit 1
"#);
    insta::assert_snapshot!(home.shown(&["agent", "remove", "nobody"]), @r#"
error: there is no agent `nobody`
exit 1
"#);
}

#[test]
fn people_need_a_good_passphrase_in_a_private_file() {
    let home = Home::new("people");
    let add =
        |path: &Path| home.shown(&["person", "add", "ada", "--passphrase-file", path.to_str().unwrap()]);
    insta::assert_snapshot!(add(&home.write("short", "short\n", 0o600)), @r#"
error: the passphrase has fewer than 12 characters
hint: four or five random words are easy to remember and hard to guess
exit 1
"#);
    insta::assert_snapshot!(add(&home.write("open", "correct horse battery\n", 0o644)), @r#"
error: `~/open` can be read by others (mode 644)
hint: `chmod 600 ~/open`
exit 1
"#);
    insta::assert_snapshot!(add(&home.write("good", "correct horse battery\n", 0o600)), @r#"
Person `ada` is enrolled. They are asked where a table `[questions.NAME]` has `people = ["ada"]`.
exit 0
"#);
    insta::assert_snapshot!(add(&home.0.join("good")), @r#"
error: person `ada` is enrolled with a passphrase already
hint: `toolgate person remove ada` first
exit 1
"#);
    // That is said before a passphrase is looked at, and codes are another way.
    assert!(add(&home.0.join("short")).contains("enrolled with a passphrase already"));
    let codes = home.shown(&["person", "add", "ada", "--totp"]);
    assert!(
        codes.contains("They are asked where a table `[questions.NAME]` has `people = [\"ada\"]`."),
        "{codes}"
    );
    let again = home.shown(&["person", "add", "ada", "--totp"]);
    assert!(again.starts_with("error: person `ada` is enrolled with one-time codes already\n"), "{again}");
}

#[test]
fn a_folder_or_file_that_was_named_has_to_be_there() {
    let home = Home::new("named");
    assert!(home.run(&["agent", "add", "support"]).status.success());
    let one = "@id(\"all\") @because(\"a test\")\npermit(principal, action, resource);\n";
    home.write("work/new/rules.cedar", one, 0o600);
    fs::create_dir(home.0.join("work/bare")).unwrap();
    for command in [
        &["policy", "check"][..],
        &["policy", "replay"],
        &["policy", "try", "--agent", "support", "a/b"],
        &["policy", "explain", "--agent", "support", "a/b"],
    ] {
        let with = |folder: &str| home.shown(&[command, &["--policy", folder]].concat());
        let missing = with("nwe");
        assert!(
            missing.starts_with("error: `nwe` is not there\nhint: name a folder"),
            "{command:?}: {missing}"
        );
        assert!(missing.ends_with("exit 1"), "{command:?}: {missing}");
        let bare = with("bare");
        assert!(bare.starts_with("error: `bare` has no policy file\n"), "{command:?}: {bare}");
        let there = with("new");
        assert!(!there.contains("error:"), "{command:?}: {there}");
    }
    // Where nothing was named, the default holds.
    let shown = home.shown(&["policy", "check"]);
    assert!(
        shown.contains("warning: no policy files: what is built in permits nothing but the demo's reading\n"),
        "{shown}"
    );
    assert!(!shown.contains("has no examples") && shown.contains("1 rule, all examples hold."), "{shown}");

    for command in [&["up"][..], &["mcp"], &["agent", "list"], &["doctor"], &["policy", "check"]] {
        let shown = home.shown(&[&["--config", "tolgate.toml"], command].concat());
        assert_eq!(
            shown,
            "error: there is no configuration at `tolgate.toml`\n\
             hint: `toolgate --config tolgate.toml init --write` writes one there\nexit 1",
            "{command:?}"
        );
    }
    assert!(!home.0.join("work/tolgate.toml").exists());
    assert!(home.run(&["--config", "conf/toolgate.toml", "init", "--write"]).status.success());
    assert!(home.run(&["--config", "conf/toolgate.toml", "policy", "check"]).status.success());
}

#[test]
fn doctor_says_what_to_do_in_good_words() {
    let home = Home::new("doctor");
    let shown = home.shown(&["doctor"]);
    assert!(shown.contains("`toolgate up` or `toolgate init --write` writes one"), "{shown}");
    config(&home, "[questions.owner]\npeople = [\"ada\"]\n");
    home.write("good", "correct horse battery\n", 0o600);
    let policy = "@id(\"all\") @because(\"a test\")\npermit(principal, action, resource);\n";
    home.write(".config/toolgate/policies/rules.cedar", policy, 0o600);
    assert!(home.run(&["agent", "add", "support"]).status.success());
    let nobody = home.shown(&["doctor"]);
    assert!(
        nobody.contains("question `owner`: 0 people are enrolled, 1 has to say yes; whatever is"),
        "{nobody}"
    );
    assert!(nobody.contains("policy: 1 rule, all examples hold\n"), "{nobody}");
    let good = home.0.join("good");
    assert!(
        home.run(&["person", "add", "ada", "--passphrase-file", good.to_str().unwrap()]).status.success()
    );
    let one = home.shown(&["doctor"]);
    assert!(one.contains("question `owner`: 1 person can answer, 1 has to say yes\n"), "{one}");
    assert!(one.contains("log: 2 records, verified\n"), "{one}");
}

#[test]
fn a_refused_call_exits_with_two() {
    let home = Home::new("refused");
    let output = home.run(&["policy", "try", "--agent", "support", "mail/send", "{}"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "deny  `mail/send` is not accepted\n");
}

/// What the gate looks at before the rules is looked at here, too.
#[test]
fn a_call_that_is_tried_by_hand_has_to_fit_its_schema() {
    let home = Home::new("tried");
    config(
        &home,
        &format!("[servers.office]\ncommand = [{:?}, \"demo-server\"]\n", env!("CARGO_BIN_EXE_toolgate")),
    );
    let policy = "@id(\"all\") @because(\"a test\")\npermit(principal, action, resource);\n";
    home.write(".config/toolgate/policies/rules.cedar", policy, 0o600);
    let accepted = home.shown(&["tool", "accept", "search_mail"]);
    assert!(
        accepted.contains("error: no server offers `search_mail`\nhint: write it as `server/tool`"),
        "{accepted}"
    );
    assert!(home.run(&["tool", "review"]).status.success());
    assert!(home.run(&["tool", "accept", "office/search_mail"]).status.success());
    let said = |command: &str, tool: &str, arguments: &str| {
        home.shown(&["policy", command, "--agent", "support", tool, arguments])
    };
    for (command, status) in [("try", "exit 2"), ("explain", "exit 0")] {
        let unfit = said(command, "office/search_mail", r#"{"qurey":"x"}"#);
        assert!(
            unfit.contains("deny  the arguments do not fit the schema of `office/search_mail`: "),
            "{unfit}"
        );
        assert!(unfit.contains("query") && unfit.ends_with(status), "{unfit}");
        let unknown = said(command, "office/pay_invoice", "{}");
        assert!(unknown.contains("deny  `office/pay_invoice` is not accepted"), "{unknown}");
        assert!(unknown.ends_with(status), "{unknown}");
        let fits = said(command, "office/search_mail", r#"{"query":"x"}"#);
        assert!(fits.contains("allow  by rule all") && fits.ends_with("exit 0"), "{fits}");
    }
}

#[test]
fn what_is_to_be_erased_has_to_be_named_once() {
    let home = Home::new("erase");
    let neither = home.shown(&["log", "erase", "--ground", "a test"]);
    assert!(neither.contains("--record") && neither.contains("--agent"), "{neither}");
    let both = home.shown(&["log", "erase", "--ground", "a test", "--record", "1", "--agent", "a"]);
    assert!(both.contains("cannot be used with"), "{both}");
    let one = home.shown(&["log", "erase", "--ground", "a test", "--record", "1"]);
    assert!(one.contains("there is no gate"), "{one}");
}

#[test]
fn init_shows_and_changes_nothing() {
    let home = Home::new("init");
    let servers = r#"{"mcpServers":{"Mail Box":{"command":"mailer","args":["--fast"],"env":{"MAIL_TOKEN":"s3cret","MODE":"x"}}}}"#;
    home.write(".claude.json", servers, 0o600);
    let shown = home.shown(&["init"]);
    assert!(shown.contains("[servers.mail-box]"), "{shown}");
    assert!(!shown.contains("s3cret"), "a value is never shown: {shown}");
    assert!(!home.0.join(".config").exists());
    home.run(&["init", "--write"]);
    let secret = home.0.join(".config/toolgate/secrets/mail-box.MAIL_TOKEN");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "s3cret");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let written = fs::read_to_string(home.0.join(".config/toolgate/toolgate.toml")).unwrap();
    assert!(!written.contains("s3cret"), "{written}");
    assert_eq!(fs::read_to_string(home.0.join(".claude.json")).unwrap(), servers);
}

#[test]
fn the_demo_comes_out_as_it_should() {
    let home = Home::new("demo");
    let output = home.run(&["demo", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let came: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|step| {
            format!("{} {}", step["step"].as_str().unwrap(), step["came_to"].as_str().unwrap_or("sound"))
        })
        .collect();
    assert_eq!(
        came,
        [
            "search_mail ran",
            "read_document ran",
            "send_mail refused",
            "pay_invoice denied_by_person",
            "delete_document refused",
            "log sound",
        ]
    );
}

/// Whoever has the two files and the key needs neither the log nor the gate.
#[test]
fn a_receipt_is_checked_without_the_log() {
    let home = Home::new("receipt");
    assert!(home.run(&["agent", "add", "support"]).status.success());
    assert!(home.run(&["agent", "add", "other"]).status.success());
    for index in ["0", "1"] {
        assert!(home.run(&["log", "prove", index, "--out", "."]).status.success());
    }
    let key = String::from_utf8(home.run(&["log", "key"]).stdout).unwrap().trim().to_owned();
    let proof = fs::read_to_string(home.0.join("work/1.agent.tlog-proof")).unwrap();
    fs::rename(home.0.join(".local"), home.0.join("gone")).unwrap();
    let check = |arguments: &[&str]| home.shown(&[&["log", "verify"], arguments].concat());
    let with =
        |receipt: &str, leaf: &str, key: &str| check(&["--receipt", receipt, "--leaf", leaf, "--vkey", key]);

    let sound = with("1.agent.tlog-proof", "1.agent.json", &key);
    assert!(sound.contains("index       1 of 2 records\n"), "{sound}");
    assert!(sound.ends_with("sound: the record is in the log, and the log is signed\nexit 0"), "{sound}");
    let json =
        check(&["--receipt", "1.agent.tlog-proof", "--leaf", "1.agent.json", "--vkey", &key, "--json"]);
    assert!(json.contains("\"index\":1") && json.ends_with("exit 0"), "{json}");

    home.write("work/index", &proof.replace("index 1", "index 0"), 0o600);
    home.write("work/size", &proof.replace("\n2\n", "\n3\n"), 0o600);
    home.write("work/none", "hello\n", 0o600);
    let (name, rest) = key.split_once('+').unwrap();
    let other_log = format!("{name}x+{rest}");
    for (what, shown, says) in [
        ("another record", with("1.agent.tlog-proof", "0.agent.json", &key), "does not prove `0.agent.json`"),
        ("another index", with("index", "1.agent.json", &key), "is not at index 0"),
        ("another size", with("size", "1.agent.json", &key), "does not prove"),
        ("no receipt", with("none", "1.agent.json", &key), "`none` cannot be used"),
        ("another key", with("1.agent.tlog-proof", "1.agent.json", &other_log), "error: "),
        ("no key", check(&["--receipt", "1.agent.tlog-proof", "--leaf", "1.agent.json"]), "`--vkey KEY`"),
        ("no record", check(&["--receipt", "1.agent.tlog-proof"]), "--leaf <FILE>"),
        (
            "a log besides",
            check(&["log", "--receipt", "1.agent.tlog-proof", "--leaf", "1.agent.json"]),
            "cannot be used with",
        ),
    ] {
        assert!(shown.contains(says) && shown.ends_with("exit 1"), "{what}: {shown}");
    }
}
