//! What the fuzz targets reach of what is not public. No part of the interface, and nothing here is used by the program.

use std::sync::Arc;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use toolgate_core::call::Agent;

use crate::front::http::Front;

pub use crate::builtin::fuzzing::{Ordered, ordered};
pub use crate::upstream::fuzzing::frames;

/// What the front makes of a `POST` of this agent: the status, and the body if it is in one piece.
pub async fn post(
    front: &Front,
    agent: Arc<Agent>,
    headers: &[(String, Vec<u8>)],
    body: Bytes,
) -> (u16, Option<Bytes>) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    let (status, body) = front.posted(&map, agent, body).await;
    (status.as_u16(), body)
}
