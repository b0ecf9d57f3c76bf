//! The servers: how each is configured for a workload and started on one core.

use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::{self, Queries as _};
use crate::store;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Workload {
    /// Answers from memory in front of an upstream.
    Cache,
    /// The same behind errors, metrics and loadbalance.
    Full,
    /// And a line of log for every query.
    FullLog,
    /// Every query goes to the upstream.
    Forward,
    /// Keys of etcd.
    Etcd,
    /// The same behind a cache.
    EtcdCache,
    /// Lines of a hosts file.
    Hosts,
    /// Records of a zone.
    Auth,
}

impl Workload {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Cache => "cache",
            Workload::Full => "full",
            Workload::FullLog => "fulllog",
            Workload::Forward => "forward",
            Workload::Etcd => "etcd",
            Workload::EtcdCache => "etcdcache",
            Workload::Hosts => "hosts",
            Workload::Auth => "auth",
        }
    }

    /// The servers that can do it, ours first.
    pub(crate) fn servers(self) -> &'static [&'static str] {
        match self {
            Workload::Cache => &["skeindns", "coredns", "dnsdist", "unbound"],
            Workload::Forward => &["skeindns", "coredns", "dnsdist"],
            Workload::Auth => &["skeindns", "coredns", "nsd", "knotd"],
            Workload::Full
            | Workload::FullLog
            | Workload::Etcd
            | Workload::EtcdCache
            | Workload::Hosts => &["skeindns", "coredns"],
        }
    }

    /// Whether there must be an etcd.
    pub(crate) fn wants_etcd(self) -> bool {
        matches!(self, Workload::Etcd | Workload::EtcdCache)
    }
}

/// A port of this machine that nobody holds, UDP and TCP.
pub(crate) fn free_port() -> io::Result<u16> {
    loop {
        let port = UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?.port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}

/// A folder with everything a run needs, and the processes in it; both go when it is dropped.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
    names: usize,
}

/// How a server is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    /// Cores, as taskset takes them.
    pub(crate) cores: &'p str,
    /// Workers of ours.
    pub(crate) workers: usize,
}

impl Place<'_> {
    /// One core of its own.
    pub(crate) const ALONE: Place<'static> = Place {
        cores: "0",
        workers: 1,
    };
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Its port.
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    /// Whether the only name asked has an address that ends in this octet.
    pub(crate) fn answers_with(&self, queries: &load::Ready, octet: u8) -> io::Result<bool> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(("127.0.0.1", self.port))?;
        let mut packet = [0; 512];
        let length = queries.write(0, &mut packet);
        socket.send(&packet[..length])?;
        let length = socket.recv(&mut packet)?;
        Ok(packet[..length].last() == Some(&octet))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// The address of the name with this number.
fn address(i: usize) -> String {
    format!("10.{}.{}.{}", i >> 16 & 255, i >> 8 & 255, i & 255)
}

impl Lab {
    /// A lab whose zone has this many names.
    pub(crate) fn new(names: usize) -> io::Result<Lab> {
        let dir = tempfile::tempdir()?;
        let mut zone = String::from(
            "$ORIGIN example.org.\n$TTL 3600\n@ SOA ns admin 1 7200 900 1209600 300\n@ NS ns\nns A 127.0.0.1\nflood TXT flood\n",
        );
        let mut hosts = String::new();
        for i in 0..names {
            zone.push_str(&format!("h{i} A {}\n", address(i)));
            hosts.push_str(&format!("{} h{i}.example.org\n", address(i)));
        }
        fs::write(dir.path().join("zone"), zone)?;
        fs::write(dir.path().join("hosts"), hosts)?;
        Ok(Lab { dir, names })
    }

    /// Names in it.
    pub(crate) fn names(&self) -> usize {
        self.names
    }

    /// The upstream that forwarding servers ask, on core 1 beside the generator.
    pub(crate) fn upstream(&self) -> io::Result<Server> {
        let port = free_port()?;
        let conf = self.write("upstream.conf", &self.nsd(port))?;
        self.start(&["nsd", "-d", "-c", &conf], "1", port)
    }

