//! What is written down: the pipeline's records, with the values they commit to.

use base64::Engine as _;
use bytes::Bytes;
use toolgate_core::call::{Agent, Call, CallId, Proof, Revealed};
use toolgate_core::digest::Digest;
use toolgate_core::json::ObjectWriter;
use toolgate_core::name::{PersonName, RuleName};
use toolgate_core::refusal::Refusal;
use toolgate_core::text;
use toolgate_core::verdict::{Asked, DenyReason, Verdict};
use toolgate_ledger::record::{
    AgentInfo, AgentProof, Body, CallInfo, Cell as CellRecord, CellCut, CellEnd as CellEndRecord, Connection,
    Connections as ConnectionsRecord, Delivered as DeliveredRecord, EncodeRecordError, Field, Intent, Judged,
    Lease, Outcome as OutcomeRecord, OutcomeUnknown, Per as PerRecord, QuestionAsked, Record,
    Refusal as RefusalRecord, Secret, Status, Tier, VerdictWord, commit,
};
use toolgate_ledger::tree::Hash;
use toolgate_sandbox::cell::{Connections, Cut, Ended, Enforced, Gauge, Limits, Tier as Strength};

use crate::authorized::Entry;
use crate::config::profiles::Per;
use crate::desk::NoYes;
use crate::outcome::{Answer, Outcome};
use crate::port::{
    CellEnd, Clock, Disclosed, Line, NoRandomnessError, Position, Question, QuestionState, StoreError, Unread,
};
use crate::rulebook::{QuestionRules, Rulebook};
use crate::scrub::Counts;

/// How many permitting rules a record names: an entry has to stay small, and one is enough to permit.
const MAX_RULES: usize = 16;

/// How many kinds of what a call carries a record names.
const MAX_KINDS: usize = 32;

/// Why a line cannot be written. It does not happen with the limits on names and rules; if it does, nothing runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error(transparent)]
    Encode(#[from] EncodeRecordError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomnessError),
}

impl From<LineError> for StoreError {
    fn from(error: LineError) -> Self {
        Self::Write(error.to_string())
    }
}

/// Why a call did not run: what the log says, from which follows what the agent is told.
#[derive(Debug)]
pub(crate) enum RefusedBy {
    /// Too many calls of the agent are under way.
    Busy,
    /// The rules.
    Denied(DenyReason),
    /// The arguments do not fit the schema.
    Invalid(String),
    /// The agent may not see it, or there is no such thing.
    Hidden,
    /// No person said yes.
    NoYes(NoYes),
    /// The rules or the approval changed each time it was to be opened.
    Restless,
    /// The accepted definition is another than the one that the call names.
    Unreviewed,
}

impl From<&RefusedBy> for Refusal {
    /// Decides what the agent learns. There is no `_` arm: a new reason has to choose.
    fn from(why: &RefusedBy) -> Self {
        match why {
            RefusedBy::Busy => Self::Busy,
            RefusedBy::Denied(DenyReason::Forbidden { rule, because }) => {
                Self::NotPermitted { because: Some((rule.to_string(), because.clone())) }
            }
            RefusedBy::Denied(
                DenyReason::Broken { rule: _, error: _ }
                | DenyReason::Honeytoken
                | DenyReason::Inexpressible { argument: _ }
                | DenyReason::NotPermitted,
            ) => Self::NotPermitted { because: None },
            RefusedBy::Denied(DenyReason::Carries) => Self::Carries,
            RefusedBy::Invalid(why) => Self::Invalid { why: why.clone() },
            RefusedBy::Hidden => Self::Unknown,
            RefusedBy::NoYes(NoYes::AgentLeft { question }) => {
                Self::Unanswered { question: question.clone(), waited_s: 0 }
            }
            RefusedBy::NoYes(NoYes::Denied { question } | NoYes::Forged { question }) => {
                Self::Denied { question: question.clone() }
            }
            RefusedBy::NoYes(NoYes::Unanswered { question, waited_ms }) => {
                Self::Unanswered { question: question.clone(), waited_s: waited_ms / 1000 }
            }
            RefusedBy::NoYes(NoYes::Unconfigured) => Self::NotPermitted { because: None },
            RefusedBy::NoYes(NoYes::Store) => Self::Unavailable,
            RefusedBy::NoYes(NoYes::TooMany) => Self::TooManyQuestions,
            RefusedBy::Restless => Self::Busy,
            RefusedBy::Unreviewed => Self::Unreviewed,
        }
    }
}

