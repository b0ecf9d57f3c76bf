//! `skeindns register` with a real etcd, on machines of its own: network namespaces with interfaces that change while it runs.
//!
//! ```text
//!   namespace lab: etcd on 192.0.2.1, bridge br0
//!        │ veth            │ veth
//!   namespace h1        namespace h2 …: mgmt (the way to etcd), eth0, eth1 … (what is registered)
//! ```
//! It needs root: whoever may not make namespaces gets a failure that says so.

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use support::{Cluster, Lines, PATIENCE, Process, Skeindns, binary, query, until};

/// The shortest lease there is.
const LEASE: &str = "--lease-ttl=10s";

/// A network with an etcd.
struct Lab {
    namespace: Namespace,
    folder: tempfile::TempDir,
    etcd: Option<Process>,
    hosts: Cell<u8>,
}

/// A machine in it.
struct Host {
    namespace: Namespace,
    lab: String,
    number: u8,
}

/// A network namespace that goes with the test.
struct Namespace(String);

impl Namespace {
    fn new() -> Namespace {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let namespace = Namespace(format!("skein{}-{number}", std::process::id()));
        let made = Command::new("ip")
            .args(["netns", "add", &namespace.0])
            .output()
            .expect("iproute2 is installed: make test-packages");
        assert!(
            made.status.success(),
            "this test makes network namespaces, which only root may: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        namespace.ip("link set lo up");
        namespace
    }

    /// `ip` in it.
    fn ip(&self, arguments: &str) {
        let output = Command::new("ip")
            .args(["-n", &self.0])
            .args(arguments.split_whitespace())
            .output();
        let output = output.expect("iproute2 is installed");
        assert!(output.status.success(), "ip {arguments}: {output:?}");
    }

    /// A program in it.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "del", &self.0]).status();
        deleted.ok();
    }
}

impl Lab {
    fn new() -> Lab {
        let namespace = Namespace::new();
        namespace.ip("link add br0 type bridge");
        namespace.ip("addr add 192.0.2.1/24 dev br0");
        namespace.ip("link set br0 up");
        Lab {
            namespace,
            folder: tempfile::tempdir().expect("a folder"),
            etcd: None,
            hosts: Cell::new(0),
        }
    }

    fn with_etcd() -> Lab {
        let mut lab = Lab::new();
        lab.start_etcd("data");
        lab
    }

    /// Starts etcd on the data of this name, and waits until it answers.
    fn start_etcd(&mut self, data: &str) {
        self.etcd = None;
        let child = self
            .namespace
            .command("etcd")
            .arg("--data-dir")
            .arg(self.folder.path().join(data))
            .args(["--listen-client-urls", "http://192.0.2.1:2379"])
            .args(["--advertise-client-urls", "http://192.0.2.1:2379"])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
            .args(["--initial-advertise-peer-urls", "http://127.0.0.1:2380"])
            .args(["--initial-cluster", "default=http://127.0.0.1:2380"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed: make test-packages");
        self.etcd = Some(Process(child));
        until("etcd answers", || self.try_ctl(&["endpoint", "health"]));
    }

    fn try_ctl(&self, arguments: &[&str]) -> Option<String> {
        let output = self
            .namespace
            .command("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", "http://192.0.2.1:2379"])
            .args(arguments)
            .output()
            .expect("etcdctl is installed: make test-packages");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        until(&format!("etcdctl {arguments:?} succeeds"), || {
            self.try_ctl(arguments)
        })
    }

    /// Everything below /skydns, by key without that.
    fn records(&self) -> BTreeMap<String, serde_json::Value> {
        let text = self.ctl(&["get", "--prefix", "/skydns/", "-w", "fields"]);
        let text_of = |line: &str| -> String {
            let (_, quoted) = line.split_once(" : ").expect("a field");
            serde_json::from_str(quoted).expect("a string as Go quotes it")
        };
        let lines = text
            .lines()
            .filter(|line| line.starts_with("\"Key\"") || line.starts_with("\"Value\""));
        let lines: Vec<String> = lines.map(text_of).collect();
        let pairs = lines.chunks(2).map(|pair| {
            let key = pair[0].trim_start_matches("/skydns/").to_owned();
            (key, serde_json::from_str(&pair[1]).expect("JSON"))
        });
        pairs.collect()
    }

    /// Waits until there are these keys and no others.
    fn until_keys(&self, keys: &[&str]) {
        let mut wanted: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        wanted.sort();
        let mut last = Vec::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("the keys are as wanted", || {
                last = self.records().into_keys().collect();
                (last == wanted).then_some(())
            });
        }));
        assert!(found.is_ok(), "wanted {wanted:#?}, found {last:#?}");
    }

    /// A new machine; its way to etcd is `mgmt`.
    fn host(&self) -> Host {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let host = Host {
            namespace: Namespace::new(),
            lab: self.namespace.0.clone(),
            number,
        };
        host.connected("mgmt");
        host.namespace
            .ip(&format!("addr add 192.0.2.{}/24 dev mgmt", 100 + number));
        host
    }
}

