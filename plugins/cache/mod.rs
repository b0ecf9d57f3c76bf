//! cache: answers from memory while the TTL lasts.
//!
//! ```text
//!   query ──▶ look (one shard's lock) ──▶ hit: copy, age, answer
//!                    │
//!                    ├─▶ first to miss: leads, goes on down the chain ──▶ fill ──▶ store, wake the others
//!                    └─▶ somebody asks already: waits, looks again
//! ```
//! `store` keeps octets in order of use, `age` judges messages and their TTLs, `flight` joins equal questions,
//! `config` reads the Dnsfile. What is decided between them is decided here.

mod age;
mod config;
#[cfg(test)]
mod fixtures;
mod flight;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::kit::clock;
use crate::kit::errors::{ServeError, SetupErrors};
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::lookup::Lookup;
use crate::kit::metrics::{CounterTable, Metrics, Reading};
use crate::kit::options::Checked;
use crate::kit::query::{Facts, ListenerId, Query, flags};
use crate::kit::response::{Response, Source};
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Opcode, Rcode, Rtype};

use age::{Class, Judgement};
use config::{Config, StaleMode};
use flight::{Flight, Gathering, Role, Shared};
use store::{Entry, Evicted, Key, Kind, Locked, Shard, Store, Subject, Ttls};

pub(crate) use config::PLUGIN;

/// Refreshes in the background at a time, in the whole process: as many upstream questions at most that no client waits for.
const REFRESHES_MAX: usize = 1_000;
/// How often a query waits for others before it asks for itself.
const WAITS_MAX: usize = 4;
/// Stale Answer (RFC 8914 §4.4).
const EDE_STALE: u16 = 3;
/// Stale NXDOMAIN Answer (RFC 8914 §4.20).
const EDE_STALE_NXDOMAIN: u16 = 19;

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let Some(directive) = directives.first() else {
        return Ok(());
    };
    let config = Config::read(directive, server)?;
    let names: Vec<&str> = match &config.zones {
        Some(zones) => zones.iter().map(|zone| zone.text.as_str()).collect(),
        None => server
            .zones()
            .iter()
            .map(|zone| zone.text.as_str())
            .collect(),
    };
    let zones = names.join(",");
    let listeners: Vec<&str> = server
        .listeners()
        .iter()
        .map(|(_, name)| name.as_str())
        .collect();
    // What was stored under other limits is not taken over: it may live longer than the new ones allow.
    let key = format!(
        "cache {} {zones} {:?} {:?}",
        listeners.join(","),
        config.limits,
        config.rules
    );
    let limits = config.limits;
    let store = server.keep(&key, || Store::new(limits));
    let meters = server
        .listeners()
        .iter()
        .map(|(id, name)| (*id, Meters::new(server.metrics(), name, &zones)))
        .collect();
    let readings = server
        .listeners()
        .iter()
        .flat_map(|(_, name)| readings(server.metrics(), &store, name, &zones))
        .collect();
    let inner = Arc::new(Inner {
        config,
        store,
        lookup: server.lookup(),
        meters,
    });
    server.chain(Cache {
        inner,
        _readings: readings,
    });
    Ok(())
}

/// The plugin at work in a server block.
struct Cache {
    inner: Arc<Inner>,
    _readings: Vec<Reading>,
}

/// What its refreshes share with it.
struct Inner {
    config: Config,
    store: Arc<Store>,
    lookup: Lookup,
    meters: Vec<(ListenerId, Meters)>,
}

impl Handler for Cache {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        let inner = &*self.inner;
        if !inner.concerns(&query) {
            return next.serve(query);
        }
        if let Some(meters) = inner.meters(query.listener()) {
            meters.requests.inc(&[]);
        }
        match self.look(query, Look::First) {
            Found::Hit(response) => Served::Now(response),
            Found::Miss(query, key, role) => self.ask(query, key, role, next),
            Found::Verify(query, gathering) => {
                let at_most = inner.config.stale.as_ref().and_then(|stale| stale.timeout);
                let wait = Wait {
                    gathering,
                    at_most,
                    has_stale: true,
                };
                Served::later(self.wait(query, next, wait))
            }
        }
    }
}

impl Edit for Cache {
    fn edit(&self, response: Response) -> Response {
        self.inner.fill(response, None, Purpose::Answer)
    }

