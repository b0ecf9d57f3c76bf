//! One program at work, and how the next one takes over.
//!
//! ```text
//!   prepare: parse ─▶ build ─▶ start hooks ─▶ probe and bind ─▶ workers adopt the new sockets     (any error: nothing has changed)
//!   commit:  workers serve the new generation ─▶ the old one stops reading, drains, ends
//! ```

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use skein_plugins::kit::dnsfile::{Dnsfile, Sources, Span};
use skein_plugins::kit::errors::{self, SetupError};
use skein_plugins::kit::metrics::{Counter, Metrics};
use skein_plugins::kit::plugin::Plugin;
use skein_plugins::kit::program::{Listener, Program, start_line};
use skein_plugins::kit::query::ListenerId;
use skein_plugins::kit::setup::{BackgroundTask, HttpRoute, Kept, Services};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::limits::{DRAIN, START_HOOK, STOP, STOP_HOOK};
use crate::listen::inherited;
use crate::listen::open::{self, Kind, Pair};
use crate::program::{self, Loaded, Refused, Source};
use crate::worker::{Assignment, Generation, Handle, Order, Phase};

/// The server: its workers, its HTTP endpoints, and the generation that runs.
pub(crate) struct Engine {
    table: &'static [&'static Plugin],
    source: Source,
    services: Services,
    workers: Vec<Handle>,
    admin: Admin,
    running: Option<Running>,
    reload_failed: Counter,
    // Labels of the series that tells which Dnsfile runs.
    version_told: Option<String>,
}

/// A generation that serves.
struct Running {
    generation: Arc<Generation>,
    // Addresses as the Dnsfile has them, and as they were bound.
    bound: Vec<(SocketAddr, SocketAddr)>,
    // What its tasks and hooks were taken out of.
    program: Program,
    background: Vec<JoinHandle<()>>,
    reading: mpsc::Receiver<()>,
    draining: mpsc::Receiver<()>,
    fingerprint: String,
}

/// Everything that a generation needs, ready to take over.
pub(crate) struct Prepared {
    loaded: Loaded,
    bound: Vec<(SocketAddr, SocketAddr)>,
    fresh_http: Vec<(SocketAddr, std::net::TcpListener)>,
}

