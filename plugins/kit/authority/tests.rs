//! Zones as data: what is found where, order, versions, and that no text or bytes make anything panic.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::answer::{Made, answer};
use super::builder::{BuildError, Builder};
use super::changes::Changes;
use super::contents::{Contents, Place, is_newer};
use super::master::parse;
use super::rdata;
use crate::kit::query::{Query, Slot};
use crate::kit::wire::{Name, NameBuf, Rtype, message, name};

fn apex() -> Name {
    Name::parse("example.org").expect("a name")
}

fn read(text: &str) -> Contents {
    match parse(text.as_bytes(), Path::new("db"), &apex()) {
        Ok((contents, _)) => contents,
        Err(fault) => panic!("{fault}\n{text}"),
    }
}

fn wrong(text: &str) -> String {
    match parse(text.as_bytes(), Path::new("db"), &apex()) {
        Ok(_) => "no fault".into(),
        Err(fault) => fault.to_string(),
    }
}

const HEAD: &str = "$TTL 60\n@ SOA ns1 hostmaster 1 2 3 4 5\n@ NS ns1\n";

/// Every record as a line, in the order of the zone.
fn lines(zone: &Contents) -> Vec<String> {
    let (mut lines, mut owner) = (Vec::new(), NameBuf::new());
    for node in zone.nodes() {
        node.name(&mut owner);
        for rrset in node.rrsets() {
            for record in rrset.iter() {
                let data = rdata::display(rrset.rtype, record.rdata);
                let owner = name::display(owner.as_wire());
                lines.push(format!("{owner} {} {} {data}", record.ttl, rrset.rtype));
            }
        }
    }
    lines
}

#[test]
fn nodes_stand_in_canonical_order() {
    // RFC 4034 §6.1's example.
    let names = [
        r"\001.z",
        "*.z",
        "z",
        r"\200.z",
        "yljkjljk.a",
        "Z.a",
        "zABC.a",
        "a",
    ];
    let records: String = names
        .iter()
        .map(|name| format!("{name} A 192.0.2.1\n"))
        .collect();
    let zone = read(&format!("{HEAD}{records}"));
    let mut owner = NameBuf::new();
    let found: Vec<String> = zone
        .nodes()
        .map(|node| {
            node.name(&mut owner);
            name::display(owner.as_wire()).to_string()
        })
        .collect();
    assert_eq!(
        found,
        [
            "example.org.",
            "a.example.org.",
            "yljkjljk.a.example.org.",
            "z.a.example.org.",
            "zabc.a.example.org.",
            "z.example.org.",
            r"\001.z.example.org.",
            "*.z.example.org.",
            r"\200.z.example.org.",
        ]
    );
}

#[test]
fn names_above_names_exist_and_enclose() {
    let zone = read(&format!("{HEAD}a.b.c.d A 192.0.2.1\n*.b.c.d A 192.0.2.2\n"));
    let place = |text: &str| {
        let wire = Name::parse(text).expect("a name");
        let mut owner = NameBuf::new();
        match zone.place(wire.as_wire()) {
            None => "outside".to_owned(),
            Some(Place::Exact(node)) => format!("exact, empty {}", node.is_empty()),
            Some(Place::Below(node)) => {
                node.name(&mut owner);
                format!("below {}", name::display(owner.as_wire()))
            }
        }
    };
    assert_eq!(place("c.d.example.org"), "exact, empty true");
    assert_eq!(place("a.b.c.d.example.org"), "exact, empty false");
    assert_eq!(place("x.c.d.example.org"), "below c.d.example.org.");
    assert_eq!(
        place("1.2.3.4.5.6.7.a.b.c.d.example.org"),
        "below a.b.c.d.example.org."
    );
    assert_eq!(place("1.2.3.4.5.6.7.x.example.org"), "below example.org.");
    assert_eq!(place("example.org"), "exact, empty false");
    assert_eq!(place("org"), "outside");
    assert_eq!(place("xexample.org"), "outside");
    assert_eq!(zone.node_count(), 6);
}

