//! Start, reload, stop.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use crate::client::{Tcp, Udp, id, question, rcode};
use crate::server::{Server, Upstream, http, output, skeindns};

const WHOAMI: &str = ".:0 {\n bind 127.0.0.1\n whoami\n}\n";

#[test]
fn both_transports_answer_on_the_port_that_is_printed() {
    let server = Server::start(WHOAMI);
    let udp = Udp::connect(server.address());
    assert_eq!(rcode(&udp.ask(&question(1, "example.org"))), 0);
    let mut tcp = Tcp::connect(server.address());
    tcp.send(&question(2, "example.org"));
    assert_eq!(id(&tcp.receive()), 2);
}

#[test]
fn every_address_answers_from_itself() {
    let server = Server::start(".:0 {\n whoami\n}\n");
    let port = server.ports[0];
    // The sockets are connected: an answer from another address would not be received.
    for address in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 9, 9]] {
        Udp::connect(SocketAddr::from((address, port))).ask(&question(1, "example.org"));
    }
    let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    if UdpSocket::bind("[::1]:0").is_ok() {
        Udp::connect(v6).ask(&question(1, "example.org"));
    }
}

#[test]
fn a_taken_port_is_an_error_that_names_the_holder() {
    for transport in ["udp", "tcp"] {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = match transport {
            "udp" => udp.local_addr(),
            _ => tcp.local_addr(),
        };
        let port = port.expect("it is bound").port();
        let dnsfile = format!(".:{port} {{\n bind 127.0.0.1\n whoami\n}}\n");
        let (code, _, errors) = output(skeindns().args(["--conf", "-"]), &dnsfile);
        assert_eq!(code, Some(1));
        assert!(
            errors.contains(&format!("(process {})", std::process::id())),
            "{errors}"
        );
        assert!(errors.contains(transport), "{errors}");
        assert!(errors.starts_with("stdin:1:1: "), "{errors}");
    }
}

#[test]
fn a_wrong_dnsfile_starts_nothing_and_every_error_is_told() {
    let wrong = ".:0 {\n whoamy\n bind\n}\n";
    for arguments in [&["--conf", "-"][..], &["check", "--conf", "-"]] {
        let (code, out, errors) = output(skeindns().args(arguments), wrong);
        assert_eq!(code, Some(1), "{errors}");
        assert_eq!(out, "");
        assert!(errors.contains("stdin:2:2: "), "{errors}");
        assert!(errors.contains("did you mean `whoami`?"), "{errors}");
        assert!(errors.contains("stdin:3:2: "), "{errors}");
    }
}

#[test]
fn check_shows_the_chains() {
    let dnsfile = "example.org {\n whoami\n errors\n}\nexample.net {\n}\n";
    let (code, out, errors) = output(skeindns().args(["check", "-conf", "stdin"]), dnsfile);
    assert_eq!(code, Some(0), "{errors}");
    let expected = "example.org: errors -> whoami\nexample.net: no plugin answers, every query is refused\nstdin: no errors, no warnings\n";
    assert_eq!(out, expected);
}

#[test]
fn a_missing_file_is_named() {
    let (code, _, errors) = output(skeindns().args(["--conf", "no/such/Dnsfile"]), "");
    assert_eq!(code, Some(1));
    assert!(errors.contains("cannot read no/such/Dnsfile"), "{errors}");
}

#[test]
fn extra_words_are_an_error() {
    let (code, _, errors) = output(skeindns().args(["extra"]), "");
    assert_eq!(code, Some(2), "{errors}");
}

#[test]
fn the_version_has_corednss_two_lines() {
    let (code, out, _) = output(skeindns().arg("-version"), "");
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].starts_with("SkeinDNS-"), "{out}");
    assert!(lines[1].starts_with("linux/"), "{out}");
}

#[test]
fn the_process_leaves_its_number_and_takes_it_away() {
    let mut command = skeindns();
    command.args(["-pidfile", "pid"]);
    let mut server = Server::start_by(command, WHOAMI);
    let pidfile = server.folder.path().join("pid");
    // It is written right after the start-up lines.
    server.reload();
    let text = std::fs::read_to_string(&pidfile).expect("it is there");
    assert_eq!(text, format!("{}\n", server.child.id()));
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(0));
    assert!(!pidfile.exists());
}

#[test]
fn a_dnsfile_from_standard_input_survives_reloads() {
    let mut command = skeindns();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), WHOAMI).expect("it is ours");
    command
        .args(["-conf", "stdin"])
        .stdin(file.reopen().expect("it is there"));
    let mut server = Server::start_by(command, "");
    server.reload();
    Udp::connect(server.address()).ask(&question(1, "example.org"));
}

#[test]
fn reloads_under_load_lose_no_query() {
    let mut server = Server::start(WHOAMI);
    let address = server.address();
    let stop = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client in 0..4u16 {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                let udp = Udp::connect(address);
                let mut tcp = Tcp::connect(address);
                let mut next = client;
                while !stop.load(SeqCst) {
                    next = next.wrapping_add(4);
                    // A lost query is one whose answer never comes: `ask` and `receive` would give up.
                    udp.ask(&question(next, "example.org"));
                    tcp.send(&question(next, "example.org"));
                    assert_eq!(id(&tcp.receive()), next);
                    answered.fetch_add(2, SeqCst);
                }
            });
        }
        for number in 0..30 {
            // Another text each time, so that it is another program.
            server.write(&format!(
                "{WHOAMI}z{number}.example:0 {{\n bind 127.0.0.1\n whoami\n}}\n"
            ));
            server.signal(if number % 2 == 0 { "HUP" } else { "USR1" });
            server.wait_for("Reloading complete");
        }
        stop.store(true, SeqCst);
    });
    assert!(answered.load(SeqCst) > 0);
}

