//! [`Client`]: etcd's v3 API over its JSON gateway. Plain HTTP/1.1 through reqwest, failing over between endpoints, tokens renewed.
//!
//! It knows nothing of DNS. Following a prefix is `follow.rs`; `skeindns service` uses it too.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use data_encoding::BASE64;
use futures_util::future::{BoxFuture, join_all};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::api::{
    Backend, Error, Header, KeyRange, KeyValue, Lease, ListRequest, Page, WatchMessage,
    WatchRequest, Watching,
};
use super::gateway::{
    Bytes, ErrorJson, HeaderJson, Number, RangeJson, StreamError, WatchLine, read,
};
use super::members::{Failure, Members, no_answer, reason, unsent};

/// For an ordinary call from the first octet to the last. etcd itself gives up after 7 s without a quorum.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// For a page of a list: a large prefix takes etcd seconds.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);
/// Octets of a reply that are read on another thread: from here on it takes longer than handing it over.
const READ_ASIDE_OCTETS: usize = 256 << 10;
/// For a probe of the member in use, which answers it from its own memory.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_millis(700);
/// Octets of a reply that are read: a page of 1,000 keys may have values of 48 KiB each.
const REPLY_OCTETS_MAX: usize = 64 << 20;
/// Octets of a line of a watch. One etcd request is 1.5 MiB by default, in base64 2 MiB.
const LINE_OCTETS_MAX: usize = 32 << 20;

/// How to reach a cluster.
#[derive(Clone, Default)]
pub struct Config {
    /// URLs, as [`parse_endpoint`] gives them.
    pub endpoints: Vec<String>,
    /// User and password.
    pub credentials: Option<Credentials>,
    /// For `https`.
    pub tls: TlsFiles,
}

/// A user of etcd. The password is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, …)", self.user)
    }
}

/// PEM files for TLS: none is the system's CAs and no client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// CA certificates that the servers' are checked against.
    pub ca: Option<PathBuf>,
    /// Our certificate chain and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Reads an endpoint: `http://HOST:PORT`, `https://HOST:PORT`, or `HOST:PORT` with the scheme given. The port is 2379 if none is written.
pub fn parse_endpoint(text: &str, scheme: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or((scheme, text));
    if !matches!(scheme, "http" | "https") {
        return Err(format!(
            "`{text}`: an endpoint starts with http:// or https://, not {scheme}://"
        ));
    }
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@', ' ', ',']) {
        return Err(format!(
            "`{text}` is not an endpoint; write http://HOST:PORT"
        ));
    }
    let name_end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    let url = match host.get(name_end..).and_then(|port| port.rfind(':')) {
        Some(_) => format!("{scheme}://{host}"),
        None => format!("{scheme}://{host}:2379"),
    };
    reqwest::Url::parse(&url)
        .map(|_| url)
        .map_err(|error| format!("`{text}` is not an endpoint: {error}"))
}

/// A client of a cluster. Cheap to clone; clones share endpoint in use, connections and token.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    members: Members,
    credentials: Option<Credentials>,
    token: Mutex<Token>,
    authenticating: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
enum Token {
    #[default]
    Wanted,
    Known(Arc<str>),
    // We have credentials, but the cluster has its authentication switched off.
    NotNeeded,
}

/// Whether a call may be made again at another endpoint when it is not known what became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Always,
    IfUnsent,
}

impl Client {
    /// A client; reads the TLS files. It connects when it is first used.
    pub fn new(config: &Config) -> Result<Client, String> {
        Ok(Client {
            inner: Arc::new(Inner {
                members: Members::new(config)?,
                credentials: config.credentials.clone(),
                token: Mutex::default(),
                authenticating: tokio::sync::Mutex::default(),
            }),
        })
    }

    //--- Keys ---------------------------------------------------------------------------------

    /// A page of keys.
    pub async fn range(&self, request: &ListRequest) -> Result<Page, Error> {
        let reply: RangeJson = self
            .call("kv/range", &range_body(request), Again::Always)
            .await?;
        Ok(reply.into())
    }

