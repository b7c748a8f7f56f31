//! Finding out which era a server is of, and agreeing on a version with it.

use hyper::header::HeaderValue;
use tokio::time::timeout;
use toolgate_broker::outcome::Answer;
use toolgate_core::json::{Document, ObjectWriter};

use super::config::Bounds;
use super::http::Agreed;
use super::link::{Event, Link, Outgoing, Pending, object};
use super::params::{client_info, own_meta};
use crate::rpc;

/// The modern version that is spoken.
pub(super) const MODERN: &str = "2026-07-28";
/// The legacy version that is offered.
const LEGACY: &str = "2025-11-25";
/// The legacy versions that are understood.
const LEGACY_KNOWN: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// What a server said about itself. Self-reported: never decides anything.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The protocol version that is spoken with it.
    pub version: String,
    /// Whether that is a modern one.
    pub modern: bool,
    /// Its capabilities: an object.
    pub capabilities: Document,
    /// Its `serverInfo`, if it gave one.
    pub info: Option<Document>,
    /// Its `instructions`, if it gave some.
    pub instructions: Option<String>,
}

impl Peer {
    /// Whether it has a capability, such as `resources`, and in it a flag, such as `subscribe`.
    #[must_use]
    pub fn can(&self, capability: &str, flag: Option<&str>) -> bool {
        let Some(found) = self.capabilities.root().get(capability).filter(|c| c.is_object()) else {
            return false;
        };
        flag.is_none_or(|flag| found.get(flag).and_then(|f| f.as_bool()) == Some(true))
    }

    fn read(result: &Document, modern: bool, version: &str) -> Self {
        let root = result.root();
        let info = match modern {
            true => root.path(&["_meta", "io.modelcontextprotocol/serverInfo"]),
            false => root.get("serverInfo"),
        };
        Self {
            version: version.to_owned(),
            modern,
            capabilities: root.get("capabilities").map_or_else(|| object("{}"), |c| c.to_document()),
            info: info.map(|info| info.to_document()),
            instructions: root.get("instructions").and_then(|i| i.as_str()).map(str::to_owned),
        }
    }
}

/// Why there is no agreement.
#[derive(Debug)]
pub(super) enum NoPeer {
    /// The connection broke while the server was asked for its era: it may be one of the other era that does not bear
    /// questions.
    BrokeOnProbe(String),
    /// The server has answered that it does not speak this era.
    Refused(String),
    /// Anything else.
    Other(String),
}

/// What a server's answer to `server/discover` says.
enum Probed {
    /// It refuses the version and names the same as the one to use. That is tried once more.
    Again,
    Broke(String),
    Legacy,
    Modern(Peer),
    No(String),
}

impl NoPeer {
    /// What happened.
    pub(super) fn why(self) -> String {
        match self {
            Self::BrokeOnProbe(why) | Self::Other(why) | Self::Refused(why) => why,
        }
    }
}

/// Which era is tried first. A server that speaks both is best spoken to in that of the agent: what it asks of the agent in
/// the course of a call then needs no translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Legacy,
    Modern,
}

impl First {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Legacy => Self::Modern,
            Self::Modern => Self::Legacy,
        }
    }
}

/// Agrees on a version with a server, in this era if it speaks it, and in the other if it does not.
pub(super) async fn agree(
    link: &Link,
    bounds: &Bounds,
    capabilities: &[u8],
    first: First,
) -> Result<Peer, NoPeer> {
    match first {
        First::Modern => discover(link, bounds, capabilities).await,
        First::Legacy => match initialize(link, capabilities).await {
            // If it is legacy after all, asking again does not help; but it may say why now.
            Err(NoPeer::Refused(_)) => discover(link, bounds, capabilities).await,
            agreed => agreed,
        },
    }
}

