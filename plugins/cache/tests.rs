//! The handler in front of an upstream of the test's own: joining questions, stale answers, refreshes.

use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock};

use super::fixtures::{query, response};
use super::*;
use crate::kit::handler::Link;

/// What the upstream does with a query: an answer, or none while it is silent.
type Script =
    dyn Fn(usize, Query) -> std::pin::Pin<Box<dyn Future<Output = Response> + Send>> + Send + Sync;

/// The last handler of a chain.
struct Upstream {
    asked: Arc<AtomicUsize>,
    script: Arc<Script>,
}

impl Handler for Upstream {
    fn serve<'c>(&'c self, query: Query, _: Next<'c>) -> Served<'c> {
        let number = self.asked.fetch_add(1, Relaxed);
        Served::later((self.script)(number, query))
    }
}

/// A chain of cache and upstream.
struct Chain {
    links: Vec<Link>,
    store: Arc<Store>,
    asked: Arc<AtomicUsize>,
}

impl Chain {
    fn new<F>(script: impl Fn(usize, Query) -> F + Send + Sync + 'static) -> Chain
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let config = Config::for_tests();
        let store = Arc::new(Store::new(config.limits));
        let inner = Arc::new(Inner {
            config,
            store: Arc::clone(&store),
            lookup: Lookup {
                home: Arc::new(OnceLock::new()),
                chain: 0,
                behind: 1,
            },
            meters: Vec::new(),
        });
        let asked = Arc::new(AtomicUsize::new(0));
        let upstream = Upstream {
            asked: Arc::clone(&asked),
            script: Arc::new(move |number, query| Box::pin(script(number, query))),
        };
        let cache = Cache {
            inner,
            _readings: Vec::new(),
        };
        Chain {
            links: vec![
                Link {
                    name: "cache",
                    handler: Box::new(cache),
                },
                Link {
                    name: "upstream",
                    handler: Box::new(upstream),
                },
            ],
            store,
            asked,
        }
    }

    fn serve(&self, query: Query) -> Served<'_> {
        Next::new(&self.links).serve(query)
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    fn flights(&self) -> usize {
        let all = (0..256u64).map(|n| self.store.shard(n << 40).flights.len());
        all.sum()
    }
}

/// A client's query.
fn asked_by_client(name: &str, words: &[&str]) -> Query {
    let mut query = query(name, Rtype::A, words);
    query.slot_mut().facts.internal = false;
    query
}

fn address(query: Query) -> Response {
    let record = format!(
        "an {} 60 A 192.0.2.1",
        crate::kit::wire::name::display(query.qname())
    );
    response(query, Rcode::NOERROR, &[&record])
}

/// A gate that a test opens.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Relaxed);
    }
    async fn passed(&self) {
        while !self.0.load(Relaxed) {
            tokio::task::yield_now().await;
        }
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(test)
}

/// A thousand clients on four threads, all under way before the upstream answers.
fn thousand(
    subject: impl Fn(usize) -> Query + Sync,
    reply: fn(Query) -> Response,
) -> (usize, Vec<Rcode>) {
    const CLIENTS: usize = 1_000;
    let started = Arc::new(AtomicUsize::new(0));
    let chain = Chain::new({
        let started = Arc::clone(&started);
        move |_, query| {
            let started = Arc::clone(&started);
            async move {
                while started.load(Relaxed) < CLIENTS {
                    tokio::task::yield_now().await;
                }
                reply(query)
            }
        }
    });
    let rcodes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (chain, started, rcodes, subject) = (&chain, &started, &rcodes, &subject);
            scope.spawn(move || {
                let mut served = Vec::new();
                for n in 0..CLIENTS / 4 {
                    served.push(chain.serve(subject(thread * CLIENTS / 4 + n)));
                    started.fetch_add(1, Relaxed);
                }
                let all = futures_util::future::join_all(served.into_iter().map(Served::response));
                for response in run(all) {
                    rcodes.lock().expect("nobody panics").push(response.rcode());
                }
            });
        }
    });
    assert_eq!(chain.flights(), 0);
    let rcodes = rcodes.into_inner().expect("nobody panics");
    assert_eq!(rcodes.len(), CLIENTS);
    (chain.asked(), rcodes)
}

