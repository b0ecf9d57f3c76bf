//! Which server block answers: the longest zone, per listener; DS at the parent.

use std::collections::HashMap;

use super::metrics::{
    self, Counter, CounterTable, Metrics, REQUESTS_HELP, RESPONSES_HELP, TYPE_LABELS,
};
use super::query::{Facts, ListenerId, Query};
use super::wire::{Class, Rtype, name};

/// Which chain serves which zone on one listener.
#[derive(Default, Debug)]
pub struct Routes {
    // By lower-cased wire form. A root-only listener (the most common) never hashes.
    zones: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    root: Option<usize>,
    has_others: bool,
}

impl Routes {
    /// Adds a zone; false if it is there already.
    pub(crate) fn add(&mut self, zone: &[u8], chain: usize) -> bool {
        if zone == [0] {
            return self.root.replace(chain).is_none();
        }
        self.has_others = true;
        self.zones.insert(zone.into(), chain).is_none()
    }

    /// The chain for this query, and where in its qname the zone starts. No allocation.
    pub(crate) fn find(&self, query: &Query) -> Option<(usize, usize)> {
        let qname = query.qname();
        let root = self
            .root
            .map(|chain| (chain, qname.len().saturating_sub(1)));
        if !self.has_others {
            return root;
        }
        // RFC 4035 §3.1.4.1: DS lives on the parent's side, so the longest zone above the name answers; if we have
        // none (the root block does not count, it mostly forwards), the zone itself does.
        let mut own = None;
        let mut offset = 0;
        for suffix in name::suffixes(qname) {
            if suffix != [0]
                && let Some(chain) = self.zones.get(suffix)
            {
                if query.qtype() != Rtype::DS || offset > 0 {
                    return Some((*chain, offset));
                }
                own = Some((*chain, offset));
            }
            offset += 1 + suffix.first().map_or(0, |len| usize::from(*len));
        }
        own.or(root)
    }
}

/// Chains with what routing must know of them.
pub(crate) struct ChainFacts {
    pub(crate) all_classes: bool,
}

impl ChainFacts {
    /// Whether a query of this class may enter.
    pub(crate) fn admits(&self, class: Class) -> bool {
        class == Class::IN || self.all_classes
    }
}

/// A listener's routes, by [`ListenerId`].
pub(crate) fn of(routes: &[Routes], listener: ListenerId) -> Option<&Routes> {
    routes.get(usize::from(listener.0))
}

/// Counts queries that no chain takes: no zone for them, or a class that their server block does not serve. CoreDNS's label for their zone is
/// `dropped`.
pub(crate) struct Refusals {
    requests: CounterTable,
    responses: Counter,
}

impl Refusals {
    /// The counters of one listener.
    pub(crate) fn new(metrics: &Metrics, server: &str) -> Refusals {
        let fixed = [("server", server), ("zone", "dropped"), ("view", "")];
        let types: Vec<&str> = TYPE_LABELS
            .iter()
            .map(|(text, _)| *text)
            .chain(["other"])
            .collect();
        let dims: [(&str, &[&str]); 3] = [
            ("proto", &["udp", "tcp"]),
            ("family", &["1", "2"]),
            ("type", &types),
        ];
        let responses = [
            ("server", server),
            ("zone", "dropped"),
            ("view", ""),
            ("rcode", "REFUSED"),
            ("plugin", ""),
        ];
        Refusals {
            requests: metrics.table("coredns_dns_requests_total", REQUESTS_HELP, &fixed, &dims),
            responses: metrics.counter("coredns_dns_responses_total", RESPONSES_HELP, &responses),
        }
    }

    /// One more.
    pub(crate) fn count(&self, query: &Facts) {
        let [proto, family, qtype] = metrics::request_labels(query);
        self.requests.inc(&[proto, family, qtype]);
        self.responses.inc();
    }
}
