//! Reading a hosts file: `ADDRESS NAME...`, `#` begins a comment, what makes no sense is skipped and told.

use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use super::table::{Builder, Full, Table};
use crate::kit::wire::Name;
use crate::kit::wire::name::{NameBuf, NameError};
use crate::kit::zones::{Zone, ZoneSet};

/// Octets of a line at most: a thousand aliases have room. CoreDNS ends to read there.
const LINE_OCTETS_MAX: u64 = 1 << 16;
/// Skipped lines that are told one by one; of the others the number.
const TOLD_MAX: usize = 5;

/// What tells one state of a file from another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    octets: u64,
    inode: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            modified: metadata.modified().ok(),
            octets: metadata.len(),
            inode: metadata.ino(),
        }
    }

    /// Seconds since 1970 of the last change.
    pub(super) fn seconds(&self) -> i64 {
        let since = self
            .modified
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_secs() as i64)
    }
}

/// What is taken of a file, and what is added to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    /// Names outside are left out.
    pub(super) zones: Vec<Zone>,
    /// Whether addresses lead back to names.
    pub(super) reverse: bool,
    /// Lines of the Dnsfile; they come behind those of the file.
    pub(super) inline: Vec<String>,
}

/// A file as it was read.
pub(super) struct Loaded {
    pub(super) table: Table,
    /// `None`: there is no file.
    pub(super) stamp: Option<Stamp>,
    pub(super) skipped: Skipped,
    /// It is a folder: nothing was read.
    pub(super) is_folder: bool,
}

/// The lines that were left out.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Skipped {
    told: Vec<String>,
    pub(super) count: usize,
}

impl Skipped {
    fn line(&mut self, number: usize, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(format!("line {number}: {}", what()));
        }
    }

    /// One sentence about all of them.
    pub(super) fn sentence(&self) -> Option<String> {
        let mut told = self.told.join("; ");
        match self.count - self.told.len() {
            0 if self.count == 0 => return None,
            0 => {}
            more => told.push_str(&format!("; and {more} more")),
        }
        Some(format!("skipped {told}"))
    }
}

/// Octets of a file that are read: 100 million lines.
const FILE_OCTETS_MAX: u64 = 4 << 30;

/// Reads the file, or only the lines of the Dnsfile if there is none.
pub(super) fn load(path: &Path, wanted: &Wanted) -> std::io::Result<Loaded> {
    let mut reading = Reading::new(wanted);
    let mut stamp = None;
    let mut is_folder = false;
    // Not opened before it is known: opening a pipe waits for somebody who writes.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_fifo() || metadata.file_type().is_socket() => {
            return Err(std::io::Error::other("it is no file"));
        }
        Ok(metadata) if metadata.is_dir() => {
            stamp = Some(Stamp::of(&metadata));
            is_folder = true;
        }
        Ok(_) => {
            let file = File::open(path)?;
            stamp = Some(Stamp::of(&file.metadata()?));
            let file = BufReader::with_capacity(LINE_OCTETS_MAX as usize, file);
            reading.read(file.take(FILE_OCTETS_MAX))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    for line in &wanted.inline {
        reading.line(line.as_bytes());
    }
    Ok(Loaded {
        table: reading.builder.done(),
        stamp,
        skipped: reading.skipped,
        is_folder,
    })
}

struct Reading {
    builder: Builder,
    zones: ZoneSet,
    takes_all: bool,
    skipped: Skipped,
    number: usize,
}

impl Reading {
    fn new(wanted: &Wanted) -> Reading {
        let zones = ZoneSet::new(wanted.zones.iter().cloned());
        Reading {
            builder: Builder::new(wanted.reverse),
            takes_all: zones.cover(&[0]).is_some(),
            zones,
            skipped: Skipped::default(),
            number: 0,
        }
    }

    fn read(&mut self, mut file: impl BufRead) -> std::io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let octets = (&mut file)
                .take(LINE_OCTETS_MAX)
                .read_until(b'\n', &mut line)?;
            if octets == 0 {
                self.number = 0;
                return Ok(());
            }
            if octets as u64 == LINE_OCTETS_MAX && line.last() != Some(&b'\n') {
                file.skip_until(b'\n')?;
                self.number += 1;
                self.skipped.line(self.number, || {
                    format!("it has more than {LINE_OCTETS_MAX} octets")
                });
                continue;
            }
            self.line(&line);
        }
    }

    fn line(&mut self, line: &[u8]) {
        self.number += 1;
        let line = match line.iter().position(|octet| *octet == b'#') {
            Some(comment) => &line[..comment],
            None => line,
        };
        let mut words = line
            .split(|octet| octet.is_ascii_whitespace() || *octet == 0x0b)
            .filter(|word| !word.is_empty());
        let Some(first) = words.next() else { return };
        let Some(address) = parse_address(first) else {
            let first = String::from_utf8_lossy(first);
            return self
                .skipped
                .line(self.number, || format!("`{}` is no address", shown(&first)));
        };
        for word in words {
            let name = match parse_name(word) {
                Ok(name) => name,
                Err(error) => {
                    let word = String::from_utf8_lossy(word);
                    self.skipped
                        .line(self.number, || format!("`{}`: {error}", shown(&word)));
                    continue;
                }
            };
            let name = name.as_wire();
            if !self.takes_all && self.zones.cover(name).is_none() {
                continue;
            }
            if let Err(Full) = self.builder.add(name, address) {
                self.skipped
                    .line(self.number, || "the table is full".to_owned());
            }
        }
    }
}

