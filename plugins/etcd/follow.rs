//! [`Follower`]: keeps a [`Tree`] equal to what is below a prefix, for as long as anybody answers from it.
//!
//! ```text
//!   start ─▶ ask where the cluster stands ─▶ list at R, page by page ─┐
//!              ▲                          └▶ watch from R+1 ──────────┴─▶ apply
//!              │ back-off, next member                                     │
//!              └── stream ended, silence, compacted, cluster replaced ◀────┘
//! ```
//! One task follows at a time: it holds the baton. The task of a new generation waits for it and goes on where the old one stood, so that a
//! reload reads nothing again. Whatever goes wrong, the tree stays as it was and answers go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::api::{Backend, Error, Event, Header, KeyRange, KeyValue, ListRequest, Page};
use super::api::{WatchMessage, WatchRequest, Watching};
use super::config::{Config, LeaseTtl, Store};
use super::record::Record;
use super::skipped::Skipped;
use super::snapshot::{Position, Snapshot};
use super::store::Embedded;
use super::tree::{Change, Tree};
use crate::kit::clock::{self, Instant};
use crate::kit::dnsfile::Span;
use crate::kit::errors::SetupError;
use crate::kit::metrics::Metrics;
use crate::kit::setup::ServerSetup;

/// Keys that are taken into memory, some 4 GB of them; what comes after is left out, counted and logged.
const KEYS_MAX: usize = 10_000_000;
/// Between two looks at whether the member in use still answers.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Looks in a row that may fail, the second right behind the first; one may be lost to a pause. A member that is frozen is left within two and a
/// half seconds so.
const PROBES_MISSED_MAX: u32 = 2;
/// Looks in a row that another member may have answered than the one that is watched, as behind `etcd gateway`: then the watch is opened again.
const PROBES_ELSEWHERE_MAX: u32 = 5;
/// The first wait after a failure; the next ones double.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest: a cluster that is back is followed again within it, and a thousand servers cost it 200 requests a second until then.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The path of SkyDNS's configuration, which is no record.
const CONFIG: &[u8] = b"config";
/// For how long deletions from before a list are listened for: etcd reads its history at some 100,000 revisions a second.
const PAST_PATIENCE: Duration = Duration::from_secs(30);
/// Changes applied under one lock.
const APPLY_AT_ONCE: usize = 4096;

/// See the module.
pub(super) struct Follower {
    tree: Arc<Tree>,
    snapshot: Option<Arc<Snapshot>>,
    backend: Arc<dyn Backend>,
    prefix: Vec<u8>,
    lease_ttl: LeaseTtl,
    baton: tokio::sync::Mutex<Progress>,
    // Since when nothing has been heard from the cluster; none while it is followed.
    lost_since: Arc<Mutex<Option<Instant>>>,
    source: AtomicU8,
    // When the tree was last known to be what etcd has, in milliseconds since 1970; 0: never.
    confirmed: AtomicU64,
    full: AtomicBool,
    skipped: Mutex<Skipped>,
    meters: Meters,
}

/// How far following has come. Only the task with the baton has it.
struct Progress {
    // Everything up to this revision is in the tree.
    applied: i64,
    cluster: u64,
    // The tree must be compared with a complete list before it can be trusted to be whole.
    list_wanted: bool,
    // Its revisions cannot be compared with the cluster's.
    replaced: bool,
    leases: HashMap<i64, (u32, Instant)>,
    // Keys whose TTL is the shortest, by lease, until the lease's time is known.
    untimed: HashMap<i64, Vec<Vec<u8>>>,
    untimed_keys: usize,
    failures: u32,
    said: Option<String>,
}

/// The follower of a configuration: the one that runs already, or a new one.
pub(super) fn of(
    config: &Config,
    span: Span,
    server: &mut ServerSetup<'_>,
) -> Result<Arc<Follower>, SetupError> {
    let backend = backend(&config.store, span, server)?;
    let labels = (
        String::from_utf8_lossy(&config.prefix).into_owned(),
        backend.endpoints().join(","),
    );
    let metrics = server.metrics().clone();
    let follower = server.keep(&config.follow_key(), || {
        Follower::new(backend, config, &metrics, &labels)
    });
    follower.meter(&metrics, &labels);
    if let Some(snapshot) = follower.snapshot.clone() {
        server.at_stop(async move {
            let writing = tokio::task::spawn_blocking(move || snapshot.write_at_end());
            // What it has to say it has said.
            writing.await.ok();
        });
    }
    let following = Arc::clone(&follower);
    server.background("etcd", async move { following.run().await });
    let ready = Arc::clone(&follower);
    server.ready("etcd", move || ready.tree.is_loaded());
    Ok(follower)
}

