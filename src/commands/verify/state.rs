//! What etcd holds at one revision.

use std::collections::HashMap;

use futures_util::StreamExt;
use skein_plugins::etcd::{
    Client, Config, Error, KeyRange, KeyValue, ListRequest, V2Client, V2Reply,
};

use super::model::{Key, Model};

/// Leases asked about at a time.
const LEASES_AT_ONCE: usize = 32;

/// The keys below a prefix.
pub(crate) struct State {
    pub(crate) model: Model,
    /// The newest change among them and their number: two states with the same are the same.
    pub(crate) mark: (i64, usize),
}

/// Which of etcd's two stores.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Api {
    /// v3, and v2 if only it has keys
    Auto,
    V3,
    V2,
}

/// A store to read.
pub(crate) enum Store {
    V3(Client),
    V2(V2Client),
}

impl Store {
    /// Chooses.
    pub(crate) async fn choose(
        api: Api,
        v3: Client,
        v2: V2Client,
        prefix: &str,
    ) -> Result<Store, Error> {
        match api {
            Api::V3 => return Ok(Store::V3(v3)),
            Api::V2 => return Ok(Store::V2(v2)),
            Api::Auto => {}
        }
        let first = ListRequest {
            limit: 1,
            keys_only: true,
            ..ListRequest::new(KeyRange::prefix(prefix))
        };
        let error = match v3.range(&first).await {
            Ok(page) if !page.kvs.is_empty() => return Ok(Store::V3(v3)),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        let listed = v2.list(prefix.trim_end_matches('/')).await;
        let has = listed.is_ok_and(|reply| reply.iter().flat_map(V2Reply::values).next().is_some());
        match (has, error) {
            (true, _) => Ok(Store::V2(v2)),
            (false, None) => Ok(Store::V3(v3)),
            (false, Some(error)) => Err(error),
        }
    }

    /// For both.
    pub(crate) fn clients(config: &Config) -> Result<(Client, V2Client), String> {
        Ok((Client::new(config)?, V2Client::new(config)?))
    }
}

impl State {
    /// Reads everything.
    pub(crate) async fn read(store: &Store, prefix: &str) -> Result<State, Error> {
        let (newest, keys) = match store {
            Store::V3(client) => {
                let kvs = client.list(KeyRange::prefix(prefix)).await?;
                let newest = kvs.iter().map(|kv| kv.mod_revision).max();
                (newest, with_leases(client, prefix, kvs).await?)
            }
            Store::V2(client) => {
                let reply = client.list(prefix.trim_end_matches('/')).await?;
                let nodes = || reply.iter().flat_map(V2Reply::values);
                let newest = nodes().map(|node| node.modified_index as i64).max();
                let keys = nodes().filter_map(|node| {
                    Some(Key {
                        path: node.key.strip_prefix(prefix)?.as_bytes().to_vec(),
                        value: node.value.clone().into_bytes(),
                        // What was left when the server read it is not known here: at most the longest.
                        lease: node.ttl.map(|_| u32::MAX),
                    })
                });
                (newest, keys.collect())
            }
        };
        Ok(State {
            mark: (newest.unwrap_or(0), keys.len()),
            model: Model::new(keys),
        })
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
