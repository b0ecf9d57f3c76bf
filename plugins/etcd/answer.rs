//! From records to answers: which records a question collects, and what each type makes of them.
//!
//! All of it works on the sorted keys under their read lock, so that an answer is made of one state of the tree. What it cannot know (the
//! address of a name outside the zone) is left as [`Item::Outside`] for whoever may wait.

use std::collections::{HashMap, HashSet};

use super::addresses::{NAMES_MAX, is_above_reverse};
use super::collect::{Collected, Collector, Service};
use super::made::{Data, Item, Made, out_record, remove_doubles};
use super::record::{Host, MAIL, NO_PORT, Record};
use super::style::Subtree;
use super::zone::ZoneData;
use crate::kit::wire::Rtype;
use crate::kit::wire::name::is_within;

/// CNAMEs in a row.
const CHAIN_MAX: usize = 10;
/// Names that one answer looks up in the tree: aliases may branch at each step.
const LOOKUPS_MAX: usize = 64;
/// Names outside the zone that one answer asks for.
const OUTSIDE_MAX: usize = 16;

/// Answers a question with what is collected; `None`: the name does not exist.
pub(super) fn make(collector: Collector<'_>, qname: &[u8], qtype: Rtype) -> Option<Made> {
    let zone = collector.zone;
    let mut maker = Maker {
        collector,
        zone,
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
        _ => maker.collector.exists(qname)?,
    }
    let mut made = maker.made;
    made.alone = maker.collector.lookups <= 1;
    remove_doubles(&mut made.answer);
    remove_doubles(&mut made.additional);
    Some(made)
}

struct Maker<'k> {
    collector: Collector<'k>,
    zone: &'k ZoneData,
    outside: usize,
    made: Made,
}

impl<'k> Maker<'k> {
    //--- Which records ------------------------------------------------------------------------

