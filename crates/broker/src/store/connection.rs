//! Connections to the database file: how they are opened, and how its schema came to be.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::OpenStoreError;
use crate::port::StoreError;

/// The oldest version of the schema that there is.
const FIRST: usize = 2;

/// The schema in its oldest version, and the steps from one version to the next.
const MIGRATIONS: [&str; 3] =
    [include_str!("schema.sql"), include_str!("schema-3.sql"), include_str!("schema-4.sql")];

/// How long one waits for another process which holds the write lock.
const BUSY: Duration = Duration::from_secs(10);

/// The file of the database in the folder of the state.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("state.db")
}

/// Opens the connection that writes, making and migrating the file.
pub(super) fn open_writer(folder: &Path) -> Result<Connection, OpenStoreError> {
    let path = path(folder);
    // Made by hand, so that no moment exists in which others could read it; SQLite gives its side files the same mode.
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    let mut connection = open(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenStoreError::NoWal);
    }
    // A commit returns after the flush; checkpoints are made by another thread; what is deleted is overwritten.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens a connection that reads.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

/// Opens the connection that checkpoints.
pub(super) fn open_checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // While it waits for readers, writers wait for it.
    connection.busy_timeout(Duration::from_millis(100))?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Else SQLite prepares a statement anew each time a bound value changes, in the hope of a better plan.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), OpenStoreError> {
    let known = FIRST + MIGRATIONS.len() - 1;
    // In one transaction that locks first: two processes which start at once migrate once.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > known {
        return Err(OpenStoreError::Newer { version, known });
    }
    if version > 0 && version < FIRST {
        return Err(OpenStoreError::Older { version });
    }
    for step in MIGRATIONS.iter().skip((version + 1).saturating_sub(FIRST)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(known).unwrap_or(i64::MAX))?;
    transaction.commit()?;
    Ok(())
}

/// Connections for reading, made as they are needed and kept.
pub(super) struct Readers {
    path: PathBuf,
    /// Those not in use. Guards nothing else.
    idle: Mutex<Vec<Connection>>,
}

/// How many idle connections are kept.
const MAX_IDLE: usize = 8;

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default() }
    }

    /// Reads with one of the connections. What is asked for is small and in memory as a rule, so this does not leave
    /// the thread of an asynchronous caller.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path).map_err(read_error)?,
        };
        let result = read(&connection).map_err(read_error);
        let mut idle = self.lock();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "taken by `map_err`")]
fn read_error(error: rusqlite::Error) -> StoreError {
    StoreError::Read(error.to_string())
}

/// Whether the error says that the disk is full.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// A number as the database has it. Times, counts and indices stay far below the limit.
pub(super) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as the database had it. A negative one is no number of ours.
pub(super) fn unsql(number: i64) -> rusqlite::Result<u64> {
    u64::try_from(number).map_err(|_negative| rusqlite::Error::IntegralValueOutOfRange(0, number))
}
