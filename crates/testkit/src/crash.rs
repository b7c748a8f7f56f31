//! A whole gate in a folder, which ends, or whose writes fail, at a step of one's choice; and what must hold afterwards.
//!
//! The steps lie between the ports: nothing in the gate knows of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::sync::watch;
use toolgate_broker::authorized::Authorized;
use toolgate_broker::blob::RootKey;
use toolgate_broker::outcome::Answer;
use toolgate_broker::pipeline::Broker;
use toolgate_broker::port::{
    AgentLine, Agentward, Answered, BoxFuture, Client, Clock, Closing, Executed, Executor, Handle, Line,
    Opened, Opening, Position, Question, Stop, Store, StoreError, SystemClock, UnsearchableError,
};
use toolgate_broker::publish::LogPublisher;
use toolgate_broker::rulebook::{AcceptedTool, QuestionRules, Rulebook};
use toolgate_broker::store::{NewAnswer, SqliteStore};
use toolgate_core::call::{Action, Agent, Call, CallId, Carries, Proof};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::ToolName;
use toolgate_core::policy::{KnownAgent, Policy, PolicySource, World};
use toolgate_core::schema::Schema;
use toolgate_core::scrub::Raw;
use toolgate_core::tool::{self, Effect, Tool};
use toolgate_ledger::record::{self as ledger, Body, PersonProof, QuestionAnswered, Record};
use toolgate_ledger::verify::{self, Options};
use toolgate_ledger::{Folder, Trust};

use crate::minutes::Gullible;

/// Where a gate can be made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A question is about to be stored.
    BeforeAsk,
    /// A question is stored.
    AfterAsk,
    /// The intent is about to be written.
    BeforeOpen,
    /// The intent is durable.
    AfterOpen,
    /// The call was sent, and has not done anything yet.
    BeforeEffect,
    /// The call did what it does.
    AfterEffect,
    /// The outcome is about to be written.
    BeforeClose,
    /// The outcome is durable.
    AfterClose,
    /// The answer is about to be released.
    BeforeReply,
}

impl Step {
    /// All of them, in the order of events.
    pub const ALL: [Self; 9] = [
        Self::BeforeAsk,
        Self::AfterAsk,
        Self::BeforeOpen,
        Self::AfterOpen,
        Self::BeforeEffect,
        Self::AfterEffect,
        Self::BeforeClose,
        Self::AfterClose,
        Self::BeforeReply,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeAsk => "before-ask",
            Self::AfterAsk => "after-ask",
            Self::BeforeOpen => "before-open",
            Self::AfterOpen => "after-open",
            Self::BeforeEffect => "before-effect",
            Self::AfterEffect => "after-effect",
            Self::BeforeClose => "before-close",
            Self::AfterClose => "after-close",
            Self::BeforeReply => "before-reply",
        }
    }
}

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The store says that the write failed. Only for steps around a write: before it, it is not made; after it, it is.
    Fails,
    /// The process ends, as by `kill -9`.
    Killed,
}

/// One mishap, at one step, the n-th time that it is reached.
#[derive(Debug)]
pub struct Plan {
    at: Option<(Step, u32, Mishap)>,
    reached: AtomicU32,
}

impl Plan {
    /// A plan; `None` if all goes well.
    #[must_use]
    pub fn new(at: Option<(Step, u32, Mishap)>) -> Arc<Self> {
        Arc::new(Self { at, reached: AtomicU32::new(0) })
    }

