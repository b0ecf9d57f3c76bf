//! Which records a question collects: walks over the sorted keys, by label, by pattern, by wildcard.

use std::ops::Bound;

use super::addresses::Addresses;
use super::record::{Host, Record};
use super::style::{Style, Subtree};
use super::tree::{Keys, below, is_wildcard, name_of, path_of};
use super::zone::ZoneData;
use crate::kit::wire::name::{NameBuf, is_within, labels, suffixes};
use crate::kit::wire::{Name, Rtype};
use crate::kit::zones::ZoneSet;

/// Keys that one answer looks at: a message of 65,535 octets holds 4,095 addresses.
const KEYS_MAX: usize = 4096;

/// A record where it was found.
#[derive(Clone, Copy)]
pub(super) struct Service<'k> {
    pub(super) path: &'k [u8],
    pub(super) record: &'k Record,
}

/// What a name collects.
pub(super) struct Collected<'k> {
    pub(super) services: Vec<Service<'k>>,
    // Where a wildcard's records were found instead of at the name: octets of its path, and the name.
    source: Option<(usize, Box<[u8]>)>,
}

impl<'k> Collected<'k> {
    /// Those of the records that count for a type, after groups.
    pub(super) fn chosen(mut self, qtype: Rtype) -> Collected<'k> {
        choose(&mut self.services, qtype);
        self
    }

    /// The name of a service: its host if that is a name, else its key as a name; less the labels that are to be stripped.
    pub(super) fn target(&self, service: Service<'_>) -> Option<Box<[u8]>> {
        let strip = usize::from(service.record.targetstrip);
        match &service.record.host {
            Host::None => None,
            Host::Name(name) => Some(stripped(name, strip).into()),
            Host::V4(_) | Host::V6(_) => {
                Some(stripped(self.name(service.path)?.as_wire(), strip).into())
            }
        }
    }

    /// The key as a name; where it answers for another name, that name in the wildcard's place.
    pub(super) fn name(&self, path: &[u8]) -> Option<NameBuf> {
        let Some((octets, instead)) = &self.source else {
            return name_of(path);
        };
        let below = name_of(path.get(*octets..)?)?;
        let mut name = NameBuf::new();
        for label in labels(below.as_wire()).chain(labels(instead)) {
            name.push_label(label).ok()?;
        }
        name.push(0).ok()?;
        Some(name)
    }
}

/// Collects records, and counts how often.
pub(super) struct Collector<'k> {
    pub(super) keys: &'k Keys,
    /// For reverse names that have no key.
    pub(super) addresses: Option<&'k Addresses>,
    pub(super) zones: &'k ZoneSet,
    pub(super) zone: &'k ZoneData,
    pub(super) style: &'k Style,
    /// Names looked up so far.
    pub(super) lookups: usize,
}

