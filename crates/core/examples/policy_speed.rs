//! How long a verdict takes: 1,000 rules, 100 tools on 10 servers, 50 agents in 11 groups. Prints figures only.
//!
//! `cargo run --release -p toolgate-core --example policy_speed`
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up has no figures")]
#![expect(clippy::indexing_slicing, reason = "the same")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::disallowed_methods, reason = "it measures time; the library does not")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use toolgate_core::call::{Action, Agent, Call, Proof};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::ToolName;
use toolgate_core::policy::{Facts, KnownAgent, Policy, PolicySource, World, trial_call};
use toolgate_core::tool::{Effect, Tool, pin};
use toolgate_core::verdict::Verdict;

const RULES: usize = 1_000;
const CALLS: usize = 1_000;
const ROUNDS: usize = 101;

fn main() {
    let world = world(100);
    let source = PolicySource { path: "speed.cedar".to_owned(), text: rules(), examples: None };
    let begin = Instant::now();
    let policy = Policy::load(std::slice::from_ref(&source), &world).unwrap();
    println!("load {RULES} rules, 100 tools      {:>9.1} ms", ms(begin.elapsed()));

    let calls: Vec<Call> = (0..CALLS).map(|n| call(&world, n)).collect();
    let facts = Facts { now_ms: 1_700_000_000_000 };
    let mut counts = [0_usize; 3];
    let mut times = Vec::new();
    let mut medians = Vec::new();
    for call in &calls {
        let mut own: Vec<_> = (0..ROUNDS).map(|_| judge(&policy, call, &facts, &mut counts)).collect();
        times.extend_from_slice(&own);
        own.sort_unstable();
        medians.push(own[ROUNDS / 2]);
    }
    println!("verdicts                         {} allow, {} ask, {} deny", counts[0], counts[1], counts[2]);
    let mut considered: Vec<_> =
        calls.iter().map(|call| policy.explain(call, &facts).considered.len()).collect();
    considered.sort_unstable();
    println!(
        "rules considered for a call      {} at p50, {} at most",
        considered[CALLS / 2],
        considered[CALLS - 1]
    );
    // On a machine that does other things as well, the slowest of all are those that had to wait for the processor. The
    // median of each call is what the call costs.
    percentiles("judge", times);
    percentiles("judge, median of each call", medians);

    // The dearest case: everything is about one agent and one tool.
    let crowded = "@id(\"r$\") @because(\"measured\") permit(principal == Agent::\"agent0\",
        action == Action::\"server0/tool0\", resource) when { context.args.amount < $ };\n";
    let text: String = (0..100).map(|n| crowded.replace('$', &n.to_string())).collect();
    let policy = Policy::load(&[PolicySource { text, ..source.clone() }], &world).unwrap();
    let times = (0..10_000).map(|_| judge(&policy, &call(&world, 0), &facts, &mut counts)).collect();
    percentiles("judge, 100 rules considered", times);

    let world = self::world(1_000);
    let begin = Instant::now();
    let policy = Policy::load(&[source], &world).unwrap();
    println!("load {RULES} rules, 1000 tools     {:>9.1} ms", ms(begin.elapsed()));
    let mut lists: Vec<_> = (0..50).map(|n| list(&policy, &world, &agent(n))).collect();
    lists.sort_unstable();
    println!("may_see of 1000 tools, median    {:>9.3} ms", ms(lists[lists.len() / 2].0));
    println!("may_see of 1000 tools, slowest   {:>9.3} ms", ms(lists[lists.len() - 1].0));
}

fn judge(policy: &Policy, call: &Call, facts: &Facts, counts: &mut [usize; 3]) -> Duration {
    let begin = Instant::now();
    let verdict = policy.judge(call, facts);
    let time = begin.elapsed();
    counts[match verdict {
        Verdict::Allow(_) => 0,
        Verdict::Ask(_) => 1,
        Verdict::Deny(_) => 2,
    }] += 1;
    time
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    for (name, per_mille) in [("p50", 500), ("p99", 990), ("p99.9", 999)] {
        let time = times[(times.len() - 1) * per_mille / 1000].as_secs_f64() * 1e6;
        println!("{:<33}{time:>9.2} µs", format!("{what} {name}"));
    }
}

