//! The demo: an agent that needs no proof, so that somebody who has just started a gate can see it work.
//!
//! It is there for as long as nothing real is, and it may use the demo's own tools and nothing else, which no rule can
//! change: see [`toolgate_core::policy::Policy::may_see`] and [`toolgate_core::policy::Policy::judge`].

use toolgate_core::call::{Agent, Proof};
use toolgate_core::policy::DEMO;

use crate::config::Config;
use crate::store::AgentRow;

/// The demo agent.
#[must_use]
pub fn agent() -> Option<Agent> {
    Some(Agent { id: DEMO.parse().ok()?, groups: Vec::new(), proof: Proof::Demo })
}

/// Whether who connects from this machine without a token is let in as the demo agent: only where that was not switched
/// off, no agent is registered in any way, no server is configured, and nothing says that the gate is reached from
/// elsewhere, as it is behind a proxy.
#[must_use]
pub fn is_open(config: &Config, agents: &[AgentRow]) -> bool {
    let gateway = &config.gateway;
    gateway.demo
        && gateway.listen.ip().is_loopback()
        && gateway.allowed_hosts.is_empty()
        && gateway.allowed_origins.is_empty()
        && config.oauth.is_none()
        && config.agents.is_empty()
        && agents.is_empty()
        && config.servers.keys().all(|server| server.as_str() == DEMO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_demo_is_open_only_where_nothing_else_is() {
        let row = AgentRow {
            name: "support".parse().unwrap(),
            token_hash: None,
            uid: None,
            groups: Vec::new(),
            disabled: true,
            added_ms: 0,
        };
        let oauth = "[oauth]\nissuer = \"https://a.example\"\naudience = \"b\"\njwks_file = \"k\"";
        for (text, agents, want) in [
            ("", &[][..], true),
            ("[questions.owner]\npeople = [\"owner\"]", &[], true),
            ("", &[row][..], false),
            ("[gateway]\ndemo = false", &[], false),
            ("[gateway]\nlisten = \"0.0.0.0:1\"\ndanger_plain_http = true", &[], false),
            ("[gateway]\nallowed_hosts = [\"gate.example.org\"]", &[], false),
            ("[gateway]\nallowed_origins = [\"https://app.example.org\"]", &[], false),
            ("[agents.support]\npeer_uid = 7", &[], false),
            ("[servers.mail]\ncommand = [\"mail\"]", &[], false),
            (oauth, &[], false),
        ] {
            let config = Config::parse(Path::new("toolgate.toml"), text).unwrap();
            assert_eq!(is_open(&config, agents), want, "{text:?}, {} agents", agents.len());
        }
    }
}
