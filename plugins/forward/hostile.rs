//! The UDP engine against upstreams that lie, guess, cut, are silent or gone. Real sockets on loopback, ports of the system's choice.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use crate::kit::errors::UpstreamFault;
use crate::kit::metrics::Metrics;
use crate::kit::wire::{Name, Opcode, Rtype};

use super::message;
use super::udp::{
    self, MISMATCHES_MAX, Outcome, SOCKET_AGE_MAX, SOCKET_QUERIES_MAX, Sockets, Ticket,
};
use super::upstream::{HealthTable, Probe, Target, Upstream};

/// Long enough for a loaded machine; nothing waits for it unless the test fails or means to.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    upstream: UdpSocket,
    address: SocketAddr,
    sockets: Sockets,
    name: Name,
}

fn world() -> World {
    let upstream = UdpSocket::bind("127.0.0.1:0").expect("a port on loopback");
    upstream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout");
    let address = upstream.local_addr().expect("it is bound");
    let probe = Probe {
        interval: Duration::from_secs(1),
        recursion_desired: true,
        domain: Box::new([0]),
        tcp: false,
    };
    let target = Target::Network(address);
    let one = Upstream::new(target, &HealthTable::default(), &probe, &Metrics::new(1));
    World {
        sockets: Sockets::new(&[Arc::new(one)], None, SOCKET_AGE_MAX, udp::POOL_SOCKETS),
        upstream,
        address,
        name: Name::parse("www.Example.org").expect("a name"),
    }
}

impl World {
    fn send(&self, timeout: Duration) -> Result<Ticket<'_>, UpstreamFault> {
        let name = self.name.as_wire();
        self.sockets.send(
            0,
            self.address,
            timeout,
            Opcode::QUERY,
            |question| {
                question.extend_from_slice(name);
                question.extend_from_slice(&[0, 1, 0, 1]);
            },
            |packet, id| message::write_own_query(packet, id, true, name, Rtype::A),
        )
    }

    /// The query as the upstream gets it, and who asked.
    fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        let (length, from) = self.upstream.recv_from(&mut buffer).expect("a query");
        (buffer[..length].to_vec(), from)
    }
}

/// An answer to `query` with one address.
fn good(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply[7] = 1;
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    reply
}

fn edited(query: &[u8], edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut reply = good(query);
    edit(&mut reply);
    reply
}

/// Replies that must not end a wait.
fn bad(query: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let end = query.len();
    vec![
        ("empty", vec![]),
        ("one octet", vec![query[0]]),
        ("an ID alone", query[..2].to_vec()),
        ("half a header", good(query)[..7].to_vec()),
        ("a header without its question", good(query)[..12].to_vec()),
        ("another ID", edited(query, |reply| reply[1] ^= 1)),
        ("our own query", query.to_vec()),
        ("another opcode", edited(query, |reply| reply[2] |= 0x10)),
        ("no question", {
            let mut reply = good(query)[..12].to_vec();
            reply[5] = 0;
            reply[7] = 0;
            reply
        }),
        ("FORMERR without question", {
            let mut reply = query[..12].to_vec();
            reply[2] |= 0x80;
            reply[3] |= 1;
            reply[5] = 0;
            reply
        }),
        ("two questions", edited(query, |reply| reply[5] = 2)),
        ("another name", edited(query, |reply| reply[13] = b'v')),
        ("a longer name", edited(query, |reply| reply[12] = 4)),
        ("another type", edited(query, |reply| reply[end - 3] = 28)),
        ("another class", edited(query, |reply| reply[end - 1] = 3)),
        (
            "a pointer to itself",
            edited(query, |reply| reply[end + 1] = end as u8),
        ),
        (
            "a pointer forwards",
            edited(query, |reply| reply[end + 1] = 200),
        ),
        ("a bad label", edited(query, |reply| reply[end] = 0x80)),
        (
            "more records than there are",
            edited(query, |reply| reply[7] = 9),
        ),
        (
            "data that ends early",
            edited(query, |reply| reply[end + 11] = 200),
        ),
        ("noise", vec![0x5a; 300]),
    ]
}

#[tokio::test]
async fn a_wrong_reply_does_not_end_the_wait() {
    let world = world();
    let classes = bad(&[0; 40]).len();
    assert!(classes >= 20);
    for class in 0..classes {
        let ticket = world.send(PATIENCE).expect("it is sent");
        let (query, from) = world.receive();
        let (what, reply) = bad(&query).swap_remove(class);
        world.upstream.send_to(&reply, from).expect("it is sent");
        let expected = good(&query);
        world.upstream.send_to(&expected, from).expect("it is sent");
        match ticket.outcome().await {
            Ok(Outcome::Replied) => {}
            Ok(_) => panic!("{what}: it goes to TCP"),
            Err(fault) => panic!("{what}: {fault:?}"),
        }
        let got = ticket.with_reply(|reply, _| reply.clone());
        assert_eq!(got, Some(expected), "{what}");
    }
}

