//! [`Tree`]: everything known below a prefix, and the answers made from it.
//!
//! ```text
//!   keys:   one sorted map, path -> Record          what was heard; subtrees are ranges of it
//!   shards: 256 tables, name -> Entry               which names exist, and their finished answers
//! ```
//! A question takes its shard's lock, finds the entry and copies the finished answer. An answer that is not there yet is made from the keys
//! under their read lock and then left in its entry. A change of a key takes away the answers of its name and of every name above it, since
//! a name answers for its subtree; nothing else is touched, however large the tree is. A name without an entry does not exist.
//!
//! A *path* is a key without its prefix: `org/example/www` for `/skydns/org/example/www`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use hashbrown::HashTable;

use super::addresses::{Address, Addresses};
use super::record::{MALFORMED, Record};
use crate::kit::wire::name::{LABEL_OCTETS_MAX, NAME_OCTETS_MAX, NameBuf};

/// Tables that names are spread over, by hash: a worker that waits for another at one of them is rare.
const SHARDS: usize = 256;
/// Octets of finished answers that are kept, over all names: enough for a million names of one address each, asked for A and AAAA.
const ANSWERS_OCTETS_MAX: usize = 128 << 20;
/// Deleted keys that are remembered for the serials of zones that are asked for later: what a reload adds.
const DELETED_MAX: usize = 10_000;
/// Segments of a path that are names; a domain name has at most 127 labels.
const LABELS_MAX: usize = 127;

/// A key's new value; `None`: it is gone.
pub(super) struct Change {
    /// Its path.
    pub(super) path: Box<[u8]>,
    /// What it is now.
    pub(super) record: Option<Record>,
    /// The revision of the change.
    pub(super) revision: i64,
}

/// A key's address before and after a change.
struct Move {
    path: Box<[u8]>,
    old: Option<Address>,
    new: Option<Address>,
}

/// See the module.
pub(super) struct Tree {
    keys: RwLock<Keys>,
    shards: Box<[Mutex<Shard>]>,
    hasher: foldhash::quality::RandomState,
    // Moves with every change, behind the keys and before the answers.
    changes: AtomicU64,
    answers_octets: AtomicUsize,
    // A complete list has been read once.
    loaded: AtomicBool,
    // The newest revision of each zone that asked for it, by path.
    serials: RwLock<HashMap<Box<[u8]>, Arc<AtomicI64>>>,
    // What was deleted last, for zones that ask later.
    deleted: Mutex<VecDeque<(Box<[u8]>, i64)>>,
    views: Mutex<Vec<Box<str>>>,
    // None until somebody answers reverse names from addresses. Locked before the keys, or without them.
    addresses: RwLock<Option<Addresses>>,
    has_addresses: AtomicBool,
    records: AtomicUsize,
    malformed: AtomicUsize,
}

/// The keys, sorted.
pub(super) type Keys = BTreeMap<Box<[u8]>, Record>;

/// A part of the names.
#[derive(Default)]
pub(super) struct Shard {
    entries: HashTable<Entry>,
}

/// A name that exists: keys at it or below it.
pub(super) struct Entry {
    // Wire form, lower-case.
    name: Box<[u8]>,
    // Keys at or below it.
    keys: u32,
    /// Differs after its answers have been taken away.
    pub(super) version: u32,
    answers: Option<Box<Finished>>,
}

/// A finished answer, everything behind the question: its names point into the question or into itself.
pub(super) struct Finished {
    next: Option<Box<Finished>>,
    /// For whom and for which question it was made.
    pub(super) of: Of,
    /// The state of [`Tree::changes`] it holds for; 0: until it is taken away.
    pub(super) valid: u64,
    /// Records by section. Nothing at all is NODATA.
    pub(super) counts: [u16; 3],
    /// The records.
    pub(super) wire: Box<[u8]>,
}

