//! The edge: bytes in, [`Query`] or an immediate answer out; [`Response`] in, bytes out. All hop-by-hop duties are here, so that no
//! plugin ever sees them: malformed messages, opcodes, EDNS versions, cookies, sizes, truncation, the client's ID and spelling. No I/O.

use std::net::SocketAddr;
use std::sync::Arc;

use super::clock::Instant;
use super::metrics::Metrics;
use super::query::{ListenerId, Query, Slot, Transport};
use super::response::Response;

/// Slots of a worker: made on demand up to a cap, kept for the next query, trimmed once a second.
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

    /// Gives a slot back.
    pub fn give(&mut self, slot: Box<Slot>) {
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
    // see `Edge::new`
    metrics: Metrics,
}

impl Edge {
    /// A new edge with a random cookie secret; keep it over reloads.
    pub fn new(metrics: &Metrics) -> Arc<Edge> {
        Arc::new(Edge {
            metrics: metrics.clone(),
        })
    }

    /// Judges a packet; `slot` is filled with it. No allocation for a query that fits the slot.
    pub fn accept(&self, _slot: Box<Slot>, _arrival: Arrival<'_>) -> Accepted {
        let _ = &self.metrics;
        todo!()
    }

    /// Makes the bytes that the client gets; the slot alone when nothing is to be sent.
    pub fn finish(&self, _response: Response) -> Result<Reply, Box<Slot>> {
        todo!()
    }

    /// SERVFAIL for a query that a panic unwound past (see `query::take_rescued`); counts `coredns_panics_total`.
    pub fn panicked(&self, _query: Query) -> Result<Reply, Box<Slot>> {
        todo!()
    }
}