impl RefusedBy {
    /// The fixed word on the log. It says more than the agent is told.
    const fn code(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Denied(DenyReason::Broken { .. }) => "broken_rule",
            Self::Denied(DenyReason::Carries) => "carries_secret",
            Self::Denied(DenyReason::Forbidden { .. }) => "forbidden",
            Self::Denied(DenyReason::Honeytoken) => "honeytoken",
            Self::Denied(DenyReason::Inexpressible { .. }) => "inexpressible_argument",
            Self::Denied(DenyReason::NotPermitted) => "not_permitted",
            Self::Invalid(_) => "invalid_arguments",
            Self::Hidden => "hidden_or_unknown",
            Self::NoYes(NoYes::AgentLeft { .. }) => "agent_left",
            Self::NoYes(NoYes::Denied { .. }) => "denied_by_person",
            Self::NoYes(NoYes::Forged { .. }) => "forged_answer",
            Self::NoYes(NoYes::Store) => "store_failed",
            Self::NoYes(NoYes::TooMany) => "too_many_questions",
            Self::NoYes(NoYes::Unanswered { .. }) => "unanswered",
            Self::NoYes(NoYes::Unconfigured) => "unconfigured_question",
            Self::Restless => "rules_kept_changing",
            Self::Unreviewed => "unreviewed",
        }
    }

    fn rule(&self) -> Option<&RuleName> {
        match self {
            Self::Denied(DenyReason::Broken { rule, .. } | DenyReason::Forbidden { rule, .. }) => Some(rule),
            _ => None,
        }
    }

    fn question(&self) -> Option<&str> {
        match self {
            Self::NoYes(
                NoYes::AgentLeft { question }
                | NoYes::Denied { question }
                | NoYes::Forged { question }
                | NoYes::Unanswered { question, .. },
            ) => Some(question),
            _ => None,
        }
    }
}

/// What the outcome of a call needs to know about it once it has run and is gone.
#[derive(Debug)]
pub(crate) struct Told {
    agent: String,
    bytes_out: u64,
    /// The cell it ran in.
    pub(crate) cell: Option<CellRecord>,
    /// What was taken out of what the server said.
    pub(crate) scrubbed: Counts,
    started_ms: u64,
}

impl Told {
    pub(crate) fn of(call: &Call, started_ms: u64) -> Self {
        let bytes_out = call.arguments.as_bytes().len() as u64;
        let agent = call.agent.id.to_string();
        Self { agent, bytes_out, cell: None, scrubbed: Counts::new(), started_ms }
    }
}

/// What a cell was held to, what it had used up by now, and how its program ended if it was this call's own.
pub(crate) fn cell(gauge: &Gauge, per: Per, end: Option<&CellEnd>) -> CellRecord {
    let Enforced { tier, landlock_abi, limits, total } = gauge.enforced;
    // Time by the clock and output are the gate's to keep: `end` says whether they were used up.
    let Limits {
        wall_ms: _,
        cpu_s,
        memory_bytes,
        processes,
        file_bytes,
        descriptors: _,
        output_bytes: _,
        total: _,
    } = limits;
    let connections = gauge.network().map(|Connections { made, failed, refused }| ConnectionsRecord {
        failed,
        made,
        refused,
    });
    CellRecord {
        connections,
        cpu_s,
        end: end.map(self::end),
        file_bytes,
        landlock_abi,
        memory_bytes,
        memory_total: total,
        peak_bytes: end.map_or_else(|| gauge.peak_bytes(), |end| end.ended.peak_bytes),
        per: match per {
            Per::Call => PerRecord::Call,
            Per::Session => PerRecord::Session,
        },
        processes,
        tier: match tier {
            // There are no cells of the last.
            Strength::Gvisor | Strength::Microvm => Tier::Gvisor,
            Strength::LandlockOnly => Tier::LandlockOnly,
            Strength::Native => Tier::Native,
        },
    }
}