#[test]
fn a_zone_taken_apart_is_the_same_again() {
    let zone = read(&format!(
        "{HEAD}www A 192.0.2.1\nwww A 192.0.2.2\nwww A 192.0.2.1\nb TXT \"x\" \"\"\na.b.c SRV 1 2 3 www\nwww MX 1 www\n"
    ));
    let (again, _) = zone.builder().finish().expect("a zone");
    assert_eq!(lines(&zone), lines(&again));
    assert_eq!(zone.record_count(), 7);
    let changes = Changes::between(&zone, &again, 10).expect("few");
    assert_eq!(changes, Changes::default());
}

#[test]
fn changes_make_one_version_the_next() {
    let old = read(&format!(
        "{HEAD}www A 192.0.2.1\nwww A 192.0.2.2\nftp A 192.0.2.3\n"
    ));
    let new = read(
        "$TTL 60\n@ SOA ns1 hostmaster 2 2 3 4 5\n@ NS ns1\nwww A 192.0.2.2\nwww A 192.0.2.9\nx TXT y\n",
    );
    let changes = Changes::between(&old, &new, 100).expect("few");
    assert_eq!((changes.removed.len(), changes.added.len()), (3, 3));
    assert_eq!(Changes::between(&old, &new, 5), None);
    let mut builder = old.builder();
    builder.retain(|owner, rtype, ttl, rdata| {
        !changes.removed.iter().any(|change| {
            change.owner == owner
                && change.rtype == rtype
                && change.ttl == ttl
                && change.rdata == rdata
        })
    });
    for change in &changes.added {
        let added = builder.add(&change.owner, change.rtype, change.ttl, &change.rdata);
        assert_eq!(added, Ok(()));
    }
    let (applied, _) = builder.finish().expect("a zone");
    assert_eq!(lines(&applied), lines(&new));
    assert_eq!(applied.soa().serial, 2);
}

#[test]
fn serials_go_round() {
    assert!(is_newer(1, 0) && is_newer(0, u32::MAX) && is_newer(5, 0xffff_fff0));
    assert!(!is_newer(0, 0) && !is_newer(0, 1) && !is_newer(u32::MAX, 0));
}

#[test]
fn what_a_zone_cannot_have_is_refused() {
    let mut builder = Builder::new(&apex());
    let mut add = |owner: &[u8], rdata: &[u8]| builder.add(owner, Rtype::A, 1, rdata);
    assert_eq!(add(b"\x03net\x00", &[]), Err(BuildError::OutOfZone));
    assert_eq!(
        add(b"\x08xexample\x03org\x00", &[]),
        Err(BuildError::OutOfZone)
    );
    assert_eq!(add(b"", &[]), Err(BuildError::OutOfZone));
    assert_eq!(
        add(b"\x05ab\x07example\x03org\x00", &[]),
        Err(BuildError::OutOfZone)
    );
    assert_eq!(
        add(b"\x07EXAMPLE\x03org\x00", &[0; 70_000]),
        Err(BuildError::Malformed)
    );
    assert_eq!(add(b"\x07EXAMPLE\x03org\x00", &[1, 2, 3, 4]), Ok(()));
    assert_eq!(builder.finish().err(), Some(BuildError::NoSoa));
    assert!(
        wrong("$TTL 1\n@ SOA a b 1 2 3 4 5\n@ SOA a b 2 2 3 4 5\n").contains("more than one SOA")
    );
    let large: String = (0..5000)
        .map(|n| format!("big A 10.0.{}.{}\n", n >> 8, n & 255))
        .collect();
    assert!(
        wrong(&format!("{HEAD}{large}"))
            .contains("the A records of big.example.org. have more than 65000")
    );
}

