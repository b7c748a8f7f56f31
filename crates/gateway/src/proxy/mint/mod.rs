//! Minting credentials, and giving them back.
//!
//! A lease is one credential for one run of an agent, one server, and one scope. It is asked for when it is first needed, kept for
//! the calls that need the same, minted anew at four fifths of its life, and revoked when the run is over, somebody says so, its
//! secret is not what it was, or the gate stops. Whatever happens to it was written down by the gate before it goes on: that a
//! provider is asked, that it has minted, that it has revoked.

mod aws;
mod fetch;
mod github;
mod google;
mod kubernetes;
mod oauth;
mod openbao;
mod postgres;
mod sign;
mod ssh;
mod time;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use toolgate_broker::lease::{LeaseAction, Told};
use toolgate_broker::vault::keys::{derive, seal, unseal};
use toolgate_broker::vault::mint::Filled;
use toolgate_broker::vault::process::Value;
use toolgate_broker::vault::{Mint, Provider, Slot, Uses};
use toolgate_core::hex;
use toolgate_core::json;
use zeroize::Zeroizing;

use super::clean::{Held, Holding, MintedValue};
use super::notes::Notes;
use super::turns::{Turn, Turns};
pub(super) use aws::{Keys, sign_request};
pub(crate) use fetch::{Fetch, Get, Got, form, is_code};
pub(crate) use oauth::{as_client, value_of};
pub(crate) use time::{in_seconds, now_ms, seconds};

/// How long a provider may take to mint or to revoke.
const PATIENCE: Duration = Duration::from_secs(20);

/// What ends sooner is not used any more.
const TOO_LATE_MS: u64 = 5_000;

/// How much later than what was asked for a credential may end: clocks differ.
const SLACK_MS: u64 = 60_000;

/// How long is waited before revoking is tried again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why a lease ends with its run of an agent.
const SESSION_OVER: &str = "the session is over";
/// Why one ends with the gate.
const CLOSING: &str = "the gate stops";
/// Why one ends whose secret has another value, or another use.
const OTHER_SECRET: &str = "its secret is not what it was";
/// Why one ends that somebody does not want.
pub(super) const SAID_SO: &str = "somebody said so";

/// How many leases there may be at once.
const MAX_LEASES: usize = 4_096;

/// How many of them one run of an agent may have.
const MAX_OF_SESSION: usize = 32;

/// How many runs of agents are remembered that are over.
const MAX_OVER: usize = 4_096;

/// How long what belongs to a run is still sent that is over: that it is, to its servers.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long what was minted may be, in bytes.
const MAX_PARTS: usize = 32 << 10;

/// The longest that something is remembered to be good: 400 days.
const LONGEST_MS: u64 = 400 * 86_400 * 1_000;

/// How long what a provider grants may be, in the log.
const MAX_GRANTED: usize = 1_024;

/// How long the reason of a failure may be.
const MAX_WHY: usize = 256;

/// A part of what was minted: its name, and the value.
type Part = (String, Zeroizing<Vec<u8>>);

/// What another vault keeps: the members of an object of JSON, or all of it as `value`. It is read again at four fifths of the time
/// that the recipe says.
fn kept(asked: &Asked<'_>, text: &str, granted: String) -> Result<Minted, String> {
    let document = json::Document::parse(text.as_bytes().to_vec(), &json::Limits::default()).ok();
    let object = document.as_ref().map(json::Document::root).filter(json::Value::is_object);
    let members = object.map(|object| object.members().collect::<Vec<_>>()).unwrap_or_default();
    let mut parts: Vec<Part> = members
        .into_iter()
        .filter_map(|(name, value)| Some(part(name, value.as_str()?.as_bytes())))
        .collect();
    if parts.is_empty() {
        parts.push(part("value", text.as_bytes()));
    }
    usual_first(&mut parts);
    let unfit = text.is_empty().then(|| "it keeps nothing under this name".to_owned());
    Ok(Minted { parts, until_ms: in_seconds(asked.ttl), granted, handle: Handle::None, unfit, renewed: None })
}

