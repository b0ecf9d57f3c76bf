//! The v2 keys API against etcd's own servers: the client call by call, and the plugin that follows it.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use skein_plugins::etcd::{
    Config, Credentials, Error, V2Client, V2Delete, V2If, V2Put, V2Reply, V2Waited,
};
use support::{Cluster, Skeindns, addresses, until};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn cluster(dir: &Path, size: usize) -> Cluster {
    Cluster::start_with(dir, size, "http", &["--enable-v2".into()], &[])
}

fn client(cluster: &Cluster) -> V2Client {
    V2Client::new(&Config {
        endpoints: cluster.endpoints(),
        ..Config::default()
    })
    .expect("plain HTTP")
}

fn host(octet: u8) -> String {
    format!("{{\"host\":\"192.0.2.{octet}\"}}")
}

fn keys(reply: &V2Reply) -> Vec<&str> {
    reply.values().map(|node| &*node.key).collect()
}

#[test]
fn the_client_call_by_call() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = cluster(dir.path(), 1);
    let client = client(&cluster);
    runtime().block_on(async {
        assert_eq!(client.get("/none").await, Ok(None));
        assert_eq!(client.list("/none").await, Ok(None));
        let odd = "a+b&c=d%é\" ";
        let put = client
            .put("/x/a:b/1", &V2Put::value(odd))
            .await
            .expect("written");
        assert!(put.created && put.action == "set" && put.cluster_id != 0);
        let got = client.get("/x/a:b/1").await.expect("read").expect("there");
        assert_eq!(got.node.value, odd);
        assert_eq!(got.node.key, "/x/a:b/1");

        // Conditions.
        let missing = V2Put::value("2").only_if(V2If::Missing);
        assert!(matches!(
            client.put("/x/a:b/1", &missing).await,
            Err(Error::Conflict { .. })
        ));
        let exists = V2Put::value("2").only_if(V2If::Exists);
        assert!(matches!(
            client.put("/x/b", &exists).await,
            Err(Error::NoSuchKey { .. })
        ));
        let was = V2Put::value("2").only_if(V2If::Value(odd.into()));
        let put = client.put("/x/a:b/1", &was).await.expect("written");
        assert_eq!(put.previous.expect("it was there").value, odd);
        assert!(matches!(
            client.put("/x/a:b/1", &was).await,
            Err(Error::Conflict { .. })
        ));
        let at = V2Put::value("3").only_if(V2If::Index(put.node.modified_index));
        client.put("/x/a:b/1", &at).await.expect("written");
        // A key is no directory, and a directory no key.
        let below = client.put("/x/a:b/1/2", &V2Put::value("")).await;
        assert!(
            matches!(below, Err(Error::Refused { code: 104, .. })),
            "{below:?}"
        );
        let over = client.put("/x/a:b", &V2Put::value("")).await;
        assert!(
            matches!(over, Err(Error::Refused { code: 102, .. })),
            "{over:?}"
        );

        // Hidden keys are found by their own name only.
        client
            .put("/x/web/_tcp/_http/w1", &V2Put::value("h"))
            .await
            .expect("written");
        let list = client.list("/x").await.expect("read").expect("there");
        assert_eq!(keys(&list).len(), 1, "{list:?}");
        let hidden = client
            .list("/x/web/_tcp")
            .await
            .expect("read")
            .expect("there");
        assert!(hidden.values().all(|node| node.value != "h"));
        let hidden = client
            .list("/x/web/_tcp/_http")
            .await
            .expect("read")
            .expect("there");
        assert_eq!(keys(&hidden), ["/x/web/_tcp/_http/w1"]);

        // Times.
        let timed = client
            .put("/x/t", &V2Put::value("t").ttl(100))
            .await
            .expect("written");
        assert_eq!(timed.node.ttl, Some(100));
        let before = client
            .get("/x/t")
            .await
            .expect("read")
            .expect("there")
            .index;
        let renewed = client
            .refresh("/x/t", 200)
            .await
            .expect("renewed")
            .expect("there");
        assert_eq!(renewed.node.value, "t");
        assert_eq!(renewed.node.ttl, Some(200));
        assert_eq!(client.refresh("/x/none", 5).await, Ok(None));

        // Changes, one after the other; the renewal is none.
        client
            .put("/y", &V2Put::value("elsewhere"))
            .await
            .expect("written");
        client
            .put("/x/d/e", &V2Put::value("e"))
            .await
            .expect("written");
        let Ok(V2Waited::Change(change)) = client.wait("/x", before + 1).await else {
            panic!("a change");
        };
        assert_eq!((&*change.action, &*change.node.key), ("set", "/x/d/e"));
        let next = change.node.modified_index + 1;
        let tree = client
            .delete("/x/d", V2Delete::Tree)
            .await
            .expect("deleted");
        assert!(tree.expect("it was there").node.dir);
        let Ok(V2Waited::Change(change)) = client.wait("/x", next).await else {
            panic!("a change");
        };
        assert_eq!((&*change.action, &*change.node.key), ("delete", "/x/d"));
        assert!(change.node.dir);

        // Deleting.
        assert_eq!(client.delete("/x/none", V2Delete::Key).await, Ok(None));
        let other = client.delete("/x/t", V2Delete::Value("other".into())).await;
        assert!(matches!(other, Err(Error::Conflict { .. })));
        let deleted = client.delete("/x/t", V2Delete::Value("t".into())).await;
        assert!(deleted.expect("deleted").is_some());
        let full = client.delete("/x", V2Delete::EmptyDirectory).await;
        assert!(
            matches!(full, Err(Error::Refused { code: 108, .. })),
            "{full:?}"
        );

        // The history has a thousand changes.
        for n in 0..1001 {
            client
                .put("/y", &V2Put::value(n.to_string()))
                .await
                .expect("written");
        }
        let gone = client.wait("/x", before).await;
        assert!(
            matches!(gone, Err(Error::Compacted { revision: 1.. })),
            "{gone:?}"
        );
    });
}

