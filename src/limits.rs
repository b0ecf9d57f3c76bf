//! Every limit of the engine: value, unit, and why this number.

use std::time::Duration;

/// Packets received or sent with one system call: more gain nothing once the call itself is a fiftieth of a packet's cost, and a batch
/// bounds how long the first of it waits for the last.
pub(crate) const BATCH: usize = 64;

/// Octets of a datagram: UDP cannot carry more.
pub(crate) const PACKET_OCTETS_MAX: usize = 65_535;

/// Queries under way, per worker: at 2 KiB each 32 MiB, and five seconds of waiting at 3,000 queries a second that all have to wait.
pub(crate) const SLOTS_MAX: usize = 16_384;

/// How often slots that lay unused are freed.
pub(crate) const TRIM_EVERY: Duration = Duration::from_secs(1);

/// Octets the kernel may queue on a UDP socket: some 5,000 small queries, a tenth of a second at 50,000 a second.
pub(crate) const RECEIVE_BUFFER_OCTETS: usize = 8 << 20;

/// Waits for room in a socket's send buffer; after that the network is in trouble and the rest of the batch is dropped.
pub(crate) const SEND_WAIT: Duration = Duration::from_millis(50);

/// Batches that a listener which closes still answers: what the kernel had queued when it was told.
pub(crate) const LAST_BATCHES: usize = 256;

/// Queries of a retired generation may take this long: longer than any client waits, shorter than an operator does.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// Queries under way at the end get this long, as in CoreDNS.
pub(crate) const STOP: Duration = Duration::from_secs(5);

/// A start hook's time.
pub(crate) const START_HOOK: Duration = Duration::from_secs(5);

/// A stop hook's time.
pub(crate) const STOP_HOOK: Duration = Duration::from_secs(5);

/// Pairs of sockets that are tried when the system chooses the port: UDP's choice may be taken for TCP.
pub(crate) const PORT_TRIES: usize = 32;

/// TCP connections of the process: 10,000 idle ones cost 40 MiB, and a resolver's clients rarely hold one each.
pub(crate) const TCP_CONNECTIONS_MAX: usize = 10_000;

/// File descriptors that connections leave alone: sockets of upstreams, files, HTTP.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 1_024;

/// Connections of a worker above which their end is worth giving memory back to the system.
pub(crate) const TCP_MANY: usize = 256;

/// Idle connections that make room at once when the table is full: looking for them costs a walk over it.
pub(crate) const TCP_EVICTED: usize = 16;

/// Queries under way on a connection: dnsdist's and Knot's clients pipeline up to 100 (RFC 7766 §6.2.1.1).
pub(crate) const TCP_QUERIES_MAX: usize = 128;

/// Answers that wait for a peer to read before no more queries are taken from it, in octets.
pub(crate) const TCP_OUTPUT_SOFT: usize = 64 << 10;

/// Answers that wait for a peer to read, at most: beyond that the connection is closed.
pub(crate) const TCP_OUTPUT_MAX: usize = 256 << 10;

/// Octets read from a connection at once: many small queries, or one of the largest.
pub(crate) const TCP_READ: usize = 64 << 10;

/// The first message of a connection must be complete by then, as in CoreDNS.
pub(crate) const TCP_FIRST: Duration = Duration::from_secs(3);

/// A message that has begun must be complete by then, however its octets trickle.
pub(crate) const TCP_MESSAGE: Duration = Duration::from_secs(10);

/// A connection without any query is closed after this, as in CoreDNS (RFC 7766 §6.2.3 leaves it to us).
pub(crate) const TCP_IDLE: Duration = Duration::from_secs(10);

/// A peer that does not read for so long is left.
pub(crate) const TCP_WRITE: Duration = Duration::from_secs(5);

/// Waits before the next accept when descriptors or memory ran out.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections to the HTTP endpoints, together: scrapers and probes are few.
pub(crate) const HTTP_CONNECTIONS_MAX: usize = 64;

/// An HTTP request must be there, and its answer taken, by then.
pub(crate) const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// Orders that wait for a worker: reloads come one after the other.
pub(crate) const ORDERS_MAX: usize = 8;

/// Octets of a Dnsfile on standard input: a mistake is noticed before memory is.
pub(crate) const STDIN_OCTETS_MAX: u64 = 16 << 20;
