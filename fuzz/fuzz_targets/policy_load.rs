//! Any policy and any examples: an answer, soon, and no panic; and what loads denies a call that no rule is about. The
//! input is the two texts, with a NUL between.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use toolgate_core::call::{Action, Agent, Call, Proof};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::ToolName;
use toolgate_core::policy::{ExamplesSource, Facts, KnownAgent, Policy, PolicySource, World, trial_call};
use toolgate_core::tool::{Effect, Tool, pin};
use toolgate_core::verdict::Verdict;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let definition = br#"{"name":"pay","inputSchema":{"type":"object","required":["to"],"properties":{
        "to":{"type":"string"},"cents":{"type":"integer"},"price":{"type":"number"},
        "tags":{"type":"array","items":{"type":"string"}}}}}"#;
    let definition = Document::parse(definition.as_slice(), &Limits::default()).unwrap();
    let pin = pin(&definition.root().canonical().unwrap());
    let name: ToolName = "bank/pay".parse().unwrap();
    World {
        agents: vec![KnownAgent { id: "ann".parse().unwrap(), groups: vec!["office".parse().unwrap()] }],
        servers: vec![name.server().clone()],
        tools: vec![Arc::new(Tool { name, effects: [Effect::Money].into(), definition, pin })],
        questions: ["owner".parse().unwrap()].into(),
    }
});

fn call(tool: &str) -> Call {
    let name: ToolName = tool.parse().unwrap();
    let agent =
        Agent { id: "ann".parse().unwrap(), groups: vec!["office".parse().unwrap()], proof: Proof::Bearer };
    let arguments =
        Document::parse(br#"{"cents":5,"price":0.5,"tags":["a"],"to":"x"}"#.as_slice(), &Limits::default());
    let arguments = arguments.unwrap().root().canonical().unwrap();
    let server = name.server().clone();
    trial_call(agent, Action::Tool(name), server, arguments)
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, examples) =
        text.split_once('\0').map_or((text, None), |(text, examples)| (text, Some(examples)));
    let source = PolicySource {
        path: "fuzz.cedar".to_owned(),
        text: text.to_owned(),
        examples: examples
            .map(|text| ExamplesSource { path: "fuzz.examples.toml".to_owned(), text: text.to_owned() }),
    };
    let policy = match Policy::load(&[source], &WORLD) {
        Ok(policy) => policy,
        Err(errors) => {
            assert!(!errors.errors.is_empty() && errors.errors.len() <= 20);
            return;
        }
    };
    let facts = Facts { now_ms: 0 };
    assert!(matches!(policy.judge(&call("bank/absent"), &facts), Verdict::Deny(_)));
    let call = call("bank/pay");
    let verdict = policy.judge(&call, &facts);
    assert_eq!(policy.explain(&call, &facts).verdict, verdict);
    let seen = policy.may_see(&call.agent, &call.server, &call.action);
    assert!(seen || matches!(verdict, Verdict::Deny(_)));
});