/// What is meant where no part is named comes first.
fn usual_first(parts: &mut [Part]) {
    parts.sort_by_key(|(name, _)| {
        !matches!(name.as_str(), "password" | "token" | "secret_key" | "signed_key" | "value")
    });
}

fn part(name: &str, value: &[u8]) -> Part {
    (name.to_owned(), Zeroizing::new(value.to_vec()))
}

/// What a provider has minted.
struct Minted {
    /// The first is the one that is meant where none is named.
    parts: Vec<Part>,
    /// When it ends by itself, in milliseconds since 1970.
    until_ms: u64,
    /// What it may do, as the provider says.
    granted: String,
    /// What it is revoked with.
    handle: Handle,
    /// Why it is not to be used, if it is not: it is more than what was asked for.
    unfit: Option<String>,
    /// What the secret is from now on, if the provider has renewed it.
    renewed: Option<Zeroizing<Vec<u8>>>,
}

/// What a credential is revoked with. It is kept sealed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Handle {
    /// Nothing revokes it: it ends by itself.
    None,
    Github {
        api_url: String,
        token: String,
    },
    Kubernetes {
        secret: String,
    },
    Oauth {
        token: String,
    },
    Openbao {
        lease: String,
    },
    Postgres {
        role: String,
        /// Who gets what it owns.
        heir: String,
    },
}

/// One mint: what is asked of whom.
struct Asked<'a> {
    fetch: &'a Fetch,
    /// The lease's random bytes.
    id: &'a [u8; 16],
    provider: Provider,
    /// The secret.
    root: &'a [u8],
    with: &'a Filled,
    ttl: u64,
}

impl Asked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.with.get(name).map(String::as_str)
    }

    /// What there has to be; a recipe without it is not read.
    fn need(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("`{name}` is missing"))
    }

    /// The secret, as a text.
    fn root_text(&self) -> Result<&str, String> {
        std::str::from_utf8(self.root)
            .map_err(|_bytes| format!("the secret is not {}", self.provider.value()))
    }

    /// What it will be revoked with, where that is known before.
    fn handle_before(&self) -> Handle {
        match self.provider {
            Provider::Postgres => {
                Handle::Postgres { role: postgres::role(self.id), heir: postgres::heir(self) }
            }
            Provider::Kubernetes if self.get("revocable") == Some("yes") => {
                Handle::Kubernetes { secret: kubernetes::secret(self.id) }
            }
            _ => Handle::None,
        }
    }

    async fn mint(&self) -> Result<Minted, String> {
        let minting = async {
            match self.provider {
                Provider::AwsSecret => aws::read(self).await,
                Provider::AwsSts => aws::mint(self).await,
                Provider::GithubApp => github::mint(self).await,
                Provider::Google => google::mint(self).await,
                Provider::GoogleSecret => google::read(self).await,
                Provider::Jwt => sign::mint(self),
                Provider::Kubernetes => kubernetes::mint(self).await,
                Provider::OauthClient | Provider::OauthExchange | Provider::OauthRefresh => {
                    oauth::mint(self).await
                }
                Provider::Openbao => openbao::mint(self).await,
                Provider::Postgres => postgres::mint(self).await,
                Provider::SshCertificate => ssh::mint(self),
            }
        };
        let minted = timeout(PATIENCE, minting).await.map_err(|_elapsed| "it took too long".to_owned())??;
        let ended = minted.until_ms <= now_ms() + TOO_LATE_MS;
        let long: usize = minted.parts.iter().map(|(_, part)| part.len()).sum();
        let unfit = minted
            .unfit
            .or_else(|| ended.then(|| "what was minted has ended already".to_owned()))
            .or_else(|| (long > MAX_PARTS).then(|| "what was minted is too long".to_owned()));
        // Nobody's credential is good for longer than that.
        let until_ms = minted.until_ms.min(now_ms() + LONGEST_MS);
        Ok(Minted { until_ms, unfit, ..minted })
    }

    /// Until when what ends then is used, in milliseconds since 1970: whoever says that it lasts for ever is not believed.
    fn used_until(&self, until_ms: u64) -> u64 {
        until_ms.min(now_ms() + self.provider.ttl().1.max(self.ttl) * 1_000 + SLACK_MS)
    }

    /// Revokes it. `false`: there is no way to.
    async fn revoke(&self, handle: &Handle) -> Result<bool, String> {
        let revoking = async {
            match handle {
                Handle::None => Ok(false),
                Handle::Github { api_url, token } => github::revoke(self, api_url, token).await,
                Handle::Kubernetes { secret } => kubernetes::revoke(self, secret).await,
                Handle::Oauth { token } => oauth::revoke(self, token).await,
                Handle::Openbao { lease } => openbao::revoke(self, lease).await,
                Handle::Postgres { role, heir } => postgres::revoke(self, role, heir).await,
            }
        };
        timeout(PATIENCE, revoking).await.map_err(|_elapsed| "it took too long".to_owned())?
    }
}

