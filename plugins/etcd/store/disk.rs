//! The file: `DIR/store.redb`, written with redb. It holds the state as it is (keys, leases, the revision), not how it came about.
//!
//! One transaction per group of requests, on the disk when it returns. After a failed one the database is closed and opened again before the
//! next, since redb refuses to go on; what the failed one may have left is written over, see [`Unsaved`](super::engine::Unsaved).

use std::path::Path;

use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::engine::{Engine, Saved};
use super::model::KeyValue;

/// Key to four numbers and the value; see [`pack`].
const KEYS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");
/// Lease id to granted seconds.
const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
/// `format`, `revision`, `cluster`, `member`.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// The arrangement above. Another number is another program's file.
const FORMAT: u64 = 1;
/// redb's cache: the state is in our own memory, so the file is only read at start and at pages that change.
const CACHE_BYTES: usize = 4 << 20;

/// Opens the database, at start and after a failed write.
pub(crate) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// The open file.
pub(crate) struct Disk {
    opener: Opener,
    database: Option<Database>,
}

/// Who this store is, for the headers of replies: chosen once, when the file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
}

impl Disk {
    /// Opens or makes the file and reads everything in it.
    pub(crate) fn open(path: &Path) -> Result<(Disk, Saved, Identity), String> {
        let path = path.to_owned();
        Disk::open_with(Box::new(move || builder().create(&path)))
    }

    /// As [`Disk::open`], from wherever `opener` takes it.
    pub(crate) fn open_with(opener: Opener) -> Result<(Disk, Saved, Identity), String> {
        let database = opener().map_err(|error| explain(&error.into()))?;
        let (saved, identity) = read(&database).map_err(|error| explain(&error))?;
        let disk = Disk {
            opener,
            database: Some(database),
        };
        Ok((disk, saved, identity))
    }

    /// Writes what the engine has not saved yet. `Ok` means that it is on the disk.
    pub(crate) fn save(&mut self, engine: &Engine) -> Result<(), String> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.opener)().map_err(|error| explain(&error.into()))?,
        };
        write(&database, engine).map_err(|error| explain(&error))?;
        self.database = Some(database);
        Ok(())
    }
}

/// redb as we use it.
pub(crate) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn read(database: &Database) -> Result<(Saved, Identity), redb::Error> {
    let identity = introduce(database)?;
    let transaction = database.begin_read()?;
    let about = transaction.open_table(ABOUT)?;
    let mut saved = Saved {
        revision: number(&about, "revision")?.map_or(1, |n| i64::try_from(n).unwrap_or(1)),
        ..Saved::default()
    };
    for row in transaction.open_table(LEASES)?.iter()? {
        let (id, ttl) = row?;
        saved.leases.push((id.value(), ttl.value()));
    }
    for row in transaction.open_table(KEYS)?.iter()? {
        let (key, packed) = row?;
        match unpack(key.value(), packed.value()) {
            Some(kv) => saved.keys.push(kv),
            None => {
                return Err(redb::Error::Corrupted(format!(
                    "the record of key {:?} is too short",
                    String::from_utf8_lossy(key.value())
                )));
            }
        }
    }
    Ok((saved, identity))
}

/// Makes the tables where they are missing, and checks that the file is one of ours.
fn introduce(database: &Database) -> Result<Identity, redb::Error> {
    let transaction = database.begin_write()?;
    let identity;
    {
        let mut about = transaction.open_table(ABOUT)?;
        match number(&about, "format")? {
            None => {
                about.insert("format", FORMAT)?;
                about.insert("revision", 1)?;
            }
            Some(FORMAT) => {}
            Some(other) => {
                return Err(redb::Error::Corrupted(format!(
                    "it has format {other}, which this version cannot read (it reads {FORMAT})"
                )));
            }
        }
        let mut named = |name| -> Result<u64, redb::Error> {
            if let Some(id) = number(&about, name)? {
                return Ok(id);
            }
            let id = rand::random::<u64>() | 1;
            about.insert(name, id)?;
            Ok(id)
        };
        identity = Identity {
            cluster: named("cluster")?,
            member: named("member")?,
        };
        transaction.open_table(LEASES)?;
        transaction.open_table(KEYS)?;
    }
    transaction.commit()?;
    Ok(identity)
}

fn number(
    table: &impl ReadableTable<&'static str, u64>,
    name: &str,
) -> Result<Option<u64>, redb::Error> {
    Ok(table.get(name)?.map(|value| value.value()))
}

fn write(database: &Database, engine: &Engine) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let unsaved = engine.unsaved();
        let mut keys = transaction.open_table(KEYS)?;
        for key in &unsaved.keys {
            match engine.get(key) {
                Some(kv) => keys.insert(&**key, pack(kv).as_slice())?,
                None => keys.remove(&**key)?,
            };
        }
        let mut leases = transaction.open_table(LEASES)?;
        for id in &unsaved.leases {
            match engine.leases().ttl(*id) {
                Some(ttl) => leases.insert(id, ttl)?,
                None => leases.remove(id)?,
            };
        }
        let revision = u64::try_from(engine.revision()).unwrap_or(1);
        transaction
            .open_table(ABOUT)?
            .insert("revision", revision)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Create revision, mod revision, version, lease, eight octets each, big end first; then the value.
fn pack(kv: &KeyValue) -> Vec<u8> {
    let mut packed = Vec::with_capacity(32 + kv.value.len());
    for n in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
        packed.extend_from_slice(&n.to_be_bytes());
    }
    packed.extend_from_slice(&kv.value);
    packed
}

fn unpack(key: &[u8], packed: &[u8]) -> Option<KeyValue> {
    let (create_revision, rest) = packed.split_first_chunk()?;
    let (mod_revision, rest) = rest.split_first_chunk()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (lease, value) = rest.split_first_chunk()?;
    Some(KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: i64::from_be_bytes(*create_revision),
        mod_revision: i64::from_be_bytes(*mod_revision),
        version: i64::from_be_bytes(*version),
        lease: i64::from_be_bytes(*lease),
    })
}

/// What is wrong, and what to do where that is known.
fn explain(error: &redb::Error) -> String {
    use std::io::ErrorKind;
    match error {
        redb::Error::Io(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "the disk is full; free some space, nothing was changed".to_owned()
            }
            ErrorKind::InvalidData => format!("the file is not a store ({error})"),
            _ => error.to_string(),
        },
        redb::Error::DatabaseAlreadyOpen => "another process has the file open".to_owned(),
        redb::Error::Corrupted(what) => format!("the file cannot be used: {what}"),
        other => other.to_string(),
    }
}