    /// All keys of a range at one revision, read in pages of 1,000.
    pub async fn list(&self, range: KeyRange) -> Result<Vec<KeyValue>, Error> {
        let mut all = Vec::new();
        let mut request = ListRequest {
            limit: 1000,
            ..ListRequest::new(range)
        };
        loop {
            let page = self.range(&request).await?;
            request.revision = page.header.revision.max(request.revision);
            let next = page.kvs.last().map(|kv| key_behind(&kv.key));
            all.extend(page.kvs);
            match next {
                Some(next) if page.more => request.range.start = next,
                _ => return Ok(all),
            }
        }
    }

    /// Writes a key, onto a lease unless it is 0.
    pub async fn put(&self, key: &[u8], value: &[u8], lease: i64) -> Result<Header, Error> {
        let body = put_body(key, value, lease);
        let reply: HeaderOnly = self.call("kv/put", &body, Again::Always).await?;
        Ok(reply.header.into())
    }

    /// Deletes keys and says how many.
    pub async fn delete_range(&self, range: &KeyRange) -> Result<u64, Error> {
        let reply: DeletedJson = self
            .call("kv/deleterange", &keys_body(range), Again::Always)
            .await?;
        Ok(reply.deleted.0.max(0) as u64)
    }

    /// Does one list of operations or the other, at one revision.
    pub async fn txn(
        &self,
        compare: &[Compare],
        success: &[Operation],
        failure: &[Operation],
    ) -> Result<TxnReply, Error> {
        let body = json!({
            "compare": compare.iter().map(Compare::body).collect::<Vec<_>>(),
            "success": success.iter().map(Operation::body).collect::<Vec<_>>(),
            "failure": failure.iter().map(Operation::body).collect::<Vec<_>>(),
        });
        let reply: TxnJson = self.call("kv/txn", &body, Again::IfUnsent).await?;
        Ok(reply.into())
    }

    //--- Leases -------------------------------------------------------------------------------

    /// Asks for a lease; the cluster may grant a longer one. `id` 0 lets it choose.
    pub async fn lease_grant(&self, ttl: Duration, id: i64) -> Result<Lease, Error> {
        let body = json!({"TTL": Number(ttl.as_secs() as i64), "ID": Number(id)});
        let reply: LeaseJson = self.call("lease/grant", &body, Again::IfUnsent).await?;
        let granted = seconds(reply.ttl);
        Ok(Lease {
            id: reply.id.0,
            granted,
            remaining: granted,
        })
    }

    /// Renews a lease and says for how long; `None`: it is gone (etcd says so by leaving the TTL out).
    pub async fn lease_keepalive(&self, id: i64) -> Result<Option<Duration>, Error> {
        let body = json!({"ID": Number(id)});
        let reply: StreamedJson<LeaseJson> =
            self.call("lease/keepalive", &body, Again::Always).await?;
        if let Some(error) = reply.error {
            return Err(self.stream_error(&self.which(), error));
        }
        let ttl = reply.result.unwrap_or_default().ttl;
        Ok((ttl.0 > 0).then(|| seconds(ttl)))
    }

