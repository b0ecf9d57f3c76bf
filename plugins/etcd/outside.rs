//! The rest of an answer whose aliases or targets lead out of the zone: asked of the server's own chain, and waited for.

use futures_util::future::join_all;

use super::made::{Item, Made};
use super::negative;
use super::zone::ZoneData;
use crate::kit::errors::ServeError;
use crate::kit::lookup::Lookup;
use crate::kit::query::{Query, flags};
use crate::kit::response::{Answer, Owner, Response};
use crate::kit::wire::message::{expand_name, records};
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Class, NameBuf, Rcode, Rtype, Section};

/// Asks what is missing, all at once, and puts the answer together. Unlike one from the tree alone it may be kept by a cache.
pub(super) async fn complete(
    lookup: &Lookup,
    query: Query,
    zone: &ZoneData,
    made: Made,
) -> Response {
    let items = || made.answer.iter().chain(&made.additional);
    let asking = items().filter_map(|item| match item {
        Item::Record(_) => None,
        Item::Outside { target, qtype, .. } => Some(lookup.ask(&query, target, *qtype)),
    });
    let replies = join_all(asking.collect::<Vec<_>>()).await;
    let aliases = made.answer.iter();
    let aliases = aliases.filter(|item| matches!(item, Item::Outside { .. }));
    let (for_answer, _) = replies.split_at(aliases.count());
    if is_nothing_but_failures(&made, for_answer) {
        let what = "a name outside the zone could not be resolved";
        return query.fail(ServeError::Backend {
            which: "etcd".into(),
            what: what.into(),
            not_ready: false,
        });
    }
    let mut answer = query.answer().authoritative();
    let mut replies = replies.iter();
    for (section, items) in [
        (Section::Answer, &made.answer),
        (Section::Additional, &made.additional),
    ] {
        for item in items {
            answer = match item {
                Item::Record(record) => {
                    let (rtype, rdata) = record.rdata();
                    answer.record(
                        section,
                        Owner::Name(&record.owner),
                        rtype,
                        record.ttl,
                        rdata,
                    )
                }
                Item::Outside { aliases, .. } => match replies.next() {
                    Some(Some(reply)) => copy(answer, section, reply, *aliases),
                    _ => answer,
                },
            };
        }
    }
    let response = answer.done();
    // All targets of an MX or SRV were outside and none was found: there is still the answer itself.
    match response.count(Section::Answer) {
        0 => negative(response.into_query(), flags::AA, zone, Rcode::NOERROR),
        _ => response,
    }
}

/// Whether there are aliases, no other record, and none of them could be followed: better no answer than one without an address that
/// looks whole.
fn is_nothing_but_failures(made: &Made, replies: &[Option<Response>]) -> bool {
    let has_failed = |reply: &Option<Response>| {
        reply
            .as_ref()
            .is_none_or(|reply| reply.rcode() == Rcode::SERVFAIL)
    };
    let only_aliases = made.answer.iter().all(|item| match item {
        Item::Record(record) => record.rdata().0 == Rtype::CNAME,
        Item::Outside { .. } => true,
    });
    !replies.is_empty() && only_aliases && replies.iter().all(has_failed)
}

/// Copies a reply's answer section.
fn copy(mut answer: Answer, section: Section, reply: &Response, aliases: bool) -> Answer {
    if reply.is_truncated() && section == Section::Answer {
        answer = answer.flags(flags::TC);
    }
    let message = reply.wire();
    let Ok(found) = records(message) else {
        return answer;
    };
    let (mut owner, mut name) = (NameBuf::new(), NameBuf::new());
    for record in found.map_while(Result::ok) {
        if record.section != Section::Answer || record.class != Class::IN {
            continue;
        }
        if record.rtype == Rtype::CNAME && !aliases {
            continue;
        }
        if expand_name(message, record.start, &mut owner).is_err() {
            continue;
        }
        // Of the types that an alias's addresses or texts come with, CNAME alone may be compressed (RFC 3597 §4).
        let rdata = match record.rtype {
            Rtype::CNAME => match expand_name(message, record.rdata.start, &mut name) {
                Ok(_) => Rdata::Name(name.as_wire()),
                Err(_) => continue,
            },
            Rtype::A | Rtype::AAAA | Rtype::TXT | Rtype::DNAME | Rtype::RRSIG => {
                Rdata::Raw(message.get(record.rdata.clone()).unwrap_or_default())
            }
            _ => continue,
        };
        let owner = Owner::Name(owner.as_wire());
        answer = answer.record(section, owner, record.rtype, record.ttl, rdata);
    }
    answer
}
