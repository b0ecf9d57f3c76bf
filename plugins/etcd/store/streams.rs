//! The two calls whose body is a stream: watch and keepalive. Requests are JSON objects, one after the other, in a body that may stay
//! open; replies are lines.
//!
//! A stream is driven by its reader: no more is made than is taken, and what waits meanwhile is bounded by the store's queue.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::{Frame, Incoming};
use serde::de::DeserializeOwned;

use super::Store;
use super::api::{self, Api, Body};
use super::json::{self, Header, LeaseBody, LeaseTtl, Line, StreamError, Text, WatchBody};
use super::model::StoreError;
use super::watch::{WatchRequest, WatchStream, What};

/// Octets of one request of a stream: a key of 16 KiB and its end, with much room.
const OBJECT_BYTES_MAX: usize = 64 << 10;

/// The requests of a body, read as they come.
struct Requests {
    body: Incoming,
    buffer: Vec<u8>,
    ended: bool,
}

impl Requests {
    fn new(body: Incoming) -> Requests {
        Requests {
            body,
            buffer: Vec::new(),
            ended: false,
        }
    }

    /// The next object; `None` at the end. Cancel-safe: what was read stays in the buffer. After an error it is at its end.
    async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        loop {
            if let Some(object) = self.take().inspect_err(|_| self.ended = true)? {
                return Ok(Some(object));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if self.buffer.len() + data.len() > OBJECT_BYTES_MAX {
                        self.ended = true;
                        self.buffer.clear();
                        return Err(StoreError::TooLarge);
                    }
                    self.buffer.extend_from_slice(&data);
                }
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }

    /// An object that is whole.
    fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let mut objects = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<T>();
        match objects.next() {
            Some(Ok(object)) => {
                let read = objects.byte_offset();
                self.buffer.drain(..read);
                Ok(Some(object))
            }
            Some(Err(error)) if error.is_eof() && !self.ended => Ok(None),
            Some(Err(error)) => {
                self.buffer.clear();
                Err(StoreError::Malformed(error.to_string()))
            }
            None => {
                self.buffer.clear();
                Ok(None)
            }
        }
    }
}

/// What makes the lines of a stream.
trait Lines: Send + 'static {
    /// The next line; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Vec<u8>>> + Send;
}

/// Lines as a reply.
fn reply(lines: impl Lines) -> Response<Body> {
    let frames = stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((Ok(Frame::data(Bytes::from(line))), lines))
    });
    api::stream(StreamBody::new(frames).boxed_unsync())
}

//--- Keepalive -------------------------------------------------------------------------------------

/// Renews a lease per object, and says for how long; a lease that is gone has no `TTL`.
pub(crate) async fn keep_alive(api: Api, body: Incoming) -> Response<Body> {
    let mut requests = Requests::new(body);
    // What is wrong with the first object can still be said with a status.
    let first = match requests.next::<LeaseBody>().await {
        Ok(first) => first,
        Err(error) => return api::stream_refusal(&error),
    };
    reply(KeepAlive {
        api,
        requests,
        first,
    })
}

struct KeepAlive {
    api: Api,
    requests: Requests,
    first: Option<LeaseBody>,
}

impl Lines for KeepAlive {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let request = match self.first.take() {
            Some(first) => first,
            None => tokio::select! {
                request = self.requests.next::<LeaseBody>() => request.ok().flatten()?,
                _ = self.api.stop.changed() => return None,
            },
        };
        let store = &self.api.store;
        Some(match store.keep_alive(request.id.0).await {
            Ok((revision, ttl)) => json::line(&Line::Result(LeaseTtl {
                header: Header::new(store.identity(), revision),
                id: Text(request.id.0),
                ttl: Text(ttl.unwrap_or(0)),
            })),
            Err(error) => {
                self.requests.ended = true;
                self.requests.buffer.clear();
                failed(&error)
            }
        })
    }
}

/// The line that ends a stream.
fn failed(error: &StoreError) -> Vec<u8> {
    json::line(&Line::<()>::Error(StreamError {
        grpc_code: error.code(),
        http_code: error.http_status(),
        message: error.to_string(),
        http_status: match error.http_status() {
            503 => "Service Unavailable",
            429 => "Too Many Requests",
            _ => "Internal Server Error",
        },
    }))
}

//--- Watch -----------------------------------------------------------------------------------------

/// Watches, as many as the body asks for, until the client leaves.
pub(crate) async fn watch(api: Api, body: Incoming) -> Response<Body> {
    let mut requests = Requests::new(body);
    let first = match requests.next::<WatchBody>().await {
        Ok(first) => first,
        Err(error) => return api::stream_refusal(&error),
    };
    let stream = match api.store.stream().await {
        Ok(stream) => stream,
        Err(error) => return api::refusal(&error),
    };
    let mut watching = Watching {
        api,
        requests,
        stream,
        created: false,
        asked: VecDeque::new(),
        fragment: HashMap::new(),
        lines: VecDeque::new(),
        over: false,
    };
    if let Some(first) = first
        && let Err(error) = watching.take(first).await
    {
        return api::refusal(&error);
    }
    reply(watching)
}

struct Watching {
    api: Api,
    requests: Requests,
    stream: WatchStream,
    /// Something was asked for, so the stream stays open when its body has ended.
    created: bool,
    /// Whether the watches under way to the store want fragments, in order.
    asked: VecDeque<bool>,
    /// Whether those that exist do, by id.
    fragment: HashMap<i64, bool>,
    lines: VecDeque<Vec<u8>>,
    over: bool,
}

impl Lines for Watching {
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.over || (self.requests.ended && !self.created) {
                return None;
            }
            tokio::select! {
                biased;
                _ = self.api.stop.changed() => self.end(&StoreError::Closed),
                message = self.stream.next() => match message {
                    Some(message) => self.write(&message),
                    None => self.end(&StoreError::Limit(
                        "etcdserver: the watch was let go, since its reader was too slow; list again",
                    )),
                },
                request = self.requests.next::<WatchBody>(), if !self.requests.ended => {
                    // As in etcd what cannot be read ends the requests, not the watches.
                    if let Ok(Some(request)) = request
                        && let Err(error) = self.take(request).await
                    {
                        self.end(&error);
                    }
                }
            }
        }
    }
}

impl Watching {
    async fn take(&mut self, request: WatchBody) -> Result<(), StoreError> {
        let store: &Store = &self.api.store;
        if let Some(create) = request.create_request {
            self.created = true;
            self.asked.push_back(create.fragment);
            store
                .watch(self.stream.id, WatchRequest::from(&create))
                .await
        } else if let Some(cancel) = request.cancel_request {
            store.cancel(self.stream.id, cancel.watch_id.0).await
        } else if request.progress_request.is_some() {
            self.created = true;
            store.progress(self.stream.id).await
        } else {
            // An empty object asks for nothing.
            Ok(())
        }
    }

    fn write(&mut self, message: &super::watch::Message) {
        let id = message.watch_id;
        match &message.what {
            What::Created => {
                let fragment = self.asked.pop_front().unwrap_or_default();
                self.fragment.insert(id, fragment);
            }
            What::Refused(_) => drop(self.asked.pop_front()),
            What::Canceled | What::Compacted(_) => drop(self.fragment.remove(&id)),
            What::Events(_) | What::Progress => {}
        }
        let fragment = self.fragment.get(&id).copied().unwrap_or_default();
        let identity = self.api.store.identity();
        self.lines.extend(json::lines(identity, message, fragment));
    }

    fn end(&mut self, error: &StoreError) {
        self.over = true;
        self.lines.push_back(failed(error));
    }
}
