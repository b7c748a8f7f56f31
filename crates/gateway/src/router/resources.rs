//! Resources, and the lists that are not pinned: resources, templates and prompts.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use toolgate_broker::outcome::Answer;
use toolgate_broker::port::{AgentLine, BoxFuture};
use toolgate_core::call::Action;
use toolgate_core::json::{Document, Edit, Limits, ObjectWriter, quote};
use toolgate_core::name::ServerName;

use super::feed::Held;
use super::{Caller, Done, Fault, Item, Items, REFUSED, Router, text, visible};
use crate::catalog::List;
use crate::port::Offer;
use crate::rpc;
use crate::template;
use crate::version::Version;

/// The error for what does not exist among resources, in revisions before 2026-07-28.
pub(super) const RESOURCE_NOT_FOUND: i64 = -32_002;

/// How many items of one kind are listed over all servers.
const MAX_ITEMS: usize = 10_000;

/// How long it is remembered which server lists what, in milliseconds.
const SHELF_MS: u64 = 30_000;

/// For how many sessions and kinds that is remembered.
const MAX_SHELVES: usize = 4096;

impl Router {
    pub(super) async fn read_resource(
        &self,
        caller: &Caller,
        params: Option<&Document>,
        line: AgentLine,
    ) -> Result<Done, Fault> {
        let (params, uri) = text(params, "uri")?;
        let missing = || no_resource(caller.version, uri);
        let server = self.owner(caller, uri, &Action::ReadResource).await?;
        let arguments = ObjectWriter::new().string("uri", uri).finish();
        let done = self
            .ask_server(caller, Action::ReadResource, server, arguments, params.clone(), line, missing)
            .await?;
        Ok(match done {
            Done::Answer(answer, call) if caller.version.is_modern() => Done::Answer(private(answer), call),
            Done::Answer(..) | Done::Result(..) => done,
        })
    }

    pub(super) async fn subscribe(
        &self,
        caller: &Caller,
        params: Option<&Document>,
        line: AgentLine,
    ) -> Result<Done, Fault> {
        let (params, uri) = text(params, "uri")?;
        let (done, server) = self.hold(caller, uri, params.clone(), line).await?;
        // Subscribing again changes nothing: one `resources/unsubscribe` ends it.
        while caller.session.holds(uri, &server) > 1 {
            caller.session.unsubscribe(uri, &server);
        }
        Ok(done)
    }

    /// Subscribes to a resource, once more if it is subscribed to already.
    pub(super) async fn hold(
        &self,
        caller: &Caller,
        uri: &str,
        params: Document,
        line: AgentLine,
    ) -> Result<(Done, ServerName), Fault> {
        let missing = || no_resource(caller.version, uri);
        let server = self.owner(caller, uri, &Action::Subscribe).await?;
        if !caller.session.subscribe(uri, &server) {
            return Err(Fault::new(REFUSED, "Refused by Toolgate: too many subscriptions."));
        }
        // Held first, so that no change is missed, and let go of again if it does not come about or is given up.
        let mut held = Held {
            servers: &self.servers,
            session: &caller.session,
            held: vec![(uri.to_owned(), server.clone())],
        };
        let arguments = ObjectWriter::new().string("uri", uri).finish();
        let done = self
            .ask_server(caller, Action::Subscribe, server.clone(), arguments, params, line, missing)
            .await?;
        if matches!(done, Done::Answer(Answer::Result(_), _)) {
            held.held.clear();
        }
        Ok((done, server))
    }

    pub(super) fn unsubscribe(&self, caller: &Caller, params: Option<&Document>) -> Result<Done, Fault> {
        let (_, uri) = text(params, "uri")?;
        for server in caller.session.subscribed_to(uri) {
            if caller.session.unsubscribe(uri, &server) {
                self.servers.unsubscribe(&server, &caller.session.name, uri);
            }
        }
        Ok(Done::Result(b"{}".to_vec(), None))
    }

    /// Whose resource a URI is: see the head of this module.
    pub(super) async fn owner(
        &self,
        caller: &Caller,
        uri: &str,
        action: &Action,
    ) -> Result<ServerName, Fault> {
        let rulebook = self.broker.rulebook();
        let candidates = visible(&rulebook, &caller.agent, action);
        let owner = match candidates.as_slice() {
            [] => Owner::Nobody,
            [only] => return Ok(only.clone()),
            several => self.find_owner(caller, uri, several).await,
        };
        match owner {
            Owner::One(server) => Ok(server),
            Owner::Nobody => {
                Err(self.hidden(caller, &format!("{action} {uri}"), no_resource(caller.version, uri)).await)
            }
            Owner::Several => {
                let fault = Fault::new(
                    REFUSED,
                    "Refused by Toolgate: several servers offer this resource, so it cannot be told which is meant.",
                );
                Err(self.hidden(caller, &format!("{action} {uri}"), fault).await)
            }
        }
    }

