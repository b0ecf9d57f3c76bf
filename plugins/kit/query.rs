//! [`Query`]: one question under way, and [`Facts`]: what is known about it.
//!
//! A query is one pointer to a slot that its worker made: moving it through ten plugins moves a
//! pointer. Plugins read it through [`Facts`] and end it with one of the endings (`answer`,
//! `answer_wire`, `rcode`, `refuse`, `fail`, `ignore`), which turn the slot into a
//! [`Response`](super::response::Response).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::Deref;

use super::clock::{self, Instant};
use super::edge::{UDP_OCTETS_MAX, UDP_OCTETS_MIN};
use super::errors::ServeError;
use super::response::{Answer, ReplyState, Response, Source};
use super::wire::name::NAME_OCTETS_MAX;
use super::wire::writer::Compressor;
use super::wire::{Class, Opcode, Rcode, Rtype};

/// Queries that a query may lead to, one inside the other (CNAME targets, rewriting): RFC-less, CoreDNS stops at 8 too.
pub const DEPTH_MAX: u8 = 8;

/// How a query came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A TCP connection.
    Tcp,
}

impl Transport {
    /// `udp` or `tcp`, as metrics and logs say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }
}

/// A listener of the program: its index in `Program::listeners`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// The OPT record of a query (RFC 6891 §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edns {
    /// The requestor's UDP payload size, as written.
    pub udp_size: u16,
    /// Version; the edge lets only 0 pass.
    pub version: u8,
    /// The sixteen flag bits; DO is the topmost.
    pub flags: u16,
    /// Where the options stand in the packet.
    pub(crate) options: (u16, u16),
}

/// What is known about a query.
pub struct Facts {
    pub(crate) packet: Vec<u8>,
    pub(crate) qname: [u8; NAME_OCTETS_MAX],
    pub(crate) qname_len: u8,
    pub(crate) zone_at: u8,
    pub(crate) depth: u8,
    pub(crate) internal: bool,
    pub(crate) transport: Transport,
    pub(crate) qtype: Rtype,
    pub(crate) qclass: Class,
    pub(crate) edns: Option<Edns>,
    pub(crate) flags: u16,
    pub(crate) reply_size: u16,
    pub(crate) offered_size: u16,
    pub(crate) listener: ListenerId,
    pub(crate) client: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) received_at: Instant,
    pub(crate) link: &'static str,
    pub(crate) cookie: Option<[u8; 24]>,
}

/// Header flag bits as they stand in the second 16-bit word of a message.
pub mod flags {
    #![allow(missing_docs, reason = "the names are RFC 1035's and RFC 4035's")]
    pub const QR: u16 = 0x8000;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const Z: u16 = 0x0040;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
}

