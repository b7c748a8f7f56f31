//! Reading the log, and the values beside it.

use rusqlite::{Connection, OptionalExtension as _};

use super::calls::KeyRow;
use super::connection::{sql, unsql};
use super::sealed::{self, Found, entries};
use super::{SqliteStore, read_error};
use crate::blob::{DataKey, Part, SealError, SubjectKey, Value, unframe};
use crate::port::{Position, StoreError};

/// How many bytes of records are read at once, but for the last transaction among them.
const MAX_READ: usize = 8 << 20;

/// A record's sealed values with their key.
struct Held {
    key: KeyRow,
    seed: [u8; 32],
    sealed: Vec<u8>,
}

impl SqliteStore {
    /// How many records the log has.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn size(&self) -> Result<u64, StoreError> {
        self.readers.with(next_index)
    }

    /// Records from an index on: at most `max` of them, and not many more than 8 MiB. Fewer than `max` does not mean
    /// that there are no more; none does.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn records(&self, from: Position, max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.readers.with(|sql| records(sql, from.0, max))
    }

    /// The first record that was written at `at_ms` or later, or the place of the next one.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn first_since(&self, at_ms: u64) -> Result<Position, StoreError> {
        self.readers.with(|sql| first_since(sql, at_ms)).map(Position)
    }

    /// The values that a record commits to. Empty if it commits to none, or they were erased.
    ///
    /// # Errors
    /// The store could not be read, or what it holds was changed.
    pub fn values(&self, index: Position) -> Result<Vec<Value>, StoreError> {
        let (leaf, row) =
            self.readers.with(|sql| Ok((records(sql, index.0, 1)?.pop(), held(sql, index.0)?)))?;
        let (Some(leaf), Some(Held { key, seed, sealed })) = (leaf, row) else {
            return Ok(Vec::new());
        };
        let open = || -> Result<Vec<u8>, SealError> {
            let key = SubjectKey::from_row(self.keys.root(), key.id, &key.subject, key.wrapped)?;
            DataKey::from_row(&key, &seed)?.open(Part::Values, &leaf, sealed)
        };
        unframe(open().map_err(read_error)?)
            .ok_or_else(|| read_error("stored values are not framed as they should be"))
    }
}

fn next_index(connection: &Connection) -> rusqlite::Result<u64> {
    let next: Option<i64> = connection
        .prepare_cached("SELECT first_index + count FROM batch ORDER BY first_index DESC LIMIT 1")?
        .query_one([], |row| row.get(0))
        .optional()?;
    next.map_or(Ok(0), unsql)
}

fn records(connection: &Connection, from: u64, max: usize) -> rusqlite::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut select = connection.prepare_cached(
        "SELECT first_index, records FROM batch \
         WHERE first_index >= coalesce((SELECT max(first_index) FROM batch WHERE first_index <= ?1), 0) \
         ORDER BY first_index",
    )?;
    let mut rows = select.query([sql(from)])?;
    while let Some(row) = rows.next()? {
        let first = unsql(row.get(0)?)?;
        let framed = row.get_ref(1)?.as_blob()?;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        for record in unframed(framed).skip(skip) {
            if found.len() >= max {
                return Ok(found);
            }
            bytes += record.len();
            found.push(record.to_vec());
        }
        if bytes >= MAX_READ {
            break;
        }
    }
    Ok(found)
}

/// The records in a row. A row that breaks off ends there; that the count is right shows when the log is verified.
fn unframed(framed: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = framed;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (record, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some(record)
    })
}

fn held(connection: &Connection, index: u64) -> rusqlite::Result<Option<Held>> {
    let Some(Found { first, key, row }) = sealed::find(connection, index)? else {
        return Ok(None);
    };
    let key = connection
        .prepare_cached("SELECT id, subject, wrapped FROM subject_key WHERE id = ?1")?
        .query_row([key], |row| Ok(KeyRow { id: row.get(0)?, subject: row.get(1)?, wrapped: row.get(2)? }))
        .optional()?;
    let entry = entries(first, &row).find(|entry| entry.index == index);
    Ok(key.zip(entry).map(|(key, entry)| Held { key, seed: *entry.seed, sealed: entry.sealed.to_vec() }))
}

/// Halves the range of indices until the row is found: rows are in the order of their times.
fn first_since(connection: &Connection, at_ms: u64) -> rusqlite::Result<u64> {
    let (mut low, mut high) = (0, next_index(connection)?);
    let mut select = connection.prepare_cached(
        "SELECT first_index, count, at_ms FROM batch WHERE first_index <= ?1 ORDER BY first_index DESC LIMIT 1",
    )?;
    while low < high {
        let middle = low + (high - low) / 2;
        let (first, count, at): (i64, i64, i64) =
            select.query_one([sql(middle)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        if at < sql(at_ms) {
            low = unsql(first.saturating_add(count))?.max(low + 1);
        } else {
            high = unsql(first)?;
        }
    }
    Ok(low)
}
