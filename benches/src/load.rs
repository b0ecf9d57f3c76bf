//! The load generator: many clients on one thread, either as fast as the server answers (a window of outstanding queries) or at a fixed rate
//! whatever the server does (open loop: latency counts from the moment a query was due, so a stall is not hidden).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::mmsg::{BATCH, Batch};

/// Sockets, so that a server with several workers sees several clients.
const CLIENTS: usize = 16;
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
    fn add(&mut self, latency: Duration) {
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

struct Client {
    socket: UdpSocket,
    // When the query with this ID was due; none if it is not outstanding.
    due: Vec<Option<Instant>>,
    next: u16,
}

/// A query of type A for each name, ready but for its ID.
pub(crate) fn queries(names: impl Iterator<Item = String>) -> Vec<Vec<u8>> {
    names
        .map(|name| {
            let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in name.split('.').filter(|label| !label.is_empty()) {
                query.push(label.len() as u8);
                query.extend_from_slice(label.as_bytes());
            }
            query.extend_from_slice(&[0, 0, 1, 0, 1]);
            query
        })
        .collect()
}

/// Asks `queries` in turn at `server` for `duration`.
pub(crate) fn run(
    server: SocketAddr,
    queries: &[Vec<u8>],
    pace: Pace,
    duration: Duration,
) -> io::Result<Outcome> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        let raw = socket2::SockRef::from(&socket);
        raw.set_recv_buffer_size(4 << 20)?;
        raw.set_send_buffer_size(4 << 20)?;
        socket.connect(server)?;
        clients.push(Client {
            socket,
            due: vec![None; 1 << 16],
            next: 0,
        });
    }
    let mut generator = Generator {
        queries,
        at: 0,
        outcome: Outcome::default(),
        outstanding: 0,
        batch: Batch::new(),
    };
    let start = Instant::now();
    let end = start + duration;
    let mut turn = 0;
    loop {
        let now = Instant::now();
        if now >= end {
            break;
        }
        let client = &mut clients[turn % CLIENTS];
        turn += 1;
        match pace {
            Pace::Window(window) => {
                let room = window
                    .saturating_sub(generator.outstanding)
                    .min(window / CLIENTS + 1);
                generator.send(client, room, now, |_| now)?;
            }
            Pace::Rate(rate) => {
                let due = (now.duration_since(start).as_secs_f64() * rate) as u64;
                let room = due.saturating_sub(generator.outcome.sent) as usize;
                let sent = generator.outcome.sent;
                generator.send(client, room, now, |i| {
                    start + Duration::from_secs_f64((sent + i as u64) as f64 / rate)
                })?;
            }
        }
        generator.receive(client)?;
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

struct Generator<'q> {
    queries: &'q [Vec<u8>],
    at: usize,
    outcome: Outcome,
    outstanding: usize,
    batch: Batch,
}

impl Generator<'_> {
    fn send(
        &mut self,
        client: &mut Client,
        room: usize,
        now: Instant,
        due: impl Fn(usize) -> Instant,
    ) -> io::Result<()> {
        let count = room.min(BATCH);
        if count == 0 {
            return Ok(());
        }
        let mut packet = [0; 512];
        for i in 0..count {
            let query = &self.queries[(self.at + i) % self.queries.len()];
            packet[..query.len()].copy_from_slice(query);
            packet[..2].copy_from_slice(&client.next.wrapping_add(i as u16).to_be_bytes());
            self.batch.set(i, &packet[..query.len()]);
        }
        let sent = self.batch.send(&client.socket, count)?;
        for i in 0..sent {
            let slot = &mut client.due[usize::from(client.next.wrapping_add(i as u16))];
            // An ID that comes round again unanswered was lost.
            if slot.replace(due(i).min(now)).is_none() {
                self.outstanding += 1;
            }
        }
        client.next = client.next.wrapping_add(sent as u16);
        self.at = (self.at + sent) % self.queries.len();
        self.outcome.sent += sent as u64;
        Ok(())
    }

    fn receive(&mut self, client: &mut Client) -> io::Result<()> {
        let received = self.batch.receive(&client.socket)?;
        if received == 0 {
            return Ok(());
        }
        let now = Instant::now();
        for i in 0..received {
            let [high, low, _, flags, ..] = *self.batch.get(i) else {
                continue;
            };
            if let Some(due) = client.due[usize::from(u16::from_be_bytes([high, low]))].take() {
                self.outstanding -= 1;
                self.outcome.answered += 1;
                self.outcome.failed += u64::from(flags & 15 != 0);
                self.outcome.latency.add(now.saturating_duration_since(due));
            }
        }
        Ok(())
    }

    fn forget_lost(&mut self, clients: &mut [Client], now: Instant) {
        for slot in clients.iter_mut().flat_map(|client| &mut client.due) {
            if slot.is_some_and(|due| now.saturating_duration_since(due) > LOST_AFTER) {
                *slot = None;
                self.outstanding -= 1;
            }
        }
    }
}