fn backend(
    store: &Store,
    span: Span,
    server: &mut ServerSetup<'_>,
) -> Result<Arc<dyn Backend>, SetupError> {
    #[cfg(feature = "testing")]
    if let Some(double) = server.double::<crate::kit::testing::ScriptedStore>() {
        return Ok(Arc::new(super::double::Scripted(double)));
    }
    match store {
        Store::Cluster { backend, .. } => Ok(Arc::clone(backend)),
        Store::Embedded { directory, listen } => {
            Ok(Embedded::set_up(server, span, directory, *listen))
        }
    }
}

impl Follower {
    fn new(
        backend: Arc<dyn Backend>,
        config: &Config,
        metrics: &Metrics,
        (prefix, endpoints): &(String, String),
    ) -> Follower {
        let labels: &[(&str, &str)] = &[("prefix", prefix), ("endpoints", endpoints)];
        let tree = Arc::new(Tree::new());
        let snapshot = config.snapshot.as_ref();
        let snapshot = snapshot.map(|at| {
            Arc::new(Snapshot::new(
                at.file.clone(),
                at.of.clone(),
                Arc::clone(&tree),
            ))
        });
        Follower {
            tree,
            snapshot,
            backend,
            prefix: config.prefix.clone(),
            lease_ttl: config.lease_ttl,
            baton: tokio::sync::Mutex::new(Progress {
                applied: 0,
                cluster: 0,
                list_wanted: true,
                replaced: false,
                leases: HashMap::new(),
                untimed: HashMap::new(),
                untimed_keys: 0,
                failures: 0,
                said: None,
            }),
            lost_since: Arc::new(Mutex::new(Some(clock::now()))),
            full: AtomicBool::new(false),
            meters: Meters::new(metrics, labels),
            source: AtomicU8::new(Source::Nothing as u8),
            confirmed: AtomicU64::new(0),
            skipped: Mutex::default(),
        }
    }

    /// What is answered from.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The members, for errors.
    pub(super) fn endpoints(&self) -> String {
        self.backend.endpoints().join(", ")
    }