#[test]
fn every_type_reads_and_prints() {
    let records = [
        "A 192.0.2.1",
        "AAAA 2001:db8::1",
        "NS a.example.org.",
        "CNAME a.example.org.",
        "PTR A.example.org.",
        "MX 10 a.example.org.",
        "HINFO \"cpu\" \"os\"",
        "MINFO a.example.org. b.example.org.",
        "TXT \"a\" \"b c\" \"\\\"\"",
        "RP a.example.org. b.example.org.",
        "AFSDB 1 a.example.org.",
        "X25 \"311061700956\"",
        "SRV 1 2 3 a.example.org.",
        "NAPTR 1 2 \"u\" \"E2U+sip\" \"!^.*$!sip:a@b!\" .",
        "KX 1 a.example.org.",
        "CERT PKIX 1 8 AAEC",
        "DNAME a.example.org.",
        "DS 1 13 2 AABB",
        "SSHFP 1 2 AABB",
        "NSEC a.example.org. A RRSIG NSEC TYPE65280",
        "RRSIG A 13 2 3600 20240517120000 20240501000000 1234 example.org. AAEC",
        "DNSKEY 257 3 13 AAEC",
        "DHCID AAEC",
        "NSEC3 1 1 5 AABB 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR A RRSIG",
        "NSEC3PARAM 1 0 0 -",
        "TLSA 3 1 1 AABB",
        "SMIMEA 3 1 1 AABB",
        "CDS 0 0 0 00",
        "CDNSKEY 257 3 13 AAEC",
        "OPENPGPKEY AAEC",
        "CSYNC 66 3 A NS AAAA",
        "ZONEMD 1 1 1 AABB",
        "SVCB 0 a.example.org.",
        "HTTPS 1 . mandatory=alpn alpn=\"h2,h3\" no-default-alpn port=8443 ipv4hint=192.0.2.1,192.0.2.2 ech=AAEC ipv6hint=2001:db8::1 key65333=\"x y\"",
        "NID 10 14:4fff:ff20:ee64",
        "L32 10 10.1.2.0",
        "L64 10 2001:db8:1140:1000",
        "LP 10 a.example.org.",
        "EUI48 00-00-5e-00-53-2a",
        "EUI64 00-00-5e-ef-10-00-00-2a",
        "URI 10 1 \"https://example.org/\"",
        "CAA 0 issue \"ca.example.net\"",
        "TYPE65280 \\# 3 010203",
        "NULL \\# 0",
    ];
    for record in records {
        let zone = read(&format!("{HEAD}t {record}\n"));
        let found = lines(&zone);
        let printed = found
            .last()
            .expect("a record")
            .replace(" \"issue\" ", " issue ");
        assert_eq!(printed, format!("t.example.org. 60 {record}"));
    }
    // Those that print in the generic form, from their own notation and back.
    for (record, generic) in [
        (
            "LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m",
            "\\# 16 000016138B3CF018810CBCE0009895B8",
        ),
        (
            "LOC 42 N 71 W 0m",
            "\\# 16 001216138903210070C3DA8000989680",
        ),
        (
            "APL 1:192.168.32.0/21 !1:192.168.38.0/28 2:2001:db8::/32",
            "\\# 22 00011503C0A820 00011C83C0A826 0002200420010DB8",
        ),
        (
            "IPSECKEY 10 1 2 192.0.2.38 AAEC",
            "\\# 10 0A0102C0000226000102",
        ),
        ("IPSECKEY 10 0 2 . AAEC", "\\# 6 0A0002000102"),
        (
            "HIP 2 200100107B1A74DF365639CC39F1D578 AAEC a",
            "\\# 38 10020003200100107B1A74DF365639CC39F1D5780001020161076578616D706C65036F726700",
        ),
        (
            "WKS 192.0.2.1 TCP 25 80",
            "\\# 16 C00002010600000040000000000000 80",
        ),
        ("NSAP 0x47.0005.80", "\\# 4 47000580"),
    ] {
        let zone = read(&format!("{HEAD}t {record}\n"));
        let (_, printed) = lines(&zone)
            .last()
            .and_then(|line| {
                line.split_once("\\# ")
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
            })
            .expect("generic");
        assert_eq!(
            format!("\\# {}", printed.replace(' ', "")),
            format!("\\# {}", generic[3..].replace(' ', "")),
            "{record}"
        );
        let rtype = record.split(' ').next().expect("a type");
        let again = read(&format!("{HEAD}t {rtype} \\# {printed}\n"));
        assert_eq!(lines(&zone), lines(&again));
    }
}

