//! How long things take: from a put to its answer, from the end of a lease to the end of its name, from the loss of a member to the next change.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::load::{Load, Question, address_of};
use crate::support::{Cluster, PATIENCE, Skeindns, query, until};
use crate::world::{World, host, key, next_value, serve};

/// How often each is measured.
pub(crate) struct Times {
    puts: usize,
    leases: usize,
    members: usize,
}

/// To see that it can be.
pub(crate) const FEW: Times = Times {
    puts: 20,
    leases: 2,
    members: 1,
};
/// For figures.
pub(crate) const MANY: Times = Times {
    puts: 1000,
    leases: 20,
    members: 5,
};

/// Queries a second of the load in the second row.
const LOADED_RATE: u32 = 10_000;
/// Between two polls of an observer: what its figures are exact to.
const POLL_EVERY: Duration = Duration::from_micros(100);
/// Puts in a transaction: etcd takes 128.
const PUTS_AT_ONCE: usize = 100;

/// Takes all measures, as a Markdown table.
pub(crate) fn table(world: &mut World, times: &Times) -> String {
    world.stop_asking();
    let mut table = "| measure | times | p50 | p99 | largest |\n|---|---|---|---|---|\n".to_owned();
    let mut row = |name: &str, mut times: Vec<Duration>| {
        times.sort_unstable();
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
        let [p50, p99, largest] = [at(50), at(99), at(100)].map(|time| time.as_secs_f64() * 1000.0);
        let count = times.len();
        writeln!(
            table,
            "| {name} | {count} | {p50:.1} ms | {p99:.1} ms | {largest:.1} ms |"
        )
        .expect("a string");
    };
    let (confirmed, answered) = puts(world, times.puts);
    let later = behind(&confirmed, &answered);
    row("put, quiet: etcd confirms it", confirmed);
    row("put, quiet: the answer is there", answered);
    row("put, quiet: the answer behind etcd's confirmation", later);
    let load = {
        let port = world.server.port;
        let name = |at| format!("still{at}.example.org.");
        let questions = (0..16).map(|at| Question::still(port, &name(at), RecordType::A));
        Load::start(port, LOADED_RATE, questions.collect(), Arc::default())
    };
    let (confirmed, answered) = puts(world, times.puts);
    let counts = load.take();
    drop(load);
    let later = behind(&confirmed, &answered);
    row("put, at 10,000 queries/s: etcd confirms it", confirmed);
    row("put, at 10,000 queries/s: the answer is there", answered);
    row(
        "put, at 10,000 queries/s: the answer behind etcd's confirmation",
        later,
    );
    // At this rate it is often the client that is too slow to read them all, so that missing ones prove nothing.
    assert_eq!((counts.wrong, counts.failed), (0, 0), "{counts:?}");
    row(
        "lease at its end: the name is gone",
        leases(world, times.leases),
    );
    for (name, signal) in [("killed", "-KILL"), ("frozen", "-STOP")] {
        let times = (0..times.members)
            .map(|_| lost_member(world, signal))
            .collect();
        row(
            &format!("the member that is followed {name}: the next put is answered"),
            times,
        );
    }
    table
}

/// From sending a put, until etcd confirms it and until the answer is there.
fn puts(world: &World, times: usize) -> (Vec<Duration>, Vec<Duration>) {
    let mut etcd = Etcd::of(&world.cluster, 0);
    let observer = Observer::of(&world.server, "measured");
    let measure = |_| {
        let value = next_value();
        std::thread::scope(|scope| {
            let seen = scope.spawn(|| observer.sees(|seen| seen == Some(address_of(value))));
            let began = Instant::now();
            etcd.put("measured", &host(value), 0);
            let confirmed = began.elapsed();
            let seen = seen.join().expect("the observer sees it");
            (confirmed, seen - began)
        })
    };
    (0..times).map(measure).unzip()
}

/// How much later the answers were there than etcd's confirmations: what is ours of the time.
fn behind(confirmed: &[Duration], answered: &[Duration]) -> Vec<Duration> {
    let pairs = confirmed.iter().zip(answered);
    let behind = pairs.map(|(confirmed, answered)| answered.saturating_sub(*confirmed));
    behind.collect()
}

/// From the end of leases of two seconds, until their names are gone.
fn leases(world: &World, times: usize) -> Vec<Duration> {
    let mut etcd = Etcd::of(&world.cluster, 0);
    std::thread::scope(|scope| {
        let mut gone = Vec::new();
        for at in 0..times {
            let granted = etcd.post("lease/grant", &json!({"TTL": 2}));
            let began = Instant::now();
            let number = |field: &Value| field.as_str().and_then(|text| text.parse().ok());
            let ttl = Duration::from_secs(number(&granted["TTL"]).expect("a time") as u64);
            let name = format!("leased{at}");
            etcd.put(&name, &host(1), number(&granted["ID"]).expect("a number"));
            world.becomes(&name, Some(1));
            let observer = Observer::of(&world.server, &name);
            let wait = move || observer.sees(|seen| seen.is_none()) - (began + ttl);
            gone.push(scope.spawn(wait));
        }
        let gone = gone.into_iter();
        gone.map(|gone| gone.join().expect("it ends")).collect()
    })
}

