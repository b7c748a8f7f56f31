//! Connections that somebody else reads: who terminates TLS and puts secrets in. The engine decides who may be connected to, looks
//! the name up, connects to an address that it has checked, and hands over both ends. What came of it is told at the end.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use super::http::HttpError;
use super::name::HostName;

/// Takes connections of a cell, and knows what must not be said elsewhere.
pub trait Intercept: fmt::Debug + Send + Sync {
    /// Whether it takes connections to this host and port.
    fn covers(&self, name: &HostName, port: u16) -> bool;

    /// Whether there is something in it that is to be said nowhere but on connections that it takes. It is called with what a program
    /// says in the clear, from time to time with the same bytes again.
    fn marks(&self, bytes: &[u8]) -> bool;

    /// Takes a connection. It must not wait for anything.
    ///
    /// # Errors
    /// It cannot: then the connection is closed.
    fn take(&self, taken: Taken) -> io::Result<()>;
}

/// A connection that is handed over.
#[derive(Debug)]
pub struct Taken {
    /// Whom the program has connected to. The client has named the same one.
    pub name: HostName,
    /// At which port.
    pub port: u16,
    /// The requests that are allowed, as they stand in the rules; without, all.
    pub requests: Option<Vec<String>>,
    /// The program's end. It begins with the client's first message of TLS.
    pub program: OwnedFd,
    /// An open connection to the host, to an address that was checked; it does not block.
    pub server: OwnedFd,
    /// Where an [`Inside`] is told, as one byte, before the program hears of it. Closed when there is nothing more to tell.
    pub told: OwnedFd,
}

/// Why what was said inside TLS was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Inside {
    /// A request, as in the clear.
    #[error(transparent)]
    Http(HttpError),
    /// A placeholder where it has no business.
    #[error("ALARM: the placeholder of a secret was said in another place than its own, inside TLS")]
    Marked,
    /// The client does not believe the certificate, or wants another protocol than HTTP/1.1.
    #[error("the client does not agree to TLS with HTTP/1.1 as the gate speaks it")]
    Client,
    /// The server.
    #[error("the server cannot show a certificate for its name, or does not speak HTTP/1.1")]
    Server,
    /// The secret.
    #[error("the secret cannot be used there any more")]
    Secret,
    /// The answer.
    #[error("the answer cannot be looked through for secrets, and is withheld")]
    Withheld,
}

impl Inside {
    /// All of them; each is told by its place.
    const ALL: [Self; 10] = [
        Self::Http(HttpError::Host),
        Self::Http(HttpError::Long),
        Self::Http(HttpError::Malformed),
        Self::Http(HttpError::Request),
        Self::Http(HttpError::Upgrade),
        Self::Marked,
        Self::Client,
        Self::Server,
        Self::Secret,
        Self::Withheld,
    ];

    /// The byte that tells it.
    #[must_use]
    pub fn as_byte(self) -> u8 {
        let at = Self::ALL.iter().position(|one| *one == self);
        at.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(u8::MAX)
    }

    /// What a byte tells; what nobody told, counts as the worst.
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        usize::from(byte).checked_sub(1).and_then(|at| Self::ALL.get(at)).copied().unwrap_or(Self::Marked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_read() {
        for one in Inside::ALL {
            assert_eq!(Inside::from_byte(one.as_byte()), one);
        }
        assert_eq!(Inside::from_byte(0), Inside::Marked);
        assert_eq!(Inside::from_byte(u8::MAX), Inside::Marked);
    }
}
