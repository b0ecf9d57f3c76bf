//! Connections: length framing, pipelining, answers in the order in which they are ready (RFC 7766 §6.2.1.1).
//!
//! A connection is a task that outlives generations: when one retires it stops taking messages, answers what is under way, and goes on with
//! the next. An idle connection owns no buffers; what is read and written passes through its worker's, and only what is left over is kept.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use skein_plugins::kit::clock::{self, Instant};
use skein_plugins::kit::edge::{Arrival, Reply};
use skein_plugins::kit::metrics::Gauge;
use skein_plugins::kit::query::Transport;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::limits::{
    ACCEPT_PAUSE, DESCRIPTORS_RESERVED, TCP_CONNECTIONS_MAX, TCP_EVICTED, TCP_FIRST, TCP_IDLE,
    TCP_MANY, TCP_MESSAGE, TCP_OUTPUT_MAX, TCP_OUTPUT_SOFT, TCP_QUERIES_MAX, TCP_READ, TCP_WRITE,
};
use crate::worker::{Current, Ended, Listening, Outcome, Phase, UnderWay, Worker};

/// Octets of the length in front of a message (RFC 1035 §4.2.2).
const LENGTH_OCTETS: usize = 2;

/// Accepts until nobody serves the address any more. Never waits for a peer.
pub(crate) async fn accept(worker: Rc<Worker>, listening: Rc<Listening>) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = listening.closed.notified() => return,
            accepted = listening.tcp.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let Some(place) = Place::take(&worker) else {
                    // Everybody who is here is being answered.
                    continue;
                };
                let (worker, listening) = (Rc::clone(&worker), Rc::clone(&listening));
                tokio::task::spawn_local(converse(worker, listening, stream, client, place));
            }
            // The peer was quick to change its mind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::debug!("accepting on {}: {error}", listening.local);
                worker.connections.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

//--- The table of connections ----------------------------------------------------------------------

/// The connections of a worker.
pub(crate) struct Connections {
    seats: RefCell<HashMap<u64, Rc<Seat>>>,
    next: Cell<u64>,
    max: usize,
    open: Gauge,
}

struct Seat {
    // None while something is under way.
    idle_since: Cell<Option<Instant>>,
    evicted: Cell<bool>,
    leave: Notify,
}

/// A connection's place in the table; it ends with it.
pub(crate) struct Place {
    worker: Rc<Worker>,
    number: u64,
    seat: Rc<Seat>,
}

impl Connections {
    /// None yet, `max` at most.
    pub(crate) fn new(max: usize, open: Gauge) -> Connections {
        Connections {
            seats: RefCell::default(),
            next: Cell::new(0),
            max,
            open,
        }
    }

    /// Asks those who have been idle longest to leave; how many it were.
    fn make_room(&self) -> usize {
        let seats = self.seats.borrow();
        let mut idle: Vec<(Instant, &Seat)> = seats
            .values()
            .filter(|seat| !seat.evicted.get())
            .filter_map(|seat| Some((seat.idle_since.get()?, &**seat)))
            .collect();
        let count = idle.len().min(TCP_EVICTED);
        if count < idle.len() {
            idle.select_nth_unstable_by_key(count, |(since, _)| *since);
        }
        for (_, seat) in idle.iter().take(count) {
            seat.evicted.set(true);
            seat.leave.notify_one();
        }
        count
    }
}