impl Host {
    /// A further interface, on the bridge at its other end.
    fn interface(&self, name: &str) {
        let lab = &self.lab;
        let other = self.other_end(name);
        self.namespace.ip(&format!(
            "link add {name} type veth peer name {other} netns {lab}"
        ));
        self.in_lab(&format!("link set {other} master br0"));
        self.namespace.ip(&format!("link set {name} up"));
    }

    /// One with something at its other end that is switched on.
    fn connected(&self, name: &str) {
        self.interface(name);
        self.in_lab(&format!("link set {} up", self.other_end(name)));
    }

    fn other_end(&self, name: &str) -> String {
        format!("h{}{name}", self.number)
    }

    fn in_lab(&self, arguments: &str) {
        let output = Command::new("ip")
            .args(["-n", &self.lab])
            .args(arguments.split_whitespace())
            .output()
            .expect("iproute2 is installed");
        assert!(output.status.success(), "ip {arguments}: {output:?}");
    }

    fn ip(&self, arguments: &str) {
        self.namespace.ip(arguments);
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_skeindns"));
        command
            .args(["register", "--etcd", "http://192.0.2.1:2379"])
            .args([
                "--exclude-interface",
                "mgmt",
                "--settle",
                "0",
                "--rescan",
                "1s",
            ])
            .args(["--hostname", name, LEASE])
            .arg(format!("--instance-id=machine{}", self.number))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// The agent at work.
    fn register(&self, name: &str, arguments: &[&str]) -> Agent {
        Agent::of(&mut self.command(name, arguments))
    }

    /// The agent until it ends by itself.
    fn output(&self, name: &str, arguments: &[&str]) -> Output {
        self.command(name, arguments).output().expect("it ends")
    }
}

struct Agent {
    process: Process,
    lines: Lines,
}

impl Agent {
    fn of(command: &mut Command) -> Agent {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = Lines::of(&mut child);
        Agent {
            process: Process(child),
            lines,
        }
    }

    fn line(&self, part: &str) -> String {
        self.lines.line(|line| line.contains(part))
    }

