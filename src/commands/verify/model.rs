//! [`Model`]: what a server should answer, worked out the slow and simple way from the keys as etcd has them. It shares nothing with the
//! server's tree and its finished answers, which is the point: `verify` compares the two.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use skein_plugins::kit::wire::name::{is_within, labels, suffixes};
use skein_plugins::kit::wire::{Name, NameBuf, Rtype};

use super::ask::Question;
use super::rr::Rr;
use super::service::{Host, Service};

/// Keys that a server looks at for one answer; one that has more below it is not compared in full.
const KEYS_MAX: usize = 4096;
/// CNAMEs in a row that a server follows.
const CHAIN_MAX: usize = 10;
/// Names that a server looks up for one answer.
const LOOKUPS_MAX: usize = 64;
/// The largest TTL there is (RFC 2181 §8).
const TTL_MAX: u32 = i32::MAX as u32;

/// What a name with records below it answers.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Subtree {
    /// Everything below it
    #[default]
    On,
    /// What is one level below it
    Children,
    /// Its own record
    Off,
}

/// What answers depend on beside the records.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) subtree: Subtree,
    /// TTL of a record that neither says one nor hangs on a lease.
    pub(crate) ttl: u32,
    /// What a lease's time is kept between, in seconds.
    pub(crate) lease_ttl: (u32, u32),
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            subtree: Subtree::On,
            ttl: 300,
            lease_ttl: (30, 86_400),
        }
    }
}

/// A key as it is in etcd.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// Behind the prefix.
    pub(crate) path: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Seconds that its lease was granted for.
    pub(crate) lease: Option<u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    service: Service,
    lease: Option<u32>,
}

/// A zone that the server answers from the keys.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    /// Lower-cased wire form.
    pub(crate) name: Box<[u8]>,
    pub(crate) rules: Rules,
    /// Names that do not exist are somebody else's.
    pub(crate) fallthrough: bool,
}

/// The keys, and what they amount to.
pub(crate) struct Model {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Keys whose value cannot be read.
    pub(crate) malformed: usize,
}

/// A record that should be in an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Expected {
    pub(crate) rr: Rr,
    pub(crate) ttl: u32,
    /// The key hangs on a lease, or the answer is another's too: the TTL may be lower.
    pub(crate) ttl_at_most: bool,
    /// It leads out of the zone: whether it is shown depends on what is there.
    pub(crate) optional: bool,
}

/// What should be answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Answer {
    /// The name exists; without records that is NODATA.
    pub(crate) exists: bool,
    pub(crate) records: Vec<Expected>,
    /// Addresses that may be in the additional section.
    pub(crate) additional: HashSet<Rr>,
    /// More than a server looks at for one answer: what comes must be among the records, that is all.
    pub(crate) partial: bool,
}

