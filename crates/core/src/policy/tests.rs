//! Tests of the whole module: verdicts, load errors and properties.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use super::*;
use crate::call::{Carries, Proof};
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
        Verdict::Deny(DenyReason::Carries) => "carries a secret".to_owned(),
        Verdict::Deny(DenyReason::Forbidden { rule, .. }) => format!("forbidden {rule}"),
        Verdict::Deny(DenyReason::Honeytoken) => "honeytoken".to_owned(),
        Verdict::Deny(DenyReason::Inexpressible { argument }) => format!("inexpressible {argument}"),
        Verdict::Deny(DenyReason::NotPermitted) => "not permitted".to_owned(),
    }
}

fn judged(conditions: &[&str], who: Agent, tool: &str, arguments: &str) -> String {
    let policy = load(&rules(conditions)).unwrap();
    words(&policy.judge(&call(who, tool, arguments), &FACTS))
}

/// A secret leaves only by a rule that says so, and a honeytoken by none.
#[test]
fn what_a_call_carries_is_held_back() {
    const PERMIT: &str = "permit(principal, action, resource);";
    const ALLOWS: &str = "@carries(\"allow\") permit(principal, action, resource);";
    const ASKS: &str = "@ask(\"owner\") permit(principal, action, resource);";
    const ASKS_AND_ALLOWS: &str = "@carries(\"allow\") @ask(\"owner\") permit(principal, action, resource);";
    const NO_CARDS: &str =
        "forbid(principal, action, resource) when { context.carries.kinds.contains(\"pii.card\") };";
    const NO_SECRETS: &str = "forbid(principal, action, resource) when { context.carries.secret };";
    const NO_DECOYS: &str = "forbid(principal, action, resource) when { context.carries.honeytoken };";
    const MAIL: (&str, &str) = ("demo/send_mail", r#"{"to":"a","subject":"b","body":"c"}"#);
    const SEARCH: (&str, &str) = ("demo/search_mail", r#"{"query":"a"}"#);
    for (conditions, (tool, arguments), kinds, want) in [
        (&[PERMIT][..], MAIL, &[][..], "allow r0"),
        (&[PERMIT], MAIL, &["github-pat"], "carries a secret"),
        (&[PERMIT], MAIL, &["vault:github"], "carries a secret"),
        (&[PERMIT], MAIL, &[Carries::UNSEARCHABLE], "carries a secret"),
        (&[PERMIT], MAIL, &["pii.card"], "allow r0"),
        (&[PERMIT], SEARCH, &["github-pat"], "allow r0"),
        (&[], MAIL, &["github-pat"], "not permitted"),
        (&[ALLOWS], MAIL, &["github-pat"], "allow r0"),
        (&[PERMIT, ALLOWS], MAIL, &["github-pat"], "allow r0 r1"),
        (&[ASKS], MAIL, &["github-pat"], "carries a secret"),
        // That it may leave takes no question away.
        (&[ASKS, ALLOWS], MAIL, &["github-pat"], "ask owner r0"),
        (&[ASKS_AND_ALLOWS], MAIL, &["github-pat"], "ask owner r0"),
        (&[ALLOWS, NO_CARDS], MAIL, &["github-pat"], "allow r0"),
        (&[ALLOWS, NO_CARDS], MAIL, &["pii.card"], "forbidden r1"),
        (&[ALLOWS, NO_SECRETS], SEARCH, &["github-pat"], "forbidden r1"),
        (&[ALLOWS, NO_SECRETS], SEARCH, &["pii.card"], "allow r0"),
        (&[ALLOWS], SEARCH, &[Carries::HONEYTOKEN], "honeytoken"),
        (&[ALLOWS], MAIL, &["vault:decoy", Carries::HONEYTOKEN], "honeytoken"),
        (&[ALLOWS, NO_DECOYS], MAIL, &[Carries::HONEYTOKEN], "forbidden r1"),
        (&[], SEARCH, &[Carries::HONEYTOKEN], "honeytoken"),
    ] {
        let policy = load(&rules(conditions)).unwrap();
        let mut call = call(agent("ann", &[]), tool, arguments);
        call.carries = Carries::new(kinds.iter().map(|kind| (*kind).to_owned()).collect());
        assert_eq!(words(&policy.judge(&call, &FACTS)), want, "{conditions:?} {tool} {kinds:?}");
        assert_eq!(words(&policy.explain(&call, &FACTS).verdict), want, "{conditions:?} {tool} {kinds:?}");
    }
    // What is no tool has no declared effects; what is sent to its server leaves, what it asks of the agent does not.
    let policy = load(&rules(&[PERMIT])).unwrap();
    for (action, arguments, want) in [
        (Action::ReadResource, r#"{"uri":"a"}"#, "carries a secret"),
        (Action::GetPrompt, r#"{"name":"a"}"#, "carries a secret"),
        (Action::Elicit, r#"{"message":"a"}"#, "allow r0"),
    ] {
        let mut call = trial_call(agent("ann", &[]), action, "demo".parse().unwrap(), canonical(arguments));
        call.carries = Carries::new(["password".to_owned()].into());
        assert_eq!(words(&policy.judge(&call, &FACTS)), want, "{}", call.action);
    }
    for (condition, expect) in [(PERMIT, "deny"), (ALLOWS, "allow")] {
        let example = |carries: &str, expect: &str| {
            format!(
                "[[example]]\nagent = \"ann\"\neffects = [\"egress\"]\ncarries = [{carries}]\nexpect = \"{expect}\"\n"
            )
        };
        let text = format!("{}{}", example("", "allow"), example("\"password\"", expect));
        let examples = ExamplesSource { path: "test.examples.toml".to_owned(), text };
        let source = PolicySource {
            path: "test.cedar".to_owned(),
            text: rules(&[condition]),
            examples: Some(examples),
        };
        let loaded = Policy::load(&[source], &world()).map(|_policy| ()).map_err(|errors| shown(&errors));
        assert_eq!(loaded, Ok(()), "{condition}");
    }
    for wrong in ["@carries(\"deny\") permit", "@carries(\"allow\") forbid", "@carries permit"] {
        let shown = errors_of(&rules(&[&format!("{wrong}(principal, action, resource);")]));
        assert!(shown.contains("is not `@carries(\"allow\")` of a `permit`"), "{wrong}: {shown}");
    }
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
        let policy = Policy::load(std::slice::from_ref(&source), &world()).map_err(|errors| shown(&errors));
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

/// Whoever connects may be it, so no rule can give it more.
#[test]
fn the_demo_agent_has_the_demo_server_and_nothing_else() {
    let policy = load(&rules(&[
        "permit(principal, action, resource);",
        "permit(principal == Agent::\"demo\", action, resource == Server::\"shop\");",
    ]))
    .unwrap();
    for (proof, tool, want) in [
        (Proof::Demo, "demo/search_mail", true),
        (Proof::Demo, "shop/order", false),
        (Proof::Bearer, "shop/order", true),
    ] {
        let call = call(Agent { proof, ..agent("demo", &[]) }, tool, r#"{"price":1}"#);
        let at = format!("{:?} {tool}", call.agent.proof);
        assert_eq!(policy.may_see(&call.agent, &call.server, &call.action), want, "{at}");
        assert_eq!(words(&policy.judge(&call, &FACTS)).starts_with("allow"), want, "{at}");
        assert_eq!(words(&policy.explain(&call, &FACTS).verdict).starts_with("allow"), want, "{at}");
    }
    let agent = Agent { proof: Proof::Demo, ..agent("demo", &[]) };
    assert!(!policy.may_see(&agent, &"shop".parse().unwrap(), &Action::ReadResource));
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
    insta::assert_snapshot!(errors_of("permit(principal, action, resource);"), @r##"policies/test.cedar:1:1: the rule has no name; write `@id("…")` before it"##);
    insta::assert_snapshot!(errors_of("@id(\"a b\") permit(principal, action, resource);"), @r##"
    policies/test.cedar:1:1: the rule's `@id` cannot be used
      caused by: rule name `a b` is not 1 to 64 of a-z, A-Z, 0-9, `_`, `-` and `.`, starting with a letter or digit
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") permit(principal, action, resource);"), @r##"policies/test.cedar:1:1: rule `a` has no reason; write `@because("…")` before it"##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\" \") permit(principal, action, resource);"), @r##"policies/test.cedar:1:1: rule `a` has no reason; write `@because("…")` before it"##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\") permit(principal, action, resource);\n  @id(\"a\") @because(\"x\") forbid(principal, action, resource);"), @r##"policies/test.cedar:2:3: rule `a` is defined twice; the first is at policies/test.cedar:1:1"##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\") @aks(\"owner\") permit(principal, action, resource);"), @r##"
    policies/test.cedar:1:1: rule `a` has an annotation `@aks`, which means nothing
    hint: rules have `@id`, `@because`, to have a person asked `@ask`, and to let secrets out `@carries`
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
    hint: did you mean `args`? members: `args`, `carries`, `session`, `time`, `unseen`
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"shop/order\", resource)\nwhen { context.args.price < 5 };"), @r##"
    policies/test.cedar:3:8: rule `a`: unexpected type: expected Long but saw decimal
    hint: write `.lessThan(decimal("5.0"))` to compare such numbers
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"demo/pay_invoice\", resource)\nwhen { context.args.iban == 5 };"), @r##"
    policies/test.cedar:3:8: rule `a`: the types Long and String are not compatible
    hint: both operands to a `==` expression must have compatible types. Types must be exactly equal to be compatible
    "##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action, resource)\nwhen { 1 == 2 };"), @r##"policies/test.cedar:1:1: rule `a` can never match"##);
    insta::assert_snapshot!(errors_of("@id(\"a\") @because(\"x\")\npermit(principal, action == Action::\"demo/pay_invoice\", resource)\nwhen { context.args.iban == \"p\u{430}ypal\" };"), @r##"policies/test.cedar:3:29: rule `a`: string `"p\u{430}ypal"` contains mixed scripts"##);
}

fn with_examples(text: &str, examples: &str) -> String {
    let examples =
        ExamplesSource { path: "policies/test.examples.toml".to_owned(), text: examples.to_owned() };
    match Policy::load(&[PolicySource { examples: Some(examples), ..source(text) }], &world()) {
        Ok(policy) => policy.warnings().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        Err(errors) => shown(&errors),
    }
}

#[test]
fn load_errors_in_examples() {
    let text = "@id(\"reads\") @because(\"x\")\npermit(principal, action in Action::\"read\", resource);\n\n\
         @id(\"mail\") @because(\"y\") @ask(\"owner\")\npermit(principal, action in Action::\"egress\", resource);";
    let good = "[[example]]\nagent = \"ann\"\ntool = \"demo/search_mail\"\nargs = { query = \"x\" }\nexpect = \"allow\"\n\
         [[example]]\nagent = \"ann\"\ntool = \"demo/send_mail\"\nexpect = \"ask\"\nrule = \"mail\"\n";
    for (examples, want) in [
        (good.to_owned(), ""),
        (
            String::new(),
            "policies/test.cedar:1:1: rule `reads` decides no example in `policies/test.examples.toml`\n\
          hint: add an `[[example]]` with `rule = \"reads\"` that shows what it is for\n\
          policies/test.cedar:4:1: rule `mail` decides no example in `policies/test.examples.toml`\n\
          hint: add an `[[example]]` with `rule = \"mail\"` that shows what it is for\n",
        ),
        (
            format!("{good}[[example]]\nagent = \"ann\"\ntool = \"demo/send_mail\"\nexpect = \"allow\"\n"),
            "the example on line 11 of `policies/test.examples.toml` fails\n  \
            caused by: `demo/send_mail` was expected to be allowed, but rule `mail` asks `owner`\n",
        ),
        (
            format!(
                "{good}\n\n[[example]]\nagent = \"ann\"\ntool = \"demo/search_mail\"\nexpect = \"ask\"\nrule = \"mail\"\n"
            ),
            "rule `mail` in `policies/test.cedar` fails its example on line 13\n  \
            caused by: `demo/search_mail` was expected to be asked about, but rule `reads` permits it\n\
          hint: `toolgate policy explain --agent AGENT TOOL 'ARGUMENTS'` shows every rule that matched\n",
        ),
        (
            format!(
                "{good}[[example]]\nagent = \"ann\"\ntool = \"demo/search_mail\"\nexpect = \"allow\"\nrule = \"mail\"\n"
            ),
            "rule `mail` in `policies/test.cedar` fails its example on line 11\n  \
            caused by: `demo/search_mail` was expected to be allowed because of rule `mail`, but rule `reads` permits it\n\
          hint: `toolgate policy explain --agent AGENT TOOL 'ARGUMENTS'` shows every rule that matched\n",
        ),
        (
            format!(
                "{good}[[example]]\nagent = \"ann\"\neffects = [\"money\", \"write\"]\nexpect = \"ask\"\n"
            ),
            "the example on line 11 of `policies/test.examples.toml` fails\n  \
            caused by: any tool with `money`, `write` was expected to be asked about, but no rule permits it\n",
        ),
        (
            format!("{good}[[example]]\nagent = \"ann\"\ntool = \"demo/sarch_mail\"\nexpect = \"deny\"\n"),
            "policies/test.examples.toml:11:1: there is no accepted tool `demo/sarch_mail`; did you mean `demo/search_mail`? \
          tools: `demo/delete_document`, `demo/pay_invoice`, `demo/read_document`, `demo/search_mail`, `demo/send_mail`, `shop/order`\n",
        ),
        (
            format!(
                "{good}[[example]]\nagent = \"ann\"\naction = \"resources/raed\"\nserver = \"demo\"\nexpect = \"deny\"\n"
            ),
            "policies/test.examples.toml:11:1: there is no action `resources/raed`; did you mean `resources/read`? \
          actions: `completion/complete`, `elicitation/create`, `prompts/get`, `resources/read`, `resources/subscribe`, \
          `roots/list`, `sampling/createMessage`, `tasks/cancel`, `tasks/get`, `tasks/update`\n",
        ),
        (
            format!("{good}[[example]]\nagent = \"ann\"\neffects = [\"mony\"]\nexpect = \"deny\"\n"),
            "policies/test.examples.toml:11:1: `mony` is no effect; the effects are delete, egress, execute, money, privilege, read and write\n",
        ),
        (
            format!("{good}[[example]]\nagent = \"ann\"\nexpect = \"deny\"\n"),
            "policies/test.examples.toml:11:1: an example has either `tool`, or `action` and `server`, or `effects` and perhaps `server`\n",
        ),
        (
            format!(
                "{good}[[example]]\nagent = \"ann\"\neffects = []\nexpect = \"deny\"\nrule = \"raeds\"\n"
            ),
            "policies/test.examples.toml:11:1: there is no rule `raeds`; did you mean `reads`? rules: `mail`, `reads`\n",
        ),
        (
            format!("{good}[[example]]\nagent = \"a b\"\neffects = []\nexpect = \"deny\"\n"),
            "policies/test.examples.toml:11:1: agent name `a b` is not 1 to 64 of a-z, A-Z, 0-9, `_`, `-` and `.`, starting with a letter or digit\n",
        ),
        (
            format!(
                "{good}[[example]]\nagent = \"ann\"\neffects = []\nexpect = \"deny\"\nargs = {{ at = 2001-01-01 }}\n"
            ),
            "policies/test.examples.toml:11:1: `2001-01-01` has no JSON form; write it as a string\n",
        ),
        (
            format!("{good}[[example]]\nagnt = \"ann\"\nexpect = \"deny\"\n"),
            "policies/test.examples.toml:12:1: unknown field `agnt`, expected one of `agent`, `groups`, `tool`, `action`, `server`, `effects`, `args`, `carries`, `session`, `time`, `expect`, `rule`\n",
        ),
        (
            format!("{good}[[example]\n"),
            "policies/test.examples.toml:11:11: unclosed array table, expected `]`\n",
        ),
    ] {
        assert_eq!(with_examples(text, &examples), want, "examples: {examples}");
    }
}

#[test]
fn warnings() {
    let text = "@id(\"a\") @because(\"x\") @ask(\"owner\") permit(principal, action in Action::\"egress\", resource);\n\
         @id(\"b\") @because(\"x\") @ask(\"finance\") permit(principal, action, resource == Server::\"shop\");\n";
    let nothing = "@id(\"c\") @because(\"x\") permit(principal, action in Action::\"execute\", resource);";
    let example =
        "[[example]]\nagent = \"ann\"\ntool = \"shop/order\"\nargs = { price = 1 }\nexpect = \"ask\"\n";
    assert_eq!(
        with_examples(text, example),
        "policies/test.examples.toml:1:1: rules `a` and `b` both ask; `owner` is asked, as that rule is written first"
    );
    let policy = load(nothing).unwrap();
    let shown: Vec<_> = policy.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "policies/test.cedar:1:1: rule `c` covers no accepted tool",
            "`policies/test.cedar` has no examples; write them to `policies/test.examples.toml`",
        ]
    );
}

#[test]
fn errors_are_listed_up_to_a_bound_and_in_order() {
    let text = "permit(principal, action, resource);\n".repeat(50);
    let errors = load(&text).unwrap_err();
    assert_eq!((errors.errors.len(), errors.left_out), (20, 30));
    assert_eq!(errors.to_string(), "the policy cannot be used: 50 errors");
    assert!(errors.errors.is_sorted_by_key(|error| error.place().line));
}

#[test]
fn what_is_too_large_or_too_deep_is_refused_before_it_is_parsed() {
    let rule = |condition: &str| {
        format!("@id(\"a\") @because(\"x\") permit(principal, action, resource) when {{ {condition} }};")
    };
    for text in [
        rule(&format!("{}true{}", "(".repeat(40), ")".repeat(40))),
        rule(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))),
        rule(&vec!["true"; 20_000].join(" && ")),
        "(".repeat(200_000),
        " ".repeat((1 << 20) + 1),
    ] {
        let errors = load(&text).unwrap_err().errors;
        assert!(matches!(errors[..], [LoadPolicyError::TooLarge { .. }]), "{errors:?}");
    }
    for condition in [
        format!("{}true{}", "(".repeat(20), ")".repeat(20)),
        // What stands in a text or a comment is no parenthesis.
        format!("\"{}\" != \"\\\"((\" // {}\n", "(".repeat(500), "\"[{(".repeat(500)),
    ] {
        assert_eq!(load(&rule(&condition)).map(|_| ()).map_err(|errors| shown(&errors)), Ok(()));
    }
    // The longest chains that are allowed do not overflow the stack of whoever reads or judges them.
    for condition in [
        format!("context.time > 1{}", " && true".repeat(190)),
        format!("context.time{} > 1", " + 1".repeat(390)),
        format!("{}true{}", "if context.time > 1 then ".repeat(75), " else false".repeat(75)),
    ] {
        let policy = load(&rule(&condition)).map_err(|errors| shown(&errors)).unwrap();
        let verdict = policy.judge(&call(agent("ann", &[]), "demo/search_mail", "{}"), &FACTS);
        assert!(matches!(words(&verdict).as_str(), "allow a" | "broken a"), "{verdict:?}");
    }
}

/// The pieces that the properties put rules together from.
mod property {
    use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request};
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    const PRINCIPALS: [&str; 6] = [
        "principal",
        "principal == Agent::\"ann\"",
        "principal == Agent::\"bob\"",
        "principal in Group::\"office\"",
        "principal is Agent in Group::\"office\"",
        "principal is Agent",
    ];
    const ACTIONS: [&str; 7] = [
        "action",
        "action in Action::\"read\"",
        "action in Action::\"egress\"",
        "action in [Action::\"egress\", Action::\"write\"]",
        "action in [Action::\"shop/order\", Action::\"write\", Action::\"write\"]",
        "action == Action::\"shop/order\"",
        "action == Action::\"demo/search_mail\"",
    ];
    const RESOURCES: [&str; 4] =
        ["resource", "resource == Server::\"demo\"", "resource in Server::\"shop\"", "resource is Server"];
    const CONDITIONS: [&str; 13] = [
        "",
        "when { context.time > 1700000000 }",
        "when { context.time < 1700000001 }",
        "unless { principal in Group::\"office\" }",
        "when { context.unseen.isEmpty() }",
        "when { action in Action::\"write\" && resource == Server::\"shop\" }",
        "when { context.args has count && context.args.count > 2 }",
        "when { context.args has query && context.args.query like \"a*\" }",
        "when { context.time + 9223372036854775807 > 0 }",
        "when { context.args has price && context.args.price.lessThan(decimal(\"1.5\")) }",
        "unless { [\"shop\", \"x\"].contains(context.session.id) || context.time <= 0 }",
        "when { if context.unseen.contains(\"free\") then context.time == 1700000000 else false }",
        "when { context has session && !(context.session.id == \"\") } unless { context.time < 5 }",
    ];
    const CALLS: [(&str, &str); 4] = [
        ("demo/search_mail", r#"{"query":"abc"}"#),
        ("shop/order", r#"{"price":1.5,"count":3}"#),
        ("shop/order", r#"{"price":1.5,"count":1,"free":1}"#),
        ("demo/send_mail", r#"{"to":"a","subject":"b","body":"c"}"#),
    ];

    /// Rules without their names, some of all combinations. Those that can never match, or read what nothing
    /// that they cover has, are left out: no policy with them is loaded.
    static RULES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut all = Vec::new();
        for effect in ["permit", "@ask(\"owner\") permit", "@ask(\"finance\") permit", "forbid"] {
            for principal in PRINCIPALS {
                for action in ACTIONS {
                    for resource in RESOURCES {
                        for condition in CONDITIONS {
                            all.push(format!("{effect}({principal}, {action}, {resource}) {condition};"));
                        }
                    }
                }
            }
        }
        // A stride without common factors with the loops above meets every piece.
        all.into_iter().step_by(97).filter(|rule| load(&rules(&[rule])).is_ok()).collect()
    });

    fn rule() -> impl Strategy<Value = String> {
        prop::sample::select(RULES.as_slice())
    }

    fn who() -> impl Strategy<Value = Agent> {
        (
            prop::sample::select(vec!["ann", "bob", "eve"]),
            prop::sample::select(vec![&[][..], &["office"], &["x", "office"]]),
        )
            .prop_map(|(id, groups)| agent(id, groups))
    }

    fn loaded(all: &[String]) -> Policy {
        load(&rules(&all.iter().map(String::as_str).collect::<Vec<_>>())).unwrap()
    }

    /// The same decision by Cedar alone: every rule, every entity, the whole context.
    fn by_cedar_alone(policy: &Policy, call: &Call) -> (Decision, usize, Vec<String>) {
        let uid = |text: String| text.parse::<EntityUid>().unwrap();
        let set = PolicySet::from_policies(policy.rules().iter().map(|rule| rule.policy.clone())).unwrap();
        let groups = call.agent.groups.iter().map(|group| uid(format!("Group::\"{group}\""))).collect();
        let principal = uid(format!("Agent::\"{}\"", call.agent.id));
        let schema = cedar_policy::Schema::from_json_value(policy.schema()).unwrap();
        let agent = cedar_policy::Entity::new_no_attrs(principal.clone(), groups);
        let entities = Entities::from_entities([agent], Some(&schema)).unwrap();
        let args: serde_json::Value = serde_json::from_slice(call.arguments.as_bytes()).unwrap();
        let mut shown = serde_json::Map::new();
        let mut unseen = Vec::new();
        for (name, value) in args.as_object().unwrap() {
            match name.as_str() {
                "free" => unseen.push(name.clone()),
                // A decimal has a form of its own there.
                "price" => {
                    let text = value.to_string();
                    shown.insert(
                        name.clone(),
                        serde_json::json!({ "__extn": { "fn": "decimal", "arg": text } }),
                    );
                }
                _ => {
                    shown.insert(name.clone(), value.clone());
                }
            }
        }
        let action = uid(format!("Action::\"{}\"", call.action));
        let context = serde_json::json!({
            "carries": { "honeytoken": false, "kinds": [], "secret": false },
            "args": shown, "unseen": unseen, "time": 1_700_000_000, "session": { "id": call.session },
        });
        let context = Context::from_json_value(context, Some((&schema, &action))).unwrap();
        let resource = uid(format!("Server::\"{}\"", call.server));
        let request = Request::new(principal, action, resource, context, Some(&schema)).unwrap();
        let response = Authorizer::new().is_authorized(&request, &set, &entities);
        let mut reasons: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        reasons.sort();
        (response.decision(), response.diagnostics().errors().count(), reasons)
    }

    /// How strict a verdict is.
    fn rank(verdict: &Verdict) -> u8 {
        match verdict {
            Verdict::Allow(_) => 0,
            Verdict::Ask(_) => 1,
            Verdict::Deny(_) => 2,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

        /// Looking only at the rules that the index finds, and showing them only what they read, changes nothing.
        #[test]
        fn the_index_changes_no_verdict(all in prop::collection::vec(rule(), 0..10), who in who()) {
            let policy = loaded(&all);
            for (tool, arguments) in CALLS {
                let call = call(who.clone(), tool, arguments);
                let verdict = policy.judge(&call, &FACTS);
                let (decision, broken, reasons) = by_cedar_alone(&policy, &call);
                match &verdict {
                    Verdict::Deny(DenyReason::Broken { .. }) => prop_assert!(broken > 0),
                    Verdict::Deny(DenyReason::Forbidden { rule, .. }) => {
                        prop_assert_eq!((decision, broken), (Decision::Deny, 0));
                        prop_assert!(reasons.contains(&rule.to_string()));
                    }
                    Verdict::Deny(DenyReason::NotPermitted) => {
                        prop_assert_eq!((decision, broken, reasons.len()), (Decision::Deny, 0, 0));
                    }
                    // Nothing that is carried is among the calls.
                    Verdict::Deny(
                        DenyReason::Carries | DenyReason::Honeytoken | DenyReason::Inexpressible { .. },
                    ) => prop_assert!(false, "{:?}", verdict),
                    Verdict::Ask(asked) => {
                        prop_assert_eq!((decision, broken), (Decision::Allow, 0));
                        prop_assert!(reasons.contains(&asked.rule.to_string()));
                    }
                    Verdict::Allow(allowed) => {
                        prop_assert_eq!((decision, broken), (Decision::Allow, 0));
                        let mut rules: Vec<_> = allowed.rules.iter().map(ToString::to_string).collect();
                        rules.sort();
                        prop_assert_eq!(rules, reasons);
                    }
                }
            }
        }

        /// A rule that is added never loosens, unless it is a plain `permit`, or an `@ask` where nothing permitted.
        #[test]
        fn a_forbid_never_loosens(all in prop::collection::vec(rule(), 0..6), more in rule(), who in who()) {
            prop_assume!(!more.starts_with("permit"));
            let before = loaded(&all);
            let after = loaded(&[all.as_slice(), std::slice::from_ref(&more)].concat());
            for (tool, arguments) in CALLS {
                let call = call(who.clone(), tool, arguments);
                let (before, after) = (before.judge(&call, &FACTS), after.judge(&call, &FACTS));
                if more.starts_with("forbid") || matches!(before, Verdict::Allow(_) | Verdict::Ask(_)) {
                    prop_assert!(rank(&before) <= rank(&after), "{:?} became {:?}", before, after);
                }
            }
        }

        /// What is not denied can be seen; what cannot be seen is denied. An explanation agrees with the verdict.
        #[test]
        fn what_one_may_use_one_may_see(all in prop::collection::vec(rule(), 0..6), who in who()) {
            let policy = loaded(&all);
            for (tool, arguments) in CALLS {
                let call = call(who.clone(), tool, arguments);
                let verdict = policy.judge(&call, &FACTS);
                prop_assert!(rank(&verdict) == 2 || policy.may_see(&call.agent, &call.server, &call.action));
                prop_assert_eq!(policy.explain(&call, &FACTS).verdict, verdict);
            }
        }
    }

    #[test]
    fn without_rules_everything_is_denied() {
        let policy = Policy::load(&[], &world()).unwrap();
        for (tool, arguments) in CALLS {
            let call = call(agent("ann", &["office"]), tool, arguments);
            assert_eq!(policy.judge(&call, &FACTS), Verdict::Deny(DenyReason::NotPermitted));
            assert!(!policy.may_see(&call.agent, &call.server, &call.action));
        }
        for (action, _) in vocabulary::OTHER_ACTIONS {
            let call = trial_call(agent("ann", &[]), action, "demo".parse().unwrap(), canonical("{}"));
            assert_eq!(policy.judge(&call, &FACTS), Verdict::Deny(DenyReason::NotPermitted));
        }
    }
}
