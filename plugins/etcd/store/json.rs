//! Requests and replies as etcd 3.4's gateway spells them: bytes in base64, 64-bit numbers as strings (read as numbers, too), fields in
//! snake_case (read in camelCase, too), what is zero or empty left out, unknown fields ignored, `null` as if it were not there.

use data_encoding::BASE64;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::disk::Identity;
use super::model::{
    Compare, CompareResult, CompareTarget, DeleteReply, DeleteRequest, EventKind, KeyRange,
    KeyValue, LeaseView, PutReply, PutRequest, RangeReply, RangeRequest, SortOrder, SortTarget,
    StoreError, TxnOp, TxnOpReply, TxnReply, TxnRequest,
};
use super::watch::{Message, WatchEvent, WatchRequest, What};
use crate::etcd::gateway::{Bytes, Number};

/// Reads the first JSON value of a body. As in etcd what follows is ignored, and an empty body is an empty request.
pub(crate) fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, StoreError> {
    match serde_json::Deserializer::from_slice(body)
        .into_iter::<T>()
        .next()
    {
        None => Ok(T::default()),
        Some(read) => read.map_err(|error| StoreError::Malformed(error.to_string())),
    }
}

/// Writes a reply.
pub(crate) fn write(reply: &impl Serialize) -> Vec<u8> {
    // Our own replies have string keys and no failing parts.
    serde_json::to_vec(reply).unwrap_or_default()
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An enum: its name, or its number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Number(usize),
    Name(String),
}

fn choose<'de, D, T: Copy + Default>(deserializer: D, names: &[(&str, T)]) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let chosen = match Option::deserialize(deserializer)? {
        None => return Ok(T::default()),
        Some(Named::Number(number)) => names.get(number),
        Some(Named::Name(name)) => names.iter().find(|(known, _)| *known == name),
    };
    chosen.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        de::Error::custom(format!(
            "unknown value for enum, want one of {}",
            known.join(", ")
        ))
    })
}

//--- Requests --------------------------------------------------------------------------------------

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RangeBody {
    key: Bytes,
    #[serde(alias = "rangeEnd")]
    range_end: Bytes,
    limit: Number,
    revision: Number,
    #[serde(alias = "sortOrder", deserialize_with = "sort_order")]
    sort_order: SortOrder,
    #[serde(alias = "sortTarget", deserialize_with = "sort_target")]
    sort_target: SortTarget,
    #[serde(alias = "keysOnly", deserialize_with = "or_default")]
    keys_only: bool,
    #[serde(alias = "countOnly", deserialize_with = "or_default")]
    count_only: bool,
    #[serde(alias = "minModRevision")]
    min_mod_revision: Number,
    #[serde(alias = "maxModRevision")]
    max_mod_revision: Number,
    #[serde(alias = "minCreateRevision")]
    min_create_revision: Number,
    #[serde(alias = "maxCreateRevision")]
    max_create_revision: Number,
}

fn sort_order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SortOrder, D::Error> {
    choose(
        deserializer,
        &[
            ("NONE", SortOrder::None),
            ("ASCEND", SortOrder::Ascend),
            ("DESCEND", SortOrder::Descend),
        ],
    )
}

fn sort_target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SortTarget, D::Error> {
    choose(
        deserializer,
        &[
            ("KEY", SortTarget::Key),
            ("VERSION", SortTarget::Version),
            ("CREATE", SortTarget::Create),
            ("MOD", SortTarget::Mod),
            ("VALUE", SortTarget::Value),
        ],
    )
}

