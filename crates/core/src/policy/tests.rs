//! Tests of the whole module: verdicts, load errors and properties.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use super::*;
use crate::call::Proof;
use crate::json::{Canonical, Document, Limits};
use crate::name::ToolName;
use crate::tool::{Effect, pin};
use crate::verdict::DenyReason;

const FACTS: Facts = Facts { now_ms: 1_700_000_000_999 };

fn json(text: &str) -> Document {
    Document::parse(text, &Limits::default()).unwrap()
}

fn canonical(text: &str) -> Canonical {
    json(text).root().canonical().unwrap()
}

fn tool(name: &str, effects: &[Effect], properties: &str, required: &str) -> Arc<Tool> {
    let name: ToolName = name.parse().unwrap();
    let definition = json(&format!(
        r#"{{"name":"{}","inputSchema":{{"type":"object","properties":{properties},"required":{required}}}}}"#,
        name.tool()
    ));
    let pin = pin(&definition.root().canonical().unwrap());
    Arc::new(Tool { name, effects: effects.iter().copied().collect(), definition, pin })
}

/// The tools of the demo server, and one with every kind of argument.
fn world() -> World {
    let text = r#"{"type":"string"}"#;
    World {
        agents: vec![
            KnownAgent { id: "ann".parse().unwrap(), groups: vec!["office".parse().unwrap()] },
            KnownAgent { id: "bob".parse().unwrap(), groups: vec![] },
        ],
        servers: vec!["demo".parse().unwrap(), "shop".parse().unwrap()],
        tools: vec![
            tool("demo/search_mail", &[Effect::Read], &format!(r#"{{"query":{text}}}"#), r#"["query"]"#),
            tool("demo/read_document", &[Effect::Read], &format!(r#"{{"name":{text}}}"#), r#"["name"]"#),
            tool(
                "demo/send_mail",
                &[Effect::Egress],
                &format!(r#"{{"to":{text},"subject":{text},"body":{text}}}"#),
                r#"["to","subject","body"]"#,
            ),
            tool("demo/delete_document", &[Effect::Delete], &format!(r#"{{"name":{text}}}"#), r#"["name"]"#),
            tool(
                "demo/pay_invoice",
                &[Effect::Money],
                &format!(r#"{{"iban":{text},"amount_cents":{{"type":"integer"}},"reference":{text}}}"#),
                r#"["iban","amount_cents","reference"]"#,
            ),
            tool(
                "shop/order",
                &[Effect::Egress, Effect::Write],
                r##"{
                    "count":{"type":["integer","null"]},
                    "price":{"type":"number"},
                    "gift":{"type":"boolean"},
                    "size":{"enum":["s","m"]},
                    "tags":{"type":"array","items":{"type":"string"}},
                    "address":{"type":"object","properties":{
                        "city":{"type":"string"},"floor":{"type":"integer"},"extra":{}},"required":["city"]},
                    "free":{},
                    "either":{"anyOf":[{"type":"string"},{"type":"integer"}]}
                }"##,
                r#"["price"]"#,
            ),
        ],
        questions: BTreeSet::from(["owner".parse().unwrap(), "finance".parse().unwrap()]),
    }
}

fn source(text: &str) -> PolicySource {
    PolicySource { path: "policies/test.cedar".to_owned(), text: text.to_owned(), examples: None }
}

fn load(text: &str) -> Result<Policy, LoadPolicyErrors> {
    Policy::load(&[source(text)], &world())
}

/// Rules without the annotations that every rule has to have: they get `r0`, `r1` … for names.
fn rules(conditions: &[&str]) -> String {
    let mut text = String::new();
    for (number, rule) in conditions.iter().enumerate() {
        writeln!(text, "@id(\"r{number}\") @because(\"reason {number}\") {rule}").unwrap();
    }
    text
}

fn agent(id: &str, groups: &[&str]) -> Agent {
    Agent {
        id: id.parse().unwrap(),
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        proof: Proof::Bearer,
    }
}

fn call(who: Agent, tool: &str, arguments: &str) -> Call {
    let name: ToolName = tool.parse().unwrap();
    let server = name.server().clone();
    trial_call(who, Action::Tool(name), server, canonical(arguments))
}

/// A verdict in a few words.
fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allow(allowed) => {
            let rules: Vec<_> = allowed.rules.iter().map(ToString::to_string).collect();
            format!("allow {}", rules.join(" "))
        }
        Verdict::Ask(asked) => format!("ask {} {}", asked.question, asked.rule),
        Verdict::Deny(DenyReason::Broken { rule, .. }) => format!("broken {rule}"),
        Verdict::Deny(DenyReason::Forbidden { rule, .. }) => format!("forbidden {rule}"),
        Verdict::Deny(DenyReason::Inexpressible { argument }) => format!("inexpressible {argument}"),
        Verdict::Deny(DenyReason::NotPermitted) => "not permitted".to_owned(),
    }
}

fn judged(conditions: &[&str], who: Agent, tool: &str, arguments: &str) -> String {
    let policy = load(&rules(conditions)).unwrap();
    words(&policy.judge(&call(who, tool, arguments), &FACTS))
}

/// What a person sees of load errors.
fn shown(errors: &LoadPolicyErrors) -> String {
    let mut text = String::new();
    for error in &errors.errors {
        writeln!(text, "{error}").unwrap();
        if let Some(cause) = std::error::Error::source(error) {
            writeln!(text, "  caused by: {cause}").unwrap();
        }
        if let Some(hint) = error.hint() {
            writeln!(text, "hint: {hint}").unwrap();
        }
    }
    if errors.left_out > 0 {
        writeln!(text, "and {} more", errors.left_out).unwrap();
    }
    text
}

fn errors_of(text: &str) -> String {
    load(text).map_or_else(|errors| shown(&errors), |_| "no error".to_owned())
}

#[test]
fn the_shipped_policies_do_what_their_examples_say() {
    let shipped = [
        (
            "default",
            include_str!("../../../../policies/default.cedar"),
            include_str!("../../../../policies/default.examples.toml"),
        ),
        (
            "demo",
            include_str!("../../../../policies/demo.cedar"),
            include_str!("../../../../policies/demo.examples.toml"),
        ),
        (
            "starter",
            include_str!("../../../../policies/starter.cedar"),
            include_str!("../../../../policies/starter.examples.toml"),
        ),
    ];
    for (name, text, examples) in shipped {
        let source = PolicySource {
            path: format!("policies/{name}.cedar"),
            text: text.to_owned(),
            examples: Some(ExamplesSource {
                path: format!("policies/{name}.examples.toml"),
                text: examples.to_owned(),
            }),
        };
        let policy = Policy::load(&[source.clone()], &world()).map_err(|errors| shown(&errors));
        assert_eq!(policy.map(|_| ()), Ok(()), "policy {name}");
        if name != "demo" {
            // These two are used where nothing is configured but the question that `toolgate init` writes.
            let bare = World { questions: world().questions, ..World::default() };
            let policy = Policy::load(&[source], &bare).map_err(|errors| shown(&errors));
            assert_eq!(policy.map(|_| ()), Ok(()), "policy {name} without any tool");
        }
    }
}

#[test]
fn the_strictest_rule_wins() {
    let permit = "permit(principal, action, resource);";
    let ask = "@ask(\"owner\") permit(principal, action, resource);";
    let ask_finance = "@ask(\"finance\") permit(principal, action, resource);";
    let forbid = "forbid(principal, action, resource);";
    let other = "permit(principal == Agent::\"bob\", action, resource);";
    let not_now = "forbid(principal, action, resource) when { context.time < 1 };";
    let overflows = "permit(principal, action, resource) when { context.time + 9223372036854775807 > 0 };";
    let forbid_overflows =
        "forbid(principal, action, resource) when { context.time + 9223372036854775807 > 0 };";
    for (rules, want) in [
        (&[][..], "not permitted"),
        (&[permit], "allow r0"),
        (&[permit, permit], "allow r0 r1"),
        (&[other], "not permitted"),
        (&[permit, ask], "ask owner r1"),
        (&[ask, permit], "ask owner r0"),
        (&[ask_finance, ask], "ask finance r0"),
        (&[ask, ask_finance], "ask owner r0"),
        (&[permit, ask, forbid], "forbidden r2"),
        (&[forbid], "forbidden r0"),
        (&[forbid, forbid, permit], "forbidden r0"),
        (&[permit, not_now], "allow r0"),
        (&[not_now], "not permitted"),
        (&[permit, overflows], "broken r1"),
        (&[overflows, permit, forbid], "broken r0"),
        (&[permit, forbid_overflows], "broken r1"),
    ] {
        let got = judged(rules, agent("ann", &["office"]), "demo/search_mail", r#"{"query":"x"}"#);
        assert_eq!(got, want, "rules: {rules:?}");
    }
}

#[test]
fn scopes_cover_what_they_say() {
    for (scope, who, tool, matches) in [
        ("principal == Agent::\"ann\", action, resource", ("ann", &[][..]), "demo/search_mail", true),
        ("principal == Agent::\"ann\", action, resource", ("bob", &[]), "demo/search_mail", false),
        ("principal in Group::\"office\", action, resource", ("bob", &["office"]), "demo/search_mail", true),
        ("principal in Group::\"office\", action, resource", ("ann", &[]), "demo/search_mail", false),
        (
            "principal is Agent in Group::\"office\", action, resource",
            ("eve", &["x", "office"]),
            "demo/search_mail",
            true,
        ),
        ("principal in Agent::\"ann\", action, resource", ("ann", &[]), "demo/search_mail", true),
        ("principal is Agent, action, resource", ("eve", &[]), "demo/search_mail", true),
        ("principal, action in Action::\"read\", resource", ("ann", &[]), "demo/search_mail", true),
        ("principal, action in Action::\"read\", resource", ("ann", &[]), "demo/send_mail", false),
        (
            "principal, action in [Action::\"egress\", Action::\"write\"], resource",
            ("ann", &[]),
            "shop/order",
            true,
        ),
        ("principal, action in [Action::\"demo/send_mail\"], resource", ("ann", &[]), "demo/send_mail", true),
        (
            "principal, action == Action::\"demo/send_mail\", resource",
            ("ann", &[]),
            "demo/search_mail",
            false,
        ),
        ("principal, action, resource == Server::\"demo\"", ("ann", &[]), "demo/search_mail", true),
        ("principal, action, resource == Server::\"shop\"", ("ann", &[]), "demo/search_mail", false),
        ("principal, action, resource in Server::\"demo\"", ("ann", &[]), "demo/search_mail", true),
        ("principal, action, resource is Server", ("ann", &[]), "demo/search_mail", true),
    ] {
        let rule = format!("permit({scope});");
        let (id, groups) = who;
        let got = judged(&[&rule], agent(id, groups), tool, "{}");
        let want = if matches { "allow r0" } else { "not permitted" };
        assert_eq!(got, want, "scope: {scope}, agent: {id} in {groups:?}, tool: {tool}");
    }
}

#[test]
fn unknown_tools_and_servers_are_not_permitted() {
    let policy = load(&rules(&["permit(principal, action, resource);"])).unwrap();
    let known = call(agent("ann", &[]), "demo/search_mail", "{}");
    assert_eq!(words(&policy.judge(&known, &FACTS)), "allow r0");
    let absent = call(agent("ann", &[]), "demo/absent", "{}");
    assert_eq!(words(&policy.judge(&absent, &FACTS)), "not permitted");
    // A tool under the name of a server that does not offer it.
    let mut crossed = call(agent("ann", &[]), "demo/search_mail", "{}");
    crossed.server = "shop".parse().unwrap();
    assert_eq!(words(&policy.judge(&crossed, &FACTS)), "not permitted");
    assert!(!policy.may_see(&crossed.agent, &crossed.server, &crossed.action));
}

#[test]
fn values_are_shown_exactly_or_the_call_is_refused() {
    for (condition, arguments, want) in [
        ("context.args.price.lessThan(decimal(\"10.5\"))", r#"{"price":10.4999}"#, "allow r0"),
        ("context.args.price.lessThan(decimal(\"10.5\"))", r#"{"price":10.5}"#, "not permitted"),
        ("context.args.price.lessThan(decimal(\"10.5\"))", r#"{"price":7}"#, "allow r0"),
        ("context.args.price.lessThan(decimal(\"0.0\"))", r#"{"price":-0.5}"#, "allow r0"),
        ("context.args.price.lessThan(decimal(\"10.5\"))", r#"{"price":0.123456}"#, "inexpressible price"),
        ("context.args.price.lessThan(decimal(\"10.5\"))", r#"{"price":1e21}"#, "inexpressible price"),
        ("context.args.price.lessThan(decimal(\"10.5\"))", r#"{"price":1e-7}"#, "inexpressible price"),
        (
            "context.args.price.lessThan(decimal(\"10.5\"))",
            r#"{"price":9007199254740991}"#,
            "inexpressible price",
        ),
        ("context.args.price.lessThan(decimal(\"10.5\"))", r#"{"price":922337203685476}"#, "not permitted"),
        (
            "context.args.price.lessThan(decimal(\"10.5\"))",
            r#"{"price":922337203685477}"#,
            "inexpressible price",
        ),
        ("context.args.price.lessThan(decimal(\"10.5\"))", r#"{"price":"1"}"#, "inexpressible price"),
        ("context.args.price.lessThan(decimal(\"10.5\"))", "{}", "inexpressible price"),
        ("context.args has count && context.args.count < 5", r#"{"count":4}"#, "allow r0"),
        ("context.args has count && context.args.count < 5", "{}", "not permitted"),
        ("context.args has count && context.args.count < 5", r#"{"count":4.5}"#, "inexpressible count"),
        ("context.args has count && context.args.count < 5", r#"{"count":"4"}"#, "inexpressible count"),
        ("context.args has count && context.args.count < 5", r#"{"count":null}"#, "inexpressible count"),
        ("!(context.args has count)", r#"{"count":null}"#, "inexpressible count"),
        ("context.args has gift && context.args.gift", r#"{"gift":true}"#, "allow r0"),
        ("context.args has gift && context.args.gift", r#"{"gift":1}"#, "inexpressible gift"),
        ("context.args has size && context.args.size == \"s\"", r#"{"size":"s"}"#, "allow r0"),
        ("context.args has tags && context.args.tags.contains(\"a\")", r#"{"tags":["b","a"]}"#, "allow r0"),
        ("context.args has tags && context.args.tags.isEmpty()", r#"{"tags":[]}"#, "allow r0"),
        (
            "context.args has tags && context.args.tags.contains(\"a\")",
            r#"{"tags":["a",1]}"#,
            "inexpressible tags",
        ),
        (
            "context.args has tags && context.args.tags.contains(\"a\")",
            r#"{"tags":"a"}"#,
            "inexpressible tags",
        ),
        (
            "context.args has address && context.args.address.city == \"x\"",
            r#"{"address":{"city":"x"}}"#,
            "allow r0",
        ),
        (
            "context.args has address && context.args.address.city == \"x\"",
            r#"{"address":[]}"#,
            "inexpressible address",
        ),
        (
            "context.args has address && context.args.address.city == \"x\"",
            r#"{"address":{"city":1}}"#,
            "inexpressible address.city",
        ),
        // What the rule does not read may be anything.
        (
            "context.args has address && context.args.address.city == \"x\"",
            r#"{"address":{"city":"x","floor":"9"},"price":0.12345}"#,
            "allow r0",
        ),
        // A comparison of the whole does not overlook what it cannot see.
        (
            "context.args has address && context.args.address == context.args.address",
            r#"{"address":{"city":"x"}}"#,
            "allow r0",
        ),
        (
            "context.args has address && context.args.address == context.args.address",
            r#"{"address":{"city":"x","extra":1}}"#,
            "inexpressible address.extra",
        ),
        ("context.unseen.isEmpty()", r#"{"price":1}"#, "allow r0"),
        ("context.unseen.isEmpty()", r#"{"price":1,"free":{}}"#, "not permitted"),
        (
            "context.unseen == [\"free\",\"address.extra\",\"new\"]",
            r#"{"price":1,"free":1,"new":2,"address":{"city":"x","extra":0}}"#,
            "allow r0",
        ),
        ("context.unseen.contains(\"either\")", r#"{"either":"x"}"#, "allow r0"),
        ("context.unseen.contains(\"count\")", r#"{"count":"x"}"#, "allow r0"),
        ("context.session.id == \"trial\" && context.time == 1700000000", "{}", "allow r0"),
        ("context.session.id == \"other\"", "{}", "not permitted"),
    ] {
        let rule =
            format!("permit(principal, action == Action::\"shop/order\", resource) when {{ {condition} }};");
        let got = judged(&[&rule], agent("ann", &[]), "shop/order", arguments);
        assert_eq!(got, want, "condition: {condition}, arguments: {arguments}");
    }
}

#[test]
fn a_rule_for_others_does_not_refuse_what_it_cannot_read() {
    let permit = "permit(principal, action, resource);";
    let reads = "forbid(principal == Agent::\"bob\", action == Action::\"shop/order\", resource)
        when { context.args.price.lessThan(decimal(\"1.0\")) };";
    let arguments = r#"{"price":0.123456}"#;
    assert_eq!(judged(&[permit, reads], agent("ann", &[]), "shop/order", arguments), "allow r0");
    assert_eq!(judged(&[permit, reads], agent("bob", &[]), "shop/order", arguments), "inexpressible price");
}

#[test]
fn what_is_not_a_tool_call_is_permitted_by_name_only() {
    let policy = load(&rules(&[
        "permit(principal, action in Action::\"read\", resource);",
        "permit(principal, action == Action::\"resources/read\", resource == Server::\"demo\")
            when { context.args.uri like \"file:///public/*\" };",
    ]))
    .unwrap();
    for (server, uri, want) in [
        ("demo", "file:///public/a", "allow r1"),
        ("demo", "file:///etc/passwd", "not permitted"),
        ("shop", "file:///public/a", "not permitted"),
    ] {
        let arguments = canonical(&format!(r#"{{"uri":"{uri}"}}"#));
        let call = trial_call(agent("ann", &[]), Action::ReadResource, server.parse().unwrap(), arguments);
        assert_eq!(words(&policy.judge(&call, &FACTS)), want, "server: {server}, uri: {uri}");
    }
    for (action, _) in vocabulary::OTHER_ACTIONS {
        let shape = &policy.vocabulary.subjects[&action.to_string()].context;
        let readable = shape.at(&["args"]).unwrap().members().count();
        assert_eq!(readable == 0, action == Action::ListRoots, "action: {action}");
    }
}

#[test]
fn one_may_see_what_some_rule_could_permit() {
    for (rules, want) in [
        (&[][..], false),
        (&["permit(principal, action, resource);"][..], true),
        (&["@ask(\"owner\") permit(principal, action, resource);"], true),
        (&["permit(principal == Agent::\"bob\", action, resource);"], false),
        (&["permit(principal in Group::\"office\", action, resource);"], true),
        (&["permit(principal, action in Action::\"read\", resource);"], false),
        (&["permit(principal, action, resource) when { context.time > 9 };"], true),
        // Whether a condition on the call can be fulfilled is not looked into.
        (&["permit(principal, action, resource) when { context.time > 9 && context.time < 9 };"], true),
        (&["permit(principal, action, resource);", "forbid(principal, action, resource);"], false),
        (
            &[
                "permit(principal, action, resource);",
                "forbid(principal == Agent::\"bob\", action, resource);",
            ],
            true,
        ),
        (
            &[
                "permit(principal, action, resource);",
                "forbid(principal, action, resource) when { context.time > 9 };",
            ],
            true,
        ),
        // Conditions on agent, action and server alone are known before there is a call.
        (&["permit(principal, action, resource) when { principal in Group::\"office\" };"], true),
        (&["permit(principal, action, resource) when { principal == Agent::\"bob\" };"], false),
        (
            &[
                "permit(principal, action, resource);",
                "forbid(principal, action, resource) unless { principal in Group::\"office\" };",
            ],
            true,
        ),
        (
            &[
                "permit(principal, action, resource);",
                "forbid(principal, action, resource) when { resource == Server::\"demo\" };",
            ],
            false,
        ),
        (
            &[
                "permit(principal, action, resource);",
                "forbid(principal, action, resource) when { action in Action::\"money\" };",
            ],
            false,
        ),
        (
            &[
                "permit(principal, action, resource);",
                "permit(principal, action, resource) when { 9223372036854775807 + 1 > 0 };",
            ],
            false,
        ),
    ] {
        let policy = load(&self::rules(rules)).unwrap();
        let call = call(agent("ann", &["office"]), "demo/pay_invoice", "{}");
        assert_eq!(policy.may_see(&call.agent, &call.server, &call.action), want, "rules: {rules:?}");
    }
}

#[test]
fn the_digest_is_of_all_that_a_verdict_depends_on() {
    let text = rules(&["permit(principal, action, resource);"]);
    let digest = |text: &str, world: &World| Policy::load(&[source(text)], world).unwrap().digest();
    let first = digest(&text, &world());
    assert_eq!(first, digest(&text, &world()));
    assert_ne!(first, digest(&format!("{text} // seen"), &world()));
    let mut more_agents = world();
    more_agents.agents.push(KnownAgent { id: "eve".parse().unwrap(), groups: vec![] });
    assert_eq!(first, digest(&text, &more_agents));
    let mut fewer_tools = world();
    fewer_tools.tools.pop();
    assert_ne!(first, digest(&text, &fewer_tools));
    let mut other_effect = world();
    Arc::make_mut(&mut other_effect.tools[0]).effects.insert(Effect::Money);
    assert_ne!(first, digest(&text, &other_effect));
}

#[test]
fn an_explanation_names_rules_and_values() {
    let policy = load(&rules(&[
        "permit(principal, action in Action::\"money\", resource) when { context.args.amount_cents < 100 };",
        "@ask(\"finance\") permit(principal, action in Action::\"money\", resource) when { context.args.amount_cents >= 100 };",
        "forbid(principal, action == Action::\"demo/pay_invoice\", resource) when { context.args.iban like \"XX*\" };",
        "permit(principal == Agent::\"bob\", action, resource);",
    ]))
    .unwrap();
    let arguments = r#"{"amount_cents":250,"iban":"DE02","reference":"r","note":"n"}"#;
    let explained = policy.explain(&call(agent("ann", &[]), "demo/pay_invoice", arguments), &FACTS);
    let lines: Vec<_> = explained
        .considered
        .iter()
        .map(|c| {
            let readings: Vec<_> = c
                .readings
                .iter()
                .map(|r| format!("{}={}", r.path, r.value.as_deref().unwrap_or("absent")))
                .collect();
            format!("{} {:?} {} {}", c.rule.name, c.finding, c.decides, readings.join(" "))
        })
        .collect();
    assert_eq!(words(&explained.verdict), "ask finance r1");
    assert_eq!(
        lines,
        [
            "r0 NotMatched false context.args.amount_cents=250",
            "r1 Matched true context.args.amount_cents=250",
            "r2 NotMatched false context.args.iban=\"DE02\"",
        ]
    );
    assert_eq!((explained.others, explained.unseen), (1, vec!["note".to_owned()]));

    let hidden = policy.explain(
        &call(agent("ann", &[]), "demo/pay_invoice", r#"{"amount_cents":"250","iban":"x"}"#),
        &FACTS,
    );
    assert_eq!(words(&hidden.verdict), "inexpressible amount_cents");
    assert_eq!(hidden.considered[0].finding, Finding::Inexpressible { argument: "amount_cents".to_owned() });
    let absent = policy.explain(&call(agent("ann", &[]), "demo/absent", "{}"), &FACTS);
    assert_eq!((words(&absent.verdict).as_str(), absent.others), ("not permitted", 4));
}

#[test]
fn hostile_tool_schemas_are_only_names() {
    let mut deep = r#"{"type":"string"}"#.to_owned();
    for _ in 0..25 {
        deep = format!(r#"{{"type":"object","properties":{{"a":{deep}}},"required":["a"]}}"#);
    }
    let many: Vec<_> = (0..1000).map(|n| format!(r#""p{n}":{{"type":"string"}}"#)).collect();
    for properties in [
        r#"{"\"}; permit(principal, action, resource); //":{"type":"string"}}"#.to_owned(),
        r#"{"":{"type":"string"},"__entity":{"type":"string"},"__cedar::Long":{"type":"integer"},"\u0000":{"type":"boolean"}}"#.to_owned(),
        r##"{"a":{"$ref":"#/properties/a"},"b":{"$ref":"#"},"c":{"$ref":"http://x/"},"d":{"$ref":"#/nowhere"},"e":{"$ref":7}}"##.to_owned(),
        r#"{"a":7,"b":[],"c":{"type":{}},"d":{"type":[]},"e":{"enum":[]},"f":{"anyOf":[]},"g":{"type":"array","items":true}}"#.to_owned(),
        format!(r#"{{"a":{deep}}}"#),
        format!("{{{}}}", many.join(",")),
    ] {
        let mut world = world();
        world.tools.push(tool("shop/odd", &[Effect::Read], &properties, "[7,\"a\"]"));
        let text = rules(&["permit(principal, action == Action::\"shop/odd\", resource) when { context.unseen.isEmpty() };"]);
        let policy = Policy::load(&[source(&text)], &world).map_err(|errors| shown(&errors)).unwrap();
        let verdict = policy.judge(&call(agent("ann", &[]), "shop/odd", r#"{"zz":1}"#), &FACTS);
        assert_eq!(words(&verdict), "not permitted", "properties: {properties:.100}");
    }
}

/// One of every kind of load error, as a person sees it.
#[test]
#[rustfmt::skip]
fn load_errors() {
    insta::assert_snapshot!(errors_of("permit(principal, action, resource) whn { true };"), @r##"
    policies/test.cedar:1:37: invalid policy condition: whn
    hint: condition must be either `when` or `unless`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\") permit(principal == ?principal, action, resource);"), @r##"
    policies/test.cedar:1:44: the rule has a slot (`?principal` or `?resource`); a rule has to be complete
    hint: write one rule for each agent, or one for a group
    "##);
    insta::assert_snapshot!(errors_of("permit(principal, action, resource);"), @r##"
    policies/test.cedar:1:1: the rule has no name; write `@id("…")` before it
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a b\") permit(principal, action, resource);"), @r##"
    policies/test.cedar:1:1: the rule's `@id` cannot be used
      caused by: rule name `a b` is not 1 to 64 of a-z, A-Z, 0-9, `_`, `-` and `.`, starting with a letter or digit
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") permit(principal, action, resource);"), @r##"
    policies/test.cedar:1:1: rule `a` has no reason; write `@because("…")` before it
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\" \") permit(principal, action, resource);"), @r##"
    policies/test.cedar:1:1: rule `a` has no reason; write `@because("…")` before it
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\") permit(principal, action, resource);\n  @id(\"a\") @because(\"x\") forbid(principal, action, resource);"), @r##"
    policies/test.cedar:2:3: rule `a` is defined twice; the first is at policies/test.cedar:1:1
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\") @aks(\"owner\") permit(principal, action, resource);"), @r##"
    policies/test.cedar:1:1: rule `a` has an annotation `@aks`, which means nothing
    hint: rules have `@id`, `@because` and, to have a person asked, `@ask`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\") @ask(\"owner\") forbid(principal, action, resource);"), @r##"
    policies/test.cedar:1:1: rule `a` forbids and asks at once
    hint: write `permit` to have a person asked, or remove `@ask` to forbid
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\") @ask(\"ownr\") permit(principal, action, resource);"), @r##"
    policies/test.cedar:1:1: rule `a` asks `ownr`, but there is no such question
    hint: did you mean `owner`? questions: `finance`, `owner`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal == Agent::\"anm\", action, resource);"), @r##"
    policies/test.cedar:2:28: rule `a` names agent `anm`, which does not exist
    hint: did you mean `ann`? agents: `ann`, `bob`, `demo`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal in Group::\"ofice\", action, resource);"), @r##"
    policies/test.cedar:2:28: rule `a` names group `ofice`, which does not exist
    hint: did you mean `office`? groups: `office`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"demo/pay_invoise\", resource);"), @r##"
    policies/test.cedar:2:37: rule `a` names tool `demo/pay_invoise`, which does not exist
    hint: did you mean `demo/pay_invoice`? tools: `demo/delete_document`, `demo/pay_invoice`, `demo/read_document`, `demo/search_mail`, `demo/send_mail`, `shop/order`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action in Action::\"raed\", resource);"), @r##"
    policies/test.cedar:2:37: rule `a` names effect `raed`, which does not exist
    hint: did you mean `read`? effects: `delete`, `egress`, `execute`, `money`, `privilege`, `read`, `write`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action, resource == Server::\"dmo\");"), @r##"
    policies/test.cedar:2:47: rule `a` names server `dmo`, which does not exist
    hint: did you mean `demo`? servers: `demo`, `shop`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action, resource) when { principal == Agent::\"anm\" };"), @r##"
    policies/test.cedar:2:64: rule `a` names agent `anm`, which does not exist
    hint: did you mean `ann`? agents: `ann`, `bob`, `demo`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"read\", resource);"), @r##"
    policies/test.cedar:1:1: rule `a` can never match
    hint: an effect is never the action itself: write `action in Action::"read"`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal == Group::\"office\", action, resource);"), @r##"
    policies/test.cedar:1:1: rule `a` can never match
    hint: the principal is an agent: write `principal == Agent::"…"` or `principal in Group::"…"`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action, resource == Agent::\"ann\");"), @r##"
    policies/test.cedar:1:1: rule `a` can never match
    hint: the resource is a server: write `resource == Server::"…"`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal == User::\"ann\", action, resource);"), @r##"
    policies/test.cedar:1:1: rule `a` can never match
    hint: the principal is an agent: write `principal == Agent::"…"` or `principal in Group::"…"`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"demo/pay_invoice\", resource)\nwhen { context.args.amuont_cents < 5 };"), @r##"
    policies/test.cedar:3:21: rule `a` reads `context.args.amuont_cents`, which `demo/pay_invoice` does not have
    hint: did you mean `amount_cents`? arguments: `amount_cents`, `iban`, `reference`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\nforbid(principal, action == Action::\"demo/pay_invoice\", resource)\nwhen { context.args has amuont_cents && context.args.amuont_cents < 5 };"), @r##"
    policies/test.cedar:3:25: rule `a` reads `context.args.amuont_cents`, which `demo/pay_invoice` does not have
    hint: did you mean `amount_cents`? arguments: `amount_cents`, `iban`, `reference`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action in [Action::\"egress\", Action::\"money\"], resource)\nwhen { context.args.too == \"x\" };"), @r##"
    policies/test.cedar:3:21: rule `a` reads `context.args.too`, which none of the 3 actions it covers has
    hint: did you mean `to`? arguments: `address`, `amount_cents`, `body`, `count`, `gift`, `iban`, `price`, `reference`, `size`, `subject`, `tags`, `to`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action in Action::\"egress\", resource)\nwhen { context.args.to == \"x\" };"), @r##"
    policies/test.cedar:3:8: rule `a`: `context.args.to` is not there for `shop/order`
    hint: name the tools that have it, or write `context.args has to && …` before it
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"shop/order\", resource)\nwhen { context.args.free == 1 };"), @r##"
    policies/test.cedar:3:21: rule `a` reads `context.args.free`, which `shop/order` does not have
    hint: rules cannot see `free`: its schema is a union, free in form, or missing; when it is given, `context.unseen` has its name
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"shop/order\", resource)\nwhen { context.args.count == 1 };"), @r##"
    policies/test.cedar:3:8: rule `a`: `context.args.count` may be absent
    hint: write `context.args has count && …` before it
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"shop/order\", resource)\nwhen { context.args has address && context.args.address.cty == \"x\" };"), @r##"
    policies/test.cedar:3:57: rule `a` reads `context.args.address.cty`, which `shop/order` does not have
    hint: did you mean `city`? members: `city`, `floor`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action, resource)\nwhen { context.arg.x == 1 };"), @r##"
    policies/test.cedar:3:16: rule `a` reads `context.arg`, which none of the 16 actions it covers has
    hint: did you mean `args`? members: `args`, `session`, `time`, `unseen`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"shop/order\", resource)\nwhen { context.args.price < 5 };"), @r##"
    policies/test.cedar:3:8: rule `a`: unexpected type: expected Long but saw decimal
    hint: write `.lessThan(decimal("5.0"))` to compare such numbers
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"demo/pay_invoice\", resource)\nwhen { context.args.iban == 5 };"), @r##"
    policies/test.cedar:3:8: rule `a`: the types Long and String are not compatible
    hint: both operands to a `==` expression must have compatible types. Types must be exactly equal to be compatible
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action, resource)\nwhen { 1 == 2 };"), @r##"
    policies/test.cedar:1:1: rule `a` can never match
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"demo/pay_invoice\", resource)\nwhen { context.args.iban == \"p\u{430}ypal\" };"), @r##"
    policies/test.cedar:3:29: rule `a`: string `"p\u{430}ypal"` contains mixed scripts
    "##);
}
