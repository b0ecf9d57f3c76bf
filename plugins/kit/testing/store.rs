//! [`ScriptedStore`]: a store of keys in memory, which stands for etcd in a test. It knows keys, revisions, leases on the virtual clock and a
//! history to be watched, and can be away, compacted or replaced.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::kit::clock::{self, Instant};

/// See the module.
pub struct ScriptedStore {
    state: Mutex<State>,
    changed: Notify,
}

/// What a store has.
#[derive(Clone, Debug)]
pub struct State {
    /// Keys, sorted.
    pub keys: BTreeMap<Vec<u8>, StoredKey>,
    /// The newest revision.
    pub revision: i64,
    /// The first revision that is still in the history.
    pub compacted: i64,
    /// What happened, oldest first.
    pub history: Vec<StoredChange>,
    /// Leases: granted for so long, ending then.
    pub leases: BTreeMap<i64, (Duration, Instant)>,
    /// Nobody answers.
    pub away: bool,
    /// The cluster's number.
    pub cluster: u64,
    /// Moves when every watch is cut.
    pub cuts: u64,
    /// Lists read so far.
    pub lists: u64,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub revision: i64,
    /// Its lease; 0 is none.
    pub lease: i64,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChange {
    /// Its revision.
    pub revision: i64,
    /// The key.
    pub key: Vec<u8>,
    /// What it became; `None`: it was deleted.
    pub now: Option<StoredKey>,
}

impl Default for ScriptedStore {
    fn default() -> ScriptedStore {
        ScriptedStore {
            state: Mutex::new(State {
                keys: BTreeMap::new(),
                revision: 1,
                compacted: 0,
                history: Vec::new(),
                leases: BTreeMap::new(),
                away: false,
                cluster: 1,
                cuts: 0,
                lists: 0,
            }),
            changed: Notify::new(),
        }
    }
}

impl ScriptedStore {
    /// Writes a key, onto a lease of its own if one is given.
    pub fn put(&self, key: &[u8], value: &[u8], lease: Option<Duration>) {
        self.change(|state| {
            state.revision += 1;
            let lease = lease.map_or(0, |granted| {
                let id = state.revision;
                state.leases.insert(id, (granted, clock::now() + granted));
                id
            });
            let now = StoredKey {
                value: value.to_vec(),
                revision: state.revision,
                lease,
            };
            state.keys.insert(key.to_vec(), now.clone());
            state.history.push(StoredChange {
                revision: state.revision,
                key: key.to_vec(),
                now: Some(now),
            });
        });
    }

    /// Deletes a key.
    pub fn delete(&self, key: &[u8]) {
        self.change(|state| {
            if state.keys.contains_key(key) {
                state.revision += 1;
                state.remove(key);
            }
        });
    }

    /// Changes whatever you like; watches look again.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// The state now: leases that have ended have taken their keys.
    pub fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.expire();
        state
    }

    /// Waits until something changes or a lease ends.
    pub async fn changed(&self) {
        let notified = self.changed.notified();
        let next = self.lock().leases.values().map(|(_, end)| *end).min();
        match next {
            Some(end) => {
                tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(end) => {}
                }
            }
            None => notified.await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, key: &[u8]) {
        self.keys.remove(key);
        self.history.push(StoredChange {
            revision: self.revision,
            key: key.to_vec(),
            now: None,
        });
    }

    fn expire(&mut self) {
        let now = clock::now();
        let ended: Vec<i64> = self
            .leases
            .iter()
            .filter(|(_, (_, end))| *end <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.leases.remove(&id);
            let of_it =
                |(key, stored): (&Vec<u8>, &StoredKey)| (stored.lease == id).then(|| key.clone());
            let keys: Vec<Vec<u8>> = self.keys.iter().filter_map(of_it).collect();
            if !keys.is_empty() {
                self.revision += 1;
            }
            for key in keys {
                self.remove(&key);
            }
        }
    }
}