/// Asks a server for its era, and agrees on a version with it.
async fn discover(link: &Link, bounds: &Bounds, capabilities: &[u8]) -> Result<Peer, NoPeer> {
    match probe(link, bounds, capabilities).await? {
        Some(peer) => Ok(peer),
        None => probe(link, bounds, capabilities).await?.ok_or_else(|| {
            NoPeer::Other(format!("the server refuses version {MODERN}, and says that it supports it"))
        }),
    }
}

/// `None` if the server is to be asked again.
async fn probe(link: &Link, bounds: &Bounds, capabilities: &[u8]) -> Result<Option<Peer>, NoPeer> {
    let params = ObjectWriter::new().raw("_meta", &own_meta(capabilities).finish()).finish();
    let mut probe = start(link, "server/discover", &params).await?;
    let probed = match link {
        Link::Http(_) => probed(&last(&mut probe).await, true),
        // A legacy server may leave it unanswered for good, and a modern one may only be slow to start: so from
        // here on either answer counts.
        Link::Stdio(_) => match timeout(bounds.probe, last(&mut probe)).await {
            Ok(event) => probed(&event, false),
            Err(_elapsed) => {
                let legacy = initialize(link, capabilities);
                tokio::pin!(legacy);
                tokio::select! {
                    legacy = &mut legacy => return legacy.map(Some),
                    event = last(&mut probe) => match probed(&event, false) {
                        Probed::Legacy => return legacy.await.map(Some),
                        other => other,
                    },
                }
            }
        },
    };
    drop(probe);
    match probed {
        Probed::Again => Ok(None),
        Probed::Broke(why) => Err(NoPeer::BrokeOnProbe(why)),
        Probed::Legacy => initialize(link, capabilities).await.map(Some),
        Probed::Modern(peer) => {
            if let Link::Http(http) = link {
                http.agree(Agreed { modern: true, version: HeaderValue::from_static(MODERN), session: None });
            }
            Ok(Some(peer))
        }
        Probed::No(why) => Err(NoPeer::Other(why)),
    }
}

/// Opens a legacy session.
async fn initialize(link: &Link, capabilities: &[u8]) -> Result<Peer, NoPeer> {
    let params = ObjectWriter::new()
        .string("protocolVersion", LEGACY)
        .raw("capabilities", capabilities)
        .raw("clientInfo", &client_info())
        .finish();
    let mut pending = start(link, "initialize", &params).await?;
    let result = match last(&mut pending).await {
        Event::Answer(Answer::Result(result)) => result,
        other => {
            let why = format!("`initialize`: {}", describe(&other));
            return Err(match (other, link) {
                (Event::Status { code: 401 | 403 | 407, .. }, _) => NoPeer::Other(why),
                (Event::Answer(_) | Event::Status { code: 400..=499, .. }, _) => NoPeer::Refused(why),
                (Event::Lost(_), Link::Stdio(_)) => NoPeer::BrokeOnProbe(why),
                _ => NoPeer::Other(why),
            });
        }
    };
    let version = result.root().get("protocolVersion").and_then(|v| v.as_str()).unwrap_or_default();
    let Some(version) = LEGACY_KNOWN.into_iter().find(|known| *known == version) else {
        return Err(NoPeer::Refused(format!(
            "the server speaks version `{}`, which is not known here",
            version.escape_debug()
        )));
    };
    match (link, &mut pending) {
        (Link::Http(http), Pending::Http(pending)) => {
            let session = pending.take_session();
            http.agree(Agreed { modern: false, version: HeaderValue::from_static(version), session });
            http.initialized().await.map_err(NoPeer::Other)?;
        }
        (Link::Stdio(holder), _) => {
            // Written here and not queued: it has to come before the first call.
            let told = holder.0.write(rpc::notification("notifications/initialized", None)).await;
            told.map_err(|failure| NoPeer::Other(describe(&failure.into())))?;
        }
        (Link::Http(_), Pending::Stdio(_)) => {}
    }
    Ok(Peer::read(&result, false, version))
}