    // The note is the hash of the flight that ends with this response; no flight has hash 0.
    fn edit_noted(&self, response: Response, note: u64) -> Response {
        let flight = (note != 0).then_some(note);
        self.inner.fill(response, flight, Purpose::Answer)
    }

    fn abandoned(&self, note: u64) {
        if note != 0 {
            self.inner.release(note);
        }
    }
}

//--- Looking ---------------------------------------------------------------------------------------

/// A question that we ask ourselves never waits for another one: that one may be waiting for us.
fn may_wait(query: &Facts) -> bool {
    !query.is_internal()
}

/// How a query comes to look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// For the first time.
    First,
    /// After a wait.
    Again,
}

/// What it finds.
enum Found {
    Hit(Response),
    Miss(Query, Key, Role),
    /// A stale answer whose replacement is under way.
    Verify(Query, Arc<Gathering>),
}

/// What is known about an entry without holding it.
#[derive(Clone, Copy)]
struct Glance {
    class: Class,
    is_fresh: bool,
}

impl Cache {
    fn look(&self, query: Query, look: Look) -> Found {
        let inner = &*self.inner;
        let now_ms = match look {
            Look::First => inner.store.ms(query.received_at()),
            Look::Again => inner.store.ms(clock::now()),
        };
        let subject = Subject::of(&query);
        if let Some(full) = subject.with_recursion()
            && let key = inner.store.key(&full)
            && let mut shard = inner.store.shard(key.hash)
            && let Some((kind, true)) = inner.choose(&shard, key, &full, now_ms)
            && let Some(entry) = shard.get(kind, key, &full)
        {
            inner.count_hit(look, query.listener(), kind);
            let response = entry.answer(query, inner.ttls(entry, now_ms), Source::Cache);
            return Found::Hit(response);
        }
        let key = inner.store.key(&subject);
        let mut shard = inner.store.shard(key.hash);
        // The way of most queries, with one look into each table.
        if shard.peek(Kind::Denial, key, &subject).is_none()
            && let Some(entry) = shard.get(Kind::Success, key, &subject)
            && entry.is_fresh(now_ms)
        {
            inner.count_hit(look, query.listener(), Kind::Success);
            let (response, is_due) = inner.serve_fresh(entry, query, now_ms);
            return self.hit(response, is_due, key, shard);
        }
        let Some((kind, is_fresh)) = inner.choose(&shard, key, &subject, now_ms) else {
            let role = shard.join(key, &subject, may_wait(&query));
            drop(shard);
            if let (Look::First, Some(meters)) = (look, inner.meters(query.listener())) {
                meters.misses.inc(&[]);
            }
            return Found::Miss(query, key, role);
        };
        inner.count_hit(look, query.listener(), kind);
        if is_fresh && let Some(entry) = shard.get(kind, key, &subject) {
            let (response, is_due) = inner.serve_fresh(entry, query, now_ms);
            return self.hit(response, is_due, key, shard);
        }
        drop(shard);
        self.look_stale(query, look, key, kind, now_ms)
    }

    fn hit(&self, response: Response, is_due: bool, key: Key, mut shard: Locked<'_>) -> Found {
        if is_due && shard.depart(key) {
            drop(shard);
            Inner::refresh(&self.inner, response.query(), key, Purpose::Prefetch);
        }
        Found::Hit(response)
    }

    /// For a query whose answer is stale: that answer, or a look at what is under way to replace it (RFC 8767 §5).
    #[cold]
    fn look_stale(&self, query: Query, look: Look, key: Key, kind: Kind, now_ms: u64) -> Found {
        let inner = &*self.inner;
        let subject = Subject::of(&query);
        let mut shard = inner.store.shard(key.hash);
        let (Some(stale), Some(entry)) = (&inner.config.stale, shard.get(kind, key, &subject))
        else {
            return Found::Miss(query, key, Role::Alone);
        };
        let may_refresh = seconds(now_ms) >= entry.retry_at;
        let response_ttl = Ttls::Fixed(stale.response_ttl);
        if stale.mode == StaleMode::Verify {
            if look == Look::First && may_refresh {
                match shard.join(key, &subject, may_wait(&query)) {
                    Role::Follow(gathering) => return Found::Verify(query, gathering),
                    Role::Lead => {
                        let gathering = shard.gather(key);
                        drop(shard);
                        if Inner::refresh(&self.inner, &query, key, Purpose::Verify) {
                            return Found::Verify(query, gathering);
                        }
                        shard = inner.store.shard(key.hash);
                    }
                    Role::Alone | Role::Full => {}
                }
            }
            return match shard.get(kind, key, &Subject::of(&query)) {
                Some(entry) => {
                    let response = entry.answer(query, response_ttl, Source::Stale);
                    Found::Hit(inner.stale(response))
                }
                None => Found::Miss(query, key, Role::Alone),
            };
        }
        let response = entry.answer(query, response_ttl, Source::Stale);
        if may_refresh && shard.depart(key) {
            drop(shard);
            Inner::refresh(&self.inner, response.query(), key, Purpose::Stale);
        }
        Found::Hit(inner.stale(response))
    }
}

