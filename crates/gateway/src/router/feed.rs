//! What agents are told of changes.

use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use toolgate_broker::outcome::Answer;
use toolgate_broker::port::AgentLine;
use toolgate_core::call::Action;
use toolgate_core::json::{Document, Edit, Limits, ObjectWriter, quote};
use toolgate_core::name::ServerName;

use super::{Caller, Done, Fault, Router, visible};
use crate::line::Line;
use crate::port::{Change, Offer, Servers};
use crate::rpc::{self, Id};
use crate::session::Session;

/// How many resources one `subscriptions/listen` may name.
const MAX_LISTEN_URIS: usize = 64;

const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// What a `subscriptions/listen` holds, and what its messages say about it; `None` for a session of before.
type Listening<'a> = Option<(&'a [(String, ServerName)], &'a [u8])>;

impl Router {
    /// `subscriptions/listen`: the acknowledgement first, then what changes, until the agent or the gate ends it.
    pub(super) async fn listen(
        self: &Arc<Self>,
        caller: &Caller,
        id: &Id,
        params: Option<&Document>,
        line: &Arc<Line>,
    ) -> Result<Done, Fault> {
        let wanted =
            params.and_then(|params| params.root().get("notifications")).filter(|wanted| wanted.is_object());
        let (Some(params), Some(wanted)) = (params, wanted) else {
            return Err(Fault::params("`params.notifications` has to be an object"));
        };
        let flag = |key: &str| wanted.get(key).and_then(|value| value.as_bool()) == Some(true);
        let rulebook = self.broker.rulebook();
        let any = |action| !visible(&rulebook, &caller.agent, &action).is_empty();
        let feed = Feed {
            tools: flag("toolsListChanged"),
            prompts: flag("promptsListChanged") && any(Action::GetPrompt),
            resources: flag("resourcesListChanged") && any(Action::ReadResource),
        };
        // Listening begins before subscribing, so that nothing falls in between.
        let changes = self.servers.changes(&caller.session.name);
        let rules = self.rules.subscribe();
        let mut held = Held { servers: &self.servers, session: &caller.session, held: Vec::new() };
        let uris: Vec<&str> = match wanted.get("resourceSubscriptions") {
            None => Vec::new(),
            Some(uris) if uris.len() <= MAX_LISTEN_URIS => {
                uris.elements().filter_map(|uri| uri.as_str()).collect()
            }
            Some(_) => return Err(Fault::params("too many `resourceSubscriptions`")),
        };
        let meta = params.root().get("_meta").map_or(b"{}".as_slice(), |meta| meta.raw());
        for uri in uris {
            let params = ObjectWriter::new().string("uri", uri).raw("_meta", meta).finish();
            let Ok(params) = Document::parse(params, &Limits::default()) else {
                continue;
            };
            // What the agent may not subscribe to is left out of the acknowledgement, like what does not exist.
            let done = self.hold(caller, uri, params, Arc::clone(line) as AgentLine).await;
            if let Ok((Done::Answer(Answer::Result(_), call), server)) = done {
                self.broker.delivered(call.call);
                held.held.push((uri.to_owned(), server));
            }
        }
        let about = ObjectWriter::new().raw(META_SUBSCRIPTION, id.to_json().as_bytes()).finish();
        let ack = ObjectWriter::new()
            .raw("_meta", &about)
            .raw("notifications", &feed.honoured(&held.held))
            .finish();
        let ack = rpc::notification("notifications/subscriptions/acknowledged", Some(&ack));
        if line.post(ack).await {
            self.feed(caller, &feed, Some((&held.held, &about)), changes, rules, line).await;
        }
        let result = ObjectWriter::new().string("resultType", "complete").raw("_meta", &about).finish();
        Ok(Done::Result(result, None))
    }

    /// What changes, for a session of 2025-11-25 or before, until it ends or `line` is gone.
    pub async fn announce(self: &Arc<Self>, caller: &Caller, line: &Line) {
        let changes = self.servers.changes(&caller.session.name);
        let feed = Feed { tools: true, prompts: true, resources: true };
        self.feed(caller, &feed, None, changes, self.rules.subscribe(), line).await;
    }

