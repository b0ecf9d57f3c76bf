//! [`Source`]: a zone that comes from a file, and looks there from time to time whether it is still the same.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::builder::Warnings;
use super::contents::Contents;
use super::master::{Fault, Loaded, Stamp, load};
use super::published::Published;
use super::registry::Registry;
use crate::kit::wire::Name;

/// Octets of a file up to which it is read where we are: a few milliseconds. Larger ones get a thread of their own.
const READ_HERE_MAX: u64 = 1 << 20;

/// What makes a file another version of the zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// Another serial, up or down (as CoreDNS); a file that changed without one is told.
    Serial,
    /// Another time of modification or size.
    Mtime,
}

/// A zone's file.
pub struct Source {
    file: PathBuf,
    apex: Name,
    published: Arc<Published>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    // None after a file that could not be read: it is tried again.
    stamps: Vec<Stamp>,
    told: String,
}

/// What a look found.
pub enum Look {
    /// The files are what they were.
    Unchanged,
    /// The file is another, its serial is not.
    SameSerial(u32),
    /// A new version, now in its place.
    Replaced {
        /// Its serial.
        serial: u32,
        /// Its records.
        records: usize,
        /// What is odd in it.
        warnings: Warnings,
    },
    /// It cannot be used; what was there stays.
    Failed(Fault),
}

impl Source {
    /// A zone of this name in this file; nothing is read yet.
    pub fn new(file: &Path, apex: &Name, workers: usize) -> Source {
        Source {
            file: file.to_owned(),
            apex: apex.to_lowercase(),
            published: Arc::new(Published::new(workers)),
            seen: Mutex::default(),
        }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The zone's name.
    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// Where the zone stands.
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// Reads the file if it has changed, and puts a new version in its place. Takes as long as reading does.
    pub fn look(&self, by: By) -> Look {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.published.get();
        if before.is_some()
            && !seen.stamps.is_empty()
            && !seen.stamps.iter().any(Stamp::has_changed)
        {
            return Look::Unchanged;
        }
        match load(&self.file, &self.apex) {
            Ok(loaded) => self.take(loaded, before, by, &mut seen),
            Err(fault) => {
                seen.stamps.clear();
                Look::Failed(fault)
            }
        }
    }

    fn take(&self, loaded: Loaded, before: Option<Arc<Contents>>, by: By, seen: &mut Seen) -> Look {
        seen.stamps = loaded.stamps;
        let serial = loaded.contents.soa().serial;
        let is_same = before.is_some_and(|before| before.soa().serial == serial);
        if is_same && by == By::Serial {
            return Look::SameSerial(serial);
        }
        let records = loaded.contents.record_count();
        self.published.put(Some(Arc::new(loaded.contents)));
        Look::Replaced {
            serial,
            records,
            warnings: loaded.warnings,
        }
    }

    /// Looks every `every`, and says what it finds as `plugin`.
    pub async fn watch(
        self: Arc<Self>,
        plugin: &'static str,
        every: Duration,
        by: By,
        registry: Arc<Registry>,
    ) {
        let mut announced = self.serial();
        loop {
            tokio::time::sleep(every).await;
            self.look_and_tell(plugin, by).await;
            // Another block may have this zone from this file too, and have looked before us.
            let serial = self.serial();
            if serial != announced {
                announced = serial;
                registry.announce();
            }
        }
    }

    /// The serial of the zone that stands there.
    fn serial(&self) -> Option<u32> {
        self.published
            .read(|zone| zone.map(|zone| zone.soa().serial))
    }

    /// One look, told; whether there is a new version.
    pub async fn look_and_tell(self: &Arc<Self>, plugin: &'static str, by: By) -> bool {
        let is_large = self
            .file
            .metadata()
            .is_ok_and(|file| file.len() > READ_HERE_MAX);
        let look = if is_large {
            let source = Arc::clone(self);
            // Half a second for a million records, and this thread has others to look after.
            match tokio::task::spawn_blocking(move || source.look(by)).await {
                Ok(look) => look,
                Err(_) => return false,
            }
        } else {
            self.look(by)
        };
        self.tell(plugin, &look);
        matches!(look, Look::Replaced { .. })
    }

    /// Logs what a look found; what is wrong and stays wrong is said once.
    pub fn tell(&self, plugin: &'static str, look: &Look) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (apex, file) = (&self.apex, self.file.display());
        match look {
            Look::Unchanged => {}
            Look::SameSerial(serial) => tracing::warn!(
                "plugin/{plugin}: {file} has changed, but zone {apex} in it still has serial {serial}: the zone stays as it was, raise the serial"
            ),
            Look::Replaced {
                serial,
                records,
                warnings,
            } => {
                seen.told.clear();
                tracing::info!(
                    "plugin/{plugin}: zone {apex} loaded from {file}: serial {serial}, {records} records"
                );
                for text in &warnings.texts {
                    tracing::warn!("plugin/{plugin}: {file}: {text}");
                }
                let more = warnings.count - warnings.texts.len();
                if more > 0 {
                    tracing::warn!("plugin/{plugin}: {file}: {more} more warnings");
                }
            }
            Look::Failed(fault) => {
                let text = fault.to_string();
                if text != seen.told {
                    let then = match self.published.get() {
                        Some(zone) => format!("serial {} goes on being served", zone.soa().serial),
                        None => "queries for it are answered SERVFAIL".into(),
                    };
                    tracing::error!(
                        "plugin/{plugin}: zone {apex} cannot be loaded: {text}; {then}"
                    );
                    seen.told = text;
                }
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.apex, self.file.display())
    }
}
