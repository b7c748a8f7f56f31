//! Suites which drive whole gates, most of them with other people's programs. What a suite needs it installs; what it cannot get is a
//! failure, never a test left out.

mod claude;
mod flush;
pub(crate) mod gate;
mod go;
mod gvisor;
mod node;
mod packages;
mod python;
mod vault;
mod wire;

use std::process::Command;

use anyhow::{Context as _, Result};

pub(crate) use node::conformance_client;

use crate::run::{Totals, Workspace, count, say};

/// One suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    Cells,
    Claude,
    Flush,
    Go,
    Gvisor,
    Layers,
    Node,
    Packages,
    Python,
    Stranger,
    Vault,
    Wire,
}

impl Suite {
    pub(crate) const ALL: [Self; 12] = [
        Self::Cells,
        Self::Claude,
        Self::Flush,
        Self::Go,
        Self::Gvisor,
        Self::Layers,
        Self::Node,
        Self::Packages,
        Self::Python,
        Self::Stranger,
        Self::Vault,
        Self::Wire,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cells => "cells",
            Self::Claude => "claude",
            Self::Flush => "flush",
            Self::Go => "go",
            Self::Gvisor => "gvisor",
            Self::Layers => "layers",
            Self::Node => "node",
            Self::Packages => "packages",
            Self::Python => "python",
            Self::Stranger => "stranger",
            Self::Vault => "vault",
            Self::Wire => "wire",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Cells => "ten thousand cells in a row and 200 at once, which leave nothing behind",
            Self::Claude => "Claude Code, offline against a scripted model",
            Self::Flush => "the flushes of the store, counted by strace",
            Self::Go => "an independent reader of the log, written in Go",
            Self::Gvisor => {
                "cells with a kernel of their own, and the hostile programs in them, also as another user"
            }
            Self::Layers => {
                "hostile programs in cells of which one layer is switched off: they have to get out"
            }
            Self::Node => "the conformance suite and the Inspector, and servers made with the TypeScript SDK",
            Self::Packages => {
                "pip, npm, git, cargo, node, python and java in cells, with a way out to one server"
            }
            Self::Python => "the clients of the Python SDK and of FastMCP, in three eras",
            Self::Stranger => "the tests of cells once more, as a user who is not root",
            Self::Vault => "credentials minted by PostgreSQL, OpenBao, OpenSSH and a stand-in for AWS",
            Self::Wire => "unknown fields, byte for byte through the gate, in both eras on both sides",
        }
    }

    /// Reads names separated by commas, or `all`.
    pub(crate) fn parse_all(names: &str) -> Result<Vec<Self>> {
        if names == "all" {
            return Ok(Self::ALL.to_vec());
        }
        let known = || Self::ALL.map(Self::name).join(", ");
        let find = |name: &str| Self::ALL.into_iter().find(|suite| suite.name() == name);
        names
            .split(',')
            .map(|name| {
                find(name).with_context(|| format!("`{name}` is no suite; there are: {}, all", known()))
            })
            .collect()
    }

    pub(crate) fn run(self, workspace: &Workspace) -> Result<Totals> {
        match self {
            Self::Cells => cells(workspace),
            Self::Claude => claude::run(workspace),
            Self::Flush => flush::run(workspace),
            Self::Go => go::run(workspace),
            Self::Gvisor => gvisor::run(workspace),
            Self::Layers => layers(workspace),
            Self::Node => node::run(workspace),
            Self::Packages => packages::run(workspace),
            Self::Python => python::run(workspace),
            Self::Stranger => stranger(workspace),
            Self::Vault => vault::run(workspace),
            Self::Wire => wire::run(workspace),
        }
    }
}

/// The test of what cells leave behind, with more of them than in the ordinary tests.
fn cells(workspace: &Workspace) -> Result<Totals> {
    let test = ["test", "--workspace", "--locked", "--test", "leaks"];
    count("ten thousand cells", workspace.cargo(test).env("TOOLGATE_CELLS", "10000"))
}

/// The tests of the tests of cells, which need a build of their own.
fn layers(workspace: &Workspace) -> Result<Totals> {
    let test = ["test", "--workspace", "--locked", "--test", "layers", "--features"];
    let mut command = workspace.cargo(test);
    count("the layers of cells", command.arg("toolgate-sandbox/danger-switchable-layers"))
}

/// The tests of cells, by a user to whom nothing belongs. Needs root, who can be anybody; the other tests are for whoever runs them.
fn stranger(workspace: &Workspace) -> Result<Totals> {
    let tests = [
        "bad_input",
        "bare",
        "cell",
        "egress",
        "files",
        "hostile",
        "image",
        "launch",
        "leaks",
        "on_image",
        "pool",
        "workspace",
    ];
    let mut totals = count("the tests of cells as another user", &mut as_stranger(workspace, &tests))?;
    let mut builtin = as_stranger(workspace, &["program"]);
    totals.add(count("the tests of built-in tools as another user", builtin.args(["--", "builtin::"]))?);
    Ok(totals)
}

/// These tests of the workspace, by a user to whom nothing belongs.
fn as_stranger(workspace: &Workspace, tests: &[&str]) -> Command {
    let runner = workspace.root().join("xtask/src/suites/stranger.sh");
    let mut command = workspace.cargo(["test", "--workspace", "--locked", "--no-fail-fast", "--config"]);
    command.arg(format!("target.'cfg(unix)'.runner={:?}", [runner]));
    command.args(tests.iter().flat_map(|test| ["--test", test]));
    command
}

/// The tests of one suite as they go by.
struct Checks {
    suite: &'static str,
    totals: Totals,
}

impl Checks {
    fn new(suite: Suite) -> Self {
        Self { suite: suite.name(), totals: Totals::default() }
    }

    /// Runs one test and says what came of it.
    fn check(&mut self, name: &str, test: impl FnOnce() -> Result<()>) {
        match test() {
            Ok(()) => {
                say(&format!("{}: ok      {name}", self.suite));
                self.totals.add(Totals::passed());
            }
            Err(error) => {
                let said = format!("{name}: {}", ending(&format!("{error:#}")));
                say(&format!("{}: FAILED  {said}", self.suite));
                self.totals.add(Totals::failed(format!("{}: {said}", self.suite)));
            }
        }
    }
}

/// The first line of a text, and its last ones: programs say last what went wrong.
fn ending(text: &str) -> String {
    const SHOWN: usize = 30;
    let lines: Vec<&str> = text.lines().collect();
    match lines.len().checked_sub(SHOWN) {
        None | Some(0 | 1) => text.to_owned(),
        Some(from) => {
            let (head, tail) =
                (lines.first().copied().unwrap_or_default(), lines.get(from..).unwrap_or_default());
            format!("{head}\n…\n{}", tail.join("\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_failures_are_told_by_their_end() {
        let text = (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        assert_eq!(ending("one\ntwo"), "one\ntwo");
        assert!(ending(&text).starts_with("0\n…\n70\n71\n") && ending(&text).ends_with("\n99"));
    }

    #[test]
    fn suites_are_known_by_name_and_nothing_else() {
        assert_eq!(Suite::parse_all("go,node").unwrap(), [Suite::Go, Suite::Node]);
        assert_eq!(Suite::parse_all("all").unwrap(), Suite::ALL);
        for unknown in ["", "rust", "go,", "go node"] {
            assert!(Suite::parse_all(unknown).is_err(), "names: {unknown:?}");
        }
    }
}