#[test]
fn users_and_passwords() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = cluster(dir.path(), 1);
    let as_user = |user: &str, password: &str| {
        V2Client::new(&Config {
            endpoints: cluster.endpoints(),
            credentials: Some(Credentials {
                user: user.into(),
                password: password.into(),
            }),
            ..Config::default()
        })
        .expect("plain HTTP")
    };
    let anybody = client(&cluster);
    runtime().block_on(async {
        anybody
            .put("/skydns/a", &V2Put::value("a"))
            .await
            .expect("written");
        let put = |path: &str, body: &str| {
            let port = cluster.ports[0].0;
            // The password of root is `secret`.
            let text = format!(
                "PUT /v2/auth/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: Basic cm9vdDpzZWNyZXQ=\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            stream.write_all(text.as_bytes()).expect("it reads");
            let mut reply = String::new();
            stream.read_to_string(&mut reply).expect("it answers");
            assert!(reply.starts_with("HTTP/1.1 20"), "{reply}");
        };
        put("users/root", r#"{"user":"root","password":"secret"}"#);
        put(
            "roles/dns",
            r#"{"role":"dns","permissions":{"kv":{"read":["/skydns*"],"write":[]}}}"#,
        );
        put(
            "users/dns",
            r#"{"user":"dns","password":"word","roles":["dns"]}"#,
        );
        put("enable", "");
        put(
            "roles/guest",
            r#"{"role":"guest","revoke":{"kv":{"read":["/*"],"write":["/*"]}}}"#,
        );
        let refused = anybody.get("/skydns/a").await;
        assert!(
            matches!(refused, Err(Error::Unauthenticated { .. })),
            "{refused:?}"
        );
        let wrong = as_user("dns", "wrong").get("/skydns/a").await;
        assert!(matches!(wrong, Err(Error::Denied { .. })), "{wrong:?}");
        let reader = as_user("dns", "word");
        assert_eq!(
            reader
                .get("/skydns/a")
                .await
                .expect("read")
                .expect("there")
                .node
                .value,
            "a"
        );
        let written = reader.put("/skydns/a", &V2Put::value("b")).await;
        assert!(matches!(written, Err(Error::Denied { .. })), "{written:?}");
    });
    let server = start(dir.path(), &cluster, "api v2\n credentials dns word");
    becomes_rcode(&server, "b.example.org.", ResponseCode::NXDomain);
}

fn start(dir: &Path, cluster: &Cluster, options: &str) -> Skeindns {
    let endpoints = cluster.endpoints().join(" ");
    let dnsfile = format!(
        "example.org:0 {{\n bind 127.0.0.1\n errors\n etcd {{\n endpoint {endpoints}\n {options}\n }}\n}}\n"
    );
    Skeindns::start(dir, &dnsfile)
}

fn answer(server: &Skeindns, name: &str) -> (ResponseCode, Vec<u8>) {
    let message = server.ask(name, RecordType::A);
    let mut octets: Vec<u8> = addresses(&message)
        .iter()
        .map(|address| address.octets()[3])
        .collect();
    octets.sort_unstable();
    (message.metadata.response_code, octets)
}

fn becomes(server: &Skeindns, name: &str, octets: &[u8]) {
    until(&format!("{name} is {octets:?}"), || {
        (answer(server, name) == (ResponseCode::NoError, octets.to_vec())).then_some(())
    });
}

fn becomes_rcode(server: &Skeindns, name: &str, rcode: ResponseCode) {
    until(&format!("{name} is {rcode}"), || {
        (answer(server, name).0 == rcode).then_some(())
    });
}

#[test]
fn followed_live() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = cluster(dir.path(), 1);
    let client = client(&cluster);
    // Before there is anything below the prefix.
    let server = start(dir.path(), &cluster, "api v2\n min-lease-ttl 1");
    becomes_rcode(&server, "a.example.org.", ResponseCode::NXDomain);
    let runtime = runtime();
    let put = |path: &str, put: V2Put| {
        let key = format!("/skydns/org/example/{path}");
        runtime.block_on(client.put(&key, &put)).expect("written")
    };
    put("a", V2Put::value(host(1)));
    becomes(&server, "a.example.org.", &[1]);
    put("a", V2Put::value(host(2)));
    becomes(&server, "a.example.org.", &[2]);
    // A pool, as SkyDNS's documents have it, and as registrator writes it.
    for (n, name) in ["x1", "x2", "host:web:80"].iter().enumerate() {
        put(&format!("pool/{name}"), V2Put::value(host(10 + n as u8)));
    }
    becomes(&server, "pool.example.org.", &[10, 11, 12]);
    // Times: what is left of a key, and its end.
    put("timed", V2Put::value(host(20)).ttl(2));
    becomes(&server, "timed.example.org.", &[20]);
    assert!(
        server
            .ask("timed.example.org.", RecordType::A)
            .answers
            .iter()
            .all(|record| record.ttl <= 2)
    );
    becomes_rcode(&server, "timed.example.org.", ResponseCode::NXDomain);
    // A directory goes with all that is in it, by hand and by its time.
    let gone = client.delete("/skydns/org/example/pool", V2Delete::Tree);
    assert!(runtime.block_on(gone).expect("deleted").is_some());
    becomes_rcode(&server, "pool.example.org.", ResponseCode::NXDomain);
    becomes_rcode(&server, "x1.pool.example.org.", ResponseCode::NXDomain);
    put("short", V2Put::directory().ttl(2));
    put("short/a", V2Put::value(host(30)));
    put("short/b/c", V2Put::value(host(31)));
    becomes(&server, "short.example.org.", &[30, 31]);
    becomes_rcode(&server, "short.example.org.", ResponseCode::NXDomain);
    // Everything that is followed, and the directories above it.
    let all = runtime.block_on(client.delete("/skydns", V2Delete::Tree));
    assert!(all.expect("deleted").is_some());
    becomes_rcode(&server, "a.example.org.", ResponseCode::NXDomain);
    put("a", V2Put::value(host(3)));
    becomes(&server, "a.example.org.", &[3]);
    // Values that cannot be read cost only themselves.
    put("bad/x", V2Put::value("{\"host\":1}"));
    put("bad/y", V2Put::value(host(4)));
    becomes(&server, "bad.example.org.", &[4]);

    // While it does not listen more changes than the history keeps: what came and what went is found.
    put("gone", V2Put::value(host(5)));
    becomes(&server, "gone.example.org.", &[5]);
    server.process.signal("-STOP");
    let gone = client.delete("/skydns/org/example/gone", V2Delete::Key);
    assert!(runtime.block_on(gone).expect("deleted").is_some());
    for n in 0..1100u32 {
        let octet = (n % 250) as u8;
        put("new", V2Put::value(host(octet)));
    }
    put("last", V2Put::value(host(6)));
    server.process.signal("-CONT");
    becomes(&server, "last.example.org.", &[6]);
    becomes_rcode(&server, "gone.example.org.", ResponseCode::NXDomain);
    becomes(&server, "new.example.org.", &[99]);
}