impl Place {
    /// A place, made free if need be; `None` when nobody is idle.
    fn take(worker: &Rc<Worker>) -> Option<Place> {
        let table = &worker.connections;
        if table.seats.borrow().len() >= table.max && table.make_room() == 0 {
            return None;
        }
        let number = table.next.get();
        table.next.set(number + 1);
        let seat = Rc::new(Seat {
            idle_since: Cell::new(Some(clock::now())),
            evicted: Cell::new(false),
            leave: Notify::new(),
        });
        table.seats.borrow_mut().insert(number, Rc::clone(&seat));
        table.open.add(1);
        Some(Place {
            worker: Rc::clone(worker),
            number,
            seat,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let table = &self.worker.connections;
        let mut seats = table.seats.borrow_mut();
        seats.remove(&self.number);
        table.open.add(-1);
        if seats.len() == TCP_MANY {
            seats.shrink_to(TCP_MANY);
            self.worker.mark_untidy();
        }
    }
}

//--- A connection ----------------------------------------------------------------------------------

async fn converse(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    stream: TcpStream,
    client: SocketAddr,
    place: Place,
) {
    // Answers are small and somebody waits for each.
    stream.set_nodelay(true).ok();
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let mut connection = Connection::new(stream, canonical(client), canonical(local), place);
    let mut timer = pin!(tokio::time::sleep_until(connection.deadline(0)));
    while let Some(current) = listening.current() {
        let end = connection
            .serve(&worker, &listening, &current, timer.as_mut())
            .await;
        if end == End::Closed {
            return;
        }
    }
}

/// An IPv4 address that came in through a socket for both families, as itself.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(ip.into(), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Why a generation is done with a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It is closed.
    Closed,
    /// The generation retires; the next one goes on.
    Retired,
}

struct Connection {
    stream: TcpStream,
    client: SocketAddr,
    local: SocketAddr,
    place: Place,
    // What has been read but not taken: mostly nothing, else the beginning of a message.
    input: Vec<u8>,
    // What could not be written, from `written` on.
    output: Vec<u8>,
    written: usize,
    // The peer will say no more.
    is_ended: bool,
    is_first: bool,
    // When the last whole message came, when the message in `input` began, when the peer last took something.
    active_at: Instant,
    begun_at: Instant,
    written_at: Instant,
}

/// What a step came to.
enum Step {
    /// Wait for something.
    Wait,
    /// There is more to do at once.
    Again,
    /// The connection cannot be used any more.
    Close,
}

impl Connection {
    fn new(stream: TcpStream, client: SocketAddr, local: SocketAddr, place: Place) -> Connection {
        let now = clock::now();
        Connection {
            stream,
            client,
            local,
            place,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            is_ended: false,
            is_first: true,
            active_at: now,
            begun_at: now,
            written_at: now,
        }
    }

    /// Serves the connection with one generation.
    async fn serve(
        &mut self,
        worker: &Worker,
        listening: &Listening,
        current: &Current,
        mut timer: Pin<&mut Sleep>,
    ) -> End {
        let mut phase = current.generation.phase.subscribe();
        let mut waiting: FuturesUnordered<UnderWay<'_>> = FuturesUnordered::new();
        let mut early = None;
        loop {
            let now = *phase.borrow_and_update();
            let closing = now != Phase::Serve && listening.is_closing();
            // What a closing listener was sent before it closes is still answered.
            let reads = now == Phase::Serve || (now == Phase::Retire && closing);
            let step = poll_fn(|cx| {
                let mut turn = Turn {
                    connection: self,
                    worker,
                    current,
                    waiting: &mut waiting,
                };
                Poll::Ready(turn.step(cx, early.take(), reads))
            })
            .await;
            let is_quiet = waiting.is_empty() && self.pending() == 0;
            self.mark_idle(is_quiet);
            match step {
                Step::Close => {
                    worker.abandon(waiting.len());
                    return End::Closed;
                }
                Step::Again => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Step::Wait => {}
            }
            if is_quiet && (self.is_ended || closing) {
                return End::Closed;
            }
            if now == Phase::Abandon || (now == Phase::Retire && !closing && waiting.is_empty()) {
                worker.abandon(waiting.len());
                return End::Retired;
            }
            let deadline = self.deadline(waiting.len());
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            let takes = reads && self.takes_more(waiting.len());
            tokio::select! {
                biased;
                changed = phase.changed() => if changed.is_err() { return End::Closed },
                ended = waiting.next(), if !waiting.is_empty() => early = ended,
                _ = self.stream.readable(), if takes => {}
                _ = self.stream.writable(), if self.pending() > 0 => {}
                _ = self.place.seat.leave.notified() => {
                    if is_quiet {
                        return End::Closed;
                    }
                    self.place.seat.evicted.set(false);
                }
                _ = timer.as_mut() => {
                    let deadline = self.deadline(waiting.len());
                    if deadline <= clock::now() {
                        worker.abandon(waiting.len());
                        return End::Closed;
                    }
                    timer.as_mut().reset(deadline);
                }
            }
        }
    }

