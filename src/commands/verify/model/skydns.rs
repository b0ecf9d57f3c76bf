//! Answers as SkyDNS gives them, where it is right (docs/coming-from-skydns.md).

use std::collections::{HashMap, HashSet};

use skein_plugins::kit::wire::Rtype;
use skein_plugins::kit::wire::name::{is_within, labels};

use super::super::ask::Question;
use super::super::rr::Rr;
use super::super::service::Host;
use super::collect::{Collected, Collector};
use super::{Answer, Entry, Expected, Subtree, Zone};
use super::{address, below_dns, is_above_reverse, remove_doubles, srv_data, weight};

/// CNAMEs in a row that a server follows.
const CHAIN_MAX: usize = 8;

pub(super) fn answer(collector: Collector<'_>, zones: &[Zone], question: &Question) -> Answer {
    let mut making = Making {
        collector,
        zones,
        answer: Answer::default(),
    };
    making.make(&question.name, question.rtype);
    let level = making.collector.rules.ttl;
    let mut answer = making.answer;
    answer.partial |= making.collector.partial;
    one_alias(&mut answer.records);
    remove_doubles(&mut answer.records);
    // Several records share the least TTL. What comes from outside counts too, and only the server knows it.
    if answer.records.len() > 1 && answer.records.iter().all(|record| !record.optional) {
        let least = answer.records.iter().map(|record| record.ttl).min();
        let level = least.unwrap_or(level).min(level);
        let leased = answer.records.iter().any(|record| record.ttl_at_most);
        for record in &mut answer.records {
            record.ttl = level;
            record.ttl_at_most |= leased;
        }
    }
    answer
}

/// An answer under way.
struct Making<'m> {
    collector: Collector<'m>,
    zones: &'m [Zone],
    answer: Answer,
}

impl<'m> Making<'m> {
    fn make(&mut self, qname: &[u8], qtype: Rtype) {
        let zone = self.collector.zone;
        let local = self.collector.rules.local.clone();
        let local = local.filter(|_| below_dns(zone, b"local").as_deref() == Some(qname));
        let name = local.as_deref().unwrap_or(qname);
        if local.is_some() && !self.is_ours(name) {
            // An alias to somebody else's name.
            self.answer.exists = true;
            self.answer.is_free = true;
            return;
        }
        self.answer.exists = self.collector.exists(name) || self.is_own(name);
        if qtype == Rtype::SOA || !self.answer.exists {
            return;
        }
        match qtype {
            Rtype::A | Rtype::AAAA => {
                self.answer.records = self.chase(qname, name, &[qtype], &mut Vec::new());
                // The address that the server was asked at.
                self.answer.is_free |= self.is_own(name);
            }
            Rtype::SRV => self.srv(qname, name),
            Rtype::MX => self.mx(qname, name),
            Rtype::TXT => {
                for (_, entry) in self.collect(name, qtype).found {
                    let text = entry.service.text.as_bytes();
                    if !text.is_empty() {
                        let record = self.collector.expected(qname, entry, qtype, text.to_vec());
                        self.answer.records.push(record);
                    }
                }
            }
            Rtype::CNAME => {
                let own = self.collector.collect_as(Subtree::Off, name);
                self.hosts(qname, own, qtype, false);
            }
            Rtype::PTR if is_reverse(name) && !is_above_reverse(name) => {
                let found = self.collector.collect_as(Subtree::Children, name);
                self.hosts(qname, found, qtype, true);
            }
            Rtype::NS if name == zone => self.ns(qname),
            _ => {}
        }
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        self.zones.iter().any(|zone| is_within(name, &zone.name))
    }

    /// A name that the server answers for itself: `ns.dns.ZONE` and `dns.ZONE` where etcd has nothing there.
    fn is_own(&self, name: &[u8]) -> bool {
        let ns = below_dns(self.collector.zone, b"ns").unwrap_or_default();
        let has = self.collector.has(&ns);
        !has && is_within(&ns, name)
            && is_within(name, self.collector.zone)
            && name != self.collector.zone
    }

