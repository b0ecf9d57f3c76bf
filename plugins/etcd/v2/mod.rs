//! [`V2Client`]: etcd's v2 keys API, which etcd 2.x and 3.0 to 3.3 always serve, 3.4 and 3.5 with `--enable-v2`, and 3.6 no longer.
//!
//! ```text
//!   let client = V2Client::new(&Config { endpoints, ..Config::default() })?;
//!   client.put("/skydns/org/example/www", &V2Put::value(r#"{"host":"192.0.2.1"}"#).ttl(60)).await?;
//!   client.refresh("/skydns/org/example/www", 60).await?;         // no watcher hears of it
//!   let tree = client.list("/skydns").await?;                     // None: there is no such key
//!   for node in tree.iter().flat_map(V2Reply::values) { … }
//!   let change = client.wait("/skydns", tree.index + 1).await?;   // None: nothing happened, ask again from `seen`
//!   client.delete("/skydns/org/example/www", V2Delete::Key).await?;
//! ```
//! The v2 and the v3 API are two stores: a key written to one is not in the other. A node is a directory or has a value, never both.
//! Directories hide what is below them under a name that starts with `_`: such keys are found by their own name, not in a list or watch.

mod backend;
mod json;

pub(super) use backend::V2Backend;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::time::timeout;

use super::api::Error;
use super::client::{Config, Credentials};
use super::members::{Failure, Members, no_answer, sent, unsent};

/// For an ordinary call from the first octet to the last. etcd itself gives up after 7 s without a quorum.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// For a list: the v2 API has no pages, a large tree comes at once.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// For an event, after which the watch is asked for again: a member that is cut off says nothing.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Octets of a reply that are read: some three million keys, more than the v2 store is fit for.
const REPLY_OCTETS_MAX: usize = 512 << 20;
/// Octets of a reply that are read on another thread: from here on it takes longer than handing it over.
const READ_ASIDE_OCTETS: usize = 256 << 10;

/// A client of a cluster's v2 keys API. Cheap to clone; clones share the endpoint in use and the connections. Keys are absolute paths
/// (`/skydns/org/example/www`); calls fail over between the endpoints as the v3 [`Client`](super::Client)'s do.
#[derive(Clone)]
pub struct V2Client {
    inner: Arc<Inner>,
}

struct Inner {
    members: Members,
    credentials: Option<Credentials>,
}

/// A key or a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V2Node {
    /// Its path, from the root.
    pub key: String,
    /// Its value; empty for a directory, and for a key that was deleted.
    pub value: String,
    /// Whether it is a directory.
    pub dir: bool,
    /// The index that wrote it last.
    pub modified_index: u64,
    /// The index that made it.
    pub created_index: u64,
    /// Seconds that are left of it; none: it stays. While the cluster has no leader it stays too and this is negative.
    pub ttl: Option<i64>,
    /// When it ends, as RFC 3339 has it; empty: it stays.
    pub expiration: String,
}

/// What a call brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V2Reply {
    /// `get`, `set`, `create`, `update`, `compareAndSwap`, `delete`, `compareAndDelete` or `expire`.
    pub action: String,
    /// The node that was asked for or changed.
    pub node: V2Node,
    /// Everything below it that is not hidden, directories too. Only in lists.
    pub below: Vec<V2Node>,
    /// What the node was before.
    pub previous: Option<V2Node>,
    /// Where the store stood: a watch goes on from here, plus one.
    pub index: u64,
    /// Which cluster.
    pub cluster_id: u64,
    /// Whether the key was not there before.
    pub created: bool,
}

impl V2Reply {
    /// Every key with a value: the node itself or those below it.
    pub fn values(&self) -> impl Iterator<Item = &V2Node> {
        std::iter::once(&self.node)
            .chain(&self.below)
            .filter(|node| !node.dir)
    }
}

/// A condition of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum V2If {
    /// None.
    #[default]
    Always,
    /// The key does not exist.
    Missing,
    /// It exists.
    Exists,
    /// It was written last at this index.
    Index(u64),
    /// It has this value.
    Value(String),
}

/// What to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V2Put {
    /// The value; none makes a directory.
    pub value: Option<String>,
    /// In seconds, after which it is gone; none: it stays.
    pub ttl: Option<u64>,
    /// Only if.
    pub condition: V2If,
}

impl V2Put {
    /// A key with a value.
    pub fn value(value: impl Into<String>) -> V2Put {
        V2Put {
            value: Some(value.into()),
            ..V2Put::default()
        }
    }

