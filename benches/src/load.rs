//! The load generator: many clients on one thread, either as fast as the server answers (a window of outstanding queries) or at a fixed rate
//! whatever the server does (open loop: latency counts from the moment a query was due, so a stall is not hidden).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::link::{Link, Transport};
use crate::mmsg::{BATCH, Batch};

/// Sockets or connections, so that a server with several workers sees several clients.
pub(crate) const CLIENTS: usize = 16;
/// A query without an answer after this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// How hard to push.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// This many queries outstanding, always.
    Window(usize),
    /// This many queries a second.
    Rate(f64),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Queries sent.
    pub(crate) sent: u64,
    /// Answers received.
    pub(crate) answered: u64,
    /// Answers with an rcode other than NOERROR.
    pub(crate) failed: u64,
    /// Seconds it took.
    pub(crate) seconds: f64,
    /// Latencies.
    pub(crate) latency: Latency,
}

impl Outcome {
    /// Queries without a good answer.
    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.answered) + self.failed
    }
}

/// Latencies in buckets a few percent wide.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            buckets: vec![0; 64 * 16],
            count: 0,
        }
    }
}

impl Latency {
    /// One more.
    pub(crate) fn add(&mut self, latency: Duration) {
        let ns = (latency.as_nanos() as u64).max(1);
        let power = 63 - ns.leading_zeros() as usize;
        let fraction = if power >= 4 {
            (ns >> (power - 4)) as usize & 15
        } else {
            0
        };
        self.buckets[power * 16 + fraction] += 1;
        self.count += 1;
    }

    /// The latency that this share of the answers did not exceed.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let target = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= target.max(1) {
                let (power, fraction) = (i / 16, i % 16);
                let base = 1u64 << power;
                return Duration::from_nanos(base + base / 16 * fraction as u64);
            }
        }
        Duration::ZERO
    }
}

/// What to ask, in turn.
pub(crate) trait Queries {
    /// Writes the query number `n`, but for its ID, and returns its length.
    fn write(&self, n: u64, packet: &mut [u8; 512]) -> usize;
}

/// Queries that were made beforehand, again and again.
pub(crate) struct Ready(Vec<Vec<u8>>);

impl Queries for Ready {
    fn write(&self, n: u64, packet: &mut [u8; 512]) -> usize {
        let query = &self.0[(n % self.0.len() as u64) as usize];
        packet[..query.len()].copy_from_slice(query);
        query.len()
    }
}

/// A query of type A for each name.
pub(crate) fn queries(names: impl Iterator<Item = String>) -> Ready {
    let queries = names.map(|name| {
        let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        query
    });
    Ready(queries.collect())
}

/// Names that nobody asked before: 16 letters that depend on the part and the number.
pub(crate) struct Random(pub(crate) u64);

impl Queries for Random {
    fn write(&self, n: u64, packet: &mut [u8; 512]) -> usize {
        const QUERY: &[u8] =
            b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x100123456789abcdef\x05flood\x07example\x03org\0\0\x01\0\x01";
        packet[..QUERY.len()].copy_from_slice(QUERY);
        // A permutation of 64-bit numbers, so that no name comes twice.
        let mut mixed = (self.0 << 40 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 32;
        for letter in &mut packet[13..29] {
            *letter = b'a' + (mixed & 15) as u8;
            mixed >>= 4;
        }
        QUERY.len()
    }
}

/// A run of the generator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Where to.
    pub(crate) server: SocketAddr,
    /// By which transport.
    pub(crate) transport: Transport,
    /// From how many sockets.
    pub(crate) clients: usize,
    /// How hard.
    pub(crate) pace: Pace,
    /// How long.
    pub(crate) duration: Duration,
    /// At most this many queries.
    pub(crate) queries_max: u64,
}

impl Load {
    /// Over UDP from the usual number of clients.
    pub(crate) fn new(server: SocketAddr, pace: Pace, duration: Duration) -> Load {
        Load {
            server,
            transport: Transport::Udp,
            clients: CLIENTS,
            pace,
            duration,
            queries_max: u64::MAX,
        }
    }

