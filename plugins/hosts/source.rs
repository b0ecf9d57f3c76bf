//! A hosts file that is looked at again and again.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLockReadGuard};
use std::time::Duration;

use super::file::{self, Loaded, Stamp, Wanted};
use super::table::Table;
use crate::kit::live::Live;
use crate::kit::metrics::Gauge;
use crate::kit::setup::ServerSetup;

/// A file with at least so many octets is read on a thread of its own: it takes longer than other tasks should wait.
const ASIDE_OCTETS: u64 = 64 << 10;

/// A file, and what was last read of it. Server blocks and generations that want the same of a file share it.
pub(super) struct Source {
    path: PathBuf,
    wanted: Wanted,
    table: Live<Table>,
    state: Mutex<State>,
    entries: Gauge,
    skipped: Gauge,
    changed: Gauge,
}

/// What the table was made of.
#[derive(Default)]
struct State {
    // None until it has been looked at once.
    stamp: Option<Option<Stamp>>,
    // What was last wrong, told once.
    told: String,
}

/// The source of what is wanted of a file: the running generation's, or a new one that has not been read yet.
pub(super) fn of(path: PathBuf, wanted: Wanted, server: &mut ServerSetup<'_>) -> Arc<Source> {
    let key = format!("hosts {path:?} {wanted:?}");
    let metrics = server.metrics().clone();
    let workers = server.workers();
    server.keep(&key, || {
        let file = path.display().to_string();
        let labels = [("hostsfile", file.as_str())];
        Source {
            table: Live::new(Table::default(), workers),
            state: Mutex::default(),
            entries: metrics.gauge(
                "coredns_hosts_entries",
                "The combined number of entries in hosts and Corefile.",
                &labels,
            ),
            skipped: metrics.gauge(
                "skeindns_hosts_skipped_lines",
                "Lines of a hosts file that make no sense and were left out.",
                &labels,
            ),
            changed: metrics.gauge(
                "coredns_hosts_reload_timestamp_seconds",
                "The timestamp of the last reload of hosts file.",
                &[],
            ),
            path,
            wanted,
        }
    })
}

/// Looks at the file `every` so often.
pub(super) async fn watch(source: Arc<Source>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let octets = std::fs::metadata(&source.path).map_or(0, |metadata| metadata.len());
        if octets < ASIDE_OCTETS {
            source.look_and_tell();
        } else if !source.is_as_read() {
            let source = Arc::clone(&source);
            // It ends by itself; a server that stops does not wait for it.
            tokio::task::spawn_blocking(move || source.look_and_tell())
                .await
                .ok();
        }
    }
}

impl Source {
    /// The table of this moment; see [`Live::read`].
    pub(super) fn table(&self) -> RwLockReadGuard<'_, Arc<Table>> {
        self.table.read()
    }

    fn stamp(&self) -> std::io::Result<Option<Stamp>> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_as_read(&self) -> bool {
        // Locked: somebody is reading it right now.
        let Ok(state) = self.state.try_lock() else {
            return true;
        };
        matches!((self.stamp(), state.stamp), (Ok(now), Some(read)) if now == read)
    }

    /// Reads the file if it is not as it was last read: all of it or nothing. What the operator should know, or why it cannot be read; the
    /// table then stays as it is.
    pub(super) fn look(&self) -> Result<Option<String>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let unable = |error| format!("unable to access hosts file {}: {error}", self.shown());
        let stamp = self.stamp().map_err(unable)?;
        if state.stamp == Some(stamp) {
            return Ok(None);
        }
        let is_first = state.stamp.is_none();
        if stamp.is_none() && !is_first {
            // Perhaps it is being replaced.
            return Ok(Some(format!(
                "{} is gone; its entries stay as they are",
                self.shown()
            )));
        }
        let Loaded {
            table,
            skipped,
            stamp,
            is_folder,
        } = file::load(&self.path, &self.wanted).map_err(unable)?;
        state.stamp = Some(stamp);
        state.told.clear();
        self.entries.set(table.entries() as i64);
        self.skipped.set(skipped.count as i64);
        self.changed.set(stamp.map_or(0, |stamp| stamp.seconds()));
        self.table.replace(table);
        let warning = match stamp {
            None => Some(format!("{} is not there yet", self.shown())),
            Some(_) if is_folder => Some(format!("{} is a folder and no file", self.shown())),
            Some(_) => skipped
                .sentence()
                .map(|what| format!("{}: {what}", self.shown())),
        };
        Ok(warning)
    }

    /// The same, later on: the log is told, each thing once.
    fn look_and_tell(&self) {
        let told = match self.look() {
            Ok(None) => return,
            Ok(Some(what)) | Err(what) => what,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if told != state.told {
            tracing::warn!("plugin/hosts: {told}");
            state.told = told;
        }
    }

    fn shown(&self) -> std::path::Display<'_> {
        Path::display(&self.path)
    }
}
