//! A call: one request to use one tool, or one of the other things MCP lets an agent or a server ask for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::digest::Digest;
use crate::hex::Hex;
use crate::json::{Canonical, Document, Edit, FieldPath, Limits, ObjectWriter};
use crate::name::{AgentId, GroupName, ServerName, ToolName};

/// What is asked for. Its [`Display`](fmt::Display) form is the id of the Cedar action.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// `completion/complete`: the server suggests values for an argument of a prompt or resource template.
    Complete,
    /// `elicitation/create`: the server asks the agent's user for input.
    Elicit,
    /// `prompts/get`: a prompt template is filled in.
    GetPrompt,
    /// `roots/list`: the server asks which folders the client works in.
    ListRoots,
    /// `resources/read`.
    ReadResource,
    /// `sampling/createMessage`: the server asks for a completion of the client's model.
    Sample,
    /// `resources/subscribe`: changes of a resource are to be reported.
    Subscribe,
    /// `tasks/cancel`: a task that one of the agent's own calls became is to end (extension `io.modelcontextprotocol/tasks`).
    TaskCancel,
    /// `tasks/get`: how far such a task is, or what came of it.
    TaskGet,
    /// `tasks/update`: input that such a task waits for.
    TaskUpdate,
    /// `tools/call`; the action's id is `server/tool`.
    Tool(ToolName),
}

impl Action {
    /// The tool, where a tool is called.
    #[must_use]
    pub const fn tool(&self) -> Option<&ToolName> {
        match self {
            Self::Tool(name) => Some(name),
            Self::Complete
            | Self::Elicit
            | Self::GetPrompt
            | Self::ListRoots
            | Self::ReadResource
            | Self::Sample
            | Self::Subscribe
            | Self::TaskCancel
            | Self::TaskGet
            | Self::TaskUpdate => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("completion/complete"),
            Self::Elicit => f.write_str("elicitation/create"),
            Self::GetPrompt => f.write_str("prompts/get"),
            Self::ListRoots => f.write_str("roots/list"),
            Self::ReadResource => f.write_str("resources/read"),
            Self::Sample => f.write_str("sampling/createMessage"),
            Self::Subscribe => f.write_str("resources/subscribe"),
            Self::TaskCancel => f.write_str("tasks/cancel"),
            Self::TaskGet => f.write_str("tasks/get"),
            Self::TaskUpdate => f.write_str("tasks/update"),
            Self::Tool(name) => name.fmt(f),
        }
    }
}

/// How an agent showed who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A bearer token that `toolgate agent add` had minted.
    Bearer,
    /// The built-in demo agent, which may use the demo tools and nothing else.
    Demo,
    /// An access token of an OAuth 2.1 authorization server.
    OAuth {
        /// The token's `iss`.
        issuer: String,
        /// The token's `sub`.
        subject: String,
    },
    /// The user id at the other end of a Unix socket, or of the process that started us on its own pipes.
    Peer {
        /// The numeric user id, as the kernel reports it.
        uid: u32,
    },
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The agent's name.
    pub id: AgentId,
    /// The groups it belongs to.
    pub groups: Vec<GroupName>,
    /// How it showed who it is.
    pub proof: Proof,
}

/// One call's number: a UUID of version 7 (RFC 9562), so that numbers sort by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId([u8; 16]);

impl CallId {
    /// Makes a number of a time in milliseconds since 1970 and 10 random bytes.
    #[must_use]
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        let value = (u128::from(unix_ms) << 80)
            | u128::from_be_bytes({
                let mut low = [0; 16];
                low[6..].copy_from_slice(&random);
                low
            });
        let versioned = (value & !(0xf << 76) & !(0x3 << 62)) | (0x7 << 76) | (0x2 << 62);
        Self(versioned.to_be_bytes())
    }

    /// The number whose 16 bytes are these.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the form with hyphens.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hyphens = [8, 13, 18, 23];
        let mut value = 0_u128;
        for (at, byte) in text.bytes().enumerate() {
            if hyphens.contains(&at) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            if byte.is_ascii_uppercase() {
                return None;
            }
            value = (value << 4) | u128::from(char::from(byte).to_digit(16)?);
        }
        (text.len() == 36).then(|| Self(value.to_be_bytes()))
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        for (length, after) in [(4, "-"), (2, "-"), (2, "-"), (2, "-"), (6, "")] {
            let (group, others) = rest.split_at_checked(length).unwrap_or_default();
            Hex(group).fmt(f)?;
            f.write_str(after)?;
            rest = others;
        }
        Ok(())
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One request to use one tool. That it exists proves that it parsed and that its names are canonical; it is not a
/// permission.
///
/// `arguments` is what is judged, approved and sent: the canonical bytes, and no others. `params` is what else the
/// client put around them; its `_meta` and unknown members go along unchanged and are not judged, but are digested
/// (without `_meta`, in which clients put a new progress token each time) and committed to in the ledger. A call that
/// people are asked about goes [without](Self::without_unasked_meta) what of `_meta` they would not have approved.
#[derive(Debug, Clone)]
pub struct Call {
    /// The number of this call.
    pub id: CallId,
    /// Who calls.
    pub agent: Arc<Agent>,
    /// The run of the agent that this call belongs to; free of meaning but for grouping.
    pub session: String,
    /// What is asked for.
    pub action: Action,
    /// The server that offers it.
    pub server: ServerName,
    /// The accepted definition the caller was shown; `None` for what has no pin.
    pub pin: Option<Digest>,
    /// The judged arguments: an object.
    pub arguments: Canonical,
    /// The `params` of the request as it came.
    pub params: Document,
    /// What was found in what it would send. The broker looks before it is judged.
    pub carries: Carries,
}

