//! Each rule of the edge, and properties: whatever comes is judged, whatever goes parses and fits.

use std::net::SocketAddr;

use data_encoding::HEXLOWER;
use hickory_proto::op::Message;
use hickory_proto::serialize::binary::BinDecodable;
use proptest::prelude::*;

use super::*;
use crate::kit::clock;
use crate::kit::query::flags;
use crate::kit::response::Owner;
use crate::kit::wire::name::NAME_OCTETS_MAX;
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Name, Rtype, Section, message};

/// A packet: hex, and names in brackets; `XX*N` is an octet N times.
fn packet(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        if let Some(name) = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')) {
            out.extend_from_slice(Name::parse(name).expect("a name").as_wire());
        } else if let Some((octet, times)) = word.split_once('*') {
            let octet = HEXLOWER.decode(octet.as_bytes()).expect("hex");
            out.extend(octet.repeat(times.parse().expect("a number")));
        } else {
            out.extend(HEXLOWER.decode(word.as_bytes()).expect("hex"));
        }
    }
    out
}

struct Host {
    edge: Edge,
    metrics: Metrics,
    client: SocketAddr,
    transport: Transport,
}

/// The client of all tests.
const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 9], 5353);

impl Host {
    fn new(transport: Transport) -> Host {
        let metrics = Metrics::new(1);
        Host {
            edge: Edge::with_secret(&metrics, Secret::fixed([1; 16])),
            metrics,
            client: SocketAddr::from(CLIENT),
            transport,
        }
    }

    fn accept(&self, packet: &[u8]) -> Accepted {
        let arrival = Arrival {
            packet,
            client: self.client,
            local: SocketAddr::from(([192, 0, 2, 1], 53)),
            transport: self.transport,
            listener: ListenerId(0),
            received_at: clock::now(),
        };
        self.edge.accept(Slot::new(), arrival)
    }

    fn query(&self, packet: &[u8]) -> Query {
        match self.accept(packet) {
            Accepted::Query(query) => query,
            Accepted::Reply(reply) => panic!("answered at once: {:02x?}", reply.bytes()),
            Accepted::Silence(_) => panic!("silence"),
        }
    }

    fn finish(&self, response: Response) -> Vec<u8> {
        match self.edge.finish(response) {
            Ok(reply) => reply.bytes().to_vec(),
            Err(_) => panic!("ignored"),
        }
    }
}

