//! Connections: framing, pipelining, order, deadlines, caps.

use std::io::Write;
use std::net::Shutdown;

use crate::client::{Tcp, Udp, framed, id, question, rcode};
use crate::server::{Server, Upstream, skeindns};

const WHOAMI: &str = ".:0 {\n bind 127.0.0.1\n whoami\n}\n";

fn forwarding(upstream: &Upstream) -> String {
    format!(
        ".:0 {{\n bind 127.0.0.1\n forward . {} {{\n prefer_udp\n }}\n}}\n",
        upstream.address
    )
}

#[test]
fn the_quick_answer_overtakes_the_slow_one() {
    let upstream = Upstream::start();
    let server = Server::start(&forwarding(&upstream));
    let mut tcp = Tcp::connect(server.address());
    tcp.send(&question(1, "held.example.org"));
    tcp.send(&question(2, "quick.example.org"));
    assert_eq!(id(&tcp.receive()), 2);
    upstream.wait();
    upstream.release();
    assert_eq!(id(&tcp.receive()), 1);
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answers() {
    let upstream = Upstream::start();
    let server = Server::start(&forwarding(&upstream));
    let mut tcp = Tcp::connect(server.address());
    tcp.send(&question(1, "held.example.org"));
    tcp.send(&question(2, "quick.example.org"));
    tcp.0.shutdown(Shutdown::Write).expect("it is open");
    upstream.wait();
    upstream.release();
    let mut ids = [id(&tcp.receive()), id(&tcp.receive())];
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    assert!(tcp.try_receive().is_err(), "then it closes");
}

#[test]
fn messages_may_come_in_any_pieces() {
    let server = Server::start(WHOAMI);
    let mut tcp = Tcp::connect(server.address());
    for octet in framed(&question(1, "one.example.org")) {
        tcp.0.write_all(&[octet]).expect("it reads");
    }
    assert_eq!(id(&tcp.receive()), 1);
    let mut many: Vec<u8> = Vec::new();
    for number in 0..1000 {
        many.extend(framed(&question(number, "many.example.org")));
    }
    tcp.0.write_all(&many).expect("it reads");
    let mut ids: Vec<u16> = (0..1000).map(|_| id(&tcp.receive())).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..1000));
}

#[test]
fn more_than_may_be_under_way_waits_its_turn() {
    let upstream = Upstream::start();
    let server = Server::start(&forwarding(&upstream));
    let mut tcp = Tcp::connect(server.address());
    let mut many: Vec<u8> = Vec::new();
    for number in 0..200 {
        many.extend(framed(&question(
            number,
            &format!("held.n{number}.example.org"),
        )));
    }
    tcp.0.write_all(&many).expect("it reads");
    let mut ids = Vec::new();
    for _ in 0..128 {
        upstream.wait();
    }
    upstream.release();
    for _ in 128..200 {
        upstream.wait();
    }
    upstream.release();
    for _ in 0..200 {
        let answer = tcp.receive();
        assert_eq!(rcode(&answer), 3);
        ids.push(id(&answer));
    }
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..200));
}

#[test]
fn a_message_that_never_ends_ends_the_connection() {
    let server = Server::start(WHOAMI);
    let silent = Tcp::connect(server.address());
    let mut first = Tcp::connect(server.address());
    first.0.write_all(&[0]).expect("it reads");
    let mut later = Tcp::connect(server.address());
    later.send(&question(1, "example.org"));
    later.receive();
    later.0.write_all(&[0, 200, 1, 2, 3]).expect("it reads");
    for mut connection in [silent, first, later] {
        connection.wait_for_end();
    }
    silent_is_no_trouble(&server);
}

fn silent_is_no_trouble(server: &Server) {
    Udp::connect(server.address()).ask(&question(9, "example.org"));
}

#[test]
fn a_peer_that_does_not_read_is_left() {
    let server = Server::start(WHOAMI);
    let mut deaf = Tcp::connect(server.address());
    let one = framed(&question(
        7,
        "a.name.that.is.rather.long.so.that.answers.are.long.example.org",
    ));
    let many = one.repeat(1000);
    // Until the server has had enough: it stops reading, then closes, and our writing fails.
    while deaf.0.write_all(&many).is_ok() {}
    silent_is_no_trouble(&server);
}

#[test]
fn when_descriptors_are_few_the_idle_make_room() {
    let mut command = std::process::Command::new("sh");
    let binary = skeindns();
    command
        .args(["-c", "ulimit -n 64; exec \"$0\""])
        .arg(binary.get_program());
    command.env("SKEINDNS_WORKERS", "2");
    let server = Server::start_by(command, WHOAMI);
    let mut idle = Vec::new();
    for number in 0..200 {
        let mut tcp = Tcp::connect(server.address());
        tcp.send(&question(number, "example.org"));
        // It may be among those that make room for the next, but it is answered first.
        assert_eq!(id(&tcp.receive()), number);
        idle.push(tcp);
    }
    silent_is_no_trouble(&server);
}
