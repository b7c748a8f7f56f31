//! What an agent is shown: the accepted tools that it may see, under names that say whose they are.
//!
//! Lists are worked out once for each agent and rulebook and then kept as text. What is not in an agent's list does not
//! exist for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use bytes::Bytes;
use toolgate_broker::rulebook::Rulebook;
use toolgate_core::call::{Action, Agent};
use toolgate_core::digest::Digest;
use toolgate_core::json::{Edit, quote};
use toolgate_core::name::{AgentId, ServerName, ToolName};

use crate::headers::{self, ParamHeader};

/// How many items one page of a list has.
pub const PAGE: usize = 1000;

/// For how many agents lists are kept; with more, all are worked out anew.
const MAX_AGENTS: usize = 1024;

/// How names of servers' things are shown to agents: `server__name`.
///
/// One server may be bare: its things keep their own names. What would then have a name of the other form is not shown.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// The server whose things keep their own names.
    pub bare: Option<ServerName>,
}

impl Naming {
    /// What an agent is shown; `None` for what cannot be named so that the name leads back.
    #[must_use]
    pub fn shown(&self, servers: &BTreeSet<ServerName>, server: &ServerName, name: &str) -> Option<String> {
        if self.bare.as_ref() != Some(server) {
            return Some(format!("{server}__{name}"));
        }
        let leads_back = self.meant(servers, name).is_some_and(|(meant, _)| meant == *server);
        leads_back.then(|| name.to_owned())
    }

    /// Whose thing of which name is meant; `None` if the name leads to no configured server.
    #[must_use]
    pub fn meant(&self, servers: &BTreeSet<ServerName>, shown: &str) -> Option<(ServerName, String)> {
        let prefixed = shown.split_once("__").and_then(|(server, name)| {
            let server: ServerName = server.parse().ok()?;
            (servers.contains(&server) && self.bare.as_ref() != Some(&server))
                .then(|| (server, name.to_owned()))
        });
        prefixed.or_else(|| self.bare.clone().map(|server| (server, shown.to_owned())))
    }
}

/// A tool as agents are shown it.
#[derive(Debug)]
pub struct Shown {
    /// The tool.
    pub name: ToolName,
    /// The definition that was accepted.
    pub pin: Digest,
    /// The arguments that are repeated in HTTP headers.
    pub headers: Vec<ParamHeader>,
    /// The name that agents use.
    shown: String,
    /// The definition byte for byte but for the name.
    definition: Vec<u8>,
}

/// The tools that one agent may see.
#[derive(Debug)]
pub struct Seen {
    tools: HashMap<String, Arc<Shown>>,
    list: List,
}

impl Seen {
    /// The tool of this name; `None` for one that does not exist as far as this agent can tell.
    #[must_use]
    pub fn tool(&self, shown: &str) -> Option<&Arc<Shown>> {
        self.tools.get(shown)
    }

    /// Whether a tool of this server is among them.
    #[must_use]
    pub fn any_of(&self, server: &ServerName) -> bool {
        self.tools.values().any(|tool| tool.name.server() == server)
    }

    /// The list in pages.
    #[must_use]
    pub const fn list(&self) -> &List {
        &self.list
    }
}

/// A list in pages, each of them a JSON array.
#[derive(Debug, Clone)]
pub struct List {
    pages: Vec<Bytes>,
    /// Of everything in it: a cursor leads on only in the very list it came from.
    digest: Digest,
}

impl List {
    /// Puts a list together from its items.
    pub fn new<'a>(items: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut pages = Vec::new();
        let (mut page, mut count) = (vec![b'['], 0_usize);
        for item in items {
            if count == PAGE {
                page.push(b']');
                pages.push(std::mem::replace(&mut page, vec![b'[']).into());
                count = 0;
            }
            if count > 0 {
                page.push(b',');
            }
            page.extend_from_slice(item);
            count += 1;
        }
        page.push(b']');
        pages.push(page.into());
        let parts: Vec<&[u8]> = pages.iter().map(|page: &Bytes| page.as_ref()).collect();
        let digest = Digest::of("toolgate/list/v1", &parts);
        Self { pages, digest }
    }

    /// The digest of everything in it.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The page that a cursor leads to, the first without one, and the cursor that leads on. `None` if the cursor did
    /// not come from this list, for this agent.
    pub fn page(
        &self,
        cursors: &Cursors,
        agent: &AgentId,
        cursor: Option<&str>,
    ) -> Option<(Bytes, Option<String>)> {
        let at = match cursor {
            None => 0,
            Some(cursor) => cursors.read(cursor, agent, &self.digest)?,
        };
        let page = self.pages.get(usize::try_from(at).ok()?)?.clone();
        let next = at + 1;
        let more = usize::try_from(next).is_ok_and(|next| next < self.pages.len());
        Some((page, more.then(|| cursors.write(next, agent, &self.digest))))
    }
}

