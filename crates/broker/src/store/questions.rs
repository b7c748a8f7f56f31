//! Questions to people and their answers.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use toolgate_core::call::CallDigest;
use toolgate_core::digest::Digest;
use toolgate_core::name::PersonName;

use super::batch::Batch;
use super::calls::KeyRow;
use super::connection::{sql, unsql};
use super::manage::{ManageError, Managed, parsed};
use super::record::{Aside, Record};
use super::{Kind, SqliteStore, bytes_of, read_error};
use crate::blob::{DataKey, Part, SealError, SubjectKey};
use crate::pipeline::MAX_OPEN_QUESTIONS_PER_AGENT;
use crate::port::{Answered, Line, Question, QuestionState, StoreError};

/// How many questions are listed at most.
const MAX_LISTED: u32 = 1_000;

/// How long a question whose time is over can still be listed, in milliseconds.
const KEPT_MS: u64 = 86_400_000;

/// One person's answer, to be stored. That the proof holds was checked by whoever made this; the store checks that the
/// question is open, that the person has not answered it, and that a one-time code was not used before.
#[derive(Debug, Clone)]
pub struct NewAnswer {
    /// The number of the question.
    pub question: String,
    /// Who, what, how and when.
    pub answer: Answered,
    /// How many different people have to say yes.
    pub needed: u32,
    /// For a one-time code: which step of time it was for. Each step counts once.
    pub totp_step: Option<u64>,
}

/// A question as it lies in its row.
struct QuestionRow {
    question: Question,
    key: Option<KeyRow>,
    seed: Vec<u8>,
    sealed: Option<Vec<u8>>,
}

impl SqliteStore {
    pub(super) async fn ask_question(
        &self,
        question: Question,
        line: Line,
    ) -> Result<Option<Question>, StoreError> {
        let agent = line.subject.clone();
        let bound = question.number.as_bytes().to_vec();
        let aside = Aside { part: Part::Statement, bound, bytes: question.statement.clone() };
        let row = self
            .write(line, Some(aside), Kind::Other, move |batch, record| ask(batch, record, &agent, &question))
            .await?;
        row.map(|row| self.open_question(row)).transpose()
    }

    pub(super) fn read_question(&self, number: &str, now_ms: u64) -> Result<Option<Question>, StoreError> {
        let row = self.readers.with(|sql| find(sql, number))?;
        row.map(|row| self.open_question(row).map(|question| as_of(question, now_ms))).transpose()
    }

