//! What etcd holds at one revision.

use std::collections::HashMap;

use futures_util::StreamExt;
use skein_plugins::etcd::{Client, Error, KeyRange, KeyValue};

use super::model::{Key, Model};

/// Leases asked about at a time.
const LEASES_AT_ONCE: usize = 32;

/// The keys below a prefix.
pub(crate) struct State {
    pub(crate) model: Model,
    /// The newest change among them and their number: two states with the same are the same.
    pub(crate) mark: (i64, usize),
}

impl State {
    /// Reads everything.
    pub(crate) async fn read(client: &Client, prefix: &str) -> Result<State, Error> {
        let kvs = client.list(KeyRange::prefix(prefix)).await?;
        let newest = kvs.iter().map(|kv| kv.mod_revision).max();
        let mark = (newest.unwrap_or(0), kvs.len());
        let keys = with_leases(client, prefix, kvs).await?;
        let model = Model::new(keys);
        Ok(State { model, mark })
    }
}

/// The keys below a prefix.
pub(crate) async fn keys(client: &Client, prefix: &str) -> Result<Vec<Key>, Error> {
    let kvs = client.list(KeyRange::prefix(prefix)).await?;
    with_leases(client, prefix, kvs).await
}

async fn with_leases(client: &Client, prefix: &str, kvs: Vec<KeyValue>) -> Result<Vec<Key>, Error> {
    let granted = granted(client, &kvs).await?;
    let keys = kvs.into_iter().filter_map(|kv| {
        Some(Key {
            path: kv.key.strip_prefix(prefix.as_bytes())?.to_vec(),
            // A lease that is gone takes its key with it any moment.
            lease: (kv.lease != 0).then(|| granted.get(&kv.lease).copied().unwrap_or(0)),
            value: kv.value,
        })
    });
    Ok(keys.collect())
}

/// What each lease was granted for, in seconds.
async fn granted(client: &Client, kvs: &[KeyValue]) -> Result<HashMap<i64, u32>, Error> {
    let mut ids: Vec<i64> = kvs
        .iter()
        .map(|kv| kv.lease)
        .filter(|id| *id != 0)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let asked = ids.into_iter().map(|id| async move {
        let lease = client.lease_timetolive(id).await?;
        let seconds = lease.map(|lease| lease.granted.as_secs());
        Ok((
            id,
            seconds.map_or(0, |s| u32::try_from(s).unwrap_or(u32::MAX)),
        ))
    });
    let replies = futures_util::stream::iter(asked).buffer_unordered(LEASES_AT_ONCE);
    let replies: Vec<Result<(i64, u32), Error>> = replies.collect().await;
    replies.into_iter().collect()
}
