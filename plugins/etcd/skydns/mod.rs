//! SkyDNS's answers: `answers skydns`.
//!
//! ```text
//!   class CH ─▶ who we are          reverse names ─▶ the tree, else passed on
//!   names outside the zones ─▶ passed on, if they have labels enough
//!   names in them ─▶ the tree: make.rs ─▶ finish.rs, what is outside it asked for in between
//! ```
//! Faults of SkyDNS are not repeated; docs/coming-from-skydns.md lists them.

mod finish;
mod make;

use std::net::IpAddr;

use futures_util::future::join_all;

use super::collect::Collector;
use super::made::Made;
use super::style::Sky;
use super::tree::{Finished, Of};
use super::zone::{SOA_OCTETS, ZoneData};
use super::{Etcd, Place, answered_type, finish as finished, negative};
use crate::kit::errors::ServeError;
use crate::kit::handler::{Next, Served};
use crate::kit::query::{Facts, Query, flags};
use crate::kit::response::{Owner, Response, Source};
use crate::kit::wire::name::{is_within, labels};
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Class, Name, Rcode, Rtype, Section};
use finish::{Reply, read, settle};
use make::{Asked, Parts, make};

/// Whether reverse look-ups are below which a name is.
pub(super) fn is_reverse(name: &[u8]) -> bool {
    is_within(name, b"\x07in-addr\x04arpa\0") || is_within(name, b"\x03ip6\x04arpa\0")
}

/// Extended DNS Errors (RFC 8914 §4.21, §4.22).
const NOT_AUTHORITATIVE: u16 = 20;
const NOT_SUPPORTED: u16 = 21;

