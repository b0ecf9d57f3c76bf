//! The store: finished messages in wire form, in shards; the oldest that was not used lately is the first to go.
//!
//! It knows keys, octets and order, and nothing of TTL rules (`age`) or of what may be kept (`mod`). A hit is one
//! hash, one shard's lock, one comparison and one copy; nothing is allocated.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::age::{self, Class};
use super::flight::Flight;
use crate::kit::clock::{self, Instant};
use crate::kit::query::{Facts, Query};
use crate::kit::response::{Response, Source};
use crate::kit::wire::{Class as QueryClass, Rcode, Rtype};

/// Shards at most: enough that two workers seldom meet in one, few enough that an empty store is small.
const SHARDS_MAX: usize = 256;
/// Octets of budget that a shard has at least, so that a message of 65,535 octets fits.
const SHARD_OCTETS_MIN: u64 = 256 << 10;
/// CoreDNS gives each of its 256 shards room for four entries at least.
const SHARD_ENTRIES_MIN: usize = 4;

/// Octets of heap for one entry beside its message: `lru`'s node with key, entry and two pointers, as malloc rounds it up.
const NODE_OCTETS: usize =
    heap_octets(size_of::<u64>() + size_of::<Entry>() + 2 * size_of::<usize>());
/// Octets that one place in `lru`'s table takes: two pointers and a control byte.
const PLACE_OCTETS: usize = 2 * size_of::<usize>() + 1;

/// Which of the two stores an answer belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Answers that answer.
    Success,
    /// NXDOMAIN, NODATA, SERVFAIL.
    Denial,
}

//--- Keys ------------------------------------------------------------------------------------------

const DO: u8 = 1;
const CD: u8 = 2;
/// Answers to queries without RD stand apart: what an upstream answers to those (a referral, say) is no answer to others.
const NO_RD: u8 = 4;
/// Of an entry: it answered since it was put in or spared. Not a part of the question.
const USED: u8 = 128;

/// Entries that are spared in a row before one goes, so that letting one go costs little even if all were used.
const SPARED_MAX: usize = 16;

/// What makes two questions the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'q> {
    /// Wire form, lower-cased.
    pub(super) qname: &'q [u8],
    pub(super) qtype: Rtype,
    pub(super) qclass: QueryClass,
    bits: u8,
    // The client's subnet (RFC 7871 §7.3): whatever is behind us may answer each one differently.
    ecs: &'q [u8],
}

impl<'q> Subject<'q> {
    /// The subject of a query as it stands.
    pub(super) fn of(query: &'q Facts) -> Subject<'q> {
        let mut bits = 0;
        if query.dnssec_ok() {
            bits |= DO;
        }
        if query.checking_disabled() {
            bits |= CD;
        }
        if !query.recursion_desired() {
            bits |= NO_RD;
        }
        Subject {
            qname: query.qname(),
            qtype: query.qtype(),
            qclass: query.qclass(),
            bits,
            ecs: match query.edns() {
                Some(_) => query.option(age::OPTION_ECS).unwrap_or_default(),
                None => &[],
            },
        }
    }

    /// The same question with RD set, if it is not: its answer serves both.
    pub(super) fn with_recursion(self) -> Option<Subject<'q>> {
        (self.bits & NO_RD != 0).then_some(Subject {
            bits: self.bits & !NO_RD,
            ..self
        })
    }

    /// Whether a client's subnet is part of it.
    pub(super) fn has_subnet(&self) -> bool {
        !self.ecs.is_empty()
    }
}

/// A subject's hash, seeded per process: nobody outside can make names collide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    /// With the client's subnet.
    pub(super) hash: u64,
    /// Without it: the same for all subnets that ask for one name.
    pub(super) base: u64,
}

/// Hashes are hashed already.
#[derive(Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by hashes.
pub(super) type HashedMap<T> = HashMap<u64, T, BuildHasherDefault<Hashed>>;

//--- Entries ---------------------------------------------------------------------------------------

