//! The query as an upstream gets it, and what is asked of a reply before it is believed (RFC 5452 §9.1).

use crate::kit::query::{Facts, Query, flags};
use crate::kit::response::{Response, Source};
use crate::kit::wire::message::{self, HEADER_OCTETS};
use crate::kit::wire::{Opcode, Rcode, Rtype, name, writer};

/// The UDP payload size we let an upstream use, in octets: what passes every path unfragmented (DNS Flag Day 2020).
pub(super) const UDP_SIZE_MAX: u16 = 1232;
/// EDNS options that belong to one hop: COOKIE (RFC 7873 §5) and TCP-KEEPALIVE (RFC 7828 §3.1).
const HOP_BY_HOP: [u16; 2] = [10, 11];

/// An EDNS option that a query carries to say how it came: its code and its one octet.
pub(super) type Mark = (u16, u8);

/// Writes the query for an upstream behind what is in `out`: the client's flags, question and options under an ID of our own.
pub(super) fn write_query(out: &mut Vec<u8>, facts: &Facts, id: u16, mark: Option<Mark>) {
    // RFC 1035 §4.1.1: Z is zero in all queries; QR, TC, RA and the rcode mean nothing in one.
    let passed = 0x7800 | flags::AA | flags::RD | flags::AD | flags::CD;
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&(facts.flags() & passed).to_be_bytes());
    let has_opt = facts.edns().is_some() || mark.is_some();
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(has_opt)]);
    write_question(out, facts);
    if !has_opt {
        return;
    }
    // Without an OPT of the client's, its limit holds (RFC 6891 §6.2.3).
    let (udp_size, edns_flags) = facts
        .edns()
        .map_or((512, 0), |edns| (edns.udp_size, edns.flags));
    out.extend_from_slice(&[0, 0, 41]);
    out.extend_from_slice(&udp_size.min(UDP_SIZE_MAX).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&edns_flags.to_be_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0, 0]);
    for (code, data) in facts.options() {
        if !HOP_BY_HOP.contains(&code) {
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(data);
        }
    }
    if let Some((code, octet)) = mark {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(&[0, 1, octet]);
    }
    let length = (out.len() - length_at - 2) as u16;
    if let Some(bytes) = out.get_mut(length_at..length_at + 2) {
        bytes.copy_from_slice(&length.to_be_bytes());
    }
}

/// The question section, the name as the client spelled it.
pub(super) fn write_question(out: &mut Vec<u8>, facts: &Facts) {
    out.extend_from_slice(facts.qname_as_spelled());
    out.extend_from_slice(&facts.qtype().0.to_be_bytes());
    out.extend_from_slice(&facts.qclass().0.to_be_bytes());
}

/// A question of our own: a probe, a host name to look up.
pub(super) fn write_own_query(out: &mut Vec<u8>, id: u16, rd: bool, qname: &[u8], qtype: Rtype) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[u8::from(rd), 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(qname);
    out.extend_from_slice(&qtype.0.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
}

/// What a message from an upstream is, its ID being right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The reply.
    Good,
    /// The reply says that there is more over TCP; `usable` if what is there is a whole message.
    Truncated { usable: bool },
    /// It answers another question, or is no reply at all: somebody else's, or forged.
    Mismatch,
    /// It answers ours but cannot be read.
    Malformed,
}

/// Judges a message against the question section that was sent.
pub(super) fn judge(reply: &[u8], question: &[u8], opcode: Opcode) -> Verdict {
    let Some(header) = reply.first_chunk::<HEADER_OCTETS>() else {
        return Verdict::Mismatch;
    };
    let is_reply = header[2] & 0x80 != 0;
    let one_question = header[4..6] == [0, 1];
    if !is_reply || (header[2] >> 3) & 15 != opcode.0 || !one_question {
        return Verdict::Mismatch;
    }
    let answered = reply.get(HEADER_OCTETS..HEADER_OCTETS + question.len());
    if !answered.is_some_and(|answered| is_same_question(answered, question)) {
        return Verdict::Mismatch;
    }
    let readable = message::check(reply).is_ok();
    match (header[2] & 0x02 != 0, readable) {
        (true, usable) => Verdict::Truncated { usable },
        (false, true) => Verdict::Good,
        (false, false) => Verdict::Malformed,
    }
}

/// Names are compared without regard to case (RFC 4343), type and class octet by octet.
fn is_same_question(a: &[u8], b: &[u8]) -> bool {
    match (a.split_last_chunk::<4>(), b.split_last_chunk::<4>()) {
        (Some((name_a, rest_a)), Some((name_b, rest_b))) => {
            rest_a == rest_b && name::eq_ignore_case(name_a, name_b)
        }
        _ => false,
    }
}

/// Whether the query carries a TSIG record: it is signed for us, and an upstream could not check it (RFC 8945 §5.1).
pub(super) fn has_tsig(facts: &Facts) -> bool {
    let packet = facts.packet();
    let additional = packet
        .get(10..12)
        .map_or(0, |n| u16::from_be_bytes([n[0], n[1]]));
    if additional <= u16::from(facts.edns().is_some()) {
        return false;
    }
    message::records(packet).is_ok_and(|records| {
        records
            .map_while(Result::ok)
            .any(|record| record.rtype == Rtype::TSIG)
    })
}

/// What the OPT record of a reply said, once it is out of the message.
pub(super) struct Opened {
    /// The rcode, extended bits included.
    pub(super) rcode: Rcode,
    /// The options, in wire form.
    options: Vec<u8>,
}

/// Takes the OPT record out of a reply.
pub(super) fn open(reply: &mut Vec<u8>) -> Opened {
    let (high, _, options) = writer::take_opt(reply).unwrap_or_default();
    let low = reply.get(3).map_or(0, |byte| byte & 15);
    Opened {
        rcode: Rcode(u16::from(high) << 4 | u16::from(low)),
        options,
    }
}

/// Whether a reply is an empty NOERROR: the name is there, or what is behind it, and the type is not.
pub(super) fn is_nodata(reply: &[u8], rcode: Rcode) -> bool {
    rcode == Rcode::NOERROR && reply.get(6..8) == Some(&[0, 0])
}

/// Answers the query with the reply.
pub(super) fn respond(query: Query, reply: &[u8], opened: &Opened) -> Response {
    let mut response = query.answer_wire(reply, Source::Upstream);
    if opened.rcode.0 > 15 {
        response.set_rcode(opened.rcode);
    }
    if !opened.options.is_empty() {
        response.add_options_wire(&opened.options);
        for code in HOP_BY_HOP {
            response.remove_option(code);
        }
    }
    response
}
