//! etcd's v3 JSON API over HTTP/1.1, for this machine only: what goes where, and the errors. Streams are in `streams.rs`, the socket in
//! `listener.rs`, the JSON in `json.rs`.
//!
//! The API has no password, so being local is its protection. Two things would undo it: a web page that posts to localhost from a
//! browser on this machine, and a name that is made to point here (DNS rebinding). Therefore a request with an `Origin` is refused, and
//! so is one whose `Host` is not this machine.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::{Method, Request, Response, StatusCode};

use super::json::{
    self, CompactBody, DeleteBody, DeleteView, ErrorView, GrantBody, Header, LeaseBody,
    LeaseDetail, LeaseId, LeaseList, LeaseTtl, Members, Plain, PutBody, PutView, RangeBody,
    RangeView, Status, Text, TxnBody, TxnView, read,
};
use super::model::{PutRequest, StoreError, TxnRequest};
use super::{Store, streams};

/// The version of etcd whose API this is.
pub(crate) const VERSION: &str = "3.4.0";
/// Octets of keys and values in a request; etcd's default. In JSON they are base64, a third longer.
const REQUEST_BYTES_MAX: usize = (1 << 20) + (1 << 19);
/// Octets of a request's body: as much in base64, and some for the JSON around it.
const BODY_BYTES_MAX: usize = REQUEST_BYTES_MAX / 3 * 4 + (64 << 10);
/// From the head of a request to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A reply's body: whole, or a stream of lines.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What serving needs. Cloned per connection.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    /// `http://ADDR:PORT`, for the list of members.
    pub(crate) url: String,
    /// Closed when the API ends: streams end then.
    pub(crate) stop: tokio::sync::watch::Receiver<()>,
}

impl Api {
    /// Answers one request.
    pub(crate) async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        if let Some(refusal) = foreign(&request) {
            return refusal;
        }
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/version" | "/health" if request.method() != Method::GET => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
                let get = HeaderValue::from_static("GET");
                response.headers_mut().insert(ALLOW, get);
                response
            }
            "/version" => json(
                StatusCode::OK,
                format!(r#"{{"etcdserver":"{VERSION}","etcdcluster":"{VERSION}"}}"#).into_bytes(),
            ),
            "/health" => self.health().await,
            _ => match path.strip_prefix("/v3/").or(path.strip_prefix("/v3beta/")) {
                Some(call) => self.call(call, request).await,
                None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            },
        }
    }

    async fn health(&self) -> Response<Body> {
        match self.store.status().await {
            Ok((_, status)) if status.writable => json(StatusCode::OK, r#"{"health":"true"}"#),
            _ => json(StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"false"}"#),
        }
    }

    async fn call(self, call: &str, request: Request<Incoming>) -> Response<Body> {
        let known = matches!(
            call,
            "kv/range"
                | "kv/put"
                | "kv/deleterange"
                | "kv/txn"
                | "kv/compaction"
                | "lease/grant"
                | "lease/revoke"
                | "kv/lease/revoke"
                | "lease/timetolive"
                | "kv/lease/timetolive"
                | "lease/leases"
                | "kv/lease/leases"
                | "maintenance/status"
                | "cluster/member/list"
                | "watch"
                | "lease/keepalive"
        );
        if !known {
            return text(StatusCode::NOT_FOUND, "Not Found\n");
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        }
        match call {
            "watch" => streams::watch(self, request.into_body()).await,
            "lease/keepalive" => streams::keep_alive(self, request.into_body()).await,
            _ => match self.unary(call, request.into_body()).await {
                Ok(reply) => json(StatusCode::OK, reply),
                Err(error) => refusal(&error),
            },
        }
    }

    async fn unary(&self, call: &str, body: Incoming) -> Result<Vec<u8>, StoreError> {
        let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect())
            .await
            .map_err(|_| StoreError::Malformed("the body did not come within 10s".into()))?
            .map_err(|error| match error.is::<LengthLimitError>() {
                true => StoreError::TooLarge,
                false => StoreError::Malformed(error.to_string()),
            })?
            .to_bytes();
        let store = &self.store;
        let header = |revision| Header::new(store.identity(), revision);
        Ok(match call {
            "kv/range" => {
                let reply = store.range(read::<RangeBody>(&body)?.into()).await?;
                json::write(&RangeView::new(header(reply.revision), &reply))
            }
            "kv/put" => {
                let request: PutRequest = read::<PutBody>(&body)?.into();
                small_enough(request.bytes())?;
                let reply = store.put(request).await?;
                json::write(&PutView::new(header(reply.revision), &reply))
            }
            "kv/deleterange" => {
                let reply = store.delete(read::<DeleteBody>(&body)?.into()).await?;
                json::write(&DeleteView::new(header(reply.revision), &reply))
            }
            "kv/txn" => {
                let request: TxnRequest = read::<TxnBody>(&body)?.try_into()?;
                small_enough(request.bytes())?;
                let reply = store.txn(request).await?;
                json::write(&TxnView::new(header(reply.revision), &reply))
            }
            "kv/compaction" => {
                let request: CompactBody = read(&body)?;
                let revision = store.compact(request.revision.0).await?;
                json::write(&Plain {
                    header: header(revision),
                })
            }
            "lease/grant" => {
                let request: GrantBody = read(&body)?;
                let (revision, (id, ttl)) = store.grant(request.id.0, request.ttl.0).await?;
                json::write(&LeaseTtl {
                    header: header(revision),
                    id: Text(id),
                    ttl: Text(ttl),
                })
            }
            "lease/revoke" | "kv/lease/revoke" => {
                let request: LeaseBody = read(&body)?;
                let revision = store.revoke(request.id.0).await?;
                json::write(&Plain {
                    header: header(revision),
                })
            }
            "lease/timetolive" | "kv/lease/timetolive" => {
                let request: LeaseBody = read(&body)?;
                let (revision, view) = store.time_to_live(request.id.0, request.keys).await?;
                json::write(&LeaseDetail::new(header(revision), &view))
            }
            "lease/leases" | "kv/lease/leases" => {
                let (revision, ids) = store.leases().await?;
                let leases = ids.into_iter().map(|id| LeaseId { id: Text(id) }).collect();
                json::write(&LeaseList {
                    header: header(revision),
                    leases,
                })
            }
            "maintenance/status" => {
                let (revision, status) = store.status().await?;
                json::write(&Status::new(
                    store.identity(),
                    revision,
                    status.file_bytes,
                    status.bytes as u64,
                ))
            }
            // `cluster/member/list`, the last of the known ones.
            _ => json::write(&Members::new(store.identity(), self.url.clone())),
        })
    }
}

