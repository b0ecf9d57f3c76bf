//! From records to SkyDNS's answers: what each type makes of what a name collects.
//!
//! An alias is shown only with what it leads to, so an answer is a tree ([`Part`]) until everything it needs is known.

use std::collections::{HashMap, HashSet};

use super::super::addresses::{NAMES_MAX, is_above_reverse};
use super::super::collect::{Collected, Collector, Service};
use super::super::made::{Data, Made1};
use super::super::record::{Host, MAIL, NO_PORT, Record};
use super::super::style::{Sky, Style, Subtree};
use super::is_reverse;
use crate::kit::wire::Rtype;
use crate::kit::wire::name::labels;

/// CNAMEs in a row.
const CHAIN_MAX: usize = 8;
/// Names that one answer looks up in the tree: aliases may branch at each step.
const LOOKUPS_MAX: usize = 64;
/// Names outside the zones that one answer asks for.
const OUTSIDE_MAX: usize = 16;

/// A part of an answer.
#[derive(Debug)]
pub(in super::super) enum Part {
    /// A record.
    Record(Made1),
    /// A CNAME and what is behind it; not there without it.
    Alias(Made1, Vec<Part>),
    /// What the server's own chain says about a name.
    Outside(Outside),
}

/// A question to the server's own chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Outside {
    /// The name, wire form.
    pub(in super::super) target: Box<[u8]>,
    /// The type.
    pub(in super::super) qtype: Rtype,
    /// Whether its CNAMEs are wanted too.
    pub(in super::super) aliases: bool,
}

/// An answer's sections, as far as the tree can make them.
#[derive(Debug, Default)]
pub(in super::super) struct Parts {
    pub(in super::super) answer: Vec<Part>,
    pub(in super::super) additional: Vec<Part>,
    /// Whether only the name asked for was looked at.
    pub(in super::super) alone: bool,
}

impl Parts {
    /// What must be asked, in the order of the parts.
    pub(in super::super) fn outside(&self) -> Vec<&Outside> {
        fn find<'p>(parts: &'p [Part], found: &mut Vec<&'p Outside>) {
            for part in parts {
                match part {
                    Part::Record(_) => {}
                    Part::Alias(_, behind) => find(behind, found),
                    Part::Outside(outside) => found.push(outside),
                }
            }
        }
        let mut found = Vec::new();
        find(&self.answer, &mut found);
        find(&self.additional, &mut found);
        found
    }
}

/// A question. Names are in lower case.
#[derive(Clone, Copy)]
pub(in super::super) struct Asked<'q> {
    /// Whose the records are to be.
    pub(in super::super) owner: &'q [u8],
    /// Where they are looked for.
    pub(in super::super) name: &'q [u8],
    pub(in super::super) qtype: Rtype,
}

/// Answers a question; `None`: the name does not exist.
pub(in super::super) fn make(
    collector: Collector<'_>,
    sky: &Sky,
    asked: Asked<'_>,
) -> Option<Parts> {
    let (zones, zone) = (collector.zones, collector.zone);
    let mut maker = Maker {
        style: collector.style,
        collector,
        sky,
        outside: 0,
        parts: Parts::default(),
    };
    if asked.name != asked.owner && zones.cover(asked.name).is_none() {
        maker.local_elsewhere(asked);
        return Some(maker.parts);
    }
    match asked.qtype {
        Rtype::A => maker.addresses(asked, Families::V4)?,
        Rtype::AAAA => maker.addresses(asked, Families::V6)?,
        Rtype::SRV => maker.srv(asked)?,
        Rtype::MX => maker.mx(asked)?,
        Rtype::TXT => maker.txt(asked)?,
        Rtype::CNAME => maker.cname(asked)?,
        Rtype::PTR if is_reverse(asked.name) => maker.ptr(asked)?,
        Rtype::NS if asked.name == zone.zone.name.as_wire() => maker.ns(asked),
        _ => maker.collector.exists(asked.name)?,
    }
    maker.parts.alone = maker.collector.lookups <= 1;
    Some(maker.parts)
}

/// Which addresses are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Families {
    V4,
    V6,
    Both,
}

impl Families {
    fn types(self) -> &'static [Rtype] {
        match self {
            Families::V4 => &[Rtype::A],
            Families::V6 => &[Rtype::AAAA],
            Families::Both => &[Rtype::A, Rtype::AAAA],
        }
    }

    fn has(self, rtype: Rtype) -> bool {
        self.types().contains(&rtype)
    }
}

struct Maker<'k> {
    collector: Collector<'k>,
    style: &'k Style,
    sky: &'k Sky,
    outside: usize,
    parts: Parts,
}