#[test]
fn a_thousand_clients_on_one_cold_name_are_one_question() {
    let (asked, rcodes) = thousand(|_| asked_by_client("www.example.org", &[]), address);
    assert_eq!(asked, 1);
    assert!(rcodes.iter().all(|rcode| *rcode == Rcode::NOERROR));
}

#[test]
fn an_answer_that_is_not_kept_serves_those_who_waited() {
    let refuse = |query: Query| query.rcode(Rcode::REFUSED);
    let (asked, rcodes) = thousand(|_| asked_by_client("www.example.org", &[]), refuse);
    assert_eq!(asked, 1);
    assert!(rcodes.iter().all(|rcode| *rcode == Rcode::REFUSED));
}

#[test]
fn few_subnets_of_one_name_are_asked_at_a_time() {
    let most = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(AtomicUsize::new(0));
    let gate = Gate::default();
    let chain = Chain::new({
        let (most, open, gate) = (Arc::clone(&most), Arc::clone(&open), gate.clone());
        move |_, query| {
            let (most, open, gate) = (Arc::clone(&most), Arc::clone(&open), gate.clone());
            async move {
                most.fetch_max(open.fetch_add(1, Relaxed) + 1, Relaxed);
                gate.passed().await;
                open.fetch_sub(1, Relaxed);
                address(query)
            }
        }
    });
    let served: Vec<_> = (0..200)
        .map(|n| chain.serve(asked_by_client("www.example.org", &[&format!("ecs={n}")])))
        .collect();
    assert_eq!(chain.asked(), 8);
    gate.open();
    let responses = run(futures_util::future::join_all(
        served.into_iter().map(Served::response),
    ));
    assert!(
        responses
            .iter()
            .all(|response| response.rcode() == Rcode::NOERROR)
    );
    assert_eq!(chain.flights(), 0);
}

#[test]
fn when_the_leader_is_dropped_another_one_asks() {
    let chain = Chain::new(|number, query| async move {
        if number == 0 {
            std::future::pending::<()>().await;
        }
        address(query)
    });
    run(async {
        let leader = chain.serve(asked_by_client("www.example.org", &[]));
        let followers: Vec<_> = (0..10)
            .map(|_| chain.serve(asked_by_client("www.example.org", &[])))
            .collect();
        drop(leader);
        let all = futures_util::future::join_all(followers.into_iter().map(Served::response));
        assert!(
            all.await
                .iter()
                .all(|response| response.rcode() == Rcode::NOERROR)
        );
    });
    assert_eq!((chain.asked(), chain.flights()), (2, 0));
}

#[test]
fn when_the_leader_panics_another_one_asks() {
    let chain = Arc::new(Chain::new(|number, query| async move {
        assert!(number > 0, "planted");
        address(query)
    }));
    let rcodes = run(async {
        let clients = (0..10).map(|_| {
            let chain = Arc::clone(&chain);
            tokio::spawn(async move {
                let served = chain.serve(asked_by_client("www.example.org", &[]));
                tokio::task::yield_now().await;
                served.response().await.rcode()
            })
        });
        futures_util::future::join_all(clients).await
    });
    let answered = rcodes
        .iter()
        .filter(|rcode| matches!(rcode, Ok(Rcode::NOERROR)))
        .count();
    assert_eq!((answered, chain.asked(), chain.flights()), (9, 2, 0));
}

#[test]
fn a_question_of_our_own_waits_for_nobody() {
    let chain = Chain::new(|number, query| async move {
        if number == 0 {
            std::future::pending::<()>().await;
        }
        address(query)
    });
    run(async {
        let leader = chain.serve(asked_by_client("www.example.org", &[]));
        let own = chain
            .serve(query("www.example.org", Rtype::A, &[]))
            .response()
            .await;
        assert_eq!(own.rcode(), Rcode::NOERROR);
        drop(leader);
    });
}

