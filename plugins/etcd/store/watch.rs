//! Who is told what: streams with their watches, and the queue between the store and each stream.
//!
//! The keeper's thread owns the [`Hub`]; a [`WatchStream`] is the other end. A stream that does not read is not waited for:
//! when its queue is full it is let go, and its reader sees the end and lists again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::history::History;
use super::model::{Event, EventKind, KeyRange, KeyValue, StoreError};

/// Watches of all streams together: every change is matched against each.
const WATCHES_MAX: usize = 1_024;
/// Messages waiting for a stream.
const QUEUE_MAX: usize = 1_024;
/// Octets of values waiting for a stream; a first message of everything since `start_revision` may be larger, the history bounds it.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// How long a watch with `progress_notify` stays quiet; etcd's default.
const PROGRESS_EVERY: Duration = Duration::from_secs(600);

/// What a watch is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchRequest {
    pub(crate) range: KeyRange,
    /// 0 is from now on.
    pub(crate) start_revision: i64,
    pub(crate) prev_kv: bool,
    pub(crate) progress_notify: bool,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
    /// 0 is to be chosen.
    pub(crate) watch_id: i64,
}

/// Something for the reader of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) watch_id: i64,
    /// The store's revision when it was sent; 0 where etcd sends none.
    pub(crate) revision: i64,
    pub(crate) what: What,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Created,
    Events(Vec<WatchEvent>),
    Progress,
    Canceled,
    /// The start lies before everything that is known; the first revision that can be watched from.
    Compacted(i64),
    Refused(&'static str),
}

/// A change as one watch sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchEvent {
    pub(crate) kind: EventKind,
    pub(crate) kv: Arc<KeyValue>,
    /// Only if it was asked for.
    pub(crate) prev: Option<Arc<KeyValue>>,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct WatchStream {
    /// For requests about this stream.
    pub(crate) id: u64,
    messages: mpsc::Receiver<Message>,
    waiting: Arc<AtomicUsize>,
}

impl WatchStream {
    /// The next message; `None` when the store has let this stream go or has ended.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let message = self.messages.recv().await?;
        self.waiting.fetch_sub(weight(&message), Ordering::Relaxed);
        Some(message)
    }
}

/// Every stream.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
}

#[derive(Debug)]
struct Stream {
    messages: mpsc::Sender<Message>,
    waiting: Arc<AtomicUsize>,
    watches: BTreeMap<i64, Watch>,
    next_watch: i64,
}

#[derive(Debug)]
struct Watch {
    request: WatchRequest,
    /// Changes before it are not told.
    from: i64,
    last_told: Instant,
}

impl Hub {
    /// Opens a stream.
    pub(crate) fn open(&mut self) -> WatchStream {
        let (sender, messages) = mpsc::channel(QUEUE_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let id = self.next_stream;
        self.next_stream += 1;
        let stream = Stream {
            messages: sender,
            waiting: Arc::clone(&waiting),
            watches: BTreeMap::new(),
            next_watch: 0,
        };
        self.streams.insert(id, stream);
        WatchStream {
            id,
            messages,
            waiting,
        }
    }

    /// Adds a watch to a stream and tells it what it missed.
    pub(crate) fn create(
        &mut self,
        stream: u64,
        request: WatchRequest,
        history: &History,
        revision: i64,
        now: Instant,
    ) -> Result<(), StoreError> {
        self.drop_closed();
        let watches: usize = self
            .streams
            .values()
            .map(|stream| stream.watches.len())
            .sum();
        let stream = self.streams.get_mut(&stream).ok_or(StoreError::Closed)?;
        let told = stream.create(request, watches, history, revision, now);
        self.drop_closed();
        match told {
            true => Ok(()),
            false => Err(StoreError::Closed),
        }
    }

    /// Ends a watch; one that is not there is no error, as in etcd.
    pub(crate) fn cancel(&mut self, stream: u64, watch_id: i64, revision: i64) {
        if let Some(stream) = self.streams.get_mut(&stream)
            && stream.watches.remove(&watch_id).is_some()
        {
            stream.tell(watch_id, revision, What::Canceled);
        }
    }

    /// Says where the store is.
    pub(crate) fn progress(&mut self, stream: u64, revision: i64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.tell(-1, revision, What::Progress);
        }
    }

    /// Tells everybody about a revision.
    pub(crate) fn publish(&mut self, revision: i64, events: &[Arc<Event>], now: Instant) {
        self.streams.retain(|_, stream| {
            let mut told = Vec::new();
            for (id, watch) in &mut stream.watches {
                if revision < watch.from {
                    continue;
                }
                let seen = watch.request.seen(events);
                if !seen.is_empty() {
                    watch.last_told = now;
                    told.push((*id, seen));
                }
            }
            told.into_iter()
                .all(|(id, seen)| stream.tell(id, revision, What::Events(seen)))
                && !stream.messages.is_closed()
        });
    }

