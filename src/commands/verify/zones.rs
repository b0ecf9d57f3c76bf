//! Which zones a server answers from the keys: as told, or found out by asking for SOA records.

use std::collections::HashSet;

use skein_plugins::kit::wire::name::{is_within, labels, suffixes};
use skein_plugins::kit::wire::{Name, Rtype, Section};

use super::ask::{Asker, How, Question, Silence};
use super::model::{Answers, Rules, Zone};

/// Names that are asked about, at most, to find zones.
const ASKED_MAX: usize = 2000;

/// The zone that a name is in, the longest one.
pub(crate) fn zone_of(zones: &[Zone], name: &[u8]) -> Option<usize> {
    let covering = zones.iter().enumerate();
    let covering = covering.filter(|(_, zone)| is_within(name, &zone.name));
    covering
        .max_by_key(|(_, zone)| zone.name.len())
        .map(|(at, _)| at)
}

/// Zones by name.
pub(crate) fn named(names: &[String], rules: &Rules) -> Result<Vec<Zone>, String> {
    let mut zones = Vec::new();
    for text in names {
        let found = skein_plugins::kit::zones::parse_zones(text)
            .map_err(|what| format!("--domain {text}: {what}"))?;
        let found = found.into_iter().map(|zone| zone.name.as_wire().into());
        zones.extend(found.map(|name| Zone::new(name, rules.clone())));
    }
    Ok(zones)
}

/// The zones that cover names (lower-cased wire form) and that the server says are its own.
pub(crate) async fn discover(
    how: &How,
    names: &[Box<[u8]>],
    rules: &Rules,
) -> Result<Vec<Zone>, Silence> {
    let mut zones = Vec::new();
    let mut asker = Asker::default();
    let mut elsewhere: HashSet<Box<[u8]>> = HashSet::new();
    // The deepest first: one answer names the zone that covers all its neighbours.
    let mut names: Vec<&Box<[u8]>> = names.iter().collect();
    names.sort_by_key(|name| std::cmp::Reverse(labels(name).count()));
    let mut asked = 0;
    for name in names {
        let parent = suffixes(name).nth(1).unwrap_or_default();
        if zone_of(&zones, name).is_some() || elsewhere.contains(parent) || asked == ASKED_MAX {
            continue;
        }
        asked += 1;
        match soa_of(&mut asker, how, name).await? {
            Some(zone) => zones.push(Zone::new(zone, rules.clone())),
            // Its siblings are served no better.
            None => {
                elsewhere.insert(parent.into());
            }
        }
    }
    Ok(zones)
}

/// The owner of the SOA that the server gives for a name as an authority.
async fn soa_of(asker: &mut Asker, how: &How, name: &[u8]) -> Result<Option<Box<[u8]>>, Silence> {
    let reply = asker.ask(how, &Question::new(name, Rtype::SOA)).await?;
    if !reply.authoritative {
        return Ok(None);
    }
    let sections = [Section::Answer, Section::Authority];
    let mut records = sections
        .into_iter()
        .flat_map(|section| reply.section(section));
    let soa = records.find(|(_, rr)| rr.rtype == Rtype::SOA && is_within(name, &rr.owner));
    Ok(soa.map(|(_, rr)| rr.owner.clone()))
}

/// Whose answers a zone has, by the times in its SOA: SkyDNS's are its own, and its TTLs are in there too.
pub(crate) async fn recognize(
    how: &How,
    zones: &mut [Zone],
    ttl: Option<u32>,
) -> Result<(), Silence> {
    const SKYDNS_TIMES: [u32; 3] = [28_800, 7200, 604_800];
    let mut asker = Asker::default();
    for zone in zones {
        let reply = asker
            .ask(how, &Question::new(&zone.name, Rtype::SOA))
            .await?;
        let mut answer = reply.section(Section::Answer);
        let Some((soa_ttl, soa)) = answer.find(|(_, rr)| rr.rtype == Rtype::SOA) else {
            continue;
        };
        let numbers: Vec<u32> = soa
            .data
            .rchunks_exact(4)
            .take(5)
            .filter_map(|octets| octets.first_chunk::<4>())
            .map(|octets| u32::from_be_bytes(*octets))
            .collect();
        // From the end: minimum, expire, retry, refresh, serial.
        if let [minimum, expire, retry, refresh, _] = numbers[..]
            && [refresh, retry, expire] == SKYDNS_TIMES
        {
            zone.rules = Rules {
                subtree: zone.rules.subtree,
                ttl: ttl.unwrap_or(soa_ttl),
                min_ttl: minimum,
                ..Rules::like(Answers::Skydns)
            };
        }
    }
    Ok(())
}

/// SkyDNS answers PTR for every address in etcd, whatever its zones.
pub(crate) fn add_reverse(zones: &mut Vec<Zone>) {
    let sky = zones
        .iter()
        .find(|zone| zone.rules.answers == Answers::Skydns);
    let Some(rules) = sky.map(|zone| zone.rules.clone()) else {
        return;
    };
    for name in [&b"\x07in-addr\x04arpa\x00"[..], b"\x03ip6\x04arpa\x00"] {
        if !zones.iter().any(|zone| *zone.name == *name) {
            zones.push(Zone {
                fallthrough: true,
                fallthrough_nodata: true,
                is_apart: true,
                ..Zone::new(name.into(), rules.clone())
            });
        }
    }
}

/// A zone's name as text.
pub(crate) fn text(zone: &Zone) -> String {
    Name::from_wire(&zone.name).map_or_else(|_| ".".into(), |name| name.to_string())
}