    fn reach(&self, step: Step) -> Result<(), StoreError> {
        let Some((_, nth, mishap)) = self.at.filter(|(at, ..)| *at == step) else {
            return Ok(());
        };
        if self.reached.fetch_add(1, Ordering::SeqCst) + 1 != nth {
            return Ok(());
        }
        match mishap {
            Mishap::Fails => Err(StoreError::Write(format!("as planned, {}", step.name()))),
            Mishap::Killed => {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

/// A store with steps around its writes.
pub struct Stepped {
    inner: Arc<SqliteStore>,
    plan: Arc<Plan>,
}

impl Store for Stepped {
    async fn open(&self, opening: Opening) -> Result<Opened, StoreError> {
        self.plan.reach(Step::BeforeOpen)?;
        let opened = self.inner.open(opening).await?;
        self.plan.reach(Step::AfterOpen)?;
        Ok(opened)
    }

    async fn close(&self, closing: Closing) -> Result<Position, StoreError> {
        self.plan.reach(Step::BeforeClose)?;
        let closed = self.inner.close(closing).await?;
        self.plan.reach(Step::AfterClose)?;
        Ok(closed)
    }

    async fn append(&self, line: Line) -> Result<Position, StoreError> {
        self.inner.append(line).await
    }

    fn delivered(&self, call: CallId) {
        self.inner.delivered(call);
    }

    async fn ask(&self, question: Question, line: Line) -> Result<Option<Question>, StoreError> {
        self.plan.reach(Step::BeforeAsk)?;
        let asked = self.inner.ask(question, line).await?;
        self.plan.reach(Step::AfterAsk)?;
        Ok(asked)
    }

    async fn question(&self, number: &str, now_ms: u64) -> Result<Option<Question>, StoreError> {
        self.inner.question(number, now_ms).await
    }

    async fn open_calls(&self) -> Result<Vec<(CallId, Position)>, StoreError> {
        self.inner.open_calls().await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }
}

/// A server whose effects are lines in a file, each durable before it answers.
pub struct Effects {
    path: PathBuf,
    plan: Arc<Plan>,
}

impl Executor for Effects {
    async fn carried(&self, _call: &Call, _sent: &[u8]) -> Result<Vec<String>, UnsearchableError> {
        Ok(Vec::new())
    }

    async fn execute(
        &self,
        call: Authorized<Call>,
        _line: AgentLine,
        _stop: Stop,
        _nested: Arc<dyn Handle>,
    ) -> Executed {
        // A failure here would be the server's own; only ends are planned for these steps.
        let _ = self.plan.reach(Step::BeforeEffect);
        if let Err(error) = write_down(&self.path, &call.get().id.to_string()) {
            return Executed::Lost(error.to_string());
        }
        let _ = self.plan.reach(Step::AfterEffect);
        match Document::parse(&b"{\"content\":[]}"[..], &Limits::default()) {
            Ok(document) => Executed::Answered(Raw::new(Answer::Result(document))),
            Err(error) => Executed::Lost(error.to_string()),
        }
    }
}

fn write_down(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}

/// An agent whose person says yes as soon as it has to wait.
struct YesMan {
    store: Arc<SqliteStore>,
    client: Client,
}

impl Agentward for YesMan {
    fn notify(&self, _method: &str, _params: Bytes) {}

    fn ask(&self, _method: &str, _params: Bytes) -> BoxFuture<'_, Answer> {
        Box::pin(std::future::pending())
    }

    fn waiting(&self, question: &str, _waited_s: u64) {
        let (store, number) = (Arc::clone(&self.store), question.to_owned());
        tokio::spawn(async move {
            let Ok(person) = "owner".parse() else { return };
            let evidence = Bytes::from_static(b"good");
            let answer = Answered {
                person,
                yes: true,
                method: "ed25519".into(),
                evidence,
                at_ms: SystemClock.now_ms(),
            };
            let body = Body::QuestionAnswered(QuestionAnswered {
                answer: ledger::Answer::Approve,
                person: "owner".into(),
                proof: PersonProof::Key { key: String::new(), signature: String::new() },
                question: number.clone(),
            });
            let Ok(leaf) = (Record { time_ms: answer.at_ms, body }).encode() else { return };
            let line = Line { leaf, disclosed: Vec::new(), subject: "gate".into() };
            let _ =
                store.answer(NewAnswer { question: number, answer, needed: 1, totp_step: None }, line).await;
        });
    }

    fn gone(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn client(&self) -> &Client {
        &self.client
    }
}

const RULES: &str = r#"
@id("writes") @because("it is only a test")
permit(principal == Agent::"bot", action == Action::"web/write", resource);
@id("posts") @because("everybody could see it") @ask("owner")
permit(principal == Agent::"bot", action == Action::"web/post", resource);
"#;

fn document(text: &str) -> anyhow::Result<Document> {
    Ok(Document::parse(text.as_bytes().to_vec(), &Limits::default())?)
}

fn accepted(name: &str) -> anyhow::Result<Arc<AcceptedTool>> {
    let name: ToolName = name.parse()?;
    let definition =
        document(r#"{"name":"x","inputSchema":{"type":"object","properties":{"n":{"type":"integer"}}}}"#)?;
    let pin = tool::pin(&definition.root().canonical()?);
    let schema = definition.root().get("inputSchema").context("the definition has a schema")?;
    let input = Schema::compile(&schema)?;
    let tool = Arc::new(Tool { name, effects: BTreeSet::from([Effect::Write]), definition, pin });
    Ok(Arc::new(AcceptedTool { tool, input, output: None }))
}

fn tools() -> anyhow::Result<&'static [Arc<AcceptedTool>; 2]> {
    static TOOLS: OnceLock<[Arc<AcceptedTool>; 2]> = OnceLock::new();
    if let Some(tools) = TOOLS.get() {
        return Ok(tools);
    }
    let tools = [accepted("web/write")?, accepted("web/post")?];
    Ok(TOOLS.get_or_init(|| tools))
}

fn rulebook() -> anyhow::Result<Rulebook> {
    let tools = tools()?;
    let people = BTreeSet::from(["owner".parse()?]);
    let rules = QuestionRules { people, quorum: 1, wait_ms: 60_000, expires_ms: 600_000 };
    let questions = BTreeMap::from([("owner".parse()?, rules)]);
    let world = World {
        agents: vec![KnownAgent { id: "bot".parse()?, groups: Vec::new() }],
        servers: vec!["web".parse()?],
        tools: tools.iter().map(|tool| Arc::clone(&tool.tool)).collect(),
        questions: questions.keys().cloned().collect(),
    };
    let source = PolicySource { path: "rules.cedar".into(), text: RULES.into(), examples: None };
    let policy = Policy::load(&[source], &world).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let policy = Arc::new(policy);
    let tools = tools.iter().map(|tool| (tool.tool.name.clone(), Arc::clone(tool))).collect();
    let servers = BTreeSet::from(["web".parse()?]);
    Ok(Rulebook {
        policy,
        servers,
        limits: HashMap::new(),
        lent: HashMap::new(),
        scrub: toolgate_broker::scrub::ScrubRules::default(),
        tools,
        questions,
        people: Arc::new(Gullible),
    })
}

/// A gate in a folder.
pub struct Gate {
    folder: PathBuf,
    store: Arc<SqliteStore>,
    broker: Broker<Stepped, Effects, SystemClock>,
    plan: Arc<Plan>,
    number: AtomicU64,
}

impl Gate {
    /// Opens the gate in a folder, as it does at every start: what a crash left open is closed first. Says how many
    /// calls that were.
    ///
    /// # Errors
    /// The folder or the store cannot be used.
    pub async fn open(folder: &Path, plan: Arc<Plan>) -> anyhow::Result<(Self, usize)> {
        fs::create_dir_all(folder)?;
        let store =
            Arc::new(SqliteStore::open(&folder.join("state"), RootKey::from_bytes([7; 32]), SystemClock)?);
        let stepped = Stepped { inner: Arc::clone(&store), plan: Arc::clone(&plan) };
        let effects = Effects { path: folder.join("effects"), plan: Arc::clone(&plan) };
        let broker = Broker::new(Arc::new(stepped), effects, SystemClock, rulebook()?);
        let recovered = broker.recover().await?;
        Ok((Self { folder: folder.to_owned(), store, broker, plan, number: AtomicU64::new(0) }, recovered))
    }

    /// Makes one call. Every third is asked about. An answer that was released is noted in the file `replies`.
    ///
    /// # Errors
    /// The call cannot be made up, or its reply not be noted.
    pub async fn call(&self) -> anyhow::Result<bool> {
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        let [write, post] = tools()?;
        let tool = if number % 3 == 2 { post } else { write };
        let id = CallId::new(SystemClock.now_ms(), SystemClock.random()?);
        // Each call is one of its own kind, so that none is taken for the repetition of another.
        let arguments = document(&format!(r#"{{"n":{}}}"#, u32::from_be_bytes(SystemClock.random()?)))?;
        let call = Call {
            id,
            agent: Arc::new(Agent { id: "bot".parse()?, groups: Vec::new(), proof: Proof::Bearer }),
            session: "s".into(),
            server: "web".parse()?,
            action: Action::Tool(tool.tool.name.clone()),
            pin: Some(tool.tool.pin),
            arguments: arguments.root().canonical()?,
            params: document("{}")?,
            carries: Carries::default(),
        };
        let line: AgentLine = Arc::new(YesMan { store: Arc::clone(&self.store), client: Client::default() });
        let answered = self.broker.handle(call, line).await.is_ok();
        if answered {
            let _ = self.plan.reach(Step::BeforeReply);
            write_down(&self.folder.join("replies"), &id.to_string())?;
            self.broker.delivered(id);
        }
        Ok(answered)
    }

    /// Makes calls, some at once.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn calls(self: Arc<Self>, count: usize, at_once: usize) -> anyhow::Result<()> {
        let left = Arc::new(AtomicU64::new(count as u64));
        let tasks: Vec<_> = (0..at_once)
            .map(|_| {
                let (gate, left) = (Arc::clone(&self), Arc::clone(&left));
                tokio::spawn(async move {
                    while left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                        .is_ok()
                    {
                        gate.call().await?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    }
}

/// What a folder was found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Intents on the log.
    pub intents: usize,
    /// Calls whose outcome is unknown.
    pub unknown: usize,
    /// Things that calls did.
    pub effects: usize,
    /// Answers that were released.
    pub replies: usize,
}

/// Opens the gate again, which recovers, publishes the log, and checks that all that was promised holds.
///
/// # Errors
/// Something does not hold; the error says what.
pub async fn check(folder: &Path) -> anyhow::Result<Found> {
    let before = read_lines(&folder.join("effects"))?;
    let (gate, _recovered) = Gate::open(folder, Plan::new(None)).await?;
    let effects = read_lines(&folder.join("effects"))?;
    ensure!(effects == before, "recovery ran something");
    ensure!(gate.store.open_calls().await?.is_empty(), "recovery left a call open");

    let mut log = Log::default();
    let mut next = 0;
    loop {
        let records = gate.store.records(Position(next), 1000)?;
        if records.is_empty() {
            break;
        }
        for leaf in records {
            log.take(next, &leaf)?;
            next += 1;
        }
    }
    ensure!(next == gate.store.size()?, "the log has {next} records, but should have {}", gate.store.size()?);

    let ran: BTreeSet<&String> = effects.iter().collect();
    ensure!(ran.len() == effects.len(), "a call ran twice");
    for call in &ran {
        ensure!(log.intents.contains(*call), "call {call} ran without an intent");
    }
    let ended: BTreeSet<&String> = log.outcomes.union(&log.unknown).collect();
    for call in &log.intents {
        ensure!(ended.contains(call), "call {call} is neither closed nor unknown");
    }
    let replies = read_lines(&folder.join("replies"))?;
    for call in &replies {
        ensure!(log.outcomes.contains(call), "call {call} was answered without an outcome");
    }
    let (intents, unknown) = (log.intents.len(), log.unknown.len());
    let found = Found { intents, unknown, effects: effects.len(), replies: replies.len() };
    verify_log(folder, &gate.store)?;
    Ok(found)
}

#[derive(Default)]
struct Log {
    intents: BTreeSet<String>,
    outcomes: BTreeSet<String>,
    unknown: BTreeSet<String>,
    questions: BTreeSet<String>,
}

impl Log {
    fn take(&mut self, index: u64, leaf: &[u8]) -> anyhow::Result<()> {
        match Record::decode(leaf).with_context(|| format!("record {index}"))?.body {
            Body::Intent(intent) => {
                ensure!(
                    self.intents.insert(intent.call.id.clone()),
                    "call {} has two intents",
                    intent.call.id
                );
                if let Some(question) = intent.question {
                    ensure!(self.questions.insert(question.clone()), "question {question} was used twice");
                }
            }
            Body::Outcome(outcome) => {
                ensure!(!self.unknown.contains(&outcome.call), "call {} ended twice", outcome.call);
                ensure!(self.outcomes.insert(outcome.call.clone()), "call {} ended twice", outcome.call);
            }
            Body::OutcomeUnknown(outcome) => {
                ensure!(!self.outcomes.contains(&outcome.call), "call {} ended twice", outcome.call);
                ensure!(self.unknown.insert(outcome.call.clone()), "call {} ended twice", outcome.call);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Publishes the log of a folder and verifies the whole of it, against the checkpoint of the last time too.
fn verify_log(folder: &Path, store: &SqliteStore) -> anyhow::Result<()> {
    let (log, signer) = (folder.join("log"), folder.join("signer"));
    let older = Folder::new(&log).read_checkpoint()?;
    LogPublisher::open(&log, &signer, "example.org/test")?.publish(store)?;
    let key = toolgate_ledger::signer::verifier_key(&signer)?;
    let mut options = Options::new(Trust::key(key));
    options.min_size = store.size()?;
    options.older.extend(older.map(|note| ("the last one".to_owned(), note)));
    let report = verify::verify(&Folder::new(&log), &options, |_done, _all| {});
    ensure!(report.is_sound(), "the log does not verify: {:?}", report.findings);
    ensure!(report.open_intents.is_empty(), "the log has open intents");
    Ok(())
}

fn read_lines(path: &Path) -> anyhow::Result<Vec<String>> {
    if !path.exists() {
        File::create(path)?;
    }
    Ok(fs::read_to_string(path)?.lines().map(ToOwned::to_owned).collect())
}
