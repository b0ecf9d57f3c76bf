//! UDP to upstreams: a pool of connected sockets per worker and upstream, on ports of our own choosing.
//!
//! ```text
//!   query ──send──▶ random socket of the pool, random ID ──▶ upstream
//!     │ waits on its entry                                      │
//!     ◀── wake ── reader: one task per worker, one readiness queue ◀─┘
//! ```
//! What an attacker who cannot see the traffic must guess is the port and the ID (RFC 5452 §4.5): both come from a
//! CSPRNG, each query draws its socket anew, and a socket lives for 128 queries or 10 s. The sockets are connected, so the
//! kernel lets through only what comes from the upstream's address and port, and reports a closed port at once.
//!
//! A wrong message never ends a wait. After [`MISMATCHES_MAX`] of them somebody is guessing: the queries on that socket
//! go to TCP, the socket goes away.
//!
//! All sockets of a worker are in one readiness queue of mio's, which is itself watched by tokio: one wake-up and one
//! call read the events of many sockets, where a tokio socket each would be a task woken each.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Registry, Token};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::kit::clock::{self, Instant};
use crate::kit::errors::UpstreamFault;
use crate::kit::wire::Opcode;

use super::message::{self, Verdict};
use super::upstream::Upstream;

/// Sockets of a pool: one pool per worker and upstream. Sixteen bits of port times this many open at once.
pub(super) const POOL_SOCKETS: usize = 64;
/// Queries that a socket may send before it is replaced.
pub(super) const SOCKET_QUERIES_MAX: u8 = 128;
/// How long a socket may live.
pub(super) const SOCKET_AGE_MAX: Duration = Duration::from_secs(10);
/// Wrong messages seen during one wait before the query moves to TCP.
pub(super) const MISMATCHES_MAX: u32 = 8;
/// Ports that were taken, one after the other, before we give up.
const PORT_TRIES_MAX: usize = 64;
/// The lowest port we send from; those below belong to well-known services.
const PORT_MIN: u16 = 1024;
/// How often deadlines and ages are looked at while a socket is open.
const TICK: Duration = Duration::from_millis(50);
/// Octets of a reply; we ask for 1,232 at most, and what is longer is asked for again over TCP.
const REPLY_OCTETS_MAX: usize = 4096;
/// Events read at once.
const EVENTS_MAX: usize = 256;
/// Messages read from one socket before the others get their turn.
const READS_MAX: usize = 256;

/// A worker's sockets.
pub(super) struct Sockets {
    state: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    // Wakes the reader when there is something to look after, or nothing any more.
    stir: Arc<Notify>,
    source: Option<IpAddr>,
    age_max: Duration,
    // Sockets that a pool may have: POOL_SOCKETS, or fewer where descriptors are short.
    width: usize,
}

#[derive(Default)]
struct Inner {
    registry: Option<Registry>,
    pools: Vec<[Option<usize>; POOL_SOCKETS]>,
    sockets: Vec<Option<Socket>>,
    free_sockets: Vec<usize>,
    waits: Vec<Wait>,
    free_waits: Vec<usize>,
    packet: Vec<u8>,
    upstreams: Vec<Arc<Upstream>>,
}

struct Socket {
    socket: UdpSocket,
    upstream: usize,
    opened_at: Instant,
    queries: u8,
    // Out of its pool: closed when nobody waits on it any more.
    retired: bool,
    mismatches: u32,
    // ID and entry of those who wait.
    waiting: Vec<(u16, usize)>,
    // IDs whose reply nobody waits for any more: when it comes after all, it is late and not forged.
    given_up: Vec<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    // A truncated reply is here; a whole one may still come.
    Truncated { usable: bool },
    Replied,
    TimedOut,
    Refused(io::ErrorKind),
    Guessed,
}

struct Wait {
    state: State,
    upstream: usize,
    socket: usize,
    id: u16,
    opcode: Opcode,
    mismatches_before: u32,
    sent_at: Instant,
    replied_at: Instant,
    deadline: Instant,
    waker: Option<Waker>,
    // Both keep their capacity for the next query.
    question: Vec<u8>,
    reply: Vec<u8>,
}

/// How a wait ended.
pub(super) enum Outcome {
    /// The reply is in the ticket.
    Replied,
    /// A truncated reply is in the ticket; unless it is `usable`, one may wait on.
    Truncated { usable: bool },
    /// Somebody is guessing: ask over TCP.
    Guessed,
}