#[test]
fn faults_have_their_place() {
    for (text, fault) in [
        (
            "@ SOA a b 1 2 3 4\n",
            "db:1:17: a time such as 3600 or 1h is missing behind this",
        ),
        (
            "\n\n  www 1 A 1.2.3.4\n",
            "db:3:3: a line that starts with a blank",
        ),
        (
            "$TTL 60\nwww A 1.2.3.04\n",
            "db:2:7: an IPv4 address stands here, not `1.2.3.04`",
        ),
        ("$TTL 3000000000\n", "db:1:6: at most 2147483647 seconds"),
        (
            "a..b 1 A 1.2.3.4\n",
            "db:1:1: empty label in a domain name, in `a..b`",
        ),
        ("a 1 TXT \"\\256\"\n", "db:1:9: a backslash is followed by"),
        (
            "a 1 A \\# 3 010203\n",
            "db:1:10: this is not what the data of A looks like",
        ),
        ("a 1 AXFR\n", "db:1:5: AXFR is no type that a zone has"),
        (
            "a 1 NULL x\n",
            "db:1:10: the data of NULL is written `\\# LENGTH HEX`",
        ),
        ("a 1 ) A 1.2.3.4\n", "db:1:5: `)` without `(`"),
        (
            "$INCLUDE /no/such/file\n",
            "db:1:10: cannot include /no/such/file: No such file",
        ),
        (
            "$GENERATE 1-5000000 a$ 1 A 1.2.3.4\n",
            "db:1:11: more than 4194304 records",
        ),
        (
            "$GENERATE 1-3 a$ 1 A 1.2.3.${300}\n",
            "db:1:1: an IPv4 address stands here, not `1.2.3.301`, in `a1 1 A 1.2.3.301`",
        ),
        (
            "a 1 CLASS3 A 1.2.3.4\n",
            "db:1:5: class `CLASS3` is not served",
        ),
    ] {
        let said = wrong(text);
        assert!(said.starts_with(fault), "{text:?}: {said}");
    }
}

/// A zone with something of everything, to be mutated.
const EVERYTHING: &str = "$TTL 60
@ SOA ns1 hostmaster 1 2 3 4 5
@ NS ns1
ns1 A 192.0.2.1
 AAAA 2001:db8::1
$ORIGIN sub.example.org.
*.wild TXT \"a b\" c
a.b.c.wild MX 1 ns1.example.org.
$ORIGIN example.org.
alias CNAME a.old
old DNAME new
x.new CNAME alias
cut NS ns.cut
ns.cut A 192.0.2.2
cut DS 1 13 2 AABB
srv SRV 1 2 3 ns1
web HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1
odd TYPE65280 \\# 3 010203
$GENERATE 1-3 n$ A 192.0.2.$
@ ( NSEC a.example.org. A NS SOA )
";

/// Asks the zone itself; whether a well-formed answer came.
fn is_answered(zone: &Contents, qname: &[u8], rtype: Rtype) -> bool {
    let nobody = Query::from_slot(Slot::new());
    let Some(query) = Query::internal(&nobody, qname, rtype) else {
        return false;
    };
    match answer(zone, query, |_| false) {
        Made::Whole(response) => message::check(response.wire()).is_ok(),
        Made::Elsewhere(_) => true,
        Made::Missing(_) => false,
    }
}