    /// Ends a lease: its keys go with it.
    pub async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        let body = json!({"ID": Number(id)});
        let _: HeaderOnly = self.call("lease/revoke", &body, Again::Always).await?;
        Ok(())
    }

    /// What is left of a lease; `None` if it is gone.
    pub async fn lease_timetolive(&self, id: i64) -> Result<Option<Lease>, Error> {
        let body = json!({"ID": Number(id)});
        let reply: LeaseJson = match self.call("lease/timetolive", &body, Again::Always).await {
            Ok(reply) => reply,
            Err(Error::NoSuchLease) => return Ok(None),
            Err(error) => return Err(error),
        };
        // 3.4 says TTL -1 and grants nothing.
        Ok((reply.granted.0 > 0).then(|| Lease {
            id,
            granted: seconds(reply.granted),
            remaining: seconds(reply.ttl),
        }))
    }

    /// Opens a watch at the endpoint in use. It lasts as long as it is held, whatever the silence on it.
    pub async fn open_watch(&self, request: &WatchRequest) -> Result<Watch, Error> {
        let mut create = keys_body(&request.range);
        create["start_revision"] = json!(Number(request.start_revision));
        if request.deletes_only {
            create["filters"] = json!(["NOPUT"]);
        }
        create["progress_notify"] = json!(true);
        // Fragments are not asked for: etcd measures all events so far again for each one that it puts into a fragment, so that the deletion of
        // 60,000 keys at once takes it a minute and a half (3.4). A line that is longer than we read is followed by a complete list.
        let body = json!({"create_request": create});
        let at = self.current();
        let endpoint = self.endpoint(at);
        let open = async {
            let mut token = self.token(at).await?;
            for attempt in 0.. {
                match self.send(at, "watch", &body, token.clone()).await {
                    Err(Failure {
                        error: Error::Unauthenticated { .. },
                        ..
                    }) if attempt == 0 && self.inner.credentials.is_some() => {
                        self.forget(&token);
                        token = self.token(at).await?;
                    }
                    other => return other.map_err(|failure| failure.error),
                }
            }
            Err(no_answer(endpoint, REQUEST_TIMEOUT))
        };
        let response = timeout(REQUEST_TIMEOUT, open)
            .await
            .unwrap_or_else(|_| Err(no_answer(endpoint, REQUEST_TIMEOUT)))?;
        Ok(Watch {
            client: self.clone(),
            endpoint: endpoint.to_owned(),
            token: self.known_token(),
            response,
            buffer: Vec::new(),
            searched: 0,
        })
    }

    //--- The cluster --------------------------------------------------------------------------

    /// What the member in use says of itself.
    pub async fn status(&self) -> Result<Status, Error> {
        let reply: StatusJson = self
            .call("maintenance/status", &json!({}), Again::Always)
            .await?;
        Ok(Status {
            header: reply.header.into(),
            version: reply.version,
            db_size: reply.db_size.0.max(0) as u64,
            leader: reply.leader.0 as u64,
        })
    }

    /// The members.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let reply: MembersJson = self
            .call("cluster/member/list", &json!({}), Again::Always)
            .await?;
        let members = reply.members.into_iter().map(|member| Member {
            id: member.id.0 as u64,
            name: member.name,
            client_urls: member.client_urls,
        });
        Ok(members.collect())
    }

    /// The endpoint in use.
    pub fn which(&self) -> String {
        self.inner.members.which().to_owned()
    }

    //--- Calls --------------------------------------------------------------------------------

    fn current(&self) -> usize {
        self.inner.members.current()
    }

    fn endpoint(&self, at: usize) -> &str {
        self.inner.members.endpoint(at)
    }

    /// Makes a call at the endpoint in use, then at the others; the one that answers is in use from then on.
    async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: &Value,
        again: Again,
    ) -> Result<T, Error> {
        let members = &self.inner.members;
        let mut errors = Vec::new();
        for at in members.order() {
            let patience = match body.get("limit") {
                Some(_) => LIST_TIMEOUT,
                None => REQUEST_TIMEOUT,
            };
            match self.call_at(at, path, body, patience).await {
                Ok(reply) => {
                    members.succeeded(at);
                    return Ok(reply);
                }
                Err(Failure { error, sent })
                    if error.is_members_fault() && (!sent || again == Again::Always) =>
                {
                    members.failed(at);
                    errors.push(members.explain(at, error).await);
                }
                Err(Failure { error, .. }) => {
                    if error.is_members_fault() {
                        members.failed(at);
                    }
                    return Err(error);
                }
            }
        }
        match errors.len() {
            1 => Err(errors.remove(0)),
            _ => Err(Error::All(errors)),
        }
    }

    async fn call_at<T: DeserializeOwned + Send + 'static>(
        &self,
        at: usize,
        path: &str,
        body: &Value,
        patience: Duration,
    ) -> Result<T, Failure> {
        let endpoint = self.endpoint(at);
        let call = async {
            let token = self.token(at).await.map_err(unsent)?;
            let reply = match self.post(at, path, body, token.clone()).await {
                Err(Failure {
                    error: Error::Unauthenticated { .. },
                    ..
                }) if self.inner.credentials.is_some() => {
                    self.forget(&token);
                    let token = self.token(at).await.map_err(unsent)?;
                    self.post(at, path, body, token).await?
                }
                other => other?,
            };
            let read = match reply.len() {
                READ_ASIDE_OCTETS.. => tokio::task::spawn_blocking(move || read(&reply))
                    .await
                    .unwrap_or_else(|_| Err("could not be read".into())),
                _ => read(&reply),
            };
            read.map_err(|what| Failure {
                error: Error::Malformed {
                    endpoint: endpoint.to_owned(),
                    what,
                },
                sent: true,
            })
        };
        timeout(patience, call).await.unwrap_or_else(|_| {
            Err(Failure {
                error: no_answer(endpoint, patience),
                sent: true,
            })
        })
    }

    /// Posts and reads the whole reply.
    async fn post(
        &self,
        at: usize,
        path: &str,
        body: &Value,
        token: Option<Arc<str>>,
    ) -> Result<Vec<u8>, Failure> {
        let response = self.send(at, path, body, token).await?;
        self.inner
            .members
            .body(at, response, REPLY_OCTETS_MAX)
            .await
    }

    /// Posts; a reply that is no success is read as an error.
    async fn send(
        &self,
        at: usize,
        path: &str,
        body: &Value,
        token: Option<Arc<str>>,
    ) -> Result<reqwest::Response, Failure> {
        let endpoint = self.endpoint(at);
        // Without the header a member that has lost its quorum keeps silent on its watches for ever.
        let mut request = self
            .inner
            .members
            .http()
            .post(format!("{endpoint}/v3/{path}"))
            .header("Grpc-Metadata-hasleader", "true")
            .json(body);
        if let Some(token) = token {
            request = request.header("Authorization", &*token);
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.inner.members.broken(at, &error))?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let text = self.inner.members.error_body(response).await;
        Err(Failure {
            error: self.refusal(endpoint, status, &text),
            sent: true,
        })
    }

    fn refusal(&self, endpoint: &str, status: u16, body: &[u8]) -> Error {
        match serde_json::from_slice::<ErrorJson>(body) {
            Ok(json) => {
                let what = if json.message.is_empty() {
                    json.error
                } else {
                    json.message
                };
                classify(endpoint, status, json.code.unwrap_or(-1), what)
            }
            Err(_) if status == 404 => Error::NoGateway {
                endpoint: endpoint.to_owned(),
                version: None,
            },
            Err(_) if status >= 500 => Error::Unavailable {
                endpoint: endpoint.to_owned(),
                what: format!("HTTP {status}"),
            },
            Err(_) => classify(endpoint, status, -1, "refused".into()),
        }
    }

    fn stream_error(&self, endpoint: &str, error: StreamError) -> Error {
        let status = error.http_code.unwrap_or(0);
        classify(endpoint, status, error.code(), error.message)
    }

    //--- Tokens -------------------------------------------------------------------------------

    fn known_token(&self) -> Option<Arc<str>> {
        match &*self.lock_token() {
            Token::Known(token) => Some(Arc::clone(token)),
            _ => None,
        }
    }

    fn lock_token(&self) -> std::sync::MutexGuard<'_, Token> {
        self.inner
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a token that was refused, unless somebody has renewed it meanwhile.
    fn forget(&self, refused: &Option<Arc<str>>) {
        let mut token = self.lock_token();
        match (&*token, refused) {
            (Token::Known(known), Some(refused)) if known != refused => {}
            _ => *token = Token::Wanted,
        }
    }

    /// The token to send, asked for if need be.
    async fn token(&self, at: usize) -> Result<Option<Arc<str>>, Error> {
        let Some(credentials) = &self.inner.credentials else {
            return Ok(None);
        };
        let _one_at_a_time = self.inner.authenticating.lock().await;
        match self.lock_token().clone() {
            Token::Known(token) => return Ok(Some(token)),
            Token::NotNeeded => return Ok(None),
            Token::Wanted => {}
        }
        let body = json!({"name": credentials.user, "password": credentials.password});
        match self.post(at, "auth/authenticate", &body, None).await {
            Ok(reply) => {
                let endpoint = self.endpoint(at).to_owned();
                let reply: TokenJson =
                    read(&reply).map_err(|what| Error::Malformed { endpoint, what })?;
                let token: Arc<str> = reply.token.into();
                *self.lock_token() = Token::Known(Arc::clone(&token));
                Ok(Some(token))
            }
            Err(failure) => match failure.error {
                Error::Conflict { what } if what.contains("authentication is not enabled") => {
                    *self.lock_token() = Token::NotNeeded;
                    Ok(None)
                }
                error => Err(error),
            },
        }
    }
}