    fn lost_for(&self) -> Duration {
        let since = *self
            .lost_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| {
            clock::now().saturating_duration_since(since)
        })
    }

    /// Follows for ever, once it has the baton.
    async fn run(&self) {
        let mut progress = self.baton.lock().await;
        self.load_snapshot(&mut progress).await;
        loop {
            let Err(error) = self.session(&mut progress).await;
            self.meters.synced.set(0);
            self.meters.reconnects.inc();
            let wait = self.after(&mut progress, &error);
            sleep(wait).await;
        }
    }

    /// Before anything has been heard from etcd: what was known when the program ran last.
    async fn load_snapshot(&self, progress: &mut Progress) {
        let Some(snapshot) = self.snapshot.clone() else {
            return;
        };
        if self.tree.is_loaded() {
            return;
        }
        let file = snapshot.file().display().to_string();
        let loading = tokio::task::spawn_blocking(move || snapshot.load());
        match loading.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(None) => {}
            Ok(Some(loaded)) => {
                progress.cluster = loaded.position.cluster;
                progress.applied = loaded.position.revision;
                self.meters.revision.set(progress.applied);
                self.set_source(Source::Snapshot);
                self.set_confirmed(loaded.taken.saturating_mul(1000));
                self.tree.set_loaded();
                tracing::info!(
                    "plugin/etcd: {} records at revision {} from the snapshot {file}, {:.0}s old: answered from until etcd has been read",
                    self.tree.records(),
                    progress.applied,
                    clock::unix_now().as_secs().saturating_sub(loaded.taken)
                );
            }
            Err(what) => tracing::warn!(
                "plugin/etcd: the snapshot {file} is not used: {what}; it is written anew when etcd has been read"
            ),
        }
    }

    /// What to do after a session: says so, chooses the next member, and returns how long to wait.
    fn after(&self, progress: &mut Progress, error: &Error) -> Duration {
        if let Error::Compacted { .. } = error {
            tracing::info!(
                "plugin/etcd: revision {} is no longer in {}'s history: reading everything again",
                progress.applied,
                self.backend.which()
            );
            progress.list_wanted = true;
            progress.failures += 1;
            return if progress.failures == 1 {
                Duration::ZERO
            } else {
                retry_after(progress.failures)
            };
        }
        if let Error::TooLarge { .. } = error {
            tracing::info!("plugin/etcd: {error}: reading everything again");
            progress.list_wanted = true;
            progress.failures += 1;
            return retry_after(progress.failures);
        }
        self.lost_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(clock::now);
        // The first failure may be one member's; only when the others fail too is it worth a line.
        progress.failures += 1;
        if progress.failures > 1 || !error.is_outage() || !self.tree.is_loaded() {
            self.say(progress, error);
        }
        self.backend.leave();
        match progress.failures {
            1 if error.is_outage() => RETRY_MIN / 10,
            failures => retry_after(failures),
        }
    }

    /// One line for a trouble, not one for each attempt.
    fn say(&self, progress: &mut Progress, error: &Error) {
        let text = match error {
            // The order of the attempts is no news.
            Error::All(errors) => {
                let mut each: Vec<String> = errors.iter().map(Error::to_string).collect();
                each.sort();
                each.join("; ")
            }
            error => error.to_string(),
        };
        if progress.said.as_ref() == Some(&text) {
            return;
        }
        let meanwhile = match self.tree.is_loaded() {
            true => "answers go on from memory",
            false => "its zones are answered SERVFAIL until it can be read",
        };
        tracing::warn!("plugin/etcd: {text}; {meanwhile}, trying on");
        progress.said = Some(text);
    }

    //--- A session with one member ---------------------------------------------------------------

    /// Follows until something is wrong.
    async fn session(&self, progress: &mut Progress) -> Result<std::convert::Infallible, Error> {
        let head = match self.head().await {
            Ok(head) => head,
            Err(error) => {
                if error.is_outage() && !self.tree.is_loaded() {
                    self.list_unconfirmed(progress).await;
                }
                return Err(error);
            }
        };
        self.judge(progress, head).await?;
        let lists = progress.list_wanted;
        let (mut listing, mut from) = match lists {
            true => self.first_list(progress).await?,
            false => (None, progress.applied + 1),
        };
        let mut watch = self.watch(from).await?;
        let mut past = match lists {
            true => self.look_back(from).await,
            false => None,
        };
        let mut pages: JoinSet<Result<Page, Error>> = JoinSet::new();
        if let Some(listing) = &listing {
            self.spawn_page(&mut pages, listing);
        }
        let mut probes: JoinSet<Result<Header, Error>> = JoinSet::new();
        let mut missed = 0;
        // The member whose watch it is, as it said itself; 0: it does not say.
        let mut watched = 0;
        let mut elsewhere = 0;
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut relist_at = clock::now() + around(self.backend.relist_every());
        // Keys that are deleted while a list is read, which may have them still.
        let mut deleted: HashMap<Vec<u8>, i64> = HashMap::new();
        loop {
            tokio::select! {
                biased;
                message = watch.next() => {
                    let message = message?;
                    if message.created {
                        watched = message.header.member_id;
                        self.connected(progress);
                    }
                    missed = 0;
                    self.confirm(!progress.list_wanted);
                    let noting = listing.is_some().then_some(&mut deleted);
                    self.hear(progress, message, from, noting).await?;
                }
                message = heard_of(&mut past) => {
                    past = self.remember(past.take(), message, from).await;
                }
                Some(page) = pages.join_next() => {
                    let Some(of) = &mut listing else { continue };
                    match page.unwrap_or_else(|_| Err(self.trouble("sent a page that could not be read"))) {
                        Err(Error::TooLarge { .. }) if of.limit > 1 => {
                            of.shrink();
                            self.spawn_page(&mut pages, of);
                        }
                        page => {
                            let page = self.took(of, page?);
                            // etcd is at the next one while this one is put into the tree.
                            if of.next.is_some() {
                                self.spawn_page(&mut pages, of);
                            }
                            of.deleted = std::mem::take(&mut deleted);
                            self.merge(progress, of, page).await;
                            deleted = std::mem::take(&mut of.deleted);
                        }
                    }
                    self.settle_listing(progress, &mut listing);
                    if listing.is_none() {
                        deleted.clear();
                        relist_at = clock::now() + around(self.backend.relist_every());
                    }
                }
                Some(probe) = probes.join_next() => {
                    match probe {
                        Ok(Ok(header)) if header.cluster_id == progress.cluster => {
                            missed = 0;
                            self.confirm(!progress.list_wanted);
                            elsewhere = match watched == 0 || header.member_id == watched {
                                true => 0,
                                false => elsewhere + 1,
                            };
                        }
                        Ok(Ok(_)) => return Err(self.trouble("is a member of another cluster now")),
                        _ => missed += 1,
                    }
                    if missed >= PROBES_MISSED_MAX {
                        return Err(self.trouble("has fallen silent"));
                    }
                    // Whether the one that is watched is still there is not known; what it may not have said comes with a new watch.
                    if elsewhere >= PROBES_ELSEWHERE_MAX && !progress.list_wanted && listing.is_none() {
                        elsewhere = 0;
                        from = progress.applied + 1;
                        watch = self.watch(from).await?;
                    }
                    if missed > 0 {
                        self.spawn_probe(&mut probes);
                    }
                }
                _ = ticks.tick() => {
                    if probes.is_empty() {
                        self.spawn_probe(&mut probes);
                    }
                    self.each_second(progress).await;
                    if listing.is_none() && clock::now() >= relist_at {
                        let new = Listing::new(false);
                        self.spawn_page(&mut pages, &new);
                        listing = Some(new);
                    }
                }
            }
        }
    }

    /// What is due now and then, whatever is heard.
    async fn each_second(&self, progress: &mut Progress) {
        self.sum_up_skipped();
        self.time_the_untimed(progress).await;
        if let (Some(snapshot), false) = (&self.snapshot, progress.list_wanted) {
            snapshot.write_if_due(Position {
                cluster: progress.cluster,
                revision: progress.applied,
            });
        }
    }

    /// Reads a list as far as nothing may be heard before it; what is left of it, and the first revision that it does not have.
    async fn first_list(&self, progress: &mut Progress) -> Result<(Option<Listing>, i64), Error> {
        let mut new = Listing::new(progress.replaced);
        let page = self.fetch(&mut new, false).await?;
        let from = new.revision + 1;
        self.merge(progress, &mut new, page).await;
        // Revisions of a replaced cluster cannot be compared with those in memory: first the list, then the watch.
        while new.is_under_way() && progress.replaced {
            let page = self.fetch(&mut new, false).await?;
            self.merge(progress, &mut new, page).await;
        }
        let mut listing = Some(new);
        self.settle_listing(progress, &mut listing);
        Ok((listing, from))
    }

    async fn watch(&self, from: i64) -> Result<Box<dyn Watching>, Error> {
        let request = WatchRequest {
            range: self.range(),
            start_revision: from,
            deletes_only: false,
        };
        self.backend.watch(request).await
    }

    //--- What was deleted before a list ---------------------------------------------------------

    /// Opens a watch of what was deleted before a list that ends before `from`: it is in no list, but the serial of its zone is the revision
    /// that did it. A watch of its own, without what was put, since that may be hundreds of megabytes before the first change is heard.
    async fn look_back(&self, from: i64) -> Option<Past> {
        let start = (from - self.backend.looks_back()).max(1);
        self.past(start, from).await
    }

    async fn past(&self, start: i64, from: i64) -> Option<Past> {
        let mut start = start;
        while start < from {
            let request = WatchRequest {
                range: self.range(),
                start_revision: start,
                deletes_only: true,
            };
            match self.backend.watch(request).await {
                Ok(watch) => {
                    let until = clock::now() + PAST_PATIENCE;
                    return Some(Past {
                        watch,
                        start,
                        until,
                    });
                }
                Err(Error::Compacted { revision }) => start = not_so_far(start, from, revision),
                // Only a serial depends on it.
                Err(_) => return None,
            }
        }
        None
    }

    /// Takes in what was deleted; what is left of the watch, if there may be more to come.
    async fn remember(
        &self,
        past: Option<Past>,
        message: Result<WatchMessage, Error>,
        from: i64,
    ) -> Option<Past> {
        let past = past?;
        let message = match message {
            Err(Error::Compacted { revision }) => {
                let start = not_so_far(past.start, from, revision);
                return self.past(start, from).await;
            }
            message => message.ok()?,
        };
        for event in &message.events {
            if event.revision() >= from {
                return None;
            }
            if let Event::Delete { key, revision } = event
                && let Some(path) = self.path(key)
            {
                self.tree.was_deleted(path, *revision);
            }
        }
        let is_over = message.canceled.is_some() || clock::now() >= past.until;
        (!is_over).then_some(past)
    }

    fn spawn_probe(&self, probes: &mut JoinSet<Result<Header, Error>>) {
        let backend = Arc::clone(&self.backend);
        probes.spawn(async move { backend.probe().await });
    }

    fn trouble(&self, what: &str) -> Error {
        Error::Unavailable {
            endpoint: self.backend.which(),
            what: what.into(),
        }
    }

    /// The watch stands: what was wrong is over.
    fn connected(&self, progress: &mut Progress) {
        let lost = self.lost_for();
        *self
            .lost_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        if progress.said.take().is_some() {
            tracing::info!(
                "plugin/etcd: following {} again after {:.1}s",
                self.backend.which(),
                lost.as_secs_f64()
            );
        }
        progress.failures = 0;
        self.meters.synced.set(i64::from(!progress.list_wanted));
    }

    fn range(&self) -> KeyRange {
        KeyRange::prefix(self.prefix.clone())
    }

    /// Where the cluster stands, confirmed by a majority of it. One key is asked for: etcd walks over all of a range to count it.
    async fn head(&self) -> Result<Header, Error> {
        let request = ListRequest {
            keys_only: true,
            ..ListRequest::new(KeyRange::key(self.prefix.clone()))
        };
        Ok(self.backend.list(request).await?.header)
    }

    /// Whether it is the cluster we know, and no further back than we are.
    async fn judge(&self, progress: &mut Progress, head: Header) -> Result<(), Error> {
        if progress.cluster == 0 {
            progress.cluster = head.cluster_id;
            return Ok(());
        }
        if head.cluster_id != progress.cluster {
            let clusters = self.backend.clusters().await;
            let new = clusters.iter().filter(|id| **id == head.cluster_id).count();
            if 2 * new <= self.backend.endpoints().len() {
                return Err(self.trouble("is a member of another cluster than the others"));
            }
            tracing::warn!(
                "plugin/etcd: the cluster behind {} has been replaced: reading everything again",
                self.endpoints()
            );
        } else if head.revision < progress.applied {
            tracing::warn!(
                "plugin/etcd: the cluster behind {} went back from revision {} to {} (restored from a backup?): reading everything again",
                self.endpoints(),
                progress.applied,
                head.revision
            );
        } else {
            return Ok(());
        }
        progress.cluster = head.cluster_id;
        progress.list_wanted = true;
        progress.replaced = true;
        progress.leases.clear();
        Ok(())
    }

    //--- The watch ----------------------------------------------------------------------------

    async fn hear(
        &self,
        progress: &mut Progress,
        message: WatchMessage,
        from: i64,
        noting: Option<&mut HashMap<Vec<u8>, i64>>,
    ) -> Result<(), Error> {
        if let Some(canceled) = message.canceled {
            return Err(self.trouble(&format!("ended the watch: {}", canceled.reason)));
        }
        let Some(last) = message.events.last().map(Event::revision) else {
            if !message.created {
                // RFC-less but sure: a message without events says that there are none up to its revision.
                progress.applied = progress.applied.max(message.header.revision);
                self.meters.revision.set(progress.applied);
            }
            return Ok(());
        };
        let applied = progress.applied;
        let puts = message.events.iter();
        let puts = puts.filter(|event| event.revision() >= from);
        let puts = puts.filter_map(|event| match event {
            Event::Put(kv) => Some(kv),
            Event::Delete { .. } | Event::DeleteTree { .. } => None,
        });
        self.learn_leases(progress, puts, LEASES_PATIENCE).await;
        let mut noting = noting;
        let mut changes = Vec::with_capacity(message.events.len());
        for event in message.events {
            // Those around a reconnection come twice.
            if event.revision() <= applied && !progress.list_wanted {
                continue;
            }
            match event {
                Event::Put(kv) => self.read_all(progress, vec![kv], &mut changes),
                Event::Delete { key, revision } => {
                    let Some(path) = self.path(&key) else {
                        continue;
                    };
                    if let Some(deleted) = &mut noting {
                        deleted.insert(path.to_vec(), revision);
                    }
                    changes.push(Change {
                        path: path.into(),
                        record: None,
                        revision,
                    });
                }
                Event::DeleteTree { key, revision } => {
                    // What comes before it in this message may be below it.
                    self.apply(std::mem::take(&mut changes));
                    for path in self.paths_below(&key) {
                        if let Some(deleted) = &mut noting {
                            deleted.insert(path.to_vec(), revision);
                        }
                        changes.push(Change {
                            path,
                            record: None,
                            revision,
                        });
                    }
                }
            }
        }
        self.meters.changes.add(changes.len() as u64);
        self.apply(changes);
        // Of a revision in fragments the rest is still to come.
        let complete = if message.fragment { last - 1 } else { last };
        progress.applied = progress.applied.max(complete);
        self.meters.revision.set(progress.applied);
        Ok(())
    }

    //--- Records ------------------------------------------------------------------------------

    fn path<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        key.strip_prefix(&*self.prefix)
    }

    /// Every path in the tree below a directory, which may be one that the prefix is in.
    fn paths_below(&self, directory: &[u8]) -> Vec<Box<[u8]>> {
        let mut directory = directory.to_vec();
        directory.push(b'/');
        let keys = self.tree.keys();
        let path = match self.path(&directory) {
            Some(path) => path.strip_suffix(b"/").unwrap_or_default(),
            None if self.prefix.starts_with(&directory) => b"",
            None => return Vec::new(),
        };
        super::tree::below(&keys, path)
            .map(|(path, _)| path.into())
            .collect()
    }

    /// Reads values into changes; what cannot be read keeps its name.
    fn read_all(&self, progress: &Progress, kvs: Vec<KeyValue>, changes: &mut Vec<Change>) {
        for kv in kvs {
            let Some(path) = self.path(&kv.key).filter(|path| *path != CONFIG) else {
                continue;
            };
            let lease = (kv.lease != 0).then(|| {
                let known = progress.leases.get(&kv.lease);
                known.map_or(self.lease_ttl.of(Duration::ZERO), |(ttl, _)| *ttl)
            });
            let record = Record::read(&kv.value, kv.mod_revision, lease).unwrap_or_else(|what| {
                if self.skipped().one(clock::now()) {
                    tracing::warn!(
                        "plugin/etcd: {} at revision {} is skipped: {what}",
                        String::from_utf8_lossy(&kv.key).escape_debug(),
                        kv.mod_revision
                    );
                }
                Record::malformed(kv.mod_revision)
            });
            changes.push(Change {
                path: path.into(),
                record: Some(record),
                revision: kv.mod_revision,
            });
        }
    }

    fn skipped(&self) -> std::sync::MutexGuard<'_, Skipped> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Values that had no line of their own are counted in one.
    fn sum_up_skipped(&self) {
        if let Some(untold) = self.skipped().untold(clock::now()) {
            tracing::warn!("plugin/etcd: {untold} more values are skipped");
        }
    }

    fn apply(&self, mut changes: Vec<Change>) {
        if self.tree.records() + changes.len() > KEYS_MAX {
            let keys = self.tree.keys();
            let mut room = KEYS_MAX.saturating_sub(keys.len());
            changes.retain(|change| {
                if change.record.is_none() || keys.contains_key(&change.path) {
                    return true;
                }
                room = room.saturating_sub(1);
                room > 0
            });
            drop(keys);
            if !self.full.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    "plugin/etcd: more than {KEYS_MAX} keys below {}: new ones are left out",
                    String::from_utf8_lossy(&self.prefix)
                );
            }
        }
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(APPLY_AT_ONCE));
            self.tree.apply(changes);
            changes = rest;
        }
    }
}

