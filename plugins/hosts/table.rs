//! The names and addresses of a hosts file, packed: a million of them in some 50 MiB.
//!
//! ```text
//!   index    ▒▒▒▒▒▒▒▒▒▒▒   hash of a name -> offset of its record, 5 octets a place
//!               │
//!   records  ┌──▼──────────────────────────┬────────┬────────┬────────┐
//!            │ name, lower-cased wire form │ counts │ IPv4 … │ IPv6 … │ next record
//!            └──▲──────────────────────────┴────────┴────────┴────────┘
//!               │
//!   reverse  ▒▒▒▒▒▒▒▒▒▒▒   sorted: address, offset of a record
//! ```
//! Counts are one octet with that of the IPv4 addresses in its upper half, or 0xff and two numbers of two octets.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::kit::wire::name::{LABEL_OCTETS_MAX, NameBuf, wire_len};

/// Addresses of a name, and names of an address, at most: a message of 65,535 octets holds no more.
pub(super) const RECORDS_MAX: usize = 4096;
/// Says that the counts follow in four octets.
const LARGE: u8 = 0xff;
/// Names are the operator's: nobody else can choose them to collide.
const HASH: FixedState = FixedState::with_seed(0);

/// A hosts file, ready to be looked up in.
#[derive(Default)]
pub(super) struct Table {
    records: Vec<u8>,
    index: HashTable<u32>,
    reverse4: Vec<([u8; 4], u32)>,
    reverse6: Vec<([u8; 16], u32)>,
    has_wildcards: bool,
    entries: usize,
}

/// The addresses of a name, each family's one after the other.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Host<'t> {
    pub(super) v4: &'t [u8],
    pub(super) v6: &'t [u8],
}

impl Host<'_> {
    /// Whether the name is there at all.
    pub(super) fn exists(&self) -> bool {
        !self.v4.is_empty() || !self.v6.is_empty()
    }
}

impl Table {
    /// The addresses of a name (lower-cased wire form), or of the wildcard in place of its first label: of each family, what stands by the
    /// name itself hides the wildcard's. No allocation.
    pub(super) fn host(&self, qname: &[u8]) -> Host<'_> {
        let exact = self.exact(qname);
        if !self.has_wildcards || !exact.v4.is_empty() && !exact.v6.is_empty() {
            return exact;
        }
        let Some(wildcard) = wildcard_for(qname) else {
            return exact;
        };
        let wildcard = self.exact(wildcard.as_wire());
        Host {
            v4: if exact.v4.is_empty() {
                wildcard.v4
            } else {
                exact.v4
            },
            v6: if exact.v6.is_empty() {
                wildcard.v6
            } else {
                exact.v6
            },
        }
    }

    fn exact(&self, name: &[u8]) -> Host<'_> {
        // No name is the start of another one, so that a record that starts with it is its own.
        let is_it = |at: &u32| self.at(*at).starts_with(name);
        let record = self.index.find(HASH.hash_one(name), is_it);
        let addresses = record.and_then(|at| self.at(*at).get(name.len()..));
        addresses.map_or(Host::default(), |octets| addresses_at(octets).0)
    }

    fn at(&self, offset: u32) -> &[u8] {
        self.records.get(offset as usize..).unwrap_or_default()
    }

    /// The names of an address, in wire form, in the order in which they stand in the file.
    pub(super) fn names(&self, address: IpAddr) -> impl Iterator<Item = &[u8]> {
        let (v4, v6) = match address {
            IpAddr::V4(ip) => (same(&self.reverse4, ip.octets()), &[][..]),
            IpAddr::V6(ip) => (&[][..], same(&self.reverse6, ip.octets())),
        };
        let v4 = v4.iter().map(|(_, offset)| *offset);
        let v6 = v6.iter().map(|(_, offset)| *offset);
        v4.chain(v6).filter_map(|offset| {
            let record = self.at(offset);
            record.get(..wire_len(record)?)
        })
    }

    /// What `coredns_hosts_entries` counts: each address of each name, and again for the way back.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }
}

/// The run of an address in a sorted list.
fn same<A: Ord + Copy>(list: &[(A, u32)], address: A) -> &[(A, u32)] {
    let start = list.partition_point(|(listed, _)| *listed < address);
    let rest = list.get(start..).unwrap_or_default();
    let octets = rest.partition_point(|(listed, _)| *listed == address);
    rest.get(..octets).unwrap_or_default()
}