#[tokio::test]
async fn a_reply_from_elsewhere_is_never_seen() {
    let world = world();
    let other = UdpSocket::bind("127.0.0.1:0").expect("a port on loopback");
    let ticket = world.send(PATIENCE).expect("it is sent");
    let (query, from) = world.receive();
    let mut forged = good(&query);
    forged[query.len() + 15] = 66;
    // The kernel may report the refusal to the forger: its business.
    let _ = other.send_to(&forged, from);
    world
        .upstream
        .send_to(&good(&query), from)
        .expect("it is sent");
    assert!(matches!(ticket.outcome().await, Ok(Outcome::Replied)));
    assert_eq!(
        ticket.with_reply(|reply, _| reply.clone()),
        Some(good(&query))
    );
}

#[tokio::test]
async fn guessing_moves_the_query_to_tcp_and_ends_the_socket() {
    let world = world();
    let ticket = world.send(PATIENCE).expect("it is sent");
    let (query, from) = world.receive();
    for guess in 1..=MISMATCHES_MAX as u16 {
        let mut forged = good(&query);
        let id = u16::from_be_bytes([query[0], query[1]]).wrapping_add(guess);
        forged[..2].copy_from_slice(&id.to_be_bytes());
        world.upstream.send_to(&forged, from).expect("it is sent");
    }
    assert!(matches!(ticket.outcome().await, Ok(Outcome::Guessed)));
    assert_eq!(world.sockets.open(), 0, "the port is not used again");
}

#[tokio::test]
async fn what_comes_late_is_no_guess() {
    let world = world();
    let mut late = Vec::new();
    for _ in 0..40 {
        let ticket = world.send(PATIENCE).expect("it is sent");
        late.push(world.receive());
        drop(ticket);
    }
    let ticket = world.send(PATIENCE).expect("it is sent");
    let (query, from) = world.receive();
    for (query, from) in late {
        world
            .upstream
            .send_to(&good(&query), from)
            .expect("it is sent");
    }
    world
        .upstream
        .send_to(&good(&query), from)
        .expect("it is sent");
    assert!(matches!(ticket.outcome().await, Ok(Outcome::Replied)));
}

#[tokio::test]
async fn a_truncated_reply_goes_to_tcp_and_a_whole_one_may_still_come() {
    let world = world();
    for usable in [true, false] {
        let ticket = world.send(PATIENCE).expect("it is sent");
        let (query, from) = world.receive();
        let truncated = edited(&query, |reply| {
            reply[2] |= 0x02;
            if !usable {
                reply.truncate(query.len() + 5);
            }
        });
        world
            .upstream
            .send_to(&truncated, from)
            .expect("it is sent");
        match ticket.outcome().await {
            Ok(Outcome::Truncated { usable: said }) => assert_eq!(said, usable),
            _ => panic!("it is truncated"),
        }
        ticket.wait_on();
        world
            .upstream
            .send_to(&good(&query), from)
            .expect("it is sent");
        assert!(matches!(ticket.outcome().await, Ok(Outcome::Replied)));
        assert_eq!(
            ticket.with_reply(|reply, _| reply.clone()),
            Some(good(&query))
        );
    }
}

#[tokio::test]
async fn a_reply_longer_than_we_read_is_truncated() {
    let world = world();
    let ticket = world.send(PATIENCE).expect("it is sent");
    let (query, from) = world.receive();
    let long = edited(&query, |reply| reply.resize(5000, 0));
    world.upstream.send_to(&long, from).expect("it is sent");
    let outcome = ticket.outcome().await;
    assert!(matches!(outcome, Ok(Outcome::Truncated { usable: false })));
}

