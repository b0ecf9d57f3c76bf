//! etcd: names that come live from etcd.
//!
//! ```text
//!   cluster ──list, watch──▶ follow.rs ──records──▶ tree.rs ◀──question── Etcd (here) ──▶ answer
//!   (client.rs, or the embedded store, or a test's double: api.rs says what they have in common)
//! ```
//! Nothing here waits for the network to answer, except for a name outside the zone that an alias leads to.

mod addresses;
mod answer;
mod api;
mod auto;
mod client;
mod collect;
mod config;
#[cfg(feature = "testing")]
mod double;
mod follow;
mod gateway;
mod look;
mod made;
mod members;
#[cfg(test)]
mod model;
mod outside;
mod record;
mod skipped;
mod skydns;
mod snapshot;
mod store;
mod stubs;
mod style;
mod tls;
mod tree;
mod v2;
mod wildcard;
mod zone;

use std::sync::Arc;

pub use api::*;
pub use client::*;
pub use look::*;
pub use v2::*;

use collect::Collector;
use follow::Follower;
use made::Made;
use skydns::is_reverse;
use stubs::Stubs;
use style::Style;
use tree::{Finished, Of, is_wildcard};
use zone::{SOA_OCTETS, ZoneData};

use crate::kit::errors::{ServeError, SetupError, SetupErrors};
use crate::kit::fallthrough::Fallthrough;
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::lookup::Lookup;
use crate::kit::options::Checked;
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::{Query, flags};
use crate::kit::response::{Answer, Response};
use crate::kit::setup::ServerSetup;
use crate::kit::wire::name::labels;
use crate::kit::wire::{Class, Rcode, Rtype, Section};
use crate::kit::zones::ZoneSet;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "etcd",
    aliases: &[],
    summary: "answers from etcd, followed live and kept in memory",
    arguments: config::ARGUMENTS,
    options: config::OPTIONS,
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let mut errors = SetupErrors::default();
    for directive in directives {
        match config::read(directive, server) {
            Ok(config) => {
                if let Err(error) = put_in(config, directive, server) {
                    errors.0.push(error);
                }
            }
            Err(SetupErrors(more)) => errors.0.extend(more),
        }
    }
    match errors.0.is_empty() {
        true => Ok(()),
        false => Err(errors),
    }
}

/// Puts one instance into the chain.
fn put_in(
    config: config::Config,
    directive: &Checked,
    server: &mut ServerSetup<'_>,
) -> Result<(), SetupError> {
    let span = directive.span();
    let follower = follow::of(&config, span, server)?;
    let tree = follower.tree();
    if config.style.auto_ptr {
        tree.index_addresses();
        let mut zones = config.zones.iter();
        if config.style.sky.is_none() && !zones.any(|zone| is_reverse(zone.name.as_wire())) {
            server.warn(
                span,
                "`auto-ptr` answers in reverse zones, and none is among the zones here; add the networks, as in `example.org 192.0.2.0/24`",
            );
        }
    }
    let zones = config.zones.iter().map(|zone| {
        // What is made from the addresses of all names changes with all of them.
        let is_made = config.style.auto_ptr && is_reverse(zone.name.as_wire());
        let serial = match is_made {
            true => tree.serial(b""),
            false => tree.serial(&ZoneData::path(zone)),
        };
        ZoneData::new(zone.clone(), serial, &config.style)
    });
    if config.style.sky.is_some() {
        server.accept_all_classes();
    }
    let stubs = match (directive.option("stubzones"), &config.style.sky) {
        (Some(option), Some(_)) => Some(Stubs::new(option, &config.zones, &follower, server)),
        (Some(option), None) => {
            let what = "`stubzones` has no effect without `answers skydns`";
            server.warn(option.span(), what);
            None
        }
        (None, _) => None,
    };
    let handler = Etcd {
        stubs,
        zone_data: zones.collect(),
        view: tree.view(&config.view()),
        zones: config.zones,
        fallthrough: config.fallthrough,
        fallthrough_nodata: config.fallthrough_nodata,
        flags: match &config.style.sky {
            None => flags::AA,
            Some(sky) if sky.no_rec => flags::AA,
            Some(_) => flags::AA | flags::RA,
        },
        style: config.style,
        lookup: server.lookup(),
        follower,
    };
    server.chain(handler);
    Ok(())
}

/// One `etcd` line at work.
struct Etcd {
    zones: ZoneSet,
    // In the order of `zones`.
    zone_data: Vec<ZoneData>,
    fallthrough: Fallthrough,
    fallthrough_nodata: Fallthrough,
    // Of every answer from the zones.
    flags: u16,
    style: Style,
    // Says in the tree whose answers are whose.
    view: u16,
    follower: Arc<Follower>,
    lookup: Lookup,
    // Zones that others are asked for.
    stubs: Option<Stubs>,
}