    /// Octets that wait for the peer.
    fn pending(&self) -> usize {
        self.output.len() - self.written
    }

    /// Whether more queries may be taken from the peer.
    fn takes_more(&self, under_way: usize) -> bool {
        !self.is_ended && under_way < TCP_QUERIES_MAX && self.pending() < TCP_OUTPUT_SOFT
    }

    /// When the connection's patience ends.
    fn deadline(&self, under_way: usize) -> Instant {
        if self.pending() > 0 {
            return self.written_at + TCP_WRITE;
        }
        let began = if self.input.is_empty() {
            self.active_at + TCP_IDLE
        } else {
            self.begun_at + TCP_MESSAGE
        };
        match (under_way, self.is_first) {
            (0, true) => self.active_at + TCP_FIRST,
            (0, false) => began,
            // It is us who let the peer wait; look again later.
            _ => clock::now() + TCP_IDLE,
        }
    }

    fn mark_idle(&self, is_quiet: bool) {
        let since = is_quiet.then_some(self.active_at);
        self.place.seat.idle_since.set(since);
    }
}

/// A turn of a connection, all of it without waiting.
struct Turn<'t, 'c> {
    connection: &'t mut Connection,
    worker: &'t Worker,
    current: &'c Current,
    waiting: &'t mut FuturesUnordered<UnderWay<'c>>,
}

impl Turn<'_, '_> {
    fn step(&mut self, cx: &mut Context<'_>, early: Option<Ended>, reads: bool) -> Step {
        let mut output = self.worker.tcp_output.borrow_mut();
        output.clear();
        if let Some(ended) = early {
            self.answer(ended, &mut output);
        }
        while self.waiting_for(&output) > 0
            && let Poll::Ready(Some(ended)) = self.waiting.poll_next_unpin(cx)
        {
            self.answer(ended, &mut output);
        }
        let mut step = Step::Wait;
        if reads {
            step = self.take_kept(&mut output);
            if matches!(step, Step::Wait) && self.may_take(&output) {
                step = self.read(&mut output);
            }
        }
        if self.write(&output).is_err() || self.connection.pending() > TCP_OUTPUT_MAX {
            return Step::Close;
        }
        step
    }

    /// How many are under way, unless the peer has enough to read.
    fn waiting_for(&self, output: &[u8]) -> usize {
        if self.connection.pending() + output.len() > TCP_OUTPUT_MAX {
            return 0;
        }
        self.waiting.len()
    }

    fn may_take(&self, output: &[u8]) -> bool {
        self.connection.takes_more(self.waiting.len())
            && self.connection.pending() + output.len() < TCP_OUTPUT_SOFT
    }

    fn answer(&mut self, ended: Ended, output: &mut Vec<u8>) {
        if let Some(reply) = self.worker.finish_later(ended) {
            self.frame(reply, output);
        }
    }

    fn frame(&self, reply: Reply, output: &mut Vec<u8>) {
        // A message never has more octets than its length can say.
        if let Ok(len) = u16::try_from(reply.bytes().len()) {
            output.extend_from_slice(&len.to_be_bytes());
            output.extend_from_slice(reply.bytes());
        }
        self.worker.give_back(std::iter::once(reply));
    }

    /// Takes whole messages that were left when there was too much under way.
    fn take_kept(&mut self, output: &mut Vec<u8>) -> Step {
        if self.connection.input.is_empty() {
            return Step::Wait;
        }
        let kept = std::mem::take(&mut self.connection.input);
        let taken = self.take(&kept, output);
        let rest = kept.get(taken..).unwrap_or_default();
        self.connection.input = match taken {
            0 => kept,
            _ => rest.to_vec(),
        };
        Step::Wait
    }