/// What a finished answer belongs to, beside its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Of {
    /// The view: see [`Tree::view`].
    pub(super) view: u16,
    /// The type asked for, or 0 for all types that no record has.
    pub(super) qtype: u16,
    /// Not of the name itself but of those below it that a wildcard answers for.
    pub(super) for_wildcard: bool,
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree {
            keys: RwLock::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: foldhash::quality::RandomState::default(),
            changes: AtomicU64::new(1),
            answers_octets: AtomicUsize::new(0),
            loaded: AtomicBool::new(false),
            serials: RwLock::default(),
            deleted: Mutex::default(),
            views: Mutex::default(),
            addresses: RwLock::default(),
            has_addresses: AtomicBool::new(false),
            records: AtomicUsize::new(0),
            malformed: AtomicUsize::new(0),
        }
    }

    //--- Reading ------------------------------------------------------------------------------

    /// Whether a complete list has been read once.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// The hash of a name, lower-cased wire form.
    pub(super) fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// The table that a name is in. Hold it for a copy, not for more.
    pub(super) fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The low bits choose within the table.
        let at = (hash >> 48) as usize % SHARDS;
        self.shards
            .get(at)
            .unwrap_or(&self.shards[0])
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys, as long as it is held.
    pub(super) fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves with every change: an answer that needed other names than its own holds as long as this stands.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Keys there are.
    pub(super) fn records(&self) -> usize {
        self.records.load(Ordering::Relaxed)
    }

    /// Keys whose value could not be read.
    pub(super) fn malformed(&self) -> usize {
        self.malformed.load(Ordering::Relaxed)
    }

    /// The number of a view: what else an answer depends on (zones, how subtrees are read), as text. The same text has the same number.
    pub(super) fn view(&self, text: &str) -> u16 {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match views.iter().position(|view| **view == *text) {
            Some(at) => at,
            None => {
                views.push(text.into());
                views.len() - 1
            }
        };
        // Reloads with ever new zones would use the numbers up; then all answers are made anew once.
        if at > usize::from(u16::MAX) {
            views.clear();
            drop(views);
            self.forget_answers();
            return self.view(text);
        }
        at as u16
    }

    fn forget_answers(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in shard.entries.iter_mut() {
                self.forget(entry);
            }
        }
    }

    /// The newest revision among the keys of the zone at `path`, and from now on.
    pub(super) fn serial(&self, path: &[u8]) -> Arc<AtomicI64> {
        let mut serials = self.serials.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(serial) = serials.get(path) {
            return Arc::clone(serial);
        }
        let newest = subtree(&self.keys(), path)
            .map(|(_, record)| record.revision)
            .max();
        let deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        let deleted = deleted
            .iter()
            .filter(|(gone, _)| is_at_or_below(gone, path));
        let newest = newest.max(deleted.map(|(_, revision)| *revision).max());
        let serial = Arc::new(AtomicI64::new(newest.unwrap_or(0)));
        serials.insert(path.into(), Arc::clone(&serial));
        serial
    }

    /// The serials there are, to be kept over a restart.
    pub(super) fn serials(&self) -> Vec<(Box<[u8]>, i64)> {
        let serials = self.serials.read().unwrap_or_else(PoisonError::into_inner);
        let each = serials.iter();
        each.map(|(path, serial)| (path.clone(), serial.load(Ordering::Relaxed)))
            .collect()
    }

    /// Serials from before a restart: they do not go back.
    pub(super) fn raise_serials(&self, known: &[(Box<[u8]>, i64)]) {
        let serials = self.serials.read().unwrap_or_else(PoisonError::into_inner);
        for (path, revision) in known {
            if let Some(serial) = serials.get(path) {
                serial.fetch_max(*revision, Ordering::Relaxed);
            }
        }
    }

    /// A key was deleted at this revision, before the tree knew it.
    pub(super) fn was_deleted(&self, path: &[u8], revision: i64) {
        self.note_deleted(path.into(), revision);
        self.advance_serials(path, revision);
    }

    fn note_deleted(&self, path: Box<[u8]>, revision: i64) {
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        if deleted.len() >= DELETED_MAX {
            deleted.pop_front();
        }
        deleted.push_back((path, revision));
    }

    /// Which keys have which addresses, as long as it is held; [`Tree::keys`] may be taken while it is, not before. None unless
    /// [`Tree::index_addresses`] was called.
    pub(super) fn addresses(&self) -> RwLockReadGuard<'_, Option<Addresses>> {
        self.addresses
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on keys are found by their addresses too.
    pub(super) fn index_addresses(&self) {
        let mut addresses = self
            .addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if addresses.is_some() {
            return;
        }
        // Before the keys are read: whoever changes one after that sees it.
        self.has_addresses.store(true, Ordering::Release);
        let mut index = Addresses::default();
        let mut names = Vec::new();
        for (path, record) in self.keys().iter() {
            if let Some(address) = Address::of(&record.host)
                && index.insert(address, path)
            {
                names.push(address);
            }
        }
        *addresses = Some(index);
        for address in names {
            self.touch_reverse(address, 1);
        }
    }

    /// Leaves a finished answer at its name, unless the name has changed since `version`.
    pub(super) fn keep(&self, hash: u64, name: &[u8], version: u32, mut answer: Box<Finished>) {
        let octets = answer.octets();
        if self.answers_octets.load(Ordering::Relaxed) + octets > ANSWERS_OCTETS_MAX {
            return;
        }
        let mut shard = self.shard(hash);
        let Some(entry) = shard.find_mut(hash, name) else {
            return;
        };
        if entry.version != version {
            return;
        }
        // An older one of the same question (another state of the tree) goes.
        let mut at = &mut entry.answers;
        while let Some(old) = at {
            if old.of == answer.of {
                self.answers_octets
                    .fetch_sub(old.octets(), Ordering::Relaxed);
                *at = old.next.take();
                break;
            }
            at = &mut at.as_mut().expect("just matched").next;
        }
        answer.next = entry.answers.take();
        entry.answers = Some(answer);
        self.answers_octets.fetch_add(octets, Ordering::Relaxed);
    }

    //--- Writing: one writer at a time -----------------------------------------------------------

    /// Applies changes: readers see all of them, or for a moment some of the finished answers from before.
    pub(super) fn apply(&self, changes: Vec<Change>) {
        // What became of the number of keys at each path: +1, 0 or -1.
        let mut effects: Vec<(Box<[u8]>, i8, i64)> = Vec::with_capacity(changes.len());
        let mut moves: Vec<Move> = Vec::new();
        {
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            let has_addresses = self.has_addresses.load(Ordering::Acquire);
            let address = |record: Option<&Record>| record.and_then(|it| Address::of(&it.host));
            for Change {
                path,
                record,
                revision,
            } in changes
            {
                if has_addresses {
                    let (old, new) = (address(keys.get(&path)), address(record.as_ref()));
                    if old.is_some() || new.is_some() {
                        moves.push(Move {
                            path: path.clone(),
                            old,
                            new,
                        });
                    }
                }
                let (effect, path) = match record {
                    Some(record) => {
                        let kept = path.clone();
                        self.count(&record, 1);
                        match keys.insert(path, record) {
                            Some(old) => {
                                self.count(&old, -1);
                                (0, kept)
                            }
                            None => (1, kept),
                        }
                    }
                    None => match keys.remove(&path) {
                        Some(old) => {
                            self.count(&old, -1);
                            (-1, path)
                        }
                        None => continue,
                    },
                };
                effects.push((path, effect, revision));
            }
            self.changes.fetch_add(1, Ordering::Release);
        }
        self.move_addresses(moves);
        for (path, effect, revision) in effects {
            self.touch(&path, effect);
            self.advance_serials(&path, revision);
            if effect < 0 {
                self.note_deleted(path, revision);
            }
        }
    }

    /// A complete list has been read.
    pub(super) fn set_loaded(&self) {
        self.loaded.store(true, Ordering::Release);
    }

    fn count(&self, record: &Record, by: isize) {
        self.records.fetch_add(by as usize, Ordering::Relaxed);
        if record.is(MALFORMED) {
            self.malformed.fetch_add(by as usize, Ordering::Relaxed);
        }
    }

    /// Takes away the answers of a path's name and of all above it, and counts a key that came or went.
    fn touch(&self, path: &[u8], effect: i8) {
        let mut names = Names::of(path);
        while let Some(name) = names.next() {
            self.touch_name(name, effect);
        }
    }

    fn touch_name(&self, name: &[u8], effect: i8) {
        let hash = self.hash(name);
        let mut shard = self.shard(hash);
        if effect > 0 {
            let entry = shard.make(hash, name, &self.hasher);
            entry.keys = entry.keys.saturating_add(1);
            self.forget(entry);
        } else if let Some(entry) = shard.find_mut(hash, name) {
            self.forget(entry);
            if effect < 0 {
                entry.keys = entry.keys.saturating_sub(1);
                if entry.keys == 0 {
                    shard.remove(hash, name, &self.hasher);
                }
            }
        }
    }

    /// Keys' addresses before and after a change.
    fn move_addresses(&self, moves: Vec<Move>) {
        if moves.is_empty() {
            return;
        }
        let mut addresses = self
            .addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(index) = addresses.as_mut() else {
            return;
        };
        for Move { path, old, new } in moves {
            if let Some(old) = old {
                let is_gone = new != Some(old) && index.remove(old, &path);
                self.touch_reverse(old, if is_gone { -1 } else { 0 });
            }
            if let Some(new) = new.filter(|new| old != Some(*new)) {
                let is_new = index.insert(new, &path);
                self.touch_reverse(new, i8::from(is_new));
            }
        }
    }

    /// Takes away the answers of an address's reverse name, and counts a key that came or went. Names above it have no entry for this.
    fn touch_reverse(&self, address: Address, effect: i8) {
        if let Some(name) = address.reverse() {
            self.touch_name(name.as_wire(), effect);
        }
    }

    fn forget(&self, entry: &mut Entry) {
        // From the tree's count, not the entry's own: a name that went and came back must not repeat a version.
        entry.version = self.changes() as u32;
        while let Some(mut answer) = entry.answers.take() {
            self.answers_octets
                .fetch_sub(answer.octets(), Ordering::Relaxed);
            entry.answers = answer.next.take();
        }
    }

    fn advance_serials(&self, path: &[u8], revision: i64) {
        let serials = self.serials.read().unwrap_or_else(PoisonError::into_inner);
        if serials.is_empty() {
            return;
        }
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, octet)| **octet == b'/')
            .map(|(at, _)| at);
        for end in std::iter::once(0).chain(ends).chain([path.len()]) {
            if let Some(serial) = path.get(..end).and_then(|zone| serials.get(zone)) {
                serial.fetch_max(revision, Ordering::Relaxed);
            }
        }
    }

    /// The cluster has been replaced and its revisions with it: serials start anew from what there is.
    pub(super) fn restart_serials(&self) {
        self.deleted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let keys = self.keys();
        let serials = self.serials.read().unwrap_or_else(PoisonError::into_inner);
        for (path, serial) in serials.iter() {
            let newest = subtree(&keys, path)
                .map(|(_, record)| record.revision)
                .max();
            serial.store(newest.unwrap_or(0), Ordering::Relaxed);
        }
    }
}

