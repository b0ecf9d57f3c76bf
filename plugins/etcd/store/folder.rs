//! The store's folder: made with mode 0700, and held by one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The database's name in the folder.
pub(crate) const FILE: &str = "store.redb";
/// A generation that is being let go may hold the folder a moment longer than the one that takes over.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// A folder that is ours as long as this lives.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing and takes hold of it. Blocks up to two seconds.
    pub(crate) fn take(path: &Path) -> Result<Folder, String> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| refused(path, "make the folder", &error))?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| refused(&lock_path, "open", &error))?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => {
                    // Only for the error of the next who comes; the lock itself is the kernel's and ends with the process.
                    let _ = sign(&mut lock);
                    return Ok(Folder {
                        path: path.to_owned(),
                        _lock: lock,
                    });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
                Err(TryLockError::Error(error)) => {
                    return Err(refused(&lock_path, "lock", &error));
                }
            }
        }
        Err(format!(
            "{} is in use by {}; stop it, or name another folder (embedded DIR)",
            path.display(),
            holder(&mut lock)
        ))
    }

    /// The database's file.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }
}

fn sign(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock
        .rewind()
        .and_then(|()| Read::by_ref(lock).take(32).read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}

fn refused(path: &Path, what: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; make it writable for the user that runs skeindns, or name another folder (embedded DIR)"
        }
        io::ErrorKind::StorageFull => "; free some space",
        _ => "",
    };
    format!("cannot {what} {}: {error}{advice}", path.display())
}
