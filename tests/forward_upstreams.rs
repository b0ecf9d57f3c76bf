//! forward and loop in the real binary, with NSD and with upstreams of our own that cut, reset, are silent, die, or are ourselves.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

mod support;

use support::{PATIENCE, Process, Skeindns, addresses, ask, ask_tcp, binary, free_port, query};
use support::{read_frame, send_frame, until, with_edns, zone};

/// Starts it with one root block on loopback.
fn start(dir: &Path, port: u16, block: &str) -> Skeindns {
    let dnsfile = format!(".:{port} {{\n    bind 127.0.0.1\n{block}\n}}\n");
    Skeindns::start(dir, &dnsfile)
}

/// NSD with one zone: an address, and twenty texts that need TCP.
fn nsd(dir: &Path, address: &str) -> (Process, u16) {
    let texts: String = (0..20)
        .map(|n| format!("big TXT \"{n} {}\"\n", "text ".repeat(20)))
        .collect();
    support::nsd(dir, &zone(address, &texts))
}

//--- With NSD --------------------------------------------------------------------------------------

#[test]
fn udp_tcp_and_what_does_not_fit() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_nsd, upstream) = nsd(dir.path(), "192.0.2.80");
    for options in ["", "prefer_udp", "force_tcp"] {
        let block = format!("    forward . 127.0.0.1:{upstream} {{\n        {options}\n    }}");
        let server = start(dir.path(), 0, &block);
        for _ in 0..3 {
            let www = query("www.example.com.", RecordType::A);
            assert_eq!(
                addresses(&ask(server.port, &www)),
                [Ipv4Addr::new(192, 0, 2, 80)]
            );
            assert_eq!(
                addresses(&ask_tcp(server.port, &www)),
                [Ipv4Addr::new(192, 0, 2, 80)]
            );
        }
        // Twenty texts are more than any datagram of ours: TC to the client over UDP, all of it over TCP.
        let big = with_edns(query("big.example.com.", RecordType::TXT));
        assert!(ask(server.port, &big).metadata.truncation);
        let whole = ask_tcp(server.port, &big);
        assert_eq!(whole.answers.len(), 20, "{options}");
        assert!(!whole.metadata.truncation);
    }
}

#[test]
fn one_of_two_dies_and_no_answer_is_lost() {
    let (dir, other) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let (_kept, first) = nsd(dir.path(), "192.0.2.1");
    let (killed, second) = nsd(other.path(), "192.0.2.2");
    let block = format!("    forward . 127.0.0.1:{first} 127.0.0.1:{second}");
    let server = start(dir.path(), 0, &block);
    let www = query("www.example.com.", RecordType::A);
    until("both are asked", || {
        let found = addresses(&ask(server.port, &www));
        (found == [Ipv4Addr::new(192, 0, 2, 2)]).then_some(())
    });
    drop(killed);
    // NSD's child answers a little longer than its parent lives. Until it is gone and ever after, each query has an answer.
    let mut in_a_row = 0;
    until("only the other one answers", || {
        let found = addresses(&ask(server.port, &www));
        assert_eq!(found.len(), 1);
        in_a_row = match found == [Ipv4Addr::new(192, 0, 2, 1)] {
            true => in_a_row + 1,
            false => 0,
        };
        (in_a_row == 100).then_some(())
    });
}

//--- Host names ------------------------------------------------------------------------------------

#[test]
fn a_host_name_is_looked_up_at_the_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_nsd, upstream) = nsd(dir.path(), "192.0.2.80");
    // ns.example.com is 127.0.0.1, and NSD itself says so.
    let block = format!(
        "    forward . ns.example.com:{upstream} {{\n        resolver 127.0.0.1:{upstream}\n    }}"
    );
    let server = start(dir.path(), 0, &block);
    let www = query("www.example.com.", RecordType::A);
    assert_eq!(
        addresses(&ask(server.port, &www)),
        [Ipv4Addr::new(192, 0, 2, 80)]
    );

    // A name that is not there stops the start, with one line that names it; so does a resolver that is not there.
    for (name, resolver) in [
        ("nobody.example.com", upstream),
        ("ns.example.com", free_port()),
    ] {
        let dnsfile = format!(
            ".:0 {{\n    bind 127.0.0.1\n    forward . {name} {{\n        resolver 127.0.0.1:{resolver}\n    }}\n}}\n"
        );
        let path = dir.path().join("Dnsfile");
        fs::write(&path, dnsfile).expect("the folder is ours");
        let output = binary().arg("--conf").arg(path).output();
        let output = output.expect("it ends by itself");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains(&format!("failed to resolve \"{name}\"")),
            "{text}"
        );
    }
}