impl Shard {
    /// The entry of a name, if it exists.
    pub(super) fn find(&self, hash: u64, name: &[u8]) -> Option<&Entry> {
        self.entries.find(hash, |entry| *entry.name == *name)
    }

    fn find_mut(&mut self, hash: u64, name: &[u8]) -> Option<&mut Entry> {
        self.entries.find_mut(hash, |entry| *entry.name == *name)
    }

    fn make(&mut self, hash: u64, name: &[u8], hasher: &impl BuildHasher) -> &mut Entry {
        let entry = self.entries.entry(
            hash,
            |entry| *entry.name == *name,
            |entry| hasher.hash_one(&*entry.name),
        );
        entry
            .or_insert_with(|| Entry {
                name: name.into(),
                keys: 0,
                version: 0,
                answers: None,
            })
            .into_mut()
    }

    fn remove(&mut self, hash: u64, name: &[u8], hasher: &impl BuildHasher) {
        if let Ok(entry) = self.entries.find_entry(hash, |entry| *entry.name == *name) {
            entry.remove();
        }
        // After a great fall the room is given back.
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2, |entry| {
                hasher.hash_one(&*entry.name)
            });
        }
    }
}

impl Entry {
    /// The finished answer to a question, if there is one and it still holds.
    pub(super) fn answer(&self, of: Of, changes: u64) -> Option<&Finished> {
        let mut at = self.answers.as_deref();
        while let Some(answer) = at {
            if answer.of == of {
                return (answer.valid == 0 || answer.valid == changes).then_some(answer);
            }
            at = answer.next.as_deref();
        }
        None
    }
}

