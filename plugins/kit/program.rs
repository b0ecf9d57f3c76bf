//! From a Dnsfile's tree to a [`Program`]: server blocks, chains, listeners; all of it or every error.

mod blocks;
mod order;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::dnsfile::{self, Dnsfile, Rejected, Span};
use super::errors::SetupError;
use super::handler::{Link, Next, Served};
use super::lookup::{Dispatch, Home};
use super::metrics::Reading;
use super::plugin::Plugin;
use super::query::{ListenerId, Query};
use super::routing::{self, ChainFacts, Refusals, Routes};
use super::setup::{BackgroundTask, HttpRoute, Kept, ReadyCheck, Registered, Services, StartHook};

use blocks::Block;

/// What runs where there is no Dnsfile, and when a Dnsfile has no server block.
pub const DEFAULT: &str = ". {\n    whoami\n    log\n}\n";

/// An address that server blocks listen on, UDP and TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Where; the unspecified IPv6 address stands for every address of both families.
    pub address: SocketAddr,
    /// As metrics and the start-up lines name it: `dns://:53`, `dns://127.0.0.1:53`.
    pub name: String,
    /// The place in the Dnsfile that first asked for it.
    pub span: Span,
}

/// A whole configuration, ready to serve: nothing runs yet and no socket is open.
pub struct Program {
    /// Every address to listen on; a query's `ListenerId` is an index in here.
    pub listeners: Vec<Listener>,
    /// Every zone with its listener, in the order of the start-up lines; see [`start_line`].
    pub served: Vec<(String, ListenerId)>,
    /// Run before the first query, each 5 s at most; an error stops the start.
    pub starts: Vec<(Option<Span>, String, StartHook)>,
    /// Run beside the workers as long as the program serves.
    pub background: Vec<(String, BackgroundTask)>,
    /// HTTP paths to serve.
    pub http: Vec<HttpRoute>,
    /// What `/ready` asks.
    pub ready: Vec<ReadyCheck>,
    /// Run when the program has been drained.
    pub stop_hooks: Vec<BackgroundTask>,
    /// How long to go on answering after SIGTERM.
    pub lameduck: Duration,
    /// Look for a changed Dnsfile: interval and jitter.
    pub reload: Option<(Duration, Duration)>,
    /// Debug logging was asked for.
    pub debug: bool,
    /// What the operator should know.
    pub warnings: Vec<SetupError>,
    /// What the next program may take over.
    pub kept: Kept,
    /// Serves; the part that workers hold.
    pub server: Arc<Server>,
    _readings: Vec<Reading>,
}

/// A line of the start-up message, as CoreDNS prints it: `example.org.:53`, `.:1053 on 127.0.0.1`. `port` is the one that was bound.
pub fn start_line(zone: &str, listener: &Listener, port: u16) -> String {
    match listener.address.ip() {
        ip if ip.is_unspecified() => format!("{zone}:{port}"),
        ip => format!("{zone}:{port} on {ip}"),
    }
}

