//! What a large hosts file costs: time to load, resident memory, nanoseconds of an answer, without sockets.
//!
//! `cargo run --release -p skein-plugins --example hosts_cost [LINES] [blocked]`. With `blocked` all names have the address 0.0.0.0, as in a
//! block list; otherwise each has one of its own. An answer is measured edge to edge: accept, route, look up, write, finish. No test asserts
//! any of it.

#![expect(clippy::print_stdout, reason = "it is a program that prints figures")]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use skein_plugins::PLUGINS;
use skein_plugins::kit::edge::{Accepted, Arrival, Edge};
use skein_plugins::kit::handler::Served;
use skein_plugins::kit::lookup::Dispatch;
use skein_plugins::kit::metrics::Metrics;
use skein_plugins::kit::query::{ListenerId, Slot, Transport};
use skein_plugins::kit::setup::{Kept, Services};
use skein_plugins::kit::{clock, dnsfile, program, worker};

fn main() {
    let lines: u32 = match std::env::args().nth(1) {
        Some(word) => word.parse().expect("LINES is a number"),
        None => 1_000_000,
    };
    let blocked = std::env::args()
        .nth(2)
        .is_some_and(|word| word == "blocked");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hosts");
    write(&path, lines, blocked).expect("a file");

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    worker::become_worker(0);
    let metrics = Metrics::new(1);
    let services = Services {
        metrics: metrics.clone(),
        kept: Kept::default(),
        workers: 1,
        default_port: 53,
        check_only: false,
        doubles: Vec::new(),
    };
    let text = format!(". {{\n hosts {}\n}}\n", path.display());
    let tree =
        dnsfile::parse("Dnsfile", &text, &dnsfile::System).unwrap_or_else(|_| panic!("a Dnsfile"));
    let before = status("VmRSS");
    let start = Instant::now();
    let program = program::build(&tree, PLUGINS, &services).unwrap_or_else(|_| panic!("a program"));
    println!("{lines} lines loaded in {:?}", start.elapsed());
    println!(
        "resident: {} KiB more than {before} KiB before, at most {} KiB",
        status("VmRSS").saturating_sub(before),
        status("VmHWM")
    );
    let edge = Edge::new(&metrics);
    let few = (0..50)
        .map(|_| ask(&edge, &program.server, 0..1000.min(lines)))
        .min();
    println!("answer, of 1,000 names: {:?}", few.unwrap_or_default());
    let far = (0..lines).map(|n| (u64::from(n) * 2_654_435_761 % u64::from(lines)) as u32);
    println!(
        "answer, of all in no order: {:?}",
        ask(&edge, &program.server, far)
    );
}

fn write(path: &std::path::Path, lines: u32, blocked: bool) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for n in 0..lines {
        let address = if blocked { 0 } else { 0x0a00_0000 + n };
        writeln!(file, "{} h{n:07}.example.org", Ipv4Addr::from_bits(address))?;
    }
    file.flush()
}

/// Asks for these names; the time of one.
fn ask(edge: &Edge, server: &program::Server, names: impl Iterator<Item = u32>) -> Duration {
    let mut packet = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08h0000000\x07example\x03org\x00\x00\x01\x00\x01".to_vec();
    let mut slot = Some(Slot::new());
    let start = Instant::now();
    let mut received_at = clock::now();
    let mut asked = 0;
    for name in names {
        if asked % 64 == 0 {
            received_at = clock::now();
        }
        asked += 1;
        let mut rest = name;
        for digit in packet[14..21].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let arrival = Arrival {
            packet: &packet,
            client: SocketAddr::from(([127, 0, 0, 1], 40_000)),
            local: SocketAddr::from(([127, 0, 0, 1], 53)),
            transport: Transport::Udp,
            listener: ListenerId(0),
            received_at,
        };
        let free = slot.take().unwrap_or_else(Slot::new);
        let Accepted::Query(query) = edge.accept(free, arrival) else {
            panic!("the edge refuses the benchmark's query");
        };
        let Served::Now(response) = server.serve(query) else {
            panic!("nobody waits here");
        };
        let Ok(reply) = edge.finish(response) else {
            panic!("it is answered");
        };
        assert_eq!(reply.bytes().get(6..8), Some(&[0, 1][..]), "one address");
        slot = Some(reply.into_slot());
    }
    start.elapsed() / asked.max(1)
}

/// A figure of /proc/self/status, in KiB.
fn status(figure: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(figure));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}