//--- Upstreams of our own --------------------------------------------------------------------------

#[test]
fn a_reset_costs_two_connections_at_most() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let port = listener.local_addr().expect("it is bound").port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let dir = tempfile::tempdir().expect("a folder");
    let block = format!(
        "    forward . 127.0.0.1:{port} {{\n        force_tcp\n        max_fails 0\n    }}"
    );
    let server = start(dir.path(), 0, &block);
    for _ in 0..20 {
        let answer = ask(server.port, &query("www.example.com.", RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
    assert!(connections.load(Ordering::SeqCst) <= 40);
}

#[test]
fn a_connection_closed_while_idle_is_replaced_at_no_cost() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        // Each connection answers once and is closed.
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            if let Some(mut message) = read_frame(&mut stream) {
                message[2] |= 0x80;
                send_frame(&mut stream, &message);
            }
        }
    });
    let dir = tempfile::tempdir().expect("a folder");
    let block = format!(
        "    forward . 127.0.0.1:{port} {{\n        force_tcp\n        max_connect_attempts 1\n    }}"
    );
    let server = start(dir.path(), 0, &block);
    for _ in 0..50 {
        let answer = ask(server.port, &query("www.example.com.", RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    }
}

#[test]
fn a_truncated_reply_without_tcp_is_passed_on() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let port = upstream.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = upstream.recv_from(&mut buffer) {
            buffer[2] |= 0x82;
            upstream.send_to(&buffer[..length], from).ok();
        }
    });
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), 0, &format!("    forward . 127.0.0.1:{port}"));
    let answer = ask(server.port, &query("www.example.com.", RecordType::A));
    assert!(answer.metadata.truncation);
}

#[test]
fn a_thousand_ask_for_one_cold_name_and_the_upstream_is_asked_once() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    upstream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let port = upstream.local_addr().expect("it is bound").port();
    let dir = tempfile::tempdir().expect("a folder");
    let dnsfile = format!(
        "example.com:0 {{\n    bind 127.0.0.1\n    cache\n    forward . 127.0.0.1:{port} {{\n        read_timeout 60s\n    }}\n}}\n"
    );
    let server = Skeindns::start(dir.path(), &dnsfile);
    let (clients, each) = (100, 10);
    let clients = (0..clients).map(|_| {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        client.set_read_timeout(Some(PATIENCE)).expect("not zero");
        client
            .connect((Ipv4Addr::LOCALHOST, server.port))
            .expect("loopback");
        client
    });
    let clients: Vec<UdpSocket> = clients.collect();
    let send = |client: &UdpSocket, name: &str, id: u16| {
        let mut message = query(name, RecordType::A);
        message.metadata.id = id;
        let bytes = message.to_vec().expect("a small query");
        client.send(&bytes).expect("it listens");
    };
    let mut buffer = [0; 512];
    for client in &clients {
        (0..each).for_each(|id| send(client, "www.example.com.", id));
        // Refused at once: when that has come, the ten before it wait inside.
        send(client, "outside.example.", 999);
        let length = client.recv(&mut buffer).expect("an answer");
        let refused = Message::from_vec(&buffer[..length]).expect("a message");
        assert_eq!(refused.metadata.id, 999);
    }
    let (length, from) = upstream.recv_from(&mut buffer).expect("it is asked");
    upstream.set_nonblocking(true).expect("a socket");
    let mut more = [0; 512];
    assert!(upstream.recv_from(&mut more).is_err(), "it is asked again");
    upstream
        .send_to(&good(&buffer[..length]), from)
        .expect("loopback");
    for client in &clients {
        for _ in 0..each {
            let length = client.recv(&mut buffer).expect("an answer");
            let answer = Message::from_vec(&buffer[..length]).expect("a message");
            assert_eq!(addresses(&answer), [Ipv4Addr::new(192, 0, 2, 1)]);
        }
    }
    assert!(upstream.recv_from(&mut more).is_err(), "it is asked again");
}

/// The good answer of a hostile upstream.
fn good(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply[7] = 1;
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    reply
}

