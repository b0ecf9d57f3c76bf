//! [`Servers`]: a group of servers that another plugin asks, made while the server runs. What a `forward` line is, without the line.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::config::{Config, Order};
use super::message::Mark;
use super::upstream::{HealthTable, Probe, Target, Upstream};
use super::{Forward, Lane, Permit, tcp};
use crate::kit::dnsfile::Span;
use crate::kit::handler::Next;
use crate::kit::metrics::Metrics;
use crate::kit::query::Query;
use crate::kit::response::Response;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::Name;
use crate::kit::zones::{Zone, ZoneSet};

/// What all groups of a plugin have in common.
#[derive(Clone)]
pub(crate) struct ServersConfig {
    /// For a reply, before the next server is asked.
    read_timeout: Duration,
    /// The first server is the one written first.
    is_sequential: bool,
    /// An EDNS option that every query carries.
    mark: Option<Mark>,
    health: Arc<HealthTable>,
    metrics: Metrics,
    workers: usize,
}

impl ServersConfig {
    /// As the server block has it.
    pub(crate) fn new(
        server: &mut ServerSetup<'_>,
        read_timeout: Duration,
        is_sequential: bool,
        mark: Option<(u16, u8)>,
    ) -> ServersConfig {
        ServersConfig {
            read_timeout,
            is_sequential,
            mark,
            health: server.keep("forward/health", HealthTable::default),
            metrics: server.metrics().clone(),
            workers: server.workers(),
        }
    }
}

/// See the module.
pub(crate) struct Servers {
    forward: Forward,
}

impl Servers {
    /// A group; at most 64 of the addresses are used. Connects when it is first asked.
    pub(crate) fn new(addresses: &[SocketAddr], common: &ServersConfig) -> Servers {
        let probe = Probe {
            interval: Duration::from_millis(500),
            recursion_desired: true,
            domain: Name::root().as_wire().into(),
            tcp: false,
        };
        let upstreams: Vec<Arc<Upstream>> = addresses
            .iter()
            .take(super::config::UPSTREAMS_MAX)
            .map(|address| {
                let target = Target::Network(*address);
                Arc::new(Upstream::new(
                    target,
                    &common.health,
                    &probe,
                    &common.metrics,
                ))
            })
            .collect();
        let config = Config {
            from: Zone::root(),
            to: Vec::new(),
            to_span: Span {
                file: 0,
                start: 0,
                end: 0,
            },
            except: ZoneSet::new(Vec::new()),
            force_tcp: false,
            prefer_udp: false,
            tcp: tcp::Policy {
                source: None,
                expire: Duration::from_secs(10),
                max_age: Duration::ZERO,
                max_idle: 0,
                mark: common.mark,
            },
            read_timeout: common.read_timeout,
            max_fails: 2,
            max_connect_attempts: None,
            order: match common.is_sequential {
                true => Order::Sequential,
                false => Order::RoundRobin,
            },
            probe,
            max_concurrent: 0,
            next: Vec::new(),
            next_on_nodata: false,
            failfast: false,
            failover: Vec::new(),
            resolver: Vec::new(),
        };
        Servers {
            forward: super::assemble(
                config,
                Arc::new(OnceLock::from(upstreams)),
                common.workers,
                &common.metrics,
            ),
        }
    }

    /// Asks them for the client.
    pub(crate) async fn ask(&self, query: Query) -> Response {
        self.forward.ask(query, Next::new(&[]), Permit(None)).await
    }

    /// Closes connections that lay idle; to be called every ten seconds or so.
    pub(crate) fn sweep(&self) {
        let policy = self.forward.config.tcp;
        let lanes = self.forward.lanes.iter().filter_map(OnceLock::get);
        for Lane { connections, .. } in lanes {
            connections.sweep(policy);
        }
    }
}
