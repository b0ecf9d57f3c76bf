//! The whole story with real servers: five etcd members, a record per host, an upstream; one member killed, then all of them; what is outside
//! forwarded and cached; everything counted; a broken edit of the Dnsfile that changes nothing.

use std::fs;
use std::net::Ipv4Addr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};

mod support;

use support::{Cluster, Skeindns, addresses, binary, free_port, http, nsd, until, zone};

fn service(endpoints: &[String], args: &[&str]) {
    let output = binary()
        .arg("service")
        .args(args)
        .args(["--endpoint", &endpoints.join(",")])
        .output()
        .expect("our binary is built");
    assert!(
        output.status.success(),
        "service {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn five_members_one_killed_then_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(dir.path(), 5);
    let (_upstream, upstream_port) = nsd(dir.path(), &zone("192.0.2.80", ""));
    let metrics_port = free_port();
    let ready_port = free_port();
    let dnsfile = dir.path().join("Dnsfile");
    let text = format!(
        ".:0 {{\n    bind 127.0.0.1\n    errors\n    log\n    ready 127.0.0.1:{ready_port}\n    prometheus 127.0.0.1:{metrics_port}\n    cache 300\n    etcd skydns.local 10.10.10.0/24 {{\n        path /skydns\n        endpoint {}\n    }}\n    forward . 127.0.0.1:{upstream_port}\n}}\n",
        cluster.endpoints().join(" ")
    );
    let server = Skeindns::start(dir.path(), &text);
    until("it is ready", || {
        http(ready_port, "/ready").contains(" 200 ").then_some(())
    });

    // A record per host, forward and reverse, and a service.
    for host in 1..=5 {
        let (name, ip) = (
            format!("node{host}.skydns.local"),
            format!("10.10.10.20{host}"),
        );
        service(&cluster.endpoints(), &["put", &name, "--host", &ip]);
        let reverse = format!("20{host}.10.10.10.in-addr.arpa");
        service(&cluster.endpoints(), &["put", &reverse, "--host", &name]);
    }
    service(
        &cluster.endpoints(),
        &[
            "put",
            "x1.web.skydns.local",
            "--host",
            "10.10.10.201",
            "--port",
            "80",
        ],
    );

    until("node5 is there", || {
        (!addresses(&server.ask("node5.skydns.local.", RecordType::A)).is_empty()).then_some(())
    });
    until("web is there", || {
        (!server
            .ask("web.skydns.local.", RecordType::SRV)
            .answers
            .is_empty())
        .then_some(())
    });
    let check_all = || {
        for host in 1..=5u8 {
            let answer = server.ask(&format!("node{host}.skydns.local."), RecordType::A);
            assert_eq!(addresses(&answer), [Ipv4Addr::new(10, 10, 10, 200 + host)]);
            let answer = server.ask(&format!("20{host}.10.10.10.in-addr.arpa."), RecordType::PTR);
            let RData::PTR(target) = &answer.answers.first().expect("a PTR record").data else {
                panic!("not a PTR")
            };
            assert_eq!(target.0.to_ascii(), format!("node{host}.skydns.local."));
        }
        let answer = server.ask("web.skydns.local.", RecordType::SRV);
        let RData::SRV(srv) = &answer.answers.first().expect("an SRV record").data else {
            panic!("not an SRV")
        };
        assert_eq!((srv.port, srv.priority, srv.weight), (80, 10, 100));
        let answer = server.ask("nobody.skydns.local.", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    };
    check_all();

    // One member is killed: changes still arrive.
    drop(cluster.members.remove(0));
    let left = cluster.endpoints()[1..].to_vec();
    service(
        &left,
        &["put", "node6.skydns.local", "--host", "10.10.10.206"],
    );
    until("node6 is there", || {
        (!addresses(&server.ask("node6.skydns.local.", RecordType::A)).is_empty()).then_some(())
    });
    check_all();

    // All of them are stopped: answers go on, and the gauge says so.
    cluster.members.clear();
    until("the outage is noticed", || {
        let text = http(metrics_port, "/metrics");
        let line = text
            .lines()
            .find(|line| line.starts_with("skeindns_etcd_disconnected_seconds"))?
            .to_owned();
        line.rsplit(' ')
            .next()?
            .parse::<f64>()
            .ok()
            .filter(|seconds| *seconds > 0.0)
    });
    check_all();
    assert!(
        http(ready_port, "/ready").contains(" 200 "),
        "readiness is latched"
    );

    // What is outside goes to the upstream, and the second time comes from the cache.
    for _ in 0..2 {
        assert_eq!(
            addresses(&server.ask("www.example.com.", RecordType::A)),
            [Ipv4Addr::new(192, 0, 2, 80)]
        );
    }
    let metrics = http(metrics_port, "/metrics");
    let has = |start: &str| metrics.lines().any(|line| line.starts_with(start));
    assert!(has("coredns_cache_hits_total{"), "{metrics}");
    assert!(
        has("coredns_proxy_request_duration_seconds_count{"),
        "{metrics}"
    );
    assert!(
        has("coredns_dns_responses_total{plugin=\"etcd\""),
        "{metrics}"
    );
    assert!(
        has("coredns_dns_responses_total{plugin=\"cache\""),
        "{metrics}"
    );
    server.line(|line| line.contains("www.example.com.") && line.contains("NOERROR"));

    // A broken edit changes nothing and says why.
    fs::write(&dnsfile, text.replace("forward", "forwrd")).expect("the folder is ours");
    server.process.signal("-HUP");
    let line = server.line(|line| line.contains("forwrd"));
    assert!(line.contains("Dnsfile:"), "{line}");
    check_all();
    assert_eq!(
        addresses(&server.ask("www.example.com.", RecordType::A)),
        [Ipv4Addr::new(192, 0, 2, 80)]
    );

    // And it stops when it is told to.
    server.process.signal("-TERM");
    let mut process = server.process;
    assert_eq!(process.wait().code(), Some(0));
}