impl Backend for Client {
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move { self.range(&request).await })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watching>, Error>> {
        Box::pin(async move {
            let watch = self.open_watch(&request).await?;
            Ok(Box::new(watch) as Box<dyn Watching>)
        })
    }

    fn lease(&self, id: i64) -> BoxFuture<'_, Result<Option<Lease>, Error>> {
        Box::pin(self.lease_timetolive(id))
    }

    fn probe(&self) -> BoxFuture<'_, Result<Header, Error>> {
        Box::pin(async move {
            // Answered from the member's own memory: it is the member that is asked for, not its cluster.
            let request = ListRequest {
                serializable: true,
                count_only: true,
                ..ListRequest::new(KeyRange::key("/"))
            };
            self.call_at::<RangeJson>(
                self.current(),
                "kv/range",
                &range_body(&request),
                PROBE_TIMEOUT,
            )
            .await
            .map(|reply| reply.header.into())
            .map_err(|failure| failure.error)
        })
    }

    fn clusters(&self) -> BoxFuture<'_, Vec<u64>> {
        Box::pin(async move {
            let body = range_body(&ListRequest {
                serializable: true,
                count_only: true,
                ..ListRequest::new(KeyRange::key("/"))
            });
            let asked = (0..self.inner.members.all().len())
                .map(|at| self.call_at::<RangeJson>(at, "kv/range", &body, PROBE_TIMEOUT));
            let replies = join_all(asked).await.into_iter().flatten();
            replies
                .map(|reply| reply.header.cluster_id.0 as u64)
                .collect()
        })
    }

    fn leave(&self) {
        self.inner.members.leave();
    }

    fn which(&self) -> String {
        Client::which(self)
    }

    fn endpoints(&self) -> Vec<String> {
        self.inner.members.all().to_vec()
    }
}