impl Etcd {
    /// What is answered, passed on or refused before anything is looked for in a zone; the query comes back if none of it is.
    pub(super) fn before_zones<'c>(
        &'c self,
        sky: &'c Sky,
        query: Query,
        next: Next<'c>,
    ) -> Result<Served<'c>, (Query, Next<'c>)> {
        match query.qclass() {
            Class::IN => {}
            Class::CH => return Ok(Served::Now(self.chaos(query))),
            _ => return Ok(next.serve(query)),
        }
        // RFC 8482 §4 lets a server say less; SkyDNS says nothing.
        if query.qtype() == Rtype::ANY {
            return Ok(Served::Now(query.refuse()));
        }
        if self.zones.cover(query.qname()).is_some() {
            return Err((query, next));
        }
        if query.qtype() == Rtype::PTR && is_reverse(query.qname()) {
            return Ok(self.reverse(sky, query, next));
        }
        Ok(self.pass_on(sky, query, next))
    }

    /// The apex and the names that SkyDNS reserves, whether records are there or not; the query comes back if it is for none of them.
    pub(super) fn reserved<'c>(
        &'c self,
        sky: &'c Sky,
        query: Query,
        next: Next<'c>,
        zone: &'c ZoneData,
    ) -> Result<Served<'c>, (Query, Next<'c>)> {
        let apex = query.qname() == zone.zone.name.as_wire();
        if apex && query.qtype() == Rtype::SOA {
            let mut room = [0; SOA_OCTETS];
            let soa = zone.soa(query.qname().len(), self.style.ttl, &mut room);
            return Ok(Served::Now(finished(query, self.flags, [1, 0, 0], soa)));
        }
        match &sky.local {
            Some(local) if query.qname() == zone.local.as_wire() => {
                Ok(self.make_sky(sky, query, next, zone, Some(local), None))
            }
            _ => Err((query, next)),
        }
    }

    //--- Outside the zones ---------------------------------------------------------------------------

    /// A reverse name that no zone covers: what is in the tree, else what others know.
    fn reverse<'c>(&'c self, sky: &'c Sky, query: Query, next: Next<'c>) -> Served<'c> {
        let tree = self.follower.tree();
        let Some(zone) = self.zone_data.first() else {
            return self.pass_on(sky, query, next);
        };
        let of = Of {
            view: self.view,
            qtype: Rtype::PTR.0,
            for_wildcard: false,
        };
        let hash = tree.hash(query.qname());
        let changes = tree.changes();
        let shard = tree.shard(hash);
        let Some(entry) = shard.find(hash, query.qname()) else {
            drop(shard);
            return self.pass_on(sky, query, next);
        };
        // Nobody has said that the zone is ours: no AA.
        let flags = self.flags & !flags::AA;
        if let Some(found) = entry
            .answer(of, changes)
            .filter(|found| found.counts[0] > 0)
        {
            return Served::Now(finished(query, flags, found.counts, &found.wire));
        }
        let version = entry.version;
        drop(shard);
        let asked = Asked {
            owner: query.qname(),
            name: query.qname(),
            qtype: Rtype::PTR,
        };
        let parts = self.collected(zone, |collector| make(collector, sky, asked));
        let Some(parts) = parts.filter(|parts| !parts.answer.is_empty()) else {
            return self.pass_on(sky, query, next);
        };
        let made = settle(parts, Vec::new(), self.style.ttl);
        let (wire, counts) = made.wire(query.qname(), query.qtype());
        let keep = Finished::new(of, 0, counts, &wire);
        tree.keep(hash, query.qname(), version, keep);
        Served::Now(finished(query, flags, counts, &wire))
    }

    /// A name that is not ours.
    fn pass_on<'c>(&'c self, sky: &'c Sky, query: Query, next: Next<'c>) -> Served<'c> {
        let (code, why) = if labels(query.qname()).count() < sky.ndots {
            (NOT_SUPPORTED, "the name has fewer labels than ndots")
        } else if sky.no_rec && !query.is_internal() {
            (NOT_AUTHORITATIVE, "no recursion here")
        } else {
            return next.serve(query);
        };
        let mut response = query.rcode(Rcode::SERVFAIL);
        response.set_flags(self.flags & flags::RA, 0);
        response.set_source(Source::Policy);
        response.add_ede(code, why);
        Served::Now(response)
    }

    //--- In the zones --------------------------------------------------------------------------------

    /// An answer that was not there: makes it (from what is at another name `instead`), gives it and leaves it for the next one.
    pub(super) fn make_sky<'c>(
        &'c self,
        sky: &'c Sky,
        query: Query,
        next: Next<'c>,
        zone: &'c ZoneData,
        instead: Option<&'c Name>,
        place: Place,
    ) -> Served<'c> {
        let tree = self.follower.tree();
        let qtype = answered_type(query.qtype());
        let asked = Asked {
            owner: query.qname(),
            name: instead.map_or(query.qname(), Name::as_wire),
            qtype,
        };
        let parts = self.collected(zone, |collector| make(collector, sky, asked));
        let Some(parts) = parts else {
            return self.missing(query, next, zone);
        };
        if !parts.outside().is_empty() {
            return Served::later(self.complete(sky, query, zone, parts));
        }
        let made = settle(parts, Vec::new(), self.style.ttl);
        let (wire, counts) = made.wire(query.qname(), query.qtype());
        if let Some((hash, version, changes)) = place {
            let of = Of {
                view: self.view,
                qtype: qtype.0,
                for_wildcard: false,
            };
            let valid = if made.alone { 0 } else { changes };
            let keep = Finished::new(of, valid, counts, &wire);
            tree.keep(hash, query.qname(), version, keep);
        }
        match counts {
            [0, 0, 0] => self.no_data(query, next, zone),
            counts => Served::Now(finished(query, self.flags, counts, &wire)),
        }
    }

    /// Asks what is missing, all at once, and puts the answer together. Unlike one from the tree alone it may be kept by a cache.
    async fn complete(&self, sky: &Sky, query: Query, zone: &ZoneData, parts: Parts) -> Response {
        let asking = parts.outside();
        let asking = asking
            .iter()
            .map(|outside| self.lookup.ask(&query, &outside.target, outside.qtype));
        let replies = join_all(asking.collect::<Vec<_>>()).await;
        let truncated = replies.iter().flatten().any(Response::is_truncated);
        let read = |reply: &Option<Response>| read(reply.as_ref(), sky.completion_ttl);
        let replies: Vec<Reply> = replies.iter().map(read).collect();
        let has_failed = replies.iter().any(|reply| matches!(reply, Reply::Failed));
        let made = settle(parts, replies, self.style.ttl);
        if made.answer.is_empty() {
            // Better no answer than one that says there is none where nobody knows.
            return match has_failed {
                true => query.fail(ServeError::Backend {
                    which: "etcd".into(),
                    what: "a name outside the zone could not be resolved".into(),
                    not_ready: false,
                }),
                false => negative(query, self.flags, zone, Rcode::NOERROR),
            };
        }
        let (wire, counts) = made.wire(query.qname(), query.qtype());
        let flags = if truncated {
            self.flags | flags::TC
        } else {
            self.flags
        };
        let answer = query.answer().flags(flags);
        answer
            .records_wire(Section::Answer, counts[0], &wire)
            .records_wire(Section::Additional, counts[2], &[])
            .done()
    }

    //--- What no record says --------------------------------------------------------------------------

    /// A zone without name servers in etcd has one: us.
    pub(super) fn own_ns(&self, query: Query, zone: &ZoneData) -> Response {
        let ns = zone.ns.as_wire();
        let ttl = self.style.min_ttl;
        let address = own_address(&query);
        let mut answer = super::begin(query, self.flags).record(
            Section::Answer,
            Owner::Question,
            Rtype::NS,
            ttl,
            Rdata::Name(ns),
        );
        if let Some(address) = address {
            let (rtype, octets) = rdata(&address);
            let rdata = Rdata::Raw(octets.as_slice());
            answer = answer.record(Section::Additional, Owner::Name(ns), rtype, ttl, rdata);
        }
        answer.done()
    }

    /// A name that is not in etcd but in our own answers: `ns.dns.ZONE` where [`Etcd::own_ns`] names it, and `dns.ZONE` above it.
    pub(super) fn own_name(&self, query: Query, zone: &ZoneData) -> Result<Response, Query> {
        let ns = zone.ns.as_wire();
        if !is_within(ns, query.qname()) || ns == zone.zone.name.as_wire() {
            return Err(query);
        }
        let address = own_address(&query).map(|address| rdata(&address));
        Ok(match address {
            Some((rtype, octets)) if rtype == query.qtype() && query.qname() == ns => {
                let rdata = Rdata::Raw(octets.as_slice());
                super::begin(query, self.flags)
                    .record(
                        Section::Answer,
                        Owner::Question,
                        rtype,
                        self.style.min_ttl,
                        rdata,
                    )
                    .done()
            }
            _ => negative(query, self.flags, zone, Rcode::NOERROR),
        })
    }

    /// Who we are, as servers tell in class CH (RFC 4892 §3); everything else is a failure there, as SkyDNS has it.
    fn chaos(&self, query: Query) -> Response {
        const VERSION: &str = concat!("SkeinDNS-", env!("CARGO_PKG_VERSION"));
        const AUTHORS: &str = "The SkeinDNS authors";
        let text = match query.qname() {
            _ if query.qtype() != Rtype::TXT => None,
            b"\x07version\x04bind\0" | b"\x07version\x06server\0" => Some(VERSION),
            b"\x08hostname\x04bind\0" | b"\x02id\x06server\0" => Some("localhost"),
            b"\x07authors\x04bind\0" => Some(AUTHORS),
            name => {
                let mut zones = self.zones.iter();
                zones
                    .any(|zone| zone.name.as_wire() == name)
                    .then_some(AUTHORS)
            }
        };
        let answer = super::begin(query, self.flags);
        match text {
            Some(text) => answer
                .record(
                    Section::Answer,
                    Owner::Question,
                    Rtype::TXT,
                    0,
                    Rdata::Txt(text.as_bytes()),
                )
                .done(),
            None => answer.rcode(Rcode::SERVFAIL).source(Source::Policy).done(),
        }
    }
}

/// The answer of a name, or that there is none; `None` if something outside must be asked for it.
pub(super) fn make_now(
    collector: Collector<'_>,
    sky: &Sky,
    name: &[u8],
    qtype: Rtype,
) -> Option<Option<Made>> {
    let ttl = collector.style.ttl;
    let asked = Asked {
        owner: name,
        name,
        qtype,
    };
    match make(collector, sky, asked) {
        None => Some(None),
        Some(parts) if parts.outside().is_empty() => Some(Some(settle(parts, Vec::new(), ttl))),
        Some(_) => None,
    }
}

/// The address that the query came to.
fn own_address(query: &Facts) -> Option<IpAddr> {
    let address = query.local().ip().to_canonical();
    (!address.is_unspecified()).then_some(address)
}

fn rdata(address: &IpAddr) -> (Rtype, Octets) {
    match address {
        IpAddr::V4(v4) => (Rtype::A, Octets::V4(v4.octets())),
        IpAddr::V6(v6) => (Rtype::AAAA, Octets::V6(v6.octets())),
    }
}

/// An address's octets.
enum Octets {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Octets {
    fn as_slice(&self) -> &[u8] {
        match self {
            Octets::V4(octets) => octets,
            Octets::V6(octets) => octets,
        }
    }
}