impl Engine {
    /// An engine that serves nothing yet.
    pub(crate) fn new(
        table: &'static [&'static Plugin],
        source: Source,
        services: Services,
        workers: Vec<Handle>,
    ) -> Engine {
        let reload_failed = services.metrics.counter(
            "coredns_reload_failed_total",
            "Counter of the number of failed reload attempts.",
            &[],
        );
        Engine {
            table,
            source,
            services,
            workers,
            admin: Admin::default(),
            running: None,
            reload_failed,
            version_told: None,
        }
    }

    /// Reads the Dnsfile as it is now.
    pub(crate) fn parse(&self) -> Result<Dnsfile, Refused> {
        self.source.parse(self.table, &self.services)
    }

    /// Whether there is something that a reload could read again.
    pub(crate) fn can_reload(&self) -> bool {
        !matches!(self.source, Source::BuiltIn)
    }

    /// Makes the next generation ready. Whatever is wrong, and if this is dropped half-way: what runs goes on as it is.
    pub(crate) async fn prepare(&self, dnsfile: Dnsfile) -> Result<Prepared, Refused> {
        let services = Services {
            kept: self
                .running
                .as_ref()
                .map_or_else(Kept::default, |running| running.program.kept.clone()),
            ..self.services.clone()
        };
        let mut loaded = program::build(dnsfile, self.table, &services)?;
        let sources = &loaded.dnsfile.sources;
        for warning in &loaded.program.warnings {
            let text = errors::render_warning(warning, sources, false);
            tracing::warn!("{}", text.lines().next().unwrap_or_default());
        }
        let errors = run_start_hooks(std::mem::take(&mut loaded.program.starts)).await;
        if !errors.is_empty() {
            return Err(Refused::new(sources, errors));
        }
        let bound = self.find_addresses(&loaded)?;
        let fresh_http = self.open_http(&loaded.program.http, &bound, sources)?;
        self.open_listeners(&loaded.program.listeners, &bound, sources)
            .await?;
        Ok(Prepared {
            loaded,
            bound,
            fresh_http,
        })
    }

    /// Where each listener is bound or can be.
    fn find_addresses(&self, loaded: &Loaded) -> Result<Vec<(SocketAddr, SocketAddr)>, Refused> {
        let mut errors = Vec::new();
        let mut bound = Vec::new();
        for listener in &loaded.program.listeners {
            let found = match self.bound(listener.address) {
                Some(local) => Ok(local),
                None => open::probe(listener.address, Kind::Dns),
            };
            match found {
                Ok(local) => bound.push((listener.address, local)),
                Err(what) => errors.push(at(listener.span, what)),
            }
        }
        match errors.is_empty() {
            true => Ok(bound),
            false => Err(Refused::new(&loaded.dnsfile.sources, errors)),
        }
    }

    /// Where the running generation has this address.
    fn bound(&self, address: SocketAddr) -> Option<SocketAddr> {
        let running = self.running.as_ref()?;
        let mut bound = running.bound.iter();
        bound
            .find(|(configured, _)| *configured == address)
            .map(|(_, local)| *local)
    }

    fn open_http(
        &self,
        routes: &[HttpRoute],
        bound: &[(SocketAddr, SocketAddr)],
        sources: &Sources,
    ) -> Result<Vec<(SocketAddr, std::net::TcpListener)>, Refused> {
        let mut fresh: Vec<(SocketAddr, std::net::TcpListener)> = Vec::new();
        let mut errors = Vec::new();
        for route in routes {
            let address = route.address;
            if let Some((_, dns)) = bound.iter().find(|(_, dns)| collide(*dns, address)) {
                let what = format!(
                    "cannot serve http on {address}: queries are answered on {dns}; choose another port"
                );
                errors.push(of_plugin(route, what));
                continue;
            }
            if self.admin.local(address).is_some() || fresh.iter().any(|(open, _)| *open == address)
            {
                continue;
            }
            let opened = open::probe(address, Kind::Http).and_then(|local| {
                open::http(local)
                    .map_err(|error| format!("cannot listen on {address} (tcp): {error}"))
            });
            match opened {
                Ok(socket) => fresh.push((address, socket)),
                Err(what) => errors.push(of_plugin(route, what)),
            }
        }
        match errors.is_empty() {
            true => Ok(fresh),
            false => Err(Refused::new(sources, errors)),
        }
    }

    /// Opens each worker's sockets for addresses that are new, and lets the workers take them in.
    async fn open_listeners(
        &self,
        listeners: &[Listener],
        bound: &[(SocketAddr, SocketAddr)],
        sources: &Sources,
    ) -> Result<(), Refused> {
        let fresh: Vec<(SocketAddr, SocketAddr)> = bound
            .iter()
            .filter(|(configured, _)| self.bound(*configured).is_none())
            .copied()
            .collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let mut undo = Undo {
            workers: &self.workers,
            addresses: fresh.iter().map(|(configured, _)| *configured).collect(),
        };
        for worker in &self.workers {
            if let Err((address, error)) = adopt(worker, &fresh).await {
                let span = listeners
                    .iter()
                    .find(|listener| listener.address == address);
                let what = format!("cannot listen on {address}: {error}");
                let error = SetupError {
                    at: span.map(|listener| listener.span),
                    ..SetupError::general(what)
                };
                return Err(Refused::new(sources, vec![error]));
            }
        }
        undo.addresses.clear();
        Ok(())
    }

    /// Lets the next generation take over, and the one before it end. Not to be dropped half-way.
    pub(crate) async fn commit(&mut self, prepared: Prepared) -> io::Result<()> {
        let Prepared {
            loaded: Loaded {
                mut program,
                dnsfile,
            },
            bound,
            fresh_http,
        } = prepared;
        crate::logging::set_debug(program.debug);
        let generation = Arc::new(Generation {
            server: Arc::clone(&program.server),
            phase: watch::Sender::new(Phase::Serve),
        });
        let old = self.running.take();
        // The first generation's tasks start before its first query, a later one's when their predecessors have ended.
        let mut background = Vec::new();
        let mut tasks = Some(std::mem::take(&mut program.background));
        if old.is_none() {
            warn_of_unused_sockets(&bound);
            background = spawn_all(tasks.take().unwrap_or_default());
        }
        let listeners = program.listeners.iter().enumerate();
        let listeners: Vec<(SocketAddr, ListenerId)> = listeners
            .map(|(number, listener)| (listener.address, ListenerId(number as u16)))
            .collect();
        let (reading, draining) = self.assign(Some(&generation), &listeners).await;
        self.admin.exchange(&program.http, fresh_http)?;
        if let Some(mut old) = old {
            old.generation.phase.send_replace(Phase::Retire);
            // Queries are answered by the new one alone from here on.
            tokio::time::timeout(STOP, old.reading.recv()).await.ok();
            for task in &old.background {
                task.abort();
            }
            join_all(std::mem::take(&mut old.background)).await;
            background = spawn_all(tasks.take().unwrap_or_default());
            tokio::task::spawn_local(async move { old.drain(DRAIN).await });
        }
        self.running = Some(Running {
            generation,
            bound,
            program,
            background,
            reading,
            draining,
            fingerprint: program::fingerprint(&dnsfile),
        });
        Ok(())
    }

    /// Tells all workers what to serve, and waits until they do. The receivers end when nobody reads and when nothing is under way.
    async fn assign(
        &self,
        generation: Option<&Arc<Generation>>,
        listeners: &[(SocketAddr, ListenerId)],
    ) -> (mpsc::Receiver<()>, mpsc::Receiver<()>) {
        let (reading, reading_ended) = mpsc::channel(1);
        let (draining, draining_ended) = mpsc::channel(1);
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            let assignment = Assignment {
                generation: generation.map(Arc::clone),
                listeners: listeners.to_vec(),
                reading: reading.clone(),
                draining: draining.clone(),
                done,
            };
            worker.order(Order::Serve(assignment)).await;
            answers.push(answer);
        }
        // An answer is that the sender is dropped.
        join_all(answers).await;
        (reading_ended, draining_ended)
    }

    /// What the running Dnsfile says about looking for a new one: interval and jitter.
    pub(crate) fn reload_every(&self) -> Option<(Duration, Duration)> {
        self.running
            .as_ref()
            .and_then(|running| running.program.reload)
    }

    /// How long to go on answering after a signal to stop.
    pub(crate) fn lameduck(&self) -> Duration {
        self.running
            .as_ref()
            .map_or(Duration::ZERO, |running| running.program.lameduck)
    }

    /// The hash of the Dnsfile that runs.
    pub(crate) fn fingerprint(&self) -> &str {
        self.running
            .as_ref()
            .map_or("", |running| &running.fingerprint)
    }

    /// A reload has failed: counted, and the log says why.
    pub(crate) fn count_failed_reload(&self) {
        self.reload_failed.inc();
    }

    /// Tells in a metric which Dnsfile was tried last.
    pub(crate) fn tell_version(&mut self, hash: &str) {
        const NAME: &str = "coredns_reload_version_info";
        let metrics: &Metrics = &self.services.metrics;
        if let Some(old) = self.version_told.replace(hash.to_owned()) {
            metrics.remove(NAME, &[("hash", "sha512"), ("value", &old)]);
        }
        let help = "A metric with a constant '1' value labeled by hash, and value which type of hash generated.";
        let labels = [("hash", "sha512"), ("value", hash)];
        metrics.gauge(NAME, help, &labels).set(1);
    }

    /// The lines that say what is served.
    pub(crate) fn start_lines(prepared: &Prepared) -> Vec<String> {
        let program = &prepared.loaded.program;
        let line = |(zone, listener): &(String, ListenerId)| {
            let number = usize::from(listener.0);
            let listener = program.listeners.get(number)?;
            let (_, local) = prepared.bound.get(number)?;
            Some(start_line(zone, listener, local.port()))
        };
        let mut lines: Vec<String> = program.served.iter().filter_map(line).collect();
        lines.sort();
        // A port that the system chose is known nowhere else.
        for route in program
            .http
            .iter()
            .filter(|route| route.address.port() == 0)
        {
            let socket = prepared
                .fresh_http
                .iter()
                .find(|(address, _)| *address == route.address);
            let local = socket.and_then(|(_, socket)| socket.local_addr().ok());
            lines.extend(local.map(|local| format!("http://{local}{}", route.path)));
        }
        lines
    }

    /// Stops reading, answers what is under way, runs the stop hooks.
    pub(crate) async fn stop(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        self.assign(None, &[]).await;
        running.generation.phase.send_replace(Phase::Retire);
        running.drain(STOP).await;
        for task in &running.background {
            task.abort();
        }
    }
}