    /// An etcd with the names as keys.
    pub(crate) fn etcd(&self) -> io::Result<Server> {
        let (port, peer) = (free_port()?, free_port()?);
        let data = self.dir.path().join("etcd").display().to_string();
        let (client_url, peer_url) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let cluster = format!("default={peer_url}");
        let args = [
            "etcd",
            "--data-dir",
            &data,
            "--listen-client-urls",
            &client_url,
            "--advertise-client-urls",
            &client_url,
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
            "--initial-cluster",
            &cluster,
        ];
        let server = self.start(&args, "1", port)?;
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let health = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &client_url, "endpoint", "health"])
                .output()?;
            if health.status.success() {
                break;
            }
            if Instant::now() > until {
                return Err(io::Error::other("etcd does not get ready"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        store::fill(&client_url, self.names)?;
        Ok(server)
    }

    /// A server under test.
    pub(crate) fn server(
        &self,
        program: &Path,
        name: &str,
        workload: Workload,
        upstream: u16,
        place: Place<'_>,
    ) -> io::Result<Server> {
        let port = free_port()?;
        let program = program.display().to_string();
        let dir = self.dir.path().display();
        let cores = place.cores;
        match name {
            "skeindns" => {
                let conf = self.write("Dnsfile", &self.chain(workload, port, upstream)?)?;
                let workers = format!("SKEINDNS_WORKERS={}", place.workers);
                let command = ["env", &workers, &program, "--conf", &conf];
                self.start(&command, cores, port)
            }
            "coredns" => {
                let conf = self.write("Corefile", &self.chain(workload, port, upstream)?)?;
                self.start(&[&program, "-conf", &conf], cores, port)
            }
            "dnsdist" => {
                let cache = if workload == Workload::Cache {
                    "pc = newPacketCache(2000000)\ngetPool(\"\"):setCache(pc)\n"
                } else {
                    ""
                };
                let conf = format!(
                    "setLocal(\"127.0.0.1:{port}\")\nnewServer({{address=\"127.0.0.1:{upstream}\", healthCheckMode=\"up\"}})\nsetSecurityPollSuffix(\"\")\n{cache}"
                );
                let conf = self.write("dnsdist.conf", &conf)?;
                self.start(&[&program, "--supervised", "-C", &conf], cores, port)
            }
            "unbound" => {
                let conf = format!(
                    "server:\n  interface: 127.0.0.1@{port}\n  do-not-query-localhost: no\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  directory: \"{dir}\"\n  module-config: \"iterator\"\n  num-threads: 1\n  use-syslog: no\n  verbosity: 0\n  msg-cache-size: 200m\n  rrset-cache-size: 400m\nremote-control:\n  control-enable: no\nforward-zone:\n  name: \".\"\n  forward-addr: 127.0.0.1@{upstream}\n"
                );
                let conf = self.write("unbound.conf", &conf)?;
                self.start(&[&program, "-d", "-c", &conf], cores, port)
            }
            "nsd" => {
                let conf = self.write("nsd.conf", &self.nsd(port))?;
                self.start(&[&program, "-d", "-c", &conf], cores, port)
            }
            "knotd" => {
                fs::create_dir_all(self.dir.path().join("knot"))?;
                let conf = format!(
                    "server:\n  rundir: \"{dir}/knot\"\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\ndatabase:\n  storage: \"{dir}/knot\"\nzone:\n  - domain: example.org\n    storage: \"{dir}\"\n    file: zone\n    zonefile-sync: -1\n"
                );
                let conf = self.write("knot.conf", &conf)?;
                self.start(&[&program, "-c", &conf], cores, port)
            }
            "echo" => self.start(&[&program, "echo", &port.to_string()], cores, port),
            other => Err(io::Error::other(format!("no such server: {other}"))),
        }
    }

    fn nsd(&self, port: u16) -> String {
        let dir = self.dir.path().display();
        format!(
            "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  zonesdir: \"{dir}\"\n  database: \"\"\n  pidfile: \"{dir}/nsd.{port}.pid\"\n  zonelistfile: \"{dir}/zl.{port}\"\n  xfrdfile: \"{dir}/xf.{port}\"\n  xfrdir: \"{dir}\"\n  server-count: 1\n  reuseport: no\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\nzone:\n  name: example.org\n  zonefile: zone\n"
        )
    }

    fn write(&self, name: &str, text: &str) -> io::Result<String> {
        let path: PathBuf = self.dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    fn start(&self, command: &[&str], cores: &str, port: u16) -> io::Result<Server> {
        let log = fs::File::create(self.dir.path().join(format!("log.{port}")))?;
        let child = Command::new("taskset")
            .args(["-c", cores])
            .args(command)
            .current_dir(self.dir.path())
            .env("GOMAXPROCS", if cores.contains(',') { "2" } else { "1" })
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Server { child, port })
    }

    /// What a server wrote, its last lines.
    pub(crate) fn log(&self, server: &Server) -> String {
        let text = fs::read_to_string(self.dir.path().join(format!("log.{}", server.port)))
            .unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The chain of a workload, for us and for CoreDNS alike.
    fn chain(&self, workload: Workload, port: u16, upstream: u16) -> io::Result<String> {
        let metrics = free_port()?;
        let dir = self.dir.path().display();
        let forward = format!("forward . 127.0.0.1:{upstream}\n");
        let full =
            format!("errors\nprometheus 127.0.0.1:{metrics}\ncache 3600\nloadbalance\n{forward}");
        let etcd = format!(
            "etcd example.org {{\npath /skydns\nendpoint http://127.0.0.1:{upstream}\n}}\n"
        );
        let body = match workload {
            Workload::Cache => format!("cache 3600\n{forward}"),
            Workload::Forward => forward,
            Workload::Full => full,
            Workload::FullLog => format!("log\n{full}"),
            Workload::Etcd => etcd,
            Workload::EtcdCache => format!("cache 3600\n{etcd}"),
            Workload::Hosts => format!("hosts {dir}/hosts\n"),
            Workload::Auth => format!("file {dir}/zone example.org\n"),
        };
        Ok(format!(".:{port} {{\nbind 127.0.0.1\n{body}}}\n"))
    }
}
