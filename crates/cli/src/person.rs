//! `toolgate person`: who answers questions.

use std::path::Path;

use serde_json::json;
use toolgate_broker::person::{ED25519, Person, Seeds};
use toolgate_broker::store::ManageError;
use toolgate_core::hex;
use toolgate_core::name::PersonName;
use toolgate_ledger::record::{self, RosterAction};
use zeroize::Zeroizing;

use crate::args::PersonCommand;
use crate::out::{self, hinted, line, note};
use crate::place::{Place, State, block_on, gate_line, now_ms, random};
use crate::terminal;

pub(crate) fn run(place: &Place, command: PersonCommand) -> anyhow::Result<()> {
    match command {
        PersonCommand::Add { name, totp, passphrase_file } => {
            let name: PersonName = name.parse()?;
            let state = place.open_or_make()?;
            if totp {
                add_totp(place, &state, name)
            } else {
                add(place, &state, name, passphrase_file.as_deref())
            }
        }
        PersonCommand::List => list(place),
        PersonCommand::Remove { name } => {
            let name: PersonName = name.parse()?;
            let state = place.open()?;
            let line = changed(place, RosterAction::Removed, &name, None)?;
            block_on(async { Ok(state.store.remove_person(name.clone(), line).await?) })?;
            note(format_args!("Person `{name}` is removed. What they answered stays on the log."));
            place.tell(|| json!({ "person": name.as_str(), "removed": true }))
        }
    }
}

/// Enrols a person with a passphrase.
pub(crate) fn add(place: &Place, state: &State, name: PersonName, file: Option<&Path>) -> anyhow::Result<()> {
    // Before anything is typed.
    if state.store.persons()?.iter().any(|row| row.name == name && row.method == ED25519) {
        return Err(ManageError::enrolled(name.as_str(), ED25519).into());
    }
    let passphrase = terminal::new_secret(file)?;
    let person = Person::with_passphrase(name, &passphrase, &seeds()?, now_ms()).map_err(|error| {
        hinted(error.to_string(), "four or five random words are easy to remember and hard to guess")
    })?;
    enrol(place, state, &person)?;
    enrolled(&person.name);
    place.tell(|| {
        json!({ "person": person.name.as_str(), "method": person.method_name(), "key": person.public_key().map(|key| hex::encode(key)) })
    })
}

fn add_totp(place: &Place, state: &State, name: PersonName) -> anyhow::Result<()> {
    let (person, uri) = Person::with_totp(name, &state.key, &seeds()?, now_ms())?;
    enrol(place, state, &person)?;
    if place.json {
        let shown =
            json!({ "person": person.name.as_str(), "method": person.method_name(), "uri": uri.as_str() });
        out::json(&shown)?;
    } else {
        line(uri.as_str())?;
    }
    enrolled(&person.name);
    note(format_args!(
        "\nGive this to the authenticator app of `{}`. It is not shown again. Whoever can read `{}` could make codes too:\nwhere agents run as the same user as the gate, a passphrase is the stronger proof.",
        person.name,
        place.home.state.display()
    ));
    Ok(())
}

fn enrolled(name: &PersonName) {
    note(format_args!(
        "Person `{name}` is enrolled. They are asked where a table `[questions.NAME]` has `people = [\"{name}\"]`."
    ));
}

fn enrol(place: &Place, state: &State, person: &Person) -> anyhow::Result<()> {
    let line =
        changed(place, RosterAction::Added, &person.name, person.public_key().map(|key| hex::encode(key)))?;
    block_on(async { Ok(state.store.add_person(person.to_row(), line).await?) })?;
    Ok(())
}

fn changed(
    place: &Place,
    action: RosterAction,
    name: &PersonName,
    key: Option<String>,
) -> anyhow::Result<toolgate_broker::port::Line> {
    gate_line(record::Person { action, by: place.user(), key, name: name.to_string() })
}

fn seeds() -> anyhow::Result<Seeds> {
    Ok(Seeds { key: Zeroizing::new(random()?), salt: random()?, nonce: random()? })
}

fn list(place: &Place) -> anyhow::Result<()> {
    let config = place.config()?;
    let rows =
        if place.home.state.join("state.db").exists() { place.open()?.store.persons()? } else { Vec::new() };
    let asked = |name: &PersonName| -> Vec<&str> {
        let asked = config.questions.iter().filter(|(_, rules)| rules.people.contains(name));
        asked.map(|(question, _)| question.as_str()).collect()
    };
    let mut shown = Vec::new();
    let mut values = Vec::new();
    for row in &rows {
        let person = Person::from_row(row)?;
        let (questions, key) = (asked(&row.name), person.public_key().map(|key| hex::encode(key)));
        let answers = if questions.is_empty() { "-".to_owned() } else { questions.join(", ") };
        shown.push(vec![
            row.name.to_string(),
            person.method_name().to_owned(),
            out::time(row.added_ms),
            answers,
        ]);
        values.push(json!({
            "name": row.name.as_str(), "method": person.method_name(), "enrolled_ms": row.added_ms,
            "key": key, "questions": questions,
        }));
    }
    if place.json {
        return out::json(&values);
    }
    if shown.is_empty() {
        note("Nobody is enrolled yet: `toolgate person add NAME` enrols somebody.");
        return Ok(());
    }
    out::table(&["PERSON", "PROOF", "ENROLLED", "ANSWERS"], &shown)
}
