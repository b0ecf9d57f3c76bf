//! The fast path allocates nothing: a refused query, whoami, a cache hit, an answer from etcd or from a zone, from packet to reply.
//!
//! Measured in process, without sockets, with the slot used again as a worker does it, after a few rounds that let buffers grow.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use skein_plugins::PLUGINS;
use skein_plugins::kit::query::Slot;
use skein_plugins::kit::testing::server::{self, TestServer};
use skein_plugins::kit::testing::{Question, World, script};

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // The cell has no destructor, but a thread may be past its end.
    COUNT.try_with(|count| count.set(count.get() + 1)).ok();
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: as the trait demands; `System` has the same contract.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as the trait demands; `System` has the same contract.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: as the trait demands; `System` has the same contract.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of one answer to `question`, once everything is warm. `None` if the answer was not there at once.
fn allocations(dnsfile: &str, upstream: &[(&str, &str)], question: &str) -> Option<usize> {
    let world = World::new();
    for (subject, reply) in upstream {
        world
            .upstream
            .script(script(subject, reply).expect("the script is right"));
    }
    for (key, value) in KEYS {
        world.store.put(key.as_bytes(), value.as_bytes(), None);
    }
    let question = Question::parse(question).expect("the question is right");
    server::run(world.events.clone(), async {
        let server = match TestServer::start(&world, PLUGINS, dnsfile).await {
            Ok(server) => server,
            Err(errors) => panic!("{errors}"),
        };
        server::settle().await;
        // The first one may have to wait, for an upstream.
        let first = server.ask(&question).await;
        assert!(first.bytes.is_some(), "no answer");
        server::settle().await;
        let mut slot = Slot::new();
        for _ in 0..100 {
            slot = server.round(slot, &question)?;
        }
        let before = COUNT.get();
        for _ in 0..1000 {
            slot = server.round(slot, &question)?;
        }
        Some(COUNT.get() - before)
    })
}

const UPSTREAM: &[(&str, &str)] = &[(
    "www.example.org. A",
    "NOERROR ra\nwww.example.org. 3600 IN A 192.0.2.1\nwww.example.org. 3600 IN A 192.0.2.2",
)];

