//! The v2 keys API as a [`Backend`]: one list instead of pages, one request for each change instead of a stream, indexes for revisions, and
//! the time that is left of a key for its lease.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use super::{V2Client, V2Node, V2Reply, V2Waited, Waiting};
use crate::etcd::api::{
    Backend, Error, Event, Header, KeyRange, KeyValue, Lease, ListRequest, Page, WatchMessage,
    WatchRequest, Watching,
};
use crate::etcd::client::PROBE_TIMEOUT;

/// Between two complete lists: a key whose time is only renewed makes no event, and its time left is seen in lists alone.
const RELIST_EVERY: Duration = Duration::from_secs(120);

/// A cluster's v2 store, to be followed.
pub(in crate::etcd) struct V2Backend(pub(in crate::etcd) V2Client);

impl V2Backend {
    async fn page(&self, request: ListRequest) -> Result<Page, Error> {
        let key = key_of(&request.range);
        let single = request.range.end.is_empty();
        let found = match (single, request.serializable) {
            (true, _) => self.0.get(&key).await?,
            (false, false) => self.0.list(&key).await?,
            (false, true) => self.0.list_unconfirmed(&key).await?,
        };
        let Some(reply) = found else {
            // Where the store stands is said with the error too, but not which cluster it is.
            return self.nothing().await;
        };
        let mut kvs: Vec<KeyValue> = match single {
            true => (!reply.node.dir)
                .then(|| key_value(&reply.node))
                .into_iter()
                .collect(),
            false => reply.values().map(key_value).collect(),
        };
        kvs.retain(|kv| is_in(&request.range, &kv.key));
        kvs.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(Page {
            header: header(&reply),
            count: kvs.len() as u64,
            kvs,
            more: false,
        })
    }

    /// The page of a prefix that does not exist: the root always does.
    async fn nothing(&self) -> Result<Page, Error> {
        let root = self.0.get("/").await?;
        Ok(Page {
            header: root.as_ref().map(header).unwrap_or_default(),
            ..Page::default()
        })
    }
}

impl Backend for V2Backend {
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(self.page(request))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watching>, Error>> {
        Box::pin(async move {
            let key = key_of(&request.range);
            let from = u64::try_from(request.start_revision).unwrap_or(0);
            let waiting = self.0.open_wait(&key, from).await?;
            let watch = V2Watch {
                client: self.0.clone(),
                key,
                range: request.range,
                from,
                state: State::Taken(waiting),
            };
            Ok(Box::new(watch) as Box<dyn Watching>)
        })
    }

