//! The bodies of records. Fields are in alphabetical order: they are written in the order they stand in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::tree::Hash;

/// What was asked for, by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallInfo {
    /// The id of the action: `server/tool`, `resources/read` and the like.
    pub action: String,
    /// Who asked.
    pub agent: AgentInfo,
    /// Commitment to the canonical bytes of the arguments. Absent if they were refused before they had such a form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Hash>,
    /// What was found in what it would send, by the names of the kinds, sorted: `github-pat`, `vault:NAME`, `honeytoken`. Never
    /// what it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carries: Vec<String>,
    /// The number of the call.
    pub id: String,
    /// Commitment to the bytes of `params` as they came: what the client put around the arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Hash>,
    /// Digest of the accepted definition of the tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Hash>,
    /// Where the gate put values in the place of tokens, as `ARGUMENT=KIND`, sorted: `to=pii.email`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revealed: Vec<String>,
    /// The server that offers it, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The run of the agent.
    pub session: String,
}

/// An agent, and how it showed that it is that agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentInfo {
    /// Its name.
    pub name: String,
    /// How it showed who it is.
    pub proof: AgentProof,
}

/// How an agent showed who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum AgentProof {
    /// A bearer token.
    Bearer,
    /// The built-in demo agent.
    Demo,
    /// An OAuth access token.
    Oauth {
        /// Its `iss`.
        issuer: String,
        /// Its `sub`.
        subject: String,
    },
    /// The user id at the other end of a Unix socket or pipe.
    Peer {
        /// The numeric user id.
        uid: u32,
    },
}

/// What the rules said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// Digest of the policy in force.
    pub policy: Hash,
    /// The rules that decided, by name, sorted.
    pub rules: Vec<String>,
    /// What they said together.
    pub verdict: VerdictWord,
}

/// A verdict, as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictWord {
    /// It may run.
    Allow,
    /// A person has to say yes first.
    Ask,
    /// It does not run.
    Deny,
}

/// A call is about to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The call.
    pub call: CallInfo,
    /// What the rules said.
    pub judged: Judged,
    /// The persons who approved it, sorted; empty if nobody was asked.
    pub persons: Vec<String>,
    /// The question that was asked about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
}

/// A call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Bytes that the server answered with.
    pub bytes_in: u64,
    /// Bytes that were sent to the server.
    pub bytes_out: u64,
    /// The number of the call.
    pub call: String,
    /// What was in force in the cell that it ran in, if it ran in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<Cell>,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: u64,
    /// The index of the intent that this closes.
    pub intent: u64,
    /// Commitment to the exact bytes that are released, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Hash>,
    /// How many of each kind were taken out of what the server said: `github-pat`, `pii.card`. Never what they were, nor anything
    /// by which a guess could be tried.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scrubbed: BTreeMap<String, u64>,
    /// When it was sent, in milliseconds since 1970.
    pub started_ms: u64,
    /// How it ended.
    pub status: Status,
}

/// What was in force in a cell: not what was asked for, but what the kernel held it to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// What went out of it by the end of the call, where it has a way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// Processor time, in seconds, for each process.
    pub cpu_s: u64,
    /// How what ran in it ended, where that was one program for this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<CellEnd>,
    /// How large one file could become, in bytes.
    pub file_bytes: u64,
    /// The level of Landlock.
    pub landlock_abi: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Whether the limit of memory held for all processes together; if not, for each alone.
    pub memory_total: bool,
    /// The most memory that was held by the end of the call, in bytes, where that is known: by all processes together, or by one of
    /// them if the limit was one of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// Whose cell it was.
    pub per: Per,
    /// How many processes and threads there could be.
    pub processes: u64,
    /// The kind of cell.
    pub tier: Tier,
}

/// What a cell did on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    /// What was allowed, and could not be done.
    pub failed: u64,
    /// Connections that were made, and have ended.
    pub made: u64,
    /// What was refused.
    pub refused: u64,
}

/// How a program in a cell of its own ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellEnd {
    /// Bytes that it was given: its input, and files.
    pub bytes_in: u64,
    /// Bytes that were taken from it: its output, and files.
    pub bytes_out: u64,
    /// Its exit status, if it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// Processor time that was used up, in microseconds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Why it was ended, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<CellCut>,
    /// Whether something was killed because there was no memory left.
    pub out_of_memory: bool,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u32>,
}

/// Why a program in a cell was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellCut {
    /// Its time was over.
    Deadline,
    /// It wrote more than is passed on.
    Output,
    /// Nobody waited for it any more.
    Unwanted,
}

