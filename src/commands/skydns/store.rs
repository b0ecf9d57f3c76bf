//! [`Store`]: where the object is in etcd, in its v3 store or in its v2 store.
//!
//! The two are apart: the first notes of SkyDNS write with the v2 API, etcdctl of today writes with v3. Both are looked at, v3 first, unless
//! `-etcd3` was given.

use std::time::Duration;

use skein_plugins::etcd::{
    Backend, Client, Config, Credentials, Error, KeyRange, ListRequest, TlsFiles, V2Client,
    WatchRequest,
};
use tokio::time::{sleep, timeout};

use super::settings::Settings;

/// Between two looks at the object while its watch is silent: a member that is frozen says nothing either.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same while there is no object, in neither store.
const LOOK_FOR_ONE_EVERY: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Store {
    v3: Client,
    v2: Option<V2Client>,
    /// The object's key.
    pub(super) key: String,
}

/// An object as it was found.
pub(super) struct Found {
    /// Its text.
    pub(super) value: Vec<u8>,
    /// Which write it was; the same number is the same object.
    pub(super) version: (Api, i64),
}

/// One of etcd's two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Api {
    V2,
    V3,
}

/// What a look at the stores brought.
pub(super) struct Look {
    /// The object, if there is one.
    pub(super) found: Option<Found>,
    // From where on the v3 store is to be watched; none if it is not there.
    v3_revision: Option<i64>,
}

impl Store {
    /// As flags and variables say; reads the TLS files, connects later.
    pub(super) fn new(base: &Settings) -> Result<Store, String> {
        let credentials = base.username.clone().zip(base.password.value.clone());
        let identity = base.tls_pem.clone().zip(base.tls_key.clone());
        let config = Config {
            endpoints: base.machines.clone(),
            credentials: credentials.map(|(user, password)| Credentials { user, password }),
            tls: TlsFiles {
                ca: base.ca_cert.clone().map(Into::into),
                identity: identity.map(|(cert, key)| (cert.into(), key.into())),
            },
        };
        Ok(Store {
            v3: Client::new(&config)?,
            v2: match base.etcd3 {
                true => None,
                false => Some(V2Client::new(&config)?),
            },
            key: format!("/{}/config", base.path_prefix),
        })
    }

    /// Reads the object.
    pub(super) async fn look(&self) -> Result<Look, Error> {
        let request = ListRequest::new(KeyRange::key(self.key.clone()));
        let v3_revision = match self.v3.range(&request).await {
            Ok(page) => {
                if let Some(object) = page.kvs.into_iter().next() {
                    let found = Found {
                        value: object.value,
                        version: (Api::V3, object.mod_revision),
                    };
                    return Ok(Look {
                        found: Some(found),
                        v3_revision: Some(page.header.revision),
                    });
                }
                Some(page.header.revision)
            }
            Err(error) if self.v2.is_some() && is_missing(&error) => None,
            Err(error) => return Err(error),
        };
        let found = match self.look_v2().await {
            Ok(found) => found,
            Err(error) if v3_revision.is_some() && may_be_so(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Look { found, v3_revision })
    }

    async fn look_v2(&self) -> Result<Option<Found>, Error> {
        let Some(v2) = &self.v2 else { return Ok(None) };
        let reply = v2.get(&self.key).await?;
        let node = reply.map(|reply| reply.node).filter(|node| !node.dir);
        Ok(node.map(|node| Found {
            value: node.value.into_bytes(),
            version: (
                Api::V2,
                i64::try_from(node.modified_index).unwrap_or(i64::MAX),
            ),
        }))
    }

    /// Comes back when something has happened to the object since the look, or when it is time to look again.
    pub(super) async fn change(&self, since: &Look) -> Result<(), Error> {
        let every = match since.found {
            Some(_) => LOOK_EVERY,
            None => LOOK_FOR_ONE_EVERY,
        };
        tokio::select! {
            changed = timeout(every, self.watch_v3(since.v3_revision)) => changed.unwrap_or(Ok(())),
            changed = self.wait_v2(since.found.as_ref()) => changed,
        }
    }

    async fn watch_v3(&self, revision: Option<i64>) -> Result<(), Error> {
        let Some(revision) = revision else {
            return std::future::pending().await;
        };
        let request = WatchRequest {
            range: KeyRange::key(self.key.clone()),
            start_revision: revision + 1,
            deletes_only: false,
        };
        let mut watch = self.v3.open_watch(&request).await?;
        loop {
            let message = watch.message().await?;
            if !message.events.is_empty() || message.canceled.is_some() {
                return Ok(());
            }
        }
    }

    async fn wait_v2(&self, found: Option<&Found>) -> Result<(), Error> {
        match (&self.v2, found.map(|found| found.version)) {
            (Some(v2), Some((Api::V2, index))) => {
                match v2.wait(&self.key, index.unsigned_abs() + 1).await {
                    // So much has happened elsewhere that the store has forgotten where we were: the next look tells.
                    Ok(_) => Ok(()),
                    Err(Error::Compacted { .. }) => {
                        sleep(LOOK_FOR_ONE_EVERY).await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            _ => std::future::pending().await,
        }
    }

    /// Asks another member from now on.
    pub(super) fn leave(&self) {
        self.v3.leave();
    }
}

/// Whether no endpoint that answers has the API that was asked for.
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

/// Whether the v2 store can be done without: it is not there, or the user is one of the v3 store.
fn may_be_so(error: &Error) -> bool {
    is_missing(error) || matches!(error, Error::Unauthenticated { .. } | Error::Denied { .. })
}