impl Model {
    pub(crate) fn new(keys: impl IntoIterator<Item = Key>) -> Model {
        let mut malformed = 0;
        let entries = keys.into_iter().map(|key| {
            let service = Service::read(&key.value).unwrap_or_else(|_| {
                malformed += 1;
                Service::default()
            });
            let lease = key.lease;
            (key.path, Entry { service, lease })
        });
        let entries = entries.collect();
        Model { entries, malformed }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every name that exists, lower-cased wire form, sorted: those of keys and those above them.
    pub(crate) fn names(&self) -> Vec<Box<[u8]>> {
        let mut names: HashSet<Box<[u8]>> = HashSet::new();
        for path in self.entries.keys() {
            let mut labels: Vec<&[u8]> = Vec::new();
            for segment in path.split(|octet| *octet == b'/') {
                // What no question can spell has no name; what is below it neither.
                if !is_askable(segment) {
                    break;
                }
                labels.push(segment);
                match name_of_labels(&labels) {
                    Some(name) => names.insert(name.as_wire().into()),
                    None => break,
                };
            }
        }
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names
    }

    /// What should be answered in a zone. The question's name is in lower case.
    pub(crate) fn answer(&self, zone: &Zone, question: &Question) -> Answer {
        let mut making = Making {
            model: self,
            rules: &zone.rules,
            zone: &zone.name,
            lookups: 0,
            answer: Answer::default(),
        };
        making.make(&question.name, question.rtype);
        let mut answer = making.answer;
        answer.partial |= making.lookups > LOOKUPS_MAX;
        remove_doubles(&mut answer.records);
        answer
    }

    /// The keys below a path, in order.
    fn below(&self, path: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Entry)> {
        let mut start = path.to_vec();
        if !start.is_empty() {
            start.push(b'/');
        }
        let prefix = start.clone();
        self.entries
            .range(start..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }
}

impl Rules {
    fn ttl(&self, entry: &Entry) -> u32 {
        let (min, max) = self.lease_ttl;
        let lease = entry.lease.map(|granted| granted.max(min).min(max));
        let ttl = match (entry.service.ttl, lease) {
            (0, None) => self.ttl,
            (0, Some(lease)) => lease,
            (own, None) => own,
            (own, Some(lease)) => own.min(lease),
        };
        ttl.min(TTL_MAX)
    }
}

/// An answer under way.
struct Making<'m> {
    model: &'m Model,
    rules: &'m Rules,
    zone: &'m [u8],
    lookups: usize,
    answer: Answer,
}

type Found<'m> = (&'m Vec<u8>, &'m Entry);

impl<'m> Making<'m> {
    fn make(&mut self, qname: &[u8], qtype: Rtype) {
        self.answer.exists = self.exists(qname);
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
            Rtype::NS if qname == self.zone => self.ns(qname),
            _ => {}
        }
    }

    fn exists(&self, name: &[u8]) -> bool {
        if name == self.zone {
            return true;
        }
        if has_wildcard(name) {
            return !self.collect_matching(name).is_empty();
        }
        let Some(path) = path_of(name) else {
            return false;
        };
        let model = self.model;
        model.entries.contains_key(&path) || model.below(&path).next().is_some()
    }

