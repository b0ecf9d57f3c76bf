//! Which records a name has.

use std::collections::HashSet;

use skein_plugins::kit::wire::Name;
use skein_plugins::kit::wire::name::{is_within, labels, suffixes};

use super::super::rr::Rr;
use super::super::service::{Host, Service};
use super::{Answers, Entry, Expected, Model, Rules, Subtree, Zone};
use super::{below_dns, is_wildcard, name_of, path_of};
use skein_plugins::kit::wire::Rtype;

/// Keys that a server looks at for one answer; one that has more below it is not compared in full.
const KEYS_MAX: usize = 4096;
/// Names that a server looks up for one answer.
const LOOKUPS_MAX: usize = 64;

pub(super) type Found<'m> = (&'m Vec<u8>, &'m Entry);

/// The records of a name.
#[derive(Default)]
pub(super) struct Collected<'m> {
    pub(super) found: Vec<Found<'m>>,
    /// A wildcard's records: octets of its path, and the name that they stand at.
    instead: Option<(usize, Vec<u8>)>,
}

impl<'m> Collected<'m> {
    fn plain(found: Vec<Found<'m>>) -> Collected<'m> {
        Collected {
            found,
            instead: None,
        }
    }

    /// The name of a service: its host if that is a name, else its key as a name; less the labels that are to be stripped.
    pub(super) fn target(&self, path: &[u8], service: &Service) -> Option<Box<[u8]>> {
        let name: Box<[u8]> = match &service.host {
            Host::None => return None,
            Host::Name(name) => name.clone(),
            Host::Address(_) => self.name(path)?,
        };
        let strip = service.targetstrip.clamp(0, 127) as usize;
        let rest = suffixes(&name).nth(strip).filter(|rest| rest.len() > 1);
        Some(rest.map_or_else(|| name.clone(), Into::into))
    }

    /// A key as a name.
    pub(super) fn name(&self, path: &[u8]) -> Option<Box<[u8]>> {
        let Some((octets, instead)) = &self.instead else {
            return Some(name_of(path)?.as_wire().into());
        };
        let mut name = Name::from_wire(instead).ok()?;
        let below = path
            .get(*octets..)?
            .split(|octet| matches!(octet, b'/' | b'.'));
        for label in below.filter(|label| !label.is_empty()) {
            name = name.child(label).ok()?;
        }
        Some(name.as_wire().into())
    }
}

pub(super) struct Collector<'m> {
    model: &'m Model,
    pub(super) rules: &'m Rules,
    /// Lower-cased wire form.
    pub(super) zone: &'m [u8],
    pub(super) lookups: usize,
    /// There was more than a server looks at.
    pub(super) partial: bool,
}

