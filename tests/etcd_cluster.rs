//! The etcd plugin against etcd's own servers: a member killed, a member frozen, all of them gone, compaction past where we stood, a cluster
//! restored from a backup, users and passwords, TLS with client certificates, leases, values that cannot be read.

use std::fs;
use std::path::Path;
use std::process::Command;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

mod support;

use support::{Cluster, free_port, until};

/// Our own binary with one zone from etcd.
struct Skeindns(support::Skeindns);

impl Skeindns {
    /// Starts with the plugin's options given.
    fn start(dir: &Path, options: &str) -> Skeindns {
        let text =
            format!("example.org:0 {{\n bind 127.0.0.1\n errors\n etcd {{\n{options}\n }}\n}}\n");
        Skeindns(support::Skeindns::start(dir, &text))
    }

    fn line(&self, matches: impl Fn(&str) -> bool) -> String {
        self.0.line(matches)
    }

    fn ask(&self, name: &str) -> Message {
        self.0.ask(&format!("{name}.example.org."), RecordType::A)
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

fn put(cluster: &Cluster, path: &str, value: &str) {
    cluster.ctl(&["put", &format!("/skydns/org/example/{path}"), value]);
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
    put(&cluster, "a", &host(1));
    let server = Skeindns::start(dir.path(), &endpoint(&cluster));
    server.becomes("a", &[1]);
    // Whichever member is followed, each is lost once.
    for member in 0..3u8 {
        let at = usize::from(member);
        cluster.members[at].end();
        server.is("a", &[1 + member]);
        put(&cluster, "a", &host(2 + member));
        server.becomes("a", &[2 + member]);
        cluster.members[at] = cluster.member(at);
        cluster.wait();
    }
    for member in 0..3 {
        cluster.members[member].signal("-STOP");
        put(&cluster, "b", &host(10 + member as u8));
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
    cluster.start_members();
    put(&cluster, "c", &host(30));
    server.becomes("c", &[30]);
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
    let mut cluster = Cluster::planned(dir.path(), vec![(port, free_port())]);
    cluster.start_members();
    put(&cluster, "a", &host(1));
    server.becomes("a", &[1]);
}

#[test]
fn compaction_and_going_back_are_recovered_from() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(dir.path(), 1);
    put(&cluster, "kept", &host(1));
    put(&cluster, "gone", &host(2));
    let server = Skeindns::start(dir.path(), &endpoint(&cluster));
    server.becomes("gone", &[2]);
    let backup = dir.path().join("backup");
    let backup = backup.to_str().expect("plain characters");
    cluster.ctl(&["snapshot", "save", backup]);

    // While nobody listens a key goes, another comes, and what happened is forgotten.
    server.0.process.signal("-STOP");
    cluster.members[0].end();
    cluster.members[0] = cluster.member(0);
    cluster.wait();
    cluster.ctl(&["del", "/skydns/org/example/gone"]);
    for octet in 0..20 {
        put(&cluster, "new", &host(octet));
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
    server.0.process.signal("-CONT");
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
    put(&cluster, "after", &host(7));
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
    let put_leased = |lease: &str, path: &str, value: &str| {
        let key = format!("/skydns/org/example/{path}");
        cluster.ctl(&["put", "--lease", lease, &key, value]);
    };
    put_leased(&long, "long", &host(1));
    put_leased(&short, "short", &host(2));
    server.becomes("long", &[1]);
    assert_eq!(server.ask("long").answers[0].ttl, 600);
    server.vanishes("short");
    cluster.ctl(&["lease", "revoke", &long]);
    server.vanishes("long");

    put(&cluster, "bad/x", "{\"host\":1}");
    put(&cluster, "bad/y", &host(3));
    put(&cluster, "worse", "nothing");
    server.becomes("bad", &[3]);
    server.becomes("worse", &[]);
    server.line(|line| line.contains("/skydns/org/example/bad/x") && line.contains("skipped"));
    put(&cluster, "worse", &host(4));
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
    put(&cluster, "a", &host(1));
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
    put(&cluster, "a", &host(1));
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
