//! A server without sockets: real parser, real setup, real chain and real edge on a clock that stands until a test turns it.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::question::Question;
use super::world::{Events, EventsSubscriber, World};
use crate::kit::clock;
use crate::kit::dnsfile::{self, Sources};
use crate::kit::edge::{Accepted, Arrival, Edge, Reply};
use crate::kit::errors::{SetupError, render, render_warning};
use crate::kit::handler::Served;
use crate::kit::lookup::Dispatch;
use crate::kit::plugin::Plugin;
use crate::kit::program::{self, Program};
use crate::kit::query::{ListenerId, Query, Slot, take_rescued};
use crate::kit::response::Response;
use crate::kit::setup::Kept;

/// Virtual time after which a response will not come any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the start hooks get, as in the engine.
const START: Duration = Duration::from_secs(5);

/// Runs a test on a runtime of its own whose clock stands still: it jumps to the next timer when everything waits.
pub fn run<T>(events: Arc<Events>, test: impl Future<Output = T>) -> T {
    let _events = tracing::subscriber::set_default(EventsSubscriber(events));
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime needs only memory and a few file descriptors")
        .block_on(test)
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The message; `None` is silence.
    pub bytes: Option<Vec<u8>>,
    /// Where the answer came from, or `edge` if no plugin was asked.
    pub source: &'static str,
    /// The plugin that answered.
    pub link: &'static str,
}

/// A built program at work.
pub struct TestServer {
    edge: Arc<Edge>,
    running: Running,
}

struct Running {
    program: Program,
    warnings: String,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl TestServer {
    /// Builds and starts a Dnsfile; the error is every error of it, as the operator would see them.
    pub async fn start(
        world: &World,
        table: &'static [&'static Plugin],
        dnsfile: &str,
    ) -> Result<TestServer, String> {
        let running = Running::start(world, table, dnsfile, Kept::default()).await?;
        Ok(TestServer {
            edge: Edge::new(&world.metrics),
            running,
        })
    }

    /// Takes over with another Dnsfile, keeping what a reload keeps. On an error the old one goes on.
    pub async fn reload(
        &mut self,
        world: &World,
        table: &'static [&'static Plugin],
        dnsfile: &str,
    ) -> Result<(), String> {
        self.running =
            Running::start(world, table, dnsfile, self.running.program.kept.clone()).await?;
        Ok(())
    }

    /// The warnings of the Dnsfile, as the operator would see them.
    pub fn warnings(&self) -> &str {
        &self.running.warnings
    }

    /// The chains, each as its handlers' names.
    pub fn chains(&self) -> Vec<Vec<&'static str>> {
        self.running.program.server.chains().collect()
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&self, question: &Question) -> Answered {
        let Some((listener, port)) = self.listener(question) else {
            return Answered {
                bytes: None,
                source: "no listener",
                link: "",
            };
        };
        let arrival = Arrival {
            packet: &question.packet,
            client: question.client,
            local: SocketAddr::new(question.local, port),
            transport: question.transport,
            listener,
            received_at: clock::now(),
        };
        let query = match self.edge.accept(Slot::new(), arrival) {
            Accepted::Query(query) => query,
            Accepted::Reply(reply) => {
                return Answered {
                    bytes: Some(reply.bytes().to_vec()),
                    source: "edge",
                    link: "",
                };
            }
            Accepted::Silence(_) => {
                return Answered {
                    bytes: None,
                    source: "edge",
                    link: "",
                };
            }
        };
        self.serve(query).await
    }

    /// One query from packet to reply and back to the slot, as a worker does it: for what measures the way of an answer that is there
    /// at once. `None` when it was not.
    pub fn round(&self, slot: Box<Slot>, question: &Question) -> Option<Box<Slot>> {
        let (listener, port) = self.listener(question)?;
        let arrival = Arrival {
            packet: &question.packet,
            client: question.client,
            local: SocketAddr::new(question.local, port),
            transport: question.transport,
            listener,
            received_at: clock::now(),
        };
        let query = match self.edge.accept(slot, arrival) {
            Accepted::Query(query) => query,
            Accepted::Reply(reply) => return Some(reply.into_slot()),
            Accepted::Silence(slot) => return Some(slot),
        };
        match self.running.program.server.serve(query) {
            Served::Now(response) => match self.edge.finish(response) {
                Ok(reply) => Some(reply.into_slot()),
                Err(slot) => Some(slot),
            },
            Served::Later(_) => None,
        }
    }

    async fn serve(&self, query: Query) -> Answered {
        let server = Arc::clone(&self.running.program.server);
        // `async` so that a panic of a handler that answers at once is caught as well.
        let response = async { server.serve(query).response().await };
        let response = AssertUnwindSafe(tokio::time::timeout(PATIENCE, response)).catch_unwind();
        let silence = |source| Answered {
            bytes: None,
            source,
            link: "",
        };
        match response.await {
            Ok(Ok(response)) => self.finish(response),
            Ok(Err(_)) => silence("nobody within 60s"),
            Err(_) => match take_rescued().map(|query| self.edge.panicked(query)) {
                Some(Ok(reply)) => answered(&reply, "panic", ""),
                _ => silence("panic"),
            },
        }
    }

    fn finish(&self, response: Response) -> Answered {
        let (source, link) = (response.source().as_str(), response.link());
        match self.edge.finish(response) {
            Ok(reply) => answered(&reply, source, link),
            Err(_) => Answered {
                bytes: None,
                source,
                link,
            },
        }
    }

    /// The listener for a question: of its port (the first listener's if it names none), its address before all addresses.
    fn listener(&self, question: &Question) -> Option<(ListenerId, u16)> {
        let listeners = &self.running.program.listeners;
        let port = match question.port {
            Some(port) => port,
            None => listeners.first()?.address.port(),
        };
        let find = |fits: &dyn Fn(SocketAddr) -> bool| {
            listeners
                .iter()
                .position(|listener| listener.address.port() == port && fits(listener.address))
        };
        let at = find(&|address| address.ip() == question.local)
            .or_else(|| find(&|address| address.ip().is_unspecified()))?;
        Some((ListenerId(u16::try_from(at).ok()?), port))
    }

    /// Asks a path over HTTP: `/ready`, or `127.0.0.1:8181/ready` where several have it. Status and body; 404 for a path that nobody has.
    pub fn http(&self, target: &str) -> (u16, String) {
        let (address, path) = target.split_at(target.find('/').unwrap_or(target.len()));
        let found = self.running.program.http.iter().find(|route| {
            route.path == path && (address.is_empty() || route.address.to_string() == address)
        });
        match found {
            Some(route) => {
                let answer = (route.handler)();
                (answer.status, answer.body)
            }
            None => (404, String::new()),
        }
    }

    /// The readiness checks that are not ready.
    pub fn unready(&self) -> Vec<&str> {
        let checks = self.running.program.ready.iter();
        checks
            .filter(|check| !(check.is_ready)())
            .map(|check| check.name.as_str())
            .collect()
    }
}

