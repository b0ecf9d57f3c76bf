//! loop: finds out whether what we forward comes back to us.
//!
//! After the start a question that nobody can guess goes out through the forwarder behind this plugin. If it comes in again
//! as a client's query, our upstream is ourselves, or asks us. Three such questions must come back before we believe it. From then on
//! this chain answers SERVFAIL instead of forwarding, until a probe goes out and does not come back.
//!
//! CoreDNS ends the process here. We do not: no packet may ever stop the server, and the other server blocks are well.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::kit::errors::SetupErrors;
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::lookup::Lookup;
use crate::kit::options::Checked;
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::{Query, Slot, flags};
use crate::kit::response::{Response, Source};
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Name, Rcode, Rtype, name};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "loop",
    aliases: &[],
    summary: "finds out whether what is forwarded comes back",
    arguments: &[],
    options: &[],
    free_block: false,
    repeat: Repeat::Once,
    setup,
};

/// Probes that must come back before we say that there is a loop.
const RETURNS: u32 = 3;
/// How long a probe waits for its reply.
const REPLY_MAX: Duration = Duration::from_secs(2);
/// How long after a reply a probe may still come back, as in CoreDNS.
const LATE: Duration = Duration::from_secs(2);
/// Between two probes while there is no reply.
const RETRY: Duration = Duration::from_secs(1);
/// Probes without a reply before we give up: 30 s, as in CoreDNS.
const TRIES: u32 = 30;
/// Between two probes while there is a loop.
const RECHECK: Duration = Duration::from_secs(30);

fn setup(_: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let (zone, zone_text) = match server.keys().first() {
        Some(key) => (key.zone.name.clone(), key.zone.text.clone()),
        None => (Name::root(), ".".to_owned()),
    };
    let (listener, own) = match server.listeners().first() {
        Some((id, name)) => (Some(*id), name.trim_start_matches("dns://").to_owned()),
        None => (None, String::new()),
    };
    let watch = Arc::new(Watch::default());
    let prober = Prober {
        watch: Arc::clone(&watch),
        lookup: server.lookup(),
        zone,
        zone_text,
        own,
    };
    server.background("loop", async move {
        let mut slot = Slot::new();
        slot.facts.flags = flags::RD;
        if let Some(listener) = listener {
            slot.facts.listener = listener;
        }
        prober.run(Query::from_slot(slot)).await;
    });
    server.chain(LoopDetector { watch });
    Ok(())
}

/// What the handler and the prober tell each other.
#[derive(Default)]
struct Watch {
    // Whether `probe` holds a name to look for.
    active: AtomicBool,
    looped: AtomicBool,
    returns: AtomicU32,
    probe: Mutex<Probe>,
}

#[derive(Default)]
struct Probe {
    qname: Vec<u8>,
    // Who brought it back, for the operator.
    client: Option<String>,
}

impl Watch {
    fn probe(&self) -> MutexGuard<'_, Probe> {
        self.probe
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether this is our probe, come back.
    fn is_return(&self, query: &Query) -> bool {
        if query.qtype() != Rtype::HINFO || query.is_internal() || !self.active.load(Relaxed) {
            return false;
        }
        let mut probe = self.probe();
        let is_ours = probe.qname == query.qname();
        if is_ours {
            probe.client = Some(query.client().to_string());
            self.returns.fetch_add(1, Relaxed);
        }
        is_ours
    }
}

struct LoopDetector {
    watch: Arc<Watch>,
}

impl Handler for LoopDetector {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        // A probe that came back goes no further: a loop must not run while we look for it.
        if self.watch.is_return(&query) || self.watch.looped.load(Relaxed) && !query.is_internal() {
            return Served::Now(refuse_to_forward(query));
        }
        next.serve(query)
    }
}

fn refuse_to_forward(query: Query) -> Response {
    let mut response = query.rcode(Rcode::SERVFAIL);
    response.set_source(Source::Failure);
    // No Reachable Authority (RFC 8914 §4.23).
    response.add_ede(22, "forwarding loop");
    response
}

