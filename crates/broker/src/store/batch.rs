//! One transaction: what the writes in it share.

use std::collections::HashSet;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};
use toolgate_core::call::CallId;

use super::connection::{sql, unsql};
use super::owner;
use super::record::Record;
use super::sealed::{Entry, Rows};
use crate::blob::{SubjectKey, mark_stored, was_stored};
use crate::port::Position;

/// What is known of the database, so that each transaction need not look.
#[derive(Default)]
pub(super) struct Known {
    /// The rows of `subject_key`.
    keys: HashSet<i64>,
    end: End,
    /// The `data_version` at which this was read; `None` if it has to be read again.
    version: Option<i64>,
}

/// Where the log ends.
#[derive(Debug, Default, Clone, Copy)]
struct End {
    /// The index of the next record.
    next: u64,
    /// The time of the last row.
    at_ms: i64,
}

impl Known {
    /// Forgets it all, as after a rollback.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn read(connection: &Connection, version: i64) -> rusqlite::Result<Self> {
        let mut select = connection.prepare_cached("SELECT id FROM subject_key")?;
        let keys = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let last = connection
            .prepare_cached("SELECT first_index + count, at_ms FROM batch ORDER BY first_index DESC LIMIT 1")?
            .query_row([], |row| Ok(End { next: unsql(row.get(0)?)?, at_ms: row.get(1)? }))
            .optional()?;
        Ok(Self { keys, end: last.unwrap_or_default(), version: Some(version) })
    }
}

/// The transaction under way.
pub(super) struct Batch<'a> {
    connection: &'a Connection,
    known: &'a mut Known,
    next: u64,
    framed: Vec<u8>,
    sealed: Rows,
    /// The time of the transaction, in milliseconds since 1970.
    pub(super) now_ms: u64,
    /// The number of this process, as the owner of the calls it opens.
    pub(super) owner: i64,
    /// Whether something changed that somebody may wait for.
    pub(super) changed: bool,
}

impl<'a> Batch<'a> {
    /// Begins: the transaction has its lock. Also says whether another process wrote since the last time.
    pub(super) fn begin(
        connection: &'a Connection,
        known: &'a mut Known,
        now_ms: u64,
        owner: i64,
    ) -> rusqlite::Result<Self> {
        let version: i64 =
            connection.prepare_cached("PRAGMA data_version")?.query_one([], |row| row.get(0))?;
        let changed = known.version != Some(version);
        if changed {
            *known = Known::read(connection, version)?;
        }
        let next = known.end.next;
        Ok(Self {
            connection,
            known,
            next,
            framed: Vec::new(),
            sealed: Rows::default(),
            now_ms,
            owner,
            changed,
        })
    }

    /// Makes the rows of processes that are gone those of this one: of `table`, where `which` holds.
    pub(super) fn take_over(&self, table: &str, which: &str, folder: &Path) -> rusqlite::Result<()> {
        let query = format!("SELECT DISTINCT owner FROM {table} WHERE {which}");
        let mut owners = self.sql().prepare_cached(&query)?;
        let owners = owners.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        let query = format!("UPDATE {table} SET owner = ?1 WHERE owner = ?2 AND {which}");
        for gone in
            owners.into_iter().filter(|owner| *owner != self.owner && !owner::is_alive(folder, *owner))
        {
            self.sql().prepare_cached(&query)?.execute([self.owner, gone])?;
        }
        Ok(())
    }

    /// Ends: writes the records as one row. The transaction is not committed yet. Says how many records there are.
    pub(super) fn end(self) -> rusqlite::Result<u64> {
        let End { next: first, at_ms } = self.known.end;
        let count = self.next - first;
        if count == 0 {
            return Ok(0);
        }
        // Time does not go back in this column, whatever the clock does, so that it can be searched.
        let at_ms = sql(self.now_ms).max(at_ms);
        self.connection
            .prepare_cached("INSERT INTO batch (first_index, count, at_ms, records) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![sql(first), sql(count), at_ms, self.framed])?;
        self.sealed.insert(self.connection)?;
        self.known.end = End { next: self.next, at_ms };
        Ok(count)
    }

    /// The connection, inside the transaction.
    pub(super) const fn sql(&self) -> &'a Connection {
        self.connection
    }

    /// Whether the key the record was sealed under was erased since.
    pub(super) fn is_stale(&self, record: &Record) -> bool {
        record
            .sealed
            .as_ref()
            .is_some_and(|sealed| was_stored(&sealed.key) && !self.known.keys.contains(&sealed.key.id))
    }

    /// The place of the next record.
    pub(super) const fn next(&self) -> Position {
        Position(self.next)
    }

    /// Sequences a record and stores its sealed values.
    pub(super) fn sequence(&mut self, record: &Record) -> rusqlite::Result<Position> {
        let index = self.next;
        if let Some(sealed) = &record.sealed {
            self.store_key(&sealed.key)?;
            if let Some(values) = &sealed.values {
                let entry = Entry { index, seed: &sealed.seed, sealed: values };
                self.sealed.add(self.connection, sealed.key.id, entry)?;
            }
        }
        // The length was checked when the record was made.
        let length = u16::try_from(record.leaf.len()).map_err(|_long| rusqlite::Error::InvalidQuery)?;
        self.framed.extend_from_slice(&length.to_be_bytes());
        self.framed.extend_from_slice(&record.leaf);
        self.next += 1;
        Ok(Position(index))
    }

    fn store_key(&mut self, key: &SubjectKey) -> rusqlite::Result<()> {
        if self.known.keys.insert(key.id) {
            self.connection
                .prepare_cached(
                    "INSERT INTO subject_key (id, subject, made_ms, wrapped) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![key.id, key.subject, sql(self.now_ms), key.wrapped])?;
            mark_stored(key);
        }
        Ok(())
    }

    /// Deletes the keys of a subject.
    pub(super) fn delete_keys(&mut self, subject: &str) -> rusqlite::Result<()> {
        let mut select =
            self.connection.prepare_cached("DELETE FROM subject_key WHERE subject = ?1 RETURNING id")?;
        let deleted =
            select.query_map([subject], |row| row.get::<_, i64>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        for id in deleted {
            self.known.keys.remove(&id);
        }
        Ok(())
    }

    /// Deletes the stored answer of a call: it was delivered.
    pub(super) fn delete_answer(&self, call: CallId) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM call WHERE id = ?1 AND outcome IS NOT NULL")?
            .execute([call.as_bytes()])?;
        Ok(())
    }

    /// Deletes a few of the answers whose time is over; says whether there may be more.
    pub(super) fn prune_answers(&self) -> rusqlite::Result<bool> {
        let deleted = self
            .connection
            .prepare_cached(
                "DELETE FROM call WHERE until_ms < ?1 AND id IN \
                 (SELECT id FROM call WHERE outcome IS NOT NULL ORDER BY id LIMIT 256)",
            )?
            .execute([sql(self.now_ms)])?;
        Ok(deleted == 256)
    }

    /// Whether a row is there.
    pub(super) fn exists(&self, query: &str, params: impl rusqlite::Params) -> rusqlite::Result<bool> {
        Ok(self.connection.prepare_cached(query)?.query_row(params, |_row| Ok(())).optional()?.is_some())
    }
}
