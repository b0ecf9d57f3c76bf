//! An upstream: its address, whether it is well, and its metrics.
//!
//! Health is passive first: a query that gets no reply counts against its upstream and starts a probe; more than
//! `max_fails` in a row and it is down. The probe asks until any reply comes, which makes it well again, and so does any
//! reply to a client's query.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use crate::kit::metrics::{Counter, CounterTable, Histogram, Metrics, TIME_BUCKETS};
#[cfg(feature = "testing")]
use crate::kit::testing::ScriptedUpstream;
use crate::kit::wire::Rcode;

/// What is asked.
pub(super) enum Target {
    /// A server on the network.
    Network(SocketAddr),
    /// A script of a test.
    #[cfg(feature = "testing")]
    Scripted(Arc<ScriptedUpstream>, String),
}

/// An upstream at work in one `forward`.
pub(super) struct Upstream {
    pub(super) target: Target,
    /// `192.0.2.1:53`, for errors and the label `to`.
    pub(super) name: String,
    pub(super) health: Arc<Health>,
    pub(super) metrics: UpstreamMetrics,
    /// TCP connections that lie idle, in all workers.
    pub(super) idle_tcp: Arc<AtomicUsize>,
}

impl Upstream {
    pub(super) fn new(
        target: Target,
        health: &HealthTable,
        probe: &Probe,
        metrics: &Metrics,
    ) -> Self {
        let name = match &target {
            Target::Network(address) => address.to_string(),
            #[cfg(feature = "testing")]
            Target::Scripted(_, word) => word.clone(),
        };
        Upstream {
            health: health.of(&format!("{name} {probe:?}")),
            metrics: UpstreamMetrics::new(metrics, &name),
            target,
            name,
            idle_tcp: Arc::default(),
        }
    }
}

/// How an upstream that failed is asked whether it is back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Probe {
    /// Between two probes.
    pub(super) interval: Duration,
    /// Whether they ask for recursion.
    pub(super) recursion_desired: bool,
    /// Whose NS records they ask for; wire form.
    pub(super) domain: Box<[u8]>,
    /// Over TCP instead of UDP.
    pub(super) tcp: bool,
}

/// Whether an upstream is well; outlives reloads.
#[derive(Default)]
pub(super) struct Health {
    fails: AtomicU32,
    probing: AtomicBool,
}

impl Health {
    /// Whether it failed more than `max_fails` times in a row; with 0 it never is.
    pub(super) fn is_down(&self, max_fails: u32) -> bool {
        max_fails > 0 && self.fails.load(Relaxed) > max_fails
    }

    /// Notes a failure.
    pub(super) fn failed(&self) {
        // More than enough: what counts is whether it is above `max_fails`.
        let fails = self.fails.load(Relaxed);
        self.fails.store(fails.saturating_add(1), Relaxed);
    }

    /// Notes a reply, whatever it says. Writes nothing while all is well.
    pub(super) fn replied(&self) {
        if self.fails.load(Relaxed) != 0 {
            self.fails.store(0, Relaxed);
        }
    }

    /// The right to probe; `None` while somebody else does.
    pub(super) fn begin_probing(self: &Arc<Self>) -> Option<Probing> {
        let begun = !self.probing.swap(true, Relaxed);
        begun.then(|| Probing(Arc::clone(self)))
    }
}

/// The right to probe, given back when it is dropped, however the task ends.
pub(super) struct Probing(Arc<Health>);

impl Probing {
    pub(super) fn health(&self) -> &Health {
        &self.0
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.probing.store(false, Relaxed);
    }
}

/// The health of every upstream that some `forward` names, kept over reloads.
#[derive(Default)]
pub(super) struct HealthTable {
    entries: Mutex<HashMap<String, Weak<Health>>>,
}

impl HealthTable {
    fn of(&self, key: &str) -> Arc<Health> {
        let mut entries = self
            .entries
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(health) = entries.get(key).and_then(Weak::upgrade) {
            return health;
        }
        entries.retain(|_, health| health.strong_count() > 0);
        let health = Arc::<Health>::default();
        entries.insert(key.to_owned(), Arc::downgrade(&health));
        health
    }
}

