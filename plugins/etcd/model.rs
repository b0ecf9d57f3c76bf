//! A second, plain reading of the rules that say which records a name collects, and a property that both readings agree: for CoreDNS's
//! answers, so that nothing added for SkyDNS changes them, and for SkyDNS's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use proptest::prelude::*;

use super::answer;
use super::collect::Collector;
use super::made::{Data, Item};
use super::record::Record;
use super::skydns;
use super::style::{Sky, Style, Subtree};
use super::tree::Keys;
use super::zone::ZoneData;
use crate::kit::wire::{Name, Rtype};
use crate::kit::zones::{Zone, ZoneSet};

/// A key: its segments from the top, and what its record says.
#[derive(Clone, Debug)]
struct Key {
    path: Vec<&'static str>,
    octet: Option<u8>,
    text: bool,
    group: &'static str,
    port: u16,
}

impl Key {
    fn value(&self) -> String {
        let mut value = format!(r#"{{"group":"{}","port":{}"#, self.group, self.port);
        if let Some(octet) = self.octet {
            value += &format!(r#","host":"192.0.2.{octet}""#);
        }
        if self.text {
            value += r#","text":"t""#;
        }
        value + "}"
    }
}

fn segment() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("a"),
        4 => Just("b"),
        2 => Just("ab"),
        1 => Just("_c"),
        1 => Just("*"),
        1 => Just("any"),
    ]
}

fn key() -> impl Strategy<Value = Key> {
    let path = prop::collection::vec(segment(), 0..4);
    let group = prop_oneof![3 => Just(""), 1 => Just("g1"), 1 => Just("g2")];
    let octet = prop::option::weighted(0.9, 1u8..6);
    (path, octet, any::<bool>(), group, 1u16..3).prop_map(|(path, octet, text, group, port)| Key {
        path,
        octet,
        text,
        group,
        port,
    })
}

fn style() -> impl Strategy<Value = Style> {
    let subtree = prop_oneof![
        Just(Subtree::On),
        Just(Subtree::Children),
        Just(Subtree::Off)
    ];
    let wildcards = prop_oneof![Just((true, false)), Just((false, true)), Just((true, true))];
    let sky = any::<bool>().prop_map(|sky| {
        sky.then_some(Sky {
            local: None,
            ndots: 2,
            no_rec: false,
            completion_ttl: 60,
        })
    });
    (subtree, wildcards, any::<bool>(), sky).prop_map(
        |(subtree, (query_wildcards, record_wildcards), apex_is_own, sky)| Style {
            sky,
            subtree,
            apex_is_own,
            query_wildcards,
            record_wildcards,
            auto_ptr: false,
            ttl: 300,
            min_ttl: 30,
            priority: 10,
            hostmaster: None,
            serial_is_time: false,
        },
    )
}

//--- The model --------------------------------------------------------------------------------------

/// The keys that answer, in order; `None`: there is no such name.
fn collected<'k>(all: &'k [Key], name: &[&str], style: &Style) -> Option<Vec<&'k Key>> {
    let is_word = |label: &&str| matches!(*label, "*" | "any");
    if name.is_empty() && style.apex_is_own {
        return Some(all.iter().filter(|key| key.path.is_empty()).collect());
    }
    if style.query_wildcards && name.iter().any(is_word) {
        let fits = |key: &&Key| {
            let mut pairs = name.iter().zip(&key.path);
            let depth = key.path.len().checked_sub(name.len());
            let deep_enough = match (style.subtree, depth) {
                (_, None) => false,
                (Subtree::On, Some(_)) | (_, Some(0)) => true,
                (Subtree::Children, Some(below)) => below == 1,
                (Subtree::Off, Some(_)) => false,
            };
            let is_hidden = |at: usize| style.sky.is_some() && key.path[at].starts_with('_');
            deep_enough
                && pairs.all(|(label, segment)| is_word(label) || label == segment)
                && (0..key.path.len()).all(|at| {
                    let by_name = name.get(at).is_some_and(|label| !is_word(label));
                    by_name || !is_hidden(at)
                })
        };
        let found: Vec<&Key> = all.iter().filter(fits).collect();
        if !found.is_empty() {
            return Some(found);
        }
    } else if all.iter().any(|key| key.path.starts_with(name)) || name.is_empty() {
        if !all.iter().any(|key| key.path.starts_with(name)) {
            return None;
        }
        return Some(at(all, name, style));
    }
    if !style.record_wildcards {
        return None;
    }
    let encloser = (0..name.len())
        .rev()
        .map(|labels| &name[..labels])
        .find(|above| above.is_empty() || all.iter().any(|key| key.path.starts_with(above)))?;
    let source = [encloser, &["*"]].concat();
    let exists = all.iter().any(|key| key.path.starts_with(&source));
    exists.then(|| at(all, &source, style))
}