fn end(CellEnd { ended, cut, bytes_in, bytes_out }: &CellEnd) -> CellEndRecord {
    let Ended { code, signal, cpu_us, peak_bytes: _, out_of_memory } = *ended;
    CellEndRecord {
        bytes_in: *bytes_in,
        bytes_out: *bytes_out,
        code: code.map(i32::cast_unsigned),
        cpu_us,
        cut: cut.map(|cut| match cut {
            Cut::Deadline => CellCut::Deadline,
            Cut::Output => CellCut::Output,
            Cut::Unwanted => CellCut::Unwanted,
        }),
        out_of_memory,
        signal: signal.map(i32::cast_unsigned),
    }
}

/// The intent: what is about to run, why it may, and who said yes.
pub(crate) fn intent<C: Clock>(
    clock: &C,
    rulebook: &Rulebook,
    call: &Call,
    verdict: &Verdict,
    yes: Option<(&str, &[PersonName])>,
) -> Result<Line, LineError> {
    let (info, disclosed) = call_info(clock, call)?;
    let (question, persons) = yes.unzip();
    let body = Body::Intent(Intent {
        call: info,
        judged: judged(rulebook, verdict),
        persons: persons.unwrap_or_default().iter().map(ToString::to_string).collect(),
        question: question.map(ToOwned::to_owned),
    });
    line(clock, body, disclosed, call.agent.id.to_string())
}

/// The outcome: how it ended, and a commitment to what is released.
pub(crate) fn outcome<C: Clock>(
    clock: &C,
    entry: &Entry,
    told: &Told,
    outcome: &Outcome,
) -> Result<Line, LineError> {
    let mut disclosed = Vec::new();
    let mut result = None;
    let mut bytes_in = 0;
    if let Outcome::Ran(answer) = outcome {
        let bytes = answer.get().encode();
        bytes_in = bytes.len() as u64;
        result = Some(disclose(clock, Field::Result, bytes, &mut disclosed)?);
    }
    let body = Body::Outcome(OutcomeRecord {
        bytes_in,
        bytes_out: told.bytes_out,
        call: entry.call().to_string(),
        cell: told.cell.clone(),
        ended_ms: clock.now_ms(),
        intent: entry.intent().0,
        result,
        scrubbed: told.scrubbed.clone(),
        started_ms: told.started_ms,
        status: status(outcome),
    });
    line(clock, body, disclosed, told.agent.clone())
}

/// The outcome of a call that was open when the gate stopped.
pub(crate) fn outcome_unknown<C: Clock>(
    clock: &C,
    call: CallId,
    intent: Position,
) -> Result<Line, LineError> {
    let body = Body::OutcomeUnknown(OutcomeUnknown { call: call.to_string(), intent: intent.0 });
    line(clock, body, Vec::new(), "gate".to_owned())
}

/// A refusal: what was asked for, and why it did not run.
pub(crate) fn refusal<C: Clock>(
    clock: &C,
    rulebook: &Rulebook,
    call: &Call,
    verdict: Option<&Verdict>,
    why: &RefusedBy,
) -> Result<Line, LineError> {
    let (info, disclosed) = call_info(clock, call)?;
    let body = Body::Refusal(RefusalRecord {
        call: info,
        code: why.code().to_owned(),
        judged: verdict.map(|verdict| judged(rulebook, verdict)),
        question: why.question().map(ToOwned::to_owned),
        rule: why.rule().map(ToString::to_string),
    });
    line(clock, body, disclosed, call.agent.id.to_string())
}

/// A refusal of what could not become a call.
pub(crate) fn unread<C: Clock>(clock: &C, unread: &Unread) -> Result<Line, LineError> {
    let info = CallInfo {
        action: shown(&unread.action),
        agent: agent_info(&unread.agent),
        arguments: None,
        carries: Vec::new(),
        id: unread.id.to_string(),
        params: None,
        pin: None,
        revealed: Vec::new(),
        server: None,
        session: shown(&unread.session),
    };
    let code = unread.code.to_owned();
    let body = Body::Refusal(RefusalRecord { call: info, code, judged: None, question: None, rule: None });
    line(clock, body, Vec::new(), unread.agent.id.to_string())
}

