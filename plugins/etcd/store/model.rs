//! The words of etcd's v3 API as the store speaks them: keys with their revisions, requests, replies, and errors with etcd's own text.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// A key with its value, as it was at one revision. Shared between the live table, the history and whoever reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: Arc<[u8]>,
    pub(crate) value: Box<[u8]>,
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    pub(crate) version: i64,
    /// 0 is no lease.
    pub(crate) lease: i64,
}

impl KeyValue {
    /// What a DELETE event says of a key: its name and when.
    pub(crate) fn tombstone(key: Arc<[u8]>, revision: i64) -> KeyValue {
        KeyValue {
            key,
            value: Box::default(),
            create_revision: 0,
            mod_revision: revision,
            version: 0,
            lease: 0,
        }
    }

    /// Octets that it costs to keep, tables included.
    pub(crate) fn weight(&self) -> usize {
        self.key.len() + self.value.len() + OVERHEAD
    }
}

/// What a record costs beside its key and value: the struct, two reference counts, its share of the tree. Counted, not measured exactly.
pub(crate) const OVERHEAD: usize = 192;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Put,
    Delete,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// As it is now; a tombstone for a delete.
    pub(crate) kv: Arc<KeyValue>,
    /// As it was before, if it was.
    pub(crate) prev: Option<Arc<KeyValue>>,
}

//--- Ranges ----------------------------------------------------------------------------------------

/// Where a range of keys ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The start is the only key.
    Only,
    /// No end: a `range_end` of one zero octet.
    Open,
    /// Before this key.
    Before(Box<[u8]>),
}

/// A key, or a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Box<[u8]>,
    pub(crate) end: End,
}

impl KeyRange {
    /// From the two fields of a request.
    pub(crate) fn new(key: Vec<u8>, range_end: Vec<u8>) -> KeyRange {
        let end = match range_end.as_slice() {
            [] => End::Only,
            [0] => End::Open,
            _ => End::Before(range_end.into()),
        };
        KeyRange {
            start: key.into(),
            end,
        }
    }

    /// One key.
    #[cfg(test)]
    pub(crate) fn only(key: &[u8]) -> KeyRange {
        KeyRange {
            start: key.into(),
            end: End::Only,
        }
    }

    /// All keys that begin with `prefix`.
    #[cfg(test)]
    pub(crate) fn prefix(prefix: &[u8]) -> KeyRange {
        if prefix.is_empty() {
            return KeyRange {
                start: Box::new([0]),
                end: End::Open,
            };
        }
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                break;
            }
        }
        KeyRange {
            start: prefix.into(),
            end: if end.is_empty() {
                End::Open
            } else {
                End::Before(end.into())
            },
        }
    }

    /// Whether the key lies in it.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Only => key == &*self.start,
            End::Open => key >= &*self.start,
            End::Before(end) => key >= &*self.start && key < &**end,
        }
    }

    /// Whether no key can lie in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if **end <= *self.start)
    }

    /// As bounds of a sorted table. Call it only on a range that is not empty: a table panics on a start behind its end.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match &self.end {
            End::Only => Bound::Included(&*self.start),
            End::Open => Bound::Unbounded,
            End::Before(end) => Bound::Excluded(&**end),
        };
        (Bound::Included(&*self.start), end)
    }
}

//--- Requests --------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SortOrder {
    #[default]
    None,
    Ascend,
    Descend,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SortTarget {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// `kv/range`. Zeros mean "not given", as in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeRequest {
    pub(crate) range: KeyRange,
    pub(crate) limit: i64,
    pub(crate) revision: i64,
    pub(crate) sort_order: SortOrder,
    pub(crate) sort_target: SortTarget,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
    pub(crate) min_mod_revision: i64,
    pub(crate) max_mod_revision: i64,
    pub(crate) min_create_revision: i64,
    pub(crate) max_create_revision: i64,
}

impl RangeRequest {
    /// Everything in a range, now.
    pub(crate) fn all(range: KeyRange) -> RangeRequest {
        RangeRequest {
            range,
            limit: 0,
            revision: 0,
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }
}

/// `kv/put`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PutRequest {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) lease: i64,
    pub(crate) prev_kv: bool,
    pub(crate) ignore_value: bool,
    pub(crate) ignore_lease: bool,
}

/// `kv/deleterange`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeleteRequest {
    pub(crate) range: KeyRange,
    pub(crate) prev_kv: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CompareResult {
    #[default]
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// What a compare looks at, with the value to compare to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CompareTarget {
    Version(i64),
    Create(i64),
    Mod(i64),
    Value(Vec<u8>),
    Lease(i64),
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compare {
    pub(crate) range: KeyRange,
    pub(crate) result: CompareResult,
    pub(crate) target: CompareTarget,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TxnOp {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRequest),
    Txn(TxnRequest),
}

/// `kv/txn`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TxnRequest {
    pub(crate) compare: Vec<Compare>,
    pub(crate) success: Vec<TxnOp>,
    pub(crate) failure: Vec<TxnOp>,
}

