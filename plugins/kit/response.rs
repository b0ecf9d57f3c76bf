//! [`Response`]: one answer, how it came about, how to build or edit it.
//!
//! The message under construction has header, question and records but no OPT: the edge adds the
//! OPT (with the options gathered here), puts ID and the question's spelling right, and truncates.

use hickory_proto::op::Message;
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};

use super::errors::ServeError;
use super::query::{Facts, Query, Slot, flags, rescue};
use super::wire::message::Section;
use super::wire::writer::{self, Rdata, Writer};
use super::wire::{Class, Rcode, Rtype};

/// Octets of EDNS options a response may carry; what comes after is left out.
const OPTIONS_OCTETS_MAX: usize = 1024;

/// Where an answer came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Source {
    /// The cache, fresh.
    Cache,
    /// The cache, past its time (RFC 8767).
    Stale,
    /// An upstream, just now.
    Upstream,
    /// Data of our own: a backend's tree, a file.
    #[default]
    Local,
    /// Made up on the spot.
    Synthesized,
    /// A rule said so.
    Policy,
    /// Something failed.
    Failure,
}

impl Source {
    /// The word that conversations and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Cache => "cache",
            Source::Stale => "stale",
            Source::Upstream => "upstream",
            Source::Local => "local",
            Source::Synthesized => "synthesized",
            Source::Policy => "policy",
            Source::Failure => "failure",
        }
    }
}

/// What is known about a response beside its bytes.
#[derive(Default)]
pub struct ReplyState {
    pub(crate) source: Source,
    pub(crate) link: &'static str,
    pub(crate) rcode_high: u8,
    pub(crate) ignored: bool,
    pub(crate) not_stored: bool,
    pub(crate) error: Option<Box<ServeError>>,
}

/// One answer on its way back.
#[must_use]
pub struct Response {
    slot: Option<Box<Slot>>,
}

impl Drop for Response {
    fn drop(&mut self) {
        rescue(self.slot.take());
    }
}

impl Response {
    pub(crate) fn from_slot(slot: Box<Slot>) -> Response {
        Response { slot: Some(slot) }
    }

    pub(crate) fn slot(&self) -> &Slot {
        self.slot
            .as_deref()
            .expect("a response holds its slot until the edge takes it")
    }

    pub(crate) fn slot_mut(&mut self) -> &mut Slot {
        self.slot
            .as_deref_mut()
            .expect("a response holds its slot until the edge takes it")
    }

    pub(crate) fn into_slot(mut self) -> Box<Slot> {
        self.slot
            .take()
            .expect("a response holds its slot until the edge takes it")
    }

    /// The query this answers.
    pub fn query(&self) -> &Facts {
        &self.slot().facts
    }

    /// Takes the query back and forgets the answer: somebody else shall try.
    pub fn into_query(self) -> Query {
        Query::from_slot(self.into_slot())
    }

    /// The response code, extended bits included.
    pub fn rcode(&self) -> Rcode {
        let slot = self.slot();
        let low = slot.reply.get(3).map_or(0, |b| b & 15);
        Rcode(u16::from(slot.state.rcode_high) << 4 | u16::from(low))
    }

    /// Sets the response code; codes above 15 reach only clients with EDNS.
    pub fn set_rcode(&mut self, rcode: Rcode) {
        let slot = self.slot_mut();
        if let Some(byte) = slot.reply.get_mut(3) {
            *byte = *byte & 0xf0 | (rcode.0 & 15) as u8;
        }
        slot.state.rcode_high = (rcode.0 >> 4) as u8;
    }

    /// The flag word of the header (QR, opcode and rcode included).
    pub fn flags(&self) -> u16 {
        match self.slot().reply.get(2..4) {
            Some(word) => u16::from_be_bytes([word[0], word[1]]),
            None => 0,
        }
    }

    /// Sets and clears header flags (see [`flags`]).
    pub fn set_flags(&mut self, set: u16, clear: u16) {
        let word = (self.flags() | set) & !clear;
        if let Some(bytes) = self.slot_mut().reply.get_mut(2..4) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
    }

    /// TC: it does not hold everything.
    pub fn is_truncated(&self) -> bool {
        self.flags() & flags::TC != 0
    }

    /// The message without OPT; ID and spelling may still be somebody else's.
    pub fn wire(&self) -> &[u8] {
        &self.slot().reply
    }

    /// The message for editing in place: its length, counts and structure are the editor's to keep right.
    pub fn wire_mut(&mut self) -> &mut Vec<u8> {
        &mut self.slot_mut().reply
    }

    /// Octets of the message, without OPT.
    pub fn len(&self) -> usize {
        self.slot().reply.len()
    }

    /// Whether there is nothing in it, not even a header.
    pub fn is_empty(&self) -> bool {
        self.slot().reply.is_empty()
    }

