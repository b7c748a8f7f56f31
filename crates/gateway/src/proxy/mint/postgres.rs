//! Roles of a PostgreSQL: made for a lease, with a password, an end and a few connections; dropped at its end with the sessions that
//! are open. The name is known before, so that one that was made while everything broke is found again.
//!
//! The password is not part of a statement, which the server may log: it is sent as the verifier that the server keeps (SCRAM, RFC 5802).

use std::fmt::Write as _;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};
use toolgate_broker::totp::base32;
use toolgate_core::hex;
use toolgate_core::time::to_rfc3339;
use zeroize::Zeroizing;

use super::time::now_s;
use super::{Asked, Handle, Minted, part};
use crate::upstream::{is_loopback, own_roots};

/// How long ending a session is waited for, in milliseconds.
const END_SESSION_MS: i64 = 5_000;

/// What a role is called that is made for a lease.
pub(super) fn role(id: &[u8; 16]) -> String {
    format!("toolgate_{}", hex::encode(id))
}

/// Who gets what a role owns.
pub(super) fn heir(asked: &Asked<'_>) -> String {
    let roles = asked.get("roles").unwrap_or_default();
    roles.split(',').next().unwrap_or_default().trim().to_owned()
}

pub(super) async fn mint(asked: &Asked<'_>) -> Result<Minted, String> {
    let Server { config, host, port } = server(asked)?;
    let (client, work) = connect(asked, &config, &host, port).await?;
    let role = role(asked.id);
    let mut random = Zeroizing::new([0; 25]);
    getrandom::fill(&mut *random).map_err(|error| error.to_string())?;
    let password = Zeroizing::new(base32(&*random));
    let verifier = Zeroizing::new(postgres_protocol::password::scram_sha_256(password.as_bytes()));
    let until = now_s() + asked.ttl;
    let roles: Vec<String> = asked.need("roles")?.split(',').map(|role| name(role.trim())).collect();
    let connections: u32 = asked
        .get("connections")
        .map_or(Ok(1), str::parse)
        .map_err(|_number| "`connections` is no number".to_owned())?;
    let mut make = Zeroizing::new(String::new());
    let written = write!(
        make,
        "CREATE ROLE {role} LOGIN PASSWORD {} VALID UNTIL {} CONNECTION LIMIT {connections} IN ROLE {};",
        text(&verifier),
        text(&timestamp(until)),
        roles.join(", "),
    );
    written.map_err(|error| error.to_string())?;
    if let Some(timeout) = asked.get("statement_timeout") {
        make.push_str(&format!("ALTER ROLE {role} SET statement_timeout = {};", text(timeout)));
    }
    let made = client.batch_execute(&format!("BEGIN;{}COMMIT;", *make)).await;
    made.map_err(|error| failure(&error))?;
    drop(client);
    work.abort();
    let database = config.get_dbname().unwrap_or_else(|| config.get_user().unwrap_or_default());
    let written_host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = Zeroizing::new(format!("postgres://{role}:{}@{written_host}:{port}/{database}", *password));
    Ok(Minted {
        parts: vec![
            part("url", url.as_bytes()),
            part("user", role.as_bytes()),
            part("password", password.as_bytes()),
        ],
        until_ms: until * 1_000,
        granted: format!("role={role} in={} connections={connections}", roles.join(",")),
        handle: Handle::Postgres { heir: heir(asked), role },
        unfit: None,
        renewed: None,
    })
}

/// Ends the sessions of a role, and drops it. What it owns goes to the first role that it was a member of, which it could have been
/// anyway: whoever drops it would be somebody who may do more.
pub(super) async fn revoke(asked: &Asked<'_>, role: &str, heir: &str) -> Result<bool, String> {
    let Server { config, host, port } = server(asked)?;
    let (client, work) = connect(asked, &config, &host, port).await?;
    let done = dropped(&client, role, heir).await;
    drop(client);
    work.abort();
    done.map_err(|error| failure(&error)).map(|()| true)
}

