//! What we answer from zones is what NSD and Knot answer, wherever those two agree: random zones, random questions.
//!
//! A part of an answer (rcode, AA, TC, each section as a set) is compared where NSD's and Knot's are the same; docs/testing.md says what is
//! left out. `DIFFERENTIAL_QUERIES` asks for more, `DIFFERENTIAL_SEED` for other zones.

#[path = "../support/mod.rs"]
mod support;

mod compare;
mod peers;
mod zones;

use std::collections::BTreeMap;
use std::path::Path;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use compare::{Parts, differences};
use peers::{Connection, knot, nsd};
use support::Skeindns;
use zones::Zone;

/// Questions of an ordinary run.
const QUERIES: usize = 6_000;
/// Zones of a run.
const ZONES: usize = 24;
/// Differences that are shown; the first ones tell the story.
const SHOWN: usize = 12;

fn variable(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn answers_are_those_that_nsd_and_knot_agree_on() {
    let queries = variable("DIFFERENTIAL_QUERIES", QUERIES);
    let seed = variable("DIFFERENTIAL_SEED", 1);
    let mut random = StdRng::seed_from_u64(seed as u64);
    let dir = tempfile::tempdir().expect("a folder");
    let zones: Vec<Zone> = (0..ZONES)
        .map(|number| Zone::random(number, &mut random))
        .collect();
    for zone in &zones {
        zone.write(dir.path());
    }
    let names: Vec<String> = zones.iter().map(|zone| zone.name.clone()).collect();
    let (_nsd, nsd_port) = nsd(dir.path(), &names);
    let (_knot, knot_port) = knot(dir.path(), &names);
    let ours = Skeindns::start(dir.path(), &dnsfile(dir.path(), &names));
    let mut connections = [nsd_port, knot_port, ours.port].map(Connection::new);
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for number in 0..queries {
        let zone = &zones[number % zones.len()];
        let query = question(number as u16, zone, &mut random);
        let [nsd, knot, ours] = connections
            .each_mut()
            .map(|connection| connection.ask(&query));
        let found = differences(
            [
                &Parts::of(&nsd, zone),
                &Parts::of(&knot, zone),
                &Parts::of(&ours, zone),
            ],
            &mut compared,
        );
        for part in found {
            failures.push(match failures.len() < SHOWN {
                true => format!(
                    "{part} of {}\n--- NSD\n{nsd}\n--- Knot\n{knot}\n--- ours\n{ours}\n",
                    query.queries[0]
                ),
                false => part.to_owned(),
            });
        }
    }
    eprintln!("{queries} queries, seed {seed}; parts compared: {compared:?}");
    assert!(
        failures.is_empty(),
        "{} differences (seed {seed}):\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn dnsfile(dir: &Path, names: &[String]) -> String {
    let files: String = names
        .iter()
        .map(|name| format!("    file {name}.zone {name}\n"))
        .collect();
    format!(
        ".:0 {{\n    bind 127.0.0.1\n    root {}\n{files}}}\n",
        dir.display()
    )
}

fn question(id: u16, zone: &Zone, random: &mut StdRng) -> Message {
    const TYPES: [RecordType; 14] = [
        RecordType::A,
        RecordType::A,
        RecordType::AAAA,
        RecordType::TXT,
        RecordType::MX,
        RecordType::SRV,
        RecordType::CNAME,
        RecordType::NS,
        RecordType::DS,
        RecordType::SOA,
        RecordType::PTR,
        RecordType::Unknown(39),
        RecordType::NSEC,
        RecordType::Unknown(65280),
    ];
    let name = zone.question(random);
    let rtype = TYPES[random.random_range(0..TYPES.len())];
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(name).expect("a name"), rtype));
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    edns.set_dnssec_ok(random.random_ratio(1, 2));
    query.edns = Some(edns);
    query
}