fn at<'k>(all: &'k [Key], name: &[&str], style: &Style) -> Vec<&'k Key> {
    let within = all.iter().filter(|key| key.path.starts_with(name));
    let below = within.clone().filter(|key| {
        let below = &key.path[name.len()..];
        let is_hidden = style.sky.is_some() && below.iter().any(|label| label.starts_with('_'));
        let is_wanted = match style.subtree {
            Subtree::On => !below.is_empty(),
            Subtree::Children => below.len() == 1,
            Subtree::Off => false,
        };
        is_wanted && !is_hidden
    });
    let below: Vec<&Key> = below.collect();
    let own = within.filter(|key| key.path.len() == name.len());
    match style.sky.is_some() || below.is_empty() {
        true => own.chain(below).collect(),
        false => below,
    }
}

/// The addresses, or for TXT the number of texts.
fn expected(all: &[Key], name: &[&str], style: &Style, qtype: Rtype) -> Option<Vec<u8>> {
    let mut keys = collected(all, name, style)?;
    if style.sky.is_some() {
        let mut seen: Vec<(Option<u8>, bool, u16)> = Vec::new();
        keys.retain(|key| {
            let content = (key.octet, key.text, key.port);
            let is_new = !seen.contains(&content);
            seen.push(content);
            is_new
        });
    }
    keys.retain(|key| key.octet.is_some() || qtype == Rtype::TXT && key.text);
    let level = keys.iter().filter(|key| !key.group.is_empty());
    if let Some(level) = level.map(|key| key.path.len()).min() {
        let groups = keys
            .iter()
            .filter(|key| !key.group.is_empty() && key.path.len() == level);
        let mut groups: Vec<&str> = groups.map(|key| key.group).collect();
        groups.dedup();
        if let [only] = groups[..] {
            keys.retain(|key| key.group.is_empty() || key.group == only);
        }
    }
    let mut octets: Vec<u8> = Vec::new();
    for key in keys {
        let octet = match qtype {
            Rtype::TXT => key.text.then_some(0),
            _ => key.octet,
        };
        if let Some(octet) = octet.filter(|octet| !octets.contains(octet)) {
            octets.push(octet);
        }
    }
    Some(octets)
}

//--- The property -----------------------------------------------------------------------------------

fn answered(all: &[Key], name: &[&str], style: &Style, qtype: Rtype) -> Option<Vec<u8>> {
    let mut keys = Keys::new();
    for key in all {
        let path = [&["org", "example"], &key.path[..]].concat().join("/");
        let record = Record::read(key.value().as_bytes(), 1, None).expect("a record");
        keys.insert(path.into_bytes().into(), record);
    }
    let zone = Zone::parse("example.org").expect("a zone");
    let zones = ZoneSet::new([zone.clone()]);
    let zone = ZoneData::new(zone, Arc::new(AtomicI64::new(0)), style);
    let mut labels: Vec<&str> = name.to_vec();
    labels.reverse();
    labels.extend(["example", "org"]);
    let qname = Name::parse(&labels.join(".")).expect("a name");
    let collector = Collector {
        keys: &keys,
        addresses: None,
        zones: &zones,
        zone: &zone,
        style,
        lookups: 0,
    };
    let made = match &style.sky {
        None => answer::make(collector, qname.as_wire(), qtype)?,
        Some(sky) => {
            let made = skydns::make_now(collector, sky, qname.as_wire(), qtype);
            made.expect("nothing is outside")?
        }
    };
    assert!(made.is_whole());
    let octets = made.answer.into_iter().map(|item| match item {
        Item::Record(record) => {
            assert_eq!(&*record.owner, qname.as_wire());
            match record.data {
                Data::A([.., octet]) => octet,
                _ => 0,
            }
        }
        Item::Outside { .. } => panic!("nothing is outside"),
    });
    Some(octets.collect())
}

