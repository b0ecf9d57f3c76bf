//! [`Builder`]: records in any order become a [`Contents`]: one sort, one pass.

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::contents::{
    Contents, LABELS_MAX, RECORD_HEAD, RawNode, RawRrset, Relative, Rrset, Soa, canonical_cmp,
    flag, label_starts,
};
use super::denial::{Chain, IterationsError};
use crate::kit::wire::message::names_in;
use crate::kit::wire::name::{self, NAME_OCTETS_MAX};
use crate::kit::wire::{Class, Name, NameBuf, Rtype};

/// Octets that the records of one name and type may have: a message has 65,535, header, question and OPT included.
pub const RRSET_OCTETS_MAX: usize = 65_000;
/// Octets that names, and records, of one zone may have in all: offsets are 32 bits.
const ARENA_OCTETS_MAX: usize = u32::MAX as usize;
/// Records of a zone, for the same reason.
const RECORDS_MAX: usize = u32::MAX as usize - 1;
/// Warnings about one zone; more are counted only, a wrong zone may have millions.
pub const WARNINGS_MAX: usize = 20;
/// Records of an RRset up to which doubles are found by comparing each with each.
const COMPARED_MAX: usize = 16;

/// Collects the records of one zone.
pub struct Builder {
    apex: Name,
    // Lower-case, without the apex.
    names: Vec<u8>,
    entries: Vec<Entry>,
    // Length and data of each record.
    data: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Entry {
    name: u32,
    data: u32,
    ttl: u32,
    rtype: u16,
    name_len: u8,
}

/// Why a record or a zone cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The owner is not within the zone.
    OutOfZone,
    /// The owner is no name, or the data has more than 65,535 octets.
    Malformed,
    /// More than 4 GiB.
    TooLarge,
    /// No SOA record at the apex (RFC 1035 §5.2).
    NoSoa,
    /// More than one.
    SeveralSoa,
    /// An RRset that no message holds.
    RrsetTooLarge {
        /// Its owner, as text.
        owner: String,
        /// Its type.
        rtype: Rtype,
    },
    /// NSEC3 with more iterations than anybody should be made to compute (RFC 9276).
    Iterations(u16),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::OutOfZone => f.write_str("the name is not within the zone"),
            BuildError::Malformed => f.write_str("the record is malformed"),
            BuildError::TooLarge => f.write_str("the zone has more than 4 GiB"),
            BuildError::NoSoa => f.write_str("no SOA record at the zone's own name; write one"),
            BuildError::SeveralSoa => {
                f.write_str("more than one SOA record at the zone's own name; keep one")
            }
            BuildError::RrsetTooLarge { owner, rtype } => write!(
                f,
                "the {rtype} records of {owner} have more than {RRSET_OCTETS_MAX} octets: no message holds them, leave some out"
            ),
            BuildError::Iterations(count) => write!(
                f,
                "NSEC3 with {count} iterations; sign with at most {}, best 0 (RFC 9276)",
                super::denial::ITERATIONS_MAX
            ),
        }
    }
}

impl std::error::Error for BuildError {}

/// What is odd in a zone that can be served all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    /// The first of them.
    pub texts: Vec<String>,
    /// How many there are.
    pub count: usize,
}

impl Warnings {
    /// Notes one.
    pub fn push(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.texts.len() < WARNINGS_MAX {
            self.texts.push(text());
        }
    }
}