/// One stored message, question in lower case, without OPT.
#[derive(Debug)]
pub(super) struct Entry {
    // TTL offsets (u16), EDNS options, the client's subnet, the message.
    octets: Box<[u8]>,
    stored_ms: u64,
    life: u32,
    /// Hits in a row without a longer pause; see `prefetch`.
    pub(super) hits: u32,
    /// When the last one was, in seconds of the store's clock.
    pub(super) last_hit: u32,
    /// No refresh before this second of the store's clock (`RECHECK`).
    pub(super) retry_at: u32,
    offsets_len: u16,
    options_len: u16,
    ecs_len: u8,
    bits: u8,
    rcode_high: u8,
    class: Class,
}

/// How the TTLs of a stored message are served.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ttls {
    /// Less this many seconds.
    Aged(u32),
    /// All of them this.
    Fixed(u32),
    /// As they were stored.
    Stored,
}

impl Entry {
    /// Makes an entry of a response whose TTLs are as they shall be stored. `None` if its question is not `subject`'s or it
    /// cannot be walked.
    pub(super) fn new(
        response: &Response,
        subject: &Subject<'_>,
        class: Class,
        life: u32,
        now_ms: u64,
    ) -> Option<Entry> {
        let wire = response.wire();
        let options_len = age::kept_options(response.options())
            .map(|option| option.len())
            .sum::<usize>();
        let ecs_len = u8::try_from(subject.ecs.len()).ok()?;
        let mut octets = Vec::with_capacity(
            2 * age::ttl_offsets(wire)?.count() + options_len + subject.ecs.len() + wire.len(),
        );
        let mut offsets_len = 0;
        for offset in age::ttl_offsets(wire)? {
            octets.extend_from_slice(&u16::try_from(offset).ok()?.to_be_bytes());
            offsets_len += 1;
        }
        for option in age::kept_options(response.options()) {
            octets.extend_from_slice(option);
        }
        octets.extend_from_slice(subject.ecs);
        let message = octets.len();
        octets.extend_from_slice(wire);
        octets
            .get_mut(message + 12..message + 12 + subject.qname.len())?
            .make_ascii_lowercase();
        let entry = Entry {
            octets: octets.into_boxed_slice(),
            stored_ms: now_ms,
            life,
            hits: 0,
            last_hit: 0,
            retry_at: 0,
            offsets_len,
            options_len: u16::try_from(options_len).ok()?,
            ecs_len,
            bits: subject.bits,
            rcode_high: (response.rcode().0 >> 4) as u8,
            class,
        };
        entry.matches(subject).then_some(entry)
    }

    fn message_at(&self) -> usize {
        2 * usize::from(self.offsets_len)
            + usize::from(self.options_len)
            + usize::from(self.ecs_len)
    }

    /// The message.
    pub(super) fn wire(&self) -> &[u8] {
        self.octets.get(self.message_at()..).unwrap_or_default()
    }

    fn ecs(&self) -> &[u8] {
        let end = self.message_at();
        self.octets
            .get(end - usize::from(self.ecs_len)..end)
            .unwrap_or_default()
    }

    fn options(&self) -> &[u8] {
        let start = 2 * usize::from(self.offsets_len);
        self.octets
            .get(start..start + usize::from(self.options_len))
            .unwrap_or_default()
    }

    fn offsets(&self) -> impl Iterator<Item = usize> {
        let offsets = self.octets.get(..2 * usize::from(self.offsets_len));
        offsets
            .unwrap_or_default()
            .as_chunks::<2>()
            .0
            .iter()
            .map(|offset| usize::from(u16::from_be_bytes(*offset)))
    }

