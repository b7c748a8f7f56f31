//! What a gate is started with: configuration and policies, and the demo where it is open.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use toolgate_broker::assemble;
use toolgate_broker::config::{Config, Reach, Server};
use toolgate_broker::demo;
use toolgate_broker::person::{People, StateKey};
use toolgate_broker::rulebook::{QuestionRules, Rulebook};
use toolgate_broker::store::{AgentRow, Pin, SqliteStore};
use toolgate_core::json::{Document, Limits};
use toolgate_core::name::{ProfileName, ServerName, ToolName};
use toolgate_core::policy::{DEMO, PolicySource};
use toolgate_core::scrub::detect::Classes;
use toolgate_core::tool;

use crate::{demo_server, rules};

/// Who is asked about the demo's calls, if the configuration does not say: the name in the demo's rules.
const OWNER: &str = "owner";

/// Configuration and policies as they are in force. Where the demo is open, its server is among the configured ones, its
/// rules are among the policies, and its tools count as accepted in the form this very program offers them in.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) sources: Vec<PolicySource>,
    pub(crate) demo: bool,
}

impl Setup {
    /// With the demo if it is open.
    pub(crate) fn new(
        config: Config,
        sources: Vec<PolicySource>,
        agents: &[AgentRow],
    ) -> anyhow::Result<Self> {
        if demo::is_open(&config, agents) {
            Self::with_demo(config, sources)
        } else {
            Ok(Self::without_demo(config, sources))
        }
    }

    pub(crate) const fn without_demo(config: Config, sources: Vec<PolicySource>) -> Self {
        Self { config, sources, demo: false }
    }

    pub(crate) fn with_demo(mut config: Config, mut sources: Vec<PolicySource>) -> anyhow::Result<Self> {
        let server: ServerName = DEMO.parse()?;
        for (name, effect) in demo_server::EFFECTS {
            config.tools.insert(ToolName::new(server.clone(), name)?, [effect].into());
        }
        config.servers.insert(server, office()?);
        let asked = QuestionRules {
            people: [OWNER.parse()?].into(),
            quorum: 1,
            wait_ms: 120_000,
            expires_ms: 3_600_000,
        };
        config.questions.entry(OWNER.parse()?).or_insert(asked);
        // Its examples say what its rules do alone; beside others, a call can be permitted by those.
        let alone = sources.is_empty();
        sources.push(PolicySource { examples: rules::demo().examples.filter(|_| alone), ..rules::demo() });
        Ok(Self { config, sources, demo: true })
    }

    /// What is in force: this, the accepted tools, and the people.
    pub(crate) fn rulebook(&self, store: &SqliteStore, key: &StateKey) -> anyhow::Result<Rulebook> {
        let people = People::from_rows(&store.persons()?, key.clone())?;
        let pins = self.pins(store)?;
        Ok(assemble::rulebook(&self.config, &store.agents()?, &pins, people, &self.sources)?)
    }

    /// The accepted tools.
    pub(crate) fn pins(&self, store: &SqliteStore) -> anyhow::Result<Vec<Pin>> {
        let mut pins = store.pins()?;
        if self.demo {
            for definition in demo_server::tools() {
                pins.push(pin(&self.config, definition.to_string())?);
            }
        }
        Ok(pins)
    }
}

/// The demo's server: this very program.
fn office() -> anyhow::Result<Server> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    Ok(Server {
        reach: Reach::Command {
            program: program.display().to_string(),
            arguments: vec!["demo-server".to_owned()],
            env: [].into(),
            folder: None,
            profile: Some(ProfileName::of_servers()),
        },
        call_timeout: Duration::from_secs(30),
        start_timeout: Duration::from_secs(30),
        max_result_bytes: 1 << 20,
        scrub: Classes::default(),
        believed: None,
        secrets: BTreeSet::new(),
    })
}

fn pin(config: &Config, definition: String) -> anyhow::Result<Pin> {
    let document = Document::parse(definition.clone(), &Limits::default())?;
    let name = document.root().get("name").and_then(|name| name.as_str()).context("a tool without a name")?;
    let tool = ToolName::new(DEMO.parse()?, name)?;
    let digest = tool::pin(
        &document.root().canonical().map_err(|_number| anyhow::anyhow!("a number cannot be kept"))?,
    );
    let effects = config.tools.get(&tool).cloned().unwrap_or_else(tool::undeclared_effects);
    let definition = bytes::Bytes::from(definition);
    Ok(Pin {
        tool,
        definition,
        effects,
        digest,
        accepted_by: "the program itself".to_owned(),
        accepted_ms: 0,
    })
}
