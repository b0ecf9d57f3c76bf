//! What the cache costs: nanoseconds of a hit and octets of an entry, without sockets.
//!
//! `cargo run --release -p skein-plugins --example cache_cost [ENTRIES]`. The whole way of a query is measured, edge to edge:
//! accept, route, look up, copy, age, finish. A fill has the loopback of a handler of its own behind it. No test asserts any of it.

#![expect(clippy::print_stdout, reason = "it is a program that prints figures")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skein_plugins::PLUGINS;
use skein_plugins::kit::edge::{Accepted, Arrival, Edge};
use skein_plugins::kit::errors::SetupErrors;
use skein_plugins::kit::handler::{Handler, Next, Served};
use skein_plugins::kit::lookup::Dispatch;
use skein_plugins::kit::metrics::Metrics;
use skein_plugins::kit::options::Checked;
use skein_plugins::kit::plugin::{Plugin, Repeat};
use skein_plugins::kit::query::{ListenerId, Query, Slot, Transport};
use skein_plugins::kit::response::Owner;
use skein_plugins::kit::setup::{Kept, ServerSetup, Services};
use skein_plugins::kit::wire::writer::Rdata;
use skein_plugins::kit::wire::{Rtype, Section};
use skein_plugins::kit::{clock, dnsfile, program, worker};

/// Answers every name with one address, as an upstream would.
static ADDRESS: Plugin = Plugin {
    name: "address",
    aliases: &[],
    summary: "answers with one address",
    arguments: &[],
    options: &[],
    free_block: false,
    repeat: Repeat::Once,
    setup: |_: &[Checked], server: &mut ServerSetup<'_>| -> Result<(), SetupErrors> {
        server.chain(Address);
        Ok(())
    },
};

struct Address;

impl Handler for Address {
    fn serve<'c>(&'c self, query: Query, _: Next<'c>) -> Served<'c> {
        let answer = query.answer().record(
            Section::Answer,
            Owner::Question,
            Rtype::A,
            3600,
            Rdata::Raw(&[192, 0, 2, 1]),
        );
        Served::Now(answer.done())
    }
}

fn main() {
    let entries: u32 = match std::env::args().nth(1) {
        Some(word) => word.parse().expect("ENTRIES is a number"),
        None => 1_000_000,
    };
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
    let cache = PLUGINS.iter().find(|plugin| plugin.name == "cache");
    let table = [*cache.expect("the table has a cache"), &ADDRESS];
    let text = ". {\n cache\n address\n}\n";
    let tree =
        dnsfile::parse("Dnsfile", text, &dnsfile::System).unwrap_or_else(|_| panic!("a Dnsfile"));
    let program = program::build(&tree, &table, &services).unwrap_or_else(|_| panic!("a program"));
    let bench = Bench {
        edge: Edge::new(&metrics),
        server: program.server,
    };
    let mut slot = Some(Slot::new());
    let before = resident();
    let filled = bench.ask_all(&mut slot, 0..entries);
    let used = resident().saturating_sub(before);
    println!("{entries} entries filled: {filled:?} each");
    let said = metrics
        .value("skeindns_cache_memory_bytes", &[])
        .unwrap_or(0.0);
    let held = metrics.value("coredns_cache_entries", &[]).unwrap_or(0.0);
    println!(
        "{held} held: resident {} octets each, by its own account {}",
        used as f64 / held,
        said / held
    );
    let few = (0..5).map(|_| bench.ask_all(&mut slot, 0..1_000)).min();
    let hot = (0..200).map(|_| bench.ask_all(&mut slot, 0..1_000)).min();
    println!(
        "hit among 1,000: {:?} (first {:?})",
        hot.unwrap_or_default(),
        few.unwrap_or_default()
    );
    let all = bench.ask_all(
        &mut slot,
        (0..entries).map(|n| n.wrapping_mul(2_654_435_761) % entries),
    );
    println!("hit among all, in no order: {all:?}");
}

struct Bench {
    edge: Arc<Edge>,
    server: Arc<program::Server>,
}

impl Bench {
    /// Asks for these names; the time of one.
    fn ask_all(&self, slot: &mut Option<Box<Slot>>, names: impl Iterator<Item = u32>) -> Duration {
        let mut packet = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07h000000\x07example\x03org\x00\x00\x01\x00\x01".to_vec();
        let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let local = SocketAddr::from(([127, 0, 0, 1], 53));
        let start = Instant::now();
        let mut asked = 0;
        let mut received_at = clock::now();
        for name in names {
            if asked % 64 == 0 {
                received_at = clock::now();
            }
            asked += 1;
            let mut rest = name;
            for digit in packet[14..20].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            // Beyond six digits the letter changes.
            packet[13] = b'a' + (rest % 26) as u8;
            let arrival = Arrival {
                packet: &packet,
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
            *slot = match self.edge.finish(response) {
                Ok(reply) => Some(reply.into_slot()),
                Err(slot) => Some(slot),
            };
        }
        start.elapsed() / asked.max(1)
    }
}

/// Octets of resident memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
