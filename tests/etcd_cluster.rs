//! The etcd plugin against etcd's own servers: a member killed, a member frozen, all of them gone, compaction past where we stood, a cluster
//! restored from a backup, users and passwords, TLS with client certificates, leases, values that cannot be read.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

/// How long anything here may take: generous, since machines are slow at times. Nothing waits this long when it works.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.0.id().to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    fn end(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
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
    dir: PathBuf,
    ports: Vec<(u16, u16)>,
    members: Vec<Process>,
    scheme: &'static str,
    extra: Vec<String>,
    // What etcdctl needs beside the endpoints.
    ctl: Vec<String>,
}

impl Cluster {
    fn start(dir: &Path, size: usize) -> Cluster {
        Cluster::start_with(dir, size, "http", &[], &[])
    }

    fn start_with(
        dir: &Path,
        size: usize,
        scheme: &'static str,
        extra: &[String],
        ctl: &[String],
    ) -> Cluster {
        let mut cluster = Cluster {
            dir: dir.to_owned(),
            ports: (0..size).map(|_| (free_port(), free_port())).collect(),
            members: Vec::new(),
            scheme,
            extra: extra.to_vec(),
            ctl: ctl.to_vec(),
        };
        cluster.members = (0..size).map(|member| cluster.member(member)).collect();
        cluster.wait();
        cluster
    }

    fn member(&self, member: usize) -> Process {
        let peers = self.ports.iter().enumerate();
        let initial: Vec<String> = peers
            .map(|(i, (_, peer))| format!("m{i}=http://127.0.0.1:{peer}"))
            .collect();
        let client = format!("{}://127.0.0.1:{}", self.scheme, self.ports[member].0);
        let peer = format!("http://127.0.0.1:{}", self.ports[member].1);
        let name = format!("m{member}");
        let log = fs::File::create(self.dir.join(format!("{name}.log"))).expect("our folder");
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.dir.join(&name))
            .args(["--name", &name])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &initial.join(",")])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is installed: make test-packages");
        Process(child)
    }

    fn endpoints(&self) -> Vec<String> {
        let clients = self.ports.iter();
        clients
            .map(|(client, _)| format!("{}://127.0.0.1:{client}", self.scheme))
            .collect()
    }

    fn try_ctl(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints().join(",")])
            .args(&self.ctl)
            .args(args)
            .output()
            .expect("etcdctl is installed: make test-packages");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    fn ctl(&self, args: &[&str]) -> String {
        until(&format!("etcdctl {args:?} succeeds"), || self.try_ctl(args))
    }

    fn put(&self, path: &str, value: &str) {
        self.ctl(&["put", &format!("/skydns/org/example/{path}"), value]);
    }

    fn wait(&self) {
        until("the cluster is healthy", || {
            self.try_ctl(&["endpoint", "health"])
        });
    }
}

/// Our own binary, its output read line by line.
struct Skeindns {
    process: Process,
    lines: Receiver<String>,
    // Lines that came before the one that was waited for: what a plugin says may come before the start-up lines or behind them.
    passed: RefCell<Vec<String>>,
    port: u16,
}