/// An answer that was kept is released to the agent that lost it.
pub(crate) fn delivered<C: Clock>(clock: &C, call: CallId, outcome: Position) -> Result<Line, LineError> {
    let body = Body::Delivered(DeliveredRecord { call: call.to_string(), outcome: outcome.0 });
    line(clock, body, Vec::new(), "gate".to_owned())
}

/// What was connected to from a cell.
pub(crate) fn connection<C: Clock>(clock: &C, connection: Connection) -> Result<Line, LineError> {
    let server = connection.server.clone();
    line(clock, connection.into(), Vec::new(), server)
}

/// What happened to a lease.
pub(crate) fn lease<C: Clock>(clock: &C, lease: Lease) -> Result<Line, LineError> {
    line(clock, lease.into(), Vec::new(), "gate".to_owned())
}

/// What happened to a secret.
pub(crate) fn secret<C: Clock>(clock: &C, secret: Secret) -> Result<Line, LineError> {
    line(clock, secret.into(), Vec::new(), "gate".to_owned())
}

/// A question with the statement that people sign, and its record.
pub(crate) fn question<C: Clock>(
    clock: &C,
    rulebook: &Rulebook,
    rules: &QuestionRules,
    call: &Call,
    asked: &Asked,
) -> Result<(Question, Line), LineError> {
    let asked_ms = clock.now_ms();
    let expires_ms = asked_ms.saturating_add(rules.expires_ms);
    let number = question_number(clock)?;
    let nonce = base64::engine::general_purpose::STANDARD.encode(clock.random::<32>()?);
    let policy = rulebook.policy.digest();
    let statement = Bytes::from(
        ObjectWriter::new()
            .string("action", &call.action.to_string())
            .string("agent", call.agent.id.as_str())
            .raw("arguments", call.arguments.as_bytes())
            .number("asked_ms", signed(asked_ms))
            .string("because", &asked.because)
            .string("call", &call.digest().to_string())
            .number("expires_ms", signed(expires_ms))
            .string("nonce", &nonce)
            .string("number", &number)
            .string("params", &String::from_utf8_lossy(call.params.root().raw()))
            .string("pin", &call.pin.map(|pin| pin.to_string()).unwrap_or_default())
            .string("policy", &policy.to_string())
            .string("question", asked.question.as_str())
            .string("rule", asked.rule.as_str())
            .string("server", call.server.as_str())
            .string("type", "toolgate/question/v1")
            .number("uses", 1)
            .finish(),
    );
    let (info, mut disclosed) = call_info(clock, call)?;
    let digest =
        disclose(clock, Field::Digest, Bytes::copy_from_slice(call.digest().0.as_bytes()), &mut disclosed)?;
    let body = Body::QuestionAsked(QuestionAsked {
        call: info,
        digest,
        expires_ms,
        judged: judged(rulebook, &Verdict::Ask(asked.clone())),
        needed: u32::try_from(rules.quorum.max(1)).unwrap_or(u32::MAX),
        question: number.clone(),
        statement: Hash(*statement_digest(&statement).as_bytes()),
        topic: asked.question.to_string(),
    });
    let record = line(clock, body, disclosed, call.agent.id.to_string())?;
    let question = Question {
        number,
        name: asked.question.clone(),
        digest: call.digest(),
        policy,
        statement,
        asked_ms,
        expires_ms,
        state: QuestionState::Open,
        answers: Vec::new(),
    };
    Ok((question, record))
}

/// The digest that an answer is bound to. The statement holds a random nonce, so the digest tells nothing about it.
pub(crate) fn statement_digest(statement: &[u8]) -> Digest {
    Digest::of("toolgate/statement/v1", &[statement])
}

/// 80 random bits in base32, so that a number can be read aloud and not be guessed.
fn question_number<C: Clock>(clock: &C) -> Result<String, NoRandomnessError> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let random = clock.random::<16>()?;
    let letters =
        random.iter().map(|byte| char::from(ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or(b'a')));
    Ok(std::iter::once('q').chain(std::iter::once('-')).chain(letters).collect())
}

fn line<C: Clock>(
    clock: &C,
    body: Body,
    disclosed: Vec<Disclosed>,
    subject: String,
) -> Result<Line, LineError> {
    let record = Record { time_ms: clock.now_ms(), body };
    Ok(Line { leaf: record.encode()?, disclosed, subject })
}