#[tokio::test]
async fn a_closed_port_is_known_at_once() {
    let mut world = world();
    let closed = UdpSocket::bind("127.0.0.1:0").expect("a port on loopback");
    world.address = closed.local_addr().expect("it is bound");
    drop(closed);
    for _ in 0..100 {
        let fault = match world.send(PATIENCE) {
            Ok(ticket) => ticket.outcome().await.err(),
            Err(fault) => Some(fault),
        };
        assert!(matches!(fault, Some(UpstreamFault::Unreachable(_))));
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_nothing_is_left() {
    let world = world();
    let tickets: Vec<_> = (0..300)
        .map(|_| world.send(Duration::from_millis(1)).expect("it is sent"))
        .collect();
    for ticket in tickets {
        let outcome = ticket.outcome().await;
        assert!(matches!(outcome, Err(UpstreamFault::Timeout(_))));
    }
    assert!(world.sockets.open() <= udp::POOL_SOCKETS);
}

#[test]
fn a_runtime_that_ended_is_replaced() {
    let world = world();
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let ticket = world.send(PATIENCE).expect("it is sent");
            let (query, from) = world.receive();
            world
                .upstream
                .send_to(&good(&query), from)
                .expect("it is sent");
            assert!(matches!(ticket.outcome().await, Ok(Outcome::Replied)));
        });
        drop(runtime);
        assert_eq!(world.sockets.open(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_is_used_for_ten_seconds_at_most() {
    let world = world();
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let mut ports = HashSet::new();
        // More than enough to use every socket of the pool.
        for _ in 0..500 {
            let ticket = world.send(PATIENCE).expect("it is sent");
            ports.insert(world.receive().1.port());
            drop(ticket);
        }
        rounds.push(ports);
        // The clock alone moves: it is the query that finds the socket too old, not the sweep.
        tokio::time::advance(SOCKET_AGE_MAX).await;
    }
    // All sockets are new. Chance alone draws one of the 64 ports again in one run of sixteen, three in one of 20,000.
    let again = rounds[0].intersection(&rounds[1]).count();
    assert!(again <= 3, "{again} ports of {} again", rounds[0].len());
}

#[tokio::test(start_paused = true)]
async fn idle_sockets_are_closed() {
    let world = world();
    let ticket = world.send(Duration::from_secs(1)).expect("it is sent");
    assert!(matches!(
        ticket.outcome().await,
        Err(UpstreamFault::Timeout(_))
    ));
    drop(ticket);
    assert_eq!(world.sockets.open(), 1);
    tokio::time::sleep(SOCKET_AGE_MAX).await;
    assert_eq!(world.sockets.open(), 0);
}

//--- Ports -----------------------------------------------------------------------------------------

/// Shannon entropy of the counts, in bits.
fn entropy<'a>(counts: impl Iterator<Item = &'a u32>, total: f64) -> f64 {
    counts
        .map(|count| f64::from(*count) / total)
        .map(|share| -share * share.log2())
        .sum()
}

#[test]
fn ports_of_100_000_openings_have_15_bits() {
    let to: SocketAddr = "127.0.0.1:53".parse().expect("an address");
    let mut ports: HashMap<u16, u32> = HashMap::new();
    const OPENINGS: u32 = 100_000;
    for _ in 0..OPENINGS {
        let socket = udp::open(to, None).expect("a socket");
        let port = socket.local_addr().expect("it is bound").port();
        assert!(port >= 1024);
        *ports.entry(port).or_default() += 1;
    }
    // 100,000 draws from 64,512 ports give 15.5 bits when all are alike: log2(64512) less what the sample hides.
    let bits = entropy(ports.values(), f64::from(OPENINGS));
    assert!(bits >= 15.0, "{bits} bits");
    // No part of the range is spared: 63 strips of 1,024 ports, each within six deviations of its share.
    let mut strips = [0_u32; 63];
    for (port, count) in &ports {
        strips[usize::from(port - 1024) / 1024] += count;
    }
    let share = f64::from(OPENINGS) / 63.0;
    for (strip, count) in strips.iter().enumerate() {
        let off = (f64::from(*count) - share).abs();
        assert!(
            off < 6.0 * share.sqrt(),
            "strip {strip}: {count} of {share}"
        );
    }
}

#[tokio::test]
async fn a_socket_serves_128_queries_and_no_name_keeps_a_port() {
    const QUERIES: usize = 20_000;
    const NAMES: usize = 8;
    let mut world = world();
    let names: Vec<Name> = (0..NAMES)
        .map(|n| Name::parse(&format!("n{n}.example.org")).expect("a name"))
        .collect();
    let mut ports: HashMap<u16, u32> = HashMap::new();
    let mut ids = [0_u32; 16];
    let mut together = [[0_u32; 16]; NAMES];
    for n in 0..QUERIES {
        world.name = names[n % NAMES].clone();
        let ticket = world.send(PATIENCE).expect("it is sent");
        let (query, from) = world.receive();
        world
            .upstream
            .send_to(&good(&query), from)
            .expect("it is sent");
        assert!(matches!(ticket.outcome().await, Ok(Outcome::Replied)));
        let port = from.port();
        *ports.entry(port).or_default() += 1;
        assert!(world.sockets.queries_max() <= SOCKET_QUERIES_MAX);
        ids[usize::from(query[0]) >> 4] += 1;
        together[n % NAMES][usize::from(port) % 16] += 1;
    }
    assert!(ports.len() >= QUERIES / usize::from(SOCKET_QUERIES_MAX) * 9 / 10);
    let share = QUERIES as f64 / 16.0;
    for count in ids {
        assert!(
            (f64::from(count) - share).abs() < 6.0 * share.sqrt(),
            "IDs {ids:?}"
        );
    }
    // Mutual information of name and port: what knowing the name says about the port, in bits. Chance alone gives
    // (8 - 1) * (16 - 1) / (2 ln 2 * 20,000) = 0.004.
    let total = QUERIES as f64;
    let rows: Vec<u32> = together.iter().map(|row| row.iter().sum()).collect();
    let columns: Vec<u32> = (0..16)
        .map(|c| together.iter().map(|row| row[c]).sum())
        .collect();
    let information = entropy(rows.iter(), total) + entropy(columns.iter(), total)
        - entropy(together.iter().flatten().filter(|count| **count > 0), total);
    assert!(information < 0.02, "{information} bits");
}
