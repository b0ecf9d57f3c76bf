//! The store as a Dnsfile names it: set up without being opened, opened at the start, kept over reloads.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::Store;
use super::listener::Listener;
use crate::kit::dnsfile::Span;
use crate::kit::setup::ServerSetup;

/// The store of a folder, one per process however many blocks name it.
pub(crate) struct Embedded {
    directory: PathBuf,
    store: OnceCell<Store>,
}

impl Embedded {
    /// Takes the folder's store from the running generation or plans a new one; the start opens it and serves its API on `listen`. Nothing is
    /// opened here, so `skeindns check` opens nothing.
    pub(crate) fn set_up(
        server: &mut ServerSetup<'_>,
        span: Span,
        directory: &Path,
        listen: Option<SocketAddr>,
    ) -> Arc<Embedded> {
        // A folder may be written in several ways; one that cannot be made absolute fails when it is opened.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let key = format!("etcd: embedded {}", directory.display());
        let embedded = server.keep(&key, || Embedded::new(directory));
        let opened = Arc::clone(&embedded);
        server.at_start(span, async move { opened.open().await.map(drop) });
        if let Some(address) = listen {
            let listener = server.keep(&format!("{key} on {address}"), || Listener::new(address));
            let bound = Arc::clone(&listener);
            server.at_start(span, async move { bound.bind().map(drop) });
            let served = Arc::clone(&embedded);
            server.background("etcd: the embedded store's API", async move {
                if let Ok(store) = served.open().await {
                    listener.serve(store).await;
                }
            });
        }
        embedded
    }

    /// A store that nobody has opened yet.
    pub(crate) fn new(directory: PathBuf) -> Embedded {
        Embedded {
            directory,
            store: OnceCell::new(),
        }
    }

    /// Opens the store where that has not been done.
    pub(crate) async fn open(&self) -> Result<&Store, String> {
        self.store
            .get_or_try_init(|| Store::open(&self.directory))
            .await
    }

    /// The store, once it is open.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.get()
    }

    /// Its folder.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}