impl PutRequest {
    /// Octets of its key and value.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

impl KeyRange {
    fn bytes(&self) -> usize {
        self.start.len()
            + match &self.end {
                End::Only => 0,
                End::Open => 1,
                End::Before(end) => end.len(),
            }
    }
}

impl TxnRequest {
    /// Octets of all keys and values in it.
    pub(crate) fn bytes(&self) -> usize {
        let compares = self.compare.iter().map(|compare| {
            compare.range.bytes()
                + match &compare.target {
                    CompareTarget::Value(value) => value.len(),
                    _ => 8,
                }
        });
        let ops = self.success.iter().chain(&self.failure).map(|op| match op {
            TxnOp::Range(request) => request.range.bytes(),
            TxnOp::Put(request) => request.bytes(),
            TxnOp::Delete(request) => request.range.bytes(),
            TxnOp::Txn(request) => request.bytes(),
        });
        compares.chain(ops).sum()
    }
}

//--- Replies ---------------------------------------------------------------------------------------

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeReply {
    pub(crate) revision: i64,
    pub(crate) kvs: Vec<Arc<KeyValue>>,
    pub(crate) more: bool,
    pub(crate) count: i64,
    /// The values were not asked for; leave them out.
    pub(crate) keys_only: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PutReply {
    pub(crate) revision: i64,
    pub(crate) prev_kv: Option<Arc<KeyValue>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeleteReply {
    pub(crate) revision: i64,
    pub(crate) deleted: i64,
    pub(crate) prev_kvs: Vec<Arc<KeyValue>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TxnOpReply {
    Range(RangeReply),
    Put(PutReply),
    Delete(DeleteReply),
    Txn(TxnReply),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TxnReply {
    pub(crate) revision: i64,
    pub(crate) succeeded: bool,
    pub(crate) responses: Vec<TxnOpReply>,
}

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) keys: usize,
    /// Octets of live keys and values.
    pub(crate) bytes: usize,
    /// Octets of the file; 0 if there is none.
    pub(crate) file_bytes: u64,
    /// Whether the last write reached the disk.
    pub(crate) writable: bool,
}

/// What `lease/timetolive` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseView {
    pub(crate) id: i64,
    /// Seconds left, rounded down; -1 for a lease that is not there.
    pub(crate) ttl: i64,
    pub(crate) granted: i64,
    pub(crate) keys: Vec<Arc<[u8]>>,
}

//--- Errors ----------------------------------------------------------------------------------------

/// Why a request was not carried out; the text is etcd's where etcd has the case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    DuplicateKey,
    TooLarge,
    FutureRevision,
    Compacted,
    NoSpace,
    LeaseNotFound,
    LeaseExists,
    LeaseTtlTooLarge,
    /// A limit of ours; which one.
    Limit(&'static str),
    /// The JSON cannot be read, or not as this request.
    Malformed(String),
    /// The disk said no; nothing was changed.
    Disk(String),
    /// No answer in time.
    Timeout,
    /// The store has ended.
    Closed,
}

impl StoreError {
    /// gRPC's code, which the JSON error carries.
    pub(crate) fn code(&self) -> u16 {
        match self {
            StoreError::EmptyKey
            | StoreError::KeyNotFound
            | StoreError::ValueProvided
            | StoreError::LeaseProvided
            | StoreError::TooManyOps
            | StoreError::DuplicateKey
            | StoreError::TooLarge
            | StoreError::Malformed(_) => 3,
            StoreError::LeaseNotFound => 5,
            StoreError::NoSpace | StoreError::Limit(_) => 8,
            StoreError::LeaseExists => 9,
            StoreError::FutureRevision | StoreError::Compacted | StoreError::LeaseTtlTooLarge => 11,
            StoreError::Disk(_) => 13,
            StoreError::Timeout | StoreError::Closed => 14,
        }
    }

    /// The HTTP status that etcd's gateway gives the code.
    pub(crate) fn http_status(&self) -> u16 {
        match self.code() {
            3 | 11 => 400,
            5 => 404,
            8 => 429,
            9 => 412,
            14 => 503,
            _ => 500,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreError::EmptyKey => "etcdserver: key is not provided",
            StoreError::KeyNotFound => "etcdserver: key not found",
            StoreError::ValueProvided => "etcdserver: value is provided",
            StoreError::LeaseProvided => "etcdserver: lease is provided",
            StoreError::TooManyOps => "etcdserver: too many operations in txn request",
            StoreError::DuplicateKey => "etcdserver: duplicate key given in txn request",
            StoreError::TooLarge => "etcdserver: request is too large",
            StoreError::FutureRevision => {
                "etcdserver: mvcc: required revision is a future revision"
            }
            StoreError::Compacted => "etcdserver: mvcc: required revision has been compacted",
            StoreError::NoSpace => "etcdserver: mvcc: database space exceeded",
            StoreError::LeaseNotFound => "etcdserver: requested lease not found",
            StoreError::LeaseExists => "etcdserver: lease already exists",
            StoreError::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
            StoreError::Timeout => "etcdserver: request timed out",
            StoreError::Closed => "etcdserver: server stopped",
            StoreError::Limit(what) => what,
            StoreError::Malformed(what) => return f.write_str(what),
            StoreError::Disk(what) => return write!(f, "embedded store: {what}"),
        })
    }
}

impl std::error::Error for StoreError {}
