//! `toolgate init`: the servers of other people's clients.

use std::fs;

use crate::home::Home;

const DESKTOP: &str = r#"{"mcpServers":{
    "files":{"command":"npx","args":["-y","server-files","/srv"]},
    "Team Wiki":{"command":"wiki","env":{"WIKI_TOKEN":"s3cret-a","MODE":"fast"}}}}"#;
const CURSOR: &str = r#"{"mcpServers":{
    "files":{"command":"other-files"},
    "nothing":{"args":["x"]},
    "search":{"url":"https://search.example/mcp","headers":{"Authorization":"Bearer s3cret-b"}},
    "old":{"url":"https://old.example/sse","type":"sse"}}}"#;
const CODE: &str = r#"{"servers":{
    "git":{"type":"stdio","command":"git-mcp","env":{"GIT_KEY":"${env:MY_GIT_KEY}"}},
    "asks":{"command":"asks","env":{"ASK_KEY":"${input:key}"}},
    "plain":{"url":"http://plain.example/mcp"},
    "demo":{"command":"demo-mcp"}}}"#;
const CLAUDE: &str = r#"{"numStartups":3,"mcpServers":{
    "toolgate":{"type":"http","url":"http://127.0.0.1:7420/mcp"},
    "bad":{"command":"x","env":{"A = \"1\"\n[gateway]\ndanger_plain_http = true\n#":"y"}},
    "mail":{"command":"mailer","args":["--fast"]}}}"#;

#[test]
fn servers_of_four_clients_are_found_and_shown_and_nothing_is_changed() {
    let home = Home::new("init");
    let files = [
        (".claude.json", CLAUDE),
        (".config/Claude/claude_desktop_config.json", DESKTOP),
        (".cursor/mcp.json", CURSOR),
        (".config/Code/User/mcp.json", CODE),
    ];
    for (path, text) in files {
        home.write(path, text);
    }
    let shown = home.shown(&["init"]);
    assert!(!shown.contains("s3cret"), "{shown}");
    insta::assert_snapshot!(shown, @r#"
    bad                  not behind the gate  (Claude Code: ~/.claude.json)
    mail                 not behind the gate  (Claude Code: ~/.claude.json)
    files                not behind the gate  (Claude Desktop: ~/.config/Claude/claude_desktop_config.json)
    team-wiki            not behind the gate  (Claude Desktop: ~/.config/Claude/claude_desktop_config.json)
    search               not behind the gate  (Cursor: ~/.cursor/mcp.json)
    git                  not behind the gate  (VS Code: ~/.config/Code/User/mcp.json)
    plain                not behind the gate  (VS Code: ~/.config/Code/User/mcp.json)
    demo-server          not behind the gate  (VS Code: ~/.config/Code/User/mcp.json)

    Would create ~/.config/toolgate/toolgate.toml and, beside it, policies/starter.cedar with its examples.

    Would add to ~/.config/toolgate/toolgate.toml:

    [servers.mail]  # from Claude Code
    command = ["mailer", "--fast"]

    [servers.files]  # from Claude Desktop
    command = ["npx", "-y", "server-files", "/srv"]
    # In its cell it may need "/srv", the host that `npx` fetches from: name them in a profile

    [servers.team-wiki]  # from Claude Desktop
    command = ["wiki"]
    env.MODE = "fast"
    env.WIKI_TOKEN = { file = "secrets/team-wiki.WIKI_TOKEN" }

    [servers.search]  # from Cursor
    url = "https://search.example/mcp"
    headers.Authorization = { file = "secrets/search.Authorization" }

    [servers.git]  # from VS Code
    command = ["git-mcp"]
    env.GIT_KEY = { env = "MY_GIT_KEY" }

    [servers.demo-server]  # from VS Code
    command = ["demo-mcp"]

    Programs run in cells, with the system's programs and libraries and nothing else: no files of yours, no network. What one needs besides, its profile names: `profile = "NAME"`, and `[profiles.NAME]` with `read`, `exec`, `write`, `net`. `toolgate doctor --cell NAME` says what that comes to.

    Would write a value into ~/.config/toolgate/secrets/team-wiki.WIKI_TOKEN (mode 600; not shown)
    Would write a value into ~/.config/toolgate/secrets/search.Authorization (mode 600; not shown)

    ~/.cursor/mcp.json: `files` was left out: Claude Desktop has another server of this name; rename one of them
    ~/.cursor/mcp.json: `nothing` was left out: it has neither a `command` nor a `url`
    ~/.cursor/mcp.json: `old` was left out: it speaks the transport of 2024-11-05 (SSE), which the gate does not
    ~/.config/Code/User/mcp.json: `asks` was left out: its client fills in a part of it (`${…}`); add it to the configuration by hand
    `bad` was left out: not TOML: keys cannot be multi-line basic strings, expected basic string, literal string; every key stands in a table such as `[gateway]`, as in `key = "value"`
    `plain` was left out: `http://plain.example/mcp` is not encrypted; use `https://…`; `http://` is for 127.0.0.1, [::1] and localhost
    Nothing was written. `toolgate init --write` writes it.
    exit 0
    "#);
    assert!(!home.path().join(".config/toolgate").exists());

    let written = home.shown(&["init", "--write"]);
    assert!(!written.contains("Would"), "{written}");
    let config = fs::read_to_string(home.path().join(".config/toolgate/toolgate.toml")).unwrap();
    assert!(!config.contains("s3cret") && !config.contains("danger"), "{config}");
    for (path, text) in files {
        assert_eq!(fs::read_to_string(home.path().join(path)).unwrap(), text, "{path} is as it was");
    }
    assert_eq!(
        fs::read_to_string(home.path().join(".config/toolgate/secrets/team-wiki.WIKI_TOKEN")).unwrap(),
        "s3cret-a"
    );
    let again = home.shown(&["init", "--write"]);
    assert!(again.contains("There is nothing to write"), "{again}");
    assert!(home.shown(&["policy", "check"]).ends_with("exit 0"));
}

/// Whoever wrote the project's files does not say what a server of the user's own is.
#[test]
fn the_users_own_files_come_before_those_of_the_project() {
    let home = Home::new("init-project");
    home.write(".claude.json", r#"{"mcpServers":{"mail":{"command":"mailer"},"git":{"command":"git-mcp"}}}"#);
    home.write(
        "work/.mcp.json",
        r#"{"mcpServers":{"mail":{"command":"evil"},"git":{"command":"git-mcp"},"own":{"command":"own"}}}"#,
    );
    let shown = home.shown(&["init", "--write"]);
    assert!(
        shown.contains(
            "~/work/.mcp.json: `mail` was left out: Claude Code has another server of this name; rename one of them"
        ),
        "{shown}"
    );
    assert!(!shown.contains("`git` was left out"), "the same twice is no news: {shown}");
    let config = fs::read_to_string(home.path().join(".config/toolgate/toolgate.toml")).unwrap();
    assert!(
        config.contains("\"mailer\"") && config.contains("\"own\"") && !config.contains("evil"),
        "{config}"
    );
}
