//! Configurations that are wrong: nothing starts, and the message names file, line and remedy.

use crate::home::Home;

/// What somebody may write, what the gate says, and the line it says it of.
const MISTAKES: [(&str, &str, usize, &str); 18] = [
    ("not TOML", "[gateway\nlisten = \"127.0.0.1:7420\"\n", 1, "not TOML"),
    ("a key twice", "[gateway]\ndemo = true\ndemo = false\n", 3, "duplicate key"),
    ("a misspelt table", "[server.mail]\ncommand = [\"mailer\"]\n", 1, "did you mean `servers`?"),
    ("a misspelt key", "[gateway]\nlissten = \"127.0.0.1:7420\"\n", 2, "did you mean `listen`?"),
    ("a key outside of its table", "listen = \"127.0.0.1:7420\"\n", 1, "unknown key `listen`"),
    ("a port alone", "[gateway]\nlisten = \"7420\"\n", 2, "write it as `listen = \"127.0.0.1:7420\"`"),
    ("open to the network", "[gateway]\n\nlisten = \"0.0.0.0:7420\"\n", 3, "danger_plain_http = true"),
    ("a command as one text", "[servers.files]\ncommand = \"npx files /srv\"\n", 2, "write it as a list"),
    (
        "neither program nor address",
        "[servers.files]\ncall_timeout = \"5s\"\n",
        1,
        "neither `command` nor `url`",
    ),
    ("both", "[servers.files]\ncommand = [\"a\"]\nurl = \"https://a.example\"\n", 3, "keep one of them"),
    ("a reserved name", "[servers.demo]\ncommand = [\"a\"]\n", 1, "belongs to the demo"),
    ("not encrypted", "[servers.files]\nurl = \"http://files.example/mcp\"\n", 2, "use `https://…`"),
    (
        "a secret in the file",
        "[servers.files]\nurl = \"https://files.example/mcp\"\nheaders = { Authorization = \"Bearer abc\" }\n",
        3,
        "say where it is",
    ),
    (
        "a number for a time",
        "[servers.files]\ncommand = [\"a\"]\ncall_timeout = 30\n",
        3,
        "call_timeout = \"90s\"",
    ),
    (
        "a tool of no server",
        "[servers.mail]\ncommand = [\"a\"]\n[tools.\"mial/send\"]\neffects = [\"egress\"]\n",
        3,
        "did you mean `mail/send`?",
    ),
    (
        "an effect that there is not",
        "[servers.mail]\ncommand = [\"a\"]\n[tools.\"mail/send\"]\neffects = [\"sends\"]\n",
        4,
        "the effects are delete, egress, execute, money, privilege, read and write",
    ),
    (
        "more yeses than people",
        "[questions.owner]\npeople = [\"ada\"]\nquorum = 2\n",
        3,
        "choose a number from 1 to 1",
    ),
    (
        "one user as two agents",
        "[agents.a]\npeer_uid = 7\n[agents.b]\npeer_uid = 7\n",
        4,
        "one user can be one agent",
    ),
];

#[test]
fn a_wrong_configuration_does_not_start_and_says_where_and_what_instead() {
    let home = Home::new("mistakes");
    for (what, text, line, says) in MISTAKES {
        home.config(text);
        for command in
            [&["up", "--listen", "127.0.0.1:0"][..], &["mcp"], &["policy", "check"], &["tool", "review"]]
        {
            let shown = home.shown(command);
            let place = format!("error: `~/.config/toolgate/toolgate.toml`, line {line}: ");
            assert!(shown.starts_with(&place), "{what}, {command:?}: {shown}");
            assert!(shown.contains(says), "{what}, {command:?}: {shown}");
            assert!(shown.contains("\nhint: "), "{what}, {command:?}: {shown}");
            assert!(shown.ends_with("exit 1"), "{what}, {command:?}: {shown}");
        }
        assert!(!home.path().join(".local").exists(), "{what}: nothing was made");
    }
}

#[test]
fn a_wrong_policy_does_not_start_and_says_where_and_what_instead() {
    let home = Home::new("policies");
    home.config("[questions.owner]\npeople = [\"owner\"]\n");
    for (what, text, says) in [
        ("no Cedar", "permit(principal, action, resource)\n", "rules.cedar"),
        ("no name", "permit(principal, action, resource);\n", "rules.cedar:1:1"),
        (
            "an unknown tool",
            "@id(\"a\") @because(\"b\")\npermit(principal, action == Action::\"mail/send\", resource);\n",
            "rules.cedar:2",
        ),
        (
            "an unknown question",
            "@id(\"a\") @because(\"b\") @ask(\"boss\")\npermit(principal, action, resource);\n",
            "questions: `owner`",
        ),
        (
            "an unknown agent",
            "@id(\"a\") @because(\"b\")\npermit(principal == Agent::\"suport\", action, resource);\n",
            "rules.cedar:2",
        ),
        (
            "a misspelt effect",
            "@id(\"a\") @because(\"b\")\npermit(principal, action in Action::\"reads\", resource);\n",
            "`read`",
        ),
    ] {
        home.policy(text);
        for command in [&["up", "--listen", "127.0.0.1:0"][..], &["policy", "check"]] {
            let shown = home.shown(command);
            assert!(shown.contains("error: ") && shown.contains(says), "{what}, {command:?}: {shown}");
            assert!(shown.ends_with("exit 1"), "{what}, {command:?}: {shown}");
        }
    }
}

#[test]
fn what_others_could_have_written_or_read_is_not_used() {
    let home = Home::new("modes");
    let config = ".config/toolgate/toolgate.toml";
    home.write_with(config, "", 0o666);
    insta::assert_snapshot!(home.shown(&["up"]), @r"
    error: `~/.config/toolgate/toolgate.toml` can be changed by others (mode 666)
    hint: `chmod go-w ~/.config/toolgate/toolgate.toml`
    exit 1
    ");
    home.write(config, "");
    home.write_with(".config/toolgate/policies/rules.cedar", "", 0o622);
    insta::assert_snapshot!(home.shown(&["up"]), @r"
    error: `~/.config/toolgate/policies/rules.cedar` can be changed by others (mode 622)
    hint: `chmod go-w ~/.config/toolgate/policies/rules.cedar`
    exit 1
    ");
}