#[test]
fn lies_before_the_good_answer_are_not_heard() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let port = upstream.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        let mut n = 0_u8;
        while let Ok((length, from)) = upstream.recv_from(&mut buffer) {
            let query = &buffer[..length];
            let mut lies = vec![
                query[..1].to_vec(),
                query.to_vec(),
                good(query),
                good(query),
                good(query),
            ];
            lies[2][1] ^= 1 + n;
            lies[3][13] ^= 1;
            lies[4].truncate(length + 9);
            lies[4][2] |= 0x02;
            for lie in lies {
                upstream.send_to(&lie, from).ok();
            }
            upstream.send_to(&good(query), from).ok();
            n = n.wrapping_add(1) & 0x7f;
        }
    });
    let dir = tempfile::tempdir().expect("a folder");
    let block =
        format!("    forward . 127.0.0.1:{port} {{\n        max_connect_attempts 1\n    }}");
    let server = start(dir.path(), 0, &block);
    for _ in 0..100 {
        let answer = ask(server.port, &query("www.example.com.", RecordType::A));
        assert_eq!(addresses(&answer), [Ipv4Addr::new(192, 0, 2, 1)]);
    }
}

#[test]
fn a_loop_is_reported_and_the_server_lives() {
    let dir = tempfile::tempdir().expect("a folder");
    for block in ["", "    cache 30\n"] {
        let port = free_port();
        let block = format!("{block}    loop\n    forward . 127.0.0.1:{port}");
        let server = start(dir.path(), port, &block);
        let line = server.line(|line| line.contains("plugin/loop: Loop ("));
        assert!(line.contains("detected for zone \".\""), "{line}");
        until("queries are answered instead of going round", || {
            let answer = ask(
                server.port,
                &with_edns(query("www.example.com.", RecordType::A)),
            );
            (answer.metadata.response_code == ResponseCode::ServFail).then_some(())
        });
    }
}

#[test]
fn many_clients_and_a_silent_upstream() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let silent: SocketAddr = upstream.local_addr().expect("it is bound");
    let dir = tempfile::tempdir().expect("a folder");
    let (_nsd, port) = nsd(dir.path(), "192.0.2.1");
    let block = format!(
        "    forward . {silent} 127.0.0.1:{port} {{\n        policy sequential\n        read_timeout 100ms\n    }}"
    );
    let server = start(dir.path(), 0, &block);
    // The first ones wait for the silent one; once it is down nobody does.
    for _ in 0..50 {
        let answer = ask(server.port, &query("www.example.com.", RecordType::A));
        assert_eq!(addresses(&answer), [Ipv4Addr::new(192, 0, 2, 1)]);
    }
}

#[test]
fn more_than_max_concurrent_is_refused_at_once_and_told_once() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let silent: SocketAddr = upstream.local_addr().expect("it is bound");
    let dir = tempfile::tempdir().expect("a folder");
    // One worker's sockets see all of it: the count is the same for all workers.
    let block = format!(
        "    errors\n    forward . {silent} {{\n        max_concurrent 3\n        read_timeout 60s\n    }}"
    );
    let server = start(dir.path(), 0, &block);
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client
        .connect((Ipv4Addr::LOCALHOST, server.port))
        .expect("loopback");
    let mut buffer = [0; 512];
    for n in 0..43 {
        let query = with_edns(query(&format!("n{n}.example.com."), RecordType::A));
        client
            .send(&query.to_vec().expect("a small query"))
            .expect("it listens");
        if n < 3 {
            upstream
                .recv(&mut buffer)
                .expect("the first three are asked");
        }
    }
    for _ in 3..43 {
        let length = client.recv(&mut buffer).expect("an answer");
        let answer = Message::from_vec(&buffer[..length]).expect("a message");
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
    server.line(|line| line.contains("concurrent queries exceeded maximum 3"));
    let told = server
        .lines
        .so_far()
        .iter()
        .filter(|line| line.contains("exceeded maximum"))
        .count();
    assert!(told <= 3, "{told} more lines");
}

#[test]
fn few_descriptors_are_a_smaller_pool() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_nsd, upstream) = nsd(dir.path(), "192.0.2.80");
    let dnsfile = dir.path().join("Dnsfile");
    let text = format!(".:0 {{\n    bind 127.0.0.1\n    forward . 127.0.0.1:{upstream}\n}}\n");
    fs::write(&dnsfile, text).expect("the folder is ours");
    // The pools of two workers alone would be twice as many.
    let server = Skeindns::start_by(
        std::process::Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" --conf \"$1\""])
            .arg(env!("CARGO_BIN_EXE_skeindns"))
            .arg(dnsfile),
    );
    let www = query("www.example.com.", RecordType::A);
    for _ in 0..1000 {
        assert_eq!(
            addresses(&ask(server.port, &www)),
            [Ipv4Addr::new(192, 0, 2, 80)]
        );
    }
}
