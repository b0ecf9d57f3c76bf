//! What the operator sees of following.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::Follower;
use crate::kit::clock;
use crate::kit::metrics::{Counter, Gauge, Metrics, Reading};

/// Where the tree is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Source {
    /// Nothing has been read.
    Nothing,
    /// The file of a snapshot.
    Snapshot,
    /// One member of a cluster that has no majority.
    Unconfirmed,
    /// The cluster.
    Live,
}

impl Source {
    pub(super) fn of(number: u8) -> Source {
        match number {
            1 => Source::Snapshot,
            2 => Source::Unconfirmed,
            3 => Source::Live,
            _ => Source::Nothing,
        }
    }
}

/// Numbers that following moves.
pub(super) struct Meters {
    pub(super) synced: Gauge,
    pub(super) revision: Gauge,
    pub(super) reconnects: Counter,
    pub(super) changes: Counter,
    readings: Mutex<Vec<Reading>>,
}

impl Meters {
    pub(super) fn new(metrics: &Metrics, labels: &[(&str, &str)]) -> Meters {
        Meters {
            synced: metrics.gauge(
                "skeindns_etcd_synced",
                "Whether the tree is whole and followed live.",
                labels,
            ),
            revision: metrics.gauge(
                "skeindns_etcd_revision",
                "The revision of etcd up to which changes are answered from.",
                labels,
            ),
            reconnects: metrics.counter(
                "skeindns_etcd_reconnects_total",
                "Times that following broke off and began again.",
                labels,
            ),
            changes: metrics.counter(
                "skeindns_etcd_changes_total",
                "Changes heard of since the start, the first list not counted.",
                labels,
            ),
            readings: Mutex::default(),
        }
    }
}

impl Follower {
    /// Registers the numbers that are read when somebody looks.
    pub(super) fn meter(
        self: &Arc<Self>,
        metrics: &Metrics,
        (prefix, endpoints): &(String, String),
    ) {
        let readings = &self.meters.readings;
        let mut readings = readings.lock().unwrap_or_else(PoisonError::into_inner);
        if !readings.is_empty() {
            return;
        }
        let labels: &[(&str, &str)] = &[("prefix", prefix), ("endpoints", endpoints)];
        let mut gauge = |name, help, labels: &[(&str, &str)], read: fn(&Follower) -> f64| {
            let this = Arc::downgrade(self);
            let read = move || this.upgrade().map_or(0.0, |this| read(&this));
            readings.push(metrics.gauge_fn(name, help, labels, read));
        };
        gauge(
            "skeindns_etcd_records",
            "Keys in the tree.",
            labels,
            |this| this.tree.records() as f64,
        );
        gauge(
            "skeindns_etcd_skipped_records",
            "Keys in the tree whose value cannot be read.",
            labels,
            |this| this.tree.malformed() as f64,
        );
        gauge(
            "skeindns_etcd_disconnected_seconds",
            "For how long nothing has been heard from etcd; 0 while it is followed.",
            labels,
            |this| this.lost_for().as_secs_f64(),
        );
        gauge(
            "skeindns_etcd_age_seconds",
            "Since when the tree may differ from etcd's: seconds since it was confirmed; 0 while nothing has been read.",
            labels,
            Follower::age,
        );
        for (word, of) in [("snapshot", 1), ("unconfirmed", 2), ("live", 3)] {
            let labels = [labels, &[("source", word)]].concat();
            let read: fn(&Follower) -> f64 = match of {
                1 => |this| f64::from(this.source() == Source::Snapshot),
                2 => |this| f64::from(this.source() == Source::Unconfirmed),
                _ => |this| f64::from(this.source() == Source::Live),
            };
            gauge(
                "skeindns_etcd_source",
                "Where the tree is from: 1 at one of them, 0 at the others.",
                &labels,
                read,
            );
        }
        if self.snapshot.is_none() {
            return;
        }
        gauge(
            "skeindns_etcd_snapshot_time_seconds",
            "When the snapshot on disk was written, since 1970; 0: there is none.",
            labels,
            |this| {
                let snapshot = this.snapshot.as_ref();
                snapshot.map_or(0.0, |snapshot| snapshot.written() as f64)
            },
        );
        gauge(
            "skeindns_etcd_snapshot_failures",
            "Snapshots that could not be written since the start.",
            labels,
            |this| {
                let snapshot = this.snapshot.as_ref();
                snapshot.map_or(0.0, |snapshot| snapshot.failures() as f64)
            },
        );
    }

    fn source(&self) -> Source {
        Source::of(self.source.load(Ordering::Relaxed))
    }

    fn age(&self) -> f64 {
        let confirmed = self.confirmed.load(Ordering::Relaxed);
        if confirmed == 0 {
            return 0.0;
        }
        let now = clock::unix_now().as_millis();
        now.saturating_sub(u128::from(confirmed)) as f64 / 1000.0
    }

    /// The tree is from there now.
    pub(super) fn set_source(&self, source: Source) {
        self.source.store(source as u8, Ordering::Relaxed);
    }

    /// The tree was what etcd has, at this time.
    pub(super) fn set_confirmed(&self, milliseconds: u64) {
        self.confirmed.store(milliseconds, Ordering::Relaxed);
    }

    /// The member in use has just answered: unless a list is still to come, the tree is what etcd has.
    pub(super) fn confirm(&self, is_whole: bool) {
        if is_whole {
            let now = clock::unix_now().as_millis();
            self.set_confirmed(u64::try_from(now).unwrap_or(u64::MAX));
        }
    }
}
