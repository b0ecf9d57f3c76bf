//! The way in: what a packet is, and what is answered without the chain.

use super::cookie::{COOKIE, COOKIE_OCTETS, Secret};
use super::{Arrival, UDP_OCTETS_MAX, UDP_OCTETS_MIN, finish};
use crate::kit::clock;
use crate::kit::query::{Edns, Facts, Slot, Transport, flags};
use crate::kit::response::client_flags;
use crate::kit::wire::message::{self, HEADER_OCTETS, RecordView};
use crate::kit::wire::{Class, Opcode, Rcode, Rtype, Section};

/// The flag of an OPT record that we know: DO (RFC 3225 §3).
pub(super) const DNSSEC_OK: u16 = 0x8000;

/// An answer that needs no chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// An opcode that we do not serve.
    NotImplemented,
    /// Malformed before the end of the question: a header is all we answer.
    Malformed,
    /// Malformed behind the question, which is echoed.
    MalformedBehind,
    /// An EDNS version that we do not speak.
    BadVersion,
    /// No question, but a cookie: the client asks for ours (RFC 7873 §5.4).
    Cookie,
}

impl Verdict {
    pub(super) fn rcode(self) -> Rcode {
        match self {
            Verdict::NotImplemented => Rcode::NOTIMP,
            Verdict::Malformed | Verdict::MalformedBehind => Rcode::FORMERR,
            Verdict::BadVersion => Rcode::BADVERS,
            Verdict::Cookie => Rcode::NOERROR,
        }
    }
}

/// Puts the packet into the slot and forgets the query before.
pub(super) fn fill(slot: &mut Slot, arrival: &Arrival<'_>) {
    let facts = &mut slot.facts;
    facts.packet.clear();
    facts.packet.extend_from_slice(arrival.packet);
    facts.qname[0] = 0;
    facts.qname_len = 1;
    facts.zone_at = 0;
    facts.depth = 0;
    facts.internal = false;
    facts.transport = arrival.transport;
    facts.qtype = Rtype(0);
    facts.qclass = Class(0);
    facts.edns = None;
    facts.flags = client_flags(facts);
    facts.reply_size = match arrival.transport {
        Transport::Udp => UDP_OCTETS_MIN,
        Transport::Tcp => u16::MAX,
    };
    facts.offered_size = UDP_OCTETS_MAX;
    facts.listener = arrival.listener;
    facts.client = arrival.client;
    facts.local = arrival.local;
    facts.received_at = arrival.received_at;
    facts.link = "";
    facts.cookie = None;
}

/// Reads the packet of `facts`, which has a header, into the rest of them.
pub(super) fn judge(facts: &mut Facts, secret: &Secret) -> Result<(), Verdict> {
    if !matches!(facts.opcode(), Opcode::QUERY | Opcode::NOTIFY) {
        return Err(Verdict::NotImplemented);
    }
    let header = facts.packet.first_chunk::<HEADER_OCTETS>();
    let header = header.ok_or(Verdict::Malformed)?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (questions, answers, authorities, additionals) = (count(4), count(6), count(8), count(10));
    // One authority record is an IXFR's SOA (RFC 1995 §3), two additional ones are OPT and TSIG; CoreDNS lets one answer pass too.
    if answers > 1 || authorities > 1 || additionals > 2 {
        return Err(Verdict::Malformed);
    }
    if questions == 0 {
        return Err(without_question(facts, secret));
    }
    // RFC 9619: a query has one question.
    let question = message::question(&facts.packet).map_err(|_| Verdict::Malformed)?;
    facts.qtype = question.qtype;
    facts.qclass = question.qclass;
    let spelled = facts.packet.get(HEADER_OCTETS..question.name_end);
    let spelled = spelled.ok_or(Verdict::Malformed)?;
    let qname = facts.qname.get_mut(..spelled.len());
    let qname = qname.ok_or(Verdict::Malformed)?;
    qname.copy_from_slice(spelled);
    qname.make_ascii_lowercase();
    facts.qname_len = spelled.len() as u8;
    if answers | authorities | additionals == 0 {
        return Ok(());
    }
    read_records(facts, secret)
}

/// RFC 7873 §5.4: a query without a question is for a cookie, or it is malformed.
fn without_question(facts: &mut Facts, secret: &Secret) -> Verdict {
    match read_records(facts, secret) {
        Ok(()) if facts.cookie.is_some() => Verdict::Cookie,
        Err(Verdict::BadVersion) => Verdict::BadVersion,
        _ => Verdict::Malformed,
    }
}