    /// Keys of one content count once, before groups and sums.
    fn collect(&mut self, name: &[u8], rtype: Rtype) -> Collected<'m> {
        let mut collected = self.collector.collect(name).unwrap_or_default();
        let mut seen = HashSet::new();
        collected.found.retain(|(_, entry)| {
            let service = &entry.service;
            let numbers = (
                service.port as u16,
                service.priority as u16,
                service.weight.clamp(0, i64::from(u16::MAX)),
            );
            seen.insert((format!("{:?}", service.host), numbers, service.text.clone()))
        });
        Collector::choose(&mut collected.found, rtype);
        collected
    }

    //--- Addresses, behind aliases ----------------------------------------------------------------

    fn chase(
        &mut self,
        owner: &[u8],
        name: &[u8],
        wanted: &[Rtype],
        chain: &mut Vec<Vec<u8>>,
    ) -> Vec<Expected> {
        let mut records = Vec::new();
        for (_, entry) in self.collect(name, Rtype::A).found {
            if let Some((rtype, data)) = address(&entry.service.host) {
                if wanted.contains(&rtype) {
                    records.push(self.collector.expected(owner, entry, rtype, data));
                }
            } else if let Host::Name(target) = &entry.service.host {
                let target = target.to_ascii_lowercase();
                let mut alias = self.alias(owner, entry, &target);
                if let Some(mut behind) = self.follow(name, &target, wanted, chain) {
                    alias.optional = behind.iter().all(|record| record.optional);
                    records.push(alias);
                    records.append(&mut behind);
                }
            }
        }
        records
    }

    fn alias(&self, owner: &[u8], entry: &Entry, target: &[u8]) -> Expected {
        self.collector
            .expected(owner, entry, Rtype::CNAME, target.to_vec())
    }

    /// What is behind an alias; `None` if it is not to be shown. No records: somebody outside knows.
    fn follow(
        &mut self,
        name: &[u8],
        target: &[u8],
        wanted: &[Rtype],
        chain: &mut Vec<Vec<u8>>,
    ) -> Option<Vec<Expected>> {
        if target == name
            || chain.len() >= CHAIN_MAX
            || chain.iter().any(|seen| seen == target)
            || self.collector.is_exhausted()
        {
            return None;
        }
        if self.collector.has(target) || self.is_ours(target) {
            chain.push(target.to_vec());
            let behind = self.chase(target, target, wanted, chain);
            chain.pop();
            return (!behind.is_empty()).then_some(behind);
        }
        (labels(target).count() >= self.collector.rules.ndots).then(Vec::new)
    }

    //--- Services -------------------------------------------------------------------------------

    fn srv(&mut self, qname: &[u8], name: &[u8]) {
        let collected = self.collect(name, Rtype::SRV);
        let rules = self.collector.rules;
        let mut sums: HashMap<u16, u64> = HashMap::new();
        for (_, entry) in &collected.found {
            *sums.entry(rules.priority(&entry.service)).or_default() += weight(&entry.service);
        }
        for (path, entry) in &collected.found {
            let service = &entry.service;
            let target = collected.target(path, service);
            let Some(target) = target.filter(|_| service.port != -1) else {
                continue;
            };
            let priority = rules.priority(service);
            let sum = sums.get(&priority).copied().unwrap_or(1).max(1);
            let share = (100.0 / sum as f64 * weight(service) as f64).floor() as u16;
            let data = srv_data([priority, share, service.port as u16], &target);
            let record = self.collector.expected(qname, entry, Rtype::SRV, data);
            self.answer.records.push(record);
            self.address_of(&target, entry);
        }
    }

    fn mx(&mut self, qname: &[u8], name: &[u8]) {
        let collected = self.collect(name, Rtype::MX);
        for (path, entry) in &collected.found {
            let target = collected.target(path, &entry.service);
            let Some(target) = target.filter(|_| entry.service.mail) else {
                continue;
            };
            let preference = self.collector.rules.priority(&entry.service).to_be_bytes();
            let data = [&preference[..], &target.to_ascii_lowercase()].concat();
            let record = self.collector.expected(qname, entry, Rtype::MX, data);
            self.answer.records.push(record);
            self.address_of(&target, entry);
        }
    }

    fn address_of(&mut self, target: &[u8], entry: &Entry) {
        if let Some((rtype, data)) = address(&entry.service.host) {
            self.answer.additional.insert(Rr::new(target, rtype, data));
            return;
        }
        let name = target.to_ascii_lowercase();
        if self.is_ours(&name) {
            let both = [Rtype::A, Rtype::AAAA];
            let found = self.chase(&name, &name, &both, &mut vec![name.clone()]);
            self.answer
                .additional
                .extend(found.into_iter().map(|record| record.rr));
        }
    }

    /// CNAME or PTR: host names only.
    fn hosts(
        &mut self,
        qname: &[u8],
        collected: Option<Collected<'m>>,
        rtype: Rtype,
        several: bool,
    ) {
        let found = collected.unwrap_or_default().found;
        for (_, entry) in found.into_iter().take(if several { usize::MAX } else { 1 }) {
            if let Host::Name(host) = &entry.service.host {
                let data = host.to_ascii_lowercase();
                let record = self.collector.expected(qname, entry, rtype, data);
                self.answer.records.push(record);
            }
        }
    }

    /// The zone's name servers with their addresses; without any, the server itself.
    fn ns(&mut self, qname: &[u8]) {
        let Some(ns) = below_dns(self.collector.zone, b"ns") else {
            return;
        };
        let mut collected = self
            .collector
            .collect_as(Subtree::On, &ns)
            .unwrap_or_default();
        Collector::choose(&mut collected.found, Rtype::NS);
        for (path, entry) in &collected.found {
            let address = address(&entry.service.host);
            if let (Some((rtype, data)), Some(target)) = (address, collected.name(path)) {
                let record = target.to_ascii_lowercase();
                let record = self.collector.expected(qname, entry, Rtype::NS, record);
                self.answer.records.push(record);
                self.answer.additional.insert(Rr::new(&target, rtype, data));
            }
        }
        if self.answer.records.is_empty() {
            self.answer.free_additional = true;
            self.answer.records.push(Expected {
                rr: Rr::new(qname, Rtype::NS, ns.into_vec()),
                ttl: self.collector.rules.min_ttl,
                ttl_at_most: false,
                optional: false,
            });
        }
    }
}

/// Whether reverse look-ups are below which a name is.
fn is_reverse(name: &[u8]) -> bool {
    is_within(name, b"\x07in-addr\x04arpa\x00") || is_within(name, b"\x03ip6\x04arpa\x00")
}

/// RFC 2181 §10.1: a name has one CNAME, the last one. Where that depends on what is outside, each may be it.
fn one_alias(records: &mut Vec<Expected>) {
    let mut of_owner: HashMap<Box<[u8]>, Vec<Expected>> = HashMap::new();
    for record in records
        .iter()
        .filter(|record| record.rr.rtype == Rtype::CNAME)
    {
        let owner = record.rr.owner.clone();
        of_owner.entry(owner).or_default().push(record.clone());
    }
    records.retain_mut(|record| {
        let aliases = of_owner
            .get(&record.rr.owner)
            .map_or(&[][..], Vec::as_slice);
        if record.rr.rtype != Rtype::CNAME || aliases.len() < 2 {
            return true;
        }
        if aliases.iter().any(|alias| alias.optional) {
            record.optional = true;
            return true;
        }
        aliases.last().is_some_and(|last| last.rr == record.rr)
    });
}