    /// Whether this is the answer to that question: every part is compared, a hash alone decides nothing.
    pub(super) fn matches(&self, subject: &Subject<'_>) -> bool {
        let name_end = 12 + subject.qname.len();
        let wire = self.wire();
        let [t0, t1] = subject.qtype.0.to_be_bytes();
        let [c0, c1] = subject.qclass.0.to_be_bytes();
        self.bits & !USED == subject.bits
            && wire.get(12..name_end) == Some(subject.qname)
            && wire.get(name_end..name_end + 4) == Some(&[t0, t1, c0, c1])
            && self.ecs() == subject.ecs
    }

    /// What kind of answer it is.
    pub(super) fn class(&self) -> Class {
        self.class
    }

    /// Seconds it was stored for.
    pub(super) fn life(&self) -> u32 {
        self.life
    }

    /// Seconds since it was stored, whole ones.
    pub(super) fn age(&self, now_ms: u64) -> u32 {
        u32::try_from(now_ms.saturating_sub(self.stored_ms) / 1000).unwrap_or(u32::MAX)
    }

    /// Whether its time is not over.
    pub(super) fn is_fresh(&self, now_ms: u64) -> bool {
        self.age(now_ms) < self.life
    }

    /// The response made of it. No allocation for a message that fits the query's buffer.
    pub(super) fn answer(&self, query: Query, ttls: Ttls, source: Source) -> Response {
        let mut response = query.answer_wire(self.wire(), source);
        if self.rcode_high != 0 {
            let low = response.rcode().0 & 15;
            response.set_rcode(Rcode(u16::from(self.rcode_high) << 4 | low));
        }
        if self.options_len != 0 {
            response.add_options_wire(self.options());
        }
        let reply = response.wire_mut();
        for offset in self.offsets() {
            if let Some(field) = reply
                .get_mut(offset..)
                .and_then(<[u8]>::first_chunk_mut::<4>)
            {
                let stored = u32::from_be_bytes(*field);
                let served = match ttls {
                    Ttls::Aged(age) => stored.saturating_sub(age),
                    Ttls::Fixed(ttl) => ttl,
                    Ttls::Stored => stored,
                };
                *field = served.to_be_bytes();
            }
        }
        response
    }

    fn octets(&self) -> usize {
        NODE_OCTETS + heap_octets(self.octets.len())
    }
}

/// What malloc takes for this many octets: eight of its own, rounded up to sixteen, 32 at least.
const fn heap_octets(octets: usize) -> usize {
    let rounded = (octets + 8).next_multiple_of(16);
    if rounded < 32 { 32 } else { rounded }
}

//--- Shards ----------------------------------------------------------------------------------------

type Lru = LruCache<u64, Entry, BuildHasherDefault<Hashed>>;

/// One of the two stores in one shard.
struct Half {
    entries: Lru,
    octets: usize,
    // The most entries there have been: the table never shrinks.
    most: usize,
    capacity: Option<usize>,
}

impl Half {
    fn new(capacity: Option<usize>) -> Half {
        Half {
            entries: LruCache::unbounded_with_hasher(BuildHasherDefault::default()),
            octets: 0,
            most: 0,
            capacity,
        }
    }

    fn octets(&self) -> usize {
        self.octets + table_octets(self.most)
    }

    fn put(&mut self, hash: u64, entry: Entry) {
        self.octets += entry.octets();
        if let Some(old) = self.entries.put(hash, entry) {
            self.octets -= old.octets();
        }
        self.most = self.most.max(self.entries.len());
    }

    fn remove(&mut self, hash: u64) {
        if let Some(old) = self.entries.pop(&hash) {
            self.octets -= old.octets();
        }
    }

    /// Lets one go: the oldest that did not answer since it was put in or spared (second chance, also called CLOCK). That is nearly the
    /// least recently used one, and a hit need not move its entry: it writes one bit, once, where moving would write to its neighbours
    /// in the list, which another worker may have just used.
    fn evict(&mut self) -> bool {
        for _ in 0..SPARED_MAX {
            let Some((&hash, entry)) = self.entries.peek_lru() else {
                return false;
            };
            if entry.bits & USED == 0 {
                break;
            }
            if let Some(entry) = self.entries.get_mut(&hash) {
                entry.bits &= !USED;
            }
        }
        match self.entries.pop_lru() {
            Some((_, old)) => {
                self.octets -= old.octets();
                true
            }
            None => false,
        }
    }
}

