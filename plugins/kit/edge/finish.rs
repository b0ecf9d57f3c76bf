//! The way out: a response becomes what this client may get, in this many octets.

use super::accept::DNSSEC_OK;
use super::cookie::COOKIE;
use crate::kit::query::{Facts, Slot, flags};
use crate::kit::response::client_flags;
use crate::kit::wire::message::HEADER_OCTETS;
use crate::kit::wire::{Opcode, Rcode, name, writer};

/// Octets of an OPT record without options.
const OPT_OCTETS: usize = 11;
/// Octets of an option's code and length.
const OPTION_HEAD: usize = 4;
/// The EDNS option that is about one TCP connection (RFC 7828 §3.1).
const TCP_KEEPALIVE: u16 = 11;
/// The EDNS option that fills one message (RFC 7830 §3).
const PADDING: u16 = 12;

/// Whether the reply's question is the client's; if it is, it gets the client's spelling (a resolver may check it to tell forgeries).
pub(super) fn answers_the_question(slot: &mut Slot) -> bool {
    let name_end = HEADER_OCTETS + usize::from(slot.facts.qname_len);
    let Some(asked) = slot.facts.packet.get(HEADER_OCTETS..name_end + 4) else {
        return false;
    };
    let Some(reply) = slot.reply.get_mut(..name_end + 4) else {
        return false;
    };
    let (header, question) = reply.split_at_mut(HEADER_OCTETS);
    if header[4..6] != [0, 1] {
        return false;
    }
    if question == asked {
        return true;
    }
    let same = name::eq_ignore_case(&question[..question.len() - 4], &asked[..asked.len() - 4])
        && question[question.len() - 4..] == asked[asked.len() - 4..];
    if same {
        question.copy_from_slice(asked);
    }
    same
}

/// Puts ID and flags right, cuts to size, adds the OPT. The reply has a header and the client's question.
pub(super) fn fit(slot: &mut Slot) {
    let facts = &slot.facts;
    // RFC 6891 §6.1.3: without an OPT there are four bits of rcode, and the low ones of another code would say something else.
    let rcode = match facts.edns {
        None if slot.state.rcode_high != 0 => Some(Rcode::SERVFAIL),
        _ => None,
    };
    if let (Some(header), Some(id)) = (
        slot.reply.first_chunk_mut::<4>(),
        facts.packet.first_chunk::<2>(),
    ) {
        let mut word = flags_for(facts, u16::from_be_bytes([header[2], header[3]]));
        if let Some(rcode) = rcode {
            word = word & !15 | rcode.0;
        }
        let [high, low] = word.to_be_bytes();
        *header = [id[0], id[1], high, low];
    }
    let size = facts.reply_size();
    if facts.edns.is_some() {
        writer::truncate(
            &mut slot.reply,
            size.saturating_sub(OPT_OCTETS + cookie_octets(facts)),
        );
        append_opt(slot);
    } else {
        writer::truncate(&mut slot.reply, size);
    }
}

/// The flag word of a response as this client gets it.
fn flags_for(facts: &Facts, word: u16) -> u16 {
    let client = client_flags(facts);
    let opcode = client & 0x7800;
    let mut word = word & !(0x7800 | flags::RD | flags::CD | flags::Z) | flags::QR | opcode;
    if opcode >> 11 == u16::from(Opcode::QUERY.0) {
        word |= client & (flags::RD | flags::CD);
    }
    // RFC 6840 §5.8: AD only for who asked for it, with DO or with AD.
    if client & flags::AD == 0 && !facts.dnssec_ok() {
        word &= !flags::AD;
    }
    word
}

fn cookie_octets(facts: &Facts) -> usize {
    match &facts.cookie {
        Some(cookie) => OPTION_HEAD + cookie.len(),
        None => 0,
    }
}

/// Appends our OPT: our size, version 0, DO as the client had it (RFC 3225 §3), the cookie, and of the options gathered what still fits.
pub(super) fn append_opt(slot: &mut Slot) {
    let Slot {
        facts,
        reply,
        options,
        state,
        ..
    } = slot;
    let Some(edns) = facts.edns else {
        return;
    };
    let start = reply.len();
    let [size_high, size_low] = facts.offered_size.to_be_bytes();
    let [flags_high, flags_low] = (edns.flags & DNSSEC_OK).to_be_bytes();
    // Root, type 41, class: the size, TTL: extended rcode, version and flags, length.
    reply.extend_from_slice(&[
        0,
        0,
        41,
        size_high,
        size_low,
        state.rcode_high,
        0,
        flags_high,
        flags_low,
        0,
        0,
    ]);
    if let Some(cookie) = &facts.cookie {
        append_option(reply, COOKIE, cookie);
    }
    if !options.is_empty() {
        append_options(reply, options, facts.reply_size());
    }
    let octets = (reply.len() - start - OPT_OCTETS) as u16;
    if let Some(length) = reply.get_mut(start + 9..start + OPT_OCTETS) {
        length.copy_from_slice(&octets.to_be_bytes());
    }
    if let Some(count) = reply.get_mut(10..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *count = u16::from_be_bytes(*count).saturating_add(1).to_be_bytes();
    }
}

fn append_options(reply: &mut Vec<u8>, options: &[u8], size: usize) {
    let mut rest = options;
    while let Some((head, tail)) = rest.split_first_chunk::<OPTION_HEAD>() {
        let code = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let Some((data, tail)) = tail.split_at_checked(len) else {
            return;
        };
        rest = tail;
        // These are between two hosts and never an upstream's word for our client.
        let is_ours = matches!(code, COOKIE | TCP_KEEPALIVE | PADDING);
        if !is_ours && reply.len() + OPTION_HEAD + len <= size {
            append_option(reply, code, data);
        }
    }
}

fn append_option(reply: &mut Vec<u8>, code: u16, data: &[u8]) {
    reply.extend_from_slice(&code.to_be_bytes());
    reply.extend_from_slice(&(data.len() as u16).to_be_bytes());
    reply.extend_from_slice(data);
}
