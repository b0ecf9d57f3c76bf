//! [`Record`]: one key's value, read once when it comes and kept as small as it can be; a million of them are in memory.
//!
//! The value is SkyDNS's service record: JSON with `host`, `port`, `priority`, `weight`, `text`, `mail`, `ttl`, `targetstrip` and `group`,
//! field names in any case, unknown fields ignored, as Go's decoder has it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::kit::wire::Name;

/// Octets of a value that we read; etcd's own limit of a whole request is 1.5 MiB, and no answer holds more than 65,535.
pub(super) const VALUE_OCTETS_MAX: usize = 128 << 10;
/// The largest TTL there is (RFC 2181 §8).
const TTL_MAX: u32 = i32::MAX as u32;

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The revision that wrote it.
    pub(super) revision: i64,
    /// In seconds, the lease's time already in it; 0 if there is neither.
    pub(super) ttl: u32,
    /// For SRV.
    pub(super) port: u16,
    /// For SRV and MX; see [`NO_PRIORITY`].
    pub(super) priority: u16,
    /// As written; 0 stands for 100.
    pub(super) weight: u16,
    /// Labels to take off the target.
    pub(super) targetstrip: u8,
    /// What is unusual about it.
    pub(super) marks: u8,
    /// Where the service is.
    pub(super) host: Host,
    /// What few records have.
    pub(super) rare: Option<Box<Rare>>,
}

/// The value cannot be read: the key's name exists and that is all.
pub(super) const MALFORMED: u8 = 1;
/// It takes mail.
pub(super) const MAIL: u8 = 2;
/// Port -1: no SRV.
pub(super) const NO_PORT: u8 = 4;
/// It says no TTL: `ttl` is the lease's alone.
pub(super) const NO_TTL: u8 = 8;
/// It says no priority, or 0.
pub(super) const NO_PRIORITY: u8 = 16;

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    /// Not said.
    None,
    /// At an address.
    V4([u8; 4]),
    /// At an address.
    V6([u8; 16]),
    /// At a name, wire form, spelled as written.
    Name(Box<[u8]>),
}

/// What few records have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rare {
    /// For TXT; empty is none.
    pub(super) text: Box<[u8]>,
    /// Empty is none.
    pub(super) group: Box<str>,
}

impl Record {
    /// Reads a value. `lease` is the TTL that the key's lease allows, in seconds. The error says what is wrong, without the value.
    pub(super) fn read(value: &[u8], revision: i64, lease: Option<u32>) -> Result<Record, String> {
        if value.len() > VALUE_OCTETS_MAX {
            return Err(format!(
                "{} octets, {VALUE_OCTETS_MAX} are read",
                value.len()
            ));
        }
        if value.is_empty() {
            return Err("empty, a JSON object is wanted".into());
        }
        // Go replaces what is no UTF-8, and so do we.
        let text = String::from_utf8_lossy(value);
        let json: Json = serde_json::from_str(&text).map_err(|error| {
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            format!("{what} (column {})", error.column())
        })?;
        json.record(revision, lease)
    }

    /// What stands for a value that cannot be read.
    pub(super) fn malformed(revision: i64) -> Record {
        Record {
            revision,
            ttl: 0,
            port: 0,
            priority: 0,
            weight: 0,
            targetstrip: 0,
            marks: MALFORMED,
            host: Host::None,
            rare: None,
        }
    }

    /// Whether it has this mark.
    pub(super) fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    /// The text; empty if there is none.
    pub(super) fn text(&self) -> &[u8] {
        self.rare.as_ref().map_or(&[], |rare| &rare.text)
    }

    /// The group; empty if there is none.
    pub(super) fn group(&self) -> &str {
        self.rare.as_ref().map_or("", |rare| &rare.group)
    }
}

/// The TTL of a record: the smaller of its own and its lease's where both exist, 0 where neither does. A lease at its end is 1.
fn ttl(own: u32, lease: Option<u32>) -> u32 {
    let lease = lease.map(|lease| lease.max(1));
    let ttl = match (own, lease) {
        (0, lease) => lease.unwrap_or(0),
        (own, None) => own,
        (own, Some(lease)) => own.min(lease),
    };
    ttl.min(TTL_MAX)
}

#[derive(Default)]
struct Json {
    host: String,
    port: i64,
    priority: i64,
    weight: i64,
    text: String,
    mail: bool,
    ttl: u32,
    targetstrip: i64,
    group: String,
}

impl Json {
    fn record(self, revision: i64, lease: Option<u32>) -> Result<Record, String> {
        let host = read_host(&self.host)?;
        let mut marks = 0;
        if self.mail {
            marks |= MAIL;
        }
        if self.port == -1 {
            marks |= NO_PORT;
        }
        if self.ttl == 0 {
            marks |= NO_TTL;
        }
        if self.priority == 0 {
            marks |= NO_PRIORITY;
        }
        let rare = (!self.text.is_empty() || !self.group.is_empty()).then(|| {
            Box::new(Rare {
                text: self.text.into_bytes().into(),
                group: self.group.into(),
            })
        });
        Ok(Record {
            revision,
            ttl: ttl(self.ttl, lease),
            // SkyDNS and CoreDNS take numbers modulo 2^16.
            port: self.port as u16,
            priority: self.priority as u16,
            weight: self.weight.clamp(0, i64::from(u16::MAX)) as u16,
            targetstrip: self.targetstrip.clamp(0, 127) as u8,
            marks,
            host,
            rare,
        })
    }
}

