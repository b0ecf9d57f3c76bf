//! What an etcd is to us: keys with revisions, leases and a watch. The types of its v3 API, the ways a call can fail, and [`Backend`],
//! the few calls that following needs, so that a cluster, the embedded store and a test's double can stand behind it.
//!
//! Keys and values are bytes here; base64 and JSON are `gateway.rs`'s business.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

/// A key, its value and its history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// The value; empty for a key that was deleted.
    pub value: Vec<u8>,
    /// Revision that made the key.
    pub create_revision: i64,
    /// Revision that wrote it last.
    pub mod_revision: i64,
    /// Writes since it was made.
    pub version: i64,
    /// The lease it hangs on; 0 is none.
    pub lease: i64,
}

/// What every reply says about the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Which cluster.
    pub cluster_id: u64,
    /// Which member answered.
    pub member_id: u64,
    /// The store's revision when it answered.
    pub revision: i64,
}

/// Which keys: from `start` (included) to `end` (not included).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Vec<u8>,
    /// Behind the last key; empty means the one key `start`, a single zero octet means to the end.
    pub end: Vec<u8>,
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Vec<u8>>) -> KeyRange {
        KeyRange {
            start: key.into(),
            end: Vec::new(),
        }
    }

    /// All keys that start with these octets.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> KeyRange {
        let start: Vec<u8> = prefix.into();
        let mut end = start.clone();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                break;
            }
        }
        if end.is_empty() {
            end.push(0);
        }
        // A range cannot start at nothing; the zero octet is the first key there is.
        let start = if start.is_empty() { vec![0] } else { start };
        KeyRange { start, end }
    }
}

/// A page of keys to read.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many; 0 is no limit.
    pub limit: u32,
    /// As of this revision; 0 is now.
    pub revision: i64,
    /// From the member asked, without asking the others: answers without a leader, perhaps out of date.
    pub serializable: bool,
    /// Only the keys.
    pub keys_only: bool,
    /// Only their number.
    pub count_only: bool,
}

impl ListRequest {
    /// All of a range, now, confirmed by the cluster.
    pub fn new(range: KeyRange) -> ListRequest {
        ListRequest {
            range,
            limit: 0,
            revision: 0,
            serializable: false,
            keys_only: false,
            count_only: false,
        }
    }
}

/// A page of keys, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// From whom.
    pub header: Header,
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left some out.
    pub more: bool,
    /// Keys in the whole range.
    pub count: u64,
}

/// A watch to open.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision to hear of.
    pub start_revision: i64,
    /// Nothing of what is put. A store that cannot leave it out says it all the same.
    pub deletes_only: bool,
}

/// One message of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchMessage {
    /// From whom; its revision is where the store stands, not where the events end.
    pub header: Header,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// More of the same revision follows.
    pub fragment: bool,
    /// The watch has been made: the first message.
    pub created: bool,
    /// The watch is over, though its stream may stay open.
    pub canceled: Option<Canceled>,
}

/// Why a watch was ended by the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canceled {
    /// The first revision there still is, if ours had been compacted; else 0.
    pub compact_revision: i64,
    /// In the server's words.
    pub reason: String,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was written.
    Put(KeyValue),
    /// It was deleted, or its lease ended.
    Delete {
        /// The key.
        key: Vec<u8>,
        /// The revision that did it.
        revision: i64,
    },
    /// A directory of the v2 API was deleted with everything below it, or its time ended.
    DeleteTree {
        /// The directory, without a slash behind it.
        key: Vec<u8>,
        /// The revision that did it.
        revision: i64,
    },
}

impl Event {
    /// The revision of the change.
    pub fn revision(&self) -> i64 {
        match self {
            Event::Put(kv) => kv.mod_revision,
            Event::Delete { revision, .. } | Event::DeleteTree { revision, .. } => *revision,
        }
    }
}

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub id: i64,
    /// Granted for so long.
    pub granted: Duration,
    /// What is left of it.
    pub remaining: Duration,
}