impl Handler for Etcd {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        let query = match &self.stubs {
            None => query,
            // Before our own zones: a stub zone may be a part of one.
            Some(stubs) => match stubs.serve(query) {
                Ok(served) => return served,
                Err(query) => query,
            },
        };
        let (query, next) = match &self.style.sky {
            None if query.qclass() != Class::IN => return next.serve(query),
            None => (query, next),
            Some(sky) => match self.before_zones(sky, query, next) {
                Ok(served) => return served,
                Err(rest) => rest,
            },
        };
        let Some(zone) = self.zone_of(query.qname()) else {
            return next.serve(query);
        };
        let tree = self.follower.tree();
        if !tree.is_loaded() {
            return Served::Now(query.fail(self.not_ready()));
        }
        let (query, next) = match &self.style.sky {
            None if query.qtype() == Rtype::SOA => return Served::Now(soa(query, zone)),
            None => (query, next),
            Some(sky) => match self.reserved(sky, query, next, zone) {
                Ok(served) => return served,
                Err(rest) => rest,
            },
        };
        let of = Of {
            view: self.view,
            qtype: answered_type(query.qtype()).0,
            for_wildcard: false,
        };
        let hash = tree.hash(query.qname());
        let changes = tree.changes();
        let shard = tree.shard(hash);
        match shard.find(hash, query.qname()) {
            Some(entry) => {
                if let Some(finished) = entry.answer(of, changes) {
                    if finished.counts == [0; 3] {
                        drop(shard);
                        return self.no_data(query, next, zone);
                    }
                    return Served::Now(finish(query, self.flags, finished.counts, &finished.wire));
                }
                let version = entry.version;
                drop(shard);
                self.make(query, next, zone, of, Some((hash, version, changes)))
            }
            None => {
                drop(shard);
                self.without_entry(query, next, zone, of)
            }
        }
    }
}

/// Where a finished answer is to be left: the name's hash, its entry's version and the tree's changes when it was looked for.
type Place = Option<(u64, u32, u64)>;

impl Etcd {
    fn zone_of(&self, qname: &[u8]) -> Option<&ZoneData> {
        let zone = self.zones.cover(qname)?;
        match self.zone_data.as_slice() {
            [only] => Some(only),
            all => all.iter().find(|data| data.zone.name == zone.name),
        }
    }

    fn not_ready(&self) -> ServeError {
        ServeError::Backend {
            which: format!("etcd {}", self.follower.endpoints()),
            what: "nothing has been read from it yet".into(),
            not_ready: true,
        }
    }

