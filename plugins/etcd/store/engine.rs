//! The store's state and every change of it: keys with revisions, leases, history. No disk, no thread, no HTTP.
//!
//! Changes are made at once and can be taken back until they are confirmed: [`Engine::mark`], a change, then
//! [`Engine::confirm`] when they are on disk or [`Engine::roll_back`] when they could not be written. What has to be
//! written is asked for with [`Engine::unsaved`]. Next: `keeper.rs`, which does that in a loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::history::History;
use super::leases::{Lease, Leases};
use super::model::{
    Compare, CompareResult, CompareTarget, DeleteReply, DeleteRequest, End, Event, EventKind,
    KeyRange, KeyValue, LeaseView, PutReply, PutRequest, RangeReply, RangeRequest, SortOrder,
    SortTarget, StoreError, TxnOp, TxnOpReply, TxnReply, TxnRequest,
};

/// Octets of live keys and values, overhead counted: a million and more DNS records. etcd's default is 2 GiB on disk; ours is in memory.
const BYTES_MAX: usize = 256 << 20;
/// Operations in one list of a transaction; etcd's default.
const TXN_OPS_MAX: usize = 128;
/// Transactions within transactions.
const TXN_DEPTH_MAX: usize = 8;

/// The state of a store.
#[derive(Debug)]
pub(crate) struct Engine {
    revision: i64,
    live: BTreeMap<Arc<[u8]>, Arc<KeyValue>>,
    bytes: usize,
    leases: Leases,
    history: History,
    undo: Vec<Undo>,
    unsaved: Unsaved,
}

/// How to take one step back.
#[derive(Debug)]
enum Undo {
    Key(Arc<[u8]>, Option<Arc<KeyValue>>),
    Granted(i64),
    Revoked(i64, Lease),
}

/// A place in the undo list to go back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    undo: usize,
    revision: i64,
}

/// What differs, or may differ, from what is on disk. A write that failed stays in it, so that the next one settles what the disk holds.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    pub(crate) keys: BTreeSet<Arc<[u8]>>,
    pub(crate) leases: BTreeSet<i64>,
}

impl Unsaved {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.leases.is_empty()
    }
}

/// What is read from disk at start.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) revision: i64,
    pub(crate) keys: Vec<KeyValue>,
    /// Id and granted seconds.
    pub(crate) leases: Vec<(i64, i64)>,
}

impl Engine {
    /// A store as it was saved. Leases begin again with their whole time, as in etcd after a change of leader.
    pub(crate) fn new(saved: Saved, now: Instant) -> Engine {
        let revision = saved.revision.max(1);
        let mut engine = Engine {
            revision,
            live: BTreeMap::new(),
            bytes: 0,
            leases: Leases::default(),
            history: History::new(revision),
            undo: Vec::new(),
            unsaved: Unsaved::default(),
        };
        for (id, ttl) in saved.leases {
            engine.leases.insert(id, ttl, now);
        }
        for kv in saved.keys {
            engine.set(&Arc::clone(&kv.key), Some(Arc::new(kv)));
        }
        engine
    }

    //--- Reading -----------------------------------------------------------------------------------