/// Makes cursors that cannot be made up, nor used by another agent or in another list.
#[derive(Debug)]
pub struct Cursors {
    key: [u8; 32],
}

impl Cursors {
    /// With a random key.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    fn seal(&self, page: u32, agent: &AgentId, list: &Digest) -> [u8; 16] {
        let parts: [&[u8]; 4] = [&self.key, agent.as_str().as_bytes(), list.as_bytes(), &page.to_be_bytes()];
        let digest = Digest::of("toolgate/cursor/v1", &parts);
        let mut seal = [0; 16];
        for (to, from) in seal.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        seal
    }

    fn write(&self, page: u32, agent: &AgentId, list: &Digest) -> String {
        let mut bytes = page.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.seal(page, agent, list));
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(&self, cursor: &str, agent: &AgentId, list: &Digest) -> Option<u32> {
        use subtle::ConstantTimeEq as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (page, seal) = bytes.split_first_chunk::<4>()?;
        let page = u32::from_be_bytes(*page);
        bool::from(self.seal(page, agent, list).ct_eq(seal)).then_some(page)
    }
}

/// What all agents are shown.
#[derive(Debug)]
pub struct Catalog {
    naming: Naming,
    /// What was worked out for the rulebook that was last seen in force. Guards nothing else.
    worked_out: Mutex<Option<WorkedOut>>,
}

#[derive(Debug)]
struct WorkedOut {
    rulebook: Arc<Rulebook>,
    /// All tools that can be shown at all, in the order of the names that agents see.
    tools: Arc<BTreeMap<String, Arc<Shown>>>,
    agents: HashMap<AgentId, (Arc<Agent>, Arc<Seen>)>,
}

impl Catalog {
    /// With these names.
    #[must_use]
    pub const fn new(naming: Naming) -> Self {
        Self { naming, worked_out: Mutex::new(None) }
    }

    /// How things are named.
    #[must_use]
    pub const fn naming(&self) -> &Naming {
        &self.naming
    }

    /// The tools that an agent may see under a rulebook.
    pub fn seen(&self, rulebook: &Arc<Rulebook>, agent: &Arc<Agent>) -> Arc<Seen> {
        let mut worked_out = self.worked_out.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match worked_out.take() {
            Some(current) if Arc::ptr_eq(&current.rulebook, rulebook) => current,
            Some(_) | None => WorkedOut {
                rulebook: Arc::clone(rulebook),
                tools: Arc::new(showable(rulebook, &self.naming)),
                agents: HashMap::new(),
            },
        };
        let current = worked_out.insert(current);
        if let Some((known, seen)) = current.agents.get(&agent.id)
            && known == agent
        {
            return Arc::clone(seen);
        }
        if current.agents.len() >= MAX_AGENTS {
            current.agents.clear();
        }
        let seen = Arc::new(visible(rulebook, &current.tools, agent));
        current.agents.insert(agent.id.clone(), (Arc::clone(agent), Arc::clone(&seen)));
        seen
    }
}

/// The tools that can be shown: not those whose headers are invalid or whose names would not lead back.
fn showable(rulebook: &Rulebook, naming: &Naming) -> BTreeMap<String, Arc<Shown>> {
    let shown = |accepted: &toolgate_broker::rulebook::AcceptedTool| {
        let tool = &accepted.tool;
        let definition = tool.definition.root();
        let shown = naming.shown(&rulebook.servers, tool.name.server(), tool.name.tool())?;
        let headers = match definition.get("inputSchema") {
            Some(schema) => headers::params(schema).ok()?,
            None => return None,
        };
        // The pin is of what the server says and a person accepted, and not of what agents are shown: else it would change with
        // every new detector, and hide that a server changes what is taken out. No session's own: all are shown the same.
        let cleaning = rulebook.scrub.cleaning(tool.name.server(), &Action::Tool(tool.name.clone()), "");
        let cleaned = cleaning.object(&tool.definition, &["name"]).ok()?;
        let definition = cleaned.root().rewrite(&[("name", Edit::Set(quote(&shown).as_bytes()))]);
        Some((
            shown.clone(),
            Arc::new(Shown { name: tool.name.clone(), pin: tool.pin, headers, shown, definition }),
        ))
    };
    rulebook.tools.values().filter_map(|accepted| shown(accepted)).collect()
}

