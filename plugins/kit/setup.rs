//! [`ServerSetup`]: all that a plugin's setup may ask of the server.
//!
//! A setup reads its directives, may read files, and registers what it needs. It opens no socket, resolves no
//! name and starts nothing: what needs that is handed in with [`ServerSetup::at_start`],
//! [`ServerSetup::background`] and [`ServerSetup::http`], which `skeindns check` leaves alone.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::authority::Registry;
use super::dnsfile::Span;
use super::errors::SetupError;
use super::handler::{Handler, Link};
use super::lookup::{Home, Lookup};
use super::metrics::Metrics;
use super::query::ListenerId;
use super::zones::{Key, ZoneSet};

/// Something to do once everything is built and before the first query: resolve a name, open a store. Its error stops the start.
pub type StartHook = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
/// A task that runs as long as its generation.
pub type BackgroundTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A plugin's answer to an HTTP request.
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Content-Type.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
}

/// Answers GET and HEAD on one path.
pub type HttpHandler = Arc<dyn Fn() -> HttpAnswer + Send + Sync>;

/// A path of an HTTP listener that a plugin asked for.
#[derive(Clone)]
pub struct HttpRoute {
    /// Who asked, for errors.
    pub plugin: &'static str,
    /// Where in the Dnsfile.
    pub span: Span,
    /// Address to listen on; routes of one address share a listener. Port 0 is allowed.
    pub address: SocketAddr,
    /// `/metrics`, `/health`, `/ready`.
    pub path: Cow<'static, str>,
    /// Answers.
    pub handler: HttpHandler,
}

/// A readiness check: a name and whether it is ready.
#[derive(Clone)]
pub struct ReadyCheck {
    /// The plugin's name, and what of it.
    pub name: String,
    /// Asked on each probe until it is true once (or for ever, if `ready` says so).
    pub is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// What outlives a reload: stores, health, trees, by a key that their plugins choose. Entries that a new program does not ask for are let go
/// when it takes over.
#[derive(Clone, Default)]
pub struct Kept {
    entries: Arc<Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>>,
}

impl Kept {
    /// The entry, if it is there and of this type.
    pub fn get<T: Send + Sync + 'static>(&self, key: &str) -> Option<Arc<T>> {
        let entries = self
            .entries
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        entries
            .get(key)
            .cloned()
            .and_then(|entry| entry.downcast().ok())
    }

    /// Puts an entry in.
    pub fn put<T: Send + Sync + 'static>(&self, key: &str, value: Arc<T>) {
        let mut entries = self
            .entries
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        entries.insert(key.to_owned(), value);
    }
}

/// What the process gives to every build of a program.
#[derive(Clone)]
pub struct Services {
    /// The metrics of the process; they survive reloads.
    pub metrics: Metrics,
    /// What the running generation keeps; the new one takes from it.
    pub kept: Kept,
    /// Workers that will serve.
    pub workers: usize,
    /// Port of keys that name none (`-dns.port`).
    pub default_port: u16,
    /// `skeindns check`: build, start nothing.
    pub check_only: bool,
    /// Test doubles by type: a scripted upstream, a store in memory. Empty outside tests.
    pub doubles: Vec<Arc<dyn Any + Send + Sync>>,
}

/// The folder that relative file names start from where no `root` is written, instead of the process's: a double.
pub struct StartFolder(pub PathBuf);

impl Services {
    /// Where relative file names start from until a `root` says otherwise.
    pub(crate) fn start_folder(&self) -> PathBuf {
        let folder = self
            .doubles
            .iter()
            .find_map(|double| double.downcast_ref::<StartFolder>());
        folder.map_or_else(PathBuf::new, |folder| folder.0.clone())
    }
}

/// What the setups of a whole program register; `program::build` makes it into a `Program`.
#[derive(Default)]
pub struct Registered {
    pub(crate) background: Vec<(String, BackgroundTask)>,
    pub(crate) starts: Vec<(Option<Span>, String, StartHook)>,
    pub(crate) http: Vec<HttpRoute>,
    pub(crate) ready: Vec<ReadyCheck>,
    pub(crate) warnings: Vec<SetupError>,
    pub(crate) lameduck: Duration,
    pub(crate) reload: Option<(Duration, Duration)>,
    pub(crate) stop_hooks: Vec<BackgroundTask>,
    pub(crate) debug: bool,
    pub(crate) kept: Kept,
    pub(crate) shared_ready: Option<SharedReady>,
}

/// The readiness list of a program as the `ready` plugin sees it: complete once the program is built.
pub type SharedReady = Arc<Mutex<Vec<ReadyCheck>>>;

/// A server block being built.
pub struct ServerSetup<'p> {
    pub(crate) services: &'p Services,
    pub(crate) registered: &'p mut Registered,
    pub(crate) home: Home,
    pub(crate) chain_number: usize,
    pub(crate) chain: Vec<Link>,
    pub(crate) plugin: &'static str,
    pub(crate) keys: Vec<Key>,
    pub(crate) zones: ZoneSet,
    pub(crate) listeners: Vec<(ListenerId, String)>,
    pub(crate) bind: Option<Vec<IpAddr>>,
    pub(crate) root: PathBuf,
    pub(crate) all_classes: bool,
    pub(crate) plugins_in_block: Vec<&'static str>,
    pub(crate) authority: Arc<Registry>,
}

