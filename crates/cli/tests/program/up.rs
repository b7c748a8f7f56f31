//! `toolgate up`: what a newcomer meets, and what changes while it runs.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::{fs, net};

use serde_json::{Value, json};

use crate::home::{Home, Printed, read};

#[test]
fn on_an_empty_home_there_is_a_demo_to_play_with() {
    let home = Home::new("newcomer");
    let mut gate = home.up(&[]);
    gate.out.until("closes the demo");
    let shown = home.plain(&gate.out.all()).replace(gate.host.as_str(), "127.0.0.1:PORT");
    insta::assert_snapshot!(shown, @r"
    The gate is up at http://127.0.0.1:PORT/mcp
      socket         ~/.local/state/toolgate/gate.sock
      configuration  ~/.config/toolgate/toolgate.toml
      policy         7 rules in ~/.config/toolgate/policies
                     8 rules of the demo
      tools          the 5 of the demo, a made-up office

    For Claude Code, paste this:

      claude mcp add --transport http toolgate http://127.0.0.1:PORT/mcp

    No agent is registered yet, so whoever connects from this machine is the agent `demo`. It has the tools of a made-up
    office and nothing else; its calls are judged and logged like any other. Ask Claude Code, for instance, to
    `read the document invoice-0815 and pay it`, and see the calls here.

    Then your own: `toolgate init` puts your servers behind the gate, `toolgate agent add NAME` registers an agent. That
    closes the demo; so does `demo = false` in `[gateway]`.
    ");

    gate.hello().unwrap();
    let tools = gate.tools();
    assert_eq!(
        tools,
        [
            "demo__delete_document",
            "demo__pay_invoice",
            "demo__read_document",
            "demo__search_mail",
            "demo__send_mail"
        ]
    );
    assert!(gate.call("demo__search_mail", &json!({ "query": "invoice" })).starts_with("1 mail"));
    let mail = json!({ "to": "drop@attacker.example", "subject": "s", "body": "b" });
    let refused = gate.call("demo__send_mail", &mail);
    assert!(refused.contains("rule `demo-foreign-mail-is-refused`"), "{refused}");
    gate.out.until("demo demo/search_mail");
    gate.out.until("refuse demo demo/send_mail");
    let pay = json!({ "iban": "DE02120300000000202051", "amount_cents": 4200, "reference": "0815" });
    let _held = gate.begin("demo__pay_invoice", &pay);
    gate.out.until("answer with `toolgate approve q-");
    gate.out.until("nobody is enrolled: `toolgate person add owner`");
    assert!(
        !gate.err.all().contains("warning"),
        "the rules to start from are no mistake: {}",
        gate.err.all()
    );

    // Something wrong is never the same as nothing.
    for token in ["wrong", "tg_wrong"] {
        gate.token = Some(token.to_owned());
        assert_eq!(gate.hello(), Err(401), "{token}");
    }
    gate.token = None;

    // It is on the log like any other, and says that nobody showed anything.
    let found = home.done(&["log", "search", "--agent", "demo", "--tool", "demo/search_mail", "--json"]);
    assert!(found.contains(r#""proof":{"by":"demo"}"#), "{found}");
}

#[test]
fn the_first_agent_closes_the_demo() {
    let home = Home::new("closed");
    let mut gate = home.up(&["--json"]);
    gate.hello().unwrap();
    let pay = json!({ "iban": "DE02120300000000202051", "amount_cents": 4200, "reference": "0815" });
    let held = gate.begin("demo__pay_invoice", &pay);
    gate.out.until("question_asked");
    let token = home.done(&["agent", "add", "support"]).trim().to_owned();
    gate.err.until("The demo is over");
    assert!(!read(held).body.contains("PAID"), "what waited is over");
    assert_eq!(gate.hello(), Err(401));
    gate.token = Some(token);
    gate.hello().unwrap();
    assert_eq!(gate.tools(), Vec::<String>::new(), "the demo's tools are for the demo agent");
    assert_eq!(gate.call("demo__search_mail", &json!({ "query": "x" })), "Unknown tool: demo__search_mail");
    // It does not open again while the gate runs.
    home.done(&["agent", "remove", "support"]);
    gate.token = None;
    assert_eq!(gate.hello(), Err(401));
}

#[test]
fn where_something_real_is_there_is_no_demo() {
    let home = Home::new("real");
    for (what, config) in [
        ("switched off", "[gateway]\ndemo = false\n".to_owned()),
        ("a server", Home::office("office")),
        ("an agent", "[agents.me]\npeer_uid = 4242\n".to_owned()),
    ] {
        home.config(&config);
        let mut gate = home.up(&["--json"]);
        assert!(gate.out.until("\"url\"").contains("\"demo\":false"), "{what}");
        assert_eq!(gate.hello(), Err(401), "{what}");
        drop(gate);
        let _made = std::fs::remove_dir_all(home.path().join(".local"));
    }
}

/// The demo agent, the demo's rules and everybody's rules, and a real server beside it: that is nothing for the demo agent.
#[test]
fn a_real_server_closes_the_demo_before_it_is_there() {
    let home = Home::new("beside");
    home.config("");
    home.policy("@id(\"all\") @because(\"a test\")\npermit(principal, action, resource);\n");
    let mut gate = home.up(&["--json"]);
    gate.hello().unwrap();
    assert_eq!(gate.tools().len(), 5);
    home.config(&Home::office("office"));
    gate.err.until("Server `office` is there now");
    home.done(&["tool", "review"]);
    home.done(&["tool", "accept", "--all"]);
    gate.err.until("The demo is over");
    assert_eq!(gate.hello(), Err(401));
}

#[test]
fn servers_come_and_go_while_the_gate_runs() {
    let home = Home::new("servers");
    home.config("[gateway]\ndemo = false\n");
    home.policy("@id(\"all\") @because(\"a test\")\npermit(principal, action, resource);\n");
    let token = home.done(&["agent", "add", "support"]).trim().to_owned();
    let mut gate = home.up(&["--json"]);
    gate.token = Some(token);
    gate.hello().unwrap();
    assert_eq!(gate.tools(), Vec::<String>::new());

    home.config(&format!("[gateway]\ndemo = false\n{}", Home::office("office")));
    gate.err.until("Server `office` is there now");
    assert_eq!(gate.tools(), Vec::<String>::new(), "nothing is accepted yet");
    home.done(&["tool", "review"]);
    home.done(&["tool", "accept", "office/search_mail"]);
    while gate.tools().is_empty() {}
    assert!(gate.call("office__search_mail", &json!({ "query": "x" })).starts_with("1 mail"));

    home.config(&format!("[gateway]\ndemo = false\n{}call_timeout = \"7s\"\n", Home::office("office")));
    gate.err.until("Server `office` is reached otherwise");
    assert!(gate.call("office__search_mail", &json!({ "query": "x" })).starts_with("1 mail"));

    // What cannot be used leaves the old one in force.
    home.config("[gateway]\ndemo = false\n[servers.office]\nurl = \"https://a.example/\"\nheaders = { A = { env = \"NO_SUCH\" } }\n");
    gate.err.until("THE CHANGE IS NOT IN FORCE");
    gate.err.until("the environment variable `NO_SUCH` is not set");
    assert!(gate.call("office__search_mail", &json!({ "query": "x" })).starts_with("1 mail"));

    home.config("[gateway]\ndemo = false\n");
    gate.err.until("Server `office` is gone");
    let gone = "Unknown tool: office__search_mail";
    assert_eq!(gate.call("office__search_mail", &json!({ "query": "x" })), gone);

    // Its tool is still accepted. A server that does not start runs nothing, and that is said.
    home.config("[gateway]\ndemo = false\n[servers.office]\ncommand = [\"/nowhere/office\"]\n");
    let said = loop {
        let said = gate.call("office__search_mail", &json!({ "query": "x" }));
        if said != gone {
            break said;
        }
    };
    assert_eq!(
        said,
        "Toolgate: the call was not sent: the server could not be reached, or the tool is not what was accepted any more. It did not run."
    );
}

#[test]
fn what_needs_a_new_start_is_said_loudly() {
    let home = Home::new("restart");
    home.config("[gateway]\ndemo = false\n");
    let gate = home.up(&["--json"]);
    home.config("[gateway]\ndemo = false\nmax_sessions = 7\n[log]\norigin = \"gate.example.org/log\"\n");
    let said = gate.err.until("NOT IN FORCE YET");
    assert!(said.starts_with("NOT IN FORCE YET: `[gateway]` and `[log]`."), "{said}");
}

/// The first agent's token is shown once: a start that fails must not use it up.
#[test]
fn a_gate_that_does_not_come_up_writes_nothing_down() {
    let home = Home::new("failed");
    home.config(&Home::office("office"));
    let taken = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let shown = home.shown(&["up", "--listen", &taken.local_addr().unwrap().to_string()]);
    assert!(shown.contains("error: could not listen on"), "{shown}");
    let socket = home.path().join(".local/state/toolgate/gate.sock");
    let other = UnixListener::bind(&socket).unwrap();
    let shown = home.shown(&["up", "--listen", "127.0.0.1:0"]);
    assert!(shown.contains("error: another gate listens on"), "{shown}");
    drop(other);
    home.policy("permit(principal, action, resource);\n");
    let shown = home.shown(&["up", "--listen", "127.0.0.1:0"]);
    assert!(shown.contains("rules.cedar:1:1"), "{shown}");
    assert!(!socket.exists(), "what was listened on is gone");
    assert_eq!(home.done(&["log", "tail", "--json"]), "");
    assert_eq!(home.done(&["agent", "list", "--json"]).trim(), "[]");

    home.policy("@id(\"all\") @because(\"a test\")\npermit(principal, action, resource);\n");
    let mut gate = home.up(&["--json"]);
    let up: Value = serde_json::from_str(&gate.out.until("\"url\"")).unwrap();
    gate.token = Some(up["token"].as_str().unwrap().to_owned());
    gate.hello().unwrap();
}

/// `toolgate up | head -3`: the gate does not end without a word because nobody reads what it prints.
#[test]
fn a_gate_that_nobody_reads_goes_on_and_ends_in_order() {
    let home = Home::new("unread");
    let mut process = home
        .command(&["up", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    drop(out);
    let mut gate = Home::gate(process, Printed::of(std::io::empty()), &first);
    gate.hello().unwrap();
    let mail = json!({ "query": "invoice" });
    assert!(gate.call("demo__search_mail", &mail).starts_with("1 mail"));
    gate.err.until("Nobody reads standard output any more");
    assert!(gate.call("demo__search_mail", &mail).starts_with("1 mail"));
    let pid = gate.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(gate.process.wait().unwrap().code(), Some(0));
    assert_eq!(gate.err.all().matches("Nobody reads").count(), 1, "{}", gate.err.all());
    assert!(home.done(&["log", "tail", "-n", "1", "--json"]).contains("\"kind\":\"stop\""));
}

#[test]
fn the_folder_of_the_socket_decides_who_may_connect() {
    let home = Home::new("socket");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let gate = home.up(&["--json"]);
    let folder = home.path().join(".local/state/toolgate");
    assert_eq!((mode(&folder), mode(&folder.join("gate.sock"))), (0o700, 0o666));
    drop(gate);

    // Where the operator made it so, users with a `peer_uid` come in; a folder that is not there is made private.
    let open = home.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    let uid = fs::metadata(home.path()).unwrap().uid();
    for (folder, wanted) in [("open", 0o755), ("made", 0o700)] {
        let socket = home.path().join(folder).join("gate.sock");
        home.config(&format!(
            "[gateway]\nsocket = {socket:?}\n[agents.me]\npeer_uid = {uid}\n[questions.owner]\npeople = [\"ada\"]\n"
        ));
        let _gate = home.up(&["--json"]);
        assert_eq!((mode(&home.path().join(folder)), mode(&socket)), (wanted, 0o666), "{folder}");
    }
}
