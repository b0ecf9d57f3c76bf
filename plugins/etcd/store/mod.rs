//! "etcd without an etcd": a store for one machine inside the server, with etcd's keys, revisions, leases, transactions and watches.
//!
//! ```text
//!   the etcd plugin ──list, watch──▶ Store ──queue──▶ keeper's thread: engine ─▶ disk (redb)
//!   curl, skeindns service ─HTTP─▶ api ─▶│                              └─▶ watches
//! ```
//! In reading order: `model` (the words), `engine` (every rule), `history` and `leases` (its parts), `watch` (who is told), `disk` and
//! `folder` (what stays), `keeper` (the thread). It knows nothing of DNS.

mod model;

mod engine;
mod history;
mod leases;
mod watch;

mod disk;
mod folder;
mod keeper;

mod api;
mod json;
mod listener;
mod streams;

mod backend;
mod embedded;

pub(crate) use embedded::Embedded;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::disk::{Disk, Identity};
use self::engine::{Engine, Saved};
use self::folder::Folder;
use self::keeper::{Command, Keeper};
use self::model::{
    DeleteReply, DeleteRequest, LeaseView, PutReply, PutRequest, RangeReply, RangeRequest, Status,
    StoreError, TxnReply, TxnRequest,
};
use self::watch::{Hub, WatchRequest, WatchStream};

/// How long a request may take, queueing and the disk included; etcd's own limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// A handle to the open store. Cheap to clone; the store closes when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Store {
    commands: mpsc::Sender<Command>,
    identity: Identity,
    writable: Arc<AtomicBool>,
    file: Option<Arc<Path>>,
}

/// A reply and the store's revision with it, for replies that carry a header.
pub(crate) type Headed<T> = (i64, T);

impl Store {
    /// Opens `DIR/store.redb`, making folder and file where they are missing. An error names the place and says what to do.
    pub(crate) async fn open(dir: &Path) -> Result<Store, String> {
        let dir = dir.to_owned();
        let file: Arc<Path> = dir.join(folder::FILE).into();
        let mut store = Store::open_with(move || {
            let folder = Folder::take(&dir)?;
            let file = folder.file();
            let (disk, saved, identity) = Disk::open(&file)
                .map_err(|error| format!("cannot use {}: {error}", file.display()))?;
            Ok((disk, saved, identity, Some(folder)))
        })
        .await?;
        store.file = Some(file);
        Ok(store)
    }

    /// As [`Store::open`], from wherever `open` finds it; it runs on the store's thread.
    pub(crate) async fn open_with(
        open: impl FnOnce() -> Result<(Disk, Saved, Identity, Option<Folder>), String> + Send + 'static,
    ) -> Result<Store, String> {
        let (commands, queue) = mpsc::channel(keeper::QUEUE_MAX);
        let (introduce, introduced) = oneshot::channel();
        let writable = Arc::new(AtomicBool::new(true));
        let opened = Keeper::start(
            "skeindns-store",
            move || {
                let (disk, saved, identity, folder) = open()?;
                let _ = introduce.send(identity);
                Ok((disk, saved, folder))
            },
            queue,
            Arc::clone(&writable),
        );
        opened
            .await
            .map_err(|_| "cannot start the store's thread".to_owned())??;
        let identity = introduced
            .await
            .map_err(|_| "the store's thread ended".to_owned())?;
        Ok(Store {
            commands,
            identity,
            writable,
            file: None,
        })
    }

    /// Cluster and member id.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// `kv/range`.
    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeReply, StoreError> {
        self.read(move |engine, _, _| engine.range(&request))
            .await?
    }

    /// `kv/put`.
    pub(crate) async fn put(&self, request: PutRequest) -> Result<PutReply, StoreError> {
        self.write(move |engine, _| engine.put(request)).await
    }

    /// `kv/deleterange`.
    pub(crate) async fn delete(&self, request: DeleteRequest) -> Result<DeleteReply, StoreError> {
        self.write(move |engine, _| engine.delete(&request)).await
    }

    /// `kv/txn`.
    pub(crate) async fn txn(&self, request: TxnRequest) -> Result<TxnReply, StoreError> {
        self.write(move |engine, _| {
            let mark = engine.mark();
            engine.txn(request).inspect_err(|_| engine.roll_back(mark))
        })
        .await
    }

