//! The engine against a model that keeps a copy of everything at every revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::time::Instant;

use super::engine::{Engine, Saved};
use super::model::{
    Compare, CompareResult, CompareTarget, DeleteRequest, End, EventKind, KeyRange, KeyValue,
    PutRequest, RangeRequest, StoreError, TxnOp, TxnRequest,
};
use super::testing::{MemoryDisk, everything};

#[derive(Clone, Debug)]
enum Op {
    Put(PutRequest),
    Delete(KeyRange),
    Txn(TxnRequest),
    Grant(i64),
    Revoke(i64),
    Compact(i64),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, b'a', b'b', 0xff]), 1..3)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        key().prop_map(|key| KeyRange::only(&key)),
        key().prop_map(|key| KeyRange::prefix(&key)),
        (key(), key()).prop_map(|(start, end)| KeyRange::new(start, end)),
        Just(KeyRange::prefix(b"")),
    ]
}

fn put() -> impl Strategy<Value = PutRequest> {
    (
        key(),
        prop::collection::vec(any::<u8>(), 0..3),
        0..3i64,
        0..8u8,
    )
        .prop_map(|(key, value, lease, flags)| PutRequest {
            ignore_value: flags == 0,
            ignore_lease: flags == 1,
            value: if flags == 0 { Vec::new() } else { value },
            lease: if flags == 1 { 0 } else { lease },
            prev_kv: flags & 2 != 0,
            key,
        })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let compare =
        (range(), 0..4u8, 0..5u8, 0..4i64).prop_map(|(range, result, target, n)| Compare {
            range,
            result: match result {
                0 => CompareResult::Equal,
                1 => CompareResult::Greater,
                2 => CompareResult::Less,
                _ => CompareResult::NotEqual,
            },
            target: match target {
                0 => CompareTarget::Version(n),
                1 => CompareTarget::Create(n),
                2 => CompareTarget::Mod(n),
                3 => CompareTarget::Value(vec![n as u8]),
                _ => CompareTarget::Lease(n),
            },
        });
    let op = prop_oneof![
        put().prop_map(TxnOp::Put),
        range().prop_map(|range| TxnOp::Delete(DeleteRequest {
            range,
            prev_kv: true
        })),
        range().prop_map(|range| TxnOp::Range(RangeRequest::all(range))),
    ];
    (
        prop::collection::vec(compare, 0..2),
        prop::collection::vec(op.clone(), 0..4),
        prop::collection::vec(op, 0..4),
    )
        .prop_map(|(compare, success, failure)| TxnRequest {
            compare,
            success,
            failure,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => put().prop_map(Op::Put),
        2 => range().prop_map(Op::Delete),
        3 => txn().prop_map(Op::Txn),
        1 => (1..3i64).prop_map(Op::Grant),
        1 => (1..3i64).prop_map(Op::Revoke),
        1 => (0..30i64).prop_map(Op::Compact),
    ]
}

fn run(engine: &mut Engine, op: &Op, now: Instant) -> Result<(), StoreError> {
    let mark = engine.mark();
    let done = match op.clone() {
        Op::Put(request) => engine.put(request).map(drop),
        Op::Delete(range) => engine
            .delete(&DeleteRequest {
                range,
                prev_kv: true,
            })
            .map(drop),
        Op::Txn(request) => engine.txn(request).map(drop),
        Op::Grant(id) => engine.grant(id, 10, now).map(drop),
        Op::Revoke(id) => engine.revoke(id),
        Op::Compact(revision) => engine.compact(revision),
    };
    if done.is_err() {
        engine.roll_back(mark);
    }
    done
}

type Snapshot = BTreeMap<Arc<[u8]>, Arc<KeyValue>>;

fn snapshot(engine: &Engine) -> Snapshot {
    let reply = engine.range(&everything()).expect("always readable");
    reply
        .kvs
        .into_iter()
        .map(|kv| (Arc::clone(&kv.key), kv))
        .collect()
}

proptest! {
    /// A range at any revision that is still known is what was there then; one before is refused.
    #[test]
    fn the_past_is_what_it_was(ops in prop::collection::vec(op(), 1..60), range in range()) {
        let now = Instant::now();
        let mut engine = Engine::new(Saved::default(), now);
        let mut past: BTreeMap<i64, Snapshot> = BTreeMap::from([(1, Snapshot::new())]);
        for op in &ops {
            let _ = run(&mut engine, op, now);
            past.insert(engine.revision(), snapshot(&engine));
        }
        for (revision, then) in &past {
            let asked = RangeRequest { revision: *revision, ..RangeRequest::all(range.clone()) };
            match engine.range(&asked) {
                Ok(reply) => {
                    let expected: Vec<_> = then.values().filter(|kv| range.contains(&kv.key)).cloned().collect();
                    prop_assert_eq!(reply.kvs, expected);
                }
                Err(error) => {
                    prop_assert_eq!(error, StoreError::Compacted);
                    prop_assert!(*revision < engine.history().compacted());
                }
            }
        }
    }

    /// The events, applied to the past, give the present: revisions in order, versions counted, nothing missed.
    #[test]
    fn events_tell_everything(ops in prop::collection::vec(op(), 1..60)) {
        let now = Instant::now();
        let mut engine = Engine::new(Saved::default(), now);
        for op in &ops {
            if !matches!(op, Op::Compact(_)) {
                let _ = run(&mut engine, op, now);
            }
        }
        let mut told = Snapshot::new();
        let mut last = 1;
        for revision in engine.history().since(0) {
            prop_assert_eq!(revision.number, last + 1);
            last = revision.number;
            for event in &revision.events {
                prop_assert_eq!(event.kv.mod_revision, revision.number);
                let before = match event.kind {
                    EventKind::Put => told.insert(Arc::clone(&event.kv.key), Arc::clone(&event.kv)),
                    EventKind::Delete => told.remove(&event.kv.key),
                };
                prop_assert_eq!(before.as_ref().map_or(0, |kv| kv.version) + 1, match event.kind {
                    EventKind::Put => event.kv.version,
                    EventKind::Delete => before.as_ref().map_or(0, |kv| kv.version) + 1,
                });
                prop_assert_eq!(&before, &event.prev);
            }
        }
        prop_assert_eq!(last, engine.revision());
        prop_assert_eq!(told, snapshot(&engine));
    }

    /// What is taken back leaves no trace: not in the keys, the leases, the revision or the history.
    #[test]
    fn taking_back_leaves_no_trace(first in prop::collection::vec(op(), 0..20), second in prop::collection::vec(op(), 1..20)) {
        let now = Instant::now();
        let mut engine = Engine::new(Saved::default(), now);
        for op in &first {
            let _ = run(&mut engine, op, now);
        }
        engine.confirm();
        let (keys, revision) = (snapshot(&engine), engine.revision());
        let leases: Vec<_> = engine.leases().ids().map(|id| engine.lease(id, true, now)).collect();
        let mark = engine.mark();
        for op in &second {
            if !matches!(op, Op::Compact(_)) {
                let _ = run(&mut engine, op, now);
            }
        }
        engine.roll_back(mark);
        prop_assert_eq!(snapshot(&engine), keys);
        prop_assert_eq!(engine.revision(), revision);
        let after: Vec<_> = engine.leases().ids().map(|id| engine.lease(id, true, now)).collect();
        prop_assert_eq!(after, leases);
        prop_assert!(engine.history().since(revision + 1).next().is_none());
    }

    /// What is saved is what is read again, whatever failed in between.
    #[test]
    fn the_disk_holds_the_state(ops in prop::collection::vec((op(), prop::bool::weighted(0.2)), 1..30)) {
        let now = Instant::now();
        let file = MemoryDisk::default();
        let (mut disk, saved, _) = file.open().expect("opens");
        let mut engine = Engine::new(saved, now);
        for (op, full) in &ops {
            let mark = engine.mark();
            let _ = run(&mut engine, op, now);
            file.full.store(*full, std::sync::atomic::Ordering::Relaxed);
            match disk.save(&engine) {
                Ok(()) => engine.confirm(),
                Err(_) => engine.roll_back(mark),
            }
        }
        file.full.store(false, std::sync::atomic::Ordering::Relaxed);
        disk.save(&engine).expect("there is space");
        drop(disk);
        let (_, saved, _) = file.open().expect("opens");
        let again = Engine::new(saved, now);
        prop_assert_eq!(snapshot(&again), snapshot(&engine));
        prop_assert_eq!(again.revision(), engine.revision());
        let ids = |engine: &Engine| engine.leases().ids().map(|id| (id, engine.leases().keys(id))).collect::<Vec<_>>();
        prop_assert_eq!(ids(&again), ids(&engine));
    }

    /// A prefix holds exactly the keys that begin with it.
    #[test]
    fn a_prefix_is_a_range(prefix in key(), key in key()) {
        prop_assert_eq!(KeyRange::prefix(&prefix).contains(&key), key.starts_with(&prefix));
        let range = KeyRange::new(prefix.clone(), key.clone());
        prop_assert_eq!(range.is_empty(), matches!(range.end, End::Before(_)) && key <= prefix);
    }
}