impl Sockets {
    pub(super) fn new(
        upstreams: &[Arc<Upstream>],
        source: Option<IpAddr>,
        age_max: Duration,
        width: usize,
    ) -> Self {
        Sockets {
            state: Arc::new(Shared {
                inner: Mutex::new(Inner {
                    pools: upstreams.iter().map(|_| [None; POOL_SOCKETS]).collect(),
                    upstreams: upstreams.to_vec(),
                    ..Inner::default()
                }),
                stir: Arc::default(),
                source,
                age_max,
                width: width.clamp(1, POOL_SOCKETS),
            }),
        }
    }

    /// Sends a query that `write` writes, given its ID; `question` writes what the reply must repeat.
    pub(super) fn send(
        &self,
        upstream: usize,
        address: SocketAddr,
        timeout: Duration,
        opcode: Opcode,
        question: impl FnOnce(&mut Vec<u8>),
        write: impl FnOnce(&mut Vec<u8>, u16),
    ) -> Result<Ticket<'_>, UpstreamFault> {
        let shared = &*self.state;
        let mut inner = shared.lock();
        if inner.registry.is_none() {
            inner.registry = Some(start_reader(&self.state).map_err(unreachable)?);
        }
        let now = clock::now();
        let random: u64 = rand::random();
        let slot = random as usize % shared.width;
        let at = inner
            .socket_for(upstream, slot, address, now, shared)
            .map_err(unreachable)?;

        let Inner {
            sockets,
            waits,
            free_waits,
            packet,
            ..
        } = &mut *inner;
        let Some(Some(socket)) = sockets.get_mut(at) else {
            return Err(UpstreamFault::Unreachable("no socket".into()));
        };
        let id = socket.free_id((random >> 32) as u16);
        packet.clear();
        write(packet, id);
        if let Err(error) = socket.socket.send(packet) {
            // What an earlier query met (a closed port) is told to whoever calls next: it is true of those as well.
            let kind = error.kind();
            let mut wakers = Vec::new();
            inner.fail_socket(at, kind, &mut wakers);
            drop(inner);
            wake(&mut wakers);
            return Err(unreachable(error));
        }
        socket.queries += 1;
        let entry = free_waits.pop().unwrap_or_else(|| {
            waits.push(Wait::new(now));
            waits.len() - 1
        });
        socket.waiting.push((id, entry));
        if let Some(wait) = waits.get_mut(entry) {
            wait.state = State::Waiting;
            wait.upstream = upstream;
            wait.socket = at;
            wait.id = id;
            wait.opcode = opcode;
            wait.mismatches_before = socket.mismatches;
            wait.sent_at = now;
            wait.deadline = now + timeout;
            wait.question.clear();
            question(&mut wait.question);
        }
        Ok(Ticket {
            shared,
            entry,
            timeout,
        })
    }

    /// Sockets that are open, of all pools.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.state.lock().sockets.iter().flatten().count()
    }

    /// The most queries that any open socket has sent.
    #[cfg(test)]
    pub(super) fn queries_max(&self) -> u8 {
        let inner = self.state.lock();
        let sockets = inner.sockets.iter().flatten();
        sockets.map(|socket| socket.queries).max().unwrap_or(0)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // The reader holds no share of the state while it sleeps; it wakes, finds nothing, and ends.
        self.state.stir.notify_one();
    }
}

fn unreachable(error: io::Error) -> UpstreamFault {
    UpstreamFault::Unreachable(error.to_string())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

//--- Tickets ---------------------------------------------------------------------------------------

/// A query under way. Dropping it gives the wait up.
pub(super) struct Ticket<'s> {
    shared: &'s Shared,
    entry: usize,
    timeout: Duration,
}

