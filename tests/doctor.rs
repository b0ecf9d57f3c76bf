//! `skeindns doctor` with the real binary and a real etcd: every trouble is provoked, found, and comes with what to do about it.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{Cluster, Process, Skeindns, binary, free_port, nsd, until, zone};

/// Runs some checks; the findings.
fn doctor(checks: &str, arguments: &[&str]) -> Findings {
    let mut command = binary();
    command.args(["doctor", "--format", "json", "--timeout", "500ms"]);
    command.args(["--check", checks]).args(arguments);
    Findings::of(&mut command)
}

struct Findings {
    output: Output,
    all: Vec<Value>,
}

impl Findings {
    fn of(command: &mut Command) -> Findings {
        let output = command
            .env_remove("ETCD_ENDPOINTS")
            .env_remove("ETCD_MACHINES")
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let all = report["findings"].as_array().expect("a list").clone();
        Findings { output, all }
    }

    /// There is such a finding; what is not right says what to do.
    fn has(&self, id: &str, level: &str, part: &str) -> &Findings {
        let found = self.all.iter().find(|found| {
            let what = found["what"].as_str().unwrap_or_default();
            found["id"] == id && found["level"] == level && what.contains(part)
        });
        let found =
            found.unwrap_or_else(|| panic!("{id} {level} {part:?} is not in {:#?}", self.all));
        let fix = found["fix"].as_str().unwrap_or_default();
        assert_eq!(fix.is_empty(), level == "ok", "{found:#}");
        let fails = self.all.iter().any(|found| found["level"] == "fail");
        assert_eq!(self.output.status.code(), Some(i32::from(fails)));
        self
    }

    /// So is what to do.
    fn fix(&self, part: &str) -> &Findings {
        let has = |found: &Value| found["fix"].as_str().is_some_and(|fix| fix.contains(part));
        assert!(
            self.all.iter().any(has),
            "{part:?} is no fix in {:#?}",
            self.all
        );
        self
    }
}

fn nowhere() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

#[test]
fn who_holds_the_port_is_named() {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = udp.local_addr().expect("it is bound");
    let etcd = nowhere();
    let arguments = ["--server", &address.to_string(), "--endpoint", &etcd];
    let found = doctor("D01", &arguments);
    found.has(
        "D01",
        "fail",
        &format!("(process {}), not by skeindns", std::process::id()),
    );
    found.has("D01", "fail", "nobody receives");
    found.fix("start the server");
    let dir = tempfile::tempdir().expect("a folder");
    let server = Skeindns::start(dir.path(), "example.org:0 {\n bind 127.0.0.1\n whoami\n}\n");
    let address = format!("127.0.0.1:{}", server.port);
    let found = doctor("D01", &["--server", &address, "--endpoint", &etcd]);
    found.has("D01", "ok", "over UDP is held by skeindns").has(
        "D01",
        "ok",
        "over TCP is held by skeindns",
    );
    doctor("D01", &["--server", "192.0.2.1", "--endpoint", &etcd]).has(
        "D01",
        "ok",
        "not of this machine",
    );
}

#[test]
fn a_port_needs_a_privilege() {
    let etcd = nowhere();
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("Linux");
    let mut command = Command::new("setpriv");
    command
        .args([
            "--bounding-set=-net_bind_service",
            "--inh-caps=-net_bind_service",
        ])
        .arg(binary().get_program())
        .args([
            "doctor",
            "--format",
            "json",
            "--check",
            "D02",
            "--server",
            "127.0.0.1:53",
            "--endpoint",
            &etcd,
        ]);
    // Who is not root has no such capability to begin with.
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    let found = match is_root {
        true => Findings::of(&mut command),
        false => doctor("D02", &["--server", "127.0.0.1:53", "--endpoint", &etcd]),
    };
    match first.trim().parse::<u16>() {
        Ok(..=53) => found.has("D02", "ok", "needs no privilege"),
        _ => found
            .has("D02", "fail", "may not bind port 53")
            .fix("CAP_NET_BIND_SERVICE"),
    };
    doctor("D02", &["--server", "127.0.0.1:5353", "--endpoint", &etcd]).has(
        "D02",
        "ok",
        "needs no privilege",
    );
}