/// Builds a program: resolves every directive in `table`, checks it, and runs the setups in the table's order. Opens no socket, starts
/// nothing. All errors of the whole Dnsfile, in the order of their places.
pub fn build(
    dnsfile: &Dnsfile,
    table: &[&'static Plugin],
    services: &Services,
) -> Result<Program, Vec<SetupError>> {
    let mut errors = Vec::new();
    let mut registered = Registered {
        warnings: dnsfile.warnings.clone(),
        ..Registered::default()
    };
    let home: Home = Home::default();
    let mut blocks: Vec<Block> = Vec::new();
    for block in dnsfile.blocks.iter().filter(|block| !block.keys.is_empty()) {
        let number = blocks.len();
        blocks.push(Block::read(
            block,
            number,
            table,
            services,
            &mut registered.warnings,
            &mut errors,
        ));
    }

    let mut listeners = Vec::new();
    for place in 0..table.len() {
        // `bind` stands early in the table: from there on the listeners stay what they are.
        listeners = blocks::listeners(&mut blocks);
        for block in &mut blocks {
            block.set_up(place, &home, services, &mut registered, &mut errors);
        }
    }
    blocks::find_conflicts(&blocks, &mut errors);
    if !errors.is_empty() {
        dnsfile::tidy(&mut errors);
        return Err(errors);
    }
    Ok(assemble(blocks, listeners, home, services, registered))
}

/// Looks for further errors in what could be read of a Dnsfile with syntax errors: keys, plugins, options. Runs no setup.
pub fn examine(mut rejected: Rejected, table: &[&'static Plugin], services: &Services) -> Rejected {
    for block in &rejected.blocks {
        Block::read(
            block,
            0,
            table,
            services,
            &mut rejected.warnings,
            &mut rejected.errors,
        );
    }
    dnsfile::tidy(&mut rejected.errors);
    rejected
}

fn assemble(
    blocks: Vec<Block>,
    listeners: Vec<Listener>,
    home: Home,
    services: &Services,
    registered: Registered,
) -> Program {
    let mut routes: Vec<Routes> = listeners.iter().map(|_| Routes::default()).collect();
    let mut served = Vec::new();
    for (chain, block) in blocks.iter().enumerate() {
        for (zone, listener) in block.served() {
            if let Some(routes) = routes.get_mut(usize::from(listener.0)) {
                routes.add(zone.name.as_wire(), chain);
            }
            served.push((zone.text.clone(), listener));
        }
    }
    served.sort();
    let readings = blocks
        .iter()
        .flat_map(|block| block.enabled_plugins(services))
        .collect();
    let refusals = listeners
        .iter()
        .map(|listener| Refusals::new(&services.metrics, &listener.name))
        .collect();
    let chains = blocks.into_iter().map(Block::into_chain).collect();
    let server = Arc::new(Server {
        routes,
        chains,
        refusals,
    });
    let weak: Weak<dyn Dispatch> = Arc::downgrade(&server) as Weak<dyn Dispatch>;
    // The home is new: nobody else has set it.
    home.set(weak).ok();
    if let Some(shared) = &registered.shared_ready {
        let mut shared = shared
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.clone_from(&registered.ready);
    }
    Program {
        listeners,
        served,
        starts: registered.starts,
        background: registered.background,
        http: registered.http,
        ready: registered.ready,
        stop_hooks: registered.stop_hooks,
        lameduck: registered.lameduck,
        reload: registered.reload,
        debug: registered.debug,
        warnings: registered.warnings,
        kept: registered.kept,
        server,
        _readings: readings,
    }
}

/// The serving part of a program: routes and chains. Shared by its workers, never written but for counters.
pub struct Server {
    routes: Vec<Routes>,
    chains: Vec<(Vec<Link>, ChainFacts)>,
    refusals: Vec<Refusals>,
}

impl Dispatch for Server {
    /// From routing on. No allocation of its own.
    fn serve(&self, mut query: Query) -> Served<'_> {
        let found =
            routing::of(&self.routes, query.listener()).and_then(|routes| routes.find(&query));
        let Some((chain, zone_at)) = found else {
            return self.refuse(query);
        };
        match self.chains.get(chain) {
            // A block without a handler refuses, and nothing in it could count.
            Some((links, facts)) if !links.is_empty() && facts.admits(query.qclass()) => {
                query.set_zone_at(zone_at);
                Next::new(links).serve(query)
            }
            _ => self.refuse(query),
        }
    }

    fn serve_rest(&self, chain: usize, from: usize, query: Query) -> Served<'_> {
        let links = self
            .chains
            .get(chain)
            .and_then(|(links, _)| links.get(from..))
            .unwrap_or_default();
        Next::new(links).serve(query)
    }
}

impl Server {
    /// No chain for it: counted here, since no `metrics` sees it.
    #[cold]
    fn refuse(&self, query: Query) -> Served<'_> {
        if let Some(refusals) = self.refusals.get(usize::from(query.listener().0)) {
            refusals.count(&query);
        }
        Served::Now(query.refuse())
    }

    /// Each chain as it runs: the names of its handlers, outermost first.
    pub fn chains(&self) -> impl Iterator<Item = Vec<&'static str>> {
        self.chains
            .iter()
            .map(|(links, _)| links.iter().map(|link| link.name).collect())
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