/// What is in what a call would send that should not leave unseen, by the names of the kinds: of a secret that looks like one
/// (`github-pat`), of personal data (`pii.card`), of a value of the vault (`vault:NAME`); `honeytoken` and `unsearchable`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carries {
    kinds: BTreeSet<String>,
    revealed: BTreeSet<Revealed>,
}

/// That the gate put a value in the place of a token that the agent had for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revealed {
    /// In which argument.
    pub at: FieldPath,
    /// Of which kind the value is.
    pub kind: String,
}

impl Carries {
    /// A value that nobody has a use for: who sends it has been where nothing is to be fetched.
    pub const HONEYTOKEN: &'static str = "honeytoken";
    /// It could not be looked through, so there may be anything in it.
    pub const UNSEARCHABLE: &'static str = "unsearchable";

    /// What was found.
    #[must_use]
    pub const fn new(kinds: BTreeSet<String>) -> Self {
        Self { kinds, revealed: BTreeSet::new() }
    }

    /// With what the gate put in.
    #[must_use]
    pub fn with_revealed(self, revealed: BTreeSet<Revealed>) -> Self {
        Self { revealed, ..self }
    }

    /// The names of the kinds.
    #[must_use]
    pub const fn kinds(&self) -> &BTreeSet<String> {
        &self.kinds
    }

    /// What of it the gate put in, in the place of tokens.
    #[must_use]
    pub const fn revealed(&self) -> &BTreeSet<Revealed> {
        &self.revealed
    }

    /// Whether a secret is among them, or could be: everything but personal data.
    #[must_use]
    pub fn secret(&self) -> bool {
        self.kinds.iter().any(|kind| !kind.starts_with("pii."))
    }

    /// Whether a honeytoken is among them.
    #[must_use]
    pub fn honeytoken(&self) -> bool {
        self.kinds.contains(Self::HONEYTOKEN)
    }
}

/// What an approval is bound to: two calls share it only if they would do the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallDigest(pub Digest);

impl fmt::Display for CallDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Call {
    /// The digest of agent, action, server, pin, canonical arguments, and every other member of `params` but `_meta`
    /// as it was written.
    ///
    /// Call number, session and time are left out: a client that gives up and repeats the call finds its answer.
    #[must_use]
    pub fn digest(&self) -> CallDigest {
        let action = self.action.to_string();
        let pin = self.pin.map(|p| p.to_string()).unwrap_or_default();
        let extra = self.extra_members();
        let mut parts: Vec<&[u8]> = vec![
            self.agent.id.as_str().as_bytes(),
            action.as_bytes(),
            self.server.as_str().as_bytes(),
            pin.as_bytes(),
            self.arguments.as_bytes(),
        ];
        for (key, raw) in &extra {
            parts.push(key.as_bytes());
            parts.push(raw);
        }
        CallDigest(Digest::of("toolgate/call/v1", &parts))
    }

    /// The call with nothing of the agent's `_meta` that a server would be sent: an approval is bound to the digest, which
    /// leaves `_meta` out, so what is asked about has none. What is approved is what is sent, and a client that puts a new
    /// number into `_meta` each time still finds its approval. What stays is for the gate: that progress is wanted (the
    /// token that is sent is the gate's own), and the log level, one of eight words.
    #[must_use]
    pub fn without_unasked_meta(mut self) -> Self {
        const KEPT: [&str; 2] = ["progressToken", "io.modelcontextprotocol/logLevel"];
        let root = self.params.root();
        let Some(meta) = root.get("_meta") else { return self };
        let kept = meta.members().filter(|(key, _)| KEPT.contains(key));
        let kept = kept.fold(ObjectWriter::new(), |kept, (key, value)| kept.raw(key, value.raw())).finish();
        let bytes = root.rewrite(&[("_meta", Edit::Set(&kept))]);
        let limits = Limits { max_bytes: Limits::LARGEST, max_depth: Limits::DEEPEST, max_nodes: usize::MAX };
        // INVARIANT: less of a document that was parsed can be parsed; if not, nothing is sent around the arguments.
        let nothing = |_impossible| Canonical::empty_object().document().clone();
        self.params = Document::parse(bytes, &limits).unwrap_or_else(nothing);
        self
    }

    /// The members of `params` that are neither judged nor rebuilt: what MCP has besides name, arguments and `_meta`
    /// (such as `inputResponses`), and what nobody knows. In the order of their names.
    fn extra_members(&self) -> Vec<(&str, &[u8])> {
        let mut members: Vec<_> = self
            .params
            .root()
            .members()
            .filter(|(key, _)| !matches!(*key, "_meta" | "arguments" | "name"))
            .map(|(key, value)| (key, value.raw()))
            .collect();
        members.sort_unstable();
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_ids_sort_by_time_and_read_back() {
        let early = CallId::new(1, [0xff; 10]);
        let late = CallId::new(2, [0; 10]);
        assert!(early < late);
        assert_eq!(early.to_string(), "00000000-0001-7fff-bfff-ffffffffffff");
        assert_eq!(CallId::parse(&early.to_string()), Some(early));
        for wrong in ["", "00000000-0001-7fff-bfff-fffffffffff", "00000000-0001-7FFF-bfff-ffffffffffff"] {
            assert_eq!(CallId::parse(wrong), None, "input: {wrong:?}");
        }
    }
}