    /// Records in a section, by the header.
    pub fn count(&self, section: Section) -> u16 {
        let at = match section {
            Section::Answer => 6,
            Section::Authority => 8,
            Section::Additional => 10,
        };
        match self.slot().reply.get(at..at + 2) {
            Some(count) => u16::from_be_bytes([count[0], count[1]]),
            None => 0,
        }
    }

    /// Where it came from.
    pub fn source(&self) -> Source {
        self.slot().state.source
    }

    /// Says where it came from.
    pub fn set_source(&mut self, source: Source) {
        self.slot_mut().state.source = source;
    }

    /// The plugin that answered; empty if no plugin did.
    pub fn link(&self) -> &'static str {
        self.slot().state.link
    }

    /// Marks it as not to be kept by `cache`: it is made from memory that changes by itself.
    pub fn set_not_stored(&mut self) {
        self.slot_mut().state.not_stored = true;
    }

    /// Whether `cache` must not keep it.
    pub fn is_not_stored(&self) -> bool {
        self.slot().state.not_stored
    }

    /// Whether nothing is to be sent.
    pub fn is_ignored(&self) -> bool {
        self.slot().state.ignored
    }

    pub(crate) fn set_ignored(&mut self) {
        self.slot_mut().state.ignored = true;
    }

    /// The failure behind it, if it is one.
    pub fn error(&self) -> Option<&ServeError> {
        self.slot().state.error.as_deref()
    }

    /// Notes the failure behind it, for `errors` and `metrics`.
    pub fn set_error(&mut self, error: ServeError) {
        self.slot_mut().state.error = Some(Box::new(error));
    }

    /// EDNS options it will carry if the client has EDNS, in wire form.
    pub fn options(&self) -> &[u8] {
        &self.slot().options
    }

    /// Adds an EDNS option; silently left out past 1,024 octets of options. Only a client with EDNS sees it.
    pub fn add_option(&mut self, code: u16, data: &[u8]) {
        if self.slot().facts.edns.is_none() {
            return;
        }
        let options = &mut self.slot_mut().options;
        if options.len() + 4 + data.len() <= OPTIONS_OCTETS_MAX {
            options.extend_from_slice(&code.to_be_bytes());
            options.extend_from_slice(&(data.len() as u16).to_be_bytes());
            options.extend_from_slice(data);
        }
    }

    /// Adds options already in wire form.
    pub fn add_options_wire(&mut self, wire: &[u8]) {
        let slot = self.slot_mut();
        if slot.facts.edns.is_some() && slot.options.len() + wire.len() <= OPTIONS_OCTETS_MAX {
            slot.options.extend_from_slice(wire);
        }
    }

    /// Removes the options with this code. No allocation.
    pub fn remove_option(&mut self, code: u16) {
        let options = &mut self.slot_mut().options;
        let mut at = 0;
        while let Some([high, low, len_high, len_low]) = options
            .get(at..)
            .and_then(<[u8]>::first_chunk::<4>)
            .copied()
        {
            let len = usize::from(u16::from_be_bytes([len_high, len_low]));
            let end = (at + 4 + len).min(options.len());
            if u16::from_be_bytes([high, low]) == code {
                options.drain(at..end);
            } else {
                at = end;
            }
        }
    }

    /// Adds an Extended DNS Error (RFC 8914).
    pub fn add_ede(&mut self, code: u16, text: &str) {
        if self.slot().facts.edns.is_none() {
            return;
        }
        let mut data = Vec::with_capacity(2 + text.len());
        data.extend_from_slice(&code.to_be_bytes());
        let mut end = text.len().min(200);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        data.extend_from_slice(&text.as_bytes()[..end]);
        self.add_option(15, &data);
    }

    /// Decodes it into hickory-proto's model: a slow path, off the hot one.
    pub fn message(&self) -> Result<Message, hickory_proto::serialize::binary::DecodeError> {
        Message::from_bytes(self.wire())
    }

    /// Replaces it with an edited message, encoded once.
    pub fn set_message(&mut self, message: &Message) -> Result<(), hickory_proto::ProtoError> {
        let bytes = message.to_bytes()?;
        let slot = self.slot_mut();
        slot.names.clear();
        slot.reply.clear();
        slot.reply.extend_from_slice(&bytes);
        writer::take_opt(&mut slot.reply);
        Ok(())
    }
}

/// A response under construction, record by record.
pub struct Answer {
    slot: Box<Slot>,
}

/// Whose record it is.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// The name asked for, as the client spelled it: two octets.
    Question,
    /// Another name, wire form.
    Name(&'a [u8]),
}

impl Answer {
    pub(crate) fn new(query: Query) -> Answer {
        let mut slot = query.into_slot();
        slot.begin_reply();
        let facts = &slot.facts;
        let question_end = 12 + usize::from(facts.qname_len) + 4;
        // RD and CD are echoed for opcode QUERY only; QR and the opcode always.
        let mut word = flags::QR | facts.flags & 0x7800;
        if word & 0x7800 == 0 {
            word |= client_flags(facts) & (flags::RD | flags::CD);
        }
        let reply = &mut slot.reply;
        reply.extend_from_slice(facts.packet.get(..2).unwrap_or(&[0, 0]));
        reply.extend_from_slice(&word.to_be_bytes());
        reply.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        reply.extend_from_slice(facts.packet.get(12..question_end).unwrap_or_default());
        Answer { slot }
    }