/// What becomes of a UDP packet: `query`, `silence`, or the answer's hex.
fn judged(text: &str) -> String {
    match Host::new(Transport::Udp).accept(&packet(text)) {
        Accepted::Query(_) => "query".to_owned(),
        Accepted::Reply(reply) => HEXLOWER.encode(reply.bytes()),
        Accepted::Silence(_) => "silence".to_owned(),
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let expected = match expected {
        "query" | "silence" => expected.to_owned(),
        hex => HEXLOWER.encode(&packet(hex)),
    };
    assert_eq!(judged(text), expected, "{text}");
}

/// A good question, `www.example.org. IN A`.
const ASK: &str = "1234 0100 0001 0000 0000 0000 [www.example.org] 0001 0001";
/// The same with room for one additional record.
const ASK_MORE: &str = "1234 0100 0001 0000 0000 0001 [www.example.org] 0001 0001";
/// FORMERR, the header alone.
const FORMERR: &str = "1234 8101 0000 0000 0000 0000";
/// FORMERR with the question, when that much was understood.
const FORMERR_BEHIND: &str = "1234 8101 0001 0000 0000 0000 [www.example.org] 0001 0001";

#[test]
fn what_is_no_query_gets_no_answer() {
    check("", "silence");
    check("1234 0100 0001 0000 0000 00", "silence");
    check(
        "1234 8100 0001 0000 0000 0000 [www.example.org] 0001 0001",
        "silence",
    );
    check("ff*512", "silence");
    let mut host = Host::new(Transport::Udp);
    host.client.set_port(0);
    assert!(matches!(host.accept(&packet(ASK)), Accepted::Silence(_)));
    let dropped = |reason| {
        host.metrics
            .value("skeindns_server_dropped_total", &[("reason", reason)])
    };
    assert_eq!(dropped("port0"), Some(1.0));
    assert_eq!(dropped("malformed"), Some(0.0));
}

#[test]
fn other_opcodes_are_not_implemented_and_nothing_is_echoed() {
    check(
        "1234 7fff 0001 0000 0000 0000 [www.example.org] 0001 0001",
        "1234 f804 0000 0000 0000 0000",
    );
    check(
        "1234 2d30 0001 0000 0000 0000 [example.org] 0006 0001",
        "1234 a804 0000 0000 0000 0000",
    );
    check("4141 4141 41*1400", "4141 c004 0000 0000 0000 0000");
}

#[test]
fn notify_passes_with_one_question() {
    let query = Host::new(Transport::Udp).query(&packet(
        "1234 2400 0001 0000 0000 0000 [example.org] 0006 0001",
    ));
    assert_eq!(query.opcode(), crate::kit::wire::Opcode::NOTIFY);
    let host = Host::new(Transport::Udp);
    assert_eq!(
        host.finish(query.refuse()),
        packet("1234 a005 0001 0000 0000 0000 [example.org] 0006 0001")
    );
    check(
        "1234 2400 0000 0000 0000 0000",
        "1234 8001 0000 0000 0000 0000",
    );
}

#[test]
fn a_good_query_passes_with_its_facts() {
    let host = Host::new(Transport::Udp);
    let query = host.query(&packet("1234 0130 0001 0000 0000 0001 [Www.Example.org] 001c 0001 00 0029 1000 0000 8000 0004 0003 0000"));
    assert_eq!(
        query.qname(),
        Name::parse("www.example.org").expect("a name").as_wire()
    );
    assert_eq!(
        query.qname_as_spelled(),
        Name::parse("Www.Example.org").expect("a name").as_wire()
    );
    assert_eq!((query.qtype(), query.id()), (Rtype::AAAA, 0x1234));
    assert!(query.recursion_desired() && query.checking_disabled() && query.authentic_data());
    assert!(query.dnssec_ok());
    assert_eq!(query.option(3), Some(&[][..]));
    assert_eq!(query.option(4), None);
    assert_eq!((query.reply_size(), query.offered_size()), (1232, 1232));
}

#[test]
fn nothing_of_the_query_before_is_left() {
    let host = Host::new(Transport::Udp);
    let mut query = host.query(&packet("1234 0100 0001 0000 0000 0001 [a.b] 0001 0001 00 0029 1000 0000 8000 000c 000a 0008 0102030405060708"));
    query.enter("cache");
    query.set_zone_at(2);
    query.limit_reply_size(600);
    assert!(query.cookie.is_some());
    let reply = host.edge.finish(query.refuse());
    let slot = reply.map(Reply::into_slot).unwrap_or_else(|slot| slot);
    let (client, local) = (
        SocketAddr::from(CLIENT),
        SocketAddr::from(([192, 0, 2, 1], 53)),
    );
    let arrival = Arrival {
        packet: &packet(ASK),
        client,
        local,
        transport: Transport::Tcp,
        listener: ListenerId(3),
        received_at: clock::now(),
    };
    let Accepted::Query(query) = host.edge.accept(slot, arrival) else {
        panic!("no query");
    };
    assert_eq!(query.zone(), query.qname());
    assert_eq!((query.edns(), query.cookie, query.link), (None, None, ""));
    assert_eq!((query.reply_size(), query.offered_size()), (65_535, 1232));
    assert_eq!(query.listener(), ListenerId(3));
}

#[test]
fn a_query_has_one_question() {
    check("1234 0100 0000 0000 0000 0000", FORMERR);
    check(
        "1234 0110 0000 0000 0000 0000",
        "1234 8111 0000 0000 0000 0000",
    );
    check(
        "1234 0100 0002 0000 0000 0000 [a] 0001 0001 [a] 001c 0001",
        FORMERR,
    );
    check("1234 0100 ffff 0000 0000 0000 [a] 0001 0001", FORMERR);
    check("00*512", "0000 8001 0000 0000 0000 0000");
}

#[test]
fn questions_cut_off_are_malformed() {
    let header = "1234 0100 0001 0000 0000 0000";
    for question in [
        "",
        "03 777777",
        "[www.example.org]",
        "[www.example.org] 0001",
        "[www.example.org] 0001 00",
        "c00c 0001 0001",
        "c010 0001 0001 03 777777 00",
        "03 777777 c00c 0001 0001",
        "03 777777 c0ff 0001 0001",
        "c000 0001 0001",
        "03 777777 c0",
        "43 777777 00 0001 0001",
        "83 777777 00 0001 0001",
        "3f 61*63 3f 62*63 3f 63*63 3f 64*63 00 0001 0001",
        "0161*400 00 0001 0001",
    ] {
        check(&format!("{header} {question}"), FORMERR);
    }
    for question in [
        "00 0001 0001",
        "3f 61*63 3f 62*63 3f 63*63 3d 64*61 00 0001 0001",
        "04 00ff2e5c 00 0001 0001",
        "[www.example.org] 0000 0000",
        "[www.example.org] 0029 0001",
    ] {
        check(&format!("{header} {question}"), "query");
    }
}

#[test]
fn octets_behind_the_message_are_ignored() {
    check(&format!("{ASK} ff"), "query");
    check(&format!("{ASK} 00*40"), "query");
}

#[test]
fn sections_of_a_query_have_their_sizes() {
    let a = "c00c 0001 0001 0000003c 0004 01020304";
    let opt = "00 0029 04d0 00000000 0000";
    let ask = |counts: &str, records: &str| {
        format!("1234 0100 0001 {counts} [www.example.org] 0001 0001 {records}")
    };
    check(&ask("0001 0000 0000", a), "query");
    check(&ask("0000 0001 0000", a), "query");
    check(&ask("0000 0000 0001", a), "query");
    check(&ask("0000 0000 0002", &format!("{a} {opt}")), "query");
    check(&ask("0002 0000 0000", &format!("{a} {a}")), FORMERR);
    check(&ask("0000 0002 0000", &format!("{a} {a}")), FORMERR);
    check(&ask("0000 0000 0003", &format!("{a} {a} {opt}")), FORMERR);
    // An IXFR has the client's SOA with it.
    let soa = "c00c 0006 0001 00000000 0018 c00c c00c 00000001 00000002 00000003 00000004 00000005";
    check(&ask("0000 0001 0000", soa), "query");
    // Counted and not there, cut off, with data that its type cannot have.
    check(&ask("0001 0000 0000", ""), FORMERR_BEHIND);
    check(&ask("0000 0000 0001", "00 0029 04d0"), FORMERR_BEHIND);
    check(
        &ask("0000 0000 0001", "c00c 0001 0001 0000003c 0003 010203"),
        FORMERR_BEHIND,
    );
    check(
        &ask("0000 0000 0001", "c0ff 0001 0001 0000003c 0004 01020304"),
        FORMERR_BEHIND,
    );
}

#[test]
fn an_opt_is_one_of_the_root_in_the_additional_section() {
    let opt = "00 0029 04d0 00000000 0000";
    check(&format!("{ASK_MORE} {opt}"), "query");
    check(
        &format!("1234 0100 0001 0000 0000 0002 [www.example.org] 0001 0001 {opt} {opt}"),
        FORMERR_BEHIND,
    );
    check(
        &format!("1234 0100 0001 0001 0000 0000 [www.example.org] 0001 0001 {opt}"),
        FORMERR_BEHIND,
    );
    check(
        &format!("1234 0100 0001 0000 0001 0000 [www.example.org] 0001 0001 {opt}"),
        FORMERR_BEHIND,
    );
    check(
        &format!("{ASK_MORE} [x.test] 0029 04d0 00000000 0000"),
        FORMERR_BEHIND,
    );
    check(
        &format!("{ASK_MORE} c01b 0029 04d0 00000000 0000"),
        FORMERR_BEHIND,
    );
    check(
        &format!("{ASK_MORE} 00 0029 04d0 00000000 0008 000a"),
        FORMERR_BEHIND,
    );
    check(
        &format!("{ASK_MORE} 00 0029 04d0 00000000 0006 000a 0040 1122"),
        FORMERR_BEHIND,
    );
    check(
        &format!("{ASK_MORE} 00 0029 04d0 00000000 0003 000a00"),
        FORMERR_BEHIND,
    );
    // Extended rcode and unknown flags of a query mean nothing; unknown options neither.
    check(&format!("{ASK_MORE} 00 0029 04d0 ff00ffff 0000"), "query");
    check(
        &format!("{ASK_MORE} 00 0029 04d0 00000000 0006 fde9 0002 beef"),
        "query",
    );
    check(
        &format!("{ASK_MORE} 00 0029 04d0 00000000 0264 000c 0260 00*608"),
        "query",
    );
}

#[test]
fn other_versions_of_edns_are_told_ours() {
    let badvers =
        "1234 8100 0001 0000 0000 0001 [www.example.org] 0001 0001 00 0029 04d0 01000000 0000";
    check(&format!("{ASK_MORE} 00 0029 02bc 00018000 0000"), badvers);
    check(
        &format!("{ASK_MORE} 00 0029 1000 00ff0000 0004 0003 0000"),
        badvers,
    );
    check(
        &format!("{ASK_MORE} 00 0029 1000 00010000 0003 000a00"),
        badvers,
    );
    let with_cookie = judged(&format!(
        "{ASK_MORE} 00 0029 1000 00010000 000c 000a 0008 0102030405060708"
    ));
    let cookie = "01000000001c000a00180102030405060708";
    assert!(with_cookie.contains(cookie), "{with_cookie}");
}

#[test]
fn a_cookie_is_answered_with_ours() {
    let host = Host::new(Transport::Udp);
    for (len, option) in [
        ("000c", "0008 0102030405060708"),
        ("001c", "0018 0102030405060708 ff*16"),
        ("002c", "0028 0102030405060708 00*32"),
    ] {
        let query = host.query(&packet(&format!(
            "{ASK_MORE} 00 0029 1000 00000000 {len} 000a {option}"
        )));
        let reply = host.finish(query.refuse());
        let opt = &reply[reply.len() - 39..];
        let expected = "00 0029 04d0 00000000 001c 000a 0018 0102030405060708 01000000";
        assert_eq!(opt[..27], packet(expected));
    }
    for (len, option) in [
        ("0004", "0000"),
        ("000b", "0007 00*7"),
        ("000d", "0009 00*9"),
        ("0013", "000f 00*15"),
        ("002d", "0029 00*41"),
    ] {
        check(
            &format!("{ASK_MORE} 00 0029 1000 00000000 {len} 000a {option}"),
            FORMERR_BEHIND,
        );
    }
}

#[test]
fn a_cookie_needs_no_question() {
    let cookie = "000a 0008 0102030405060708";
    let answer = judged(&format!(
        "1234 0100 0000 0000 0000 0001 00 0029 04d0 00000000 000c {cookie}"
    ));
    let expected = HEXLOWER.encode(&packet("1234 8100 0000 0000 0000 0001 00 0029 04d0 00000000 001c 000a 0018 0102030405060708 01000000"));
    assert!(answer.starts_with(&expected), "{answer}");
    assert_eq!(answer.len(), expected.len() + 2 * 12);
    check(
        "1234 0100 0000 0000 0000 0001 00 0029 04d0 00000000 0000",
        FORMERR,
    );
    check(
        "1234 0100 0000 0000 0000 0001 00 0029 04d0 00000000 000b 000a 0007 00*7",
        FORMERR,
    );
}

#[test]
fn answers_at_the_edge_are_counted() {
    let host = Host::new(Transport::Udp);
    host.accept(&packet("1234 0100 0000 0000 0000 0000"));
    host.accept(&packet(
        "1234 2d30 0001 0000 0000 0000 [example.org] 0006 0001",
    ));
    host.accept(&packet(ASK));
    let count = |rcode| {
        host.metrics
            .value("skeindns_edge_answers_total", &[("rcode", rcode)])
    };
    assert_eq!(
        (count("FORMERR"), count("NOTIMP"), count("BADVERS")),
        (Some(1.0), Some(1.0), None)
    );
    assert!(host.metrics.text().contains("coredns_panics_total 0\n"));
}

/// An answer with `count` TXT records of `len` octets each.
fn texts(query: Query, count: usize, len: usize) -> Response {
    let text = vec![b'x'; len];
    (0..count)
        .fold(query.answer(), |answer, _| {
            answer.record(
                Section::Answer,
                Owner::Question,
                Rtype::TXT,
                60,
                Rdata::Txt(&text),
            )
        })
        .done()
}

fn decoded(reply: &[u8]) -> Message {
    message::check(reply).unwrap_or_else(|error| panic!("{error}: {reply:02x?}"));
    Message::from_bytes(reply).unwrap_or_else(|error| panic!("{error}: {reply:02x?}"))
}

#[test]
fn answers_fit_the_client() {
    let udp = Host::new(Transport::Udp);
    let sized = |size: &str, count| {
        let query = udp.query(&packet(&format!("{ASK_MORE} 00 0029 {size} 00008000 0000")));
        udp.finish(texts(query, count, 100))
    };
    for (size, max) in [
        ("0000", 512),
        ("0200", 512),
        ("0384", 900),
        ("04d0", 1232),
        ("1000", 1232),
        ("ffff", 1232),
    ] {
        let reply = sized(size, 40);
        assert!(
            reply.len() <= max && reply.len() > max - 113,
            "{size}: {}",
            reply.len()
        );
        let message = decoded(&reply);
        assert!(message.metadata.truncation);
        let edns = message.edns.expect("an OPT");
        assert_eq!(
            (edns.max_payload(), edns.version(), edns.flags().dnssec_ok),
            (1232, 0, true)
        );
    }
    assert!(!decoded(&sized("04d0", 3)).metadata.truncation);
    let plain = udp.finish(texts(udp.query(&packet(ASK)), 40, 100));
    assert!(plain.len() <= 512 && decoded(&plain).edns.is_none());

    let tcp = Host::new(Transport::Tcp);
    let whole = decoded(&tcp.finish(texts(tcp.query(&packet(ASK)), 40, 100)));
    assert_eq!(
        (whole.answers.len(), whole.metadata.truncation),
        (40, false)
    );
    let query = tcp.query(&packet(&format!("{ASK_MORE} 00 0029 0200 00000000 0000")));
    let huge = tcp.finish(texts(query, 100, 1000));
    assert!(huge.len() <= 65_535, "{}", huge.len());
    assert!(decoded(&huge).edns.is_some());
}

#[test]
fn a_plugin_lowers_the_size_and_never_raises_it() {
    let lowered = |transport, octets| {
        let host = Host::new(transport);
        let mut query = host.query(&packet(&format!("{ASK_MORE} 00 0029 1000 00000000 0000")));
        query.limit_reply_size(octets);
        let reply = host.finish(texts(query, 20, 100));
        (
            reply.len(),
            decoded(&reply).edns.map_or(0, |edns| edns.max_payload()),
        )
    };
    assert!(matches!(lowered(Transport::Udp, 900), (788..=900, 900)));
    assert!(matches!(lowered(Transport::Udp, 4096), (1120..=1232, 1232)));
    assert!(matches!(lowered(Transport::Udp, 100), (400..=512, 512)));
    assert!(matches!(lowered(Transport::Tcp, 512), (2000.., 512)));
}

#[test]
fn flags_are_this_clients() {
    let host = Host::new(Transport::Udp);
    let flags_of = |client: &str, opt: &str, set: u16, clear: u16| {
        let ask = if opt.is_empty() { ASK } else { ASK_MORE };
        let text = format!("{ask} {opt}").replacen("0100", client, 1);
        let mut query = host.query(&packet(&text));
        query.set_flags(flags::RD | flags::CD, 0);
        let mut response = query.rcode(Rcode::NXDOMAIN);
        response.set_flags(set, clear);
        let reply = host.finish(response);
        u16::from_be_bytes([reply[2], reply[3]])
    };
    let all = flags::AA | flags::RA | flags::AD | flags::RD | flags::CD | flags::Z | 0x7800;
    assert_eq!(flags_of("0000", "", 0, flags::QR), 0x8003);
    assert_eq!(flags_of("0100", "", all, 0), 0x8583);
    assert_eq!(flags_of("0050", "", all, 0), 0x8493);
    assert_eq!(flags_of("0120", "", all, 0), 0x85a3);
    let with_do = "00 0029 04d0 00008000 0000";
    assert_eq!(flags_of("0100", with_do, all, 0), 0x85a3);
    assert_eq!(flags_of("07ff", "", 0, 0), 0x8113);
}

#[test]
fn the_client_gets_its_id_and_its_spelling() {
    let host = Host::new(Transport::Udp);
    let ask = packet("1234 0100 0001 0000 0000 0000 [wWw.eXample.ORG] 0001 0001");
    let stored = packet(
        "9999 8180 0001 0001 0000 0000 [www.example.org] 0001 0001 c00c 0001 0001 0000003c 0004 c0000201",
    );
    let response = host.query(&ask).answer_wire(&stored, Source::Cache);
    assert_eq!(
        host.finish(response),
        packet(
            "1234 8180 0001 0001 0000 0000 [wWw.eXample.ORG] 0001 0001 c00c 0001 0001 0000003c 0004 c0000201"
        )
    );
}

#[test]
fn an_answer_to_another_question_is_never_sent() {
    let host = Host::new(Transport::Udp);
    for stored in [
        "9999 8180 0001 0000 0000 0000 [www.example.com] 0001 0001",
        "9999 8180 0001 0000 0000 0000 [www.example.org] 001c 0001",
        "9999 8180 0001 0000 0000 0000 [www.example.org] 0001 0003",
        "9999 8180 0000 0000 0000 0000 [www.example.org] 0001 0001",
        "9999 8180 0000 0000 0000 0000",
        "9999 8180 0001 0000 0000 0000 [example.org] 0001 0001 00*4",
        "9999",
        "",
    ] {
        let response = host
            .query(&packet(ASK))
            .answer_wire(&packet(stored), Source::Upstream);
        assert_eq!(
            host.finish(response),
            packet("1234 8102 0001 0000 0000 0000 [www.example.org] 0001 0001"),
            "{stored}"
        );
    }
    assert_eq!(
        host.metrics
            .value("skeindns_edge_answers_total", &[("rcode", "SERVFAIL")]),
        Some(8.0)
    );
}

#[test]
fn extended_rcodes_reach_clients_with_edns_only() {
    let host = Host::new(Transport::Udp);
    let rcode = |text: &str| host.finish(host.query(&packet(text)).rcode(Rcode::BADCOOKIE));
    assert_eq!(rcode(ASK)[3], 2);
    let with = decoded(&rcode(&format!("{ASK_MORE} 00 0029 04d0 00000000 0000")));
    assert_eq!(u16::from(with.metadata.response_code), 23);
}

#[test]
fn options_go_to_who_has_edns_and_as_far_as_they_fit() {
    let host = Host::new(Transport::Udp);
    let add = |mut response: Response| {
        response.add_option(3, b"name");
        response.add_option(10, &[9; 8]);
        response.add_option(11, &[0, 1]);
        response.add_option(12, &[0; 9]);
        response.add_ede(18, &"y".repeat(150));
        response.add_option(65_001, b"z");
        response
    };
    let reply = host.finish(add(host.query(&packet(ASK)).refuse()));
    assert_eq!(decoded(&reply).edns, None);
    let opt = "00 0029 0200 00000000 0000";
    let ask = packet(&format!("{ASK_MORE} {opt}"));
    let codes = |reply: &[u8]| -> Vec<u16> {
        let edns = decoded(reply).edns.expect("an OPT");
        edns.options()
            .as_ref()
            .iter()
            .map(|(code, _)| u16::from(*code))
            .collect()
    };
    let reply = host.finish(add(host.query(&ask).refuse()));
    assert_eq!(codes(&reply), [3, 15, 65_001]);
    // 433 octets of records and 11 of OPT leave 68: too few for the EDE.
    let reply = host.finish(add(texts(host.query(&ask), 3, 120)));
    assert_eq!(codes(&reply), [3, 65_001]);
    assert!(!decoded(&reply).metadata.truncation && reply.len() <= 512);
}

#[test]
fn an_ignored_response_sends_nothing() {
    let host = Host::new(Transport::Udp);
    assert!(host.edge.finish(host.query(&packet(ASK)).ignore()).is_err());
}

#[test]
fn a_panic_is_a_servfail() {
    let host = Host::new(Transport::Udp);
    let reply = host.edge.panicked(host.query(&packet(ASK)));
    let reply = reply.unwrap_or_else(|_| panic!("nothing sent"));
    assert_eq!(
        reply.bytes(),
        packet("1234 8102 0001 0000 0000 0000 [www.example.org] 0001 0001")
    );
    assert_eq!(host.metrics.value("coredns_panics_total", &[]), Some(1.0));
}

#[test]
fn large_buffers_are_let_go() {
    let host = Host::new(Transport::Tcp);
    let mut slots = Slots::new(1);
    let query = host.query(&packet(ASK));
    let reply = host.edge.finish(texts(query, 50, 1000));
    let slot = reply.map(Reply::into_slot).unwrap_or_else(|slot| slot);
    assert!(slot.reply.capacity() > 50_000);
    drop(slots.take());
    slots.give(slot);
    let slot = slots.take().expect("the one given back");
    assert!(slot.reply.capacity() <= 4096);
}

/// Octets that look like queries often enough.
fn queries() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..10),
        Just(b"www".to_vec()),
        Just(b"EXAMPLE".to_vec()),
    ];
    let name = prop::collection::vec(label, 0..5).prop_map(|labels| {
        let mut name: Vec<u8> = labels
            .iter()
            .flat_map(|label| [&[label.len() as u8], &label[..]].concat())
            .collect();
        name.push(0);
        name
    });
    let option =
        (any::<u16>(), prop::collection::vec(any::<u8>(), 0..24)).prop_map(|(code, data)| {
            let code = if code % 3 == 0 { 10 } else { code };
            [
                &code.to_be_bytes()[..],
                &(data.len() as u16).to_be_bytes(),
                &data,
            ]
            .concat()
        });
    let opt = (
        any::<u16>(),
        any::<u8>(),
        any::<u16>(),
        prop::collection::vec(option, 0..4),
    )
        .prop_map(|(size, version, flags, options)| {
            let options = options.concat();
            let mut opt = vec![0, 0, 41];
            opt.extend_from_slice(&size.to_be_bytes());
            opt.extend_from_slice(&[0, version / 200]);
            opt.extend_from_slice(&flags.to_be_bytes());
            opt.extend_from_slice(&(options.len() as u16).to_be_bytes());
            opt.extend_from_slice(&options);
            opt
        });
    (
        any::<u16>(),
        any::<u16>(),
        name,
        any::<u16>(),
        prop::option::of(opt),
        prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(id, flags, name, rtype, opt, damage)| {
            let mut query = id.to_be_bytes().to_vec();
            query.extend_from_slice(&(flags & 0x07ff).to_be_bytes());
            query.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())]);
            query.extend_from_slice(&name);
            query.extend_from_slice(&rtype.to_be_bytes());
            query.extend_from_slice(&[0, 1]);
            query.extend(opt.into_iter().flatten());
            if let Some((at, octet)) = damage {
                let at = at.index(query.len());
                query[at] = octet;
            }
            query
        })
}