impl Skeindns {
    /// Starts with one zone from etcd, its options given.
    fn start(dir: &Path, options: &str) -> Skeindns {
        let dnsfile = dir.join("Dnsfile");
        let text =
            format!("example.org:0 {{\n bind 127.0.0.1\n errors\n etcd {{\n{options}\n }}\n}}\n");
        fs::write(&dnsfile, text).expect("our folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_skeindns"))
            .arg("--conf")
            .arg(&dnsfile)
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
            passed: RefCell::default(),
            port: 0,
        };
        let line = server.line(|line| line.starts_with("example.org.:"));
        let port = line.trim_start_matches("example.org.:").split(' ').next();
        server.port = port.and_then(|port| port.parse().ok()).expect("a port");
        server
    }

    /// The first line of output that matches and was not asked for before.
    fn line(&self, matches: impl Fn(&str) -> bool) -> String {
        let mut passed = self.passed.borrow_mut();
        if let Some(at) = passed.iter().position(|line| matches(line)) {
            return passed.remove(at);
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.expect("the line comes in time");
            if matches(&line) {
                return line;
            }
            passed.push(line);
        }
    }

    fn ask(&self, name: &str) -> Message {
        let mut query = Message::new(4242, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii(format!("{name}.example.org.")).expect("a name");
        query.add_query(Query::query(name, RecordType::A));
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

    /// The last octets of the addresses of a name, and the rcode.
    fn hosts(&self, name: &str) -> (ResponseCode, Vec<u8>) {
        let message = self.ask(name);
        let records = message.answers.iter();
        let mut hosts: Vec<u8> = records
            .filter_map(|record| match &record.data {
                RData::A(address) => Some(address.0.octets()[3]),
                _ => None,
            })
            .collect();
        hosts.sort_unstable();
        (message.metadata.response_code, hosts)
    }

    fn is(&self, name: &str, hosts: &[u8]) {
        assert_eq!(
            self.hosts(name),
            (ResponseCode::NoError, hosts.to_vec()),
            "{name}"
        );
    }

    fn becomes(&self, name: &str, hosts: &[u8]) {
        until(&format!("{name} is {hosts:?}"), || {
            (self.hosts(name) == (ResponseCode::NoError, hosts.to_vec())).then_some(())
        });
    }

    fn vanishes(&self, name: &str) {
        until(&format!("{name} is gone"), || {
            (self.hosts(name).0 == ResponseCode::NXDomain).then_some(())
        });
    }
}

fn host(octet: u8) -> String {
    format!("{{\"host\":\"192.0.2.{octet}\"}}")
}

fn endpoint(cluster: &Cluster) -> String {
    format!("endpoint {}", cluster.endpoints().join(" "))
}

#[test]
fn three_members_one_killed_one_frozen_then_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(dir.path(), 3);
    cluster.put("a", &host(1));
    let server = Skeindns::start(dir.path(), &endpoint(&cluster));
    server.becomes("a", &[1]);
    // Whichever member is followed, each is lost once.
    for member in 0..3u8 {
        let at = usize::from(member);
        cluster.members[at].end();
        server.is("a", &[1 + member]);
        cluster.put("a", &host(2 + member));
        server.becomes("a", &[2 + member]);
        cluster.members[at] = cluster.member(at);
        cluster.wait();
    }
    for member in 0..3 {
        cluster.members[member].signal("-STOP");
        cluster.put("b", &host(10 + member as u8));
        server.becomes("b", &[10 + member as u8]);
        cluster.members[member].signal("-CONT");
        cluster.wait();
    }
    for member in &mut cluster.members {
        member.end();
    }
    server.line(|line| line.contains("answers go on from memory"));
    server.is("a", &[4]);
    assert_eq!(server.hosts("none").0, ResponseCode::NXDomain);
    cluster.members = (0..3).map(|member| cluster.member(member)).collect();
    cluster.wait();
    cluster.put("c", &host(30));
    server.becomes("c", &[30]);
    drop(server.process);
}

#[test]
fn before_the_first_list_it_says_so_and_starts() {
    let dir = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let server = Skeindns::start(
        dir.path(),
        &format!("endpoint http://127.0.0.1:{port}\nfallthrough"),
    );
    let line = server.line(|line| line.contains("plugin/etcd"));
    assert!(
        line.contains(&format!("http://127.0.0.1:{port}: connection refused")),
        "{line}"
    );
    assert_eq!(server.hosts("a").0, ResponseCode::ServFail);
    let mut cluster = Cluster {
        dir: dir.path().to_owned(),
        ports: vec![(port, free_port())],
        members: Vec::new(),
        scheme: "http",
        extra: Vec::new(),
        ctl: Vec::new(),
    };
    cluster.members.push(cluster.member(0));
    cluster.wait();
    cluster.put("a", &host(1));
    server.becomes("a", &[1]);
}

#[test]
fn compaction_and_going_back_are_recovered_from() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(dir.path(), 1);
    cluster.put("kept", &host(1));
    cluster.put("gone", &host(2));
    let server = Skeindns::start(dir.path(), &endpoint(&cluster));
    server.becomes("gone", &[2]);
    let backup = dir.path().join("backup");
    let backup = backup.to_str().expect("plain characters");
    cluster.ctl(&["snapshot", "save", backup]);

    // While nobody listens a key goes, another comes, and what happened is forgotten.
    server.process.signal("-STOP");
    cluster.members[0].end();
    cluster.members[0] = cluster.member(0);
    cluster.wait();
    cluster.ctl(&["del", "/skydns/org/example/gone"]);
    for octet in 0..20 {
        cluster.put("new", &host(octet));
    }
    let json = cluster.ctl(&["get", "x", "-w", "json"]);
    let revision: String = json
        .split("\"revision\":")
        .nth(1)
        .expect("a header")
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    cluster.ctl(&["compact", &revision]);
    server.process.signal("-CONT");
    server.becomes("new", &[19]);
    server.vanishes("gone");
    server.is("kept", &[1]);

    // Restored from the backup: an earlier revision, another cluster.
    cluster.members[0].end();
    fs::remove_dir_all(dir.path().join("m0")).expect("our folder");
    let restored = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "restore", backup, "--data-dir"])
        .arg(dir.path().join("m0"))
        .args(["--name", "m0", "--initial-cluster"])
        .arg(format!("m0=http://127.0.0.1:{}", cluster.ports[0].1))
        .arg("--initial-advertise-peer-urls")
        .arg(format!("http://127.0.0.1:{}", cluster.ports[0].1))
        .output()
        .expect("etcdctl is installed");
    assert!(restored.status.success());
    cluster.members[0] = cluster.member(0);
    cluster.wait();
    server.line(|line| line.contains("reading everything again"));
    server.becomes("gone", &[2]);
    server.vanishes("new");
    cluster.put("after", &host(7));
    server.becomes("after", &[7]);
}