    /// Reads once and takes what is whole.
    fn read(&mut self, output: &mut Vec<u8>) -> Step {
        let mut buffer = self.worker.tcp_input.borrow_mut();
        buffer.resize(TCP_READ, 0);
        let mut count = 0;
        let stream = &self.connection.stream;
        let result = stream.try_io(Interest::READABLE, || {
            count = (&*SockRef::from(stream)).read(&mut buffer)?;
            if count < TCP_READ && count > 0 {
                // The queue is empty: what comes next makes the socket readable again.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match result {
            Ok(()) if count == 0 => {
                self.connection.is_ended = true;
                return Step::Wait;
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Step::Close,
            _ if count == 0 => return Step::Wait,
            _ => {}
        }
        let read = buffer.get(..count).unwrap_or_default();
        if self.connection.input.is_empty() {
            self.connection.begun_at = clock::now();
            let taken = self.take(read, output);
            let rest = read.get(taken..).unwrap_or_default();
            self.connection.input.extend_from_slice(rest);
        } else {
            self.connection.input.extend_from_slice(read);
            self.take_kept(output);
        }
        match result {
            Ok(()) => Step::Again,
            Err(_) => Step::Wait,
        }
    }

    /// Serves the whole messages at the front, as many as may be under way; how many octets they were.
    fn take(&mut self, mut octets: &[u8], output: &mut Vec<u8>) -> usize {
        let received_at = clock::now();
        let mut taken = 0;
        while self.may_take(output)
            && let Some((length, rest)) = octets.split_first_chunk::<LENGTH_OCTETS>()
            && let Some((message, rest)) =
                rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        {
            octets = rest;
            taken += LENGTH_OCTETS + message.len();
            self.connection.is_first = false;
            self.connection.active_at = received_at;
            self.serve(message, received_at, output);
        }
        if taken > 0 {
            // What is left has begun at the earliest now.
            self.connection.begun_at = received_at;
        }
        taken
    }

    fn serve(&mut self, message: &[u8], received_at: Instant, output: &mut Vec<u8>) {
        let arrival = Arrival {
            packet: message,
            client: self.connection.client,
            local: self.connection.local,
            transport: Transport::Tcp,
            listener: self.current.listener,
            received_at,
        };
        match self.worker.serve(&self.current.generation.server, arrival) {
            Outcome::Reply(reply) => self.frame(reply, output),
            Outcome::Later(under_way) => self.waiting.push(under_way),
            Outcome::Nothing => {}
        }
    }

    /// Writes what there is and keeps what the peer does not take.
    fn write(&mut self, output: &[u8]) -> io::Result<()> {
        let connection = &mut *self.connection;
        if output.is_empty() && connection.pending() == 0 {
            return Ok(());
        }
        let direct = connection.pending() == 0;
        if !direct {
            connection.output.extend_from_slice(output);
        }
        let mut rest = match direct {
            true => output,
            false => connection
                .output
                .get(connection.written..)
                .unwrap_or_default(),
        };
        let before = rest.len();
        while !rest.is_empty() {
            let stream = &connection.stream;
            let result =
                stream.try_io(Interest::WRITABLE, || (&*SockRef::from(stream)).write(rest));
            match result {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let wrote = before - rest.len();
        if wrote > 0 || direct {
            connection.written_at = clock::now();
        }
        if rest.is_empty() {
            connection.output = Vec::new();
            connection.written = 0;
        } else if direct {
            connection.output = rest.to_vec();
            connection.written = 0;
        } else {
            connection.written += wrote;
            if connection.written > TCP_OUTPUT_SOFT {
                connection.output.drain(..connection.written);
                connection.written = 0;
            }
        }
        Ok(())
    }
}

/// Connections that the process may have with so many file descriptors.
pub(crate) fn connections_max(descriptors: u64) -> usize {
    // A quarter at least stays for everything else where there are few.
    let left = descriptors.saturating_sub(
        DESCRIPTORS_RESERVED
            .max(descriptors / 4)
            .min(descriptors / 2),
    );
    usize::try_from(left)
        .unwrap_or(TCP_CONNECTIONS_MAX)
        .clamp(1, TCP_CONNECTIONS_MAX)
}