    /// The number of a "lease" is the time in seconds that was left of its key when it was read.
    fn lease(&self, id: i64) -> BoxFuture<'_, Result<Option<Lease>, Error>> {
        Box::pin(async move {
            let left = Duration::from_secs(id.max(0) as u64);
            Ok(Some(Lease {
                id,
                granted: left,
                remaining: left,
            }))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Header, Error>> {
        Box::pin(async move {
            let at = self.0.members().current();
            let cluster_id = self.0.probe(at, PROBE_TIMEOUT).await?;
            Ok(Header {
                cluster_id,
                ..Header::default()
            })
        })
    }

    fn clusters(&self) -> BoxFuture<'_, Vec<u64>> {
        Box::pin(async move {
            let asked = (0..self.0.members().all().len()).map(|at| self.0.probe(at, PROBE_TIMEOUT));
            join_all(asked).await.into_iter().flatten().collect()
        })
    }

    fn leave(&self) {
        self.0.members().leave();
    }

    fn which(&self) -> String {
        self.0.which()
    }

    fn endpoints(&self) -> Vec<String> {
        self.0.members().all().to_vec()
    }

    /// Each change takes a request, and the history is short.
    fn looks_back(&self) -> i64 {
        0
    }

    fn relist_every(&self) -> Duration {
        RELIST_EVERY
    }
}

/// A watch: one request after another.
struct V2Watch {
    client: V2Client,
    key: String,
    range: KeyRange,
    from: u64,
    state: State,
}

enum State {
    /// The first request has been taken, which is to be said.
    Taken(Waiting),
    /// A request is under way. Kept here, so that nothing is lost when who waits for the message does not wait on.
    Asking(BoxFuture<'static, Result<V2Waited, Error>>),
    Over,
}

impl V2Watch {
    async fn message(&mut self) -> Result<WatchMessage, Error> {
        if let State::Taken(_) = self.state
            && let State::Taken(waiting) = std::mem::replace(&mut self.state, State::Over)
        {
            let index = waiting.index;
            self.state = State::Asking(Box::pin(waiting.change()));
            return Ok(WatchMessage {
                header: at_index(index),
                created: true,
                ..WatchMessage::default()
            });
        }
        let waited = match &mut self.state {
            State::Asking(asking) => asking.await,
            State::Taken(_) | State::Over => Err(Error::Unavailable {
                endpoint: self.client.which(),
                what: "ended the watch".into(),
            }),
        };
        self.state = State::Over;
        let message = match waited? {
            V2Waited::Nothing { index } => {
                self.from = self.from.max(index.saturating_add(1));
                WatchMessage {
                    header: at_index(index),
                    ..WatchMessage::default()
                }
            }
            V2Waited::Change(reply) => {
                self.from = self.from.max(reply.node.modified_index.saturating_add(1));
                WatchMessage {
                    header: header(&reply),
                    events: events(&reply, &self.range),
                    ..WatchMessage::default()
                }
            }
        };
        let (client, key, from) = (self.client.clone(), self.key.clone(), self.from);
        self.state = State::Asking(Box::pin(async move { client.wait(&key, from).await }));
        Ok(message)
    }
}

impl Watching for V2Watch {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchMessage, Error>> {
        Box::pin(self.message())
    }
}

/// What a change means key by key.
fn events(reply: &V2Reply, range: &KeyRange) -> Vec<Event> {
    let node = &reply.node;
    let revision = index(node.modified_index);
    let is_gone = matches!(&*reply.action, "delete" | "compareAndDelete" | "expire");
    let key = node.key.clone().into_bytes();
    let previous = reply.previous.as_ref();
    let mut events = Vec::new();
    if is_gone && (node.dir || previous.is_some_and(|node| node.dir)) {
        events.push(Event::DeleteTree { key, revision });
    } else if is_gone {
        events.push(Event::Delete { key, revision });
    } else if !node.dir {
        events.push(Event::Put(key_value(node)));
    } else if previous.is_some_and(|node| !node.dir) {
        // A directory in place of a key.
        events.push(Event::Delete { key, revision });
    }
    // The directory that is watched may itself go, and so may one above it.
    events.retain(|event| match event {
        Event::DeleteTree { .. } => true,
        Event::Put(kv) => is_in(range, &kv.key) && !is_hidden(range, &kv.key),
        Event::Delete { key, .. } => is_in(range, key),
    });
    events
}

/// Whether lists leave it out. A watch that catches up has such keys all the same, one that is up to date has not.
fn is_hidden(range: &KeyRange, key: &[u8]) -> bool {
    let below = key.strip_prefix(range.start.as_slice()).unwrap_or(key);
    below
        .split(|octet| *octet == b'/')
        .any(|segment| segment.starts_with(b"_"))
}

fn key_value(node: &V2Node) -> KeyValue {
    KeyValue {
        key: node.key.clone().into_bytes(),
        value: node.value.clone().into_bytes(),
        create_revision: index(node.created_index),
        mod_revision: index(node.modified_index),
        version: 0,
        // Without a leader a key outlives its time and says less than nothing: it may vanish at any moment.
        lease: node.ttl.map_or(0, |ttl| ttl.max(1)),
    }
}

fn index(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn header(reply: &V2Reply) -> Header {
    Header {
        cluster_id: reply.cluster_id,
        member_id: 0,
        revision: index(reply.index),
    }
}

fn at_index(at: u64) -> Header {
    Header {
        revision: index(at),
        ..Header::default()
    }
}

/// The directory or key that a range is: `/skydns` for all from `/skydns/` on.
fn key_of(range: &KeyRange) -> String {
    let text = String::from_utf8_lossy(&range.start);
    let key = text.trim_matches(|c| c == '/' || c == '\0');
    format!("/{key}")
}

fn is_in(range: &KeyRange, key: &[u8]) -> bool {
    match range.end.as_slice() {
        [] => key == range.start,
        [0] => key >= range.start.as_slice(),
        end => key >= range.start.as_slice() && key < end,
    }
}