#[test]
fn a_query_without_rd_may_have_what_others_asked_for_and_not_the_other_way() {
    let chain = Chain::new(|_, query| async move { address(query) });
    let ask = |words: &'static [&'static str]| {
        let served = chain.serve(asked_by_client("www.example.org", words));
        drop(run(served.response()));
        chain.asked()
    };
    assert_eq!(ask(&["norec"]), 1);
    assert_eq!(ask(&["norec"]), 1);
    assert_eq!(ask(&[]), 2);
    assert_eq!(ask(&[]), 2);
}

/// Names, types and times at random on four threads: nobody gets another question's answer, and nothing is left under way.
#[test]
fn many_threads_many_names() {
    let chain = Chain::new(|number, query| async move {
        if number % 3 == 0 {
            tokio::task::yield_now().await;
        }
        match number % 7 {
            0 => query.rcode(Rcode::REFUSED),
            1 => query.rcode(Rcode::SERVFAIL),
            _ => address(query),
        }
    });
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let chain = &chain;
            scope.spawn(move || {
                let mut state = thread as u64 + 1;
                run(async {
                    for _ in 0..200 {
                        let served = (0..20).map(|_| {
                            state = state
                                .wrapping_mul(6_364_136_223_846_793_005)
                                .wrapping_add(1);
                            let name = format!("h{}.example.org", (state >> 33) % 50);
                            let words: &[&str] =
                                [&[][..], &["do"], &["cd"]][(state >> 40) as usize % 3];
                            chain.serve(asked_by_client(&name, words))
                        });
                        let served: Vec<_> = served.collect();
                        for (n, served) in served.into_iter().enumerate() {
                            // Some clients go away.
                            if n % 5 == 4 {
                                drop(served);
                                continue;
                            }
                            let response = served.response().await;
                            let question = response.query().qname();
                            assert!(response.wire()[12..].starts_with(question));
                        }
                    }
                });
            });
        }
    });
    assert_eq!(chain.flights(), 0);
}

/// Four ways to fail, four kinds of answers kept, three modes: what a client gets when its answer is over, in conversations.
#[cfg(feature = "testing")]
#[test]
fn stale_matrix() {
    use crate::kit::testing::scenario::run_text;

    const SOA: &str =
        "authority example.org. 60 IN SOA ns.example.org. who.example.org. 1 60 60 60 60";
    let failures = [
        ("silent", "SERVFAIL qr rd"),
        ("SERVFAIL", "SERVFAIL qr rd"),
        ("REFUSED", "REFUSED qr rd"),
        ("raw 000080000001", "SERVFAIL qr rd"),
    ];
    let address = "{name} 60 IN A 192.0.2.1".to_owned();
    let kinds = [
        ("NOERROR", address),
        ("NOERROR", SOA.to_owned()),
        ("NXDOMAIN", SOA.to_owned()),
        ("SERVFAIL", String::new()),
    ];
    let modes = [
        "",
        "serve_stale 1h immediate 7s",
        "serve_stale 1h verify 100ms 7s",
    ];
    let mut cells = 0;
    for (failure, plain) in failures {
        for (rcode, record) in &kinds {
            for mode in modes {
                let served = record
                    .replace("{name}", "www.example.org.")
                    .replace(" 60 IN", " 7 IN");
                let is_stale = !mode.is_empty() && *rcode != "SERVFAIL";
                let expected = match is_stale {
                    true => format!("{rcode} qr rd\n    {served}"),
                    false => plain.to_owned(),
                };
                let kept = record.replace("{name}", "www.example.org.");
                let text = format!(
                    "Dnsfile\n    . {{\n        cache {{\n            {mode}\n        }}\n        forward . scripted\n    }}\n\
                     upstream www.example.org. A\n    {rcode}\n    {record}\n\
                     ask www.example.org. A\n    {rcode} qr rd\n    {kept}\n\
                     upstream www.example.org. A\n    {failure}\n\
                     elapse 61s\n\
                     ask www.example.org. A\n    {expected}\n"
                );
                // A line of spaces alone would be a record.
                let lines: Vec<&str> = text
                    .lines()
                    .filter(|line| !line.trim().is_empty())
                    .collect();
                let outcome = run_text(&(lines.join("\n") + "\n"), crate::PLUGINS, false);
                assert!(outcome.failures.is_empty(), "{text}\n{}", outcome.updated);
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 48);
}
