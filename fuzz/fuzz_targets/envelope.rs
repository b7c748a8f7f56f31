//! Any headers around any body: the front answers, and what is handed on is what body and headers both say.
//!
//! The input is header lines, an empty line, and the body.
#![no_main]
#![allow(dead_code, unreachable_pub)]

#[path = "../../crates/gateway/tests/agents/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use toolgate_core::json::{Document, Limits, Value};
use toolgate_gateway::front::http::{Front, Settings};
use toolgate_gateway::fuzzing::post;
use toolgate_gateway::headers;

use world::{Tokens, World, agent};

struct Bench {
    runtime: tokio::runtime::Runtime,
    world: World,
    front: Arc<Front>,
}

static BENCH: OnceLock<Bench> = OnceLock::new();

fn bench() -> &'static Bench {
    BENCH.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let world = World::new();
        let front = Front::new(Arc::clone(&world.router), Arc::new(Tokens), Settings::default());
        Bench { runtime, world, front }
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Bench { runtime, world, front } = bench();
    let cut = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let (head, body) = bytes.split_at(cut);
    let body = body.get(2..).unwrap_or_default();
    let headers: Vec<(String, Vec<u8>)> = head
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            let value = value.strip_prefix(b":")?.trim_ascii();
            Some((String::from_utf8(name.to_vec()).ok()?, value.to_vec()))
        })
        .collect();
    world.minutes.take();
    let posted = runtime.block_on(async {
        // Some calls wait for ever; whoever gives up gets no answer.
        tokio::select! {
            posted = post(front, agent("all"), &headers, body.to_vec().into()) => Some(posted),
            () = async { for _ in 0..200 { tokio::task::yield_now().await } } => None,
        }
    });
    let handled: Vec<String> = world
        .minutes
        .take()
        .into_iter()
        .filter(|line| line.starts_with("handle all s/") || line.starts_with("handle all t/"))
        .collect();
    if let Some((status, answer)) = posted {
        assert!(matches!(status, 200 | 202 | 400 | 404 | 429 | 503), "{status}");
        if let Some(answer) = answer.filter(|answer| !answer.is_empty() && status != 503) {
            let answer = Document::parse(answer, &Limits::default()).expect("an answer is JSON");
            assert_eq!(answer.root().get("jsonrpc").and_then(|v| v.as_str()), Some("2.0"));
        }
    }
    for line in handled {
        let document = Document::parse(body, &Limits::default()).expect("what is handled was read");
        let root = document.root();
        let text = |path: &[&str]| root.path(path).and_then(|value| value.as_str());
        assert_eq!(text(&["method"]), Some("tools/call"), "{line}");
        let name = text(&["params", "name"]).expect("it names a tool");
        assert!(line.starts_with(&format!("handle all {} ", name.replacen("__", "/", 1))), "{line}");
        if root.path(&["params", "_meta", "io.modelcontextprotocol/protocolVersion"]).is_some() {
            let only = |wanted: &str| {
                let mut found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
                let value = found.next().map(|(_, value)| String::from_utf8_lossy(value).into_owned());
                assert!(found.next().is_none(), "twice: {wanted}");
                value.expect("a header that has to be there")
            };
            assert_eq!(only("mcp-method"), "tools/call");
            assert_eq!(headers::decode(&only("mcp-name")).as_deref(), Some(name));
            if name == "t__mirror" {
                let argument =
                    |key: &str| root.path(&["params", "arguments", key]).filter(|v: &Value<'_>| !v.is_null());
                if let Some(region) = argument("r") {
                    assert_eq!(headers::decode(&only("mcp-param-region")).as_deref(), region.as_str());
                }
            }
        }
    }
});
