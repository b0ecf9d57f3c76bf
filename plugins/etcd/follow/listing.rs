//! Lists: everything below the prefix at one revision, page by page, compared with the tree.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::meters::Source;
use super::{APPLY_AT_ONCE, Follower, Progress};
use crate::etcd::api::{Error, KeyValue, ListRequest, Page};
use crate::etcd::client::key_behind;
use crate::etcd::record::Record;
use crate::etcd::tree::{Change, Keys};
use crate::kit::clock;

/// Keys of the first page of a list.
const PAGE_KEYS: u32 = 1000;
/// Octets of JSON that later pages aim at, and keys at most. etcd 3.4 walks over all keys behind a page's start for each page, half a second
/// for a million of them, so that small pages of a large prefix take minutes.
const PAGE_OCTETS: usize = 8 << 20;
const PAGE_KEYS_MAX: u32 = 65_536;
/// Octets of JSON around a key and its value.
const KEY_OVERHEAD: usize = 100;
/// For how long all pages of a list together wait for the times of leases.
const LEASES_PATIENCE_LIST: Duration = Duration::from_secs(3);

/// A list under way.
pub(super) struct Listing {
    // 0 until the first page says it.
    pub(super) revision: i64,
    pub(super) limit: u32,
    pub(super) limit_max: u32,
    // The key that the next page starts with.
    pub(super) next: Option<Vec<u8>>,
    // The path that the last page ended with.
    pub(super) from: Option<Vec<u8>>,
    pub(super) replaced: bool,
    pub(super) done: bool,
    pub(super) lease_patience: Duration,
    pub(super) deleted: HashMap<Vec<u8>, i64>,
}

impl Listing {
    pub(super) fn new(replaced: bool) -> Listing {
        Listing {
            revision: 0,
            limit: PAGE_KEYS,
            limit_max: PAGE_KEYS_MAX,
            next: None,
            from: None,
            replaced,
            done: false,
            lease_patience: LEASES_PATIENCE_LIST,
            deleted: HashMap::new(),
        }
    }

    /// A page was larger than is read.
    pub(super) fn shrink(&mut self) {
        self.limit /= 2;
        self.limit_max = self.limit;
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.done
    }
}

/// What a page brings.
#[derive(Default)]
pub(super) struct News {
    pub(super) puts: Vec<KeyValue>,
    pub(super) gone: Vec<Change>,
}

impl Follower {
    /// With no quorum and nothing in memory, what one member knows is better than nothing.
    pub(super) async fn list_unconfirmed(&self, progress: &mut Progress) {
        let mut listing = Listing::new(false);
        while listing.is_under_way() {
            match self.fetch(&mut listing, true).await {
                Ok(page) => self.merge(progress, &mut listing, page).await,
                Err(_) => return,
            }
        }
        self.tree.set_loaded();
        self.set_source(Source::Unconfirmed);
        tracing::warn!(
            "plugin/etcd: no majority of {} answers: serving what {} has, unconfirmed",
            self.endpoints(),
            self.backend.which()
        );
    }

    pub(super) fn spawn_page(&self, pages: &mut JoinSet<Result<Page, Error>>, listing: &Listing) {
        let backend = Arc::clone(&self.backend);
        let request = self.page_request(listing, false);
        pages.spawn(async move { backend.list(request).await });
    }

    pub(super) fn page_request(&self, listing: &Listing, serializable: bool) -> ListRequest {
        let mut range = self.range();
        if let Some(next) = &listing.next {
            range.start = next.clone();
        }
        ListRequest {
            limit: listing.limit,
            revision: listing.revision,
            serializable,
            ..ListRequest::new(range)
        }
    }

    pub(super) async fn fetch(
        &self,
        listing: &mut Listing,
        serializable: bool,
    ) -> Result<Page, Error> {
        loop {
            let request = self.page_request(listing, serializable);
            match self.backend.list(request).await {
                Err(Error::TooLarge { .. }) if listing.limit > 1 => listing.shrink(),
                page => return Ok(self.took(listing, page?)),
            }
        }
    }