//--- Watch -----------------------------------------------------------------------------------------

/// A watch: one JSON object per line, for as long as it lasts.
pub struct Watch {
    client: Client,
    endpoint: String,
    token: Option<Arc<str>>,
    response: reqwest::Response,
    buffer: Vec<u8>,
    searched: usize,
}

impl Watch {
    /// The next message. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn message(&mut self) -> Result<WatchMessage, Error> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = unsearched.iter().position(|octet| *octet == b'\n') {
                let end = self.searched + end;
                let line = self.buffer.get(..end).unwrap_or_default();
                let message = self.read_line(line);
                self.buffer.drain(..=end);
                self.searched = 0;
                return message;
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_OCTETS_MAX {
                return Err(Error::TooLarge {
                    endpoint: self.endpoint.clone(),
                    limit: LINE_OCTETS_MAX,
                });
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => {
                    return Err(Error::Unavailable {
                        endpoint: self.endpoint.clone(),
                        what: "ended the watch".into(),
                    });
                }
                Err(error) => {
                    return Err(Error::Unreachable {
                        endpoint: self.endpoint.clone(),
                        what: reason(&error),
                    });
                }
            }
        }
    }

    fn read_line(&self, line: &[u8]) -> Result<WatchMessage, Error> {
        let malformed = |what| Error::Malformed {
            endpoint: self.endpoint.clone(),
            what,
        };
        let line: WatchLine = read(line).map_err(malformed)?;
        if let Some(error) = line.error {
            return Err(self.client.stream_error(&self.endpoint, error));
        }
        let message: WatchMessage = line.result.unwrap_or_default().into();
        if let Some(canceled) = &message.canceled {
            if canceled.compact_revision > 0 {
                return Err(Error::Compacted {
                    revision: canceled.compact_revision,
                });
            }
            if is_token_trouble(&canceled.reason) {
                self.client.forget(&self.token);
                return Err(Error::Unauthenticated {
                    endpoint: self.endpoint.clone(),
                    what: canceled.reason.clone(),
                });
            }
            if canceled.reason.contains("permission denied") {
                return Err(Error::Denied {
                    endpoint: self.endpoint.clone(),
                    what: "permission denied".into(),
                });
            }
        }
        Ok(message)
    }
}