    /// The newest revision.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// The changes that are still known.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// The leases.
    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Keys that live.
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// Octets of live keys and values, overhead counted.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The key as it is.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.live.get(key)
    }

    /// `kv/range`.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeReply, StoreError> {
        self.check_range(request)?;
        Ok(self.read(request, self.revision))
    }

    fn check_range(&self, request: &RangeRequest) -> Result<(), StoreError> {
        if request.range.start.is_empty() {
            return Err(StoreError::EmptyKey);
        }
        if request.revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.history.compacted() {
            return Err(StoreError::Compacted);
        }
        Ok(())
    }

    /// A checked range. `revision` is what the reply says, which inside a transaction may be the one being made.
    fn read(&self, request: &RangeRequest, revision: i64) -> RangeReply {
        let mut kvs = match request.revision {
            asked if asked > 0 && asked < self.revision => self.at(asked, &request.range),
            _ => self.now(&request.range),
        };
        let count = kvs.len();
        let mut reply = RangeReply {
            revision,
            count: i64::try_from(count).unwrap_or(i64::MAX),
            keys_only: request.keys_only,
            ..RangeReply::default()
        };
        if request.count_only {
            return reply;
        }
        // As in etcd the filters come after the count.
        kvs.retain(|kv| passes(request, kv));
        sort(&mut kvs, request.sort_order, request.sort_target);
        if let Ok(limit) = usize::try_from(request.limit)
            && limit > 0
            && kvs.len() > limit
        {
            kvs.truncate(limit);
            reply.more = true;
        }
        reply.kvs = kvs;
        reply
    }

    fn now(&self, range: &KeyRange) -> Vec<Arc<KeyValue>> {
        if range.is_empty() {
            return Vec::new();
        }
        self.live
            .range::<[u8], _>(range.bounds())
            .map(|(_, kv)| Arc::clone(kv))
            .collect()
    }

    /// The range as it was at a revision: what it is, with every change since taken back, newest first.
    fn at(&self, revision: i64, range: &KeyRange) -> Vec<Arc<KeyValue>> {
        let mut then: BTreeMap<Arc<[u8]>, Arc<KeyValue>> = self
            .now(range)
            .into_iter()
            .map(|kv| (Arc::clone(&kv.key), kv))
            .collect();
        for event in self.history.newest_first(revision + 1, range) {
            match &event.prev {
                Some(prev) => then.insert(Arc::clone(&prev.key), Arc::clone(prev)),
                None => then.remove(&event.kv.key),
            };
        }
        then.into_values().collect()
    }

    //--- Changing ----------------------------------------------------------------------------------

    /// `kv/put`.
    pub(crate) fn put(&mut self, request: PutRequest) -> Result<PutReply, StoreError> {
        check_put(&request)?;
        self.check_put_now(&request)?;
        let mut change = Change::new(self);
        let prev_kv = change.put(request);
        let revision = change.finish();
        Ok(PutReply { revision, prev_kv })
    }

    /// `kv/deleterange`.
    pub(crate) fn delete(&mut self, request: &DeleteRequest) -> Result<DeleteReply, StoreError> {
        check_delete(request)?;
        let mut change = Change::new(self);
        let mut reply = change.delete(request);
        reply.revision = change.finish();
        Ok(reply)
    }

    /// `kv/txn`: all or nothing, one revision.
    pub(crate) fn txn(&mut self, request: TxnRequest) -> Result<TxnReply, StoreError> {
        check_txn(&request, 0)?;
        // Conditions are judged on the state before, nested ones too; then everything that could fail is checked; then it cannot.
        let (succeeded, steps) = self.resolve(request);
        self.check_steps(&steps)?;
        let mut change = Change::new(self);
        let responses = change.run(steps);
        let revision = change.finish();
        Ok(TxnReply {
            revision,
            succeeded,
            responses,
        })
    }

    /// `kv/compaction`.
    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), StoreError> {
        if revision <= self.history.compacted() && self.history.compacted() > 0 {
            return Err(StoreError::Compacted);
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        self.history.compact(revision.max(0));
        Ok(())
    }

    /// `lease/grant`: id and TTL.
    pub(crate) fn grant(
        &mut self,
        id: i64,
        ttl: i64,
        now: Instant,
    ) -> Result<(i64, i64), StoreError> {
        let (id, ttl) = self.leases.grant(id, ttl, now)?;
        self.undo.push(Undo::Granted(id));
        self.unsaved.leases.insert(id);
        Ok((id, ttl))
    }

    /// `lease/revoke`, and what happens when the time is over: the keys go, all in one revision.
    pub(crate) fn revoke(&mut self, id: i64) -> Result<(), StoreError> {
        if !self.leases.has(id) {
            return Err(StoreError::LeaseNotFound);
        }
        let mut change = Change::new(self);
        for key in change.engine.leases.keys(id) {
            change.remove(&key);
        }
        change.finish();
        if let Some(lease) = self.leases.remove(id) {
            self.undo.push(Undo::Revoked(id, lease));
            self.unsaved.leases.insert(id);
        }
        Ok(())
    }

    /// `lease/keepalive`: the TTL, or `None` for a lease that is not there. Nothing to write: after a restart the time is whole anyway.
    pub(crate) fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        self.leases.renew(id, now)
    }

    /// `lease/timetolive`.
    pub(crate) fn lease(&self, id: i64, with_keys: bool, now: Instant) -> LeaseView {
        self.leases.view(id, with_keys, now)
    }

    //--- Taking back, saving -----------------------------------------------------------------------

    /// A place to go back to.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            undo: self.undo.len(),
            revision: self.revision,
        }
    }

    /// Takes back everything since the mark.
    pub(crate) fn roll_back(&mut self, mark: Mark) {
        while self.undo.len() > mark.undo {
            match self.undo.pop() {
                Some(Undo::Key(key, before)) => self.set(&key, before),
                Some(Undo::Granted(id)) => {
                    self.leases.remove(id);
                }
                Some(Undo::Revoked(id, lease)) => self.leases.restore(id, lease),
                None => break,
            }
        }
        self.revision = mark.revision;
        self.history.retract(mark.revision);
    }

    /// What has to be written. Look up each key with [`Engine::get`] and each lease with [`Leases::ttl`]: what is not there is to be removed.
    pub(crate) fn unsaved(&self) -> &Unsaved {
        &self.unsaved
    }

    /// Everything up to now is on disk.
    pub(crate) fn confirm(&mut self) {
        self.undo.clear();
        self.unsaved = Unsaved::default();
        self.history.trim();
    }

    /// The one place that touches the table, so that octets and leases stay right whatever happens, undo included.
    fn set(&mut self, key: &Arc<[u8]>, after: Option<Arc<KeyValue>>) {
        let before = match after {
            Some(kv) => {
                self.bytes += kv.weight();
                if kv.lease != 0 {
                    self.leases.attach(kv.lease, key);
                }
                let lease = kv.lease;
                let before = self.live.insert(Arc::clone(key), kv);
                if let Some(before) = &before
                    && before.lease != 0
                    && before.lease != lease
                {
                    self.leases.detach(before.lease, key);
                }
                before
            }
            None => {
                let before = self.live.remove(key);
                if let Some(before) = &before
                    && before.lease != 0
                {
                    self.leases.detach(before.lease, key);
                }
                before
            }
        };
        if let Some(before) = before {
            self.bytes -= before.weight();
        }
    }

    //--- Checking ----------------------------------------------------------------------------------

    /// What is wrong with a put as things are.
    fn check_put_now(&self, request: &PutRequest) -> Result<(), StoreError> {
        if request.lease != 0 && !self.leases.has(request.lease) {
            return Err(StoreError::LeaseNotFound);
        }
        self.check_old(request)?;
        if self.bytes + request.key.len() + request.value.len() > BYTES_MAX {
            return Err(StoreError::NoSpace);
        }
        Ok(())
    }

    fn check_old(&self, request: &PutRequest) -> Result<(), StoreError> {
        let needs_old = request.ignore_value || request.ignore_lease;
        match needs_old && !self.live.contains_key(request.key.as_slice()) {
            true => Err(StoreError::KeyNotFound),
            false => Ok(()),
        }
    }

    /// What is wrong with a transaction as things are: its puts first, then its ranges, as in etcd.
    fn check_steps(&self, steps: &[Step]) -> Result<(), StoreError> {
        self.each(steps, &|step| match step {
            // In a transaction a missing key is noticed before a missing lease, elsewhere after it.
            Step::Put(request) => self
                .check_old(request)
                .and_then(|()| self.check_put_now(request)),
            _ => Ok(()),
        })?;
        self.each(steps, &|step| match step {
            Step::Range(request) => self.check_range(request),
            _ => Ok(()),
        })
    }

    fn each(
        &self,
        steps: &[Step],
        check: &dyn Fn(&Step) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        steps.iter().try_for_each(|step| match step {
            Step::Txn(_, steps) => self.each(steps, check),
            step => check(step),
        })
    }

    /// Judges the conditions and keeps the operations of the branch that is taken.
    fn resolve(&self, request: TxnRequest) -> (bool, Vec<Step>) {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded {
            request.success
        } else {
            request.failure
        };
        let steps = branch
            .into_iter()
            .map(|op| match op {
                TxnOp::Range(request) => Step::Range(request),
                TxnOp::Put(request) => Step::Put(request),
                TxnOp::Delete(request) => Step::Delete(request),
                TxnOp::Txn(request) => {
                    let (succeeded, steps) = self.resolve(request);
                    Step::Txn(succeeded, steps)
                }
            })
            .collect();
        (succeeded, steps)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kvs = self.now(&compare.range);
        if kvs.is_empty() {
            // A key that is not there compares as all zeros, except that it has no value at all.
            let absent = KeyValue::tombstone(Arc::from(&*compare.range.start), 0);
            return !matches!(compare.target, CompareTarget::Value(_))
                && compare_one(compare, &absent);
        }
        kvs.iter().all(|kv| compare_one(compare, kv))
    }
}

