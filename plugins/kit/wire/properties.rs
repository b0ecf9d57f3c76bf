//! Properties of the wire views: they agree with hickory-proto on every message that both accept, and nothing makes them panic.

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record};
use hickory_proto::serialize::binary::BinDecodable;
use proptest::prelude::*;

use super::message::{self, HEADER_OCTETS, RecordView, Section};
use super::name::{self, NameBuf};
use super::types::{Class, Rtype};
use super::writer::{self, Compressor, Rdata, Writer};

/// A record before it is written.
#[derive(Clone, Debug)]
struct Planned {
    owner: Vec<u8>,
    ttl: u32,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    A([u8; 4]),
    Name(Rtype, Vec<u8>),
    Mx(u16, Vec<u8>),
    Srv([u16; 3], Vec<u8>),
    Soa(Vec<u8>, Vec<u8>, [u32; 5]),
    Txt(Vec<u8>),
    Opt,
}

/// Names out of few labels, so that many share their ends.
fn names() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        4 => prop::sample::select(vec!["a", "A", "b", "www", "wWw", "example", "Example", "org"]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..64),
    ];
    prop::collection::vec(label, 0..6).prop_map(|labels| {
        let mut name = NameBuf::new();
        for label in &labels {
            // What makes it too long is left out.
            if name.as_wire().len() + label.len() + 2 <= name::NAME_OCTETS_MAX {
                name.push_label(label).expect("there is room");
            }
        }
        name.push(0).expect("there is room");
        name.as_wire().to_vec()
    })
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(Data::A),
        (
            prop::sample::select(vec![Rtype::NS, Rtype::CNAME, Rtype::PTR]),
            names()
        )
            .prop_map(|(rtype, name)| Data::Name(rtype, name)),
        (any::<u16>(), names()).prop_map(|(n, name)| Data::Mx(n, name)),
        (any::<[u16; 3]>(), names()).prop_map(|(n, name)| Data::Srv(n, name)),
        (names(), names(), any::<[u32; 5]>()).prop_map(|(m, r, n)| Data::Soa(m, r, n)),
        prop::collection::vec(any::<u8>(), 0..600).prop_map(Data::Txt),
    ]
}

fn records() -> impl Strategy<Value = Vec<Planned>> {
    let one = (names(), 0..0x8000_0000_u32, data()).prop_map(|(owner, ttl, data)| Planned {
        owner,
        ttl,
        data,
    });
    prop::collection::vec(one, 0..12)
}

/// The question's name and the records of the three sections.
fn plans() -> impl Strategy<Value = (Vec<u8>, [Vec<Planned>; 3])> {
    (names(), [records(), records(), records()])
}

