//! `skeindns skydns` with real servers: the notes of 2016 step by step, the configuration in etcd changed under way, spoilt and repaired, etcd
//! killed, both of its stores, metrics by their old names, stub zones, sockets from systemd, and the Dnsfile it amounts to beside it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, Stdio};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use support::{
    Cluster, Lines, Process, addresses, binary, free_port, http, nsd, query, until, zone,
};

mod support;

/// `skeindns skydns` at work.
struct SkyDns {
    _process: Process,
    lines: Lines,
}

impl SkyDns {
    fn start(cluster: &Cluster, flags: &[&str], variables: &[(&str, &str)]) -> SkyDns {
        SkyDns::start_by(
            binary()
                .arg("skydns")
                .args(flags)
                .env("ETCD_MACHINES", cluster.endpoints().join(","))
                .envs(variables.iter().copied()),
        )
    }

    fn start_by(command: &mut Command) -> SkyDns {
        let mut child = command
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("our binary is built");
        let lines = Lines::of(&mut child);
        SkyDns {
            _process: Process(child),
            lines,
        }
    }

    /// The first line with this text that was not asked for before, without its time.
    fn line(&self, text: &str) -> String {
        let line = self.lines.line(|line| line.contains(text));
        let (time, what) = line.split_once(" skydns: ").expect("a line of the log");
        let digits: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(digits, "0000/00/00 00:00:00", "{line}");
        what.to_owned()
    }

    /// Waits for both lines that say it is ready.
    fn ready(&self, domain: &str, port: u16) {
        for transport in ["tcp", "udp"] {
            self.line(&format!(
                "ready for queries on {domain} for {transport}://127.0.0.1:{port} [rcache"
            ));
        }
    }
}

/// Asks until the answer has an address: what etcd says arrives when it does.
fn first_address(port: u16, name: &str) -> Ipv4Addr {
    until(&format!("{name} has an address"), || {
        let answer = ask(port, name, RecordType::A);
        addresses(&answer).first().copied()
    })
}

fn ask(port: u16, name: &str, rtype: RecordType) -> Message {
    support::ask(port, &query(name, rtype))
}

/// What an answer says, apart from order.
fn essence(message: &Message) -> (ResponseCode, Vec<String>) {
    let sections = [&message.answers, &message.authorities, &message.additionals];
    let mut records: Vec<String> = sections
        .iter()
        .enumerate()
        .flat_map(|(at, records)| records.iter().map(move |record| format!("{at} {record}")))
        .collect();
    records.sort();
    (message.metadata.response_code, records)
}

/// Writes a key of the v2 store as the notes do: `curl -XPUT … -d value=…`.
fn put_v2(cluster: &Cluster, key: &str, value: &str) {
    let url = format!("{}/v2/keys{key}", cluster.endpoints()[0]);
    let output = Command::new("curl")
        .args(["-sf", "-XPUT", &url, "--data-urlencode"])
        .arg(format!("value={value}"))
        .output()
        .expect("curl is installed: make test-packages");
    assert!(output.status.success(), "{key}");
}