/// Octets of a table that has held `most` entries: hashbrown fills seven eighths of a power of two. More than half full, it doubles
/// once entries come and go, since the places of those that went are not all free again; counted from the start, that is no surprise.
fn table_octets(most: usize) -> usize {
    match most {
        0 => 0,
        1..=3 => 4 * PLACE_OCTETS,
        _ => (most * 16 / 7 + 1).next_power_of_two() * PLACE_OCTETS,
    }
}

/// Entries that had to go.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Evicted {
    pub(super) success: u32,
    pub(super) denial: u32,
}

/// A shard, held.
pub(super) type Locked<'s> = MutexGuard<'s, Shard>;

/// A part of the store under one lock, with the questions under way that belong to it.
pub(super) struct Shard {
    success: Half,
    denial: Half,
    octets_max: usize,
    /// Questions under way, by hash.
    pub(super) flights: HashedMap<Flight>,
}

impl Shard {
    fn half(&mut self, kind: Kind) -> &mut Half {
        match kind {
            Kind::Success => &mut self.success,
            Kind::Denial => &mut self.denial,
        }
    }

    /// The entry for this question, which counts as a use.
    pub(super) fn get(
        &mut self,
        kind: Kind,
        key: Key,
        subject: &Subject<'_>,
    ) -> Option<&mut Entry> {
        let entries = &mut self.half(kind).entries;
        // The store of denials is often empty, and a look into its table costs a cache line.
        if entries.is_empty() {
            return None;
        }
        let entry = entries
            .peek_mut(&key.hash)
            .filter(|entry| entry.matches(subject))?;
        // Most have it already, and what is only read stays in every core's cache.
        if entry.bits & USED == 0 {
            entry.bits |= USED;
        }
        Some(entry)
    }

    /// The same without counting as a use.
    pub(super) fn peek(&self, kind: Kind, key: Key, subject: &Subject<'_>) -> Option<&Entry> {
        let half = match kind {
            Kind::Success => &self.success,
            Kind::Denial => &self.denial,
        };
        if half.entries.is_empty() {
            return None;
        }
        half.entries
            .peek(&key.hash)
            .filter(|entry| entry.matches(subject))
    }

    /// No refresh of what is there before this second of the store's clock.
    pub(super) fn retry_at(&mut self, key: Key, second: u32) {
        for half in [&mut self.success, &mut self.denial] {
            if let Some(entry) = half.entries.peek_mut(&key.hash) {
                entry.retry_at = second;
            }
        }
    }

    /// Puts an entry in and lets others go until budget and capacity are kept. An entry that alone is too large is dropped.
    pub(super) fn put(&mut self, kind: Kind, key: Key, entry: Entry) -> Evicted {
        let mut evicted = Evicted::default();
        if entry.octets() > self.octets_max {
            self.remove(kind, key);
            return evicted;
        }
        let half = self.half(kind);
        half.put(key.hash, entry);
        if half
            .capacity
            .is_some_and(|capacity| half.entries.len() > capacity)
            && half.evict()
        {
            match kind {
                Kind::Success => evicted.success += 1,
                Kind::Denial => evicted.denial += 1,
            }
        }
        while self.octets() > self.octets_max {
            // The larger half gives way: a flood of denials takes at most half of the memory from the answers.
            let from_denial = self.denial.octets > self.success.octets;
            let (half, count) = if from_denial {
                (&mut self.denial, &mut evicted.denial)
            } else {
                (&mut self.success, &mut evicted.success)
            };
            if !half.evict() {
                break;
            }
            *count += 1;
        }
        evicted
    }

    /// Removes the entry with this key.
    pub(super) fn remove(&mut self, kind: Kind, key: Key) {
        self.half(kind).remove(key.hash);
    }

