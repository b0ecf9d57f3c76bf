//! Reordering on the wire.
//!
//! Names in a message point at each other, so a record cannot simply be moved. Addresses need not be: records of one owner and
//! type differ in TTL and data only, and those change places where they stand. What must move as a whole (MX records,
//! an alias that comes behind what it leads to) is written anew, compressed again.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::kit::wire::message::{self, RecordView};
use crate::kit::wire::name::{NAME_OCTETS_MAX, eq_ignore_case};
use crate::kit::wire::writer::{Compressor, Rdata, Writer};
use crate::kit::wire::{NameBuf, Rtype, Section};

use super::weights::Weights;

/// How addresses are put in order.
#[derive(Clone, Copy)]
pub(super) enum Order<'p> {
    /// At random, those of the first of these networks before the rest, and so on.
    Random(&'p [IpNet]),
    /// One that is drawn by its weight comes first.
    Weighted(&'p Weights),
}

/// Shuffles the addresses and MX records of a message, aliases first. No allocation once a thread has done a few; a message that cannot
/// be walked stays as it is.
pub(super) fn shuffle(message: &mut Vec<u8>, order: Order<'_>) {
    // One record in every section: nothing to put in order, and the most common answer.
    let is_single = |at: usize| {
        message
            .get(at..at + 2)
            .is_none_or(|n| n[0] == 0 && n[1] < 2)
    };
    if is_single(6) && is_single(8) && is_single(10) {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.records.clear();
        let Ok(records) = message::records(message) else {
            return;
        };
        for record in records {
            match record {
                Ok(record) => scratch.records.push(record),
                Err(_) => return,
            }
        }
        if needs_moving(&scratch.records) {
            scratch.rewrite(message);
        }
        order_addresses(message, &scratch.records, order);
    });
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static RANDOM: Cell<u64> = Cell::new(rand::random::<u64>() | 1);
}

/// Buffers that are used again and again.
#[derive(Default)]
struct Scratch {
    records: Vec<RecordView>,
    message: Vec<u8>,
    names: Compressor,
}

/// A number below `end`. xorshift64*: fast, and good enough for an order that is no secret.
fn random_below(end: usize) -> usize {
    let mut x = RANDOM.get();
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    RANDOM.set(x);
    let high = x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
    ((high * end as u64) >> 32) as usize
}

fn shuffle_slice<T>(slice: &mut [T]) {
    for last in (1..slice.len()).rev() {
        slice.swap(last, random_below(last + 1));
    }
}

//--- In place --------------------------------------------------------------------------------------

fn is_address(rtype: Rtype) -> bool {
    matches!(rtype, Rtype::A | Rtype::AAAA)
}

/// Puts every run of addresses of one owner and type in order.
fn order_addresses(message: &mut [u8], records: &[RecordView], order: Order<'_>) {
    let mut rest = records;
    while let Some((first, behind)) = rest.split_first() {
        let length = match is_address(first.rtype) {
            true => {
                1 + behind
                    .iter()
                    .take_while(|next| are_alike(message, first, next))
                    .count()
            }
            false => 1,
        };
        let (run, behind) = rest.split_at(length);
        rest = behind;
        match order {
            _ if run.len() < 2 => {}
            Order::Random(preferred) => {
                for last in (1..run.len()).rev() {
                    swap(message, &run[last], &run[random_below(last + 1)]);
                }
                if !preferred.is_empty() {
                    prefer(message, run, preferred);
                }
            }
            Order::Weighted(weights) => draw(message, run, weights),
        }
    }
}

/// Whether two records are of one rrset and the same size.
fn are_alike(message: &[u8], a: &RecordView, b: &RecordView) -> bool {
    a.section == b.section
        && a.rtype == b.rtype
        && a.class == b.class
        && a.rdata.len() == b.rdata.len()
        && (message.get(a.start..a.fixed) == message.get(b.start..b.fixed)
            || have_one_owner(message, a, b))
}

