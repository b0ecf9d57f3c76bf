//! One question under way, however many ask it.
//!
//! The first query that misses leads: it registers a [`Flight`] in its shard and goes on down the chain. Those that
//! come meanwhile, on any worker, wait at the flight's [`Gathering`] until the leader has stored its answer, or left one
//! there that may not be stored, or is gone. A gathering is made when the first of them comes: a query that
//! nobody waits for costs a place in a map.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::store::{Entry, Key, Shard, Subject};
use crate::kit::query::Transport;

/// Queries that wait for one answer at most: as many as a worker has slots. Each holds about half a kilobyte beside its slot.
const WAITING_MAX: usize = 16_384;
/// Subnets (RFC 7871) of one question asked at a time. Without a limit, a thousand made-up subnets are a thousand
/// questions for one name under way, and each of them a chance for a forged answer.
const SUBNETS_MAX: usize = 8;

/// A question under way.
#[derive(Default)]
pub(super) struct Flight {
    base: u64,
    gathering: Option<Arc<Gathering>>,
}

impl Flight {
    /// Ends the wait of those who wait, if any.
    pub(super) fn into_gathering(self) -> Option<Arc<Gathering>> {
        self.gathering
    }
}

/// Where the others wait.
pub(super) struct Gathering {
    // Never has a permit: it is closed when the wait is over.
    gate: Semaphore,
    answer: OnceLock<Shared>,
}

/// An answer that is not stored, for those who waited for it.
pub(super) struct Shared {
    /// The answer, TTLs as served.
    pub(super) entry: Entry,
    /// How the leader's client asked: a truncated answer serves only those who asked alike.
    pub(super) transport: Transport,
    /// A whole answer, NOERROR or NXDOMAIN: better than a stale one.
    pub(super) is_good: bool,
    /// TC is set.
    pub(super) is_truncated: bool,
}

impl Gathering {
    fn new() -> Arc<Gathering> {
        Arc::new(Gathering {
            gate: Semaphore::new(0),
            answer: OnceLock::new(),
        })
    }

    /// Waits until the leader is done, at most this long. Whether it is done.
    pub(super) async fn wait(&self, at_most: Option<Duration>) -> bool {
        // A closed semaphore is an error, and here the only way to return.
        let done = self.gate.acquire();
        match at_most {
            Some(at_most) => tokio::time::timeout(at_most, done).await.is_ok(),
            None => {
                done.await.ok();
                true
            }
        }
    }

    /// The answer that was left here.
    pub(super) fn answer(&self) -> Option<&Shared> {
        self.answer.get()
    }

    /// Leaves an answer; the first one counts.
    pub(super) fn leave(&self, answer: Shared) {
        self.answer.set(answer).ok();
    }

    /// Wakes everyone.
    pub(super) fn end(&self) {
        self.gate.close();
    }
}

/// What a query that missed does.
pub(super) enum Role {
    /// It asks; its flight is registered and must be released.
    Lead,
    /// It waits for another one.
    Follow(Arc<Gathering>),
    /// It asks for itself alone.
    Alone,
    /// Too many wait already.
    Full,
}

impl Shard {
    /// Finds a query's role. One that `may_wait` not (see [`super::Cache`]) never follows.
    pub(super) fn join(&mut self, key: Key, subject: &Subject<'_>, may_wait: bool) -> Role {
        let other = if self.flights.contains_key(&key.hash) {
            Some(key.hash)
        } else if subject.has_subnet() {
            self.crowded(key)
        } else {
            None
        };
        match other.and_then(|hash| self.flights.get_mut(&hash)) {
            Some(_) if !may_wait => Role::Alone,
            Some(flight) => {
                let gathering = flight.gathering.get_or_insert_with(Gathering::new);
                if Arc::strong_count(gathering) > WAITING_MAX {
                    Role::Full
                } else {
                    Role::Follow(Arc::clone(gathering))
                }
            }
            None => {
                self.depart(key);
                Role::Lead
            }
        }
    }

    /// Registers a flight. False if there is one already.
    pub(super) fn depart(&mut self, key: Key) -> bool {
        let mut is_new = false;
        self.flights.entry(key.hash).or_insert_with(|| {
            is_new = true;
            Flight {
                base: key.base,
                gathering: None,
            }
        });
        is_new
    }

    /// Where one waits for the flight that was just registered.
    pub(super) fn gather(&mut self, key: Key) -> Arc<Gathering> {
        let flight = self.flights.entry(key.hash).or_default();
        Arc::clone(flight.gathering.get_or_insert_with(Gathering::new))
    }

    /// The flight of another subnet to wait for, when too many are under way.
    fn crowded(&self, key: Key) -> Option<u64> {
        let mut alike = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.base == key.base)
            .map(|(hash, _)| *hash);
        let first = alike.next();
        // `first` is one of them.
        if alike.count() + 1 >= SUBNETS_MAX {
            first
        } else {
            None
        }
    }
}
