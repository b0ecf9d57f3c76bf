//! A worker: a thread with a runtime of its own, its sockets, and the slots of the queries under way on it.
//!
//! ```text
//!   control thread ── orders ──▶ worker 0   one task per generation and address  (listen/udp.rs)
//!                          └───▶ worker 1   one task per address that accepts    (listen/tcp.rs)
//!                                           one task per connection              (listen/tcp.rs)
//! ```
//! No packet crosses threads: the kernel spreads clients over the workers' sockets, and a query is received, answered and sent by one
//! worker. A generation that retires stops reading and answers what it has; the next one reads the same sockets by then.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use skein_plugins::kit::edge::{Accepted, Arrival, Edge, Reply, Slots};
use skein_plugins::kit::handler::{Later, Served};
use skein_plugins::kit::lookup::Dispatch;
use skein_plugins::kit::metrics::{Counter, Gauge, Metrics};
use skein_plugins::kit::program::Server;
use skein_plugins::kit::query::{ListenerId, Query, take_rescued};
use skein_plugins::kit::response::Response;
use skein_plugins::kit::worker::become_worker;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::limits::{ORDERS_MAX, SLOTS_MAX, TRIM_EVERY};
use crate::listen::mmsg::{PacketInfo, Receiver, Sender};
use crate::listen::open::{self, Pair};
use crate::listen::tcp::{self, Connections};
use crate::listen::udp;
use crate::system;

/// Held by whoever is not done yet; when the last one is dropped, the other end of the channel knows.
pub(crate) type Token = mpsc::Sender<()>;

/// What the tasks of a generation are to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Read and answer.
    Serve,
    /// Answer what is under way.
    Retire,
    /// Let go of what is under way.
    Abandon,
}

/// A program at work, as its workers see it.
pub(crate) struct Generation {
    /// Routes and chains.
    pub(crate) server: Arc<Server>,
    /// What its tasks are to do.
    pub(crate) phase: watch::Sender<Phase>,
}

/// What a worker is told. Each order is answered when it has been carried out.
pub(crate) enum Order {
    /// Take these sockets in; nobody reads them yet.
    Adopt(Vec<(SocketAddr, Pair)>, oneshot::Sender<io::Result<()>>),
    /// Close these again: the program they were for does not start.
    Forget(Vec<SocketAddr>),
    /// From now on serve this, and close what it does not listen on.
    Serve(Assignment),
}

/// A generation's part for a worker.
pub(crate) struct Assignment {
    /// The generation; none at the end of the process.
    pub(crate) generation: Option<Arc<Generation>>,
    /// Its listeners by the address that the Dnsfile has.
    pub(crate) listeners: Vec<(SocketAddr, ListenerId)>,
    /// Held while it reads.
    pub(crate) reading: Token,
    /// Held while anything of it is under way.
    pub(crate) draining: Token,
    /// Dropped when the order has been carried out.
    pub(crate) done: oneshot::Sender<()>,
}

/// What all workers are given.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The edge of the process.
    pub(crate) edge: Arc<Edge>,
    /// Packets dropped because every slot was in use.
    dropped_slots: Counter,
    /// Answers that the network did not take.
    dropped_send: Counter,
    /// TCP connections of the process.
    connections: Gauge,
    /// Connections that a worker may have.
    connections_max: usize,
}

impl Shared {
    /// Binds the counters.
    pub(crate) fn new(metrics: &Metrics, edge: Arc<Edge>, connections_max: usize) -> Shared {
        let dropped = |reason| {
            metrics.counter(
                "skeindns_server_dropped_total",
                "Packets that were not answered, by reason.",
                &[("reason", reason)],
            )
        };
        Shared {
            edge,
            dropped_slots: dropped("slots"),
            dropped_send: dropped("send"),
            connections: metrics.gauge(
                "skeindns_server_tcp_connections",
                "TCP connections that are open.",
                &[],
            ),
            connections_max,
        }
    }
}

/// An address that a worker listens on.
pub(crate) struct Listening {
    /// For datagrams.
    pub(crate) udp: UdpSocket,
    /// For connections.
    pub(crate) tcp: TcpListener,
    /// As it was bound.
    pub(crate) local: SocketAddr,
    /// What the datagram socket tells about packets.
    pub(crate) info: PacketInfo,
    /// Who serves it now.
    current: RefCell<Option<Current>>,
    /// Tells the accepting task that nobody serves it any more.
    pub(crate) closed: Notify,
}

/// Who serves an address.
#[derive(Clone)]
pub(crate) struct Current {
    /// The generation.
    pub(crate) generation: Arc<Generation>,
    /// The listener's number in it.
    pub(crate) listener: ListenerId,
    /// Held while anything of it is under way.
    _draining: Token,
}

impl Listening {
    fn adopt(pair: Pair) -> io::Result<Listening> {
        let udp = UdpSocket::from_std(pair.udp)?;
        let local = udp.local_addr()?;
        Ok(Listening {
            udp,
            tcp: TcpListener::from_std(pair.tcp)?,
            local,
            info: open::packet_info(local),
            current: RefCell::new(None),
            closed: Notify::new(),
        })
    }