fn answered(reply: &Reply, source: &'static str, link: &'static str) -> Answered {
    Answered {
        bytes: Some(reply.bytes().to_vec()),
        source,
        link,
    }
}

/// Lets everything that can go on without time passing go on.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

impl Running {
    async fn start(
        world: &World,
        table: &'static [&'static Plugin],
        dnsfile: &str,
        kept: Kept,
    ) -> Result<Running, String> {
        let (mut program, sources) = build(world, table, dnsfile, kept, false)?;
        for (at, plugin, start) in std::mem::take(&mut program.starts) {
            let what = match tokio::time::timeout(START, start).await {
                Ok(Ok(())) => continue,
                Ok(Err(what)) => what,
                Err(_) => "not ready within 5s".to_owned(),
            };
            let error = SetupError {
                at,
                plugin: Some(plugin),
                ..SetupError::general(what)
            };
            return Err(shown(render, &[error], &sources, world));
        }
        let background = std::mem::take(&mut program.background);
        let warnings = shown(render_warning, &program.warnings, &sources, world);
        Ok(Running {
            tasks: background
                .into_iter()
                .map(|(_, task)| tokio::spawn(task))
                .collect(),
            warnings,
            program,
        })
    }
}

/// `skeindns check` for a text: builds it and starts nothing. The error is every error of it.
pub fn check(table: &'static [&'static Plugin], dnsfile: &str) -> Result<(), String> {
    build(&World::new(), table, dnsfile, Kept::default(), true).map(|_| ())
}

fn build(
    world: &World,
    table: &'static [&'static Plugin],
    text: &str,
    kept: Kept,
    check_only: bool,
) -> Result<(Program, Sources), String> {
    let services = world.services(kept, check_only);
    let tree = dnsfile::parse("Dnsfile", text, world).map_err(|rejected| {
        let rejected = program::examine(rejected, table, &services);
        shown(render, &rejected.errors, &rejected.sources, world)
    })?;
    let program = program::build(&tree, table, &services)
        .map_err(|errors| shown(render, &errors, &tree.sources, world))?;
    Ok((program, tree.sources))
}

type Render = fn(&SetupError, &Sources, bool) -> String;

/// Errors or warnings as the operator sees them; the test's folder is `DIR`.
fn shown(render: Render, errors: &[SetupError], sources: &Sources, world: &World) -> String {
    let text: String = errors
        .iter()
        .map(|error| render(error, sources, false))
        .collect();
    text.replace(&*world.folder().to_string_lossy(), "DIR")
}
