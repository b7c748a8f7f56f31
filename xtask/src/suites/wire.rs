//! What no SDK knows passes the gate byte for byte, in both directions, whichever eras agent and server are of.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    Checks, Suite,
    gate::{ALLOW_ALL, Gate, Program, scratch},
};
use crate::run::{Totals, Workspace};

/// Members of an agent's `params` and of its `_meta`, written as no serializer would.
const PARAMS: &str = r#""x-params":{"b": [1,2.50, 9007199254740993],"a":null,"text":"caf\u00e9"}"#;
const META: &str = r#""x-meta": {"z":1.0,"a" :[]}"#;

/// What `recording-upstream` says in each result, and in its definition of a tool.
const RESULT: &str = r#""x-unknown":{"b":[1,2.50,9007199254740993],"a":null,"text":"caf\u00e9"}"#;
const DEFINITION: &str = r#""x-unknown":{"b":[1,2.50],"a":null,"text":"caf\u00e9"}"#;

/// A method, the name in its header and body, the server's own name, and what has to be in the answer.
const REQUESTS: [(&str, &str, &str, &str); 3] = [
    ("tools/call", r#""name":"up__echo""#, r#""name":"echo""#, RESULT),
    ("prompts/get", r#""name":"up__a_prompt""#, r#""name":"a_prompt""#, RESULT),
    ("resources/read", r#""uri":"record://note""#, r#""uri":"record://note""#, RESULT),
];

pub(super) fn run(workspace: &Workspace) -> Result<Totals> {
    let mut checks = Checks::new(Suite::Wire);
    for agent in ["legacy", "modern"] {
        for (server, stream) in [("legacy", false), ("legacy", true), ("modern", false), ("modern", true)] {
            let shape = if stream { "streams" } else { "JSON" };
            let name =
                format!("an agent of era {agent} and a server of era {server} that answers in {shape}");
            checks.check(&name, || {
                let test = format!("{agent}-{server}-{stream}");
                let log = scratch(workspace, "wire", &format!("{test}-upstream"))?.join("log");
                let log_name = log.to_string_lossy();
                let mut arguments = vec!["--era", server, "--log", &log_name];
                arguments.extend(stream.then_some("--sse"));
                let upstream = Program::fixture(workspace, "recording-upstream", &arguments)?;
                let servers = format!("[servers.up]\nurl = \"{}\"\n", upstream.url());
                let gate = Gate::start(workspace, "wire", &test, &servers, Some(ALLOW_ALL))?;
                through(&Agent::of(&gate, agent)?, &log)?;
                gate.stop().map(drop)
            });
        }
    }
    Ok(checks.totals)
}

/// Sends each request and looks at both ends.
fn through(agent: &Agent<'_>, log: &Path) -> Result<()> {
    let listed = agent.ask("tools/list", "")?;
    if !listed.contains(DEFINITION) {
        bail!("the list of tools came as {listed}");
    }
    for (method, shown, own, want) in REQUESTS {
        let answer = agent.ask(method, shown)?;
        if !answer.contains(want) {
            bail!("{method} was answered with {answer}");
        }
        let sent = last_received(log, method)?;
        if ![PARAMS, META, own].iter().all(|part| sent.contains(part)) {
            bail!("{method} reached the server as {sent}");
        }
    }
    Ok(())
}

/// The exact text of the last message with this method that the server got.
fn last_received(log: &Path, method: &str) -> Result<String> {
    let text = std::fs::read_to_string(log)?;
    let of_method = format!("\"method\":\"{method}\"");
    let message = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let message = line.get("message")?.as_str()?;
        (line.get("from")? == "client" && message.contains(&of_method)).then(|| message.to_owned())
    };
    text.lines().rev().find_map(message).with_context(|| format!("no {method} reached the server"))
}

/// An agent that writes its messages byte by byte.
struct Agent<'a> {
    gate: &'a Gate,
    /// The session of an agent of the legacy era.
    session: Option<String>,
}

impl<'a> Agent<'a> {
    fn of(gate: &'a Gate, era: &str) -> Result<Self> {
        if era == "modern" {
            return Ok(Self { gate, session: None });
        }
        let hello =
            r#""protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"wire","version":"1"}"#;
        let answer = post(gate, "", &message("initialize", hello))?;
        let session = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
        let session = session.with_context(|| format!("no session was begun: {answer}"))?.to_owned();
        Ok(Self { gate, session: Some(session) })
    }

    /// Sends a request with this in its `params`, and returns all that came back.
    fn ask(&self, method: &str, params: &str) -> Result<String> {
        let comma = if params.is_empty() { "" } else { "," };
        let (headers, meta) = match &self.session {
            Some(session) => (format!("Mcp-Session-Id: {session}\r\n"), META.to_owned()),
            None => {
                let name = params.split('"').nth(3).map(|name| format!("Mcp-Name: {name}\r\n"));
                let name = name.unwrap_or_default();
                (
                    format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n{name}"),
                    format!(
                        r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}},{META}"#
                    ),
                )
            }
        };
        let params = format!(r#"{params}{comma}{PARAMS},"_meta":{{{meta}}}"#);
        post(self.gate, &headers, &message(method, &params))
    }
}

fn message(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}

/// Sends one request, with these headers besides the usual ones, and returns the whole response.
fn post(gate: &Gate, headers: &str, body: &str) -> Result<String> {
    let host = gate.url().strip_prefix("http://").and_then(|rest| rest.strip_suffix("/mcp"));
    let host = host.context("the gate listens elsewhere")?;
    let mut stream = TcpStream::connect(host)?;
    write!(
        stream,
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        gate.token(),
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