async fn dropped(client: &Client, role: &str, heir: &str) -> Result<(), tokio_postgres::Error> {
    let found = client.query("SELECT oid::text FROM pg_roles WHERE rolname = $1", &[&role]).await?;
    let Some(number) = found.first().map(|row| row.get::<_, String>(0)) else { return Ok(()) };
    let (role, heir) = (name(role), name(heir));
    // By its number: a session outlives the name.
    let end = format!(
        "SELECT pg_terminate_backend(pid, {END_SESSION_MS}) FROM pg_stat_activity WHERE usesysid = {};",
        number.parse::<u32>().unwrap_or_default()
    );
    // Each by itself, so that it is in force before the next: first nobody gets in, then nobody is in.
    client.batch_execute(&format!("ALTER ROLE {role} NOLOGIN CONNECTION LIMIT 0")).await?;
    // Whoever is no superuser ends the sessions of roles only that he is a member of. He may be one already.
    let _may_be = client.batch_execute(&format!("GRANT {role} TO CURRENT_USER")).await;
    client.batch_execute(&end).await?;
    client.batch_execute(&format!("REASSIGN OWNED BY {role} TO {heir}; DROP OWNED BY {role}")).await?;
    client.batch_execute(&end).await?;
    client.batch_execute(&format!("DROP ROLE {role}")).await?;
    // Who was let in while the name was being closed.
    client.batch_execute(&end).await
}

/// Where it is.
struct Server {
    config: Config,
    host: String,
    port: u16,
}

fn server(asked: &Asked<'_>) -> Result<Server, String> {
    let wrong = || format!("the secret is not {}", asked.provider.value());
    let config: Config = asked.root_text()?.trim().parse().map_err(|_url| wrong())?;
    let host = match config.get_hosts() {
        [Host::Tcp(host)] => host.clone(),
        _ => return Err(wrong()),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    Ok(Server { config, host, port })
}

type Work = tokio::task::JoinHandle<()>;

/// Connects: over TLS, unless it is on this machine.
async fn connect(
    asked: &Asked<'_>,
    config: &Config,
    host: &str,
    port: u16,
) -> Result<(Client, Work), String> {
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| format!("could not connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| format!("could not connect: {error}"))?;
    if is_loopback(host) {
        let connected = config.connect_raw(stream, NoTls).await;
        let (client, connection) = connected.map_err(|error| failure(&error))?;
        return Ok((client, work(connection)));
    }
    let roots = match asked.get("ca") {
        Some(pem) => own_roots(pem.as_bytes())?,
        None => asked.fetch.roots()?,
    };
    let mut config = config.clone();
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let connected = config.connect_raw(stream, tls::Tls::new(roots, host)?).await;
    let (client, connection) = connected.map_err(|error| failure(&error))?;
    Ok((client, work(connection)))
}

fn work<S, T>(connection: tokio_postgres::Connection<S, T>) -> Work
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        // What goes wrong is told to whoever waits for an answer.
        let _ended = connection.await;
    })
}

/// A name, quoted.
fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, quoted. Backslashes mean themselves (`standard_conforming_strings`).
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Seconds since 1970 as a time of PostgreSQL.
fn timestamp(seconds: u64) -> String {
    to_rfc3339(seconds.saturating_mul(1_000))
}

/// Why it failed: the server's code, which repeats nothing of a statement.
fn failure(error: &tokio_postgres::Error) -> String {
    match error.code() {
        Some(code) => format!("the database answered {}", code.code()),
        None if error.is_closed() => "the database hung up".to_owned(),
        None => "the database could not be talked to".to_owned(),
    }
}

/// TLS for the protocol of PostgreSQL.
mod tls {
    use std::future::Future;
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use super::{AsyncRead, AsyncWrite, ClientConfig};
    use rustls::pki_types::ServerName;
    use tokio::io::ReadBuf;
    use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
    use tokio_rustls::TlsConnector;

    pub(super) struct Tls {
        connector: TlsConnector,
        host: ServerName<'static>,
    }

    impl Tls {
        pub(super) fn new(roots: Arc<ClientConfig>, host: &str) -> Result<Self, String> {
            let name = ServerName::try_from(host.to_owned());
            let host =
                name.map_err(|_invalid| "the host is no name that a certificate could have".to_owned())?;
            Ok(Self { connector: TlsConnector::from(roots), host })
        }
    }

    pub(super) struct Stream<S>(tokio_rustls::client::TlsStream<S>);

    impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Tls {
        type Stream = Stream<S>;
        type Error = io::Error;
        type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

        fn connect(self, stream: S) -> Self::Future {
            Box::pin(async move { Ok(Stream(self.connector.connect(self.host, stream).await?)) })
        }
    }

    impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
        fn channel_binding(&self) -> ChannelBinding {
            ChannelBinding::none()
        }
    }

    impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(context, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_stays_in_its_quotes() {
        assert_eq!(name(r#"a"; DROP ROLE b; --"#), r#""a""; DROP ROLE b; --""#);
        assert_eq!(text("a'; DROP ROLE b; --"), "'a''; DROP ROLE b; --'");
    }
}
