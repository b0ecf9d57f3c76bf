//! A cluster of five, our server, the load, and a writer; and the table of what became of each case.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::load::{Counts, Load, Question, Written, address_of, value_of};
use crate::support::{Cluster, Skeindns, addresses, free_port, until};

/// Queries a second.
const RATE: u32 = 1000;
/// Names that do not change.
const STILL: usize = 50;
/// Names that are written over and over.
const MOVING: usize = 10;
/// Between two writes: each is a process of etcdctl's.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// A record with the address that stands for a value.
pub(crate) fn host(value: u32) -> String {
    format!("{{\"host\":\"{}\"}}", address_of(value))
}

/// The key of a name.
pub(crate) fn key(name: &str) -> String {
    format!("/skydns/org/example/{name}")
}

impl Cluster {
    pub(crate) fn put_host(&self, name: &str, value: u32) {
        self.ctl(&["put", &key(name), &host(value)]);
    }

    /// Asks one member only.
    pub(crate) fn try_ctl_at(&self, endpoint: &str, args: &[&str]) -> Option<String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", endpoint])
            .args(&self.ctl)
            .args(args)
            .output()
            .expect("etcdctl is installed: make test-packages");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    fn status(&self) -> Option<Vec<serde_json::Value>> {
        let text = self.try_ctl(&["endpoint", "status", "-w", "json"])?;
        serde_json::from_str(&text).ok()
    }

    /// Which member leads.
    pub(crate) fn leader(&self) -> usize {
        until("there is a leader", || {
            let status = self.status()?;
            let leads = |member: &serde_json::Value| {
                let status = &member["Status"];
                status["leader"] == status["header"]["member_id"]
            };
            let leader = status.iter().find(|member| leads(member))?;
            let endpoints = self.endpoints();
            endpoints.iter().position(|url| leader["Endpoint"] == **url)
        })
    }

    /// Makes another member lead than this one.
    pub(crate) fn lead_elsewhere(&self, than: usize) {
        let endpoints = self.endpoints();
        until("another member leads", || {
            if self.leader() != than {
                return Some(());
            }
            let status = self.status()?;
            let other = status
                .iter()
                .find(|member| member["Endpoint"] != *endpoints[than])?;
            let id = other["Status"]["header"]["member_id"].as_u64()?;
            self.try_ctl_at(&endpoints[than], &["move-leader", &format!("{id:x}")]);
            None
        });
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> i64 {
        until("the revision is known", || {
            let text = self.try_ctl(&["get", "x", "-w", "json"])?;
            let reply: serde_json::Value = serde_json::from_str(&text).ok()?;
            reply["header"]["revision"].as_i64()
        })
    }

    /// Starts all members again with other ports for clients; returns the ports that were.
    pub(crate) fn move_clients(&mut self) -> Vec<(u16, u16)> {
        let ports = self.ports.clone();
        for (client, _) in &mut self.ports {
            *client = free_port();
        }
        self.start_members();
        ports
    }

    /// Starts all members again with these ports.
    pub(crate) fn move_back(&mut self, ports: Vec<(u16, u16)>) {
        self.ports = ports;
        self.start_members();
    }
}

/// See the module.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) cluster: Cluster,
    pub(crate) server: Skeindns,
    pub(crate) certificates: Option<Certificates>,
    load: Option<Load>,
    writer: Option<Writer>,
    written: Arc<Vec<Written>>,
    rows: Vec<Row>,
}

impl World {
    /// A cluster without secrets.
    pub(crate) fn start() -> World {
        let dir = tempfile::tempdir().expect("a folder");
        let cluster = Cluster::start(dir.path(), 5);
        World::with(dir, cluster, None, String::new())
    }

