//! The embedded store and `skeindns service`, with the real binary and a real etcd.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

mod support;

use support::{Cluster, Lines, Process, binary};

/// A server with an embedded store.
struct Server {
    process: Process,
    lines: Lines,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Server {
        let dnsfile = "skydns.local:0 {\n bind 127.0.0.1\n errors\n etcd {\n  embedded data\n  listen 127.0.0.1:0\n }\n}\n";
        std::fs::write(folder.join("Dnsfile"), dnsfile).expect("the folder is ours");
        let mut child = binary()
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = Lines::of(&mut child);
        let mut server = Server {
            process: Process(child),
            lines,
            url: String::new(),
        };
        let line = server.line("API is at http://");
        let (_, address) = line.split_once("http://").expect("it is in the line");
        server.url = format!("http://{address}");
        server.line("records at revision");
        server
    }

    /// The first line that contains this and was not asked for before.
    fn line(&self, part: &str) -> String {
        self.lines.line(|line| line.contains(part))
    }

    fn service(&self, arguments: &[&str]) -> Output {
        service(&self.url, arguments, "")
    }
}

fn service(url: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = binary()
        .arg("service")
        .args(arguments)
        .args(["--endpoint", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn records_come_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let put = [
        "put",
        "x.skydns.local",
        "--host",
        "192.0.2.7",
        "--ttl",
        "60",
    ];
    text(&server.service(&put));
    let got = text(&server.service(&["get", "x.skydns.local"]));
    assert!(got.contains("192.0.2.7"), "{got}");
    let missing = server.service(&["get", "y.skydns.local"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    let usage = server.service(&["put", "y.skydns.local"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    let nowhere = service("http://127.0.0.1:1", &["list"], "");
    assert_eq!(nowhere.status.code(), Some(3), "{nowhere:?}");
    text(&server.service(&["delete", "x.skydns.local"]));
    let gone = server.service(&["get", "x.skydns.local"]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
}

#[test]
fn what_was_put_survives_a_kill_and_the_folder_has_one_holder() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    text(&server.service(&["put", "x.skydns.local", "--host", "192.0.2.7"]));
    let second = binary()
        .current_dir(folder.path())
        .output()
        .expect("it ends");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let holder = format!("is in use by process {}", server.process.id());
    assert!(said.contains(&holder), "{said}");
    // Dropping it kills it, with no time for anything.
    drop(server);
    let server = Server::start(folder.path());
    let got = text(&server.service(&["get", "x.skydns.local"]));
    assert!(got.contains("192.0.2.7"), "{got}");
}

#[test]
fn a_reload_keeps_the_store_and_its_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    text(&server.service(&["put", "x.skydns.local", "--host", "192.0.2.7"]));
    server.process.signal("-HUP");
    server.line("omplete");
    let got = text(&server.service(&["get", "x.skydns.local"]));
    assert!(got.contains("192.0.2.7"), "{got}");
    text(&server.service(&["put", "y.skydns.local", "--host", "192.0.2.8"]));
}

#[test]
fn export_and_import_are_the_way_up_and_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    for n in 0..5 {
        let name = format!("n{n}.skydns.local");
        text(&server.service(&["put", &name, "--host", "192.0.2.7", "--port", "80"]));
    }
    let leased = [
        "put",
        "l.skydns.local",
        "--host",
        "192.0.2.9",
        "--lease",
        "600s",
    ];
    text(&server.service(&leased));
    let exported = text(&server.service(&["export", "-"]));
    assert_eq!(exported.lines().count(), 6, "{exported}");

    let cluster = Cluster::start(folder.path(), 1);
    let etcd = cluster.endpoints().join(",");
    text(&service(&etcd, &["import", "-"], &exported));
    let up = text(&service(&etcd, &["export", "-"], ""));
    assert_eq!(keys_and_values(&up), keys_and_values(&exported));

    let other = tempfile::tempdir().expect("a folder");
    let other = Server::start(other.path());
    text(&service(&other.url, &["import", "-"], &up));
    let back = text(&other.service(&["export", "-"]));
    assert_eq!(keys_and_values(&back), keys_and_values(&exported));
}

/// Key, value, and whether there is a lease, of every line.
fn keys_and_values(exported: &str) -> Vec<(String, String, bool)> {
    let lines = exported.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        let leased = line["lease"].as_u64().is_some_and(|seconds| seconds > 500);
        (line["key"].to_string(), line["value"].to_string(), leased)
    });
    lines.collect()
}
