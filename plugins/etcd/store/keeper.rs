//! The thread that owns the store: it takes requests from a bounded queue, changes the state, writes to disk, tells the watches, and
//! only then answers.
//!
//! What is queued when it looks is done together: reads first, on what is on disk; then all writes, with one write to disk (group
//! commit). If that fails, all of them are taken back and fail; reading goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::disk::Disk;
use super::engine::{Engine, Mark, Saved};
use super::folder::Folder;
use super::model::StoreError;
use super::watch::Hub;

/// Requests waiting for the thread; who comes later waits to queue.
pub(crate) const QUEUE_MAX: usize = 1_024;
/// Requests done together.
const GROUP_MAX: usize = 256;
/// Leases that end at about the same time end together; etcd looks twice a second.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);
/// After a write that failed, ended leases are tried again this much later.
const EXPIRE_RETRY: Duration = Duration::from_secs(2);

/// Told whether the write it belongs to is on disk.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// What a read does.
type Read = Box<dyn FnOnce(&mut Engine, &mut Hub, Instant) + Send>;
/// What a write does before anything is on disk.
type Write = Box<dyn FnOnce(&mut Engine, Instant) -> Finish + Send>;

/// A request for the thread.
pub(crate) enum Command {
    /// Reads, or changes what is only in memory.
    Read(Read),
    /// Changes what is on disk.
    Write(Write),
}

/// Everything that the thread owns.
pub(crate) struct Keeper {
    engine: Engine,
    hub: Hub,
    disk: Disk,
    commands: mpsc::Receiver<Command>,
    /// The newest revision that the watches know.
    published: i64,
    /// Leases are not looked at before.
    expire_at: Instant,
    /// Whether the last write reached the disk; shared with the handles. What changes it is logged.
    writable: Arc<AtomicBool>,
    /// Held as long as the thread lives, and let go after the file is closed.
    folder: Option<Folder>,
}

impl Keeper {
    /// Opens the file and starts the thread. Gives what `ready` makes of it, once it is open.
    pub(crate) fn start(
        name: &str,
        open: impl FnOnce() -> Result<(Disk, Saved, Option<Folder>), String> + Send + 'static,
        commands: mpsc::Receiver<Command>,
        writable: Arc<AtomicBool>,
    ) -> oneshot::Receiver<Result<(), String>> {
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let (tell_spawn, run) =
            (
                tell,
                move |tell: oneshot::Sender<Result<(), String>>| match catch_unwind(
                    AssertUnwindSafe(open),
                ) {
                    Ok(Ok((disk, saved, folder))) => {
                        let now = Instant::now();
                        let engine = Engine::new(saved, now);
                        let keeper = Keeper {
                            published: engine.revision(),
                            engine,
                            hub: Hub::default(),
                            disk,
                            commands,
                            expire_at: now,
                            writable,
                            folder,
                        };
                        let _ = tell.send(Ok(()));
                        keeper.run();
                    }
                    Ok(Err(error)) => {
                        let _ = tell.send(Err(error));
                    }
                    Err(_) => {
                        let _ = tell.send(Err(
                            "the file is damaged; restore it, or move it away and import an export"
                                .into(),
                        ));
                    }
                },
            );
        // A thread that cannot be started drops `tell_spawn`, which the caller sees.
        let _ = thread.spawn(move || run(tell_spawn));
        told
    }

    fn run(mut self) {
        // A runtime of its own for the timer; the thread blocks on the disk, which no worker may.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
        else {
            tracing::error!("embedded store: no timer for its thread; it is closed");
            return;
        };
        runtime.block_on(async {
            let mut group = Vec::new();
            loop {
                let wake = self.next_wake();
                let received = tokio::select! {
                    biased;
                    received = self.commands.recv_many(&mut group, GROUP_MAX) => Some(received),
                    () = sleep_until(wake) => None,
                };
                if received == Some(0) {
                    break;
                }
                self.serve(&mut group);
                self.look_after();
            }
        });
        let Keeper { disk, folder, .. } = self;
        drop(disk);
        drop(folder);
    }

    fn serve(&mut self, group: &mut Vec<Command>) {
        let now = Instant::now();
        let mut writes = Vec::new();
        for command in group.drain(..) {
            match command {
                Command::Read(read) => read(&mut self.engine, &mut self.hub, now),
                Command::Write(write) => writes.push(write),
            }
        }
        if writes.is_empty() {
            return;
        }
        let mark = self.engine.mark();
        let finishes: Vec<Finish> = writes
            .into_iter()
            .map(|write| write(&mut self.engine, now))
            .collect();
        let saved = self.save(mark, now);
        for finish in finishes {
            finish(saved.clone());
        }
    }

    /// Writes what changed since the mark, or takes it back.
    fn save(&mut self, mark: Mark, now: Instant) -> Result<(), StoreError> {
        if self.engine.unsaved().is_empty() {
            return Ok(());
        }
        let (disk, engine) = (&mut self.disk, &self.engine);
        let saved = catch_unwind(AssertUnwindSafe(|| disk.save(engine)))
            .unwrap_or_else(|_| Err("the file is damaged".into()));
        match saved {
            Ok(()) => {
                if !self.writable.swap(true, Relaxed) {
                    tracing::info!("embedded store: writing works again");
                }
                for revision in self.engine.history().since(self.published + 1) {
                    self.hub.publish(revision.number, &revision.events, now);
                }
                self.published = self.engine.revision();
                self.engine.confirm();
                Ok(())
            }
            Err(what) => {
                self.engine.roll_back(mark);
                if self.writable.swap(false, Relaxed) {
                    tracing::error!(
                        "embedded store: cannot write: {what}; names go on being answered, changes are refused"
                    );
                }
                Err(StoreError::Disk(format!("cannot write: {what}")))
            }
        }
    }

    /// Ends leases and reports progress, where it is time.
    fn look_after(&mut self) {
        let now = Instant::now();
        if now >= self.expire_at
            && self
                .engine
                .leases()
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
        {
            let mark = self.engine.mark();
            for id in self.engine.leases().ended(now) {
                // It is there: `ended` says so, and nobody else changes the table.
                let _ = self.engine.revoke(id);
            }
            let again = match self.save(mark, now) {
                Ok(()) => EXPIRE_EVERY,
                Err(_) => EXPIRE_RETRY,
            };
            self.expire_at = now + again;
        }
        if self.hub.next_tick().is_some_and(|tick| tick <= now) {
            self.hub.tick(self.engine.revision(), now);
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let expire = self
            .engine
            .leases()
            .next_deadline()
            .map(|deadline| deadline.max(self.expire_at));
        [expire, self.hub.next_tick()].into_iter().flatten().min()
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
