//! Forgetting values. Their commitments stay on the log, and all proofs with them.

use rusqlite::params;

use super::batch::Batch;
use super::connection::{self, sql};
use super::manage::ManageError;
use super::{Kind, SqliteStore, checkpointer, read_error, sealed};
use crate::port::{Line, Position, StoreError};

/// How often one tries to empty the write-ahead log before the caller is told.
const ATTEMPTS: usize = 50;

/// What is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erase {
    /// The values of one record, and the answer or question kept with them.
    Record(Position),
    /// Everything about one subject: its keys are deleted, so that copies do not open either.
    Subject(String),
}

impl SqliteStore {
    /// The records of a subject whose values are stored, up to `max` of them, from an index on.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn stored_of(&self, subject: &str, from: Position, max: u32) -> Result<Vec<Position>, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        self.readers.with(|connection| {
            // A row before this record may hold it as well: it was written by the same transaction.
            let mut select = connection.prepare_cached(
                "SELECT first_index, entries FROM blob JOIN subject_key ON subject_key.id = blob.subject_key \
                 WHERE subject = ?1 \
                 AND first_index >= coalesce((SELECT max(first_index) FROM batch WHERE first_index <= ?2), 0) \
                 ORDER BY first_index",
            )?;
            let mut rows = select.query(params![subject, sql(from.0)])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()?
                && found.len() < max
            {
                let first = connection::unsql(row.get(0)?)?;
                let entries = sealed::entries(first, row.get_ref(1)?.as_blob()?);
                let wanted = entries.map(|entry| Position(entry.index)).filter(|index| *index >= from);
                found.extend(wanted.take(max - found.len()));
            }
            Ok(found)
        })
    }

    /// Erases, and sequences the record of the erasure. When it returns, the bytes are overwritten in the database,
    /// and the write-ahead log, which may have held older copies, was cut.
    ///
    /// # Errors
    /// There is nothing to erase; or the store failed. If the error is [`StoreError::Read`], the values are gone from
    /// the database, but a reader kept the write-ahead log from being cut; it is cut later.
    pub async fn erase(&self, what: Erase, line: Line) -> Result<Position, ManageError> {
        let erased = self
            .write(line, None, Kind::Other, move |batch, record| {
                if !delete(batch, &what)? {
                    return Ok(Err(ManageError::Missing(match &what {
                        Erase::Record(Position(index)) => format!("stored value of record {index}"),
                        Erase::Subject(subject) => format!("stored value of `{subject}`"),
                    })));
                }
                Ok(Ok(batch.sequence(record)?))
            })
            .await??;
        self.cut_wal()?;
        Ok(erased)
    }

    fn cut_wal(&self) -> Result<(), StoreError> {
        let connection =
            connection::open_checkpointer(&connection::path(&self.folder)).map_err(read_error)?;
        for _attempt in 0..ATTEMPTS {
            if checkpointer::checkpoint(&connection, "TRUNCATE").map_err(read_error)? {
                return Ok(());
            }
        }
        Err(read_error("the values are erased, but the write-ahead log is in use and could not be cut yet"))
    }
}

/// Deletes; says whether there was anything.
fn delete(batch: &mut Batch<'_>, what: &Erase) -> rusqlite::Result<bool> {
    match what {
        Erase::Record(Position(index)) => {
            batch
                .sql()
                .prepare_cached(
                    "DELETE FROM call WHERE outcome IS NOT NULL AND (intent = ?1 OR outcome = ?1)",
                )?
                .execute([sql(*index)])?;
            sealed::delete(batch.sql(), *index)
        }
        Erase::Subject(subject) => {
            if !batch.exists("SELECT 1 FROM subject_key WHERE subject = ?1", [subject])? {
                return Ok(false);
            }
            for query in [
                "DELETE FROM call WHERE subject_key IN (SELECT id FROM subject_key WHERE subject = ?1)",
                "DELETE FROM blob WHERE subject_key IN (SELECT id FROM subject_key WHERE subject = ?1)",
                "UPDATE question SET statement = NULL, \
                 state = CASE WHEN state IN ('open', 'approved') THEN 'expired' ELSE state END \
                 WHERE subject_key IN (SELECT id FROM subject_key WHERE subject = ?1)",
            ] {
                batch.sql().prepare_cached(query)?.execute([subject])?;
            }
            batch.delete_keys(subject)?;
            batch.changed = true;
            Ok(true)
        }
    }
}