    fn octets(&self) -> usize {
        self.success.octets() + self.denial.octets()
    }
}

//--- The store -------------------------------------------------------------------------------------

/// How much the store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    /// Octets for everything, both stores together.
    pub(super) memory: u64,
    /// Entries of the success store, if written.
    pub(super) success: Option<usize>,
    /// Entries of the denial store, if written.
    pub(super) denial: Option<usize>,
}

/// Both stores of one plugin instance. It survives reloads.
pub(super) struct Store {
    shards: Box<[Mutex<Shard>]>,
    hasher: foldhash::quality::RandomState,
    // Ages are counted from here: the system's clock may step as it likes.
    epoch: Instant,
    limits: Limits,
}

impl Store {
    /// An empty store; memory is taken as it fills.
    pub(super) fn new(limits: Limits) -> Store {
        let shards = usize::try_from(limits.memory / SHARD_OCTETS_MIN)
            .unwrap_or(SHARDS_MAX)
            .clamp(1, SHARDS_MAX);
        // A power of two, so that a shard is a few bits of the hash.
        let shards = 1 << shards.ilog2();
        let octets_max = usize::try_from(limits.memory).unwrap_or(usize::MAX) / shards;
        let capacity = |written: Option<usize>| {
            let of_256 = |written: usize| (written / SHARDS_MAX).max(SHARD_ENTRIES_MIN);
            written.map(|written| of_256(written).saturating_mul(SHARDS_MAX / shards))
        };
        Store {
            shards: (0..shards)
                .map(|_| {
                    Mutex::new(Shard {
                        success: Half::new(capacity(limits.success)),
                        denial: Half::new(capacity(limits.denial)),
                        octets_max,
                        flights: HashedMap::default(),
                    })
                })
                .collect(),
            hasher: foldhash::quality::RandomState::default(),
            epoch: clock::now(),
            limits,
        }
    }

