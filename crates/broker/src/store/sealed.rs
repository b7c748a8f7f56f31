//! Rows of sealed values: what a transaction has sealed under one subject's key is one row, or a few if it is much.
//!
//! A row is entries one after another: four bytes with the distance of the record from the first record of the row, the seed of
//! 32 bytes, four bytes with the length of what is sealed, what is sealed.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::connection::{sql, unsql};

/// How large a row grows before the next one is begun, in bytes.
const FULL: usize = 4 << 20;

const SEED: usize = 32;

/// The rows of a transaction under way, by the key that their values are sealed under.
#[derive(Default)]
pub(super) struct Rows(HashMap<i64, Row>);

struct Row {
    first: u64,
    entries: Vec<u8>,
}

/// One record's values, sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) index: u64,
    pub(super) seed: &'a [u8; SEED],
    pub(super) sealed: &'a [u8],
}

impl Rows {
    /// Adds the values of a record. Records come in the order of the log.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        key: i64,
        entry: Entry<'_>,
    ) -> rusqlite::Result<()> {
        let row = self.0.entry(key).or_insert_with(|| Row { first: entry.index, entries: Vec::new() });
        if row.entries.len() >= FULL {
            let full = std::mem::replace(row, Row { first: entry.index, entries: Vec::new() });
            full.insert(connection, key)?;
        }
        write(&mut row.entries, row.first, entry)
    }

    /// Writes the rows.
    pub(super) fn insert(self, connection: &Connection) -> rusqlite::Result<()> {
        self.0.into_iter().try_for_each(|(key, row)| row.insert(connection, key))
    }
}

impl Row {
    fn insert(&self, connection: &Connection, key: i64) -> rusqlite::Result<()> {
        connection
            .prepare_cached("INSERT INTO blob (first_index, subject_key, entries) VALUES (?1, ?2, ?3)")?
            .execute(params![sql(self.first), key, self.entries])?;
        Ok(())
    }
}

fn write(row: &mut Vec<u8>, first: u64, entry: Entry<'_>) -> rusqlite::Result<()> {
    let Entry { index, seed, sealed } = entry;
    // A transaction has far fewer records, and what a record may commit to is bounded.
    let too_large = || rusqlite::Error::IntegralValueOutOfRange(0, sql(index));
    let distance =
        index.checked_sub(first).and_then(|distance| u32::try_from(distance).ok()).ok_or_else(too_large)?;
    let length = u32::try_from(sealed.len()).map_err(|_long| too_large())?;
    row.reserve(8 + SEED + sealed.len());
    row.extend_from_slice(&distance.to_be_bytes());
    row.extend_from_slice(seed);
    row.extend_from_slice(&length.to_be_bytes());
    row.extend_from_slice(sealed);
    Ok(())
}

/// The entries of the row that begins with this record. A row that breaks off ends there.
pub(super) fn entries(first: u64, row: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = row;
    std::iter::from_fn(move || {
        let (distance, after) = rest.split_first_chunk::<4>()?;
        let (seed, after) = after.split_first_chunk::<SEED>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let (sealed, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        rest = after;
        let index = first.checked_add(u64::from(u32::from_be_bytes(*distance)))?;
        Some(Entry { index, seed, sealed })
    })
}

/// Deletes the values of one record; says whether there were any.
pub(super) fn delete(connection: &Connection, index: u64) -> rusqlite::Result<bool> {
    let Some(Found { first, row, .. }) = find(connection, index)? else {
        return Ok(false);
    };
    let mut left = Vec::with_capacity(row.len());
    for entry in entries(first, &row).filter(|entry| entry.index != index) {
        write(&mut left, first, entry)?;
    }
    if left.is_empty() {
        connection.prepare_cached("DELETE FROM blob WHERE first_index = ?1")?.execute([sql(first)])?;
    } else {
        connection
            .prepare_cached("UPDATE blob SET entries = ?2 WHERE first_index = ?1")?
            .execute(params![sql(first), left])?;
    }
    Ok(true)
}

/// The row that holds a record's values.
pub(super) struct Found {
    /// The first record of the row.
    pub(super) first: u64,
    /// The key that the row is sealed under.
    pub(super) key: i64,
    pub(super) row: Vec<u8>,
}

/// Finds the row that holds a record's values.
pub(super) fn find(connection: &Connection, index: u64) -> rusqlite::Result<Option<Found>> {
    // Values lie in the rows that the transaction of their record wrote: between its first record and this one.
    let mut select = connection.prepare_cached(
        "SELECT first_index, subject_key, entries FROM blob WHERE first_index <= ?1 \
         AND first_index >= (SELECT max(first_index) FROM batch WHERE first_index <= ?1) ORDER BY first_index DESC",
    )?;
    let mut rows = select.query([sql(index)])?;
    while let Some(row) = rows.next()? {
        let first = unsql(row.get(0)?)?;
        let held = row.get_ref(2)?.as_blob()?;
        if entries(first, held).any(|entry| entry.index == index) {
            return Ok(Some(Found { first, key: row.get(1)?, row: held.to_vec() }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_and_end_where_they_break_off() {
        let (some, more) = ([1; SEED], [2; SEED]);
        let want = [
            Entry { index: 7, seed: &some, sealed: b"one" },
            Entry { index: 9, seed: &more, sealed: b"" },
            Entry { index: 300, seed: &some, sealed: b"three" },
        ];
        let mut row = Vec::new();
        want.iter().for_each(|entry| write(&mut row, 7, *entry).unwrap());
        assert_eq!(entries(7, &row).collect::<Vec<_>>(), want);
        for cut in 0..row.len() {
            let read: Vec<_> = entries(7, &row[..cut]).collect();
            assert!(read.len() < want.len() && want.starts_with(&read), "cut at {cut}");
        }
        assert!(write(&mut row, 8, want[0]).is_err(), "a record before the first one of its row");
    }
}
