//! From parts to records: what was asked outside is put in, aliases that lead nowhere go, doubles go, TTLs are levelled.

use std::collections::HashMap;

use super::super::made::{Data, Item, Made, Made1};
use super::make::{Part, Parts};
use crate::kit::response::Response;
use crate::kit::wire::message::{expand_name, records};
use crate::kit::wire::{Class, NameBuf, Rcode, Rtype, Section};

/// What came of a question to the server's own chain.
pub(super) enum Reply {
    /// Its records; perhaps none.
    Found(Vec<Made1>),
    /// There is no such name.
    None,
    /// Nobody knows.
    Failed,
}

/// The answer of parts, with a reply for each question in them, in their order. `ttl`: the longest TTL in an answer of several records.
pub(super) fn settle(parts: Parts, replies: Vec<Reply>, ttl: u32) -> Made {
    let mut replies = replies.into_iter();
    let (_, mut answer) = flatten(parts.answer, &mut replies);
    let (_, mut additional) = flatten(parts.additional, &mut replies);
    remove_doubles(&mut answer);
    remove_doubles(&mut additional);
    if answer.len() > 1 {
        let least = answer.iter().map(|record| record.ttl).min();
        let level = least.unwrap_or(ttl).min(ttl);
        answer.iter_mut().for_each(|record| record.ttl = level);
    }
    Made {
        answer: answer.into_iter().map(Item::Record).collect(),
        additional: additional.into_iter().map(Item::Record).collect(),
        alone: parts.alone,
    }
}

/// Whether anything was found, and the records.
fn flatten(parts: Vec<Part>, replies: &mut std::vec::IntoIter<Reply>) -> (bool, Vec<Made1>) {
    let (mut is_found, mut all) = (false, Vec::new());
    for part in parts {
        match part {
            Part::Record(record) => {
                is_found = true;
                all.push(record);
            }
            Part::Alias(alias, behind) => {
                let (found, mut records) = flatten(behind, replies);
                if found {
                    is_found = true;
                    all.push(alias);
                    all.append(&mut records);
                }
            }
            Part::Outside(outside) => {
                if let Some(Reply::Found(records)) = replies.next() {
                    is_found = true;
                    let wanted = |record: &Made1| outside.aliases || !is_alias(record);
                    all.extend(records.into_iter().filter(wanted));
                }
            }
        }
    }
    (is_found, all)
}

fn is_alias(record: &Made1) -> bool {
    matches!(record.data, Data::Name(Rtype::CNAME, _))
}

/// A record once (RFC 2181 §5), and one CNAME for a name (§10.1): the last one, where the first one stood.
fn remove_doubles(records: &mut Vec<Made1>) {
    let mut seen: HashMap<(Vec<u8>, Option<Data>), usize> = HashMap::new();
    let mut kept: Vec<Made1> = Vec::with_capacity(records.len());
    for record in records.drain(..) {
        let data = (!is_alias(&record)).then(|| record.data.clone());
        match seen.entry((record.owner.to_ascii_lowercase(), data)) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(record);
            }
            std::collections::hash_map::Entry::Occupied(place) => {
                if let Some(first) = kept.get_mut(*place.get()).filter(|_| is_alias(&record)) {
                    *first = record;
                }
            }
        }
    }
    *records = kept;
}

