//! [`Auto`]: chooses between a cluster's two stores, for `api auto`.
//!
//! The v3 store is taken if it has a key below the prefix or if there is no v2 store with one; the v2 store is taken if only it has keys, or if
//! the v3 API is not there. What was moved from v2 to v3 often stays behind in v2, so v3 goes first. As long as neither has a key the choice is
//! made again at every new connection; once one has, it stays until the program is started again or reloaded with other options.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::api::{
    Backend, Error, Header, KeyRange, Lease, ListRequest, Page, WatchRequest, Watching,
};
use super::client::Client;
use super::v2::{V2Backend, V2Client};

/// See the module.
pub(super) struct Auto {
    v3: Client,
    v2: V2Backend,
    prefix: Vec<u8>,
    is_v2: AtomicBool,
    is_final: AtomicBool,
}

impl Auto {
    pub(super) fn new(v3: Client, v2: V2Client, prefix: &[u8]) -> Auto {
        Auto {
            v3,
            v2: V2Backend(v2),
            prefix: prefix.to_vec(),
            is_v2: AtomicBool::new(false),
            is_final: AtomicBool::new(false),
        }
    }

    fn chosen(&self) -> &dyn Backend {
        match self.is_v2.load(Relaxed) {
            true => &self.v2,
            false => &self.v3,
        }
    }

    async fn choose(&self) -> Result<(), Error> {
        if self.is_final.load(Relaxed) {
            return Ok(());
        }
        let first = ListRequest {
            limit: 1,
            keys_only: true,
            ..ListRequest::new(KeyRange::prefix(self.prefix.clone()))
        };
        let (is_v2, is_final, why) = match self.v3.range(&first).await {
            Ok(page) if !page.kvs.is_empty() => (false, true, "it has keys there"),
            Ok(_) => match self.v2_has_keys().await? {
                true => (true, true, "the v3 store has no key there"),
                false => (false, false, ""),
            },
            Err(error) if is_missing(&error) => (true, true, "the v3 API is not there"),
            Err(error) => return Err(error),
        };
        self.is_v2.store(is_v2, Relaxed);
        self.is_final.store(is_final, Relaxed);
        if is_final {
            tracing::info!(
                "plugin/etcd: the {} store is followed below {}: {why}",
                if is_v2 { "v2" } else { "v3" },
                String::from_utf8_lossy(&self.prefix)
            );
        }
        Ok(())
    }

    async fn v2_has_keys(&self) -> Result<bool, Error> {
        let key = String::from_utf8_lossy(&self.prefix).into_owned();
        match self.v2.0.get(&key).await {
            Ok(found) => Ok(found.is_some_and(|reply| !reply.below.is_empty())),
            // Nor is it when it is closed to us: then the v3 store is the one we were given a user for.
            Err(Error::Unauthenticated { .. } | Error::Denied { .. }) => Ok(false),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
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

impl Backend for Auto {
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move {
            // A session begins by asking for one key, and goes on with one store to its end.
            if request.range.end.is_empty() {
                self.choose().await?;
            }
            self.chosen().list(request).await
        })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watching>, Error>> {
        self.chosen().watch(request)
    }

    fn lease(&self, id: i64) -> BoxFuture<'_, Result<Option<Lease>, Error>> {
        self.chosen().lease(id)
    }

    fn probe(&self) -> BoxFuture<'_, Result<Header, Error>> {
        self.chosen().probe()
    }

    fn clusters(&self) -> BoxFuture<'_, Vec<u64>> {
        self.chosen().clusters()
    }

    fn leave(&self) {
        self.chosen().leave();
    }

    fn which(&self) -> String {
        self.chosen().which()
    }

    fn endpoints(&self) -> Vec<String> {
        self.chosen().endpoints()
    }

    fn looks_back(&self) -> i64 {
        self.chosen().looks_back()
    }

    fn relist_every(&self) -> Duration {
        self.chosen().relist_every()
    }
}
