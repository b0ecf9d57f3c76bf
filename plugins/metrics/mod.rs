//! metrics: counts queries and responses and serves everything counted to Prometheus.
//!
//! Series and labels are CoreDNS's, so its dashboards go on working. Label sets are closed by the configuration (zones, plugins, a fixed
//! list of types), never by clients, and every handle is bound at setup: a query costs a few adds into its worker's own cells.

mod skydns;

use std::sync::Arc;

use crate::kit::clock;
use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::metrics::{
    self, Counter, CounterTable, Histogram, REQUESTS_HELP, RESPONSES_HELP, SIZE_BUCKETS,
    TIME_BUCKETS, TYPE_LABELS,
};
use crate::kit::options::{self, Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::{Facts, ListenerId, Query};
use crate::kit::response::Response;
use crate::kit::setup::{HttpAnswer, ServerSetup};
use crate::kit::wire::{Opcode, Rcode};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "metrics",
    aliases: &["prometheus"],
    summary: "counts queries and responses and serves the figures to Prometheus",
    arguments: &[Arg::optional("ADDRESS", Kind::Listen)],
    options: &[
        Opt::new(
            "path",
            &[Arg::one("PATH", Kind::Text)],
            "/metrics",
            "where the figures are served",
        ),
        Opt::new(
            "names",
            &[
                Arg::one("LIKE", Kind::Choice(&["coredns", "skydns"])),
                Arg::optional("NAMESPACE", Kind::Text),
                Arg::optional("SUBSYSTEM", Kind::Text),
            ],
            "coredns; skydns skydns skydns",
            "whose names and labels the counts of queries have; with `skydns` NAMESPACE and SUBSYSTEM stand in front of SkyDNS's",
        ),
        Opt::ignored(
            "runtime_metrics",
            "accepted as in CoreDNS, where it exports the Go runtime's figures",
        ),
        Opt::new(
            "tls",
            &[Arg::one("FILE", Kind::Text)],
            "off",
            "not served yet: an error that says so",
        ),
    ],
    free_block: false,
    repeat: Repeat::Once,
    setup,
};

const ADDRESS: &str = "localhost:9153";

/// Rcodes with a label of their own: the registered ones, then everything else under its number's place.
const RCODES: u16 = 24;

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let Some(directive) = directives.first() else {
        return Ok(());
    };
    if let Some(tls) = directive.option("tls") {
        return Err(SetupError::at(
            tls.span(),
            "metrics over TLS are not served yet; remove the line and keep the address on loopback",
        )
        .into());
    }
    let (text, span) = match directive.arg("ADDRESS") {
        Some(address) => (address.text().to_owned(), address.span()),
        None => (ADDRESS.to_owned(), directive.span()),
    };
    let address = options::parse_listen(&text).map_err(|what| SetupError::at(span, what))?;
    let metrics = server.metrics().clone();
    server.http(
        span,
        address,
        path(directive)?,
        Arc::new(move || HttpAnswer {
            status: 200,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics.text(),
        }),
    );
    match skydns::read(directive)? {
        Some(names) => {
            let handler = skydns::Counted::new(server.metrics(), &names);
            server.chain(handler);
        }
        None => {
            let handler = Metrics::new(server);
            server.chain(handler);
        }
    }
    Ok(())
}

fn path(directive: &Checked) -> Result<String, SetupError> {
    let Some(word) = directive.option("path").and_then(|line| line.arg("PATH")) else {
        return Ok("/metrics".to_owned());
    };
    match word.text().starts_with('/') && !word.text().contains([' ', '?', '#']) {
        true => Ok(word.text().to_owned()),
        false => Err(SetupError::at(
            word.span(),
            format!("`{}` is no path; write one like /metrics", word.text()),
        )),
    }
}

struct Metrics {
    // By listener: a few at most, looked up by position.
    servers: Vec<(ListenerId, PerServer)>,
    zones: Vec<Box<[u8]>>,
    plugins: Vec<&'static str>,
}

/// The handles of one `server` label.
struct PerServer {
    requests: CounterTable,
    responses: CounterTable,
    zones: Vec<PerZone>,
}

struct PerZone {
    duration: Histogram,
    dnssec_ok: Counter,
    request_size: [Histogram; 2],
    response_size: [Histogram; 2],
}

