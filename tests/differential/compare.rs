//! Answers taken apart and compared.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::op::Message;
use hickory_proto::rr::{Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::zones::Zone;

/// A message without what is optional: the zone's own NS records in the authority section of an answer, and their addresses.
pub(crate) struct Parts {
    parts: [(&'static str, BTreeSet<String>); 6],
}

impl Parts {
    pub(crate) fn of(message: &Message, zone: &Zone) -> Parts {
        let word = |text: String| BTreeSet::from([text]);
        let apex = format!("{}.", zone.name);
        let is_referral = message
            .authorities
            .iter()
            .any(|record| record.record_type() == RecordType::NS && text(&record.name) != apex);
        // RFC 1034 §4.3.2 lets a server add them, NSD and we do, Knot does not.
        let is_own_ns = |record: &&Record| {
            text(&record.name) == apex
                && (record.record_type() == RecordType::NS || covers(record, RecordType::NS))
                && !message.answers.is_empty()
        };
        let has_own_ns = message.authorities.iter().any(|record| is_own_ns(&record));
        // RFC 4035 §3.1.4: we give DS also where the zone has no signatures, for `dnssec` to sign.
        let is_explained =
            |record: &Record| !zone.is_signed() && record.record_type() == RecordType::DS;
        let servers = zone.name_servers();
        let is_own_address =
            |record: &&Record| !is_referral && has_own_ns && servers.contains(&text(&record.name));
        let set = |records: &mut dyn Iterator<Item = &Record>| {
            records
                .map(|record| record.to_string().to_lowercase())
                .collect()
        };
        Parts {
            parts: [
                ("rcode", word(message.metadata.response_code.to_string())),
                ("aa", word(message.metadata.authoritative.to_string())),
                ("tc", word(message.metadata.truncation.to_string())),
                ("answer", set(&mut message.answers.iter())),
                (
                    "authority",
                    set(&mut message
                        .authorities
                        .iter()
                        .filter(|record| !is_own_ns(record))
                        .filter(|record| !is_explained(record))),
                ),
                (
                    "additional",
                    set(&mut message
                        .additionals
                        .iter()
                        .filter(|record| record.record_type() != RecordType::OPT)
                        .filter(|record| !is_own_address(record))),
                ),
            ],
        }
    }
}

fn text(name: &hickory_proto::rr::Name) -> String {
    name.to_lowercase().to_string()
}

/// Whether a record is a signature for this type.
fn covers(record: &Record, rtype: RecordType) -> bool {
    let mut data = Vec::new();
    let mut encoder = BinEncoder::new(&mut data);
    let encoded = record.data.emit(&mut encoder).is_ok();
    encoded
        && record.record_type() == RecordType::RRSIG
        && data.starts_with(&u16::from(rtype).to_be_bytes())
}

/// Parts that NSD and Knot have alike and we do not.
pub(crate) fn differences(
    [nsd, knot, ours]: [&Parts; 3],
    compared: &mut BTreeMap<&'static str, usize>,
) -> Vec<&'static str> {
    let mut found = Vec::new();
    let pairs = nsd.parts.iter().zip(&knot.parts).zip(&ours.parts);
    for (((name, nsd), (_, knot)), (_, ours)) in pairs {
        if nsd != knot {
            continue;
        }
        *compared.entry(name).or_default() += 1;
        if nsd != ours {
            found.push(*name);
        }
    }
    found
}
