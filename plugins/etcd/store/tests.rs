//! The store from its handle down to the disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Store;
use super::model::{
    Compare, CompareResult, CompareTarget, DeleteRequest, EventKind, KeyRange, StoreError, TxnOp,
    TxnRequest,
};
use super::testing::{MemoryDisk, everything, leased, put};
use super::watch::{Message, WatchRequest, WatchStream, What};

async fn keys(store: &Store) -> Vec<String> {
    let reply = store.range(everything()).await.expect("it is readable");
    reply
        .kvs
        .iter()
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect()
}

async fn next(stream: &mut WatchStream) -> Message {
    tokio::time::timeout(Duration::from_secs(20), stream.next())
        .await
        .expect("a message comes")
        .expect("the stream lives")
}

/// `+key` and `-key` of a message.
fn changes(message: &Message) -> Vec<String> {
    match &message.what {
        What::Events(events) => events
            .iter()
            .map(|event| {
                let sign = if event.kind == EventKind::Put {
                    '+'
                } else {
                    '-'
                };
                format!("{sign}{}", String::from_utf8_lossy(&event.kv.key))
            })
            .collect(),
        other => vec![format!("{other:?}")],
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let disk = MemoryDisk::default();
    let store = disk.store().await;
    store.grant(7, 60).await.expect("granted");
    store.put(leased("a", "1", 7)).await.expect("put");
    store.put(put("b", "2")).await.expect("put");
    store.put(put("b", "3")).await.expect("put");
    store
        .delete(DeleteRequest {
            range: KeyRange::only(b"c"),
            prev_kv: false,
        })
        .await
        .expect("nothing to delete is no error");
    let before = store.range(everything()).await.expect("read");
    let identity = store.identity();
    drop(store);

    let store = disk.store().await;
    let after = store.range(everything()).await.expect("read");
    assert_eq!(before, after);
    assert_eq!(identity, store.identity());
    let (_, lease) = store.time_to_live(7, true).await.expect("read");
    assert_eq!((lease.granted, lease.keys.len()), (60, 1));
}

#[tokio::test]
async fn a_real_folder_is_private_and_has_one_holder() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("deep/data");
    let store = Store::open(&dir).await.expect("made where it is missing");
    store.put(put("a", "1")).await.expect("put");
    let mode = std::fs::metadata(&dir)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);

    let error = Store::open(&dir).await.err().expect("it is taken");
    let me = std::process::id();
    assert_eq!(
        error,
        format!(
            "{} is in use by process {me}; stop it, or name another folder (embedded DIR)",
            dir.display()
        )
    );
    drop(store);
    let store = Store::open(&dir).await.expect("it is free again");
    assert_eq!(keys(&store).await, ["a"]);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("store.redb"), "not a database").expect("written");
    let error = Store::open(folder.path()).await.err().expect("refused");
    assert!(error.contains("store.redb"), "{error}");
    assert!(error.contains("not a store"), "{error}");
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_goes_on_reading() {
    let disk = MemoryDisk::default();
    let store = disk.store().await;
    store.put(put("a", "1")).await.expect("put");
    let mut stream = store.follow(b"", 0).await.expect("watched");
    assert_eq!(next(&mut stream).await.what, What::Created);

    disk.full.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let error = store
            .put(put("b", "2"))
            .await
            .expect_err("the disk is full");
        assert_eq!(
            error.to_string(),
            "embedded store: cannot write: the disk is full; free some space, nothing was changed"
        );
    }
    assert_eq!(keys(&store).await, ["a"]);
    let (revision, _) = store.status().await.expect("read");
    assert_eq!(revision, 2);

    disk.full.store(false, Ordering::Relaxed);
    let reply = store
        .put(put("c", "3"))
        .await
        .expect("there is space again");
    assert_eq!(reply.revision, 3);
    // Nothing of what failed was told.
    assert_eq!(changes(&next(&mut stream).await), ["+c"]);
    drop((store, stream));
    assert_eq!(keys(&disk.store().await).await, ["a", "c"]);
}

