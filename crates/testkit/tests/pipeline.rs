//! The order of events, as text: what is judged, asked, written down, run and written down again, and what happens to
//! a call when any of it fails.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use toolgate_broker::config::Config;
use toolgate_broker::outcome::{Outcome, Reply};
use toolgate_broker::pipeline::{Broker, MAX_CALLS_PER_AGENT};
use toolgate_broker::port::{AgentLine, Answered, Client, Question, QuestionState, Store as _, VerifyAnswer};
use toolgate_broker::rulebook::{AcceptedTool, QuestionRules, Rulebook};
use toolgate_broker::scrub::ScrubRules;
use toolgate_core::call::{Action, Agent, Call, CallId, Carries, Proof};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::ToolName;
use toolgate_core::policy::{KnownAgent, Policy, PolicySource, World};
use toolgate_core::refusal::Refusal;
use toolgate_core::schema::Schema;
use toolgate_core::tool::{self, Effect, Tool};
use toolgate_testkit::minutes::{
    Fail, FakeAgent, FakeClock, FakeExecutor, FakeStore, Gullible, Minutes, Server, Write,
};

const RULES: &str = r#"
@id("reads") @because("reading is harmless")
permit(principal == Agent::"bot", action in Action::"read", resource);
@id("posts") @because("what is posted can be seen by everybody") @ask("owner")
permit(principal == Agent::"bot", action == Action::"web/post", resource);
@id("no-secrets") @because("that text is not for the world")
forbid(principal, action == Action::"web/post", resource) when { context.args.text like "*secret*" };
"#;