/// `a.b.c` is covered by `*.b.c`.
fn wildcard_for(qname: &[u8]) -> Option<NameBuf> {
    let (len, rest) = qname.split_first()?;
    let parent = rest.get(usize::from(*len)..)?;
    if *len == 0 {
        return None;
    }
    let mut name = NameBuf::new();
    name.push_label(b"*").ok()?;
    name.extend(parent).ok()?;
    Some(name)
}

/// The addresses that stand at the start of these octets, counts first; and how many octets all that has.
fn addresses_at(octets: &[u8]) -> (Host<'_>, usize) {
    let (counts, head) = match *octets {
        [LARGE, a, b, c, d, ..] => ([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])], 5),
        [both, ..] => ([u16::from(both >> 4), u16::from(both & 15)], 1),
        [] => ([0, 0], 0),
    };
    let v4_end = head + 4 * usize::from(counts[0]);
    let v6_end = v4_end + 16 * usize::from(counts[1]);
    let host = Host {
        v4: octets.get(head..v4_end).unwrap_or_default(),
        v6: octets.get(v4_end..v6_end).unwrap_or_default(),
    };
    (host, v6_end)
}

/// A table under construction: entries are added in the order of the file.
pub(super) struct Builder {
    table: Table,
    reverse: bool,
    octets_max: usize,
    // Further addresses of names that have a record already, by the record's offset.
    more: Vec<(u32, IpAddr)>,
}

/// Octets of records at most, some 30 million names: more is a file that is none, or one that takes all memory.
const OCTETS_MAX: usize = 1 << 30;

/// The table is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

impl Builder {
    /// An empty one; with or without the way back from address to name.
    pub(super) fn new(reverse: bool) -> Builder {
        Builder {
            table: Table::default(),
            reverse,
            octets_max: OCTETS_MAX,
            more: Vec::new(),
        }
    }

    /// Adds an address of a name (lower-cased wire form).
    pub(super) fn add(&mut self, name: &[u8], address: IpAddr) -> Result<(), Full> {
        let table = &mut self.table;
        let records = &mut table.records;
        if records.len() + 24 * self.more.len() > self.octets_max {
            return Err(Full);
        }
        let is_it = |at: &u32| starts_with(records, *at, name);
        let hash = HASH.hash_one(name);
        let offset = match table.index.find(hash, is_it) {
            Some(at) => {
                self.more.push((*at, address));
                *at
            }
            None => {
                let offset = records.len() as u32;
                records.extend_from_slice(name);
                match address {
                    IpAddr::V4(ip) => {
                        records.push(0x10);
                        records.extend_from_slice(&ip.octets());
                    }
                    IpAddr::V6(ip) => {
                        records.push(0x01);
                        records.extend_from_slice(&ip.octets());
                    }
                }
                let hash_of = |at: &u32| HASH.hash_one(name_at(records, *at));
                table.index.insert_unique(hash, offset, hash_of);
                offset
            }
        };
        table.entries += 1;
        if name.starts_with(b"\x01*") {
            table.has_wildcards = true;
        } else if self.reverse {
            table.entries += 1;
            match address {
                IpAddr::V4(ip) => push(&mut table.reverse4, ip.octets(), offset),
                IpAddr::V6(ip) => push(&mut table.reverse6, ip.octets(), offset),
            }
        }
        Ok(())
    }

    /// The table, as small as it gets.
    pub(super) fn done(mut self) -> Table {
        let moved = self.merge_more();
        let table = &mut self.table;
        arrange(&mut table.reverse4, &moved);
        arrange(&mut table.reverse6, &moved);
        let records = &table.records;
        let hash_of = |at: &u32| HASH.hash_one(name_at(records, *at));
        table.index.shrink_to(0, hash_of);
        self.table.records.shrink_to_fit();
        self.table
    }

    /// Writes the records anew if names have more than one address.
    fn merge_more(&mut self) -> Moved {
        let mut moved = Moved::default();
        if self.more.is_empty() {
            return moved;
        }
        // Stable: addresses stay in the order of the file.
        self.more.sort_by_key(|(at, _)| *at);
        let old = std::mem::take(&mut self.table.records);
        let mut new: Vec<u8> = Vec::with_capacity(old.len() + 5 * self.more.len());
        let mut copied = 0;
        for of_one in self.more.chunk_by(|a, b| a.0 == b.0) {
            let at = of_one.first().map_or(0, |(at, _)| *at as usize);
            let name_end = at + name_at(&old, at as u32).len();
            new.extend_from_slice(old.get(copied..name_end).unwrap_or_default());
            let behind = old.get(name_end..).unwrap_or_default();
            let (host, octets) = addresses_at(behind);
            moved.doubles |= write_addresses(&mut new, host, of_one);
            copied = name_end + octets;
            // What comes behind this record stands that much further on.
            let shift = (new.len() - copied) as u32;
            moved.behind.push((at as u32, shift));
        }
        new.extend_from_slice(old.get(copied..).unwrap_or_default());
        self.table.records = new;
        self.more = Vec::new();
        for offset in self.table.index.iter_mut() {
            *offset = moved.to(*offset);
        }
        moved
    }
}

