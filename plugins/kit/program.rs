//! From a Dnsfile's tree to a [`Program`]: server blocks, chains, listeners; all of it or every error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::dnsfile::Span;
use super::errors::SetupError;
use super::handler::{Link, Next, Served};
use super::lookup::Dispatch;
use super::query::Query;
use super::routing::{self, ChainFacts, Routes};
use super::setup::{BackgroundTask, HttpRoute, Kept, ReadyCheck, StartHook};

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
    /// Lines of the start-up message, sorted: `example.org.:53`, `.:53 on 127.0.0.1`.
    pub start_lines: Vec<String>,
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
}

/// The serving part of a program: routes and chains. Shared by its workers, never written.
pub struct Server {
    routes: Vec<Routes>,
    chains: Vec<(Vec<Link>, ChainFacts)>,
}

impl Dispatch for Server {
    /// From routing on. No allocation of its own.
    fn serve(&self, mut query: Query) -> Served<'_> {
        let found =
            routing::of(&self.routes, query.listener()).and_then(|routes| routes.find(&query));
        let Some((chain, zone_at)) = found else {
            return Served::Now(query.refuse());
        };
        let Some((links, facts)) = self.chains.get(chain) else {
            return Served::Now(query.refuse());
        };
        if facts.is_empty || !facts.admits(query.qclass()) {
            return Served::Now(query.refuse());
        }
        query.set_zone_at(zone_at);
        Next::new(links).serve(query)
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
    /// Each chain as it runs: the names of its handlers, outermost first.
    pub fn chains(&self) -> impl Iterator<Item = Vec<&'static str>> {
        self.chains
            .iter()
            .map(|(links, _)| links.iter().map(|link| link.name).collect())
    }
}
