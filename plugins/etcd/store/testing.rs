//! What the store's own tests share: short spellings, and a disk in memory that can be full.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::disk::{self, Disk};
use super::model::{KeyRange, PutRequest, RangeRequest};
use super::{Store, engine::Saved};

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

pub(crate) fn leased(key: &str, value: &str, lease: i64) -> PutRequest {
    PutRequest {
        lease,
        ..put(key, value)
    }
}

pub(crate) fn everything() -> RangeRequest {
    RangeRequest::all(KeyRange::prefix(b""))
}

/// A file in memory. Clones are the same file; it outlives the databases on it, as a disk does.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk {
    content: Arc<Mutex<Vec<u8>>>,
    pub(crate) full: Arc<AtomicBool>,
}

impl MemoryDisk {
    /// A store on it.
    pub(crate) async fn store(&self) -> Store {
        let disk = self.clone();
        Store::open_with(move || {
            let (disk, saved, identity) = disk.open()?;
            Ok((disk, saved, identity, None))
        })
        .await
        .expect("a disk in memory opens")
    }

    pub(crate) fn open(&self) -> Result<(Disk, Saved, disk::Identity), String> {
        let this = self.clone();
        Disk::open_with(Box::new(move || {
            disk::builder().create_with_backend(this.clone())
        }))
    }

    fn check(&self) -> std::io::Result<()> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(std::io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl redb::StorageBackend for MemoryDisk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.content.lock().expect("no panic in here").len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let content = self.content.lock().expect("no panic in here");
        let offset = offset as usize;
        out.copy_from_slice(&content[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.content
            .lock()
            .expect("no panic in here")
            .resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        let mut content = self.content.lock().expect("no panic in here");
        let offset = offset as usize;
        content[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}