    pub(super) fn took(&self, listing: &mut Listing, page: Page) -> Page {
        if listing.revision == 0 {
            listing.revision = page.header.revision;
        }
        let octets = page.kvs.iter().map(|kv| kv.key.len() + kv.value.len());
        // In base64 four octets stand for three.
        let octets = octets.sum::<usize>() * 4 / 3 + KEY_OVERHEAD * page.kvs.len();
        if let Some(each) = octets.checked_div(page.kvs.len()) {
            let keys = u32::try_from(PAGE_OCTETS / each.max(1)).unwrap_or(PAGE_KEYS_MAX);
            listing.limit = keys.clamp(1, listing.limit_max);
        }
        let last = page.kvs.last().filter(|_| page.more);
        listing.next = last.map(|kv| key_behind(&kv.key));
        page
    }

    /// Makes the part of the tree that a page covers equal to it.
    pub(super) async fn merge(&self, progress: &mut Progress, listing: &mut Listing, page: Page) {
        let from = listing.from.clone();
        let last = page.kvs.last().filter(|_| page.more);
        let upto = last.and_then(|kv| self.path(&kv.key)).map(<[u8]>::to_vec);
        listing.done = !page.more || page.kvs.is_empty();
        listing.from = upto.clone();
        let news = {
            let keys = self.tree.keys();
            self.differences(&keys, listing, &from, &upto, page.kvs)
        };
        let patience = listing.lease_patience;
        let started = clock::now();
        self.learn_leases(progress, news.puts.iter(), patience)
            .await;
        listing.lease_patience = patience.saturating_sub(clock::now() - started);
        self.apply(news.gone);
        let mut puts = news.puts;
        while !puts.is_empty() {
            let rest = puts.split_off(puts.len().min(APPLY_AT_ONCE));
            let mut changes = Vec::new();
            self.read_all(progress, puts, &mut changes);
            self.apply(changes);
            puts = rest;
            // Other tasks of this thread have their turn.
            tokio::task::yield_now().await;
        }
    }

    /// What of a page is news, and what of the tree it does not have any more.
    pub(super) fn differences(
        &self,
        keys: &Keys,
        listing: &Listing,
        from: &Option<Vec<u8>>,
        upto: &Option<Vec<u8>>,
        kvs: Vec<KeyValue>,
    ) -> News {
        use std::ops::Bound;
        let boxed = |path: &Vec<u8>| path.clone().into_boxed_slice();
        let start = from
            .as_ref()
            .map_or(Bound::Unbounded, |path| Bound::Excluded(boxed(path)));
        let end = upto
            .as_ref()
            .map_or(Bound::Unbounded, |path| Bound::Included(boxed(path)));
        let mut known = keys.range((start, end)).peekable();
        let mut news = News::default();
        let mut gone = |path: &[u8], record: &Record| {
            // What changed since the list's revision is not the list's to say.
            if listing.replaced || record.revision <= listing.revision {
                news.gone.push(Change {
                    path: path.into(),
                    record: None,
                    revision: listing.revision,
                });
            }
        };
        for kv in kvs {
            let Some(path) = self.path(&kv.key) else {
                continue;
            };
            while let Some((known_path, record)) = known.next_if(|(known, _)| ***known < *path) {
                gone(known_path, record);
            }
            let same = known.next_if(|(known, _)| ***known == *path);
            let is_news = same
                .is_none_or(|(_, record)| listing.replaced || record.revision < kv.mod_revision);
            let is_gone_since = listing
                .deleted
                .get(path)
                .is_some_and(|revision| *revision > kv.mod_revision);
            if is_news && !is_gone_since {
                news.puts.push(kv);
            }
        }
        for (path, record) in known {
            gone(path, record);
        }
        news
    }

    /// If a list is at its end, the tree is whole.
    pub(super) fn settle_listing(&self, progress: &mut Progress, listing: &mut Option<Listing>) {
        let Some(done) = listing.take_if(|listing| listing.done) else {
            return;
        };
        if progress.replaced {
            progress.applied = done.revision;
            progress.replaced = false;
            self.tree.restart_serials();
        }
        progress.applied = progress.applied.max(done.revision);
        self.meters.revision.set(progress.applied);
        if progress.list_wanted {
            self.set_source(Source::Live);
        }
        if !self.tree.is_loaded() {
            tracing::info!(
                "plugin/etcd: {} records at revision {} from {}",
                self.tree.records(),
                done.revision,
                self.backend.which()
            );
        }
        self.tree.set_loaded();
        self.confirm(true);
        if progress.list_wanted {
            progress.list_wanted = false;
            self.meters
                .synced
                .set(i64::from(self.lost_for() == Duration::ZERO));
        }
    }
}
