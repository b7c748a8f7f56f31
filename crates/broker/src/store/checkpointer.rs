//! The thread that moves what is in the write-ahead log into the database file, so that no commit has to.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;

/// How often one looks at the size of the write-ahead log.
const TICK: Duration = Duration::from_millis(250);

/// From this size on it is copied, while writers go on.
const COPY_FROM: u64 = 4 << 20;

/// From this size on it is cut, for which writers wait a moment.
const CUT_FROM: u64 = 64 << 20;

/// Works until the other end of `stop` is gone.
pub(super) fn run(connection: &Connection, wal: &Path, stop: &Receiver<()>) {
    while stop.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        let size = std::fs::metadata(wal).map_or(0, |file| file.len());
        // What fails here is tried again: nothing is lost, as the write-ahead log stays as it is.
        if size >= COPY_FROM {
            let _ = checkpoint(connection, "PASSIVE");
        }
        if size >= CUT_FROM {
            let _ = checkpoint(connection, "TRUNCATE");
        }
    }
}

/// Copies what is in the write-ahead log; with `TRUNCATE` also cuts it to nothing. Says whether all was copied.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<bool> {
    connection.query_one(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let (busy, frames, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && frames == copied)
    })
}