    /// The questions, newest first, up to 1,000; those past their time at `now_ms` are `Expired`.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn questions(&self, now_ms: u64) -> Result<Vec<Question>, StoreError> {
        let rows = self.readers.with(|sql| {
            let mut select =
                sql.prepare_cached("SELECT number FROM question ORDER BY asked_ms DESC LIMIT ?1")?;
            let numbers = select
                .query_map([MAX_LISTED], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()?;
            numbers
                .iter()
                .filter_map(|number| find(sql, number).transpose())
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        rows.into_iter().map(|row| self.open_question(row).map(|question| as_of(question, now_ms))).collect()
    }

    /// Stores one person's answer and sequences its record. A no is final; enough yes from different people approve.
    ///
    /// # Errors
    /// The question is not open any more, the person answered it already, or the one-time code was used; or the store
    /// failed.
    pub async fn answer(&self, answer: NewAnswer, line: Line) -> Result<QuestionState, ManageError> {
        self.write(line, None, Kind::Other, move |batch, record| {
            Ok(match give_answer(batch, &answer)? {
                Ok(state) => {
                    batch.sequence(record)?;
                    batch.changed = true;
                    Ok(state)
                }
                Err(refused) => Err(refused),
            })
        })
        .await?
    }

    fn open_question(&self, row: QuestionRow) -> Result<Question, StoreError> {
        let QuestionRow { mut question, key, seed, sealed } = row;
        // Without its key or its bytes the statement was erased; it stays empty, and nothing can be approved by it.
        if let (Some(KeyRow { id, subject, wrapped: key }), Some(sealed)) = (key, sealed) {
            let open = || -> Result<Vec<u8>, SealError> {
                let key = SubjectKey::from_row(self.keys.root(), id, &subject, key)?;
                DataKey::from_row(&key, &seed)?.open(Part::Statement, question.number.as_bytes(), sealed)
            };
            question.statement = open().map_err(read_error)?.into();
        }
        Ok(question)
    }
}

/// Asks, or finds what was asked about the same call under the same policy. A rule that reads the time can make another
/// question of the same call: that one is for other people.
fn ask(
    batch: &mut Batch<'_>,
    record: &Record,
    agent: &str,
    question: &Question,
) -> rusqlite::Result<Option<QuestionRow>> {
    let (digest, policy) = (question.digest.0.as_bytes(), question.policy.as_bytes());
    batch
        .sql()
        .prepare_cached(
            "UPDATE question SET state = 'expired' \
             WHERE digest = ?1 AND policy <> ?2 AND state IN ('open', 'approved')",
        )?
        .execute(params![digest, policy])?;
    let found = batch
        .sql()
        .prepare_cached(
            "SELECT number FROM question WHERE digest = ?1 AND policy = ?2 AND expires_ms > ?3 AND name = ?4 \
             AND state IN ('open', 'approved', 'denied') AND statement IS NOT NULL ORDER BY asked_ms DESC LIMIT 1",
        )?
        .query_row(params![digest, policy, sql(question.asked_ms), question.name.as_str()], |row| row.get::<_, String>(0))
        .optional()?;
    let number = match found {
        Some(number) => number,
        None if open_questions(batch, agent)? >= MAX_OPEN_QUESTIONS_PER_AGENT => return Ok(None),
        None => {
            prune(batch)?;
            insert(batch, record, question)?;
            question.number.clone()
        }
    };
    batch.changed = true;
    find(batch.sql(), &number)?.ok_or(rusqlite::Error::QueryReturnedNoRows).map(Some)
}

/// How many questions of an agent wait for people. The table is small: what is over is pruned.
fn open_questions(batch: &Batch<'_>, agent: &str) -> rusqlite::Result<usize> {
    let count: i64 = batch
        .sql()
        .prepare_cached(
            "SELECT count(*) FROM question JOIN subject_key ON subject_key.id = question.subject_key \
             WHERE subject = ?1 AND state = 'open' AND expires_ms > ?2",
        )?
        .query_one(params![agent, sql(batch.now_ms)], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Deletes questions that have been over for long, each time one is added. The log keeps them.
fn prune(batch: &Batch<'_>) -> rusqlite::Result<()> {
    let before = sql(batch.now_ms.saturating_sub(KEPT_MS));
    for statement in [
        "DELETE FROM question_answer WHERE question IN (SELECT number FROM question WHERE expires_ms < ?1)",
        "DELETE FROM question WHERE expires_ms < ?1",
    ] {
        batch.sql().prepare_cached(statement)?.execute([before])?;
    }
    Ok(())
}

fn insert(batch: &mut Batch<'_>, record: &Record, question: &Question) -> rusqlite::Result<()> {
    let sealed = record.sealed.as_ref().ok_or(rusqlite::Error::InvalidQuery)?;
    batch.sequence(record)?;
    batch
        .sql()
        .prepare_cached(
            "INSERT INTO question (number, name, digest, policy, asked_ms, expires_ms, state, subject_key, seed, statement) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open', ?7, ?8, ?9)",
        )?
        .execute(params![
            question.number,
            question.name.as_str(),
            question.digest.0.as_bytes(),
            question.policy.as_bytes(),
            sql(question.asked_ms),
            sql(question.expires_ms),
            sealed.key.id,
            sealed.seed,
            sealed.aside,
        ])?;
    Ok(())
}

fn find(sql: &Connection, number: &str) -> rusqlite::Result<Option<QuestionRow>> {
    let found = sql
        .prepare_cached(
            "SELECT number, name, digest, policy, asked_ms, expires_ms, state, seed, statement, \
             subject_key.id, subject, subject_key.wrapped \
             FROM question LEFT JOIN subject_key ON subject_key.id = question.subject_key WHERE number = ?1",
        )?
        .query_row([number], question_row)
        .optional()?;
    let Some(mut row) = found else {
        return Ok(None);
    };
    let mut select = sql.prepare_cached(
        "SELECT person, yes, method, evidence, at_ms FROM question_answer WHERE question = ?1 ORDER BY at_ms, person",
    )?;
    row.question.answers = select.query_map([number], answered)?.collect::<rusqlite::Result<_>>()?;
    Ok(Some(row))
}

fn question_row(row: &Row<'_>) -> rusqlite::Result<QuestionRow> {
    let question = Question {
        number: row.get(0)?,
        name: parsed(row, 1)?,
        digest: CallDigest(Digest::from_bytes(row.get(2)?)),
        policy: Digest::from_bytes(row.get(3)?),
        statement: Bytes::new(),
        asked_ms: unsql(row.get(4)?)?,
        expires_ms: unsql(row.get(5)?)?,
        state: state_of(row.get_ref(6)?.as_str()?)?,
        answers: Vec::new(),
    };
    let key = match (row.get(9)?, row.get(10)?, row.get(11)?) {
        (Some(id), Some(subject), Some(wrapped)) => Some(KeyRow { id, subject, wrapped }),
        _ => None,
    };
    Ok(QuestionRow { question, key, seed: row.get(7)?, sealed: row.get(8)? })
}

fn answered(row: &Row<'_>) -> rusqlite::Result<Answered> {
    Ok(Answered {
        person: parsed::<PersonName>(row, 0)?,
        yes: row.get(1)?,
        method: row.get(2)?,
        evidence: bytes_of(row, 3)?,
        at_ms: unsql(row.get(4)?)?,
    })
}

/// Stores an answer, if the question can still be answered by this person.
fn give_answer(batch: &Batch<'_>, new: &NewAnswer) -> rusqlite::Result<Managed<QuestionState>> {
    let NewAnswer { question: number, answer, needed, totp_step } = new;
    let Some(QuestionRow { question, .. }) = find(batch.sql(), number)? else {
        return Ok(Err(ManageError::Missing(format!("question `{number}`"))));
    };
    match as_of(question, batch.now_ms).state {
        QuestionState::Open => {}
        state @ (QuestionState::Approved
        | QuestionState::Denied
        | QuestionState::Expired
        | QuestionState::Used) => {
            return Ok(Err(ManageError::Conflict(format!("question `{number}` is {}", word(state)))));
        }
    }
    let person = answer.person.as_str();
    if batch.exists(
        "SELECT 1 FROM question_answer WHERE question = ?1 AND person = ?2",
        [number.as_str(), person],
    )? {
        return Ok(Err(ManageError::Conflict(format!(
            "`{person}` has answered question `{number}` already"
        ))));
    }
    if let Some(step) = totp_step
        && !use_step(batch, person, *step)?
    {
        return Ok(Err(ManageError::Conflict(
            "the one-time code was used before; wait for the next one".to_owned(),
        )));
    }
    batch
        .sql()
        .prepare_cached(
            "INSERT INTO question_answer (question, person, yes, method, evidence, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![number, person, answer.yes, answer.method, &answer.evidence[..], sql(answer.at_ms)])?;
    let yes: u32 = batch
        .sql()
        .prepare_cached("SELECT count(*) FROM question_answer WHERE question = ?1 AND yes = 1")?
        .query_one([number], |row| row.get(0))?;
    let state = match (answer.yes, yes >= (*needed).max(1)) {
        (false, _) => QuestionState::Denied,
        (true, true) => QuestionState::Approved,
        (true, false) => QuestionState::Open,
    };
    batch
        .sql()
        .prepare_cached("UPDATE question SET state = ?1 WHERE number = ?2")?
        .execute([word(state), number])?;
    Ok(Ok(state))
}

/// Uses up a step of one-time codes; says whether it was later than all that were used.
fn use_step(batch: &Batch<'_>, person: &str, step: u64) -> rusqlite::Result<bool> {
    let used = batch
        .sql()
        .prepare_cached(
            "UPDATE person SET last_step = ?1 WHERE name = ?2 AND method = 'totp' AND last_step < ?1",
        )?
        .execute(params![sql(step), person])?;
    Ok(used == 1)
}

/// The question as it stands at a time.
fn as_of(question: Question, now_ms: u64) -> Question {
    let state = match question.state {
        QuestionState::Approved | QuestionState::Open if question.expires_ms <= now_ms => {
            QuestionState::Expired
        }
        state => state,
    };
    Question { state, ..question }
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

fn state_of(word: &str) -> rusqlite::Result<QuestionState> {
    match word {
        "approved" => Ok(QuestionState::Approved),
        "denied" => Ok(QuestionState::Denied),
        "expired" => Ok(QuestionState::Expired),
        "open" => Ok(QuestionState::Open),
        "used" => Ok(QuestionState::Used),
        other => Err(rusqlite::Error::InvalidParameterName(other.to_owned())),
    }
}