impl Running {
    /// Waits for the queries under way, then runs the stop hooks.
    async fn drain(&mut self, patience: Duration) {
        if tokio::time::timeout(patience, self.draining.recv())
            .await
            .is_err()
        {
            tracing::warn!("queries that were under way for {patience:?} are let go");
            self.generation.phase.send_replace(Phase::Abandon);
        }
        let hooks = std::mem::take(&mut self.program.stop_hooks);
        let hooks = hooks
            .into_iter()
            .map(|hook| tokio::time::timeout(STOP_HOOK, hook));
        if join_all(hooks).await.iter().any(Result::is_err) {
            tracing::warn!("a plugin did not finish its work within {STOP_HOOK:?}");
        }
    }
}

/// Closes sockets again that workers have taken in for a generation that does not start.
struct Undo<'e> {
    workers: &'e [Handle],
    addresses: Vec<SocketAddr>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.addresses.is_empty() {
            return;
        }
        for worker in self.workers {
            worker.forget(self.addresses.clone());
        }
    }
}

/// Opens a worker's sockets and hands them over.
async fn adopt(
    worker: &Handle,
    fresh: &[(SocketAddr, SocketAddr)],
) -> Result<(), (SocketAddr, io::Error)> {
    let mut pairs: Vec<(SocketAddr, Pair)> = Vec::new();
    for (configured, local) in fresh {
        let pair = open::pair(*local).map_err(|error| (*local, error))?;
        pairs.push((*configured, pair));
    }
    let first = fresh.first().map(|(configured, _)| *configured);
    let (answer, answered) = oneshot::channel();
    worker.order(Order::Adopt(pairs, answer)).await;
    let result = answered
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the worker has ended")));
    match (result, first) {
        (Err(error), Some(address)) => Err((address, error)),
        _ => Ok(()),
    }
}