impl Finished {
    pub(super) fn new(of: Of, valid: u64, counts: [u16; 3], wire: &[u8]) -> Box<Finished> {
        Box::new(Finished {
            next: None,
            of,
            valid,
            counts,
            wire: wire.into(),
        })
    }

    fn octets(&self) -> usize {
        size_of::<Finished>() + self.wire.len()
    }
}

//--- Paths and names ------------------------------------------------------------------------------

/// The names of a path: the root, then one label more each time, as long as queries can ask for them. A segment that no lower-cased label
/// equals (upper case, too long, a dot in it), or that is a wildcard's word, ends them: what is below is found through its parents only.
struct Names<'p> {
    path: &'p [u8],
    // The name so far stands at the end of this.
    buffer: [u8; NAME_OCTETS_MAX],
    start: usize,
    // Where the next segment starts; `None` before the root and, at the end, behind the last.
    at: Option<usize>,
    labels: usize,
    ended: bool,
}

impl<'p> Names<'p> {
    fn of(path: &'p [u8]) -> Names<'p> {
        Names {
            path,
            buffer: [0; NAME_OCTETS_MAX],
            start: NAME_OCTETS_MAX - 1,
            at: None,
            labels: 0,
            ended: false,
        }
    }

    fn next(&mut self) -> Option<&[u8]> {
        if self.ended {
            return None;
        }
        let Some(at) = self.at else {
            self.at = Some(0);
            return self.buffer.get(self.start..);
        };
        self.ended = self.step(at).is_none();
        match self.ended {
            true => None,
            false => self.buffer.get(self.start..),
        }
    }

    fn step(&mut self, at: usize) -> Option<()> {
        let mut at = at;
        // Empty segments (a slash too many) are no labels.
        while self.path.get(at) == Some(&b'/') {
            at += 1;
        }
        let rest = self.path.get(at..)?;
        let len = rest.iter().position(|octet| *octet == b'/');
        let segment = rest.get(..len.unwrap_or(rest.len()))?;
        self.labels += 1;
        if !is_askable(segment) || self.labels > LABELS_MAX {
            return None;
        }
        let start = self.start.checked_sub(1 + segment.len())?;
        let room = self.buffer.get_mut(start..self.start)?;
        let (head, label) = room.split_first_mut()?;
        *head = segment.len() as u8;
        label.copy_from_slice(segment);
        self.start = start;
        self.at = Some(at + segment.len());
        Some(())
    }
}

/// Whether a lower-cased label can equal this segment.
fn is_askable(segment: &[u8]) -> bool {
    (1..=LABEL_OCTETS_MAX).contains(&segment.len())
        && !is_wildcard(segment)
        && !segment
            .iter()
            .any(|octet| octet.is_ascii_uppercase() || *octet == b'.')
}

/// Whether a label of a question stands for any one segment.
pub(super) fn is_wildcard(label: &[u8]) -> bool {
    matches!(label, b"*" | b"any")
}

/// The name that a path is, spelled as the path is; `None` if it is none. Dots inside a segment separate labels, as they always did.
pub(super) fn name_of(path: &[u8]) -> Option<NameBuf> {
    let mut name = NameBuf::new();
    let labels = path
        .rsplit(|octet| *octet == b'/')
        .flat_map(|segment| segment.split(|octet| *octet == b'.'))
        .filter(|label| !label.is_empty());
    for label in labels {
        name.push_label(label).ok()?;
    }
    name.push(0).ok()?;
    Some(name)
}

/// The path of a name (lower-cased wire form); `None` if a label has a slash or a NUL in it and so no path.
pub(super) fn path_of(name: &[u8]) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(name.len());
    let labels: Vec<&[u8]> = crate::kit::wire::name::labels(name).collect();
    for label in labels.into_iter().rev() {
        if label.contains(&b'/') || label.contains(&0) {
            return None;
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(label);
    }
    Some(path)
}

/// Whether a path is this one or below it.
fn is_at_or_below(path: &[u8], above: &[u8]) -> bool {
    match path.strip_prefix(above) {
        Some(rest) => above.is_empty() || rest.first().is_none_or(|octet| *octet == b'/'),
        None => false,
    }
}

/// Everything at a path and below it, in order: its own key, then what is below.
pub(super) fn subtree<'k>(
    keys: &'k Keys,
    path: &[u8],
) -> impl Iterator<Item = (&'k [u8], &'k Record)> + use<'k> {
    let own = keys
        .get_key_value(path)
        .filter(|_| !path.is_empty())
        .map(|(path, record)| (&**path, record));
    own.into_iter().chain(below(keys, path))
}