    /// `kv/compaction`; gives the revision.
    pub(crate) async fn compact(&self, revision: i64) -> Result<i64, StoreError> {
        self.read(move |engine, _, _| engine.compact(revision).map(|()| engine.revision()))
            .await?
    }

    /// `lease/grant`: id and TTL.
    pub(crate) async fn grant(&self, id: i64, ttl: i64) -> Result<Headed<(i64, i64)>, StoreError> {
        self.write(move |engine, now| {
            let granted = engine.grant(id, ttl, now)?;
            Ok((engine.revision(), granted))
        })
        .await
    }

    /// `lease/revoke`; gives the revision.
    pub(crate) async fn revoke(&self, id: i64) -> Result<i64, StoreError> {
        self.write(move |engine, _| engine.revoke(id).map(|()| engine.revision()))
            .await
    }

    /// `lease/keepalive`: the TTL, or `None` for a lease that is not there.
    pub(crate) async fn keep_alive(&self, id: i64) -> Result<Headed<Option<i64>>, StoreError> {
        self.read(move |engine, _, now| (engine.revision(), engine.renew(id, now)))
            .await
    }

    /// `lease/timetolive`.
    pub(crate) async fn time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<Headed<LeaseView>, StoreError> {
        self.read(move |engine, _, now| (engine.revision(), engine.lease(id, keys, now)))
            .await
    }

    /// `lease/leases`.
    pub(crate) async fn leases(&self) -> Result<Headed<Vec<i64>>, StoreError> {
        self.read(move |engine, _, _| (engine.revision(), engine.leases().ids().collect()))
            .await
    }

    /// How the store is.
    pub(crate) async fn status(&self) -> Result<Headed<Status>, StoreError> {
        let writable = self.writable.load(Relaxed);
        let file_bytes = match &self.file {
            Some(file) => std::fs::metadata(file).map_or(0, |file| file.len()),
            None => 0,
        };
        self.read(move |engine, _, _| {
            let status = Status {
                keys: engine.len(),
                bytes: engine.bytes(),
                file_bytes,
                writable,
            };
            (engine.revision(), status)
        })
        .await
    }

    /// Opens a stream of watches.
    pub(crate) async fn stream(&self) -> Result<WatchStream, StoreError> {
        self.read(move |_, hub, _| hub.open()).await
    }

    /// Adds a watch to a stream; whether it was accepted comes as a message.
    pub(crate) async fn watch(&self, stream: u64, request: WatchRequest) -> Result<(), StoreError> {
        self.read(move |engine, hub, now| {
            hub.create(stream, request, engine.history(), engine.revision(), now)
        })
        .await?
    }

    /// Ends a watch.
    pub(crate) async fn cancel(&self, stream: u64, watch_id: i64) -> Result<(), StoreError> {
        self.read(move |engine, hub, _| hub.cancel(stream, watch_id, engine.revision()))
            .await
    }

    /// Asks for a message that says where the store is.
    pub(crate) async fn progress(&self, stream: u64) -> Result<(), StoreError> {
        self.read(move |engine, hub, _| hub.progress(stream, engine.revision()))
            .await
    }

    /// The changes under a prefix from a revision on. The first message is `Created`.
    #[cfg(test)]
    pub(crate) async fn follow(&self, prefix: &[u8], from: i64) -> Result<WatchStream, StoreError> {
        let stream = self.stream().await?;
        self.watch(
            stream.id,
            WatchRequest::new(model::KeyRange::prefix(prefix), from),
        )
        .await?;
        Ok(stream)
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Engine, &mut Hub, Instant) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Read(Box::new(move |engine, hub, now| {
            let _ = reply.send(read(engine, hub, now));
        }));
        self.ask(command, answer).await
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Engine, Instant) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Write(Box::new(move |engine, now| {
            let result = write(engine, now);
            Box::new(move |saved: Result<(), StoreError>| {
                let _ = reply.send(result.and_then(|value| saved.map(|()| value)));
            })
        }));
        self.ask(command, answer).await?
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, StoreError> {
        let asked = async {
            self.commands
                .send(command)
                .await
                .map_err(|_| StoreError::Closed)?;
            answer.await.map_err(|_| StoreError::Closed)
        };
        // A write that comes too late is still made: as with etcd, "timed out" leaves it open.
        tokio::time::timeout(REQUEST_TIMEOUT, asked)
            .await
            .unwrap_or(Err(StoreError::Timeout))
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