impl Ticket<'_> {
    /// Waits for a reply, the deadline, or a fault.
    pub(super) fn outcome(&self) -> impl Future<Output = Result<Outcome, UpstreamFault>> + Send {
        poll_fn(|cx| self.poll(cx))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Outcome, UpstreamFault>> {
        let mut inner = self.shared.lock();
        let Some(wait) = inner.waits.get_mut(self.entry) else {
            return Poll::Ready(Err(UpstreamFault::Closed));
        };
        Poll::Ready(match wait.state {
            State::Waiting => {
                match &mut wait.waker {
                    Some(waker) if waker.will_wake(cx.waker()) => {}
                    other => *other = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            State::Replied => Ok(Outcome::Replied),
            State::Truncated { usable } => Ok(Outcome::Truncated { usable }),
            State::Guessed => Ok(Outcome::Guessed),
            State::TimedOut => Err(UpstreamFault::Timeout(self.timeout)),
            State::Refused(kind) => Err(UpstreamFault::Unreachable(kind.to_string())),
        })
    }

    /// After [`Outcome::Truncated`]: waits on for a whole reply.
    pub(super) fn wait_on(&self) {
        let mut inner = self.shared.lock();
        let Inner { waits, sockets, .. } = &mut *inner;
        if let Some(wait) = waits.get_mut(self.entry)
            && matches!(wait.state, State::Truncated { .. })
        {
            let listening = sockets.get(wait.socket).and_then(Option::as_ref);
            let listening = listening
                .is_some_and(|socket| socket.waiting.iter().any(|(_, entry)| *entry == self.entry));
            wait.state = match listening {
                true => State::Waiting,
                // The socket went away meanwhile: nothing will come.
                false => State::TimedOut,
            };
        }
    }

    /// The reply, and how long it took.
    pub(super) fn with_reply<T>(&self, f: impl FnOnce(&mut Vec<u8>, Duration) -> T) -> Option<T> {
        let mut inner = self.shared.lock();
        let wait = inner.waits.get_mut(self.entry)?;
        let took = wait.replied_at.saturating_duration_since(wait.sent_at);
        Some(f(&mut wait.reply, took))
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.give_up(self.entry);
        let waker = inner
            .waits
            .get_mut(self.entry)
            .and_then(|wait| wait.waker.take());
        inner.free_waits.push(self.entry);
        drop(inner);
        // A waker's own drop may do anything: never under the lock.
        drop(waker);
    }
}

impl Wait {
    fn new(now: Instant) -> Wait {
        Wait {
            state: State::Waiting,
            upstream: 0,
            socket: 0,
            id: 0,
            opcode: Opcode(0),
            mismatches_before: 0,
            sent_at: now,
            replied_at: now,
            deadline: now,
            waker: None,
            question: Vec::new(),
            reply: Vec::new(),
        }
    }

    fn end(&mut self, state: State, wakers: &mut Vec<Waker>) {
        self.state = state;
        wakers.extend(self.waker.take());
    }
}

//--- Sockets ---------------------------------------------------------------------------------------

impl Socket {
    /// Whether it may send one more query.
    fn is_fit(&self, now: Instant, age_max: Duration) -> bool {
        self.queries < SOCKET_QUERIES_MAX && now.saturating_duration_since(self.opened_at) < age_max
    }

    /// An ID that nobody on this socket uses or used in vain. There are at most 128 of those.
    fn free_id(&self, mut id: u16) -> u16 {
        while self.waiting.iter().any(|(used, _)| *used == id) || self.given_up.contains(&id) {
            id = rand::random();
        }
        id
    }
}

impl Inner {
    /// The socket in this place of the upstream's pool; a new one if there is none or it is worn out.
    fn socket_for(
        &mut self,
        upstream: usize,
        slot: usize,
        address: SocketAddr,
        now: Instant,
        shared: &Shared,
    ) -> io::Result<usize> {
        let current = self.pools.get(upstream).and_then(|pool| pool[slot]);
        if let Some(at) = current {
            match self.sockets.get(at) {
                Some(Some(socket)) if socket.is_fit(now, shared.age_max) => {
                    self.metrics_of(upstream, |metrics| metrics.reused(false));
                    return Ok(at);
                }
                _ => self.retire(at),
            }
        }
        let socket = match open(address, shared.source) {
            Ok(socket) => socket,
            // Out of descriptors or ports: a smaller pool is better than no answer.
            Err(error) => match self.stand_in(upstream, slot, now, shared.age_max) {
                Some(at) => {
                    self.metrics_of(upstream, |metrics| metrics.reused(false));
                    return Ok(at);
                }
                None => return Err(error),
            },
        };
        let at = self.free_sockets.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.sockets.len() - 1
        });
        if let Some(registry) = &self.registry {
            let fd = socket.as_raw_fd();
            let registered = registry.register(&mut SourceFd(&fd), Token(at), Interest::READABLE);
            if let Err(error) = registered {
                self.free_sockets.push(at);
                return Err(error);
            }
        }
        self.sockets[at] = Some(Socket {
            socket,
            upstream,
            opened_at: now,
            queries: 0,
            retired: false,
            mismatches: 0,
            waiting: Vec::new(),
            given_up: Vec::new(),
        });
        if let Some(pool) = self.pools.get_mut(upstream) {
            pool[slot] = Some(at);
        }
        self.metrics_of(upstream, |metrics| metrics.opened(false));
        shared.stir.notify_one();
        Ok(at)
    }

    /// Another socket of the pool, the first one behind `slot` that is not worn out.
    fn stand_in(
        &self,
        upstream: usize,
        slot: usize,
        now: Instant,
        age_max: Duration,
    ) -> Option<usize> {
        let pool = self.pools.get(upstream)?;
        let others = pool.iter().cycle().skip(slot).take(POOL_SOCKETS);
        others
            .flatten()
            .copied()
            .find(|at| match self.sockets.get(*at) {
                Some(Some(socket)) => socket.is_fit(now, age_max),
                _ => false,
            })
    }

    fn metrics_of(&self, upstream: usize, count: impl FnOnce(&super::upstream::UpstreamMetrics)) {
        if let Some(upstream) = self.upstreams.get(upstream) {
            count(&upstream.metrics);
        }
    }

    /// Takes a socket out of its pool, and closes it if nobody waits on it.
    fn retire(&mut self, at: usize) {
        let Some(Some(socket)) = self.sockets.get_mut(at) else {
            return;
        };
        socket.retired = true;
        let upstream = socket.upstream;
        if let Some(pool) = self.pools.get_mut(upstream)
            && let Some(place) = pool.iter_mut().find(|place| **place == Some(at))
        {
            *place = None;
        }
        self.close_if_done(at);
    }

    fn close_if_done(&mut self, at: usize) {
        if let Some(place) = self.sockets.get_mut(at)
            && place
                .as_ref()
                .is_some_and(|socket| socket.retired && socket.waiting.is_empty())
        {
            // Closing takes it out of the readiness queue as well: nobody else holds the descriptor.
            *place = None;
            self.free_sockets.push(at);
        }
    }

    /// Ends a wait from the waiter's side.
    fn give_up(&mut self, entry: usize) {
        let Some(wait) = self.waits.get(entry) else {
            return;
        };
        let (at, id) = (wait.socket, wait.id);
        if !matches!(wait.state, State::Waiting | State::Truncated { .. }) {
            return;
        }
        if let Some(Some(socket)) = self.sockets.get_mut(at) {
            if wait.state == State::Waiting {
                socket.given_up.push(id);
            }
            socket.waiting.retain(|(_, waiter)| *waiter != entry);
            self.close_if_done(at);
        }
    }

    /// Everybody on this socket fails with it.
    fn fail_socket(&mut self, at: usize, kind: io::ErrorKind, wakers: &mut Vec<Waker>) {
        self.end_all(at, State::Refused(kind), wakers);
        self.retire(at);
    }

    fn end_all(&mut self, at: usize, state: State, wakers: &mut Vec<Waker>) {
        let Some(Some(socket)) = self.sockets.get_mut(at) else {
            return;
        };
        for (_, entry) in socket.waiting.drain(..) {
            if let Some(wait) = self.waits.get_mut(entry)
                && wait.state == State::Waiting
            {
                wait.end(state, wakers);
            }
        }
    }

    /// Reads what has come to a socket. Stops when nobody waits on it: the next message makes a new event.
    fn read(&mut self, at: usize, buffer: &mut [u8], now: Instant, wakers: &mut Vec<Waker>) {
        for _ in 0..READS_MAX {
            let Some(Some(socket)) = self.sockets.get_mut(at) else {
                return;
            };
            match socket.socket.recv(buffer) {
                Ok(length) => {
                    let message = buffer.get(..length).unwrap_or_default();
                    self.arrived(at, message, now, wakers);
                    match self.sockets.get(at) {
                        Some(Some(socket)) if !socket.waiting.is_empty() => {}
                        _ => return,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail_socket(at, error.kind(), wakers);
                    return;
                }
            }
        }
    }

    /// A message: somebody's reply, or not.
    fn arrived(&mut self, at: usize, message: &[u8], now: Instant, wakers: &mut Vec<Waker>) {
        let Some(Some(socket)) = self.sockets.get_mut(at) else {
            return;
        };
        let upstream = socket.upstream;
        let id = message.first_chunk().map(|id| u16::from_be_bytes(*id));
        let place = socket
            .waiting
            .iter()
            .position(|(waiting, _)| Some(*waiting) == id);
        let Some(place) = place else {
            let late = id.and_then(|id| socket.given_up.iter().position(|late| *late == id));
            match late {
                Some(late) => {
                    socket.given_up.swap_remove(late);
                }
                None => self.mismatched(at, wakers),
            }
            self.metrics_of(upstream, |metrics| metrics.mismatched());
            return;
        };
        let entry = socket.waiting[place].1;
        let Some(wait) = self.waits.get_mut(entry) else {
            return;
        };
        let mut verdict = message::judge(message, &wait.question, wait.opcode);
        if message.len() >= REPLY_OCTETS_MAX && verdict != Verdict::Mismatch {
            verdict = Verdict::Truncated { usable: false };
        }
        match verdict {
            Verdict::Good => {
                socket.waiting.swap_remove(place);
                wait.reply.clear();
                wait.reply.extend_from_slice(message);
                wait.replied_at = now;
                wait.end(State::Replied, wakers);
                self.close_if_done(at);
            }
            Verdict::Truncated { usable } => {
                if wait.state == State::Waiting {
                    wait.reply.clear();
                    wait.reply.extend_from_slice(message);
                    wait.replied_at = now;
                    wait.end(State::Truncated { usable }, wakers);
                }
            }
            Verdict::Malformed => {
                self.mismatched(at, wakers);
                self.metrics_of(upstream, |metrics| metrics.malformed());
            }
            Verdict::Mismatch => {
                self.mismatched(at, wakers);
                self.metrics_of(upstream, |metrics| metrics.mismatched());
            }
        }
    }

    /// Counts a wrong message against everybody who waits on the socket; whoever has seen too many goes to TCP.
    fn mismatched(&mut self, at: usize, wakers: &mut Vec<Waker>) {
        let Some(Some(socket)) = self.sockets.get_mut(at) else {
            return;
        };
        socket.mismatches += 1;
        let mismatches = socket.mismatches;
        let waits = &mut self.waits;
        let mut guessed = false;
        socket
            .waiting
            .retain(|(_, entry)| match waits.get_mut(*entry) {
                Some(wait) if mismatches - wait.mismatches_before >= MISMATCHES_MAX => {
                    guessed = true;
                    if wait.state == State::Waiting {
                        wait.end(State::Guessed, wakers);
                    }
                    false
                }
                _ => true,
            });
        if guessed {
            self.retire(at);
        }
    }

    /// Ends waits past their deadline, closes sockets past their age. Returns whether any socket is left.
    fn tick(&mut self, now: Instant, age_max: Duration, wakers: &mut Vec<Waker>) -> bool {
        if self.free_waits.len() == self.waits.len() {
            // Nobody waits: the buffers of a burst go back to the allocator.
            self.waits.clear();
            self.waits.shrink_to(POOL_SOCKETS);
            self.free_waits.clear();
            self.free_waits.shrink_to(POOL_SOCKETS);
        }
        let mut left = false;
        for at in 0..self.sockets.len() {
            let Some(Some(socket)) = self.sockets.get_mut(at) else {
                continue;
            };
            let waits = &mut self.waits;
            let given_up = &mut socket.given_up;
            socket
                .waiting
                .retain(|(id, entry)| match waits.get_mut(*entry) {
                    Some(wait) if wait.state == State::Waiting && wait.deadline <= now => {
                        given_up.push(*id);
                        wait.end(State::TimedOut, wakers);
                        false
                    }
                    _ => true,
                });
            if now.saturating_duration_since(socket.opened_at) >= age_max {
                self.retire(at);
            } else {
                self.close_if_done(at);
            }
            left |= self.sockets.get(at).is_some_and(Option::is_some);
        }
        if !left {
            self.sockets = Vec::new();
            self.free_sockets = Vec::new();
        }
        left
    }
}

/// A connected socket on a port of our own choosing.
pub(super) fn open(address: SocketAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let kind = socket2::Type::DGRAM.nonblocking().cloexec();
    let domain = socket2::Domain::for_address(address);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES_MAX {
        let socket = socket2::Socket::new(domain, kind, Some(socket2::Protocol::UDP))?;
        match socket.bind(&source_address(address, source, random_port()).into()) {
            Ok(()) => {
                socket.connect(&address.into())?;
                return Ok(socket.into());
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// A port from a CSPRNG, all of 1024 to 65535 alike (RFC 5452 §9.2).
pub(super) fn random_port() -> u16 {
    rand::random_range(PORT_MIN..=u16::MAX)
}

/// The address to send from.
pub(super) fn source_address(to: SocketAddr, source: Option<IpAddr>, port: u16) -> SocketAddr {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    };
    // A source of the other family cannot be bound to; such an upstream is asked from any address.
    let source = source.filter(|source| source.is_ipv4() == to.is_ipv4());
    SocketAddr::new(source.unwrap_or(any), port)
}

/// Sockets that each of so many pools may have: together they take half of the descriptors that the process may open, so that
/// none is left without and clients still get in.
pub(super) fn width_for(pools: usize) -> usize {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<usize>().ok());
    // Not to be read, or `unlimited`: no reason to hold back.
    let descriptors = soft.unwrap_or(usize::MAX);
    (descriptors / 2 / pools.max(1)).clamp(1, POOL_SOCKETS)
}

//--- The reader ------------------------------------------------------------------------------------

/// Starts the worker's reader on this thread's runtime.
fn start_reader(shared: &Arc<Shared>) -> io::Result<Registry> {
    let runtime = tokio::runtime::Handle::try_current()
        .map_err(|_| io::Error::other("no runtime on this thread"))?;
    let queue = mio::Poll::new()?;
    let registry = queue.registry().try_clone()?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe because the descriptor must stay open and the same; a `Poll` owns its own and keeps it"
    )]
    let queue = AsyncFd::with_interest(queue, tokio::io::Interest::READABLE)?;
    let reader = Reader {
        shared: Arc::downgrade(shared),
        stir: Arc::clone(&shared.stir),
    };
    runtime.spawn(reader.run(queue));
    Ok(registry)
}

struct Reader {
    shared: Weak<Shared>,
    stir: Arc<Notify>,
}

impl Reader {
    async fn run(self, mut queue: AsyncFd<mio::Poll>) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; REPLY_OCTETS_MAX];
        let mut wakers = Vec::new();
        let tick = tokio::time::sleep(TICK);
        tokio::pin!(tick);
        let mut ticking = true;
        loop {
            tokio::select! {
                biased;
                ready = queue.readable_mut() => {
                    let Ok(mut ready) = ready else { return };
                    let Some(shared) = self.shared.upgrade() else { return };
                    if ready.get_inner_mut().poll(&mut events, Some(Duration::ZERO)).is_err() {
                        continue;
                    }
                    let now = clock::now();
                    let mut inner = shared.lock();
                    for event in &events {
                        inner.read(event.token().0, &mut buffer, now, &mut wakers);
                    }
                    drop(inner);
                    if events.iter().count() < EVENTS_MAX {
                        ready.clear_ready();
                    }
                }
                () = self.stir.notified() => {
                    if self.shared.strong_count() == 0 {
                        return;
                    }
                    if !ticking {
                        ticking = true;
                        tick.as_mut().reset(clock::now() + TICK);
                    }
                }
                () = &mut tick, if ticking => {
                    let Some(shared) = self.shared.upgrade() else { return };
                    let now = clock::now();
                    ticking = shared.lock().tick(now, shared.age_max, &mut wakers);
                    tick.as_mut().reset(now + TICK);
                }
            }
            wake(&mut wakers);
        }
    }
}

impl Drop for Reader {
    /// The runtime ended (a test's, or a worker's): the next query starts a new reader, with sockets of its own.
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut wakers = Vec::new();
        let mut inner = shared.lock();
        inner.registry = None;
        for at in 0..inner.sockets.len() {
            inner.fail_socket(at, io::ErrorKind::ConnectionAborted, &mut wakers);
        }
        drop(inner);
        wake(&mut wakers);
    }
}

fn wake(wakers: &mut Vec<Waker>) {
    for waker in wakers.drain(..) {
        waker.wake();
    }
}
