//! From records to answers: which records a question collects, and what each type makes of them.
//!
//! All of it works on the sorted keys under their read lock, so that an answer is made of one state of the tree. What it cannot know (the
//! address of a name outside the zone) is left as [`Item::Outside`] for whoever may wait.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::record::{Host, MAIL, NO_PORT, Record};
use super::tree::{Keys, below, is_wildcard, name_of, path_of};
use crate::kit::query::flags;
use crate::kit::wire::name::{is_within, labels, suffixes};
use crate::kit::wire::writer::{Compressor, Rdata};
use crate::kit::wire::{Class, Name, Rtype, Section, Writer};
use crate::kit::zones::Zone;

/// Keys that one answer looks at: a message of 65,535 octets holds 4,095 addresses.
const KEYS_MAX: usize = 4096;
/// CNAMEs in a row.
const CHAIN_MAX: usize = 10;
/// Names that one answer looks up in the tree: aliases may branch at each step.
const LOOKUPS_MAX: usize = 64;
/// Names outside the zone that one answer asks for.
const OUTSIDE_MAX: usize = 16;
/// TTL and minimum of the SOA record, in seconds.
const SOA_TTL: u32 = 30;

/// What a name with records below it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subtree {
    /// Everything below it; its own record only if nothing is below (SkyDNS, CoreDNS).
    On,
    /// What is one level below it; its own record only if there is none.
    Children,
    /// Its own record.
    Off,
}

/// A zone of an instance, and what is fixed about it.
pub(super) struct ZoneData {
    /// The zone.
    pub(super) zone: Zone,
    apex: Name,
    ns: Name,
    // SOA's two names, without what the zone adds.
    serial: Arc<AtomicI64>,
    serial_is_time: bool,
}

impl ZoneData {
    pub(super) fn new(zone: Zone, serial: Arc<AtomicI64>, serial_is_time: bool) -> ZoneData {
        // A zone that leaves no room for the reserved names has none of them.
        let below = |label: &[u8]| {
            let dns = zone.name.child(b"dns");
            dns.and_then(|dns| dns.child(label))
                .unwrap_or_else(|_| zone.name.clone())
        };
        ZoneData {
            apex: below(b"apex"),
            ns: below(b"ns"),
            zone,
            serial,
            serial_is_time,
        }
    }

    /// The path of a zone's keys.
    pub(super) fn path(zone: &Zone) -> Vec<u8> {
        path_of(zone.name.as_wire()).unwrap_or_default()
    }

    fn serial(&self) -> u32 {
        if self.serial_is_time {
            return crate::kit::clock::unix_now().as_secs() as u32;
        }
        // RFC 1982: serials are compared modulo 2^32.
        self.serial.load(Ordering::Relaxed) as u32
    }

    /// The SOA record, pointing into a question of `qname_octets`: `out` and how much of it.
    pub(super) fn soa<'o>(&self, qname_octets: usize, out: &'o mut [u8; SOA_OCTETS]) -> &'o [u8] {
        let zone = self.zone.name.as_wire();
        let pointer = match zone.len() {
            0 | 1 => None,
            octets => Some(0xc000 | (12 + qname_octets.saturating_sub(octets)) as u16),
        };
        let mut at = 0;
        let mut put = |octets: &[u8]| {
            if let Some(room) = out.get_mut(at..at + octets.len()) {
                room.copy_from_slice(octets);
                at += octets.len();
            }
        };
        let zone_octets: &[u8] = match &pointer {
            Some(pointer) => &pointer.to_be_bytes(),
            None => &[0],
        };
        const MNAME: &[u8] = b"\x02ns\x03dns";
        const RNAME: &[u8] = b"\x0ahostmaster";
        let rdlength = MNAME.len() + RNAME.len() + 2 * zone_octets.len() + 20;
        put(zone_octets);
        put(&Rtype::SOA.0.to_be_bytes());
        put(&Class::IN.0.to_be_bytes());
        put(&SOA_TTL.to_be_bytes());
        put(&(rdlength as u16).to_be_bytes());
        put(MNAME);
        put(zone_octets);
        put(RNAME);
        put(zone_octets);
        for number in [self.serial(), 7200, 1800, 86_400, SOA_TTL] {
            put(&number.to_be_bytes());
        }
        out.get(..at).unwrap_or_default()
    }
}