/// A transaction's operations with the branches chosen.
enum Step {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRequest),
    Txn(bool, Vec<Step>),
}

//--- A change --------------------------------------------------------------------------------------

/// One revision in the making. It becomes one only if something changed.
struct Change<'e> {
    engine: &'e mut Engine,
    next: i64,
    events: Vec<Arc<Event>>,
}

impl<'e> Change<'e> {
    fn new(engine: &'e mut Engine) -> Change<'e> {
        let next = engine.revision + 1;
        Change {
            engine,
            next,
            events: Vec::new(),
        }
    }

    /// The revision as a transaction's operations see it.
    fn revision(&self) -> i64 {
        match self.events.is_empty() {
            true => self.next - 1,
            false => self.next,
        }
    }

    /// A checked put; gives the previous value if it was asked for.
    fn put(&mut self, request: PutRequest) -> Option<Arc<KeyValue>> {
        let prev = self.engine.live.get(request.key.as_slice()).cloned();
        let key = match &prev {
            Some(prev) => Arc::clone(&prev.key),
            None => Arc::from(request.key),
        };
        let kv = Arc::new(KeyValue {
            key: Arc::clone(&key),
            value: match &prev {
                Some(prev) if request.ignore_value => prev.value.clone(),
                _ => request.value.into(),
            },
            create_revision: prev.as_ref().map_or(self.next, |prev| prev.create_revision),
            mod_revision: self.next,
            version: prev.as_ref().map_or(0, |prev| prev.version) + 1,
            lease: match &prev {
                Some(prev) if request.ignore_lease => prev.lease,
                _ => request.lease,
            },
        });
        self.apply(&key, Some(Arc::clone(&kv)), prev.clone());
        self.events.push(Arc::new(Event {
            kind: EventKind::Put,
            kv,
            prev: prev.clone(),
        }));
        prev.filter(|_| request.prev_kv)
    }

    fn delete(&mut self, request: &DeleteRequest) -> DeleteReply {
        let doomed = self.engine.now(&request.range);
        for kv in &doomed {
            self.remove(&kv.key);
        }
        DeleteReply {
            revision: self.revision(),
            deleted: i64::try_from(doomed.len()).unwrap_or(i64::MAX),
            prev_kvs: if request.prev_kv { doomed } else { Vec::new() },
        }
    }

    fn remove(&mut self, key: &Arc<[u8]>) {
        let Some(prev) = self.engine.live.get(key).cloned() else {
            return;
        };
        self.apply(key, None, Some(Arc::clone(&prev)));
        self.events.push(Arc::new(Event {
            kind: EventKind::Delete,
            kv: Arc::new(KeyValue::tombstone(Arc::clone(key), self.next)),
            prev: Some(prev),
        }));
    }

    fn apply(
        &mut self,
        key: &Arc<[u8]>,
        after: Option<Arc<KeyValue>>,
        before: Option<Arc<KeyValue>>,
    ) {
        self.engine.set(key, after);
        self.engine.undo.push(Undo::Key(Arc::clone(key), before));
        self.engine.unsaved.keys.insert(Arc::clone(key));
    }

    fn run(&mut self, steps: Vec<Step>) -> Vec<TxnOpReply> {
        steps
            .into_iter()
            .map(|step| match step {
                Step::Range(request) => {
                    TxnOpReply::Range(self.engine.read(&request, self.revision()))
                }
                Step::Put(request) => {
                    let prev_kv = self.put(request);
                    TxnOpReply::Put(PutReply {
                        revision: self.revision(),
                        prev_kv,
                    })
                }
                Step::Delete(request) => TxnOpReply::Delete(self.delete(&request)),
                Step::Txn(succeeded, steps) => TxnOpReply::Txn(TxnReply {
                    // etcd leaves the revision of a nested transaction out.
                    revision: 0,
                    succeeded,
                    responses: self.run(steps),
                }),
            })
            .collect()
    }

    /// The revision after the change.
    fn finish(self) -> i64 {
        if !self.events.is_empty() {
            self.engine.revision = self.next;
            self.engine.history.push(self.next, self.events);
        }
        self.engine.revision
    }
}

//--- Pure rules ------------------------------------------------------------------------------------

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(
        kv.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && within(
        kv.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}

/// Keys come sorted; a target other than the key without an order means ascending, as in etcd.
fn sort(kvs: &mut [Arc<KeyValue>], order: SortOrder, target: SortTarget) {
    if order == SortOrder::None && target == SortTarget::Key {
        return;
    }
    kvs.sort_by(|a, b| {
        let ascending = match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match order {
            SortOrder::Descend => ascending.reverse(),
            SortOrder::None | SortOrder::Ascend => ascending,
        }
    });
}

fn compare_one(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(n) => kv.version.cmp(n),
        CompareTarget::Create(n) => kv.create_revision.cmp(n),
        CompareTarget::Mod(n) => kv.mod_revision.cmp(n),
        CompareTarget::Value(value) => (*kv.value).cmp(value.as_slice()),
        CompareTarget::Lease(n) => kv.lease.cmp(n),
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}

/// What is wrong with a put whatever the state.
fn check_put(request: &PutRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(StoreError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(StoreError::LeaseProvided);
    }
    Ok(())
}

fn check_delete(request: &DeleteRequest) -> Result<(), StoreError> {
    match request.range.start.is_empty() {
        true => Err(StoreError::EmptyKey),
        false => Ok(()),
    }
}

fn check_txn(request: &TxnRequest, depth: usize) -> Result<(), StoreError> {
    if depth >= TXN_DEPTH_MAX
        || [
            request.compare.len(),
            request.success.len(),
            request.failure.len(),
        ]
        .iter()
        .any(|len| *len > TXN_OPS_MAX)
    {
        return Err(StoreError::TooManyOps);
    }
    if request
        .compare
        .iter()
        .any(|compare| compare.range.start.is_empty())
    {
        return Err(StoreError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match op {
            TxnOp::Range(request) if request.range.start.is_empty() => {
                return Err(StoreError::EmptyKey);
            }
            TxnOp::Range(_) => {}
            TxnOp::Put(request) => check_put(request)?,
            TxnOp::Delete(request) => check_delete(request)?,
            TxnOp::Txn(request) => check_txn(request, depth + 1)?,
        }
    }
    if depth == 0 {
        touched(&request.success)?;
        touched(&request.failure)?;
    }
    Ok(())
}

/// The keys that a list of operations puts and the ranges it deletes: a key may be put once, and not both put and deleted. Both branches of
/// a nested transaction count against what stands around it, but not against each other, since only one of them runs.
fn touched(ops: &[TxnOp]) -> Result<(BTreeSet<&[u8]>, Vec<&KeyRange>), StoreError> {
    let mut puts: BTreeSet<&[u8]> = BTreeSet::new();
    let mut deletes: Vec<&KeyRange> = Vec::new();
    let mut nested: Vec<(BTreeSet<&[u8]>, Vec<&KeyRange>)> = Vec::new();
    for op in ops {
        match op {
            TxnOp::Range(_) => {}
            TxnOp::Put(request) => {
                if !puts.insert(&request.key) {
                    return Err(StoreError::DuplicateKey);
                }
            }
            TxnOp::Delete(request) => deletes.push(&request.range),
            TxnOp::Txn(request) => {
                let (mut inner, mut ranges) = touched(&request.success)?;
                let (more, more_ranges) = touched(&request.failure)?;
                inner.extend(more);
                ranges.extend(more_ranges);
                nested.push((inner, ranges));
            }
        }
    }
    // etcd 3.4 does not count a range without an end here, so what works there would fail; operations run in order anyway.
    let deleted = |key: &[u8], ranges: &[&KeyRange]| {
        ranges
            .iter()
            .any(|range| range.end != End::Open && range.contains(key))
    };
    if puts.iter().any(|key| deleted(key, &deletes)) {
        return Err(StoreError::DuplicateKey);
    }
    for (inner, ranges) in nested {
        let clash = inner
            .iter()
            .any(|key| puts.contains(key) || deleted(key, &deletes))
            || puts.iter().any(|key| deleted(key, &ranges));
        if clash {
            return Err(StoreError::DuplicateKey);
        }
        puts.extend(inner);
        deletes.extend(ranges);
    }
    Ok((puts, deletes))
}