impl Metrics {
    fn new(server: &ServerSetup<'_>) -> Metrics {
        let zones: Vec<(Box<[u8]>, String)> = server
            .zones()
            .iter()
            .map(|zone| (zone.name.as_wire().into(), zone.text.clone()))
            .collect();
        let names: Vec<&str> = zones.iter().map(|(_, text)| text.as_str()).collect();
        let mut plugins = vec![""];
        plugins.extend(server.plugins_in_block());
        let servers = server
            .listeners()
            .iter()
            .map(|(id, name)| (*id, PerServer::new(server, name, &names, &plugins)))
            .collect();
        Metrics {
            servers,
            zones: zones.into_iter().map(|(wire, _)| wire).collect(),
            plugins,
        }
    }

    /// The handles and the zone's place for a query. No allocation.
    fn handles(&self, query: &Facts) -> Option<(&PerServer, usize)> {
        let listener = query.listener();
        let (_, server) = self.servers.iter().find(|(id, _)| *id == listener)?;
        let zone = match self.zones.len() {
            1 => 0,
            _ => self.zones.iter().position(|zone| **zone == *query.zone())?,
        };
        Some((server, zone))
    }
}

impl PerServer {
    fn new(server: &ServerSetup<'_>, name: &str, zones: &[&str], plugins: &[&str]) -> PerServer {
        let metrics = server.metrics();
        let fixed = [("server", name), ("view", "")];
        let types: Vec<&str> = TYPE_LABELS
            .iter()
            .map(|(text, _)| *text)
            .chain(["other"])
            .collect();
        let rcodes: Vec<String> = (0..RCODES).map(|code| Rcode(code).to_string()).collect();
        let rcodes: Vec<&str> = rcodes.iter().map(String::as_str).collect();
        PerServer {
            requests: metrics.table(
                "coredns_dns_requests_total",
                REQUESTS_HELP,
                &fixed,
                &[
                    ("zone", zones),
                    ("proto", &["udp", "tcp"]),
                    ("family", &["1", "2"]),
                    ("type", &types),
                ],
            ),
            responses: metrics.table(
                "coredns_dns_responses_total",
                RESPONSES_HELP,
                &fixed,
                &[("zone", zones), ("rcode", &rcodes), ("plugin", plugins)],
            ),
            zones: zones
                .iter()
                .map(|zone| PerZone::new(server, name, zone))
                .collect(),
        }
    }
}

impl PerZone {
    fn new(server: &ServerSetup<'_>, name: &str, zone: &str) -> PerZone {
        let metrics = server.metrics();
        let labels = [("server", name), ("zone", zone), ("view", "")];
        let sized = |metric: &str, help: &str| {
            ["udp", "tcp"].map(|proto| {
                let labels = [
                    ("server", name),
                    ("zone", zone),
                    ("view", ""),
                    ("proto", proto),
                ];
                metrics.histogram(metric, help, &SIZE_BUCKETS, &labels)
            })
        };
        PerZone {
            duration: metrics.histogram(
                "coredns_dns_request_duration_seconds",
                "Histogram of the time (in seconds) each request took per zone.",
                &TIME_BUCKETS,
                &labels,
            ),
            dnssec_ok: metrics.counter(
                "coredns_dns_do_requests_total",
                "Counter of DNS requests with DO bit set per zone.",
                &labels,
            ),
            request_size: sized(
                "coredns_dns_request_size_bytes",
                "Size of the request (in bytes) in UDP or TCP.",
            ),
            response_size: sized(
                "coredns_dns_response_size_bytes",
                "Size of the returned response in bytes.",
            ),
        }
    }
}

impl Handler for Metrics {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        next.serve(query).then(self)
    }

    fn serves(&self, _: Opcode) -> bool {
        true
    }
}

impl Edit for Metrics {
    fn edit(&self, response: Response) -> Response {
        let query = response.query();
        let Some((server, zone)) = self.handles(query) else {
            return response;
        };
        let [proto, family, qtype] = metrics::request_labels(query);
        server.requests.inc(&[zone, proto, family, qtype]);
        let Some(per_zone) = server.zones.get(zone) else {
            return response;
        };
        per_zone.request_size[proto].observe(query.size() as f64);
        if query.dnssec_ok() {
            per_zone.dnssec_ok.inc();
        }
        per_zone.duration.observe(
            clock::now()
                .saturating_duration_since(query.received_at())
                .as_secs_f64(),
        );
        // What is dropped on purpose has no response to count.
        if !response.is_ignored() {
            let link = response.link();
            let plugin = self
                .plugins
                .iter()
                .position(|name| std::ptr::eq(*name, link) || *name == link)
                .unwrap_or(0);
            server.responses.inc(&[
                zone,
                usize::from(response.rcode().0.min(RCODES - 1)),
                plugin,
            ]);
            per_zone.response_size[proto].observe(response.len() as f64);
        }
        response
    }
}
