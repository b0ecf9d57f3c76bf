//! [`Model`]: what a server should answer, worked out the slow and simple way from the keys as etcd has them. It shares nothing with the
//! server's tree and its finished answers, which is the point: `verify` compares the two.
//!
//! `collect.rs` finds the records of a name, `coredns.rs` and `skydns.rs` make answers of them.

mod collect;
mod coredns;
mod skydns;

use std::collections::{BTreeMap, HashSet};

use skein_plugins::kit::wire::name::{is_within, labels};
use skein_plugins::kit::wire::{Name, NameBuf, Rtype};

use super::ask::Question;
use super::rr::Rr;
use super::service::Service;
use collect::Collector;

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

/// Whose answers.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Answers {
    /// As CoreDNS gives them
    #[default]
    Coredns,
    /// As SkyDNS gives them
    Skydns,
}

/// What answers depend on beside the records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rules {
    pub(crate) answers: Answers,
    pub(crate) subtree: Subtree,
    /// The zone's name answers with its own key.
    pub(crate) apex_is_own: bool,
    /// `*` and `any` in a question stand for any label.
    pub(crate) query_wildcards: bool,
    /// `*` in a key answers names that are not there.
    pub(crate) record_wildcards: bool,
    /// TTL of a record that neither says one nor hangs on a lease.
    pub(crate) ttl: u32,
    /// TTL of what the server says of itself.
    pub(crate) min_ttl: u32,
    /// Priority of records that say none.
    pub(crate) priority: u16,
    /// What a lease's time is kept between, in seconds.
    pub(crate) lease_ttl: (u32, u32),
    /// What `local.dns.ZONE` stands for, lower-cased wire form.
    pub(crate) local: Option<Box<[u8]>>,
    /// Labels that a name outside must have to be asked for.
    pub(crate) ndots: usize,
}

impl Rules {
    pub(crate) fn like(answers: Answers) -> Rules {
        let (ttl, min_ttl) = match answers {
            Answers::Coredns => (300, 30),
            Answers::Skydns => (3600, 60),
        };
        Rules {
            answers,
            subtree: Subtree::On,
            apex_is_own: false,
            query_wildcards: true,
            record_wildcards: false,
            ttl,
            min_ttl,
            priority: 10,
            lease_ttl: (30, 86_400),
            local: None,
            ndots: 2,
        }
    }

    fn ttl(&self, entry: &Entry) -> u32 {
        let (min, max) = self.lease_ttl;
        let lease = entry.lease.map(|granted| granted.max(min).min(max));
        let ttl = match (entry.service.ttl, lease, self.answers) {
            (0, None, _) => self.ttl,
            (0, Some(lease), Answers::Coredns) => lease,
            (0, Some(lease), Answers::Skydns) => lease.min(self.ttl),
            (own, None, _) => own,
            (own, Some(lease), _) => own.min(lease),
        };
        ttl.min(TTL_MAX)
    }

    fn priority(&self, service: &Service) -> u16 {
        match service.priority {
            0 => self.priority,
            priority => priority as u16,
        }
    }
}

/// A zone that the server answers from the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Zone {
    /// Lower-cased wire form.
    pub(crate) name: Box<[u8]>,
    pub(crate) rules: Rules,
    /// Names that do not exist are somebody else's.
    pub(crate) fallthrough: bool,
    /// So are names without a record of the type.
    pub(crate) fallthrough_nodata: bool,
    /// It is no zone but where keys are looked for beside the zones: it has no SOA.
    pub(crate) is_apart: bool,
}

impl Zone {
    pub(crate) fn new(name: Box<[u8]>, rules: Rules) -> Zone {
        Zone {
            name,
            rules,
            fallthrough: false,
            fallthrough_nodata: false,
            is_apart: false,
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
    /// The server adds what only it knows.
    pub(crate) free_additional: bool,
    /// So is the whole answer.
    pub(crate) is_free: bool,
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

    /// What should be answered in one of the zones. The question's name is in lower case.
    pub(crate) fn answer(&self, zones: &[Zone], zone: &Zone, question: &Question) -> Answer {
        let collector = Collector::new(self, zone);
        match zone.rules.answers {
            Answers::Coredns => coredns::answer(collector, question),
            Answers::Skydns => skydns::answer(collector, zones, question),
        }
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

/// The data of an SRV record.
fn srv_data(numbers: [u16; 3], target: &[u8]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|number| number.to_be_bytes());
    numbers.chain(target.to_ascii_lowercase()).collect()
}

/// A record once.
fn remove_doubles(records: &mut Vec<Expected>) {
    let mut seen = HashSet::new();
    records.retain(|record| seen.insert(record.rr.clone()));
}

fn weight(service: &Service) -> u64 {
    match service.weight.clamp(0, i64::from(u16::MAX)) {
        0 => 100,
        weight => weight as u64,
    }
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

/// Whether a question can have this label: not empty, not too long, lower case, no dot, no wildcard's word.
pub(crate) fn is_askable(segment: &[u8]) -> bool {
    (1..=63).contains(&segment.len())
        && !is_wildcard(segment)
        && !segment
            .iter()
            .any(|octet| octet.is_ascii_uppercase() || matches!(octet, b'.' | 0))
}

/// The address types that a host can be.
fn address(host: &super::service::Host) -> Option<(Rtype, Vec<u8>)> {
    match host {
        super::service::Host::Address(std::net::IpAddr::V4(v4)) => {
            Some((Rtype::A, v4.octets().to_vec()))
        }
        super::service::Host::Address(std::net::IpAddr::V6(v6)) => {
            Some((Rtype::AAAA, v6.octets().to_vec()))
        }
        _ => None,
    }
}

/// Whether a name stands above those of addresses: what is one level below it are other addresses, not its own names.
fn is_above_reverse(name: &[u8]) -> bool {
    let labels = labels(name).count();
    let v4 = is_within(name, b"\x07in-addr\x04arpa\x00") && labels < 6;
    v4 || is_within(name, b"\x03ip6\x04arpa\x00") && labels < 34
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
        let rules = Rules {
            subtree,
            ..Rules::like(Answers::Coredns)
        };
        answer_by(rules, model, name, rtype)
    }

    fn answer_by(rules: Rules, model: &Model, name: &str, rtype: Rtype) -> (bool, Vec<String>) {
        let wire = |text: &str| Name::parse(text).expect("a name").as_wire().to_vec();
        let zone = Zone::new(wire("example.org").into(), rules);
        let zones = std::slice::from_ref(&zone);
        let found = model.answer(zones, &zone, &Question::new(&wire(name), rtype));
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