impl Inner {
    /// Whether the query is the cache's business at all.
    fn concerns(&self, query: &Query) -> bool {
        query.opcode() == Opcode::QUERY
            && !matches!(query.qtype(), Rtype::AXFR | Rtype::IXFR)
            && match &self.config.zones {
                Some(zones) => zones.cover(query.qname()).is_some(),
                None => true,
            }
    }

    /// The response made of a fresh entry, and whether the entry is to be asked for again.
    fn serve_fresh(&self, entry: &mut Entry, query: Query, now_ms: u64) -> (Response, bool) {
        let prefetch = self.config.prefetch.as_ref();
        let is_due = prefetch.is_some_and(|prefetch| is_due(prefetch, entry, now_ms));
        let response = entry.answer(query, self.ttls(entry, now_ms), Source::Cache);
        (response, is_due)
    }

    /// Which of the two stores answers, if one can, and whether its answer is fresh.
    fn choose(
        &self,
        shard: &Shard,
        key: Key,
        subject: &Subject<'_>,
        now_ms: u64,
    ) -> Option<(Kind, bool)> {
        let denial = self.glance(shard.peek(Kind::Denial, key, subject), now_ms);
        let success = self.glance(shard.peek(Kind::Success, key, subject), now_ms);
        let answers = |glance: Glance| Some((Kind::Success, glance.is_fresh));
        match (denial, success) {
            (None, None) => None,
            (None, Some(success)) => answers(success),
            // A failure hides no answer.
            (Some(denial), Some(success)) if denial.class == Class::Failure => answers(success),
            (Some(_), Some(success))
                if self.config.prefers_positive() && success.class == Class::Answer =>
            {
                answers(success)
            }
            (Some(denial), Some(success)) if success.is_fresh && !denial.is_fresh => {
                answers(success)
            }
            (Some(denial), _) => Some((Kind::Denial, denial.is_fresh)),
        }
    }

    /// What can be seen of an entry, if it can be served, fresh or stale.
    fn glance(&self, entry: Option<&Entry>, now_ms: u64) -> Option<Glance> {
        let entry = entry?;
        let (age, life) = (entry.age(now_ms), entry.life());
        let is_fresh = age < life;
        let is_usable = is_fresh
            || self.config.stale.as_ref().is_some_and(|stale| {
                // RFC 8767 §4: what failed is no data, so it does not become stale.
                entry.class() != Class::Failure && u64::from(age - life) < stale.duration.as_secs()
            });
        is_usable.then_some(Glance {
            class: entry.class(),
            is_fresh,
        })
    }

    fn ttls(&self, entry: &Entry, now_ms: u64) -> Ttls {
        if self.config.keep_ttl {
            Ttls::Stored
        } else {
            Ttls::Aged(entry.age(now_ms))
        }
    }

    /// Says of a response that it is stale.
    fn stale(&self, mut response: Response) -> Response {
        let code = match response.rcode() {
            Rcode::NXDOMAIN => EDE_STALE_NXDOMAIN,
            _ => EDE_STALE,
        };
        response.add_ede(code, "");
        if let Some(meters) = self.meters(response.query().listener()) {
            meters.served_stale.inc(&[]);
        }
        response
    }
}