/// Room for [`ZoneData::soa`].
pub(super) const SOA_OCTETS: usize = 64;

/// An answer, as far as the tree can make it.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) answer: Vec<Item>,
    pub(super) additional: Vec<Item>,
    /// Whether only the name asked for was looked at.
    pub(super) alone: bool,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A record.
    Record(Made1),
    /// What the server's own chain says about a name outside the zone.
    Outside {
        /// The name, wire form.
        target: Box<[u8]>,
        /// The type to ask for.
        qtype: Rtype,
        /// Whether its CNAMEs are wanted too.
        aliases: bool,
    },
}

/// A record made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Made1 {
    pub(super) owner: Box<[u8]>,
    pub(super) ttl: u32,
    pub(super) data: Data,
}

/// Its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Data {
    A([u8; 4]),
    Aaaa([u8; 16]),
    Name(Rtype, Box<[u8]>),
    Mx(u16, Box<[u8]>),
    Srv(u16, u16, u16, Box<[u8]>),
    Txt(Box<[u8]>),
}

impl Made1 {
    /// Type and data, to be written.
    pub(super) fn rdata(&self) -> (Rtype, Rdata<'_>) {
        match &self.data {
            Data::A(octets) => (Rtype::A, Rdata::Raw(octets)),
            Data::Aaaa(octets) => (Rtype::AAAA, Rdata::Raw(octets)),
            Data::Name(rtype, name) => (*rtype, Rdata::Name(name)),
            Data::Mx(preference, name) => (Rtype::MX, Rdata::Mx(*preference, name)),
            Data::Srv(priority, weight, port, target) => {
                (Rtype::SRV, Rdata::Srv(*priority, *weight, *port, target))
            }
            Data::Txt(text) => (Rtype::TXT, Rdata::Txt(text)),
        }
    }
}

impl Made {
    /// Whether nothing outside the tree is needed.
    pub(super) fn is_whole(&self) -> bool {
        let mut items = self.answer.iter().chain(&self.additional);
        items.all(|item| matches!(item, Item::Record(_)))
    }

    /// The records as they stand behind the question of `qname`, and their number by section.
    pub(super) fn wire(&self, qname: &[u8], qtype: Rtype) -> (Vec<u8>, [u16; 3]) {
        let mut message = vec![0, 0];
        message.extend_from_slice(&flags::QR.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(qname);
        message.extend_from_slice(&qtype.0.to_be_bytes());
        message.extend_from_slice(&Class::IN.0.to_be_bytes());
        let start = message.len();
        let mut names = Compressor::default();
        let mut counts = [0; 3];
        let sections = [
            (0, Section::Answer, &self.answer),
            (2, Section::Additional, &self.additional),
        ];
        for (at, section, items) in sections {
            for item in items {
                let Item::Record(record) = item else { continue };
                let (rtype, rdata) = record.rdata();
                let written = Writer::new(&mut message, &mut names).record(
                    section,
                    &record.owner,
                    rtype,
                    Class::IN,
                    record.ttl,
                    rdata,
                );
                if written {
                    counts[at] += 1;
                }
            }
        }
        message.drain(..start);
        (message, counts)
    }
}

/// Answers a question from the keys; `None`: the name does not exist.
pub(super) fn make(
    keys: &Keys,
    zone: &ZoneData,
    subtree: Subtree,
    qname: &[u8],
    qtype: Rtype,
) -> Option<Made> {
    let mut maker = Maker {
        keys,
        zone,
        subtree,
        lookups: 0,
        outside: 0,
        made: Made::default(),
    };
    match qtype {
        Rtype::A | Rtype::AAAA | Rtype::TXT => {
            let mut answer = Vec::new();
            maker.chase(qname, qtype, &mut Vec::new(), &mut answer)?;
            maker.made.answer = answer;
        }
        Rtype::SRV => maker.srv(qname)?,
        Rtype::MX => maker.mx(qname)?,
        Rtype::CNAME => maker.one_name(qname, Rtype::CNAME)?,
        Rtype::PTR => maker.one_name(qname, Rtype::PTR)?,
        Rtype::NS if qname == zone.zone.name.as_wire() => maker.ns(qname)?,
        _ => maker.exists(qname)?,
    }
    let mut made = maker.made;
    made.alone = maker.lookups <= 1;
    remove_doubles(&mut made.answer);
    remove_doubles(&mut made.additional);
    Some(made)
}

/// RFC 2181 §5: a set holds no record twice.
fn remove_doubles(items: &mut Vec<Item>) {
    let mut seen = HashSet::new();
    items.retain(|item| match item {
        Item::Record(record) => {
            seen.insert((record.owner.to_ascii_lowercase(), record.data.clone()))
        }
        Item::Outside { .. } => true,
    });
}

/// A record where it was found.
#[derive(Clone, Copy)]
struct Service<'k> {
    path: &'k [u8],
    record: &'k Record,
}