const TOOLS: [(&str, &str, Effect); 3] = [
    (
        "web/look",
        r#"{"name":"look","inputSchema":{"type":"object","properties":{"at":{"type":"string"}},"required":["at"],"additionalProperties":false},"outputSchema":{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}}"#,
        Effect::Read,
    ),
    (
        "web/post",
        r#"{"name":"post","inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}}"#,
        Effect::Egress,
    ),
    ("web/wipe", r#"{"name":"wipe","inputSchema":{"type":"object"}}"#, Effect::Delete),
];

fn json(text: &str) -> Document {
    Document::parse(text.as_bytes().to_vec(), &Limits::default()).unwrap()
}

fn tools() -> HashMap<ToolName, Arc<AcceptedTool>> {
    TOOLS
        .iter()
        .map(|(name, definition, effect)| {
            let name: ToolName = name.parse().unwrap();
            let definition = json(definition);
            let pin = tool::pin(&definition.root().canonical().unwrap());
            let input = Schema::compile(&definition.root().get("inputSchema").unwrap()).unwrap();
            let output =
                definition.root().get("outputSchema").map(|schema| Schema::compile(&schema).unwrap());
            let tool =
                Arc::new(Tool { name: name.clone(), effects: BTreeSet::from([*effect]), definition, pin });
            (name, Arc::new(AcceptedTool { tool, input, output }))
        })
        .collect()
}

fn rulebook(rules: &str) -> Rulebook {
    let tools = tools();
    let questions = BTreeMap::from([(
        "owner".parse().unwrap(),
        QuestionRules {
            people: BTreeSet::from(["owner".parse().unwrap()]),
            quorum: 1,
            wait_ms: 60_000,
            expires_ms: 600_000,
        },
    )]);
    let world = World {
        agents: vec![KnownAgent { id: "bot".parse().unwrap(), groups: Vec::new() }],
        servers: vec!["web".parse().unwrap()],
        tools: tools.values().map(|t| Arc::clone(&t.tool)).collect(),
        questions: questions.keys().cloned().collect(),
    };
    let source = PolicySource { path: "rules.cedar".into(), text: rules.into(), examples: None };
    let policy = Arc::new(Policy::load(&[source], &world).unwrap());
    let servers = BTreeSet::from(["web".parse().unwrap()]);
    Rulebook {
        policy,
        servers,
        limits: HashMap::new(),
        lent: HashMap::new(),
        scrub: ScrubRules::default(),
        tools,
        questions,
        people: Arc::new(Gullible),
    }
}

fn call_as(agent: &str, number: u8, name: &str, arguments: &str) -> Call {
    let name: ToolName = name.parse().unwrap();
    let pin = tools().get(&name).map(|tool| tool.tool.pin);
    Call {
        id: CallId::new(1_700_000_000_000, [number; 10]),
        agent: Arc::new(Agent { id: agent.parse().unwrap(), groups: Vec::new(), proof: Proof::Bearer }),
        session: "s".into(),
        server: name.server().clone(),
        action: Action::Tool(name),
        pin,
        arguments: json(arguments).root().canonical().unwrap(),
        params: json(&format!(r#"{{"name":"x","arguments":{arguments}}}"#)),
        carries: Carries::default(),
    }
}

fn call(number: u8, name: &str, arguments: &str) -> Call {
    call_as("bot", number, name, arguments)
}

struct Bench {
    minutes: Minutes,
    broker: Broker<FakeStore, FakeExecutor, FakeClock>,
    gone: bool,
}

impl Bench {
    fn new(person: Option<bool>, server: Server, fail: Option<(Write, Fail)>) -> Self {
        let minutes = Minutes::default();
        let store = Arc::new(FakeStore::new(minutes.clone(), person, fail));
        let executor = FakeExecutor { minutes: minutes.clone(), server };
        Self {
            broker: Broker::new(store, executor, FakeClock::default(), rulebook(RULES)),
            minutes,
            gone: false,
        }
    }

    fn agent(&self) -> AgentLine {
        Arc::new(FakeAgent { minutes: self.minutes.clone(), gone: self.gone, client: Client::default() })
    }

    async fn handle(&self, call: Call) -> Result<Reply, Refusal> {
        self.broker.handle(call, self.agent()).await
    }

    async fn minutes_of(&self, call: Call) -> String {
        let end = match self.handle(call).await {
            Ok(reply) => match reply.outcome {
                Outcome::Ran(answer) => String::from_utf8_lossy(answer.get().document().bytes()).into_owned(),
                other => format!("{other:?}"),
            },
            Err(refusal) => refusal.code().to_owned(),
        };
        format!("{} | => {end}", self.minutes.read())
    }
}

const DONE: Server = Server::Answers(r#"{"content":[]}"#);

#[tokio::test]
async fn the_order_of_events() {
    let look = || call(1, "web/look", r#"{"at":"x"}"#);
    let post = || call(1, "web/post", r#"{"text":"hi"}"#);
    for (person, server, fail, call, want) in [
        (None, DONE, None, look(), r#"open | run web/look {"at":"x"} | close | => {"content":[]}"#),
        (
            Some(true),
            DONE,
            None,
            post(),
            r#"ask owner | yes | open | run web/post {"text":"hi"} | close | => {"content":[]}"#,
        ),
        (Some(false), DONE, None, post(), "ask owner | no | write down | => denied_by_person"),
        (None, DONE, None, call(1, "web/post", r#"{"text":"my secret"}"#), "write down | => not_permitted"),
        (None, DONE, None, call(1, "web/wipe", "{}"), "write down | => unknown"),
        (None, DONE, None, call(1, "web/nothing", "{}"), "write down | => unknown"),
        (None, DONE, None, call(1, "other/look", "{}"), "write down | => unknown"),
        (None, DONE, None, call_as("stranger", 1, "web/look", r#"{"at":"x"}"#), "write down | => unknown"),
        (None, DONE, None, call(1, "web/look", r#"{"at":1}"#), "write down | => invalid_arguments"),
        (
            None,
            DONE,
            None,
            call(1, "web/look", r#"{"at":"x","more":1}"#),
            "write down | => invalid_arguments",
        ),
        (None, Server::Dies, None, look(), r#"open | run web/look {"at":"x"} | close | => Lost"#),
        (None, Server::IsAway, None, look(), r#"open | run web/look {"at":"x"} | close | => NotRun"#),
        (None, DONE, Some((Write::Open, Fail::Before)), look(), "open fails | => unavailable"),
        (
            None,
            DONE,
            Some((Write::Open, Fail::After)),
            look(),
            "open | open fails after all | => unavailable",
        ),
        (
            None,
            DONE,
            Some((Write::Close, Fail::Before)),
            look(),
            r#"open | run web/look {"at":"x"} | close fails | => unavailable"#,
        ),
        (
            None,
            DONE,
            Some((Write::Close, Fail::After)),
            look(),
            r#"open | run web/look {"at":"x"} | close | close fails after all | => unavailable"#,
        ),
        (
            None,
            DONE,
            Some((Write::Append, Fail::Before)),
            call(1, "web/wipe", "{}"),
            "append fails | => unavailable",
        ),
        (
            Some(true),
            DONE,
            Some((Write::Ask, Fail::Before)),
            post(),
            "ask fails | write down | => unavailable",
        ),
        (
            Some(true),
            DONE,
            Some((Write::Ask, Fail::After)),
            post(),
            "ask owner | yes | ask fails after all | write down | => unavailable",
        ),
        (
            Some(true),
            DONE,
            Some((Write::Open, Fail::Before)),
            post(),
            "ask owner | yes | open fails | => unavailable",
        ),
    ] {
        let shown = format!("{person:?} {server:?} {fail:?} {}", call.action);
        assert_eq!(Bench::new(person, server, fail).minutes_of(call).await, want, "case: {shown}");
    }
}

#[tokio::test]
async fn a_stale_definition_is_refused() {
    let bench = Bench::new(None, DONE, None);
    let mut stale = call(1, "web/look", r#"{"at":"x"}"#);
    stale.pin = call(1, "web/post", r#"{"text":""}"#).pin;
    assert_eq!(bench.minutes_of(stale).await, "write down | => unreviewed");
}

#[tokio::test]
async fn answers_that_may_not_be_shown_are_withheld() {
    for (answer, want) in [
        (r#"{"structuredContent":{"n":1}}"#, r#"{"structuredContent":{"n":1}}"#),
        (
            r#"{"structuredContent":{"n":"x"},"isError":true}"#,
            r#"{"structuredContent":{"n":"x"},"isError":true}"#,
        ),
        (r#"{"structuredContent":{"n":"x"}}"#, "Withheld(Schema("),
    ] {
        let bench = Bench::new(None, Server::Answers(answer), None);
        let minutes = bench.minutes_of(call(1, "web/look", r#"{"at":"x"}"#)).await;
        assert!(minutes.contains(&format!("close | => {want}")), "{minutes}");
    }
}

/// What a server says is cleaned before the agent or the disk has it, and the log says how much was taken out, and nothing else.
#[tokio::test]
async fn secrets_in_what_a_server_says_reach_neither_agent_nor_log() {
    // Assembled here, so that no file holds what a scanner would take for one.
    let secret = format!("ghp_{}", "Zq3vN8xK2mW7tR5yB9cD4fG6hJ1kL0pS3aQe");
    let bench = Bench::new(None, Server::Says(format!("the token is {secret}.")), None);
    let minutes = bench.minutes_of(call(1, "web/look", r#"{"at":"x"}"#)).await;
    let token = minutes.split('⟦').nth(1).unwrap().split('⟧').next().unwrap();
    assert!(token.starts_with("secret:github-pat#"), "{minutes}");
    let said = format!("the token is ⟦{token}⟧.");
    assert_eq!(
        minutes,
        format!(
            r#"open | run web/look {{"at":"x"}} | tell notifications/message {{"level":"info","data":"{said}"}} | tell notifications/progress {{"progressToken":"the token is {secret}.","progress":1,"message":"{said}"}} | close | => {{"content":[{{"type":"text","text":"{said}"}}]}}"#
        ),
        "only the agent's own progress token is as it was"
    );
    let outcome = String::from_utf8(bench.broker.store().leaves().pop().unwrap()).unwrap();
    assert!(outcome.contains(r#""scrubbed":{"github-pat":3}"#), "{outcome}");
    assert!(!outcome.contains(&secret) && !outcome.contains(token), "{outcome}");
    // Told apart from what is off.
    let mut off = rulebook(RULES);
    let config = "[servers.web]\nurl = \"http://127.0.0.1:1/\"\nscrub = []\n";
    off.scrub = ScrubRules::new(&Config::parse(std::path::Path::new("t.toml"), config).unwrap());
    let bench = Bench::new(None, Server::Says(secret.clone()), None);
    bench.broker.replace_rulebook(off);
    let minutes = bench.minutes_of(call(1, "web/look", r#"{"at":"x"}"#)).await;
    assert!(
        minutes.ends_with(&format!(r#"=> {{"content":[{{"type":"text","text":"{secret}"}}]}}"#)),
        "{minutes}"
    );
    let outcome = String::from_utf8(bench.broker.store().leaves().pop().unwrap()).unwrap();
    assert!(!outcome.contains("scrubbed"), "{outcome}");
}

/// An agent passes on what it has never seen: where the configuration says so, and nowhere else. What is judged, asked about and sent is
/// the value; what the server then says about it, however it writes it, does not reach the agent.
#[tokio::test]
async fn a_token_is_turned_back_where_it_may_be_and_does_not_come_back() {
    const CONFIG: &str = "[servers.web]\nurl = \"http://127.0.0.1:1/\"\n\
        [tools.\"web/look\"]\nscrub = [\"pii.email\"]\n";
    const REVEAL: &str = "[tools.\"web/post\"]\nscrub = []\nreveal = { text = [\"pii.email\"] }\n";
    let (email, spelled) = ("ann.lee@bank.example", "YW5uLmxlZUBiYW5rLmV4YW1wbGU=");
    let said = format!("it is {email}, also {spelled}");
    let under = |config: &str| {
        let scrub = ScrubRules::new(&Config::parse(std::path::Path::new("t.toml"), config).unwrap());
        Rulebook { scrub, ..rulebook(RULES) }
    };
    let in_session = |session: &str, call: Call| Call { session: session.into(), ..call };
    let look = |number| call(number, "web/look", r#"{"at":"x"}"#);
    let bench = Bench::new(Some(true), Server::Says(said.clone()), None);
    bench.broker.replace_rulebook(under(&format!("{CONFIG}{REVEAL}")));

    let seen = bench.minutes_of(look(1)).await;
    let token =
        format!("⟦pii.email#{}⟧", seen.split("⟦pii.email#").nth(1).unwrap().split('⟧').next().unwrap());
    let post = |number: u8| call(number, "web/post", &format!(r#"{{"text":"to {token} {number}"}}"#));

    // Another session has nothing for it.
    let other = bench.minutes_of(in_session("t", post(2))).await;
    assert!(other.ends_with("write down | => invalid_arguments"), "{other}");
    // Where it may not stand it is a text like any other.
    let (before, at) = (bench.minutes.read(), format!(r#"{{"at":"{token}"}}"#));
    let looked = bench.minutes_of(call(3, "web/look", &at)).await;
    assert!(looked.strip_prefix(&before).unwrap().contains(&format!("run web/look {at}")), "{looked}");

    let before = bench.minutes.read();
    let posted = bench.minutes_of(post(4)).await;
    let posted = posted.strip_prefix(&before).unwrap();
    assert!(
        posted.contains(&format!(r#"ask owner | yes | open | run web/post {{"text":"to {email} 4"}}"#)),
        "{posted}"
    );
    let (_sent, heard) = posted.split_once("run web/post").unwrap();
    let (_sent, heard) = heard.split_once(" | ").unwrap();
    let heard = heard.replace(&format!(r#""progressToken":"{said}""#), "");
    assert!(!heard.contains(email) && !heard.contains(spelled) && heard.contains(&token), "{heard}");
    let records: Vec<_> =
        bench.broker.store().leaves().into_iter().map(|leaf| String::from_utf8(leaf).unwrap()).collect();
    let intent = records.iter().rfind(|record| record.contains(r#""kind":"intent""#)).unwrap();
    assert!(intent.contains(r#""carries":["pii.email"]"#), "{intent}");
    assert!(intent.contains(r#""revealed":["text=pii.email"]"#), "{intent}");
    assert!(records.iter().all(|record| !record.contains(email) && !record.contains(&token)), "{records:?}");

    // What was taken out outlives the rules, and what they allow does not.
    bench.broker.replace_rulebook(under(&format!("{CONFIG}{REVEAL}")));
    let before = bench.minutes.read();
    let again = bench.minutes_of(post(5)).await;
    assert!(again.strip_prefix(&before).unwrap().contains(&format!("to {email}")), "{again}");
    bench.broker.replace_rulebook(under(CONFIG));
    let before = bench.minutes.read();
    let kept = bench.minutes_of(post(6)).await;
    assert!(
        kept.strip_prefix(&before).unwrap().contains(&format!(r#"run web/post {{"text":"to {token} 6"}}"#)),
        "{kept}"
    );
    // When the session is over, nothing is left of it.
    bench.broker.replace_rulebook(under(&format!("{CONFIG}{REVEAL}")));
    bench.broker.rulebook().scrub.end_session("s");
    let gone = bench.minutes_of(post(7)).await;
    assert!(gone.ends_with("write down | => invalid_arguments"), "{gone}");
}

/// What a call would send is looked through before it is judged: arguments, and what the client puts around them. The record says what
/// was found, and not what it was.
#[tokio::test]
async fn what_a_call_would_send_is_looked_through_before_it_is_judged() {
    let secret = format!("ghp_{}", "Zq3vN8xK2mW7tR5yB9cD4fG6hJ1kL0pS3aQe");
    let card = "4111 1111 1111 1111";
    let post = |text: &str| call(1, "web/post", &format!(r#"{{"text":"{text}"}}"#));
    let around = |around: &str| {
        let mut call = post("hi");
        call.params = json(&format!(r#"{{"name":"x","arguments":{{}},{around}}}"#));
        call
    };
    let refused = "write down | => carries_secret";
    let asked = r#"ask owner | yes | open | run web/post"#;
    for (call, want, carries) in [
        (post(&secret), refused, r#""carries":["github-pat"]"#),
        (post("of-the-vault"), refused, r#""carries":["vault:github"]"#),
        (post("broken"), refused, r#""carries":["unsearchable"]"#),
        (post(&"cookie: a=b;".repeat(100_000)), refused, r#""carries":["unsearchable"]"#),
        (post("for-nobody"), "write down | => not_permitted", r#""carries":["honeytoken","vault:decoy"]"#),
        (around(&format!(r#""more":"{secret}""#)), refused, r#""carries":["github-pat"]"#),
        (around(&format!(r#""_meta":{{"baggage":"{secret}"}}"#)), refused, r#""carries":["github-pat"]"#),
        // By these a client knows its calls again; servers do not get them, or sent them.
        (around(&format!(r#""_meta":{{"progressToken":"{secret}"}}"#)), asked, r#""kind":"intent""#),
        (around(&format!(r#""requestState":"{secret}""#)), asked, r#""kind":"intent""#),
        (post("password=⟦pii.card#k3f9a2bq⟧"), asked, r#""kind":"intent""#),
        // Personal data is for rules to say.
        (post(card), asked, r#""carries":["pii.card"]"#),
        // It does not leave.
        (
            call(1, "web/look", &format!(r#"{{"at":"{secret}"}}"#)),
            "open | run web/look",
            r#""carries":["github-pat"]"#,
        ),
    ] {
        let bench = Bench::new(Some(true), DONE, None);
        let minutes = bench.minutes_of(call).await;
        let leaves = bench.broker.store().leaves().into_iter().map(|leaf| String::from_utf8(leaf).unwrap());
        let leaves = leaves.collect::<Vec<_>>().join("\n");
        assert!(minutes.starts_with(want), "{minutes}");
        assert!(leaves.contains(carries), "{leaves}");
        for value in [&secret, card, "of-the-vault", "for-nobody"] {
            assert!(!leaves.contains(value), "{leaves}");
        }
    }
}

/// What would take too long to look through is withheld, and not told along the way either.
#[tokio::test]
async fn what_cannot_be_looked_through_is_withheld() {
    let bench = Bench::new(None, Server::Says("cookie: a=b;".repeat(100_000)), None);
    let minutes = bench.minutes_of(call(1, "web/look", r#"{"at":"x"}"#)).await;
    assert_eq!(minutes, r#"open | run web/look {"at":"x"} | close | => Withheld(Unsearchable)"#);
}

/// What is said in an answer of a call that goes on, and by which a server knows it again, comes back to it as it was.
#[tokio::test]
async fn the_state_of_a_call_that_goes_on_is_its_servers() {
    let state = format!("ghp_{}", "Zq3vN8xK2mW7tR5yB9cD4fG6hJ1kL0pS3aQe");
    for (kind, stays) in [("input_required", true), ("task", true), ("complete", false)] {
        let answer = format!(r#"{{"resultType":"{kind}","requestState":"{state}","taskId":"{state}"}}"#);
        let bench = Bench::new(None, Server::Answers(answer.leak()), None);
        let minutes = bench.minutes_of(call(1, "web/look", r#"{"at":"x"}"#)).await;
        assert_eq!(minutes.contains(&state), stays, "{minutes}");
    }
}

/// An approval does not cover `_meta`, which is another each time; so it is not sent. What rules permit keeps it.
#[tokio::test]
async fn what_was_asked_about_goes_without_what_nobody_approved() {
    let with_meta = |mut call: Call| {
        let meta = r#""_meta":{"progressToken":7,"claudecode/toolUseId":"u","baggage":"for=mallory"}"#;
        let arguments = call.arguments.as_str();
        call.params = json(&format!(r#"{{"name":"x","arguments":{arguments},{meta},"more":1}}"#));
        call
    };
    let bench = Bench::new(Some(true), DONE, None);
    let asked = bench.minutes_of(with_meta(call(1, "web/post", r#"{"text":"hi"}"#))).await;
    assert!(asked.contains(r#"run web/post {"text":"hi"} with {"progressToken":7} | close"#), "{asked}");
    let bench = Bench::new(None, DONE, None);
    let allowed = bench.minutes_of(with_meta(call(1, "web/look", r#"{"at":"x"}"#))).await;
    assert!(
        allowed.contains(r#"with {"progressToken":7,"claudecode/toolUseId":"u","baggage":"for=mallory"}"#),
        "{allowed}"
    );
}

/// One yes is one call: the same call again is asked about again.
#[tokio::test]
async fn a_yes_is_used_once() {
    let bench = Bench::new(Some(true), DONE, None);
    let first = bench.handle(call(1, "web/post", r#"{"text":"hi"}"#)).await.unwrap();
    bench.broker.store().delivered(first.receipt.call);
    bench.handle(call(2, "web/post", r#"{"text":"hi"}"#)).await.unwrap();
    let once = "ask owner | yes | open | run web/post {\"text\":\"hi\"} | close";
    assert_eq!(bench.minutes.read(), format!("{once} | {once}"));
}

/// An answer that is on its way to one call does not answer another: both run.
#[tokio::test]
async fn an_answer_on_its_way_is_nobody_elses() {
    let bench = Bench::new(Some(true), DONE, None);
    let first = bench.handle(call(1, "web/post", r#"{"text":"hi"}"#)).await.unwrap();
    let second = bench.handle(call(2, "web/post", r#"{"text":"hi"}"#)).await.unwrap();
    assert_ne!(first.receipt.call, second.receipt.call);
    assert_eq!(bench.minutes.read().matches("run web/post").count(), 2, "{}", bench.minutes.read());
    // The first is delivered, the second gets lost: the third is the second's repetition.
    bench.broker.store().delivered(first.receipt.call);
    let lost = second.receipt.call;
    drop((first, second));
    let third = bench.handle(call(3, "web/post", r#"{"text":"hi"}"#)).await.unwrap();
    assert_eq!(third.receipt.call, lost);
}

/// An answer that never reached the agent stands in for running the call again.
#[tokio::test]
async fn a_lost_answer_is_not_a_second_run() {
    let bench = Bench::new(Some(true), DONE, None);
    bench.handle(call(1, "web/post", r#"{"text":"hi"}"#)).await.unwrap();
    let again = bench.handle(call(2, "web/post", r#"{"text":"hi"}"#)).await.unwrap();
    assert_eq!(again.receipt.call, CallId::new(1_700_000_000_000, [1; 10]));
    assert_eq!(bench.minutes.read().matches("run web/post").count(), 1, "{}", bench.minutes.read());
}

/// What a line in the store says convinces nobody if the proof does not hold.
#[test]
fn a_forged_answer_is_refused() {
    let forge =
        |q: &mut Question| q.answers.iter_mut().for_each(|a| a.evidence = bytes::Bytes::from_static(b"bad"));
    let nobody = |q: &mut Question| q.answers.clear();
    let stranger =
        |q: &mut Question| q.answers.iter_mut().for_each(|a| a.person = "mallory".parse().unwrap());
    let no = |q: &mut Question| q.answers.iter_mut().for_each(|a| a.yes = false);
    // The proofs hold, but for another question than the one in the row.
    let retold = |q: &mut Question, from: &str, to: &str| {
        let told = String::from_utf8(q.statement.to_vec()).unwrap();
        assert!(told.contains(from), "{from} is not in {told}");
        q.statement = told.replace(from, to).into();
    };
    let of_another_call = |q: &mut Question| retold(q, &q.digest.to_string(), "0");
    let of_another_policy = |q: &mut Question| retold(q, &q.policy.to_string(), "0");
    let of_another_question = |q: &mut Question| retold(q, &q.number.clone(), "q-0");
    let of_another_topic = |q: &mut Question| retold(q, r#""question":"owner""#, r#""question":"guest""#);
    let prolonged = |q: &mut Question| q.expires_ms += 1;
    let erased = |q: &mut Question| q.statement = bytes::Bytes::new();
    let cases = [
        ("another call's", &of_another_call as &(dyn Fn(&mut Question) + Sync)),
        ("another policy's", &of_another_policy),
        ("another question's", &of_another_question),
        ("another topic's", &of_another_topic),
        ("prolonged", &prolonged),
        ("erased", &erased),
        ("forged", &forge),
        ("no answers", &nobody),
        ("a stranger's", &stranger),
        ("a no", &no),
    ];
    // All at once, as each waits a while for news of the people.
    std::thread::scope(|scope| {
        for (what, meddle) in cases {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let (answered, minutes) = runtime.block_on(meddled_with(meddle, || None));
                assert!(matches!(answered, Err(Refusal::Denied { .. })), "{what}: {answered:?}");
                assert!(!minutes.contains("run"), "{what}: {minutes}");
            });
        }
    });
}

/// Who was enrolled while the question was open is believed, however late the gate hears of it.
#[tokio::test]
async fn a_person_enrolled_after_the_question_was_asked_may_answer_it() {
    let unknown = |q: &mut Question| {
        q.answers.iter_mut().for_each(|answer| answer.evidence = bytes::Bytes::from_static(b"new"));
    };
    let (answered, minutes) =
        meddled_with(&unknown, || Some(Rulebook { people: Arc::new(Newcomer), ..rulebook(RULES) })).await;
    assert!(answered.is_ok(), "{answered:?}");
    assert!(minutes.contains("run web/post"), "{minutes}");
}

/// Believes a proof that nobody else knows.
#[derive(Debug)]
struct Newcomer;

impl VerifyAnswer for Newcomer {
    fn verify(&self, _question: &Question, answer: &Answered) -> bool {
        &answer.evidence[..] == b"new"
    }
}

/// Lets a call ask, writes a yes into the store that was meddled with, and then gives the gate other rules, if any.
async fn meddled_with(
    meddle: &(dyn Fn(&mut Question) + Sync),
    news: impl FnOnce() -> Option<Rulebook>,
) -> (Result<Reply, Refusal>, String) {
    let bench = Bench::new(None, DONE, None);
    let store = Arc::clone(bench.broker.store());
    let mut waiting = Box::pin(bench.handle(call(1, "web/post", r#"{"text":"hi"}"#)));
    tokio::select! {
        early = &mut waiting => panic!("{early:?}"),
        () = asked(&bench.minutes) => {}
    }
    store.meddle(|q| {
        q.state = QuestionState::Approved;
        q.answers = vec![toolgate_testkit::minutes::said(true)];
        meddle(q);
    });
    let news = async {
        // By now the answer was looked at, with what was known before.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        if let Some(rulebook) = news() {
            bench.broker.replace_rulebook(rulebook);
        }
    };
    let (answered, ()) = tokio::join!(waiting, news);
    (answered, bench.minutes.read())
}

async fn asked(minutes: &Minutes) {
    while !minutes.read().contains("wait") {
        tokio::task::yield_now().await;
    }
}

/// Other rules while a person thinks: the yes to the old question is void.
#[tokio::test]
async fn other_rules_void_a_yes() {
    let bench = Bench::new(None, DONE, None);
    let waiting = bench.handle(call(1, "web/post", r#"{"text":"hi"}"#));
    tokio::pin!(waiting);
    let end = tokio::select! {
        early = &mut waiting => panic!("{early:?}"),
        () = asked(&bench.minutes) => {
            bench.broker.replace_rulebook(rulebook(&RULES.replace("permit(principal == Agent::\"bot\", action == ", "forbid(principal == Agent::\"bot\", action == ").replace(" @ask(\"owner\")", "")));
            bench.broker.store().meddle(|q| { q.state = QuestionState::Approved; q.answers = vec![toolgate_testkit::minutes::said(true)]; });
            waiting.await
        }
    };
    assert!(matches!(end, Err(Refusal::Unknown | Refusal::NotPermitted { .. })), "{end:?}");
    assert!(!bench.minutes.read().contains("run"), "{}", bench.minutes.read());
}

#[tokio::test]
async fn an_agent_that_hangs_up_while_a_person_thinks_runs_nothing() {
    let bench = Bench { gone: true, ..Bench::new(None, DONE, None) };
    let minutes = bench.minutes_of(call(1, "web/post", r#"{"text":"hi"}"#)).await;
    assert_eq!(minutes, "ask owner | wait | write down | => unanswered");
}

/// Hanging up tells the server to stop, and the outcome is written down all the same.
#[tokio::test]
async fn an_agent_that_hangs_up_while_it_runs_cancels_nothing_between_open_and_close() {
    let bench = Bench { gone: true, ..Bench::new(None, Server::Hangs, None) };
    let minutes = bench.minutes_of(call(1, "web/look", r#"{"at":"x"}"#)).await;
    assert_eq!(minutes, r#"open | run web/look {"at":"x"} | stop: Gone | close | => Cancelled"#);
}

#[tokio::test]
async fn what_a_crash_left_open_is_closed_and_not_run_again() {
    let bench = Bench::new(None, DONE, Some((Write::Open, Fail::After)));
    bench.handle(call(1, "web/look", r#"{"at":"x"}"#)).await.unwrap_err();
    assert_eq!(bench.broker.recover().await, Ok(1));
    assert_eq!(bench.broker.recover().await, Ok(0));
    assert_eq!(bench.minutes.read(), "open | open fails after all | close");
    let last = String::from_utf8(bench.broker.store().leaves().pop().unwrap()).unwrap();
    assert!(last.contains(r#""kind":"outcome_unknown""#), "{last}");
}

#[tokio::test]
async fn a_flood_is_bounded_and_leaves_room_for_others() {
    let bench = Bench::new(None, Server::Hangs, None);
    let mut running = tokio::task::JoinSet::new();
    for number in 0..=u8::MAX {
        let (broker, line) = (bench.broker.clone(), bench.agent());
        running.spawn(async move { broker.handle(call(number, "web/look", r#"{"at":"x"}"#), line).await });
    }
    while bench.minutes.read().matches("run").count() < MAX_CALLS_PER_AGENT {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.handle(call(1, "web/look", r#"{"at":"y"}"#)).await.unwrap_err(), Refusal::Busy);
    running.abort_all();
    let stranger = bench.handle(call_as("stranger", 1, "web/look", r#"{"at":"x"}"#)).await;
    assert_eq!(stranger.unwrap_err(), Refusal::Unknown);
}

/// Nothing of what was asked for stands in the log in clear.
#[tokio::test]
async fn arguments_and_results_are_not_in_the_leaves() {
    let bench = Bench::new(
        Some(true),
        Server::Answers(r#"{"content":[{"type":"text","text":"answer-text"}]}"#),
        None,
    );
    bench.handle(call(1, "web/post", r#"{"text":"argument-text"}"#)).await.unwrap();
    bench.handle(call(2, "web/wipe", r#"{"text":"argument-text"}"#)).await.unwrap_err();
    let leaves = bench.broker.store().leaves();
    assert_eq!(leaves.len(), 4);
    for leaf in leaves {
        let leaf = String::from_utf8(leaf).unwrap();
        assert!(!leaf.contains("argument-text") && !leaf.contains("answer-text"), "{leaf}");
    }
}