/// Characters of a word that a message repeats.
const SHOWN_CHARS_MAX: usize = 40;

fn shown(word: &str) -> String {
    let word = word.escape_debug();
    match word.clone().nth(SHOWN_CHARS_MAX) {
        None => word.collect(),
        Some(_) => word.take(SHOWN_CHARS_MAX).chain(['…']).collect(),
    }
}

/// An address; an IPv6 one may name an interface, which is of no use to others, and one that holds an IPv4 address is that.
pub(super) fn parse_address(word: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(word).ok()?;
    let text = match text.split_once('%') {
        Some((address, _)) => return Some(address.parse::<Ipv6Addr>().ok()?.to_canonical()),
        None => text,
    };
    Some(text.parse::<IpAddr>().ok()?.to_canonical())
}

/// A name in lower-cased wire form. No allocation for one without escapes.
pub(super) fn parse_name(word: &[u8]) -> Result<NameBuf, NameError> {
    let mut name = NameBuf::new();
    if word.contains(&b'\\') {
        let text = std::str::from_utf8(word).map_err(|_| NameError::BadEscape)?;
        name.extend(Name::parse(text)?.as_wire())?;
    } else {
        let labels = word.strip_suffix(b".").unwrap_or(word);
        for label in labels.split(|octet| *octet == b'.') {
            name.push_label(label)?;
        }
        name.push(0)?;
    }
    name.make_lowercase();
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], zones: &[&str]) -> (Table, Skipped) {
        let wanted = Wanted {
            zones: zones
                .iter()
                .map(|zone| Zone::parse(zone).unwrap())
                .collect(),
            reverse: true,
            inline: Vec::new(),
        };
        let mut reading = Reading::new(&wanted);
        reading.read(text).unwrap();
        (reading.builder.done(), reading.skipped)
    }

    fn addresses(table: &Table, name: &str) -> Vec<u8> {
        let name = Name::parse(name).unwrap();
        let host = table.host(name.as_wire());
        [host.v4, host.v6].concat()
    }

    #[test]
    fn lines_as_people_write_them() {
        let text = b"# comment\r\n192.0.2.1\tA.example b.example. # more\r\n\n  192.0.2.2   c.example  \n192.0.2.3\n::ffff:192.0.2.4 mapped.example\nfe80::1%eth0 link.example\n192.0.2.9#x y\n192.0.2.5 last.example";
        let (table, skipped) = read(text, &["."]);
        assert_eq!(skipped, Skipped::default());
        assert_eq!(addresses(&table, "a.example"), [192, 0, 2, 1]);
        assert_eq!(addresses(&table, "b.example"), [192, 0, 2, 1]);
        assert_eq!(addresses(&table, "c.example"), [192, 0, 2, 2]);
        assert_eq!(addresses(&table, "mapped.example"), [192, 0, 2, 4]);
        assert_eq!(addresses(&table, "link.example").len(), 16);
        assert_eq!(addresses(&table, "last.example"), [192, 0, 2, 5]);
        assert!(addresses(&table, "y").is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_skipped_and_told() {
        let long = format!(
            "192.0.2.1 {}\n192.0.2.2 behind.example\n",
            "x ".repeat(40_000)
        );
        let text = format!(
            "nonsense bad.example\n192.0.2.300 big.example\n192.0.2.046 octal.example\n192.0.2.1 a..b ok.example\n{long}\u{7f}\n{}\n",
            "y".repeat(100)
        );
        let (table, skipped) = read(text.as_bytes(), &["."]);
        assert_eq!(
            skipped.sentence().unwrap(),
            "skipped line 1: `nonsense` is no address; line 2: `192.0.2.300` is no address; line 3: `192.0.2.046` is no address; \
             line 4: `a..b`: empty label in a domain name; line 5: it has more than 65536 octets; and 2 more"
        );
        assert_eq!(addresses(&table, "ok.example"), [192, 0, 2, 1]);
        assert_eq!(addresses(&table, "behind.example"), [192, 0, 2, 2]);
    }

    #[test]
    fn names_outside_the_zones_are_left_out() {
        let (table, skipped) = read(b"192.0.2.1 a.example.org a.example.com\n", &["example.org"]);
        assert_eq!(skipped.count, 0);
        assert_eq!(addresses(&table, "a.example.org"), [192, 0, 2, 1]);
        assert!(addresses(&table, "a.example.com").is_empty());
        assert_eq!(table.names([192, 0, 2, 1].into()).count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_octets_make_it_panic(lines in proptest::collection::vec(proptest::prelude::any::<(u8, Vec<u8>)>(), 0..20)) {
            let mut text = Vec::new();
            for (address, names) in lines {
                text.extend_from_slice(format!("192.0.2.{address} ").as_bytes());
                text.extend_from_slice(&names);
                text.push(b'\n');
            }
            read(&text, &["."]);
        }
    }
}