/// Runs all start hooks at once; what went wrong.
async fn run_start_hooks(
    hooks: Vec<(Option<Span>, String, skein_plugins::kit::setup::StartHook)>,
) -> Vec<SetupError> {
    let run = |(span, plugin, hook)| async move {
        let what = match tokio::time::timeout(START_HOOK, hook).await {
            Ok(Ok(())) => return None,
            Ok(Err(what)) => what,
            Err(_) => format!("not ready to start within {START_HOOK:?}"),
        };
        Some(SetupError {
            at: span,
            plugin: Some(plugin),
            what,
            suggestion: None,
        })
    };
    let results = join_all(hooks.into_iter().map(run)).await;
    results.into_iter().flatten().collect()
}

fn spawn_all(tasks: Vec<(String, BackgroundTask)>) -> Vec<JoinHandle<()>> {
    let spawn = |(name, task): (String, BackgroundTask)| {
        let name: Rc<str> = name.into();
        tokio::task::spawn_local(async move {
            // A panic is reported by the hook; whoever waits for this task sees its data age.
            task.await;
            tracing::debug!("{name}: ended");
        })
    };
    tasks.into_iter().map(spawn).collect()
}

/// Sockets that were passed on to us and that nobody listens on: queries to them would wait for ever.
fn warn_of_unused_sockets(bound: &[(SocketAddr, SocketAddr)]) {
    for address in inherited::addresses() {
        if !bound.iter().any(|(_, local)| *local == address) {
            tracing::warn!(
                "a socket on {address} was passed on to us, but no server block listens there; bind the same address"
            );
        }
    }
}

/// Whether a stream socket on one address would take connections of the other.
fn collide(dns: SocketAddr, http: SocketAddr) -> bool {
    let (a, b) = (dns.ip().to_canonical(), http.ip().to_canonical());
    http.port() != 0
        && dns.port() == http.port()
        && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn at(span: Span, what: String) -> SetupError {
    SetupError::at(span, what)
}

fn of_plugin(route: &HttpRoute, what: String) -> SetupError {
    SetupError {
        plugin: Some(route.plugin.to_owned()),
        ..SetupError::at(route.span, what)
    }
}