#[test]
fn endpoints_that_are_dead_or_of_another_cluster() {
    let (one, two) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let (first, second) = (Cluster::start(one.path(), 1), Cluster::start(two.path(), 1));
    let dead = nowhere();
    let url = first.endpoints().remove(0);
    let found = doctor("D03,D04,D13,D15", &["--endpoint", &format!("{dead},{url}")]);
    found.has("D03", "fail", &dead).fix("start etcd there");
    found.has("D03", "ok", &format!("{url}: etcd 3."));
    found
        .has("D04", "ok", "the v3 JSON API")
        .has("D13", "ok", "agrees with ours")
        .has("D15", "ok", "revision 1");
    let both = format!("{url},{}", second.endpoints()[0]);
    doctor("D03", &["--endpoint", &both])
        .has("D03", "fail", "of different clusters")
        .fix("member list");
    // A cluster without a key.
    doctor("D06", &["--endpoint", &url])
        .has("D06", "warn", "no keys below /skydns/")
        .fix("service put");
    let output = binary()
        .args(["doctor", "--check", "D99"])
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(64));
}

/// A certificate for `san`, signed by a CA of its own; the folder has ca.pem, server.pem, server.key.
fn certificates(dir: &Path, san: &str) {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").current_dir(dir).args(args).output();
        let output = output.expect("openssl is installed: make test-packages");
        assert!(output.status.success(), "{output:?}");
    };
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let ca = [
        "req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem",
    ];
    openssl(&[&ca[..], &key[..]].concat());
    let request = [
        "req",
        "-subj",
        "/CN=server",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ];
    openssl(&[&request[..], &key[..]].concat());
    fs::write(
        dir.join("ext"),
        format!("subjectAltName={san}\nextendedKeyUsage=serverAuth,clientAuth\n"),
    )
    .expect("our folder");
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "ext",
        "-out",
        "server.pem",
    ]);
}

#[test]
fn a_certificate_for_another_name() {
    let dir = tempfile::tempdir().expect("a folder");
    certificates(dir.path(), "IP:127.0.0.1");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let extra = [
        format!("--cert-file={}", file("server.pem")),
        format!("--key-file={}", file("server.key")),
    ];
    let ctl = [format!("--cacert={}", file("ca.pem"))];
    let cluster = Cluster::start_with(dir.path(), 1, "https", &extra, &ctl);
    let port = cluster.ports[0].0;
    let ca = file("ca.pem");
    let right = format!("https://127.0.0.1:{port}");
    doctor("D03", &["--endpoint", &right, "--ca", &ca]).has("D03", "ok", "healthy");
    let wrong = format!("https://localhost:{port}");
    doctor("D03", &["--endpoint", &wrong, "--ca", &ca])
        .has("D03", "fail", "localhost")
        .fix("(its SAN)");
    doctor("D03", &["--endpoint", &right])
        .has("D03", "fail", &right)
        .fix("--ca");
    let plain = format!("http://127.0.0.1:{port}");
    doctor("D03,D04", &["--endpoint", &plain]).fix("https://");
    doctor("D03", &["--endpoint", &right, "--ca", "/nowhere.pem"])
        .has("D03", "fail", "/nowhere.pem")
        .fix("correct the file");
}