    /// A directory.
    pub fn directory() -> V2Put {
        V2Put::default()
    }

    /// Gone after so many seconds.
    pub fn ttl(self, seconds: u64) -> V2Put {
        V2Put {
            ttl: Some(seconds),
            ..self
        }
    }

    /// Only if; else [`Error::Conflict`].
    pub fn only_if(self, condition: V2If) -> V2Put {
        V2Put { condition, ..self }
    }
}

/// What to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum V2Delete {
    /// A key with a value.
    Key,
    /// A key with a value, if it has this one; else [`Error::Conflict`].
    Value(String),
    /// A key with a value, if it was written last at this index.
    Index(u64),
    /// A directory without anything in it.
    EmptyDirectory,
    /// A key or a directory with everything below it.
    Tree,
}

/// What waiting brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum V2Waited {
    /// Something changed. Ask on from its node's `modified_index`, plus one.
    Change(Box<V2Reply>),
    /// Nothing did. Ask on from this index, plus one.
    Nothing {
        /// Up to here.
        index: u64,
    },
}

impl V2Client {
    /// A client; reads the TLS files. It connects when it is first used.
    pub fn new(config: &Config) -> Result<V2Client, String> {
        Ok(V2Client {
            inner: Arc::new(Inner {
                members: Members::new(config)?,
                credentials: config.credentials.clone(),
            }),
        })
    }

    //--- Keys ---------------------------------------------------------------------------------

    /// A key or directory, confirmed by the cluster; of a directory what is directly in it comes along. `None`: it does not exist.
    pub async fn get(&self, key: &str) -> Result<Option<V2Reply>, Error> {
        self.read(key, &[("quorum", "true")], REQUEST_TIMEOUT).await
    }

    /// A key or directory with everything below it, confirmed by the cluster. `None`: it does not exist.
    pub async fn list(&self, key: &str) -> Result<Option<V2Reply>, Error> {
        let query = [("recursive", "true"), ("quorum", "true")];
        self.read(key, &query, LIST_TIMEOUT).await
    }

    /// The same from the memory of the member in use: there without a leader too, perhaps out of date.
    pub async fn list_unconfirmed(&self, key: &str) -> Result<Option<V2Reply>, Error> {
        self.read(key, &[("recursive", "true")], LIST_TIMEOUT).await
    }

