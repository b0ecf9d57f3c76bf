//! The v2 keys API: every key has a TTL of its own, and all of them are renewed one by one, which nobody who watches hears of.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use skein_plugins::etcd::{Error, V2Client, V2Delete, V2If, V2Node, V2Put};

use super::{Made, Renewed};
use crate::commands::register::config::Config;
use crate::commands::register::plan::{Change, Entries, Entry};

/// Calls at a time: each of them waits for etcd's disk.
const AT_ONCE: usize = 8;

/// A v2 store at work.
pub(in crate::commands::register) struct V2 {
    client: V2Client,
    // Zero is for ever.
    ttl: Duration,
    // What we have written, and keep alive.
    keys: BTreeMap<String, String>,
    started: bool,
}

impl V2 {
    pub(super) fn new(client: V2Client, ttl: Duration) -> V2 {
        V2 {
            client,
            ttl,
            keys: BTreeMap::new(),
            started: false,
        }
    }

    /// The same with a new connection; what is renewed from now on gets the new life.
    pub(super) fn reconnected(self, config: &Config) -> Result<V2, String> {
        Ok(V2 {
            client: V2Client::new(&config.etcd.0)?,
            ttl: config.lease_ttl,
            ..self
        })
    }

    pub(super) fn which(&self) -> String {
        self.client.which()
    }

    pub(super) fn stay(&mut self) {
        self.ttl = Duration::ZERO;
    }

    /// There is no lease to grant; renewing begins with the first record.
    pub(super) fn prepare(&mut self) -> bool {
        !self.ttl.is_zero() && !std::mem::replace(&mut self.started, true)
    }

    pub(super) async fn renew(&mut self) -> Result<Renewed, Error> {
        let keys: Vec<String> = self.keys.keys().cloned().collect();
        let mut renewed = Renewed::Yes;
        for keys in keys.chunks(AT_ONCE) {
            let calls = keys
                .iter()
                .map(|key| self.client.refresh(key, self.ttl.as_secs()));
            for (key, reply) in keys.iter().zip(join_all(calls).await) {
                if reply?.is_none() {
                    self.keys.remove(key);
                    renewed = Renewed::Lost;
                }
            }
        }
        Ok(renewed)
    }

    pub(super) async fn read(
        &mut self,
        keys: &[String],
        folders: &[String],
    ) -> Result<Entries, Error> {
        let mut nodes = Vec::new();
        for keys in keys.chunks(AT_ONCE) {
            for reply in join_all(keys.iter().map(|key| self.client.get(key))).await {
                match reply {
                    Ok(reply) => nodes.extend(reply.map(|reply| reply.node)),
                    // A key further up has a value, so that this one cannot be there.
                    Err(Error::Refused { what, .. }) if what.starts_with("Not a directory") => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for folder in folders {
            let reply = self.client.get(folder).await?;
            nodes.extend(reply.into_iter().flat_map(|reply| reply.below));
        }
        let mut entries = Entries::new();
        for node in nodes.into_iter().filter(|node| !node.dir) {
            // What another has written meanwhile is not ours to keep alive.
            if self
                .keys
                .get(&node.key)
                .is_some_and(|value| *value != node.value)
            {
                self.keys.remove(&node.key);
            }
            entries.insert(node.key.clone(), self.entry(node));
        }
        Ok(entries)
    }

    fn entry(&self, node: V2Node) -> Entry {
        let number = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
        Entry {
            // A key of a former life of ours has a TTL too, but nobody renews it until it is written again.
            settled: self.keys.contains_key(&node.key) && node.ttl.is_none() == self.ttl.is_zero(),
            created: number(node.created_index),
            version: number(node.modified_index),
            value: node.value.into_bytes(),
        }
    }

    pub(super) async fn write(&mut self, changes: &[Change]) -> Result<Made, Error> {
        for change in changes {
            let made = match change {
                Change::Put {
                    key,
                    value,
                    version,
                } => {
                    let condition = version
                        .map_or(V2If::Missing, |version| V2If::Index(version.unsigned_abs()));
                    let put = V2Put::value(value.clone()).only_if(condition);
                    let put = match self.ttl.as_secs() {
                        0 => put,
                        ttl => put.ttl(ttl),
                    };
                    // Known before it is written: if we are stopped meanwhile it is removed all the same.
                    self.keys.insert(key.clone(), value.clone());
                    self.client.put(key, &put).await.map(|_| ())
                }
                Change::Delete { key, version } => {
                    self.keys.remove(key);
                    let deleted = self
                        .client
                        .delete(key, V2Delete::Index(version.unsigned_abs()))
                        .await;
                    self.tidy(key).await;
                    deleted.map(|_| ())
                }
            };
            match made {
                Ok(()) => {}
                Err(Error::Conflict { .. } | Error::NoSuchKey { .. }) => return Ok(Made::NotAll),
                Err(error) => return Err(error),
            }
        }
        Ok(Made::All)
    }

    /// Removes all our records, reverse ones first: a name without its reverse is better than the other way round.
    pub(super) async fn withdraw(&mut self) -> Result<(), Error> {
        let keys = std::mem::take(&mut self.keys);
        let (reverse, forward): (Vec<_>, Vec<_>) =
            keys.iter().partition(|(key, _)| key.contains("/arpa/"));
        let mut result = Ok(());
        for keys in reverse.chunks(AT_ONCE).chain(forward.chunks(AT_ONCE)) {
            // Only with our value: a successor's record stays.
            let calls = keys
                .iter()
                .map(|(key, value)| self.client.delete(key, V2Delete::Value((*value).clone())));
            for reply in join_all(calls).await {
                match reply {
                    Ok(_) | Err(Error::Conflict { .. }) => {}
                    Err(error) => result = Err(error),
                }
            }
            join_all(keys.iter().map(|(key, _)| self.tidy(key))).await;
        }
        result
    }

    /// Deletes the folder that a key was in, if nothing is in it any more: an empty folder is a name without records.
    async fn tidy(&self, key: &str) {
        if let Some((folder, _)) = key.rsplit_once('/') {
            self.client
                .delete(folder, V2Delete::EmptyDirectory)
                .await
                .ok();
        }
    }
}
