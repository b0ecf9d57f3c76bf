//! Properties: what holds for every input, tried on many. `tests/corpus/` keeps what once broke; it is replayed first, for ever.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --test properties` looks longer.

use std::path::Path;

use hickory_proto::op::Message;
use proptest::prelude::*;
use skein_plugins::PLUGINS;
use skein_plugins::kit::query::Transport;
use skein_plugins::kit::testing::server::{self, Answered, TestServer};
use skein_plugins::kit::testing::{Question, World, render};
use skein_plugins::kit::wire::message;
use skein_plugins::kit::wire::{Name, NameBuf, name};

//--- Hostile packets --------------------------------------------------------------------------------

/// A block with a bit of everything that answers at once.
const DNSFILE: &str =
    ". {\n bufsize 900\n nsid node-7\n errors\n forward odd.example scripted\n whoami\n}\n";

/// Packets that make sense: what mutations start from.
fn seeds() -> Vec<Vec<u8>> {
    let questions = [
        "www.example.org. A",
        "www.example.org. A +do +nsid +cookie +ecs=198.51.100.0/24",
        "multi-20.odd.example. A +bufsize=512",
        "big-9.odd.example. TXT +bufsize=4096",
        "opts.odd.example. A +do +padding=100",
        "mixttl.odd.example. A +cd +ad +norec",
        ". ANY +edns=1",
        "a.very.long.name.with.many.labels.and.more.of.them.example.org. SRV +opt=65001:beef +class=CH",
    ];
    questions
        .iter()
        .map(|text| Question::parse(text).expect("a seed is right").packet)
        .collect()
}

#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Repeat(prop::sample::Index, u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    // Octets that mean something in a message are likelier than others.
    let octet = prop_oneof![
        Just(0_u8),
        Just(0xc0),
        Just(0x0c),
        Just(0xff),
        Just(0x40),
        Just(63),
        Just(64),
        Just(41),
        any::<u8>()
    ];
    prop_oneof![
        (at(), octet).prop_map(|(at, octet)| Mutation::Set(at, octet)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (at(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, octets)| Mutation::Insert(at, octets)),
        (at(), 1..20_u8).prop_map(|(at, n)| Mutation::Remove(at, n)),
        at().prop_map(Mutation::Cut),
        (at(), 1..40_u8).prop_map(|(at, n)| Mutation::Repeat(at, n)),
    ]
}

fn mutate(packet: &mut Vec<u8>, mutations: &[Mutation]) {
    for mutation in mutations {
        if packet.is_empty() {
            return;
        }
        let len = packet.len();
        match mutation {
            Mutation::Set(at, octet) => packet[at.index(len)] = *octet,
            Mutation::Flip(at, bit) => packet[at.index(len)] ^= 1 << bit,
            Mutation::Insert(at, octets) => {
                let at = at.index(len);
                packet.splice(at..at, octets.iter().copied());
            }
            Mutation::Remove(at, n) => {
                let at = at.index(len);
                packet.drain(at..(at + usize::from(*n)).min(len));
            }
            Mutation::Cut(at) => packet.truncate(at.index(len)),
            Mutation::Repeat(at, n) => {
                let octet = packet[at.index(len)];
                packet.splice(len..len, std::iter::repeat_n(octet, usize::from(*n)));
            }
        }
    }
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..600),
        9 => (prop::sample::select(seeds()), prop::collection::vec(mutation(), 0..6)).prop_map(|(mut packet, mutations)| {
            mutate(&mut packet, &mutations);
            packet
        }),
    ]
}

/// What holds for the response to any packet whatever.
fn judge(packet: &[u8], transport: Transport, answered: &Answered) -> Result<(), String> {
    let Some(response) = &answered.bytes else {
        return match answered.source {
            "edge" => Ok(()),
            source => Err(format!("no response from {source}")),
        };
    };
    if answered.source == "panic" {
        return Err("a plugin panicked".into());
    }
    let size_max = match (transport, Message::from_vec(packet)) {
        (Transport::Tcp, _) => 65_535,
        (Transport::Udp, Ok(query)) if query.edns.is_some() => {
            usize::from(query.max_payload()).clamp(512, 1232)
        }
        // What hickory-proto cannot read may still have an OPT.
        (Transport::Udp, Err(_)) => 1232,
        (Transport::Udp, Ok(_)) => 512,
    };
    if response.len() > size_max {
        return Err(format!("{} octets, {size_max} are allowed", response.len()));
    }
    if response.get(..2) != packet.get(..2) || response.get(2).is_none_or(|flags| flags & 0x80 == 0)
    {
        return Err("not a response to this query".into());
    }
    let text = render::response(packet, response).text();
    if text.contains("unreadable") || text.contains("octets too many") {
        return Err(text);
    }
    Ok(())
}