impl Watching for Watch {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchMessage, Error>> {
        Box::pin(self.message())
    }
}

//--- Transactions ----------------------------------------------------------------------------------

/// A condition of a transaction: the key's property equals the value.
#[derive(Clone, Debug)]
pub enum Compare {
    /// The key does not exist.
    Missing(Vec<u8>),
    /// The key was written last at this revision.
    ModRevision(Vec<u8>, i64),
    /// The key has this value.
    Value(Vec<u8>, Vec<u8>),
}

impl Compare {
    fn body(&self) -> Value {
        match self {
            Compare::Missing(key) => json!({
                "key": BASE64.encode(key), "result": "EQUAL", "target": "CREATE", "create_revision": "0",
            }),
            Compare::ModRevision(key, revision) => json!({
                "key": BASE64.encode(key), "result": "EQUAL", "target": "MOD", "mod_revision": Number(*revision),
            }),
            Compare::Value(key, value) => json!({
                "key": BASE64.encode(key), "result": "EQUAL", "target": "VALUE", "value": BASE64.encode(value),
            }),
        }
    }
}

/// An operation of a transaction.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Writes a key, onto a lease unless it is 0.
    Put(Vec<u8>, Vec<u8>, i64),
    /// Deletes keys.
    Delete(KeyRange),
    /// Reads keys.
    Range(KeyRange),
}

impl Operation {
    fn body(&self) -> Value {
        match self {
            Operation::Put(key, value, lease) => {
                json!({"request_put": put_body(key, value, *lease)})
            }
            Operation::Delete(range) => json!({"request_delete_range": keys_body(range)}),
            Operation::Range(range) => json!({"request_range": keys_body(range)}),
        }
    }
}

/// What became of a transaction.
#[derive(Clone, Debug)]
pub struct TxnReply {
    /// From whom, and at which revision.
    pub header: Header,
    /// Whether all conditions were met.
    pub succeeded: bool,
    /// What the operations that read found, in order; empty for those that wrote.
    pub found: Vec<Vec<KeyValue>>,
}

impl From<TxnJson> for TxnReply {
    fn from(json: TxnJson) -> TxnReply {
        let found = json.responses.into_iter().map(|response| {
            let kvs = response.response_range.unwrap_or_default().kvs;
            kvs.into_iter().map(KeyValue::from).collect()
        });
        TxnReply {
            header: json.header.into(),
            succeeded: json.succeeded,
            found: found.collect(),
        }
    }
}

//--- The cluster -----------------------------------------------------------------------------------

/// What a member says of itself.
#[derive(Clone, Debug)]
pub struct Status {
    /// Cluster, member, revision.
    pub header: Header,
    /// Its version.
    pub version: String,
    /// Octets of its database.
    pub db_size: u64,
    /// The leader's number; 0 if there is none.
    pub leader: u64,
}

/// A member of a cluster.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it serves clients.
    pub client_urls: Vec<String>,
}

//--- Bodies ----------------------------------------------------------------------------------------