#[test]
fn members_come_and_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(dir.path(), 3);
    let client = client(&cluster);
    let runtime = runtime();
    let put = |path: &str, octet: u8| {
        let key = format!("/skydns/org/example/{path}");
        let value = V2Put::value(host(octet));
        until("it is written", || {
            runtime.block_on(client.put(&key, &value)).ok()
        })
    };
    put("a", 1);
    let server = start(dir.path(), &cluster, "api v2");
    becomes(&server, "a.example.org.", &[1]);
    for member in 0..3u8 {
        let at = usize::from(member);
        cluster.members[at].end();
        assert_eq!(
            answer(&server, "a.example.org."),
            (ResponseCode::NoError, vec![1 + member])
        );
        put("a", 2 + member);
        becomes(&server, "a.example.org.", &[2 + member]);
        cluster.members[at] = cluster.member(at);
        cluster.wait();
    }
    for member in 0..3 {
        cluster.members[member].signal("-STOP");
        put("b", 10 + member as u8);
        becomes(&server, "b.example.org.", &[10 + member as u8]);
        cluster.members[member].signal("-CONT");
        cluster.wait();
    }
    // Without a majority the one that is left still answers us, and what has been read stays.
    for member in &mut cluster.members[..2] {
        member.end();
    }
    server.line(|line| line.contains("answers go on from memory"));
    assert_eq!(
        answer(&server, "a.example.org."),
        (ResponseCode::NoError, vec![4])
    );
    cluster.members[2].end();
    cluster.start_members();
    put("c", 30);
    becomes(&server, "c.example.org.", &[30]);
}

#[test]
fn which_store_is_followed() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = cluster(dir.path(), 1);
    let client = client(&cluster);
    let runtime = runtime();
    let put = V2Put::value(host(2));
    runtime
        .block_on(client.put("/skydns/org/example/a", &put))
        .expect("written");
    let v2 = start(dir.path(), &cluster, "api auto");
    v2.line(|line| line.contains("the v2 store is followed"));
    becomes(&v2, "a.example.org.", &[2]);
    cluster.ctl(&["put", "/skydns/org/example/a", &host(3)]);
    let v3 = start(dir.path(), &cluster, "api auto");
    v3.line(|line| line.contains("the v3 store is followed"));
    becomes(&v3, "a.example.org.", &[3]);
    assert_eq!(
        answer(&v2, "a.example.org."),
        (ResponseCode::NoError, vec![2])
    );
}

#[test]
fn an_etcd_without_it_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let server = start(dir.path(), &cluster, "api v2");
    let line = server.line(|line| line.contains("plugin/etcd"));
    assert!(line.contains("--enable-v2"), "{line}");
    assert_eq!(answer(&server, "a.example.org.").0, ResponseCode::ServFail);
}
