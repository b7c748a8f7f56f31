//! Times as providers write them.

use toolgate_broker::port::{Clock as _, SystemClock};
use toolgate_core::json::Value;
pub(super) use toolgate_core::time::from_rfc3339 as rfc3339;
use toolgate_core::time::to_rfc3339;

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemClock.now_ms()
}

/// Now, in seconds since 1970.
pub(super) fn now_s() -> u64 {
    now_ms() / 1_000
}

/// When something ends that lasts so many seconds from now.
pub(crate) fn in_seconds(seconds: u64) -> u64 {
    now_ms().saturating_add(seconds.saturating_mul(1_000))
}

/// For how many seconds something lasts that says so. What says anything else is not believed.
pub(crate) fn seconds(said: Option<Value<'_>>) -> Result<Option<u64>, String> {
    let read = |said: Value<'_>| said.as_i64().and_then(|seconds| u64::try_from(seconds).ok());
    said.map(|said| read(said).ok_or_else(|| "it says no number of seconds for how long it lasts".to_owned()))
        .transpose()
}

/// A time as AWS writes it in requests: `20261122T083000Z`.
pub(super) fn basic(seconds: u64) -> String {
    to_rfc3339(seconds.saturating_mul(1_000)).replace(['-', ':'], "")
}