    /// `listening` is what a `subscriptions/listen` holds, and what its messages say about it.
    async fn feed(
        &self,
        caller: &Caller,
        feed: &Feed,
        listening: Listening<'_>,
        changes: broadcast::Receiver<Change>,
        mut rules: watch::Receiver<u64>,
        line: &Line,
    ) {
        let mut tools = self.seen(&caller.agent).list().digest();
        let empty = listening.map(|(_, about)| ObjectWriter::new().raw("_meta", about).finish());
        let mut changes = Some(changes);
        loop {
            let mut news = Vec::new();
            tokio::select! {
                () = line.gone_flag().wait() => return,
                () = caller.session.ended.wait() => return,
                () = self.stop.wait() => return,
                changed = rules.changed() => {
                    let now = self.seen(&caller.agent).list().digest();
                    if changed.is_ok() && feed.tools && now != tools {
                        news.push(("notifications/tools/list_changed", empty.clone()));
                    }
                    tools = now;
                }
                change = next(&mut changes) => match change {
                    Ok(change) => news.extend(self.told(caller, feed, listening, &change)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        // Something was missed: everything may have changed.
                        if feed.tools {
                            news.push(("notifications/tools/list_changed", empty.clone()));
                        }
                        if feed.prompts {
                            news.push(("notifications/prompts/list_changed", empty.clone()));
                        }
                        if feed.resources {
                            news.push(("notifications/resources/list_changed", empty.clone()));
                        }
                    }
                    // Nobody tells about servers any more; the rules may still change.
                    Err(broadcast::error::RecvError::Closed) => changes = None,
                },
            }
            for (method, params) in news {
                if !line.post(rpc::notification(method, params.as_deref())).await {
                    return;
                }
            }
        }
    }

    /// What an agent is told about a change, if anything.
    fn told(
        &self,
        caller: &Caller,
        feed: &Feed,
        listening: Listening<'_>,
        change: &Change,
    ) -> Option<(&'static str, Option<Vec<u8>>)> {
        let rulebook = self.broker.rulebook();
        let may_see = |server: &ServerName, action| rulebook.may_see(&caller.agent, server, &action);
        let session = &caller.session.name;
        let empty = || listening.map(|(_, about)| ObjectWriter::new().raw("_meta", about).finish());
        match change {
            Change::Prompts(server) => {
                self.shelves().remove(&(session.clone(), Offer::Prompts));
                (feed.prompts && may_see(server, Action::GetPrompt))
                    .then(|| ("notifications/prompts/list_changed", empty()))
            }
            Change::Resources(server) => {
                for offer in [Offer::Resources, Offer::ResourceTemplates] {
                    self.shelves().remove(&(session.clone(), offer));
                }
                (feed.resources && may_see(server, Action::ReadResource))
                    .then(|| ("notifications/resources/list_changed", empty()))
            }
            // What is offered changes by what people accept. But a tool that is another now is withdrawn, so who may see
            // one of that server's has reason to ask again.
            Change::Tools(server) => (feed.tools && self.seen(&caller.agent).any_of(server))
                .then(|| ("notifications/tools/list_changed", empty())),
            Change::Resource { server, uri, params } => {
                let listened = match listening {
                    Some((held, _)) => held.iter().any(|(u, s)| u == uri && s == server),
                    None => caller.session.holds(uri, server) > 0,
                };
                if !listened || !may_see(server, Action::Subscribe) {
                    return None;
                }
                let cleaning = rulebook.scrub.cleaning(server, &Action::Subscribe, session);
                // By its `uri`, which it named itself, the agent knows what it is about.
                let params = cleaning.object(params, &["uri"]).ok()?;
                let params = match listening {
                    None => params.root().raw().to_vec(),
                    Some((_, about)) => params.root().rewrite(&[("_meta", Edit::Set(about))]),
                };
                Some(("notifications/resources/updated", Some(params)))
            }
        }
    }
}

/// Which changes an agent is told.
struct Feed {
    tools: bool,
    prompts: bool,
    resources: bool,
}

impl Feed {
    /// The filter as it is honoured.
    fn honoured(&self, held: &[(String, ServerName)]) -> Vec<u8> {
        let mut writer = ObjectWriter::new();
        let flags = [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ];
        for (key, _) in flags.into_iter().filter(|(_, wanted)| *wanted) {
            writer = writer.bool(key, true);
        }
        if !held.is_empty() {
            let uris: Vec<String> = held.iter().map(|(uri, _)| quote(uri)).collect();
            writer = writer.raw("resourceSubscriptions", format!("[{}]", uris.join(",")).as_bytes());
        }
        writer.finish()
    }
}

/// Subscriptions that end when this is dropped, also where the future that holds it is.
pub(super) struct Held<'a> {
    pub(super) servers: &'a Arc<dyn Servers>,
    pub(super) session: &'a Session,
    pub(super) held: Vec<(String, ServerName)>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for (uri, server) in &self.held {
            if self.session.unsubscribe(uri, server) {
                self.servers.unsubscribe(server, &self.session.name, uri);
            }
        }
    }
}

/// The next change; never, when there is nobody to tell.
async fn next(
    changes: &mut Option<broadcast::Receiver<Change>>,
) -> Result<Change, broadcast::error::RecvError> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}