    /// Who serves it; `None` when it closes.
    pub(crate) fn current(&self) -> Option<Current> {
        self.current.borrow().clone()
    }

    /// Whether this generation's successor does not listen here: nobody else will read what is queued.
    pub(crate) fn is_closing(&self) -> bool {
        self.current.borrow().is_none()
    }

    /// The address that a packet was sent to, as far as the kernel said.
    pub(crate) fn local_of(&self, told: Option<IpAddr>) -> SocketAddr {
        match told {
            Some(ip) => SocketAddr::new(ip, self.local.port()),
            None => self.local,
        }
    }
}

/// What the tasks of a worker share. Borrowed for the length of a call, never over an await.
pub(crate) struct Worker {
    shared: Shared,
    slots: RefCell<Slots>,
    /// For datagrams, one batch at a time.
    pub(crate) receiver: RefCell<Receiver>,
    /// For replies to them.
    pub(crate) sender: RefCell<Sender>,
    /// For what a connection has to say.
    pub(crate) tcp_input: RefCell<Vec<u8>>,
    /// For what a connection is told.
    pub(crate) tcp_output: RefCell<Vec<u8>>,
    /// The open connections.
    pub(crate) connections: Connections,
    listening: RefCell<HashMap<SocketAddr, Rc<Listening>>>,
    /// Whether slots were freed and the allocator may keep their memory.
    untidy: Cell<bool>,
}

/// What became of a packet.
pub(crate) enum Outcome<'c> {
    /// An answer to send.
    Reply(Reply),
    /// An answer that will come.
    Later(UnderWay<'c>),
    /// Nothing to send.
    Nothing,
}

impl Worker {
    fn new(shared: Shared) -> Worker {
        Worker {
            connections: Connections::new(shared.connections_max, shared.connections.clone()),
            shared,
            slots: RefCell::new(Slots::new(SLOTS_MAX)),
            receiver: RefCell::new(Receiver::new()),
            sender: RefCell::new(Sender::new()),
            tcp_input: RefCell::default(),
            tcp_output: RefCell::default(),
            listening: RefCell::default(),
            untidy: Cell::new(false),
        }
    }

    /// Takes a packet through edge and chain. No allocation for an answer that comes at once.
    pub(crate) fn serve<'c>(&self, server: &'c Server, arrival: Arrival<'_>) -> Outcome<'c> {
        let Some(slot) = self.slots.borrow_mut().take() else {
            self.shared.dropped_slots.inc();
            return Outcome::Nothing;
        };
        let served = catch_unwind(AssertUnwindSafe(|| {
            match self.shared.edge.accept(slot, arrival) {
                Accepted::Reply(reply) => Outcome::Reply(reply),
                Accepted::Silence(slot) => {
                    self.give(slot);
                    Outcome::Nothing
                }
                Accepted::Query(query) => match server.serve(query) {
                    Served::Now(response) => self.finish(response),
                    Served::Later(later) => Outcome::Later(UnderWay { later }),
                },
            }
        }));
        served.unwrap_or_else(|_| self.recover(take_rescued()))
    }

    /// The answer to something that was under way.
    pub(crate) fn finish_later(&self, ended: Ended) -> Option<Reply> {
        let outcome = match ended {
            Ended::Response(response) => catch_unwind(AssertUnwindSafe(|| self.finish(response)))
                .unwrap_or_else(|_| self.recover(take_rescued())),
            Ended::Panicked(query) => self.recover(query),
        };
        match outcome {
            Outcome::Reply(reply) => Some(reply),
            _ => None,
        }
    }

    fn finish<'c>(&self, response: Response) -> Outcome<'c> {
        match self.shared.edge.finish(response) {
            Ok(reply) => Outcome::Reply(reply),
            Err(slot) => {
                self.give(slot);
                Outcome::Nothing
            }
        }
    }

    /// A panic's query gets SERVFAIL; where it was lost, its slot is replaced.
    #[cold]
    fn recover<'c>(&self, query: Option<Query>) -> Outcome<'c> {
        let Some(query) = query else {
            self.slots.borrow_mut().lost();
            return Outcome::Nothing;
        };
        match self.shared.edge.panicked(query) {
            Ok(reply) => Outcome::Reply(reply),
            Err(slot) => {
                self.give(slot);
                Outcome::Nothing
            }
        }
    }

    fn give(&self, slot: Box<skein_plugins::kit::query::Slot>) {
        self.slots.borrow_mut().give(slot);
    }

    /// Takes the slots of answers back that have been sent.
    pub(crate) fn give_back(&self, replies: impl Iterator<Item = Reply>) {
        let mut slots = self.slots.borrow_mut();
        for reply in replies {
            slots.give(reply.into_slot());
        }
    }

    /// So many queries will not be answered any more: their generation's time is over.
    pub(crate) fn abandon(&self, count: usize) {
        let mut slots = self.slots.borrow_mut();
        for _ in 0..count {
            slots.lost();
        }
    }

    /// An answer could not be sent.
    pub(crate) fn count_unsent(&self, count: usize) {
        self.shared.dropped_send.add(count as u64);
    }

