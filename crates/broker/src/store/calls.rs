//! Opening and closing calls.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};
use toolgate_core::call::CallId;

use super::batch::Batch;
use super::connection::{sql, unsql};
use super::record::Record;
use super::{Kind, SqliteStore, read_error, write_error};
use crate::blob::{SealError, SubjectKey};
use crate::pipeline::REPEAT_WINDOW_MS;
use crate::port::{Approval, Closing, Opened, Opening, Position, Repeat, StoreError};

/// What the transaction found when a call was to be opened.
enum Found {
    ApprovalGone,
    Fresh(Position),
    Repeat(Kept),
    /// A call of this number is open already.
    Twice,
}

/// Where the answer is that was not delivered.
struct Kept {
    call: CallId,
    intent: Position,
    outcome: Position,
}

/// A subject's key as it lies in its row.
pub(super) struct KeyRow {
    pub(super) id: i64,
    pub(super) subject: String,
    pub(super) wrapped: Vec<u8>,
}

/// The value of an outcome that holds the answer.
const RESULT: &str = "result";

impl SqliteStore {
    pub(super) async fn open_call(&self, opening: Opening) -> Result<Opened, StoreError> {
        let Opening { call, digest, repeats, approval, line } = opening;
        if let Some(why) = self.stopped() {
            return Err(StoreError::Write(format!("no call is opened: {why}")));
        }
        let digest = *digest.0.as_bytes();
        let found = self
            .write(line, None, Kind::Other, move |batch, record| {
                if repeats && let Some(kept) = kept_answer(batch, &digest)? {
                    return Ok(Found::Repeat(kept));
                }
                if !insert_call(batch, call, &digest)? {
                    return Ok(Found::Twice);
                }
                if let Some(approval) = &approval
                    && !take_approval(batch, approval)?
                {
                    delete_call(batch, call)?;
                    return Ok(Found::ApprovalGone);
                }
                batch.sequence(record).map(Found::Fresh)
            })
            .await?;
        match found {
            Found::ApprovalGone => Ok(Opened::ApprovalGone),
            Found::Fresh(intent) => Ok(Opened::Fresh(intent)),
            Found::Repeat(kept) => self.open_kept(kept).map(Opened::Repeat),
            Found::Twice => Err(StoreError::Write(format!("call `{call}` is open already"))),
        }
    }

    pub(super) async fn close_call(&self, closing: Closing) -> Result<Position, StoreError> {
        let Closing { call, line, keep } = closing;
        let keep = keep && line.disclosed.iter().any(|value| value.path == RESULT);
        self.write(line, None, Kind::End, move |batch, record| close(batch, record, call, keep))
            .await?
            .ok_or_else(|| StoreError::Write(format!("call `{call}` is not open")))
    }

    /// The open calls of processes that are gone. They become this process's own, so that nobody else ends them too.
    pub(super) async fn take_over_calls(&self) -> Result<Vec<(CallId, Position)>, StoreError> {
        let folder = self.folder.clone();
        self.write_no_record(move |batch| {
            batch.take_over("call", "outcome IS NULL", &folder)?;
            let mut calls = batch.sql().prepare_cached(
                "SELECT id, intent FROM call WHERE owner = ?1 AND outcome IS NULL ORDER BY intent",
            )?;
            calls
                .query_map([batch.owner], |row| {
                    Ok((CallId::from_bytes(row.get(0)?), Position(unsql(row.get(1)?)?)))
                })?
                .collect()
        })
        .await
    }

    fn open_kept(&self, kept: Kept) -> Result<Repeat, StoreError> {
        let Kept { call, intent, outcome } = kept;
        let answer = self
            .values(outcome)?
            .into_iter()
            .find_map(|value| (value.path == RESULT).then_some(value.bytes))
            .ok_or_else(|| read_error("the kept answer was erased just now"))?;
        Ok(Repeat { call, intent, outcome, answer })
    }

    /// The key that a subject's values are sealed with.
    pub(super) fn subject_key(&self, subject: &str) -> Result<Arc<SubjectKey>, StoreError> {
        self.keys
            .of(subject, || self.readers.with(|sql| newest_key(sql, subject)).map_err(KeyError::Store))
            .map_err(StoreError::from)
    }
}