fn visible(rulebook: &Rulebook, tools: &BTreeMap<String, Arc<Shown>>, agent: &Agent) -> Seen {
    let may_see =
        |tool: &&Arc<Shown>| rulebook.may_see(agent, tool.name.server(), &Action::Tool(tool.name.clone()));
    let tools: Vec<Arc<Shown>> = tools.values().filter(may_see).cloned().collect();
    let list = List::new(tools.iter().map(|tool| tool.definition.as_slice()));
    Seen { tools: tools.into_iter().map(|tool| (tool.shown.clone(), tool)).collect(), list }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        let servers: BTreeSet<ServerName> = ["a", "b"].map(|name| name.parse().unwrap()).into();
        let (a, b) = ("a".parse().unwrap(), "b".parse::<ServerName>().unwrap());
        let prefixed = Naming::default();
        assert_eq!(prefixed.shown(&servers, &a, "x__y").as_deref(), Some("a__x__y"));
        assert_eq!(prefixed.meant(&servers, "a__x__y"), Some((a.clone(), "x__y".to_owned())));
        for unknown in ["x", "c__x", "A__x", "__x", ""] {
            assert_eq!(prefixed.meant(&servers, unknown), None, "name: {unknown:?}");
        }
        let bare = Naming { bare: Some(a.clone()) };
        assert_eq!(bare.shown(&servers, &a, "x").as_deref(), Some("x"));
        assert_eq!(bare.shown(&servers, &b, "x").as_deref(), Some("b__x"));
        assert_eq!(bare.shown(&servers, &a, "b__x"), None, "it would be the other server's");
        assert_eq!(bare.meant(&servers, "b__x"), Some((b, "x".to_owned())));
        assert_eq!(bare.meant(&servers, "a__x"), Some((a, "a__x".to_owned())));
    }

    #[test]
    fn cursors_lead_on_only_where_they_came_from() {
        let cursors = Cursors::new([7; 32]);
        let (ours, theirs) = ("ours".parse().unwrap(), "theirs".parse().unwrap());
        let items: Vec<String> = (0..2 * PAGE + 1).map(|n| n.to_string()).collect();
        let list = List::new(items.iter().map(String::as_bytes));
        let (first, next) = list.page(&cursors, &ours, None).unwrap();
        assert!(first.starts_with(b"[0,1,2,") && first.ends_with(b",999]"));
        let next = next.unwrap();
        let (second, last) = list.page(&cursors, &ours, Some(&next)).unwrap();
        assert!(second.starts_with(b"[1000,1001"));
        let (third, end) = list.page(&cursors, &ours, last.as_deref()).unwrap();
        assert_eq!((third.as_ref(), end), (b"[2000]".as_ref(), None));

        let other = List::new(items.iter().skip(1).map(String::as_bytes));
        assert!(list.page(&cursors, &theirs, Some(&next)).is_none());
        assert!(other.page(&cursors, &ours, Some(&next)).is_none());
        assert!(list.page(&Cursors::new([8; 32]), &ours, Some(&next)).is_none());
        for made_up in ["", "AAAAAQ", "AAAAAQAAAAAAAAAAAAAAAAAAAAA", "1"] {
            assert!(list.page(&cursors, &ours, Some(made_up)).is_none(), "cursor: {made_up:?}");
        }
    }

    #[test]
    fn an_empty_list_is_one_empty_page() {
        let list = List::new(std::iter::empty());
        let (page, next) = list.page(&Cursors::new([7; 32]), &"a".parse().unwrap(), None).unwrap();
        assert_eq!((page.as_ref(), next), (b"[]".as_ref(), None));
    }
}