#[tokio::test]
async fn a_lease_takes_its_keys_along_in_one_revision() {
    // This test really waits the two seconds that are the shortest TTL: the store's thread has a clock of its own.
    let store = MemoryDisk::default().store().await;
    let (_, (id, ttl)) = store.grant(0, 1).await.expect("granted");
    assert_eq!(ttl, 2);
    store.put(leased("a", "1", id)).await.expect("put");
    store.put(leased("b", "1", id)).await.expect("put");
    store.put(put("c", "1")).await.expect("put");
    let mut stream = store.follow(b"", 0).await.expect("watched");
    assert_eq!(next(&mut stream).await.what, What::Created);
    let message = next(&mut stream).await;
    assert_eq!(changes(&message), ["-a", "-b"]);
    assert_eq!(message.revision, 5);
    assert_eq!(keys(&store).await, ["c"]);
    let (_, renewed) = store.keep_alive(id).await.expect("asked");
    assert_eq!(renewed, None);
}

#[tokio::test]
async fn a_watch_begins_where_it_was_told_to() {
    let store = MemoryDisk::default().store().await;
    for value in ["1", "2", "3"] {
        store.put(put("a", value)).await.expect("put");
    }
    let mut stream = store.follow(b"a", 3).await.expect("watched");
    assert_eq!(next(&mut stream).await.what, What::Created);
    assert_eq!(changes(&next(&mut stream).await), ["+a", "+a"]);
    store.put(put("b", "1")).await.expect("put");
    store.put(put("ab", "1")).await.expect("put");
    assert_eq!(changes(&next(&mut stream).await), ["+ab"]);

    store.compact(4).await.expect("compacted");
    let mut late = store.follow(b"a", 3).await.expect("watched");
    assert_eq!(next(&mut late).await.what, What::Created);
    assert_eq!(next(&mut late).await.what, What::Compacted(4));
    assert_eq!(
        store.compact(4).await,
        Err(StoreError::Compacted),
        "a second time"
    );
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_let_go() {
    let store = MemoryDisk::default().store().await;
    let mut slow = store.follow(b"", 0).await.expect("watched");
    let mut quick = store.follow(b"", 0).await.expect("watched");
    assert_eq!(next(&mut quick).await.what, What::Created);
    let big = "x".repeat(1 << 20);
    for _ in 0..20 {
        store.put(put("a", &big)).await.expect("put");
        assert_eq!(changes(&next(&mut quick).await), ["+a"]);
    }
    let mut read = 0;
    while slow.next().await.is_some() {
        read += 1;
    }
    assert!(read < 20, "{read} messages of 1 MiB waited");
    let error = store.progress(slow.id).await;
    assert_eq!(error, Ok(()), "a stream that is gone is no error");
}

#[tokio::test]
async fn watches_are_bounded() {
    let store = MemoryDisk::default().store().await;
    let mut stream = store.stream().await.expect("opened");
    for id in 0..1024 {
        let request = WatchRequest::new(KeyRange::only(b"a"), 0);
        store.watch(stream.id, request).await.expect("asked");
        let message = next(&mut stream).await;
        assert_eq!((message.watch_id, message.what), (id, What::Created));
    }
    let request = WatchRequest::new(KeyRange::only(b"a"), 0);
    store.watch(stream.id, request).await.expect("asked");
    assert!(matches!(next(&mut stream).await.what, What::Refused(_)));
    drop(stream);
    // Whoever left makes room.
    let mut stream = store.follow(b"a", 0).await.expect("watched");
    assert_eq!(next(&mut stream).await.what, What::Created);
}

#[tokio::test]
async fn concurrent_writers_all_get_a_revision_of_their_own() {
    let store = MemoryDisk::default().store().await;
    let writers = (0..200).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.put(put(&format!("k{n}"), "v")).await })
    });
    let mut revisions = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        let reply = writer.await.expect("no panic").expect("put");
        revisions.push(reply.revision);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (2..202).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_transaction_that_fails_changes_nothing() {
    let store = MemoryDisk::default().store().await;
    let request = TxnRequest {
        compare: vec![Compare {
            range: KeyRange::only(b"a"),
            result: CompareResult::Equal,
            target: CompareTarget::Create(0),
        }],
        success: vec![TxnOp::Put(put("a", "1")), TxnOp::Put(leased("b", "1", 99))],
        failure: Vec::new(),
    };
    assert_eq!(store.txn(request).await, Err(StoreError::LeaseNotFound));
    assert_eq!(keys(&store).await, Vec::<String>::new());
    let (revision, _) = store.status().await.expect("read");
    assert_eq!(revision, 1);
}