/// What is to be revoked, and with what.
struct Owed {
    /// Its end there is when the provider says that it is good for nothing.
    told: Told,
    id: [u8; 16],
    /// What it was minted from.
    root: Arc<Value>,
    with: Filled,
    handle: Handle,
}

/// A credential that was minted.
pub(super) struct Lease {
    owed: Arc<Owed>,
    parts: Vec<Part>,
    began_ms: u64,
    /// Until when it is used.
    used_until_ms: u64,
    /// Whether nobody is to get it any more, and somebody is revoking it.
    ended: AtomicBool,
}

impl Lease {
    /// A part of it; the first, if none is named.
    pub(super) fn part(&self, name: Option<&str>) -> Option<&[u8]> {
        let mut parts = self.parts.iter();
        let found = match name {
            Some(name) => parts.find(|(part, _)| part == name),
            None => parts.next(),
        };
        found.map(|(_, value)| value.as_slice())
    }

    /// From when on another one is minted: four fifths of its life.
    pub(super) const fn renew_ms(&self) -> u64 {
        self.began_ms + (self.used_until_ms.saturating_sub(self.began_ms)) / 5 * 4
    }

    fn is_good(&self, now: u64) -> bool {
        !self.ended.load(Ordering::Acquire) && now + TOO_LATE_MS < self.used_until_ms
    }
}

/// Whose a lease is, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    session: String,
    server: String,
    secret: String,
    version: u32,
    with: Filled,
}

/// What is kept of leases with one key. Guards that one asks the provider at a time.
type Place = Arc<tokio::sync::Mutex<Option<Arc<Lease>>>>;

/// All leases of this process.
pub(super) struct Leases {
    held: Arc<Held>,
    notes: Notes,
    turns: Turns,
    /// Values that their provider takes no more, by name: which version, of which login. Nobody asks with them again.
    spent: Mutex<HashMap<String, (u32, Uses)>>,
    fetch: Fetch,
    places: Mutex<HashMap<Key, Place>>,
    /// Those that a provider is being asked for, and whether nobody wants them any more.
    minting: Mutex<HashMap<[u8; 16], (Told, bool)>>,
    /// Those that may be good for something.
    live: Mutex<HashMap<[u8; 16], Arc<Lease>>>,
    /// Runs of agents that are over, the last ones.
    over: Mutex<VecDeque<String>>,
    closing: AtomicBool,
}

