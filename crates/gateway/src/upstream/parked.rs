//! Calls that are open at a legacy server while a modern agent gets what the server asked for.
//!
//! The agent holds a sealed `requestState`. It can be opened only by this process, only by the same agent for the same
//! call, only until it expires, and only once: what it stands for is taken out of the table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use toolgate_core::call::Call;
use toolgate_core::digest::Digest;

use super::connection::Connection;
use super::link::Pending;
use crate::rpc;

/// How many calls may be parked at once, and of one agent.
const MAX_PARKED: usize = 1024;
const MAX_PARKED_PER_AGENT: usize = 64;

/// Marks our states, so that those of modern servers are passed on without a look.
const PREFIX: &str = "toolgate.1.";

/// A call that waits for the agent to come back.
pub(super) struct Parked {
    connection: Arc<Connection>,
    pending: Pending,
    /// The server's request that the agent is to answer.
    request: rpc::Request,
    agent: String,
    expires_ms: u64,
}

/// The parked calls and the key that seals what stands for them.
pub(super) struct ParkedCalls {
    cipher: XChaCha20Poly1305,
    /// Guards the parked calls, by the random number that is sealed in their state.
    calls: Mutex<HashMap<[u8; 16], Parked>>,
}

/// Why a call cannot be parked, or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParkError {
    /// There are too many.
    #[error("too many calls wait for their agents")]
    Full,
    /// It is not one of ours, or not for this call, or its time is over, or it was used.
    #[error("`requestState` is not valid for this call, has expired or was used")]
    Invalid,
    /// The system gave no random numbers.
    #[error("no random numbers")]
    NoRandom,
}

impl ParkedCalls {
    pub(super) fn new() -> Result<Self, ParkError> {
        let cipher = XChaCha20Poly1305::new(&Key::from(random::<32>()?));
        Ok(Self { cipher, calls: Mutex::default() })
    }

    /// Parks a call, and gives what stands for it.
    pub(super) fn park(
        &self,
        call: &Call,
        connection: Arc<Connection>,
        pending: Pending,
        request: rpc::Request,
        expires_ms: u64,
    ) -> Result<([u8; 16], String), ParkError> {
        let number = random::<16>()?;
        let nonce = random::<24>()?;
        let mut sealed = nonce.to_vec();
        let aad = binding(call);
        let payload = Payload { msg: &number, aad: aad.as_bytes() };
        // INVARIANT: sealing 16 bytes cannot fail.
        sealed.extend(
            self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_impossible| ParkError::NoRandom)?,
        );
        let agent = call.agent.id.as_str().to_owned();
        let parked = Parked { connection, pending, request, agent, expires_ms };
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let same = calls.values().filter(|other| other.agent == parked.agent).count();
        if calls.len() >= MAX_PARKED || same >= MAX_PARKED_PER_AGENT {
            return Err(ParkError::Full);
        }
        calls.insert(number, parked);
        Ok((number, format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed))))
    }

    /// Whether a state claims to be one of ours.
    pub(super) fn is_ours(state: &str) -> bool {
        state.starts_with(PREFIX)
    }

    /// Takes out what a state stands for. It works once.
    pub(super) fn resume(&self, call: &Call, state: &str, now_ms: u64) -> Result<Parked, ParkError> {
        let sealed = state.strip_prefix(PREFIX).ok_or(ParkError::Invalid)?;
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_invalid| ParkError::Invalid)?;
        let (nonce, sealed) = sealed.split_first_chunk::<24>().ok_or(ParkError::Invalid)?;
        let aad = binding(call);
        let payload = Payload { msg: sealed, aad: aad.as_bytes() };
        let opened =
            self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_forged| ParkError::Invalid)?;
        let number: [u8; 16] = opened.try_into().map_err(|_other| ParkError::Invalid)?;
        let parked = self.take(&number).ok_or(ParkError::Invalid)?;
        if parked.expires_ms <= now_ms {
            parked.give_up();
            return Err(ParkError::Invalid);
        }
        Ok(parked)
    }

    /// Takes out a parked call whose time is over, and tells its server.
    pub(super) fn expire(&self, number: &[u8; 16]) {
        if let Some(parked) = self.take(number) {
            parked.give_up();
        }
    }

    /// Gives up everything that is parked on connections of a session.
    pub(super) fn end_session(&self, session: &str) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = calls.extract_if(|_, parked| parked.connection.session() == session).collect();
        drop(calls);
        gone.into_iter().for_each(|(_, parked)| parked.give_up());
    }

    fn take(&self, number: &[u8; 16]) -> Option<Parked> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(number)
    }
}

impl Parked {
    /// Takes it apart to go on with it.
    pub(super) fn into_parts(self) -> (Arc<Connection>, Pending, rpc::Request) {
        (self.connection, self.pending, self.request)
    }

    /// Tells the server that nobody will answer any more.
    fn give_up(self) {
        let answer = super::link::error_answer(rpc::INTERNAL_ERROR, "the agent did not answer in time");
        self.connection.link().reply(&self.request.id, &answer);
        self.connection.cancel(self.pending.number());
    }
}

/// What a state is bound to: the call, but for what a retry adds to it.
pub(super) fn binding(call: &Call) -> Digest {
    let action = call.action.to_string();
    let pin = call.pin.map(|pin| pin.to_string()).unwrap_or_default();
    let mut extra: Vec<(&str, &[u8])> = call
        .params
        .root()
        .members()
        .filter(|(key, _)| {
            !matches!(*key, "_meta" | "arguments" | "inputResponses" | "name" | "requestState")
        })
        .map(|(key, value)| (key, value.raw()))
        .collect();
    extra.sort_unstable();
    let mut parts: Vec<&[u8]> = vec![
        call.agent.id.as_str().as_bytes(),
        action.as_bytes(),
        call.server.as_str().as_bytes(),
        pin.as_bytes(),
        call.arguments.as_bytes(),
    ];
    for (key, raw) in &extra {
        parts.push(key.as_bytes());
        parts.push(raw);
    }
    Digest::of("toolgate/parked/v1", &parts)
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N], ParkError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_none| ParkError::NoRandom)?;
    Ok(bytes)
}
