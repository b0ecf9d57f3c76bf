//! [`Made`]: an answer as far as the tree can make it, and how it stands in a message.

use std::collections::HashSet;

use crate::kit::query::flags;
use crate::kit::wire::writer::{Compressor, Rdata};
use crate::kit::wire::{Class, Rtype, Section, Writer};

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
