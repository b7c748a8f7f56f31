//! Which server has which task of which agent (extension `io.modelcontextprotocol/tasks`).
//!
//! A task's id is a name, not a key: it leads only the agent whose call became the task back to it. The table is in
//! memory; after a restart the agent is told that there is no such task.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use toolgate_core::name::{AgentId, ServerName};

/// How many tasks are remembered for one agent; its oldest are forgotten first.
const MAX_TASKS: usize = 1024;

/// How long a task's id may be.
const MAX_ID: usize = 256;

/// The tasks of all agents. None can fill the table of another, nor find out what is in it.
#[derive(Debug, Default)]
pub struct Tasks {
    /// Guards the tasks of each agent.
    known: Mutex<HashMap<AgentId, Own>>,
}

/// The tasks of one agent.
#[derive(Debug, Default)]
struct Own {
    servers: HashMap<String, ServerName>,
    /// Their ids in the order in which they came.
    order: VecDeque<String>,
}

impl Tasks {
    /// Remembers a task. False if its id cannot be: it is too long, or another server of this agent has it already.
    #[must_use]
    pub fn insert(&self, agent: &AgentId, id: &str, server: &ServerName) -> bool {
        if id.len() > MAX_ID {
            return false;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Own { servers, order } = known.entry(agent.clone()).or_default();
        if let Some(of) = servers.get(id) {
            return of == server;
        }
        if order.len() >= MAX_TASKS
            && let Some(oldest) = order.pop_front()
        {
            servers.remove(&oldest);
        }
        order.push_back(id.to_owned());
        servers.insert(id.to_owned(), server.clone());
        true
    }

    /// The server that has this task of this agent.
    #[must_use]
    pub fn server(&self, agent: &AgentId, id: &str) -> Option<ServerName> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(agent)?.servers.get(id).cloned()
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
        assert_eq!(tasks.server(&mine, "t"), Some(a.clone()));
        assert_eq!(tasks.server(&other, "t"), None, "another agent's");
        assert!(!tasks.insert(&mine, &"x".repeat(MAX_ID + 1), &b));
        for number in 0..MAX_TASKS {
            assert!(tasks.insert(&other, &number.to_string(), &b));
        }
        assert_eq!(tasks.server(&mine, "t"), Some(a), "a flood of one agent takes nothing from another");
        assert!(tasks.insert(&other, "one more", &b));
        assert_eq!(tasks.server(&other, "0"), None, "its own oldest is forgotten");
        let known = tasks.known.lock().unwrap();
        assert_eq!((known[&other].servers.len(), known[&other].order.len()), (MAX_TASKS, MAX_TASKS));
    }
}
