//! Answers as CoreDNS gives them.

use std::collections::{HashMap, HashSet};

use skein_plugins::kit::wire::Rtype;
use skein_plugins::kit::wire::name::is_within;

use super::super::ask::Question;
use super::super::rr::Rr;
use super::super::service::Host;
use super::collect::{Collected, Collector};
use super::{Answer, Entry, Expected, Subtree};
use super::{address, below_dns, is_above_reverse, remove_doubles, srv_data, weight};

/// CNAMEs in a row that a server follows.
const CHAIN_MAX: usize = 10;

pub(super) fn answer(collector: Collector<'_>, question: &Question) -> Answer {
    let mut making = Making {
        collector,
        answer: Answer::default(),
    };
    making.make(&question.name, question.rtype);
    let mut answer = making.answer;
    answer.partial |= making.collector.partial;
    remove_doubles(&mut answer.records);
    answer
}

/// An answer under way.
struct Making<'m> {
    collector: Collector<'m>,
    answer: Answer,
}

impl<'m> Making<'m> {
    fn make(&mut self, qname: &[u8], qtype: Rtype) {
        self.answer.exists = self.collector.exists(qname);
        if qtype == Rtype::SOA || !self.answer.exists {
            return;
        }
        match qtype {
            Rtype::A | Rtype::AAAA | Rtype::TXT => {
                let mut records = Vec::new();
                self.chase(qname, qtype, &mut Vec::new(), &mut records);
                self.answer.records = records;
            }
            Rtype::SRV => self.srv(qname),
            Rtype::MX => self.mx(qname),
            Rtype::CNAME | Rtype::PTR => self.one_name(qname, qtype),
            Rtype::NS if qname == self.collector.zone => self.ns(qname),
            _ => {}
        }
    }

