//! The file of a snapshot.
//!
//! ```text
//!   magic 8  version 4  taken 8  cluster 8  revision 8      numbers big-endian
//!   what it is of: length 4, octets
//!   serials: number 4, of each: path length 4, path, revision 8
//!   records: of each: 1, path length 4, path, record;  0 behind the last
//!   number of records 8  checksum 8                          SipHash-2-4 of everything before, with the key zero
//! ```
//! The checksum finds what a disk or a cut has done, not what somebody wanted to do: who may write the file may write the Dnsfile too.

use std::hash::Hasher;
use std::io::{self, Read, Write};

use siphasher::sip::SipHasher24;

use crate::etcd::record::{Host, Rare, Record, VALUE_OCTETS_MAX};
use crate::kit::wire::Name;
use crate::kit::wire::name::NAME_OCTETS_MAX;

const MAGIC: &[u8; 8] = b"skeinkey";
/// Rises with every change of what follows; a file of another version is not read.
const VERSION: u32 = 1;
/// Octets of a path; a request of etcd's is 1.5 MiB at most.
const PATH_OCTETS_MAX: usize = 2 << 20;
/// Octets of what a snapshot is of: URLs of all members.
const OF_OCTETS_MAX: usize = 64 << 10;
/// Serials in a snapshot: zones of all `etcd` lines that share it.
const SERIALS_MAX: usize = 100_000;

/// What stands in front of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Seconds since 1970.
    pub(super) taken: u64,
    /// Which cluster.
    pub(super) cluster: u64,
    /// Everything up to this revision is in it.
    pub(super) revision: i64,
    /// Which endpoints and which prefix, as text.
    pub(super) of: String,
    /// The newest revision of each zone, by path.
    pub(super) serials: Vec<(Box<[u8]>, i64)>,
}

//--- Writing ------------------------------------------------------------------------------------------

/// Writes a snapshot in parts.
pub(super) struct Writer<W> {
    out: W,
    hash: SipHasher24,
    records: u64,
    octets: u64,
    limit: u64,
}

impl<W: Write> Writer<W> {
    /// Begins one of at most `limit` octets.
    pub(super) fn begin(out: W, head: &Head, limit: u64) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            out,
            hash: SipHasher24::new(),
            records: 0,
            octets: 0,
            limit,
        };
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&head.taken.to_be_bytes());
        bytes.extend_from_slice(&head.cluster.to_be_bytes());
        bytes.extend_from_slice(&head.revision.to_be_bytes());
        put_octets(&mut bytes, head.of.as_bytes());
        put_length(&mut bytes, head.serials.len());
        for (path, revision) in &head.serials {
            put_octets(&mut bytes, path);
            bytes.extend_from_slice(&revision.to_be_bytes());
        }
        writer.write(&bytes)?;
        Ok(writer)
    }

    /// Writes records.
    pub(super) fn records<'r>(
        &mut self,
        records: impl Iterator<Item = &'r (Box<[u8]>, Record)>,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (path, record) in records {
            bytes.push(1);
            put_octets(&mut bytes, path);
            put_record(&mut bytes, record);
            self.records += 1;
        }
        self.write(&bytes)
    }

    /// Ends it and returns its length and what it was written to.
    pub(super) fn end(mut self) -> io::Result<(u64, W)> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&self.records.to_be_bytes());
        self.write(&bytes)?;
        let sum = self.hash.finish();
        self.write(&sum.to_be_bytes())?;
        self.out.flush()?;
        Ok((self.octets, self.out))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.octets += bytes.len() as u64;
        if self.octets > self.limit {
            let what = format!("it would be larger than {} octets", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        self.hash.write(bytes);
        self.out.write_all(bytes)
    }
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_octets(bytes: &mut Vec<u8>, octets: &[u8]) {
    put_length(bytes, octets.len());
    bytes.extend_from_slice(octets);
}

fn put_record(bytes: &mut Vec<u8>, record: &Record) {
    // By name and whole: a field that is new has to be written and read too, and VERSION to rise.
    let Record {
        revision,
        ttl,
        port,
        priority,
        weight,
        targetstrip,
        marks,
        host,
        rare,
    } = record;
    bytes.extend_from_slice(&revision.to_be_bytes());
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&priority.to_be_bytes());
    bytes.extend_from_slice(&weight.to_be_bytes());
    bytes.extend_from_slice(&[*targetstrip, *marks]);
    match host {
        Host::None => bytes.push(0),
        Host::V4(octets) => {
            bytes.push(4);
            bytes.extend_from_slice(octets);
        }
        Host::V6(octets) => {
            bytes.push(6);
            bytes.extend_from_slice(octets);
        }
        Host::Name(name) => {
            bytes.push(1);
            put_octets(bytes, name);
        }
    }
    match rare {
        None => bytes.push(0),
        Some(rare) => {
            let Rare { text, group } = &**rare;
            bytes.push(1);
            put_octets(bytes, text);
            put_octets(bytes, group.as_bytes());
        }
    }
}