impl Facts {
    /// The name asked for, lower-cased, in wire form.
    pub fn qname(&self) -> &[u8] {
        &self.qname[..usize::from(self.qname_len)]
    }
    /// The name as the client spelled it, in wire form.
    pub fn qname_as_spelled(&self) -> &[u8] {
        self.packet
            .get(12..12 + usize::from(self.qname_len))
            .unwrap_or_default()
    }
    /// The type asked for.
    pub fn qtype(&self) -> Rtype {
        self.qtype
    }
    /// The class asked for.
    pub fn qclass(&self) -> Class {
        self.qclass
    }
    /// The opcode.
    pub fn opcode(&self) -> Opcode {
        Opcode((self.flags >> 11) as u8 & 15)
    }
    /// The message ID the client chose.
    pub fn id(&self) -> u16 {
        match self.packet.first_chunk() {
            Some(id) => u16::from_be_bytes(*id),
            None => 0,
        }
    }
    /// The header's flag word, opcode and all, as plugins have left it.
    pub fn flags(&self) -> u16 {
        self.flags
    }
    /// RD: the client asks for recursion.
    pub fn recursion_desired(&self) -> bool {
        self.flags & flags::RD != 0
    }
    /// CD: the client does its own DNSSEC checks.
    pub fn checking_disabled(&self) -> bool {
        self.flags & flags::CD != 0
    }
    /// AD in a query: the client understands AD in the answer (RFC 6840 §5.7).
    pub fn authentic_data(&self) -> bool {
        self.flags & flags::AD != 0
    }
    /// The OPT record, if there is one.
    pub fn edns(&self) -> Option<&Edns> {
        self.edns.as_ref()
    }
    /// DO: the client wants DNSSEC records.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.flags & 0x8000 != 0)
    }
    /// The EDNS options, each with its code; ends at the first malformed one.
    pub fn options(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let (start, end) = self.edns.map_or((0, 0), |edns| edns.options);
        let mut rest = self
            .packet
            .get(usize::from(start)..usize::from(end))
            .unwrap_or_default();
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (data, tail) = tail.split_at_checked(len)?;
            rest = tail;
            Some((u16::from_be_bytes([head[0], head[1]]), data))
        })
    }
    /// The first EDNS option with this code.
    pub fn option(&self, code: u16) -> Option<&[u8]> {
        self.options()
            .find(|(found, _)| *found == code)
            .map(|(_, data)| data)
    }
    /// Where the query came from.
    pub fn client(&self) -> SocketAddr {
        self.client
    }
    /// The address it was sent to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
    /// How it came.
    pub fn transport(&self) -> Transport {
        self.transport
    }
    /// When it came: read once per batch of packets.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }
    /// The query as received, in octets.
    pub fn size(&self) -> usize {
        self.packet.len()
    }
    /// The query as received.
    pub fn packet(&self) -> &[u8] {
        &self.packet
    }
    /// The server block's zone that led here, lower-cased wire form.
    pub fn zone(&self) -> &[u8] {
        self.qname()
            .get(usize::from(self.zone_at)..)
            .unwrap_or_default()
    }
    /// The listener it came to.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }
    /// The UDP payload size that the OPT of the response says: ours, or what a plugin lowered it to.
    pub fn offered_size(&self) -> u16 {
        self.offered_size
    }
    /// Octets that the response may have, its OPT included.
    pub fn reply_size(&self) -> usize {
        usize::from(self.reply_size)
    }
    /// How many queries led to this one; 0 for a client's.
    pub fn depth(&self) -> u8 {
        self.depth
    }
    /// Whether the server asked itself (see [`Lookup`](super::lookup::Lookup)).
    pub fn is_internal(&self) -> bool {
        self.internal
    }
}

/// A slot: query, response under construction, and their buffers, used again and again.
pub struct Slot {
    pub(crate) facts: Facts,
    pub(crate) reply: Vec<u8>,
    pub(crate) options: Vec<u8>,
    pub(crate) names: Compressor,
    pub(crate) state: ReplyState,
}

impl Slot {
    /// An empty slot with room for an ordinary query and an ordinary response.
    pub fn new() -> Box<Slot> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Box::new(Slot {
            facts: Facts {
                packet: Vec::with_capacity(512),
                qname: [0; NAME_OCTETS_MAX],
                qname_len: 1,
                zone_at: 0,
                depth: 0,
                internal: false,
                transport: Transport::Udp,
                qtype: Rtype(0),
                qclass: Class(0),
                edns: None,
                flags: 0,
                reply_size: UDP_OCTETS_MIN,
                offered_size: UDP_OCTETS_MAX,
                listener: ListenerId(0),
                client: nowhere,
                local: nowhere,
                received_at: clock::now(),
                link: "",
                cookie: None,
            },
            reply: Vec::with_capacity(1232),
            options: Vec::new(),
            names: Compressor::default(),
            state: ReplyState::default(),
        })
    }
}

thread_local! {
    // A query that a panic unwinds past lands here, and the worker answers it (see `take_rescued`).
    #[allow(clippy::vec_box, reason = "a slot goes through the chain as one pointer")]
    static RESCUED: RefCell<Vec<Box<Slot>>> = const { RefCell::new(Vec::new()) };
}

/// The slot of a query or response that was dropped while a panic unwound on this thread.
pub fn take_rescued() -> Option<Query> {
    RESCUED.with_borrow_mut(Vec::pop).map(Query::from_slot)
}

