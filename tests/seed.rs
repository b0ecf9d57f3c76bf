//! The whole story with real servers: five etcd members, a record per host, an upstream; one member killed, then all of them; what is outside
//! forwarded and cached; everything counted; a broken edit of the Dnsfile that changes nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

/// How long anything here may take: generous, since machines are slow at times. Nothing waits this long when it works.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .expect("loopback has ports")
        .port()
}

/// Waits until `what` holds; panics with its name when patience ends.
fn until<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < end, "waited too long until {name}");
        // Not synchronisation: only the pace at which we look.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A cluster of etcd's own servers on loopback.
struct Cluster {
    members: Vec<Process>,
    endpoints: Vec<String>,
}

impl Cluster {
    fn start(dir: &Path, size: usize) -> Cluster {
        let ports: Vec<(u16, u16)> = (0..size).map(|_| (free_port(), free_port())).collect();
        let initial: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(i, (_, peer))| format!("m{i}=http://127.0.0.1:{peer}"))
            .collect();
        let initial = initial.join(",");
        let members = ports.iter().enumerate().map(|(i, (client, peer))| {
            let (client, peer) = (
                format!("http://127.0.0.1:{client}"),
                format!("http://127.0.0.1:{peer}"),
            );
            let log = fs::File::create(dir.join(format!("m{i}.log"))).expect("the folder is ours");
            let child = Command::new("etcd")
                .args(["--name", &format!("m{i}"), "--data-dir"])
                .arg(dir.join(format!("m{i}")))
                .args([
                    "--listen-client-urls",
                    &client,
                    "--advertise-client-urls",
                    &client,
                ])
                .args([
                    "--listen-peer-urls",
                    &peer,
                    "--initial-advertise-peer-urls",
                    &peer,
                ])
                .args([
                    "--initial-cluster",
                    &initial,
                    "--initial-cluster-state",
                    "new",
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("etcd is installed: make test-packages");
            Process(child)
        });
        let members = members.collect();
        let endpoints: Vec<String> = ports
            .iter()
            .map(|(client, _)| format!("http://127.0.0.1:{client}"))
            .collect();
        let cluster = Cluster { members, endpoints };
        until("the cluster is healthy", || {
            let health = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args([
                    "--endpoints",
                    &cluster.endpoints.join(","),
                    "endpoint",
                    "health",
                ])
                .output()
                .expect("etcdctl is installed: make test-packages");
            health.status.success().then_some(())
        });
        cluster
    }
}

/// Our own binary, its output read line by line.
struct Skeindns {
    process: Process,
    lines: Receiver<String>,
    port: u16,
}

impl Skeindns {
    fn start(dnsfile: &Path) -> Skeindns {
        let mut child = Command::new(env!("CARGO_BIN_EXE_skeindns"))
            .arg("--conf")
            .arg(dnsfile)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("our binary is built");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Skeindns {
            process: Process(child),
            lines,
            port: 0,
        };
        let line = server.line(|line| line.starts_with(".:"));
        server.port = line
            .trim_start_matches(".:")
            .split(' ')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("a port");
        server
    }

    /// The next line of output that matches.
    fn line(&self, matches: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .expect("the line comes in time");
            if matches(&line) {
                return line;
            }
        }
    }

    fn ask(&self, name: &str, rtype: RecordType) -> Message {
        let mut query = Message::new(4242, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(name).expect("a name"), rtype));
        let bytes = query.to_vec().expect("a small query");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
            .connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
            .expect("loopback");
        socket.send(&bytes).expect("it listens");
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).expect("an answer");
        Message::from_vec(&buffer[..len]).expect("a message")
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.process.0.id().to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let addresses = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(address.0),
            _ => None,
        });
    addresses.collect()
}

fn service(endpoints: &[String], args: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_skeindns"))
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

fn http(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    text
}

/// NSD with one zone: the world outside.
fn upstream(dir: &Path) -> (Process, u16) {
    let port = free_port();
    fs::write(
        dir.join("zone"),
        "$ORIGIN example.com.\n$TTL 300\n@ SOA ns admin 1 7200 900 1209600 300\n@ NS ns\nns A 127.0.0.1\nwww A 192.0.2.80\n",
    )
    .expect("the folder is ours");
    let path = dir.display();
    let conf = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  zonesdir: \"{path}\"\n  database: \"\"\n  pidfile: \"{path}/nsd.pid\"\n  zonelistfile: \"{path}/zl\"\n  xfrdfile: \"{path}/xf\"\n  xfrdir: \"{path}\"\nremote-control:\n  control-enable: no\nzone:\n  name: example.com\n  zonefile: zone\n"
    );
    fs::write(dir.join("nsd.conf"), conf).expect("the folder is ours");
    let child = Command::new("nsd")
        .args(["-d", "-c"])
        .arg(dir.join("nsd.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nsd is installed: make test-packages");
    let process = Process(child);
    until("the upstream listens", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
    });
    (process, port)
}

#[test]
fn five_members_one_killed_then_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(dir.path(), 5);
    let (_upstream, upstream_port) = upstream(dir.path());
    let metrics_port = free_port();
    let ready_port = free_port();
    let dnsfile = dir.path().join("Dnsfile");
    let text = format!(
        ".:0 {{\n    bind 127.0.0.1\n    errors\n    log\n    ready 127.0.0.1:{ready_port}\n    prometheus 127.0.0.1:{metrics_port}\n    cache 300\n    etcd skydns.local 10.10.10.0/24 {{\n        path /skydns\n        endpoint {}\n    }}\n    forward . 127.0.0.1:{upstream_port}\n}}\n",
        cluster.endpoints.join(" ")
    );
    fs::write(&dnsfile, &text).expect("the folder is ours");
    let server = Skeindns::start(&dnsfile);
    until("it is ready", || {
        http(ready_port, "/ready").contains(" 200 ").then_some(())
    });

    // A record per host, forward and reverse, and a service.
    for host in 1..=5 {
        let (name, ip) = (
            format!("node{host}.skydns.local"),
            format!("10.10.10.20{host}"),
        );
        service(&cluster.endpoints, &["put", &name, "--host", &ip]);
        let reverse = format!("20{host}.10.10.10.in-addr.arpa");
        service(&cluster.endpoints, &["put", &reverse, "--host", &name]);
    }
    service(
        &cluster.endpoints,
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
    let left = cluster.endpoints[1..].to_vec();
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
    server.signal("-HUP");
    let line = server.line(|line| line.contains("forwrd"));
    assert!(line.contains("Dnsfile:"), "{line}");
    check_all();
    assert_eq!(
        addresses(&server.ask("www.example.com.", RecordType::A)),
        [Ipv4Addr::new(192, 0, 2, 80)]
    );

    // And it stops when it is told to.
    server.signal("-TERM");
    let mut process = server.process;
    let status = until("it has stopped", || process.0.try_wait().ok().flatten());
    assert_eq!(status.code(), Some(0));
}