fn write((qname, sections): &(Vec<u8>, [Vec<Planned>; 3])) -> Vec<u8> {
    let mut message = vec![0, 7, 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(qname);
    message.extend_from_slice(&[0, 1, 0, 1]);
    let mut names = Compressor::default();
    let order = [Section::Answer, Section::Authority, Section::Additional];
    for (section, planned) in order.into_iter().zip(sections) {
        for record in planned {
            let (rtype, data) = match &record.data {
                Data::A(ip) => (Rtype::A, Rdata::Raw(ip)),
                Data::Name(rtype, name) => (*rtype, Rdata::Name(name)),
                Data::Mx(preference, name) => (Rtype::MX, Rdata::Mx(*preference, name)),
                Data::Srv([a, b, c], name) => (Rtype::SRV, Rdata::Srv(*a, *b, *c, name)),
                Data::Soa(mname, rname, numbers) => {
                    let numbers = *numbers;
                    (
                        Rtype::SOA,
                        Rdata::Soa {
                            mname,
                            rname,
                            numbers,
                        },
                    )
                }
                Data::Txt(text) => (Rtype::TXT, Rdata::Txt(text)),
                Data::Opt => (Rtype::OPT, Rdata::Raw(&[0, 3, 0, 1, 9])),
            };
            let class = if rtype == Rtype::OPT {
                Class(1232)
            } else {
                Class::IN
            };
            let mut writer = Writer::new(&mut message, &mut names);
            assert!(writer.record(section, &record.owner, rtype, class, record.ttl, data));
        }
    }
    message
}

fn expanded(message: &[u8], at: usize) -> Vec<u8> {
    let mut name = NameBuf::new();
    message::expand_name(message, at, &mut name).expect("a checked name");
    name.as_wire().to_vec()
}

fn wire_of(name: &hickory_proto::rr::Name) -> Vec<u8> {
    let mut wire = NameBuf::new();
    for label in name.iter() {
        wire.push_label(label).expect("a label");
    }
    wire.push(0).expect("a name");
    wire.as_wire().to_vec()
}

/// One record, both readings.
fn check_record(message: &[u8], ours: &RecordView, theirs: &Record) -> Result<(), TestCaseError> {
    prop_assert_eq!(expanded(message, ours.start), wire_of(&theirs.name));
    prop_assert_eq!(ours.rtype.0, u16::from(theirs.record_type()));
    prop_assert_eq!(ours.class.0, u16::from(theirs.dns_class));
    prop_assert_eq!(ours.ttl, theirs.ttl);
    let at = ours.rdata.start;
    match &theirs.data {
        RData::A(ip) => prop_assert_eq!(&message[ours.rdata.clone()], &ip.0.octets()[..]),
        RData::NS(target) => prop_assert_eq!(expanded(message, at), wire_of(&target.0)),
        RData::CNAME(target) => prop_assert_eq!(expanded(message, at), wire_of(&target.0)),
        RData::PTR(target) => prop_assert_eq!(expanded(message, at), wire_of(&target.0)),
        RData::MX(mx) => prop_assert_eq!(expanded(message, at + 2), wire_of(&mx.exchange)),
        RData::SOA(soa) => {
            prop_assert_eq!(expanded(message, at), wire_of(&soa.mname));
            let rname = message::skip_name(message, at).expect("a checked name");
            prop_assert_eq!(expanded(message, rname), wire_of(&soa.rname));
        }
        _ => {}
    }
    Ok(())
}

/// Both read the message: they must say the same.
fn check_both(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let (Ok(()), Ok(theirs)) = (message::check(bytes), Message::from_bytes(bytes)) else {
        return Ok(false);
    };
    if let Ok(question) = message::question(bytes) {
        prop_assert_eq!(theirs.queries.len(), 1);
        prop_assert_eq!(
            wire_of(theirs.queries[0].name()),
            &bytes[HEADER_OCTETS..question.name_end]
        );
        prop_assert_eq!(question.qtype.0, u16::from(theirs.queries[0].query_type()));
    }
    let ours: Vec<RecordView> = message::records(bytes)
        .and_then(Iterator::collect)
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    for (section, theirs) in [
        (Section::Answer, &theirs.answers),
        (Section::Authority, &theirs.authorities),
        (Section::Additional, &theirs.additionals),
    ] {
        // hickory-proto keeps OPT apart.
        let ours: Vec<&RecordView> = ours
            .iter()
            .filter(|record| record.section == section && record.rtype != Rtype::OPT)
            .filter(|record| !matches!(record.rtype, Rtype::TSIG | Rtype::SIG))
            .collect();
        let theirs: Vec<&Record> = theirs
            .iter()
            .filter(|record| !matches!(u16::from(record.record_type()), 24 | 41 | 250))
            .collect();
        prop_assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            check_record(bytes, ours, theirs)?;
        }
    }
    Ok(true)
}

/// Everything that reads or cuts foreign bytes, for its panics.
fn read_everything(bytes: &[u8]) {
    let _ = message::question(bytes);
    let _ = message::check(bytes);
    let mut name = NameBuf::new();
    for at in 0..bytes.len().min(64) {
        let _ = message::skip_name(bytes, at);
        let expanded = message::expand_name(bytes, at, &mut name);
        assert_eq!(expanded, message::check_name(bytes, at));
        if expanded.is_ok() {
            assert_eq!(name::wire_len(name.as_wire()), Some(name.as_wire().len()));
        }
    }
    for size in [0, 12, 20, 40, 100] {
        let mut message = bytes.to_vec();
        writer::truncate(&mut message, size);
        // A question alone may be longer than that; the edge's smallest size holds any.
        assert!(message.len() <= size.max(HEADER_OCTETS + name::NAME_OCTETS_MAX + 4));
    }
    let mut message = bytes.to_vec();
    writer::take_opt(&mut message);
    let mut names = Compressor::default();
    let mut message = bytes.to_vec();
    if message.len() >= HEADER_OCTETS {
        message[6..HEADER_OCTETS].fill(0);
    }
    let owner = b"\x03www\x07example\x03org\x00";
    Writer::new(&mut message, &mut names).record(
        Section::Answer,
        owner,
        Rtype::A,
        Class::IN,
        1,
        Rdata::Raw(&[0; 4]),
    );
}

