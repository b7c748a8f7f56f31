//! The independent reader of the log, written in Go against Debian's `golang.org/x/mod`.

use std::process::Command;

use anyhow::Result;

use super::{
    Checks, Suite,
    gate::{ALLOW_ALL, Gate, Program, limited},
};
use crate::{
    run::{Totals, Workspace, count, output},
    tools,
};

pub(super) fn run(workspace: &Workspace) -> Result<Totals> {
    tools::system("go", "golang-go")?;
    tools::debian("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog", "golang-golang-x-mod-dev")?;
    // The whole workspace, so that dependencies are as the other tests have them, and are not built again.
    let go_test = ["test", "--workspace", "--locked", "--test", "go", "--", "--ignored"];
    let mut totals = count("the reader in Go", &mut workspace.cargo(go_test))?;
    let mut checks = Checks::new(Suite::Go);
    checks.check("the reader in Go accepts the log of a gate that was up", || {
        let upstream = Program::fixture(workspace, "recording-upstream", &[])?;
        let servers = format!("[servers.up]\nurl = \"{}\"\n", upstream.url());
        let gate = Gate::start(workspace, "go", "log", &servers, Some(ALLOW_ALL))?;
        let mut drive = limited(workspace.built("drive-tools"));
        drive.args(["--url", gate.url(), "--prefix", "up__", "--token-file"]).arg(gate.token_file());
        drive.args([
            "--calls",
            r#"[{"name":"echo","arguments":{"message":"hi"}},{"name":"absent","arguments":{}}]"#,
        ]);
        output(&mut drive)?;
        let key = gate.run(&["log", "key"])?;
        let log = gate.folder().join("state/toolgate/log");
        gate.stop()?;
        let reader = workspace.suite_folder("go")?.join("go-verifier");
        let mut build = Command::new("go");
        build
            .args(["build", "-o"])
            .arg(&reader)
            .arg(workspace.root().join("crates/testkit/go-verifier/main.go"));
        build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode");
        output(&mut build)?;
        output(Command::new(&reader).arg("-dir").arg(&log).args(["-vkey", key.trim(), "-min-size", "3"]))
            .map(drop)
    });
    totals.add(checks.totals);
    Ok(totals)
}