    /// What has no entry may still be answered for: patterns and names that are their words, wildcards, names above addresses.
    fn without_entry<'c>(
        &'c self,
        query: Query,
        next: Next<'c>,
        zone: &'c ZoneData,
        of: Of,
    ) -> Served<'c> {
        let is_made = self.style.auto_ptr && is_reverse(query.qname());
        if self.style.record_wildcards && !is_made {
            return match self.by_wildcard(query, next, zone, of) {
                Ok(served) => served,
                Err((query, next)) => self.make(query, next, zone, of, None),
            };
        }
        match is_made || labels(query.qname()).any(is_wildcard) {
            true => self.make(query, next, zone, of, None),
            false => self.missing(query, next, zone),
        }
    }

    /// What `make` makes of one state of the tree.
    fn collected<T>(&self, zone: &ZoneData, make: impl FnOnce(Collector<'_>) -> T) -> T {
        let tree = self.follower.tree();
        let addresses = self.style.auto_ptr.then(|| tree.addresses());
        let keys = tree.keys();
        make(Collector {
            keys: &keys,
            addresses: addresses.as_ref().and_then(|addresses| addresses.as_ref()),
            zones: &self.zones,
            zone,
            style: &self.style,
            lookups: 0,
        })
    }

    /// An answer that was not there: makes it, gives it and leaves it for the next one.
    fn make<'c>(
        &'c self,
        query: Query,
        next: Next<'c>,
        zone: &'c ZoneData,
        of: Of,
        place: Place,
    ) -> Served<'c> {
        if let Some(sky) = &self.style.sky {
            return self.make_sky(sky, query, next, zone, None, place);
        }
        let tree = self.follower.tree();
        let qtype = Rtype(of.qtype);
        let made = self.collected(zone, |collector| {
            answer::make(collector, query.qname(), qtype)
        });
        let Some(made) = made else {
            return self.missing(query, next, zone);
        };
        if self.is_others_apex(&query, zone, &made) {
            return next.serve(query);
        }
        if !made.is_whole() {
            return Served::later(outside::complete(&self.lookup, query, zone, made));
        }
        let (wire, counts) = made.wire(query.qname(), query.qtype());
        if let Some((hash, version, changes)) = place {
            let valid = if made.alone { 0 } else { changes };
            let finished = Finished::new(of, valid, counts, &wire);
            tree.keep(hash, query.qname(), version, finished);
        }
        match counts {
            [0, 0, 0] => self.no_data(query, next, zone),
            counts => Served::Now(finish(query, self.flags, counts, &wire)),
        }
    }

    /// A name that exists without a record of the type.
    fn no_data<'c>(&'c self, query: Query, next: Next<'c>, zone: &'c ZoneData) -> Served<'c> {
        let is_own_ns = self.style.sky.is_some()
            && query.qtype() == Rtype::NS
            && query.qname() == zone.zone.name.as_wire();
        let passes = match is_own_ns {
            true => self.fallthrough.passes(query.qname()),
            false => self.fallthrough_nodata.passes(query.qname()),
        };
        match passes {
            true => next.serve(query),
            false if is_own_ns => Served::Now(self.own_ns(query, zone)),
            false => Served::Now(negative(query, self.flags, zone, Rcode::NOERROR)),
        }
    }

    /// A name that does not exist.
    fn missing<'c>(&'c self, query: Query, next: Next<'c>, zone: &'c ZoneData) -> Served<'c> {
        let has_address = |collector: Collector<'_>| {
            let mut names = collector.automatic(query.qname());
            names.next().is_some()
        };
        if self.style.auto_ptr && is_reverse(query.qname()) && self.collected(zone, has_address) {
            return self.no_data(query, next, zone);
        }
        if self.fallthrough.passes(query.qname()) {
            return next.serve(query);
        }
        // The zone itself exists even when it is empty.
        let query = match &self.style.sky {
            None => query,
            Some(_) => match self.own_name(query, zone) {
                Ok(response) => return Served::Now(response),
                Err(query) => query,
            },
        };
        match query.qname() == zone.zone.name.as_wire() {
            true => self.no_data(query, next, zone),
            false => Served::Now(negative(query, self.flags, zone, Rcode::NXDOMAIN)),
        }
    }

    /// Whether name servers are asked for that are not in etcd but perhaps further down: `etcd .` in front of `forward`.
    fn is_others_apex(&self, query: &Query, zone: &ZoneData, made: &Made) -> bool {
        query.qtype() == Rtype::NS
            && made.answer.is_empty()
            && query.qname() == zone.zone.name.as_wire()
            && self.fallthrough.passes(query.qname())
    }
}

/// The types that records can have; all others are answered alike.
fn answered_type(qtype: Rtype) -> Rtype {
    match qtype {
        Rtype::A
        | Rtype::AAAA
        | Rtype::TXT
        | Rtype::CNAME
        | Rtype::MX
        | Rtype::SRV
        | Rtype::PTR
        | Rtype::NS => qtype,
        _ => Rtype(0),
    }
}

/// What every answer from the tree has: it is an authority's, and a cache may not keep it, since the tree changes by itself.
fn begin(query: Query, flags: u16) -> Answer {
    query.answer().flags(flags).not_stored()
}

/// The answer from a finished one: a copy.
fn finish(query: Query, flags: u16, counts: [u16; 3], wire: &[u8]) -> Response {
    begin(query, flags)
        .records_wire(Section::Answer, counts[0], wire)
        .records_wire(Section::Authority, counts[1], &[])
        .records_wire(Section::Additional, counts[2], &[])
        .done()
}

/// NXDOMAIN or NODATA, with the SOA that says for how long (RFC 2308 §3).
fn negative(query: Query, flags: u16, zone: &ZoneData, rcode: Rcode) -> Response {
    let mut room = [0; SOA_OCTETS];
    let soa = zone.negative_soa(query.qname().len(), &mut room);
    begin(query, flags)
        .rcode(rcode)
        .records_wire(Section::Authority, 1, soa)
        .done()
}

/// The zone's SOA, whichever of its names is asked for it, as CoreDNS has it.
fn soa(query: Query, zone: &ZoneData) -> Response {
    let mut room = [0; SOA_OCTETS];
    let soa = zone.negative_soa(query.qname().len(), &mut room);
    begin(query, flags::AA)
        .records_wire(Section::Answer, 1, soa)
        .done()
}