proptest! {
    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..600), tcp in any::<bool>()) {
        let host = Host::new(if tcp { Transport::Tcp } else { Transport::Udp });
        if let Accepted::Reply(reply) = host.accept(&bytes) {
            prop_assert_eq!(&reply.bytes()[..2], &bytes[..2]);
            prop_assert!(reply.bytes()[2] & 0x80 != 0);
            decoded(reply.bytes());
        }
    }

    #[test]
    fn what_the_edge_sends_parses_and_fits(
        packet in queries(),
        count in 0_usize..40,
        len in 0_usize..300,
        options in prop::collection::vec((any::<u16>(), 0_usize..200), 0..4),
        tcp in any::<bool>(),
    ) {
        let host = Host::new(if tcp { Transport::Tcp } else { Transport::Udp });
        match host.accept(&packet) {
            Accepted::Silence(_) => prop_assert!(packet[2] & 0x80 != 0),
            Accepted::Reply(reply) => {
                prop_assert!(reply.bytes().len() <= 512);
                decoded(reply.bytes());
            }
            Accepted::Query(query) => {
                let (size, edns, id) = (query.reply_size(), query.edns().is_some(), query.id());
                let spelled = query.qname_as_spelled().to_vec();
                let mut response = texts(query, count, len);
                for (code, len) in options {
                    response.add_option(code, &vec![7; len]);
                }
                let reply = host.finish(response);
                prop_assert!(reply.len() <= size);
                let message = decoded(&reply);
                prop_assert_eq!(message.edns.is_some(), edns);
                prop_assert_eq!(message.metadata.id, id);
                prop_assert_eq!(&reply[12..12 + spelled.len()], &spelled[..]);
                prop_assert!(message.metadata.truncation || message.answers.len() == count);
            }
        }
    }

    #[test]
    fn our_question_is_hickorys(packet in queries()) {
        if let Accepted::Query(query) = Host::new(Transport::Udp).accept(&packet)
            && let Ok(message) = Message::from_bytes(&packet)
        {
            prop_assert_eq!(message.queries.len(), 1);
            let asked = &message.queries[0];
            prop_assert_eq!(query.qtype().0, u16::from(asked.query_type()));
            prop_assert_eq!(query.qclass().0, u16::from(asked.query_class()));
            let labels: Vec<Vec<u8>> = asked.name().iter().map(<[u8]>::to_vec).collect();
            let ours: Vec<Vec<u8>> = crate::kit::wire::name::labels(query.qname_as_spelled()).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(labels, ours);
            prop_assert!(query.qname().len() <= NAME_OCTETS_MAX);
            let edns = message.edns.as_ref();
            prop_assert_eq!(query.dnssec_ok(), edns.is_some_and(|edns| edns.flags().dnssec_ok));
        }
    }
}