/// From the loss of the member that a server follows, until a put of after it is answered.
fn lost_member(world: &mut World, signal: &str) -> Duration {
    let server = serve(world.dir.path(), &world.cluster, "");
    let line = server.line(|line| line.contains(" records at revision "));
    let url = line.rsplit(' ').next().expect("it ends with the member");
    let endpoints = world.cluster.endpoints();
    let followed = endpoints.iter().position(|endpoint| endpoint == url);
    let followed = followed.expect("a member");
    // What an election takes is etcd's time, not ours.
    world.cluster.lead_elsewhere(followed);
    let value = next_value();
    let mut etcd = Etcd::of(&world.cluster, (followed + 1) % endpoints.len());
    let observer = Observer::of(&server, "measured");
    world.cluster.members[followed].signal(signal);
    let began = Instant::now();
    etcd.put("measured", &host(value), 0);
    let time = observer.sees(|seen| seen == Some(address_of(value))) - began;
    world.restart(followed);
    world.cluster.wait();
    time
}

/// Writes so many values that cannot be read, of every kind.
pub(crate) fn put_malformed(cluster: &Cluster, count: usize) {
    const VALUES: [&str; 8] = [
        "",
        "{",
        "nothing",
        "{\"host\":1}",
        "{\"host\":\"192.0.2.1\",\"port\":\"x\"}",
        "[\"192.0.2.1\"]",
        "{\"host\":\"a..b\"}",
        "\u{0}\u{ff}",
    ];
    let mut etcd = Etcd::of(cluster, 0);
    let all: Vec<usize> = (0..count).collect();
    for some in all.chunks(PUTS_AT_ONCE) {
        let puts: Vec<Value> = some
            .iter()
            .map(|at| {
                let body = put_body(&format!("bad/k{at}"), VALUES[at % VALUES.len()], 0);
                json!({"request_put": body})
            })
            .collect();
        let reply = etcd.post("kv/txn", &json!({"success": puts}));
        assert_eq!(reply["succeeded"], true, "{reply}");
    }
}

//--- Those who look and those who write ------------------------------------------------------------

/// Asks for one name, over and over.
struct Observer {
    socket: UdpSocket,
    query: Vec<u8>,
}

impl Observer {
    fn of(server: &Skeindns, name: &str) -> Observer {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        socket
            .connect((Ipv4Addr::LOCALHOST, server.port))
            .expect("loopback");
        let query = query(&format!("{name}.example.org."), RecordType::A);
        Observer {
            socket,
            query: query.to_vec().expect("a small query"),
        }
    }

    /// When it first saw what is waited for: an address, or that the name does not exist.
    fn sees(&self, wanted: impl Fn(Option<Ipv4Addr>) -> bool) -> Instant {
        let end = Instant::now() + PATIENCE;
        loop {
            self.socket.send(&self.query).expect("it listens");
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).expect("an answer");
            let now = Instant::now();
            let exists = buffer[3] & 0xf != ResponseCode::NXDomain.low();
            // The address of the one record is the last of the message.
            let last: [u8; 4] = buffer[length - 4..length].try_into().expect("four octets");
            if wanted(exists.then_some(last.into())) {
                return now;
            }
            assert!(now < end, "waited too long for an answer");
            std::thread::sleep(POLL_EVERY);
        }
    }
}

/// A connection to a member's JSON gateway: etcdctl takes longer to start than what is measured.
struct Etcd {
    stream: BufReader<TcpStream>,
}

impl Etcd {
    fn of(cluster: &Cluster, member: usize) -> Etcd {
        let address = (Ipv4Addr::LOCALHOST, cluster.ports[member].0);
        let stream = until("the member listens", || TcpStream::connect(address).ok());
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Etcd {
            stream: BufReader::new(stream),
        }
    }

    fn put(&mut self, name: &str, value: &str, lease: i64) {
        self.post("kv/put", &put_body(name, value, lease));
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let head = format!(
            "POST /v3/{path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream
            .write_all((head + &body).as_bytes())
            .expect("it reads");
        let status = self.line();
        let mut length = None;
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let value = line.to_lowercase();
            let value = value.strip_prefix("content-length:").map(str::trim);
            length = length.or(value.and_then(|value| value.parse().ok()));
        }
        let body = match length {
            Some(length) => self.octets(length),
            None => self.chunks(),
        };
        assert!(
            status.contains(" 200 "),
            "{status}{}",
            String::from_utf8_lossy(&body)
        );
        serde_json::from_slice(&body).expect("JSON")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    fn octets(&mut self, length: usize) -> Vec<u8> {
        let mut octets = vec![0; length];
        self.stream.read_exact(&mut octets).expect("it answers");
        octets
    }

    /// A chunked body, which etcd sends when it is longer than 2 KiB.
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line(), 16).expect("a length");
            body.extend(self.octets(length));
            self.line();
            if length == 0 {
                return body;
            }
        }
    }
}

fn put_body(name: &str, value: &str, lease: i64) -> Value {
    json!({
        "key": BASE64.encode(key(name).as_bytes()),
        "value": BASE64.encode(value.as_bytes()),
        "lease": lease.to_string(),
    })
}
