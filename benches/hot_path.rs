//! Instructions of the fast path, counted by valgrind: `make bench-instructions`. Counts do not depend on what else the machine does, so that a
//! change of a percent shows; what they cost in time `make bench` says.
//!
//! Each figure is for 100 queries, from packet to reply through the whole edge and chain, without sockets.

#![allow(missing_docs, reason = "the macros of the harness make public items")]

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use skein_plugins::PLUGINS;
use skein_plugins::kit::query::Slot;
use skein_plugins::kit::testing::server::{TestServer, settle};
use skein_plugins::kit::testing::{Question, World, script};
use tokio::runtime::Runtime;

/// Queries of one figure.
const QUERIES: usize = 100;

/// A server that has answered the question before.
struct Warm {
    runtime: Runtime,
    server: TestServer,
    question: Question,
    slot: Option<Box<Slot>>,
}

fn warm(chain: &str, question: &str) -> Warm {
    let world = World::new();
    let reply =
        "NOERROR ra\nwww.example.org. 3600 IN A 192.0.2.1\nwww.example.org. 3600 IN A 192.0.2.2";
    let script = script("www.example.org. A", reply).expect("the script is right");
    world.upstream.script(script);
    let keys = [
        ("/skydns/org/example/web/a", r#"{"host":"192.0.2.1"}"#),
        ("/skydns/org/example/web/b", r#"{"host":"192.0.2.2"}"#),
    ];
    for (key, value) in keys {
        world.store.put(key.as_bytes(), value.as_bytes(), None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let question = Question::parse(question).expect("the question is right");
    let dnsfile = format!("example.org {{\n{chain}\n}}\n");
    let server = runtime.block_on(async {
        let server = TestServer::start(&world, PLUGINS, &dnsfile).await;
        let server = server.unwrap_or_else(|errors| panic!("{errors}"));
        settle().await;
        // The first one may have to wait, for an upstream.
        server.ask(&question).await;
        settle().await;
        server
    });
    let mut warm = Warm {
        runtime,
        server,
        question,
        slot: Some(Slot::new()),
    };
    warm.ask(QUERIES);
    warm
}

impl Warm {
    fn ask(&mut self, times: usize) {
        let (server, question, slot) = (&self.server, &self.question, &mut self.slot);
        self.runtime.block_on(async {
            for _ in 0..times {
                let free = slot.take().expect("each round gives it back");
                *slot = server.round(free, black_box(question));
            }
        });
    }
}

#[library_benchmark(setup = warm)]
#[bench::refused("whoami", "example.com. A")]
#[bench::whoami("whoami", "www.example.org. A")]
#[bench::cache_hit("cache\n forward . scripted", "www.example.org. A")]
#[bench::cache_hit_edns("cache\n forward . scripted", "www.example.org. A +do +cookie")]
#[bench::full(
    "errors\n metrics 127.0.0.1:0\n cache\n loadbalance\n forward . scripted",
    "www.example.org. A"
)]
#[bench::etcd("etcd", "web.example.org. A")]
#[bench::etcd_nxdomain("etcd", "nobody.example.org. A")]
#[bench::etcd_behind_cache("cache\n etcd", "web.example.org. A")]
fn answers(mut warm: Warm) -> Warm {
    warm.ask(QUERIES);
    warm
}

library_benchmark_group!(name = hot_path, benchmarks = answers);

main!(library_benchmark_groups = hot_path);
