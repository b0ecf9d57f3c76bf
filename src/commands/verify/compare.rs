//! An answer as it came beside the answer as it should be.

use std::collections::HashSet;
use std::fmt::Write as _;

use skein_plugins::kit::wire::name::is_within;
use skein_plugins::kit::wire::{Rcode, Rtype, Section};

use super::ask::{Question, Reply};
use super::model::{Answer, Expected};
use super::rr::Rr;

/// Characters of an answer that are shown.
const SHOWN_MAX: usize = 300;

/// How TTLs are compared.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Ttl {
    /// Equal to the record's, or at most that where a lease or another server has a say
    #[default]
    Exact,
    /// At most the record's: for a cache in between
    AtMost,
}

/// What comparing came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Same,
    /// It leads to a name outside, and the server could not resolve that; nothing else is to be answered.
    Unresolved,
    /// With what is different.
    Different(String),
}

/// Compares.
pub(crate) fn compare(
    zone: &[u8],
    question: &Question,
    expected: &Answer,
    reply: &Reply,
    ttl: Ttl,
) -> Outcome {
    let outside_only = !expected.records.is_empty() && expected.records.iter().all(|r| r.optional);
    if outside_only && reply.rcode == Rcode::SERVFAIL {
        return Outcome::Unresolved;
    }
    let rcode = match expected.exists {
        true => Rcode::NOERROR,
        false => Rcode::NXDOMAIN,
    };
    if reply.rcode != rcode {
        return Outcome::Different(format!("{} instead of {rcode}", reply.rcode));
    }
    if question.rtype == Rtype::SOA {
        return soa(zone, reply);
    }
    if expected.is_free {
        return Outcome::Same;
    }
    // What is behind a name outside the zone is somebody else's, unless it is in etcd too.
    let owners: HashSet<&[u8]> = expected.records.iter().map(|r| &*r.rr.owner).collect();
    let answer = reply.section(Section::Answer);
    let got: Vec<(u32, &Rr)> = answer
        .filter(|(_, rr)| is_within(&rr.owner, zone) || owners.contains(&*rr.owner))
        .collect();
    let mut what = String::new();
    sets(expected, &got, reply.truncated, &mut what);
    let shared = expected.records.iter().any(|record| record.optional);
    for record in &expected.records {
        let at_most = record.ttl_at_most || shared || ttl == Ttl::AtMost;
        for (found, _) in got.iter().filter(|(_, rr)| **rr == record.rr) {
            if *found > record.ttl || *found < record.ttl && !at_most {
                note(
                    &mut what,
                    format_args!("TTL {found} instead of {} of {}", record.ttl, record.rr),
                );
            }
        }
    }
    additional(zone, expected, reply, &mut what);
    match what.is_empty() {
        true => Outcome::Same,
        false => Outcome::Different(what),
    }
}

fn soa(zone: &[u8], reply: &Reply) -> Outcome {
    let mut found = reply.section(Section::Answer);
    match (found.next(), found.next()) {
        (Some((_, rr)), None) if rr.rtype == Rtype::SOA && *rr.owner == *zone => Outcome::Same,
        (None, _) => Outcome::Different("no SOA".into()),
        _ => Outcome::Different("not the one SOA of the zone".into()),
    }
}

fn sets(expected: &Answer, got: &[(u32, &Rr)], truncated: bool, what: &mut String) {
    let wanted: HashSet<&Rr> = expected.records.iter().map(|record| &record.rr).collect();
    let mut found: HashSet<&Rr> = HashSet::new();
    for (_, rr) in got {
        if !wanted.contains(rr) {
            note(what, format_args!("{rr} is not in etcd"));
        } else if !found.insert(rr) {
            // RFC 2181 §5: a set holds no record twice.
            note(what, format_args!("{rr} is there twice"));
        }
    }
    let missing = expected
        .records
        .iter()
        .filter(|r| !r.optional && !found.contains(&r.rr));
    if expected.partial || truncated {
        if found.is_empty() && missing.count() > 0 {
            note(what, format_args!("no record at all"));
        }
        return;
    }
    for record in missing {
        note(what, format_args!("{} is missing", record.rr));
    }
}

/// What is added need not be whole, but it must be right.
fn additional(zone: &[u8], expected: &Answer, reply: &Reply, what: &mut String) {
    if expected.partial || expected.free_additional {
        return;
    }
    for (_, rr) in reply.section(Section::Additional) {
        let is_address = matches!(rr.rtype, Rtype::A | Rtype::AAAA);
        if is_address && is_within(&rr.owner, zone) && !expected.additional.contains(rr) {
            note(
                what,
                format_args!("{rr} in the additional section is not in etcd"),
            );
        }
    }
}