/// A watch of what was deleted before a list.
struct Past {
    watch: Box<dyn Watching>,
    start: i64,
    // It is let go then, so that it costs etcd nothing for ever.
    until: Instant,
}

/// What comes next of the past; never, if there is none.
async fn heard_of(past: &mut Option<Past>) -> Result<WatchMessage, Error> {
    match past {
        Some(past) => match timeout(
            past.until.saturating_duration_since(clock::now()),
            past.watch.next(),
        )
        .await
        {
            Ok(message) => message,
            // As a message that says nothing: time is up.
            Err(_) => Ok(WatchMessage::default()),
        },
        None => std::future::pending().await,
    }
}

/// Where to look back to if `start` has been compacted and the history begins at `first`, which may not have been said.
fn not_so_far(start: i64, from: i64, first: i64) -> i64 {
    match first > start {
        true => first.min(from),
        false => from,
    }
}

/// The wait before attempt `failures` + 1: doubling, and spread, so that a thousand servers do not come at once.
fn retry_after(failures: u32) -> Duration {
    let doubled = RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10));
    around(doubled.min(RETRY_MAX))
}

/// A time between four fifths and all of it.
fn around(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.8..1.0))
}

mod leases;
mod listing;
mod meters;
#[cfg(test)]
mod tests;

use leases::LEASES_PATIENCE;
use listing::Listing;
use meters::{Meters, Source};