    /// A moment in milliseconds of the store's clock.
    pub(super) fn ms(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The key of a subject.
    pub(super) fn key(&self, subject: &Subject<'_>) -> Key {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(subject.qname);
        hasher.write_u64(
            u64::from(subject.bits) << 32
                | u64::from(subject.qtype.0) << 16
                | u64::from(subject.qclass.0),
        );
        let base = hasher.finish();
        let hash = if subject.ecs.is_empty() {
            base
        } else {
            hasher.write(subject.ecs);
            // The shard's bits stay: all subnets of a name share a shard, so that their questions can be counted.
            hasher.finish() & !SHARD_BITS | base & SHARD_BITS
        };
        // 0 is no note (see `Edit::edit_noted`).
        Key {
            hash: hash.max(1),
            base,
        }
    }

    /// The shard of a hash; a busy one is waited for.
    pub(super) fn shard(&self, hash: u64) -> Locked<'_> {
        let number = (hash & SHARD_BITS) >> SHARD_SHIFT;
        // The mask keeps the number in range; there is at least one shard.
        let number = number as usize & (self.shards.len() - 1);
        self.shards[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries of one kind.
    pub(super) fn len(&self, kind: Kind) -> usize {
        self.sum(|shard| shard.half(kind).entries.len())
    }

    /// Octets that it takes, by its own account.
    pub(super) fn octets(&self) -> usize {
        self.sum(|shard| shard.octets())
    }

    /// The budget in octets.
    pub(super) fn octets_max(&self) -> u64 {
        self.limits.memory
    }

    // One shard's lock at a time, each for a few instructions.
    fn sum(&self, count: impl Fn(&mut Shard) -> usize) -> usize {
        self.shards
            .iter()
            .map(|shard| count(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
            .sum()
    }
}

// Neither the lowest bits nor the highest seven, which hashbrown uses.
const SHARD_SHIFT: u32 = 40;
const SHARD_BITS: u64 = (SHARDS_MAX as u64 - 1) << SHARD_SHIFT;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixtures::{query, response, wire};
    use super::*;
    use crate::kit::wire::message;

    const LIMITS: Limits = Limits {
        memory: 1 << 20,
        success: None,
        denial: None,
    };

    fn entry(query: Query, ttl: u32) -> (Entry, Query) {
        let record = format!(
            "an {} {ttl} A 192.0.2.1",
            crate::kit::wire::name::display(query.qname())
        );
        let response = response(query, Rcode::NOERROR, &[&record]);
        let entry = Entry::new(
            &response,
            &Subject::of(response.query()),
            Class::Answer,
            ttl,
            0,
        );
        (entry.expect("a whole message"), response.into_query())
    }

    fn put(store: &Store, kind: Kind, name: &str, words: &[&str]) -> Evicted {
        let (entry, query) = entry(query(name, Rtype::A, words), 60);
        let key = store.key(&Subject::of(&query));
        store.shard(key.hash).put(kind, key, entry)
    }

    fn has(store: &Store, kind: Kind, name: &str, words: &[&str]) -> bool {
        let query = query(name, Rtype::A, words);
        let subject = Subject::of(&query);
        let key = store.key(&subject);
        store.shard(key.hash).get(kind, key, &subject).is_some()
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let all: &[&[&str]] = &[
            &[],
            &["do"],
            &["cd"],
            &["norec"],
            &["ecs=a"],
            &["ecs=b"],
            &["do", "cd"],
        ];
        for stored in all {
            let store = Store::new(LIMITS);
            put(&store, Kind::Success, "www.example.org", stored);
            for asked in all {
                let found = has(&store, Kind::Success, "WWW.example.ORG", asked);
                assert_eq!(found, stored == asked, "{stored:?} {asked:?}");
            }
            assert!(!has(&store, Kind::Success, "ww.example.org", stored));
            assert!(!has(&store, Kind::Denial, "www.example.org", stored));
        }
    }

    #[test]
    fn a_hash_alone_decides_nothing() {
        let store = Store::new(LIMITS);
        let (entry, stored) = entry(query("a.example.org", Rtype::A, &[]), 60);
        let key = store.key(&Subject::of(&stored));
        let mut shard = store.shard(key.hash);
        shard.put(Kind::Success, key, entry);
        for other in [
            query("b.example.org", Rtype::A, &[]),
            query("a.example.org", Rtype::AAAA, &[]),
            query("a.example.org", Rtype::A, &["ecs=a"]),
        ] {
            assert!(
                shard
                    .get(Kind::Success, key, &Subject::of(&other))
                    .is_none()
            );
        }
    }

    #[test]
    fn subnets_of_one_name_share_a_shard() {
        let store = Store::new(Limits {
            memory: 1 << 28,
            ..LIMITS
        });
        assert_eq!(store.shards.len(), 256);
        let plain = query("www.example.org", Rtype::A, &[]);
        let plain = store.key(&Subject::of(&plain));
        for n in 0..100 {
            let other = query("www.example.org", Rtype::A, &[&format!("ecs={n}")]);
            let other = store.key(&Subject::of(&other));
            assert_eq!(other.hash & SHARD_BITS, plain.hash & SHARD_BITS);
            assert_eq!(other.base, plain.base);
            assert_ne!(other.hash, plain.hash);
        }
    }

    #[test]
    fn the_budget_is_kept_and_what_is_used_stays() {
        let store = Store::new(LIMITS);
        let mut evicted = 0;
        for n in 0..20_000 {
            evicted += put(&store, Kind::Success, &format!("h{n}.example.org"), &[]).success;
            assert!(
                has(&store, Kind::Success, "h0.example.org", &[]),
                "used all the time"
            );
        }
        assert!(store.octets() as u64 <= LIMITS.memory);
        assert_eq!(store.len(Kind::Success) + evicted as usize, 20_000);
        assert!(has(&store, Kind::Success, "h19999.example.org", &[]));
        assert!(!has(&store, Kind::Success, "h1.example.org", &[]));
    }

    #[test]
    fn a_flood_of_denials_leaves_half_to_the_answers() {
        let store = Store::new(LIMITS);
        for n in 0..20_000 {
            put(&store, Kind::Success, &format!("h{n}.example.org"), &[]);
        }
        let before = store.len(Kind::Success);
        for n in 0..20_000 {
            put(&store, Kind::Denial, &format!("r{n}.example.org"), &[]);
        }
        assert!(store.len(Kind::Success) * 10 >= before * 4);
        assert!(store.len(Kind::Denial) * 10 >= before * 3);
    }

    #[test]
    fn a_written_capacity_is_obeyed_in_multiples_of_256_and_1024_at_least() {
        for (written, held) in [(0, 1024), (1500, 1280), (10_000, 9984)] {
            let store = Store::new(Limits {
                memory: 1 << 28,
                denial: Some(written),
                ..LIMITS
            });
            for n in 0..30_000 {
                put(&store, Kind::Denial, &format!("h{n}.example.org"), &[]);
            }
            assert_eq!(store.len(Kind::Denial), held);
        }
    }

    #[test]
    fn an_entry_of_the_benchmark_costs_at_most_230_octets() {
        let store = Store::new(Limits {
            memory: 1 << 30,
            ..LIMITS
        });
        for n in 0..100_000 {
            put(&store, Kind::Success, &format!("h{n:06}.example.org"), &[]);
        }
        assert!(
            store.octets() / 100_000 <= 230,
            "{}",
            store.octets() / 100_000
        );
    }

    #[test]
    fn an_entry_may_be_larger_than_others_but_not_than_its_shard() {
        let store = Store::new(LIMITS);
        let (mut entry, stored) = entry(query("a.example.org", Rtype::A, &[]), 60);
        let key = store.key(&Subject::of(&stored));
        entry.octets = vec![0; LIMITS.memory as usize].into();
        assert_eq!(
            store.shard(key.hash).put(Kind::Success, key, entry),
            Evicted::default()
        );
        assert_eq!(store.len(Kind::Success), 0);
    }

    #[test]
    fn options_about_the_answer_are_kept_and_others_not() {
        let mut response = response(
            query("a.example.org", Rtype::A, &["do"]),
            Rcode::SERVFAIL,
            &[],
        );
        response.add_option(3, b"nsid");
        response.add_option(15, &[0, 22]);
        let entry = Entry::new(
            &response,
            &Subject::of(response.query()),
            Class::Failure,
            5,
            0,
        );
        let answer = entry.expect("a whole message").answer(
            response.into_query(),
            Ttls::Aged(0),
            Source::Cache,
        );
        assert_eq!(answer.options(), [0, 15, 0, 2, 0, 22]);
    }

    proptest! {
        #[test]
        fn a_ttl_never_rises(ttl in 0..=u32::MAX, stored_ms in 0..1u64 << 40, pauses in proptest::collection::vec(0..5_000_000u64, 1..20)) {
            let store = Store::new(LIMITS);
            let (mut entry, mut query) = entry(query("a.example.org", Rtype::A, &[]), ttl);
            entry.stored_ms = stored_ms;
            let (mut now_ms, mut last) = (stored_ms, ttl);
            for pause in pauses {
                now_ms += pause;
                let response = entry.answer(query, Ttls::Aged(entry.age(now_ms)), Source::Cache);
                let served = message::records(response.wire()).unwrap().next().unwrap().unwrap().ttl;
                prop_assert!(served <= last);
                prop_assert_eq!(served == 0, entry.age(now_ms) >= ttl);
                last = served;
                query = response.into_query();
            }
            let _ = store;
        }
    }

    #[test]
    fn the_name_is_stored_in_lower_case() {
        let (entry, _) = entry(query("WWW.Example.ORG", Rtype::A, &[]), 60);
        assert_eq!(entry.wire()[12..][..17], wire("www.example.org"));
    }
}
