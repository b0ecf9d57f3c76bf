//! What operators see of the agent: systemd's status line, a JSON file, metrics.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sd_notify::NotifyState;
use serde_json::{Value, json};
use skein_plugins::kit::dnsfile::Span;
use skein_plugins::kit::metrics::{Counter, Gauge, Metrics};
use skein_plugins::kit::setup::{HttpAnswer, HttpRoute};

use super::ears::tell;
use super::plan::Held;
use super::store::Lease;
use crate::admin::Admin;

/// How the agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing has been written yet.
    Starting,
    /// No address passes the filters.
    NoAddress,
    /// Everything is as we want it.
    Registered,
    /// etcd cannot be used; what was written lives until the lease ends.
    Outage,
    /// Another owner has taken the name.
    Deposed,
    /// The name is another's and we may not touch it.
    Refused,
    Stopping,
}

impl Phase {
    fn word(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::NoAddress => "no-address",
            Phase::Registered => "registered",
            Phase::Outage => "outage",
            Phase::Deposed => "deposed",
            Phase::Refused => "refused",
            Phase::Stopping => "stopping",
        }
    }
}

/// A look at the agent.
pub(super) struct View<'a> {
    pub(super) phase: Phase,
    pub(super) names: &'a [String],
    pub(super) addresses: Vec<String>,
    pub(super) owner: &'a str,
    pub(super) api: &'static str,
    pub(super) endpoint: String,
    pub(super) lease: Option<Lease>,
    pub(super) records: Vec<(&'a str, &'a str)>,
    pub(super) held: &'a [Held],
    pub(super) left_out: &'a [String],
    pub(super) error: Option<&'a str>,
}

impl View<'_> {
    fn json(&self) -> Value {
        let records = self.records.iter().map(|(key, value)| {
            let value: Value = serde_json::from_str(value).unwrap_or_default();
            json!({"key": key, "value": value})
        });
        let held = self
            .held
            .iter()
            .map(|held| json!({"key": held.key, "owner": held.by, "same": held.same}));
        let lease = self.lease.map(|lease| {
            json!({
                "id": format!("{:x}", lease.id),
                "ttl": lease.granted.as_secs(),
                "remaining": remaining(&lease).as_secs(),
            })
        });
        json!({
            "state": self.phase.word(),
            "names": self.names,
            "addresses": self.addresses,
            "owner": self.owner,
            "api": self.api,
            "endpoint": self.endpoint,
            "lease": lease,
            "records": records.collect::<Vec<_>>(),
            "held_by_others": held.collect::<Vec<_>>(),
            "left_out": self.left_out,
            "error": self.error,
            "time": unix_now(),
        })
    }

    /// `node1.skydns.local: 192.0.2.11, 2001:db8::11`.
    pub(super) fn line(&self) -> String {
        let name = self.names.first().map_or("", String::as_str);
        match self.phase {
            Phase::Registered => format!("{name}: {}", self.addresses.join(", ")),
            Phase::Starting => format!("{name}: waiting for etcd"),
            Phase::NoAddress => format!("{name}: no address to register"),
            Phase::Deposed => format!("{name}: another machine has taken the name"),
            Phase::Stopping => format!("{name}: stopping"),
            Phase::Outage | Phase::Refused => {
                format!("{name}: {}", self.error.unwrap_or("waiting for etcd"))
            }
        }
    }
}