#[test]
fn a_gateway_that_a_configuration_file_switched_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let (client, peer) = (free_port(), free_port());
    let url = format!("http://127.0.0.1:{client}");
    let text = format!(
        "data-dir: {}\nlisten-client-urls: {url}\nadvertise-client-urls: {url}\nlisten-peer-urls: http://127.0.0.1:{peer}\ninitial-advertise-peer-urls: http://127.0.0.1:{peer}\ninitial-cluster: default=http://127.0.0.1:{peer}\nenable-grpc-gateway: false\n",
        dir.path().join("data").display()
    );
    fs::write(dir.path().join("etcd.yml"), text).expect("our folder");
    let child = Command::new("etcd")
        .arg("--config-file")
        .arg(dir.path().join("etcd.yml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed: make test-packages");
    let _process = Process(child);
    let found = until("etcd answers", || {
        let found = doctor("D03,D04", &["--endpoint", &url]);
        found
            .all
            .iter()
            .any(|found| found["id"] == "D03" && found["level"] == "ok")
            .then_some(found)
    });
    found
        .has("D04", "fail", "JSON gateway")
        .fix("enable-grpc-gateway");
}

#[test]
fn keys_in_the_old_store_only_and_keys_that_are_wrong() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start_with(dir.path(), 1, "http", &["--enable-v2".into()], &[]);
    let url = cluster.endpoints().remove(0);
    v2_put(&url, "skydns/local/skydns/x", r#"{"host":"192.0.2.1"}"#);
    v2_put(&url, "skydns/local/skydns/bad", "{");
    v2_put(
        &url,
        "skydns/config",
        r#"{"dns_addr":"127.0.0.1:53","nam_servers":[],"domain":"skydns.local"}"#,
    );
    let found = doctor("D04,D06,D07,D08", &["--endpoint", &url]);
    found.has("D04", "ok", "the v3 JSON API and v2");
    found
        .has("D06", "fail", "the v2 store has 3 keys")
        .fix("skeindns migrate");
    // The configuration object and the records are looked at wherever they are.
    found.has("D07", "warn", "nam_servers").has(
        "D08",
        "fail",
        "/skydns/local/skydns/bad: it is no JSON",
    );
    for (path, value) in [
        ("local/skydns/x", r#"{"host":"192.0.2.1"}"#),
        ("local/skydns/x/y", r#"{"host":"192.0.2.2"}"#),
        ("local/skydns/bad", "{"),
        ("local/skydns/Web", r#"{"host":"192.0.2.3"}"#),
        ("local/skydns/one", r#"{"host":"two.skydns.local"}"#),
        ("local/skydns/two", r#"{"host":"one.skydns.local"}"#),
        (
            "local/skydns/dangling",
            r#"{"host":"nowhere.skydns.local"}"#,
        ),
        ("local/skydns/_tcp/_http/a", r#"{"host":"192.0.2.2"}"#),
        ("arpa/in-addr/192/0/2/9", r#"{"host":"x.skydns.local"}"#),
        ("config", r#"{"ttl":"many","dns_addr":"127.0.0.1:53"}"#),
    ] {
        cluster.ctl(&["put", &format!("/skydns/{path}"), value]);
    }
    let output = binary()
        .args([
            "service",
            "put",
            "leased.skydns.local",
            "--host",
            "192.0.2.8",
            "--ttl",
            "600",
            "--lease",
            "60s",
        ])
        .args(["--endpoint", &url])
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{output:?}");
    let found = doctor("D06,D07,D08", &["--endpoint", &url]);
    found
        .has("D06", "warn", "both stores have keys")
        .has("D07", "fail", "ttl");
    found
        .has("D08", "fail", "cannot be read")
        .has("D08", "fail", "upper case")
        .has("D08", "fail", "in a circle");
    found.has("D08", "fail", "do not exist: /skydns/local/skydns/dangling");
    found
        .has("D08", "warn", "hide it: /skydns/local/skydns/x")
        .has("D08", "warn", "no port");
    found.has("D08", "warn", "ttl 600 and a lease of 60 s");
    found
        .has(
            "D08",
            "warn",
            "192.0.2.9 is not an address of x.skydns.local.",
        )
        .has("D08", "warn", "no name backwards");
    found.has("D08", "warn", "several names");
}

fn v2_put(url: &str, key: &str, value: &str) {
    let output = Command::new("curl")
        .args([
            "-sS",
            "-XPUT",
            "--data-urlencode",
            &format!("value={value}"),
        ])
        .arg(format!("{url}/v2/keys/{key}"))
        .output()
        .expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\"action\":\"set\""), "{output:?}");
}

#[test]
fn users_and_passwords() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let url = cluster.endpoints().remove(0);
    cluster.ctl(&["put", "/skydns/local/skydns/x", "{}"]);
    for line in [
        "user add root:secret",
        "user grant-role root root",
        "user add dns:secret",
        "user add other:secret",
        "role add dns",
        "role grant-permission dns read /skydns/ /skydns0",
        "user grant-role dns dns",
        "auth enable",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        // The role of root is there from the beginning in some versions.
        cluster.try_ctl(&words);
    }
    doctor("D05", &["--endpoint", &url])
        .has("D05", "fail", "etcd wants a user")
        .fix("ETCD_PASSWORD");
    let as_user = |user: &str, password: &str| {
        let mut command = binary();
        command
            .args([
                "doctor",
                "--format",
                "json",
                "--check",
                "D04,D05",
                "--endpoint",
                &url,
                "--user",
                user,
            ])
            .env("ETCD_PASSWORD", password);
        Findings::of(&mut command)
    };
    as_user("dns", "secret")
        .has("D05", "ok", "can be read and watched as dns")
        .has("D04", "ok", "the v3 JSON API");
    as_user("dns", "wrong")
        .has("D05", "fail", "dns")
        .fix("password");
    as_user("other", "secret")
        .has("D05", "fail", "other may not read")
        .fix("grant-permission");
}

#[test]
fn upstreams_that_are_dead_or_ourselves() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_nsd, upstream) = nsd(dir.path(), &zone("198.51.100.1", ""));
    let (dead, etcd) = (format!("127.0.0.1:{}", free_port()), nowhere());
    let alive = format!("127.0.0.1:{upstream}");
    let upstreams = format!("{alive},{dead},127.0.0.1:1");
    let found = doctor(
        "D10",
        &[
            "--endpoint",
            &etcd,
            "--server",
            "127.0.0.1:1",
            "--upstream",
            &upstreams,
        ],
    );
    found
        .has("D10", "warn", &format!("upstream {alive} answers in"))
        .has("D10", "warn", "no DNSSEC signatures");
    found
        .has(
            "D10",
            "fail",
            &format!("upstream {dead}: connection refused"),
        )
        .fix("name another upstream");
    found.has("D10", "fail", "forwards to itself (127.0.0.1:1)");
    let found = doctor(
        "D10",
        &[
            "--endpoint",
            &etcd,
            "--upstream",
            &alive,
            "--forwarded",
            "www.example.net",
        ],
    );
    found.has("D10", "fail", "REFUSED");
}

#[test]
fn this_machine_asks_somebody_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let etcd = nowhere();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("our folder");
        path
    };
    let run = |resolv: &str, hosts: &str| {
        let resolv = write("resolv.conf", resolv).display().to_string();
        let nsswitch = write("nsswitch.conf", hosts).display().to_string();
        doctor(
            "D11",
            &[
                "--endpoint",
                &etcd,
                "--server",
                "192.0.2.53",
                "--resolv-conf",
                &resolv,
                "--nsswitch",
                &nsswitch,
            ],
        )
    };
    let hosts = "hosts: files dns\n";
    run("nameserver 192.0.2.53\n", hosts)
        .has("D11", "ok", "asks 192.0.2.53 first")
        .has("D11", "ok", "skydns.local. are asked of DNS");
    run("nameserver 192.0.2.1\n", hosts)
        .has("D11", "warn", "does not ask 192.0.2.53")
        .fix("nameserver 192.0.2.53");
    run("nameserver 127.0.0.53\n", hosts)
        .has("D11", "warn", "systemd-resolved")
        .fix("resolvectl");
    run("nameserver 192.0.2.1\nnameserver 192.0.2.53\n", hosts).has("D11", "warn", "as number 2");
    let four =
        "nameserver 192.0.2.53\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
    run(four, hosts).has("D11", "warn", "the first three");
    let mdns = "hosts: files mdns4_minimal [NOTFOUND=return] dns\n";
    run("nameserver 192.0.2.53\n", mdns)
        .has("D11", "warn", "multicast DNS before DNS")
        .fix("home.arpa");
}

/// Something that says `date` to whoever asks.
fn clock(date: &'static str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).ok();
            let body = r#"{"etcdserver":"3.4.23","health":"true","header":{"cluster_id":"1","revision":"1"}}"#;
            write!(stream, "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).ok();
        }
    });
    format!("http://{address}")
}

