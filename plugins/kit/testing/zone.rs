//! A small authority for scripted upstreams: the zones of an `upstream zone` block, answered the way a resolver in front of
//! them would: aliases followed, wildcards expanded, denials with the SOA.

use std::time::Duration;

use hickory_proto::op::{Edns, Message};
use hickory_proto::rr::{RData, Record, RecordType};

use super::reply;
use super::upstream::{Reaction, SCRIPTED, Script, Seen};
use crate::kit::query::Transport;
use crate::kit::wire::Rcode;

/// Aliases that are followed for one question.
const ALIASES_MAX: usize = 10;

/// Records, and what a question finds among them.
struct Zones {
    records: Vec<Record>,
}

/// Makes a script of zone records, one a line.
pub(super) fn script(lines: &[&str]) -> Result<Script, String> {
    let records = lines
        .iter()
        .map(|line| reply::record(line).map_err(|what| format!("{line:?}: {what}")))
        .collect::<Result<_, _>>()?;
    let zones = Zones { records };
    Ok(Box::new(move |seen: &Seen| {
        if seen.upstream != SCRIPTED {
            return None;
        }
        let query = Message::from_vec(&seen.packet).ok()?;
        let message = zones.answer(&query)?;
        Some(Reaction {
            reply: fitted(message, &query, seen.transport),
            after: Duration::ZERO,
        })
    }))
}

/// Encoded; on UDP cut to TC when it is larger than the asker takes.
pub(super) fn fitted(
    mut message: Message,
    query: &Message,
    transport: Transport,
) -> Option<Vec<u8>> {
    if let Some(asked) = &query.edns
        && message.edns.is_none()
    {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        message.set_edns(edns);
    }
    let bytes = message.to_vec().ok()?;
    if transport == Transport::Tcp || bytes.len() <= usize::from(query.max_payload()) {
        return Some(bytes);
    }
    message.metadata.truncation = true;
    message.answers.clear();
    message.authorities.clear();
    message.additionals.clear();
    message.to_vec().ok()
}

/// RFC 2308 §3: the SOA of a denial lives no longer than its minimum says.
fn denial(soa: &Record) -> Record {
    let mut soa = soa.clone();
    if let RData::SOA(data) = &soa.data {
        soa.ttl = soa.ttl.min(data.minimum);
    }
    soa
}

impl Zones {
    /// `None` when no zone covers the name.
    fn answer(&self, query: &Message) -> Option<Message> {
        let question = query.queries.first()?;
        let mut message = reply::reply_to(query, Rcode::NOERROR.0);
        message.metadata.recursion_available = true;
        let mut name = question.name().to_lowercase();
        self.soa(&name)?;
        for _ in 0..ALIASES_MAX {
            let found = self.at(&name);
            let mut alias = None;
            for record in &found {
                let wanted = question.query_type() == record.record_type()
                    || question.query_type() == RecordType::ANY;
                match &record.data {
                    _ if wanted => {}
                    RData::CNAME(target) => alias = Some(target.0.to_lowercase()),
                    _ => continue,
                }
                let mut record = (*record).clone();
                // The owner of a wildcard is the name asked for, spelled as asked.
                record.name = if name == question.name().to_lowercase() {
                    question.name().clone()
                } else {
                    name.clone()
                };
                message.add_answer(record);
            }
            match alias {
                Some(target) if self.soa(&target).is_some() => name = target,
                Some(_) => return Some(message),
                None => {
                    let denied = message
                        .answers
                        .last()
                        .is_none_or(|last| last.record_type() == RecordType::CNAME)
                        && question.query_type() != RecordType::CNAME;
                    if denied || message.answers.is_empty() {
                        if self.at(&name).is_empty() && !self.exists(&name) {
                            message.metadata.response_code =
                                hickory_proto::op::ResponseCode::NXDomain;
                        }
                        message.add_authority(denial(self.soa(&name)?));
                    }
                    return Some(message);
                }
            }
        }
        Some(message)
    }

    fn at(&self, name: &hickory_proto::rr::Name) -> Vec<&Record> {
        let of = |owner: &hickory_proto::rr::Name| -> Vec<&Record> {
            self.records
                .iter()
                .filter(|record| record.name.to_lowercase() == *owner)
                .collect()
        };
        let exact = of(name);
        if !exact.is_empty() || self.exists(name) {
            return exact;
        }
        // RFC 4592 §3.3.1: the wildcard of the closest encloser.
        let mut encloser = name.base_name();
        while !self.exists(&encloser) && !encloser.is_root() {
            encloser = encloser.base_name();
        }
        match encloser.prepend_label("*") {
            Ok(wildcard) => of(&wildcard),
            Err(_) => Vec::new(),
        }
    }

    /// Whether the name has records, is above some (RFC 4592 §2.2.2), or a wildcard stands for it.
    fn exists(&self, name: &hickory_proto::rr::Name) -> bool {
        self.records
            .iter()
            .any(|record| name.zone_of(&record.name.to_lowercase()))
    }

    /// The SOA of the longest zone that the name is in.
    fn soa(&self, name: &hickory_proto::rr::Name) -> Option<&Record> {
        self.records
            .iter()
            .filter(|record| record.record_type() == RecordType::SOA)
            .filter(|record| record.name.to_lowercase().zone_of(name))
            .max_by_key(|record| record.name.num_labels())
    }
}