    /// Tells it to stop; it ends well.
    fn stop(mut self) {
        self.process.signal("-TERM");
        let status = self.process.wait();
        assert!(status.success(), "{status:?} {:#?}", self.lines.so_far());
    }
}

#[test]
fn addresses_come_and_go() {
    let mut lab = Lab::new();
    let host = lab.host();
    host.connected("eth0");
    host.ip("addr add 198.51.100.7/24 dev eth0");
    // Started before etcd is there, it waits.
    let agent = host.register("Node1", &[]);
    agent.line("192.0.2.1");
    lab.start_etcd("data");
    let four = "local/skydns/node1/4-198-51-100-7";
    let four_back = "arpa/in-addr/198/51/100/7";
    lab.until_keys(&[four, four_back]);
    let records = lab.records();
    assert_eq!(records[four]["host"], "198.51.100.7");
    assert_eq!(records[four]["ttl"], 5);
    assert_eq!(records[four]["targetstrip"], 1);
    assert_eq!(records[four]["x-owner"], "machine1");
    assert_eq!(records[four]["x-if"], "eth0");
    assert_eq!(records[four_back]["host"], "node1.skydns.local.");

    // An IPv6 address once it is known to be nobody else's; temporary and deprecated ones are left out.
    let set = ["-c", "echo 2 >/proc/sys/net/ipv6/conf/eth0/use_tempaddr"];
    let set = host.namespace.command("sh").args(set).status();
    assert!(set.is_ok_and(|status| status.success()));
    host.ip("addr add 2001:db8:1::7/64 dev eth0 mngtmpaddr");
    host.ip("addr add 2001:db8:2::7/64 dev eth0 preferred_lft 0");
    let six = "local/skydns/node1/6-20010db8000100000000000000000007";
    let six_back = "arpa/ip6/2/0/0/1/0/d/b/8/0/0/0/1/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/7";
    lab.until_keys(&[four, four_back, six, six_back]);

    // One on an interface without a carrier stays tentative; that of another interface, added later, is registered.
    host.interface("eth1");
    host.ip("addr add 2001:db8:3::7/64 dev eth1");
    host.ip("addr add 198.51.100.8/24 dev eth0");
    let (second, second_back) = (
        "local/skydns/node1/4-198-51-100-8",
        "arpa/in-addr/198/51/100/8",
    );
    lab.until_keys(&[four, four_back, six, six_back, second, second_back]);
    host.ip("addr del 198.51.100.8/24 dev eth0");
    host.in_lab(&format!("link set {} up", host.other_end("eth1")));
    let third = "local/skydns/node1/6-20010db8000300000000000000000007";
    let third_back = "arpa/ip6/2/0/0/1/0/d/b/8/0/0/0/3/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/7";
    lab.until_keys(&[four, four_back, six, six_back, third, third_back]);

    // Two machines with one IPv6 address: whoever comes second does not register it.
    let twin = lab.host();
    twin.connected("eth0");
    twin.ip("addr add 2001:db8:1::7/64 dev eth0");
    twin.ip("addr add 2001:db8:1::8/64 dev eth0");
    let other = twin.register("node2", &["--reverse=false"]);
    let eight = "local/skydns/node2/6-20010db8000100000000000000000008";
    lab.until_keys(&[four, four_back, six, six_back, third, third_back, eight]);
    other.stop();

    // A renamed interface has the same address.
    host.ip("link set eth1 down");
    lab.until_keys(&[four, four_back, six, six_back]);
    host.ip("link set eth0 down");
    host.ip("link set eth0 name lan0");
    host.ip("link set lan0 up");
    until("the record says the interface's new name", || {
        let records = lab.records();
        (records.get(four)?["x-if"] == "lan0").then_some(())
    });

    // What somebody else deletes is written again, and a clean stop removes everything at once.
    lab.ctl(&["del", &format!("/skydns/{four}")]);
    until("the record is there again", || {
        lab.records().contains_key(four).then_some(())
    });
    agent.stop();
    assert_eq!(lab.records(), BTreeMap::new());
}

#[test]
fn three_ways_with_a_name_that_another_machine_has() {
    let lab = Lab::with_etcd();
    let (one, other) = (lab.host(), lab.host());
    for host in [&one, &other] {
        host.connected("eth0");
        host.ip(&format!("addr add 198.51.100.{}/24 dev eth0", host.number));
    }
    let keys = [
        "local/skydns/web/4-198-51-100-1",
        "local/skydns/web/4-198-51-100-2",
    ];
    let first = one.register("web", &["--reverse=false"]);
    lab.until_keys(&keys[..1]);

    let joined = other.register("web", &["--reverse=false", "--on-conflict=join"]);
    lab.until_keys(&keys);
    joined.stop();
    lab.until_keys(&keys[..1]);

    let refused = other.output("web", &["--reverse=false", "--on-conflict=fail"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains(keys[0]) && said.contains("machine1"),
        "{said}"
    );
    lab.until_keys(&keys[..1]);

    // The one that is taken over waits, and is back when the other is gone.
    let taker = other.register("web", &["--reverse=false", "--on-conflict=takeover"]);
    first.line("has taken web.skydns.local");
    lab.until_keys(&keys[1..]);
    taker.stop();
    lab.until_keys(&keys[..1]);
    first.stop();
    assert_eq!(lab.records(), BTreeMap::new());
}

#[test]
fn an_address_moves_to_another_machine() {
    let lab = Lab::with_etcd();
    let (one, other) = (lab.host(), lab.host());
    one.connected("eth0");
    other.connected("eth0");
    one.ip("addr add 198.51.100.7/24 dev eth0");
    let mut first = one.register("one", &[]);
    let (at_one, at_other) = (
        "local/skydns/one/4-198-51-100-7",
        "local/skydns/other/4-198-51-100-7",
    );
    let back = "arpa/in-addr/198/51/100/7";
    lab.until_keys(&[at_one, back]);

    // Its former machine is alive and has not noticed: the reverse record stays, until it does.
    other.ip("addr add 198.51.100.7/24 dev eth0");
    let second = other.register("other", &[]);
    second.line("belongs to another (machine1)");
    lab.until_keys(&[at_one, at_other, back]);
    assert_eq!(lab.records()[back]["host"], "one.skydns.local.");
    one.ip("addr del 198.51.100.7/24 dev eth0");
    until("the reverse record is the other's", || {
        (lab.records().get(back)?["host"] == "other.skydns.local.").then_some(())
    });
    lab.until_keys(&[at_other, back]);

    // Its former machine dies without a word: its records go with the lease, and the reverse record is free.
    second.stop();
    one.ip("addr add 198.51.100.7/24 dev eth0");
    lab.until_keys(&[at_one, back]);
    first.process.end();
    let third = other.register("other", &[]);
    lab.until_keys(&[at_other, back]);
    assert_eq!(lab.records()[back]["host"], "other.skydns.local.");

    // `replace` does not wait.
    one.ip("addr flush dev eth0");
    one.ip("addr add 198.51.100.7/24 dev eth0");
    let fourth = one.register("one", &["--ptr-conflict=replace"]);
    lab.until_keys(&[at_one, at_other, back]);
    until("the reverse record is replaced", || {
        (lab.records().get(back)?["host"] == "one.skydns.local.").then_some(())
    });
    third.line("belongs to another (machine1)");
    fourth.stop();
    lab.until_keys(&[at_other, back]);
    third.stop();
    assert_eq!(lab.records(), BTreeMap::new());
}

#[test]
fn etcd_goes_and_comes_back() {
    let mut lab = Lab::with_etcd();
    let host = lab.host();
    host.connected("eth0");
    host.ip("addr add 198.51.100.7/24 dev eth0");
    let agent = host.register("node1", &[]);
    let keys = [
        "local/skydns/node1/4-198-51-100-7",
        "arpa/in-addr/198/51/100/7",
    ];
    lab.until_keys(&keys);

    // Unreachable for longer than the lease: the records go, and are there again when it is.
    host.ip("link set mgmt down");
    lab.until_keys(&[]);
    host.ip("link set mgmt up");
    lab.until_keys(&keys);
    agent.line("etcd is there again");

    // Killed and restarted: nothing is lost.
    lab.etcd.as_mut().expect("it runs").end();
    host.ip("addr add 198.51.100.8/24 dev eth0");
    agent.line("192.0.2.1");
    lab.start_etcd("data");
    let more = [
        keys[0],
        keys[1],
        "local/skydns/node1/4-198-51-100-8",
        "arpa/in-addr/198/51/100/8",
    ];
    lab.until_keys(&more);

    // Replaced by an empty one.
    lab.start_etcd("empty");
    lab.until_keys(&more);
    agent.stop();
    assert_eq!(lab.records(), BTreeMap::new());
}

#[test]
fn forty_interfaces() {
    let lab = Lab::with_etcd();
    let host = lab.host();
    let mut keys = Vec::new();
    for n in 0..40 {
        host.connected(&format!("eth{n}"));
        host.ip(&format!("addr add 198.51.100.{n}/32 dev eth{n}"));
        host.ip(&format!("addr add 2001:db8::{n:x}/128 dev eth{n} nodad"));
        keys.push(format!("local/skydns/big/4-198-51-100-{n}"));
        keys.push(format!(
            "local/skydns/big/6-20010db80000000000000000000000{n:02x}"
        ));
        keys.push(format!("arpa/in-addr/198/51/100/{n}"));
        let (high, low) = (n / 16, n % 16);
        let zeros = "0/".repeat(22);
        keys.push(format!("arpa/ip6/2/0/0/1/0/d/b/8/{zeros}{high:x}/{low:x}"));
    }
    let agent = host.register("big", &[]);
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    lab.until_keys(&all);
    for n in 1..40 {
        host.ip(&format!("link del eth{n}"));
    }
    lab.until_keys(&all[..4]);
    agent.stop();
    assert_eq!(lab.records(), BTreeMap::new());
}

#[test]
fn a_machine_gets_another_name() {
    let lab = Lab::with_etcd();
    let host = lab.host();
    host.connected("eth0");
    host.ip("addr add 198.51.100.7/24 dev eth0");
    // A system's name is a namespace too.
    let rename = "echo first >/proc/sys/kernel/hostname && exec \"$0\" \"$@\"";
    let mut command = host.namespace.command("unshare");
    command
        .args(["--uts", "sh", "-c", rename, env!("CARGO_BIN_EXE_skeindns")])
        .args(["register", "--etcd", "http://192.0.2.1:2379"])
        .args(["--exclude-interface", "mgmt", "--rescan", "1s", LEASE])
        .args([
            "--domain",
            "example.org,skydns.local",
            "--instance-id",
            "us",
        ])
        .stdin(Stdio::null());
    let agent = Agent::of(&mut command);
    let keys = |name: &str| {
        let label = "4-198-51-100-7";
        let (one, other) = (
            format!("org/example/{name}/{label}"),
            format!("local/skydns/{name}/{label}"),
        );
        lab.until_keys(&["arpa/in-addr/198/51/100/7", &one, &other]);
        let host = lab.records()["arpa/in-addr/198/51/100/7"]["host"].clone();
        assert_eq!(host, format!("{name}.example.org."));
    };
    keys("first");
    let renamed = Command::new("nsenter")
        .args(["--target", &agent.process.id().to_string(), "--uts"])
        .args([
            "sh",
            "-c",
            "echo Second.example.org >/proc/sys/kernel/hostname",
        ])
        .status();
    assert!(renamed.is_ok_and(|status| status.success()));
    keys("second");
    agent.stop();
    assert_eq!(lab.records(), BTreeMap::new());
}

//--- Without namespaces ----------------------------------------------------------------------------

/// A server with a store of its own, which the agent writes into.
fn server(folder: &Path) -> (Skeindns, String) {
    let data = folder.join("data");
    let data = data.display();
    let dnsfile = format!(
        "skydns.local:0 198.51.100.0/24:0 {{\n bind 127.0.0.1\n errors\n etcd {{\n  embedded {data}\n  listen 127.0.0.1:0\n }}\n}}\n"
    );
    let server = Skeindns::start(folder, &dnsfile);
    let line = server.lines.line(|line| line.contains("API is at http://"));
    let (_, address) = line.split_once("http://").expect("it is in the line");
    (server, format!("http://{address}"))
}

fn register(url: &str, arguments: &[&str]) -> Command {
    let mut command = binary();
    command
        .args(["register", "--etcd", url, "--rescan", "1s"])
        .args(arguments)
        .env("SKEIN_REGISTER_NAME", "node1")
        .env("SKEIN_REGISTER_INSTANCE_ID", "machine1")
        .env("SKEIN_REGISTER_LEASE_TTL", "10s")
        .stdin(Stdio::null());
    command
}

/// The agent at work.
fn start(url: &str, arguments: &[&str]) -> Agent {
    start_with(url, arguments, &[])
}

/// The agent at work, with further settings in its environment.
fn start_with(url: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Agent {
    let mut command = register(url, arguments);
    for (name, value) in settings {
        command.env(format!("SKEIN_REGISTER_{name}"), value);
    }
    Agent::of(&mut command)
}

/// The records of the server, by key without the first part.
fn records(url: &str) -> BTreeMap<String, serde_json::Value> {
    let output = binary()
        .args(["service", "export", "-", "--endpoint", url])
        .output()
        .expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let key = line["key"]
            .as_str()
            .expect("text")
            .trim_start_matches("/skydns/")
            .to_owned();
        let value = line["value"].as_str().expect("text");
        (key, serde_json::from_str(value).expect("JSON"))
    });
    lines.collect()
}

/// What a server answers, as text.
fn answers(port: u16, name: &str, rtype: hickory_proto::rr::RecordType) -> Vec<String> {
    let message = support::ask(port, &query(name, rtype));
    let records = message.answers.iter();
    let mut texts: Vec<String> = records.map(|record| record.data.to_string()).collect();
    texts.sort();
    texts
}

#[test]
fn names_are_answered_as_long_as_the_agent_lives() {
    use hickory_proto::rr::RecordType;
    let folder = tempfile::tempdir().expect("a folder");
    let (server, url) = server(folder.path());
    let config = folder.path().join("register.toml");
    let first = "address = [\"198.51.100.7\", \"2001:db8::7\"]\nservice = \"web:80:1:50\"\nalias = [\"www\"]\ntext = \"here\"\n";
    fs::write(&config, first).expect("our folder");
    let status = folder.path().join("status.json");
    let socket = folder.path().join("notify");
    let notified = UnixDatagram::bind(&socket).expect("our folder");
    notified.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let agent = Agent::of(
        register(&url, &["--config"])
            .arg(&config)
            .arg("--status-file")
            .arg(&status)
            .args(["--metrics", "127.0.0.1:0", "--nameserver"])
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "600000"),
    );
    let heard = |part: &str| {
        until(&format!("systemd hears {part}"), || {
            let mut buffer = [0; 4096];
            let length = notified.recv(&mut buffer).expect("word in time");
            String::from_utf8_lossy(&buffer[..length])
                .contains(part)
                .then_some(())
        });
    };
    heard("STATUS=node1.skydns.local: 198.51.100.7, 2001:db8::7");
    heard("READY=1");
    heard("WATCHDOG=1");

