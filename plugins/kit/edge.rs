//! The edge: bytes in, [`Query`] or an immediate answer out; [`Response`] in, bytes out. All hop-by-hop duties are here, so that no
//! plugin ever sees them: malformed messages, opcodes, EDNS versions, cookies, sizes, truncation, the client's ID and spelling. No I/O.
//!
//! ```text
//!   packet ──accept──▶ Query ──▶ the chain ──▶ Response ──finish──▶ Reply ──▶ packet
//!             │  └───▶ Reply (FORMERR, NOTIMP, BADVERS, a cookie)
//!             └──────▶ Silence (too short, a response, port 0)
//! ```
//! `edge/accept.rs` judges what comes, `edge/finish.rs` fits what goes, `edge/cookie.rs` makes server cookies.

mod accept;
mod cookie;
mod finish;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use self::cookie::Secret;
use super::clock::Instant;
use super::metrics::{Counter, CounterTable, Metrics};
use super::query::{ListenerId, Query, Slot, Transport};
use super::response::{Response, Source};
use super::wire::Rcode;
use super::wire::message::HEADER_OCTETS;
use super::wire::writer::MESSAGE_OCTETS_MAX;

/// The UDP payload size that we offer and never pass, in octets: it arrives unfragmented almost everywhere (DNS flag day 2020).
pub const UDP_OCTETS_MAX: u16 = 1232;
/// What any client takes over UDP, in octets (RFC 1035 §4.2.1, RFC 6891 §6.2.3).
pub const UDP_OCTETS_MIN: u16 = 512;

/// Slots of a worker: made on demand up to a cap, kept for the next query, trimmed once a second.
#[expect(
    clippy::vec_box,
    reason = "a slot goes through the chain as one pointer"
)]
pub struct Slots {
    free: Vec<Box<Slot>>,
    made: usize,
    max: usize,
    // The fewest that lay unused since the last trim.
    unused: usize,
}

/// Slots that a trim leaves, whatever was unused.
const SLOTS_KEPT: usize = 64;

impl Slots {
    /// None yet, `max` at most.
    pub fn new(max: usize) -> Slots {
        Slots {
            free: Vec::new(),
            made: 0,
            max,
            unused: 0,
        }
    }

    /// A slot; `None` when all are in use: drop the packet and count it.
    pub fn take(&mut self) -> Option<Box<Slot>> {
        match self.free.pop() {
            Some(slot) => {
                self.unused = self.unused.min(self.free.len());
                Some(slot)
            }
            None if self.made < self.max => {
                self.made += 1;
                self.unused = 0;
                Some(Slot::new())
            }
            None => None,
        }
    }

    /// Gives a slot back; buffers that a large message has grown are let go.
    pub fn give(&mut self, mut slot: Box<Slot>) {
        slot.recycle();
        if self.free.len() < self.made {
            self.free.push(slot);
        }
    }

    /// A slot was lost (a future was dropped with it): another one may be made.
    pub fn lost(&mut self) {
        self.made = self.made.saturating_sub(1);
    }

    /// Slots under way.
    pub fn in_use(&self) -> usize {
        self.made - self.free.len()
    }

    /// Once a second: frees those that lay unused the whole second, down to 64. Returns whether it freed any.
    pub fn trim(&mut self) -> bool {
        let surplus = self
            .unused
            .min(self.free.len())
            .min(self.made.saturating_sub(SLOTS_KEPT));
        self.free.truncate(self.free.len() - surplus);
        self.made -= surplus;
        self.unused = self.free.len();
        surplus > 0
    }
}

/// A packet (or a TCP message without its length) as it arrived.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    /// Its octets.
    pub packet: &'a [u8],
    /// From where.
    pub client: SocketAddr,
    /// To which address.
    pub local: SocketAddr,
    /// How.
    pub transport: Transport,
    /// On which listener.
    pub listener: ListenerId,
    /// When: one clock reading per batch.
    pub received_at: Instant,
}

/// What the edge makes of an arrival.
pub enum Accepted {
    /// A query for the chain.
    Query(Query),
    /// Answered at the edge: FORMERR, NOTIMP, BADVERS, a cookie.
    Reply(Reply),
    /// Not to be answered (under 12 octets, QR=1, port 0); the slot comes back.
    Silence(Box<Slot>),
}

/// A finished message.
pub struct Reply {
    slot: Box<Slot>,
}