const KEYS: &[(&str, &str)] = &[
    (
        "/skydns/org/example/web/a",
        r#"{"host":"192.0.2.1","port":80}"#,
    ),
    (
        "/skydns/org/example/web/b",
        r#"{"host":"192.0.2.2","port":80}"#,
    ),
    ("/skydns/org/example/wild/*", r#"{"host":"192.0.2.3"}"#),
    ("/skydns/org/example/text", r#"{"text":"hello"}"#),
    (
        "/skydns/arpa/in-addr/192/0/2/1",
        r#"{"host":"web.example.org"}"#,
    ),
];

/// What stands around the plugin under test in an ordinary server block.
const AROUND: &str = "errors\n metrics 127.0.0.1:0\n";

#[test]
fn the_counter_counts() {
    let before = COUNT.get();
    drop(std::hint::black_box(vec![1, 2, 3]));
    assert_eq!(COUNT.get() - before, 1);
}

#[test]
fn a_refused_query_allocates_nothing() {
    let dnsfile = "example.org {\n whoami\n}\n";
    assert_eq!(allocations(dnsfile, &[], "example.com. A"), Some(0));
    assert_eq!(
        allocations(dnsfile, &[], "example.com. A +do +nsid"),
        Some(0)
    );
}

#[test]
fn whoami_allocates_nothing() {
    let dnsfile = format!(". {{\n {AROUND} whoami\n}}\n");
    assert_eq!(allocations(&dnsfile, &[], "example.com. A"), Some(0));
    assert_eq!(allocations(&dnsfile, &[], "example.com. A +do"), Some(0));
}

#[test]
fn an_answer_of_the_edge_allocates_nothing() {
    let dnsfile = ". {\n whoami\n}\n";
    assert_eq!(allocations(dnsfile, &[], "example.com. A +edns=1"), Some(0));
    assert_eq!(
        allocations(dnsfile, &[], "example.com. A +opcode=5"),
        Some(0)
    );
}

#[test]
fn a_cache_hit_allocates_nothing() {
    let dnsfile = format!(". {{\n {AROUND} cache 3600\n forward . scripted\n}}\n");
    for question in [
        "www.example.org. A",
        "WWW.example.org. A",
        "www.example.org. A +do",
        "www.example.org. A +tcp",
    ] {
        assert_eq!(
            allocations(&dnsfile, UPSTREAM, question),
            Some(0),
            "{question}"
        );
    }
}

#[test]
fn a_judged_query_allocates_nothing() {
    let dnsfile = format!(
        ". {{\n {AROUND} acl {{\n block net 127.0.0.1 type MX\n filter type TXT\n allow net 127.0.0.0/8\n }}\n whoami\n}}\n"
    );
    for question in [
        "example.org. A",
        "example.org. MX +do",
        "example.org. TXT +do",
    ] {
        assert_eq!(allocations(&dnsfile, &[], question), Some(0), "{question}");
    }
}

#[test]
fn an_answer_of_hosts_allocates_nothing() {
    let dnsfile = format!(
        ". {{\n {AROUND} cache\n hosts /no/such/file {{\n 192.0.2.1 web.example.org\n 192.0.2.2 web.example.org\n 2001:db8::1 *.example.org\n }}\n}}\n"
    );
    for question in [
        "web.example.org. A",
        "WEB.example.org. AAAA +do",
        "web.example.org. TXT",
        "1.2.0.192.in-addr.arpa. PTR",
        "nothing.example.com. A",
    ] {
        assert_eq!(allocations(&dnsfile, &[], question), Some(0), "{question}");
    }
}

#[test]
fn small_plugins_allocate_nothing() {
    let dnsfile = format!(
        ". {{\n nsid one\n bufsize 900\n {AROUND} local\n any\n chaos\n header {{\n response set ra\n }}\n minimal\n whoami\n}}\n"
    );
    for question in [
        "localhost. A",
        "2.0.0.127.in-addr.arpa. PTR",
        "example.org. ANY",
        "version.bind. TXT +class=CH",
        "authors.bind. TXT +class=CH",
        "example.org. A +do +nsid",
    ] {
        assert_eq!(allocations(&dnsfile, &[], question), Some(0), "{question}");
    }
}

#[test]
fn a_shuffled_cache_hit_allocates_nothing() {
    let dnsfile = format!(". {{\n {AROUND} loadbalance\n cache 3600\n forward . scripted\n}}\n");
    assert_eq!(
        allocations(&dnsfile, UPSTREAM, "www.example.org. A"),
        Some(0)
    );
}

#[test]
fn an_answer_from_etcd_allocates_nothing() {
    let dnsfile = format!(
        "example.org 2.0.192.in-addr.arpa {{\n {AROUND} etcd example.org 2.0.192.in-addr.arpa {{\n endpoint http://192.0.2.9:2379\n }}\n}}\n"
    );
    for question in [
        "web.example.org. A",
        "WEB.example.org. A +do",
        "web.example.org. SRV",
        "web.example.org. AAAA",
        "text.example.org. TXT",
        "1.2.0.192.in-addr.arpa. PTR",
        "example.org. SOA",
        "nothing.example.org. A",
    ] {
        assert_eq!(allocations(&dnsfile, &[], question), Some(0), "{question}");
    }
}

#[test]
fn an_answer_of_a_wildcard_allocates_nothing() {
    for like in ["coredns", "skydns"] {
        let dnsfile = format!(
            ". {{\n {AROUND} etcd example.org {{\n endpoint http://192.0.2.9:2379\n wildcards records\n answers {like}\n }}\n}}\n"
        );
        for question in [
            "foo.wild.example.org. A",
            "bar.foo.wild.example.org. A",
            "foo.wild.example.org. AAAA",
            "foo.example.org. A",
        ] {
            assert_eq!(allocations(&dnsfile, &[], question), Some(0), "{question}");
        }
    }
}

#[test]
fn an_automatic_reverse_name_allocates_nothing() {
    let dnsfile = format!(
        ". {{\n {AROUND} etcd example.org 192.0.2.0/24 {{\n endpoint http://192.0.2.9:2379\n auto-ptr\n }}\n}}\n"
    );
    for question in ["2.2.0.192.in-addr.arpa. PTR", "web.example.org. A"] {
        assert_eq!(allocations(&dnsfile, &[], question), Some(0), "{question}");
    }
}

#[test]
fn an_answer_like_skydns_allocates_nothing() {
    let dnsfile = format!(
        ". {{\n {AROUND} loadbalance\n etcd example.org {{\n endpoint http://192.0.2.9:2379\n answers skydns\n }}\n}}\n"
    );
    for question in [
        "web.example.org. A",
        "WEB.example.org. A +do",
        "web.example.org. SRV",
        "web.example.org. AAAA",
        "text.example.org. TXT",
        "1.2.0.192.in-addr.arpa. PTR",
        "example.org. SOA",
        "example.org. NS",
        "ns.dns.example.org. A",
        "nothing.example.org. A",
        "version.bind. TXT +class=CH",
        "org. A",
    ] {
        assert_eq!(allocations(&dnsfile, &[], question), Some(0), "{question}");
    }
}

#[test]
fn an_answer_from_etcd_behind_a_cache_allocates_nothing() {
    let dnsfile = format!(
        "example.org {{\n {AROUND} loadbalance\n cache\n etcd example.org {{\n endpoint http://192.0.2.9:2379\n }}\n}}\n"
    );
    assert_eq!(allocations(&dnsfile, &[], "web.example.org. A"), Some(0));
    assert_eq!(allocations(&dnsfile, &[], "web.example.org. SRV"), Some(0));
}

#[test]
fn an_answer_from_a_zone_allocates_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("db.example.org");
    let zone = "$TTL 1h\n@ SOA ns1 hostmaster 1 2h 15m 2w 5m\n NS ns1\nns1 A 192.0.2.1\nwww A 192.0.2.2\n AAAA 2001:db8::2\n\
        mail MX 10 www\nalias CNAME www\n*.wild TXT \"any\"\nold DNAME wild\nsub NS ns.sub\nns.sub A 192.0.2.3\nsrv SRV 1 2 3 www\n";
    std::fs::write(&file, zone).expect("our folder");
    let dnsfile = format!("example.org {{\n {AROUND} file {}\n}}\n", file.display());
    for question in [
        "www.example.org. A",
        "WWW.example.org. AAAA +do",
        "www.example.org. TXT",
        "mail.example.org. MX",
        "srv.example.org. SRV",
        "alias.example.org. A",
        "a.b.wild.example.org. TXT",
        "x.old.example.org. TXT",
        "host.sub.example.org. A",
        "nothing.example.org. A",
        "example.org. SOA",
        "example.org. NS",
        "www.example.org. ANY",
    ] {
        assert_eq!(allocations(&dnsfile, &[], question), Some(0), "{question}");
    }
}
