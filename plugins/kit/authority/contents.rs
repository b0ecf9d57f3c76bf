//! [`Contents`]: one zone in memory, immutable; how it is looked up and walked. How it is made is in `builder`.

use std::fmt;
use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::HashTable;

use super::builder::Builder;
use super::denial::Chain;
use crate::kit::wire::name::{self, NAME_OCTETS_MAX};
use crate::kit::wire::{Name, NameBuf, Rtype};

/// Octets of a stored record before its data: owner, type, class, TTL, length.
pub(super) const RECORD_HEAD: usize = 12;
/// Labels that a name can have, the root not counted.
pub(super) const LABELS_MAX: usize = NAME_OCTETS_MAX / 2;

/// One zone.
pub struct Contents {
    pub(super) apex: Name,
    // In canonical order, the apex first; one more stands at the end.
    pub(super) nodes: Vec<RawNode>,
    // By node, by type; one more stands at the end.
    pub(super) rrsets: Vec<RawRrset>,
    // Names without the apex at their end, lower-case.
    pub(super) names: Vec<u8>,
    // Records in wire form, their owner a pointer to the question.
    pub(super) records: Vec<u8>,
    pub(super) index: HashTable<u32>,
    pub(super) hasher: foldhash::fast::RandomState,
    pub(super) record_count: usize,
    pub(super) soa: Soa,
    pub(super) apex_ns: Relative,
    pub(super) negative_soa: Relative,
    pub(super) chain: Chain,
}

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct RawNode {
    pub(super) name: u32,
    pub(super) rrsets: u32,
    pub(super) parent: u32,
    pub(super) name_len: u8,
    pub(super) labels: u8,
    pub(super) flags: u8,
}

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct RawRrset {
    pub(super) at: u32,
    pub(super) count: u16,
    pub(super) rtype: u16,
}

/// What is at a node or above it.
pub(super) mod flag {
    /// A delegation: NS below the apex.
    pub(crate) const CUT: u8 = 1;
    /// A DNAME.
    pub(crate) const DNAME: u8 = 2;
    /// A delegation or a DNAME above: not this zone's to answer.
    pub(crate) const OCCLUDED: u8 = 4;
    /// `*` below it.
    pub(crate) const WILDCARD: u8 = 8;
    /// Nothing but NSEC3 and its signature: no name of the zone (RFC 5155 §7.2.8).
    pub(crate) const NSEC3: u8 = 16;
}

/// The SOA record (RFC 1035 §3.3.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soa {
    /// Its TTL, in seconds.
    pub ttl: u32,
    /// Version of the zone; compared by RFC 1982.
    pub serial: u32,
    /// Seconds between a secondary's checks.
    pub refresh: u32,
    /// Seconds to the next one after a failed check.
    pub retry: u32,
    /// Seconds after which a secondary that reaches no primary stops answering.
    pub expire: u32,
    /// Seconds that a denial lives at most (RFC 2308 §4).
    pub minimum: u32,
}

impl Soa {
    pub(super) fn of(rrset: Rrset<'_>) -> Option<Soa> {
        let data = rrset.records().next()?;
        let numbers = data.get(data.len().checked_sub(20)?..)?;
        let mut numbers = numbers
            .chunks_exact(4)
            .filter_map(|four| Some(u32::from_be_bytes(four.try_into().ok()?)));
        let mut next = || numbers.next();
        Some(Soa {
            ttl: rrset.ttl(),
            serial: next()?,
            refresh: next()?,
            retry: next()?,
            expire: next()?,
            minimum: next()?,
        })
    }
}

/// Whether serial `a` comes after `b` (RFC 1982 §3.2).
pub fn is_newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

/// Records that every other answer carries, with the apex in them as pointers into the question.
#[derive(Clone, Default)]
pub(super) struct Relative {
    pub(super) count: u16,
    pub(super) wire: Vec<u8>,
    // Where pointers to the apex stand.
    pub(super) pointers: Vec<u16>,
}

/// A node: a name of the zone, or one that only has names below it.
#[derive(Clone, Copy)]
pub struct Node<'z> {
    pub(super) zone: &'z Contents,
    pub(super) number: u32,
}

