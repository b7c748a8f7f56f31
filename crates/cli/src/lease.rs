//! `toolgate lease`: the credentials that are minted from secrets, as people see them.

use serde_json::{Value, json};
use toolgate_broker::store::LeaseRow;
use toolgate_core::hex;
use toolgate_ledger::record::{Lease, LeaseAction};

use crate::args::LeaseCommand;
use crate::out::{self, hinted, note};
use crate::place::{Place, block_on, gate_line};

/// How many digits of a number are shown.
const SHOWN: usize = 16;

/// How few digits are enough to mean one.
const FEWEST: usize = 4;

pub(crate) fn run(place: &Place, command: LeaseCommand) -> anyhow::Result<()> {
    match command {
        LeaseCommand::List => list(place),
        LeaseCommand::Revoke { lease, secret, all } => {
            revoke(place, lease.as_deref(), secret.as_deref(), all)
        }
    }
}

fn list(place: &Place) -> anyhow::Result<()> {
    let rows = place.open()?.store.leases()?;
    if place.json {
        let all: Vec<Value> = rows.iter().map(told).collect();
        return out::json(&all);
    }
    if rows.is_empty() {
        note("Nothing is minted that may be good for something.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let number = hex::encode(&row.id);
            vec![
                number.get(..SHOWN).unwrap_or(&number).to_owned(),
                row.secret.clone(),
                row.provider.clone(),
                row.server.clone(),
                state(row).to_owned(),
                out::time(row.until_ms),
            ]
        })
        .collect();
    out::table(&["LEASE", "SECRET", "PROVIDER", "SERVER", "STATE", "ENDS AT THE LATEST"], &rows)
}

fn told(row: &LeaseRow) -> Value {
    json!({
        "lease": hex::encode(&row.id), "secret": row.secret, "provider": row.provider, "server": row.server,
        "session": row.session, "until_ms": row.until_ms, "state": state(row),
    })
}

const fn state(row: &LeaseRow) -> &'static str {
    match row {
        LeaseRow { held: false, .. } => "left behind",
        LeaseRow { revoke: true, .. } => "being revoked",
        LeaseRow { live: false, .. } => "asked for",
        LeaseRow { .. } => "live",
    }
}

fn revoke(place: &Place, lease: Option<&str>, secret: Option<&str>, all: bool) -> anyhow::Result<()> {
    let state = place.open()?;
    let mut rows = state.store.leases()?;
    if let Some(lease) = lease {
        let fits = lease.len() >= FEWEST;
        rows.retain(|row| fits && hex::encode(&row.id).starts_with(lease));
        if rows.len() > 1 {
            return Err(hinted(format!("there are {} leases that begin so", rows.len()), "give more digits"));
        }
    }
    rows.retain(|row| secret.is_none_or(|secret| row.secret == secret));
    if rows.is_empty() && !all {
        return Err(hinted("there is no such lease", "`toolgate lease list` shows those there are"));
    }
    let left = rows.iter().filter(|row| !row.held).count();
    let all: Vec<String> = rows.iter().map(|row| hex::encode(&row.id)).collect();
    block_on(async {
        for row in rows {
            let LeaseRow { id, secret, provider, server, session, .. } = row;
            let record = Lease {
                action: LeaseAction::ToBeRevoked,
                by: Some(place.user()),
                expires_ms: None,
                fingerprint: None,
                granted: None,
                lease: hex::encode(&id),
                provider,
                requested: None,
                secret,
                server,
                session,
                why: None,
            };
            state.store.revoke_lease(id, gate_line(record)?).await?;
        }
        Ok(())
    })?;
    note(format_args!("{} to be revoked; `toolgate log tail` says when that was done.", all.len()));
    if left > 0 {
        note(format_args!(
            "The gate that had {left} of them is gone: the next one that starts revokes them."
        ));
    }
    place.tell(|| json!({ "revoke": all }))
}
