//! Which server has which task of which agent (extension `io.modelcontextprotocol/tasks`).
//!
//! A task's id is a name, not a key: it leads only the agent whose call became the task back to it. The table is in
//! memory; after a restart the agent is told that there is no such task.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use toolgate_core::name::{AgentId, ServerName};

/// How many tasks are remembered; the oldest are forgotten first.
const MAX_TASKS: usize = 10_000;

/// How long a task's id may be.
const MAX_ID: usize = 256;

/// A task: whose, and its id.
type Key = (AgentId, String);

/// The tasks of all agents.
#[derive(Debug, Default)]
pub struct Tasks {
    /// The tasks, and the order in which they came.
    known: Mutex<(HashMap<Key, ServerName>, VecDeque<Key>)>,
}

impl Tasks {
    /// Remembers a task. False if its id cannot be: it is too long, or another server of this agent has it already.
    #[must_use]
    pub fn insert(&self, agent: &AgentId, id: &str, server: &ServerName) -> bool {
        if id.len() > MAX_ID {
            return false;
        }
        let (known, order) = &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (agent.clone(), id.to_owned());
        if let Some(of) = known.get(&key) {
            return of == server;
        }
        if order.len() >= MAX_TASKS
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        order.push_back(key.clone());
        known.insert(key, server.clone());
        true
    }

    /// The server that has this task of this agent.
    #[must_use]
    pub fn server(&self, agent: &AgentId, id: &str) -> Option<ServerName> {
        let (known, _order) = &*self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(agent.clone(), id.to_owned())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_leads_its_own_agent_to_its_own_server() {
        let tasks = Tasks::default();
        let (mine, other): (AgentId, AgentId) = ("mine".parse().unwrap(), "other".parse().unwrap());
        let (a, b): (ServerName, ServerName) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(tasks.insert(&mine, "t", &a));
        assert!(tasks.insert(&mine, "t", &a), "said again");
        assert!(!tasks.insert(&mine, "t", &b), "another server cannot take it over");
        assert_eq!(tasks.server(&mine, "t"), Some(a));
        assert_eq!(tasks.server(&other, "t"), None, "another agent's");
        assert!(!tasks.insert(&mine, &"x".repeat(MAX_ID + 1), &b));
        for number in 0..MAX_TASKS {
            assert!(tasks.insert(&other, &number.to_string(), &b));
        }
        assert_eq!(tasks.server(&mine, "t"), None, "the oldest is forgotten");
        assert_eq!(tasks.known.lock().unwrap().0.len(), MAX_TASKS);
    }
}