/// The records of one name and type.
#[derive(Clone, Copy)]
pub struct Rrset<'z> {
    /// Their type.
    pub rtype: Rtype,
    /// How many there are.
    pub count: u16,
    // Each with its head, the owner a pointer to the question.
    pub(super) wire: &'z [u8],
}

/// Where a name is in a zone.
#[derive(Clone, Copy)]
pub enum Place<'z> {
    /// It is a node.
    Exact(Node<'z>),
    /// It is none; this is the nearest one above it (RFC 4592 §3.3.1's closest encloser).
    Below(Node<'z>),
}

impl Contents {
    /// The zone's name, lower-case wire form.
    pub fn apex_name(&self) -> &Name {
        &self.apex
    }

    /// The apex.
    pub fn apex(&self) -> Node<'_> {
        self.node_at(0)
    }

    /// The SOA record's numbers.
    pub fn soa(&self) -> &Soa {
        &self.soa
    }

    /// How many records it has.
    pub fn record_count(&self) -> usize {
        self.record_count
    }

    /// How many names it has, empty non-terminals included.
    pub fn node_count(&self) -> usize {
        self.nodes.len().saturating_sub(1)
    }

    /// Octets of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<RawNode>()
            + self.rrsets.capacity() * size_of::<RawRrset>()
            + self.names.capacity()
            + self.records.capacity()
            + self.index.capacity() * 5
    }

    /// Whether it was signed before it was loaded: its denials have a chain to prove them.
    pub fn is_signed(&self) -> bool {
        !matches!(self.chain, Chain::None)
    }

    /// Every node in canonical order (RFC 4034 §6.1): the apex first.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = Node<'_>> + ExactSizeIterator {
        (0..self.node_count() as u32).map(|number| Node { zone: self, number })
    }

    /// The node of a name (full wire form, lower-case), empty non-terminals included.
    pub fn node(&self, name: &[u8]) -> Option<Node<'_>> {
        self.relative(name).and_then(|relative| self.find(relative))
    }

    /// The RRset of a name (full wire form, lower-case) and type, whoever is authoritative for it.
    pub fn rrset(&self, name: &[u8], rtype: Rtype) -> Option<Rrset<'_>> {
        self.node(name)?.rrset(rtype)
    }

    /// Where a name (full wire form, lower-case) is; `None` outside the zone. No allocation.
    pub fn place(&self, name: &[u8]) -> Option<Place<'_>> {
        let relative = self.relative(name)?;
        if let Some(node) = self.find(relative) {
            return Some(Place::Exact(node));
        }
        // Every name above a node is one, so that the nearest is found by halving.
        let mut starts = [0_u8; LABELS_MAX];
        let labels = label_starts(relative, &mut starts);
        let (mut without, mut with) = (0, labels);
        let mut encloser = self.apex();
        while with - without > 1 {
            let middle = without.midpoint(with);
            let start = starts.get(middle).map_or(0, |start| usize::from(*start));
            match self.find(relative.get(start..)?) {
                Some(node) => {
                    encloser = node;
                    with = middle;
                }
                None => without = middle,
            }
        }
        Some(Place::Below(encloser))
    }

    /// A builder that holds every record of this zone.
    pub fn builder(&self) -> Builder {
        let mut builder = Builder::new(&self.apex);
        let mut owner = NameBuf::new();
        for node in self.nodes() {
            node.name(&mut owner);
            for rrset in node.rrsets() {
                for record in rrset.iter() {
                    // It fitted before.
                    let added = builder.add(owner.as_wire(), rrset.rtype, record.ttl, record.rdata);
                    debug_assert!(added.is_ok());
                }
            }
        }
        builder
    }

    /// The name without the apex; `None` outside the zone.
    pub(super) fn relative<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        name::is_within(name, self.apex.as_wire())
            .then(|| name.get(..name.len() - self.apex.as_wire().len()))?
    }

    pub(super) fn find(&self, relative: &[u8]) -> Option<Node<'_>> {
        if relative.is_empty() {
            return Some(self.apex());
        }
        let hash = self.hasher.hash_one(relative);
        self.index
            .find(hash, |number| self.relative_name(*number) == relative)
            .map(|number| self.node_at(*number))
    }

    pub(super) fn node_at(&self, number: u32) -> Node<'_> {
        Node { zone: self, number }
    }

    pub(super) fn raw(&self, number: u32) -> RawNode {
        self.nodes.get(number as usize).copied().unwrap_or_default()
    }

    pub(super) fn relative_name(&self, number: u32) -> &[u8] {
        let raw = self.raw(number);
        let start = raw.name as usize;
        self.names
            .get(start..start + usize::from(raw.name_len))
            .unwrap_or_default()
    }

    /// Node numbers `a..b` with the first of them whose name is not below or equal to `relative` in canonical order.
    pub(super) fn first_after(&self, relative: &[u8]) -> u32 {
        let range = self.nodes.get(..self.node_count()).unwrap_or_default();
        let before = range.partition_point(|raw| {
            let start = raw.name as usize;
            let name = self.names.get(start..start + usize::from(raw.name_len));
            canonical_cmp(name.unwrap_or_default(), relative) != std::cmp::Ordering::Greater
        });
        before as u32
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (apex, serial) = (&self.apex, self.soa.serial);
        write!(f, "{apex} serial {serial}, {} records", self.record_count)
    }
}