/// Appends to a reverse list; a run of one address (`0.0.0.0` in a block list) ends where no answer could hold more.
fn push<A: Eq>(list: &mut Vec<(A, u32)>, address: A, offset: u32) {
    let run = list.len().checked_sub(RECORDS_MAX).map(|at| &list[at]);
    if run.is_none_or(|(listed, _)| *listed != address) {
        list.push((address, offset));
    }
}

/// Sorts a reverse list by address, keeping the order of the file, without doubles and without more than an answer could hold.
fn arrange<A: Ord + Copy>(list: &mut Vec<(A, u32)>, moved: &Moved) {
    for (_, offset) in list.iter_mut() {
        *offset = moved.to(*offset);
    }
    list.sort_by_key(|(address, _)| *address);
    let mut seen = std::collections::HashSet::new();
    let mut run: Option<(A, usize)> = None;
    list.retain(|(address, offset)| {
        let count = match run {
            Some((before, count)) if before == *address => count + 1,
            _ => {
                seen.clear();
                1
            }
        };
        // Where no name has an address twice, no address has a name twice.
        let keep = count <= RECORDS_MAX && (!moved.doubles || seen.insert(*offset));
        if keep || run.is_none_or(|(before, _)| before != *address) {
            run = Some((*address, count));
        }
        keep
    });
    list.shrink_to_fit();
}

/// Where records went when others grew.
#[derive(Default)]
struct Moved {
    // Of each record that grew: its old offset, and how much further on stands what comes behind it.
    behind: Vec<(u32, u32)>,
    // Whether a name had an address twice.
    doubles: bool,
}

impl Moved {
    fn to(&self, offset: u32) -> u32 {
        let before = self.behind.partition_point(|(grown, _)| *grown < offset);
        let last = before.checked_sub(1).and_then(|at| self.behind.get(at));
        offset + last.map_or(0, |(_, shift)| *shift)
    }
}