/// Counts a hit and says whether the entry is to be asked for again before it ends.
fn is_due(prefetch: &config::Prefetch, entry: &mut Entry, now_ms: u64) -> bool {
    let now = seconds(now_ms);
    let paused = u64::from(now.saturating_sub(entry.last_hit)) > prefetch.pause.as_secs();
    entry.hits = if entry.hits == 0 || paused {
        1
    } else {
        entry.hits.saturating_add(1)
    };
    entry.last_hit = now;
    let left = entry.life().saturating_sub(entry.age(now_ms));
    let threshold = (u64::from(entry.life()) * u64::from(prefetch.percent)).div_ceil(100);
    entry.hits >= prefetch.amount && u64::from(left) <= threshold && now >= entry.retry_at
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1000).unwrap_or(u32::MAX)
}

//--- Asking ----------------------------------------------------------------------------------------

/// What a query waits for.
struct Wait {
    gathering: Arc<Gathering>,
    at_most: Option<Duration>,
    /// A stale answer is at hand.
    has_stale: bool,
}

/// A flight that nobody has taken charge of yet: released if a handler panics before it returns.
struct Unreturned<'c>(&'c Inner, u64);

impl Drop for Unreturned<'_> {
    fn drop(&mut self) {
        self.0.release(self.1);
    }
}

impl Cache {
    /// Goes on with a query that missed.
    fn ask<'c>(&'c self, query: Query, key: Key, role: Role, next: Next<'c>) -> Served<'c> {
        match role {
            Role::Lead => {
                let unreturned = Unreturned(&self.inner, key.hash);
                let served = next.serve(asking_for_ad(query));
                std::mem::forget(unreturned);
                served.then_noted(self, key.hash)
            }
            Role::Alone => next.serve(asking_for_ad(query)).then(self),
            Role::Follow(gathering) => {
                let wait = Wait {
                    gathering,
                    at_most: None,
                    has_stale: false,
                };
                Served::later(self.wait(query, next, wait))
            }
            Role::Full => Served::Now(query.fail(ServeError::Limit(
                "cache: too many queries wait for the same answer".into(),
            ))),
        }
    }

    /// Waits for the query that asks the same already.
    async fn wait(&self, mut query: Query, next: Next<'_>, mut wait: Wait) -> Response {
        for _ in 0..WAITS_MAX {
            let is_done = wait.gathering.wait(wait.at_most).await;
            if let Some(shared) = wait.gathering.answer()
                && is_done
                && shared.entry.matches(&Subject::of(&query))
                && (shared.is_good || !wait.has_stale)
                && (!shared.is_truncated || shared.transport == query.transport())
            {
                return shared.entry.answer(query, Ttls::Stored, Source::Upstream);
            }
            match self.look(query, Look::Again) {
                Found::Hit(response) => return response,
                Found::Miss(back, _, Role::Follow(gathering)) => {
                    query = back;
                    wait = Wait {
                        gathering,
                        at_most: None,
                        has_stale: false,
                    };
                }
                Found::Miss(query, key, role) => {
                    return self.ask(query, key, role, next).response().await;
                }
                // Only a first look verifies.
                Found::Verify(back, gathering) => {
                    query = back;
                    wait.gathering = gathering;
                }
            }
        }
        next.serve(asking_for_ad(query)).then(self).response().await
    }
}

/// The query with AD set, as CoreDNS asks: an answer that is kept serves also those who want to know whether it is authentic.
/// The edge takes AD from the others.
fn asking_for_ad(mut query: Query) -> Query {
    query.set_flags(flags::AD, 0);
    query
}

//--- Filling ---------------------------------------------------------------------------------------

/// Why a response was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// A client waits for it.
    Answer,
    /// A popular answer is about to end.
    Prefetch,
    /// A stale one was served.
    Stale,
    /// A stale one is at hand, and its client waits for a better one.
    Verify,
}