/// How long it takes to find out what an agent may see, and how much that is.
fn list(policy: &Policy, world: &World, agent: &Agent) -> (Duration, usize) {
    let names: Vec<_> =
        world.tools.iter().map(|tool| (tool.name.server(), Action::Tool(tool.name.clone()))).collect();
    let begin = Instant::now();
    let seen = names.iter().filter(|(server, action)| policy.may_see(agent, server, action)).count();
    (begin.elapsed(), seen)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn agent(n: usize) -> Agent {
    Agent {
        id: format!("agent{}", n % 50).parse().unwrap(),
        groups: vec![format!("group{}", n % 10).parse().unwrap(), "everybody".parse().unwrap()],
        proof: Proof::Bearer,
    }
}

fn world(tools: usize) -> World {
    let schema = r#"{"type":"object","required":["to","amount"],"properties":{
        "to":{"type":"string"},"subject":{"type":"string"},"body":{"type":"string"},
        "amount":{"type":"integer"},"price":{"type":"number"},"urgent":{"type":"boolean"},
        "tags":{"type":"array","items":{"type":"string"}},
        "options":{"type":"object","properties":{"depth":{"type":"integer"},"path":{"type":"string"}}}}}"#;
    let tool = |n: usize| {
        let name: ToolName = format!("server{}/tool{n}", n % 10).parse().unwrap();
        let text = format!(r#"{{"name":"tool{n}","inputSchema":{schema}}}"#);
        let definition = Document::parse(text, &Limits::default()).unwrap();
        let pin = pin(&definition.root().canonical().unwrap());
        let second = if n.is_multiple_of(3) { Effect::Read } else { Effect::ALL[n % 7] };
        Arc::new(Tool { name, effects: BTreeSet::from([Effect::ALL[n % 7], second]), definition, pin })
    };
    let known = |n: usize| {
        let Agent { id, groups, proof: _ } = agent(n);
        KnownAgent { id, groups }
    };
    World {
        agents: (0..50).map(known).collect(),
        servers: (0..10).map(|n| format!("server{n}").parse().unwrap()).collect(),
        tools: (0..tools).map(tool).collect(),
        questions: BTreeSet::from(["owner".parse().unwrap()]),
    }
}

/// Rules of every kind: for everybody, a group or an agent; for an effect, a tool or a server; reading arguments.
fn rules() -> String {
    let mut text = String::new();
    for n in 0..RULES {
        let (tool, effect) = (n % 100, Effect::ALL[n % 7]);
        let server = format!("Server::\"server{}\"", tool % 10);
        let tool = format!("action == Action::\"server{}/tool{tool}\"", tool % 10);
        let effect = format!("action in Action::\"{effect}\"");
        let agent = format!("principal == Agent::\"agent{}\"", n % 50);
        let group = format!("principal in Group::\"group{}\"", n % 10);
        let rule = match n / 100 {
            0 => format!("permit(principal, {tool}, resource) when {{ context.args.amount < {n} }}"),
            1 => format!(
                "permit({group}, {effect}, resource) when {{ context.args has urgent && context.args.urgent }}"
            ),
            2 => format!("permit({agent}, {effect}, resource)"),
            3 => format!(
                "@ask(\"owner\") permit(principal, {tool}, resource)
                 when {{ context.args.to like \"*@example.com\" && context.args.amount > {n} }}"
            ),
            4 => format!(
                "forbid({agent}, {tool}, resource)
                 when {{ context.args has tags && context.args.tags.contains(\"secret\") }}"
            ),
            5 => format!(
                "forbid(principal, {effect}, resource == {server})
                 unless {{ context.args.to like \"*@example.com\" }}"
            ),
            6 => format!(
                "permit(principal in Group::\"everybody\", {tool}, resource)
                 when {{ context.args has options && context.args.options has path &&
                         context.args.options.path like \"/srv/{n}/*\" }}"
            ),
            7 => format!(
                "forbid({group}, action in [Action::\"read\", Action::\"write\", Action::\"egress\"],
                        resource == {server})
                 when {{ context.args has tags && context.args.tags.contains(\"x{n}\") }}"
            ),
            8 => format!("permit({agent}, action, resource == {server}) when {{ context.time > {n} }}"),
            _ => format!(
                "permit(principal, {tool}, resource)
                 when {{ context.args has price && context.args.price.lessThan(decimal(\"{n}.5\")) }}"
            ),
        };
        writeln!(text, "@id(\"r{n}\") @because(\"measured\") {rule};").unwrap();
    }
    text
}

fn call(world: &World, n: usize) -> Call {
    let tool = &world.tools[(n * 37) % world.tools.len()];
    let arguments = format!(
        r#"{{"to":"ann@example.com","subject":"Hello","body":"{}","amount":{},"price":12.5,"urgent":{},
            "tags":["a","b"],"options":{{"depth":3,"path":"/srv/{n}/x"}}}}"#,
        "x".repeat(500),
        n * 3,
        n.is_multiple_of(2),
    );
    let arguments = Document::parse(arguments, &Limits::default()).unwrap().root().canonical().unwrap();
    trial_call(agent(n * 7), Action::Tool(tool.name.clone()), tool.name.server().clone(), arguments)
}
