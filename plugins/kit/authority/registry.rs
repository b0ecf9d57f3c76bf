//! [`Registry`]: which zones a server block serves, for those who transfer, announce or sign them.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::published::Published;
use crate::kit::wire::Name;
use crate::kit::wire::name::suffixes;

/// The zones of one server block, in the order in which they came. Not for the way of a query: handlers know their own.
pub struct Registry {
    zones: RwLock<Vec<Registered>>,
    // How often anything has changed.
    changes: watch::Sender<u64>,
}

/// A zone and where it stands.
#[derive(Clone)]
pub struct Registered {
    /// Its name, lower-case.
    pub apex: Name,
    /// Where it stands.
    pub published: Arc<Published>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry {
            zones: RwLock::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Registry {
    /// Adds a zone; of several with one name the first is found.
    pub fn add(&self, apex: &Name, published: &Arc<Published>) {
        let zone = Registered {
            apex: apex.to_lowercase(),
            published: Arc::clone(published),
        };
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        zones.push(zone);
        drop(zones);
        self.announce();
    }

    /// Removes the zone that stands at `published`.
    pub fn remove(&self, published: &Arc<Published>) {
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        zones.retain(|zone| !Arc::ptr_eq(&zone.published, published));
        drop(zones);
        self.announce();
    }

    /// The zone of exactly this name (lower-case wire form).
    pub fn exact(&self, apex: &[u8]) -> Option<Registered> {
        let zones = self.zones.read().unwrap_or_else(PoisonError::into_inner);
        let zone = zones.iter().find(|zone| zone.apex.as_wire() == apex);
        zone.cloned()
    }

    /// The longest zone that a name (lower-case wire form) is within.
    pub fn cover(&self, name: &[u8]) -> Option<Registered> {
        suffixes(name).find_map(|suffix| self.exact(suffix))
    }

    /// All of them.
    pub fn all(&self) -> Vec<Registered> {
        let zones = self.zones.read().unwrap_or_else(PoisonError::into_inner);
        zones.clone()
    }

    /// Says that a zone has another version, or that there are others.
    pub fn announce(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Wakes whenever [`announce`](Registry::announce) is called: compare serials to see what is new.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