impl Builder {
    /// An empty zone of this name.
    pub fn new(apex: &Name) -> Builder {
        Builder {
            apex: apex.to_lowercase(),
            names: Vec::new(),
            entries: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Makes room, where it is known how much will come.
    pub fn reserve(&mut self, records: usize, octets: usize) {
        self.entries.reserve(records);
        self.names.reserve(octets);
        self.data.reserve(octets);
    }

    /// Adds a record of class IN. `owner` is wire form in any case, `rdata` has no compressed names and is right for its type.
    pub fn add(
        &mut self,
        owner: &[u8],
        rtype: Rtype,
        ttl: u32,
        rdata: &[u8],
    ) -> Result<(), BuildError> {
        let apex = self.apex.as_wire();
        let relative_len = owner
            .len()
            .checked_sub(apex.len())
            .ok_or(BuildError::OutOfZone)?;
        let (relative, behind) = owner.split_at(relative_len);
        if owner.len() > NAME_OCTETS_MAX || !name::eq_ignore_case(behind, apex) {
            return Err(BuildError::OutOfZone);
        }
        // The same name as before, mostly.
        let last = self.entries.last().map(|entry| {
            let start = entry.name as usize;
            (entry.name, start..start + usize::from(entry.name_len))
        });
        let name = match last {
            Some((at, range))
                if self
                    .names
                    .get(range.clone())
                    .is_some_and(|last| last.eq_ignore_ascii_case(relative)) =>
            {
                at
            }
            _ => {
                let mut at = 0;
                while let Some(len) = relative.get(at) {
                    if *len == 0 || *len > 63 {
                        return Err(BuildError::Malformed);
                    }
                    at += 1 + usize::from(*len);
                }
                if at != relative.len() {
                    // The apex's octets stood inside a label.
                    return Err(BuildError::OutOfZone);
                }
                let at = self.names.len();
                self.names.extend_from_slice(relative);
                self.names
                    .get_mut(at..)
                    .unwrap_or_default()
                    .make_ascii_lowercase();
                at as u32
            }
        };
        let len = u16::try_from(rdata.len()).map_err(|_| BuildError::Malformed)?;
        let data = self.data.len();
        if self.names.len() > ARENA_OCTETS_MAX
            || data + rdata.len() + 2 > ARENA_OCTETS_MAX
            || self.entries.len() >= RECORDS_MAX
        {
            return Err(BuildError::TooLarge);
        }
        self.data.extend_from_slice(&len.to_be_bytes());
        self.data.extend_from_slice(rdata);
        self.entries.push(Entry {
            name,
            data: data as u32,
            // RFC 2181 §8: a TTL with its top bit set is zero.
            ttl: if ttl > i32::MAX as u32 { 0 } else { ttl },
            rtype: rtype.0,
            name_len: relative.len() as u8,
        });
        Ok(())
    }

    /// Removes every record that `keep` does not want; for zones that are signed or changed anew.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], Rtype, u32, &[u8]) -> bool) {
        let (names, data, apex) = (&self.names, &self.data, &self.apex);
        let mut owner = NameBuf::new();
        self.entries.retain(|entry| {
            owner.clear();
            let whole = owner
                .extend(name_of(names, entry))
                .and_then(|()| owner.extend(apex.as_wire()));
            debug_assert!(whole.is_ok());
            keep(
                owner.as_wire(),
                Rtype(entry.rtype),
                entry.ttl,
                data_of(data, entry),
            )
        });
    }

    /// How many records it has so far.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The zone, and what is odd about it.
    pub fn finish(self) -> Result<(Contents, Warnings), BuildError> {
        let order = self.sorted();
        let mut making = Making::new(self.apex.clone(), &self, order.len());
        let mut rest = order.as_slice();
        let mut group = Vec::new();
        while let Some((first, _)) = rest.split_first() {
            let name = self.name(*first);
            let len = rest
                .iter()
                .position(|at| self.name(*at) != name)
                .unwrap_or(rest.len());
            let (same, behind) = rest.split_at(len);
            rest = behind;
            group.clear();
            group.extend(same.iter().filter_map(|at| self.entry(*at)));
            making.name(name, &mut group, &self)?;
        }
        drop(order);
        // The largest part of what is not needed any more goes before the index comes.
        let Builder {
            apex,
            names,
            entries,
            data,
        } = self;
        drop((names, entries, data));
        making.finish(apex)
    }

    fn entry(&self, at: u32) -> Option<Entry> {
        self.entries.get(at as usize).copied()
    }

    fn name(&self, at: u32) -> &[u8] {
        self.entries
            .get(at as usize)
            .map_or(&[], |entry| name_of(&self.names, entry))
    }

    /// Numbers of the entries in canonical order of their names, within a name in the order they came.
    fn sorted(&self) -> Vec<u32> {
        let mut keyed = Vec::with_capacity(self.entries.len());
        let mut last = None;
        for (at, entry) in self.entries.iter().enumerate() {
            let key = match last {
                // The apex has no octets: what comes behind it starts where it does.
                Some((name, key)) if name == (entry.name, entry.name_len) => key,
                _ => sort_key(name_of(&self.names, entry)),
            };
            last = Some(((entry.name, entry.name_len), key));
            keyed.push((key, at as u32));
        }
        keyed.sort_unstable_by(|(a_key, a), (b_key, b)| {
            a_key.cmp(b_key).then_with(|| {
                let (a_name, b_name) = (self.name(*a), self.name(*b));
                match a_name == b_name {
                    true => a.cmp(b),
                    false => canonical_cmp(a_name, b_name),
                }
            })
        });
        keyed.into_iter().map(|(_, at)| at).collect()
    }
}

fn name_of<'b>(names: &'b [u8], entry: &Entry) -> &'b [u8] {
    let start = entry.name as usize;
    names
        .get(start..start + usize::from(entry.name_len))
        .unwrap_or_default()
}