proptest! {
    #[test]
    fn nothing_makes_them_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_everything(&bytes);
    }

    #[test]
    fn what_is_written_reads_the_same_everywhere(plan in plans()) {
        let message = write(&plan);
        prop_assert_eq!(message::check(&message), Ok(()));
        prop_assert!(check_both(&message)?, "hickory-proto refuses what we wrote");
        let ours: Vec<RecordView> = message::records(&message).and_then(Iterator::collect).expect("checked");
        for (record, planned) in ours.iter().zip(plan.1.iter().flatten()) {
            prop_assert!(name::eq_ignore_case(&expanded(&message, record.start), &planned.owner));
            prop_assert_eq!(record.ttl, planned.ttl);
        }
    }

    #[test]
    fn damaged_messages_read_the_same_or_not_at_all(
        plan in plans(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut message = write(&plan);
        for (at, octet) in damage {
            let at = at.index(message.len());
            message[at] = octet;
        }
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len()));
        }
        read_everything(&message);
        check_both(&message)?;
    }

    #[test]
    fn cutting_leaves_the_front(plan in plans(), size in 280_usize..2000) {
        let whole = write(&plan);
        let mut message = whole.clone();
        let was_cut = writer::truncate(&mut message, size);
        prop_assert_eq!(was_cut, whole.len() > size);
        prop_assert!(message.len() <= size);
        prop_assert!(check_both(&message)?);
        prop_assert_eq!(&message[HEADER_OCTETS..], &whole[HEADER_OCTETS..message.len()]);
        let answers = |message: &[u8]| message[6..10].to_vec();
        let has_tc = message[2] & 2 != 0;
        prop_assert!(has_tc || answers(&message) == answers(&whole));
    }

    #[test]
    fn taking_the_opt_leaves_the_rest(plan in plans(), at in any::<prop::sample::Index>()) {
        let without = write(&plan);
        let expected = Message::from_bytes(&without).expect("hickory-proto reads what we write");
        let mut plan = plan;
        let at = at.index(plan.1[2].len() + 1);
        plan.1[2].insert(at, Planned { owner: vec![0], ttl: 0x0100_8000, data: Data::Opt });
        let mut message = write(&plan);
        prop_assert_eq!(writer::take_opt(&mut message), Some((1, 0x8000, vec![0, 3, 0, 1, 9])));
        let found = Message::from_bytes(&message).expect("still a message");
        prop_assert_eq!(found.additionals, expected.additionals);
        prop_assert_eq!(found.answers, expected.answers);
        prop_assert_eq!(message::check(&message), Ok(()));
    }
}

/// Names of the most labels there can be, no two alike: each is looked for among 64 digests, and not among all names before it.
#[test]
fn what_the_writer_remembers_is_bounded() {
    let mut message = vec![0, 7, 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(b"\x01q\x00\x00\x01\x00\x01");
    let mut names = Compressor::default();
    let mut written = 0;
    for n in 0..300_u32 {
        let mut owner = NameBuf::new();
        for label in 0..120 {
            let letter = b'a' + (n.wrapping_mul(31).wrapping_add(label) % 26) as u8;
            owner.push_label(&[letter]).expect("there is room");
        }
        owner.push_label(&n.to_be_bytes()).expect("there is room");
        owner.push(0).expect("there is room");
        let mut writer = Writer::new(&mut message, &mut names);
        let data = Rdata::Raw(&[0; 4]);
        written += u16::from(writer.record(
            Section::Answer,
            owner.as_wire(),
            Rtype::A,
            Class::IN,
            1,
            data,
        ));
    }
    // A record more would pass 65,535 octets.
    assert_eq!(written, 251);
    assert_eq!(message::check(&message), Ok(()));
    assert_eq!(format!("{names:?}").matches(',').count(), 63);
}