impl Reply {
    /// Its octets, ready to send.
    pub fn bytes(&self) -> &[u8] {
        &self.slot.reply
    }
    /// Where to.
    pub fn client(&self) -> SocketAddr {
        self.slot.facts.client
    }
    /// From which address.
    pub fn local(&self) -> SocketAddr {
        self.slot.facts.local
    }
    /// On which listener.
    pub fn listener(&self) -> ListenerId {
        self.slot.facts.listener
    }
    /// The slot, for the next query.
    pub fn into_slot(self) -> Box<Slot> {
        self.slot
    }
}

/// The edge of a process: its cookie secret and its counters. Shared by all workers, never written but for its counters.
pub struct Edge {
    secret: Secret,
    panics: Counter,
    answers: CounterTable,
    malformed: Counter,
    responses: Counter,
    port_zero: Counter,
}

/// The rcodes of answers that no chain gave, as the metric lists them.
const ANSWERS: [(Rcode, &str); 5] = [
    (Rcode::NOERROR, "NOERROR"),
    (Rcode::FORMERR, "FORMERR"),
    (Rcode::NOTIMP, "NOTIMP"),
    (Rcode::BADVERS, "BADVERS"),
    (Rcode::SERVFAIL, "SERVFAIL"),
];

impl Edge {
    /// A new edge with a random cookie secret; keep it over reloads.
    pub fn new(metrics: &Metrics) -> Arc<Edge> {
        Arc::new(Edge::with_secret(metrics, Secret::random()))
    }

    fn with_secret(metrics: &Metrics, secret: Secret) -> Edge {
        let dropped = |reason| {
            let help = "Packets that were not answered, by reason.";
            metrics.counter("skeindns_server_dropped_total", help, &[("reason", reason)])
        };
        Edge {
            secret,
            panics: metrics.counter(
                "coredns_panics_total",
                "Panics, each answered with SERVFAIL.",
                &[],
            ),
            answers: metrics.table(
                "skeindns_edge_answers_total",
                "Answers given without the chain, by rcode.",
                &[],
                &[("rcode", &ANSWERS.map(|(_, mnemonic)| mnemonic))],
            ),
            malformed: dropped("malformed"),
            responses: dropped("response"),
            port_zero: dropped("port0"),
        }
    }

    /// Judges a packet; `slot` is filled with it. No allocation for a query that fits the slot.
    pub fn accept(&self, mut slot: Box<Slot>, arrival: Arrival<'_>) -> Accepted {
        if let Some(reason) = self.reason_for_silence(&arrival) {
            reason.inc();
            return Accepted::Silence(slot);
        }
        accept::fill(&mut slot, &arrival);
        match accept::judge(&mut slot.facts, &self.secret) {
            Ok(()) => Accepted::Query(Query::from_slot(slot)),
            Err(verdict) => {
                self.count_answer(verdict.rcode());
                accept::answer(&mut slot, verdict);
                Accepted::Reply(Reply { slot })
            }
        }
    }

    /// The counter of what is not even told that it is wrong: no header to copy an ID from, a response (answering one starts a loop,
    /// CVE-2024-2169), a port that nobody listens on.
    fn reason_for_silence(&self, arrival: &Arrival<'_>) -> Option<&Counter> {
        let len = arrival.packet.len();
        if !(HEADER_OCTETS..=MESSAGE_OCTETS_MAX).contains(&len) {
            Some(&self.malformed)
        } else if arrival.packet.get(2).is_none_or(|b| b & 0x80 != 0) {
            Some(&self.responses)
        } else if arrival.client.port() == 0 {
            Some(&self.port_zero)
        } else {
            None
        }
    }

    /// Makes the bytes that the client gets; the slot alone when nothing is to be sent.
    pub fn finish(&self, response: Response) -> Result<Reply, Box<Slot>> {
        let is_ignored = response.is_ignored();
        let mut slot = response.into_slot();
        if is_ignored {
            return Err(slot);
        }
        if !finish::answers_the_question(&mut slot) {
            // Never the answer to another question, whatever went wrong in the chain.
            self.count_answer(Rcode::SERVFAIL);
            slot = Query::from_slot(slot).rcode(Rcode::SERVFAIL).into_slot();
        }
        finish::fit(&mut slot);
        Ok(Reply { slot })
    }

    /// SERVFAIL for a query that a panic unwound past (see `query::take_rescued`); counts `coredns_panics_total`.
    pub fn panicked(&self, query: Query) -> Result<Reply, Box<Slot>> {
        self.panics.inc();
        let mut response = query.rcode(Rcode::SERVFAIL);
        response.set_source(Source::Failure);
        self.finish(response)
    }

    fn count_answer(&self, rcode: Rcode) {
        if let Some(at) = ANSWERS.iter().position(|(listed, _)| *listed == rcode) {
            self.answers.inc(&[at]);
        }
    }
}