/// Writes a record's counts and addresses: those it has, then more, each once. Whether one was there twice.
fn write_addresses(out: &mut Vec<u8>, host: Host<'_>, more: &[(u32, IpAddr)]) -> bool {
    let mut v4: Vec<[u8; 4]> = host.v4.as_chunks().0.to_vec();
    let mut v6: Vec<[u8; 16]> = host.v6.as_chunks().0.to_vec();
    for (_, address) in more {
        match address {
            IpAddr::V4(ip) => v4.push(ip.octets()),
            IpAddr::V6(ip) => v6.push(ip.octets()),
        }
    }
    let all = v4.len() + v6.len();
    keep_first(&mut v4);
    keep_first(&mut v6);
    let doubles = v4.len() + v6.len() < all;
    v4.truncate(RECORDS_MAX);
    v6.truncate(RECORDS_MAX);
    if v4.len() < 15 && v6.len() < 16 {
        out.push((v4.len() << 4 | v6.len()) as u8);
    } else {
        out.push(LARGE);
        out.extend_from_slice(&(v4.len() as u16).to_be_bytes());
        out.extend_from_slice(&(v6.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(v4.as_flattened());
    out.extend_from_slice(v6.as_flattened());
    doubles
}

/// RFC 2181 §5: a record is there once.
fn keep_first<A: Eq + std::hash::Hash + Copy>(list: &mut Vec<A>) {
    let mut seen = std::collections::HashSet::with_capacity(list.len());
    list.retain(|address| seen.insert(*address));
}

fn starts_with(records: &[u8], at: u32, name: &[u8]) -> bool {
    let record = records.get(at as usize..).unwrap_or_default();
    record.starts_with(name)
}

fn name_at(records: &[u8], at: u32) -> &[u8] {
    let record = records.get(at as usize..).unwrap_or_default();
    wire_len(record)
        .and_then(|len| record.get(..len))
        .unwrap_or_default()
}

const _: () = assert!(OCTETS_MAX < u32::MAX as usize, "offsets have 32 bits");
const _: () = assert!(LABEL_OCTETS_MAX < 0xc0, "a label's length is no pointer");

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::kit::wire::Name;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap().to_lowercase()
    }

    fn table(entries: &[(String, IpAddr)]) -> Table {
        let mut builder = Builder::new(true);
        for (text, address) in entries {
            assert_eq!(builder.add(name(text).as_wire(), *address), Ok(()));
        }
        builder.done()
    }

    fn addresses(host: Host<'_>) -> Vec<IpAddr> {
        let v4 = host.v4.as_chunks::<4>().0.iter();
        let v6 = host.v6.as_chunks::<16>().0.iter();
        v4.map(|octets| IpAddr::from(*octets))
            .chain(v6.map(|octets| IpAddr::from(*octets)))
            .collect()
    }

    /// Those of a family, in order, each once.
    fn expected(entries: &[(String, IpAddr)], text: &str, v4: bool) -> Vec<IpAddr> {
        let mut list = Vec::new();
        for (of, address) in entries {
            if of == text && address.is_ipv4() == v4 && !list.contains(address) {
                list.push(*address);
            }
        }
        list
    }

    fn entries() -> impl Strategy<Value = Vec<(String, IpAddr)>> {
        let names =
            prop::sample::select(vec!["a", "b.a", "*.a", "bb.a", "c", "*.b.a", "d.e.f", "x"]);
        let v4 = (0u32..20).prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(n)));
        let v6 = (0u128..20).prop_map(|n| IpAddr::V6(Ipv6Addr::from_bits(n)));
        let entry = (names.prop_map(str::to_owned), prop_oneof![v4, v6]);
        prop::collection::vec(entry, 0..120)
    }

    proptest! {
        #[test]
        fn what_was_added_is_found(entries in entries()) {
            let table = table(&entries);
            for text in ["a", "b.a", "*.a", "bb.a", "c", "*.b.a", "d.e.f", "x", "z.a", "z.b.a", "e.f", "z.z.a"] {
                let mut wanted = Vec::new();
                for v4 in [true, false] {
                    let mut family = expected(&entries, text, v4);
                    if family.is_empty()
                        && let Some((_, parent)) = text.split_once('.')
                    {
                        family = expected(&entries, &format!("*.{parent}"), v4);
                    }
                    wanted.extend(family);
                }
                prop_assert_eq!(addresses(table.host(name(text).as_wire())), wanted, "{}", text);
            }
            for n in 0..20 {
                for address in [IpAddr::V4(Ipv4Addr::from_bits(n)), IpAddr::V6(Ipv6Addr::from_bits(n.into()))] {
                    let mut wanted = Vec::new();
                    for (text, of) in &entries {
                        if *of == address && !text.starts_with('*') && !wanted.contains(text) {
                            wanted.push(text.clone());
                        }
                    }
                    let found: Vec<String> = table
                        .names(address)
                        .map(|wire| Name::from_wire(wire).unwrap().to_string().trim_end_matches('.').to_owned())
                        .collect();
                    prop_assert_eq!(found, wanted, "{}", address);
                }
            }
        }
    }

    #[test]
    fn no_more_than_an_answer_holds() {
        let blocked = (0..10_000u32).map(|n| (format!("n{n}"), IpAddr::from([0, 0, 0, 0])));
        let many =
            (0..10_000u32).map(|n| ("many".to_owned(), IpAddr::V4(Ipv4Addr::from_bits(1 + n))));
        let table = table(&blocked.chain(many).collect::<Vec<_>>());
        assert_eq!(table.names([0, 0, 0, 0].into()).count(), RECORDS_MAX);
        assert_eq!(table.host(name("many").as_wire()).v4.len(), 4 * RECORDS_MAX);
        assert_eq!(table.names([0, 0, 0, 1].into()).count(), 1);
        assert_eq!(table.host(name("n9999").as_wire()).v4, [0; 4]);
        assert_eq!(table.entries(), 40_000);
    }

    #[test]
    fn a_full_table_says_so() {
        let mut builder = Builder::new(false);
        builder.octets_max = 100;
        let added = (0..10u8).map(|n| {
            builder.add(
                name(&format!("n{n}.example.org")).as_wire(),
                [0, 0, 0, n].into(),
            )
        });
        assert_eq!(added.filter(|added| added.is_ok()).count(), 5);
        assert!(
            !builder
                .done()
                .host(name("n4.example.org").as_wire())
                .v4
                .is_empty()
        );
    }
}
