//! Writing into v3: in transactions, each key only if it still stands as it was seen.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::ProgressBar;
use skein_plugins::etcd::{Client, Compare, Error, Operation};

use super::plan::{Moved, Standing, lease_seconds};

/// Operations of a transaction; etcd takes 128.
const BATCH: usize = 128;
/// Octets of keys and values in one: etcd takes requests of 1.5 MiB.
const BATCH_OCTETS: usize = 1 << 20;

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) keys: usize,
    pub(super) leases: usize,
    /// Keys that somebody changed in v3 meanwhile.
    pub(super) changed: Vec<String>,
}

/// Writes.
pub(super) async fn write(
    client: &Client,
    todo: &[(&Moved, &Standing)],
    bar: &ProgressBar,
) -> Result<Written, Error> {
    let mut written = Written::default();
    let mut leases = HashMap::new();
    for batch in batches(todo) {
        let (mut compare, mut puts) = (Vec::new(), Vec::new());
        for (moved, standing) in batch {
            let lease = match moved.ttl {
                None => 0,
                Some(ttl) => {
                    let seconds = lease_seconds(ttl);
                    match leases.get(&seconds) {
                        Some(id) => *id,
                        None => {
                            let lease = client.lease_grant(Duration::from_secs(seconds), 0).await?;
                            leases.insert(seconds, lease.id);
                            lease.id
                        }
                    }
                }
            };
            compare.push(condition(moved, standing));
            puts.push(Operation::Put(
                moved.key.clone().into(),
                moved.value.clone().into(),
                lease,
            ));
        }
        if client.txn(&compare, &puts, &[]).await?.succeeded {
            written.keys += batch.len();
        } else {
            // Somebody wrote one of them. Each by itself, so that the others are not left out.
            for (((moved, _), condition), put) in batch.iter().zip(compare).zip(puts) {
                match client.txn(&[condition], &[put], &[]).await?.succeeded {
                    true => written.keys += 1,
                    false => written.changed.push(moved.key.clone()),
                }
            }
        }
        bar.inc(batch.len() as u64);
    }
    written.leases = leases.len();
    Ok(written)
}

fn condition(moved: &Moved, standing: &Standing) -> Compare {
    let key = moved.key.clone().into_bytes();
    match standing {
        Standing::Different { revision, .. } => Compare::ModRevision(key, *revision),
        Standing::New | Standing::Same => Compare::Missing(key),
    }
}

/// As many at a time as a request holds.
fn batches<'t>(todo: &'t [(&'t Moved, &'t Standing)]) -> Vec<&'t [(&'t Moved, &'t Standing)]> {
    let mut batches = Vec::new();
    let (mut start, mut octets) = (0, 0);
    for (at, (moved, _)) in todo.iter().enumerate() {
        // The key stands in the condition and in the write.
        let size = 2 * moved.key.len() + moved.value.len();
        if at > start && (at - start == BATCH || octets + size > BATCH_OCTETS) {
            batches.extend(todo.get(start..at));
            (start, octets) = (at, 0);
        }
        octets += size;
    }
    batches.extend(todo.get(start..).filter(|rest| !rest.is_empty()));
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_what_a_request_may() {
        let moved = |octets| Moved {
            key: "/k".into(),
            value: "x".repeat(octets),
            ttl: None,
        };
        let sizes = |octets: &[usize]| {
            let all: Vec<Moved> = octets.iter().map(|octets| moved(*octets)).collect();
            let todo: Vec<_> = all.iter().map(|moved| (moved, &Standing::New)).collect();
            batches(&todo)
                .iter()
                .map(|batch| batch.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[1; 300]), [128, 128, 44]);
        assert_eq!(sizes(&[600_000; 3]), [1, 1, 1]);
        assert_eq!(sizes(&[2_000_000, 1]), [1, 1]);
        assert_eq!(sizes(&[]), [0; 0]);
    }
}