    let is = |name: &str, rtype, expected: &[&str]| {
        until(&format!("{name} is {expected:?}"), || {
            (answers(server.port, name, rtype) == expected).then_some(())
        });
    };
    is("node1.skydns.local.", RecordType::A, &["198.51.100.7"]);
    is("node1.skydns.local.", RecordType::AAAA, &["2001:db8::7"]);
    is(
        "web.skydns.local.",
        RecordType::SRV,
        &["1 100 80 node1.skydns.local."],
    );
    is(
        "7.100.51.198.in-addr.arpa.",
        RecordType::PTR,
        &["node1.skydns.local."],
    );
    is(
        "skydns.local.",
        RecordType::NS,
        &["node1.ns.dns.skydns.local."],
    );
    until("www leads to the address", || {
        answers(server.port, "www.skydns.local.", RecordType::A)
            .contains(&"198.51.100.7".to_owned())
            .then_some(())
    });
    let state: serde_json::Value = until("the status file says it", || {
        let state: serde_json::Value = serde_json::from_slice(&fs::read(&status).ok()?).ok()?;
        (state["state"] == "registered").then_some(state)
    });
    assert_eq!(state["names"][0], "node1.skydns.local");
    assert_eq!(
        state["records"].as_array().map(Vec::len),
        Some(7),
        "{state:#}"
    );
    let line = agent.line("metrics are at http://127.0.0.1:");
    let port = line
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next());
    let port = port.and_then(|port| port.parse().ok()).expect("a port");
    let page = support::http(port, "/metrics");
    assert!(page.contains("skeindns_register_registered 1"), "{page}");
    assert!(
        page.contains("skeindns_register_changes_total{change=\"put\"} 7"),
        "{page}"
    );

    // A file that is wrong changes nothing; one that is right is taken over, the old records gone.
    fs::write(&config, "adress = []\nttl = \"1h\"\n").expect("our folder");
    agent.process.signal("-HUP");
    let said = agent.line("reload failed");
    assert!(
        said.contains(
            "register.toml:1: `adress`: there is no such setting; did you mean `address`?"
        ),
        "{said}"
    );
    let said = agent.line("reload failed");
    assert!(
        said.contains("register.toml:2: ttl = \"1h\": it is from 1s to 10s"),
        "{said}"
    );
    fs::write(&config, "address = [\"198.51.100.8\"]\nttl = \"4s\"\n").expect("our folder");
    agent.process.signal("-HUP");
    is("node1.skydns.local.", RecordType::A, &["198.51.100.8"]);
    is("node1.skydns.local.", RecordType::AAAA, &[]);
    is("web.skydns.local.", RecordType::SRV, &[]);
    is("7.100.51.198.in-addr.arpa.", RecordType::PTR, &[]);
    is(
        "8.100.51.198.in-addr.arpa.",
        RecordType::PTR,
        &["node1.skydns.local."],
    );
    agent.stop();
    assert_eq!(records(&url), BTreeMap::new());
}