fn data_of<'b>(data: &'b [u8], entry: &Entry) -> &'b [u8] {
    let behind = data.get(entry.data as usize..).unwrap_or_default();
    match behind.split_first_chunk::<2>() {
        Some((len, rest)) => rest
            .get(..usize::from(u16::from_be_bytes(*len)))
            .unwrap_or_default(),
        None => &[],
    }
}

/// The first sixteen octets of a name's canonical order: labels from the right, each with an end below every octet.
fn sort_key(relative: &[u8]) -> [u64; 2] {
    let mut starts = [0_u8; LABELS_MAX];
    let labels = label_starts(relative, &mut starts);
    let mut key = [0_u8; 16];
    let mut at = 0;
    let mut put = |octet: u8| {
        if let Some(slot) = key.get_mut(at) {
            *slot = octet;
        }
        at += 1;
        at < 16
    };
    'labels: for start in starts.iter().take(labels).rev() {
        let start = usize::from(*start);
        let len = relative.get(start).map_or(0, |len| usize::from(*len));
        for octet in relative.get(start + 1..start + 1 + len).unwrap_or_default() {
            // The end is 0; octets 0 and 1 become two, so that order is kept.
            let more = match octet {
                0 | 1 => put(1) && put(octet + 1),
                octet => put(*octet),
            };
            if !more {
                break 'labels;
            }
        }
        if !put(0) {
            break;
        }
    }
    let (high, low) = key.split_at(8);
    let number = |octets: &[u8]| {
        octets
            .iter()
            .fold(0, |number, octet| number << 8 | u64::from(*octet))
    };
    [number(high), number(low)]
}

//--- Making ---------------------------------------------------------------------------------------

/// A zone being made, name by name in canonical order.
struct Making {
    nodes: Vec<RawNode>,
    rrsets: Vec<RawRrset>,
    names: Vec<u8>,
    records: Vec<u8>,
    record_count: usize,
    // The node that is being made last, and those above it, from the apex.
    path: Vec<u32>,
    warnings: Warnings,
    apex: Name,
}

impl Making {
    fn new(apex: Name, from: &Builder, entries: usize) -> Making {
        let mut making = Making {
            nodes: Vec::with_capacity(entries + 2),
            rrsets: Vec::with_capacity(entries + 1),
            names: Vec::with_capacity(from.names.len()),
            records: Vec::with_capacity(from.data.len() + (RECORD_HEAD - 2) * entries),
            record_count: 0,
            path: vec![0],
            warnings: Warnings::default(),
            apex,
        };
        making.nodes.push(RawNode::default());
        making
    }

    fn raw(&self, number: u32) -> RawNode {
        self.nodes.get(number as usize).copied().unwrap_or_default()
    }

