//! forward: asks upstream servers.
//!
//! One query's way: [`Forward::serve`] → [`Forward::ask`] chooses an upstream ([`policy`]) → [`Forward::exchange`]
//! sends it over [`udp`] or [`tcp`] and waits → [`message`] judges the reply → the response goes back as bytes.
//! [`upstream`] knows who is down; a probe asks those until they are back.

mod config;
#[cfg(test)]
mod hostile;
mod message;
mod policy;
mod probe;
mod resolve;
mod servers;
mod tcp;
mod udp;
mod upstream;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::kit::clock;
use crate::kit::errors::{ServeError, SetupErrors, UpstreamFault};
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::metrics::{Counter, Metrics};
use crate::kit::options::Checked;
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::{Facts, Query, Transport};
use crate::kit::response::Response;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Opcode, name};
use crate::kit::worker;

pub(crate) use servers::{Servers, ServersConfig};

use config::{Config, Destination};
use message::Opened;
use policy::{Choice, Choices};
use udp::{Outcome, Sockets, Ticket};
use upstream::{HealthTable, Target, Upstream};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "forward",
    aliases: &[],
    summary: "asks upstream servers",
    arguments: config::ARGUMENTS,
    options: config::OPTIONS,
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

/// A query's time with all upstreams together, as in CoreDNS: clients give up soon after.
const SERVE_MAX: Duration = Duration::from_secs(5);
/// How often idle TCP connections are looked at.
const SWEEP: Duration = Duration::from_secs(10);

fn setup(lines: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let mut errors = SetupErrors::default();
    for line in lines {
        match Config::read(line, server) {
            Ok(config) => build(config, server),
            Err(SetupErrors(more)) => errors.0.extend(more),
        }
    }
    server.accept_all_classes();
    match errors.0.is_empty() {
        true => Ok(()),
        false => Err(errors),
    }
}

fn build(config: Config, server: &mut ServerSetup<'_>) {
    let health = server.keep("forward/health", HealthTable::default);
    let metrics = server.metrics().clone();
    let upstreams = Arc::new(OnceLock::new());
    let is_named = |to: &Destination| matches!(to, Destination::Host { .. });
    let make = {
        let upstreams = Arc::clone(&upstreams);
        let probe = config.probe.clone();
        let metrics = metrics.clone();
        move |targets: Vec<Target>| {
            let made = targets
                .into_iter()
                .map(|target| Arc::new(Upstream::new(target, &health, &probe, &metrics)));
            upstreams.set(made.collect()).ok();
        }
    };
    if config.to.iter().any(is_named) {
        let (to, resolver) = (config.to.clone(), config.resolver.clone());
        server.at_start(config.to_span, async move {
            make(targets(to, &resolver).await?);
            Ok(())
        });
    } else {
        make(
            config
                .to
                .iter()
                .filter_map(|to| target(to, server))
                .collect(),
        );
    }

    let tcp = config.tcp;
    let forward = assemble(config, upstreams, server.workers(), &metrics);
    let swept: Arc<Box<[OnceLock<Lane>]>> = Arc::clone(&forward.lanes);
    server.background("forward: idle connections", async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            for lane in swept.iter().filter_map(OnceLock::get) {
                lane.connections.sweep(tcp);
            }
        }
    });
    server.chain(forward);
}

/// What is at work, with nothing in its lanes yet.
fn assemble(
    config: Config,
    upstreams: Arc<OnceLock<Vec<Arc<Upstream>>>>,
    workers: usize,
    metrics: &Metrics,
) -> Forward {
    let lanes = (0..=workers).map(|_| OnceLock::new());
    let broken = metrics.counter(
        "coredns_forward_healthcheck_broken_total",
        "Counter of the number of complete failures of the healthchecks.",
        &[],
    );
    let rejects = metrics.counter(
        "coredns_forward_max_concurrent_rejects_total",
        "Counter of the number of queries rejected because the concurrent queries were at maximum.",
        &[],
    );
    Forward {
        config,
        upstreams,
        lanes: Arc::new(lanes.collect()),
        broken,
        rejects,
        under_way: AtomicUsize::new(0),
    }
}