#[test]
fn once_writes_and_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), 1);
    let url = cluster.endpoints().join(",");
    let arguments = ["--once", "--lease-ttl=0", "--address=198.51.100.7"];
    let mut command = register(&url, &arguments);
    let output = command.output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let written = records(&url);
    assert_eq!(written.len(), 2, "{written:?}");
    assert_eq!(written["local/skydns/node1/4-198-51-100-7"]["ttl"], 30);
    let leases = cluster.ctl(&["lease", "list"]);
    assert!(leases.contains("found 0 leases"), "{leases}");

    // An agent with the same mark takes them over; what it leaves for ever stays, under no lease.
    let agent = start(&url, &["--address=198.51.100.8", "--on-exit=keep-forever"]);
    agent.line("registered node1.skydns.local with 198.51.100.8");
    agent.stop();
    let written = records(&url);
    let keys: Vec<&str> = written.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "arpa/in-addr/198/51/100/8",
            "local/skydns/node1/4-198-51-100-8"
        ]
    );
    until("its lease is not needed", || {
        let got = cluster.ctl(&[
            "get",
            "/skydns/local/skydns/node1/4-198-51-100-8",
            "-w",
            "json",
        ]);
        (!got.contains("\"lease\"")).then_some(())
    });

    let single = [
        "--once",
        "--layout=single",
        "--address=198.51.100.8",
        "--address=198.51.100.9",
    ];
    let output = register(&url, &single).output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let written = records(&url);
    let keys: Vec<&str> = written.keys().map(String::as_str).collect();
    assert_eq!(keys, ["arpa/in-addr/198/51/100/8", "local/skydns/node1"]);
}

