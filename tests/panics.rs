//! A plugin that panics costs one query each time: its client gets SERVFAIL, everybody else an answer. A binary with a table of its own,
//! which starts itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use skein_plugins::kit::errors::SetupErrors;
use skein_plugins::kit::handler::{Handler, Next, Served};
use skein_plugins::kit::options::Checked;
use skein_plugins::kit::plugin::{Plugin, Repeat};
use skein_plugins::kit::query::Query;
use skein_plugins::kit::setup::ServerSetup;
use skein_plugins::kit::wire::{Rcode, Rtype};

/// In the environment of the process that serves.
const CHILD: &str = "SKEINDNS_TEST_SERVES";
const DNSFILE: &str = ".:0 {\n bind 127.0.0.1\n prometheus 127.0.0.1:0\n errors\n trip\n}\n";
const SERVFAIL: u8 = 2;

static TRIP: Plugin = Plugin {
    name: "trip",
    aliases: &[],
    summary: "panics at once for TXT, later for MX, and after the answer for NS",
    arguments: &[],
    options: &[],
    free_block: false,
    repeat: Repeat::Once,
    setup,
};

fn setup(_: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    server.chain(Trip);
    Ok(())
}

struct Trip;

impl Handler for Trip {
    fn serve<'c>(&'c self, query: Query, _: Next<'c>) -> Served<'c> {
        match query.qtype() {
            Rtype::TXT => panic!("at once, as planned"),
            Rtype::MX => Served::later(async move {
                tokio::task::yield_now().await;
                assert_ne!(query.qtype(), Rtype::MX, "later, as planned");
                query.rcode(Rcode::NOERROR)
            }),
            Rtype::NS => Served::Now(query.rcode(Rcode::NOERROR))
                .map(|response| panic!("on the way back, as planned: {}", response.len())),
            _ => Served::Now(query.rcode(Rcode::NXDOMAIN)),
        }
    }
}

fn main() -> ExitCode {
    let mut table: Vec<&'static Plugin> = skein_plugins::PLUGINS.to_vec();
    table.push(&TRIP);
    if std::env::var_os(CHILD).is_some() {
        return skeindns::run(table.leak());
    }
    // What a test harness is asked for is not for us.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let binary = std::env::current_exe().expect("we run");
    let mut child = Command::new(binary)
        .args(["--conf", "-"])
        .env(CHILD, "1")
        .env("SKEINDNS_WORKERS", "2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(DNSFILE.as_bytes()).expect("it reads");
    drop(input);
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut line = || lines.next().expect("it says more").expect("text");
    let listener = line();
    let url = line();
    std::thread::spawn(move || lines.for_each(drop));

    let result = std::panic::catch_unwind(|| {
        let (_, port) = listener.split_once(':').expect("a start-up line");
        let (port, _) = port.split_once(' ').expect("a start-up line");
        check(
            SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port"))),
            &url,
        );
    });
    child.kill().ok();
    child.wait().ok();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn check(address: SocketAddr, url: &str) {
    let patience = Some(Duration::from_secs(60));
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    udp.connect(address).expect("it is there");
    udp.set_read_timeout(patience).expect("not zero");
    let mut tcp = TcpStream::connect(address).expect("it listens");
    tcp.set_read_timeout(patience).expect("not zero");
    let mut buffer = [0; 512];
    for round in 0..200u8 {
        for (rtype, rcode) in [(16, SERVFAIL), (15, SERVFAIL), (2, SERVFAIL), (1, 3)] {
            let question = [
                round, rtype, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, rtype, 0, 1,
            ];
            udp.send(&question).expect("it is there");
            udp.recv(&mut buffer).expect("an answer");
            assert_eq!(
                (buffer[0], buffer[1], buffer[3] & 15),
                (round, rtype, rcode)
            );
            tcp.write_all(&[0, question.len() as u8]).expect("it reads");
            tcp.write_all(&question).expect("it reads");
            let mut len = [0; 2];
            tcp.read_exact(&mut len).expect("an answer");
            let answer = &mut buffer[..usize::from(len[1])];
            tcp.read_exact(answer).expect("an answer");
            assert_eq!(
                (answer[0], answer[1], answer[3] & 15),
                (round, rtype, rcode)
            );
        }
    }
    let address = url
        .trim_start_matches("http://")
        .trim_end_matches("/metrics");
    let mut http = TcpStream::connect(address).expect("it listens");
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut text = String::new();
    http.read_to_string(&mut text).expect("text");
    assert!(text.contains("\ncoredns_panics_total 1200\n"), "{text}");
}