#[test]
fn the_notes_of_2016_step_by_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start_with(dir.path(), 1, "http", &["--enable-v2".to_owned()], &[]);
    let (_outside, upstream) = nsd(dir.path(), &zone("192.0.2.80", ""));
    let port = free_port();
    // The object, with nothing changed but addresses.
    put_v2(
        &cluster,
        "/skydns/config",
        &format!(
            r#"{{"dns_addr":"127.0.0.1:{port}","ttl":3600,"nameservers":["127.0.0.1:{upstream}","127.0.0.1:{upstream}"]}}"#
        ),
    );
    put_v2(
        &cluster,
        "/skydns/local/skydns/node1",
        r#"{"host":"10.10.10.201"}"#,
    );
    put_v2(
        &cluster,
        "/skydns/arpa/in-addr/10/10/10/201",
        r#"{"host":"node1.skydns.local"}"#,
    );
    // No arguments.
    let server = SkyDns::start(&cluster, &[], &[]);
    assert_eq!(
        server.line("metrics enabled"),
        "metrics enabled on :/metrics"
    );
    server.ready("skydns.local.", port);
    assert_eq!(
        first_address(port, "node1.skydns.local."),
        Ipv4Addr::new(10, 10, 10, 201)
    );
    let answer = ask(port, "node1.skydns.local.", RecordType::A);
    assert_eq!(answer.answers[0].ttl, 3600);
    let reverse = ask(port, "201.10.10.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(reverse.answers[0].data.to_string(), "node1.skydns.local.");
    assert_eq!(
        first_address(port, "www.example.com."),
        Ipv4Addr::new(192, 0, 2, 80)
    );
    let missing = ask(port, "nobody.skydns.local.", RecordType::A);
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].ttl, 60);

    // The object is followed: another TTL, no forwarding, another port.
    let other = free_port();
    put_v2(
        &cluster,
        "/skydns/config",
        &format!(r#"{{"dns_addr":"127.0.0.1:{other}","ttl":60,"no_rec":true}}"#),
    );
    server.ready("skydns.local.", other);
    let answer = ask(other, "node1.skydns.local.", RecordType::A);
    assert_eq!(answer.answers[0].ttl, 60);
    let outside = ask(other, "www.example.com.", RecordType::A);
    assert_eq!(outside.metadata.response_code, ResponseCode::ServFail);

    // A spoilt one changes nothing, and one line says what is wrong and where.
    put_v2(
        &cluster,
        "/skydns/config",
        r#"{"ttl": [60], "dns_addr": "127.0.0.1"}"#,
    );
    let line = server.line("the configuration before it stays");
    assert!(
        line.contains("/skydns/config:1:9: ttl: is an array"),
        "{line}"
    );
    assert!(
        line.contains("/skydns/config:1:27: dns_addr: missing port"),
        "{line}"
    );
    assert!(!addresses(&ask(other, "node1.skydns.local.", RecordType::A)).is_empty());
    // Nor does an address that this machine does not have.
    put_v2(&cluster, "/skydns/config", r#"{"dns_addr":"192.0.2.1:53"}"#);
    server.line("no interface of this machine has this address");
    assert!(!addresses(&ask(other, "node1.skydns.local.", RecordType::A)).is_empty());
    // Repaired, it counts.
    put_v2(
        &cluster,
        "/skydns/config",
        &format!(r#"{{"dns_addr":"127.0.0.1:{other}","ttl":120,"no_rec":true}}"#),
    );
    until("the repaired object counts", || {
        let answer = ask(other, "node1.skydns.local.", RecordType::A);
        (answer.answers.first()?.ttl == 120).then_some(())
    });

    // Without etcd the answers go on.
    cluster.members[0].end();
    server.line("cannot read /skydns/config from etcd");
    assert_eq!(
        first_address(other, "node1.skydns.local."),
        Ipv4Addr::new(10, 10, 10, 201)
    );
}

#[test]
fn without_etcd_it_starts_and_takes_the_object_when_etcd_comes() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::planned(dir.path(), vec![(free_port(), free_port())]);
    let (port, other) = (free_port(), free_port());
    let flag = format!("127.0.0.1:{port}");
    let server = SkyDns::start(
        &cluster,
        &["-addr", &flag, "-etcd3"],
        &[("SKYDNS_DOMAIN", "a.example")],
    );
    server.line("falling back to default configuration, could not read from etcd: ");
    server.ready("a.example.", port);
    let answer = ask(port, "x.a.example.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    cluster.start_members();
    cluster.ctl(&["put", "/skydns/example/a/x", r#"{"host":"192.0.2.1"}"#]);
    assert_eq!(
        first_address(port, "x.a.example."),
        Ipv4Addr::new(192, 0, 2, 1)
    );
    cluster.ctl(&[
        "put",
        "/skydns/config",
        &format!(r#"{{"dns_addr":"127.0.0.1:{other}","ndto":1}}"#),
    ]);
    assert_eq!(
        server.line("ndto"),
        "/skydns/config:1:32: ndto: there is no such field, so it has no effect; did you mean ndot?"
    );
    server.ready("a.example.", other);
    // The object goes, what it said stays.
    cluster.ctl(&["del", "/skydns/config"]);
    server.line("/skydns/config was deleted");
    assert_eq!(
        first_address(other, "x.a.example."),
        Ipv4Addr::new(192, 0, 2, 1)
    );
}

#[test]
fn an_etcd_that_hangs_holds_nothing_up() {
    let hung = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let machine = format!("http://{}", hung.local_addr().expect("it is bound"));
    let port = free_port();
    let addr = format!("127.0.0.1:{port}");
    let server = SkyDns::start_by(binary().args(["skydns", "-machines", &machine, "-addr", &addr]));
    server.line("falling back to default configuration, could not read from etcd: ");
    server.ready("skydns.local.", port);
    let answer = ask(port, "x.skydns.local.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn where_the_default_address_is_taken_it_waits_for_what_etcd_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::planned(dir.path(), vec![(free_port(), free_port())]);
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let addr = held.local_addr().expect("it is bound").to_string();
    let server = SkyDns::start(&cluster, &["-addr", &addr], &[]);
    let line = server.line(&format!("cannot listen on {addr} (udp)"));
    assert!(line.contains("the port is in use by"), "{line}");
    server.line("trying again until that works or etcd says something else");
    cluster.start_members();
    let port = free_port();
    let object = format!(r#"{{"dns_addr":"127.0.0.1:{port}"}}"#);
    cluster.ctl(&["put", "/skydns/config", &object]);
    server.ready("skydns.local.", port);
    // An address in etcd that this machine does not have, from the start on.
    let other = free_port();
    cluster.ctl(&["put", "/skydns/config", r#"{"dns_addr":"192.0.2.1:53"}"#]);
    server.line("no interface of this machine has this address");
    drop(server);
    let late = SkyDns::start(&cluster, &[], &[]);
    late.line("no interface of this machine has this address");
    late.line("trying again until that works or etcd says something else");
    let object = format!(r#"{{"dns_addr":"127.0.0.1:{other}"}}"#);
    cluster.ctl(&["put", "/skydns/config", &object]);
    late.ready("skydns.local.", other);
}

#[test]
fn a_user_and_a_password_that_nobody_sees() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(dir.path(), 1);
    for words in [
        vec!["user", "add", "root:geheim"],
        vec!["user", "grant-role", "root", "root"],
        vec!["auth", "enable"],
    ] {
        cluster.ctl(&words);
    }
    cluster.ctl = vec!["--user".into(), "root:geheim".into()];
    let port = free_port();
    let object = format!(r#"{{"dns_addr":"127.0.0.1:{port}"}}"#);
    cluster.ctl(&["put", "/skydns/config", &object]);
    cluster.ctl(&["put", "/skydns/local/skydns/x", r#"{"host":"192.0.2.1"}"#]);
    let endpoints = cluster.endpoints().join(",");
    let printed = binary()
        .args([
            "skydns",
            "-print-dnsfile",
            "-username",
            "root",
            "-password=geheim",
        ])
        .env("ETCD_MACHINES", &endpoints)
        .output()
        .expect("our binary is built");
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(text.contains(&format!(".:{port} {{")), "{text}");
    assert!(text.contains("credentials root {$ETCD_PASSWORD}"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
    // Where the password was a flag, the Dnsfile's variable has it all the same.
    let server = SkyDns::start(&cluster, &["-username", "root", "-password", "geheim"], &[]);
    server.ready("skydns.local.", port);
    assert_eq!(
        first_address(port, "x.skydns.local."),
        Ipv4Addr::new(192, 0, 2, 1)
    );
    let lines = server.lines.so_far().join("\n");
    assert!(!lines.contains("geheim"), "{lines}");
}

#[test]
fn the_printed_dnsfile_gives_the_same_answers() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let (_outside, upstream) = nsd(dir.path(), &zone("192.0.2.80", ""));
    let port = free_port();
    cluster.ctl(&[
        "put",
        "/skydns/config",
        &format!(
            r#"{{"dns_addr":"127.0.0.1:{port}","domain":"b.example","nameservers":["127.0.0.1:{upstream}"],
                 "min_ttl":7,"priority":30,"hostmaster":"root@b.example","local":"h1.b.example","rcache":100,"ndot":3}}"#
        ),
    ]);
    for (key, value) in [
        ("h1", r#"{"host":"192.0.2.1","text":"here"}"#),
        ("h2", r#"{"host":"2001:db8::2","port":80,"weight":5}"#),
        ("web/a", r#"{"host":"h1.b.example","port":80}"#),
        ("web/b", r#"{"host":"192.0.2.3","port":81,"mail":true}"#),
        ("out", r#"{"host":"www.example.com"}"#),
        ("dns/ns/n1", r#"{"host":"192.0.2.53"}"#),
    ] {
        cluster.ctl(&["put", &format!("/skydns/example/b/{key}"), value]);
    }
    let server = SkyDns::start(&cluster, &[], &[]);
    server.ready("b.example.", port);
    let printed = binary()
        .args(["skydns", "-print-dnsfile"])
        .env("ETCD_MACHINES", cluster.endpoints().join(","))
        .output()
        .expect("our binary is built");
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).expect("a Dnsfile is UTF-8");
    let other = free_port();
    let dnsfile = printed.replace(&format!(".:{port} "), &format!(".:{other} "));
    let twin = support::Skeindns::start(dir.path(), &dnsfile);
    first_address(port, "h1.b.example.");
    first_address(twin.port, "h1.b.example.");
    let names = [
        "b.example.",
        "h1.b.example.",
        "h2.b.example.",
        "web.b.example.",
        "*.web.b.example.",
        "out.b.example.",
        "nobody.b.example.",
        "local.dns.b.example.",
        "ns.dns.b.example.",
        "www.example.com.",
        "example.com.",
        "1.2.0.192.in-addr.arpa.",
    ];
    for name in names {
        for rtype in [
            RecordType::A,
            RecordType::AAAA,
            RecordType::SRV,
            RecordType::MX,
            RecordType::TXT,
            RecordType::CNAME,
            RecordType::NS,
            RecordType::SOA,
            RecordType::PTR,
            RecordType::HINFO,
            RecordType::ANY,
        ] {
            let (one, two) = (ask(port, name, rtype), ask(twin.port, name, rtype));
            assert_eq!(essence(&one), essence(&two), "{name} {rtype}");
        }
    }
}

#[test]
fn metrics_have_skydnss_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let (_outside, upstream) = nsd(dir.path(), &zone("192.0.2.80", ""));
    let (port, metrics) = (free_port(), free_port());
    let (addr, upstream) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{upstream}"));
    cluster.ctl(&["put", "/skydns/local/skydns/x", r#"{"host":"192.0.2.1"}"#]);
    let server = SkyDns::start(
        &cluster,
        &[
            "-addr",
            &addr,
            "-nameservers",
            &upstream,
            "-rcache",
            "10",
            "-verbose",
        ],
        &[
            ("PROMETHEUS_PORT", &metrics.to_string()),
            ("PROMETHEUS_SUBSYSTEM", "dc1"),
            ("PROMETHEUS_PATH", "/m"),
        ],
    );
    assert_eq!(
        server.line("metrics enabled"),
        format!("metrics enabled on :{metrics}/m")
    );
    server.ready("skydns.local.", port);
    first_address(port, "x.skydns.local.");
    first_address(port, "www.example.com.");
    first_address(port, "www.example.com.");
    ask(port, "nobody.skydns.local.", RecordType::A);
    // It was logged, since it was asked for.
    server.lines.line(|line| {
        line.contains("received DNS Request for \"nobody.skydns.local.\" from \"127.0.0.1:")
    });
    let page = http(metrics, "/m");
    let value = |series: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        let value = line.and_then(|value| value.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{series} is not in\n{page}"))
    };
    assert!(value(r#"skydns_dc1_dns_request_count_total{system="auth"}"#) >= 2.0);
    assert_eq!(
        value(r#"skydns_dc1_dns_request_count_total{system="recursive"}"#),
        1.0
    );
    assert_eq!(
        value(r#"skydns_dc1_dns_request_count_total{system="cache"}"#),
        1.0
    );
    assert_eq!(
        value(r#"skydns_dc1_dns_error_count_total{cause="nxdomain",system="auth"}"#),
        1.0
    );
    assert_eq!(
        value(r#"skydns_dc1_dns_request_duration_seconds_count{system="cache"}"#),
        1.0
    );
    assert!(value(r#"skydns_dc1_dns_response_size_bytes_bucket{system="auth",le="512"}"#) >= 2.0);
    assert!(value(r#"skydns_dc1_dns_cachemiss_count_total{cache="response"}"#) >= 2.0);
}

#[test]
fn stub_zones_are_read_from_etcd_and_loops_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let (_outside, upstream) = nsd(dir.path(), &zone("192.0.2.80", ""));
    let port = free_port();
    let addr = format!("127.0.0.1:{port}");
    let server = SkyDns::start(&cluster, &["-addr", &addr, "-stubzones", "-no-rec"], &[]);
    server.ready("skydns.local.", port);
    let rcode = |name: &str| ask(port, name, RecordType::A).metadata.response_code;
    assert_eq!(rcode("www.example.com."), ResponseCode::ServFail);
    // Two servers; the first one is not there.
    let stub = "/skydns/local/skydns/dns/stub";
    let dead = free_port();
    for (key, port) in [("com/example/ns1", dead), ("com/example/ns2", upstream)] {
        let record = format!(r#"{{"host":"127.0.0.1","port":{port}}}"#);
        cluster.ctl(&["put", &format!("{stub}/{key}"), &record]);
    }
    assert_eq!(
        first_address(port, "www.example.com."),
        Ipv4Addr::new(192, 0, 2, 80)
    );
    // A zone whose servers are ourselves.
    let own = format!(r#"{{"host":"127.0.0.1","port":{port}}}"#);
    cluster.ctl(&["put", &format!("{stub}/net/example/us"), &own]);
    until("the loop is seen", || {
        ask(port, "x.example.net.", RecordType::A);
        let lines = server.lines.so_far();
        let is_seen = |line: &String| line.contains("a query for a stub zone came back to us");
        lines.iter().any(is_seen).then_some(())
    });
    assert_eq!(rcode("x.example.net."), ResponseCode::ServFail);
    // What cannot be used is named.
    cluster.ctl(&[
        "put",
        &format!("{stub}/org/example/ns"),
        r#"{"host":"ns.example.org"}"#,
    ]);
    server
        .line("stub zone local/skydns/dns/stub/org/example/ns is left out: its host is no address");
    // The last one goes, and so does the zone.
    cluster.ctl(&["del", stub, "--prefix"]);
    until("the stub zone is gone", || {
        (rcode("www.example.com.") == ResponseCode::ServFail).then_some(())
    });
}

/// Starts with sockets as systemd passes them: file descriptors from 3 on, and their number and our process in the environment.
fn start_with_sockets(sockets: &[i32], arguments: &str, variables: &[(&str, &str)]) -> SkyDns {
    let moves: Vec<String> = sockets
        .iter()
        .enumerate()
        .map(|(at, socket)| format!("{}<&{socket}", at + 3))
        .collect();
    let named = binary();
    let program = Path::new(named.get_program()).display().to_string();
    // The shell becomes our program, so its process is ours.
    let script = format!(
        "exec {}; export LISTEN_PID=$$ LISTEN_FDS={}; exec {program} {arguments}",
        moves.join(" "),
        sockets.len()
    );
    SkyDns::start_by(
        Command::new("bash")
            .args(["-c", &script])
            .envs(variables.iter().copied()),
    )
}

/// Lets a socket through to the processes that we start: its descriptor without close-on-exec, far from 3.
fn inheritable(socket: &(impl AsFd + AsRawFd)) -> i32 {
    socket2::SockRef::from(socket)
        .set_cloexec(false)
        .expect("it is open");
    socket.as_raw_fd()
}

#[test]
fn sockets_that_systemd_passes_are_used() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    cluster.ctl(&["put", "/skydns/local/skydns/x", r#"{"host":"192.0.2.1"}"#]);
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = udp.local_addr().expect("it is bound");
    let tcp = TcpListener::bind(address).expect("the port is free for TCP too");
    let port = address.port();
    let endpoints = cluster.endpoints().join(",");
    {
        let sockets = [inheritable(&udp), inheritable(&tcp)];
        let server = start_with_sockets(
            &sockets,
            "skydns -systemd",
            &[("ETCD_MACHINES", &endpoints)],
        );
        server.ready("skydns.local.", port);
        assert_eq!(
            first_address(port, "x.skydns.local."),
            Ipv4Addr::new(192, 0, 2, 1)
        );
        let over_tcp = support::ask_tcp(port, &query("x.skydns.local.", RecordType::A));
        assert_eq!(addresses(&over_tcp), [Ipv4Addr::new(192, 0, 2, 1)]);
    }
    // The same for a Dnsfile.
    let dnsfile = dir.path().join("Dnsfile");
    fs::write(
        &dnsfile,
        format!(".:{port} {{\n bind 127.0.0.1\n whoami\n}}\n"),
    )
    .expect("our folder");
    let sockets = [inheritable(&udp), inheritable(&tcp)];
    let server = start_with_sockets(&sockets, &format!("--conf {}", dnsfile.display()), &[]);
    server
        .lines
        .line(|line| line.contains(&format!(".:{port} on 127.0.0.1")));
    let answer = ask(port, "x.example.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    drop(server);
    // None passed is an error.
    let refused = binary()
        .args(["skydns", "-systemd"])
        .output()
        .expect("our binary is built");
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.contains("no UDP or TCP sockets supplied by systemd"),
        "{text}"
    );
}