pub(crate) fn rescue(slot: Option<Box<Slot>>) {
    if let Some(slot) = slot
        && std::thread::panicking()
        && !slot.facts.internal
    {
        RESCUED.with(|list| {
            if let Ok(mut list) = list.try_borrow_mut() {
                list.push(slot);
            }
        });
    }
}

/// One question under way. Reading is through [`Facts`], which it dereferences to.
#[must_use]
pub struct Query {
    slot: Option<Box<Slot>>,
}

impl Drop for Query {
    fn drop(&mut self) {
        rescue(self.slot.take());
    }
}

impl Deref for Query {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.slot().facts
    }
}

impl Query {
    /// Wraps a slot whose facts are filled in.
    pub fn from_slot(slot: Box<Slot>) -> Query {
        Query { slot: Some(slot) }
    }

    /// A question of our own, asked as `parent`'s client on its listener; DO and the other flags are `parent`'s.
    /// `None` when `parent` is [`DEPTH_MAX`] deep or `qname` is no wire-form name.
    pub fn internal(parent: &Facts, qname: &[u8], qtype: Rtype) -> Option<Query> {
        if parent.depth >= DEPTH_MAX || qname.is_empty() || qname.len() > NAME_OCTETS_MAX {
            return None;
        }
        let mut slot = Slot::new();
        let facts = &mut slot.facts;
        facts
            .packet
            .extend_from_slice(parent.packet.get(..2).unwrap_or(&[0, 0]));
        facts.packet.extend_from_slice(&parent.flags.to_be_bytes());
        facts.packet.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        facts.packet.extend_from_slice(qname);
        facts.packet.extend_from_slice(&qtype.0.to_be_bytes());
        facts.packet.extend_from_slice(&Class::IN.0.to_be_bytes());
        if let Some(edns) = parent.edns {
            let start = facts.packet.len() + 11;
            let options = parent
                .packet
                .get(usize::from(edns.options.0)..usize::from(edns.options.1));
            let options = options.unwrap_or_default();
            facts.packet.extend_from_slice(&[0, 0, 41]);
            facts.packet.extend_from_slice(&edns.udp_size.to_be_bytes());
            facts.packet.extend_from_slice(&[0, 0]);
            facts.packet.extend_from_slice(&edns.flags.to_be_bytes());
            facts
                .packet
                .extend_from_slice(&(options.len() as u16).to_be_bytes());
            facts.packet.extend_from_slice(options);
            facts.packet[11] = 1;
            facts.edns = Some(Edns {
                options: (start as u16, (start + options.len()) as u16),
                ..edns
            });
        }
        facts.qname[..qname.len()].copy_from_slice(qname);
        facts.qname[..qname.len()].make_ascii_lowercase();
        facts.qname_len = qname.len() as u8;
        facts.zone_at = 0;
        facts.depth = parent.depth + 1;
        facts.internal = true;
        facts.transport = parent.transport;
        facts.qtype = qtype;
        facts.qclass = Class::IN;
        facts.flags = parent.flags;
        // What we ask ourselves is never truncated.
        facts.reply_size = u16::MAX;
        facts.listener = parent.listener;
        facts.client = parent.client;
        facts.local = parent.local;
        facts.received_at = clock::now();
        Some(Query::from_slot(slot))
    }

    /// The same question once more, for work that outlives the client (prefetch, stale refresh).
    pub fn duplicate(parent: &Facts) -> Query {
        let mut slot = Slot::new();
        let facts = &mut slot.facts;
        facts.packet.extend_from_slice(&parent.packet);
        *facts = Facts {
            packet: std::mem::take(&mut facts.packet),
            qname: parent.qname,
            internal: true,
            received_at: clock::now(),
            ..*parent
        };
        Query::from_slot(slot)
    }

    pub(crate) fn slot(&self) -> &Slot {
        self.slot
            .as_deref()
            .expect("a query holds its slot until an ending takes it")
    }