/// A watch under way.
pub trait Watching: Send {
    /// The next message. An error ends the watch.
    fn next(&mut self) -> BoxFuture<'_, Result<WatchMessage, Error>>;
}

/// What following needs of a store. One member is used at a time; [`Backend::leave`] goes on to another.
pub trait Backend: Send + Sync {
    /// A page of keys.
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, Error>>;
    /// Opens a watch at the member in use.
    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Watching + 'static>, Error>>;
    /// A lease; `None` if it is gone.
    fn lease(&self, id: i64) -> BoxFuture<'_, Result<Option<Lease>, Error>>;
    /// Whether the member in use still answers: on a connection of its own, within a second.
    fn probe(&self) -> BoxFuture<'_, Result<Header, Error>>;
    /// The cluster's number as each endpoint that answers says it.
    fn clusters(&self) -> BoxFuture<'_, Vec<u64>>;
    /// Uses another member from now on.
    fn leave(&self);
    /// The member in use, for logs.
    fn which(&self) -> String;
    /// All there are, for logs.
    fn endpoints(&self) -> Vec<String>;
    /// Revisions before a list that are looked through for what was deleted.
    fn looks_back(&self) -> i64 {
        10_000
    }
    /// The time between two complete lists while all is well: etcd before 3.4.31 and 3.5.13 may lose events after a compaction.
    fn relist_every(&self) -> Duration {
        Duration::from_secs(600)
    }
}

/// Why a call failed. Every variant names the endpoint, so that a log line does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No connection, or it broke.
    Unreachable {
        /// Which endpoint.
        endpoint: String,
        /// What the network or TLS said.
        what: String,
    },
    /// No answer in time.
    NoAnswer {
        /// Which endpoint.
        endpoint: String,
        /// Waited for so long.
        after: Duration,
    },
    /// The member answers but cannot serve: no leader, no quorum, stopping.
    Unavailable {
        /// Which endpoint.
        endpoint: String,
        /// In its words.
        what: String,
    },
    /// The revision asked for has been compacted away.
    Compacted {
        /// The first one there still is; 0 if it was not said.
        revision: i64,
    },
    /// The revision asked for does not exist yet at this member.
    Future {
        /// Which endpoint.
        endpoint: String,
    },
    /// The lease does not exist.
    NoSuchLease,
    /// The key does not exist (v2 API).
    NoSuchKey {
        /// Where the store stood.
        index: u64,
    },
    /// It exists already, or a condition was not met.
    Conflict {
        /// In the server's words.
        what: String,
    },
    /// No token, or one that no longer counts.
    Unauthenticated {
        /// Which endpoint.
        endpoint: String,
        /// In its words.
        what: String,
    },
    /// The user may not do this, or the password is wrong.
    Denied {
        /// Which endpoint.
        endpoint: String,
        /// In its words.
        what: String,
    },
    /// Neither /v3 nor anything like it is there.
    NoGateway {
        /// Which endpoint.
        endpoint: String,
        /// The version of etcd that is there all the same, if it says one.
        version: Option<String>,
    },
    /// The v2 API is not there.
    NoV2 {
        /// Which endpoint.
        endpoint: String,
    },
    /// A message larger than we read.
    TooLarge {
        /// Which endpoint.
        endpoint: String,
        /// The limit, in octets.
        limit: usize,
    },
    /// The server refuses the request.
    Refused {
        /// Which endpoint.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// gRPC code, -1 if there was none.
        code: i32,
        /// In its words.
        what: String,
    },
    /// What came is no answer of etcd's.
    Malformed {
        /// Which endpoint.
        endpoint: String,
        /// What is wrong with it.
        what: String,
    },
    /// Every endpoint failed, each for its own reason.
    All(Vec<Error>),
}

impl Error {
    /// Whether another member may do better.
    pub fn is_members_fault(&self) -> bool {
        matches!(
            self,
            Error::Unreachable { .. }
                | Error::NoAnswer { .. }
                | Error::Unavailable { .. }
                | Error::Future { .. }
                | Error::NoGateway { .. }
                | Error::NoV2 { .. }
                | Error::Malformed { .. }
        )
    }

