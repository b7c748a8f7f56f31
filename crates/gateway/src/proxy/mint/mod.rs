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

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use toolgate_broker::lease::{LeaseAction, Told};
use toolgate_broker::vault::keys::{derive, seal, unseal};
use toolgate_broker::vault::mint::Filled;
use toolgate_broker::vault::process::Value;
use toolgate_broker::vault::{Mint, Provider};
use toolgate_core::hex;
use toolgate_core::json;
use zeroize::Zeroizing;

use super::clean::{Held, MintedValue};
use super::notes::Notes;
pub(super) use aws::{Keys, sign_request};
pub(super) use fetch::Fetch;
use time::now_ms;

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

/// How many leases there may be at once.
const MAX_LEASES: usize = 4_096;

/// How long the reason of a failure may be.
const MAX_WHY: usize = 256;

/// A part of what was minted, and its name.
type Part = (&'static str, Zeroizing<Vec<u8>>);

/// What a provider has minted.
struct Minted {
    /// The first is the one that is meant where none is named.
    parts: Vec<Part>,
    /// Parts whose names the provider makes.
    named: Vec<(String, Zeroizing<Vec<u8>>)>,
    /// When it ends by itself, in milliseconds since 1970.
    until_ms: u64,
    /// What it may do, as the provider says.
    granted: String,
    /// What it is revoked with.
    handle: Handle,
    /// Why it is not to be used, if it is not: it is more than what was asked for.
    unfit: Option<String>,
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
    },
}

impl Handle {
    /// Whether something stays behind when its time is over.
    const fn has_to_be_tidied(&self) -> bool {
        match self {
            Self::Kubernetes { .. } | Self::Postgres { .. } => true,
            Self::None | Self::Github { .. } | Self::Oauth { .. } | Self::Openbao { .. } => false,
        }
    }
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
            Provider::Postgres => Handle::Postgres { role: postgres::role(self.id) },
            Provider::Kubernetes if self.get("revocable") == Some("yes") => {
                Handle::Kubernetes { secret: kubernetes::secret(self.id) }
            }
            _ => Handle::None,
        }
    }

    async fn mint(&self) -> Result<Minted, String> {
        let minting = async {
            match self.provider {
                Provider::AwsSts => aws::mint(self).await,
                Provider::GithubApp => github::mint(self).await,
                Provider::Google => google::mint(self).await,
                Provider::Jwt => sign::mint(self),
                Provider::Kubernetes => kubernetes::mint(self).await,
                Provider::OauthClient | Provider::OauthExchange => oauth::mint(self).await,
                Provider::Openbao => openbao::mint(self).await,
                Provider::Postgres => postgres::mint(self).await,
                Provider::SshCertificate => ssh::mint(self),
            }
        };
        let minted = timeout(PATIENCE, minting).await.map_err(|_elapsed| "it took too long".to_owned())??;
        let now = now_ms();
        let ended = minted.until_ms <= now + TOO_LATE_MS;
        let unfit = minted.unfit.or(ended.then(|| "what was minted has ended already".to_owned()));
        // Whoever says that it lasts for ever is not believed.
        let most = now + self.provider.ttl().1.max(self.ttl) * 1_000 + SLACK_MS;
        Ok(Minted { until_ms: minted.until_ms.min(most), unfit, ..minted })
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
                Handle::Postgres { role } => postgres::revoke(self, role).await,
            }
        };
        timeout(PATIENCE, revoking).await.map_err(|_elapsed| "it took too long".to_owned())?
    }
}

/// A credential that was minted.
pub(super) struct Lease {
    told: Told,
    id: [u8; 16],
    /// What it was minted from, and will be revoked with.
    root: Arc<Value>,
    with: Filled,
    parts: Vec<(String, Zeroizing<Vec<u8>>)>,
    handle: Handle,
    began_ms: u64,
    /// Whether nobody is to get it any more.
    unwanted: AtomicBool,
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

    /// When it ends by itself.
    pub(super) const fn until_ms(&self) -> u64 {
        self.told.until_ms
    }

    /// From when on another one is minted: four fifths of its life.
    pub(super) const fn renew_ms(&self) -> u64 {
        self.began_ms + (self.told.until_ms.saturating_sub(self.began_ms)) / 5 * 4
    }