    /// Whether the node is above `relative`, whose labels start at `starts`.
    fn is_above(&self, number: u32, relative: &[u8], starts: &[u8]) -> bool {
        let raw = self.raw(number);
        let depth = usize::from(raw.labels);
        if depth > starts.len() {
            return false;
        }
        let start = match depth {
            0 => relative.len(),
            _ => starts
                .get(starts.len() - depth)
                .map_or(0, |start| usize::from(*start)),
        };
        let from = raw.name as usize;
        let name = self.names.get(from..from + usize::from(raw.name_len));
        relative.get(start..) == name
    }

    /// The next name in canonical order, with its records.
    fn name(
        &mut self,
        relative: &[u8],
        group: &mut [Entry],
        from: &Builder,
    ) -> Result<(), BuildError> {
        let mut starts = [0_u8; LABELS_MAX];
        let labels = label_starts(relative, &mut starts);
        let starts = starts.get(..labels).unwrap_or_default();
        while self.path.len() > 1
            && !self.is_above(self.path.last().copied().unwrap_or(0), relative, starts)
        {
            self.path.pop();
        }
        if labels > 0 {
            let at = self.names.len();
            self.names.extend_from_slice(relative);
            if self.names.len() > ARENA_OCTETS_MAX {
                return Err(BuildError::TooLarge);
            }
            // RFC 4592 §2.2.2: every name above one exists.
            while self.path.len() <= labels {
                let depth = self.path.len();
                let start = starts
                    .get(labels - depth)
                    .map_or(0, |start| usize::from(*start));
                self.node(at + start, relative.get(start..).unwrap_or_default(), depth);
            }
        }
        self.records(group, from)
    }

    fn node(&mut self, name: usize, relative: &[u8], labels: usize) {
        let parent = self.path.last().copied().unwrap_or(0);
        let above = self.raw(parent).flags;
        if relative.starts_with(b"\x01*")
            && let Some(parent) = self.nodes.get_mut(parent as usize)
        {
            parent.flags |= flag::WILDCARD;
        }
        let hidden = above & (flag::CUT | flag::DNAME | flag::OCCLUDED) != 0;
        self.path.push(self.nodes.len() as u32);
        self.nodes.push(RawNode {
            name: name as u32,
            rrsets: self.rrsets.len() as u32,
            parent,
            name_len: relative.len() as u8,
            labels: labels as u8,
            flags: if hidden { flag::OCCLUDED } else { 0 },
        });
    }

    /// The records of the node made last.
    fn records(&mut self, group: &mut [Entry], from: &Builder) -> Result<(), BuildError> {
        // Stable: within a type they stay in the order of the file. Signatures of one type lie together.
        group.sort_by_key(|entry| (entry.rtype, covered(entry, from)));
        let (mut has_cname, mut others, mut flags) = (false, 0, 0);
        let mut only_nsec3 = false;
        let mut only_other = false;
        for set in group.chunk_by(|a, b| a.rtype == b.rtype) {
            let Some(first) = set.first() else { continue };
            let rtype = Rtype(first.rtype);
            let count = self.rrset(rtype, set, from)?;
            match rtype {
                Rtype::CNAME => {
                    has_cname = true;
                    if count > 1 {
                        self.warn(
                            from,
                            first,
                            "has more than one CNAME: the first is followed",
                        );
                    }
                }
                Rtype::RRSIG | Rtype::NSEC => {}
                _ => others += 1,
            }
            match rtype {
                Rtype::NS => flags |= flag::CUT,
                Rtype::DNAME => {
                    flags |= flag::DNAME;
                    if count > 1 {
                        self.warn(
                            from,
                            first,
                            "has more than one DNAME: the first is followed",
                        );
                    }
                }
                Rtype::NSEC3 => only_nsec3 = true,
                Rtype::RRSIG => {}
                _ => only_other = true,
            }
            if rtype == Rtype::SOA && self.path.len() > 1 {
                self.warn(from, first, "has an SOA record, but is not the zone's name");
            }
        }
        if has_cname
            && others > 0
            && let Some(first) = group.first()
        {
            self.warn(
                from,
                first,
                "has a CNAME and other records (RFC 1034 §3.6.2)",
            );
        }
        let depth = self.path.len();
        if let Some(node) = self
            .path
            .last()
            .and_then(|number| self.nodes.get_mut(*number as usize))
        {
            // The apex's name servers are no delegation.
            node.flags |= match depth {
                1 => flags & !flag::CUT,
                _ => flags,
            };
            if only_nsec3 && !only_other && depth == 2 {
                node.flags |= flag::NSEC3;
            }
        }
        Ok(())
    }