impl<'k> Maker<'k> {
    /// The records of a name that count for a type: each content once, then by group.
    fn collect(&mut self, name: &[u8], qtype: Rtype) -> Option<Collected<'k>> {
        let mut collected = self.collector.collect(name)?;
        // Before defaults and sums: two keys that say the same are one service.
        let mut seen = HashSet::new();
        collected.services.retain(|Service { record, .. }| {
            let numbers = (record.port, record.priority, record.weight);
            seen.insert((&record.host, numbers, record.text()))
        });
        Some(collected.chosen(qtype))
    }

    fn record(&self, owner: &[u8], record: &Record, data: Data) -> Made1 {
        Made1 {
            owner: owner.into(),
            ttl: self.style.ttl(record),
            data,
        }
    }

    fn answer(&mut self, owner: &[u8], record: &Record, data: Data) {
        let made = self.record(owner, record, data);
        self.parts.answer.push(Part::Record(made));
    }

    //--- Addresses, behind aliases ----------------------------------------------------------------

    fn addresses(&mut self, asked: Asked<'_>, families: Families) -> Option<()> {
        self.parts.answer = self.chase(asked.owner, asked.name, families, &mut Vec::new())?;
        Some(())
    }

    /// `local` may stand for a name of somebody else: then it is an alias.
    fn local_elsewhere(&mut self, asked: Asked<'_>) {
        let behind = match asked.qtype {
            Rtype::A => self.follow(asked.owner, asked.name, Families::V4, &mut Vec::new()),
            Rtype::AAAA => self.follow(asked.owner, asked.name, Families::V6, &mut Vec::new()),
            _ => Vec::new(),
        };
        let alias = Made1 {
            owner: asked.owner.into(),
            ttl: self.style.ttl,
            data: Data::Name(Rtype::CNAME, asked.name.into()),
        };
        self.parts.answer = match asked.qtype {
            Rtype::CNAME => vec![Part::Record(alias)],
            _ if behind.is_empty() => Vec::new(),
            _ => vec![Part::Alias(alias, behind)],
        };
    }

    /// The addresses of a name. `chain` are the targets, in lower case, of the aliases that led here.
    fn chase(
        &mut self,
        owner: &[u8],
        name: &[u8],
        families: Families,
        chain: &mut Vec<Vec<u8>>,
    ) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        for Service { record, .. } in self.collect(name, Rtype::A)?.services {
            match &record.host {
                Host::V4(octets) if families.has(Rtype::A) => {
                    parts.push(Part::Record(self.record(owner, record, Data::A(*octets))));
                }
                Host::V6(octets) if families.has(Rtype::AAAA) => {
                    parts.push(Part::Record(self.record(
                        owner,
                        record,
                        Data::Aaaa(*octets),
                    )));
                }
                Host::Name(target) => {
                    let behind = self.follow(name, target, families, chain);
                    if !behind.is_empty() {
                        let data = Data::Name(Rtype::CNAME, target.clone());
                        parts.push(Part::Alias(self.record(owner, record, data), behind));
                    }
                }
                _ => {}
            }
        }
        Some(parts)
    }

    /// What is behind an alias; nothing if it is not to be shown.
    fn follow(
        &mut self,
        name: &[u8],
        target: &[u8],
        families: Families,
        chain: &mut Vec<Vec<u8>>,
    ) -> Vec<Part> {
        let target_name = target.to_ascii_lowercase();
        if target_name == name
            || chain.len() >= CHAIN_MAX
            || chain.contains(&target_name)
            || self.collector.lookups >= LOOKUPS_MAX
        {
            return Vec::new();
        }
        chain.push(target_name.clone());
        let found = self.chase(target, &target_name, families, chain);
        chain.pop();
        match found {
            Some(found) => found,
            None if self.collector.zones.cover(&target_name).is_some() => Vec::new(),
            None => self.ask(target, families),
        }
    }

    /// The question for a name that is not in the tree.
    fn ask(&mut self, target: &[u8], families: Families) -> Vec<Part> {
        let mut asked = Vec::new();
        if labels(target).count() < self.sky.ndots {
            return asked;
        }
        for (at, qtype) in families.types().iter().enumerate() {
            if self.outside < OUTSIDE_MAX {
                self.outside += 1;
                asked.push(Part::Outside(Outside {
                    target: target.into(),
                    qtype: *qtype,
                    // Those of the first answer are enough.
                    aliases: at == 0,
                }));
            }
        }
        asked
    }

    //--- Services -------------------------------------------------------------------------------------

    fn srv(&mut self, asked: Asked<'_>) -> Option<()> {
        let style = self.style;
        let collected = self.collect(asked.name, Rtype::SRV)?;
        let weight = |record: &Record| match record.weight {
            0 => 100,
            weight => u32::from(weight),
        };
        let mut sums: HashMap<u16, u64> = HashMap::new();
        for Service { record, .. } in &collected.services {
            *sums.entry(style.priority(record)).or_default() += u64::from(weight(record));
        }
        let mut shown = HashSet::new();
        for service in &collected.services {
            let record = service.record;
            if record.is(NO_PORT) {
                continue;
            }
            let Some(target) = collected.target(*service) else {
                continue;
            };
            let priority = style.priority(record);
            let sum = sums.get(&priority).copied().unwrap_or(1).max(1);
            // In this order: 130 of 350 is 37, and more than a hundred alike are 0.
            let share = (100.0 / sum as f64 * f64::from(weight(record))).floor() as u16;
            let data = Data::Srv(priority, share, record.port, target.clone());
            self.answer(asked.owner, record, data);
            self.address_of(&target, record, &mut shown);
        }
        Some(())
    }

    fn mx(&mut self, asked: Asked<'_>) -> Option<()> {
        let collected = self.collect(asked.name, Rtype::MX)?;
        let mut shown = HashSet::new();
        for service in &collected.services {
            let record = service.record;
            if !record.is(MAIL) {
                continue;
            }
            let Some(target) = collected.target(*service) else {
                continue;
            };
            let data = Data::Mx(self.style.priority(record), target.clone());
            self.answer(asked.owner, record, data);
            self.address_of(&target, record, &mut shown);
        }
        Some(())
    }

    /// Addresses of a target, for the additional section; of a name only once.
    fn address_of(&mut self, target: &[u8], record: &Record, shown: &mut HashSet<Vec<u8>>) {
        let found = match &record.host {
            Host::None => return,
            Host::V4(octets) => vec![Part::Record(self.record(target, record, Data::A(*octets)))],
            Host::V6(octets) => {
                vec![Part::Record(self.record(
                    target,
                    record,
                    Data::Aaaa(*octets),
                ))]
            }
            Host::Name(_) => {
                let name = target.to_ascii_lowercase();
                if !shown.insert(name.clone()) || self.collector.lookups >= LOOKUPS_MAX {
                    return;
                }
                match self.collector.zones.cover(&name) {
                    Some(_) => {
                        let chain = &mut vec![name.clone()];
                        let found = self.chase(target, &name, Families::Both, chain);
                        found.unwrap_or_default()
                    }
                    None => self.ask(target, Families::Both),
                }
            }
        };
        self.parts.additional.extend(found);
    }

    //--- One record each ------------------------------------------------------------------------------

    fn txt(&mut self, asked: Asked<'_>) -> Option<()> {
        for Service { record, .. } in self.collect(asked.name, Rtype::TXT)?.services {
            if !record.text().is_empty() {
                self.answer(asked.owner, record, Data::Txt(record.text().into()));
            }
        }
        Some(())
    }

    /// The name's own record alone, if it is an alias.
    fn cname(&mut self, asked: Asked<'_>) -> Option<()> {
        self.collector.exists(asked.name)?;
        self.collector.lookups = 1;
        let own = self.collector.own(asked.name);
        if let Some(record) = own
            && let Host::Name(target) = &record.host
        {
            let data = Data::Name(Rtype::CNAME, target.clone());
            self.answer(asked.owner, record, data);
        }
        Some(())
    }

    /// The names at the reversed address and one level below it.
    fn ptr(&mut self, asked: Asked<'_>) -> Option<()> {
        self.collector.exists(asked.name)?;
        if is_above_reverse(asked.name) {
            return Some(());
        }
        let found = self.collector.collect_as(Subtree::Children, asked.name);
        self.collector.lookups = 1;
        let mut shown = HashSet::new();
        for Service { record, .. } in found.into_iter().flat_map(|found| found.services) {
            if let Host::Name(target) = &record.host
                && shown.insert(target.to_ascii_lowercase())
            {
                let data = Data::Name(Rtype::PTR, target.clone());
                self.answer(asked.owner, record, data);
            }
        }
        if self.parts.answer.is_empty() {
            let names = self.collector.automatic(asked.name).take(NAMES_MAX);
            for (name, record) in names.collect::<Vec<_>>() {
                let data = Data::Name(Rtype::PTR, name.as_wire().into());
                self.answer(asked.owner, record, data);
            }
        }
        Some(())
    }

    /// The zone's name servers with their addresses. A record without one is left out: RFC 1034 §4.2.1 wants the glue.
    fn ns(&mut self, asked: Asked<'_>) {
        let Some(found) = self.collector.reserved(&self.collector.zone.ns) else {
            return;
        };
        let found = found.chosen(Rtype::NS);
        for Service { path, record } in &found.services {
            let data = match &record.host {
                Host::V4(octets) => Data::A(*octets),
                Host::V6(octets) => Data::Aaaa(*octets),
                Host::Name(_) | Host::None => continue,
            };
            let Some(name) = found.name(path) else {
                continue;
            };
            let target = name.as_wire();
            self.answer(asked.owner, record, Data::Name(Rtype::NS, target.into()));
            let address = self.record(target, record, data);
            self.parts.additional.push(Part::Record(address));
        }
    }
}