/// Asks a list of packets of one server, both ways, and tells the first that breaks a rule.
fn ask_all(packets: &[Vec<u8>]) -> Result<(), String> {
    let world = World::new();
    server::run(world.events.clone(), async {
        let server = TestServer::start(&world, PLUGINS, DNSFILE).await?;
        for packet in packets {
            for transport in [Transport::Udp, Transport::Tcp] {
                let mut question = Question::parse_raw("00").expect("a packet");
                question.packet.clone_from(packet);
                question.transport = transport;
                let answered = server.ask(&question).await;
                judge(packet, transport, &answered)
                    .map_err(|what| format!("{what}\n{transport:?} {}", render::hex(packet)))?;
            }
        }
        Ok(())
    })
}

/// Packets of `tests/corpus/packets.hex`, one a line, `#` for comments.
fn corpus() -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/packets.hex");
    let text = std::fs::read_to_string(path).expect("the corpus is committed");
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            Question::parse_raw(line)
                .expect("the corpus is hexadecimal")
                .packet
        })
        .collect()
}

#[test]
fn what_once_broke_is_answered_rightly() {
    if let Err(what) = ask_all(&corpus()) {
        panic!("{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No packet panics, stalls, or gets more than it asked for, and what is sent can be read.
    #[test]
    fn any_packet_is_answered_rightly(packets in prop::collection::vec(packet(), 40)) {
        if let Err(what) = ask_all(&packets) {
            return Err(TestCaseError::fail(what));
        }
    }

    //--- Our views and hickory-proto --------------------------------------------------------------------

    /// On every message that both accept, our walk sees the records that hickory-proto sees.
    #[test]
    fn our_views_agree_with_hickory(packet in packet()) {
        if let (Ok(theirs), Ok(question)) = (Message::from_vec(&packet), message::question(&packet)) {
            let asked = &theirs.queries[0];
            prop_assert_eq!(u16::from(asked.query_type()), question.qtype.0);
            let mut ours = NameBuf::new();
            message::expand_name(&packet, 12, &mut ours).expect("the question was read");
            // By label: hickory-proto prints octets in octal, RFC 1035 has them decimal.
            prop_assert!(name::labels(ours.as_wire()).eq(asked.name().iter()));
            if let Ok(records) = message::records(&packet) {
                // Their OPT is no record; ours is.
                let ours: Vec<_> = records.filter_map(Result::ok).filter(|record| record.rtype.0 != 41).collect();
                let theirs: Vec<_> = theirs.all_sections().collect();
                prop_assert_eq!(ours.len(), theirs.len());
                for (our, their) in ours.iter().zip(theirs) {
                    prop_assert_eq!(our.rtype.0, u16::from(their.record_type()));
                    prop_assert_eq!(our.ttl, their.ttl);
                }
            }
        }
    }

    /// Walking a message never panics, and what passes the check can be walked to its end.
    #[test]
    fn a_checked_message_can_be_walked(packet in packet()) {
        let checked = message::check(&packet).is_ok();
        if let Ok(records) = message::records(&packet) {
            let all: Vec<_> = records.collect();
            prop_assert!(!checked || all.iter().all(Result::is_ok));
        }
    }

    /// A name printed and read again is itself.
    #[test]
    fn a_name_survives_printing(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6)) {
        let mut wire = Vec::new();
        for label in &labels {
            wire.push(label.len() as u8);
            wire.extend_from_slice(label);
        }
        wire.push(0);
        let name = Name::from_wire(&wire).expect("short labels make a name");
        let text = name.to_string();
        prop_assert_eq!(Name::parse(&text), Ok(name), "{}", text);
    }
}
