//! The ways to etcd, and what is left without one: a JSON API that is off, `etcd gateway`, members that are gone, a snapshot on disk, and a
//! serial that is the same on a server that has just started.

mod support;

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use support::{Cluster, Process, Skeindns, addresses, free_port, until};

fn host(octet: u8) -> String {
    format!("{{\"host\":\"192.0.2.{octet}\"}}")
}

fn put(cluster: &Cluster, path: &str, octet: u8) {
    let key = format!("/skydns/org/example/{path}");
    cluster.ctl(&["put", &key, &host(octet)]);
}

fn start(dir: &Path, options: &str) -> Skeindns {
    let dnsfile =
        format!("example.org:0 {{\n bind 127.0.0.1\n errors\n etcd {{\n {options}\n }}\n}}\n");
    Skeindns::start(dir, &dnsfile)
}

fn answer(server: &Skeindns, name: &str) -> (ResponseCode, Vec<u8>) {
    let message = server.ask(&format!("{name}.example.org."), RecordType::A);
    let octets = addresses(&message);
    let octets = octets.iter().map(|address| address.octets()[3]).collect();
    (message.metadata.response_code, octets)
}

fn becomes(server: &Skeindns, name: &str, octet: u8) {
    until(&format!("{name} is {octet}"), || {
        (answer(server, name) == (ResponseCode::NoError, vec![octet])).then_some(())
    });
}

fn vanishes(server: &Skeindns, name: &str) {
    until(&format!("{name} is gone"), || {
        (answer(server, name).0 == ResponseCode::NXDomain).then_some(())
    });
}

/// etcd 3.4 that is started with a config file has no JSON API unless the file says so.
#[test]
fn a_json_api_that_is_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let (client, peer) = (free_port(), free_port());
    let file = dir.path().join("etcd.yml");
    let etcd = |more: &str| {
        let text = format!(
            "name: m0\ndata-dir: {}\nlisten-client-urls: http://127.0.0.1:{client}\nadvertise-client-urls: http://127.0.0.1:{client}\nlisten-peer-urls: http://127.0.0.1:{peer}\ninitial-advertise-peer-urls: http://127.0.0.1:{peer}\ninitial-cluster: m0=http://127.0.0.1:{peer}\n{more}",
            dir.path().join("m0").display()
        );
        fs::write(&file, text).expect("our folder");
        let child = Command::new("etcd")
            .arg("--config-file")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed: make test-packages");
        let process = Process(child);
        until("it listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, client)).ok()
        });
        process
    };
    let off = etcd("");
    let server = start(dir.path(), &format!("endpoint http://127.0.0.1:{client}"));
    let line = server.line(|line| line.contains("JSON API is off"));
    assert!(line.contains("enable-grpc-gateway: true"), "{line}");
    drop(off);
    let _on = etcd("enable-grpc-gateway: true\n");
    let cluster = Cluster::planned(dir.path(), vec![(client, peer)]);
    put(&cluster, "a", 1);
    becomes(&server, "a", 1);
}

#[test]
fn through_a_gateway() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start_with(dir.path(), 3, "http", &["--enable-v2".into()], &[]);
    let port = free_port();
    let endpoints: Vec<String> = cluster
        .ports
        .iter()
        .map(|(client, _)| format!("127.0.0.1:{client}"))
        .collect();
    let child = Command::new("etcd")
        .args(["gateway", "start", "--retry-delay=1s"])
        .arg(format!("--endpoints={}", endpoints.join(",")))
        .arg(format!("--listen-addr=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed: make test-packages");
    let _gateway = Process(child);
    put(&cluster, "a", 1);
    let server = start(dir.path(), &format!("endpoint http://127.0.0.1:{port}"));
    becomes(&server, "a", 1);
    for member in 0..3u8 {
        cluster.members[usize::from(member)].end();
        put(&cluster, "a", 2 + member);
        becomes(&server, "a", 2 + member);
        cluster.members[usize::from(member)] = cluster.member(usize::from(member));
        cluster.wait();
    }
    // One that is frozen holds its connections: behind a gateway nobody says that it is gone.
    for member in 0..3u8 {
        cluster.members[usize::from(member)].signal("-STOP");
        put(&cluster, "b", 10 + member);
        becomes(&server, "b", 10 + member);
        cluster.members[usize::from(member)].signal("-CONT");
        cluster.wait();
    }
}

