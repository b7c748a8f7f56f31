//! `toolgate agent`: who may connect.

use serde_json::json;
use toolgate_broker::identity::Token;
use toolgate_broker::store::{AgentRow, SqliteStore};
use toolgate_core::name::{AgentId, GroupName};
use toolgate_core::policy::DEMO;
use toolgate_ledger::record::{Agent, RosterAction};
use zeroize::Zeroizing;

use crate::args::AgentCommand;
use crate::out::{self, hinted, line, note};
use crate::place::{Place, block_on, gate_line, now_ms, random};

pub(crate) fn run(place: &Place, command: AgentCommand) -> anyhow::Result<()> {
    match command {
        AgentCommand::Add { name, group } => {
            let name = agent_name(&name)?;
            let groups = group.iter().map(|g| g.parse()).collect::<Result<Vec<GroupName>, _>>()?;
            let state = place.open_or_make()?;
            let token = block_on(add(place, &state.store, &name, groups))?;
            show(place, &name, &token)
        }
        AgentCommand::List => list(place),
        AgentCommand::Remove { name } => {
            let name = agent_name(&name)?;
            let line = changed(place, RosterAction::Removed, &name)?;
            let state = place.open()?;
            block_on(async { Ok(state.store.remove_agent(name.clone(), line).await?) })?;
            note(format_args!("Agent `{name}` is removed; its token is refused from now on."));
            place.tell(|| json!({ "agent": name.as_str(), "removed": true }))
        }
        AgentCommand::Rotate { name } => {
            let name = agent_name(&name)?;
            let line = changed(place, RosterAction::Changed, &name)?;
            let state = place.open()?;
            let token = Token::new(random()?);
            let hash = *token.hash().0.as_bytes();
            block_on(async { Ok(state.store.set_agent_token(name.clone(), hash, line).await?) })?;
            show(place, &name, &token.reveal())
        }
    }
}

/// Adds an agent and gives its token back, which is nowhere else.
pub(crate) async fn add(
    place: &Place,
    store: &SqliteStore,
    name: &AgentId,
    groups: Vec<GroupName>,
) -> anyhow::Result<Zeroizing<String>> {
    let token = Token::new(random()?);
    let row = AgentRow {
        name: name.clone(),
        token_hash: Some(*token.hash().0.as_bytes()),
        uid: None,
        groups,
        disabled: false,
        added_ms: now_ms(),
    };
    let line = changed(place, RosterAction::Added, name)?;
    store.add_agent(row, line).await?;
    Ok(token.reveal())
}

fn agent_name(text: &str) -> anyhow::Result<AgentId> {
    let name: AgentId = text.parse()?;
    if name.as_str() == DEMO {
        return Err(hinted("the agent name `demo` belongs to the demo", "choose another name"));
    }
    Ok(name)
}

fn changed(
    place: &Place,
    action: RosterAction,
    name: &AgentId,
) -> anyhow::Result<toolgate_broker::port::Line> {
    gate_line(Agent { action, by: place.user(), name: name.to_string() })
}

fn show(place: &Place, name: &AgentId, token: &str) -> anyhow::Result<()> {
    let listen = place.config()?.gateway.listen;
    let url = format!("http://{listen}/mcp");
    if place.json {
        return out::json(&json!({ "agent": name.as_str(), "token": token, "url": url }));
    }
    line(token)?;
    note(format_args!(
        "\nThis is the token of agent `{name}`. It is not shown again, and not stored. For Claude Code:\n"
    ));
    note(format_args!("  {}", claude_line(&url, Some(token))));
    Ok(())
}

/// The line to paste for Claude Code. The demo needs no token.
pub(crate) fn claude_line(url: &str, token: Option<&str>) -> String {
    let header =
        token.map(|token| format!(" --header \"Authorization: Bearer {token}\"")).unwrap_or_default();
    format!("claude mcp add --transport http toolgate {url}{header}")
}

fn list(place: &Place) -> anyhow::Result<()> {
    let config = place.config()?;
    let stored =
        if place.home.state.join("state.db").exists() { place.open()?.store.agents()? } else { Vec::new() };
    let mut names: Vec<&AgentId> =
        stored.iter().map(|agent| &agent.name).chain(config.agents.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for name in names {
        let (row, rules) = (stored.iter().find(|agent| agent.name == *name), config.agents.get(name));
        let mut groups: Vec<&str> = row.iter().flat_map(|row| &row.groups).map(GroupName::as_str).collect();
        groups.extend(rules.iter().flat_map(|rules| &rules.groups).map(GroupName::as_str));
        groups.sort_unstable();
        groups.dedup();
        let token = row.is_some_and(|row| row.token_hash.is_some() && !row.disabled);
        let uid = rules.and_then(|rules| rules.peer_uid);
        let subject = rules.and_then(|rules| rules.oauth_subject.clone());
        let mut proofs = Vec::new();
        proofs.extend(token.then(|| "token".to_owned()));
        proofs.extend(uid.map(|uid| format!("user {uid}")));
        proofs.extend(subject.as_ref().map(|subject| format!("subject {subject}")));
        rows.push(vec![
            name.to_string(),
            if proofs.is_empty() { "none".to_owned() } else { proofs.join(", ") },
            if groups.is_empty() { "-".to_owned() } else { groups.join(", ") },
        ]);
        values.push(json!({
            "name": name.as_str(), "token": token, "peer_uid": uid, "oauth_subject": subject, "groups": groups,
            "added_ms": row.map(|row| row.added_ms),
        }));
    }
    if place.json {
        return out::json(&values);
    }
    if rows.is_empty() {
        note("No agents yet: `toolgate agent add NAME` adds one.");
        return Ok(());
    }
    out::table(&["AGENT", "PROOF", "GROUPS"], &rows)
}