/// Where labels start in a name without a root; returns how many there are.
pub(super) fn label_starts(relative: &[u8], starts: &mut [u8; LABELS_MAX]) -> usize {
    let (mut at, mut count) = (0, 0);
    while let (Some(len), Some(slot)) = (relative.get(at), starts.get_mut(count)) {
        *slot = at as u8;
        count += 1;
        at += 1 + usize::from(*len);
    }
    count
}

/// Canonical order (RFC 4034 §6.1) of two lower-case names without a root: by labels from the right, each as octets.
pub(super) fn canonical_cmp(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let (mut a_starts, mut b_starts) = ([0_u8; LABELS_MAX], [0_u8; LABELS_MAX]);
    let a_labels = label_starts(a, &mut a_starts);
    let b_labels = label_starts(b, &mut b_starts);
    fn label(name: &[u8], start: u8) -> &[u8] {
        let start = usize::from(start);
        let len = name.get(start).map_or(0, |len| usize::from(*len));
        name.get(start + 1..start + 1 + len).unwrap_or_default()
    }
    let a_from_right = a_starts.iter().take(a_labels).rev();
    let b_from_right = b_starts.iter().take(b_labels).rev();
    for (a_start, b_start) in a_from_right.zip(b_from_right) {
        let order = label(a, *a_start).cmp(label(b, *b_start));
        if order.is_ne() {
            return order;
        }
    }
    a_labels.cmp(&b_labels)
}

impl<'z> Node<'z> {
    /// The full name in wire form, lower-case.
    pub fn name(self, out: &mut NameBuf) {
        out.clear();
        // Both were one name when they came in.
        let fits = out
            .extend(self.zone.relative_name(self.number))
            .and_then(|()| out.extend(self.zone.apex.as_wire()));
        debug_assert!(fits.is_ok());
    }

