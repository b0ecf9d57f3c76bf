//! Queries and responses for the unit tests of this folder.

use crate::kit::query::{Edns, Query, Slot, flags};
use crate::kit::response::{Owner, Response};
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Name, Rcode, Rtype, Section};

/// A query for `name`, with RD; words are `do`, `cd`, `norec`, `ecs=TEXT`.
pub(super) fn query(name: &str, qtype: Rtype, words: &[&str]) -> Query {
    let mut parent = Query::from_slot(Slot::new());
    let facts = &mut parent.slot_mut().facts;
    facts.flags = flags::RD;
    for word in words {
        match *word {
            "do" => {
                facts.edns = Some(Edns {
                    udp_size: 1232,
                    version: 0,
                    flags: 0x8000,
                    options: (0, 0),
                });
            }
            "cd" => facts.flags |= flags::CD,
            "norec" => facts.flags &= !flags::RD,
            ecs => {
                let data = ecs.strip_prefix("ecs=").expect("a known word").as_bytes();
                facts.packet = [&[0, 8, 0, data.len() as u8], data].concat();
                facts.edns = Some(Edns {
                    udp_size: 1232,
                    version: 0,
                    flags: 0,
                    options: (0, facts.packet.len() as u16),
                });
            }
        }
    }
    Query::internal(&parent, &wire(name), qtype).expect("a name that is one")
}

/// A name in wire form.
pub(super) fn wire(name: &str) -> Vec<u8> {
    Name::parse(name)
        .expect("a name that is one")
        .as_wire()
        .to_vec()
}

/// A response: records are written `SECTION OWNER TTL TYPE DATA`, sections `an`, `ns`, `ar`; an SOA's data is its MINIMUM.
pub(super) fn response(query: Query, rcode: Rcode, records: &[&str]) -> Response {
    let mut answer = query.answer().rcode(rcode);
    for record in records {
        let words: Vec<&str> = record.split_whitespace().collect();
        let [section, owner, ttl, rtype, data] = words.as_slice() else {
            panic!("{record}");
        };
        let section = match *section {
            "an" => Section::Answer,
            "ns" => Section::Authority,
            _ => Section::Additional,
        };
        let owner = wire(owner);
        let ttl = ttl.parse().expect("a TTL");
        let target;
        let octets;
        let rdata = match *rtype {
            "SOA" => Rdata::Soa {
                mname: &[0],
                rname: &[0],
                numbers: [1, 2, 3, 4, data.parse().expect("a MINIMUM")],
            },
            "CNAME" | "NS" => {
                target = wire(data);
                Rdata::Name(&target)
            }
            "RRSIG" => {
                let times: Vec<u32> = data
                    .split('-')
                    .map(|n| n.parse().expect("a time"))
                    .collect();
                octets = [
                    &[0, 1, 8, 2, 0, 0, 0, 60],
                    &times[1].to_be_bytes()[..],
                    &times[0].to_be_bytes(),
                    &[0, 0, 0],
                ]
                .concat();
                Rdata::Raw(&octets)
            }
            _ => {
                octets = data
                    .split('.')
                    .map(|n| n.parse().expect("an octet"))
                    .collect();
                Rdata::Raw(&octets)
            }
        };
        let rtype = Rtype::parse(rtype).expect("a type");
        answer = answer.record(section, Owner::Name(&owner), rtype, ttl, rdata);
    }
    answer.done()
}