fn target(to: &Destination, server: &ServerSetup<'_>) -> Option<Target> {
    match to {
        Destination::Address(address) => Some(Target::Network(*address)),
        #[cfg(feature = "testing")]
        Destination::Scripted(word) => Some(Target::Scripted(server.double()?, word.clone())),
        _ => {
            let _ = server;
            None
        }
    }
}

/// Every TO word as addresses, host names looked up, duplicates removed.
async fn targets(to: Vec<Destination>, resolver: &[SocketAddr]) -> Result<Vec<Target>, String> {
    let lookups = to.iter().map(|to| async move {
        match to {
            Destination::Address(address) => Ok(vec![*address]),
            Destination::Host { name, text, port } => {
                let found = resolve::resolve(name, text, resolver).await?;
                Ok(found
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, *port))
                    .collect())
            }
            Destination::Scripted(word) => Err(format!("{word} beside a host name")),
        }
    });
    let mut all: Vec<SocketAddr> = Vec::new();
    for found in futures_util::future::join_all(lookups).await {
        for address in found? {
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
    all.truncate(config::UPSTREAMS_MAX);
    Ok(all.into_iter().map(Target::Network).collect())
}

/// A `forward` line at work.
struct Forward {
    config: Config,
    // Set before the first query: by setup, or at start where host names are to be looked up.
    upstreams: Arc<OnceLock<Vec<Arc<Upstream>>>>,
    // By worker, see `worker::index`.
    lanes: Arc<Box<[OnceLock<Lane>]>>,
    broken: Counter,
    rejects: Counter,
    // Written only with `max_concurrent`.
    under_way: AtomicUsize,
}

/// What a worker has for itself.
struct Lane {
    sockets: Sockets,
    connections: tcp::Connections,
    turn: AtomicUsize,
}

impl Handler for Forward {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        if !self.takes(query.qname()) {
            return next.serve(query);
        }
        match self.admit() {
            Ok(permit) => Served::later(self.ask(query, next, permit)),
            Err(error) => Served::Now(query.fail(error)),
        }
    }

    fn serves(&self, _: Opcode) -> bool {
        true
    }
}

/// A query's place among those under way, if they are counted.
struct Permit<'c>(Option<&'c AtomicUsize>);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(under_way) = self.0 {
            under_way.fetch_sub(1, Relaxed);
        }
    }
}

impl Forward {
    /// Whether the name is ours: under FROM, and FROM itself or not under an exception.
    fn takes(&self, qname: &[u8]) -> bool {
        let from = self.config.from.name.as_wire();
        name::is_within(qname, from)
            && (self.config.except.is_empty()
                || qname == from
                || self.config.except.cover(qname).is_none())
    }