/// Reads what is behind the question: at most one OPT, in the additional section.
fn read_records(facts: &mut Facts, secret: &Secret) -> Result<(), Verdict> {
    let malformed = |_| Verdict::MalformedBehind;
    let mut opt = None;
    for record in message::records(&facts.packet).map_err(malformed)? {
        let record = record.map_err(malformed)?;
        if record.rtype != Rtype::OPT {
            message::check_record(&facts.packet, &record).map_err(malformed)?;
            continue;
        }
        // RFC 6891 §6.1.1: one OPT, in the additional section; §6.1.2: of the root.
        let of_root = record.fixed == record.start + 1;
        if record.section != Section::Additional || !of_root || opt.is_some() {
            return Err(Verdict::MalformedBehind);
        }
        opt = Some(record);
    }
    match opt {
        Some(opt) => read_opt(facts, &opt, secret),
        None => Ok(()),
    }
}

fn read_opt(facts: &mut Facts, opt: &RecordView, secret: &Secret) -> Result<(), Verdict> {
    // RFC 6891 §6.1.3: the TTL holds extended rcode, version and flags.
    let version = (opt.ttl >> 16) as u8;
    let at = |offset: usize| u16::try_from(offset).map_err(|_| Verdict::MalformedBehind);
    facts.edns = Some(Edns {
        udp_size: opt.class.0,
        version,
        flags: opt.ttl as u16,
        options: (at(opt.rdata.start)?, at(opt.rdata.end)?),
    });
    if facts.transport == Transport::Udp {
        // RFC 6891 §6.2.3: less than 512 octets means 512.
        facts.reply_size = opt.class.0.clamp(UDP_OCTETS_MIN, UDP_OCTETS_MAX);
    }
    let options = if opt.rdata.is_empty() {
        Ok(())
    } else {
        read_options(facts, opt, secret)
    };
    // RFC 6891 §6.1.3: BADVERS whatever else is in it, since what the options of another version look like is not ours to judge.
    if version != 0 {
        return Err(Verdict::BadVersion);
    }
    options
}

/// Checks that the options fill the record, and answers the first cookie; what else there is stays where it is.
fn read_options(facts: &mut Facts, opt: &RecordView, secret: &Secret) -> Result<(), Verdict> {
    let mut rest = facts.packet.get(opt.rdata.clone()).unwrap_or_default();
    while !rest.is_empty() {
        let (head, tail) = rest
            .split_first_chunk::<4>()
            .ok_or(Verdict::MalformedBehind)?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (data, tail) = tail.split_at_checked(len).ok_or(Verdict::MalformedBehind)?;
        rest = tail;
        if u16::from_be_bytes([head[0], head[1]]) == COOKIE && facts.cookie.is_none() {
            let seconds = clock::unix_now().as_secs() as u32;
            let cookie = secret.answer(data, facts.client.ip(), seconds);
            facts.cookie = Some(cookie.ok_or(Verdict::MalformedBehind)?);
        }
    }
    Ok(())
}

/// Writes the answer that needs no chain.
pub(super) fn answer(slot: &mut Slot, verdict: Verdict) {
    slot.begin_reply();
    let facts = &slot.facts;
    let client = client_flags(facts);
    let word = flags::QR
        | match verdict {
            // RFC 8906 §3.1.4: the opcode comes back, nothing else does.
            Verdict::NotImplemented => client & 0x7800,
            // As CoreDNS: whatever the opcode was, the answer is to a query.
            _ if facts.opcode() != Opcode::QUERY => 0,
            _ => client & (flags::RD | flags::CD),
        };
    let low = verdict.rcode().0 & 15;
    let question = match verdict {
        Verdict::MalformedBehind | Verdict::BadVersion
            if facts.packet.get(4..6) == Some(&[0, 1]) =>
        {
            let end = HEADER_OCTETS + usize::from(facts.qname_len) + 4;
            facts.packet.get(HEADER_OCTETS..end)
        }
        _ => None,
    };
    let reply = &mut slot.reply;
    reply.extend_from_slice(facts.packet.get(..2).unwrap_or(&[0, 0]));
    reply.extend_from_slice(&(word | low).to_be_bytes());
    reply.extend_from_slice(&[0, u8::from(question.is_some()), 0, 0, 0, 0, 0, 0]);
    reply.extend_from_slice(question.unwrap_or_default());
    if matches!(verdict, Verdict::BadVersion | Verdict::Cookie) {
        if let (Verdict::BadVersion, Some(edns)) = (verdict, &mut slot.facts.edns) {
            // The flags of another version may mean something else.
            edns.flags &= !DNSSEC_OK;
        }
        slot.state.rcode_high = (verdict.rcode().0 >> 4) as u8;
        finish::append_opt(slot);
    }
}

const _: () = assert!(
    COOKIE_OCTETS < UDP_OCTETS_MIN as usize,
    "a cookie always fits"
);
