//! [`Published`]: where a zone stands for those who answer from it, while others put a newer one there.

use std::sync::Arc;

use super::contents::Contents;
use crate::kit::live::Live;

/// The place of one zone: empty until something is put there.
///
/// Reading writes to nothing that workers share. A replaced zone is gone with the last answer that is being written from it.
pub struct Published {
    zone: Live<Option<Arc<Contents>>>,
}

impl Published {
    /// An empty place that `workers` read from ([`ServerSetup::workers`](crate::kit::setup::ServerSetup::workers)).
    pub fn new(workers: usize) -> Published {
        Published {
            zone: Live::new(None, workers),
        }
    }

    /// Puts a zone there, or takes it away. Answers begun before are written from the old one.
    pub fn put(&self, zone: Option<Arc<Contents>>) {
        self.zone.replace(zone);
    }

    /// The zone, to keep: for work that takes longer than an answer.
    pub fn get(&self) -> Option<Arc<Contents>> {
        Option::clone(&self.zone.read())
    }

    /// Looks at the zone, under this worker's own lock: `read` neither waits nor asks another handler.
    pub fn read<T>(&self, read: impl FnOnce(Option<&Arc<Contents>>) -> T) -> T {
        let zone = self.zone.read();
        read(Option::as_ref(&zone))
    }
}