    fn warn(&mut self, from: &Builder, entry: &Entry, what: &str) {
        let apex = &self.apex;
        self.warnings
            .push(|| format!("{} {what}", owner_text(from, entry, apex)));
    }

    fn rrset(&mut self, rtype: Rtype, set: &[Entry], from: &Builder) -> Result<u16, BuildError> {
        let start = self.records.len();
        // RFC 2181 §5.2: one TTL for an RRset, the lowest. Signatures are no RRset of their own (RFC 4034 §3).
        let lowest = set.iter().map(|entry| entry.ttl).min().unwrap_or(0);
        if rtype != Rtype::RRSIG
            && set.iter().any(|entry| entry.ttl != lowest)
            && let Some(first) = set.first()
        {
            let what =
                format!("has {rtype} records with several TTLs: the lowest, {lowest}, is theirs");
            self.warn(from, first, &what);
        }
        let mut seen = HashSet::new();
        let mut count = 0_usize;
        for (at, entry) in set.iter().enumerate() {
            let rdata = data_of(&from.data, entry);
            let is_double = match set.len() {
                1 => false,
                2..=COMPARED_MAX => set
                    .iter()
                    .take(at)
                    .any(|other| data_of(&from.data, other) == rdata),
                _ => !seen.insert(rdata),
            };
            // RFC 2181 §5: an RRset has no record twice.
            if is_double {
                continue;
            }
            count += 1;
            let ttl = if rtype == Rtype::RRSIG {
                entry.ttl
            } else {
                lowest
            };
            let [t0, t1] = rtype.0.to_be_bytes();
            let [c0, c1] = Class::IN.0.to_be_bytes();
            let [l0, l1, l2, l3] = ttl.to_be_bytes();
            let [n0, n1] = (rdata.len() as u16).to_be_bytes();
            let head = [0xc0, 12, t0, t1, c0, c1, l0, l1, l2, l3, n0, n1];
            self.records.extend_from_slice(&head);
            self.records.extend_from_slice(rdata);
        }
        if self.records.len() - start > RRSET_OCTETS_MAX {
            let owner = set
                .first()
                .map_or_else(String::new, |entry| owner_text(from, entry, &self.apex));
            return Err(BuildError::RrsetTooLarge { owner, rtype });
        }
        if self.records.len() > ARENA_OCTETS_MAX {
            return Err(BuildError::TooLarge);
        }
        self.record_count += count;
        self.rrsets.push(RawRrset {
            at: start as u32,
            // A record has twelve octets, so that an RRset has less than 6,000.
            count: count as u16,
            rtype: rtype.0,
        });
        Ok(count as u16)
    }

    /// Puts the ends and the index on, and reads the apex.
    fn finish(mut self, apex: Name) -> Result<(Contents, Warnings), BuildError> {
        self.nodes.push(RawNode {
            rrsets: self.rrsets.len() as u32,
            ..RawNode::default()
        });
        self.rrsets.push(RawRrset {
            at: self.records.len() as u32,
            ..RawRrset::default()
        });
        self.nodes.shrink_to_fit();
        self.rrsets.shrink_to_fit();
        self.names.shrink_to_fit();
        self.records.shrink_to_fit();
        let mut contents = Contents {
            apex,
            nodes: self.nodes,
            rrsets: self.rrsets,
            names: self.names,
            records: self.records,
            index: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            record_count: self.record_count,
            soa: Soa {
                ttl: 0,
                serial: 0,
                refresh: 0,
                retry: 0,
                expire: 0,
                minimum: 0,
            },
            apex_ns: Relative::default(),
            negative_soa: Relative::default(),
            chain: Chain::None,
        };
        contents.index = index(&contents);
        let soa = contents.apex().rrset(Rtype::SOA).ok_or(BuildError::NoSoa)?;
        if soa.count > 1 {
            return Err(BuildError::SeveralSoa);
        }
        let numbers = Soa::of(soa).ok_or(BuildError::Malformed)?;
        // RFC 2308 §3: the SOA of a denial lives no longer than its minimum says.
        let negative_ttl = numbers.ttl.min(numbers.minimum);
        let negative_soa = relative(soa, contents.apex.as_wire(), Some(negative_ttl));
        contents.soa = numbers;
        match contents.apex().rrset(Rtype::NS) {
            Some(ns) => contents.apex_ns = relative(ns, contents.apex.as_wire(), None),
            None => {
                let apex = &contents.apex;
                self.warnings
                    .push(|| format!("{apex} has no NS records (RFC 1034 §4.2.1)"));
            }
        }
        contents.negative_soa = negative_soa;
        contents.chain =
            Chain::of(&contents).map_err(|IterationsError(count)| BuildError::Iterations(count))?;
        Ok((contents, self.warnings))
    }
}

