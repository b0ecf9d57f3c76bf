//! [`Snapshot`]: the tree on disk, so that a restart while etcd is away answers with what was last known.
//!
//! It is written beside the old one and takes its place when it is whole (`rename`). While it is written queries go on: keys are taken a few
//! thousand at a time, so it is no picture of one moment; each record says its revision, and the first list from etcd corrects all of it.

mod file;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek};
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::record::Record;
use super::tree::{Change, Tree};
use crate::kit::clock::{self, Instant};
use file::{Head, Writer};

/// Octets of a file, written or read: some twenty million records, twice what is followed.
const OCTETS_MAX: u64 = 2 << 30;
/// From one to the next at least, if anything has changed.
const EVERY: Duration = Duration::from_secs(10);
/// Large ones are further apart: this times as long as the last one took to write.
const PART_OF_TIME: u32 = 50;
/// And so often if nothing has changed: how old it says it is should not be much more than how old it is.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// After one that could not be written.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Records taken from the tree, or put into it, under one lock.
const AT_ONCE: usize = 4096;

/// See the module.
pub(super) struct Snapshot {
    file: PathBuf,
    of: String,
    tree: Arc<Tree>,
    plan: Mutex<Plan>,
    is_writing: AtomicBool,
    failures: AtomicU64,
    // Seconds since 1970; 0: none yet.
    written: AtomicU64,
}

struct Plan {
    next: Option<Instant>,
    // When it is written again though nothing has changed; none: at once.
    again: Option<Instant>,
    // The tree's changes when it was written last.
    changes: u64,
    // Where following stood when it was last asked whether one is due.
    position: Option<Position>,
    said: Option<String>,
}

/// Where a tree stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) cluster: u64,
    pub(super) revision: i64,
}

/// What was read from a file.
pub(super) struct Loaded {
    pub(super) position: Position,
    /// Seconds since 1970.
    pub(super) taken: u64,
}

impl Snapshot {
    /// `of` says what the keys are of: a file of something else is not read.
    pub(super) fn new(file: PathBuf, of: String, tree: Arc<Tree>) -> Snapshot {
        Snapshot {
            file,
            of,
            tree,
            plan: Mutex::new(Plan {
                next: None,
                again: None,
                changes: 0,
                position: None,
                said: None,
            }),
            is_writing: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// The file, for logs.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Snapshots that could not be written.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// When the file was written, in seconds since 1970; 0: not yet, and not read either.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    //--- Reading ------------------------------------------------------------------------------

    /// Puts what the file has into the tree, all of it or nothing; `None`: there is no file. Waits for the disk.
    pub(super) fn load(&self) -> Result<Option<Loaded>, String> {
        let opened = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let about = opened.metadata().map_err(|error| error.to_string())?;
        if !about.is_file() {
            return Err("it is no file".into());
        }
        if about.len() > OCTETS_MAX {
            return Err(format!("it is larger than {OCTETS_MAX} octets"));
        }
        // Once to see whether it is whole, once to take it.
        let read = BufReader::with_capacity(1 << 16, &opened);
        file::read(read, &self.of, |_| (), |_, _| ())?;
        (&opened).rewind().map_err(|error| error.to_string())?;
        let read = BufReader::with_capacity(1 << 16, &opened);
        let mut changes = Vec::with_capacity(AT_ONCE);
        let head = file::read(
            read,
            &self.of,
            |_| (),
            |path, record| {
                changes.push(Change {
                    path,
                    revision: record.revision,
                    record: Some(record),
                });
                if changes.len() >= AT_ONCE {
                    self.tree.apply(std::mem::take(&mut changes));
                }
            },
        )?;
        self.tree.apply(changes);
        self.tree.raise_serials(&head.serials);
        self.written.store(head.taken, Relaxed);
        let mut plan = self.plan();
        plan.changes = self.tree.changes();
        Ok(Some(Loaded {
            position: Position {
                cluster: head.cluster,
                revision: head.revision,
            },
            taken: head.taken,
        }))
    }

    //--- Writing ------------------------------------------------------------------------------

    /// The tree is whole and stands here: writes it, on another thread, if it is time.
    pub(super) fn write_if_due(self: &Arc<Self>, position: Position) {
        let mut plan = self.plan();
        plan.position = Some(position);
        let now = clock::now();
        let is_fresh = plan.again.is_some_and(|again| now < again);
        if plan.next.is_some_and(|next| now < next)
            || (is_fresh && plan.changes == self.tree.changes())
            || self.is_writing.swap(true, Relaxed)
        {
            return;
        }
        plan.next = Some(now + EVERY);
        drop(plan);
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            this.write_and_plan(position);
            this.is_writing.store(false, Relaxed);
        });
    }

    /// At the end: writes it if it has changed since. Waits for the disk.
    pub(super) fn write_at_end(&self) {
        let plan = self.plan();
        let position = plan.position;
        let is_old = plan.changes != self.tree.changes();
        drop(plan);
        if let Some(position) = position.filter(|_| is_old)
            && !self.is_writing.swap(true, Relaxed)
        {
            self.write_and_plan(position);
            self.is_writing.store(false, Relaxed);
        }
    }