/// Whose a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// One call's.
    Call,
    /// A server's, for all calls of a session.
    Session,
}

/// A kind of cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A kernel of its own in user space.
    Gvisor,
    /// Landlock and filters of system calls, without namespaces.
    LandlockOnly,
    /// Namespaces, Landlock and filters of system calls.
    Native,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The server answered.
    Answered,
    /// It was cancelled while it ran; what it did is unknown.
    Cancelled,
    /// The server asks the client for more input before it goes on.
    InputRequired,
    /// The connection was lost after it was sent; what it did is unknown.
    Lost,
    /// It never left the gate.
    NotSent,
    /// The server answered with a protocol error.
    ProtocolError,
    /// No answer came in time; what it did is unknown.
    TimedOut,
    /// The tool said that it failed.
    ToolError,
    /// The server answered, but the answer may not be released.
    Withheld,
}

impl Status {
    /// The word that stands in records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Cancelled => "cancelled",
            Self::InputRequired => "input_required",
            Self::Lost => "lost",
            Self::NotSent => "not_sent",
            Self::ProtocolError => "protocol_error",
            Self::TimedOut => "timed_out",
            Self::ToolError => "tool_error",
            Self::Withheld => "withheld",
        }
    }
}

/// A call was under way when the gate stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeUnknown {
    /// The number of the call.
    pub call: String,
    /// The index of the intent that this closes.
    pub intent: u64,
}

/// An answer reached the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivered {
    /// The number of the call.
    pub call: String,
    /// The index of its outcome.
    pub outcome: u64,
}

/// A call did not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The call.
    pub call: CallInfo,
    /// Why, as one of the fixed words that the agent is told by.
    pub code: String,
    /// What the rules said, if it came so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged: Option<Judged>,
    /// The question that was asked about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The rule that refused, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// What runs in a cell connected to somebody, or wanted to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// The call that the cell was made for. Absent where the cell is a server's, which lives as long as the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Bytes that came back.
    pub down: u64,
    /// How long it took, in milliseconds.
    pub lasted_ms: u64,
    /// At which port; 0 where there is none, as for a name that was looked up.
    pub port: u16,
    /// The server that runs in the cell.
    pub server: String,
    /// The run of the agent that the cell belongs to.
    pub session: String,
    /// What came of it.
    pub status: ConnectionStatus,
    /// How often it happened, the same to the same: more than once for what was refused only.
    pub times: u64,
    /// The name, or the address where no name was looked up. `others` where so much was refused that not each is told.
    pub to: String,
    /// Bytes that were sent.
    pub up: u64,
    /// Why it was refused, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What came of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionStatus {
    /// It was allowed and made, and has ended.
    Connected,
    /// It was allowed and could not be made: the name has no address, or nobody answered.
    Failed,
    /// It was not allowed.
    Refused,
}

/// A question was put to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionAsked {
    /// The call that waits for the answer.
    pub call: CallInfo,
    /// Commitment to the digest of the call: what an approval is bound to.
    pub digest: Hash,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: u64,
    /// What the rules said.
    pub judged: Judged,
    /// How many different persons must say yes.
    pub needed: u32,
    /// Its number.
    pub question: String,
    /// Digest of the statement that is signed with an answer.
    pub statement: Hash,
    /// Which `[questions.…]` it is.
    pub topic: String,
}

/// Somebody answered a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionAnswered {
    /// What they said.
    pub answer: Answer,
    /// Who.
    pub person: String,
    /// How they showed who they are.
    pub proof: PersonProof,
    /// The question's number.
    pub question: String,
}

/// What a person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Yes, to this very call.
    Approve,
    /// No.
    Deny,
}

/// How a person showed who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum PersonProof {
    /// A signature over the statement.
    Key {
        /// The public key, as the note verifier key or in base64.
        key: String,
        /// The signature, in base64.
        signature: String,
    },
    /// A one-time code.
    Totp,
}

/// A question ended without an answer that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionExpired {
    /// The question's number.
    pub question: String,
    /// Why.
    pub why: ExpiredWhy,
}

/// Why a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiredWhy {
    /// The tool's accepted definition changed.
    PinChanged,
    /// The policy changed.
    PolicyChanged,
    /// Nobody answered in time, or the approval was not used in time.
    TimedOut,
    /// An operator or the client took it back.
    Withdrawn,
}

/// A policy was loaded, or was refused and the old one kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whether it is in force now.
    pub action: PolicyAction,
    /// Its digest.
    pub digest: Hash,
    /// The digest of the policy in force before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Hash>,
    /// How many rules it has; 0 if it could not be read.
    pub rules: u32,
}

