//! The embedded store and `skeindns service`, with the real binary and a real etcd.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A server with an embedded store.
struct Server {
    process: Process,
    lines: Receiver<String>,
    // Lines that came before the one that was waited for: which of them comes first is not promised.
    passed: Vec<String>,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Server {
        let dnsfile = "skydns.local:0 {\n bind 127.0.0.1\n errors\n etcd {\n  embedded data\n  listen 127.0.0.1:0\n }\n}\n";
        std::fs::write(folder.join("Dnsfile"), dnsfile).expect("the folder is ours");
        let mut child = Command::new(env!("CARGO_BIN_EXE_skeindns"))
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Server {
            process: Process(child),
            lines,
            passed: Vec::new(),
            url: String::new(),
        };
        let line = server.line("API is at http://");
        let (_, address) = line.split_once("http://").expect("it is in the line");
        server.url = format!("http://{address}");
        server.line("records at revision");
        server
    }

    /// The first line that contains this and was not asked for before.
    fn line(&mut self, part: &str) -> String {
        if let Some(at) = self.passed.iter().position(|line| line.contains(part)) {
            return self.passed.remove(at);
        }
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no line with {part:?}: {error}"));
            if line.contains(part) {
                return line;
            }
            self.passed.push(line);
        }
    }

    fn service(&self, arguments: &[&str]) -> Output {
        service(&self.url, arguments, "")
    }
}

fn service(url: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_skeindns"))
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

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .expect("loopback has ports")
        .port()
}

fn start_etcd(folder: &Path) -> (Process, String) {
    let client = format!("http://127.0.0.1:{}", free_port());
    let peer = format!("http://127.0.0.1:{}", free_port());
    let child = Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed: make test installs it");
    let process = Process(child);
    let end = Instant::now() + PATIENCE;
    while !service(&client, &["list"], "").status.success() {
        assert!(Instant::now() < end, "etcd does not start");
        // Not synchronisation: only the pace at which we look.
        std::thread::sleep(Duration::from_millis(50));
    }
    (process, client)
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
    let second = Command::new(env!("CARGO_BIN_EXE_skeindns"))
        .current_dir(folder.path())
        .output()
        .expect("it ends");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let holder = format!("is in use by process {}", server.process.0.id());
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
    let mut server = Server::start(folder.path());
    text(&server.service(&["put", "x.skydns.local", "--host", "192.0.2.7"]));
    let pid = server.process.0.id().to_string();
    let killed = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(killed.expect("kill is there").success());
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

    let (_etcd, etcd) = start_etcd(folder.path());
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