    async fn find_owner(&self, caller: &Caller, uri: &str, candidates: &[ServerName]) -> Owner {
        let fits = |items: &Items, key: &str, fits: &dyn Fn(&str) -> bool| {
            let mut owners: Vec<ServerName> = items
                .iter()
                .filter(|item| {
                    candidates.contains(&item.server)
                        && item.listed.root().get(key).and_then(|v| v.as_str()).is_some_and(fits)
                })
                .map(|item| item.server.clone())
                .collect();
            owners.dedup();
            owners
        };
        // Remembered lists first; if they know nothing, they are asked for anew, for things may have been added.
        for fresh in [false, true] {
            let resources = self.items(caller, Offer::Resources, fresh).await;
            let templates = self.items(caller, Offer::ResourceTemplates, fresh).await;
            let exact = fits(&resources, "uri", &|listed| listed == uri);
            let exact = if exact.is_empty() {
                fits(&templates, "uriTemplate", &|listed| listed == uri)
            } else {
                exact
            };
            let found = if exact.is_empty() {
                fits(&templates, "uriTemplate", &|template| template::fits(template, uri))
            } else {
                exact
            };
            match found.as_slice() {
                [] => {}
                [one] => return Owner::One(one.clone()),
                _ => return Owner::Several,
            }
        }
        Owner::Nobody
    }

    pub(super) async fn list(
        &self,
        caller: &Caller,
        offer: Offer,
        params: Option<&Document>,
    ) -> Result<Done, Fault> {
        let paging = params.is_some_and(|params| params.root().get("cursor").is_some());
        let items = self.items(caller, offer, !paging).await;
        // What was remembered may be from before other rules came into force.
        let action = match offer {
            Offer::Prompts => Action::GetPrompt,
            Offer::ResourceTemplates | Offer::Resources => Action::ReadResource,
        };
        let servers = visible(&self.broker.rulebook(), &caller.agent, &action);
        let items = items.iter().filter(|item| servers.contains(&item.server));
        let items: Vec<_> = items.filter_map(|item| Some((&item.server, item.shown.as_ref()?))).collect();
        let key = match offer {
            Offer::Prompts => "prompts",
            Offer::ResourceTemplates => "resourceTemplates",
            Offer::Resources => "resources",
        };
        let list = match offer {
            Offer::Prompts => {
                let rulebook = self.broker.rulebook();
                let renamed: Vec<Vec<u8>> = items
                    .iter()
                    .filter_map(|(server, item)| {
                        let name = item.root().get("name")?.as_str()?;
                        let shown = self.catalog.naming().shown(&rulebook.servers, server, name)?;
                        Some(item.root().rewrite(&[("name", Edit::Set(quote(&shown).as_bytes()))]))
                    })
                    .collect();
                List::new(renamed.iter().map(Vec::as_slice))
            }
            Offer::ResourceTemplates | Offer::Resources => {
                List::new(items.iter().map(|(_, item)| item.root().raw()))
            }
        };
        self.page(caller, key, &list, params)
    }

    /// What the visible servers offer. A server that cannot be asked offers nothing: it must not spoil the rest.
    async fn items(&self, caller: &Caller, offer: Offer, fresh: bool) -> Items {
        let rulebook = self.broker.rulebook();
        let action = match offer {
            Offer::Prompts => Action::GetPrompt,
            Offer::ResourceTemplates | Offer::Resources => Action::ReadResource,
        };
        let servers = visible(&rulebook, &caller.agent, &action);
        let session = &caller.session.name;
        let key = (session.clone(), offer);
        let now = self.now_ms();
        if !fresh
            && let Some((at, items)) = self.shelves().get(&key)
            && now < at.saturating_add(SHELF_MS)
        {
            return Arc::clone(items);
        }
        let asked = servers
            .iter()
            .map(|server| self.servers.offered(server, session, &caller.client, offer))
            .collect();
        let offered = all(asked).await;
        let items = servers
            .iter()
            .zip(offered)
            .flat_map(|(server, items)| {
                let cleaning = rulebook.scrub.cleaning(server, &action, session);
                items.unwrap_or_default().into_iter().map(move |listed| {
                    let shown = cleaning.object(&listed, &[]).ok();
                    Item { server: server.clone(), listed, shown }
                })
            })
            .filter(|item| item.listed.root().is_object())
            .take(MAX_ITEMS)
            .collect();
        let items: Items = Arc::new(items);
        let mut shelves = self.shelves();
        if shelves.len() >= MAX_SHELVES {
            shelves.clear();
        }
        shelves.insert(key, (now, Arc::clone(&items)));
        items
    }

    pub(super) fn shelves(&self) -> MutexGuard<'_, HashMap<(String, Offer), (u64, Items)>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose a resource is.
enum Owner {
    Nobody,
    One(ServerName),
    Several,
}

/// Waits for all of them at once, in their order.
async fn all<T: Unpin>(futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut waiting: Vec<Result<BoxFuture<'_, T>, Option<T>>> = futures.into_iter().map(Ok).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for slot in &mut waiting {
            if let Ok(future) = slot {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *slot = Err(Some(value)),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    waiting.into_iter().filter_map(|slot| slot.err().flatten()).collect()
}

fn no_resource(version: Version, uri: &str) -> Fault {
    let code = if version.is_modern() { rpc::INVALID_PARAMS } else { RESOURCE_NOT_FOUND };
    Fault::new(code, "Resource not found").with(ObjectWriter::new().string("uri", uri).finish())
}

/// What one agent may read, others may not: no cache may share it.
fn private(answer: Answer) -> Answer {
    let Answer::Result(object) = &answer else {
        return answer;
    };
    let root = object.root();
    if root.get("cacheScope").and_then(|scope| scope.as_str()) != Some("public") {
        return answer;
    }
    let rewritten = root.rewrite(&[("cacheScope", Edit::Set(br#""private""#))]);
    Document::parse(rewritten, &Limits::default()).map_or(answer, Answer::Result)
}
