//! Writes records into a message, compressing names against those already written.

use super::message::Section;
use super::types::{Class, Rtype};

/// Appends records to a message buffer that already holds header and question.
///
/// Compression: owner names and the names in NS, CNAME, PTR, SOA, MX data (RFC 3597 §4) are compressed without
/// regard to case against the question and up to 64 suffixes written before. No allocation beyond `message`.
pub struct Writer<'m> {
    message: &'m mut Vec<u8>,
    names: &'m mut Compressor,
}

/// Where names stand in a message under construction: at most 64 offsets. Lives beside the message, so that a
/// [`Writer`] can be made again for every record at no cost.
#[derive(Clone, Debug, Default)]
pub struct Compressor {
    // to be filled in: [u16; 64] and a length, not a Vec
}

impl Compressor {
    /// Forgets everything; call it when the message starts anew.
    pub fn clear(&mut self) {}
}

/// Record data to write.
#[derive(Clone, Copy, Debug)]
pub enum Rdata<'a> {
    /// Bytes without a name that may be compressed.
    Raw(&'a [u8]),
    /// One name: NS, CNAME, PTR, DNAME (DNAME is never compressed).
    Name(&'a [u8]),
    /// MX: preference and exchange.
    Mx(u16, &'a [u8]),
    /// SRV: priority, weight, port, target (never compressed, RFC 2782).
    Srv(u16, u16, u16, &'a [u8]),
    /// SOA.
    Soa {
        /// Primary server.
        mname: &'a [u8],
        /// Mailbox.
        rname: &'a [u8],
        /// Serial, refresh, retry, expire, minimum.
        numbers: [u32; 5],
    },
    /// TXT from one text, cut into strings of 255 octets.
    Txt(&'a [u8]),
}

impl<'m> Writer<'m> {
    /// `message` holds header and question; with a cleared `names` the question's name is entered first.
    pub fn new(message: &'m mut Vec<u8>, names: &'m mut Compressor) -> Writer<'m> {
        Writer { message, names }
    }
    /// Appends one record and counts it in the header. Sections must come in order. False, and nothing written, if the
    /// message would pass 65,535 octets.
    pub fn record(
        &mut self,
        _section: Section,
        _owner: &[u8],
        _rtype: Rtype,
        _class: Class,
        _ttl: u32,
        _rdata: Rdata<'_>,
    ) -> bool {
        let _ = (&self.message, &self.names);
        todo!()
    }
}

/// Cuts whole RRsets from the end (additional, then authority, then answer) until `message` has at most `size` octets; sets TC if
/// answer or authority lost anything (an incomplete additional section needs no TC, RFC 2181 §9). Returns whether it cut.
pub fn truncate(_message: &mut Vec<u8>, _size: usize) -> bool {
    todo!()
}

/// Removes every OPT record from the additional section, returning the position of the first one's fields: (extended
/// rcode bits, flags, options) copied out.
pub fn take_opt(_message: &mut Vec<u8>) -> Option<(u8, u16, Vec<u8>)> {
    todo!()
}
