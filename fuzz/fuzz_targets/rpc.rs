//! Any bytes as a message: refused with an answer that is one, or the same when it is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_core::json::Limits;
use toolgate_gateway::rpc::{self, Message};

fuzz_target!(|bytes: &[u8]| {
    let read = |bytes: &[u8]| Message::parse(bytes.to_vec().into(), &Limits::default());
    let written = match read(bytes) {
        Err(error) => {
            let response = error.to_response();
            assert!(response.len() < 10_000);
            assert!(matches!(read(&response), Ok(Message::Response(_))), "what refuses it is no message");
            return;
        }
        Ok(Message::Notification(it)) => {
            rpc::notification(&it.method, it.params.as_ref().map(|params| params.root().raw()))
        }
        Ok(Message::Request(it)) => {
            rpc::request(&it.id, &it.method, it.params.as_ref().map(|params| params.root().raw()))
        }
        Ok(Message::Response(rpc::Response { id: Some(id), answer })) => rpc::answer(&id, &answer),
        Ok(Message::Response(rpc::Response { id: None, answer })) => {
            rpc::failure(None, answer.document().root().raw())
        }
    };
    let again = read(&written).expect("what is written can be read");
    assert_eq!(shown(&again), shown(&read(bytes).expect("it could before")));
});

/// All that a message carries, byte for byte.
fn shown(message: &Message) -> String {
    let raw = |params: &Option<toolgate_core::json::Document>| {
        params.as_ref().map(|params| params.root().raw_str().to_owned())
    };
    match message {
        Message::Notification(it) => format!("notification {} {:?}", it.method, raw(&it.params)),
        Message::Request(it) => format!("request {} {} {:?}", it.id, it.method, raw(&it.params)),
        Message::Response(it) => format!("response {:?} {}", it.id, it.answer.document().root().raw_str()),
    }
}