    /// A cluster with TLS, a user for us, and tokens that end after three seconds.
    pub(crate) fn start_secured() -> World {
        let dir = tempfile::tempdir().expect("a folder");
        let certificates = Certificates::write(dir.path());
        let file = |name| certificates.file(name);
        let extra = [
            format!("--cert-file={}", file("server.pem")),
            format!("--key-file={}", file("server.key")),
            format!("--trusted-ca-file={}", file("ca.pem")),
            "--client-cert-auth".to_owned(),
            "--bcrypt-cost=4".to_owned(),
            format!(
                "--auth-token=jwt,pub-key={},priv-key={},sign-method=RS256,ttl=3s",
                file("token.pub"),
                file("token.key")
            ),
        ];
        let mut ctl = vec![
            format!("--cacert={}", file("ca.pem")),
            format!("--cert={}", file("client.pem")),
            format!("--key={}", file("client.key")),
        ];
        let mut cluster = Cluster::start_with(dir.path(), 5, "https", &extra, &ctl);
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
        ctl.push("--user=root:root".to_owned());
        cluster.ctl = ctl;
        let options = format!(
            "credentials dns secret\ntls {} {} {}\n",
            file("client.pem"),
            file("client.key"),
            file("ca.pem")
        );
        World::with(dir, cluster, Some(certificates), options)
    }

    fn with(
        dir: TempDir,
        cluster: Cluster,
        certificates: Option<Certificates>,
        options: String,
    ) -> World {
        for at in 0..STILL {
            cluster.put_host(&format!("still{at}"), at as u32);
        }
        let srv = "{\"host\":\"192.0.2.1\",\"port\":80,\"text\":\"a text\"}";
        cluster.ctl(&["put", &key("web/one"), srv]);
        let written: Arc<Vec<Written>> =
            Arc::new((0..MOVING).map(|_| Written::default()).collect());
        for at in 0..MOVING {
            cluster.put_host(&format!("moving{at}"), 0);
        }
        let server = serve(dir.path(), &cluster, &options);
        let world = World {
            dir,
            cluster,
            server,
            certificates,
            load: None,
            writer: None,
            written,
            rows: Vec::new(),
        };
        world.becomes("moving9", Some(0));
        world
    }

    fn questions(&self) -> Vec<Question> {
        let port = self.server.port;
        let mut questions: Vec<Question> = (0..STILL)
            .map(|at| Question::still(port, &format!("still{at}.example.org."), RecordType::A))
            .collect();
        for rtype in [RecordType::SRV, RecordType::TXT, RecordType::A] {
            questions.push(Question::still(port, "web.example.org.", rtype));
        }
        for at in 0..MOVING {
            questions.push(Question::written(&format!("moving{at}.example.org."), at));
        }
        questions.push(Question::absent("nobody.example.org."));
        questions
    }

    /// Runs a case under load, waits until everything is as it was, and notes what became of the queries.
    pub(crate) fn case(&mut self, name: &str, run: impl FnOnce(&mut World)) {
        if self.load.is_none() {
            let (port, written) = (self.server.port, Arc::clone(&self.written));
            self.load = Some(Load::start(port, RATE, self.questions(), written));
        }
        let began = Instant::now();
        self.writer = Some(Writer::start(&self.cluster, Arc::clone(&self.written)));
        run(self);
        let over = Instant::now();
        self.settle();
        let back = over.elapsed();
        let counts = self.load.as_ref().expect("just started").take();
        eprintln!(
            "chaos: {name}: {:.1?}, back after {back:.1?}: {counts:?}",
            began.elapsed()
        );
        self.rows.push(Row {
            name: name.to_owned(),
            took: began.elapsed(),
            back,
            counts,
        });
    }

    /// Ends the load.
    pub(crate) fn stop_asking(&mut self) {
        self.load = None;
    }

    /// Ends the writes: their answers are not to change any more.
    pub(crate) fn stop_writing(&mut self) {
        self.writer = None;
    }

    /// The cluster is about to go back to what it was.
    pub(crate) fn goes_back(&self) {
        for written in &*self.written {
            written.is_loose.store(true, Ordering::SeqCst);
        }
    }

    /// Until changes arrive and all names are what etcd says.
    fn settle(&mut self) {
        self.writer = None;
        self.cluster.wait();
        self.put_and_see("settled");
        until("the names are what etcd says", || {
            let text = self.cluster.try_ctl(&["get", "--prefix", &key("moving")])?;
            let lines: Vec<&str> = text.lines().collect();
            let mut pairs = lines.chunks_exact(2);
            let is_same = pairs.all(|pair| {
                let name = pair[0].trim_start_matches("/skydns/org/example/");
                self.answer(name).map(host).as_deref() == Some(pair[1])
            });
            is_same.then_some(())
        });
        for written in &*self.written {
            written.is_loose.store(false, Ordering::SeqCst);
        }
    }