//--- Reading ------------------------------------------------------------------------------------------

/// Reads a snapshot to its end and gives its head and every record to who wants them. What has been given counts only if this succeeds.
pub(super) fn read<R: Read>(
    from: R,
    of: &str,
    head: impl FnOnce(&Head),
    mut record: impl FnMut(Box<[u8]>, Record),
) -> Result<Head, String> {
    let mut reader = Reader {
        from,
        hash: SipHasher24::new(),
    };
    let found = read_head(&mut reader)?;
    if found.of != of {
        return Err(format!("it is of {}, not of {of}", found.of));
    }
    head(&found);
    let mut records = 0u64;
    while reader.byte()? == 1 {
        let path = reader.octets(PATH_OCTETS_MAX)?;
        record(path.into(), read_record(&mut reader)?);
        records += 1;
    }
    let written = reader.u64()?;
    let sum = reader.hash.finish();
    if reader.u64()? != sum || written != records {
        return Err("its checksum is wrong: it is damaged".into());
    }
    match reader.byte() {
        Err(_) => Ok(found),
        Ok(_) => Err("something follows its end: it is damaged".into()),
    }
}

fn read_head<R: Read>(reader: &mut Reader<R>) -> Result<Head, String> {
    let mut magic = [0; 8];
    reader.read(&mut magic)?;
    if &magic != MAGIC {
        return Err("it is no snapshot of names".into());
    }
    let version = reader.u32()?;
    if version != VERSION {
        return Err(format!(
            "it has version {version}, and this program reads {VERSION}"
        ));
    }
    let mut head = Head {
        taken: reader.u64()?,
        cluster: reader.u64()?,
        revision: reader.i64()?,
        of: String::from_utf8_lossy(&reader.octets(OF_OCTETS_MAX)?).into_owned(),
        serials: Vec::new(),
    };
    let serials = reader.length(SERIALS_MAX)?;
    for _ in 0..serials {
        let path = reader.octets(NAME_OCTETS_MAX)?;
        head.serials.push((path.into(), reader.i64()?));
    }
    Ok(head)
}

fn read_record<R: Read>(reader: &mut Reader<R>) -> Result<Record, String> {
    let revision = reader.i64()?;
    let ttl = reader.u32()?;
    let (port, priority, weight) = (reader.u16()?, reader.u16()?, reader.u16()?);
    let (targetstrip, marks) = (reader.byte()?, reader.byte()?);
    let host = match reader.byte()? {
        0 => Host::None,
        4 => Host::V4(reader.array()?),
        6 => Host::V6(reader.array()?),
        1 => {
            let wire = reader.octets(NAME_OCTETS_MAX)?;
            let name = Name::from_wire(&wire).map_err(|_| damaged())?;
            Host::Name(name.as_wire().into())
        }
        _ => return Err(damaged()),
    };
    let rare = match reader.byte()? {
        0 => None,
        1 => {
            let text = reader.octets(VALUE_OCTETS_MAX)?.into();
            let group = String::from_utf8(reader.octets(VALUE_OCTETS_MAX)?);
            let group = group.map_err(|_| damaged())?.into();
            Some(Box::new(Rare { text, group }))
        }
        _ => return Err(damaged()),
    };
    Ok(Record {
        revision,
        ttl,
        port,
        priority,
        weight,
        targetstrip,
        marks,
        host,
        rare,
    })
}

fn damaged() -> String {
    "it is damaged".into()
}

struct Reader<R> {
    from: R,
    hash: SipHasher24,
}