    fn admit(&self) -> Result<Permit<'_>, ServeError> {
        let max = self.config.max_concurrent;
        if max == 0 {
            return Ok(Permit(None));
        }
        let before = self.under_way.fetch_add(1, Relaxed);
        let permit = Permit(Some(&self.under_way));
        if before < max {
            return Ok(permit);
        }
        self.rejects.inc();
        let what = format!("concurrent queries exceeded maximum {max}");
        Err(ServeError::Limit(what))
    }

    async fn ask<'c>(&'c self, query: Query, next: Next<'c>, permit: Permit<'c>) -> Response {
        if message::has_tsig(&query) {
            let what = "a query signed with TSIG cannot be forwarded";
            return query.fail(ServeError::Internal(what.into()));
        }
        let asked = self.attempts(&query).await;
        let reply = match asked {
            Ok(reply) => reply,
            Err(error) => return query.fail(error),
        };
        if self.goes_on(&reply) && next.name() == Some(PLUGIN.name) {
            drop((reply, permit));
            return next.serve(query).response().await;
        }
        reply.answer(query)
    }

    fn goes_on(&self, reply: &Reply<'_>) -> bool {
        self.config.next.contains(&reply.opened.rcode)
            || self.config.next_on_nodata && reply.is_nodata
    }

    /// Asks upstreams until one replies, attempts are used up, or time is.
    async fn attempts(&self, facts: &Facts) -> Result<Reply<'_>, ServeError> {
        let Some(upstreams) = self.upstreams.get().filter(|all| !all.is_empty()) else {
            return Err(ServeError::Internal("no upstream yet".into()));
        };
        let lane = self.lane(upstreams);
        let max_attempts = match self.config.max_connect_attempts {
            Some(0) => usize::MAX,
            Some(max) => max,
            None => 2 * upstreams.len(),
        };
        let deadline = facts.received_at() + SERVE_MAX;
        let mut choices = Choices::new(self.config.order, upstreams.len(), &lane.turn);
        let mut attempts = 0;
        let mut failed_over = 0;
        let mut last_reply = None;
        let mut error = None;
        let mut left = SERVE_MAX;
        while attempts < max_attempts && !left.is_zero() {
            let is_down = |at: usize| upstreams[at].health.is_down(self.config.max_fails);
            let (at, all_down) = match choices.next(is_down) {
                Choice::Healthy(at) => (at, false),
                Choice::AllDown(at) => {
                    self.broken.inc();
                    if self.config.failfast {
                        break;
                    }
                    (at, true)
                }
            };
            let upstream = &upstreams[at];
            let timeout = self.config.read_timeout.min(left);
            match self.exchange(lane, at, upstream, facts, timeout).await {
                Ok(reply) => {
                    upstream.health.replied();
                    upstream.metrics.replied(reply.opened.rcode, reply.took);
                    failed_over += 1;
                    if self.config.failover.contains(&reply.opened.rcode)
                        && failed_over < upstreams.len()
                    {
                        last_reply = Some(reply);
                    } else {
                        return Ok(reply);
                    }
                }
                Err(fault) => {
                    attempts += 1;
                    self.failed(upstream, &fault);
                    let which = upstream.name.clone();
                    error = Some(ServeError::Upstream { which, fault });
                    if all_down {
                        break;
                    }
                }
            }
            left = deadline.saturating_duration_since(clock::now());
        }
        match last_reply {
            Some(reply) => Ok(reply),
            None => Err(error.unwrap_or_else(|| none_healthy(upstreams))),
        }
    }

    /// An attempt came to nothing.
    fn failed(&self, upstream: &Arc<Upstream>, fault: &UpstreamFault) {
        // What cannot be read says nothing about the upstream: anybody can send it.
        if self.config.max_fails > 0 && !matches!(fault, UpstreamFault::Malformed(_)) {
            upstream.health.failed();
            probe::start(upstream, &self.config.probe, self.config.tcp.source);
        }
    }

    async fn exchange<'s>(
        &'s self,
        lane: &'s Lane,
        at: usize,
        upstream: &Upstream,
        facts: &Facts,
        timeout: Duration,
    ) -> Result<Reply<'s>, UpstreamFault> {
        let tcp =
            self.config.force_tcp || !self.config.prefer_udp && facts.transport() == Transport::Tcp;
        let address = match &upstream.target {
            Target::Network(address) => *address,
            #[cfg(feature = "testing")]
            Target::Scripted(script, word) => {
                let mark = self.config.tcp.mark;
                return Box::pin(scripted(script, word, facts, tcp, timeout, mark)).await;
            }
        };
        // Boxed: it is seldom waited for, and would make every waiting query larger.
        let over_tcp = || {
            let policy = self.config.tcp;
            Box::pin(async move {
                let started = clock::now();
                let reply = lane
                    .connections
                    .exchange(at, upstream, address, policy, facts, timeout)
                    .await?;
                let took = clock::now().saturating_duration_since(started);
                Ok(Reply::owned(reply, took))
            })
        };
        if tcp {
            return over_tcp().await;
        }
        let ticket = lane.sockets.send(
            at,
            address,
            timeout,
            facts.opcode(),
            |question| message::write_question(question, facts),
            |packet, id| message::write_query(packet, facts, id, self.config.tcp.mark),
        )?;
        loop {
            match ticket.outcome().await? {
                Outcome::Replied => return Reply::waited_for(ticket),
                Outcome::Guessed => {
                    upstream.metrics.moved_to_tcp();
                    return over_tcp().await;
                }
                // RFC 2181 §9, RFC 7766 §5: what is truncated is asked for again over TCP.
                Outcome::Truncated { usable } => {
                    upstream.metrics.moved_to_tcp();
                    match over_tcp().await {
                        Ok(reply) => return Ok(reply),
                        Err(_) if usable => return Reply::waited_for(ticket),
                        Err(_) => ticket.wait_on(),
                    }
                }
            }
        }
    }

    fn lane(&self, upstreams: &[Arc<Upstream>]) -> &Lane {
        let lane = &self.lanes[worker::index() % self.lanes.len()];
        lane.get_or_init(|| {
            let max_age = self.config.tcp.max_age;
            let age_max = match max_age.is_zero() {
                true => udp::SOCKET_AGE_MAX,
                false => udp::SOCKET_AGE_MAX.min(max_age),
            };
            // One pool for each upstream in each worker.
            let width = udp::width_for(self.lanes.len() * upstreams.len());
            if width < udp::POOL_SOCKETS {
                tracing::warn!(
                    "plugin/forward: {width} sockets for an upstream instead of {}, since few files may be open; raise the limit of open files",
                    udp::POOL_SOCKETS
                );
            }
            Lane {
                sockets: Sockets::new(upstreams, self.config.tcp.source, age_max, width),
                connections: tcp::Connections::new(upstreams.len()),
                turn: AtomicUsize::new(0),
            }
        })
    }
}