async fn start(link: &Link, method: &str, params: &[u8]) -> Result<Pending, NoPeer> {
    let outgoing = Outgoing {
        number: link.next_number(),
        method,
        params,
        name: None,
        mirrored: Vec::new(),
        call: false,
    };
    link.start(outgoing).await.map_err(|failure| NoPeer::Other(describe(&failure.into())))
}

/// Waits for what ends a request of our own.
pub(super) async fn last(pending: &mut Pending) -> Event {
    loop {
        match pending.next().await {
            Event::Ask(_) | Event::Notice(_) => {}
            end => return end,
        }
    }
}

fn probed(event: &Event, http: bool) -> Probed {
    match event {
        Event::Answer(Answer::Result(result)) => {
            let Some(versions) = result.root().get("supportedVersions").filter(|v| v.is_array()) else {
                return Probed::Legacy;
            };
            let names: Vec<_> = versions.elements().filter_map(|v| v.as_str()).collect();
            if names.contains(&MODERN) {
                return Probed::Modern(Peer::read(result, true, MODERN));
            }
            supported(&names)
        }
        Event::Answer(Answer::Error(error)) => of_error(error),
        Event::Status { code: 401 | 403 | 407, .. } => Probed::No(describe(event)),
        Event::Status { code: 400..=499, error: Some(error) } => match of_error(error) {
            // A modern server says so when it refuses for another reason; that is no fallback.
            Probed::Legacy if is_modern(error) => Probed::No(describe(event)),
            other => other,
        },
        Event::Status { code: 400..=499, error: None } => Probed::Legacy,
        Event::Lost(why) if !http => Probed::Broke(why.clone()),
        Event::Lost(_) | Event::NotSent(_) | Event::Status { .. } => Probed::No(describe(event)),
        Event::Ask(_) | Event::Notice(_) => Probed::No("no answer".to_owned()),
    }
}

fn of_error(error: &Document) -> Probed {
    if error.root().get("code").and_then(|code| code.as_i64()) != Some(rpc::UNSUPPORTED_VERSION) {
        return Probed::Legacy;
    }
    let names: Vec<_> = error
        .root()
        .path(&["data", "supported"])
        .map(|list| list.elements().filter_map(|v| v.as_str()).collect())
        .unwrap_or_default();
    supported(&names)
}

fn is_modern(error: &Document) -> bool {
    let code = error.root().get("code").and_then(|code| code.as_i64());
    matches!(code, Some(rpc::HEADER_MISMATCH | rpc::MISSING_CAPABILITY))
}

/// A server that names its versions is not guessed about: one of those it names is taken, or none.
fn supported(names: &[&str]) -> Probed {
    if names.contains(&MODERN) {
        return Probed::Again;
    }
    if names.iter().any(|name| LEGACY_KNOWN.contains(name)) {
        return Probed::Legacy;
    }
    let shown: Vec<_> = names.iter().take(8).map(|name| name.escape_debug().to_string()).collect();
    Probed::No(format!("the server supports only versions that are not known here: {}", shown.join(", ")))
}

/// What happened, for operators.
pub(super) fn describe(event: &Event) -> String {
    let said = |error: &Document| {
        let message = error.root().get("message").and_then(|m| m.as_str()).unwrap_or_default();
        message.chars().take(200).collect::<String>().escape_debug().to_string()
    };
    match event {
        Event::Answer(Answer::Error(error)) => format!("the server answered with an error: {}", said(error)),
        Event::Answer(Answer::Result(_)) => "the server answered".to_owned(),
        Event::Ask(_) | Event::Notice(_) => "the server did not answer".to_owned(),
        Event::Lost(why) | Event::NotSent(why) => why.clone(),
        Event::Status { code, error: Some(error) } => {
            format!("the server answered HTTP {code}: {}", said(error))
        }
        Event::Status { code, error: None } => format!("the server answered HTTP {code}"),
    }
}