#[test]
fn members_that_are_gone_come_last() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    put(&cluster, "a", 1);
    // One that takes connections and never says anything, and two that refuse them.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let silent = silent.local_addr().expect("it is bound").port();
    let endpoints = format!(
        "endpoint http://127.0.0.1:{} http://127.0.0.1:{} http://127.0.0.1:{silent} {}",
        free_port(),
        free_port(),
        cluster.endpoints()[0]
    );
    let server = start(dir.path(), &endpoints);
    becomes(&server, "a", 1);
    put(&cluster, "a", 2);
    becomes(&server, "a", 2);
}

#[test]
fn a_restart_without_etcd() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(dir.path(), 1);
    put(&cluster, "a", 1);
    put(&cluster, "gone", 2);
    let file = dir.path().join("names.snapshot");
    let options = format!(
        "endpoint {}\n snapshot {}",
        cluster.endpoints()[0],
        file.display()
    );
    let mut server = start(dir.path(), &options);
    becomes(&server, "gone", 2);
    server.process.signal("-TERM");
    server.process.wait();
    assert!(file.exists());
    cluster.ctl(&["del", "/skydns/org/example/gone"]);
    put(&cluster, "a", 3);
    cluster.members[0].end();

    let server = start(dir.path(), &options);
    server.line(|line| line.contains("from the snapshot"));
    becomes(&server, "a", 1);
    becomes(&server, "gone", 2);
    assert_eq!(answer(&server, "none").0, ResponseCode::NXDomain);
    cluster.start_members();
    becomes(&server, "a", 3);
    vanishes(&server, "gone");
    drop(server);

    // Damaged, it is as if there were none, and said so.
    cluster.members[0].end();
    let mut bytes = fs::read(&file).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("our folder");
    let server = start(dir.path(), &options);
    let line = server.line(|line| line.contains("is not used"));
    assert!(line.contains("names.snapshot"), "{line}");
    assert_eq!(answer(&server, "a").0, ResponseCode::ServFail);
    cluster.start_members();
    becomes(&server, "a", 3);
}

fn serial(server: &Skeindns) -> Option<u32> {
    let message = server.ask("example.org.", RecordType::SOA);
    message
        .answers
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        })
}

#[test]
fn a_serial_that_all_servers_say() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    put(&cluster, "a", 1);
    put(&cluster, "b", 2);
    let options = format!("endpoint {}", cluster.endpoints()[0]);
    let first = start(dir.path(), &options);
    becomes(&first, "b", 2);
    cluster.ctl(&["del", "/skydns/org/example/a"]);
    vanishes(&first, "a");
    cluster.ctl(&["put", "/elsewhere", "x"]);
    let expected = serial(&first).expect("an answer");
    let other = tempfile::tempdir().expect("a folder");
    let second = start(other.path(), &options);
    until("it says the same", || {
        (serial(&second) == Some(expected)).then_some(())
    });
    // A compaction takes the deletion out of the history, but not the serial of who has heard of it.
    put(&cluster, "c", 3);
    becomes(&first, "c", 3);
    becomes(&second, "c", 3);
    let revision = serial(&first).expect("an answer");
    cluster.ctl(&["compact", &revision.to_string()]);
    let last = tempfile::tempdir().expect("a folder");
    let third = start(last.path(), &options);
    becomes(&third, "c", 3);
    assert_eq!(
        (serial(&second), serial(&third)),
        (Some(revision), Some(revision))
    );
}