    /// The records that a name answers with.
    fn collect(&mut self, subtree: Subtree, name: &[u8], qtype: Rtype) -> Vec<Found<'m>> {
        self.lookups += 1;
        let mut found = match has_wildcard(name) {
            true => self.collect_matching(name),
            false => self.collect_plain(subtree, name),
        };
        if found.len() > KEYS_MAX {
            self.answer.partial = true;
        }
        found.retain(|(_, entry)| {
            entry.service.host != Host::None
                || qtype == Rtype::TXT && !entry.service.text.is_empty()
        });
        one_group(found)
    }

    fn collect_plain(&self, subtree: Subtree, name: &[u8]) -> Vec<Found<'m>> {
        let Some(path) = path_of(name) else {
            return Vec::new();
        };
        let depth = path.split(|octet| *octet == b'/').count();
        let below = self.model.below(&path);
        let found: Vec<Found<'m>> = match subtree {
            Subtree::On => below.collect(),
            Subtree::Children => below
                .filter(|(path, _)| segments(path) == depth + 1)
                .collect(),
            Subtree::Off => Vec::new(),
        };
        match found.is_empty() {
            true => self
                .model
                .entries
                .get_key_value(&path)
                .into_iter()
                .collect(),
            false => found,
        }
    }

    fn collect_matching(&self, name: &[u8]) -> Vec<Found<'m>> {
        let mut pattern: Vec<&[u8]> = labels(name).collect();
        pattern.reverse();
        let subtree = self.rules.subtree;
        let all = self.model.entries.iter();
        let matching = all.filter(|(path, _)| {
            let found: Vec<&[u8]> = path.split(|octet| *octet == b'/').collect();
            let deeper = found.len().saturating_sub(pattern.len());
            let wanted = match subtree {
                Subtree::On => true,
                Subtree::Children => deeper <= 1,
                Subtree::Off => deeper == 0,
            };
            let mut pairs = pattern.iter().zip(&found);
            wanted
                && found.len() >= pattern.len()
                && pairs.all(|(label, segment)| is_wildcard(label) || label == segment)
        });
        matching.collect()
    }

    fn expected(&self, owner: &[u8], entry: &Entry, rtype: Rtype, data: Vec<u8>) -> Expected {
        Expected {
            rr: Rr::new(owner, rtype, data),
            ttl: self.rules.ttl(entry),
            ttl_at_most: entry.lease.is_some(),
            optional: false,
        }
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
        for (_, entry) in self.collect_address(&owner, qtype) {
            let text = entry.service.text.as_bytes();
            match &entry.service.host {
                _ if qtype == Rtype::TXT && !text.is_empty() => {
                    found.push(self.expected(&owner, entry, qtype, text.to_vec()));
                }
                Host::Address(IpAddr::V4(v4)) if qtype == Rtype::A => {
                    found.push(self.expected(&owner, entry, qtype, v4.octets().to_vec()));
                }
                Host::Address(IpAddr::V6(v6)) if qtype == Rtype::AAAA => {
                    found.push(self.expected(&owner, entry, qtype, v6.octets().to_vec()));
                }
                Host::Name(target) => {
                    self.follow(&owner, entry, target, qtype, chain, &mut found);
                }
                _ => {}
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
            || self.lookups >= LOOKUPS_MAX
        {
            return;
        }
        let mut alias = self.expected(owner, entry, Rtype::CNAME, target.clone());
        if !is_within(&target, self.zone) {
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
    fn collect_address(&mut self, name: &[u8], qtype: Rtype) -> Vec<Found<'m>> {
        let subtree = self.rules.subtree;
        if name == self.zone && qtype != Rtype::TXT {
            let apex = below_dns(self.zone, b"apex");
            if apex.as_deref().is_some_and(|apex| self.exists(apex)) {
                return self.collect(Subtree::On, &apex.unwrap_or_default(), qtype);
            }
        }
        self.collect(subtree, name, qtype)
    }

    //--- Services -------------------------------------------------------------------------------

    fn srv(&mut self, qname: &[u8]) {
        let services = self.collect(self.rules.subtree, qname, Rtype::SRV);
        let mut sums: HashMap<u16, u64> = HashMap::new();
        for (_, entry) in &services {
            *sums.entry(priority(&entry.service)).or_default() += weight(&entry.service);
        }
        let mut shown = HashSet::new();
        for (path, entry) in services {
            let service = &entry.service;
            let Some(target) = target(path, service) else {
                continue;
            };
            if service.port == -1 {
                continue;
            }
            let port = service.port as u16;
            let sum = sums.get(&priority(service)).copied().unwrap_or(1).max(1);
            let share = (100.0 / sum as f64 * weight(service) as f64).floor() as u16;
            let is_name = matches!(service.host, Host::Name(_));
            if is_name || shown.insert((target.clone(), port)) {
                let mut data = Vec::new();
                for number in [priority(service), share.max(1), port] {
                    data.extend_from_slice(&number.to_be_bytes());
                }
                data.extend(target.to_ascii_lowercase());
                let record = self.expected(qname, entry, Rtype::SRV, data);
                self.answer.records.push(record);
            }
            self.address_of(&target, entry);
        }
    }

    fn mx(&mut self, qname: &[u8]) {
        let services = self.collect(self.rules.subtree, qname, Rtype::MX);
        for (path, entry) in services {
            if !entry.service.mail {
                continue;
            }
            if let Some(target) = target(path, &entry.service) {
                let mut data = priority(&entry.service).to_be_bytes().to_vec();
                data.extend(target.to_ascii_lowercase());
                let record = self.expected(qname, entry, Rtype::MX, data);
                self.answer.records.push(record);
                self.address_of(&target, entry);
            }
        }
    }

    /// The zone's name servers are the records below `ns.dns`.
    fn ns(&mut self, qname: &[u8]) {
        let Some(ns) = below_dns(self.zone, b"ns") else {
            return;
        };
        for (path, entry) in self.collect(Subtree::On, &ns, Rtype::NS) {
            if let Some(target) = target(path, &entry.service) {
                let data = target.to_ascii_lowercase();
                let record = self.expected(qname, entry, Rtype::NS, data);
                self.answer.records.push(record);
                self.address_of(&target, entry);
            }
        }
    }

    fn address_of(&mut self, target: &[u8], entry: &Entry) {
        match &entry.service.host {
            Host::None => {}
            Host::Address(IpAddr::V4(v4)) => {
                let rr = Rr::new(target, Rtype::A, v4.octets());
                self.answer.additional.insert(rr);
            }
            Host::Address(IpAddr::V6(v6)) => {
                let rr = Rr::new(target, Rtype::AAAA, v6.octets());
                self.answer.additional.insert(rr);
            }
            Host::Name(_) => {
                let name = target.to_ascii_lowercase();
                if is_within(&name, self.zone) {
                    for qtype in [Rtype::A, Rtype::AAAA] {
                        let mut found = Vec::new();
                        self.chase(&name, qtype, &mut vec![name.clone()], &mut found);
                        let rrs = found.into_iter().map(|record| record.rr);
                        self.answer.additional.extend(rrs);
                    }
                }
            }
        }
    }

    /// CNAME or PTR: the name's own record and those one level below, host names only; of CNAMEs the first.
    fn one_name(&mut self, qname: &[u8], rtype: Rtype) {
        let own = self.collect(Subtree::Off, qname, rtype);
        let children = self.collect(Subtree::Children, qname, rtype);
        self.lookups = 1;
        for (_, entry) in own.into_iter().chain(children) {
            if let Host::Name(host) = &entry.service.host {
                let record = self.expected(qname, entry, rtype, host.to_ascii_lowercase());
                self.answer.records.push(record);
                if rtype == Rtype::CNAME {
                    break;
                }
            }
        }
    }
}

fn remove_doubles(records: &mut Vec<Expected>) {
    let mut seen = HashSet::new();
    records.retain(|record| seen.insert(record.rr.clone()));
}

/// The shallowest level with a group decides which group counts, unless it disagrees.
fn one_group(mut found: Vec<Found<'_>>) -> Vec<Found<'_>> {
    let grouped = || {
        found
            .iter()
            .filter(|(_, entry)| !entry.service.group.is_empty())
    };
    let Some(level) = grouped().map(|(path, _)| segments(path)).min() else {
        return found;
    };
    let deciding = grouped().filter(|(path, _)| segments(path) == level);
    let groups: HashSet<&str> = deciding
        .map(|(_, entry)| entry.service.group.as_str())
        .collect();
    if let (1, Some(group)) = (groups.len(), groups.iter().next().copied()) {
        let group = group.to_owned();
        found.retain(|(_, entry)| entry.service.group.is_empty() || entry.service.group == group);
    }
    found
}

fn segments(path: &[u8]) -> usize {
    path.split(|octet| *octet == b'/').count()
}

fn priority(service: &Service) -> u16 {
    match service.priority {
        0 => 10,
        priority => priority as u16,
    }
}

fn weight(service: &Service) -> u64 {
    match service.weight.clamp(0, i64::from(u16::MAX)) {
        0 => 100,
        weight => weight as u64,
    }
}

/// The name of a service: its host if that is a name, else its key as a name; less the labels that are to be stripped.
fn target(path: &[u8], service: &Service) -> Option<Box<[u8]>> {
    let name: Box<[u8]> = match &service.host {
        Host::None => return None,
        Host::Name(name) => name.clone(),
        Host::Address(_) => name_of(path)?.as_wire().into(),
    };
    let strip = service.targetstrip.clamp(0, 127) as usize;
    let rest = suffixes(&name).nth(strip).filter(|rest| rest.len() > 1);
    Some(rest.map_or_else(|| name.clone(), Into::into))
}

/// A key's path as a name, spelled as it is; a dot inside a segment separates labels.
fn name_of(path: &[u8]) -> Option<Name> {
    let segments = path.split(|octet| matches!(octet, b'/' | b'.'));
    let labels: Vec<&[u8]> = segments.filter(|label| !label.is_empty()).collect();
    name_of_labels(&labels)
}

/// From the labels in a key's order.
fn name_of_labels(labels: &[&[u8]]) -> Option<Name> {
    let mut name = NameBuf::new();
    for label in labels.iter().rev() {
        name.push_label(label).ok()?;
    }
    name.push(0).ok()?;
    Some(name.to_name())
}

/// `ns.dns` or `apex.dns` of a zone.
fn below_dns(zone: &[u8], label: &[u8]) -> Option<Box<[u8]>> {
    let zone = Name::from_wire(zone).ok()?;
    let name = zone.child(b"dns").and_then(|dns| dns.child(label)).ok()?;
    Some(name.as_wire().into())
}

/// The path of a name; `None` if a label has an octet that no key has.
pub(crate) fn path_of(name: &[u8]) -> Option<Vec<u8>> {
    let mut segments: Vec<&[u8]> = labels(name).collect();
    segments.reverse();
    let bad = segments.iter().any(|s| s.contains(&b'/') || s.contains(&0));
    (!bad).then(|| segments.join(&b'/'))
}

fn is_wildcard(label: &[u8]) -> bool {
    label == b"*" || label == b"any"
}

fn has_wildcard(name: &[u8]) -> bool {
    labels(name).any(is_wildcard)
}

/// Whether a question can have this label: not empty, not too long, lower case, no dot, no wildcard's word.
pub(crate) fn is_askable(segment: &[u8]) -> bool {
    (1..=63).contains(&segment.len())
        && !is_wildcard(segment)
        && !segment
            .iter()
            .any(|octet| octet.is_ascii_uppercase() || matches!(octet, b'.' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(keys: &[(&str, &str)]) -> Model {
        let keys = keys.iter().map(|(path, value)| Key {
            path: path.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            lease: path.contains("leased").then_some(10),
        });
        Model::new(keys)
    }

    fn answer(model: &Model, name: &str, rtype: Rtype) -> (bool, Vec<String>) {
        answer_as(Subtree::On, model, name, rtype)
    }

    fn answer_as(subtree: Subtree, model: &Model, name: &str, rtype: Rtype) -> (bool, Vec<String>) {
        let wire = |text: &str| Name::parse(text).expect("a name").as_wire().to_vec();
        let zone = Zone {
            name: wire("example.org").into(),
            rules: Rules {
                subtree,
                ..Rules::default()
            },
            fallthrough: false,
        };
        let found = model.answer(&zone, &Question::new(&wire(name), rtype));
        let shown = found.records.iter();
        let shown = shown.map(|record| format!("{} {}", record.ttl, record.rr));
        (found.exists, shown.collect())
    }

    const KEYS: &[(&str, &str)] = &[
        ("org/example/web", r#"{"host":"192.0.2.9"}"#),
        (
            "org/example/web/a",
            r#"{"host":"192.0.2.1","port":80,"ttl":60}"#,
        ),
        (
            "org/example/web/b",
            r#"{"host":"2001:db8::1","port":80,"weight":300}"#,
        ),
        ("org/example/alias", r#"{"host":"a.web.example.org"}"#),
        ("org/example/loop", r#"{"host":"loop.example.org"}"#),
        ("org/example/out", r#"{"host":"www.example.net"}"#),
        ("org/example/text", r#"{"text":"hello"}"#),
        (
            "org/example/mail/m",
            r#"{"host":"192.0.2.7","mail":true,"priority":5,"targetstrip":1}"#,
        ),
        ("org/example/leased", r#"{"host":"192.0.2.8"}"#),
        ("org/example/bad", "{"),
        ("org/example/Upper/x", r#"{"host":"192.0.2.6"}"#),
        ("org/example/dns/ns/n1", r#"{"host":"192.0.2.53"}"#),
        ("org/example/dns/apex/x", r#"{"host":"192.0.2.50"}"#),
        ("org/example/g/1", r#"{"host":"192.0.2.31","group":"one"}"#),
        (
            "org/example/g/2/x",
            r#"{"host":"192.0.2.32","group":"two"}"#,
        ),
    ];

    #[test]
    fn every_type_has_its_records() {
        let model = model(KEYS);
        let some = |name, rtype| answer(&model, name, rtype).1;
        assert_eq!(some("web.example.org", Rtype::A), ["60 A 192.0.2.1"]);
        assert_eq!(
            some("web.example.org", Rtype::AAAA),
            ["300 AAAA 2001:db8::1"]
        );
        assert_eq!(
            some("web.example.org", Rtype::SRV),
            [
                "60 SRV 10 25 80 a.web.example.org.",
                "300 SRV 10 75 80 b.web.example.org."
            ]
        );
        assert_eq!(
            some("alias.example.org", Rtype::A),
            ["300 CNAME a.web.example.org.", "60 A 192.0.2.1"]
        );
        assert_eq!(
            some("alias.example.org", Rtype::CNAME),
            ["300 CNAME a.web.example.org."]
        );
        assert_eq!(some("loop.example.org", Rtype::A), [""; 0]);
        assert_eq!(
            some("out.example.org", Rtype::A),
            ["300 CNAME www.example.net."]
        );
        assert_eq!(some("text.example.org", Rtype::TXT), ["300 TXT \"hello\""]);
        assert_eq!(
            some("mail.example.org", Rtype::MX),
            ["300 MX 5 mail.example.org."]
        );
        assert_eq!(some("leased.example.org", Rtype::A), ["30 A 192.0.2.8"]);
        assert_eq!(
            some("example.org", Rtype::NS),
            ["300 NS n1.ns.dns.example.org."]
        );
        assert_eq!(some("example.org", Rtype::A), ["300 A 192.0.2.50"]);
        assert_eq!(some("g.example.org", Rtype::A), ["300 A 192.0.2.31"]);
        assert_eq!(
            some("*.example.org", Rtype::MX),
            ["300 MX 5 mail.example.org."]
        );
    }

    #[test]
    fn names_exist_or_do_not() {
        let model = model(KEYS);
        for (name, exists) in [
            ("bad.example.org", true),
            ("dns.example.org", true),
            ("example.org", true),
            ("upper.example.org", false),
            ("no.example.org", false),
        ] {
            assert_eq!(answer(&model, name, Rtype::A).0, exists, "{name}");
        }
        assert_eq!(model.malformed, 1);
        let names = model.names();
        let named = |text: &str| {
            names
                .iter()
                .any(|n| **n == *Name::parse(text).unwrap().as_wire())
        };
        assert!(named("ns.dns.example.org") && named("org") && named("a.web.example.org"));
        assert!(!named("x.upper.example.org"));
    }

    #[test]
    fn subtree_says_which_records_a_name_has() {
        let model = model(KEYS);
        let some = |subtree, name| answer_as(subtree, &model, name, Rtype::A).1;
        assert_eq!(some(Subtree::Off, "web.example.org"), ["300 A 192.0.2.9"]);
        assert_eq!(
            some(Subtree::Children, "web.example.org"),
            ["60 A 192.0.2.1"]
        );
        assert_eq!(some(Subtree::Off, "mail.example.org"), [""; 0]);
    }
}