struct Maker<'k> {
    keys: &'k Keys,
    zone: &'k ZoneData,
    subtree: Subtree,
    lookups: usize,
    outside: usize,
    made: Made,
}

impl<'k> Maker<'k> {
    //--- Which records ------------------------------------------------------------------------

    /// The records that a name (lower-case) answers with; `None` if it does not exist.
    fn collect(&mut self, name: &[u8], qtype: Rtype) -> Option<Vec<Service<'k>>> {
        self.collect_as(self.subtree, name, qtype)
    }

    fn collect_as(
        &mut self,
        subtree: Subtree,
        name: &[u8],
        qtype: Rtype,
    ) -> Option<Vec<Service<'k>>> {
        self.lookups += 1;
        let path = path_of(name)?;
        let mut walk = Walk {
            keys: self.keys,
            found: Vec::new(),
            looked_at: 0,
        };
        if labels(name).any(is_wildcard) {
            let pattern: Vec<&[u8]> = path.split(|octet| *octet == b'/').collect();
            walk.matching(&mut Vec::new(), &pattern, subtree);
            // Children hide their parent's own record for a plain name only: the pattern says which are wanted.
            walk.found.sort_unstable_by_key(|service| service.path);
        } else {
            let own = self.keys.get_key_value(&*path);
            let anything_below = below(self.keys, &path).next().is_some();
            if own.is_none() && !anything_below {
                return None;
            }
            match subtree {
                Subtree::On => walk.below(&path),
                Subtree::Children => walk.children(&mut path.clone()),
                Subtree::Off => {}
            }
            if let (true, Some((path, record))) = (walk.found.is_empty(), own) {
                walk.found.push(Service { path, record });
            }
            return Some(chosen(walk.found, qtype));
        }
        match walk.found.is_empty() {
            true => None,
            false => Some(chosen(walk.found, qtype)),
        }
    }

    fn exists(&mut self, name: &[u8]) -> Option<()> {
        if labels(name).any(is_wildcard) {
            return self.collect(name, Rtype::ANY).map(|_| ());
        }
        let path = path_of(name)?;
        let exists = self.keys.contains_key(&*path) || below(self.keys, &path).next().is_some();
        exists.then_some(())
    }

    /// As [`Maker::collect`], and at the zone's own name what is reserved for it.
    fn collect_address(&mut self, name: &[u8], qtype: Rtype) -> Option<Vec<Service<'k>>> {
        if name == self.zone.zone.name.as_wire() && qtype != Rtype::TXT {
            let apex = self.zone.apex.clone();
            if let Some(services) = self.collect_as(Subtree::On, apex.as_wire(), qtype) {
                self.lookups -= 1;
                return Some(services);
            }
            self.lookups -= 1;
        }
        self.collect(name, qtype)
    }

    //--- Addresses and texts, behind aliases ----------------------------------------------------

    /// A, AAAA or TXT of a name, following aliases. The owner is spelled as it is to be shown.
    fn chase(
        &mut self,
        owner: &[u8],
        qtype: Rtype,
        chain: &mut Vec<Vec<u8>>,
        out: &mut Vec<Item>,
    ) -> Option<()> {
        let name = owner.to_ascii_lowercase();
        let record = |ttl, data| out_record(owner, ttl, data);
        let mut found = Vec::new();
        for Service {
            record: service, ..
        } in self.collect_address(&name, qtype)?
        {
            match (&service.host, qtype) {
                (_, Rtype::TXT) if !service.text().is_empty() => {
                    found.push(record(service.ttl, Data::Txt(service.text().into())));
                }
                (Host::V4(address), Rtype::A) => found.push(record(service.ttl, Data::A(*address))),
                (Host::V6(address), Rtype::AAAA) => {
                    found.push(record(service.ttl, Data::Aaaa(*address)));
                }
                (Host::Name(target), _) => {
                    let alias = record(service.ttl, Data::Name(Rtype::CNAME, target.clone()));
                    self.follow(&name, target, alias, qtype, chain, &mut found);
                }
                _ => {}
            }
        }
        // One address under a name once, whatever TTLs its keys have: the first key's.
        remove_doubles(&mut found);
        out.append(&mut found);
        Some(())
    }

    /// An alias and what is behind it; nothing if nothing is.
    fn follow(
        &mut self,
        name: &[u8],
        target: &[u8],
        alias: Item,
        qtype: Rtype,
        chain: &mut Vec<Vec<u8>>,
        out: &mut Vec<Item>,
    ) {
        let target_name = target.to_ascii_lowercase();
        // What is below the name is among its records already; the name itself would be a loop.
        if is_within(&target_name, name)
            || chain.len() > CHAIN_MAX
            || chain.contains(&target_name)
            || self.lookups >= LOOKUPS_MAX
        {
            return;
        }
        if is_within(&target_name, self.zone.zone.name.as_wire()) {
            let mut behind = Vec::new();
            chain.push(target_name);
            self.chase(target, qtype, chain, &mut behind);
            chain.pop();
            if !behind.is_empty() {
                out.push(alias);
                out.append(&mut behind);
            }
        } else if self.outside < OUTSIDE_MAX {
            self.outside += 1;
            out.push(alias);
            out.push(Item::Outside {
                target: target.into(),
                qtype,
                aliases: true,
            });
        }
    }

    //--- Services -------------------------------------------------------------------------------

    fn srv(&mut self, qname: &[u8]) -> Option<()> {
        let services = self.collect(qname, Rtype::SRV)?;
        let weight = |record: &Record| match record.weight {
            0 => 100,
            weight => u32::from(weight),
        };
        let mut sums: HashMap<u16, u64> = HashMap::new();
        for service in &services {
            *sums.entry(service.record.priority).or_default() += u64::from(weight(service.record));
        }
        let mut shown = HashSet::new();
        for Service { path, record } in services {
            if record.is(NO_PORT) {
                continue;
            }
            let sum = sums.get(&record.priority).copied().unwrap_or(1).max(1);
            let share = (100.0 / sum as f64 * f64::from(weight(record))).floor();
            let share = (share as u16).max(1);
            let Some(target) = target(path, record) else {
                continue;
            };
            // Two keys of one target name and port are one service.
            if matches!(record.host, Host::Name(_)) || shown.insert((target.clone(), record.port)) {
                let data = Data::Srv(record.priority, share, record.port, target.clone());
                self.made.answer.push(out_record(qname, record.ttl, data));
            }
            self.address_of(&target, record);
        }
        Some(())
    }

    fn mx(&mut self, qname: &[u8]) -> Option<()> {
        let services = self.collect(qname, Rtype::MX)?;
        let mut shown = HashSet::new();
        for Service { path, record } in services {
            if !record.is(MAIL) {
                continue;
            }
            let Some(target) = target(path, record) else {
                continue;
            };
            if shown.insert((target.to_ascii_lowercase(), record.priority)) {
                let data = Data::Mx(record.priority, target.clone());
                self.made.answer.push(out_record(qname, record.ttl, data));
            }
            self.address_of(&target, record);
        }
        Some(())
    }

    /// Addresses of a target, for the additional section.
    fn address_of(&mut self, target: &[u8], record: &Record) {
        match &record.host {
            Host::None => {}
            Host::V4(address) => {
                let item = out_record(target, record.ttl, Data::A(*address));
                self.made.additional.push(item);
            }
            Host::V6(address) => {
                let item = out_record(target, record.ttl, Data::Aaaa(*address));
                self.made.additional.push(item);
            }
            Host::Name(_) => {
                let name = target.to_ascii_lowercase();
                if is_within(&name, self.zone.zone.name.as_wire()) {
                    if self.lookups < LOOKUPS_MAX {
                        let mut addresses = Vec::new();
                        self.chase(target, Rtype::A, &mut vec![name], &mut addresses);
                        self.made.additional.append(&mut addresses);
                    }
                } else {
                    self.addresses_outside(target);
                }
            }
        }
    }

    fn addresses_outside(&mut self, target: &[u8]) {
        for qtype in [Rtype::A, Rtype::AAAA] {
            let item = Item::Outside {
                target: target.into(),
                qtype,
                // Those of the A answer are enough.
                aliases: qtype == Rtype::A,
            };
            if self.outside < OUTSIDE_MAX && !self.made.additional.contains(&item) {
                self.outside += 1;
                self.made.additional.push(item);
            }
        }
    }

    //--- One name -------------------------------------------------------------------------------

    /// CNAME or PTR: the name's own record and those one level below it, host names only. There is one CNAME at most.
    fn one_name(&mut self, qname: &[u8], rtype: Rtype) -> Option<()> {
        self.exists(qname)?;
        let own = self
            .collect_as(Subtree::Off, qname, rtype)
            .unwrap_or_default();
        let children = self
            .collect_as(Subtree::Children, qname, rtype)
            .unwrap_or_default();
        self.lookups = 1;
        for Service { record, .. } in own.into_iter().chain(children) {
            if let Host::Name(host) = &record.host {
                let data = Data::Name(rtype, host.clone());
                self.made.answer.push(out_record(qname, record.ttl, data));
                if rtype == Rtype::CNAME {
                    break;
                }
            }
        }
        Some(())
    }

    /// The zone's name servers: the records below `ns.dns`.
    fn ns(&mut self, qname: &[u8]) -> Option<()> {
        let ns = self.zone.ns.clone();
        for Service { path, record } in self.collect_as(Subtree::On, ns.as_wire(), Rtype::NS)? {
            let Some(target) = target(path, record) else {
                continue;
            };
            let data = Data::Name(Rtype::NS, target.clone());
            self.made.answer.push(out_record(qname, record.ttl, data));
            self.address_of(&target, record);
        }
        Some(())
    }
}

