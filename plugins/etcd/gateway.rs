//! The JSON of etcd's v3 gateway: base64 for bytes, strings for 64-bit numbers, what is zero left out. Both spellings of numbers are read.

use std::fmt;

use data_encoding::BASE64;
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::api::{Canceled, Event, Header, KeyValue, Page, WatchMessage};

/// Octets, as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    /// Whether there are none: such a field is left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                BASE64
                    .decode(text.as_bytes())
                    .map(Bytes)
                    .map_err(|_| E::custom("bad base64"))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Bytes, E> {
                Ok(Bytes::default())
            }
        }
        deserializer.deserialize_any(Base64)
    }
}

/// A 64-bit number, which JSON writes as a string since many readers of JSON know 53 bits only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) i64);

impl Number {
    /// Whether it is zero: such a field is left out.
    pub(crate) fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or one in a string")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Number, E> {
                Ok(Number(n))
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Number, E> {
                Ok(Number(n as i64))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                // Cluster and member numbers are unsigned and use all 64 bits.
                text.parse::<i64>()
                    .or_else(|_| text.parse::<u64>().map(|n| n as i64))
                    .map(Number)
                    .map_err(|_| E::custom("bad number"))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Number, E> {
                Ok(Number(0))
            }
        }
        deserializer.deserialize_any(Digits)
    }
}

/// A reply's header.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HeaderJson {
    #[serde(skip_serializing_if = "Number::is_zero")]
    pub(crate) cluster_id: Number,
    #[serde(skip_serializing_if = "Number::is_zero")]
    pub(crate) member_id: Number,
    #[serde(skip_serializing_if = "Number::is_zero")]
    pub(crate) revision: Number,
    #[serde(skip_serializing_if = "Number::is_zero")]
    pub(crate) raft_term: Number,
}

impl From<HeaderJson> for Header {
    fn from(json: HeaderJson) -> Header {
        Header {
            cluster_id: json.cluster_id.0 as u64,
            member_id: json.member_id.0 as u64,
            revision: json.revision.0,
        }
    }
}

/// A key with its value.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KeyValueJson {
    pub(crate) key: Bytes,
    #[serde(skip_serializing_if = "Number::is_zero")]
    pub(crate) create_revision: Number,
    #[serde(skip_serializing_if = "Number::is_zero")]
    pub(crate) mod_revision: Number,
    #[serde(skip_serializing_if = "Number::is_zero")]
    pub(crate) version: Number,
    #[serde(skip_serializing_if = "Bytes::is_empty")]
    pub(crate) value: Bytes,
    #[serde(skip_serializing_if = "Number::is_zero")]
    pub(crate) lease: Number,
}

impl From<KeyValueJson> for KeyValue {
    fn from(json: KeyValueJson) -> KeyValue {
        KeyValue {
            key: json.key.0,
            value: json.value.0,
            create_revision: json.create_revision.0,
            mod_revision: json.mod_revision.0,
            version: json.version.0,
            lease: json.lease.0,
        }
    }
}

impl From<KeyValue> for KeyValueJson {
    fn from(kv: KeyValue) -> KeyValueJson {
        KeyValueJson {
            key: Bytes(kv.key),
            create_revision: Number(kv.create_revision),
            mod_revision: Number(kv.mod_revision),
            version: Number(kv.version),
            value: Bytes(kv.value),
            lease: Number(kv.lease),
        }
    }
}

/// The reply to a range.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RangeJson {
    pub(crate) header: HeaderJson,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) kvs: Vec<KeyValueJson>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) more: bool,
    #[serde(skip_serializing_if = "Number::is_zero")]
    pub(crate) count: Number,
}

impl From<RangeJson> for Page {
    fn from(json: RangeJson) -> Page {
        Page {
            header: json.header.into(),
            kvs: json.kvs.into_iter().map(KeyValue::from).collect(),
            more: json.more,
            count: json.count.0.max(0) as u64,
        }
    }
}

/// One line of a watch: a result, or the error that ends it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchLine {
    pub(crate) result: Option<WatchJson>,
    pub(crate) error: Option<StreamError>,
}

/// A watch's message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchJson {
    header: HeaderJson,
    created: bool,
    canceled: bool,
    compact_revision: Number,
    cancel_reason: String,
    fragment: bool,
    events: Vec<EventJson>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EventJson {
    r#type: String,
    kv: KeyValueJson,
}

/// How a stream says that it ends: `grpc_code` before 3.6, `code` since.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamError {
    grpc_code: Option<i32>,
    code: Option<i32>,
    pub(crate) http_code: Option<u16>,
    pub(crate) message: String,
}

impl StreamError {
    pub(crate) fn code(&self) -> i32 {
        self.grpc_code.or(self.code).unwrap_or(-1)
    }
}

impl From<WatchJson> for WatchMessage {
    fn from(json: WatchJson) -> WatchMessage {
        let events = json.events.into_iter().map(|event| {
            if event.r#type == "DELETE" {
                Event::Delete {
                    key: event.kv.key.0,
                    revision: event.kv.mod_revision.0,
                }
            } else {
                Event::Put(event.kv.into())
            }
        });
        WatchMessage {
            header: json.header.into(),
            events: events.collect(),
            fragment: json.fragment,
            created: json.created,
            canceled: json.canceled.then_some(Canceled {
                compact_revision: json.compact_revision.0,
                reason: json.cancel_reason,
            }),
        }
    }
}

/// The body of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorJson {
    pub(crate) error: String,
    pub(crate) message: String,
    pub(crate) code: Option<i32>,
}

/// Reads JSON; the error says where it went wrong, never what was there.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        format!(
            "not etcd's JSON (line {}, column {})",
            error.line(),
            error.column()
        )
    })
}