#[test]
fn leases_end_and_odd_values_cost_only_themselves() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let server = Skeindns::start(dir.path(), &endpoint(&cluster));
    let grant = |ttl: &str| {
        let text = cluster.ctl(&["lease", "grant", ttl]);
        text.split(' ').nth(1).expect("its number").to_owned()
    };
    let (long, short) = (grant("600"), grant("2"));
    let put = |lease: &str, path: &str, value: &str| {
        let key = format!("/skydns/org/example/{path}");
        cluster.ctl(&["put", "--lease", lease, &key, value]);
    };
    put(&long, "long", &host(1));
    put(&short, "short", &host(2));
    server.becomes("long", &[1]);
    assert_eq!(server.ask("long").answers[0].ttl, 600);
    server.vanishes("short");
    cluster.ctl(&["lease", "revoke", &long]);
    server.vanishes("long");

    cluster.put("bad/x", "{\"host\":1}");
    cluster.put("bad/y", &host(3));
    cluster.put("worse", "nothing");
    server.becomes("bad", &[3]);
    server.becomes("worse", &[]);
    server.line(|line| line.contains("/skydns/org/example/bad/x") && line.contains("skipped"));
    cluster.put("worse", &host(4));
    server.becomes("worse", &[4]);
}

#[test]
fn a_user_with_a_password_that_is_forgotten() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(dir.path(), 1);
    for args in [
        &["user", "add", "root:root"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "dns:secret"],
        &["role", "add", "dns"],
        &[
            "role",
            "grant-permission",
            "dns",
            "read",
            "/skydns/",
            "/skydns0",
        ],
        &["user", "grant-role", "dns", "dns"],
        &["auth", "enable"],
    ] {
        cluster.ctl(args);
    }
    cluster.ctl = vec!["--user".into(), "root:root".into()];
    cluster.put("a", &host(1));
    let wrong = tempfile::tempdir().expect("a folder");
    let refused = Skeindns::start(
        wrong.path(),
        &format!("{}\ncredentials dns wrong", endpoint(&cluster)),
    );
    let line = refused.line(|line| line.contains("plugin/etcd"));
    assert!(line.contains("authentication failed"), "{line}");
    assert!(!line.contains("wrong"), "{line}");
    assert_eq!(refused.hosts("a").0, ResponseCode::ServFail);

    let server = Skeindns::start(
        dir.path(),
        &format!("{}\ncredentials dns secret", endpoint(&cluster)),
    );
    server.becomes("a", &[1]);
    // A member that starts again knows no token of before.
    cluster.members[0].end();
    cluster.members[0] = cluster.member(0);
    until("it answers again", || {
        cluster.try_ctl(&["put", "/skydns/org/example/a", &host(2)])
    });
    server.becomes("a", &[2]);
}

#[test]
fn tls_with_a_client_certificate() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl")
            .current_dir(dir.path())
            .args(args)
            .output()
            .expect("openssl is installed: make test-packages");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {args:?}: {text}");
    };
    fs::write(
        dir.path().join("ext"),
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
    )
    .expect("our folder");
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let ca = [
        "req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem",
    ];
    openssl(&[&ca[..], &key[..]].concat());
    for who in ["server", "client"] {
        let (csr, pem, private) = (
            format!("{who}.csr"),
            format!("{who}.pem"),
            format!("{who}.key"),
        );
        let subject = format!("/O={who}");
        let request = ["req", "-subj", &subject, "-keyout", &private, "-out", &csr];
        openssl(&[&request[..], &key[..]].concat());
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "ext",
            "-in",
            &csr,
            "-out",
            &pem,
        ]);
    }
    let extra = [
        format!("--cert-file={}", file("server.pem")),
        format!("--key-file={}", file("server.key")),
        format!("--trusted-ca-file={}", file("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    let ctl = [
        format!("--cacert={}", file("ca.pem")),
        format!("--cert={}", file("client.pem")),
        format!("--key={}", file("client.key")),
    ];
    let cluster = Cluster::start_with(dir.path(), 1, "https", &extra, &ctl);
    cluster.put("a", &host(1));
    let server = Skeindns::start(
        dir.path(),
        &format!(
            "{}\ntls {} {} {}\n",
            endpoint(&cluster),
            file("client.pem"),
            file("client.key"),
            file("ca.pem")
        ),
    );
    server.becomes("a", &[1]);

    // Without a certificate of ours, and with the system's authorities only, it is told apart.
    let none = tempfile::tempdir().expect("a folder");
    let server = Skeindns::start(
        none.path(),
        &format!("{}\ntls {}\n", endpoint(&cluster), file("ca.pem")),
    );
    let line = server.line(|line| line.contains("plugin/etcd"));
    assert!(line.to_lowercase().contains("certificate"), "{line}");
}
