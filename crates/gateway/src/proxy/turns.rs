//! Turns of secrets that renew themselves, as the credential proxy takes them: see [`toolgate_broker::vault::turns`].

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{sleep, timeout};
use toolgate_broker::lease::{message, receive};
use toolgate_broker::vault::keys::seal;
use toolgate_broker::vault::process::{Value, renewal_key, renewal_purpose};
use toolgate_broker::vault::turns::{Renewed, Said};
use toolgate_core::hex;
use toolgate_core::name::SecretName;
use toolgate_sandbox::messages;

/// How long others may take with theirs.
const PATIENCE: Duration = Duration::from_secs(60);

/// After which times it is tried again to have a value kept.
const AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// Where the gate is asked for turns.
pub(super) struct Turns(OwnedFd);

/// A turn: until it is dropped, nobody else asks for another value of this secret.
pub(super) struct Turn {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
}

impl Turns {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Waits for a turn. The secret's newest value is in force then.
    pub(super) async fn take(&self, secret: &SecretName) -> Result<Turn, String> {
        let gone = |_| "the gate is gone".to_owned();
        let (ours, theirs) = StdStream::pair().map_err(gone)?;
        ours.set_nonblocking(true).map_err(gone)?;
        messages::send(&self.0, secret.as_str().as_bytes(), &[theirs.as_fd()])
            .map_err(|errno| gone(errno.into()))?;
        drop(theirs);
        let (from, to) = UnixStream::from_std(ours).map_err(gone)?.into_split();
        let mut turn = Turn { from: BufReader::new(from), to };
        match timeout(PATIENCE, turn.hear()).await {
            Ok(Ok(Said::Ready)) => Ok(turn),
            Ok(Ok(Said::Failed(why)) | Err(why)) => Err(why),
            Ok(Ok(Said::Kept)) => Err("the gate says what was not asked".to_owned()),
            Err(_elapsed) => Err("others are still renewing it".to_owned()),
        }
    }
}

impl Turn {
    async fn hear(&mut self) -> Result<Said, String> {
        let said = receive::<Said>(&mut self.from).await.map_err(|error| error.to_string())?;
        said.ok_or_else(|| "the gate is gone".to_owned())
    }

    /// Has the value after this one kept. It is durable, and in force here, when this returns.
    pub(super) async fn keep(
        mut self,
        before: &Value,
        tokens: &[u8; 32],
        value: &[u8],
    ) -> Result<(), String> {
        let purpose = renewal_purpose(&before.name, before.version);
        let sealed = seal(&renewal_key(tokens), &purpose, value).map_err(|error| error.to_string())?;
        let renewed = Renewed { version: before.version, sealed: hex::encode(&sealed) };
        let line = message(&renewed).map_err(|error| error.to_string())?;
        let mut pauses = AGAIN.into_iter();
        loop {
            self.to.write_all(&line).await.map_err(|error| error.to_string())?;
            match self.hear().await? {
                Said::Kept => return Ok(()),
                // It is here alone by now, and a disk that is full may have room a moment later.
                Said::Failed(why) => sleep(pauses.next().ok_or(why)?).await,
                Said::Ready => return Err("the gate says what was not asked".to_owned()),
            }
        }
    }
}