    fn collect(&mut self, name: &[u8], qtype: Rtype) -> Collected<'m> {
        let collected = self.collector.collect(name);
        chosen(collected, qtype)
    }

    fn collect_as(&mut self, subtree: Subtree, name: &[u8], qtype: Rtype) -> Collected<'m> {
        let collected = self.collector.collect_as(subtree, name);
        chosen(collected, qtype)
    }

    //--- Addresses and texts, behind aliases ----------------------------------------------------

    fn chase(
        &mut self,
        owner: &[u8],
        qtype: Rtype,
        chain: &mut Vec<Vec<u8>>,
        out: &mut Vec<Expected>,
    ) {
        let owner = owner.to_ascii_lowercase();
        let mut found = Vec::new();
        for (_, entry) in self.collect_address(&owner, qtype).found {
            let text = entry.service.text.as_bytes();
            if qtype == Rtype::TXT && !text.is_empty() {
                found.push(self.collector.expected(&owner, entry, qtype, text.to_vec()));
            } else if let Host::Name(target) = &entry.service.host {
                self.follow(&owner, entry, target, qtype, chain, &mut found);
            } else if let Some((rtype, data)) = address(&entry.service.host)
                && rtype == qtype
            {
                found.push(self.collector.expected(&owner, entry, qtype, data));
            }
        }
        // One record once, with the TTL of the first key.
        remove_doubles(&mut found);
        out.append(&mut found);
    }

    fn follow(
        &mut self,
        owner: &[u8],
        entry: &Entry,
        target: &[u8],
        qtype: Rtype,
        chain: &mut Vec<Vec<u8>>,
        out: &mut Vec<Expected>,
    ) {
        let target = target.to_ascii_lowercase();
        if is_within(&target, owner)
            || chain.len() > CHAIN_MAX
            || chain.contains(&target)
            || self.collector.is_exhausted()
        {
            return;
        }
        let mut alias = self
            .collector
            .expected(owner, entry, Rtype::CNAME, target.clone());
        if !is_within(&target, self.collector.zone) {
            alias.optional = true;
            out.push(alias);
            return;
        }
        let mut behind = Vec::new();
        chain.push(target.clone());
        self.chase(&target, qtype, chain, &mut behind);
        chain.pop();
        if !behind.is_empty() {
            // It is shown if something is shown behind it.
            alias.optional = behind.iter().all(|record| record.optional);
            out.push(alias);
            out.append(&mut behind);
        }
    }

    /// Addresses of the zone itself have a place of their own.
    fn collect_address(&mut self, name: &[u8], qtype: Rtype) -> Collected<'m> {
        if name == self.collector.zone && qtype != Rtype::TXT && !self.collector.rules.apex_is_own {
            let apex = below_dns(self.collector.zone, b"apex").unwrap_or_default();
            if self.collector.has(&apex) && !apex.is_empty() {
                return self.collect_as(Subtree::On, &apex, qtype);
            }
        }
        self.collect(name, qtype)
    }

    //--- Services -------------------------------------------------------------------------------

    fn srv(&mut self, qname: &[u8]) {
        let collected = self.collect(qname, Rtype::SRV);
        let rules = self.collector.rules;
        let mut sums: HashMap<u16, u64> = HashMap::new();
        for (_, entry) in &collected.found {
            *sums.entry(rules.priority(&entry.service)).or_default() += weight(&entry.service);
        }
        let mut shown = HashSet::new();
        for (path, entry) in &collected.found {
            let service = &entry.service;
            let Some(target) = collected.target(path, service) else {
                continue;
            };
            if service.port == -1 {
                continue;
            }
            let (port, priority) = (service.port as u16, rules.priority(service));
            let sum = sums.get(&priority).copied().unwrap_or(1).max(1);
            let share = (100.0 / sum as f64 * weight(service) as f64).floor() as u16;
            let is_name = matches!(service.host, Host::Name(_));
            if is_name || shown.insert((target.clone(), port)) {
                let data = srv_data([priority, share.max(1), port], &target);
                let record = self.collector.expected(qname, entry, Rtype::SRV, data);
                self.answer.records.push(record);
            }
            self.address_of(&target, entry);
        }
    }

    fn mx(&mut self, qname: &[u8]) {
        let collected = self.collect(qname, Rtype::MX);
        for (path, entry) in &collected.found {
            let Some(target) = collected
                .target(path, &entry.service)
                .filter(|_| entry.service.mail)
            else {
                continue;
            };
            let preference = self.collector.rules.priority(&entry.service).to_be_bytes();
            let data = [&preference[..], &target.to_ascii_lowercase()].concat();
            let record = self.collector.expected(qname, entry, Rtype::MX, data);
            self.answer.records.push(record);
            self.address_of(&target, entry);
        }
    }

    /// The zone's name servers are the records below `ns.dns`.
    fn ns(&mut self, qname: &[u8]) {
        let Some(ns) = below_dns(self.collector.zone, b"ns") else {
            return;
        };
        let collected = self.collect_as(Subtree::On, &ns, Rtype::NS);
        for (path, entry) in &collected.found {
            if let Some(target) = collected.target(path, &entry.service) {
                let data = target.to_ascii_lowercase();
                let record = self.collector.expected(qname, entry, Rtype::NS, data);
                self.answer.records.push(record);
                self.address_of(&target, entry);
            }
        }
    }

    fn address_of(&mut self, target: &[u8], entry: &Entry) {
        if let Some((rtype, data)) = address(&entry.service.host) {
            self.answer.additional.insert(Rr::new(target, rtype, data));
            return;
        }
        let name = target.to_ascii_lowercase();
        if is_within(&name, self.collector.zone) {
            for qtype in [Rtype::A, Rtype::AAAA] {
                let mut found = Vec::new();
                self.chase(&name, qtype, &mut vec![name.clone()], &mut found);
                let rrs = found.into_iter().map(|record| record.rr);
                self.answer.additional.extend(rrs);
            }
        }
    }

    /// CNAME or PTR: the name's own record and those one level below, host names only; of CNAMEs the first.
    fn one_name(&mut self, qname: &[u8], rtype: Rtype) {
        if rtype == Rtype::PTR && is_above_reverse(qname) {
            return;
        }
        let own = self.collect_as(Subtree::Off, qname, rtype);
        let children = self.collect_as(Subtree::Children, qname, rtype);
        self.collector.lookups = 1;
        for (_, entry) in own.found.into_iter().chain(children.found) {
            if let Host::Name(host) = &entry.service.host {
                let data = host.to_ascii_lowercase();
                let record = self.collector.expected(qname, entry, rtype, data);
                self.answer.records.push(record);
                if rtype == Rtype::CNAME {
                    break;
                }
            }
        }
    }
}

fn chosen(collected: Option<Collected<'_>>, rtype: Rtype) -> Collected<'_> {
    let mut collected = collected.unwrap_or_default();
    Collector::choose(&mut collected.found, rtype);
    collected
}
