//! Publishing the log: what is sequenced in the store becomes tiles and a signed checkpoint in a folder.
//!
//! Nothing here is needed for a call to run: the records are durable in the store. It can be stopped and repeated at
//! any time, and only one process at a time is the signer.

use std::path::Path;

use toolgate_ledger::publish::PublishError;
use toolgate_ledger::signer::{OpenSignerError, Signer};
use toolgate_ledger::{Checkpoint, Folder, Publisher, VerifierKey};

use crate::port::{Position, StoreError};
use crate::store::SqliteStore;

/// Why the log cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishLogError {
    /// The folder cannot be written, or the signer refuses.
    #[error("the log could not be published")]
    Publish(#[from] PublishError),
    /// The signer cannot be used.
    #[error("the signer of the log cannot be used")]
    Signer(#[from] OpenSignerError),
    /// The store cannot be read.
    #[error("the records could not be read")]
    Store(#[from] StoreError),
}

impl PublishLogError {
    /// Whether another process is the signer at the moment: then it publishes.
    #[must_use]
    pub const fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Signer(OpenSignerError::Busy(_)))
    }
}

/// Publishes one log.
pub struct LogPublisher {
    publisher: Publisher,
    signer: Signer,
}

impl LogPublisher {
    /// Becomes the signer of the log. If there is no key yet, one is made, and the log is called `origin` for ever.
    ///
    /// # Errors
    /// Another process is the signer, or its files are damaged or gone.
    pub fn open(log: &Path, signer: &Path, origin: &str) -> Result<Self, PublishLogError> {
        let signer = match Signer::open(signer) {
            Err(OpenSignerError::NoKey(_)) => Signer::generate(signer, origin)?,
            other => other?,
        };
        let publisher = Publisher::open(Folder::new(log), &signer)?;
        Ok(Self { publisher, signer })
    }

    /// The key that verifiers need.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        self.signer.verifier()
    }

    /// Publishes all that is sequenced.
    ///
    /// # Errors
    /// See [`PublishLogError`].
    pub fn publish(&mut self, store: &SqliteStore) -> Result<Checkpoint, PublishLogError> {
        let size = store.size()?;
        let read = |from, max| store.records(Position(from), max);
        Ok(self.publisher.publish(size, read, &mut self.signer)?)
    }
}