fn read_host(text: &str) -> Result<Host, String> {
    if text.is_empty() {
        return Ok(Host::None);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(match address.to_canonical() {
            IpAddr::V4(v4) => Host::V4(Ipv4Addr::octets(&v4)),
            IpAddr::V6(v6) => Host::V6(Ipv6Addr::octets(&v6)),
        });
    }
    match Name::parse(text) {
        Ok(name) => Ok(Host::Name(name.as_wire().into())),
        Err(_) => Err("`host` is neither an address nor a domain name".into()),
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            // Go leaves everything as it is for `null`, here and in the fields.
            fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
                Ok(Json::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut json = Json::default();
                while let Some(field) = map.next_key::<Field>()? {
                    match field {
                        Field::Host => set(&mut map, &mut json.host)?,
                        Field::Port => set(&mut map, &mut json.port)?,
                        Field::Priority => set(&mut map, &mut json.priority)?,
                        Field::Weight => set(&mut map, &mut json.weight)?,
                        Field::Text => set(&mut map, &mut json.text)?,
                        Field::Mail => set(&mut map, &mut json.mail)?,
                        Field::Ttl => set(&mut map, &mut json.ttl)?,
                        Field::Targetstrip => set(&mut map, &mut json.targetstrip)?,
                        Field::Group => set(&mut map, &mut json.group)?,
                        Field::Unknown => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(json)
            }
        }
        deserializer.deserialize_any(Fields)
    }
}

fn set<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    field: &mut T,
) -> Result<(), A::Error> {
    if let Some(value) = map.next_value()? {
        *field = value;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Field {
    Host,
    Port,
    Priority,
    Weight,
    Text,
    Mail,
    Ttl,
    Targetstrip,
    Group,
    Unknown,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Field;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Field, E> {
                const FIELDS: [(&str, Field); 9] = [
                    ("host", Field::Host),
                    ("port", Field::Port),
                    ("priority", Field::Priority),
                    ("weight", Field::Weight),
                    ("text", Field::Text),
                    ("mail", Field::Mail),
                    ("ttl", Field::Ttl),
                    ("targetstrip", Field::Targetstrip),
                    ("group", Field::Group),
                ];
                let known = FIELDS
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(word));
                Ok(known.map_or(Field::Unknown, |(_, field)| *field))
            }
        }
        deserializer.deserialize_str(Word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Record {
        Record::read(text.as_bytes(), 7, None).expect("a record")
    }

    #[test]
    fn fields_are_read_in_any_case_and_unknown_ones_are_ignored() {
        let record = read(
            r#"{"HOST":"192.0.2.1","Port":70000,"priority":0,"weight":7,"text":"t","mail":true,
                "ttl":60,"targetStrip":2,"group":"g","x-owner":{"a":[1]}}"#,
        );
        assert_eq!(record.host, Host::V4([192, 0, 2, 1]));
        assert_eq!((record.port, record.priority, record.weight), (4464, 0, 7));
        assert!(record.is(NO_PRIORITY) && !record.is(NO_TTL));
        assert_eq!((record.text(), record.group()), (&b"t"[..], "g"));
        assert!(record.is(MAIL) && !record.is(MALFORMED));
        assert_eq!(
            (record.ttl, record.targetstrip, record.revision),
            (60, 2, 7)
        );
    }

    #[test]
    fn an_address_mapped_into_ipv6_is_ipv4_and_null_is_nothing() {
        assert_eq!(
            read(r#"{"host":"::ffff:192.0.2.1"}"#).host,
            Host::V4([192, 0, 2, 1])
        );
        assert_eq!(read(r#"{"host":null}"#).host, Host::None);
        assert_eq!(read("null"), read("{}"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for bad in [
            "",
            "{",
            "{}x",
            "\"text\"",
            "[]",
            "7",
            r#"{"ttl":"60"}"#,
            r#"{"ttl":-1}"#,
            r#"{"port":1.5}"#,
            r#"{"mail":1}"#,
            r#"{"host":"a..b"}"#,
            r#"{"host":1}"#,
        ] {
            assert!(Record::read(bad.as_bytes(), 1, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_smaller_ttl_counts() {
        assert_eq!(ttl(0, None), 0);
        assert_eq!(ttl(0, Some(30)), 30);
        assert_eq!(ttl(0, Some(0)), 1);
        assert_eq!(ttl(60, None), 60);
        assert_eq!(ttl(60, Some(30)), 30);
        assert_eq!(ttl(60, Some(90)), 60);
        assert_eq!(ttl(u32::MAX, None), TTL_MAX);
    }

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<Record>() <= 64);
    }

    proptest! {
        #[test]
        fn reading_never_panics(value in prop::collection::vec(any::<u8>(), 0..200)) {
            Record::read(&value, 1, Some(5)).ok();
        }

        #[test]
        fn reading_json_never_panics(
            host in ".{0,40}",
            numbers in prop::array::uniform4(any::<i64>()),
            text in ".{0,300}",
        ) {
            let [port, priority, weight, strip] = numbers;
            let value = serde_json::json!({
                "host": host, "port": port, "priority": priority, "weight": weight,
                "targetstrip": strip, "text": text,
            });
            if let Ok(record) = Record::read(value.to_string().as_bytes(), 1, None) {
                prop_assert_eq!(record.text(), text.as_bytes());
            }
        }
    }
}
