//! What a test server lives in: doubles of the outside, captured log lines, a folder for files. One per test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span;

use super::odd;
use super::store::ScriptedStore;
use super::upstream::ScriptedUpstream;
use crate::kit::dnsfile::{Loader, System};
use crate::kit::metrics::Metrics;
use crate::kit::query_log::QueryLogCapture;
use crate::kit::setup::{Kept, Services, StartFolder};

/// Doubles, captures and a folder.
pub struct World {
    /// The upstream that `forward . scripted` asks.
    pub upstream: Arc<ScriptedUpstream>,
    /// The store that `etcd` follows.
    pub store: Arc<ScriptedStore>,
    /// Query log lines.
    pub query_log: Arc<QueryLogCapture>,
    /// Events of `tracing`.
    pub events: Arc<Events>,
    /// The metrics, over reloads.
    pub metrics: Metrics,
    /// Environment variables that the Dnsfile sees.
    pub environment: BTreeMap<String, String>,
    folder: Folder,
}

impl World {
    /// A new one.
    pub fn new() -> World {
        let upstream = ScriptedUpstream::new();
        upstream.script(odd::script());
        World {
            upstream,
            store: Arc::default(),
            query_log: Arc::default(),
            events: Arc::default(),
            metrics: Metrics::new(1),
            environment: BTreeMap::new(),
            folder: Folder::new(),
        }
    }

    /// The folder that relative file names start from; made on first use, removed at the end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every line logged since the last call: queries, then events.
    pub fn take_logged(&self) -> Vec<String> {
        let take = |lines: &Mutex<Vec<String>>| {
            std::mem::take(
                &mut *lines
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner()),
            )
        };
        let mut lines = take(&self.query_log.lines);
        lines.extend(take(&self.events.lines));
        lines
    }

    /// What the process would give to a build.
    pub fn services(&self, kept: Kept, check_only: bool) -> Services {
        Services {
            metrics: self.metrics.clone(),
            kept,
            workers: 1,
            default_port: 53,
            check_only,
            doubles: vec![
                self.upstream.clone(),
                self.store.clone(),
                self.query_log.clone(),
                Arc::new(StartFolder(self.folder().to_owned())),
            ],
        }
    }
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

/// The Dnsfile's environment is the world's, and its relative files are in the world's folder.
impl Loader for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        System.read(&self.absolute(path))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        System.list(&self.absolute(folder))
    }

    fn exists(&self, path: &Path) -> bool {
        System.exists(&self.absolute(path))
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.folder().join(path)
    }
}

/// A temporary folder.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "skeindns-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Relaxed)
        );
        Folder {
            path: std::env::temp_dir().join(name),
        }
    }

    fn path(&self) -> &Path {
        // A folder that cannot be made shows as a missing file in the test that needs it.
        std::fs::create_dir_all(&self.path).ok();
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).ok();
    }
}

/// Collects events as lines: `[WARN] plugin/forward: …`. A subscriber for one thread.
#[derive(Default)]
pub struct Events {
    lines: Mutex<Vec<String>>,
}

/// A handle to [`Events`] that `tracing` can own.
pub(super) struct EventsSubscriber(pub(super) Arc<Events>);

impl tracing::Subscriber for EventsSubscriber {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("skein")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!(
            "[{}] {}{}",
            event.metadata().level(),
            line.message,
            line.fields
        );
        if let Ok(mut lines) = self.0.lines.lock() {
            lines.push(text);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into a String cannot fail.
        if field.name() == "message" {
            write!(self.message, "{value:?}").ok();
        } else {
            write!(self.fields, " {}={value:?}", field.name()).ok();
        }
    }
}