impl Leases {
    pub(super) fn new(held: Arc<Held>, notes: Notes, turns: Turns, fetch: Fetch) -> Arc<Self> {
        Arc::new(Self {
            held,
            notes,
            turns,
            spent: Mutex::default(),
            fetch,
            places: Mutex::default(),
            minting: Mutex::default(),
            live: Mutex::default(),
            over: Mutex::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// What is minted from this secret for a call with these arguments, or for what is no call.
    pub(super) async fn get(
        self: &Arc<Self>,
        root: &Arc<Value>,
        mint: &Mint,
        server: &str,
        session: &str,
        arguments: Option<json::Value<'_>>,
    ) -> Result<Arc<Lease>, String> {
        let with = mint.filled(arguments).map_err(|error| error.to_string())?;
        let key = Key {
            session: session.to_owned(),
            server: server.to_owned(),
            secret: root.name.to_string(),
            // Where it renews itself, it is the same login all the same.
            version: if mint.renews_itself() { 0 } else { root.version },
            with,
        };
        let place = self.place(&key)?;
        let wanted = Wanted { root: Arc::clone(root), mint: mint.clone(), key };
        // Whoever waits for it may give up; what was begun is brought to its end all the same.
        let got = tokio::spawn(Arc::clone(self).get_at(place, wanted)).await;
        let why = |why| format!("`{}` mints nothing from the secret `{}`: {why}", mint.provider(), root.name);
        got.map_err(|error| error.to_string())?.map_err(why)
    }

    async fn get_at(self: Arc<Self>, place: Place, wanted: Wanted) -> Result<Arc<Lease>, String> {
        let mut place = place.lock().await;
        let now = now_ms();
        let good = place.clone().filter(|lease| lease.is_good(now));
        if let Some(lease) = good.filter(|lease| now < lease.renew_ms()) {
            return Ok(lease);
        }
        match self.mint(&wanted).await {
            Ok(lease) => Ok(Arc::clone(place.insert(lease))),
            Err(why) => {
                // The old one is still good for a fifth of its life.
                place.clone().filter(|lease| lease.is_good(now_ms())).ok_or(why)
            }
        }
    }

    fn place(&self, key: &Key) -> Result<Place, String> {
        if self.closing.load(Ordering::Acquire) {
            return Err(CLOSING.to_owned());
        }
        let mut places = lock(&self.places);
        if let Some(place) = places.get(key) {
            return Ok(Arc::clone(place));
        }
        // What nobody uses and holds nothing.
        places.retain(|_, place| {
            Arc::strong_count(place) > 1
                || place
                    .try_lock()
                    .is_ok_and(|place| place.as_ref().is_some_and(|lease| lease.is_good(now_ms())))
        });
        let of_session = places.keys().filter(|other| other.session == key.session).count();
        if places.len() >= MAX_LEASES || of_session >= MAX_OF_SESSION {
            return Err("there are too many leases at once".to_owned());
        }
        Ok(Arc::clone(places.entry(key.clone()).or_default()))
    }

    /// Why nothing is minted for a run any more.
    fn refused(&self, session: &str) -> Option<&'static str> {
        if self.closing.load(Ordering::Acquire) {
            return Some(CLOSING);
        }
        lock(&self.over).iter().any(|over| over == session).then_some(SESSION_OVER)
    }

    async fn mint(self: &Arc<Self>, wanted: &Wanted) -> Result<Arc<Lease>, String> {
        let Wanted { root, mint, key } = wanted;
        let with = &key.with;
        if let Some(why) = self.refused(&key.session) {
            return Err(why.to_owned());
        }
        let turn = match mint.renews_itself() {
            true => Some(self.turns.take(&root.name).await?),
            false => None,
        };
        let root = &match &turn {
            // Its value may be another one by now.
            Some(_) => self.newest(root)?,
            None => Arc::clone(root),
        };
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| error.to_string())?;
        let (provider, ttl) = (mint.provider(), mint.ttl());
        let asked = Asked { fetch: &self.fetch, id: &id, provider, root: &root.value, with, ttl };
        let began_ms = now_ms();
        let before = asked.handle_before();
        let mut told = Told {
            id: hex::encode(&id),
            secret: root.name.to_string(),
            provider: provider.to_string(),
            server: key.server.clone(),
            session: key.session.clone(),
            until_ms: asked.used_until(u64::MAX),
            handle: self.sealed(&id, &before, with)?,
            requested: Some(in_words(with, ttl)),
            granted: None,
            fingerprint: None,
            why: None,
        };
        lock(&self.minting).insert(id, (told.clone(), false));
        let _done = Minting { leases: self, id };
        self.notes.tell(LeaseAction::Asked, &told).await?;
        let minted = match (asked.mint().await, turn) {
            (Ok(minted), Some(turn)) => self.kept(turn, root, minted).await,
            (minted, _) => minted,
        };
        let minted = match minted {
            Ok(minted) => minted,
            Err(why) => {
                if why == oauth::over(&asked) {
                    lock(&self.spent).insert(root.name.to_string(), (root.version, root.uses.clone()));
                }
                // What went wrong may have left something behind all the same.
                let owed = Owed { told, id, root: Arc::clone(root), with: with.clone(), handle: before };
                tokio::spawn(Arc::clone(self).release(Arc::new(owed), LeaseAction::Failed, short(&why)));
                return Err(why);
            }
        };
        let Minted { parts, until_ms, granted, handle, unfit, renewed: _ } = minted;
        // Nobody says it from now on, not even in the answer that tells us of it.
        let values = parts.iter().enumerate().filter(|(at, (name, _))| is_secret(root, *at, name));
        // What another vault keeps is good for as long as it is kept there: nobody here knows until when.
        let ends = !asked.provider.keeps() || !matches!(handle, Handle::None);
        let values = values.map(|(_, (_, value))| MintedValue {
            name: root.name.clone(),
            hosts: root.uses.hosts.iter().map(|host| host.host().to_owned()).collect(),
            value: value.clone(),
            until_ms: if ends { until_ms + SLACK_MS } else { u64::MAX },
        });
        let values: Vec<_> = values.collect();
        tokio::task::block_in_place(|| self.held.change(|held| held.with_minted(values, began_ms)));
        told.until_ms = until_ms;
        told.handle = self.sealed(&id, &handle, with)?;
        told.fingerprint = parts.first().map(|(_, value)| {
            let mac = derive(&*self.held.now().key_for("fingerprint"), &[value]);
            hex::encode(mac.first_chunk::<8>().map_or(&[], <[u8; 8]>::as_slice))
        });
        // What it says that it grants may be anything.
        let granted = self.held.now().scrubber(&key.session).scrub_text(granted.as_bytes());
        let granted = granted.map_or_else(|_withheld| Vec::new(), |cleaned| cleaned.bytes);
        told.granted = Some(String::from_utf8_lossy(&granted).chars().take(MAX_GRANTED).collect());
        told.why = unfit.clone();
        let used_until_ms = asked.used_until(until_ms);
        let owed = Arc::new(Owed { told, id, root: Arc::clone(root), with: with.clone(), handle });
        let lease = Arc::new(Lease { owed, parts, began_ms, used_until_ms, ended: AtomicBool::new(false) });
        lock(&self.live).insert(id, Arc::clone(&lease));
        let noted = self.notes.tell(LeaseAction::Minted, &lease.owed.told).await;
        let same = is_still(&self.held.now(), root);
        let unwanted = lock(&self.minting).get(&id).is_none_or(|(_, unwanted)| *unwanted);
        let why = match noted {
            Err(why) => Some(why),
            Ok(()) if !same => Some(OTHER_SECRET.to_owned()),
            Ok(()) if unwanted => Some(self.refused(&key.session).unwrap_or(SAID_SO).to_owned()),
            Ok(()) => unfit,
        };
        match why {
            // Nobody gets it.
            Some(why) => {
                self.end(&lease, why.clone());
                Err(why)
            }
            None => {
                tokio::spawn(expire(Arc::downgrade(self), Arc::downgrade(&lease)));
                Ok(lease)
            }
        }
    }

    /// The secret as it is now.
    fn newest(&self, root: &Arc<Value>) -> Result<Arc<Value>, String> {
        let held = self.held.now();
        let now = held.value(root.name.as_str()).filter(|now| now.uses == root.uses).ok_or(OTHER_SECRET)?;
        let spent = |(version, uses): &(u32, Uses)| *version == now.version && *uses == now.uses;
        if lock(&self.spent).get(root.name.as_str()).is_some_and(spent) {
            return Err(oauth::log_in_again(
                now.uses.mint.as_ref().and_then(|mint| mint.with().get("server")),
            ));
        }
        Ok(Arc::clone(now))
    }

    /// Has the secret kept that is to be used next time. Before that, nobody uses what was minted: were this process to end, it would be
    /// gone, and so would the login.
    async fn kept(&self, turn: Turn, root: &Value, minted: Minted) -> Result<Minted, String> {
        if let Some(renewed) = &minted.renewed {
            let tokens = self.held.now();
            let kept = turn.keep(root, tokens.key(), renewed).await;
            kept.map_err(|why| format!("what it is renewed with next time could not be kept: {why}"))?;
        }
        Ok(minted)
    }

    /// Has a lease revoked, once: nobody gets it from now on, however long that takes.
    fn end(self: &Arc<Self>, lease: &Lease, why: String) {
        if lease.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        lock(&self.live).remove(&lease.owed.id);
        tokio::spawn(Arc::clone(self).release(Arc::clone(&lease.owed), LeaseAction::Revoked, why));
    }

    /// Revokes until it is done, or the time is over. What the secret is by now may revoke what the old one minted.
    async fn release(self: Arc<Self>, owed: Arc<Owed>, done: LeaseAction, why: String) {
        let Owed { told, id, root, with, handle } = &*owed;
        let Some(mint) = &root.uses.mint else { return };
        let mut told = Told { why: Some(why.clone()), ..told.clone() };
        let (mut wait, longest) = AGAIN;
        // Should this process end before, its row is there, and whoever starts next tries.
        loop {
            let newest = self.held.now().value(root.name.as_str()).cloned();
            let newest = newest.filter(|newest| newest.value != root.value);
            let mut revoked = Ok(false);
            for root in std::iter::once(root).chain(&newest) {
                let (provider, ttl) = (mint.provider(), mint.ttl());
                let asked = Asked { fetch: &self.fetch, id, provider, root: &root.value, with, ttl };
                revoked = asked.revoke(handle).await;
                if revoked.is_ok() {
                    break;
                }
            }
            let late = now_ms() > told.until_ms;
            let action = match revoked {
                Ok(true) => Some(done),
                Ok(false) if done == LeaseAction::Failed => Some(done),
                Ok(false) => Some(if late { LeaseAction::Expired } else { LeaseAction::Left }),
                // A role stays where it is until it is dropped.
                Err(_) if late && !matches!(handle, Handle::Postgres { .. } | Handle::Kubernetes { .. }) => {
                    Some(LeaseAction::Expired)
                }
                Err(error) => {
                    told.why = Some(short(&format!("{why}; {error}")));
                    None
                }
            };
            if let Some(action) = action {
                let _unheard = self.notes.tell(action, &told).await;
                return;
            }
            sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
    }

    /// Ends all leases that are meant.
    pub(super) fn end_those(self: &Arc<Self>, why: &'static str, meant: impl Fn(&Told) -> bool) {
        for (told, unwanted) in lock(&self.minting).values_mut() {
            *unwanted |= meant(told);
        }
        self.end_live(why, |owed| meant(&owed.told));
    }

    fn end_live(self: &Arc<Self>, why: &'static str, meant: impl Fn(&Owed) -> bool) {
        let those: Vec<_> = lock(&self.live).values().filter(|lease| meant(&lease.owed)).cloned().collect();
        for lease in those {
            self.end(&lease, why.to_owned());
        }
    }

    /// Ends the leases of a run of an agent. Its servers are told that it is over, with what there is; nothing is minted for that.
    pub(super) fn end_session(self: &Arc<Self>, session: String) {
        let mut over = lock(&self.over);
        if over.len() >= MAX_OVER {
            over.pop_front();
        }
        over.push_back(session.clone());
        drop(over);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            sleep(LAST_WORDS).await;
            lock(&this.places).retain(|key, _| key.session != session);
            this.end_those(SESSION_OVER, |told| told.session == session);
        });
    }