#[test]
fn a_clock_that_is_wrong() {
    let wrong = clock("Sun, 06 Nov 1994 08:49:37 GMT");
    doctor("D13", &["--endpoint", &wrong])
        .has("D13", "fail", "differ by")
        .fix("timedatectl");
}

#[test]
fn a_server_that_is_well() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 3);
    let url = cluster.endpoints().join(" ");
    for number in 1..120 {
        let key = format!("/skydns/org/example/pool/x{number}");
        cluster.ctl(&["put", &key, &format!(r#"{{"host":"192.0.2.{number}"}}"#)]);
    }
    cluster.ctl(&[
        "put",
        "/skydns/org/example/dns/ns/n1",
        r#"{"host":"198.51.100.53"}"#,
    ]);
    let metrics = free_port();
    let dnsfile = |port: u16| {
        format!(
            "example.org:{port} {{\n bind 127.0.0.1\n prometheus 127.0.0.1:{metrics}\n etcd {{\n  endpoint {url}\n }}\n}}\n"
        )
    };
    let mut server = Skeindns::start(dir.path(), &dnsfile(0));
    server.line(|line| line.contains("records at revision"));
    let conf = dir.path().join("Dnsfile");
    fs::write(&conf, dnsfile(server.port)).expect("our folder");
    let run = || {
        let mut command = binary();
        command
            .args(["doctor", "--format", "json", "--timeout", "1s", "--conf"])
            .arg(&conf)
            .args([
                "--check",
                "D01,D02,D03,D04,D05,D06,D07,D08,D09,D10,D12,D13,D14,D15",
            ]);
        Findings::of(&mut command)
    };
    let found = run();
    found.has("D01", "ok", "over UDP is held by skeindns");
    found
        .has("D06", "ok", "120 keys below /skydns/")
        .has("D08", "ok", "nothing wrong");
    found.has("D09", "ok", "answers for example.org., with 1 name servers");
    found
        .has("D12", "ok", "comes through over UDP")
        .has("D14", "ok", "dnssec is off");
    found
        .has("D15", "ok", "follows etcd at revision")
        .has("D15", "ok", "members are at revision");
    assert!(
        found.all.iter().all(|found| found["level"] == "ok"),
        "{:#?}",
        found.all
    );
    // As text, and with what is wrong when it has been stopped.
    server.process.end();
    let found = run();
    found
        .has("D01", "fail", "nobody receives")
        .has("D09", "fail", "connection refused")
        .has("D12", "fail", "connection refused");
    let output = binary()
        .args(["doctor", "--check", "d01", "--conf"])
        .arg(&conf)
        .output()
        .expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("FAIL  D01 listen: nobody receives at 127.0.0.1:"),
        "{text}"
    );
    assert!(text.contains("\n      fix: start the server"), "{text}");
    assert!(text.ends_with("0 ok, 0 warnings, 2 failures\n"), "{text}");
}
