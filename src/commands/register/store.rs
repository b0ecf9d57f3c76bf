//! etcd as the agent sees it: reads keys, makes changes that are guarded by versions, and keeps everything alive with one lease (v3).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use skein_plugins::etcd::{Client, Compare, Error, KeyRange, KeyValue, ListRequest, Operation};

use super::config::{Api, Config};
use super::plan::{Change, Entries, Entry};

/// Operations of a transaction: etcd takes 128.
const BATCH: usize = 100;
/// Keys below a name that are looked at: four times as many as a name has addresses.
const BELOW_MAX: u32 = 1_024;

/// What became of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    All,
    /// Something was no longer as it was read, or the lease was gone: read again.
    NotAll,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    Yes,
    /// Our records are gone or about to go: write them again.
    Lost,
}

/// A lease that we hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) id: i64,
    pub(super) granted: Duration,
    /// When it was granted or renewed last: the request's time, not the answer's, since the server may have counted from then on.
    pub(super) renewed: Instant,
}

/// The store at work.
pub(super) struct Store {
    client: Client,
    /// Zero is for ever.
    ttl: Duration,
    lease: Option<Lease>,
}

impl Store {
    /// Connects and finds out which interface there is.
    pub(super) async fn connect(config: &Config) -> Result<Store, Error> {
        let client = Client::new(&config.etcd.0).map_err(|what| Error::Refused {
            endpoint: config.etcd.0.endpoints.join(", "),
            status: 0,
            code: -1,
            what,
        })?;
        let probe = ListRequest {
            count_only: true,
            ..ListRequest::new(KeyRange::key("/"))
        };
        match client.range(&probe).await {
            // A user who may read only some keys is refused this one, by a cluster that is there.
            Ok(_) | Err(Error::Denied { .. }) => {}
            Err(error) if config.api == Api::Auto => return Err(error),
            Err(error) => return Err(error),
        }
        Ok(Store {
            client,
            ttl: config.lease_ttl,
            lease: None,
        })
    }

    /// The same store with a new connection, since certificates and passwords may be new ones.
    pub(super) fn reconnected(self, config: &Config) -> Result<Store, String> {
        Ok(Store {
            client: Client::new(&config.etcd.0)?,
            ..self
        })
    }

    /// The lease, if there is one.
    pub(super) fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// Which interface, for people.
    pub(super) fn api(&self) -> &'static str {
        "v3"
    }

    /// The endpoint in use.
    pub(super) fn which(&self) -> String {
        self.client.which()
    }

    /// Whether a key can have a value and keys below it.
    pub(super) fn nests(&self) -> bool {
        true
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

    /// Removes all our records: with the lease they go at one revision.
    pub(super) async fn withdraw(&mut self) -> Result<(), Error> {
        match self.lease.take() {
            Some(lease) => self.revoke(lease).await,
            None => Ok(()),
        }
    }

    /// Ends a lease; one that has ended already is fine.
    pub(super) async fn revoke(&self, lease: Lease) -> Result<(), Error> {
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