    pub(crate) fn slot_mut(&mut self) -> &mut Slot {
        self.slot
            .as_deref_mut()
            .expect("a query holds its slot until an ending takes it")
    }

    pub(crate) fn into_slot(mut self) -> Box<Slot> {
        self.slot
            .take()
            .expect("a query holds its slot until an ending takes it")
    }

    /// Notes who has the query now: the name that metrics report for the answer.
    pub(crate) fn enter(&mut self, link: &'static str) {
        self.slot_mut().facts.link = link;
    }

    /// Where routing found the zone: an offset into the qname.
    pub(crate) fn set_zone_at(&mut self, offset: usize) {
        self.slot_mut().facts.zone_at = offset as u8;
    }

    /// Lowers the size that the response may have (and that the OPT of the response says), never raises it.
    pub fn limit_reply_size(&mut self, octets: u16) {
        let facts = &mut self.slot_mut().facts;
        let octets_sent = octets.max(UDP_OCTETS_MIN);
        facts.offered_size = facts.offered_size.min(octets_sent);
        if facts.transport == Transport::Udp {
            facts.reply_size = facts.reply_size.min(octets_sent);
        }
        if let Some(edns) = &mut facts.edns {
            edns.udp_size = edns.udp_size.min(octets);
        }
    }

    /// Sets or clears header flags (see [`flags`]) for the handlers behind this one; RD and CD of the response stay the client's.
    pub fn set_flags(&mut self, set: u16, clear: u16) {
        let flags = &mut self.slot_mut().facts.flags;
        *flags = (*flags | set) & !clear;
    }

    //--- Endings ------------------------------------------------------------------------------

    /// Starts an answer record by record: NOERROR, header and question in place, no flags but the client's RD and CD.
    pub fn answer(self) -> Answer {
        Answer::new(self)
    }

    /// Answers with a whole message as it came from an upstream or a store, its question being this one. ID and question's
    /// spelling are put right at the edge. `message` has no OPT (see `wire::writer::take_opt`).
    pub fn answer_wire(self, message: &[u8], source: Source) -> Response {
        let mut slot = self.into_slot();
        slot.begin_reply();
        slot.reply.extend_from_slice(message);
        slot.state.source = source;
        Response::from_slot(slot)
    }

    /// Answers with this rcode and nothing else.
    pub fn rcode(self, rcode: Rcode) -> Response {
        self.answer().rcode(rcode).done()
    }

    /// REFUSED: not our question (the end of a chain, a policy).
    pub fn refuse(self) -> Response {
        let mut response = self.rcode(Rcode::REFUSED);
        response.set_source(Source::Policy);
        response
    }

    /// The failure's rcode with its Extended DNS Error; the response carries the error for `errors` and `metrics`.
    pub fn fail(self, error: ServeError) -> Response {
        let mut response = self.rcode(error.rcode());
        response.set_source(Source::Failure);
        if let Some((code, text)) = error.ede() {
            response.add_ede(code, &text);
        }
        response.set_error(error);
        response
    }

    /// Sends nothing. A decision: count it where it is made.
    pub fn ignore(self) -> Response {
        let mut response = self.answer().done();
        response.set_ignored();
        response
    }
}

/// Capacity that a buffer of a slot keeps for the next query, in octets: ordinary messages fit, a worker's worth of large ones does not stay.
const BUFFER_KEPT: usize = 4096;

impl Slot {
    /// Lets go of what a large message or a failure left behind.
    pub(crate) fn recycle(&mut self) {
        for buffer in [&mut self.facts.packet, &mut self.reply, &mut self.options] {
            if buffer.capacity() > BUFFER_KEPT {
                buffer.clear();
                buffer.shrink_to(UDP_OCTETS_MAX.into());
            }
        }
        self.state.error = None;
    }

    /// Clears what an earlier reply left.
    pub(crate) fn begin_reply(&mut self) {
        self.reply.clear();
        self.options.clear();
        self.names.clear();
        self.state = ReplyState {
            link: self.facts.link,
            ..ReplyState::default()
        };
    }
}