#[cold]
fn have_one_owner(message: &[u8], a: &RecordView, b: &RecordView) -> bool {
    let (mut one, mut other) = (NameBuf::new(), NameBuf::new());
    message::expand_name(message, a.start, &mut one).is_ok()
        && message::expand_name(message, b.start, &mut other).is_ok()
        && eq_ignore_case(one.as_wire(), other.as_wire())
}

/// Swaps TTL, length and data: everything behind type and class.
fn swap(message: &mut [u8], a: &RecordView, b: &RecordView) {
    let (first, second) = if a.start < b.start { (a, b) } else { (b, a) };
    let (first, second) = (
        first.fixed + 4..first.rdata.end,
        second.fixed + 4..second.rdata.end,
    );
    if first.end <= second.start
        && let Some((head, tail)) = message.split_at_mut_checked(second.start)
        && let (Some(one), Some(other)) = (
            head.get_mut(first),
            tail.get_mut(..second.end - second.start),
        )
        && one.len() == other.len()
    {
        one.swap_with_slice(other);
    }
}

/// Sorts a run by the place of its networks, keeping the order of equals. Runs are short: insertion.
fn prefer(message: &mut [u8], run: &[RecordView], preferred: &[IpNet]) {
    let rank = |message: &[u8], record: &RecordView| {
        let address = message.get(record.rdata.clone()).and_then(address);
        let address = address?;
        preferred
            .iter()
            .position(|network| network.contains(&address))
    };
    for end in 1..run.len() {
        let mut at = end;
        while at > 0 {
            let (before, here) = (rank(message, &run[at - 1]), rank(message, &run[at]));
            // No network at all comes last.
            if before.unwrap_or(usize::MAX) <= here.unwrap_or(usize::MAX) {
                break;
            }
            swap(message, &run[at - 1], &run[at]);
            at -= 1;
        }
    }
}

/// Puts one first, with a chance of its weight in the sum of all; the one that was there takes its place.
fn draw(message: &mut [u8], run: &[RecordView], weights: &Weights) {
    let Some(first) = run.first() else {
        return;
    };
    let mut owner = NameBuf::new();
    if message::expand_name(message, first.start, &mut owner).is_err() {
        return;
    }
    let mut name = [0; NAME_OCTETS_MAX];
    let name = &mut name[..owner.as_wire().len()];
    name.copy_from_slice(owner.as_wire());
    name.make_ascii_lowercase();
    let weight = |record: &RecordView| {
        let address = message.get(record.rdata.clone()).and_then(address);
        address.map_or(1, |address| weights.of(name, address) as usize)
    };
    let mut left = random_below(run.iter().map(weight).sum());
    let drawn = run.iter().find(|record| {
        let weight = weight(record);
        let is_it = left < weight;
        left = left.saturating_sub(weight);
        is_it
    });
    if let Some(drawn) = drawn {
        swap(message, first, drawn);
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(IpAddr::from(*octets.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*octets.first_chunk::<16>()?)),
        _ => None,
    }
}

//--- Anew ------------------------------------------------------------------------------------------

/// Groups in the order they are to have: aliases, others, addresses, MX.
fn group(rtype: Rtype) -> u8 {
    match rtype {
        Rtype::CNAME => 0,
        Rtype::A | Rtype::AAAA => 2,
        Rtype::MX => 3,
        _ => 1,
    }
}

/// Whether records have to change places whole: two MX records, an alias behind something else.
fn needs_moving(records: &[RecordView]) -> bool {
    records.windows(2).any(|pair| {
        let [a, b] = pair else { return false };
        a.section == b.section
            && (b.rtype == Rtype::CNAME && a.rtype != Rtype::CNAME
                || a.rtype == Rtype::MX && b.rtype == Rtype::MX)
    })
}