fn small_enough(bytes: usize) -> Result<(), StoreError> {
    match bytes > REQUEST_BYTES_MAX {
        true => Err(StoreError::TooLarge),
        false => Ok(()),
    }
}

/// Refuses what comes from a browser or by a name that is not this machine's.
fn foreign(request: &Request<Incoming>) -> Option<Response<Body>> {
    if request.headers().contains_key(ORIGIN) {
        return Some(text(
            StatusCode::FORBIDDEN,
            "requests from web pages are refused: this API is for programs on this machine\n",
        ));
    }
    let host = request.headers().get(HOST)?;
    match host.to_str().is_ok_and(is_this_machine) {
        true => None,
        false => Some(text(
            StatusCode::MISDIRECTED_REQUEST,
            "this API is for this machine: call it as 127.0.0.1, [::1] or localhost\n",
        )),
    }
}

/// `localhost` or a loopback address, with or without a port.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

//--- Replies ---------------------------------------------------------------------------------------

/// An error as etcd's gateway words it.
pub(crate) fn refusal(error: &StoreError) -> Response<Body> {
    refusal_with(error, error.code(), error.http_status())
}

/// An error before a stream began; etcd calls each of them "unknown".
pub(crate) fn stream_refusal(error: &StoreError) -> Response<Body> {
    refusal_with(error, 2, 500)
}

fn refusal_with(error: &StoreError, code: u16, status: u16) -> Response<Body> {
    let message = error.to_string();
    let body = json::write(&ErrorView {
        error: &message,
        message: &message,
        code,
    });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, body)
}

/// A JSON reply.
fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    reply(status, "application/json", whole(body))
}

/// A reply of lines.
pub(crate) fn stream(body: Body) -> Response<Body> {
    reply(StatusCode::OK, "application/json", body)
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    reply(status, "text/plain; charset=utf-8", whole(body))
}

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed_unsync()
}

fn reply(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn only_this_machine_may_be_called() {
        for host in [
            "localhost",
            "LOCALHOST:2379",
            "127.0.0.1:2379",
            "127.8.0.1",
            "[::1]:2379",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example.org",
            "localhost.evil.example.org:2379",
            "127.0.0.1.evil.example.org",
            "192.0.2.1:2379",
            "[2001:db8::1]:2379",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