    /// Ends all, and mints no more.
    pub(super) fn end_all(self: &Arc<Self>) {
        self.closing.store(true, Ordering::Release);
        self.end_those(CLOSING, |_| true);
    }

    /// Ends those whose secret is not what it was.
    pub(super) fn follow_vault(self: &Arc<Self>) {
        let held = self.held.now();
        self.end_live(OTHER_SECRET, |owed| !is_still(&held, &owed.root));
    }

    /// Revokes what a process has left that is gone.
    pub(super) fn recover(self: &Arc<Self>, left: Vec<Told>) {
        for told in left {
            tokio::spawn(Arc::clone(self).recover_one(told));
        }
    }

    async fn recover_one(self: Arc<Self>, mut told: Told) {
        const WHY: &str = "its gate is gone";
        let held = self.held.now();
        let id = hex::decode(&told.id).and_then(|id| <[u8; 16]>::try_from(id).ok());
        let root = held.value(&told.secret).filter(|root| root.uses.mint.is_some());
        let opened = id.and_then(|id| {
            let sealed = hex::decode(&told.handle)?;
            let bytes = unseal(&held.key_for("lease"), &id, &sealed)?;
            let (handle, with) = serde_json::from_slice(&bytes).ok()?;
            Some((id, handle, with))
        });
        let (Some((id, handle, with)), Some(root)) = (opened, root) else {
            told.why = Some(format!("{WHY}, and there is nothing to revoke it with"));
            let late = now_ms() > told.until_ms;
            let action = if late { LeaseAction::Expired } else { LeaseAction::Left };
            let _unheard = self.notes.tell(action, &told).await;
            return;
        };
        let owed = Owed { told, id, root: Arc::clone(root), with, handle };
        self.release(Arc::new(owed), LeaseAction::Revoked, WHY.to_owned()).await;
    }