/// Reads a reply of the server's own chain; no TTL in it is longer than `ttl_max`.
pub(super) fn read(reply: Option<&Response>, ttl_max: u32) -> Reply {
    let Some(reply) = reply else {
        return Reply::Failed;
    };
    match reply.rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Reply::None,
        _ => return Reply::Failed,
    }
    let message = reply.wire();
    let Ok(found) = records(message) else {
        return Reply::Failed;
    };
    let mut made = Vec::new();
    let (mut owner, mut name) = (NameBuf::new(), NameBuf::new());
    for record in found.map_while(Result::ok) {
        if record.section != Section::Answer
            || record.class != Class::IN
            || expand_name(message, record.start, &mut owner).is_err()
        {
            continue;
        }
        let octets = message.get(record.rdata.clone()).unwrap_or_default();
        let data = match record.rtype {
            Rtype::A => octets.try_into().ok().map(Data::A),
            Rtype::AAAA => octets.try_into().ok().map(Data::Aaaa),
            Rtype::CNAME => expand_name(message, record.rdata.start, &mut name)
                .ok()
                .map(|_| Data::Name(Rtype::CNAME, name.as_wire().into())),
            // The names in these are never compressed (RFC 6672 §2.5, RFC 4034 §3.1.7).
            Rtype::DNAME | Rtype::RRSIG => Some(Data::Raw(record.rtype, octets.into())),
            _ => None,
        };
        if let Some(data) = data {
            made.push(Made1 {
                owner: owner.as_wire().into(),
                ttl: record.ttl.min(ttl_max),
                data,
            });
        }
    }
    Reply::Found(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alias(owner: &[u8], target: &[u8]) -> Made1 {
        Made1 {
            owner: owner.into(),
            ttl: 9,
            data: Data::Name(Rtype::CNAME, target.into()),
        }
    }

    fn address(owner: &[u8], octet: u8, ttl: u32) -> Made1 {
        Made1 {
            owner: owner.into(),
            ttl,
            data: Data::A([192, 0, 2, octet]),
        }
    }

    #[test]
    fn a_name_keeps_its_last_alias_and_each_record_once() {
        let mut all = vec![
            alias(b"\x01q\0", b"\x01a\0"),
            address(b"\x01a\0", 1, 5),
            alias(b"\x01Q\0", b"\x01b\0"),
            address(b"\x01A\0", 1, 7),
            address(b"\x01b\0", 1, 5),
        ];
        remove_doubles(&mut all);
        let expected = [
            alias(b"\x01Q\0", b"\x01b\0"),
            address(b"\x01a\0", 1, 5),
            address(b"\x01b\0", 1, 5),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn one_record_keeps_its_ttl_and_several_share_the_least() {
        let ttls = |ttls: &[u32]| {
            let records = ttls.iter().enumerate();
            let answer = records.map(|(n, ttl)| Part::Record(address(b"\x01q\0", n as u8, *ttl)));
            let parts = Parts {
                answer: answer.collect(),
                ..Parts::default()
            };
            let made = settle(parts, Vec::new(), 3600);
            let ttls = made.answer.into_iter().map(|item| match item {
                Item::Record(record) => record.ttl,
                Item::Outside { .. } => 0,
            });
            ttls.collect::<Vec<_>>()
        };
        assert_eq!(ttls(&[7200]), [7200]);
        assert_eq!(ttls(&[7200, 7200]), [3600, 3600]);
        assert_eq!(ttls(&[7200, 30, 60]), [30, 30, 30]);
    }

    fn part(depth: u32) -> BoxedStrategy<Part> {
        let record =
            (0u8..4, 0u32..9).prop_map(|(n, ttl)| Part::Record(address(b"\x01t\0", n, ttl)));
        let outside = any::<bool>().prop_map(|aliases| {
            Part::Outside(super::super::make::Outside {
                target: b"\x01o\0"[..].into(),
                qtype: Rtype::A,
                aliases,
            })
        });
        if depth == 0 {
            return prop_oneof![record, outside].boxed();
        }
        let behind = prop::collection::vec(part(depth - 1), 0..3);
        let alias = (0u8..3, behind)
            .prop_map(|(n, behind)| Part::Alias(alias(&[1, b'a' + n, 0], b"\x01t\0"), behind));
        prop_oneof![record, outside, alias].boxed()
    }

    proptest! {
        #[test]
        fn every_question_has_its_reply_and_no_alias_stands_alone(
            answer in prop::collection::vec(part(3), 0..4),
            found in prop::collection::vec(0u8..3, 0..20),
        ) {
            let parts = Parts { answer, ..Parts::default() };
            let asked = parts.outside().len();
            let replies = (0..asked).map(|at| match found.get(at) {
                Some(0) => Reply::Found(vec![address(b"\x01o\0", 9, 60)]),
                Some(1) => Reply::None,
                _ => Reply::Failed,
            });
            let replies: Vec<_> = replies.collect();
            let is_any = replies.iter().any(|reply| matches!(reply, Reply::Found(_)));
            let made = settle(parts, replies, 3600);
            let addresses = made.answer.iter().filter(|item| {
                matches!(item, Item::Record(record) if !is_alias(record))
            });
            let addresses = addresses.count();
            prop_assert!(addresses > 0 || made.answer.is_empty());
            prop_assert!(addresses > 0 || !is_any);
        }
    }
}