    /// The query being answered.
    pub fn query(&self) -> &Facts {
        &self.slot.facts
    }

    /// Sets AA: the answer is from an authority (RFC 1035 §4.1.1).
    pub fn authoritative(self) -> Self {
        self.flags(flags::AA)
    }

    /// Sets header flags.
    pub fn flags(mut self, set: u16) -> Self {
        self.set_flags(set);
        self
    }

    /// As [`flags`](Answer::flags), in place.
    pub(crate) fn set_flags(&mut self, set: u16) {
        for (byte, set) in self.slot.reply[2..4].iter_mut().zip(set.to_be_bytes()) {
            *byte |= set;
        }
    }

    /// Sets the response code.
    pub fn rcode(mut self, rcode: Rcode) -> Self {
        self.slot.reply[3] = self.slot.reply[3] & 0xf0 | (rcode.0 & 15) as u8;
        self.slot.state.rcode_high = (rcode.0 >> 4) as u8;
        self
    }

    /// Says where it comes from.
    pub fn source(mut self, source: Source) -> Self {
        self.slot.state.source = source;
        self
    }

    /// Appends a record of the question's class; sections must come in order.
    pub fn record(
        mut self,
        section: Section,
        owner: Owner<'_>,
        rtype: Rtype,
        ttl: u32,
        rdata: Rdata<'_>,
    ) -> Self {
        self.put(section, owner, rtype, ttl, rdata);
        self
    }

    /// As [`record`](Answer::record), in place; false if there was no room.
    pub(crate) fn put(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        rtype: Rtype,
        ttl: u32,
        rdata: Rdata<'_>,
    ) -> bool {
        let slot = &mut *self.slot;
        let class = slot.facts.qclass;
        let owner = match owner {
            Owner::Question => slot.facts.qname_as_spelled(),
            Owner::Name(name) => name,
        };
        Writer::new(&mut slot.reply, &mut slot.names)
            .record(section, owner, rtype, class, ttl, rdata)
    }

    /// Appends a record of another class than the question's.
    pub fn record_of_class(
        mut self,
        section: Section,
        owner: &[u8],
        rtype: Rtype,
        class: Class,
        ttl: u32,
        rdata: Rdata<'_>,
    ) -> Self {
        let slot = &mut *self.slot;
        Writer::new(&mut slot.reply, &mut slot.names)
            .record(section, owner, rtype, class, ttl, rdata);
        self
    }

    /// Appends records already in wire form, `count` of them; pointers in them may lead to the question (`C0 0C`) only.
    pub fn records_wire(mut self, section: Section, count: u16, wire: &[u8]) -> Self {
        self.put_wire(section, count, wire);
        self
    }

    /// As [`records_wire`](Answer::records_wire), in place; false if there was no room.
    pub(crate) fn put_wire(&mut self, section: Section, count: u16, wire: &[u8]) -> bool {
        let at = match section {
            Section::Answer => 6,
            Section::Authority => 8,
            Section::Additional => 10,
        };
        let reply = &mut self.slot.reply;
        if reply.len() + wire.len() > usize::from(u16::MAX) {
            return false;
        }
        let total = u16::from_be_bytes([reply[at], reply[at + 1]]).saturating_add(count);
        reply[at..at + 2].copy_from_slice(&total.to_be_bytes());
        reply.extend_from_slice(wire);
        true
    }

    /// As `put_wire`, for records with the first half of a pointer at each of `pointers`: it is made one to `target`, a place in the question.
    pub(crate) fn put_relative(
        &mut self,
        section: Section,
        count: u16,
        wire: &[u8],
        pointers: &[u16],
        target: usize,
    ) -> bool {
        let start = self.slot.reply.len();
        if !self.put_wire(section, count, wire) {
            return false;
        }
        let to = (0xc000 | target as u16).to_be_bytes();
        if let Some(written) = self.slot.reply.get_mut(start..) {
            for at in pointers {
                let at = usize::from(*at);
                if let Some(place) = written.get_mut(at..at + 2) {
                    place.copy_from_slice(&to);
                }
            }
        }
        true
    }

    /// Octets written so far, without OPT.
    pub fn octets(&self) -> usize {
        self.slot.reply.len()
    }

    /// Marks it as not to be kept by `cache`.
    pub fn not_stored(mut self) -> Self {
        self.slot.state.not_stored = true;
        self
    }

    /// The response.
    pub fn done(self) -> Response {
        Response::from_slot(self.slot)
    }
}

/// The flag word as the client sent it, whatever plugins made of it since.
pub(crate) fn client_flags(facts: &Facts) -> u16 {
    match facts.packet.get(2..4) {
        Some(word) => u16::from_be_bytes([word[0], word[1]]),
        None => facts.flags,
    }
}