    /// Much was freed, and the allocator may keep its memory.
    pub(crate) fn mark_untidy(&self) {
        self.untidy.set(true);
    }

    fn tidy(&self) {
        let freed = self.slots.borrow_mut().trim();
        if freed {
            self.untidy.set(true);
        } else if self.untidy.replace(false) {
            // After the last of a burst's slots, not after each.
            system::trim_memory();
        }
    }
}

//--- What is under way -----------------------------------------------------------------------------

/// A response that somebody waits for; a panic ends it instead of the worker.
pub(crate) struct UnderWay<'c> {
    later: Later<'c>,
}

/// How that ended.
pub(crate) enum Ended {
    /// With a response.
    Response(Response),
    /// With a panic; the query if it could be rescued.
    Panicked(Option<Query>),
}

impl Future for UnderWay<'_> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        match catch_unwind(AssertUnwindSafe(|| self.later.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ended::Response),
            // At once, before another panic puts its query there.
            Err(_) => Poll::Ready(Ended::Panicked(take_rescued())),
        }
    }
}

//--- The thread ------------------------------------------------------------------------------------

/// The control thread's end of a worker.
pub(crate) struct Handle {
    orders: mpsc::Sender<Order>,
}

impl Handle {
    /// Gives an order. A worker that has ended drops it, and with it what answers it.
    pub(crate) async fn order(&self, order: Order) {
        self.orders.send(order).await.ok();
    }

    /// Lets it close what it has taken in, without waiting.
    pub(crate) fn forget(&self, addresses: Vec<SocketAddr>) {
        self.orders.try_send(Order::Forget(addresses)).ok();
    }
}

/// Starts worker `number`.
pub(crate) fn start(number: usize, shared: Shared) -> io::Result<Handle> {
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    // Made here, so that a failure is one of the start.
    std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            become_worker(number);
            match Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => runtime.block_on(run(inbox, shared)),
                Err(error) => tracing::error!("worker {number} cannot start: {error}"),
            }
        })?;
    Ok(Handle { orders })
}

async fn run(mut inbox: mpsc::Receiver<Order>, shared: Shared) {
    let worker = Rc::new(Worker::new(shared));
    let mut tidy = tokio::time::interval(TRIM_EVERY);
    tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = inbox.recv() => match order {
                Some(order) => carry_out(&worker, order),
                None => return,
            },
            _ = tidy.tick() => worker.tidy(),
        }
    }
}

fn carry_out(worker: &Rc<Worker>, order: Order) {
    match order {
        Order::Adopt(pairs, answer) => {
            let adopted: io::Result<Vec<_>> = pairs
                .into_iter()
                .map(|(address, pair)| Ok((address, Rc::new(Listening::adopt(pair)?))))
                .collect();
            let result = adopted.map(|adopted| worker.listening.borrow_mut().extend(adopted));
            answer.send(result).ok();
        }
        Order::Forget(addresses) => {
            let mut listening = worker.listening.borrow_mut();
            for address in addresses {
                listening.remove(&address);
            }
        }
        Order::Serve(assignment) => serve(worker, assignment),
    }
}

fn serve(worker: &Rc<Worker>, assignment: Assignment) {
    let Assignment {
        generation,
        listeners,
        reading,
        draining,
        done,
    } = assignment;
    let mut listening = worker.listening.borrow_mut();
    for (address, listener) in &listeners {
        let (Some(generation), Some(listening)) = (&generation, listening.get(address)) else {
            continue;
        };
        let current = Current {
            generation: Arc::clone(generation),
            listener: *listener,
            _draining: draining.clone(),
        };
        let is_new = listening.current.replace(Some(current.clone())).is_none();
        // Spawned before the predecessor is told to stop: from here on two read, and no packet waits for a reader.
        let reading = Rc::new(RefCell::new(Some(reading.clone())));
        let (owner, place) = (Rc::clone(worker), Rc::clone(listening));
        tokio::task::spawn_local(persist(move || {
            let (owner, place) = (Rc::clone(&owner), Rc::clone(&place));
            udp::serve(owner, place, current.clone(), Rc::clone(&reading))
        }));
        if is_new {
            let (owner, place) = (Rc::clone(worker), Rc::clone(listening));
            tokio::task::spawn_local(persist(move || {
                tcp::accept(Rc::clone(&owner), Rc::clone(&place))
            }));
        }
    }
    listening.retain(|address, listening| {
        let is_served = listeners.iter().any(|(served, _)| served == address);
        if !is_served {
            listening.current.replace(None);
            listening.closed.notify_one();
        }
        is_served
    });
    // Dropping it answers the order.
    drop(done);
}

/// Runs a task to its end, again if it panics: what is caught around each query should leave nothing, but a listener that is gone without
/// a word would be worse than the queries that go with it.
async fn persist<F: Future<Output = ()> + 'static>(task: impl Fn() -> F) {
    while let Err(error) = tokio::task::spawn_local(task()).await
        && error.is_panic()
    {
        tracing::error!("a listener's task ended with a panic and starts again");
    }
}