    /// The records that a name (lower-case) answers with; `None` if it does not exist.
    fn collect(&mut self, name: &[u8], qtype: Rtype) -> Option<Collected<'k>> {
        Some(self.collector.collect(name)?.chosen(qtype))
    }

    fn collect_as(&mut self, subtree: Subtree, name: &[u8], qtype: Rtype) -> Option<Collected<'k>> {
        Some(self.collector.collect_as(subtree, name)?.chosen(qtype))
    }

    /// As [`Maker::collect`], and at the zone's own name what is reserved for it.
    fn collect_address(&mut self, name: &[u8], qtype: Rtype) -> Option<Collected<'k>> {
        if name == self.zone.zone.name.as_wire()
            && qtype != Rtype::TXT
            && !self.collector.style.apex_is_own
        {
            let collected = self.collector.reserved(&self.zone.apex);
            self.collector.lookups -= 1;
            if let Some(collected) = collected {
                return Some(collected.chosen(qtype));
            }
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
        } in self.collect_address(&name, qtype)?.services
        {
            match (&service.host, qtype) {
                (_, Rtype::TXT) if !service.text().is_empty() => {
                    found.push(record(
                        self.collector.style.ttl(service),
                        Data::Txt(service.text().into()),
                    ));
                }
                (Host::V4(address), Rtype::A) => {
                    found.push(record(self.collector.style.ttl(service), Data::A(*address)))
                }
                (Host::V6(address), Rtype::AAAA) => {
                    found.push(record(
                        self.collector.style.ttl(service),
                        Data::Aaaa(*address),
                    ));
                }
                (Host::Name(target), _) => {
                    let alias = record(
                        self.collector.style.ttl(service),
                        Data::Name(Rtype::CNAME, target.clone()),
                    );
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
            || self.collector.lookups >= LOOKUPS_MAX
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
        let collected = self.collect(qname, Rtype::SRV)?;
        let style = self.collector.style;
        let weight = |record: &Record| match record.weight {
            0 => 100,
            weight => u32::from(weight),
        };
        let mut sums: HashMap<u16, u64> = HashMap::new();
        for service in &collected.services {
            let sum = sums.entry(style.priority(service.record)).or_default();
            *sum += u64::from(weight(service.record));
        }
        let mut shown = HashSet::new();
        for service in &collected.services {
            let record = service.record;
            if record.is(NO_PORT) {
                continue;
            }
            let priority = style.priority(record);
            let sum = sums.get(&priority).copied().unwrap_or(1).max(1);
            let share = (100.0 / sum as f64 * f64::from(weight(record))).floor();
            let share = (share as u16).max(1);
            let Some(target) = collected.target(*service) else {
                continue;
            };
            // Two keys of one target name and port are one service.
            if matches!(record.host, Host::Name(_)) || shown.insert((target.clone(), record.port)) {
                let data = Data::Srv(priority, share, record.port, target.clone());
                self.made
                    .answer
                    .push(out_record(qname, self.collector.style.ttl(record), data));
            }
            self.address_of(&target, record);
        }
        Some(())
    }

    fn mx(&mut self, qname: &[u8]) -> Option<()> {
        let collected = self.collect(qname, Rtype::MX)?;
        let mut shown = HashSet::new();
        for service in &collected.services {
            let record = service.record;
            if !record.is(MAIL) {
                continue;
            }
            let Some(target) = collected.target(*service) else {
                continue;
            };
            let priority = self.collector.style.priority(record);
            if shown.insert((target.to_ascii_lowercase(), priority)) {
                let data = Data::Mx(priority, target.clone());
                self.made
                    .answer
                    .push(out_record(qname, self.collector.style.ttl(record), data));
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
                let item = out_record(target, self.collector.style.ttl(record), Data::A(*address));
                self.made.additional.push(item);
            }
            Host::V6(address) => {
                let item = out_record(
                    target,
                    self.collector.style.ttl(record),
                    Data::Aaaa(*address),
                );
                self.made.additional.push(item);
            }
            Host::Name(_) => {
                let name = target.to_ascii_lowercase();
                if is_within(&name, self.zone.zone.name.as_wire()) {
                    if self.collector.lookups < LOOKUPS_MAX {
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
        self.collector.exists(qname)?;
        // One level below a part of an address are not its own names but other addresses.
        if rtype == Rtype::PTR && is_above_reverse(qname) {
            return Some(());
        }
        let own = self.collect_as(Subtree::Off, qname, rtype);
        let children = self.collect_as(Subtree::Children, qname, rtype);
        self.collector.lookups = 1;
        let services = own.into_iter().chain(children);
        for Service { record, .. } in services.flat_map(|found| found.services) {
            if let Host::Name(host) = &record.host {
                let data = Data::Name(rtype, host.clone());
                self.made
                    .answer
                    .push(out_record(qname, self.collector.style.ttl(record), data));
                if rtype == Rtype::CNAME {
                    break;
                }
            }
        }
        if rtype == Rtype::PTR && self.made.answer.is_empty() {
            let style = self.collector.style;
            let names = self.collector.automatic(qname).take(NAMES_MAX);
            let names = names.map(|(name, record)| {
                let data = Data::Name(Rtype::PTR, name.as_wire().into());
                out_record(qname, style.ttl(record), data)
            });
            self.made.answer = names.collect();
        }
        Some(())
    }

    /// The zone's name servers: the records below `ns.dns`.
    fn ns(&mut self, qname: &[u8]) -> Option<()> {
        let collected = self.collector.reserved(&self.zone.ns)?.chosen(Rtype::NS);
        for service in &collected.services {
            let record = service.record;
            let Some(target) = collected.target(*service) else {
                continue;
            };
            let data = Data::Name(Rtype::NS, target.clone());
            self.made
                .answer
                .push(out_record(qname, self.collector.style.ttl(record), data));
            self.address_of(&target, record);
        }
        Some(())
    }
}