impl Inner {
    /// Keeps what may be kept of a response, puts its TTLs within bounds and ends its flight.
    fn fill(&self, mut response: Response, flight: Option<u64>, purpose: Purpose) -> Response {
        if response.is_ignored() || response.wire().is_empty() {
            flight.inspect(|hash| self.release(*hash));
            return response;
        }
        let query = response.query();
        let listener = query.listener();
        let rules = &self.config.rules;
        let judgement = if response.is_not_stored() {
            Judgement::passing(&response, rules)
        } else {
            let unix_now = if query.dnssec_ok() { unix_seconds() } else { 0 };
            age::judge(&response, query, rules, unix_now)
        };
        if judgement.is_alien {
            // It says nothing about this question: it is not ours to change.
            if let Some(meters) = self.meters(listener) {
                meters.drops.inc(&[]);
            }
            flight.inspect(|hash| self.release(*hash));
            return response;
        }
        let life = judgement.apply(response.wire_mut());
        let query = response.query();
        let subject = Subject::of(query);
        let key = self.store.key(&subject);
        // Our own failure (an upstream that is gone, a limit) is not kept, as in CoreDNS: it may be over at once.
        let keep = judgement.keep.filter(|class| {
            life > 0
                && response.error().is_none()
                && flight.is_none_or(|hash| hash == key.hash)
                && !self.config.disabled(class.kind(), query.qname())
        });
        let now_ms = self.store.ms(clock::now());
        // Made before the lock is taken.
        let entry = keep.and_then(|class| Entry::new(&response, &subject, class, life, now_ms));
        let flight = flight.filter(|hash| {
            let is_ours = *hash == key.hash;
            if !is_ours {
                // A handler behind us changed the question's flags: those who wait shall ask for themselves.
                self.release(*hash);
            }
            is_ours
        });
        let is_good = match judgement.keep {
            Some(class) => class != Class::Failure,
            None => response.is_not_stored() && response.rcode() != Rcode::SERVFAIL,
        };

        let mut shard = self.store.shard(key.hash);
        let mut evicted = None;
        if let Some(mut entry) = entry
            && self.may_replace(&shard, key, &subject, entry.class(), now_ms)
        {
            let kind = entry.class().kind();
            if purpose != Purpose::Answer
                && let Some(old) = shard.peek(kind, key, &subject)
            {
                (entry.hits, entry.last_hit) = (old.hits, old.last_hit);
            }
            evicted = Some(shard.put(kind, key, entry));
            if kind == Kind::Success {
                shard.remove(Kind::Denial, key);
            }
        }
        if purpose != Purpose::Answer
            && !is_good
            && let Some(stale) = &self.config.stale
        {
            shard.retry_at(key, seconds(now_ms).saturating_add(stale.recheck));
        }
        let flight = flight.and_then(|hash| shard.flights.remove(&hash));
        drop(shard);

        if let Some(gathering) = flight.and_then(Flight::into_gathering) {
            if evicted.is_none()
                && let Some(entry) = Entry::new(&response, &subject, Class::Failure, 0, now_ms)
            {
                gathering.leave(Shared {
                    entry,
                    transport: query.transport(),
                    is_good,
                    is_truncated: response.is_truncated(),
                });
            }
            gathering.end();
        }
        if let (Some(evicted), Some(meters)) = (evicted, self.meters(listener)) {
            meters.count_evicted(evicted);
        }
        response
    }

    /// Whether an answer of this class may take the place of what is there.
    fn may_replace(
        &self,
        shard: &Shard,
        key: Key,
        subject: &Subject<'_>,
        class: Class,
        now_ms: u64,
    ) -> bool {
        let there = |kind| self.glance(shard.peek(kind, key, subject), now_ms);
        match class {
            // RFC 8767 §5: a failure to refresh is no reason to forget what is still good enough.
            Class::Failure => there(Kind::Denial).is_none_or(|old| old.class == Class::Failure),
            Class::Empty if self.config.prefers_positive() => {
                there(Kind::Success).is_none_or(|old| old.class != Class::Answer)
            }
            _ => true,
        }
    }

    /// Ends a flight without an answer.
    fn release(&self, hash: u64) {
        let flight = self.store.shard(hash).flights.remove(&hash);
        if let Some(gathering) = flight.and_then(Flight::into_gathering) {
            gathering.end();
        }
    }

    /// Asks again in the background; the flight of `key` is registered and is released when it ends. False if it cannot be done now.
    fn refresh(this: &Arc<Inner>, facts: &Facts, key: Key, purpose: Purpose) -> bool {
        let mut flight = Background {
            inner: Arc::clone(this),
            hash: Some(key.hash),
        };
        let (true, Ok(runtime)) = (
            REFRESHES.fetch_add(1, Relaxed) < REFRESHES_MAX,
            tokio::runtime::Handle::try_current(),
        ) else {
            return false;
        };
        if purpose != Purpose::Verify
            && let Some(meters) = this.meters(facts.listener())
        {
            meters.prefetch.inc(&[]);
        }
        let query = asking_for_ad(Query::duplicate(facts));
        runtime.spawn(async move {
            let response = flight.inner.lookup.rest(query).await;
            let hash = flight.hash.take();
            drop(flight.inner.fill(response, hash, purpose));
        });
        true
    }
}