#[test]
fn print_writes_nothing_and_waiting_ends() {
    let nowhere = "http://127.0.0.1:1";
    let printed = register(
        nowhere,
        &[
            "--print",
            "--address=198.51.100.7",
            "--domain=a.example,b.example",
        ],
    );
    let output = { printed }.output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let keys: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let expected = [
        "/skydns/arpa/in-addr/198/51/100/7",
        "/skydns/example/a/node1/4-198-51-100-7",
        "/skydns/example/b/node1/4-198-51-100-7",
    ];
    assert_eq!(keys, expected, "{text}");
    let output = register(nowhere, &["--address=198.51.100.7", "--wait=1s"])
        .output()
        .expect("it ends");
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("http://127.0.0.1:1: connection refused"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("register.toml");
    fs::write(
        &config,
        "hostname = \"node_1\"\nkeepalive = \"9s\"\nonce = true\n",
    )
    .expect("our folder");
    let output = binary()
        .args([
            "register",
            "--lease-ttl",
            "5s",
            "--service",
            "web",
            "--config",
        ])
        .arg(&config)
        .env("SKEIN_REGISTER_FAMILY", "ipv4")
        .env("SKEIN_REGISTER_DOMIAN", "x")
        .output()
        .expect("it ends");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for expected in [
        "register.toml:1: hostname = \"node_1\": `node_1` has other signs than letters, digits and hyphens",
        "register.toml:3: `once`: there is no such setting",
        "--lease-ttl 5s: it is from 10s to 24h",
        "--service web: it has no port; write name:port, like web:80",
        "SKEIN_REGISTER_FAMILY=ipv4: write one of both, 4, 6",
        "SKEIN_REGISTER_DOMIAN: there is no such setting; did you mean `SKEIN_REGISTER_DOMAIN`?",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    // 9s fits twice into the default lease.
    assert!(!said.contains("keepalive"), "{said}");
}

/// A figure of the agent's metrics.
fn figure(port: u16, name: &str) -> f64 {
    let page = support::http(port, "/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|value| value.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in {page}"))
}

#[test]
fn a_frozen_member_costs_no_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(folder.path(), 3);
    let url = cluster.endpoints().join(",");
    // Long, since a busy machine renews late.
    let times = [("LEASE_TTL", "300s"), ("KEEPALIVE", "2s")];
    let arguments = ["--address=198.51.100.7", "--metrics=127.0.0.1:0"];
    let agent = start_with(&url, &arguments, &times);
    let line = agent.line("metrics are at http://127.0.0.1:");
    let port = line
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next());
    let port = port.and_then(|port| port.parse().ok()).expect("a port");
    agent.line("registered");
    let created = |cluster: &Cluster| {
        let got = cluster.ctl(&[
            "get",
            "/skydns/local/skydns/node1/4-198-51-100-7",
            "-w",
            "json",
        ]);
        let got: serde_json::Value = serde_json::from_str(&got).expect("JSON");
        got["kvs"][0]["create_revision"].as_i64()
    };
    let first = created(&cluster);
    for member in 0..3 {
        cluster.members[member].signal("-STOP");
        let renewed = || figure(port, "skeindns_register_lease_renewed_timestamp_seconds");
        for _ in 0..2 {
            let before = renewed();
            until("the lease is renewed", || {
                (renewed() > before).then_some(())
            });
        }
        // Killed, not woken: a leader of etcd 3.4.23 that wakes up revokes leases that are long another's to look after (etcd 15247).
        cluster.members[member].end();
        cluster.members[member] = cluster.member(member);
        cluster.wait();
    }
    assert_eq!(created(&cluster), first, "it was never away");
    assert_eq!(figure(port, "skeindns_register_leases_total "), 1.0);
    assert_eq!(figure(port, "skeindns_register_leases_lost_total "), 0.0);
    agent.stop();
    assert_eq!(records(&url), BTreeMap::new());
}

//--- The manual ------------------------------------------------------------------------------------

/// The lines of the manual's shell blocks.
fn manual() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/skydns/register.md");
    let text = fs::read_to_string(path).expect("the manual is there");
    let mut lines = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => lines.push(line.to_owned()),
            _ => {}
        }
    }
    lines
}