/// Rcodes with a histogram of their own: all that have a mnemonic. Behind them one for the rest, `other`.
const RCODES: usize = 24;

/// The metrics of one upstream.
pub(super) struct UpstreamMetrics {
    all: Metrics,
    to: String,
    // Registered when the rcode is first seen, as CoreDNS does.
    durations: [OnceLock<Histogram>; RCODES + 1],
    hits: CounterTable,
    misses: CounterTable,
    probe_failures: OnceLock<Counter>,
    mismatched: Counter,
    malformed: Counter,
    to_tcp: Counter,
}

const PROXY: (&str, &str) = ("proxy_name", "forward");

impl UpstreamMetrics {
    fn new(metrics: &Metrics, to: &str) -> UpstreamMetrics {
        let by_proto = |name, help| {
            metrics.table(
                name,
                help,
                &[PROXY, ("to", to)],
                &[("proto", &["udp", "tcp"])],
            )
        };
        let ours = |name, help| metrics.counter(name, help, &[("to", to)]);
        UpstreamMetrics {
            all: metrics.clone(),
            to: to.to_owned(),
            durations: std::array::from_fn(|_| OnceLock::new()),
            hits: by_proto(
                "coredns_proxy_conn_cache_hits_total",
                "Counter of connection cache hits per upstream and protocol.",
            ),
            misses: by_proto(
                "coredns_proxy_conn_cache_misses_total",
                "Counter of connection cache misses per upstream and protocol.",
            ),
            probe_failures: OnceLock::new(),
            mismatched: ours(
                "skeindns_forward_mismatched_replies_total",
                "Messages from an upstream's address that answer no query under way: late, misdirected or forged.",
            ),
            malformed: ours(
                "skeindns_forward_malformed_replies_total",
                "Replies that could not be read.",
            ),
            to_tcp: ours(
                "skeindns_forward_moved_to_tcp_total",
                "Queries asked again over TCP: the reply was truncated, or too many replies did not match.",
            ),
        }
    }

    /// A reply came after this long.
    pub(super) fn replied(&self, rcode: Rcode, after: Duration) {
        let at = usize::from(rcode.0).min(RCODES);
        if let Some(cell) = self.durations.get(at) {
            cell.get_or_init(|| self.duration(rcode))
                .observe(after.as_secs_f64());
        }
    }

    fn duration(&self, rcode: Rcode) -> Histogram {
        let text = match rcode.mnemonic() {
            Some(text) => text.to_owned(),
            None if usize::from(rcode.0) < RCODES => rcode.0.to_string(),
            None => "other".to_owned(),
        };
        self.all.histogram(
            "coredns_proxy_request_duration_seconds",
            "Histogram of the time each request took.",
            &TIME_BUCKETS,
            &[PROXY, ("to", &self.to), ("rcode", &text)],
        )
    }

    /// A socket or connection that was open already was used.
    pub(super) fn reused(&self, tcp: bool) {
        self.hits.inc(&[usize::from(tcp)]);
    }

    /// A socket or connection was opened.
    pub(super) fn opened(&self, tcp: bool) {
        self.misses.inc(&[usize::from(tcp)]);
    }

    /// A probe got no reply.
    pub(super) fn probe_failed(&self) {
        self.probe_failures
            .get_or_init(|| {
                self.all.counter(
                    "coredns_proxy_healthcheck_failures_total",
                    "Counter of the number of failed healthchecks.",
                    &[PROXY, ("to", &self.to)],
                )
            })
            .inc();
    }

    pub(super) fn mismatched(&self) {
        self.mismatched.inc();
    }

    pub(super) fn malformed(&self) {
        self.malformed.inc();
    }

    pub(super) fn moved_to_tcp(&self) {
        self.to_tcp.inc();
    }
}