struct Prober {
    watch: Arc<Watch>,
    lookup: Lookup,
    zone: Name,
    zone_text: String,
    own: String,
}

/// What became of a probe.
enum Probed {
    Returned,
    Answered,
    Unanswered,
}

impl Prober {
    async fn run(self, parent: Query) {
        let mut returned = 0;
        let mut unanswered = 0;
        let mut from_the_front = true;
        while unanswered < TRIES {
            let Some(qname) = self.random_name() else {
                tracing::warn!(
                    "plugin/loop: the zone {} leaves no room for a probe",
                    self.zone_text
                );
                return;
            };
            match self.send(&parent, &qname, from_the_front).await {
                Probed::Returned => {
                    returned += 1;
                    if returned >= RETURNS {
                        self.report(&qname);
                        self.wait_for_the_end(&parent).await;
                        return;
                    }
                }
                Probed::Answered => return,
                Probed::Unanswered => {
                    unanswered += 1;
                    tokio::time::sleep(RETRY).await;
                }
            }
            // Through the whole server once, as any query. A cache there lets a query wait for the same one that is
            // under way, and ours would wait for itself, so the others start behind it.
            from_the_front = false;
        }
    }

    /// Sends a probe and waits for what becomes of it.
    async fn send(&self, parent: &Query, qname: &Name, from_the_front: bool) -> Probed {
        self.watch.returns.store(0, Relaxed);
        *self.watch.probe() = Probe {
            qname: qname.as_wire().to_vec(),
            client: None,
        };
        self.watch.active.store(true, Relaxed);
        let answered = match from_the_front {
            true => answers(self.lookup.ask(parent, qname.as_wire(), Rtype::HINFO)).await,
            false => match Query::internal(parent, qname.as_wire(), Rtype::HINFO) {
                Some(query) => {
                    let rest = self.lookup.rest(query);
                    answers(async { Some(rest.await) }).await
                }
                None => false,
            },
        };
        if answered && self.watch.returns.load(Relaxed) == 0 {
            tokio::time::sleep(LATE).await;
        }
        self.watch.active.store(false, Relaxed);
        match (self.watch.returns.load(Relaxed), answered) {
            (1.., _) => Probed::Returned,
            (0, true) => Probed::Answered,
            (0, false) => Probed::Unanswered,
        }
    }

    fn random_name(&self) -> Option<Name> {
        // 124 bits that nobody can guess (CVE-2026-26018): only who got our query can send it back.
        let label = || (rand::random::<u64>() >> 2).to_string();
        let name = self.zone.child(label().as_bytes()).ok()?;
        name.child(label().as_bytes()).ok()
    }

    fn report(&self, qname: &Name) {
        self.watch.looped.store(true, Relaxed);
        let client = self.watch.probe().client.take().unwrap_or_default();
        tracing::error!(
            "plugin/loop: Loop ({client} -> {}) detected for zone \"{}\", see https://coredns.io/plugins/loop#troubleshooting. \
             Query: \"HINFO {}\"; until it is gone queries are answered SERVFAIL instead of being forwarded",
            self.own,
            self.zone_text,
            name::display(qname.as_wire()),
        );
    }

    async fn wait_for_the_end(&self, parent: &Query) {
        while let Some(qname) = self.random_name() {
            tokio::time::sleep(RECHECK).await;
            if let Probed::Answered = self.send(parent, &qname, false).await {
                break;
            }
        }
        self.watch.looped.store(false, Relaxed);
        tracing::info!(
            "plugin/loop: the loop for zone \"{}\" is gone",
            self.zone_text
        );
    }
}

/// Whether somebody answers: an upstream, not a failure of our own.
async fn answers(asked: impl Future<Output = Option<Response>>) -> bool {
    match tokio::time::timeout(REPLY_MAX, asked).await {
        Ok(Some(response)) => response.error().is_none() && response.source() != Source::Failure,
        _ => false,
    }
}