    /// Its RRsets, by type.
    pub fn rrsets(self) -> impl Iterator<Item = Rrset<'z>> {
        let zone = self.zone;
        self.range().map(move |at| zone.rrset_at(at))
    }

    /// The RRset of this type.
    pub fn rrset(self, rtype: Rtype) -> Option<Rrset<'z>> {
        let range = self.range();
        let start = range.start;
        let raws = self.zone.rrsets.get(range)?;
        let at = raws.iter().position(|raw| raw.rtype == rtype.0)?;
        Some(self.zone.rrset_at(start + at))
    }

    /// The signatures of its RRset of this type.
    pub fn signatures(self, covered: Rtype) -> Option<Rrset<'z>> {
        self.rrset(Rtype::RRSIG)?.covering(covered)
    }

    /// Whether it has no records: an empty non-terminal (RFC 4592 §2.2.2).
    pub fn is_empty(self) -> bool {
        self.range().is_empty()
    }

    /// Whether it is the apex.
    pub fn is_apex(self) -> bool {
        self.number == 0
    }

    /// Whether it is a delegation.
    pub fn is_cut(self) -> bool {
        self.has(flag::CUT)
    }

    /// Whether it is below a delegation or a DNAME: glue, or hidden.
    pub fn is_occluded(self) -> bool {
        self.has(flag::OCCLUDED)
    }

    /// Whether it is only there to carry NSEC3 (RFC 5155 §3).
    pub fn is_nsec3_only(self) -> bool {
        self.has(flag::NSEC3)
    }

    /// The node above it; the apex is above itself.
    pub fn parent(self) -> Node<'z> {
        self.zone.node_at(self.zone.raw(self.number).parent)
    }

    /// The node right before it in canonical order.
    pub(super) fn before(self) -> Option<Node<'z>> {
        Some(self.zone.node_at(self.number.checked_sub(1)?))
    }

    /// The delegation or DNAME that it is below: the one nearest to the apex.
    pub(super) fn occluder(self) -> Node<'z> {
        let mut node = self;
        while node.is_occluded() {
            node = node.parent();
        }
        node
    }

    /// The wildcard right below it.
    pub(super) fn wildcard(self) -> Option<Node<'z>> {
        if !self.has(flag::WILDCARD) {
            return None;
        }
        let mut name = NameBuf::new();
        name.push_label(b"*").ok()?;
        name.extend(self.zone.relative_name(self.number)).ok()?;
        self.zone.find(name.as_wire())
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.zone.raw(self.number).flags & flag != 0
    }

    /// How many octets its name has.
    pub(super) fn name_len(self) -> usize {
        usize::from(self.zone.raw(self.number).name_len) + self.zone.apex.as_wire().len()
    }

    fn range(self) -> Range<usize> {
        let start = self.zone.raw(self.number).rrsets;
        let end = self.zone.raw(self.number.saturating_add(1)).rrsets;
        start as usize..end as usize
    }
}

impl Contents {
    fn rrset_at(&self, at: usize) -> Rrset<'_> {
        let raw = self.rrsets.get(at).copied().unwrap_or_default();
        let end = self.rrsets.get(at + 1).copied().unwrap_or_default();
        Rrset {
            rtype: Rtype(raw.rtype),
            count: raw.count,
            wire: self
                .records
                .get(raw.at as usize..end.at as usize)
                .unwrap_or_default(),
        }
    }
}

/// One record of an RRset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'z> {
    /// Its TTL, in seconds.
    pub ttl: u32,
    /// Its data, names uncompressed.
    pub rdata: &'z [u8],
    // With its head.
    pub(super) wire: &'z [u8],
}

impl<'z> Rrset<'z> {
    /// The TTL, in seconds: of a set of signatures the first one's.
    pub fn ttl(self) -> u32 {
        self.iter().next().map_or(0, |record| record.ttl)
    }

    /// The data of each record, names uncompressed.
    pub fn records(self) -> impl Iterator<Item = &'z [u8]> {
        self.iter().map(|record| record.rdata)
    }

    /// Each record.
    pub fn iter(self) -> impl Iterator<Item = Record<'z>> {
        let mut rest = self.wire;
        std::iter::from_fn(move || {
            let head = rest.first_chunk::<RECORD_HEAD>()?;
            let len = usize::from(u16::from_be_bytes([head[10], head[11]]));
            let ttl = u32::from_be_bytes([head[6], head[7], head[8], head[9]]);
            let (wire, behind) = rest.split_at_checked(RECORD_HEAD + len)?;
            rest = behind;
            Some(Record {
                ttl,
                rdata: &wire[RECORD_HEAD..],
                wire,
            })
        })
    }

    /// Of a set of signatures, those of one type; they lie together.
    fn covering(self, covered: Rtype) -> Option<Rrset<'z>> {
        let (mut start, mut len, mut count) = (0, 0, 0);
        for record in self.iter() {
            match record.rdata.first_chunk() {
                Some(rtype) if *rtype == covered.0.to_be_bytes() => {
                    len += record.wire.len();
                    count += 1;
                }
                _ if count == 0 => start += record.wire.len(),
                _ => break,
            }
        }
        (count > 0).then(|| Rrset {
            rtype: Rtype::RRSIG,
            count,
            wire: self.wire.get(start..start + len).unwrap_or_default(),
        })
    }
}
