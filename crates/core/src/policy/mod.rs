//! The policy: what the rules say about a call.
