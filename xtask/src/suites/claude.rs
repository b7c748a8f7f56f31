//! Claude Code, offline against a scripted model: it sees the tools, calls one, and is refused another.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{
    Checks, Suite,
    gate::{Gate, Program, limited, received, scratch},
};
use crate::{
    run::{Totals, Workspace, output},
    tools,
};

const PACKAGES: [&str; 1] = ["@anthropic-ai/claude-code@2.1.328"];
const PROGRAM: &str = "node_modules/@anthropic-ai/claude-code/bin/claude.exe";

const POLICY: &str = "@id(\"echo\")\n@because(\"this is a test\")\n\
    permit(principal, action == Action::\"up/echo\", resource);\n";

pub(super) fn run(workspace: &Workspace) -> Result<Totals> {
    let claude = tools::npm(workspace, "claude", &PACKAGES)?.join(PROGRAM);
    let mut checks = Checks::new(Suite::Claude);
    for era in ["legacy", "modern"] {
        checks.check(&format!("calls one tool and is refused another, upstream of era {era}"), || {
            let folder = scratch(workspace, "claude", &format!("{era}-upstream"))?;
            let log = folder.join("log");
            let arguments = ["--era", era, "--log", &log.to_string_lossy()];
            let upstream = Program::fixture(workspace, "recording-upstream", &arguments)?;
            let servers = format!("[servers.up]\nurl = \"{}\"\n", upstream.url());
            let gate = Gate::start(workspace, "claude", era, &servers, Some(POLICY))?;
            let script = json!([
                [{"tool": "mcp__gate__up__echo", "input": {"message": "hello"}}],
                [{"tool": "mcp__gate__up__secrets", "input": {}}],
                [{"text": "All done."}]
            ]);
            let seen = drive(workspace, &claude, &folder, &gate, &script)?;
            gate.stop()?;
            judge(&seen)?;
            let calls = received(&log, "tools/call")?;
            match calls.as_slice() {
                [one] if one.pointer("/params/arguments/message").is_some_and(|text| text == "hello") => {
                    Ok(())
                }
                other => bail!("the upstream was to see one call of `echo`, and saw {other:?}"),
            }
        });
    }
    Ok(checks.totals)
}

/// Runs Claude Code to its end, and returns the last request that the model saw.
fn drive(workspace: &Workspace, claude: &Path, folder: &Path, gate: &Gate, script: &Value) -> Result<Value> {
    let at = |name: &str| -> PathBuf { folder.join(name) };
    for name in ["home", "project"] {
        std::fs::create_dir_all(at(name))?;
    }
    std::fs::write(at("script.json"), script.to_string())?;
    let server = json!({
        "type": "http", "url": gate.url(), "alwaysLoad": true,
        "headers": {"Authorization": format!("Bearer {}", gate.token())}
    });
    std::fs::write(at("mcp.json"), json!({"mcpServers": {"gate": server}}).to_string())?;
    let (script, requests) = (at("script.json"), at("requests.jsonl"));
    let model = Program::fixture(
        workspace,
        "mock-messages",
        &["--script", &script.to_string_lossy(), "--log", &requests.to_string_lossy()],
    )?;
    let mut command = limited(claude);
    command.current_dir(at("project")).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", at("home"));
    command.env("ANTHROPIC_BASE_URL", model.url()).env("ANTHROPIC_API_KEY", "not-a-key");
    for name in ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER", "DISABLE_TELEMETRY"] {
        command.env(name, "1");
    }
    command.args(["-p", "go", "--strict-mcp-config", "--mcp-config"]).arg(at("mcp.json"));
    command.args(["--allowedTools", "mcp__gate__up__echo,mcp__gate__up__secrets"]);
    command.args(["--output-format", "stream-json", "--verbose", "--model", "claude-sonnet-4-5"]);
    output(&mut command)?;
    let requests = std::fs::read_to_string(requests)?;
    let last = requests.lines().last().context("the model saw no request")?;
    Ok(serde_json::from_str(last)?)
}

fn judge(seen: &Value) -> Result<()> {
    let offered = |name: &str| {
        seen.get("tools").and_then(Value::as_array).is_some_and(|tools| tools.iter().any(|tool| tool == name))
    };
    let result = |turn: usize, name: &str| seen.pointer(&format!("/results/{turn}/0/{name}")).cloned();
    if !offered("mcp__gate__up__echo") || offered("mcp__gate__up__secrets") {
        bail!("the wrong tools were offered: {}", seen.get("tools").unwrap_or(&Value::Null));
    }
    let text = result(0, "text").unwrap_or_default();
    if result(0, "is_error") != Some(json!(false))
        || !text.as_str().is_some_and(|text| text.contains("hello"))
    {
        bail!("the permitted call came back as {text}");
    }
    if result(1, "is_error") != Some(json!(true)) {
        bail!("the refused call came back as {:?}", result(1, "text"));
    }
    Ok(())
}
