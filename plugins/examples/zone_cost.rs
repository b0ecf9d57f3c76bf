//! What a zone costs: how long it takes to read, the octets it takes, nanoseconds of an answer, without sockets.
//!
//! `cargo run --release -p skein-plugins --example zone_cost [RECORDS]`. The whole way of a query is measured, edge to edge. No test asserts
//! any of it.

#![expect(clippy::print_stdout, reason = "it is a program that prints figures")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skein_plugins::PLUGINS;
use skein_plugins::kit::authority::{Builder, load};
use skein_plugins::kit::edge::{Accepted, Arrival, Edge};
use skein_plugins::kit::handler::Served;
use skein_plugins::kit::lookup::Dispatch;
use skein_plugins::kit::metrics::Metrics;
use skein_plugins::kit::query::{ListenerId, Slot, Transport};
use skein_plugins::kit::setup::{Kept, Services};
use skein_plugins::kit::wire::Name;
use skein_plugins::kit::{clock, dnsfile, program, worker};

fn resident_kib() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn main() {
    let records: u32 = match std::env::args().nth(1) {
        Some(word) => word.parse().expect("RECORDS is a number"),
        None => 1_000_000,
    };
    let mut text = String::from(
        "$ORIGIN example.org.\n$TTL 3600\n@ SOA ns1 hostmaster 1 7200 900 1209600 300\n@ NS ns1\n@ NS ns2\nns1 A 192.0.2.1\nns2 A 192.0.2.2\n",
    );
    for number in 0..records {
        let [_, a, b, c] = number.to_be_bytes();
        writeln!(text, "host{number} IN A 10.{a}.{b}.{c}").expect("a string");
    }
    let folder = tempfile();
    let file = folder.join("db.example.org");
    std::fs::write(&file, &text).expect("a folder of ours");
    println!("{} octets of text", text.len());
    drop(text);
    let apex = Name::parse("example.org").expect("a name");
    for _ in 0..3 {
        let begun = Instant::now();
        let loaded = load(&file, &apex).expect("a zone");
        let took = begun.elapsed();
        let (now, most) = resident_kib();
        println!(
            "read in {took:?}: {} records, {} octets each in the zone, {now} KiB resident, {most} at most",
            loaded.contents.record_count(),
            loaded.contents.memory_bytes() / loaded.contents.record_count(),
        );
        let begun = Instant::now();
        let builder: Builder = loaded.contents.builder();
        let taken = begun.elapsed();
        let (again, _) = builder.finish().expect("a zone");
        println!(
            "taken apart in {taken:?}, made again in {:?}: {again:?}",
            begun.elapsed() - taken
        );
    }
    answers(&file, records);
    std::fs::remove_dir_all(folder).expect("a folder of ours");
}

fn tempfile() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("zone-cost-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder of ours");
    folder
}

fn answers(file: &Path, records: u32) {
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
    let text = format!("example.org {{\n file {}\n}}\n", file.display());
    let tree =
        dnsfile::parse("Dnsfile", &text, &dnsfile::System).unwrap_or_else(|_| panic!("a Dnsfile"));
    let program = program::build(&tree, PLUGINS, &services).unwrap_or_else(|_| panic!("a program"));
    let bench = Bench {
        edge: Edge::new(&metrics),
        server: program.server,
    };
    for (what, label, count) in [
        ("one name", "host", 1),
        ("1,000 names", "host", 1000),
        ("all names", "host", records),
        ("names that are not there", "none", records),
        ("names below names", "a.b.c.host", records),
    ] {
        let spent = (0..3).map(|_| bench.ask_all(label, count)).min();
        println!("{what}: {:?} an answer", spent.unwrap_or_default());
    }
}

/// Questions of one measure.
const QUESTIONS: u32 = 300_000;

struct Bench {
    edge: Arc<Edge>,
    server: Arc<program::Server>,
}

impl Bench {
    /// Asks for names with this label in front, numbered up to `count` in no order; the time of one.
    fn ask_all(&self, label: &str, count: u32) -> Duration {
        let packets: Vec<Vec<u8>> = (0..QUESTIONS)
            .map(|number| question(label, number.wrapping_mul(2_654_435_761) % count))
            .collect();
        let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let local = SocketAddr::from(([127, 0, 0, 1], 53));
        let mut slot = None;
        let begun = Instant::now();
        let mut received_at = clock::now();
        for (number, packet) in packets.iter().enumerate() {
            if number % 64 == 0 {
                received_at = clock::now();
            }
            let arrival = Arrival {
                packet,
                client,
                local,
                transport: Transport::Udp,
                listener: ListenerId(0),
                received_at,
            };
            let free = slot.take().unwrap_or_else(Slot::new);
            let Accepted::Query(query) = self.edge.accept(free, arrival) else {
                panic!("the edge refuses the benchmark's query");
            };
            let Served::Now(response) = self.server.serve(query) else {
                panic!("nobody waits here");
            };
            slot = match self.edge.finish(response) {
                Ok(reply) => Some(reply.into_slot()),
                Err(slot) => Some(slot),
            };
        }
        begun.elapsed() / QUESTIONS
    }
}

fn question(label: &str, number: u32) -> Vec<u8> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let name = Name::parse(&format!("{label}{number}.example.org")).expect("a name");
    packet.extend_from_slice(name.as_wire());
    packet.extend_from_slice(&[0, 1, 0, 1]);
    packet
}