    /// What a lease is revoked with, sealed.
    fn sealed(&self, id: &[u8; 16], handle: &Handle, with: &Filled) -> Result<String, String> {
        let bytes = serde_json::to_vec(&(handle, with)).map_err(|error| error.to_string())?;
        let bytes = Zeroizing::new(bytes);
        let sealed =
            seal(&self.held.now().key_for("lease"), id, &bytes).map_err(|error| error.to_string())?;
        Ok(hex::encode(&sealed))
    }
}

/// What is to be minted.
struct Wanted {
    root: Arc<Value>,
    mint: Mint,
    key: Key,
}

/// While a provider is asked.
struct Minting<'a> {
    leases: &'a Leases,
    id: [u8; 16],
}

impl Drop for Minting<'_> {
    fn drop(&mut self) {
        lock(&self.leases.minting).remove(&self.id);
    }
}

/// Whether a secret is what it was.
fn is_still(held: &Holding, before: &Value) -> bool {
    let renews = before.uses.mint.as_ref().is_some_and(Mint::renews_itself);
    let now = held.value(before.name.as_str());
    now.is_some_and(|now| now.uses == before.uses && (renews || now.version == before.version))
}

/// Whether a part of what is minted is kept from agents: it goes somewhere, and is no certificate, which everybody may see.
fn is_secret(root: &Value, at: usize, name: &str) -> bool {
    let is_at = |part: Option<&str>| part.map_or(at == 0, |part| part == name);
    let signs = |slot: &Slot| matches!(slot, Slot::Sigv4 { .. });
    name != "certificate" && root.uses.slots.iter().any(|slot| is_at(slot.part()) || signs(slot))
}

/// Ends a lease when its time is over.
async fn expire(leases: Weak<Leases>, lease: Weak<Lease>) {
    let Some(until_ms) = lease.upgrade().map(|lease| lease.used_until_ms) else { return };
    sleep(Duration::from_millis(until_ms.saturating_sub(now_ms()) + 1)).await;
    if let (Some(leases), Some(lease)) = (leases.upgrade(), lease.upgrade()) {
        leases.end(&lease, "its time is over".to_owned());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is asked for, for the log.
fn in_words(with: &Filled, ttl: u64) -> String {
    let of_whom = |name: &str| {
        name.ends_with("url")
            || matches!(name, "ca" | "client_auth" | "client_id" | "issuer" | "server" | "ttl" | "until_ms")
    };
    let said = with.iter().filter(|(name, _)| !of_whom(name)).map(|(name, text)| format!("{name}={text}"));
    let mut words: Vec<String> = said.collect();
    words.push(format!("ttl={ttl}"));
    words.join(" ").chars().take(MAX_GRANTED).collect()
}

fn short(why: &str) -> String {
    why.chars().take(MAX_WHY).collect()
}