/// Everything below a path, in order.
pub(super) fn below<'k>(
    keys: &'k Keys,
    path: &[u8],
) -> impl Iterator<Item = (&'k [u8], &'k Record)> + use<'k> {
    let (start, end) = if path.is_empty() {
        (Vec::new(), None)
    } else {
        let mut start = path.to_vec();
        start.push(b'/');
        let mut end = path.to_vec();
        end.push(b'/' + 1);
        (start, Some(end))
    };
    let end = match end {
        Some(end) => Bound::Excluded(end.into_boxed_slice()),
        None => Bound::Unbounded,
    };
    keys.range((Bound::Included(start.into_boxed_slice()), end))
        .map(|(path, record)| (&**path, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &str, value: &str, revision: i64) -> Change {
        Change {
            path: path.as_bytes().into(),
            record: Some(Record::read(value.as_bytes(), revision, None).expect("a record")),
            revision,
        }
    }

    fn delete(path: &str, revision: i64) -> Change {
        Change {
            path: path.as_bytes().into(),
            record: None,
            revision,
        }
    }

    fn exists(tree: &Tree, name: &[u8]) -> bool {
        let hash = tree.hash(name);
        tree.shard(hash).find(hash, name).is_some()
    }

    fn names(path: &str) -> Vec<Vec<u8>> {
        let mut names = Names::of(path.as_bytes());
        let mut all = Vec::new();
        while let Some(name) = names.next() {
            all.push(name.to_vec());
        }
        all
    }

    #[test]
    fn a_path_stands_for_its_name_and_those_above() {
        assert_eq!(
            names("org/example/www"),
            [
                b"\0".to_vec(),
                b"\x03org\0".to_vec(),
                b"\x07example\x03org\0".to_vec(),
                b"\x03www\x07example\x03org\0".to_vec(),
            ]
        );
        assert_eq!(names("org/Example/www").len(), 2);
        assert_eq!(names("org/any/www").len(), 2);
        assert_eq!(names("org//www/").len(), 3);
        assert_eq!(names("").len(), 1);
        assert_eq!(names(&"a/".repeat(300)).len(), 128);
        assert_eq!(names(&"x".repeat(64)).len(), 1);
    }

    #[test]
    fn names_come_and_go_with_their_keys() {
        let tree = Tree::new();
        tree.apply(vec![
            put("org/example/a", "{}", 1),
            put("org/example/b/c", "{}", 2),
        ]);
        assert!(exists(&tree, b"\x01b\x07example\x03org\0"));
        assert_eq!(tree.records(), 2);
        tree.apply(vec![delete("org/example/b/c", 3), delete("org/none", 3)]);
        assert!(!exists(&tree, b"\x01b\x07example\x03org\0"));
        assert!(exists(&tree, b"\x07example\x03org\0"));
        tree.apply(vec![delete("org/example/a", 4)]);
        assert!(!exists(&tree, b"\0"));
        assert_eq!(tree.records(), 0);
    }

    #[test]
    fn a_change_takes_the_answers_of_its_name_and_above() {
        let tree = Tree::new();
        tree.apply(vec![put("org/a", "{}", 1), put("org/b", "{}", 2)]);
        let of = Of {
            view: 0,
            qtype: 1,
            for_wildcard: false,
        };
        for name in [&b"\x01a\x03org\0"[..], b"\x01b\x03org\0", b"\x03org\0"] {
            let hash = tree.hash(name);
            let version = tree.shard(hash).find(hash, name).expect("exists").version;
            tree.keep(hash, name, version, Finished::new(of, 0, [0; 3], b""));
        }
        let has = |name: &[u8]| {
            let hash = tree.hash(name);
            let shard = tree.shard(hash);
            shard
                .find(hash, name)
                .is_some_and(|entry| entry.answer(of, 0).is_some())
        };
        assert!(has(b"\x01a\x03org\0") && has(b"\x03org\0"));
        tree.apply(vec![put("org/a", r#"{"ttl":7}"#, 3)]);
        assert!(!has(b"\x01a\x03org\0") && !has(b"\x03org\0"));
        assert!(has(b"\x01b\x03org\0"));
        // What was made before the change is not kept after it.
        let name = b"\x03org\0";
        let hash = tree.hash(name);
        tree.keep(hash, name, 0, Finished::new(of, 0, [0; 3], b""));
        assert!(!has(name));
    }

    #[test]
    fn serials_follow_the_newest_revision_of_their_zone() {
        let tree = Tree::new();
        tree.apply(vec![put("org/a/x", "{}", 5)]);
        let serial = tree.serial(b"org/a");
        let other = tree.serial(b"org/b");
        tree.apply(vec![put("org/ab", "{}", 8)]);
        assert_eq!(serial.load(Ordering::Relaxed), 5);
        tree.apply(vec![delete("org/a/x", 9), put("org/b", "{}", 11)]);
        assert_eq!(serial.load(Ordering::Relaxed), 9);
        assert_eq!(other.load(Ordering::Relaxed), 11);
    }

    #[test]
    fn subtrees_end_at_label_boundaries() {
        let tree = Tree::new();
        tree.apply(vec![
            put("org/web", "{}", 1),
            put("org/web-2", "{}", 2),
            put("org/web/a", "{}", 3),
            put("org/web0", "{}", 4),
        ]);
        let keys = tree.keys();
        let found: Vec<&[u8]> = subtree(&keys, b"org/web").map(|(path, _)| path).collect();
        assert_eq!(found, [&b"org/web"[..], b"org/web/a"]);
        assert_eq!(below(&keys, b"").count(), 4);
    }

    #[test]
    fn paths_and_names_are_each_others_reverse() {
        let name = b"\x03www\x07example\x03org\0";
        assert_eq!(path_of(name).as_deref(), Some(&b"org/example/www"[..]));
        assert_eq!(name_of(b"org/example/www").expect("a name").as_wire(), name);
        assert_eq!(path_of(b"\x03a/b\0"), None);
        assert_eq!(
            name_of(b"org/a.b").expect("a name").as_wire(),
            b"\x01a\x01b\x03org\0"
        );
        assert_eq!(name_of("x".repeat(64).as_bytes()).map(|_| ()), None);
    }
}
