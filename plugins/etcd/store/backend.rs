//! The embedded store as the etcd plugin follows it: the same calls as a cluster's, without a network between.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Store;
use super::embedded::Embedded;
use super::model::{EventKind, KeyValue, RangeRequest, StoreError};
use super::watch::{self, WatchStream, What};
use crate::etcd::api::{self, Backend, Error, Event, Header, Lease, Page, WatchMessage, Watching};

impl Backend for Embedded {
    fn list(&self, request: api::ListRequest) -> BoxFuture<'_, Result<Page, Error>> {
        async move {
            let store = self.opened()?;
            let revision = request.revision;
            let request = RangeRequest {
                limit: i64::from(request.limit),
                revision,
                keys_only: request.keys_only,
                count_only: request.count_only,
                ..RangeRequest::all(request.range.into())
            };
            let keys_only = request.keys_only;
            let reply = store
                .range(request)
                .await
                .map_err(|error| self.error(error, revision))?;
            Ok(Page {
                header: header(store, reply.revision),
                kvs: reply
                    .kvs
                    .iter()
                    .map(|kv| key_value(kv, keys_only))
                    .collect(),
                more: reply.more,
                count: u64::try_from(reply.count).unwrap_or(0),
            })
        }
        .boxed()
    }

    fn watch(&self, request: api::WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watching>, Error>> {
        async move {
            let store = self.opened()?;
            let start = request.start_revision;
            let followed = async {
                let stream = store.stream().await?;
                let request = watch::WatchRequest {
                    progress_notify: true,
                    no_put: request.deletes_only,
                    ..watch::WatchRequest::new(request.range.into(), start)
                };
                store.watch(stream.id, request).await?;
                Ok(stream)
            };
            let stream = followed.await.map_err(|error| self.error(error, start))?;
            Ok(Box::new(Following {
                which: self.which(),
                store: store.clone(),
                stream,
            }) as Box<dyn Watching>)
        }
        .boxed()
    }

    fn lease(&self, id: i64) -> BoxFuture<'_, Result<Option<Lease>, Error>> {
        async move {
            let (_, view) = self
                .opened()?
                .time_to_live(id, false)
                .await
                .map_err(|error| self.error(error, 0))?;
            let seconds = |n: i64| Duration::from_secs(u64::try_from(n).unwrap_or(0));
            Ok((view.granted > 0).then(|| Lease {
                id,
                granted: seconds(view.granted),
                remaining: seconds(view.ttl),
            }))
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<Header, Error>> {
        async move {
            let store = self.opened()?;
            let (revision, _) = store.status().await.map_err(|error| self.error(error, 0))?;
            Ok(header(store, revision))
        }
        .boxed()
    }

    fn clusters(&self) -> BoxFuture<'_, Vec<u64>> {
        let cluster = self.store().map(|store| store.identity().cluster);
        std::future::ready(cluster.into_iter().collect()).boxed()
    }

    fn leave(&self) {
        // There is no other.
    }

    fn which(&self) -> String {
        format!("embedded {}", self.directory().display())
    }

    fn endpoints(&self) -> Vec<String> {
        vec![self.which()]
    }
}

impl Embedded {
    fn opened(&self) -> Result<&Store, Error> {
        self.store().ok_or_else(|| Error::Unavailable {
            endpoint: self.which(),
            what: "the store is not open".into(),
        })
    }

    fn error(&self, error: StoreError, revision: i64) -> Error {
        match error {
            StoreError::Compacted => Error::Compacted { revision: 0 },
            StoreError::FutureRevision if revision > 0 => Error::Future {
                endpoint: self.which(),
            },
            StoreError::LeaseNotFound => Error::NoSuchLease,
            StoreError::Timeout | StoreError::Closed | StoreError::Disk(_) => Error::Unavailable {
                endpoint: self.which(),
                what: error.to_string(),
            },
            error => Error::Refused {
                endpoint: self.which(),
                status: error.http_status(),
                code: i32::from(error.code()),
                what: error.to_string(),
            },
        }
    }
}

/// A watch of the store.
struct Following {
    which: String,
    store: Store,
    stream: WatchStream,
}

impl Watching for Following {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchMessage, Error>> {
        async move {
            let Some(message) = self.stream.next().await else {
                return Err(Error::Unavailable {
                    endpoint: self.which.clone(),
                    what: "the watch fell behind or the store closed".into(),
                });
            };
            let mut told = WatchMessage {
                header: header(&self.store, message.revision),
                ..WatchMessage::default()
            };
            match message.what {
                What::Created => told.created = true,
                What::Progress => {}
                What::Events(events) => {
                    told.events = events
                        .iter()
                        .map(|event| match event.kind {
                            EventKind::Put => Event::Put(key_value(&event.kv, false)),
                            EventKind::Delete => Event::Delete {
                                key: event.kv.key.to_vec(),
                                revision: event.kv.mod_revision,
                            },
                        })
                        .collect();
                }
                What::Canceled => told.canceled = Some(api::Canceled::default()),
                What::Compacted(revision) => {
                    told.canceled = Some(api::Canceled {
                        compact_revision: revision,
                        reason: String::new(),
                    });
                }
                What::Refused(reason) => {
                    told.canceled = Some(api::Canceled {
                        compact_revision: 0,
                        reason: reason.into(),
                    });
                }
            }
            Ok(told)
        }
        .boxed()
    }
}

impl From<api::KeyRange> for super::model::KeyRange {
    fn from(range: api::KeyRange) -> super::model::KeyRange {
        super::model::KeyRange::new(range.start, range.end)
    }
}

fn header(store: &Store, revision: i64) -> Header {
    let identity = store.identity();
    Header {
        cluster_id: identity.cluster,
        member_id: identity.member,
        revision,
    }
}

fn key_value(kv: &Arc<KeyValue>, key_only: bool) -> api::KeyValue {
    api::KeyValue {
        key: kv.key.to_vec(),
        value: if key_only {
            Vec::new()
        } else {
            kv.value.to_vec()
        },
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}
