//! `skeindns verify` with the real binary and a real etcd: nothing differs where nothing does, and every planted fault is found.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{Cluster, Skeindns, binary, free_port, nsd, zone};

/// Records of the large tree.
const RECORDS: usize = 10_000;

/// A server for example.org and its networks, from the keys below `path`.
fn serve(dir: &Path, cluster: &Cluster, path: &str, options: &str) -> Skeindns {
    let endpoints = cluster.endpoints().join(" ");
    let dir = dir.join(path);
    fs::create_dir_all(&dir).expect("our folder");
    let server = Skeindns::start(
        &dir,
        &format!(
            "example.org:0 10.0.0.0/8:0 2001:db8::/32:0 {{\n bind 127.0.0.1\n errors\n etcd {{\n  path {path}\n  endpoint {endpoints}\n  {options}\n }}\n}}\n"
        ),
    );
    server.line(|line| line.contains("records at revision"));
    server
}

fn verify(server: &Skeindns, cluster: &Cluster, arguments: &[&str]) -> Output {
    verify_command(server.port, &cluster.endpoints().join(","), arguments)
        .output()
        .expect("the binary starts")
}

fn verify_command(port: u16, endpoints: &str, arguments: &[&str]) -> Command {
    let mut command = binary();
    command
        .arg("verify")
        .args(["--server", &format!("127.0.0.1:{port}")])
        .args(["--endpoint", endpoints])
        .args(arguments)
        .env_remove("ETCD_ENDPOINTS")
        .stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

/// Writes keys (path below the prefix, value) below a prefix, all at once.
fn import(dir: &Path, cluster: &Cluster, prefix: &str, keys: &[(String, String)]) {
    let mut lines = String::new();
    for (path, value) in keys {
        let line = serde_json::json!({"key": format!("/{prefix}/{path}"), "value": value});
        writeln!(lines, "{line}").expect("a String grows");
    }
    let file = dir.join("import.jsonl");
    fs::write(&file, lines).expect("our folder");
    let output = binary()
        .args(["service", "import"])
        .arg(&file)
        .args(["--path", prefix])
        .args(["--endpoint", &cluster.endpoints().join(",")])
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{}", text(&output));
}

/// A tree with something of everything.
fn tree(records: usize) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    let mut add = |path: String, value: String| keys.push((path, value));
    for (path, value) in [
        ("org/example/dns/ns/n1", r#"{"host":"10.9.9.1"}"#),
        (
            "org/example/dns/ns/n2",
            r#"{"host":"2001:db8:9::1","ttl":60}"#,
        ),
        (
            "org/example/mail/m1",
            r#"{"host":"10.9.9.2","mail":true,"priority":5}"#,
        ),
        (
            "org/example/mail/m2",
            r#"{"host":"n1.ns.dns.example.org","mail":true}"#,
        ),
        ("org/example/text", r#"{"text":"v=spf1 -all"}"#),
        (
            "org/example/both",
            r#"{"host":"10.9.9.3","text":"and this"}"#,
        ),
        (
            "org/example/alias/of/alias",
            r#"{"host":"alias2.example.org"}"#,
        ),
        ("org/example/alias2", r#"{"host":"both.example.org"}"#),
        ("org/example/dangling", r#"{"host":"nowhere.example.org"}"#),
        ("org/example/loop1", r#"{"host":"loop2.example.org"}"#),
        ("org/example/loop2", r#"{"host":"loop1.example.org"}"#),
        ("org/example/bad", r#"{"host":"10.9.9.4","ttl":"60"}"#),
        ("org/example/Upper", r#"{"host":"10.9.9.5"}"#),
        ("org/example/g", r#"{"host":"10.9.9.6","group":"one"}"#),
        ("org/example/g/x", r#"{"host":"10.9.9.7","group":"two"}"#),
        ("org/example/parent", r#"{"host":"10.9.9.8"}"#),
        ("org/example/parent/child", r#"{"host":"10.9.9.9"}"#),
        ("net/elsewhere/x", r#"{"host":"10.9.9.10"}"#),
    ] {
        add(path.to_owned(), value.to_owned());
    }
    let mut number = 0;
    while number + 18 < records {
        let (high, low) = (number / 250, number % 250);
        match number % 5 {
            0 => add(
                format!("org/example/rack{high}/host{low}"),
                format!(r#"{{"host":"10.1.{high}.{low}","ttl":{}}}"#, 30 + low),
            ),
            1 => add(
                format!("arpa/in-addr/10/1/{high}/{}", low - 1),
                format!(r#"{{"host":"host{}.rack{high}.example.org"}}"#, low - 1),
            ),
            2 => add(
                format!("org/example/svc{high}/i{low}"),
                format!(
                    r#"{{"host":"2001:db8::{high:x}:{low:x}","port":{low},"weight":{}}}"#,
                    1 + low % 7
                ),
            ),
            3 => add(
                format!("org/example/svc{high}/n{low}"),
                format!(
                    r#"{{"host":"host{}.rack{high}.example.org","port":80}}"#,
                    low - 3
                ),
            ),
            _ => add(
                format!("org/example/t{high}-{low}"),
                format!(r#"{{"text":"{}"}}"#, "x".repeat(low * 3)),
            ),
        }
        number += 1;
    }
    keys
}

#[test]
fn ten_thousand_records_have_no_difference() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    import(dir.path(), &cluster, "skydns", &tree(RECORDS));
    let server = serve(dir.path(), &cluster, "skydns", "");
    let output = verify(&server, &cluster, &["--all", "--format", "json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["failed"], 0);
    // Every name in every type, and those above them.
    assert!(
        report["total"].as_u64() > Some(3 * RECORDS as u64),
        "{report:#}"
    );
    assert_eq!(report["ok"], report["total"]);
    // The zones were found by asking, and what is in none of them is said.
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("in no zone of this server") && notes.contains("1 keys have a value"),
        "{notes}"
    );
}

#[test]
fn every_planted_fault_is_found() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let keys = tree(300);
    import(dir.path(), &cluster, "skydns", &keys);
    // What the other server reads: one address wrong, one name missing, one TTL of before, one name too many, one weight changed.
    let other = keys.iter().filter_map(|(path, value)| {
        let value = match path.as_str() {
            "org/example/rack0/host5" => return None,
            "org/example/rack0/host10" => value.replace("10.1.0.10", "10.1.0.11"),
            "org/example/rack0/host15" => value.replace("45", "44"),
            "org/example/svc0/n3" => value.replace("80", "81"),
            _ => value.clone(),
        };
        Some((path.clone(), value))
    });
    let mut other: Vec<(String, String)> = other.collect();
    other.push((
        "org/example/rack0/old".into(),
        r#"{"host":"10.1.0.99"}"#.into(),
    ));
    import(dir.path(), &cluster, "other", &other);
    let server = serve(dir.path(), &cluster, "other", "");
    let output = verify(&server, &cluster, &["--all", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let report = json(&output);
    let failed = |name: &str, rtype: &str| {
        let checks = report["checks"].as_array().expect("a list").iter();
        let mut checks = checks.filter(|check| check["name"] == name && check["type"] == rtype);
        let what = checks.next().map(|check| check["what"].to_string());
        what.unwrap_or_else(|| panic!("{name} {rtype} is no difference in {report:#}"))
    };
    assert!(failed("host5.rack0.example.org.", "A").contains("NXDOMAIN"));
    assert!(failed("host5.rack0.example.org.", "TXT").contains("NXDOMAIN"));
    assert!(failed("host10.rack0.example.org.", "A").contains("10.1.0.10 is missing"));
    assert!(failed("host15.rack0.example.org.", "A").contains("TTL 44 instead of 45"));
    assert!(failed("rack0.example.org.", "A").contains("10.1.0.99 is not in etcd"));
    assert!(failed("n3.svc0.example.org.", "SRV").contains("is missing"));
    // A cache in between may have counted down; the others are faults still.
    let output = verify(
        &server,
        &cluster,
        &["--all", "--ttl", "at-most", "host15.rack0.example.org"],
    );
    assert_eq!(
        output.status.code(),
        Some(64),
        "names and --all exclude each other"
    );
    let at_most = ["--ttl", "at-most", "host15.rack0.example.org"];
    let output = verify(&server, &cluster, &at_most);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = verify(
        &server,
        &cluster,
        &["host15.rack0.example.org", "--type", "A"],
    );
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(
        text.contains("FAIL  host15.rack0.example.org. A  expected A 10.1.0.15 (45)"),
        "{text}"
    );
    assert!(text.ends_with("1 checks, 0 ok, 1 failed\n"), "{text}");
}

#[test]
fn a_change_under_way_is_no_difference() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    import(dir.path(), &cluster, "skydns", &tree(2000));
    let server = serve(dir.path(), &cluster, "skydns", "");
    let url = format!("{}/v3/kv/put", cluster.endpoints()[0]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio_runtime();
            runtime.block_on(async {
                let client = reqwest::Client::new();
                let key = data_encoding::BASE64.encode(b"/skydns/org/example/rack0/host0");
                for number in 0_u32.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    let value = format!(r#"{{"host":"10.7.7.{}"}}"#, number % 250);
                    let value = data_encoding::BASE64.encode(value.as_bytes());
                    let body = serde_json::json!({"key": key, "value": value});
                    client
                        .post(&url)
                        .body(body.to_string())
                        .send()
                        .await
                        .expect("etcd answers");
                }
            });
        });
        let output = verify(&server, &cluster, &["--all", "--format", "json"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let report = json(&output);
        assert_eq!(report["failed"], 0, "{report:#}");
    });
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

#[test]
fn a_look_at_the_zone_covers_what_a_first_user_asks() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let (_nsd, upstream) = nsd(dir.path(), &zone("198.51.100.1", ""));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
    let host = host
        .trim()
        .split('.')
        .next()
        .unwrap_or_default()
        .to_lowercase();
    let keys = [
        (
            format!("org/example/{host}"),
            r#"{"host":"10.0.0.7"}"#.to_owned(),
        ),
        (
            "arpa/in-addr/10/0/0/7".into(),
            format!(r#"{{"host":"{host}.example.org"}}"#),
        ),
        (
            "org/example/dns/ns/n1".into(),
            r#"{"host":"10.0.0.1"}"#.to_owned(),
        ),
        (
            "org/example/out".into(),
            r#"{"host":"www.example.com"}"#.to_owned(),
        ),
    ];
    import(dir.path(), &cluster, "skydns", &keys);
    let conf = dir.path().join("Dnsfile");
    let endpoint = &cluster.endpoints()[0];
    let dnsfile = |port: u16| {
        format!(
            ".:{port} {{\n bind 127.0.0.1\n errors\n cache\n etcd example.org 10.0.0.0/8 {{\n  endpoint {endpoint}\n }}\n forward . 127.0.0.1:{upstream}\n}}\n"
        )
    };
    let server = Skeindns::start(dir.path(), &dnsfile(0));
    server.line(|line| line.contains("records at revision"));
    // Where the server is, which zones it has and which cluster it reads: all of it as the Dnsfile says.
    fs::write(&conf, dnsfile(server.port)).expect("our folder");
    let output = binary()
        .args(["verify", "--conf"])
        .arg(&conf)
        .output()
        .expect("the binary starts");
    let report = text(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    for part in [
        "ok    example.org. SOA ",
        "ok    example.org. NS  expected NS n1.ns.dns.example.org. (300)",
        &format!("ok    {host}.example.org. A  expected A 10.0.0.7 (300)"),
        &format!("ok    7.0.0.10.in-addr.arpa. PTR  expected PTR {host}.example.org. (300)"),
        "expected NXDOMAIN  got NXDOMAIN",
        "SOA over TCP",
        "SOA with EDNS",
        "SOA without EDNS",
        "ok    www.example.com. A forwarded  expected NOERROR  got A 198.51.100.1",
    ] {
        assert!(report.contains(part), "{part} is not in\n{report}");
    }
    let output = verify(&server, &cluster, &["--all", "--tcp", "--verbose"]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("ok    out.example.org. A"), "{report}");
}

#[test]
fn who_cannot_be_reached_is_said_by_the_exit_code() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    import(dir.path(), &cluster, "skydns", &tree(20));
    let mut server = serve(dir.path(), &cluster, "skydns", "");
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let output = verify_command(server.port, &nowhere, &["--all"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("--endpoint"), "{}", text(&output));
    let output = verify(&server, &cluster, &["--timeout", "never"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
    let output = verify(&server, &cluster, &["--unknown"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
    let output = verify(&server, &cluster, &["www.example.net"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
    server.process.end();
    let output = verify(&server, &cluster, &["--all", "--timeout", "200ms"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("--server"), "{}", text(&output));
}

#[test]
fn subtree_and_leases_are_as_the_server_has_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    import(dir.path(), &cluster, "skydns", &tree(200));
    for (name, lease) in [("a", "10s"), ("b", "100s"), ("c", "100h")] {
        let output = binary()
            .args(["service", "put", &format!("{name}.leased.example.org")])
            .args(["--host", "10.3.0.1", "--ttl", "5000", "--lease", lease])
            .args(["--endpoint", &cluster.endpoints().join(",")])
            .output()
            .expect("the binary starts");
        assert!(output.status.success(), "{}", text(&output));
    }
    for mode in ["on", "children", "off"] {
        let server = serve(dir.path(), &cluster, "skydns", &format!("subtree {mode}"));
        let output = verify(&server, &cluster, &["--all", "--subtree", mode]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let other = if mode == "on" { "off" } else { "on" };
        let output = verify(&server, &cluster, &["--all", "--subtree", other]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    }
}

#[test]
fn skydnss_answers_are_recognized_and_compared_as_such() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let mut keys = tree(600);
    for (path, value) in [
        // Hidden from above, found by who asks for it.
        (
            "org/example/rack0/_tcp/_http/w1",
            r#"{"host":"10.5.0.1","port":80}"#,
        ),
        // Equal content counts once, before weights.
        (
            "org/example/twins/a",
            r#"{"host":"10.5.0.2","port":80,"ttl":7200}"#,
        ),
        (
            "org/example/twins/b",
            r#"{"host":"10.5.0.2","port":80,"ttl":60}"#,
        ),
        (
            "org/example/twins/c",
            r#"{"host":"10.5.0.3","port":80,"weight":3}"#,
        ),
        // An alias through a key outside the zone, and two at one name.
        ("org/example/through", r#"{"host":"x.elsewhere.net"}"#),
        ("org/example/two/a", r#"{"host":"both.example.org"}"#),
        ("org/example/two/b", r#"{"host":"parent.example.org"}"#),
        // Below nothing that is served: SkyDNS needs no zone for it.
        ("arpa/in-addr/192/0/2/1", r#"{"host":"both.example.org"}"#),
        (
            "arpa/in-addr/192/0/2/2/8f1c",
            r#"{"host":"both.example.org"}"#,
        ),
    ] {
        keys.push((path.to_owned(), value.to_owned()));
    }
    import(dir.path(), &cluster, "skydns", &keys);
    let endpoint = &cluster.endpoints()[0];
    let server = Skeindns::start(
        dir.path(),
        &format!(
            ".:0 {{\n bind 127.0.0.1\n errors\n etcd example.org 10.0.0.0/8 {{\n  endpoint {endpoint}\n  answers skydns\n }}\n}}\n"
        ),
    );
    server.line(|line| line.contains("records at revision"));
    let output = verify(&server, &cluster, &["--all", "--format", "json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["ok"], report["total"], "{report:#}");
    let output = verify(
        &server,
        &cluster,
        &[
            "1.2.0.192.in-addr.arpa",
            "2.2.0.192.in-addr.arpa",
            "nothing.example.org",
        ],
    );
    let shown = text(&output);
    assert!(
        shown.contains("PTR  expected PTR both.example.org. (3600)"),
        "{shown}"
    );
    assert!(shown.contains("expected NXDOMAIN  got NXDOMAIN"), "{shown}");
    let output = verify(
        &server,
        &cluster,
        &["--all", "--answers", "coredns", "--domain", "example.org"],
    );
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

#[test]
fn wildcards_in_keys_and_a_zones_own_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(dir.path(), 1);
    let mut keys = tree(50);
    for (path, value) in [
        ("org/example", r#"{"host":"10.6.0.1"}"#),
        ("org/example/*", r#"{"host":"10.6.0.2","port":80}"#),
        ("org/example/sub/*/a", r#"{"host":"10.6.0.3","port":80}"#),
    ] {
        keys.push((path.to_owned(), value.to_owned()));
    }
    import(dir.path(), &cluster, "skydns", &keys);
    for answers in ["coredns", "skydns"] {
        let options = format!("answers {answers}\n  apex own\n  wildcards records");
        let server = serve(dir.path(), &cluster, "skydns", &options);
        let conf = dir.path().join("skydns/Dnsfile");
        let dnsfile = fs::read_to_string(&conf).expect("just written");
        let port = format!(":{} ", server.port);
        fs::write(&conf, dnsfile.replace(":0 ", &port)).expect("our folder");
        let output = binary()
            .args(["verify", "--all", "--verbose", "--conf"])
            .arg(&conf)
            .output()
            .expect("the binary starts");
        let report = text(&output);
        assert_eq!(output.status.code(), Some(0), "{answers}: {report}");
        assert!(
            report.contains("ok    example.org. A  expected A 10.6.0.1"),
            "{report}"
        );
        let output = binary()
            .args([
                "verify",
                "no.where.example.org",
                "b.c.sub.example.org",
                "--conf",
            ])
            .arg(&conf)
            .output()
            .expect("the binary starts");
        let report = text(&output);
        assert_eq!(output.status.code(), Some(0), "{answers}: {report}");
        assert!(
            report.contains("A 10.6.0.2") && report.contains("80 a.b.c.sub.example.org."),
            "{report}"
        );
    }
}

#[test]
fn keys_in_the_v2_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start_with(dir.path(), 1, "http", &["--enable-v2".into()], &[]);
    let url = cluster.endpoints().remove(0);
    for (key, value, ttl) in [
        ("org/example/x", r#"{"host":"10.0.0.1"}"#, ""),
        ("org/example/y", r#"{"host":"10.0.0.2"}"#, "4000"),
        (
            "org/example/web/a",
            r#"{"host":"10.0.0.3","port":80,"ttl":60}"#,
            "50",
        ),
    ] {
        let output = Command::new("curl")
            .args([
                "-sS",
                "-XPUT",
                "--data-urlencode",
                &format!("value={value}"),
                "-d",
                &format!("ttl={ttl}"),
            ])
            .arg(format!("{url}/v2/keys/skydns/{key}"))
            .output()
            .expect("curl is installed");
        assert!(text(&output).contains("\"action\":\"set\""), "{output:?}");
    }
    for options in ["api v2", "api v2\n  answers skydns"] {
        let server = serve(dir.path(), &cluster, "skydns", options);
        let output = verify(&server, &cluster, &["--all", "--verbose"]);
        let report = text(&output);
        assert_eq!(output.status.code(), Some(0), "{report}");
        assert!(report.contains("ok    web.example.org. SRV"), "{report}");
    }
}
