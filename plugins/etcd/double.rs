//! The test kit's store as a [`Backend`].

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::api::{
    Backend, Error, Event, Header, KeyRange, KeyValue, Lease, ListRequest, Page, WatchMessage,
    WatchRequest, Watching,
};
use crate::kit::testing::ScriptedStore;
use crate::kit::testing::store::{State, StoredKey};

const NAME: &str = "scripted";

fn away() -> Error {
    Error::Unreachable {
        endpoint: NAME.into(),
        what: "connection refused".into(),
    }
}

fn header(state: &State) -> Header {
    Header {
        cluster_id: state.cluster,
        member_id: 1,
        revision: state.revision,
    }
}

fn key_value(key: &[u8], stored: &StoredKey) -> KeyValue {
    KeyValue {
        key: key.to_vec(),
        value: stored.value.clone(),
        create_revision: stored.revision,
        mod_revision: stored.revision,
        version: 1,
        lease: stored.lease,
    }
}

fn is_in(range: &KeyRange, key: &[u8]) -> bool {
    match range.end.as_slice() {
        [] => key == range.start,
        [0] => key >= range.start.as_slice(),
        end => key >= range.start.as_slice() && key < end,
    }
}

/// The store, to be followed.
pub(super) struct Scripted(pub(super) Arc<ScriptedStore>);

impl Backend for Scripted {
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move {
            let mut state = self.0.state();
            if state.away {
                return Err(away());
            }
            if request.revision != 0 && request.revision < state.compacted {
                return Err(Error::Compacted {
                    revision: state.compacted,
                });
            }
            if !request.keys_only {
                state.lists += 1;
            }
            // Always as of now: what has changed since the list's revision must not matter to who follows.
            let found = state
                .keys
                .iter()
                .filter(|(key, _)| is_in(&request.range, key));
            let limit = match request.limit {
                0 => usize::MAX,
                limit => limit as usize,
            };
            let count = found.clone().count();
            Ok(Page {
                header: header(&state),
                kvs: found
                    .take(limit)
                    .map(|(key, stored)| key_value(key, stored))
                    .collect(),
                more: count > limit,
                count: count as u64,
            })
        })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watching>, Error>> {
        Box::pin(async move {
            let state = self.0.state();
            if state.away {
                return Err(away());
            }
            if request.start_revision < state.compacted {
                return Err(Error::Compacted {
                    revision: state.compacted,
                });
            }
            let watch = ScriptedWatch {
                store: Arc::clone(&self.0),
                range: request.range,
                next: request.start_revision,
                cuts: state.cuts,
                created: false,
            };
            Ok(Box::new(watch) as Box<dyn Watching>)
        })
    }

    fn lease(&self, id: i64) -> BoxFuture<'_, Result<Option<Lease>, Error>> {
        Box::pin(async move {
            let state = self.0.state();
            if state.away {
                return Err(away());
            }
            Ok(state.leases.get(&id).map(|(granted, end)| Lease {
                id,
                granted: *granted,
                remaining: end.saturating_duration_since(crate::kit::clock::now()),
            }))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Header, Error>> {
        Box::pin(async move {
            let state = self.0.state();
            match state.away {
                true => Err(away()),
                false => Ok(header(&state)),
            }
        })
    }

    fn clusters(&self) -> BoxFuture<'_, Vec<u64>> {
        Box::pin(async move { vec![self.0.state().cluster] })
    }

    fn leave(&self) {}

    fn which(&self) -> String {
        NAME.into()
    }

    fn endpoints(&self) -> Vec<String> {
        vec![NAME.into()]
    }
}

struct ScriptedWatch {
    store: Arc<ScriptedStore>,
    range: KeyRange,
    next: i64,
    cuts: u64,
    created: bool,
}

impl ScriptedWatch {
    /// What has happened since the last message; `None`: nothing.
    fn message(&mut self) -> Option<Result<WatchMessage, Error>> {
        let state = self.store.state();
        if state.away || state.cuts != self.cuts {
            return Some(Err(away()));
        }
        let header = header(&state);
        if !std::mem::replace(&mut self.created, true) {
            return Some(Ok(WatchMessage {
                header,
                created: true,
                ..WatchMessage::default()
            }));
        }
        let news = state.history.iter();
        let news =
            news.filter(|change| change.revision >= self.next && is_in(&self.range, &change.key));
        let events: Vec<Event> = news
            .map(|change| match &change.now {
                Some(stored) => Event::Put(key_value(&change.key, stored)),
                None => Event::Delete {
                    key: change.key.clone(),
                    revision: change.revision,
                },
            })
            .collect();
        self.next = self.next.max(state.revision + 1);
        (!events.is_empty()).then(|| {
            Ok(WatchMessage {
                header,
                events,
                ..WatchMessage::default()
            })
        })
    }
}

impl Watching for ScriptedWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchMessage, Error>> {
        Box::pin(async move {
            loop {
                if let Some(message) = self.message() {
                    return message;
                }
                let store = Arc::clone(&self.store);
                store.changed().await;
            }
        })
    }
}
