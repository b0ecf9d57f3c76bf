//! The times of leases: each is asked for once, and a record whose lease's time is not known yet has the shortest TTL until it is.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use super::{Follower, Progress};
use crate::etcd::api::{Error, KeyRange, KeyValue, Lease, ListRequest};
use crate::kit::clock;

/// Leases that are asked for at a time.
const LEASES_AT_ONCE: usize = 32;
/// For how long changes wait for their leases' times; the shortest TTL is used until they are known.
pub(super) const LEASES_PATIENCE: Duration = Duration::from_millis(100);
/// For how long a lease's time is believed: a number may be granted again with another time.
const LEASE_KNOWN: Duration = Duration::from_secs(3600);
/// Keys remembered whose lease's time could not be had; the next complete list finds the others.
const UNTIMED_MAX: usize = 100_000;

impl Follower {
    /// Asks for the times of leases that are not known yet, as long as patience lasts; notes whose time stayed unknown.
    pub(super) async fn learn_leases(
        &self,
        progress: &mut Progress,
        kvs: impl Iterator<Item = &KeyValue>,
        patience: Duration,
    ) {
        let now = clock::now();
        let mut wanted: HashMap<i64, Vec<Vec<u8>>> = HashMap::new();
        for kv in kvs.filter(|kv| kv.lease != 0) {
            let known = progress.leases.get(&kv.lease);
            if known.is_none_or(|(_, since)| now.saturating_duration_since(*since) > LEASE_KNOWN) {
                wanted.entry(kv.lease).or_default().push(kv.key.clone());
            }
        }
        if wanted.is_empty() {
            return;
        }
        let ids: Vec<i64> = wanted.keys().copied().collect();
        for id in self.ask_leases(progress, &ids, patience).await {
            wanted.remove(&id);
        }
        for (id, keys) in wanted {
            if progress.untimed_keys < UNTIMED_MAX {
                progress.untimed_keys += keys.len();
                progress.untimed.entry(id).or_default().extend(keys);
            }
        }
    }

    /// Asks for leases, several at a time; returns those that are known now.
    pub(super) async fn ask_leases(
        &self,
        progress: &mut Progress,
        ids: &[i64],
        patience: Duration,
    ) -> Vec<i64> {
        let mut learnt = Vec::new();
        let mut todo = ids.iter();
        type Asking<'a> = BoxFuture<'a, (i64, Result<Option<Lease>, Error>)>;
        let ask =
            |id: i64| -> Asking<'_> { Box::pin(async move { (id, self.backend.lease(id).await) }) };
        let mut asking: FuturesUnordered<Asking<'_>> = todo
            .by_ref()
            .take(LEASES_AT_ONCE)
            .map(|id| ask(*id))
            .collect();
        let work = async {
            while let Some((id, lease)) = asking.next().await {
                let Ok(lease) = lease else { break };
                // One that is gone takes its keys with it in a moment.
                let granted = lease.map_or(Duration::ZERO, |lease| lease.granted);
                let ttl = self.lease_ttl.of(granted);
                progress.leases.insert(id, (ttl, clock::now()));
                learnt.push(id);
                if let Some(id) = todo.next() {
                    asking.push(ask(*id));
                }
            }
        };
        // Out of patience is no failure: the rest is asked for later.
        timeout(patience, work).await.ok();
        learnt
    }

    /// Gives records the TTL of their lease that could not be had when they came.
    pub(super) async fn time_the_untimed(&self, progress: &mut Progress) {
        if progress.untimed.is_empty() {
            return;
        }
        let ids: Vec<i64> = progress.untimed.keys().copied().take(256).collect();
        let learnt = self.ask_leases(progress, &ids, LEASES_PATIENCE).await;
        for id in learnt {
            let keys = progress.untimed.remove(&id).unwrap_or_default();
            progress.untimed_keys = progress.untimed_keys.saturating_sub(keys.len());
            for key in keys {
                let request = ListRequest::new(KeyRange::key(key));
                let Ok(Ok(page)) = timeout(LEASES_PATIENCE, self.backend.list(request)).await
                else {
                    return;
                };
                // A newer value than the watch has brought is not ours to bring forward.
                let mut changes = Vec::new();
                let kvs = page.kvs.into_iter();
                let kvs = kvs.filter(|kv| kv.lease == id && kv.mod_revision <= progress.applied);
                self.read_all(progress, kvs.collect(), &mut changes);
                self.apply(changes);
            }
        }
    }
}