proptest! {
    #[test]
    fn both_readings_agree(
        keys in prop::collection::vec(key(), 0..12),
        name in prop::collection::vec(segment(), 0..4),
        style in style(),
        is_text in any::<bool>(),
    ) {
        // One record at a path, in the order of the tree.
        let keys: BTreeMap<String, Key> = keys
            .into_iter()
            .map(|key| (key.path.join("/"), key))
            .collect();
        let keys: Vec<Key> = keys.into_values().collect();
        let qtype = if is_text { Rtype::TXT } else { Rtype::A };
        let expected = expected(&keys, &name, &style, qtype);
        let answered = answered(&keys, &name, &style, qtype);
        prop_assert_eq!(answered, expected);
    }
}

//--- Aliases ----------------------------------------------------------------------------------------

/// What a name of a small web of names has: aliases to others of it by number, or an address.
fn web() -> impl Strategy<Value = Vec<Vec<Option<u8>>>> {
    let one = prop_oneof![3 => (0u8..12).prop_map(Some), 1 => Just(None)];
    prop::collection::vec(prop::collection::vec(one, 1..4), 1..12)
}

fn web_keys(web: &[Vec<Option<u8>>]) -> Keys {
    let mut keys = Keys::new();
    for (name, hosts) in web.iter().enumerate() {
        for (child, host) in hosts.iter().enumerate() {
            let host = match host {
                Some(other) => format!("n{other}.example.org"),
                None => format!("192.0.2.{}", name + 1),
            };
            let value = format!(r#"{{"host":"{host}","port":{child}}}"#);
            let record = Record::read(value.as_bytes(), 1, None).expect("a record");
            let path = format!("org/example/n{name}/c{child}");
            keys.insert(path.into_bytes().into(), record);
        }
    }
    keys
}

proptest! {
    #[test]
    fn every_alias_that_is_shown_leads_to_something_shown(
        web in web(), like_skydns in any::<bool>(), srv in any::<bool>(),
    ) {
        let keys = web_keys(&web);
        let style = Style {
            sky: like_skydns.then_some(Sky { local: None, ndots: 2, no_rec: false, completion_ttl: 60 }),
            subtree: Subtree::On,
            apex_is_own: false,
            query_wildcards: true,
            record_wildcards: false,
            auto_ptr: false,
            ttl: 300,
            min_ttl: 30,
            priority: 10,
            hostmaster: None,
            serial_is_time: false,
        };
        let zone = Zone::parse("example.org").expect("a zone");
        let zones = ZoneSet::new([zone.clone()]);
        let zone = ZoneData::new(zone, Arc::new(AtomicI64::new(0)), &style);
        let qname = Name::parse("n0.example.org").expect("a name");
        let qtype = if srv { Rtype::SRV } else { Rtype::A };
        let collector = Collector { keys: &keys, addresses: None, zones: &zones, zone: &zone, style: &style, lookups: 0 };
        let made = match &style.sky {
            None => answer::make(collector, qname.as_wire(), qtype),
            Some(sky) => skydns::make_now(collector, sky, qname.as_wire(), qtype).expect("nothing is outside"),
        };
        let made = made.expect("the name exists");
        let section = if srv { &made.additional } else { &made.answer };
        let records: Vec<_> = section.iter().map(|item| match item {
            Item::Record(record) => record,
            Item::Outside { .. } => panic!("nothing is outside"),
        }).collect();
        let owners: Vec<&[u8]> = records.iter().map(|record| &*record.owner).collect();
        let mut seen = std::collections::HashSet::new();
        for record in &records {
            prop_assert!(seen.insert((&record.owner, &record.data)), "twice");
            if let Data::Name(Rtype::CNAME, target) = &record.data {
                prop_assert!(owners.contains(&&**target), "{record:?} leads nowhere");
            }
        }
        if like_skydns {
            let aliases = records.iter().filter(|record| matches!(record.data, Data::Name(..)));
            let aliases: Vec<_> = aliases.map(|record| &record.owner).collect();
            let distinct: std::collections::HashSet<_> = aliases.iter().collect();
            prop_assert_eq!(distinct.len(), aliases.len());
        }
    }
}
