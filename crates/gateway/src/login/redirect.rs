//! The browser comes back to this machine (RFC 8252): one request, on loopback.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Where the browser is sent back to.
pub(super) const PATH: &str = "/callback";

/// How long a request may be, and may take.
const MAX_HEAD: usize = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// How many may speak at once: browsers open connections before they need them.
const MAX_OPEN: usize = 16;

/// What the person sees. Nothing of the request is in it.
const PAGE: &str = "<!doctype html><meta charset=utf-8><title>Toolgate</title><p>Toolgate has got the answer. Go back to where you typed \
                    <code>toolgate login</code>: it says there what has come of it. You can close this page.";

/// Waits for the browser.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    port: u16,
}

impl Listener {
    /// Listens on loopback, at a port that nobody has, or at this one. Has to be called within a runtime.
    ///
    /// # Errors
    /// It cannot.
    pub async fn new(port: Option<u16>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or(0))).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Where the browser is to be sent back to.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the first request to that address, answers it, and says what was asked for: path and query. Whatever else is asked gets
    /// nothing.
    ///
    /// # Errors
    /// Nobody can be heard any more.
    pub async fn answer(&self) -> io::Result<String> {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if open.len() < MAX_OPEN => {
                    let (stream, port) = (accepted?.0, self.port);
                    open.spawn(async move { timeout(PATIENCE, one(stream, port)).await.ok()?.ok()? });
                }
                Some(done) = open.join_next() => {
                    if let Ok(Some(target)) = done {
                        return Ok(target);
                    }
                }
            }
        }
    }
}

/// Answers one request. `None`: it was not what is waited for.
async fn one(mut stream: TcpStream, port: u16) -> io::Result<Option<String>> {
    let mut head = Vec::with_capacity(1 << 10);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let target = std::str::from_utf8(&head).ok().and_then(|head| asked_for(head, port));
    let (status, body) = match &target {
        Some(_) => ("200 OK", PAGE),
        None => ("404 Not Found", "There is nothing here.\n"),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: \
         nosniff\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // The answer counts, whether or not somebody looks at the page.
    let _unread = stream.write_all(answer.as_bytes()).await;
    let _closed = stream.shutdown().await;
    Ok(target)
}

/// What a browser asks for that was sent here, and by this machine's address: not by a name that somebody has pointed here.
fn asked_for(head: &str, port: u16) -> Option<String> {
    let mut lines = head.split("\r\n");
    let mut line = lines.next()?.split(' ');
    let (method, target, version) = (line.next()?, line.next()?, line.next()?);
    let (path, _) = target.split_once('?')?;
    let mut hosts =
        lines.filter_map(|line| line.split_once(':')).filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    let (host, more) = (hosts.next()?.1.trim(), hosts.next());
    let here = host == format!("127.0.0.1:{port}");
    let plain = method == "GET" && path == PATH && version.starts_with("HTTP/1.") && line.next().is_none();
    (plain && here && more.is_none()).then(|| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_here_is_taken() {
        let host = "Host: 127.0.0.1:7000\r\n\r\n";
        let taken = |line: &str, rest: &str| asked_for(&format!("{line}\r\n{rest}"), 7000);
        assert_eq!(taken("GET /callback?code=x HTTP/1.1", host).as_deref(), Some("/callback?code=x"));
        for (line, rest) in [
            ("POST /callback?code=x HTTP/1.1", host),
            ("GET /callback HTTP/1.1", host),
            ("GET /other?code=x HTTP/1.1", host),
            ("GET http://127.0.0.1:7000/callback?code=x HTTP/1.1", host),
            ("GET /callback?code=x HTTP/2", host),
            ("GET /callback?code=x", host),
            ("GET /callback?code=x HTTP/1.1", "Host: evil.example:7000\r\n\r\n"),
            ("GET /callback?code=x HTTP/1.1", "Host: 127.0.0.1:7001\r\n\r\n"),
            ("GET /callback?code=x HTTP/1.1", "Host: 127.0.0.1:7000\r\nhost: 127.0.0.1:7000\r\n\r\n"),
            ("GET /callback?code=x HTTP/1.1", "\r\n"),
        ] {
            assert_eq!(taken(line, rest), None, "{line} {rest}");
        }
    }

    #[tokio::test]
    async fn whoever_says_nothing_keeps_nobody_waiting() {
        let listener = Listener::new(None).await.unwrap();
        let port = listener.port;
        let mut idle = Vec::new();
        for _ in 0..MAX_OPEN - 1 {
            idle.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
        let asking = tokio::spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let ask = format!("GET /callback?state=s HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
            stream.write_all(ask.as_bytes()).await.unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).await.unwrap();
            page
        });
        assert_eq!(listener.answer().await.unwrap(), "/callback?state=s");
        let page = asking.await.unwrap();
        assert!(page.contains("default-src 'none'") && !page.contains("state=s"), "{page}");
    }
}