impl ServerSetup<'_> {
    /// Puts a handler into the chain, behind those that are in it.
    pub fn chain(&mut self, handler: impl Handler + 'static) {
        self.chain.push(Link {
            name: self.plugin,
            handler: Box::new(handler),
        });
    }

    /// A handle to ask our own server. Its `rest` is what comes behind the handler that is put in next: call it before `chain`.
    pub fn lookup(&self) -> Lookup {
        Lookup {
            home: self.home.clone(),
            chain: self.chain_number,
            behind: self.chain.len() + 1,
        }
    }

    /// The zones of the block's keys.
    pub fn zones(&self) -> &ZoneSet {
        &self.zones
    }

    /// The block's keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The listeners of the block with the names that metrics give them (`dns://:53`). Complete once `bind` has been set up, which is early.
    pub fn listeners(&self) -> &[(ListenerId, String)] {
        &self.listeners
    }

    /// The plugins of the block, in the table's order; names as in the table.
    pub fn plugins_in_block(&self) -> &[&'static str] {
        &self.plugins_in_block
    }

    /// The zones that this block serves: who has one puts it there, who transfers or announces it finds it there once the program works.
    pub fn authority(&self) -> Arc<Registry> {
        Arc::clone(&self.authority)
    }

    /// Listens on these addresses instead of all (`bind`).
    pub fn bind(&mut self, addresses: Vec<IpAddr>) {
        self.bind.get_or_insert_default().extend(addresses);
    }

    /// The folder that relative file names start from (`root`).
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Sets it.
    pub fn set_root(&mut self, root: PathBuf) {
        self.root = root;
    }

    /// A file as the Dnsfile names it, taken from the root if it is relative.
    pub fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// The metrics of the process.
    pub fn metrics(&self) -> &Metrics {
        &self.services.metrics
    }

    /// Workers that will serve.
    pub fn workers(&self) -> usize {
        self.services.workers
    }

    /// A value that survives reloads: the running generation's, or a new one. The key should say the plugin, the block and every option that
    /// makes the value another one.
    pub fn keep<T: Send + Sync + 'static>(
        &mut self,
        key: &str,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let value = self
            .registered
            .kept
            .get(key)
            .or_else(|| self.services.kept.get(key))
            .unwrap_or_else(|| Arc::new(make()));
        self.registered.kept.put(key, Arc::clone(&value));
        value
    }

    /// Runs beside the generation and is dropped with it. Never runs in `check`.
    pub fn background(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.registered
            .background
            .push((name.into(), Box::pin(task)));
    }

    /// Runs after everything is built and before the first query, 5 s at most; an error stops the start (or the reload), naming the place.
    pub fn at_start(
        &mut self,
        span: Span,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.registered
            .starts
            .push((Some(span), self.plugin.to_owned(), Box::pin(task)));
    }

    /// Runs when the generation has been drained: flush a summary, write a file. 5 s at most.
    pub fn at_stop(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.registered.stop_hooks.push(Box::pin(task));
    }

    /// Serves a path over HTTP.
    pub fn http(
        &mut self,
        span: Span,
        address: SocketAddr,
        path: impl Into<Cow<'static, str>>,
        handler: HttpHandler,
    ) {
        self.registered.http.push(HttpRoute {
            plugin: self.plugin,
            span,
            address,
            path: path.into(),
            handler,
        });
    }

    /// Takes part in `/ready`.
    pub fn ready(
        &mut self,
        name: impl Into<String>,
        is_ready: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        self.registered.ready.push(ReadyCheck {
            name: name.into(),
            is_ready: Arc::new(is_ready),
        });
    }

    /// Every readiness check of the program, for the plugin that answers `/ready`: complete when the program starts.
    pub fn readiness(&mut self) -> SharedReady {
        self.registered.shared_ready.get_or_insert_default().clone()
    }

    /// How long to go on answering after SIGTERM (`health`).
    pub fn lameduck(&mut self, duration: Duration) {
        self.registered.lameduck = self.registered.lameduck.max(duration);
    }

    /// Looks for a changed Dnsfile every `interval`, plus or minus half of `jitter` (`reload`).
    pub fn reload_every(&mut self, interval: Duration, jitter: Duration) {
        self.registered.reload = Some((interval, jitter));
    }

    /// Lets queries of classes other than IN into the block.
    pub fn accept_all_classes(&mut self) {
        self.all_classes = true;
    }

    /// Turns debug logging on, for the process.
    pub fn debug(&mut self) {
        self.registered.debug = true;
    }

    /// Something the operator should know; the start goes on.
    pub fn warn(&mut self, span: Span, what: impl Into<String>) {
        self.registered.warnings.push(SetupError {
            plugin: Some(self.plugin.to_owned()),
            ..SetupError::at(span, what)
        });
    }

    /// Whether this is `skeindns check`: read files and say what is missing, open and resolve nothing.
    pub fn check_only(&self) -> bool {
        self.services.check_only
    }

    /// A test double of this type; `None` outside tests.
    pub fn double<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.services
            .doubles
            .iter()
            .find_map(|double| Arc::clone(double).downcast().ok())
    }
}

/// The kernel's host name; `localhost` if there is none.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