impl Scratch {
    /// Writes the message anew in its new order. Left as it is if a record's data may hold names that cannot be told from other octets.
    fn rewrite(&mut self, message: &mut Vec<u8>) {
        let Ok(question) = message::question(message) else {
            return;
        };
        for section in [Section::Answer, Section::Authority, Section::Additional] {
            let start = self
                .records
                .partition_point(|record| record.section < section);
            let end = self
                .records
                .partition_point(|record| record.section <= section);
            let Some(records) = self.records.get_mut(start..end) else {
                return;
            };
            records.sort_by_key(|record| group(record.rtype));
            let mail = records.partition_point(|record| group(record.rtype) < 3);
            shuffle_slice(&mut records[mail..]);
        }
        self.message.clear();
        self.names.clear();
        self.message.extend_from_slice(&message[..question.end]);
        self.message[6..12].fill(0);
        for record in &self.records {
            if write(message, record, &mut self.message, &mut self.names).is_none() {
                // Nothing was changed, and the records are those of the message again.
                self.records.clear();
                return;
            }
        }
        std::mem::swap(message, &mut self.message);
        // The views were of the old message.
        self.records.clear();
        if let Ok(records) = message::records(message) {
            self.records.extend(records.map_while(Result::ok));
        }
    }
}

fn write(from: &[u8], record: &RecordView, to: &mut Vec<u8>, names: &mut Compressor) -> Option<()> {
    let (mut owner, mut one, mut other) = (NameBuf::new(), NameBuf::new(), NameBuf::new());
    message::expand_name(from, record.start, &mut owner).ok()?;
    let octets = from.get(record.rdata.clone())?;
    let at = record.rdata.start;
    let rdata = match record.rtype {
        Rtype::NS | Rtype::CNAME | Rtype::PTR | Rtype::DNAME => {
            message::expand_name(from, at, &mut one).ok()?;
            Rdata::Name(one.as_wire())
        }
        Rtype::MX => {
            message::expand_name(from, at + 2, &mut one).ok()?;
            Rdata::Mx(u16::from_be_bytes(*octets.first_chunk()?), one.as_wire())
        }
        Rtype::SRV => {
            message::expand_name(from, at + 6, &mut one).ok()?;
            let (&[p0, p1, w0, w1, o0, o1], _) = octets.split_first_chunk()?;
            let number = |high, low| u16::from_be_bytes([high, low]);
            Rdata::Srv(
                number(p0, p1),
                number(w0, w1),
                number(o0, o1),
                one.as_wire(),
            )
        }
        Rtype::SOA => {
            let next = message::expand_name(from, at, &mut one).ok()?;
            message::expand_name(from, next, &mut other).ok()?;
            let numbers = octets.last_chunk::<20>()?.as_chunks::<4>().0;
            let mut read = [0; 5];
            for (number, octets) in read.iter_mut().zip(numbers) {
                *number = u32::from_be_bytes(*octets);
            }
            Rdata::Soa {
                mname: one.as_wire(),
                rname: other.as_wire(),
                numbers: read,
            }
        }
        // Types whose names senders may have compressed (RFC 3597 §4).
        Rtype::MD
        | Rtype::MF
        | Rtype::MB
        | Rtype::MG
        | Rtype::MR
        | Rtype::MINFO
        | Rtype::RP
        | Rtype::AFSDB
        | Rtype::RT
        | Rtype::SIG
        | Rtype::PX
        | Rtype::NXT
        | Rtype::NAPTR
        | Rtype::KX
        | Rtype::A6 => {
            return None;
        }
        _ => Rdata::Raw(octets),
    };
    Writer::new(to, names)
        .record(
            record.section,
            owner.as_wire(),
            record.rtype,
            record.class,
            record.ttl,
            rdata,
        )
        .then_some(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// A message about `www.example.org` with these records: section, owner, type, data; names are compressed.
    fn build(records: &[(Section, &[u8], Rtype, &[u8])]) -> Vec<u8> {
        let mut message = vec![0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(WWW);
        message.extend_from_slice(&[0, 1, 0, 1]);
        let mut names = Compressor::default();
        for (number, (section, owner, rtype, data)) in records.iter().enumerate() {
            let rdata = match *rtype {
                Rtype::CNAME => Rdata::Name(data),
                Rtype::MX => Rdata::Mx(u16::from(data[0]), &data[1..]),
                _ => Rdata::Raw(data),
            };
            let class = crate::kit::wire::Class::IN;
            let written = Writer::new(&mut message, &mut names).record(
                *section,
                owner,
                *rtype,
                class,
                number as u32,
                rdata,
            );
            assert!(written);
        }
        message
    }

    const WWW: &[u8] = b"\x03www\x07example\x03org\x00";
    const HOST: &[u8] = b"\x04host\x07example\x03org\x00";
    const AN: Section = Section::Answer;

    /// Section, owner, type, data with names expanded, TTL.
    type Row = (Section, Vec<u8>, Rtype, Vec<u8>, u32);

    fn rows(message: &[u8]) -> Vec<Row> {
        let mut rows = Vec::new();
        for record in message::records(message).unwrap() {
            let record = record.unwrap();
            let mut owner = NameBuf::new();
            message::expand_name(message, record.start, &mut owner).unwrap();
            let skip = match record.rtype {
                Rtype::CNAME => Some(0),
                Rtype::MX => Some(2),
                _ => None,
            };
            let mut data = message[record.rdata.clone()].to_vec();
            if let Some(skip) = skip {
                let mut name = NameBuf::new();
                message::expand_name(message, record.rdata.start + skip, &mut name).unwrap();
                data.truncate(skip);
                data.extend_from_slice(name.as_wire());
            }
            rows.push((
                record.section,
                owner.as_wire().to_vec(),
                record.rtype,
                data,
                record.ttl,
            ));
        }
        rows
    }

    fn datas(message: &[u8]) -> Vec<Vec<u8>> {
        rows(message).into_iter().map(|row| row.3).collect()
    }

    #[test]
    fn every_order_of_three_comes_up_about_as_often() {
        let message = build(&[
            (AN, WWW, Rtype::A, &[1; 4]),
            (AN, WWW, Rtype::A, &[2; 4]),
            (AN, WWW, Rtype::A, &[3; 4]),
        ]);
        let mut counts = std::collections::HashMap::new();
        for _ in 0..6_000 {
            let mut shuffled = message.clone();
            shuffle(&mut shuffled, Order::Random(&[]));
            *counts.entry(datas(&shuffled)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // 1,000 each with a standard deviation of 29: ten of those are never seen.
        assert!(
            counts.values().all(|count| (700..1_300).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn aliases_come_first_and_lead_where_they_led() {
        let message = build(&[
            (AN, HOST, Rtype::A, &[1; 4]),
            (AN, HOST, Rtype::A, &[2; 4]),
            (AN, WWW, Rtype::CNAME, HOST),
        ]);
        let mut seen = HashSet::new();
        for _ in 0..100 {
            let mut shuffled = message.clone();
            shuffle(&mut shuffled, Order::Random(&[]));
            let rows = rows(&shuffled);
            assert_eq!((rows[0].2, rows[0].3.as_slice()), (Rtype::CNAME, HOST));
            seen.insert(rows[1].3.clone());
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn mail_exchangers_change_places_whole() {
        let mx =
            |n: u8, label: &[u8]| [&[n, label.len() as u8], label, b"\x04mail\x03net\x00"].concat();
        let datas_in: Vec<_> = [mx(1, b"a"), mx(1, b"bb"), mx(2, b"ccc")].to_vec();
        let records: Vec<_> = datas_in
            .iter()
            .map(|data| (AN, WWW, Rtype::MX, data.as_slice()))
            .collect();
        let message = build(&records);
        let before: HashSet<_> = rows(&message).into_iter().collect();
        let mut first = HashSet::new();
        for _ in 0..100 {
            let mut shuffled = message.clone();
            shuffle(&mut shuffled, Order::Random(&[]));
            assert_eq!(rows(&shuffled).into_iter().collect::<HashSet<_>>(), before);
            first.insert(datas(&shuffled).remove(0));
        }
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn preferred_networks_come_first_in_their_order() {
        let preferred = [
            "10.2.0.0/16".parse().unwrap(),
            "10.0.0.0/8".parse().unwrap(),
        ];
        let message = build(&[
            (AN, WWW, Rtype::A, &[192, 0, 2, 1]),
            (AN, WWW, Rtype::A, &[10, 1, 0, 1]),
            (AN, WWW, Rtype::A, &[10, 2, 0, 1]),
            (AN, WWW, Rtype::A, &[192, 0, 2, 2]),
        ]);
        for _ in 0..50 {
            let mut shuffled = message.clone();
            shuffle(&mut shuffled, Order::Random(&preferred));
            let datas = datas(&shuffled);
            assert_eq!(datas[..2], [vec![10, 2, 0, 1], vec![10, 1, 0, 1]]);
        }
    }

    #[test]
    fn the_first_is_drawn_by_its_weight_and_the_rest_stays() {
        let weights = Weights::parse("WWW.example.org\n192.0.2.1 2\n192.0.2.3 7\n").unwrap();
        let message = build(&[
            (AN, WWW, Rtype::A, &[192, 0, 2, 1]),
            (AN, WWW, Rtype::A, &[192, 0, 2, 2]),
            (AN, WWW, Rtype::A, &[192, 0, 2, 3]),
        ]);
        let mut counts = [0; 4];
        for _ in 0..10_000 {
            let mut drawn = message.clone();
            shuffle(&mut drawn, Order::Weighted(&weights));
            let lasts: Vec<u8> = datas(&drawn).iter().map(|data| data[3]).collect();
            assert!(
                [[1, 2, 3], [2, 1, 3], [3, 2, 1]]
                    .iter()
                    .any(|order| lasts == order)
            );
            counts[usize::from(lasts[0])] += 1;
        }
        // 2,000, 1,000 and 7,000 with a standard deviation of at most 46.
        assert!((1_540..2_460).contains(&counts[1]), "{counts:?}");
        assert!((540..1_460).contains(&counts[2]), "{counts:?}");
        assert!((6_540..7_460).contains(&counts[3]), "{counts:?}");
    }

    proptest! {
        #[test]
        fn whatever_is_shuffled_is_still_all_there(picks in proptest::collection::vec((0..3usize, 0..2usize, 0..4usize, any::<u8>()), 0..12)) {
            let mut picks = picks;
            picks.sort_by_key(|pick| pick.0);
            let data: Vec<(Rtype, Vec<u8>)> = picks.iter().map(|(_, _, kind, n)| match kind {
                0 => (Rtype::A, vec![*n; 4]),
                1 => (Rtype::AAAA, vec![*n; 16]),
                2 => (Rtype::CNAME, [&[1, b'a' + n % 26][..], HOST].concat()),
                _ => (Rtype::MX, [&[*n, 1, b'a' + n % 26][..], WWW].concat()),
            }).collect();
            let records: Vec<_> = picks.iter().zip(&data).map(|((section, owner, _, _), (rtype, data))| {
                let section = [AN, Section::Authority, Section::Additional][*section];
                (section, [WWW, HOST][*owner], *rtype, data.as_slice())
            }).collect();
            let mut message = build(&records);
            let mut before = rows(&message);
            shuffle(&mut message, Order::Random(&["0.0.0.0/1".parse().unwrap()]));
            let mut after = rows(&message);
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);
        }

        #[test]
        fn any_octets_are_survived(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = build(&[]);
            message[6..12].copy_from_slice(&[0, 3, 0, 2, 0, 2]);
            message.extend_from_slice(&octets);
            shuffle(&mut message, Order::Random(&[]));
            prop_assert!(message.len() <= 65_535);
        }
    }
}
