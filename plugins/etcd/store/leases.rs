//! Leases: promises to come back in time, with the keys that go when nobody does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::model::{LeaseView, StoreError};

/// Shortest TTL in seconds; etcd's with its default election timeout.
pub(crate) const TTL_MIN: i64 = 2;
/// Longest TTL in seconds; etcd's.
pub(crate) const TTL_MAX: i64 = 9_000_000_000;
/// Leases at most: ten times what a large site registers, about 20 MB.
const LEASES_MAX: usize = 100_000;
/// Leases that end in one go, so that a mass expiry does not hold up everybody else; etcd's number.
const EXPIRE_MAX: usize = 1_000;

/// One lease.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Granted seconds.
    pub(crate) ttl: i64,
    deadline: Instant,
    pub(crate) keys: BTreeSet<Arc<[u8]>>,
}

/// All leases, by id and by the time they end.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    table: BTreeMap<i64, Lease>,
    by_deadline: BTreeSet<(Instant, i64)>,
}

impl Leases {
    /// Whether there is such a lease.
    pub(crate) fn has(&self, id: i64) -> bool {
        self.table.contains_key(&id)
    }

    /// The granted TTL in seconds.
    pub(crate) fn ttl(&self, id: i64) -> Option<i64> {
        self.table.get(&id).map(|lease| lease.ttl)
    }

    /// Every id, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> {
        self.table.keys().copied()
    }

    /// Makes a lease; id 0 is chosen here. Gives its id and its TTL.
    pub(crate) fn grant(
        &mut self,
        id: i64,
        ttl: i64,
        now: Instant,
    ) -> Result<(i64, i64), StoreError> {
        if ttl > TTL_MAX {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        if self.has(id) {
            return Err(StoreError::LeaseExists);
        }
        if self.table.len() >= LEASES_MAX {
            return Err(StoreError::Limit(
                "etcdserver: too many leases (100000 at most)",
            ));
        }
        let id = if id == 0 { self.free_id() } else { id };
        let ttl = ttl.max(TTL_MIN);
        self.insert(id, ttl, now);
        Ok((id, ttl))
    }

    /// Puts a lease in with its full time ahead of it: a new one, or one that was read from disk.
    pub(crate) fn insert(&mut self, id: i64, ttl: i64, now: Instant) {
        let deadline = deadline(ttl, now);
        let lease = Lease {
            ttl,
            deadline,
            keys: BTreeSet::new(),
        };
        if let Some(old) = self.table.insert(id, lease) {
            self.by_deadline.remove(&(old.deadline, id));
        }
        self.by_deadline.insert((deadline, id));
    }

    /// Takes a lease out. Its keys are the caller's business.
    pub(crate) fn remove(&mut self, id: i64) -> Option<Lease> {
        let lease = self.table.remove(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        Some(lease)
    }

    /// Puts one back that [`Leases::remove`] took out, with the time it had left and without keys.
    pub(crate) fn restore(&mut self, id: i64, lease: Lease) {
        self.by_deadline.insert((lease.deadline, id));
        self.table.insert(
            id,
            Lease {
                keys: BTreeSet::new(),
                ..lease
            },
        );
    }

    /// Starts a lease's time again; its TTL, or `None` for one that is not there.
    pub(crate) fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.table.get_mut(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        lease.deadline = deadline(lease.ttl, now);
        self.by_deadline.insert((lease.deadline, id));
        Some(lease.ttl)
    }

    /// The keys of a lease, in order.
    pub(crate) fn keys(&self, id: i64) -> Vec<Arc<[u8]>> {
        self.table
            .get(&id)
            .map(|lease| lease.keys.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// What `timetolive` answers.
    pub(crate) fn view(&self, id: i64, with_keys: bool, now: Instant) -> LeaseView {
        let Some(lease) = self.table.get(&id) else {
            return LeaseView {
                id,
                ttl: -1,
                ..LeaseView::default()
            };
        };
        let left = lease.deadline.saturating_duration_since(now).as_secs();
        LeaseView {
            id,
            ttl: i64::try_from(left).unwrap_or(i64::MAX),
            granted: lease.ttl,
            keys: if with_keys { self.keys(id) } else { Vec::new() },
        }
    }

    /// Ties a key to a lease.
    pub(crate) fn attach(&mut self, id: i64, key: &Arc<[u8]>) {
        if let Some(lease) = self.table.get_mut(&id) {
            lease.keys.insert(Arc::clone(key));
        }
    }

    /// Unties it.
    pub(crate) fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.table.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// When the next lease ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// The leases whose time is over, at most a thousand.
    pub(crate) fn ended(&self, now: Instant) -> Vec<i64> {
        self.by_deadline
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .take(EXPIRE_MAX)
            .map(|(_, id)| *id)
            .collect()
    }

    /// A positive id that nobody has. Random, so that a lease of before a restart is not taken for one of after it.
    fn free_id(&self) -> i64 {
        loop {
            let id = rand::random::<i64>() & i64::MAX;
            if id != 0 && !self.has(id) {
                return id;
            }
        }
    }
}

fn deadline(ttl: i64, now: Instant) -> Instant {
    let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
    // A clock that cannot count so far ahead: a century is as good as never.
    now.checked_add(ttl)
        .unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 86_400))
}
