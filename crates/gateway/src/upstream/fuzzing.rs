//! A server that writes anything at all, for the fuzz targets.

use std::sync::Arc;

use tokio::sync::broadcast;
use toolgate_core::call::Action;

use super::config::Bounds;
use super::link::Event;
use super::observe::Unobserved;
use super::results::{Legs, kind, translate};
use super::stdio::StdioLink;
use super::told::Told;
use crate::rpc;

/// What comes of a call, whose number is 1, when its server writes these bytes and ends: each event in a line, the last of
/// which ends the call. A result is shown as agents of either era would get it.
///
/// # Panics
/// Never: the names are names.
pub async fn frames(bytes: Vec<u8>) -> Vec<String> {
    let Ok(server) = "s".parse() else { return Vec::new() };
    let told = Told {
        server,
        session: "s".to_owned(),
        observer: Arc::new(Unobserved),
        counters: Arc::default(),
        events: broadcast::channel(16).0,
        changes: broadcast::channel(16).0,
        stale: false.into(),
        renew: std::sync::OnceLock::new(),
    };
    let bounds = Bounds { max_message_bytes: 64 << 10, ..Bounds::default() };
    let (reader, writer) = (std::io::Cursor::new(bytes), tokio::io::sink());
    let link = StdioLink::over(reader, writer, None, Arc::new(told), bounds);
    let number = link.next_number();
    let line = rpc::request(&number.into(), "tools/call", Some(b"{}"));
    let mut seen = Vec::new();
    let Ok(mut pending) = link.start(number, line, true).await else { return seen };
    loop {
        match pending.next().await {
            Event::Answer(answer) => {
                for (agent_modern, server_modern) in
                    [(true, true), (true, false), (false, true), (false, false)]
                {
                    let legs = Legs { agent_modern, server_modern };
                    let shown = translate(answer.clone(), &Action::ReadResource, legs);
                    seen.push(format!(
                        "answer {:?} {}",
                        kind(answer.document()),
                        shown.document().root().raw_str()
                    ));
                }
                return seen;
            }
            Event::Ask(request) => seen.push(format!("ask {} {}", request.id, request.method)),
            Event::Notice(notice) => seen.push(format!("notice {}", notice.method)),
            other @ (Event::Lost(_) | Event::NotSent(_) | Event::Status { .. }) => {
                seen.push(format!("{other:?}"));
                return seen;
            }
        }
    }
}