/// What is left of a lease, as far as we know.
fn remaining(lease: &Lease) -> std::time::Duration {
    lease.granted.saturating_sub(lease.renewed.elapsed())
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Whoever is told.
pub(super) struct Audience {
    metrics: Metrics,
    numbers: Numbers,
    admin: Admin,
    // The status line that systemd has.
    line: String,
    ready: bool,
    // Whether the status file could be written last time, so that trouble is logged once.
    file_works: bool,
}

/// The metrics.
pub(super) struct Numbers {
    records: Gauge,
    held: Gauge,
    addresses: Gauge,
    registered: Gauge,
    lease_ttl: Gauge,
    renewed: Gauge,
    pub(super) writes: Counter,
    pub(super) deletes: Counter,
    pub(super) leases: Counter,
    pub(super) leases_lost: Counter,
    pub(super) errors: Counter,
    pub(super) address_changes: Counter,
    pub(super) repairs: Counter,
}

impl Audience {
    /// Nobody yet.
    pub(super) fn new() -> Audience {
        let metrics = Metrics::new(1);
        let gauge =
            |name: &str, help: &str| metrics.gauge(&format!("skeindns_register_{name}"), help, &[]);
        let counter = |name: &str, help: &str| {
            metrics.counter(&format!("skeindns_register_{name}"), help, &[])
        };
        let changes = |kind: &str| {
            metrics.counter(
                "skeindns_register_changes_total",
                "Keys that were changed in etcd.",
                &[("change", kind)],
            )
        };
        let numbers = Numbers {
            records: gauge("records", "Records of this machine in etcd."),
            held: gauge(
                "held_by_others",
                "Records that this machine wants and another owner has.",
            ),
            addresses: gauge(
                "addresses",
                "Addresses of this machine that are registered.",
            ),
            registered: gauge(
                "registered",
                "1 if etcd has everything as it is wanted, else 0.",
            ),
            lease_ttl: gauge(
                "lease_ttl_seconds",
                "The life of the records after this machine died.",
            ),
            renewed: gauge(
                "lease_renewed_timestamp_seconds",
                "When the lease was renewed last.",
            ),
            writes: changes("put"),
            deletes: changes("delete"),
            leases: counter("leases_total", "Leases that were granted."),
            leases_lost: counter(
                "leases_lost_total",
                "Leases that ended although they were to be renewed.",
            ),
            errors: counter("errors_total", "Calls of etcd that failed."),
            address_changes: counter(
                "address_changes_total",
                "Times that the addresses to register changed.",
            ),
            repairs: counter(
                "repairs_total",
                "Times that records of ours were missing or changed and were written again.",
            ),
        };
        Audience {
            metrics,
            numbers,
            admin: Admin::default(),
            line: String::new(),
            ready: false,
            file_works: true,
        }
    }

    /// The counters.
    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Serves metrics there from now on, or nowhere.
    pub(super) fn serve(&mut self, address: Option<SocketAddr>) -> Result<(), String> {
        let Some(address) = address else {
            return self
                .admin
                .exchange(&[], Vec::new())
                .map_err(|error| error.to_string());
        };
        let metrics = self.metrics.clone();
        let route = HttpRoute {
            plugin: "register",
            span: Span {
                file: 0,
                start: 0,
                end: 0,
            },
            address,
            path: "/metrics".into(),
            handler: Arc::new(move || HttpAnswer {
                status: 200,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body: metrics.text(),
            }),
        };
        let cannot = |error: std::io::Error| format!("--metrics {address}: {error}");
        let fresh = match self.admin.local(address) {
            Some(_) => Vec::new(),
            None => {
                let socket = TcpListener::bind(address).map_err(cannot)?;
                socket.set_nonblocking(true).map_err(cannot)?;
                vec![(address, socket)]
            }
        };
        self.admin.exchange(&[route], fresh).map_err(cannot)?;
        if let Some(local) = self.admin.local(address) {
            tracing::info!("metrics are at http://{local}/metrics");
        }
        Ok(())
    }

    /// Tells everybody how the agent stands.
    pub(super) fn show(&mut self, view: &View<'_>, file: Option<&Path>) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.numbers.records.set(count(view.records.len()));
        self.numbers.held.set(count(view.held.len()));
        self.numbers.addresses.set(count(view.addresses.len()));
        self.numbers
            .registered
            .set(i64::from(view.phase == Phase::Registered));
        let granted = view.lease.map_or(0, |lease| lease.granted.as_secs());
        self.numbers
            .lease_ttl
            .set(i64::try_from(granted).unwrap_or(i64::MAX));
        if let Some(lease) = view.lease {
            let renewed = unix_now().saturating_sub(lease.renewed.elapsed().as_secs());
            self.numbers
                .renewed
                .set(i64::try_from(renewed).unwrap_or(i64::MAX));
        }
        let line = view.line();
        if line != self.line {
            tell(&[NotifyState::Status(&line)]);
            self.line = line;
        }
        if view.phase == Phase::Registered && !self.ready {
            self.ready = true;
            tell(&[NotifyState::Ready]);
        }
        if let Some(file) = file {
            self.write(file, &view.json());
        }
    }

    /// Says that a reload is over; whoever was ready is so still.
    pub(super) fn reloaded(&self) {
        if self.ready {
            tell(&[NotifyState::Ready]);
        }
    }

    /// Writes beside the file first, so that nobody reads half of it.
    fn write(&mut self, file: &Path, state: &Value) {
        let beside = file.with_extension("new");
        let written = std::fs::write(&beside, format!("{state:#}\n"))
            .and_then(|()| std::fs::rename(&beside, file));
        match written {
            Ok(()) => self.file_works = true,
            Err(error) if self.file_works => {
                self.file_works = false;
                tracing::warn!(
                    "--status-file {}: {error}; the records do not depend on it",
                    file.display()
                );
            }
            Err(_) => {}
        }
    }
}
