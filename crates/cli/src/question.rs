//! `toolgate question`, `approve` and `deny`: what people are asked, and their answers.

use serde_json::{Value, json};
use toolgate_broker::person::{ED25519, Person, TOTP};
use toolgate_broker::port::{Answered, Question, QuestionState, Store as _};
use toolgate_broker::rulebook::QuestionRules;
use toolgate_broker::store::{NewAnswer, PersonRow};
use toolgate_core::hex;
use toolgate_core::name::PersonName;
use toolgate_core::text;
use toolgate_ledger::record::{Answer as AnswerWord, PersonProof, QuestionAnswered};

use crate::args::{Answer, QuestionCommand};
use crate::out::{self, Paint, hinted, line, note};
use crate::place::{Place, State, block_on, gate_line, now_ms};
use crate::terminal;

pub(crate) fn run(place: &Place, command: QuestionCommand) -> anyhow::Result<()> {
    match command {
        QuestionCommand::List { all } => list(place, all),
        QuestionCommand::Show { id } => {
            let question = find(&place.open()?, &id)?;
            if place.json { out::json(&value(&question)) } else { show(&question) }
        }
    }
}

fn list(place: &Place, all: bool) -> anyhow::Result<()> {
    let mut questions = place.open()?.store.questions(now_ms())?;
    questions.retain(|question| all || question.state == QuestionState::Open);
    if place.json {
        return out::json(&questions.iter().map(value).collect::<Vec<_>>());
    }
    if questions.is_empty() {
        note("Nothing waits for an answer.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = questions
        .iter()
        .map(|question| {
            let statement = statement(question);
            let member = |key| statement.get(key).and_then(|value| value.as_str()).unwrap_or("?");
            let left_s = question.expires_ms.saturating_sub(now_ms()) / 1000;
            let state = match question.state {
                QuestionState::Open => format!("open, {}:{:02} left", left_s / 60, left_s % 60),
                state => word(state).to_owned(),
            };
            vec![
                question.number.clone(),
                state,
                question.name.to_string(),
                text::quoted(member("agent"), 40),
                text::quoted(member("action"), 60),
                text::quoted(&statement.get("arguments").map(ToString::to_string).unwrap_or_default(), 60),
            ]
        })
        .collect();
    out::table(&["QUESTION", "STATE", "NAME", "AGENT", "TOOL", "ARGUMENTS"], &rows)
}

const fn word(state: QuestionState) -> &'static str {
    match state {
        QuestionState::Approved => "approved",
        QuestionState::Denied => "denied",
        QuestionState::Expired => "expired",
        QuestionState::Open => "open",
        QuestionState::Used => "used",
    }
}

fn statement(question: &Question) -> Value {
    serde_json::from_slice(&question.statement).unwrap_or(Value::Null)
}

fn value(question: &Question) -> Value {
    let answers: Vec<Value> = question
        .answers
        .iter()
        .map(|a| json!({ "person": a.person.as_str(), "yes": a.yes, "method": a.method, "at_ms": a.at_ms }))
        .collect();
    json!({
        "question": question.number, "name": question.name.as_str(), "state": word(question.state),
        "asked_ms": question.asked_ms, "expires_ms": question.expires_ms, "answers": answers,
        "statement": statement(question),
    })
}

/// Shows everything that is signed. What an agent or a server wrote is quoted, hidden characters escaped.
fn show(question: &Question) -> anyhow::Result<()> {
    let paint = Paint::out();
    line(format_args!(
        "{} {}  {}",
        paint.bold("Question"),
        paint.bold(&question.number),
        word(question.state)
    ))?;
    line(format_args!("  asked    {}", out::time(question.asked_ms)))?;
    line(format_args!("  expires  {}", out::time(question.expires_ms)))?;
    let Value::Object(members) = statement(question) else {
        return line("  The statement was erased.");
    };
    line("  statement (this, to the letter, is what an answer signs):")?;
    for (key, value) in &members {
        show_member(key, value, 4)?;
    }
    for answer in &question.answers {
        let said = if answer.yes { paint.green("yes") } else { paint.red("no") };
        line(format_args!(
            "  {} said {said} by {} at {}",
            answer.person,
            answer.method,
            out::time(answer.at_ms)
        ))?;
    }
    Ok(())
}

fn show_member(key: &str, value: &Value, indent: usize) -> anyhow::Result<()> {
    let key = text::quoted(key, 64);
    match value {
        Value::Object(members) if !members.is_empty() => {
            line(format_args!("{:indent$}{key}:", ""))?;
            members.iter().try_for_each(|(key, value)| show_member(key, value, indent + 2))
        }
        Value::String(said) => {
            let shown = text::line(said, 4_000);
            line(format_args!("{:indent$}{key}: {}", "", shown.text))?;
            match shown.remark() {
                Some(remark) => line(format_args!("{:indent$}  ({remark})", "")),
                None => Ok(()),
            }
        }
        other => line(format_args!("{:indent$}{key}: {}", "", text::quoted(&other.to_string(), 4_000))),
    }
}

/// The question of that number, or the only open one whose number begins so.
fn find(state: &State, id: &str) -> anyhow::Result<Question> {
    // The whole number finds it however many were asked since; only so many are listed.
    if let Some(exact) = block_on(async { Ok(state.store.question(id, now_ms()).await?) })? {
        return Ok(exact);
    }
    let questions = state.store.questions(now_ms())?;
    let begins = |question: &&Question| {
        question.number.starts_with(id) || question.number.starts_with(&format!("q-{id}"))
    };
    let mut found: Vec<&Question> = questions.iter().filter(begins).collect();
    if found.len() > 1 {
        found.retain(|question| question.state == QuestionState::Open);
    }
    match found.as_slice() {
        [one] if id.len() >= 4 => Ok((*one).clone()),
        [_one] => Err(hinted(
            format!("`{}` is too short to be sure", id.escape_debug()),
            "write at least four characters",
        )),
        [] => Err(hinted(
            format!("there is no question `{}`", id.escape_debug()),
            "`toolgate question list` shows what waits for an answer",
        )),
        _ => Err(hinted(
            format!("several questions begin with `{}`", id.escape_debug()),
            "write more of the number",
        )),
    }
}

/// Answers a question: `approve` and `deny`.
pub(crate) fn answer(place: &Place, answer: &Answer, yes: bool) -> anyhow::Result<()> {
    let (config, state) = (place.config()?, place.open()?);
    let question = find(&state, &answer.id)?;
    if question.state != QuestionState::Open {
        let hint = match question.state {
            QuestionState::Approved => "it waits for the agent to repeat the call",
            QuestionState::Denied | QuestionState::Expired | QuestionState::Open | QuestionState::Used => {
                "if the agent repeats the call, a new question is asked"
            }
        };
        return Err(hinted(format!("question `{}` is {}", question.number, word(question.state)), hint));
    }
    let Some(rules) = config.questions.get(&question.name) else {
        return Err(hinted(
            format!("nobody can answer: the configuration has no `[questions.{}]` any more", question.name),
            "put the table back, or let the question expire",
        ));
    };
    let row = who(&state, rules, answer)?;
    if !place.json {
        show(&question)?;
    }
    let answered = prove(place, &state, &row, &question, answer, yes)?;
    let reached = store(&state, rules, &question, answered.clone(), &row)?;
    let number = &question.number;
    if place.json {
        return out::json(
            &json!({ "question": number, "person": row.name.as_str(), "yes": yes, "state": word(reached) }),
        );
    }
    match reached {
        QuestionState::Approved => note(format_args!(
            "Approved: this one call may run, once, until {}.",
            out::time(question.expires_ms)
        )),
        QuestionState::Denied => note("Denied: it does not run."),
        QuestionState::Open => {
            let given = question.answers.iter().filter(|answer| answer.yes).count() + 1;
            note(format_args!("Your yes is noted: {given} of {} that are needed.", rules.quorum));
        }
        QuestionState::Expired | QuestionState::Used => {
            note(format_args!("The question is {} now.", word(reached)))
        }
    }
    Ok(())
}

/// Which person answers, and in which way.
fn who(state: &State, rules: &QuestionRules, answer: &Answer) -> anyhow::Result<PersonRow> {
    let mut rows = state.store.persons()?;
    let wanted = answer.person.as_deref().map(str::parse::<PersonName>).transpose()?;
    if let Some(name) = &wanted
        && !rules.people.contains(name)
    {
        return Err(hinted(
            format!("person `{name}` is not asked this"),
            format!("asked are: {}", names(rules.people.iter())),
        ));
    }
    rows.retain(|row| {
        rules.people.contains(&row.name) && wanted.as_ref().is_none_or(|name| row.name == *name)
    });
    let Some(first) = rows.first().map(|row| row.name.clone()) else {
        let missing = wanted.as_ref().or(rules.people.first());
        return Err(hinted(
            match &wanted {
                Some(name) => format!("person `{name}` is not enrolled"),
                None => format!("none of those who are asked is enrolled: {}", names(rules.people.iter())),
            },
            format!("`toolgate person add {}`", missing.map_or("NAME", PersonName::as_str)),
        ));
    };
    let method =
        if answer.code.is_some() { Some(TOTP) } else { answer.passphrase_file.as_ref().map(|_| ED25519) };
    rows.retain(|row| method.is_none_or(|method| row.method == method));
    // Who has both is asked for the passphrase: it is the stronger proof.
    rows.sort_by(|a, b| (&a.name, &a.method).cmp(&(&b.name, &b.method)));
    rows.dedup_by(|later, first| later.name == first.name);
    match rows.as_slice() {
        [] if method == Some(TOTP) => {
            Err(hinted(format!("`{first}` answers with a passphrase, not with a code"), "leave `--code` out"))
        }
        [] => Err(hinted(
            format!("`{first}` answers with a code, not with a passphrase"),
            "`--code DIGITS`, or nothing to be asked for it",
        )),
        [one] => Ok(one.clone()),
        _ => Err(hinted(
            "several people could answer",
            format!(
                "say who: {}",
                rows.iter().map(|row| format!("`--as {}`", row.name)).collect::<Vec<_>>().join(" or ")
            ),
        )),
    }
}

fn names<'p>(people: impl Iterator<Item = &'p PersonName>) -> String {
    people.map(PersonName::as_str).collect::<Vec<_>>().join(", ")
}