impl<'m> Collector<'m> {
    pub(super) fn new(model: &'m Model, zone: &'m Zone) -> Collector<'m> {
        Collector {
            model,
            rules: &zone.rules,
            zone: &zone.name,
            lookups: 0,
            partial: false,
        }
    }

    /// Whether no more names are looked up.
    pub(super) fn is_exhausted(&mut self) -> bool {
        let exhausted = self.lookups >= LOOKUPS_MAX;
        self.partial |= exhausted;
        exhausted
    }

    pub(super) fn exists(&self, name: &[u8]) -> bool {
        name == self.zone
            || !self.is_pattern(name) && self.has(name)
            || self.at(self.rules.subtree, name).is_some()
    }

    /// Whether there is a key at or below a name.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        path_of(name).is_some_and(|path| {
            self.model.entries.contains_key(&path) || self.model.below(&path).next().is_some()
        })
    }

    /// The records of a name, all that it answers with, before types and groups; `None` if it does not exist.
    pub(super) fn collect(&mut self, name: &[u8]) -> Option<Collected<'m>> {
        if self.rules.apex_is_own && name == self.zone {
            let mut found = self.at_path(Subtree::Off, name);
            if let Some(apex) = below_dns(self.zone, b"apex") {
                found.extend(self.at_path(Subtree::On, &apex));
            }
            return Some(Collected::plain(found));
        }
        self.collect_as(self.rules.subtree, name)
    }

    pub(super) fn collect_as(&mut self, subtree: Subtree, name: &[u8]) -> Option<Collected<'m>> {
        self.lookups += 1;
        let collected = self.at(subtree, name)?;
        self.partial |= collected.found.len() > KEYS_MAX;
        Some(collected)
    }

    fn at(&self, subtree: Subtree, name: &[u8]) -> Option<Collected<'m>> {
        if self.is_pattern(name) {
            let found = self.matching(subtree, name);
            if !found.is_empty() {
                return Some(Collected::plain(found));
            }
        } else if self.has(name) {
            return Some(Collected::plain(self.at_path(subtree, name)));
        }
        self.wildcard(subtree, name)
    }

    fn is_pattern(&self, name: &[u8]) -> bool {
        self.rules.query_wildcards && labels(name).any(is_wildcard)
    }

    fn at_path(&self, subtree: Subtree, name: &[u8]) -> Vec<Found<'m>> {
        let Some(path) = path_of(name) else {
            return Vec::new();
        };
        let own = self.model.entries.get_key_value(&path);
        let hides = self.rules.answers == Answers::Skydns;
        let base = path.len();
        let segments = |path: &[u8]| path.split(|octet| *octet == b'/').count();
        let below = self.model.below(&path).filter(|(path, _)| {
            let rest = path.get(base..).unwrap_or_default();
            let mut below = rest.split(|octet| *octet == b'/');
            !(hides && below.any(|segment| segment.starts_with(b"_")))
        });
        let below: Vec<Found<'m>> = match subtree {
            Subtree::On => below.collect(),
            Subtree::Children => {
                let depth = if path.is_empty() { 0 } else { segments(&path) };
                below
                    .filter(|(path, _)| segments(path) == depth + 1)
                    .collect()
            }
            Subtree::Off => Vec::new(),
        };
        match self.rules.answers {
            Answers::Skydns => own.into_iter().chain(below).collect(),
            Answers::Coredns if below.is_empty() => own.into_iter().collect(),
            Answers::Coredns => below,
        }
    }

    fn matching(&self, subtree: Subtree, name: &[u8]) -> Vec<Found<'m>> {
        let mut pattern: Vec<&[u8]> = labels(name).collect();
        pattern.reverse();
        let hides = self.rules.answers == Answers::Skydns;
        let matching = self.model.entries.iter().filter(|(path, _)| {
            let found: Vec<&[u8]> = path.split(|octet| *octet == b'/').collect();
            let Some(deeper) = found.len().checked_sub(pattern.len()) else {
                return false;
            };
            let wanted = match subtree {
                Subtree::On => true,
                Subtree::Children => deeper <= 1,
                Subtree::Off => deeper == 0,
            };
            let hidden = |segment: &&[u8]| hides && segment.starts_with(b"_");
            let mut pairs = pattern.iter().zip(&found);
            wanted
                && pairs.all(|(label, segment)| {
                    label == segment || is_wildcard(label) && !hidden(segment)
                })
                && !found.iter().skip(pattern.len()).any(hidden)
        });
        matching.collect()
    }

    /// RFC 4592 §3.3.1: the wildcard of the closest encloser answers, and no other.
    fn wildcard(&self, subtree: Subtree, name: &[u8]) -> Option<Collected<'m>> {
        if !self.rules.record_wildcards {
            return None;
        }
        let mut enclosers = suffixes(name).skip(1);
        let encloser = enclosers.find(|encloser| *encloser == self.zone || self.has(encloser));
        let encloser = encloser.filter(|encloser| is_within(encloser, self.zone))?;
        let wildcard = Name::from_wire(encloser).ok()?.child(b"*").ok()?;
        let octets = path_of(wildcard.as_wire())?.len();
        self.has(wildcard.as_wire()).then(|| Collected {
            found: self.at_path(subtree, wildcard.as_wire()),
            instead: Some((octets, name.to_vec())),
        })
    }

    /// Keeps the records that count for a type, after groups.
    pub(super) fn choose(found: &mut Vec<Found<'m>>, rtype: Rtype) {
        found.retain(|(_, entry)| {
            let service = &entry.service;
            service.host != Host::None || rtype == Rtype::TXT && !service.text.is_empty()
        });
        one_group(found);
    }

    pub(super) fn expected(
        &self,
        owner: &[u8],
        entry: &Entry,
        rtype: Rtype,
        data: Vec<u8>,
    ) -> Expected {
        Expected {
            rr: Rr::new(owner, rtype, data),
            ttl: self.rules.ttl(entry),
            ttl_at_most: entry.lease.is_some(),
            optional: false,
        }
    }
}

/// The shallowest level with a group decides which group counts, unless it disagrees.
fn one_group(found: &mut Vec<Found<'_>>) {
    let depth = |path: &[u8]| path.iter().filter(|octet| **octet == b'/').count();
    let grouped = || {
        found
            .iter()
            .filter(|(_, entry)| !entry.service.group.is_empty())
    };
    let Some(level) = grouped().map(|(path, _)| depth(path)).min() else {
        return;
    };
    let deciding = grouped().filter(|(path, _)| depth(path) == level);
    let groups: HashSet<String> = deciding
        .map(|(_, entry)| entry.service.group.clone())
        .collect();
    if groups.len() == 1 {
        found.retain(|(_, entry)| {
            let group = &entry.service.group;
            group.is_empty() || groups.contains(group)
        });
    }
}
