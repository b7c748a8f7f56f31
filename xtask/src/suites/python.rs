//! The clients of the Python SDK and of FastMCP, against upstreams of three eras.

use anyhow::{Result, bail};

use super::{
    Checks, Suite,
    gate::{ALLOW_ALL, Gate, Program, limited, received, scratch},
};
use crate::{
    run::{Totals, Workspace, output},
    tools,
};

const PACKAGES: [&str; 2] = ["mcp==2.3.0", "fastmcp==4.1.2"];

/// Permits everything but one tool.
const POLICY: &str = "@id(\"everything\")\n@because(\"this is a test\")\npermit(principal, action, resource);\n\
    @id(\"no-secrets\")\n@because(\"nobody reads secrets\")\n\
    forbid(principal, action == Action::\"up/secrets\", resource);\n";

pub(super) fn run(workspace: &Workspace) -> Result<Totals> {
    let python = tools::pip(workspace, "python", &PACKAGES)?;
    let mut checks = Checks::new(Suite::Python);
    for client in ["mcp", "fastmcp"] {
        for era in ["legacy", "modern", "both"] {
            checks.check(
                &format!("{client} reaches an upstream of era {era}, and is refused a forbidden tool"),
                || {
                    let test = format!("{client}-{era}");
                    let log = scratch(workspace, "python", &format!("{test}-upstream"))?.join("log");
                    let arguments = ["--era", era, "--log", &log.to_string_lossy()];
                    let upstream = Program::fixture(workspace, "recording-upstream", &arguments)?;
                    let servers = format!("[servers.up]\nurl = \"{}\"\n", upstream.url());
                    let gate = Gate::start(workspace, "python", &test, &servers, Some(POLICY))?;
                    let script = gate.folder().join("client.py");
                    std::fs::write(&script, include_str!("client.py"))?;
                    output(limited(&python).arg(&script).args([client, gate.url()]).arg(gate.token_file()))?;
                    gate.stop()?;
                    let calls = received(&log, "tools/call")?;
                    match calls.as_slice() {
                        [one] if one.pointer("/params/name").is_some_and(|name| name == "echo") => Ok(()),
                        other => bail!("the upstream was to see one call of `echo`, and saw {other:?}"),
                    }
                },
            );
        }
    }
    checks.check("everything is permitted when the policy says so", || {
        let upstream = Program::fixture(workspace, "recording-upstream", &[])?;
        let servers = format!("[servers.up]\nurl = \"{}\"\n", upstream.url());
        let gate = Gate::start(workspace, "python", "all", &servers, Some(ALLOW_ALL))?;
        let script = gate.folder().join("client.py");
        std::fs::write(&script, include_str!("client.py"))?;
        output(
            limited(&python).arg(&script).args(["mcp", gate.url()]).arg(gate.token_file()).arg("permitted"),
        )?;
        gate.stop().map(drop)
    });
    Ok(checks.totals)
}