/// Has the person prove their answer. A try of a one-time code is counted before its result is looked at.
fn prove(
    place: &Place,
    state: &State,
    row: &PersonRow,
    question: &Question,
    answer: &Answer,
    yes: bool,
) -> anyhow::Result<Answered> {
    let mut person = Person::from_row(row)?;
    if row.method == ED25519 {
        let prompt = format!("Passphrase of {} to say {}: ", row.name, if yes { "YES" } else { "NO" });
        let passphrase = terminal::secret(&prompt, answer.passphrase_file.as_deref())?;
        return Ok(person.sign(&passphrase, &question.statement, yes, now_ms())?);
    }
    let code = match &answer.code {
        Some(code) => code.clone(),
        None => terminal::secret(&format!("Code of {}: ", row.name), None)?.to_string(),
    };
    let result = person.confirm(&state.key, &code, &question.statement, yes, now_ms());
    let next = person.to_row().sealed;
    if next != row.sealed && !block_on(async { Ok(state.store.swap_person(row.clone(), next).await?) })? {
        return Err(hinted(
            "somebody else used a code of this person at the same moment",
            "try again with the next code",
        ));
    }
    let _unused = place;
    Ok(result?)
}

fn store(
    state: &State,
    rules: &QuestionRules,
    question: &Question,
    answered: Answered,
    row: &PersonRow,
) -> anyhow::Result<QuestionState> {
    let proof = match answered.method.as_str() {
        ED25519 => {
            PersonProof::Key { key: hex::encode(&row.public_key), signature: hex::encode(&answered.evidence) }
        }
        _ => PersonProof::Totp,
    };
    let said = if answered.yes { AnswerWord::Approve } else { AnswerWord::Deny };
    let record = QuestionAnswered {
        answer: said,
        person: answered.person.to_string(),
        proof,
        question: question.number.clone(),
    };
    let totp_step = (answered.method == TOTP)
        .then(|| answered.evidence.first_chunk::<8>().map(|step| u64::from_be_bytes(*step)))
        .flatten();
    let needed = u32::try_from(rules.quorum).unwrap_or(u32::MAX);
    let new = NewAnswer { question: question.number.clone(), answer: answered, needed, totp_step };
    let line = gate_line(record)?;
    block_on(async { Ok(state.store.answer(new, line).await?) })
}