#[test]
fn the_role_of_the_manual_is_enough() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(folder.path(), 1);
    let url = cluster.endpoints().join(",");
    let lines = manual();
    let grants: Vec<&String> = lines
        .iter()
        .filter(|line| line.starts_with("etcdctl role "))
        .collect();
    assert_eq!(grants.len(), 3, "{grants:?}");
    for line in grants {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        cluster.ctl(&words);
    }
    cluster.ctl(&["user", "add", "root:secret"]);
    cluster.ctl(&["user", "grant-role", "root", "root"]);
    cluster.ctl(&["user", "add", "register-node1:sesame"]);
    cluster.ctl(&["user", "grant-role", "register-node1", "register-node1"]);
    cluster.ctl(&["auth", "enable"]);
    cluster.ctl.extend(["--user".into(), "root:secret".into()]);
    let password = folder.path().join("password");
    fs::write(&password, "sesame\n").expect("our folder");
    let arguments = |address: &'static str| ["--username=register-node1", address];
    let agent = start_with(
        &url,
        &arguments("--address=192.0.2.11"),
        &[("PASSWORD_FILE", password.to_str().expect("text"))],
    );
    agent.line("registered node1.skydns.local");
    let keys = cluster.ctl(&["get", "--prefix", "/skydns/", "--keys-only"]);
    let keys: Vec<&str> = keys.split_whitespace().collect();
    assert_eq!(
        keys,
        [
            "/skydns/arpa/in-addr/192/0/2/11",
            "/skydns/local/skydns/node1/4-192-0-2-11"
        ]
    );
    agent.stop();
    assert_eq!(cluster.ctl(&["get", "--prefix", "/skydns/"]), "");

    // Another address is not in the role, and a wrong password is said at once where nobody waits.
    for (address, right, part) in [
        ("--address=198.51.100.7", "sesame", "permission denied"),
        (
            "--address=192.0.2.11",
            "abracadabra",
            "authentication failed",
        ),
    ] {
        fs::write(&password, right).expect("our folder");
        let output = register(&url, &arguments(address))
            .args(["--once", "--password-file"])
            .arg(&password)
            .output()
            .expect("it ends");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(part) && !said.contains(right), "{said}");
    }
}

#[test]
fn the_manuals_way_without_the_agent_writes_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), 1);
    let url = cluster.endpoints().join(",");
    let lines = manual();
    let from = lines
        .iter()
        .position(|line| line.starts_with("ETCD="))
        .expect("the recipe");
    let to = lines
        .iter()
        .position(|line| line.starts_with("while "))
        .expect("its end");
    let recipe = lines[from..to]
        .join("\n")
        .replace("http://192.0.2.201:2379", &url);
    let output = Command::new("sh")
        .args(["-ec", &recipe])
        .output()
        .expect("sh is there");
    assert!(output.status.success(), "{output:?}");
    let by_hand = records(&url);
    let printed = register(&url, &["--print", "--address=192.0.2.11"])
        .output()
        .expect("it ends");
    let printed = String::from_utf8(printed.stdout).expect("text");
    assert_eq!(printed.lines().count(), by_hand.len(), "{printed}");
    for line in printed.lines() {
        let (key, value) = line.split_once(' ').expect("a key and its value");
        let mut value: serde_json::Value = serde_json::from_str(value).expect("JSON");
        // The mark is the agent's; its lease was made ten seconds long.
        value.as_object_mut().expect("an object").remove("x-owner");
        value["ttl"] = 30.into();
        assert_eq!(
            by_hand.get(key.trim_start_matches("/skydns/")),
            Some(&value),
            "{key}"
        );
    }
    assert!(cluster.ctl(&["lease", "list"]).contains("found 1 leases"));
}

#[test]
fn of_two_that_want_a_name_alone_one_gets_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), 1);
    let url = cluster.endpoints().join(",");
    for round in 1..=3 {
        let name = format!("--name=alone{round}");
        let mut both: Vec<Agent> = (1..=2)
            .map(|machine| {
                let address = format!("--address=198.51.100.{machine}");
                let mark = format!("--instance-id=machine{machine}");
                start(
                    &url,
                    &[
                        "--on-conflict=fail",
                        "--reverse=false",
                        &name,
                        &address,
                        &mark,
                    ],
                )
            })
            .collect();
        let loser = until("one of them gives up", || {
            (0..2).find_map(|at| Some((at, both[at].process.0.try_wait().ok()??)))
        });
        assert_eq!(loser.1.code(), Some(4));
        let winner = both.remove(1 - loser.0);
        winner.line("registered");
        let written = records(&url);
        assert_eq!(written.len(), 1, "{written:?}");
        winner.stop();
    }
}