impl<R: Read> Reader<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<(), String> {
        self.from
            .read_exact(into)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => "it ends too early: it is damaged".into(),
                _ => error.to_string(),
            })?;
        self.hash.write(into);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut octets = [0; N];
        self.read(&mut octets)?;
        Ok(octets)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, String> {
        self.array().map(i64::from_be_bytes)
    }

    fn length(&mut self, max: usize) -> Result<usize, String> {
        let length = self.u32()? as usize;
        match length <= max {
            true => Ok(length),
            false => Err(damaged()),
        }
    }

    fn octets(&mut self, max: usize) -> Result<Vec<u8>, String> {
        let mut octets = vec![0; self.length(max)?];
        self.read(&mut octets)?;
        Ok(octets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host() -> impl Strategy<Value = Host> {
        prop_oneof![
            Just(Host::None),
            any::<[u8; 4]>().prop_map(Host::V4),
            any::<[u8; 16]>().prop_map(Host::V6),
            "[a-zA-Z0-9]{1,20}(\\.[a-z]{1,9}){0,3}".prop_map(|text| {
                Host::Name(Name::parse(&text).expect("a name").as_wire().into())
            }),
        ]
    }

    fn record() -> impl Strategy<Value = Record> {
        let numbers = (
            any::<i64>(),
            any::<u32>(),
            any::<[u16; 3]>(),
            any::<[u8; 2]>(),
        );
        let rare = prop::option::of((any::<Vec<u8>>(), any::<String>()));
        (numbers, host(), rare).prop_map(|((revision, ttl, shorts, bytes), host, rare)| Record {
            revision,
            ttl,
            port: shorts[0],
            priority: shorts[1],
            weight: shorts[2],
            targetstrip: bytes[0],
            marks: bytes[1],
            host,
            rare: rare.map(|(text, group)| {
                Box::new(Rare {
                    text: text.into(),
                    group: group.into(),
                })
            }),
        })
    }

    type Records = Vec<(Box<[u8]>, Record)>;

    fn records() -> impl Strategy<Value = Records> {
        let path = prop::collection::vec(any::<u8>(), 0..40).prop_map(Vec::into_boxed_slice);
        prop::collection::vec((path, record()), 0..12)
    }

    fn head() -> Head {
        Head {
            taken: 1_800_000_000,
            cluster: u64::MAX,
            revision: 77,
            of: "v3 /skydns/ http://192.0.2.1:2379".into(),
            serials: vec![(b"org/example"[..].into(), 76)],
        }
    }

    fn written(records: &[(Box<[u8]>, Record)]) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &head(), 1 << 20).expect("memory");
        for part in records.chunks(3) {
            writer.records(part.iter()).expect("memory");
        }
        let (octets, file) = writer.end().expect("memory");
        assert_eq!(octets, file.len() as u64);
        file
    }

    fn read_back(file: &[u8]) -> Result<Records, String> {
        let mut records = Vec::new();
        let found = read(
            file,
            &head().of,
            |_| (),
            |path, record| records.push((path, record)),
        )?;
        assert_eq!(found, head());
        Ok(records)
    }

    #[test]
    fn what_it_is_of_must_be_the_same() {
        let error = read(&*written(&[]), "v3 /other/ x", |_| (), |_, _| ());
        assert_eq!(
            error,
            Err("it is of v3 /skydns/ http://192.0.2.1:2379, not of v3 /other/ x".into())
        );
        assert_eq!(
            read(&b"something else"[..], "", |_| (), |_, _| ()),
            Err("it is no snapshot of names".into())
        );
        let mut newer = written(&[]);
        newer[11] = 2;
        assert_eq!(
            read(&*newer, "", |_| (), |_, _| ()),
            Err("it has version 2, and this program reads 1".into())
        );
    }

    #[test]
    fn it_has_a_limit() {
        let writer = Writer::begin(Vec::new(), &head(), 10);
        assert!(writer.is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(records in records()) {
            prop_assert_eq!(read_back(&written(&records)), Ok(records));
        }

        #[test]
        fn every_damage_is_found(records in records(), at: prop::sample::Index, flip in 1..=255u8) {
            let mut file = written(&records);
            let at = at.index(file.len());
            prop_assert!(read_back(&file[..at]).is_err());
            file[at] ^= flip;
            prop_assert!(read_back(&file).is_err());
        }

        #[test]
        fn nothing_in_a_file_breaks_it(tail: Vec<u8>) {
            let mut file = written(&[]);
            let records_at = file.len() - 17;
            file.truncate(records_at);
            file.extend_from_slice(&tail);
            let _ = read_back(&file);
            let _ = read_back(&tail);
        }
    }
}
