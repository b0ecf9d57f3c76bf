//! SkyDNS's names for what is counted: `skydns_skydns_dns_request_count_total{system="auth"}` and its like, for dashboards that have them.
//!
//! SkyDNS asked itself which part of it answered; here the response says who did. Each error is counted once, which SkyDNS did twice over UDP.

use crate::kit::clock;
use crate::kit::errors::SetupError;
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::metrics::{Counter, CounterTable, Histogram, Metrics};
use crate::kit::options::Checked;
use crate::kit::query::{Query, Transport};
use crate::kit::response::{Response, Source};
use crate::kit::wire::{Opcode, Rcode, Rtype};

const TIME_BUCKETS: [f64; 13] = [
    0.001, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const SIZE_BUCKETS: [f64; 21] = [
    0.0, 512.0, 1024.0, 1500.0, 2048.0, 4096.0, 8192.0, 12288.0, 16384.0, 20480.0, 24576.0,
    28672.0, 32768.0, 36864.0, 40960.0, 45056.0, 49152.0, 53248.0, 57344.0, 61440.0, 65536.0,
];

/// Which part of SkyDNS would have answered.
const SYSTEMS: [&str; 5] = ["auth", "cache", "recursive", "reverse", "stub"];
const AUTH: usize = 0;
const CACHE: usize = 1;
const RECURSIVE: usize = 2;
const REVERSE: usize = 3;
const STUB: usize = 4;

const CAUSES: [&str; 6] = [
    "nxdomain",
    "truncated",
    "refused",
    "overflow",
    "servfail",
    "nodata",
];

/// What stands in front of the names.
pub(super) struct Names {
    namespace: String,
    subsystem: String,
}

impl Names {
    /// Parts that are empty are left out, with their `_`.
    fn full(&self, name: &str) -> String {
        let parts = [&*self.namespace, &*self.subsystem, name];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("_")
    }
}

/// What the directive says; `None` is CoreDNS's names.
pub(super) fn read(directive: &Checked) -> Result<Option<Names>, SetupError> {
    let Some(option) = directive.option("names") else {
        return Ok(None);
    };
    let is_skydns = option
        .arg("LIKE")
        .is_some_and(|like| like.text() == "skydns");
    let part = |argument: &str| match option.arg(argument) {
        None => Ok("skydns".to_owned()),
        Some(word) if !is_skydns => Err(SetupError::at(
            word.span(),
            "CoreDNS's names take no more words; write `names coredns`",
        )),
        Some(word) => {
            let text = word.text();
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            match text.chars().all(fits) && !text.starts_with(|c: char| c.is_ascii_digit()) {
                true => Ok(text.to_owned()),
                false => Err(SetupError::at(
                    word.span(),
                    format!(
                        "`{text}` cannot be part of a metric's name; write letters, digits and _"
                    ),
                )),
            }
        }
    };
    let names = Names {
        namespace: part("NAMESPACE")?,
        subsystem: part("SUBSYSTEM")?,
    };
    Ok(is_skydns.then_some(names))
}

/// Counts as SkyDNS did.
pub(super) struct Counted {
    systems: [PerSystem; SYSTEMS.len()],
    errors: CounterTable,
    misses: Counter,
}

struct PerSystem {
    requests: Counter,
    duration: Histogram,
    size: Histogram,
}

impl Counted {
    pub(super) fn new(metrics: &Metrics, names: &Names) -> Counted {
        let per_system = |system: &str| {
            let labels = [("system", system)];
            PerSystem {
                requests: metrics.counter(
                    &names.full("dns_request_count_total"),
                    "Counter of DNS requests made.",
                    &labels,
                ),
                duration: metrics.histogram(
                    &names.full("dns_request_duration_seconds"),
                    "Histogram of the time (in seconds) each request took to resolve.",
                    &TIME_BUCKETS,
                    &labels,
                ),
                size: metrics.histogram(
                    &names.full("dns_response_size_bytes"),
                    "Size of the responses in bytes.",
                    &SIZE_BUCKETS,
                    &labels,
                ),
            }
        };
        let misses = |cache: &str| {
            metrics.counter(
                &names.full("dns_cachemiss_count_total"),
                "Counter of DNS requests that result in a cache miss.",
                &[("cache", cache)],
            )
        };
        // Nothing keeps signatures yet; the series is there for whoever adds the two up.
        misses("signature");
        Counted {
            systems: SYSTEMS.map(per_system),
            errors: metrics.table(
                &names.full("dns_error_count_total"),
                "Counter of DNS requests resulting in an error.",
                &[],
                &[("system", &SYSTEMS), ("cause", &CAUSES)],
            ),
            misses: misses("response"),
        }
    }
}

impl Handler for Counted {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        next.serve(query).then(self)
    }

    fn serves(&self, _: Opcode) -> bool {
        true
    }
}

impl Edit for Counted {
    fn edit(&self, response: Response) -> Response {
        let query = response.query();
        // What we ask ourselves to complete an answer is no request.
        if query.is_internal() {
            return response;
        }
        let at = system(&response);
        let Some(system) = self.systems.get(at) else {
            return response;
        };
        system.requests.inc();
        let took = clock::now().saturating_duration_since(query.received_at());
        system.duration.observe(took.as_secs_f64());
        if at == AUTH {
            self.misses.inc();
        }
        if !response.is_ignored() {
            system.size.observe(response.len() as f64);
        }
        if let Some(cause) = cause(&response) {
            self.errors.inc(&[at, cause]);
        }
        response
    }
}

/// Which part of SkyDNS would have given this response.
fn system(response: &Response) -> usize {
    let query = response.query();
    match (response.source(), response.link()) {
        (Source::Cache | Source::Stale, _) => CACHE,
        (Source::Upstream, "etcd") => STUB,
        (_, "etcd") if query.qtype() == Rtype::PTR && is_reverse(query.qname()) => REVERSE,
        (_, "etcd") => AUTH,
        _ => RECURSIVE,
    }
}

fn is_reverse(qname: &[u8]) -> bool {
    qname.ends_with(b"\x07in-addr\x04arpa\0") || qname.ends_with(b"\x03ip6\x04arpa\0")
}

/// The place of an error in [`CAUSES`].
fn cause(response: &Response) -> Option<usize> {
    let query = response.query();
    match response.rcode() {
        Rcode::NXDOMAIN => Some(0),
        Rcode::REFUSED => Some(2),
        Rcode::SERVFAIL => Some(4),
        _ if response.is_truncated() => Some(1),
        // It is cut behind us, at the edge.
        _ if response.len() > query.reply_size() => Some(if query.transport() == Transport::Udp {
            1
        } else {
            3
        }),
        _ => None,
    }
}