#[test]
fn another_life_of_records_is_taken_over_without_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), 1);
    let url = cluster.endpoints().join(",");
    let config = folder.path().join("register.toml");
    fs::write(&config, "address = \"198.51.100.7\"\n").expect("our folder");
    let agent = start_with(
        &url,
        &[],
        &[
            ("CONFIG", config.to_str().expect("text")),
            ("LEASE_TTL", ""),
        ],
    );
    agent.line("registered");
    let lease = || {
        let list = cluster.ctl(&["lease", "list"]);
        let lines: Vec<&str> = list.lines().skip(1).collect();
        (lines.len() == 1).then(|| cluster.ctl(&["lease", "timetolive", lines[0].trim(), "--keys"]))
    };
    let first = lease().expect("one lease");
    assert!(first.contains("granted with TTL(60s)"), "{first}");
    let revision = || {
        let got = cluster.ctl(&[
            "get",
            "/skydns/local/skydns/node1/4-198-51-100-7",
            "-w",
            "json",
        ]);
        let got: serde_json::Value = serde_json::from_str(&got).expect("JSON");
        let kv = &got["kvs"][0];
        (kv["create_revision"].as_i64(), kv["version"].as_i64())
    };
    let (created, _) = revision();
    fs::write(&config, "address = \"198.51.100.7\"\nlease-ttl = \"5m\"\n").expect("our folder");
    agent.process.signal("-HUP");
    until("there is the new lease alone, with both records", || {
        let lease = lease()?;
        let both = lease.contains("in-addr") && lease.contains("4-198-51-100-7");
        (both && lease.contains("granted with TTL(300s)")).then_some(())
    });
    assert_eq!(revision().0, created, "it was never deleted");
    agent.stop();
    assert_eq!(records(&url), BTreeMap::new());
}

//--- The v2 API ------------------------------------------------------------------------------------

/// The keys with a value below /skydns, without that: value, TTL and the index that wrote it last.
fn v2_records(port: u16) -> BTreeMap<String, (String, i64, i64)> {
    let page = support::http(port, "/v2/keys/skydns?recursive=true");
    let (_, body) = page.split_once("\r\n\r\n").expect("a head");
    let tree: serde_json::Value = serde_json::from_str(body.trim()).expect("JSON");
    let mut found = BTreeMap::new();
    let mut nodes = vec![tree["node"].clone()];
    while let Some(node) = nodes.pop() {
        nodes.extend(node["nodes"].as_array().into_iter().flatten().cloned());
        if let Some(value) = node["value"].as_str() {
            let key = node["key"]
                .as_str()
                .expect("text")
                .trim_start_matches("/skydns/");
            let (ttl, index) = (node["ttl"].as_i64(), node["modifiedIndex"].as_i64());
            let entry = (value.to_owned(), ttl.unwrap_or(0), index.unwrap_or(0));
            found.insert(key.to_owned(), entry);
        }
    }
    found
}

#[test]
fn the_v2_api_is_kept_alive_key_by_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start_with(folder.path(), 1, "http", &["--enable-v2".into()], &[]);
    let (url, port) = (cluster.endpoints().join(","), cluster.ports[0].0);
    let keys = |expected: &[&str]| {
        until(&format!("the keys are {expected:?}"), || {
            let found = v2_records(port);
            found.keys().eq(expected).then_some(found)
        })
    };
    let (forward, back) = (
        "local/skydns/node1/4-198-51-100-7",
        "arpa/in-addr/198/51/100/7",
    );
    let agent = start(&url, &["--etcd-api=v2", "--address=198.51.100.7"]);
    let first = keys(&[back, forward]);
    let (value, ttl, index) = &first[forward];
    assert!(value.contains("\"host\":\"198.51.100.7\""), "{value}");
    assert!((1..=10).contains(ttl), "{ttl}");
    let refreshed = until("it is refreshed", || {
        let (value, _, at) = v2_records(port).get(forward)?.clone();
        (at > *index).then_some(value)
    });
    assert_eq!(refreshed, *value);

    // What somebody else deletes is written again.
    let v2 = |arguments: &[&str]| {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "2")
            .args(["--endpoints", &url])
            .args(arguments)
            .output()
            .expect("etcdctl is installed");
        assert!(output.status.success(), "{output:?}");
    };
    v2(&["rm", &format!("/skydns/{forward}")]);
    keys(&[back, forward]);

    // A record that somebody wrote by hand is in the way, where a value has nothing below it.
    v2(&[
        "set",
        "/skydns/local/skydns/node3",
        r#"{"host":"203.0.113.1"}"#,
    ]);
    let third = [
        "--address=198.51.100.9",
        "--name=node3",
        "--reverse=false",
        "--on-exit=keep-forever",
    ];
    let refused = register(&url, &third).output().expect("it ends");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("/skydns/local/skydns/node3 belongs to another"),
        "{said}"
    );
    let taker = start_with(&url, &third, &[("ON_CONFLICT", "takeover")]);
    let forward3 = "local/skydns/node3/4-198-51-100-9";
    keys(&[back, forward, forward3]);
    taker.stop();
    assert_eq!(v2_records(port)[forward3].1, 0, "it has no TTL any more");
    v2(&["rm", &format!("/skydns/{forward3}")]);

    // Only v2 has keys, so that is where another one goes that was told nothing.
    let mut other = start(
        &url,
        &[
            "--address=198.51.100.8",
            "--instance-id=machine2",
            "--name=node2",
        ],
    );
    let (forward2, back2) = (
        "local/skydns/node2/4-198-51-100-8",
        "arpa/in-addr/198/51/100/8",
    );
    keys(&[back, back2, forward, forward2]);
    agent.stop();
    keys(&[back2, forward2]);

    // Dead without a word, its keys end one by one.
    other.process.end();
    keys(&[]);
}