    /// Asks.
    pub(crate) fn run(&self, queries: &impl Queries) -> io::Result<Outcome> {
        let mut clients = Vec::new();
        for _ in 0..self.clients {
            clients.push(Client {
                link: Link::connect(self.transport, self.server)?,
                due: vec![None; 1 << 16],
                next: 0,
                outstanding: 0,
            });
        }
        let mut generator = Generator {
            queries,
            outcome: Outcome::default(),
            outstanding: 0,
            batch: Batch::new(),
        };
        let start = Instant::now();
        let end = start + self.duration;
        let mut turn = 0;
        loop {
            let now = Instant::now();
            let left = self.queries_max.saturating_sub(generator.outcome.sent);
            if now >= end || left == 0 {
                break;
            }
            turn += 1;
            let client = &mut clients[turn % self.clients];
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            match self.pace {
                Pace::Window(window) => {
                    let room = window
                        .saturating_sub(generator.outstanding)
                        .min(window / self.clients + 1)
                        .min(left);
                    generator.send(client, room, |_| now)?;
                    generator.receive(client)?;
                }
                Pace::Rate(rate) => {
                    let sent = generator.outcome.sent;
                    let due = (now.duration_since(start).as_secs_f64() * rate) as u64;
                    let room = (due.saturating_sub(sent) as usize).min(left);
                    generator.send(client, room, |i| {
                        start + Duration::from_secs_f64((sent + i as u64) as f64 / rate)
                    })?;
                    // Whoever waits is looked at each time, so that an answer is seen when it comes.
                    for client in &mut clients {
                        generator.receive(client)?;
                    }
                }
            }
            // Lost queries must not shrink the window for ever.
            if turn % (CLIENTS * 4096) == 0 {
                generator.forget_lost(&mut clients, now);
            }
        }
        generator.outcome.seconds = start.elapsed().as_secs_f64();
        let patience = Instant::now() + Duration::from_millis(200);
        while generator.outstanding > 0 && Instant::now() < patience {
            for client in &mut clients {
                generator.receive(client)?;
            }
        }
        Ok(generator.outcome)
    }
}

struct Client {
    link: Link,
    // When the query with this ID was due; none if it is not outstanding.
    due: Vec<Option<Instant>>,
    next: u16,
    outstanding: usize,
}

struct Generator<'q, Q> {
    queries: &'q Q,
    outcome: Outcome,
    outstanding: usize,
    batch: Batch,
}

impl<Q: Queries> Generator<'_, Q> {
    fn send(
        &mut self,
        client: &mut Client,
        room: usize,
        due: impl Fn(usize) -> Instant,
    ) -> io::Result<()> {
        let count = room.min(BATCH);
        if count == 0 {
            return client.link.flush();
        }
        let mut packet = [0; 512];
        for i in 0..count {
            let length = self
                .queries
                .write(self.outcome.sent + i as u64, &mut packet);
            packet[..2].copy_from_slice(&client.next.wrapping_add(i as u16).to_be_bytes());
            self.batch.set(i, &packet[..length]);
        }
        let sent = client.link.send(&mut self.batch, count)?;
        for i in 0..sent {
            let slot = &mut client.due[usize::from(client.next.wrapping_add(i as u16))];
            // An ID that comes round again unanswered was lost.
            if slot.replace(due(i)).is_none() {
                self.outstanding += 1;
                client.outstanding += 1;
            }
        }
        client.next = client.next.wrapping_add(sent as u16);
        self.outcome.sent += sent as u64;
        Ok(())
    }

    fn receive(&mut self, client: &mut Client) -> io::Result<()> {
        if client.outstanding == 0 {
            return Ok(());
        }
        let Client {
            link,
            due,
            outstanding,
            ..
        } = client;
        let mut now = None;
        let outcome = &mut self.outcome;
        let all = &mut self.outstanding;
        link.receive(&mut self.batch, |answer| {
            let now = *now.get_or_insert_with(Instant::now);
            let [high, low, _, flags, ..] = *answer else {
                return;
            };
            if let Some(due) = due[usize::from(u16::from_be_bytes([high, low]))].take() {
                *all -= 1;
                *outstanding -= 1;
                outcome.answered += 1;
                outcome.failed += u64::from(flags & 15 != 0);
                outcome.latency.add(now.saturating_duration_since(due));
            }
        })
    }

    fn forget_lost(&mut self, clients: &mut [Client], now: Instant) {
        for client in clients {
            for slot in &mut client.due {
                if slot.is_some_and(|due| now.saturating_duration_since(due) > LOST_AFTER) {
                    *slot = None;
                    client.outstanding -= 1;
                    self.outstanding -= 1;
                }
            }
        }
    }
}
