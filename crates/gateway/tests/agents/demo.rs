//! Who comes in without showing anything, where the demo is open: a program on this machine, as the demo agent.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use toolgate_broker::port::BoxFuture;
use toolgate_core::call::Agent;
use toolgate_gateway::front::http::{Front, Settings};
use toolgate_gateway::port::{Identify, IdentifyError};

use crate::world::{Http, Tokens, World, agent, modern, request};

/// As [`Tokens`], but who shows nothing is let in, and nobody is known by their user id.
struct Open;

impl Identify for Open {
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<Agent>, IdentifyError>> {
        Tokens.bearer(token)
    }

    fn anonymous(&self) -> Option<Arc<Agent>> {
        Some(agent("some"))
    }

    fn peer(&self, _uid: u32) -> Option<Arc<Agent>> {
        None
    }
}

#[tokio::test]
async fn only_who_shows_nothing_at_all_from_here_is_the_demo_agent() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = Http { address: listener.local_addr().unwrap() };
    let front = Front::new(Arc::clone(&world.router), Arc::new(Open), Settings::default());
    tokio::spawn(Arc::clone(&front).serve_tcp(listener));
    let (headers, body) = modern("tools/call", Some("s__echo"), r#""name":"s__echo""#);
    for (extra, status, want) in [
        ("Authorization:", 200, "handle some"),
        ("Authorization: Bearer all", 200, "handle all"),
        // Something wrong is never the same as nothing.
        ("Authorization: Bearer wrong", 401, ""),
        ("Authorization: Bearer", 401, ""),
        ("Authorization: Basic c29tZTo=", 401, ""),
        ("Authorization: Bearer all\nAuthorization: Bearer all", 401, ""),
        // Not from here, or not from a program.
        ("Authorization:\nX-Forwarded-For: 192.0.2.1", 401, ""),
        ("Authorization:\nForwarded: for=192.0.2.1", 401, ""),
        ("Authorization:\nVia: 1.1 proxy", 401, ""),
        ("Authorization:\nOrigin: http://localhost:3000", 401, ""),
        ("Authorization:\nHost: evil.example", 403, ""),
    ] {
        let got = http.send("POST", &format!("{headers}\n{extra}"), &body).await;
        assert_eq!(got.status, status, "{extra}: {got:?}");
        let lines = world.minutes.take();
        assert_eq!(!want.is_empty(), lines.first().is_some_and(|line| line.starts_with(want)), "{lines:?}");
        assert_eq!(want.is_empty(), lines.is_empty(), "{extra}: {lines:?}");
    }
    // At the Unix socket the system says who is there; whoever is no agent stays outside.
    let folder = std::env::temp_dir().join(format!("toolgate-open-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("gate.sock");
    tokio::spawn(front.serve_unix(UnixListener::bind(&path).unwrap()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&request("POST", &format!("{headers}\nAuthorization:"), &body)).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    std::fs::remove_dir_all(&folder).unwrap();
}