fn out_record(owner: &[u8], ttl: u32, data: Data) -> Item {
    Item::Record(Made1 {
        owner: owner.into(),
        ttl,
        data,
    })
}

/// The name of a service: its host if that is a name, else its key as a name; less the labels that are to be stripped.
fn target(path: &[u8], record: &Record) -> Option<Box<[u8]>> {
    let strip = usize::from(record.targetstrip);
    match &record.host {
        Host::None => None,
        Host::Name(name) => Some(stripped(name, strip).into()),
        Host::V4(_) | Host::V6(_) => {
            let name = name_of(path)?;
            Some(stripped(name.as_wire(), strip).into())
        }
    }
}

/// A name without so many of its first labels; the whole name if it has no more than that.
fn stripped(name: &[u8], strip: usize) -> &[u8] {
    match suffixes(name).nth(strip) {
        Some(rest) if rest.len() > 1 => rest,
        _ => name,
    }
}

/// Those of the records that count for a type, after groups.
fn chosen(mut services: Vec<Service<'_>>, qtype: Rtype) -> Vec<Service<'_>> {
    services.retain(|service| {
        service.record.host != Host::None
            || qtype == Rtype::TXT && !service.record.text().is_empty()
    });
    let depth = |service: &Service<'_>| service.path.iter().filter(|octet| **octet == b'/').count();
    // The shallowest level with a group decides, unless it disagrees.
    let grouped = services
        .iter()
        .filter(|service| !service.record.group().is_empty());
    let Some(level) = grouped.clone().map(depth).min() else {
        return services;
    };
    let mut groups = grouped
        .filter(|service| depth(service) == level)
        .map(|service| service.record.group());
    let Some(group) = groups.next() else {
        return services;
    };
    if groups.all(|other| other == group) {
        services.retain(|service| {
            let own = service.record.group();
            own.is_empty() || own == group
        });
    }
    services
}

/// A walk over the keys that does not visit more than it must.
struct Walk<'k> {
    keys: &'k Keys,
    found: Vec<Service<'k>>,
    looked_at: usize,
}