fn note(what: &mut String, text: std::fmt::Arguments<'_>) {
    // Ten thousand records may all be missing.
    if what.len() > SHOWN_MAX {
        return;
    }
    let comma = if what.is_empty() { "" } else { "; " };
    // Writing into a String cannot fail.
    write!(what, "{comma}{text}").ok();
    if what.len() > SHOWN_MAX {
        what.push_str("; and more");
    }
}

/// The expected answer as text.
pub(crate) fn show_expected(question: &Question, expected: &Answer) -> String {
    if !expected.exists {
        return "NXDOMAIN".into();
    }
    if question.rtype == Rtype::SOA {
        return "SOA".into();
    }
    let shown = |record: &Expected| match record.optional {
        true => format!("{} and what is there", record.rr),
        false => format!("{} ({})", record.rr, record.ttl),
    };
    match expected.is_free {
        true => "what the server knows".into(),
        false => list(expected.records.iter().map(shown)),
    }
}

/// What came as text.
pub(crate) fn show_reply(reply: &Reply) -> String {
    if reply.rcode != Rcode::NOERROR {
        return reply.rcode.to_string();
    }
    list(
        reply
            .section(Section::Answer)
            .map(|(ttl, rr)| format!("{rr} ({ttl})")),
    )
}

fn list(records: impl Iterator<Item = String>) -> String {
    let mut records: Vec<String> = records.collect();
    if records.is_empty() {
        return "no data".into();
    }
    records.sort();
    let mut text = String::new();
    for (at, record) in records.iter().enumerate() {
        if text.len() > SHOWN_MAX {
            write!(text, ", and {} more", records.len() - at).ok();
            break;
        }
        let comma = if at == 0 { "" } else { ", " };
        write!(text, "{comma}{record}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ZONE: &[u8] = b"\x01z\x00";
    const NAME: &[u8] = b"\x01a\x01z\x00";

    fn a(last: u8) -> Rr {
        Rr::new(NAME, Rtype::A, [192, 0, 2, last])
    }

    fn expected(records: &[(Rr, u32)]) -> Answer {
        let records = records.iter().map(|(rr, ttl)| Expected {
            rr: rr.clone(),
            ttl: *ttl,
            ttl_at_most: false,
            optional: false,
        });
        Answer {
            exists: true,
            records: records.collect(),
            ..Answer::default()
        }
    }

    fn reply(rcode: Rcode, records: &[(Section, u32, Rr)]) -> Reply {
        Reply {
            rcode,
            authoritative: true,
            truncated: false,
            edns: true,
            octets: 100,
            records: records.to_vec(),
            took: Duration::ZERO,
        }
    }

    fn differs(expected: &Answer, reply: &Reply, ttl: Ttl) -> Option<String> {
        let question = Question::new(NAME, Rtype::A);
        match compare(ZONE, &question, expected, reply, ttl) {
            Outcome::Different(what) => Some(what),
            _ => None,
        }
    }

    #[test]
    fn what_is_equal_is_equal_and_nothing_else_is() {
        let want = expected(&[(a(1), 60), (a(2), 60)]);
        let both = [(Section::Answer, 60, a(2)), (Section::Answer, 60, a(1))];
        let ok = reply(Rcode::NOERROR, &both);
        assert_eq!(differs(&want, &ok, Ttl::Exact), None);
        let says = |reply: &Reply, part: &str| {
            let what = differs(&want, reply, Ttl::Exact).unwrap_or_default();
            assert!(what.contains(part), "{what}");
        };
        says(&reply(Rcode::NXDOMAIN, &[]), "NXDOMAIN instead of NOERROR");
        says(&reply(Rcode::NOERROR, &both[..1]), "A 192.0.2.1 is missing");
        let wrong = [
            both[0].clone(),
            both[1].clone(),
            (Section::Answer, 60, a(3)),
        ];
        says(&reply(Rcode::NOERROR, &wrong), "A 192.0.2.3 is not in etcd");
        let twice = [both[0].clone(), both[1].clone(), both[1].clone()];
        says(&reply(Rcode::NOERROR, &twice), "A 192.0.2.1 is there twice");
        let added = [
            both[0].clone(),
            both[1].clone(),
            (Section::Additional, 60, a(9)),
        ];
        says(
            &reply(Rcode::NOERROR, &added),
            "192.0.2.9 in the additional",
        );
    }

    #[test]
    fn ttls_are_exact_or_at_most() {
        let want = expected(&[(a(1), 60)]);
        let with = |ttl| reply(Rcode::NOERROR, &[(Section::Answer, ttl, a(1))]);
        assert!(differs(&want, &with(59), Ttl::Exact).is_some());
        assert!(differs(&want, &with(59), Ttl::AtMost).is_none());
        assert!(differs(&want, &with(61), Ttl::AtMost).is_some());
    }
}