#[derive(Default, Deserialize)]
#[serde(default)]
struct HeaderOnly {
    header: HeaderJson,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DeletedJson {
    deleted: Number,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LeaseJson {
    #[serde(rename = "ID")]
    id: Number,
    #[serde(rename = "TTL")]
    ttl: Number,
    #[serde(rename = "grantedTTL")]
    granted: Number,
}

#[derive(Deserialize)]
struct StreamedJson<T> {
    result: Option<T>,
    error: Option<StreamError>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenJson {
    token: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TxnJson {
    header: HeaderJson,
    succeeded: bool,
    responses: Vec<ResponseJson>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseJson {
    response_range: Option<RangeJson>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusJson {
    header: HeaderJson,
    version: String,
    #[serde(rename = "dbSize")]
    db_size: Number,
    leader: Number,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MembersJson {
    members: Vec<MemberJson>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MemberJson {
    #[serde(rename = "ID")]
    id: Number,
    name: String,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
}

fn keys_body(range: &KeyRange) -> Value {
    json!({"key": BASE64.encode(&range.start), "range_end": BASE64.encode(&range.end)})
}

fn range_body(request: &ListRequest) -> Value {
    let mut body = keys_body(&request.range);
    if request.limit > 0 {
        body["limit"] = json!(Number(i64::from(request.limit)));
    }
    if request.revision > 0 {
        body["revision"] = json!(Number(request.revision));
    }
    for (field, set) in [
        ("serializable", request.serializable),
        ("keys_only", request.keys_only),
        ("count_only", request.count_only),
    ] {
        if set {
            body[field] = json!(true);
        }
    }
    body
}

fn put_body(key: &[u8], value: &[u8], lease: i64) -> Value {
    json!({
        "key": Bytes(key.to_vec()),
        "value": Bytes(value.to_vec()),
        "lease": Number(lease),
    })
}

/// The first key behind a key.
pub fn key_behind(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

fn seconds(number: Number) -> Duration {
    Duration::from_secs(number.0.max(0) as u64)
}

//--- Errors ----------------------------------------------------------------------------------------

fn is_token_trouble(what: &str) -> bool {
    what.contains("invalid auth token")
        || what.contains("user name is empty")
        || what.contains("revision of auth store is old")
        || what.contains("revision in header is old")
}

/// Sorts an error of etcd's: by gRPC code first, which all versions send, then by words.
fn classify(endpoint: &str, status: u16, code: i32, what: String) -> Error {
    let endpoint = endpoint.to_owned();
    match code {
        16 => Error::Unauthenticated { endpoint, what },
        3 if is_token_trouble(&what) => Error::Unauthenticated { endpoint, what },
        3 if what.contains("CommonName of client") => Error::Refused {
            endpoint,
            status,
            code,
            what: format!("{what}; use a client certificate whose common name is empty"),
        },
        3 if what.contains("authentication failed") => Error::Denied { endpoint, what },
        7 => Error::Denied { endpoint, what },
        11 if what.contains("compacted") => Error::Compacted { revision: 0 },
        11 if what.contains("future revision") => Error::Future { endpoint },
        5 if what.contains("lease not found") => Error::NoSuchLease,
        6 | 9 => Error::Conflict { what },
        // 1 and 4 are a cancelled call and its deadline, 2 is what 3.4 makes of a write without quorum.
        1 | 4 | 13 | 14 => Error::Unavailable { endpoint, what },
        2 if what.contains("deadline") || what.contains("timed out") || status >= 500 => {
            Error::Unavailable { endpoint, what }
        }
        _ => Error::Refused {
            endpoint,
            status,
            code,
            what,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_with_a_port() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_endpoint(text, "http").as_deref(), Ok(expected));
        };
        check("localhost:2379", "http://localhost:2379");
        check("http://127.0.0.1:4001/", "http://127.0.0.1:4001");
        check("https://etcd.example.org", "https://etcd.example.org:2379");
        check("[2001:db8::1]", "http://[2001:db8::1]:2379");
        check("http://[::1]:99", "http://[::1]:99");
        for bad in [
            "",
            "ftp://x",
            "http://",
            "http://a/b",
            "a:b:c",
            "http://u@h",
        ] {
            assert!(parse_endpoint(bad, "http").is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_are_sorted_by_what_can_be_done() {
        let check = |status, code, what: &str| classify("e", status, code, what.into());
        assert!(matches!(
            check(401, 16, "etcdserver: invalid auth token"),
            Error::Unauthenticated { .. }
        ));
        assert!(matches!(
            check(400, 3, "etcdserver: user name is empty"),
            Error::Unauthenticated { .. }
        ));
        assert!(matches!(
            check(403, 7, "etcdserver: permission denied"),
            Error::Denied { .. }
        ));
        assert!(matches!(
            check(500, 2, "context deadline exceeded"),
            Error::Unavailable { .. }
        ));
        assert!(matches!(
            check(503, 14, "etcdserver: no leader"),
            Error::Unavailable { .. }
        ));
        assert!(matches!(
            check(
                400,
                11,
                "etcdserver: mvcc: required revision has been compacted"
            ),
            Error::Compacted { .. }
        ));
        assert!(matches!(
            check(429, 8, "etcdserver: mvcc: database space exceeded"),
            Error::Refused { .. }
        ));
    }
}