/// What became of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyAction {
    /// It is in force.
    Loaded,
    /// It was broken; the one before stays in force.
    Rejected,
}

/// A tool's definition was accepted, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolPin {
    /// What happened.
    pub action: PinAction,
    /// Who did it; absent if the server did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Digest of the definition as it is now; absent if there is none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Hash>,
    /// Digest of the definition that was accepted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Hash>,
    /// The tool, `server/tool`.
    pub tool: String,
}

/// What happened to a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinAction {
    /// An operator accepted this definition.
    Accepted,
    /// The server offers another definition than the accepted one. It is refused until accepted.
    Changed,
    /// An operator took the acceptance back.
    Removed,
}

/// An agent was added, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// What happened.
    pub action: RosterAction,
    /// Who did it: the user of the operating system.
    pub by: String,
    /// The agent's name.
    pub name: String,
}

/// A person was enrolled, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// What happened.
    pub action: RosterAction,
    /// Who did it: the user of the operating system.
    pub by: String,
    /// The public key they answer with, if they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The person's name.
    pub name: String,
}

/// What happened to an agent or person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RosterAction {
    /// New.
    Added,
    /// Another token, key or name.
    Changed,
    /// Gone.
    Removed,
}

/// A key of the log came into use or went out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What happened.
    pub action: RosterAction,
    /// The verifier key, as signed-note has it.
    pub key: String,
}

/// Values were erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    /// Who did it.
    pub by: String,
    /// The commitments whose values and salts are gone. Long lists go into several records.
    pub commitments: Vec<Hash>,
    /// Why: the legal ground, or what the operator wrote.
    pub ground: String,
}

/// Records were exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Who did it.
    pub by: String,
    /// The index of the first.
    pub first: u64,
    /// In which form: `jsonl`, `ocsf`.
    pub format: String,
    /// The index after the last.
    pub next: u64,
}

/// A credential was minted from a secret, or is good no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// What happened.
    pub action: LeaseAction,
    /// Who did it, if a person did: the user of the operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it ends by itself, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Tells that two credentials are the same, to whoever has the vault: 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// What the provider says that it may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<String>,
    /// Which lease: 16 bytes in hexadecimal.
    pub lease: String,
    /// Who mints.
    pub provider: String,
    /// What was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// The secret that it is minted from.
    pub secret: String,
    /// The server that it is for.
    pub server: String,
    /// The run of an agent that it is for.
    pub session: String,
    /// Why it ended, or was not minted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What happened to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseAction {
    /// The provider is about to be asked. It is durable before that.
    Asked,
    /// It is there. It is durable before it is used.
    Minted,
    /// There is none: the provider refused it, or it was wider than what was asked for.
    Failed,
    /// Somebody says that it is to be revoked.
    ToBeRevoked,
    /// The provider has revoked it.
    Revoked,
    /// Its time is over, and nothing had to be revoked.
    Expired,
    /// It could not be revoked, and is good until its time is over.
    Left,
}

impl LeaseAction {
    /// What happened, as one says it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Asked => "is asked for",
            Self::Minted => "minted",
            Self::Failed => "not minted",
            Self::ToBeRevoked => "is to be revoked",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Left => "not revoked",
        }
    }
}

/// A secret was added, changed or removed, or how the vault opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// What happened.
    pub action: SecretAction,
    /// Who did it: the user of the operating system.
    pub by: String,
    /// How often the vault was written, this time included.
    pub generation: u64,
    /// The secret's name; absent if it is about the vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which vault it is: 16 bytes in hexadecimal.
    pub vault: String,
    /// How often the secret's value was given, this time included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// What happened to a secret or to the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretAction {
    /// A secret is new.
    Added,
    /// A secret is gone.
    Removed,
    /// A secret has another value.
    Rotated,
    /// The vault opens otherwise than before.
    UnlockChanged,
    /// A secret is good for something else than before.
    UsesChanged,
    /// Somebody says that the vault, though older or another than the last one, is the right one.
    VaultTrusted,
}

impl SecretAction {
    /// What happened, as one says it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Rotated => "given another value",
            Self::UnlockChanged => "opens otherwise",
            Self::UsesChanged => "is good for something else",
            Self::VaultTrusted => "was called the right one",
        }
    }
}

/// The gate began to work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Digest of the configuration.
    pub configuration: Hash,
    /// The log's name.
    pub origin: String,
    /// The version of the program.
    pub program: String,
}

/// The gate stopped in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Why, as one word: `signal`, `client_gone`, `error`.
    pub reason: String,
}
