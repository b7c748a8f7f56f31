//! What was asked of modern agents on behalf of modern servers, in the results of their calls, and is not answered yet.
//!
//! An agent's `inputResponses` answer elicitation, sampling and roots requests, which are judged as calls of their own. So
//! an answer reaches a server only if this gate passed the question on to this agent, for this very call, and once: a
//! hijacked model cannot answer what it was never asked, or was not allowed to be asked. What answers nothing is left out,
//! as servers do themselves; a `requestState` that was not passed on is refused, for it would be a message to the server
//! that nobody judged. The state stays the server's own, byte for byte: this table only remembers digests, so that there
//! is nothing to seal and nothing to open.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use toolgate_core::call::Call;
use toolgate_core::digest::Digest;
use toolgate_core::json::{Document, Edit, ObjectWriter};
use toolgate_core::name::AgentId;

use super::link::parsed;
use super::parked::binding;

/// How many results of one agent may wait for an answer; the oldest are forgotten first.
const MAX_PER_AGENT: usize = 64;
/// How many may in all.
const MAX_OPEN: usize = 8192;

/// The questions that were passed on.
#[derive(Default)]
pub(super) struct PassedOn {
    /// Guards the results that wait for an answer, in the order in which they came.
    open: Mutex<VecDeque<Open>>,
}

/// One result that asked something.
struct Open {
    agent: AgentId,
    about: Digest,
    keys: Vec<Digest>,
    expires_ms: u64,
}

impl PassedOn {
    /// Remembers what was asked.
    pub(super) fn put(&self, agent: &AgentId, about: Digest, keys: Vec<Digest>, now_ms: u64, wait_ms: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| one.expires_ms > now_ms);
        if open.iter().filter(|one| one.agent == *agent).count() >= MAX_PER_AGENT
            && let Some(oldest) = open.iter().position(|one| one.agent == *agent)
        {
            open.remove(oldest);
        }
        if open.len() >= MAX_OPEN {
            open.pop_front();
        }
        open.push_back(Open {
            agent: agent.clone(),
            about,
            keys,
            expires_ms: now_ms.saturating_add(wait_ms),
        });
    }

    /// Takes out what was asked: the keys of the questions. It works once.
    pub(super) fn take(&self, about: Digest, now_ms: u64) -> Option<Vec<Digest>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|one| one.about == about && one.expires_ms > now_ms)?;
        open.remove(at).map(|one| one.keys)
    }
}

/// What a result that asks is about: the call, and the state it came with.
pub(super) fn round(call: &Call, state: Option<&str>) -> Digest {
    let state: &[&[u8]] = &state.map(str::as_bytes).into_iter().collect::<Vec<_>>();
    Digest::of("toolgate/passed-on/v1", &[&[binding(call).as_bytes().as_slice()], state].concat())
}

/// What the questions of a task are about: the task.
pub(super) fn task(call: &Call) -> Digest {
    let id = call.arguments.root().get("taskId").and_then(|id| id.as_str()).unwrap_or_default();
    let parts = [call.agent.id.as_str(), call.server.as_str(), id].map(str::as_bytes);
    Digest::of("toolgate/passed-on-task/v1", &parts)
}

/// What is remembered of a question.
pub(super) fn key(key: &str) -> Digest {
    Digest::of("toolgate/passed-on-key/v1", &[key.as_bytes()])
}

/// The `params` with no answer but those to these questions.
pub(super) fn only(params: &Document, asked: &[Digest]) -> Document {
    let root = params.root();
    let Some(responses) = root.get("inputResponses") else { return params.clone() };
    if responses.is_object() && responses.members().all(|(name, _)| asked.contains(&key(name))) {
        return params.clone();
    }
    let kept = responses
        .members()
        .filter(|(name, _)| asked.contains(&key(name)))
        .fold(ObjectWriter::new(), |kept, (name, answer)| kept.raw(name, answer.raw()));
    parsed(root.rewrite(&[("inputResponses", Edit::Set(&kept.finish()))]))
}