impl From<RangeBody> for RangeRequest {
    fn from(body: RangeBody) -> RangeRequest {
        RangeRequest {
            range: KeyRange::new(body.key.0, body.range_end.0),
            limit: body.limit.0,
            revision: body.revision.0,
            sort_order: body.sort_order,
            sort_target: body.sort_target,
            keys_only: body.keys_only,
            count_only: body.count_only,
            min_mod_revision: body.min_mod_revision.0,
            max_mod_revision: body.max_mod_revision.0,
            min_create_revision: body.min_create_revision.0,
            max_create_revision: body.max_create_revision.0,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PutBody {
    key: Bytes,
    value: Bytes,
    lease: Number,
    #[serde(alias = "prevKv", deserialize_with = "or_default")]
    prev_kv: bool,
    #[serde(alias = "ignoreValue", deserialize_with = "or_default")]
    ignore_value: bool,
    #[serde(alias = "ignoreLease", deserialize_with = "or_default")]
    ignore_lease: bool,
}

impl From<PutBody> for PutRequest {
    fn from(body: PutBody) -> PutRequest {
        PutRequest {
            key: body.key.0,
            value: body.value.0,
            lease: body.lease.0,
            prev_kv: body.prev_kv,
            ignore_value: body.ignore_value,
            ignore_lease: body.ignore_lease,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DeleteBody {
    key: Bytes,
    #[serde(alias = "rangeEnd")]
    range_end: Bytes,
    #[serde(alias = "prevKv", deserialize_with = "or_default")]
    prev_kv: bool,
}

impl From<DeleteBody> for DeleteRequest {
    fn from(body: DeleteBody) -> DeleteRequest {
        DeleteRequest {
            range: KeyRange::new(body.key.0, body.range_end.0),
            prev_kv: body.prev_kv,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
enum Target {
    #[default]
    Version,
    Create,
    Mod,
    Value,
    Lease,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompareBody {
    #[serde(deserialize_with = "compare_result")]
    result: CompareResult,
    #[serde(deserialize_with = "compare_target")]
    target: Target,
    key: Bytes,
    #[serde(alias = "rangeEnd")]
    range_end: Bytes,
    version: Number,
    #[serde(alias = "createRevision")]
    create_revision: Number,
    #[serde(alias = "modRevision")]
    mod_revision: Number,
    value: Bytes,
    lease: Number,
}

fn compare_result<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CompareResult, D::Error> {
    choose(
        deserializer,
        &[
            ("EQUAL", CompareResult::Equal),
            ("GREATER", CompareResult::Greater),
            ("LESS", CompareResult::Less),
            ("NOT_EQUAL", CompareResult::NotEqual),
        ],
    )
}

fn compare_target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Target, D::Error> {
    choose(
        deserializer,
        &[
            ("VERSION", Target::Version),
            ("CREATE", Target::Create),
            ("MOD", Target::Mod),
            ("VALUE", Target::Value),
            ("LEASE", Target::Lease),
        ],
    )
}

impl From<CompareBody> for Compare {
    fn from(body: CompareBody) -> Compare {
        Compare {
            range: KeyRange::new(body.key.0, body.range_end.0),
            result: body.result,
            target: match body.target {
                Target::Version => CompareTarget::Version(body.version.0),
                Target::Create => CompareTarget::Create(body.create_revision.0),
                Target::Mod => CompareTarget::Mod(body.mod_revision.0),
                Target::Value => CompareTarget::Value(body.value.0),
                Target::Lease => CompareTarget::Lease(body.lease.0),
            },
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpBody {
    #[serde(alias = "requestRange")]
    request_range: Option<RangeBody>,
    #[serde(alias = "requestPut")]
    request_put: Option<PutBody>,
    #[serde(alias = "requestDeleteRange")]
    request_delete_range: Option<DeleteBody>,
    #[serde(alias = "requestTxn")]
    request_txn: Option<TxnBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TxnBody {
    #[serde(deserialize_with = "or_default")]
    compare: Vec<CompareBody>,
    #[serde(deserialize_with = "or_default")]
    success: Vec<OpBody>,
    #[serde(deserialize_with = "or_default")]
    failure: Vec<OpBody>,
}

impl TryFrom<TxnBody> for TxnRequest {
    type Error = StoreError;

    fn try_from(body: TxnBody) -> Result<TxnRequest, StoreError> {
        let ops = |bodies: Vec<OpBody>| {
            bodies
                .into_iter()
                .map(TxnOp::try_from)
                .collect::<Result<_, _>>()
        };
        Ok(TxnRequest {
            compare: body.compare.into_iter().map(Compare::from).collect(),
            success: ops(body.success)?,
            failure: ops(body.failure)?,
        })
    }
}

impl TryFrom<OpBody> for TxnOp {
    type Error = StoreError;

    fn try_from(body: OpBody) -> Result<TxnOp, StoreError> {
        match body {
            OpBody {
                request_range: Some(range),
                ..
            } => Ok(TxnOp::Range(range.into())),
            OpBody {
                request_put: Some(put),
                ..
            } => Ok(TxnOp::Put(put.into())),
            OpBody {
                request_delete_range: Some(delete),
                ..
            } => Ok(TxnOp::Delete(delete.into())),
            OpBody {
                request_txn: Some(txn),
                ..
            } => Ok(TxnOp::Txn(txn.try_into()?)),
            // An operation that is none: etcd's error for it.
            _ => Err(StoreError::KeyNotFound),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CompactBody {
    pub(crate) revision: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GrantBody {
    #[serde(rename = "TTL")]
    pub(crate) ttl: Number,
    #[serde(rename = "ID")]
    pub(crate) id: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LeaseBody {
    #[serde(rename = "ID")]
    pub(crate) id: Number,
    #[serde(deserialize_with = "or_default")]
    pub(crate) keys: bool,
}

/// One object of a watch's body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchBody {
    #[serde(alias = "createRequest")]
    pub(crate) create_request: Option<CreateBody>,
    #[serde(alias = "cancelRequest")]
    pub(crate) cancel_request: Option<CancelBody>,
    #[serde(alias = "progressRequest")]
    pub(crate) progress_request: Option<ProgressBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CreateBody {
    key: Bytes,
    #[serde(alias = "rangeEnd")]
    range_end: Bytes,
    #[serde(alias = "startRevision")]
    start_revision: Number,
    #[serde(alias = "progressNotify", deserialize_with = "or_default")]
    progress_notify: bool,
    #[serde(deserialize_with = "filters")]
    filters: Vec<Filter>,
    #[serde(alias = "prevKv", deserialize_with = "or_default")]
    prev_kv: bool,
    #[serde(alias = "watchId")]
    watch_id: Number,
    #[serde(deserialize_with = "or_default")]
    pub(crate) fragment: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Filter {
    #[default]
    NoPut,
    NoDelete,
}

struct FilterName(Filter);

impl<'de> Deserialize<'de> for FilterName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FilterName, D::Error> {
        choose(
            deserializer,
            &[("NOPUT", Filter::NoPut), ("NODELETE", Filter::NoDelete)],
        )
        .map(FilterName)
    }
}

fn filters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Filter>, D::Error> {
    let names: Vec<FilterName> = or_default(deserializer)?;
    Ok(names.into_iter().map(|name| name.0).collect())
}

impl From<&CreateBody> for WatchRequest {
    fn from(body: &CreateBody) -> WatchRequest {
        // A watch without a key is one of the first key there can be.
        let key = match body.key.is_empty() {
            true => vec![0],
            false => body.key.0.clone(),
        };
        WatchRequest {
            range: KeyRange::new(key, body.range_end.0.clone()),
            start_revision: body.start_revision.0,
            prev_kv: body.prev_kv,
            progress_notify: body.progress_notify,
            no_put: body.filters.contains(&Filter::NoPut),
            no_delete: body.filters.contains(&Filter::NoDelete),
            watch_id: body.watch_id.0,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CancelBody {
    #[serde(alias = "watchId")]
    pub(crate) watch_id: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ProgressBody {}

//--- Replies ---------------------------------------------------------------------------------------

/// The only term there is: nobody else could become leader.
const RAFT_TERM: Text<u64> = Text(1);

/// A number as a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Bytes as base64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

fn absent<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The header of a reply.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Header {
    #[serde(skip_serializing_if = "absent")]
    cluster_id: Text<u64>,
    #[serde(skip_serializing_if = "absent")]
    member_id: Text<u64>,
    #[serde(skip_serializing_if = "absent")]
    revision: Text<i64>,
    #[serde(skip_serializing_if = "absent")]
    raft_term: Text<u64>,
}

impl Header {
    /// With everything; a revision of 0 is left out.
    pub(crate) fn new(identity: Identity, revision: i64) -> Header {
        Header {
            cluster_id: Text(identity.cluster),
            member_id: Text(identity.member),
            revision: Text(revision),
            raft_term: RAFT_TERM,
        }
    }

    /// As it stands within a transaction's reply.
    fn inner(revision: i64) -> Header {
        Header {
            revision: Text(revision),
            ..Header::default()
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct KvView<'a> {
    key: Base64<'a>,
    #[serde(skip_serializing_if = "absent")]
    create_revision: Text<i64>,
    #[serde(skip_serializing_if = "absent")]
    mod_revision: Text<i64>,
    #[serde(skip_serializing_if = "absent")]
    version: Text<i64>,
    #[serde(skip_serializing_if = "absent")]
    value: Base64<'a>,
    #[serde(skip_serializing_if = "absent")]
    lease: Text<i64>,
}

impl<'a> From<&'a KeyValue> for KvView<'a> {
    fn from(kv: &'a KeyValue) -> KvView<'a> {
        KvView {
            key: Base64(&kv.key),
            create_revision: Text(kv.create_revision),
            mod_revision: Text(kv.mod_revision),
            version: Text(kv.version),
            value: Base64(&kv.value),
            lease: Text(kv.lease),
        }
    }
}

/// A reply that says nothing but its header.
#[derive(Debug, Serialize)]
pub(crate) struct Plain {
    pub(crate) header: Header,
}

#[derive(Debug, Serialize)]
pub(crate) struct RangeView<'a> {
    header: Header,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kvs: Vec<KvView<'a>>,
    #[serde(skip_serializing_if = "absent")]
    more: bool,
    #[serde(skip_serializing_if = "absent")]
    count: Text<i64>,
}

impl<'a> RangeView<'a> {
    pub(crate) fn new(header: Header, reply: &'a RangeReply) -> RangeView<'a> {
        RangeView {
            header,
            kvs: reply
                .kvs
                .iter()
                .map(|kv| KvView {
                    value: Base64(if reply.keys_only { &[] } else { &kv.value }),
                    ..KvView::from(&**kv)
                })
                .collect(),
            more: reply.more,
            count: Text(reply.count),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct PutView<'a> {
    header: Header,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<KvView<'a>>,
}

impl<'a> PutView<'a> {
    pub(crate) fn new(header: Header, reply: &'a PutReply) -> PutView<'a> {
        PutView {
            header,
            prev_kv: reply.prev_kv.as_deref().map(KvView::from),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct DeleteView<'a> {
    header: Header,
    #[serde(skip_serializing_if = "absent")]
    deleted: Text<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prev_kvs: Vec<KvView<'a>>,
}

impl<'a> DeleteView<'a> {
    pub(crate) fn new(header: Header, reply: &'a DeleteReply) -> DeleteView<'a> {
        DeleteView {
            header,
            deleted: Text(reply.deleted),
            prev_kvs: reply
                .prev_kvs
                .iter()
                .map(|kv| KvView::from(&**kv))
                .collect(),
        }
    }
}

#[derive(Debug, Serialize)]
enum OpView<'a> {
    #[serde(rename = "response_range")]
    Range(RangeView<'a>),
    #[serde(rename = "response_put")]
    Put(PutView<'a>),
    #[serde(rename = "response_delete_range")]
    Delete(DeleteView<'a>),
    #[serde(rename = "response_txn")]
    Txn(TxnView<'a>),
}

#[derive(Debug, Serialize)]
pub(crate) struct TxnView<'a> {
    header: Header,
    #[serde(skip_serializing_if = "absent")]
    succeeded: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    responses: Vec<OpView<'a>>,
}

impl<'a> TxnView<'a> {
    pub(crate) fn new(header: Header, reply: &'a TxnReply) -> TxnView<'a> {
        TxnView {
            header,
            succeeded: reply.succeeded,
            responses: reply
                .responses
                .iter()
                .map(|reply| match reply {
                    TxnOpReply::Range(reply) => {
                        OpView::Range(RangeView::new(Header::inner(reply.revision), reply))
                    }
                    TxnOpReply::Put(reply) => {
                        OpView::Put(PutView::new(Header::inner(reply.revision), reply))
                    }
                    TxnOpReply::Delete(reply) => {
                        OpView::Delete(DeleteView::new(Header::inner(reply.revision), reply))
                    }
                    TxnOpReply::Txn(reply) => {
                        OpView::Txn(TxnView::new(Header::inner(reply.revision), reply))
                    }
                })
                .collect(),
        }
    }
}

/// Answers `lease/grant` and `lease/keepalive`.
#[derive(Debug, Serialize)]
pub(crate) struct LeaseTtl {
    pub(crate) header: Header,
    #[serde(rename = "ID", skip_serializing_if = "absent")]
    pub(crate) id: Text<i64>,
    #[serde(rename = "TTL", skip_serializing_if = "absent")]
    pub(crate) ttl: Text<i64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LeaseDetail<'a> {
    header: Header,
    #[serde(rename = "ID", skip_serializing_if = "absent")]
    id: Text<i64>,
    #[serde(rename = "TTL", skip_serializing_if = "absent")]
    ttl: Text<i64>,
    #[serde(rename = "grantedTTL", skip_serializing_if = "absent")]
    granted: Text<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<Base64<'a>>,
}

impl<'a> LeaseDetail<'a> {
    pub(crate) fn new(header: Header, view: &'a LeaseView) -> LeaseDetail<'a> {
        LeaseDetail {
            header,
            id: Text(view.id),
            ttl: Text(view.ttl),
            granted: Text(view.granted),
            keys: view.keys.iter().map(|key| Base64(key)).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct LeaseList {
    pub(crate) header: Header,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) leases: Vec<LeaseId>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LeaseId {
    #[serde(rename = "ID")]
    pub(crate) id: Text<i64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) header: Header,
    pub(crate) version: &'static str,
    #[serde(rename = "dbSize", skip_serializing_if = "absent")]
    pub(crate) db_size: Text<u64>,
    pub(crate) leader: Text<u64>,
    #[serde(rename = "raftIndex")]
    pub(crate) raft_index: Text<i64>,
    #[serde(rename = "raftTerm")]
    raft_term: Text<u64>,
    #[serde(rename = "raftAppliedIndex")]
    pub(crate) raft_applied_index: Text<i64>,
    #[serde(rename = "dbSizeInUse", skip_serializing_if = "absent")]
    pub(crate) db_size_in_use: Text<u64>,
}

impl Status {
    pub(crate) fn new(identity: Identity, revision: i64, file: u64, in_use: u64) -> Status {
        Status {
            header: Header::new(identity, revision),
            version: super::api::VERSION,
            db_size: Text(file),
            leader: Text(identity.member),
            raft_index: Text(revision),
            raft_term: RAFT_TERM,
            raft_applied_index: Text(revision),
            db_size_in_use: Text(in_use),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Members {
    header: Header,
    members: [Member; 1],
}

#[derive(Debug, Serialize)]
struct Member {
    #[serde(rename = "ID")]
    id: Text<u64>,
    name: &'static str,
    #[serde(rename = "clientURLs")]
    client_urls: [String; 1],
}

impl Members {
    pub(crate) fn new(identity: Identity, url: String) -> Members {
        Members {
            header: Header::new(identity, 0),
            members: [Member {
                id: Text(identity.member),
                name: "skeindns",
                client_urls: [url],
            }],
        }
    }
}

/// An error, as the body of a reply.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorView<'a> {
    pub(crate) error: &'a str,
    pub(crate) message: &'a str,
    pub(crate) code: u16,
}

/// A line of a stream.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line<T> {
    Result(T),
    Error(StreamError),
}

/// An error, as the last line of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct StreamError {
    pub(crate) grpc_code: u16,
    pub(crate) http_code: u16,
    pub(crate) message: String,
    pub(crate) http_status: &'static str,
}

//--- Watch messages --------------------------------------------------------------------------------

/// Octets of events after which a watch that asked for fragments gets another line; etcd's limit of a request and what it adds to it.
const FRAGMENT_BYTES: usize = (1 << 20) + (1 << 19) + (1 << 19);

#[derive(Debug, Default, Serialize)]
struct MessageView<'a> {
    header: Header,
    #[serde(skip_serializing_if = "absent")]
    watch_id: Text<i64>,
    #[serde(skip_serializing_if = "absent")]
    created: bool,
    #[serde(skip_serializing_if = "absent")]
    canceled: bool,
    #[serde(skip_serializing_if = "absent")]
    compact_revision: Text<i64>,
    #[serde(skip_serializing_if = "absent")]
    cancel_reason: &'a str,
    #[serde(skip_serializing_if = "absent")]
    fragment: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventView<'a>>,
}

#[derive(Debug, Serialize)]
struct EventView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    kv: KvView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<KvView<'a>>,
}

/// A message as lines: one, or several where there is much and `fragment` was asked for.
pub(crate) fn lines(identity: Identity, message: &Message, fragment: bool) -> Vec<Vec<u8>> {
    let view = MessageView {
        header: Header::new(identity, message.revision),
        watch_id: Text(message.watch_id),
        ..MessageView::default()
    };
    let one = |view: MessageView<'_>| vec![line(&Line::Result(view))];
    match &message.what {
        What::Progress => one(view),
        What::Created => one(MessageView {
            created: true,
            ..view
        }),
        What::Canceled => one(MessageView {
            canceled: true,
            ..view
        }),
        What::Compacted(revision) => one(MessageView {
            canceled: true,
            compact_revision: Text(*revision),
            ..view
        }),
        What::Refused(reason) => one(MessageView {
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..view
        }),
        What::Events(events) => {
            let parts = match fragment {
                true => split(events),
                false => vec![events.as_slice()],
            };
            let last = parts.len().saturating_sub(1);
            parts
                .into_iter()
                .enumerate()
                .map(|(number, events)| {
                    line(&Line::Result(MessageView {
                        header: view.header,
                        watch_id: view.watch_id,
                        fragment: number < last,
                        events: events.iter().map(EventView::from).collect(),
                        ..MessageView::default()
                    }))
                })
                .collect()
        }
    }
}

/// One line with its end.
pub(crate) fn line(line: &impl Serialize) -> Vec<u8> {
    let mut text = write(line);
    text.push(b'\n');
    text
}

fn split(events: &[WatchEvent]) -> Vec<&[WatchEvent]> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (at, event) in events.iter().enumerate() {
        let weight = event.weight();
        if at > start && bytes + weight > FRAGMENT_BYTES {
            parts.extend(events.get(start..at));
            start = at;
            bytes = 0;
        }
        bytes += weight;
    }
    parts.extend(events.get(start..));
    parts
}

impl<'a> From<&'a WatchEvent> for EventView<'a> {
    fn from(event: &'a WatchEvent) -> EventView<'a> {
        EventView {
            r#type: match event.kind {
                EventKind::Put => None,
                EventKind::Delete => Some("DELETE"),
            },
            kv: KvView::from(&*event.kv),
            prev_kv: event.prev.as_deref().map(KvView::from),
        }
    }
}
