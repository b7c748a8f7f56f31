//! The thread that moves what is in the write-ahead log into the database file, so that no commit has to.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;

use super::connection::unsql;

/// How often one looks at the write-ahead log.
const TICK: Duration = Duration::from_millis(250);

/// From this size on, what is not copied yet is copied, while writers go on.
const COPY_FROM: u64 = 4 << 20;

/// From this size on the log begins again at its start, for which writers wait a moment. The file keeps its size: to
/// overwrite a file and flush it costs less than to let it grow.
const RESTART_FROM: u64 = 32 << 20;

/// From this size on the file is cut: somebody who read for long let it grow.
const CUT_FROM: u64 = 256 << 20;

/// Works until the other end of `stop` is gone.
pub(super) fn run(connection: &Connection, wal: &Path, stop: &Receiver<()>) {
    while stop.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        // What fails here is tried again: nothing is lost, as the write-ahead log stays as it is.
        let _ = tidy(connection);
        if std::fs::metadata(wal).is_ok_and(|file| file.len() >= CUT_FROM) {
            let _ = checkpoint(connection, "TRUNCATE");
        }
    }
}

fn tidy(connection: &Connection) -> rusqlite::Result<()> {
    let page = connection.pragma_query_value(None, "page_size", |row| row.get(0)).and_then(unsql)?;
    let (frames, copied) = look(connection)?;
    if frames.saturating_sub(copied).saturating_mul(page) >= COPY_FROM {
        checkpoint(connection, "PASSIVE")?;
    }
    if frames.saturating_mul(page) >= RESTART_FROM {
        // What was written meanwhile, so that little is left for the time when writers wait.
        checkpoint(connection, "PASSIVE")?;
        checkpoint(connection, "RESTART")?;
    }
    Ok(())
}

/// How many pages the write-ahead log has, and how many of them are copied.
fn look(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection.query_one("PRAGMA wal_checkpoint(NOOP)", [], |row| {
        // Both are -1 while there is no write-ahead log.
        let number = |column| row.get(column).map(|number: i64| number.max(0)).and_then(unsql);
        Ok((number(1)?, number(2)?))
    })
}

/// Copies what is in the write-ahead log; with `RESTART` the next write goes to its start, with `TRUNCATE` it is
/// cut to nothing. Says whether all was copied.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<bool> {
    connection.query_one(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let (busy, frames, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && frames == copied)
    })
}