/// Commits to a value, and keeps it to be encrypted beside the log.
fn disclose<C: Clock>(
    clock: &C,
    field: Field,
    bytes: Bytes,
    disclosed: &mut Vec<Disclosed>,
) -> Result<Hash, NoRandomnessError> {
    let salt = clock.random::<32>()?;
    let commitment = commit(field, &salt, &bytes);
    disclosed.push(Disclosed { path: field.path(), salt, bytes });
    Ok(commitment)
}

fn call_info<C: Clock>(clock: &C, call: &Call) -> Result<(CallInfo, Vec<Disclosed>), NoRandomnessError> {
    let mut disclosed = Vec::with_capacity(3);
    let arguments =
        disclose(clock, Field::Arguments, Bytes::copy_from_slice(call.arguments.as_bytes()), &mut disclosed)?;
    let params =
        disclose(clock, Field::Params, Bytes::copy_from_slice(call.params.root().raw()), &mut disclosed)?;
    let revealed = call.carries.revealed().iter();
    let info = CallInfo {
        action: call.action.to_string(),
        agent: agent_info(&call.agent),
        arguments: Some(arguments),
        carries: call.carries.kinds().iter().take(MAX_KINDS).map(|kind| shown(kind)).collect(),
        id: call.id.to_string(),
        params: Some(params),
        pin: call.pin.map(|pin| Hash(*pin.as_bytes())),
        revealed: revealed
            .take(MAX_KINDS)
            .map(|Revealed { at, kind }| shown(&format!("{at}={kind}")))
            .collect(),
        server: Some(call.server.to_string()),
        session: shown(&call.session),
    };
    Ok((info, disclosed))
}

fn agent_info(agent: &Agent) -> AgentInfo {
    let proof = match &agent.proof {
        Proof::Bearer => AgentProof::Bearer,
        Proof::Demo => AgentProof::Demo,
        Proof::OAuth { issuer, subject } => {
            AgentProof::Oauth { issuer: shown(issuer), subject: shown(subject) }
        }
        Proof::Peer { uid } => AgentProof::Peer { uid: *uid },
    };
    AgentInfo { name: agent.id.to_string(), proof }
}

/// Text from outside, fit for a record: hidden characters escaped, and at most 256 characters of it.
pub(crate) fn shown(text: &str) -> String {
    let plain = text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { text.to_owned() } else { text::quoted(text, 256) }
}

fn judged(rulebook: &Rulebook, verdict: &Verdict) -> Judged {
    let (verdict, rules) = match verdict {
        Verdict::Allow(allowed) => {
            (VerdictWord::Allow, allowed.rules.iter().take(MAX_RULES).map(ToString::to_string).collect())
        }
        Verdict::Ask(asked) => (VerdictWord::Ask, vec![asked.rule.to_string()]),
        Verdict::Deny(DenyReason::Broken { rule, .. } | DenyReason::Forbidden { rule, .. }) => {
            (VerdictWord::Deny, vec![rule.to_string()])
        }
        Verdict::Deny(
            DenyReason::Carries
            | DenyReason::Honeytoken
            | DenyReason::Inexpressible { .. }
            | DenyReason::NotPermitted,
        ) => (VerdictWord::Deny, Vec::new()),
    };
    Judged { policy: Hash(*rulebook.policy.digest().as_bytes()), rules, verdict }
}

fn status(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Cancelled => Status::Cancelled,
        Outcome::Lost => Status::Lost,
        Outcome::NotAwaited | Outcome::NotRun => Status::NotSent,
        Outcome::Ran(answer) => match answer.get() {
            Answer::Error(_) => Status::ProtocolError,
            Answer::Result(result) => {
                let root = result.root();
                if root.get("resultType").and_then(|v| v.as_str()) == Some("input_required") {
                    Status::InputRequired
                } else if root.get("isError").and_then(|v| v.as_bool()) == Some(true) {
                    Status::ToolError
                } else {
                    Status::Answered
                }
            }
        },
        Outcome::TimedOut => Status::TimedOut,
        Outcome::Withheld(_) => Status::Withheld,
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
