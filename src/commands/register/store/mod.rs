//! etcd as the agent sees it: reads keys, makes changes that are guarded by versions, and keeps everything alive, through either of its APIs.

mod v2;
mod v3;

use std::time::{Duration, Instant};

use skein_plugins::etcd::{Client, Error, KeyRange, ListRequest, V2Client};

use super::config::{Api, Config};
use super::plan::{Change, Entries};
use v2::V2;
use v3::V3;

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
pub(super) enum Store {
    V3(V3),
    V2(V2),
}

impl Store {
    /// Connects and finds out which interface there is.
    pub(super) async fn connect(config: &Config) -> Result<Store, Error> {
        let refused = |what| Error::Refused {
            endpoint: config.etcd.0.endpoints.join(", "),
            status: 0,
            code: -1,
            what,
        };
        let client = Client::new(&config.etcd.0).map_err(refused)?;
        let client2 = V2Client::new(&config.etcd.0).map_err(refused)?;
        let is_v2 = match config.api {
            Api::V2 => {
                client2.get(config.prefix.trim_end_matches('/')).await?;
                true
            }
            Api::V3 => {
                v3_has_keys(&client, &config.prefix).await?;
                false
            }
            Api::Auto => choose(&client, &client2, &config.prefix).await?,
        };
        Ok(match is_v2 {
            true => Store::V2(V2::new(client2, config.lease_ttl)),
            false => Store::V3(V3::new(client, config.lease_ttl)),
        })
    }

    /// The same store with a new connection, since certificates and passwords may be new ones; none if it cannot go on under these settings.
    pub(super) fn reconnected(self, config: &Config) -> Result<Store, String> {
        Ok(match self {
            Store::V3(store) => Store::V3(store.reconnected(config)?),
            Store::V2(store) => Store::V2(store.reconnected(config)?),
        })
    }

    /// Whether records live on under these settings, or have to be written anew and the old ones withdrawn.
    pub(super) fn goes_on(&self, config: &Config) -> bool {
        match self {
            Store::V3(store) => store.ttl() == config.lease_ttl,
            Store::V2(_) => true,
        }
    }

    /// The lease, if there is one.
    pub(super) fn lease(&self) -> Option<Lease> {
        match self {
            Store::V3(store) => store.lease(),
            Store::V2(_) => None,
        }
    }

    /// Which interface, for people.
    pub(super) fn api(&self) -> &'static str {
        match self {
            Store::V3(_) => "v3",
            Store::V2(_) => "v2",
        }
    }

    /// The endpoint in use.
    pub(super) fn which(&self) -> String {
        match self {
            Store::V3(store) => store.which(),
            Store::V2(store) => store.which(),
        }
    }

    /// Whether a key can have a value and keys below it.
    pub(super) fn nests(&self) -> bool {
        matches!(self, Store::V3(_))
    }

    /// From now on records are written to stay.
    pub(super) fn stay(&mut self) {
        match self {
            Store::V3(store) => store.stay(),
            Store::V2(store) => store.stay(),
        }
    }

    /// Makes sure that what is written lives for its time; true if renewing begins now.
    pub(super) async fn prepare(&mut self) -> Result<bool, Error> {
        match self {
            Store::V3(store) => store.prepare().await,
            Store::V2(store) => Ok(store.prepare()),
        }
    }

    /// Renews what keeps our records alive.
    pub(super) async fn renew(&mut self) -> Result<Renewed, Error> {
        match self {
            Store::V3(store) => store.renew().await,
            Store::V2(store) => store.renew().await,
        }
    }

    /// These keys, and what is at most one step below these folders.
    pub(super) async fn read(
        &mut self,
        keys: &[String],
        folders: &[String],
    ) -> Result<Entries, Error> {
        match self {
            Store::V3(store) => store.read(keys, folders).await,
            Store::V2(store) => store.read(keys, folders).await,
        }
    }

    /// Makes changes, in their order.
    pub(super) async fn write(&mut self, changes: &[Change]) -> Result<Made, Error> {
        match self {
            Store::V3(store) => store.write(changes).await,
            Store::V2(store) => store.write(changes).await,
        }
    }

    /// Removes all our records.
    pub(super) async fn withdraw(&mut self) -> Result<(), Error> {
        match self {
            Store::V3(store) => store.withdraw().await,
            Store::V2(store) => store.withdraw().await,
        }
    }
}

/// Whether the v2 store is the one that is used: only it has keys below the prefix, or the v3 API is not there. So do the servers choose.
async fn choose(v3: &Client, v2: &V2Client, prefix: &str) -> Result<bool, Error> {
    match v3_has_keys(v3, prefix).await {
        Ok(true) => Ok(false),
        Ok(false) => match v2.get(prefix.trim_end_matches('/')).await {
            Ok(found) => Ok(found.is_some_and(|reply| !reply.below.is_empty())),
            // A v2 store that is closed to us, or that is not there.
            Err(error) if !error.is_outage() || is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        },
        Err(error) if is_missing(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

async fn v3_has_keys(client: &Client, prefix: &str) -> Result<bool, Error> {
    let first = ListRequest {
        limit: 1,
        keys_only: true,
        ..ListRequest::new(KeyRange::prefix(prefix))
    };
    match client.range(&first).await {
        Ok(page) => Ok(!page.kvs.is_empty()),
        // A user who may read only some keys is refused this one, by a store that is there.
        Err(Error::Denied { what, .. }) if what.contains("permission") => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether no endpoint that answers has the API.
fn is_missing(error: &Error) -> bool {
    match error {
        Error::All(errors) => {
            errors.iter().any(is_missing)
                && errors
                    .iter()
                    .all(|error| is_missing(error) || matches!(error, Error::Unreachable { .. }))
        }
        error => matches!(error, Error::NoGateway { .. } | Error::NoV2 { .. }),
    }
}