fn owner_text(from: &Builder, entry: &Entry, apex: &Name) -> String {
    let mut owner = NameBuf::new();
    let whole = owner
        .extend(name_of(&from.names, entry))
        .and_then(|()| owner.extend(apex.as_wire()));
    debug_assert!(whole.is_ok());
    name::display(owner.as_wire()).to_string()
}

/// The type that a signature is for; 0 of other records.
fn covered(entry: &Entry, from: &Builder) -> u16 {
    match data_of(&from.data, entry).first_chunk() {
        Some(covered) if entry.rtype == Rtype::RRSIG.0 => u16::from_be_bytes(*covered),
        _ => 0,
    }
}

/// Node numbers by name. The table has its size from the start, so that each name is hashed once.
fn index(contents: &Contents) -> HashTable<u32> {
    let count = contents.node_count();
    let mut index = HashTable::with_capacity(count);
    let hash = |number: &u32| contents.hasher.hash_one(contents.relative_name(*number));
    for number in 0..count as u32 {
        index.insert_unique(hash(&number), number, hash);
    }
    index
}

/// Records of the apex, with what ends in its name as pointers. Where the question's name ends in it is known for each query.
fn relative(rrset: Rrset<'_>, apex: &[u8], ttl: Option<u32>) -> Relative {
    let mut made = Relative {
        count: rrset.count,
        ..Relative::default()
    };
    for record in rrset.iter() {
        made.name(apex, apex);
        let Some(head) = record.wire.get(2..10) else {
            continue;
        };
        let from = made.wire.len();
        made.wire.extend_from_slice(head);
        if let (Some(ttl), Some(place)) = (ttl, made.wire.get_mut(from + 4..from + 8)) {
            place.copy_from_slice(&ttl.to_be_bytes());
        }
        made.wire.extend_from_slice(&[0, 0]);
        let data = made.wire.len();
        let mut rest = record.rdata;
        let names = names_in(rrset.rtype).map_or(0, |(_, names, _)| names);
        for _ in 0..names {
            let Some(len) = name::wire_len(rest) else {
                break;
            };
            let (name, behind) = rest.split_at(len);
            made.name(name, apex);
            rest = behind;
        }
        made.wire.extend_from_slice(rest);
        let len = (made.wire.len() - data) as u16;
        if let Some(place) = made.wire.get_mut(data - 2..data) {
            place.copy_from_slice(&len.to_be_bytes());
        }
    }
    made
}

impl Relative {
    /// Appends a name, ending in a pointer if it is within the apex.
    fn name(&mut self, name: &[u8], apex: &[u8]) {
        let lower = name.to_ascii_lowercase();
        // The root is shorter than a pointer.
        if apex.len() == 1 || !name::is_within(&lower, apex) {
            self.wire.extend_from_slice(name);
            return;
        }
        self.wire
            .extend_from_slice(name.get(..name.len() - apex.len()).unwrap_or_default());
        self.pointers.push(self.wire.len() as u16);
        self.wire.extend_from_slice(&[0xc0, 0]);
    }
}