proptest! {
    #[test]
    fn a_mutated_zone_is_refused_or_answers(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..12),
        rtypes in prop::collection::vec(0_u16..300, 4),
    ) {
        let mut text = EVERYTHING.as_bytes().to_vec();
        for (at, octet, how) in changes {
            let at = at.index(text.len());
            match how {
                0 => text[at] = octet,
                1 => text.insert(at, octet),
                2 => drop(text.remove(at)),
                _ => {
                    let other = usize::from(octet) % text.len();
                    text.swap(at, other);
                }
            }
        }
        if let Ok((zone, _)) = parse(&text, Path::new("db"), &apex()) {
            let mut names: Vec<Vec<u8>> = Vec::new();
            let mut owner = NameBuf::new();
            for node in zone.nodes() {
                node.name(&mut owner);
                names.push(owner.as_wire().to_vec());
                if owner.as_wire().len() < 250 {
                    names.push([b"\x01w", owner.as_wire()].concat());
                }
            }
            for name in &names {
                for rtype in rtypes.iter().chain(&[1, 2, 5, 6, 15, 33, 39, 43, 255]) {
                    prop_assert!(is_answered(&zone, name, Rtype(*rtype)));
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes, Path::new("db"), &apex());
    }

    #[test]
    fn no_line_makes_the_reader_panic(
        rtype in 0_u16..300,
        words in prop::collection::vec("[0-9a-zA-Z.:/\\\\\"();=!,@*-]{0,12}|\\\\# ?[0-9]{1,3}|[0-9]{1,6}", 0..12),
    ) {
        let text = format!("{HEAD}x 1 {} {}\n", Rtype(rtype), words.join(" "));
        if let Ok((zone, _)) = parse(text.as_bytes(), Path::new("db"), &apex()) {
            // What was read is right, prints, and reads again as what it was.
            let printed = lines(&zone).join("\n");
            let again = parse(printed.as_bytes(), Path::new("db"), &apex());
            let again = again.map_err(|fault| TestCaseError::fail(format!("{fault}\n{printed}")))?;
            prop_assert_eq!(lines(&zone), lines(&again.0));
        }
    }

    #[test]
    fn no_data_makes_the_printer_panic(rtype in 0_u16..300, data in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = rdata::display(Rtype(rtype), &data).to_string();
        let _ = rdata::is_right(Rtype(rtype), &data);
    }

    #[test]
    fn what_is_put_in_is_found(
        records in prop::collection::vec(("[abc*]{1,2}(\\.[abc*]{1,2}){0,4}", 1_u8..4), 0..60),
        asked in "[abcx]{1,2}(\\.[abcx]{1,2}){0,5}",
    ) {
        let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut builder = Builder::new(&apex());
        let soa = [&b"\x00\x00"[..], &[0; 20]].concat();
        builder.add(apex().as_wire(), Rtype::SOA, 1, &soa).expect("it is the apex");
        for (owner, address) in &records {
            let owner = Name::parse(&format!("{owner}.example.org")).expect("a name");
            builder.add(owner.as_wire(), Rtype::A, 1, &[192, 0, 2, *address]).expect("in the zone");
            let addresses = expected.entry(owner.as_wire().to_vec()).or_default();
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        let (zone, _) = builder.finish().expect("a zone");
        for (owner, addresses) in &expected {
            let rrset = zone.rrset(owner, Rtype::A).expect("it was put in");
            let found: Vec<u8> = rrset.records().map(|data| data[3]).collect();
            prop_assert_eq!(&found, addresses);
        }
        // The closest encloser by its definition.
        let exists = |name: &[u8]| {
            name == apex().as_wire() || expected.keys().any(|owner| name::is_within(owner, name))
        };
        let asked = Name::parse(&format!("{asked}.example.org")).expect("a name");
        let nearest = name::suffixes(asked.as_wire()).find(|name| exists(name)).expect("the apex");
        let mut found = NameBuf::new();
        match zone.place(asked.as_wire()).expect("within") {
            Place::Exact(node) => {
                node.name(&mut found);
                prop_assert_eq!(nearest, asked.as_wire());
            }
            Place::Below(node) => {
                node.name(&mut found);
                prop_assert!(nearest != asked.as_wire());
            }
        }
        prop_assert_eq!(found.as_wire(), nearest);
    }
}
