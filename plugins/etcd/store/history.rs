//! What changed, revision by revision: what a watch starts from and what a range at an older revision is made of.
//!
//! It lives in memory and is bounded; what has been dropped is "compacted", as in etcd. A restart begins with an empty one.

use std::collections::VecDeque;
use std::sync::Arc;

use super::model::{Event, KeyRange};

/// Revisions kept at most: as many as etcd's API server clients ask to keep in five busy minutes, and a reader that fell further
/// behind is better off listing again.
const REVISIONS_MAX: usize = 10_000;
/// Octets kept at most: values that have been overwritten or deleted and live only here.
const BYTES_MAX: usize = 32 << 20;

/// The changes of one revision, in the order they were made.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) number: i64,
    pub(crate) events: Vec<Arc<Event>>,
    bytes: usize,
}

/// The revisions that are still known.
#[derive(Debug)]
pub(crate) struct History {
    revisions: VecDeque<Revision>,
    bytes: usize,
    /// The oldest revision whose changes are all here.
    first: i64,
    /// The oldest revision that a range may ask for.
    compacted: i64,
}

impl History {
    /// An empty history behind `revision`.
    pub(crate) fn new(revision: i64) -> History {
        History {
            revisions: VecDeque::new(),
            bytes: 0,
            // A new store is at revision 1, as etcd's, and has forgotten nothing.
            first: if revision <= 1 { 0 } else { revision + 1 },
            compacted: if revision <= 1 { 0 } else { revision },
        }
    }

    /// The oldest revision that a range may ask for.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The oldest revision that a watch may start from.
    pub(crate) fn first(&self) -> i64 {
        self.first
    }

    /// Adds the changes of the newest revision.
    pub(crate) fn push(&mut self, number: i64, events: Vec<Arc<Event>>) {
        let bytes = events
            .iter()
            .map(|event| {
                event.prev.as_ref().map_or(0, |prev| prev.weight()) + event.kv.key.len() + 128
            })
            .sum();
        self.bytes += bytes;
        self.revisions.push_back(Revision {
            number,
            events,
            bytes,
        });
    }

    /// Takes back every revision above `number`.
    pub(crate) fn retract(&mut self, number: i64) {
        while let Some(last) = self.revisions.pop_back_if(|last| last.number > number) {
            self.bytes -= last.bytes;
        }
    }

    /// Drops what is over the limits, oldest first.
    pub(crate) fn trim(&mut self) {
        while self.revisions.len() > REVISIONS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.revisions.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes;
            self.first = oldest.number + 1;
            self.compacted = self.compacted.max(self.first);
        }
    }

    /// Forgets everything before `revision`.
    pub(crate) fn compact(&mut self, revision: i64) {
        while let Some(oldest) = self
            .revisions
            .pop_front_if(|oldest| oldest.number < revision)
        {
            self.bytes -= oldest.bytes;
        }
        self.first = self.first.max(revision);
        self.compacted = revision;
    }

    /// Revisions from `from` on, oldest first.
    pub(crate) fn since(&self, from: i64) -> impl DoubleEndedIterator<Item = &Revision> {
        let start = self
            .revisions
            .partition_point(|revision| revision.number < from);
        self.revisions.range(start..)
    }

    /// The changes from `from` on that lie in a range, newest first.
    pub(crate) fn newest_first<'a>(
        &'a self,
        from: i64,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = &'a Arc<Event>> {
        self.since(from)
            .rev()
            .flat_map(|revision| revision.events.iter().rev())
            .filter(|event| range.contains(&event.kv.key))
    }
}