/// Why there is no key to seal with.
enum KeyError {
    Seal(SealError),
    Store(StoreError),
}

impl From<SealError> for KeyError {
    fn from(error: SealError) -> Self {
        Self::Seal(error)
    }
}

impl From<KeyError> for StoreError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Seal(error) => write_error(error),
            KeyError::Store(error) => error,
        }
    }
}

fn newest_key(sql: &rusqlite::Connection, subject: &str) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
    sql.prepare_cached(
        "SELECT id, wrapped FROM subject_key WHERE subject = ?1 ORDER BY made_ms DESC, id LIMIT 1",
    )?
    .query_row([subject], |row| Ok((row.get(0)?, row.get(1)?)))
    .optional()
}

/// Writes that a call is open, its intent the next record; says whether its number was free.
fn insert_call(batch: &Batch<'_>, call: CallId, digest: &[u8; 32]) -> rusqlite::Result<bool> {
    let inserted = batch
        .sql()
        .prepare_cached(
            "INSERT INTO call (id, owner, digest, intent, until_ms) VALUES (?1, ?2, ?3, ?4, 0) \
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![call.as_bytes(), batch.owner, digest, sql(batch.next().0)])?;
    Ok(inserted == 1)
}

/// Writes that a call is not open any more; says whether it was.
fn delete_call(batch: &Batch<'_>, call: CallId) -> rusqlite::Result<bool> {
    let deleted = batch
        .sql()
        .prepare_cached("DELETE FROM call WHERE id = ?1 AND outcome IS NULL")?
        .execute([call.as_bytes()])?;
    Ok(deleted == 1)
}

/// Writes that a call is not open any more, and that its answer, the values of the next record, is to be kept; says
/// whether it was open.
fn keep_answer(batch: &Batch<'_>, record: &Record, call: CallId) -> rusqlite::Result<bool> {
    let key = record.sealed.as_ref().map(|sealed| sealed.key.id);
    let until_ms = batch.now_ms.saturating_add(REPEAT_WINDOW_MS);
    let updated = batch
        .sql()
        .prepare_cached(
            "UPDATE call SET outcome = ?2, until_ms = ?3, subject_key = ?4 WHERE id = ?1 AND outcome IS NULL",
        )?
        .execute(params![call.as_bytes(), sql(batch.next().0), sql(until_ms), key])?;
    Ok(updated == 1)
}

/// Uses the approval up. It has to be for this very call and policy, and not expired.
fn take_approval(batch: &Batch<'_>, approval: &Approval) -> rusqlite::Result<bool> {
    let Approval { question, digest, policy } = approval;
    let taken = batch
        .sql()
        .prepare_cached(
            "UPDATE question SET state = 'used' \
             WHERE number = ?1 AND digest = ?2 AND policy = ?3 AND state = 'approved' AND expires_ms > ?4",
        )?
        .execute(params![question, digest.0.as_bytes(), policy.as_bytes(), sql(batch.now_ms)])?;
    Ok(taken == 1)
}

/// The oldest answer to the same call that was not delivered and is not too old.
fn kept_answer(batch: &Batch<'_>, digest: &[u8; 32]) -> rusqlite::Result<Option<Kept>> {
    batch
        .sql()
        .prepare_cached(
            "SELECT id, intent, outcome FROM call \
             WHERE outcome IS NOT NULL AND digest = ?1 AND until_ms >= ?2 ORDER BY id LIMIT 1",
        )?
        .query_row(params![digest, sql(batch.now_ms)], |row| {
            Ok(Kept {
                call: CallId::from_bytes(row.get(0)?),
                intent: Position(unsql(row.get(1)?)?),
                outcome: Position(unsql(row.get(2)?)?),
            })
        })
        .optional()
}

/// Closes a call; `None` if it is not open.
fn close(
    batch: &mut Batch<'_>,
    record: &Record,
    call: CallId,
    keep: bool,
) -> rusqlite::Result<Option<Position>> {
    let was_open = if keep { keep_answer(batch, record, call)? } else { delete_call(batch, call)? };
    was_open.then(|| batch.sequence(record)).transpose()
}