/// Refreshes under way.
static REFRESHES: AtomicUsize = AtomicUsize::new(0);

/// A refresh: whatever becomes of it, those who wait are woken and its place is free again.
struct Background {
    inner: Arc<Inner>,
    hash: Option<u64>,
}

impl Drop for Background {
    fn drop(&mut self) {
        REFRESHES.fetch_sub(1, Relaxed);
        if let Some(hash) = self.hash.take() {
            self.inner.release(hash);
        }
    }
}

/// Now, in seconds since 1970, as signatures count them (RFC 4034 §3.1.5: modulo 2^32).
fn unix_seconds() -> u32 {
    clock::unix_now().as_secs() as u32
}

//--- Metrics ---------------------------------------------------------------------------------------

/// Counters for one listener. A series appears with its first count, as in CoreDNS.
struct Meters {
    requests: CounterTable,
    hits: CounterTable,
    misses: CounterTable,
    prefetch: CounterTable,
    drops: CounterTable,
    served_stale: CounterTable,
    evictions: CounterTable,
}

/// The values of the `type` label, in the order of [`Kind`].
const TYPES: (&str, &[&str]) = ("type", &["success", "denial"]);

impl Meters {
    fn new(metrics: &Metrics, server: &str, zones: &str) -> Meters {
        let labels = [("server", server), ("view", ""), ("zones", zones)];
        let table = |name: &str, help: &str, dims: &[(&str, &[&str])]| {
            metrics.table(name, help, &labels, dims)
        };
        Meters {
            requests: table(
                "coredns_cache_requests_total",
                "Queries that came to the cache.",
                &[],
            ),
            hits: table(
                "coredns_cache_hits_total",
                "Queries answered from the cache.",
                &[TYPES],
            ),
            misses: table(
                "coredns_cache_misses_total",
                "Queries that the cache had no answer for; requests less hits.",
                &[],
            ),
            prefetch: table(
                "coredns_cache_prefetch_total",
                "Answers asked for again before or after they ended.",
                &[],
            ),
            drops: table(
                "coredns_cache_drops_total",
                "Responses that were not to the question asked.",
                &[],
            ),
            served_stale: table(
                "coredns_cache_served_stale_total",
                "Stale answers served.",
                &[],
            ),
            evictions: table(
                "coredns_cache_evictions_total",
                "Entries that had to go for others.",
                &[TYPES],
            ),
        }
    }

    fn count_evicted(&self, evicted: Evicted) {
        for _ in 0..evicted.success {
            self.evictions.inc(&[Kind::Success as usize]);
        }
        for _ in 0..evicted.denial {
            self.evictions.inc(&[Kind::Denial as usize]);
        }
    }
}

impl Inner {
    fn meters(&self, listener: ListenerId) -> Option<&Meters> {
        self.meters
            .iter()
            .find(|(id, _)| *id == listener)
            .map(|(_, meters)| meters)
    }

    fn count_hit(&self, look: Look, listener: ListenerId, kind: Kind) {
        if let (Look::First, Some(meters)) = (look, self.meters(listener)) {
            meters.hits.inc(&[kind as usize]);
        }
    }
}

/// What is read from the store when it is scraped.
fn readings(metrics: &Metrics, store: &Arc<Store>, server: &str, zones: &str) -> Vec<Reading> {
    let labels = [("server", server), ("view", ""), ("zones", zones)];
    let entries = |kind: Kind, word| {
        let store = Arc::clone(store);
        let labels = [
            ("server", server),
            ("type", word),
            ("view", ""),
            ("zones", zones),
        ];
        metrics.gauge_fn(
            "coredns_cache_entries",
            "Entries in the cache.",
            &labels,
            move || store.len(kind) as f64,
        )
    };
    let (used, budget) = (Arc::clone(store), Arc::clone(store));
    vec![
        entries(Kind::Success, "success"),
        entries(Kind::Denial, "denial"),
        metrics.gauge_fn(
            "skeindns_cache_memory_bytes",
            "Octets that the cache takes, tables included.",
            &labels,
            move || used.octets() as f64,
        ),
        metrics.gauge_fn(
            "skeindns_cache_memory_max_bytes",
            "Octets that the cache may take.",
            &labels,
            move || budget.octets_max() as f64,
        ),
    ]
}