    /// Puts a value that was not there before under a name, and waits for the answer.
    pub(crate) fn put_and_see(&self, name: &str) {
        let value = next_value();
        self.cluster.put_host(name, value);
        self.becomes(name, Some(value));
    }

    /// The value of a name, if it exists.
    pub(crate) fn answer(&self, name: &str) -> Option<u32> {
        let name = format!("{name}.example.org.");
        let message = self.server.ask(&name, RecordType::A);
        match message.metadata.response_code {
            ResponseCode::NoError => addresses(&message).first().copied().map(value_of),
            _ => None,
        }
    }

    /// Waits until a name has a value, or none.
    pub(crate) fn becomes(&self, name: &str, value: Option<u32>) {
        until(&format!("{name} is {value:?}"), || {
            (self.answer(name) == value).then_some(())
        });
    }

    /// Kills a member if it lives, and starts it again.
    pub(crate) fn restart(&mut self, member: usize) {
        self.cluster.members[member].end();
        self.cluster.members[member] = self.cluster.member(member);
    }

    /// The same signal to all members.
    pub(crate) fn signal_all(&self, signal: &str) {
        for member in &self.cluster.members {
            member.signal(signal);
        }
    }

    /// Rows of a Markdown table.
    pub(crate) fn table(&self) -> String {
        self.rows.iter().map(Row::line).collect()
    }

    /// Nothing may have been wrong.
    pub(crate) fn finish(self) {
        for row in &self.rows {
            let counts = &row.counts;
            assert!(counts.answered > 0, "{row:?}");
            assert_eq!(
                (counts.wrong, counts.failed, counts.missing),
                (0, 0, 0),
                "{row:?}"
            );
        }
    }
}

/// Starts our server on a cluster.
pub(crate) fn serve(dir: &Path, cluster: &Cluster, options: &str) -> Skeindns {
    let endpoints = cluster.endpoints().join(" ");
    let dnsfile = format!(
        "example.org:0 {{\n bind 127.0.0.1\n errors\n cache\n etcd {{\n endpoint {endpoints}\n{options} }}\n}}\n"
    );
    Skeindns::start(dir, &dnsfile)
}

//--- The writer ------------------------------------------------------------------------------------

static WRITES: AtomicU32 = AtomicU32::new(0);

/// A value that was never used.
pub(crate) fn next_value() -> u32 {
    WRITES.fetch_add(1, Ordering::SeqCst) + 1
}

/// Writes the moving names in turn until it is dropped.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(cluster: &Cluster, written: Arc<Vec<Written>>) -> Writer {
        let (endpoints, ctl) = (cluster.endpoints().join(","), cluster.ctl.clone());
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let put = move |at: usize, value: u32| {
            let output = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &endpoints])
                .args(["--command-timeout=2s", "--dial-timeout=1s"])
                .args(&ctl)
                .args(["put", &key(&format!("moving{at}")), &host(value)])
                .output();
            output.is_ok_and(|output| output.status.success())
        };
        let thread = std::thread::spawn(move || {
            for at in (0..MOVING).cycle() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let value = next_value();
                written[at].newest.store(value, Ordering::SeqCst);
                if !put(at, value) {
                    // It may come true late, behind another.
                    written[at].is_loose.store(true, Ordering::SeqCst);
                }
                // The pace of the writes.
                std::thread::sleep(WRITE_EVERY);
            }
        });
        Writer {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

//--- The table -------------------------------------------------------------------------------------

/// Of the tables' rows.
pub(crate) const TABLE_HEAD: &str = "\
| case | s | queries | wrong | failed | missing | slowest answer | changes again after |
|---|---|---|---|---|---|---|---|
";

#[derive(Debug)]
struct Row {
    name: String,
    took: Duration,
    back: Duration,
    counts: Counts,
}

impl Row {
    fn line(&self) -> String {
        let mut line = String::new();
        let Counts {
            asked,
            wrong,
            failed,
            missing,
            slowest,
            ..
        } = self.counts;
        let (name, took, back) = (&self.name, self.took.as_secs_f64(), self.back.as_secs_f64());
        let slowest = slowest.as_secs_f64() * 1000.0;
        writeln!(
            line,
            "| {name} | {took:.1} | {asked} | {wrong} | {failed} | {missing} | {slowest:.1} ms | {back:.1} s |"
        )
        .expect("a string");
        line
    }
}
