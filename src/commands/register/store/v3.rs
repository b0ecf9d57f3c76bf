//! The v3 API: one lease keeps all records alive, and changes are transactions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use skein_plugins::etcd::{Client, Compare, Error, KeyRange, KeyValue, ListRequest, Operation};

use super::{Lease, Made, Renewed};
use crate::commands::register::config::Config;
use crate::commands::register::plan::{Change, Entries, Entry};

/// Operations of a transaction: etcd takes 128.
const BATCH: usize = 100;
/// Keys below a name that are looked at: four times as many as a name has addresses.
const BELOW_MAX: u32 = 1_024;

/// A v3 store at work.
pub(in crate::commands::register) struct V3 {
    client: Client,
    /// Zero is for ever.
    ttl: Duration,
    lease: Option<Lease>,
}

impl V3 {
    pub(super) fn new(client: Client, ttl: Duration) -> V3 {
        V3 {
            client,
            ttl,
            lease: None,
        }
    }

    /// The same store with a new connection, since certificates and passwords may be new ones.
    pub(super) fn reconnected(self, config: &Config) -> Result<V3, String> {
        Ok(V3 {
            client: Client::new(&config.etcd.0)?,
            ..self
        })
    }

    /// The life that records are written with.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The lease, if there is one.
    pub(super) fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// The endpoint in use.
    pub(super) fn which(&self) -> String {
        self.client.which()
    }

    /// From now on records are written to stay.
    pub(super) fn stay(&mut self) {
        self.ttl = Duration::ZERO;
        self.lease = None;
    }

    /// Makes sure that there is a lease to write with; true if it is a new one.
    pub(super) async fn prepare(&mut self) -> Result<bool, Error> {
        if self.lease.is_some() || self.ttl.is_zero() {
            return Ok(false);
        }
        let asked = Instant::now();
        let lease = self.client.lease_grant(self.ttl, 0).await?;
        self.lease = Some(Lease {
            id: lease.id,
            granted: lease.granted,
            renewed: asked,
        });
        Ok(true)
    }

    /// Renews.
    pub(super) async fn renew(&mut self) -> Result<Renewed, Error> {
        let Some(lease) = &mut self.lease else {
            return Ok(Renewed::Yes);
        };
        let asked = Instant::now();
        match self.client.lease_keepalive(lease.id).await? {
            Some(granted) => {
                lease.renewed = asked;
                lease.granted = granted;
                Ok(Renewed::Yes)
            }
            None => {
                self.lease = None;
                Ok(Renewed::Lost)
            }
        }
    }

    /// These keys, and what is at most one step below these folders.
    pub(super) async fn read(&self, keys: &[String], folders: &[String]) -> Result<Entries, Error> {
        let mut entries = BTreeMap::new();
        for keys in keys.chunks(BATCH) {
            let reads: Vec<Operation> = keys
                .iter()
                .map(|key| Operation::Range(KeyRange::key(key.as_str())))
                .collect();
            let reply = self.client.txn(&[], &reads, &[]).await?;
            entries.extend(
                reply
                    .found
                    .into_iter()
                    .flatten()
                    .filter_map(|kv| self.entry(kv)),
            );
        }
        for folder in folders {
            let below = ListRequest {
                limit: BELOW_MAX,
                ..ListRequest::new(KeyRange::prefix(format!("{folder}/")))
            };
            let page = self.client.range(&below).await?;
            entries.extend(page.kvs.into_iter().filter_map(|kv| self.entry(kv)));
        }
        Ok(entries)
    }

    fn entry(&self, kv: KeyValue) -> Option<(String, Entry)> {
        let lease = self.lease.map_or(0, |lease| lease.id);
        let entry = Entry {
            settled: kv.lease == lease,
            created: kv.create_revision,
            version: kv.mod_revision,
            value: kv.value,
        };
        Some((String::from_utf8(kv.key).ok()?, entry))
    }

    /// Makes changes, in their order, as many at once as a transaction holds.
    pub(super) async fn write(&mut self, changes: &[Change]) -> Result<Made, Error> {
        let lease = self.lease.map_or(0, |lease| lease.id);
        for changes in changes.chunks(BATCH) {
            let compare: Vec<Compare> = changes.iter().map(guard).collect();
            let operations: Vec<Operation> = changes
                .iter()
                .map(|change| operation(change, lease))
                .collect();
            match self.client.txn(&compare, &operations, &[]).await {
                Ok(reply) if reply.succeeded => {}
                Ok(_) => return Ok(Made::NotAll),
                Err(Error::NoSuchLease) => {
                    self.lease = None;
                    return Ok(Made::NotAll);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Made::All)
    }

    /// Removes all our records: with the lease they go at one revision. One that has ended already is fine.
    pub(super) async fn withdraw(&mut self) -> Result<(), Error> {
        let Some(lease) = self.lease.take() else {
            return Ok(());
        };
        match self.client.lease_revoke(lease.id).await {
            Ok(()) | Err(Error::NoSuchLease) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn guard(change: &Change) -> Compare {
    match change {
        Change::Put {
            key, version: None, ..
        } => Compare::Missing(key.clone().into_bytes()),
        Change::Put {
            key,
            version: Some(version),
            ..
        }
        | Change::Delete { key, version } => {
            Compare::ModRevision(key.clone().into_bytes(), *version)
        }
    }
}

fn operation(change: &Change, lease: i64) -> Operation {
    match change {
        Change::Put { key, value, .. } => {
            Operation::Put(key.clone().into_bytes(), value.clone().into_bytes(), lease)
        }
        Change::Delete { key, .. } => Operation::Delete(KeyRange::key(key.as_str())),
    }
}
