//! What agents cost the log with what is refused.
//!
//! Each refusal is a record, and the log is never shortened: an agent that is refused all the time could fill the disk, and
//! then nothing runs for anybody. So refusals make a debt, which passes with time, and a request of an agent that is too deep
//! in debt is turned away at the door. Those are counted, and the count is on the log before the next request is let in:
//! nothing is lost silently.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use toolgate_core::name::AgentId;

/// How much an agent may owe, in bytes: some ten thousand refusals.
pub const MAX_DEBT: u64 = 16 << 20;
/// How much of it passes each second: some forty refusals.
pub const PASSES_PER_SECOND: u64 = 64 << 10;
/// What a record takes besides the parameters it keeps.
const RECORD: u64 = 1 << 10;

/// What each agent owes.
#[derive(Debug, Default)]
pub struct Debts {
    /// Guards the debts. There are no more of them than agents.
    owed: Mutex<HashMap<AgentId, Debt>>,
}

#[derive(Debug)]
struct Debt {
    bytes: u64,
    at: Instant,
    turned_away: u64,
}

impl Debts {
    /// Notes a refusal that kept so many bytes of parameters.
    pub fn charge(&self, agent: &AgentId, bytes: usize, now: Instant) {
        let bytes = RECORD.saturating_add(bytes as u64);
        self.with(agent, now, |debt| debt.bytes = debt.bytes.saturating_add(bytes));
    }

    /// Notes requests that were turned away for other reasons, or that could not be written down.
    pub fn turn_away(&self, agent: &AgentId, how_many: u64, now: Instant) {
        self.with(agent, now, |debt| debt.turned_away = debt.turned_away.saturating_add(how_many));
    }

    /// Lets a request in, and says how many were turned away before it, to be written down; `None` if it is turned away too.
    #[must_use]
    pub fn let_in(&self, agent: &AgentId, now: Instant) -> Option<u64> {
        let mut all = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        // Who was never refused has no entry, and gets none by this.
        let Some(debt) = all.get_mut(agent) else { return Some(0) };
        debt.pass(now);
        if debt.bytes > MAX_DEBT {
            debt.turned_away = debt.turned_away.saturating_add(1);
            return None;
        }
        let before = std::mem::take(&mut debt.turned_away);
        if debt.bytes == 0 {
            all.remove(agent);
        }
        Some(before)
    }

    fn with(&self, agent: &AgentId, now: Instant, change: impl FnOnce(&mut Debt)) {
        let mut all = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let debt = all.entry(agent.clone()).or_insert(Debt { bytes: 0, at: now, turned_away: 0 });
        debt.pass(now);
        change(debt);
    }
}

impl Debt {
    fn pass(&mut self, now: Instant) {
        let ms = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let passed = ms.saturating_mul(PASSES_PER_SECOND) / 1000;
        // Less than a byte's time is not forgotten.
        if passed > 0 {
            self.bytes = self.bytes.saturating_sub(passed);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_is_refused_too_often_has_to_wait_and_is_counted() {
        let debts = Debts::default();
        let (flood, other): (AgentId, AgentId) = ("flood".parse().unwrap(), "other".parse().unwrap());
        let now = Instant::now();
        for _ in 0..MAX_DEBT / RECORD {
            assert_eq!(debts.let_in(&flood, now), Some(0));
            debts.charge(&flood, 0, now);
        }
        assert_eq!(debts.let_in(&flood, now), Some(0), "the last that is still let in");
        debts.charge(&flood, 3 << 20, now);
        for _ in 0..3 {
            assert_eq!(debts.let_in(&flood, now), None);
        }
        assert_eq!(debts.let_in(&other, now), Some(0));
        let soon = now + Duration::from_secs(47);
        assert_eq!(debts.let_in(&flood, soon), None, "large parameters cost more");
        let later = now + Duration::from_secs(49);
        assert_eq!(debts.let_in(&flood, later), Some(4), "how many it were");
        assert_eq!(debts.let_in(&flood, later), Some(0), "is said once");
        assert_eq!(debts.let_in(&flood, later + Duration::from_secs(300)), Some(0));
        assert!(debts.owed.lock().unwrap().is_empty(), "all is forgiven");
    }
}