fn none_healthy(upstreams: &[Arc<Upstream>]) -> ServeError {
    let names: Vec<&str> = upstreams.iter().map(|one| one.name.as_str()).collect();
    ServeError::Upstream {
        which: names.join(", "),
        fault: UpstreamFault::NoneHealthy,
    }
}

//--- Replies ---------------------------------------------------------------------------------------

/// A reply, its OPT taken out.
struct Reply<'s> {
    body: Body<'s>,
    opened: Opened,
    is_nodata: bool,
    took: Duration,
}

enum Body<'s> {
    /// Still where the reader put it.
    Ticket(Ticket<'s>),
    Owned(Vec<u8>),
}

impl<'s> Reply<'s> {
    fn owned(mut reply: Vec<u8>, took: Duration) -> Reply<'s> {
        let opened = message::open(&mut reply);
        Reply {
            is_nodata: message::is_nodata(&reply, opened.rcode),
            body: Body::Owned(reply),
            opened,
            took,
        }
    }

    fn waited_for(ticket: Ticket<'s>) -> Result<Reply<'s>, UpstreamFault> {
        let read = ticket.with_reply(|reply, took| {
            let opened = message::open(reply);
            let is_nodata = message::is_nodata(reply, opened.rcode);
            (opened, is_nodata, took)
        });
        let (opened, is_nodata, took) = read.ok_or(UpstreamFault::Closed)?;
        Ok(Reply {
            body: Body::Ticket(ticket),
            opened,
            is_nodata,
            took,
        })
    }

    fn answer(self, query: Query) -> Response {
        match &self.body {
            Body::Owned(reply) => message::respond(query, reply, &self.opened),
            Body::Ticket(ticket) => {
                let mut query = Some(query);
                let answered = ticket.with_reply(|reply, _| {
                    let query = query.take()?;
                    Some(message::respond(query, reply, &self.opened))
                });
                match (answered.flatten(), query) {
                    (Some(response), _) => response,
                    (None, Some(query)) => query.fail(ServeError::Internal("reply lost".into())),
                    (None, None) => unreachable!("the query is answered or still here"),
                }
            }
        }
    }
}

/// The same exchange with a script of a test.
#[cfg(feature = "testing")]
async fn scripted<'s>(
    script: &crate::kit::testing::ScriptedUpstream,
    word: &str,
    facts: &Facts,
    mut tcp: bool,
    timeout: Duration,
    mark: Option<message::Mark>,
) -> Result<Reply<'s>, UpstreamFault> {
    use message::Verdict;

    let started = clock::now();
    let deadline = started + timeout;
    let mut question = Vec::new();
    message::write_question(&mut question, facts);
    loop {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let mut packet = Vec::new();
        message::write_query(&mut packet, facts, rand::random(), mark);
        let asked = script.exchange_with(word, &packet, transport);
        let reply = match tokio::time::timeout_at(deadline, asked).await {
            Ok(Some(reply)) => reply,
            _ => break,
        };
        let is_ours = reply.get(..2) == packet.get(..2);
        match message::judge(&reply, &question, facts.opcode()) {
            Verdict::Good if is_ours => {
                let took = clock::now().saturating_duration_since(started);
                return Ok(Reply::owned(reply, took));
            }
            Verdict::Truncated { .. } if is_ours && !tcp => tcp = true,
            _ => break,
        }
    }
    tokio::time::sleep_until(deadline).await;
    Err(UpstreamFault::Timeout(timeout))
}