    async fn read(
        &self,
        key: &str,
        query: &[(&str, &str)],
        patience: Duration,
    ) -> Result<Option<V2Reply>, Error> {
        let target = target(key, query)?;
        match self.call(Method::GET, &target, None, patience).await {
            Ok(reply) => Ok(Some(reply)),
            Err(Error::NoSuchKey { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a key or makes a directory. A condition that is not met is [`Error::Conflict`], a parent that has a value [`Error::Refused`].
    pub async fn put(&self, key: &str, put: &V2Put) -> Result<V2Reply, Error> {
        let mut query = Vec::new();
        let mut form = String::new();
        match &put.value {
            Some(value) => field(&mut form, "value", value),
            None => field(&mut form, "dir", "true"),
        }
        if let Some(ttl) = put.ttl {
            field(&mut form, "ttl", &ttl.to_string());
        }
        let index;
        match &put.condition {
            V2If::Always => {}
            V2If::Missing => query.push(("prevExist", "false")),
            V2If::Exists => query.push(("prevExist", "true")),
            V2If::Index(at) => {
                index = at.to_string();
                query.push(("prevIndex", &*index));
            }
            V2If::Value(value) => query.push(("prevValue", &**value)),
        }
        let target = target(key, &query)?;
        self.call(Method::PUT, &target, Some(form), REQUEST_TIMEOUT)
            .await
    }

    /// Gives a key another `ttl` seconds without a word to those who watch. `Ok(None)`: it is gone, and has to be written anew.
    pub async fn refresh(&self, key: &str, ttl: u64) -> Result<Option<V2Reply>, Error> {
        let target = target(key, &[("prevExist", "true")])?;
        let mut form = String::new();
        field(&mut form, "ttl", &ttl.to_string());
        field(&mut form, "refresh", "true");
        let reply = self.call(Method::PUT, &target, Some(form), REQUEST_TIMEOUT);
        match reply.await {
            Ok(reply) => Ok(Some(reply)),
            Err(Error::NoSuchKey { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes. `Ok(None)`: it was not there.
    pub async fn delete(&self, key: &str, what: V2Delete) -> Result<Option<V2Reply>, Error> {
        let text;
        let query: &[(&str, &str)] = match &what {
            V2Delete::Key => &[],
            V2Delete::Value(value) => &[("prevValue", value)],
            V2Delete::Index(index) => {
                text = index.to_string();
                &[("prevIndex", &text)]
            }
            V2Delete::EmptyDirectory => &[("dir", "true")],
            V2Delete::Tree => &[("recursive", "true"), ("dir", "true")],
        };
        let target = target(key, query)?;
        match self
            .call(Method::DELETE, &target, None, REQUEST_TIMEOUT)
            .await
        {
            Ok(reply) => Ok(Some(reply)),
            Err(Error::NoSuchKey { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for the first change at or below a key whose index is `from` or later; comes back after some ten seconds without one. etcd keeps
    /// the last thousand changes of all keys: from further back it is [`Error::Compacted`], and the tree has to be listed again. Changes that
    /// have already happened include those of hidden keys.
    pub async fn wait(&self, key: &str, from: u64) -> Result<V2Waited, Error> {
        self.open_wait(key, from).await?.change().await
    }

    /// The same in two steps: this one comes back when the member in use has taken the request.
    pub(super) async fn open_wait(&self, key: &str, from: u64) -> Result<Waiting, Error> {
        let from_text = from.to_string();
        let query = [
            ("wait", "true"),
            ("recursive", "true"),
            ("waitIndex", &*from_text),
        ];
        let target = target(key, &query)?;
        let at = self.inner.members.current();
        let sending = self.send(at, Method::GET, &target, None);
        let response = timeout(REQUEST_TIMEOUT, sending)
            .await
            .unwrap_or_else(|_| Err(unsent(self.silent(at, REQUEST_TIMEOUT))))
            .map_err(|failure| failure.error)?;
        Ok(Waiting {
            client: self.clone(),
            at,
            from,
            index: header_number(&response, "x-etcd-index", 10),
            response,
        })
    }

    //--- The cluster --------------------------------------------------------------------------

    /// Whether the member in use answers and has a leader; the number of its cluster.
    pub(super) async fn probe(&self, at: usize, patience: Duration) -> Result<u64, Error> {
        let probing = async {
            let response = self
                .send(at, Method::GET, "/v2/members/leader", None)
                .await?;
            Ok(header_number(&response, "x-etcd-cluster-id", 16))
        };
        timeout(patience, probing)
            .await
            .unwrap_or_else(|_| Err(unsent(self.silent(at, patience))))
            .map_err(|failure| failure.error)
    }

    /// The endpoint in use.
    pub fn which(&self) -> String {
        self.inner.members.which().to_owned()
    }

    pub(super) fn members(&self) -> &Members {
        &self.inner.members
    }

    //--- Calls --------------------------------------------------------------------------------

    /// Makes a call at the endpoint in use, then at the others; the one that answers is in use from then on.
    async fn call(
        &self,
        method: Method,
        target: &str,
        form: Option<String>,
        patience: Duration,
    ) -> Result<V2Reply, Error> {
        let members = &self.inner.members;
        let mut errors = Vec::new();
        for at in members.order() {
            match self
                .call_at(at, method.clone(), target, form.clone(), patience)
                .await
            {
                Ok(reply) => {
                    members.succeeded(at);
                    return Ok(reply);
                }
                // A write that may have been done is not done again elsewhere: its condition might no longer be met.
                Err(Failure { error, sent })
                    if error.is_members_fault() && (!sent || method == Method::GET) =>
                {
                    members.failed(at);
                    errors.push(error);
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

    async fn call_at(
        &self,
        at: usize,
        method: Method,
        target: &str,
        form: Option<String>,
        patience: Duration,
    ) -> Result<V2Reply, Failure> {
        let call = async {
            let response = self.send(at, method, target, form).await?;
            self.read_reply(at, response).await
        };
        timeout(patience, call)
            .await
            .unwrap_or_else(|_| Err(sent(self.silent(at, patience))))
    }

    async fn send(
        &self,
        at: usize,
        method: Method,
        target: &str,
        form: Option<String>,
    ) -> Result<reqwest::Response, Failure> {
        let members = &self.inner.members;
        let url = format!("{}{target}", members.endpoint(at));
        let mut request = members.http().request(method, url);
        if let Some(form) = form {
            request = request
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(form);
        }
        if let Some(Credentials { user, password }) = &self.inner.credentials {
            request = request.basic_auth(user, Some(password));
        }
        let response = request
            .send()
            .await
            .map_err(|error| members.broken(at, &error))?;
        let status = response.status().as_u16();
        if matches!(status, 200 | 201) {
            return Ok(response);
        }
        let body = members.error_body(response).await;
        Err(sent(self.refusal(at, status, &body)))
    }

    async fn read_reply(&self, at: usize, response: reqwest::Response) -> Result<V2Reply, Failure> {
        let head = Head::of(&response);
        let members = &self.inner.members;
        let body = members.body(at, response, REPLY_OCTETS_MAX).await?;
        self.read_body(at, head, body).await
    }

    async fn read_body(&self, at: usize, head: Head, body: Vec<u8>) -> Result<V2Reply, Failure> {
        let read = match body.len() {
            READ_ASIDE_OCTETS.. => tokio::task::spawn_blocking(move || json::reply(&body))
                .await
                .unwrap_or_else(|_| Err("could not be read".into())),
            _ => json::reply(&body),
        };
        let malformed = |what| {
            sent(Error::Malformed {
                endpoint: self.inner.members.endpoint(at).to_owned(),
                what,
            })
        };
        let reply = read.map_err(malformed)?;
        let node = reply
            .node
            .ok_or_else(|| malformed("no node in it".into()))?;
        Ok(V2Reply {
            action: reply.action,
            node,
            below: reply.below,
            previous: reply.previous,
            index: head.index,
            cluster_id: head.cluster_id,
            created: head.created,
        })
    }

    fn silent(&self, at: usize, after: Duration) -> Error {
        no_answer(self.inner.members.endpoint(at), after)
    }

    /// Sorts an error by its code, which all versions send.
    fn refusal(&self, at: usize, status: u16, body: &[u8]) -> Error {
        let endpoint = self.inner.members.endpoint(at).to_owned();
        let Ok(json) = serde_json::from_slice::<json::ErrorJson>(body) else {
            return match status {
                404 => Error::NoV2 { endpoint },
                500.. => Error::Unavailable {
                    endpoint,
                    what: format!("HTTP {status}"),
                },
                _ => Error::Refused {
                    endpoint,
                    status,
                    code: -1,
                    what: "refused".into(),
                },
            };
        };
        let what = match json.cause.is_empty() {
            true => json.message,
            false => format!("{} ({})", json.message, json.cause),
        };
        match json.code {
            100 => Error::NoSuchKey { index: json.index },
            101 | 105 => Error::Conflict { what },
            110 if self.inner.credentials.is_none() => Error::Unauthenticated { endpoint, what },
            110 => Error::Denied { endpoint, what },
            // 401 is a history that has been cleared; the cause says [first there is / asked for].
            401 => Error::Compacted {
                revision: cleared_until(&json.cause),
            },
            300 | 301 | 400 => Error::Unavailable { endpoint, what },
            _ if status >= 500 => Error::Unavailable { endpoint, what },
            code => Error::Refused {
                endpoint,
                status,
                code: i32::try_from(code).unwrap_or(-1),
                what,
            },
        }
    }
}

/// What a reply's head says.
#[derive(Clone, Copy)]
struct Head {
    created: bool,
    index: u64,
    cluster_id: u64,
}

impl Head {
    fn of(response: &reqwest::Response) -> Head {
        Head {
            created: response.status().as_u16() == 201,
            index: header_number(response, "x-etcd-index", 10),
            cluster_id: header_number(response, "x-etcd-cluster-id", 16),
        }
    }
}

/// A request for the next change that a member has taken.
pub(super) struct Waiting {
    client: V2Client,
    at: usize,
    from: u64,
    /// Where the store stood then.
    pub(super) index: u64,
    response: reqwest::Response,
}

impl Waiting {
    /// The change, when it comes.
    pub(super) async fn change(self) -> Result<V2Waited, Error> {
        let (at, client) = (self.at, self.client);
        let head = Head::of(&self.response);
        let body = client
            .inner
            .members
            .body(at, self.response, REPLY_OCTETS_MAX);
        let nothing = V2Waited::Nothing {
            // What had happened before it was taken would have come with it: ten seconds are enough for the second packet.
            index: self.index.max(self.from.saturating_sub(1)),
        };
        let body = match timeout(WAIT_TIMEOUT, body).await {
            Err(_) => return Ok(nothing),
            // etcd ends a request after five minutes without a word, and so do proxies.
            Ok(Ok(body)) if body.is_empty() => return Ok(nothing),
            Ok(body) => body.map_err(|failure| failure.error)?,
        };
        let reply = client.read_body(at, head, body).await;
        let reply = reply.map_err(|failure| failure.error)?;
        Ok(V2Waited::Change(Box::new(reply)))
    }
}

fn header_number(response: &reqwest::Response, name: &str, radix: u32) -> u64 {
    let value = response.headers().get(name);
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    u64::from_str_radix(text, radix).unwrap_or(0)
}

/// 117 for `the requested history has been cleared [117/5]`.
fn cleared_until(cause: &str) -> i64 {
    let numbers = cause.rsplit('[').next().unwrap_or_default();
    let first = numbers.split('/').next().unwrap_or_default();
    first.parse().unwrap_or(0)
}

/// The path and query of a key.
fn target(key: &str, query: &[(&str, &str)]) -> Result<String, Error> {
    // etcd would take them for a way through the tree, and so would every proxy before it.
    if key.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Error::Refused {
            endpoint: "not sent".into(),
            status: 400,
            code: -1,
            what: format!(
                "`{}`: no key of the v2 API has a segment `.` or `..`",
                key.escape_debug()
            ),
        });
    }
    let mut target = String::from("/v2/keys");
    if !key.starts_with('/') {
        target.push('/');
    }
    encode(&mut target, key.trim_end_matches('/'), b"/");
    for (n, (name, value)) in query.iter().enumerate() {
        target.push(if n == 0 { '?' } else { '&' });
        target.push_str(name);
        target.push('=');
        encode(&mut target, value, b"");
    }
    Ok(target)
}

fn field(form: &mut String, name: &str, value: &str) {
    if !form.is_empty() {
        form.push('&');
    }
    form.push_str(name);
    form.push('=');
    encode(form, value, b"");
}

/// Percent-encodes all but what RFC 3986 §2.3 leaves unreserved, and `also`.
fn encode(into: &mut String, text: &str, also: &[u8]) {
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                into.push(char::from(octet));
            }
            _ if also.contains(&octet) => into.push(char::from(octet)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(into, "%{octet:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_encoded() {
        let target = |key: &str| target(key, &[("prevValue", "a+b=c")]).expect("a key");
        assert_eq!(
            target("/skydns/org/a:b c?/"),
            "/v2/keys/skydns/org/a%3Ab%20c%3F?prevValue=a%2Bb%3Dc"
        );
        assert_eq!(target("/"), "/v2/keys?prevValue=a%2Bb%3Dc");
        let mut form = String::new();
        field(&mut form, "value", "{\"a\": 1}");
        field(&mut form, "ttl", "5");
        assert_eq!(form, "value=%7B%22a%22%3A%201%7D&ttl=5");
        assert!(super::target("/a/../b", &[]).is_err());
    }

    #[test]
    fn errors_are_sorted_by_their_code() {
        let config = |credentials| Config {
            endpoints: vec!["http://192.0.2.1:2379".into()],
            credentials,
            ..Config::default()
        };
        let client = V2Client::new(&config(None)).expect("plain HTTP");
        let check = |status, code: i64, cause: &str| {
            let body =
                format!(r#"{{"errorCode":{code},"message":"m","cause":"{cause}","index":8}}"#);
            client.refusal(0, status, body.as_bytes())
        };
        assert_eq!(check(404, 100, "/x"), Error::NoSuchKey { index: 8 });
        assert_eq!(
            check(412, 101, "[1 != 8]"),
            Error::Conflict {
                what: "m ([1 != 8])".into()
            }
        );
        assert_eq!(
            check(400, 401, "the requested history has been cleared [117/5]"),
            Error::Compacted { revision: 117 }
        );
        assert!(matches!(check(401, 110, ""), Error::Unauthenticated { .. }));
        assert!(matches!(check(500, 300, ""), Error::Unavailable { .. }));
        assert!(matches!(
            check(403, 102, ""),
            Error::Refused { code: 102, .. }
        ));
        assert!(matches!(
            client.refusal(0, 404, b"404 page not found"),
            Error::NoV2 { .. }
        ));
        let user = Credentials {
            user: "dns".into(),
            password: "secret".into(),
        };
        let client = V2Client::new(&config(Some(user))).expect("plain HTTP");
        let error = client.refusal(0, 401, br#"{"errorCode":110,"message":"m"}"#);
        assert!(matches!(error, Error::Denied { .. }));
    }
}