impl<'k> Walk<'k> {
    /// Everything below a path.
    fn below(&mut self, path: &[u8]) {
        for (path, record) in below(self.keys, path) {
            if self.is_full() {
                return;
            }
            self.looked_at += 1;
            self.found.push(Service { path, record });
        }
    }

    fn is_full(&self) -> bool {
        self.looked_at >= KEYS_MAX
    }

    /// What is one level below a path.
    fn children(&mut self, base: &mut Vec<u8>) {
        self.matching(base, &[b"*"], Subtree::Off);
    }

    /// Every key whose segments behind `base` equal those of the pattern, a wildcard any one; with `subtree` what is below them too.
    fn matching(&mut self, base: &mut Vec<u8>, pattern: &[&[u8]], subtree: Subtree) {
        let Some((segment, pattern)) = pattern.split_first() else {
            if let Some((path, record)) = self.keys.get_key_value(&**base) {
                self.found.push(Service { path, record });
            }
            match subtree {
                Subtree::On => self.below(base),
                Subtree::Children => self.children(&mut base.clone()),
                Subtree::Off => {}
            }
            return;
        };
        let depth = base.len();
        if !base.is_empty() {
            base.push(b'/');
        }
        if !is_wildcard(segment) {
            base.extend_from_slice(segment);
            self.matching(base, pattern, subtree);
            base.truncate(depth);
            return;
        }
        let above = base.len();
        let mut from = Bound::Included(base.clone().into_boxed_slice());
        while let Some((path, _)) = self.keys.range((from, Bound::Unbounded)).next() {
            let Some(rest) = path.strip_prefix(&**base).filter(|_| !self.is_full()) else {
                break;
            };
            self.looked_at += 1;
            let end = rest.iter().position(|octet| *octet == b'/');
            base.extend_from_slice(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
            // A child with a key of its own stood there before what is below it.
            let seen = end.is_some() && self.keys.contains_key(&**base);
            from = match end {
                None => Bound::Excluded(path.clone()),
                Some(_) => {
                    let mut behind = base.clone();
                    behind.push(b'/' + 1);
                    Bound::Included(behind.into_boxed_slice())
                }
            };
            if !seen {
                self.matching(base, pattern, subtree);
            }
            base.truncate(above);
        }
        base.truncate(depth);
    }
}
