//! Packets that no client should send.

use std::time::Duration;

use crate::client::{Tcp, Udp, framed, id, padded, question, rcode};
use crate::server::{Server, http};

const CHAIN: &str = ".:0 {\n bind 127.0.0.1\n errors\n prometheus 127.0.0.1:0\n cache\n nsid\n bufsize\n whoami\n}\n";

#[test]
fn large_queries_are_read_whole() {
    let server = Server::start(CHAIN);
    let udp = Udp::connect(server.address());
    for len in [600, 4_095, 4_097, 9_000, 65_507] {
        let answer = udp.ask(&padded(len as u16, "example.org", len));
        assert_eq!(rcode(&answer), 0, "{len}");
    }
    let mut tcp = Tcp::connect(server.address());
    tcp.send(&padded(3, "example.org", 65_535));
    assert_eq!(rcode(&tcp.receive()), 0);
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    /// A query with a few things wrong.
    fn mutate(&mut self, message: &mut Vec<u8>) {
        for _ in 0..=self.roll(4) {
            let at = self.roll(message.len());
            match self.roll(6) {
                0 => message.truncate(at),
                1 => message.extend(vec![self.roll(256) as u8; self.roll(40)]),
                2 => message.insert(at, self.roll(256) as u8),
                3 if message.len() > 2 => {
                    message.remove(at);
                }
                4 if at + 1 < message.len() => {
                    message[at] = 0xc0;
                    message[at + 1] = self.roll(64) as u8;
                }
                _ if at < message.len() => message[at] ^= 1 << self.roll(8),
                _ => {}
            }
        }
    }
}

#[test]
fn mutated_packets_change_nothing_for_others() {
    // More of them where somebody has the time: 1,000,000 take a minute.
    let count: usize = std::env::var("SKEINDNS_PACKETS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(50_000);
    let server = Server::start(CHAIN);
    let hostile = Udp::connect(server.address());
    hostile.0.set_nonblocking(true).expect("a socket");
    let honest = Udp::connect(server.address());
    honest
        .0
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("not zero");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut buffer = vec![0; 65_535];
    for number in 0..count {
        let mut message = match dice.roll(3) {
            0 => padded(number as u16, "www.example.org", 80 + dice.roll(600)),
            _ => question(number as u16, "www.example.org"),
        };
        dice.mutate(&mut message);
        // ECONNREFUSED would tell of its end; a full buffer is no matter.
        if let Err(error) = hostile.0.send(&message) {
            assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        while let Ok(len) = hostile.0.recv(&mut buffer) {
            assert!(len <= 1232, "{len}");
            assert!(len >= 12 && buffer[2] & 0x80 != 0);
        }
        if number % 100 == 0 {
            let answer = honest.ask(&question(number as u16, "honest.example.org"));
            assert_eq!((rcode(&answer), id(&answer)), (0, number as u16));
        }
    }
    let mut connection = Tcp::connect(server.address());
    for number in 0..count / 10 {
        let mut message = question(number as u16, "www.example.org");
        dice.mutate(&mut message);
        use std::io::Write;
        if connection.0.write_all(&framed(&message)).is_err() || number % 50 == 0 {
            connection = Tcp::connect(server.address());
        }
    }
    honest.ask(&question(1, "honest.example.org"));
    let (_, metrics) = http("GET", &server.urls[0]);
    let panics = metrics
        .lines()
        .find(|line| line.starts_with("coredns_panics_total"));
    assert!(panics.is_none_or(|line| line.ends_with(" 0")), "{panics:?}");
}
