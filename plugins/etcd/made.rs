//! [`Made`]: an answer as far as the tree can make it, and how it stands in a message.

use std::collections::HashSet;

use crate::kit::query::flags;
use crate::kit::wire::name::is_within;
use crate::kit::wire::writer::{Compressor, Rdata};
use crate::kit::wire::{Class, Rtype, Section, Writer};

/// Octets of an answer for any name: with header, question and OPT it must not be longer than a message can be.
const WIRE_BELOW_MAX: usize = 60_000;

/// An answer, as far as the tree can make it.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) answer: Vec<Item>,
    pub(super) additional: Vec<Item>,
    /// Whether only the name asked for was looked at.
    pub(super) alone: bool,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A record.
    Record(Made1),
    /// What the server's own chain says about a name outside the zone.
    Outside {
        /// The name, wire form.
        target: Box<[u8]>,
        /// The type to ask for.
        qtype: Rtype,
        /// Whether its CNAMEs are wanted too.
        aliases: bool,
    },
}

/// A record made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Made1 {
    pub(super) owner: Box<[u8]>,
    pub(super) ttl: u32,
    pub(super) data: Data,
}

/// Its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Data {
    A([u8; 4]),
    Aaaa([u8; 16]),
    Name(Rtype, Box<[u8]>),
    Mx(u16, Box<[u8]>),
    Srv(u16, u16, u16, Box<[u8]>),
    Txt(Box<[u8]>),
    /// Of another server, without compressed names in it.
    Raw(Rtype, Box<[u8]>),
}

impl Made1 {
    /// Type and data, to be written.
    pub(super) fn rdata(&self) -> (Rtype, Rdata<'_>) {
        match &self.data {
            Data::A(octets) => (Rtype::A, Rdata::Raw(octets)),
            Data::Aaaa(octets) => (Rtype::AAAA, Rdata::Raw(octets)),
            Data::Name(rtype, name) => (*rtype, Rdata::Name(name)),
            Data::Mx(preference, name) => (Rtype::MX, Rdata::Mx(*preference, name)),
            Data::Srv(priority, weight, port, target) => {
                (Rtype::SRV, Rdata::Srv(*priority, *weight, *port, target))
            }
            Data::Txt(text) => (Rtype::TXT, Rdata::Txt(text)),
            Data::Raw(rtype, octets) => (*rtype, Rdata::Raw(octets)),
        }
    }
}

impl Made1 {
    /// Everything behind the owner, uncompressed.
    fn write_data(&self, wire: &mut Vec<u8>, qname: &[u8]) -> Option<()> {
        let (rtype, _) = self.rdata();
        wire.extend_from_slice(&rtype.0.to_be_bytes());
        wire.extend_from_slice(&Class::IN.0.to_be_bytes());
        wire.extend_from_slice(&self.ttl.to_be_bytes());
        let length_at = wire.len();
        wire.extend_from_slice(&[0, 0]);
        match &self.data {
            Data::A(octets) => wire.extend_from_slice(octets),
            Data::Aaaa(octets) => wire.extend_from_slice(octets),
            Data::Name(_, name) => wire.extend_from_slice(away_from(name, qname)?),
            Data::Mx(preference, name) => {
                wire.extend_from_slice(&preference.to_be_bytes());
                wire.extend_from_slice(away_from(name, qname)?);
            }
            Data::Srv(priority, weight, port, target) => {
                for number in [priority, weight, port] {
                    wire.extend_from_slice(&number.to_be_bytes());
                }
                wire.extend_from_slice(away_from(target, qname)?);
            }
            Data::Txt(text) => {
                for string in text.chunks(255) {
                    wire.push(string.len() as u8);
                    wire.extend_from_slice(string);
                }
            }
            Data::Raw(_, octets) => wire.extend_from_slice(octets),
        }
        let length = u16::try_from(wire.len() - length_at - 2).ok()?;
        let room = wire.get_mut(length_at..length_at + 2)?;
        room.copy_from_slice(&length.to_be_bytes());
        Some(())
    }
}

/// A name, unless it is `qname` or below it.
fn away_from<'n>(name: &'n [u8], qname: &[u8]) -> Option<&'n [u8]> {
    (!is_within(&name.to_ascii_lowercase(), qname)).then_some(name)
}

impl Made {
    /// Whether nothing outside the tree is needed.
    pub(super) fn is_whole(&self) -> bool {
        let mut items = self.answer.iter().chain(&self.additional);
        items.all(|item| matches!(item, Item::Record(_)))
    }

    /// The records as they stand behind the question of `qname`, and their number by section.
    pub(super) fn wire(&self, qname: &[u8], qtype: Rtype) -> (Vec<u8>, [u16; 3]) {
        let mut message = vec![0, 0];
        message.extend_from_slice(&flags::QR.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(qname);
        message.extend_from_slice(&qtype.0.to_be_bytes());
        message.extend_from_slice(&Class::IN.0.to_be_bytes());
        let start = message.len();
        let mut names = Compressor::default();
        let mut counts = [0; 3];
        let sections = [
            (0, Section::Answer, &self.answer),
            (2, Section::Additional, &self.additional),
        ];
        for (at, section, items) in sections {
            for item in items {
                let Item::Record(record) = item else { continue };
                let (rtype, rdata) = record.rdata();
                let written = Writer::new(&mut message, &mut names).record(
                    section,
                    &record.owner,
                    rtype,
                    Class::IN,
                    record.ttl,
                    rdata,
                );
                if written {
                    counts[at] += 1;
                }
            }
        }
        message.drain(..start);
        (message, counts)
    }

    /// The same for the question of any name that `qname` stands in for: the only pointers are of owners, to the question. `None` if the name
    /// is needed in another place, or something outside the tree is.
    pub(super) fn wire_below(&self, qname: &[u8]) -> Option<(Vec<u8>, [u16; 3])> {
        let mut wire = Vec::new();
        let sections = [&self.answer, &self.additional];
        for item in sections.into_iter().flatten() {
            let Item::Record(record) = item else {
                return None;
            };
            match &*record.owner == qname {
                true => wire.extend_from_slice(&[0xc0, 12]),
                false => wire.extend_from_slice(away_from(&record.owner, qname)?),
            }
            record.write_data(&mut wire, qname)?;
        }
        let count = |items: &[Item]| u16::try_from(items.len()).ok();
        let counts = [count(&self.answer)?, 0, count(&self.additional)?];
        (wire.len() <= WIRE_BELOW_MAX).then_some((wire, counts))
    }
}

/// RFC 2181 §5: a set holds no record twice.
pub(super) fn remove_doubles(items: &mut Vec<Item>) {
    let mut seen = HashSet::new();
    items.retain(|item| match item {
        Item::Record(record) => {
            seen.insert((record.owner.to_ascii_lowercase(), record.data.clone()))
        }
        Item::Outside { .. } => true,
    });
}

/// A record made.
pub(super) fn out_record(owner: &[u8], ttl: u32, data: Data) -> Item {
    Item::Record(Made1 {
        owner: owner.into(),
        ttl,
        data,
    })
}