    /// Whether it stands for a cluster that cannot be used now, as against a request that is wrong.
    pub fn is_outage(&self) -> bool {
        match self {
            Error::All(errors) => errors.iter().any(Error::is_members_fault),
            error => error.is_members_fault(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable { endpoint, what }
            | Error::Unavailable { endpoint, what }
            | Error::Malformed { endpoint, what } => write!(f, "{endpoint}: {what}"),
            Error::NoAnswer { endpoint, after } => {
                write!(f, "{endpoint}: no answer within {after:?}")
            }
            Error::Compacted { revision } => {
                write!(
                    f,
                    "the revision has been compacted (now from {revision} on)"
                )
            }
            Error::Future { endpoint } => {
                write!(f, "{endpoint}: has not reached the revision yet")
            }
            Error::NoSuchLease => f.write_str("requested lease not found"),
            Error::NoSuchKey { .. } => f.write_str("key not found"),
            Error::Conflict { what } => f.write_str(what),
            Error::Unauthenticated { endpoint, what } => {
                write!(f, "{endpoint}: not authenticated: {what}")
            }
            Error::Denied { endpoint, what } => write!(
                f,
                "{endpoint}: {what}; check the user's password and its role's permissions"
            ),
            Error::NoGateway { endpoint, version } => no_gateway(f, endpoint, version.as_deref()),
            Error::NoV2 { endpoint } => write!(
                f,
                "{endpoint}: no v2 keys API there (etcd 3.4 and 3.5 need --enable-v2, 3.6 has none)"
            ),
            Error::TooLarge { endpoint, limit } => {
                write!(f, "{endpoint}: a message of more than {limit} octets")
            }
            Error::Refused {
                endpoint,
                status,
                what,
                ..
            } => write!(f, "{endpoint}: {what} (HTTP {status})"),
            Error::All(errors) => {
                for (i, error) in errors.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "; " };
                    write!(f, "{comma}{error}")?;
                }
                Ok(())
            }
        }
    }
}

/// What to do about an endpoint without the v3 JSON API.
fn no_gateway(f: &mut fmt::Formatter<'_>, endpoint: &str, version: Option<&str>) -> fmt::Result {
    let Some(version) = version else {
        return write!(
            f,
            "{endpoint}: no v3 JSON API there (a grpc-proxy, or no etcd); name the members themselves"
        );
    };
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(0..=2), _) => write!(
            f,
            "{endpoint}: etcd {version} has no v3 JSON API; write `api v2`"
        ),
        (Some(3), Some(0..=3)) => write!(
            f,
            "{endpoint}: etcd {version} has no /v3 yet, 3.4 is the first; write `api v2` or upgrade it"
        ),
        _ => write!(
            f,
            "{endpoint}: etcd {version} is there, but its JSON API is off; write `enable-grpc-gateway: true` into its config file (3.4 needs it there), or name the URL of its --listen-client-http-urls"
        ),
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_is_off_is_told_with_its_fix() {
        let text = |version: Option<&str>| {
            let error = Error::NoGateway {
                endpoint: "e".into(),
                version: version.map(str::to_owned),
            };
            error.to_string()
        };
        assert!(text(Some("3.4.23")).contains("enable-grpc-gateway: true"));
        assert!(text(Some("3.3.10")).contains("`api v2` or upgrade"));
        assert!(text(Some("2.3.8")).contains("write `api v2`"));
        assert!(text(None).contains("grpc-proxy"));
    }

    #[test]
    fn a_prefix_ends_behind_its_last_key() {
        assert_eq!(KeyRange::prefix("/skydns/").end, b"/skydns0");
        assert_eq!(KeyRange::prefix(vec![b'a', 0xff]).end, b"b");
        assert_eq!(KeyRange::prefix(vec![0xff]).end, [0]);
        assert_eq!(KeyRange::prefix("").start, [0]);
    }
}