    fn is_good(&self, now: u64) -> bool {
        let wanted = !self.unwanted.load(Ordering::Acquire) && !self.ended.load(Ordering::Acquire);
        wanted && now + TOO_LATE_MS < self.told.until_ms
    }
}

/// Whose a lease is, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    session: String,
    server: String,
    secret: String,
    version: u32,
    with: Vec<(String, String)>,
}

/// What is kept of leases with one key. Guards that one asks the provider at a time.
type Place = Arc<tokio::sync::Mutex<Option<Arc<Lease>>>>;

/// All leases of this process.
pub(super) struct Leases {
    held: Arc<Held>,
    notes: Notes,
    fetch: Fetch,
    places: Mutex<HashMap<Key, Place>>,
    /// Those that may be good for something.
    live: Mutex<HashMap<[u8; 16], Arc<Lease>>>,
    closing: AtomicBool,
}

impl Leases {
    pub(super) fn new(held: Arc<Held>, notes: Notes, fetch: Fetch) -> Arc<Self> {
        let (places, live) = (Mutex::default(), Mutex::default());
        Arc::new(Self { held, notes, fetch, places, live, closing: AtomicBool::new(false) })
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
            version: root.version,
            with: with.iter().map(|(name, text)| (name.clone(), text.clone())).collect(),
        };
        let kept = self.place(&key)?;
        let mut place = kept.lock().await;
        let now = now_ms();
        if let Some(lease) = place.as_ref().filter(|lease| lease.is_good(now) && now < lease.renew_ms()) {
            return Ok(Arc::clone(lease));
        }
        match self.mint(root, mint, with, server, session).await {
            Ok(lease) => {
                let still = lock(&self.places).get(&key).is_some_and(|place| Arc::ptr_eq(place, &kept));
                if !still {
                    self.end(lease, SESSION_OVER).await;
                    return Err(SESSION_OVER.to_owned());
                }
                Ok(Arc::clone(place.insert(lease)))
            }
            Err(why) => match place.as_ref().filter(|lease| lease.is_good(now_ms())) {
                // It is still good for a fifth of its life.
                Some(lease) => Ok(Arc::clone(lease)),
                None => {
                    Err(format!("`{}` mints nothing from the secret `{}`: {why}", mint.provider(), root.name))
                }
            },
        }
    }

    fn place(&self, key: &Key) -> Result<Place, String> {
        if self.closing.load(Ordering::Acquire) {
            return Err("the gate is closing".to_owned());
        }
        let mut places = lock(&self.places);
        if places.len() >= MAX_LEASES && !places.contains_key(key) {
            // What nobody uses and holds nothing.
            places.retain(|_, place| {
                Arc::strong_count(place) > 1
                    || place.try_lock().is_ok_and(|place| {
                        place.as_ref().is_some_and(|lease| !lease.ended.load(Ordering::Acquire))
                    })
            });
            if places.len() >= MAX_LEASES {
                return Err("there are too many leases at once".to_owned());
            }
        }
        Ok(Arc::clone(places.entry(key.clone()).or_default()))
    }

    async fn mint(
        self: &Arc<Self>,
        root: &Arc<Value>,
        mint: &Mint,
        with: Filled,
        server: &str,
        session: &str,
    ) -> Result<Arc<Lease>, String> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| error.to_string())?;
        let (provider, ttl) = (mint.provider(), mint.ttl());
        let asked = Asked { fetch: &self.fetch, id: &id, provider, root: &root.value, with: &with, ttl };
        let began_ms = now_ms();
        let before = asked.handle_before();
        let mut told = Told {
            id: hex::encode(&id),
            secret: root.name.to_string(),
            provider: provider.to_string(),
            server: server.to_owned(),
            session: session.to_owned(),
            until_ms: began_ms + provider.ttl().1.max(ttl) * 1_000 + SLACK_MS,
            handle: self.sealed(&id, &before)?,
            requested: Some(in_words(&with, ttl)),
            granted: None,
            fingerprint: None,
            why: None,
        };
        self.notes.tell(LeaseAction::Asked, &told).await?;
        let minted = match asked.mint().await {
            Ok(minted) => minted,
            Err(why) => {
                self.give_up(&asked, &before, told, &why).await;
                return Err(why);
            }
        };
        let Minted { parts, named, until_ms, granted, handle, unfit } = minted;
        let parts: Vec<(String, Zeroizing<Vec<u8>>)> =
            parts.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(named).collect();
        // Nobody says it from now on, not even in the answer that tells us of it.
        let values = parts.iter().map(|(_, value)| MintedValue {
            name: root.name.clone(),
            value: value.clone(),
            until_ms: until_ms + SLACK_MS,
        });
        self.held.change(|held| held.with_minted(values.collect(), began_ms));
        told.until_ms = until_ms;
        told.handle = self.sealed(&id, &handle)?;
        told.fingerprint = parts.first().map(|(_, value)| {
            let mac = derive(&*self.held.now().key_for("fingerprint"), &[value]);
            hex::encode(mac.first_chunk::<8>().map_or(&[], <[u8; 8]>::as_slice))
        });
        told.granted = Some(granted);
        if let Some(why) = unfit {
            self.give_up(&asked, &handle, told, &why).await;
            return Err(why);
        }
        let lease = Arc::new(Lease {
            told,
            id,
            root: Arc::clone(root),
            with,
            parts,
            handle,
            began_ms,
            unwanted: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        lock(&self.live).insert(id, Arc::clone(&lease));
        if let Err(why) = self.notes.tell(LeaseAction::Minted, &lease.told).await {
            // It was not written down: nobody gets it.
            self.end(lease, "it could not be written down").await;
            return Err(why);
        }
        // Its session may have ended meanwhile, or all.
        if self.closing.load(Ordering::Acquire) {
            self.end(lease, "the gate is closing").await;
            return Err("the gate is closing".to_owned());
        }
        tokio::spawn(expire(Arc::downgrade(self), Arc::downgrade(&lease)));
        Ok(lease)
    }

    /// Gives back what could not be used: what went wrong may have left something behind all the same.
    async fn give_up(&self, asked: &Asked<'_>, handle: &Handle, mut told: Told, why: &str) {
        match asked.revoke(handle).await {
            Ok(_) => {
                told.why = Some(short(why));
                let _unheard = self.notes.tell(LeaseAction::Failed, &told).await;
            }
            // Its row stays, and whoever starts next tries again.
            Err(_not_revoked) => {}
        }
    }

    /// Revokes a lease, or says that it cannot be.
    async fn end(&self, lease: Arc<Lease>, why: &str) {
        if lease.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        lock(&self.live).remove(&lease.id);
        self.release(&lease.id, &lease.root, &lease.with, &lease.handle, lease.told.clone(), why).await;
    }

    async fn release(
        &self,
        id: &[u8; 16],
        root: &Value,
        with: &Filled,
        handle: &Handle,
        mut told: Told,
        why: &str,
    ) {
        let Some(mint) = &root.uses.mint else { return };
        let (provider, ttl) = (mint.provider(), mint.ttl());
        let asked = Asked { fetch: &self.fetch, id, provider, root: &root.value, with, ttl };
        told.why = Some(why.to_owned());
        if now_ms() > told.until_ms && !handle.has_to_be_tidied() {
            let _unheard = self.notes.tell(LeaseAction::Expired, &told).await;
            return;
        }
        let (mut wait, longest) = AGAIN;
        // Should this process end before, its row is there, and whoever starts next tries.
        loop {
            match asked.revoke(handle).await {
                Ok(revoked) => {
                    let action = if revoked { LeaseAction::Revoked } else { LeaseAction::Left };
                    let _unheard = self.notes.tell(action, &told).await;
                    return;
                }
                Err(error) => told.why = Some(short(&format!("{why}; {error}"))),
            }
            if now_ms() > told.until_ms && !handle.has_to_be_tidied() {
                let _unheard = self.notes.tell(LeaseAction::Expired, &told).await;
                return;
            }
            sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
    }

    /// Ends all leases that are meant.
    pub(super) fn end_those(self: &Arc<Self>, why: &'static str, meant: impl Fn(&Told) -> bool) {
        let those: Vec<_> = lock(&self.live).values().filter(|lease| meant(&lease.told)).cloned().collect();
        // From now on nobody gets one of them, however long revoking takes.
        those.iter().for_each(|lease| lease.unwanted.store(true, Ordering::Release));
        for lease in those {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.end(lease, why).await });
        }
    }

    /// Ends the leases of a run of an agent.
    pub(super) fn end_session(self: &Arc<Self>, session: &str) {
        lock(&self.places).retain(|key, _| key.session != session);
        self.end_those(SESSION_OVER, |told| told.session == session);
    }

    /// Ends all, and mints no more.
    pub(super) fn end_all(self: &Arc<Self>) {
        self.closing.store(true, Ordering::Release);
        self.end_those("the gate stops", |_| true);
    }

    /// Ends those whose secret is not what it was.
    pub(super) fn follow_vault(self: &Arc<Self>) {
        let held = self.held.now();
        let live: Vec<_> = lock(&self.live).values().cloned().collect();
        for lease in live {
            let same = held
                .value(lease.root.name.as_str())
                .is_some_and(|now| (now.version, &now.uses) == (lease.root.version, &lease.root.uses));
            if !same {
                let this = Arc::clone(self);
                tokio::spawn(async move { this.end(lease, "its secret is not what it was").await });
            }
        }
    }

    /// Revokes what a process has left that is gone.
    pub(super) fn recover(self: &Arc<Self>, left: Vec<Told>) {
        for told in left {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.recover_one(told).await });
        }
    }

    async fn recover_one(&self, mut told: Told) {
        const WHY: &str = "its gate is gone";
        let held = self.held.now();
        let id = hex::decode(&told.id).and_then(|id| <[u8; 16]>::try_from(id).ok());
        let root = held.value(&told.secret);
        let opened = id.and_then(|id| {
            let sealed = hex::decode(&told.handle)?;
            let bytes = unseal(&held.key_for("lease"), &id, &sealed)?;
            let handle: Handle = serde_json::from_slice(&bytes).ok()?;
            Some((id, handle))
        });
        match (opened, root) {
            (Some((id, handle)), Some(root)) if root.uses.mint.is_some() => {
                let with = root.uses.mint.as_ref().map(|mint| mint.with().clone()).unwrap_or_default();
                self.release(&id, root, &with, &handle, told, WHY).await;
            }
            (Some(_), _) | (None, _) => {
                told.why = Some(format!("{WHY}, and there is nothing to revoke it with"));
                let late = now_ms() > told.until_ms;
                let action = if late { LeaseAction::Expired } else { LeaseAction::Left };
                let _unheard = self.notes.tell(action, &told).await;
            }
        }
    }

    fn sealed(&self, id: &[u8; 16], handle: &Handle) -> Result<String, String> {
        let bytes = Zeroizing::new(serde_json::to_vec(handle).map_err(|error| error.to_string())?);
        let sealed =
            seal(&self.held.now().key_for("lease"), id, &bytes).map_err(|error| error.to_string())?;
        Ok(hex::encode(&sealed))
    }
}

/// Ends a lease when its time is over.
async fn expire(leases: Weak<Leases>, lease: Weak<Lease>) {
    let Some(until_ms) = lease.upgrade().map(|lease| lease.until_ms()) else { return };
    sleep(Duration::from_millis(until_ms.saturating_sub(now_ms()) + 1)).await;
    if let (Some(leases), Some(lease)) = (leases.upgrade(), lease.upgrade()) {
        leases.end(lease, "its time is over").await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is asked for, for the log.
fn in_words(with: &Filled, ttl: u64) -> String {
    let of_whom = |name: &str| name.ends_with("url") || matches!(name, "ca" | "ttl" | "client_id");
    let said = with.iter().filter(|(name, _)| !of_whom(name)).map(|(name, text)| format!("{name}={text}"));
    let mut words: Vec<String> = said.collect();
    words.push(format!("ttl={ttl}"));
    words.join(" ").chars().take(1_024).collect()
}

fn short(why: &str) -> String {
    why.chars().take(MAX_WHY).collect()
}