    fn write_and_plan(&self, position: Position) {
        let started = clock::now();
        let changes = self.tree.changes();
        let written = self.write(position);
        let now = clock::now();
        let mut plan = self.plan();
        match written {
            Ok(taken) => {
                let took = now.saturating_duration_since(started);
                plan.next = Some(now + EVERY.max(took * PART_OF_TIME));
                plan.again = Some(now + AGAIN_AFTER);
                plan.changes = changes;
                plan.said = None;
                self.written.store(taken, Relaxed);
            }
            Err(error) => {
                self.failures.fetch_add(1, Relaxed);
                plan.next = Some(now + AFTER_FAILURE);
                let what = error.to_string();
                if plan.said.as_ref() != Some(&what) {
                    tracing::warn!(
                        "plugin/etcd: the snapshot {} cannot be written: {what}; answers go on, a restart without etcd would have none",
                        self.file.display()
                    );
                    plan.said = Some(what);
                }
            }
        }
    }

    fn write(&self, position: Position) -> io::Result<u64> {
        let new = self.file.with_added_extension("new");
        // From a time before that broke off.
        fs::remove_file(&new).ok();
        let written = self.write_to(&new, position);
        if written.is_err() {
            fs::remove_file(&new).ok();
        }
        written
    }

    fn write_to(&self, new: &Path, position: Position) -> io::Result<u64> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(new)?;
        let head = Head {
            taken: clock::unix_now().as_secs(),
            cluster: position.cluster,
            revision: position.revision,
            of: self.of.clone(),
            serials: self.tree.serials(),
        };
        let out = BufWriter::with_capacity(1 << 16, file);
        let mut writer = Writer::begin(out, &head, OCTETS_MAX)?;
        let mut from = Bound::Unbounded;
        loop {
            let part: Vec<(Box<[u8]>, Record)> = {
                let keys = self.tree.keys();
                let part = keys.range((from, Bound::Unbounded)).take(AT_ONCE);
                part.map(|(path, record)| (path.clone(), record.clone()))
                    .collect()
            };
            writer.records(part.iter())?;
            match part.into_iter().next_back() {
                Some((last, _)) => from = Bound::Excluded(last),
                None => break,
            }
        }
        let (_, out) = writer.end()?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(new, &self.file)?;
        // The new name too must survive a power cut.
        let folder = self.file.parent().filter(|folder| *folder != Path::new(""));
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(head.taken)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn put(path: &str, revision: i64) -> Change {
        let record = Record::read(br#"{"host":"192.0.2.1","text":"t"}"#, revision, Some(30));
        Change {
            path: path.as_bytes().into(),
            record: Some(record.expect("a record")),
            revision,
        }
    }

    fn snapshot(file: &Path, tree: Tree) -> Snapshot {
        Snapshot::new(file.to_owned(), "v3 /skydns/".into(), Arc::new(tree))
    }

    const POSITION: Position = Position {
        cluster: 7,
        revision: 9_100,
    };

    #[test]
    fn a_tree_comes_back_with_its_serials() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("names");
        let old = snapshot(&file, Tree::new());
        assert!(old.load().is_ok_and(|loaded| loaded.is_none()));
        old.tree
            .apply((0..9000).map(|n| put(&format!("org/{n}"), n)).collect());
        let serial = old.tree.serial(b"org");
        old.tree.apply(vec![Change {
            path: b"org/8999"[..].into(),
            record: None,
            revision: 9_050,
        }]);
        assert_eq!(serial.load(Relaxed), 9_050);
        old.write(POSITION).expect("written");
        let mode = fs::metadata(&file).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let new = snapshot(&file, Tree::new());
        let serial = new.tree.serial(b"org");
        let loaded = new.load().expect("whole").expect("there");
        assert_eq!(loaded.position, POSITION);
        assert_eq!(serial.load(Relaxed), 9_050);
        assert!(*new.tree.keys() == *old.tree.keys());
        assert_eq!(new.tree.records(), 8999);
    }

    #[test]
    fn a_damaged_one_puts_nothing_into_the_tree() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("names");
        let old = snapshot(&file, Tree::new());
        old.tree
            .apply((0..9000).map(|n| put(&format!("org/{n}"), n)).collect());
        old.write(POSITION).expect("written");
        let mut bytes = fs::read(&file).expect("written");
        let last_record = bytes.len() - 30;
        bytes[last_record] ^= 1;
        fs::write(&file, bytes).expect("our folder");
        let new = snapshot(&file, Tree::new());
        let error = new.load().err().unwrap_or_default();
        assert!(error.contains("damaged"), "{error}");
        assert_eq!(new.tree.records(), 0);
    }

    #[test]
    fn an_old_one_stays_if_the_new_one_cannot_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("names");
        let old = snapshot(&file, Tree::new());
        old.tree.apply(vec![put("org/a", 1)]);
        old.write(POSITION).expect("written");
        let before = fs::read(&file).expect("written");
        fs::create_dir(folder.path().join("names.new")).expect("our folder");
        old.tree.apply(vec![put("org/b", 2)]);
        old.plan().position = Some(POSITION);
        old.write_at_end();
        assert_eq!(old.failures(), 1);
        assert_eq!(fs::read(&file).expect("still there"), before);
    }
}