#[test]
fn a_broken_edit_changes_nothing_and_says_why() {
    let mut server = Server::start(&format!("{WHOAMI}\n"));
    server.write(".:0 {\n bind 127.0.0.1\n whoamy\n}\n");
    server.signal("HUP");
    let line = server.wait_for("Restart failed");
    assert!(
        line.starts_with("[ERROR] Restart failed: Dnsfile:3:2: "),
        "{line}"
    );
    Udp::connect(server.address()).ask(&question(1, "example.org"));
    // A port that cannot be had is as bad as a wrong word.
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    server.write(&format!(
        "{WHOAMI}example.org:{port} {{\n bind 127.0.0.1\n whoami\n}}\n"
    ));
    server.signal("HUP");
    assert!(server.wait_for("Restart failed").contains("in use by"));
    Udp::connect(server.address()).ask(&question(2, "example.org"));
    server.write(WHOAMI);
    server.reload();
    Udp::connect(server.address()).ask(&question(3, "example.org"));
}

#[test]
fn a_reload_opens_and_closes_addresses() {
    let mut server = Server::start(WHOAMI);
    let old = server.address();
    let mut idle = Tcp::connect(old);
    idle.send(&question(1, "example.org"));
    idle.receive();
    let free = UdpSocket::bind("127.0.0.2:0").expect("a free port");
    let new = free.local_addr().expect("it is bound");
    drop(free);
    server.write(&format!(
        ".:{} {{\n bind 127.0.0.2\n whoami\n}}\n",
        new.port()
    ));
    server.reload();
    Udp::connect(new).ask(&question(2, "example.org"));
    // Nobody is left to answer on the old address: connections end, new ones are refused.
    idle.wait_for_end();
    assert!(std::net::TcpStream::connect(old).is_err());
}

#[test]
fn the_reload_plugin_sees_a_changed_dnsfile() {
    let with = format!("{WHOAMI}example.org:0 {{\n bind 127.0.0.1\n reload 2s 0\n}}\n");
    let mut server = Server::start(&with);
    server.wait_for("SHA512 = ");
    // Another comment is no other Dnsfile; another block is.
    server.write(&format!("{with}# nothing new\n"));
    server.write(&format!(
        "{with}example.net:0 {{\n bind 127.0.0.1\n whoami\n}}\n"
    ));
    server.wait_for("Reloading complete");
}

#[test]
fn a_stop_answers_what_is_under_way() {
    let upstream = Upstream::start();
    let mut server = Server::start(&format!(
        ".:0 {{\n bind 127.0.0.1\n forward . {} {{\n prefer_udp\n }}\n}}\n",
        upstream.address
    ));
    let udp = Udp::connect(server.address());
    let mut tcp = Tcp::connect(server.address());
    udp.send(&question(1, "held.example.org"));
    upstream.wait();
    tcp.send(&question(2, "held2.held.example.org"));
    upstream.wait();
    server.signal("TERM");
    upstream.release();
    assert_eq!(id(&udp.receive()), 1);
    assert_eq!(id(&tcp.receive()), 2);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_reload_answers_what_is_under_way() {
    let upstream = Upstream::start();
    let dnsfile = format!(
        ".:0 {{\n bind 127.0.0.1\n forward . {} {{\n prefer_udp\n }}\n}}\n",
        upstream.address
    );
    let mut server = Server::start(&dnsfile);
    let udp = Udp::connect(server.address());
    let mut tcp = Tcp::connect(server.address());
    udp.send(&question(1, "held.example.org"));
    upstream.wait();
    tcp.send(&question(2, "held.example.net"));
    upstream.wait();
    server.write(WHOAMI);
    server.reload();
    // The new one answers by itself, on the same connection, while the old one still waits.
    udp.send(&question(3, "example.org"));
    assert_eq!(id(&udp.receive()), 3);
    upstream.release();
    assert_eq!(id(&udp.receive()), 1);
    assert_eq!(id(&tcp.receive()), 2);
    tcp.send(&question(4, "example.org"));
    assert_eq!(id(&tcp.receive()), 4);
}

#[test]
fn lameduck_answers_and_a_second_signal_cuts_it_short() {
    let dnsfile = ".:0 {\n bind 127.0.0.1\n whoami\n health 127.0.0.1:0 {\n lameduck 1h\n }\n}\n";
    let mut server = Server::start(dnsfile);
    server.signal("TERM");
    server.wait_for("Going into lameduck mode for 3600s");
    Udp::connect(server.address()).ask(&question(1, "example.org"));
    assert!(http("GET", &server.urls[0]).0.starts_with("HTTP/1.1 200 "));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(2));
}

#[test]
fn http_endpoints_know_their_methods_and_paths() {
    let dnsfile = ".:0 {\n bind 127.0.0.1\n whoami\n prometheus 127.0.0.1:0\n}\n";
    let mut server = Server::start(dnsfile);
    Udp::connect(server.address()).ask(&question(1, "example.org"));
    let url = server.urls[0].clone();
    server.reload();
    let (head, body) = http("GET", &url);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    for name in [
        "coredns_build_info{",
        "process_open_fds ",
        "coredns_dns_requests_total{",
    ] {
        assert!(body.contains(name), "{name}");
    }
    let (head, body) = http("HEAD", &url);
    assert!(
        head.starts_with("HTTP/1.1 200 ") && body.is_empty(),
        "{head}"
    );
    assert!(http("POST", &url).0.starts_with("HTTP/1.1 405 "));
    assert!(
        http("GET", &format!("{url}/x"))
            .0
            .starts_with("HTTP/1.1 404 ")
    );
}