impl<'k> Collector<'k> {
    /// The records at and below a name (lower-case) that `style` wants; `None` if it does not exist.
    pub(super) fn collect(&mut self, name: &[u8]) -> Option<Collected<'k>> {
        if self.style.apex_is_own && name == self.zone.zone.name.as_wire() {
            return Some(self.apex());
        }
        self.collect_as(self.style.subtree, name)
    }

    /// The same with another depth.
    pub(super) fn collect_as(&mut self, subtree: Subtree, name: &[u8]) -> Option<Collected<'k>> {
        self.lookups += 1;
        let path = path_of(name)?;
        let services = if self.is_pattern(name) {
            // Children hide their parent's own record for a plain name only: the pattern says which are wanted.
            let pattern: Vec<&[u8]> = path.split(|octet| *octet == b'/').collect();
            let mut walk = self.walk();
            walk.matching(&mut Vec::new(), &pattern, subtree);
            walk.found.sort_unstable_by_key(|service| service.path);
            Some(walk.found).filter(|found| !found.is_empty())
        } else {
            self.at(subtree, &path)
        };
        match services {
            Some(services) => Some(Collected {
                services,
                source: None,
            }),
            None => self.synthesize(subtree, name),
        }
    }

    /// The record of a name's own key; a pattern has none, and a wildcard's counts.
    pub(super) fn own(&self, name: &[u8]) -> Option<&'k Record> {
        if self.is_pattern(name) {
            return None;
        }
        if let Some(record) = path_of(name).and_then(|path| self.keys.get(&*path)) {
            return Some(record);
        }
        let services = self.synthesize(Subtree::Off, name)?.services;
        services.first().map(|service| service.record)
    }

    /// What is at and below a name reserved in the zone; no wildcard stands for it.
    pub(super) fn reserved(&mut self, name: &Name) -> Option<Collected<'k>> {
        self.lookups += 1;
        Some(Collected {
            services: self.at(Subtree::On, &path_of(name.as_wire())?)?,
            source: None,
        })
    }

    /// Whether a name exists: has a record, or something below it.
    pub(super) fn exists(&mut self, name: &[u8]) -> Option<()> {
        match path_of(name) {
            Some(path) if !self.is_pattern(name) && self.has(&path) => Some(()),
            _ if self.automatic(name).next().is_some() => Some(()),
            _ => self.collect(name).map(|_| ()),
        }
    }

    /// The names of the address that a reverse name is, or of the addresses below it, with their records: those in our zones, but for
    /// what is reserved in them.
    pub(super) fn automatic(&self, name: &[u8]) -> impl Iterator<Item = (Name, &'k Record)> {
        let addresses = self.addresses.filter(|_| self.style.auto_ptr);
        let paths = addresses.map(|addresses| addresses.below(name));
        let found = paths.into_iter().flatten().take(KEYS_MAX);
        found.filter_map(|path| {
            let (path, record) = self.keys.get_key_value(path)?;
            let name = name_of(path)?;
            let name = stripped(name.as_wire(), usize::from(record.targetstrip));
            let lower = name.to_ascii_lowercase();
            let zone = self.zones.cover(&lower)?;
            let labels_in_zone = labels(zone.name.as_wire()).count();
            let mut inner = labels(&lower).collect::<Vec<_>>().into_iter().rev();
            let is_reserved = inner.nth(labels_in_zone) == Some(b"dns");
            let is_wildcard = labels(&lower).any(|label| label == b"*");
            if is_reserved || is_wildcard {
                return None;
            }
            Some((Name::from_wire(name).ok()?, record))
        })
    }

    fn is_pattern(&self, name: &[u8]) -> bool {
        self.style.query_wildcards && labels(name).any(is_wildcard)
    }

    fn has(&self, path: &[u8]) -> bool {
        self.keys.contains_key(path) || below(self.keys, path).next().is_some()
    }

    fn walk(&self) -> Walk<'k> {
        Walk {
            keys: self.keys,
            found: Vec::new(),
            looked_at: 0,
            like_etcd2: self.style.sky.is_some(),
        }
    }

    /// What is at a path.
    fn at(&self, subtree: Subtree, path: &[u8]) -> Option<Vec<Service<'k>>> {
        let own = self.keys.get_key_value(path);
        let own = own.map(|(path, record)| Service { path, record });
        if own.is_none() && below(self.keys, path).next().is_none() {
            return None;
        }
        let mut walk = self.walk();
        if self.style.sky.is_some() {
            walk.found.extend(own);
        }
        match subtree {
            Subtree::On => walk.below(path),
            Subtree::Children => walk.children(&mut path.to_vec()),
            Subtree::Off => {}
        }
        if walk.found.is_empty() {
            walk.found.extend(own);
        }
        Some(walk.found)
    }

    /// The zone's own key, and what is reserved for it; nothing of the zone's names.
    fn apex(&mut self) -> Collected<'k> {
        let path = path_of(self.zone.zone.name.as_wire()).unwrap_or_default();
        let mut services = self.at(Subtree::Off, &path).unwrap_or_default();
        let reserved = path_of(self.zone.apex.as_wire()).unwrap_or_default();
        services.extend(self.at(Subtree::On, &reserved).unwrap_or_default());
        self.lookups += 1;
        Collected {
            services,
            source: None,
        }
    }

    /// RFC 4592 §3.3.1: a name that is not there is answered for by the wildcard of its closest encloser, and by no other.
    fn synthesize(&self, subtree: Subtree, name: &[u8]) -> Option<Collected<'k>> {
        if !self.style.record_wildcards {
            return None;
        }
        let zone = self.zone.zone.name.as_wire();
        let above = suffixes(name).skip(1);
        for encloser in above.take_while(|encloser| is_within(encloser, zone)) {
            let mut path = path_of(encloser)?;
            if encloser != zone && !self.has(&path) {
                continue;
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.push(b'*');
            return Some(Collected {
                services: self.at(subtree, &path)?,
                source: Some((path.len(), name.into())),
            });
        }
        None
    }
}

/// A name without so many of its first labels; the whole name if it has no more than that.
fn stripped(name: &[u8], strip: usize) -> &[u8] {
    match suffixes(name).nth(strip) {
        Some(rest) if rest.len() > 1 => rest,
        _ => name,
    }
}

/// Keeps those of the records that count for a type, after groups.
fn choose(services: &mut Vec<Service<'_>>, qtype: Rtype) {
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
        return;
    };
    let mut groups = grouped
        .filter(|service| depth(service) == level)
        .map(|service| service.record.group());
    let Some(group) = groups.next() else {
        return;
    };
    if groups.all(|other| other == group) {
        services.retain(|service| {
            let own = service.record.group();
            own.is_empty() || own == group
        });
    }
}

/// A walk over the keys that does not visit more than it must.
struct Walk<'k> {
    keys: &'k Keys,
    found: Vec<Service<'k>>,
    looked_at: usize,
    // etcd's first API hid segments with `_` in front from who lists what is above them, and SkyDNS's answers rely on it.
    like_etcd2: bool,
}

impl<'k> Walk<'k> {
    /// Everything below a path.
    fn below(&mut self, base: &[u8]) {
        for (path, record) in below(self.keys, base) {
            if self.is_full() {
                return;
            }
            self.looked_at += 1;
            if !self.is_hidden(path.get(base.len()..).unwrap_or_default()) {
                self.found.push(Service { path, record });
            }
        }
    }

    /// Whether a path below another is not to be seen from there.
    fn is_hidden(&self, below: &[u8]) -> bool {
        self.like_etcd2
            && below
                .split(|octet| *octet == b'/')
                .any(|segment| segment.starts_with(b"_"))
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
            let child = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            let is_hidden = self.is_hidden(child);
            base.extend_from_slice(child);
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
            if !seen && !is_hidden {
                self.matching(base, pattern, subtree);
            }
            base.truncate(above);
        }
        base.truncate(depth);
    }
}