    /// Tells quiet watches that asked for it where the store is.
    pub(crate) fn tick(&mut self, revision: i64, now: Instant) {
        self.streams.retain(|_, stream| {
            let mut quiet = Vec::new();
            for (id, watch) in &mut stream.watches {
                if watch.request.progress_notify && now >= watch.last_told + PROGRESS_EVERY {
                    watch.last_told = now;
                    quiet.push(*id);
                }
            }
            quiet
                .into_iter()
                .all(|id| stream.tell(id, revision, What::Progress))
                && !stream.messages.is_closed()
        });
    }

    /// When [`Hub::tick`] has something to do.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.streams
            .values()
            .flat_map(|stream| stream.watches.values())
            .filter(|watch| watch.request.progress_notify)
            .map(|watch| watch.last_told + PROGRESS_EVERY)
            .min()
    }

    fn drop_closed(&mut self) {
        self.streams
            .retain(|_, stream| !stream.messages.is_closed());
    }
}

impl Stream {
    /// False when the reader is too far behind or gone.
    fn create(
        &mut self,
        request: WatchRequest,
        watches: usize,
        history: &History,
        revision: i64,
        now: Instant,
    ) -> bool {
        if request.range.is_empty() {
            return self.tell(-1, revision, What::Refused("mvcc: watcher range is empty"));
        }
        if watches >= WATCHES_MAX {
            return self.tell(
                -1,
                revision,
                What::Refused("etcdserver: too many watches (1024 at most)"),
            );
        }
        let id = match request.watch_id {
            0 => self.free_id(),
            id if self.watches.contains_key(&id) => {
                return self.tell(
                    -1,
                    revision,
                    What::Refused("mvcc: duplicate watch ID provided on the WatchStream"),
                );
            }
            id => id,
        };
        let start = request.start_revision;
        if !self.tell(id, revision, What::Created) {
            return false;
        }
        if start < 0 || (start > 0 && start <= revision && start < history.first()) {
            return self.tell(id, 0, What::Compacted(history.first()));
        }
        if start > 0 {
            let missed: Vec<WatchEvent> = history
                .since(start)
                .flat_map(|revision| request.seen(&revision.events))
                .collect();
            if !missed.is_empty() && !self.tell(id, revision, What::Events(missed)) {
                return false;
            }
        }
        self.watches.insert(
            id,
            Watch {
                from: start.max(revision + 1),
                request,
                last_told: now,
            },
        );
        true
    }

    fn free_id(&mut self) -> i64 {
        loop {
            let id = self.next_watch;
            self.next_watch += 1;
            if !self.watches.contains_key(&id) {
                return id;
            }
        }
    }

    fn tell(&mut self, watch_id: i64, revision: i64, what: What) -> bool {
        let message = Message {
            watch_id,
            revision,
            what,
        };
        let weight = weight(&message);
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting > 0 && waiting + weight > QUEUE_BYTES_MAX {
            return false;
        }
        self.waiting.fetch_add(weight, Ordering::Relaxed);
        self.messages.try_send(message).is_ok()
    }
}

impl WatchRequest {
    /// Everything under a range from a revision on.
    pub(crate) fn new(range: KeyRange, start_revision: i64) -> WatchRequest {
        WatchRequest {
            range,
            start_revision,
            prev_kv: false,
            progress_notify: false,
            no_put: false,
            no_delete: false,
            watch_id: 0,
        }
    }

    /// What it is told of one revision.
    fn seen(&self, events: &[Arc<Event>]) -> Vec<WatchEvent> {
        events
            .iter()
            .filter(|event| match event.kind {
                EventKind::Put => !self.no_put,
                EventKind::Delete => !self.no_delete,
            })
            .filter(|event| self.range.contains(&event.kv.key))
            .map(|event| WatchEvent {
                kind: event.kind,
                kv: Arc::clone(&event.kv),
                prev: match self.prev_kv {
                    true => before(event, events),
                    false => None,
                },
            })
            .collect()
    }
}

/// The key as it was before the revision, as in etcd: not as the same transaction left it shortly before.
fn before(event: &Event, events: &[Arc<Event>]) -> Option<Arc<KeyValue>> {
    match &event.prev {
        Some(prev) if prev.mod_revision == event.kv.mod_revision => events
            .iter()
            .find(|first| first.kv.key == event.kv.key)
            .and_then(|first| first.prev.clone()),
        prev => prev.clone(),
    }
}

fn weight(message: &Message) -> usize {
    match &message.what {
        What::Events(events) => events.iter().map(WatchEvent::weight).sum(),
        _ => 0,
    }
}

impl WatchEvent {
    /// Octets that it keeps alive.
    pub(crate) fn weight(&self) -> usize {
        self.kv.weight() + self.prev.as_ref().map_or(0, |prev| prev.weight())
    }
}
